"""The first of the two commands, end to end in the smoke profile: every notebook through papermill."""

import subprocess
import sys

import pytest
from helpers import nbval

from micro_lib.application.runner import ON_REQUEST, discover
from micro_lib.application.tables import COLUMNS, VERDICTS
from micro_lib.core.runs import read_table

NOTEBOOKS = [n.name for n in discover(nbval.ROOT / "notebooks") if n.number not in ON_REQUEST]


def reproduce(out):
    command = [sys.executable, "-m", "micro_lib", "reproduce", "--profile", "smoke"]
    environment = nbval.environment(out)
    return subprocess.run(command, env=environment, cwd=nbval.ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("reproduce")
    return reproduce(out), out


def test_all_notebooks_run(run):
    result, out = run
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    for name in NOTEBOOKS:
        assert (out / "smoke" / "notebooks" / f"{name}.ipynb").is_file()
    if NOTEBOOKS:
        times = read_table(out / "smoke" / "tables" / "notebooks.csv")
        assert times["notebook"].tolist() == NOTEBOOKS
        assert (times["status"] == "done").all() and (times["peak_mib"] > 30).all()


def test_claims_table_is_printed_and_kept(run):
    result, out = run
    claims = read_table(out / "smoke" / "tables" / "claims.csv")
    assert tuple(claims.columns) == COLUMNS
    assert set(claims["verdict"]) <= set(VERDICTS) and set(claims["notebook"]) <= set(NOTEBOOKS)
    assert ("claims:" in result.stdout) == bool(len(claims))


def test_a_second_call_runs_nothing(run):
    _, out = run
    result = reproduce(out)
    assert result.returncode == 0
    assert result.stdout.count("up to date") == 2 * len(NOTEBOOKS), result.stdout
