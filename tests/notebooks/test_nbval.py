"""nbval over all notebooks in the smoke profile, and proof that its checked cells notice a fault."""

import nbformat
import pytest
from helpers import example_notebook, nbval
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

NOTEBOOKS = sorted((nbval.ROOT / "notebooks").glob("*.ipynb"))

# Notebook -> functions behind its checked cells; each is spoilt in turn, and nbval has to fail in a checked cell.
FAULTS = {
    "03_example": ["micro_lib.core.labels:ClassMap.encode", "micro_lib.core.seeds:stream_seed"],
}

# Run in the notebook before its setup cell, so that whatever imports the function afterwards gets the spoilt one.
SPOIL = """
def _spoil(target):
    import functools, importlib, sys
    import numpy as np, pandas as pd

    def wrong(value):
        if isinstance(value, pd.DataFrame):
            return value.apply(lambda column: wrong(column.to_numpy()))
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            return (value + 1).astype(value.dtype) if value.dtype.kind != "b" else ~value
        if isinstance(value, tuple):
            parts = [wrong(part) for part in value]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        if isinstance(value, dict):
            return {{name: wrong(part) for name, part in value.items()}}
        return value * 1.5 + 1 if isinstance(value, (int, float, np.number)) else value

    module, _, path = target.partition(":")
    owner, names = importlib.import_module(module), path.split(".")
    for name in names[:-1]:
        owner = getattr(owner, name)
    right = getattr(owner, names[-1])
    spoilt = functools.wraps(right)(lambda *a, **k: wrong(right(*a, **k)))
    setattr(owner, names[-1], spoilt)
    for other in [module for name, module in list(sys.modules.items()) if name.startswith("micro_lib.")]:
        for name, value in list(vars(other).items()):
            if value is right:
                setattr(other, name, spoilt)

_spoil({target!r})
del _spoil
"""


def spoilt(path, target, folder):
    """Write a copy of a notebook in which a function returns wrong values; it ends with the last checked cell."""
    notebook = nbformat.read(path, as_version=4)
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    last = max(i for i in code if "NBVAL_CHECK_OUTPUT" in notebook.cells[i].source)
    cells = notebook.cells[: last + 1]
    cells.insert(code[0] + 1, new_code_cell(SPOIL.format(target=target)))
    notebook.cells = cells
    copy = folder / path.name
    nbformat.write(notebook, copy)
    return copy


def noticed(result):
    """True if a checked cell ran and printed something else than what is stored."""
    return result.returncode == 1 and "mismatch" in result.stdout and "Cell execution caused" not in result.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_its_checked_cells_agree(path, tmp_path):
    result = nbval.run(path, tmp_path)
    assert result.returncode == 0, result.stdout[-6000:]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The example, executed."""
    folder = tmp_path_factory.mktemp("example")
    path = example_notebook.write(folder)
    notebook = nbformat.read(path, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in nbval.environment(folder / "out").items():
            patch.setenv(name, value)
        NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    nbformat.write(notebook, path)
    return path


def test_the_example_passes(example, tmp_path):
    result = nbval.run(example, tmp_path)
    assert result.returncode == 0, result.stdout


CASES = [(name, target) for name, targets in FAULTS.items() for target in targets]


@pytest.mark.parametrize("name, target", CASES)
def test_a_fault_in_a_function_is_noticed(name, target, example, tmp_path):
    path = example if name == "03_example" else nbval.ROOT / "notebooks" / f"{name}.ipynb"
    result = nbval.run(spoilt(path, target, tmp_path), tmp_path / "out")
    assert noticed(result), result.stdout[-6000:]


def test_a_function_behind_no_checked_cell_is_not_noticed(example, tmp_path):
    result = nbval.run(spoilt(example, "micro_lib.core.labels:ClassMap.to_json", tmp_path), tmp_path / "out")
    assert result.returncode == 0 and not noticed(result)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_faults_are_tried_for_every_notebook(path):
    assert len(FAULTS.get(path.stem, ())) >= 3, "name at least three functions behind its checked cells in FAULTS"
