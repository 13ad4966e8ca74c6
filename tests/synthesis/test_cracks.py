"""Crack tiles: what the picture shows is what the mask says, and what was learned from tiles draws tiles like them."""

import os
import tracemalloc
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import array_equal as same
from PIL import Image as PillowImage
from skimage.measure import label

from micro_lib.core.labels import ClassMap
from micro_lib.core.seeds import stream
from micro_lib.data.check import check
from micro_lib.data.manifest import read_manifest
from micro_lib.data.packs import pack
from micro_lib.synthesis import crack_drawing, cracks
from micro_lib.synthesis.crack_statistics import TILE_PARAMETERS, distances, fit, measure_all
from micro_lib.synthesis.cracks import PARAMETERS, render
from micro_lib.synthesis.distributions import Constant, Integers

TEXTURES = stream(1, "test textures").integers(90, 130, (3, 128, 128)).astype(np.uint8)
FLAT = np.full((1, 128, 128), 150, np.uint8)

# A crack with everything on, and another value of every parameter.
CRACK = {
    "n_cracks": (2, 3),
    "n_segments": (4, 3),
    "segment_px": (18.0, 24.0),
    "segment_spread": (0.2, 0.4),
    "bend_deg": (30.0, 50.0),
    "bend_spread": (0.3, 0.6),
    "zigzag": (0.5, 0.0),
    "waviness_px": (0.3, 0.8),
    "width_px": (4.0, 6.0),
    "width_spread": (0.2, 0.4),
    "crack_contrast": (-0.5, -0.3),
    "contrast_spread": (0.03, 0.1),
    "core_share": (0.8, 0.6),
    "n_branches": (1, 2),
    "branch_px": (25.0, 40.0),
    "middle_x": (0.5, 0.6),
    "middle_y": (0.5, 0.4),
    "direction_deg": (10.0, 40.0),
    "cut_start": (0, 1),
    "cut_end": (0, 1),
    "other_px": (20.0, 40.0),
    "other_width_px": (3.0, 5.0),
    "other_contrast": (-0.4, -0.2),
    "ragged_px": (0.3, 0.8),
    "taper_px": (5.0, 15.0),
    "width_gain": (1.0, 1.4),
    "contrast_gain": (1.0, 0.6),
}
DISTRACTORS = {
    "n_pores": (3, 6),
    "n_strings": (1, 2),
    "pore_px": (3.0, 5.0),
    "pore_stretch": (2.0, 4.0),
    "pore_contrast": (-0.5, -0.3),
    "layer_contrast": (0.3, -0.3),
    "layer_at": (0.6, 0.3),
    "layer_deg": (0.0, 20.0),
    "layer_waviness_px": (1.0, 3.0),
    "layer_line": (-0.3, 0.2),
    "n_scratches": (1, 2),
    "scratch_contrast": (-0.2, 0.2),
}
MEASUREMENT = {
    "gradient": (0.1, 0.2),
    "vignetting": (0.1, 0.2),
    "charging": (0.1, 0.2),
    "blur_sigma_px": (0.5, 1.0),
    "defocus": (0.5, 1.0),
    "shot_noise": (0.01, 0.03),
    "detector_noise": (0.01, 0.03),
    "scan_lines": (0.01, 0.03),
    "contrast": (0.9, 1.1),
    "brightness": (0.02, -0.02),
    "gamma": (1.1, 0.9),
    "inverted": (False, True),
    "bit_depth": (8, 16),
}
BACKGROUND = {"texture": (1, 2), "mirrored": (False, True)}
SHAPES = set(CRACK) - {"crack_contrast", "contrast_spread", "core_share", "other_contrast", "contrast_gain"}


def dressed(**changes) -> dict:
    """Return a row with everything on."""
    values = {**CRACK, **DISTRACTORS, **MEASUREMENT, **BACKGROUND}
    return {"crack": True, "seed": 7, **{name: on for name, (on, _) in values.items()}, **changes}


