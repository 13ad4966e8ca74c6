"""Convert the originals of a data pack to its layout, and tell whether the result has the pixels it must have."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from skimage.segmentation import find_boundaries

from micro_lib.core.hashes import arrays_sha256
from micro_lib.data.files import read_mask, read_micrograph, write_mask
from micro_lib.data.formats import read_raw
from micro_lib.data.sources import STEEL_REGIONS, DataUnavailable, ids

_FOLDER = {"image": "images", "mask": "masks", "mask_region": "masks_region", "grains": "grains"}


def is_whole(folder: Path, row: Mapping) -> bool:
    """Tell whether the converted files of a registry row are there with the pixels the registry names.

    Parameters
    ----------
    folder : pathlib.Path
        Of the pack.
    row : mapping
        One of `micro_lib.data.downloads.registry`.
    """
    try:
        made = {kind: np.asarray(PillowImage.open(_target(folder, row, kind))) for kind in _kinds(row)}
    except (OSError, SyntaxError):  # absent or broken
        return False
    return arrays_sha256(made.values()) == row["pixels_sha256"]


def _kinds(row: Mapping) -> tuple[str, ...]:
    return ("mask", "grains") if (row["pack"], row["kind"]) == ("pure_iron_serial", "mask") else (row["kind"],)


def _target(folder: Path, row: Mapping, kind: str) -> Path:
    return folder / _FOLDER[kind] / f"{row['name']}.png"


def convert(folder: Path, row: Mapping, original: Path) -> None:
    """Write what a registry row's original becomes into the folder of its pack.

    Parameters
    ----------
    folder : pathlib.Path
        Of the pack; made when absent.
    row : mapping
        One of `micro_lib.data.downloads.registry`.
    original : pathlib.Path
        The file as it was downloaded.

    Raises
    ------
    DataUnavailable
        If the pixels are not those that the registry names.
    MicrographError
        If the original is no picture that can be read.
    """
    converter = _grey if row["kind"] == "image" else MASK_CONVERTERS[row["pack"], row["kind"]]
    made = dict(zip(_kinds(row), converter(original), strict=True))
    if arrays_sha256(made.values()) != row["pixels_sha256"]:
        raise DataUnavailable(f"{original} was converted to other pixels than the registry names; please report this.")
    for kind, pixels in made.items():
        write_mask(_target(folder, row, kind), pixels)


def _grey(original: Path) -> tuple[np.ndarray, ...]:
    return (read_micrograph(original).pixels,)


def _as_stored(original: Path) -> tuple[np.ndarray, ...]:
    return (read_raw(original).pixels,)


def _superalloy_ids(original: Path) -> tuple[np.ndarray, ...]:
    """Pure blue is 1, pure red 2; the rest is the micrograph shining through, 0."""
    rgb = read_raw(original).pixels[..., :3]  # (H, W, 4) with an opaque alpha -> (H, W, 3)
    blue, red = ((rgb == colour).all(axis=-1) for colour in ((0, 0, 255), (255, 0, 0)))
    return (blue.astype(np.uint8) + 2 * red.astype(np.uint8),)


def _array_ids(original: Path) -> tuple[np.ndarray, ...]:
    return (np.load(original, allow_pickle=False).astype(np.uint8),)


def _region_ids(original: Path) -> tuple[np.ndarray, ...]:
    """Grey levels 0, 85, 170, 255 are the four ids."""
    return (read_mask(original, ids("uhcs_region", STEEL_REGIONS, (0, 85, 170, 255))),)


def _grains_and_boundaries(original: Path) -> tuple[np.ndarray, ...]:
    """One colour a grain: ids 1..N in order of the RGB code; both pixels at an id change are boundary (0/255)."""
    code = read_raw(original).pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])  # (H, W, 3) -> (H, W)
    colours, inverse = np.unique(code, return_inverse=True)
    grains = inverse.reshape(code.shape)
    boundary = find_boundaries(grains, connectivity=1, mode="thick")
    return boundary.astype(np.uint8) * 255, (grains + 1).astype(np.min_scalar_type(len(colours)))


MASK_CONVERTERS: dict[tuple[str, str], Callable[[Path], tuple[np.ndarray, ...]]] = {
    ("nasa_ebc", "mask"): _as_stored,
    ("nasa_superalloy", "mask"): _superalloy_ids,
    ("sx_superalloy_1070C", "mask"): _as_stored,
    ("uhcs", "mask"): _array_ids,
    ("uhcs", "mask_region"): _region_ids,
    ("pure_iron_serial", "mask"): _grains_and_boundaries,
}
