"""Ready-made grain scenarios: complete, plain text, within their meaning, and fit to be rendered."""

import numpy as np
import pytest
from helpers.grain_rows import OFF, REQUIRED, plain

from micro_lib.synthesis import bainite, cracks, precipitates
from micro_lib.synthesis.distributions import Constant, Parameter, between
from micro_lib.synthesis.grains import render
from micro_lib.synthesis.limits import SWITCH, check_row
from micro_lib.synthesis.presets import LIMITS, PARAMETERS, PRESETS, TRAMPERT, check, mixture, preset, space_of
from micro_lib.synthesis.scenario import Space, plain_row

every_preset = pytest.mark.parametrize("name", PRESETS)

# What section 3.2.1 of Trampert et al. 2021 has: seeds, relaxation, splines, grey, texture, noise, blur.
OF_THE_PAPER = {
    "grain_diameter_px", "lloyd_steps", "bend", "grey_mean", "grey_spread", "texture_amplitude", "texture_wavelength",
    "boundary_width_px", "boundary_grey", "detector_noise", "blur_sigma_px",
}  # fmt: skip
SHARES = [name for name, (unit, _, doc) in PARAMETERS.items() if doc.startswith("share of")]
POSITIVE = [
    "height_px",
    "width_px",
    "pixel_size_um",
    "grain_diameter_px",
    "elongation",
    "fine_ratio",
    "contrast",
    "gamma",
]


@every_preset
def test_presets_give_every_parameter_with_its_unit(name):
    space = preset(name)
    assert list(space) == list(PARAMETERS)
    assert all(space[p].unit == unit and space[p].doc == doc for p, (unit, _, doc) in PARAMETERS.items())


@every_preset
def test_presets_are_plain_text(name, tmp_path):
    preset(name).save(tmp_path / "space.json")
    again = Space.load(tmp_path / "space.json")
    assert again == preset(name)
    assert again.sample(20, 3).equals(preset(name).sample(20, 3))


@every_preset
def test_values_are_within_what_they_mean(name):
    table = preset(name).sample(256, 1, "sobol")
    assert table[SHARES].min().min() >= 0 and table[SHARES].max().max() <= 1
    assert (table[POSITIVE] > 0).all().all()
    assert (table["elongation"] >= 1).all() and (table["fine_ratio"] >= 1).all()
    amounts = table.drop(columns=["look", "seed", "brightness", "inverted", "bit_depth"]).astype(float)
    assert np.isfinite(amounts).all().all() and (amounts >= 0).all().all()


@every_preset
def test_every_row_can_be_rendered(name):
    table = preset(name).sample(12, 8, "sobol").assign(height_px=64, width_px=96)
    for row in table.to_dict("records"):
        made = render(row)
        assert made.image.shape == (64, 96) and made.image.std() > 1
        assert set(np.unique(made.mask)) <= {0, 1}


@every_preset
def test_a_whole_micrograph_has_grains_and_boundaries_and_little_clipping(name):
    for row in preset(name).sample(4, 2).to_dict("records"):
        made = render(row)
        full = np.iinfo(made.image.dtype).max
        assert made.labels.max() >= 5 and 0.01 < made.mask.mean() < 0.6
        assert np.isin(made.image, [0, full]).mean() < 0.5


def test_trampert_is_the_paper_and_nothing_more():
    space = preset("trampert")
    beyond = [name for name in PARAMETERS if name not in OF_THE_PAPER | {"look"}]
    assert all(space[name].distribution == Constant(OFF[name]) for name in beyond)
    table = space.sample(4096, 0, "sobol")
    assert (table["height_px"] == 512).all() and (table["width_px"] == 512).all()
    wavelengths = table["texture_wavelength"]
    np.testing.assert_allclose([wavelengths.min(), wavelengths.max()], [1 / 5, 2 / 3], atol=1e-3)


def test_trampert_convolves_last():
    # The surface is the same in both, so what differs is noise.
    row = preset("trampert").sample(1, 1).to_dict("records")[0]
    row |= {"height_px": 200, "width_px": 200, "blur_sigma_px": 1.2, "bit_depth": 16}
    quiet, noisy = (render(row | {"detector_noise": noise}).image / 65535 for noise in (0.0, 0.08))
    np.testing.assert_allclose((noisy - quiet).std(), 0.08 / (2 * np.sqrt(np.pi) * 1.2), rtol=0.05)
    assert all((preset(name).sample(64, 1)["look"] != row["look"]).all() for name in PRESETS[1:])


def test_broad_mixes_looks_that_differ():
    table = preset("broad").sample(400, 4)
    assert table["look"].nunique() >= 3
    assert table.groupby("look")["boundary_grey"].mean().std() > 0.03


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"'steel'.*trampert, steel_316l, iron, broad"):
        preset("steel")


def test_a_space_of_your_own_is_a_file(tmp_path):
    own, path = preset("iron").replace(grain_diameter_px=Constant(33.0)), tmp_path / "own.json"
    own.save(path)
    assert preset(str(path)) == own != preset("iron")


def test_a_file_of_another_generator_is_refused_by_name(tmp_path):
    own, path = preset("iron"), tmp_path / "own.json"
    own.only(*list(own)[:-1]).save(path)
    with pytest.raises(ValueError, match=r"own\.json lacks bit_depth; make it from a preset"):
        preset(str(path))
    Space({**own, "layers": Parameter(Constant(3), "1")}).save(path)
    with pytest.raises(ValueError, match=r"own\.json holds layers, which"):
        preset(str(path))


