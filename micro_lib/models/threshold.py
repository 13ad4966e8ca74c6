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
from tqdm.auto import tqdm

from micro_lib.analysis.metrics import confusion, mean_iou


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
        """Return the boundary mask (H, W) uint8, 1 on the boundary, of a grey image (H, W) uint8, uint16 or float32.

        A flat image has no boundary.  The threshold is Otsu's (1979), taken from the blurred image in the depth it
        comes in.
        """
        if pixels.ndim != 2:
            raise ValueError(f"thresholding takes one grey image (H, W), found shape {pixels.shape}")
        blurred = cv2.GaussianBlur(pixels, (0, 0), self.sigma_px) if self.sigma_px else pixels
        dark = (blurred < threshold_otsu(blurred)).astype(np.uint8)
        if self.closing_px:
            disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (self.closing_px, self.closing_px))
            dark = cv2.morphologyEx(dark, cv2.MORPH_CLOSE, disc)
        _, components, table, _ = cv2.connectedComponentsWithStats(dark)
        kept = table[:, cv2.CC_STAT_AREA] >= self.min_area_px
        kept[0] = False  # what is not dark
        return kept[components].astype(np.uint8)


REFERENCE = Threshold()


def tune(
    images: Sequence[NDArray], masks: Sequence[NDArray], grid: Mapping[str, Iterable[float]]
) -> tuple[Threshold, pd.DataFrame]:
    """Pick the settings with the best mean over images of the mean IoU; never weaker than `REFERENCE` on these images.

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
        The pick, and every setting tried with its ``miou``; the reference is its first row and wins ties.

    Raises
    ------
    ValueError
        No image, or not as many masks as images.
    """
    if not images or len(images) != len(masks):
        raise ValueError(f"tuning needs as many masks as images, at least one: found {len(images)} and {len(masks)}")
    tried = dict.fromkeys(
        [REFERENCE, *(Threshold(**dict(zip(grid, point, strict=True))) for point in product(*grid.values()))]
    )
    rows = []
    for setting in tqdm(tried, desc="thresholding", unit="setting", delay=5):
        scores = [
            mean_iou(confusion(mask > 0, setting.segment(image), 2)) for image, mask in zip(images, masks, strict=True)
        ]
        rows.append(asdict(setting) | {"miou": float(np.mean(scores))})
    table = pd.DataFrame(rows)
    return list(tried)[int(table["miou"].argmax())], table
