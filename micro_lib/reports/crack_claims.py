"""Verdicts on Table 1 and section 3.1.3 of Trampert et al. 2021 by our runs of the crack classifier."""

from itertools import product

import pandas as pd

from micro_lib.application.published import Cell, answering, cell, judged_gain, judged_level, judged_statement, ours_of
from micro_lib.application.tables import NOT_RUN, claim_rows, rounded
from micro_lib.reports.crack_report import (
    ARMS,
    LEVEL,
    MEASURES,
    PRINTED,
    compare,
    compare_specimens,
    of_arm,
    over_specimens,
    table_1,
    table_1_cell,
)


def claims(runs: pd.DataFrame, counts: pd.DataFrame, *, profile: str) -> pd.DataFrame:
    """Judge Table 1 of Trampert et al. 2021 and the reductions of section 3.1.3 by our runs.

    Runs share specimens and folds, so intervals are over specimens; those over runs, the paper's, go with the reason.

    Parameters
    ----------
    runs, counts : pandas.DataFrame
        As from `stored`; runs on generated stand-ins judge nothing, nor does a single run an arm.
    profile : str
        Profile the runs come from.

    Returns
    -------
    pandas.DataFrame
        Rows of the claims table.
    """
    judged = runs[~runs["generated"].astype(bool)] if len(runs) else runs
    enough = all(len(of_arm(judged, arm)) > 1 for arm in ARMS)
    rows = []
    for measure, judge in product(MEASURES, (_saving, _reduction, _chance)):
        rows.append(judge(judged, counts, measure, enough))
    rows += [_level(judged, counts, measure, enough, arm) for measure, arm in product(MEASURES, ARMS)]
    rows.append(_synthetic(counts, enough))
    return claim_rows(
        rows,
        profile=profile,
        notebook="04_crack_classification",
        runs=of_arm(judged, "mixed") if enough else judged[:0],
    )


_UNKNOWN = {"verdict": NOT_RUN, "why": "needs two or more runs of every arm on the real tiles"}
_PAIRS = [("mixed", "real"), ("mixed", "real long")]


def _section_cell(quantity: str, measure: str) -> Cell:
    return cell("Trampert 2021", "section 3.1.3", "mixed against real", f"{quantity}, {PRINTED[measure]}")


def _chance(runs: pd.DataFrame, counts: pd.DataFrame, measure: str, enough: bool) -> dict:
    """Direction reproduced: mixed training makes fewer errors, significantly at `LEVEL`; the p itself goes with n."""
    theirs = cell("Trampert 2021", "Table 1", "mixed against real", f"p, {PRINTED[measure]}")
    claim = {**answering(theirs), "claim": f"p of mixed against real training over runs: {MEASURES[measure]}"}
    if not enough:
        return claim | _UNKNOWN
    row = compare(runs, _PAIRS[:1], measure).iloc[0]
    won = row["difference"] < 0 and row["p"] < 1 - LEVEL
    why = f"paired two-tailed t as if runs were independent, as published; mixed minus real {row['difference']:+.3f}"
    found = {"kind": "effect", "ours": row["p"], "n": int(row["n"]), "over": row["over"], "why": why}
    return {**claim, **found, "verdict": "direction reproduced" if won else "not reproduced"}


def _saving(runs: pd.DataFrame, counts: pd.DataFrame, measure: str, enough: bool) -> dict:
    theirs = _section_cell("errors saved", measure)
    claim = {**answering(theirs), "claim": f"mixed training saves errors of the crack classifier: {MEASURES[measure]}"}
    return claim | (_gain(runs, counts, measure, theirs, "saved", 1) if enough else _UNKNOWN)


def _reduction(runs: pd.DataFrame, counts: pd.DataFrame, measure: str, enough: bool) -> dict:
    theirs = _section_cell("error reduced", measure)
    claim = {**answering(theirs), "claim": f"mixed training reduces the rate of the {MEASURES[measure]}"}
    return claim | (_gain(runs, counts, measure, theirs, "difference", -1) if enough else _UNKNOWN)


def _gain(runs: pd.DataFrame, counts: pd.DataFrame, measure: str, theirs: Cell, name: str, factor: int) -> dict:
    """Direction reproduced: better than both real arms over specimens; reproduced: holding the published gain too."""
    over_runs = compare(runs, _PAIRS, measure).set_index("against")
    specimens = compare_specimens(counts, _PAIRS, every=measure == "all_error").set_index("against")
    if "real" not in specimens.index:
        return _UNKNOWN
    gain = ours_of(over_runs.loc["real"], name, factor)
    why = f"over {gain['n']} {gain['over']}, paired: {rounded(gain['ours'], gain['low'], gain['high'])} at "
    why += f"{100 * gain['level']:g} %, p = {over_runs.loc['real', 'p']:.2g}"
    if "real long" in specimens.index:
        long = ours_of(specimens.loc["real long"], name, factor)
        why += f"; against as many steps on real tiles alone {rounded(long['ours'], long['low'], long['high'])}"
    ours = ours_of(specimens.loc["real"], name, factor)
    return judged_gain(ours, theirs.value, why, won=bool(specimens["better"].all()))


def _synthetic(counts: pd.DataFrame, enough: bool) -> dict:
    stated = {"paper": "Trampert 2021", "where": "section 3.1.3", "published": "even lower on the test data"}
    stated["claim"] = "synthetic tiles alone err less than real ones: error on held specimens, synthetic less real"
    rows = compare_specimens(counts, [("synthetic", "real")])
    if not enough or rows.empty:
        return stated | _UNKNOWN
    row = rows.iloc[0]
    why = "resampled specimens; another material, and real tiles of which a light network needs few"
    return stated | judged_statement(ours_of(row, "difference"), bool(row["better"]), why)


def _level(runs: pd.DataFrame, counts: pd.DataFrame, measure: str, enough: bool, arm: str) -> dict:
    theirs = table_1_cell(arm, measure)
    claim = {**answering(theirs), "claim": f"crack classifier, {arm} model: {MEASURES[measure]}"}
    specimens = over_specimens(counts, [arm], every=measure == "all_error")
    if not enough or specimens.empty:
        return claim | _UNKNOWN
    mean = ours_of(table_1(runs, measure, [arm]).iloc[0], "error")
    why = "other material: the paper's 510 tiles of chips could not be had; "
    why += f"over {mean['n']} {mean['over']} {rounded(mean['ours'], mean['low'], mean['high'])} at "
    why += f"{100 * mean['level']:g} %"
    return claim | judged_level(ours_of(specimens.iloc[0], "error"), theirs.value, why)
