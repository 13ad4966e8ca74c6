"""The experiment: rows are complete and add up, references are shared, and target labels stay unseen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.killing import Killed, killed_in_call
from helpers.two_levels import Tiny, micrographs, same
from torch import nn
from torchvision import tv_tensors

from micro_lib.analysis.metrics import stacked
from micro_lib.core.labels import ClassMap
from micro_lib.core.profiles import settings
from micro_lib.core.runs import build_dir, read_table
from micro_lib.data.framing import Framing
from micro_lib.data.records import Record
from micro_lib.data.shifts import SHIFTS, TRANSDUCTIVE, Shift
from micro_lib.data.tiles import MODES, Labelled
from micro_lib.models import carded
from micro_lib.models.carded import CardError
from micro_lib.training import adaptation, adaptation_loop
from micro_lib.training.adaptation import (
    ARMS,
    CONFIGURATIONS,
    Segmentation,
    Setting,
    alike,
    bagged,
    complete,
    cut,
    fractions,
    load,
    pooled_miou,
    predict,
    run,
)
from micro_lib.training.adaptation_loop import CHECKPOINT, Draws, Recipe
from micro_lib.training.adaptation_methods import METHODS
from micro_lib.training.shared import Made

PLAN = {"tile": (32, 4), "source_steps": 6, "steps": 6, "batch": 2, "points": 2, "watched": 1, "learning_rate": 1e-2}
BUILD = adaptation.build
DARK_BRIGHT = ClassMap("dark and bright", ("dark", "bright"), {0: 0, 255: 1}, ("#56b4e9", "#d55e00"))


def records(domain, n, contrast, seed):
    made = micrographs(n, contrast, seed)
    return tuple(Record(f"{domain} {i}", *sample, f"{domain} {i}", None) for i, sample in enumerate(made))


def made_up(**changes):
    parts = [records("source", 3, 60, 0), records("source test", 2, 60, 1)]
    parts += [records("target", 3, 25, 2), records("target test", 2, 25, 3)]
    return replace(Shift(DARK_BRIGHT, *parts, "credit", is_generated=True), **changes)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A made-up shift, a tiny network, a handful of steps."""
    plans = {name: {**settings("adaptation", name), **PLAN} for name in ("smoke",)}
    monkeypatch.setattr(adaptation, "settings", lambda _experiment, profile: plans[profile])
    monkeypatch.setattr(adaptation, "build", lambda _architecture, n_classes, _weights="": Tiny(n_classes))
    monkeypatch.setattr(adaptation, "shift", lambda *_: made_up())


# Configurations


def test_configurations_cover_arms_and_shifts():
    assert {configuration["shift"] for configuration in CONFIGURATIONS.values()} == set(SHIFTS)
    assert {complete(name)["method"] for name in CONFIGURATIONS} == set(METHODS)
    assert f"{next(iter(ARMS))}, T2" in CONFIGURATIONS
    assert "oracle, 316L to iron" not in CONFIGURATIONS and "FDA, 316L to iron" in CONFIGURATIONS
    assert complete({})["method"] == "none" and complete("oracle, T3")["labels"] == "oracle"


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ("oracle, T9", "no configuration 'oracle, T9'"),
        ({"methd": "FDA"}, r"unknown keys \['methd'\]"),
        ({"method": "DANN"}, "method is 'DANN'; there are none, AdaBN, AdaptSegNet"),
        ({"labels": "3"}, "labels is '3'; there are none, 1, 2, oracle"),
        ({"architecture": "dynamic_resnet18"}, "architecture is 'dynamic_resnet18'"),
        ({"shift": "316L to iron", "labels": "oracle"}, "no target micrographs but those tested"),
        ({"labels": "oracle", "method": "FDA"}, "target labels are trained on by method 'none' alone, not by 'FDA'"),
        ({"labels": "2", "method": "AdaptSegNet"}, "by method 'none' alone, not by 'AdaptSegNet'"),
        ({"labels": "oracle", "alignment": "true"}, "alignment chooses unlabelled target tiles"),
        ({"alignment": "pseudo"}, "alignment chooses unlabelled target tiles"),
        ({"augmentation": "heavy"}, "augmentation is 'heavy'; there are extended, crop, none"),
        ({"weights": "imagnet"}, "weights is 'imagnet'; there are imagenet, random, or the path of a .safetensors"),
    ],
)
def test_wrong_configurations_are_refused(configuration, message):
    with pytest.raises(ValueError, match=message):
        complete(configuration)


