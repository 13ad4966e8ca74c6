"""Crack tiles: a crack of given statistics on a texture, then the simulated measurement (Trampert et al. 2021, 3.1.1).

A row of the table says what the longest crack of the tile measures (`crack_statistics.TILE_PARAMETERS`), which texture
of a pool lies behind it and how the picture is taken. Further cracks of the tile vary the first. Everything random
comes from streams named after the part and keyed by the row's seed, so what lies behind a crack never changes with it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from numba import njit
from scipy.stats import uniform

from micro_lib.core.seeds import stream, stream_seed
from micro_lib.synthesis import imaging
from micro_lib.synthesis.crack_statistics import CALIBRATED, Measured, fit, measure_all, per_tile
from micro_lib.synthesis.fields import smooth_field
from micro_lib.synthesis.presets import PARAMETERS as GRAIN_PARAMETERS
from micro_lib.synthesis.scenario import Choice, Constant, Integers, Kernel, Micrograph, Parameter, Space
from micro_lib.synthesis.texture import MAX_PATCHES, PATCH_PX, dictionary, texture_pool

GENERATORS = ("paper", "covering")
_STEP_PX = 2.0  # between the points a path is drawn through
_MEASUREMENT = ("gradient", "vignetting", "charging", "blur_sigma_px", "defocus", "shot_noise", "detector_noise")
_MEASUREMENT += ("scan_lines", "contrast", "brightness", "gamma", "inverted", "bit_depth")

# name: (unit, value that switches the feature off, meaning)
PARAMETERS = {
    "texture": ("1", None, "which texture of the pool lies behind"),
    "mirrored": ("", False, "the texture is mirrored left to right"),
    "crack": ("", None, "the tile shows a crack"),
    # of the crack, what masks of real ones do not tell
    "ragged_px": ("px", 0.0, "standard deviation of the fine raggedness of either edge"),
    "taper_px": ("px", 0.0, "length over which a free end narrows to nothing"),
    "zigzag": ("1", 0.5, "probability that a bend goes the other way than the one before"),
    # what a classifier confuses with cracks, in tiles of both classes
    "n_pores": ("1", 0, "single pores"),
    "n_strings": ("1", 0, "strings of pores"),
    "pore_px": ("px", 3.0, "radius of a mean pore"),
    "pore_stretch": ("1", 1.0, "length over width of the most elongated pores"),
    "pore_contrast": ("1", -0.6, "grey of a pore over that of its surroundings, minus 1"),
    "layer_contrast": ("1", 0.0, "grey beyond the border of the layer over that within, minus 1"),
    "layer_at": ("1", 0.8, "distance of the border from the middle of the tile, over half its size"),
    "layer_deg": ("deg", 0.0, "direction from the middle to the border, 0 straight down"),
    "layer_waviness_px": ("px", 0.0, "standard deviation of the border's position along it"),
    "layer_line": ("1", 0.0, "contrast of a line along the border"),
    "n_scratches": ("1", 0, "straight scratches"),
    "scratch_contrast": ("1", 0.0, "contrast of the strongest scratches"),
    # the simulated measurement
    **{name: GRAIN_PARAMETERS[name] for name in _MEASUREMENT},
}


def between(low: float, high: float):
    """Uniform distribution from `low` to `high`."""
    return uniform(low, high - low)


PAPER = {
    "mirrored": Choice({False: 1, True: 1}),
    "crack": Choice({False: 1, True: 1}),
    "ragged_px": between(0.0, 0.8),
    "taper_px": between(0.0, 12.0),
}
COVERING = PAPER | {
    "n_pores": Integers(0, 8),
    "n_strings": Integers(0, 2),
    "pore_px": between(1.5, 5.0),
    "pore_stretch": between(1.5, 5.0),
    "pore_contrast": between(-0.85, -0.15),
    "layer_contrast": Choice({0.0: 6, -0.6: 1, -0.25: 1, 0.15: 1, 0.5: 1, 1.5: 1}),
    "layer_at": between(0.2, 0.95),
    "layer_deg": Choice({0.0: 3, 15.0: 1, -15.0: 1, 180.0: 3, 165.0: 1, 195.0: 1}),
    "layer_waviness_px": between(0.0, 4.0),
    "layer_line": between(-0.7, 0.3),
    "n_scratches": Integers(0, 2),
    "scratch_contrast": between(-0.3, 0.15),
    "gradient": between(0.0, 0.1),
    "blur_sigma_px": between(0.0, 0.5),
    "detector_noise": between(0.0, 0.01),
    "contrast": between(0.8, 1.2),
    "brightness": between(-0.05, 0.05),
}


def scenario(fitted: Space, n_textures: int, generator: str = "paper") -> Space:
    """Space of crack tiles: fitted cracks on textures of a pool, half of the tiles without a crack.

    The classes are balanced in expectation; exactly with ``sample(n, seed, "sobol")`` and n a power of 2.

    Parameters
    ----------
    fitted : Space
        From `crack_statistics.fit`, or with the same parameters.
    n_textures : int
        Size of the pool, 1 or larger; a texture is used again about every `n_textures` tiles.
    generator : {"paper", "covering"}
        ``"paper"``: texture and crack, as Trampert et al. 2021 have it. ``"covering"``: in both classes also pores,
        strings of pores, borders of the layer and scratches, and a varied measurement.

    Returns
    -------
    Space
        For `render`.

    Raises
    ------
    ValueError
        If the generator is unknown or there is no texture.
    """
    if generator not in GENERATORS:
        raise ValueError(f"no generator {generator!r}; there are {', '.join(GENERATORS)}")
    if n_textures < 1:
        raise ValueError(f"{n_textures} textures; a scenario needs at least one")
    given = {"texture": Integers(0, n_textures - 1), **(PAPER if generator == "paper" else COVERING)}
    parameters = dict(fitted)
    for name, (unit, off, doc) in PARAMETERS.items():
        if name not in parameters:
            distribution = given.get(name, off)
            constant = isinstance(distribution, bool | int | float)
            parameters[name] = Parameter(Constant(distribution) if constant else distribution, unit, doc)
    return Space(parameters)


# One tile


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


def render(row: Mapping, textures: np.ndarray) -> Micrograph:
    """The crack tile of one row.

    Parameters
    ----------
    row : mapping with the columns of `scenario(...)` and `seed`
    textures : (N, H, W) uint8
        The pool that `texture` counts in.

    Returns
    -------
    Micrograph
        image (H, W) uint8; mask (H, W) uint8, 1 where a crack covers at least half of the pixel; labels (H, W) int32,
        0 outside cracks, 1 the longest crack, its branches included; pixel size 1 (none is known).

    Raises
    ------
    ValueError
        If the pool is no stack of uint8 textures or has no such texture.
    """
    p = {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
    texture = _texture(textures, int(p["texture"]))
    rng = {part: stream(int(p["seed"]), part) for part in ("crack", "others", "surface", "imaging")}
    surface = (texture[:, ::-1] if p["mirrored"] else texture) / np.float32(255)
    surface = add_distractors(surface, p, rng["surface"])
    labels = np.zeros(surface.shape, np.int32)
    if p["crack"]:
        surface = add_cracks(surface, labels, p, rng)
    image = imaging.measure(surface, p, rng["imaging"])
    return Micrograph(image, (labels > 0).astype(np.uint8), labels, 1.0)


def rendered(table: pd.DataFrame, textures: np.ndarray) -> Iterator[Micrograph]:
    """Yield the tile of every row of a table, one at a time."""
    for row in table.to_dict("records"):
        yield render(row, textures)


def _texture(textures: np.ndarray, index: int) -> np.ndarray:
    if getattr(textures, "ndim", 0) != 3 or textures.dtype != np.uint8:
        raise ValueError(f"a pool of textures is (N, H, W) uint8; found {getattr(textures, 'shape', textures)}")
    if not 0 <= index < len(textures):
        raise ValueError(f"texture {index} of a pool of {len(textures)}: the scenario was made for a larger pool")
    return textures[index]


def add_cracks(surface: np.ndarray, labels: np.ndarray, p: Mapping, rng: Mapping) -> np.ndarray:
    """Surface (H, W) with the cracks of a row; `labels` (H, W) int32 takes their ids."""
    height, width = surface.shape
    middle = (p["middle_x"] * (width - 1), p["middle_y"] * (height - 1))
    cut, direction = (bool(p["cut_start"]), bool(p["cut_end"])), math.radians(p["direction_deg"])
    size = int(p["n_segments"]), p["segment_px"], p["width_px"], p["crack_contrast"]
    main = _Crack(*size, int(p["n_branches"]), middle, direction, cut)
    surface = _draw(surface, labels, 1, main, p, rng["crack"])
    for i in range(2, int(p["n_cracks"]) + 1):
        surface = _draw(surface, labels, i, _another(main, labels, p, rng["others"]), p, rng["others"])
    return surface


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
    bends = np.abs(rng.normal(1, 0.4, n - 1)) + 0.05
    if n > 1:
        bends *= math.radians(p["bend_deg"]) / math.sqrt((bends**2).mean())
    sides = np.cumprod(np.where(rng.random(n) < p["zigzag"], -1, 1))[: n - 1]
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
                    inner = min(distance[r, c] / max(edge + 0.5, 0.5), 1.0)
                    cover[r, c] = share
                    relative[r, c] = share * depth * (1 - inner**power)


# What is no crack


def add_distractors(surface: np.ndarray, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Surface (H, W) with a border of the layer, pores, strings of pores and scratches."""
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


