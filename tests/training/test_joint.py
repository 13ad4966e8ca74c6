"""The joint experiment: nobody is tested on what was learned from, arms differ where they say, rows are complete."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micro_lib.analysis.metrics import mean_iou, stacked
from micro_lib.core.profiles import PROFILES, settings
from micro_lib.core.runs import read_table
from micro_lib.data.packs import Pack, pack
from micro_lib.data.records import Record
from micro_lib.data.tiles import Cut, Labelled, Tiles, histogram
from micro_lib.models.joint_generator import GeneratorCard
from micro_lib.training import joint
from micro_lib.training.joint import (
    RECIPES,
    UNETS,
    Setting,
    budget,
    complete,
    n_folds,
    roles,
    schedules,
    union,
)
from micro_lib.training.shared import run_folder
from micro_lib.training.supervised import TrainingDiverged

PACKS = {name: pack(name, "generated") for name in joint.PACKS}
REAL_UHCS = ("sample14", "sample16", "sample23", "sample25", "sample29", "sample33", "sample4", "sample40", "sample47")
REAL_EBC = ("010417#4", "032919#10", "032919#6", "040617#2", "040617#3", "050317#3", "070516#1", "S879")
PLAN = {**settings("joint", "smoke"), "px": 64, "n_judged": 6, "n_copies": 2}


def groups_of(part):
    return {record.group for record in part}


def named(name, groups):
    """A pack of nothing but names."""
    blank = np.zeros((4, 4), np.uint8)
    domain = {"050317#3": "target_050317"}
    records = tuple(Record(f"{g}_{i}", blank, blank, g, None, domain=domain.get(g, "")) for g in groups for i in (0, 1))
    return Pack(name, records, "", False, PACKS[name].class_map)


# Roles


@pytest.mark.parametrize("source", [*PACKS.values(), named("uhcs", REAL_UHCS), named("nasa_ebc", REAL_EBC)])
def test_no_specimen_is_on_both_sides(source):
    for fold in range(n_folds(source)):
        parts = roles(source, fold)
        assert parts.training and parts.test
        assert not groups_of(parts.training) & groups_of(parts.test)
        assert not groups_of(parts.other) & (groups_of(parts.training) | groups_of(parts.test))
        assert sorted(r.name for part in parts for r in part) == sorted(r.name for r in source.records)


def test_superalloy_spots_take_turns_and_other_alloys_stay_apart():
    blank = np.zeros((4, 4), np.uint8)
    names = ["me3_15kx_3kv_2", "spot1", "spot2", "spot4", "spot7"]
    records = tuple(Record(f"{group}_{view}", blank, blank, group, None) for group in names for view in ("0d", "180d"))
    source = Pack("nasa_superalloy", records, "", False, PACKS["nasa_superalloy"].class_map)
    assert n_folds(source) == 4
    assert [groups_of(roles(source, fold).test) for fold in range(4)] == [{name} for name in names[1:]]
    assert groups_of(roles(source, 0).training) == {"spot2", "spot4", "spot7"}
    assert all(groups_of(roles(source, fold).other) == {"me3_15kx_3kv_2"} for fold in range(4))
    assert {record.name.split("_")[-1] for record in roles(source, 2).test} == {"0d", "180d"}, "both views together"


def test_known_specimens_are_tested_on_as_committed():
    assert groups_of(roles(named("uhcs", REAL_UHCS), 0).test) == {"sample16", "sample29", "sample40"}
    coatings = roles(named("nasa_ebc", REAL_EBC), 0)
    assert groups_of(coatings.test) == {"032919#6", "040617#3", "S879"} and groups_of(coatings.other) == {"050317#3"}
    assert n_folds(named("uhcs", "abc")) == 2


@given(st.integers(0, 30), st.integers(1, 8))
def test_few_micrographs_are_the_beginning_of_more(generator, k):
    records = roles(PACKS["nasa_superalloy"], 0).training
    order = [record.name for record in budget(records, 0, generator)]
    assert [record.name for record in budget(records, k, generator)] == order[:k]
    assert sorted(order) == sorted(record.name for record in records)


def test_a_budget_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="k = 99 micrographs are asked for; the training specimens have 9"):
        budget(roles(PACKS["nasa_superalloy"], 0).training, 99, 0)


def test_seeds_share_generators_and_folds_take_turns():
    found = [Setting(complete("real 4"), PLAN, seed, PACKS["nasa_superalloy"]) for seed in range(1, 13)]
    assert [s.generator for s in found] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3] and UNETS == 3
    assert [s.fold for s in found[::3]] == [0, 1, 2, 3]
    for same in zip(found[::3], found[1::3], found[2::3], strict=True):
        assert len({tuple(r.name for r in setting.records) for setting in same}) == 1
    assert [s.unet for s in found[:3]] == [0, 1, 2] and all(s.first().seed == 1 for s in found[:3])


def test_what_is_shared_counts_for_the_pixels_learned_from():
    source = PACKS["nasa_superalloy"]
    setting = Setting(complete("real 4"), PLAN, 1, source)

    def key(changed):
        records = [r._replace(mask=1 - r.mask // 2) if r.name == changed.name else r for r in source.records]
        return Setting(complete("real 4"), PLAN, 1, replace(source, records=tuple(records))).key("generator")

    assert key(setting.records[-1]) != setting.key("generator") == key(setting.roles.test[0])
    elsewhere = Setting(complete("real 4"), PLAN, 1, source)
    elsewhere.device = "another"
    assert elsewhere.key("generator") != setting.key("generator"), "a row says where its weights were made"


# Configurations and profiles


def test_configurations_are_complete_and_apart():
    full = {name: complete(name) for name in joint.CONFIGURATIONS}
    assert all(set(configuration) == set(joint.DEFAULTS) for configuration in full.values())
    assert len({tuple(configuration.items()) for configuration in full.values()}) == len(full)
    assert len({run_folder("joint", c, joint.DEFAULTS, 1, "smoke") for c in full.values()}) == len(full)
    assert all((c["recipe"] == "") == (c["ratio"] == 0) for c in full.values())
    superalloy = {(c["k"], c["ratio"]) for c in full.values() if c["pack"] == "nasa_superalloy"}
    assert superalloy == {(k, ratio) for k in (1, 4, 0) for ratio in (0.0, 0.5, 4.0)}
    assert all({name: complete(name) for name in full if name.startswith(p)} for p in ("uhcs", "nasa_ebc"))


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ("fine", "no configuration 'fine'; there are real 1"),
        ({"tiles": 8}, r"unknown keys \['tiles'\]"),
        ({"pack": "iron"}, "pack is 'iron'; there are nasa_superalloy"),
        ({"recipe": "cheap", "ratio": 1.0}, "recipe is 'cheap'; there are plain, fine"),
        ({"ratio": -1.0}, "ratio is -1.0; a number, 0 or larger"),
        ({"ratio": "4"}, "ratio is '4'; a number"),
        ({"k": 2.5}, "k is 2.5; a whole number, 0 or larger"),
        ({"k": "all"}, "k is 'all'; a whole number"),
        ({"k": 99}, "k = 99 micrographs are asked for"),
    ],
)
def test_wrong_configurations_are_refused(configuration, message):
    with pytest.raises(ValueError, match=message):
        joint.run(
            {"data": "generated", **configuration} if isinstance(configuration, dict) else configuration, 1, "smoke"
        )


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_have_the_same_keys_and_train_in_whole_epochs(profile):
    plan = settings("joint", profile)
    assert set(plan) == set(settings("joint", "paper"))
    assert len(set(plan["seeds"])) == len(plan["seeds"]) >= 1 and plan["px"] % 32 == 0
    for recipe in RECIPES.values():
        made = schedules(plan, recipe)
        assert set(made) == {"vqvae", "prior"} and min(min(schedule) for schedule in made.values()) > 0
        assert profile == "smoke" or all(schedule.steps == 50 * schedule.rounds for schedule in made.values())
    assert len(settings("joint", "study")["seeds"]) == 4 * UNETS


def test_recipes_differ_from_the_plain_one():
    plain, fine = RECIPES["plain"], RECIPES["fine"]
    assert fine.down == 4 and fine.texture and not plain.texture and plain.drawn == 1
    study = settings("joint", "study")
    assert schedules(study, fine)["vqvae"].steps < schedules(study, plain)["vqvae"].steps
    assert RECIPES["wide"] == plain._replace(side=2) and RECIPES["weighted"] == plain._replace(weighted=True)
    assert RECIPES["balanced"].conditional and RECIPES["filtered"].drawn > 1
    pairs = zip(schedules(study, RECIPES["long"]).values(), schedules(study, plain).values(), strict=True)
    assert all(long == usual._replace(steps=4 * usual.steps, rounds=4 * usual.rounds) for long, usual in pairs)


# What tiles are drawn from


@given(st.integers(1, 4), st.sampled_from([0.5, 1.0, 4.0]))
def test_tiles_are_drawn_in_proportion_to_area(k, ratio):
    blank = np.zeros((64, 96), np.uint8)
    pairs = [Labelled(blank[:32, :32] + i, blank[:32, :32]) for i in range(round(ratio * k * 6))]
    real = [Labelled(blank + i, blank) for i in range(k)]
    tiles, share = union(real, pairs, 600)
    assert len(tiles) == 600 and share == pytest.approx(ratio / (1 + ratio), abs=0.01)
    assert sum(isinstance(tile, Cut) for tile in tiles) == round(share * 600)
    counts = pd.Series([int(tile.image[0, 0]) for tile in tiles if isinstance(tile, Labelled)]).value_counts()
    assert len(counts) == k and counts.max() - counts.min() <= 1


def test_without_pairs_all_tiles_are_real():
    blank = np.zeros((8, 8), np.uint8)
    tiles, share = union([Labelled(blank, blank)], [], 5)
    assert len(tiles) == 5 and share == 0


def test_pairs_are_standardised_together():
    dark, bright = (np.full((64, 64), value, np.uint8) for value in (100, 140))
    levels = histogram([dark, bright])
    tiles = Tiles([Cut(dark, dark * 0, levels), Cut(bright, bright * 0, levels)], 32, seed=1)
    means = [np.mean([float(tiles[epoch, i][0].mean()) for epoch in range(8)]) for i in range(2)]
    assert means[0] == pytest.approx(-1, abs=0.4) and means[1] == pytest.approx(1, abs=0.4)


# Whole runs


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Arms of one seed on stand-ins, with what they share in one folder, and how often it was made."""
    folder, made, given = tmp_path_factory.mktemp("joint"), [], {"generator": [], "U-Net": []}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MICRO_OUT", str(folder / "build"))
        patch.setattr(joint, "settings", lambda *_: PLAN)
        train_unet = joint.train_unet
        patch.setattr(joint, "train_unet", lambda *a: made.append("train_unet") or train_unet(*a))
        train = joint.generative.train

        def trained(network, micrographs, *rest, **options):
            made.append("train")
            given["generator"].append(micrographs)
            return train(network, micrographs, *rest, **options)

        def united(micrographs, pairs, n):
            given["U-Net"].append(micrographs)
            return union(micrographs, pairs, n)

        patch.setattr(joint.generative, "train", trained)
        patch.setattr(joint, "union", united)
        rows = {}
        for name in ("real 4", "plain 4 x0.5", "plain 4 x4", "filtered 4 x0.5", "balanced 4 x0.5", "wide 4 x0.5"):
            rows[name] = joint.run({**joint.CONFIGURATIONS[name], "data": "generated"}, 1, "smoke", folder / name)
    return SimpleNamespace(rows=rows, folder=folder, made=made, given=given)


