"""Scenarios as tables: a space of parameters with distributions and units, sampled to one row a micrograph."""

import dataclasses
import difflib
import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats
from scipy.stats import qmc

from micro_lib.core.runs import read_json, write_json
from micro_lib.core.seeds import stream

FORMAT = "micro_lib.space/1"
# Uniform numbers stay off 0 and 1, where unbounded distributions have no value.
_U_MIN, _U_MAX = 2.0**-54, 1 - 2.0**-53
# Row seeds are exact as float64 too, which is what one row of a numeric table turns into.
_SEED_RANGE = 2.0**53


class Micrograph(NamedTuple):
    """A generated micrograph with everything that is known about it.

    Attributes
    ----------
    image : numpy.ndarray
        (H, W) uint8 or uint16 grey levels.
    mask : numpy.ndarray
        (H, W) uint8 class ids.
    labels : numpy.ndarray
        (H, W) int32 ids of the objects, 1 to N; for grains every pixel, on a boundary too, belongs to one.
    pixel_size_um : float
        Edge of a pixel in um.
    """

    image: np.ndarray
    mask: np.ndarray
    labels: np.ndarray
    pixel_size_um: float


class Distribution(ABC):
    """What a parameter's values follow: the inverse of its distribution function, and that function."""

    ordered = True  # there is a distance between values

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the parameters that must be drawn before."""
        return ()

    def outcomes(self, space: Mapping[str, "Parameter"]) -> tuple | None:
        """Return the values that can occur, None where they cannot be listed."""
        return None

    @abstractmethod
    def check(self) -> None:
        """Raise ValueError for a bad range; a `Space` calls it, so that the message can name the parameter."""

    @abstractmethod
    def quantile(self, u: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the values (N,) at uniform numbers (N,) in (0, 1); `columns` holds the parameters it needs."""

    @abstractmethod
    def rank(self, values: np.ndarray, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends (N,), (N,) of the interval of uniform numbers that gives each value."""


@dataclass(frozen=True)
class Frozen(Distribution):
    """A frozen ``scipy.stats`` distribution by name; `Parameter` makes it of the distribution it is given.

    Attributes
    ----------
    name : str
        Name in ``scipy.stats``, continuous or discrete.
    arguments : mapping
        Shape parameters, loc and scale by name.
    """

    name: str
    arguments: Mapping[str, float]

    @classmethod
    def of(cls, frozen) -> "Frozen":
        """Return a frozen distribution of ``scipy.stats`` by its name and arguments."""
        names = [*(frozen.dist.shapes or "").replace(",", " ").split(), "loc", "scale"]
        arguments = {**dict(zip(names, frozen.args, strict=False)), **frozen.kwds}
        return cls(frozen.dist.name, {key: float(value) for key, value in arguments.items()})

    @cached_property
    def scipy(self):
        """The frozen distribution of ``scipy.stats``; ValueError where there is none such."""
        family = getattr(stats, self.name, None)
        if not isinstance(family, stats.rv_continuous | stats.rv_discrete):
            raise ValueError(f"scipy.stats has no distribution {self.name!r}")
        try:
            return family(**self.arguments)
        except TypeError as error:
            raise ValueError(f"scipy.stats.{self.name} does not take {list(self.arguments)}: {error}") from error

    @property
    def _discrete(self) -> bool:
        return isinstance(self.scipy.dist, stats.rv_discrete)

    def check(self) -> None:
        with np.errstate(invalid="ignore"):
            support, median = self.scipy.support(), self.scipy.median()
        if np.isnan([*self.arguments.values(), *support]).any() or not np.isfinite(median):
            raise ValueError(f"{self} is no distribution; scipy.stats.{self.name} tells the ranges allowed")

    def quantile(self, u, columns):
        values = np.clip(self.scipy.ppf(u), *self.scipy.support())  # rounding near 1 leaves the support of some
        return values.astype(np.int64) if self._discrete else values

    def rank(self, values, columns):
        high = self.scipy.cdf(values)
        return (self.scipy.cdf(np.ceil(values) - 1) if self._discrete else high), high

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value:g}' for key, value in self.arguments.items())})"


@dataclass(frozen=True)
class Integers(Distribution):
    """Whole numbers from `low` to `high`, both included, equally likely."""

    low: int
    high: int

    def check(self) -> None:
        if not all(isinstance(end, numbers.Integral) for end in (self.low, self.high)) or self.low > self.high:
            raise ValueError(f"low {self.low} and high {self.high} must be whole numbers, low <= high")

    def outcomes(self, space):
        return tuple(range(self.low, self.high + 1))

    def quantile(self, u, columns):
        return self.low + np.floor(u * (self.high - self.low + 1)).astype(np.int64)

    def rank(self, values, columns):
        ends = np.stack([np.ceil(values), np.floor(values) + 1]) - self.low
        return tuple(np.clip(ends / (self.high - self.low + 1), 0, 1))

    def __str__(self) -> str:
        return f"integers {self.low} to {self.high}"


@dataclass(frozen=True)
class Choice(Distribution):
    """One of several values (text, numbers or truth values), as likely as its weight says."""

    weights: Mapping[Any, float]
    ordered = False

    def check(self) -> None:
        weights = np.array(list(self.weights.values()), float)
        if not len(weights) or not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
            raise ValueError(f"weights {dict(self.weights)} must be 0 or larger, finite, and one of them positive")
        _check_alike(isinstance(value, str) for value in self.weights)

    def outcomes(self, space):
        return tuple(value for value, weight in self.weights.items() if weight > 0)

    @cached_property
    def _ends(self) -> np.ndarray:
        total = np.cumsum([0.0, *self.weights.values()])
        return total / total[-1]

    def quantile(self, u, columns):
        return np.array(list(self.weights))[np.searchsorted(self._ends[1:], u, side="right")]

    def rank(self, values, columns):
        places = {value: place for place, value in enumerate(self.weights)}
        if unknown := set(values) - set(places):
            raise ValueError(f"found {sorted(map(str, unknown))}, which is none of {list(places)}")
        place = np.array([places[value] for value in values], int)
        return self._ends[place], self._ends[place + 1]

    def __str__(self) -> str:
        shares = zip(self.weights, np.diff(self._ends), strict=True)
        return "one of " + ", ".join(f"{value} ({share:.3g})" for value, share in shares)


@dataclass(frozen=True)
class Constant(Distribution):
    """The same value (text, a number or a truth value) in every micrograph."""

    value: Any

    @property
    def ordered(self) -> bool:
        return not isinstance(self.value, str)

    def check(self) -> None:
        if isinstance(self.value, float) and not math.isfinite(self.value):
            raise ValueError(f"the value is {self.value}, which is no finite number")

    def outcomes(self, space):
        return (self.value,)

    def quantile(self, u, columns):
        return np.full(len(u), self.value)

    def rank(self, values, columns):
        return np.zeros(len(values)), np.ones(len(values))

    def __str__(self) -> str:
        return f"always {self.value}"


@dataclass(frozen=True)
class Empirical(Distribution):
    """Gaussian kernel density of measured values, each kernel cut at the bounds and keeping its weight 1/N.

    Attributes
    ----------
    values : sequence of float
        Measurements, within the bounds.
    bandwidth : float, optional
        Standard deviation of a kernel in the unit of the values, > 0; none is Scott's rule, ``std N^(-1/5)``.
    low, high : float
        Bounds, infinite unless given.
    """

    values: tuple[float, ...]
    bandwidth: float | None = None
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self):
        values = tuple(float(value) for value in self.values)
        bandwidth = self.bandwidth
        if bandwidth is None and len(values) > 1:
            bandwidth = np.std(values, ddof=1) * len(values) ** -0.2
        fields = {
            "values": values,
            "bandwidth": float(bandwidth or 0),
            "low": float(self.low),
            "high": float(self.high),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def check(self) -> None:
        if not self.values or not all(self.low <= value <= self.high for value in self.values):
            raise ValueError(f"needs values, all of them within low {self.low} and high {self.high}")
        if not (self.bandwidth > 0 and math.isfinite(self.bandwidth)) or self.low >= self.high:
            raise ValueError(f"bandwidth {self.bandwidth} must be positive and low {self.low} below high {self.high}")

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        # Places and the distribution function there, 16 to a bandwidth, to be interpolated both ways.
        values, width = np.array(self.values), self.bandwidth
        low, high = max(self.low, values.min() - 5 * width), min(self.high, values.max() + 5 * width)
        at = np.linspace(low, high, int(np.clip(16 * (high - low) / width, 256, 4096)))
        below, above = special.ndtr((low - values) / width), special.ndtr((high - values) / width)
        function = np.array([((special.ndtr((x - values) / width) - below) / (above - below)).mean() for x in at])
        return at, function

    def quantile(self, u, columns):
        at, function = self._table
        return np.interp(u, function, at)

    def rank(self, values, columns):
        at, function = self._table
        ranks = np.interp(values, at, function)
        return ranks, ranks

    def __str__(self) -> str:
        return f"kernel density of {len(self.values)} values, bandwidth {self.bandwidth:.3g}"


@dataclass(frozen=True)
class Kernel(Distribution):
    """One kernel of an `Empirical` density: that of the measured thing another parameter picks by its place.

    Several such parameters that share a picker, `Integers(0, N - 1)`, follow the joint kernel density of the N things,
    so what was measured together stays correlated, while each alone follows `Empirical` of its values.

    Attributes
    ----------
    on : str
        The parameter that picks.
    values : sequence of float
        A measurement of each thing, within the bounds.
    bandwidth : float, optional
        As for `Empirical`.
    low, high : float
        Bounds, infinite unless given.
    whole : bool
        Round to the next whole number, for counts; bounds that are whole numbers stay so.
    """

    on: str
    values: tuple[float, ...]
    bandwidth: float | None = None
    low: float = -math.inf
    high: float = math.inf
    whole: bool = False

    def __post_init__(self):
        marginal = Empirical(self.values, self.bandwidth, self.low, self.high)
        for field in dataclasses.fields(marginal):
            object.__setattr__(self, field.name, getattr(marginal, field.name))

    @property
    def needs(self):
        return (self.on,)

    def check(self) -> None:
        Empirical(self.values, self.bandwidth, self.low, self.high).check()

    def _kernels(self, columns):
        centre = np.array(self.values)[columns[self.on]]
        low, high = (self.low - centre) / self.bandwidth, (self.high - centre) / self.bandwidth
        return centre, special.ndtr(low), special.ndtr(high)

    def quantile(self, u, columns):
        centre, below, above = self._kernels(columns)
        values = centre + self.bandwidth * special.ndtri(below + u * (above - below))
        values = np.clip(values, self.low, self.high)
        return np.rint(values).astype(np.int64) if self.whole else values

    def rank(self, values, columns):
        centre, below, above = self._kernels(columns)
        ends = (np.rint(values) - 0.5, np.rint(values) + 0.5) if self.whole else (values, values)
        ranks = [(special.ndtr((end - centre) / self.bandwidth) - below) / (above - below) for end in ends]
        return tuple(np.clip(ranks, 0, 1))

    def __str__(self) -> str:
        return f"kernel, bandwidth {self.bandwidth:.3g}, about one of {len(self.values)} values, picked by {self.on}"


@dataclass(frozen=True)
class Conditional(Distribution):
    """A distribution for each value of another parameter, which must be a choice, a constant or integers."""

    on: str
    cases: Mapping[Any, Distribution]

    def __post_init__(self):
        object.__setattr__(self, "cases", {value: _distribution(case) for value, case in self.cases.items()})

    @property
    def ordered(self) -> bool:
        return all(case.ordered for case in self.cases.values())

    @property
    def needs(self):
        return (self.on, *(name for case in self.cases.values() for name in case.needs))

    def check(self) -> None:
        for value, case in self.cases.items():
            with _naming(f"{self.on} = {value!r}"):
                case.check()

    def outcomes(self, space):
        outcomes = [case.outcomes(space) for case in self.cases.values()]
        return None if None in outcomes else tuple({value for values in outcomes for value in values})

    def _parts(self, columns) -> Iterator[tuple[Distribution, np.ndarray, dict[str, np.ndarray]]]:
        on = columns[self.on]
        if unknown := set(on) - set(self.cases):
            raise ValueError(f"has no case for {self.on} = {sorted(map(str, unknown))}")
        for value, case in self.cases.items():
            chosen = np.asarray(on == value)
            yield case, chosen, {name: columns[name][chosen] for name in case.needs}

    def quantile(self, u, columns):
        parts = [(chosen, case.quantile(u[chosen], part)) for case, chosen, part in self._parts(columns)]
        _check_alike(values.dtype.kind == "U" for _, values in parts)
        result = np.empty(len(u), np.result_type(*(values.dtype for _, values in parts)))
        for chosen, values in parts:
            result[chosen] = values
        return result

    def rank(self, values, columns):
        low, high = np.zeros(len(values)), np.ones(len(values))
        for case, chosen, part in self._parts(columns):
            low[chosen], high[chosen] = case.rank(values[chosen], part)
        return low, high

    def __str__(self) -> str:
        return f"by {self.on}: " + "; ".join(f"{value}: {case}" for value, case in self.cases.items())


@dataclass(frozen=True)
class Scaled(Distribution):
    """A distribution in units of another parameter, whose values must be positive: drawn, then multiplied by it."""

    by: str
    distribution: Distribution

    def __post_init__(self):
        object.__setattr__(self, "distribution", _distribution(self.distribution))

    @property
    def needs(self):
        return (self.by, *self.distribution.needs)

    def check(self) -> None:
        self.distribution.check()
        if not self.distribution.ordered:
            raise ValueError(f"{self.distribution} cannot be scaled: only numbers that are no choice can")

    def _scale(self, columns) -> np.ndarray:
        if not np.all(columns[self.by] > 0):
            raise ValueError(f"is scaled by {self.by}, which must be positive but reaches {np.min(columns[self.by])}")
        return columns[self.by]

    def quantile(self, u, columns):
        return self.distribution.quantile(u, columns) * self._scale(columns)

    def rank(self, values, columns):
        ratios = values / self._scale(columns)
        # Dividing what was multiplied may miss a whole number by a rounding error, which a discrete rank would notice.
        whole = np.rint(ratios)
        return self.distribution.rank(np.where(np.isclose(ratios, whole, rtol=1e-12, atol=0), whole, ratios), columns)

    def __str__(self) -> str:
        return f"{self.by} x {self.distribution}"


def _check_alike(texts: Iterable[bool]) -> None:
    if len(set(texts)) > 1:
        raise ValueError("mixes text and numbers")


def _distribution(given) -> Distribution:
    if isinstance(given, Distribution):
        return given
    if hasattr(given, "dist") and hasattr(given, "ppf"):
        return Frozen.of(given)
    raise TypeError(
        f"{given!r} is no distribution: give a frozen one of scipy.stats such as uniform(2, 3), or Integers, Choice, "
        "Constant, Empirical, Kernel, Conditional or Scaled"
    )


def between(low: float, high: float):
    """Uniform distribution from `low` to `high`."""
    return stats.uniform(low, high - low)


def drawn(given):
    """Return a distribution as it is, and a plain value as a `Constant`."""
    return given if isinstance(given, Distribution) or hasattr(given, "ppf") else Constant(given)


def plain_row(row: Mapping) -> dict:
    """Return a table's row with plain numbers: NumPy's, which it holds, would turn float32 fields into float64 ones."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}


@contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error


@dataclass(frozen=True)
class Parameter:
    """A quantity of the generator: its distribution, unit and meaning.

    Attributes
    ----------
    distribution : Distribution
        May be given as a frozen distribution of ``scipy.stats``.
    unit : str
        Unit of the values, ``"1"`` for a pure number, ``""`` for text.
    doc : str
        One line for tables.
    """

    distribution: Distribution
    unit: str
    doc: str = ""

    def __post_init__(self):
        object.__setattr__(self, "distribution", _distribution(self.distribution))


class Space(Mapping[str, Parameter]):
    """Named parameters with their distributions: what a generator may be asked for.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        In the order of the table's columns; names are Python identifiers other than ``seed``.

    Raises
    ------
    ValueError
        If a range is bad, or a parameter depends on one that is unknown, continuous where a choice is needed, or
        depends on it in turn; the message names the parameter.
    """

    def __init__(self, parameters: Mapping[str, Parameter]):
        self._parameters = dict(parameters)
        if not self._parameters:
            raise ValueError("a space needs at least one parameter")
        for name, parameter in self._parameters.items():
            with _naming(f"parameter {name!r}"):
                self._check(name, parameter)
        try:
            needs = {name: parameter.distribution.needs for name, parameter in self.items()}
            self._order = tuple(TopologicalSorter(needs).static_order())
        except CycleError as error:
            raise ValueError(f"parameters depend on each other in a circle: {' <- '.join(error.args[1])}") from None
        for name, parameter in self.items():
            with _naming(f"parameter {name!r}"):
                self._check_needs(parameter.distribution)
        self._types = self.sample(0, 0).dtypes

    @classmethod
    def of(cls, entries: Mapping[str, tuple[str, Any, str]]) -> "Space":
        """Return the space of entries by name: unit, distribution or plain value, meaning."""
        return cls({name: Parameter(drawn(value), unit, doc) for name, (unit, value, doc) in entries.items()})

    def __getitem__(self, name: str) -> Parameter:
        return self._parameters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def __eq__(self, other) -> bool:
        # Not the mapping's: the order of columns and of choices counts, since it decides what is drawn.
        return isinstance(other, Space) and self.to_json() == other.to_json()

    def __repr__(self) -> str:
        return f"Space({', '.join(self)})"

    def _check(self, name, parameter) -> None:
        if not isinstance(name, str) or not name.isidentifier() or name == "seed":
            raise ValueError("a name must be a Python identifier, and 'seed' is the column of the row seeds")
        if not isinstance(parameter, Parameter):
            raise ValueError(f"{parameter!r} is no Parameter")
        parameter.distribution.check()
        if unknown := [other for other in parameter.distribution.needs if other not in self]:
            raise ValueError(f"depends on {unknown}, which is not in the space")

    def _check_needs(self, distribution: Distribution) -> None:
        if isinstance(distribution, Scaled):
            outcomes = self[distribution.by].distribution.outcomes(self) or ()
            if any(isinstance(value, str) for value in outcomes):
                raise ValueError(f"is scaled by {distribution.by}, which is no number")
            self._check_needs(distribution.distribution)
        elif isinstance(distribution, Kernel):
            outcomes = self[distribution.on].distribution.outcomes(self)
            count = len(distribution.values)
            if outcomes is None or not all(isinstance(i, numbers.Integral) and 0 <= i < count for i in outcomes):
                raise ValueError(f"is picked by {distribution.on}, which must be whole numbers from 0 to {count - 1}")
        elif isinstance(distribution, Conditional):
            outcomes = self[distribution.on].distribution.outcomes(self)
            if outcomes is None:
                raise ValueError(f"is conditional on {distribution.on}, whose values cannot be listed")
            if missing := [value for value in outcomes if value not in distribution.cases]:
                raise ValueError(f"has no case for {distribution.on} = {missing}")
            for case in distribution.cases.values():
                self._check_needs(case)

    def sample(self, n: int, seed: int, method: str = "random") -> pd.DataFrame:
        """Draw micrographs; row i is the same however many are asked for.

        Parameters
        ----------
        n : int
            Number of rows, 0 or larger.
        seed : int
            Seed of the table, 0 or larger.
        method : {"random", "sobol"}
            Independent numbers, a stream of its own for every parameter: a parameter added, removed or replaced
            leaves the others as they were. Or a Sobol sequence scrambled with the seed (Owen's linear matrix
            scramble and digital shift, as ``scipy.stats.qmc.Sobol``), which covers the space evenly, best for n a
            power of 2.

        Returns
        -------
        pandas.DataFrame
            (n, parameters + 1): a column for each parameter and the int64 column ``seed``, the seed of the
            micrograph, in [0, 2**53).

        Raises
        ------
        ValueError
            If the method is unknown, or a scale is not positive.
        """
        uniform = self._uniform(n, seed, method)
        columns: dict[str, np.ndarray] = {}
        for name in self._order:
            with _naming(f"parameter {name!r}"):
                columns[name] = self[name].distribution.quantile(uniform[name], columns)
        seeds = stream(seed, "space", "row seed").random(n) * _SEED_RANGE
        return pd.DataFrame({**{name: columns[name] for name in self}, "seed": seeds.astype(np.int64)})

    def _uniform(self, n: int, seed: int, method: str) -> dict[str, np.ndarray]:
        if method == "random":
            draws = {name: stream(seed, "space", "parameter", name).random(n) for name in self}
        elif method == "sobol":
            # A power of 2 is what the sequence is balanced for; its beginning never depends on its length.
            engine = qmc.Sobol(len(self), bits=53, rng=stream(seed, "space", "sobol"))
            points = engine.random_base2(max(n - 1, 0).bit_length())[:n]
            draws = dict(zip(sorted(self), points.T, strict=True))
        else:
            raise ValueError(f"method is {method!r}; it must be 'random' or 'sobol'")
        return {name: np.clip(u, _U_MIN, _U_MAX) for name, u in draws.items()}

    def neighbours(
        self,
        rows: Mapping[str, Any] | pd.DataFrame,
        span: float | Mapping[str, float],
        n: int,
        seed: int,
        *,
        parameters: Iterable[str] | None = None,
        keep_seed: bool = False,
    ) -> pd.DataFrame:
        """Draw variations of micrographs by moving parameters within a fixed interval around their values.

        A moved parameter is drawn from its own distribution cut to the interval, which never leaves the support.
        Parameters that are conditional on a moved one or scaled by it keep their quantile; the others keep their
        value.

        Parameters
        ----------
        rows : mapping or pandas.DataFrame
            One row of a table, or several; further columns are ignored.
        span : float or mapping of str to float
            A number in [0, 1]: half the interval as a fraction of the distribution, so that 0.1 goes from the
            quantile 10 % below the value's to 10 % above, for `parameters`. A mapping: half the interval in the
            unit of each parameter it names, and these are the ones moved; not for choices, which have no distance.
        n : int
            Variations of each row; the i-th is the same however many are asked for.
        seed : int
            Seed, 0 or larger; draws are keyed by it and the row's own seed.
        parameters : iterable of str, optional
            The parameters to move when `span` is a number; none means all.
        keep_seed : bool
            Keep the row's own seed, and with it everything the parameters do not decide (the same grains, say);
            otherwise every variation is a new micrograph.

        Returns
        -------
        pandas.DataFrame
            (rows * n, parameters + 1), columns as from `sample`, the variations of a row together.

        Raises
        ------
        ValueError
            If a parameter is unknown, lacks a value or has no distance, or a span is negative.
        """
        table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame([dict(rows)])
        if missing := [name for name in (*self, "seed") if name not in table or table[name].isna().any()]:
            raise ValueError(f"the rows lack values of {missing}")
        halves = self._halves(span, parameters)
        # The types of a sampled table, whatever a row lost on its way through a Series or a file.
        table = table[[*self, "seed"]].astype(self._types)
        blocks = [stream(seed, "space", "neighbours", key).random((n, len(self) + 1)) for key in table["seed"]]
        draws = dict(
            zip([*sorted(self), "seed"], np.concatenate([*blocks, np.empty((0, len(self) + 1))]).T, strict=True)
        )
        repeated = table.iloc[np.repeat(np.arange(len(table)), n)].reset_index(drop=True)
        if not keep_seed:
            repeated["seed"] = (draws["seed"] * _SEED_RANGE).astype(np.int64)
        old = {name: repeated[name].to_numpy() for name in self}
        return repeated.assign(**self._moved(old, draws, halves, absolute=isinstance(span, Mapping)))

    def _halves(self, span: float | Mapping[str, float], parameters: Iterable[str] | None) -> dict[str, float]:
        if isinstance(span, Mapping):
            if parameters is not None:
                raise ValueError("a span for each parameter says already which are moved: leave out `parameters`")
            halves = dict(span)
        else:
            halves = dict.fromkeys(self if parameters is None else parameters, span)
        self._known(halves)
        for name, half in halves.items():
            if not 0 <= half <= (math.inf if isinstance(span, Mapping) else 1):
                raise ValueError(
                    f"parameter {name!r}: the span is {half}; it must be 0 or larger, a fraction at most 1"
                )
            if isinstance(span, Mapping) and not self[name].distribution.ordered:
                raise ValueError(f"parameter {name!r}: a choice has no distance; give the span as one fraction")
        return halves

    def _moved(self, old, draws, halves, *, absolute: bool) -> dict[str, np.ndarray]:
        columns: dict[str, np.ndarray] = {}
        changed: set[str] = set()
        for name in self._order:
            distribution, half = self[name].distribution, halves.get(name)
            with _naming(f"parameter {name!r}"):
                if half is None and changed.isdisjoint(distribution.needs):
                    columns[name] = old[name]
                    continue
                if half is not None and absolute:
                    low = distribution.rank(old[name] - half, columns)[0]
                    high = distribution.rank(old[name] + half, columns)[1]
                else:
                    centre = np.mean(distribution.rank(old[name], old), axis=0)
                    low, high = np.clip([centre - (half or 0), centre + (half or 0)], 0, 1)
                u = np.clip(low + draws[name] * (high - low), _U_MIN, _U_MAX)
                columns[name] = distribution.quantile(u, columns)
                changed.add(name)
        return columns

    def replace(self, **changes: Parameter | Distribution) -> "Space":
        """Return the space with other parameters in the place of some; a bare distribution keeps unit and doc."""
        self._known(changes)
        parameters = {
            name: given if isinstance(given, Parameter) else dataclasses.replace(self[name], distribution=given)
            for name, given in changes.items()
        }
        return Space({**self, **parameters})

    def only(self, *names: str) -> "Space":
        """Return the space of these parameters alone, in the order they have here."""
        self._known(names)
        return Space({name: parameter for name, parameter in self.items() if name in names})

    def _known(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self:
                near = difflib.get_close_matches(name, self, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self)}"
                raise ValueError(f"no parameter is called {name!r}; {hint}")

    def describe(self) -> pd.DataFrame:
        """Return a table of the parameters: unit, distribution, 5, 50 and 95 % quantiles (of 4096 rows), doc."""
        table = self.sample(4096, 0, "sobol")
        rows = []
        for name, parameter in self.items():
            numeric = pd.api.types.is_numeric_dtype(table[name]) and table[name].dtype != bool
            quantiles = table[name].quantile([0.05, 0.5, 0.95]) if numeric else [np.nan] * 3
            rows.append([name, parameter.unit, str(parameter.distribution), *quantiles, parameter.doc])
        return pd.DataFrame(rows, columns=["parameter", "unit", "distribution", "5 %", "50 %", "95 %", "doc"])

    def to_json(self) -> dict:
        """Return the space as plain dicts, lists, text and numbers."""
        parameters = [
            {
                "name": name,
                "unit": parameter.unit,
                "doc": parameter.doc,
                "distribution": _encode(parameter.distribution),
            }
            for name, parameter in self.items()
        ]
        return {"format": FORMAT, "parameters": parameters}

    @classmethod
    def from_json(cls, data: Mapping) -> "Space":
        """Return the space that `to_json` described; ValueError where it is no such description."""
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ValueError(f"is no parameter space: 'format' must be {FORMAT!r}")
        parameters = {}
        for entry in data["parameters"]:
            name = entry["name"]
            if name in parameters:
                raise ValueError(f"parameter {name!r} is there twice")
            with _naming(f"parameter {name!r}"):
                parameters[name] = Parameter(_decode(entry["distribution"]), entry["unit"], entry["doc"])
        return cls(parameters)

    def save(self, path: str | Path) -> None:
        """Write the space to a JSON file, atomically."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "Space":
        """Read a space written by `save`; ValueError that names the file where it is none."""
        try:
            return cls.from_json(read_json(path))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error


_KINDS = {kind.__name__: kind for kind in (Integers, Choice, Constant, Empirical, Kernel, Conditional, Scaled)}


def _encode(value):
    if isinstance(value, Frozen):
        return {"kind": value.name, **{key: _encode(number) for key, number in value.arguments.items()}}
    if isinstance(value, Distribution):
        fields = {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return [[_encode(key), _encode(item)] for key, item in value.items()]
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    # JSON has no infinity.
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _decode(value):
    if isinstance(value, dict):
        kind, fields = value["kind"], {key: _decode(item) for key, item in value.items() if key != "kind"}
        return _KINDS[kind](**fields) if kind in _KINDS else Frozen(kind, {k: float(v) for k, v in fields.items()})
    if isinstance(value, list):
        pairs = all(isinstance(item, list) for item in value)
        return {key: _decode(item) for key, item in value} if pairs else tuple(value)
    return value
