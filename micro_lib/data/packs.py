"""Real data packs: find them, or download and convert them; fall back to generated stand-ins only where asked."""

import hashlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pooch
import requests
from filelock import FileLock
from PIL import Image as PillowImage
from tqdm.auto import tqdm

from micro_lib.core import profiles
from micro_lib.core.labels import GRAIN_BOUNDARY, ClassMap
from micro_lib.core.runs import read_table, write_table
from micro_lib.data.files import read_mask, read_micrograph, write_mask
from micro_lib.data.formats import MicrographError, read_raw

DATA = ("auto", "real", "generated")
# Columns of a manifest that a Record carries on. oxide_fraction: share of the pixels that are thermally grown oxide.
ATTRIBUTES = ("oxide_fraction",)
REGISTRY = Path(__file__).resolve().parents[2] / "data" / "registry.csv"
GIVE_UP_S = 5.0  # without an answer, or without a byte, for this long the network counts as absent
_RETRIES = 2  # of a file that came broken
_FOLDER = {"image": "images", "mask": "masks", "mask_region": "masks_region", "grains": "grains"}


class DataUnavailable(RuntimeError):
    """A pack cannot be had here; the message says what was tried and what to do."""


class Record(NamedTuple):
    """One labelled micrograph."""

    name: str
    image: np.ndarray  # (H, W) uint8 or uint16
    mask: np.ndarray  # (H, W) uint8 class ids
    group: str  # overlap group or specimen: never split within one
    pixel_size_um: float | None
    attributes: Mapping[str, float] = MappingProxyType({})  # what else is known of it; see `ATTRIBUTES`
    domain: str = ""  # how it was taken, where a pack has several ways: a view, a preparation


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


class _Source(NamedTuple):
    credit: str
    class_maps: Mapping[str, ClassMap]  # by folder of masks
    splits: tuple[str, ...] = ()
    stand_in: str = ""  # preset of synthesis.grains, or a function of `data.stand_ins`
    group: str = ""  # the one group of all records, where the specimens of the manifest are not independent
    by_hand: str = ""  # where to get it, for packs that are not downloaded


def _ids(name: str, classes: Sequence[str], levels: Sequence[int] | None = None) -> ClassMap:
    colours = ("#56b4e9", "#d55e00", "#f0e442", "#009e73")  # Okabe and Ito's palette, made for colour-blind readers
    values = {level: i for i, level in enumerate(levels or range(len(classes)))}
    return ClassMap(name, tuple(classes), values, colours[: len(classes)])


_NASA = "J. Stuckner, B. Harder, T. M. Smith, npj Comput. Mater. 8, 200 (2022), MIT licence"
_UHCS = "B. L. DeCost et al., Microsc. Microanal. 25, 21 (2019), CC BY 3.0 US; labels B. Lei, MatSeg, MIT licence"
_CRACKS = _ids("crack_tiles", ("no crack", "crack"), (0, 255))
_COATING = _ids("coating", ("background", "thermally grown oxide", "crack"))
_STEEL = ("matrix", "network", "spheroidite", "Widmanstaetten")
_STEEL_REGIONS = ("denuded ferrite", "network", "spheroidite region", "Widmanstaetten")
_SUPERALLOY = ("matrix", "secondary gamma prime", "tertiary gamma prime")
_SOURCES = {
    "ebc_crack_tiles": _Source(f"Environmental barrier coating: {_NASA}", {"masks": _CRACKS}, stand_in="crack_tiles"),
    "nasa_ebc": _Source(f"Environmental barrier coating: {_NASA}", {"masks": _COATING}, stand_in="coating"),
    "nasa_superalloy": _Source(
        f"Ni superalloy: {_NASA}", {"masks": _ids("superalloy", _SUPERALLOY)}, stand_in="superalloy"
    ),
    "sx_superalloy_1070C": _Source(
        "Single-crystal Ni superalloy: amptere, Prompt-Guided Superalloy Segmentation (2026), MIT licence",
        {"masks": _ids("gamma_prime", ("gamma channel", "gamma prime"), (0, 255))},
    ),
    "uhcs": _Source(
        f"Ultrahigh carbon steel: {_UHCS}",
        {"masks": _ids("uhcs", _STEEL), "masks_region": _ids("uhcs_region", _STEEL_REGIONS)},
        stand_in="carbides",
    ),
    "ss316l_grains": _Source(
        "316L steel: P. Warren et al., arXiv:2307.05911 (2023), research use, licence unclear",
        {"masks": GRAIN_BOUNDARY},
        ("development", "test"),
        "steel_316l",
        by_hand="It has no clear licence, so it is never downloaded: data/cards/ss316l_grains.md says where it comes "
        "from and how to lay it out.",
    ),
    "pure_iron_serial": _Source(
        "Pure iron: B. Ma et al., Fast-FineCut, Micron 116 (2018), MIT licence",
        {"masks": GRAIN_BOUNDARY},
        ("test",),
        "iron",
        group="one area in five sections",
    ),
}


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
        As for `fetch`.

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


