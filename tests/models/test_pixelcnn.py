"""PixelCNN: no code sees itself or what follows, every other is seen, and sampling code by code is the same network."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from micro_lib.models.pixelcnn import UNKNOWN, GatedPixelCNN, distribution, draw, incremental_logits, sample

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def network_of(n_codes=12, *, lively=True, **options):
    network = GatedPixelCNN(n_codes, **{"channels": 8, "layers": 4, **options}).eval()
    if lively:  # as torch starts them, the deepest layers see next to nothing
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.35)
    return network


def noise(seed=0):
    return torch.Generator().manual_seed(seed)


# The network


def by_hand(network, codes, condition):
    """Logits (K, H, W) of one map from the definition: a number per layer, stack and position, nothing shifted."""
    height, width = codes.shape
    weights = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    told = None if condition is None else condition.double().numpy()

    def squash(pre):
        values, gates = np.split(pre, 2)
        return np.tanh(values) / (1 + np.exp(-gates))

    def over(kernel, stack, layer, positions):
        """Sum of the taps (C', C) of a kernel times what is at their positions, nothing outside the map."""
        taps = zip(np.moveaxis(kernel.reshape(*kernel.shape[:2], -1), 2, 0), positions, strict=True)
        return sum(tap @ stack(layer, i, j) for tap, (i, j) in taps if 0 <= i < height and 0 <= j < width)

    def told_to(layer, stack):
        return 0 if told is None else np.split(weights[f"layers.{layer}.condition.weight"] @ told, 2)[stack]

    @cache
    def above(layer, i, j):
        reach, rows = (3, range(i - 3, i)) if layer == 0 else (1, range(i - 1, i + 1))
        positions = [(a, b) for a in rows for b in range(j - reach, j + reach + 1)]
        bias = weights[f"layers.{layer}.vertical.bias"]
        return bias + over(weights[f"layers.{layer}.vertical.weight"], vertical, layer, positions)

    @cache
    def vertical(layer, i, j):
        """What layer `layer` sees in the vertical stack."""
        if layer == 0:
            return weights["embedding.weight"][codes[i, j]]
        return squash(above(layer - 1, i, j) + told_to(layer - 1, 0))

    @cache
    def horizontal(layer, i, j):
        if layer == 0:
            return weights["embedding.weight"][codes[i, j]]
        behind = layer - 1
        positions = [(i, b) for b in (range(j - 3, j) if behind == 0 else range(j - 1, j + 1))]
        both = weights[f"layers.{behind}.horizontal.bias"] + told_to(behind, 1)
        both = both + over(weights[f"layers.{behind}.horizontal.weight"], horizontal, behind, positions)
        both = both + weights[f"layers.{behind}.across.weight"][:, :, 0, 0] @ above(behind, i, j)
        mixed = weights[f"layers.{behind}.mix.weight"][:, :, 0, 0] @ squash(both)
        return mixed if behind == 0 else mixed + horizontal(behind, i, j)

    def head(x):
        wide = weights["head.0.weight"][:, :, 0, 0] @ x + weights["head.0.bias"]
        return weights["head.2.weight"][:, :, 0, 0] @ np.maximum(wide, 0) + weights["head.2.bias"]

    last = len(network.layers)
    logits = [[head(horizontal(last, i, j)) for j in range(width)] for i in range(height)]
    return torch.from_numpy(np.moveaxis(np.array(logits), 2, 0)).float()


@pytest.mark.parametrize("n_conditions", [0, 2])
def test_logits_equal_those_from_the_definition(n_conditions):
    network = network_of(n_conditions=n_conditions)
    codes = torch.randint(12, (2, 5, 7))
    condition = torch.randn(2, 2) if n_conditions else None
    with torch.no_grad():
        logits = network(codes, condition)
    for n in range(2):
        expected = by_hand(network, codes[n].numpy(), None if condition is None else condition[n])
        torch.testing.assert_close(logits[n], expected, atol=1e-4, rtol=1e-4)
    assert logits.std() > 0.1


def before(shape, position):
    """Mask (H, W) of what comes before a position in reading order."""
    order = torch.arange(math.prod(shape)).reshape(shape)
    return order < order[position]


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (1, 5), (5, 1)])
@torch.no_grad()
def test_a_changed_code_changes_nothing_before_or_at_it(shape):
    network = network_of()
    codes = torch.randint(12, (1, *shape))
    logits = network(codes)
    for position in np.ndindex(shape):
        other = codes.clone()
        other[0][position] = (codes[0][position] + 5) % 12
        changed = (network(other) != logits).any(1)[0]  # (H, W)
        until = before(shape, position)
        until[position] = True
        assert not (changed & until).any()
        assert changed.any() or position == (shape[0] - 1, shape[1] - 1)


