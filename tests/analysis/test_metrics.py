"""Scores against hand-computed values, against scikit-learn and torchmetrics, and against their own symmetries."""

import math
from itertools import groupby

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import binary_dilation
from skimage.morphology import skeletonize
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

from micro_lib.analysis.metrics import (
    as_columns,
    classes_counted,
    confusion,
    iou_per_class,
    matched_lines,
    mean_intercept_px,
    mean_iou,
    pixel_error,
    present_class_miou,
    redraw,
    score_boundaries,
    score_lines,
    stacked,
    summary,
)

N = 4
masks = arrays(np.uint8, (7, 9), elements=st.integers(0, N - 1))
# Three present classes at IoU 18/20, 18/20 and 27/30, and one stray pixel of an absent fourth class.
STRAY = np.array([[18, 0, 0, 1], [0, 18, 1, 0], [1, 1, 27, 0], [0, 0, 0, 0]])


def masks_of(cm):
    true, pred = np.indices(cm.shape)
    return np.repeat(true, cm.ravel()), np.repeat(pred, cm.ravel())


def voronoi_boundary(seed, size=160, grains=25, width=3):
    """Draw the boundaries of a Voronoi tessellation."""
    rng = np.random.default_rng(seed)
    centres = rng.random((grains, 2)) * size
    grid = np.stack(np.mgrid[:size, :size], -1)[:, :, None]
    labels = ((grid - centres) ** 2).sum(-1).argmin(-1)
    edge = np.zeros((size, size), np.uint8)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    return cv2.dilate(edge, np.ones((width, width), np.uint8))


# --- which classes are averaged ---
def test_stray_pixel_of_an_absent_class():
    cm = confusion(*masks_of(STRAY), 4)
    assert_array_equal(cm, STRAY)
    assert_allclose(iou_per_class(cm), [0.9, 0.9, 0.9, 0.0])
    assert mean_iou(cm) == pytest.approx(0.675)
    assert present_class_miou(cm) == pytest.approx(0.900)
    assert classes_counted(cm) == 4


def test_stray_pixel_is_still_a_false_negative():
    without = STRAY.copy()
    without[0, 3], without[0, 0] = 0, 19
    assert present_class_miou(without) == pytest.approx((19 / 20 + 0.9 + 0.9) / 3)


def test_class_absent_from_both_is_excluded_and_the_count_says_so():
    cm = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    assert_allclose(iou_per_class(cm), [6 / 9, 3 / 6, np.nan])
    assert mean_iou(cm) == present_class_miou(cm) == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert classes_counted(cm) == 2
    assert pixel_error(cm) == pytest.approx(3 / 12)


def test_no_pixels_give_nan_without_a_warning(recwarn):
    empty = np.zeros((3, 3), np.int64)
    for metric in (mean_iou, present_class_miou, pixel_error):
        assert np.isnan(metric(empty))
    assert classes_counted(empty) == 0
    assert not recwarn.list


# --- over what is averaged ---
def test_pooled_and_per_image_by_hand():
    cms = np.array([[[8, 0], [0, 2]], [[4, 4], [0, 2]], [[10, 0], [0, 0]]])
    row = summary(cms, ("grain", "boundary"))
    assert row["n_images"] == 3 and row["classes_counted"] == 2
    assert row["pixel_error"] == pytest.approx(4 / 30)
    assert row["miou_pooled"] == pytest.approx((22 / 26 + 4 / 8) / 2)
    assert row["miou_per_image"] == pytest.approx((1 + (4 / 8 + 2 / 6) / 2 + 1) / 3)
    assert row["iou_per_image_boundary"] == pytest.approx((1 + 2 / 6) / 2)  # the third image has none
    assert row["present_class_miou_per_image"] == pytest.approx(row["miou_per_image"])


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_matrices_survive_a_table(n_images, n_classes, seed):
    cms = np.random.default_rng(seed).integers(0, 2**40, (n_images, n_classes, n_classes))
    table = pd.DataFrame([as_columns(cm, "n") for cm in cms]).sample(frac=1, axis=1, random_state=0)
    assert_array_equal(stacked(table, "n"), cms)
    assert_array_equal(stacked(table.assign(n=1, n_seen=2.0, m_0_0=3), "n"), cms)


def test_matrices_are_read_beside_those_of_more_classes():
    table = pd.DataFrame([{"n_0_0": 3, "n_0_1": 1, "n_1_0": 0, "n_1_1": 4, "n_2_2": np.nan, "n_0_2": np.nan}])
    assert stacked(table, "n").tolist() == [[[3, 1], [0, 4]]]
    with pytest.raises(ValueError, match="non-finite"):
        stacked(pd.concat([table, table.assign(n_1_1=np.nan)]), "n")
    for wrong in (table.drop(columns="n_1_1"), table[[]], table.rename(columns=lambda name: name.replace("n", "nn"))):
        with pytest.raises(ValueError, match="columns n_0_0 to n_n_n, of a square, are expected; found"):
            stacked(wrong, "n")


