"""Textures: every step against the plain way, whole tiles against a slow reference, copies counted by hand."""

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from micro_lib.core.seeds import stream
from micro_lib.synthesis import texture
from micro_lib.synthesis.fields import perlin
from micro_lib.synthesis.texture import copy_rate, crops, dictionary, grow, inpaint, inpaint_steps, texture_pool

seeds = st.integers(0, 10**6)


def noise_tiles(seed, n=3, shape=(24, 31), levels=256):
    return list(stream(seed, "tiles").integers(0, levels, (n, *shape), dtype=np.uint8))


def perlin_tiles(n, shape=(96, 96), wavelength_px=12.0, name="perlin"):
    fields = [perlin(shape, wavelength_px, rng=stream(1, name, i)) for i in range(n)]
    return [np.clip(120 + 90 * field, 0, 255).round().astype(np.uint8) for field in fields]


def stripes(shape):
    # A pattern of period 6 across and 4 down, no two of its 24 pixels alike.
    rows, columns = np.indices(shape)
    return ((rows % 4) * 6 + columns % 6).astype(np.uint8) * 10


def made(tiles, patch_px=5, max_patches=400, name="dictionary"):
    return dictionary(tiles, patch_px=patch_px, max_patches=max_patches, rng=stream(1, name))


# A slow reference of the whole algorithm, from its description


class Reference:
    def __init__(self, image, unknown, patches, k, draws):
        self.image = [[int(v) for v in row] for row in image]
        self.known = [[not v for v in row] for row in unknown]
        self.confidence = [[float(v) for v in row] for row in self.known]
        self.patches, self.k, self.draws = patches.astype(np.int64), k, draws
        self.half = patches.shape[1] // 2
        self.height, self.width = unknown.shape
        self.steps = []

    def run(self):
        while front := [p for p in np.ndindex(self.height, self.width) if self.on_front(*p)]:
            self.step(*max(front, key=lambda p: self.priority(*p)))  # the first of equal ones
        return np.array(self.image, np.uint8), np.array(self.steps).reshape(-1, 3)

    def is_known(self, r, c):
        return 0 <= r < self.height and 0 <= c < self.width and self.known[r][c]

    def on_front(self, r, c):
        around = [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
        inside = [(y, x) for y, x in around if 0 <= y < self.height and 0 <= x < self.width]
        return self.known[r][c] and not all(self.known[y][x] for y, x in inside)

    def patch(self, r, c):
        square = [
            (y, x) for y in range(r - self.half, r + self.half + 1) for x in range(c - self.half, c + self.half + 1)
        ]
        return [(y, x) for y, x in square if 0 <= y < self.height and 0 <= x < self.width]

    def mean_confidence(self, r, c):
        patch, total = self.patch(r, c), 0.0
        for y, x in patch:
            total += self.confidence[y][x]
        return total / len(patch)

    def derivative(self, r, c, dr, dc):
        before, after = (r - dr, c - dc), (r + dr, c + dc)
        ends = [place if self.is_known(*place) else (r, c) for place in (before, after)]
        apart = sum(place != (r, c) for place in ends)
        return (self.image[ends[1][0]][ends[1][1]] - self.image[ends[0][0]][ends[0][1]]) / max(apart, 1)

    def normal(self, r, c):
        def value(y, x):
            return self.known[min(max(y, 0), self.height - 1)][min(max(x, 0), self.width - 1)]

        down = sum(w * (value(r + 1, c + i) - value(r - 1, c + i)) for i, w in ((-1, 1), (0, 2), (1, 1)))
        across = sum(w * (value(r + i, c + 1) - value(r + i, c - 1)) for i, w in ((-1, 1), (0, 2), (1, 1)))
        return down, across

    def priority(self, r, c):
        gradients = [
            (self.derivative(y, x, 1, 0), self.derivative(y, x, 0, 1)) for y, x in self.patch(r, c) if self.known[y][x]
        ]
        down, across = max(gradients, key=lambda g: g[0] ** 2 + g[1] ** 2)
        isophote, normal = (-across, down), self.normal(r, c)
        length = np.hypot(*normal) if normal == (0, 0) else np.sqrt(normal[0] ** 2 + normal[1] ** 2)
        data = 0.001 + (abs(isophote[0] * normal[0] + isophote[1] * normal[1]) / (255 * length) if length else 0)
        return self.mean_confidence(r, c) * data

    def step(self, r, c):
        places = self.patch(r, c)
        pixel = {(y, x): (y - r + self.half, x - c + self.half) for y, x in places}
        ssd = sum((self.patches[:, *pixel[p]] - self.image[p[0]][p[1]]) ** 2 for p in places if self.known[p[0]][p[1]])
        chosen = np.argsort(ssd, kind="stable")[int(self.draws[len(self.steps)] * self.k)]
        confidence = self.mean_confidence(r, c)
        for y, x in places:
            if not self.known[y][x]:
                self.image[y][x] = int(self.patches[chosen][pixel[y, x]])
                self.known[y][x], self.confidence[y][x] = True, confidence
        self.steps.append((r, c, chosen))


def reference(image, unknown, patches, k, draws):
    return Reference(image, unknown, patches, k, draws).run()


def compare_with_reference(image, unknown, book, k, seed):
    found = inpaint_steps(image, unknown, book, k=k, rng=stream(seed, "draws"))
    draws = stream(seed, "draws").random(np.count_nonzero(unknown))
    expected = reference(image, unknown, book.patches, k, draws)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0], expected[0])


