"""Check a folder of micrographs and masks before a long run stumbles over what is wrong with it."""

from collections import Counter
from collections.abc import Set
from pathlib import Path

import numpy as np
import pandas as pd

from micro_lib.core.labels import ClassMap
from micro_lib.core.progress import progress
from micro_lib.data.files import info_bar_rows, mask_fix, read_mask, read_micrograph, value_counts
from micro_lib.data.formats import SUFFIXES, MicrographError, read_pixel_size, read_raw
from micro_lib.data.manifest import MANIFEST, inspected

COLUMNS = ("severity", "file", "found", "expected", "fix")
SEVERITIES = ("error", "warning", "info")  # cannot be used; can be used, but look at it; good to know


def check(folder: str | Path, class_map: ClassMap | None = None) -> pd.DataFrame:
    """Report every problem of a folder of micrographs and masks at once, before a long run stumbles over the first.

    Parameters
    ----------
    folder : str or pathlib.Path
        Holds ``images/`` and, for labelled data, ``masks/`` with files of the same names (suffixes may differ); or,
        without an ``images`` folder, the micrographs themselves. A ``manifest.csv``, see
        `micro_lib.data.manifest.read_manifest`, makes it a data pack, whose images are PNG.
    class_map : ClassMap, optional
        What the masks mean; without it their values are reported, not judged.

    Returns
    -------
    pandas.DataFrame
        One row a problem, errors first: severity (`SEVERITIES`), file (relative to `folder`), found, expected, fix.
        Empty if all is well. `describe` prints it.

    Raises
    ------
    NotADirectoryError
        If `folder` is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder; expected one with images/ and masks/, or with micrographs")
    findings = _Findings(folder)
    has_images = (folder / "images").is_dir()
    images = findings.listed(folder / "images" if has_images else folder)
    masks = findings.listed(folder / "masks") if (folder / "masks").is_dir() else {}
    if not images:
        findings.add("error", folder, "no micrographs", " ".join(SUFFIXES), "Put them into images/, masks into masks/.")
    sizes = findings.check_manifest(folder / MANIFEST, images) if (folder / MANIFEST).is_file() else set()
    shapes = findings.check_images(images, sizes)
    if (folder / "masks").is_dir():
        findings.check_pairs(images, masks)
        findings.check_masks(masks, shapes, class_map)
    elif class_map:  # whoever names classes has masks, perhaps in a folder of another name
        others = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != "images")
        found = f"no masks folder, but {', '.join(others)}" if others else "no masks folder"
        findings.add("error", folder, found, "masks/ for labelled data", "Put the masks there, named as their images.")
    elif has_images:
        findings.add("info", folder, "no masks folder", "masks/ for labelled data", "Nothing to do to segment only.")
    table = pd.DataFrame(findings.rows, columns=list(COLUMNS))
    order = table["severity"].map(SEVERITIES.index)
    return table.iloc[np.lexsort((table["file"], order))].reset_index(drop=True)


def describe(problems: pd.DataFrame) -> str:
    """Return the table of `check` as text for a terminal, one paragraph a problem, the count of each severity first."""
    if problems.empty:
        return "no problems found"
    counts = Counter(problems["severity"])
    lines = [", ".join(f"{counts[s]} {s}{'s' * (counts[s] > 1 and s != 'info')}" for s in SEVERITIES if s in counts)]
    for row in problems.itertuples(index=False):
        lines += [f"{row.severity}: {row.file}", f"    found {row.found}; expected {row.expected}", f"    {row.fix}"]
    return "\n".join(lines)


class _Findings:
    """Collects the problem rows of one folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: list[tuple[str, str, str, str, str]] = []

    def add(self, severity: str, file: Path, found: str, expected: str, fix: str) -> None:
        name = file.relative_to(self.folder).as_posix() if file.is_relative_to(self.folder) else file.as_posix()
        self.rows.append((severity, name, found, expected, fix))

    def listed(self, folder: Path) -> dict[str, Path]:
        """Return the micrographs or masks of a folder by stem, sorted; reports names that clash or are passed over."""
        files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
        known = [file for file in files if file.suffix.lower() in SUFFIXES]
        for file in sorted(set(files) - set(known)):
            if file.name not in ("Thumbs.db", "desktop.ini", MANIFEST):
                self.add("info", file, f"a {file.suffix or 'nameless'} file", " ".join(SUFFIXES), "It is passed over.")
        by_stem: dict[str, Path] = {}
        for file in known:
            if file.stem in by_stem:
                found = f"the stem of {by_stem[file.stem].name} again"
                self.add("error", file, found, "one file a name", "Remove or rename one of the two.")
            by_stem.setdefault(file.stem, file)
        for group in _differing_in_case(by_stem):
            found = f"names that differ in case only: {', '.join(group)}"
            fix = "Rename: on Windows and macOS they are one file."
            self.add("warning", by_stem[group[0]], found, "names that differ in letters", fix)
        return by_stem

    def check_manifest(self, path: Path, images: dict[str, Path]) -> set[str]:
        """Hold a manifest against the images; return the names that it gives a pixel size."""
        table, faults = inspected(path)
        for error in faults:
            self.add("error", path, error.found, error.expected, error.fix)
        for name in sorted(set(table["name"]) - images.keys() - {""}):
            partner = next((stem for stem in images if stem.lstrip("0") == name.lstrip("0")), "")
            fix = f"Write {partner}: names are text, leading zeros count." if partner else "Add it, or remove the row."
            self.add("error", path, f"name {name!r} without an image", f"images/{name}.png", fix)
        for stem, file in images.items() if len(table) else ():
            if stem not in set(table["name"]):
                self.add("warning", file, f"no row in {path.name}", "one row a micrograph", "Without it is not read.")
            elif file.suffix != ".png":
                self.add("error", file, f"a {file.suffix} file", f"{stem}.png, as in all packs", "Export it as PNG.")
        return set(table.loc[table["um_per_px"].notna(), "name"])

    def check_images(self, images: dict[str, Path], scaled: Set[str]) -> dict[str, tuple[tuple[int, int], int]]:
        """Read every micrograph; return by stem the shapes and the heights of the information bars.

        Those `scaled` by a manifest need no scale in their tags.
        """
        shapes, depths, unscaled = {}, {}, []
        for stem, file in progress(images.items(), desc="reading images", unit="image", delay=2):
            try:
                image = read_micrograph(file)
                bar = info_bar_rows(image.pixels)
            except MicrographError as error:
                self.add("error", file, error.found, error.expected, error.fix)
                continue
            shapes[stem], depths[stem] = (image.pixels.shape, bar), str(image.pixels.dtype)
            if image.pixel_size_um is None and stem not in scaled:
                unscaled.append(file)
            if bar:
                fix = "Read it with crop_info_bar=True, and crop its mask alike, or mask the rows."
                self.add("warning", file, f"an information bar in the last {bar} rows", "a micrograph only", fix)
        self._check_depths(images, depths)
        self._check_scale(images, unscaled)
        return shapes

    def _check_depths(self, images: dict[str, Path], depths: dict[str, str]) -> None:
        counts = Counter(depths.values()).most_common()
        for depth, n in counts[1:]:
            first = next(images[stem] for stem, found in depths.items() if found == depth)
            found = f"{depth} pixels in {n} of {len(depths)} images, this the first; most are {counts[0][0]}"
            fix = "Export all at one bit depth; their grey levels may not compare."
            self.add("warning", first, found, "one bit depth", fix)

    def _check_scale(self, images: dict[str, Path], unscaled: list[Path]) -> None:
        if unscaled:
            found = f"no pixel size in {len(unscaled)} of {len(images)} images, this the first: "
            fix = f"Give pixel_size_um when reading, or um_per_px in {MANIFEST}; else sizes come in pixels only."
            self.add("warning", unscaled[0], found + read_pixel_size(unscaled[0])[1], "a scale in the tags", fix)

    def check_pairs(self, images: dict[str, Path], masks: dict[str, Path]) -> None:
        for kind, own, others in (("mask", images, masks), ("image", masks, images)):
            for stem in sorted(own.keys() - others.keys()):
                partner = _likely_partner(stem, others)
                fix = f"Rename {partner.name}: names must be equal but for the suffix." if partner else ""
                self.add(
                    "error", own[stem], f"no {kind} of that name", f"{stem}.*", fix or f"Add its {kind} or remove it."
                )

    def check_masks(self, masks: dict[str, Path], shapes: dict, class_map: ClassMap | None) -> None:
        """Read every mask; report sizes, unknown values and classes that occur nowhere."""
        present: set[int] = set()
        for stem, file in progress(masks.items(), desc="reading masks", unit="mask", delay=2):
            try:
                shape, ids = self._one_mask(file, class_map)
            except MicrographError as error:
                self.add("error", file, error.found, error.expected, error.fix)
                continue
            present |= ids
            if stem in shapes and shape != shapes[stem][0]:
                self._report_size(file, shape, *shapes[stem])
        if class_map is not None and present:
            for i in sorted(set(range(len(class_map.classes))) - present):
                found = f"class {i} ({class_map.classes[i]}) in none of {len(masks)} masks"
                fix = "Label some, or use a class map without it: a model cannot learn it."
                self.add("warning", self.folder / "masks", found, "every class at least once", fix)

    def _one_mask(self, file: Path, class_map: ClassMap | None) -> tuple[tuple[int, int], set[int]]:
        if class_map is not None:
            ids = read_mask(file, class_map)
            return ids.shape, set(np.unique(ids).tolist())
        raw = read_raw(file)
        found = dict(value_counts(raw.pixels))
        if found.keys() != {0} and (raw.pixels.ndim == 3 or max(found) > len(found)):
            shown = "; ".join(f"{value}: {n} px" for value, n in list(found.items())[:12])
            fix = mask_fix(file, raw.pixels, None)
            self.add("warning", file, f"values {{{shown}}}", "class ids 0, 1, 2, ... or a class map", fix)
        return raw.pixels.shape[:2], set()

    def _report_size(self, file: Path, shape: tuple, image_shape: tuple, bar: int) -> None:
        fix = "Export both at one size; a mask may only be resized with nearest neighbour."
        if bar and shape == (image_shape[0] - bar, image_shape[1]):
            fix = "It fits the image without its information bar: read that with crop_info_bar=True."
        elif shape == image_shape[::-1]:
            fix = "Height and width are swapped: turn one of the two."
        size, expected = "x".join(map(str, shape)), "x".join(map(str, image_shape))
        self.add("error", file, f"a mask of {size} (height x width)", f"{expected}, the size of its image", fix)


def _differing_in_case(names: dict[str, Path]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _likely_partner(stem: str, others: dict[str, Path]) -> Path | None:
    """Return the file that a differently written name probably belongs to: other case, or more or less of a suffix."""
    plain = _bare(stem)
    return next((file for name, file in others.items() if _bare(name) == plain), None)


def _bare(stem: str) -> str:
    stem = stem.casefold()
    for word in ("mask", "label", "labels", "gt", "seg", "annot"):
        stem = stem.removesuffix(f"_{word}").removesuffix(f"-{word}")
    return stem
