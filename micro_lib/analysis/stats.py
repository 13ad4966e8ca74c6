"""Intervals and paired tests; every result states its estimate, its interval and how many independent units it has.

The unit decides the interval: seeds are units for "how would another training run do", specimens or overlap groups for
"how would another specimen do"; tiles of one specimen are not.  Use `t_interval` or `bootstrap_interval` over runs, the
cluster bootstraps over specimens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

N_BOOT = 9_999  # scipy.stats.bootstrap's default


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; ``estimate, low, high = interval`` unpacks it.

    `n` counts the independent units (runs, trials, clusters), `n_values` the single values behind them; `level`
    is that of the interval, between 0 and 1, and `method` names its kind.
    """

    estimate: float
    low: float
    high: float
    n: int
    n_values: int
    level: float
    method: str

    def __iter__(self) -> Iterator[float]:
        return iter((self.estimate, self.low, self.high))


@dataclass(frozen=True)
class PairedTest:
    """A two-tailed paired t test: mean difference with its t interval, p value, effect size d_z, number of pairs.

    Parameters
    ----------
    difference : Interval
        Mean difference, in the unit of the scores.
    t, p : float
        Statistic, with the sign of the difference, and probability of one as far from 0.
    effect_dz : float
        Mean difference over the standard deviation of the differences.
    n : int
        Number of pairs.
    """

    difference: Interval
    t: float
    p: float
    effect_dz: float
    n: int


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, for example 0.95, found {level}")
    return level


def expanded_tail(level: float, n: float) -> float:
    """Return the share of resamples left out at either end, so that few units have an interval as wide as they need.

    Resamples of n units spread less than their mean does, and as normal values where Student's t is meant: the plain
    tail ``(1 - level) / 2`` makes intervals of 4 units cover 80 % instead of 95 % (Hesterberg 2015, Am. Stat. 69, 371:
    "expanded percentile"). No tail is wide enough for fewer than 6 units, whose resamples end at the
    lowest and the highest of them: such an interval covers 1 - 2 / 2**n at most for any symmetric distribution.

    Parameters
    ----------
    level : float
        Between 0 and 1.
    n : float
        Independent units, at least 2; ``inf`` gives the plain tail.
    """
    wider = np.sqrt(n / (n - 1)) if np.isfinite(n) else 1.0
    return float(stats.norm.cdf(-wider * stats.t.ppf((1 + _level(level)) / 2, n - 1)))


def attainable(level: float, n: int) -> float:
    """Return the level that an interval from resampling n units can have: `level`, or less of fewer than 6.

    It ends at the lowest and the highest unit; that both lie on one side of the centre of a symmetric distribution has
    a probability of 2 / 2**n.

    Parameters
    ----------
    level : float
        Between 0 and 1.
    n : int
        Independent units.

    Raises
    ------
    ValueError
        A level outside 0..1.
    """
    return min(_level(level), 1 - 2 / 2**n)


def _sample(x: ArrayLike, name: str = "x") -> NDArray[np.float64]:
    x = np.asarray(x, float)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"{name}: an interval needs a flat list of at least 2 values, found shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(
            f"{name}: {np.sum(~np.isfinite(x))} of {len(x)} values are NaN or infinite; drop them knowingly"
        )
    return x


def t_interval(x: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of independent runs with Student's t interval.

    Parameters
    ----------
    x : (n,) float
        At least two finite values.
    level : float
        Between 0 and 1.

    Raises
    ------
    ValueError
        Fewer than two values, values that are not finite, a level outside 0..1.
    """
    x = _sample(x)
    half = stats.t.ppf((1 + _level(level)) / 2, len(x) - 1) * stats.sem(x)
    mean = x.mean()
    return Interval(float(mean), float(mean - half), float(mean + half), len(x), len(x), level, "t")


def agresti_coull(successes: float, n: int, level: float = 0.95) -> Interval:
    """Return a proportion with its Agresti-Coull interval (Agresti & Coull 1998), by statsmodels.

    For independent trials only.  Trampert et al. 2021 print such intervals with n near the square of their number of
    runs, for IoU too, which is no proportion; they are not intervals of a mean over runs.

    Parameters
    ----------
    successes : float
        0 to `n`.
    n : int
        Trials, at least 1.
    level : float
        Between 0 and 1.

    Raises
    ------
    ValueError
        No trial, successes outside 0..n, a level outside 0..1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"need n >= 1 and 0 <= successes <= n, found successes={successes}, n={n}")
    low, high = proportion_confint(successes, n, 1 - _level(level), "agresti_coull")
    return Interval(successes / n, float(low), float(high), n, n, level, "Agresti-Coull")


