"""Is a set of generated micrographs like a set of real ones? Phases, sizes, arrangement and grey levels compared.

A pair is any named tuple with an `image` (H, W) of grey levels and a `mask` (H, W) of class ids. Both sets must have
one size, since what lies within a frame depends on it: `cut` the larger ones.

The unit of the real set is the specimen, that of the generated set the single pair: intervals are expanded percentiles
over resamples of those (Davison & Hinkley 1997, section 3.8; `stats.expanded_tail`), so they speak of other specimens
and of more pairs of the same generator, not of another generator.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from micro_lib.analysis.metrics import confusion, ratio
from micro_lib.analysis.stats import expanded_tail
from micro_lib.core.progress import progress

N_BOOT = 999
REACH_PX = 32  # largest distance of the two-point correlation that is compared


class Pair(Protocol):
    """A micrograph and its mask, in a named tuple."""

    image: NDArray  # (H, W)
    mask: NDArray  # (H, W)

    def _replace(self, **changes) -> "Pair": ...


class Weighted(NamedTuple):
    """Measurements with the weight of each."""

    values: NDArray[np.float64]  # (N,)
    weights: NDArray[np.float64]  # (N,)

    @property
    def mean(self) -> float:
        """Weighted mean, NaN of nothing."""
        return float(np.average(self.values, weights=self.weights)) if len(self.values) else np.nan


def cut(micrographs: Sequence[Pair], side_px: int) -> list[Pair]:
    """Return the whole windows of `side_px` x `side_px` px that lie side by side in micrographs, in reading order.

    Everything else a named tuple holds, such as the group of a record, goes along.

    Parameters
    ----------
    micrographs : sequence of Pair
        Sizes may differ; what is left over at the right and below is dropped.
    side_px : int
        Side of a window, 1 or more.

    Raises
    ------
    ValueError
        If a micrograph is smaller than a window.
    """
    windows = []
    for micrograph in micrographs:
        height, width = micrograph.mask.shape
        if not 1 <= side_px <= min(height, width):
            raise ValueError(f"windows of {side_px} px cannot be cut from a micrograph of {height} x {width} px")
        for y in range(0, height - side_px + 1, side_px):
            for x in range(0, width - side_px + 1, side_px):
                at = np.s_[y : y + side_px, x : x + side_px]
                windows.append(micrograph._replace(image=micrograph.image[at], mask=micrograph.mask[at]))
    return windows


# -------------------------------------------------------------------------------------------------------- one mask


def phase_fractions(mask: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """Return the share of the pixels (n_classes,) in each class, 0 to 1.

    Parameters
    ----------
    mask : integer or bool array, any shape
        Class ids in 0..n_classes-1.
    n_classes : int
        1 to 256.

    Raises
    ------
    ValueError, TypeError
        As `metrics.confusion` for ids outside the classes.
    """
    return np.diagonal(confusion(mask, mask, n_classes)) / np.size(mask)


def particles(mask: ArrayLike, class_id: int) -> Weighted:
    """Return the equivalent diameters of the particles of a class that the border does not cut.

    A particle is what hangs together over sides and corners of pixels; its diameter is that of the disc of its area.
    Large particles are cut more often, so each whole one is weighted with the inverse of the number of places at which
    its bounding box lies within the frame (Miles-Lantuejoul; Serra 1982, section VIII): weighted sums are unbiased, and
    the weights add up to the number of particles per pixel.

    Parameters
    ----------
    mask : (H, W) integer
        Class ids.
    class_id : int
        The class measured; it may be absent.

    Returns
    -------
    Weighted
        Diameters in px, weights in 1/px (of area).
    """
    phase = np.ascontiguousarray(np.asarray(mask) == class_id).view(np.uint8)
    _, _, found, _ = cv2.connectedComponentsWithStats(phase, connectivity=8)
    x, y, width, height, area = found[1:].T.astype(float)
    rows, columns = phase.shape
    whole = (x > 0) & (y > 0) & (x + width < columns) & (y + height < rows)
    places = (columns - width - 1) * (rows - height - 1)
    return Weighted(np.sqrt(4 / np.pi * area[whole]), 1 / places[whole])


class Intercepts(NamedTuple):
    """What test lines along all rows and columns meet of a class, from the first to the last pixel of each line."""

    length_px: float  # of the lines that lies in the class
    count: float  # of runs of the class: half the boundaries crossed, since a run has two ends

    @property
    def mean_px(self) -> float:
        """Mean intercept, NaN without a boundary."""
        return float(ratio(np.float64(self.length_px), np.float64(self.count)))


def intercepts(mask: ArrayLike, class_id: int) -> Intercepts:
    """Return how long test lines lie in a class and how often they cross its boundary.

    Length over count is the mean lineal intercept of stereology (Underwood 1970, section 2.4). No run is left out for
    being cut by the border, as it is where lengths of single runs are averaged: that drops the long ones. Summed over
    windows before they are divided, lengths and counts give what larger windows give.

    Parameters
    ----------
    mask : (H, W) integer
        Class ids.
    class_id : int
        The class measured; it may be absent.
    """
    phase, length, crossed = np.asarray(mask) == class_id, 0.0, 0
    for lines in (phase, phase.T):
        before, after = lines[:, :-1], lines[:, 1:]
        length += (np.count_nonzero(before) + np.count_nonzero(after)) / 2  # a step belongs half to either pixel
        crossed += np.count_nonzero(before != after)
    return Intercepts(length, crossed / 2)


def two_point(mask: ArrayLike, class_id: int, reach_px: int = REACH_PX) -> NDArray[np.float64]:
    """Return the probability that two pixels at a distance are both of a class, averaged over directions, by FFT.

    Parameters
    ----------
    mask : (H, W) integer
        Class ids; the frame is not taken to be periodic.
    class_id : int
        The class measured; it may be absent.
    reach_px : int
        Largest distance in px, below both sides of the mask.

    Returns
    -------
    (reach_px + 1,) float
        At distances of 0, 1, ... px, each to the nearest whole one; at 0 the fraction of the class.

    Raises
    ------
    ValueError
        If the mask is smaller than the reach.
    """
    phase = (np.asarray(mask) == class_id).astype(np.float64)
    if not 0 <= reach_px < min(phase.shape):
        raise ValueError(f"reach_px is {reach_px}; it must lie in 0..{min(phase.shape) - 1} for a mask {phase.shape}")
    shape = [fft.next_fast_len(side + reach_px, real=True) for side in phase.shape]
    spectrum = fft.rfft2(phase, shape)
    together = fft.irfft2(np.abs(spectrum) ** 2, shape)
    shift = np.arange(-reach_px, reach_px + 1)
    pairs = np.outer(*(side - np.abs(shift) for side in phase.shape))
    radius = np.rint(np.hypot(*np.meshgrid(shift, shift, indexing="ij"))).astype(int)
    near = radius <= reach_px
    both = np.bincount(radius[near], together[np.ix_(shift, shift)][near])
    return both.clip(0) / np.bincount(radius[near], pairs[near])


# ----------------------------------------------------------------------------------------------- two sets compared


def compare_sets(
    real: Sequence[Pair],
    generated: Sequence[Pair],
    classes: Sequence[str],
    *,
    rng: np.random.Generator,
    specimens: Sequence[str] | None = None,
    level: float = 0.95,
    n_boot: int = N_BOOT,
) -> pd.DataFrame:
    """Return how a generated set differs from a real one in phase fractions, sizes, arrangement and grey levels.

    Parameters
    ----------
    real, generated : sequence of Pair
        All of one size, at least one of each; images uint8.
    classes : n names
        Of the class ids 0..n-1.
    rng : numpy.random.Generator
        Of the resamples.
    specimens : one name a real pair, optional
        Real pairs of one specimen are drawn together; by default each is a specimen of its own.
    level : float
        Of the intervals, between 0 and 1.
    n_boot : int
        Number of resamples.

    Returns
    -------
    pandas.DataFrame
        A row for each quantity, class ("" is the whole image) and statistic, with columns ``quantity``, ``unit`` (of
        the quantity, a variance has its square), ``class``, ``statistic``; ``real``, ``generated`` and ``ratio``
        (generated over real), each followed by its ``_low`` and ``_high``; ``n_real``, ``n_generated`` units drawn.

        The statistics ``mean`` and ``variance`` are over whole particles for diameter, corrected for the border
        (`particles`), over pixels for grey, and over images for fraction, density (particles per area), grey spread
        (standard deviation of an image) and fine texture (the same of what a blur of 1 px takes away). ``mean`` of
        intercept is that of all images together (`intercepts`): the size of a class, whether or not its particles fit
        into an image, as those that have a diameter do. Variances over n images are divided by n - 1; where images
        share a specimen they are less than the material's all the same. ``distance`` is the Wasserstein distance of two
        distributions, for ``two-point`` the largest difference of the curves up to `REACH_PX`; there ``real`` is how
        far resamples of the real set lie from it, by the median and the interval: a generated set within that interval
        is no further off than chance.

        NaN where nothing can be told: without the class, intervals without a second unit, and how far resamples lie
        without a third.

    Raises
    ------
    ValueError
        A set is empty, sizes or types are not as told, the number of specimens is another, ids outside the classes.
    """
    specimens = check_sets(real, generated, specimens)
    reach_px = min(REACH_PX, min(real[0].mask.shape) - 1)
    sets = [_measure(pairs, classes, reach_px) for pairs in (real, generated)]
    draws = [resample(specimens, rng, n_boot), resample(range(len(generated)), rng, n_boot)]
    rows = []
    for (quantity, name), moments in sets[0].moments.items():
        both, (unit, _, each_image) = [moments, sets[1].moments[quantity, name]], _QUANTITIES[quantity]
        row = {"quantity": quantity, "unit": unit, "class": name}
        rows.append(row | {"statistic": "mean"} | _moment_row(_mean, both, draws, level))
        if moments.shape[1] > 2:
            of = _variance_of_images if each_image else _variance
            rows.append(row | {"statistic": "variance"} | _moment_row(of, both, draws, level))
    for (quantity, name), curves in sets[0].curves.items():
        both = [curves, sets[1].curves[quantity, name]]
        row = {"quantity": quantity, "unit": _QUANTITIES[quantity].unit, "class": name, "statistic": "distance"}
        rows.append(row | _distance_row(_QUANTITIES[quantity], both, draws, level))
    order = ["real", "real_low", "real_high", "generated", "generated_low", "generated_high", "ratio"]
    columns = ["quantity", "unit", "class", "statistic", *order, "ratio_low", "ratio_high"]
    return pd.DataFrame(rows)[columns].assign(n_real=draws[0].n_units, n_generated=draws[1].n_units)


def check_sets(real: Sequence[Pair], generated: Sequence[Pair], specimens: Sequence[str] | None) -> Sequence:
    """Return the specimens of the real pairs, one each where none are named, after a look at both sets.

    Parameters
    ----------
    real, generated, specimens
        As for `compare_sets`.

    Raises
    ------
    ValueError
        A set is empty, sizes or types are not as told, or the number of specimens is another.
    """
    if not len(real) or not len(generated):
        raise ValueError(f"{len(real)} real and {len(generated)} generated pairs; at least one of each is needed")
    shapes = {array.shape for pairs in (real, generated) for pair in pairs for array in (pair.image, pair.mask)}
    if len(shapes) > 1:
        raise ValueError(f"images and masks must have one size, found {sorted(shapes)}; cut them to one with `cut`")
    if types := {str(pair.image.dtype) for pairs in (real, generated) for pair in pairs} - {"uint8"}:
        raise ValueError(f"images must be uint8, found {sorted(types)}")
    specimens = range(len(real)) if specimens is None else specimens
    if len(specimens) != len(real):
        raise ValueError(f"{len(specimens)} specimens were named for {len(real)} real pairs")
    return specimens


# What is measured of a set: sums over each image, from which resamples are a product of matrices.


class _Quantity(NamedTuple):
    unit: str
    bin: float | None = None  # of its histogram, in that unit; None: no distribution is compared
    each_image: bool = False  # has one value


_QUANTITIES = {
    "fraction": _Quantity("1", each_image=True),
    "intercept": _Quantity("px"),
    "diameter": _Quantity("px", 0.5),
    "density": _Quantity("1/1e4 px", each_image=True),
    "grey": _Quantity("grey level", 1.0),
    "grey spread": _Quantity("grey level", each_image=True),
    "fine texture": _Quantity("grey level", each_image=True),
    "two-point": _Quantity("1"),
}


class _Measured(NamedTuple):
    """What a set of N images measures, by quantity and class."""

    # (N, 3): sums over an image of weight, weight x value, weight x value^2; of intercepts (N, 2): count, length
    moments: dict[tuple[str, str], NDArray]
    curves: dict[tuple[str, str], NDArray]  # (N, B): histograms of weights, or two-point correlations


def _measure(pairs: Sequence[Pair], classes: Sequence[str], reach_px: int) -> _Measured:
    each = [_quantities(pair, classes) for pair in progress(pairs, desc="measuring", unit="image", delay=2)]
    moments, curves = {}, {}
    for quantity, name in each[0]:
        found = [one[quantity, name] for one in each]
        moments[quantity, name] = np.array([[(w * v**k).sum() for k in range(3)] for v, w in found])
        if size := _QUANTITIES[quantity].bin:
            curves[quantity, name] = _histograms(found, size)
    for i, name in enumerate(classes):
        met = [intercepts(pair.mask, i) for pair in pairs]
        moments["intercept", name] = np.array([[one.count, one.length_px] for one in met])
        curves["two-point", name] = np.stack([two_point(pair.mask, i, reach_px) for pair in pairs])
    return _Measured(moments, curves)


def _quantities(pair: Pair, classes: Sequence[str]) -> dict[tuple[str, str], Weighted]:
    """Measurements of one pair by quantity and class, "" for the whole image."""
    fractions = phase_fractions(pair.mask, len(classes))
    found = {("grey", ""): _greys(pair.image)}
    found["grey spread", ""] = _one(pair.image.std())
    found["fine texture", ""] = _one(fine_texture(pair.image))
    for i, name in enumerate(classes):
        found["fraction", name] = _one(fractions[i])
        found["diameter", name] = whole = particles(pair.mask, i)
        found["density", name] = _one(1e4 * whole.weights.sum())
        found["grey", name] = _greys(pair.image[np.asarray(pair.mask) == i])
    return found


def _one(value: float) -> Weighted:
    return Weighted(np.array([value], float), np.ones(1))


def _greys(pixels: NDArray[np.uint8]) -> Weighted:
    return Weighted(np.arange(256.0), np.bincount(pixels.ravel(), minlength=256).astype(float))


def fine_texture(image: NDArray) -> float:
    """Return the standard deviation in grey levels of what a Gaussian blur of 1 px takes away from an image (H, W)."""
    image = np.asarray(image, np.float32)
    return float((image - cv2.GaussianBlur(image, (0, 0), 1.0)).std())


def _histograms(found: Sequence[Weighted], size: float) -> NDArray[np.float64]:
    """Weights (N, B) in bins about 0, 1, 2, ... times a size; as many bins as the largest value needs."""
    bins = [np.rint(values / size).astype(int) for values, _ in found]
    count = 1 + max((of.max() for of in bins if len(of)), default=0)
    return np.stack([np.bincount(of, one.weights, count) for of, one in zip(bins, found, strict=True)])


# Resampling and statistics of it


class Draws(NamedTuple):
    """A set and resamples of it, drawn from `n_units` units."""

    times: NDArray[np.int64]  # (1 + n_boot, N): how often each image is drawn; first the set itself
    n_units: int


def resample(units: Sequence, rng: np.random.Generator, n_boot: int) -> Draws:
    """Draw as many units as there are, again and again, with all images of a unit together.

    Parameters
    ----------
    units : one name an image
        Images of one name are drawn together.
    rng : numpy.random.Generator
        Draws.
    n_boot : int
        Number of resamples.

    Returns
    -------
    Draws
        Of `n_boot` resamples, behind the set itself.
    """
    names, member = np.unique(np.asarray(units), return_inverse=True)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), n_boot)[:, member]
    return Draws(np.concatenate([np.ones_like(times[:1]), times]), len(names))


def _mean(moments: NDArray, times: NDArray) -> NDArray[np.float64]:
    weight, total = (times @ moments[:, :2]).T
    return ratio(total, weight)


def _variance(moments: NDArray, times: NDArray) -> NDArray[np.float64]:
    weight, total, square = (times @ moments).T
    mean = ratio(total, weight)
    variance = ratio(square, weight) - mean**2
    return np.where(variance < 1e-12 * mean**2, 0.0, variance)  # equal values, but for rounding


def _variance_of_images(moments: NDArray, times: NDArray) -> NDArray[np.float64]:
    n = times.sum(1)
    return _variance(moments, times) * ratio(n, n - 1)


def _moment_row(of: Callable, both: Sequence[NDArray], draws: Sequence[Draws], level: float) -> dict[str, float]:
    real, generated = (of(moments, drawn.times) for moments, drawn in zip(both, draws, strict=True))
    units = [drawn.n_units for drawn in draws]
    row = {}
    for name, values, n in (
        ("real", real, units[0]),
        ("generated", generated, units[1]),
        ("ratio", ratio(generated, real), min(units)),
    ):
        low, high = (np.nan, np.nan) if n < 2 else percentiles(values[1:], level, n)
        row |= {name: float(values[0]), f"{name}_low": low, f"{name}_high": high}
    return row


def percentiles(values: NDArray, level: float, n_units: float = np.inf) -> tuple[float, float]:
    """Return the ends of the interval of those resamples that are finite, NaN without any.

    Parameters
    ----------
    values : (n_boot,) float
        A statistic of each resample.
    level : float
        Of the interval, between 0 and 1.
    n_units : float
        Units drawn from, at least 2; the fewer, the further out the percentiles lie, see `expanded_tail`.

    Returns
    -------
    (float, float)
        Low and high end.

    Raises
    ------
    ValueError
        A level outside 0..1.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan
    tail = expanded_tail(level, n_units)
    return tuple(np.quantile(values, [tail, 1 - tail]).tolist())


