"""Grain geometry: Voronoi cells with curved boundaries, as arrays (Trampert et al. 2021, section 3.2.1)."""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial import Delaunay

from micro_lib.synthesis.fields import smooth_field

SUBPIXEL_BITS = 4  # polylines are drawn on a grid of 1/16 px
SAMPLES = 13  # points a curved segment is drawn with
KNOTS = 5  # two shared junctions and three displaced control points
SMALLEST_GRAIN_PX = 12  # slivers cut off where two curves cross join their neighbour


class Geometry(NamedTuple):
    """Grains as arrays, those by pixel of shape (H, W)."""

    labels: np.ndarray  # int32, 1..N, every pixel belongs to a grain
    edge_px: np.ndarray  # float32, distance to the nearest boundary centre line
    junctions: np.ndarray  # (J, 2) int, x and y in px of the triple points in the image
    curves: np.ndarray  # (R, SAMPLES, 2) float64, x and y in px along every segment

    def junction_px(self) -> np.ndarray:
        """Distance (H, W) float32 to the nearest triple point."""
        far = np.full(self.labels.shape, 255, np.uint8)
        if not len(self.junctions):
            return np.full(far.shape, 1e4, np.float32)
        far[self.junctions[:, 1], self.junctions[:, 0]] = 0
        return cv2.distanceTransform(far, cv2.DIST_L2, 3)


class Ridges(NamedTuple):
    """Edges of a Voronoi diagram: R edges, each between two seeds and two vertices."""

    seeds: np.ndarray  # (R, 2) int
    ends: np.ndarray  # (R, 2, 2) float, [edge, end, x/y]


def voronoi_ridges(points: np.ndarray) -> Ridges:
    """Bounded Voronoi edges of points, taken from the dual Delaunay triangulation.

    The same edges as `scipy.spatial.Voronoi`, without its Python lists: the circumcentres of neighbouring triangles
    are the ends of an edge.

    Parameters
    ----------
    points : (N, 2) float
        x, y of the seeds.
    """
    triangulation = Delaunay(points)
    simplices, neighbours = triangulation.simplices, triangulation.neighbors
    centres = _circumcentres(points[simplices])
    triangle, corner = np.nonzero(neighbours > np.arange(len(simplices))[:, None])
    seeds = np.stack([simplices[triangle, (corner + k) % 3] for k in (1, 2)], axis=1)
    ends = np.stack([centres[triangle], centres[neighbours[triangle, corner]]], axis=1)
    return Ridges(seeds, ends)


def _circumcentres(triangles: np.ndarray) -> np.ndarray:
    """Circumcentres (T, 2) of triangles (T, 3, 2)."""
    a, b, c = triangles.transpose(1, 0, 2)
    ab, ac = b - a, c - a
    cross = 2 * (ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0])
    ab2, ac2 = (ab**2).sum(1), (ac**2).sum(1)
    x = (ac[:, 1] * ab2 - ab[:, 1] * ac2) / cross
    y = (ab[:, 0] * ac2 - ac[:, 0] * ab2) / cross
    return a + np.stack([x, y], axis=1)


