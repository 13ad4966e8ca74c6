"""Tables of the adaptation experiment: Tables 3 to 7 of Goetz et al. 2022 beside ours, gaps closed, runs that failed.

A run's seed decides its fold, so folds are the unit of intervals over runs; of real shifts specimens are resampled too.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from micro_lib.analysis.stats import cluster_bootstrap
from micro_lib.application.tables import (
    mean_fields,
    paired_fields,
    stored_rows,
    stored_sweep,
)
from micro_lib.core.profiles import settings
from micro_lib.core.seeds import stream
from micro_lib.data.shifts import DEVELOPMENT, REAL, TRANSDUCTIVE
from micro_lib.training import adaptation

NONE, ORACLE, ADVERSARIAL = "no adaptation", "oracle", "AdaptSegNet"
UNADAPTED = tuple(arm for arm, changes in adaptation.ARMS.items() if set(changes) <= {"augmentation"})
ORACLES = tuple(arm for arm, changes in adaptation.ARMS.items() if changes.get("labels") == "oracle")
SHOWN = (NONE, ADVERSARIAL, "self-training", ORACLE)
FEW = ("2 labels",)  # shown as well of real targets
# Classes that are lines, by shift: scored also by where they run.
THIN = {"coating": "crack", "316L to iron": "boundary"}
TOLERANCE_PX = 5  # the width at which cracks are labelled, half that of boundaries of 316L
FOLDS, LEVEL = "folds", 0.95  # what intervals are over, and their level
PUBLISHED = ("T1", "T2", "T3")  # targets of the paper
GAP = 0.05  # mean IoU from no adaptation to the oracle from which it is worth closing
MEASURES = ("target_miou", "rdt", "source_miou")
NAMES = ["shift", "arm"]
ONE_SPECIMEN = ("coating",)  # shifts whose target is a single one, of which micrographs are resampled
BAGGED_TABLE, CURVES_TABLE, LINES_TABLE = "adaptation_bagged.csv", "adaptation_curves.csv", "adaptation_lines.csv"


def arm_of(configuration: str | Mapping) -> str:
    """Return the name of the arm that a stored configuration (JSON) belongs to; one without a name is written out."""
    values = json.loads(configuration) if isinstance(configuration, str) else dict(configuration)
    trained = _trained(values)
    for name, changes in adaptation.ARMS.items():
        if _trained(changes) == trained:
            return name
    return ", ".join(f"{name} {value}" for name, value in trained.items() if value != adaptation.DEFAULTS[name])


def _trained(configuration: Mapping) -> dict:
    """What of a configuration makes an arm, whatever the shift."""
    full = {**adaptation.DEFAULTS, **configuration}
    return {name: value for name, value in full.items() if name not in ("shift", "data")}


def stored(profile: str, folder: str | Path = "", *, development: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the stored runs of one profile and the pixel counts of their micrographs; empty where there are none.

    Runs of another network than the profile's and of stand-ins of a real shift are left out.

    Parameters
    ----------
    profile : str
        Usually ``"study"``.
    folder : str or pathlib.Path
        As for `micro_lib.application.tables.stored_sweep`.
    development : bool
        The preparations on which methods were chosen, instead of those that are reported.

    Returns
    -------
    pandas.DataFrame, pandas.DataFrame
        Runs, as `adaptation.run` returns them, and micrographs, as `adaptation.Setting.score`, both with shift and arm.
    """
    columns = ("seed", *NAMES, "fold", *MEASURES, "trouble")
    runs, images = stored_sweep("adaptation", profile, names_of, (*columns, "architecture", "generated"), folder)
    runs = runs[is_kept(runs, profile) & (runs["shift"].isin(DEVELOPMENT) == development)].assign(
        trouble=lambda rows: rows["trouble"].fillna("")
    )
    return runs.reset_index(drop=True), images.merge(runs[["configuration", "seed"]])


def is_kept(runs: pd.DataFrame, profile: str) -> pd.Series:
    """Tell which runs count: those of the profile's own network, and of real shifts those on real micrographs."""
    stand_in = runs["shift"].isin(list(REAL)) & runs["generated"].astype(bool)
    own = runs["architecture"] == settings("adaptation", profile)["architecture"]
    return own & ~stand_in


