"""Grain micrographs: from one row of parameters to image, boundary mask and grain labels (Trampert et al. 2021, 3.2.1).

As in the paper, partial models (geometry, grain appearance, boundaries) come first, then the simulated measurement.
That never touches mask or labels; its blur and noise come in the order of a microscope, but for the preset `trampert`,
see `imaging`. Everything random comes from streams named after the partial model and keyed by the row's seed, so a
changed appearance parameter leaves the geometry as it was.

DEVIATION: the texture is drawn once for the whole picture, not for each grain.
"""

from collections.abc import Mapping

import cv2
import numpy as np

from micro_lib.core.seeds import stream
from micro_lib.synthesis import imaging, presets
from micro_lib.synthesis.fields import perlin, smooth_field
from micro_lib.synthesis.scenario import Micrograph, plain_row
from micro_lib.synthesis.tessellation import Geometry, tessellate


def render(row: Mapping) -> Micrograph:
    """The micrograph of one row of a grain scenario.

    Parameters
    ----------
    row : mapping with the columns of `preset(...)` and `seed`

    Returns
    -------
    Micrograph
        image (H, W) uint8 or uint16, mask (H, W) uint8 (0 grain, 1 boundary), labels (H, W) int32 from 1, pixel size
        in um.

    Raises
    ------
    ValueError
        Naming the parameter that is missing or out of range, see `presets.LIMITS`.
    """
    p = plain_row(row)
    presets.check(p)
    shape = int(p["height_px"]), int(p["width_px"])
    rng = {part: stream(int(p["seed"]), part) for part in ("geometry", "grains", "boundaries", "artefacts", "imaging")}
    geometry = tessellate(p, shape, rng["geometry"])
    surface = grain_surface(geometry, p, rng["grains"])
    surface = etch_boundaries(surface, geometry, p, rng["boundaries"])
    surface = add_artefacts(surface, p, rng["artefacts"])
    image = imaging.measure(surface, p, rng["imaging"])
    return Micrograph(image, boundary_mask(geometry, p), geometry.labels, float(p["pixel_size_um"]))


def boundary_mask(geometry: Geometry, p: Mapping) -> np.ndarray:
    """Boundary mask (H, W) uint8, 1 within half the mask width of a centre line.

    `mask_width_px` is how wide annotators draw; 0 means as wide as the boundary itself (the paper's way).

    Distances are counted from the pixels of a line a pixel wide, so masks are narrower than asked for: over all
    directions 2, 4, 6 and 10 px give 0.9, 3.4, 5.2 and 9.5 px on average, upright lines odd numbers of pixels (1, 3, 5
    and 9). A plain groove of these widths covers 1.8, 4.1, 6.2 and 10.2 px of the image.

    Parameters
    ----------
    geometry : Geometry
        The grains.
    p : mapping
        A row of which `mask_width_px` and `boundary_width_px` are looked at.
    """
    width = p["mask_width_px"] or p["boundary_width_px"]
    return (geometry.edge_px <= (width - 1) / 2 + 0.25).astype(np.uint8)


# ---------------------------------------------------------------------------------------------- inside the grains


