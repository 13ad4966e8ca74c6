"""The simulated measurement: each effect is as strong as its parameter says, measured on plain surfaces."""

import numpy as np
import pytest
from helpers.grain_rows import ON, plain
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from micro_lib.core.seeds import stream
from micro_lib.synthesis.imaging import NOISE_FIRST, detect, digitise, focus, illuminate, measure

surfaces = arrays.arrays(
    np.float32, st.tuples(st.integers(2, 12), st.integers(2, 12)), elements=st.floats(-1, 2, width=32)
)
IMAGING = [
    "gradient", "vignetting", "charging", "blur_sigma_px", "defocus", "shot_noise", "detector_noise", "scan_lines",
    "contrast", "brightness", "gamma", "inverted", "bit_depth",
]  # fmt: skip


def flat(level, shape=(200, 200)):
    return np.full(shape, level, np.float32)


def random():
    return stream(3, "imaging")


# Nothing on


@settings(max_examples=50, deadline=None)
@given(surfaces)
def test_with_everything_off_grey_levels_are_the_surface(surface):
    image = measure(surface, plain(), random())
    expected = np.floor(np.clip(surface, 0, 1).astype(float) * 255 + 0.5)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image, expected, atol=1)  # float32 may round the other way at a half
    assert (np.abs(image - expected) > 0).mean() < 0.2


@pytest.mark.parametrize("name", IMAGING)
def test_the_surface_itself_is_never_changed(name):
    surface = stream(1, "surface").random((40, 50), np.float32)
    before = surface.copy()
    measure(surface, plain(**{name: ON[name][1]}), random())
    np.testing.assert_array_equal(surface, before)


# Digitisation


@settings(max_examples=100, deadline=None)
@given(
    surfaces,
    st.floats(0.2, 3),
    st.floats(-0.5, 0.5),
    st.floats(0.3, 3),
    st.sampled_from([8, 16]),
)
def test_digitising_stays_in_bounds_and_keeps_the_order(signal, contrast, brightness, gamma, bits):
    p = plain(contrast=contrast, brightness=brightness, gamma=gamma, bit_depth=bits)
    levels = digitise(signal, p)
    assert levels.dtype == {8: np.uint8, 16: np.uint16}[bits] and levels.shape == signal.shape
    order = np.argsort(signal, axis=None, kind="stable")
    assert (np.diff(levels.ravel()[order].astype(int)) >= 0).all()


@settings(max_examples=100, deadline=None)
@given(surfaces, st.sampled_from([8, 16]), st.floats(0.5, 2))
def test_inverted_and_upright_levels_add_up_to_full_scale(signal, bits, gamma):
    upright, inverted = (digitise(signal, plain(inverted=i, bit_depth=bits, gamma=gamma)) for i in (False, True))
    np.testing.assert_array_equal(upright.astype(int) + inverted, 2**bits - 1)


def test_sixteen_bits_hold_the_same_picture_more_finely():
    surface = np.linspace(0, 1, 4096, dtype=np.float32)[None].repeat(4, 0)
    coarse, fine = (measure(surface, plain(bit_depth=bits), random()) for bits in (8, 16))
    assert len(np.unique(coarse)) == 256 and len(np.unique(fine)) == 4096
    np.testing.assert_allclose(fine / 65535, coarse / 255, atol=0.5 / 255 + 1e-4)


@pytest.mark.parametrize(
    ("p", "levels"),
    [
        ({}, [0, 64, 128, 255]),
        ({"contrast": 2.0}, [0, 0, 128, 255]),
        ({"brightness": 0.2}, [51, 115, 179, 255]),
        ({"gamma": 2.0}, [0, 16, 64, 255]),
        ({"inverted": True}, [255, 191, 127, 0]),
    ],
)
def test_levels_computed_by_hand(p, levels):
    signal = np.array([[0, 0.25, 0.5, 1]], np.float32)
    np.testing.assert_array_equal(digitise(signal, plain(**p)), [levels])


# Detection


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_detector_noise_is_as_strong_as_asked_for_at_any_brightness(level):
    noise = detect(flat(level), plain(detector_noise=0.05), random()) - level
    np.testing.assert_allclose(noise.std(), 0.05, rtol=0.02)
    assert abs(noise.mean()) < 4 * 0.05 / 200
    # White: neighbours are independent.
    assert abs((noise[:, 1:] * noise[:, :-1]).mean() / noise.var()) < 4 / 200


@pytest.mark.parametrize("level", [0.1, 0.5, 1.0])
def test_shot_noise_grows_with_the_root_of_the_light(level):
    noise = detect(flat(level), plain(shot_noise=0.05), random()) - level
    np.testing.assert_allclose(noise.std(), 0.05 * np.sqrt(level), rtol=0.02)


def test_noises_add_in_squares():
    noise = detect(flat(0.5), plain(shot_noise=0.05, detector_noise=0.03), random()) - 0.5
    np.testing.assert_allclose(noise.std(), np.hypot(0.05 * np.sqrt(0.5), 0.03), rtol=0.02)


def test_noise_is_measured_back_from_the_image():
    image = measure(flat(0.5), plain(detector_noise=0.04), random())
    np.testing.assert_allclose(image.std(), np.hypot(0.04 * 255, np.sqrt(1 / 12)), rtol=0.02)


