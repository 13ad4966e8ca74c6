"""Tables of the joint experiment against values worked out by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from micro_lib.core.runs import write_json, write_table
from micro_lib.reports import joint_report
from micro_lib.reports.joint_claims import claims
from micro_lib.reports.joint_report import (
    arm_of,
    by_class,
    by_specimen,
    collect,
    copying,
    costs,
    criteria,
    gains,
    generators,
    pair_quality,
    per_window,
    quality_tables,
    replaced,
    scores,
)
from micro_lib.training import joint

USED = {1: 1, 4: 4, 0: 9}
SPREAD = [0.0, 0.01, -0.01, 0.02, -0.01, 0.0, 0.03, 0.0, -0.04, 0.01, 0.01, -0.02]


def runs_of(values, pack="nasa_superalloy", n=12, generated=False):
    """Runs of (arm, k) with the score given and, per seed, the same deviation in all arms."""
    tables = []
    for (arm, k), value in values.items():
        recipe, _, ratio = arm.partition(" x")
        row = {"pack": pack, "k": k, "arm": arm, "seed": range(1, n + 1), "generator": [i // 3 for i in range(n)]}
        row |= {"recipe": "" if arm == "real" else recipe, "ratio": float(ratio or 0), "n_micrographs": USED[k]}
        row |= {"n_pairs": 0 if arm == "real" else 16 * USED[k] * float(ratio), "generated": generated}
        row |= {f"test_{name}": value + np.array(SPREAD[:n]) for name in joint_report.MEASURES}
        tables.append(pd.DataFrame(row))
    return pd.concat(tables, ignore_index=True)


def images_of(errors, pack="nasa_superalloy", k=4):
    """One image of 100 pixels, half of either class, of four specimens (a seed each), with so many wrong a class."""
    rows = []
    for arm, wrong in errors.items():
        for i, count in enumerate(wrong):
            cells = {"n_0_0": 50 - count, "n_0_1": count, "n_1_0": count, "n_1_1": 50 - count}
            rows.append(
                {"pack": pack, "k": k, "arm": arm, "seed": 3 * i + 1, "group": f"s{i}", "split": "test", **cells}
            )
    return pd.DataFrame(rows)


def no_images():
    return images_of({"real": [0]}).iloc[:0]


@pytest.mark.parametrize(
    ("configuration", "arm"),
    [
        ({"k": 4, "data": "real"}, "real"),
        ({"k": 1, "ratio": 4.0, "recipe": "plain"}, "plain x4"),
        ({"ratio": 0.5, "recipe": "fine", "pack": "uhcs"}, "fine x0.5"),
    ],
)
def test_arms_are_named_by_their_configuration(configuration, arm):
    assert arm_of(json.dumps(configuration)) == arm


def test_stored_runs_of_one_profile_are_read(tmp_path):
    configuration = json.dumps({"k": 1, "ratio": 0.5, "recipe": "plain", "data": "real"})
    table = pd.DataFrame({"configuration": [configuration] * 2, "profile": ["study", "quick"], "seed": 1, "n": 3})
    for kind in ("runs", "images"):
        write_table(table, tmp_path / f"joint_{kind}.csv")
    for found in joint_report.stored("study", tmp_path):
        assert found[["pack", "k", "arm"]].to_numpy().tolist() == [["nasa_superalloy", 1, "plain x0.5"]]
    runs, images = joint_report.stored("study", tmp_path / "none")
    assert runs.empty and images.empty and {"pack", "k", "arm", "seed"} <= set(runs)


def test_scores_have_an_interval_over_generators():
    table = scores(runs_of({("real", 0): 0.9, ("real", 1): 0.8})).set_index("k")
    assert table.index.tolist() == [1, 0] and table["micrographs"].tolist() == [1, 9]
    means = 0.8 + np.array(SPREAD).reshape(4, 3).mean(1)
    low, high = stats.t.interval(0.95, 3, means.mean(), stats.sem(means))
    row = table.loc[1]
    assert (row["n"], row["generators"]) == (12, 4)
    assert row[["miou_pooled", "miou_pooled_low", "miou_pooled_high"]].tolist() == pytest.approx(
        [means.mean(), low, high]
    )
    once = scores(runs_of({("real", 4): 0.8}, "uhcs", n=3)).iloc[0]
    assert np.isnan(once["miou_pooled_low"]) and once["generators"] == 1


def test_packs_and_budgets_are_in_order():
    runs = pd.concat([runs_of({("real", 4): 0.7}, "nasa_ebc"), runs_of({("real", 0): 0.9, ("real", 1): 0.8})])
    table = scores(runs)
    assert table[["pack", "k"]].to_numpy().tolist() == [["nasa_superalloy", 1], ["nasa_superalloy", 0], ["nasa_ebc", 4]]


def test_specimens_are_pooled_over_their_images():
    images = images_of({"real": [10]})
    twice = pd.concat([images, images.assign(n_0_0=50, n_0_1=0, n_1_0=0, n_1_1=50)])
    row = by_specimen(twice).iloc[0]
    # 90 of 100 right in either class, 10 lost and 10 won: 90 / 110
    assert row["miou"] == row["present_class_miou"] == pytest.approx(90 / 110) and row["micrographs"] == 2


def test_gains_are_paired_by_seed_and_tested_over_generators():
    runs = runs_of({("real", 4): 0.8, ("plain x4", 4): 0.83})
    runs.loc[runs["arm"] == "plain x4", "test_miou_pooled"] += np.repeat([0.0, 0.01, -0.01, 0.0], 3)
    images = images_of({"real": [10, 10, 10, 10], "plain x4": [5, 5, 10, 0]})
    row = gains(runs.sample(frac=1, random_state=1), images).iloc[0]
    each = 0.03 + np.array([0.0, 0.01, -0.01, 0.0])
    low, high = stats.t.interval(0.95, 3, each.mean(), stats.sem(each))
    assert (row["arm"], row["n"], row["generators"], row["over"]) == ("plain x4", 12, 4, "generators")
    assert row[["difference", "difference_low", "difference_high"]].tolist() == pytest.approx([0.03, low, high])
    fewer = gains(runs[runs["seed"] <= 10], images).iloc[0]  # the last generator with one U-Net
    assert (fewer["n"], fewer["difference"]) == (10, pytest.approx(0.03)), "generators count alike"
    assert row["p"] == pytest.approx(stats.ttest_1samp(each, 0).pvalue)
    assert row["difference_low"] < row["runs_low"] < 0.03 < row["runs_high"] < row["difference_high"]
    gained = [45 / 55 - 40 / 60] * 2 + [0.0, 1 - 40 / 60]
    assert row["specimens_difference"] == pytest.approx(np.mean(gained)) and row["specimens_confidence"] == 0.875
    assert row["specimens"] == 4 and 0 <= row["specimens_low"] < np.mean(gained) < row["specimens_high"]
    assert bool(row["better"]) == (row["specimens_low"] > 0)


def test_gains_on_other_micrographs_come_from_these_alone():
    runs = runs_of({("real", 4): 0.8, ("plain x4", 4): 0.83}).assign(other_miou_pooled=0.5)
    runs.loc[runs["arm"] == "plain x4", "other_miou_pooled"] = 0.6 + np.repeat([0.0, 0.01, -0.01, 0.0], 3)
    images = images_of({"real": [10] * 4, "plain x4": [5] * 4})
    images = pd.concat([images, images.assign(split="other", n_0_0=50, n_0_1=0, n_1_0=0, n_1_1=50)])
    row = gains(runs, images, split="other").iloc[0]
    assert row["difference"] == pytest.approx(0.1) and row["specimens_low"] == row["specimens_high"] == 0
    none = runs.assign(other_miou_pooled=np.nan)  # a pack without such micrographs
    assert gains(none, images, split="other").empty and len(gains(none, images)) == 1


def test_one_generator_is_tested_over_its_unets():
    row = gains(runs_of({("real", 4): 0.8, ("plain x4", 4): 0.83}, "uhcs", n=3), no_images()).iloc[0]
    assert (row["over"], row["generators"], row["specimens"]) == ("U-Nets", 1, 0) and not row["better"]
    assert row["difference_low"] == pytest.approx(row["runs_low"])
    images = images_of({"real": [10] * 4, "plain x4": [1, 2, 1, 2]}, "uhcs").assign(seed=1)
    row = gains(runs_of({("real", 4): 0.8, ("plain x4", 4): 0.83}, "uhcs", n=3), images).iloc[0]
    assert row["specimens_low"] > 0 and row["difference_low"] > 0 and not row["better"], "one generator proves nothing"


def test_single_runs_give_a_gain_without_an_interval():
    runs = runs_of({("real", 4): 0.8, ("plain x4", 4): 0.83}, n=1)
    row = gains(runs, no_images()).iloc[0]
    assert row["difference"] == pytest.approx(0.03) and np.isnan(row["difference_low"]) and not row["better"]
    assert gains(runs[runs["arm"] == "real"], no_images()).empty and replaced(runs, 1.0).empty


# Labels replaced


def test_pairs_replace_the_labels_that_reach_their_score():
    runs = runs_of({("real", 1): 0.80, ("real", 4): 0.90, ("real", 0): 0.95, ("plain x4", 1): 0.85})
    row = replaced(runs, 2.0).iloc[0]
    assert row[["micrographs", "worth", "replaced", "hours_saved"]].tolist() == pytest.approx([1, 2, 1, 2])
    # All seeds deviate alike, so every resample says the same.
    assert row[["worth_low", "worth_high"]].tolist() == pytest.approx([2, 2])
    firsts = runs[(runs["arm"] == "real") | (runs["seed"] % 3 == 1)]  # the arm's first U-Nets alone
    odd = firsts.assign(test_miou_pooled=firsts["test_miou_pooled"].where(firsts["seed"] % 3 == 1, 0.1))
    assert replaced(odd, 2.0).equals(replaced(firsts, 2.0)), "U-Nets that the arm has none beside count for nothing"
    beyond = runs_of({("real", 1): 0.80, ("real", 4): 0.90, ("plain x4", 1): 0.99})
    assert replaced(beyond, 1.0).iloc[0][["worth", "worth_low", "replaced_high"]].tolist() == [4, 4, np.inf]
    below = replaced(runs_of({("real", 1): 0.80, ("real", 4): 0.90, ("plain x4", 4): 0.70}), 2.0).iloc[0]
    assert below[["worth", "worth_low", "worth_high"]].tolist() == [1, 0, 1]
    assert below[["replaced_low", "hours_saved_low"]].tolist() == [-4, -8], "four labels may have been worth none"
    # The same where the last micrographs brought nothing: all of them are not enough.
    flat = runs_of({("real", 1): 0.5, ("real", 4): 0.7, ("real", 0): 0.69, ("plain x4", 1): 0.9})
    assert replaced(flat, 1.0).iloc[0][["worth", "worth_high"]].tolist() == pytest.approx([9, np.inf])
    assert replaced(flat.assign(k=flat["k"].where(flat["arm"] == "real", 0)), 1.0).empty, "all of them replace none"


# Pairs


def made_of(pack="nasa_superalloy", k=4, recipe="plain", n=4, **measures):
    """Rows of `n` generators with measures of so many values."""
    return pd.DataFrame({"pack": pack, "k": k, "recipe": recipe, "generator": range(n), **measures})


def test_costs_of_a_generator_count_once():
    runs = runs_of({("real", 4): 0.8, ("plain x0.5", 4): 0.8, ("plain x4", 4): 0.8})
    runs["vq_seconds"] = np.where(runs["n_pairs"] > 0, 100.0 + runs["generator"], np.nan)
    row = costs(runs).iloc[0]
    assert row[["pack", "k", "recipe", "measure", "n"]].tolist() == ["nasa_superalloy", 4, "plain", "vq_seconds", 4]
    assert row[["value", "value_low", "value_high"]].tolist() == [101.5, 100, 103] and len(costs(runs)) == 1
    assert costs(runs[runs["arm"] == "real"]).empty


def test_measures_of_pairs_are_medians_over_generators():
    ratios = [357.8, np.nan, 4.0, 2.8]  # of what some real windows hardly hold, and others not at all
    made = made_of(pairs_auc_both=[0.6, 0.7, 0.8, 0.9], pairs_density_0_variance=ratios, closer=0.5, nats_seen=4.0)
    table = pair_quality(made).set_index("measure")
    assert set(table.index) == {"pairs_auc_both", "pairs_density_0_variance", "nats_seen"}
    columns = ["value", "value_low", "value_high", "n"]
    assert table.loc["pairs_auc_both", columns].tolist() == pytest.approx([0.75, 0.6, 0.9, 4])
    assert table.loc["pairs_density_0_variance", columns].tolist() == [4.0, 2.8, 357.8, 3]
    shown = quality_tables(pair_quality(made))
    assert list(shown) == ["nasa_superalloy"]
    assert shown["nasa_superalloy"].loc["pairs_auc_both"].to_dict() == {"k = 4, plain": "0.75 [0.6 to 0.9], n = 4"}


def test_every_class_of_every_pack_has_its_line():
    made = [
        made_of(pairs_intercept_0=1.0, pairs_intercept_1=[1.1, 1.2, 1.3, 1.4], unseen_intercept_1=0.9),
        made_of("uhcs", n=1, pairs_intercept_0=2.0, pairs_fraction_0_variance=0.5),
    ]
    table = by_class(pair_quality(pd.concat(made)), {"nasa_superalloy": ("a", "b"), "uhcs": ("c",)})
    assert table[["pack", "class"]].to_numpy().tolist() == [
        ["nasa_superalloy", "a"],
        ["nasa_superalloy", "b"],
        ["uhcs", "c"],
    ]
    assert table["intercept"].tolist() == ["1 [1 to 1], n = 4", "1.25 [1.1 to 1.4], n = 4", "2 [2 to 2], n = 1"]
    assert table["intercept, unseen"].tolist() == ["", "0.9 [0.9 to 0.9], n = 4", ""]
    assert table["variance of fraction"].tolist() == ["", "", "0.5 [0.5 to 0.5], n = 1"]


def test_windows_are_averaged_over_generators_and_none_is_left_out():
    runs = runs_of({("real", 4): 0.8, ("plain x4", 4): 0.8, ("real", 1): 0.7})
    runs["test_miou_per_window"] = np.where(runs["arm"] == "real", 0.8, np.nan)
    runs["test_present_class_miou_per_window"] = runs["test_miou_per_window"] + 0.01 * runs["generator"]
    runs.loc[(runs["k"] == 1) & (runs["generator"] > 0), "test_miou_per_window"] = np.nan  # of an older code
    table = per_window(runs).set_index(["k", "arm"])
    row = table.loc[(4, "real")]
    low, high = stats.t.interval(0.95, 3, 0.015, stats.sem([0, 0.01, 0.02, 0.03]))
    assert row[["n", "n_runs", "generators"]].tolist() == [12, 12, 4]
    assert row[["miou", "present_class_miou"]].tolist() == pytest.approx([0.8, 0.815])
    assert row[["difference", "difference_low", "difference_high"]].tolist() == pytest.approx([0.015, low, high])
    assert table.loc[(4, "plain x4"), ["n", "n_runs", "generators"]].tolist() == [0, 12, 0]
    few = table.loc[(1, "real")]
    assert (few["n"], few["generators"]) == (3, 1) and np.isnan(few["difference_low"]) and few["difference"] == 0


def test_generators_are_measured_once(tmp_path, monkeypatch):
    asked = []

    def quality(configuration, seed, profile):
        asked.append((configuration["k"], seed))
        names = {"pack": "uhcs", "k": configuration["k"], "recipe": "plain", "generator": (seed - 1) // 3}
        names["trained_at"] = "a" if len(asked) < 4 else "b"
        medians = dict.fromkeys(("generated_median", "unseen_median", "seen_median"), 1.0)
        part = {"quarter_copies": 2 * seed}
        lowest = {"generated_lowest": 1 / seed, "vq_perplexity": 10.0 * seed}
        return {**names, **medians, **lowest, "closer": 0.1 * seed, "copies": seed, "n_generated": 16, **part}

    monkeypatch.setattr(joint, "quality", quality)
    for i, (k, seed, recipe) in enumerate(
        [(4, 1, "plain"), (4, 2, "plain"), (4, 4, "plain"), (1, 1, "plain"), (4, 1, "")]
    ):
        row = {"pack": "uhcs", "k": k, "recipe": recipe, "generator": (seed - 1) // 3, "seed": seed}
        row |= {"configuration": json.dumps({"k": k}), "profile": "study", "device": "cpu"}
        write_json(tmp_path / "runs" / str(i) / "done.json", row)
    for _ in range(2):  # again, nothing doubles
        collect("study", tmp_path, tmp_path)
    assert sorted((k, (seed - 1) // 3) for k, seed in asked) == [(1, 0), (4, 0), (4, 1)]
    table = copying(generators("study", tmp_path)).set_index("k")
    assert table.index.tolist() == [1, 4] and table["generators"].tolist() == [1, 2]
    both = ["closer", "copies", "n_generated", "quarter_copies", "generated_lowest", "vq_perplexity"]
    assert table.loc[4, both].tolist() == pytest.approx([0.3, 6, 32, 12, 1 / 4, 20])
    assert generators("quick", tmp_path).empty and generators("study", tmp_path / "none").empty
    collect("quick", tmp_path, tmp_path / "none")
    assert len(asked) == 3
    again = row | {"seed": 1, "k": 1, "recipe": "plain", "configuration": json.dumps({"k": 1})}
    for commit in "ab":  # the generator as known, and trained anew
        write_json(tmp_path / "runs" / "9" / "done.json", {**again, "generator_trained_at": commit})
        for _ in range(2):
            collect("study", tmp_path, tmp_path)
    places = copying(generators("study", tmp_path))["generators"].tolist()
    assert asked[3:] == [(1, 1)] and places == [1, 2], "in the place of its row"


def compared(*means):
    """Ratios of sampled to real means: quantity, class, real, ratio."""
    names = ["quantity", "class", "real", "ratio"]
    return pd.DataFrame(means, columns=names).assign(statistic="mean")


def test_pairs_are_held_against_what_they_have_to_be():
    found = compared(
        ("fraction", "a", 0.5, 1.09), ("intercept", "a", 9.0, 0.89), ("intercept", "b", 9.0, np.nan), ("grey", "", 1, 2)
    )
    for name in ("fraction", "intercept"):
        found.loc[len(found)] = [name, "never there", 0.0 if name == "fraction" else np.nan, np.nan, "mean"]
    kept = {"a": 0.9, "b": 0.4}
    table = criteria(300.0, 512, {"copies": 0, "n_generated": 16}, kept, 0.9, 0.95, found).set_index("criterion")
    wanted = [True, True, True, True, False, True, False, False]
    assert table["met"].tolist() == wanted, "b is lost and missing among the sampled, intercepts of a are too short"
    through = [f"IoU of {name} through the codes" for name in "ab"]
    means = [f"mean {name}, sampled over real" for name in ("fraction a", "intercept a", "intercept b")]
    assert table.index[3:].tolist() == [*through, *means]
    assert table.loc[means[1], ["found", "wanted"]].tolist() == [0.89, "0.9 to 1.1"]
    bad = criteria(20.0, 512, {"copies": 1, "n_generated": 16}, kept, 0.5, 0.95, found)
    assert bad["met"].tolist()[:3] == [False, False, False]


# Claims


def whole(gain, ratio=1.2, varied=0.6, generated=False):
    values = {("real", k): 0.8 + 0.03 * i for i, k in enumerate((1, 4, 0))}
    values |= {("plain x4", k): value + gain for (_, k), value in list(values.items())}
    runs = runs_of(values, generated=generated)
    spread = np.array([0.9, 1 / 0.9, 1.05, 1 / 1.05])
    measures = {"pairs_intercept_0": 1.0, "pairs_intercept_1": (ratio + 0.01 * np.arange(4)) ** 2}
    measures |= {f"pairs_fraction_{i}_variance": varied * spread for i in range(2)}
    made = made_of(k=0, **measures).assign(generated=generated)
    wrong = [8, 8, 9, 9] if gain > 0 else [12, 12, 11, 13]
    images = pd.concat([images_of({"real": [10] * 4, "plain x4": wrong}, k=k) for k in (1, 4, 0)])
    return runs, images, made


def test_claims_are_judged_by_both_intervals():
    table = claims(*whole(0.02), hours=2.0, profile="study")
    assert table["verdict"].tolist() == ["holds here", "holds here", "reproduced", "reproduced"]
    assert table["ours"].iloc[0] == pytest.approx(0.02) and table["n"].tolist() == [4, 4, 4, 4]
    assert set(table["over"]) == {"generators"} and table["level"].tolist() == [0.95, 0.875, 0.95, 0.95]
    assert table["ours"].iloc[3] == pytest.approx(-0.4) and table["published"].iloc[3] == "-40% variance"
    assert len(table["answers"].iloc[2].split("; ")) == 4 and table["published"].iloc[2] == "+16% to +24% grain size"
    worse = claims(*whole(-0.02, ratio=0.9, varied=1.3), hours=2.0, profile="study")
    assert worse["verdict"].tolist() == ["does not hold here"] * 2 + ["not reproduced"] * 2
    assert not worse["why"].str.contains("ruled out").any(), "the interval ends below zero"
    slightly = claims(*whole(0.02, ratio=1.05), hours=2.0, profile="study")
    assert slightly["verdict"].iloc[2] == "direction reproduced"


def test_the_best_of_many_arms_has_to_be_better_than_chance_makes_it():
    runs, images, made = whole(0.0)
    lucky = runs["arm"].eq("plain x4") & runs["k"].eq(4)
    runs.loc[lucky, "test_miou_pooled"] += 0.02 + np.repeat([0.0, 0.015, -0.015, 0.0], 3)
    images = pd.concat([images_of({"real": [10] * 4, "plain x4": [8, 8, 9, 9]}, k=k) for k in (1, 4, 0)])
    table = gains(runs, images).set_index("k")
    assert table.loc[4, "better"] and 0.05 / 3 < table.loc[4, "p"] < 0.05
    found = claims(runs, images, made, hours=2.0, profile="study").iloc[0]
    assert found["verdict"] == "does not hold here" and "0 better, their p corrected for 3 arms" in found["why"]
    assert found["why"].startswith(f"gains up to {found['high']:.3f} are not ruled out;")
    saved = claims(runs, images, made, hours=2.0, profile="study").iloc[1]
    assert saved["low"] > 0, "all four generators gain, so every resample of them does"
    assert saved["verdict"] == "does not hold here" and "0 of 2 arms gain" in saved["why"], "which is no proof"


def test_an_arm_that_helps_is_found_behind_one_that_varies():
    runs, images, made = whole(0.02)
    wild = runs["arm"].eq("plain x4") & runs["k"].eq(1)
    runs.loc[wild, "test_miou_pooled"] += np.repeat([0.3, -0.2, 0.2, -0.2], 3)
    found = claims(runs, images, made, hours=2.0, profile="study").iloc[0]
    assert found["verdict"] == "holds here" and found["ours"] == pytest.approx(0.02)


def test_nothing_is_judged_without_real_micrographs_or_generators():
    runs, images, made = whole(0.02, generated=True)
    assert set(claims(runs, images, made, hours=2.0, profile="smoke")["verdict"]) == {"not run here"}
    runs, images, made = whole(0.02)
    few = claims(runs[runs["generator"] == 0], images, made[:1], hours=2.0, profile="quick")
    assert set(few["verdict"]) == {"not run here"}
    empty = *joint_report.stored("study", "nowhere"), generators("study", "nowhere")
    assert set(claims(*empty, hours=2.0, profile="study")["verdict"]) == {"not run here"}


def test_all_classes_count_for_coarseness_and_uniformity():
    runs, images, made = whole(0.02, ratio=1.1)  # squared in one of two classes
    table = claims(runs, images, made, hours=2.0, profile="study")
    assert table["ours"].iloc[2] == pytest.approx(0.1149, abs=1e-4) and "(+0%, +24%)" in table["why"].iloc[2]
    assert "(-40%, -40%)" in table["why"].iloc[3]
    absent = made.assign(pairs_intercept_0=np.nan)  # sampled by none: the others count
    assert claims(runs, images, absent, hours=2.0, profile="study")["ours"].iloc[2] == pytest.approx(0.243, abs=1e-3)
    few = claims(runs, images, made[:1], hours=2.0, profile="study")
    assert few["verdict"].tolist() == ["holds here", "holds here", "not run here", "not run here"]


def test_claims_name_the_device_of_their_runs():
    runs, images, made = whole(0.02)
    assert set(claims(runs.assign(device="cuda"), images, made, hours=2.0, profile="study")["device"]) == {"cuda"}
