"""Intervals against published values, closed forms, other implementations and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats as scipy_stats
from scipy.stats import norm
from statsmodels.stats.weightstats import DescrStatsW

from micro_lib.analysis.stats import (
    Interval,
    agresti_coull,
    attainable,
    bootstrap_interval,
    bootstrap_label_equivalent,
    cluster_bootstrap,
    expanded_tail,
    label_equivalent,
    paired_cluster_bootstrap,
    paired_t,
    t_interval,
)

floats = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))
samples = st.lists(floats, min_size=2, max_size=20)


def rng(seed=0):
    return np.random.default_rng(seed)


# --- Agresti-Coull ---
@pytest.mark.parametrize(
    ("p", "low", "high"), [(0.257, 0.2514, 0.2627), (0.414, 0.4077, 0.4204), (0.745, 0.7393, 0.7506)]
)
def test_agresti_coull_gives_the_published_intervals(p, low, high):
    interval = agresti_coull(p * 40_000, 40_000, 0.99)
    assert [round(end, 4) for end in (interval.low, interval.high)] == [low, high]
    assert interval.estimate == pytest.approx(p) and interval.n == 40_000


def test_agresti_coull_by_its_formula():
    z = 1.959963984540054
    n, k = 20, 3
    centre = (k + z**2 / 2) / (n + z**2)
    half = z * np.sqrt(centre * (1 - centre) / (n + z**2))
    assert_allclose(list(agresti_coull(k, n)), [k / n, centre - half, centre + half])


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_agresti_coull_faults(successes, n):
    with pytest.raises(ValueError, match="successes"):
        agresti_coull(successes, n)


# --- over runs ---
def test_t_interval_by_hand():
    interval = t_interval([1, 2, 3, 4])  # mean 2.5, s = 1.29099, t(0.975, 3) = 3.18245
    assert_allclose(list(interval), [2.5, 2.5 - 2.05426, 2.5 + 2.05426], atol=1e-5)
    assert (interval.n, interval.n_values, interval.level) == (4, 4, 0.95)


@given(samples, st.sampled_from([0.5, 0.9, 0.99]))
def test_t_interval_equals_statsmodels(x, level):
    assert_allclose(list(t_interval(x, level))[1:], DescrStatsW(x).tconfint_mean(1 - level), atol=1e-6)


@given(samples, st.sampled_from([np.mean, np.median]))
@settings(deadline=None, max_examples=30)
def test_bootstrap_interval_contains_its_estimate(x, statistic):
    low, high = list(interval := bootstrap_interval(x, statistic, rng=rng(), n_boot=999, level=0.99))[1:]
    assert interval.estimate == pytest.approx(statistic(x))
    assert low - 1e-9 <= interval.estimate <= high + 1e-9
    assert min(x) - 1e-9 <= low and high <= max(x) + 1e-9


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=15)
def test_bootstrap_intervals_shrink_with_n(seed):
    x = rng(seed).normal(size=10)
    many = np.tile(x, 16)  # the same spread from sixteen times the runs: a quarter of the width, but for the tails
    widths = [np.subtract(*list(bootstrap_interval(v, rng=rng(seed)))[:0:-1]) for v in (x, many)]
    tails = [norm.ppf(expanded_tail(0.95, len(v))) for v in (x, many)]
    assert widths[1] / tails[1] == pytest.approx(widths[0] / tails[0] / 4, rel=0.1)
    for v in (x, many):  # every value its own cluster
        found, alone = cluster_bootstrap(v, np.arange(len(v)), rng=rng(seed)), bootstrap_interval(v, rng=rng(seed))
        assert found.high - found.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_equal_runs_have_an_interval_of_no_width():
    for interval in (t_interval([0.7] * 5), bootstrap_interval([0.7] * 5, rng=rng())):
        assert_allclose(list(interval), 0.7)


@pytest.mark.parametrize("x", [[1.0], [], [[1.0, 2.0]], [1.0, np.nan], [1.0, np.inf]])
def test_samples_that_have_no_interval(x):
    for make in (t_interval, lambda x: bootstrap_interval(x, rng=rng()), lambda x: paired_t(x, x)):
        with pytest.raises(ValueError, match=r"at least 2 values|NaN or infinite"):
            make(x)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_levels_are_shares(level):
    for make in (
        lambda: t_interval([1, 2], level),
        lambda: agresti_coull(1, 2, level),
        lambda: bootstrap_interval([1, 2], rng=rng(), level=level),
        lambda: cluster_bootstrap([1, 2], [1, 2], rng=rng(), level=level),
    ):
        with pytest.raises(ValueError, match="level"):
            make()


# --- over clusters ---
def test_cluster_bootstrap_of_two_clusters_by_hand():
    # Resampling {a: 0, 0, 0} and {b: 1} gives aa: 0, ab: 1/4 (twice as often), bb: 1.
    assert expanded_tail(0.1, 2) > 0.25 > expanded_tail(0.5, 2)  # tails of the middle value, and of the outer ones
    interval = cluster_bootstrap([0, 0, 0, 1], list("aaab"), rng=rng(), level=0.1)
    assert list(interval) == [0.25, 0.25, 0.25]
    interval = cluster_bootstrap([0, 0, 0, 1], list("aaab"), rng=rng(), level=0.6)
    assert list(interval) == [0.25, 0, 1]
    assert (interval.n, interval.n_values) == (2, 4)


def test_ratio_is_pooled():
    inter, union, groups = np.array([1.0, 2, 3, 10]), np.array([2.0, 4, 4, 10]), [0, 0, 1, 1]
    interval = cluster_bootstrap(inter, groups, denominators=union, rng=rng())
    assert interval.estimate == pytest.approx(16 / 20)
    assert (interval.low, interval.high) == (pytest.approx(3 / 6), pytest.approx(13 / 14))


@given(st.lists(st.tuples(floats, st.integers(0, 3)), min_size=2, max_size=30), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_order_of_images_and_names_of_clusters_do_not_matter(pairs, seed):
    values, groups = map(np.array, zip(*pairs, strict=True))
    if len(set(groups.tolist())) < 2:
        return
    order = rng(seed).permutation(len(values))
    first = cluster_bootstrap(values, groups, rng=rng(), n_boot=200)
    second = cluster_bootstrap(values[order], np.array(list("abcd"))[groups][order], rng=rng(), n_boot=200)
    assert_allclose(list(first), list(second), atol=1e-9)
    assert first.low <= first.high
    assert first.estimate == pytest.approx(values.mean(), abs=1e-9)


def test_cluster_bootstrap_covers_where_the_naive_one_does_not():
    """Strong clusters: intervals over clusters hold their level, intervals over images are far too short."""
    covered = {"clusters": 0, "images": 0}
    draws = rng(3)
    for _ in range(200):
        groups = np.repeat(np.arange(20), 8)
        values = draws.normal(size=20)[groups] + 0.3 * draws.normal(size=160)
        for unit, names in (("clusters", groups), ("images", np.arange(160))):
            found = cluster_bootstrap(values, names, rng=draws, n_boot=400)
            covered[unit] += found.low <= 0 <= found.high
    assert 0.88 <= covered["clusters"] / 200 <= 0.99
    assert covered["images"] / 200 < 0.7


def test_few_clusters_have_wider_intervals():
    """Plain percentiles of 6 clusters cover 86 %; tails are those of Hesterberg (2015), by hand."""
    assert expanded_tail(0.95, np.inf) == pytest.approx(0.025)
    assert expanded_tail(0.95, 6) == pytest.approx(norm.sf(2.5706 * 1.09545), rel=1e-3)
    draws, covered, plain = rng(4), np.zeros(2), 0
    for _ in range(400):
        values = draws.normal(size=6)
        clusters = cluster_bootstrap(values, np.arange(6), rng=draws, n_boot=1000)
        runs = bootstrap_interval(values, rng=draws, n_boot=1000)
        covered += [found.low <= 0 <= found.high for found in (clusters, runs)]
        resampled = values[draws.integers(6, size=(1000, 6))].mean(1)
        plain += np.quantile(resampled, 0.025) <= 0 <= np.quantile(resampled, 0.975)
    assert (covered >= 0.92 * 400).all() and (covered <= 0.98 * 400).all()
    assert plain / 400 < 0.9


def test_few_units_reach_a_level_of_their_own():
    assert [attainable(0.95, n) for n in (2, 4, 5, 6, 50)] == [0.5, 0.875, 0.9375, 0.95, 0.95]
    rng, n = np.random.default_rng(5), 3
    ends = [(min(drawn), max(drawn)) for drawn in rng.normal(0, 1, (4000, n))]
    held = np.mean([low <= 0 <= high for low, high in ends])
    assert held == pytest.approx(attainable(0.95, n), abs=0.03), "and no resample of means lies beyond its units"


def test_paired_cluster_bootstrap_averages_seeds_and_keeps_pairs():
    draws = rng(1)
    groups = np.repeat(np.arange(14), 5)
    difficulty = 0.3 * draws.normal(size=14)[groups]  # shared by both arms, so it cancels
    b = difficulty + 0.02 * draws.normal(size=(3, 70))
    a = difficulty + 0.05 + 0.02 * draws.normal(size=(5, 70))
    interval = paired_cluster_bootstrap(a, b, groups, rng=rng())
    assert interval.estimate == pytest.approx(a.mean() - b.mean())
    assert interval.low > 0.04 and interval.high < 0.06 and (interval.n, interval.n_values) == (14, 70)
    swapped = paired_cluster_bootstrap(b, a, groups, rng=rng())
    assert_allclose(list(swapped), [-interval.estimate, -interval.high, -interval.low], atol=1e-12)
    single = paired_cluster_bootstrap(a.mean(0), b.mean(0), groups, rng=rng())
    assert_allclose(list(single), list(interval))


def test_an_arm_against_itself_differs_by_nothing():
    a = rng().random((2, 6))
    assert list(paired_cluster_bootstrap(a, a, [0, 0, 1, 1, 2, 2], rng=rng())) == [0, 0, 0]


def test_same_stream_same_interval():
    make = [list(cluster_bootstrap([1, 2, 4, 8], [0, 1, 2, 3], rng=rng(seed), n_boot=51)) for seed in (5, 5, 6)]
    assert make[0] == make[1] != make[2]


def test_cluster_faults():
    with pytest.raises(ValueError, match="one cluster only"):
        cluster_bootstrap([1, 2], ["iron", "iron"], rng=rng())
    with pytest.raises(ValueError, match="lengths differ"):
        cluster_bootstrap([1, 2, 3], [0, 1], rng=rng())
    with pytest.raises(ValueError, match="NaN"):
        cluster_bootstrap([1, np.nan], [0, 1], rng=rng())
    with pytest.raises(ValueError, match="cluster b sum to 0"):
        cluster_bootstrap([1, 0], ["a", "b"], denominators=[1, 0], rng=rng())
    with pytest.raises(ValueError, match="same images: 3 against 2"):
        paired_cluster_bootstrap([1, 2, 3], [1, 2], [0, 1, 2], rng=rng())


# --- paired test ---
def test_paired_t_by_hand():
    test = paired_t([3, 5, 4, 8], [1, 4, 4, 5])  # differences 2, 1, 0, 3: mean 1.5, s = 1.29099
    assert test.difference.estimate == pytest.approx(1.5)
    assert test.effect_dz == pytest.approx(1.5 / 1.2909944)
    assert test.t == pytest.approx(test.effect_dz * 2) and test.n == 4  # t = d_z sqrt(n)
    assert test.p == pytest.approx(2 * scipy_stats.t.sf(test.t, 3))


@given(st.lists(st.tuples(floats, floats), min_size=3, max_size=15))
@settings(deadline=None)
def test_paired_t_is_antisymmetric_and_agrees_with_its_interval(pairs):
    a, b = np.array(pairs).T
    if np.ptp(a - b) < 1e-3:
        return
    forward, back = paired_t(a, b), paired_t(b, a)
    assert_allclose([forward.t, forward.effect_dz, forward.p], [-back.t, -back.effect_dz, back.p], atol=1e-12)
    holds_none = forward.difference.low <= 0 <= forward.difference.high
    assert holds_none == (forward.p >= 0.05) or abs(forward.p - 0.05) < 1e-9


def test_paired_t_of_equal_differences():
    assert paired_t([1, 2, 3], [1, 2, 3]).p == 1 and paired_t([1, 2, 3], [1, 2, 3]).effect_dz == 0
    assert paired_t([2, 3, 4], [1, 2, 3]).p == 0 and paired_t([1, 2, 3], [2, 3, 4]).effect_dz == -np.inf
    with pytest.raises(ValueError, match="3 against 2"):
        paired_t([1, 2, 3], [1, 2])


def test_results_cannot_be_changed():
    with pytest.raises(AttributeError):
        t_interval([1, 2]).low = 0
    assert isinstance(t_interval([1, 2]), Interval)


# --- labels that reach a score ---
def test_a_score_is_worth_what_reaches_it_alone():
    assert label_equivalent([0.85, 0.7, 0.95], [0.8, 0.9], [1, 4]) == pytest.approx([2, 1, 4])
    assert label_equivalent(0.85, [0.8, 0.7, 0.9], [1, 2, 4]) == pytest.approx(2), "more labels are never worth less"
    errors, alone = np.array([0.3, 0.45]), np.array([0.4, 0.5, 0.2])
    assert label_equivalent(-errors, -alone, [16, 32, 64]) == pytest.approx([(16 * 64) ** 0.5, 16])


def test_a_score_beyond_a_curve_that_flattens_is_worth_all_labels():
    assert label_equivalent([0.7, 0.9], [0.5, 0.7, 0.69], [1, 4, 16]) == pytest.approx([4, 16])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5), st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_a_better_score_is_never_worth_less(alone, scores):
    budgets = 2.0 ** np.arange(len(alone))
    found = label_equivalent(np.sort(scores), alone, budgets)
    assert (np.diff(found) >= -1e-9).all()
    assert_allclose(found.clip(budgets[0], budgets[-1]), found)


@pytest.mark.parametrize(
    ("scores", "alone", "budgets", "message"),
    [
        (0.8, [0.5, np.nan, 0.9], [1, 2, 4], "alone: 1 of 3 values are NaN"),
        (0.8, [0.5, 0.9], [1, 2, 4], "2 scores alone for 3 budgets"),
        (0.8, [0.5, 0.9], [4, 1], r"above 0 and rise, found \[4.0, 1.0\]"),
        (0.8, [0.5, 0.9], [0, 1], "above 0"),
        (0.8, [0.5], [1], "at least 2"),
        ([0.8, np.nan], [0.5, 0.9], [1, 2], "scores: some are NaN"),
    ],
)
def test_a_curve_that_cannot_be_read_is_refused(scores, alone, budgets, message):
    with pytest.raises(ValueError, match=message):
        label_equivalent(scores, alone, budgets)


def test_units_that_are_not_paired_or_alone_are_refused():
    one = np.array([[0.8, 0.9]])
    for scores, alone in ((one, one), (one.repeat(3, 0), one.repeat(2, 0)), (one[0], one.repeat(2, 0))):
        with pytest.raises(ValueError, match="the same units, 2 or more"):
            bootstrap_label_equivalent(scores, alone, [1, 4], rng=rng())


def test_units_alike_leave_no_interval_and_others_do():
    spread = np.array([0.0, 0.01, -0.01, 0.02])[:, None]
    alone = spread + np.array([0.8, 0.9])
    same = bootstrap_label_equivalent(spread + 0.85, alone, [1, 4], rng=rng(), n_boot=50)
    assert_allclose(same, 2)
    estimate, low, high = bootstrap_label_equivalent(2 * spread + 0.85, alone, [1, 4], rng=rng(), n_boot=50)
    assert low < estimate < high


def test_few_units_have_a_worth_between_the_lowest_and_the_highest():
    # Each of 3 units drawn three times is 1 of 27 resamples at either end: plain tails of 2.5 % leave them out.
    scores = np.array([[0.80], [0.85], [0.90]])
    found = bootstrap_label_equivalent(scores, np.tile([0.8, 0.9], (3, 1)), [1, 4], rng=rng())
    assert_allclose(np.ravel(found), [2, 1, 4])


def test_a_worth_has_the_interval_of_the_scores_behind_it():
    scores, budgets = 0.85 + 0.02 * rng(2).normal(size=8), [1, 16]
    one = cluster_bootstrap(scores, np.arange(8), rng=rng(), n_boot=2000)
    found = bootstrap_label_equivalent(scores[:, None], np.tile([0.7, 1.0], (8, 1)), budgets, rng=rng())
    assert_allclose(np.ravel(found), label_equivalent(list(one), [0.7, 1.0], budgets), rtol=1e-3)
