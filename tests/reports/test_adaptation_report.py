"""Tables of the adaptation experiment against values worked out by hand."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from micro_lib.application.published import cells
from micro_lib.application.tables import NOT_TESTABLE
from micro_lib.core.runs import merge_rows, write_table
from micro_lib.reports import adaptation_report as report
from micro_lib.reports.adaptation_claims import beside_published, claims
from micro_lib.reports.adaptation_report import (
    arm_of,
    bagged,
    by_unit,
    differences,
    gap_closed,
    gaps,
    phase_fractions,
    ratio,
    scores,
    troubled,
    warnings,
)
from micro_lib.training import adaptation

SPREAD = np.array([0.0, 0.01, -0.01, 0.02, -0.02])


def runs_of(values, shift="T2", folds=5, spread=SPREAD, **columns):
    """Runs of arms with the score given and, per fold, the same deviation in all arms."""
    tables = []
    for i, (arm, value) in enumerate(values.items()):
        miou = value + spread[:folds] * (1 + i)
        row = {"shift": shift, "arm": arm, "seed": range(1, folds + 1), "fold": range(folds), "target_miou": miou}
        row |= {
            "architecture": "lite0",
            "rdt": miou / 0.8 - 1,
            "source_miou": 0.8 - spread[:folds],
            "trouble": "",
            "n_target_test": 3,
        }
        row |= {"target_true_ferrite": 0.6, "target_found_ferrite": 0.7 - spread[:folds]}
        row |= {"target_true_lath bainite": 0.4, "target_found_lath bainite": 0.3 + spread[:folds]}
        tables.append(pd.DataFrame(row | columns))
    return pd.concat(tables, ignore_index=True)


def images_of(wrong, shift="0d to 180d", groups=("a", "b", "c", "d"), arms=("no adaptation", "FDA")):
    """One target image a group of 100 pixels, half of either class, with so many wrong a class."""
    rows = []
    for arm, counts in zip(arms, wrong, strict=True):
        for i, (group, n) in enumerate(zip(groups, counts, strict=True)):
            cells = {"confusion_0_0": 50 - n, "confusion_0_1": n, "confusion_1_0": n, "confusion_1_1": 50 - n}
            names = {"shift": shift, "arm": arm, "seed": i + 1, "split": "target", "name": f"{group}{i}"}
            rows.append({**names, "group": group, **cells})
    return pd.DataFrame(rows)


NO_RUNS = runs_of({"FDA": 0.5}).iloc[:0]
NO_IMAGES = images_of([[0] * 4] * 2).iloc[:0]


@pytest.mark.parametrize("name", adaptation.CONFIGURATIONS)
def test_arms_are_named_by_their_configuration(name):
    assert f"{arm_of(json.dumps(adaptation.CONFIGURATIONS[name]))}, {adaptation.CONFIGURATIONS[name]['shift']}" == name


def test_the_data_make_no_arm_and_what_has_no_name_is_written_out():
    assert arm_of({"method": "FDA", "data": "real", "shift": "coating"}) == "FDA"
    assert arm_of({"method": "FDA", "augmentation": "none"}) == "method FDA, augmentation none"


def test_stored_runs_of_one_profile_are_read(tmp_path):
    configuration = json.dumps({"shift": "T3", "method": "FDA"})
    table = pd.DataFrame({"configuration": [configuration] * 2, "profile": ["study", "quick"], "trouble": ["", "x"]})
    table = table.assign(seed=1, architecture="lite0", generated=True)
    for kind in ("runs", "images"):
        keys = ["configuration", "profile", "seed"]
        write_table(table if kind == "runs" else table[keys], tmp_path / f"adaptation_{kind}.csv")
    runs, images = report.stored("study", tmp_path)
    assert runs[["shift", "arm"]].to_numpy().tolist() == images[["shift", "arm"]].to_numpy().tolist() == [["T3", "FDA"]]
    assert runs["trouble"].tolist() == [""]
    runs, images = report.stored("study", tmp_path / "none")
    assert runs.empty and images.empty and {"shift", "arm", "seed"} <= set(runs)
    assert scores(runs).empty and differences(runs, images).empty and gap_closed(runs).empty and gaps(runs).empty
    assert phase_fractions(runs).empty and troubled(runs).empty and warnings(runs, images) == []
    nothing = claims(runs, images, bagged("study", tmp_path), profile="study").query("over != 'formula'")
    assert set(nothing["verdict"]) == {"not run here", NOT_TESTABLE} and nothing["ours"].isna().all()


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"shift": "development"}, False),
        ({"shift": "light development"}, False),
        ({"architecture": "vgg16"}, False),
        ({"shift": "coating"}, False),  # of stand-ins
        ({"shift": "coating", "generated": False}, True),
    ],
)
def test_only_what_is_reported_is_read(tmp_path, changes, kept):
    row = {"shift": "T2", "architecture": "lite0", "generated": True, **changes}
    row |= {"configuration": json.dumps({"shift": row.pop("shift")}), "profile": "study", "seed": 1, "trouble": ""}
    for seed, kind in ((1, "runs"), (1, "images"), (2, "runs")):
        merge_rows(tmp_path / f"adaptation_{kind}.csv", pd.DataFrame([{**row, "seed": seed}]), ("seed",))
    runs, images = report.stored("study", tmp_path)
    assert (len(runs), len(images)) == ((2, 1) if kept else (0, 0))
    chosen_on, _ = report.stored("study", tmp_path, development=True)
    assert len(chosen_on) == (2 if "development" in changes.get("shift", "") else 0)


def test_ious_of_classes_stand_by_shift_and_class():
    scored = {"target_iou_ferrite": 0.8, "target_iou_laths": 0.6}
    runs = pd.concat([runs_of({"FDA": 0.7, "no adaptation": 0.5}, shift, **scored) for shift in ("T3", "T2")])
    runs.loc[runs["arm"] == "FDA", "target_iou_laths"] += SPREAD.tolist() * 2
    found = report.class_ious(runs)
    assert found["arm"].tolist() == ["no adaptation", "FDA"] * 4
    assert found["shift"].tolist() == ["T2"] * 4 + ["T3"] * 4
    assert found["class"].tolist()[:3] == ["ferrite"] * 2 + ["laths"]
    row = found[(found["shift"] == "T2") & (found["class"] == "laths") & (found["arm"] == "FDA")].iloc[0]
    low, high = stats.t.interval(0.95, 4, 0.6, stats.sem(SPREAD))
    assert row[["n", "iou", "iou_low", "iou_high"]].tolist() == pytest.approx([5, 0.6, low, high])
    assert report.class_ious(NO_RUNS).empty


def test_scores_have_intervals_over_folds_and_seeds_of_a_fold_are_averaged():
    runs = runs_of({"FDA": 0.7})
    again = runs.iloc[[0]].assign(seed=6, target_miou=0.74)
    row = scores(pd.concat([runs, again])).iloc[0]
    folds = 0.7 + SPREAD
    folds[0] = 0.72
    low, high = stats.t.interval(0.95, 4, folds.mean(), stats.sem(folds))
    assert (row["n"], row["runs"], row["troubled"], row["n_test"]) == (5, 6, 0, 3)
    assert row[["target_miou", "target_miou_low", "target_miou_high"]].tolist() == pytest.approx(
        [folds.mean(), low, high]
    )
    assert row["target_miou_sd"] == pytest.approx(folds.std(ddof=1))
    assert math.isnan(scores(runs.iloc[:1]).iloc[0]["target_miou_low"])


def test_shifts_and_arms_are_in_their_order():
    runs = pd.concat(
        [runs_of({"oracle": 0.8, "no adaptation": 0.5}, "T3"), runs_of({"FDA": 0.7, "own": 0.6}, "coating")]
    )
    found = scores(runs)[["shift", "arm"]].to_numpy().tolist()
    assert found == [["coating", "FDA"], ["coating", "own"], ["T3", "no adaptation"], ["T3", "oracle"]]


def test_phase_fractions_by_hand():
    row = phase_fractions(runs_of({"FDA": 0.7})).iloc[0]
    assert row["class"] == "lath bainite" and row["n"] == 5, "of two classes the second says it all"
    assert row[["true", "found", "error"]].tolist() == pytest.approx([0.4, 0.3, -0.1])
    low, high = stats.t.interval(0.95, 4, 0.3, stats.sem(SPREAD))
    assert row[["found_low", "found_high"]].tolist() == pytest.approx([low, high])
    three = runs_of({"FDA": 0.7}).assign(**{"target_true_third": 0.1, "target_found_third": 0.2})
    assert phase_fractions(three)["class"].tolist() == ["ferrite", "lath bainite", "third"]


def test_differences_are_paired_by_fold():
    runs = runs_of({"no adaptation": 0.5, "FDA": 0.6})  # spreads of one and two
    row = differences(runs.sample(frac=1, random_state=1), NO_IMAGES).iloc[0]
    low, high = stats.t.interval(0.95, 4, 0.1, stats.sem(SPREAD))
    assert row[["arm", "n", "units", "n_units"]].tolist() == ["FDA", 5, "", 0]
    found = row[["difference", "difference_low", "difference_high"]].tolist()
    assert found == pytest.approx([0.1, low, high]) and row["better"] and not row["worse"]
    assert row["p"] == pytest.approx(stats.ttest_1samp(0.1 + SPREAD, 0).pvalue)
    one = differences(runs[runs["fold"] == 0], NO_IMAGES).iloc[0]
    assert one[["n", "difference", "better", "worse"]].tolist() == [1, pytest.approx(0.1), False, False]
    assert math.isnan(one["difference_low"]) and math.isnan(one["p"])
    assert differences(runs[runs["arm"] == "FDA"], NO_IMAGES).empty


def test_of_real_shifts_specimens_are_resampled():
    runs = runs_of({"no adaptation": 0.5, "FDA": 0.6}, "0d to 180d", folds=4)
    gained = [90 / 110 - 80 / 120, 90 / 110 - 80 / 120, 0.0, 1 - 80 / 120]
    row = differences(runs, images_of([[10] * 4, [5, 5, 10, 0]])).iloc[0]
    assert (row["units"], row["n_units"]) == ("specimens", 4)
    assert row["units_low"] < np.mean(gained) < row["units_high"] <= max(gained)
    assert row["better"] == (row["units_low"] > 0)
    one = images_of([[10] * 4, [5, 5, 10, 0]], "coating", groups=("a",) * 4)
    row = differences(runs.assign(shift="coating"), one).iloc[0]
    assert (row["units"], row["n_units"]) == ("micrographs of one specimen", 4)
    row = differences(runs.assign(shift="316L to iron"), one.assign(shift="316L to iron")).iloc[0]
    assert (row["units"], row["n_units"]) == ("", 0), "successive sections of one area"


def test_one_training_is_no_verdict_whatever_its_micrographs_say():
    runs = runs_of({"no adaptation": 0.9, "FDA": 0.3}, "0d to 180d", folds=4)
    images = images_of([[0] * 4, [50] * 4]).assign(shift="0d to 180d")
    few, seen = runs[runs["fold"] == 0], images[images["seed"] == 1]
    row = differences(few, seen).iloc[0]
    assert (row["n"], row["units"], row["better"], row["worse"]) == (1, "", False, False)
    assert warnings(few, seen) == [
        "FDA on 0d to 180d has less than no adaptation on its only fold: -0.600 mean IoU, n = 1"
    ]


def test_one_interval_below_zero_is_worse_and_all_above_are_better():
    runs = runs_of({"no adaptation": 0.5, "FDA": 0.5 + 1e-3}, "0d to 180d", folds=4)  # over folds nothing is certain
    lost = images_of([[10] * 4, [40, 41, 42, 43]])
    row = differences(runs, lost).iloc[0]
    assert row["difference_high"] > 0 > row["units_high"] and row["worse"] and not row["better"]
    assert "over specimens" in warnings(runs, lost)[0] and "nan" not in warnings(runs, lost)[0]
    row = differences(runs, images_of([[40] * 4, [10, 11, 12, 13]])).iloc[0]
    assert row["units_low"] > 0 > row["difference_low"] and not row["better"] and not row["worse"]


def test_micrographs_of_a_specimen_are_pooled():
    table = by_unit(images_of([[10, 0], [0, 0]], groups=("a", "a")).assign(seed=1))
    row = table[table["arm"] == "no adaptation"].iloc[0]
    assert row["micrographs"] == 2 and row["miou"] == pytest.approx(90 / 110)  # 90 right, 10 lost, 10 won a class


# The gap


def test_gap_closed_by_hand():
    runs = runs_of({"no adaptation": 0.5, "FDA": 0.65, "oracle": 0.7})
    row = gap_closed(runs).iloc[0]
    assert gap_closed(runs)["arm"].tolist() == ["FDA"] and row["n"] == 5
    assert (row["gap"], row["closed"]) == pytest.approx((0.2, 0.75)) and row["closed_low"] < 0.75 < row["closed_high"]
    whole = gaps(runs).iloc[0]
    low, high = stats.t.interval(0.95, 4, 0.2, stats.sem(2 * SPREAD))
    assert whole[["gap", "gap_low", "gap_high"]].tolist() == pytest.approx([0.2, low, high])


def test_arms_are_measured_against_the_best_unadapted_one_too():
    """An unadapted network that lost by its augmentation flatters whatever is put beside it."""
    runs = runs_of({"no adaptation": 0.5, "no adaptation, not augmented": 0.6, "FDA": 0.65, "oracle": 0.7})
    gained = differences(runs, NO_IMAGES).set_index(["arm", "against"])["difference"]
    assert gained["FDA"].to_dict() == pytest.approx({"no adaptation": 0.15, "no adaptation, not augmented": 0.05})
    assert gained["no adaptation", "no adaptation, not augmented"] == pytest.approx(-0.1)
    closed = gap_closed(runs).set_index(["arm", "against"])["closed"]
    assert closed["FDA"].to_dict() == pytest.approx({"no adaptation": 0.75, "no adaptation, not augmented": 0.5})
    better = runs_of({"oracle, lightly augmented": 0.8})
    assert gaps(runs)["gap"].tolist() == pytest.approx([0.2, 0.1])
    whole = gaps(pd.concat([runs, better]))
    assert whole["gap"].tolist() == pytest.approx([0.2, 0.2]) and whole["ceiling"].iloc[1].startswith("oracle, l")
    assert {"oracle", "oracle, lightly augmented"}.isdisjoint(gap_closed(pd.concat([runs, better]))["arm"])
    worse = warnings(runs_of({"no adaptation": 0.5, "no adaptation, not augmented": 0.9, "FDA": 0.6}), NO_IMAGES)
    assert any("FDA on T2 is worse than no adaptation, not augmented" in one for one in worse)


def test_a_small_gap_is_not_worth_closing_and_one_without_an_oracle_is_unknown():
    assert gap_closed(runs_of({"no adaptation": 0.5, "FDA": 0.52, "oracle": 0.54})).empty
    assert gap_closed(runs_of({"no adaptation": 0.5, "FDA": 0.52})).empty and gaps(runs_of({"FDA": 0.5})).empty


def test_fiellers_interval_holds_what_a_t_test_does_not_refuse():
    rng = np.random.default_rng(1)
    above, below = rng.normal(0.1, 0.03, 5), rng.normal(0.2, 0.02, 5)
    estimate, low, high = ratio(above, below)
    assert estimate == pytest.approx(above.mean() / below.mean()) and low < estimate < high
    for end in (low, high):
        assert stats.ttest_1samp(above - end * below, 0).pvalue == pytest.approx(0.05)
    assert stats.ttest_1samp(above - estimate * below, 0).pvalue == pytest.approx(1)
    exact = ratio(3 * below, below)
    assert exact == pytest.approx((3, 3, 3), abs=1e-6)


def test_fiellers_interval_without_bounds():
    assert all(map(math.isnan, ratio(np.array([0.1]), np.array([0.2]))[1:]))
    assert all(map(math.isnan, ratio(np.array([0.1, 0.2, 0.3]), np.array([-0.5, 0.1, 0.6]))[1:]))


@pytest.mark.parametrize("n", [4, 5])
def test_fiellers_interval_covers_as_often_as_it_says(n):
    rng = np.random.default_rng(n)
    hits = []
    for _ in range(600):
        below = rng.normal(0.2, 0.02, n)
        low, high = ratio(0.7 * below + rng.normal(0, 0.02, n), below)[1:]
        hits.append(low <= 0.7 <= high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.03)


# Warnings


def test_readers_are_warned():
    runs = runs_of({"no adaptation": 0.5, "FDA": 0.4, "ADVENT": 0.6})
    runs.loc[(runs["arm"] == "ADVENT") & (runs["seed"] == 2), "trouble"] = "99.9% of the target said to be one class"
    said = warnings(runs, NO_IMAGES)
    assert said[0].startswith("FDA on T2 is worse than no adaptation: -0.100 [-0.120, -0.080] mean IoU, n = 5")
    told = (
        "ADVENT on T2: 1 of 5 runs went wrong (seed 2: 99.9% of the target said to be one class); they are in its mean"
    )
    assert said[1:] == [told]
    assert scores(runs).set_index("arm")["troubled"].to_dict() == {"no adaptation": 0, "FDA": 0, "ADVENT": 1}
    assert troubled(runs)[["arm", "seed"]].to_numpy().tolist() == [["ADVENT", 2]]


# The paper


def paper():
    """Runs that score as the paper says."""
    tables = []
    for shift, none, adapted in (("T1", 0.822, 0.847), ("T2", 0.61, 0.673), ("T3", 0.497, 0.733)):
        values = {"no adaptation": none, "AdaptSegNet": adapted, "oracle": 0.79 if shift == "T3" else 0.86}
        tables.append(runs_of(values, shift, spread=0.3 * SPREAD))
    tables.append(runs_of({"no adaptation": 0.5, "AdaptSegNet": 0.4}, "T3 not inverted", spread=0.3 * SPREAD))
    common = {"T3 tested at 40 %": 0.78, "T3v tested at 40 %": 0.774}
    tables += [runs_of({"AdaptSegNet": value}, shift, spread=0.3 * SPREAD**2) for shift, value in common.items()]
    return pd.concat(tables, ignore_index=True)


BAGS = pd.DataFrame({"shift": ["T1", "T2", "T3"], "arm": "AdaptSegNet", "networks": 5})


BAGGED = [0.859, 0.702, 0.75]
SINGLE = [0.847, 0.673, 0.733]


def test_published_numbers_stand_beside_ours():
    table = beside_published(paper(), BAGS.assign(target_miou=BAGGED, single_miou=SINGLE))
    table = table.set_index(["shift", "arm", "quantity"])
    assert len(table) == 3 * (2 * 3 + 4) + 1 and not table.index.has_duplicates
    row = table.loc["T2", "AdaptSegNet", "mIoU"]
    assert (row["published"], row["where"], row["n"]) == ("67.3 +- 2 %", "Table 4", 5)
    assert row["ours"] == pytest.approx(67.3) and row["low"] < 67.3 < row["high"]
    assert table.loc["T3", "no adaptation", "RDT"]["published"] == "-37.4 %"
    assert table.loc["T1", "AdaptSegNet", "phase fraction, AdaptSegNet"]["ours"] == pytest.approx(30)
    row = table.loc["T2", "AdaptSegNet", "mIoU of five folds averaged (bagging)"]
    assert row[["ours", "n", "over"]].tolist() == [pytest.approx(70.2), 5, "networks"] and math.isnan(row["low"])
    row = table.loc["T2", "AdaptSegNet", "gain of bagging"]
    assert row["ours"] == pytest.approx(2.9) and row["low"] < 2.9 < row["high"] and row["over"] == "folds"
    assert table.loc["T3", "AdaptSegNet", "source mIoU after adaptation"]["value"] == 75.8
    other = beside_published(paper(), BAGS.assign(target_miou=BAGGED, single_miou=0.5, networks=4))
    assert other.loc[other["quantity"].str.contains("bagging"), "ours"].isna().all(), "bagging of other runs"
    bare = beside_published(paper().iloc[:0], BAGS.iloc[:0].assign(target_miou=[], single_miou=[]))
    assert bare["ours"].isna().all() and (bare["n"] == 0).all() and len(bare) == len(table)


def verdicts(runs, bags=None):
    bags = BAGS.assign(target_miou=BAGGED, single_miou=SINGLE) if bags is None else bags
    return claims(runs, NO_IMAGES, bags, profile="study").set_index("claim")


GAINS = ("gain of bagging", "mIoU gained", "mIoU lost", "share", "phase fractions of", "factor", "targets of three")
INVERTED = "AdaptSegNet fails on T3 unless it is inverted: mIoU gained as it is"


def scatter(runs):
    """Phase fractions as far off, and as scattered, as Table 7 has them, and what adaptation does to the source."""
    for shift, none, adapted in (("T1", 3.8, 2.3), ("T2", 1.7, 2.1), ("T3", 6.7, 1.8)):
        for arm, off in (("no adaptation", none), ("AdaptSegNet", adapted)):
            part = (runs["shift"] == shift) & (runs["arm"] == arm)
            scale = 10 if (shift, arm) == ("T3", "no adaptation") else 1
            runs.loc[part, "target_found_lath bainite"] = 0.4 + off / 100 + 0.1 * scale * SPREAD
    for shift, change in (("T1", 0.003), ("T2", -0.006), ("T3", -0.036)):
        part = (runs["shift"] == shift) & (runs["arm"] == "AdaptSegNet")
        runs.loc[part, "source_miou"] += change + 0.01 * SPREAD
    return runs


def test_a_copy_of_the_paper_reproduces_its_effects_and_leaves_its_levels_unjudged():
    found = verdicts(scatter(paper()))
    effects = found[found.index.str.startswith(GAINS)].drop(
        "targets of three whose estimated phase fraction AdaptSegNet improves"
    )
    narrow = effects["high"] - effects["low"] <= effects["ours"].abs() / 2
    expected = np.where(narrow, "reproduced", "direction reproduced")
    assert (effects["verdict"] == expected).all() and narrow.any() and len(effects) == 3 * 3 + 4
    assert (effects["kind"] == "effect").all() and (effects["over"] == "folds").all()
    assert (effects["level"] == 0.95).all() and (effects["n"] == 5).all()
    examples = found[found["where"] == "section 2.4.5"]
    assert examples["ours"].tolist() == pytest.approx([-0.125, -0.0714], abs=1e-4)
    assert (examples["verdict"] == "reproduced").all()
    levels = found[found["kind"] == "level"].drop(examples.index)
    assert set(levels["verdict"]) == {NOT_TESTABLE} and len(levels) == 3 * 9 + 1 + 2
    assert levels["ours"].notna().all() and levels["why"].str.contains("generated after the paper's words").all()
    assert found.loc[INVERTED, "verdict"] == "holds here"
    assert set(found["paper"]) == {"Goetz 2022"}


@pytest.mark.parametrize("off", [0.0, 0.3])
def test_what_the_generator_was_told_is_never_judged(off):
    runs = paper()
    runs["target_true_lath bainite"] += off
    row = verdicts(runs).loc["phase fraction, truth on T1"]
    assert row["verdict"] == NOT_TESTABLE and row["ours"] == pytest.approx(40 + 100 * off)
    assert row["why"].endswith("the truth is what the generator was told")


def test_estimates_of_the_phase_fraction_are_judged_target_by_target():
    found = verdicts(scatter(paper()))
    told = "AdaptSegNet improves the estimated phase fraction on {}: change of its absolute error"
    rows = {name: found.loc[told.format(name)] for name in ("T1", "T2", "T3")}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "T1": "holds here",
        "T2": "does not hold here",
        "T3": "holds here",
    }
    assert rows["T1"]["ours"] == pytest.approx(-1.5) and rows["T2"]["ours"] == pytest.approx(0.4)
    assert rows["T2"]["published"] == "improved; Table 7: 1.7 without, 2.1 with"
    all_of_them = found.loc["targets of three whose estimated phase fraction AdaptSegNet improves"]
    assert all_of_them[["ours", "n", "over", "verdict"]].tolist() == [2, 3, "targets", "not reproduced"]
    factor = found.loc["factor by which AdaptSegNet reduces the scatter of the phase fraction on T3"]
    reach = math.sqrt(stats.f.ppf(0.975, 4, 4))
    assert factor[["ours", "low", "high"]].tolist() == pytest.approx([10, 10 / reach, 10 * reach])


def test_other_runs_do_not_reproduce_it():
    runs = scatter(paper())
    runs.loc[(runs["shift"] == "T2") & (runs["arm"] == "AdaptSegNet"), "target_miou"] -= 0.2
    runs.loc[(runs["shift"] == "T1") & (runs["arm"] == "AdaptSegNet"), ["target_miou", "source_miou"]] += 0.1
    runs.loc[(runs["shift"] == "T3") & (runs["arm"] == "AdaptSegNet"), "source_miou"] += 0.1
    runs.loc[runs["shift"] == "T3 tested at 40 %", "target_miou"] += 0.1
    runs.loc[(runs["shift"] == "T3 not inverted") & (runs["arm"] == "AdaptSegNet"), "target_miou"] += 0.4
    found = verdicts(runs)["verdict"]
    assert found["mIoU gained by AdaptSegNet on T2"] == "not reproduced"
    assert found["mIoU gained by AdaptSegNet on T1"] == "direction reproduced"
    assert found["mIoU gained on the source by AdaptSegNet on T1"] == "direction reproduced"
    assert found["mIoU gained on the source by AdaptSegNet on T3"] == "not reproduced"
    assert found["phase fractions of source and target may differ: T3 less T3v"] == "not reproduced"
    assert found[INVERTED] == "does not hold here"


def test_a_difference_too_uncertain_to_be_small_is_not_taken_for_none():
    runs = paper()
    part = runs["shift"] == "T3 tested at 40 %"
    runs.loc[part, "target_miou"] += 2 * SPREAD
    row = verdicts(runs).loc["phase fractions of source and target may differ: T3 less T3v"]
    assert row["low"] < 0 < row["high"] and row["verdict"] == "not reproduced"


@pytest.mark.parametrize(
    ("more", "verdict"), [(0.0, "reproduced"), (-0.2, "not reproduced"), (0.05, "direction reproduced")]
)
def test_a_larger_drop_than_the_published_one_is_no_small_drop(more, verdict):
    runs = paper()
    runs.loc[(runs["shift"] == "T3") & (runs["arm"] == "AdaptSegNet"), "target_miou"] += more
    assert verdicts(runs).loc["mIoU lost by AdaptSegNet to target labels on T3", "verdict"] == verdict


def test_failing_is_told_against_no_adaptation_and_left_open_where_that_is_uncertain():
    runs = paper()
    part = (runs["shift"] == "T3 not inverted") & (runs["arm"] == "AdaptSegNet")
    assert verdicts(runs).loc[INVERTED, "ours"] == pytest.approx(-10)
    wide = runs.assign(target_miou=runs["target_miou"] + part * 0.1 + part * np.resize(SPREAD, len(runs)) * 3)
    row = verdicts(wide).loc[INVERTED]
    assert row["verdict"] == "does not hold here" and row["why"].startswith("our interval is too wide to tell")
    alone = verdicts(runs[~((runs["shift"] == "T3 not inverted") & (runs["arm"] == "no adaptation"))]).loc[INVERTED]
    assert alone["verdict"] == "not run here" and "has 40.0 % over 5 runs" in alone["why"]


def test_bagging_says_whether_networks_or_their_mean_are_missing():
    runs, bags = paper(), BAGS.assign(target_miou=BAGGED, single_miou=SINGLE)
    row = verdicts(runs, bags[1:]).loc["gain of bagging on T1, AdaptSegNet"]
    assert row["verdict"] == "not run here" and "5 folds were trained" in row["why"]
    level = verdicts(runs, bags[1:]).loc["mIoU of five folds averaged (bagging) on T1, AdaptSegNet"]
    assert level["verdict"] == NOT_TESTABLE and level["why"] == "the micrographs are closed; not run here"


def test_shifts_are_contrasted_on_the_seeds_they_share():
    runs = paper()
    extra = runs[runs["shift"] == "T3 tested at 40 %"].assign(target_miou=0.0)
    more = pd.concat([runs, extra.assign(seed=extra["seed"] + 5)], ignore_index=True)
    name = "phase fractions of source and target may differ: T3 less T3v"
    assert verdicts(more).loc[name, "ours"] == pytest.approx(verdicts(runs).loc[name, "ours"])


def test_one_fold_judges_nothing():
    runs = paper()
    bare = verdicts(runs[runs["fold"] == 0], BAGS.iloc[:0].assign(target_miou=[], single_miou=[]))
    assert set(bare["verdict"]) == {"not run here", NOT_TESTABLE, "reproduced"}
    assert set(bare.loc[bare["verdict"] == "reproduced", "over"]) == {"formula"} and bare["low"].isna().all()


def test_the_best_unadapted_network_stands_beside_a_gain():
    runs = scatter(paper())
    other = runs[(runs["shift"] == "T2") & (runs["arm"] == "no adaptation")].assign(arm="no adaptation, not augmented")
    found = verdicts(pd.concat([runs, other.assign(target_miou=other["target_miou"] + 0.2)], ignore_index=True))
    told, alone = (
        verdicts(runs).loc["mIoU gained by AdaptSegNet on T2"],
        found.loc["mIoU gained by AdaptSegNet on T2"],
    )
    assert told["verdict"] == alone["verdict"] and told["ours"] == alone["ours"]
    assert "; over no adaptation, not augmented: -" in alone["why"] and "augmented" not in told["why"]


def test_claims_name_the_device_of_their_runs():
    assert set(verdicts(paper().assign(device="cuda"))["device"]) == {"cuda"}


def test_every_number_a_claim_answers_is_a_published_one():
    table = claims(paper().iloc[:0], NO_IMAGES, BAGS.iloc[:0].assign(target_miou=[], single_miou=[]), profile="study")
    answered = [(row.where, name) for row in table.itertuples() if row.answers for name in row.answers.split("; ")]
    known = {(one.where, one.name) for one in cells() if one.paper == "Goetz 2022"}
    assert len(answered) == len(set(answered)) == 3 * 12 + 1 + 3 + 3 + 2 + 1 and set(answered) <= known
    whole = {
        pair
        for pair in known
        if pair[0] in ("section 2.4.5", "Table 5", "Table 7", "section 4.2", "section 4.3", "section 3.2")
    }
    assert whole - set(answered) == {pair for pair in known if pair[1].startswith("typical training")}
