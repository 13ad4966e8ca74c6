"""Grain micrographs: what the picture shows is what mask and labels say, and the measurement never touches those."""

import tracemalloc

import cv2
import numpy as np
import psutil
import pytest
from helpers.grain_rows import ON, dressed, plain
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import array_equal as same

from micro_lib.core.labels import GRAIN_BOUNDARY
from micro_lib.core.seeds import stream
from micro_lib.synthesis.grains import boundary_mask, etch_boundaries, render
from micro_lib.synthesis.presets import PARAMETERS, preset
from micro_lib.synthesis.tessellation import Geometry, draw, tessellate

GEOMETRY = {
    "grain_diameter_px",
    "lloyd_steps",
    "size_spread",
    "fine_fraction",
    "fine_ratio",
    "elongation",
    "elongation_deg",
    "bend",
}
SHAPE = {"height_px", "width_px"}
BOOKKEEPING = {"look", "pixel_size_um"}  # they change no pixel
APPEARANCE = sorted(set(PARAMETERS) - GEOMETRY - SHAPE - BOOKKEEPING - {"mask_width_px"})


# Every parameter does something, and only what it may


def test_every_parameter_has_a_value_to_test_with():
    assert set(PARAMETERS) == set(ON) | SHAPE | BOOKKEEPING


@pytest.mark.parametrize("name", ON)
def test_every_parameter_changes_something(name):
    before, after = render(dressed()), render(dressed(**{name: ON[name][1]}))
    if name == "mask_width_px":
        assert not same(before.mask, after.mask) and same(before.image, after.image)
    else:
        assert not same(before.image, after.image)
    if name in GEOMETRY:
        assert not same(before.labels, after.labels)


@pytest.mark.parametrize("name", ON)
def test_every_feature_can_be_switched_on_alone(name):
    # Some need a partner: what varies them, or what they are properties of.
    partners = {
        "fine_ratio": "fine_fraction",
        "fine_fraction": "fine_ratio",
        "elongation_deg": "elongation",
        "texture_wavelength": "texture_amplitude",
        "stripe_deg": "stripe_depth",
        "stripe_scatter": "stripe_depth",
        "stripe_spacing_px": "stripe_depth",
        "twin_contrast": "twin_fraction",
        "twin_line": "twin_fraction",
        "pit_radius_px": "pits_per_1e4px",
        "rim_px": "rim_depth",
        "defocus": "blur_sigma_px",
    }
    partner = {partners[name]: ON[partners[name]][0]} if name in partners else {}
    value = ON[name][1]
    # Only wide boundaries have room for chips, and only grains that differ in size have small ones to become pores.
    base = {"grain_diameter_px": 16.0, "boundary_width_px": 6.0} | partner
    off, on = render(plain(**base)), render(plain(**{**base, name: value}))
    assert any(not same(a, b) for a, b in zip(off[:3], on[:3], strict=True))


@pytest.mark.parametrize("name", APPEARANCE)
def test_appearance_and_measurement_touch_neither_mask_nor_labels(name):
    before, after = render(dressed()), render(dressed(**{name: ON[name][1]}))
    np.testing.assert_array_equal(before.labels, after.labels)
    np.testing.assert_array_equal(before.mask, after.mask)


def test_the_plain_and_the_dressed_micrograph_have_the_same_grains():
    bare = {name: ON[name][0] for name in GEOMETRY}
    before, after = render(plain(**bare, mask_width_px=5.0)), render(dressed())
    np.testing.assert_array_equal(before.labels, after.labels)
    np.testing.assert_array_equal(before.mask, after.mask)


@pytest.mark.parametrize("name", sorted(BOOKKEEPING))
def test_bookkeeping_changes_no_pixel(name):
    value = {"look": "other", "pixel_size_um": 0.25}[name]
    before, after = render(dressed()), render(dressed(**{name: value}))
    assert all(same(a, b) for a, b in zip(before[:3], after[:3], strict=True))
    assert after.pixel_size_um == (0.25 if name == "pixel_size_um" else 1.0)


# Repetition


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**53 - 1))
def test_a_row_gives_the_same_bytes_every_time(seed):
    one, other = render(dressed(seed=seed)), render(dressed(seed=seed))
    assert all(a.tobytes() == b.tobytes() and a.dtype == b.dtype for a, b in zip(one[:3], other[:3], strict=True))


def test_another_seed_gives_another_micrograph():
    one, other = render(dressed(seed=1)), render(dressed(seed=2))
    assert not same(one.image, other.image) and not same(one.mask, other.mask) and not same(one.labels, other.labels)


def test_a_micrograph_does_not_depend_on_how_many_were_asked_for():
    space = preset("broad")
    few, many = space.sample(2, 5), space.sample(9, 5)
    for i in range(2):
        one, other = render(few.iloc[i]), render(many.iloc[i])
        assert all(same(a, b) for a, b in zip(one[:3], other[:3], strict=True))


