"""The manifest of a folder of micrographs, ``manifest.csv``: one row a micrograph, with what its pixels cannot tell."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from micro_lib.data.formats import MicrographError

MANIFEST = "manifest.csv"
NEEDED = ("name", "specimen")
# Columns that a Record carries on. oxide_fraction: share of the pixels that are thermally grown oxide.
ATTRIBUTES = ("oxide_fraction",)


def read_manifest(path: str | Path) -> pd.DataFrame:
    """Read and check a manifest; names, specimens and groups are text, so leading zeros stay.

    Parameters
    ----------
    path : str or pathlib.Path
        CSV in UTF-8 with commas, points as decimal signs, and a header: name (of the files, without suffix), specimen,
        and where known overlap_group, um_per_px, domain and `ATTRIBUTES`.

    Returns
    -------
    pandas.DataFrame
        One row a micrograph, sorted by name: name, group (its overlap group, where there is none its specimen),
        um_per_px (NaN: unknown), domain ("": unknown), and those of `ATTRIBUTES` that there are.

    Raises
    ------
    MicrographError
        If the file cannot be read, a name is missing or given twice, a micrograph has neither specimen nor overlap
        group, a specimen has an overlap group in some rows only, or a number is none.
    """
    table, faults = inspected(path)
    if faults:
        first, more = faults[0], len(faults) - 1
        others = f" {more} more: `python -m micro_lib check {Path(path).parent}` lists all." if more else ""
        raise MicrographError(first.file, first.found, first.expected, first.fix + others)
    return table


def inspected(path: str | Path) -> tuple[pd.DataFrame, list[MicrographError]]:
    """Return a manifest as `read_manifest` does, and all that is wrong with it; without rows where none can be read.

    Parameters
    ----------
    path : str or pathlib.Path
        As for `read_manifest`.

    Returns
    -------
    table : pandas.DataFrame
        As of `read_manifest`; a number that is none is NaN.
    faults : list of MicrographError
        Empty where nothing is wrong.
    """
    path = Path(path)
    try:
        cells = _cells(path)
    except MicrographError as error:
        return pd.DataFrame(columns=["name", "group", "um_per_px", "domain"]), [error]
    faults = [*_name_faults(path, cells["name"]), *_group_faults(path, cells)]
    found = pd.DataFrame({"name": cells["name"], "group": cells["overlap_group"].where(cells["overlap_group"].ne(""))})
    found["group"] = found["group"].fillna(cells["specimen"])
    for column in ("um_per_px", *(name for name in ATTRIBUTES if name in cells)):
        found[column] = pd.to_numeric(cells[column], errors="coerce")
        usable = np.isfinite(found[column]) & ((found[column] > 0) | (column != "um_per_px"))
        faults += _number_faults(path, cells[column][cells[column].ne("") & ~usable])
    found["domain"] = cells["domain"]
    return found.sort_values("name", ignore_index=True), faults


def _cells(path: Path) -> pd.DataFrame:
    """Return the cells of a manifest as text, stripped, by line of the file; columns that may be left out are empty."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        found = f"no readable file ({error.strerror or error})"
        raise MicrographError(path, found, "a manifest, CSV", "Check the name and the rights.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        fix = "Save it as UTF-8: a spreadsheet offers 'CSV UTF-8'."
        raise MicrographError(path, f"letters in line {line} that are not in UTF-8", "text in UTF-8", fix) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
        lines = {line: row for line, row in rows if any(row)}
    except csv.Error as error:
        found = f"broken CSV in line {reader.line_num} ({error})"
        raise MicrographError(path, found, "cells between commas, quotes in pairs", "Mend the line.") from error
    header = lines.pop(min(lines)) if lines else []
    if not set(NEEDED) <= set(header) or len(set(header)) < len(header):
        expected = "the columns name and specimen, better also overlap_group and um_per_px, each once"
        fix = "Separate the columns by commas." if ";" in text or "\t" in text else "Add what lacks."
        raise MicrographError(path, f"columns {header}" if header else "an empty file", expected, fix)
    if uneven := [line for line, row in lines.items() if len(row) != len(header)]:
        found = f"{len(lines[uneven[0]])} cells in {_named(uneven)}"
        fix = 'Decimal signs are points, and a text with a comma stands in quotes: "so, then".'
        raise MicrographError(path, found, f"{len(header)}, as in the header", fix)
    if not lines:
        raise MicrographError(path, "a header without rows", "one row a micrograph", "List the micrographs.")
    table = pd.DataFrame.from_dict(lines, orient="index", columns=header)
    return table.reindex(columns=list(dict.fromkeys([*header, "overlap_group", "um_per_px", "domain"])), fill_value="")


def _name_faults(path: Path, names: pd.Series) -> Iterable[MicrographError]:
    if len(unnamed := names[names.eq("")]):
        yield MicrographError(
            path, f"no name in {_named(unnamed.index)}", "a name in every row", "Give or remove them."
        )
    for name, rows in names[names.ne("")].groupby(names):
        if len(rows) > 1:
            fix = "Remove all rows but one: each micrograph counts once."
            yield MicrographError(path, f"name {name!r} in {_named(rows.index)}", "every name once", fix)


def _group_faults(path: Path, cells: pd.DataFrame) -> Iterable[MicrographError]:
    """Micrographs of one specimen that are not known as such would be learned from and tested on."""
    grouped, specimen = cells["overlap_group"].ne(""), cells["specimen"]
    if len(alone := specimen[~grouped & specimen.eq("")]):
        found = f"neither specimen nor overlap_group in {_named(alone.index)}"
        fix = "Name the specimen; that of a lone micrograph may be called as the micrograph is."
        yield MicrographError(path, found, "where each micrograph is from", fix)
    for name, rows in grouped[specimen.ne("")].groupby(specimen):
        if rows.any() and not rows.all():
            found = f"specimen {name!r} without overlap_group in {_named(rows.index[~rows])}, elsewhere with one"
            yield MicrographError(path, found, "it in all rows of a specimen, or in none", "Fill in the overlap_group.")


def _number_faults(path: Path, wrong: pd.Series) -> Iterable[MicrographError]:
    for text, rows in wrong.groupby(wrong):
        fix = f"Write {text.replace(',', '.')}: the decimal sign is a point." if "," in text else "Empty means unknown."
        expected = "a positive number" if wrong.name == "um_per_px" else "a number"
        yield MicrographError(path, f"{wrong.name} {text!r} in {_named(rows.index)}", expected, fix)


def _named(lines: Iterable[int]) -> str:
    lines = list(lines)
    shown = ", ".join(map(str, lines[:8])) + (", ..." if len(lines) > 8 else "")
    return f"line{'s' * (len(lines) > 1)} {shown}"
