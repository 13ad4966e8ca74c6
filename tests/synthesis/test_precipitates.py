"""Superalloy micrographs: the picture shows what mask and labels say, and every parameter does its own thing."""

import cv2
import numpy as np
import pytest
from numpy import array_equal as same
from scipy import ndimage
from scipy.spatial.distance import pdist
from skimage.measure import regionprops

from micro_lib.synthesis.precipitates import (
    MATRIX,
    SECONDARY,
    TERTIARY,
    coarse_particles,
    fine_particles,
    particle_surface,
    render,
    scatter_discs,
    scenario,
)
from micro_lib.synthesis.scenario import Space

# A value of every parameter that shows, and another that shows differently.
COARSE = {
    "cell_px": (40.0, 55.0),
    "merged_share": (0.2, 0.8),
    "empty_share": (0.2, 0.6),
    "channel_px": (6.0, 9.0),
    "channel_spread": (0.3, 0.6),
    "corner_px": (8.0, 14.0),
    "waviness_px": (1.0, 2.0),
    "notches": (1.0, 2.5),
    "lloyd_steps": (1, 2),
    "size_spread": (0.2, 0.4),
    "elongation": (1.2, 1.6),
    "elongation_deg": (20.0, 70.0),
    "bend": (0.04, 0.1),
}
FINE = {
    "tertiary_fraction": (0.03, 0.015),
    "tertiary_px": (6.0, 8.0),
    "tertiary_spread": (0.3, 0.5),
    "depleted_px": (4.0, 7.0),
    "crowding": (1.0, 2.0),
}
LOOK = {
    "matrix_grey": (0.55, 0.6),
    "secondary_contrast": (-0.06, -0.1),
    "tertiary_contrast": (-0.08, -0.12),
    "halo": (0.04, 0.08),
    "halo_px": (6.0, 9.0),
    "rim": (0.02, 0.05),
    "rim_px": (5.0, 8.0),
    "clouds": (0.01, 0.03),
    "grain": (0.01, 0.02),
    "pits_per_1e4px": (2.0, 4.0),
    "pit_radius_px": (4.0, 6.0),
    "fine_pits_per_1e4px": (20.0, 40.0),
    "scratches_per_1e4px": (2.0, 4.0),
    "stripe_deg": (30.0, 60.0),
    "stain_depth": (0.05, 0.1),
    "gradient": (0.1, 0.2),
    "vignetting": (0.1, 0.2),
    "charging": (0.05, 0.1),
    "blur_sigma_px": (0.8, 1.2),
    "defocus": (0.5, 1.0),
    "shot_noise": (0.01, 0.02),
    "detector_noise": (0.01, 0.02),
    "scan_lines": (0.01, 0.02),
    "contrast": (1.0, 1.2),
    "brightness": (0.0, 0.05),
    "gamma": (1.1, 0.9),
    "inverted": (False, True),
    "bit_depth": (8, 16),
}
ON = COARSE | FINE | LOOK
BOOKKEEPING = {"view": ("0d", "180d"), "pixel_size_um": (0.01, 0.02)}  # they change no pixel of a row
PLAIN_LOOK = {
    **dict.fromkeys(("halo", "rim", "clouds", "grain"), 0.0),
    **{"matrix_grey": 0.6, "secondary_contrast": -0.1, "tertiary_contrast": -0.2, "halo_px": 5.0, "rim_px": 4.0},
}


def row(**changes):
    shape = {"height_px": 128, "width_px": 160, "seed": 7}
    return {**{name: value for name, (value, _) in (ON | BOOKKEEPING).items()}, **shape, **changes}


def particles_of(**changes):
    p = row(**changes)
    return coarse_particles(p, (p["height_px"], p["width_px"]), np.random.default_rng(p["seed"]))


@pytest.fixture(scope="module")
def made():
    return render(row())


