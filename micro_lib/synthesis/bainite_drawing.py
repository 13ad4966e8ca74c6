"""Draw lath bainite in ferrite: which cells are which phase, carbide films between laths, islands, and their etching.

All lengths are in um and become pixels at the end, so that the same row drawn with another pixel size shows the same
kind of structure, and what is finer than a pixel fades instead of staying a pixel wide.
"""

from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from numba import njit
from scipy.ndimage import gaussian_filter1d
from scipy.stats import norm

from micro_lib.synthesis.fields import smooth_field
from micro_lib.synthesis.tessellation import tessellate

PLANE_UM = 48.0  # laths repeat after this distance, along and across; packets start anywhere
STEP_UM = 0.1  # between samples along a lath boundary
_BINS_PER_UM = 20  # of the table that finds a lath


class Cells(NamedTuple):
    """Ferrite grains and packets of laths; arrays of shape (H, W) unless said otherwise."""

    labels: np.ndarray  # int32, 1..N
    edge_px: np.ndarray  # float32, distance to the nearest boundary
    is_lath: np.ndarray  # (N + 1,) bool, entry 0 unused

    @property
    def mask(self) -> np.ndarray:
        """Class ids (H, W) uint8: 0 ferrite, 1 lath bainite."""
        return self.is_lath.astype(np.uint8)[self.labels]


class Laths(NamedTuple):
    """What lies between and within the laths, as shares (H, W) float32 of a pixel, 0 to 1."""

    film: np.ndarray  # carbide films
    groove: np.ndarray  # where films fell out
    subgrain: np.ndarray  # boundaries of laths without a film, and those across laths


def broad_field(shape: tuple[int, int], scale_px: float, rng: np.random.Generator) -> np.ndarray:
    """Return `smooth_field` for scales of many pixels, at a fraction of its cost: coarse, then interpolated.

    Parameters
    ----------
    shape, scale_px, rng
        As for `smooth_field`; up to 16 px nothing is saved.

    Returns
    -------
    (H, W) float32
        As of `smooth_field`.
    """
    step = max(1.0, scale_px / 16)
    coarse = smooth_field(tuple(int(np.ceil(side / step)) + 1 for side in shape), scale_px / step, rng)
    return cv2.resize(coarse, shape[::-1])


def _px(p: Mapping, name: str) -> float:
    return p[name] / p["pixel_size_um"]


def _area_100um2(p: Mapping) -> float:
    return p["height_px"] * p["width_px"] * p["pixel_size_um"] ** 2 / 100


def draw_cells(p: Mapping, rng: np.random.Generator) -> Cells:
    """Cells of the parameters `p` of one micrograph; packets of laths fill `lath_fraction` of the area.

    A smooth field, averaged over cells, says where bainite formed first: cells turn into packets in that order until
    the fraction is met as closely as whole cells allow.

    Parameters
    ----------
    p : mapping
        A row with the columns of `bainite.PARAMETERS`.
    rng : numpy.random.Generator
        Draws.
    """
    shape = int(p["height_px"]), int(p["width_px"])
    of_cells = {"grain_diameter_px": p["cell_um"] / p["pixel_size_um"], "fine_fraction": 0.0, "fine_ratio": 1.0}
    geometry = tessellate({**p, **of_cells}, shape, rng)
    field = broad_field(shape, p["colony_um"] / p["pixel_size_um"], rng)
    area = np.bincount(geometry.labels.ravel())
    preference = np.bincount(geometry.labels.ravel(), field.ravel()) / area.clip(1)
    order = 1 + np.argsort(-preference[1:], kind="stable")
    filled = np.concatenate([[0], np.cumsum(area[order])]) / field.size
    is_lath = np.zeros(len(area), bool)
    is_lath[order[: np.abs(filled - p["lath_fraction"]).argmin()]] = True
    return Cells(geometry.labels, geometry.edge_px, is_lath)


# ---------------------------------------------------------------------------------------------- laths


