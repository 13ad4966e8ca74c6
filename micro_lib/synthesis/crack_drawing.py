"""Draw cracks, and what is easily taken for one, onto a surface (Trampert et al. 2021, section 3.1.1)."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from numba import njit

from micro_lib.synthesis.fields import smooth_field

_STEP_PX = 2.0  # between the points a path is drawn through


class _Crack(NamedTuple):
    """One crack to draw: what `TILE_PARAMETERS` says of a tile's longest, or a variation of it."""

    n_segments: int
    segment_px: float
    width_px: float
    contrast: float
    n_branches: int
    middle: tuple[float, float]  # x, y in px
    direction: float  # rad from straight down
    cut: tuple[bool, bool]


def add_cracks(surface: np.ndarray, labels: np.ndarray, p: Mapping, rng: Mapping) -> np.ndarray:
    """Surface (H, W) with the cracks of a row.

    Parameters
    ----------
    surface : (H, W) float32
        0 black to 1 white; it stays as it is.
    labels : (H, W) int32
        Zeros; takes the cracks' ids in place, 1 for the first, where a crack covers at least half of the pixel.
    p : mapping
        A row with the columns of `cracks.scenario`.
    rng : mapping of str to numpy.random.Generator
        ``"crack"`` draws the first crack, ``"others"`` the further ones.
    """
    p = _gained(p)
    height, width = surface.shape
    middle = (p["middle_x"] * (width - 1), p["middle_y"] * (height - 1))
    cut, direction = (bool(p["cut_start"]), bool(p["cut_end"])), math.radians(p["direction_deg"])
    size = int(p["n_segments"]), p["segment_px"], p["width_px"], p["crack_contrast"]
    main = _Crack(*size, int(p["n_branches"]), middle, direction, cut)
    surface = _draw(surface, labels, 1, main, p, rng["crack"])
    for i in range(2, int(p["n_cracks"]) + 1):
        surface = _draw(surface, labels, i, _another(main, labels, p, rng["others"]), p, rng["others"])
    return surface


def _gained(p: Mapping) -> dict:
    """Row with the widths and contrasts of all its cracks times the tile's gains."""
    widths = {name: max(p[name] * p["width_gain"], 1.0) for name in ("width_px", "other_width_px")}
    contrasts = {name: max(p[name] * p["contrast_gain"], -0.98) for name in ("crack_contrast", "other_contrast")}
    return {**p, **widths, **contrasts}


def _another(main: _Crack, labels: np.ndarray, p: Mapping, rng: np.random.Generator) -> _Crack:
    """A further crack of the tile: shorter, about as wide and dark, about parallel, off those that are there."""
    length = p["other_px"] * math.exp(0.35 * rng.standard_normal())
    count = max(1, round(length / p["segment_px"]))
    free = cv2.distanceTransform((labels == 0).astype(np.uint8), cv2.DIST_L2, 3)
    y, x = (rng.integers(0, side, 6) for side in labels.shape)
    best = np.argmax(free[y, x])
    return main._replace(
        n_segments=count,
        segment_px=length / count,
        width_px=max(p["other_width_px"] * math.exp(0.2 * rng.standard_normal()), 1.0),
        contrast=p["other_contrast"],
        n_branches=0,
        middle=(float(x[best]), float(y[best])),
        direction=main.direction + math.radians(20 * rng.standard_normal()),
        cut=(False, False),
    )


def _draw(surface, labels, number: int, crack: _Crack, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Surface with one crack and its branches."""
    vertices = _vertices(crack, p, rng)
    cover = np.zeros(surface.shape, np.float32)
    relative = np.zeros(surface.shape, np.float32)
    main = _extended(vertices, crack.cut, surface.shape)
    _stroke(cover, relative, main, crack, p, rng, taper=[not cut for cut in crack.cut])
    for _ in range(crack.n_branches):
        branch = _branch(vertices, crack, p, rng)
        _stroke(cover, relative, branch, crack._replace(width_px=0.8 * crack.width_px), p, rng, taper=[False, True])
    labels[(cover >= 0.5) & (labels == 0)] = number
    return surface * (1 + relative)


def _walk(n: int, mean_px: float, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Vertices (n + 1, 2) as x, y of a path of n segments from 0, the first straight down, of exactly these means."""
    lengths = np.exp(p["segment_spread"] * rng.standard_normal(n))
    lengths *= mean_px * n / lengths.sum()
    bends = np.exp(p["bend_spread"] * rng.standard_normal(n - 1))
    if n > 1:
        bends *= math.radians(p["bend_deg"]) / math.sqrt((bends**2).mean())
    changes = rng.random(n) < np.append(0.5, np.full(n - 1, p["zigzag"]))  # the first bend goes to either side
    sides = np.cumprod(np.where(changes, -1, 1))[: n - 1]
    heading = np.concatenate([[0.0], np.cumsum(bends * sides)])
    steps = lengths[:, None] * np.stack([np.sin(heading), np.cos(heading)], 1)
    return np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])


