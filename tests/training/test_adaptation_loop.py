"""The loop: batches depend on seed and step alone, a killed training goes on as if it had not been, faults are said."""

import math
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.killing import killed
from helpers.two_levels import Tiny, micrographs, same

from micro_lib.data.framing import Framing
from micro_lib.training import adaptation_loop
from micro_lib.training.adaptation_loop import METHODS, Draws, Recipe, adapt, troubles
from micro_lib.training.adaptation_methods import Adversarial, Design
from micro_lib.training.checkpoints import CheckpointMismatch
from micro_lib.training.supervised import TrainingDiverged

SOURCE, TARGET = micrographs(), micrographs(contrast=30, seed=1)


def recipe(method="none", **changes):
    plan = {"steps": 6, "batch": 4, "framing": Framing(1.0, 32, 4), "learning_rate": 1e-2, "seed": 1, "points": 3}
    return Recipe(method, **({"n_classes": 2, "design": Design(4, 1e-3)} | plan | changes))


def tiny(n_classes=2):
    torch.manual_seed(0)
    return Tiny(n_classes)


def measure(network):
    return {"target_largest": 0.5}


def trained(folder, method, network=None, watch=measure, source=SOURCE, **changes):
    network = network or tiny()
    plan = recipe(method, **changes)
    target = TARGET if method != "none" else []
    return network, adapt(network, Draws(source, [], target, plan), plan, folder=folder, watch=watch)


# Tiles


def test_batches_depend_on_seed_and_step_alone():
    plan = recipe()
    one, other = Draws(SOURCE, [], TARGET, plan), Draws(SOURCE, [], TARGET, plan)
    one(0), one(1)
    assert all(torch.equal(a, b) for a, b in zip(one(5), other(5), strict=True))
    assert not torch.equal(one(5).images, one(6).images)
    assert not torch.equal(one(5).images, Draws(SOURCE, [], TARGET, recipe(seed=2))(5).images)
    assert one(0).images.shape == one(0).target.shape == (4, 1, 40, 40) and one(0).masks.dtype == torch.int64


def test_target_masks_are_thrown_away():
    plan = recipe()
    other = [sample._replace(mask=1 - sample.mask) for sample in TARGET]
    for a, b in zip(Draws(SOURCE, [], TARGET, plan)(3), Draws(SOURCE, [], other, plan)(3), strict=True):
        assert torch.equal(a, b)
    drawn = Draws(SOURCE, [], TARGET, plan)
    assert not any(sample.mask.any() for sample in drawn.target.micrographs)


def test_rare_classes_are_drawn_often():
    rare = micrographs(6, rare=True, px=96)  # one spot of 100 px in six micrographs
    masks = [Draws(rare, [], [], recipe(n_classes=3))(step).masks for step in range(30)]
    share = torch.stack([(mask == 2).flatten(1).any(1).float().mean() for mask in masks]).mean()
    assert share > 0.3, "one tile in 50 would show it by chance"
    shown = torch.stack([(mask == c).float().mean() for mask in masks for c in (0, 1)])
    assert (shown.view(-1, 2).mean(0) > 0.1).all(), "the others are not forgotten"


def test_a_class_nobody_has_is_not_looked_for():
    assert Draws(SOURCE, [], [], recipe(n_classes=5))(0).masks.max() == 1


def test_labelled_target_micrographs_take_half_of_each_batch():
    dark = [sample._replace(mask=np.full_like(sample.mask, 1)) for sample in TARGET[:1]]
    plain = [sample._replace(mask=np.zeros_like(sample.mask)) for sample in SOURCE]
    masks = Draws(plain, dark, [], recipe())(0).masks
    assert [int(mask.max()) for mask in masks] == [0, 1, 0, 1]
    assert Draws([], dark, [], recipe())(0).masks.min() == 1, "without a source all are theirs"


# Training


