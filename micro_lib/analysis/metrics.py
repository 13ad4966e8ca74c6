"""Scores of a predicted mask against the true one: confusion matrices, IoU, boundary F1, mean intercept.

Two questions decide every IoU that is printed, so both are answered here and nowhere else:

*Which classes are averaged?*  A class absent from truth and prediction has no IoU (0/0): it is excluded and
`classes_counted` says how many were left.  A class absent from the truth but predicted counts 0 in `mean_iou` and is
left out of `present_class_miou`.

*Over what is averaged?*  Every function takes one confusion matrix ``(n, n)`` or a stack ``(N, n, n)``.  Pooled: sum
the stack first, ``mean_iou(cms.sum(0))``.  Per image: average afterwards, ``mean_iou(cms).mean()``.  `summary` reports
both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numba import njit
from numpy.typing import ArrayLike, NDArray
from skimage.morphology import skeletonize

TOLERANCES_PX = (8, 3)  # boundary F1: a lenient and a strict tolerance
REDRAWN_WIDTH_PX = 5  # a width between those of the annotators met so far, the same for truth and prediction
TEST_LINE_SPACING_PX = 10
LINE_PX = 3  # width that matched lines are drawn with


# --- confusion matrices ---
@njit(cache=True, nogil=True)
def _count(true: NDArray[np.uint8], pred: NDArray[np.uint8], n_classes: int) -> NDArray[np.int64]:
    # Four tables in turn: neighbours mostly share a cell, and one table would make every increment wait for the last.
    tables = np.zeros((4, n_classes * n_classes), np.int64)
    n = np.uint64(n_classes)  # unsigned: a signed index is tested for counting from the end
    whole = true.size - true.size % 4
    for i in range(0, whole, 4):
        for k in range(4):
            tables[k, np.uint64(true[i + k]) * n + np.uint64(pred[i + k])] += 1
    for i in range(whole, true.size):
        tables[0, np.uint64(true[i]) * n + np.uint64(pred[i])] += 1
    return tables.sum(0)


def _class_ids(mask: ArrayLike, n_classes: int, name: str) -> NDArray[np.uint8]:
    ids = np.asarray(mask)
    if ids.dtype == bool:
        ids = ids.view(np.uint8)
    if not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(f"{name}: class ids must be integers, found dtype {ids.dtype}")
    if ids.size and (ids.max() >= n_classes or ids.min() < 0):
        found = np.unique(ids[(ids < 0) | (ids >= n_classes)])[:8].tolist()
        raise ValueError(
            f"{name}: class ids must lie in 0..{n_classes - 1}, found {found}; "
            "encode the raw mask with its class map first (0/255 is a picture of a mask, not class ids)"
        )
    return np.ascontiguousarray(ids, np.uint8).ravel()


def confusion(true: ArrayLike, pred: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Count pixels by true class (row) and predicted class (column).

    Parameters
    ----------
    true, pred : integer or bool array, any equal shape
        Class ids in 0..n_classes-1.
    n_classes : int
        1 to 256.

    Returns
    -------
    (n_classes, n_classes) int64
        Its sum is the number of pixels.

    Raises
    ------
    ValueError
        Shapes differ, ids outside the range, or more classes than uint8 ids can name.
    TypeError
        Ids are not integers.
    """
    if not 1 <= n_classes <= 256:
        raise ValueError(f"n_classes must lie in 1..256, found {n_classes}")
    if np.shape(true) != np.shape(pred):
        raise ValueError(f"true and predicted mask differ in shape: {np.shape(true)} against {np.shape(pred)}")
    counts = _count(_class_ids(true, n_classes, "true mask"), _class_ids(pred, n_classes, "predicted mask"), n_classes)
    return counts.reshape(n_classes, n_classes)


