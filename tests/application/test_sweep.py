import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pandas as pd
import pytest
from helpers.waiting import wait_for

from micro_lib.__main__ import main
from micro_lib.application import sweep
from micro_lib.core.runs import read_table, write_table

EXPERIMENT = """
import os, time
from pathlib import Path

THREADS_AT_IMPORT = os.environ.get("OMP_NUM_THREADS")

def run(configuration, seed, profile, out):
    here = Path(__file__).parent
    with (here / "calls.txt").open("a") as calls:
        calls.write(f"{configuration['a']} {seed}\\n")
    (out / "checkpoint").touch()
    if configuration.get("slow") and not (here / "go").exists():
        (here / f"pid{seed}").write_text(str(os.getpid()))
        time.sleep(60)
    if configuration.get("bad") and not (here / "go").exists():
        raise RuntimeError("no luck")
    return {"value": configuration["a"] * 10 + seed, "profile_seen": profile, "threads": int(THREADS_AT_IMPORT)}

CONFIGURATIONS = {"one": {"a": 1}}

def nested(configuration, seed, profile, out):
    return {"value": [1, 2]}

def imaged(configuration, seed, profile, out):
    name = "three" if (Path(__file__).parent / "other").exists() else "two"
    (out / "images.csv").write_text(f"split,name,score\\ntest,one,{seed}\\ntest,{name},{configuration['a']}\\n")
    return run(configuration, seed, profile, out)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with an importable experiment; returns the folder."""
    (tmp_path / "experiment_of_a_test.py").write_text(EXPERIMENT)
    paths = [str(tmp_path), str(Path(sweep.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return tmp_path


def run(place, configurations, seeds=(1, 2), name="run", **options):
    return sweep.run_sweep(
        f"experiment_of_a_test:{name}",
        configurations,
        seeds,
        profile="smoke",
        folder=place / "sweep",
        table=place / "table.csv",
        **options,
    )


def calls(place):
    return sorted((place / "calls.txt").read_text().splitlines())


def results(table):
    columns = ["configuration", "seed", "profile", "value", "profile_seen", "threads"]
    return table[columns].sort_values(columns[:3]).reset_index(drop=True)


def test_every_configuration_runs_once_with_every_seed_on_one_thread(place):
    rows = run(place, [{"a": 1}, {"a": 2}])
    assert sorted(rows["value"]) == [11, 12, 21, 22]
    assert set(rows["threads"]) == {1} and set(rows["profile_seen"]) == {"smoke"}
    assert {"versions", "commit", "dirty", "device", "seconds"} <= set(rows.columns)
    pd.testing.assert_frame_equal(results(read_table(place / "table.csv")), results(rows))
    manifest = read_table(place / "sweep" / "manifest_smoke.csv")
    assert manifest["seed"].tolist() == [1, 1, 2, 2] and manifest["key"].is_unique

    again = run(place, [{"a": 1}, {"a": 2}])
    assert len(again) == 4 and calls(place) == ["1 1", "1 2", "2 1", "2 2"], "finished runs are not repeated"
    assert len(read_table(place / "table.csv")) == 4
    assert len(list((place / "sweep" / "runs").glob("*/checkpoint"))) == 4, "each run has a folder of its own"


def test_failed_runs_are_listed_counted_out_and_tried_again(place, capsys):
    rows = run(place, [{"a": 1}, {"a": 2, "bad": 1}], seeds=[1])
    out = capsys.readouterr().out
    assert 'failed: {"a": 2, "bad": 1} seed 1: RuntimeError: no luck' in out
    assert "1 of 2 runs done" in out and "1 failed" in out
    assert len(rows) == len(read_table(place / "table.csv")) == 1
    (place / "go").touch()
    rows = run(place, [{"a": 1}, {"a": 2, "bad": 1}], seeds=[1])
    assert len(rows) == len(read_table(place / "table.csv")) == 2
    assert "2 of 2 runs done" in capsys.readouterr().out


def test_a_killed_worker_is_a_failed_run_and_the_rest_goes_on(place, capsys):
    configurations = [{"a": 1, "slow": 1}, {"a": 2}]
    pid = place / "pid1"

    def kill():
        wait_for(pid)
        time.sleep(0.2)
        os.kill(int(pid.read_text()), signal.SIGKILL)

    killer = Thread(target=kill)
    killer.start()
    rows = run(place, configurations, seeds=[1])
    killer.join()
    assert rows["value"].tolist() == [21]
    assert "the worker was killed or died" in capsys.readouterr().out
    (place / "go").touch()
    run(place, configurations, seeds=[1])

    interrupted = results(read_table(place / "table.csv"))
    for path in ("sweep", "table.csv"):
        (place / path).rename(place / f"old_{path}")
    run(place, configurations, seeds=[1])
    pd.testing.assert_frame_equal(interrupted, results(read_table(place / "table.csv")))


def test_a_killed_sweep_goes_on_where_it_was(place):
    code = (
        "import sys; sys.path.insert(0, 'tests'); from micro_lib.application.sweep import run_sweep\n"
        "run_sweep('experiment_of_a_test:run', [{'a': 1}, {'a': 2, 'slow': 1}], [1], profile='smoke',\n"
        f"          folder={str(place / 'sweep')!r}, table={str(place / 'table.csv')!r})"
    )
    main = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    wait_for(place / "pid1")
    os.killpg(main.pid, signal.SIGKILL)  # the sweep and its workers at one blow
    main.wait()
    (place / "go").touch()
    rows = run(place, [{"a": 1}, {"a": 2, "slow": 1}], seeds=[1])
    assert sorted(rows["value"]) == [11, 21]
    table = read_table(place / "table.csv")
    assert len(table) == 2 and not table.duplicated(list(sweep.KEYS)).any()


def test_a_run_that_another_process_is_doing_is_waited_for(place, monkeypatch):
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    record = sweep.write_manifest(
        "experiment_of_a_test:run", [{"a": 1}], [1], profile="smoke", folder=place / "sweep"
    ).to_dict("records")[0]
    code = (
        "import sys, json; from micro_lib.application.sweep import run\n"
        f"run(json.loads(sys.argv[1]), {str(place / 'sweep')!r})"
    )
    import json

    others = [subprocess.Popen([sys.executable, "-c", code, json.dumps(record)]) for _ in range(2)]
    assert [other.wait() for other in others] == [0, 0]
    assert calls(place) == ["1 1"]


def test_rows_must_be_flat(place, capsys):
    rows = run(place, [{"a": 1}], seeds=[1], name="nested")
    assert rows.empty
    assert "TypeError: an experiment returns numbers and texts; found {'value': 'list'}" in capsys.readouterr().out


def test_asking_for_a_run_twice_is_refused(place):
    with pytest.raises(ValueError, match="asked for twice"):
        run(place, [{"a": 1, "b": 2}, {"b": 2, "a": 1}])


def test_keys_depend_on_everything_that_names_a_run(tmp_path):
    def key(experiment="m:f", configuration=None, seed=1, profile="smoke"):
        configurations = [configuration or {"a": 1}]
        return sweep.write_manifest(experiment, configurations, [seed], profile=profile, folder=tmp_path).loc[0, "key"]

    keys = {key(), key("m:g"), key(configuration={"a": 2}), key(seed=2), key(profile="quick")}
    assert len(keys) == 5 and key() in keys


def test_named_sweeps_take_configurations_and_seeds_from_the_experiment(tmp_path, monkeypatch):
    from micro_lib.training.grains import CONFIGURATIONS

    seen = {}

    def fake(experiment, configurations, seeds, **options):
        seen.update(options, experiment=experiment, configurations=configurations, seeds=seeds)
        return pd.DataFrame({"a": range(len(configurations) * len(seeds))})

    monkeypatch.setattr(sweep, "run_sweep", fake)
    assert sweep.run_named("grains", profile="study") == 0
    assert seen["experiment"] == "micro_lib.training.grains:run"
    assert seen["configurations"] == list(CONFIGURATIONS.values()) and len(seen["seeds"]) >= 5
    assert seen["table"].parts[-3:] == ("figures", "tables", "grains_runs.csv")
    assert sweep.run_named("grains", profile="smoke", only=["iron"], changes={"data": "generated"}) == 0
    assert seen["configurations"] == [{"preset": "iron", "data": "generated"}]
    assert sweep.run_named("grains", profile="study", seeds=[7, 9]) == 0 and seen["seeds"] == [7, 9]
    assert sweep.run_named("grains", profile="smoke") == 0
    assert str(seen["table"]).startswith(str(tmp_path)), "smoke rows stay out of the stored tables"
    with pytest.raises(ValueError, match="no configuration irn; there are broad"):
        sweep.run_named("grains", only=["irn"])


def test_what_a_sweep_leaves_beside_rows_is_gathered_when_it_has_ended(place, monkeypatch):
    """The second call stands for one after a kill: the first has not come as far as gathering."""

    def gather(profile, folder, tables):
        left = sorted((folder / "runs").glob("*/checkpoint"))
        (tables / "left.txt").write_text(f"{profile} {len(left)}")

    monkeypatch.delitem(sys.modules, "experiment_of_a_test", raising=False)
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("MICRO_OUT", str(place))
    monkeypatch.setitem(sweep.SWEEPS, "toy", "experiment_of_a_test")
    monkeypatch.setattr(sweep, "settings", lambda name, profile: {"seeds": (1, 2)})
    assert sweep.run_named("toy", profile="smoke") == 0
    left = place / "sweeps" / "toy" / "left.txt"
    assert not left.is_file(), "only where a function is named for it"
    assert sweep.run_named("toy", profile="smoke", collect=gather) == 0
    assert left.read_text() == "smoke 2" and calls(place) == ["1 1", "1 2"]


def test_the_command_gathers_what_some_sweeps_leave(monkeypatch):
    asked = {}
    monkeypatch.setattr(sweep, "run_named", lambda name, **options: asked.update({name: options["collect"]}) or 0)
    for name in sweep.SWEEPS:
        assert main(["sweep", name]) == 0
    gathering = {name: collect.__module__ for name, collect in asked.items() if collect}
    rooms = {"adaptation": "adaptation_collect", "joint": "joint_report"}
    assert gathering == {name: f"micro_lib.reports.{room}" for name, room in rooms.items()}


def test_a_fresh_clone_goes_on_from_the_stored_rows(place):
    first = run(place, [{"a": 1}], seeds=(1,))
    shutil.rmtree(place / "sweep")
    rows = run(place, [{"a": 1}], seeds=(1, 2))
    assert calls(place) == ["1 1", "1 2"], "a run whose row is stored was repeated"
    assert sorted(rows["value"]) == [11, 12] and first["value"].tolist() == [11]


def test_scores_of_every_image_are_stored_beside_the_rows_and_never_doubled(place):
    for _ in range(2):
        run(place, [{"a": 7}], name="imaged")
    images = read_table(sweep.images_table(place / "table.csv"))
    assert sweep.images_table("figures/grains_runs.csv") == Path("figures/grains_images.csv")
    assert sorted(images[["seed", "name", "score"]].values.tolist()) == [  # rows come as runs end
        [1, "one", 1],
        [1, "two", 7],
        [2, "one", 2],
        [2, "two", 7],
    ]
    assert set(sweep.KEYS) <= set(images.columns)


def test_a_repeated_run_leaves_no_image_of_before(place):
    run(place, [{"a": 7}], name="imaged")
    shutil.rmtree(place / "sweep" / "runs")
    table = read_table(place / "table.csv")
    write_table(table[table["seed"] == 2], place / "table.csv")
    (place / "other").touch()
    run(place, [{"a": 7}], name="imaged")
    images = read_table(sweep.images_table(place / "table.csv"))
    assert sorted(images[["seed", "name"]].values.tolist()) == [[1, "one"], [1, "three"], [2, "one"], [2, "two"]]


def test_a_row_says_where_the_code_came_from_when_its_run_began(place, monkeypatch):
    told = []
    monkeypatch.setattr(sweep, "provenance", lambda **_: told.append("provenance") or {"commit": "a"})
    monkeypatch.setattr(sweep, "_function", lambda _: lambda *_: told.append("run") or {"value": 1})
    sweep.run({"key": "k", "experiment": "m:f", "configuration": "{}", "seed": 1, "profile": "smoke"}, place)
    assert told == ["provenance", "run"]
