"""Tables of the grain experiment: arms side by side, and an arm against the baselines, with intervals over groups."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from micro_lib.analysis.stats import cluster_bootstrap, paired_cluster_bootstrap
from micro_lib.application.tables import stored_sweep
from micro_lib.core.seeds import stream

# Score -> 1 if more is better, -1 if less is.
SCORES = {"error": -1, "miou": 1, "miou_5px": 1, "bf1_8px": 1, "bf1_3px": 1, "intercept_rel_err": -1}
GROUPS = "overlap groups"  # what intervals are over
LABEL_FREE = "broad"
# What the label-free arm has to beat: a mask without a boundary, and thresholding in every tuning.
BLANK = "everything is grain"
THRESHOLDS = ("Otsu", "thresholding", "thresholding, redrawn", "thresholding, best intercept")

# What readers see of the arms.
NAMES = {
    LABEL_FREE: "label-free (broad), no real label",
    "real labels": "same network, real labels",
    "trampert": "the paper's generator (trampert)",
    "Otsu": "Otsu on a blurred image",
    "thresholding": "thresholding, tuned",
    "thresholding, redrawn": "thresholding, redrawn 10 px wide",
    "thresholding, best intercept": "thresholding, best intercept",
    BLANK: BLANK,
}


def arm_of(configuration: str) -> str:
    """Return the name of the arm that a stored configuration (JSON) belongs to."""
    values = json.loads(configuration)
    if values.get("labels") == "development":
        return "real labels"
    without = f" without {values['ablate']}" if values.get("ablate") else ""
    return values.get("preset", LABEL_FREE) + without


def stored(profile: str, folder: str | Path = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the stored runs of one profile and the scores of their images, both with arm, empty where there are none.

    Images also have the device of their run.

    Parameters
    ----------
    profile : str
        Usually ``"study"``.
    folder : str or pathlib.Path
        As for `micro_lib.application.tables.stored_sweep`.
    """
    columns = ("arm", "seed", "split", "name", "group", *SCORES)
    runs, images = stored_sweep("grains", profile, lambda text: {"arm": arm_of(text)}, columns, folder)
    keys = ["configuration", "seed"]
    devices = runs.reindex(columns=[*keys, "device"]).astype(images[keys].dtypes.to_dict())
    return runs, images.merge(devices, on=keys, how="left")


def summarise(images: pd.DataFrame, split: str, arms: Sequence[str] = ()) -> pd.DataFrame:
    """Return the mean of every score for every arm, with a 95 % interval from resampling groups.

    Parameters
    ----------
    images : pandas.DataFrame
        One row an image and run: arm, seed (missing for what needs no training), split, name, group and `SCORES`.
    split : str
        Which micrographs.
    arms : sequence of str
        Which arms, in this order; none means all.

    Returns
    -------
    pandas.DataFrame
        arm, seeds, images, groups, then for each score its mean, ``<score>_low`` and ``<score>_high`` (missing where
        there is a single group, whose specimens are not independent), confidence and over (overlap groups).
    """
    chosen = images[images["split"] == split]
    rows = []
    for arm in arms or chosen["arm"].unique():
        part = chosen[chosen["arm"] == arm]
        if part.empty:
            continue
        each = part.groupby(["name", "group"], as_index=False)[list(SCORES)].mean()  # seeds first
        row = {"arm": arm, "seeds": max(part["seed"].nunique(), 1), "images": len(each)}
        row["groups"] = each["group"].nunique()
        for score in SCORES:
            row |= _interval(each, score)
        rows.append(row)
    return pd.DataFrame(rows)


def _interval(each: pd.DataFrame, score: str) -> dict:
    row = {score: each[score].mean(), "over": GROUPS}
    if each["group"].nunique() < 2:
        return row | dict.fromkeys((f"{score}_low", f"{score}_high", "confidence"), float("nan"))
    found = cluster_bootstrap(each[score], each["group"], rng=stream(0, "bootstrap", score))
    return row | {f"{score}_low": found.low, f"{score}_high": found.high, "confidence": found.level}


def compare(images: pd.DataFrame, split: str, arm: str, against: Sequence[str]) -> pd.DataFrame:
    """Return the differences of one arm to others on the same images and seeds: a paired bootstrap over groups.

    Parameters
    ----------
    images, split
        As for `summarise`; two groups or more.
    arm : str
        The arm that is judged.
    against : sequence of str
        The arms it is compared with; those without scores for the same seeds are left out.

    Returns
    -------
    pandas.DataFrame
        against, seeds (that both were trained with), score, difference (arm minus other; of two trained arms on what
        both scored in the same seed), difference_low and difference_high (95 %: confidence), n (groups: over), better:
        the whole interval lies on the good side of zero.
    """
    chosen = images[images["split"] == split].sort_values("name")
    rows = []
    for other in (name for name in against if (chosen["arm"] == name).any()):
        parts = [chosen[chosen["arm"] == name] for name in (arm, other)]
        trained = all(part["seed"].notna().all() for part in parts)  # what needs no training has no seed
        keys = ["name", "group", *(["seed"] if trained else [])]
        a, b = (part.groupby(keys)[list(SCORES)].mean() for part in parts)
        shared = a.index.intersection(b.index)
        if shared.empty:
            continue
        seeds = shared.get_level_values("seed").nunique() if trained else max(part["seed"].nunique() for part in parts)
        a, b = (table.loc[shared].groupby(["name", "group"]).mean() for table in (a, b))
        for score, sign in SCORES.items():
            rng = stream(0, "bootstrap", score)
            found = paired_cluster_bootstrap(a[score], b[score], a.index.get_level_values("group"), rng=rng)
            better = sign * found.low > 0 and sign * found.high > 0
            values = {"difference": found.estimate, "difference_low": found.low, "difference_high": found.high}
            values |= {"confidence": found.level, "n": found.n, "over": GROUPS}
            rows.append({"against": other, "seeds": seeds, "score": score, **values, "better": better})
    columns = ["against", "seeds", "score", "difference", "difference_low", "difference_high", "confidence"]
    return pd.DataFrame(rows, columns=[*columns, "n", "over", "better"])