def test_sources_of_another_augmentation_are_other_networks():
    plain, light = (Setting(complete({"method": "FDA", **more}), 1, "smoke") for more in ({}, {"augmentation": "crop"}))
    assert (plain.recipe("none").augmentation, light.recipe("FDA").augmentation) == ("extended", "crop")
    assert plain.reference_key() != light.reference_key()


@pytest.mark.parametrize("name", ["0d to 180d", "coating", "316L to iron", "T2"])  # those with stand-ins of all
def test_shifts_without_target_micrographs_to_train_on_are_known(name):
    make, _ = SHIFTS[name]
    made = make(0, settings("adaptation", "smoke"), "generated", "smoke")
    assert made.is_transductive == (name in TRANSDUCTIVE)


@pytest.mark.parametrize("seed", [0, -1, 1.5, "1"])
def test_a_seed_without_a_fold_is_refused(seed):
    with pytest.raises(ValueError, match=r"seed is .*; a whole number, 1 or larger"):
        run({}, seed, "smoke")


# Runs


def test_a_row_is_flat_whole_and_adds_up(tmp_path):
    row = run({"method": "AdaptSegNet", "shift": "T2"}, 1, "smoke", tmp_path)
    assert all(isinstance(value, (str, int, float, bool)) for value in row.values())
    assert not any(isinstance(value, np.generic) for value in row.values())
    assert (row["n_source"], row["n_labelled"], row["n_target"], row["steps"]) == (3, 0, 3, 6)
    assert row["rdt"] == pytest.approx((row["target_miou"] - row["reference_miou"]) / row["reference_miou"])
    assert row["target_true_dark"] + row["target_true_bright"] == pytest.approx(1)
    assert row["target_found_dark"] + row["target_found_bright"] == pytest.approx(1)
    assert not row["uses_target_labels"] and row["generated"] and row["trouble"] == ""

    images = read_table(tmp_path / "images.csv")
    assert images["split"].tolist() == ["source", "source", "target", "target"] and images["name"].is_unique
    target = images[images["split"] == "target"]
    assert stacked(target, "confusion").sum() == 2 * 64 * 64
    assert pooled_miou(target) == pytest.approx(row["target_miou"])
    truth = np.mean([r.mask.mean() for r in made_up().target_test])
    assert row["target_true_bright"] == pytest.approx(truth)
    curve = read_table(tmp_path / "curve.csv")
    assert curve["step"].tolist() == [3, 6]
    assert {"loss", "adversarial", "source_miou", "target_miou", "target_largest", "target_entropy"} <= set(curve)


