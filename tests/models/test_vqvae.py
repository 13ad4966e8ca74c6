"""VQ-VAE: codes are the nearest ones in any precision, the codebook lives, image and mask come back together."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from micro_lib.models.vqvae import COMMITMENT, DEAD_BELOW, DECAY, VQVAE, Output, loss, usage


def small(**options):
    return VQVAE(3, **{"n_codes": 32, "code_dim": 8, "hidden": 16, "n_blocks": 1, **options})


def pairs(n=4, height=48, width=32):
    """Images and masks with structure of 8 px."""
    mask = torch.randint(3, (n, height // 8, width // 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    image = (mask[:, None] - 1.0) + 0.2 * torch.randn(n, 1, height, width)
    return (image - image.mean()) / image.std(), mask


def started(**options):
    """A network whose codebook has begun, in evaluation mode."""
    network = small(**options)
    network(*pairs(16))
    return network.eval()


def nearest(network, vectors):
    """Codes (B, h, w) by brute force in double precision, and how much farther the next-best code is."""
    flat = vectors.movedim(1, -1).double()  # (B, h, w, D)
    distance = (flat[..., None, :] - network.quantiser.codebook.double()).square().sum(-1)  # (B, h, w, K)
    best, second = distance.sort(-1).values[..., :2].unbind(-1)
    return distance.argmin(-1), second - best


@pytest.mark.parametrize("down", [4, 8])
@pytest.mark.parametrize("shape", [(32, 32), (64, 24)])
def test_shapes_follow_the_input_and_what_is_decoded_is_what_was_returned(down, shape):
    network = started(down=down)
    image, mask = pairs(2, *shape)
    output = network(image, mask)
    assert output.image.shape == image.shape
    assert output.logits.shape == (2, 3, *shape)
    assert output.codes.shape == (2, shape[0] // down, shape[1] // down)
    codes = network.encode(image, mask)
    assert codes.dtype == torch.int64 and torch.equal(codes, output.codes)
    decoded, logits = network.decode(codes)
    torch.testing.assert_close(decoded, output.image)
    torch.testing.assert_close(logits, output.logits)


@torch.no_grad()
def test_codes_are_the_nearest():
    network = started()
    image, mask = pairs()
    vectors = network.encoder(torch.cat([image, F.one_hot(mask, 3).movedim(-1, 1)], 1))
    expected, margin = nearest(network, vectors)
    sure = margin > 1e-9
    assert sure.float().mean() > 0.9 and len(expected.unique()) > 5
    assert torch.equal(network.encode(image, mask)[sure], expected[sure])


@torch.no_grad()
def test_codes_are_the_nearest_under_autocast_too():
    network = started()
    # Codes close to each other beside their distance from the origin: bfloat16, with its 8 bits, mixes them up.
    network.quantiser.codebook = 20 + torch.randn(32, 8)
    vectors = 20 + torch.randn(2, 8, 6, 4)
    with torch.autocast("cpu", torch.bfloat16):
        mixed_up = network.quantiser(vectors)[1]
        found = network._quantise(vectors, frozen=True)[1]
    expected, _ = nearest(network, vectors)
    assert (mixed_up != expected).float().mean() > 0.2  # or this test shows nothing
    assert torch.equal(found, expected)


def test_reconstructions_in_bfloat16_train():
    network = small()
    image, mask = pairs()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(image, mask)
    assert output.image.dtype == torch.bfloat16
    parts = loss(output, image, mask)
    assert all(part.dtype == torch.float32 for part in parts)
    parts.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_gradients_pass_straight_through():
    network = small().train()
    vectors = torch.randn(2, 8, 4, 3, requires_grad=True)
    quantised, _ = network._quantise(vectors, frozen=True)
    upstream = torch.randn_like(quantised)
    (gradient,) = torch.autograd.grad(quantised, vectors, upstream)
    torch.testing.assert_close(gradient, upstream)


def test_commitment_is_the_mean_square_distance_to_the_codes():
    network = started()
    image, mask = pairs()
    vectors = network.encoder(torch.cat([image, F.one_hot(mask, 3).movedim(-1, 1)], 1))
    expected = (vectors - network.quantiser.codebook[network.encode(image, mask)].movedim(-1, 1)).square().mean()
    found = network(image, mask).commitment
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, network.encoder[-1].bias)
    (wanted,) = torch.autograd.grad(expected, network.encoder[-1].bias)
    torch.testing.assert_close(gradient, wanted)
    # In training mode too, to the codes from before they follow the images.
    torch.testing.assert_close(network.train()(image, mask).commitment, expected)


def test_codebook_follows_running_means():
    network = started().train()
    book = network.quantiser._codebook
    book.cluster_size.fill_(4.0)
    book.embed_avg.copy_(4.0 * book.embed)
    before = network.quantiser.codebook.clone()  # (K, D)
    vectors = (before[7] + 1e-3 * torch.randn(10, 8)).T.reshape(1, 8, 2, 5)
    assert (network._quantise(vectors, frozen=False)[1] == 7).all()
    sizes = DECAY * 4.0 + (1 - DECAY) * 10.0
    sums = DECAY * 4.0 * before[7] + (1 - DECAY) * vectors.sum((0, 2, 3))
    torch.testing.assert_close(book.cluster_size[0, 7], torch.tensor(sizes))
    torch.testing.assert_close(network.quantiser.codebook[7], sums / sizes, atol=1e-5, rtol=1e-4)
    others = torch.arange(32) != 7
    torch.testing.assert_close(network.quantiser.codebook[others], before[others], atol=1e-5, rtol=1e-4)
    assert not list(network.quantiser.parameters())  # no optimiser moves it


@pytest.mark.parametrize(("down", "n_blocks"), [(4, 2), (8, 2), (8, 1)])
def test_pixels_act_on_codes_as_far_as_is_told(down, n_blocks):
    network = small(down=down, n_blocks=n_blocks)
    side = 2 * network.reach_px + 3 * down
    image = torch.randn(1, 4, side // down * down, side // down * down, requires_grad=True)
    vectors = network.encoder(image)
    row = vectors.shape[2] // 2
    vectors[..., row, row].abs().sum().backward()
    rows = image.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert rows.min() == down * row - network.reach_px and rows.max() == down * (row + 1) - 1 + network.reach_px


def test_codes_are_refused_before_there_is_a_codebook():
    network = small().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(RuntimeError, match="no codebook yet: train it, or load one"):
        network.encode(*pairs())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("use", [lambda n, i, m: n.train().encode(i, m), lambda n, i, m: n.eval()(i, m)])
def test_codebook_stands_still_outside_training(use):
    network = started()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    use(network, *pairs())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_codebook_starts_at_the_vectors_of_the_first_images():
    network = small().eval()
    image, mask = pairs(16)
    vectors = network.encoder(torch.cat([image, F.one_hot(mask, 3).movedim(-1, 1)], 1))
    spread = (vectors - vectors.mean((0, 2, 3), keepdim=True)).square().mean()
    output = network(image, mask)
    assert output.commitment < 0.3 * spread  # a codebook of one point leaves all of it
    assert usage(output.codes.flatten().bincount(minlength=32)).share > 0.9


def test_dead_codes_come_back():
    network = started().train()
    book = network.quantiser._codebook
    book.embed[:, 1:] = 1e3  # no vector is near
    book.embed_avg[:, 1:] = 1e3 * DEAD_BELOW
    book.cluster_size[:, 1:] = DEAD_BELOW
    image, mask = pairs(16)
    shares = [usage(network(image, mask).codes.flatten().bincount(minlength=32)).share for _ in range(4)]
    assert shares[0] == 1 / 32
    assert shares[-1] > 0.5


def test_loss_by_hand():
    image = torch.tensor([-1.0, 1.0, -1.0, 1.0]).reshape(1, 1, 2, 2)  # mean 0, variance 1
    mask = torch.tensor([[[0, 1], [2, 3]]])
    guess = Output(torch.zeros(1, 1, 2, 2), torch.zeros(1, 4, 2, 2), torch.zeros(1, 1, 1), torch.tensor(0.4))
    found = loss(guess, image, mask)
    assert found.image == 1  # the mean of the data loses all of their variance
    assert found.mask.item() == pytest.approx(math.log(4))
    assert found.commitment.item() == pytest.approx(0.4)
    assert found.total.item() == pytest.approx(1 + math.log(4) + 0.25 * 0.4)
    assert COMMITMENT == 0.25
    logits = 50.0 * F.one_hot(mask, 4).movedim(-1, 1)
    perfect = loss(Output(image, logits, guess.codes, torch.tensor(0.0)), image, mask)
    assert perfect.total.item() == pytest.approx(0, abs=1e-6)
    unsure = guess._replace(logits=torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 4, 1, 1).expand(1, 4, 2, 2))
    first = math.log(math.e + 3) - 1  # nats where class 0 is true; one more where it is not
    told = loss(unsure, image, mask, torch.tensor([5.0, 1.0, 1.0, 1.0]))
    assert told.mask.item() == pytest.approx((5 * first + 3 * (first + 1)) / 8)


def test_usage_by_hand():
    assert usage(torch.tensor([5, 5, 0, 0])) == (0.5, pytest.approx(2))
    assert usage(torch.tensor([9, 0, 0, 0])) == (0.25, pytest.approx(1))
    assert usage(torch.ones(512, dtype=torch.int64)) == (1, pytest.approx(512))
    # Entropy of (1/2, 1/4, 1/4) is 3/2 ln 2.
    assert usage(torch.tensor([2, 1, 1])) == (1, pytest.approx(2**1.5))
    with pytest.raises(ValueError, match="no code occurred"):
        usage(torch.zeros(4, dtype=torch.int64))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40).filter(any), st.integers(2, 9))
def test_usage_is_bounded_and_knows_no_scale(counts, factor):
    counts = torch.tensor(counts)
    found = usage(counts)
    in_use = (counts > 0).sum().item()
    assert found.share == pytest.approx(in_use / len(counts))
    assert 1 - 1e-9 <= found.perplexity <= in_use + 1e-9
    assert usage(factor * counts) == pytest.approx(found)


def test_four_pairs_are_learnt_image_and_mask_together():
    network = small(hidden=32)
    image, mask = pairs(4, 32, 48)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(150):
        found = loss(network(image, mask), image, mask)
        optimiser.zero_grad()
        found.total.backward()
        optimiser.step()
    with torch.no_grad():
        decoded, logits = network.eval().decode(network.encode(image, mask))
    assert (logits.argmax(1) == mask).float().mean() > 0.98
    assert F.mse_loss(decoded, image) < 0.15  # of a variance of 1; the noise alone is 0.06
    # One map of codes holds both: with other masks the same images get other codes.
    assert (network.encode(image, (mask + 1) % 3) != network.encode(image, mask)).float().mean() > 0.3


def test_a_stored_network_decodes_the_same(tmp_path):
    network = started()
    torch.save(network.state_dict(), tmp_path / "network.pt")
    again = small()
    again.load_state_dict(torch.load(tmp_path / "network.pt", weights_only=True))
    again.eval()
    image, mask = pairs()
    codes = network.encode(image, mask)
    assert torch.equal(again.encode(image, mask), codes)  # and the codebook does not start anew
    for ours, theirs in zip(again.decode(codes), network.decode(codes), strict=True):
        assert torch.equal(ours, theirs)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="down is 2; it must be 4 or 8"):
        small(down=2)
    network = started()
    image, mask = pairs()
    with pytest.raises(ValueError, match=r"multiples of 8 are expected; found \(4, 1, 48, 30\)"):
        network(image[..., :30], mask[..., :30])
    with pytest.raises(ValueError, match=r"found \(4, 1, 48, 32\) and \(4, 32, 48\)"):
        network.encode(image, mask.mT)
    for wrong, said in ((mask + 3, "3 to"), (mask - 1, "-1 to")):
        with pytest.raises(ValueError, match=f"masks hold class ids {said} .*; this network has"):
            network(image, wrong)