def fetch(name: str, *, cache: str | Path = "", base_url: str = "") -> Path:
    """Download the originals of a pack, convert them to the pack layout and return its folder.

    Files that are there and whole (SHA-256 of the originals, and of the converted pixels) are kept, so a broken run
    goes on where it stopped. Originals already placed by hand under ``<cache>/originals`` are used as well.

    Parameters
    ----------
    name : str
        A pack of ``data/registry.csv``.
    cache : str or pathlib.Path
        As for `pack`.
    base_url : str
        Replaces scheme and host of the addresses, to fetch from a mirror with the same paths.

    Returns
    -------
    pathlib.Path
        Folder with ``images/``, ``masks/`` and ``manifest.csv``.

    Raises
    ------
    DataUnavailable
        If an original cannot be had whole; the message says which, why and what to do.
    """
    rows = _registry(name)
    base = Path(cache or pooch.os_cache("micro_lib"))
    try:
        base.mkdir(parents=True, exist_ok=True)
        with FileLock(base / f".{name}.lock"):  # two notebooks may want the same pack at once
            _complete(base, name, rows, base_url)
    except OSError as error:
        message = f"The download cache {base} cannot be written ({error}); make room, or mend its rights."
        raise DataUnavailable(message) from error
    return base / name


def _complete(base: Path, name: str, rows: list[dict], base_url: str) -> None:
    missing = [row for row in rows if not _is_whole(base / name, row)]
    if missing:
        originals = _download(name, missing, base / "originals", base_url)
        for row, original in zip(missing, originals, strict=True):
            _convert(base / name, row, original)
    _write_manifest(base / name, rows)  # even if nothing was missing: a killed run may have stopped right before it


def _checked(name: str, data: str, split: str, masks: str) -> _Source:
    if name not in _SOURCES:
        raise ValueError(f"no pack {name!r}; there are {', '.join(sorted(_SOURCES))}")
    source = _SOURCES[name]
    if data not in DATA:
        raise ValueError(f"DATA is {data!r}; expected one of {', '.join(DATA)}")
    if split not in ("all", *source.splits):
        raise ValueError(f"pack {name!r} has no split {split!r}; it has {', '.join(('all', *source.splits))}")
    if masks not in source.class_maps:
        raise ValueError(f"pack {name!r} has no {masks!r}; it has {', '.join(source.class_maps)}")
    return source


def available(cache: str | Path = "") -> pd.DataFrame:
    """Return where each pack would be taken from now, without reading or downloading anything.

    Parameters
    ----------
    cache : str or pathlib.Path
        As for `pack`.

    Returns
    -------
    pandas.DataFrame
        pack, found ("$MICRO_DATA", "download cache" or ""), otherwise (what happens where it is not found).
    """
    given, base = os.environ.get("MICRO_DATA", ""), Path(cache or pooch.os_cache("micro_lib"))
    places = {"$MICRO_DATA": Path(given), "download cache": base} if given else {"download cache": base}
    rows = []
    for name, source in _SOURCES.items():
        found = [place for place, folder in places.items() if (folder / name / "manifest.csv").is_file()]
        otherwise = "get it by hand, see its card" if source.by_hand else "downloaded when asked for"
        rows.append({"pack": name, "found": found[0] if found else "", "otherwise": "" if found else otherwise})
    return pd.DataFrame(rows)