# Both domains are scored at two points of the curve, and then for the row.
@pytest.mark.parametrize(("place", "name", "number"), [(Segmentation, "scored", 5), (adaptation, "write_table", 2)])
def test_a_run_killed_behind_its_last_step_takes_none_again(place, name, number, tmp_path, monkeypatch):
    run({}, 1, "smoke", tmp_path / "reference")
    whole = run({"method": "FDA"}, 1, "smoke", tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(place, name, killed_in_call(number, getattr(place, name)))
        run({"method": "FDA"}, 1, "smoke", tmp_path / "killed")
    assert (tmp_path / "killed" / CHECKPOINT).is_file()
    monkeypatch.setattr(adaptation_loop, "learn_once", None)
    resumed = run({"method": "FDA"}, 1, "smoke", tmp_path / "killed")
    assert resumed == whole | {"train_seconds": resumed["train_seconds"], "ms_per_step": resumed["ms_per_step"]}
    assert same(*(load_tiny(tmp_path / part / adaptation.NETWORK) for part in ("whole", "killed")))
    assert not list(tmp_path.glob(f"*/{CHECKPOINT}")) and not list(build_dir().rglob(CHECKPOINT))


def test_the_reference_is_the_run_without_adaptation_and_made_once(tmp_path, monkeypatch):
    plain = run({}, 1, "smoke", tmp_path / "plain")
    assert plain["reference_miou"] == plain["source_miou"] and plain["n_target"] == 0
    fitted = []
    real = adaptation.fit
    monkeypatch.setattr(adaptation, "fit", lambda *a, **k: fitted.append(a[1]) or real(*a, **k))
    adapted = run({"method": "FDA"}, 1, "smoke", tmp_path / "adapted")
    assert fitted == ["FDA"] and adapted["reference_miou"] == plain["source_miou"]
    fitted.clear()
    monkeypatch.setattr(adaptation, "shift", lambda *_: made_up(target=records("another", 2, 10, 9)))
    other = run({"method": "FDA", "shift": "T3"}, 1, "smoke", tmp_path / "other")
    assert fitted == ["FDA"] and other["reference_miou"] == plain["source_miou"]
    network = Setting(complete({}), 1, "smoke").reference_network()
    assert same(network, load_tiny(tmp_path / "plain" / adaptation.NETWORK))
    fitted.clear()
    alone = run({"method": "FDA"}, 2, "smoke", tmp_path / "alone")  # nobody ran the plain arm of this seed
    assert fitted == ["FDA", "none"]
    assert run({}, 2, "smoke", tmp_path / "late")["source_miou"] == alone["reference_miou"]


def test_a_reference_counts_for_the_pixels_of_its_source(monkeypatch):
    def reference(number):
        made = Made({"w": torch.zeros(1)}, {"number": number})
        return Setting(complete({}), 1, "smoke").reference(lambda: made).facts["number"]

    def redrawn(part):
        changed = part[-1]._replace(mask=1 - part[-1].mask)
        return (*part[:-1], changed)

    first, shift = reference(1), made_up()
    assert first == reference(2) == 1
    for number, name in enumerate(("source", "source_test", "target"), 3):
        changes = {name: redrawn(getattr(shift, name))}
        monkeypatch.setattr(adaptation, "shift", lambda *_, changes=changes: made_up(**changes))
        assert reference(number) == (1 if name == "target" else number)


def test_a_reference_counts_for_the_values_of_its_weights_not_for_their_name(tmp_path, monkeypatch):
    path = tmp_path / "encoder.safetensors"

    def build(_architecture, n_classes, weights=""):
        network = Tiny(n_classes)
        network.encoder[0].bias.data.fill_(float(path.read_text()) if weights == str(path) else 0.5)
        return network

    def reference(number):
        made = Made({"w": torch.zeros(1)}, {"number": number})
        return Setting(complete({"weights": str(path)}), 1, "smoke").reference(lambda: made).facts["number"]

    monkeypatch.setattr(adaptation, "build", build)
    path.write_text("1")
    assert reference(1) == reference(2) == 1
    path.write_text("2")
    assert reference(3) == 3


def load_tiny(path):
    network, card = load(path)
    assert card["classes"] == ["dark", "bright"] and card["tile_px"] == 32 and card["architecture"] == "lite0"
    return network


def test_what_a_run_leaves_predicts_what_it_scored(tmp_path):
    row = run({}, 2, "smoke", tmp_path)
    network = load_tiny(tmp_path / adaptation.NETWORK)
    images = Setting(complete({}), 2, "smoke").score([network], "target")
    assert pooled_miou(images) == row["target_miou"] and row["fold"] == 1
    carded.write(tmp_path / "other.safetensors", {}, {"a": torch.zeros(1)})
    with pytest.raises(CardError, match=r"other.safetensors does not make an adapted network"):
        load(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    "arm", [*({"method": method} for method in METHODS if method != "none"), {"method": "FDA", "alignment": "pseudo"}]
)
def test_no_target_label_is_touched(arm, tmp_path, monkeypatch):
    run(arm, 1, "smoke", tmp_path / "true")
    spoilt = tuple(r._replace(mask=np.ascontiguousarray(1 - r.mask)) for r in made_up().target)
    hidden = tuple(r._replace(mask=1 - r.mask) for r in made_up().target_test)
    monkeypatch.setattr(adaptation, "shift", lambda *_: made_up(target=spoilt, target_test=hidden))
    row = run(arm, 1, "smoke", tmp_path / "spoilt")
    paths = [tmp_path / part / adaptation.NETWORK for part in ("true", "spoilt")]
    assert same(load_tiny(paths[0]), load_tiny(paths[1])) and not row["uses_target_labels"]


def test_arms_with_target_labels_say_so_and_use_so_many(tmp_path):
    one = run({"labels": "1"}, 1, "smoke", tmp_path / "one")
    oracle = run({"labels": "oracle"}, 1, "smoke", tmp_path / "oracle")
    assert (one["n_source"], one["n_labelled"], one["n_target"]) == (3, 1, 0)
    assert (oracle["n_source"], oracle["n_labelled"], oracle["n_target"]) == (0, 3, 0)
    assert one["uses_target_labels"] and oracle["uses_target_labels"]
    first, second = (Setting(complete({"labels": n}), 1, "smoke").material().labelled for n in ("1", "2"))
    np.testing.assert_array_equal(first[0].image, second[0].image)  # two labels hold the one


def test_more_labels_than_there_are_are_refused(monkeypatch):
    monkeypatch.setattr(adaptation, "shift", lambda *_: made_up(target=records("target", 1, 25, 2)))
    with pytest.raises(ValueError, match="2 labelled target micrographs wanted; the fold has 1"):
        Setting(complete({"labels": "2"}), 1, "smoke").material()


def test_folds_follow_the_seed():
    folds = [Setting(complete({"shift": "0d to 180d"}), seed, "smoke").fold for seed in (1, 2, 3, 4, 5)]
    assert folds == [0, 1, 2, 3, 0]


def test_the_published_grid_cuts_tiles(monkeypatch):
    setting = Setting(complete({"method": "FDA"}), 1, "smoke")
    setting.plan["tiling"] = "grid"
    material = setting.material()
    assert len(material.source) == len(material.target) == 3 * 4  # 64 px in tiles of 32
    assert material.source[0].image.shape == (80, 80)  # 40, and as much again to look beyond
    assert (material.source[0].histogram == np.bincount(made_up().source[0].image.ravel(), minlength=256)).all()


def test_bagging_averages_probabilities(tmp_path, monkeypatch):
    for seed in (1, 2):
        run({}, seed, "smoke", tmp_path / str(seed))
    paths = [tmp_path / str(seed) / adaptation.NETWORK for seed in (1, 2)]
    found = bagged(paths, {}, 1, "smoke")
    setting, networks = Setting(complete({}), 1, "smoke"), [load(path)[0] for path in paths]
    image = made_up().target_test[0]
    mean = sum(setting.predict([network], image.image, 1.0) for network in networks) / 2
    assert int((mean.argmax(-1) == image.mask).sum()) == int(np.trace(stacked(found, "confusion")[0]))
    with pytest.raises(ValueError, match="folds of 'coating' take turns"):
        bagged(paths, {"shift": "coating"}, 1, "smoke")


# Alignment


def test_alignment_by_hand():
    shares = np.array([[0.9, 0.1], [0.5, 0.5], [0.4, 0.6], [0.6, 0.4], [0.5, 0.5]])
    assert alike(shares, np.array([0.5, 0.5])) == [1, 2, 3, 4]
    assert alike(shares[1:], np.array([0.5, 0.5])) == [0, 1, 2, 3]
    assert len(alike(np.tile([1.0, 0.0], (10, 1)), np.array([0.0, 1.0]))) == 10, "nothing helps, nothing is lost"


@pytest.mark.parametrize("seed", range(5))
def test_alignment_never_makes_it_worse_and_keeps_most(seed):
    rng = np.random.default_rng(seed)
    shares, wanted = rng.dirichlet([1, 1, 1], 20), rng.dirichlet([1, 1, 1])
    kept = alike(shares, wanted)
    assert np.abs(shares[kept].mean(0) - wanted).sum() <= np.abs(shares.mean(0) - wanted).sum()
    assert len(kept) >= 12 and kept == sorted(set(kept))


def test_aligned_runs_say_what_they_used(tmp_path):
    pseudo = run({"method": "AdaptSegNet", "alignment": "pseudo"}, 1, "smoke", tmp_path / "pseudo")
    truth = run({"method": "AdaptSegNet", "alignment": "true"}, 1, "smoke", tmp_path / "true")
    assert not pseudo["uses_target_labels"] and truth["uses_target_labels"]
    assert 7 <= pseudo["n_target"] <= 12 and 7 <= truth["n_target"] <= 12  # of four tiles of three micrographs
    setting = Setting(complete({"method": "AdaptSegNet", "alignment": "true"}), 1, "smoke")
    wanted = fractions([r.mask for r in made_up().source], 2)
    before = fractions([r.mask for r in made_up().target], 2)
    kept = setting.material().target
    assert len(kept) == truth["n_target"] and kept[0].image.shape == (80, 80), "cut as tiles of the source are"
    centres = [tile.mask[24:56, 24:56] for tile in kept]
    assert abs(fractions(centres, 2) - wanted).sum() <= abs(before - wanted).sum()


def test_what_the_source_model_says_aligns_in_place_of_the_truth(monkeypatch):
    said = []

    def predict(self, networks, image, scale):
        said.append(image)
        return np.stack([image < 100, image >= 100], -1).astype(np.float32)

    monkeypatch.setattr(adaptation.Setting, "predict", predict)
    monkeypatch.setattr(adaptation.Setting, "reference_network", lambda self: nn.Identity())
    setting = Setting(complete({"method": "FDA", "alignment": "pseudo"}), 1, "smoke")
    kept = setting.material().target
    assert len(said) == len(made_up().target)
    shares = [fractions([(tile.image[24:56, 24:56] >= 100).astype(int)], 2) for tile in _tiles(setting)]
    expected = alike(np.array(shares), fractions([r.mask for r in made_up().source], 2))
    np.testing.assert_array_equal([tile.image for tile in kept], [_tiles(setting)[i].image for i in expected])


def _tiles(setting):
    return [tile for record in made_up().target for tile in cut(Labelled(*record[1:3]), setting.framing, "extended")]


# Prediction


@pytest.mark.parametrize("shape", [(64, 64), (50, 37), (20, 90)])
def test_predictions_are_whole_and_without_seams(shape):
    torch.manual_seed(0)
    network = Tiny().eval()
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    found = predict([network], image, Framing(1.0, 24, 8))
    assert found.shape == (*shape, 2) and np.allclose(found.sum(-1), 1, atol=1e-5)
    pixels = (image - image.mean()) / image.std()
    around = [(8, 8 + -size % 24) for size in shape]
    padded = torch.from_numpy(np.pad(pixels, around, mode="symmetric")).float()[None, None]
    with torch.no_grad():
        whole = network(padded)[0].softmax(0).permute(1, 2, 0)[8 : 8 + shape[0], 8 : 8 + shape[1]]
    np.testing.assert_allclose(found, whole.numpy(), atol=1e-5)


def test_predictions_at_another_scale_have_the_size_of_the_image():
    found = predict([Tiny().eval()], micrographs(1, px=61)[0].image, Framing(0.5, 24, 8))
    assert found.shape == (61, 61, 2) and np.allclose(found.sum(-1), 1, atol=1e-5)


def test_fractions_and_tiles_by_hand():
    masks = [np.array([[0, 1], [1, 1]]), np.array([[2, 2]])]
    np.testing.assert_allclose(fractions(masks, 4), [1 / 6, 3 / 6, 2 / 6, 0])
    tiles = cut(micrographs(1)[0], Framing(1.0, 32, 0), "none")
    assert len(tiles) == 4 and sum(int(tile.mask.sum()) for tile in tiles) == int(micrographs(1)[0].mask.sum())


def test_tiles_have_more_around_them_where_the_augmentation_looks_beyond():
    framing, sample = Framing(1.0, 24, 4), micrographs(1, px=96)[0]
    plain, wide = (cut(sample, framing, mode) for mode in ("basic", "extended"))
    assert len(plain) == len(wide) == 16 and wide[5].mask.shape == (64, 64)
    np.testing.assert_array_equal(wide[5].image[16:-16, 16:-16], plain[5].image)


@pytest.mark.parametrize("tiling", ["windows", "tiles"])
def test_extended_tiles_are_as_often_smaller_as_larger(tiling):
    side, px = 48, 192
    ramp = np.broadcast_to(np.arange(px, dtype=np.uint8), (px, px)).copy()  # one level a pixel
    samples = [Labelled(ramp, np.zeros_like(ramp))]
    framing = Framing(1.0, side - 8, 4)
    samples = cut(samples[0], framing, "extended")[12:13] if tiling == "tiles" else samples
    draws = Draws(samples, [], [], Recipe("none", 2, 40, 1, framing, 1e-3, 1, augmentation="extended"))
    regions = [draws.pools[0].micrographs[n] for n in range(40)]
    if tiling == "tiles":
        assert all(region.mask.shape == (2 * side, 2 * side) for region in regions)
    geometry, steps = MODES["extended"][0](side), []
    torch.manual_seed(0)
    for region in regions:
        shown = geometry(tv_tensors.Image(torch.from_numpy(region.image)[None].float()))[0]
        down, across = torch.gradient(shown[8:-8, 8:-8])
        steps.append(float(torch.hypot(down, across).median()))
    assert 0.85 < np.median(steps) < 1.1  # a step of a level a pixel: not enlarged


def test_real_networks_are_built():
    with torch.device("meta"):
        for architecture in adaptation.ARCHITECTURES:
            levels = BUILD(architecture, 3, "random").levels(torch.empty(1, 1, 64, 64))
            assert levels.main.shape == levels.auxiliary.shape == (1, 3, 64, 64)
        assert len(BUILD("deeplabv2", 2, "random").main) == 4
        assert len(BUILD("deeplabv2 of two rates", 2, "random").main) == 2
    with pytest.raises(ValueError, match="architecture is 'unet'"):
        BUILD("unet", 2)
