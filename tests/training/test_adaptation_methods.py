"""What the methods add: nothing where it should be nothing, in the right direction, and never from target labels."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from helpers.two_levels import Tiny, same, student
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import nn

from micro_lib.models import unet
from micro_lib.training import adaptation_methods as methods
from micro_lib.training.adaptation_loop import learn_once
from micro_lib.training.adaptation_methods import (
    METHODS,
    RINGS,
    SOURCE,
    TARGET,
    Adversarial,
    Batch,
    Design,
    MeanTeacher,
    Resolution,
    SelfInformation,
    Spectrum,
    Weights,
    class_mix,
    damped,
    hidden,
    ring_power,
    robust_entropy,
    statistics_kept,
    terms,
    varied,
    verdict_loss,
    with_low_frequencies_of,
)

NARROW = Design(4, 1e-3)


@pytest.fixture(autouse=True)
def reproducible():
    torch.manual_seed(0)


def batch(n=2, n_classes=2, px=32):
    masks = torch.randint(0, n_classes, (n, px, px))
    return Batch(torch.randn(n, 1, px, px), masks, 1 + 2 * torch.randn(n, 1, px, px))


def gradients(network):
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def still(network):
    return torch.optim.SGD(network.parameters(), lr=0.0)


# One step


@pytest.mark.parametrize("method", ["AdaptSegNet", "ADVENT"])
@pytest.mark.parametrize("made", [Tiny, lambda: unet.TwoLevels(unet.build("lite0", 2, "random"))])
def test_without_adversarial_weight_the_gradients_are_those_of_the_source_alone(method, made):
    network = made().eval()  # statistics of the normalisation stay
    weights, seen = Weights(adversarial=0.0, adversarial_auxiliary=0.0), batch()
    learn_once(student(network, weights), [], seen, still(network))
    alone = gradients(network)
    parts = terms(method, network, 2, weights, NARROW)
    learn_once(student(network, weights), parts, seen, still(network))
    adapted = gradients(network)
    assert set(alone) == set(adapted) and max(g.abs().max() for g in alone.values()) > 1e-3
    for name, gradient in alone.items():
        torch.testing.assert_close(adapted[name], gradient, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("none", "AdaBN")])
def test_with_its_weight_every_method_changes_the_gradients(method):
    network, seen = Tiny().eval(), batch()
    learn_once(student(network), [], seen, still(network))
    alone = gradients(network)
    parts = terms(method, network, 2, Weights(adversarial=1.0, adversarial_auxiliary=1.0), NARROW)
    for part in parts:
        if isinstance(part, MeanTeacher):
            part.teacher.module.main.bias.data += torch.tensor([50.0, 0.0])  # sure of itself, so it is followed
    learn_once(student(network), parts, seen, still(network))
    assert any(not torch.allclose(gradient, alone[name]) for name, gradient in gradients(network).items())


def test_discriminators_and_segmenter_learn_apart():
    network = Tiny()
    term = Adversarial(2, Weights(adversarial=1.0), NARROW, nn.Identity())
    judges, seen, watched = deepcopy(term.discriminators), batch(), student(network)
    loss, _ = term.loss(watched, seen)
    loss.backward()
    assert any(p.grad.abs().sum() > 0 for p in network.parameters() if p.grad is not None)
    assert all(p.grad is None for p in term.discriminators.parameters()), "fooling them teaches them nothing"
    assert same(judges, term.discriminators)

    before, slopes = deepcopy(network), gradients(network)
    source = watched.levels(seen.images)
    parts = term.learn(type(source)(*(logits.detach() for logits in source)))
    assert not same(judges, term.discriminators) and 0 <= parts["discriminator_accuracy"] <= 1
    assert all(torch.equal(before.state_dict()[n], p) for n, p in network.named_parameters())
    assert all(torch.equal(slopes[name], gradient) for name, gradient in gradients(network).items())


def test_discriminators_can_learn_again_after_being_fooled():
    term = Adversarial(2, Weights(), NARROW, nn.Identity())
    term.loss(student(Tiny()), batch())
    assert all(p.requires_grad for p in term.discriminators.parameters())


def test_the_segmenter_goes_where_the_discriminators_say_source():
    network, seen = Tiny().eval(), batch(4)
    term = Adversarial(2, Weights(adversarial=1.0, adversarial_auxiliary=1.0), Design(8, 1e-3), nn.Identity())
    watched = student(network)

    def target_verdicts():
        with torch.no_grad():
            shown = term.show(watched.levels(seen.target))
            return torch.stack([judge(p).mean() for judge, p in zip(term.discriminators, shown, strict=True)])

    before = target_verdicts()
    term.loss(watched, seen)[0].backward()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad / parameter.grad.norm()
    assert (target_verdicts() < before).all(), "logits fall towards SOURCE, which is 0"


def test_discriminators_learn_which_is_which():
    term = Adversarial(2, Weights(), Design(8, 1e-2), nn.Identity())
    ours = torch.randn(4, 2, 32, 32)
    term.target = [(3 + ours).softmax(1) * torch.tensor([1.0, 0.0])[:, None, None]] * 2
    for _ in range(30):
        parts = term.learn(unet.Levels(ours, ours))
    assert parts["discriminator_accuracy"] == 1.0
    with torch.no_grad():
        assert (term.discriminators[0](ours.softmax(1)).sigmoid() < 0.5).all() and SOURCE == 0
        assert (term.discriminators[0](term.target[0]).sigmoid() > 0.5).all() and TARGET == 1


def test_verdict_losses_by_hand():
    verdict = torch.zeros(3, requires_grad=True)
    assert float(verdict_loss(verdict, SOURCE)) == pytest.approx(math.log(2))
    verdict_loss(verdict, SOURCE).backward()
    assert torch.allclose(verdict.grad, torch.full((3,), 0.5 / 3))  # (sigmoid(0) - SOURCE) / 3


def test_the_four_parts_of_the_loss_have_the_published_weights():
    network, seen = Tiny().eval(), batch()
    watched = student(network)
    term = Adversarial(2, Weights(), NARROW, nn.Identity())
    levels = watched.levels(seen.images)
    parts = [nn.functional.cross_entropy(logits, seen.masks) for logits in levels]
    assert torch.allclose(watched.supervised(levels, seen.masks), parts[0] + 0.1 * parts[1])
    total, said = term.loss(watched, seen)
    assert float(total) == pytest.approx(0.001 * said["adversarial"] + 0.0002 * said["adversarial_auxiliary"], rel=1e-4)


def test_only_the_centre_counts():
    network, seen = Tiny().eval(), batch(px=32)
    watched = student(network, margin_px=8)
    levels = watched.levels(seen.images)
    assert levels.main.shape == (2, 2, 16, 16)
    spoilt = seen.masks.clone()
    spoilt[:, :8], spoilt[:, :, 24:] = 1, 1
    assert torch.equal(watched.supervised(levels, spoilt), watched.supervised(levels, seen.masks))


# ADVENT


def test_self_information_by_hand_and_at_the_ends():
    half = SelfInformation()(torch.full((1, 2, 1, 1), 0.5))
    assert torch.allclose(half, torch.full_like(half, 0.5))  # -0.5 log2(0.5); the entropy of both is 1
    third = SelfInformation()(torch.full((1, 3, 1, 1), 1 / 3))
    assert torch.allclose(third.sum(), torch.tensor(1.0))
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0], [0.0, 0.0]]).view(3, 2, 1, 1).requires_grad_()
    shown = SelfInformation()(logits.softmax(1))
    shown.sum().backward()
    assert torch.isfinite(shown).all() and (shown >= 0).all() and torch.isfinite(logits.grad).all()


def test_advent_of_two_classes_is_finite_on_sure_outputs():
    network = Tiny().eval()
    network.main.weight.data *= 1e4
    parts = terms("ADVENT", network, 2, Weights(), NARROW)
    found = learn_once(student(network), parts, batch(), still(network))
    assert all(math.isfinite(value) for value in found.values())
    assert all(torch.isfinite(gradient).all() for gradient in gradients(network).values())


# FDA


def reference_fda(image, other, band):
    """One image with the centred square of another's amplitudes, plainly in NumPy."""
    height, width = image.shape
    ours, theirs = (np.fft.fftshift(np.fft.fft2(x)) for x in (image, other))
    reach, (y, x) = math.floor(band * min(height, width)), (height // 2, width // 2)
    amplitude = np.abs(ours)
    square = np.s_[y - reach : y + reach + 1, x - reach : x + reach + 1]
    amplitude[square] = np.abs(theirs)[square]
    mixed = np.fft.ifftshift(amplitude * np.exp(1j * np.angle(ours)))
    return np.real(np.fft.ifft2(mixed))


@given(st.integers(8, 40), st.integers(8, 40), st.floats(1e-6, 0.4), st.integers(0, 9))
def test_fda_equals_its_definition(height, width, band, seed):
    rng = np.random.default_rng(seed)
    image, other = rng.normal(100, 30, (height, width)), rng.normal(150, 60, (height, width))
    made = with_low_frequencies_of(torch.tensor(image)[None, None], torch.tensor(other)[None, None], band)
    np.testing.assert_allclose(made[0, 0].numpy(), reference_fda(image, other, band), atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (1, 1, 31, 50), (3, 40, 24)])
