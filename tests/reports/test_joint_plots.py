"""Figures of the joint experiment show the numbers of their tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from micro_lib.core.labels import GRAIN_BOUNDARY
from micro_lib.data.tiles import Labelled
from micro_lib.reports import joint_plots
from micro_lib.training.generative import HISTORY


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_history_is_drawn_over_steps():
    rows = [
        dict.fromkeys(HISTORY, 0.5) | {"stage": stage, "steps": 50, "perplexity": 100.0} for stage in ("vqvae",) * 3
    ]
    rows += [dict.fromkeys(HISTORY, 2.0) | {"stage": "prior", "steps": 20}] * 2
    _, axes = plt.subplots(1, 3)
    joint_plots.history(axes, pd.DataFrame(rows))
    assert len(axes[0].lines) == 2 and axes[0].get_yscale() == "log"
    assert axes[1].lines[0].get_xdata().tolist() == [50, 100, 150] and axes[1].lines[0].get_ydata()[0] == 100
    assert axes[2].lines[0].get_xdata().tolist() == [20, 40]


def test_a_sheet_shows_every_pair_without_and_with_its_mask():
    grey, mask = np.full((8, 8), 100, np.uint8), np.eye(8, dtype=np.uint8)
    sets = {"real": [Labelled(grey, mask)] * 3, "sampled": [Labelled(grey + 9, mask)] * 3}
    fig = joint_plots.pair_sheet(sets, GRAIN_BOUNDARY, "by hand", is_generated=True)
    pictures = [ax.images[0].get_array() for ax in fig.axes]
    assert len(pictures) == 12 and [ax.get_title() for ax in fig.axes[:3]] == ["real 1", "real 2", "real 3"]
    assert pictures[0].ndim == 2 and pictures[3].ndim == 3 and fig.axes[6].get_title() == "sampled 1"
    assert "generated stand-in" in fig.get_suptitle() and fig.get_supxlabel() == "by hand"


def test_ratios_have_their_intervals_and_a_line_at_no_difference():
    row = {
        "quantity": "intercept",
        "class": "a",
        "statistic": "mean",
        "ratio": 1.2,
        "ratio_low": 1.0,
        "ratio_high": 1.4,
    }
    variance = row | {"statistic": "variance", "ratio": 0.5}
    table = pd.DataFrame([row, variance, variance | {"class": "b"}, row | {"statistic": "distance"}])
    _, ax = plt.subplots()
    joint_plots.ratios(ax, table)
    drawn = [float(np.ravel(line.get_xdata())[0]) for line in ax.lines]
    assert drawn == [1.2, 0.5, 1] and ax.get_xscale() == "log"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["intercept a", "intercept b"]
    assert ax.lines[0].get_ydata()[0] > ax.lines[1].get_ydata()[0] > ax.lines[1].get_ydata()[1]


def test_correlations_and_intercepts_are_those_of_the_masks():
    mask = np.zeros((40, 40), np.uint8)
    mask[10:14, 10:16] = 1  # runs of 6 px along 4 rows, of 4 px along 6 columns: 48 px in 10 runs
    twice = np.kron(mask[:20, :20], np.ones((2, 2), np.uint8))
    _, axes = plt.subplots(1, 2)
    sets = {"real": [Labelled(mask, mask)], "sampled": [Labelled(mask, mask), Labelled(twice, twice)]}
    joint_plots.correlations(axes, sets, GRAIN_BOUNDARY)
    real, sampled = axes[1].lines
    assert real.get_label() == "real: 4.8 px" and sampled.get_label() == "sampled: 8.0 px"  # (48 + 4 * 48) / (10 + 20)
    assert real.get_ydata()[0] == pytest.approx(24 / 1600) and sampled.get_ydata()[0] == pytest.approx(60 / 1600)


def test_the_label_budget_is_drawn_over_micrographs():
    curve = pd.DataFrame({"arm": ["plain x4"] * 2 + ["real"] * 2, "micrographs": [1, 4] * 2})
    curve = curve.assign(miou_pooled=[0.80, 0.90, 0.78, 0.88], miou_pooled_low=0.7, miou_pooled_high=0.95, generators=4)
    _, ax = plt.subplots()
    joint_plots.label_budget(ax, curve)
    handles, names = ax.get_legend_handles_labels()
    assert names == ["with pairs, plain x4", "real alone"]
    assert handles[1].lines[0].get_ydata().tolist() == [0.78, 0.88]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "4"] and "n = 4 generators" in ax.get_ylabel()
