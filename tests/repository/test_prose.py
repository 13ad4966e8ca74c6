"""Every number with an interval that is stated in words is one of a stored table, to its last digit."""

import re
from functools import cache

import numpy as np
import pytest

from micro_lib.core.runs import read_table, repository_root

# 0.9 [0.8, 1.0], also with up to three words or a sign of percent before the bracket, and without an upper end.
NUMBER = r"[+-]?\d+(?:\.\d+)?"
STATED = re.compile(rf"({NUMBER})(?: %|(?: [\w*]+){{1,3}})? \[({NUMBER}), ({NUMBER}|inf)\]")
SCALES = (1, -1, 100, -100)  # a share is also printed in percent, a loss as the gain of the other arm
SINGLE = ("_images", "_curves", "_runs")  # tables of single runs, which have no intervals


def triples(table):
    """Yield each interval of a table with its estimate, (rows, 3): of x_low and x_high x, or, of others, any number."""
    plain = [name for name in table.select_dtypes("number") if not name.endswith(("low", "high"))]
    for low in [name for name in table.select_dtypes("number") if name.endswith("low")]:
        high, base = low.removesuffix("low") + "high", low.removesuffix("low").removesuffix("_")
        for name in [base] if base in plain else plain:
            yield table[[name, low, high]].to_numpy(float)


@cache
def stored():
    """All intervals of all stored tables, (N, 3)."""
    paths = sorted((repository_root() / "figures" / "tables").glob("*.csv"))
    return np.concatenate([t for path in paths if not path.stem.endswith(SINGLE) for t in triples(read_table(path))])


def is_stored(stated):
    """Whether some interval is printed so, at some scale; of a change of sign the ends change places."""
    for scale in SCALES:
        found = scale * stored()[:, [0, 1, 2] if scale > 0 else [0, 2, 1]]
        same = [
            np.isinf(column) if printed == "inf" else np.abs(column - float(printed)) <= half_a_digit(printed)
            for column, printed in zip(found.T, stated, strict=True)
        ]
        if np.all(same, axis=0).any():
            return True
    return False


def half_a_digit(printed):
    return 0.5 * 10.0 ** -len(printed.partition(".")[2]) * (1 + 1e-6)


def changed(stated):
    """The same with a lower end that is off by seven of its last digits."""
    digits = len(stated[1].partition(".")[2])
    return stated[0], f"{float(stated[1]) - 7 * 10.0**-digits:.{digits}f}", stated[2]


def stated_in(document):
    text = re.sub(r"\s+", " ", (repository_root() / document).read_text("utf-8"))
    return [match.groups() for match in STATED.finditer(text)]


# Measured by newer code than the committed tables of notebooks 04, 06 and 09 (README, Limits), until these are run.
AWAITED = {
    "0.145 [0.108, 0.250]",
    "0.168 [0.110, 0.337]",
    "0.033 [0.013, 0.100]",
    "3.3 [1.3, 10.0]",
    "+0.026 [0.006, 0.116]",
    "-0.009 [-0.028, 0.025]",
    "0.020 [-0.122, 0.127]",
    "0.042 [0.016, 0.104]",
    "+0.0029 [0.0004, 0.0054]",
    "0.0039 [0.0026, 0.0053]",
    "-0.0039 [-0.0053, -0.0026]",
    "-0.031 [-0.058, -0.005]",
}


@pytest.mark.parametrize(("document", "at_least"), [("README.md", 70), ("RESULTS.md", 200)])
def test_every_stated_number_is_in_a_stored_table(document, at_least):
    found = stated_in(document)
    assert len(found) >= at_least
    lost = {"{} [{}, {}]".format(*stated) for stated in found if not is_stored(stated)}
    assert not lost - AWAITED
    missed = [stated for stated in found if not is_stored(changed(stated))]
    assert len(missed) > 0.95 * len(found), "a number that is off is found out"


def test_nothing_is_awaited_that_is_stored():
    assert not [text for text in AWAITED if is_stored(STATED.fullmatch(text).groups())]