# Learning a generator from real tiles


@dataclass(frozen=True)
class Generator:
    """What was learned of real tiles, and with it tiles as many as wanted.

    Attributes
    ----------
    textures : numpy.ndarray
        (N, H, W) uint8, the pool.
    fitted : Space
        The cracks' parameters.
    space : Space
        The scenario: sample its rows, and `render` them.
    measured : Measured
        The cracks it was fitted to.
    """

    textures: np.ndarray
    fitted: Space
    space: Space
    measured: Measured

    def render(self, row: Mapping) -> Micrograph:
        """Return the tile of a row of `space`, as `cracks.render`."""
        return render(row, self.textures)


def learn(
    records: Iterable,
    *,
    seed: int,
    n_textures: int,
    generator: str = "paper",
    shape: tuple[int, int] = (128, 128),
    n_seeds: int = 100,
    patch_px: int = PATCH_PX,
    max_patches: int = MAX_PATCHES,
    k: int = 5,
    calibration_rounds: int = 3,
) -> Generator:
    """Learn a generator of crack tiles from labelled tiles alone.

    Parameters
    ----------
    records : iterable of Record
        With and without cracks; nothing else of the real material enters.
    seed : int
        Seed of everything random in it, 0 or larger.
    n_textures : int
        Textures to grow, 1 or larger.
    generator : {"paper", "covering"}
        As for `scenario`.
    shape : (int, int)
        Height and width of the tiles to be made.
    n_seeds : int
        Texture seeds to cut out of the tiles without a crack.
    patch_px, max_patches, k
        As for `texture.dictionary` and `texture.grow`.
    calibration_rounds : int
        As for `calibrate`.

    Returns
    -------
    Generator

    Raises
    ------
    ValueError
        If there is no tile without a crack, or none with one that can be measured.
    """
    records = list(records)
    free = [record for record in records if not record.mask.any()]
    if not free:
        raise ValueError(f"none of the {len(records)} tiles is free of cracks; textures are learned from such tiles")
    measured = measure_all(record for record in records if record.mask.any())
    textures = grow_pool(
        free, n_textures, shape=shape, n_seeds=n_seeds, patch_px=patch_px, max_patches=max_patches, k=k, seed=seed
    )
    fitted = calibrate(fit(measured, seed=seed), measured, textures, rounds=calibration_rounds, seed=seed)
    return Generator(textures, fitted, scenario(fitted, n_textures, generator), measured)