@pytest.mark.parametrize("name", ["trampert", "steel_316l", "broad"])
def test_rows_of_tables_and_dicts_render_the_same(name):
    table = preset(name).sample(2, 3)
    for i, record in enumerate(table.to_dict("records")):
        series, plain_dict = render(table.iloc[i]), render(record)
        np.testing.assert_array_equal(series.image, plain_dict.image)
        np.testing.assert_array_equal(series.mask, plain_dict.mask)


def test_rendering_does_not_disturb_global_random_numbers():
    cv2.setRNGSeed(1)
    expected = cv2.randu(np.zeros(4, np.float32), 0, 1).copy()
    cv2.setRNGSeed(1)
    render(dressed())
    np.testing.assert_array_equal(cv2.randu(np.zeros(4, np.float32), 0, 1), expected)


def test_a_stream_of_micrographs_holds_no_memory():
    process = psutil.Process()
    row = dressed(height_px=256, width_px=256)
    resident, traced = [], []
    tracemalloc.start()
    try:
        for seed in range(60):
            render(row | {"seed": seed})
            resident.append(process.memory_info().rss)
            traced.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # One micrograph of this size is 0.4 MB, its fields several times that; 40 kept ones would show.
    assert max(traced[20:]) - traced[19] < 2**18
    assert max(resident[20:]) - max(resident[:20]) < 4 * 2**20


# Mask, labels and picture agree


@pytest.mark.parametrize("shape", [(64, 96), (96, 64), (33, 150)])
@pytest.mark.parametrize("row", [plain, dressed])
def test_sizes_may_be_small_and_unequal(shape, row):
    made = render(row(height_px=shape[0], width_px=shape[1]))
    assert made.image.shape == made.mask.shape == made.labels.shape == shape
    assert made.image.dtype == made.mask.dtype == np.uint8 and made.labels.dtype == np.int32
    assert set(np.unique(made.mask)) == {0, 1} == set(range(len(GRAIN_BOUNDARY.classes)))
    np.testing.assert_array_equal(np.unique(made.labels), np.arange(1, made.labels.max() + 1))


def straight(angle_deg, shift_px):
    """One straight boundary through the middle of 301 px x 301 px, `angle_deg` from upright."""
    across, along = (np.array([np.cos(np.deg2rad(a)), np.sin(np.deg2rad(a))]) for a in (angle_deg, angle_deg + 90))
    ends = 150 + shift_px * across + np.linspace(-200, 200, 5)[:, None] * along
    lines = draw(ends[None], (301, 301))
    return Geometry(np.ones((301, 301), np.int32), cv2.distanceTransform(255 - lines, cv2.DIST_L2, 5), (), ())


@pytest.mark.parametrize(
    ("width", "upright", "mask_px", "groove_px"),
    [(2.0, 1, 0.9, 1.8), (4.0, 3, 3.4, 4.1), (6.0, 5, 5.2, 6.2), (10.0, 9, 9.5, 10.2)],
)
def test_mask_and_groove_are_as_wide_as_stated_over_all_directions(width, upright, mask_px, groove_px):
    p, masks, grooves = plain(boundary_width_px=width, boundary_grey=0.0), [], []
    for angle in range(0, 46, 9):
        for shift in (0.0, 0.3, 0.6):
            geometry, slope = straight(angle, shift), np.cos(np.deg2rad(angle))
            depth = 1 - etch_boundaries(np.ones((301, 301), np.float32), geometry, p, stream(1, "groove"))
            for widths, cover in ((masks, boundary_mask(geometry, p)), (grooves, depth)):
                widths.append(cover[100:200].sum(1).mean() * slope)
    assert (boundary_mask(straight(0, 0.0), p)[100:200].sum(1) == upright).all()
    assert np.mean(masks) == pytest.approx(mask_px, abs=0.1)
    assert np.mean(grooves) == pytest.approx(groove_px, abs=0.1)


def test_the_mask_follows_the_distance_rule():
    p = dressed()
    geometry = tessellate(p, (128, 128), stream(p["seed"], "geometry"))
    expected = geometry.edge_px <= (p["mask_width_px"] - 1) / 2 + 0.25
    np.testing.assert_array_equal(render(p).mask, expected)


@pytest.mark.parametrize("mask_width", [0.0, 4.0])
def test_wider_boundaries_widen_the_mask_only_where_it_shows_them_as_they_are(mask_width):
    thin, wide = (render(plain(boundary_width_px=w, mask_width_px=mask_width)).mask for w in (3.0, 7.0))
    assert (wide >= thin).all()
    assert (wide.sum() > 1.5 * thin.sum()) == (mask_width == 0)


@pytest.mark.parametrize("width", [2.0, 3.0, 5.0, 8.0])
@pytest.mark.parametrize("bend", [0.0, 0.15])
def test_the_dark_pixels_are_the_mask(width, bend):
    made = render(plain(boundary_width_px=width, bend=bend, grain_diameter_px=40.0, groove_softness_px=0.0))
    dark = made.image < 0.4 * 255
    overlap = (dark & (made.mask > 0)).sum() / (dark | (made.mask > 0)).sum()
    assert overlap > 0.75  # a line two or three pixels wide is mostly edge