@pytest.mark.parametrize("shape", [(4, 7), (7, 4)])
def test_gradients_reach_all_codes_before_and_no_other(shape):
    """All: there is no blind spot. In double precision, for the farthest act little."""
    network = network_of(layers=8).double()
    embedded = []
    network.embedding.register_forward_hook(lambda module, inputs, output: embedded.append(output))
    logits = network(torch.randint(12, (1, *shape)))
    for position in np.ndindex(shape):
        (gradient,) = torch.autograd.grad(logits[0, :, *position].sum(), embedded[0], retain_graph=True)
        reached = gradient[0].abs().sum(-1) > 0  # (H, W)
        assert torch.equal(reached, before(shape, position)), position


@torch.no_grad()
def test_a_longer_map_begins_like_a_shorter_one():
    network = network_of()
    codes = torch.randint(12, (2, 9, 5))
    torch.testing.assert_close(network(codes)[:, :, :4], network(codes[:, :4]))


@torch.no_grad()
def test_conditions_act_on_every_code_and_each_on_its_own_map():
    network = network_of(n_conditions=2)
    codes = torch.randint(12, (2, 3, 5))
    condition = torch.rand(2, 2)
    other = condition.clone()
    other[1] += 0.5
    changed = (network(codes, condition) - network(codes, other)).abs().amax(1) > 1e-6  # (B, H, W)
    assert not changed[0].any() and changed[1].all()


def test_dropout_acts_in_training_alone():
    network, codes = network_of(dropout=0.5), torch.randint(12, (2, 4, 5))
    assert torch.equal(network(codes), network(codes))
    network.train()
    assert not torch.equal(network(codes), network(codes))


# Sampling


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_conditions", [0, 3])
@pytest.mark.parametrize("shape", [(3, 9, 6), (1, 4, 11), (2, 1, 5), (2, 5, 1)])
@torch.no_grad()
def test_code_by_code_gives_the_logits_of_the_full_forward_pass(shape, n_conditions, device):
    network = network_of(n_conditions=n_conditions, dropout=0.5).to(device)
    codes = torch.randint(12, shape).to(device)
    condition = torch.rand(shape[0], 3).to(device) if n_conditions else None
    expected = network(codes, condition)
    network.train()  # dropout stays off
    found = incremental_logits(network, codes, condition)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.1


@torch.no_grad()
def test_code_by_code_gives_the_logits_of_the_network_that_is_timed():
    network = network_of(512, lively=False, channels=64, layers=12)
    codes = torch.randint(512, (2, 10, 16))
    torch.testing.assert_close(incremental_logits(network, codes), network(codes), atol=1e-4, rtol=0)


@torch.no_grad()
def test_under_autocast_the_logits_are_about_the_same():
    network = network_of(64, lively=False, channels=32, layers=6)
    codes = torch.randint(64, (4, 8, 8))
    expected = network(codes)
    with torch.autocast("cpu", torch.bfloat16):
        found = incremental_logits(network, codes)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.03 * expected.std()


@torch.no_grad()
def naive(network, shape, seed, condition=None, given=None, **options):
    """Sample with a full forward pass for every code."""
    codes = torch.full(shape, UNKNOWN) if given is None else given
    drawn, heights = codes.clamp(min=0), 1 - torch.rand(shape, generator=noise(seed))
    for i, j in np.ndindex(shape[1:]):
        logits = network(drawn, condition)[:, :, i, j]
        new = draw(distribution(logits, **options), heights[:, i, j])
        drawn[:, i, j] = torch.where(codes[:, i, j] == UNKNOWN, new, codes[:, i, j])
    return drawn


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_p": 0.8}])
def test_samples_are_those_of_a_forward_pass_for_every_code(options, device):
    network = network_of(n_conditions=2)
    condition = torch.rand(3, 2)
    expected = naive(network, (3, 6, 5), 1, condition, **options)
    found = sample(network.to(device), (3, 6, 5), generator=noise(1), condition=condition.to(device), **options)
    assert found.device.type == device
    assert torch.equal(found.cpu(), expected)
    assert len(found.unique()) > 4


