"""From boundary probabilities to a closed network of boundaries, as grains need it."""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.morphology import h_minima
from skimage.segmentation import find_boundaries, watershed

from micro_lib.analysis.metrics import redraw

DEPTH = 0.15  # a shallower basin of probability is no grain of its own; of 0.1 to 0.3, picked on 316L development


def close_boundaries(probability: ArrayLike, width_px: int, smoothing_px: float = 2.0) -> NDArray[np.uint8]:
    """Draw the closed boundary network that a boundary probability implies.

    Grain boundaries have no loose ends, thresholded probabilities do. The watershed of the smoothed probability,
    flooded from its minima of at least `DEPTH`, keeps a line where it parts two grains and drops it where it ends
    inside one; lines are then drawn `width_px` wide, because width is a convention of whoever drew the truth.

    Parameters
    ----------
    probability : (H, W) float
        Of boundary, 0 to 1.
    width_px : int
        Full width of the lines drawn, 1 or more.
    smoothing_px : float
        Standard deviation of the Gaussian that removes minima between pixels; about one pixel of the network's view.

    Returns
    -------
    (H, W) uint8
        1 on a boundary, 0 in a grain; all 0 where there is a single grain.

    Raises
    ------
    ValueError
        If the probability is not (H, W) within 0 to 1, or the width is below 1.
    """
    probability = np.asarray(probability, np.float32)
    if probability.ndim != 2 or not (probability.min() >= 0 and probability.max() <= 1):
        raise ValueError(f"a probability is (H, W) within 0 to 1, found {probability.shape}")
    smooth = cv2.GaussianBlur(probability, (0, 0), smoothing_px)
    _, markers = cv2.connectedComponents(h_minima(smooth, DEPTH).astype(np.uint8), connectivity=8)
    return redraw(find_boundaries(watershed(smooth, markers), mode="inner"), width_px)
