"""Measure cracks in tiles with masks: contrast, width, segments between bends, angles (Trampert et al. 2021, 3.1.1).

A crack is a connected part of the mask (8 neighbours) whose path has at least `MIN_PATH_PX`. Its path is the longest
way through its skeleton; side ways shorter than `MIN_BRANCH_PX` are spurs of the skeleton and cut, the others are
branches. The path is simplified to a polyline (Douglas and Peucker) that stays within `TOLERANCE_PX` of it; edges
shorter than the crack is wide, or than `MIN_SEGMENT_PX`, are merged into one bend. Its edges are the segments, the
angles between them the bends. Cracks are measured as the window shows them: one that leaves it is as long as it is
inside.

Of nine in ten cracks drawn with segments of 18 px or more, bends of 25 deg or more and widths of 3 to 8 px, the number
of segments is found, the mean width within 0.35 px, the contrast within 0.08, the mean segment within 2 px, the bends
within 6 deg and the direction within 3 deg (`tests/synthesis/test_crack_statistics.py`).
"""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from scipy.ndimage import distance_transform_edt, uniform_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from scipy.stats import ks_2samp
from skimage.measure import approximate_polygon, label
from skimage.morphology import skeletonize

from micro_lib.core.checks import one_of
from micro_lib.core.progress import progress
from micro_lib.core.seeds import stream
from micro_lib.synthesis.distributions import Constant, Integers, Kernel, Parameter
from micro_lib.synthesis.scenario import Space

TOLERANCE_PX = 2.0  # annotated edges are ragged by a pixel or two; a path that bends less is straight
MIN_PATH_PX = 8.0  # about twice a usual width: shorter spots have no direction
MIN_BRANCH_PX = 10.0
MIN_SEGMENT_PX = 7.0  # what is left of a sharp bend after thinning and simplifying is shorter
RING_PX = (2.0, 8.0)  # the surroundings: off the blurred edge, near enough to be the same material
_SMOOTH_PX = 7  # along the path: over about the width of a crack

CRACK_COLUMNS = (
    "n_segments",
    "n_branches",
    "length_px",
    "segment_px",
    "segment_spread",
    "bend_deg",
    "bend_spread",
    "zigzag",
    "waviness_px",
    "width_px",
    "width_spread",
    "contrast",
    "contrast_spread",
    "core_share",
    "branch_px",
    "middle_x",
    "middle_y",
    "direction_deg",
    "cut_start",
    "cut_end",
)
SEGMENT_COLUMNS = ("length_px", "bend_deg", "width_px", "x0", "y0", "x1", "y1")