def test_summary_separates_the_two_metrics_per_image_only():
    row = summary(np.stack([STRAY, np.diag([0, 0, 0, 50])]), ("a", "b", "c", "d"))
    assert row["miou_per_image"] == pytest.approx((0.675 + 1) / 2)
    assert row["present_class_miou_per_image"] == pytest.approx((0.9 + 1) / 2)
    assert row["miou_pooled"] == row["present_class_miou_pooled"]


@pytest.mark.parametrize("cms", [STRAY, np.zeros((0, 4, 4)), np.zeros((2, 3, 3))])
def test_summary_refuses_what_is_no_stack(cms):
    with pytest.raises(ValueError, match="n = 4"):
        summary(cms, ("a", "b", "c", "d"))


# --- against independent implementations ---
@given(masks, masks)
@settings(deadline=None, max_examples=60)
def test_equals_scikit_learn(true, pred):
    cm = confusion(true, pred, N)
    labels = np.arange(N)
    assert_array_equal(cm, confusion_matrix(true.ravel(), pred.ravel(), labels=labels))
    jaccard = jaccard_score(true.ravel(), pred.ravel(), labels=labels, average=None, zero_division=0)
    absent = ~np.isin(labels, [true, pred])  # from both: undefined here, what `zero_division` says there
    assert_allclose(iou_per_class(cm), np.where(absent, np.nan, jaccard))
    assert 1 - pixel_error(cm) == pytest.approx(accuracy_score(true.ravel(), pred.ravel()))


@given(st.lists(st.tuples(masks, masks), min_size=1, max_size=4))
@settings(deadline=None, max_examples=40)
def test_pooled_equals_torchmetrics(pairs):
    matrix, jaccard = MulticlassConfusionMatrix(N), MulticlassJaccardIndex(N, average="none", validate_args=False)
    for true, pred in pairs:
        matrix.update(torch.as_tensor(pred), torch.as_tensor(true))
        jaccard.update(torch.as_tensor(pred).long(), torch.as_tensor(true).long())
    pooled = sum(confusion(true, pred, N) for true, pred in pairs)
    assert_array_equal(pooled, matrix.compute().numpy())
    both_absent = (pooled.sum(0) + pooled.sum(1)) == 0  # 0 in torchmetrics, undefined here
    assert_allclose(iou_per_class(pooled)[~both_absent], jaccard.compute().numpy()[~both_absent], rtol=1e-6)


@given(st.lists(st.tuples(masks, masks), min_size=1, max_size=4))
@settings(deadline=None, max_examples=40)
def test_per_image_equals_torchmetrics(pairs):
    corner = np.arange(N)
    for true, pred in pairs:  # every class in every image: the libraries differ in what an absent one counts
        true[0, :N] = pred[0, :N] = corner
    theirs = MeanIoU(N, input_format="index")
    theirs.update(*(torch.as_tensor(np.stack(stack)).long() for stack in zip(*[(p, t) for t, p in pairs], strict=True)))
    ours = mean_iou(np.stack([confusion(true, pred, N) for true, pred in pairs])).mean()
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-6)


# --- properties ---
@given(masks, masks)
@settings(deadline=None)
def test_iou_is_symmetric_and_one_on_itself(a, b):
    assert_allclose(iou_per_class(confusion(a, b, N)), iou_per_class(confusion(b, a, N)))
    assert mean_iou(confusion(a, a, N)) == present_class_miou(confusion(a, a, N)) == 1
    assert pixel_error(confusion(a, a, N)) == 0


@given(masks, masks, st.permutations(range(N)), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_renaming_classes_and_shuffling_pixels(true, pred, names, seed):
    names = np.array(names)
    cm, renamed = confusion(true, pred, N), confusion(names[true], names[pred], N)
    assert_allclose(iou_per_class(renamed)[names], iou_per_class(cm))
    order = np.random.default_rng(seed).permutation(true.size)
    assert_array_equal(confusion(true.ravel()[order], pred.ravel()[order], N), cm)


@given(masks, masks, st.integers(0, 7))
@settings(deadline=None)
def test_pooled_is_the_sum_of_parts_and_bounds_hold(true, pred, cut):
    parts = np.stack([confusion(true[:cut], pred[:cut], N), confusion(true[cut:], pred[cut:], N)])
    cm = confusion(true, pred, N)
    assert_array_equal(parts.sum(0), cm)
    assert cm.sum() == true.size
    assert 0 <= mean_iou(cm) <= present_class_miou(cm) <= 1


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1023])
def test_counts_every_pixel_whatever_the_size(size):
    rng = np.random.default_rng(size)
    true, pred = rng.integers(0, 256, (2, size))
    expected = np.zeros((256, 256), int)
    np.add.at(expected, (true, pred), 1)
    assert_array_equal(confusion(true, pred, 256), expected)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.int64])
