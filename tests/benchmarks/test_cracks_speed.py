"""Speed of crack tiles against the same crack painted disc by disc: one run and thread, 128x128, textures of a pool."""

import numpy as np
import pytest
from helpers.timing import seconds
from scipy.ndimage import gaussian_filter1d
from skimage.draw import disk

from micro_lib.core.seeds import stream
from micro_lib.synthesis.cracks import GENERATORS, invented, render, scenario
from micro_lib.synthesis.distributions import Constant

RATE, TIMES, TILES = 200, 8, 100  # tiles per second and core, times the naive way, tiles timed


def naive(row, textures):
    """Return image and mask: a disc of the local width and grey at every quarter pixel of a path, painted in turn."""
    rng = stream(row["seed"], "naive")
    image = textures[row["texture"]].astype(np.float32)
    mask = np.zeros(image.shape, np.uint8)
    for i in range(row["n_cracks"] if row["crack"] else 0):
        n, step = (row["n_segments"], row["segment_px"]) if i == 0 else (1, row["other_px"])
        bends = rng.choice([-1, 1], n) * np.deg2rad(row["bend_deg"])
        heading = np.deg2rad(row["direction_deg"]) + np.cumsum(bends)
        lengths = step * np.exp(row["segment_spread"] * rng.standard_normal(n))
        along = np.repeat(
            np.stack([np.cos(heading), np.sin(heading)], 1), np.maximum(lengths * 4, 1).astype(int), axis=0
        )
        path = np.cumsum(along / 4, axis=0)
        path += 127 * np.array([row["middle_y"], row["middle_x"]]) - path[len(path) // 2]
        width = row["width_px"] * np.exp(
            row["width_spread"] * gaussian_filter1d(rng.standard_normal(len(path)), 16) * 7
        )
        grey = (
            row["crack_contrast"] + row["contrast_spread"] * gaussian_filter1d(rng.standard_normal(len(path)), 16) * 7
        )
        behind = image.copy()
        for point, w, relative in zip(path, width, grey, strict=True):
            inside = disk(point, w / 2 + 0.01, shape=image.shape)
            image[inside] = behind[inside] * (1 + relative)
            mask[inside] = 1
    return image.clip(0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def textures():
    return stream(1, "textures").integers(90, 130, (64, 128, 128)).astype(np.uint8)


def rows(generator, n=TILES, **changes):
    space = scenario(invented(), 64, generator)
    return space.replace(**{name: Constant(value) for name, value in changes.items()}).sample(n, 1).to_dict("records")


def seconds_of(function, table, textures, repeats):
    return seconds(lambda: [function(row, textures) for row in table], repeats)


def test_both_draw_the_same_kind_of_crack(textures):
    table = rows("paper", crack=True, cut_start=0, cut_end=0, n_branches=0)
    ours, theirs = ([f(row, textures)[:2] for row in table] for f in (render, naive))
    share = [np.mean([mask.mean() for _, mask in made]) for made in (ours, theirs)]
    np.testing.assert_allclose(share[0], share[1], rtol=0.2)
    contrast = [
        np.mean([image[mask == 1].mean() / image[mask == 0].mean() - 1 for image, mask in made])
        for made in (ours, theirs)
    ]
    np.testing.assert_allclose(contrast[0], contrast[1], rtol=0.2)


@pytest.mark.parametrize("generator", GENERATORS)
def test_tiles_per_second(benchmark, textures, generator):
    if benchmark.disabled:
        pytest.skip("speed is measured by `make bench`")
    table = rows(generator)
    render(rows(generator, 1, crack=True)[0], textures)  # compiles
    rate = TILES / seconds_of(render, table, textures, 5)
    benchmark(render, table[0], textures)
    benchmark.extra_info.update(tiles_per_second=rate)
    print(f"{generator}: {rate:.0f} tiles a second on one core")
    assert rate >= RATE, f"{rate:.0f} tiles a second; {RATE} wanted"


def test_drawing_beats_painting_discs(benchmark, textures):
    if benchmark.disabled:
        pytest.skip("speed is measured by `make bench`")
    table = rows("paper", crack=True)
    render(table[0], textures)  # compiles
    naive_s, ours_s = seconds_of(naive, table, textures, 2), seconds_of(render, table, textures, 5)
    benchmark(render, table[0], textures)
    ratio = naive_s / ours_s
    benchmark.extra_info.update(naive_ms=1e3 * naive_s / TILES, ours_ms=1e3 * ours_s / TILES, times_faster=ratio)
    print(f"discs {1e3 * naive_s / TILES:.1f} ms, ours {1e3 * ours_s / TILES:.2f} ms a tile: {ratio:.1f} times faster")
    assert ratio >= TIMES, f"{ratio:.1f} times faster than painting discs; {TIMES} wanted"
