"""Tables of the source experiment: Tables 2, 3, 4 and 6 of Goetz et al. 2022 beside ours, what changed a score."""

import json
import math
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import pandas as pd

from micro_lib.application.published import Cell, ours_of
from micro_lib.application.tables import mean_fields, paired_fields, stored_sweep
from micro_lib.reports import adaptation_report
from micro_lib.reports.adaptation_claims import published
from micro_lib.reports.adaptation_report import FOLDS
from micro_lib.training import source
from micro_lib.training.source import AUGMENTATIONS, TARGETS

DOMAINS = ("source", *TARGETS)
FACTORS = ("pretraining", "task", "augmentation", "schedule")
AS_LONG = "200 epochs"  # the schedule that Table 6 is compared with
# The paper's words for what the encoder knew; pictures of our own generators stand for its NanoSEM.
PUBLISHED_NAMES = {"random": "random", "ImageNet": "ImageNet", "two-stage": "NanoSEM"}


def arm_of(configuration: str | Mapping) -> str:
    """Return the name of the arm of a stored configuration (JSON), with the network where it is not the profile's."""
    values = json.loads(configuration) if isinstance(configuration, str) else configuration
    full = source.complete(values)
    wanted = full | {"architecture": ""}
    name = next((n for n in source.CONFIGURATIONS if source.complete(n) == wanted), "")
    name = name or ", ".join(filter(None, (full[factor] for factor in FACTORS)))
    return f"{name}, {full['architecture']}" if full["architecture"] else name


def stored(profile: str, folder: str | Path = "") -> pd.DataFrame:
    """Return the stored runs of one profile, as `source.run` returns them with arm; empty where there are none.

    Parameters
    ----------
    profile : str
        Usually ``"study"``.
    folder : str or pathlib.Path
        As for `micro_lib.application.tables.stored_sweep`.
    """

    def named(text: str) -> dict:
        full = source.complete(json.loads(text))  # a table has an empty cell for ""
        return {"arm": arm_of(text), **{factor: full[factor] for factor in FACTORS}}

    runs = stored_sweep("source", profile, named, ("arm", "seed", "fold", "architecture", *FACTORS), folder)[0]
    told = runs["trouble"].fillna("") if "trouble" in runs else ""  # of which the oldest rows say nothing
    return runs.assign(trouble=told)


