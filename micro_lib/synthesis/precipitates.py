"""Micrographs of a nickel superalloy: coarse gamma prime, and fine gamma prime in the matrix between.

A row of the table gives the geometry (coarse particles, then fine ones), the look and the simulated measurement, which
never touches mask or labels. Everything random comes from streams named after the part and keyed by the row's seed, so
a changed look leaves the geometry as it was. Ranges were chosen by eye; no material is modelled.
"""

from collections.abc import Mapping

import cv2
import numpy as np
from scipy import ndimage

from micro_lib.core.seeds import stream
from micro_lib.synthesis import imaging, presets
from micro_lib.synthesis.distributions import Choice, Conditional, Integers, between
from micro_lib.synthesis.fields import smooth_field
from micro_lib.synthesis.grains import add_artefacts
from micro_lib.synthesis.limits import AMOUNT, POSITIVE, SHARE, SIDE_PX, SIGNED, check_row, divided
from micro_lib.synthesis.scenario import Micrograph, Space, plain_row
from micro_lib.synthesis.tessellation import tessellate

MATRIX, SECONDARY, TERTIARY = range(3)
VIEWS = ("0d", "180d")
_TRIES = 40  # places looked at for a fine particle before it is given up
_GAP_PX = 2.5  # between fine particles: drawn on pixels, they touch not even by corners
_CELLS = ("lloyd_steps", "size_spread", "elongation", "elongation_deg", "bend")
_ARTEFACTS = ("pits_per_1e4px", "pit_radius_px", "fine_pits_per_1e4px", "scratches_per_1e4px", "stripe_deg")
_ARTEFACTS += ("stain_depth",)

# name: (unit, distribution or constant, limits, meaning); those of the grain generator keep their unit and meaning
_TABLE = {
    "view": (
        "",
        Choice(dict.fromkeys(VIEWS, 1)),
        frozenset(VIEWS),
        "from which side the detector looks; one gives brighter pictures",
    ),
    "height_px": ("px", 256, SIDE_PX, "height of the image"),
    "width_px": ("px", 256, SIDE_PX, "width of the image"),
    "pixel_size_um": ("um", 0.01, POSITIVE, "edge of a pixel"),
    # coarse particles
    "cell_px": ("px", between(65, 95), (4, 1e4), "diameter of a mean coarse particle with its share of the matrix"),
    "merged_share": ("1", between(0.1, 0.3), SHARE, "share of the coarse particles grown together with a neighbour"),
    "empty_share": ("1", between(0.15, 0.35), SHARE, "share of the cells without a coarse particle"),
    "channel_px": ("px", between(7, 12), POSITIVE, "width of a mean channel between coarse particles"),
    "channel_spread": ("1", between(0.2, 0.5), AMOUNT, "spread of the log of that width between particles"),
    "corner_px": ("px", between(10, 20), POSITIVE, "radius of the corners of coarse particles"),
    "waviness_px": ("px", between(0.5, 2), AMOUNT, "standard deviation of the outline of coarse particles"),
    "notches": ("1", between(0.1, 0.5), AMOUNT, "mean number of narrow notches of a coarse particle"),
    # fine particles
    "tertiary_fraction": (
        "1",
        between(0.015, 0.035),
        SHARE,
        "share of the area that fine particles take, where there is room",
    ),
    "tertiary_px": ("px", between(6, 9), (0.5, 1e4), "median diameter of fine particles"),
    "tertiary_spread": ("1", between(0.2, 0.4), AMOUNT, "spread of the log of that diameter"),
    "depleted_px": ("px", between(5, 10), AMOUNT, "width of the zone without fine particles around coarse ones"),
    "crowding": (
        "1",
        between(0.5, 2),
        AMOUNT,
        "how unevenly fine particles are scattered: spread of the log of their density",
    ),
    # look; brightness from 0 black to 1 white
    "matrix_grey": (
        "1",
        Conditional("view", {"0d": between(0.45, 0.6), "180d": between(0.68, 0.74)}),
        SHARE,
        "brightness of the matrix",
    ),
    "secondary_contrast": (
        "1",
        between(-0.065, -0.045),
        SIGNED,
        "brightness of coarse particles less that of the matrix",
    ),
    "tertiary_contrast": ("1", between(-0.1, -0.07), SIGNED, "brightness of fine particles less that of the matrix"),
    "halo": ("1", between(0.02, 0.06), AMOUNT, "how much brighter the matrix is at a coarse particle"),
    "halo_px": ("px", between(4, 9), POSITIVE, "reach of that brightening"),
    "rim": ("1", between(0.0, 0.03), AMOUNT, "how much darker a coarse particle is at its outline"),
    "rim_px": ("px", between(3, 8), POSITIVE, "reach of that darkening"),
    "clouds": ("1", between(0.003, 0.01), AMOUNT, "standard deviation of slow changes of brightness"),
    "grain": ("1", between(0.005, 0.012), AMOUNT, "standard deviation of fine changes of brightness"),
}
_OWN, LIMITS = divided(_TABLE)
_SHARED = (*_CELLS, *_ARTEFACTS, *imaging.MEASUREMENT)  # with the grain generator
LIMITS |= {name: presets.LIMITS[name] for name in _SHARED}
_GIVEN = {
    "lloyd_steps": Integers(0, 2),
    "size_spread": between(0.0, 0.3),
    "elongation": between(1.0, 1.3),
    "elongation_deg": between(0, 180),
    "bend": between(0.0, 0.08),
    "scratches_per_1e4px": between(0.0, 0.05),
    "pits_per_1e4px": between(0.0, 0.05),
    "pit_radius_px": 4.0,
    "gradient": between(0.0, 0.1),
    "blur_sigma_px": between(0.7, 1.1),
    "detector_noise": between(0.01, 0.018),
}


