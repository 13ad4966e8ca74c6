import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from micro_lib.application import tables
from micro_lib.core.runs import read_table, write_table

CLAIM = {"claim": "mIoU", "paper": "Trampert 2021", "where": "section 3.2.3", "published": "0.745 +- 0.015"}
OURS = {"ours": 0.71234, "low": 0.6912, "high": 0.7334, "level": 0.95, "n": 5, "over": "runs"}
MEASURED = {**CLAIM, **OURS, "kind": "effect", "verdict": "reproduced"}
RUNS = pd.DataFrame({"seed": [2, 1, 2], "device": "cpu"})


def rows(*claims, notebook="05_grain_segmentation", profile="quick", runs=RUNS):
    return tables.claim_rows(claims, profile=profile, notebook=notebook, runs=runs)


def test_rows_have_the_agreed_columns_and_their_provenance():
    table = rows(MEASURED)
    names = "claim paper where kind published answers ours low high level n over unit profile device notebook verdict"
    assert list(table.columns) == [*names.split(), "why", "seeds", "versions", "commit"]
    row = table.iloc[0]
    assert tuple(row[["seeds", "profile", "unit", "notebook"]]) == (
        "1 2",
        "quick",
        "1",
        "05_grain_segmentation",
    )
    assert "numpy" in row["versions"] and len(row["commit"]) >= 7


def test_the_device_of_a_claim_is_that_of_its_runs():
    assert rows(MEASURED, runs=RUNS.assign(device=["cuda", "cuda", None]))["device"].item() == "cuda"
    assert rows(MEASURED, runs=RUNS.assign(device=["cuda", "cpu", "cuda"]))["device"].item() == "cpu, cuda"
    assert rows(MEASURED, runs=pd.DataFrame({"seed": [4]}))["device"].item() == "cpu", "nothing was trained"


def test_a_table_that_sums_up_runs_says_which():
    names = ("profile", "seed", "device", "notebook", "versions", "commit", "dirty")
    origin = dict(zip(names, ("quick", 1, "cpu", "05_grains", "numpy 2", "c", 1), strict=True))
    runs = pd.DataFrame({"profile": "study", "seed": [10, 2, 2], "commit": ["b", "a", "b"], "dirty": 0})
    found = tables.summary_origin(runs, origin)
    assert found == {
        **origin,
        **{"profile": "study", "seed": "2, 10", "commit": "a, b", "dirty": "0"},
        **{"notebook_profile": "quick", "notebook_seed": 1, "notebook_commit": "c"},
    }
    for own in (runs[:0], pd.DataFrame({"miou": [0.5]})):
        assert tables.summary_origin(own, origin) == found | origin, "runs of the notebook itself"


def test_profile_of_the_environment_is_written_out(monkeypatch):
    monkeypatch.setenv("MICRO_PROFILE", "smoke")
    assert rows(MEASURED, profile="")["profile"].tolist() == ["smoke"]


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"verdict": "confirmed"}, "verdict 'confirmed' is none of reproduced, direction"),
        ({"ours": math.nan}, "needs our number"),
        ({"n": 0}, "needs its n, what that is over"),
        ({"over": ""}, "needs its n, what that is over"),
        ({"kind": ""}, "and a kind"),
        ({"kind": "statement"}, "is none of a statement"),
        ({"verdict": "holds here"}, "is none of a effect"),
        ({"level": math.nan}, "level nan does not fit"),
        ({"low": math.nan, "high": math.nan}, "level 0.95 does not fit"),
        ({"verdict": "not run here", "why": "no GPU"}, "takes no number of ours"),
        ({"verdict": "not run here", "ours": math.nan, "low": math.nan, "high": math.nan}, "says why"),
        ({"verdict": "cannot be tested with open data"}, "says why"),
        ({"low": 0.8}, "interval"),
        ({"low": math.nan}, "interval"),
        ({"published": " "}, "published is missing"),
        ({"ci": 3}, "unknown field 'ci'"),
        ({"commit": "abc"}, "unknown field 'commit'"),
    ],
)
def test_claims_that_do_not_hold_together_are_refused(change, fault):
    with pytest.raises(ValueError, match=f"'mIoU'.*{fault}"):
        rows({**MEASURED, **change})