def _parts(cm: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return intersection, union and true pixels of each class, each (..., n)."""
    cm = np.asarray(cm)
    if cm.ndim < 2 or cm.shape[-1] != cm.shape[-2]:
        raise ValueError(f"a confusion matrix is (..., n, n), found shape {cm.shape}")
    inter = np.diagonal(cm, axis1=-2, axis2=-1)  # (..., n)
    true = cm.sum(-1)
    return inter, true + cm.sum(-2) - inter, true


def ratio(numerator: NDArray, denominator: NDArray) -> NDArray[np.float64]:
    """Return `numerator` over `denominator`, elementwise, as float64; NaN where the latter is not above 0.

    Parameters
    ----------
    numerator, denominator : array of numbers
        Of any shapes that fit each other by NumPy's rules.
    """
    out = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), np.nan)
    return np.divide(numerator, denominator, out=out, where=np.asarray(denominator) > 0)


def pixel_error(cm: ArrayLike) -> NDArray[np.float64]:
    """Return the share of pixels in the wrong class, 0 to 1, shape ``cm.shape[:-2]``; NaN without pixels.

    Parameters
    ----------
    cm : (..., n, n) int
        Confusion matrices, see `confusion`.

    Raises
    ------
    ValueError
        The last two sides differ.
    """
    inter, _, true = _parts(cm)
    return 1 - ratio(inter.sum(-1), true.sum(-1))


def iou_per_class(cm: ArrayLike) -> NDArray[np.float64]:
    """Return TP / (TP + FP + FN) by class, shape ``(..., n)``; NaN for a class absent from truth and prediction.

    Parameters and errors as `pixel_error`.
    """
    inter, union, _ = _parts(cm)
    return ratio(inter, union)


def classes_counted(cm: ArrayLike) -> NDArray[np.int64]:
    """Return how many classes `mean_iou` averages: those in the truth or in the prediction, shape ``cm.shape[:-2]``.

    Parameters and errors as `pixel_error`.
    """
    return (_parts(cm)[1] > 0).sum(-1)


def mean_iou(cm: ArrayLike) -> NDArray[np.float64]:
    """Return the mean IoU over the classes found in truth or prediction, shape ``cm.shape[:-2]``; NaN without pixels.

    A class absent from both is excluded; one that is only predicted counts 0.

    Parameters and errors as `pixel_error`.
    """
    inter, union, _ = _parts(cm)
    return ratio(np.nan_to_num(ratio(inter, union)).sum(-1), (union > 0).sum(-1))


def present_class_miou(cm: ArrayLike) -> NDArray[np.float64]:
    """Return the mean IoU over the classes found in the truth alone, shape ``cm.shape[:-2]``; NaN without pixels.

    The metric "excludes the classes that are not part of the ground-truth mask" (Volman Stern et al. 2024, abstract).
    A stray pixel of an absent class is not free: it is a false negative of the class it lies on.  The abstract gives no
    equation and no averaging; over a whole set nearly every class is present, so the metric differs from `mean_iou`
    only image by image.

    Parameters and errors as `pixel_error`.
    """
    inter, union, true = _parts(cm)
    # A class absent from the truth has no intersection, so it adds nothing to the sum.
    return ratio(np.nan_to_num(ratio(inter, union)).sum(-1), (true > 0).sum(-1))


def summary(cms: ArrayLike, classes: Sequence[str]) -> dict[str, float | int]:
    """Report a set of images by both averagings and both mean IoUs.

    Parameters
    ----------
    cms : (N, n, n) int
        One confusion matrix an image.
    classes : n names
        Of the class ids 0..n-1.

    Returns
    -------
    dict
        ``n_images``, ``classes_counted`` (pooled), ``pixel_error``, and ``miou_*``, ``present_class_miou_*``,
        ``iou_*_NAME`` with ``*`` either ``pooled`` (one matrix summed over images) or ``per_image`` (mean over the
        images where the value is defined).

    Raises
    ------
    ValueError
        Not a stack, an empty stack, or a number of names other than n.
    """
    cms = np.asarray(cms)
    if cms.ndim != 3 or not len(cms) or cms.shape[-1] != len(classes):
        raise ValueError(f"expected N >= 1 confusion matrices (N, n, n) with n = {len(classes)}, found {cms.shape}")
    pooled = cms.sum(0)
    row: dict[str, float | int] = {
        "n_images": len(cms),
        "classes_counted": int(classes_counted(pooled)),
        "pixel_error": float(pixel_error(pooled)),
    }
    for name, metric in (("miou", mean_iou), ("present_class_miou", present_class_miou)):
        row |= {f"{name}_pooled": float(metric(pooled)), f"{name}_per_image": float(np.nanmean(metric(cms)))}
    defined = (classes_per_image := iou_per_class(cms)) >= 0  # NaN compares false
    per_image = ratio(np.where(defined, classes_per_image, 0).sum(0), defined.sum(0))
    for name, whole, single in zip(classes, iou_per_class(pooled), per_image, strict=True):
        row |= {f"iou_pooled_{name}": float(whole), f"iou_per_image_{name}": float(single)}
    return row


def as_columns(cm: ArrayLike, prefix: str) -> dict[str, int]:
    """Return a confusion matrix as columns <prefix>_<true>_<found> of a table's row, which `stacked` reads.

    Parameters
    ----------
    cm : (n, n) int
        The matrix.
    prefix : str
        Tells it from other matrices of the row.
    """
    return {f"{prefix}_{i}_{j}": int(count) for (i, j), count in np.ndenumerate(np.asarray(cm))}


def stacked(table: pd.DataFrame, prefix: str) -> NDArray[np.int64]:
    """Return the confusion matrices (N, n, n) int64 in the rows of a table, see `as_columns`.

    Columns that are empty in all rows are those of tables with more classes.

    Parameters
    ----------
    table : pandas.DataFrame
        N rows; columns of other names do not matter.
    prefix : str
        That of `as_columns`.

    Raises
    ------
    ValueError
        The table has no such columns, or some rows lack a number.
    """
    cells = [name for name in table.dropna(axis=1, how="all") if re.fullmatch(rf"{re.escape(prefix)}_\d+_\d+", name)]
    shape = (math.isqrt(len(cells)),) * 2
    if not cells or set(as_columns(np.zeros(shape), prefix)) != set(cells):
        raise ValueError(f"columns {prefix}_0_0 to {prefix}_n_n, of a square, are expected; found {sorted(cells)}")
    return table[list(as_columns(np.zeros(shape), prefix))].astype(np.int64).to_numpy().reshape(-1, *shape)


# --- boundaries of grains ---
def _skeleton(mask: ArrayLike) -> NDArray[np.bool_]:
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a mask is (H, W), found shape {mask.shape}")
    return skeletonize(mask > 0)


def _skeletons(true_mask: ArrayLike, pred_mask: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    if (true := np.shape(true_mask)) != (pred := np.shape(pred_mask)):
        raise ValueError(f"the masks have different shapes, {true} and {pred}")
    return _skeleton(true_mask), _skeleton(pred_mask)


def _widen(line: NDArray[np.bool_], kernel: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return cv2.dilate(line.view(np.uint8), kernel) > 0


def _disc(size_px: int) -> NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size_px, size_px))


def _agreement(
    true_line: NDArray[np.bool_], pred_line: NDArray[np.bool_], tolerance_px: int
) -> tuple[np.float64, np.float64]:
    """Precision and recall of two skeletons: the share of predicted pixels within the tolerance of a true one, and the
    reverse; within is a dilation with OpenCV's elliptic kernel. 0 when either has no pixel, also when neither has.
    """
    kernel = _disc(2 * tolerance_px + 1)
    precision = (pred_line & _widen(true_line, kernel)).sum() / max(pred_line.sum(), 1)
    recall = (true_line & _widen(pred_line, kernel)).sum() / max(true_line.sum(), 1)
    return precision, recall


def _skeleton_f1(true_line: NDArray[np.bool_], pred_line: NDArray[np.bool_], tolerance_px: int) -> float:
    precision, recall = _agreement(true_line, pred_line, tolerance_px)
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def score_lines(true_mask: ArrayLike, pred_mask: ArrayLike, tolerance_px: int) -> dict[str, float]:
    """Score lines that need not close, such as cracks, by where they run, whatever their width.

    Parameters
    ----------
    true_mask, pred_mask : (H, W)
        Above 0 is line.
    tolerance_px : int
        How far a centre line may lie from the other one.

    Returns
    -------
    dict
        ``precision``, the share of the predicted centre lines that has a true one within the tolerance; ``recall``, the
        reverse; ``width_px_true``, ``width_px_pred``, area over the number of pixels of the centre lines,
        up to 1.41 times the width of lines that slant. NaN where there is no line to take a share or a width of.

    Raises
    ------
    ValueError
        The shapes differ or are not (H, W).
    """
    true, pred = np.asarray(true_mask) > 0, np.asarray(pred_mask) > 0
    true_line, pred_line = _skeletons(true, pred)
    precision, recall = _agreement(true_line, pred_line, tolerance_px)
    row = {"precision": float(precision) if pred.any() else math.nan}
    row |= {"recall": float(recall) if true.any() else math.nan}
    for which, mask, line in (("true", true, true_line), ("pred", pred, pred_line)):
        row[f"width_px_{which}"] = float(mask.sum() / line.sum()) if mask.any() else math.nan
    return row


def matched_lines(
    true_mask: ArrayLike, pred_mask: ArrayLike, tolerance_px: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which lines are found, missed and invented, as `score_lines` counts them, drawn `LINE_PX` wide.

    Parameters
    ----------
    true_mask, pred_mask, tolerance_px
        As for `score_lines`.

    Returns
    -------
    found, missed, invented : (H, W) bool
        Predicted lines near a true one, true ones that no predicted one is near, predicted ones near no true one.

    Raises
    ------
    ValueError
        As `score_lines`.
    """
    lines = _skeletons(true_mask, pred_mask)
    near = [_widen(line, _disc(2 * tolerance_px + 1)) for line in lines]
    kinds = (lines[1] & near[0], lines[0] & ~near[1], lines[1] & ~near[0])
    return tuple(_widen(kind, _disc(LINE_PX)) for kind in kinds)


def redraw(mask: ArrayLike, width_px: int) -> NDArray[np.uint8]:
    """Return the boundary mask (H, W) uint8, 1 on the boundary, with its skeleton drawn `width_px` wide.

    Drawn width is a convention of the annotator: give truth and prediction the same one before comparing areas.

    Parameters
    ----------
    mask : (H, W)
        Above 0 is boundary.
    width_px : int
        Full width of the lines, 1 or more.

    Raises
    ------
    ValueError
        The mask is not (H, W), or the width is below 1.
    """
    if width_px < 1:
        raise ValueError(f"width_px must be at least 1, found {width_px}")
    return _widen(_skeleton(mask), _disc(width_px)).astype(np.uint8)


def _skeleton_intercept_px(line: NDArray[np.bool_]) -> float:
    wide = _widen(line, np.ones((3, 3), np.uint8))
    length_px, crossings = 0, 0
    for rows in (wide[::TEST_LINE_SPACING_PX], wide.T[::TEST_LINE_SPACING_PX]):
        length_px += rows.size
        crossings += int((np.diff(rows.astype(np.int8), axis=1, prepend=0) == 1).sum())
    return length_px / max(crossings, 1)


def mean_intercept_px(boundary: ArrayLike) -> float:
    """Return test-line length over number of boundary lines crossed, every tenth row and column [px].

    It needs no closed grains, so it also measures a mask with gaps; `grain_size.intercept` is the standard's method.
    The skeleton is drawn 3 px wide first, so that a slanted line is crossed once.

    Parameters
    ----------
    boundary : (H, W)
        Above 0 is boundary.

    Returns
    -------
    float
        Without any crossing the whole length of the test lines: a finite lower bound, not a measurement.
    """
    return _skeleton_intercept_px(_skeleton(boundary))


def score_boundaries(true_mask: ArrayLike, pred_mask: ArrayLike) -> dict[str, Any]:
    """Score one predicted grain-boundary mask against the true one.

    Parameters
    ----------
    true_mask, pred_mask : (H, W)
        Above 0 is boundary.

    Returns
    -------
    dict
        ``error`` pixel error; ``miou``, ``iou_boundary`` at native width; ``miou_5px`` with both skeletons redrawn 5 px
        wide; ``bf1_8px``, ``bf1_3px`` skeleton boundary F1; ``intercept_px_true``, ``intercept_px_pred`` mean
        intercepts, ``intercept_rel_err`` = ``|pred / true - 1|``.
        A prediction without boundary: ``iou_boundary`` and F1 are 0 and the relative error is finite and large.
        Neither mask with a boundary: ``iou_boundary`` is NaN, its class excluded from ``miou``.

    Raises
    ------
    ValueError
        The shapes differ or are not (H, W).
    """
    true, pred = np.asarray(true_mask) > 0, np.asarray(pred_mask) > 0
    cm = confusion(true, pred, 2)
    true_line, pred_line = _skeleton(true), _skeleton(pred)
    kernel = _disc(REDRAWN_WIDTH_PX)
    same_width = confusion(_widen(true_line, kernel), _widen(pred_line, kernel), 2)
    intercepts = {"true": _skeleton_intercept_px(true_line), "pred": _skeleton_intercept_px(pred_line)}
    row = {"error": float(pixel_error(cm)), "miou": float(mean_iou(cm)), "iou_boundary": float(iou_per_class(cm)[1])}
    row |= {f"bf1_{tol}px": _skeleton_f1(true_line, pred_line, tol) for tol in TOLERANCES_PX}
    row["intercept_rel_err"] = abs(intercepts["pred"] / intercepts["true"] - 1)
    row |= {f"intercept_px_{which}": length for which, length in intercepts.items()}
    row["miou_5px"] = float(mean_iou(same_width))
    return row