def names_of(configuration: str) -> dict:
    """Return the shift and the arm that a stored configuration (JSON) belongs to."""
    return {"shift": adaptation.complete(json.loads(configuration))["shift"], "arm": arm_of(configuration)}


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by shift and arm, as the experiment names them; unnamed arms last."""
    known = {"shift": list(adaptation.SHIFTS), "arm": list(adaptation.ARMS)}

    def rank(column: pd.Series) -> pd.Series:
        names = known[column.name]
        return column.map(lambda name: names.index(name) if name in names else len(names))

    return table.sort_values(NAMES, key=rank, kind="stable", ignore_index=True)


# ------------------------------------------------------------------------------------------------ scores


def scores(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the mean scores of every arm under every shift, with 95 % t intervals over folds.

    Parameters
    ----------
    runs : pandas.DataFrame
        From `stored`, or rows of `adaptation.run` with arm and seed.

    Returns
    -------
    pandas.DataFrame
        shift, arm, n (folds; runs of one fold are averaged first), runs, troubled (runs in which something went wrong;
        they count in the means, see `troubled`), n_test (tested target micrographs a run), and each of `MEASURES`:
        mean, <measure>_low and <measure>_high, missing for a single fold, and target_miou_sd.
    """
    rows = []
    for names, part in runs.groupby(NAMES, sort=False):
        folds = by_fold(part)
        row = dict(zip(NAMES, names, strict=True)) | {"n": len(folds), "runs": len(part)}
        row |= {"troubled": int((part["trouble"] != "").sum()), "n_test": int(part["n_target_test"].median())}
        for measure in MEASURES:
            row |= mean_fields(folds[measure], measure, FOLDS)
        rows.append({**row, "target_miou_sd": folds["target_miou"].std()})
    return _in_order(
        pd.DataFrame(rows, columns=list(rows[0]) if rows else [*NAMES, "n", "runs", "troubled", *MEASURES])
    )


def by_fold(part: pd.DataFrame, measures: Sequence[str] = MEASURES) -> pd.DataFrame:
    """Return the mean of each measure over the runs of a fold: one row a fold (the index), one column a measure."""
    return part.groupby("fold")[list(measures)].mean()