# The five quantities of the paper: where they stand in `Measured` and their unit.
QUANTITIES = {
    "contrast": ("cracks", "contrast", "1"),
    "width": ("segments", "width_px", "px"),
    "segment length": ("segments", "length_px", "px"),
    "bend angle": ("segments", "bend_deg", "deg"),
    "number of segments": ("cracks", "n_segments", "1"),
}
# parameter: (unit, low, high, whole number, meaning); of the longest crack of a tile unless it says otherwise
TILE_PARAMETERS = {
    "n_cracks": ("1", 1, 8, True, "cracks in the tile"),
    "n_segments": ("1", 1, 16, True, "straight pieces of the crack"),
    "segment_px": ("px", 2, 181, False, "mean length of a segment"),
    "segment_spread": ("1", 0, 2, False, "standard deviation of the logarithm of the segments' length"),
    "bend_deg": ("deg", 0, 120, False, "root mean square angle between segments"),
    "bend_spread": ("1", 0, 2, False, "standard deviation of the logarithm of the bends"),
    "zigzag": ("1", 0, 1, False, "share of the bends that go the other way than the one before"),
    "waviness_px": ("px", 0, 4, False, "root mean square distance of the path from straight segments"),
    "width_px": ("px", 1, 40, False, "mean width"),
    "width_spread": ("1", 0, 1, False, "standard deviation of the logarithm of the width along the path"),
    "crack_contrast": ("1", -0.98, 1, False, "mean grey over that of the surroundings, minus 1"),
    "contrast_spread": ("1", 0, 0.5, False, "standard deviation of the contrast along the path"),
    "core_share": ("1", 0.3, 0.95, False, "mean contrast over that of the darkest line"),
    "n_branches": ("1", 0, 4, True, "branches"),
    "branch_px": ("px", 2, 181, False, "mean length of a branch"),
    "middle_x": ("1", 0, 1, False, "middle between the ends, over the width of the tile"),
    "middle_y": ("1", 0, 1, False, "middle between the ends, over the height of the tile"),
    "direction_deg": ("deg", -90, 90, False, "direction from the upper to the lower end, 0 straight down"),
    "cut_start": ("1", 0, 1, True, "1 where the upper end leaves the tile"),
    "cut_end": ("1", 0, 1, True, "1 where the lower end leaves the tile"),
    "other_px": ("px", 5, 181, False, "mean length of the other cracks of the tile"),
    "other_width_px": ("px", 1, 40, False, "their mean width"),
    "other_contrast": ("1", -0.98, 1, False, "their mean contrast"),
}
_PLACES = ("zigzag", "middle_x", "middle_y", "direction_deg", "cut_start", "cut_end")
# Those that are drawn a little otherwise than measured: simplified paths lose short segments, raggedness widens.
CALIBRATED = tuple(name for name in TILE_PARAMETERS if name not in _PLACES)


class Measured(NamedTuple):
    """Measurements of cracks.

    Attributes
    ----------
    cracks : pandas.DataFrame
        One row a crack, `record` and `crack` (id in its tile, 1 is the longest) and `CRACK_COLUMNS`: counts, lengths
        in px, angles in deg; `segment_px` is the mean, `segment_spread`, `bend_spread`, `width_spread` the standard
        deviation of the logarithm; `bend_deg` the root mean square of the bends, `zigzag` the share of them that go
        the other way than the one before, missing where there is none; `waviness_px` the root mean square distance of
        the path from its polyline; `contrast` the mean grey of the crack over the median of its surroundings, minus
        1, and `contrast_spread` its standard deviation along the path; `core_share` the contrast over that of the
        darkest line; `direction_deg` the direction from the upper to the lower end, -90 to 90 from straight down;
        `middle_x`, `middle_y` the middle between the ends over the size of the tile; `cut_start`, `cut_end` 1 where
        the upper, the lower end lies on the border of the tile.
    segments : pandas.DataFrame
        One row a segment, `record`, `crack` and `SEGMENT_COLUMNS`; `bend_deg` is the angle, 0 to 180, to the next
        segment, missing at the last one; `x0`, `y0`, `x1`, `y1` its ends in px.
    """

    cracks: pd.DataFrame
    segments: pd.DataFrame


class _Path(NamedTuple):
    pixels: np.ndarray  # (N, 2) rows and columns along the skeleton, upper end first
    branches: tuple[np.ndarray, ...]


def measure(image: np.ndarray, mask: np.ndarray) -> Measured:
    """Measure the cracks of one tile.

    Parameters
    ----------
    image : (H, W) uint8 or uint16
        Grey levels.
    mask : (H, W) uint8 or bool
        1 in a crack.

    Returns
    -------
    Measured
        Without rows if the mask shows no crack or only spots; `record` is empty text.

    Raises
    ------
    ValueError
        If shapes differ or the mask holds other values than 0 and 1.
    """
    image, mask = np.asarray(image), np.asarray(mask)
    if image.shape != mask.shape or image.ndim != 2:
        raise ValueError(f"image {image.shape} and mask {mask.shape} must be two-dimensional and of one size")
    if not np.isin(np.unique(mask), (0, 1)).all():
        raise ValueError(f"a crack mask holds 0 and 1; found {np.unique(mask)[:5]}")
    parts = label(mask, connectivity=2)
    found = [(parts == i, _path(parts == i)) for i in range(1, parts.max() + 1)]
    found = [(part, path) for part, path in found if _length(path.pixels) >= MIN_PATH_PX]
    found.sort(key=lambda crack: -_length(crack[1].pixels))
    cracks, segments = [], []
    for i, (part, path) in enumerate(found, 1):
        crack, of_segments = _measure_crack(image.astype(np.float32), mask, part, path)
        cracks.append({"record": "", "crack": i, **crack})
        segments += [{"record": "", "crack": i, **segment} for segment in of_segments]
    return Measured(
        pd.DataFrame(cracks, columns=["record", "crack", *CRACK_COLUMNS]),
        pd.DataFrame(segments, columns=["record", "crack", *SEGMENT_COLUMNS]),
    )


