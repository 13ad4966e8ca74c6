"""Tables of the joint experiment: what sampled pairs bring a U-Net, how good they are, how many labels they replace."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from micro_lib.analysis.metrics import mean_iou, present_class_miou, stacked
from micro_lib.analysis.stats import attainable, bootstrap_label_equivalent, cluster_bootstrap
from micro_lib.application.tables import (
    mean_fields,
    paired_fields,
    stored_rows,
    stored_sweep,
    tables_dir,
)
from micro_lib.core.runs import merge_rows, provenance, read_json
from micro_lib.core.seeds import stream
from micro_lib.training import joint
from micro_lib.training.generative import COLLAPSED
from micro_lib.training.pair_quality import QUANTITIES, SETS

MEASURES = ("miou_pooled", "miou_per_image", "present_class_miou_pooled", "present_class_miou_per_image")
REAL, PACK, GENERATORS = "real", "nasa_superalloy", "generators"
NAMES = ["pack", "k", "arm"]
JUDGED = ("fraction", "intercept")  # quantities whose means sampled pairs have to come near: phases and their sizes
FIT = 0.9  # share of the agreement on unseen real windows that sampled masks have to reach
NEAR = 0.1  # how far a mean of sampled pairs over that of real windows may be from 1
KEPT = 0.5  # IoU of a class with what comes back from its codes, below which it is called lost


def arm_of(configuration: str | Mapping) -> str:
    """Return the name of the arm that a stored configuration (JSON) belongs to; pack and k are no part of it."""
    full = joint.complete(json.loads(configuration) if isinstance(configuration, str) else configuration)
    return f"{full['recipe']} x{full['ratio']:g}" if full["ratio"] else REAL


def stored(profile: str, folder: str | Path = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the stored runs of one profile and the scores of their micrographs; empty where there are none.

    Parameters
    ----------
    profile : str
        Usually ``"study"``.
    folder : str or pathlib.Path
        As for `micro_lib.application.tables.stored_sweep`.

    Returns
    -------
    pandas.DataFrame, pandas.DataFrame
        Runs, as `joint.run` returns them, and micrographs, as `joint.score`, both with pack, k (0: all) and arm.
    """

    def named(text: str) -> dict:
        full = joint.complete(json.loads(text))
        return {"pack": full["pack"], "k": full["k"], "arm": arm_of(full)}

    return stored_sweep("joint", profile, named, ("seed", *NAMES), folder)


