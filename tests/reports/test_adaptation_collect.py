"""What a sweep of adaptations left: gathered once, whatever was stored before."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from micro_lib.core.labels import ClassMap
from micro_lib.core.runs import read_table, write_json, write_table
from micro_lib.data.records import Record
from micro_lib.data.shifts import Shift
from micro_lib.reports import adaptation_collect
from micro_lib.reports.adaptation_collect import collect
from micro_lib.reports.adaptation_report import THIN, bagged, curves, lines
from micro_lib.synthesis.bainite import LATH_BAINITE
from micro_lib.training import adaptation

# One micrograph of 100 pixels, half of either class, with five wrong a class.
SCORED = pd.DataFrame([{"confusion_0_0": 45, "confusion_0_1": 5, "confusion_1_0": 5, "confusion_1_1": 45}])


def test_what_a_sweep_left_is_collected(tmp_path, monkeypatch):
    asked = []

    def mean(paths, configuration, seed, profile):
        asked.append(sorted(path.parent.name for path in paths))
        return SCORED

    monkeypatch.setattr(adaptation, "bagged", mean)

    def leave(key, shift, seed, miou=0.0):
        configuration = json.dumps({"shift": shift, "method": "FDA"})
        row = {"configuration": configuration, "profile": "study", "seed": seed, "fold": seed - 1}
        row |= {"architecture": "lite0", "generated": False}
        row |= {"device": "cpu", "versions": "numpy 2", "commit": "abc", "dirty": 0}
        write_json(tmp_path / "runs" / key / "done.json", {**row, "target_miou": miou or 0.5 + 0.1 * seed})
        curve = pd.DataFrame({"step": [1, 2], "loss": [0.5, 0.1 * seed]})
        write_table(curve, tmp_path / "runs" / key / "curve.csv")

    for key, shift, seed in (("one", "T2", 1), ("two", "T2", 2), ("three", "coating", 1), ("four", "coating", 2)):
        leave(key, shift, seed)
    leave("not reported", "development", 1)
    for _ in range(2):  # again, nothing doubles
        collect("study", tmp_path, tmp_path)
    assert asked == [["one", "two"]], "the coating's folds take turns; what is bagged is not bagged again"
    kept = curves("study", tmp_path)
    assert len(kept) == 8 and kept.loc[(kept["shift"] == "T2") & (kept["seed"] == 2), "loss"].tolist() == [0.5, 0.2]
    (row,) = bagged("study", tmp_path).to_dict("records")
    assert (row["shift"], row["arm"], row["networks"], row["n_test"]) == ("T2", "FDA", 2, 1)
    assert (row["seed"], row["device"], row["commit"], row["dirty"]) == ("1, 2", "cpu", "abc", 0)
    assert (
        row["target_miou"] == pytest.approx(90 / 110)
        and row["best_miou"] == 0.7
        and row["single_miou"] == pytest.approx(0.65)
    )
    collect("quick", tmp_path, tmp_path / "none")  # of which there are no runs
    assert bagged("quick", tmp_path).empty and bagged("study", tmp_path / "none").empty
    assert len(read_table(tmp_path / "adaptation_bagged.csv")) == 1
    leave("two", "T2", 2, miou=0.9)
    collect("study", tmp_path, tmp_path)
    assert len(asked) == 2 and bagged("study", tmp_path)["best_miou"].item() == 0.9, "a run that was repeated counts"
    leave("five", "T2", 3)
    collect("study", tmp_path, tmp_path)
    assert bagged("study", tmp_path)["networks"].item() == 3
    shutil.rmtree(tmp_path / "runs" / "five")
    collect("study", tmp_path, tmp_path)
    assert bagged("study", tmp_path)["networks"].item() == 3, "fewer runs than are stored: a fresh clone"


def test_pictures_are_drawn_of_every_real_fold_and_of_one_seed_of_the_published_targets(tmp_path, monkeypatch):
    mask = np.zeros((24, 24), np.uint8)
    mask[:, 11:14] = 2  # a crack 3 px wide
    record = Record("one", np.full((24, 24), 128, np.uint8), mask, "specimen", 0.1)
    colours = ("#000000", "#d55e00", "#f0e442")
    classes = {
        name: ClassMap(name, ("metal", "oxide", line), {0: 0, 1: 1, 2: 2}, colours) for name, line in THIN.items()
    }
    asked, credits = [], []

    def found(profile, shift, seed, places):
        asked.append((shift, seed, tuple(places)))
        made = Shift(classes.get(shift, LATH_BAINITE), (), (), (), (record,), f"by {shift}", is_generated=False)
        return made, {arm: [np.roll(mask, 9 * (arm == "oracle"), axis=1)] for arm in places}

    monkeypatch.setattr(adaptation_collect, "_found", found)
    monkeypatch.setattr(adaptation_collect, "credit", lambda fig, text: credits.append(text))

    def leave(shift, seed, arm):
        configuration = json.dumps({"shift": shift, **adaptation.ARMS[arm]})
        row = {"configuration": configuration, "profile": "study", "seed": seed, "fold": seed - 1, "target_miou": 0.5}
        folder = tmp_path / "runs" / f"{shift}-{seed}-{arm}"
        row |= {"device": "cpu", "versions": "numpy 2", "commit": "abc", "dirty": 0}
        write_json(folder / "done.json", {**row, "architecture": "lite0", "generated": False})
        write_table(pd.DataFrame({"step": [1], "loss": [0.5]}), folder / "curve.csv")

    shown = ("no adaptation", "AdaptSegNet", "self-training", "oracle")
    monkeypatch.setattr(adaptation, "bagged", lambda *_: SCORED)
    for shift, seed in (("coating", 1), ("coating", 2), ("T2", 1), ("T2", 2), ("T3", 1)):
        for arm in shown[: 3 if shift == "T3" else 4]:  # T3's oracle is still to come
            leave(shift, seed, arm)
    for arm in shown[:3]:  # no target labels, no oracle
        leave("316L to iron", 1, arm)
    leave("coating", 2, "2 labels")
    collect("study", tmp_path, tmp_path / "tables")
    drawn = {path.name for path in tmp_path.glob("*.png")}
    of_coating = {f"adaptation_{kind}_coating_{seed}.png" for kind in ("masks", "lines") for seed in (1, 2)}
    of_iron = {f"adaptation_{kind}_316L_to_iron_1.png" for kind in ("masks", "lines")}
    assert drawn == of_coating | of_iron | {"adaptation_errors_T2.png"}
    assert len(credits) == len(drawn) and all(f". by {shift}" in "".join(credits) for shift in (*THIN, "T2"))
    assert ("coating", 2, (*shown[:3], "2 labels", "oracle")) in asked and ("T2", 1, shown) in asked
    scored = lines("study", tmp_path / "tables")
    assert scored[scored["class"] == "boundary"]["arm"].tolist() == list(shown[:3])
    scored = scored[scored["class"] == "crack"].set_index("arm")
    assert scored["n"].to_dict() == {**dict.fromkeys(shown, 2), "2 labels": 1}
    assert scored["width_px_pred"].between(2.7, 3.3).all()
    assert scored["recall"].to_dict() == {arm: float(arm != "oracle") for arm in scored.index}
    assert lines("quick", tmp_path / "tables").empty
