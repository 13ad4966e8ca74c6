"""Grain geometry: the edges SciPy finds, centroids by brute force, splines through their knots, grains that tile."""

import cv2
import numpy as np
import pytest
from helpers.grain_rows import plain
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline
from scipy.ndimage import label
from scipy.spatial import Voronoi, cKDTree

from micro_lib.analysis.grain_size import planimetric
from micro_lib.core.seeds import stream
from micro_lib.synthesis import tessellation
from micro_lib.synthesis.tessellation import (
    KNOTS,
    SAMPLES,
    SMALLEST_GRAIN_PX,
    curve_segments,
    draw,
    relax,
    scatter_seeds,
    tessellate,
    voronoi_ridges,
)

seeds = st.integers(0, 10**6)


def cloud(seed, n=60, size=100):
    return stream(seed, "cloud").uniform(0, size, (n, 2))


def grains(seed=1, shape=(128, 128), **changes):
    return tessellate(plain(**changes), shape, stream(seed, "geometry"))


def whole_areas(labels):
    """Areas of the grains that the frame does not cut."""
    frame = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.delete(np.bincount(labels.ravel()), np.append(np.unique(frame), 0))


def variation(labels):
    areas = whole_areas(labels)
    return areas.std() / areas.mean()


# Voronoi edges and Lloyd's relaxation


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(8, 80))
def test_edges_are_those_of_scipys_voronoi(seed, n):
    points = cloud(seed, n)
    ours, diagram = voronoi_ridges(points), Voronoi(points)
    expected = {
        tuple(sorted(pair)): diagram.vertices[vertices]
        for pair, vertices in zip(diagram.ridge_points.tolist(), diagram.ridge_vertices, strict=True)
        if min(vertices) >= 0
    }
    found = {tuple(sorted(pair)): ends for pair, ends in zip(ours.seeds.tolist(), ours.ends, strict=True)}
    assert found.keys() == expected.keys() and len(found) == len(ours.seeds)
    for pair, ends in expected.items():
        scale = np.abs(ends).max()
        same, swapped = (np.abs(found[pair][order] - ends).max() for order in ([0, 1], [1, 0]))
        assert min(same, swapped) < 1e-6 * scale


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_a_relaxation_moves_inner_seeds_to_their_centroids(seed):
    points, box = cloud(seed), np.array([[0.0, 0.0], [100.0, 100.0]])
    relaxed, diagram = relax(points, *box), Voronoi(points)
    inner = 0
    for i, region in enumerate(diagram.regions[r] for r in diagram.point_region):
        polygon = diagram.vertices[region]
        if -1 in region or (polygon < box[0]).any() or (polygon > box[1]).any():
            continue
        # The shoelace formula of the centroid.
        x, y = polygon.T
        cross = x * np.roll(y, -1) - np.roll(x, -1) * y
        centroid = ((polygon + np.roll(polygon, -1, 0)) * cross[:, None]).sum(0) / (3 * cross.sum())
        np.testing.assert_allclose(relaxed[i], centroid, atol=1e-6)
        inner += 1
    assert inner >= 10


def test_relaxed_seeds_stay_in_the_box():
    points = cloud(3, 200)
    for _ in range(5):
        points = relax(points, np.zeros(2), np.full(2, 100.0))
        assert (points >= 0).all() and (points <= 100).all()


def test_relaxations_lower_the_energy_of_the_tessellation():
    # Lloyd's method never raises the mean squared distance to the nearest seed (here by a fine grid, away from edges).
    grid = np.stack(np.meshgrid(*[np.linspace(20, 80, 200)] * 2), -1).reshape(-1, 2)
    points, energies = cloud(5, 150), []
    for _ in range(5):
        energies.append((cKDTree(points).query(grid)[0] ** 2).mean())
        points = relax(points, np.zeros(2), np.full(2, 100.0))
    assert (np.diff(energies) < 0).all() and energies[-1] < 0.75 * energies[0]