def scores(runs: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Return both mean IoUs in both averagings for every arm.

    Parameters
    ----------
    runs : pandas.DataFrame
        From `stored`, or rows of `joint.run` with pack, k, arm and seed.
    split : str
        ``"test"``, or ``"other"`` for other alloys or domains.

    Returns
    -------
    pandas.DataFrame
        pack, k, micrographs (median), arm, pairs (median), n (runs), generators, and each of `MEASURES`: the mean over
        generators, each the mean of its U-Nets; of the first also miou_pooled_low and miou_pooled_high, a 95 % t
        interval over generators (confidence, over), each with its own fold and micrographs; missing for a single one.
    """
    rows = []
    for names, part in runs.groupby(NAMES, sort=False):
        row = dict(zip(NAMES, names, strict=True)) | {"micrographs": int(part["n_micrographs"].median())}
        row |= {"pairs": int(part["n_pairs"].median()), "n": len(part), "generators": part["generator"].nunique()}
        each = part.groupby("generator")[[f"{split}_{measure}" for measure in MEASURES]].mean()
        row |= {measure: float(each[f"{split}_{measure}"].mean()) for measure in MEASURES}
        rows.append(row | mean_fields(each[f"{split}_miou_pooled"], "miou_pooled", GENERATORS))
    return pd.DataFrame(rows).sort_values(["pack", "k"], key=_in_order, kind="stable", ignore_index=True)


def _in_order(column: pd.Series) -> pd.Series:
    return (
        column.replace(0, np.inf) if column.name == "k" else column.map({name: i for i, name in enumerate(joint.PACKS)})
    )


def gains(runs: pd.DataFrame, images: pd.DataFrame, against: str = REAL, split: str = "test") -> pd.DataFrame:
    """Return what every arm gains over another one of the same pack and k, paired by seed.

    Parameters
    ----------
    runs, images : pandas.DataFrame
        As from `stored`.
    against : str
        The other arm.
    split : str
        As for `scores`.

    Returns
    -------
    pandas.DataFrame
        pack, k, arm, against, n (paired runs), generators, difference (of the pooled mean IoU, above 0 is a gain; the
        mean over generators) with its 95 % t interval over generators (confidence) and p; without a second generator
        over its U-Nets (none for a single one), over says which; runs_low and runs_high (over all runs, as if those of
        one generator were independent); specimens_difference (mean over tested specimens) with specimens_low and
        specimens_high (bootstrap; specimens_confidence: what so few can reach) and specimens;
        better: both intervals lie above 0, over two or more generators. Of superalloys each generator is tested on a
        spot of its own, so that the intervals over generators and over specimens see the same numbers.
    """
    rows = []
    for (pack, k), part in runs.dropna(subset=f"{split}_miou_pooled").groupby(NAMES[:2], sort=False):
        base = part[part["arm"] == against].set_index("seed")
        for arm in [name for name in part["arm"].unique() if name != against]:
            row = {"pack": pack, "k": k, "arm": arm, "against": against}
            ours = part[part["arm"] == arm].set_index("seed")
            seeds = ours.index.intersection(base.index)
            if seeds.empty:
                continue
            row |= _paired(*(table.loc[seeds, ["generator", f"{split}_miou_pooled"]] for table in (ours, base)))
            chosen = images[(images["pack"] == pack) & (images["k"] == k) & images["seed"].isin(seeds)]
            rows.append(row | _over_specimens(chosen, arm, against, split))
    table = pd.DataFrame(rows, columns=[*NAMES, "against", *_GAINS])
    better = (table[["difference_low", "specimens_low"]] > 0).all(axis=1) & (table["generators"] > 1)
    return table.assign(better=better).sort_values(["pack", "k"], key=_in_order, kind="stable", ignore_index=True)


_GAINS = ["n", "generators", "over", "difference", "difference_low", "difference_high", "confidence", "p"]
_GAINS += ["runs_low", "runs_high"]
_SPECIMENS = ("specimens", "specimens_difference", "specimens_low", "specimens_high", "specimens_confidence")
_GAINS += _SPECIMENS


def _paired(ours: pd.DataFrame, base: pd.DataFrame) -> dict:
    values = [table.iloc[:, 1].to_numpy(float) for table in (ours, base)]
    generators = ours["generator"].nunique()
    several = generators > 1
    tested = (
        [table.groupby("generator").mean().iloc[:, 0].to_numpy(float) for table in (ours, base)] if several else values
    )
    over_runs = paired_fields(*values, "runs")
    row = paired_fields(*tested, GENERATORS if several else "U-Nets") | {"n": len(ours), "generators": generators}
    return row | {"runs_low": over_runs["difference_low"], "runs_high": over_runs["difference_high"]}


def _over_specimens(images: pd.DataFrame, arm: str, against: str, split: str) -> dict:
    nothing = (0, *[np.nan] * 4)
    found = by_specimen(images[images["arm"].isin([arm, against])], split)
    if found.empty:
        return dict(zip(_SPECIMENS, nothing, strict=True))
    wide = found.pivot_table(index=["seed", "group"], columns="arm", values="miou")
    each = (wide[arm] - wide[against]).dropna().groupby("group").mean()
    told = (len(each), each.mean(), *nothing[2:])
    if len(each) > 1:
        interval = cluster_bootstrap(each.to_numpy(), each.index, rng=stream(0, "bootstrap", "specimens"))
        told = (*told[:2], interval.low, interval.high, attainable(0.95, len(each)))
    return dict(zip(_SPECIMENS, told, strict=True))


def by_specimen(images: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Return both mean IoUs of every specimen of a split (see `scores`) in every run, its micrographs pooled.

    Returns
    -------
    pandas.DataFrame
        pack, k, arm, seed, group (specimen), micrographs, miou, present_class_miou.
    """
    rows = []
    for names, part in images[images["split"] == split].groupby([*NAMES, "seed", "group"], sort=False):
        pooled = stacked(part, "n").sum(0)
        row = dict(zip([*NAMES, "seed", "group"], names, strict=True)) | {"micrographs": len(part)}
        rows.append(row | {"miou": float(mean_iou(pooled)), "present_class_miou": float(present_class_miou(pooled))})
    return pd.DataFrame(rows, columns=[*NAMES, "seed", "group", "micrographs", "miou", "present_class_miou"])


# Label budgets


def budget_curve(runs: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """Return the pooled mean IoU over the number of real micrographs of `PACK`; columns as of `scores`."""
    table = scores(runs[(runs["pack"] == PACK) & runs["arm"].isin(arms)])
    return table.sort_values(["arm", "micrographs"], ignore_index=True)


def replaced(runs: pd.DataFrame, hours: float) -> pd.DataFrame:
    """Return how many labelled micrographs of `PACK` the pairs of each arm replace, and the hours that saves.

    Where an arm with pairs lies on the curve of real micrographs alone is what it is worth, see
    `micro_lib.analysis.stats.label_equivalent`. Beyond its ends nothing is known: an interval that reaches all
    micrographs has no upper end (inf), one that reaches the smallest budget begins at none. Arms of all micrographs
    are left out, since there are no more to be worth. Of every arm the U-Nets count whose seeds all budgets have too.

    Parameters
    ----------
    runs : pandas.DataFrame
        As from `stored`.
    hours : float
        To label one micrograph: an assumption of whoever asks.

    Returns
    -------
    pandas.DataFrame
        arm, k, micrographs (those used), worth (micrographs alone for the same score) with worth_low and worth_high
        (resampling generators: confidence, which is what so few can reach, over), replaced (worth less
        those used; with _low and _high), hours_saved with _low and _high, generators. Empty with fewer than two budgets
        or generators.
    """
    part = runs[runs["pack"] == PACK]
    used = part.groupby("k")["n_micrographs"].mean()
    real, helped = part[part["arm"] == REAL], part[(part["arm"] != REAL) & (part["k"] > 0)]
    columns = ["arm", "k", "micrographs", *(name + end for name in _LABELS for end in ("", "_low", "_high"))]
    columns += ["confidence", "generators", "over"]
    each = real.pivot_table("test_miou_pooled", ["generator", "seed"], "k").rename(columns=used).sort_index(axis=1)
    rows = []
    for (arm, k), ours in helped.groupby(["arm", "k"]) if each.shape[1] > 1 else ():
        both = each.dropna().join(ours.set_index(["generator", "seed"])["test_miou_pooled"], how="inner")
        means = both.groupby("generator").mean()  # (generators, budgets and ours)
        if len(means) > 1:
            worth = _worth(means.pop("test_miou_pooled").to_numpy(), means)
            rows.append({"arm": arm, "k": k, "micrographs": used[k], **worth})
    table = pd.DataFrame(rows)
    if table.empty:
        return pd.DataFrame(columns=columns)
    for end in ("", "_low", "_high"):
        table[f"replaced{end}"] = table[f"worth{end}"] - table["micrographs"]
        table[f"hours_saved{end}"] = hours * table[f"replaced{end}"]
    return table[columns].sort_values(["k", "arm"], ignore_index=True)


_LABELS = ("worth", "replaced", "hours_saved")


def _worth(ours: np.ndarray, alone: pd.DataFrame) -> dict:
    budgets, rng = alone.columns.to_numpy(float), stream(0, "bootstrap", "worth")
    found = bootstrap_label_equivalent(ours[:, None], alone, budgets, rng=rng)
    worth, low, high = (float(number.item()) for number in found)
    low, high = 0.0 if low <= 1.001 * budgets[0] else low, np.inf if high >= 0.999 * budgets[-1] else high
    row = {"worth": worth, "worth_low": low, "worth_high": high, "confidence": attainable(0.95, len(ours))}
    return {**row, "generators": len(ours), "over": GENERATORS}


# The customised metric, window by window


def per_window(runs: pd.DataFrame) -> pd.DataFrame:
    """Return both mean IoUs averaged over windows, some of which lack a class, and their difference.

    Parameters
    ----------
    runs : pandas.DataFrame
        As from `stored`; runs from before windows were scored count as missing.

    Returns
    -------
    pandas.DataFrame
        pack, k, arm, n (runs that have them) of n_runs, generators; the means over generators miou and
        present_class_miou, and difference (the latter less the former) with its 95 % t interval over generators
        (confidence, over). An arm without any has n 0 and nothing else.
    """
    scores, rows = [f"test_{name}_per_window" for name in ("miou", "present_class_miou")], []
    for names, part in runs.groupby(NAMES, sort=False):
        each = part.dropna(subset=scores).groupby("generator")[scores].mean()
        row = dict(zip(NAMES, names, strict=True)) | {"n": int(part[scores].notna().all(axis=1).sum())}
        row |= {"n_runs": len(part), "generators": len(each)}
        if len(each):
            row |= dict(zip(("miou", "present_class_miou"), each.mean(), strict=True))
            row |= mean_fields(each[scores[1]] - each[scores[0]], "difference", GENERATORS)
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["pack", "k"], key=_in_order, kind="stable", ignore_index=True)


# Are the pairs any good?


def generators(profile: str, folder: str | Path = "") -> pd.DataFrame:
    """Return what `collect` has stored of every generator, rows of `joint.quality`; empty where there are none."""
    return stored_rows(GENERATORS_TABLE, profile, (*_OF_GENERATOR, "generated", "trained_at"), folder)


def costs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return what generators cost, as `pair_quality` its measures.

    Parameters
    ----------
    runs : pandas.DataFrame
        As from `stored`; a generator counts once, however many U-Nets were trained with its pairs.
    """
    made = runs[runs["n_pairs"] > 0].drop_duplicates(_OF_GENERATOR)
    return _over_generators(made, [name for name in _COSTS if name in made])


def pair_quality(made: pd.DataFrame) -> pd.DataFrame:
    """Return how sampled pairs compare with real ones, the median over generators of each recipe and k.

    Not the mean: a ratio to what real windows hardly hold may be of any size.

    Parameters
    ----------
    made : pandas.DataFrame
        As from `generators`.

    Returns
    -------
    pandas.DataFrame
        A row a measure that a generator has: pack, k, recipe, measure (of `pair_quality.judged`, `code_nats` and
        consistency), value (median) with value_low and value_high (lowest and highest), n (generators that have it).
    """
    return _over_generators(made, [name for name in made if name.startswith(_TOLD)])


def _over_generators(made: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    long = made.melt(["pack", "k", "recipe"], names, "measure").dropna(subset="value")
    grouped = long.groupby(["pack", "k", "recipe", "measure"], sort=False)["value"]
    table = grouped.agg(value="median", value_low="min", value_high="max", n="count").reset_index()
    return table.sort_values(["pack", "k"], key=_in_order, kind="stable", ignore_index=True)


def by_class(quality: pd.DataFrame, classes: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return size and fraction of each class, sampled and unseen over what was learned from, and how they vary.

    Parameters
    ----------
    quality : pandas.DataFrame
        From `pair_quality`.
    classes : mapping
        Names of the classes of each pack.

    Returns
    -------
    pandas.DataFrame
        pack, k, recipe, class, and text, the median with its range over generators: mean intercept, mean fraction and
        variance of the fraction of sampled windows, and mean intercept and mean fraction of unseen ones, all over
        those of the windows learned from.
    """
    quality = quality.assign(told=_told(quality))
    rows = []
    for (pack_name, k, recipe), part in quality.groupby(["pack", "k", "recipe"], sort=False):
        told = part.set_index("measure")["told"]
        for i, name in enumerate(classes[pack_name]):
            row = {"pack": pack_name, "k": k or "all", "recipe": recipe, "class": name}
            rows.append(row | {column: told.get(measure.format(i), "") for column, measure in _BY_CLASS.items()})
    return pd.DataFrame(rows, columns=["pack", "k", "recipe", "class", *_BY_CLASS])


_BY_CLASS = {
    "intercept": "pairs_intercept_{}",
    "intercept, unseen": "unseen_intercept_{}",
    "fraction": "pairs_fraction_{}",
    "fraction, unseen": "unseen_fraction_{}",
    "variance of fraction": "pairs_fraction_{}_variance",
}


def _told(table: pd.DataFrame) -> list[str]:
    ends = zip(*(table[name] for name in ("value", "value_low", "value_high", "n")), strict=True)
    return [f"{value:.3g} [{low:.3g} to {high:.3g}], n = {n}" for value, low, high, n in ends]


def quality_tables(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return a table from `pair_quality` or `costs` as readers see it: by pack, a column an arm."""
    arms = [f"k = {k or 'all'}, {recipe}" for k, recipe in zip(table["k"], table["recipe"], strict=True)]
    table = table.assign(told=_told(table), arm=arms)
    return {
        pack_name: part.pivot(index="measure", columns="arm", values="told").fillna("")
        for pack_name, part in table.groupby("pack", sort=False)
    }


GENERATORS_TABLE, _OF_GENERATOR = "joint_generators.csv", ["pack", "k", "recipe", "generator"]
_COSTS = tuple(
    f"{name}_{time}" for name in ("vq", "prior", "sample", "judge") for time in ("seconds", "process_seconds")
)
_TOLD = (*(f"{name}_{what.replace(' ', '_')}" for name in SETS for what in (*QUANTITIES, "auc", "consistency")), "nats")


def criteria(
    perplexity: float,
    n_codes: int,
    copies: Mapping,
    kept: Mapping[str, float],
    fits: float,
    fits_unseen: float,
    compared: pd.DataFrame,
) -> pd.DataFrame:
    """Return what pairs have to be, and whether those of one generator are.

    Parameters
    ----------
    perplexity, n_codes
        Of the codebook, at the end of its training.
    copies : mapping
        From `likeness.copying`.
    kept : mapping of str to float
        IoU of each class with what comes back from its codes, by name (`pair_quality.kept_classes`).
    fits, fits_unseen : float
        Mean IoU of a segmenter of real micrographs with sampled masks, and with those of real windows it has not seen.
    compared : pandas.DataFrame
        From `micro_lib.analysis.phases.compare_sets`; the means of `JUDGED` of every class that is learned from have to
        lie within `NEAR` of the real ones. Not intervals that meet: the fewer pairs, the easier.

    Returns
    -------
    pandas.DataFrame
        criterion, found, wanted (text), met.
    """
    limit, ratio = COLLAPSED * n_codes, fits / fits_unseen
    rows = [
        ("codes in use (perplexity)", perplexity, f"above {limit:g}", perplexity > limit),
        ("copies", copies["copies"], f"none of {copies['n_generated']}", copies["copies"] == 0),
        ("agreement with masks over that on unseen real windows", ratio, f"{FIT:g} or more", ratio >= FIT),
    ]
    rows += [(f"IoU of {name} through the codes", iou, f"{KEPT:g} or more", iou >= KEPT) for name, iou in kept.items()]
    means = compared[(compared["statistic"] == "mean") & compared["quantity"].isin(JUDGED)]
    for row in means[means["real"] > 0].to_dict("records"):
        name, near = f"mean {row['quantity']} {row['class']}".strip(), abs(row["ratio"] - 1) <= NEAR
        rows.append((f"{name}, sampled over real", row["ratio"], f"{1 - NEAR:g} to {1 + NEAR:g}", near))
    return pd.DataFrame(rows, columns=["criterion", "found", "wanted", "met"])


def copying(made: pd.DataFrame) -> pd.DataFrame:
    """Return how far sampled pairs lie from what their generators have learned from.

    Parameters
    ----------
    made : pandas.DataFrame
        As from `generators`.

    Returns
    -------
    pandas.DataFrame
        pack, k, recipe, generators; of the values of `likeness.copying` the medians and closer, means over generators,
        generated_lowest, the lowest of all, copies of n_generated in all, and quarter_copies of the middle quarters of
        as many; vq_perplexity, the lowest of all: of codes in use, a collapsed codebook has one near 1; kept_<class
        id>, see `pair_quality.kept_classes`, the lowest of all.
    """
    means, sums, lowest = _COPIED
    lowest = [*lowest, *(name for name in made if name.startswith("kept_"))]
    grouped = made.groupby(["pack", "k", "recipe"], sort=False)
    table = grouped[list(means)].mean().join([grouped[list(sums)].sum(), grouped[list(lowest)].min()])
    table.insert(0, "generators", grouped.size())
    return table.reset_index().sort_values(["pack", "k"], key=_in_order, kind="stable", ignore_index=True)


# Of every generator's copies, what is averaged, added up, and of what the lowest counts.
_COPIED = (
    ("generated_median", "unseen_median", "seen_median", "closer"),
    ("copies", "n_generated", "quarter_copies"),
    ("generated_lowest", "vq_perplexity"),
)


def collect(profile: str, sweep: str | Path, folder: str | Path = "") -> None:
    """Measure every generator of a sweep and its pairs; a sweep calls this when it has ended.

    A generator is measured once, and again where it was trained anew since.

    Parameters
    ----------
    profile, sweep, folder
        As for `adaptation_collect.collect`; the table is ``joint_generators.csv``.
    """
    table, rows = Path(folder or tables_dir()) / GENERATORS_TABLE, generators(profile, folder)
    known = dict(zip(map(tuple, rows[_OF_GENERATOR].to_numpy()), rows["trained_at"], strict=True))
    paths = sorted(Path(sweep).glob("runs/*/done.json"), key=lambda path: path.stat().st_mtime)  # the latest counts
    done = [read_json(path) for path in paths]
    made = {
        tuple(row[name] for name in _OF_GENERATOR): row for row in done if row["recipe"] and row["profile"] == profile
    }
    for names, row in made.items():
        # Older rows do not say when their generator was trained.
        if names not in known or row.get("generator_trained_at", known[names]) != known[names]:
            found = joint.quality(json.loads(row["configuration"]), int(row["seed"]), profile)
            origin = provenance(profile=profile, seed=int(row["seed"]), device=row["device"])
            merge_rows(table, pd.DataFrame([{**found, **origin}]), ("profile", *_OF_GENERATOR))
