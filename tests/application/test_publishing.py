"""What is published of a run, what stays of earlier ones, and what the README says afterwards."""

import nbformat
import pandas as pd
import pytest
from helpers.small_notebook import PARAMETERS, small
from nbformat.v4 import new_code_cell, new_output

from micro_lib.application import publishing, runner
from micro_lib.application.tables import README_MARKS, claim_rows
from micro_lib.core.runs import read_json, read_table, write_json, write_table


@pytest.fixture
def built(tmp_path):
    """A build folder as two finished notebooks leave it, without running them."""
    for name in ("03_a", "05_b"):
        small(tmp_path / "notebooks", name)
    return tmp_path


def finish(built, name, files, profile="quick"):
    place = runner.build_folder(profile, built / "build")
    for file, content in files.items():
        path = place / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else write_table(pd.DataFrame(content), path)
    top = [f"{name}/{file}" for file in files if "/" not in file]
    write_json(
        place / "state" / f"{name}.json", {"status": "done", "parts": {}, "parameters": {"SEED": 2}, "files": top}
    )


def publish(built, **options):
    folders = {"folder": built / "notebooks", "build": built / "build", "to": built / "figures"}
    return publishing.publish(**folders, **options)


def claims(name, notebook, profile="quick", ours=1.0):
    claim = {"claim": name, "paper": "p", "where": "w", "published": "1", "kind": "effect", "verdict": "reproduced"}
    measured = {"ours": ours, "n": 1, "over": "runs"}
    return claim_rows([claim | measured], profile=profile, notebook=notebook, runs=pd.DataFrame({"seed": [1]}))


def test_pictures_and_tables_are_copied_and_sub_folders_are_not(built):
    files = {"f.png": b"png", "t.csv": {"a": [1]}, "note.txt": b"x", "local/f316.png": b"png"}
    finish(built, "03_a", files)
    assert publish(built) == 0
    copied = {str(path.relative_to(built / "figures")) for path in (built / "figures").rglob("*") if path.is_file()}
    assert copied == {"f.png", "tables/t.csv", "tables/claims.csv"}


def test_a_quick_run_does_not_overwrite_rows_of_a_study(built):
    finish(built, "03_a", {"t.csv": {"profile": ["study"] * 2, "v": [1, 2]}}, profile="study")
    publish(built, profile="study")
    for value in (3, 4):
        finish(built, "03_a", {"t.csv": {"profile": ["quick"], "v": [value]}})
        publish(built)
    table = read_table(built / "figures" / "tables" / "t.csv")
    assert sorted(table.itertuples(index=False, name=None)) == [("quick", 4), ("study", 1), ("study", 2)]


def test_published_claims_are_replaced_never_doubled(built):
    path = built / "figures" / "tables" / "claims.csv"
    finish(built, "03_a", {"claims.csv": claims("x", "03_a", ours=1.0)})
    finish(built, "05_b", {"claims.csv": claims("y", "05_b")})
    publish(built)
    finish(built, "03_a", {"claims.csv": claims("x", "03_a", "study", ours=9.0)}, profile="study")
    publish(built, profile="study")
    finish(built, "03_a", {"claims.csv": claims("x", "03_a", ours=2.0)})
    publish(built)
    publish(built)
    stored = sorted(read_table(path)[["claim", "profile", "ours"]].itertuples(index=False, name=None))
    assert stored == [("x", "quick", 2.0), ("x", "study", 9.0), ("y", "quick", 1.0)]

    finish(built, "03_a", {"claims.csv": claims("renamed", "03_a")})
    publish(built)
    assert set(read_table(path).query("profile == 'quick'")["claim"]) == {"renamed", "y"}


def test_the_readme_states_what_was_published(built):
    readme = built / "README.md"
    readme.write_text("\n".join(["before", *README_MARKS, "after"]))
    finish(built, "03_a", {"claims.csv": claims("x is larger", "03_a")})
    publish(built)
    assert "| x is larger (p, w) | 1 | 1 | 1 runs | quick | reproduced |" in readme.read_text()


def test_what_should_not_be_published_is_refused(built):
    finish(built, "03_a", {"f.png": b"x" * (publishing.MAX_FIGURE_BYTES + 1)})
    with pytest.raises(runner.RunnerError, match="lower its dpi"):
        publish(built)
    finish(built, "03_a", {"f.png": b"x"})
    finish(built, "05_b", {"f.png": b"x"})
    with pytest.raises(runner.RunnerError, match="have the same name"):
        publish(built)
    with pytest.raises(runner.RunnerError, match="smoke results"):
        publish(built, profile="smoke")
    assert not (built / "figures").exists()