def test_it_learns_and_keeps_the_curve(tmp_path):
    network, curve = trained(tmp_path, "none", steps=60, points=3)
    assert curve["step"].tolist() == [20, 40, 60] and curve["loss"].iloc[-1] < 0.7 * curve["loss"].iloc[0]
    assert not network.training


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_on_after_a_kill_as_if_it_had_not_been(method, tmp_path):
    whole, curve = trained(tmp_path / "whole", method)
    with killed():
        trained(tmp_path / "broken", method)
    network, resumed = trained(tmp_path / "broken", method)
    assert same(network, whole)
    pd.testing.assert_frame_equal(resumed.drop(columns="seconds"), curve.drop(columns="seconds"))


def test_a_finished_training_is_kept_until_somebody_has_stored_it(tmp_path, monkeypatch):
    network, curve = trained(tmp_path, "ADVENT")
    monkeypatch.setattr(adaptation_loop, "learn_once", None)
    again, same_curve = trained(tmp_path, "ADVENT", watch=None)
    assert same(again, network) and not again.training
    pd.testing.assert_frame_equal(same_curve, curve)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    with killed():
        trained(tmp_path, "none")
    with pytest.raises(CheckpointMismatch, match="belongs to another training"):
        trained(tmp_path, "FDA")


@pytest.mark.parametrize("part", ["image", "mask"])
@pytest.mark.parametrize("changed", range(3))
def test_a_checkpoint_of_other_micrographs_is_refused(changed, part, tmp_path):
    """Whichever of them the first batch, a single tile, happens to show."""
    with killed():
        trained(tmp_path, "none", batch=1)
    spoilt = getattr(SOURCE[changed], part).copy()
    spoilt[0, 0] ^= 1
    other = [sample._replace(**({part: spoilt} if i == changed else {})) for i, sample in enumerate(SOURCE)]
    with pytest.raises(CheckpointMismatch, match="belongs to another training"):
        trained(tmp_path, "none", source=other, batch=1)
    trained(tmp_path, "none", batch=1)


def test_all_micrographs_decide_but_not_the_masks_of_the_target():
    def digest(*parts):
        return Draws(*parts, recipe()).sha256()

    changed = [[sample._replace(image=sample.image[::-1]) for sample in part] for part in (SOURCE, TARGET)]
    unmasked = [sample._replace(mask=1 - sample.mask) for sample in TARGET]
    plain = digest(SOURCE, TARGET[:1], TARGET)
    assert plain == digest(SOURCE, TARGET[:1], unmasked)
    others = {digest(changed[0], TARGET[:1], TARGET), digest(SOURCE, TARGET[:1], changed[1])}
    others |= {digest(SOURCE, unmasked[:1], TARGET), digest(SOURCE, TARGET[:1], [])}
    assert len(others | {plain}) == 5


def test_a_checkpoint_of_another_start_is_refused(tmp_path):
    torch.manual_seed(0)
    start, other = Tiny(), Tiny()  # arms that differ in their pre-training alone
    with killed():
        trained(tmp_path, "none", deepcopy(start))
    with pytest.raises(CheckpointMismatch, match="belongs to another training"):
        trained(tmp_path, "none", other)
    trained(tmp_path, "none", deepcopy(start))


def test_rates_fall_by_the_polynomial_and_the_encoder_has_a_tenth(tmp_path, monkeypatch):
    rates = []

    def noted(student, terms, batch, optimizer):
        rates.append([group["lr"] for group in optimizer.param_groups])
        return {"loss": 1.0}

    monkeypatch.setattr(adaptation_loop, "learn_once", noted)
    trained(tmp_path, "none", steps=10, points=1)
    expected = 1e-2 * (1 - np.arange(10) / 10) ** 0.9
    np.testing.assert_allclose(np.array(rates)[:, 1], expected)
    np.testing.assert_allclose(np.array(rates)[:, 0], expected / 10)