def split_names(name: str, split: str) -> list[str]:
    """Return the committed list of record names of one split of a pack."""
    return (REGISTRY.parent / "splits" / f"{name}_{split}.txt").read_text(encoding="utf-8").split()


# Finding and reading


def _real_records(name: str, source: _Source, split: str, masks: str, cache, base_url: str) -> tuple[Record, ...]:
    given = os.environ.get("MICRO_DATA", "")
    if given and (Path(given) / name / "manifest.csv").is_file():
        return _read_records(Path(given) / name, name, source, split, masks)
    looked = f"Pack {name!r} is not in $MICRO_DATA ({given or 'not set'})."
    if source.by_hand:
        raise DataUnavailable(f"{looked} {source.by_hand}")
    try:
        if name == "ebc_crack_tiles":
            return _crack_tiles(_real_records("nasa_ebc", _SOURCES["nasa_ebc"], "all", "masks", cache, base_url))
        return _read_records(fetch(name, cache=cache, base_url=base_url), name, source, split, masks)
    except DataUnavailable as error:
        raise DataUnavailable(f"{looked} {error}") from error


def _read_records(folder: Path, name: str, source: _Source, split: str, masks: str) -> tuple[Record, ...]:
    manifest = read_table(folder / "manifest.csv")
    if not {"name", "specimen"} <= set(manifest.columns):
        expected = "the columns name and specimen, better also overlap_group and um_per_px"
        raise MicrographError(folder / "manifest.csv", f"columns {list(manifest.columns)}", expected, "Add them.")
    manifest = manifest.sort_values("name", ignore_index=True)
    if split != "all":
        listed = split_names(name, split)
        if absent := sorted(set(listed) - set(manifest["name"])):
            shown = ", ".join(absent[:5])
            message = f"{folder} lacks {len(absent)} of the {len(listed)} micrographs of split {split!r}: {shown}"
            if len(absent) == len(listed):
                raise DataUnavailable(f"{message}. Complete the folder, or read split 'all'.")
            warnings.warn(message, stacklevel=4)
        manifest = manifest[manifest["name"].isin(listed)]
    column = "overlap_group" if "overlap_group" in manifest else "specimen"
    groups = [source.group or str(group) for group in manifest[column]]
    rows = zip(manifest.to_dict("records"), groups, strict=True)
    return tuple(_read_record(folder, row, group, masks, source.class_maps[masks]) for row, group in rows)


def _read_record(folder: Path, row: Mapping, group: str, masks: str, class_map: ClassMap) -> Record:
    file = f"{row['name']}.png"
    size = row.get("um_per_px")
    image = read_micrograph(folder / "images" / file, None if size is None or np.isnan(size) else size)
    mask = read_mask(folder / masks / file, class_map)
    if mask.shape != image.pixels.shape:
        expected = f"{image.pixels.shape}, the size of its image"
        raise MicrographError(folder / masks / file, f"a mask of {mask.shape}", expected, "Get the pack anew.")
    attributes = {name: float(row[name]) for name in ATTRIBUTES if name in row}
    domain = "" if pd.isna(row.get("domain")) else str(row["domain"])
    return Record(str(row["name"]), image.pixels, mask, group, image.pixel_size_um, attributes, domain)


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


def _stand_in(name: str, source: _Source, split: str, masks: str, why: str) -> Pack:
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


# Downloading


def _registry(name: str) -> list[dict]:
    if not REGISTRY.is_file():
        raise FileNotFoundError(f"{REGISTRY} is missing: install the package from its checkout (pip install -e .)")
    table = read_table(REGISTRY)
    rows = table[table["pack"] == name].to_dict("records")
    if not rows:
        raise ValueError(f"no downloads for pack {name!r}; there are some for {', '.join(sorted(set(table['pack'])))}")
    return rows