def plain(**changes) -> dict:
    """Return a row with one straight crack of even width and grey on the first texture, everything else off."""
    off = {name: value for name, (_, value, _) in PARAMETERS.items() if value is not None}
    straight = {
        "n_cracks": 1,
        "n_segments": 1,
        "segment_px": 60.0,
        "segment_spread": 0.0,
        "bend_deg": 0.0,
        "bend_spread": 0.0,
        "zigzag": 0.5,
    }
    even = {"waviness_px": 0.0, "width_px": 5.0, "width_spread": 0.0, "contrast_spread": 0.0, "n_branches": 0}
    grey = {"crack_contrast": -0.6, "core_share": 0.95, "direction_deg": 0.0, "cut_start": 0, "cut_end": 0}
    rest = {"branch_px": 20.0, "other_px": 20.0, "other_width_px": 3.0, "other_contrast": -0.4}
    place = {"middle_x": 64 / 127, "middle_y": 64 / 127}
    return {**off, **straight, **even, **grey, **rest, **place, "texture": 0, "crack": True, "seed": 7, **changes}


# Every parameter does something, and only what it may


def test_every_parameter_has_a_value_to_test_with():
    assert {*TILE_PARAMETERS, *PARAMETERS} == {*CRACK, *DISTRACTORS, *MEASUREMENT, *BACKGROUND, "crack"}


@pytest.mark.parametrize("name", [*CRACK, *DISTRACTORS, *MEASUREMENT, *BACKGROUND])
def test_every_parameter_changes_something(name):
    value = {**CRACK, **DISTRACTORS, **MEASUREMENT, **BACKGROUND}[name][1]
    before, after = render(dressed(), TEXTURES), render(dressed(**{name: value}), TEXTURES)
    assert not same(before.image, after.image)
    assert same(before.mask, after.mask) == (name not in SHAPES)


def test_a_gain_is_as_good_as_wider_and_fainter_cracks():
    gained = dressed(width_gain=1.5, contrast_gain=0.5)
    stated = dressed(width_px=6.0, other_width_px=4.5, crack_contrast=-0.25, other_contrast=-0.2)
    assert all(same(one, other) for one, other in zip(render(gained, TEXTURES), render(stated, TEXTURES), strict=True))


@pytest.mark.parametrize("name", sorted(CRACK))
def test_without_a_crack_its_parameters_change_nothing(name):
    free = dressed(crack=False)
    assert same(render(free, TEXTURES).image, render({**free, name: CRACK[name][1]}, TEXTURES).image)


@pytest.mark.parametrize("name", sorted(DISTRACTORS))
def test_what_is_no_crack_shows_in_both_classes_and_in_no_mask(name):
    for crack in (False, True):
        before = render(dressed(crack=crack), TEXTURES)
        after = render(dressed(crack=crack, **{name: DISTRACTORS[name][1]}), TEXTURES)
        assert not same(before.image, after.image) and same(before.mask, after.mask)


def test_what_lies_behind_does_not_depend_on_the_crack():
    quiet = {name: value for name, (_, value, _) in PARAMETERS.items() if name in MEASUREMENT}
    cracked, free = (render(dressed(crack=crack, **quiet), TEXTURES) for crack in (True, False))
    off = cv2.dilate(cracked.mask, np.ones((5, 5))) == 0
    assert off.mean() > 0.8 and same(cracked.image[off], free.image[off])
    assert cracked.image[cracked.mask == 1].mean() < 0.8 * free.image[cracked.mask == 1].mean()


def test_a_tile_without_a_crack_is_its_texture():
    free = plain(crack=False, texture=2)
    made = render(free, TEXTURES)
    assert same(made.image, TEXTURES[2]) and not made.mask.any() and not made.labels.any()
    assert same(render({**free, "mirrored": True}, TEXTURES).image, TEXTURES[2][:, ::-1])


# The mask


def test_a_straight_crack_covers_whole_pixels():
    mask = render(plain(width_px=5.0), FLAT).mask
    assert same(np.flatnonzero(mask[64]), np.arange(62, 67))
    rows = np.flatnonzero(mask[:, 64])
    assert same(rows, np.arange(rows[0], rows[-1] + 1)) and abs(len(rows) - 65) <= 1  # 60 px and half a width twice