def test_a_failed_notebook_publishes_nothing(built):
    finish(built, "03_a", {"f.png": b"x", "claims.csv": claims("x", "03_a")})
    state = built / "build" / "state" / "03_a.json"
    write_json(state, {**read_json(state), "status": "failed"})
    publish(built)
    assert not (built / "figures" / "f.png").exists()
    assert read_table(built / "figures" / "tables" / "claims.csv").empty


def executed(built, name="03_a", *, parameters=None, change=""):
    """What papermill leaves of a notebook: a cell of parameters more, progress bars and warnings among the outputs."""
    finish(built, name, {})
    place = built / "build"
    state = place / "state" / f"{name}.json"
    write_json(state, {**read_json(state), "parameters": {"PROFILE": "quick", "OUT": "x", **(parameters or {})}})
    copy = nbformat.read(built / "notebooks" / f"{name}.ipynb", 4)
    copy.cells[-1].source += change
    widget = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "bar"}
    copy.cells[-1].outputs = [
        new_output("stream", name="stderr", text="a warning"),
        new_output("display_data", widget),
        new_output("execute_result", {"text/plain": "3"}, execution_count=7),
        new_output("stream", text="said"),
    ]
    injected = new_code_cell('PROFILE = "quick"', metadata={"tags": ["injected-parameters"]})
    copy.cells.insert(1, injected)
    (place / "notebooks").mkdir(exist_ok=True)
    nbformat.write(copy, place / "notebooks" / f"{name}.ipynb")
    return built / "notebooks" / f"{name}.ipynb"


def test_notebooks_take_over_the_outputs_of_their_run(built):
    small(built / "notebooks", "03_a", "1 + 2", needs=())
    path = executed(built)
    publish(built)
    published = nbformat.read(path, 4)
    assert [cell.source for cell in published.cells] == [PARAMETERS, "1 + 2"]
    assert [cell.execution_count for cell in published.cells] == [1, 2]
    assert [o.output_type for o in published.cells[1].outputs] == ["execute_result", "stream"]
    assert published.cells[1].outputs[0].execution_count == 2 and published.cells[1].outputs[1].text == "said"
    executed_as = {"executed_at": "quick", "executed_code": publishing.code_digest(published)}
    assert published.metadata["micro_lib"] == {"needs": [], **executed_as}
    published.cells[1].source += "  # changed since"
    assert publishing.code_digest(published) != executed_as["executed_code"]
    assert not nbformat.read(built / "notebooks" / "05_b.ipynb", 4).cells[0].outputs, "it was not run"


def test_a_notebook_run_with_parameters_of_its_own_stays_as_it_was(built):
    small(built / "notebooks", "03_a", "1 + 2")
    path = executed(built, parameters={"SEED": 2})
    before = path.read_bytes()
    publish(built)
    assert path.read_bytes() == before


def test_a_notebook_changed_since_its_run_is_refused(built):
    small(built / "notebooks", "03_a", "1 + 2")
    path = executed(built, change="  # as it was")
    before = path.read_bytes()
    with pytest.raises(runner.RunnerError, match=r"03_a\.ipynb was changed since it ran; .*ONLY=03"):
        publish(built)
    assert path.read_bytes() == before and not (built / "figures").exists()


def test_the_readme_states_time_and_memory_of_the_notebooks(built):
    readme = built / "README.md"
    readme.write_text("\n".join([*README_MARKS, *publishing.TIMES_MARKS]))
    rows = [("03_a", 42.4, 512.0, "done"), ("05_b", 600.0, 2048.0, "done"), ("06_c", 1.0, 1.0, "failed")]
    table = pd.DataFrame(rows, columns=["notebook", "seconds", "peak_mib", "status"]).assign(profile="quick")
    write_table(table, built / "build" / "tables" / "notebooks.csv")
    publish(built)
    lines = readme.read_text().splitlines()[-5:-1]
    assert lines[0] == "| notebook | 03 | 05 |" and lines[1] == "| --- | --- | --- |"
    assert lines[2:] == ["| time | 42 s | 10 min |", "| peak memory | 0.5 GB | 2.0 GB |"]
