"""Could generated micrographs be taken for real ones? Copies of training images, a two-sample test, masks that fit.

Pairs, specimens and intervals are those of `micro_lib.analysis.phases`, which compares single quantities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from micro_lib.analysis.metrics import confusion
from micro_lib.analysis.phases import (
    N_BOOT,
    REACH_PX,
    Pair,
    check_sets,
    intercepts,
    particles,
    percentiles,
    phase_fractions,
    ratio,
    resample,
    two_point,
)
from micro_lib.analysis.stats import Interval
from micro_lib.core.checks import one_of
from micro_lib.core.progress import progress

FEATURES = ("mask", "image", "both")
_FOLDS = 5
_BANDS = 12  # of the power spectrum, from the slowest change to one of two pixels


# ------------------------------------------------------------------------------------------------------ copies


def copy_distance(images: Sequence[ArrayLike], micrographs: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Return how far each image is from the nearest window of any micrograph, in any of the 8 orientations.

    Image and window are standardised, so brightness and contrast do not matter; the distance is the root mean square of
    their difference, ``sqrt(2 (1 - r))`` with the correlation r. Windows lie at every pixel.

    Parameters
    ----------
    images : N of (h, w)
        Grey levels, all of one size.
    micrographs : M of (H, W)
        At least one, no smaller than the images in either direction.

    Returns
    -------
    (N,) float
        0 for a copy, 1.41 for what has nothing in common with any window; NaN for an image of one grey.

    Raises
    ------
    ValueError
        If images differ in size, without micrographs, or with one too small.
    """
    if not len(images):
        return np.empty(0)
    if len(shapes := {np.shape(image) for image in images}) > 1:
        raise ValueError(f"images must have one size, found {sorted(shapes)}")
    (shape,) = shapes
    if not len(micrographs) or min(min(np.shape(one)) for one in micrographs) < max(shape):
        raise ValueError(f"windows of {shape} px need one micrograph or more, of at least that size in both directions")
    side = fft.next_fast_len(max(max(np.shape(one)) for one in micrographs), real=True)
    searched = [_Searched.of(turned, shape, side) for one in micrographs for turned in _orientations(one)]
    best = np.full(len(images), np.nan)
    for i, image in enumerate(progress(images, desc="looking for copies", unit="image", delay=2)):
        image = np.asarray(image, np.float32)
        image = image - image.mean()
        if norm := np.sqrt((image**2).sum(dtype=float)):
            spectrum = np.conj(fft.rfft2(image / np.float32(norm), (side, side)))
            best[i] = max(one.highest_correlation(spectrum, side) for one in searched)
    return np.sqrt(2 * (1 - np.minimum(best, 1)))


def _orientations(image: ArrayLike) -> list[NDArray]:
    """Return an image in the 8 orientations of a square."""
    return [np.rot90(turned, k) for turned in (np.asarray(image), np.fliplr(image)) for k in range(4)]


class _Searched(NamedTuple):
    """A micrograph ready for the correlation with windows of one shape."""

    spectrum: NDArray[np.complex64]
    scale: NDArray[np.float32]  # 1 over the norm of each window about its mean, 0 for windows of one grey

    @classmethod
    def of(cls, micrograph: NDArray, shape: tuple[int, int], side: int) -> _Searched:
        centred = np.asarray(micrograph, np.float64) - np.mean(micrograph)
        total, square = (_window_sums(values, shape) for values in (centred, centred**2))
        squares = square - total**2 / np.prod(shape)  # about the mean of the window
        flat = squares <= 1e-9 * max(square.max(), 1e-12)
        scale = np.where(flat, 0, 1 / np.sqrt(np.where(flat, 1, squares)))
        return cls(fft.rfft2(centred.astype(np.float32), (side, side)), scale.astype(np.float32))

    def highest_correlation(self, image: NDArray[np.complex64], side: int) -> float:
        height, width = self.scale.shape
        return float((fft.irfft2(self.spectrum * image, (side, side))[:height, :width] * self.scale).max())


