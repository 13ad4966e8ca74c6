"""The smallest notebook that the runner takes."""

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

PARAMETERS = 'PROFILE = ""\nSEED = 1\nDATA = "auto"\nOUT = ""'


def small(folder, name, *sources, **about):
    """Write a notebook that imports nothing, so that it runs in a second; `about` is what it says to the runner."""
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), *map(new_code_cell, sources)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata={**metadata, "micro_lib": about}), path)
    return path