def test_a_claim_that_was_not_run_is_a_row_too():
    table = rows({**CLAIM, "verdict": "not run here", "why": "the weights of resnet50 cannot be had offline"})
    assert math.isnan(table.loc[0, "ours"]) and table.loc[0, "n"] == 0


def test_a_number_that_judges_nothing_stands_beside_all_the_same():
    claim = {**MEASURED, "kind": "level", "verdict": tables.NOT_TESTABLE, "why": "generated micrographs"}
    assert rows(claim)[["ours", "n", "over"]].to_numpy().tolist() == [[0.71234, 5, "runs"]]


def test_stating_a_claim_twice_is_refused():
    with pytest.raises(ValueError, match="twice in 05_grain_segmentation"):
        rows(MEASURED, MEASURED)


def test_claims_of_several_notebooks_are_gathered(tmp_path):
    one = tables.write_claims(rows(MEASURED), tmp_path / "a")
    other = tables.write_claims(rows({**MEASURED, "claim": "error"}, notebook="03_grain_synthesis"), tmp_path / "b")
    table = tables.gather_claims([one, other])
    assert table["claim"].tolist() == ["mIoU", "error"] and tuple(table.columns) == tables.COLUMNS
    assert tables.gather_claims([]).empty and tuple(tables.gather_claims([]).columns) == tables.COLUMNS
    again = tables.write_claims(rows(MEASURED, notebook="13_claims_and_figures"), tmp_path / "c")
    with pytest.raises(ValueError, match="more than one notebook"):
        tables.gather_claims([one, again])
    write_table(pd.DataFrame({"claim": ["x"]}), tmp_path / "d.csv")
    with pytest.raises(ValueError, match=r"d\.csv has columns \['claim'\]"):
        tables.gather_claims([tmp_path / "d.csv"])


def test_written_claims_read_back_as_they_were(tmp_path):
    table = rows(MEASURED)
    path = tables.write_claims(table, tmp_path)
    assert path.name == "claims.csv"
    assert read_table(path)["ours"].tolist() == [0.71234]


@pytest.mark.parametrize(
    "numbers, text",
    [
        ((0.71234, 0.6912, 0.7334), "0.712 [0.691, 0.733]"),
        ((0.0994, 0.0991, 0.0998), "0.09940 [0.09910, 0.09980]"),
        ((123.4, 98.0, 149.0), "123 [98, 149]"),
        ((1234.0, 500.0, 2000.0), "1230 [500, 2000]"),
        ((0.71234,), "0.712"),
        ((22.04,), "22.0"),
        ((1234567.0,), "1230000"),
        ((0.0,), "0"),
        ((-0.00012,), "-0.000120"),
        ((1e-9,), "1.00e-09"),
        ((math.nan,), "-"),
        ((math.inf,), "inf"),
        ((0.5, 0.5, 0.5), "0.500 [0.500, 0.500]"),
        ((2.393, -2.29, math.inf), "2.4 [-2.3, inf]"),
        ((2.25, -math.inf, 7.1), "2.2 [-inf, 7.1]"),
        ((44.87, 44.87 - 1e-14, 44.87 + 1e-14), "44.9 [44.9, 44.9]"),
    ],
)
def test_rounding(numbers, text):
    assert tables.rounded(*numbers) == text


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3))
def test_rounding_moves_a_number_by_less_than_a_tenth_of_its_half_width(value, half_width):
    shown = float(tables.rounded(value, value - half_width, value + half_width).split()[0])
    assert abs(shown - value) <= 0.0501 * half_width + 1e-9


def test_shown_tables_join_intervals_and_leave_the_rest():
    df = pd.DataFrame({"arm": ["a"], "n": [3], "miou": [0.5], "miou_low": [0.4], "miou_high": [0.6], "low": [1.0]})
    shown = tables.show(df)
    assert shown.to_dict("records") == [{"arm": "a", "n": 3, "miou": "0.50 [0.40, 0.60]", "low": "1.00"}]
    assert df.columns.tolist()[3] == "miou_low"
    assert tables.show(rows(MEASURED)).loc[0, "ours"] == "0.712 [0.691, 0.733]"