def measure_all(records: Iterable) -> Measured:
    """Measure the cracks of labelled tiles, which may differ in size.

    Parameters
    ----------
    records : iterable of Record
        Anything with `name`, `image` and `mask`, and with unique names; tiles without a crack add no rows.

    Returns
    -------
    Measured
        With the tile's name as `record`.

    Raises
    ------
    ValueError
        If two tiles have one name, or as `measure` does, naming the tile.
    """
    tables, names = [measure(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))], set()
    for record in progress(records, desc="measuring cracks", unit="tile"):
        if record.name in names:
            raise ValueError(f"two tiles are called {record.name!r}; give each a name of its own")
        names.add(record.name)
        try:
            tables.append(Measured(*(table.assign(record=record.name) for table in measure(record.image, record.mask))))
        except ValueError as error:
            raise ValueError(f"{record.name}: {error}") from error
    filled = [tables[0], *(table for table in tables[1:] if len(table.cracks))]
    return Measured(
        *(pd.concat(part if len(part) == 1 else part[1:], ignore_index=True) for part in zip(*filled, strict=True))
    )


def quantity(measured: Measured, name: str) -> np.ndarray:
    """Return all measurements (N,) float64 of one of `QUANTITIES`; those that are missing are left out.

    Parameters
    ----------
    measured : Measured
        The cracks.
    name : str
        Name of the quantity.

    Raises
    ------
    ValueError
        Naming the quantities there are.
    """
    one_of("quantity", name, QUANTITIES)
    table, column, _ = QUANTITIES[name]
    return getattr(measured, table)[column].dropna().to_numpy(float)


def distances(measured: Measured, other: Measured) -> pd.Series:
    """Return the two-sample Kolmogorov-Smirnov statistic, 0 to 1, of each of `QUANTITIES`; NaN where one has none.

    Parameters
    ----------
    measured, other : Measured
        Two sets of cracks; which comes first does not matter.

    Returns
    -------
    pandas.Series
        Its index holds the names of the quantities.
    """
    pairs = {name: (quantity(measured, name), quantity(other, name)) for name in QUANTITIES}
    found = {name: ks_2samp(*pair).statistic if min(map(len, pair)) else np.nan for name, pair in pairs.items()}
    return pd.Series(found, name="KS statistic")


def per_tile(measured: Measured) -> pd.DataFrame:
    """Return one row a tile with cracks, the columns of `TILE_PARAMETERS`; missing where a tile does not tell.

    A tile without bends, branches or further cracks does not tell those of their kind.

    Parameters
    ----------
    measured : Measured
        The cracks of all tiles, from `measure_all`.

    Returns
    -------
    pandas.DataFrame
        float64; its index holds the names of the tiles.
    """
    ordered = measured.cracks.sort_values("crack", kind="stable").groupby("record", sort=False)
    first, others = (
        ordered.head(1).set_index("record").rename(columns={"contrast": "crack_contrast"}),
        measured.cracks[measured.cracks["crack"] > 1],
    )
    table = first[[name for name in TILE_PARAMETERS if name in first]].astype(float)
    table["segment_spread"] = table["segment_spread"].where(table["n_segments"] > 1)
    mean = others.groupby("record")[["length_px", "width_px", "contrast"]].mean().astype(float).reindex(table.index)
    table["n_cracks"] = ordered.size().astype(float)
    table[["other_px", "other_width_px", "other_contrast"]] = mean
    return table[list(TILE_PARAMETERS)]


