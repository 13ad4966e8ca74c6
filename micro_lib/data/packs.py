"""Real data packs: find them, or download and convert them; fall back to generated stand-ins only where asked."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pooch

from micro_lib.core import profiles
from micro_lib.core.checks import one_of
from micro_lib.core.labels import ClassMap
from micro_lib.data.downloads import REGISTRY, fetch
from micro_lib.data.files import read_mask, read_micrograph
from micro_lib.data.formats import MicrographError
from micro_lib.data.manifest import ATTRIBUTES, MANIFEST, read_manifest
from micro_lib.data.records import Record
from micro_lib.data.sources import SOURCES, DataUnavailable, Source

DATA = ("auto", "real", "generated")


@dataclass(frozen=True)
class Pack:
    """Labelled micrographs of one source.

    Parameters
    ----------
    name : str
        Name of the pack.
    records : tuple of Record
        The micrographs, sorted by name.
    credit : str
        To be printed on every picture drawn from them.
    is_generated : bool
        True if these are stand-ins, not real micrographs.
    class_map : ClassMap
        Names and colours of the class ids in the masks.
    """

    name: str
    records: tuple[Record, ...]
    credit: str
    is_generated: bool
    class_map: ClassMap


def pack(
    name: str,
    data: str = "auto",
    split: str = "all",
    *,
    masks: str = "masks",
    profile: str = "",
    cache: str | Path = "",
    base_url: str = "",
) -> Pack:
    """Return a data pack, or one split of it.

    Real packs are taken from ``$MICRO_DATA/<name>``, else from the download cache, else downloaded.

    Parameters
    ----------
    name : str
        A folder name of ``data/cards``.
    data : {"auto", "real", "generated"}
        ``"auto"`` falls back to generated stand-ins, with a warning that says why; ``"real"`` raises instead;
        ``"generated"`` looks nowhere. In the smoke profile ``"auto"`` means ``"generated"``.
    split : str
        ``"all"``, or one of the splits listed in ``data/splits``.
    masks : str
        Folder of masks: ``uhcs`` has two annotation schemes, ``"masks"`` and ``"masks_region"``.
    profile : str
        As for `micro_lib.core.profiles.resolve`.
    cache : str or pathlib.Path
        Folder for downloads; ``""`` is the user's cache folder of the operating system.
    base_url : str
        As for `micro_lib.data.downloads.fetch`.

    Returns
    -------
    Pack
        `Pack.is_generated` must be shown as "generated stand-in" wherever its pictures or numbers are.

    Raises
    ------
    DataUnavailable
        If the pack cannot be had the way `data` asks for.
    ValueError
        If a name is unknown.
    """
    source = _checked(name, data, split, masks)
    if data == "generated" or (data == "auto" and profiles.resolve(profile) == "smoke"):
        return _stand_in(name, source, split, masks, f"DATA is {data!r} in profile {profiles.resolve(profile)!r}.")
    try:
        records = _real_records(name, source, split, masks, cache, base_url)
    except DataUnavailable as error:
        if data == "real":
            raise
        made = _stand_in(name, source, split, masks, str(error))
        warnings.warn(f"{error} Going on with generated stand-ins instead.", stacklevel=2)
        return made
    return Pack(name, records, source.credit, False, source.class_maps[masks])


def _checked(name: str, data: str, split: str, masks: str) -> Source:
    one_of("pack", name, SOURCES)
    source = SOURCES[name]
    one_of("DATA", data, DATA)
    one_of(f"split of pack {name!r}", split, ("all", *source.splits))
    one_of(f"folder of masks of pack {name!r}", masks, source.class_maps)
    return source


def available() -> pd.DataFrame:
    """Return where each pack would be taken from now, without reading or downloading anything.

    Returns
    -------
    pandas.DataFrame
        pack, found ("$MICRO_DATA", "download cache" or ""), otherwise (what happens where it is not found).
    """
    given, rows = os.environ.get("MICRO_DATA", ""), []
    for name, source in SOURCES.items():
        folder = located(name)
        place = "$MICRO_DATA" if given and folder and folder.parent == Path(given) else "download cache"
        otherwise = "get it by hand, see its card" if source.by_hand else "downloaded when asked for"
        rows.append({"pack": name, "found": place if folder else "", "otherwise": "" if folder else otherwise})
    return pd.DataFrame(rows)


def located(name: str) -> Path | None:
    """Return the folder that a pack would be read from now, None if it would have to be downloaded or got by hand.

    Parameters
    ----------
    name : str
        Name of a pack, a key of `micro_lib.data.sources.SOURCES`.
    """
    if (folder := _given(name)) or SOURCES[name].by_hand:
        return folder
    if name == "ebc_crack_tiles":
        return located("nasa_ebc")
    folder = Path(pooch.os_cache("micro_lib")) / name
    return folder if (folder / MANIFEST).is_file() else None


def split_names(name: str, split: str) -> list[str]:
    """Return the committed list of record names of one split of a pack.

    Parameters
    ----------
    name : str
        Name of the pack.
    split : str
        One of the splits listed in ``data/splits``.

    Raises
    ------
    FileNotFoundError
        If there is no such list.
    """
    return (REGISTRY.parent / "splits" / f"{name}_{split}.txt").read_text(encoding="utf-8").split()


# Finding and reading


def _given(name: str) -> Path | None:
    given = os.environ.get("MICRO_DATA", "")
    if given and not Path(given).is_dir():
        warnings.warn(f"MICRO_DATA is {given}, which is no folder: packs are looked for elsewhere", stacklevel=3)
    return Path(given) / name if given and (Path(given) / name / MANIFEST).is_file() else None


def _looked(name: str) -> str:
    """Say where a pack was looked for and what was found there."""
    given = os.environ.get("MICRO_DATA", "")
    if not given:
        return f"Pack {name!r}: MICRO_DATA, the folder of packs, is not set."
    if not Path(given).is_dir():
        return f"Pack {name!r}: MICRO_DATA is {given}, which is no folder."
    folder = Path(given) / name
    return f"Pack {name!r}: {folder} {f'holds no {MANIFEST}' if folder.is_dir() else 'is not there'}."


def _real_records(name: str, source: Source, split: str, masks: str, cache, base_url: str) -> tuple[Record, ...]:
    if folder := _given(name):
        return _read_records(folder, name, source, split, masks)
    looked = _looked(name)
    if source.by_hand:
        raise DataUnavailable(f"{looked} {source.by_hand}")
    try:
        if name == "ebc_crack_tiles":
            return _crack_tiles(_real_records("nasa_ebc", SOURCES["nasa_ebc"], "all", "masks", cache, base_url))
        return _read_records(fetch(name, cache=cache, base_url=base_url), name, source, split, masks)
    except DataUnavailable as error:
        raise DataUnavailable(f"{looked} {error}") from error


def _read_records(folder: Path, name: str, source: Source, split: str, masks: str) -> tuple[Record, ...]:
    manifest = read_manifest(folder / MANIFEST)
    if split != "all":
        listed = split_names(name, split)
        if absent := sorted(set(listed) - set(manifest["name"])):
            shown = ", ".join(absent[:5])
            message = f"{folder} lacks {len(absent)} of the {len(listed)} micrographs of split {split!r}: {shown}"
            if len(absent) == len(listed):
                raise DataUnavailable(f"{message}. Complete the folder, or read split 'all'.")
            warnings.warn(message, stacklevel=4)
        manifest = manifest[manifest["name"].isin(listed)]
    rows = [{**row, "group": source.group or row["group"]} for row in manifest.to_dict("records")]
    return tuple(_read_record(folder, row, masks, source.class_maps[masks]) for row in rows)


def _read_record(folder: Path, row: Mapping, masks: str, class_map: ClassMap) -> Record:
    file, size = f"{row['name']}.png", row["um_per_px"]
    image = read_micrograph(folder / "images" / file, None if np.isnan(size) else size)
    mask = read_mask(folder / masks / file, class_map)
    if mask.shape != image.pixels.shape:
        expected = f"{image.pixels.shape}, the size of its image"
        raise MicrographError(folder / masks / file, f"a mask of {mask.shape}", expected, "Get the pack anew.")
    attributes = {name: row[name] for name in ATTRIBUTES if name in row}
    return Record(row["name"], image.pixels, mask, row["group"], image.pixel_size_um, attributes, row["domain"])


def _crack_tiles(coatings: Sequence[Record]) -> tuple[Record, ...]:
    """Cut the windows of 128 px on a 64 px grid that show a crack, or oxide without one; see the pack's card."""
    tiles = []
    for record in coatings:
        height, width = record.mask.shape
        for y in range(0, height - 127, 64):
            for x in range(0, width - 127, 64):
                window = np.s_[y : y + 128, x : x + 128]
                if label := _tile_label(record.mask[window]):
                    crack = (record.mask[window] == 2).astype(np.uint8)
                    oxide = {"oxide_fraction": round(float((record.mask[window] == 1).mean()), 3)}
                    name = f"{label}_{record.name}_y{y:04d}_x{x:04d}"
                    image = record.image[window].copy()
                    tiles.append(record._replace(name=name, image=image, mask=crack, attributes=oxide))
    return tuple(sorted(tiles, key=lambda tile: tile.name))


