import json
import os
import subprocess
import sys
from importlib import metadata
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micro_lib.core import runs


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), runs.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_killed_before_the_end_leaves_no_part_under_the_name(tmp_path):
    path = tmp_path / "a.json"
    runs.write_json(path, "old")
    code = (
        "import os, sys; from micro_lib.core.runs import atomic_path\n"
        "with atomic_path(sys.argv[1]) as t:\n  t.write_text('[1, 2'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert runs.read_json(path) == "old"


def test_temporary_name_is_in_the_folder_of_the_file_and_keeps_its_suffix(tmp_path):
    with runs.atomic_path(tmp_path / "new" / "a.npz") as temporary:
        assert temporary.parent == tmp_path / "new" and temporary.suffix == ".npz"
        np.savez(temporary, x=1)
    assert np.load(tmp_path / "new" / "a.npz")["x"] == 1


def test_files_get_the_permissions_of_the_user(tmp_path):
    before = os.umask(0o022)
    try:
        runs.write_json(tmp_path / "a.json", 1)
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644


def test_broken_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json.*delete it"):
        runs.read_json(tmp_path / "a.json")


cells = st.floats(allow_nan=True, allow_infinity=True, width=64)


@given(st.lists(st.tuples(cells, st.integers(-(2**60), 2**60)), min_size=1))
def test_tables_read_back_bit_for_bit(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("t") / "t.csv"
    table = pd.DataFrame({"z": [r[0] for r in rows], "a": [r[1] for r in rows]})
    runs.write_table(table, path)
    pd.testing.assert_frame_equal(runs.read_table(path), table, check_exact=True)


def test_texts_that_look_missing_stay_texts(tmp_path):
    table = pd.DataFrame({"a": ["NA", "None", "nan", 'x, "y"\nz']})
    runs.write_table(table, tmp_path / "t.csv")
    assert runs.read_table(tmp_path / "t.csv")["a"].tolist() == table["a"].tolist()


def test_columns_read_as_text_stay_what_they_were(tmp_path):
    table = pd.DataFrame({"a": ["001", "", "1e3", "nan"], "b": ["001", "", "1e3", "2"]})
    runs.write_table(table, tmp_path / "t.csv")
    found = runs.read_table(tmp_path / "t.csv", text=["a"])
    assert found["a"].tolist() == ["001", "", "1e3", "nan"]
    np.testing.assert_array_equal(found["b"], [1, np.nan, 1000, 2])


texts = st.sampled_from(["a", "b", "", "1", "001", "1.0", "NA", "nan"])
pairs = st.lists(st.tuples(st.integers(0, 3), texts, st.integers(0, 99)), min_size=1, max_size=8)


@given(st.lists(pairs, min_size=1, max_size=3))
def test_merged_rows_are_a_dictionary_in_order_of_first_appearance(tmp_path_factory, batches):
    path, model = tmp_path_factory.mktemp("m") / "t.csv", {}
    for batch in batches:
        merged = runs.merge_rows(path, pd.DataFrame(batch, columns=["k", "l", "v"]), ["k", "l"])
        for k, text, v in batch:
            model[str(k), text] = v  # a dictionary keeps the place of a key that is set again
        assert list(merged.itertuples(index=False, name=None)) == [(*key, v) for key, v in model.items()]
        pd.testing.assert_frame_equal(runs.read_table(path, text=["k", "l"]), merged, check_dtype=False)


@pytest.mark.parametrize(
    ("first", "again"),
    [([1, 2], ["1", "2"]), (["", "a"], [None, "a"]), ([0.1, np.nan], ["0.1", ""]), ([True, False], ["True", "False"])],
)
def test_keys_are_equal_if_their_cells_are(tmp_path, first, again):
    for keys, values in ((first, [1, 2]), (again, [3, 4]), (first, [5, 6])):
        merged = runs.merge_rows(tmp_path / "t.csv", pd.DataFrame({"k": keys, "v": values}), ["k"])
    assert merged["v"].tolist() == [5, 6]


def test_merged_rows_may_bring_new_columns(tmp_path):
    runs.merge_rows(tmp_path / "t.csv", pd.DataFrame({"k": [1], "v": [2]}), ["k"])
    merged = runs.merge_rows(tmp_path / "t.csv", pd.DataFrame({"k": [2], "w": [3]}), ["k"])
    assert list(merged.columns) == ["k", "v", "w"] and merged["w"].isna().tolist() == [True, False]


def test_what_is_merged_as_a_whole_leaves_no_older_part(tmp_path):
    path, keys = tmp_path / "t.csv", ["run", "image"]
    runs.merge_rows(path, pd.DataFrame({"run": [1, 1, 2], "image": ["a", "b", "a"], "v": [1, 2, 3]}), keys)
    again = pd.DataFrame({"run": [1, 1], "image": ["a", "c"], "v": [4, 5]})
    merged = runs.merge_rows(path, again, keys, whole=["run"])
    assert merged.to_numpy().tolist() == [["1", "a", 4], ["2", "a", 3], ["1", "c", 5]]
    assert runs.merge_rows(path, again, keys, whole=["run"]).equals(merged)


def test_rows_without_their_key_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the new rows lack the key column\(s\) \['k'\]"):
        runs.merge_rows(tmp_path / "t.csv", pd.DataFrame({"v": [2]}), ["k"])
    assert not (tmp_path / "t.csv").exists()


def _merge_ten(path, first):
    for k in range(first, first + 10):
        runs.merge_rows(path, pd.DataFrame({"k": [k]}), ["k"])


def test_processes_that_merge_at_once_lose_no_row(tmp_path):
    path = tmp_path / "t.csv"
    workers = [get_context("fork").Process(target=_merge_ten, args=(path, first)) for first in (0, 10, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(runs.read_table(path)["k"]) == list(range(30))


def test_out_dir_follows_parameter_then_environment_then_checkout(tmp_path, monkeypatch):
    assert runs.out_dir("a", str(tmp_path / "named")) == tmp_path / "named"
    assert (tmp_path / "named").is_dir()
    monkeypatch.setenv("MICRO_OUT", str(tmp_path / "env"))
    assert runs.out_dir("a") == tmp_path / "env" / "a"
    monkeypatch.delenv("MICRO_OUT")
    assert runs.build_dir() == runs.repository_root() / "build"


def test_environment_is_put_back_even_after_an_error(monkeypatch):
    monkeypatch.setenv("MICRO_A", "1")
    with pytest.raises(RuntimeError), runs.environment(MICRO_A="2", MICRO_B="3"):
        assert (os.environ["MICRO_A"], os.environ["MICRO_B"]) == ("2", "3")
        raise RuntimeError
    assert os.environ["MICRO_A"] == "1" and "MICRO_B" not in os.environ


def test_provenance_says_what_ran_where():
    row = runs.provenance(profile="smoke", seed=np.int64(3), notebook="03_grain_synthesis")
    assert list(row) == ["profile", "seed", "device", "notebook", "versions", "commit", "dirty"]
    assert f"numpy {metadata.version('numpy')}" in row["versions"].split("; ")
    assert row["dirty"] in (0, 1)
    json.dumps(row)


def test_commit_and_dirty_flag_come_from_git(tmp_path, monkeypatch):
    def git(*arguments):
        user = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *user, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    monkeypatch.setattr(runs, "repository_root", lambda: tmp_path)
    runs.commit.cache_clear()
    assert runs.commit() == ("unknown", False)
    git("init", "-q")
    (tmp_path / "figures").mkdir()
    for name in ("a", "figures/rows.csv"):
        (tmp_path / name).write_text("1")
        git("add", name)
    git("commit", "-qm", "a")
    runs.commit.cache_clear()
    assert runs.commit() == (git("rev-parse", "HEAD").strip(), False)
    (tmp_path / "untracked").write_text("1")
    (tmp_path / "figures" / "rows.csv").write_text("2")
    runs.commit.cache_clear()
    assert runs.commit()[1] is False, "a result that was added"
    (tmp_path / "a").write_text("2")
    runs.commit.cache_clear()
    assert runs.commit() == (git("rev-parse", "HEAD").strip(), True)
    runs.commit.cache_clear()


def test_comments_and_docstrings_are_no_code(tmp_path):
    texts = {
        "one": 'def f(x):\n    """Say it."""\n    return x  # as it is\n',
        "same": '"""A module."""\n\n\ndef f(x):\n    return x\n',
        "other": 'def f(x):\n    """Say it."""\n    return -x\n',
    }
    found = {}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
        found[name] = runs.parsed(tmp_path / f"{name}.py")
    assert found["one"] == found["same"] != found["other"]
