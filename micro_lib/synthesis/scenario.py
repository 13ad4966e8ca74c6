"""Scenarios as tables: a space of parameters with distributions and units, sampled to one row a micrograph."""

import dataclasses
import difflib
import math
import numbers
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import qmc

from micro_lib.core.checks import one_of
from micro_lib.core.runs import read_json, write_json
from micro_lib.core.seeds import stream
from micro_lib.synthesis.distributions import (
    Conditional,
    Distribution,
    Kernel,
    Parameter,
    Scaled,
    decode,
    drawn,
    encode,
    naming,
)

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


def plain_row(row: Mapping) -> dict:
    """Return a table's row with plain numbers: NumPy's, which it holds, would turn float32 fields into float64 ones.

    Raises ValueError where the row has no seed.
    """
    if "seed" not in row:
        raise ValueError("'seed' is missing in a row of parameters; rows that `Space.sample` draws have one")
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}


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
            with naming(f"parameter {name!r}"):
                self._check(name, parameter)
        try:
            needs = {name: parameter.distribution.needs for name, parameter in self.items()}
            self._order = tuple(TopologicalSorter(needs).static_order())
        except CycleError as error:
            raise ValueError(f"parameters depend on each other in a circle: {' <- '.join(error.args[1])}") from None
        for name, parameter in self.items():
            with naming(f"parameter {name!r}"):
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
        one_of("method", method, ("random", "sobol"))
        uniform = self._uniform(n, seed, method)
        columns: dict[str, np.ndarray] = {}
        for name in self._order:
            with naming(f"parameter {name!r}"):
                columns[name] = self[name].distribution.quantile(uniform[name], columns)
        seeds = stream(seed, "space", "row seed").random(n) * _SEED_RANGE
        return pd.DataFrame({**{name: columns[name] for name in self}, "seed": seeds.astype(np.int64)})

    def _uniform(self, n: int, seed: int, method: str) -> dict[str, np.ndarray]:
        if method == "random":
            draws = {name: stream(seed, "space", "parameter", name).random(n) for name in self}
        else:
            # A power of 2 is what the sequence is balanced for; its beginning never depends on its length.
            engine = qmc.Sobol(len(self), bits=53, rng=stream(seed, "space", "sobol"))
            points = engine.random_base2(max(n - 1, 0).bit_length())[:n]
            draws = dict(zip(sorted(self), points.T, strict=True))
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
            with naming(f"parameter {name!r}"):
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
        """Return the space with other parameters in the place of some.

        Parameters
        ----------
        **changes
            By name of the parameter, a `Parameter` or a bare distribution, which keeps unit and doc; so does a plain
            value, which is a constant.

        Raises
        ------
        ValueError
            If a name is unknown, or the parameters do not fit together, as for `Space`.
        """
        self._known(changes)
        parameters = {
            name: given if isinstance(given, Parameter) else dataclasses.replace(self[name], distribution=drawn(given))
            for name, given in changes.items()
        }
        return Space({**self, **parameters})

    def only(self, *names: str) -> "Space":
        """Return the space of these parameters alone, in the order they have here.

        Parameters
        ----------
        *names : str
            At least one.

        Raises
        ------
        ValueError
            If a name is unknown, there is none, or a parameter depends on one that is left out.
        """
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
                "distribution": encode(parameter.distribution),
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
            with naming(f"parameter {name!r}"):
                parameters[name] = Parameter(decode(entry["distribution"]), entry["unit"], entry["doc"])
        return cls(parameters)

    def save(self, path: str | Path) -> None:
        """Write the space to a JSON file, atomically.

        Parameters
        ----------
        path : str or pathlib.Path
            The file; its folder is made.
        """
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "Space":
        """Read a space written by `save`.

        Parameters
        ----------
        path : str or pathlib.Path
            The file.

        Raises
        ------
        ValueError
            If there is no such file, or it holds no space; names the file.
        """
        if not Path(path).is_file():
            raise ValueError(f"there is no file {path} in {Path.cwd()}, where this runs; give its whole path")
        data = read_json(path, "mend it or save the space anew")
        try:
            return cls.from_json(data)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error