def test_dtype_and_memory_layout_do_not_matter(dtype):
    true = np.array([[0, 0, 0, 1], [1, 0, 1, 0]])
    assert_array_equal(confusion(true.astype(dtype).T, true.astype(dtype)[::-1].T, 2), [[2, 3], [3, 0]])


# --- faults ---
def test_a_picture_of_a_mask_is_refused_with_the_fix():
    with pytest.raises(ValueError, match=r"true mask: class ids must lie in 0..1, found \[255\].*class map"):
        confusion(np.array([0, 255], np.uint8), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match=r"predicted mask.*found \[-1\]"):
        confusion([0, 1], [0, -1], 2)
    with pytest.raises(ValueError, match=r"found \[2\]"):
        confusion([0, 1], [0, 2], 2)
    with pytest.raises(ValueError, match=r"found \[256\]"):
        confusion([0, 1], [0, 256], 2)  # would wrap to 0 as uint8


def test_shapes_types_and_class_numbers_are_checked():
    with pytest.raises(ValueError, match=r"\(2,\) against \(3,\)"):
        confusion([0, 1], [0, 1, 1], 2)
    with pytest.raises(TypeError, match="float64"):
        confusion([0.0, 1.0], [0, 1], 2)
    with pytest.raises(ValueError, match="n_classes"):
        confusion([0], [0], 257)
    with pytest.raises(ValueError, match="shape"):
        mean_iou(np.zeros((2, 3)))


# --- boundaries ---
def reference_f1(true, pred, tol):
    """Score skeletons by slow morphology; SciPy's footprint is the kernel the convention names."""
    t, p = skeletonize(true > 0), skeletonize(pred > 0)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * tol + 1, 2 * tol + 1)).astype(bool)
    hits_p, hits_t = np.sum(p & binary_dilation(t, disc)), np.sum(t & binary_dilation(p, disc))
    precision, recall = hits_p / p.sum(), hits_t / t.sum()
    return 2 * precision * recall / (precision + recall)


def reference_intercept(mask):
    """Count runs of boundary pixels line by line."""
    wide = binary_dilation(skeletonize(mask > 0), np.ones((3, 3), bool))
    lines = [line for image in (wide, wide.T) for line in image[::10]]
    crossings = sum(bool(value) for line in lines for value, _ in groupby(line))
    return sum(map(len, lines)) / crossings


@pytest.mark.parametrize("seed", range(4))
def test_boundary_scores_equal_a_slow_implementation(seed):
    true, pred = voronoi_boundary(seed), voronoi_boundary(seed, width=5)
    pred[:60] = voronoi_boundary(seed + 50)[:60]
    row = score_boundaries(255 * true, pred)
    for tol in (3, 8):
        assert row[f"bf1_{tol}px"] == pytest.approx(reference_f1(true, pred, tol))
    assert row["intercept_px_true"] == mean_intercept_px(true) == pytest.approx(reference_intercept(true))
    assert row["intercept_px_pred"] == pytest.approx(reference_intercept(pred))
    assert row["intercept_rel_err"] == pytest.approx(abs(reference_intercept(pred) / reference_intercept(true) - 1))
    t, p = true > 0, pred > 0
    assert row["error"] == pytest.approx(np.mean(t != p))
    assert row["iou_boundary"] == pytest.approx((t & p).sum() / (t | p).sum())
    assert row["miou"] == pytest.approx(((t & p).sum() / (t | p).sum() + (~t & ~p).sum() / (~t | ~p).sum()) / 2)
    assert row["miou_5px"] == pytest.approx(mean_iou(confusion(redraw(true, 5), redraw(pred, 5), 2)))
    assert 0 < row["bf1_3px"] < row["bf1_8px"] < 1


def line(column, size=60, width=1):
    mask = np.zeros((size, size), np.uint8)
    mask[:, column : column + width] = 1
    return mask


@pytest.mark.parametrize(("shift", "at_3", "at_8"), [(0, 1, 1), (3, 1, 1), (4, 0, 1), (8, 0, 1), (9, 0, 0)])
def test_tolerance_by_hand(shift, at_3, at_8):
    true, pred = line(20), line(20 + shift)
    row = score_boundaries(true, pred)
    assert (row["bf1_3px"], row["bf1_8px"]) == (pytest.approx(at_3), pytest.approx(at_8))


