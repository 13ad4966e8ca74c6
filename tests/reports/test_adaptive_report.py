"""Tables of adaptive sampling against values worked out by hand, and figures of planted failures."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.stats import uniform

from micro_lib.core.runs import write_table
from micro_lib.reports import adaptive_plots, adaptive_report
from micro_lib.reports.adaptive_claims import claims
from micro_lib.reports.adaptive_report import arm_of, compare, marginals, stored, table_2, worst_tenth
from micro_lib.reports.grain_report import SCORES
from micro_lib.synthesis.distributions import Choice, Constant, Parameter
from micro_lib.synthesis.grains import render
from micro_lib.synthesis.presets import preset
from micro_lib.synthesis.scenario import Space
from micro_lib.training.adaptive import CONFIGURATIONS

GROUPS = {"a1": "A", "a2": "A", "b1": "B", "c1": "C"}
SPACE = Space(
    {
        "kind": Parameter(Choice({"smooth_kind": 0.5, "rough_kind": 0.5}), "", ""),
        "grey": Parameter(uniform(0, 1), "1", ""),
        "width": Parameter(uniform(2, 8), "px", ""),
        "side": Parameter(Constant(64), "px", ""),
    }
)


def runs_of(arm, miou, error=None, split="test", generated=False):
    error = 1 - np.array(miou) if error is None else error
    rows = {"arm": arm, "seed": range(1, len(miou) + 1), "steps": 192, f"{split}_miou": miou, f"{split}_error": error}
    return pd.DataFrame({**rows, f"{split}_generated": generated})


def images_of(arm, miou, split="test"):
    """Every image of a run has the run's score, plus a little of its own."""
    rows = []
    for seed, value in enumerate(miou, start=1):
        for i, (name, group) in enumerate(GROUPS.items()):
            each = {s: (value if sign > 0 else 1 - value) + 0.001 * i for s, sign in SCORES.items()}
            names = {"arm": arm, "seed": seed, "split": split, "name": name, "group": group, "generated": False}
            rows.append(names | each)
    return pd.DataFrame(rows)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_arms_are_named_by_their_configuration(name):
    assert arm_of(json.dumps(CONFIGURATIONS[name])) == name
    assert arm_of(json.dumps({**CONFIGURATIONS[name], "score_test": True, "data": "real"})) == name


def test_an_arm_without_a_name_is_written_out():
    assert arm_of(json.dumps({"interval": 0.2, "data": "real"})) == "interval 0.2"


def test_table_2_has_the_mean_over_runs_and_its_interval():
    runs = pd.concat([runs_of("random", [0.70, 0.72, 0.74]), runs_of("adaptive", [0.8, 0.8, 0.8])])
    table = table_2(runs, "test").set_index("arm")
    half = stats.t.ppf(0.975, 2) * 0.02 / np.sqrt(3)
    row = table.loc["random"]
    assert row[["miou", "miou_low", "miou_high", "miou_sd"]].tolist() == pytest.approx(
        [0.72, 0.72 - half, 0.72 + half, 0.02]
    )
    assert row["error"] == pytest.approx(0.28) and row["n"] == 3 and row["steps"] == 192
    assert row["published_error"] == "0.088 +- 0.005" and table.loc["adaptive", "published_miou"] == "0.778 +- 0.006"
    assert table_2(runs, "test", ["adaptive"])["arm"].tolist() == ["adaptive"]
    assert table_2(runs, "development").empty


def test_a_single_run_has_no_interval():
    row = table_2(runs_of("no new data", [0.7]), "test").iloc[0]
    assert row["miou"] == 0.7 and np.isnan(row["miou_low"]) and row["published_miou"] == ""


def test_arms_are_compared_on_the_seeds_they_share():
    a, b = [0.80, 0.82, 0.81, 0.99], [0.78, 0.79, 0.80]
    runs, images = (pd.concat([f("adaptive", a), f("random", b)]) for f in (runs_of, images_of))
    table = compare(runs, images, "test", [("adaptive", "random"), ("adaptive", "sobol")]).set_index("score")
    expected = stats.ttest_rel(a[:3], b)
    row = table.loc["miou"]
    assert row["difference"] == pytest.approx(0.02) and row["n"] == 3 and row["sd"] == pytest.approx(0.01)
    assert row["p"] == pytest.approx(expected.pvalue) and row["effect_dz"] == pytest.approx(2.0)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(expected.confidence_interval())
    assert row[["groups_low", "groups_high"]].tolist() == pytest.approx([0.02, 0.02]) and row["groups"] == 3
    assert table.loc["error", "difference"] == pytest.approx(-0.02)
    assert not row["better"]  # three runs: the t interval reaches zero
    back = compare(runs, images, "test", [("random", "adaptive")]).set_index("score").loc["miou"]
    assert back["difference"] == pytest.approx(-0.02)
    assert back["difference_low"] == pytest.approx(-row["difference_high"])


