"""Phases, sizes and arrangement by hand, against other implementations, and by what must follow from a change."""

from itertools import groupby, pairwise

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.blobs import Pair, blobs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import wasserstein_distance
from skimage.measure import label, regionprops

from micro_lib.analysis.phases import (
    REACH_PX,
    Intercepts,
    compare_sets,
    cut,
    fine_texture,
    intercepts,
    particles,
    phase_fractions,
    resample,
    two_point,
)
from micro_lib.analysis.stats import cluster_bootstrap

CLASSES = ("matrix", "blob")
masks = arrays(np.uint8, (9, 11), elements=st.integers(0, 2))


def compared(real, generated, seed=0, **options):
    options = {"n_boot": 100} | options
    table = compare_sets(real, generated, CLASSES, rng=np.random.default_rng(seed), **options)
    return table.set_index(["quantity", "class", "statistic"])


@pytest.fixture(scope="module")
def real():
    return [blobs(seed, level=0.3 + 0.05 * (seed % 4)) for seed in range(16)]


# --- one mask, by hand ---
def test_phase_fractions_by_hand():
    assert_allclose(phase_fractions([[0, 0, 2], [1, 0, 2]], 4), [3 / 6, 1 / 6, 2 / 6, 0])
    with pytest.raises(ValueError, match=r"class ids must lie in 0..1, found \[2\]"):
        phase_fractions([[0, 2]], 2)


def test_particles_by_hand():
    mask = np.zeros((10, 12), np.uint8)
    mask[2:4, 3:6] = 1  # 6 px in a box of 2 x 3
    mask[6, 6] = mask[7, 7] = 1  # one particle of 2 px in a box of 2 x 2: corners hold together
    mask[0, 9:] = mask[9, 0] = 1  # cut by the border
    found = particles(mask, 1)
    assert_allclose(found.values, np.sqrt(4 / np.pi * np.array([6, 2])))
    assert_allclose(found.weights, [1 / ((10 - 2 - 1) * (12 - 3 - 1)), 1 / ((10 - 2 - 1) * (12 - 2 - 1))])
    assert found.mean == pytest.approx(np.average(found.values, weights=found.weights))
    assert len(particles(mask, 2).values) == 0 and np.isnan(particles(mask, 2).mean)


def test_intercepts_by_hand():
    found = intercepts(np.array([[0, 1, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 1, 0]]), 1)
    # Steps along rows: 2.5 + 4 + 1 px in the class, 3 + 0 + 2 boundaries; along columns 1 + 4 * 1.5 px, 2 + 4 * 1.
    assert found.length_px == 14.5 and found.count == 11 / 2
    assert found.mean_px == pytest.approx(29 / 11)


def test_a_class_without_boundary_has_no_intercept(recwarn):
    everywhere, nowhere = (intercepts(np.ones((4, 5), int), i) for i in (1, 0))
    assert everywhere == (4 * 4 + 5 * 3, 0) and nowhere == (0, 0)
    assert np.isnan([everywhere.mean_px, nowhere.mean_px]).all() and not recwarn.list


def test_two_point_by_hand():
    stripes = np.tile([1, 1, 0, 0], (8, 2))  # period 4 across
    curve = two_point(stripes, 1, 2)
    assert curve[0] == pytest.approx(0.5)
    # Distance 1: 4 straight and 4 diagonal neighbours. Across, 2 of 7 pairs; down, 1/2; diagonally as across.
    rows, columns, diagonals = 2 / 7 * (8 * 7), 0.5 * (8 * 7), 2 / 7 * (7 * 7)
    assert curve[1] == pytest.approx((rows + columns + 2 * diagonals) / (2 * 8 * 7 + 2 * 7 * 7))


# --- one mask, against other implementations ---
@given(masks)
@settings(max_examples=40)
def test_particles_equal_scikit_image(mask):
    expected = [
        (region.equivalent_diameter_area, 1 / ((9 - (bottom - top) - 1) * (11 - (right - left) - 1)))
        for region in regionprops(label(mask == 1, connectivity=2))
        for top, left, bottom, right in [region.bbox]
        if top > 0 and left > 0 and bottom < 9 and right < 11
    ]
    found = sorted(zip(*particles(mask, 1), strict=True))
    assert_allclose(found, sorted(expected))


