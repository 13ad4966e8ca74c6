"""Tables of generated micrographs beside real ones, and what is claimed of the generators of cracks and grains."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind
from skimage.segmentation import clear_border

from micro_lib.analysis.grain_size import grains_from_boundaries
from micro_lib.analysis.metrics import mean_intercept_px
from micro_lib.analysis.stats import cluster_bootstrap, t_interval
from micro_lib.application.published import judged_statement
from micro_lib.application.tables import NOT_RUN, claim_rows
from micro_lib.core.progress import progress
from micro_lib.core.seeds import stream
from micro_lib.data.records import Record
from micro_lib.synthesis import cracks
from micro_lib.synthesis.crack_statistics import QUANTITIES, Measured, distances, fit, measure_all
from micro_lib.synthesis.distributions import Constant
from micro_lib.synthesis.scenario import Space

KS_WANTED = 0.15  # largest distance between measured and drawn cracks that counts as alike
MEANS = ("boundary_share", "mean_intercept_px", "grey_mean", "grey_sd")
GROUPS, LEVEL = "overlap groups", 0.95
REAL, PAPER = "real", "trampert"  # the sources that the claim on grains compares


# Cracks


class Compared(NamedTuple):
    """Cracks drawn from what was fitted to the training tiles of one choice of specimens held back."""

    distances: pd.DataFrame  # see `compare_cracks`
    real: Measured  # of the training tiles
    drawn: Measured


def compare_cracks(
    training: Sequence[Record],
    apart: Sequence[Record],
    seed: int,
    *,
    n_textures: int,
    n_tiles: int,
    calibration_rounds: int,
) -> Compared:
    """Learn cracks from the training tiles of one choice of specimens, draw others, and measure both alike.

    Parameters
    ----------
    training, apart : sequence of Record
        Real tiles, and those of the specimens held back, of which nothing is learned.
    seed : int
        Of all that is learned and drawn; of the choice too, as in `training.cracks.roles`.
    n_textures, calibration_rounds : int
        As for `synthesis.cracks.learn`.
    n_tiles : int
        Tiles with a crack that are drawn.

    Returns
    -------
    Compared
        distances has a row a quantity: held back (names), seed, quantity, KS (drawn against the training tiles, two
        samples), fitted alone (the same without calibration), unseen (drawn against the tiles of the specimens held
        back; missing where these have none), n and n_unseen (cracks).
    """
    learned = cracks.learn(training, seed=seed, n_textures=n_textures, calibration_rounds=calibration_rounds)
    drawn, alone = (
        _drawn(fitted, learned.textures, n_tiles, 1000 + seed)
        for fitted in (learned.fitted, fit(learned.measured, seed=seed))
    )
    unseen = measure_all(apart)
    columns = {"KS": distances(learned.measured, drawn), "fitted alone": distances(learned.measured, alone)}
    columns["unseen"] = distances(unseen, drawn)
    table = pd.DataFrame(columns, index=list(QUANTITIES)).rename_axis("quantity").reset_index()
    named = {"held back": ", ".join(sorted({record.group for record in apart})), "seed": seed}
    counts = {"n": len(learned.measured.cracks), "n_unseen": len(unseen.cracks)}
    return Compared(table.assign(**named, **counts), learned.measured, drawn)


def _drawn(fitted: Space, textures: Sequence[np.ndarray], n: int, seed: int) -> Measured:
    """What is measured in n tiles with cracks, drawn with fitted parameters on textures."""
    space = cracks.scenario(fitted, len(textures)).replace(crack=Constant(True))
    tiles = cracks.rendered(space.sample(n, seed), textures)
    return measure_all([Record(str(i), tile.image, tile.mask, "", None) for i, tile in enumerate(tiles)])


def crack_claims(
    found: pd.DataFrame, *, n_tiles: int, seeds: Sequence[int], profile: str, is_generated: bool
) -> pd.DataFrame:
    """Return the claim that cracks drawn from measured distributions measure as the real ones did.

    Parameters
    ----------
    found : pandas.DataFrame
        Distances from `compare_cracks`, of all choices of specimens held back.
    n_tiles : int
        Tiles drawn for each choice.
    seeds : sequence of int
        One a choice.
    profile : str
        What was run.
    is_generated : bool
        The "real" cracks are stand-ins: nothing is claimed.
    """
    claim = {
        "claim": "largest KS statistic of the five measured quantities, drawn against real cracks",
        "paper": "Trampert 2021",
        "where": "section 3.1.1",
        "published": "distributions used as parameters, no number",
    }
    if is_generated:
        claim |= {"verdict": NOT_RUN, "why": "needs real cracks, and the pack ebc_crack_tiles is not used here"}
    else:
        claim |= {"ours": found["KS"].max(), "n": len(seeds), "over": "choices of specimens held back"}
        why = f"at most {KS_WANTED} wanted; {n_tiles} tiles drawn for each part held back"
        claim = judged_statement(claim, found["KS"].max() <= KS_WANTED, why)
    runs = pd.DataFrame({"seed": list(seeds)})
    return claim_rows([claim], profile=profile, notebook="02_crack_synthesis", runs=runs)


# Grains


def whole_areas(labels: np.ndarray) -> np.ndarray:
    """Return the areas of the grains that the frame does not cut.

    Parameters
    ----------
    labels : numpy.ndarray
        (H, W) int32, 1 and up.

    Returns
    -------
    numpy.ndarray
        (N,) int64, px.
    """
    areas = np.bincount(clear_border(labels).ravel())[1:]
    return areas[areas > 0]


def measured(sources: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Measure micrographs of grains by their masks, all by the same path.

    Parameters
    ----------
    sources : mapping of str to sequence of Record
        Micrographs (uint8) with boundary masks and groups, by where they are from.

    Returns
    -------
    pandas.DataFrame
        One row a micrograph: source, group, boundary_share, mean_intercept_px, grey_mean and grey_sd (0 to 1), areas
        (px, an array).
    """
    rows = [
        {
            "source": source,
            "group": record.group,
            "boundary_share": record.mask.mean(),
            "mean_intercept_px": mean_intercept_px(record.mask),
            "grey_mean": record.image.mean() / 255,
            "grey_sd": record.image.std() / 255,
            "areas": whole_areas(grains_from_boundaries(record.mask)),
        }
        for source, records in sources.items()
        for record in progress(records, desc=source)
    ]
    return pd.DataFrame(rows)


