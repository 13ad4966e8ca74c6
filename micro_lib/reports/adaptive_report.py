"""Tables and figures of adaptive sampling: Table 2 of Trampert et al. 2021 beside ours, and where a model fails."""

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from micro_lib.analysis.stats import paired_t
from micro_lib.application.plots import Panel, credit, errorbar
from micro_lib.application.published import Cell, answering, cell, judged_gain, judged_level, ours_of
from micro_lib.application.tables import NOT_RUN, claim_rows, mean_fields, stored_sweep
from micro_lib.reports import grain_report
from micro_lib.synthesis.grains import render
from micro_lib.training import adaptive
from micro_lib.training.proposals import encoder

_ARMS = ("random", "adaptive")  # of Table 2
SIGNS = {"error": -1, "miou": 1}  # 1 if more is better
SPLITS = ("synthetic", "development", "test", "iron")
LEAST = 5  # micrographs a mean is drawn of
BINS = 5  # of a parameter with more values than this
RUNS = "runs"
_PRINTED = {"error": "pixel error", "miou": "mean IoU"}
_SHORT = {"error": "error", "miou": "IoU"}


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
            row[f"published_{score}"] = table_2_cell(arm, score).printed if arm in _ARMS else ""
        rows.append(row)
    return pd.DataFrame(rows)