@settings(max_examples=25)
@given(st.floats(-80, 80), st.floats(2, 10), st.floats(0.4, 0.6), st.floats(0.4, 0.6))
def test_the_mask_is_where_the_crack_covers_half_of_a_pixel(direction, width, x, y):
    row = plain(direction_deg=direction, width_px=width, middle_x=x, middle_y=y)
    fine = (np.arange(128 * 8) + 0.5) / 8 - 0.5
    angle = np.deg2rad(direction)
    dx, dy = fine[None] - x * 127, fine[:, None] - y * 127
    along = np.clip(dx * np.sin(angle) + dy * np.cos(angle), -30, 30)
    inside = np.hypot(dx - along * np.sin(angle), dy - along * np.cos(angle)) <= width / 2
    cover = inside.reshape(128, 8, 128, 8).mean(axis=(1, 3))
    mask = render(row, FLAT).mask
    assert not mask[cover < 0.35].any() and mask[cover > 0.65].all()  # cover is told from the distance of the centre
    half = (cover >= 0.5).sum()
    assert abs(int(mask.sum()) - half) < 0.08 * half + 4


def test_labels_count_the_cracks():
    made = render(dressed(n_cracks=3, n_branches=0), TEXTURES)
    assert set(np.unique(made.labels)) == {0, 1, 2, 3}
    assert same(made.mask, made.labels > 0)
    assert made.labels.dtype == np.int32 and made.mask.dtype == np.uint8


def test_further_cracks_keep_off_the_others():
    rows = [plain(n_cracks=3, seed=seed, other_px=12.0) for seed in range(30)]
    parts = [label(render(row, FLAT).mask, connectivity=2).max() for row in rows]
    assert np.mean(parts) > 2.7


def test_branches_belong_to_their_crack():
    bare, branched = (render(plain(n_branches=n, branch_px=30.0), FLAT) for n in (0, 1))
    assert branched.mask.sum() > bare.mask.sum() + 60
    assert branched.labels.max() == 1 and label(branched.mask, connectivity=2).max() == 1


def test_a_free_end_tapers_and_a_cut_one_runs_out_of_the_tile():
    tapered = render(plain(taper_px=20.0), FLAT).mask.sum(axis=1)
    assert tapered[36] < tapered[45] < tapered[64] == 5
    cut = render(plain(taper_px=20.0, cut_end=1, middle_y=95 / 127), FLAT).mask.sum(axis=1)
    assert cut[-1] == 5 and cut[40] == 0


def test_darkest_in_the_middle():
    row = render(plain(width_px=9.0, core_share=0.6), FLAT).image[64, 58:72].astype(int)
    assert row.argmin() == 64 - 58 and (np.diff(row[:7]) <= 0).all() and (np.diff(row[6:]) >= 0).all()


@pytest.mark.parametrize("zigzag", [0.0, 0.3, 0.9, 1.0])
def test_bends_go_back_as_often_as_asked_for_and_the_first_to_either_side(zigzag):
    p = {"segment_spread": 0.2, "bend_deg": 20.0, "bend_spread": 0.3, "zigzag": zigzag}
    steps = np.stack([np.diff(crack_drawing._walk(4, 20.0, p, stream(i, "walk")), axis=0) for i in range(600)])
    headings = np.arctan2(steps[..., 0], steps[..., 1])  # (600, 4), from straight down
    sides = np.sign(np.diff(headings, axis=1))  # (600, 3)
    assert abs((sides[:, 0] > 0).mean() - 0.5) < 4 * np.sqrt(0.25 / 600)
    back = sides[:, 1:] != sides[:, :-1]
    assert abs(back.mean() - zigzag) <= 4 * np.sqrt(zigzag * (1 - zigzag) / back.size)


# Repetition and balance


@pytest.mark.parametrize("generator", cracks.GENERATORS)
def test_a_row_gives_the_same_bytes_every_time(generator):
    space = cracks.scenario(cracks.invented(), len(TEXTURES), generator)
    few, many = space.sample(3, 5), space.sample(9, 5)
    for i, row in enumerate(few.to_dict("records")):
        one, other = render(row, TEXTURES), render(many.iloc[i].to_dict(), TEXTURES)
        assert all(a.tobytes() == b.tobytes() and a.dtype == b.dtype for a, b in zip(one[:3], other[:3], strict=True))
    assert not same(render(dressed(seed=1), TEXTURES).mask, render(dressed(seed=2), TEXTURES).mask)


