"""Training of a generator: crops keep image and mask together, a killed run ends as an uninterrupted one."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.killing import killed
from hypothesis import given
from hypothesis import strategies as st

from micro_lib.core.labels import ClassMap
from micro_lib.core.seeds import stream
from micro_lib.data.tiles import Labelled
from micro_lib.models.joint_generator import GeneratorCard, JointGenerator
from micro_lib.training import checkpoints, generative
from micro_lib.training.checkpoints import CheckpointMismatch
from micro_lib.training.generative import HISTORY, Crops, Maps, Scene, crop, encoded, residual_texture
from micro_lib.training.rounds import Schedule
from micro_lib.training.supervised import TrainingDiverged

CLASSES = ClassMap("two", ("a", "b"), {0: 0, 1: 1}, ("#000000", "#d55e00"))
SCHEDULES = {"vqvae": Schedule(4, 4, 1e-3, 2), "prior": Schedule(6, 4, 1e-3, 3)}


def micrographs(n=2, shape=(48, 64), cell=8):
    rng = stream(0, "micrographs")
    found = []
    for _ in range(n):
        cells = rng.random((shape[0] // cell, shape[1] // cell)) < 0.4
        mask = cells.astype(np.uint8).repeat(cell, 0).repeat(cell, 1)
        image = np.clip(90 + 60 * mask + rng.normal(0, 6, shape), 0, 255).astype(np.uint8)
        found.append(Labelled(image, mask))
    return found


def fresh(n_conditions=0, **sizes):
    torch.manual_seed(1)
    vq = {"n_codes": 8, "code_dim": 4, "hidden": 8, "down": 8, **sizes}
    prior = {"channels": 4, "layers": 2, "dropout": 0.2, "n_conditions": n_conditions}
    return JointGenerator(GeneratorCard(CLASSES, vq, prior, 32))


def train(generator, folder, **changes):
    options = {"n_crops": 12, "texture": True, "seed": 3, "checkpoint": folder / "run.pt"} | changes
    return generative.train(
        generator, options.pop("micrographs", micrographs()), options.pop("schedules", SCHEDULES), **options
    )


# Crops


@given(st.integers(0, 20))
def test_crops_keep_image_and_mask_together(seed):
    rng = stream(seed, "scene")
    mask = rng.integers(0, 3, (40, 56))
    scene = Scene(10.0 * mask.astype(np.float32), mask)
    images, masks = crop([scene], 6, 24, rng)
    assert images.shape == (6, 1, 24, 24) and masks.shape == (6, 24, 24)
    assert images.dtype == torch.float32 and masks.dtype == torch.int64
    torch.testing.assert_close(images[:, 0], 10.0 * masks.float())


def test_crops_come_in_all_eight_orientations():
    mask = np.arange(32 * 32).reshape(32, 32)
    _, masks = crop([Scene(mask.astype(np.float32), mask)], 200, 32, stream(0, "crops"))
    assert len({window.numpy().tobytes() for window in masks}) == 8


def test_large_micrographs_are_drawn_more_often():
    scenes = [
        Scene(np.full(shape, value, np.float32), np.full(shape, value))
        for value, shape in ((0, (32, 32)), (1, (32, 96)))
    ]
    _, masks = crop(scenes, 2000, 32, stream(0, "crops"))
    assert masks[:, 0, 0].float().mean().item() == pytest.approx(0.75, abs=0.04)


def test_a_micrograph_smaller_than_a_crop_is_refused():
    with pytest.raises(ValueError, match=r"micrographs of \(20, 64\) are too small for crops of 32 px"):
        crop([Scene(np.zeros((20, 64), np.float32), np.zeros((20, 64), int))], 1, 32, stream(0, "x"))


def test_scenes_are_standardised_as_wholes():
    scene = Scene.of(micrographs()[0])
    assert scene.image.mean() == pytest.approx(0, abs=1e-5) and scene.image.std() == pytest.approx(1, abs=1e-4)


def test_batches_are_functions_of_seed_epoch_and_number():
    scenes = [Scene.of(m) for m in micrographs()]
    first, again = (Crops(scenes, 32, SCHEDULES["vqvae"], 5) for _ in range(2))
    torch.testing.assert_close(first[1][0], again[1][0])
    again.epoch = 1
    assert not torch.equal(first[1][0], again[1][0]) and not torch.equal(first[0][0], first[1][0])
    assert len(first) == 2 and len(list(first)) == 2


def test_maps_go_with_their_conditions():
    codes = torch.arange(6)[:, None, None].expand(6, 2, 3)
    told, condition, target = Maps(codes, torch.arange(6.0)[:, None], Schedule(2, 50, 1e-3, 1), 1)[0]
    assert torch.equal(told, target) and torch.equal(told[:, 0, 0].float(), condition[:, 0])
    assert len(Maps(codes, None, Schedule(2, 50, 1e-3, 1), 1)[0]) == 2


def test_encoded_crops_have_the_fractions_of_their_masks():
    generator, scenes = fresh(), [Scene.of(m) for m in micrographs()]
    generator.vqvae.train()(*crop(scenes, 8, 32, stream(1, "begun")))  # gives the codebook its vectors
    codes, fractions = encoded(generator, scenes, 70, 1)
    assert codes.shape == (70, 4, 4) and fractions.shape == (70, 2)
    torch.testing.assert_close(fractions.sum(1), torch.ones(70))
    share = np.mean([m.mask.mean() for m in micrographs()])
    assert fractions[:, 1].mean().item() == pytest.approx(share, abs=0.1)


# Texture


def test_texture_is_what_reconstructions_lack():
    rng = stream(1, "texture")
    white = rng.standard_normal((96, 97)).astype(np.float32)
    mask = np.zeros((96, 96), int)
    mask[:, 48:] = 1
    lacking = np.float32(0.5) * (0.6 * white[:, 1:] + 0.8 * white[:, :-1]) * (1 + mask)

    class Nothing(torch.nn.Module):  # keeps nothing at all of an image
        n_classes = 2

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def encode(self, image, mask):
            return torch.zeros(len(image), 4, 4, dtype=torch.int64)

        def decode(self, codes):
            return torch.zeros(len(codes), 1, 32, 32), None

    generator = fresh()
    generator.vqvae = Nothing()
    kernel, roughness = residual_texture(generator, [Scene(lacking, mask)], 1)
    assert roughness.tolist() == pytest.approx([0.5, 1.0], rel=0.1)
    assert kernel.square().sum().item() == pytest.approx(1)
    middle = kernel.shape[-1] // 2
    line = torch.nn.functional.conv2d(kernel, kernel, padding=2)[0, 0]  # its correlations at a few shifts
    assert kernel[0, 0, middle, middle] == kernel.max() and line.shape == (5, 5)
    # Crops are turned at random, so the correlation of 0.48 along one axis is shared by both.
    assert line[2, 3].item() / line[2, 2].item() == pytest.approx(0.24, abs=0.1)


# The training


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    generator, folder = fresh(), tmp_path_factory.mktemp("whole")
    return generator, train(generator, folder), folder


def test_history_tells_losses_and_use_of_the_codebook(uninterrupted):
    generator, history, folder = uninterrupted
    assert list(history.columns) == list(HISTORY)
    assert history["stage"].tolist() == ["vqvae"] * 2 + ["prior"] * 3 and history["steps"].tolist() == [2] * 5
    vq = history[history["stage"] == "vqvae"]
    assert vq["usage"].between(1 / 8, 1).all() and vq["perplexity"].between(1, 8).all()
    np.testing.assert_allclose(vq["loss"], vq["image_loss"] + vq["mask_loss"] + 0.25 * vq["commitment"], rtol=1e-4)
    assert history.loc[history["stage"] == "prior", "loss"].between(0, 2 * np.log(8)).all()
    assert generator.fractions.shape == (12, 2) and generator.roughness.max() > 0
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_killed_training_ends_as_an_uninterrupted_one(uninterrupted, tmp_path, at):
    with killed(at):
        train(fresh(), tmp_path)
    torch.manual_seed(99)
    resumed = fresh()
    history = train(resumed, tmp_path)
    assert history["epoch"].tolist() == [0, 1, 0, 1, 2]
    pd.testing.assert_series_equal(history["loss"], uninterrupted[1]["loss"], rtol=1e-5)
    for name, tensor in uninterrupted[0].state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_the_checkpoint_of_another_training_is_refused(tmp_path):
    checkpoints.write(tmp_path / "run.pt", {"generator": {}}, "another")
    with pytest.raises(CheckpointMismatch, match="belongs to another training"):
        train(fresh(), tmp_path)


def test_the_checkpoint_of_other_micrographs_is_refused(tmp_path):
    with killed():
        train(fresh(), tmp_path)
    turned = [Labelled(*(part[::-1, ::-1] for part in micrograph)) for micrograph in micrographs()]  # the same sums
    with pytest.raises(CheckpointMismatch, match="belongs to another training"):
        train(fresh(), tmp_path, micrographs=turned)


def test_a_conditional_prior_is_told_fractions(tmp_path):
    generator = fresh(2)
    train(generator, tmp_path, texture=False)
    assert generator.is_conditional and not generator.roughness.any()
    assert len(generator.eval().sample(3, seed=1)) == 3


def test_rare_classes_count_by_the_inverse_root_of_their_share():
    mask = np.zeros((8, 8), np.int64)
    mask[:2, :2] = 1  # a sixteenth
    weights = generative.class_weights([Scene(mask.astype(np.float32), mask)] * 2, 3).numpy()
    share = np.array([15, 1]) / 16
    assert weights[1] / weights[0] == pytest.approx(np.sqrt(15)) and weights[2] == 1, "class 2 is nowhere"
    assert (share * weights[:2]).sum() == pytest.approx(1)


@pytest.mark.parametrize("weighted", [False, True])
def test_masks_are_learned_with_the_weights_of_their_classes_if_asked_for(weighted, tmp_path, monkeypatch):
    plain, given = generative.vqvae.loss, []

    def loss(output, image, mask, weights=None):
        given.append(weights)
        return plain(output, image, mask, weights)

    monkeypatch.setattr(generative.vqvae, "loss", loss)
    train(fresh(), tmp_path, weighted=weighted)
    learned = given[::2]  # every other call tells the parts of the loss, which nothing weighs
    expected = generative.class_weights([Scene.of(m) for m in micrographs()], 2)
    assert len(learned) == 4 and given[1::2] == [None] * 4
    assert all(torch.equal(one, expected) if weighted else one is None for one in learned)


def test_divergence_has_words(tmp_path):
    schedules = SCHEDULES | {"vqvae": Schedule(4, 4, float("nan"), 2)}
    with pytest.raises(TrainingDiverged, match=r"the loss became nan in step \d of epoch \d of the vqvae"):
        train(fresh(), tmp_path, schedules=schedules)


def test_a_generator_learns_what_two_micrographs_look_like(tmp_path):
    schedules = {"vqvae": Schedule(300, 8, 1e-2, 5), "prior": Schedule(120, 8, 1e-2, 2)}
    generator, learned = fresh(n_codes=16, hidden=16), micrographs(2, (96, 96), cell=24)
    history = train(generator, tmp_path, micrographs=learned, schedules=schedules, n_crops=64, texture=False)
    vq, prior = (history.loc[history["stage"] == stage] for stage in ("vqvae", "prior"))
    assert vq["mask_loss"].iloc[-1] < 0.3 and vq["image_loss"].iloc[-1] < 0.3
    assert vq["perplexity"].iloc[-1] > 4 and prior["loss"].iloc[-1] < 0.8 * np.log(16)
    pairs = generator.eval().sample(16, seed=1)
    greys = [[pair.image[pair.mask == c].mean() for pair in pairs if (pair.mask == c).any()] for c in range(2)]
    assert np.mean(greys[1]) - np.mean(greys[0]) > 30, "masks belong to images: class 1 is bright"
