"""Tile classifiers: fastai's vision_learner on a light pre-trained network, or on the ResNet50 of the crack paper."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import timm
import torch
import torchvision
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.vision.learner import default_split, model_meta, vision_learner
from torch import nn

from micro_lib.core.checks import one_of
from micro_lib.data.classified import standardised
from micro_lib.models.unet import lite0_states, one_channel, resnet_states


class _Architecture(NamedTuple):
    make: Callable[..., nn.Module]  # make(pretrained=...), whole network for one grey channel
    cut: Callable | int  # what of it is the body, as for fastai's cut_model
    split: Callable  # parameter groups of body and head, as fastai has them for this network


def learner(loaders: DataLoaders, architecture: str, weights: str = "imagenet", **options) -> Learner:
    """Return fastai's vision_learner for grey tiles of two classes: body, concatenated pooling, 512 units, 2 logits.

    Parameters
    ----------
    loaders : fastai.data.core.DataLoaders
        Yield images (B, 1, H, W) float32, each standardised to mean 0 and standard deviation 1, and labels (B,) int64.
    architecture : str
        ``"lite0"`` (timm's tf_efficientnet_lite0, weights from a package) or ``"resnet50"`` (torchvision's, as
        Trampert et al. 2021, weights downloaded).
    weights : str
        Of the body: ``"imagenet"``, which leaves it frozen, or ``"random"``. The head is random (torch's default
        generator).
    **options
        As for `fastai.vision.learner.vision_learner`.

    Returns
    -------
    fastai.learner.Learner
        Its model maps (B, 1, H, W) to (B, 2) logits.

    Raises
    ------
    ValueError
        If a name is unknown.
    WeightsUnavailable
        If the ImageNet weights cannot be had; never random ones in their place.
    """
    one_of("architecture", architecture, ARCHITECTURES)
    one_of("weights", weights, ("imagenet", "random"))
    parts = ARCHITECTURES[architecture]
    # n_in is left at 3, at which fastai does not touch the first layer: `make` has adapted it to one channel already.
    return vision_learner(
        loaders,
        parts.make,
        n_out=2,
        normalize=False,
        pretrained=weights == "imagenet",
        cut=parts.cut,
        splitter=parts.split,
        **options,
    )


@torch.inference_mode()
def crack_probability(network: nn.Module, tiles: np.ndarray, batch: int = 64) -> np.ndarray:
    """Return how probable a crack is in each tile, by a network of `learner`.

    Parameters
    ----------
    network : torch.nn.Module
        Maps (B, 1, H, W) to (B, 2) logits; put into evaluation mode.
    tiles : numpy.ndarray
        (N, H, W) uint8; each is standardised by itself, so its mean grey tells nothing.
    batch : int
        Tiles at a time.

    Returns
    -------
    numpy.ndarray
        (N,) float64 in [0, 1].
    """
    network.eval()
    device = next(network.parameters()).device
    found = []
    for images in torch.from_numpy(np.ascontiguousarray(tiles)).split(batch):
        logits = network(standardised(images.to(device).float()))  # (B, 2)
        found.append(logits.float().softmax(1)[:, 1].double().cpu())
    return torch.cat(found).numpy()


def _lite0(pretrained: bool) -> nn.Module:
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, in_chans=1)
    if pretrained:
        network.load_state_dict(lite0_states())
    return network


def _lite0_body(network: nn.Module) -> nn.Module:
    """Return what timm's forward_features runs through: all but pooling and ImageNet's classifier."""
    return nn.Sequential(network.conv_stem, network.bn1, network.blocks, network.conv_head, network.bn2)


def _resnet50(pretrained: bool) -> nn.Module:
    network = torchvision.models.resnet50()
    if pretrained:
        network.load_state_dict(resnet_states("resnet50"))
    return one_channel(network)


ARCHITECTURES = {
    "lite0": _Architecture(_lite0, _lite0_body, default_split),
    "resnet50": _Architecture(_resnet50, -2, model_meta[torchvision.models.resnet50]["split"]),
}