@settings(max_examples=50)
@given(
    seed=seeds,
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    patch_px=st.sampled_from([3, 5, 7]),
    levels=st.sampled_from([2, 4, 256]),
    known=st.sampled_from([0.02, 0.2, 0.8]),
    k=st.sampled_from([1, 2, 5]),
)
def test_any_mask_is_filled_as_the_reference_fills_it(seed, height, width, patch_px, levels, known, k):
    # Few grey levels make equal priorities and equal distances; scattered masks make every kind of border.
    book = made(noise_tiles(seed, levels=levels), patch_px=patch_px, max_patches=300)
    rng = stream(seed, "image")
    image = rng.integers(0, levels, (height, width), dtype=np.uint8)
    unknown = rng.random((height, width)) >= known
    unknown[rng.integers(height), rng.integers(width)] = False
    compare_with_reference(image, unknown, book, k, seed)


@pytest.mark.parametrize("seed", range(12))
def test_small_patches_are_put_in_the_right_order(seed):
    # A gradient counts up to one patch and one pixel away, and with 3 x 3 pixels that is soon the largest.
    rng = stream(seed, "image")
    image = rng.integers(0, 256, (18, 19), dtype=np.uint8)
    unknown = rng.random(image.shape) >= 0.1
    compare_with_reference(image, unknown, made(noise_tiles(seed), patch_px=3), 1, seed)


@pytest.mark.parametrize("shape", [(30, 30), (21, 34), (12, 27)])
@pytest.mark.parametrize("k", [1, 5])
def test_a_seed_grows_as_the_reference_grows_it(shape, k):
    tiles = perlin_tiles(4, (64, 64))
    book = made(tiles[1:], patch_px=9, max_patches=1000)
    given = texture.seed_area((12, 12), shape)
    image = np.zeros(shape, np.uint8)
    image[given] = tiles[0][:12, :12].ravel()
    compare_with_reference(image, ~given, book, k, 3)
    grown = grow(tiles[0][:12, :12], book, shape, k=k, rng=stream(3, "draws"))
    np.testing.assert_array_equal(grown, inpaint(image, ~given, book, k=k, rng=stream(3, "draws")))


# Every step of a full tile


def replay(image, unknown, book, steps):
    """Yield per step the chosen patch and the SSD (N,) of all patches over the known pixels; ends with the image."""
    half, patches = book.patch_px // 2, book.patches.astype(np.int64)
    image, known = np.pad(image.astype(np.int64), half), np.pad(~unknown, half)
    inside = np.pad(np.ones_like(unknown), half)
    for r, c, chosen in steps:
        square = slice(r, r + book.patch_px), slice(c, c + book.patch_px)
        assert known[r + half, c + half] and not known[square][inside[square]].all()
        yield chosen, ((patches - image[square]) ** 2)[:, known[square]].sum(axis=1)
        missing = inside[square] & ~known[square]
        image[square][missing] = patches[chosen][missing]
        known[square] |= missing
    assert known[inside].all()
    yield None, image[half:-half, half:-half]


