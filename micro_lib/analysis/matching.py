"""Pairs of tiles of two classes that are alike in something else, so that it cannot tell the classes apart."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment


def matched_pairs(labels: ArrayLike, values: ArrayLike, groups: ArrayLike, caliper: float) -> NDArray[np.int64]:
    """Match each tile of the one class to at most one of the other whose value lies within a caliper.

    First within each group, then what is left across groups. Each time as many pairs as possible and, of those, with
    the smallest sum of differences (optimal matching, Rosenbaum 1989).

    Parameters
    ----------
    labels : (n,) int
        0 or 1.
    values : (n,) float
        What is to be alike, e.g. the oxide fraction.
    groups : (n,) any
        Names of specimens.
    caliper : float
        Largest difference of values within a pair, 0 or more.

    Returns
    -------
    (pairs, 2) int64
        Positions of the two tiles of each pair, that with label 0 first; pairs in rising order.

    Raises
    ------
    ValueError
        If lengths differ, a label is neither 0 nor 1, or a value is not finite.
    """
    labels, values, groups = np.asarray(labels), np.asarray(values, float), np.asarray(groups)
    if not len(labels) == len(values) == len(groups):
        raise ValueError(f"{len(labels)} labels, {len(values)} values and {len(groups)} groups: lengths differ")
    if not np.isin(labels, (0, 1)).all() or not np.isfinite(values).all():
        raise ValueError("labels must be 0 or 1 and values finite")
    pairs = []
    for group in np.unique(groups):
        pairs += _assigned(np.flatnonzero(groups == group), labels, values, caliper)
    left = np.setdiff1d(np.arange(len(labels)), np.ravel(pairs).astype(int))
    pairs += _assigned(left, labels, values, caliper)
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def _assigned(members: NDArray, labels: NDArray, values: NDArray, caliper: float) -> list[tuple[int, int]]:
    zeros, ones = (members[labels[members] == label] for label in (0, 1))
    distance = np.abs(values[zeros][:, None] - values[ones][None])  # (zeros, ones)
    allowed = distance <= caliper + 1e-12  # values of three decimals differ by the caliper but for rounding
    # A forbidden pair costs more than all allowed ones together, so that none is given up for nearer neighbours.
    cost = np.where(allowed, distance, (caliper + 1) * (len(members) + 1))
    rows, columns = linear_sum_assignment(cost)
    return [(int(zeros[i]), int(ones[j])) for i, j in zip(rows, columns, strict=True) if allowed[i, j]]
