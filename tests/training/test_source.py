"""The source experiment: rows are complete and add up, arms differ in what they say, kills are survived."""

import numpy as np
import pytest
import torch
from helpers.killing import killed
from helpers.two_levels import Tiny, micrographs

from micro_lib.core.profiles import PROFILES, settings
from micro_lib.core.runs import read_table
from micro_lib.data.records import Record
from micro_lib.training import adaptation, adaptation_loop, source
from micro_lib.training.adaptation_loop import CHECKPOINT, Draws
from micro_lib.training.source import AUGMENTATIONS, CONFIGURATIONS, PRETRAININGS, TARGETS, Setting, complete, run

PLAN = {"tile": (32, 4), "steps": 6, "batch": 2, "learning_rate": 1e-2}


def made_up(name, part, seed, plan):
    contrast = {"source": 60, "T1": 50, "T2": 25, "T3": 10}[name]
    made = micrographs(plan["n_images"], contrast, 100 * seed + 10 * len(part))
    return tuple(Record(f"{name} {part} {i}", *sample, f"{name} {part} {i}", None) for i, sample in enumerate(made))


@pytest.fixture
def small(monkeypatch):
    """Made-up micrographs, a tiny network, a handful of steps."""
    plan = {**settings("source", "smoke"), **PLAN}
    monkeypatch.setattr(source, "settings", lambda _experiment, _profile: plan)
    monkeypatch.setattr(adaptation, "build", lambda _architecture, n_classes, _weights="": Tiny(n_classes))
    monkeypatch.setattr(source, "bainite", made_up)


def test_configurations_are_the_published_grid_and_ours():
    assert {f"{p}, {a}" for p in PRETRAININGS for a in AUGMENTATIONS} <= set(CONFIGURATIONS)
    assert complete("two-stage, none") == {**source.DEFAULTS, "pretraining": "two-stage", "augmentation": "none"}
    full = [tuple(complete(name).items()) for name in CONFIGURATIONS]
    assert len(set(full)) == len(full), "no two names for one arm"
    with pytest.raises(ValueError, match="pretraining is 'NanoSEM'; there are random, ImageNet"):
        complete({"pretraining": "NanoSEM"})
    with pytest.raises(ValueError, match="architecture is 'deeplabv2'"):
        complete({"architecture": "deeplabv2"})
    for pretraining in ("random", "ImageNet"):  # it would be the same run under another name
        with pytest.raises(ValueError, match=f"task is 'parameters', but pretraining '{pretraining}' has none"):
            complete({"pretraining": pretraining, "task": "parameters"})
    with pytest.raises(ValueError, match="seed is 0; a whole number, 1 or larger"):
        source.run("two-stage, none", 0, "smoke")


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_have_the_same_keys_and_about_the_published_number_of_tiles(profile):
    plan = settings("source", profile)
    assert set(plan) == set(settings("source", "paper"))
    side_px = plan["tile"][0]
    half = [side / plan["pixel_size_um"] / 2 for side in plan["field_um"]]
    tiles = plan["n_images"] * np.prod([np.ceil(round(side) / side_px) for side in half])
    if profile in ("study", "paper"):
        assert 100 <= tiles <= 170  # 112


def test_a_row_is_flat_whole_and_adds_up(small, tmp_path):
    row = run("ImageNet, none", 2, "smoke", tmp_path)
    assert all(isinstance(value, (str, int, float, bool)) for value in row.values())
    assert not any(isinstance(value, np.generic) for value in row.values())
    assert (row["fold"], row["steps"], row["n_source"], row["epochs"]) == (1, 6, 2, 6.0)
    assert row["encoder_score"] == row["encoder_seconds"] == 0 and row["trouble"] == ""
    for name in TARGETS:
        assert row[f"{name}_rdt"] == pytest.approx((row[f"{name}_miou"] - row["source_miou"]) / row["source_miou"])
    images = read_table(tmp_path / "images.csv")
    assert images["split"].tolist() == ["source", *TARGETS] and images["name"].is_unique
    curve = read_table(tmp_path / "curve.csv")
    assert curve["step"].tolist() == [3, 6]
    for split in ("source", *TARGETS):
        assert adaptation.pooled_miou(images[images["split"] == split]) == pytest.approx(row[f"{split}_miou"])
        assert curve[f"{split}_miou"].tolist() == pytest.approx([row[f"{split}_miou_half"], row[f"{split}_miou"]])
    network, card = adaptation.load(tmp_path / adaptation.NETWORK)
    assert card["pretraining"] == "ImageNet" and card["tile_px"] == 32
    again = Setting(complete("ImageNet, none"), 2, "smoke").score(network)
    assert again.equals(images)


