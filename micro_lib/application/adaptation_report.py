"""Tables of the adaptation experiment: Tables 3 to 7 of Goetz et al. 2022 beside ours, gaps closed, runs that failed.

A run's seed decides its fold, so folds are the unit of intervals over runs; of real shifts specimens are resampled too.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

from micro_lib.analysis.metrics import score_lines
from micro_lib.analysis.stats import cluster_bootstrap
from micro_lib.application.adaptation_plots import error_maps
from micro_lib.application.plots import Panel, credit, save, sheet
from micro_lib.application.published import (
    Cell,
    answering,
    cell,
    judged_gain,
    judged_statement,
    ours_of,
    untestable_level,
)
from micro_lib.application.tables import (
    NOT_RUN,
    claim_rows,
    mean_fields,
    paired_fields,
    stored_rows,
    stored_sweep,
    tables_dir,
)
from micro_lib.core.labels import ClassMap
from micro_lib.core.profiles import settings
from micro_lib.core.runs import merge_rows, read_json, read_table
from micro_lib.core.seeds import stream
from micro_lib.data.records import Record
from micro_lib.data.shifts import DEVELOPMENT, REAL, TRANSDUCTIVE
from micro_lib.training import adaptation

NONE, ORACLE, ADVERSARIAL = "no adaptation", "oracle", "AdaptSegNet"
SHOWN = (NONE, ADVERSARIAL, "self-training", ORACLE)
FEW = ("2 labels",)  # shown as well of real targets
THIN = {"coating": "crack"}  # classes that are lines, by shift: scored also by where they run
TOLERANCE_PX = 5  # about the width at which cracks are labelled
FOLDS, LEVEL = "folds", 0.95  # what intervals are over, and their level
GAP = 0.05  # mean IoU from no adaptation to the oracle from which it is worth closing
MEASURES = ("target_miou", "rdt", "source_miou")
NAMES = ["shift", "arm"]
LATHS = "lath bainite"
ONE_SPECIMEN = ("coating",)  # shifts whose target is a single one, of which micrographs are resampled
BAGGED_TABLE, CURVES_TABLE, LINES_TABLE = "adaptation_bagged.csv", "adaptation_curves.csv", "adaptation_lines.csv"
# Rows of the published tables for the network that is adapted, by shift: their number in Tables 3, 4 and 5.
PUBLISHED_ROWS = {"T1": ("Table 3", "T1.10", "T1.11"), "T2": ("Table 4", "T2.10", "T2.11")}
PUBLISHED_ROWS |= {"T3": ("Table 5", "T3.1", "T3.2")}


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
    runs, images = stored_sweep("adaptation", profile, _names, (*columns, "architecture", "generated"), folder)
    runs = runs[_is_kept(runs, profile) & (runs["shift"].isin(DEVELOPMENT) == development)].assign(
        trouble=lambda rows: rows["trouble"].fillna("")
    )
    return runs.reset_index(drop=True), images.merge(runs[["configuration", "seed"]])


def _is_kept(runs: pd.DataFrame, profile: str) -> pd.Series:
    stand_in = runs["shift"].isin(list(REAL)) & runs["generated"].astype(bool)
    own = runs["architecture"] == settings("adaptation", profile)["architecture"]
    return own & ~stand_in


def _names(configuration: str) -> dict:
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
        folds = _by_fold(part)
        row = dict(zip(NAMES, names, strict=True)) | {"n": len(folds), "runs": len(part)}
        row |= {"troubled": int((part["trouble"] != "").sum()), "n_test": int(part["n_target_test"].median())}
        for measure in MEASURES:
            row |= mean_fields(folds[measure], measure, FOLDS)
        rows.append({**row, "target_miou_sd": folds["target_miou"].std()})
    return _in_order(
        pd.DataFrame(rows, columns=list(rows[0]) if rows else [*NAMES, "n", "runs", "troubled", *MEASURES])
    )


def _by_fold(part: pd.DataFrame, measures: Sequence[str] = MEASURES) -> pd.DataFrame:
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
            folds = _by_fold(part, [f"target_true_{phase}", f"target_found_{phase}"])
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
            folds = _by_fold(part, [column])[column]
            rows.append(row | {"n": len(folds)} | mean_fields(folds, "iou", FOLDS))
    table = pd.DataFrame(rows, columns=list(rows[0]) if rows else [*NAMES, "class", "n", "iou"])
    order = list(dict.fromkeys(zip(table["shift"], table["class"], strict=True)))  # arms of a class one below the other
    ranks = dict(zip(order, range(len(order)), strict=True))
    keys = [ranks[pair] for pair in zip(table["shift"], table["class"], strict=True)]
    return table.iloc[np.argsort(keys, kind="stable")].reset_index(drop=True)


# ------------------------------------------------------------------------------------------- differences, gaps


def differences(runs: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Return what every arm gains over no adaptation on the same shift, paired by fold, in mean IoU on the target.

    Parameters
    ----------
    runs, images : pandas.DataFrame
        As from `stored`; of a shift without runs that do not adapt nothing is said.

    Returns
    -------
    pandas.DataFrame
        shift, arm, n (folds), difference with difference_low and difference_high (95 %, t over folds, missing for one;
        confidence, over) and p; units, what was resampled for units_low and units_high (95 %, bootstrap): specimens, of
        real shifts; where the target is one specimen alone its micrographs, which says less, and nothing where it is
        one area; n_units; better: of two folds or more, with all intervals above 0; worse: of as many, with one of them
        below 0.
    """
    rows = []
    for name, part in runs.groupby("shift", sort=False):
        for arm, ours, base in _paired(part, NONE):
            row = {"shift": name, "arm": arm, **paired_fields(ours, base, FOLDS)}
            several = name in REAL and name not in TRANSDUCTIVE
            row |= _resampled(images[images["shift"] == name], arm) if several else _NO_UNITS
            known = [kind for kind in ("difference", "units") if not math.isnan(row[f"{kind}_low"])]
            better = len(ours) > 1 and all(row[f"{kind}_low"] > 0 for kind in known)
            worse = len(ours) > 1 and any(row[f"{kind}_high"] < 0 for kind in known)
            rows.append({**row, "better": better, "worse": worse})
    columns = [*NAMES, "n", "difference", "p", "difference_low", "difference_high", "confidence", "over"]
    return _in_order(pd.DataFrame(rows, columns=[*columns, *_NO_UNITS, "better", "worse"]))


