"""Classifiers: one grey channel in, two logits out, ImageNet weights or a clear refusal."""

import numpy as np
import pytest
import torch
import torchvision
from fastai.data.core import DataLoaders
from torch.utils.data import DataLoader

from micro_lib.models import classifier
from micro_lib.models.classifier import crack_probability, learner
from micro_lib.models.unet import WeightsUnavailable, lite0_states


def loaders():
    loader = DataLoader([(torch.randn(2, 1, 64, 64), torch.tensor([0, 1]))], batch_size=None)
    loader.device = torch.device("cpu")
    return DataLoaders(loader, loader)


def make(architecture, weights="imagenet"):
    torch.manual_seed(0)
    return learner(loaders(), architecture, weights, loss_func=torch.nn.functional.cross_entropy)


@pytest.fixture(scope="module")
def lite0():
    return make("lite0")


def test_one_channel_in_two_classes_out(lite0):
    lite0.model.eval()
    assert lite0.model(torch.randn(3, 1, 96, 96)).shape == (3, 2)


def test_the_body_has_the_shipped_weights_and_is_frozen(lite0):
    first = lite0.model[0][0]
    assert torch.equal(first.weight, lite0_states()["conv_stem.weight"])
    last = [m for m in lite0.model[0].modules() if isinstance(m, torch.nn.Conv2d)][-1]
    assert torch.equal(last.weight, lite0_states()["conv_head.weight"])
    lite0.freeze()
    assert not first.weight.requires_grad
    assert all(p.requires_grad for p in lite0.model[1].parameters())


def test_its_features_are_those_of_the_whole_network(lite0):
    lite0.model.eval()
    x = torch.randn(1, 1, 64, 64)
    network = classifier._lite0(True).eval()
    torch.testing.assert_close(lite0.model[0](x), network.forward_features(x))


def test_random_weights_are_others():
    body = make("lite0", "random").model[0]
    assert not torch.equal(body[0].weight, lite0_states()["conv_stem.weight"])


def test_the_papers_network_takes_a_step():
    learn = make("resnet50", "random")
    expected = sum(p.numel() for p in torchvision.models.resnet50().layer3.parameters())
    assert sum(p.numel() for p in learn.model[0][6].parameters()) == expected
    head = [m for m in learn.model[1].modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in head] == [(4096, 512), (512, 2)]  # as fastai 1.0.51's cnn_learner
    x, y = learn.dls.train.dataset[0]
    loss = learn.loss_func(learn.model(x), y)
    loss.backward()
    assert all(p.grad is not None for p in learn.model.parameters())


def test_three_equal_channels_and_their_sum_are_the_same(monkeypatch):
    torch.manual_seed(1)
    plain = torchvision.models.resnet50().eval()
    monkeypatch.setattr(classifier, "resnet_states", lambda name: plain.state_dict())
    grey = classifier._resnet50(True).eval()
    x = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(grey(x), plain(x.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)


def test_weights_that_cannot_be_had_are_never_replaced_by_random_ones(monkeypatch):
    def refuse(name):
        raise WeightsUnavailable(f"no weights of {name}")

    monkeypatch.setattr(classifier, "resnet_states", refuse)
    with pytest.raises(WeightsUnavailable, match="resnet50"):
        make("resnet50")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("vgg", "imagenet"), "architecture is 'vgg'; there are lite0, resnet50"),
        (("lite0", "best"), "weights is 'best'; there are imagenet, random"),
    ],
)
def test_unknown_names_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        make(*names)


def test_probabilities_do_not_depend_on_brightness_contrast_or_batch(lite0):
    tiles = np.random.default_rng(0).integers(60, 120, (5, 64, 64), np.uint8)
    plain = crack_probability(lite0.model, tiles)
    assert plain.shape == (5,) and ((0 <= plain) & (plain <= 1)).all()
    np.testing.assert_allclose(crack_probability(lite0.model, tiles * 2 + 10, batch=2), plain, atol=1e-4)
    assert not lite0.model.training
