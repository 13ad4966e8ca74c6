"""Shifts: nobody is tested on what was trained on, in either domain."""

import numpy as np
import pytest

from micro_lib.core.labels import GRAIN_BOUNDARY, ClassMap
from micro_lib.core.profiles import PROFILES, settings
from micro_lib.data import shifts
from micro_lib.data.packs import DataUnavailable, Pack
from micro_lib.data.records import Record
from micro_lib.data.shifts import BAINITE_CREDIT, REAL, n_folds, shift
from micro_lib.synthesis import bainite

PLAN = {"pixel_size_um": 0.0554, "field_um": (5.0, 6.0), "n_images": 3}
THREE = ClassMap("three", ("a", "b", "c"), {0: 0, 1: 1, 2: 2}, ("#000000", "#111111", "#222222"))


def record(name, group, domain, dtype=np.uint8):
    mask = np.arange(16, dtype=np.uint8).reshape(4, 4) % 3
    return Record(name, np.full((4, 4), 1000 if dtype == np.uint16 else 7, dtype), mask, group, None, {}, domain)


def superalloy(n_others=3):
    spots = [f"spot{i}" for i in (1, 2, 4, 7)]
    views = [record(f"{s}_{v}_{i}", s, f"view_{v}") for s in spots for v in ("0d", "180d") for i in range(2)]
    return [*views, *(record(f"other{i}", f"other{i}", f"other{i}") for i in range(n_others))]


def coating():
    source = [record(f"s{i}", f"specimen{i // 2}", "source") for i in range(11)]
    return [*source, *(record(f"t{i}", "050317#3", "target_050317") for i in range(4))]


def packs(**changed):
    found = {
        "nasa_superalloy": superalloy(),
        "nasa_ebc": coating(),
        "sx_superalloy_1070C": [record(f"sx{i}", f"sx{i}", f"exposure{i}", np.uint16) for i in range(3)],
        "ss316l_grains": [record(f"g{i}", f"group{i // 2}", "") for i in range(12)],
        "pure_iron_serial": [record(f"section{i}", "one area", "") for i in range(5)],
    } | changed

    def pack(name, data="auto", split="all", *, profile=""):
        maps = {"ss316l_grains": GRAIN_BOUNDARY, "pure_iron_serial": GRAIN_BOUNDARY}
        return Pack(name, tuple(found[name]), "made up for tests", True, maps.get(name, THREE))

    return pack


@pytest.fixture(autouse=True)
def no_real_data(monkeypatch):
    monkeypatch.setattr(shifts, "pack", packs())


def names(records):
    return {record.name for record in records}


def groups(records):
    return {record.group for record in records}


def folds(name):
    return [shift(name, fold, PLAN) for fold in range(n_folds(name))]


@pytest.mark.parametrize("name", REAL)
def test_every_fold_is_whole_and_images_are_bytes(name):
    for made in folds(name):
        parts = (made.source, made.source_test, made.target, made.target_test)
        assert all(parts) and all(r.image.dtype == np.uint8 for part in parts for r in part)
        assert not groups(made.source) & groups(made.source_test)
        assert not names(made.target) & names(made.target_test) or made.is_transductive
        assert made.is_generated and max(r.mask.max() for part in parts for r in part) < 3
        packs = 2 if name in ("0d to other laboratory", "316L to iron") else 1
        assert made.credit.count("made up for tests") == packs, "of all that is in it"


def test_both_views_of_the_tested_spot_are_held_out():
    tested = []
    for made in folds("0d to 180d"):
        (spot,) = groups(made.target_test)
        tested.append(spot)
        assert groups(made.source_test) == {spot}
        assert spot not in groups(made.source) | groups(made.target)
        assert {r.domain for r in made.source + made.source_test} == {"view_0d"}
        assert {r.domain for r in made.target + made.target_test} == {"view_180d"}
    assert sorted(tested) == ["spot1", "spot2", "spot4", "spot7"]


def test_of_other_alloys_one_is_tested_and_the_others_adapted_to():
    made = folds("0d to other alloys")
    assert [len(fold.target) for fold in made] == [2, 2, 2]
    assert sorted(name for fold in made for name in names(fold.target_test)) == ["other0", "other1", "other2"]


def test_classes_are_merged_for_the_other_laboratory():
    made = folds("0d to other laboratory")[0]
    assert {int(r.mask.max()) for r in made.source + made.source_test} == {1}
    np.testing.assert_array_equal(made.source[0].mask, superalloy()[0].mask > 0)


