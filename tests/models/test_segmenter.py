"""The segmenter: any size, any bit depth, no seams, and a file that cannot be damaged unnoticed."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from micro_lib.core.labels import GRAIN_BOUNDARY
from micro_lib.data.tiles import FixedTiles, Labelled, reduced
from micro_lib.models import segmenter, unet
from micro_lib.models.carded import CardError
from micro_lib.models.segmenter import Card, Segmenter, standardise

CARD = Card("lite0", GRAIN_BOUNDARY, (40.0, 120.0), {"preset": "broad", "seed": 1}, {"development_miou": 0.6})


class Dark(nn.Module):
    """Boundary is what is darker than the mean, pixel by pixel."""

    def forward(self, x):
        return 4 * torch.cat([x, -x], 1)


def scene(height=61, width=83, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)


@pytest.fixture
def convolutions():
    """A network that looks exactly 12 pixels far."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 13, padding=6), nn.Tanh(), nn.Conv2d(4, 2, 13, padding=6))


@pytest.mark.parametrize("shape", [(1, 1), (37, 501), (300, 90), (257, 258), (415, 64)])
def test_tiled_equals_untiled(shape, convolutions, monkeypatch):
    image = scene(*shape)
    margin = segmenter.MARGIN_PX
    padded = torch.from_numpy(np.pad(standardise(image), margin, mode="reflect"))[None, None]
    with torch.no_grad():
        whole = convolutions(padded).softmax(1)[0, :, margin:-margin, margin:-margin].permute(1, 2, 0)
    monkeypatch.setattr(segmenter, "TILE_PX", 192)
    forward, seen = convolutions.forward, []
    monkeypatch.setattr(convolutions, "forward", lambda x: seen.extend(x.shape[-2:] for _ in x) or forward(x))
    tiled = Segmenter(convolutions, CARD).predict(image)
    assert len(seen) > 1 or max(shape) <= 128
    np.testing.assert_allclose(tiled, whole.numpy(), atol=2e-6)


@given(height=st.integers(1, 700), width=st.integers(1, 700))
@settings(max_examples=30, deadline=None)
def test_every_pixel_of_any_size_is_its_own(height, width):
    image = scene(height, width)
    probabilities = Segmenter(Dark(), CARD).predict(image)
    assert probabilities.shape == (height, width, 2) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    z = standardise(image)
    np.testing.assert_allclose(probabilities[..., 1], 1 / (1 + np.exp(8 * z)), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (37, 501)])
def test_a_real_network_takes_odd_sizes(shape):
    torch.manual_seed(0)
    probabilities = Segmenter(unet.build("lite0", weights="random"), CARD).predict(scene(*shape))
    assert probabilities.shape == (*shape, 2) and np.isfinite(probabilities).all()


def test_bit_depth_and_contrast_do_not_matter():
    torch.manual_seed(0)
    network = Segmenter(unet.build("lite0", weights="random"), CARD)
    image = scene()
    expected = network.predict(image)
    same_scenes = [
        image.astype(np.uint16) * 257,
        image / 255,
        (image / np.float32(255)),
        image.astype(np.int32) * 3 + 7,
    ]
    for same in same_scenes:
        np.testing.assert_allclose(network.predict(same), expected, atol=1e-4)
        assert np.array_equal(network.segment(same), expected.argmax(-1))


@pytest.mark.parametrize("value", [0, 200, 0.1, 1e30])
def test_constant_images_are_zero_and_not_infinite(value):
    assert not standardise(np.full((8, 9), value)).any()
    assert np.isfinite(Segmenter(Dark(), CARD).predict(np.full((8, 9), value))).all()


@given(gain=st.floats(0.01, 100), offset=st.floats(-1000, 1000))
@settings(deadline=None)
def test_standardisation_undoes_gain_and_offset(gain, offset):
    image = scene(20, 20).astype(np.float64)
    np.testing.assert_allclose(standardise(image * gain + offset), standardise(image), atol=1e-4)
    assert standardise(image).std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 4, 3)), r"\(H, W\).*found \(4, 4, 3\)"),
        (np.zeros((0, 4)), r"found \(0, 4\)"),
        (np.array([[1.0, np.nan], [np.inf, 0.0]]), "holds 2 pixels that are NaN or infinite"),
    ],
)
def test_unusable_images_are_refused(pixels, message):
    with pytest.raises(ValueError, match=message):
        standardise(pixels)


