"""Tables of the crack experiment against values worked out by hand, and the printed numbers of the paper."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from micro_lib.core.runs import write_table
from micro_lib.reports import crack_report
from micro_lib.reports.crack_claims import claims
from micro_lib.reports.crack_report import (
    arm_of,
    compare,
    compare_specimens,
    over_specimens,
    table_1,
    worth,
)

GAP = [0.00, 0.01, -0.01, 0.02, -0.02, 0.00]  # what makes seeds differ


def runs_of(errors, n_real=0, generated=False, spread=1.0, n_training=256):
    """Six runs an arm around its error."""
    tables = []
    for arm, error in errors.items():
        values = error + spread * np.array(GAP) * (1 + 0.1 * len(arm))
        row = {"arm": arm, "n_real": n_real, "seed": range(1, 7), "test_error": values, "all_error": values / 2}
        tables.append(pd.DataFrame({**row, "steps": 100, "n_training": n_real or n_training, "generated": generated}))
    return pd.concat(tables, ignore_index=True)


def counts_of(wrong, arm="mixed", seed=1, n=10, n_real=0):
    """Counts of specimens that were tested on, from the number of wrong tiles of each."""
    names = list(wrong)
    table = pd.DataFrame({"name": names, "wrong": list(wrong.values())})
    fixed = {"split": "test", "n": n, "n_crack": 5, "missed": 1, "false_alarms": table["wrong"] - 1}
    matched = {"n_matched": [4 if name != "c" else 0 for name in names], "wrong_matched": 1}
    return table.assign(arm=arm, n_real=n_real, seed=seed, **fixed, **matched)


@pytest.mark.parametrize(
    ("configuration", "arm"),
    [
        ({"arm": "mixed", "data": "real"}, "mixed"),
        ({"arm": "mixed", "generator": "covering", "n_real": 8}, "mixed covering"),
        ({"arm": "real long", "n_real": 16}, "real long"),
        ({"arm": "real", "split": "tile"}, "real by tile"),
        ({"arm": "real", "generator": "covering"}, "real"),
    ],
)
def test_arms_are_named_by_their_configuration(configuration, arm):
    assert arm_of(json.dumps(configuration)) == arm


def test_stored_runs_of_one_profile_are_read(tmp_path):
    configuration = json.dumps({"arm": "mixed", "n_real": 32, "data": "real"})
    table = pd.DataFrame({"configuration": [configuration] * 2, "profile": ["study", "quick"], "seed": 1, "n": 3})
    for kind in ("runs", "images"):
        write_table(table, tmp_path / f"cracks_{kind}.csv")
    for found in crack_report.stored("study", tmp_path):
        assert found[["arm", "n_real"]].to_numpy().tolist() == [["mixed", 32]]
    assert all(found.empty for found in crack_report.stored("study", tmp_path / "none"))
    assert table_1(crack_report.stored("paper", tmp_path / "none")[0]).empty


def test_the_printed_intervals_are_those_of_runs_squared_trials():
    table = crack_report.published()
    assert len(table) == 6
    for end in ("low", "high"):
        np.testing.assert_allclose(table[f"trials_{end}"], table[f"printed_{end}"], atol=1.1e-3)
    width = (table["runs_high"] - table["runs_low"]) / (table["printed_high"] - table["printed_low"])
    assert width.between(1.05, 2).all(), "over runs they would be wider"


def test_the_papers_synthetic_model_is_near_chance_on_the_other_tiles():
    assert crack_report.outside_the_test_set() == pytest.approx(0.4365, abs=5e-4)


def test_the_mean_over_runs_has_a_t_interval():
    runs = runs_of({"mixed": 0.2, "real": 0.3})
    row = table_1(runs).set_index("arm").loc["mixed"]
    values = runs.loc[runs["arm"] == "mixed", "test_error"]
    expected = stats.t.interval(0.99, 5, values.mean(), stats.sem(values))
    assert (row["error"], row["n"], row["published"]) == (pytest.approx(0.2), 6, "0.205 +- 0.032")
    assert row[["error_low", "error_high"]].tolist() == pytest.approx(expected)
    assert row["sd"] == pytest.approx(values.std(ddof=1))
    assert row["trials_high"] - row["trials_low"] == pytest.approx(2 * 2.576 * (0.2 * 0.8 / 40000) ** 0.5, rel=1e-2)
    alone = table_1(runs[runs["seed"] == 1]).set_index("arm").loc["mixed"]
    assert alone["n"] == 1 and np.isnan(alone["error_low"]) and np.isnan(alone["sd"])


def test_small_budgets_are_no_part_of_table_1():
    runs = pd.concat([runs_of({"mixed": 0.2}), runs_of({"mixed": 0.9}, n_real=8)])
    assert table_1(runs)["error"].tolist() == pytest.approx([0.2])


def test_arms_are_compared_seed_by_seed():
    runs = runs_of({"mixed": 0.18, "real": 0.24})
    row = compare(runs, [("mixed", "real"), ("mixed", "absent")]).iloc[0]
    a, b = (runs.loc[runs["arm"] == arm, "test_error"].to_numpy() for arm in ("mixed", "real"))
    test = stats.ttest_rel(a, b)
    assert (row["difference"], row["p"], row["n"]) == (pytest.approx(-0.06), pytest.approx(test.pvalue), 6)
    assert row["saved"] == pytest.approx(0.25) and row["saved_low"] < 0.25 < row["saved_high"]
    # In another order of rows, and with a seed that the other arm lacks, the same pairs count.
    shuffled = pd.concat([runs, runs.iloc[:1].assign(seed=99)]).sample(frac=1, random_state=1)
    again = compare(shuffled, [("mixed", "real")]).iloc[0]
    pd.testing.assert_series_equal(again, row)


def test_a_constant_share_is_saved_exactly():
    runs = runs_of({"real": 0.3}, spread=3)
    runs = pd.concat([runs, runs.assign(arm="mixed", test_error=runs["test_error"] * 0.75)])
    row = compare(runs, [("mixed", "real")]).iloc[0]
    assert row[["saved", "saved_low", "saved_high"]].tolist() == pytest.approx([0.25] * 3)


def test_errors_are_pooled_over_specimens():
    counts = pd.concat(
        [counts_of({"a": 2, "b": 4}), counts_of({"a": 4}, seed=2), counts_of({"z": 9}).assign(split="training")]
    )
    row = over_specimens(counts).iloc[0]
    assert (row["seeds"], row["n"], row["tiles"]) == (2, 2, 30)
    assert row["error"] == pytest.approx(10 / 30) and row["error_low"] == pytest.approx(0.3)
    assert (row["missed"], row["false_alarms"]) == (pytest.approx(3 / 15), pytest.approx(7 / 15))


def test_specimens_can_be_left_out_and_tiles_matched():
    counts = counts_of({"a": 2, "b": 4, "c": 10})
    assert over_specimens(counts, without=("c",)).iloc[0]["error"] == pytest.approx(6 / 20)
    row = over_specimens(counts, matched=True).iloc[0]  # c has no matched tile
    assert (row["n"], row["tiles"], row["error"]) == (2, 8, pytest.approx(2 / 8))
    assert np.isnan(over_specimens(counts, without=("b", "c")).iloc[0]["error_low"])


def test_a_constant_gain_over_specimens_is_found_and_called_better():
    counts = pd.concat(
        [counts_of({"a": 1, "b": 3}), counts_of({"a": 2, "b": 4}, "real"), counts_of({"a": 9}, "real", 2)]
    )
    row = compare_specimens(counts, [("mixed", "real"), ("mixed", "absent")]).iloc[0]
    assert row["saved"] == pytest.approx(2 / 6) and row["saved_low"] <= 0.25 + 1e-9 and row["saved_high"] >= 0.5 - 1e-9
    assert row[["difference", "difference_low", "difference_high"]].tolist() == pytest.approx([-0.1] * 3)
    assert row["better"] and row["seeds"] == 1
    back = compare_specimens(counts, [("real", "mixed")]).iloc[0]
    assert back["difference"] == pytest.approx(0.1) and not back["better"]


def test_the_specimen_table_names_those_that_were_looked_at():
    counts = pd.concat([counts_of({"070516#1": 2, "b": 4}), counts_of({"070516#1": 3, "b": 5}, "real")])
    again = counts_of({"070516#1": 4}).assign(seed=9)
    table = crack_report.specimen_table(pd.concat([counts, again]), ["mixed", "real"]).set_index("specimen")
    assert table.loc["070516#1"].tolist() == pytest.approx([10, True, 2, 0.3, 0.2, 0.4, 0.3, 0.3, 0.3])
    assert table.loc["b", ["looked_at", "runs"]].tolist() == [False, 1]


def curves():
    """Real tiles halve the error from 16 to 64 to all 256; pre-training is worth a budget."""
    real = {16: 0.4, 64: 0.2, 0: 0.1}
    mixed = {16: 0.2, 64: 0.1, 0: 0.05}
    parts = [runs_of({"synthetic": 0.4}, n_training=0)]
    for n_real in real:
        parts.append(runs_of({"real long": real[n_real], "mixed": mixed[n_real]}, n_real, spread=1e-9))
    return pd.concat(parts, ignore_index=True)


def test_the_budget_curve_ends_with_all_tiles():
    table = crack_report.budget_curve(curves())
    assert table[table["arm"] == "mixed"]["n_real"].tolist() == [16, 64, 256]
    assert table[table["arm"] == "real long"]["error"].tolist() == pytest.approx([0.4, 0.2, 0.1])


def test_budget_gains_stand_for_each_budget():
    counts = [counts_of({"a": 1, "b": 3}, n_real=n) for n in (16, 0)]
    counts += [counts_of({"a": 2, "b": 4}, "real long", n_real=n) for n in (16, 0)]
    table = crack_report.budget_gains(curves(), pd.concat(counts))
    assert table["n_real"].tolist() == [16, 64, "all"]
    assert table["difference"].tolist() == pytest.approx([-0.2, -0.1, -0.05])
    assert table["specimens_high"].tolist() == pytest.approx([-0.1, np.nan, -0.1], nan_ok=True)


def test_what_the_generator_is_worth():
    table = worth(curves(), n_boot=50).set_index("n_real")
    # synthetic alone is as good as 16 real tiles, 16 with it as 64 without, 64 as all 256, all as more than there are
    assert table["needed"].to_dict() == pytest.approx({0.0: 16, 16.0: 64, 64.0: 256, 256.0: 256})
    assert table["at_least"].to_dict() == {0.0: False, 16.0: False, 64.0: True, 256.0: True}
    assert worth(runs_of({"mixed": 0.2, "real long": 0.3})).empty


def test_the_shortcut_is_summed_up():
    tiles = pd.DataFrame({"group": list("aabb"), "role": "test", "label": [0, 1, 0, 1], "matched": [1, 1, 0, 0]})
    tiles = tiles.assign(probability=[0.2, 0.8, 0.6, 0.4], called=[0, 1, 1, 0], fold=[0, 0, 1, 1])
    found = crack_report.shortcut(tiles)
    assert (found["auc"], found["auc_folds"], found["error"]) == (0.75, 0.5, 0.5)
    assert (found["error_matched"], found["tiles_matched"], found["n"], found["tiles"]) == (0.0, 2, 2, 4)


def test_the_surest_errors_come_first():
    tiles = pd.DataFrame({"name": list("abcdef"), "role": ["test"] * 5 + ["training"], "label": [1, 1, 0, 0, 1, 1]})
    tiles = tiles.assign(probability=[0.4, 0.1, 0.7, 0.9, 0.8, 0.0], called=[0, 0, 1, 1, 1, 0])
    assert crack_report.wrong_tiles(tiles, 1)["name"].tolist() == ["b", "d"]
    assert crack_report.wrong_tiles(tiles, 5)["name"].tolist() == ["b", "a", "d", "c"]


GAIN = "mixed training saves errors of the crack classifier: error on held specimens"
WRONG = {"mixed": 15, "real": 20, "real long": 20}


def judged(wrong, of=100, **options):
    """Claims of eight specimens, each with so many of its tiles wrong in every arm, all of them alike."""
    counts = [counts_of(dict.fromkeys("abcdefgh", n), arm, n=of) for arm, n in ({"synthetic": 40} | wrong).items()]
    runs = runs_of({"synthetic": 0.4, **{arm: n / of for arm, n in wrong.items()}}, **options)
    return claims(runs, pd.concat(counts), profile="study").set_index("claim")


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [
        (WRONG, "reproduced"),
        (WRONG | {"mixed": 5}, "direction reproduced"),
        (WRONG | {"real long": 14}, "not reproduced"),
        (WRONG | {"mixed": 20, "real": 15}, "not reproduced"),
    ],
)
def test_the_claimed_gain_is_judged_against_both_real_arms(wrong, verdict):
    row = judged(wrong).loc[GAIN]
    assert row["verdict"] == verdict and (row["n"], row["over"], row["level"]) == (8, "specimens", 0.95)
    assert row["ours"] == pytest.approx(1 - wrong["mixed"] / wrong["real"])
    assert "against as many steps" in row["why"] and row["why"].startswith("over 6 runs, paired: ")


def test_the_reduction_is_that_of_the_rate():
    row = judged(WRONG).loc["mixed training reduces the rate of the error on held specimens"]
    assert row["ours"] == pytest.approx(0.05) and row["verdict"] == "direction reproduced"
    assert row["published"] == "0.068" and row["low"] <= 0.05 <= row["high"]


def test_runs_of_one_fold_are_no_specimens():
    """Many runs that repeat two specimens tell no more of specimens than those two."""
    counts = [counts_of({"a": 10, "b": 50}, arm, seed, n=100) for arm in ("mixed", "real") for seed in range(1, 7)]
    counts.append(counts_of({"a": 10, "b": 50}, "synthetic", n=100))
    runs = runs_of({"synthetic": 0.3, "mixed": 0.3, "real": 0.3}, spread=1e-3)
    row = claims(runs, pd.concat(counts), profile="study").set_index("claim")
    row = row.loc["crack classifier, real model: error on held specimens"]
    assert (row["low"], row["high"], row["n"]) == (pytest.approx(0.1), pytest.approx(0.5), 2)
    assert row["verdict"] == "not reproduced" and row["why"].startswith("our interval is too wide to tell")


def test_levels_are_judged_by_the_interval_over_specimens():
    table = judged({"mixed": 20.5, "real": 30, "real long": 30})
    alone = "synthetic tiles alone err less than real ones: error on held specimens, synthetic less real"
    assert len(table) == 13 and table.index[table["answers"] == ""].tolist() == [alone]
    assert table.loc[alone, "verdict"] == "does not hold here" and table.loc[alone, "ours"] == pytest.approx(0.1)
    assert judged({"mixed": 20, "real": 45, "real long": 45}).loc[alone, "verdict"] == "holds here"
    chance = table.loc["p of mixed against real training over runs: error on held specimens"]
    assert chance["verdict"] == "direction reproduced" and chance["ours"] < 0.01 and chance["over"] == "runs"
    name = "crack classifier, {} model: error on held specimens"
    assert table.loc[name.format("mixed"), "verdict"] == "reproduced"
    assert table.loc[name.format("synthetic"), "verdict"] == "not reproduced"


def test_errors_on_all_tiles_count_those_trained_on():
    counts = pd.concat([counts_of({"a": 2, "b": 2}), counts_of({"c": 8, "d": 8}).assign(split="training")])
    assert over_specimens(counts).iloc[0]["error"] == pytest.approx(0.2)
    row = over_specimens(counts, every=True).iloc[0]
    assert row["error"] == pytest.approx(0.5) and row["n"] == 4
    both = pd.concat([counts, counts.assign(arm="real", wrong=counts["wrong"] + (counts["split"] == "training"))])
    assert compare_specimens(both, [("mixed", "real")]).iloc[0]["difference"] == 0
    assert compare_specimens(both, [("mixed", "real")], every=True).iloc[0]["difference"] == pytest.approx(-0.05)


def test_claims_name_the_device_of_their_runs():
    runs = runs_of({"synthetic": 0.4, "mixed": 0.2, "real": 0.3}).assign(device="cuda")
    assert set(claims(runs, counts_of({"a": 1, "b": 3}), profile="study")["device"]) == {"cuda"}


@pytest.mark.parametrize(
    "runs", [runs_of({"synthetic": 0.4, "mixed": 0.2, "real": 0.3}, generated=True), pd.DataFrame()]
)
def test_stand_ins_and_missing_runs_judge_nothing(runs):
    runs = runs if len(runs) else crack_report.stored("study", "nowhere")[0]
    table = claims(runs, counts_of({"a": 1, "b": 3}), profile="smoke")
    assert (table["verdict"] == "not run here").all() and table["ours"].isna().all()