def fit(measured: Measured, *, seed: int = 0) -> Space:
    """Fit the parameters of crack tiles to measured tiles: a joint kernel density, which keeps all correlations.

    Each row of the space picks one measured tile (`pattern`) and varies all it tells within kernels of Scott's width,
    cut at the bounds of `TILE_PARAMETERS`; measurements outside them are moved to them. What a tile does not tell is
    taken from another tile, drawn with `seed`.

    Parameters
    ----------
    measured : Measured
        Of two tiles with cracks or more.
    seed : int
        Of the draw of missing values, 0 or larger.

    Returns
    -------
    Space
        `pattern`, the parameters of `TILE_PARAMETERS`.

    Raises
    ------
    ValueError
        If fewer than two tiles hold a crack.
    """
    table = per_tile(measured)
    if len(table) < 2:
        raise ValueError(f"{len(table)} tiles with a measurable crack; at least two are needed to fit distributions")
    parameters = {"pattern": Parameter(Integers(0, len(table) - 1), "1", "the measured tile this one varies")}
    for name, (unit, low, high, whole, doc) in TILE_PARAMETERS.items():
        values = _filled(table[name].to_numpy(), low, high, stream(seed, "crack fit", name))
        parameters[name] = Parameter(_kernel(values, low, high, whole), unit, doc)
    return Space(parameters)