def test_scan_lines_shift_whole_rows():
    lines = detect(flat(0.5, (2000, 20)), plain(scan_lines=0.03), random()) - 0.5
    np.testing.assert_allclose(lines, lines[:, :1].repeat(20, 1))
    np.testing.assert_allclose(lines[:, 0].std(), 0.03, rtol=0.06)


def test_dark_surfaces_have_no_shot_noise():
    np.testing.assert_array_equal(detect(flat(0.0), plain(shot_noise=0.1), random()), 0)
    np.testing.assert_array_equal(detect(flat(-0.2), plain(shot_noise=0.1), random()), np.float32(-0.2))


# Focus


def edge_width(profile):
    """Standard deviation of the line spread function of a step edge."""
    spread = np.diff(profile.astype(float))
    at = np.arange(spread.size)
    centre = (at * spread).sum() / spread.sum()
    return np.sqrt(((at - centre) ** 2 * spread).sum() / spread.sum())


@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0])
def test_blur_is_measured_back_from_a_step(sigma):
    step = flat(0.2)
    step[:, 100:] = 0.8
    blurred = focus(step, plain(blur_sigma_px=sigma), random())
    np.testing.assert_allclose(edge_width(blurred[100]), sigma, rtol=0.05)
    image = measure(step, plain(blur_sigma_px=sigma, bit_depth=16), random())
    np.testing.assert_allclose(edge_width(image[100]), sigma, rtol=0.05)


def test_defocus_blurs_from_once_to_the_given_times_wider():
    step = flat(0.2, (400, 400))
    step[:, 200:] = 0.8
    widths = np.array([edge_width(row) for row in focus(step, plain(blur_sigma_px=1.0, defocus=2.0), random())])
    assert widths.min() > 0.95 and widths.max() < 3.15 and np.ptp(widths) > 0.5


def test_no_blur_leaves_the_light_as_it_is():
    light = random().random((30, 40), np.float32)
    np.testing.assert_array_equal(focus(light, plain(defocus=1.0), random()), light)


# Illumination


@pytest.mark.parametrize("loss", [0.1, 0.4])
def test_vignetting_takes_the_given_share_of_light_from_the_corners(loss):
    light = illuminate(flat(0.8, (101, 151)), plain(vignetting=loss), random())
    np.testing.assert_allclose(light[[0, 0, -1, -1], [0, -1, 0, -1]], 0.8 * (1 - loss), rtol=1e-5)
    np.testing.assert_allclose(light[50, 75], 0.8, rtol=1e-5)
    assert light.argmax() == 50 * 151 + 75


@pytest.mark.parametrize("change", [0.1, 0.4])
def test_a_gradient_is_a_plane_through_the_middle(change):
    light = illuminate(flat(0.5, (101, 101)), plain(gradient=change), random()) / 0.5
    np.testing.assert_allclose(np.diff(light, 2, axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.diff(light, 2, axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(light[50, 50], 1, rtol=1e-5)
    across, down = light[50, -1] - light[50, 0], light[-1, 50] - light[0, 50]
    np.testing.assert_allclose(np.hypot(across, down), change, rtol=1e-4)


def test_charging_only_brightens():
    light = illuminate(flat(0.5), plain(charging=0.3), random())
    assert (light >= 0.5).all() and 0.02 < (light > 0.5).mean() < 0.98


# The whole chain


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.5])
def test_the_blur_comes_after_the_noise_in_the_look_of_the_paper_alone(sigma):
    p = {"detector_noise": 0.1, "blur_sigma_px": sigma, "bit_depth": 16}
    looks = {"paper": NOISE_FIRST, "": "", "other": "other"}
    noise = {
        name: measure(flat(0.5, (400, 400)), plain(look=look, **p), random()) / 65535 for name, look in looks.items()
    }
    # Convolved with a Gaussian, white noise keeps the root of the sum of the squared weights: 1 / (2 sqrt(pi) sigma).
    np.testing.assert_allclose(noise["paper"].std(), 0.1 / (2 * np.sqrt(np.pi) * sigma), rtol=0.03)
    for name in ("", "other"):
        np.testing.assert_allclose(noise[name].std(), 0.1, rtol=0.01)


def test_a_row_without_a_look_is_measured_in_the_order_of_a_microscope():
    p = plain(detector_noise=0.1, blur_sigma_px=1.5)
    without = {name: value for name, value in p.items() if name != "look"}
    np.testing.assert_array_equal(measure(flat(0.5), without, random()), measure(flat(0.5), p, random()))


def test_the_measurement_is_keyed_by_its_stream():
    p = plain(**{name: ON[name][0] for name in IMAGING})
    surface = stream(1, "surface").random((60, 80), np.float32)
    one, again = (measure(surface, p, stream(9, "imaging")) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert (one != measure(surface, p, stream(10, "imaging"))).any()


@pytest.mark.parametrize("shape", [(64, 96), (5, 300), (2, 2)])
def test_any_size_can_be_measured(shape):
    p = plain(**{name: ON[name][0] for name in IMAGING})
    assert measure(flat(0.5, shape), p, random()).shape == shape
