"""What the result of a notebook depends on, as hashes: the runner repeats a notebook when one of them changes."""

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

from micro_lib.core.runs import parsed, repository_root, versions
from micro_lib.data.manifest import MANIFEST
from micro_lib.data.packs import located
from micro_lib.data.sources import SOURCES

PACKS = "micro_lib.data.packs"
ABSENT = "neither given nor downloaded"  # a pack that a run downloads, or replaces by stand-ins


def fingerprint(path: Path, parameters: Mapping, needed: Mapping[str, str]) -> dict[str, str]:
    """Return what a notebook's result depends on, part by part.

    Parameters
    ----------
    path : pathlib.Path
        The notebook.
    parameters : mapping
        Those it is run with.
    needed : mapping of str to str
        Name -> hash of the last run of each notebook it needs.

    Returns
    -------
    dict of str to str
        Hexadecimal SHA-256 of each part: notebook (cells without outputs), parameters, data (the files of ``data/``),
        code (parsed modules, so comments and docstrings do not count), tables (stored tables that it names other than
        as its own, ``out / "name.csv"``, and the stored runs of experiments it uses), needs, versions, and of each data
        pack it names, see `pack_state`.
    """
    cells = nbformat.read(path, as_version=4).cells
    source = [[cell.cell_type, cell.source, cell.metadata.get("tags", [])] for cell in cells]
    python = TransformerManager()
    code = [ast.parse(python.transform_cell(cell.source)) for cell in cells if cell.cell_type == "code"]
    modules = _modules(code)
    root = repository_root()
    # What it writes itself is stored as well, by `publish`: that must not make it run again.
    text = re.sub(r'\bout / "[^"]*"', "", "".join(cell.source for cell in cells))
    stored = sorted((root / "figures" / "tables").glob("*.csv"))
    tables = [table for table in stored if table.name in text or _study(table) in modules]
    shipped = [file for place in ("data", "micro_lib") for file in sorted((root / place).rglob("*"))]
    shipped = [file for file in shipped if file.suffix in {".csv", ".json", ".txt"}]
    return {
        "notebook": digest(source),
        "parameters": digest(dict(parameters)),
        "data": digest([_file_hash(file) for file in shipped]),
        "code": digest({name: parsed(_module_file(name)) for name in modules}),
        "tables": digest([_file_hash(table) for table in tables]),
        "needs": digest(dict(needed)),
        "versions": digest(versions()),
        **{f"pack {name}": pack_state(name) for name in _packs(code, modules, parameters)},
    }


def pack_state(name: str) -> str:
    """Return `ABSENT`, or a hash of the files that a pack would be read from: names, sizes and times of change.

    Times stand for pixels, since hashing gigabytes takes minutes. The manifest counts by its contents: a download
    writes it anew whenever it looks whether the pack is whole.
    """
    folder = located(name)
    if folder is None:
        return ABSENT
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    return digest([[str(file.relative_to(folder)), *_version(file)] for file in files])


def downloaded(parts: Mapping[str, str]) -> dict[str, str]:
    """Return the state of those packs that were absent when `fingerprint` made the parts: the run had them from here.

    A pack that was there keeps its state of before, so what is changed during a run counts as changed.
    """
    return {part: pack_state(part.removeprefix("pack ")) for part, state in parts.items() if state == ABSENT}


def digest(obj) -> str:
    """Return the SHA-256 of an object's JSON, hexadecimal."""
    return hashlib.sha256(json.dumps(obj, sort_keys=True, default=repr).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _study(table: Path) -> str:
    """Return the experiment whose runs a stored table such as ``grains_runs.csv`` holds, or ""."""
    found = re.fullmatch(r"(\w+)_(?:runs|images|curves|bagged|lines|generators)", table.stem)
    return f"micro_lib.training.{found[1]}" if found else ""


def _version(file: Path) -> tuple:
    if file.name == MANIFEST:
        return (_file_hash(file),)
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _packs(code: Iterable[ast.Module], modules: Iterable[str], parameters: Mapping) -> list[str]:
    """Return the packs that code may read: those it names, all if it reads packs without naming one."""
    if PACKS not in modules:
        return []
    reading = _modules([ast.parse(f"import {PACKS}")])  # where every pack is named
    trees = [*code, *(ast.parse(_module_file(name).read_text("utf-8")) for name in modules if name not in reading)]
    constants = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return sorted(SOURCES.keys() & {*constants, *map(str, parameters.values())}) or sorted(SOURCES)


def _modules(trees: Iterable[ast.Module]) -> list[str]:
    """Return the modules of micro_lib that code imports, or names in a text such as "micro_lib.a.b:f", transitively."""
    found, waiting = set(), {name for tree in trees for name in _named(tree)}
    while waiting:
        name = waiting.pop()
        if name in found or _module_file(name) is None:
            continue
        found.add(name)
        waiting |= set(_named(ast.parse(_module_file(name).read_text("utf-8"))))
        waiting.add(name.rpartition(".")[0])
    return sorted(found)


def _named(tree: ast.Module) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"^(micro_lib(?:\.\w+)+)(?::\w+)?$", node.value)


def _module_file(name: str) -> Path | None:
    base = repository_root().joinpath(*name.split("."))
    candidates = [base.with_suffix(".py"), base / "__init__.py"] if name.split(".")[0] == "micro_lib" else []
    return next((path for path in candidates if path.is_file()), None)
