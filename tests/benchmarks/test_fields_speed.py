"""Speed of the Perlin field against the Python loop over ``noise.pnoise2``: same run, one thread, 512x512."""

import time
import timeit

import noise
import numpy as np
import pytest

from micro_lib.synthesis.fields import perlin

SIZE = 512


def loop(wavelength_px, octaves):
    return [noise.pnoise2(c / wavelength_px, r / wavelength_px, octaves) for r in range(SIZE) for c in range(SIZE)]


def field_of(wavelength_px, octaves):
    return perlin((SIZE, SIZE), wavelength_px, octaves=octaves)


# 8 to 27 px is the texture of 200 grains in the image: 1/5 to 2/3 of a diameter of 41 px.
@pytest.mark.parametrize("wavelength_px", [10, 27, 64])
@pytest.mark.parametrize(("octaves", "times"), [(1, 100), (4, 30)])
def test_perlin_beats_the_loop(benchmark, wavelength_px, octaves, times):
    field = field_of(wavelength_px, octaves)  # compiles
    np.testing.assert_allclose(field.ravel(), loop(wavelength_px, octaves), atol=1e-5)
    if benchmark.disabled:
        pytest.skip("equal to the loop; speed is measured by `make bench`")
    # Processor time, so that a busy machine lengthens neither: both are one thread.
    naive_s = min(timeit.repeat(lambda: loop(wavelength_px, octaves), time.process_time, number=1, repeat=5))
    ours_s = min(timeit.repeat(lambda: field_of(wavelength_px, octaves), time.process_time, number=10, repeat=20)) / 10
    benchmark(field_of, wavelength_px, octaves)
    ratio = naive_s / ours_s
    benchmark.extra_info.update(naive_ms=1e3 * naive_s, ours_ms=1e3 * ours_s, times_faster=ratio)
    print(f"{octaves} octaves, {wavelength_px} px: {1e3 * ours_s:.2f} ms, {ratio:.0f} times faster than the loop")
    assert ratio >= times, f"{ratio:.0f} times faster than the loop; {times} wanted"
