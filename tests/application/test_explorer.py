"""Sliders: they span the scenario, move one parameter each, and redraw what the generator renders."""

import io
from functools import partial

import numpy as np
import pytest
from PIL import Image

from micro_lib.application.explorer import Explorer
from micro_lib.core.labels import ClassMap
from micro_lib.data.packs import pack
from micro_lib.synthesis import cracks
from micro_lib.synthesis.distributions import Choice, Constant
from micro_lib.synthesis.grains import render
from micro_lib.synthesis.presets import PRESETS, preset


def shown(explorer, i=0):
    return np.asarray(Image.open(io.BytesIO(explorer.pictures[i].value)))


def test_sliders_span_the_quantiles_of_the_space():
    explorer = Explorer(preset("trampert"), ["grain_diameter_px", "lloyd_steps"], seed=1)
    table = preset("trampert").describe().set_index("parameter")
    slider, row = explorer.controls["grain_diameter_px"], table.loc["grain_diameter_px"]
    np.testing.assert_allclose([slider.min, slider.max], [row["5 %"], row["95 %"]])
    assert slider.description == "grain_diameter_px [px]" and slider.tooltip == row["doc"]
    steps = explorer.controls["lloyd_steps"]
    assert (steps.min, steps.max) == (table.loc["lloyd_steps", "5 %"], table.loc["lloyd_steps", "95 %"])
    assert isinstance(steps.value, int)


@pytest.mark.parametrize("name", PRESETS)
def test_everything_that_varies_has_a_control(name):
    explorer, table = Explorer(preset(name), size_px=64), preset(name).sample(256, 0)
    varying = [column for column in table.drop(columns="seed") if table[column].nunique() > 1]
    assert list(explorer.controls) == [*varying, "seed"]
    # Each says what is drawn.
    assert all(control.value == explorer.row[parameter] for parameter, control in explorer.controls.items())


def test_pictures_are_what_the_generator_renders():
    explorer = Explorer(preset("trampert"), ["blur_sigma_px"], seed=4)
    made = render(preset("trampert").replace().sample(1, 4).iloc[0].to_dict() | {"height_px": 256, "width_px": 256})
    assert shown(explorer).shape == (256, 256)
    assert np.abs(shown(explorer).astype(float) - made.image).mean() < 6  # JPEG; another micrograph differs by 50
    reddish = shown(explorer, 1)[..., 0].astype(float) - shown(explorer, 1)[..., 2]
    assert reddish[made.mask == 1].mean() > 60 > 10 > abs(reddish[made.mask == 0].mean())


def test_a_moved_slider_changes_its_parameter_alone():
    explorer = Explorer(preset("trampert"), ["grain_diameter_px", "blur_sigma_px"])
    row, picture = dict(explorer.row), shown(explorer)
    slider = explorer.controls["blur_sigma_px"]
    slider.value = slider.max
    assert explorer.row == row | {"blur_sigma_px": slider.max}
    assert (shown(explorer) != picture).any()
    slider.value = row["blur_sigma_px"]
    np.testing.assert_array_equal(shown(explorer), picture)


def test_another_seed_gives_other_grains():
    explorer = Explorer(preset("trampert"), ["bend"])
    picture, note = shown(explorer), explorer.note.value
    explorer.controls["seed"].value = 5
    assert explorer.row["seed"] == 5 and np.abs(shown(explorer).astype(int) - picture).mean() > 5
    assert "grains in view" in note


def test_choices_are_lists_and_sixteen_bits_are_shown():
    space = preset("broad").replace(bit_depth=Choice({8: 1, 16: 1}))
    explorer = Explorer(space, ["look", "inverted"], size_px=64)
    assert set(explorer.controls["look"].options) == {"etched_grooves", "thin_lines", "orientation_contrast"}
    before = shown(explorer).astype(int)
    explorer.controls["inverted"].value = not explorer.row["inverted"]
    assert np.abs(shown(explorer) + before - 255).mean() < 6
    explorer.row["bit_depth"] = 16
    explorer.controls["seed"].value = 3
    assert shown(explorer).shape == (64, 64)


@pytest.mark.parametrize(("names", "word"), [(["grain_size"], "no parameters"), (["width_px"], "never vary")])
def test_what_cannot_be_moved_is_refused(names, word):
    with pytest.raises(ValueError, match=word):
        Explorer(preset("trampert"), names)


def test_sliders_for_a_crack():
    textures = np.full((2, 128, 128), 120, np.uint8)
    cracks_only = cracks.scenario(cracks.invented(), 2).replace(crack=Constant(True))
    explorer = Explorer(
        cracks_only,
        ["n_segments", "width_px", "crack_contrast"],
        render=partial(cracks.render, textures=textures),
        class_map=pack("ebc_crack_tiles", "generated").class_map,
        objects="cracks",
    )
    assert shown(explorer).shape == (128, 128)
    dark = [(shown(explorer) < 100).sum()]
    explorer.controls["width_px"].value = explorer.controls["width_px"].max
    explorer.controls["crack_contrast"].value = explorer.controls["crack_contrast"].min
    dark.append((shown(explorer) < 100).sum())
    assert dark[1] > dark[0] > 50
    assert "cracks in view" in explorer.note.value and "of the mask is crack" in explorer.note.value


def test_of_three_classes_the_share_is_that_of_the_one_it_names():
    mask = np.repeat([0, 1, 2], [50, 20, 30]).reshape(10, 10).astype(np.uint8)
    made = render(preset("trampert").sample(1, 1).iloc[0].to_dict())._replace(
        image=np.full((10, 10), 100, np.uint8), mask=mask, labels=mask.astype(np.int32)
    )
    phases = ClassMap("phases", ("a", "b", "c"), {0: 0, 1: 1, 2: 2}, ("#000000", "#e69f00", "#56b4e9"))
    explorer = Explorer(preset("trampert"), render=lambda _: made, class_map=phases)
    assert explorer.note.value.endswith("20% of the mask is b")
