"""The adaptive experiment: arms differ in their new micrographs alone, and whatever is killed goes on."""

import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.killing import Killed, killed_in_call

from micro_lib.core.profiles import PROFILES, Stage, settings
from micro_lib.core.runs import read_table
from micro_lib.data.packs import DataUnavailable
from micro_lib.data.tiles import Labelled
from micro_lib.synthesis.presets import preset
from micro_lib.training import adaptive, grains
from micro_lib.training.supervised import CHECKPOINT

TIMES = {"train_seconds", "train_per_s", "loader_per_s", "propose_seconds", "render_per_s"}
PLAN = settings("adaptive", "smoke")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(autouse=True)
def one_build_folder(own_output, shared, monkeypatch):
    """Bases and campaigns are shared by the tests of this file as they are by the arms of a sweep."""
    monkeypatch.setenv("MICRO_OUT", str(shared))


@pytest.fixture(scope="module")
def start(shared):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MICRO_OUT", str(shared))
        return adaptive.base(adaptive.complete("adaptive"), PLAN, 1)


def campaign(start, name, seed=1):
    return adaptive.campaign(start, adaptive.complete(name), PLAN, seed)


def untimed(row):
    return {k: v for k, v in row.items() if k not in TIMES}


def equal(weights, others):
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_row_is_flat_and_complete(start, tmp_path):
    row = adaptive.run("adaptive", 1, "smoke", tmp_path)
    assert all(isinstance(value, str | int | float | bool) for value in row.values())
    assert row["strategy"] == "adaptive" and row["parameters"] == "grey_mean, grey_spread, boundary_width_px"
    assert (row["share"], row["variations"], row["n_new"], row["steps"]) == (0.2, "3", 6, 3)
    assert row["base_cycles"] == 3 and row["base_plateau"] == (row["base_gain"] < PLAN["plateau"])
    assert row["propose_seconds"] > 0 and row["render_per_s"] > 0 and row["train_per_s"] > 0
    for name in ("base_miou", "synthetic_miou", "synthetic_error", "validation_miou", "development_miou"):
        assert 0 < row[name] < 1, name
    assert row["synthetic_worst_miou"] < row["synthetic_miou"]
    assert row["base_miou"] == pytest.approx(start.scores["test"]["miou"].mean())
    assert row["n_development"] > 0 and not {name for name in row if name.startswith(("test_", "iron_", "n_test"))}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["history.csv", "images.csv", "proposed.csv"]
    images = read_table(tmp_path / "images.csv")
    assert images["miou"].mean() == pytest.approx(row["development_miou"])
    assert len(read_table(tmp_path / "proposed.csv")) == 6
    again = adaptive.run("adaptive", 1, "smoke", tmp_path / "again")  # its campaign is finished: scored alone
    assert untimed(again) == untimed(row)


def test_test_data_are_opened_when_asked_for_and_cost_no_second_training(start, tmp_path, monkeypatch):
    campaign(start, "adaptive")
    monkeypatch.setattr(adaptive, "train", None)
    row = adaptive.run({"strategy": "adaptive", "score_test": True}, 1, "smoke", tmp_path)
    assert {"n_test", "test_miou", "n_iron", "iron_error"} <= row.keys()


def test_arms_start_from_one_checkpoint_and_take_the_same_steps(start, monkeypatch):
    seen, plain = [], adaptive.train

    def watched(network, training, validation, recipe, **k):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        seen.append((before, len(training), validation, recipe))
        return plain(network, training, validation, recipe, **k)

    monkeypatch.setattr(adaptive, "train", watched)
    arms = [campaign(start, name, 2) for name in ("no new data", "random", "failure model")]
    for before, count, validation, recipe in seen:
        assert equal(before, start.network) and count == PLAN["finetune_images"] and recipe == seen[0][3]
        assert all(a is b for a, b in zip(validation, seen[0][2], strict=True))
    arms += [campaign(start, name, 2) for name in ("adaptive, 3 rounds", "random, 3 rounds")]
    steps, images = ({int(arm.history[name].sum()) for arm in arms} for name in ("steps", "images"))
    assert steps == {3} and images == {12}
    assert [len(arm.proposed) for arm in arms] == [0, 6, 6, 6, 6]
    assert len(seen) == 3 + 6 and {count for _, count, _, _ in seen[3:]} == {4}
    assert equal(seen[3][0], start.network) and not equal(seen[4][0], start.network)
    assert seen[3][3] == seen[6][3] != seen[4][3]  # paired between arms, new in every round
    assert not equal(arms[0].network, arms[1].network)


