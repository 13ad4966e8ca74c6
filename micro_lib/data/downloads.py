"""Download the originals of a data pack, hash-checked and resumable, and lay the pack out."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pooch
import requests
from filelock import FileLock
from tqdm.auto import tqdm

from micro_lib.core.network import await_answer
from micro_lib.core.progress import progress
from micro_lib.core.runs import read_table, write_table
from micro_lib.data.conversion import convert, is_whole
from micro_lib.data.sources import DataUnavailable

REGISTRY = Path(__file__).resolve().parents[2] / "data" / "registry.csv"
GIVE_UP_S = 5.0  # without an answer, or without a byte, for this long the network counts as absent
_RETRIES = 2  # of a file that came broken


def fetch(name: str, *, cache: str | Path = "", base_url: str = "") -> Path:
    """Download the originals of a pack, convert them to the pack layout and return its folder.

    Files that are there and whole (SHA-256 of the originals, and of the converted pixels) are kept, so a broken run
    goes on where it stopped. Originals already placed by hand under ``<cache>/originals`` are used as well.

    Parameters
    ----------
    name : str
        A pack of ``data/registry.csv``.
    cache : str or pathlib.Path
        Folder for downloads; ``""`` is the user's cache folder of the operating system.
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
    rows = registry(name)
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
    missing = [row for row in rows if not is_whole(base / name, row)]
    if missing:
        originals = _download(name, missing, base / "originals", base_url)
        for row, original in zip(missing, originals, strict=True):
            convert(base / name, row, original)
    _write_manifest(base / name, rows)  # even if nothing was missing: a killed run may have stopped right before it


def _write_manifest(folder: Path, rows: Sequence[Mapping]) -> None:
    table = pd.DataFrame([row for row in rows if row["kind"] == "image"])
    table = table[["name", "specimen", "domain", "um_per_px"]].dropna(axis="columns", how="all")
    write_table(table.sort_values("name"), folder / "manifest.csv")


def registry(name: str) -> list[dict]:
    """Return the rows of ``data/registry.csv`` for a pack: where each original is and what it must contain.

    Parameters
    ----------
    name : str
        Name of the pack.

    Returns
    -------
    list of dict
        pack, name, kind (``"image"``, ``"mask"`` or ``"mask_region"``), specimen, domain, um_per_px, licence, bytes,
        sha256 (of the original), pixels_sha256 (of what is converted from it), url.

    Raises
    ------
    FileNotFoundError
        If the registry is missing, as where the package is not installed from its checkout.
    ValueError
        If it has no rows for the pack; names the packs it has some for.
    """
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
        try:
            await_answer(_moved(todo[0]["url"], base_url), GIVE_UP_S)
        except OSError as error:
            raise DataUnavailable(_complaint(name, str(error), folder)) from error
    total = sum(row["bytes"] for row in todo)
    with progress(total=total, unit="B", unit_scale=True, desc=f"downloading {name}", disable=not todo, delay=1) as bar:
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
