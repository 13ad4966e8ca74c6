"""Distributions of a generator's parameters: SciPy's, and those a table of micrographs needs beside them."""

import dataclasses
import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import special, stats


class Distribution(ABC):
    """What a parameter's values follow: the inverse of its distribution function, and that function."""

    ordered = True  # there is a distance between values

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the parameters that must be drawn before."""
        return ()

    def outcomes(self, space: Mapping[str, "Parameter"]) -> tuple | None:
        """Return the values that can occur, None where they cannot be listed.

        Parameters
        ----------
        space : mapping of str to Parameter
            The parameters among which this is the distribution of one.
        """
        return None

    @abstractmethod
    def check(self) -> None:
        """Raise ValueError for a bad range; a `Space` calls it, so that the message can name the parameter."""

    @abstractmethod
    def quantile(self, u: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the values at uniform numbers: the inverse of the distribution function.

        Parameters
        ----------
        u : (N,) float
            Uniform numbers in (0, 1).
        columns : mapping of str to (N,) array
            The values of other parameters, of those it `needs` at least; those at the same place belong together.

        Returns
        -------
        (N,) array
            float64, int64, bool or text.

        Raises
        ------
        ValueError
            If there is no case for one of these values, or a scale among them is not positive.
        """

    @abstractmethod
    def rank(self, values: np.ndarray, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return which uniform numbers give each value: the distribution function.

        Parameters
        ----------
        values : (N,) array
            Numbers, or for a choice any of its values.
        columns : mapping of str to (N,) array
            As for `quantile`.

        Returns
        -------
        low, high : (N,) float
            Ends, 0 to 1, of the interval of uniform numbers that gives a value; equal where the values are continuous.

        Raises
        ------
        ValueError
            As `quantile`, or if a choice does not know a value.
        """


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
        object.__setattr__(self, "distribution", as_distribution(self.distribution))


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
    """One of several values (text, numbers or truth values), as likely as its weight says.

    Attributes
    ----------
    weights : mapping
        Weight of each value, 0 or larger and finite, one of them positive. Their order decides what is drawn.
    """

    weights: Mapping[Any, float]
    ordered = False

    def check(self) -> None:
        _check_mapping("weights", self.weights)
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
        if not isinstance(self.value, str | numbers.Number | np.generic):
            raise ValueError(f"{self.value!r} is no text, number or truth value; a range is between(low, high)")
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
    """A distribution for each value of another parameter, which must be a choice, a constant or integers.

    Attributes
    ----------
    on : str
        The other parameter.
    cases : mapping of its values to Distribution
        One for each value that can occur; may be given as frozen distributions of ``scipy.stats``.
    """

    on: str
    cases: Mapping[Any, Distribution]

    def __post_init__(self):
        _check_mapping("cases", self.cases)
        object.__setattr__(self, "cases", {value: as_distribution(case) for value, case in self.cases.items()})

    @property
    def ordered(self) -> bool:
        return all(case.ordered for case in self.cases.values())

    @property
    def needs(self):
        return (self.on, *(name for case in self.cases.values() for name in case.needs))

    def check(self) -> None:
        for value, case in self.cases.items():
            with naming(f"{self.on} = {value!r}"):
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
    """A distribution in units of another parameter, whose values must be positive: drawn, then multiplied by it.

    Attributes
    ----------
    by : str
        The other parameter.
    distribution : Distribution
        Of the ratio; may be given as a frozen distribution of ``scipy.stats``, no choice.
    """

    by: str
    distribution: Distribution

    def __post_init__(self):
        object.__setattr__(self, "distribution", as_distribution(self.distribution))

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


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put a name before what a ValueError or TypeError of the block says."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error


def _check_mapping(name: str, given) -> None:
    if not isinstance(given, Mapping):
        raise ValueError(f"{name} are {given!r}; pairs of a value and what belongs to it are expected")


def _check_alike(texts: Iterable[bool]) -> None:
    if len(set(texts)) > 1:
        raise ValueError("mixes text and numbers")


def as_distribution(given) -> Distribution:
    """Return a frozen distribution of ``scipy.stats`` as a `Frozen`, one of this module as it is; else TypeError."""
    if isinstance(given, Distribution):
        return given
    if hasattr(given, "dist") and hasattr(given, "ppf"):
        return Frozen.of(given)
    raise TypeError(
        f"{given!r} is no distribution: give a frozen one of scipy.stats such as uniform(2, 3), or Integers, Choice, "
        "Constant, Empirical, Kernel, Conditional or Scaled"
    )


def between(low: float, high: float):
    """Return the uniform distribution of ``scipy.stats`` between two numbers.

    Parameters
    ----------
    low, high : float
        The ends.

    Raises
    ------
    ValueError
        If `low` is not the smaller one.
    """
    if not low < high:
        raise ValueError(
            f"between({low}, {high}): the smaller number comes first, and one value alone is a plain number"
        )
    return stats.uniform(low, high - low)


def drawn(given):
    """Return a distribution as it is, and a plain value as a `Constant`."""
    return given if isinstance(given, Distribution) or hasattr(given, "ppf") else Constant(given)


_KINDS = {kind.__name__: kind for kind in (Integers, Choice, Constant, Empirical, Kernel, Conditional, Scaled)}


def encode(value):
    """Return a distribution, or what one is made of, as plain dicts, lists, text and numbers."""
    if isinstance(value, Frozen):
        return {"kind": value.name, **{key: encode(number) for key, number in value.arguments.items()}}
    if isinstance(value, Distribution):
        fields = {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return [[encode(key), encode(item)] for key, item in value.items()]
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    # JSON has no infinity.
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def decode(value):
    """Return what `encode` described."""
    if isinstance(value, dict):
        kind, fields = value["kind"], {key: decode(item) for key, item in value.items() if key != "kind"}
        return _KINDS[kind](**fields) if kind in _KINDS else Frozen(kind, {k: float(v) for k, v in fields.items()})
    if isinstance(value, list):
        pairs = all(isinstance(item, list) for item in value)
        return {key: decode(item) for key, item in value} if pairs else tuple(value)
    return value
