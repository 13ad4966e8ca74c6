"""nbval over all notebooks in the smoke profile."""

import pytest
from helpers import nbval

NOTEBOOKS = sorted((nbval.ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_its_checked_cells_agree(path, tmp_path):
    result = nbval.run(path, tmp_path)
    assert result.returncode == 0, result.stdout[-6000:]
