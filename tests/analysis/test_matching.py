"""Matched pairs: a hand-worked case, the best of all pairings by brute force, and what always holds."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micro_lib.analysis.matching import matched_pairs


def test_a_case_worked_out_by_hand():
    #              A               A    B    B    B
    labels = [0, 1, 1, 0, 1, 1]
    values = [0.50, 0.54, 0.52, 0.90, 0.93, 0.51]
    groups = ["A", "A", "A", "B", "B", "B"]
    # In A the nearest of the two ones; in B 0.90 with 0.93; nothing is left for the others.
    assert matched_pairs(labels, values, groups, 0.05).tolist() == [[0, 2], [3, 4]]


def test_what_is_left_is_matched_across_specimens():
    labels, values, groups = [0, 0, 1], [0.2, 0.8, 0.82], ["A", "A", "B"]
    assert matched_pairs(labels, values, groups, 0.05).tolist() == [[1, 2]]


def test_a_pair_within_a_specimen_comes_before_a_nearer_one_across():
    labels, values, groups = [0, 1, 1], [0.5, 0.54, 0.5], ["A", "A", "B"]
    assert matched_pairs(labels, values, groups, 0.05).tolist() == [[0, 1]]


def test_no_pair_is_given_up_for_nearer_neighbours():
    # The nearest two (0.50, 0.50) would leave 0.45 and 0.55 unmatched.
    labels, values = [0, 0, 1, 1], [0.45, 0.50, 0.50, 0.55]
    assert matched_pairs(labels, values, ["A"] * 4, 0.05).tolist() == [[0, 2], [1, 3]]


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20), st.sampled_from("AB")), max_size=14),
    st.integers(0, 6),
)
def test_pairs_are_disjoint_within_the_caliper_and_of_two_classes(tiles, caliper):
    labels, values, groups = (np.array(part) for part in zip(*tiles, strict=True)) if tiles else ([], [], [])
    pairs = matched_pairs(labels, values, groups, caliper)
    assert len(np.unique(pairs)) == pairs.size
    for zero, one in pairs:
        assert (labels[zero], labels[one]) == (0, 1) and abs(values[zero] - values[one]) <= caliper
    left = set(range(len(labels))) - set(pairs.ravel().tolist())
    addable = [(i, j) for i in left for j in left if labels[i] < labels[j] and abs(values[i] - values[j]) <= caliper]
    assert not addable


@given(st.lists(st.integers(0, 15), max_size=4), st.lists(st.integers(0, 15), max_size=4), st.integers(0, 5))
def test_within_one_specimen_no_pairing_is_better(zeros, ones, caliper):
    def worth(pairs):
        near = [abs(a - b) for a, b in pairs if abs(a - b) <= caliper]
        return len(near), -sum(near)

    short, long = sorted((zeros, ones), key=len)
    best = max(worth(zip(short, chosen, strict=True)) for chosen in permutations(long, len(short)))
    values = np.array([*zeros, *ones], float)
    pairs = matched_pairs([0] * len(zeros) + [1] * len(ones), values, ["A"] * len(values), caliper)
    assert worth(values[pairs]) == pytest.approx(best)


@pytest.mark.parametrize(
    ("labels", "values", "groups", "message"),
    [
        ([0, 1], [0.5], ["A", "A"], "2 labels, 1 values and 2 groups"),
        ([0, 2], [0.5, 0.5], ["A", "A"], "labels must be 0 or 1"),
        ([0, 1], [0.5, np.nan], ["A", "A"], "finite"),
    ],
)
def test_unfit_input_is_refused(labels, values, groups, message):
    with pytest.raises(ValueError, match=message):
        matched_pairs(labels, values, groups, 0.1)
