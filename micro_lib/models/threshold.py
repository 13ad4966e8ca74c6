"""Thresholding, the baseline a trained grain segmenter has to beat: dark, connected and large enough is boundary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from micro_lib.analysis.metrics import score_boundaries
from micro_lib.core.progress import progress


@dataclass(frozen=True)
class Threshold:
    """Otsu threshold on a blurred image; the defaults are the untuned reference.

    `sigma_px` is the width of the Gaussian (0: none), `closing_px` the diameter of the disc that closes gaps (0: none),
    and components below `min_area_px` are dropped.
    """

    sigma_px: float = 2.0
    closing_px: int = 0
    min_area_px: int = 200

    def segment(self, pixels: NDArray) -> NDArray[np.uint8]:
        """Return the boundary mask (H, W) uint8, 1 on the boundary, of a grey image.

        A flat image has no boundary.  The threshold is Otsu's (1979), taken from the blurred image in the depth it
        comes in; the level at the threshold is dark.

        Parameters
        ----------
        pixels : (H, W) uint8, uint16 or float32
            Grey levels.

        Raises
        ------
        ValueError
            The image is not (H, W).
        """
        if pixels.ndim != 2:
            raise ValueError(f"thresholding takes one grey image (H, W), found shape {pixels.shape}")
        blurred = cv2.GaussianBlur(pixels, (0, 0), self.sigma_px) if self.sigma_px else pixels
        low, high = float(blurred.min()), float(blurred.max())
        if high - low <= 1e-6 * max(abs(low), abs(high)):  # of a constant image, but for the rounding of floats
            return np.zeros(pixels.shape, np.uint8)
        dark = (blurred <= threshold_otsu(blurred)).astype(np.uint8)
        if self.closing_px:
            disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (self.closing_px, self.closing_px))
            dark = cv2.morphologyEx(dark, cv2.MORPH_CLOSE, disc)
        _, components, table, _ = cv2.connectedComponentsWithStats(dark)
        kept = table[:, cv2.CC_STAT_AREA] >= self.min_area_px
        kept[0] = False  # what is not dark
        return kept[components].astype(np.uint8)


REFERENCE = Threshold()
COMPARED = {"miou": 1, "bf1_8px": 1, "intercept_rel_err": -1}  # the scores a model is compared by; -1: lower is better


def tune(
    images: Sequence[NDArray], masks: Sequence[NDArray], grid: Mapping[str, Iterable[float]]
) -> tuple[Threshold, pd.DataFrame]:
    """Pick the best mean IoU among the settings that are weaker than `REFERENCE` in none of the `COMPARED` scores.

    Scores are means over images.  Mean IoU alone would take a setting that gains a thousandth there and loses much
    elsewhere: a baseline easier to beat than the untuned one.

    Parameters
    ----------
    images : sequence of (H, W)
        Development images: what is tuned here must not be tested on.
    masks : sequence of (H, W)
        Their masks, above 0 is boundary.
    grid : mapping
        Values to try by setting, for example ``{"sigma_px": (1, 2, 3), "closing_px": (0, 5)}``.

    Returns
    -------
    Threshold, DataFrame
        The pick, and every setting tried with its means over images and whether it is ``admissible``; the reference is
        the first row and wins ties.

    Raises
    ------
    ValueError
        No image, or not as many masks as images.
    """
    if not images or len(images) != len(masks):
        raise ValueError(f"tuning needs as many masks as images, at least one: found {len(images)} and {len(masks)}")
    points = (dict(zip(grid, point, strict=True)) for point in product(*grid.values()))
    tried = list(dict.fromkeys([REFERENCE, *(Threshold(**point) for point in points)]))
    rows = []
    for setting in progress(tried, desc="thresholding", unit="setting"):
        scores = [score_boundaries(mask, setting.segment(image)) for image, mask in zip(images, masks, strict=True)]
        rows.append(asdict(setting) | pd.DataFrame(scores)[list(COMPARED)].mean().to_dict())
    table = pd.DataFrame(rows)
    gains = (table[list(COMPARED)] - table.loc[0, list(COMPARED)]) * pd.Series(COMPARED)
    table["admissible"] = (gains >= 0).all(axis=1)
    return tried[int(table["miou"].where(table["admissible"]).argmax())], table
