"""The folder command: segment every micrograph of a folder and measure its grains."""

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image as PillowImage

from micro_lib.analysis import grain_size
from micro_lib.core.progress import progress
from micro_lib.core.runs import atomic_path, write_table
from micro_lib.data.files import read_micrograph, write_mask
from micro_lib.data.formats import SUFFIXES
from micro_lib.models.carded import CardError
from micro_lib.models.devices import best_device
from micro_lib.models.scaling import Segmented, segment_micrograph
from micro_lib.models.segmenter import Segmenter

OVERLAY_STRENGTH = 0.6


class SegmentError(RuntimeError):
    """The command was asked for something it cannot do; the message says what and how to fix it."""


@dataclass(frozen=True)
class Report:
    """What became of a folder."""

    measurements: pd.DataFrame  # one row an image that worked
    warnings: Mapping[str, str]  # by file name
    failures: Mapping[str, str]


def main(arguments: list[str]) -> int:
    """Run the command; return 0 if all images worked, 1 if some failed, 2 if nothing could be done."""
    options = _parser().parse_args(arguments)
    try:
        segmenter = Segmenter.load(options.model, device=best_device())
        report = segment_folder(
            segmenter,
            options.folder,
            options.out,
            pixel_size_um=options.pixel_size_um,
            grain_px=options.grain_px,
            line_px=options.line_px,
            crop_info_bar=options.crop_info_bar,
        )
    except (FileNotFoundError, CardError, SegmentError) as error:
        print(f"micro_lib segment: {error}", file=sys.stderr)
        return 2
    _print(report, options.out)
    return 1 if report.failures else 0


def segment_folder(
    segmenter: Segmenter,
    folder: str | Path,
    out: str | Path,
    *,
    pixel_size_um: float | None = None,
    grain_px: float | None = None,
    line_px: int = 0,
    crop_info_bar: bool = False,
) -> Report:
    """Segment every image of a folder, going on past those that fail.

    Writes ``masks/<name>.png`` (uint8 class ids, size of the input), ``overlays/<name>.png`` and
    ``measurements.csv`` into `out`.

    Parameters
    ----------
    segmenter : Segmenter
        With the classes grain (0) and boundary (1).
    folder : str or pathlib.Path
        TIFF, PNG and JPEG files directly in it; other files are left alone.
    out : str or pathlib.Path
        Folder of the results.
    pixel_size_um : float, optional
        Edge of a pixel in um; otherwise that of each file's tags, or none: sizes in pixels alone.
    grain_px : float, optional
        Mean intercept of the grains in pixels, where it is known; otherwise a first pass estimates it.
    line_px : int
        Width to draw the boundaries with; 0 is the one the model was trained on. Width is a convention of the
        annotator: it moves pixel scores, hardly the grain size.
    crop_info_bar : bool
        Cut off the microscope's information bar; the masks then have the size of the rest.

    Returns
    -------
    Report
        One row an image: name, height, width, pixel_size_um, grain_px, scale, outside_trained_range,
        boundary_fraction, and the sizes by intercept and planimetric method with 95 % intervals, in px and, with a
        pixel size, um and ASTM number; warnings and failures by file name.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    SegmentError
        If it holds no image, two images share a name, a result would overwrite an input, or a width is given for a
        model that draws no lines.
    """
    if line_px and not segmenter.card.line_px:
        raise SegmentError("the model takes the likelier class of each pixel and draws no lines: leave out --line-px")
    paths, out = _inputs(Path(folder), Path(out)), Path(out)
    rows, warned, failures = [], {}, {}
    for path in progress(paths, desc="segmenting", unit="image"):
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                image = read_micrograph(path, pixel_size_um, crop_info_bar)
            result = segment_micrograph(segmenter, image.pixels, grain_px, line_px)
            write_mask(out / "masks" / f"{path.stem}.png", result.mask)
            _write_overlay(out / "overlays" / f"{path.stem}.png", image.pixels, result.mask, segmenter)
            sizes, remark = _sizes(result.mask, image.pixel_size_um)
        except (ValueError, OSError, MemoryError) as error:
            failures[path.name] = str(error)
            continue
        rows.append(_row(path, result, image.pixel_size_um, segmenter) | sizes)
        if words := "; ".join(filter(None, [*(str(w.message) for w in caught), result.warning, remark])):
            warned[path.name] = words
    table = pd.DataFrame(rows)
    if rows:
        write_table(table, out / "measurements.csv")
    return Report(table, warned, failures)


