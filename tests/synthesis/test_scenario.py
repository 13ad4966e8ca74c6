"""Parameter spaces: what is drawn follows the distributions, repeats, and is kept as text; bad spaces are refused."""

import json
import math
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import qmc

from micro_lib.core.runs import read_table, write_table
from micro_lib.synthesis.distributions import (
    Choice,
    Conditional,
    Constant,
    Empirical,
    Integers,
    Kernel,
    Parameter,
    Scaled,
    between,
)
from micro_lib.synthesis.scenario import Space

MEASURED = tuple(np.random.default_rng(7).lognormal(0, 0.4, 200))


def space(**changes):
    parameters = {
        "appearance": Parameter(Choice({"etched": 3, "relief": 1, "polished": 0}), "", "preparation"),
        "grain_diameter_px": Parameter(stats.loguniform(20, 80), "px", "mean grain diameter"),
        "wavelength_px": Parameter(Scaled("grain_diameter_px", stats.uniform(1 / 5, 2 / 3 - 1 / 5)), "px"),
        "groove_px": Parameter(
            Conditional("appearance", {"etched": stats.truncnorm(-2, 2, loc=4, scale=1), "relief": Constant(0.0)}), "px"
        ),
        "twins": Parameter(Integers(0, 4), "1"),
        "pits": Parameter(stats.poisson(3), "1"),
        "grey": Parameter(Empirical(MEASURED, low=0.2, high=3), "1"),
        "blur_px": Parameter(stats.norm(1, 0.1), "px"),
        "size_px": Parameter(Constant(512), "px"),
    }
    return Space({**parameters, **changes})


SPACE = space()

numbers = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))
widths = st.floats(1e-3, 1e3).map(lambda x: round(x, 3))
names = st.sampled_from(["a", "b", "c", "d"])
frozen = st.one_of(
    st.builds(stats.uniform, numbers, widths),
    st.builds(stats.norm, numbers, scale=widths),
    st.builds(lambda low, factor: stats.loguniform(low, low * (1 + factor)), widths, widths),
    st.builds(lambda low, width, scale: stats.truncnorm(low, low + width, 3, scale), st.floats(-2, 2), widths, widths),
    st.builds(stats.lognorm, st.floats(0.1, 2), scale=widths),
    st.builds(lambda low, more: stats.randint(low, low + more), st.integers(-9, 9), st.integers(1, 9)),
    st.builds(stats.poisson, st.floats(0.1, 30)),
)
choices = st.dictionaries(names, st.floats(0.05, 5), min_size=1).map(Choice)
integers = st.builds(lambda low, more: Integers(low, low + more), st.integers(-99, 99), st.integers(0, 99))
empirical = st.builds(
    lambda values, width: Empirical(values, bandwidth=width, low=min(values) - width / 2),
    st.lists(st.floats(-50, 50), min_size=1, max_size=9),
    st.floats(0.05, 10),
)
numeric = st.one_of(frozen, integers, empirical, st.builds(Constant, numbers))
textual = st.one_of(choices, st.builds(Constant, names))
simple = st.one_of(numeric, textual)


@st.composite
def spaces(draw):
    """A space of a few plain parameters, one conditional on a choice and one scaled by a positive parameter."""
    parameters = {f"p{i}": Parameter(draw(simple), draw(names)) for i in range(draw(st.integers(0, 3)))}
    choice = draw(choices)
    parameters["kind"] = Parameter(choice, "", "what it is")
    cases = draw(st.sampled_from([numeric, textual]))
    parameters["depends"] = Parameter(Conditional("kind", {case: draw(cases) for case in choice.weights}), "1")
    parameters["ratio"] = Parameter(Scaled("scale", draw(frozen)), "px")
    parameters["scale"] = Parameter(stats.uniform(draw(widths), 5), "px")
    like = draw(st.lists(numbers, min_size=2, max_size=5))
    parameters["pick"] = Parameter(Integers(0, len(like) - 1), "1")
    parameters["like"] = Parameter(Kernel("pick", like, draw(widths), min(like), whole=draw(st.booleans())), "px")
    return Space(parameters)


# --- distributions