def _window_sums(values: NDArray, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Sums (H - h + 1, W - w + 1) over all windows of a shape."""
    h, w = shape
    total = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    return total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]


def copying(
    generated: Sequence[Pair], training: Sequence[Pair], unseen: Sequence[Pair], seen: Sequence[Pair]
) -> dict[str, float]:
    """Tell whether generated images are copies of training micrographs, between what news and what copies would be.

    A smooth picture lies closer to any other than a rough one does. So generated images have to be held against windows
    as smooth as they are: real ones that have gone through the generator's own reconstruction.

    Parameters
    ----------
    generated : sequence of Pair
        Square, of one size.
    training : sequence of Pair
        Micrographs that the generator has seen, whole.
    unseen, seen : sequence of Pair
        Windows of that size as the generator reconstructs them: of micrographs that it has not learned from, and of
        those it has.

    Returns
    -------
    dict
        ``generated_median``, ``unseen_median``, ``seen_median``: `copy_distance` to the training micrographs, and
        ``generated_lowest``; ``closer``: probability that a generated image lies closer to them than an unseen window,
        0.5 for images drawn as unseen ones are and 1 for copies; it says little of a few copies among many images, so
        ``copies``: number of images that lie nearer to the median of what has been seen than to that of what has not;
        ``n_generated``, ``n_unseen``, ``n_seen``. Images of one grey are left out.

    Raises
    ------
    ValueError
        As `copy_distance`; no image of a set has more than one grey.
    """
    micrographs, row, found = [one.image for one in training], {}, {}
    for name, pairs in (("generated", generated), ("unseen", unseen), ("seen", seen)):
        images = [pair.image for pair in pairs if np.ptp(pair.image) > 0]
        if not images:
            raise ValueError(f"{len(pairs)} {name} images, none of them with more than one grey")
        found[name] = copy_distance(images, micrographs)
        row |= {f"{name}_median": float(np.median(found[name])), f"n_{name}": len(images)}
    ours, theirs = found["generated"][:, None], found["unseen"]
    closer = float(np.mean((ours < theirs) + 0.5 * (ours == theirs)))
    from_seen, from_unseen = (np.abs(found["generated"] - row[f"{name}_median"]) for name in ("seen", "unseen"))
    copies = int((from_seen < from_unseen).sum())
    return row | {"generated_lowest": float(found["generated"].min()), "closer": closer, "copies": copies}


# --------------------------------------------------------------------------------------------- two-sample test


def two_sample_test(
    real: Sequence[Pair],
    generated: Sequence[Pair],
    classes: Sequence[str],
    *,
    rng: np.random.Generator,
    specimens: Sequence[str] | None = None,
    features: str = "both",
    level: float = 0.95,
    n_boot: int = N_BOOT,
) -> Interval:
    """Return how well a classifier tells generated pairs from real ones of specimens it has not seen.

    Logistic regression on standardised features, cross-validated in up to 5 folds that part no specimen (classifier
    two-sample test; Lopez-Paz & Oquab 2017). A generated pair with the features of a real one stays in its fold: seen
    with one label, it would be taken for the other.

    Parameters
    ----------
    real, generated, classes, rng, specimens, level, n_boot
        As `compare_sets`; two specimens and two generated pairs or more.
    features : {"mask", "image", "both"}
        ``"mask"``: fractions, sizes, densities, boundaries, two-point correlations; ``"image"``: spectrum and
        distribution of the standardised image; ``"both"``: these, and mean and spread of the grey of each class in it.

    Returns
    -------
    Interval
        Area under the ROC curve: 0.5 if the sets cannot be told apart, 1 if they always can. Pairs are compared within
        a fold, whose scores are of one model. Percentile interval over resamples of the real specimens and the
        generated pairs, stretched for what folds share; NaN with fewer than `_FOLDS` specimens, of which resamples tell
        too little. `n` counts the specimens. Below 0.5, real specimens differ more from each other than generated pairs
        do from some of them.

    Raises
    ------
    ValueError
        As `compare_sets`; fewer than two specimens or generated pairs; an unknown kind of features.
    """
    one_of("features", features, FEATURES)
    specimens = check_sets(real, generated, specimens)
    if len(set(specimens)) < 2 or len(generated) < 2:
        found = f"{len(set(specimens))} specimens and {len(generated)} generated pairs"
        raise ValueError(f"{found}; two of each are needed to see how others would do")
    rows = [_features(pair, classes, features) for pair in progress([*real, *generated], desc="features", delay=2)]
    columns, is_generated = np.array(rows), np.repeat([False, True], [len(real), len(generated)])
    n_folds = min(_FOLDS, len(set(specimens)), len(generated))
    scores, fold = _cross_validated(columns, is_generated, _groups(columns, specimens), n_folds, rng)
    higher = scores[is_generated] - scores[~is_generated][:, None]  # (real, generated)
    together = fold[is_generated] == fold[~is_generated][:, None]
    wins = together * ((higher > 0) + 0.5 * (higher == 0))
    times = [resample(units, rng, n_boot).times for units in (specimens, range(len(generated)))]
    area = ratio(*(((times[0] @ counted) * times[1]).sum(1) for counted in (wins, together)))
    if len(set(specimens)) < _FOLDS:
        area[1:] = np.nan
    # Folds share training pairs, so their errors hang together (Nadeau & Bengio 2003, section 5: corrected variance).
    stretch = np.sqrt(1 + n_folds / (n_folds - 1))
    low, high = (float(np.clip(area[0] + stretch * (end - area[0]), 0, 1)) for end in percentiles(area[1:], level))
    return Interval(float(area[0]), low, high, len(set(specimens)), len(columns), level, "classifier two-sample test")


def _groups(columns: NDArray, specimens: Sequence) -> NDArray[np.int64]:
    """Groups (N,) that may not be parted: real pairs by specimen, a generated one with its twin or alone."""
    twins = {row.tobytes(): name for row, name in zip(columns, specimens, strict=False)}  # real pairs come first
    alone = [twins.get(row.tobytes(), ("generated", i)) for i, row in enumerate(columns[len(specimens) :])]
    names: dict = {}
    return np.array([names.setdefault(name, len(names)) for name in [*specimens, *alone]])


def _cross_validated(
    columns: NDArray, is_generated: NDArray, groups: NDArray, n_folds: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Out-of-fold probabilities (N,) of being generated, and the fold (N,) of each pair."""
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=int(rng.integers(2**31)))
    model = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(class_weight="balanced", max_iter=2000),
    )
    parts, fold = list(folds.split(columns, is_generated, groups)), np.empty(len(columns), int)
    for i, (_, tested) in enumerate(parts):
        fold[tested] = i
    return cross_val_predict(model, columns, is_generated, cv=parts, method="predict_proba")[:, 1], fold


