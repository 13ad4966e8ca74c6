"""Verdicts on what Trampert et al. 2021, section 3.2.3, say of grain boundaries found without a real label."""

import pandas as pd

from micro_lib.application.published import Cell, answering, cell, judged_level, judged_statement, ours_of
from micro_lib.application.tables import NOT_RUN, claim_rows
from micro_lib.reports.grain_report import BLANK, LABEL_FREE, THRESHOLDS, compare, summarise


def claims(images: pd.DataFrame, *, profile: str) -> pd.DataFrame:
    """Judge the published numbers of Trampert et al. 2021, section 3.2.3, by the scores of every image.

    Parameters
    ----------
    images : pandas.DataFrame
        As for `summarise`, with the arms `LABEL_FREE`, "real labels" and "Otsu" on the split "test" and columns
        generated and, where something was trained, device; scores of generated stand-ins judge nothing.
    profile : str
        Profile the scores come from.

    Returns
    -------
    pandas.DataFrame
        Rows of the claims table.
    """
    paper = {"paper": "Trampert 2021", "where": "section 3.2.3"}
    levels = {score: _level_cell(score) for score in _PRINTED}
    stated = [
        {"claim": f"{one.quantity} on real grain micrographs, synthetic training only", **answering(one)}
        for one in levels.values()
    ]
    finding = "grain boundaries are detected reliably without a real label: contrasts won, of all with simpler means"
    stated.append({**paper, "claim": finding, "published": "detected reliably in all 12 real images"})
    real = images[~images["generated"].astype(bool)]
    ours = real[real["arm"] == LABEL_FREE]
    if real[real["split"] == "test"].empty:
        why = "the real micrographs were not at hand, only generated stand-ins"
        rows = [{**claim, "verdict": NOT_RUN, "why": why} for claim in stated]
    else:
        rows = [_level(claim, real, score) for claim, score in zip(stated[:2], levels, strict=True)]
        rows.append(_finding(stated[2], real))
    return claim_rows(rows, profile=profile, notebook="05_grain_segmentation", runs=ours)


_PRINTED = {"error": "pixel error", "miou": "mean IoU"}


def _level_cell(score: str) -> Cell:
    return cell("Trampert 2021", "section 3.2.3", "grain boundaries", _PRINTED[score])


def _level(claim: dict, images: pd.DataFrame, score: str) -> dict:
    table = summarise(images, "test", [LABEL_FREE, "real labels"]).set_index("arm")
    ours = table.loc[LABEL_FREE]
    why = "other material: the paper's 12 images could not be had"
    if "real labels" in table.index:
        why += f"; on this one the same network trained on real labels reaches {table.loc['real labels', score]:.3f}"
    return claim | judged_level(ours_of(ours, score, n="groups"), _level_cell(score).value, why)


def _finding(claim: dict, images: pd.DataFrame) -> dict:
    """Whether all intervals lie beyond zero, against every threshold and a mask without boundary."""
    table = compare(images, "test", LABEL_FREE, [BLANK, *THRESHOLDS])
    asked = table["score"].isin(["miou", "bf1_8px", "intercept_rel_err"])
    asked |= (table["against"] == BLANK) & (table["score"] == "error")
    contrasts = table[asked]
    lost = contrasts[~contrasts["better"]]
    others = " nor ".join(f"on {row.score} over {row.against!r}" for row in lost.itertuples())
    gain = table[(table["against"] == "Otsu") & (table["score"] == "miou")].iloc[0]
    why = f"{len(contrasts) - len(lost)} of {len(contrasts)} intervals beyond zero: mean IoU, F1 and intercept against "
    why += f"{table['against'].nunique() - 1} thresholds and no boundary at all; "
    why += f"no sure gain {others}; " if others else ""
    ends = f"[{gain['difference_low']:.3f}, {gain['difference_high']:.3f}]"
    why += f"over Otsu's threshold {gain['difference']:+.3f} {ends} mean IoU, {gain['n']} {gain['over']}"
    ours = {"ours": len(contrasts) - len(lost), "n": len(contrasts), "over": "contrasts"}
    return claim | judged_statement(ours, lost.empty, why)