def _turned(points: np.ndarray, angle: float) -> np.ndarray:
    """Points (N, 2) turned about 0 by an angle in rad, from straight down (y) towards the right (x)."""
    c, s = math.cos(angle), math.sin(angle)
    return points @ np.array([[c, -s], [s, c]])


def _vertices(crack: _Crack, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Vertices (n_segments + 1, 2) of a crack: its ends lie in its direction and about its middle."""
    walk = _walk(crack.n_segments, crack.segment_px, p, rng)
    walk = _turned(walk, crack.direction - math.atan2(*walk[-1]))
    return walk - walk[-1] / 2 + crack.middle


def _branch(vertices: np.ndarray, crack: _Crack, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Vertices of a branch that leaves its crack anywhere but near the ends."""
    i = int(rng.integers(0, len(vertices) - 1))
    start = vertices[i] + rng.uniform(0.2, 0.8) * (vertices[i + 1] - vertices[i])
    count = max(1, round(p["branch_px"] / crack.segment_px))
    angle = math.atan2(*(vertices[i + 1] - vertices[i])) + rng.choice([-1, 1]) * rng.uniform(0.5, 1.4)
    return start + _turned(_walk(count, p["branch_px"] / count, p, rng), angle)


def _extended(vertices: np.ndarray, cut: tuple[bool, bool], shape: tuple[int, int]) -> np.ndarray:
    """Vertices with the ends that the border cuts led beyond it, as far as a quarter of the tile is enough."""
    vertices = vertices.copy()
    for is_cut, end, inner in ((cut[0], 0, 1), (cut[1], -1, -2)):
        if is_cut:
            along = vertices[end] - vertices[inner]
            vertices[end] += along / max(np.hypot(*along), 1e-6) * max(shape) / 4
    return vertices


def _stroke(cover, relative, vertices, crack: _Crack, p: Mapping, rng: np.random.Generator, taper) -> None:
    """Draw a path into `cover`, the share of a pixel inside, and `relative`, its change of grey; both (H, W)."""
    points, at = _resampled(vertices, _STEP_PX)
    n = len(points)
    normal = np.stack([np.gradient(points[:, 1]), -np.gradient(points[:, 0])], 1)
    normal /= np.hypot(*normal.T)[:, None].clip(1e-6)
    points = points + normal * (p["waviness_px"] * _noise(n, 3.0, rng))[:, None]
    width = np.exp(p["width_spread"] * _noise(n, 4.0, rng))
    width *= crack.width_px / width.mean()
    if p["taper_px"]:
        ends = [
            np.where(free, (along + 1) / p["taper_px"], 1) for free, along in zip(taper, (at, at[-1] - at), strict=True)
        ]
        width *= np.minimum(*ends).clip(0, 1) ** 0.5
    half = width / 2 + p["ragged_px"] * rng.standard_normal((2, n))
    contrast = crack.contrast + p["contrast_spread"] * _noise(n, 4.0, rng)
    core = (contrast / p["core_share"]).clip(-0.98, 2)
    power = p["core_share"] / (1 - p["core_share"])
    _rasterise(cover, relative, points, half.clip(0).astype(np.float32), core.astype(np.float32), power)


def _resampled(vertices: np.ndarray, step_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 2) about every `step_px` along a polyline, vertices included in their place, and their position."""
    position = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(vertices, axis=0).T))])
    at = np.linspace(0, position[-1], max(2, round(position[-1] / step_px) + 1))
    return np.stack([np.interp(at, position, axis) for axis in vertices.T], 1), at


def _noise(n: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (n,) of standard deviation 1 that varies over `scale` points."""
    reach = math.ceil(3 * scale)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / scale) ** 2)
    return np.convolve(rng.standard_normal(n + 2 * reach), kernel / np.sqrt((kernel**2).sum()), "valid")


@njit(cache=True)
def _rasterise(cover, relative, points, half, core, power):
    # Nearest piece of the path, then the profile across it.
    height, width = cover.shape
    distance = np.full((height, width), np.inf, np.float32)
    along, side = np.zeros((height, width), np.float32), np.zeros((height, width), np.int8)
    reach = half.max() + 1
    for i in range(len(points) - 1):
        x0, y0, x1, y1 = points[i, 0], points[i, 1], points[i + 1, 0], points[i + 1, 1]
        dx, dy = x1 - x0, y1 - y0
        square = max(dx * dx + dy * dy, 1e-9)
        for r in range(max(0, int(min(y0, y1) - reach)), min(height, int(max(y0, y1) + reach) + 2)):
            for c in range(max(0, int(min(x0, x1) - reach)), min(width, int(max(x0, x1) + reach) + 2)):
                t = min(max(((c - x0) * dx + (r - y0) * dy) / square, 0.0), 1.0)
                ox, oy = c - x0 - t * dx, r - y0 - t * dy
                d = math.sqrt(ox * ox + oy * oy)
                if d < distance[r, c]:
                    distance[r, c], along[r, c] = d, i + t
                    side[r, c] = 1 if ox * dy - oy * dx > 0 else 0
    for r in range(height):
        for c in range(width):
            if distance[r, c] < reach:
                i = min(int(along[r, c]), len(points) - 2)
                t = along[r, c] - i
                edge = half[side[r, c], i] * (1 - t) + half[side[r, c], i + 1] * t
                share = min(max(edge - distance[r, c] + 0.5, 0.0), 1.0)
                if share > cover[r, c]:
                    depth = core[i] * (1 - t) + core[i + 1] * t
                    inner = min(distance[r, c] / max(edge, 0.5), 1.0)
                    cover[r, c] = share
                    relative[r, c] = share * depth * (1 - inner**power)