# Splines


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0.01, 0.3))
def test_segments_are_cubic_splines_through_their_control_points(seed, bend):
    ends = stream(seed, "ends").uniform(0, 100, (5, 2, 2))
    curves = curve_segments(ends, bend, stream(seed, "bend"))
    at, fine = np.linspace(0, 1, KNOTS), np.linspace(0, 1, SAMPLES)
    # Control points fall on samples, so they can be read off the curve.
    knots = curves[:, :: (SAMPLES - 1) // (KNOTS - 1)]
    for curve, points in zip(curves, knots, strict=True):
        np.testing.assert_allclose(curve, CubicSpline(at, points, bc_type="natural")(fine), atol=1e-9)
    straight = ends[:, :1] + np.diff(ends, axis=1) * at[:, None]
    along, moved = np.diff(ends, axis=1), knots - straight
    np.testing.assert_allclose((moved * along).sum(-1), 0, atol=1e-6)
    distance = np.linalg.norm(moved, axis=-1) / np.linalg.norm(along, axis=-1)
    assert distance.max() <= 2 * bend + 1e-9
    assert distance[:, 1:-1].max() > 0.1 * bend


def test_displacements_have_the_spread_asked_for():
    ends = np.tile([[0.0, 0.0], [1.0, 0.0]], (4000, 1, 1))
    knots = curve_segments(ends, 0.1, stream(1, "bend"))[:, 3:-1:3, 1]
    # Clipping a normal at two standard deviations leaves 0.96 of its spread.
    np.testing.assert_allclose(knots.std(), 0.1 * 0.959, rtol=0.03)


def test_no_bend_leaves_segments_straight():
    ends = stream(2, "ends").uniform(0, 100, (6, 2, 2))
    curves = curve_segments(ends, 0.0, stream(1, "bend"))
    np.testing.assert_allclose(curves, ends[:, :1] + np.diff(ends, axis=1) * np.linspace(0, 1, SAMPLES)[:, None])


def test_neighbouring_segments_share_their_junctions():
    geometry = grains(bend=0.2)
    tips = np.concatenate([geometry.curves[:, 0], geometry.curves[:, -1]]).round(6)
    inside = ((tips > 0) & (tips < 128)).all(1)
    _, counts = np.unique(tips[inside], axis=0, return_counts=True)
    assert (counts == 3).all() and len(counts) > 20


def test_lines_are_drawn_where_the_curves_are():
    curves = np.array([[[10.0, 20.0], [30.0, 20.0]], [[5.0, 0.0], [5.0, 39.0]]])
    picture = draw(curves, (40, 50))
    expected = np.zeros((40, 50), np.uint8)
    expected[20, 10:31] = expected[:, 5] = 255
    np.testing.assert_array_equal(picture, expected)


# Grains


@pytest.mark.parametrize("shape", [(128, 128), (64, 96), (200, 90)])
@pytest.mark.parametrize("bend", [0.0, 0.25])
def test_every_pixel_belongs_to_a_grain_counted_from_one(shape, bend):
    geometry = grains(shape=shape, bend=bend)
    assert geometry.labels.shape == geometry.edge_px.shape == geometry.junction_px().shape == shape
    assert geometry.labels.dtype == np.int32
    found = np.unique(geometry.labels)
    np.testing.assert_array_equal(found, np.arange(1, found.max() + 1))


@pytest.mark.parametrize("bend", [0.0, 0.12, 0.25])
def test_each_grain_is_one_region_between_the_lines(bend):
    geometry = grains(shape=(256, 256), bend=bend)
    free = draw(geometry.curves, (256, 256)) == 0
    regions, count = label(free)
    sizes = np.bincount(regions.ravel())
    kept = [i for i in range(1, count + 1) if sizes[i] >= SMALLEST_GRAIN_PX]
    owners = [np.unique(geometry.labels[regions == i]) for i in kept]
    assert all(len(owner) == 1 for owner in owners)
    assert sorted(int(owner[0]) for owner in owners) == list(range(1, geometry.labels.max() + 1))


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((256, 256), {}),
        ((64, 96), {"grain_diameter_px": 60.0}),
        ((256, 200), {"lloyd_steps": 3, "size_spread": 0.4}),
        ((256, 200), {"elongation": 2.5, "elongation_deg": 30.0}),
    ],
)
def test_straight_grains_are_the_cells_of_their_seeds(shape, changes):
    p = plain(**changes)
    # Cells of elongated grains are those of a plane squeezed along the direction of elongation.
    turn = np.deg2rad(p["elongation_deg"])
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    squeeze = (axes * p["elongation"] ** np.array([[-0.5], [0.5]])).T
    points = scatter_seeds(p, shape, stream(4, "geometry")) @ squeeze
    geometry = tessellate(p, shape, stream(4, "geometry"))
    y, x = np.indices(shape)
    distance, nearest = cKDTree(points).query(np.stack([x.ravel(), y.ravel()], 1) @ squeeze, 2)
    clear = (np.diff(distance).ravel() > 4).reshape(shape)  # boundaries are a pixel wide and drawn to 1/16 px
    pairs = np.unique(np.stack([geometry.labels[clear], nearest[:, 0].reshape(shape)[clear]], 1), axis=0)
    assert clear.mean() > 0.5
    assert len(pairs) == len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1]))


