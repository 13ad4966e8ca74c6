"""The folder command: segment every micrograph of a folder and measure its grains."""

import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image as PillowImage

from micro_lib.analysis import grain_size
from micro_lib.core.labels import GRAIN_BOUNDARY
from micro_lib.core.progress import progress
from micro_lib.core.runs import atomic_path, read_table, write_table
from micro_lib.data.files import Image, info_bar_rows, read_micrograph, write_mask
from micro_lib.data.formats import SUFFIXES
from micro_lib.models.carded import CardError
from micro_lib.models.devices import best_device
from micro_lib.models.scaling import Segmented, segment_micrograph
from micro_lib.models.segmenter import Segmenter

OVERLAY_STRENGTH = 0.6
TABLE, PICTURES = "measurements.csv", ("masks", "overlays")  # the results
DONE, FAILED, NOT_REACHED = "segmented", "failed", "not reached"


class SegmentError(RuntimeError):
    """The command was asked for something it cannot do; the message says what and how to fix it."""


@dataclass(frozen=True)
class Report:
    """What became of a folder."""

    measurements: pd.DataFrame  # one row an image

    @property
    def warnings(self) -> dict[str, str]:
        """What is to be looked at, by file name."""
        return self._remarks(DONE)

    @property
    def failures(self) -> dict[str, str]:
        """Why there is no mask, by file name."""
        return self._remarks(FAILED)

    def _remarks(self, status: str) -> dict[str, str]:
        rows = self.measurements[self.measurements["status"].eq(status) & self.measurements["remark"].ne("")]
        return dict(zip(rows["name"], rows["remark"], strict=True))


def segment(model: str, folder: str, out: str, **options) -> int:
    """Load a model, segment a folder with it and print what came of it; `options` as of `segment_folder`.

    Returns
    -------
    int
        0 if all images worked, 1 if some failed, 2 if nothing could be done, 130 if stopped.
    """
    try:
        report = segment_folder(Segmenter.load(model, device=best_device()), folder, out, **options)
    except (FileNotFoundError, CardError, SegmentError) as error:
        print(f"micro_lib segment: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; {Path(out, TABLE)} says which images are done", file=sys.stderr)
        return 130
    _print(report, out)
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

    Writes ``masks/<name>.png`` (uint8 class ids, size of the input), ``overlays/<name>.png`` and, after each image,
    ``measurements.csv`` into `out`. Run again on the same folder, it writes all of them anew.

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
        Cut off the microscope's information bar, the masks then have the size of the rest; else it is warned of.

    Returns
    -------
    Report
        One row an image: name, status ("segmented" or "failed"; in the table of a killed run "not reached"), remark
        (warnings, or why it failed), height, width, pixel_size_um, grain_px, scale, outside_trained_range,
        boundary_fraction, and the sizes by intercept and planimetric method with 95 % intervals, in px and, with a
        pixel size, um and ASTM number; warnings and failures by file name.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    SegmentError
        If it holds no image, two images share a name, `out` is no folder for its results or holds others, the model
        has other classes, or a width is given for a model that draws no lines.
    """
    if (classes := segmenter.card.class_map.classes) != GRAIN_BOUNDARY.classes:
        expected = ", ".join(GRAIN_BOUNDARY.classes)
        raise SegmentError(f"the model tells {', '.join(classes)} apart; grains are measured by one of {expected}")
    if line_px and not segmenter.card.line_px:
        raise SegmentError("the model takes the likelier class of each pixel and draws no lines: leave out --line-px")
    paths, out = _inputs(Path(folder), Path(out)), Path(out)
    _claim(out, paths)
    rows: list[dict] = []
    for path in progress(paths, desc="segmenting", unit="image"):
        rows.append(_segmented(segmenter, path, out, pixel_size_um, grain_px, line_px, crop_info_bar))
        _write_rows(out, paths, rows)
    return Report(pd.DataFrame(rows))


def _segmented(segmenter: Segmenter, path: Path, out: Path, pixel_size_um, grain_px, line_px, crop_info_bar) -> dict:
    """Segment one image, write its mask and overlay; return its row, that of a failure too."""
    pictures = [out / part / f"{path.stem}.png" for part in PICTURES]
    try:
        image, remarks = _read(path, pixel_size_um, crop_info_bar)
        result = segment_micrograph(segmenter, image.pixels, grain_px, line_px)
        write_mask(pictures[0], result.mask)
        _write_overlay(pictures[1], image.pixels, result.mask, segmenter)
        sizes, without = _sizes(result.mask, image.pixel_size_um)
    except (ValueError, OSError, MemoryError) as error:
        for picture in pictures:  # of a run before
            picture.unlink(missing_ok=True)
        return {"name": path.name, "status": FAILED, "remark": str(error)}
    remark = "; ".join(filter(None, [*remarks, result.warning, without]))
    return _row(path, remark, result, image.pixel_size_um, segmenter) | sizes


def _write_rows(out: Path, paths: Sequence[Path], rows: Sequence[Mapping]) -> None:
    """Write the rows of the images that are done, and that the others are not reached."""
    left = [{"name": path.name, "status": NOT_REACHED, "remark": ""} for path in paths[len(rows) :]]
    write_table(pd.DataFrame([*rows, *left]), out / TABLE)


def _read(path: Path, pixel_size_um: float | None, crop_info_bar: bool) -> tuple[Image, list[str]]:
    """Read a micrograph, and tell what is to be known of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = read_micrograph(path, pixel_size_um, crop_info_bar)
    remarks = [str(warning.message) for warning in caught]
    if not crop_info_bar and (bar := info_bar_rows(image.pixels)):
        remarks.append(f"the last {bar} rows look like an information bar and were segmented too: --crop-info-bar")
    return image, remarks


