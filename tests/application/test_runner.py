import os
import signal
import subprocess
import sys

import nbformat
import pytest
from helpers import example_notebook
from helpers.small_notebook import small
from helpers.waiting import wait_for

from micro_lib.__main__ import main
from micro_lib.application import runner
from micro_lib.core.runs import read_table, write_json
from micro_lib.data import packs

COUNT = 'from pathlib import Path\nwith (Path(OUT) / "runs.txt").open("a") as f:\n    f.write(f"{PROFILE} {SEED}\\n")'


@pytest.fixture
def run(tmp_path):
    def call(**options):
        return runner.reproduce(folder=tmp_path / "notebooks", build=tmp_path / "build", **options)

    return call


def counted(tmp_path, name):
    path = tmp_path / "build" / name / "runs.txt"
    return path.read_text().splitlines() if path.is_file() else []


def test_a_run_leaves_copies_results_times_and_claims_and_a_second_one_skips(tmp_path, run, capsys):
    example_notebook.write(tmp_path / "notebooks", extra=COUNT)
    assert run() == 0
    out = capsys.readouterr().out
    assert "03_example" in out and "1 claims: 1 reproduced" in out
    build = tmp_path / "build"
    copy = nbformat.read(build / "notebooks" / "03_example.ipynb", 4)
    assert any("injected-parameters" in cell.metadata.get("tags", []) for cell in copy.cells)
    claims = read_table(build / "tables" / "claims.csv")
    assert claims["ours"].tolist() == [4.0] and claims["profile"].tolist() == ["quick"]
    times = read_table(build / "tables" / "notebooks.csv").iloc[0]
    assert times["status"] == "done" and 0.2 < times["seconds"] < 120 and 50 < times["peak_mib"] < 2000

    assert run() == 0
    assert "up to date" in capsys.readouterr().out
    assert counted(tmp_path, "03_example") == ["quick 1"]
    (build / "03_example" / "example.csv").unlink()
    assert run() == 0
    assert counted(tmp_path, "03_example") == ["quick 1"] * 2, "a result that was deleted is made again"


def test_changed_parameters_run_again_and_profiles_keep_apart(tmp_path, run):
    small(tmp_path / "notebooks", "03_a", COUNT)
    assert run() == run(parameters={"SEED": 2}) == run(parameters={"SEED": 2}) == 0
    assert counted(tmp_path, "03_a") == ["quick 1", "quick 2"]
    assert run(profile="smoke") == 0
    assert (tmp_path / "build" / "smoke" / "03_a" / "runs.txt").read_text() == "smoke 1\n"
    assert run(parameters={"SEED": 2}) == 0
    assert counted(tmp_path, "03_a") == ["quick 1", "quick 2"]


def test_a_failing_notebook_is_named_and_only_those_that_need_it_wait(tmp_path, run, capsys):
    folder = tmp_path / "notebooks"
    bad = 'raise RuntimeError("no\\nmore")'
    small(folder, "03_bad", "x = 1", bad)
    small(folder, "04_needs", COUNT, needs=["03_bad"])
    small(folder, "05_needs_that", COUNT, needs=["04_needs"])
    small(folder, "06_free", COUNT)
    assert run() == 1
    streams = capsys.readouterr()
    assert "FAILED: 03_bad: In [4]: RuntimeError: no; executed copy:" in streams.err
    assert "HELD BACK: 04_needs: needs 03_bad" in streams.err and "HELD BACK: 05_needs_that" in streams.err
    copy = nbformat.read(tmp_path / "build" / "notebooks" / "03_bad.ipynb", 4)
    assert any(o.output_type == "error" for cell in copy.cells for o in cell.get("outputs", []))
    assert counted(tmp_path, "06_free") == ["quick 1"] and counted(tmp_path, "04_needs") == []

    small(folder, "03_bad", "x = 1")
    assert run() == 0
    assert [len(counted(tmp_path, name)) for name in ("04_needs", "05_needs_that", "06_free")] == [1, 1, 1]


def test_a_notebook_runs_again_when_one_it_needs_has_changed(tmp_path, run):
    folder = tmp_path / "notebooks"
    small(folder, "03_a", COUNT)
    small(folder, "04_b", COUNT, needs=["03_a"])
    assert run() == 0
    small(folder, "03_a", COUNT, "2")
    assert run() == 0
    assert len(counted(tmp_path, "03_a")) == len(counted(tmp_path, "04_b")) == 2