def test_generators_and_u_nets_are_given_the_micrographs_of_their_budget_and_no_others(ran):
    setting = Setting(complete({"k": 4, "data": "generated"}), PLAN, 1, PACKS["nasa_superalloy"])
    wanted = [micrograph.image for micrograph in setting.micrographs]
    assert not any(np.array_equal(image, record.image) for image in wanted for record in setting.roles.test)
    assert len(ran.given["generator"]) == 2 and len(ran.given["U-Net"]) == 6
    for micrographs in (*ran.given["generator"], *ran.given["U-Net"]):
        assert len(micrographs) == 4
        assert all(np.array_equal(m.image, image) for m, image in zip(micrographs, wanted, strict=True))


def test_a_row_is_flat_and_complete(ran):
    for name, row in ran.rows.items():
        assert all(isinstance(value, str | int | float | bool) for value in row.values()), name
        assert row["test_specimens"] == "generated spot1" and row["fold"] == 0 and row["n_micrographs"] == 4
        assert row["generated"] is True and row["steps"] == PLAN["unet_steps"]
        for split in ("test", "other"):
            for measure in (
                "miou_pooled",
                "miou_per_image",
                "present_class_miou_pooled",
                "present_class_miou_per_image",
            ):
                assert 0 <= row[f"{split}_{measure}"] <= 1
    assert ran.rows["real 4"]["n_pairs"] == 0 and "pairs_consistency" not in ran.rows["real 4"]
    pairs = [row for name, row in ran.rows.items() if name != "real 4"]
    assert len({frozenset(row) for row in pairs}) == 1
    assert all(0 <= row["pairs_consistency"] <= 1 for row in pairs)