def test_new_micrographs_are_trained_on_and_older_ones_fill_up(start, monkeypatch):
    trained, plain = [], adaptive.train
    monkeypatch.setattr(
        adaptive, "train", lambda net, images, *a, **k: trained.append(images) or plain(net, images, *a, **k)
    )
    result = campaign(start, "adaptive, 3 rounds", 3)
    bytes_of = lambda images: [image.image.tobytes() for image in images]  # noqa: E731
    known = set(bytes_of(start.micrographs["training"]))
    for number, images in enumerate(trained, start=1):
        rows = result.proposed[result.proposed["round"] == number].drop(columns="round")
        new = set(bytes_of(adaptive.pool(adaptive.Rendered(rows, adaptive.render), PLAN["working_scale"])))
        assert len(new) == 2 and new <= set(bytes_of(images)) <= known | new
        known |= new
    held_out = set(bytes_of(start.micrographs["validation"] + start.micrographs["test"]))
    assert not held_out & known


def test_without_rounds_the_base_is_scored_as_it_is(start):
    result = campaign(start, "base")
    assert equal(result.network, start.network) and result.history.empty and result.proposed.empty


def test_the_base_of_a_seed_is_trained_once(start, monkeypatch):
    monkeypatch.setattr(adaptive, "train", None)
    again = adaptive.base(adaptive.complete("sobol"), PLAN, 1)
    assert again.digest == start.digest and equal(again.network, start.network)
    pd.testing.assert_frame_equal(again.scores["validation"], start.scores["validation"])
    for part in start.tables:
        pairs = zip(again.micrographs[part], start.micrographs[part], strict=True)
        assert all((a == b).all() for one, other in pairs for a, b in zip(one, other, strict=True))


def test_another_generator_or_plan_has_another_base(start, monkeypatch):
    configuration, tables = adaptive.complete("random"), start.tables
    digests = {adaptive._base_digest(configuration, PLAN, seed, tables) for seed in (1, 2)}
    digests.add(adaptive._base_digest(configuration, {**PLAN, "plateau": 0.1}, 1, tables))
    assert adaptive._base_digest(configuration, {**PLAN, "finetune_images": 24}, 1, tables) in digests
    plain = adaptive.render
    monkeypatch.setattr(adaptive, "render", lambda row: plain(row)._replace(mask=1 - plain(row).mask))
    digests.add(adaptive._base_digest(configuration, PLAN, 1, tables))
    monkeypatch.setattr(adaptive, "render", plain)
    monkeypatch.setattr(adaptive, "code_hash", lambda: "another")
    digests.add(adaptive._base_digest(configuration, PLAN, 1, tables))
    assert len(digests) == 5 and start.digest in digests


@pytest.fixture
def elsewhere(shared, start, tmp_path, monkeypatch):
    """A build folder with the same bases and no campaign."""
    for folder in (shared / "adaptive").glob("base-*"):
        shutil.copytree(folder, tmp_path / "adaptive" / folder.name)
    monkeypatch.setenv("MICRO_OUT", str(tmp_path))
    return tmp_path / "adaptive"