def test_half_a_run_is_the_run_of_half_the_steps(small, tmp_path, monkeypatch):
    row = run("random, basic", 1, "smoke", tmp_path / "whole")
    short = {**settings("source", "smoke"), **PLAN, "steps": 3}
    monkeypatch.setattr(source, "settings", lambda *_: short)
    halved = run("random, basic", 1, "smoke", tmp_path / "half")
    assert [halved[f"{name}_miou"] for name in TARGETS] == [row[f"{name}_miou_half"] for name in TARGETS]


def test_a_killed_run_goes_on(small, tmp_path):
    whole = run("random, extended", 1, "smoke", tmp_path / "whole")
    with killed():
        run("random, extended", 1, "smoke", tmp_path / "killed")
    resumed = run("random, extended", 1, "smoke", tmp_path / "killed")
    scores = [name for name in whole if "_miou" in name or name == "last_loss"]
    assert {name: resumed[name] for name in scores} == {name: whole[name] for name in scores}


def test_test_micrographs_are_counted_once_a_point(small, tmp_path, monkeypatch):
    counted, plain = [], Setting.score
    monkeypatch.setattr(Setting, "score", lambda setting, network: counted.append(1) or plain(setting, network))
    run("random, none", 1, "smoke", tmp_path)
    assert len(counted) == source.HALF


def test_a_run_killed_behind_its_last_step_takes_none_again(small, tmp_path, monkeypatch):
    whole = run("random, extended", 1, "smoke", tmp_path / "whole")
    with killed(source.HALF):
        run("random, extended", 1, "smoke", tmp_path / "killed")
    monkeypatch.setattr(adaptation_loop, "learn_once", None)
    resumed = run("random, extended", 1, "smoke", tmp_path / "killed")
    assert resumed == whole | {"train_seconds": resumed["train_seconds"], "ms_per_step": resumed["ms_per_step"]}
    images = [read_table(tmp_path / part / "images.csv") for part in ("whole", "killed")]
    assert images[0].equals(images[1])
    assert not list(tmp_path.glob(f"*/{CHECKPOINT}"))


@torch.no_grad()
def test_augmentations_are_what_they_say(small):
    batches = {}
    for name in AUGMENTATIONS:
        setting = Setting(complete(f"random, {name}"), 1, "smoke")
        tiles = setting.tiles()
        recipe = setting.recipe(len(tiles))
        batches[name] = Draws(tiles, [], [], recipe)(0)
    side = recipe.framing.side_px
    originals = [torch.from_numpy(tile.mask) for tile in Setting(complete("random, none"), 1, "smoke").tiles()]
    assert batches["none"].images.shape == (2, 1, side, side)
    for mask in batches["none"].masks:
        assert any(torch.equal(mask.byte(), original) for original in originals)
    turned = [torch.rot90(m, k).byte() for m in originals for k in range(4)]
    turned += [mask.flip(0) for mask in turned]
    for mask in batches["basic"].masks:
        assert any(torch.equal(mask.byte(), one) for one in turned)
    for mask in batches["extended"].masks:
        assert not any(torch.equal(mask.byte(), one) for one in turned)


def test_a_random_encoder_learns_as_fast_as_the_decoder_and_others_a_tenth(small):
    rates = {name: Setting(complete({"pretraining": name}), 1, "smoke").recipe(8).encoder_rate for name in PRETRAININGS}
    assert rates == {"random": 1.0, "ImageNet": 0.1, "two-stage": 0.1, "in-domain": 0.1}


def test_folds_have_their_own_source_and_one_target(small):
    one, other = (Setting(complete({}), seed, "smoke") for seed in (1, 2))
    assert (one.source[0].image != other.source[0].image).any()
    for name in TARGETS:
        np.testing.assert_array_equal(one.tests[name][0].image, other.tests[name][0].image)


def test_what_was_learnt_in_domain_is_handed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "bainite", made_up)
    setting = Setting(complete({"pretraining": "in-domain"}), 1, "smoke")
    path, facts = setting.weights(tmp_path)
    assert path == str(tmp_path / "encoder.safetensors") and set(facts) == {"encoder_score", "encoder_seconds"}
    ours, random = setting.network(path).state_dict(), setting.network("random").state_dict()
    differing = [name for name in ours if not torch.equal(ours[name], random[name])]
    assert differing and all("encoder" in name for name in differing)
    assert Setting(complete({}), 1, "smoke").weights(tmp_path)[0] == "imagenet"