@given(masks)
@settings(max_examples=40)
def test_intercepts_equal_steps_counted_line_by_line(mask):
    steps = [step for lines in (mask, mask.T) for line in lines for step in pairwise(line)]
    found = intercepts(mask, 1)
    assert found.length_px == sum(list(step).count(1) for step in steps) / 2
    assert found.count == sum((a == 1) != (b == 1) for a, b in steps) / 2


@given(masks, st.integers(0, 8))
@settings(max_examples=25)
def test_two_point_equals_all_pairs_counted(mask, reach_px):
    phase, places = (mask == 1).ravel(), np.stack(np.indices(mask.shape), -1).reshape(-1, 2)
    distance = np.rint(np.hypot(*(places[:, None] - places).transpose(2, 0, 1))).astype(int)
    both = phase[:, None] & phase
    expected = [both[distance == r].mean() for r in range(reach_px + 1)]
    assert_allclose(two_point(mask, 1, reach_px), expected, atol=1e-12)


# --- one mask, what must follow ---
def test_weights_make_up_for_what_the_border_cuts():
    plane = np.zeros((60, 60), np.uint8)
    cv2.circle(plane, (30, 26), 5, 1, -1)
    plane[40, 28:31] = 1
    whole = particles(plane, 1)
    found = [particles(plane[y : y + 17, x : x + 14], 1) for y in range(44) for x in range(47)]
    assert sum(one.weights.sum() for one in found) == pytest.approx(len(whole.values))
    assert sum((one.weights * one.values).sum() for one in found) == pytest.approx(whole.values.sum())
    plain = np.concatenate([one.values for one in found])
    assert plain.mean() < 0.95 * whole.values.mean()  # what leaving out cut ones alone would give


def pooled(masks):
    """Mean intercept of class 1 in all masks together."""
    return Intercepts(*np.sum([intercepts(mask, 1) for mask in masks], axis=0)).mean_px


@pytest.mark.parametrize("side_px", [2, 5, 12, 29])
def test_windows_of_any_size_have_the_same_mean_intercept(side_px):
    """A pattern without borders, seen through windows at every place of it."""
    pattern = blobs(3, side_px=24).mask
    tiled = np.tile(pattern, (3, 3))
    windows = [tiled[y : y + side_px, x : x + side_px] for y in range(24) for x in range(24)]
    runs = sum(np.count_nonzero(pattern != np.roll(pattern, 1, axis)) for axis in (0, 1)) / 2
    assert pooled(windows) == pytest.approx(2 * np.count_nonzero(pattern) / runs)


def test_closing_makes_a_class_coarser_however_small_the_window():
    """Runs that the border does not cut say the opposite: closing makes long ones, which leave the window."""
    fine = blobs(0, side_px=768, scale_px=8.0, level=0.6).mask
    closed = cv2.morphologyEx(fine, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15)))
    windows = [[pair.mask for pair in cut([Pair(mask, mask)], 64)] for mask in (fine, closed)]
    whole = pooled([closed]) / pooled([fine])
    assert whole > 1.2 and pooled(windows[1]) / pooled(windows[0]) == pytest.approx(whole, rel=0.01)
    before, after = (np.mean([n for mask in masks for n in uncut_runs(mask)]) for masks in windows)
    assert after < before


def uncut_runs(mask):
    """Lengths of the runs of class 1 along rows that the border does not cut."""
    runs = [[(value, len(list(run))) for value, run in groupby(line)][1:-1] for line in mask]
    return [n for line in runs for value, n in line if value == 1]


