"""Tables of the source experiment: every published cell has its arm, differences are paired by fold."""

import inspect
import json
import math

import numpy as np
import pandas as pd
import pytest

from micro_lib.application.published import cells
from micro_lib.application.tables import NOT_TESTABLE
from micro_lib.core.runs import write_table
from micro_lib.reports import adaptation_report, source_plots, source_report
from micro_lib.reports.source_claims import claims
from micro_lib.reports.source_report import (
    DOMAINS,
    arm_of,
    beside_published,
    effects,
    grid,
    longer,
    scores,
    stored,
)
from micro_lib.training import source

GAINS = {"random": 0.0, "ImageNet": 0.02, "two-stage": 0.03, "in-domain": -0.05}
NOTHING = pd.DataFrame({"arm": [], "shift": [], "architecture": [], "fold": [], "source_miou": []})


def runs(folds=3, arms=tuple(source.CONFIGURATIONS)):
    rows = []
    for arm in arms:
        full = source.complete(arm)
        for fold in range(folds):
            added = GAINS[full["pretraining"]] + 0.01 * source.AUGMENTATIONS.index(full["augmentation"])
            added -= 0.1 * (full["task"] == "parameters")
            row = {"arm": arm, "seed": fold + 1, "fold": fold, **full, "configuration": json.dumps(full)}
            row |= {"architecture": "lite0", "trouble": ""}
            for i, name in enumerate(DOMAINS):
                row[f"{name}_miou"] = 0.75 - 0.1 * i + 0.01 * fold + added
                row[f"{name}_miou_half"] = row[f"{name}_miou"] + 0.002 * (fold + 1)
            rows.append(row)
    return pd.DataFrame(rows)


def adapted():
    rows = [(adaptation_report.NONE, name, fold, 0.79 + 0.02 * fold) for name in source.TARGETS for fold in (0, 1)]
    return pd.DataFrame(rows, columns=["arm", "shift", "fold", "source_miou"]).assign(architecture="lite0")


@pytest.mark.parametrize("name", source.CONFIGURATIONS)
def test_arms_are_named_whatever_is_written_out(name):
    full = source.complete(name)
    assert arm_of(full) == arm_of(json.dumps(source.CONFIGURATIONS[name])) == name
    assert arm_of(full | {"architecture": "vgg16"}) == f"{name}, vgg16"


def test_unnamed_arms_are_written_out():
    changes = {"pretraining": "two-stage", "task": "folder", "augmentation": "basic"}
    assert arm_of(json.dumps(changes)) == "two-stage, folder, basic"


def test_stored_rows_come_back_with_their_arms(tmp_path):
    assert stored("study", tmp_path).empty
    table = (
        runs(1, ("two-stage, basic", "random, none"))
        .drop(columns=["arm", "trouble"])
        .assign(profile=["study", "smoke"])
    )
    write_table(table, tmp_path / "source_runs.csv")
    assert stored("study", tmp_path)["arm"].tolist() == ["two-stage, basic"]
    assert scores(stored("study", tmp_path))["n"].tolist() == [1], "an arm whose schedule is an empty cell counts"


def test_scores_by_hand():
    table = scores(runs(3).sample(frac=1, random_state=1)).set_index("arm")
    assert list(table.index) == list(source.CONFIGURATIONS)
    row = table.loc["ImageNet, basic"]
    assert row["n"] == 3 and row["source"] == pytest.approx(0.79) and row["source_sd"] == pytest.approx(0.01)
    half_width = 4.302653 * 0.01 / math.sqrt(3)  # t of 2 degrees of freedom
    assert (row["T1_low"], row["T1_high"]) == pytest.approx((0.69 - half_width, 0.69 + half_width), abs=1e-6)
    assert math.isnan(scores(runs(1)).iloc[0]["source_low"])
    assert scores(stored("no such profile")).empty