def test_unknown_and_missing_parameters_are_named():
    with pytest.raises(ValueError, match=r"'grain_size'.*'grain_diameter_px'"):
        space_of({"grain_size": 4.0, "boundary_width_px": 3.0, "boundary_grey": 0.2})


def test_a_space_of_its_own_has_everything_else_off():
    row = space_of(REQUIRED).sample(1, 0).iloc[0].to_dict()
    assert {name: row[name] for name in PARAMETERS} == {**OFF, **REQUIRED}


def test_a_mixture_takes_off_values_where_a_look_says_nothing():
    looks = {"plain": REQUIRED, "noisy": REQUIRED | {"detector_noise": 0.1}}
    table = space_of(mixture(looks, {"plain": 1, "noisy": 3}, width_px=96)).sample(400, 0)
    assert set(table[table["look"] == "plain"]["detector_noise"]) == {0.0}
    assert set(table[table["look"] == "noisy"]["detector_noise"]) == {0.1}
    assert (table["width_px"] == 96).all() and (table["height_px"] == 512).all()
    assert abs((table["look"] == "noisy").mean() - 0.75) < 0.08


def test_a_look_that_decides_how_it_is_measured_keeps_its_name_in_a_mixture():
    table = space_of(mixture({"trampert": TRAMPERT, "plain": REQUIRED}, {"trampert": 1, "plain": 1})).sample(40, 0)
    assert set(table["look"]) == {"trampert", "plain"}
    with pytest.raises(ValueError, match="'paper'; there are trampert"):
        mixture({"paper": TRAMPERT, "plain": REQUIRED}, {"paper": 1, "plain": 1})


@every_preset
def test_presets_and_off_values_lie_within_the_limits(name):
    assert set(LIMITS) == set(PARAMETERS) - {"look"}
    check({**OFF, **REQUIRED})
    for row in preset(name).sample(256, 3, "sobol").to_dict("records"):
        check(plain_row(row))


# What a row of parameters may not be, and what is said of it.
OUT_OF_RANGE = [
    ({"bit_depth": 12}, r"'bit_depth' is 12; one of \[8, 16\]"),
    ({"inverted": "yes"}, r"'inverted' is 'yes'; one of \[False, True\]"),
    ({"elongation": 0}, r"'elongation' is 0; a number from 1 to 20"),
    ({"elongation": -1.0}, r"'elongation' is -1\.0; a number from 1 to 20"),
    ({"height_px": 0}, r"'height_px' is 0; a number from 8"),
    ({"gamma": -1.0}, r"'gamma' is -1\.0; a number from 0\.05"),
    ({"pixel_size_um": 0.0}, "'pixel_size_um' is 0"),
    ({"grain_diameter_px": 2.0}, "'grain_diameter_px' is 2.0; a number from 4"),
    ({"grain_diameter_px": "wide"}, "'grain_diameter_px' is 'wide'"),
    ({"groove_gap": 1.2}, "'groove_gap' is 1.2; a number from 0 to 1"),
    ({"blur_sigma_px": float("nan")}, "'blur_sigma_px' is nan"),
    ({"boundary_width_px": 200.0}, "boundary_width_px or mask_width_px is 200; less than grain_diameter_px, 24"),
    ({"mask_width_px": 24.0}, "mask_width_px is 24; less than grain_diameter_px, 24"),
]


@pytest.mark.parametrize(("changes", "message"), OUT_OF_RANGE)
def test_a_row_out_of_range_is_refused_before_anything_is_drawn(changes, message):
    with pytest.raises(ValueError, match=message):
        render(plain(**changes))


def test_a_value_that_cannot_be_listed_is_refused_in_words():
    with pytest.raises(ValueError, match=r"'inverted' is \[True\]; one of \[False, True\]"):
        check_row({"inverted": [True]}, {"inverted": SWITCH})


def test_a_row_that_lacks_a_parameter_is_refused():
    row = plain()
    del row["bend"]
    with pytest.raises(ValueError, match="'bend' is None; a number from 0 to 1"):
        render(row)


@pytest.mark.parametrize("draw", [render, bainite.render, precipitates.render, lambda row: cracks.render(row, None)])
def test_a_row_that_lacks_its_seed_is_refused(draw):
    with pytest.raises(ValueError, match="'seed' is missing"):
        draw({"grain_diameter_px": 24.0})


@pytest.mark.parametrize(("changes", "message"), OUT_OF_RANGE[:9])
def test_a_file_out_of_range_is_refused_when_it_is_read(changes, message, tmp_path):
    path = tmp_path / "own.json"
    preset("trampert").replace(**{name: Constant(value) for name, value in changes.items()}).save(path)
    with pytest.raises(ValueError, match=rf"own\.json: .*{message}"):
        preset(str(path))


def test_a_range_that_a_part_of_the_rows_leaves_is_refused_when_it_is_read(tmp_path):
    path = tmp_path / "own.json"
    preset("trampert").replace(grain_diameter_px=between(4.5, 12)).save(path)
    with pytest.raises(ValueError, match=r"own\.json: boundary_width_px or mask_width_px"):
        preset(str(path))


def test_bad_ranges_name_the_parameter():
    space = preset("trampert")
    with pytest.raises(ValueError, match="blur_sigma_px"):
        space.replace(blur_sigma_px=Parameter(Constant(float("nan")), "px"))
    with pytest.raises(ValueError, match="blur"):
        space.replace(blurr=Constant(1.0))