def test_the_coatings_target_is_one_specimen_split_by_image():
    made = folds("coating")
    assert sorted(name for fold in made for name in names(fold.target_test)) == ["t0", "t1", "t2", "t3"]
    assert all(groups(fold.target) == groups(fold.target_test) == {"050317#3"} for fold in made)
    assert not any("050317#3" in groups(fold.source + fold.source_test) for fold in made)
    held = sorted(specimen for fold in made for specimen in groups(fold.source_test))
    assert held == [f"specimen{i}" for i in range(6)]


def test_iron_is_adapted_to_what_is_tested_and_says_so():
    made = folds("316L to iron")
    assert all(fold.is_transductive and fold.target == fold.target_test for fold in made)
    assert {fold.is_transductive for name in ("coating", "0d to 180d") for fold in folds(name)} == {False}


def test_too_few_stand_ins_are_said(monkeypatch):
    monkeypatch.setattr(shifts, "pack", packs(nasa_superalloy=superalloy(n_others=1)))
    with pytest.raises(DataUnavailable, match="fold 0 of '0d to other alloys' has no micrographs for target: too few"):
        shift("0d to other alloys", 0, PLAN)


def test_unknown_names_and_folds_are_refused():
    with pytest.raises(ValueError, match="shift is 'T9'; there are 0d to 180d"):
        shift("T9", 0, PLAN)
    with pytest.raises(ValueError, match="fold is 4; '0d to 180d' has 4, counted from 0"):
        shift("0d to 180d", 4, PLAN)


# Generated


def test_generated_sources_change_with_the_fold_and_targets_do_not():
    first, second = (shift("T2", fold, PLAN) for fold in (0, 1))
    assert not np.array_equal(first.source[0].image, second.source[0].image)
    for one, other in zip(first.target + first.target_test, second.target + second.target_test, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
    assert first.classes == ("ferrite", "lath bainite") and first.scale == 0.5 and first.is_generated
    assert first.credit == BAINITE_CREDIT
    assert [len(part) for part in (first.source, first.source_test, first.target, first.target_test)] == [3, 3, 3, 3]


def test_published_numbers_and_fractions_without_a_limit(monkeypatch):
    asked = []

    def domain(name, part, **options):
        asked.append((name, part, options["n_images"], options["lath_fraction"]))
        return real(name, part, **(options | {"n_images": 1}))

    real = bainite.domain
    monkeypatch.setattr(bainite, "domain", domain)
    shift("T2", 0, PLAN | {"n_images": 60})
    source = [("source", "train", 28, None), ("source", "test", 7, None)]
    assert asked == [*source, ("T2", "train", 12, None), ("T2", "test", 3, None)]
    asked.clear()
    shift("T3v tested at 40 %", 0, PLAN | {"n_images": 60})
    assert asked[2:] == [("T3", "train", 59, 0.27), ("T3", "test", 50, 0.4)]


def test_light_micrographs_are_brought_to_the_others():
    light, bright = (shift(name, 0, PLAN).target[0] for name in ("T3", "T3 not inverted"))
    np.testing.assert_array_equal(light.mask, bright.mask)
    np.testing.assert_array_equal(light.image, 255 - bright.image)
    other, chosen_on = (shift(name, 0, PLAN).target[0] for name in ("T2", "light development"))
    assert chosen_on.image[chosen_on.mask > 0].mean() > chosen_on.image[chosen_on.mask == 0].mean()  # inverted: bright
    for record in (light, chosen_on):
        assert np.abs(np.array(record.image.shape) - other.image.shape).max() <= 2  # rounding at the coarser pixel
        assert record.pixel_size_um == other.pixel_size_um == 0.0554


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_hold_what_shifts_and_trainings_need(profile):
    plan = settings("adaptation", profile)
    assert set(plan) == set(settings("adaptation", "paper")) and set(PLAN) <= set(plan)
    assert plan["steps"] >= plan["points"] and len(plan["weights"]) == 3


def test_paper_profile_is_the_published_one():
    paper = settings("adaptation", "paper")
    assert paper["tile"] == (512, 62) and paper["batch"] == 8 and paper["pixel_size_um"] == 0.0277
    assert paper["steps"] == 3000 * 112 // 8 and paper["source_steps"] == 550 * 112 // 8
    assert paper["weights"] == (0.1, 0.001, 0.0002) and len(paper["seeds"]) == 5