def troubled(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs in which something went wrong: shift, arm, seed, target_miou and what it was."""
    return _in_order(runs.loc[runs["trouble"] != "", [*NAMES, "seed", "target_miou", "trouble"]])


def phase_fractions(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the phase fractions of the tested target micrographs, true and found (Table 7 of the paper).

    Returns
    -------
    pandas.DataFrame
        shift, arm, class, true, found with found_low, found_high (95 %, t over folds) and found_sd, error (mean of
        found minus true, with error_low and error_high), n (folds). Two classes sum to one, so the second stands alone.
    """
    rows = []
    for names, part in runs.groupby(NAMES, sort=False):
        known = [name.removeprefix("target_true_") for name in part.dropna(axis=1, how="all") if "target_true_" in name]
        for phase in known[1:] if len(known) == 2 else known:
            folds = by_fold(part, [f"target_true_{phase}", f"target_found_{phase}"])
            true, found = (folds[name] for name in folds)
            row = dict(zip(NAMES, names, strict=True)) | {"class": phase, "true": float(true.mean())}
            row |= mean_fields(found, "found", FOLDS) | {"found_sd": found.std()}
            rows.append(row | mean_fields(found - true, "error", FOLDS) | {"n": len(folds)})
    return _in_order(pd.DataFrame(rows)) if rows else pd.DataFrame(columns=[*NAMES, "class", "true", "found", "n"])


def class_ious(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the IoU of every class on the target: shift, class, arm, n (folds), iou, iou_low and iou_high (95 %)."""
    rows = []
    for names, part in _in_order(runs).groupby(NAMES, sort=False):
        for column in (name for name in part.dropna(axis=1, how="all") if name.startswith("target_iou_")):
            row = dict(zip(NAMES, names, strict=True)) | {"class": column.removeprefix("target_iou_")}
            folds = by_fold(part, [column])[column]
            rows.append(row | {"n": len(folds)} | mean_fields(folds, "iou", FOLDS))
    table = pd.DataFrame(rows, columns=list(rows[0]) if rows else [*NAMES, "class", "n", "iou"])
    order = list(dict.fromkeys(zip(table["shift"], table["class"], strict=True)))  # arms of a class one below the other
    ranks = dict(zip(order, range(len(order)), strict=True))
    keys = [ranks[pair] for pair in zip(table["shift"], table["class"], strict=True)]
    return table.iloc[np.argsort(keys, kind="stable")].reset_index(drop=True)


# ------------------------------------------------------------------------------------------- differences, gaps


def differences(runs: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Return what every arm gains over no adaptation on the same shift, paired by fold, in mean IoU on the target.

    Once over no adaptation with the augmentation of the other arms, and once over `best` of the unadapted arms where
    that is another one.

    Parameters
    ----------
    runs, images : pandas.DataFrame
        As from `stored`; of a shift without runs that do not adapt nothing is said.

    Returns
    -------
    pandas.DataFrame
        shift, arm, against, n (folds), difference with difference_low and difference_high (95 %, t over folds, missing
        for one; confidence, over) and p; units, what was resampled for units_low and units_high (95 %, bootstrap):
        specimens, of real shifts; where the target is one specimen alone its micrographs, which says less, and nothing
        where it is one area; n_units; better: of two folds or more, with all intervals above 0; worse: of as many, with
        one of them below 0.
    """
    rows = []
    for name, part in runs.groupby("shift", sort=False):
        pairs = [(against, *found) for against in _both(part, UNADAPTED) for found in paired(part, against)]
        for against, arm, ours, base in pairs:
            row = {"shift": name, "arm": arm, "against": against, **paired_fields(ours, base, FOLDS)}
            several = name in REAL and name not in TRANSDUCTIVE
            row |= _resampled(images[images["shift"] == name], arm, against) if several else _NO_UNITS
            known = [kind for kind in ("difference", "units") if not math.isnan(row[f"{kind}_low"])]
            better = len(ours) > 1 and all(row[f"{kind}_low"] > 0 for kind in known)
            worse = len(ours) > 1 and any(row[f"{kind}_high"] < 0 for kind in known)
            rows.append({**row, "better": better, "worse": worse})
    columns = [*NAMES, "against", "n", "difference", "p", "difference_low", "difference_high", "confidence", "over"]
    return _in_order(pd.DataFrame(rows, columns=[*columns, *_NO_UNITS, "better", "worse"]))


def best(runs: pd.DataFrame, arms: Sequence[str]) -> str:
    """Return which of some arms scores highest on the target of the only shift in `runs`; ``""`` if none has run.

    Nobody without target labels could have chosen it: it is the hardest to beat, not the one a user would have.
    """
    means = {arm: by_fold(part)["target_miou"].mean() for arm, part in runs[runs["arm"].isin(arms)].groupby("arm")}
    return max(means, key=means.get, default="")


def _both(runs: pd.DataFrame, arms: Sequence[str]) -> list[str]:
    """The first of some arms, which is like all others, and the best of them where that is another one."""
    return list(dict.fromkeys([arms[0], best(runs, arms)]))


_NO_UNITS = {"units": "", "n_units": 0, "units_low": math.nan, "units_high": math.nan}


def paired(
    runs: pd.DataFrame, against: str, measure: str = "target_miou", by: str = "arm"
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield arms (or shifts), each with its scores and the other one's on the folds they share; seeds are paired first.

    Parameters
    ----------
    runs : pandas.DataFrame
        Of one shift, or of one arm, as from `stored`.
    against : str
        The arm, or shift, that all others are paired with; nothing is yielded where it has no runs.
    measure : str
        Column of `runs`.
    by : str
        ``"arm"`` or ``"shift"``.

    Yields
    ------
    str, numpy.ndarray, numpy.ndarray
        Its name, its scores and those of `against`, (folds,) each.
    """
    wide = runs.pivot_table(index=["fold", "seed"], columns=by, values=measure)
    for name in wide.columns.difference([against], sort=False) if against in wide else ():
        both = wide[[name, against]].dropna().groupby("fold").mean()
        yield name, both[name].to_numpy(), both[against].to_numpy()


def _resampled(images: pd.DataFrame, arm: str, against: str) -> dict:
    target = images[(images["split"] == "target") & images["arm"].isin([arm, against])]
    unit = "name" if target["shift"].isin(ONE_SPECIMEN).any() else "group"
    found = by_unit(target, unit)
    wide = found.pivot_table(index=["seed", unit], columns="arm", values="miou").dropna()
    each = (wide[arm] - wide[against]).groupby(unit).mean()
    if len(each) < 2:
        return _NO_UNITS
    interval = cluster_bootstrap(each.to_numpy(), each.index, rng=stream(0, "bootstrap", "adaptation"))
    units = "specimens" if unit == "group" else "micrographs of one specimen"
    return {"units": units, "n_units": len(each), "units_low": interval.low, "units_high": interval.high}


def by_unit(images: pd.DataFrame, unit: str = "group") -> pd.DataFrame:
    """Return the mean IoU of every specimen ("group") or micrograph ("name") in every run, its pixels pooled.

    Returns
    -------
    pandas.DataFrame
        shift, arm, seed, split, the unit, micrographs, miou.
    """
    rows, keys = [], [*NAMES, "seed", "split", unit]
    for names, part in images.groupby(keys, sort=False):
        rows.append([*names, len(part), adaptation.pooled_miou(part)])
    return pd.DataFrame(rows, columns=[*keys, "micrographs", "miou"])


def gap_closed(runs: pd.DataFrame) -> pd.DataFrame:
    """Return which fraction of the way from no adaptation to the oracle every arm goes, where the gap is worth closing.

    Between the two ends of `gaps`, one after the other.

    Parameters
    ----------
    runs : pandas.DataFrame
        As from `stored`. Shifts whose gap is at most `GAP`, or that have no oracle, are left out; see `gaps`.

    Returns
    -------
    pandas.DataFrame
        shift, arm, against, ceiling, gap, closed (ratio of the means over folds), closed_low and closed_high (95 %,
        Fieller's interval over folds, missing where the data do not bound it; confidence), n (folds: over).
    """
    rows = []
    for ends in gaps(runs).query("gap > @GAP").to_dict("records"):
        base, ceiling = ends["against"], ends["ceiling"]
        part = runs[runs["shift"] == ends["shift"]]
        wide = part.pivot_table(index=["fold", "seed"], columns="arm", values="target_miou")
        for arm in wide.columns.difference([base, *ORACLES]):
            folds = wide[[arm, base, ceiling]].dropna().groupby("fold").mean()
            if folds.empty:
                continue
            closed, low, high = ratio(*((folds[other] - folds[base]).to_numpy() for other in (arm, ceiling)))
            row = {"shift": ends["shift"], "arm": arm, "against": base, "ceiling": ceiling, "gap": ends["gap"]}
            row |= {"closed": closed, "closed_low": low, "closed_high": high}
            rows.append({**row, "confidence": math.nan if math.isnan(low) else LEVEL, "n": len(folds), "over": FOLDS})
    columns = [*NAMES, "against", "ceiling", "gap", "closed", "closed_low", "closed_high", "confidence", "n", "over"]
    return _in_order(pd.DataFrame(rows, columns=columns))


def gaps(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the gap of every shift that has both ends.

    From no adaptation to the oracle with the augmentation of all arms, and from `best` of the unadapted arms to the
    best oracle where one of them is another.

    Returns
    -------
    pandas.DataFrame
        shift, against, ceiling, gap (ceiling minus against; mean over folds) with gap_low and gap_high (95 %, t over
        folds; confidence, over), n (folds).
    """
    rows = []
    for name, part in runs.groupby("shift", sort=False):
        for base, ceiling in dict.fromkeys([(NONE, ORACLE), (best(part, UNADAPTED), best(part, ORACLES))]):
            ours, below = {arm: pair for arm, *pair in paired(part, base)}.get(ceiling, ((), ()))
            if len(ours):
                names = {"shift": name, "arm": ceiling, "against": base, "ceiling": ceiling}
                rows.append(names | mean_fields(ours - below, "gap", FOLDS) | {"n": len(ours)})
    columns = [*NAMES, "against", "ceiling", "gap", "gap_low", "gap_high", "confidence", "n", "over"]
    return _in_order(pd.DataFrame(rows, columns=columns)).drop(columns="arm")


def ratio(above: np.ndarray, below: np.ndarray) -> tuple[float, float, float]:
    """Return the ratio of the means of paired values with Fieller's interval at `LEVEL` (Fieller 1954).

    Parameters
    ----------
    above, below : numpy.ndarray
        (n,) float, pairs.

    Returns
    -------
    float, float, float
        The ratio and the ends of its interval: all r for which a t test does not refuse that the mean of above - r
        below is 0. NaN ends for a single pair, and where `below` cannot be told from 0, so that no r is ruled out.
    """
    n, estimate = len(above), float(np.mean(above) / np.mean(below))
    if n < 2:
        return estimate, math.nan, math.nan
    covariance = np.cov(above, below) / n * stats.t.ppf((1 + LEVEL) / 2, n - 1) ** 2
    # (mean(above) - r mean(below))^2 = t^2 var(above - r below), a parabola a r^2 - 2 b r + c in r
    a = np.mean(below) ** 2 - covariance[1, 1]
    b = np.mean(above) * np.mean(below) - covariance[0, 1]
    c = np.mean(above) ** 2 - covariance[0, 0]
    if a <= 0:
        return estimate, math.nan, math.nan
    reach = math.sqrt(max(0.0, b * b - a * c))
    return estimate, float((b - reach) / a), float((b + reach) / a)


def warnings(runs: pd.DataFrame, images: pd.DataFrame) -> list[str]:
    """Return what a reader has to be warned of.

    Arms worse than an unadapted one by one interval at least (see `differences`); arms below it on their only fold, of
    which nothing is known but that; runs that went wrong.
    """
    said, table = [], differences(runs, images)
    for row in table.query("worse").to_dict("records"):
        change = f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
        if row["units"]:
            change += f" over folds, [{row['units_low']:+.3f}, {row['units_high']:+.3f}] over {row['units']},"
        said.append(f"{row['arm']} on {row['shift']} is worse than {row['against']}: {change} mean IoU, n = {row['n']}")
    for row in table.query("n == 1 and difference < 0").to_dict("records"):
        change = f"{row['difference']:+.3f} mean IoU"
        said.append(f"{row['arm']} on {row['shift']} has less than {row['against']} on its only fold: {change}, n = 1")
    for (name, arm), part in troubled(runs).groupby(NAMES, sort=False):
        every = int(((runs["shift"] == name) & (runs["arm"] == arm)).sum())
        what = "; ".join(f"seed {row.seed}: {row.trouble}" for row in part.itertuples())
        said.append(f"{arm} on {name}: {len(part)} of {every} runs went wrong ({what}); they are in its mean")
    return said


def bagged(profile: str, folder: str | Path = "") -> pd.DataFrame:
    """Return the stored scores of bagging over folds, of one profile.

    Returns
    -------
    pandas.DataFrame
        profile, shift, arm, networks, target_miou (of the mean of their probabilities), single_miou and best_miou (mean
        and best of the networks alone), n_test (micrographs) and, since they are stored, the seed, device, versions,
        commit and dirty of the networks. Empty where `adaptation_collect.collect` has stored none.
    """
    columns = [*NAMES, "networks", "target_miou", "single_miou", "best_miou", "n_test"]
    return _in_order(stored_rows(BAGGED_TABLE, profile, columns, folder))


def is_bagged(part: pd.DataFrame, bags: pd.DataFrame) -> bool:
    """Tell whether these runs, or more of their arm, are bagged already: a fresh clone has the table, not the runs."""
    known = bags[(bags[NAMES] == part[NAMES].iloc[0]).all(axis=1)]
    same = (known["networks"] == len(part)) & np.isclose(known["single_miou"].astype(float), part["target_miou"].mean())
    return bool((same | (known["networks"] > len(part))).any())


def lines(profile: str, folder: str | Path = "") -> pd.DataFrame:
    """Return how well thin classes of real targets are found as lines, whatever their width, of one profile.

    Returns
    -------
    pandas.DataFrame
        shift, arm, class, n (folds), and the means over folds of precision, recall, width_px_true and width_px_pred as
        of `micro_lib.analysis.metrics.score_lines` with a tolerance of `TOLERANCE_PX`, each with low and high (95 %,
        t). Empty where `adaptation_collect.collect` has stored none.
    """
    measures, rows = ("precision", "recall", "width_px_true", "width_px_pred"), []
    keys = [*NAMES, "class"]
    for names, part in stored_rows(LINES_TABLE, profile, keys, folder).groupby(keys, sort=False):
        row = dict(zip(keys, names, strict=True)) | {"n": len(part)}
        for measure in measures:
            row |= mean_fields(part[measure], measure, FOLDS)
        rows.append(row)
    return _in_order(pd.DataFrame(rows, columns=list(rows[0]) if rows else [*keys, "n", *measures]))


def curves(profile: str, folder: str | Path = "") -> pd.DataFrame:
    """Return the stored curves of all runs of one profile, see `adaptation_loop.adapt`, with shift, arm, seed, fold."""
    return stored_rows(CURVES_TABLE, profile, folder=folder)
