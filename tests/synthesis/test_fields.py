"""Perlin fields: equal to the reference implementation, and random where randomness is asked for."""

import noise
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from micro_lib.core.seeds import stream
from micro_lib.synthesis.fields import perlin, smooth_field


def reference(shape, wavelengths, octaves):
    down, across = wavelengths
    return np.array(
        [[noise.pnoise2(c / across, r / down, octaves=octaves) for c in range(shape[1])] for r in range(shape[0])]
    )


sizes = st.integers(1, 24)
wavelengths = st.floats(0.7, 80)


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(sizes, sizes),
    wavelength=st.tuples(wavelengths, wavelengths),
    octaves=st.integers(1, 6),
)
def test_equals_the_noise_package(shape, wavelength, octaves):
    field = perlin(shape, wavelength, octaves=octaves)
    assert field.shape == shape and field.dtype == np.float32
    np.testing.assert_allclose(field, reference(shape, wavelength, octaves), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("octaves", "wavelength"), [(1, 41.3), (4, 41.3), (6, 128)])
def test_equals_the_noise_package_on_a_whole_image(octaves, wavelength):
    field = perlin((160, 256), wavelength, octaves=octaves)
    expected = reference((160, 256), (wavelength, wavelength), octaves=octaves)
    np.testing.assert_allclose(field, expected, atol=1e-5, rtol=0)
    assert field.std() > 0.1


def test_is_zero_on_the_lattice_alone():
    field = perlin((65, 65), 8)
    assert (field[::8, ::8] == 0).all()
    assert (field[3::8, 2::8] != 0).all()


def test_a_wavelength_for_each_axis_stretches_the_field():
    np.testing.assert_array_equal(perlin((20, 60), (9, 18))[:, ::2], perlin((20, 30), 9))


def test_the_reference_field_repeats_every_256_wavelengths():
    field = perlin((20, 2 * 256 * 2), (3, 2))
    np.testing.assert_allclose(field[:, 512:], field[:, :512], atol=1e-4)
    assert np.abs(field[:, 256:512] - field[:, :256]).max() > 0.1  # not earlier


def test_random_fields_are_keyed_by_their_stream():
    first, again, other = (perlin((32, 32), 10, octaves=2, rng=stream(seed, "field")) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    assert np.abs(first - perlin((32, 32), 10, octaves=2)).max() > 0.1


def test_random_fields_have_no_favoured_place():
    fields = np.stack([perlin((16, 16), 8, rng=stream(seed, "field")) for seed in range(600)])
    spread = fields.std(axis=0)
    # The reference is 0 at every corner; a random lattice has no such place, and no mean: 600 fields, 4 sigma.
    assert spread.min() > 0.85 * spread.mean() and spread.max() < 1.15 * spread.mean()
    assert np.abs(fields.mean(axis=0)).max() < 4.5 * spread.max() / np.sqrt(600)


def test_correlation_dies_within_the_wavelength():
    field = perlin((1024, 1024), 16, rng=stream(3, "field"))
    products = {lag: (field[:, lag:] * field[:, : 1024 - lag]).mean() / field.var() for lag in (4, 16, 32, 64)}
    assert products[4] > 0.5
    assert max(abs(products[lag]) for lag in (32, 64)) < 0.06


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.5, 60), st.integers(1, 5))
def test_values_stay_within_one(seed, wavelength, octaves):
    field = perlin((40, 40), wavelength, octaves=octaves, rng=stream(seed, "field"))
    assert np.isfinite(field).all() and np.abs(field).max() <= 1


@pytest.mark.parametrize(
    "bad",
    [
        {"shape": (0, 4)},
        {"wavelength_px": 0},
        {"wavelength_px": (4, -1)},
        {"wavelength_px": float("nan")},
        {"octaves": 0},
    ],
)
def test_what_is_not_positive_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        perlin(**{"shape": (4, 4), "wavelength_px": 2, **bad})


@pytest.mark.parametrize("scale", [3.0, 20.0])
def test_smooth_fields_vary_over_their_scale(scale):
    field = smooth_field((400, 300), scale, np.random.default_rng(2))
    assert field.shape == (400, 300) and field.dtype == np.float32
    assert abs(field.mean()) < 0.25
    near, far = int(scale / 3), int(3 * scale)
    assert np.corrcoef(field[near:].ravel(), field[:-near].ravel())[0, 1] > 0.7
    assert abs(np.corrcoef(field[far:].ravel(), field[:-far].ravel())[0, 1]) < 0.25


@pytest.mark.parametrize("scale", [1.5, 3.0, 10.0])
def test_smooth_fields_are_as_strong_as_stated(scale):
    fields = [smooth_field((256, 256), scale, np.random.default_rng(seed)) for seed in range(20)]
    assert np.sqrt(np.square(fields).mean()) == pytest.approx(1.16, abs=0.02)


def test_smooth_fields_repeat_with_their_generator():
    one, other = (smooth_field((50, 70), 9.0, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(one, other)