def grain_surface(geometry: Geometry, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Brightness (H, W) float32 of the grains before any boundary is etched; 0 black, 1 white.

    Parameters
    ----------
    geometry : Geometry
        The grains.
    p : mapping
        A row with the columns of `presets.PARAMETERS`.
    rng : numpy.random.Generator
        Draws.
    """
    labels, shape = geometry.labels, geometry.labels.shape
    count = labels.max() + 1
    grey = p["grey_mean"] + p["grey_spread"] * rng.standard_normal(count).clip(-2.5, 2.5)
    surface = grey.astype(np.float32)[labels]
    if p["texture_amplitude"]:
        wavelength = p["texture_wavelength"] * p["grain_diameter_px"]
        surface += p["texture_amplitude"] * perlin(shape, wavelength, octaves=2, rng=rng)
    if p["roughness"]:
        each = (p["roughness"] * rng.exponential(1, count)).clip(0, 0.35).astype(np.float32)
        surface -= each[labels] * np.abs(_speckle(shape, 1.1, rng))
    if p["stripe_depth"]:
        surface -= _stripes(labels, p, rng)
    if p["twin_fraction"]:
        surface += _twins(labels, p, rng)
    if p["relief"]:
        surface += _relief(geometry, p, rng)
    return surface


def _speckle(shape: tuple[int, int], sigma_px: float, rng: np.random.Generator) -> np.ndarray:
    """White noise blurred by `sigma_px`, standard deviation 1."""
    # Blurred bytes are as good as blurred normal numbers and ten times cheaper.
    noise = np.frombuffer(rng.bytes(shape[0] * shape[1]), np.uint8).reshape(shape).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), sigma_px)
    return (blurred - np.float32(127.5)) * np.float32(2 * np.sqrt(np.pi) * sigma_px / np.sqrt((256**2 - 1) / 12))


def _grain_axes(labels: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (H, W) in px along and across the direction `angle` (N + 1,) of each pixel's grain."""
    y, x = np.indices(labels.shape, dtype=np.float32)
    c, s = np.cos(angle).astype(np.float32)[labels], np.sin(angle).astype(np.float32)[labels]
    return x * c + y * s, y * c - x * s


def _stripes(labels: np.ndarray, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Depth (H, W) of the broken parallel lines that polishing and slip leave inside grains.

    Each grain has its direction, near the common polishing direction, and its own contrast; half of them stay smooth.
    """
    count = labels.max() + 1
    angle = np.deg2rad(p["stripe_deg"]) + rng.normal(0, p["stripe_scatter"], count)
    depth = p["stripe_depth"] * np.clip(rng.normal(0, 1, count), 0, 2)
    along, across = _grain_axes(labels, angle)
    offset = rng.uniform(0, 512, count).astype(np.float32)
    across += offset[labels]
    sheet = smooth_field((1024, 128), 3.0, rng)  # long features: sampled four times finer across than along
    lines = cv2.remap(sheet, along / 12 % 127, across / p["stripe_spacing_px"] * 14 % 1023, cv2.INTER_LINEAR)
    dotted = 0.6 + 0.8 * np.abs(_speckle(labels.shape, 1.3, rng))
    return depth.astype(np.float32)[labels] * np.clip(lines - 0.8, 0, 1) * dotted


def _twins(labels: np.ndarray, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Brightness change (H, W) of twins: straight bands across some grains, of another grey or edged by dark lines.

    A third of the twinned grains carry a whole set of parallel bands.
    """
    count = labels.max() + 1
    area = np.bincount(labels.ravel(), minlength=count).clip(1)
    y, x = np.indices(labels.shape, dtype=np.float32)
    centre = [np.bincount(labels.ravel(), v.ravel(), count) / area for v in (x, y)]
    angle, diameter = rng.uniform(0, np.pi, count), np.sqrt(4 / np.pi * area)
    middle = centre[1] * np.cos(angle) - centre[0] * np.sin(angle) + rng.uniform(-0.3, 0.3, count) * diameter
    half = diameter * rng.uniform(0.03, 0.15, count)
    period = np.where(rng.random(count) < 1 / 3, half * rng.uniform(3, 6, count), 1e4)
    twinned = rng.random(count) < p["twin_fraction"]
    step = np.where(twinned, rng.normal(0, p["twin_contrast"], count), 0)
    line = np.where(twinned & (rng.random(count) < 0.6), rng.uniform(0.05, p["twin_line"] + 0.05, count), 0)
    width = rng.uniform(0.7, 2.2, count)
    of_grains = (middle, half, period, step, line, width)
    middle, half, period, step, line, width = (values.astype(np.float32)[labels] for values in of_grains)
    _, across = _grain_axes(labels, angle)
    gap = np.abs((across - middle + period / 2) % period - period / 2) - half  # < 0 inside a band
    return step * (gap < 0) - line * np.clip(width + 0.5 - np.abs(gap), 0, 1)


def _relief(geometry: Geometry, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Shading (H, W) of grains that stand proud: slope towards the light of a surface rounded off at the boundaries."""
    height = cv2.GaussianBlur(np.minimum(geometry.edge_px, 8), (0, 0), 2.5)
    light = rng.uniform(0, 2 * np.pi)
    across, down = (cv2.Sobel(height, -1, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    return p["relief"] * (np.float32(np.cos(light)) * across + np.float32(np.sin(light)) * down)


# ---------------------------------------------------------------------------------------------- the boundaries


def etch_boundaries(surface: np.ndarray, geometry: Geometry, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Surface (H, W) with its boundaries: a plain line of given width and darkness, or an uneven etched groove.

    Parameters
    ----------
    surface : (H, W) float32
        From `grain_surface`; it stays as it is.
    geometry, p, rng
        As for `grain_surface`.
    """
    width = _groove_width(geometry, p, rng)
    softness = 0.35 + p["groove_softness_px"]
    etched = np.clip(width, 0, 1)  # below a pixel a groove fades with its rim, and where it has no width there is none
    cover = etched * np.clip((width / 2 - geometry.edge_px) / softness + 0.5, 0, 1)
    if p["pore_fraction"]:
        cover = np.maximum(cover, _pores(geometry, p, rng))
    floor = _groove_floor(surface.shape, p, rng)
    if p["rim_depth"]:
        reach = np.clip(1 - (geometry.edge_px - width / 2) / p["rim_px"], 0, 1)
        surface = surface - p["rim_depth"] * etched * reach**2 * (1 + 0.5 * _speckle(surface.shape, 1.2, rng))
    return surface + cover * (floor - surface)


def _groove_width(geometry: Geometry, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Full width (H, W) in px of the groove a pixel would belong to; it varies along the boundary."""
    shape = geometry.labels.shape
    width = np.full(shape, p["boundary_width_px"], np.float32)
    scale = 0.5 * p["grain_diameter_px"]
    if p["groove_spread"]:
        width *= np.exp(p["groove_spread"] * smooth_field(shape, scale, rng).clip(-2, 2))
    if p["junction_widening"]:
        near = np.clip(1 - geometry.junction_px() / (0.35 * p["grain_diameter_px"]), 0, 1)
        width *= 1 + p["junction_widening"] * near
    if p["groove_gap"]:
        open_ = smooth_field(shape, 0.8 * scale, rng)
        width *= np.clip((open_ - np.quantile(open_[::8, ::8], p["groove_gap"])) * 4 + 0.5, 0.0, 1)
    if p["groove_ragged_px"]:
        width += p["groove_ragged_px"] * (_speckle(shape, 1.5, rng) + smooth_field(shape, 6.0, rng)) * (width > 1)
    return width


def _groove_floor(shape: tuple[int, int], p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Brightness (H, W) of the groove's bottom: dark, granular where the etchant left debris."""
    floor = np.full(shape, p["boundary_grey"], np.float32)
    if p["debris"]:
        floor += p["debris"] * np.maximum(_speckle(shape, 1.0, rng) + 0.6 * smooth_field(shape, 5.0, rng) - 0.3, -0.4)
    if p["fragments"]:
        chips = smooth_field(shape, 9.0, rng)
        floor += np.clip((chips - np.quantile(chips[::8, ::8], 1 - p["fragments"])) * 6, 0, 1) * rng.uniform(0.3, 0.55)
    return floor


def _pores(geometry: Geometry, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Share (H, W), 0 to 1, of pixels in cells that are pores (or fell out): small cells first."""
    labels = geometry.labels
    area = np.bincount(labels.ravel(), minlength=labels.max() + 1).astype(float)
    small = area < 0.5 * np.pi / 4 * p["grain_diameter_px"] ** 2
    dark = small & (rng.random(len(area)) < p["pore_fraction"])
    return cv2.GaussianBlur(dark.astype(np.float32)[labels], (0, 0), 1.0)


# ---------------------------------------------------------------------------------------------- on top of it all


def add_artefacts(surface: np.ndarray, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Surface (H, W) with pits, fine pits, inclusions, scratches and stains, none of which is a boundary.

    Parameters
    ----------
    surface : (H, W) float32
        0 black to 1 white; it stays as it is.
    p : mapping
        A row of which `pits_per_1e4px`, `pit_radius_px`, `fine_pits_per_1e4px`, `scratches_per_1e4px`, `stripe_deg`,
        `stain_depth` and `grain_diameter_px` are looked at.
    rng : numpy.random.Generator
        Draws.
    """
    shape, area = surface.shape, surface.size / 1e4
    if p["pits_per_1e4px"]:
        surface = _pits(surface, rng.poisson(p["pits_per_1e4px"] * area), p, rng)
    if p["fine_pits_per_1e4px"]:
        surface = surface - _fine_pits(shape, rng.poisson(p["fine_pits_per_1e4px"] * area), p, rng)
    if p["scratches_per_1e4px"]:
        surface = surface + _scratches(shape, rng.poisson(p["scratches_per_1e4px"] * area), p, rng)
    if p["stain_depth"]:
        surface = surface - p["stain_depth"] * np.maximum(smooth_field(shape, 0.3 * min(shape), rng), 0)
    return surface


def _pits(surface: np.ndarray, count: int, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Surface with `count` round pits and inclusions: dark discs, some with a grey or bright heart."""
    depth, heart = np.zeros(surface.shape, np.float32), np.zeros(surface.shape, np.float32)
    for _ in range(count):
        centre = tuple(int(v * 16) for v in rng.uniform(0, surface.shape[::-1]))
        radius, stretch = rng.uniform(0.3 * p["pit_radius_px"], p["pit_radius_px"]), rng.uniform(0.7, 1.0)
        axes = (int(radius * 16), int(radius * stretch * 16))
        cv2.ellipse(depth, centre, axes, rng.uniform(0, 180), 0, 360, rng.uniform(0.15, 0.6), -1, cv2.LINE_8, 4)
        if rng.random() < 0.4:
            cv2.circle(heart, centre, int(radius * 8), rng.uniform(0.1, 0.4), -1, cv2.LINE_8, 4)
    return surface - cv2.GaussianBlur(depth - heart * (depth > 0), (0, 0), 0.9)


def _fine_pits(shape: tuple[int, int], count: int, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Depth (H, W) of `count` pits of one or two pixels, crowded in patches as etching leaves them."""
    crowd = smooth_field(shape, 0.7 * p["grain_diameter_px"], rng)
    y, x = rng.integers(0, shape[0], 4 * count), rng.integers(0, shape[1], 4 * count)
    chosen = crowd[y, x] > rng.normal(0.7, 0.5, 4 * count)
    depth = np.zeros(shape, np.float32)
    depth[y[chosen], x[chosen]] = rng.uniform(0.5, 3.0, chosen.sum())
    return cv2.GaussianBlur(depth, (0, 0), 0.8)


def _scratches(shape: tuple[int, int], count: int, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Brightness change (H, W) of `count` thin straight scratches, most of them along the polishing direction."""
    change = np.zeros(shape, np.float32)
    for _ in range(count):
        angle = np.deg2rad(p["stripe_deg"]) + rng.normal(0, 0.15) if rng.random() < 0.6 else rng.uniform(0, np.pi)
        half = 0.5 * rng.exponential(1.5 * p["grain_diameter_px"]) * np.array([np.cos(angle), np.sin(angle)])
        middle = rng.uniform(0, shape[::-1])
        ends = np.round(np.stack([middle - half, middle + half]) * 16).astype(int)
        depth = rng.uniform(0.05, 0.3) * (1 if rng.random() < 0.2 else -1)
        cv2.line(change, ends[0].tolist(), ends[1].tolist(), depth, int(rng.integers(1, 3)), cv2.LINE_8, 4)
    return cv2.GaussianBlur(change, (0, 0), 0.6)