def scores(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the mean IoU of every arm on every domain.

    Parameters
    ----------
    runs : pandas.DataFrame
        From `stored`, or rows of `source.run` with arm and seed.

    Returns
    -------
    pandas.DataFrame
        arm, `FACTORS`, n (folds), troubled (runs in which something went wrong; they count), and for each of `DOMAINS`
        <domain> with <domain>_low and <domain>_high (95 %, t over folds, missing for a single one) and <domain>_sd; in
        the order of the configurations.
    """
    rows = []
    for (arm, *factors), part in runs.groupby(["arm", *FACTORS], sort=False):
        folds = _by_fold(part)
        row = {"arm": arm, **dict(zip(FACTORS, factors, strict=True)), "n": len(folds)}
        row["troubled"] = int((part["trouble"] != "").sum())
        for name in DOMAINS:
            values = folds[f"{name}_miou"]
            row |= mean_fields(values, name, FOLDS) | {f"{name}_sd": values.std()}
        rows.append(row)
    known = list(source.CONFIGURATIONS)
    rows.sort(key=lambda row: known.index(row["arm"]) if row["arm"] in known else len(known))
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else ["arm", *FACTORS, "n", *DOMAINS])


def _by_fold(part: pd.DataFrame) -> pd.DataFrame:
    return part.groupby("fold").mean(numeric_only=True)


def effects(runs: pd.DataFrame, factor: str, base: str) -> pd.DataFrame:
    """Return what each level of a factor changes in mean IoU, averaged over the levels of the other, paired by fold.

    Parameters
    ----------
    runs : pandas.DataFrame
        As for `scores`; of the grid alone, see `grid`.
    factor : str
        ``"pretraining"`` or ``"augmentation"``.
    base : str
        The level the others are compared with.

    Returns
    -------
    pandas.DataFrame
        level, against, domain, n (folds), difference with difference_low and difference_high (95 %, t over folds), p,
        confidence and over (of the interval). Levels count over those of the other factor that both have in the same
        seed; with fewer than two folds nothing is said.
    """
    other = "augmentation" if factor == "pretraining" else "pretraining"
    rows = []
    for domain in DOMAINS if len(runs) else ():
        wide = runs.pivot_table(index=["fold", "seed", other], columns=factor, values=f"{domain}_miou")
        for level in [name for name in wide if name != base and base in wide]:
            folds = wide[[level, base]].dropna().groupby("fold").mean()
            if len(folds) > 1:
                row = {"level": level, "against": base, "domain": domain}
                rows.append(row | paired_fields(folds[level], folds[base], FOLDS))
    return pd.DataFrame(rows, columns=["level", "against", "domain", *_DIFFERENCE])


_DIFFERENCE = ["n", "difference", "difference_low", "difference_high", "p", "confidence", "over"]


def longer(runs: pd.DataFrame) -> pd.DataFrame:
    """Return what the second half of training changes in mean IoU (Table 6: 100 and 200 epochs), paired by fold.

    Returns
    -------
    pandas.DataFrame
        arm, domain, half and whole (means), n (folds), difference, and its interval and p as of `effects`, missing for
        a single fold.
    """
    rows = []
    for arm, part in runs.groupby("arm", sort=False):
        folds = _by_fold(part)
        for name in DOMAINS:
            whole, half = folds[f"{name}_miou"], folds[f"{name}_miou_half"]
            means = {"arm": arm, "domain": name, "half": half.mean(), "whole": whole.mean()}
            rows.append(means | paired_fields(whole, half, FOLDS))
    return pd.DataFrame(rows, columns=["arm", "domain", "half", "whole", *_DIFFERENCE])


def grid(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of pre-training x augmentation: the profile's network and steps, the usual task in domain."""
    return runs[runs["arm"].isin([", ".join(names) for names in product(source.PRETRAININGS, AUGMENTATIONS)])]


# Beside the paper


def as_printed() -> pd.DataFrame:
    """Return Table 2 of the paper as it is printed: encoders down, augmentations across, mean IoU in percent."""
    found = [(arm, theirs.printed) for arm, theirs, _ in answered() if theirs.where == "Table 2"]
    rows = [(*arm.split(", "), printed) for arm, printed in found]
    table = pd.DataFrame(rows, columns=["encoder", "augmentation", "printed"])
    table["encoder"] = table["encoder"].map(PUBLISHED_NAMES)
    return table.pivot(index="encoder", columns="augmentation", values="printed").reindex(
        index=list(PUBLISHED_NAMES.values()), columns=list(AUGMENTATIONS)
    )


def beside_published(runs: pd.DataFrame, adapted: pd.DataFrame) -> pd.DataFrame:
    """Return every published number of Tables 2, 3, 4 and 6 of a network trained on the source alone, beside ours.

    Parameters
    ----------
    runs : pandas.DataFrame
        As from `stored`.
    adapted : pandas.DataFrame
        Runs of the adaptation experiment, from `adaptation_report.stored`, whose arm without adaptation is S.10.

    Returns
    -------
    pandas.DataFrame
        where, item, quantity, arm, network (ours; the item names theirs), published (as printed), value (the number
        alone), ours, low, high, level (t), n and over (folds), all in percent; ours missing where nothing was run.
    """
    rows = []
    for arm, theirs, measure in answered():
        part = runs[runs["arm"] == arm]
        rows.append(_row(arm, theirs, part, measure(_by_fold(part)) if len(part) else pd.Series(dtype=float)))
    part = adapted[(adapted["arm"] == adaptation_report.NONE) & adapted["shift"].isin(TARGETS)]
    theirs = published("Table 2", "S.10, ResNet-101 DeepLabv2, ImageNet, extended", "mIoU")
    return pd.DataFrame([*rows, _row(adaptation_report.NONE, theirs, part, part.groupby("fold")["source_miou"].mean())])


def _row(arm: str, theirs: Cell, runs: pd.DataFrame, folds: pd.Series) -> dict:
    row = {"where": theirs.where, "item": theirs.item, "quantity": theirs.quantity, "arm": arm}
    row |= {"network": ", ".join(runs["architecture"].unique()), "published": theirs.printed, "value": theirs.value}
    values = 100 * folds.to_numpy(float)
    if not len(values):
        return row | {"ours": math.nan, "low": math.nan, "high": math.nan, "level": math.nan, "n": 0, "over": ""}
    return row | ours_of({**mean_fields(values, "ours", FOLDS), "n": len(values)}, "ours")


def answered() -> Iterator[tuple[str, Cell, object]]:
    """Yield arm, published number, and what of runs by fold answers it."""
    names = [(pretraining, augmentation) for pretraining in PUBLISHED_NAMES for augmentation in AUGMENTATIONS]
    for number, (pretraining, augmentation) in enumerate(names, 1):
        arm, network = f"{pretraining}, {augmentation}", f"VGG16 U-Net, {PUBLISHED_NAMES[pretraining]}, {augmentation}"
        yield arm, published("Table 2", f"S.{number}, {network}", "mIoU"), _miou("source")
        for where, name in (("Table 3", "T1"), ("Table 4", "T2")):
            item = f"{name}.{number}, DG - {network}"
            yield arm, published(where, item, "mIoU"), _miou(name)
            yield arm, published(where, item, "RDT"), _transferability(f"{name}_miou")
        for epochs, suffix in ((100, "_half"), (200, "")):
            item = f"T2.{number}, {network}"
            told = f"{arm}, {AS_LONG}"
            yield told, published("Table 6", item, f"mIoU, {epochs} epochs"), _miou("T2", suffix)
            yield told, published("Table 6", item, f"RDT, {epochs} epochs"), _transferability(f"T2_miou{suffix}")


def _miou(domain: str, suffix: str = ""):
    return lambda folds: folds[f"{domain}_miou{suffix}"]


def _transferability(column: str):
    """As printed: also after 100 epochs over the source's score after 200."""
    return lambda folds: folds[column] / folds["source_miou"] - 1
