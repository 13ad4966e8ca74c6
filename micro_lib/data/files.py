"""Micrographs and masks as files: read and write them, find their scale."""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image as PillowImage

from micro_lib.core.labels import ClassMap, MaskError
from micro_lib.core.runs import atomic_path
from micro_lib.data.formats import FORMAT, MicrographError, Raw, read_pixel_size, read_raw


class Image(NamedTuple):
    """A grey micrograph."""

    pixels: np.ndarray  # (H, W) uint8, uint16 or float32, as stored
    pixel_size_um: float | None  # None: the file does not say
    path: Path


def read_micrograph(path: str | Path, pixel_size_um: float | None = None, crop_info_bar: bool = False) -> Image:
    """Read a TIFF, PNG or JPEG as one grey image of the bit depth it is stored with.

    Colour becomes luminance (ITU-R BT.601 weights, rounded), which leaves equal channels exactly as they are. An alpha
    channel is dropped if it is opaque everywhere.

    Parameters
    ----------
    path : str or pathlib.Path
        The file; 8-bit, 16-bit or floating point.
    pixel_size_um : float, optional
        Edge of a pixel in um; wins over the file's tags, with a warning where the two differ by more than 1 %.
    crop_info_bar : bool
        Cut off the rows found by `info_bar_rows`; otherwise nothing is ever cut.

    Returns
    -------
    Image
        pixels (H, W) uint8, uint16 or float32; pixel_size_um from the argument or `read_pixel_size`; path.

    Raises
    ------
    MicrographError
        If the file is empty, truncated, no image, a stack, partly transparent or of a number type beyond the three.
    ValueError
        If `pixel_size_um` is not a positive number.
    """
    path = Path(path)
    pixels = _supported(path, _grey(path, read_raw(path)))
    size = _chosen_pixel_size(path, pixel_size_um)
    bar = info_bar_rows(pixels) if crop_info_bar else 0
    return Image(pixels[: len(pixels) - bar], size, path)


def read_mask(path: str | Path, class_map: ClassMap) -> np.ndarray:
    """Read a mask file as class ids.

    Palette files count as their indices when the map knows grey levels and as their colours when it knows colours;
    equal channels count as grey levels.

    Parameters
    ----------
    path : str or pathlib.Path
        PNG, TIFF or JPEG.
    class_map : ClassMap
        Says which grey level or colour means which class.

    Returns
    -------
    numpy.ndarray
        (H, W) uint8 class ids.

    Raises
    ------
    MicrographError
        If the file cannot be read, or holds values unknown to the map; lists them, their pixel counts and the fix.
    """
    path = Path(path)
    values = _mask_values(path, class_map)
    try:
        return class_map.encode(values)
    except MaskError as error:
        found = "; ".join(f"{value}: {count} px" for value, count in value_counts(values)[:12])
        expected = f"values of class map {class_map.name!r}: {dict(class_map.values)}"
        raise MicrographError(path, f"values {{{found}}}", expected, mask_fix(path, values, class_map)) from error


def write_micrograph(path: str | Path, pixels: np.ndarray, pixel_size_um: float | None = None) -> None:
    """Write a grey micrograph as TIFF with ImageJ's tags, which keep the pixel size, or as PNG, which cannot.

    Parameters
    ----------
    path : str or pathlib.Path
        Ends in ``.tif``, ``.tiff`` or ``.png``; written atomically.
    pixels : numpy.ndarray
        (H, W) uint8, uint16, or (TIFF only) float32.
    pixel_size_um : float, optional
        Edge of a pixel in um.

    Raises
    ------
    MicrographError
        If the format cannot hold these pixels or the pixel size.
    """
    path = Path(path)
    allowed = {"TIFF": "uint8 uint16 float32", "PNG": "uint8 uint16"}.get(FORMAT.get(path.suffix.lower(), ""), "")
    if pixels.ndim != 2 or str(pixels.dtype) not in allowed.split():
        expected = f"(H, W) of {allowed or 'a .tif or .png name'}"
        raise MicrographError(path, f"{pixels.shape} {pixels.dtype}", expected, "Convert first, or write a .tif.")
    if path.suffix.lower() == ".png" and pixel_size_um is not None:
        raise MicrographError(path, "a pixel size", "none in a PNG", "Write a .tif, whose tags hold it.")
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".png":
            PillowImage.fromarray(pixels).save(temporary)
            return
        scale = {} if pixel_size_um is None else {"resolution": (1 / _positive(pixel_size_um),) * 2}
        unit = {} if pixel_size_um is None else {"unit": "um"}
        tifffile.imwrite(temporary, pixels, imagej=True, metadata={"axes": "YX", **unit}, **scale)


