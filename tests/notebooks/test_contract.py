"""Every notebook keeps the contract, and the contract's checker sees each kind of fault."""

import re
from pathlib import Path

import nbformat
import pytest
from helpers import contract, example_notebook
from nbclient import NotebookClient

from micro_lib.application.tables import tables_dir
from micro_lib.core.runs import read_table

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_the_contract(path):
    assert contract.faults(path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_was_executed_at_quick_without_the_users_settings(path):
    text = path.read_text(encoding="utf-8")
    assert "injected-parameters" not in text, "execute the notebook itself, do not commit papermill's copy"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_title_says_how_long_it_takes(path):
    """As published with its outputs, within a half more or less; of notebooks without a row nothing is known yet."""
    rows = read_table(tables_dir() / "notebooks.csv").set_index("notebook")["seconds"]
    if path.stem not in rows:
        pytest.skip("no published time")
    title = nbformat.read(path, 4).cells[0].source
    told = re.search(r"\*\*Takes\*\* (\d+)(?: to (\d+))? (second|minute)s at `quick` on two cores", title)
    low, high, unit = told.groups()
    shown = [float(number) * {"second": 1, "minute": 60}[unit] for number in (low, high or low)]
    assert shown[0] / 1.5 <= rows[path.stem] <= shown[1] * 1.5


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    notebook = example_notebook.notebook()
    folder = tmp_path_factory.mktemp("example")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        patch.setenv("MICRO_OUT", str(folder))
        NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    return notebook


def faults_of(notebook, folder):
    nbformat.write(notebook, folder / "03_example.ipynb")
    return contract.faults(folder / "03_example.ipynb")


def test_the_example_keeps_the_contract(executed, tmp_path):
    assert faults_of(executed, tmp_path) == []


def first(notebook, kind):
    return next(cell for cell in notebook.cells if cell.cell_type == kind)


def untitled(notebook):
    notebook.cells.pop(0)


def without_number(notebook):
    first(notebook, "markdown").source = first(notebook, "markdown").source.replace("# 03 ", "# ")


def without_times(notebook):
    first(notebook, "markdown").source = first(notebook, "markdown").source.replace("**Takes** ", "")


def without_claim(notebook):
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith("## The claim")]


def claim_without_its_refusal(notebook):
    next(c for c in notebook.cells if c.source.startswith("## The claim")).source = "## The claim\n\nIt works."


def untagged(notebook):
    first(notebook, "code").metadata["tags"] = []


def without_out(notebook):
    first(notebook, "code").source = 'PROFILE = ""  # x\nSEED = 1\nDATA = "auto"  # x'


def profile_left_set(notebook):
    cell = first(notebook, "code")
    cell.source = cell.source.replace('PROFILE = ""', 'PROFILE = "study"')


def parameter_without_comment(notebook):
    first(notebook, "code").source += "\nWIDTH_PX = 5"


def parameters_that_compute(notebook):
    first(notebook, "code").source += "\nprint(SEED)"


def out_of_order(notebook):
    notebook.cells[-1].execution_count = 3


def not_executed(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = None, []


def with_an_error(notebook):
    notebook.cells[-1].outputs.append(nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[]))


def long_cell(notebook):
    notebook.cells[-1].source = "\n".join(f"x{i} = {i}" for i in range(26))


def with_a_class(notebook):
    notebook.cells[-1].source = "class Model:\n    pass"


def too_large(notebook):
    notebook.cells[-1].outputs.append(nbformat.v4.new_output("stream", text="x" * 500_000))


def few_checks(notebook):
    next(c for c in notebook.cells if contract.CHECK.search(c.source)).source = "print(1)"


def path_in_source(notebook):
    notebook.cells[-1].source += "\nread('/home/me/data.csv')"


def path_in_output(notebook):
    notebook.cells[-1].outputs.append(nbformat.v4.new_output("stream", text="saved to /tmp/x/y.png"))


FAULTS = {
    untitled: "not a title",
    without_number: "not a title with its number",
    without_times: "does not say: Takes",
    without_claim: "no cell states the claim",
    claim_without_its_refusal: "what would count as not reproduced",
    untagged: "0 cells are tagged",
    without_out: "parameter OUT is missing",
    profile_left_set: "PROFILE = 'study' is not the default",
    parameter_without_comment: "no unit, source or choice beside: WIDTH_PX = 5",
    parameters_that_compute: "does more than assign values: print(SEED)",
    out_of_order: "not executed once from top to bottom",
    not_executed: "it has no outputs",
    with_an_error: "an error is stored: ValueError: no",
    long_cell: "26 lines, more than 25",
    with_a_class: "belongs into micro_lib: Model",
    too_large: "bytes, more than 500000",
    few_checks: "fewer than 3 cells carry",
    path_in_source: "absolute path: /home/me",
    path_in_output: "absolute path: /tmp/x",
}


@pytest.mark.parametrize("spoil, complaint", FAULTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_the_checker_sees(executed, tmp_path, spoil, complaint):
    notebook = nbformat.from_dict(executed)
    notebook = nbformat.reads(nbformat.writes(notebook), as_version=4)
    spoil(notebook)
    assert any(complaint in fault for fault in faults_of(notebook, tmp_path))


@pytest.mark.parametrize("text", ["https://doi.org/tmp/x", "1/2", "a/tmp/b", "~/data/x", "km/home/h", "../data/cards"])
def test_the_checker_leaves_addresses_and_relative_paths_alone(executed, tmp_path, text):
    notebook = nbformat.reads(nbformat.writes(executed), as_version=4)
    notebook.cells[-1].source += f"\n# {text}"
    assert faults_of(notebook, tmp_path) == []