def test_one_number_stands_side_by_side_in_the_order_of_the_table():
    table = pd.DataFrame({"arm": ["b", "a", "b"], "shift": ["T2", "T2", "T1"], "miou": [0.5, 0.61, 0.7]})
    table = table.assign(miou_low=[0.4, np.nan, 0.6], miou_high=[0.6, np.nan, 0.8])
    wide = tables.side_by_side(table, "arm", "shift", "miou")
    assert wide.index.tolist() == ["b", "a"] and wide.columns.tolist() == ["T2", "T1"]
    assert wide.to_numpy().tolist() == [["0.50 [0.40, 0.60]", "0.70 [0.60, 0.80]"], ["0.610", ""]]
    assert tables.side_by_side(table[:0], "arm", "shift", "miou").empty


def test_claims_print_one_line_each_with_the_verdicts_counted():
    unrun = {**CLAIM, "claim": "other", "verdict": "not run here", "why": "no GPU"}
    text = tables.claims_text(rows(MEASURED, unrun))
    assert "0.712 [0.691, 0.733]" in text and text.endswith("2 claims: 1 reproduced, 1 not run here")
    assert len(text.splitlines()) == 5
    assert tables.claims_text(tables.gather_claims([])) == "No notebook that ran states a claim."


def test_an_interval_carries_its_level_and_what_it_is_over():
    found = tables.mean_fields([1.0, 3.0], "gain", "folds", 0.9)
    low, high = stats.t.interval(0.9, 1, 2, 1)
    assert [found[name] for name in ("gain", "gain_low", "gain_high")] == pytest.approx([2, low, high])
    assert (found["confidence"], found["over"]) == (0.9, "folds")
    one = tables.mean_fields([1.0], "gain", "folds")
    assert math.isnan(one["confidence"]) and one["over"] == "folds"
    pair = tables.paired_fields([3.0, 4.0], [1.0, 1.0], "specimens", 0.99)
    assert (pair["n"], pair["difference"], pair["confidence"], pair["over"]) == (2, 2.5, 0.99, "specimens")


def test_readers_see_verdicts_counted_and_the_effects_of_the_largest_profile():
    unmeasured = {**CLAIM, "claim": "p", "verdict": "not run here", "why": "no time"}
    level = {**MEASURED, "claim": "a level", "kind": "level", "verdict": "not reproduced"}
    study = rows({**MEASURED, "published": "a|b", "level": 0.99167}, unmeasured, level, profile="study")
    text = tables.claims_markdown(pd.concat([study, rows({**MEASURED, "ours": 0.7})], ignore_index=True))
    lines = text.splitlines()
    assert lines[2] == "| Trampert 2021 | section 3.2.3 | 1 reproduced, 1 not reproduced, 1 not run here |"
    assert lines[4] == "3 claims: 1 reproduced, 1 not reproduced, 1 not run here."
    ours = "0.712 [0.691, 0.733]"
    assert lines[8] == f"| mIoU (Trampert 2021, section 3.2.3) | a/b | {ours} | 5 runs, 99.2 % | study | reproduced |"
    assert len(lines) == 9, "levels are counted alone"
    assert "| 0.712 [0.691, 0.733] % |" in tables.claims_markdown(rows({**MEASURED, "unit": "%"}))


def test_readers_see_which_verdicts_more_runs_might_change():
    wide = {**MEASURED, "why": tables.TOO_WIDE + "4 runs"}
    kinds = {"not reproduced": "effect", "does not hold here": "statement", "direction reproduced": "effect"}
    parts = [{**wide, "claim": verdict, "verdict": verdict, "kind": kind} for verdict, kind in kinds.items()]
    text = tables.claims_markdown(rows(*parts, {**MEASURED, "claim": "narrow", "verdict": "not reproduced"}))
    counted = "1 direction reproduced, 2 not reproduced (1 too wide to tell), 1 does not hold here (1 too wide to tell)"
    assert f"4 claims: {counted}." in text and text.count("| not reproduced (too wide to tell) |") == 1
    assert text.count("| not reproduced |") == text.count("| does not hold here (too wide to tell) |") == 1
    assert text.count("| direction reproduced |") == 1, "an effect that is there, of whatever size"


def test_counts_are_whole_numbers():
    count = {**CLAIM, "ours": 15.0, "n": 16, "over": "contrasts", "kind": "effect", "verdict": "not reproduced"}
    text = tables.claims_markdown(rows(count, {**count, "claim": "share", "ours": 0.25}))
    assert "| 15 | 16 contrasts |" in text and "| 0.250 | 16 contrasts |" in text