@given(st.data())
@settings(max_examples=15)
def test_what_is_given_is_kept_and_the_rest_is_drawn_as_ever(data):
    """Any part may be given, the same in all maps or not: rows that are given whole are not even computed."""
    torch.manual_seed(data.draw(st.integers(0, 99), label="seed"))
    network, codes = network_of(), torch.randint(12, (2, 5, 4))
    rows = torch.tensor(data.draw(st.lists(st.booleans(), min_size=5, max_size=5), label="whole rows"))
    share = data.draw(st.sampled_from([0.0, 0.5, 1.0]), label="share of the others")
    known = rows[None, :, None] | (torch.rand(2, 5, 4) < share)
    partly = torch.where(known, codes, UNKNOWN)
    untouched = partly.clone()
    found = sample(network, (2, 5, 4), generator=noise(3), given=partly)
    assert torch.equal(partly, untouched)
    assert torch.equal(found[known], codes[known]) and found.min() >= 0
    assert torch.equal(found, naive(network, (2, 5, 4), 3, given=partly))


def test_the_seed_decides():
    network = network_of()
    first, again, other = (sample(network, (2, 5, 4), generator=noise(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_samples_follow_the_distribution_of_the_network():
    """Maps of 1 x 2 codes: all 9 outcomes, against the product of the conditionals."""
    network = network_of(3)
    n = 20_000
    found = sample(network, (n, 1, 2), generator=noise(4))[:, 0]  # (n, 2)
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    with torch.no_grad():
        log = network(pairs[:, None]).log_softmax(1)[:, :, 0]  # (9, K, 2)
    expected = log.gather(1, pairs[:, None]).sum((1, 2)).exp()
    observed = (3 * found[:, 0] + found[:, 1]).bincount(minlength=9) / n
    assert expected.sum().item() == pytest.approx(1)
    assert (observed - expected).abs().max() < 4 * 0.5 / math.sqrt(n)
    assert expected.max() > 2 * expected.min()


# Distributions, by hand


def logits_of(*probabilities):
    return torch.tensor([probabilities]).log()


def test_temperature_by_hand():
    p = (0.5, 0.1, 0.4)
    assert distribution(logits_of(*p))[0].tolist() == pytest.approx(p)
    squares = [0.25 / 0.42, 0.01 / 0.42, 0.16 / 0.42]
    assert distribution(logits_of(*p), temperature=0.5)[0].tolist() == pytest.approx(squares)
    roots = np.sqrt(p) / np.sqrt(p).sum()
    assert distribution(logits_of(*p), temperature=2.0)[0].tolist() == pytest.approx(roots.tolist())
    assert distribution(logits_of(*p), temperature=1e-3)[0].tolist() == pytest.approx([1, 0, 0])


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.01, (0, 0, 1, 0)),
        (0.49, (0, 0, 1, 0)),
        (0.51, (0.375, 0, 0.625, 0)),
        (0.79, (0.375, 0, 0.625, 0)),
        (0.81, (0.3 / 0.95, 0, 0.5 / 0.95, 0.15 / 0.95)),
        (0.96, (0.3, 0.05, 0.5, 0.15)),
        (1.0, (0.3, 0.05, 0.5, 0.15)),
    ],
)
def test_top_p_by_hand(top_p, expected):
    found = distribution(logits_of(0.3, 0.05, 0.5, 0.15), top_p=top_p)
    assert found[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_temperature_comes_before_top_p():
    # Squared and normalised: 0.09, 0.0025, 0.25, 0.0225 by 0.365; the largest alone has 0.68.
    found = distribution(logits_of(0.3, 0.05, 0.5, 0.15), temperature=0.5, top_p=0.6)
    assert found[0].tolist() == pytest.approx([0, 0, 1, 0])


def test_rows_of_a_batch_have_nuclei_of_their_own():
    found = distribution(torch.cat([logits_of(0.9, 0.05, 0.05), logits_of(0.3, 0.3, 0.4)]), top_p=0.8)
    torch.testing.assert_close(found, torch.tensor([[1, 0, 0], [0.3, 0.3, 0.4]]))


@given(st.integers(0, 999), st.floats(0.05, 1), st.floats(0.1, 5))
def test_nuclei_suffice_and_are_the_smallest(seed, top_p, temperature):
    logits = 2 * torch.randn(3, 9, generator=noise(seed), dtype=torch.float64)
    whole = distribution(logits, temperature)
    found = distribution(logits, temperature, top_p)
    for p, q in zip(whole, found, strict=True):
        kept = q > 0
        assert p[kept].sum() >= top_p - 1e-9
        assert p[kept].sum() - p[kept].min() < top_p + 1e-9
        assert kept.all() or p[kept].min() >= p[~kept].max()
        torch.testing.assert_close(q[kept] * p[kept].sum(), p[kept])


def test_codes_are_drawn_as_often_as_they_are_probable():
    n = 1000
    heights = (torch.arange(n) + 1.0) / n  # in (0, 1], evenly
    drawn = draw(torch.tensor([[0.2, 0.0, 0.5, 0.3]]).expand(n, -1), heights)
    counts = drawn.bincount(minlength=4)
    assert counts[1] == 0 and (counts - torch.tensor([200, 0, 500, 300])).abs().max() <= 1


def test_the_ends_of_the_heights_find_codes_that_are_possible():
    probability = torch.tensor([[0.0, 0.7, 0.3, 0.0]]).expand(2, -1)
    assert draw(probability, torch.tensor([2.0**-24, 1.0])).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_p": 0.0}, r"top_p is 0.0; it must be in \(0, 1\]"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        (
            {"given": torch.zeros(2, 4, 5, dtype=torch.int64)},
            r"the given part has \(2, 4, 5\)",
        ),
        ({"given": torch.full((2, 5, 4), 12)}, "given codes must be in 0 to 11, or -1 .*; found 12 to 12"),
        ({"given": torch.full((2, 5, 4), -2)}, "found -2 to -2"),
        ({"condition": None}, r"needs a condition of shape \(2, 3\); found None"),
        ({"condition": torch.zeros(1, 3)}, r"needs a condition of shape \(2, 3\); found \(1, 3\)"),
    ],
)
def test_what_cannot_be_sampled_is_refused(options, message):
    network = network_of(n_conditions=3)
    with pytest.raises(ValueError, match=message):
        sample(network, (2, 5, 4), **{"generator": noise(), "condition": torch.zeros(2, 3), **options})


def test_a_condition_that_is_not_wanted_is_refused():
    with pytest.raises(ValueError, match=r"needs a condition of shape None; found \(1, 3\)"):
        network_of()(torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, 3))


# Learning


@pytest.fixture(scope="module")
def four():
    """Four random maps, and a network that has learnt them, told which is which."""
    torch.manual_seed(0)
    maps, which = torch.randint(16, (4, 6, 8)), torch.eye(4)
    network = GatedPixelCNN(16, channels=24, layers=4, n_conditions=4, dropout=0.1)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(150):
        loss = F.cross_entropy(network(maps, which), maps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval(), maps, which


def test_four_maps_are_learnt(four):
    network, maps, which = four
    with torch.no_grad():
        assert F.cross_entropy(network(maps, which), maps) < 0.02  # nats; log(16) = 2.8 without learning


def test_four_maps_are_sampled_and_completed(four):
    network, maps, which = four
    found = sample(network, maps.shape, generator=noise(5), condition=which, top_p=0.9)
    assert torch.equal(found, maps)
    lower = torch.where(torch.arange(6)[:, None] < 2, maps, UNKNOWN)
    assert torch.equal(sample(network, maps.shape, generator=noise(6), condition=which, given=lower, top_p=0.9), maps)