def test_distance_to_the_boundary_is_exact():
    geometry = grains()
    lines = np.argwhere(draw(geometry.curves, (128, 128)) > 0)
    distance = cKDTree(lines).query(np.argwhere(np.ones((128, 128))))[0].reshape(128, 128)
    np.testing.assert_allclose(geometry.edge_px, distance, atol=0.05 * distance.max())
    # What decides the mask and the groove is near the line.
    near = distance < 8
    np.testing.assert_allclose(geometry.edge_px[near], distance[near], atol=0.2)


def test_distance_to_triple_points():
    geometry = grains()
    points = np.argwhere(geometry.junction_px() == 0)
    inner = points[((points >= 3) & (points < 125)).all(1)]
    meeting = [len(np.unique(geometry.labels[r - 2 : r + 3, c - 2 : c + 3])) for r, c in inner]
    assert len(inner) > 20 and np.mean(np.array(meeting) >= 3) > 0.95
    assert geometry.junction_px().max() > 6


# What was asked for is measured back


@pytest.mark.parametrize("diameter", [20.0, 45.0])
def test_the_mean_grain_has_the_area_asked_for(diameter):
    sizes = [
        planimetric(grains(seed, (400, 400), grain_diameter_px=diameter, lloyd_steps=2).labels).size_px ** 2
        for seed in range(4)
    ]
    np.testing.assert_allclose(np.mean(sizes), np.pi / 4 * diameter**2, rtol=0.06)


@pytest.mark.parametrize(("angle", "axis"), [(0.0, 1), (90.0, 0)])
@pytest.mark.parametrize("steps", [0, 2])
def test_elongation_is_measured_back(angle, axis, steps):
    ratios = []
    for seed in range(3):
        p = {"elongation": 2.0, "elongation_deg": angle, "lloyd_steps": steps}
        labels = grains(seed, (400, 400), **p).labels
        crossings = [np.count_nonzero(np.diff(labels, axis=a)) for a in (0, 1)]
        ratios.append(crossings[1 - axis] / crossings[axis])
    # Mean intercepts along and across are as 2 to 1: the cells of a stretched plane.
    np.testing.assert_allclose(np.mean(ratios), 2.0, rtol=0.08)


def test_random_seeds_make_poisson_voronoi_cells():
    # Coefficient of variation of the areas of Poisson-Voronoi cells: 0.529 (E. N. Gilbert, 1962).
    values = [variation(grains(seed, (500, 500), grain_diameter_px=20.0).labels) for seed in range(3)]
    np.testing.assert_allclose(np.mean(values), 0.529, atol=0.06)