@settings(max_examples=200, deadline=None)
@given(simple, st.lists(st.floats(2.0**-54, 1 - 2.0**-53), min_size=1, max_size=20))
def test_every_uniform_number_has_a_value_whose_rank_holds_it(distribution, u):
    distribution = Parameter(distribution, "1").distribution
    u = np.array(u)
    values = distribution.quantile(u, {})
    low, high = distribution.rank(values, {})
    assert values.shape == u.shape
    assert (low - 1e-6 <= u).all() and (u <= high + 1e-6).all()
    assert (0 <= low).all() and (low <= high).all() and (high <= 1).all()
    if not isinstance(values[0], str):
        assert np.isfinite(values).all()
        assert (np.diff(distribution.quantile(np.sort(u), {})) >= 0).all()


@pytest.mark.parametrize("method", ["random", "sobol"])
@pytest.mark.parametrize("name", ["grain_diameter_px", "blur_px", "pits"])
def test_samples_follow_scipy(name, method):
    values = SPACE.sample(2000, 11, method)[name]
    wanted = {"grain_diameter_px": stats.loguniform(20, 80), "blur_px": stats.norm(1, 0.1), "pits": stats.poisson(3)}
    if name == "pits":
        counts = np.bincount(values, minlength=8)
        expected = 2000 * np.append(wanted[name].pmf(np.arange(7)), wanted[name].sf(6))
        assert stats.chisquare(np.append(counts[:7], counts[7:].sum()), expected).pvalue > 0.01
    else:
        assert stats.kstest(values, wanted[name].cdf).pvalue > 0.01


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_choices_integers_and_constants_have_their_shares(method):
    table = SPACE.sample(4000, 5, method)
    assert (
        stats.chisquare([(table.appearance == name).sum() for name in ("etched", "relief")], [3000, 1000]).pvalue > 0.01
    )
    assert set(table.appearance) == {"etched", "relief"}  # a weight of 0 never occurs
    assert stats.chisquare(table.twins.value_counts()).pvalue > 0.01 and set(table.twins) == set(range(5))
    assert set(table.size_px) == {512}


def test_conditional_and_scaled_parameters_follow_their_parents():
    table = SPACE.sample(4000, 3)
    etched = table.appearance == "etched"
    assert (table.groove_px[~etched] == 0).all()
    assert stats.kstest(table.groove_px[etched], stats.truncnorm(-2, 2, loc=4, scale=1).cdf).pvalue > 0.01
    ratio = table.wavelength_px / table.grain_diameter_px
    assert stats.kstest(ratio, stats.uniform(1 / 5, 2 / 3 - 1 / 5).cdf).pvalue > 0.01
    assert abs(stats.spearmanr(ratio, table.grain_diameter_px).statistic) < 0.05


def test_empirical_equals_scipys_kernel_density_where_there_are_no_bounds():
    density = stats.gaussian_kde(MEASURED, bw_method="scott")
    distribution = Empirical(MEASURED)
    assert distribution.bandwidth == pytest.approx(math.sqrt(density.covariance.item()))
    for value in (0.4, 0.8, 1.0, 1.7):
        expected = density.integrate_box_1d(-math.inf, value)
        assert distribution.rank(np.array([value]), {})[0] == pytest.approx(expected, abs=1e-3)


def test_empirical_keeps_to_its_bounds_and_every_measurement_to_its_weight():
    values, width, low, high = (0.0, 0.1, 0.9, 1.0), 0.2, 0.0, 1.0
    drawn = Empirical(values, width, low, high).quantile(np.random.default_rng(0).random(4000), {})
    assert drawn.min() >= low and drawn.max() <= high
    # By the definition: pick a measurement, then draw from its kernel cut at the bounds.
    kernels = [stats.truncnorm((low - v) / width, (high - v) / width, v, width) for v in values]
    assert stats.kstest(drawn, lambda x: np.mean([kernel.cdf(x) for kernel in kernels], axis=0)).pvalue > 0.01


