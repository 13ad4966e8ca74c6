"""Lath bainite in ferrite under several preparations: one structure, labelled exactly, that looks different each time.

Goetz et al. 2022 segment lath bainite in micrographs of a complex-phase steel, which are not public. Here their four
sets are imitated: the electrolytically etched source, two nital etches in the scanning electron microscope (T1, T2) and
a nital etch in the light microscope (T3), with the pixel sizes, counts and phase fractions of their Table 1 and what
section 2.2 says of the etching. Everything else about the structure is ours.

How far apart they lie was set before anything was adapted to T1, T2 or T3, by single trainings of a light U-Net (lite0,
tiles of 128 px at 0.111 um a pixel, 500 steps on the source of fold 0) that had a mean IoU of 0.95 on the source, 0.94
on T1, 0.60 on T2 and 0.58 on T3, and with target labels 0.91 on T2 and 0.85 on T3. The study repeats them over folds
and augmentations.

A row holds the structure (fields, cells, laths, islands), which alone decides the mask, and the preparation, which
alone decides how it looks.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import qmc

from micro_lib.core.checks import one_of
from micro_lib.core.labels import ClassMap
from micro_lib.core.seeds import stream, stream_seed
from micro_lib.synthesis import imaging, presets
from micro_lib.synthesis.bainite_drawing import (
    add_artefacts,
    draw_cells,
    draw_laths,
    etch_boundaries,
    etch_cells,
    leave_standing,
    scatter_islands,
)
from micro_lib.synthesis.distributions import Integers, between
from micro_lib.synthesis.limits import AMOUNT, ANGLE_DEG, POSITIVE, SHARE, SIDE_PX, SIGNED, check_row, divided
from micro_lib.synthesis.scenario import Micrograph, Space, plain_row

LATH_BAINITE = ClassMap("lath_bainite", ("ferrite", "lath bainite"), {0: 0, 255: 1}, ("#56b4e9", "#d55e00"))
PARTS = ("train", "test")
# Goetz et al. 2022, Table 1 and section 2.1; their text says 27 source images where 112 tiles make 28.
TILES = {
    "source": (112, 28),
    "T1": (80, 20),
    "T2": (48, 12),
    "T3": (234, 200),
    "development": (80, 20),
    "light development": (80, 20),
}
TILES_PER_IMAGE = 4
# Of the training part by Table 1, of the test part by Table 7; the source's test fold is drawn from the same images.
LATH_FRACTION = {
    "source": (0.53, 0.53),
    "T1": (0.54, 0.436),
    "T2": (0.29, 0.467),
    "T3": (0.53, 0.446),
    "development": (0.53, 0.45),
    "light development": (0.53, 0.45),
}
LATH_FRACTION_SPREAD = 0.15  # half the range between the images of a part; not published
LIGHT_PIXEL_SIZE_UM = {"T3": 0.1266, "light development": 0.11}  # of the light microscope
PIXEL_SIZE_UM = {"source": 0.0277, "T1": 0.0277, "T2": 0.0277, "development": 0.0277} | LIGHT_PIXEL_SIZE_UM
FIELD_UM = (1433 * 0.0277, 2048 * 0.0277)  # down, across


# name: (unit, value that switches the feature off, limits, meaning)
_STRUCTURE = {
    "height_px": ("px", 512, SIDE_PX, "height of the image"),
    "width_px": ("px", 512, SIDE_PX, "width of the image"),
    "pixel_size_um": ("um", 0.0277, POSITIVE, "edge of a pixel"),
    "lath_fraction": ("1", 0.53, SHARE, "share of the area that is lath bainite, met as closely as whole cells allow"),
    "cell_um": ("um", 5.0, POSITIVE, "diameter of the circle with the area of a mean ferrite grain or packet of laths"),
    "colony_um": ("um", 10.0, POSITIVE, "size of the regions of one phase"),
    "lloyd_steps": ("1", 1, (0, 1000), "centroidal relaxations of the cells' random seeds"),
    "size_spread": ("1", 0.0, AMOUNT, "spread of the log of the local cell diameter"),
    "elongation": ("1", 1.0, (1, 20), "length over width of a mean cell"),
    "elongation_deg": ("deg", 0.0, ANGLE_DEG, "direction of elongation from the x axis"),
    "bend": ("1", 0.0, SHARE, "displacement of a boundary segment's control points over its length"),
    "lath_um": ("um", 0.5, POSITIVE, "mean width of a lath"),
    "lath_spread": (
        "1",
        0.4,
        (0.01, 10),
        "spread of that width over its mean, > 0; a least width makes it 13 % less",
    ),
    "film_um": ("um", 1.5, POSITIVE, "mean length of a carbide film"),
    "film_share": ("1", 0.5, (0.001, 0.999), "share of the lath boundaries taken by films"),
    "beading": ("1", 0.0, AMOUNT, "spread of the log of a film's width along it"),
    "waviness_um": ("um", 0.0, AMOUNT, "standard deviation of a lath boundary's place"),
    "curvature_um": ("um", 0.0, AMOUNT, "how far laths bend over the size of a cell"),
    "crossing_um": ("um", 1.5, AMOUNT, "distance of the sub-grain boundaries across a lath"),
    "islands_per_100um2": (
        "1/100 um^2",
        0.0,
        AMOUNT,
        "islands of martensite-austenite and carbon-rich grains in ferrite",
    ),
    "island_um": ("um", 0.25, AMOUNT, "radius of a median island"),
    "island_spread": ("1", 0.5, AMOUNT, "spread of the log of that radius"),
    "island_at_boundary": ("1", 0.5, SHARE, "share of the islands that lie on a boundary"),
}
_PREPARATION = {
    "matrix_grey": ("1", 0.3, SHARE, "brightness of ferrite"),
    "grey_spread": ("1", 0.0, AMOUNT, "spread of brightness between cells"),
    "lath_step": ("1", 0.0, SIGNED, "brightness of the ferrite in packets over that of the grains"),
    "roughness": ("1", 0.0, AMOUNT, "standard deviation of the etched surface's brightness, different for each cell"),
    "roughness_um": ("um", 0.06, AMOUNT, "size of that roughness"),
    "facet_depth": ("1", 0.0, AMOUNT, "shading of the terraces etched into ferrite grains, different for each"),
    "facet_um": ("um", 0.4, POSITIVE, "distance of these terraces"),
    "relief": ("1", 0.0, AMOUNT, "shading of cells and films that stand proud"),
    "film_width_um": ("um", 0.07, AMOUNT, "width of the broadest films, where they have no beads"),
    "film_grey": ("1", 0.8, SHARE, "brightness of films"),
    "lost_share": ("1", 0.0, SHARE, "share of the lath boundaries whose films fell out and left grooves"),
    "groove_grey": ("1", 0.2, SHARE, "brightness of these grooves"),
    "halo": ("1", 0.0, AMOUNT, "brightness lost beside films"),
    "halo_um": ("um", 0.15, AMOUNT, "reach of that loss"),
    "subgrain_um": ("um", 0.04, AMOUNT, "width of sub-grain boundaries"),
    "subgrain_step": ("1", 0.0, SIGNED, "brightness of sub-grain boundaries over their surroundings"),
    "boundary_um": ("um", 0.08, AMOUNT, "width of grain boundaries"),
    "boundary_grey": ("1", 0.6, SHARE, "brightness of grain boundaries"),
    "packet_boundary": ("1", 1.0, AMOUNT, "contrast of boundaries between packets over that of grain boundaries"),
    "fading": ("1", 0.0, SHARE, "share of the boundaries that cannot be seen"),
    "island_grey": ("1", 0.5, SHARE, "brightness of islands"),
    "island_rim_grey": ("1", 0.8, SHARE, "brightness of their rims"),
    "island_rim_um": ("um", 0.06, AMOUNT, "width of their rims"),
    "residues_per_100um2": ("1/100 um^2", 0.0, AMOUNT, "specks the etchant left, in both phases"),
    "residue_um": ("um", 0.1, AMOUNT, "radius of a median speck"),
    "residue_grey": ("1", 0.9, SHARE, "brightness of specks"),
    "pits_per_100um2": ("1/100 um^2", 0.0, AMOUNT, "etch pits, in both phases"),
    "pit_um": ("um", 0.12, AMOUNT, "radius of a median pit"),
    "pit_grey": ("1", 0.1, SHARE, "brightness of pits"),
    "stain_depth": ("1", 0.0, AMOUNT, "depth of cloudy stains"),
    "blur_um": ("um", 0.0, AMOUNT, "width of the Gaussian blur"),
}
_MEASURED = [name for name in imaging.MEASUREMENT if name not in ("blur_sigma_px", "inverted")]
STRUCTURE, _STRUCTURE_LIMITS = divided(_STRUCTURE)
PREPARATION, _PREPARATION_LIMITS = divided(_PREPARATION)
PREPARATION |= {name: presets.PARAMETERS[name] for name in _MEASURED}
PARAMETERS = STRUCTURE | PREPARATION
LIMITS = _STRUCTURE_LIMITS | _PREPARATION_LIMITS | {name: presets.LIMITS[name] for name in _MEASURED}

STEEL = {
    "cell_um": between(5.0, 7.0),
    "colony_um": between(8.0, 13.0),
    "lloyd_steps": Integers(0, 2),
    "size_spread": between(0.15, 0.4),
    "elongation": between(1.0, 1.5),  # along the rolling direction, more so near the surface of the plate
    "bend": between(0.06, 0.13),
    "lath_um": between(0.32, 0.48),
    "lath_spread": between(0.45, 0.7),
    "film_um": between(0.7, 1.5),
    "film_share": between(0.4, 0.6),
    "beading": between(0.2, 0.35),
    "waviness_um": between(0.05, 0.09),
    "curvature_um": between(0.1, 0.45),
    "crossing_um": between(1.0, 2.0),
    "islands_per_100um2": between(25.0, 60.0),
    "island_um": between(0.09, 0.14),
    "island_spread": between(0.55, 0.75),
    "island_at_boundary": between(0.4, 0.7),
}
# Imaging conditions were the same within a set: what varies there is the structure and, a little, the etch.
SOURCE = {
    "matrix_grey": between(0.24, 0.28),
    "grey_spread": between(0.01, 0.025),
    "roughness": between(0.005, 0.012),
    "relief": between(0.08, 0.14),
    "film_width_um": between(0.08, 0.1),
    "film_grey": between(0.72, 0.8),
    "halo": between(0.02, 0.05),
    "boundary_um": between(0.07, 0.1),
    "boundary_grey": between(0.48, 0.58),
    "packet_boundary": between(0.5, 0.8),
    "fading": between(0.05, 0.15),
    "island_grey": between(0.42, 0.5),
    "island_rim_grey": between(0.7, 0.8),
    "subgrain_step": between(0.0, 0.02),
    "residues_per_100um2": between(0.0, 1.0),
    "residue_um": 0.06,
    "gradient": between(0.0, 0.05),
    "blur_um": 0.022,
    "shot_noise": between(0.03, 0.04),
    "detector_noise": 0.015,
    "scan_lines": 0.003,
}
T1 = SOURCE | {
    "matrix_grey": between(0.26, 0.31),
    "grey_spread": between(0.02, 0.04),
    "roughness": between(0.01, 0.018),
    "relief": between(0.14, 0.22),
    "film_width_um": between(0.09, 0.12),
    "subgrain_um": between(0.04, 0.06),
    "subgrain_step": between(0.14, 0.22),
    "boundary_grey": between(0.55, 0.65),
    "residues_per_100um2": between(2.0, 6.0),
    "residue_um": between(0.05, 0.09),
    "pits_per_100um2": between(1.0, 5.0),
    "stain_depth": between(0.02, 0.05),
}
T2 = SOURCE | {
    "matrix_grey": between(0.4, 0.46),
    "grey_spread": between(0.03, 0.05),
    "lath_step": between(-0.04, 0.0),
    "roughness": between(0.02, 0.04),
    "roughness_um": 0.12,
    "relief": between(0.25, 0.4),
    "film_width_um": between(0.17, 0.23),
    "film_grey": between(0.8, 0.9),
    "lost_share": between(0.3, 0.5),
    "facet_depth": between(0.02, 0.04),  # deeper ones pass for laths: at 0.1 a source model loses half its IoU
    "facet_um": between(0.35, 0.5),
    "halo": between(0.12, 0.2),
    "halo_um": between(0.12, 0.2),
    "subgrain_um": between(0.06, 0.09),
    "subgrain_step": between(0.05, 0.1),
    "boundary_um": between(0.14, 0.2),
    "boundary_grey": between(0.62, 0.75),
    "fading": between(0.35, 0.55),
    "island_grey": between(0.6, 0.7),
    "island_rim_grey": between(0.8, 0.9),
    "island_rim_um": 0.12,
    "residues_per_100um2": between(2.0, 8.0),
    "residue_um": between(0.06, 0.1),
    "pits_per_100um2": between(4.0, 12.0),
    "pit_grey": 0.15,
    "stain_depth": between(0.03, 0.08),
    "blur_um": 0.03,
    "shot_noise": between(0.035, 0.05),
}
T3 = {
    "matrix_grey": between(0.74, 0.8),
    "grey_spread": between(0.02, 0.045),
    "lath_step": between(-0.06, -0.02),
    "roughness": between(0.025, 0.045),
    "roughness_um": 0.25,
    "relief": between(0.1, 0.2),
    "film_width_um": between(0.14, 0.2),
    "film_grey": between(0.3, 0.4),
    "subgrain_um": 0.06,
    "subgrain_step": between(-0.15, -0.08),
    "boundary_um": between(0.2, 0.3),
    "boundary_grey": between(0.25, 0.35),
    "packet_boundary": between(0.6, 0.9),
    "fading": between(0.25, 0.45),
    "island_grey": between(0.45, 0.6),
    "island_rim_grey": between(0.25, 0.4),
    "island_rim_um": 0.14,
    "residues_per_100um2": between(0.0, 2.0),
    "residue_grey": 0.3,
    "pits_per_100um2": between(0.5, 3.0),
    "pit_grey": 0.2,
    "stain_depth": between(0.02, 0.05),
    "gradient": between(0.0, 0.1),
    "vignetting": between(0.05, 0.15),
    "blur_um": between(0.16, 0.2),
    "defocus": between(0.1, 0.4),
    "shot_noise": between(0.01, 0.015),
    "detector_noise": 0.008,
}
# Not published and not to be reported: what choices are made on. Polished, unetched, seen by backscattered electrons:
# grains differ in grey, films are dark, fine and noisy.
DEVELOPMENT = {
    "matrix_grey": between(0.48, 0.54),
    "grey_spread": between(0.06, 0.09),
    "roughness": between(0.005, 0.015),
    "roughness_um": 0.3,
    "film_width_um": between(0.09, 0.12),
    "film_grey": between(0.1, 0.2),
    "subgrain_um": 0.08,
    "subgrain_step": between(-0.06, -0.02),
    "boundary_um": 0.06,
    "boundary_grey": 0.35,
    "packet_boundary": 0.5,
    "fading": between(0.5, 0.7),
    "island_grey": between(0.62, 0.7),
    "island_rim_grey": 0.6,
    "pits_per_100um2": between(0.0, 2.0),
    "gradient": between(0.0, 0.1),
    "blur_um": between(0.04, 0.06),
    "shot_noise": between(0.05, 0.07),
    "detector_noise": 0.02,
    "scan_lines": 0.004,
}
# The same for what light micrographs need: a deep etch that broadens grain boundaries until they are as dark as films,
# packets of little contrast, second phases almost gone, another lens and camera than T3's.
LIGHT_DEVELOPMENT = {
    "matrix_grey": between(0.66, 0.72),
    "grey_spread": between(0.03, 0.05),
    "lath_step": between(-0.05, 0.0),
    "roughness": between(0.02, 0.04),
    "roughness_um": 0.3,
    "relief": between(0.0, 0.1),
    "film_width_um": between(0.14, 0.2),
    "film_grey": between(0.3, 0.4),
    "subgrain_um": 0.08,
    "subgrain_step": between(-0.12, -0.06),
    "boundary_um": between(0.2, 0.3),
    "boundary_grey": between(0.2, 0.3),
    "packet_boundary": between(0.5, 0.8),
    "fading": between(0.2, 0.4),
    "island_grey": between(0.5, 0.6),
    "island_rim_grey": between(0.3, 0.45),
    "island_rim_um": 0.12,
    "residues_per_100um2": between(0.0, 4.0),
    "residue_grey": 0.25,
    "gradient": between(0.0, 0.15),
    "vignetting": between(0.0, 0.1),
    "blur_um": between(0.15, 0.19),
    "defocus": between(0.0, 0.3),
    "shot_noise": between(0.015, 0.025),
    "detector_noise": 0.01,
}
PREPARATIONS = {
    "source": SOURCE,
    "T1": T1,
    "T2": T2,
    "T3": T3,
    "development": DEVELOPMENT,
    "light development": LIGHT_DEVELOPMENT,
}


def preparation(name: str) -> Space:
    """Return the scenario of one preparation; sizes in pixels are constants to be replaced, see `domain`.

    Parameters
    ----------
    name : str
        One of `PREPARATIONS`.

    Returns
    -------
    Space
        For `render`.

    Raises
    ------
    ValueError
        Naming the preparations there are.
    """
    one_of("preparation", name, PREPARATIONS)
    given = STEEL | PREPARATIONS[name] | {"pixel_size_um": PIXEL_SIZE_UM[name]}
    return Space.of({key: (unit, given.get(key, off), doc) for key, (unit, off, doc) in PARAMETERS.items()})


def domain(
    name: str,
    part: str,
    *,
    seed: int,
    n_images: int | None = None,
    lath_fraction: float | None = None,
    field_um: tuple[float, float] = FIELD_UM,
    pixel_size_um: float | None = None,
) -> pd.DataFrame:
    """Return the rows of one part of a domain; by default as many, as large and as rich in bainite as published.

    Parameters
    ----------
    name : str
        One of `PREPARATIONS`.
    part : {"train", "test"}
        No micrograph is in both.
    seed : int
        Seed of the data set, 0 or larger.
    n_images : int, optional
        Whole images, four tiles each; row i never depends on it.
    lath_fraction : float, optional
        Mean over the part, between 0.15 and 0.85; images differ by up to `LATH_FRACTION_SPREAD`.
    field_um : (float, float)
        Height and width of an image.
    pixel_size_um : float, optional
        Edge of a pixel.

    Returns
    -------
    pandas.DataFrame
        For `render`: the columns of `PARAMETERS` and ``seed``.

    Raises
    ------
    ValueError
        If the name, the part or the fraction is none that there is.
    """
    one_of("part", part, PARTS)
    space, at = preparation(name), PARTS.index(part)
    count = -(-TILES[name][at] // TILES_PER_IMAGE) if n_images is None else n_images
    mean = LATH_FRACTION[name][at] if lath_fraction is None else lath_fraction
    if not LATH_FRACTION_SPREAD <= mean <= 1 - LATH_FRACTION_SPREAD:
        raise ValueError(f"lath_fraction is {mean}; it must be between 0.15 and 0.85, as images differ by up to 0.15")
    pixel = PIXEL_SIZE_UM[name] if pixel_size_um is None else pixel_size_um
    height, width = (round(side / pixel) for side in field_um)
    table = space.sample(count, stream_seed(seed, "bainite", name, part))
    fractions = mean + LATH_FRACTION_SPREAD * _balanced(count)
    return table.assign(height_px=height, width_px=width, pixel_size_um=pixel, lath_fraction=fractions)


def _balanced(count: int) -> np.ndarray:
    """Numbers (count,) in (-1, 1): 0, then pairs x, -x that fill the range evenly, so an odd count has mean 0."""
    half = qmc.Halton(1, scramble=False).random(count // 2 + 1)[1:, 0]
    return np.concatenate([[0.0], np.stack([half, -half], 1).ravel()])[:count]


# ---------------------------------------------------------------------------------------------- one micrograph


def render(row: Mapping) -> Micrograph:
    """Return the micrograph of one row.

    Parameters
    ----------
    row : mapping with the columns of `PARAMETERS` and `seed`

    Returns
    -------
    Micrograph
        image (H, W) uint8 or uint16, mask (H, W) uint8 (0 ferrite, 1 lath bainite), labels (H, W) int32 of ferrite
        grains and packets from 1, pixel size in um.

    Raises
    ------
    ValueError
        Naming the parameter that is missing or out of range, see `LIMITS`.
    """
    p = plain_row(row)
    check_row(p, LIMITS)
    parts = ("cells", "laths", "islands", "surface", "boundaries", "artefacts", "imaging")
    rng = {part: stream(int(p["seed"]), part) for part in parts}
    cells = draw_cells(p, rng["cells"])
    laths = draw_laths(cells, p, rng["laths"])
    islands = scatter_islands(cells, p, rng["islands"])
    surface = etch_cells(cells, p, rng["surface"])
    surface = etch_boundaries(surface, cells, p, rng["boundaries"])
    surface = leave_standing(surface, laths, islands, p)
    surface = add_artefacts(surface, p, rng["artefacts"])
    image = imaging.measure(
        surface, p | {"blur_sigma_px": p["blur_um"] / p["pixel_size_um"], "inverted": False}, rng["imaging"]
    )
    return Micrograph(image, cells.mask, cells.labels, float(p["pixel_size_um"]))