def test_rendering_leaves_the_pool_alone():
    before = TEXTURES.copy()
    render(dressed(), TEXTURES)
    assert same(before, TEXTURES)


@pytest.mark.parametrize("generator", cracks.GENERATORS)
def test_classes_are_balanced(generator):
    space = cracks.scenario(cracks.invented(), 5, generator)
    assert space.sample(512, 3, "sobol")["crack"].sum() == 256
    assert abs(space.sample(4000, 3)["crack"].mean() - 0.5) < 0.04  # five standard deviations


def test_nothing_but_the_crack_tells_the_classes_apart():
    table = cracks.scenario(cracks.invented(), 5, "covering").sample(4000, 1)
    for name in set(PARAMETERS) - {"crack"}:
        if table[name].dtype != object and table[name].nunique() > 1:
            cracked, free = (table[name][table["crack"] == crack].astype(float) for crack in (True, False))
            assert abs(cracked.mean() - free.mean()) < 0.16 * table[name].astype(float).std()


def test_the_papers_generator_is_texture_and_crack():
    table = cracks.scenario(cracks.invented(), 5).sample(50, 1)
    for name, (_, off, _) in PARAMETERS.items():
        if name in DISTRACTORS or name in MEASUREMENT:
            assert (table[name] == off).all()
    for row in table[~table["crack"]].to_dict("records"):
        expected = TEXTURES[row["texture"] % 3]
        made = render({**row, "texture": row["texture"] % 3}, TEXTURES).image
        assert same(made, expected[:, ::-1] if row["mirrored"] else expected)


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"bit_depth": 12}, "'bit_depth' is 12"), ({"core_share": 1.0}, "'core_share' is 1.0; a number from 0.3 to 0.95")],
)
def test_rows_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        render(plain(**changes), TEXTURES)


def test_bad_pools_and_scenarios_are_refused():
    with pytest.raises(ValueError, match=r"a pool of textures is \(N, H, W\) uint8"):
        render(plain(), TEXTURES[0])
    with pytest.raises(ValueError, match=r"\(N, H, W\) uint8"):
        render(plain(), TEXTURES.astype(float))
    with pytest.raises(ValueError, match="texture 5 of a pool of 3"):
        render(plain(texture=5), TEXTURES)
    with pytest.raises(ValueError, match="generator is 'all'; there are paper, covering"):
        cracks.scenario(cracks.invented(), 3, "all")
    with pytest.raises(ValueError, match="0 textures"):
        cracks.scenario(cracks.invented(), 0)


@pytest.mark.parametrize("shape", [(64, 64), (96, 160), (33, 47)])
def test_any_size_of_tile(shape):
    made = render(dressed(texture=0, bit_depth=8), np.full((1, *shape), 120, np.uint8))
    assert made.image.shape == made.mask.shape == shape


def test_a_black_tile_stays_black():
    assert not render(plain(), np.zeros((1, 64, 64), np.uint8)).image.any()


# Tiles in a folder


@pytest.fixture
def table():
    return cracks.scenario(cracks.invented(), len(TEXTURES)).sample(12, 4)


def test_tiles_in_a_folder_are_the_rendered_ones(table, tmp_path):
    folder = cracks.write_tiles(table, TEXTURES, tmp_path / "tiles")
    manifest = pd.read_csv(folder / "manifest.csv")
    pd.testing.assert_frame_equal(manifest.drop(columns=["name", "specimen"]), table, check_exact=False, rtol=1e-12)
    for name, row in zip(manifest["name"], table.to_dict("records"), strict=True):
        made = render(row, TEXTURES)
        assert name.startswith("crack_" if row["crack"] else "nocrack_")
        assert same(np.array(PillowImage.open(folder / "images" / f"{name}.png")), made.image)
        assert same(np.array(PillowImage.open(folder / "masks" / f"{name}.png")), 255 * made.mask)
    assert len(list(folder.rglob("*.png"))) == 2 * len(table)