def _download(name: str, rows: list[dict], folder: Path, base_url: str) -> list[Path]:
    """Return the originals of some registry rows, downloading those that are not there whole."""
    paths = [unquote(urlsplit(row["url"]).path).lstrip("/") for row in rows]
    urls = {path: _moved(row["url"], base_url) for path, row in zip(paths, rows, strict=True)}
    hashes = {path: row["sha256"] for path, row in zip(paths, rows, strict=True)}
    todo = [row for path, row in zip(paths, rows, strict=True) if not _has_hash(folder / path, row["sha256"])]
    for path in paths:
        _sweep((folder / path).parent)
    store = pooch.create(folder, base_url="", registry=hashes, urls=urls, retry_if_failed=_RETRIES)
    pooch.get_logger().setLevel("WARNING")
    if todo:
        _insist_on_network(name, _moved(todo[0]["url"], base_url), folder)
    total = sum(row["bytes"] for row in todo)
    with tqdm(total=total, unit="B", unit_scale=True, desc=f"downloading {name}", disable=not todo, delay=1) as bar:
        try:
            return [Path(store.fetch(path, downloader=_Downloader(name, bar, folder))) for path in paths]
        except ValueError as error:  # pooch's word for a wrong hash, after the retries
            raise DataUnavailable(_complaint(name, str(error), folder)) from error


def _moved(url: str, base_url: str) -> str:
    return base_url.rstrip("/") + urlsplit(url).path if base_url else url


def _has_hash(path: Path, sha256: str) -> bool:
    return path.is_file() and pooch.file_hash(str(path)) == sha256


def _sweep(folder: Path) -> None:
    """Remove what a killed download left behind; pooch's temporary files have no suffix and start with "tmp"."""
    for file in folder.glob("tmp*") if folder.is_dir() else ():
        if not file.suffix:
            file.unlink()


def _complaint(name: str, reason: str, folder: Path) -> str:
    return (
        f"The originals of pack {name!r} cannot be downloaded: {reason}. "
        f"Set MICRO_DATA to a folder that holds the pack, or put the files of data/registry.csv under {folder} by hand."
    )


def _insist_on_network(name: str, url: str, folder: Path) -> None:
    """Raise DataUnavailable unless the server answers within GIVE_UP_S, name lookup included."""
    failures: list[Exception] = []

    def knock() -> None:
        try:
            requests.head(url, timeout=GIVE_UP_S)  # any answer will do
        except requests.RequestException as error:
            failures.append(error)

    thread = threading.Thread(target=knock, daemon=True)  # a name lookup has no time limit of its own
    thread.start()
    thread.join(GIVE_UP_S)
    if thread.is_alive() or failures:
        reason = f"no answer from {urlsplit(url).netloc} within {GIVE_UP_S:g} s, this machine seems offline"
        if failures:
            reason = (
                f"{urlsplit(url).netloc} cannot be reached ({type(failures[0]).__name__}), this machine seems offline"
            )
        raise DataUnavailable(_complaint(name, reason, folder))


class _Downloader:
    """Streams one file for pooch: gives up on refusals and stalls, asks for another try by ValueError otherwise."""

    def __init__(self, name: str, bar: tqdm, folder: Path):
        self.name, self.bar, self.folder = name, bar, folder

    def __call__(self, url: str, output_file: str, store: pooch.Pooch) -> None:
        self.started, self.received = time.monotonic(), 0
        try:
            self._stream(url, output_file)
        except DataUnavailable:
            raise
        except Exception as error:  # requests and urllib3 raise unrelated types for a broken connection
            self.bar.update(-self.received)
            response = getattr(error, "response", None)
            if response is not None and response.status_code < 500:
                self._give_up(url, f"the server says {response.status_code} {response.reason}", error)
            if time.monotonic() - self.started > GIVE_UP_S and "timed out" in str(error):
                self._give_up(url, f"no byte for {GIVE_UP_S:g} s", error)
            raise ValueError(f"{url} broke off ({error})") from error

    def _stream(self, url: str, output_file: str) -> None:
        plain = {"Accept-Encoding": "identity"}  # the bytes counted and hashed are the file's own
        with requests.get(url, stream=True, timeout=GIVE_UP_S, headers=plain) as response:
            response.raise_for_status()
            with Path(output_file).open("wb") as file:
                while chunk := response.raw.read1(1 << 16):
                    file.write(chunk)
                    self.received += len(chunk)
                    self.bar.update(len(chunk))
                    self._insist_on_pace(url)

    def _insist_on_pace(self, url: str) -> None:
        elapsed = time.monotonic() - self.started
        if elapsed > GIVE_UP_S and self.received < 1000 * elapsed:
            self._give_up(url, f"only {self.received} bytes in {elapsed:.0f} s", None)

    def _give_up(self, url: str, reason: str, cause: Exception | None) -> None:
        raise DataUnavailable(_complaint(self.name, f"{reason} for {url}", self.folder)) from cause