_NO_UNITS = {"units": "", "n_units": 0, "units_low": math.nan, "units_high": math.nan}


def _paired(
    runs: pd.DataFrame, against: str, measure: str = "target_miou", by: str = "arm"
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Arms (or shifts), each with its scores and the other one's on the folds they share; seeds are paired first."""
    wide = runs.pivot_table(index=["fold", "seed"], columns=by, values=measure)
    for name in wide.columns.difference([against], sort=False) if against in wide else ():
        both = wide[[name, against]].dropna().groupby("fold").mean()
        yield name, both[name].to_numpy(), both[against].to_numpy()


def _resampled(images: pd.DataFrame, arm: str) -> dict:
    target = images[(images["split"] == "target") & images["arm"].isin([arm, NONE])]
    unit = "name" if target["shift"].isin(ONE_SPECIMEN).any() else "group"
    found = by_unit(target, unit)
    wide = found.pivot_table(index=["seed", unit], columns="arm", values="miou").dropna()
    each = (wide[arm] - wide[NONE]).groupby(unit).mean()
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

    Parameters
    ----------
    runs : pandas.DataFrame
        As from `stored`. Shifts whose gap is at most `GAP`, or that have no oracle, are left out; see `gaps`.

    Returns
    -------
    pandas.DataFrame
        shift, arm, gap, closed (ratio of the means over folds), closed_low and closed_high (95 %, Fieller's interval
        over folds, missing where the data do not bound it; confidence), n (folds: over).
    """
    rows = []
    for name, part in runs.groupby("shift", sort=False):
        found = {arm: (ours, base) for arm, ours, base in _paired(part, NONE)}
        if ORACLE not in found or (gap := float(np.mean(found[ORACLE][0] - found[ORACLE][1]))) <= GAP:
            continue
        wide = part.pivot_table(index=["fold", "seed"], columns="arm", values="target_miou")
        for arm in found:
            folds = wide[[arm, NONE, ORACLE] if arm != ORACLE else [NONE, ORACLE]].dropna().groupby("fold").mean()
            gained, whole = (folds[other] - folds[NONE] for other in (arm, ORACLE))
            closed, low, high = ratio(gained.to_numpy(), whole.to_numpy())
            row = {"shift": name, "arm": arm, "gap": gap, "closed": closed, "closed_low": low, "closed_high": high}
            rows.append({**row, "confidence": math.nan if math.isnan(low) else LEVEL, "n": len(folds), "over": FOLDS})
    columns = [*NAMES, "gap", "closed", "closed_low", "closed_high", "confidence", "n", "over"]
    table = pd.DataFrame(rows, columns=columns)
    return _in_order(table[table["arm"] != ORACLE])


def gaps(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the gap of every shift that has both arms: shift, gap (oracle minus no adaptation) with interval, n."""
    rows = []
    for name, part in runs.groupby("shift", sort=False):
        for arm, ours, base in _paired(part, NONE):
            if arm == ORACLE and len(ours):
                rows.append({"shift": name, "arm": arm, **mean_fields(ours - base, "gap", FOLDS), "n": len(ours)})
    table = pd.DataFrame(rows, columns=[*NAMES, "gap", "gap_low", "gap_high", "confidence", "n", "over"])
    return _in_order(table).drop(columns="arm")


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

    Arms worse than no adaptation by one interval at least (see `differences`); arms below it on their only fold, of
    which nothing is known but that; runs that went wrong.
    """
    said, table = [], differences(runs, images)
    for row in table.query("worse").to_dict("records"):
        change = f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
        if row["units"]:
            change += f" over folds, [{row['units_low']:+.3f}, {row['units_high']:+.3f}] over {row['units']},"
        said.append(f"{row['arm']} on {row['shift']} is worse than no adaptation: {change} mean IoU, n = {row['n']}")
    for row in table.query("n == 1 and difference < 0").to_dict("records"):
        change = f"{row['difference']:+.3f} mean IoU"
        said.append(f"{row['arm']} on {row['shift']} has less than no adaptation on its only fold: {change}, n = 1")
    for (name, arm), part in troubled(runs).groupby(NAMES, sort=False):
        every = int(((runs["shift"] == name) & (runs["arm"] == arm)).sum())
        what = "; ".join(f"seed {row.seed}: {row.trouble}" for row in part.itertuples())
        said.append(f"{arm} on {name}: {len(part)} of {every} runs went wrong ({what}); they are in its mean")
    return said


# ------------------------------------------------------------------------------------------------ after a sweep


def collect(profile: str, sweep: str | Path, folder: str | Path = "") -> None:
    """Gather what a sweep has left in its folders: curves of runs, the mean of the folds' networks (bagging), pictures.

    A sweep calls this when it has ended. Bagging of the same networks is not repeated, nor replaced by that of fewer.

    Parameters
    ----------
    profile : str
        Of the sweep.
    sweep : str or pathlib.Path
        Its folder, with ``runs/<key>/done.json``.
    folder : str or pathlib.Path
        Where ``adaptation_curves.csv`` and ``adaptation_bagged.csv`` go, beside rows that are there; ``""`` is that of
        the stored tables.
    """
    folder = Path(folder or tables_dir())
    done = [(path.parent, read_json(path)) for path in sorted(Path(sweep).glob("runs/*/done.json"))]
    done = [(place, {**row, **_names(row["configuration"])}) for place, row in done if row["profile"] == profile]
    kept = _is_kept(pd.DataFrame([row for _, row in done]), profile) if done else ()
    done = [one for one, is_kept in zip(done, kept, strict=True) if is_kept and one[1]["shift"] not in DEVELOPMENT]
    for place, row in done:
        names = {name: row[name] for name in ("profile", *NAMES, "seed", "fold")}
        curve = pd.DataFrame([names]).merge(read_table(place / "curve.csv"), how="cross")
        merge_rows(folder / CURVES_TABLE, curve, ("profile", *NAMES, "seed", "step"))
    rows = pd.DataFrame([row for _, row in done])
    for (name, arm), part in rows.groupby(NAMES) if done else ():
        places = [place for place, row in done if (row["shift"], row["arm"]) == (name, arm)]
        several = name in adaptation.GENERATED and part["fold"].nunique() > 1
        if several and not _is_bagged(part, bagged(profile, folder)):
            merge_rows(folder / BAGGED_TABLE, _bagged(profile, part, places), ("profile", *NAMES))
    for (name, seed), part in rows.groupby(["shift", "seed"]) if done else ():
        places = {row["arm"]: done[i][0] for i, row in part.iterrows()}
        if set(SHOWN) <= set(places) and (name in REAL or (name in PUBLISHED_ROWS and seed == 1)):
            (_judge_fold if name in REAL else _draw_errors)(profile, name, seed, places, folder)


def _found(profile: str, shift: str, seed: int, places: Mapping[str, Path]) -> tuple[Sequence[Record], dict, ClassMap]:
    """First test micrographs of the target, the class ids that networks give their pixels, by arm, and the classes."""
    setting = adaptation.Setting(adaptation.complete({"shift": shift}), seed, profile)
    records, scale = setting.shift.target_test[:2], setting.framing.scale
    networks = {arm: adaptation.load(place / adaptation.NETWORK)[0] for arm, place in places.items()}
    found = {
        arm: [setting.predict([net], r.image, scale).argmax(-1).astype(np.uint8) for r in records]
        for arm, net in networks.items()
    }
    return records, found, setting.shift.class_map


def _judge_fold(profile: str, shift: str, seed: int, places: Mapping[str, Path], folder: Path) -> None:
    """Draw a tested micrograph of a real target with its mask and those that the arms give it; score thin classes."""
    known = {arm: places[arm] for arm in (*SHOWN[:-1], *FEW, ORACLE) if arm in places}
    records, found, class_map = _found(profile, shift, seed, known)
    record = records[0]
    if thin := THIN.get(shift):
        names, line = {"profile": profile, "shift": shift, "seed": seed}, class_map.classes.index(thin)
        scored = [
            {**names, "arm": arm, "class": thin, **score_lines(record.mask == line, masks[0] == line, TOLERANCE_PX)}
            for arm, masks in found.items()
        ]
        merge_rows(folder / LINES_TABLE, pd.DataFrame(scored), ("profile", *NAMES, "seed"))
    panels = [Panel(record.image, None, "micrograph", record.pixel_size_um), Panel(record.image, record.mask, "truth")]
    panels += [Panel(record.image, masks[0], arm) for arm, masks in found.items()]
    fig = sheet(panels, columns=4, class_map=class_map, panel_inch=2.5)
    credit(fig, f"{shift}, tested micrograph {record.name}, seed {seed}, {profile}")
    save(fig, folder.parent, f"adaptation_masks_{shift.replace(' ', '_')}_{seed}")
    plt.close(fig)


def _draw_errors(profile: str, shift: str, seed: int, places: Mapping[str, Path], folder: Path) -> None:
    """Draw where networks are right and wrong in a generated target (Figures 4 to 6)."""
    records, found, _ = _found(profile, shift, seed, {arm: places[arm] for arm in SHOWN})
    fig = error_maps(records, found)
    credit(fig, f"{shift}, test part, seed {seed}, {profile}; lath bainite: green found, orange missed, blue invented")
    save(fig, folder.parent, f"adaptation_errors_{shift}")
    plt.close(fig)


def _is_bagged(part: pd.DataFrame, bags: pd.DataFrame) -> bool:
    """Tell whether these runs, or more of their arm, are bagged already: a fresh clone has the table, not the runs."""
    known = bags[(bags[NAMES] == part[NAMES].iloc[0]).all(axis=1)]
    same = (known["networks"] == len(part)) & np.isclose(known["single_miou"].astype(float), part["target_miou"].mean())
    return bool((same | (known["networks"] > len(part))).any())


def _bagged(profile: str, part: pd.DataFrame, places: Sequence[Path]) -> pd.DataFrame:
    configuration, seed = json.loads(part["configuration"].iloc[0]), int(part["seed"].iloc[0])
    images = adaptation.bagged([place / adaptation.NETWORK for place in places], configuration, seed, profile)
    found = {"target_miou": adaptation.pooled_miou(images), "single_miou": part["target_miou"].mean()}
    row = {"profile": profile, **{name: part[name].iloc[0] for name in NAMES}, "networks": len(places), **found}
    return pd.DataFrame([{**row, "best_miou": part["target_miou"].max(), "n_test": len(images)}])


def bagged(profile: str, folder: str | Path = "") -> pd.DataFrame:
    """Return the stored scores of bagging over folds, of one profile.

    Returns
    -------
    pandas.DataFrame
        profile, shift, arm, networks, target_miou (of the mean of their probabilities), single_miou and best_miou (mean
        and best of the networks alone), n_test (micrographs). Empty where `collect` has stored none.
    """
    columns = [*NAMES, "networks", "target_miou", "single_miou", "best_miou", "n_test"]
    return _in_order(stored_rows(BAGGED_TABLE, profile, columns, folder))


def lines(profile: str, folder: str | Path = "") -> pd.DataFrame:
    """Return how well thin classes of real targets are found as lines, whatever their width, of one profile.

    Returns
    -------
    pandas.DataFrame
        shift, arm, class, n (folds), and the means over folds of precision, recall, width_px_true and width_px_pred as
        of `micro_lib.analysis.metrics.score_lines` with a tolerance of `TOLERANCE_PX`, each with low and high (95 %,
        t). Empty where `collect` has stored none.
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


# ------------------------------------------------------------------------------------------------ claims


def beside_published(runs: pd.DataFrame, bags: pd.DataFrame) -> pd.DataFrame:
    """Return every published number of Tables 3, 4, 5 and 7 and section 4.2 that these arms answer to, beside ours.

    Parameters
    ----------
    runs : pandas.DataFrame
        As from `stored`.
    bags : pandas.DataFrame
        From `bagged`.

    Returns
    -------
    pandas.DataFrame
        where, item, quantity, shift, arm, network (ours; the item names theirs), published (as printed, with its
        standard deviation over folds), value (the number alone), ours, low, high, level (t), n, over (folds; networks,
        for the score of bagging), all in percent; ours missing where nothing was run. What bagging gains is its score
        less that of each fold's network alone.
    """
    rows = []
    for name, arm, theirs, measure in _answered():
        part, bag = (table[(table["shift"] == name) & (table["arm"] == arm)] for table in (runs, bags))
        row = {"where": theirs.where, "item": theirs.item, "quantity": theirs.quantity, "shift": name, "arm": arm}
        found = {**_NOTHING, **_percent(part, bag, measure)}
        row["network"] = ", ".join(part["architecture"].unique())
        rows.append({**row, "published": theirs.printed, "value": theirs.number, **found})
    return pd.DataFrame(rows)


BAGGED, BAGGING = "score of bagging", "gain of bagging"
_NOTHING = {"ours": math.nan, "low": math.nan, "high": math.nan, "level": math.nan, "n": 0, "over": ""}


def _answered() -> Iterator[tuple[str, str, Cell, str]]:
    """Shift, arm, published number, measure of ours."""
    for name, (where, *numbers) in PUBLISHED_ROWS.items():
        for arm, number in zip((NONE, ADVERSARIAL), numbers, strict=True):
            item = f"{number}, {'DG' if arm == NONE else 'UDA'} - ResNet-101 DeepLabv2, ImageNet, extended"
            yield name, arm, published(where, item, "mIoU"), "target_miou"
            yield name, arm, published(where, item, "RDT"), "rdt"
            yield name, arm, published("Table 7", name, f"phase fraction, {arm}"), f"target_found_{LATHS}"
        yield name, ADVERSARIAL, published("Table 7", name, "phase fraction, truth"), f"target_true_{LATHS}"
        yield name, ADVERSARIAL, published("section 4.2", name, "source mIoU after adaptation"), "source_miou"
        bagging = published("section 4.2", name, "mIoU of five folds averaged (bagging)")
        yield name, ADVERSARIAL, bagging, BAGGED
        yield name, ADVERSARIAL, published("section 4.2", name, BAGGING), BAGGING
    yield "T3", ORACLE, published("section 4.2", "T3, trained on target labels", "mIoU"), "target_miou"


published = partial(cell, "Goetz 2022")


def _percent(part: pd.DataFrame, bag: pd.DataFrame, measure: str) -> dict:
    """Our number with its interval over folds; empty where runs, or the bagging of these runs, are missing."""
    if part.empty or (measure in (BAGGED, BAGGING) and not _is_bagged(part, bag)):
        return {}
    if measure == BAGGED:
        return {"ours": 100 * float(bag["target_miou"].item()), "n": int(bag["networks"].item()), "over": "networks"}
    if measure == BAGGING:
        part = part.assign(**{BAGGING: bag["target_miou"].item() - part["target_miou"]})
    folds = _by_fold(part, [measure])[measure]
    return ours_of({**mean_fields(folds, "ours", FOLDS), "n": len(folds)}, "ours", 100)


def claims(runs: pd.DataFrame, images: pd.DataFrame, bags: pd.DataFrame, *, profile: str) -> pd.DataFrame:
    """Judge what Goetz et al. 2022 say of adaptation: Tables 3, 4, 5 and 7, sections 3.2, 4.2 and 4.3.

    Levels stand beside ours unjudged: micrographs generated after the paper's words have their own. Effects are judged:
    reproduced if our interval over folds excludes zero, holds the published one and reaches no further than a quarter
    of it to either side; their direction if it only excludes zero on the same side.

    Parameters
    ----------
    runs, images, bags : pandas.DataFrame
        As from `stored` and `bagged`; fewer than two folds judge nothing.
    profile : str
        As for `micro_lib.application.tables.claim_rows`.

    Returns
    -------
    pandas.DataFrame
        Rows of the claims table, numbers in percent, or percentage points, unless their unit says otherwise.
    """
    rows, gained = [], differences(runs, images)
    for ours in beside_published(runs, bags).to_dict("records"):
        theirs = published(ours["where"], ours["item"], ours["quantity"])
        told = "" if ours["where"] == "Table 7" else f", {ours['arm']}"
        found = _bagging(ours, theirs) if theirs.quantity == BAGGING else beside_level(ours)
        rows.append(percent_claim(f"{ours['quantity']} on {ours['shift']}{told}", found, theirs))
    for name in PUBLISHED_ROWS:
        theirs = published("section 3.2", f"{name}, AdaptSegNet against none", "mIoU gained")
        rows.append(percent_claim(f"mIoU gained by AdaptSegNet on {name}", _gain(gained, name, theirs.value), theirs))
        theirs = published("section 4.2", name, "source mIoU gained by adaptation")
        found = _change(runs, name, "source_miou")
        found = judged_gain(found, theirs.number, f"against {NONE}; {_IMITATED}") if found else TOO_FEW
        rows.append(percent_claim(f"mIoU gained on the source by AdaptSegNet on {name}", found, theirs))
    rows += [_share(runs), _lost(runs), *_estimates(runs), _scatter(runs), *_insensitive(runs), _inverted(runs)]
    return claim_rows(rows, profile=profile, notebook="10_domain_adaptation", runs=runs)


def percent_claim(claim: str, found: Mapping, *theirs: Cell) -> dict:
    """Return a claim in percent with the published numbers that it answers and what was found."""
    return {"claim": claim, **answering(*theirs), "unit": "%", **found}


TOO_FEW = {"verdict": NOT_RUN, "why": "needs runs of two folds or more of these arms"}
_IMITATED = "paired over folds; generated micrographs made after the paper's words, a light network"


def beside_level(row: Mapping) -> dict:
    """Return the fields of a claim on a level of closed data, ours from a row as of `beside_published`."""
    why = "the micrographs are closed; ours are generated after the paper's words, segmented by a light network"
    if row["quantity"] == "phase fraction, truth":
        why += "; the truth is what the generator was told"
    return untestable_level({name: row[name] for name in _NOTHING}, why)


def _bagging(ours: Mapping, theirs: Cell) -> dict:
    if ours["n"] < 2:
        return TOO_FEW
    why = f"mean of the networks' probabilities less each network alone, the former held fixed; {_IMITATED}"
    return judged_gain({name: ours[name] for name in _NOTHING}, theirs.value, why)


def _gain(gained: pd.DataFrame, name: str, theirs: float) -> dict:
    row = gained[(gained["shift"] == name) & (gained["arm"] == ADVERSARIAL) & (gained["n"] > 1)]
    return percent_gain(row.iloc[0], theirs, _IMITATED) if len(row) else TOO_FEW


def percent_gain(row: Mapping, theirs: float, made: str) -> dict:
    """Judge a published gain in percent by a row of `differences`; `made` says what ours was measured on."""
    return judged_gain(ours_of(row, "difference", 100), theirs, f"p = {row['p']:.2g}; {made}")


def _change(runs: pd.DataFrame, name: str, measure: str, against: str = NONE) -> dict:
    """AdaptSegNet on a shift less another arm, in percentage points; empty with fewer than two folds."""
    found = {arm: (ours, base) for arm, ours, base in _paired(runs[runs["shift"] == name], against, measure)}
    return _percentage(*found.get(ADVERSARIAL, ((), ())))


def _contrast(runs: pd.DataFrame, name: str, other: str) -> dict:
    """AdaptSegNet on a shift less on another one, in percentage points; empty with fewer than two folds."""
    found = {one: (ours, base) for one, ours, base in _paired(runs[runs["arm"] == ADVERSARIAL], other, by="shift")}
    return _percentage(*found.get(name, ((), ())))


def _percentage(ours: Sequence[float], base: Sequence[float]) -> dict:
    return ours_of(paired_fields(ours, base, FOLDS), "difference", 100) if len(ours) > 1 else {}


def _share(runs: pd.DataFrame) -> dict:
    """How far AdaptSegNet goes to the score with target labels on T3, from 49.7 by 73.3 to 79."""
    items = [f"{n}, {how} - ResNet-101 DeepLabv2, ImageNet, extended" for n, how in (("T3.1", "DG"), ("T3.2", "UDA"))]
    none, adapted = (published("Table 5", item, "mIoU").value for item in items)
    oracle = published("section 4.2", "T3, trained on target labels", "mIoU").value
    theirs = 100 * (adapted - none) / (oracle - none)
    stated = {"paper": "Goetz 2022", "where": "Table 5, section 4.2", "published": f"{theirs:.0f} %", "unit": "%"}
    stated["claim"] = "share of the gap to target labels closed by AdaptSegNet on T3"
    row = gap_closed(runs).query("shift == 'T3' and arm == @ADVERSARIAL")
    if row.empty or math.isnan(row["closed_low"].item()):
        return stated | TOO_FEW
    why = f"from {none:g} by {adapted:g} to {oracle:g}; Fieller's interval; {_IMITATED}"
    return stated | judged_gain(ours_of(row.iloc[0], "closed", 100), theirs, why)


def _lost(runs: pd.DataFrame) -> dict:
    """Whether the drop is 6 % only: more is no reproduction, and less is one of its direction."""
    theirs = published("section 4.2", "T3, AdaptSegNet against target labels", "mIoU lost")
    found = _change(runs, "T3", "target_miou", ORACLE)
    if found:
        found |= {"ours": -found["ours"], "low": -found["high"], "high": -found["low"]}
        won = 0 < found["low"] <= theirs.value or found["high"] < theirs.value
        found = judged_gain(found, theirs.value, f"target labels less AdaptSegNet; {_IMITATED}", won)
    return percent_claim("mIoU lost by AdaptSegNet to target labels on T3", found or TOO_FEW, theirs)


def _estimates(runs: pd.DataFrame) -> Iterator[dict]:
    """Whether the error of the phase fraction shrinks on each target, and on how many; Table 7 and the text differ."""
    columns = [f"target_{kind}_{LATHS}" for kind in ("found", "true")]
    off = runs.assign(off=runs[columns[0]] - runs[columns[1]] if set(columns) <= set(runs) else math.nan)
    off["off"] = off["off"].abs()
    changes = {name: _change(off, name, "off") for name in PUBLISHED_ROWS}
    for name, found in changes.items():
        none, adapted, true = (
            published("Table 7", name, f"phase fraction, {kind}").value for kind in (NONE, ADVERSARIAL, "truth")
        )
        stated = {"paper": "Goetz 2022", "where": "section 4.2", "unit": "%"}
        stated["claim"] = f"AdaptSegNet improves the estimated phase fraction on {name}: change of its absolute error"
        stated["published"] = f"improved; Table 7: {abs(none - true):.1f} without, {abs(adapted - true):.1f} with"
        yield stated | (judged_statement(found, found["high"] < 0, _IMITATED) if found else TOO_FEW)
    theirs = published("section 4.2", "phase fractions", "targets of three whose estimate AdaptSegNet improves")
    claim = percent_claim("targets of three whose estimated phase fraction AdaptSegNet improves", TOO_FEW, theirs)
    if all(changes.values()):
        improved = sum(found["high"] < 0 for found in changes.values())
        found = {"kind": "effect", "ours": improved, "n": len(changes), "over": "targets"}
        found |= {"verdict": "reproduced" if improved == theirs.value else "not reproduced"}
        claim |= {**found, "why": f"improved where the interval lies below 0; their own Table 7: {theirs.recomputed:g}"}
    yield claim | {"unit": "1"}


def _scatter(runs: pd.DataFrame) -> dict:
    """The ratio of two standard deviations over folds, with the interval of Fisher's F as if they were independent."""
    theirs = published("section 4.2", "phase fractions", "factor by which AdaptSegNet reduces the scatter on T3")
    claim = percent_claim(
        "factor by which AdaptSegNet reduces the scatter of the phase fraction on T3", TOO_FEW, theirs
    )
    laths = phase_fractions(runs).query("shift == 'T3' and `class` == @LATHS").set_index("arm")
    if {NONE, ADVERSARIAL} <= set(laths.index) and (laths.loc[[NONE, ADVERSARIAL], "n"] > 1).all():
        sd, n = laths["found_sd"], laths["n"]
        ratio = sd[NONE] / sd[ADVERSARIAL]
        ends = stats.f.ppf([(1 + LEVEL) / 2, (1 - LEVEL) / 2], n[NONE] - 1, n[ADVERSARIAL] - 1)
        ours = dict(zip(("low", "high"), (float(ratio / math.sqrt(end)) for end in ends), strict=True))
        ours |= {"ours": float(ratio), "level": LEVEL, "n": int(min(n[NONE], n[ADVERSARIAL])), "over": FOLDS}
        why = f"standard deviations over folds, Fisher's F; their own Table 7: {theirs.recomputed:g}"
        claim |= judged_gain(ours, theirs.value, f"{why}; {_IMITATED.partition('; ')[2]}", won=ours["low"] > 1)
    return claim | {"unit": "1"}


def _insensitive(runs: pd.DataFrame) -> Iterator[dict]:
    """Whether what T3 and T3v differ by is less, with certainty, than the least that the paper calls a gain."""
    quantity, found = "mIoU", _contrast(runs, "T3 tested at 40 %", "T3v tested at 40 %")
    for name in ("T3", "T3v"):
        part = runs[(runs["shift"] == f"{name} tested at 40 %") & (runs["arm"] == ADVERSARIAL)]
        level = {**_NOTHING, **_percent(part, part[:0], "target_miou"), "quantity": quantity}
        theirs = published("section 4.3", f"{name}, common test images", quantity)
        yield percent_claim(f"mIoU on {name}, common test images, {ADVERSARIAL}", beside_level(level), theirs)
    theirs = published("section 4.3", "T3 against T3v, common test images", "mIoU gained")
    gains = [published("section 3.2", f"{name}, AdaptSegNet against none", "mIoU gained") for name in PUBLISHED_ROWS]
    least = min(gain.value for gain in gains)
    if found:
        held = -least < found["low"] and found["high"] < least
        found |= {"kind": "effect", "verdict": "reproduced" if held else "not reproduced"}
        found["why"] = f"whether the interval lies within {least:g} points, the least published gain; {_IMITATED}"
    yield percent_claim("phase fractions of source and target may differ: T3 less T3v", found or TOO_FEW, theirs)


def _inverted(runs: pd.DataFrame) -> dict:
    stated = {"paper": "Goetz 2022", "where": "section 4.3", "unit": "%"}
    stated |= {"claim": "AdaptSegNet fails on T3 unless it is inverted", "published": "the learning process failed"}
    found = _contrast(runs, "T3", "T3 not inverted")
    if found:
        found = judged_statement(found, found["low"] > 0, f"mIoU inverted less not inverted; {_IMITATED}")
    return stated | (found or TOO_FEW)