# --- every parameter does something, and only what it may ---
def test_every_parameter_has_a_value_to_test_with():
    assert set(scenario()) == set(ON) | set(BOOKKEEPING) | {"height_px", "width_px"}


@pytest.mark.parametrize("name", ON)
def test_every_parameter_changes_something(name, made):
    after = render(row(**{name: ON[name][1]}))
    assert not same(made.image, after.image)
    coarse = [np.where(one.mask == SECONDARY, one.labels, 0) for one in (made, after)]
    assert same(*coarse) == (name not in COARSE)
    assert same(made.labels, after.labels) == same(made.mask, after.mask) == (name in LOOK)


@pytest.mark.parametrize("name", BOOKKEEPING)
def test_bookkeeping_changes_no_pixel(name, made):
    after = render(row(**{name: BOOKKEEPING[name][1]}))
    assert all(same(a, b) for a, b in zip(made[:3], after[:3], strict=True))
    assert after.pixel_size_um == (0.02 if name == "pixel_size_um" else 0.01)


# --- what it is ---
def test_shapes_types_and_repetition(made):
    again, other = render(row()), render(row(seed=8))
    for array, dtype in ((made.image, np.uint8), (made.mask, np.uint8), (made.labels, np.int32)):
        assert array.shape == (128, 160) and array.dtype == dtype
    assert all(a.tobytes() == b.tobytes() for a, b in zip(made[:3], again[:3], strict=True))
    assert not same(made.mask, other.mask) and not same(made.image, other.image)
    assert render(row(bit_depth=16)).image.dtype == np.uint16


def test_mask_and_labels_say_the_same(made):
    assert same(made.mask > 0, made.labels > 0)
    ids = np.unique(made.labels)
    assert same(ids, np.arange(len(ids)))
    classes = [np.unique(made.mask[made.labels == i]) for i in ids]
    assert all(len(of) == 1 for of in classes)
    assert [int(of[0]) for of in classes] == sorted([int(of[0]) for of in classes])  # matrix, coarse, fine in turn
    for i in ids[1:]:
        assert ndimage.label(made.labels == i)[1] == 1  # a particle hangs together


def test_coarse_particles_are_apart_and_fine_ones_lie_between(made):
    fine = made.mask == TERTIARY
    to_coarse = ndimage.distance_transform_edt(made.mask != SECONDARY)
    assert to_coarse[fine].min() > 4.0 - 1.5  # depleted_px, less the rounding to pixels
    n_fine = len(np.unique(made.labels[fine]))
    assert n_fine > 5
    assert ndimage.label(fine, np.ones((3, 3)))[1] == n_fine  # they touch not even by corners
    assert ndimage.label(made.mask == SECONDARY)[1] == len(np.unique(made.labels[made.mask == SECONDARY]))
    coarse, small = ([r.area for r in regionprops(np.where(made.mask == i, made.labels, 0))] for i in (1, 2))
    assert np.median(coarse) > 10 * np.median(small)


def test_a_micrograph_does_not_depend_on_how_many_were_asked_for():
    few, many = scenario().sample(2, 5), scenario().sample(6, 5)
    assert same(render(few.iloc[1].to_dict()).image, render(many.iloc[1].to_dict()).image)


def test_sampled_micrographs_look_as_they_should():
    table = scenario().sample(12, 3)
    shown = [render(one) for one in table.to_dict("records")]
    bright = np.array([one.image.mean() for one in shown])
    is_180 = (table["view"] == "180d").to_numpy()
    assert 0 < is_180.sum() < 12 and bright[is_180].min() > bright[~is_180].max()
    shares = np.array([[(one.mask == i).mean() for i in range(3)] for one in shown])
    assert shares[:, SECONDARY].min() > 0.2 and shares[:, SECONDARY].max() < 0.8
    assert 0.01 < np.median(shares[:, TERTIARY]) < 0.04 and shares[:, TERTIARY].max() < 0.05
    for one in shown:
        grey = [one.image[one.mask == i].mean() for i in range(3)]
        assert grey[MATRIX] - 5 > grey[SECONDARY] and grey[MATRIX] - 5 > grey[TERTIARY]