def _features(pair: Pair, classes: Sequence[str], which: str) -> NDArray[np.float64]:
    """Feature vector of a pair; NaN where a class is absent."""
    features = []
    image = np.asarray(pair.image, float)
    image = (image - image.mean()) / (image.std() or 1.0)
    if which != "image":
        features += _mask_features(pair.mask, len(classes))
    if which != "mask":
        features += [*np.log(_spectrum(image) + 1e-6), *np.quantile(image, [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])]
    if which == "both":
        inside = [image[np.asarray(pair.mask) == i] for i in range(len(classes))]
        features += [of(pixels) if pixels.size else np.nan for pixels in inside for of in (np.mean, np.std)]
    return np.array(features)


def _mask_features(mask: NDArray, n_classes: int) -> list[float]:
    features = [*phase_fractions(mask, n_classes)]
    reach_px = min(REACH_PX, min(mask.shape) - 1)
    lags = [lag for lag in (1, 2, 4, 8, 16, 32) if lag <= reach_px]
    for i in range(n_classes):
        whole = particles(mask, i)
        features += [whole.mean, whole.weights.sum(), intercepts(mask, i).count, *two_point(mask, i, reach_px)[lags]]
    return features


def _spectrum(image: NDArray) -> NDArray[np.float64]:
    """Mean power (_BANDS,) of an image in rings of equal width of spatial frequency, up to 0.5 per px."""
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in image.shape))
    power = np.abs(fft.rfft2(image * window)) ** 2 / (window**2).sum()
    frequency = np.hypot(fft.fftfreq(image.shape[0])[:, None], fft.rfftfreq(image.shape[1]))
    band = np.minimum((frequency * 2 * _BANDS).astype(int), _BANDS)  # the last, of the corners, is left out
    total, count = (np.bincount(band.ravel(), weights, _BANDS + 1)[:_BANDS] for weights in (power.ravel(), None))
    return total / np.maximum(count, 1)


# ---------------------------------------------------------------------------------------------------- consistency


def consistency(pairs: Sequence[Pair], segment: Callable[[NDArray], NDArray], n_classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix of each pair's mask with what a segmenter sees in its image.

    With a segmenter trained on real pairs, the scores of generated ones (`metrics.summary`) tell whether masks belong
    to their images, against the scores of real ones it has not seen.

    Parameters
    ----------
    pairs : N of Pair
        Micrographs with masks of class ids below `n_classes`; sizes may differ.
    segment : callable
        From an image (H, W) to class ids (H, W).
    n_classes : int
        1 to 256.

    Returns
    -------
    (N, n_classes, n_classes) int64
        Rows are classes of the mask.

    Raises
    ------
    ValueError, TypeError
        As `metrics.confusion`.
    """
    shown = progress(pairs, desc="segmenting", unit="image", delay=2)
    found = [confusion(pair.mask, segment(pair.image), n_classes) for pair in shown]
    return np.array(found, np.int64).reshape(-1, n_classes, n_classes)
