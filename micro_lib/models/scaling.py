"""Segmentation at the magnification a network was trained for, whatever the grain size of the micrograph."""

from typing import NamedTuple

import numpy as np

from micro_lib.analysis.metrics import TEST_LINE_SPACING_PX, mean_intercept_px
from micro_lib.models.segmenter import Segmenter

LARGEST_SCALE = 4.0  # beyond this, either way, an image holds too few pixels a grain, or grains
NO_BOUNDARY = "no grain boundary was found, or too few to measure"


class Segmented(NamedTuple):
    """One micrograph after segmentation."""

    mask: np.ndarray  # (H, W) uint8 class ids
    grain_px: float  # mean intercept at the image's own scale; NaN where there are too few boundaries to measure
    scale: float  # magnification the network saw it at
    warning: str  # "" or why the result is to be looked at


def segment_micrograph(
    segmenter: Segmenter, pixels: np.ndarray, grain_px: float | None = None, line_px: int = 0
) -> Segmented:
    """Segment one micrograph, magnified or reduced so that its grains have a size the network was trained for.

    Parameters
    ----------
    segmenter : Segmenter
        Its card holds the trained range.
    pixels : numpy.ndarray
        (H, W) grey levels.
    grain_px : float, optional
        Mean intercept in pixels; otherwise a first pass at scale 1 estimates it.
    line_px : int
        Width boundaries are drawn with; 0 is the segmenter's own.

    Returns
    -------
    Segmented
        With a warning where the grains are outside the trained range, or no boundaries to measure were found.
    """
    first = segmenter.segment(pixels, line_px=line_px) if grain_px is None else None
    estimate = _intercept_px(first) if grain_px is None else grain_px
    if np.isnan(estimate):
        return Segmented(first, estimate, 1.0, NO_BOUNDARY)
    scale = scale_for(estimate, segmenter.card.grain_px)
    mask = first if first is not None and scale == 1 else segmenter.segment(pixels, scale, line_px)
    found = _intercept_px(mask)
    return Segmented(mask, found, scale, _range_warning(estimate, found, scale, segmenter.card.grain_px))


def scale_for(grain_px: float, trained: tuple[float, float]) -> float:
    """Return the magnification that brings a grain size into the trained range; 1 inside it.

    Parameters
    ----------
    grain_px : float
        Mean intercept of the micrograph in px, above 0.
    trained : (float, float)
        Lowest and highest mean intercept in px that the network was trained for.

    Returns
    -------
    float
        From 1 / `LARGEST_SCALE` to `LARGEST_SCALE`, even if that does not suffice.
    """
    low, high = trained
    wanted = min(max(grain_px, low), high) / grain_px
    return min(max(wanted, 1 / LARGEST_SCALE), LARGEST_SCALE)


def _intercept_px(mask: np.ndarray) -> float:
    """Return the mean intercept, NaN where the test lines cross fewer than two boundaries."""
    found = mean_intercept_px(mask)
    return found if found < sum(lines[::TEST_LINE_SPACING_PX].size for lines in (mask, mask.T)) else float("nan")


def _range_warning(estimate: float, found: float, scale: float, trained: tuple[float, float]) -> str:
    low, high = trained
    limits = f"{low:.0f} to {high:.0f} px the model was trained for"
    words = []
    if scale != 1:
        words.append(
            f"grains of about {estimate:.0f} px are outside the {limits}: segmented at {scale:.2f} of its scale"
        )
    # A tenth is within what an estimate is good for.
    if np.isnan(found):
        words.append(NO_BOUNDARY)
    elif not 0.9 * low <= found * scale <= 1.1 * high:
        words.append(f"after that they measure {found * scale:.0f} px, still outside the {limits}: look at the overlay")
    return "; ".join(words)
