"""Tables and figures of adaptive sampling: Table 2 of Trampert et al. 2021 beside ours, and where a model fails."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from micro_lib.application.published import Cell, cell
from micro_lib.application.tables import mean_fields, paired_fields, stored_sweep
from micro_lib.reports import grain_report
from micro_lib.training import adaptive
from micro_lib.training.proposals import encoder

ARMS = ("random", "adaptive")  # of Table 2
SIGNS = {"error": -1, "miou": 1}  # 1 if more is better
SPLITS = ("synthetic", "development", "test", "iron")
BINS = 5  # of a parameter with more values than this
RUNS = "runs"
PRINTED = {"error": "pixel error", "miou": "mean IoU"}


def arm_of(configuration: str) -> str:
    """Return the name of the arm that a stored configuration (JSON) belongs to; one without a name is written out."""
    values = json.loads(configuration)
    trained = _trained(values)
    for name in adaptive.CONFIGURATIONS:
        if _trained(name) == trained:
            return name
    return ", ".join(f"{key} {value}" for key, value in values.items() if key not in ("data", "score_test"))


def _trained(configuration: str | Mapping) -> dict:
    """What of a configuration decides its training."""
    return {**adaptive.complete(configuration), "data": "", "score_test": False}


def stored(profile: str, folder: str | Path = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the stored runs of one profile and the scores of their images, both with a column arm; empty without.

    Where an arm was scored with and without the test groups, the row with them counts.

    Parameters
    ----------
    profile : str
        Usually ``"study"``.
    folder : str or pathlib.Path
        As for `micro_lib.application.tables.stored_sweep`.

    Returns
    -------
    pandas.DataFrame, pandas.DataFrame
        Runs, one row an arm and seed; images, one row an arm, seed, split and name.
    """
    runs, images = stored_sweep("adaptive", profile, lambda text: {"arm": arm_of(text)}, ("arm", "seed"), folder)
    if not len(runs):
        return runs, images
    kept = runs.sort_values("score_test", kind="stable").drop_duplicates(["arm", "seed"], keep="last").sort_index()
    return kept.reset_index(drop=True), images.merge(kept[["configuration", "seed"]], on=["configuration", "seed"])


def _arms(runs: pd.DataFrame, arms: Sequence[str]) -> list[str]:
    """The arms that are there, in the order asked for or else in that of the configurations."""
    return [
        arm for arm in arms or dict.fromkeys([*adaptive.CONFIGURATIONS, *runs["arm"]]) if (runs["arm"] == arm).any()
    ]


def table_2(runs: pd.DataFrame, split: str, arms: Sequence[str] = ()) -> pd.DataFrame:
    """Return error and mean IoU of every arm over its runs, beside the published ones.

    Parameters
    ----------
    runs : pandas.DataFrame
        One row an arm and seed, with <split>_error and <split>_miou.
    split : str
        One of `SPLITS`.
    arms : sequence of str
        Which arms, in this order; none means all.

    Returns
    -------
    pandas.DataFrame
        One row an arm: arm, n (runs), steps, and for error and miou the mean over runs, its 95 % t interval
        (<score>_low, <score>_high, confidence, over; missing for a single run), the standard deviation <score>_sd and
        what the paper has, published_<score>.
    """
    rows = []
    for arm in _arms(runs, arms):
        part = runs[(runs["arm"] == arm) & runs.get(f"{split}_miou", pd.Series(np.nan, runs.index)).notna()]
        if part.empty:
            continue
        row = {"arm": arm, "n": len(part), "steps": int(part["steps"].iloc[0])}
        for score in SIGNS:
            values = part[f"{split}_{score}"]
            row |= mean_fields(values, score, RUNS) | {f"{score}_sd": values.std()}
            row[f"published_{score}"] = table_2_cell(arm, score).printed if arm in ARMS else ""
        rows.append(row)
    return pd.DataFrame(rows)