def test_kernels_together_follow_the_joint_density_and_each_alone_the_empirical_one():
    rng = np.random.default_rng(3)
    width = rng.lognormal(1, 0.4, 80)
    grey = -0.1 * width + rng.normal(0, 0.05, 80)
    parameters = {"pick": Parameter(Integers(0, 79), "1")}
    parameters["width_px"] = Parameter(Kernel("pick", width, low=0), "px")
    parameters["grey"] = Parameter(Kernel("pick", grey, high=0), "1")
    table = Space(parameters).sample(4000, 2)
    for name, alone in {"width_px": Empirical(width, low=0), "grey": Empirical(grey, high=0)}.items():
        assert stats.kstest(table[name], lambda x, alone=alone: alone.rank(x, {})[0]).pvalue > 0.01
        assert parameters[name].distribution.bandwidth == alone.bandwidth
    assert stats.spearmanr(table.width_px, table.grey).statistic < -0.6
    near = np.abs(table.width_px - width[table["pick"]]) / parameters["width_px"].distribution.bandwidth
    assert near.max() < 6 and stats.kstest(near[width[table["pick"]] > 4], stats.halfnorm.cdf).pvalue > 0.01


def test_whole_kernels_give_counts():
    counts = (1, 1, 2, 5)
    space = Space(
        {"pick": Parameter(Integers(0, 3), "1"), "n": Parameter(Kernel("pick", counts, 0.5, 1, 6, True), "1")}
    )
    table = space.sample(4000, 1)
    assert table.n.dtype == np.int64 and set(table.n) <= set(range(1, 7))
    # Of the kernels about 1, cut at 1, what lies below 1.5 becomes 1.
    kernel = stats.truncnorm(0, 10, 1, 0.5)
    assert (table.n[table["pick"] < 2] == 1).mean() == pytest.approx(kernel.cdf(1.5), abs=0.03)
    low, high = space["n"].distribution.rank(np.array([1, 2]), {"pick": np.array([0, 0])})
    np.testing.assert_allclose([low, high], [[0, kernel.cdf(1.5)], [kernel.cdf(1.5), kernel.cdf(2.5)]], atol=1e-6)


# --- tables


@settings(max_examples=60, deadline=None)
@given(spaces(), st.integers(0, 2**40), st.integers(0, 40), st.integers(0, 40), st.sampled_from(["random", "sobol"]))
def test_a_row_never_depends_on_how_many_are_drawn(parameters, seed, n, more, method):
    few, many = parameters.sample(n, seed, method), parameters.sample(n + more, seed, method)
    pd.testing.assert_frame_equal(few, many.head(n), check_exact=True)
    assert list(few) == [*parameters, "seed"] and len(few) == n
    assert not many.isna().any(axis=None)


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_seeds_tell_tables_and_micrographs_apart(method):
    table, other = SPACE.sample(5000, 1, method), SPACE.sample(5000, 2, method)
    assert table.seed.dtype == np.int64 and table.seed.is_unique and table.seed.between(0, 2**53 - 1).all()
    assert (table.seed.astype(float).astype(np.int64) == table.seed).all()
    assert not set(table.seed) & set(other.seed)
    assert (table.blur_px != other.blur_px).all()


def test_a_parameter_never_depends_on_the_others_in_the_space():
    table = SPACE.sample(50, 4)
    fewer = SPACE.only("twins", "grain_diameter_px").sample(50, 4)
    assert list(fewer) == ["grain_diameter_px", "twins", "seed"]
    pd.testing.assert_frame_equal(fewer, table[list(fewer)])
    replaced = SPACE.replace(twins=Constant(1)).sample(50, 4).drop(columns="twins")
    pd.testing.assert_frame_equal(replaced, table.drop(columns="twins"))


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_the_order_of_the_parameters_only_orders_the_columns(method):
    backwards = Space({name: SPACE[name] for name in list(SPACE)[::-1]})
    table, other = SPACE.sample(20, 4, method), backwards.sample(20, 4, method)
    assert list(other) == [*list(SPACE)[::-1], "seed"]
    pd.testing.assert_frame_equal(other[list(table)], table)
    near = backwards.neighbours(other, 0.2, 2, 0)
    pd.testing.assert_frame_equal(near[list(table)], SPACE.neighbours(table, 0.2, 2, 0))


