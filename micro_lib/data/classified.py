"""Labelled tiles for a classifier, and batches of them changed at random: a whole batch in one affine resampling."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from micro_lib.core.seeds import stream
from micro_lib.data.files import to_uint8
from micro_lib.data.records import Record

# Ranges of the random changes: Trampert et al. 2021 name zoom, rotation and lighting without numbers.
ZOOM = (0.9, 1.2)  # at 1.2 the inner 107 of 128 px remain, and a tile's crack lies in the inner 96
# No quarter turns: cracks run through the thickness of a layer, interfaces along it, and both stay so.
ROTATION_DEG = 10.0  # DEVIATION: beside mirroring both ways, which the paper does not name
MOVED = 0.75  # share of the tiles that are zoomed and rotated, as fastai 1.0.51's get_transforms has it
BRIGHTNESS = 0.15  # added to grey values between 0 and 1
CONTRAST = 1.33  # factor, or its inverse
GAMMA = 1.5  # power, or its inverse


class Classified(NamedTuple):
    """Tiles in memory with a label each."""

    images: np.ndarray  # (N, H, W) uint8
    labels: np.ndarray  # (N,) int64: 0 no crack, 1 crack


def classified(records: Iterable[Record]) -> Classified:
    """Return records as labelled tiles: a tile whose mask has a pixel above 0 shows a crack.

    Raises
    ------
    ValueError
        If there are none, or they differ in size, or they are not square.
    """
    records = list(records)
    shapes = {record.image.shape for record in records}
    if len(shapes) != 1 or len(set(*shapes)) != 1:
        raise ValueError(f"a classifier takes square tiles of one size; found {sorted(shapes) or 'none'}")
    images = np.stack([to_uint8(record.image) for record in records])
    return Classified(images, np.array([int(record.mask.any()) for record in records]))


def standardised(images: torch.Tensor) -> torch.Tensor:
    """Return tiles (B, H, W) as (B, 1, H, W) float32 with mean 0 and standard deviation 1 each; constant ones are 0."""
    centred = images - images.mean((1, 2), keepdim=True)
    return (centred / centred.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-6))[:, None]


def changed(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return tiles mirrored, rotated, zoomed and lit at random, then `standardised`.

    Parameters
    ----------
    images : torch.Tensor
        (B, H, H) uint8.
    rng : numpy.random.Generator
        Decides everything.

    Returns
    -------
    torch.Tensor
        (B, 1, H, H) float32.
    """
    grid = torch.nn.functional.affine_grid(
        _placements(len(images), rng).to(images.device), [len(images), 1, *images.shape[1:]], align_corners=False
    )
    grey = torch.nn.functional.grid_sample(
        images[:, None].float() / 255, grid, padding_mode="reflection", align_corners=False
    )[:, 0]  # (B, H, H)
    return standardised(_lit(grey, rng))


def _placements(n: int, rng: np.random.Generator) -> torch.Tensor:
    """Draw (n, 2, 3) matrices from the coordinates of a changed tile to those of its original, both in [-1, 1]."""
    moved = rng.random(n) < MOVED
    angle = np.radians(rng.uniform(-ROTATION_DEG, ROTATION_DEG, n)) * moved
    scale = np.where(moved, np.exp(-rng.uniform(*np.log(ZOOM), n)), 1.0)
    across, down = rng.choice([-1.0, 1.0], (2, n))
    sine, cosine, zero = scale * np.sin(angle), scale * np.cos(angle), np.zeros(n)
    rows = np.stack([[cosine * across, -sine * down, zero], [sine * across, cosine * down, zero]])  # (2, 3, n)
    return torch.from_numpy(rows.transpose(2, 0, 1).astype(np.float32))


def _lit(grey: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Change brightness, contrast and gamma of tiles (B, H, W) of grey values in [0, 1], which are clipped to that."""

    def draw(low, high):
        values = rng.uniform(low, high, len(grey)).astype(np.float32)
        return torch.from_numpy(values)[:, None, None].to(grey.device)

    contrast = draw(-math.log(CONTRAST), math.log(CONTRAST)).exp()
    mean = grey.mean((1, 2), keepdim=True)
    lit = ((grey - mean) * contrast + mean + draw(-BRIGHTNESS, BRIGHTNESS)).clamp(0, 1)
    return lit ** draw(-math.log(GAMMA), math.log(GAMMA)).exp()


class Batches(Dataset):
    """Training batches, each a pure function of (seed, number): item i is what step i is trained on.

    Tiles are taken in random order, every one once before any comes again. A batch is always full: where there are
    fewer tiles than that, it holds some more than once, each changed in its own way.

    Parameters
    ----------
    tiles : Classified
        In memory.
    steps : int
        Number of batches.
    batch : int
        Tiles a batch.
    seed : int
        Of the order and the changes.
    device : str
        Where the batches are made.
    """

    def __init__(self, tiles: Classified, steps: int, batch: int, *, seed: int, device: str = "cpu"):
        self.images, self.labels = (torch.from_numpy(part).to(device) for part in tiles)
        self.steps, self.batch, self.seed = steps, batch, seed
        rounds = -(-steps * batch // len(tiles.labels))
        orders = [stream(seed, "order", number).permutation(len(tiles.labels)) for number in range(rounds)]
        self.order = torch.from_numpy(np.concatenate(orders)).to(device)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return batch `number`: images (B, 1, H, H) float32, standardised, and labels (B,) int64."""
        if not 0 <= number < self.steps:
            raise IndexError(f"batch {number} of {self.steps}")
        chosen = self.order[number * self.batch : (number + 1) * self.batch]
        return changed(self.images[chosen], stream(self.seed, "changes", number)), self.labels[chosen]