def test_the_space_survives_a_file(tmp_path):
    scenario().save(tmp_path / "superalloy.json")
    assert Space.load(tmp_path / "superalloy.json").sample(4, 1).equals(scenario().sample(4, 1))


# --- coarse particles ---
def test_wider_channels_and_empty_cells_leave_more_matrix():
    plain = {"channel_spread": 0.0, "empty_share": 0.0, "notches": 0.0, "waviness_px": 0.0}
    shares = [(particles_of(**plain, channel_px=width) > 0).mean() for width in (3.0, 6.0, 12.0)]
    assert shares[0] > shares[1] + 0.03 > shares[2] + 0.06
    full, half, none = (particles_of(**plain | {"empty_share": share}) for share in (0.0, 0.5, 1.0))
    assert (full > 0).mean() > (half > 0).mean() + 0.1 and not none.any()
    assert full.max() > half.max()


def test_channels_are_as_wide_as_asked_for():
    labels = particles_of(channel_px=8.0, channel_spread=0.0, empty_share=0.0, notches=0.0, waviness_px=0.0)
    ridge = ndimage.distance_transform_edt(labels == 0)
    nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)[1]
    owner = labels[tuple(nearest)]
    middle = np.zeros_like(ridge, bool)  # pixels whose right neighbour belongs to another particle
    middle[:, :-1] = (owner[:, 1:] != owner[:, :-1]) & (labels[:, :-1] == 0)
    assert 2 * np.median(ridge[middle]) - 1 == pytest.approx(8.0, abs=1.1)


def test_merged_cells_give_fewer_and_larger_particles():
    plain = {"empty_share": 0.0, "notches": 0.0}
    apart, merged = (particles_of(**plain, merged_share=share) for share in (0.0, 0.8))
    assert merged.max() < 0.8 * apart.max()
    assert (merged > 0).sum() > (apart > 0).sum()  # there are channels less


def test_corners_are_rounded():
    def solidity(corner_px):  # of a convex outline nothing is lost; the share of a box that is filled falls
        labels = particles_of(corner_px=corner_px, bend=0.0, waviness_px=0.0, notches=0.0, merged_share=0.0)
        inner = [r for r in regionprops(labels) if min(r.bbox[:2]) > 0 and r.bbox[2] < 128 and r.bbox[3] < 160]
        return np.mean([4 * np.pi * r.area / r.perimeter**2 for r in inner])

    assert solidity(1.0) + 0.02 < solidity(12.0)


def test_notches_cut_into_particles_without_taking_them_away():
    whole, cut = (particles_of(notches=n, empty_share=0.0, waviness_px=0.0) for n in (0.0, 2.0))
    assert not ((cut > 0) & (whole == 0)).sum() > 0.005 * whole.size  # but for the smoothing after it
    lost = (whole > 0).mean() - (cut > 0).mean()
    assert 0.01 < lost < 0.3
    assert cut.max() >= whole.max()


def test_what_is_narrower_than_a_channel_dissolves():
    labels = particles_of(cell_px=20.0, size_spread=0.6, channel_px=8.0, notches=0.0, empty_share=0.0)
    inside = ndimage.distance_transform_edt(labels > 0)
    deepest = ndimage.maximum(inside, labels, np.arange(1, labels.max() + 1))
    assert len(deepest) > 5 and deepest.min() >= 2.5