def test_sobol_is_balanced_and_more_even_than_random():
    unit = Space({f"x{i}": Parameter(stats.uniform(), "1") for i in range(6)})
    points = unit.sample(256, 9, "sobol").drop(columns="seed")
    for name in points:
        # One point in each of the 256 equal intervals: the net property along an axis.
        assert (np.bincount((points[name] * 256).astype(int), minlength=256) == 1).all()
    random = unit.sample(256, 9).drop(columns="seed")
    assert qmc.discrepancy(points.to_numpy()) < 0.3 * qmc.discrepancy(random.to_numpy())


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="halton"):
        SPACE.sample(2, 0, "halton")


def test_a_scale_that_is_not_positive_is_refused():
    bad = Space({"a": Parameter(Scaled("b", stats.uniform(1, 2)), "px"), "b": Parameter(stats.norm(0, 1), "px")})
    with pytest.raises(ValueError, match=r"'a'.*b, which must be positive"):
        bad.sample(50, 0)


# --- as text


@settings(max_examples=60, deadline=None)
@given(spaces(), st.sampled_from(["random", "sobol"]))
def test_text_round_trip(parameters, method):
    text = json.dumps(parameters.to_json(), allow_nan=False)
    again = Space.from_json(json.loads(text))
    assert again == parameters and list(again) == list(parameters)
    pd.testing.assert_frame_equal(again.sample(20, 1, method), parameters.sample(20, 1, method), check_exact=True)


def test_file_round_trip(tmp_path):
    path = tmp_path / "spaces" / "grains.json"
    SPACE.save(path)
    assert Space.load(path) == SPACE and Space.load(path)["twins"].unit == "1"
    assert "seed" not in path.read_text() and [file.name for file in path.parent.iterdir()] == ["grains.json"]


def test_spaces_differ_by_any_part():
    assert SPACE == space() and SPACE != space(twins=Parameter(Integers(0, 5), "1"))
    assert SPACE != space(twins=Parameter(Integers(0, 4), "px"))
    reordered = (
        Space({"a": Parameter(Choice({"x": 1, "y": 1}), "")}),
        Space({"a": Parameter(Choice({"y": 1, "x": 1}), "")}),
    )
    assert reordered[0] != reordered[1]


def test_worker_processes_get_the_same_space():
    copy = pickle.loads(pickle.dumps(SPACE))
    pd.testing.assert_frame_equal(copy.sample(5, 0), SPACE.sample(5, 0))


def broken(**changes):
    return json.dumps({**SPACE.to_json(), **changes})


ENTRY = {"name": "a", "unit": "px", "doc": ""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "format"),
        (broken(format="micro_lib.space/99"), "format"),
        (broken(parameters=[{**ENTRY, "distribution": {"kind": "Constant", "value": 1}}] * 2), "'a' is there twice"),
        (broken(parameters=[{**ENTRY, "distribution": {"kind": "unifrom", "loc": 1}}]), "'a'.*'unifrom'"),
        (broken(parameters=[{**ENTRY, "distribution": {"kind": "kstest"}}]), "'a'.*'kstest'"),
        (broken(parameters=[{**ENTRY, "distribution": {"kind": "uniform", "low": 1}}]), "'a'.*low"),
        (broken(parameters=[{**ENTRY, "distribution": {"kind": "Integers", "low": 1}}]), "'a'.*high"),
        (broken(parameters=[{**ENTRY, "distribution": {"kind": "Integers", "low": 2, "high": 1}}]), "'a'.*low 2"),
        (broken(parameters=[{**ENTRY, "distribution": {"kind": "Choice", "weights": 5}}]), "'a'.*weights are 5"),
        (broken(parameters=[{**ENTRY, "distribution": {"kind": "Choice", "weights": [1, 2]}}]), "'a'.*weights are"),
        (
            broken(parameters=[{**ENTRY, "distribution": {"kind": "Conditional", "on": "b", "cases": 3}}]),
            "'a'.*cases are 3",
        ),
        (broken(parameters=[{"name": "a"}]), "distribution"),
    ],
)
def test_bad_files_are_named_with_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"bad.json.*{message}"):
        Space.load(path)


# --- bad spaces


