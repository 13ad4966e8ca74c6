import itertools
import os

import nbformat
import pytest
from helpers import example_notebook
from nbformat.v4 import new_code_cell, new_notebook

from micro_lib.application import fingerprint as module
from micro_lib.application.fingerprint import ABSENT, downloaded, fingerprint
from micro_lib.data import packs

FILES = {
    "micro_lib/__init__.py": "",
    "micro_lib/core/__init__.py": "",
    "micro_lib/core/base.py": '"""Text."""\nVALUE = 1  # why\n',
    "micro_lib/core/other.py": "VALUE = 1\n",
    "micro_lib/analysis/__init__.py": "",
    "micro_lib/analysis/metrics.py": "from micro_lib.core.base import VALUE\ndef f():\n    'Say.'\n    return VALUE\n",
    "micro_lib/analysis/late.py": "def g():\n    import micro_lib.analysis.metrics as m\n    return m\n",
    "micro_lib/data/splits.csv": "name\na\n",
    "micro_lib/data/__init__.py": "",
    "micro_lib/data/packs.py": "from micro_lib.data import sources\n",
    "micro_lib/data/sources.py": "SOURCES = {'uhcs': 1, 'nasa_ebc': 2, 'pure_iron_serial': 3}\n",
    "micro_lib/data/iron.py": "from micro_lib.data.packs import pack\nRECORDS = pack('pure_iron_serial')\n",
    "data/registry.csv": "name\na\n",
    "figures/tables/grains.csv": "a\n1\n",
    "figures/tables/cracks.csv": "a\n1\n",
}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(module, "repository_root", lambda: tmp_path)
    monkeypatch.delenv("MICRO_DATA", raising=False)
    monkeypatch.setattr(packs.pooch, "os_cache", lambda _: tmp_path / "cache")
    return tmp_path


def save(checkout, *sources, outputs=()):
    cells = [new_code_cell(source, outputs=list(outputs)) for source in sources]
    nbformat.write(new_notebook(cells=cells), checkout / "n.ipynb")
    return checkout / "n.ipynb"


def changed(before, after):
    return {name for name in before if before[name] != after[name]}


IMPORTS = {
    "from": "from micro_lib.analysis import metrics",
    "import": "%matplotlib inline\nimport micro_lib.analysis.metrics as m",
    "name": "from micro_lib.analysis.metrics import f",
    "through a function": "from micro_lib.analysis.late import g",
    "as text": "sweep('micro_lib.analysis.metrics:f')",
}


@pytest.mark.parametrize("cell", IMPORTS.values(), ids=IMPORTS)
def test_code_counts_however_it_is_imported_and_however_deep(checkout, cell):
    path = save(checkout, cell)
    before = fingerprint(path, {}, {})
    (checkout / "micro_lib/core/base.py").write_text("VALUE = 2\n")
    assert changed(before, fingerprint(path, {}, {})) == {"code"}


def test_comments_docstrings_layout_and_modules_that_are_not_imported_do_not_count(checkout):
    path = save(checkout, IMPORTS["from"])
    before = fingerprint(path, {}, {})
    (checkout / "micro_lib/core/base.py").write_text('"""Other text."""\n\nVALUE = (1)\n')
    (checkout / "micro_lib/analysis/metrics.py").write_text(
        "from micro_lib.core.base import VALUE\ndef f():\n  return VALUE"
    )
    (checkout / "micro_lib/core/other.py").write_text("VALUE = 2\n")
    assert changed(before, fingerprint(path, {}, {})) == set()


def test_an_argument_default_in_the_code_counts(checkout):
    path = save(checkout, IMPORTS["from"])
    before = fingerprint(path, {}, {})
    (checkout / "micro_lib/analysis/metrics.py").write_text(
        FILES["micro_lib/analysis/metrics.py"].replace("f()", "f(a=1)")
    )
    assert changed(before, fingerprint(path, {}, {})) == {"code"}


def test_source_counts_and_outputs_do_not(checkout):
    before = fingerprint(save(checkout, "1 + 1"), {}, {})
    shown = nbformat.v4.new_output("stream", text="2")
    assert changed(before, fingerprint(save(checkout, "1 + 1", outputs=[shown]), {}, {})) == set()
    assert changed(before, fingerprint(save(checkout, "1 + 2"), {}, {})) == {"notebook"}


def test_parameters_and_needed_notebooks_count(checkout):
    path = save(checkout, "1")
    before = fingerprint(path, {"SEED": 1}, {"03_a": "x"})
    assert changed(before, fingerprint(path, {"SEED": 2}, {"03_a": "x"})) == {"parameters"}
    assert changed(before, fingerprint(path, {"SEED": 1}, {"03_a": "y"})) == {"needs"}


def test_shipped_data_count(checkout):
    path = save(checkout, "1")
    for name in ("data/registry.csv", "micro_lib/data/splits.csv"):
        before = fingerprint(path, {}, {})
        (checkout / name).write_text("name\nb\n")
        assert changed(before, fingerprint(path, {}, {})) == {"data"}


def lay_out(base, name):
    for file in ("images/a.png", "masks/a.png", "manifest.csv"):
        (base / name / file).parent.mkdir(parents=True, exist_ok=True)
        (base / name / file).write_text("123")
    return base / name