def _inputs(folder: Path, out: Path) -> list[Path]:
    """List the images of a folder, sorted; raise if the command must not run on them."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; give the folder that holds the micrographs")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise SegmentError(f"{folder} holds no image; read are {', '.join(SUFFIXES)}")
    if shared := [stem for stem, count in Counter(path.stem for path in paths).items() if count > 1]:
        names = [path.name for path in paths if path.stem in shared]
        raise SegmentError(f"{folder}: {', '.join(names)} would share a mask; rename them")
    if folder.resolve() in {(out / part).resolve() for part in ("masks", "overlays")}:
        raise SegmentError(f"the results in {out} would overwrite the micrographs in {folder}; give another OUT")
    return paths


def _row(path: Path, result: Segmented, pixel_size_um: float | None, segmenter: Segmenter) -> dict:
    low, high = segmenter.card.grain_px
    height, width = result.mask.shape
    return {
        "name": path.name,
        "height": height,
        "width": width,
        "pixel_size_um": pixel_size_um,
        "grain_px": result.grain_px,
        "scale": result.scale,
        "outside_trained_range": result.scale != 1 or not low <= result.grain_px <= high,
        "boundary_fraction": float(result.mask.mean()),
    }


def _sizes(mask: np.ndarray, pixel_size_um: float | None) -> tuple[dict, str]:
    """Grain sizes of a mask as columns, or none and the reason."""
    try:
        measured = grain_size.measure(mask, pixel_size_um)
    except (grain_size.GrainSizeError, ValueError) as error:
        return {}, f"no grain size: {error}"
    row = {}
    for method, size in measured.items():
        columns = {name: value for name, value in size.as_row().items() if name not in ("method", "pixel_size_um")}
        row |= {f"{method}_{name}": value for name, value in columns.items()}
    return row, ""


def _write_overlay(path: Path, pixels: np.ndarray, mask: np.ndarray, segmenter: Segmenter) -> None:
    """Draw the boundaries in their colour over the image, stretched between its 1st and 99th percentile."""
    low, high = np.percentile(pixels, [1, 99])
    grey = np.clip((pixels - low) / max(high - low, 1e-12), 0, 1) * 255
    colour = np.array([int(segmenter.card.class_map.colours[1][i : i + 2], 16) for i in (1, 3, 5)])
    cover = (mask > 0)[..., None] * OVERLAY_STRENGTH  # (H, W, 1)
    picture = grey[..., None] * (1 - cover) + colour * cover  # (H, W, 3)
    with atomic_path(path) as temporary:
        PillowImage.fromarray(picture.round().astype(np.uint8)).save(temporary)


def _print(report: Report, out: str) -> None:
    for name, words in report.warnings.items():
        print(f"warning: {name}: {words}", file=sys.stderr)
    for name, words in report.failures.items():
        print(f"failed: {name}: {words}", file=sys.stderr)
    done = len(report.measurements)
    print(f"{done} of {done + len(report.failures)} images segmented; masks, overlays and measurements.csv in {out}")
    if not done or "intercept_size_px" not in report.measurements:
        return
    unit = "um" if report.measurements["pixel_size_um"].notna().all() else "px"
    columns = ["name", *(f"intercept_{part}_{unit}" for part in ("size", "low", "high"))]
    print(report.measurements[columns].round(2).to_string(index=False))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m micro_lib segment", description="Segment every micrograph of a folder and measure its grains."
    )
    parser.add_argument("model", metavar="MODEL", help="a trained segmenter, e.g. build/models/grains.safetensors")
    parser.add_argument("folder", metavar="FOLDER", help="folder with TIFF, PNG or JPEG micrographs")
    parser.add_argument("out", metavar="OUT", help="folder for masks/, overlays/ and measurements.csv")
    parser.add_argument(
        "--pixel-size-um", type=_positive, metavar="X", help="edge of a pixel in um, over the files' tags"
    )
    parser.add_argument("--grain-px", type=_positive, metavar="G", help="mean intercept of the grains in px, if known")
    parser.add_argument(
        "--line-px", type=_width, default=0, metavar="W", help="width to draw boundaries with, else the model's"
    )
    parser.add_argument("--crop-info-bar", action="store_true", help="cut off the microscope's information bar")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not (np.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _width(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of pixels, 1 or more")
    return int(text)
