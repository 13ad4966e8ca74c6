"""The crack experiment: nobody is tested on what was learned from, arms differ where they say, rows are complete."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.crack_tiles import REAL_SPECIMENS, pack_of, tiles
from hypothesis import given
from hypothesis import strategies as st

from micro_lib.core import runs
from micro_lib.core.profiles import PROFILES, settings
from micro_lib.core.runs import read_table
from micro_lib.core.seeds import stream_seed
from micro_lib.data.classified import classified
from micro_lib.training import cracks
from micro_lib.training.cracks import Setting, budget, by_specimen, complete, folds, roles, summary
from micro_lib.training.shared import run_folder
from micro_lib.training.supervised import TrainingDiverged, Unvalidated

RECORDS = tiles()
MANY = tiles(per_class=20, px=8)
TIMES = {"train_seconds", "ms_per_step", "pretrain_seconds", "generator_seconds"}
SMALL = {"n_train": 4, "n_validation": 2, "synthetic_batch": 2, "real_batch": 8, "max_patches": 200}


def small_plan(profile="smoke"):
    return {**settings("cracks", profile), **SMALL, "n_textures": 2, "architecture": "lite0"}


def names_of(part):
    return {record.name for record in part}


def specimens_of(part):
    return {record.group for record in part}


# Roles


@given(st.integers(1, 60), st.sampled_from(["specimen", "tile"]))
def test_every_tile_has_one_role(seed, split):
    parts = roles(RECORDS, seed, split)
    assert sorted(record.name for part in parts for record in part) == [record.name for record in RECORDS]
    assert all(parts)


@given(st.integers(1, 60))
def test_no_specimen_is_on_both_sides(seed):
    training, validation, test = (specimens_of(part) for part in roles(RECORDS, seed))
    assert not training & validation and not training & test and not validation & test
    assert test == set(cracks.FOLDS[(seed - 1) % 4])
    assert len(validation) == 2 and validation <= {*cracks.FOLDS[2], *cracks.FOLDS[3]}


def test_all_specimens_are_tested_on_and_validation_specimens_rotate():
    assert sorted(name for fold in cracks.FOLDS for name in fold) == sorted(set(REAL_SPECIMENS))
    for fold in range(4):
        held = [frozenset(specimens_of(roles(RECORDS, seed).validation)) for seed in range(fold + 1, 13, 4)]
        assert len(set(held)) == 3


def test_splitting_by_tile_mixes_specimens_in_the_papers_proportions():
    parts = roles(MANY, 1, "tile")
    assert [len(part) / len(MANY) for part in parts] == pytest.approx([0.7, 0.175, 0.125], abs=0.01)
    assert specimens_of(parts.test) & specimens_of(parts.training)
    labels = [sum(bool(record.mask.any()) for record in part) / len(part) for part in parts]
    assert labels == pytest.approx([0.5, 0.5, 0.5])
    assert names_of(roles(MANY, 5, "tile").test) != names_of(parts.test)


def test_other_specimens_are_dealt_out():
    assert folds("abcdef") == (("a", "e"), ("b", "f"), ("c",), ("d",))
    parts = roles(tiles("abcde", px=8), 3)
    assert specimens_of(parts.test) == {"c"} and specimens_of(parts.validation) == {"d"}
    with pytest.raises(ValueError, match="5 specimens or more; found"):
        folds("abcd")


@pytest.mark.parametrize("field", ["image", "mask"])
def test_what_is_shared_counts_for_the_pixels_learned_from(field):
    def key(changed=None):
        records = [r._replace(**{field: getattr(r, field) ^ 1}) if r is changed else r for r in RECORDS]
        return Setting(complete("mixed"), small_plan(), 1, pack_of(records)).key("pretrained")

    parts = roles(RECORDS, 1)
    assert key(parts.training[-1]) != key() == key(parts.test[0])


# Label budgets


@given(st.sampled_from(cracks.BUDGETS), st.integers(1, 20))
def test_a_budget_is_balanced_spread_and_part_of_a_larger_one(n, seed):
    chosen = budget(MANY, n, seed)
    assert len(names_of(chosen)) == n and sum(bool(r.mask.any()) for r in chosen) == n // 2
    assert len(specimens_of(chosen)) == min(8, n // 2)
    counts = pd.Series([(r.group, bool(r.mask.any())) for r in chosen]).value_counts()
    assert counts.max() - counts.min() <= 1
    assert names_of(chosen) <= names_of(budget(MANY, 2 * n, seed))


def test_a_budget_depends_on_the_seed_and_zero_means_all():
    assert names_of(budget(MANY, 16, 1)) == names_of(budget(MANY, 16, 1)) != names_of(budget(MANY, 16, 2))
    assert budget(MANY, 0, 1) == MANY


def test_a_budget_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="n_real = 64 needs 32 training tiles without a crack; there are 16"):
        budget(RECORDS, 64, 1)


# Schedules


def test_the_papers_schedule_is_in_its_profile():
    plan = settings("cracks", "paper")
    assert (plan["n_train"], plan["n_validation"]) == (79_312, 19_828)
    assert (plan["synthetic_batch"], plan["synthetic_epochs"]) == (3584, (4, 5))
    assert (plan["real_batch"], plan["real_epochs"], plan["architecture"]) == (64, (10, 10), "resnet50")
    assert plan["seeds"] == tuple(range(1, 201))
    # 357 tiles in batches of 64, ten times
    assert [stage.steps for stage in cracks.real_stages(plan, 357)] == [56, 56]
    assert [stage.steps for stage in cracks.synthetic_stages(plan)] == [4 * 79_312 // 3584, 5 * 79_312 // 3584]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_trains_the_head_first(profile):
    plan = settings("cracks", profile)
    for stages in (cracks.synthetic_stages(plan), cracks.real_stages(plan, 8)):
        assert [stage.frozen for stage in stages] == [True, False] and min(s.steps for s in stages) > 0


def test_few_tiles_are_trained_on_for_the_least_number_of_steps():
    plan = {**settings("cracks", "study")}
    assert [stage.steps for stage in cracks.real_stages(plan, 8)] == [plan["min_steps"]] * 2
    assert cracks.real_stages(plan, 320)[0].steps == 100


# Configurations


def test_configurations_are_complete_and_apart():
    full = {name: complete(name) for name in cracks.CONFIGURATIONS}
    assert all(set(configuration) == set(cracks.DEFAULTS) for configuration in full.values())
    assert len({tuple(configuration.items()) for configuration in full.values()}) == len(full)
    assert {full[name]["generator"] for name in ("real", "real long", "real by tile")} == {""}
    assert len({run_folder("cracks", c, cracks.DEFAULTS, 1, "smoke") for c in full.values()}) == len(full)


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ("fine", "no configuration 'fine'; there are synthetic"),
        ({"tiles": 8}, r"unknown keys \['tiles'\]"),
        ({"arm": "both"}, "arm is 'both'; there are synthetic, real"),
        ({"generator": "gan"}, "generator is 'gan'"),
        ({"split": "image"}, "split is 'image'"),
        ({"n_real": 7}, "n_real is 7; half of the tiles show a crack"),
        ({"n_real": "8"}, "n_real is '8'; a whole number, 0 or larger"),
        ({"architecture": "vgg16"}, "architecture is 'vgg16'; there are lite0, resnet50"),
        ({"weights": "imagnet"}, "weights is 'imagnet'; there are imagenet, random"),
        ({"data": "rael"}, "data is 'rael'; there are auto, real, generated"),
    ],
)
def test_wrong_configurations_are_refused(configuration, message, monkeypatch):
    monkeypatch.setattr(cracks, "real_tiles", lambda *_: pytest.fail("went on"))
    with pytest.raises(ValueError, match=message):
        cracks.run(configuration, 1, "smoke")


@pytest.mark.parametrize("seed", [0, -1, 1.5, "1"])
def test_a_seed_without_a_fold_is_refused(seed):
    with pytest.raises(ValueError, match=r"seed is .*; a whole number, 1 or larger"):
        Setting(complete("real"), small_plan(), seed, pack_of(RECORDS))


# Whole runs


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """All arms at seed 1 on made-up tiles, with what they share in one folder, and who made what."""
    folder = tmp_path_factory.mktemp("cracks")
    made, learned, rows = [], [], {}

    def generator(setting):  # one does for both seeds
        made.append(setting)
        learned.extend(() if learned else [plain(setting)])
        return learned[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MICRO_OUT", str(folder / "build"))
        patch.setattr(cracks, "real_tiles", lambda *_: pack_of(RECORDS))
        patch.setattr(cracks, "settings", lambda *_: small_plan())
        plain = cracks.generator
        patch.setattr(cracks, "generator", generator)
        for name in ("synthetic", "real", "mixed", "mixed 8", "real long 8"):
            rows[name] = cracks.run(name, 1, "smoke", folder / name)
        rows["again"] = cracks.run("mixed 8", 1, "smoke", folder / "again")
        rows["seed 5"] = cracks.run("synthetic", 5, "smoke", folder / "seed 5")
    return SimpleNamespace(rows=rows, folder=folder, generators=made, learned=learned[0])


def test_a_row_is_flat_and_complete(ran):
    for row in ran.rows.values():
        assert all(isinstance(value, str | int | float | bool) for value in row.values())
        assert row.keys() == ran.rows["real"].keys()
        errors = ["validation_error", "test_error", "test_error_matched", "all_error", "missed", "false_alarms"]
        assert all(0 <= row[name] <= 1 for name in errors)
        assert row["n_all"] == len(RECORDS) and row["fold"] == 0 and row["test_specimens"] == "040617#3"
        assert cracks.RATES[0] <= row["learning_rate"] <= cracks.RATES[1]
    assert ran.rows["mixed"]["generator"] == "paper" and ran.rows["real"]["generator"] == ""
    assert ran.rows["mixed 8"]["n_training"] == 8 and ran.rows["synthetic"]["n_training"] == 0


def test_the_long_real_arm_takes_the_steps_of_both_phases(ran):
    mixed, real_long = ran.rows["mixed 8"], ran.rows["real long 8"]
    assert real_long["steps"] == mixed["steps"] > mixed["pretrain_steps"] > 0 == real_long["pretrain_steps"]
    assert ran.rows["real"]["steps"] == ran.rows["mixed"]["steps"] - ran.rows["mixed"]["pretrain_steps"]
    assert ran.rows["synthetic"]["steps"] == ran.rows["synthetic"]["pretrain_steps"] == 4


def test_arms_share_the_pre_training(ran):
    assert len(ran.generators) == 2  # of seed 1 and of seed 5
    costs = {ran.rows[name]["pretrain_seconds"] for name in ("synthetic", "mixed", "mixed 8")}
    assert len(costs) == 1 and math.isnan(ran.rows["real"]["pretrain_seconds"])
    assert ran.rows["seed 5"]["learning_rate"] == ran.rows["synthetic"]["learning_rate"]  # one fold, one rate


def test_the_generator_sees_training_specimens_alone(ran, monkeypatch):
    seen = []
    monkeypatch.setattr(cracks.synthetic, "learn", lambda records, **_: seen.append(specimens_of(records)))
    for setting in ran.generators:
        cracks.generator(setting)
        training, validation, test = (specimens_of(part) for part in setting.roles)
        assert seen[-1] == training and not training & (validation | test)


def test_a_run_repeats_to_the_digit(ran):
    same = {name: value for name, value in ran.rows["again"].items() if name not in TIMES}
    assert same == {name: value for name, value in ran.rows["mixed 8"].items() if name not in TIMES}
    one, again = (read_table(ran.folder / name / "tiles.csv") for name in ("mixed 8", "again"))
    pd.testing.assert_frame_equal(one, again)


def test_arms_differ(ran):
    found = {
        name: read_table(ran.folder / name / "tiles.csv")["probability"] for name in ("synthetic", "real", "mixed")
    }
    for a in found.values():
        assert a.between(0, 1).all() and sum(a.equals(b) for b in found.values()) == 1


def test_a_run_leaves_its_tiles_and_their_counts(ran):
    for name in ("real", "mixed 8"):
        assert sorted(p.name for p in (ran.folder / name).iterdir()) == ["images.csv", "tiles.csv"]
        table, images = (read_table(ran.folder / name / file) for file in ("tiles.csv", "images.csv"))
        pd.testing.assert_frame_equal(images, by_specimen(table), check_dtype=False)
        assert set(images["split"]) == {"training", "validation", "test"} and not images["name"].duplicated().any()
        test = images[images["split"] == "test"]
        assert test["wrong"].sum() / test["n"].sum() == ran.rows[name]["test_error"]
        assert images["wrong"].sum() / len(RECORDS) == ran.rows[name]["all_error"]


def test_weights_go_from_synthetic_to_real_tiles(ran, monkeypatch):
    monkeypatch.setenv("MICRO_OUT", str(ran.folder / "build"))
    setting = Setting(complete("synthetic"), small_plan(), 1, pack_of(RECORDS))
    network, _ = cracks.fit(setting)
    states = cracks.pretrained(setting).states
    assert all(torch.equal(states[name], tensor) for name, tensor in network.state_dict().items())
    stages = (cracks.Stage(1, True), cracks.Stage(1, False))
    learn = cracks.train(setting, classified(RECORDS[:4]), stages, 4, 1e-12, states)
    for name, tensor in learn.model.named_parameters():  # a rate of nothing leaves the weights where they started
        torch.testing.assert_close(tensor, states[name], atol=1e-5, rtol=0)


def test_a_network_learns_tiles_by_heart():
    plan = small_plan()
    setting = Setting(complete("real"), plan, 1, pack_of(RECORDS))
    shown = classified(RECORDS[:4] + RECORDS[-4:])
    learn = cracks.train(setting, shown, (cracks.Stage(10, True), cracks.Stage(25, False)), 8, 3e-3)
    assert (cracks.crack_probability(learn.model, shown.images) >= 0.5).tolist() == (shown.labels == 1).tolist()


def test_a_range_test_that_breaks_off_at_once_gives_the_lowest_rate(monkeypatch):
    monkeypatch.setattr(cracks, "FIND", {**cracks.FIND, "start_lr": 10.0, "end_lr": 1e4})
    setting = Setting(complete("real"), small_plan(), 1, pack_of(RECORDS))
    assert cracks._found_rate(setting, classified(RECORDS[:4]), 4) == cracks.RATES[0]


def test_a_loss_that_is_not_finite_stops_the_training_at_once(monkeypatch):
    steps, plain = [], Unvalidated.after_batch
    monkeypatch.setattr(Unvalidated, "after_batch", lambda watch: steps.append(1) or plain(watch))
    setting = Setting(complete("real"), small_plan(), 1, pack_of(RECORDS))
    with pytest.raises(TrainingDiverged, match=r"the loss became (nan|inf) in stage 1; lower the rate, now inf"):
        cracks.train(setting, classified(RECORDS[:4]), (cracks.Stage(9, False),), 4, float("inf"))
    assert len(steps) < 4


def test_an_error_in_a_forward_pass_leaves_no_autocast(monkeypatch):
    seen = []

    def broken(logits, labels):
        torch.set_autocast_enabled("cpu", True)  # as a forward pass that does not end
        seen.append(torch.is_autocast_enabled("cpu"))
        raise RuntimeError("no memory")

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", broken)
    setting = Setting(complete("real"), small_plan(), 1, pack_of(RECORDS))
    with pytest.raises(RuntimeError, match="no memory"):
        cracks.train(setting, classified(RECORDS[:4]), (cracks.Stage(1, False),), 4, 1e-3)
    assert seen == [True] and not torch.is_autocast_enabled("cpu")


def test_the_papers_profile_is_built_and_takes_a_step(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "commit", lambda: ("x", False))
    plan = {**settings("cracks", "paper")}
    setting = Setting({**complete("real"), "weights": "random"}, plan, 1, pack_of(RECORDS))
    learn = cracks.train(setting, classified(RECORDS), (cracks.Stage(1, False),), 4, 1e-3)
    assert sum(p.numel() for p in learn.model.parameters()) > 23e6
    assert len(learn.recorder.losses) == 1 and math.isfinite(learn.recorder.losses[0])


# Scores


def table(rows):
    return pd.DataFrame(rows, columns=["group", "role", "label", "called", "matched"])


def test_counts_and_errors_worked_out_by_hand():
    found = table(
        [
            ("a", "test", 1, 1, 1),
            ("a", "test", 1, 0, 0),
            ("a", "test", 0, 1, 1),
            ("b", "test", 0, 0, 0),
            ("b", "test", 0, 0, 0),
            ("c", "validation", 1, 0, 0),
            ("c", "validation", 1, 1, 0),
            ("d", "training", 0, 0, 0),
        ]
    )
    counts = by_specimen(found).set_index(["split", "name"])
    assert counts.loc[("test", "a")].to_dict() == {
        "n": 3,
        "n_crack": 2,
        "wrong": 2,
        "missed": 1,
        "false_alarms": 1,
        "n_matched": 2,
        "wrong_matched": 1,
    }
    row = summary(found)
    assert (row["test_error"], row["validation_error"], row["all_error"]) == (2 / 5, 1 / 2, 3 / 8)
    assert (row["missed"], row["false_alarms"], row["test_error_matched"]) == (1 / 2, 1 / 3, 1 / 2)
    assert (row["n_test"], row["n_validation"], row["n_test_matched"], row["n_all"]) == (5, 2, 2, 8)


def test_without_a_matched_pair_there_is_no_matched_error():
    found = table([("a", "test", 1, 1, 0), ("b", "test", 0, 0, 0), ("c", "validation", 1, 0, 0)])
    assert math.isnan(summary(found)["test_error_matched"])


def test_tiles_are_matched_by_their_oxide_fraction_in_the_test_role_alone():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(2))
    network(torch.zeros(1, 1, 128, 128))
    found = cracks.score(network, roles(RECORDS, 3))
    assert (found.loc[found["role"] != "test", "matched"] == 0).all()
    assert found.loc[found["role"] == "test", "matched"].all()  # pairs of made-up tiles differ by 0.01


def test_the_shortcut_is_found_where_there_is_one_and_not_where_there_is_none():
    rng = np.random.default_rng(1)
    plain = [record._replace(attributes={"oxide_fraction": float(rng.random())}) for record in MANY]
    plain = [r._replace(image=np.full((8, 8), rng.integers(90, 160), np.uint8)) for r in plain]
    marked = [r._replace(image=r.image + np.uint8(60) * r.mask.any()) for r in plain]
    for records, low, high in ((plain, 0.35, 0.65), (marked, 0.0, 0.15)):
        found = cracks.score_shortcut(pack_of(records))
        error = (found["label"] != found["called"]).mean()
        assert low <= error <= high
        assert sorted(found["name"]) == [record.name for record in records]
        assert (found["role"] == "test").all() and found.groupby("group")["fold"].nunique().eq(1).all()


def test_synthetic_tiles_are_split_and_labelled(ran, monkeypatch):
    monkeypatch.setattr(cracks, "generator", lambda _: ran.learned)
    setting = Setting(complete("mixed"), {**small_plan(), "n_train": 12, "n_validation": 4}, 1, pack_of(RECORDS))
    training, validation = cracks.synthetic_tiles(setting)
    assert training.images.shape == (12, 128, 128) and validation.images.shape == (4, 128, 128)
    rows = ran.learned.space.sample(16, stream_seed(1, "crack tiles")).to_dict("records")
    rendered = [ran.learned.render(row) for row in rows]
    assert [*training.labels, *validation.labels] == [int(micrograph.mask.any()) for micrograph in rendered]
    np.testing.assert_array_equal(validation.images[-1], rendered[-1].image)
