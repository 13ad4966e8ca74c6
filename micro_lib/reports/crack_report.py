"""Tables of the crack experiment: Table 1 of Trampert et al. 2021 beside ours, and what the generator is worth."""

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from micro_lib.analysis.stats import (
    agresti_coull,
    bootstrap_interval,
    bootstrap_label_equivalent,
    cluster_bootstrap,
)
from micro_lib.application.published import (
    Cell,
    cell,
)
from micro_lib.application.tables import mean_fields, paired_fields, stored_sweep
from micro_lib.core.seeds import stream
from micro_lib.training import cracks
from micro_lib.training.cracks import LOOKED_AT

LEVEL = 0.99  # of the intervals of the paper, and of ours over runs
RUNS, SPECIMENS = "runs", "specimens"
PUBLISHED_RUNS = 200
# The printed intervals are Agresti-Coull ones of a proportion of this many trials, the square of the runs: neither the
# number of runs nor that of tiles they were tested on, and no interval of a mean over runs.
PUBLISHED_TRIALS = PUBLISHED_RUNS**2
MEASURES = {
    "test_error": "error on held specimens",
    "all_error": "error on all tiles, trained ones among them",
}
PRINTED = {"test_error": "test data", "all_error": "all data"}  # as the paper calls what is measured
ARMS = ("synthetic", "real", "mixed")


def arm_of(configuration: str | Mapping) -> str:
    """Return the name of the arm that a stored configuration (JSON) belongs to; the number of real tiles is no part."""
    values = json.loads(configuration) if isinstance(configuration, str) else configuration
    full = cracks.complete(values)
    covering = " covering" if full["generator"] == "covering" else ""
    return full["arm"] + covering + (" by tile" if full["split"] == "tile" else "")


