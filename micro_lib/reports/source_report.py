"""Tables of the source experiment: Tables 2, 3, 4 and 6 of Goetz et al. 2022 beside ours, what changed a score."""

import json
import math
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from micro_lib.application.published import Cell, judged_statement, ours_of
from micro_lib.application.tables import claim_rows, mean_fields, paired_fields, stored_sweep
from micro_lib.reports import adaptation_report
from micro_lib.reports.adaptation_claims import TOO_FEW, beside_level, percent_claim, percent_gain, published
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
    found = [(arm, theirs.printed) for arm, theirs, _ in _answered() if theirs.where == "Table 2"]
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
    for arm, theirs, measure in _answered():
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


def _answered() -> Iterator[tuple[str, Cell, object]]:
    """Arm, published number, and what of runs by fold answers it."""
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


def claims(runs: pd.DataFrame, adapted: pd.DataFrame, *, profile: str) -> pd.DataFrame:
    """Judge what Goetz et al. 2022 say of source training: Tables 2, 3, 4 and 6, sections 4.1 and 4.2.

    Levels stand beside ours unjudged: micrographs generated after the paper's words have their own. Effects are judged:
    reproduced if our interval over folds excludes zero, holds the published one and reaches no further than a quarter
    of it to either side; their direction if it only excludes zero on the same side.

    Parameters
    ----------
    runs, adapted : pandas.DataFrame
        As for `beside_published`; fewer than two folds judge nothing.
    profile : str
        As for `micro_lib.application.tables.claim_rows`.

    Returns
    -------
    pandas.DataFrame
        Rows of the claims table, numbers in percent or percentage points.
    """
    rows = []
    for ours in beside_published(runs, adapted).to_dict("records"):
        theirs = published(ours["where"], ours["item"], ours["quantity"])
        rows.append(percent_claim(f"{theirs.where}, {theirs.item}: {theirs.quantity}", beside_level(ours), theirs))
    for base, name in (("random", "random"), ("ImageNet", "ImageNet")):
        theirs = published("section 4.1", f"NanoSEM against {name}", "mIoU gained on the source")
        told = f"pre-training in domain after ImageNet against {name}: mIoU gained on the source"
        rows.append(percent_claim(told, _gain(runs, base, theirs.value), theirs))
    rows += [_stated(runs, *contrast) for contrast in _STATED]
    return claim_rows([*rows, _forgetting(runs)], profile=profile, notebook="09_source_segmentation", runs=runs)


_IMITATED = (
    "paired over folds; generated micrographs and generated pictures for NanoSEM, made after the paper's words, a "
    "light network"
)
# Factor, its level, what that is compared with, where, sign of the effect, section, the paper's words.
_STATED = (
    ("augmentation", "basic", "none", "source", 1, "section 3.1", "basic compares favourably to none"),
    ("augmentation", "extended", "basic", "source", 1, "section 3.1", "extended grants better results than basic"),
    ("augmentation", "extended", "basic", "T2", -1, "section 4.2", "basic consistently outperforms extended"),
    ("pre-training", "ImageNet", "random", "source", 1, "section 3.1", "ImageNet surpasses random initialisation"),
    ("pre-training", "in-domain", "ImageNet", "source", -1, "section 4.1", "solely on NanoSEM: poor performance"),
)


def _gain(runs: pd.DataFrame, base: str, theirs: float) -> dict:
    """Of the extended augmentation, as the paper compares S.9 with S.3 and S.6."""
    found = effects(grid(runs)[lambda rows: rows["augmentation"] == "extended"], "pretraining", base)
    row = found[(found["level"] == "two-stage") & (found["domain"] == "source")]
    return percent_gain(row.iloc[0], theirs, _IMITATED) if len(row) else TOO_FEW


def _stated(runs: pd.DataFrame, factor: str, level: str, base: str, domain: str, sign: int, *said: str) -> dict:
    stated = {"paper": "Goetz 2022", "where": said[0], "published": said[1], "unit": "%"}
    stated["claim"] = f"{level} {factor} against {base}: mIoU gained on {domain}"
    row = effects(grid(runs), factor.replace("-", ""), base).query("level == @level and domain == @domain")
    if row.empty:
        return stated | TOO_FEW
    found = ours_of(row.iloc[0], "difference", 100)
    holds = sign * found["low"] > 0 and sign * found["high"] > 0
    other = "augmentations" if factor == "pre-training" else "pre-trainings"
    return stated | judged_statement(found, holds, f"mean over {other}, {_IMITATED}")


def _forgetting(runs: pd.DataFrame) -> dict:
    """Whether the second half of training costs networks from ImageNet on T2; the text says so, Table 6 is mixed."""
    cells = [
        one
        for arm, one, _ in _answered()
        if one.where == "Table 6" and one.quantity.startswith("mIoU") and arm.startswith("ImageNet")
    ]
    changes = np.array([later.value - earlier.value for earlier, later in zip(cells[::2], cells[1::2], strict=True)])
    printed = f"decreases; in Table 6 {(changes < 0).sum()} of {len(changes)} arms"
    stated = {"paper": "Goetz 2022", "where": "section 4.2", "published": printed, "unit": "%"}
    stated["claim"] = "from ImageNet, generalisation decreases between 100 and 200 epochs: change of mIoU on T2"
    part = runs[(runs["schedule"] == AS_LONG) & (runs["pretraining"] == "ImageNet")]
    if not len(part) or part["fold"].nunique() < 2:
        return stated | TOO_FEW
    folds = part.assign(change=part["T2_miou"] - part["T2_miou_half"]).groupby("fold")["change"].mean()
    found = ours_of({**mean_fields(folds, "change", FOLDS), "n": len(folds)}, "change", 100)
    return stated | judged_statement(found, found["high"] < 0, f"mean over augmentations, {_IMITATED}")