def test_fda_without_a_band_is_the_identity(shape):
    images, others = torch.randn(shape), torch.randn(shape)
    torch.testing.assert_close(with_low_frequencies_of(images, others, 0.0), images, atol=1e-4, rtol=0)


def test_fda_of_one_frequency_swaps_the_mean():
    images, others = torch.rand(1, 1, 20, 30) + 1, torch.rand(1, 1, 20, 30) + 5
    made = with_low_frequencies_of(images, others, 0.01)  # 0.2 of a frequency: none but the mean
    torch.testing.assert_close(made, images - images.mean() + others.mean(), atol=1e-4, rtol=0)


def test_fda_of_different_sizes_is_refused():
    with pytest.raises(ValueError, match="different shapes cannot be mixed"):
        with_low_frequencies_of(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 9), 0.1)


def test_fda_changes_the_labelled_tiles_alone():
    seen = batch()
    changed = Spectrum().labelled(seen)
    assert changed.shape == seen.images.shape and not torch.allclose(changed, seen.images)
    assert Spectrum(entropy=False).loss(student(Tiny()), seen)[0] == 0


def test_robust_entropy_by_hand():
    unsure, sure = torch.zeros(1, 2, 4, 4), torch.tensor([60.0, -60.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert float(robust_entropy(unsure)) == pytest.approx(1.0, rel=1e-5)
    assert float(robust_entropy(sure)) == pytest.approx(0.0, abs=1e-9)
    quarter = torch.log(torch.tensor([0.25, 0.75])).view(1, 2, 1, 1)
    entropy = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert float(robust_entropy(quarter)) == pytest.approx(entropy**4, rel=1e-4)


# Sharpness


seeds = st.integers(0, 2**16)


def noise(seed):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(4, 1, 96, 96)).astype(np.float32))