def test_a_notebook_that_reads_claims_runs_again_when_one_of_another_changes(tmp_path, run):
    folder = tmp_path / "notebooks"
    example_notebook.write(folder)
    small(folder, "13_all", COUNT, reads_claims=True)
    small(folder, "14_none", COUNT)
    assert run() == run() == 0
    assert len(counted(tmp_path, "13_all")) == 1
    example_notebook.write(folder, "04_example")
    assert run() == run() == 0
    assert len(counted(tmp_path, "13_all")) == 2 and len(counted(tmp_path, "14_none")) == 1


def test_stand_ins_give_way_to_a_pack_that_comes_later_and_a_download_by_the_run_is_no_change(
    tmp_path, run, monkeypatch
):
    monkeypatch.delenv("MICRO_DATA", raising=False)
    monkeypatch.setattr(packs.pooch, "os_cache", lambda _: tmp_path / "cache")
    reads = "if SEED == 0:\n    from micro_lib.data.packs import pack\n    pack('uhcs')"
    small(tmp_path / "notebooks", "03_offline", COUNT, reads)
    fetched = f"folder = Path({str(tmp_path)!r}) / 'cache' / 'uhcs'\nfolder.mkdir(parents=True, exist_ok=True)"
    fetched += "\n(folder / 'manifest.csv').write_text('name,specimen')"
    small(tmp_path / "notebooks", "04_fetches", COUNT, reads, fetched)
    assert run() == run() == run() == 0
    assert [len(counted(tmp_path, name)) for name in ("03_offline", "04_fetches")] == [2, 1]


def test_a_dead_kernel_is_a_failed_notebook(tmp_path, run, capsys):
    small(tmp_path / "notebooks", "03_dies", "import os\nos._exit(1)")
    assert run() == 1
    assert "FAILED: 03_dies: DeadKernelError" in capsys.readouterr().err


def test_a_cell_that_takes_too_long_is_a_failed_notebook(tmp_path, run, capsys, monkeypatch):
    monkeypatch.setitem(runner.CELL_TIMEOUT_S, "smoke", 2)
    small(tmp_path / "notebooks", "03_slow", "import time\ntime.sleep(60)")
    assert run(profile="smoke") == 1
    assert "FAILED: 03_slow: CellTimeoutError" in capsys.readouterr().err


def test_notebooks_11_and_12_run_only_when_named(tmp_path, run):
    for name in ("03_a", "11_free", "12_yours"):
        small(tmp_path / "notebooks", name, COUNT)
    assert run() == 0
    assert [len(counted(tmp_path, name)) for name in ("03_a", "11_free", "12_yours")] == [1, 0, 0]
    assert run(only=["11", "12_yours"]) == 0
    assert [len(counted(tmp_path, name)) for name in ("03_a", "11_free", "12_yours")] == [1, 1, 1]


def test_a_named_notebook_whose_need_never_ran_is_held_back(tmp_path, run, capsys):
    small(tmp_path / "notebooks", "03_a", COUNT)
    small(tmp_path / "notebooks", "04_b", COUNT, needs=["03_a"])
    assert run(only=["04"]) == 1
    assert "needs 03_a, which has not finished; run it first" in capsys.readouterr().err
    assert run(only=["03,04"]) == 0


def test_kernels_run_this_python_whatever_the_user_has_registered(tmp_path, run, monkeypatch):
    other = tmp_path / "user" / "kernels" / "python3"
    write_json(other / "kernel.json", {"argv": ["/bin/false"], "display_name": "x", "language": "python"})
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "user"))
    small(
        tmp_path / "notebooks",
        "03_a",
        "import sys\nfrom pathlib import Path",
        'Path(OUT, "py.txt").write_text(sys.executable)',
    )
    assert run() == 0
    assert (tmp_path / "build" / "03_a" / "py.txt").read_text() == sys.executable
    assert os.environ["JUPYTER_PATH"] == str(tmp_path / "user")