@pytest.mark.parametrize("kind", ["noise", "perlin", "few greys"])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_every_patch_is_among_the_k_best_computed_the_plain_way(kind, k):
    tiles = noise_tiles(4, 4, (48, 48), 3 if kind == "few greys" else 256) if kind != "perlin" else perlin_tiles(4)
    book = made(tiles[1:], patch_px=9, max_patches=1500)
    given = texture.seed_area((20, 20), (64, 64))
    image = np.zeros((64, 64), np.uint8)
    image[given] = tiles[0][:20, :20].ravel()
    grown, steps = inpaint_steps(image, ~given, book, k=k, rng=stream(2, "draws"))
    draws, ranks, ties = stream(2, "draws").random((~given).sum()), [], 0
    *searches, (_, end) = replay(image, ~given, book, steps)
    for (chosen, ssd), draw in zip(searches, draws, strict=False):
        kth = np.sort(ssd)[k - 1]
        assert ssd[chosen] <= kth
        ranks.append(int(draw * k))
        assert chosen == np.argsort(ssd, kind="stable")[ranks[-1]]
        ties += np.count_nonzero(ssd == kth) > 1
    np.testing.assert_array_equal(grown, end)
    assert len(steps) > 80 and set(ranks) == set(range(k))
    assert kind != "few greys" or ties > 5


def test_the_search_is_exact_among_14_000_patches():
    tiles = perlin_tiles(9, (128, 128), 20.0)
    speckled = [np.clip(t + stream(1, "speckle", i).normal(0, 8, t.shape), 0, 255) for i, t in enumerate(tiles)]
    tiles = [tile.astype(np.uint8) for tile in speckled]
    book = dictionary(tiles[1:], rng=stream(1, "dictionary"))
    assert book.size == 14_000 and book.patch_px == 9
    unknown = ~texture.seed_area((32, 32), (128, 128))
    for k in (1, 5):
        _, steps = inpaint_steps(tiles[0], unknown, book, k=k, rng=stream(1, "draws"))
        for i, (chosen, ssd) in enumerate(replay(np.where(unknown, 0, tiles[0]), unknown, book, steps)):
            if i == 60:
                break
            assert chosen in np.flatnonzero(ssd <= np.partition(ssd, k - 1)[k - 1])


@settings(max_examples=60)
@given(
    seed=seeds, n=st.integers(1, 700), k=st.integers(1, 9), known=st.integers(1, 25), spread=st.sampled_from([0, 1, 80])
)
def test_the_best_k_of_any_dictionary_are_found_whatever_the_bounds_say(seed, n, k, known, spread):
    rng, k = stream(seed, "search"), min(k, n)
    levels = rng.integers(0, 256 - spread, (n, 1, 1)) + rng.integers(0, spread + 1, (n, 5, 5))
    book = dictionary(list(levels.astype(np.uint8)), patch_px=5, max_patches=n, rng=rng)
    pixels = rng.permutation(25)[:known].astype(np.int32)
    greys = rng.integers(0, 256, known).astype(np.int32)
    best = np.empty(k, np.int64)
    texture._search(book, pixels, greys, best)
    ssd = ((book.patches.reshape(n, -1).astype(np.int64)[:, pixels] - greys) ** 2).sum(axis=1)
    order = np.argsort(ssd, kind="stable")[:k]
    np.testing.assert_array_equal(best & 0xFFFFFFFF, order)
    np.testing.assert_array_equal(best >> 32, ssd[order])


@pytest.mark.parametrize("first_block", [[8, 14], [8, 8]])
def test_of_equal_patches_in_two_blocks_the_lower_number_wins(first_block):
    # Both blocks hold an SSD of 10 from (11, 11); the second one promises less and is looked at first.
    rows = np.zeros((2, 9, 128), np.uint8)
    rows[:, 0], rows[:, 1] = np.resize([8, 14], 128), np.resize([10, 12], 128)
    rows[0, 0], rows[0, 1] = np.resize(first_block, 128), 12
    low, high = rows.min(2).T.copy(), rows.max(2).T.copy()
    best = np.empty(3, np.int64)
    pixels, greys = np.array([0, 1], np.int32), np.array([11, 11], np.int32)
    texture._search(texture.Dictionary(3, 256, rows, low, high), pixels, greys, best)
    np.testing.assert_array_equal(best & 0xFFFFFFFF, [0, 1, 2])
    np.testing.assert_array_equal(best >> 32, 10)