def bootstrap_interval(
    x: ArrayLike,
    statistic: Callable[..., NDArray] = np.mean,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    n_boot: int = N_BOOT,
) -> Interval:
    """Return ``statistic(x)`` of independent runs with an expanded percentile interval, by `scipy.stats.bootstrap`.

    Tails are those of `expanded_tail`.

    Parameters
    ----------
    x : (n,) float
        At least two finite values.
    statistic : callable
        Takes ``(x, axis=...)``, as `numpy.mean` and `numpy.median` do.
    rng : numpy.random.Generator
        Draws the resamples.
    level : float
        Between 0 and 1.
    n_boot : int
        Number of resamples.

    Raises
    ------
    ValueError
        As `t_interval`.
    """
    x = _sample(x)
    tail = expanded_tail(level, len(x))
    # Percentile, not BCa: BCa divides by zero when all values are equal, and few runs often are.
    resampled = stats.bootstrap((x,), statistic, n_resamples=n_boot, method="percentile", rng=rng)
    low, high = np.quantile(resampled.bootstrap_distribution, [tail, 1 - tail])
    name = f"bootstrap of {statistic.__name__}"
    return Interval(float(statistic(x, axis=0)), float(low), float(high), len(x), len(x), level, name)


def cluster_bootstrap(
    values: ArrayLike,
    clusters: ArrayLike,
    *,
    rng: np.random.Generator,
    n_boot: int = N_BOOT,
    level: float = 0.95,
    denominators: ArrayLike | None = None,
) -> Interval:
    """Return the mean over images with an expanded percentile interval from resampling whole clusters.

    Clusters are specimens or overlap groups: images of one cluster are drawn together (Davison & Hinkley 1997,
    section 3.8); tails are those of `expanded_tail`.

    Parameters
    ----------
    values : (images,) float
        One score an image.
    clusters : (images,) any
        Name of the cluster each image belongs to.
    rng : numpy.random.Generator
        Draws the resamples.
    n_boot : int
        Number of resamples.
    level : float
        Between 0 and 1.
    denominators : (images,) float, optional
        Non-negative.  The statistic becomes ``sum(values) / sum(denominators)``, e.g. pooled IoU from intersections and
        unions.

    Returns
    -------
    Interval
        ``n`` is the number of clusters.  Between 2 and 5 the interval is too narrow for its level, see
        `expanded_tail`.

    Raises
    ------
    ValueError
        Lengths differ, fewer than two clusters, values that are not finite, a cluster whose denominators sum to 0.
    """
    values = _sample(values, "values")
    denominators = np.ones_like(values) if denominators is None else _sample(denominators, "denominators")
    names, member = np.unique(np.asarray(clusters), return_inverse=True)
    if not len(values) == len(denominators) == len(member):
        raise ValueError(
            f"{len(values)} values, {len(denominators)} denominators and {len(member)} clusters: lengths differ"
        )
    if len(names) < 2:
        raise ValueError(
            f"one cluster only ({names[0]}): between-cluster spread, and so an interval, cannot be estimated"
        )
    upper, lower = np.bincount(member, values), np.bincount(member, denominators)  # (clusters,)
    if (lower <= 0).any():
        raise ValueError(f"denominators of cluster {names[lower <= 0][0]} sum to {lower.min()}, expected above 0")
    drawn = rng.integers(len(names), size=(n_boot, len(names)))
    resampled = upper[drawn].sum(1) / lower[drawn].sum(1)
    tail = expanded_tail(level, len(names))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    estimate = upper.sum() / lower.sum()
    return Interval(float(estimate), float(low), float(high), len(names), len(values), level, "cluster bootstrap")


def paired_cluster_bootstrap(a: ArrayLike, b: ArrayLike, clusters: ArrayLike, *, rng: np.random.Generator) -> Interval:
    """Return the mean over images of arm `a` minus arm `b`, with an interval from resampling whole clusters.

    Parameters
    ----------
    a, b : (images,) or (seeds, images) float
        Scores of the same images in the same order.  Seeds are averaged first, so the interval speaks of the expected
        score of an arm on other specimens, for the seeds at hand; arms may have different numbers of seeds.
    clusters, rng
        As `cluster_bootstrap`.

    Raises
    ------
    ValueError
        The arms differ in their number of images; otherwise as `cluster_bootstrap`.
    """
    a, b = (np.atleast_2d(np.asarray(arm, float)).mean(0) for arm in (a, b))  # (images,)
    if a.shape != b.shape:
        raise ValueError(f"the arms must score the same images: {a.shape[-1]} against {b.shape[-1]}")
    return cluster_bootstrap(a - b, clusters, rng=rng)