def scenario() -> Space:
    """Return the space of superalloy micrographs, for `render`."""
    entries = dict(_OWN)
    for name in _SHARED:
        unit, off, doc = presets.PARAMETERS[name]
        entries[name] = (unit, _GIVEN.get(name, off), doc)
    return Space.of(entries)


def render(row: Mapping) -> Micrograph:
    """Return the micrograph of one row of `scenario`.

    Parameters
    ----------
    row : mapping with the columns of ``scenario()`` and `seed`

    Returns
    -------
    Micrograph
        image (H, W) uint8 or uint16; mask (H, W) uint8, 0 matrix, 1 secondary (coarse), 2 tertiary (fine) gamma prime;
        labels (H, W) int32, 0 in the matrix, coarse particles first, then fine ones; pixel size in um.

    Raises
    ------
    ValueError
        Naming the parameter that is missing or out of range, see `LIMITS`.
    """
    p = plain_row(row)
    check_row(p, LIMITS)
    shape = int(p["height_px"]), int(p["width_px"])
    rng = {part: stream(int(p["seed"]), part) for part in ("coarse", "fine", "surface", "artefacts", "imaging")}
    labels = coarse_particles(p, shape, rng["coarse"])
    mask = (labels > 0).astype(np.uint8)
    discs = fine_particles(labels, p, rng["fine"])
    first = int(labels.max()) + 1
    for i, disc in enumerate(discs):
        draw_disc(labels, disc, first + i)
    mask[labels >= first] = TERTIARY
    surface = particle_surface(mask, p, rng["surface"])
    surface = add_artefacts(surface, {**p, "grain_diameter_px": p["cell_px"]}, rng["artefacts"])
    return Micrograph(imaging.measure(surface, p, rng["imaging"]), mask, labels, float(p["pixel_size_um"]))


# ---------------------------------------------------------------------------------------------- coarse particles