@pytest.mark.parametrize(("killed", "number", "done"), [("write_table", 2, 0), ("train", 2, 1), ("_scored", 2, 2)])
def test_a_campaign_killed_in_any_round_goes_on_there(killed, number, done, start, elsewhere, shared, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MICRO_OUT", str(shared))
        whole = campaign(start, "adaptive, 3 rounds")
    with monkeypatch.context() as patch:
        patch.setattr(adaptive, killed, killed_in_call(number, getattr(adaptive, killed)))
        with pytest.raises(Killed):
            campaign(start, "adaptive, 3 rounds")
    assert len(list(elsewhere.glob("campaign-*/round_*/network.pt"))) == done
    trained, plain = [], adaptive.train
    monkeypatch.setattr(adaptive, "train", lambda *a, **k: trained.append(a) or plain(*a, **k))
    resumed = campaign(start, "adaptive, 3 rounds")
    assert len(trained) == 3 - done
    assert equal(resumed.network, whole.network)
    pd.testing.assert_frame_equal(resumed.proposed, whole.proposed, check_exact=True)
    same = ["train_loss", "valid_loss", "valid_miou", "steps", "round"]
    pd.testing.assert_frame_equal(resumed.history[same], whole.history[same], check_exact=True)
    assert not list(elsewhere.glob(f"campaign-*/round_*/{CHECKPOINT}"))


def test_a_base_killed_between_cycles_goes_on_there(start, tmp_path, monkeypatch):
    monkeypatch.setenv("MICRO_OUT", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(adaptive, "train", killed_in_call(2, adaptive.train))
        with pytest.raises(Killed):
            adaptive.base(adaptive.complete("adaptive"), PLAN, 1)
    again = adaptive.base(adaptive.complete("adaptive"), PLAN, 1)
    assert equal(again.network, start.network)
    assert again.history["train_loss"].tolist() == start.history["train_loss"].tolist()


def fake_training(reached):
    """A training whose n-th call reaches a given validation IoU, with that as its weight."""
    values, seen = iter(reached), []

    def train(network, training, validation, recipe, *, folder, device):
        folder.mkdir()
        seen.append((float(network.weight), recipe))
        value = next(values)
        network.weight.data.fill_(value)
        return pd.DataFrame({"valid_miou": [value - 0.1, value], "best": [False, True]})

    return train, seen


@pytest.mark.parametrize(
    ("reached", "cycles", "weight"),
    [
        ([0.5, 0.6, 0.602, 0.9], 3, 0.602),  # rose by less than 0.003
        ([0.5, 0.6, 0.55, 0.9], 3, 0.6),  # fell: the better one stays
        ([0.5, 0.55, 0.6, 0.65, 0.7], 4, 0.65),  # still rising when max_cycles are over
    ],
)
def test_a_base_trains_until_its_validation_iou_stops_rising(reached, cycles, weight, tmp_path, monkeypatch):
    def network(plan, seed, weights=None):
        result = torch.nn.Linear(1, 1, bias=False)
        result.weight.data.fill_(0.0 if weights is None else float(weights["weight"]))
        return result

    train, seen = fake_training(reached)
    monkeypatch.setattr(adaptive, "train", train)
    monkeypatch.setattr(adaptive, "_network", network)
    plan = {**PLAN, "max_cycles": 3}
    micrographs = {"training": [0], "validation": [0]}
    state = adaptive._trained_base(micrographs, plan, 1, tmp_path)
    history = pd.DataFrame(state["history"])
    assert state["cycles"] == len(seen) == cycles and history["cycle"].max() == cycles - 1
    assert float(state["network"]["weight"]) == pytest.approx(weight)
    assert seen[0][1].stages == plan["stages"] and seen[0][1].learning_rate == plan["learning_rate"]
    assert seen[1][1].stages == (plan["cycle"],) and seen[1][1].learning_rate == plan["finetune_rate"]
    assert seen[2][0] == pytest.approx(max(reached[:2]))  # each cycle goes on from the best
    assert not list(tmp_path.glob("cycle_*"))
    gains = adaptive.rising(history)
    assert gains == pytest.approx([b - max(reached[: i + 1]) for i, b in enumerate(reached[1:cycles])])


def test_a_damaged_base_is_reported_and_trained_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(adaptive, "_network", lambda *_: torch.nn.Linear(1, 1, bias=False))
    micrographs, reached = {"training": [0], "validation": [0]}, [0.5, 0.6, 0.6]
    for damaged in (False, True):
        train, seen = fake_training(reached)
        monkeypatch.setattr(adaptive, "train", train)
        if damaged:
            (tmp_path / "base.pt").write_bytes((tmp_path / "base.pt").read_bytes()[:-50])
            with pytest.warns(UserWarning, match=r"base\.pt is damaged"):
                adaptive._trained_base(micrographs, PLAN, 1, tmp_path)
        else:
            adaptive._trained_base(micrographs, PLAN, 1, tmp_path)
        assert len(seen) == 3
        adaptive._trained_base(micrographs, PLAN, 1, tmp_path)
        assert len(seen) == 3, "what is whole is not trained again"


class Drawn(torch.nn.Module):
    """Finds a boundary where the image is dark."""

    def forward(self, images):
        return torch.cat([images, -images], 1)


class Grain(torch.nn.Module):
    """Finds no boundary anywhere."""

    def forward(self, images):
        return torch.cat([torch.ones_like(images), torch.zeros_like(images)], 1)


def test_images_are_scored_one_by_one_over_the_classes_they_hold():
    mask = np.zeros((64, 64), np.uint8)
    mask[:16] = 1
    clean = Labelled(np.where(mask, 50, 200).astype(np.uint8), mask)
    missing = Labelled(clean.image, np.zeros_like(mask))
    stage = Stage(64, 1, False)
    found = adaptive.score_images(Drawn(), [clean, missing], stage)
    assert found.loc[0].tolist() == [1.0, 0.0]
    assert found.loc[1].tolist() == [0.75, 0.25]  # the absent class is not counted, its pixels are wrong all the same
    none = adaptive.score_images(Grain(), [clean] * 70, stage)
    assert len(none) == 70 and none.loc[69].tolist() == [0.375, 0.25]


def test_rounds_share_the_budget_in_whole_variations():
    study = settings("adaptive", "study")
    counts = {n: adaptive.round_variations(adaptive.complete({"rounds": n}), study) for n in (1, 2, 3)}
    assert counts == {1: [10], 2: [5, 5], 3: [4, 3, 3]}
    assert adaptive.round_variations(adaptive.complete("base"), study) == []
    assert adaptive.round_variations(adaptive.complete({"share": 0.05}), study) == [20]


@pytest.mark.parametrize(
    ("configuration", "change", "message"),
    [
        (
            {"share": 0.03},
            {},
            "1000 rows cannot be divided into 1 round.s. with whole variations of each of the worst 30",
        ),
        ({"rounds": 11}, {}, "cannot be divided into 11 round"),
        ({"rounds": 5}, {}, "1536 fine-tuning tiles in steps of 16 cannot be divided evenly into 5 round"),
        ({}, {"finetune_images": 960}, "cannot be divided evenly into 1 round.s. that hold their 1000 new rows"),
    ],
)
def test_budgets_and_steps_that_cannot_be_divided_are_refused(configuration, change, message):
    with pytest.raises(ValueError, match=message):
        adaptive.round_variations(adaptive.complete(configuration), {**settings("adaptive", "study"), **change})


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ("greedy", "no configuration 'greedy'; there are base"),
        ({"arm": "random"}, r"unknown keys \['arm'\]"),
        ({"strategy": "greedy"}, "strategy is 'greedy'; there are adaptive"),
        ({"strategy": "random", "interval": 0.3}, "interval: only the strategy 'adaptive' has this, not 'random'"),
        ({"rounds": -1}, "rounds is -1"),
        ({"rounds": 0}, "rounds is 0"),
        ({"rounds": "2"}, "rounds is '2'; a whole number, 0 or larger"),
        ({"share": "0.1"}, "share is '0.1'; a number, 0 or larger"),
        ({"data": "rael"}, "data is 'rael'; there are auto, real, generated"),
        ({"parameters": "grey_mean, width"}, "no parameter is called 'width'"),
        ({"interval": 2.0}, "the span is 2.0"),
        ({"preset": "narrow"}, "preset.* 'narrow'; there are trampert"),
    ],
)
def test_wrong_configurations_are_refused_before_anything_is_trained(configuration, message, monkeypatch):
    monkeypatch.setattr(adaptive, "base", None)
    with pytest.raises(ValueError, match=message):
        adaptive.run(configuration, 1, "smoke")