def test_better_needs_both_intervals():
    steady, other = [0.80, 0.81, 0.82, 0.83], [0.78, 0.79, 0.80, 0.81]
    noisy = [s + d for s, d in zip(steady, (0.001, -0.001, 0.0, 0.002), strict=True)]
    runs = pd.concat([runs_of("adaptive", noisy), runs_of("random", other)])
    images = pd.concat([images_of("adaptive", noisy), images_of("random", other)])
    assert compare(runs, images, "test", [("adaptive", "random")])["better"].all()
    spoilt = images.copy()
    where = (spoilt["arm"] == "adaptive") & (spoilt["group"] == "A")
    spoilt.loc[where, ["miou", "error"]] += [-0.2, 0.2]  # one group loses more than the others gain
    assert not compare(runs, spoilt, "test", [("adaptive", "random")])["better"].any()


def test_synthetic_images_have_no_groups():
    runs = pd.concat(
        [runs_of(arm, m, split="synthetic") for arm, m in (("adaptive", [0.8, 0.81]), ("random", [0.7, 0.72]))]
    )
    row = compare(runs, pd.DataFrame(columns=["arm", "seed"]), "synthetic", [("adaptive", "random")]).iloc[0]
    assert np.isnan(row["groups_low"]) and row["groups"] == 0 and row["n"] == 2


def test_the_worst_images_are_compared_by_seed():
    runs = pd.concat([runs_of("adaptive", [0.8] * 4), runs_of("random", [0.8] * 3), runs_of("sobol", [0.8])])
    runs["synthetic_worst_miou"] = [0.52, 0.54, 0.53, 0.90, 0.50, 0.51, 0.50, 0.60]
    table = worst_tenth(runs, [("adaptive", "random"), ("sobol", "random"), ("absent", "random")])
    low, high = stats.ttest_rel([0.52, 0.54, 0.53], [0.50, 0.51, 0.50]).confidence_interval()
    row = table.iloc[0]
    assert len(table) == 1 and row["n"] == 3, "fewer than two seeds in common give no interval"
    assert row[["difference", "difference_low", "difference_high"]].tolist() == pytest.approx([0.08 / 3, low, high])
    assert worst_tenth(runs[:0], [("adaptive", "random")]).empty


def judged(adaptive, random, **options):
    runs = pd.concat([runs_of("adaptive", adaptive, **options), runs_of("random", random, **options)])
    images = pd.concat([images_of("adaptive", adaptive), images_of("random", random)])
    return claims(runs, images, profile="study").set_index("claim")


def test_claims_follow_the_scores():
    random = np.array([0.761, 0.763, 0.765, 0.764])
    table = judged(random + np.array([0.0149, 0.0151, 0.0148, 0.0152]), random)
    gain = "mean IoU: adaptive minus random fine-tuning"
    assert table.loc[gain, "verdict"] == "reproduced" and table.loc[gain, "ours"] == pytest.approx(0.015)
    assert table.loc["mean IoU after random fine-tuning, 1,000 new images", "verdict"] == "reproduced"
    assert table.loc["pixel error after random fine-tuning, 1,000 new images", "verdict"] == "not reproduced"
    assert (table["n"] == 4).all() and (table["seeds"] == "1 2 3 4").all() and len(table) == 8
    assert (table["over"] == "runs").all() and table["level"].dropna().tolist() == [0.95] * 6
    level = table.loc["mean IoU after random fine-tuning, 1,000 new images", "why"]
    assert level.endswith("over 3 overlap groups [0.7637, 0.7662]"), "of the images, which lie a little above"
    chance = table.loc["p of adaptive against random fine-tuning over runs: mean IoU"]
    assert chance["verdict"] == "direction reproduced" and 0 < chance["ours"] < 1e-4
    gains = np.array([0.1, 0.101, 0.102, 0.1])
    more = judged(random + gains, random)
    assert more.loc[gain, "verdict"] == "direction reproduced"
    worse = judged(random - gains, random)
    assert worse.loc[gain, "verdict"] == "not reproduced" and worse.loc[gain, "ours"] < 0


@pytest.mark.parametrize("options", [{"generated": True}, {"split": "development"}])
def test_stand_ins_and_development_images_judge_nothing(options):
    table = judged([0.8, 0.8, 0.9], [0.7, 0.7, 0.7], **options)
    assert (table["verdict"] == "not run here").all() and table["ours"].isna().all()