def coarse_particles(p: Mapping, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Ids (H, W) int32 of coarse particles, 0 between them: cells drawn in by half a channel and rounded off.

    Parameters
    ----------
    p : mapping
        A row with the columns of `scenario`.
    shape : (int, int)
        H and W in px.
    rng : numpy.random.Generator
        Draws.
    """
    grains = {**p, "grain_diameter_px": p["cell_px"], "fine_fraction": 0.0, "fine_ratio": 1.0}
    cells = _merged(tessellate(grains, shape, rng).labels, p["merged_share"], rng)
    count = cells.max() + 1
    inset = p["channel_px"] / 2 * np.exp(p["channel_spread"] * rng.standard_normal(count))
    inset[rng.random(count) < p["empty_share"]] = np.inf
    depth = _inside_px(cells) - inset.astype(np.float32)[cells]  # above 0 in a particle
    depth += np.float32(p["waviness_px"]) * smooth_field(shape, p["corner_px"], rng)
    deepest = ndimage.maximum(depth, cells, np.arange(count))
    kept = (deepest >= p["channel_px"] / 2)[cells]  # those narrower than a channel would have dissolved
    corner = np.minimum(p["corner_px"], deepest / 2).astype(np.float32)[cells]
    # An opening by a disc rounds what is convex: erode, then dilate the core again.
    particles = (_distance_px(kept & (depth > corner)) <= corner) & kept & (depth > 0)
    particles &= ~_notches(cells, particles, p, rng)
    smooth = cv2.GaussianBlur(particles.astype(np.float32), (0, 0), 1.2) > 0.5
    return cv2.connectedComponents(smooth.astype(np.uint8), connectivity=4)[1]


def _merged(cells: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Cells with a share of them given the id of a neighbour."""
    sides = np.concatenate([np.stack([a[1:], a[:-1]], -1).reshape(-1, 2) for a in (cells, cells.T)])
    pairs = np.unique(sides[sides[:, 0] != sides[:, 1]], axis=0)
    new = np.arange(cells.max() + 1)
    for one, other in rng.permutation(pairs)[: round(share * len(new) / 2)]:
        new[new == new[one]] = new[other]
    return new[cells]


def _inside_px(cells: np.ndarray) -> np.ndarray:
    """Distance (H, W) in px of the middle of a pixel from the side where its cell ends."""
    border = np.zeros(cells.shape, bool)
    for line, edge in ((cells, border), (cells.T, border.T)):
        change = line[1:] != line[:-1]
        edge[1:] |= change
        edge[:-1] |= change
    return _distance_px(border) + np.float32(0.5)


def _distance_px(area: np.ndarray) -> np.ndarray:
    """Distance (H, W) float32 from the nearest pixel of an area, very large where there is none."""
    return cv2.distanceTransform((~area).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _notches(cells: np.ndarray, particles: np.ndarray, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Where (H, W) narrow channels lead from the outline of a particle towards its middle."""
    count = cells.max() + 1
    area = np.bincount(cells[particles], minlength=count)
    drawn = np.zeros(cells.shape, np.int32)
    for cell in np.repeat(np.arange(count), rng.poisson(p["notches"], count) * (area > p["cell_px"] ** 2 / 2)):
        y, x = (axis.mean() for axis in np.nonzero((cells == cell) & particles))
        angle, radius = rng.uniform(0, 2 * np.pi), np.sqrt(area[cell] / np.pi)
        turn = angle + rng.normal(0, 0.2)
        inner = (x + rng.uniform(0.2, 0.6) * radius * np.cos(turn), y + rng.uniform(0.2, 0.6) * radius * np.sin(turn))
        outer = (x + 1.6 * radius * np.cos(angle), y + 1.6 * radius * np.sin(angle))
        ends = [tuple(round(16 * float(v)) for v in point) for point in (inner, outer)]
        cv2.line(drawn, *ends, int(cell), max(2, round(0.7 * p["channel_px"])), cv2.LINE_8, 4)
    return (drawn == cells) & (drawn > 0)


# ------------------------------------------------------------------------------------------------ fine particles


def fine_particles(labels: np.ndarray, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Discs (N, 3) of x, y and radius in px of fine particles between the coarse ones.

    Parameters
    ----------
    labels : (H, W) int32
        Coarse particles, above 0, from `coarse_particles`.
    p, rng
        As for `coarse_particles`.
    """
    room = _distance_px(labels > 0) - np.float32(p["depleted_px"])
    density = np.exp(p["crowding"] * smooth_field(labels.shape, 0.5 * p["cell_px"], rng))
    return scatter_discs(room, density, p["tertiary_fraction"], p["tertiary_px"], p["tertiary_spread"], rng)


def scatter_discs(
    room_px: np.ndarray,
    density: np.ndarray,
    fraction: float,
    diameter_px: float,
    spread: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return discs that do not touch, placed one after the other where there is room, the largest first.

    Parameters
    ----------
    room_px : (H, W) float
        Largest radius of a disc about each pixel in px; below 0 where none may be.
    density : (H, W) float
        How likely a disc is there, above 0, up to a factor.
    fraction : float
        Share of the image that the discs should take, 0 to 1; fewer are placed where there is no room for more.
    diameter_px : float
        Median diameter in px; the distribution is log-normal.
    spread : float
        Standard deviation of the log of the diameter.
    rng : numpy.random.Generator
        Draws sizes and places.

    Returns
    -------
    (N, 3) float
        x, y and radius in px; centres lie on pixels.
    """
    allowed = np.flatnonzero(room_px > 0)
    expected = fraction * room_px.size / (np.pi / 4 * diameter_px**2)
    radii = diameter_px / 2 * np.exp(spread * rng.standard_normal(int(3 * expected) + 20))
    area = np.pi * radii**2
    radii = radii[np.cumsum(area) - area < fraction * room_px.size]
    weights = np.cumsum(density.ravel()[allowed], dtype=float)
    discs = np.empty((0, 3))
    for radius in np.sort(radii)[::-1] if len(allowed) else ():
        at = allowed[np.searchsorted(weights, rng.random(_TRIES) * weights[-1])]
        y, x = np.unravel_index(at, room_px.shape)
        gaps = np.hypot(discs[:, 0] - x[:, None], discs[:, 1] - y[:, None]) - discs[:, 2] - radius  # (_TRIES, N)
        fits = np.flatnonzero((room_px[y, x] >= radius) & (gaps > _GAP_PX).all(1))
        if len(fits):
            discs = np.concatenate([discs, [[x[fits[0]], y[fits[0]], radius]]])
    return discs


def draw_disc(canvas: np.ndarray, disc: np.ndarray, value: float) -> None:
    """Fill a disc with a value, in place.

    Parameters
    ----------
    canvas : (H, W) int32 or uint8
        Any array that OpenCV draws on.
    disc : (3,) float
        x, y and radius in px, to 1/16 px.
    value : float
        What its pixels become.
    """
    x, y, radius = (round(16 * float(v)) for v in disc)
    cv2.circle(canvas, (x, y), radius, value, -1, cv2.LINE_8, 4)


# ----------------------------------------------------------------------------------------------------------- look


def particle_surface(mask: np.ndarray, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Brightness (H, W) float32, 0 black to 1 white, of a mask of matrix and both kinds of particles.

    Parameters
    ----------
    mask : (H, W) uint8
        `MATRIX`, `SECONDARY` and `TERTIARY`.
    p, rng
        As for `coarse_particles`.
    """
    coarse = mask == SECONDARY
    levels = p["matrix_grey"] + np.array([0.0, p["secondary_contrast"], p["tertiary_contrast"]])
    surface = levels.astype(np.float32)[mask]
    surface += np.float32(p["halo"]) * np.exp(-_distance_px(coarse) / np.float32(p["halo_px"])) * (mask == MATRIX)
    surface -= np.float32(p["rim"]) * np.exp(-_distance_px(~coarse) / np.float32(p["rim_px"])) * coarse
    surface += np.float32(p["clouds"]) * smooth_field(mask.shape, p["cell_px"], rng)
    return surface + np.float32(p["grain"]) * smooth_field(mask.shape, 2.0, rng)