# --- fine particles ---
def test_discs_keep_apart_within_their_room_and_share():
    rng = np.random.default_rng(0)
    room = cv2.distanceTransform(np.pad(np.ones((198, 298), np.uint8), 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    discs = scatter_discs(room, np.ones(room.shape), 0.1, 8.0, 0.3, rng)
    x, y, radius = discs.T
    assert (room[y.astype(int), x.astype(int)] >= radius).all()
    gaps = pdist(discs[:, :2]) - pdist(radius[:, None], lambda a, b: (a + b)[0])
    assert gaps.min() > 2.5
    area = np.pi * (radius**2).sum() / room.size
    assert 0.1 <= area < 0.1 + np.pi * radius.max() ** 2 / room.size
    # Placed as they come, large ones would be turned away more often.
    assert np.median(2 * radius) == pytest.approx(8.0, rel=0.07) and np.log(radius).std() == pytest.approx(
        0.3, abs=0.05
    )


def test_discs_follow_the_density_and_stop_where_there_is_no_room():
    rng = np.random.default_rng(1)
    room, density = np.full((200, 200), 99.0), np.ones((200, 200))
    density[:, :100] = 9.0
    x = scatter_discs(room, density, 0.02, 3.0, 0.0, rng)[:, 0]  # few: they are not in each other's way
    assert (x < 100).mean() == pytest.approx(0.9, abs=0.06)
    assert scatter_discs(-room, density, 0.05, 4.0, 0.0, rng).shape == (0, 3)
    assert scatter_discs(room, density, 0.0, 4.0, 0.0, rng).shape == (0, 3)
    assert scatter_discs(np.full((200, 200), 1.0), density, 0.05, 4.0, 0.0, rng).shape == (0, 3)  # all too large
    crowded = scatter_discs(room, np.ones((200, 200)), 0.9, 10.0, 0.0, rng)
    assert 0.15 < np.pi * (crowded[:, 2] ** 2).sum() / 200**2 < 0.55  # no more fits: random discs jam at 0.55


def test_no_room_between_coarse_particles_gives_no_fine_ones():
    labels = np.ones((40, 40), np.int32)
    assert fine_particles(labels, row(), np.random.default_rng(0)).shape == (0, 3)
    full = render(row(empty_share=0.0, depleted_px=60.0))
    assert not (full.mask == TERTIARY).any() and (full.mask == SECONDARY).any()
    bare = render(row(empty_share=1.0))
    assert not (bare.mask == SECONDARY).any() and (bare.mask == TERTIARY).any()


# --- look ---
def surface(mask, **changes):
    return particle_surface(mask, {**row(), **PLAIN_LOOK, **changes}, np.random.default_rng(0))


def test_brightness_by_hand():
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 5:15], mask[8:11, 22:25] = SECONDARY, TERTIARY
    np.testing.assert_allclose(surface(mask), np.array([0.6, 0.5, 0.4], np.float32)[mask], atol=1e-6)
    halo = surface(mask, halo=0.05) - surface(mask)
    assert halo[10, 17] == pytest.approx(0.05 * np.exp(-3 / 5), abs=1e-5)  # 3 px from the coarse particle
    assert (halo[mask > 0] == 0).all() and (halo[mask == 0] > 0).all()
    rim = surface(mask, rim=0.03) - surface(mask)
    assert rim[10, 6] == pytest.approx(-0.03 * np.exp(-2 / 4), abs=1e-5)  # the second pixel within
    assert (rim[mask != SECONDARY] == 0).all()


@pytest.mark.parametrize("name", ["clouds", "grain"])
def test_changes_of_brightness_have_the_size_asked_for(name):
    change = surface(np.zeros((300, 300), np.uint8), **{name: 0.02, "cell_px": 10.0}) - np.float32(0.6)
    assert change.std() == pytest.approx(0.02, rel=0.25) and abs(change.mean()) < 0.004


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"view": "90d"}, r"'view' is '90d'; one of \['0d', '180d'\]"), ({"channel_px": 0.0}, "'channel_px' is 0.0")],
)
def test_rows_out_of_range_are_refused(changes, message):
    row = scenario().sample(1, 1).to_dict("records")[0]
    with pytest.raises(ValueError, match=message):
        render(row | changes)
