"""A tiny segmenter with outputs on two levels, and micrographs of two domains that differ in contrast."""

from contextlib import nullcontext

import numpy as np
import torch
from torch import nn

from micro_lib.data.framing import Framing
from micro_lib.data.tiles import Labelled
from micro_lib.models.unet import Levels
from micro_lib.training.adaptation_methods import Student, Weights
from micro_lib.training.supervised import LOSSES


class Tiny(nn.Module):
    """Sees 15 pixels; its `encoder` halves the image once."""

    def __init__(self, n_classes=2, width=8):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, width, 5, 2, 2), nn.BatchNorm2d(width), nn.ReLU())
        self.main, self.auxiliary = nn.Conv2d(width, n_classes, 3, 1, 1), nn.Conv2d(width, n_classes, 1)

    def forward(self, images):
        return self.levels(images).main

    def levels(self, images):
        features = self.encoder(images)
        return Levels(*(nn.functional.interpolate(h(features), images.shape[-2:]) for h in (self.main, self.auxiliary)))


def student(network, weights=None, margin_px=0, side_px=32):
    """Return a student in float32; tiles of `side_px`, whose margins do not count."""
    framing = Framing(1.0, side_px - 2 * margin_px, margin_px)
    return Student(network, LOSSES["cross_entropy"], weights or Weights(), framing.centre, nullcontext)


def micrographs(n=3, contrast=60, seed=0, px=64, rare=False):
    """Return micrographs with a bright square (class 1) and, where asked for, one spot of class 2 in the first."""
    rng, made = np.random.default_rng(seed), []
    for i in range(n):
        mask = np.zeros((px, px), np.uint8)
        y, x = rng.integers(0, px // 2, 2)
        mask[y : y + px // 2, x : x + px // 2] = 1
        if rare and i == 0:
            mask[8:18, 8:18] = 2
        image = 100 + contrast * (mask == 1) - contrast * (mask == 2) + rng.normal(0, 8, mask.shape)
        made.append(Labelled(image.clip(0, 255).astype(np.uint8), mask))
    return made


def same(a, b):
    """Tell whether two modules hold equal tensors, bit for bit."""
    first, second = a.state_dict(), b.state_dict()
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)