def relax(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """One Lloyd step: every seed moves to the centroid of its cell.

    Vertices beyond the box low..high are moved to its nearest point, which keeps outer cells finite but is no clipping.

    Parameters
    ----------
    points : (N, 2) float
        x, y of the seeds.
    low, high : (2,) float
        Corners of the box, x, y.

    Returns
    -------
    (N, 2) float
        The seeds in the same order.
    """
    ridges = voronoi_ridges(points)
    ends = np.clip(ridges.ends, low, high)
    area, moment = np.zeros(len(points)), np.zeros((len(points), 2))
    for side in (0, 1):
        seed = points[ridges.seeds[:, side]]  # (R, 2)
        u, v = ends[:, 0] - seed, ends[:, 1] - seed
        triangle = 0.5 * np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
        third = triangle[:, None] * (seed + ends.sum(1)) / 3
        area += np.bincount(ridges.seeds[:, side], triangle, len(points))
        moment += np.stack([np.bincount(ridges.seeds[:, side], third[:, k], len(points)) for k in (0, 1)], axis=1)
    centroid = moment / np.maximum(area, 1e-9)[:, None]
    return np.where((area > 0)[:, None], np.clip(centroid, low, high), points)


def scatter_seeds(p: Mapping, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Seeds over an image and a margin, with the mean, spread and shape of grains that `p` asks for.

    A random point cloud relaxed `lloyd_steps` times gives the paper's grains. `size_spread` thins the cloud by a random
    field as long as a few grains (wide size distributions) and `fine_fraction` packs that share of the area with seeds
    `fine_ratio` times closer (bimodal ones). The plane is stretched along `elongation_deg` before seeding and squeezed
    back afterwards, so that elongated grains still meet at Voronoi junctions.

    Parameters
    ----------
    p : mapping
        `grain_diameter_px`, `lloyd_steps`, `size_spread`, `fine_fraction`, `fine_ratio`, `elongation` and
        `elongation_deg` of `presets.PARAMETERS`.
    shape : (int, int)
        H and W of the image in px.
    rng : numpy.random.Generator
        Draws.

    Returns
    -------
    (N, 2) float
        x, y in px, those of the margin outside the image.
    """
    diameter = p["grain_diameter_px"]
    stretch = _stretch(p["elongation"], p["elongation_deg"])
    size = np.array(shape[::-1], float)
    corners = (np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) - 0.5) * (size + 4 * diameter)
    half = np.abs(corners @ np.linalg.inv(stretch).T).max(0)
    density, weights = _seed_density(p, half, diameter, rng)
    count = max(8, round(4 * half.prod() * density / (np.pi / 4 * diameter**2)))
    points = rng.uniform(-half, half, (count * (1 if weights is None else 6), 2))
    if weights is not None:
        cell = ((points + half) / (2 * half) * (np.array(weights.shape[::-1]) - 1e-6)).astype(int)
        weight = weights[cell[:, 1], cell[:, 0]]
        points = points[rng.choice(len(points), count, replace=False, p=weight / weight.sum())]
    for _ in range(int(p["lloyd_steps"])):
        points = relax(points, -half, half)
    return points @ stretch.T + size / 2


def _seed_density(p: Mapping, half: np.ndarray, diameter: float, rng: np.random.Generator):
    """Mean seed density relative to uniform grains and the map (H', W') of relative densities, or None if uniform."""
    if p["size_spread"] == 0 and p["fine_fraction"] == 0:
        return 1.0, None
    shape = tuple(np.ceil(2 * half[::-1]).astype(int) // 4 + 1)  # a quarter of the resolution is enough
    scale = 1.2 * diameter / 4
    weights = np.exp(2 * p["size_spread"] * smooth_field(shape, scale, rng))
    fine = smooth_field(shape, 2 * scale, rng)
    weights[fine > np.quantile(fine, 1 - p["fine_fraction"])] *= p["fine_ratio"] ** 2
    return 1 + p["fine_fraction"] * (p["fine_ratio"] ** 2 - 1), weights


def _stretch(elongation: float, angle_deg: float) -> np.ndarray:
    """Area-preserving stretch (2, 2) by sqrt(elongation) along `angle_deg` from the x axis."""
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    turn = np.array([[c, -s], [s, c]])
    return turn @ np.diag([elongation**0.5, elongation**-0.5]) @ turn.T


@lru_cache
def _spline_matrix(knots: int, samples: int) -> np.ndarray:
    """Matrix (samples, knots) that turns knot positions into points on the natural cubic spline through them."""
    at = np.linspace(0, 1, knots)
    return CubicSpline(at, np.eye(knots), bc_type="natural")(np.linspace(0, 1, samples))


def curve_segments(ends: np.ndarray, bend: float, rng: np.random.Generator) -> np.ndarray:
    """Every straight edge as a cubic spline through randomly displaced control points.

    Control points move at right angles to the edge, by `bend` times its length (standard deviation, cut at twice that);
    the ends stay where they are, so neighbouring segments share their junctions.

    Parameters
    ----------
    ends : (R, 2, 2) float
        [edge, end, x/y] in px.
    bend : float
        0 or larger; 0 keeps edges straight.
    rng : numpy.random.Generator
        Draws.

    Returns
    -------
    (R, SAMPLES, 2) float64
        x, y in px along every edge.
    """
    start, along = ends[:, :1], np.diff(ends, axis=1)  # (R, 1, 2)
    normal = along[..., ::-1] * np.array([-1.0, 1.0])
    at = np.linspace(0, 1, KNOTS)[None, :, None]  # (1, KNOTS, 1)
    shift = np.clip(rng.standard_normal((len(ends), KNOTS, 1)), -2, 2) * bend
    shift[:, [0, -1]] = 0
    return np.einsum("sk,rkc->rsc", _spline_matrix(KNOTS, SAMPLES), start + along * at + normal * shift)


def draw(curves: np.ndarray, shape: tuple[int, int], width_px: int = 1) -> np.ndarray:
    """Curves as a uint8 picture, 255 on the line and 0 beside it; pixel centres lie at whole numbers.

    Parameters
    ----------
    curves : (R, S, 2) float
        x, y in px of S points along each.
    shape : (int, int)
        H and W of the picture in px.
    width_px : int
        Width of the lines, 1 or more.
    """
    canvas = np.zeros(shape, np.uint8)
    fixed = np.round(curves * 2**SUBPIXEL_BITS).astype(np.int32)
    cv2.polylines(canvas, list(fixed), False, 255, width_px, cv2.LINE_8, SUBPIXEL_BITS)
    return canvas


def grains_between(lines: np.ndarray) -> np.ndarray:
    """Grain labels (H, W) int32, 1..N, of the regions that `lines` (> 0 on a line) part; lines go to the nearest.

    As `analysis.grain_size.grains_from_boundaries`, but with a smallest grain of its own and with distances within 2 %,
    which are faster to have, so it may give pixels of a line to another grain.

    Raises ValueError where no region is large enough to be a grain.
    """
    _, parts = cv2.connectedComponents((lines == 0).view(np.uint8), connectivity=4)
    keep = np.bincount(parts.ravel()) >= SMALLEST_GRAIN_PX
    keep[0] = False  # the lines themselves
    if not keep.any():
        raise ValueError(f"boundaries leave no grain of {SMALLEST_GRAIN_PX} px; make grains or cells larger")
    labels = np.take(np.where(keep, np.cumsum(keep), 0).astype(np.int32), parts)
    free = labels == 0
    _, nearest = cv2.distanceTransformWithLabels(free.view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    at = np.flatnonzero(free)
    labels.ravel()[at] = labels[~free][nearest.ravel()[at] - 1]  # pixels that are not free are numbered row by row
    return labels


def tessellate(p: Mapping, shape: tuple[int, int], rng: np.random.Generator) -> Geometry:
    """Grains for the parameters `p` of one micrograph: labels, distances and boundary curves.

    Parameters
    ----------
    p : mapping
        `bend`, and what `scatter_seeds` asks for, of `presets.PARAMETERS`.
    shape : (int, int)
        H and W in px.
    rng : numpy.random.Generator
        Draws.

    Raises
    ------
    ValueError
        If boundaries leave no grain, see `grains_between`.
    """
    stretch = _stretch(p["elongation"], p["elongation_deg"])
    # Cells are those of the unstretched plane: the seeds alone, once stretched, would have nearly round cells again.
    ends = voronoi_ridges(scatter_seeds(p, shape, rng) @ np.linalg.inv(stretch).T).ends @ stretch.T
    margin = p["grain_diameter_px"]
    near = ((ends > -margin) & (ends < np.array(shape[::-1]) + margin)).all(2).any(1)
    far = np.abs(ends).max((1, 2)) > 8 * max(shape)  # slivers at the hull have vertices far outside
    ends = ends[near & ~far]
    curves = curve_segments(ends, p["bend"], rng)
    lines = draw(curves, shape)
    edge = cv2.distanceTransform(255 - lines, cv2.DIST_L2, 5)  # within 2 % of exact, six times faster
    junctions = np.round(ends.reshape(-1, 2)).astype(int)
    inside = ((junctions >= 0) & (junctions < shape[::-1])).all(1)
    return Geometry(grains_between(lines), edge, junctions[inside], curves)