def stored(profile: str, folder: str | Path = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the stored runs of one profile and their counts of every specimen; empty where there are none.

    Parameters
    ----------
    profile : str
        Usually ``"study"``.
    folder : str or pathlib.Path
        As for `micro_lib.application.tables.stored_sweep`.

    Returns
    -------
    pandas.DataFrame, pandas.DataFrame
        Runs, as `cracks.run` returns them, and counts, as `cracks.by_specimen`, both with arm, n_real and seed.
    """

    def named(text: str) -> dict:
        return {"arm": arm_of(text), "n_real": cracks.complete(json.loads(text))["n_real"]}

    return stored_sweep("cracks", profile, named, ("arm", "n_real", "seed", *MEASURES), folder)


def of_arm(table: pd.DataFrame, arm: str, n_real: int = 0) -> pd.DataFrame:
    """Return the rows of one arm with so many real tiles (0: all), by seed."""
    return table[(table["arm"] == arm) & (table["n_real"] == n_real)].sort_values("seed")


def table_1(runs: pd.DataFrame, measure: str = "test_error", arms: Sequence[str] = ()) -> pd.DataFrame:
    """Return the error of every arm over its runs, beside the published one.

    Parameters
    ----------
    runs : pandas.DataFrame
        From `stored`, or rows of `cracks.run` with a column arm.
    measure : str
        A column of the runs, e.g. ``"test_error"``.
    arms : sequence of str
        Which arms, in this order; none means all. Only runs with all training tiles count.

    Returns
    -------
    pandas.DataFrame
        arm, n (runs), steps (median over runs), error (mean) with its 99 % t interval over runs (error_low, error_high;
        missing for a single run; confidence, over), sd, trials_low and trials_high (what the paper's way of making
        intervals gives: Agresti-Coull with `PUBLISHED_TRIALS`, no interval of a mean over runs), published.
    """
    rows = []
    for arm in arms or runs.loc[runs["n_real"] == 0, "arm"].unique():
        values = of_arm(runs, arm)[measure].dropna()
        if not len(values):
            continue
        row = {"arm": arm, "n": len(values), "steps": int(of_arm(runs, arm)["steps"].median())}
        trials = agresti_coull(values.mean() * PUBLISHED_TRIALS, PUBLISHED_TRIALS, LEVEL)
        row |= _over_runs(values) | {"trials_low": trials.low, "trials_high": trials.high}
        known = arm in ARMS and measure in MEASURES
        rows.append(row | {"published": table_1_cell(arm, measure).printed if known else ""})
    return pd.DataFrame(rows)


def _over_runs(values: pd.Series) -> dict:
    return mean_fields(values, "error", RUNS, LEVEL) | {"sd": values.std()}


def table_1_cell(arm: str, measure: str) -> Cell:
    """Return an error of Table 1 of the paper."""
    return cell("Trampert 2021", "Table 1", arm, f"error on {PRINTED[measure]}")


def published() -> pd.DataFrame:
    """Return Table 1 of the paper with two recomputed intervals: the printed ones, and those of a mean over runs.

    Returns
    -------
    pandas.DataFrame
        arm, measure, error, sd, printed_low, printed_high, trials_low, trials_high (Agresti-Coull, `PUBLISHED_TRIALS`),
        runs_low, runs_high (99 % normal interval of the mean over 200 runs, from the standard deviation).
    """
    rows = []
    for measure, arm in product(MEASURES, ARMS):
        _, _, _, _, mean, sd, low, high, *_ = table_1_cell(arm, measure)
        trials = agresti_coull(mean * PUBLISHED_TRIALS, PUBLISHED_TRIALS, LEVEL)
        half = 2.576 * sd / PUBLISHED_RUNS**0.5
        row = {"arm": arm, "measure": measure, "error": mean, "sd": sd, "printed_low": low, "printed_high": high}
        row |= {"trials_low": trials.low, "trials_high": trials.high, "runs_low": mean - half, "runs_high": mean + half}
        rows.append(row)
    return pd.DataFrame(rows)


def outside_the_test_set() -> float:
    """Return the error of the paper's synthetic model on the 446 tiles outside its 64 hand-picked test tiles."""
    every, test = (table_1_cell("synthetic", measure).value for measure in ("all_error", "test_error"))
    return (510 * every - 64 * test) / (510 - 64)


def compare(
    runs: pd.DataFrame, pairs: Sequence[tuple[str, str]], measure: str = "test_error", n_real: int = 0
) -> pd.DataFrame:
    """Return differences between arms on the same seeds: the paper's paired two-tailed t test over runs.

    Parameters
    ----------
    runs, measure
        As for `table_1`.
    pairs : sequence of (str, str)
        Arm and the arm it is compared with; those without two seeds in common are left out.
    n_real : int
        Real tiles of both.

    Returns
    -------
    pandas.DataFrame
        arm, against, n (pairs), difference (arm minus other, below 0 is a gain) with its 99 % t interval (confidence,
        over: runs), p, effect_dz, saved (share of the other's error, 0.25 for 25 % fewer errors) with its 99 %
        bootstrap interval over the same. Runs that test on the same specimens are no independent ones: see
        `compare_specimens`.
    """
    rows = []
    for arm, other in pairs:
        a, b = (of_arm(runs, name, n_real).set_index("seed")[measure].dropna() for name in (arm, other))
        seeds = a.index.intersection(b.index)
        if len(seeds) < 2:
            continue
        a, b = a[seeds].to_numpy(float), b[seeds].to_numpy(float)
        row = {"arm": arm, "against": other, **paired_fields(a, b, RUNS, LEVEL)}
        rows.append(row | _saved(a, b, "saved", LEVEL))
    columns = ["arm", "against", "n", "difference", "difference_low", "difference_high", "confidence", "over", "p"]
    return pd.DataFrame(rows, columns=[*columns, "effect_dz", "saved", "saved_low", "saved_high"])


def _saved(a: np.ndarray, b: np.ndarray, rng: str, level: float) -> dict:
    """Share of the errors of `b` that `a` saves, pairs drawn together."""

    def share(picked, axis=-1):
        picked = np.asarray(picked).astype(int)
        return 1 - a[picked].mean(axis) / np.maximum(b[picked].mean(axis), 1e-12)

    found = bootstrap_interval(np.arange(len(a)), share, rng=stream(0, "bootstrap", rng), level=level)
    return {"saved": found.estimate, "saved_low": found.low, "saved_high": found.high}


# Over specimens: what another specimen would show


def over_specimens(
    counts: pd.DataFrame,
    arms: Sequence[str] = (),
    *,
    matched: bool = False,
    without: Sequence[str] = (),
    every: bool = False,
) -> pd.DataFrame:
    """Return the error of every arm over all specimens, each tested on by runs that have not seen it.

    Parameters
    ----------
    counts : pandas.DataFrame
        From `stored`.
    arms : sequence of str
        Which arms, in this order; none means all. Only runs with all training tiles count.
    matched : bool
        Tiles paired by their oxide fraction alone.
    without : sequence of str
        Specimens left out, e.g. `LOOKED_AT`.
    every : bool
        Tiles of all specimens of a run, those it was trained on among them.

    Returns
    -------
    pandas.DataFrame
        arm, seeds, n (specimens), tiles (tested, over all runs), error (wrong tiles over tested ones), error_low and
        error_high (95 %, resampling specimens; missing for a single one; confidence, over), missed (share of the
        cracks), false_alarms (share of the tiles without; both of all tested tiles, matched or not).
    """
    tested = _tested(counts, matched, without, every)
    rows = []
    for arm in arms or tested.loc[tested["n_real"] == 0, "arm"].unique():
        part = of_arm(tested, arm)
        if part.empty:
            continue
        sums = part.groupby("name")[["wrong", "n", "missed", "false_alarms", "n_crack", "n_all"]].sum()
        found = _clustered(sums["wrong"], sums["n"], sums.index, "error")
        total = sums.sum()
        rows.append(
            {
                "arm": arm,
                "seeds": part["seed"].nunique(),
                "n": len(sums),
                "tiles": int(total["n"]),
                **found,
                "missed": total["missed"] / total["n_crack"],
                "false_alarms": total["false_alarms"] / (total["n_all"] - total["n_crack"]),
            }
        )
    return pd.DataFrame(rows)


def compare_specimens(
    counts: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    *,
    matched: bool = False,
    without: Sequence[str] = (),
    n_real: int = 0,
    every: bool = False,
) -> pd.DataFrame:
    """Return differences in error between arms on the same seeds, with intervals from resampling specimens.

    Parameters
    ----------
    counts, matched, without, every
        As for `over_specimens`.
    pairs : sequence of (str, str)
        Arm and the arm it is compared with; those without a seed in common are left out.
    n_real : int
        Real tiles of both.

    Returns
    -------
    pandas.DataFrame
        arm, against, seeds, n (specimens), difference (arm minus other, below 0 is a gain), difference_low and
        difference_high (95 %: confidence, over), saved (share of the other's errors) with saved_low and saved_high (the
        same), better: the whole interval of the difference lies below 0.
    """
    tested = _tested(counts, matched, without, every)
    rows = []
    for arm, other in pairs:
        a, b = (of_arm(tested, name, n_real).set_index(["seed", "name"]) for name in (arm, other))
        shared = a.index.intersection(b.index)
        if shared.empty:
            continue
        each = pd.DataFrame({"ours": a.loc[shared, "wrong"], "theirs": b.loc[shared, "wrong"], "n": a.loc[shared, "n"]})
        sums = each.groupby("name").sum()
        found = _clustered(sums["ours"] - sums["theirs"], sums["n"], sums.index, "difference")
        if len(sums) > 1:
            found |= _saved(sums["ours"].to_numpy(), sums["theirs"].to_numpy(), SPECIMENS, found["confidence"])
        row = {"arm": arm, "against": other, "seeds": shared.get_level_values("seed").nunique(), "n": len(sums)}
        rows.append({**row, **found, "better": found["difference_high"] < 0})
    columns = ["arm", "against", "seeds", "n", "difference", "difference_low", "difference_high", "confidence", "over"]
    return pd.DataFrame(rows, columns=[*columns, "saved", "saved_low", "saved_high", "better"])


def _tested(counts: pd.DataFrame, matched: bool, without: Sequence[str], every: bool) -> pd.DataFrame:
    if counts.empty:
        return counts
    asked = (counts["split"] == "test") | every
    tested = counts[asked & ~counts["name"].isin(without)].assign(n_all=lambda table: table["n"])
    if not matched:
        return tested
    tested = tested.assign(n=tested["n_matched"], wrong=tested["wrong_matched"])
    return tested[tested.groupby("name")["n"].transform("sum") > 0]


def _clustered(wrong: pd.Series, n: pd.Series, names, column: str) -> dict:
    row = {column: wrong.sum() / n.sum(), "over": SPECIMENS}
    if len(n) < 2:
        return row | dict.fromkeys((f"{column}_low", f"{column}_high", "confidence"), np.nan)
    found = cluster_bootstrap(
        wrong.to_numpy(float),
        np.asarray(names),
        rng=stream(0, "bootstrap", "specimens"),
        denominators=n.to_numpy(float),
    )
    return row | {f"{column}_low": found.low, f"{column}_high": found.high, "confidence": found.level}


def specimen_table(counts: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """Return the error of each arm on each specimen when it was tested on.

    Returns
    -------
    pandas.DataFrame
        specimen, tiles, looked_at, runs (of an arm, at most), and for each arm its error over all runs with <arm>_low
        and <arm>_high, the lowest and the highest of a run.
    """
    tested = _tested(counts, matched=False, without=(), every=False)
    table = tested.groupby("name")["n"].max().to_frame("tiles")
    table["looked_at"] = table.index.isin(LOOKED_AT)
    table["runs"] = tested[tested["arm"].isin(arms) & (tested["n_real"] == 0)].groupby("name")["seed"].nunique()
    for arm in arms:
        part = of_arm(tested, arm)
        runs = part.assign(error=part["wrong"] / part["n"]).groupby("name")
        table[arm] = runs["wrong"].sum() / runs["n"].sum()
        table[f"{arm}_low"], table[f"{arm}_high"] = runs["error"].min(), runs["error"].max()
    return table.rename_axis("specimen").reset_index()


# Label budgets


def budget_curve(runs: pd.DataFrame, mixed: str = "mixed") -> pd.DataFrame:
    """Return the error over the number of real tiles, with and without synthetic pre-training, steps being equal.

    The generator itself has learned from all tiles of the training specimens, whatever the budget of the classifier.

    Parameters
    ----------
    runs : pandas.DataFrame
        As for `table_1`.
    mixed : str
        The arm with pre-training, "mixed" or "mixed covering".

    Returns
    -------
    pandas.DataFrame
        arm (`mixed` or "real long"), n_real (all: the mean number of training tiles), n (runs), error, error_low,
        error_high (99 %, t over runs: confidence, over), sd.
    """
    rows = []
    for arm in (mixed, "real long"):
        budgets = sorted(runs.loc[runs["arm"] == arm, "n_real"].unique(), key=lambda n: n or np.inf)
        for n_real in budgets:
            part = of_arm(runs, arm, n_real)
            n = n_real or round(part["n_training"].mean())
            rows.append({"arm": arm, "n_real": n, "n": len(part), **_over_runs(part["test_error"])})
    columns = ["arm", "n_real", "n", "error", "error_low", "error_high", "confidence", "over", "sd"]
    return pd.DataFrame(rows, columns=columns)


def budget_gains(runs: pd.DataFrame, counts: pd.DataFrame, mixed: str = "mixed") -> pd.DataFrame:
    """Return, for every budget, what pre-training changes: `compare` over runs beside `compare_specimens`."""
    rows = []
    for n_real in sorted(runs["n_real"].unique(), key=lambda n: n or np.inf):
        pairs = [(mixed, "real long")]
        over_runs, specimens = (
            compare(runs, pairs, n_real=n_real),
            compare_specimens(counts, pairs, n_real=n_real),
        )
        if len(over_runs):
            names = {"difference_low": "specimens_low", "difference_high": "specimens_high", "n": "specimens"}
            extra = specimens.rename(columns=names)[["specimens_low", "specimens_high", "specimens"]]
            rows.append(pd.concat([over_runs, extra], axis=1).assign(n_real=n_real or "all"))
    return pd.concat(rows, ignore_index=True) if rows else compare(runs, [])


def worth(runs: pd.DataFrame, mixed: str = "mixed", n_boot: int = 2000) -> pd.DataFrame:
    """Return how many real tiles training on real ones alone needs to get as far as the pre-trained network.

    See `micro_lib.analysis.stats.label_equivalent`, of the error of "real long" over the number of tiles.

    Parameters
    ----------
    runs : pandas.DataFrame
        From `stored`; the seeds that have every budget of both arms count.
    mixed : str
        The arm with pre-training.
    n_boot : int
        Resamples of the seeds.

    Returns
    -------
    pandas.DataFrame
        n_real (0: synthetic tiles alone), error (of `mixed`), needed (real tiles alone for the same error) with
        needed_low and needed_high (95 %, resampling seeds), n (seeds), at_least: the number or its upper end is that of
        all tiles, so more may be needed.
        Empty with fewer than two seeds or budgets.
    """
    before = _grid(runs, mixed.replace("mixed", "synthetic")).join(_grid(runs, mixed), how="inner")
    real = _grid(runs, "real long")
    seeds, budgets = before.index.intersection(real.index), real.columns
    columns = ["n_real", "error", "needed", "needed_low", "needed_high", "n", "at_least"]
    if len(seeds) < 2 or len(budgets) < 2:
        return pd.DataFrame(columns=columns)
    errors, alone = before.loc[seeds].to_numpy(), real.loc[seeds].to_numpy()  # (seeds, budgets)
    rng = stream(0, "bootstrap", "worth")
    needed, low, high = bootstrap_label_equivalent(-errors, -alone, budgets, rng=rng, n_boot=n_boot)
    table = pd.DataFrame({"n_real": before.columns, "error": errors.mean(0), "needed": needed})
    table = table.assign(needed_low=low, needed_high=high, n=len(seeds))
    return table.assign(at_least=table["needed_high"] > 0.999 * max(budgets))[columns]


def _grid(runs: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Test error by seed and number of real tiles, complete seeds alone."""
    part = runs[runs["arm"] == arm]
    mean_all = part.loc[part["n_real"] == 0, "n_training"].mean()
    tiles = part["n_real"].where(part["n_real"] > 0, mean_all)
    return part.assign(tiles=tiles).pivot(index="seed", columns="tiles", values="test_error").dropna()


# Shortcuts


def shortcut(tiles: pd.DataFrame) -> dict:
    """Return how far mean grey and oxide fraction alone get.

    Parameters
    ----------
    tiles : pandas.DataFrame
        From `cracks.score_shortcut`.

    Returns
    -------
    dict
        n (specimens), tiles, auc (of all tiles together), auc_folds (mean over folds), error with error_low and
        error_high (95 %, resampling specimens), error_matched (tiles paired by oxide fraction), tiles_matched.
    """
    counts = cracks.by_specimen(tiles)
    matched = counts[counts["n_matched"] > 0]
    aucs = [roc_auc_score(part["label"], part["probability"]) for _, part in tiles.groupby("fold")]
    return {
        "n": len(counts),
        "tiles": len(tiles),
        "auc": float(roc_auc_score(tiles["label"], tiles["probability"])),
        "auc_folds": float(np.mean(aucs)),
        **_clustered(counts["wrong"], counts["n"], counts["name"], "error"),
        "error_matched": matched["wrong_matched"].sum() / max(matched["n_matched"].sum(), 1),
        "tiles_matched": int(matched["n_matched"].sum()),
    }


def wrong_tiles(tiles: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return the test tiles that a run is most certainly wrong about: the `n` surest misses, then false alarms.

    Parameters
    ----------
    tiles : pandas.DataFrame
        From `cracks.score`.
    n : int
        Of either kind, fewer where there are fewer.
    """
    wrong = tiles[(tiles["role"] == "test") & (tiles["label"] != tiles["called"])]
    missed = wrong[wrong["label"] == 1].sort_values("probability").head(n)
    alarms = wrong[wrong["label"] == 0].sort_values("probability", ascending=False).head(n)
    return pd.concat([missed, alarms], ignore_index=True)
