"""Tables of the grain experiment against values worked out by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from micro_lib.core.runs import write_table
from micro_lib.reports import grain_report
from micro_lib.reports.grain_claims import claims
from micro_lib.reports.grain_report import SCORES, arm_of, compare, stored, summarise

GROUPS = {"a1": "A", "a2": "A", "b1": "B", "c1": "C"}


def rows(arm, miou, seed=1, split="test", generated=False, **scores):
    """One row an image with a mean IoU each and other scores that follow it."""
    table = []
    for (name, group), value in zip(GROUPS.items(), miou, strict=True):
        follow = {s: value if sign > 0 else 1 - value for s, sign in SCORES.items()}
        names = {"arm": arm, "seed": seed, "split": split, "name": name, "group": group, "generated": generated}
        table.append(names | follow | scores)
    return pd.DataFrame(table)


@pytest.mark.parametrize(
    ("configuration", "arm"),
    [
        ({"preset": "broad", "data": "real"}, "broad"),
        ({"preset": "trampert"}, "trampert"),
        ({"labels": "development"}, "real labels"),
        ({"preset": "broad", "ablate": "twins"}, "broad without twins"),
        ({}, "broad"),
    ],
)
def test_arms_are_named_by_their_configuration(configuration, arm):
    assert arm_of(json.dumps(configuration)) == arm


def test_summary_averages_seeds_first_then_images():
    images = pd.concat([rows("broad", [0.5, 0.6, 0.7, 0.8], seed=1), rows("broad", [0.7, 0.8, 0.9, 1.0], seed=2)])
    row = summarise(images, "test").iloc[0]
    assert (row["seeds"], row["images"], row["groups"]) == (2, 4, 3)
    assert row["miou"] == pytest.approx(np.mean([0.6, 0.7, 0.8, 0.9]))
    assert row["miou_low"] < row["miou"] < row["miou_high"]


def test_one_group_has_no_interval():
    row = summarise(rows("broad", [0.5, 0.6, 0.7, 0.8]).assign(group="one"), "test").iloc[0]
    assert row["miou"] == pytest.approx(0.65) and np.isnan(row["miou_low"])


def test_a_constant_gain_is_found_exactly_and_called_better():
    images = pd.concat([rows("broad", [0.6, 0.7, 0.8, 0.9]), rows("Otsu", [0.5, 0.6, 0.7, 0.8])])
    table = compare(images, "test", "broad", ["Otsu", "absent"]).set_index("score")
    assert set(table["against"]) == {"Otsu"} and (table["n"] == 3).all()
    for score, sign in SCORES.items():
        assert table.loc[score, ["difference", "difference_low", "difference_high"]].tolist() == pytest.approx(
            [sign * 0.1] * 3
        )
    assert table["better"].all()


def test_arms_swapped_give_the_opposite_difference_and_are_not_better():
    images = pd.concat([rows("broad", [0.6, 0.7, 0.8, 0.9]), rows("Otsu", [0.5, 0.65, 0.7, 0.7])])
    one, other = compare(images, "test", "broad", ["Otsu"]), compare(images, "test", "Otsu", ["broad"])
    np.testing.assert_allclose(one["difference"], -other["difference"])
    np.testing.assert_allclose(one["difference_low"], -other["difference_high"])
    assert one["better"].all() and not other["better"].any()


def test_arms_are_compared_on_the_seeds_both_were_trained_with():
    ours = [rows("broad", [0.6, 0.6, 0.6, 0.6], seed=1), rows("broad", [0.9, 0.9, 0.9, 0.9], seed=2)]
    theirs = rows("broad without twins", [0.5, 0.5, 0.5, 0.5], seed=1)
    table = compare(pd.concat([*ours, theirs]), "test", "broad", ["broad without twins"]).set_index("score")
    assert (table["seeds"] == 1).all() and table.loc["miou", "difference"] == pytest.approx(0.1)
    assert compare(pd.concat([*ours, theirs.assign(seed=3)]), "test", "broad", ["broad without twins"]).empty


@pytest.mark.parametrize(("arm", "other", "sign"), [("broad", "real labels", 1), ("real labels", "broad", -1)])
def test_seeds_of_one_side_alone_do_not_count(arm, other, sign):
    shared = [
        rows(name, [0.5 + gain] * 4, seed=s) for name, gain in (("broad", 0.1), ("real labels", 0)) for s in (1, 2)
    ]
    surplus = rows(arm, [0.9] * 4, seed=3), rows(other, [0.9] * 4, seed=3)
    for extra in surplus:
        table = compare(pd.concat([*shared, extra]), "test", arm, [other]).set_index("score")
        assert (table["seeds"] == 2).all() and table.loc["miou", "difference"] == pytest.approx(sign * 0.1)


def test_an_image_counts_in_the_seeds_that_both_arms_scored_it_in():
    ours = pd.concat([rows("broad", [0.6] * 4), rows("broad", [0.9] * 4, seed=2)])
    theirs = pd.concat([rows("real labels", [0.5] * 4), rows("real labels", [0.8] * 4, seed=2)])
    held = (theirs["seed"] == 2) & (theirs["group"] == "A")  # the ceiling was trained on this group in seed 2
    table = compare(pd.concat([ours, theirs[~held]]), "test", "broad", ["real labels"]).set_index("score")
    assert table.loc["miou", ["difference", "difference_low", "difference_high"]].tolist() == pytest.approx([0.1] * 3)
    assert (table["confidence"] == 0.95).all() and (table["over"] == "overlap groups").all()


def test_what_needs_no_training_is_compared_with_all_seeds():
    ours = [rows("broad", [0.6, 0.6, 0.6, 0.6], seed=1), rows("broad", [0.8, 0.8, 0.8, 0.8], seed=2)]
    table = compare(pd.concat([*ours, rows("Otsu", [0.5] * 4).assign(seed=np.nan)]), "test", "broad", ["Otsu"])
    row = table.set_index("score").loc["miou"]
    assert row["seeds"] == 2 and row["difference"] == pytest.approx(0.2)


def arms(ours, otsu, **options):
    grain = rows("everything is grain", [0.4] * 4, **{**options, "error": 0.9})
    return pd.concat([rows("broad", ours, **options), rows("Otsu", otsu, **options), grain], ignore_index=True)


FINDING = "grain boundaries are detected reliably without a real label: contrasts won, of all with simpler means"


def test_claims_follow_the_scores():
    better = claims(arms([0.7, 0.75, 0.7, 0.72], [0.5, 0.6, 0.5, 0.5]), profile="study").set_index("claim")
    worse = claims(arms([0.5, 0.6, 0.5, 0.5], [0.7, 0.75, 0.7, 0.72]), profile="study").set_index("claim")
    assert better.loc[FINDING, ["ours", "n", "over", "verdict"]].tolist() == [7, 7, "contrasts", "holds here"]
    assert worse.loc[FINDING, ["ours", "n", "verdict"]].tolist() == [4, 7, "does not hold here"]
    assert "no sure gain" in worse.loc[FINDING, "why"]
    level = "mean IoU on real grain micrographs, synthetic training only"
    assert better.loc[level, "ours"] == pytest.approx(np.mean([0.7, 0.75, 0.7, 0.72]))
    assert better.loc[level, "seeds"] == "1" and better.loc[level, ["n", "over"]].tolist() == [3, "overlap groups"]
    assert better.loc[level, "level"] == 0.95


def test_one_threshold_as_good_in_one_score_is_enough_to_miss_the_finding():
    images = arms([0.7, 0.75, 0.7, 0.72], [0.5, 0.6, 0.5, 0.5])
    rival = images[images["arm"] == "Otsu"].assign(arm="thresholding, best intercept")
    ours = images[images["arm"] == "broad"]
    as_good = rival.assign(intercept_rel_err=ours["intercept_rel_err"].to_numpy())
    for other, found in ((rival, [10, "holds here"]), (as_good, [9, "does not hold here"])):
        row = claims(pd.concat([images, other]), profile="study").iloc[2]
        assert row[["ours", "verdict"]].tolist() == found and row["n"] == 10
    assert "no sure gain on intercept_rel_err over 'thresholding, best intercept'" in row["why"]


def test_claims_name_the_device_of_their_runs():
    images = arms([0.7, 0.75, 0.7, 0.72], [0.5, 0.6, 0.5, 0.5]).assign(device="cuda")
    assert (claims(images, profile="study")["device"] == "cuda").all()


def test_a_published_number_within_the_interval_is_reproduced():
    table = claims(arms([0.70, 0.79, 0.74, 0.75], [0.5] * 4), profile="study").set_index("claim")
    assert table.loc["mean IoU on real grain micrographs, synthetic training only", "verdict"] == "reproduced"


def test_generated_stand_ins_judge_nothing():
    table = claims(arms([0.9] * 4, [0.5] * 4, generated=True), profile="smoke")
    assert (table["verdict"] == "not run here").all() and table["ours"].isna().all()


def test_stored_scores_of_one_profile_are_read(tmp_path):
    configuration = json.dumps({"preset": "trampert"})
    table = rows("", [0.5] * 4).drop(columns="arm").assign(configuration=configuration, profile="study")
    write_table(pd.concat([table, table.assign(profile="quick")]), tmp_path / "grains_images.csv")
    assert (stored("study", tmp_path)[1]["arm"] == "trampert").sum() == 4
    run = {"configuration": [configuration], "seed": 1, "profile": "study", "device": "cuda"}
    write_table(pd.DataFrame(run), tmp_path / "grains_runs.csv")
    assert stored("study", tmp_path)[1]["device"].tolist() == ["cuda"] * 4
    assert stored("paper", tmp_path)[1].empty and all(table.empty for table in stored("study", tmp_path / "none"))
    assert grain_report.LABEL_FREE == "broad"
