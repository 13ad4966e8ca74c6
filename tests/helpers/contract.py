"""What every notebook of the repository keeps to, as a function that lists what one does not."""

import ast
import re
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

PARAMETERS = ("PROFILE", "SEED", "DATA", "OUT")
HEADINGS = ("Reproduces", "You will learn", "Needs", "Takes", "Writes")
MAX_LINES = 25  # of code in a cell; about 15 is the aim
MAX_BYTES = 500_000
MIN_CHECKED = 3
CHECK = re.compile(r"^\s*#\s*NBVAL_CHECK_OUTPUT", re.MULTILINE)
# The root of a file system followed by a usual top folder, or a drive letter; not a web address or a fraction.
_TOP = "home|root|tmp|usr|opt|var|mnt|work|Users|content|kaggle|private|data"
_ABSOLUTE = re.compile(rf"(?<![\w.:/~])(?:/(?:{_TOP})/[\w.-]+|[A-Za-z]:\\\w+)")


def faults(path: Path) -> list[str]:
    """Return what a notebook does not keep to; an empty list if nothing.

    Parameters
    ----------
    path : pathlib.Path
        The notebook.

    Returns
    -------
    list of str
        One sentence a fault.
    """
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    found = []
    if path.stat().st_size > MAX_BYTES:
        found.append(f"it has {path.stat().st_size} bytes, more than {MAX_BYTES}")
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        found.append(f"it is not valid: {error.message}")
    return [
        *found,
        *_layout(notebook.cells, path.name[:2]),
        *_parameters(code),
        *_execution(code),
        *_lengths(code),
        *_paths(notebook),
    ]


def _layout(cells: list, number: str) -> list[str]:
    first = cells[0] if cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith(f"# {number} "):
        return [f"the first cell is not a title with its number in Markdown (# {number} ...)"]
    missing = [heading for heading in HEADINGS if f"\n**{heading}** " not in first.source]
    found = [f"the title cell does not say: {', '.join(missing)}"] if missing else []
    position = {"parameters": _first(cells, lambda cell: "parameters" in cell.metadata.get("tags", []))}
    position["claim"] = _first(cells[1:], lambda cell: cell.cell_type == "markdown" and "claim" in cell.source.lower())
    if position["claim"] is None:
        found.append("no cell states the claim")
    elif "not reproduced" not in cells[position["claim"] + 1].source.lower():
        found.append("the claim does not say what would count as not reproduced")
    if sum(len(CHECK.findall(cell.source)) for cell in cells if cell.cell_type == "code") < MIN_CHECKED:
        found.append(f"fewer than {MIN_CHECKED} cells carry # NBVAL_CHECK_OUTPUT")
    return found


def _first(cells: list, fits) -> int | None:
    return next((i for i, cell in enumerate(cells) if fits(cell)), None)


def _parameters(code: list) -> list[str]:
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        return [f"{len(tagged)} cells are tagged `parameters`, not one"]
    if tagged[0] is not code[0]:
        return ["the parameters are not the first code cell"]
    values = {}
    for node in ast.parse(tagged[0].source).body:
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
            return [f"the parameters cell does more than assign values: {ast.unparse(node)}"]
        values[node.targets[0].id] = ast.unparse(node.value)
    found = [f"parameter {name} is missing" for name in PARAMETERS if name not in values]
    found += [f"parameter {name} is not in capitals" for name in values if not name.isupper()]
    for name, default in (("PROFILE", "''"), ("OUT", "''"), ("DATA", "'auto'")):
        if name in values and values[name] != default:
            found.append(f"{name} = {values[name]} is not the default {default}")
    for line in tagged[0].source.splitlines():
        if line.partition("=")[0].strip() in set(values) - {"SEED"} and "#" not in line:
            found.append(f"no unit, source or choice beside: {line}")
    return found


def _execution(code: list) -> list[str]:
    counts = [cell.execution_count for cell in code]
    found = [] if counts == list(range(1, len(code) + 1)) else [f"not executed once from top to bottom: {counts}"]
    outputs = [output for cell in code for output in cell.outputs]
    if not outputs:
        found.append("it has no outputs")
    found += [f"an error is stored: {o.ename}: {o.evalue}" for o in outputs if o.output_type == "error"]
    for cell in code:
        if CHECK.search(cell.source) and not cell.outputs:
            found.append(f"a checked cell has no output to compare: {_head(cell)}")
    return found


def _lengths(code: list) -> list[str]:
    found, python = [], TransformerManager()
    for cell in code:
        lines = [line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")]
        if len(lines) > MAX_LINES:
            found.append(f"a cell has {len(lines)} lines, more than {MAX_LINES}: {_head(cell)}")
        for node in ast.walk(ast.parse(python.transform_cell(cell.source))):
            if isinstance(node, ast.ClassDef):
                found.append(f"a class is defined in a cell, it belongs into micro_lib: {node.name}")
    return found


def _head(cell) -> str:
    return cell.source.strip().splitlines()[0]


def _paths(notebook) -> list[str]:
    texts = [cell.source for cell in notebook.cells]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [output.get("text", ""), *(str(v) for kind, v in data.items() if kind.startswith("text/"))]
            texts += output.get("traceback", [])
    hits = {hit for text in texts for hit in _ABSOLUTE.findall(text)}
    return [f"it names an absolute path: {hit}" for hit in sorted(hits)]