def test_the_claims_of_the_readme_are_replaced_between_their_marks():
    start, end = tables.README_MARKS
    once = tables.with_claims(f"# a\n{start}\nold\n{end}\nz\n", rows(MEASURED))
    assert once == tables.with_claims(once, rows(MEASURED))
    assert once.startswith(f"# a\n{start}\n| paper") and once.endswith(f"{end}\nz\n") and "old" not in once


@pytest.mark.parametrize("text", ["", "{0}", "{1}\n{0}", "{0}\n{0}\n{1}"])
def test_a_readme_without_its_marks_is_refused(text):
    with pytest.raises(ValueError, match="once each, in order"):
        tables.with_claims(text.format(*tables.README_MARKS), rows(MEASURED))


def test_claims_of_a_build_replace_the_stored_ones_of_their_notebooks(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "repository_root", lambda: tmp_path)
    stored = [rows({**MEASURED, "claim": claim}, notebook=name) for claim, name in (("a", "04_x"), ("b", "05_y"))]
    write_table(pd.concat(stored, ignore_index=True), tmp_path / "figures" / "tables" / "claims.csv")
    for claim, name in (("c", "05_y"), ("d", "13_z")):
        tables.write_claims(rows({**MEASURED, "claim": claim}, notebook=name), tmp_path / "build" / name)
    known = tables.known_claims(tmp_path / "build", without="13_z")
    assert known["claim"].tolist() == ["a", "c"] and tuple(known.columns) == tables.COLUMNS
    assert tables.known_claims(tmp_path / "none")["claim"].tolist() == ["a", "b"]


def test_a_quick_build_hides_no_stored_study_and_a_study_replaces_all_of_its_notebook(tmp_path):
    path = tmp_path / "claims.csv"
    study = rows(MEASURED, profile="study")
    unrun = rows({**CLAIM, "verdict": "not run here", "why": "no data"})
    write_table(pd.concat([unrun, study], ignore_index=True), path)
    known = tables.with_stored(rows({**MEASURED, "ours": 0.7}), path)
    assert sorted(zip(known["profile"], known["ours"], strict=True)) == [("quick", 0.7), ("study", 0.71234)]
    known = tables.with_stored(rows({**MEASURED, "claim": "renamed"}, profile="study"), path)
    assert known[["claim", "profile"]].to_numpy().tolist() == [["renamed", "study"]], "quick and older claims go"
    write_table(rows({**CLAIM, "verdict": "not run here", "why": "no data"}, profile="study"), path)
    assert tables.with_stored(rows(MEASURED), path)["verdict"].tolist() == ["reproduced"], (
        "nothing run protects nothing"
    )


def test_a_claim_that_moves_to_another_notebook_is_not_doubled(tmp_path):
    write_table(rows(MEASURED, notebook="13_z"), tmp_path / "claims.csv")
    known = tables.with_stored(rows(MEASURED, notebook="09_y"), tmp_path / "claims.csv")
    assert known["notebook"].tolist() == ["09_y"]


def test_a_reason_for_no_answer_goes_once_there_is_one(tmp_path):
    unanswered = {**CLAIM, "answers": "a", "verdict": "not run here", "why": "no stored run"}
    others = [{**unanswered, "claim": "of b", "answers": "b"}, {**unanswered, "claim": "a statement", "answers": ""}]
    write_table(rows(unanswered, *others, notebook="13_z"), tmp_path / "claims.csv")
    for found in ({**MEASURED, "claim": "new", "answers": "a; c"}, {**unanswered, "claim": "new", "why": "too few"}):
        known = tables.with_stored(rows(found, notebook="09_y"), tmp_path / "claims.csv")
        assert known["claim"].tolist() == ["new", "of b", "a statement"]
    elsewhere = rows({**MEASURED, "claim": "new", "answers": "a", "where": "section 3.3"}, notebook="09_y")
    assert len(tables.with_stored(elsewhere, tmp_path / "claims.csv")) == 4


def test_a_stored_table_of_fewer_columns_is_still_known(tmp_path):
    write_table(rows(MEASURED).drop(columns=["kind", "level", "over"]), tmp_path / "claims.csv")
    known = tables.with_stored(rows({**MEASURED, "claim": "b"}, notebook="x"), tmp_path / "claims.csv")
    assert tuple(known.columns) == tables.COLUMNS and len(known) == 2