def _inputs(folder: Path, out: Path) -> list[Path]:
    """List the images of a folder, sorted; raise if the command must not run on them."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; give the folder that holds the micrographs")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not paths:
        inner = f"; give {folder / 'images'}" if (folder / "images").is_dir() else ""
        raise SegmentError(f"{folder} holds no image itself; read are {', '.join(SUFFIXES)}{inner}")
    if shared := [stem for stem, count in Counter(path.stem for path in paths).items() if count > 1]:
        names = [path.name for path in paths if path.stem in shared]
        raise SegmentError(f"{folder}: {', '.join(names)} would share a mask; rename them")
    if folder.resolve() in {(out / part).resolve() for part in PICTURES}:
        raise SegmentError(f"the results in {out} would overwrite the micrographs in {folder}; give another OUT")
    return paths


def _claim(out: Path, paths: list[Path]) -> None:
    """Begin the table of results, so that a killed run leaves none of before; refuse a folder that holds others."""
    is_used = (out / TABLE).is_file()
    if is_used and (others := sorted(_listed(out / TABLE) - {path.name for path in paths})):
        raise SegmentError(f"{out} holds results of other images ({', '.join(others[:3])}); give another OUT")
    if not is_used and (found := [file for part in PICTURES for file in (out / part).glob("[!.]*")]):
        raise SegmentError(f"{min(found)} was not made by this command; give another OUT")
    try:
        _write_rows(out, paths, [])
    except OSError as error:
        raise SegmentError(f"{out} is no folder that results can be written to ({error.strerror})") from error


def _listed(table: Path) -> set[str]:
    try:
        return set(read_table(table)[["name", "status"]]["name"])
    except (KeyError, ValueError) as error:
        raise SegmentError(f"{table} was not made by this command; give another OUT") from error


def _row(path: Path, remark: str, result: Segmented, pixel_size_um: float | None, segmenter: Segmenter) -> dict:
    low, high = segmenter.card.grain_px
    height, width = result.mask.shape
    return {
        "name": path.name,
        "status": DONE,
        "remark": remark,
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
    done = report.measurements[report.measurements["status"] == DONE]
    print(f"{len(done)} of {len(report.measurements)} images segmented; masks, overlays and {TABLE} in {out}")
    if done.empty or "intercept_size_px" not in done:
        return
    unit = "um" if done["pixel_size_um"].notna().all() else "px"
    columns = ["name", *(f"intercept_{part}_{unit}" for part in ("size", "low", "high"))]
    print(done[columns].round(2).to_string(index=False))