@pytest.mark.parametrize("factor", [2, 3])
def test_sizes_grow_with_the_picture(factor):
    mask = blobs(3).mask
    large = np.kron(mask, np.ones((factor, factor), np.uint8))
    assert_allclose(sorted(particles(large, 1).values), factor * np.sort(particles(mask, 1).values))
    assert intercepts(large, 1).mean_px == pytest.approx(factor * intercepts(mask, 1).mean_px, rel=0.02)  # but for ends
    # The same blobs, as far apart as before in units of their size.
    assert_allclose(two_point(large, 1, 10 * factor)[:: 5 * factor], two_point(mask, 1, 10)[::5], atol=0.01)


@given(masks)
@settings(max_examples=20)
def test_turning_a_mask_changes_nothing(mask):
    for turned in (mask[::-1], mask[:, ::-1], mask.T):
        assert_allclose(two_point(turned, 1, 8), two_point(mask, 1, 8), atol=1e-12)
        assert_allclose(sorted(particles(turned, 1).values), sorted(particles(mask, 1).values))
        assert intercepts(turned, 1) == intercepts(mask, 1)


def test_two_point_starts_at_the_fraction_and_ends_at_its_square():
    rng = np.random.default_rng(0)
    mask = (rng.random((300, 300)) < 0.3).astype(np.uint8)
    curve = two_point(mask, 1, 20)
    assert curve[0] == pytest.approx(mask.mean())
    assert_allclose(curve[1:], 0.09, atol=0.004)
    assert_allclose(two_point(np.ones((20, 30)), 1, 19), 1)
    assert_allclose(two_point(np.ones((20, 30)), 0, 19), 0)
    with pytest.raises(ValueError, match=r"0\.\.19"):
        two_point(np.ones((20, 30)), 1, 20)