def test_the_largest_differences_do_not_overflow():
    book = made([np.zeros((181, 181), np.uint8)] * 3, patch_px=181, max_patches=3)
    best = np.empty(1, np.int64)
    texture._search(book, np.arange(181**2, dtype=np.int32), np.full(181**2, 255, np.int32), best)
    assert best[0] >> 32 == 181**2 * 255**2


# What the fill order is for


def test_edges_grow_before_flat_areas():
    # Dark above bright, known on the left: the first patch sits where the edge meets the front.
    image = np.full((41, 40), 40, np.uint8)
    image[20:] = 200
    unknown = np.zeros(image.shape, bool)
    unknown[:, 20:] = True
    _, steps = inpaint_steps(image, unknown, made([image], patch_px=9), k=1, rng=stream(1, "draws"))
    row, column, _ = steps[0]
    assert column == 19 and abs(row - 19.5) <= 4.5


def test_flat_areas_grow_where_most_is_known():
    # Without edges the confidence decides: the inner corner of an L, whose patch of 5x5 misses 2 x 2 pixels.
    image = np.full((20, 20), 77, np.uint8)
    unknown = np.zeros(image.shape, bool)
    unknown[10:, 10:] = True
    unknown[14:, 3:10] = True  # another inner corner, further down
    _, steps = inpaint_steps(image, unknown, made([image]), k=1, rng=stream(1, "draws"))
    centre_of_best = max(
        ((r, c) for r in range(20) for c in range(20) if not unknown[r, c]),
        key=lambda p: _known_share(unknown, *p) if _borders(unknown, *p) else -1.0,
    )
    assert tuple(steps[0][:2]) == centre_of_best


def _known_share(unknown, r, c):
    return 1 - unknown[max(r - 2, 0) : r + 3, max(c - 2, 0) : c + 3].mean()


def _borders(unknown, r, c):
    around = np.pad(unknown, 1)
    return around[r, c + 1] or around[r + 2, c + 1] or around[r + 1, c] or around[r + 1, c + 2]


# What comes out