class Breaking(Tiny):
    """Gives NaN from its n-th pass in training on."""

    def __init__(self, passes):
        super().__init__()
        self.left = passes

    def levels(self, images):
        self.left -= self.training
        found = super().levels(images)
        return type(found)(*(logits * (math.nan if self.left < 0 else 1) for logits in found))


def test_a_training_that_diverges_ends_at_its_last_point_and_says_so(tmp_path):
    torch.manual_seed(0)
    network, curve = trained(tmp_path / "5", "none", Breaking(5))
    assert curve["step"].tolist() == [2, 4, 4] and math.isnan(curve["loss"].iloc[-1])
    assert "loss no number after step 4" in troubles(curve, 0.5)
    assert all(torch.isfinite(p).all() for p in network.parameters())
    torch.manual_seed(0)
    other, _ = trained(tmp_path / "9", "none", Breaking(9))
    assert not same(network, other)
    torch.manual_seed(0)
    again, known = trained(tmp_path / "5", "none", Breaking(9), watch=None)  # it has ended: no step, no measurement
    assert same(network, again)
    pd.testing.assert_frame_equal(known, curve)


def test_a_training_that_diverges_at_once_is_an_error(tmp_path):
    torch.manual_seed(0)
    with pytest.raises(TrainingDiverged, match="no number before step 2; lower the learning rate"):
        trained(tmp_path, "none", Breaking(1))


def curve(losses, largest):
    return pd.DataFrame({"step": range(1, len(losses) + 1), "loss": losses, "target_largest": largest})


@pytest.mark.parametrize(
    ("losses", "largest", "said"),
    [
        ([0.9, 0.5, 0.4], 0.6, ""),
        ([0.9, 0.4, 0.7], 0.6, "labelled loss rose from 0.40 to 0.70"),
        ([0.9, 0.5, 0.4], 0.995, "99.5% of the target said to be one class"),
        ([0.9, 0.4, math.nan], 0.999, "loss no number after step 3; 99.9% of"),
    ],
)
def test_troubles_are_named(losses, largest, said):
    found = troubles(curve(losses, largest), 0.6)
    assert found.startswith(said) if said else found == ""


@pytest.mark.parametrize(("late", "won"), [(0.78, False), (0.94, False), (0.99, True)])
def test_discriminators_that_win_are_trouble(late, won):
    told = curve([0.5] * 4, 0.6).assign(discriminator_accuracy=[0.5, 0.7, late, late])
    assert ("discriminators right in 99.0%" in troubles(told, 0.6)) == won
    lost = told.assign(discriminator_accuracy=[1.0, 1.0, late, 0.6])  # fooled in the end
    assert troubles(lost, 0.6) == ""


def test_discriminators_that_win_are_noticed_in_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Adversarial, "learn", lambda self, source: {"discriminator_accuracy": 1.0})
    _, told = trained(tmp_path, "AdaptSegNet")
    assert "discriminators right in 100.0%" in troubles(told, 0.6)


def test_without_a_target_the_loss_alone_can_be_trouble():
    told = curve([0.5, 0.4], 0.99).drop(columns="target_largest")
    assert troubles(told) == "" and "rose from 0.50" in troubles(told.assign(loss=[0.5, 5.0]))


def test_a_source_of_mostly_one_class_is_no_collapse():
    assert troubles(curve([0.5, 0.4], 0.99), 0.985) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "CyCADA"}, "method is 'CyCADA'; there are none, AdaBN, AdaptSegNet"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; there are adam"),
        ({"loss": "bce"}, "loss is 'bce'"),
        ({"n_classes": 1}, "n_classes is 1; give the background"),
        ({"points": 9}, "6 steps cannot have a curve of 9 points"),
    ],
)
def test_wrong_recipes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(**({"method": "none"} | changes))


def test_tiles_too_small_for_a_method_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'ADVENT' needs tiles of 32 px; those of .* are smaller"):
        trained(tmp_path, "ADVENT", framing=Framing(1.0, 31, 4))
