"""The numbers of the three papers, and how each is answered: ``data/published.csv`` beside the claims table."""

import math
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import pandas as pd

from micro_lib.application.tables import (
    NOT_RUN,
    NOT_TESTABLE,
    OF_STATEMENTS,
    SEPARATOR,
    TOO_WIDE,
    largest_profile,
    whole,
)
from micro_lib.core.runs import read_table, repository_root

NO_ANSWER = {"verdict": NOT_RUN, "why": "there is no stored run of these arms"}
NO_PROTOCOL = {"verdict": NOT_TESTABLE, "why": "its full text could not be had"}
NOT_HAD = ("Volman Stern 2024",)
# Half-width of our interval, of the published number, up to which finding that number inside says anything: the largest
# effect of the papers' Table 1 is a quarter (0.205 against 0.273), and a wider interval would hold both arms of it.
MAX_HALF_WIDTH = 0.25
_RATIOS = ("RDT", "RDT, 100 epochs", "RDT, 200 epochs")  # of two rounded scores, and rounded: one decimal each


class Cell(NamedTuple):
    """A published number."""

    paper: str
    where: str  # table or section
    item: str  # row of the table: an arm, a domain
    quantity: str
    value: float
    sd: float  # as printed; NaN where there is none
    low: float
    high: float
    unit: str
    recomputed: float  # what other numbers of the same paper make of it; NaN where it follows from none

    @property
    def name(self) -> str:
        """What a claim that answers it carries in its column answers."""
        return f"{self.item}: {self.quantity}"

    @property
    def printed(self) -> str:
        """The number as readers see it, with its standard deviation, and what contradicts it."""
        if self.quantity.startswith("p,"):
            return f"p = {self.value:g}"
        unit = f" {self.unit}" if self.unit in ("%", "h") else ""
        if math.isnan(self.value):
            return "unknown" if math.isnan(self.recomputed) else f"{self.recomputed:+g}{unit}, from its means"
        digits = "{:.3f}" if self.unit == "1" and abs(self.value) < 1 else "{:g}"
        numbers = [digits.format(number) for number in (self.value, self.sd) if not math.isnan(number)]
        contradicted = f" (its own numbers give {self.recomputed:g})" if self.is_contradicted else ""
        return " +- ".join(numbers) + unit + contradicted

    @property
    def is_contradicted(self) -> bool:
        """Whether what other numbers of the paper make of it is another number, by more than they are rounded."""
        digits = len(f"{self.value:g}".partition(".")[2])
        rounding = 0.15 if self.name.endswith(_RATIOS) else 0.5 * 10.0**-digits
        return abs(self.value - self.recomputed) > rounding + 1e-9

    @property
    def number(self) -> float:
        """The value, or what other numbers make of it where none is printed."""
        return self.recomputed if math.isnan(self.value) else self.value


@cache
def cells() -> tuple[Cell, ...]:
    """Return all published numbers, in the order of the papers."""
    table = read_table(repository_root() / "data" / "published.csv")
    return tuple(Cell(**{name: row[name] for name in Cell._fields}) for row in table.to_dict("records"))


def cell(paper: str, where: str, item: str, quantity: str) -> Cell:
    """Return one published number.

    Raises
    ------
    ValueError
        If there is none of that name; lists those of the same table.
    """
    near = {found.name: found for found in cells() if (found.paper, found.where) == (paper, where)}
    name = f"{item}: {quantity}"
    if name not in near:
        raise ValueError(f"{paper}, {where} has no {name!r}; it has {', '.join(near) or 'no number at all'}")
    return near[name]


def answering(*answered: Cell) -> dict[str, str]:
    """Return the fields of a claim that the published numbers of one table or section decide."""
    return {
        "paper": answered[0].paper,
        "where": answered[0].where,
        "published": ", ".join(one.printed for one in answered),
        "answers": SEPARATOR.join(one.name for one in answered),
    }


def ours_of(row: Mapping, name: str, factor: float = 1, n: str = "n") -> dict:
    """Return our number as fields of a claim, from a row of a report.

    Parameters
    ----------
    row : mapping
        With name, <name>_low, <name>_high, confidence and over, see `micro_lib.application.tables.mean_fields`.
    name : str
        Of the number.
    factor : float
        To multiply number and interval with, e.g. 100 for percent or -1 for the other direction.
    n : str
        Name of the column that counts what the interval is over.
    """
    low, high = sorted(factor * float(row[f"{name}_{end}"]) for end in ("low", "high"))
    ours = {"ours": factor * float(row[name]), "low": low, "high": high, "level": row["confidence"]}
    return {**ours, "n": int(row[n]), "over": row["over"]}


def judged_level(ours: Mapping, theirs: float, why: str) -> dict:
    """Return the fields of a claim on a published level: reproduced if a narrow interval of ours holds it.

    Parameters
    ----------
    ours : mapping
        As from `ours_of`.
    theirs : float
        The published number.
    why : str
        Goes with it.
    """
    found, why = _found(ours, theirs, why)
    return {**ours, "kind": "level", "verdict": "reproduced" if found else "not reproduced", "why": why}