# What is no crack


def add_distractors(surface: np.ndarray, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Surface (H, W) with a border of the layer, pores, strings of pores and scratches.

    Parameters
    ----------
    surface : (H, W) float32
        0 black to 1 white; it stays as it is.
    p : mapping
        A row with the columns of `cracks.PARAMETERS`.
    rng : numpy.random.Generator
        Draws.
    """
    if p["layer_contrast"] or p["layer_line"]:
        surface = _layer(surface, p, rng)
    if p["n_pores"] or p["n_strings"]:
        surface = surface * (1 + p["pore_contrast"] * _pores(surface.shape, p, rng))
    if p["n_scratches"]:
        surface = surface * (1 + _scratches(surface.shape, p, rng))
    return surface


def _layer(surface: np.ndarray, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Surface with another grey beyond a wavy border across the tile, and a line along that border."""
    height, width = surface.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle = math.radians(p["layer_deg"])
    beyond = (y * math.cos(angle) + x * math.sin(angle) - p["layer_at"]) * np.float32(min(height, width) / 2)
    if p["layer_waviness_px"]:
        wave = smooth_field((2, 2 * max(height, width)), 12.0, rng)[0]
        place = (x * math.cos(angle) - y * math.sin(angle) + 2) * (max(height, width) / 2)
        beyond += np.float32(p["layer_waviness_px"]) * np.interp(place, np.arange(len(wave)), wave).astype(np.float32)
    change = p["layer_contrast"] * np.clip(beyond + 0.5, 0, 1)
    line = p["layer_line"] * np.clip(2.5 - np.abs(beyond), 0, 1)
    return surface * (1 + change) * (1 + line)


def _pores(shape: tuple[int, int], p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Share (H, W), 0 to 1, of pixels in pores: ellipses of any elongation, some of them in strings."""
    depth = np.zeros(shape, np.float32)
    for x, y, angle in _pore_places(shape, p, rng):
        radius = p["pore_px"] * math.exp(0.4 * rng.standard_normal())
        stretch = math.sqrt(rng.uniform(1, p["pore_stretch"]))
        axes = (int(16 * radius * stretch), int(16 * radius / stretch))
        turned = math.degrees(angle) + rng.normal(0, 15)
        cv2.ellipse(depth, (int(16 * x), int(16 * y)), axes, turned, 0, 360, rng.uniform(0.5, 1), -1, cv2.LINE_8, 4)
    rough = depth * (1 + 0.2 * smooth_field(shape, 4.0, rng))
    return cv2.GaussianBlur(rough, (0, 0), 0.8).clip(0, 1)


def _pore_places(shape: tuple[int, int], p: Mapping, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """x, y in px and direction in rad from the x axis of single pores, then of those in strings."""
    height, width = shape
    places = [(*rng.uniform(0, (width, height)), rng.uniform(0, np.pi)) for _ in range(int(p["n_pores"]))]
    for _ in range(int(p["n_strings"])):
        angle, spacing = rng.uniform(0, np.pi), p["pore_px"] * rng.uniform(1.5, 4)
        start = rng.uniform(0, (width, height))
        for i in range(int(rng.integers(3, 9))):
            along = i * spacing * np.array([math.cos(angle), math.sin(angle)])
            places.append((*(start + along + rng.normal(0, 0.4 * p["pore_px"], 2)), angle))
    return places


def _scratches(shape: tuple[int, int], p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Change of grey (H, W), relative, by straight thin scratches across the tile."""
    change = np.zeros(shape, np.float32)
    for _ in range(int(p["n_scratches"])):
        middle, angle = rng.uniform(0, shape[::-1]), rng.uniform(0, np.pi)
        half = rng.uniform(0.2, 1.0) * max(shape) * np.array([math.cos(angle), math.sin(angle)])
        ends = np.round(np.stack([middle - half, middle + half]) * 16).astype(int)
        depth = p["scratch_contrast"] * rng.uniform(0.3, 1)
        cv2.line(change, ends[0].tolist(), ends[1].tolist(), depth, int(rng.integers(1, 3)), cv2.LINE_8, 4)
    return cv2.GaussianBlur(change, (0, 0), 0.6)