def test_peak_memory_counts_the_kernel_and_its_children(tmp_path, run):
    child = "import time; x = bytearray(400 << 20); time.sleep(1)"
    hold = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"
    small(tmp_path / "notebooks", "03_a", "x = bytearray(300 << 20)", hold)
    assert run() == 0
    assert 700 < read_table(tmp_path / "build" / "tables" / "notebooks.csv").loc[0, "peak_mib"] < 1100


def test_a_stale_claim_does_not_survive_its_notebook(tmp_path, run):
    example_notebook.write(tmp_path / "notebooks")
    assert run() == 0
    small(tmp_path / "notebooks", "03_example", "1")
    assert run() == 0
    assert read_table(tmp_path / "build" / "tables" / "claims.csv").empty


# Asked for wrongly


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"only": ["07"]}, "no notebook 07; there are 03_a"),
        ({"profile": "fast"}, "there are smoke"),
        ({"parameters": {"SEEDS": 2}}, r"03_a\.ipynb has no parameter SEEDS; it has PROFILE, SEED, DATA, OUT"),
        ({"parameters": {"OUT": "x"}}, "OUT is set by the runner"),
    ],
)
def test_unknown_names_are_errors_before_anything_runs(tmp_path, run, options, complaint):
    small(tmp_path / "notebooks", "03_a", COUNT)
    with pytest.raises(runner.RunnerError, match=complaint):
        run(**options)
    assert counted(tmp_path, "03_a") == []


def test_needs_that_do_not_come_before_are_refused(tmp_path, run):
    small(tmp_path / "notebooks", "03_a", needs=["04_b"])
    small(tmp_path / "notebooks", "04_b")
    with pytest.raises(runner.RunnerError, match=r"03_a\.ipynb needs \['04_b'\]"):
        run()


def test_a_broken_notebook_file_is_named(tmp_path, run):
    small(tmp_path / "notebooks", "03_a").write_text("{")
    with pytest.raises(runner.RunnerError, match=r"03_a\.ipynb is not a readable notebook"):
        run()


def test_no_notebooks_is_no_error(tmp_path, run, capsys):
    (tmp_path / "notebooks").mkdir()
    assert run() == 0
    assert "No notebook to run." in capsys.readouterr().out


def test_command_line_says_what_is_wrong_and_exits_with_2(capsys):
    assert main(["reproduce", "--only", "99"]) == 2
    assert main(["reproduce", "-p", "SEED"]) == 2
    assert "NAME=VALUE; found 'SEED'" in capsys.readouterr().err
    assert main(["publish", "--profile", "smoke"]) == 2
    assert main(["sweep", "nothing"]) == 2
    assert "there are adaptation, adaptive, cracks, grains, joint" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["sweep", "grains", "--workers", "0"])
    assert stop.value.code == 2


def test_command_line_passes_plain_values(monkeypatch):
    seen = {}
    monkeypatch.setattr(runner, "reproduce", lambda **options: seen.update(options) or 0)
    assert (
        main(["reproduce", "--profile", "", "--only", "03", "05", "-p", "SEED=2", "DATA=real", "-p", "X=[1, 2.5]"]) == 0
    )
    assert seen == {"profile": "", "only": ["03", "05"], "parameters": {"SEED": 2, "DATA": "real", "X": [1, 2.5]}}


# Killed


def start(tmp_path):
    code = (
        "import sys; from pathlib import Path; from micro_lib.application.runner import reproduce\n"
        "sys.exit(reproduce(folder=Path(sys.argv[1]) / 'notebooks', build=Path(sys.argv[1]) / 'build'))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_killed_run_goes_on_where_it_was(tmp_path, run):
    folder, flag = tmp_path / "notebooks", tmp_path / "started"
    small(folder, "03_a", COUNT)
    wait = f"""import time
from pathlib import Path
flag = Path({str(flag)!r})
first = not flag.exists()
flag.touch()
time.sleep(60 * first)"""
    small(folder, "04_b", wait, COUNT)
    process = start(tmp_path)
    wait_for(flag)
    with pytest.raises(runner.RunnerError, match="another run is using"):
        run()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "build" / "state" / "03_a.json").is_file()
    assert not (tmp_path / "build" / "state" / "04_b.json").exists()
    assert run() == 0
    assert counted(tmp_path, "03_a") == ["quick 1"] and counted(tmp_path, "04_b") == ["quick 1"]