@pytest.mark.parametrize(
    "bad",
    [
        Integers(5, 2),
        Integers(1.5, 4),
        stats.uniform(5, -1),
        stats.uniform(5, 0),
        stats.uniform(math.nan, 1),
        stats.uniform(0, math.inf),
        stats.truncnorm(2, -1),
        stats.loguniform(-1, 3),
        stats.randint(5, 2),
        Choice({}),
        Choice({"x": -1, "y": 2}),
        Choice({"x": 0}),
        Choice({"x": math.nan}),
        Choice({"x": 1, 2: 1}),
        Constant(math.nan),
        Empirical([]),
        Empirical([1.0]),
        Empirical([1, 2, math.nan]),
        Empirical([1, 2], bandwidth=-1),
        Empirical([1, 2], low=1.5),
        Empirical([1, 1], bandwidth=1, low=1, high=1),
        Kernel("twins", []),
        Kernel("twins", [1, 2, 3, 4]),  # one fewer than twins can pick
        Kernel("twins", [1, 2, 3, 4, 5], low=2),
        Kernel("twins", [1, 1, 1, 1, 1]),
        Kernel("nothing", [1, 2, 3, 4, 5]),
        Kernel("appearance", [1, 2, 3, 4, 5]),
        Kernel("grain_diameter_px", [1, 2, 3, 4, 5]),
        Scaled("grain_diameter_px", stats.uniform(5, -1)),
        Scaled("nothing", stats.uniform(5, 1)),
        Scaled("grain_diameter_px", Choice({1: 1, 2: 1})),
        Scaled("appearance", stats.uniform(5, 1)),
        Conditional("nothing", {"etched": Constant(1)}),
        Conditional("appearance", {"etched": Constant(1)}),
        Conditional("appearance", {"etched": Constant(1), "relief": Integers(3, 1)}),
        Conditional("appearance", {"etched": Constant(1), "relief": Scaled("appearance", stats.uniform(1, 1))}),
        Conditional("appearance", {"etched": Constant(1), "relief": Constant("none")}),
        Conditional("grain_diameter_px", {20: Constant(1)}),
        Conditional("twins", {0: Constant(1), 1: Constant(1)}),
    ],
    ids=lambda bad: type(bad).__name__,
)
def test_bad_ranges_are_refused_by_name(bad):
    with pytest.raises(ValueError, match="'culprit'"):
        space(culprit=Parameter(bad, "px"))


def test_circles_are_refused():
    circle = {
        "a": Parameter(Scaled("b", stats.uniform(1, 1)), "1"),
        "b": Parameter(Scaled("a", stats.uniform(1, 1)), "1"),
    }
    with pytest.raises(ValueError, match=r"circle: (a <- b <- a|b <- a <- b)"):
        Space(circle)


@pytest.mark.parametrize("name", ["seed", "two words", "", 3])
def test_bad_names_are_refused(name):
    with pytest.raises(ValueError, match="identifier"):
        Space({name: Parameter(Constant(1), "1")})


def test_things_that_are_no_distribution_are_refused():
    with pytest.raises(TypeError, match=r"5 is no distribution.*Constant"):
        Parameter(5, "px")
    with pytest.raises(ValueError, match=r"'a'.*no Parameter"):
        Space({"a": Constant(1)})
    with pytest.raises(ValueError, match="at least one"):
        Space({})


def test_replace_knows_its_parameters():
    changed = SPACE.replace(twins=Integers(1, 2), blur_px=Parameter(Constant(2.0), "um", "other"))
    assert changed["twins"] == Parameter(Integers(1, 2), "1") and changed["blur_px"].unit == "um"
    assert list(changed) == list(SPACE) and SPACE == space()
    for call in (lambda: SPACE.replace(twin=Integers(1, 2)), lambda: SPACE.only("twin")):
        with pytest.raises(ValueError, match="'twin'; did you mean 'twins'"):
            call()
    with pytest.raises(ValueError, match=r"'wavelength_px'.*grain_diameter_px"):
        SPACE.only("wavelength_px")


