"""Run folders: where results go, files that are whole or absent, and the provenance every row carries."""

import ast
import json
import os
import platform
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path

import pandas as pd
from filelock import FileLock

# Packages whose version can change a number; the lock names all the others.
_REPORTED = ("micro-lib", "torch", "torchvision", "fastai", "numpy", "scipy", "opencv-python-headless")


def repository_root() -> Path:
    """Return the checkout this package is run from, or the current folder when it is installed elsewhere."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def build_dir() -> Path:
    """Return the folder for everything that is made: ``$MICRO_OUT``, else ``build/`` of the checkout."""
    return Path(os.environ.get("MICRO_OUT", "") or repository_root() / "build")


def out_dir(name: str, out: str = "") -> Path:
    """Return the folder a notebook writes to, and make it.

    Parameters
    ----------
    name : str
        Name of the notebook without its suffix, or of another folder of results.
    out : str
        The notebook's ``OUT`` parameter; ``""`` means ``$MICRO_OUT/<name>`` where that variable is set, else
        ``build/<name>`` of the checkout.

    Returns
    -------
    pathlib.Path
        An existing folder.
    """
    folder = Path(out) if out else build_dir() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables for the processes that the block starts, and put everything back after it.

    Parameters
    ----------
    **variables : str
        Values by name.
    """
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary file name in the same folder that becomes `path` only if the block succeeds.

    A reader sees the old file or the whole new one, never a part, whenever the writer is killed.

    Parameters
    ----------
    path : str or pathlib.Path
        The final name; its folder is made.

    Yields
    ------
    pathlib.Path
        A name with the suffix of `path`, to be written in the block; removed if the block fails.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, obj) -> None:
    """Write an object as indented JSON, atomically.

    Parameters
    ----------
    path : str or pathlib.Path
        The file; its folder is made.
    obj : object
        Anything that JSON can hold.

    Raises
    ------
    TypeError
        If JSON cannot hold it; the file stays as it was.
    """
    text = json.dumps(obj, indent=1, ensure_ascii=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | Path, fix: str = "delete it and run again"):
    """Read a JSON file.

    Parameters
    ----------
    path : str or pathlib.Path
        The file, in UTF-8.
    fix : str
        What to do about a broken one, for the message.

    Returns
    -------
    object
        What it holds: dicts, lists, text, numbers, truth values, None.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no JSON; names the file and says how to fix that.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); {fix}") from error


def write_table(df: pd.DataFrame, path: str | Path) -> None:
    """Write a table as CSV, atomically, columns in the order given, floats so that they read back bit for bit.

    Parameters
    ----------
    df : pandas.DataFrame
        The table; its index is not written.
    path : str or pathlib.Path
        The file; its folder is made.
    """
    with atomic_path(path) as temporary:
        df.to_csv(temporary, index=False, lineterminator="\n")


def read_table(path: str | Path, text: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV table written by `write_table`; only empty cells count as missing.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    text : sequence of str
        Columns that are read as they are written: ``001`` stays so, and an empty cell is the empty text.

    Returns
    -------
    pandas.DataFrame
        Columns in the order of the file; types other than of `text` as pandas finds them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(text, str))
    return table.fillna(dict.fromkeys(text, "")) if text else table


def merge_rows(path: str | Path, rows: pd.DataFrame, keys: Sequence[str], whole: Sequence[str] = ()) -> pd.DataFrame:
    """Put rows into a stored table: those with a known key replace the old ones, the others are appended.

    Several processes may call this on one file; a lock beside it makes them take turns.

    Parameters
    ----------
    path : str or pathlib.Path
        The CSV table; made when absent.
    rows : pandas.DataFrame
        New rows; of rows with equal keys the last one counts. New columns are appended to the table's.
    keys : sequence of str
        Columns that name a row. They count as the text that a CSV cell holds, so 1 and ``"1"`` are one key, a missing
        one and ``""`` too, but ``"001"`` is another.
    whole : sequence of str
        Some of these columns: stored rows that agree in them with a new row, but are not among the new ones, go.

    Returns
    -------
    pandas.DataFrame
        The whole table as it is now stored, its keys as text.

    Raises
    ------
    ValueError
        If the rows, or the stored table, lack a key column.
    """
    path, keys = Path(path), list(keys)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / f".{path.name}.lock"):
        tables = [read_table(path, text=keys), rows] if path.is_file() else [rows]
        for table, name in zip(tables[::-1], ("the new rows", str(path)), strict=False):
            if missing := [key for key in keys if key not in table.columns]:
                raise ValueError(f"{name} lack the key column(s) {missing}; found {list(table.columns)}")
        tables = [table.assign(**{key: _cells(table[key]) for key in keys}) for table in tables]
        if whole and path.is_file():
            stale, known = (_named(tables[0], part).isin(_named(tables[1], part)) for part in (list(whole), keys))
            tables[0] = tables[0][~stale | known]
        merged = pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)
        # A replaced row keeps its place.
        merged.index = _named(merged, keys)
        places = merged.index.unique()
        merged = merged[~merged.index.duplicated(keep="last")].loc[places].reset_index(drop=True)
        write_table(merged, path)
    return merged


def _named(table: pd.DataFrame, keys: Sequence[str]) -> pd.Index:
    """Return one text a row: its cells in some columns of text."""
    return pd.Index(["\x1f".join(key) for key in table[keys].itertuples(index=False)], dtype=object)


def _cells(column: pd.Series) -> list[str]:
    """Return the text of a column's cells in a CSV file."""
    return ["" if missing else str(value) for value, missing in zip(column, column.isna(), strict=True)]


def versions() -> str:
    """Return Python's version and those of the packages that can change a number, as ``"python 3.11.7; torch ..."``."""
    found = [f"python {platform.python_version()}"]
    for name in _REPORTED:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue  # synthesis and analysis work without torch
    return "; ".join(found)


@cache
def commit() -> tuple[str, bool]:
    """Return the commit of the checkout and whether tracked files differ from it; ("unknown", False) without git.

    What a run leaves in ``figures/`` is a result: a sweep that goes on from stored rows may store more.
    """
    git = ["git", "-C", str(repository_root())]
    try:
        name = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = [*git, "status", "--porcelain", "-uno", "--", ".", ":(exclude)figures"]
        changes = subprocess.run(status, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False
    return name, bool(changes.stdout.strip())


def provenance(*, profile: str, seed: int, device: str = "cpu", notebook: str = "") -> dict[str, str | int]:
    """Return where a result comes from, as columns of its row.

    Parameters
    ----------
    profile : str
        One of `micro_lib.core.profiles.PROFILES`.
    seed : int
        Seed of the run.
    device : str
        What it ran on, e.g. ``"cpu"`` or the name of the GPU.
    notebook : str
        Name of the notebook without its suffix; ``""`` for a sweep.

    Returns
    -------
    dict
        profile, seed, device, notebook, versions, commit (40 hexadecimal digits or ``"unknown"``), dirty (0 or 1:
        tracked files differed from the commit, other than results in ``figures/``).
    """
    name, dirty = commit()
    row = {"profile": profile, "seed": int(seed), "device": device, "notebook": notebook}
    return {**row, "versions": versions(), "commit": name, "dirty": int(dirty)}


def parsed(path: Path) -> str:
    """Return what a module does: its syntax tree, in which comments and docstrings do not count.

    Parameters
    ----------
    path : pathlib.Path
        The module's file, in UTF-8.

    Returns
    -------
    str
        The tree as text, equal for equal code.
    """
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        may_have_docstring = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if may_have_docstring and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