def table_2_cell(arm: str, score: str) -> Cell:
    """Return a number of Table 2 of the paper, a mean over 50 runs; the interval printed there is another."""
    return cell("Trampert 2021", "Table 2", arm, _PRINTED[score])


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
        arm, against, score, difference (arm minus other), low and high (95 %, t over runs: confidence, over), sd (of
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
            test = paired_t(paired[f"{split}_{score}"], paired[f"{split}_{score}_other"])
            row = {"arm": arm, "against": other, "score": score, "difference": test.difference.estimate}
            row |= {"low": test.difference.low, "high": test.difference.high, "confidence": test.difference.level}
            row["sd"] = np.std(paired[f"{split}_{score}"] - paired[f"{split}_{score}_other"], ddof=1)
            row |= {"p": test.p, "effect_dz": test.effect_dz, "n": test.n, "over": RUNS, **groups[score]}
            ends = [row[end] for end in ("low", "high", "groups_low", "groups_high") if not np.isnan(row[end])]
            rows.append({**row, "better": all(sign * end > 0 for end in ends)})
    columns = [
        "arm",
        "against",
        "score",
        "difference",
        "low",
        "high",
        "confidence",
        "sd",
        "p",
        "effect_dz",
        "n",
        "over",
    ]
    return pd.DataFrame(rows, columns=[*columns, "groups_low", "groups_high", "groups", "better"])


def _over_groups(images: pd.DataFrame, split: str, arm: str, other: str) -> dict[str, dict]:
    """Interval of the difference from resampling groups, for each score."""
    nothing = {"groups_low": np.nan, "groups_high": np.nan, "groups": 0}
    part = images[images["split"] == split] if "split" in images else images[:0]
    if part.empty or part["group"].nunique() < 2:
        return dict.fromkeys(SIGNS, nothing)
    found = grain_report.compare(part, split, arm, [other]).set_index("score")
    values = found.rename(columns={"low": "groups_low", "high": "groups_high", "n": "groups"})[list(nothing)]
    return values.loc[list(SIGNS)].to_dict("index")


def claims(runs: pd.DataFrame, images: pd.DataFrame, *, profile: str) -> pd.DataFrame:
    """Judge Table 2 of Trampert et al. 2021: the levels of both arms, and that adaptive is better than random.

    A level is reproduced if it lies within a narrow run-level interval of ours. The gain is reproduced if that interval
    holds the published gain and both intervals, over runs and over groups, exclude zero; its direction if only the
    latter.

    Parameters
    ----------
    runs, images : pandas.DataFrame
        As from `stored`, scored on the split "test"; fewer than two seeds and generated stand-ins judge nothing.
    profile : str
        Profile they come from.

    Returns
    -------
    pandas.DataFrame
        Rows of the claims table.
    """
    real = runs[~runs.get("test_generated", pd.Series(True, runs.index)).astype("boolean").fillna(True).astype(bool)]
    table, difference = table_2(real, "test"), compare(real, images, "test", [("adaptive", "random")])
    rows = []
    for arm, score in product(_ARMS, SIGNS):
        claim = {"claim": f"{_PRINTED[score]} after {arm} fine-tuning, 1,000 new images"}
        rows.append({**answering(table_2_cell(arm, score)), **claim, **_level(table, images, arm, score)})
    for score in SIGNS:
        gained, chance = (_gain_cell(name) for name in (f"{_PRINTED[score]} gained", f"p, {_SHORT[score]}"))
        claim = {"claim": f"{_PRINTED[score]}: adaptive minus random fine-tuning"}
        rows.append({**claim, **answering(gained), **_gain(difference, score, gained.number)})
        claim = {"claim": f"p of adaptive against random fine-tuning over runs: {_PRINTED[score]}"}
        rows.append({**claim, **answering(chance), **_chance(difference, score)})
    judged = real if len(table) else real[:0]
    return claim_rows(rows, profile=profile, notebook="06_adaptive_sampling", runs=judged)


_TOO_FEW = {"verdict": NOT_RUN, "why": "needs two trainings an arm or more, scored on the real test groups"}


def _level(table: pd.DataFrame, images: pd.DataFrame, arm: str, score: str) -> dict:
    row = table[table["arm"] == arm] if len(table) else table
    if row.empty or row["n"].item() < 2:
        return _TOO_FEW
    why = "other material: the paper's 12 images could not be had"
    groups = grain_report.summarise(images, "test", [arm])
    if len(groups) and not np.isnan(groups["confidence"].item()):
        low, high = groups[f"{score}_low"].item(), groups[f"{score}_high"].item()
        why += f"; over {groups['groups'].item()} overlap groups [{low:.4f}, {high:.4f}]"
    return judged_level(ours_of(row.iloc[0], score), table_2_cell(arm, score).value, why)


def _gain_cell(quantity: str) -> Cell:
    return cell("Trampert 2021", "section 3.3", "adaptive against random", quantity)


def _chance(difference: pd.DataFrame, score: str) -> dict:
    """Direction reproduced: adaptive is better, significantly at 0.05; the p itself goes with n."""
    row = difference[difference["score"] == score]
    if row.empty:
        return _TOO_FEW
    row = row.iloc[0]
    won = SIGNS[score] * row["difference"] > 0 and row["p"] < 0.05
    why = f"paired two-tailed t over {int(row['n'])} seeds; adaptive minus random {row['difference']:+.4f}"
    found = {"kind": "effect", "ours": row["p"], "n": int(row["n"]), "over": row["over"], "why": why}
    return {**found, "verdict": "direction reproduced" if won else "not reproduced"}


def _gain(difference: pd.DataFrame, score: str, published: float) -> dict:
    row = difference[difference["score"] == score]
    if row.empty:
        return _TOO_FEW
    row = row.iloc[0]
    why = f"paired over runs: p = {row['p']:.2g}, d_z = {row['effect_dz']:.2f}"
    why += f"; over {row['groups']} overlap groups [{row['groups_low']:.4f}, {row['groups_high']:.4f}]"
    ours = ours_of(row.rename({"low": "difference_low", "high": "difference_high"}), "difference")
    return judged_gain(ours, published, why, won=row["better"])


# -------------------------------------------------------------------------------------------- where a model fails


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
        parameter, bin (its median or value, as text), at (the median, missing for texts), miou, low and high (t over
        micrographs: confidence, over), n, and spread: the share of the variance of miou between the bins of this
        parameter, beyond what bins drawn at random would have (0 to 1); parameters in the order of their spread.
    """
    rows, values = [], scores["miou"].to_numpy(float)
    for name in table.columns.drop("seed", errors="ignore"):
        if table[name].nunique() < 2:
            continue
        parts = _bins(table[name])
        spread = _explained(values, parts)
        for label in sorted(set(parts)):
            inside = values[parts == label]
            at = float(table[name][parts == label].median()) if _is_number(table[name]) else np.nan
            text = f"{at:.3g}" if _is_number(table[name]) else str(table[name][parts == label].iloc[0])
            found = mean_fields(inside, "miou", "micrographs")
            found = {name.removeprefix("miou_"): value for name, value in found.items()}
            rows.append({"parameter": name, "bin": text, "at": at, **found, "n": len(inside), "spread": spread})
    return pd.DataFrame(rows).sort_values("spread", ascending=False, kind="stable").reset_index(drop=True)


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and column.dtype != bool


def _bins(column: pd.Series) -> np.ndarray:
    """Number of the bin of every row, (N,)."""
    if not _is_number(column) or column.nunique() <= BINS:
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


def draw_marginals(table: pd.DataFrame, scores: pd.DataFrame, count: int = 8) -> Figure:
    """Draw the mean IoU along the parameters that matter most, with 95 % intervals.

    Parameters
    ----------
    table, scores
        As for `marginals`.
    count : int
        How many parameters.
    """
    found = marginals(table, scores)
    names = found["parameter"].drop_duplicates()[:count]
    columns = min(4, len(names))
    size = (2.4 * columns, 2.1 * -(-len(names) // columns))
    fig, axes = plt.subplots(
        -(-len(names) // columns), columns, figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, names, strict=False):
        part = found[found["parameter"] == name]
        at = part["at"] if part["at"].notna().all() else np.arange(len(part))
        errorbar(ax, part, at, "miou", ("low", "high"), fmt="o-")
        if part["at"].isna().any():
            ax.set_xticks(at, part["bin"].str.replace("_", "\n"))
            ax.margins(x=0.25)
        ax.set_xlabel(f"{name} ({part['spread'].iloc[0]:.0%})")
        ax.axhline(scores["miou"].mean(), color="0.6", linewidth=1, zorder=0)
    for ax in axes[:, 0]:
        ax.set_ylabel("mean IoU")
    per_bin = f"{found['n'].min()} to {found['n'].max()} micrographs a point"
    credit(fig, f"95 % intervals, {per_bin}; in brackets: share of the variance of the scores; line: mean of all")
    return fig


def draw_pair(ax: Axes, table: pd.DataFrame, scores: pd.DataFrame, pair: tuple[str, str]) -> None:
    """Draw the mean IoU over bins of two parameters, with how many micrographs each is from, `LEAST` or more.

    The colours of all pairs run from the 5th to the 95th percentile of the scores.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    table, scores
        As for `marginals`.
    pair : (str, str)
        Along x and along y.
    """
    x, y = (_bins(table[name]) for name in pair)
    grid = pd.DataFrame({"x": x, "y": y, "miou": scores["miou"].to_numpy()})
    mean, count = (grid.pivot_table(index="y", columns="x", values="miou", aggfunc=f) for f in ("mean", "count"))
    low, high = scores["miou"].quantile([0.05, 0.95])
    image = ax.imshow(mean.where(count >= LEAST), origin="lower", aspect="auto", cmap="cividis", vmin=low, vmax=high)
    middle = (low + high) / 2
    for (row, column), n in np.ndenumerate(count.to_numpy()):
        if n >= LEAST:
            value = mean.iloc[row, column]
            colour = "white" if value < middle else "black"
            ax.text(column, row, f"{value:.2f}\n{n:.0f}", ha="center", va="center", fontsize=6, color=colour)
    for axis, name, labels in ((ax.xaxis, pair[0], mean.columns), (ax.yaxis, pair[1], mean.index)):
        parts = x if name == pair[0] else y
        texts = [_label(table[name][parts == label]) for label in labels]
        axis.set_ticks(range(len(labels)), texts)
        axis.set_label_text(name)
    ax.figure.colorbar(image, ax=ax, label="mean IoU")


def _label(values: pd.Series) -> str:
    return f"{values.median():.3g}" if _is_number(values) else str(values.iloc[0]).replace("_", "\n")


def worst_panels(table: pd.DataFrame, scores: pd.DataFrame, count: int = 6) -> list[Panel]:
    """Return pictures of the worst micrographs, worst first, with their masks and scores, for `plots.sheet`.

    Parameters
    ----------
    table, scores
        As for `marginals`; rows of a grain scenario.
    count : int
        How many.
    """
    order = np.argsort(scores["miou"].to_numpy(), kind="stable")[:count]
    micrographs = [(render(table.iloc[i].to_dict()), scores["miou"].iloc[i]) for i in order]
    return [Panel(m.image, mask, f"IoU {miou:.2f}") for m, miou in micrographs for mask in (None, m.mask)]


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
    numbers = [n for n in marginals(table, scores)["parameter"].drop_duplicates() if _is_number(table[n])][:4]
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
