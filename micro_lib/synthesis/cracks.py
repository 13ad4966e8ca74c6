"""Crack tiles: a crack of given statistics on a texture, then the simulated measurement (Trampert et al. 2021, 3.1.1).

A row of the table says what the longest crack of the tile measures (`crack_statistics.TILE_PARAMETERS`), which texture
of a pool lies behind it and how the picture is taken. Further cracks of the tile vary the first. Everything random
comes from streams named after the part and keyed by the row's seed, so what lies behind a crack never changes with it.

DEVIATION: the paper measures five quantities of cracks and draws each from its distribution. Here all parameters of
`TILE_PARAMETERS` are drawn together (a kernel density), among them branches, further cracks and where a crack ends,
and fitted again until what is drawn measures as it should (`crack_statistics.calibrate`); edges are ragged and ends
taper by a chosen range, textures are mirrored and used more than once.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image as PillowImage
from scipy.stats import loguniform

from micro_lib.core.checks import one_of
from micro_lib.core.hashes import arrays_sha256
from micro_lib.core.progress import progress
from micro_lib.core.runs import atomic_path
from micro_lib.core.seeds import stream, stream_seed
from micro_lib.synthesis import imaging, presets
from micro_lib.synthesis.crack_drawing import add_cracks, add_distractors
from micro_lib.synthesis.crack_statistics import CALIBRATED, TILE_PARAMETERS, Measured, fit, measure_all, per_tile
from micro_lib.synthesis.distributions import Choice, Constant, Integers, Kernel, between
from micro_lib.synthesis.limits import AMOUNT, ANGLE_DEG, POSITIVE, SWITCH, check_row, divided
from micro_lib.synthesis.scenario import Micrograph, Space, plain_row
from micro_lib.synthesis.texture import MAX_PATCHES, dictionary, texture_pool

CELL_PX = 32  # side of the cells that tiles are cut into, and of a texture seed
N_SEEDS = 100  # texture seeds cut out of the tiles without a crack
CALIBRATION_TILES = 400  # drawn and measured in each round
GENERATORS = ("paper", "covering")

# name: (unit, value that switches the feature off, limits, meaning)
_TABLE = {
    "texture": ("1", None, AMOUNT, "which texture of the pool lies behind"),
    "mirrored": ("", False, SWITCH, "the texture is mirrored left to right"),
    "crack": ("", None, SWITCH, "the tile shows a crack"),
    # of the crack, what masks of real ones do not tell
    "ragged_px": ("px", 0.0, AMOUNT, "standard deviation of the fine raggedness of either edge"),
    "taper_px": ("px", 0.0, AMOUNT, "length over which a free end narrows to nothing"),
    "width_gain": ("1", 1.0, POSITIVE, "width of the tile's cracks over what the parameters above say"),
    "contrast_gain": ("1", 1.0, AMOUNT, "contrast of the tile's cracks over what the parameters above say"),
    # what a classifier confuses with cracks, in tiles of both classes
    "n_pores": ("1", 0, AMOUNT, "single pores"),
    "n_strings": ("1", 0, AMOUNT, "strings of pores"),
    "pore_px": ("px", 3.0, POSITIVE, "radius of a mean pore"),
    "pore_stretch": ("1", 1.0, (1, 100), "length over width of the most elongated pores"),
    "pore_contrast": ("1", -0.6, (-1, 10), "grey of a pore over that of its surroundings, minus 1"),
    "layer_contrast": ("1", 0.0, (-1, 10), "grey beyond the border of the layer over that within, minus 1"),
    "layer_at": ("1", 0.8, (-10, 10), "distance of the border from the middle of the tile, over half its size"),
    "layer_deg": ("deg", 0.0, ANGLE_DEG, "direction from the middle to the border, 0 straight down"),
    "layer_waviness_px": ("px", 0.0, AMOUNT, "standard deviation of the border's position along it"),
    "layer_line": ("1", 0.0, (-1, 10), "contrast of a line along the border"),
    "n_scratches": ("1", 0, AMOUNT, "straight scratches"),
    "scratch_contrast": ("1", 0.0, (-1, 10), "contrast of the strongest scratches"),
}
PARAMETERS, LIMITS = divided(_TABLE)
PARAMETERS |= {name: presets.PARAMETERS[name] for name in imaging.MEASUREMENT}
LIMITS |= {name: presets.LIMITS[name] for name in imaging.MEASUREMENT}
LIMITS |= {name: (low, high) for name, (_, low, high, *_) in TILE_PARAMETERS.items()}

PAPER = {
    "mirrored": Choice({False: 1, True: 1}),
    "crack": Choice({False: 1, True: 1}),
    "ragged_px": between(0.0, 0.8),
    "taper_px": between(0.0, 12.0),
}
COVERING = PAPER | {
    "width_gain": loguniform(0.6, 1.6),  # cracks of other specimens are wider, finer, fainter than those measured
    "contrast_gain": loguniform(0.5, 1.4),
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


# Cracks that nobody measured: large and dark enough to be found, for stand-ins, tests and a first look.
INVENTED = {
    "n_cracks": Choice({1: 3, 2: 1}),
    "n_segments": Integers(3, 5),
    "segment_px": between(18.0, 26.0),
    "segment_spread": between(0.1, 0.3),
    "bend_deg": between(15.0, 45.0),
    "bend_spread": between(0.1, 0.5),
    "zigzag": between(0.3, 0.8),
    "waviness_px": between(0.0, 0.4),
    "width_px": between(4.5, 7.0),
    "width_spread": between(0.1, 0.3),
    "crack_contrast": between(-0.7, -0.3),
    "contrast_spread": between(0.0, 0.08),
    "core_share": between(0.7, 0.9),
    "n_branches": Choice({0: 4, 1: 1}),
    "branch_px": between(12.0, 30.0),
    "middle_x": between(0.35, 0.65),
    "middle_y": between(0.35, 0.65),
    "direction_deg": between(-45.0, 45.0),
    "cut_start": Choice({0: 3, 1: 1}),
    "cut_end": Choice({0: 3, 1: 1}),
    "other_px": between(12.0, 30.0),
    "other_width_px": between(2.0, 4.0),
    "other_contrast": between(-0.5, -0.2),
}


def invented() -> Space:
    """Space of the parameters of `crack_statistics.TILE_PARAMETERS` without any measurement behind it."""
    return Space.of({name: (unit, INVENTED[name], doc) for name, (unit, *_, doc) in TILE_PARAMETERS.items()})


def scenario(fitted: Space, n_textures: int, generator: str = "paper") -> Space:
    """Space of crack tiles: fitted cracks on textures of a pool, half of the tiles without a crack.

    The classes are balanced in expectation; exactly with ``sample(n, seed, "sobol")`` and n a power of 2.

    Parameters
    ----------
    fitted : Space
        From `crack_statistics.fit`, or with the same parameters, as `invented()`.
    n_textures : int
        Size of the pool, 1 or larger; a texture is used again about every `n_textures` tiles.
    generator : {"paper", "covering"}
        ``"paper"``: texture and crack alone, the two parts that Trampert et al. 2021 have. ``"covering"``: in both
        classes also pores, strings of pores, borders of the layer and scratches, a varied measurement, and cracks
        beyond what was measured.

    Returns
    -------
    Space
        For `render`.

    Raises
    ------
    ValueError
        If the generator is unknown or there is no texture.
    """
    one_of("generator", generator, GENERATORS)
    if n_textures < 1:
        raise ValueError(f"{n_textures} textures; a scenario needs at least one")
    given = {"texture": Integers(0, n_textures - 1), **(PAPER if generator == "paper" else COVERING)}
    others = Space.of({name: (unit, given.get(name, off), doc) for name, (unit, off, doc) in PARAMETERS.items()})
    return Space({**fitted, **{name: others[name] for name in others if name not in fitted}})


# One tile


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
        If the pool is no stack of uint8 textures or has no such texture, or a parameter is missing or out of range.
    """
    p = plain_row(row)
    check_row(p, LIMITS)
    texture = _texture(textures, int(p["texture"]))
    rng = {part: stream(int(p["seed"]), part) for part in ("crack", "others", "surface", "imaging")}
    surface = (texture[:, ::-1] if p["mirrored"] else texture) / np.float32(255)
    surface = add_distractors(surface, p, rng["surface"])
    labels = np.zeros(surface.shape, np.int32)
    if p["crack"]:
        surface = add_cracks(surface, labels, p, rng)
    image = imaging.measure(surface, p, rng["imaging"])
    return Micrograph(image, (labels > 0).astype(np.uint8), labels, 1.0)