@pytest.mark.parametrize("shape", [(40, 40), (13, 57), (64, 31)])
def test_a_regular_pattern_goes_on_without_a_fault(shape):
    # Every patch that fits a known 3 x 3 px of the pattern exactly is the right one.
    whole = stripes((80, 80))
    book = made([whole], patch_px=7, max_patches=10_000)
    seed = whole[:12, :12]
    rows, columns = (np.arange(size) - (size - 12) // 2 for size in shape)
    expected = whole[np.ix_(rows % 4, columns % 6)]
    np.testing.assert_array_equal(grow(seed, book, shape, k=5, rng=stream(1, "draws")), expected)


def test_a_hole_closes_and_nothing_else_changes():
    whole = stripes((60, 70))
    unknown = np.zeros(whole.shape, bool)
    unknown[20:41, 10:50] = unknown[0:6, 60:] = unknown[59, 0] = True
    spoilt = np.where(unknown, np.uint8(255), whole)
    before = spoilt.copy()
    filled = inpaint(spoilt, unknown, made([stripes((40, 40))], max_patches=2000), k=1, rng=stream(1, "draws"))
    np.testing.assert_array_equal(filled, whole)
    np.testing.assert_array_equal(spoilt, before)


@settings(max_examples=20)
@given(seeds)
def test_known_pixels_stay_and_hidden_ones_do_not_matter(seed):
    image, *tiles = noise_tiles(seed, 3)
    unknown = stream(seed, "unknown").random(image.shape) < 0.5
    book = made(tiles)
    filled = inpaint(image, unknown, book, rng=stream(seed, "draws"))
    np.testing.assert_array_equal(filled[~unknown], image[~unknown])
    hidden = np.where(unknown, 255 - image, image)
    np.testing.assert_array_equal(inpaint(hidden, unknown, book, rng=stream(seed, "draws")), filled)


@pytest.mark.parametrize("k", [1, 5])
def test_brighter_input_gives_the_same_texture_brighter(k):
    tiles = [tile // 2 for tile in perlin_tiles(4)]
    seed = tiles[0][:16, :16]
    grown = grow(seed, made(tiles[1:]), (50, 60), k=k, rng=stream(1, "draws"))
    brighter = grow(seed + 100, made([tile + 100 for tile in tiles[1:]]), (50, 60), k=k, rng=stream(1, "draws"))
    np.testing.assert_array_equal(brighter, grown + 100)


def test_nothing_unknown_changes_nothing():
    image = noise_tiles(1)[0]
    filled, steps = inpaint_steps(image, np.zeros(image.shape, bool), made([image]), rng=stream(1, "draws"))
    np.testing.assert_array_equal(filled, image)
    assert steps.shape == (0, 3)
    np.testing.assert_array_equal(grow(image, made([image]), image.shape, rng=stream(1, "draws")), image)


def test_constant_tiles_give_a_constant_texture():
    grown = grow(np.full((8, 8), 90, np.uint8), made([np.full((20, 20), 90, np.uint8)]), (30, 41), rng=stream(1, "d"))
    assert (grown == 90).all()


def test_textures_repeat_by_seed_and_differ_between_seeds():
    tiles = perlin_tiles(4)
    book, seed = made(tiles[1:], patch_px=9, max_patches=3000), tiles[0][:32, :32]
    one, again, other = (grow(seed, book, rng=stream(s, "draws")) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert one.shape == (128, 128) and one.dtype == np.uint8
    assert (one != other).mean() > 0.5
    np.testing.assert_array_equal(one[48:80, 48:80], seed)


def test_the_best_patch_alone_leaves_nothing_to_chance():
    tiles = perlin_tiles(4)
    one, other = (grow(tiles[0][:32, :32], made(tiles[1:]), k=1, rng=stream(s, "draws")) for s in (1, 2))
    np.testing.assert_array_equal(one, other)


# Statistics of grown textures


def correlation_px(image, axis):
    """Distance along an axis at which the autocorrelation falls to 1/e, between lags by a straight line."""
    centred = np.moveaxis(image - image.mean(), axis, 0)
    lags = [(centred[: len(centred) - lag] * centred[lag:]).mean() for lag in range(len(centred) // 2)]
    falling = np.array(lags) / lags[0]
    after = int(np.argmax(falling < np.exp(-1)))
    return after - (np.exp(-1) - falling[after]) / (falling[after - 1] - falling[after])


@pytest.mark.parametrize("wavelength_px", [10.0, (6.0, 18.0)])
def test_grown_textures_have_the_statistics_of_their_source(wavelength_px):
    tiles = perlin_tiles(48, (96, 96), wavelength_px)
    pieces = crops(tiles[:16], 32, 16, rng=stream(1, "seeds"))
    pool = texture_pool(pieces, made(tiles[16:], patch_px=9, max_patches=14_000), 32, shape=(96, 96), k=5, seed=1)
    means, grown_means = (np.array([tile.mean() for tile in of]) for of in (tiles, pool))
    # Growth may drift into a bright or dark corner of the dictionary, all textures alike or each in its own direction.
    assert grown_means.mean() == pytest.approx(means.mean(), abs=1.0)
    assert grown_means.std() < 3 * means.std()
    deviation, grown_deviation = (np.mean([tile.std() for tile in of]) for of in (tiles, pool))
    assert grown_deviation == pytest.approx(deviation, rel=0.12)
    for axis in (0, 1):
        length, grown_length = (np.mean([correlation_px(tile, axis) for tile in of]) for of in (tiles, pool))
        assert grown_length == pytest.approx(length, rel=0.08)


def test_a_choice_among_more_patches_copies_less():
    tiles = perlin_tiles(5, (96, 96), 10.0)
    pieces = crops(tiles[:2], 32, 8, rng=stream(1, "seeds"))
    book = made(tiles[2:], patch_px=9, max_patches=100_000)
    given = texture.seed_area((32, 32), (96, 96))
    best, fifth, twentieth = (
        copy_rate(texture_pool(pieces, book, 4, shape=(96, 96), k=k, seed=1), tiles, window_px=5, given=given)
        for k in (1, 5, 20)
    )
    assert best > 2 * fifth and fifth > 2 * twentieth > 0


# The dictionary


def test_small_dictionaries_hold_every_patch_once():
    tiles = noise_tiles(1, 3, (12, 15))
    book = made(tiles, patch_px=5, max_patches=10_000)
    every = [t[r : r + 5, c : c + 5].tobytes() for t in tiles for r in range(8) for c in range(11)]
    assert sorted(patch.tobytes() for patch in book.patches) == sorted(every)
    assert book.size == 3 * 8 * 11 and book.patches.dtype == np.uint8


@pytest.mark.parametrize("n", [1, 127, 128, 129, 500])
def test_blocks_hold_the_patches_and_their_ranges(n):
    book = made(noise_tiles(2), patch_px=5, max_patches=n)
    assert book.size == n and book.blocks.shape == (-(-n // 128), 25, 128)
    np.testing.assert_array_equal(book.low, book.blocks.min(2).T)
    np.testing.assert_array_equal(book.high, book.blocks.max(2).T)
    flat = book.blocks.transpose(0, 2, 1).reshape(-1, 5, 5)
    np.testing.assert_array_equal(flat[:n], book.patches)
    assert (flat[n:] == book.patches[-1]).all()


def test_blocks_hold_patches_which_are_alike():
    def width(book):
        return (book.high.astype(float) - book.low).mean()

    book = made(perlin_tiles(6), patch_px=9, max_patches=4096)
    mixed = stream(1, "mix").permutation(book.patches).reshape(-1, 128, 9, 9).astype(float)
    assert width(book) < 0.5 * np.ptp(mixed, axis=1).mean()


def test_all_positions_of_all_tiles_are_equally_likely():
    # The first pixel of a piece tells where it was cut: 5 x 9, 1 x 1 and 4 x 20 positions of a 4 x 4 px piece.
    shapes, drawn = [(8, 12), (4, 4), (7, 23)], []
    tiles, start = [], 0
    for h, w in shapes:
        tiles.append((start + np.arange(h * w) % 256).astype(np.uint8).reshape(h, w))
    places = [(i, r, c) for i, (h, w) in enumerate(shapes) for r in range(h - 3) for c in range(w - 3)]
    known = {tiles[i][r : r + 4, c : c + 4].tobytes() + bytes([tiles[i].shape[1]]): (i, r, c) for i, r, c in places}
    assert len(known) == len(places) == 45 + 1 + 80
    rng, counts = stream(1, "positions"), dict.fromkeys(places, 0)
    for _ in range(1500):
        drawn = crops(tiles, 4, 30, rng=rng)
        assert len(drawn) == 30
        for piece in drawn:
            # The step from row to row is the width of the tile.
            width = (int(piece[1, 0]) - int(piece[0, 0])) % 256
            counts[known[piece.tobytes() + bytes([width])]] += 1
    expected = 1500 * 30 / len(places)
    values = np.array(list(counts.values()))
    # Sampling without replacement: less spread than a binomial count has.
    assert np.abs(values - expected).max() < 4.5 * np.sqrt(expected)
    assert values.std() > 0.5 * np.sqrt(expected)


def test_no_position_is_drawn_twice():
    tile = np.arange(225, dtype=np.uint8).reshape(15, 15)
    pieces = crops([tile], 3, 120, rng=stream(1, "crops"))
    assert len({piece.tobytes() for piece in pieces}) == 120


class Lazy(Sequence):
    """Tiles that exist only while they are looked at."""

    def __init__(self, n, shape):
        self.n, self.shape = n, shape

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i >= self.n:
            raise IndexError
        return stream(i, "lazy").integers(0, 256, self.shape, dtype=np.uint8)


def test_memory_is_bounded_by_the_patches_kept():
    tiles = Lazy(100, (400, 500))  # 20 MB of grey, 1.5 GB of patches
    tracemalloc.start()
    try:
        book = dictionary(tiles, max_patches=2000, rng=stream(1, "dictionary"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert book.size == 2000
    assert peak < 5 * 2000 * 81 + 8 * 500 * 400 + 2e6


def test_dictionaries_repeat_by_seed():
    tiles = noise_tiles(1)
    one, again, other = (made(tiles, max_patches=50, name=name) for name in ("a", "a", "b"))
    np.testing.assert_array_equal(one.blocks, again.blocks)
    assert not np.array_equal(one.blocks, other.blocks)


# The pool


def test_a_texture_of_the_pool_depends_on_the_seed_and_its_number_alone():
    tiles = perlin_tiles(5)
    pieces, book = crops(tiles[:2], 16, 5, rng=stream(1, "seeds")), made(tiles[2:], max_patches=1000)
    small, large, other = (
        texture_pool(pieces, book, n, shape=(40, 33), seed=seed) for n, seed in ((3, 1), (6, 1), (3, 2))
    )
    assert small.shape == (3, 40, 33) and small.dtype == np.uint8
    np.testing.assert_array_equal(small, large[:3])
    assert all((a != b).mean() > 0.3 for a, b in zip(small, other, strict=True))
    rng = stream(1, "texture", 5)
    alone = grow(pieces[rng.integers(5)], book, (40, 33), rng=rng)
    np.testing.assert_array_equal(large[5], alone)
    assert len({t.tobytes() for t in large}) == 6


def test_every_seed_of_a_pool_is_used():
    pieces = [np.full((6, 6), grey, np.uint8) for grey in (10, 20, 30)]
    pool = texture_pool(pieces, made(noise_tiles(1)), 40, shape=(12, 12), seed=1)
    used = {int(t[6, 6]) for t in pool}
    assert used == {10, 20, 30}


# Verbatim copies


def count_copies(textures, tiles, w, given):
    """Copied and counted windows, by comparing all with all."""
    known = {
        tile[r : r + w, c : c + w].tobytes()
        for tile in tiles
        for r in range(tile.shape[0] - w + 1)
        for c in range(tile.shape[1] - w + 1)
    }
    windows = [
        t[r : r + w, c : c + w].tobytes()
        for t in textures
        for r in range(t.shape[0] - w + 1)
        for c in range(t.shape[1] - w + 1)
        if not given[r : r + w, c : c + w].any()
    ]
    return sum(window in known for window in windows) / len(windows)


@settings(max_examples=40)
@given(seed=seeds, window_px=st.integers(1, 5), levels=st.sampled_from([2, 3, 256]))
def test_copies_are_those_found_by_comparing_all_with_all(seed, window_px, levels):
    rng = stream(seed, "copies")
    textures = rng.integers(0, levels, (2, 13, 17), dtype=np.uint8)
    tiles = [rng.integers(0, levels, shape, dtype=np.uint8) for shape in ((9, 14), (20, 6), (3, 3))]
    tiles[0][:6, 2:9] = textures[1, 4:10, 5:12]
    given = np.zeros((13, 17), bool)
    given[4:6, 3:7] = True
    found = copy_rate(textures, tiles, window_px=window_px, given=given)
    assert found == pytest.approx(count_copies(textures, tiles, window_px, given))
    assert 0 < found


def test_copied_windows_of_a_pasted_square_are_counted():
    rng = stream(1, "copies")
    grown, tile, other = rng.integers(0, 256, (3, 40, 50), dtype=np.uint8)
    assert copy_rate(grown, [tile, other]) == 0
    grown[10:30, 20:41] = tile[5:25, 3:24]  # 20 x 21 px hold 4 x 5 windows of 17 x 17 px
    assert copy_rate(grown, [other, tile]) == pytest.approx(4 * 5 / (24 * 34))
    grown[12, 22] ^= 1  # a pixel of the windows that start in the first 3 rows and columns
    assert copy_rate(grown, [tile]) == pytest.approx((4 * 5 - 3 * 3) / (24 * 34))
    assert copy_rate(grown, [np.rot90(grown)]) == 0
    assert copy_rate(grown, [grown]) == 1


def test_windows_with_given_pixels_are_not_counted():
    rng = stream(1, "copies")
    grown, tile = rng.integers(0, 256, (2, 40, 40), dtype=np.uint8)
    given = np.zeros((40, 40), bool)
    given[:10, :10] = True
    grown[:10, :10] = tile[:10, :10]
    assert copy_rate(grown, [tile], window_px=5) == pytest.approx(36 / 36**2)
    assert copy_rate(grown, [tile], window_px=5, given=given) == 0
    grown[20:25, 20:25] = tile[3:8, 7:12]
    assert copy_rate(grown, [tile], window_px=5, given=given) == pytest.approx(1 / (36**2 - 100))


# Bad input


GREY = np.zeros((20, 20), np.uint8)


@pytest.mark.parametrize(
    ("tiles", "changes", "words"),
    [
        ([], {}, "no tiles.*at least one"),
        ([GREY, GREY[:8]], {"patch_px": 9}, "tile 1 has 8x20 px.*9x9 px.*leave it out"),
        ([GREY[:, :3]], {}, "tile 0 has 20x3 px"),
        ([GREY, GREY.astype(np.uint16)], {}, r"tile 1 is \(20, 20\) uint16.*expected.*uint8"),
        ([np.zeros((20, 20, 3), np.uint8)], {}, r"tile 0 is \(20, 20, 3\) uint8"),
        ([np.zeros((0, 4), np.uint8)], {}, r"tile 0 is \(0, 4\) uint8"),
        ([[[1, 2], [3, 4]]], {}, "tile 0 is list"),
        ([GREY], {"patch_px": 8}, "patch_px is 8.*odd"),
        ([GREY], {"patch_px": 1}, "patch_px is 1;.*3 to 181"),
        ([GREY], {"patch_px": 183}, "patch_px is 183"),
        ([GREY], {"max_patches": 0}, "number of pieces is 0.*1 or larger"),
    ],
)
def test_bad_dictionaries_are_refused_with_words(tiles, changes, words):
    with pytest.raises(ValueError, match=words):
        dictionary(tiles, **{"patch_px": 5} | changes, rng=stream(1, "dictionary"))


@pytest.mark.parametrize(
    ("seed", "changes", "words"),
    [
        (GREY, {"shape": (19, 40)}, "20x20 px.*does not lie within a texture of 19x40.*cut a smaller seed"),
        (GREY.astype(float), {}, r"the seed is \(20, 20\) float64"),
        (GREY[:0], {}, r"the seed is \(0, 20\) uint8"),
        (GREY, {"k": 0}, "k is 0.*between 1 and the 256 patches"),
        (GREY, {"k": 257}, "k is 257.*more or larger tiles"),
    ],
)
def test_bad_seeds_are_refused_with_words(seed, changes, words):
    with pytest.raises(ValueError, match=words):
        grow(seed, made([GREY]), **{"shape": (40, 40)} | changes, rng=stream(1, "draws"))


@pytest.mark.parametrize(
    ("image", "unknown", "words"),
    [
        (GREY, np.zeros((20, 19), bool), r"\(20, 19\) bool.*shape \(20, 20\)"),
        (GREY, GREY, r"\(20, 20\) uint8; expected a bool array.*mask > 0"),
        (GREY, None, "NoneType"),
        (GREY, np.ones((20, 20), bool), "no pixel is known"),
        (GREY.astype(np.uint16), np.zeros((20, 20), bool), r"the image is \(20, 20\) uint16"),
    ],
)
def test_bad_images_are_refused_with_words(image, unknown, words):
    with pytest.raises(ValueError, match=words):
        inpaint(image, unknown, made([GREY]), rng=stream(1, "draws"))


def test_empty_pools_are_refused_with_words():
    with pytest.raises(ValueError, match="found 0 seeds"):
        texture_pool([], made([GREY]), 3, seed=1)
    with pytest.raises(ValueError, match="n = 0"):
        texture_pool([GREY], made([GREY]), 0, seed=1)


@pytest.mark.parametrize(
    ("textures", "changes", "words"),
    [
        (GREY, {"window_px": 21}, "no window of 21x21 px.*20x20"),
        (GREY, {"window_px": 0}, "no window of 0x0"),
        (GREY, {"given": np.eye(20, dtype=bool), "window_px": 15}, "no window of 15x15"),
        (GREY, {"given": np.zeros((3, 3), bool)}, r"`given` has shape \(3, 3\)"),
        (GREY.astype(np.int64), {}, "texture 0 is"),
    ],
)
def test_bad_textures_have_no_copy_rate(textures, changes, words):
    with pytest.raises(ValueError, match=words):
        copy_rate(textures, [GREY], **changes)


def test_a_source_that_is_no_image_has_no_copies():
    with pytest.raises(ValueError, match="tile 1 is"):
        copy_rate(GREY, [GREY, GREY.astype(float)])