def calibrate(
    fitted: Space, measured: Measured, textures: np.ndarray, *, rounds: int, n_tiles: int = 400, seed: int
) -> Space:
    """Return fitted parameters changed so that tiles drawn with them measure as the real ones did.

    What is drawn and what is measured differ a little: simplified paths lose their shortest segments, raggedness adds
    to waviness, the texture to the spread of contrast. In every round tiles are drawn and measured, and each
    parameter's values are moved by the difference of the measured tiles' and the drawn tiles' quantiles at their rank,
    by a share 1 / round of it, since the drawn tiles are a sample (Robbins and Monro's steps).

    Parameters
    ----------
    fitted : Space
        From `crack_statistics.fit` of `measured`.
    measured : Measured
        The real cracks, all that is known of them here.
    textures : (N, H, W) uint8
        The pool to draw on.
    rounds : int
        Number of rounds; 0 returns `fitted`.
    n_tiles : int
        Tiles drawn in each.
    seed : int
        Seed of the tiles.

    Returns
    -------
    Space
    """
    target = per_tile(measured)
    for i in range(rounds):
        space = scenario(fitted, len(textures)).replace(crack=Constant(True))
        table = space.sample(n_tiles, stream_seed(seed, "calibration", i))
        drawn = per_tile(measure_all(_Tile(str(j), *tile[:2]) for j, tile in enumerate(rendered(table, textures))))
        moved = {
            name: _moved(fitted[name].distribution, target[name].dropna(), drawn[name].dropna(), 1 / (i + 1))
            for name in CALIBRATED
            if isinstance(fitted[name].distribution, Kernel)
        }
        fitted = fitted.replace(**moved)
    return fitted