def test_replace_takes_plain_values_and_names_what_is_none():
    assert SPACE.replace(twins=2)["twins"] == Parameter(Constant(2), "1", SPACE["twins"].doc)
    with pytest.raises(
        ValueError, match=r"'twins': \(20, 60\) is no text, number or truth value; .* between\(low, high\)"
    ):
        SPACE.replace(twins=(20, 60))
    with pytest.raises(ValueError, match=r"^between\(60, 20\): the smaller number comes first"):
        between(60, 20)


def test_a_file_that_is_not_there_is_looked_for_by_its_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"no file mine.json in {tmp_path}"):
        Space.load("mine.json")


def test_describe_tells_every_parameter():
    table = SPACE.describe().set_index("parameter")
    assert list(table.index) == list(SPACE)
    assert table.loc["grain_diameter_px", "50 %"] == pytest.approx(40, rel=1e-3)
    assert table.loc["blur_px", "95 %"] == pytest.approx(stats.norm(1, 0.1).ppf(0.95), rel=1e-3)
    assert (
        table.loc["appearance"].isna()[["5 %", "50 %", "95 %"]].all()
        and table.loc["appearance", "doc"] == "preparation"
    )
    assert table.loc["twins", "distribution"] == "integers 0 to 4" and table.loc["size_px", "unit"] == "px"


# --- neighbours


@settings(max_examples=60, deadline=None)
@given(spaces(), st.floats(0, 1), st.integers(0, 9), st.integers(0, 9))
def test_neighbours_stay_within_a_fraction_of_the_distribution(parameters, span, n, seed):
    rows = parameters.sample(3, 1)
    near = parameters.neighbours(rows, span, n, seed)
    assert list(near) == list(rows) and len(near) == 3 * n and (near.dtypes == rows.dtypes).all()
    assume(n)
    for name in parameters:
        distribution = parameters[name].distribution
        old = rows.loc[rows.index.repeat(n)].reset_index(drop=True)
        before, after = (
            distribution.rank(table[name].to_numpy(), {key: table[key].to_numpy() for key in parameters})
            for table in (old, near)
        )
        centre = np.mean(before, axis=0)
        assert (after[1] >= centre - span - 1e-6).all() and (after[0] <= centre + span + 1e-6).all()


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 2), st.integers(0, 5), st.integers(0, 50), st.integers(0, 50))
def test_neighbours_stay_within_absolute_spans_and_the_support(blur, twins, seed, row_seed):
    row = SPACE.sample(1, row_seed).iloc[0]
    near = SPACE.neighbours(row, {"blur_px": blur, "twins": twins, "grey": 0.3}, 20, seed)
    assert (near.blur_px - row.blur_px).abs().max() <= blur + 1e-6
    assert (near.twins - row.twins).abs().max() <= twins and near.twins.between(0, 4).all()
    assert (near.grey - row.grey).abs().max() <= 0.3 + 1e-6 and near.grey.between(0.2, 3).all()
    for name in set(SPACE) - {"blur_px", "twins", "grey"}:
        assert (near[name] == row[name]).all()


def test_neighbours_fill_their_interval_by_the_distribution():
    unit = Space({"x": Parameter(stats.uniform(0, 10), "px")})
    row = {"x": 9.0, "seed": 5}
    near = unit.neighbours(row, {"x": 2}, 2000, 0)
    assert stats.kstest(near.x, stats.uniform(7, 3).cdf).pvalue > 0.01  # cut at the support, not heaped on its end
    fraction = unit.neighbours(row, 0.05, 2000, 0)
    assert stats.kstest(fraction.x, stats.uniform(8.5, 1).cdf).pvalue > 0.01


def test_neighbours_move_what_they_are_told_and_what_depends_on_it():
    row = SPACE.sample(1, 2).iloc[0]
    near = SPACE.neighbours(row, 0.1, 10, 0, parameters=["grain_diameter_px"])
    assert near.grain_diameter_px.nunique() == 10
    ratio = row.wavelength_px / row.grain_diameter_px
    np.testing.assert_allclose(near.wavelength_px / near.grain_diameter_px, ratio)
    assert all((near[name] == row[name]).all() for name in set(SPACE) - {"grain_diameter_px", "wavelength_px"})
    switched = SPACE.neighbours(row, 1, 200, 0, parameters=["appearance"])
    assert set(switched.appearance) == {"etched", "relief"}
    assert ((switched.groove_px == 0) == (switched.appearance == "relief")).all()


