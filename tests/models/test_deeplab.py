"""DeepLabv2: strides, dilations and heads as published, all four rates at work."""

import pytest
import torch
import torchvision
from torch import nn

from micro_lib.models import deeplab, unet
from micro_lib.models.discriminator import discriminator


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return deeplab.build(3, "random", backbone="resnet50")


def test_paper_networks_take_the_published_tiles():
    with torch.device("meta"):  # shapes alone: nothing is computed
        made = {
            "deeplab": deeplab.build(2, "random"),
            "vgg16": unet.TwoLevels(unet.build("vgg16", 2, "random")),
        }
        for side in (636, 640):
            for network in made.values():
                levels = network.levels(torch.empty(2, 1, side, side))
                assert levels.main.shape == levels.auxiliary.shape == (2, 2, side, side)
                assert discriminator(2)(levels.main).shape[:2] == (2, 1)
    parameters = sum(p.numel() for p in made["deeplab"].encoder.parameters())
    published = sum(p.numel() for p in torchvision.models.resnet101().parameters())
    assert parameters == published - 2 * 64 * 49 - 2048 * 1000 - 1000  # one channel in, no classifier


def test_heads_see_an_eighth_of_the_resolution(small):
    small.eval()
    with torch.no_grad():
        seen = small.encoder(torch.randn(1, 1, 96, 64))
        levels = small.levels(torch.randn(1, 1, 93, 61))
    assert seen["auxiliary"].shape == (1, 1024, 12, 8) and seen["main"].shape == (1, 2048, 12, 8)
    assert levels.main.shape == levels.auxiliary.shape == (1, 3, 93, 61)
    dilations = {tuple(block.conv2.dilation) for block in small.encoder["layer4"]}
    assert dilations == {(2, 2), (4, 4)}  # torchvision's first block keeps the dilation of the stage before


def test_every_rate_adds_its_part(small):
    head, features = small.main, torch.randn(1, 2048, 30, 30)
    assert [convolution.dilation[0] for convolution in head] == [6, 12, 18, 24]
    with torch.no_grad():
        whole = head(features)
        parts = [convolution(features) for convolution in head]
        torch.testing.assert_close(whole, torch.stack(parts).sum(0))
        assert all(part.std() > 0 for part in parts)
        assert not torch.allclose(whole, parts[0] + parts[1], atol=1e-3)


def test_the_ancestors_two_rates_are_an_option():
    made = deeplab.build(2, "random", backbone="resnet50", rates=deeplab.ANCESTOR_RATES)
    assert [convolution.dilation[0] for convolution in made.auxiliary] == [6, 12]


def test_scales_and_shifts_of_normalisation_are_frozen_and_statistics_are_not(small):
    small.train()
    norm = small.encoder["bn1"]
    before = norm.running_mean.clone()
    with torch.no_grad():
        small.levels(1 + torch.randn(2, 1, 64, 64))
    assert not norm.weight.requires_grad and not norm.bias.requires_grad
    assert not torch.equal(before, norm.running_mean)
    trained = [name for name, p in small.named_parameters() if p.requires_grad]
    assert not any("bn" in name for name in trained) and "encoder.conv1.weight" in trained


def test_three_equal_channels_are_one(monkeypatch):
    rgb = torchvision.models.resnet50()
    monkeypatch.setattr(deeplab, "resnet_states", lambda name: rgb.state_dict())
    made = deeplab.build(2, backbone="resnet50")
    torch.testing.assert_close(made.encoder["conv1"].weight, rgb.conv1.weight.sum(1, keepdim=True))
    grey = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(made.encoder["conv1"](grey), rgb.conv1(grey.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)


def test_groups_for_learning_rates(small):
    encoder, heads = unet.parameter_groups(small)
    assert {id(p) for p in heads} == {id(p) for p in nn.ModuleList([small.main, small.auxiliary]).parameters()}
    assert len(encoder) + len(heads) == len(list(small.parameters()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"weights": "coco"}, "weights is 'coco'"), ({"backbone": "resnet18"}, "backbone is 'resnet18'; there are resn")],
)
def test_unknown_names_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        deeplab.build(2, **arguments)