def draw_laths(cells: Cells, p: Mapping, rng: np.random.Generator) -> Laths:
    """Carbide films and sub-grain boundaries of all packets, each packet with a direction of its own.

    Films lie along some of the boundaries between laths, broken into pieces of mean length `film_um` that take
    `film_share` of it, a share that varies between packets.

    Parameters
    ----------
    cells : Cells
        From `draw_cells`.
    p, rng
        As for `draw_cells`.
    """
    edges = _lath_edges(p, rng)
    noise = _film_noise(len(edges) - 1, p, rng)
    shift = _waviness(len(edges) - 1, p, rng)
    strength = rng.uniform(0.5, 1.0, len(edges) - 1).astype(np.float32)
    lost = rng.random(len(edges) - 1) < p["lost_share"]
    beads = np.exp(np.float32(p["beading"]) * _wrapped(len(edges) - 1, 0.12, rng))
    every = max(p["crossing_um"], 4 * STEP_UM)
    crossings = rng.uniform(0.15, 0.85, (len(edges) - 1, int(PLANE_UM / every) + 1)).astype(np.float32)
    of_cells = _packets(cells, p, rng)
    scale = max(p["cell_um"] / p["pixel_size_um"], 1.0)
    bent = np.float32(p["curvature_um"]) * broad_field(cells.labels.shape, scale, rng)
    film, groove, subgrain = np.zeros((3, *cells.labels.shape), np.float32)
    sizes = np.array([p["pixel_size_um"], p["film_width_um"], p["subgrain_um"], every], np.float32)
    first = np.searchsorted(edges, np.arange(int(PLANE_UM * _BINS_PER_UM) + 1) / _BINS_PER_UM, "right") - 1
    table = edges.astype(np.float32), first.clip(0, len(edges) - 2), noise, shift, beads, strength, lost, crossings
    _fill_laths(film, groove, subgrain, cells.labels, of_cells, bent, sizes, *table)
    return Laths(film, groove, subgrain)