def _filled(values: np.ndarray, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    known = values[np.isfinite(values)]
    donors = known if len(known) else np.array([(low + high) / 2])  # nothing tells: any value, it is never used
    return np.where(np.isfinite(values), values, rng.choice(donors, len(values))).clip(low, high)


def _kernel(values: np.ndarray, low: float, high: float, whole: bool):
    if np.ptp(values) == 0:
        return Constant(int(values[0]) if whole else float(values[0]))
    # A count takes no more variation than its neighbours' rounding does: Scott's width would blur 0 and 1.
    return Kernel("pattern", tuple(values), 0.25 if whole else None, low, high, whole)


# The way through a crack


def _path(part: np.ndarray) -> _Path:
    skeleton = np.argwhere(skeletonize(part))
    if len(skeleton) < 2:
        return _Path(skeleton, ())
    graph = _graph(skeleton, part.shape)
    longest = _farthest(graph)
    depth = distance_transform_edt(part)[tuple(skeleton.T)]
    branches, taken = [], longest
    while True:
        # The longest way that leaves what is taken already, less what of it lies inside the crack it leaves.
        distance, before, source = dijkstra(
            graph, directed=False, indices=taken, min_only=True, return_predecessors=True
        )
        reach = np.where(np.isfinite(distance), distance - depth[source], 0)
        if reach.max() < MIN_BRANCH_PX:
            break
        way = _walk(before, int(reach.argmax()))
        branches.append(skeleton[way][::-1])
        taken = np.union1d(taken, way)
    pixels = skeleton[longest]
    return _Path(pixels if pixels[0, 0] <= pixels[-1, 0] else pixels[::-1], tuple(branches))


def _graph(pixels: np.ndarray, shape: tuple[int, int]) -> coo_array:
    """Sparse graph of the skeleton's pixels and their neighbours, weighted by their distance."""
    index = np.full((shape[0] + 2, shape[1] + 2), -1)
    index[pixels[:, 0] + 1, pixels[:, 1] + 1] = np.arange(len(pixels))
    rows, columns, weights = [], [], []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        other = index[pixels[:, 0] + 1 + dy, pixels[:, 1] + 1 + dx]
        near = np.flatnonzero(other >= 0)
        rows.append(near)
        columns.append(other[near])
        weights.append(np.full(len(near), np.hypot(dy, dx)))
    size = (len(pixels), len(pixels))
    return coo_array((np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), size).tocsr()


def _farthest(graph) -> np.ndarray:
    """Nodes along the longest of all shortest ways, found in two sweeps (exact where the skeleton has no loop)."""
    start = int(np.argmax(dijkstra(graph, directed=False, indices=0)))
    distance, before = dijkstra(graph, directed=False, indices=start, return_predecessors=True)
    return _walk(before, int(np.argmax(distance)))


def _walk(before: np.ndarray, end: int) -> np.ndarray:
    way = [end]
    while before[way[-1]] >= 0:
        way.append(int(before[way[-1]]))
    return np.array(way)


def _length(points: np.ndarray) -> float:
    return float(np.hypot(*np.diff(points, axis=0).T).sum())


def _polyline(path: np.ndarray, half_px: float, shape: tuple[int, int]) -> tuple[np.ndarray, tuple[bool, bool]]:
    """Vertices (n_segments + 1, 2) of the simplified path, and which of its ends lie on the border of the tile.

    The skeleton forks or stops half a width before an end, so that much is cut off and put back straight; where the
    border is as near, the crack is taken to reach it.
    """
    trim = int(np.ceil(half_px))
    kept = path[trim:-trim] if len(path) >= 4 * trim + 2 else path
    vertices = _merged(approximate_polygon(kept, TOLERANCE_PX).astype(float), max(2 * half_px, MIN_SEGMENT_PX))
    cut = []
    for end, inner, tip in ((0, 1, path[0]), (-1, -2, path[-1])):
        border = min(*tip, *(np.array(shape) - 1 - tip)) <= half_px + 1
        along = vertices[end] - vertices[inner]
        along /= np.hypot(*along)
        missing = max(float((tip - vertices[end]) @ along), 0)
        vertices[end] += along * (missing + (half_px if border else 0))
        cut.append(bool(border))
    return vertices.clip(0, np.array(shape) - 1), tuple(cut)


def _merged(vertices: np.ndarray, shortest_px: float) -> np.ndarray:
    """Vertices (n + 1, 2) without edges that are too short: a skeleton rounds a sharp bend off, which makes it two."""
    while len(vertices) > 2:
        lengths = np.hypot(*np.diff(vertices, axis=0).T)
        i = int(lengths.argmin())
        if lengths[i] >= shortest_px:
            break
        inner = [] if i in (0, len(lengths) - 1) else [(vertices[i] + vertices[i + 1]) / 2]
        before, after = vertices[: max(i, 1)], vertices[min(i + 2, len(vertices) - 1) :]
        vertices = np.array([*before, *inner, *after])
    return vertices


# What is measured along it


def _measure_crack(image: np.ndarray, mask: np.ndarray, part: np.ndarray, path: _Path) -> tuple[dict, list[dict]]:
    main = path.pixels
    owner, at = _nearest(part, main, path.branches)
    width = _widths(np.bincount(at[owner], minlength=len(main)), main)
    vertices, cut = _polyline(main, width.mean() / 2, part.shape)
    edges = np.diff(vertices, axis=0)
    lengths = np.hypot(*edges.T)
    heading = np.rad2deg(np.arctan2(edges[:, 1], edges[:, 0]))  # 0 is straight down
    turns = (np.diff(heading) + 180) % 360 - 180
    bends = np.abs(turns)
    nearest = np.argmin(_distances(main, vertices), axis=1)
    chord = vertices[-1] - vertices[0]
    middle = (vertices[-1] + vertices[0]) / 2 / (np.array(part.shape) - 1).clip(1)
    crack = {
        "n_segments": len(edges),
        "n_branches": len(path.branches),
        "length_px": lengths.sum(),
        "segment_px": lengths.mean(),
        "segment_spread": np.log(lengths).std(),
        "bend_deg": np.sqrt((bends**2).mean()) if len(bends) else np.nan,
        "bend_spread": np.log(bends.clip(1)).std() if len(bends) > 1 else np.nan,
        "zigzag": (turns[1:] * turns[:-1] < 0).mean() if len(turns) > 1 else np.nan,
        "waviness_px": np.sqrt((_distances(main, vertices).min(axis=1) ** 2).mean()),
        "width_px": width.mean(),
        "width_spread": np.log(width).std(),
        **_intensity(image, mask, part, owner, at, len(main)),
        "branch_px": np.mean([_length(branch) for branch in path.branches]) if path.branches else np.nan,
        "middle_x": middle[1],
        "middle_y": middle[0],
        "direction_deg": np.rad2deg(np.arctan2(chord[1], abs(chord[0]) if chord[0] else 0.0)),
        "cut_start": int(cut[0]),
        "cut_end": int(cut[1]),
    }
    widths = [width[nearest == i].mean() if (nearest == i).any() else width.mean() for i in range(len(edges))]
    ends = np.concatenate([vertices[:-1, ::-1], vertices[1:, ::-1]], axis=1)  # (n_segments, 4) x0, y0, x1, y1
    table = zip(lengths, [*bends, np.nan], widths, *ends.T, strict=True)
    return crack, [dict(zip(SEGMENT_COLUMNS, row, strict=True)) for row in table]


def _nearest(part: np.ndarray, main: np.ndarray, branches: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels (H, W) belong to the main path rather than to a branch, and the index (H, W) of its nearest one."""
    index = np.full(part.shape, -1)
    for branch in branches:
        index[tuple(branch.T)] = -2
    index[tuple(main.T)] = np.arange(len(main))
    rows, columns = distance_transform_edt(index == -1, return_distances=False, return_indices=True)
    at = index[rows, columns]
    return part & (at >= 0), at


def _widths(areas: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Width (N,) in px along a path, from the area of the crack nearest to each of its pixels."""
    smooth = uniform_filter1d(path.astype(float), min(5, len(path)), axis=0, mode="nearest")  # stairs are longer
    step = np.hypot(*np.diff(smooth, axis=0).T)
    width = areas / ((np.concatenate([step[:1], step]) + np.concatenate([step, step[-1:]])) / 2)
    # The skeleton stops half a width before an end: its last pixels stand for more of the crack than their share.
    trim = min(int(np.ceil(np.median(width) / 2)), (len(path) - 1) // 2)
    inner = _along(width[trim : len(path) - trim])
    return np.pad(inner, trim, mode="edge")


def _along(values: np.ndarray) -> np.ndarray:
    return uniform_filter1d(values, min(_SMOOTH_PX, len(values)), mode="nearest")


def _distances(points: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Distance (N, n_segments) of points from the segments between vertices."""
    start, edge = vertices[:-1], np.diff(vertices, axis=0)
    offset = points[:, None] - start
    share = ((offset * edge).sum(-1) / (edge**2).sum(-1)).clip(0, 1)
    return np.linalg.norm(offset - share[..., None] * edge, axis=-1)


def _intensity(image, mask, part, owner, at, n: int) -> dict:
    """Contrast of a crack against the pixels around it that belong to none, over its area and along its path."""
    off = cv2.distanceTransform((~part).astype(np.uint8), cv2.DIST_L2, 5)
    ring = (off > RING_PX[0]) & (off <= RING_PX[1]) & (mask == 0)
    if not ring.any():  # a crack that fills its tile has no surroundings
        return {"contrast": np.nan, "contrast_spread": np.nan, "core_share": np.nan}
    around = max(float(np.median(image[ring])), 1.0)
    relative = image / np.float32(around) - 1
    count = np.bincount(at[owner], minlength=n)
    mean = np.bincount(at[owner], relative[owner], n) / count.clip(1)
    core = np.full(n, np.inf)
    np.minimum.at(core, at[owner], relative[owner])
    core = core[count > 0].mean()
    contrast = float(relative[part].mean())
    share = contrast / core if core < 0 else np.nan
    return {"contrast": contrast, "contrast_spread": _along(mean[count > 0]).std(), "core_share": min(max(share, 0), 1)}