def test_scale_shows_the_network_another_size_and_keeps_that_of_the_input():
    blocks = np.kron(scene(12, 14), np.ones((8, 8), np.uint8))
    smooth = cv2.GaussianBlur(blocks, (0, 0), 2)
    seen = []

    class Looks(Dark):
        def forward(self, x):
            seen.append(x.shape[-2:])
            return super().forward(x)

    watched = Segmenter(Looks(), CARD)
    for scale in (0.5, 2.0, 0.37):
        ids = watched.segment(smooth, scale)
        assert ids.shape == smooth.shape and ids.dtype == np.uint8
        assert (ids == watched.segment(smooth)).mean() > 0.95
    halved, _, doubled, *_ = seen
    assert halved[0] < doubled[0]
    for scale in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="must be a positive number"):
            watched.predict(smooth, scale)


class Noting(Dark):
    """Keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x.numpy().copy())
        return super().forward(x)


def speckled(height, width, seed=0):
    """Return noise as fine as pixels, of which averaging takes most away, on bright and dark halves."""
    image = np.random.default_rng(seed).normal(120, 30, (height, width))
    image[:, width // 2 :] += 40
    return image.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("working_scale", [1.0, 0.5])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_network_sees_what_it_was_trained_on(working_scale, scale):
    """At the scale it works at, as a training tile of the reduced micrograph: mean 0 and standard deviation 1."""
    image, network = speckled(192, 192), Noting()
    Segmenter(network, replace(CARD, working_scale=working_scale)).predict(image, scale)
    (tile,) = network.seen
    side, margin = round(192 * working_scale * scale), segmenter.MARGIN_PX
    shown = tile[0, 0, margin : margin + side, margin : margin + side]
    assert shown.mean() == pytest.approx(0, abs=1e-4) and shown.std() == pytest.approx(1, abs=1e-4)
    small = reduced(Labelled(image, np.zeros_like(image)), working_scale * scale)
    expected, _ = FixedTiles([small], side)[0]
    # Training tiles have whole grey levels, so half of one is as near as they come.
    np.testing.assert_allclose(shown, expected[0].numpy(), atol=0.51 / small.image.std() + 5e-3)


def test_detail_that_averages_out_is_no_contrast():
    fine = np.indices((128, 128)).sum(0) % 2 * np.uint8(255)  # every pixel of half the size is the same grey
    probability = Segmenter(Dark(), replace(CARD, working_scale=0.5)).predict(fine)
    np.testing.assert_allclose(probability, 0.5, atol=1e-6)


class Hungry(Dark):
    def __init__(self, most):
        super().__init__()
        self.most, self.batches = most, []

    def forward(self, x):
        self.batches.append(len(x))
        if len(x) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return super().forward(x)


def test_batches_shrink_when_memory_runs_out():
    image = scene(600, 1200)
    network = Hungry(1)
    np.testing.assert_array_equal(Segmenter(network, CARD).predict(image), Segmenter(Dark(), CARD).predict(image))
    assert network.batches[:3] == [4, 2, 1] and set(network.batches[3:]) == {1}
    with pytest.raises(MemoryError, match="one tile of 512 x 512 pixels does not fit"):
        Segmenter(Hungry(0), CARD).predict(image)


def test_other_errors_pass():
    class Broken(Dark):
        def forward(self, x):
            raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Segmenter(Broken(), CARD).predict(scene())


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    torch.manual_seed(0)
    made = Segmenter(unet.build("lite0", weights="random"), CARD)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    made.save(path)
    return made, path


def test_a_stored_segmenter_is_the_same(stored):
    made, path = stored
    loaded = Segmenter.load(path)
    assert loaded.card == CARD
    assert np.array_equal(loaded.predict(scene()), made.predict(scene()))


def test_a_card_of_another_network_is_refused(stored, tmp_path):
    made, _ = stored
    other = Segmenter(made.network, Card("resnet18", GRAIN_BOUNDARY, (1.0, 2.0)))
    other.save(tmp_path / "other.safetensors")
    with pytest.raises(CardError, match=r"other\.safetensors does not make a segmenter \(RuntimeError: Error"):
        Segmenter.load(tmp_path / "other.safetensors")
