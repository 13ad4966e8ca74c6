"""The part of a notebook that its checked cells depend on."""

import ast

import nbformat
from helpers.contract import CHECK
from IPython.core.inputtransformer2 import TransformerManager


def checked_part(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a copy with the parameters, the setup, the checked cells and the cells that define what those use.

    Of the setup, imports that nothing kept uses fall away: most of the time would go into them.

    Training and figures fall away, so that checked cells can be run again and again in seconds. A cell that changes a
    value in place without naming it on the left of an assignment is not seen.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        Laid out as the contract says: its first two code cells are the parameters and the setup.

    Returns
    -------
    nbformat.NotebookNode
        Code cells only, in their order, with their stored outputs.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    kept, needed = [], set()
    for i, cell in reversed(list(enumerate(code))):
        defined, used = _names(cell.source)
        if i < 2 or CHECK.search(cell.source) or defined & needed:
            kept.insert(0, cell)
            needed |= used
    part = nbformat.v4.new_notebook(metadata=notebook.metadata)
    part.cells = [nbformat.from_dict(cell) for cell in kept]
    if len(part.cells) > 1:
        part.cells[1].source = _without_imports(part.cells[1].source, needed)
    return part


def _without_imports(source: str, needed: set[str]) -> str:
    """Return a setup cell without the imports of names that are not needed; magics stay."""
    lines = []
    for line in source.splitlines():
        if line.startswith(("import ", "from ")) and "(" not in line:
            (statement,) = ast.parse(line).body
            statement.names = [a for a in statement.names if (a.asname or a.name.split(".")[0]) in needed]
            line = ast.unparse(statement) if statement.names else ""
        lines.append(line)
    return "\n".join(lines)


def _names(source: str) -> tuple[set[str], set[str]]:
    defined, used = set(), set()
    for node in ast.walk(ast.parse(TransformerManager().transform_cell(source))):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.alias):
            defined.add(node.asname or node.name.split(".")[0])
        elif isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            defined |= {name.id for name in ast.walk(node.value) if isinstance(name, ast.Name)}
    return defined, used
