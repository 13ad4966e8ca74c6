"""A small notebook that keeps the contract, from which tests make good and faulty ones."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

TITLE = """# 03 An example

**Reproduces** nothing.

**You will learn** how a notebook is laid out.

**Needs** nothing.

**Takes** smoke 1 s, quick 1 s.

**Writes** a table."""

PARAMETERS = """PROFILE = ""  # smoke, quick, study or paper; "" means $MICRO_PROFILE, else quick
SEED = 1
DATA = "auto"  # auto, real or generated
OUT = ""  # folder for results; "" means build/<notebook>"""

SETUP = """import pandas as pd

from micro_lib.application import tables
from micro_lib.core import labels, profiles, runs, seeds

out = runs.out_dir("03_example", OUT)"""

CLAIM = "## The claim\n\nTwo and two make four; anything else counts as not reproduced."

CHECKED = (
    "# NBVAL_CHECK_OUTPUT\nprint(labels.GRAIN_BOUNDARY.encode([[255, 0, 0, 255]]).tolist())",
    '# NBVAL_CHECK_OUTPUT\nprint(seeds.stream_seed(SEED, "example"))',
    "# NBVAL_CHECK_OUTPUT\nprint(tables.rounded(0.123456))",
)

RESULT = """claim = {"claim": "2 + 2", "paper": "none", "where": "text", "published": "4", "kind": "level", "ours": 4.0,
         "n": 1, "over": "sums", "verdict": "reproduced"}
rows = tables.claim_rows([claim], profile=PROFILE, notebook="03_example", runs=pd.DataFrame({"seed": [SEED]}))
tables.write_claims(rows, out)
runs.write_table(pd.DataFrame({"profile": [runs.provenance(profile=profiles.resolve(PROFILE), seed=SEED)["profile"]],
                               "value": [4.0]}), out / "example.csv")
tables.show(rows)[["claim", "ours", "verdict"]]"""


def notebook(*, extra: str = "", needs: tuple[str, ...] = (), name: str = "03_example") -> nbformat.NotebookNode:
    """Return the example, not executed, with the source of one more cell and the names of notebooks it needs."""
    cells = [
        new_markdown_cell(TITLE),
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        new_code_cell(SETUP.replace("03_example", name)),
        new_markdown_cell(CLAIM),
        *(new_code_cell(source) for source in CHECKED),
        *([new_code_cell(extra)] if extra else []),
        new_code_cell(RESULT.replace("03_example", name).replace("2 + 2", f"2 + 2 of {name}")),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=cells, metadata={**metadata, "micro_lib": {"needs": list(needs)}})


def write(folder: Path, name: str = "03_example", **kind) -> Path:
    """Write the example as ``folder/name.ipynb``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook(name=name, **kind), path)
    return path
