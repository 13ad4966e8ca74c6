"""Grain size on grids and tessellations whose answer is known, and under scaling, rotation and drawn width."""

from dataclasses import replace
from itertools import groupby

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats as scipy_stats
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from micro_lib.analysis import grain_size
from micro_lib.analysis.grain_size import (
    GrainSizeError,
    grains_from_boundaries,
    intercept,
    measure,
    planimetric,
)
from micro_lib.analysis.metrics import mean_intercept_px

METHODS = (intercept, planimetric)


def nearest(centres, size):
    """Label each pixel (H, W) int32, from 1, by its nearest centre."""
    grid = np.mgrid[:size, :size].reshape(2, -1).T + 0.5
    return (cKDTree(centres).query(grid)[1].reshape(size, size) + 1).astype(np.int32)


def poisson_voronoi(rng, size, grains):
    """Label a cut-out, with `grains` expected in it, of a Poisson-Voronoi tessellation that goes on around it."""
    return nearest(rng.random((rng.poisson(4 * grains), 2)) * 2 * size - size / 2, size)


def boundaries(labels, width=1):
    edge = np.zeros(labels.shape, np.uint8)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    return cv2.dilate(edge, np.ones((width, width), np.uint8))


def square_grid(period, repeats, offset, width):
    """Draw lines `width` wide every `period` px: a mask (H, W) uint8 of ``repeats * period`` px a side."""
    mask = np.zeros((repeats * period,) * 2, np.uint8)
    for centre in range(offset, repeats * period, period):
        mask[centre - width // 2 : centre + width // 2 + 1] = 1
        mask[:, centre - width // 2 : centre + width // 2 + 1] = 1
    return mask


# --- known answers ---
@pytest.mark.parametrize("width", [1, 3, 7])
@pytest.mark.parametrize(("period", "repeats", "offset"), [(40, 6, 13), (25, 9, 15), (50, 3, 25)])
def test_square_grid_is_exact_whatever_the_drawn_width(period, repeats, offset, width):
    mask = square_grid(period, repeats, offset, width)
    sizes = measure(mask, 0.5)
    assert sizes["planimetric"].size_px == pytest.approx(period)
    # Lines run from the first to the last pixel centre; here they meet as many boundaries as if a pixel longer.
    exact = period * (1 - 1 / mask.shape[0])
    assert sizes["intercept"].size_px == pytest.approx(exact)
    assert sizes["intercept"].size_um == pytest.approx(exact / 2)
    assert sizes["planimetric"].count == pytest.approx(repeats**2)  # whole grains
    assert sizes["intercept"].count == pytest.approx(2 * repeats * mask.shape[0])
    assert sizes["planimetric"].n_grains == (repeats + 1) ** 2


@pytest.mark.parametrize(("period", "repeats"), [(40, 3), (25, 6), (12, 2)])
def test_the_intercept_of_a_square_grid_is_exact_over_all_its_positions(period, repeats):
    per_length = []
    for offset in range(period):
        place = (np.arange(period * repeats) + offset) // period
        per_length.append(1 / intercept(place[:, None] * (repeats + 1) + place + 1).size_px)
    assert 1 / np.mean(per_length) == pytest.approx(period)


def test_hexagonal_grid_by_hand():
    """A hexagon of side a with two upright sides: area A = 3 sqrt(3)/2 a^2, half of each side belongs to it.

    Those halves are 2 a high in all, so rows cross 2 a / A boundaries per px, and sqrt(3) a wide, so columns cross
    sqrt(3) a / A.
    """
    side, size = 24.0, 600
    rows, columns = np.mgrid[-2:24, -2:20]
    centres = np.stack([1.5 * side * rows, np.sqrt(3) * side * (columns + rows % 2 / 2)], -1).reshape(-1, 2) + 3.3
    area = 1.5 * np.sqrt(3) * side**2
    labels = nearest(centres, size)
    for grains in (labels, grains_from_boundaries(boundaries(labels, 3))):
        expected = 2 / (2 * side / area + np.sqrt(3) * side / area)
        assert intercept(grains).size_px == pytest.approx(expected, rel=0.01)
        assert planimetric(grains).size_px == pytest.approx(np.sqrt(area), rel=0.01)


def test_random_tessellations_meet_their_expectation():
    """Poisson-Voronoi with density d: mean area 1/d, mean intercept pi / (4 sqrt(d)) (Moller 1994).

    That includes every tangent, triple point, line end, edge and corner grain, so a biased counting rule would show.
    """
    rng = np.random.default_rng(0)
    size, grains = 240, 40
    images = [poisson_voronoi(rng, size, grains) for _ in range(60)]
    density = grains / size**2
    per_length = np.mean([1 / intercept(image).size_px for image in images])
    per_area = np.mean([1 / planimetric(image).size_px ** 2 for image in images])
    assert 1 / per_length == pytest.approx(np.pi / (4 * np.sqrt(density)), rel=0.03)  # standard error 1 %
    assert per_area == pytest.approx(density, rel=0.05)  # standard error 2 %


@pytest.mark.parametrize(
    ("number", "intercept_um", "diameter_um"), [(0, 320.0, 359.2), (5, 56.6, 63.5), (8, 20.0, 22.5)]
)
def test_grain_size_number_of_the_standard(number, intercept_um, diameter_um):
    """Rows of ASTM E112-13 Table 4, and its printed equations, in mm."""
    labels = grains_from_boundaries(square_grid(40, 6, 13, 1))
    for method, size_um, equation in (
        (intercept, intercept_um, lambda mm: -6.643856 * np.log10(mm) - 3.288),
        (planimetric, diameter_um, lambda mm: 3.321928 * np.log10(1 / mm**2) - 2.954),
    ):
        result = method(labels, size_um / method(labels).size_px)
        assert result.size_um == pytest.approx(size_um)
        assert result.astm_g == pytest.approx(number, abs=0.01)
        assert result.astm_g == pytest.approx(equation(size_um / 1000), abs=0.001)


# --- against slow counting ---
@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_slow_counting(seed):
    labels = poisson_voronoi(np.random.default_rng(seed), 90, 30)
    runs = [len(list(groupby(line))) for image in (labels, labels.T) for line in image.tolist()]
    assert intercept(labels).count == sum(runs) - len(runs)

    corners = {labels[0, 0], labels[0, -1], labels[-1, 0], labels[-1, -1]}
    count = 0.0
    for grain in np.unique(labels):
        rows, columns = np.nonzero(labels == grain)
        cut = {0, 89} & ({*rows.tolist()} | {*columns.tolist()})
        count += 0 if grain in corners else 0.5 if cut else 1
    for corner in (labels[0, 0], labels[0, -1], labels[-1, 0], labels[-1, -1]):
        count += 0.25 * (corner in corners)
    assert planimetric(labels).count == pytest.approx(count)


def test_line_count_without_labels_agrees():
    labels = poisson_voronoi(np.random.default_rng(5), 400, 60)
    assert mean_intercept_px(boundaries(labels, 3)) == pytest.approx(intercept(labels).size_px, rel=0.1)


def test_interval_is_student_over_nine_fields():
    labels = poisson_voronoi(np.random.default_rng(1), 240, 80)
    densities = []
    for row in range(0, 240, 80):
        for column in range(0, 240, 80):
            field = labels[row : row + 80, column : column + 80]
            changes = np.count_nonzero(np.diff(field)) + np.count_nonzero(np.diff(field, axis=0))
            densities.append(changes / (2 * 79 * 80))
    half = scipy_stats.t.ppf(0.95, 8) * np.std(densities, ddof=1) / 3
    result = intercept(labels, level=0.9)
    density = 1 / result.size_px
    assert result.n_fields == 9 and result.level == 0.9
    assert_allclose([result.low_px, result.high_px], [1 / (density + half), 1 / (density - half)])
    assert result.relative_accuracy_percent == pytest.approx(100 * half / density)


def test_interval_covers_the_truth_and_single_lines_would_not():
    """Why fields: crossings of neighbouring lines, and of rows with columns, come from the same grains."""
    rng = np.random.default_rng(2)
    images = [poisson_voronoi(rng, 120, 60) for _ in range(150)]
    truth = 1 / np.mean([1 / intercept(image).size_px for image in images])
    area = np.mean([planimetric(image).size_px ** -2 for image in images]) ** -0.5
    fields = np.mean([(r := intercept(image)).low_px <= truth <= r.high_px for image in images])
    counts = np.mean([(r := planimetric(image)).low_px <= area <= r.high_px for image in images])
    lines = []
    for image in images:
        spacing = int(truth)
        along = (np.diff(image[spacing // 2 :: spacing]) != 0).mean(1)
        down = (np.diff(image[:, spacing // 2 :: spacing], axis=0) != 0).mean(0)
        x = np.concatenate([along, down])
        half = scipy_stats.t.ppf(0.975, len(x) - 1) * scipy_stats.sem(x)
        lines.append(abs(x.mean() - 1 / truth) <= half)
    assert fields >= 0.88 and counts >= 0.85
    assert np.mean(lines) < 0.85


# --- scaling, rotation, width ---
tessellations = st.builds(
    lambda seed, grains: poisson_voronoi(np.random.default_rng(seed), 90, grains),
    st.integers(0, 2**32 - 1),
    st.integers(15, 40),
)


@given(tessellations, st.integers(2, 4), st.floats(0.01, 10))
@settings(deadline=None, max_examples=25)
def test_rescaling_image_and_pixel_size_leaves_um_and_g(labels, k, pixel_size_um):
    larger = np.kron(labels, np.ones((k, k), np.int32))
    # Test lines end half a pixel before the frame (90 px, fields 30 px), and smaller pixels have smaller halves.
    for method, rel in ((intercept, 1 / 30), (planimetric, 1e-6)):
        before, after = method(labels, pixel_size_um), method(larger, pixel_size_um / k)
        assert after.size_um == pytest.approx(before.size_um, rel=rel)
        assert after.interval_um == pytest.approx(before.interval_um, rel=2 * rel)
        assert after.astm_g == pytest.approx(before.astm_g, abs=3 * rel)


@given(tessellations, st.integers(2, 3))
@settings(deadline=None, max_examples=15)
def test_rescaling_a_drawn_mask(labels, k):
    mask = boundaries(labels)
    larger = np.kron(mask, np.ones((k, k), np.uint8))
    with pytest.MonkeyPatch.context() as patched:  # islands scale with area: keep the same ones
        patched.setattr(grain_size, "MIN_GRAIN_AREA_PX", 1)
        for method in METHODS:
            before = method(grains_from_boundaries(mask), 1.0)
            after = method(grains_from_boundaries(larger), 1 / k)
            assert after.size_um == pytest.approx(before.size_um, rel=0.03)


@given(tessellations)
@settings(deadline=None, max_examples=25)
def test_rotation_by_90_degrees_commutes(labels):
    for method in METHODS:
        straight, turned = method(labels, 0.3), method(np.rot90(labels), 0.3)
        assert_allclose(
            [turned.size_um, *turned.interval_um, turned.astm_g],
            [straight.size_um, *straight.interval_um, straight.astm_g],
        )
    # A drawn mask has pixels as near to one grain as to another: who gets them depends on the direction of the scan.
    before, after = measure(boundaries(labels)), measure(np.rot90(boundaries(labels)))
    for name in before:
        assert after[name].size_px == pytest.approx(before[name].size_px, rel=0.03)


@given(tessellations, st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=10)
def test_names_of_grains_do_not_matter(labels, seed):
    names = np.random.default_rng(seed).permutation(5000) + 1
    for method in METHODS:
        assert method(names[labels]) == method(labels)


def test_drawn_width_takes_nothing_from_the_grains():
    labels = poisson_voronoi(np.random.default_rng(4), 400, 40)
    for name, thin in measure(boundaries(labels, 1)).items():
        assert measure(boundaries(labels, 7))[name].size_px == pytest.approx(thin.size_px, rel=0.04)


def test_twins_that_are_drawn_are_counted():
    plain = square_grid(60, 5, 20, 1)
    twinned = plain.copy()
    twinned[:, 50::60] = 1  # one more boundary across every grain
    before, after = measure(plain), measure(twinned)
    assert before["intercept"].size_px == pytest.approx(60, rel=0.004)
    assert after["intercept"].size_px == pytest.approx(40, rel=0.004)  # rows cross twice as many, columns as many
    assert after["planimetric"].size_px == pytest.approx(60 / np.sqrt(2))


# --- from mask to labels ---
def test_every_boundary_pixel_goes_to_the_nearest_grain(monkeypatch):
    monkeypatch.setattr(grain_size, "MIN_GRAIN_AREA_PX", 1)
    mask = boundaries(poisson_voronoi(np.random.default_rng(6), 60, 12), 5)
    labels = grains_from_boundaries(mask)
    assert labels.dtype == np.int32 and labels.min() == 1
    assert_array_equal(np.unique(labels), np.arange(1, labels.max() + 1))
    inside = np.argwhere(mask == 0)
    distance = cdist(np.argwhere(mask), inside)
    nearest_grains = [set(labels[tuple(inside[row == row.min()].T)]) for row in distance]
    assert all(given in allowed for given, allowed in zip(labels[mask > 0], nearest_grains, strict=True))


@pytest.mark.parametrize("flip", [False, True])
def test_slanted_lines_one_pixel_wide_do_not_leak(flip):
    mask = np.eye(40, dtype=np.uint8)[:, :: -1 if flip else 1]
    assert grains_from_boundaries(mask).max() == 2


def test_a_gap_joins_two_grains_and_a_hole_in_a_line_is_no_grain(monkeypatch):
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 17:23] = 1
    mask[10:12, 19:21] = 0  # a hole of 4 px
    labels = grains_from_boundaries(mask)
    assert labels.max() == 2
    assert_array_equal(np.unique(labels[:, :20]), [labels[0, 0]])
    with monkeypatch.context() as patched:
        patched.setattr(grain_size, "MIN_GRAIN_AREA_PX", 4)
        assert grains_from_boundaries(mask).max() == 3
    mask[30] = 0
    assert grains_from_boundaries(mask).max() == 1


# --- without pixel size, and faults ---
def test_without_pixel_size_there_is_no_um_and_no_g():
    labels = grains_from_boundaries(square_grid(30, 4, 10, 1))
    plain, scaled = intercept(labels), intercept(labels, 2.0)
    assert plain.size_um is plain.interval_um is plain.astm_g is None
    assert replace(scaled, pixel_size_um=None) == plain
    assert set(scaled.as_row()) - set(plain.as_row()) == {"size_um", "low_um", "high_um", "astm_g"}
    assert plain.as_row()["method"] == "intercept"


def test_too_few_grains_leave_the_size_without_upper_end():
    labels = np.ones((60, 60), np.int32)
    labels[:8, :8] = 2
    result = intercept(labels, 1.0)
    assert result.high_px == np.inf and 0 < result.low_px < result.size_px < np.inf
    assert result.relative_accuracy_percent > 100 and result.interval_um[1] == np.inf


def test_images_that_hold_no_grain_size():
    with pytest.raises(GrainSizeError, match="no boundary at all in the mask of 50 x 40 pixels"):
        measure(np.zeros((50, 40)))
    with pytest.raises(GrainSizeError, match="100% of the mask is boundary"):
        measure(np.full((50, 40), 255))
    dangling = np.zeros((50, 40), np.uint8)
    dangling[20, :30] = 1
    with pytest.raises(GrainSizeError, match="one grain only"):
        measure(dangling)


@pytest.mark.parametrize("method", METHODS)
def test_labels_that_cannot_be_measured(method):
    good = grains_from_boundaries(square_grid(30, 4, 10, 1))
    with pytest.raises(ValueError, match="labels must start at 1"):
        method(good - 1)
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        method(good[None])
    with pytest.raises(ValueError, match="at least 6 pixels"):
        method(good[:5])
    for pixel_size_um in (0, -1.0, np.nan):
        with pytest.raises(ValueError, match="pixel_size_um"):
            method(good, pixel_size_um)
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        grains_from_boundaries(np.zeros((4, 4, 3)))