def _distance_row(
    quantity: _Quantity, both: Sequence[NDArray], draws: Sequence[Draws], level: float
) -> dict[str, float]:
    width = max(curves.shape[1] for curves in both)
    padded = [np.pad(curves, ((0, 0), (0, width - curves.shape[1]))) for curves in both]
    real, generated = (d.times @ curves / d.times.sum(1)[:, None] for d, curves in zip(draws, padded, strict=True))
    apart = _wasserstein if quantity.bin else _largest_difference
    distance, chance = (quantity.bin or 1.0) * apart(generated[:1], real[:1]), np.array([np.nan])
    if draws[0].n_units > 2:  # of two, half of all resamples are the set itself
        chance = (quantity.bin or 1.0) * apart(real[1:], real[:1])
        chance = chance[np.isfinite(chance)]  # a resample of specimens may be without the class
    low, high = percentiles(chance, level, max(draws[0].n_units, 2))
    middle = np.median(chance) if len(chance) else np.nan
    row = {"real": float(middle), "real_low": low, "real_high": high, "generated": float(distance[0])}
    row |= dict.fromkeys(("generated_low", "generated_high", "ratio_low", "ratio_high"), np.nan)
    return row | {"ratio": float(ratio(distance, middle)[0])}


def _wasserstein(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Wasserstein distance of distributions (..., B) over equally spaced values, in spacings."""
    a, b = (ratio(histogram, histogram.sum(-1, keepdims=True)) for histogram in (a, b))
    return np.abs(np.cumsum(a - b, -1)).sum(-1)


def _largest_difference(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    return np.abs(a - b).max(-1)