def test_relaxed_grains_are_more_alike():
    values = [variation(grains(2, (400, 400), lloyd_steps=steps).labels) for steps in (0, 1, 3, 8)]
    assert (np.diff(values) < -0.02).all()


@pytest.mark.parametrize("change", [{"size_spread": 0.5}, {"fine_fraction": 0.3, "fine_ratio": 2.5}])
def test_wide_and_bimodal_sizes_spread_the_areas(change):
    even, wide = (
        np.mean([variation(grains(seed, (400, 400), lloyd_steps=2, **p).labels) for seed in range(3)])
        for p in ({}, change)
    )
    assert wide > 1.3 * even


def test_finer_grains_are_as_many_as_their_share_says():
    p = {"lloyd_steps": 2, "grain_diameter_px": 30.0}
    fine = p | {"fine_fraction": 0.4, "fine_ratio": 2.0}
    coarse, mixed = (
        np.mean([planimetric(grains(seed, (500, 500), **q).labels).size_px ** -2 for seed in range(4)])
        for q in (p, fine)
    )
    np.testing.assert_allclose(mixed / coarse, 0.6 + 0.4 * 2.0**2, rtol=0.08)


@pytest.mark.parametrize("steps", [0, 3])
def test_there_are_grains_up_to_the_edges(steps):
    # As many boundary crossings along the first and last rows as along rows of the middle: no rim without grains.
    rims, middles = [], []
    for seed in range(6):
        labels = grains(seed, (200, 200), lloyd_steps=steps).labels
        crossings = [np.count_nonzero(np.diff(row)) for row in labels]
        rims += [crossings[0], crossings[-1]]
        middles += crossings[60:140:10]
    np.testing.assert_allclose(np.mean(rims), np.mean(middles), rtol=0.15)


def test_line_pixels_go_to_the_nearest_grain():
    geometry = grains(shape=(90, 140), bend=0.15)
    lines = draw(geometry.curves, (90, 140))
    labels = tessellation.grains_between(lines)
    regions, _ = label(lines == 0)
    kept = np.isin(regions, np.flatnonzero(np.bincount(regions.ravel()) >= SMALLEST_GRAIN_PX)) & (lines == 0)
    inside, free = np.argwhere(kept), np.argwhere(~kept)
    tree = cKDTree(inside)
    own = np.array([tree.query(point)[0] for point in free])
    given = [cKDTree(np.argwhere(kept & (labels == i))) for i in range(labels.max() + 1) if i]
    distance = np.array([given[labels[r, c] - 1].query((r, c))[0] for r, c in free])
    assert (distance <= own + 0.5).all()  # OpenCV's distances are within a few per cent


def test_slivers_join_their_neighbours():
    lines = np.zeros((40, 40), np.uint8)
    lines[:, 20] = lines[10, 20:24] = lines[13, 20:24] = 255
    lines[10:14, 24] = 255  # a cell of 2 x 3 pixels
    labels = tessellation.grains_between(lines)
    assert set(np.unique(labels)) == {1, 2} and (labels[11:13, 23] == 2).all()


def test_boundaries_of_a_cut_frame_are_kept():
    # A pixel column of lines at the very edge leaves one grain, and no id 0.
    lines = np.zeros((30, 30), np.uint8)
    lines[:, 0] = 255
    assert (tessellation.grains_between(lines) == 1).all()


def test_one_thread_and_many_draw_the_same():
    before = cv2.getNumThreads()
    try:
        results = []
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            results.append(grains(bend=0.1))
    finally:
        cv2.setNumThreads(before)
    for one, many in zip(results[0], results[1], strict=True):
        np.testing.assert_array_equal(one, many)


def test_boundaries_that_leave_no_grain_are_refused_with_words():
    with pytest.raises(ValueError, match="make grains or cells larger"):
        tessellation.grains_between(np.full((20, 30), 255, np.uint8))