def paired_t(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> PairedTest:
    """Test whether two arms measured on the same units differ: two-tailed paired t test, by SciPy.

    Parameters
    ----------
    a, b : (n,) float
        At least two pairs.
    level : float
        Of the interval of the mean difference ``a - b``.

    Returns
    -------
    PairedTest
        ``effect_dz`` is the mean difference over the standard deviation of the differences (Cohen 1988).  All
        differences equal: p is 0 and the effect infinite, or p 1 and the effect 0 if they are all zero.

    Raises
    ------
    ValueError
        The arms differ in length; otherwise as `t_interval`.
    """
    a, b = _sample(a, "a"), _sample(b, "b")
    if len(a) != len(b):
        raise ValueError(f"pairs need equal lengths: {len(a)} against {len(b)}")
    difference = t_interval(a - b, level)
    spread = np.std(a - b, ddof=1)
    if spread == 0:
        same = difference.estimate == 0
        size = 0.0 if same else float(np.copysign(np.inf, difference.estimate))
        return PairedTest(difference, size, float(same), size, len(a))
    test = stats.ttest_rel(a, b)
    return PairedTest(
        difference, float(test.statistic), float(test.pvalue), float(difference.estimate / spread), len(a)
    )


def label_equivalent(scores: ArrayLike, alone: ArrayLike, budgets: ArrayLike) -> NDArray[np.float64]:
    """Return how many labels reach each score without further help.

    The score of training on labels alone is made to rise with their number and interpolated on a logarithmic axis.

    Parameters
    ----------
    scores : (...) float
        More is better; errors are given with a minus sign.
    alone : (budgets,) float
        Score of training on each number of labels alone.
    budgets : (budgets,) float
        These numbers, above 0 and rising.

    Returns
    -------
    (...) float
        Within the budgets: the smallest where it is enough, the largest where no number reaches the score, so that more
        may be needed.

    Raises
    ------
    ValueError
        Fewer than two budgets, not as many scores alone as budgets, values that are not finite, budgets that fall or
        are not above 0.
    """
    alone, budgets = _sample(alone, "alone"), _sample(budgets, "budgets")
    if len(alone) != len(budgets):
        raise ValueError(f"{len(alone)} scores alone for {len(budgets)} budgets: lengths differ")
    if budgets[0] <= 0 or (np.diff(budgets) < 0).any():
        raise ValueError(f"budgets must be above 0 and rise, found {budgets.tolist()}")
    if not np.isfinite(scores).all():
        raise ValueError("scores: some are NaN or infinite; drop them knowingly")
    rising = np.maximum.accumulate(alone)
    first = np.concatenate([[True], np.diff(rising) > 0])  # of budgets with the same score the smallest counts
    logs = np.log(budgets)
    return np.exp(np.interp(scores, rising[first], logs[first], right=logs[-1]))


def bootstrap_label_equivalent(
    scores: ArrayLike, alone: ArrayLike, budgets: ArrayLike, *, rng: np.random.Generator, n_boot: int = 2000
) -> tuple[NDArray, NDArray, NDArray]:
    """Return `label_equivalent` of mean scores with 95 % expanded percentile intervals from drawing paired units anew.

    Tails are those of `expanded_tail`: of fewer than 6 units the intervals end at the lowest and the highest, and are
    too narrow for 95 % all the same.

    Parameters
    ----------
    scores : (units, K) float
        Scores of at least two units (runs, generators) in K cases.
    alone : (units, budgets) float
        Scores of the same units on labels alone.
    budgets
        As for `label_equivalent`.
    rng : numpy.random.Generator
        Draws the resamples.
    n_boot : int
        Number of resamples.

    Returns
    -------
    estimate, low, high : (K,) float

    Raises
    ------
    ValueError
        Fewer than two units, or not the same number of them in both; otherwise as `label_equivalent`.
    """
    scores, alone = np.asarray(scores, float), np.asarray(alone, float)
    if scores.ndim != 2 or alone.ndim != 2 or len(scores) != len(alone) or len(scores) < 2:
        raise ValueError(f"scores and alone need the same units, 2 or more, as rows: {scores.shape} and {alone.shape}")
    drawn = rng.integers(len(scores), size=(n_boot, len(scores)))
    sampled = [label_equivalent(scores[units].mean(0), alone[units].mean(0), budgets) for units in drawn]
    tail = expanded_tail(0.95, len(scores))
    low, high = np.quantile(sampled, [tail, 1 - tail], axis=0)
    return label_equivalent(scores.mean(0), alone.mean(0), budgets), low, high
