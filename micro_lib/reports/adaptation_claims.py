"""Claims of the adaptation experiment: Tables 3 to 5 and 7 of Goetz et al. 2022 and their sentences beside ours."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import pandas as pd
from scipy import stats

from micro_lib.application.published import (
    Cell,
    answering,
    cell,
    judged_gain,
    judged_statement,
    ours_of,
    untestable_level,
)
from micro_lib.application.tables import NOT_RUN, claim_rows, mean_fields, paired_fields
from micro_lib.reports.adaptation_report import (
    ADVERSARIAL,
    FOLDS,
    LEVEL,
    NONE,
    ORACLE,
    by_fold,
    differences,
    gap_closed,
    is_bagged,
    paired,
    phase_fractions,
)

LATHS = "lath bainite"
# Rows of the published tables for the network that is adapted, by shift: their number in Tables 3, 4 and 5.
PUBLISHED_ROWS = {"T1": ("Table 3", "T1.10", "T1.11"), "T2": ("Table 4", "T2.10", "T2.11")}
PUBLISHED_ROWS |= {"T3": ("Table 5", "T3.1", "T3.2")}


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
    if part.empty or (measure in (BAGGED, BAGGING) and not is_bagged(part, bag)):
        return {}
    if measure == BAGGED:
        return {"ours": 100 * float(bag["target_miou"].item()), "n": int(bag["networks"].item()), "over": "networks"}
    if measure == BAGGING:
        part = part.assign(**{BAGGING: bag["target_miou"].item() - part["target_miou"]})
    folds = by_fold(part, [measure])[measure]
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
        found = _bagging(ours, theirs, runs) if theirs.quantity == BAGGING else beside_level(ours)
        rows.append(percent_claim(f"{ours['quantity']} on {ours['shift']}{told}", found, theirs))
    for name in PUBLISHED_ROWS:
        theirs = published("section 3.2", f"{name}, AdaptSegNet against none", "mIoU gained")
        rows.append(percent_claim(f"mIoU gained by AdaptSegNet on {name}", _gain(gained, name, theirs.value), theirs))
        theirs = published("section 4.2", name, "source mIoU gained by adaptation")
        found = _change(runs, name, "source_miou")
        found = judged_gain(found, theirs.number, f"against {NONE}; {_IMITATED}") if found else TOO_FEW
        rows.append(percent_claim(f"mIoU gained on the source by AdaptSegNet on {name}", found, theirs))
    rows += [_share(runs), _lost(runs), *_estimates(runs), _scatter(runs), *_insensitive(runs), _inverted(runs)]
    rows += [_example(reference, score) for reference, score in ((80, 70), (70, 65))]
    return claim_rows(rows, profile=profile, notebook="10_domain_adaptation", runs=runs)


def percent_claim(claim: str, found: Mapping, *theirs: Cell) -> dict:
    """Return a claim in percent with the published numbers that it answers and what was found."""
    return {"claim": claim, **answering(*theirs), "unit": "%", **found}


TOO_FEW = {"verdict": NOT_RUN, "why": "needs runs of two folds or more of these arms"}
_IMITATED = "paired over folds; generated micrographs made after the paper's words, a light network"


def beside_level(row: Mapping) -> dict:
    """Return the fields of a claim on a level of closed data, ours from a row as of `beside_published`."""
    why = "the micrographs are closed; "
    if math.isnan(row["ours"]):
        return untestable_level({}, f"{why}not run here")
    why += "ours are generated after the paper's words, segmented by a light network"
    if row["quantity"] == "phase fraction, truth":
        why += "; the truth is what the generator was told"
    return untestable_level({name: row[name] for name in _NOTHING}, why)


def _bagging(ours: Mapping, theirs: Cell, runs: pd.DataFrame) -> dict:
    folds = runs.loc[(runs["shift"] == ours["shift"]) & (runs["arm"] == ours["arm"]), "fold"].nunique()
    if folds > 1 and math.isnan(ours["ours"]):
        return {"verdict": NOT_RUN, "why": f"{folds} folds were trained, but their networks were not averaged"}
    if ours["n"] < 2:
        return TOO_FEW
    why = f"mean of the networks' probabilities less each network alone, the former held fixed; {_IMITATED}"
    return judged_gain({name: ours[name] for name in _NOTHING}, theirs.value, why)


def _gain(gained: pd.DataFrame, name: str, theirs: float) -> dict:
    """Judged like for like, the published augmentation in both; the best unadapted network stands in the reason."""
    rows = gained[(gained["shift"] == name) & (gained["arm"] == ADVERSARIAL) & (gained["n"] > 1)]
    alike, others = (rows[(rows["against"] == NONE) == same].to_dict("records") for same in (True, False))
    best = [
        f"; over {row['against']}: {100 * row['difference']:+.1f} "
        f"[{100 * row['difference_low']:.1f}, {100 * row['difference_high']:.1f}]"
        for row in others
    ]
    return percent_gain(alike[0], theirs, _IMITATED + "".join(best)) if alike else TOO_FEW


def percent_gain(row: Mapping, theirs: float, made: str) -> dict:
    """Judge a published gain in percent by a row of `differences`; `made` says what ours was measured on."""
    return judged_gain(ours_of(row, "difference", 100), theirs, f"p = {row['p']:.2g}; {made}")


def _change(runs: pd.DataFrame, name: str, measure: str, against: str = NONE) -> dict:
    """AdaptSegNet on a shift less another arm, in percentage points; empty with fewer than two folds."""
    found = {arm: (ours, base) for arm, ours, base in paired(runs[runs["shift"] == name], against, measure)}
    return _percentage(*found.get(ADVERSARIAL, ((), ())))


def _contrast(runs: pd.DataFrame, name: str, other: str) -> dict:
    """AdaptSegNet on a shift less on another one, in percentage points; empty with fewer than two folds."""
    found = {one: (ours, base) for one, ours, base in paired(runs[runs["arm"] == ADVERSARIAL], other, by="shift")}
    return _percentage(*found.get(name, ((), ())))


def _percentage(ours: Sequence[float], base: Sequence[float]) -> dict:
    return ours_of(paired_fields(ours, base, FOLDS), "difference", 100) if len(ours) > 1 else {}


def _share(runs: pd.DataFrame) -> dict:
    """How far AdaptSegNet goes to the score with target labels on T3, which its means imply and no sentence says."""
    theirs = published("section 4.2", "T3, AdaptSegNet against target labels", "share of the gap closed")
    stated = percent_claim("share of the gap to target labels closed by AdaptSegNet on T3", {}, theirs)
    row = gap_closed(runs).query("shift == 'T3' and arm == @ADVERSARIAL and against == @NONE and ceiling == @ORACLE")
    if row.empty or math.isnan(row["closed_low"].item()):
        return stated | TOO_FEW
    why = f"from no adaptation by AdaptSegNet to target labels; Fieller's interval; {_IMITATED}"
    return stated | judged_gain(ours_of(row.iloc[0], "closed", 100), theirs.number, why)


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
    return claim | {"unit": "times"}


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
    stated = {"paper": "Goetz 2022", "where": "section 4.3", "published": "the learning process failed", "unit": "%"}
    stated["claim"] = "AdaptSegNet fails on T3 unless it is inverted: mIoU gained as it is"
    found = _change(runs, "T3 not inverted", "target_miou")
    if found:
        why = f"AdaptSegNet less {NONE}, both not inverted: it fails where that lies below zero; {_IMITATED}"
        return stated | judged_statement(found, found["high"] < 0, why)
    part = runs[(runs["shift"] == "T3 not inverted") & (runs["arm"] == ADVERSARIAL)]
    if part.empty:
        return stated | TOO_FEW
    why = f"not inverted, AdaptSegNet has {100 * part['target_miou'].mean():.1f} % over {len(part)} runs; "
    return stated | {"verdict": NOT_RUN, "why": f"{why}{NONE} has too few there to compare it with"}


def _example(reference: int, score: int) -> dict:
    """The paper's examples of relative domain transferability, by the formula (its eq. 2) that scores all runs here."""
    theirs = published("section 2.4.5", "example", f"RDT from {reference} to {score} %")
    ours = score / reference - 1
    same = abs(ours - theirs.value) <= 0.005 + 1e-9  # two digits are printed
    found = {"kind": "level", "ours": ours, "n": 1, "over": "formula", "unit": "1"}
    found |= {"verdict": "reproduced" if same else "not reproduced", "why": "arithmetic, printed with two digits"}
    return {"claim": f"RDT of a fall from {reference} to {score} %, by its formula", **answering(theirs), **found}