class _Tile(NamedTuple):
    name: str
    image: np.ndarray
    mask: np.ndarray


def _moved(kernel: Kernel, target, drawn, share: float) -> Kernel:
    if len(target) < 2 or len(drawn) < 2:
        return kernel
    values = np.array(kernel.values)
    place = np.empty(len(values))
    place[np.argsort(values, kind="stable")] = (np.arange(len(values)) + 0.5) / len(values)
    moved = values + share * (np.quantile(target, place) - np.quantile(drawn, place))
    return replace(kernel, values=tuple(moved.clip(kernel.low, kernel.high)))


def grow_pool(
    records: Iterable,
    n_textures: int,
    *,
    shape: tuple[int, int] = (128, 128),
    n_seeds: int = 100,
    patch_px: int = PATCH_PX,
    max_patches: int = MAX_PATCHES,
    k: int = 5,
    seed: int,
) -> np.ndarray:
    """Grow a pool of textures from tiles without cracks, as many of each group (specimen) as of any other.

    A group has its own dictionary: specimens differ in grey, and patches of several do not make one texture.

    Parameters
    ----------
    records : iterable of Record
        Tiles without cracks.
    n_textures, shape, n_seeds, patch_px, max_patches, k, seed
        As for `learn`.

    Returns
    -------
    numpy.ndarray
        (n_textures, H, W) uint8.

    Raises
    ------
    ValueError
        As `split_cells`, naming the group.
    """
    groups: dict[str, list] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    pools = []
    for i, (group, members) in enumerate(sorted(groups.items())):
        n = len(range(i, n_textures, len(groups)))
        if n == 0:
            continue
        try:
            seeds, rest = split_cells(members, -(-n_seeds // len(groups)), stream(seed, "texture seeds", group))
        except ValueError as error:
            raise ValueError(f"group {group!r}: {error}") from error
        known = dictionary(rest, patch_px=patch_px, max_patches=max_patches, rng=stream(seed, "dictionary", group))
        pools.append(texture_pool(seeds, known, n, shape=shape, k=k, seed=stream_seed(seed, "textures", group)))
    return np.concatenate(pools)


def split_cells(records: Iterable, n_seeds: int, rng: np.random.Generator, *, cell_px: int = 32):
    """Cut tiles into cells that share no pixel, and draw texture seeds from them; the rest is for the dictionary.

    Tiles that overlap by a multiple of `cell_px` have cells in common, which count once.

    Parameters
    ----------
    records : iterable of Record
        Tiles of any size; those smaller than a cell give none.
    n_seeds : int
        Seeds wanted; at most half of the cells are taken.
    rng : numpy.random.Generator
        Draws the seeds.
    cell_px : int
        Side of a cell and of a seed.

    Returns
    -------
    seeds, rest : list of (cell_px, cell_px) uint8

    Raises
    ------
    ValueError
        If there are fewer than two cells.
    """
    cells = {}
    for record in records:
        height, width = record.image.shape
        for y in range(0, height - cell_px + 1, cell_px):
            for x in range(0, width - cell_px + 1, cell_px):
                cell = np.ascontiguousarray(record.image[y : y + cell_px, x : x + cell_px])
                cells.setdefault(cell.tobytes(), cell)
    if len(cells) < 2:
        raise ValueError(f"{len(cells)} cells of {cell_px} px without a crack; at least a seed and a rest are needed")
    drawn = [list(cells.values())[i] for i in rng.permutation(len(cells))]
    n = min(n_seeds, len(drawn) // 2)
    return drawn[:n], drawn[n:]