def test_real_micrographs_that_cannot_be_had_are_missed_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setenv("MICRO_DATA", str(tmp_path))
    monkeypatch.setattr(adaptive, "base", None)
    with pytest.raises(DataUnavailable, match="ss316l_grains"):
        adaptive.run({"data": "real"}, 1, "smoke", tmp_path / "run")


def test_rows_are_read_as_they_were_written(tmp_path):
    for name in ("broad", "trampert"):  # texts that are empty, truth values, whole numbers
        space = preset(name)
        rows = space.sample(50, 3)
        adaptive.write_table(rows, tmp_path / "rows.csv")
        pd.testing.assert_frame_equal(adaptive.read_rows(tmp_path / "rows.csv", space), rows, check_exact=True)


def test_configurations_can_be_swept():
    digests = {adaptive._digest(adaptive.complete(name)) for name in adaptive.CONFIGURATIONS}
    assert len(digests) == len(adaptive.CONFIGURATIONS)
    for profile in PROFILES:
        for name in adaptive.CONFIGURATIONS:
            adaptive.round_variations(adaptive.complete(name), settings("adaptive", profile))


@pytest.mark.parametrize("profile", PROFILES)
def test_settings_of_all_profiles_have_the_same_keys_and_fit_together(profile):
    plan = settings("adaptive", profile)
    assert set(plan) == set(PLAN) and plan["n_watched"] <= plan["n_validation"]
    side = plan["image_px"] * plan["working_scale"]
    assert max(stage.px for stage in (*plan["stages"], plan["cycle"], plan["finetune"])) <= side
    assert not plan["finetune"].frozen and not plan["cycle"].frozen
    if profile in ("study", "paper"):  # section 3.3
        assert (plan["n_validation"], plan["share"], plan["variations"]) == (1000, 0.1, 10)
    assert len(plan["seeds"]) >= {"study": 10, "paper": 50}.get(profile, 1)


def test_a_campaign_without_rows_has_no_rate(start):
    assert math.isnan(campaign(start, "base").render_per_s)
    assert grains.costs(campaign(start, "base").history)["steps"] == 0
