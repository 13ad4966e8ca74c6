"""Every number with an interval that the README states is a row of a stored table, to its last digit."""

import re
from functools import cache

import numpy as np
import pytest

from micro_lib.core.runs import read_table, repository_root

# 0.9 [0.8, 1.0], also with a unit before the bracket, +- 1, and an interval without an upper end.
STATED = re.compile(r"([+-]?\d+(?:\.\d+)?)(?: \w+| %)? \[([+-]?\d+(?:\.\d+)?), ([+-]?\d+(?:\.\d+)?|inf)\]")
SCALES = (1, -1, 100, -100)  # a share is also printed in percent, a loss as the gain of the other arm
SINGLE = ("_images", "_curves", "_runs")  # tables of single runs, which have no intervals


@cache
def numbers():
    """All numbers of all stored tables, and which row each stands in."""
    rows = []
    for path in sorted((repository_root() / "figures" / "tables").glob("*.csv")):
        if not path.stem.endswith(SINGLE):
            rows += list(read_table(path).select_dtypes("number").to_numpy(float))
    return np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(row) for row in rows])


def rows_with(printed, scale):
    values, row = numbers()
    half = 0.5 * 10.0 ** -len(printed.partition(".")[2])
    return set(row[np.abs(scale * values - float(printed)) <= half * (1 + 1e-6)])


def is_stored(stated):
    finite = [printed for printed in stated if printed != "inf"]
    return any(set.intersection(*(rows_with(printed, scale) for printed in finite)) for scale in SCALES)


def changed(stated):
    """The same with a lower end that is off by seven of its last digits."""
    digits = len(stated[1].partition(".")[2])
    return stated[0], f"{float(stated[1]) - 7 * 10.0**-digits:.{digits}f}", stated[2]


@pytest.mark.parametrize("document", ["README.md"])
def test_every_stated_number_is_in_a_stored_table(document):
    text = re.sub(r"\s+", " ", (repository_root() / document).read_text("utf-8"))
    found = [match.groups() for match in STATED.finditer(text)]
    assert len(found) > 50
    assert not [stated for stated in found if not is_stored(stated)]
    missed = [stated for stated in found if not is_stored(changed(stated))]
    assert len(missed) > 0.8 * len(found), "a number that is off is found out"
