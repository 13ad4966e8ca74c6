"""Strategies on tables made by hand: the worst is the worst, nothing else moves, failures are found."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import uniform

from micro_lib.synthesis.distributions import Choice, Conditional, Constant, Integers, Parameter
from micro_lib.synthesis.presets import preset
from micro_lib.synthesis.scenario import Space
from micro_lib.training.proposals import STRATEGIES, Adaptive, FailureModel, Scattered, encoder, strategy

SPACE = Space(
    {
        "kind": Parameter(Choice({"smooth": 0.5, "rough": 0.5}), "", "a text"),
        "grey": Parameter(uniform(0, 1), "1", "a number"),
        "width": Parameter(Conditional("kind", {"smooth": uniform(1, 4), "rough": uniform(10, 10)}), "px", "by kind"),
        "steps": Parameter(Integers(0, 4), "1", "a whole number"),
        "side": Parameter(Constant(64), "px", "always the same"),
    }
)
OPTIONS = {"parameters": ("grey", "width"), "interval": 0.1, "share": 0.1}
COLUMNS = [*SPACE, "seed"]


def scored(miou, seed=1):
    table = SPACE.sample(len(miou), seed)
    return table, pd.DataFrame({"seed": table["seed"], "miou": miou})


def rng(seed=0):
    return np.random.default_rng(seed)


def ranks(table, name):
    return np.mean(SPACE[name].distribution.rank(table[name].to_numpy(), {n: table[n].to_numpy() for n in SPACE}), 0)


def test_the_worst_share_is_exactly_the_worst():
    miou = [0.9, 0.2, 0.5, 0.1, 0.8, 0.5, 0.7, 0.6, 0.95, 0.85]
    table, scores = scored(miou)
    worst = Adaptive(SPACE, **{**OPTIONS, "share": 0.4}).worst(table, scores)
    assert worst.index.tolist() == [3, 1, 2, 5]  # of equal ones the first in the table first
    new = Adaptive(SPACE, **{**OPTIONS, "share": 0.2}, keep_seed=True).propose(table, scores, 6, rng())
    assert new["seed"].tolist() == table["seed"].iloc[[3] * 3 + [1] * 3].tolist()


@given(st.integers(0, 2**32), st.floats(0, 1), st.sets(st.sampled_from(list(SPACE)), min_size=1), st.booleans())
def test_variations_move_the_named_parameters_within_the_interval_and_the_support(seed, interval, names, keep_seed):
    table, scores = scored(rng(seed).random(20), seed)
    new = Adaptive(SPACE, tuple(names), interval, 0.1, keep_seed).propose(table, scores, 10, rng(seed))
    old = table.loc[scores["miou"].nsmallest(2).index.repeat(5)].reset_index(drop=True)
    assert new.columns.tolist() == COLUMNS and (new.dtypes == table.dtypes).all()
    for name in set(SPACE) - names - ({"width"} if "kind" in names else set()):
        assert (new[name] == old[name]).all(), name
    assert (new["seed"] == old["seed"]).all() == keep_seed
    if "grey" in names:
        assert (abs(new["grey"] - old["grey"]) <= interval + 1e-9).all() and new["grey"].between(0, 1).all()
    if "width" in names:
        assert (abs(ranks(new, "width") - ranks(old, "width")) <= interval + 1e-9).all()
        assert new["width"].between(*np.where(new["kind"] == "smooth", [[1], [5]], [[10], [20]])).all()


def test_an_interval_beyond_the_support_ends_there():
    space = Space({"grey": Parameter(uniform(0, 1), "1", "")})
    table = pd.DataFrame({"grey": [0.02], "seed": [3]})
    scores = pd.DataFrame({"seed": [3], "miou": [0.5]})
    new = Adaptive(space, ("grey",), 0.1, 1.0).propose(table, scores, 400, rng())["grey"]
    assert 0 <= new.min() < 0.01 and 0.11 < new.max() <= 0.12


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_has_one_interface(name):
    table, scores = scored(rng().random(40))
    chooser = strategy(name, SPACE, OPTIONS)
    before = table.copy(), scores.copy()
    new = chooser.propose(table, scores, 12, rng(5))
    assert len(new) == (0 if name == "none" else 12)
    assert new.columns.tolist() == COLUMNS and (new.dtypes == table.dtypes).all()
    assert (
        not set(new["seed"]) & set(table["seed"]) and new["seed"].is_unique and new.index.tolist() == [*range(len(new))]
    )
    pd.testing.assert_frame_equal(new, chooser.propose(table, scores, 12, rng(5)))
    if name != "none":
        assert not new.equals(chooser.propose(table, scores, 12, rng(6)))
    pd.testing.assert_frame_equal(table, before[0])
    pd.testing.assert_frame_equal(scores, before[1])


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_the_blind_strategies_do_not_look_at_scores(method):
    table, scores = scored(rng().random(20))
    blind = Scattered(SPACE, method)
    other = scores.assign(miou=1 - scores["miou"])
    pd.testing.assert_frame_equal(blind.propose(table, scores, 8, rng(1)), blind.propose(table, other, 8, rng(1)))


def test_sobol_covers_more_evenly_than_random():
    def unevenness(new):
        return np.abs(np.histogram(new["grey"], 64, (0, 1))[0] - 1).sum()

    table, scores = scored(rng().random(20))
    random, sobol = (unevenness(Scattered(SPACE, m).propose(table, scores, 64, rng(1))) for m in ("random", "sobol"))
    assert sobol == 0 < random


def planted(table):
    """Failures in one corner: rough, and darker than 0.25."""
    return (table["kind"] == "rough") & (table["grey"] < 0.25)


@pytest.mark.parametrize("name", ["adaptive", "failure model"])
@pytest.mark.parametrize("seed", range(5))
def test_a_planted_failure_is_found_more_often_than_by_chance(name, seed):
    table = SPACE.sample(300, seed)
    noise = rng(seed).normal(0, 0.03, len(table))
    scores = pd.DataFrame({"seed": table["seed"], "miou": np.where(planted(table), 0.3, 0.8) + noise})
    found, blind = (
        planted(strategy(n, SPACE, OPTIONS).propose(table, scores, 90, rng(seed))).mean() for n in (name, "random")
    )
    assert found > 0.5 > 2 * blind


def test_the_failure_model_learns_the_failure_and_does_not_collapse():
    table = SPACE.sample(300, 2)
    scores = pd.DataFrame({"seed": table["seed"], "miou": np.where(planted(table), 0.3, 0.8)})
    chooser, rows = FailureModel(SPACE), SPACE.sample(200, 9)
    failure, spread = chooser.predict(table, scores, rows, 1)
    assert failure[planted(rows)].mean() > failure[~planted(rows)].mean() + 0.25
    assert 0.2 - 1e-9 <= failure.min() and failure.max() <= 0.7 + 1e-9 and (spread >= 0).all()
    inside = chooser.propose(table, scores, 100, rng())
    inside = inside[planted(inside)]["grey"]
    assert inside.min() < 0.05 and inside.max() > 0.2  # all over the corner


def test_exploration_prefers_what_the_trees_disagree_on():
    table = SPACE.sample(300, 2)
    scores = pd.DataFrame({"seed": table["seed"], "miou": np.where(planted(table), 0.3, 0.8)})
    spreads = []
    for exploration in (0.0, 20.0):
        chooser = FailureModel(SPACE, exploration=exploration)
        new = chooser.propose(table, scores, 60, rng(3))
        spreads.append(chooser.predict(table, scores, new, 1)[1].mean())
    assert spreads[1] > 1.2 * spreads[0]


def test_equal_scores_everywhere_leave_a_random_choice():
    table, scores = scored(np.full(50, 0.7))
    new = FailureModel(SPACE).propose(table, scores, 200, rng())
    assert abs(new["grey"].mean() - 0.5) < 0.1


def test_texts_become_columns_and_what_never_changes_none():
    table = SPACE.sample(50, 1)
    at = encoder(table)(table)
    assert at.shape == (50, 3 + 2 + 1)  # grey, width, steps; smooth, rough; the one that is always there
    assert set(at[:, 3:5].sum(1)) == {1.0}
    broad = preset("broad").sample(50, 1)
    assert np.isfinite(encoder(broad)(broad)).all()


@pytest.mark.parametrize("name", ["adaptive", "failure model"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.assign(miou=s["miou"].where(s.index != 3)), "the score of row 3 is nan; 1 of 20"),
        (lambda s: s.assign(seed=s["seed"] + 1), "of another table: in row 0 the seed is"),
        (lambda s: s.iloc[::-1], "of another table"),
        (lambda s: s.iloc[:-1], "19 scores for a table of 20 rows"),
        (lambda s: s.drop(columns="miou"), r"lack \['miou'\]"),
    ],
)
def test_scores_that_do_not_fit_are_refused(name, change, message):
    table, scores = scored(rng().random(20))
    with pytest.raises(ValueError, match=message):
        strategy(name, SPACE, OPTIONS).propose(table, change(scores), 4, rng())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": ("gray",)}, "no parameter is called 'gray'; did you mean 'grey'"),
        ({"interval": -0.1}, "the span is -0.1"),
        ({"interval": 1.5}, "the span is 1.5"),
        ({"share": 0.0}, "share is 0.0"),
        ({"share": 1.1}, "share is 1.1"),
    ],
)
def test_an_adaptive_strategy_that_cannot_be_is_refused_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        strategy("adaptive", SPACE, {**OPTIONS, **change})


def test_budgets_that_cannot_be_spent_are_refused():
    table, scores = scored(rng().random(40))
    with pytest.raises(ValueError, match="10 cannot be divided evenly among the worst 4 of 40 rows; take a multiple"):
        strategy("adaptive", SPACE, OPTIONS).propose(table, scores, 10, rng())
    for name in ("adaptive", "random", "sobol", "failure model"):
        with pytest.raises(ValueError, match="the budget is 0"):
            strategy(name, SPACE, OPTIONS).propose(table, scores, 0, rng())
    with pytest.raises(ValueError, match="no rows to choose from"):
        strategy("adaptive", SPACE, OPTIONS).propose(table[:0], scores[:0], 4, rng())


def test_unknown_strategies_are_refused():
    with pytest.raises(ValueError, match="strategy is 'greedy'; there are adaptive, random"):
        strategy("greedy", SPACE, OPTIONS)