def write_tiles(table: pd.DataFrame, textures: np.ndarray, folder: str | Path) -> Path:
    """Write the tiles of a table to a folder, one at a time; a broken run goes on where it stopped.

    The folder is laid out as real packs are: ``manifest.csv``, the table with a column `name`, and for each row
    ``images/<name>.png`` and ``masks/<name>.png`` (0 no crack, 255 crack). The `specimen` of all tiles is the pool of
    textures, named by the beginning of its hash. Every file is whole or absent.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows of a `scenario`.
    textures : (N, H, W) uint8
        The pool that `texture` counts in.
    folder : str or pathlib.Path
        Made when absent.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    ValueError
        If the folder holds the tiles of another table or another pool.
    """
    folder = Path(folder)
    kinds = np.where(table["crack"].astype(bool), "crack", "nocrack")
    names = [f"{kind}_{i:06d}" for i, kind in enumerate(kinds)]
    with io.StringIO(newline="") as text:
        specimen = f"textures {arrays_sha256([textures])[:12]}"
        table.assign(name=names, specimen=specimen).to_csv(text, index=False, lineterminator="\n")
        manifest = text.getvalue().encode()
    _claim(folder / "manifest.csv", manifest)
    for name, row in progress(zip(names, rows_of(table), strict=True), total=len(table), desc="tiles", unit="tile"):
        paths = [folder / kind / f"{name}.png" for kind in ("images", "masks")]
        if not all(path.is_file() for path in paths):
            tile = render(row, textures)
            for path, pixels in zip(paths, (tile.image, tile.mask * np.uint8(255)), strict=True):
                with atomic_path(path) as temporary:
                    PillowImage.fromarray(pixels).save(temporary)
    return folder


