"""The discriminator: published layers, and nothing that a single class could hide behind."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from micro_lib.models.discriminator import PUBLISHED_WIDTH, discriminator


def test_published_layers():
    made = discriminator(2)
    convolutions = [layer for layer in made if isinstance(layer, nn.Conv2d)]
    assert PUBLISHED_WIDTH == 64
    assert [c.out_channels for c in convolutions] == [64, 128, 256, 512, 1]
    assert all((c.kernel_size, c.stride, c.padding) == ((4, 4), (2, 2), (1, 1)) for c in convolutions)
    assert [layer.negative_slope for layer in made if isinstance(layer, nn.LeakyReLU)] == [0.2] * 4
    counts = [16 * a * b + b for a, b in pairwise([2, 64, 128, 256, 512, 1])]
    assert sum(p.numel() for p in made.parameters()) == sum(counts)


@pytest.mark.parametrize(("n_classes", "size"), [(2, (32, 64)), (3, (96, 96))])
def test_it_says_one_number_a_patch(n_classes, size):
    assert discriminator(n_classes, 4)(torch.rand(2, n_classes, *size)).shape == (2, 1, size[0] // 32, size[1] // 32)


def test_one_channel_is_refused():
    with pytest.raises(ValueError, match="n_classes is 1; a single channel is 1 after a softmax"):
        discriminator(1)