def test_arms_get_as_many_pairs_as_they_say(ran):
    # 4 micrographs of 256 px are 64 crops of 64 px
    assert ran.rows["plain 4 x0.5"]["n_pairs"] == 32 and ran.rows["plain 4 x4"]["n_pairs"] == 256
    assert ran.rows["wide 4 x0.5"]["n_pairs"] == 8, "four times the area each"
    assert ran.rows["plain 4 x4"]["sampled_share"] == pytest.approx(0.8, abs=0.1)
    assert ran.rows["plain 4 x0.5"]["pairs_consistency"] == ran.rows["plain 4 x4"]["pairs_consistency"]


def test_what_arms_share_is_made_once(ran):
    # One generator for plain, filtered and wide, one for balanced; pairs of four recipes; U-Nets: one an arm.
    assert ran.made.count("train") == 2 and ran.made.count("train_unet") == 6
    left = [path.suffix for path in (ran.folder / "build" / "joint" / "shared").iterdir()]
    assert left.count(".safetensors") == 2 + 4 + 1 and ".pt" not in left


def test_sampling_is_timed_without_the_training_of_its_generator(monkeypatch):
    clock = itertools.count().__next__
    monkeypatch.setattr("time.perf_counter", clock)
    blank = Labelled(np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8))

    def trained(_setting):
        for _ in range(100):  # as if for long
            clock()
        return SimpleNamespace(sample=lambda n, seed, shape_px: clock() and [blank] * n), None

    monkeypatch.setattr(joint, "generator", trained)
    monkeypatch.setattr(joint, "_kept", lambda _setting, drawn, n: (drawn[:n], 1.0))
    setting = Setting(complete("plain 4 x0.5"), PLAN, 1, PACKS["nasa_superalloy"])
    assert joint.sampled(setting).facts["sample_seconds"] == 2


