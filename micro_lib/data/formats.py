"""File formats of micrographs: decode TIFF, PNG and JPEG without loss and find the pixel size in their tags."""

import re
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import tifffile
from PIL import Image as PillowImage

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
FORMAT = {".tif": "TIFF", ".tiff": "TIFF", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_MAGIC = {b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF"}
_MAGIC |= {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG"}
_UM_PER_UNIT = {"pm": 1e-6, "å": 1e-4, "nm": 1e-3, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25400.0}
_UM_PER_TIFF_UNIT = {2: 25400.0, 3: 1e4, 4: 1e3, 5: 1.0}  # TIFF 6.0 ResolutionUnit: inch, cm; 4 and 5 are mm, um by use
# 2540 dots per inch. Screens and printers (72 to 2400 dpi) are all coarser than this, micrographs all but never.
_COARSEST_TAG_UM = 10.0
_SCALE_WORDS = re.compile(r"pixel|scale|magni|\bmag\b|physicalsize|fieldofview|hfw", re.IGNORECASE)


class MicrographError(ValueError):
    """A file that cannot be used as it is: says which, what was found, what was expected and how to fix it.

    Parameters
    ----------
    file : str or pathlib.Path
        The file; kept as a path.
    found, expected : str
        Words that follow "found" and "expected" in the message.
    fix : str
        What to do, a sentence of its own.
    """

    def __init__(self, file: str | Path, found: str, expected: str, fix: str):
        super().__init__(f"{file}: found {found}; expected {expected}. {fix}")
        self.file, self.found, self.expected, self.fix = Path(file), found, expected, fix


class Raw(NamedTuple):
    """What a file holds, before colours are made grey."""

    pixels: np.ndarray  # (H, W) or (H, W, 1 to 4), as stored
    palette: np.ndarray | None  # (n, 3) colours of the indices in `pixels`


_COPY_AGAIN = "Copy it again from its source, or export it anew."


# Decoding: Pillow for PNG and JPEG, since it refuses truncated files; tifffile for TIFF, since it changes no value;
# OpenCV for what these two cannot decode: 16-bit colour PNG and TIFF compressed by LZW, JPEG and the like.


def read_raw(path: Path) -> Raw:
    """Decode a file to the values it stores.

    Parameters
    ----------
    path : pathlib.Path
        A TIFF, PNG or JPEG.

    Returns
    -------
    Raw
        Pixels (H, W) or (H, W, channels), 1 to 4 of them.

    Raises
    ------
    MicrographError
        If the file is broken, empty, of another format than its suffix says, or has more channels.
    """
    kind = checked_format(path)
    try:
        raw = _read_tiff(path) if kind == "TIFF" else _read_pillow(path)
    except MicrographError:
        raise
    except Exception as error:  # decoders raise some dozen types on broken files; the user needs the file's name
        raise MicrographError(path, f"broken {kind} data ({error})", "a whole image", _COPY_AGAIN) from error
    if 0 in raw.pixels.shape:
        raise MicrographError(path, f"an image of shape {raw.pixels.shape}", "at least one pixel", _COPY_AGAIN)
    if raw.pixels.ndim > 2 and raw.pixels.shape[2] > 4:
        fix = "Save the channel you mean alone."
        raise MicrographError(path, f"channels of shape {raw.pixels.shape}", "grey or colour", fix)
    return raw


def checked_format(path: Path) -> str:
    """Return "TIFF", "PNG" or "JPEG", checked by the first bytes against the suffix.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Raises
    ------
    MicrographError
        If the suffix is none of `SUFFIXES`, the file cannot be read or is empty, or holds another format.
    """
    expected = FORMAT.get(path.suffix.lower())
    if expected is None:
        raise MicrographError(path, f"a {path.suffix or 'nameless'} file", " ".join(SUFFIXES), "Export it as TIFF.")
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        reason = error.strerror or str(error)
        raise MicrographError(
            path, f"no readable file ({reason})", expected, "Check the name and the rights."
        ) from error
    if not head:
        raise MicrographError(path, "0 bytes", f"{expected} data", _COPY_AGAIN)
    found = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if found != expected:
        fix = f"Rename it to end in .{found.lower()}." if found else _COPY_AGAIN
        raise MicrographError(path, f"{found or 'unknown'} data (first bytes {head.hex()})", f"{expected} data", fix)
    return found


def _read_pillow(path: Path) -> Raw:
    data = path.read_bytes()
    with PillowImage.open(BytesIO(data)) as image:
        image.load()
        # Decoders are content once they have all pixels; a file cut a little later is as broken. Some programs append.
        if data.rfind(b"IEND" if image.format == "PNG" else b"\xff\xd9") < len(data) // 2:
            raise ValueError("its end is missing")
        if image.mode in ("P", "PA"):
            palette = np.array(image.convert("P").getpalette("RGB"), np.uint8).reshape(-1, 3)
            return Raw(np.asarray(image.convert("P")), palette)
        if image.mode == "1":
            image = image.convert("L")
        if image.mode in ("L", "I;16"):
            return Raw(np.asarray(image), None)
        if image.mode not in ("RGB", "RGBA", "LA"):
            image = image.convert("RGB")
        is_deep = image.format == "PNG" and data[24] == 16  # bit depth in IHDR; Pillow would halve it to 8
        return Raw(_read_opencv(path) if is_deep else np.asarray(image), None)


def _read_opencv(path: Path) -> np.ndarray:
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("no decoder for its compression")
    if pixels.ndim == 3:
        order = [2, 1, 0, 3] if pixels.shape[2] == 4 else [2, 1, 0]
        pixels = pixels[..., order]  # OpenCV's order is blue, green, red
    return pixels


def _opened_tiff(path: Path) -> tifffile.TiffFile:
    try:
        tif = tifffile.TiffFile(path)
        tif.pages[0].tags  # noqa: B018  a truncated directory shows here
        return tif
    except Exception as error:  # see read_raw
        raise MicrographError(path, f"broken TIFF data ({error})", "a whole image", _COPY_AGAIN) from error


def _read_tiff(path: Path) -> Raw:
    with _opened_tiff(path) as tif:
        page = tif.pages[0]
        _refuse_stack(path, tif)
        ends = [start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if max(ends, default=0) > path.stat().st_size:
            found = f"{path.stat().st_size} bytes where the pixels end at {max(ends)}"
            raise MicrographError(path, found, "a whole TIFF", _COPY_AGAIN)
        try:
            pixels = page.asarray()
        except ValueError:  # compression that tifffile cannot undo by itself
            return Raw(_read_opencv(path), None)
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)  # (S, H, W) -> (H, W, S)
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8) * 255
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind == "u":
            pixels = ~pixels
        palette = None if page.colormap is None else (page.colormap.T >> 8).astype(np.uint8)  # (n, 3)
        return Raw(pixels, palette)


def _refuse_stack(path: Path, tif: tifffile.TiffFile) -> None:
    """Raise if the file holds several images of one size; smaller ones (previews) do no harm."""
    n_slices = int((tif.imagej_metadata or {}).get("images", 1))
    n_slices = max(n_slices, sum(page.shape == tif.pages[0].shape for page in tif.pages))
    if n_slices > 1:
        raise MicrographError(path, f"a stack of {n_slices} images", "one image", "Save the slice you mean alone.")


def read_pixel_size(path: str | Path) -> tuple[float | None, str]:
    """Look for the pixel size in the tags of a TIFF; never guesses.

    ImageJ's unit and the TIFF resolution tags count. A resolution coarser than 10 um a pixel (such as 72, 96 or
    300 dpi) is that of a screen or printer, no scale of a micrograph, and is not taken. Vendors' private tags are
    quoted, not interpreted: their meaning differs between models.

    Parameters
    ----------
    path : str or pathlib.Path
        Any file that `read_micrograph` reads.

    Returns
    -------
    float or None
        Edge of a pixel in um.
    str
        Where it comes from; or why there is none, with the tags found.

    Raises
    ------
    MicrographError
        If the file is not readable as what its name says.
    """
    path = Path(path)
    if checked_format(path) != "TIFF":
        return None, f"{path.suffix.lower()} files carry no micrograph scale"
    with _opened_tiff(path) as tif:
        size, reason = _tagged_pixel_size(tif)
        quoted = [] if size else _vendor_lines(tif)
    return size, reason + (f"; the file's own words, not interpreted: {' | '.join(quoted)}" if quoted else "")


def _tagged_pixel_size(tif: tifffile.TiffFile) -> tuple[float | None, str]:
    tags = tif.pages[0].tags
    ratios = [tags[name].value for name in ("XResolution", "YResolution") if name in tags]
    if len(ratios) < 2 or not all(num and den for num, den in ratios):
        return None, "no resolution tags"
    per_x, per_y = (num / den for num, den in ratios)
    if tif.is_imagej:
        return _imagej_pixel_size((tif.imagej_metadata or {}).get("unit"), per_x, per_y)
    tiff_unit = int(tags["ResolutionUnit"].value) if "ResolutionUnit" in tags else 2  # the standard's default: inch
    if tiff_unit not in _UM_PER_TIFF_UNIT:
        return None, f"a resolution of {per_x:g} without a unit"
    size = _UM_PER_TIFF_UNIT[tiff_unit] / per_x
    if size > _COARSEST_TAG_UM:
        return (
            None,
            f"a resolution tag of {25400 / size:.4g} dpi, that of a screen or printer, no scale of a micrograph",
        )
    return _square(size, per_x, per_y, f"TIFF resolution tags ({size:g} um/px)")


def _imagej_pixel_size(unit: object, per_x: float, per_y: float) -> tuple[float | None, str]:
    name = _plain_unit(str(unit))
    if name not in _UM_PER_UNIT:
        return None, f"ImageJ tags with unit {unit!r}, which is no length"
    size = _UM_PER_UNIT[name] / per_x
    return _square(size, per_x, per_y, f"ImageJ tags ({size:g} um/px)")


def _plain_unit(unit: str) -> str:
    r"""Return a unit as a key of _UM_PER_UNIT; ImageJ writes the micro sign also as the six characters ``\u00B5``."""
    unit = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), unit).strip().lower()
    unit = unit.replace("\u00b5", "u").replace("\u03bc", "u")  # micro sign, Greek mu
    words = {"micron": "um", "micrometer": "um", "micrometre": "um", "nanometer": "nm", "nanometre": "nm"}
    words |= {"millimeter": "mm", "millimetre": "mm", "inche": "inch", "angstrom": "å"}
    return words.get(unit.removesuffix("s"), unit)


def _square(size: float, per_x: float, per_y: float, source: str) -> tuple[float | None, str]:
    if abs(per_x / per_y - 1) > 0.01:
        return None, f"{source}, but pixels that are not square ({per_x:g} by {per_y:g} a unit)"
    return size, source


def _vendor_lines(tif: tifffile.TiffFile) -> list[str]:
    """Return up to six lines about scale from the description and the private tags (numbers from 32768)."""
    lines = []
    for tag in tif.pages[0].tags:
        if tag.code >= 32768 or tag.name == "ImageDescription":
            lines += [f"{tag.name}: {line}" for line in _flat_text(tag.value) if _SCALE_WORDS.search(line)]
    return [line[:120] for line in lines[:6]]


def _flat_text(value: object, prefix: str = "") -> list[str]:
    if isinstance(value, dict):
        return [line for key, part in value.items() for line in _flat_text(part, f"{prefix}{key} ")]
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, tuple) and value and isinstance(value[0], str):
        value = " ".join(map(str, value))  # a parsed entry: label, number, unit
    return (
        [f"{prefix}{line}".strip() for line in value.splitlines()] if isinstance(value, str) else [f"{prefix}{value}"]
    )