def write_mask(path: str | Path, ids: np.ndarray) -> None:
    """Write class ids as a PNG whose grey levels are the ids, atomically.

    Parameters
    ----------
    path : str or pathlib.Path
        Ends in ``.png``; its folder is made.
    ids : numpy.ndarray
        (H, W) uint8 class ids, or other levels to be kept as they are.

    Raises
    ------
    MicrographError
        If the ids are not (H, W) uint8 or the name is another.
    """
    path, ids = Path(path), np.asarray(ids)
    if path.suffix.lower() != ".png" or ids.ndim != 2 or ids.dtype != np.uint8:
        raise MicrographError(
            path, f"{ids.shape} {ids.dtype}", "(H, W) uint8 and a name in .png", "Masks are lossless PNG."
        )
    write_micrograph(path, ids)


def info_bar_rows(pixels: np.ndarray) -> int:
    """Count the rows of a microscope's information bar at the bottom of an image.

    A bar is drawn, not imaged: most pixels of nearly every row share one grey level, others (text) stand out from it,
    and it ends at a straight line above which rows are not like that. Images that are themselves flat there
    (saturated, or without noise) hide a bar from this rule.

    Parameters
    ----------
    pixels : numpy.ndarray
        (H, W) uint8, uint16 or float32.

    Returns
    -------
    int
        0 if there is none; at most 30 % of the height.
    """
    grey = to_uint8(pixels)
    height, width = grey.shape
    counts = np.bincount((np.arange(height)[:, None] * 256 + grey).ravel(), minlength=height * 256)
    # Exactly one level, since bars are drawn: even after JPEG it holds 0.3 of a row of text and nearly all of others.
    # A test counts how often the real micrographs of the packs are mistaken for one: never.
    flat = counts.reshape(height, 256).max(axis=1) >= 0.3 * width
    n_rows = _trailing_run(flat, shortest=max(8, height // 100), longest=int(0.3 * height))
    if not n_rows:
        return 0
    bar = grey[height - n_rows :]
    background = np.bincount(bar.ravel(), minlength=256).argmax()
    stands_out = np.abs(bar.astype(int) - background) > 60
    return n_rows if 0.002 < stands_out.mean() < 0.5 else 0


def _trailing_run(flat: np.ndarray, shortest: int, longest: int) -> int:
    """Return the longest run of rows up to the last, nine in ten of them flat, below rows that are mostly not."""
    for n in range(min(longest, len(flat) - 1), shortest - 1, -1):
        above = flat[max(0, len(flat) - n - 32) : len(flat) - n]
        if flat[-n] and not flat[-n - 1] and flat[-n:].mean() >= 0.9 and above.mean() <= 0.2:
            return n
    return 0


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Return an image in 8 bits: uint8 as it is, uint16 and floats stretched to the full range.

    A 12-bit camera fills a sixteenth of uint16, so the upper byte alone would leave 16 of its grey levels.

    Parameters
    ----------
    image : numpy.ndarray
        (H, W) grey levels.

    Raises
    ------
    ValueError
        If the image is neither uint8, uint16 nor finite floats.
    """
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        image = image.astype(np.float32)
    if image.dtype.kind != "f" or not np.isfinite(image).all():
        broken = f", {np.sum(~np.isfinite(image))} of them not finite" if image.dtype.kind == "f" else ""
        raise ValueError(f"a micrograph is uint8, uint16 or finite floats; found {image.dtype}{broken}")
    low, high = float(image.min()), float(image.max())
    return np.round((image - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)


def _grey(path: Path, raw: Raw) -> np.ndarray:
    pixels = raw.pixels if raw.palette is None else raw.palette[raw.pixels]
    if pixels.ndim == 2:
        return pixels
    pixels = _without_alpha(path, pixels)
    if pixels.shape[2] == 1 or (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])
    if pixels.dtype.kind == "f":
        return pixels @ np.array([0.299, 0.587, 0.114], pixels.dtype)
    # BT.601 in 16-bit fixed point; the weights sum to 65536. For uint8 this is what Pillow's "L" gives.
    weighted = pixels.astype(np.int64) @ np.array([19595, 38470, 7471])
    return ((weighted + 0x8000) >> 16).astype(pixels.dtype)


def _without_alpha(path: Path, pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[2] not in (2, 4):
        return pixels
    opaque = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    see_through = np.mean(pixels[..., -1] != opaque)
    if see_through:
        fix = "Flatten it on a background and save it without alpha: what lies under such pixels is undefined."
        raise MicrographError(path, f"{see_through:.2%} of the pixels transparent", "opaque pixels", fix)
    return pixels[..., :-1]


def _supported(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Return pixels as uint8, uint16 or float32, without loss."""
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all():
            bad = int((~np.isfinite(pixels)).sum())
            raise MicrographError(path, f"{bad} pixels that are no number", "finite grey levels", "Mend them first.")
        return pixels.astype(np.float32)
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels.astype(pixels.dtype.newbyteorder("="))
    low, high = int(pixels.min()), int(pixels.max())
    if 0 <= low and high <= 65535:
        return pixels.astype(np.uint16)
    raise MicrographError(
        path, f"{pixels.dtype} values from {low} to {high}", "8-bit, 16-bit or float", "Export it as 16-bit."
    )


def _positive(pixel_size_um: float) -> float:
    if not (np.isfinite(pixel_size_um) and pixel_size_um > 0):
        raise ValueError(f"pixel_size_um is {pixel_size_um}; expected a positive number of micrometres")
    return float(pixel_size_um)


def _chosen_pixel_size(path: Path, given_um: float | None) -> float | None:
    tagged_um, reason = read_pixel_size(path)
    if given_um is None:
        return tagged_um
    if tagged_um and abs(tagged_um / _positive(given_um) - 1) > 0.01:
        warnings.warn(f"{path}: using the given {given_um:g} um/px; the file says {reason}", stacklevel=3)
    return _positive(given_um)


def _mask_values(path: Path, class_map: ClassMap) -> np.ndarray:
    """Return (H, W) grey levels or (H, W, 3) colours, whichever the class map is about, where the file allows it."""
    raw = read_raw(path)
    if raw.palette is not None:
        return raw.palette[raw.pixels] if class_map.is_rgb else raw.pixels
    pixels = raw.pixels if raw.pixels.ndim == 2 else _without_alpha(path, raw.pixels)
    if class_map.is_rgb:
        return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    return pixels


def value_counts(values: np.ndarray) -> list[tuple[float | tuple[int, ...], int]]:
    """Return the grey levels or colours of a mask with their pixel counts, most frequent first.

    Parameters
    ----------
    values : numpy.ndarray
        (H, W) grey levels, or (H, W, C) colours of up to 16 bits a channel, C up to 4.

    Returns
    -------
    list of (value, int)
        A value is a number, or a tuple of C of them.
    """
    if values.ndim == 3:  # colours packed into one integer: sorting rows would take ten times as long
        packed = values.astype(np.int64) @ (1 << 16) ** np.arange(values.shape[2])[::-1]  # (H, W, C) -> (H, W)
        return [
            (tuple(int(value) >> 16 * i & 0xFFFF for i in range(values.shape[2]))[::-1], count)
            for value, count in value_counts(packed)
        ]
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return list(zip(found[order].tolist(), counts[order].tolist(), strict=True))


def mask_fix(path: Path, values: np.ndarray, class_map: ClassMap | None) -> str:
    """Return in words how to make a mask and a class map fit.

    Parameters
    ----------
    path : pathlib.Path
        The mask's file; nothing but its suffix is looked at.
    values : numpy.ndarray
        Its pixels, as for `value_counts`.
    class_map : ClassMap or None
        The one that does not fit; None where none was given.
    """
    found = {value for value, _ in value_counts(values)}
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return "JPEG changes grey levels: export the mask as PNG."
    if found <= {0, 255}:
        given = "values={0: 0, 255: 1}, on the command line --classes NAME=0 NAME=255"
        return f"The mask is 0/255, not class ids: give a class map with {given}."
    offered = {value: i for i, value in enumerate(sorted(found)[:8])}
    if len(found) > 8:
        return "Many values: the mask is smoothed or no mask; export it without interpolation and compression."
    name = "a class map" if class_map is None else f"a class map in place of {class_map.name!r}"
    return f"Redraw these pixels, or give {name} such as values={offered}."