def area_variation(part: pd.DataFrame) -> np.ndarray:
    """Return the coefficient of variation of the areas in each group of micrographs, (groups,)."""
    pooled = part.groupby("group")["areas"].agg(lambda column: np.concatenate(list(column)))
    return np.array([areas.std() / areas.mean() for areas in pooled])


def statistics(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return what is measured of every source, with 95 % intervals.

    Parameters
    ----------
    table : pandas.DataFrame
        From `measured`.
    seed : int
        Of the resampling.

    Returns
    -------
    pandas.DataFrame
        source, pictures, groups, then each of `MEANS` (over pictures, groups resampled whole) and area_variation (t
        over groups) with <name>_low and <name>_high.
    """
    lines = []
    for source, part in table.groupby("source", sort=False):
        line = {"source": source, "pictures": len(part), "groups": part["group"].nunique()}
        found = {n: cluster_bootstrap(part[n], part["group"], rng=stream(seed, "bootstrap", n)) for n in MEANS}
        for name, ends in (found | {"area_variation": t_interval(area_variation(part))}).items():
            line |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
        lines.append(line)
    return pd.DataFrame(lines)


def grain_claims(table: pd.DataFrame, *, seed: int, profile: str, is_generated: bool) -> pd.DataFrame:
    """Return the claim that relaxed Voronoi cells vary in area otherwise than real grains do.

    Parameters
    ----------
    table : pandas.DataFrame
        From `measured`, with the sources `REAL` and `PAPER`.
    seed : int
        Of the micrographs drawn.
    profile : str
        What was run.
    is_generated : bool
        The "real" grains are stand-ins: nothing is claimed.
    """
    claim = {
        "claim": "area variation of relaxed Voronoi cells over that of real grains",
        "paper": "Trampert 2021",
        "where": "section 3.2.1",
        "published": "different, no number",
    }
    if is_generated:
        claim |= {"verdict": NOT_RUN, "why": "needs real grains, and the pack ss316l_grains is not used here"}
    else:
        cells, grown = (np.log(area_variation(table[table["source"] == name])) for name in (PAPER, REAL))
        low, high = np.exp(ttest_ind(cells, grown, equal_var=False).confidence_interval(LEVEL))
        claim |= {"ours": math.exp(cells.mean() - grown.mean()), "low": low, "high": high}
        claim |= {"level": LEVEL, "n": len(grown), "over": GROUPS}
        why = f"Welch interval over {GROUPS}, 316L development part; annotators close no gaps"
        claim = judged_statement(claim, high < 1 or low > 1, why)
    runs = pd.DataFrame({"seed": [seed]})
    return claim_rows([claim], profile=profile, notebook="03_grain_synthesis", runs=runs)
