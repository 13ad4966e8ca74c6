"""Verdicts on what Goetz et al. 2022 say of source training: Tables 2, 3, 4 and 6, sections 3.1, 4.1 and 4.2."""

import numpy as np
import pandas as pd

from micro_lib.application.published import judged_statement, ours_of
from micro_lib.application.tables import claim_rows, mean_fields
from micro_lib.reports.adaptation_claims import TOO_FEW, beside_level, percent_claim, percent_gain, published
from micro_lib.reports.adaptation_report import FOLDS
from micro_lib.reports.source_report import AS_LONG, answered, beside_published, effects, grid


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
        for arm, one, _ in answered()
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
