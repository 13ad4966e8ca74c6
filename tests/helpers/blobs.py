"""Pairs of blobs in a matrix: quick to make, as coarse, bright and noisy as wanted."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter


class Pair(NamedTuple):
    image: np.ndarray  # (H, W) uint8
    mask: np.ndarray  # (H, W) uint8, 0 matrix, 1 blobs
    group: str = ""


def blobs(seed, side_px=64, scale_px=3.0, level=0.4, noise=4.0, grey=120):
    """Return a pair: a smooth field above its quantile is blob, darker than the matrix."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.standard_normal((side_px, side_px)), scale_px, mode="wrap")
    mask = (field > np.quantile(field, 1 - level)).astype(np.uint8)
    image = grey - 30 * mask + noise * rng.standard_normal(mask.shape)
    return Pair(image.clip(0, 255).astype(np.uint8), mask, str(seed))