# Converting: every function takes the path of an original and returns the files of the pack made from it.


def _is_whole(folder: Path, row: Mapping) -> bool:
    """Tell whether the converted files of a registry row are there with the pixels the registry names."""
    try:
        made = {kind: np.asarray(PillowImage.open(_target(folder, row, kind))) for kind in _kinds(row)}
    except (OSError, SyntaxError):  # absent or broken
        return False
    return _pixels_sha256(made) == row["pixels_sha256"]


def _kinds(row: Mapping) -> tuple[str, ...]:
    return ("mask", "grains") if (row["pack"], row["kind"]) == ("pure_iron_serial", "mask") else (row["kind"],)


def _target(folder: Path, row: Mapping, kind: str) -> Path:
    return folder / _FOLDER[kind] / f"{row['name']}.png"


def _pixels_sha256(made: Mapping[str, np.ndarray]) -> str:
    """Hash shape, type and pixels of the arrays in turn: PNG files of equal pixels differ between encoders."""
    digest = hashlib.sha256()
    for pixels in made.values():
        digest.update(f"{pixels.shape[0]}x{pixels.shape[1]} {pixels.dtype};".encode())
        digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()


def _convert(folder: Path, row: Mapping, original: Path) -> None:
    converter = _grey if row["kind"] == "image" else _MASK_CONVERTERS[row["pack"], row["kind"]]
    made = dict(zip(_kinds(row), converter(original), strict=True))
    if _pixels_sha256(made) != row["pixels_sha256"]:
        raise DataUnavailable(f"{original} was converted to other pixels than the registry names; please report this.")
    for kind, pixels in made.items():
        write_mask(_target(folder, row, kind), pixels)


def _write_manifest(folder: Path, rows: Sequence[Mapping]) -> None:
    table = pd.DataFrame([row for row in rows if row["kind"] == "image"])
    table = table[["name", "specimen", "domain", "um_per_px"]].dropna(axis="columns", how="all")
    write_table(table.sort_values("name"), folder / "manifest.csv")


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
    return (read_mask(original, _ids("uhcs_region", _STEEL_REGIONS, (0, 85, 170, 255))),)


def _grains_and_boundaries(original: Path) -> tuple[np.ndarray, ...]:
    """One colour a grain: ids 1..N in order of the RGB code; both pixels at an id change are boundary (0/255)."""
    code = read_raw(original).pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])  # (H, W, 3) -> (H, W)
    colours, inverse = np.unique(code, return_inverse=True)
    grains = inverse.reshape(code.shape)
    boundary = np.zeros(code.shape, bool)
    for line, edge in ((grains, boundary), (grains.T, boundary.T)):
        change = line[1:] != line[:-1]
        edge[1:] |= change
        edge[:-1] |= change
    return boundary.astype(np.uint8) * 255, (grains + 1).astype(np.min_scalar_type(len(colours)))


_MASK_CONVERTERS: dict[tuple[str, str], Callable[[Path], tuple[np.ndarray, ...]]] = {
    ("nasa_ebc", "mask"): _as_stored,
    ("nasa_superalloy", "mask"): _superalloy_ids,
    ("sx_superalloy_1070C", "mask"): _as_stored,
    ("uhcs", "mask"): _array_ids,
    ("uhcs", "mask_region"): _region_ids,
    ("pure_iron_serial", "mask"): _grains_and_boundaries,
}
