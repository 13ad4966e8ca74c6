"""Lath bainite: the structure alone decides the mask, films lie inside it, and preparations only look different."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import array_equal as same
from scipy.stats import norm

from micro_lib.core.seeds import stream
from micro_lib.synthesis import bainite, bainite_drawing
from micro_lib.synthesis.bainite import PARAMETERS, PREPARATION, PREPARATIONS, STRUCTURE, domain, preparation, render
from micro_lib.synthesis.bainite_drawing import Cells, draw_cells, draw_laths
from micro_lib.synthesis.scenario import Space

# A value of every parameter that shows, and another one that shows differently.
CELLS = {
    "lath_fraction": (0.5, 0.3),
    "cell_um": (3.0, 4.0),
    "colony_um": (6.0, 12.0),
    "lloyd_steps": (1, 2),
    "size_spread": (0.3, 0.5),
    "elongation": (1.2, 1.6),
    "elongation_deg": (20.0, 70.0),
    "bend": (0.08, 0.12),
}
LATHS = {
    "lath_um": (0.45, 0.6),
    "lath_spread": (0.5, 0.3),
    "film_um": (1.2, 2.0),
    "film_share": (0.5, 0.3),
    "beading": (0.2, 0.4),
    "waviness_um": (0.05, 0.1),
    "curvature_um": (0.3, 0.8),
    "crossing_um": (1.2, 2.0),
    "islands_per_100um2": (40.0, 80.0),
    "island_um": (0.15, 0.25),
    "island_spread": (0.5, 0.2),
    "island_at_boundary": (0.5, 0.9),
}
LOOKS = {
    "matrix_grey": (0.35, 0.45),
    "grey_spread": (0.03, 0.06),
    "lath_step": (-0.03, 0.03),
    "roughness": (0.02, 0.04),
    "roughness_um": (0.15, 0.3),
    "facet_depth": (0.1, 0.2),
    "facet_um": (0.4, 0.6),
    "relief": (0.2, 0.4),
    "film_width_um": (0.15, 0.25),
    "film_grey": (0.8, 0.9),
    "lost_share": (0.3, 0.6),
    "groove_grey": (0.2, 0.1),
    "halo": (0.1, 0.2),
    "halo_um": (0.15, 0.25),
    "subgrain_um": (0.06, 0.1),
    "subgrain_step": (0.1, 0.2),
    "boundary_um": (0.15, 0.25),
    "boundary_grey": (0.6, 0.7),
    "packet_boundary": (0.6, 0.9),
    "fading": (0.3, 0.6),
    "island_grey": (0.5, 0.6),
    "island_rim_grey": (0.8, 0.9),
    "island_rim_um": (0.1, 0.2),
    "residues_per_100um2": (5.0, 10.0),
    "residue_um": (0.1, 0.15),
    "residue_grey": (0.9, 0.7),
    "pits_per_100um2": (5.0, 10.0),
    "pit_um": (0.12, 0.2),
    "pit_grey": (0.1, 0.2),
    "stain_depth": (0.05, 0.1),
    "blur_um": (0.04, 0.08),
    "gradient": (0.1, 0.2),
    "vignetting": (0.1, 0.2),
    "charging": (0.1, 0.3),
    "defocus": (0.5, 1.0),
    "shot_noise": (0.03, 0.05),
    "detector_noise": (0.02, 0.04),
    "scan_lines": (0.01, 0.02),
    "contrast": (0.9, 1.1),
    "brightness": (0.02, -0.02),
    "gamma": (1.1, 0.9),
    "bit_depth": (8, 16),
}
ON = {**CELLS, **LATHS, **LOOKS}
SIZES = {"height_px": 160, "width_px": 200, "pixel_size_um": 0.06}
FIELD_UM = (10.0, 12.0)
OFF = {name: off for name, (_, off, _) in PARAMETERS.items()}


def plain(**changes) -> dict:
    """Return a row of a small field with every feature off that can be, except the changes."""
    return {**OFF, **SIZES, "cell_um": 3.0, "seed": 7, **changes}


def dressed(**changes) -> dict:
    """Return a row of a small field with every feature on."""
    return plain(**{**{name: on for name, (on, _) in ON.items()}, **changes})


def cells_of(p) -> Cells:
    return draw_cells(p, stream(p["seed"], "cells"))


def laths_of(p):
    return draw_laths(cells_of(p), p, stream(p["seed"], "laths"))


# Every parameter does something, and only what it may


def test_every_parameter_has_a_value_to_test_with():
    assert set(PARAMETERS) == set(ON) | set(SIZES)
    assert set(STRUCTURE) == set(CELLS) | set(LATHS) | set(SIZES) and set(PREPARATION) == set(LOOKS)


@pytest.mark.parametrize("name", ON)
def test_every_parameter_changes_something_and_the_structure_alone_changes_the_mask(name):
    before, after = render(dressed()), render(dressed(**{name: ON[name][1]}))
    assert not same(before.image, after.image)
    assert same(before.mask, after.mask) == (name not in CELLS)
    assert same(before.labels, after.labels) == (name not in set(CELLS) - {"lath_fraction", "colony_um"})


@pytest.mark.parametrize("name", [name for name in LOOKS if name not in ("matrix_grey", "gamma", "bit_depth")])
def test_every_feature_of_the_preparation_can_be_switched_on_alone(name):
    partners = {
        "roughness_um": "roughness",
        "facet_um": "facet_depth",
        "groove_grey": "lost_share",
        "halo_um": "halo",
        "subgrain_um": "subgrain_step",
        "residue_um": "residues_per_100um2",
        "residue_grey": "residues_per_100um2",
        "pit_um": "pits_per_100um2",
        "pit_grey": "pits_per_100um2",
        "defocus": "blur_um",
    }
    partner = {partners[name]: LOOKS[partners[name]][0]} if name in partners else {}
    row = plain(islands_per_100um2=40.0, **partner)
    assert not same(render(row).image, render({**row, name: LOOKS[name][1]}).image)


def test_all_preparations_show_the_same_structure_of_a_row():
    row = domain("source", "test", seed=2, n_images=1, field_um=FIELD_UM, pixel_size_um=0.06).iloc[0]
    shown = []
    for name in PREPARATIONS:
        looks = domain(name, "test", seed=2, n_images=1, field_um=FIELD_UM).iloc[0][list(PREPARATION)]
        shown.append(render({**row.to_dict(), **looks.to_dict()}))
    assert all(same(shown[0].mask, made.mask) and same(shown[0].labels, made.labels) for made in shown)
    assert not any(same(shown[0].image, made.image) for made in shown[1:])


def test_with_everything_off_ferrite_is_flat_and_as_grey_as_asked_for():
    made = render(plain(lath_fraction=0.0, matrix_grey=0.4, boundary_grey=0.8, boundary_um=0.3))
    assert not made.mask.any()
    flat = made.image == round(0.4 * 255)
    assert 0.6 < flat.mean() < 0.95 and made.image.max() == round(0.8 * 255)


# Repetition


@settings(max_examples=8)
@given(st.integers(0, 2**53 - 1))
def test_a_row_gives_the_same_bytes_every_time(seed):
    one, other = render(dressed(seed=seed)), render(dressed(seed=seed))
    assert all(a.tobytes() == b.tobytes() and a.dtype == b.dtype for a, b in zip(one[:3], other[:3], strict=True))


@pytest.mark.parametrize("name", PREPARATIONS)
def test_a_micrograph_does_not_depend_on_how_many_were_asked_for(name):
    few, many = (domain(name, "train", seed=4, n_images=n, field_um=FIELD_UM) for n in (3, 8))
    assert few.equals(many.iloc[:3])
    from_series, from_dict = render(few.iloc[2]), render(many.to_dict("records")[2])
    assert all(same(a, b) for a, b in zip(from_series[:3], from_dict[:3], strict=True))


def test_rendering_does_not_disturb_global_random_numbers():
    cv2.setRNGSeed(1)
    expected = cv2.randu(np.zeros(4, np.float32), 0, 1).copy()
    cv2.setRNGSeed(1)
    render(dressed())
    np.testing.assert_array_equal(cv2.randu(np.zeros(4, np.float32), 0, 1), expected)


# The mask


@pytest.mark.parametrize("shape", [(64, 96), (96, 64), (33, 150)])
@pytest.mark.parametrize("row", [plain, dressed])
def test_sizes_may_be_small_and_unequal(shape, row):
    made = render(row(height_px=shape[0], width_px=shape[1]))
    assert made.image.shape == made.mask.shape == made.labels.shape == shape
    assert made.mask.dtype == np.uint8 and made.labels.dtype == np.int32 and made.pixel_size_um == 0.06
    assert made.image.dtype == np.uint8 and render(row(bit_depth=16)).image.dtype == np.uint16
    np.testing.assert_array_equal(np.unique(made.labels), np.arange(1, made.labels.max() + 1))


@settings(max_examples=20)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_packets_fill_the_fraction_as_closely_as_whole_cells_allow(fraction, seed):
    cells = cells_of(dressed(lath_fraction=fraction, seed=seed))
    area = np.bincount(cells.labels.ravel()) / cells.labels.size
    assert same(cells.mask, cells.is_lath[cells.labels])
    assert abs(cells.mask.mean() - fraction) <= area.max() / 2 + 1e-9


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_there_may_be_one_phase_alone(fraction):
    made = render(dressed(lath_fraction=fraction))
    assert (made.mask == fraction).all()


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_more_bainite_is_the_same_bainite_and_more(seed):
    few, many = (cells_of(dressed(lath_fraction=f, seed=seed)) for f in (0.3, 0.6))
    assert same(few.labels, many.labels) and (many.is_lath >= few.is_lath).all()


def test_larger_colonies_have_a_shorter_common_border():
    def border(colony_um):
        p = [dressed(colony_um=colony_um, height_px=400, width_px=400, seed=seed) for seed in range(8)]
        masks = [cells_of(row).mask.astype(int) for row in p]
        return np.mean([np.abs(np.diff(mask, axis=axis)).sum() for mask in masks for axis in (0, 1)])

    assert border(12.0) < 0.8 * border(2.0)


# Films


@settings(max_examples=50)
@given(st.floats(0.05, 8), st.floats(0, 1))
def test_a_line_covers_as_many_pixels_as_it_is_wide(width, offset):
    centres = np.arange(-8, 9) + offset
    shares = [bainite_drawing._cover(abs(distance), width) for distance in centres]
    assert 0 <= min(shares) and max(shares) <= 1 + 1e-12
    np.testing.assert_allclose(sum(shares), width, rtol=1e-6)


def test_lines_of_known_cover():
    cases = {(0.0, 2.0): 1.0, (0.0, 0.5): 0.5, (1.0, 2.0): 0.5, (1.0, 1.0): 0.0, (0.25, 0.5): 0.5, (0.5, 0.5): 0.25}
    for (distance, width), share in cases.items():
        assert bainite_drawing._cover(distance, width) == pytest.approx(share)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("length_um", [1.0, 2.0])
def test_films_take_their_share_of_the_lath_boundaries_and_are_as_long_as_asked_for(share, length_um):
    p = dressed(film_share=share, film_um=length_um)
    noise = bainite_drawing._film_noise(400, p, stream(1, "films"))
    film = noise > norm.isf(share)
    assert film.mean() == pytest.approx(share, rel=0.05)
    starts = (film & ~np.roll(film, 1, axis=1)).sum()
    assert film.sum() / starts * bainite_drawing.STEP_UM == pytest.approx(length_um, rel=0.1)


@pytest.mark.parametrize("mean_um", [0.35, 0.6])
def test_laths_are_as_wide_as_asked_for(mean_um):
    edges = bainite_drawing._lath_edges(dressed(lath_um=mean_um), stream(1, "laths"))
    assert np.diff(edges).mean() == pytest.approx(mean_um, rel=0.02) and np.diff(edges).min() > 0.05
    assert edges[0] == 0 and edges[-1] == pytest.approx(bainite_drawing.PLANE_UM)


def test_films_grooves_and_subgrain_boundaries_lie_in_packets_alone():
    p = dressed()
    laths, mask = laths_of(p), cells_of(p).mask
    for share in laths:
        assert share.dtype == np.float32 and 0 <= share.min() and share.max() <= 1
        assert not share[mask == 0].any() and share[mask == 1].mean() > 0.02


def test_lost_films_leave_grooves_in_their_place():
    whole, some, none = (laths_of(dressed(lost_share=share)) for share in (0.0, 0.5, 1.0))
    assert not whole.groove.any() and not none.film.any()
    np.testing.assert_array_equal(none.groove, whole.film)
    np.testing.assert_array_equal(np.maximum(some.film, some.groove), whole.film)
    assert some.film.any() and some.groove.any()


@pytest.mark.parametrize("name", ["film", "subgrain"])
def test_coarse_pixels_show_lines_fainter_and_not_broader(name):
    shares = []
    for pixel in (0.02, 0.08):
        size = round(24 / pixel)
        p = dressed(pixel_size_um=pixel, height_px=size, width_px=size, lath_fraction=1.0, film_width_um=0.1)
        shares.append(np.mean([getattr(laths_of({**p, "seed": seed}), name).mean() for seed in range(3)]))
    assert shares[1] == pytest.approx(shares[0], rel=0.15)


def directions(picture, labels, among):
    """Direction in rad and coherence, 0 to 1, of what a packet shows, by its structure tensor."""
    x, y = (cv2.Sobel(cv2.GaussianBlur(picture, (0, 0), 1.0), cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
    for i in among:
        inside = cv2.erode((labels == i).astype(np.uint8), np.ones((5, 5))) > 0
        xx, yy, xy = (x[inside] ** 2).sum(), (y[inside] ** 2).sum(), (x[inside] * y[inside]).sum()
        yield 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2, np.hypot(xx - yy, 2 * xy) / (xx + yy)


def test_films_of_a_packet_are_nearly_parallel_and_packets_differ():
    p = dressed(height_px=600, width_px=600, lath_fraction=1.0, cell_um=6.0)
    cells = cells_of(p)
    large = np.flatnonzero(np.bincount(cells.labels.ravel()) > 4000)
    found = np.array(list(directions(laths_of(p).film, cells.labels, large)))
    assert len(large) > 15 and np.median(found[:, 1]) > 0.5
    assert np.abs(np.exp(2j * found[:, 0]).mean()) < 0.5  # no common direction


def test_straight_films_lie_in_the_direction_of_their_packet(monkeypatch):
    def turned(cells, p, rng):
        angle = np.linspace(0, np.pi, len(cells.is_lath))
        rest = np.zeros(len(angle)), np.zeros(len(angle)), np.ones(len(angle)), np.zeros(len(angle))
        return np.stack([np.cos(angle), np.sin(angle), *rest], 1).astype(np.float32)

    monkeypatch.setattr(bainite_drawing, "_packets", turned)
    p = dressed(height_px=600, width_px=600, lath_fraction=1.0, cell_um=8.0, waviness_um=0.0, curvature_um=0.0)
    cells = cells_of(p)
    large = np.flatnonzero(np.bincount(cells.labels.ravel()) > 8000)
    found = np.array([angle for angle, _ in directions(laths_of(p).film, cells.labels, large)])
    expected = np.linspace(0, np.pi, len(cells.is_lath))[large]
    np.testing.assert_allclose(np.angle(np.exp(2j * (found - expected))) / 2, 0, atol=np.deg2rad(4))


# Islands


def test_islands_lie_in_ferrite_and_cover_what_their_sizes_say():
    places, radii = np.array([[50.0, 50.0], [120.0, 60.0]]), np.array([0.6, 1.2])
    depth = bainite_drawing.draw_islands(places, radii, {"pixel_size_um": 0.06}, (180, 120), stream(1, "islands"))
    inside = depth > 0
    assert inside[50, 50] and inside[120, 60] and not inside[80:95].any()
    for half, radius in ((inside[:90], 10), (inside[90:], 20)):
        slim = half.sum() / (np.pi * radius**2)
        assert 0.4 < slim < 1.15  # slimmer than a disc, never much larger
    p = dressed(islands_per_100um2=100.0, island_at_boundary=0.0, island_um=0.06, island_spread=0.0)
    cells = cells_of(p)
    shown = bainite_drawing.scatter_islands(cells, p, stream(3, "islands")) > 0
    assert shown[cells.mask == 0].mean() > 20 * shown[cells.mask == 1].mean()


def test_as_many_islands_as_asked_for():
    p = dressed(islands_per_100um2=30.0, island_um=0.1, island_spread=0.0, lath_fraction=0.0)
    cells = cells_of(p)
    shown = [
        (bainite_drawing.scatter_islands(cells, p, stream(seed, "islands")) > 0).view(np.uint8) for seed in range(30)
    ]
    counts = [cv2.connectedComponents(islands)[0] - 1 for islands in shown]
    expected = 30 * 160 * 200 * 0.06**2 / 100
    assert np.mean(counts) == pytest.approx(expected, rel=0.12)


def test_places_are_where_they_may_be():
    allowed = np.zeros((20, 30), bool)
    assert bainite_drawing.places_in(allowed, 5, stream(1, "places")).shape == (0, 2)
    allowed[3:5, 7] = True
    places = np.rint(bainite_drawing.places_in(allowed, 50, stream(1, "places"))).astype(int)
    assert allowed[places[:, 0], places[:, 1]].all() and len(np.unique(places, axis=0)) == 2


# What the preparations are


def pictures(name, n=3, **changes):
    table = domain(name, "test", seed=9, n_images=n, field_um=(14.0, 14.0), lath_fraction=0.5).assign(**changes)
    return [(render(row), laths_of(row)) for row in table.to_dict("records")]


def contrast(name):
    """Mean brightness of films over that of the matrix in the same packets, and of boundaries over that of ferrite."""
    films, boundaries = [], []
    for made, laths in pictures(name):
        image, packet = made.image / 255, made.mask == 1
        films.append(image[laths.film > 0.9].mean() - image[packet & (laths.film == 0) & (laths.groove == 0)].mean())
        border = cv2.morphologyEx(made.labels.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
        core = cv2.dilate(border.view(np.uint8), np.ones((9, 9))) == 0
        boundaries.append(image[border & ~packet].mean() - image[core & ~packet].mean())
    return np.mean(films), np.mean(boundaries)


def test_electrons_show_films_and_boundaries_bright_and_light_shows_them_dark():
    for name in ("source", "T1", "T2"):
        assert min(contrast(name)) > 0.05
    assert contrast("T3")[1] < -0.08
    assert contrast("source")[0] > 0.3


def test_over_etching_broadens_films_and_fades_boundaries():
    shown = {name: [laths for _, laths in pictures(name)] for name in ("source", "T1", "T2")}
    share = {name: np.mean([(laths.film + laths.groove).mean() for laths in all_]) for name, all_ in shown.items()}
    assert share["T1"] < 1.6 * share["source"] and share["T2"] > 1.7 * share["source"]
    seen = {name: preparation(name)["fading"].distribution.quantile(np.array([0.5]), {})[0] for name in share}
    assert seen["T2"] > 0.3 > seen["source"]


def test_fading_hides_its_share_of_the_boundaries():
    def dark(fading):
        rows = [plain(lath_fraction=0.0, boundary_um=0.2, boundary_grey=0.9, fading=fading, seed=s) for s in range(6)]
        return np.mean([(render(row).image > 0.6 * 255).mean() for row in rows])

    hidden = [1 - dark(fading) / dark(0.0) for fading in (0.3, 0.6)]
    np.testing.assert_allclose(hidden, [0.3, 0.6], atol=0.12)


def test_the_light_microscope_resolves_no_films():
    def visibility(name):
        correlations = []
        for made, laths in pictures(name, film_share=0.5):
            inside = cv2.erode(made.mask, np.ones((5, 5))) > 0
            fields = made.image.astype(np.float32), laths.film
            local = [f - cv2.GaussianBlur(f, (0, 0), 0.5 / made.pixel_size_um) for f in fields]
            correlations.append(np.corrcoef(local[0][inside], local[1][inside])[0, 1])
        return abs(np.mean(correlations))

    assert visibility("source") > 0.7 and visibility("T3") < 0.6


def test_more_artefacts_change_more_pixels():
    clean = render(plain()).image
    for name in ("residues_per_100um2", "pits_per_100um2"):
        changed = [(render(plain(**{name: value})).image != clean).mean() for value in (10.0, 60.0)]
        assert 0 < changed[0] < changed[1]


# Domains


def test_domains_are_as_large_as_published():
    images = {name: [len(domain(name, part, seed=1)) for part in bainite.PARTS] for name in PREPARATIONS}
    assert {name: images[name] for name in ("source", "T1", "T2", "T3")} == {
        "source": [28, 7], "T1": [20, 5], "T2": [12, 3], "T3": [59, 50],
    }  # fmt: skip
    sizes = domain("source", "test", seed=1)[["height_px", "width_px", "pixel_size_um"]].drop_duplicates()
    assert sizes.to_numpy().tolist() == [[1433, 2048, 0.0277]]
    light = domain("T3", "test", seed=1).iloc[0]
    assert light["pixel_size_um"] == 0.1266
    assert (light["height_px"] * 0.1266, light["width_px"] * 0.1266) == pytest.approx(bainite.FIELD_UM, abs=0.07)


def test_phase_fractions_are_those_published():
    published = {"source": (0.53, 0.53), "T1": (0.54, 0.436), "T2": (0.29, 0.467), "T3": (0.53, 0.446)}
    for name, fractions in published.items():
        for part, fraction in zip(bainite.PARTS, fractions, strict=True):
            drawn = domain(name, part, seed=1)["lath_fraction"]
            assert drawn.mean() == pytest.approx(fraction, abs=1e-9 if len(drawn) % 2 else 0.008)
            assert drawn.nunique() == len(drawn) and np.ptp(drawn) < 2 * bainite.LATH_FRACTION_SPREAD


@pytest.mark.parametrize("part", bainite.PARTS)
def test_masks_of_an_over_etched_domain_hold_the_published_fraction(part):
    table = domain("T2", part, seed=1, pixel_size_um=0.1108, field_um=(19.8, 28.4))
    held = np.mean([cells_of(row).mask.mean() for row in table.to_dict("records")])
    assert held == pytest.approx({"train": 0.29, "test": 0.467}[part], abs=0.015)


def test_no_micrograph_is_in_two_parts_two_domains_or_two_data_sets():
    tables = [domain(n, part, seed=seed) for n in PREPARATIONS for part in bainite.PARTS for seed in (1, 2)]
    seeds = np.concatenate([table["seed"] for table in tables])
    assert len(np.unique(seeds)) == len(seeds)


def test_a_domain_of_another_size_and_fraction():
    table = domain("T3", "train", seed=1, n_images=5, lath_fraction=0.27, field_um=(20.0, 30.0), pixel_size_um=0.1)
    assert len(table) == 5 and table["lath_fraction"].mean() == pytest.approx(0.27)
    assert (table["height_px"] == 200).all() and (table["width_px"] == 300).all()
    assert render(table.iloc[0]).image.shape == (200, 300)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("T4", "train"), "preparation is 'T4'; there are source, T1, T2, T3, development, light development"),
        (("T1", "valid"), "part is 'valid'; there are train, test"),
    ],
)
def test_unknown_domains_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        domain(*arguments, seed=1)


@pytest.mark.parametrize("fraction", [0.1, 0.9])
def test_fractions_that_cannot_spread_are_refused(fraction):
    with pytest.raises(ValueError, match=r"lath_fraction is 0\.\d; it must be between 0\.15 and 0\.85"):
        domain("T1", "train", seed=1, lath_fraction=fraction)


@pytest.mark.parametrize("name", PREPARATIONS)
def test_preparations_are_spaces_that_can_be_kept(name, tmp_path):
    space = preparation(name)
    space.save(tmp_path / "space.json")
    assert Space.load(tmp_path / "space.json") == space
    assert set(PREPARATIONS[name]) <= set(PREPARATION)  # a preparation changes no structure