def _lath_edges(p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Places (K + 1,) in um across the laths of their boundaries, from 0 to `PLANE_UM`; lath widths are gamma."""
    shape = 1 / p["lath_spread"] ** 2
    widths = rng.gamma(shape, 1 / shape, max(3, round(PLANE_UM / p["lath_um"]))) + 0.15
    return np.concatenate([[0], np.cumsum(widths)]) * (PLANE_UM / widths.sum())


def _film_noise(count: int, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Noise (K, M) float32 along lath boundaries; where it exceeds the packet's threshold, there is a film.

    Rice's formula: smooth normal noise crosses a threshold t upwards ``exp(-t^2 / 2) / (2 pi s sqrt(2))`` times a
    length, s being the width of the Gaussian it was smoothed with; the share above t over this rate is the mean length.
    """
    threshold = norm.isf(p["film_share"])
    smoothing_um = p["film_um"] * np.exp(-(threshold**2) / 2) / (2 * np.pi * np.sqrt(2) * p["film_share"])
    return _wrapped(count, smoothing_um, rng)


def _waviness(count: int, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Displacement (K, M) float32 in um of lath boundaries: they waver over 0.5 um and lean over 2.5 um."""
    fine, slow = _wrapped(count, 0.5, rng), _wrapped(count, 2.5, rng)
    return np.float32(p["waviness_um"]) * (0.6 * fine + 0.8 * slow)


def _wrapped(count: int, smoothing_um: float, rng: np.random.Generator) -> np.ndarray:
    """Normal noise (count, M) float32 of variance 1, smoothed along its rows, that goes on from end to start."""
    white = rng.standard_normal((count, round(PLANE_UM / STEP_UM)), np.float32)
    smooth = gaussian_filter1d(white, smoothing_um / STEP_UM, mode="wrap")
    return smooth / smooth.std()


def _packets(cells: Cells, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Per cell (N + 1, 6) float32: cosine, sine, start along, start across, stretch, threshold (NaN in ferrite)."""
    count = len(cells.is_lath)
    angle = rng.uniform(0, np.pi, count)
    start = rng.uniform(0, PLANE_UM, (2, count))
    stretch = np.exp(0.2 * rng.standard_normal(count).clip(-2, 2))
    threshold = norm.isf(p["film_share"]) + 0.3 * rng.standard_normal(count).clip(-2, 2)
    threshold[~cells.is_lath] = np.nan
    return np.stack([np.cos(angle), np.sin(angle), *start, stretch, threshold], 1).astype(np.float32)


@njit(cache=True)
def _fill_laths(
    film, groove, subgrain, labels, packets, bent, sizes, edges, first, noise, shift, beads, strength, lost, crossings
):
    px_um, film_um, sub_um, every_um = sizes
    count, samples = noise.shape
    plane_um = edges[count]
    for r in range(labels.shape[0]):
        for c in range(labels.shape[1]):
            cosine, sine, start_a, start_c, stretch, threshold = packets[labels[r, c]]
            if np.isnan(threshold):
                continue
            along = ((c * cosine + r * sine) * px_um + start_a) % plane_um
            across = (((r * cosine - c * sine) * px_um + bent[r, c]) / stretch + start_c) % plane_um
            place = along / plane_um * samples
            m = int(place) % samples
            n, t = (m + 1) % samples, place - int(place)
            k = first[int(across * _BINS_PER_UM)]
            while k < count - 1 and edges[k + 1] <= across:
                k += 1
            best, gone, seam = 0.0, 0.0, 0.0
            for i in range(k - 1, k + 3):  # boundaries waver: not only the two on either side may be near
                j = i % count
                at = edges[j] + (i - j) // count * plane_um + shift[j, m] * (1 - t) + shift[j, n] * t
                distance = abs(across - at) * stretch / px_um
                above = (noise[j, m] * (1 - t) + noise[j, n] * t) - threshold
                width = film_um * strength[j] * beads[j, m] * min(1.0, 2.0 * above) ** 0.5 if above > 0 else 0.0
                if lost[j]:
                    gone = max(gone, _cover(distance, width / px_um))
                else:
                    best = max(best, _cover(distance, width / px_um))
                # Where films are weak, the bare boundary shows most: strengths lie between a half and one.
                seam = max(seam, 2 * (1 - strength[j]) * _cover(distance, sub_um / px_um))
            lath = crossings[k]
            q = int(along / every_um)
            slanted = along - (q + lath[q % lath.size]) * every_um + (lath[0] - 0.5) * (across - edges[k])
            seam = max(seam, 2 * (1 - strength[k]) * _cover(abs(slanted) / px_um, sub_um / px_um))
            film[r, c], groove[r, c], subgrain[r, c] = best, gone, seam


@njit(cache=True)
def _cover(distance_px, width_px):
    """Share of a pixel that a line of this width covers, its centre at this distance."""
    return max(0.0, min(distance_px + 0.5, width_px / 2) - max(distance_px - 0.5, -width_px / 2))


# ---------------------------------------------------------------------------------------------- islands


def draw_islands(places, sizes_um, p: Mapping, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Depth (H, W) float32 in px below the rim of the nearest island, negative outside, at least -2.

    Parameters
    ----------
    places : (M, 2) float
        y, x of the islands in px.
    sizes_um : (M,) float
        Their radii in um.
    p : mapping
        A row of which `pixel_size_um` is looked at.
    shape : (int, int)
        H and W in px.
    rng : numpy.random.Generator
        Draws how slim and lobed they are, and their directions.
    """
    count = len(places)
    turn, lobes = rng.uniform(0, 2 * np.pi, (3, count)), rng.uniform(0, [[0.22], [0.25]], (2, count))
    slim = rng.uniform(0.45, 1.0, count)
    depth = np.full(shape, -2, np.float32)
    islands = np.column_stack([places, sizes_um / p["pixel_size_um"], slim, turn.T, lobes.T]).astype(np.float32)
    _fill_islands(depth, islands)
    return depth


@njit(cache=True)
def _fill_islands(depth, islands):
    for y, x, radius, slim, turn, phase_2, phase_3, lobe_2, lobe_3 in islands:
        reach = radius * 1.5 + 2
        cosine, sine = np.cos(turn), np.sin(turn)
        for r in range(max(0, int(y - reach)), min(depth.shape[0], int(y + reach) + 2)):
            for c in range(max(0, int(x - reach)), min(depth.shape[1], int(x + reach) + 2)):
                u = (c - x) * cosine + (r - y) * sine
                v = ((r - y) * cosine - (c - x) * sine) / slim
                angle = np.arctan2(v, u)
                rim = radius * (1 + lobe_2 * np.cos(2 * angle + phase_2) + lobe_3 * np.cos(3 * angle + phase_3))
                depth[r, c] = max(depth[r, c], (rim - np.hypot(u, v)) * slim)


def places_in(allowed: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return places, evenly over the pixels that are allowed.

    Parameters
    ----------
    allowed : (H, W) bool
        Where a place may lie.
    count : int
        Number of places; several may lie in one pixel.
    rng : numpy.random.Generator
        Draws.

    Returns
    -------
    (count, 2) float
        y, x in px, anywhere in their pixels; (0, 2) where no pixel is allowed.
    """
    pixels = np.flatnonzero(allowed)
    if not len(pixels):
        return np.zeros((0, 2))
    chosen = rng.choice(pixels, count)
    return np.stack(np.unravel_index(chosen, allowed.shape), 1) + rng.uniform(-0.5, 0.5, (count, 2))


def scatter_islands(cells: Cells, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Depth (H, W) float32 in px below the rim of islands (`draw_islands`), which lie in ferrite and on its boundaries.

    Parameters
    ----------
    cells : Cells
        From `draw_cells`.
    p, rng
        As for `draw_cells`.
    """
    ferrite = cells.mask == 0
    count = rng.poisson(p["islands_per_100um2"] * _area_100um2(p) * ferrite.mean())
    at_boundary = rng.binomial(count, p["island_at_boundary"])
    border = places_in(ferrite & (cells.edge_px < 1.5), at_boundary, rng)
    places = np.concatenate([border, places_in(ferrite, count - at_boundary, rng)])
    sizes = p["island_um"] * np.exp(p["island_spread"] * rng.standard_normal(len(places)).clip(-2.5, 2.5))
    return draw_islands(places, sizes, p, ferrite.shape, rng)


# ---------------------------------------------------------------------------------------------- surfaces


def etch_cells(cells: Cells, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Brightness (H, W) float32 of the matrix: every cell as bright and as rough as its orientation has it etched.

    0 is black and 1 white, as in all surfaces; they may overshoot.

    Parameters
    ----------
    cells : Cells
        From `draw_cells`.
    p, rng
        As for `draw_cells`.
    """
    count, shape = len(cells.is_lath), cells.labels.shape
    grey = p["matrix_grey"] + p["grey_spread"] * rng.standard_normal(count).clip(-2.5, 2.5)
    grey += p["lath_step"] * cells.is_lath
    rough = p["roughness"] * rng.uniform(0.4, 1.6, count)
    height = rng.standard_normal(count).clip(-2, 2).astype(np.float32)
    surface = grey.astype(np.float32)[cells.labels]
    if p["roughness"]:
        surface += rough.astype(np.float32)[cells.labels] * smooth_field(shape, _px(p, "roughness_um"), rng)
    if p["facet_depth"]:
        surface += _facets(cells, p, rng)
    if p["relief"]:
        surface += _shading(height[cells.labels], p)
    return surface


def _facets(cells: Cells, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Shading (H, W) of etched terraces: unbroken, about parallel steps in ferrite grains, each with its own depth."""
    count, shape = len(cells.is_lath), cells.labels.shape
    angle, depth = rng.uniform(0, 2 * np.pi, count), p["facet_depth"] * rng.uniform(-0.6, 1.0, count).clip(0)
    samples = 2 * np.pi * np.sqrt(2) * 1.5  # a wave, by Rice's formula
    rate = samples * p["pixel_size_um"] / p["facet_um"] * rng.uniform(0.7, 1.4, count)
    down, across = (np.float32(f(angle) * rate)[cells.labels] for f in (np.cos, np.sin))
    y, x = np.indices(shape, np.float32, sparse=True)
    place = down * y + across * x + 3 * broad_field(shape, 0.4 * _px(p, "cell_um"), rng)
    profile = gaussian_filter1d(rng.standard_normal(1024, np.float32), 1.5, mode="wrap")
    steps = (profile / profile.std())[place.astype(np.int32) & 1023]
    return np.float32(depth * ~cells.is_lath)[cells.labels] * steps


def _shading(height: np.ndarray, p: Mapping) -> np.ndarray:
    """Brightness (H, W) of steps: bright where they face the detector, up and to the left, dark on the other side."""
    sigma = max(0.8, 0.05 / p["pixel_size_um"])
    smooth = cv2.GaussianBlur(height, (0, 0), sigma)
    slope = sum(cv2.Sobel(smooth, -1, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    return np.float32(p["relief"] * sigma) * slope


def etch_boundaries(surface: np.ndarray, cells: Cells, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Surface (H, W) with its grain boundaries, some of which fade, and those between packets fainter.

    Parameters
    ----------
    surface : (H, W) float32
        From `etch_cells`; it stays as it is.
    cells : Cells
        From `draw_cells`.
    p, rng
        As for `draw_cells`.
    """
    width = _px(p, "boundary_um")
    cover = np.clip(np.minimum(cells.edge_px + 0.5, width / 2) - np.maximum(cells.edge_px - 0.5, -width / 2), 0, 1)
    if p["fading"]:
        seen = broad_field(surface.shape, 0.4 * _px(p, "cell_um"), rng)
        cover *= np.clip((seen - np.quantile(seen[::4, ::4], p["fading"])) * 4 + 0.5, 0, 1)
    if p["packet_boundary"] != 1:
        beside_ferrite = cv2.dilate(1 - cells.mask, np.ones((3, 3), np.uint8), iterations=int(width / 2) + 1)
        cover *= np.where(beside_ferrite > 0, np.float32(1), np.float32(p["packet_boundary"]))
    return surface + cover * (p["boundary_grey"] - surface)


def leave_standing(surface: np.ndarray, laths: Laths, islands: np.ndarray, p: Mapping) -> np.ndarray:
    """Surface (H, W) with what the etchant leaves standing: sub-grain boundaries, films, islands.

    Parameters
    ----------
    surface : (H, W) float32
        From `etch_boundaries`; it stays as it is.
    laths : Laths
        From `draw_laths`.
    islands : (H, W) float32
        Depth in px, from `scatter_islands`.
    p : mapping
        As for `draw_cells`.
    """
    surface = surface + np.float32(p["subgrain_step"]) * laths.subgrain
    if p["halo"]:
        surface -= p["halo"] * cv2.GaussianBlur(laths.film, (0, 0), max(_px(p, "halo_um"), 0.3))
    surface += laths.groove * (p["groove_grey"] - surface)
    surface += laths.film * (p["film_grey"] - surface)
    if p["relief"]:
        surface += 0.5 * _shading(laths.film, p)
    rim = np.exp(-((islands / max(_px(p, "island_rim_um"), 0.5)) ** 2))
    within = p["island_grey"] + rim * np.float32(p["island_rim_grey"] - p["island_grey"])
    return surface + np.clip(islands + 0.5, 0, 1) * (within - surface)


def add_artefacts(surface: np.ndarray, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Surface (H, W) with stains, pits and specks, none of which belongs to a phase.

    Parameters
    ----------
    surface : (H, W) float32
        From `leave_standing`; it stays as it is.
    p, rng
        As for `draw_cells`.
    """
    if p["stain_depth"]:
        stains = broad_field(surface.shape, 0.3 * min(surface.shape), rng)
        surface = surface - p["stain_depth"] * np.maximum(stains, 0)
    for kind in ("pit", "residue"):
        depth = _specks(surface.shape, p[f"{kind}s_per_100um2"], p[f"{kind}_um"], p, rng)
        if depth is not None:
            surface = surface + np.clip(depth + 0.5, 0, 1) * (p[f"{kind}_grey"] - surface)
    return surface


def _specks(shape: tuple[int, int], per_100um2: float, radius_um: float, p: Mapping, rng: np.random.Generator):
    """Depth (H, W) in px below the rim of specks anywhere, None where there are none."""
    count = rng.poisson(per_100um2 * _area_100um2(p))
    if not count:
        return None
    places = rng.uniform(-0.5, np.array(shape) - 0.5, (count, 2))
    sizes = radius_um * np.exp(0.4 * rng.standard_normal(count).clip(-2.5, 2.5))
    return draw_islands(places, sizes, p, shape, rng)