def test_effects_are_paired_and_averaged_over_the_other_factor():
    table = runs(3)
    found = effects(grid(table), "pretraining", "random").set_index(["level", "domain"])
    for level, gain in GAINS.items():
        if level != "random":
            np.testing.assert_allclose(found.loc[level]["difference"], gain, atol=1e-12)
    found = effects(grid(table), "augmentation", "none").set_index(["level", "domain"])
    assert found.loc[("extended", "T3"), "difference"] == pytest.approx(0.02)
    assert set(found["n"]) == {3}
    # An arm that lacks one level is compared over the levels that both have.
    fewer = table[table["arm"] != "ImageNet, none"].copy()
    fewer.loc[fewer["arm"] == "random, none", "source_miou"] = 0.0
    assert effects(grid(fewer), "pretraining", "random").iloc[0]["difference"] == pytest.approx(0.02)
    more = pd.concat([table, table[table["arm"] == "two-stage, none"].assign(seed=9, source_miou=0.0)])
    found = effects(grid(more), "pretraining", "random").query("level == 'two-stage' and domain == 'source'")
    assert found["difference"].item() == pytest.approx(0.03), "a seed of one side alone does not count"
    assert (found["over"].item(), found["confidence"].item()) == ("folds", 0.95)
    assert effects(table[:0], "pretraining", "random").empty and effects(runs(1), "pretraining", "random").empty


def test_the_grid_leaves_other_tasks_out():
    names = set(grid(runs(1))["arm"])
    assert len(names) == 12 and not any("parameters" in name or "epochs" in name for name in names)
    others = runs(1).assign(arm=lambda rows: rows["arm"] + ", vgg16")
    assert grid(others).empty, "another network is another experiment"


def test_longer_training_is_compared_within_runs():
    table = longer(runs(3)).set_index(["arm", "domain"])
    row = table.loc[("ImageNet, none", "T2")]
    assert row["difference"] == pytest.approx(-0.004) and row["difference_low"] < row["difference_high"] < 0.01
    assert row["whole"] - row["half"] == pytest.approx(-0.004)
    assert math.isnan(longer(runs(1)).iloc[0]["difference_low"])


# Beside the paper


def test_every_cell_of_a_source_network_has_an_arm_and_only_they_have():
    answered = beside_published(NOTHING, NOTHING)
    found = set(zip(answered["where"], answered["item"], answered["quantity"], strict=True))
    wanted = {
        (one.where, one.item, one.quantity)
        for one in cells()
        if one.paper == "Goetz 2022"
        and (one.where in ("Table 2", "Table 6") or (one.where in ("Table 3", "Table 4") and "VGG16" in one.item))
    }
    assert found == wanted and len(answered) == len(found) == 10 + 36 + 36
    assert (answered["n"] == 0).all() and answered["ours"].isna().all()
    for row in answered[answered["item"].str.contains("VGG16")].to_dict("records"):
        pretraining, augmentation, *epochs = row["arm"].split(", ")
        assert epochs == ["200 epochs"] * (row["where"] == "Table 6")
        assert row["item"].endswith(f"{source_report.PUBLISHED_NAMES[pretraining]}, {augmentation}")


def test_table_2_is_printed_as_in_the_paper():
    table = source_report.as_printed()
    assert table.shape == (3, 3) and table.loc["NanoSEM", "extended"] == "80.2 +- 2.4 %"
    assert table.loc["random", "none"] == "75.8 +- 2.4 %"


@pytest.mark.parametrize("module", [source_report, source_plots, source])
def test_published_numbers_stand_in_their_table_alone(module):
    text = inspect.getsource(module)
    numbers = {f"{one.value:.1f}" for one in cells() if one.paper == "Goetz 2022" and one.quantity.startswith("mIoU")}
    assert len(numbers) > 40 and not [number for number in numbers if float(number) > 10 and number in text]


