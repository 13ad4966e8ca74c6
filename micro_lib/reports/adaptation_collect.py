"""What a sweep of adaptations leaves: curves of its runs, the mean of the folds' networks, pictures of errors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from micro_lib.analysis.metrics import score_lines
from micro_lib.application.plots import Panel, credit, save, sheet
from micro_lib.application.tables import tables_dir
from micro_lib.core.runs import merge_rows, read_json, read_table
from micro_lib.data.records import Record
from micro_lib.data.shifts import DEVELOPMENT, REAL, TRANSDUCTIVE, Shift
from micro_lib.reports.adaptation_plots import error_maps, line_maps
from micro_lib.reports.adaptation_report import (
    BAGGED_TABLE,
    CURVES_TABLE,
    FEW,
    LINES_TABLE,
    NAMES,
    ORACLE,
    PUBLISHED,
    SHOWN,
    THIN,
    TOLERANCE_PX,
    bagged,
    is_bagged,
    is_kept,
    names_of,
)
from micro_lib.training import adaptation


def collect(profile: str, sweep: str | Path, folder: str | Path = "") -> None:
    """Gather what a sweep has left in its folders: curves of runs, the mean of the folds' networks (bagging), pictures.

    A sweep calls this when it has ended. Bagging of the same networks is not repeated, nor replaced by that of fewer.

    Parameters
    ----------
    profile : str
        Of the sweep.
    sweep : str or pathlib.Path
        Its folder, with ``runs/<key>/done.json``.
    folder : str or pathlib.Path
        Where ``adaptation_curves.csv`` and ``adaptation_bagged.csv`` go, beside rows that are there; ``""`` is that of
        the stored tables.
    """
    folder = Path(folder or tables_dir())
    done = [(path.parent, read_json(path)) for path in sorted(Path(sweep).glob("runs/*/done.json"))]
    done = [(place, {**row, **names_of(row["configuration"])}) for place, row in done if row["profile"] == profile]
    kept = is_kept(pd.DataFrame([row for _, row in done]), profile) if done else ()
    done = [one for one, is_kept in zip(done, kept, strict=True) if is_kept and one[1]["shift"] not in DEVELOPMENT]
    for place, row in done:
        names = {name: row[name] for name in ("profile", *NAMES, "seed", "fold")}
        curve = pd.DataFrame([names]).merge(read_table(place / "curve.csv"), how="cross")
        merge_rows(folder / CURVES_TABLE, curve, ("profile", *NAMES, "seed", "step"))
    rows = pd.DataFrame([row for _, row in done])
    for (name, arm), part in rows.groupby(NAMES) if done else ():
        places = [place for place, row in done if (row["shift"], row["arm"]) == (name, arm)]
        several = name in adaptation.GENERATED and part["fold"].nunique() > 1
        if several and not is_bagged(part, bagged(profile, folder)):
            merge_rows(folder / BAGGED_TABLE, _bagged(profile, part, places), ("profile", *NAMES))
    for (name, seed), part in rows.groupby(["shift", "seed"]) if done else ():
        places = {row["arm"]: done[i][0] for i, row in part.iterrows()}
        wanted = set(SHOWN) - ({ORACLE} if name in TRANSDUCTIVE else set())
        if wanted <= set(places) and (name in REAL or (name in PUBLISHED and seed == 1)):
            (_judge_fold if name in REAL else _draw_errors)(profile, name, seed, places, folder)


def _found(profile: str, shift: str, seed: int, places: Mapping[str, Path]) -> tuple[Shift, dict]:
    """Shift with the tested micrographs that are looked at, and the class ids that networks give them, by arm."""
    setting = adaptation.Setting(adaptation.complete({"shift": shift}), seed, profile)
    records, scale = setting.shift.target_test[: None if shift in THIN else 2], setting.framing.scale
    networks = {arm: adaptation.load(place / adaptation.NETWORK)[0] for arm, place in places.items()}
    found = {
        arm: [setting.predict([net], r.image, scale).argmax(-1).astype(np.uint8) for r in records]
        for arm, net in networks.items()
    }
    return replace(setting.shift, target_test=records), found


def _judge_fold(profile: str, shift: str, seed: int, places: Mapping[str, Path], folder: Path) -> None:
    """Draw a tested micrograph of a real target with its mask and those that the arms give it; score thin classes."""
    known = {arm: places[arm] for arm in (*SHOWN[:-1], *FEW, ORACLE) if arm in places}
    made, found = _found(profile, shift, seed, known)
    records, class_map = made.target_test, made.class_map
    record = records[0]
    if thin := THIN.get(shift):
        names, line = {"profile": profile, "shift": shift, "seed": seed}, class_map.classes.index(thin)
        scored = [
            {**names, "arm": arm, "class": thin, **_mean_lines(records, masks, line)} for arm, masks in found.items()
        ]
        merge_rows(folder / LINES_TABLE, pd.DataFrame(scored), ("profile", *NAMES, "seed"))
        if (record.mask == line).any():
            fig = line_maps(record, {arm: masks[0] for arm, masks in found.items()}, line, TOLERANCE_PX)
            where = f"{thin} in {record.name}, {shift}, seed {seed}, {profile}; within {TOLERANCE_PX} px"
            credit(fig, f"{where}. {made.credit}")
            save(fig, folder.parent, f"adaptation_lines_{shift.replace(' ', '_')}_{seed}")
            plt.close(fig)
    panels = [Panel(record.image, None, "micrograph", record.pixel_size_um), Panel(record.image, record.mask, "truth")]
    panels += [Panel(record.image, masks[0], arm) for arm, masks in found.items()]
    fig = sheet(panels, columns=4, class_map=class_map, panel_inch=2.5)
    credit(fig, f"{shift}, tested micrograph {record.name}, seed {seed}, {profile}. {made.credit}")
    save(fig, folder.parent, f"adaptation_masks_{shift.replace(' ', '_')}_{seed}")
    plt.close(fig)


def _mean_lines(records: Sequence[Record], masks: Sequence[np.ndarray], line: int) -> dict[str, float]:
    """Means over micrographs of how well the class id `line` is found as lines."""
    each = [score_lines(r.mask == line, mask == line, TOLERANCE_PX) for r, mask in zip(records, masks, strict=True)]
    return pd.DataFrame(each).mean().to_dict()


def _draw_errors(profile: str, shift: str, seed: int, places: Mapping[str, Path], folder: Path) -> None:
    """Draw where networks are right and wrong in a generated target (Figures 4 to 6)."""
    made, found = _found(profile, shift, seed, {arm: places[arm] for arm in SHOWN})
    fig = error_maps(made.target_test, found)
    credit(fig, f"{made.classes[1]}; {shift}, test part, seed {seed}, {profile}. {made.credit}")
    save(fig, folder.parent, f"adaptation_errors_{shift}")
    plt.close(fig)


def _bagged(profile: str, part: pd.DataFrame, places: Sequence[Path]) -> pd.DataFrame:
    configuration, seed = json.loads(part["configuration"].iloc[0]), int(part["seed"].iloc[0])
    images = adaptation.bagged([place / adaptation.NETWORK for place in places], configuration, seed, profile)
    found = {"target_miou": adaptation.pooled_miou(images), "single_miou": part["target_miou"].mean()}
    row = {"profile": profile, **{name: part[name].iloc[0] for name in NAMES}, "networks": len(places), **found}
    row |= {"best_miou": part["target_miou"].max(), "n_test": len(images)}
    return pd.DataFrame([row | {name: ", ".join(map(str, sorted(part[name].unique()))) for name in _ORIGIN}])


_ORIGIN = ("seed", "device", "versions", "commit", "dirty")  # of the networks