def test_neighbours_are_new_micrographs_unless_the_seed_is_kept():
    rows = SPACE.sample(4, 2)
    new = SPACE.neighbours(rows, 0.1, 5, 0)
    assert new.seed.is_unique and not set(new.seed) & set(rows.seed) and new.blur_px.is_unique
    kept = SPACE.neighbours(rows, 0.1, 5, 0, keep_seed=True)
    assert (kept.seed.to_numpy() == np.repeat(rows.seed, 5).to_numpy()).all()
    pd.testing.assert_frame_equal(kept.drop(columns="seed"), new.drop(columns="seed"))


def test_neighbours_repeat_whatever_was_drawn_beside_them(tmp_path):
    rows = SPACE.sample(4, 2)
    near = SPACE.neighbours(rows, 0.1, 5, 0)
    alone = SPACE.neighbours(rows.iloc[2], 0.1, 3, 0)
    pd.testing.assert_frame_equal(alone, near.iloc[10:13].reset_index(drop=True), check_exact=True)
    write_table(rows.assign(iou=0.5), tmp_path / "rows.csv")
    pd.testing.assert_frame_equal(
        SPACE.neighbours(read_table(tmp_path / "rows.csv"), 0.1, 5, 0), near, check_exact=True
    )
    assert (SPACE.neighbours(rows, 0.1, 5, 1).blur_px != near.blur_px).all()


def test_rows_of_a_table_put_together_keep_apart():
    rows = pd.concat([SPACE.sample(2, 0), SPACE.sample(2, 1)])  # the index holds 0 and 1 twice
    near = SPACE.neighbours(rows, 0, 3, 0, keep_seed=True)
    assert (near.seed.to_numpy() == np.repeat(rows.seed.to_numpy(), 3)).all()
    np.testing.assert_allclose(near.blur_px, np.repeat(rows.blur_px.to_numpy(), 3))


def test_scaled_whole_numbers_keep_their_rank():
    multiples = Space(
        {"step": Parameter(stats.uniform(1, 9), "px"), "x": Parameter(Scaled("step", Integers(1, 5)), "px")}
    )
    rows = multiples.sample(500, 0)
    near = multiples.neighbours(rows, 0, 1, 0)
    np.testing.assert_allclose(near.x, rows.x, rtol=1e-12)


def test_rows_outside_the_space_come_back_to_its_edge():
    row = {**SPACE.sample(1, 0).iloc[0], "grain_diameter_px": 500.0}
    near = SPACE.neighbours(row, {"grain_diameter_px": 5}, 3, 0)
    np.testing.assert_allclose(near.grain_diameter_px, 80)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"span": -0.1}, "appearance.*-0.1"),
        ({"span": 1.1}, "appearance.*1.1"),
        ({"span": math.nan}, "appearance.*nan"),
        ({"span": {"twins": -1}}, "twins.*-1"),
        ({"span": {"twin": 1}}, "'twin'; did you mean 'twins'"),
        ({"span": {"appearance": 1}}, "appearance.*no distance"),
        ({"span": {"twins": 1}, "parameters": ["twins"]}, "leave out"),
        ({"parameters": ["nothing"]}, "'nothing'"),
        ({"rows": {"twins": 1}}, "lack values of.*appearance"),
        ({"rows": {**SPACE.sample(1, 0).iloc[0], "grey": math.nan}}, "lack values of.*grey"),
        ({"rows": {**SPACE.sample(1, 0).iloc[0], "appearance": "rusty"}}, "'appearance'.*rusty"),
        (
            {"rows": {**SPACE.sample(1, 0).iloc[0], "appearance": "rusty"}, "span": {"groove_px": 1}},
            "'groove_px'.*rusty",
        ),
    ],
    ids=repr,
)
def test_bad_neighbours_are_refused_by_name(changes, message):
    arguments = {"rows": SPACE.sample(1, 0), "span": 0.1, "n": 2, "seed": 0, **changes}
    with pytest.raises(ValueError, match=message):
        SPACE.neighbours(**arguments)
