"""A generator of pairs: sizes, seeds, texture and conditions by their definitions, and the file it is kept in."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micro_lib.core.labels import ClassMap
from micro_lib.core.seeds import stream
from micro_lib.data.tiles import Labelled
from micro_lib.models import joint_generator
from micro_lib.models.carded import CardError
from micro_lib.models.joint_generator import GeneratorCard, JointGenerator, balanced, grey_levels

CLASSES = ClassMap("three", ("a", "b", "c"), {0: 0, 1: 1, 2: 2}, ("#000000", "#d55e00", "#56b4e9"))
VQ = {"n_codes": 16, "code_dim": 4, "hidden": 8, "down": 8}
PRIOR = {"channels": 8, "layers": 2, "dropout": 0.0}


def generator(n_conditions=0, **changes):
    torch.manual_seed(0)
    card = GeneratorCard(CLASSES, {**VQ, **changes}, {**PRIOR, "n_conditions": n_conditions}, 32, {"seed": 1})
    made = JointGenerator(card)
    made.vqvae.train()(torch.randn(8, 1, 32, 32), torch.randint(3, (8, 32, 32)))  # gives the codebook its vectors
    made.vqvae.decoder[-1].weight.data *= 30  # codes look different
    made.fractions = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]])
    return made.eval()


@pytest.fixture(scope="module")
def made():
    return generator()


@pytest.mark.parametrize("down", [4, 8])
def test_pairs_have_the_size_asked_for(down):
    made = generator(down=down)
    for shape in (None, (16, 40)):
        pairs = made.sample(2, seed=1, shape_px=shape)
        for pair in pairs:
            assert pair.image.shape == pair.mask.shape == (shape or (32, 32))
            assert pair.image.dtype == pair.mask.dtype == np.uint8 and pair.mask.max() < 3


def test_the_seed_decides_the_pairs(made):
    first, again, other = (made.sample(3, seed=seed) for seed in (1, 1, 2))
    assert all(
        np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask) for a, b in zip(first, again, strict=True)
    )
    assert any(not np.array_equal(a.image, b.image) for a, b in zip(first, other, strict=True))


def test_batches_of_any_size_are_filled(made, monkeypatch):
    monkeypatch.setattr(joint_generator, "BATCH", 2)
    assert len(made.sample(5, seed=1)) == 5


@pytest.mark.parametrize("n_conditions", [0, 3])
def test_what_is_known_of_a_pair_stays_and_the_rest_is_drawn(n_conditions, monkeypatch):
    made = generator(n_conditions)
    pair = made.sample(1, seed=3, shape_px=(64, 48))[0]
    (again,) = made.reconstruct([pair], stream(0, "texture"))
    everything, rows = np.ones((64, 48), bool), np.zeros((64, 48), bool)
    rows[: 24 + made.vqvae.reach_px - 1] = True  # two rows of codes; one pixel row of what acts on the third is missing
    for same in made.complete(pair, everything, 2, seed=1):
        assert np.array_equal(same.image, again.image) and np.array_equal(same.mask, again.mask)
    first, other = made.complete(pair, rows, 2, seed=1)
    assert not np.array_equal(first.image, other.image)
    assert np.array_equal(made.complete(pair, rows, 2, seed=1)[0].image, first.image)
    monkeypatch.setattr(made, "pairs", lambda codes, _rng: codes)
    known, drawn = made.reconstruct([pair], None)[0], made.complete(pair, rows, 8, seed=1)
    assert (drawn[:, :2] == known[:2]).all() and (drawn[:, 2:] != known[2:]).any(0).all()
    with pytest.raises(ValueError, match=r"known is \(64, 32\), the pair \(64, 48\)"):
        made.complete(pair, everything[:, :32], 1, seed=1)


@pytest.mark.parametrize("n_conditions", [0, 3])
@pytest.mark.parametrize("down", [4, 8])
def test_what_is_unknown_of_a_pair_does_not_act_on_its_completion(n_conditions, down):
    made, rng = generator(n_conditions, down=down), stream(0, "unknown")
    pair = made.sample(1, seed=3, shape_px=(96, 48))[0]
    known = np.zeros(pair.mask.shape, bool)
    known[:60] = True
    scrambled = Labelled(
        np.where(known, pair.image, rng.integers(0, 256, known.shape)).astype(np.uint8),
        np.where(known, pair.mask, rng.integers(0, 3, known.shape)).astype(np.uint8),
    )
    assert (made._codes([scrambled]) != made._codes([pair])).any(), "seen whole, they differ"
    for one, other in zip(*(made.complete(each, known, 2, seed=1) for each in (pair, scrambled)), strict=True):
        assert np.array_equal(one.image, other.image) and np.array_equal(one.mask, other.mask)
    unknown = made.complete(scrambled, np.zeros_like(known), 2, seed=1)  # nothing: as if nothing had been asked
    assert np.array_equal(unknown[0].mask, made.complete(pair, np.zeros_like(known), 2, seed=1)[0].mask)


@pytest.mark.parametrize("shape", [(30, 32), (32, 12)])
def test_sizes_that_codes_cannot_make_are_refused(made, shape):
    with pytest.raises(ValueError, match="must be multiples of 8"):
        made.sample(1, seed=1, shape_px=shape)


def test_a_size_of_nothing_is_refused(made):
    with pytest.raises(ValueError, match="smaller side of shape_px is 0; a number, 8 or larger"):
        made.sample(1, seed=1, shape_px=(0, 32))


@pytest.mark.parametrize("fractions", [[0.5, 0.5], [0.5], [3, 3, 3], [1.5, -0.5, 0.0], [[0.2, 0.3, 0.5]]])
def test_fractions_that_are_none_are_refused(fractions):
    with pytest.raises(ValueError, match=r"fractions are .*; 3 are expected, none negative, whose sum is 1"):
        generator(3).sample(2, seed=1, fractions=fractions)


def test_masks_are_the_most_probable_classes_and_images_the_decoded_grey(made):
    codes = torch.randint(16, (2, 4, 4))
    with torch.no_grad():
        images, logits = made.vqvae.decode(codes)
    for pair, image, logit in zip(made.pairs(codes, stream(0, "x")), images, logits, strict=True):
        assert np.array_equal(pair.mask, logit.argmax(0).numpy())
        assert np.array_equal(pair.image, grey_levels(image[0].numpy()))


@given(st.floats(-4, 4))
def test_grey_levels_keep_standardised_values(value):
    grey = int(grey_levels(np.array([value], np.float32))[0])
    assert abs((grey - joint_generator.MIDDLE) / joint_generator.PER_SD - value) <= 0.5 / joint_generator.PER_SD + 1e-5
    assert grey_levels(np.array([-99.0, 99.0])).tolist() == [0, 255]


# Texture


def test_texture_has_the_roughness_of_each_class_and_the_correlation_of_the_kernel(made):
    rough = generator()
    rough.roughness = torch.tensor([0.0, 1.0, 3.0])
    rough.kernel = torch.tensor([[[[0.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 0.0]]]])  # sum of squares 1
    masks = torch.zeros(1, 300, 300, dtype=torch.int64)
    masks[:, 100:200], masks[:, 200:] = 1, 2
    field = rough.texture(masks, stream(0, "texture")).numpy()[0]
    assert not field[:100].any()
    assert field[100:200].std() == pytest.approx(1, rel=0.03) and field[200:].std() == pytest.approx(3, rel=0.03)
    beside = np.corrcoef(field[200:, :-1].ravel(), field[200:, 1:].ravel())[0, 1]
    assert beside == pytest.approx(0.48, abs=0.03)
    assert not made.texture(masks, stream(0, "texture")).any(), "none by default"


# Conditions


def test_conditions_are_standardised_fractions():
    told = generator(3).condition(generator().fractions)
    torch.testing.assert_close(told.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(told.std(0), torch.ones(3))
    assert generator().condition(generator().fractions) is None


def test_a_class_that_is_nowhere_does_not_break_the_condition():
    made = generator(3)
    made.fractions = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]])
    assert torch.isfinite(made.condition(made.fractions)).all()


def test_balanced_fractions_favour_what_is_rare():
    fractions = torch.zeros(100, 3)
    fractions[:, 0] = 1.0
    fractions[:25] = torch.tensor([0.4, 0.3, 0.3])
    found = balanced(fractions, 3000, stream(0, "balanced"))
    # Two classes of three are richest in the 25 crops; the third is drawn from the others.
    assert (found[:, 1] > 0).float().mean().item() == pytest.approx(2 / 3, abs=0.04)
    assert {tuple(row) for row in found.tolist()} <= {tuple(row) for row in fractions.tolist()}


def test_fractions_are_asked_for_only_where_the_prior_knows_them(made):
    assert len(generator(3).sample(2, seed=1, fractions=[0.2, 0.3, 0.5])) == 2
    with pytest.raises(ValueError, match="this prior has no conditions"):
        made.sample(1, seed=1, fractions=[0.2, 0.3, 0.5])


# The file


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    made = generator(3)
    made.kernel, made.roughness = torch.randn(1, 1, 5, 5), torch.rand(3)
    path = tmp_path_factory.mktemp("model") / "generator.safetensors"
    made.save(path)
    return made, path


def test_a_stored_generator_draws_the_same(stored):
    made, path = stored
    loaded = JointGenerator.load(path)
    assert loaded.card == made.card
    for a, b in zip(loaded.sample(2, seed=4), made.sample(2, seed=4), strict=True):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask)


def test_a_card_of_another_network_is_refused(stored, tmp_path):
    made = generator(3)
    made.card = GeneratorCard(CLASSES, {**VQ, "hidden": 16}, {**PRIOR, "n_conditions": 3}, 32)
    made.save(tmp_path / "other.safetensors")
    with pytest.raises(CardError, match=r"other\.safetensors does not make a generator \(RuntimeError: Error"):
        JointGenerator.load(tmp_path / "other.safetensors")
