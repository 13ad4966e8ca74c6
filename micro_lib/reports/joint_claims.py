"""Verdicts on what Volman Stern et al. 2024 and Noguchi & Inoue 2021 say of images from VQ-VAE and PixelCNN."""

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from micro_lib.application.published import Cell, answering, cell, cells, judged_gain, judged_statement, ours_of
from micro_lib.application.tables import NOT_RUN, claim_rows, mean_fields
from micro_lib.reports.joint_report import GENERATORS, PACK, gains, replaced


def claims(runs: pd.DataFrame, images: pd.DataFrame, made: pd.DataFrame, *, hours: float, profile: str) -> pd.DataFrame:
    """Judge what the abstract of Volman Stern et al. 2024 says, and what Noguchi & Inoue 2021 found of sampled images.

    The abstract gives no number, so ours stand beside its words.

    Parameters
    ----------
    runs, images : pandas.DataFrame
        As from `stored`; runs on generated stand-ins judge nothing.
    made : pandas.DataFrame
        As from `generators`, likewise.
    hours : float
        As for `replaced`.
    profile : str
        As for `micro_lib.application.tables.claim_rows`.

    Returns
    -------
    pandas.DataFrame
        Rows of the claims table.
    """
    ours, generators = (_real(table) for table in (runs, made))
    stated, found = [*_STATED, _coarsening(), _uniformity()], [_TOO_FEW] * 4
    if len(ours):
        found = [_help(ours, images), _labels(ours, images, hours), _coarser(generators), _uniform(generators)]
    rows = [{**claim, **verdict} for claim, verdict in zip(stated, found, strict=True)]
    return claim_rows(rows, profile=profile, notebook="08_joint_segmentation", runs=ours)


def _real(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["pack"] == PACK) & ~table["generated"].astype(bool)] if len(table) else table


_ABSTRACT = {"paper": "Volman Stern 2024", "where": "abstract"}
_STATED = (
    {
        **_ABSTRACT,
        "claim": "pairs from VQ-VAE and PixelCNN improve U-Nets of few micrographs",
        "published": "no number",
    },
    {**_ABSTRACT, "claim": "such pairs reduce the labelling effort", "published": "no number", "unit": "micrographs"},
)
_TOO_FEW = {"verdict": NOT_RUN, "why": "needs two or more generators of the plain recipe on the real micrographs"}


def _steel() -> tuple[Cell, ...]:
    """Return how much coarser sampled images of steel were, at four cooling rates: the same models on images alone."""
    return tuple(one for one in cells() if one.paper == _STEEL and one.quantity == "mean grain size gained")


_STEEL = "Noguchi 2021"


def _coarsening() -> dict:
    sizes = [one.number for one in _steel()]
    printed = f"{min(sizes):+.0%} to {max(sizes):+.0%} grain size"
    claim = "images sampled from VQ-VAE and PixelCNN are coarser than real ones"
    return {**answering(*_steel()), "published": printed, "claim": claim}


def _varied() -> Cell:
    """Return how much less the phase fraction of their sampled images varied, at one cooling rate."""
    return cell(_STEEL, "notebooks of its repository", "cooling rate 4 of 4", "variance of phase fraction gained")


def _uniformity() -> dict:
    claim = "phase fractions of images sampled from VQ-VAE and PixelCNN vary less than those of real ones"
    return {**answering(_varied()), "published": f"{_varied().number:+.0%} variance", "claim": claim}


