"""Choosing the next micrographs beside rendering them: processor time of one thread, rows of the broad scenario."""

from time import process_time

import numpy as np
import pandas as pd
import pytest

from micro_lib.core.profiles import settings
from micro_lib.data.tiles import Rendered, pool
from micro_lib.synthesis.grains import render
from micro_lib.training import adaptive
from micro_lib.training.proposals import STRATEGIES, strategy

BUDGET, RENDERED = 1000, 16
SHARE_OF_RENDERING = 0.1  # rendering 1,000 takes about 20 s here, and a choice is to take less than 1 s


def seconds(function):
    started = process_time()
    function()
    return process_time() - started


@pytest.mark.parametrize("name", STRATEGIES)
def test_choosing_rows_costs_a_small_part_of_rendering_them(benchmark, name):
    study = settings("adaptive", "study")
    space = adaptive.scenario(adaptive.complete("adaptive"), study["image_px"])
    table = space.sample(study["n_validation"], 1)
    scores = pd.DataFrame({"seed": table["seed"], "miou": np.random.default_rng(0).random(len(table))})
    names = tuple(part.strip() for part in adaptive.GREY_AND_WIDTH.split(","))
    chooser = strategy(name, space, {"parameters": names, "interval": 0.1, "share": study["share"]})

    def choose():
        return chooser.propose(table, scores, BUDGET, np.random.default_rng(1))

    rows = choose()
    assert len(rows) == (0 if name == "none" else BUDGET) and rows["seed"].is_unique
    if benchmark.disabled:
        pytest.skip("as many rows as asked for; speed is measured by `make bench`")
    rendering = Rendered(table[:RENDERED], render)
    pool(rendering)  # compiles
    rendering_s = seconds(lambda: pool(rendering, study["working_scale"])) * BUDGET / RENDERED
    choosing_s = min(seconds(choose) for _ in range(3))
    benchmark(choose)
    benchmark.extra_info.update(choosing_s=choosing_s, rendering_s=rendering_s)
    print(f"{name}: {choosing_s:.2f} s to choose {BUDGET}, {rendering_s:.0f} s to render them")
    assert choosing_s < SHARE_OF_RENDERING * rendering_s
