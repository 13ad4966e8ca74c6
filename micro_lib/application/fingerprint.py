"""What the result of a notebook depends on, as hashes: the runner repeats a notebook when one of them changes."""

import ast
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

from micro_lib.core.runs import parsed, repository_root, versions


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
        Hexadecimal SHA-256 of each part: notebook (cells without outputs), parameters, data (the packs under
        ``$MICRO_DATA`` and the files of ``data/``), code (parsed modules, so comments and docstrings do not count),
        tables (stored tables that it names, and the stored runs of experiments it uses), needs, versions.
    """
    cells = nbformat.read(path, as_version=4).cells
    source = [[cell.cell_type, cell.source, cell.metadata.get("tags", [])] for cell in cells]
    python = TransformerManager()
    code = [ast.parse(python.transform_cell(cell.source)) for cell in cells if cell.cell_type == "code"]
    modules = _modules(code)
    root = repository_root()
    text = "".join(cell.source for cell in cells)
    stored = sorted((root / "figures" / "tables").glob("*.csv"))
    tables = [table for table in stored if table.name in text or _study(table) in modules]
    shipped = [file for place in ("data", "micro_lib") for file in sorted((root / place).rglob("*"))]
    shipped = [file for file in shipped if file.suffix in {".csv", ".json", ".txt"}]
    return {
        "notebook": digest(source),
        "parameters": digest(dict(parameters)),
        "data": digest([_packs(os.environ.get("MICRO_DATA", "")), [_file_hash(file) for file in shipped]]),
        "code": digest({name: parsed(_module_file(name)) for name in modules}),
        "tables": digest([_file_hash(table) for table in tables]),
        "needs": digest(dict(needed)),
        "versions": digest(versions()),
    }


def digest(obj) -> str:
    """Return the SHA-256 of an object's JSON, hexadecimal."""
    return hashlib.sha256(json.dumps(obj, sort_keys=True, default=repr).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _study(table: Path) -> str:
    """Return the experiment whose runs a stored table such as ``grains_runs.csv`` holds, or ""."""
    found = re.fullmatch(r"(\w+)_(?:runs|images|curves|bagged)", table.stem)
    return f"micro_lib.training.{found[1]}" if found else ""


def _packs(folder: str) -> str:
    if not folder:
        return "none"
    sums = Path(folder) / "SHA256SUMS"
    named = [sums] if sums.is_file() else sorted(Path(folder).glob("*/manifest.csv"))
    return digest([[path.parent.name, _file_hash(path)] for path in named])


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