PACK = "from micro_lib.data.packs import pack\npack('uhcs')"
WHERE = {
    "named": (PACK, {}, ["uhcs"]),
    "named in a module": ("from micro_lib.data import iron", {}, ["pure_iron_serial"]),
    "named by a parameter": (PACK, {"PACK": "nasa_ebc"}, ["nasa_ebc", "uhcs"]),
    "none named": ("from micro_lib.data.packs import available", {}, sorted(packs.SOURCES)),
    "no packs": ("print('uhcs')", {}, []),
}


@pytest.mark.parametrize(("cell", "parameters", "names"), WHERE.values(), ids=WHERE)
def test_packs_count_where_they_may_be_read(checkout, cell, parameters, names):
    parts = fingerprint(save(checkout, cell), parameters, {})
    assert [part.removeprefix("pack ") for part, state in parts.items() if state == ABSENT] == names


@pytest.mark.parametrize("place", ["MICRO_DATA", "cache"])
def test_a_pack_counts_when_it_comes_and_with_every_change_of_its_files(checkout, monkeypatch, place):
    monkeypatch.setenv("MICRO_DATA", str(checkout / "MICRO_DATA"))
    path = save(checkout, PACK)
    states = [fingerprint(path, {}, {})]
    folder = lay_out(checkout / place, "uhcs")
    states.append(fingerprint(path, {}, {}))
    os.utime(folder / "masks" / "a.png", ns=(1, 1))  # as long as before, written at another time
    states.append(fingerprint(path, {}, {}))
    (folder / "images" / "b.png").write_text("123")
    states.append(fingerprint(path, {}, {}))
    (folder / "manifest.csv").write_text("124")
    states.append(fingerprint(path, {}, {}))
    for before, after in itertools.pairwise(states):
        assert changed(before, after) == {"pack uhcs"}


def test_other_packs_and_a_manifest_written_again_do_not_count(checkout, monkeypatch):
    monkeypatch.setenv("MICRO_DATA", str(checkout / "MICRO_DATA"))
    folder, path = lay_out(checkout / "cache", "uhcs"), save(checkout, PACK)
    before = fingerprint(path, {}, {})
    lay_out(checkout / "MICRO_DATA", "nasa_ebc")
    os.utime(folder / "manifest.csv", ns=(1, 1))
    assert not changed(before, fingerprint(path, {}, {}))
    lay_out(checkout / "MICRO_DATA", "uhcs")
    assert changed(before, fingerprint(path, {}, {})) == {"pack uhcs"}


def test_a_download_by_the_run_itself_is_part_of_what_it_ran_with(checkout):
    path = save(checkout, PACK, "pack('nasa_ebc')")
    lay_out(checkout / "cache", "nasa_ebc")
    before = fingerprint(path, {}, {})
    lay_out(checkout / "cache", "uhcs")
    after = fingerprint(path, {}, {})
    assert changed(before, after) == {"pack uhcs"} and downloaded(before) == {"pack uhcs": after["pack uhcs"]}
    os.utime(checkout / "cache" / "nasa_ebc" / "images" / "a.png", ns=(1, 1))
    assert downloaded(before).keys() == {"pack uhcs"}  # what was there and is changed meanwhile stays a change


def test_stored_tables_count_where_the_notebook_names_them(checkout):
    path = save(checkout, "read('figures/tables/grains.csv')")
    before = fingerprint(path, {}, {})
    (checkout / "figures/tables/cracks.csv").write_text("a\n2\n")
    assert changed(before, fingerprint(path, {}, {})) == set()
    (checkout / "figures/tables/grains.csv").write_text("a\n2\n")
    assert changed(before, fingerprint(path, {}, {})) == {"tables"}


def test_a_stored_copy_of_what_the_notebook_writes_does_not_count(checkout):
    path = save(checkout, 'write_table(made, out / "grains.csv")', 'show(read_table(out / "grains.csv"))')
    before = fingerprint(path, {}, {})
    (checkout / "figures/tables/grains.csv").write_text("a\n2\n")
    assert not changed(before, fingerprint(path, {}, {}))


@pytest.mark.parametrize("kind", ["runs", "images", "curves", "bagged", "lines", "generators"])
def test_stored_runs_count_where_the_notebook_uses_their_experiment(checkout, kind):
    (checkout / "micro_lib/training").mkdir(exist_ok=True)
    for name in ("__init__", "joint"):
        (checkout / f"micro_lib/training/{name}.py").write_text("")
    path = save(checkout, "from micro_lib.training import joint")
    before = fingerprint(path, {}, {})
    (checkout / "figures/tables/cracks_runs.csv").write_text("a\n1\n")
    (checkout / "figures/tables/joint_scores.csv").write_text("a\n1\n")
    assert not changed(before, fingerprint(path, {}, {}))
    (checkout / f"figures/tables/joint_{kind}.csv").write_text("a\n1\n")
    assert changed(before, fingerprint(path, {}, {})) == {"tables"}


def test_versions_count(checkout, monkeypatch):
    path = save(checkout, "1")
    before = fingerprint(path, {}, {})
    monkeypatch.setattr(module, "versions", lambda: "numpy 0")
    assert changed(before, fingerprint(path, {}, {})) == {"versions"}


def test_fingerprint_of_a_real_notebook_sees_the_real_modules(tmp_path):
    path = example_notebook.write(tmp_path)
    import ast

    trees = [ast.parse(cell.source) for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    modules = module._modules(trees)
    assert {"micro_lib.core.seeds", "micro_lib.core.labels", "micro_lib.application.tables"} <= set(modules)
    assert "micro_lib.application.runner" not in modules
