"""Verdicts on Table 2 and section 3.3 of Trampert et al. 2021: adaptive against random sampling."""

from itertools import product

import numpy as np
import pandas as pd

from micro_lib.application.published import Cell, answering, cell, judged_gain, judged_level, ours_of
from micro_lib.application.tables import NOT_RUN, claim_rows
from micro_lib.reports import grain_report
from micro_lib.reports.adaptive_report import ARMS, PRINTED, SIGNS, compare, table_2, table_2_cell


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
    for arm, score in product(ARMS, SIGNS):
        claim = {"claim": f"{PRINTED[score]} after {arm} fine-tuning, 1,000 new images"}
        rows.append({**answering(table_2_cell(arm, score)), **claim, **_level(table, images, arm, score)})
    for score in SIGNS:
        gained, chance = (_gain_cell(name) for name in (f"{PRINTED[score]} gained", f"p, {_SHORT[score]}"))
        claim = {"claim": f"{PRINTED[score]}: adaptive minus random fine-tuning"}
        rows.append({**claim, **answering(gained), **_gain(difference, score, gained.number)})
        claim = {"claim": f"p of adaptive against random fine-tuning over runs: {PRINTED[score]}"}
        rows.append({**claim, **answering(chance), **_chance(difference, score)})
    judged = real if len(table) else real[:0]
    return claim_rows(rows, profile=profile, notebook="06_adaptive_sampling", runs=judged)


_SHORT = {"error": "error", "miou": "IoU"}  # as the section has them
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
    ours = ours_of(row, "difference")
    return judged_gain(ours, published, why, won=row["better"])