def table_2_cell(arm: str, score: str) -> Cell:
    """Return a number of Table 2 of the paper, a mean over 50 runs; the interval printed there is another."""
    return cell("Trampert 2021", "Table 2", arm, PRINTED[score])


def compare(runs: pd.DataFrame, images: pd.DataFrame, split: str, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return differences between arms on the same seeds: the paired t test over runs, the bootstrap over groups.

    Parameters
    ----------
    runs, images : pandas.DataFrame
        As from `stored`.
    split : str
        One of `SPLITS`.
    pairs : sequence of (str, str)
        Arm and the arm it is compared with; those without two seeds in common are left out.

    Returns
    -------
    pandas.DataFrame
        arm, against, score, difference (arm minus other), difference_low and difference_high
        (95 %, t over runs: confidence, over), sd (of
        the differences), p (two-tailed), effect_dz, n (pairs); groups_low, groups_high (95 %, resampling overlap
        groups, seeds averaged first) and groups, missing for synthetic images and for a single group; better: every
        interval that is there lies on the good side of zero.
    """
    rows = []
    for arm, other in pairs:
        paired = runs[runs["arm"] == arm].merge(runs[runs["arm"] == other], on="seed", suffixes=("", "_other"))
        columns = [f"{split}_{score}" for score in SIGNS]
        paired = paired.dropna(subset=columns) if set(columns) <= set(paired) else paired[:0]
        if len(paired) < 2:
            continue
        groups = _over_groups(images[images["seed"].isin(paired["seed"])], split, arm, other)
        for score, sign in SIGNS.items():
            ours, theirs = paired[f"{split}_{score}"], paired[f"{split}_{score}_other"]
            row = {"arm": arm, "against": other, "score": score, **paired_fields(ours, theirs, RUNS)}
            row |= {"sd": np.std(ours - theirs, ddof=1), **groups[score]}
            ends = [row[end] for end in _ENDS if not np.isnan(row[end])]
            rows.append({**row, "better": all(sign * end > 0 for end in ends)})
    columns = ["arm", "against", "score", "difference", "difference_low", "difference_high", "confidence", "sd", "p"]
    columns += ["effect_dz", "n", "over", "groups_low", "groups_high", "groups", "better"]
    return pd.DataFrame(rows, columns=columns)


_ENDS = ("difference_low", "difference_high", "groups_low", "groups_high")


def worst_tenth(runs: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return differences in mean IoU on the worst tenth of the synthetic test images: what choosing failures is for.

    Parameters
    ----------
    runs, pairs
        As for `compare`; each run's worst are its own.

    Returns
    -------
    pandas.DataFrame
        arm, against, n (pairs), difference (arm minus other) with difference_low and difference_high (95 %, t over
        runs: confidence, over), p, effect_dz.
    """
    by_seed = runs.pivot_table("synthetic_worst_miou", "seed", "arm") if len(runs) else pd.DataFrame()
    rows = []
    for arm, other in pairs:
        both = by_seed.reindex(columns=[arm, other]).dropna()
        if len(both) > 1:
            rows.append({"arm": arm, "against": other, **paired_fields(both[arm], both[other], RUNS)})
    columns = ["arm", "against", "n", "difference", "difference_low", "difference_high", "confidence", "over", "p"]
    return pd.DataFrame(rows, columns=[*columns, "effect_dz"])


def _over_groups(images: pd.DataFrame, split: str, arm: str, other: str) -> dict[str, dict]:
    """Interval of the difference from resampling groups, for each score."""
    nothing = {"groups_low": np.nan, "groups_high": np.nan, "groups": 0}
    part = images[images["split"] == split] if "split" in images else images[:0]
    if part.empty or part["group"].nunique() < 2:
        return dict.fromkeys(SIGNS, nothing)
    found = grain_report.compare(part, split, arm, [other]).set_index("score")
    values = found.rename(columns={"difference_low": "groups_low", "difference_high": "groups_high", "n": "groups"})[
        list(nothing)
    ]
    return values.loc[list(SIGNS)].to_dict("index")


# Where a model fails


def marginals(table: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the mean score along every parameter that varies, in `BINS` bins of equally many micrographs.

    Texts, and numbers with fewer values, have one bin a value.

    Parameters
    ----------
    table : pandas.DataFrame
        The micrographs' parameters.
    scores : pandas.DataFrame
        Their miou, row by row.

    Returns
    -------
    pandas.DataFrame
        parameter, bin (its median or value, as text), at (the median, missing for texts), miou with miou_low and
        miou_high (t over micrographs: confidence, over), n, and spread: the share of the variance of miou between the
        bins of this parameter, beyond what bins drawn at random would have (0 to 1); parameters in the order of their
        spread.
    """
    rows, values = [], scores["miou"].to_numpy(float)
    for name in table.columns.drop("seed", errors="ignore"):
        if table[name].nunique() < 2:
            continue
        parts = bins(table[name])
        spread = _explained(values, parts)
        for label in sorted(set(parts)):
            inside = values[parts == label]
            at = float(table[name][parts == label].median()) if is_number(table[name]) else np.nan
            text = f"{at:.3g}" if is_number(table[name]) else str(table[name][parts == label].iloc[0])
            found = mean_fields(inside, "miou", "micrographs")
            rows.append({"parameter": name, "bin": text, "at": at, **found, "n": len(inside), "spread": spread})
    return pd.DataFrame(rows).sort_values("spread", ascending=False, kind="stable").reset_index(drop=True)


def is_number(column: pd.Series) -> bool:
    """Return whether a parameter is a number, no text and no switch."""
    return pd.api.types.is_numeric_dtype(column) and column.dtype != bool


def bins(column: pd.Series) -> np.ndarray:
    """Return the number of every row's bin, (N,) int: as `marginals` has them."""
    if not is_number(column) or column.nunique() <= BINS:
        return pd.factorize(column, sort=True)[0]
    return pd.qcut(column, BINS, labels=False, duplicates="drop").to_numpy()


def _explained(values: np.ndarray, parts: np.ndarray) -> float:
    """Adjusted R squared of the bins' means."""
    means = pd.Series(values).groupby(parts).transform("mean").to_numpy()
    total, within = ((values - values.mean()) ** 2).sum(), ((values - means) ** 2).sum()
    freedom = len(values) - len(set(parts))
    if total == 0 or freedom < 1:
        return 0.0
    return float(max(0.0, 1 - within / freedom / (total / (len(values) - 1))))


def compare_proposals(table: pd.DataFrame, scores: pd.DataFrame, proposals: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return how each strategy's proposals differ from the space: how far each parameter that matters has moved.

    Parameters
    ----------
    table, scores
        As for `marginals`.
    proposals : mapping of str to pandas.DataFrame
        Rows each strategy proposes.

    Returns
    -------
    pandas.DataFrame
        One row a strategy: rows, distinct (nearest-neighbour distance between its rows, standardised parameters,
        relative to that of the same number of rows of the table), and the median of the four numbers that matter most,
        in standard deviations of the table away from the table's.
    """
    numbers = [n for n in marginals(table, scores)["parameter"].drop_duplicates() if is_number(table[n])][:4]
    features = encoder(table)
    mean, scale = features(table).mean(0), features(table).std(0) + 1e-12
    rows = []
    for name, proposal in proposals.items():
        row = {"strategy": name, "rows": len(proposal)}
        some = min(len(proposal), len(table))
        near = [_nearest((features(t)[:some] - mean) / scale) for t in (proposal, table)]
        row["distinct"] = near[0] / near[1]
        shift = {n: (proposal[n].median() - table[n].median()) / table[n].std() for n in numbers}
        rows.append({**row, **shift})
    return pd.DataFrame(rows)


def _nearest(points: np.ndarray) -> float:
    """Mean distance to the nearest other point."""
    squares = (points**2).sum(1)
    distances = squares[:, None] + squares - 2 * points @ points.T  # (N, N)
    np.fill_diagonal(distances, np.inf)
    return float(np.sqrt(distances.min(1).clip(0)).mean())
