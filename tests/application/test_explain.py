"""Grad-CAM: by hand on a network whose evidence is known, and where it points on a network that learned it."""

import numpy as np
import pytest
import torch
from helpers.two_levels import Tiny, micrographs
from torch import nn

from micro_lib.application.explain import deep_layer, grad_cam, inside, layers
from micro_lib.models import unet
from micro_lib.models.segmenter import standardise
from micro_lib.training.adaptation import build


class TwoChannels(nn.Module):
    """Its layer holds the image and its negative; class 1 is twice the one, class 0 three times the other."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
        self.layer.weight.data[:, 0, 0, 0] = torch.tensor([1.0, -1.0])
        self.head.weight.data[:, :, 0, 0] = torch.tensor([[0.0, 3.0], [2.0, 0.0]])

    def forward(self, images):
        return self.head(self.layer(images))


def test_a_layer_whose_evidence_is_known():
    image = np.full((32, 64), 100, np.uint8)
    image[:, 40:] = 180
    network = TwoChannels().eval()
    assert layers(network) == ["layer", "head"]
    for class_id, evidence in ((1, standardise(image)), (0, -standardise(image))):
        expected = evidence.clip(0) / evidence.max()  # the other channel's gradient is 0
        np.testing.assert_allclose(grad_cam(network, image, "layer", class_id), expected, atol=1e-6)


def test_a_class_that_is_given_nowhere_has_no_map():
    network = TwoChannels().eval()
    network.head.bias = nn.Parameter(torch.tensor([99.0, 0.0]))
    heat = grad_cam(network, np.arange(1024, dtype=np.uint8).reshape(32, 32), "layer", 1)
    assert heat.shape == (32, 32) and not heat.any()


@pytest.mark.parametrize("shape", [(64, 64), (50, 70)])
def test_any_convolution_of_a_real_network_and_any_size(shape):
    network = unet.TwoLevels(unet.build("lite0", 2, "random")).eval()
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for layer in (layers(network)[5], layers(network)[-3]):
        heat = grad_cam(network, image, layer, 1)
        assert heat.shape == shape and heat.dtype == np.float32 and 0 <= heat.min() <= heat.max() <= 1
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(ValueError, match=r"layer is 'conv9'; there are network.encoder"):
        grad_cam(network, image, "conv9", 1)


@pytest.mark.parametrize(
    ("architecture", "where"), [("lite0", "decoder"), ("vgg16", "decoder"), ("deeplabv2", "layer4")]
)
def test_every_architecture_has_a_deep_layer(architecture, where):
    network = build(architecture, 2, "random").eval()
    name = deep_layer(network)
    assert where in name and name in layers(network)
    heat = grad_cam(network, np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8), name, 1)
    assert heat.shape == (64, 64) and 0 <= heat.min() <= heat.max() <= 1


def test_a_trained_network_looks_at_what_it_finds():
    torch.manual_seed(0)
    network, made = Tiny(), micrographs(4)
    images = torch.stack([torch.from_numpy(standardise(m.image))[None] for m in made])
    masks = torch.stack([torch.from_numpy(m.mask).long() for m in made])
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), masks).backward()
        optimizer.step()
    found = grad_cam(network.eval(), made[0].image, "encoder.0", 1)
    assert inside(found, made[0].mask == 1) > 1.5, "the bright square fills a quarter of the micrograph"


def test_heat_inside_by_hand():
    heat, mask = np.zeros((4, 4), np.float32), np.zeros((4, 4), bool)
    mask[:2] = True
    heat[0], heat[2] = 3.0, 1.0
    assert inside(heat, mask) == pytest.approx(0.75 / 0.5)
    assert np.isnan(inside(heat, mask & False)) and np.isnan(inside(0 * heat, mask))
    assert inside(np.ones((4, 4)), mask) == pytest.approx(1)