def _claim(path: Path, manifest: bytes) -> None:
    if path.is_file() and path.read_bytes() != manifest:
        raise ValueError(f"{path} lists other tiles or textures than those to be written; choose another folder")
    with atomic_path(path) as temporary:
        temporary.write_bytes(manifest)


def rendered(table: pd.DataFrame, textures: np.ndarray) -> Iterator[Micrograph]:
    """Yield the tile of every row of a table, one at a time.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows of a `scenario`.
    textures : (N, H, W) uint8
        The pool that `texture` counts in.

    Raises
    ------
    ValueError
        As `render`.
    """
    for row in rows_of(table):
        yield render(row, textures)


def rows_of(table: pd.DataFrame) -> Iterator[dict]:
    """Yield the rows of a table as mappings, one at a time: all of them at once would take ten times the table."""
    for start in range(0, len(table), 1000):
        yield from table.iloc[start : start + 1000].to_dict("records")


def _texture(textures: np.ndarray, index: int) -> np.ndarray:
    if getattr(textures, "ndim", 0) != 3 or textures.dtype != np.uint8:
        raise ValueError(f"a pool of textures is (N, H, W) uint8; found {getattr(textures, 'shape', textures)}")
    if not 0 <= index < len(textures):
        raise ValueError(f"texture {index} of a pool of {len(textures)}: the scenario was made for a larger pool")
    return textures[index]


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
    max_patches: int = MAX_PATCHES,
    calibration_rounds: int = 3,
) -> Generator:
    """Learn a generator of crack tiles of 128 px x 128 px from labelled tiles alone.

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
    max_patches : int
        As for `texture.dictionary`.
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
    measured = measure_all([record for record in records if record.mask.any()])
    textures = grow_pool(free, n_textures, max_patches=max_patches, seed=seed)
    fitted = calibrate(fit(measured, seed=seed), measured, textures, rounds=calibration_rounds, seed=seed)
    return Generator(textures, fitted, scenario(fitted, n_textures, generator), measured)


def calibrate(fitted: Space, measured: Measured, textures: np.ndarray, *, rounds: int, seed: int) -> Space:
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
    seed : int
        Seed of the tiles.

    Returns
    -------
    Space
    """
    target = per_tile(measured)
    for i in range(rounds):
        space = scenario(fitted, len(textures)).replace(crack=Constant(True))
        table = space.sample(CALIBRATION_TILES, stream_seed(seed, "calibration", i))
        drawn = per_tile(measure_all([_Tile(str(j), *tile[:2]) for j, tile in enumerate(rendered(table, textures))]))
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
    records: Iterable, n_textures: int, *, max_patches: int = MAX_PATCHES, k: int = 5, seed: int
) -> np.ndarray:
    """Grow a pool of textures from tiles without cracks, as many of each group (specimen) as of any other.

    A group has its own dictionary: specimens differ in grey, and patches of several do not make one texture.

    Parameters
    ----------
    records : iterable of Record
        Tiles without cracks.
    n_textures, max_patches, seed
        As for `learn`.
    k : int
        As for `texture.grow`.

    Returns
    -------
    numpy.ndarray
        (n_textures, 128, 128) uint8.

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
            seeds, rest = split_cells(members, -(-N_SEEDS // len(groups)), stream(seed, "texture seeds", group))
        except ValueError as error:
            raise ValueError(f"group {group!r}: {error}") from error
        known = dictionary(rest, max_patches=max_patches, rng=stream(seed, "dictionary", group))
        pools.append(texture_pool(seeds, known, n, k=k, seed=stream_seed(seed, "textures", group)))
    return np.concatenate(pools)


def split_cells(records: Iterable, n_seeds: int, rng: np.random.Generator):
    """Cut tiles into cells that share no pixel, and draw texture seeds from them; the rest is for the dictionary.

    Tiles that overlap by a multiple of `CELL_PX` have cells in common, which count once.

    Parameters
    ----------
    records : iterable of Record
        Tiles of any size; those smaller than a cell give none.
    n_seeds : int
        Seeds wanted; at most half of the cells are taken.
    rng : numpy.random.Generator
        Draws the seeds.

    Returns
    -------
    seeds, rest : list of (CELL_PX, CELL_PX) uint8

    Raises
    ------
    ValueError
        If there are fewer than two cells.
    """
    cells = {}
    for record in records:
        height, width = record.image.shape
        for y in range(0, height - CELL_PX + 1, CELL_PX):
            for x in range(0, width - CELL_PX + 1, CELL_PX):
                cell = np.ascontiguousarray(record.image[y : y + CELL_PX, x : x + CELL_PX])
                cells.setdefault(cell.tobytes(), cell)
    if len(cells) < 2:
        raise ValueError(f"{len(cells)} cells of {CELL_PX} px without a crack; at least a seed and a rest are needed")
    drawn = [list(cells.values())[i] for i in rng.permutation(len(cells))]
    n = min(n_seeds, len(drawn) // 2)
    return drawn[:n], drawn[n:]
