"""Stored runs agree with the scores of their micrographs, stored beside them, and say where they come from."""

import numpy as np
import pandas as pd
import pytest

from micro_lib.application.sweep import KEYS, SWEEPS
from micro_lib.core.profiles import settings
from micro_lib.core.runs import read_table, repository_root
from micro_lib.data.shifts import DEVELOPMENT
from micro_lib.reports.adaptation_report import names_of

SEGMENTED = {  # sweep: prefix of its confusion counts, score of a run
    "adaptation": ("confusion", "{split}_miou"),
    "joint": ("n", "{split}_miou_pooled"),
    "source": ("confusion", "{split}_miou"),
}
AVERAGED = {  # sweep: scores that are means over micrographs
    "adaptive": ("error", "miou", "bf1_8px"),
    "grains": ("error", "miou", "bf1_8px", "intercept_rel_err"),
}


def table(name):
    return read_table(repository_root() / "figures" / "tables" / f"{name}.csv")


def both(sweep):
    """Yield each run with the rows of its micrographs, by part; runs that keep none are left out."""
    runs = table(f"{sweep}_runs").set_index(list(KEYS))
    for (*key, split), part in table(f"{sweep}_images").groupby([*KEYS, "split"]):
        yield runs.loc[tuple(key)], split, part


def mean_iou(images, prefix):
    """Mean IoU of counts added over micrographs; classes that are neither there nor found are left out."""
    counts = images.filter(regex=rf"^{prefix}_\d_\d$").dropna(axis=1).sum()
    size = round(np.sqrt(len(counts)))
    known = np.array([[counts[f"{prefix}_{i}_{j}"] for j in range(size)] for i in range(size)])
    hits, union = np.diag(known), known.sum(0) + known.sum(1) - np.diag(known)
    return (hits[union > 0] / union[union > 0]).mean()


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_run_is_stored_once_and_says_where_it_comes_from(sweep):
    runs = table(f"{sweep}_runs")
    assert len(runs) and not runs.duplicated(list(KEYS)).any()
    assert runs[["profile", "seed", "device", "versions", "commit", "dirty"]].notna().all().all()


@pytest.mark.parametrize("sweep", SEGMENTED)
def test_a_runs_mean_iou_follows_from_its_micrographs(sweep):
    prefix, score = SEGMENTED[sweep]
    checked = 0
    for run, split, images in both(sweep):
        assert run[score.format(split=split)] == pytest.approx(mean_iou(images, prefix), abs=1e-9), run.name
        checked += 1
    assert checked >= len(table(f"{sweep}_runs")), "every run has micrographs"


@pytest.mark.parametrize("sweep", AVERAGED)
def test_a_runs_scores_are_the_means_over_its_micrographs(sweep):
    checked = 0
    for run, split, images in both(sweep):
        for score in AVERAGED[sweep]:
            assert run[f"{split}_{score}"] == pytest.approx(images[score].mean(), abs=1e-9), (run.name, split, score)
        checked += 1
    assert checked > 30


def test_a_runs_errors_are_those_of_its_crack_tiles():
    parts = list(both("cracks"))
    for run, split, images in parts:
        if split != "training":
            assert run[f"{split}_error"] == pytest.approx(images["wrong"].sum() / images["n"].sum()), run.name
    assert {split for _, split, _ in parts} == {"training", "validation", "test"}


def test_every_reported_adaptation_has_its_whole_curve():
    runs, curves = table("adaptation_runs"), table("adaptation_curves")
    last = curves.groupby(["profile", "shift", "arm", "seed"])["step"].max()
    for run in runs.to_dict("records"):
        shift, arm = names_of(run["configuration"]).values()
        if shift not in DEVELOPMENT and run["architecture"] == settings("adaptation", run["profile"])["architecture"]:
            assert last.get((run["profile"], shift, arm, run["seed"])) == run["steps"], (shift, arm, run["seed"])


def test_scores_of_bagged_networks_belong_to_stored_runs():
    runs = table("adaptation_runs")
    runs = pd.concat([runs, runs["configuration"].map(names_of).apply(pd.Series)[["arm"]]], axis=1)
    for bag in table("adaptation_bagged").to_dict("records"):
        of_arm = runs[(runs[["profile", "shift", "arm"]] == [bag[k] for k in ("profile", "shift", "arm")]).all(axis=1)]
        known = of_arm[of_arm["seed"].astype(str).isin(str(bag["seed"]).split(", "))]
        assert len(known) == bag["networks"], bag
        assert known["target_miou"].mean() == pytest.approx(bag["single_miou"]), bag
