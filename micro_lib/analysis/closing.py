"""From boundary probabilities to a closed network of boundaries, as grains need it."""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.morphology import h_minima, skeletonize
from skimage.segmentation import find_boundaries, watershed

DEPTH = 0.15  # a shallower basin of probability is no grain of its own; of 0.1 to 0.3, picked on 316L development


def close_boundaries(
    probability: ArrayLike, width_px: int, smoothing_px: float = 2.0, depth: float = DEPTH
) -> NDArray[np.uint8]:
    """Draw the closed boundary network that a boundary probability implies.

    Grain boundaries have no loose ends, thresholded probabilities do. The watershed of the smoothed probability,
    flooded from its minima of at least `depth`, keeps a line where it parts two grains and drops it where it ends
    inside one; lines are then drawn `width_px` wide, because width is a convention of whoever drew the truth.

    Parameters
    ----------
    probability : (H, W) float
        Of boundary, 0 to 1.
    width_px : int
        Full width of the lines drawn, 1 or more.
    smoothing_px : float
        Standard deviation of the Gaussian that removes minima between pixels; about one pixel of the network's view.
    depth : float
        Between 0 and 1; more merges more grains.

    Returns
    -------
    (H, W) uint8
        1 on a boundary, 0 in a grain; all 0 where there is a single grain.

    Raises
    ------
    ValueError
        If the probability is not (H, W) within 0 to 1, or width or depth are out of range.
    """
    probability = np.asarray(probability, np.float32)
    if probability.ndim != 2 or not (probability.min() >= 0 and probability.max() <= 1):
        raise ValueError(f"a probability is (H, W) within 0 to 1, found {probability.shape}")
    if width_px < 1 or not 0 < depth < 1:
        raise ValueError(f"width_px is {width_px}, depth is {depth}; they must be at least 1 and between 0 and 1")
    smooth = cv2.GaussianBlur(probability, (0, 0), smoothing_px)
    _, markers = cv2.connectedComponents(h_minima(smooth, depth).astype(np.uint8), connectivity=8)
    lines = skeletonize(find_boundaries(watershed(smooth, markers), mode="inner"))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width_px, width_px))
    return cv2.dilate(lines.astype(np.uint8), disc)