def _tile_label(mask: np.ndarray) -> str:
    """Return "crack", "nocrack" or "", from a (128, 128) mask of 0 background, 1 oxide, 2 crack."""
    crack = mask == 2
    if crack.sum() >= 150 and crack[16:112, 16:112].sum() >= 120:
        return "crack"
    return "nocrack" if not crack.any() and (mask == 1).mean() >= 0.6 else ""


def _stand_in(name: str, source: Source, split: str, masks: str, why: str) -> Pack:
    """Return generated micrographs in the place of a pack; each split has its own, "all" has those of every split."""
    if not source.stand_in or masks != "masks":
        message = f"Pack {name!r} has no generated stand-in of its {masks!r}, and the real one is not used: {why}"
        raise DataUnavailable(f"{message} Set MICRO_DATA to a folder that holds it, or go online with DATA='real'.")
    from micro_lib.data import stand_ins  # here, since reading real packs needs no generator

    if source.splits:
        parts = source.splits if split == "all" else (split,)
        records = [record for part in parts for record in stand_ins.grain_boundaries(name, source.stand_in, part)]
    else:
        records = getattr(stand_ins, source.stand_in)()
    credit = f"generated stand-in for {name}, no real data"
    return Pack(name, tuple(records), credit, True, source.class_maps["masks"])