def test_fine_texture_is_what_a_blur_takes_away():
    image = blobs(0, noise=10).image
    assert fine_texture(np.full((20, 20), 7)) == pytest.approx(0, abs=1e-5)
    assert fine_texture(cv2.GaussianBlur(image, (0, 0), 1.0)) < 0.3 * fine_texture(image)
    assert fine_texture(image // 2 + 50) == pytest.approx(fine_texture(image) / 2, rel=0.05)


def test_cut_takes_whole_windows_and_keeps_the_rest():
    micrograph = Pair(np.arange(70, dtype=np.uint8).reshape(7, 10), np.zeros((7, 10), np.uint8), "a")
    windows = cut([micrograph], 3)
    assert len(windows) == 2 * 3 and {window.group for window in windows} == {"a"}
    assert_array_equal(windows[4].image, micrograph.image[3:6, 3:6])
    with pytest.raises(ValueError, match="windows of 8 px cannot be cut from a micrograph of 7 x 10 px"):
        cut([micrograph], 8)


# --- two sets ---
def test_a_set_equals_itself(real):
    table = compared(real, real[::-1])
    assert_allclose(table.xs("distance", level="statistic")["generated"].dropna(), 0, atol=1e-12)
    ratio = table.drop("distance", level="statistic")["ratio"].dropna()
    assert len(ratio) > 15
    assert_allclose(ratio, 1)
    inside = table.dropna(subset="ratio_low")
    assert ((inside["ratio_low"] <= 1) & (inside["ratio_high"] >= 1)).all()
    assert (table["n_real"] == 16).all() and (table["n_generated"] == 16).all()


def test_means_and_variances_by_hand(real):
    table = compared(real, real[:5])
    for pairs, column in ((real, "real"), (real[:5], "generated")):
        fractions = np.array([pair.mask.mean() for pair in pairs])
        assert table.loc[("fraction", "blob", "mean"), column] == pytest.approx(fractions.mean())
        assert table.loc[("fraction", "blob", "variance"), column] == pytest.approx(fractions.var(ddof=1))
        whole = [particles(pair.mask, 1) for pair in pairs]
        sizes, weights = (np.concatenate(part) for part in zip(*whole, strict=True))
        mean = np.average(sizes, weights=weights)
        assert table.loc[("diameter", "blob", "mean"), column] == pytest.approx(mean)
        variance = np.average((sizes - mean) ** 2, weights=weights)
        assert table.loc[("diameter", "blob", "variance"), column] == pytest.approx(variance)
        density = [1e4 * one.weights.sum() for one in whole]
        assert table.loc[("density", "blob", "mean"), column] == pytest.approx(np.mean(density))
        assert table.loc[("intercept", "blob", "mean"), column] == pytest.approx(pooled(pair.mask for pair in pairs))
        pixels = np.concatenate([pair.image[pair.mask == 1] for pair in pairs])
        assert table.loc[("grey", "blob", "mean"), column] == pytest.approx(pixels.mean())
        assert table.loc[("grey", "blob", "variance"), column] == pytest.approx(pixels.var())
        spread = [pair.image.std() for pair in pairs]
        assert table.loc[("grey spread", "", "mean"), column] == pytest.approx(np.mean(spread))
    row = table.loc[("fraction", "blob", "variance")]
    assert row["ratio"] == pytest.approx(row["generated"] / row["real"])


def test_distances_equal_scipy_and_a_shift_is_its_size(real):
    other = [blobs(seed, scale_px=4.0) for seed in range(50, 58)]
    table = compared(real, other)
    a, b = (
        [np.concatenate(part) for part in zip(*[particles(pair.mask, 1) for pair in pairs], strict=True)]
        for pairs in (real, other)
    )
    expected = wasserstein_distance(a[0], b[0], a[1], b[1])
    assert table.loc[("diameter", "blob", "distance"), "generated"] == pytest.approx(expected, abs=0.25)  # half a bin
    curves = [np.mean([two_point(pair.mask, 1) for pair in pairs], axis=0) for pairs in (real, other)]
    largest = np.abs(curves[0] - curves[1]).max()
    assert len(curves[0]) == REACH_PX + 1
    assert table.loc[("two-point", "blob", "distance"), "generated"] == pytest.approx(largest)
    brighter = [pair._replace(image=pair.image + np.uint8(10)) for pair in real]
    shifted = compared(real, brighter).loc[("grey", "", "distance")]
    assert shifted["generated"] == pytest.approx(10) and shifted["generated"] > shifted["real_high"]


def test_intervals_are_those_of_the_cluster_bootstrap(real):
    specimens = [pair.group for pair in real[:8]] * 2  # two pairs each
    pairs = [*real[:8], *[blobs(seed, level=0.5) for seed in range(30, 38)]]
    row = compared(pairs, real, specimens=specimens, n_boot=4000, level=0.8).loc[("fraction", "blob", "mean")]
    fractions = [pair.mask.mean() for pair in pairs]
    expected = cluster_bootstrap(fractions, specimens, rng=np.random.default_rng(1), level=0.8)
    assert (row["n_real"], row["n_generated"]) == (8, 16)
    assert_allclose(row[["real", "real_low", "real_high"]].astype(float), [*expected], atol=0.003)
    # Pairs of one specimen are alike on purpose above, so taking them for independent would narrow the interval.
    alike = compared(real * 2, real, specimens=[*range(16)] * 2, n_boot=2000).loc[("fraction", "blob", "mean")]
    alone = compared(real * 2, real, n_boot=2000).loc[("fraction", "blob", "mean")]
    assert alike["real_high"] - alike["real_low"] > 1.2 * (alone["real_high"] - alone["real_low"])


def test_what_generators_do_wrong_is_seen(real):
    coarse = [blobs(seed, scale_px=5.0, level=0.3 + 0.05 * (seed % 4)) for seed in range(16)]
    table = compared(real, coarse)
    assert table.loc[("intercept", "blob", "mean"), "ratio_low"] > 1.2  # too coarse
    assert table.loc[("density", "blob", "mean"), "ratio_high"] < 0.9
    row = table.loc[("two-point", "blob", "distance")]
    assert row["generated"] > row["real_high"]
    uniform = compared(real, [blobs(seed, level=0.375) for seed in range(16)])
    row = uniform.loc[("fraction", "blob", "variance")]
    assert row["ratio"] < 0.01 and row["ratio_high"] < 0.5  # too uniform
    assert uniform.loc[("fraction", "blob", "mean"), "ratio"] == pytest.approx(1, abs=0.05)
    blurred = [pair._replace(image=cv2.GaussianBlur(pair.image, (0, 0), 1.5)) for pair in real]
    table = compared(real, blurred)
    assert table.loc[("fine texture", "", "mean"), "ratio_high"] < 0.5
    assert table.loc[("diameter", "blob", "mean"), "ratio"] == 1


def test_order_scale_and_seed(real):
    table, again, other = compared(real, real[:6]), compared(real, real[:6]), compared(real, real[:6], seed=1)
    pd.testing.assert_frame_equal(table, again)
    estimates = ["real", "generated", "ratio"]
    moments = table.index.get_level_values("statistic") != "distance"  # there `real` is a median of resamples
    pd.testing.assert_frame_equal(table.loc[moments, estimates], other.loc[moments, estimates])
    assert not table["real_low"].equals(other["real_low"])
    shuffled = compared(real[::-1], real[:6][::-1])
    pd.testing.assert_frame_equal(table.loc[moments, estimates], shuffled.loc[moments, estimates])
    narrow = compared(real, real[:6], level=0.5)
    row = ("fraction", "blob", "mean")
    assert narrow.loc[row, "real_low"] > table.loc[row, "real_low"]


def test_what_cannot_be_told_is_nan(real, recwarn):
    flat = [Pair(pair.image, np.zeros_like(pair.mask)) for pair in real[:3]]
    table = compared(flat, real[:3])
    assert table.loc[("diameter", "blob", "mean"), ["real", "real_low", "ratio"]].isna().all()
    assert table.loc[("fraction", "blob", "mean"), "real"] == 0
    assert np.isnan(table.loc[("fraction", "blob", "mean"), "ratio"])
    assert np.isnan(table.loc[("diameter", "blob", "distance"), "generated"])
    assert table.loc[("intercept", "blob", "mean"), ["real", "real_low", "ratio"]].isna().all()
    one = compared(real[:4], real, specimens=["a"] * 4).loc[("fraction", "blob", "mean")]
    assert one[["real_low", "ratio_low"]].isna().all() and one[["real", "ratio", "generated_low"]].notna().all()
    assert one["n_real"] == 1
    assert not recwarn.list


def test_a_class_in_some_specimens_alone_has_a_distance(real):
    bare = [Pair(pair.image, np.zeros_like(pair.mask)) for pair in real[:2]]
    row = compared([*real[:2], *bare], real, specimens=list("abcd"), n_boot=400).loc[("diameter", "blob", "distance")]
    assert row[["real", "real_low", "real_high", "generated", "ratio"]].notna().all()
    assert row["real_low"] <= row["real"] <= row["real_high"]


def test_resamples_draw_whole_units():
    draws = resample(["a", "b", "a", "c"], np.random.default_rng(0), 500)
    assert draws.n_units == 3 and draws.times.shape == (501, 4)
    assert (draws.times[0] == 1).all()
    assert_array_equal(draws.times[:, 0], draws.times[:, 2])
    assert (draws.times[1:, [0, 1, 3]].sum(1) == 3).all()
    assert draws.times[1:].mean() == pytest.approx(1, abs=0.1)


def test_sets_that_cannot_be_compared_are_refused(real):
    with pytest.raises(ValueError, match="0 real and 16 generated pairs"):
        compared([], real)
    with pytest.raises(ValueError, match=r"one size, found \[\(32, 32\), \(64, 64\)\]; cut them"):
        compared(real, cut(real, 32))
    with pytest.raises(ValueError, match="2 specimens were named for 16 real pairs"):
        compared(real, real, specimens=["a", "b"])
    with pytest.raises(ValueError, match=r"images must be uint8, found \['float64'\]"):
        compared(real, [real[0]._replace(image=real[0].image / 255)])
    with pytest.raises(ValueError, match=r"class ids must lie in 0\.\.1"):
        compared(real, [real[0]._replace(mask=real[0].mask * 2)])
