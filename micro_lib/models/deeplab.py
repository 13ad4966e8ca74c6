"""DeepLabv2 on ResNet-101 with outputs on two levels, the segmenter of AdaptSegNet (Tsai et al. 2018)."""

from collections.abc import Sequence

import torch
import torchvision
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter

from micro_lib.core.checks import one_of
from micro_lib.models.unet import Levels, one_channel, resnet_states

RATES = (6, 12, 18, 24)
# The published code of AdaptSegNet returned inside its loop over the rates and so added up the first two alone
# (its issues 4, 20 and 73); its published scores were reached with that.
ANCESTOR_RATES = RATES[:2]
BACKBONES = ("resnet101", "resnet50")
WIDTH = 2048  # channels of their last stage; the third has half as many


def build(
    n_classes: int = 2, weights: str = "imagenet", *, backbone: str = "resnet101", rates: Sequence[int] = RATES
) -> "DeepLab":
    """Return DeepLabv2 for single-channel images.

    Parameters
    ----------
    n_classes : int
        At least 2.
    weights : str
        Of the ResNet: ``"imagenet"`` or ``"random"``.
    backbone : str
        ``"resnet101"`` as published, or ``"resnet50"``.
    rates : sequence of int
        Dilations whose outputs are added up.

    Returns
    -------
    DeepLab
        Its `forward` gives the main output alone, (B, n_classes, H, W) logits.

    Raises
    ------
    ValueError
        If a name is unknown.
    WeightsUnavailable
        If the ImageNet weights cannot be had.
    """
    one_of("weights", weights, ("imagenet", "random"))
    one_of("backbone", backbone, BACKBONES)
    resnet = torchvision.models.get_model(backbone, replace_stride_with_dilation=(False, True, True))
    if weights == "imagenet":
        resnet.load_state_dict(resnet_states(backbone))
    return DeepLab(resnet, n_classes, rates)


class DeepLab(nn.Module):
    """Dilated ResNet at an eighth of the resolution with one head behind its third and one behind its fourth stage.

    DEVIATION: the ResNet is torchvision's. AdaptSegNet's strides in the first convolution of a block instead of the
    second, rounds up where it pools, and dilates the first block of the last two stages by 2 and 4 as all others of
    them; here these two blocks have the dilation of the stage before, 1 and 2.

    Parameters
    ----------
    resnet : torchvision.models.ResNet
        Its last two stages dilated, by 2 and 4 behind their first block, instead of strided.
    n_classes : int
        Number of classes.
    rates : sequence of int
        Dilations of the heads.
    """

    def __init__(self, resnet: torchvision.models.ResNet, n_classes: int, rates: Sequence[int] = RATES):
        super().__init__()
        self.encoder = IntermediateLayerGetter(one_channel(resnet), {"layer3": "auxiliary", "layer4": "main"})
        for module in self.encoder.modules():
            if isinstance(module, nn.BatchNorm2d):  # scale and shift stay, statistics follow both domains
                module.requires_grad_(False)
        self.main, self.auxiliary = _Pyramid(WIDTH, n_classes, rates), _Pyramid(WIDTH // 2, n_classes, rates)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the main output, (B, C, H, W) logits, for images (B, 1, H, W); see `levels`."""
        return self.levels(images).main

    def levels(self, images: torch.Tensor) -> Levels:
        """Return the logits of both levels, (B, C, H, W) each, for images (B, 1, H, W) of any size from 32 px."""
        seen = self.encoder(images)
        heads = {"main": self.main, "auxiliary": self.auxiliary}
        made = {name: _resized(head(seen[name]), images) for name, head in heads.items()}
        return Levels(**made)


class _Pyramid(nn.ModuleList):
    """3x3 convolutions of several dilations, added up."""

    def __init__(self, width: int, n_classes: int, rates: Sequence[int]):
        super().__init__(nn.Conv2d(width, n_classes, 3, padding=rate, dilation=rate) for rate in rates)
        for convolution in self:
            nn.init.normal_(convolution.weight, 0, 0.01)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return sum(convolution(features) for convolution in self)


def _resized(logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)