def test_a_folder_of_tiles_is_a_pack(table, tmp_path):
    folder = cracks.write_tiles(table, TEXTURES, tmp_path)
    listed = read_manifest(folder / "manifest.csv")
    assert len(listed) == len(table) and listed["group"].nunique() == 1  # one pool: never divided
    classes = ClassMap("crack_tiles", ("no crack", "crack"), {0: 0, 255: 1}, ("#56b4e9", "#d55e00"))
    assert "error" not in set(check(folder, classes)["severity"])


def test_a_broken_run_goes_on_where_it_stopped(table, tmp_path, monkeypatch):
    done = []

    def breaks(row, textures):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(row["seed"])
        return render(row, textures)

    monkeypatch.setattr(cracks, "render", breaks)
    with pytest.raises(KeyboardInterrupt):
        cracks.write_tiles(table, TEXTURES, tmp_path)
    last = sorted((tmp_path / "masks").glob("*.png"), key=lambda path: path.name[-10:])[-1]
    last.unlink()  # as if killed between image and mask
    again = []
    monkeypatch.setattr(cracks, "render", lambda row, pool: again.append(row["seed"]) or render(row, pool))
    cracks.write_tiles(table, TEXTURES, tmp_path)
    assert again == table["seed"].tolist()[4:]
    cracks.write_tiles(table, TEXTURES, tmp_path)
    assert len(again) == len(table) - 4
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_a_folder_of_other_tiles_is_refused(table, tmp_path):
    cracks.write_tiles(table.head(2), TEXTURES, tmp_path)
    brighter = (TEXTURES + 10).astype(np.uint8)
    for rows, textures in ((table.tail(2), TEXTURES), (table.head(2), brighter)):
        with pytest.raises(ValueError, match=r"manifest.csv lists other tiles or textures"):
            cracks.write_tiles(rows, textures, tmp_path)


def test_streaming_holds_no_tiles(tmp_path, monkeypatch):
    table = cracks.scenario(cracks.invented(), 1).sample(120, 4)
    blank = render(plain(crack=False), FLAT)
    monkeypatch.setattr(cracks, "render", lambda row, textures: blank._replace(image=blank.image.copy()))
    cracks.write_tiles(table.head(20), FLAT, tmp_path / "warm")
    tracemalloc.start()
    cracks.write_tiles(table, FLAT, tmp_path / "all")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6  # 120 tiles and their masks are 3.9 MB


# Learning


class Tile(NamedTuple):
    name: str
    image: np.ndarray
    mask: np.ndarray
    group: str = "one"


@pytest.fixture(scope="module")
def stand_ins():
    return pack("ebc_crack_tiles", "generated").records


@pytest.fixture(scope="module")
def learned(stand_ins):
    sizes = {"n_textures": 10, "max_patches": 1500, "calibration_rounds": 1}
    return cracks.learn(stand_ins, seed=1, generator="covering", **sizes)


def test_a_generator_learned_from_tiles(learned, stand_ins):
    assert learned.textures.shape == (10, 128, 128) and learned.textures.dtype == np.uint8
    cracked = {record.name for record in stand_ins if record.mask.any()}
    assert set(learned.measured.cracks["record"]) == cracked
    tiles = [learned.render(row) for row in learned.space.sample(20, 1).to_dict("records")]
    assert {tile.mask.any() for tile in tiles} == {False, True}
    assert learned.space["texture"].distribution == Integers(0, 9)


def test_the_same_tiles_and_seed_learn_the_same(stand_ins):
    sizes = {"n_textures": 2, "max_patches": 500, "calibration_rounds": 0}
    one, again, other = (cracks.learn(stand_ins[::6], seed=seed, **sizes) for seed in (3, 3, 4))
    assert same(one.textures, again.textures) and one.space == again.space
    assert not same(one.textures, other.textures)


def test_textures_come_from_each_specimen_in_equal_parts():
    tiles = [Tile(f"{group}{i}", np.full((64, 64), grey + i, np.uint8), np.zeros((64, 64), np.uint8), group)
             for group, grey in (("dark", 40), ("bright", 200)) for i in range(3)]  # fmt: skip
    pool = cracks.grow_pool(tiles, 5, k=1, max_patches=100, seed=1)
    means = pool.mean(axis=(1, 2))
    assert (means > 120).sum() == 3 and (means < 120).sum() == 2
    assert all(np.ptp(texture) <= 2 for texture in pool)  # no patch of the other specimen


