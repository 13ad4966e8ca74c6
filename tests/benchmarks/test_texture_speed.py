"""Speed of grown textures against the package exemplar-based-inpainting: same run, one thread, 128x128 px, 9x9 patches.

That package takes its patches from the image it fills, so the dictionary's 14,000 positions lie beside the tile.
"""

from time import thread_time

import cv2
import numpy as np
import pytest
from helpers.timing import seconds

from micro_lib.core.seeds import stream
from micro_lib.synthesis.fields import perlin
from micro_lib.synthesis.texture import copy_rate, crops, dictionary, grow, inpaint_steps, seed_area

TIMES, TEXTURES = 100, 6
SIZE, SEED_PX, SOURCE_PX = 128, 32, 126  # (126 - 8) x (128 - 8) positions of a patch


def tiles(n):
    """Perlin noise in three octaves under the noise of a detector, about as hard to match as real tiles."""
    fields = [perlin((SIZE, SIZE), 24.0, octaves=3, rng=stream(1, "field", i)) for i in range(n)]
    noise = [stream(1, "noise", i).standard_normal((SIZE, SIZE)) for i in range(n)]
    surfaces = [110 + 60 * f + 5 * cv2.GaussianBlur(e, (0, 0), 0.7) for f, e in zip(fields, noise, strict=True)]
    return [surface.clip(0, 255).astype(np.uint8) for surface in surfaces]


def theirs(source, seed):
    """Return the tile the package fills, the number of its steps, and its processor time."""
    inpainter = pytest.importorskip("exemplar_based_inpainting.inpainter", reason="it is compared with that package")
    canvas = np.zeros((SIZE, SIZE + SOURCE_PX), np.uint8)
    canvas[:, SIZE:] = source[:, :SOURCE_PX]
    given = np.ones(canvas.shape, bool)
    given[:, :SIZE] = seed_area(seed.shape, (SIZE, SIZE))
    canvas[:, :SIZE][given[:, :SIZE]] = seed.ravel()
    worker = inpainter.Inpainter(
        patch_size=9,
        search_original_source_only=True,
        search_color_space="gray",
        show_progress_bar=False,
        patch_preference="any",
    )
    start = thread_time()
    filled = worker.inpaint(canvas, np.where(given, np.uint8(0), np.uint8(255)))
    return filled[:, :SIZE], worker.iter, thread_time() - start


@pytest.fixture
def old_findings(monkeypatch):
    """The package was written for OpenCV 4, whose findNonZero gives (N, 1, 2) where OpenCV 5 gives (N, 2)."""
    find = cv2.findNonZero
    monkeypatch.setattr(cv2, "findNonZero", lambda image: find(image).reshape(-1, 1, 2))


def material():
    source, *held = tiles(1 + TEXTURES)
    book = dictionary([source[:, :SOURCE_PX]], max_patches=20_000, rng=stream(1, "dictionary"))
    return source, book, crops(held, SEED_PX, TEXTURES, rng=stream(1, "seeds"))


def test_growing_beats_the_package(benchmark, old_findings):
    if benchmark.disabled:
        pytest.skip("speed is measured by `make bench`")
    source, book, seeds = material()
    assert book.size == 118 * 120
    grow(seeds[0], book, k=1, rng=stream(1, "draws"))  # compiles
    ours_s = sum(seconds(lambda s=seed: grow(s, book, k=5, rng=stream(1, "draws")), 8) for seed in seeds) / TEXTURES
    unknown = ~seed_area((SEED_PX, SEED_PX), (SIZE, SIZE))
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    canvas[~unknown] = seeds[0].ravel()
    steps = len(inpaint_steps(canvas, unknown, book, k=5, rng=stream(1, "draws"))[1])
    runs = [theirs(source, seed) for seed in seeds[:2]]
    filled, their_steps, _ = runs[0]
    # The same job: a tile of the same greys in about as many steps.
    assert filled.std() == pytest.approx(source.std(), rel=0.5)
    assert their_steps == pytest.approx(steps, rel=0.4)
    theirs_s = min(taken for _, _, taken in runs)
    benchmark(grow, seeds[0], book, k=5, rng=stream(1, "draws"))
    ratio = theirs_s / ours_s
    benchmark.extra_info.update(theirs_ms=1e3 * theirs_s, ours_ms=1e3 * ours_s, times_faster=ratio)
    print(
        f"exemplar-based-inpainting {1e3 * theirs_s:.0f} ms in {their_steps} steps, "
        f"ours {1e3 * ours_s:.1f} ms in {steps} steps a tile: {ratio:.0f} times faster"
    )
    assert ratio >= TIMES, f"{ratio:.0f} times faster than exemplar-based-inpainting; {TIMES} wanted"


@pytest.mark.parametrize("k", [1, 5, 10])
def test_growing_with_more_to_choose_from(benchmark, k):
    _, book, seeds = material()
    benchmark(grow, seeds[0], book, k=k, rng=stream(1, "draws"))


def test_making_the_dictionary(benchmark):
    benchmark(dictionary, tiles(6), rng=stream(1, "dictionary"))


def test_counting_copies(benchmark):
    sources = tiles(12)
    rate = benchmark(copy_rate, np.stack(sources[:4]), sources[4:])
    assert rate == 0