def test_ours_stand_beside_the_published_in_percent():
    table = beside_published(runs(3), adapted()).set_index(["where", "item", "quantity"])
    network = "VGG16 U-Net, ImageNet, basic"
    assert table.loc[("Table 2", f"S.5, {network}", "mIoU"), "ours"] == pytest.approx(79.0)
    rdt = np.mean([(0.58 + 0.01 * f) / (0.78 + 0.01 * f) - 1 for f in range(3)])
    assert table.loc[("Table 4", f"T2.5, DG - {network}", "RDT"), "ours"] == pytest.approx(100 * rdt)
    half = np.mean([(0.582 + 0.012 * f) / (0.78 + 0.01 * f) - 1 for f in range(3)])
    assert table.loc[("Table 6", f"T2.5, {network}", "RDT, 100 epochs"), "ours"] == pytest.approx(100 * half)
    last = table.iloc[-1]
    assert last.name[1].startswith("S.10") and last["ours"] == pytest.approx(80) and last["n"] == 2


FORGETTING = "from ImageNet, generalisation decreases between 100 and 200 epochs: change of mIoU on T2"


def test_claims_judge_effects_and_leave_levels_unjudged():
    table = claims(runs(3), adapted(), profile="study").set_index("claim")
    levels = table[table["kind"] == "level"]
    assert len(levels) == 82 and set(levels["verdict"]) == {NOT_TESTABLE} and levels["ours"].notna().all()
    assert (levels["n"] > 1).all() and (levels["level"] == 0.95).all() and (levels["over"] == "folds").all()
    gain = table.loc["pre-training in domain after ImageNet against random: mIoU gained on the source"]
    assert gain["ours"] == pytest.approx(3) and gain["verdict"] == "direction reproduced"
    assert table.loc["basic augmentation against none: mIoU gained on source", "verdict"] == "holds here"
    assert table.loc["extended augmentation against basic: mIoU gained on source", "verdict"] == "holds here"
    started = table.loc["ImageNet pre-training against random: mIoU gained on source"]
    assert started["verdict"] == "holds here" and started["ours"] == pytest.approx(100 * GAINS["ImageNet"])
    alone = table.loc["in-domain pre-training against ImageNet: mIoU gained on source"]
    assert alone["ours"] == pytest.approx(100 * (GAINS["in-domain"] - GAINS["ImageNet"]))
    assert alone["verdict"] == "holds here", "that it is poor"
    better = table.loc["extended augmentation against basic: mIoU gained on T2"]
    assert better["verdict"] == "does not hold here" and better["ours"] == pytest.approx(1)


def test_only_networks_from_imagenet_are_said_to_forget():
    told = runs(3)
    other = (told["pretraining"] == "two-stage") & (told["schedule"] == source_report.AS_LONG)
    told.loc[other, "T2_miou"] += 0.3
    lost = claims(told, adapted(), profile="study").set_index("claim").loc[FORGETTING]
    assert (lost["where"], lost["published"]) == ("section 4.2", "decreases; in Table 6 1 of 3 arms")
    assert lost["ours"] == pytest.approx(-0.4) and lost["n"] == 3 and lost["verdict"] == "does not hold here"
    told["T2_miou"] -= 0.05
    lost = claims(told, adapted(), profile="study").set_index("claim").loc[FORGETTING]
    assert lost["ours"] == pytest.approx(-5.4) and lost["verdict"] == "holds here"


@pytest.mark.parametrize("folds", [0, 1])
def test_fewer_than_two_folds_judge_nothing(folds):
    table = claims(runs(1)[: folds * 100], NOTHING, profile="smoke")
    assert set(table["verdict"]) == {"not run here", NOT_TESTABLE} and len(table) == 90 and table["low"].isna().all()


def test_a_gain_that_may_be_none_is_not_reproduced():
    table = runs(3)
    part = (table["arm"] == "two-stage, extended") & (table["fold"] == 0)
    table.loc[part, "source_miou"] -= 0.2
    found = claims(table, NOTHING, profile="study").set_index("claim")
    gain = found.loc["pre-training in domain after ImageNet against random: mIoU gained on the source"]
    assert gain["low"] < 0 < gain["high"] and gain["verdict"] == "not reproduced"
