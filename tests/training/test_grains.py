"""The grain experiment: rows are complete and repeatable, arms differ where they say, test data stay closed."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from micro_lib.core.profiles import settings
from micro_lib.core.runs import read_table
from micro_lib.data.packs import DataUnavailable
from micro_lib.data.tiles import Labelled, reduced
from micro_lib.models.segmenter import Segmenter
from micro_lib.synthesis.distributions import Constant
from micro_lib.synthesis.presets import PARAMETERS, preset
from micro_lib.training import grains, supervised
from micro_lib.training.shared import run_folder

TIMES = {"train_seconds", "train_per_s", "loader_per_s", "waited"}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke")
    return grains.run("broad", 1, "smoke", out=folder), folder


def test_a_row_is_flat_and_complete(smoke):
    row, _ = smoke
    assert all(isinstance(value, str | int | float | bool) for value in row.values())
    assert row["preset"] == "broad" and row["labels"] == "synthetic" and row["architecture"] == "lite0"
    assert row["steps"] == 4 and row["images_seen"] == 16 and row["train_seconds"] > 0
    assert 0 < row["validation_miou"] < 1 and 0 < row["grain_px_low"] < row["grain_px_high"]
    assert row["n_development"] > 0 and row["development_generated"] is True
    scores = {"error", "miou", "iou_boundary", "bf1_8px", "bf1_3px", "intercept_rel_err", "miou_5px"}
    assert {f"development_{score}" for score in scores} <= row.keys()
    assert not {name for name in row if name.startswith(("test_", "iron_", "n_test", "n_iron"))}


def test_a_run_leaves_model_history_and_images(smoke):
    row, folder = smoke
    assert sorted(p.name for p in folder.iterdir()) == ["history.csv", "images.csv", "model.safetensors"]
    images = read_table(folder / "images.csv")
    assert len(images) == row["n_development"] and (images["split"] == "development").all()
    assert images["miou"].mean() == pytest.approx(row["development_miou"])
    assert read_table(folder / "history.csv")["steps"].sum() == row["steps"]
    card = Segmenter.load(folder / "model.safetensors").card
    assert card.grain_px == (row["grain_px_low"], row["grain_px_high"])
    assert card.training["preset"] == "broad" and card.training["seed"] == 1 and card.training["profile"] == "smoke"
    assert card.scores["development_miou"] == row["development_miou"]


def test_the_same_seed_gives_the_same_row_and_another_another(smoke, tmp_path):
    row, _ = smoke
    again = grains.run({"preset": "broad"}, 1, "smoke", out=tmp_path / "again")
    assert {k: v for k, v in again.items() if k not in TIMES} == {k: v for k, v in row.items() if k not in TIMES}
    other = grains.run("broad", 2, "smoke", out=tmp_path / "other")
    assert other["development_miou"] != row["development_miou"]


def test_the_ceiling_holds_a_group_out_and_takes_as_many_steps(smoke, tmp_path, monkeypatch):
    seen = {}
    plain = grains.train
    monkeypatch.setattr(grains, "train", lambda net, *data, **k: seen.update(data=data) or plain(net, *data, **k))
    row = grains.run("real labels", 3, "smoke", out=tmp_path)
    assert row["steps"] == smoke[0]["steps"] and row["labels"] == "development"
    training, validation, _ = seen["data"]
    bytes_of = lambda tiles: {tile.image.tobytes() for tile in tiles}  # noqa: E731
    assert not bytes_of(training) & bytes_of(validation)
    scale = settings("grains", "smoke")["working_scale"]
    records = grains.real_pack("development", profile="smoke").records
    seen_at = {r.name: reduced(Labelled(r.image, r.mask), scale).image.tobytes() for r in records}
    assert bytes_of(training) | bytes_of(validation) <= set(seen_at.values())
    images = read_table(tmp_path / "images.csv")
    held = set(images["group"])
    assert len(held) == 1 and len(validation) == len(images)
    assert bytes_of(validation) == {seen_at[r.name] for r in records if r.group in held}


def test_every_group_is_held_out_by_some_seed():
    plan = settings("grains", "smoke")
    configuration = grains.complete("real labels")
    records = grains.real_pack("development", profile="smoke").records
    groups = {r.group for r in records}
    held = {grains.training_data(configuration, plan, seed, "smoke").held_group for seed in range(len(groups))}
    assert held == groups


def test_test_data_stay_closed_until_asked_for(smoke, monkeypatch):
    opened = []
    plain = grains.pack
    monkeypatch.setattr(
        grains, "pack", lambda name, data, split, **k: opened.append((name, split)) or plain(name, data, split, **k)
    )
    segmenter = Segmenter.load(smoke[1] / "model.safetensors")
    grains.score(segmenter, grains.complete({}), profile="smoke")
    assert opened == [("ss316l_grains", "development")]
    opened.clear()
    images = grains.score(segmenter, grains.complete({"score_test": True}), profile="smoke")
    assert opened == [("ss316l_grains", "development"), ("ss316l_grains", "test"), ("pure_iron_serial", "test")]
    row = grains.means(images)
    assert {"n_test", "test_miou", "n_iron", "iron_bf1_8px"} <= row.keys()
    assert row["iron_miou"] == pytest.approx(images.loc[images["split"] == "iron", "miou"].mean())


def test_real_data_that_are_not_there_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("MICRO_DATA", str(tmp_path))
    with pytest.raises(Exception, match="ss316l_grains"):
        grains.score(None, grains.complete({"data": "real"}))


def test_a_space_of_your_own_is_trained_on(tmp_path):
    path = str(tmp_path / "own.json")
    preset("trampert").replace(grain_diameter_px=Constant(21.0)).save(path)
    table = grains.scenario(grains.complete({"preset": path}), 64).sample(3, 1)
    assert set(table["grain_diameter_px"]) == {21.0} and set(table["height_px"]) == {64}


@pytest.mark.parametrize(("changes", "wanted"), [({"mask_width_px": 4.0}, 4), ({"mask_width_px": 0.0}, 3)])
def test_boundaries_are_drawn_as_wide_as_a_space_draws_them(tmp_path, changes, wanted):
    path, plan = str(tmp_path / "own.json"), grains.settings("grains", "smoke")
    preset("trampert").replace(boundary_width_px=Constant(3.2), **{k: Constant(v) for k, v in changes.items()}).save(
        path
    )
    assert grains.training_data(grains.complete({"preset": path}), plan, 1).line_px == wanted
    real = grains.training_data(grains.complete({"labels": "development", "data": "generated"}), plan, 1)
    assert real.line_px == grains.LINE_PX["development"]


@pytest.mark.parametrize("feature", grains.FEATURES)
def test_an_ablation_switches_off_its_feature_and_nothing_else(feature):
    whole = grains.scenario(grains.complete("broad"), 64).sample(20, 3)
    without = grains.scenario(grains.complete(f"broad without {feature}"), 64).sample(20, 3)
    off = grains.FEATURES[feature]
    for name in whole.columns:
        if name in off:
            assert (without[name] == PARAMETERS[name][1]).all(), name
        else:
            assert (without[name] == whole[name]).all(), name
    assert any((whole[name] != PARAMETERS[name][1]).any() for name in off), "broad does not have this feature"


def test_trained_range_spans_the_masks():
    def lattice(spacing):
        mask = np.zeros((240, 240), np.uint8)
        mask[::spacing] = mask[:, ::spacing] = 1
        return Labelled(mask, mask)

    # Test lines lie 10 px apart, so spacings without common factors; some lines run along the lattice and lengthen it.
    lattices = [lattice(s) for s in (21, 31, 41, 61)]
    low, high = grains.trained_range_px(lattices, 1.0)
    assert 20 < low < 27 and 55 < high < 70
    assert grains.trained_range_px(lattices, 0.5) == pytest.approx((2 * low, 2 * high))


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ("fine", "no configuration 'fine'; there are broad"),
        ({"presets": "broad"}, r"unknown keys \['presets'\]"),
        ({"labels": "test"}, "labels is 'test'"),
        ({"ablate": "colour"}, "ablate is 'colour'; there are sizes"),
        ({"data": "rael"}, "data is 'rael'; there are auto, real, generated"),
        ({"architecture": "x"}, "architecture is 'x'; there are lite0"),
        ({"loss": "mse"}, "loss is 'mse'; there are cross_entropy"),
        ({"weights": "imagnet"}, "weights is 'imagnet'; there are imagenet, random, or the path"),
        ({"inversion": 7.0}, r"unknown keys \['inversion'\]"),
    ],
)
def test_wrong_configurations_are_refused(configuration, message, monkeypatch):
    monkeypatch.setattr(grains, "fit", lambda *_: pytest.fail("trained before"))
    with pytest.raises(ValueError, match=message):
        grains.run(configuration, 1, "smoke")


@pytest.mark.parametrize("seed", [-1, 1.5, "1"])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(ValueError, match=r"seed is .*; a whole number, 0 or larger"):
        grains.run("broad", seed, "smoke")


def test_configurations_can_be_swept():
    for name in grains.CONFIGURATIONS:
        assert set(grains.complete(name)) == set(grains.DEFAULTS)
    complete = [grains.complete(name) for name in grains.CONFIGURATIONS]
    assert len({run_folder("grains", full, grains.DEFAULTS, 1, "smoke") for full in complete}) == len(complete)


def test_a_stored_model_is_judged_again_as_what_it_was_trained_as(smoke, tmp_path, monkeypatch):
    row, folder = smoke
    monkeypatch.setattr(grains, "train", lambda *_, **__: pytest.fail("trained again"))
    shutil.copytree(folder, tmp_path / "model")
    assert grains.judge(tmp_path / "model") == row
    model = Segmenter.load(tmp_path / "model" / "model.safetensors")
    # Models of before have two keys more.
    other = {
        **model.card.training,
        "preset": "trampert",
        "loss": "cross_entropy",
        "inversion": 0.0,
        "decoder_norm": "none",
    }
    model.card = replace(model.card, training=other)
    model.save(tmp_path / "model" / "model.safetensors")
    again = grains.judge(tmp_path / "model", "generated", score_test=True)
    changed = {"preset": "trampert", "loss": "cross_entropy", "data": "generated", "score_test": True}
    assert {name: again[name] for name in row} == row | changed
    assert {"n_test", "n_iron", "test_miou"} <= again.keys() - row.keys()


def test_a_run_killed_while_it_is_scored_takes_no_step_again(smoke, tmp_path, monkeypatch):
    def dies(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(grains, "score_pack", dies)
        grains.run("broad", 1, "smoke", out=tmp_path)
    monkeypatch.setattr(supervised, "learner", None)
    row = grains.run("broad", 1, "smoke", out=tmp_path)
    assert {k: v for k, v in row.items() if k not in TIMES} == {k: v for k, v in smoke[0].items() if k not in TIMES}
    assert not (tmp_path / supervised.CHECKPOINT).exists()


def test_real_micrographs_that_cannot_be_had_are_missed_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setenv("MICRO_DATA", str(tmp_path))
    monkeypatch.setattr(grains, "fit", lambda *_: pytest.fail("trained before"))
    with pytest.raises(DataUnavailable, match="ss316l_grains"):
        grains.run({"data": "real"}, 1, "smoke", out=tmp_path / "run")