@pytest.mark.parametrize("bend", [0.0, 0.2])
def test_grains_meet_inside_the_mask(bend):
    made = render(plain(bend=bend))
    steps = np.argwhere(made.labels[:, 1:] != made.labels[:, :-1])
    assert (made.mask[steps[:, 0], steps[:, 1]] | made.mask[steps[:, 0], steps[:, 1] + 1]).all()
    assert len(steps) > 300


def test_plain_grains_are_flat_and_as_bright_as_asked_for():
    made = render(plain(grey_mean=0.8, boundary_grey=0.1, grain_diameter_px=40.0))
    inside = cv2.erode(1 - made.mask, np.ones((5, 5), np.uint8)) > 0
    assert (made.image[inside] == 204).all()
    # The centre line of a boundary three pixels wide is as dark as the boundary.
    assert np.abs(np.percentile(made.image, 1) - 0.1 * 255) <= 1


def test_grey_spread_is_between_grains_and_not_within():
    made = render(plain(grey_spread=0.1, grain_diameter_px=20.0, height_px=300, width_px=300))
    inside = cv2.erode(1 - made.mask, np.ones((5, 5), np.uint8)) > 0
    levels = [np.unique(made.image[inside & (made.labels == i)]) for i in range(1, made.labels.max() + 1)]
    assert all(len(level) <= 1 for level in levels)
    greys = np.array([level[0] for level in levels if len(level)])
    np.testing.assert_allclose(greys.std(), 0.1 * 255, rtol=0.15)


def test_texture_varies_with_the_wavelength_asked_for():
    lags = []
    for wavelength in (0.2, 2 / 3):
        made = render(
            plain(
                grain_diameter_px=90.0, texture_amplitude=0.2, texture_wavelength=wavelength, boundary_grey=0.6,
                height_px=400, width_px=400,
            )
        )  # fmt: skip
        texture = made.image - made.image.mean()
        # Correlation falls to a half at about a quarter of the wavelength.
        correlation = [(texture[:, lag:] * texture[:, : 400 - lag]).mean() / texture.var() for lag in range(60)]
        lags.append(np.argmax(np.array(correlation) < 0.5))
    np.testing.assert_allclose(lags[1] / lags[0], (2 / 3) / 0.2, rtol=0.35)


@pytest.mark.parametrize("fraction", [0.3, 0.9])
def test_as_many_grains_as_asked_for_have_twins(fraction):
    p = {"grain_diameter_px": 40.0, "height_px": 500, "width_px": 500, "twin_contrast": 0.3}
    made = render(plain(**p, twin_fraction=fraction))
    inside = cv2.erode(1 - made.mask, np.ones((5, 5), np.uint8)) > 0
    found = [made.image[inside & (made.labels == i)] for i in range(1, made.labels.max() + 1)]
    crossed = np.mean([np.ptp(pixels) > 8 for pixels in found if pixels.size > 300])
    assert abs(crossed - fraction) < 0.15


def test_gaps_leave_their_share_of_the_boundaries_unetched():
    p = {"grain_diameter_px": 30.0, "height_px": 400, "width_px": 400, "boundary_width_px": 4.0}
    seen = []
    for gap in (0.0, 0.3, 0.6):
        images = [render(plain(**p, groove_gap=gap, seed=seed)) for seed in range(4)]
        seen.append(np.mean([(m.image[m.mask > 0] < 0.4 * 255).mean() for m in images]))
    np.testing.assert_allclose(1 - np.array(seen) / seen[0], [0, 0.3, 0.6], atol=0.15)


def test_a_boundary_without_width_leaves_no_trace():
    p = {"grain_diameter_px": 40.0, "height_px": 200, "width_px": 200, "rim_depth": 0.3, "groove_softness_px": 2.0}
    none, wide = (render(plain(**p, boundary_width_px=width)).image for width in (0.0, 4.0))
    assert np.ptp(none) <= 1 and np.ptp(wide) > 60
    gone = render(plain(**p, boundary_width_px=4.0, groove_gap=1.0)).image
    assert (gone < none.max() - 2).mean() < 0.02


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("pits_per_1e4px", 2.0, 8.0), ("fine_pits_per_1e4px", 10.0, 60.0), ("scratches_per_1e4px", 2.0, 8.0)],
)
def test_more_artefacts_change_more_pixels(name, low, high):
    clean = render(plain()).image
    changed = [(render(plain(**{name: value})).image != clean).mean() for value in (low, high)]
    assert 0 < changed[0] < changed[1]


def test_pores_are_whole_small_grains():
    p = {"size_spread": 0.5, "grain_diameter_px": 20.0, "height_px": 300, "width_px": 300}
    made = render(plain(**p, pore_fraction=1.0))
    area = np.bincount(made.labels.ravel())
    inside = cv2.erode(1 - made.mask, np.ones((3, 3), np.uint8)) > 0
    grains = [i for i in range(1, len(area)) if (inside & (made.labels == i)).sum() > 20]
    dark = np.array([np.median(made.image[inside & (made.labels == i)]) < 0.5 * 255 for i in grains])
    small = area[grains] < 0.5 * np.pi / 4 * 20.0**2
    assert small.sum() > 10 and not dark[~small].any() and dark[small].mean() > 0.9
