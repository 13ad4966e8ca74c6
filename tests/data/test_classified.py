"""Batches for the classifier: standardised, repeatable, turned as they should be, every tile in its turn."""

import numpy as np
import pytest
import torch

from micro_lib.core.seeds import stream
from micro_lib.data import classified as module
from micro_lib.data.classified import Batches, Classified, changed, classified, standardised
from micro_lib.data.records import Record


def record(image, mask=None):
    return Record("r", image, np.zeros_like(image) if mask is None else mask, "s", None)


def noise(n=6, px=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, px, px), np.uint8)


def test_a_mask_with_a_pixel_makes_a_crack_tile():
    images = noise(2)
    mask = np.zeros((32, 32), np.uint8)
    mask[3, 4] = 1
    tiles = classified([record(images[0]), record(images[1], mask)])
    assert tiles.labels.tolist() == [0, 1] and tiles.labels.dtype == np.int64
    np.testing.assert_array_equal(tiles.images, images)


@pytest.mark.parametrize("shapes", [(), ((32, 32), (16, 16)), ((32, 16),)])
def test_tiles_of_mixed_size_or_none_are_refused(shapes):
    with pytest.raises(ValueError, match="square tiles of one size"):
        classified([record(np.zeros(shape, np.uint8)) for shape in shapes])


def test_standardising_takes_mean_and_contrast_out():
    images = torch.from_numpy(noise()).float()
    plain = standardised(images)
    assert plain.shape == (6, 1, 32, 32)
    torch.testing.assert_close(plain.mean((1, 2, 3)), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(plain.square().mean((1, 2, 3)), torch.ones(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardised(images * 0.3 + 40), plain, atol=1e-4, rtol=0)


def test_a_constant_tile_becomes_zero_not_infinite():
    assert (standardised(torch.full((1, 8, 8), 200.0)) == 0).all()


def test_unmoved_tiles_are_one_of_four_orientations(monkeypatch):
    monkeypatch.setattr(module, "MOVED", 0.0)
    monkeypatch.setattr(module, "_lit", lambda grey, rng: grey)
    image = noise(1)[0]
    whole = standardised(torch.from_numpy(np.repeat(image[None], 64, 0)).float())
    mirrored = (image, image[:, ::-1], image[::-1], image[::-1, ::-1])  # no quarter turn: layers stay level
    orientations = [standardised(torch.from_numpy(m.copy())[None].float())[0] for m in mirrored]
    found = changed(torch.from_numpy(np.repeat(image[None], 64, 0)), stream(1, "test"))
    assert found.shape == whole.shape
    nearest = [min(range(4), key=lambda i: float((tile - orientations[i]).abs().max())) for tile in found]
    assert set(nearest) == set(range(4))
    for tile, i in zip(found, nearest, strict=True):
        torch.testing.assert_close(tile, orientations[i], atol=2e-3, rtol=0)


def test_what_lies_in_the_inner_part_stays_in_view():
    image = np.full((128, 128), 50, np.uint8)
    image[20, 20] = image[107, 20] = image[20, 107] = image[107, 107] = 255
    shown = changed(torch.from_numpy(np.repeat(image[None], 40, 0)), stream(2, "test"))[:, 0]
    middle = shown.median(-1).values.median(-1).values[:, None, None]
    spots = shown - middle > 0.3 * (shown.amax((1, 2), keepdim=True) - middle)
    quarters = torch.stack([spots[:, y : y + 64, x : x + 64].any(-1).any(-1) for y in (0, 64) for x in (0, 64)])
    assert quarters.all(), "one of the four spots was moved out of its quarter"


def test_light_changes_more_than_a_line_can_undo(monkeypatch):
    monkeypatch.setattr(module, "MOVED", 0.0)
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    shown = changed(torch.from_numpy(np.repeat(ramp[None], 20, 0)), stream(3, "test"))
    sorted_values = shown.flatten(1).sort(1).values
    assert (sorted_values.std(0).max() > 0.05) and torch.isfinite(shown).all()


def test_a_batch_depends_on_seed_and_number_alone():
    tiles = Classified(noise(10), np.arange(10) % 2)
    one, other = Batches(tiles, 5, 4, seed=7), Batches(tiles, 9, 4, seed=7)
    for a, b in zip(one[3], other[3], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one[3][0], Batches(tiles, 5, 4, seed=8)[3][0])
    assert not torch.equal(one[3][0], one[4][0])


def test_every_tile_comes_once_before_any_comes_again():
    tiles = Classified(noise(10), np.arange(10))  # the label names the tile
    batches = Batches(tiles, 10, 4, seed=1)
    seen = torch.cat([batches[i][1] for i in range(len(batches))]).tolist()
    for start in range(0, 40, 10):
        assert sorted(seen[start : start + 10]) == list(range(10))


def test_a_batch_is_full_even_of_few_tiles_each_changed_in_its_own_way():
    images, labels = Batches(Classified(noise(2), np.array([0, 1])), 1, 8, seed=1)[0]
    assert labels.sum() == 4 and len(images) == 8
    same = images[labels == 0]
    assert all(not torch.equal(same[i], same[j]) for i in range(4) for j in range(i))


def test_there_is_no_batch_behind_the_last():
    batches = Batches(Classified(noise(4), np.zeros(4, int)), 2, 4, seed=1)
    assert len(list(batches)) == 2
    with pytest.raises(IndexError):
        batches[2]