def test_what_pairs_cost_is_told_by_wall_and_by_processor(ran):
    for name, row in ran.rows.items():
        stages = ("train",) if name == "real 4" else ("train", "vq", "prior", "sample")
        assert all(row[f"{stage}_{time}"] > 0 for stage in stages for time in ("seconds", "process_seconds")), name
    plain, filtered = (ran.rows[f"{recipe} 4 x0.5"] for recipe in ("plain", "filtered"))
    judge = ran.rows["real 4"]  # the same U-Net
    assert plain["judge_seconds"] == plain["judge_process_seconds"] == 0
    assert filtered["judge_seconds"] == judge["train_seconds"]
    assert filtered["judge_process_seconds"] == judge["train_process_seconds"]
    assert plain["generator_trained_at"] == filtered["generator_trained_at"] and len(plain["generator_trained_at"]) > 6


def test_a_generator_is_measured_by_all_its_pairs_beside_what_it_has_not_seen(ran, monkeypatch):
    monkeypatch.setenv("MICRO_OUT", str(ran.folder / "build"))
    monkeypatch.setattr(joint, "settings", lambda *_: PLAN)
    few, many = (joint.quality(joint.CONFIGURATIONS[f"plain 4 x{n}"] | {"data": "generated"}, 1) for n in ("0.5", "4"))
    assert pd.Series(few).equals(pd.Series(many)), "the ratio decides how many pairs a U-Net sees"
    found = few
    assert all(isinstance(value, str | int | float | bool) for value in found.values())
    assert (found["n_generated"], found["n_unseen"], found["n_seen"]) == (2, 2, 2)
    assert (found["pairs_compared"], found["unseen_compared"]) == (6, 6)
    assert {"pairs_fraction_0", "unseen_fraction_0", "pairs_auc_both", "quarter_copies", "kept_0"} <= set(found)
    assert 0 < found["nats_seen"] < 2 * np.log(PLAN["n_codes"])
    assert 1 <= found["vq_perplexity"] <= found["vq_usage"] * 512 + 1e-6
    assert 0 <= found["closer"] <= 1 and found["seen_median"] < np.sqrt(2) and found["generated"]
    assert found["pairs_consistency"] == ran.rows["plain 4 x4"]["pairs_consistency"]
    assert len(found["trained_at"]) >= 7 and found["test_specimens"] == ran.rows["plain 4 x4"]["test_specimens"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_decides_what_its_generator_is_and_how_it_is_trained(name, tmp_path, monkeypatch):
    class Told(Exception):
        pass

    def told(network, micrographs, schedules, **options):
        raise Told(network.card, schedules, options)

    monkeypatch.setenv("MICRO_OUT", str(tmp_path))
    monkeypatch.setattr(joint.generative, "train", told)
    setting = Setting(complete({"k": 4, "ratio": 4, "recipe": name}), PLAN, 1, PACKS["nasa_superalloy"])
    with pytest.raises(Told) as raised:
        joint.generator(setting)
    (card, schedules, options), recipe = raised.value.args, RECIPES[name]
    assert (options["texture"], options["weighted"]) == (name == "fine", name == "weighted")
    assert card.prior["n_conditions"] == (3 if name == "balanced" else 0)
    assert (card.vqvae["down"], card.vqvae["hidden"]) == ((4, 8) if name == "fine" else (8, 16))
    assert schedules == joint.schedules(PLAN, recipe)


def test_filtering_keeps_what_the_segmenter_agrees_with(monkeypatch):
    right, wrong, half = np.diag([8, 8]), np.array([[0, 8], [8, 0]]), np.array([[4, 4], [4, 4]])
    planted = np.stack([half, right, wrong, right * 2, half, wrong])
    pairs = [Labelled(np.full((2, 2), i, np.uint8), np.zeros((2, 2), np.uint8)) for i in range(6)]
    monkeypatch.setattr(joint, "real_segmenter", lambda _setting: ("judge", {}))
    monkeypatch.setattr(joint, "agreement", lambda given, judge: planted if judge == "judge" else None)
    kept, consistent = joint._kept(None, pairs, 3)
    assert [int(pair.image[0, 0]) for pair in kept] == [0, 1, 3], "the best, of equal ones the first, in their order"
    assert consistent == pytest.approx(28 / 36)  # either class: 4 + 8 + 16 of 28 right, and 4 + 4 confused


def test_filtered_pairs_are_others_than_plain_ones(ran):
    assert ran.rows["filtered 4 x0.5"]["pairs_consistency"] > ran.rows["plain 4 x0.5"]["pairs_consistency"]


def test_a_u_net_that_diverges_stops_with_words(monkeypatch):
    plan = {**PLAN, "unet_rate": float("inf"), "unet_steps": 6}
    setting = Setting(complete("real 4"), plan, 1, PACKS["nasa_superalloy"])
    with pytest.raises(TrainingDiverged, match=r"the loss became (nan|inf) in the U-Net; lower unet_rate, now inf"):
        joint.train_unet(setting, [])


def test_images_are_scored_one_by_one(ran):
    images = read_table(ran.folder / "plain 4 x0.5" / "images.csv")
    assert images["split"].tolist() == ["test"] * 3 + ["other"] and not images["group"].isna().any()
    cms = stacked(images, "n")
    assert cms.shape == (4, 3, 3) and (cms.sum((1, 2)) == 256**2).all()
    np.testing.assert_allclose(images["miou"], mean_iou(cms))
    row = ran.rows["plain 4 x0.5"]
    assert row["test_miou_pooled"] == pytest.approx(float(mean_iou(cms[:3].sum(0))))


def test_the_card_says_what_a_generator_learned_from():
    configuration = complete({"ratio": 4.0, "recipe": "fine", "data": "generated"})
    setting = Setting(configuration, PLAN, 4, PACKS["nasa_superalloy"])
    card = joint._card(setting)
    assert card == GeneratorCard.of(card.plain()) and card.vqvae["down"] == 4
    assert card.training["micrographs"] == [record.name for record in setting.records]
    assert not {name for name in card.training["micrographs"] if "spot2" in name}, "fold 1 leaves out its spot"
