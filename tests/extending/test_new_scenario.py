"""How to add a scenario: parameters with units, a function from a row to a micrograph; all else works with it.

The scenario is everything between the two lines; it may stand in a notebook or in a module of its own.
"""

import cv2
import numpy as np
import pandas as pd
from scipy.stats import norm, uniform

from micro_lib.application.explorer import Explorer
from micro_lib.core.labels import ClassMap
from micro_lib.core.seeds import stream
from micro_lib.data.tiles import Rendered, Tiles
from micro_lib.synthesis.distributions import Constant, Integers, Parameter
from micro_lib.synthesis.fields import smooth_field
from micro_lib.synthesis.scenario import Micrograph, Space

# ---- a scenario: pores in a sintered ceramic ----
CLASSES = ClassMap("pores", ("ceramic", "pore"), {0: 0, 255: 1}, ("#56b4e9", "#d55e00"))

PORES = Space(
    {
        "height_px": Parameter(Constant(128), "px", "height of the image"),
        "width_px": Parameter(Constant(128), "px", "width of the image"),
        "pixel_size_um": Parameter(Constant(0.1), "um", "edge of a pixel"),
        "pores": Parameter(Integers(5, 40), "1", "number of pores"),
        "pore_px": Parameter(uniform(4, 12), "px", "diameter of a mean pore"),
        "contrast": Parameter(uniform(0.2, 0.5), "1", "how much darker pores are"),
        "noise": Parameter(norm(0.05, 0.01), "1", "standard deviation of the noise"),
    }
)


def render(row):
    """Return the micrograph of a row of the table."""
    shape, rng = (row["height_px"], row["width_px"]), stream(row["seed"], "pores")
    labels = np.zeros(shape, np.int32)
    for number in range(1, row["pores"] + 1):
        centre = rng.uniform(0, shape[::-1]).astype(int).tolist()
        cv2.circle(labels, centre, max(1, round(rng.gamma(4, row["pore_px"] / 8))), number, cv2.FILLED)
    mask = (labels > 0).astype(np.uint8)
    light = 0.7 - row["contrast"] * cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1)
    light += 0.05 * smooth_field(shape, 20, rng) + row["noise"] * rng.standard_normal(shape)
    return Micrograph((light.clip(0, 1) * 255).astype(np.uint8), mask, labels, row["pixel_size_um"])


# ---- and what it gives without another line ----


def test_a_table_is_drawn_and_rendered_the_same_every_time():
    table = PORES.sample(4, 1)
    again = PORES.sample(9, 1).iloc[:4]
    pd.testing.assert_frame_equal(table, again)
    images = [render(row).image for row in table.to_dict("records")]
    assert all((render(row).image == image).all() for row, image in zip(again.to_dict("records"), images, strict=True))
    assert len({image.tobytes() for image in images}) == 4


def test_its_micrographs_train_a_network_and_move_with_sliders():
    tiles = Tiles(Rendered(PORES.sample(2, 1), render), 64, seed=1)
    image, mask = tiles[0, 1]
    assert image.shape == (1, 64, 64) and set(mask.unique().tolist()) <= {0, 1}
    explorer = Explorer(PORES, ["pores", "contrast"], size_px=64, render=render, class_map=CLASSES, objects="pores")
    before = explorer.pictures[0].value
    explorer.controls["contrast"].value = explorer.controls["contrast"].max
    assert explorer.pictures[0].value != before and "of the mask is pore" in explorer.note.value


def test_the_worst_rows_have_neighbours():
    row = PORES.sample(1, 1).iloc[0]
    near = PORES.neighbours(row, {"contrast": 0.1}, 5, 1)
    assert len(near) == 5 and (near["pore_px"] == row["pore_px"]).all() and near["contrast"].nunique() == 5