def _found(ours: Mapping, theirs: float, why: str) -> tuple[bool, str]:
    """Tell whether a narrow interval of ours holds the published number, and why, which says if a wide one does."""
    holds = ours["low"] <= theirs <= ours["high"]
    is_narrow = (ours["high"] - ours["low"]) / 2 <= MAX_HALF_WIDTH * abs(theirs)
    return holds and is_narrow, why if is_narrow or not holds else TOO_WIDE + why


def untestable_level(ours: Mapping, why: str) -> dict:
    """Return the fields of a claim on a level that depends on closed data: our number, if any, beside, no judgement."""
    return {**ours, "kind": "level", "verdict": NOT_TESTABLE, "why": why}


def judged_gain(ours: Mapping, theirs: float, why: str, won: bool | None = None) -> dict:
    """Return the fields of a claim on a published effect: reproduced, its direction alone, or neither if not won.

    Reproduced is an effect that a narrow interval of ours holds, as for a level.

    Parameters
    ----------
    ours : mapping
        As from `ours_of`.
    theirs : float
        The published effect.
    why : str
        Goes with it.
    won : bool, optional
        Whether there is an effect; none: our interval lies on its side of zero.
    """
    if won is None:
        won = ours["low"] > 0 if theirs > 0 else ours["high"] < 0
    found, why = _found(ours, theirs, why)
    verdict = ("reproduced" if found else "direction reproduced") if won else "not reproduced"
    return {**ours, "kind": "effect", "verdict": verdict, "why": why}


def judged_statement(ours: Mapping, holds: bool, why: str) -> dict:
    """Return the fields of a claim on what a paper states without a number: whether it holds here, by `ours`."""
    if not holds and ours.get("low", math.nan) <= 0 <= ours.get("high", math.nan):
        why = TOO_WIDE + why
    return {**ours, "kind": "statement", "verdict": OF_STATEMENTS[0] if holds else OF_STATEMENTS[1], "why": why}


def beside_ours(claims: pd.DataFrame) -> pd.DataFrame:
    """Return every published number beside what answers it.

    Parameters
    ----------
    claims : pandas.DataFrame
        The claims table; of a claim in several profiles the largest one counts.

    Returns
    -------
    pandas.DataFrame
        One row a published number: the fields of `Cell` (low and high as published_low and published_high, value as
        published), then claim, ours, ours_low, ours_high, level, n, over, our_unit, profile, device, notebook, verdict
        and why; the verdict says so where nothing answers it.
    """
    answers = {}
    for claim in largest_profile(claims).to_dict("records"):
        for name in str(claim["answers"]).split(SEPARATOR):
            answers.setdefault((claim["paper"], claim["where"], name), claim)
    return pd.DataFrame([_row(one, answers.get((one.paper, one.where, one.name))) for one in cells()])


def _row(one: Cell, claim: Mapping | None) -> dict:
    theirs = {"value": "published", "low": "published_low", "high": "published_high"}
    row = {theirs.get(name, name): value for name, value in one._asdict().items()} | {"printed": one.printed}
    nothing = NO_PROTOCOL if one.paper in NOT_HAD else NO_ANSWER
    found = {
        "claim": "",
        "ours": math.nan,
        "low": math.nan,
        "high": math.nan,
        "level": math.nan,
        "n": 0,
        "over": "",
        "unit": "",
    }
    found |= {"profile": "", "device": "", "notebook": "", **nothing, **(claim or {})}
    names = {"low": "ours_low", "high": "ours_high", "unit": "our_unit"}
    kept = (
        "claim",
        "ours",
        "low",
        "high",
        "level",
        "n",
        "over",
        "unit",
        "profile",
        "device",
        "notebook",
        "verdict",
        "why",
    )
    return row | {names.get(name, name): found[name] for name in kept}


def as_html(table: pd.DataFrame, paper: str) -> str:
    """Return all rows of `beside_ours` of one paper for readers, a table for each of its tables and sections."""
    rows = table[table["paper"] == paper].rename(columns={"ours_low": "low", "ours_high": "high"})
    found = rows.groupby("where", sort=False)[list(_SHOWN)]
    return "".join(f"<h4>{paper}, {where}</h4>\n{whole(part)}" for where, part in found)


_SHOWN = (
    "item",
    "quantity",
    "printed",
    "ours",
    "low",
    "high",
    "level",
    "n",
    "over",
    "profile",
    "device",
    "verdict",
    "why",
)


def unanswered(table: pd.DataFrame) -> list[dict]:
    """Return claims, one a published number of `beside_ours` that no claim answers, which say so and why."""
    known = {(one.paper, one.where, one.name): one for one in cells()}
    rows = []
    for row in table[table["claim"] == ""].to_dict("records"):
        one = known[row["paper"], row["where"], f"{row['item']}: {row['quantity']}"]
        claim = f"{one.where}, {one.item}: {one.quantity}"
        rows.append({"claim": claim, **answering(one), "verdict": row["verdict"], "why": row["why"]})
    return rows


def is_measured(table: pd.DataFrame) -> pd.Series:
    """Tell which published numbers of `beside_ours` have a number of ours beside them."""
    return table["ours"].notna()