def test_seeds_share_no_pixel_with_the_dictionary():
    # Every pixel has a grey of its own in its neighbourhood, and tiles overlap by half as the real ones do.
    field = np.random.default_rng(0).integers(0, 256, (256, 256)).astype(np.uint8)
    tiles = [Tile(f"{y} {x}", field[y : y + 128, x : x + 128], None) for y in (0, 64, 128) for x in (0, 64, 128)]
    seeds, rest = cracks.split_cells(tiles, 20, stream(1))
    assert (len(seeds), len(rest)) == (20, 44)  # the 64 cells of the field, each once
    known = {cell.tobytes() for cell in rest}
    assert len(known) == 44 and not any(seed.tobytes() in known for seed in seeds)
    few, most = cracks.split_cells(tiles[:1], 20, stream(1))
    assert (len(few), len(most)) == (8, 8)  # at most half of them are seeds


def test_tiles_that_do_not_do_are_named(stand_ins):
    cracked = [record for record in stand_ins if record.mask.any()]
    free = [record for record in stand_ins if not record.mask.any()]
    with pytest.raises(ValueError, match="none of the 3 tiles is free of cracks"):
        cracks.learn(cracked[:3], seed=1, n_textures=1)
    with pytest.raises(ValueError, match="none of the 0 tiles"):
        cracks.learn([], seed=1, n_textures=1)
    with pytest.raises(ValueError, match="0 tiles with a measurable crack"):
        cracks.learn(free[:8], seed=1, n_textures=1, max_patches=100)
    small = [Tile("a", np.zeros((20, 200), np.uint8), np.zeros((20, 200), np.uint8))]
    with pytest.raises(ValueError, match="group 'one': 0 cells of 32 px"):
        cracks.grow_pool(small, 1, seed=1)


def test_tiles_of_mixed_size_are_learned_from(stand_ins):
    cracked, free = ([r for r in stand_ins if r.mask.any() == has] for has in (True, False))
    cut = [Tile(r.name, r.image[:100, :90], r.mask[:100, :90]) for r in (*cracked[:4], *free[:2])]
    made = cracks.learn([*cracked[4:8], *cut], seed=1, n_textures=2, max_patches=300, calibration_rounds=0)
    assert made.render(made.space.sample(1, 1).iloc[0].to_dict()).image.shape == (128, 128)


# Tiles drawn from what was fitted measure as the tiles it was fitted to


def drawn_from(fitted, textures, n):
    space = cracks.scenario(fitted, len(textures)).replace(crack=Constant(True))
    return measure_all(Tile(str(i), *tile[:2]) for i, tile in enumerate(cracks.rendered(space.sample(n, 9), textures)))


def test_calibration_takes_a_bias_away(stand_ins, monkeypatch):
    monkeypatch.setattr(cracks, "CALIBRATION_TILES", 150)
    measured = measure_all(record for record in stand_ins if record.mask.any())
    textures = np.stack([record.image for record in stand_ins if not record.mask.any()])
    plain_fit = fit(measured)
    wide = plain_fit["width_px"].distribution
    biased = plain_fit.replace(width_px=type(wide)("pattern", tuple(v + 2 for v in wide.values), None, 1, 40))
    before = distances(measured, drawn_from(biased, textures, 200))
    calibrated = cracks.calibrate(biased, measured, textures, rounds=2, seed=1)
    after = distances(measured, drawn_from(calibrated, textures, 200))
    assert before["width"] > 0.3 and after["width"] < 0.15
    assert after.max() < 0.2
    assert cracks.calibrate(plain_fit, measured, textures, rounds=0, seed=1) == plain_fit


@pytest.mark.skipif(
    not (Path(os.environ.get("MICRO_DATA", "-")) / "ebc_crack_tiles").is_dir(),
    reason="needs $MICRO_DATA/ebc_crack_tiles",
)
def test_a_thousand_tiles_measure_as_the_real_ones():
    records = [record for record in pack("ebc_crack_tiles", "real").records if record.group != "040617#3"]
    learned = cracks.learn(records, seed=1, n_textures=60)
    assert distances(learned.measured, drawn_from(learned.fitted, learned.textures, 1000)).max() <= 0.15
