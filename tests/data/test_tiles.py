"""Training tiles: the same whoever makes them, whole classes only, standardised like the micrograph."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from micro_lib.data import tiles
from micro_lib.data.tiles import EpochSampler, FixedTiles, Labelled, Rendered, Tiles


class Made(NamedTuple):
    image: np.ndarray
    mask: np.ndarray


def micrograph(seed, side=96):
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.integers(0, 2, (6, 6), np.uint8), np.ones((side // 6, side // 6), np.uint8))
    return Labelled((mask * 90 + rng.integers(0, 60, mask.shape)).astype(np.uint8), mask)


@pytest.fixture
def micrographs():
    return [micrograph(i) for i in range(10)]


def batches(micrographs, workers, epoch=3):
    sampler = EpochSampler(len(micrographs), seed=5)
    sampler.epoch = epoch
    loader = DataLoader(Tiles(micrographs, 32, seed=5), batch_size=4, sampler=sampler, num_workers=workers)
    return [torch.cat([part.flatten(1).float() for part in batch], 1) for batch in loader]


def test_tiles_do_not_depend_on_the_number_of_workers(micrographs):
    alone = batches(micrographs, 0)
    for workers in (1, 2):
        for a, b in zip(alone, batches(micrographs, workers), strict=True):
            assert torch.equal(a, b)


def test_a_tile_is_a_function_of_its_key(micrographs):
    data = Tiles(micrographs, 32, seed=1)
    first = data[(0, 4)]
    for key in ((1, 4), (0, 5)):
        assert not torch.equal(first[0], data[key][0])
    again = data[(0, 4)]
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], Tiles(micrographs, 32, seed=2)[(0, 4)][0])


def test_tiles_leave_the_global_generator_alone(micrographs):
    before = torch.get_rng_state()
    Tiles(micrographs, 32, seed=1)[(0, 0)]
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("mode", tiles.MODES)
def test_shapes_types_and_classes(micrographs, mode):
    for data, key in ((Tiles(micrographs, 64, seed=1, mode=mode), (0, 1)), (FixedTiles(micrographs, 64, mode=mode), 1)):
        image, mask = data[key]
        assert image.shape == (1, 64, 64) and image.dtype == torch.float32 and torch.isfinite(image).all()
        assert mask.shape == (64, 64) and mask.dtype == torch.int64 and set(mask.unique().tolist()) <= {0, 1}
        assert type(image) is torch.Tensor and type(mask) is torch.Tensor


def test_validation_tile_is_the_standardised_middle(micrographs):
    image, mask = FixedTiles(micrographs, 32)[2]
    whole = micrographs[2].image.astype(float)
    expected = ((whole - whole.mean()) / whole.std())[32:64, 32:64]
    np.testing.assert_allclose(image[0].numpy(), expected, atol=1e-5)
    assert np.array_equal(mask.numpy(), micrographs[2].mask[32:64, 32:64])


def test_validation_refuses_micrographs_smaller_than_the_tile(micrographs):
    with pytest.raises(ValueError, match=r"\(96, 96\) is too small for tiles of 128 px"):
        FixedTiles(micrographs, 128)[0]


def test_order_is_a_permutation_of_its_own_in_each_epoch():
    sampler = EpochSampler(50, seed=3)
    orders = []
    for sampler.epoch in (0, 1, 0):
        keys = list(sampler)
        assert {epoch for epoch, _ in keys} == {sampler.epoch}
        orders.append([i for _, i in keys])
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] == orders[2] != orders[1]


def test_rendered_and_pooled_micrographs_are_the_same():
    calls = []

    def render(row):
        calls.append(row["seed"])
        made = micrograph(int(row["seed"]))
        return Made(made.image.astype(np.float32), made.mask)

    rendered = Rendered(pd.DataFrame({"seed": [4, 9, 2], "look": ["a", "b", "a"]}), render)
    pool = tiles.pool(rendered)
    assert calls == [4, 9, 2] and len(rendered) == len(pool) == 3
    on_the_fly, in_memory = Tiles(rendered, 32, seed=1), Tiles(pool, 32, seed=1)
    assert torch.equal(on_the_fly[(0, 1)][0], in_memory[(0, 1)][0])
    assert calls == [4, 9, 2, 9]  # rendered again, not kept
    assert pool[0].image.dtype == np.uint8 and np.array_equal(pool[0].mask, micrograph(4).mask)


def test_twelve_bits_in_sixteen_keep_their_grey_levels():
    camera = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    found = tiles.to_uint8(camera)
    assert found.dtype == np.uint8 and len(np.unique(found)) == 256
    assert (np.abs(found - camera * (255 / 4095)) <= 0.501).all()
    full = np.array([[0, 32768, 65535]], np.uint16)
    assert tiles.to_uint8(full).tolist() == [[0, 128, 255]]


def test_eight_bits_stay_as_they_are():
    image = np.array([[7, 9], [100, 8]], np.uint8)
    assert tiles.to_uint8(image) is image


def test_floats_are_stretched_and_broken_ones_refused():
    assert tiles.to_uint8(np.array([[0.5, 1.0], [0.75, 0.5]])).tolist() == [[0, 255], [128, 0]]
    assert tiles.to_uint8(np.full((2, 2), 3.0)).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ValueError, match="finite floats; found float64, 1 of them not finite"):
        tiles.to_uint8(np.array([[np.nan]]))
    with pytest.raises(ValueError, match="int64"):
        tiles.to_uint8(np.array([[1]]))


def test_refusals(micrographs):
    with pytest.raises(ValueError, match="mode is 'zoom'; there are crop, resize"):
        Tiles(micrographs, 32, seed=1, mode="zoom")
    with pytest.raises(ValueError, match="no micrographs"):
        FixedTiles([], 32)


@pytest.mark.parametrize("mode", tiles.MODES)
def test_a_mask_of_another_size_is_refused_not_shifted(micrographs, mode):
    """Such as under an information bar that was cut off the mask alone."""
    image, mask = micrographs[1]
    broken = [micrographs[0], Labelled(image, mask[:-8])]
    for cut in (lambda: Tiles(broken, 32, seed=1, mode=mode)[0, 1], lambda: FixedTiles(broken, 32, mode=mode)[1]):
        with pytest.raises(ValueError, match=r"^micrograph 1: the image has \(96, 96\) pixels, the mask \(88, 96\)"):
            cut()


def test_reducing_averages_grey_levels_and_takes_the_majority_of_the_mask():
    image = np.array([[0, 100, 8, 8], [0, 100, 8, 8]], np.uint8)
    mask = np.array([[0, 1, 0, 0], [0, 0, 1, 1]], np.uint8)
    half = tiles.reduced(Labelled(image, mask), 0.5)
    assert half.image.tolist() == [[50, 8]] and half.mask.tolist() == [[0, 1]]  # a quarter is none, a half is boundary
    assert tiles.reduced(half, 1.0) is half
    with pytest.raises(ValueError, match="holds the id 2"):
        tiles.reduced(Labelled(image, 2 * mask), 0.5)
    third = tiles.pool([micrograph(1, 96)], 1 / 3)[0]
    assert third.image.shape == third.mask.shape == (32, 32) and set(np.unique(third.mask)) <= {0, 1}
    assert third.mask.mean() == pytest.approx(micrograph(1, 96).mask.mean(), abs=0.05)