def _plain_gains(runs: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Gains of the plain recipe's arms, with helps: better, and p below 0.05 once corrected for all of them (Holm)."""
    table = gains(runs, images)
    plain = table[table["arm"].str.startswith("plain") & (table["generators"] > 1)]
    return plain.assign(helps=plain["better"] & multipletests(plain["p"], method="holm")[0] if len(plain) else False)


def _help(runs: pd.DataFrame, images: pd.DataFrame) -> dict:
    plain = _plain_gains(runs, images)
    if plain.empty:
        return _TOO_FEW
    helps = plain["helps"]
    best = plain.loc[plain.loc[helps if helps.any() else helps.index, "difference"].idxmax()]
    reach = best["difference_high"]
    why = "" if helps.any() or reach <= 0 else f"gains up to {reach:.3f} are not ruled out; "
    why += f"largest gain in mean IoU of {len(plain)} plain arms: k = {best['k'] or 'all'}, {best['arm']}; "
    why += f"over specimens [{best['specimens_low']:.3f}, {best['specimens_high']:.3f}]; "
    why += f"{helps.sum()} better, their p corrected for {len(plain)} arms (Holm)"
    return judged_statement(ours_of(best, "difference", n="generators"), helps.any(), why)


def _labels(runs: pd.DataFrame, images: pd.DataFrame, hours: float) -> dict:
    """Labels are saved by an arm that helps: bootstrapping a handful of generators shows how many, not whether.

    The arm is the one that gains most mean IoU, not the one that replaces most, which a flat curve makes out of noise.
    """
    plain = replaced(runs, hours).merge(_plain_gains(runs, images)[["arm", "k", "difference", "helps"]])
    if plain.empty:
        return _TOO_FEW
    helps = plain["helps"]
    best = plain.loc[plain.loc[helps if helps.any() else helps.index, "difference"].idxmax()]
    why = f"k = {best['k'] or 'all'}, {best['arm']}; {best['hours_saved']:.1f} h at {hours:g} h a micrograph"
    why += f"; {helps.sum()} of {len(plain)} arms gain mean IoU at their own k, which decides"
    why += "; no upper end: as many as there are, or more" if np.isinf(best["replaced_high"]) else ""
    return judged_statement(ours_of(best, "replaced", n="generators"), helps.any(), why)


def _coarser(made: pd.DataFrame) -> dict:
    """Every class counts, not the one that comes out coarsest: the geometric mean over classes of a generator's."""
    ratios = _of_all(made).filter(regex=r"^pairs_intercept_\d+$")
    if len(ratios) < 2:
        return _TOO_FEW
    ours, sizes = _change(np.exp(np.log(ratios).mean(axis=1))), [one.number for one in _steel()]
    close = ours["low"] <= max(sizes) and ours["high"] >= min(sizes)
    verdict = "not reproduced" if ours["low"] <= 0 else "reproduced" if close else "direction reproduced"
    each = ", ".join(f"{np.expm1(np.log(ratios[name]).mean()):+.0%}" for name in ratios)
    why = f"another material: mean intercepts, mean of its classes ({each}), all micrographs of the training spots"
    return {**ours, "kind": "effect", "verdict": verdict, "why": why}


def _uniform(made: pd.DataFrame) -> dict:
    """Of every class likewise."""
    ratios = _of_all(made).filter(regex=r"^pairs_fraction_\d+_variance$")
    if len(ratios) < 2:
        return _TOO_FEW
    each = ", ".join(f"{np.expm1(np.log(ratios[name]).mean()):+.0%}" for name in ratios)
    why = f"another material: windows of 128 px, mean of its classes ({each}), all micrographs of the training spots"
    return judged_gain(_change(np.exp(np.log(ratios).mean(axis=1))), _varied().number, why)


def _of_all(made: pd.DataFrame) -> pd.DataFrame:
    """Generators of the plain recipe that have learned from all micrographs."""
    return made[(made["recipe"] == "plain") & (made["k"] == 0)]


def _change(ratios: pd.Series) -> dict:
    """Geometric mean of ratios over generators less 1, with its interval, as fields of a claim."""
    fields = mean_fields(np.log(ratios.to_numpy(float)), "change", GENERATORS)
    fields |= {name: float(np.expm1(fields[name])) for name in ("change", "change_low", "change_high")}
    return ours_of({**fields, "n": len(ratios)}, "change")
