"""Tiles and back: nothing is lost, surroundings are the neighbours', classes are never invented."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from micro_lib.data.framing import Framing, like_electron_micrograph, scaled
from micro_lib.data.tiles import Labelled, reduced

SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@given(SIZES, st.integers(1, 40), st.integers(0, 30), st.sampled_from([(), (3,)]))
def test_stitching_the_centres_of_tiles_gives_the_image_back(size, tile_px, margin_px, channels):
    framing, image = Framing(1.0, tile_px, margin_px), noise((*size, *channels))
    tiles = framing.cut(image)
    assert tiles.shape[1:3] == (framing.side_px, framing.side_px)
    inside = slice(margin_px, margin_px + tile_px)
    centres = tiles[:, inside, inside]
    np.testing.assert_array_equal(framing.stitch(centres, size), image)
    if not channels:
        np.testing.assert_array_equal(framing.centre(tiles), centres)


def test_published_sizes():
    framing = Framing()
    halved = scaled(Labelled(noise((1433, 2048)), np.zeros((1433, 2048), np.uint8)), framing.scale).image
    tiles = framing.cut(halved)
    assert framing.side_px == 636 and tiles.shape == (4, 636, 636)
    square = np.pad(halved, [(0, 1024 - halved.shape[0]), (0, 0)], mode="symmetric")
    np.testing.assert_array_equal(framing.centre(tiles), framing.centre(framing.cut(square)))


def test_surroundings_are_the_neighbours():
    framing, image = Framing(1.0, 20, 6), noise((60, 60))
    tiles = framing.cut(image).reshape(3, 3, 32, 32)
    np.testing.assert_array_equal(tiles[1, 1], image[14:46, 14:46])
    np.testing.assert_array_equal(tiles[0, 0][:6], tiles[0, 0][6:12][::-1])  # beyond the border it is mirrored


@given(SIZES, st.integers(0, 3))
def test_what_looks_no_further_than_the_margin_sees_no_seams(size, reach):
    framing, image = Framing(1.0, 16, 3), noise(size).astype(float)
    tiles = framing.cut(image)
    seen = np.stack([uniform_filter(tile, 2 * reach + 1, mode="reflect") for tile in tiles])
    whole = uniform_filter(np.pad(image, 3, mode="symmetric"), 2 * reach + 1, mode="reflect")[3:-3, 3:-3]
    np.testing.assert_allclose(framing.stitch(framing.centre(seen), size), whole, atol=1e-9)


def test_centres_of_another_image_are_refused():
    framing = Framing(1.0, 8, 2)
    with pytest.raises(
        ValueError, match=r"an image of \(16, 16\) has 4 centres of 8 px; found an array of \(3, 8, 8\)"
    ):
        framing.stitch(np.zeros((3, 8, 8)), (16, 16))
    with pytest.raises(ValueError, match="must be positive"):
        Framing(0.0)


@given(SIZES, st.floats(0.1, 3))
def test_scaling_invents_no_class(size, scale):
    mask = np.random.default_rng(1).choice([0, 2, 5], size).astype(np.uint8)
    made = scaled(Labelled(noise(size), mask), scale)
    assert made.image.shape == made.mask.shape == tuple(max(1, round(side * scale)) for side in size)
    assert set(np.unique(made.mask)) <= set(np.unique(mask)) and made.mask.dtype == np.uint8


@given(st.integers(2, 40), st.integers(2, 40), st.sampled_from([2, 3]))
def test_scaling_up_and_down_again_keeps_the_mask(height, width, factor):
    mask = np.random.default_rng(2).integers(0, 3, (height, width)).astype(np.uint8)
    blocks = mask.repeat(factor, 0).repeat(factor, 1)
    np.testing.assert_array_equal(scaled(Labelled(noise(blocks.shape), blocks), 1 / factor).mask, mask)


def test_of_two_classes_it_is_the_majority_of_other_reductions():
    sample = Labelled(noise((60, 90)), (noise((60, 90), 1) > 90).astype(np.uint8))
    ours, theirs = scaled(sample, 1 / 3), reduced(sample, 1 / 3)
    np.testing.assert_array_equal(ours.image, theirs.image)
    np.testing.assert_array_equal(ours.mask, theirs.mask)  # of nine pixels no two classes have equal shares
    assert scaled(sample, 1).image is sample.image and scaled(sample, 1).mask is sample.mask


def test_light_micrographs_come_to_the_scale_and_ground_of_electron_ones():
    sample = Labelled(np.full((20, 30), 200, np.uint8), np.ones((20, 30), np.uint8))
    made = like_electron_micrograph(sample, 0.1266, 0.0633)
    assert made.image.shape == (40, 60) and (made.image == 55).all() and made.mask.all()
    plain = like_electron_micrograph(sample, 0.1266, 0.0633, invert=False)
    np.testing.assert_array_equal(plain.image, 255 - made.image)