def test_half_the_boundary_found_is_recall_one_half():
    true, pred = line(10) | line(40), line(10)
    found = score_boundaries(true, pred)["bf1_3px"]
    assert score_boundaries(pred, true)["bf1_3px"] == found == pytest.approx(2 * 1 * 0.5 / 1.5)


def test_lines_are_scored_by_where_they_run_and_how_wide_they_are():
    true, pred = line(10, width=3) | line(40, width=3), line(13, width=5)  # centre lines at 11, 41 and 15
    row = score_lines(true, pred, 4)
    shares = {"precision": pytest.approx(1, abs=0.03), "recall": pytest.approx(0.5, abs=0.02)}
    assert row == {**shares, **widths(3, 5)}
    row = score_lines(true, pred, 3)
    assert row["precision"] < 0.05 and row["recall"] < 0.05  # skeletons bend at their ends
    back = score_lines(pred, true, 4)
    assert (back["precision"], back["recall"]) == (pytest.approx(0.5, abs=0.02), pytest.approx(1, abs=0.03))


def test_lines_are_told_apart_as_they_are_counted():
    true, pred = line(10, width=3) | line(40, width=3), line(13, width=5) | line(25, width=3)
    found, missed, invented = matched_lines(true, pred, 4)
    for kind, column in ((found, 15), (missed, 41), (invented, 26)):
        at = np.flatnonzero(kind[30])
        assert abs(at.mean() - column) <= 1 and len(at) == 3
    assert [kind.any() for kind in matched_lines(true, true, 1)] == [True, False, False]
    with pytest.raises(ValueError, match="different shapes"):
        matched_lines(true, pred[1:], 4)


def widths(true, pred):
    # An end of a thick line's skeleton lacks some pixels.
    return {"width_px_true": pytest.approx(true, rel=0.08), "width_px_pred": pytest.approx(pred, rel=0.08)}


def test_no_line_has_neither_a_share_nor_a_width():
    some, none = line(10, width=3), np.zeros((60, 60))
    row = score_lines(some, none, 3)
    assert row["recall"] == 0 and math.isnan(row["precision"]) and math.isnan(row["width_px_pred"])
    row = score_lines(none, some, 3)
    assert row["precision"] == 0 and math.isnan(row["recall"]) and math.isnan(row["width_px_true"])
    with pytest.raises(ValueError, match="different shapes"):
        score_lines(some, none[:-1], 3)


def test_mean_intercept_by_hand():
    # 6 rows of 60 px cross two lines each; 6 columns (0, 10, ... 50) cross none.
    assert mean_intercept_px(line(14) | line(44)) == pytest.approx(12 * 60 / 12)


def test_drawn_width_changes_iou_but_not_the_redrawn_one():
    thin, wide = line(30, width=3), line(28, width=7)
    row = score_boundaries(thin, wide)
    assert row["iou_boundary"] == pytest.approx(3 / 7)
    assert row["bf1_3px"] == pytest.approx(1)
    assert row["miou_5px"] > 0.9 > row["miou"]


@pytest.mark.parametrize("width", [1, 3, 5, 8])
def test_redraw_draws_that_width(width):
    drawn = redraw(line(30, width=3), width)
    assert drawn.dtype == np.uint8 and set(np.unique(drawn)) == {0, 1}
    assert drawn[30].sum() == width


def test_all_grain_prediction():
    row = score_boundaries(line(30, width=3), np.zeros((60, 60)))
    assert row["bf1_8px"] == row["bf1_3px"] == row["iou_boundary"] == 0
    assert row["miou"] == pytest.approx(0.95 / 2) and row["error"] == pytest.approx(0.05)
    assert row["intercept_px_pred"] == 12 * 60  # the whole length of the test lines
    assert np.isfinite(row["intercept_rel_err"]) and row["intercept_rel_err"] > 1


def test_all_boundary_prediction():
    row = score_boundaries(line(30, width=3), np.ones((60, 60)))
    assert row["iou_boundary"] == pytest.approx(0.05) and row["error"] == pytest.approx(0.95)
    assert all(np.isfinite(value) for value in row.values())


def test_nothing_to_find_and_nothing_found():
    row = score_boundaries(np.zeros((40, 40)), np.zeros((40, 40)))
    assert row["error"] == 0 and row["miou"] == 1 and row["intercept_rel_err"] == 0
    assert np.isnan(row["iou_boundary"]) and row["bf1_8px"] == 0


def test_boundary_faults():
    with pytest.raises(ValueError, match="differ in shape"):
        score_boundaries(np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        score_boundaries(np.zeros((4, 4, 3)), np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="width_px"):
        redraw(np.zeros((4, 4)), 0)