def test_a_single_seed_judges_nothing():
    assert (judged([0.8], [0.7])["verdict"] == "not run here").all()


def test_stored_rows_scored_on_test_replace_those_that_were_not(tmp_path):
    def row(seed, score_test, miou, profile="study"):
        configuration = json.dumps({"score_test": score_test, "strategy": "random"})
        shared = {"configuration": configuration, "seed": seed, "profile": profile, "score_test": score_test}
        return {**shared, "development_miou": miou, **({"test_miou": 0.5} if score_test else {})}

    rows = pd.DataFrame([row(1, False, 0.1), row(2, False, 0.2), row(1, True, 0.3), row(1, False, 0.4, "quick")])
    write_table(rows, tmp_path / "adaptive_runs.csv")
    write_table(rows.assign(split="development", name="a", group="A"), tmp_path / "adaptive_images.csv")
    runs, images = stored("study", tmp_path)
    assert runs["development_miou"].tolist() == [0.2, 0.3] and set(runs["arm"]) == {"random"}
    assert images["development_miou"].tolist() == [0.2, 0.3]
    assert stored("paper", tmp_path)[0].empty and stored("study", tmp_path / "none")[0].empty


def planted(n=400, seed=1):
    table = SPACE.sample(n, seed)
    fails = (table["kind"] == "rough_kind") & (table["grey"] < 0.4)
    noise = np.random.default_rng(seed).normal(0, 0.02, n)
    return table, pd.DataFrame({"seed": table["seed"], "miou": np.where(fails, 0.4, 0.8) + noise, "error": 0.1})


def test_marginals_find_the_parameters_that_matter():
    table, scores = planted()
    found = marginals(table, scores)
    assert set(found["parameter"]) == {"kind", "grey", "width"}  # what never changes is left out
    spread = found.drop_duplicates("parameter").set_index("parameter")["spread"]
    assert spread["kind"] > 0.2 and spread["grey"] > 0.2 and spread["width"] < 0.03
    kinds = found[found["parameter"] == "kind"].set_index("bin")
    assert kinds.loc["smooth_kind", "miou"] > 0.75 > kinds.loc["rough_kind", "miou"]
    for _, part in found.groupby("parameter"):
        assert part["n"].sum() == 400
        assert (part["miou"] * part["n"]).sum() / 400 == pytest.approx(scores["miou"].mean())
    assert ((found["miou_low"] < found["miou"]) & (found["miou"] < found["miou_high"])).all()


def test_equal_scores_have_no_spread():
    table, scores = planted(50)
    assert (marginals(table, scores.assign(miou=0.5))["spread"] == 0).all()


def test_figures_draw_what_the_tables_hold():
    table, scores = planted()
    fig = adaptive_plots.parameters(table, scores, 2)
    assert {ax.get_xlabel().split()[0] for ax in fig.axes} == {"kind", "grey"}
    pair, ax = plt.subplots()
    adaptive_plots.pair(ax, table, scores, ("grey", "kind"))
    image = ax.images[0].get_array()
    rough = [label.get_text() for label in ax.get_yticklabels()].index("rough\nkind")
    assert image.shape == (2, 5) and image[rough, 0] == pytest.approx(0.4, abs=0.02)
    assert image[1 - rough].min() > 0.75
    for figure in (fig, pair):
        figure.canvas.draw()
        plt.close(figure)


def test_the_worst_are_shown_first():
    table = preset("trampert").replace(height_px=Constant(48), width_px=Constant(48)).sample(4, 1)
    panels = adaptive_plots.worst(table, pd.DataFrame({"miou": [0.5, 0.2, 0.9, 0.3]}), 2)
    assert [panel.title for panel in panels] == ["IoU 0.20", "IoU 0.20", "IoU 0.30", "IoU 0.30"]
    assert (panels[0].image == render(table.iloc[1].to_dict()).image).all()
    assert panels[0].mask is None and panels[1].mask.max() == 1


def test_proposals_are_compared_with_the_table():
    table, scores = planted()
    same = pd.concat([table[:40]] * 5, ignore_index=True)
    dark = SPACE.replace(grey=uniform(0, 0.2)).sample(200, 4)
    found = adaptive_report.compare_proposals(
        table, scores, {"copies": same, "dark": dark, "fresh": SPACE.sample(200, 5)}
    )
    found = found.set_index("strategy")
    assert found.loc["copies", "distinct"] == pytest.approx(0, abs=1e-2)
    assert found.loc["fresh", "distinct"] == pytest.approx(1, abs=0.3)
    assert found.loc["dark", "grey"] < -1 < found.loc["fresh", "grey"] and found["rows"].tolist() == [200] * 3