def blurred(images, sigma_px):
    return torch.from_numpy(gaussian_filter(images.numpy(), (0, 0, sigma_px, sigma_px), mode="reflect"))


def test_the_power_of_white_noise_is_that_of_its_window():
    images = torch.cat([noise(seed) for seed in range(16)])
    power = ring_power(images)
    window = torch.hann_window(96).square().sum() ** 2
    assert power.shape == (RINGS,) and (power[2:] / window).numpy() == pytest.approx(np.ones(RINGS - 2), abs=0.1)
    torch.testing.assert_close(ring_power(images + 7), power, rtol=1e-3, atol=0)  # the mean says nothing


@pytest.mark.parametrize("size", [(8, 8), (9, 31), (96, 64)])
def test_a_wave_has_its_power_in_its_ring(size):
    height, width = size
    x = torch.arange(width) / width * 2 * math.pi * (width // 4)
    power = ring_power(x.cos().expand(1, 1, height, width))
    expected = int((width // 4) / width * 2 * RINGS)
    assert abs(int(power.argmax()) - expected) <= 2 * RINGS / width + 1


@given(seeds, st.floats(0.0, 2.0))
def test_softening_makes_sharp_tiles_as_soft_as_blurred_ones(seed, sigma_px):
    sharp = noise(seed)
    soft = blurred(sharp, sigma_px)
    found = damped(sharp, ring_power(sharp), ring_power(soft))
    assert float((found / found.std() - soft / soft.std()).std()) < 0.1, "a Gaussian is recovered from power alone"


@given(seeds, st.floats(0.5, 2.0))
def test_softening_never_sharpens(seed, sigma_px):
    sharp = noise(seed)
    soft = blurred(sharp, sigma_px)
    torch.testing.assert_close(damped(soft, ring_power(soft), ring_power(sharp)), soft, atol=0.02, rtol=0.02)


@given(seeds, st.floats(0.0, 2.0), st.floats(0.1, 10.0))
def test_softening_keeps_the_power_whatever_the_contrast(seed, sigma_px, contrast):
    sharp = noise(seed)
    powers = ring_power(sharp), ring_power(blurred(sharp, sigma_px) * contrast)
    found = damped(sharp, *powers)
    assert float(found.std()) == pytest.approx(float(sharp.std()), rel=0.1)
    torch.testing.assert_close(damped(sharp, powers[0], powers[1] / contrast), found, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("blank", ["images", "target"])
def test_blank_tiles_leave_finite_ones(blank):
    seen = batch()
    found = Resolution().labelled(seen._replace(**{blank: torch.zeros_like(seen.images)}))
    assert torch.isfinite(found).all()


def test_the_target_stays_and_its_sharpness_is_remembered_over_steps():
    term, seen = Resolution(), batch()
    soft = seen._replace(target=blurred(seen.images, 1.5))
    assert not torch.allclose(term.labelled(soft), seen.images, atol=0.1)
    once = term.power.clone()
    term.labelled(seen._replace(target=seen.images))
    both = (once + torch.stack([ring_power(seen.images)] * 2)) / 2
    torch.testing.assert_close(term.power, both)
    copy = Resolution()
    copy.load_state_dict(term.state_dict())
    torch.testing.assert_close(copy.labelled(soft), term.labelled(soft))


# Mean teacher


@given(st.integers(0, 50), st.integers(1, 5))
def test_half_of_the_classes_are_pasted_whole(seed, n_classes):
    torch.manual_seed(seed)
    masks = torch.randint(0, n_classes, (3, 8, 8))
    for mask, pasted in zip(masks, class_mix(masks), strict=True):
        present, chosen = mask.unique(), mask[pasted].unique()
        assert len(chosen) == (math.ceil(len(present) / 2) if len(present) > 1 else 0)
        assert torch.equal(torch.isin(mask, chosen), pasted)


def test_of_two_classes_either_is_pasted():
    masks = torch.arange(2).repeat(8)[None, :, None].expand(20, 16, 2)
    assert {int(mask[pasted][0]) for mask, pasted in zip(masks, class_mix(masks), strict=True)} == {0, 1}


def test_blocks_are_hidden_whole():
    masked = hidden(torch.ones(50, 1, 64, 40))
    blocks = masked.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4)
    assert ((blocks.sum(-1) == 0) | (blocks.sum(-1) == 64)).all()
    assert float((masked == 0).float().mean()) == pytest.approx(methods.MASKED_SHARE, abs=0.03)


def test_the_teacher_begins_as_the_mean_and_then_follows_slowly():
    network = Tiny()
    term = MeanTeacher(network, mixing=True)
    seen = []
    for i in range(3):
        network.main.bias.data.fill_(float(i))
        network.encoder[1].running_mean.fill_(float(i))
        term.follow(network)
        seen.append(float(term.teacher.module.main.bias[0]))
    assert seen == pytest.approx([0.0, 0.5, 1.0])
    assert float(term.teacher.module.encoder[1].running_mean[0]) == pytest.approx(1.0), "its statistics follow too"
    term.teacher.n_averaged.fill_(10_000)
    network.main.bias.data.fill_(11.0)
    term.follow(network)
    assert float(term.teacher.module.main.bias[0]) == pytest.approx(0.99 * 1.0 + 0.01 * 11.0, rel=1e-4)


def test_the_teacher_is_taught_by_nothing_else():
    network = Tiny()
    term = MeanTeacher(network, mixing=True, masking=True).train()
    before, seen = deepcopy(term.teacher), batch()
    loss, parts = term.loss(student(network), seen)
    if loss.requires_grad:
        loss.backward()
    assert same(before, term.teacher) and not term.teacher.training
    assert all(p.grad is None for p in term.teacher.parameters())
    assert set(parts) == {"trust", "mixed", "masked"}


def test_an_unsure_teacher_is_not_followed():
    network, seen = Tiny().eval(), batch()
    term = MeanTeacher(network, masking=True)
    for parameter in term.teacher.parameters():
        parameter.zero_()
    loss, parts = term.loss(student(network), seen)
    assert parts["trust"] == 0.0 and float(loss) == 0.0


def test_pasted_pixels_are_learned_with_their_own_labels():
    network, seen = Tiny().eval(), batch()
    watched, sure = student(network), torch.ones(2, 32, 32)
    levels = watched.levels(seen.images)
    assert torch.allclose(watched.imitation(levels, seen.masks, sure), watched.supervised(levels, seen.masks))
    assert torch.allclose(watched.imitation(levels, seen.masks, sure / 2), watched.supervised(levels, seen.masks) / 2)


@pytest.mark.parametrize("method", ["AdaBN", "self-training", "masked consistency", "combination"])
def test_statistics_are_those_of_the_target_alone(method):
    network, seen = Tiny().train(), batch()
    other = deepcopy(network)
    parts = terms(method, network, 2, Weights(), NARROW).train()
    learn_once(student(network), parts, seen, still(network))
    student(other).levels(seen.target)
    for name in ("running_mean", "running_var"):
        assert torch.equal(getattr(network.encoder[1], name), getattr(other.encoder[1], name))
    if method == "AdaBN":
        learn_once(student(other), [], seen, still(other))
        assert all(torch.equal(g, gradients(other)[name]) for name, g in gradients(network).items()), "nothing else"


@pytest.mark.parametrize("method", ["AdaptSegNet", "ADVENT", "FDA"])
def test_as_published_both_domains_make_the_statistics(method):
    network, seen = Tiny().train(), batch()
    before = network.encoder[1].num_batches_tracked.clone()
    learn_once(student(network), terms(method, network, 2, Weights(), NARROW), seen, still(network))
    assert int(network.encoder[1].num_batches_tracked - before) == 2
    other = Tiny().train()
    student(other).levels(seen.target)
    assert not torch.equal(network.encoder[1].running_mean, other.encoder[1].running_mean)


def test_hidden_tiles_leave_the_statistics_alone():
    network = Tiny().train()
    before = deepcopy(network)
    with statistics_kept(network):
        network(torch.randn(2, 1, 32, 32))
    assert torch.equal(before.encoder[1].running_mean, network.encoder[1].running_mean)
    assert torch.equal(before.encoder[1].running_var, network.encoder[1].running_var)
    network(5 + torch.randn(2, 1, 32, 32))
    assert not torch.equal(before.encoder[1].running_mean, network.encoder[1].running_mean)


def test_varied_tiles_keep_their_shape_and_differ():
    images = torch.randn(4, 1, 32, 32)
    made = varied(images)
    assert made.shape == images.shape and all(not torch.equal(a, b) for a, b in zip(made, images, strict=True))


def test_every_method_can_be_made_and_takes_three_classes():
    for method in METHODS:
        network = Tiny(3)
        parts = terms(method, network, 3, Weights(), NARROW)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        found = learn_once(student(network), parts, batch(n_classes=3), optimizer)
        assert found["loss"] > 0 and all(math.isfinite(value) for value in found.values())
