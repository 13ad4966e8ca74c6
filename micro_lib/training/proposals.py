"""Strategies that choose the next training micrographs: from a table and its scores to new rows, tables alone.

Every strategy is called the same way, ``propose(table, scores, budget, rng)``: `table` holds the micrographs that were
looked at (one row each, columns as from `Space.sample`), `scores` one row for each of them with columns seed (as in
the table) and miou (0 to 1), `budget` says how many new rows are wanted and `rng` draws them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor

from micro_lib.core.checks import one_of
from micro_lib.synthesis.scenario import Space

SCORE = "miou"  # the measure of Trampert et al. 2021, section 3.3


class Strategy(Protocol):
    """What proposes new rows."""

    def propose(self, table: pd.DataFrame, scores: pd.DataFrame, budget: int, rng: np.random.Generator) -> pd.DataFrame:
        """Return `budget` new rows, columns as from `Space.sample`; see the module."""


@dataclass(frozen=True)
class NoNewData:
    """No new rows: what more training alone is worth."""

    space: Space

    def propose(self, table, scores, budget, rng):
        """Return an empty table, whatever the budget."""
        return self.space.sample(0, 0)


@dataclass(frozen=True)
class Scattered:
    """New rows drawn from the whole space, blind to the scores.

    Attributes
    ----------
    space : Space
        What the table was drawn from.
    method : str
        As for `Space.sample`: ``"random"`` (the paper's control arm) or ``"sobol"``.
    """

    space: Space
    method: str = "random"

    def propose(self, table, scores, budget, rng):
        """Return `budget` rows from the space."""
        return self.space.sample(_budget(budget), _seed(rng), self.method)


@dataclass(frozen=True)
class Adaptive:
    """Variations of the worst micrographs, Trampert et al. 2021, section 3.3.

    Attributes
    ----------
    space : Space
        What the table was drawn from.
    parameters : tuple of str
        The parameters that are moved.
    interval : float
        Half the fixed interval around the stored value, as a fraction of the parameter's distribution, 0 to 1; cut at
        the ends of the support. The paper gives no interval.
    share : float
        Which share of the table, the worst by mean IoU, is varied, above 0, up to 1.
    keep_seed : bool
        True: a variation has the very grains of its original; False: other grains of the same parameters.
    """

    space: Space
    parameters: tuple[str, ...]
    interval: float
    share: float
    keep_seed: bool = False

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; it must be above 0 and at most 1")
        self._vary(self.space.sample(0, 0), 0, 0)  # names and interval: an error now, not after a training

    def propose(self, table, scores, budget, rng):
        """Return equally many variations of each of the worst rows.

        Raises
        ------
        ValueError
            If the budget cannot be divided evenly, or the scores are not those of the table.
        """
        worst = self.worst(table, scores)
        variations, rest = divmod(_budget(budget), len(worst))
        if rest:
            raise ValueError(
                f"a budget of {budget} cannot be divided evenly among the worst {len(worst)} of {len(table)} rows; "
                f"take a multiple of {len(worst)}"
            )
        return self._vary(worst, variations, _seed(rng))

    def worst(self, table: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
        """Return the share of the rows with the lowest scores, worst first; of equal ones the first in the table."""
        values = checked_scores(table, scores)
        count = max(1, round(self.share * len(table)))
        return table.iloc[np.argsort(values, kind="stable")[:count]]

    def _vary(self, rows: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
        moved = {"parameters": self.parameters, "keep_seed": self.keep_seed}
        return self.space.neighbours(rows, self.interval, n, seed, **moved)


@dataclass(frozen=True)
class FailureModel:
    """Rows where failure is expected or unknown: a forest of trees, fitted to the failures, judges random candidates.

    The forest predicts 1 - IoU from the parameters, smoothed over at least `min_leaf` micrographs; its trees'
    disagreement is the exploration term. Candidates are then drawn by weight, not taken from the top, so that they
    do not collapse onto one spot.

    Attributes
    ----------
    space : Space
        What the table was drawn from.
    exploration : float
        Weight of the standard deviation between trees beside the mean.
    sharpness : float
        How many times e a candidate is likelier that lies one standard deviation (of all candidates) higher.
    candidates : int
        Rows drawn from the space for each row wanted.
    trees, min_leaf : int
        Of the forest.
    """

    space: Space
    exploration: float = 1.0
    sharpness: float = 2.0
    candidates: int = 8
    trees: int = 100
    min_leaf: int = 5

    def propose(self, table, scores, budget, rng):
        """Return `budget` of the candidates.

        Raises
        ------
        ValueError
            If the scores are not those of the table.
        """
        candidates = self.space.sample(self.candidates * _budget(budget), _seed(rng))
        failure, spread = self.predict(table, scores, candidates, _seed(rng))
        wanted = failure + self.exploration * spread
        exponent = self.sharpness * (wanted - wanted.max()) / max(wanted.std(), 1e-12)
        weights = np.exp(exponent) / np.exp(exponent).sum()
        chosen = rng.choice(len(candidates), budget, replace=False, p=weights)
        return candidates.iloc[chosen].reset_index(drop=True)

    def predict(
        self, table: pd.DataFrame, scores: pd.DataFrame, rows: pd.DataFrame, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the expected failure (1 - IoU) of `rows` and its standard deviation between trees, both (N,)."""
        values, features = checked_scores(table, scores), encoder(table)
        forest = ExtraTreesRegressor(self.trees, min_samples_leaf=self.min_leaf, random_state=seed % 2**32, n_jobs=1)
        forest.fit(features(table), 1 - values)
        at = features(rows)
        each = np.stack([tree.predict(at) for tree in forest.estimators_])  # (trees, N)
        return each.mean(0), each.std(0)


def checked_scores(table: pd.DataFrame, scores: pd.DataFrame) -> np.ndarray:
    """Return the scores of the rows of a table, (N,) float64.

    Raises
    ------
    ValueError
        If there are no rows, scores are missing or not finite, or they belong to other rows.
    """
    if table.empty:
        raise ValueError("the table has no rows to choose from")
    if missing := {"seed", SCORE} - set(scores.columns):
        raise ValueError(f"the scores lack {sorted(missing)}; found {list(scores.columns)}")
    if len(scores) != len(table):
        raise ValueError(f"{len(scores)} scores for a table of {len(table)} rows; they must be of the same micrographs")
    if differ := np.flatnonzero(scores["seed"].to_numpy() != table["seed"].to_numpy()).tolist():
        raise ValueError(
            f"the scores are of another table: in row {differ[0]} the seed is {scores['seed'].iloc[differ[0]]}, in the "
            f"table {table['seed'].iloc[differ[0]]}"
        )
    values = scores[SCORE].to_numpy(float)
    if bad := np.flatnonzero(~np.isfinite(values)).tolist():
        raise ValueError(f"the score of row {bad[0]} is {values[bad[0]]}; {len(bad)} of {len(values)} are not finite")
    return values


def encoder(table: pd.DataFrame):
    """Return a function from rows to numbers (N, features): texts one column a value, what never changes left out."""
    kinds = {name: sorted(set(table[name])) for name in table if pd.api.types.is_string_dtype(table[name])}
    texts = [(name, value) for name, values in kinds.items() for value in values if len(values) > 1]
    numbers = [n for n in table if n not in kinds and n != "seed" and table[n].nunique() > 1]

    def encode(rows: pd.DataFrame) -> np.ndarray:
        columns = [rows[name].to_numpy(np.float32) for name in numbers]
        columns += [(rows[name] == value).to_numpy(np.float32) for name, value in texts]
        return np.stack([*columns, np.zeros(len(rows), np.float32)], axis=1)  # never without a column

    return encode


STRATEGIES = ("adaptive", "random", "sobol", "failure model", "none")


def strategy(name: str, space: Space, options: Mapping) -> Strategy:
    """Return a strategy by its name.

    Parameters
    ----------
    name : str
        One of `STRATEGIES`.
    space : Space
        What the micrographs are drawn from.
    options : mapping
        For ``"adaptive"`` the attributes of `Adaptive`; the others take none of them.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if name == "adaptive":
        return Adaptive(space, **options)
    others = {
        "random": Scattered(space),
        "sobol": Scattered(space, "sobol"),
        "failure model": FailureModel(space),
        "none": NoNewData(space),
    }
    one_of("strategy", name, STRATEGIES)
    return others[name]


def _budget(budget: int) -> int:
    if budget < 1:
        raise ValueError(f"the budget is {budget}; it must be 1 or larger")
    return budget


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))
