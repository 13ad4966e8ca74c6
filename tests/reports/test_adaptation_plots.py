"""Figures of the adaptation experiment show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from micro_lib.data.records import Record
from micro_lib.reports import adaptation_plots
from micro_lib.synthesis.bainite import LATH_BAINITE
from micro_lib.training.adaptation import ARMS


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def record(name="a", px=40):
    mask = np.zeros((px, px), np.uint8)
    mask[: px // 2] = 1
    return Record(name, np.full((px, px), 100, np.uint8), mask, name, 0.5)


def test_domains_show_a_window_with_and_without_its_mask():
    fig = adaptation_plots.domains({"source": record(), "T1": record()}, LATH_BAINITE, window_um=10)
    alone, labelled = fig.axes[0], fig.axes[2]
    assert alone.get_title() == "source" and alone.images[0].get_array().shape[:2] == (20, 20)
    assert np.asarray(labelled.images[0].get_array()).std() > np.asarray(alone.images[0].get_array()).std()
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["lath bainite"]


def test_error_maps_stand_beside_their_micrograph():
    fig = adaptation_plots.error_maps(
        [record(), record("b")], {"no adaptation": [record().mask] * 2, "FDA": [1 - record().mask] * 2}
    )
    assert [ax.get_title() for ax in fig.axes[:3]] == ["micrograph", "no adaptation", "FDA"] and len(fig.axes) == 6
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["found", "missed", "invented"]


def test_softer_tiles_have_less_power_the_finer_the_detail():
    sharp = torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    soft = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)
    fig = adaptation_plots.sharpness({"source": sharp, "target": soft})
    *pictures, powers = fig.axes
    assert [ax.get_title() for ax in pictures] == ["source", "target"]
    same, less = (line.get_ydata() for line in powers.lines)
    assert same.tolist() == [1.0] * len(same) and less[2] > 5 * less[20] > 0
    assert powers.lines[0].get_xdata().max() < 0.5


def test_every_run_has_its_curve():
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "step": step,
            "target_miou": 0.5 + 0.1 * seed,
            "loss": 1 / step,
            "target_entropy": 0.3,
        }
        for arm in ("FDA", "no adaptation")
        for seed in (1, 2)
        for step in (10, 20, 30)
    ]
    fig, axes = plt.subplots(1, 3, layout="constrained")
    adaptation_plots.curves(axes, pd.DataFrame(rows))
    adaptation_plots.arm_key(fig, ["FDA", "no adaptation", "FDA"])
    assert [(len(ax.lines), len(ax.collections)) for ax in axes] == [(2, 2)] * 3
    np.testing.assert_allclose(axes[0].lines[1].get_ydata(), 0.65)  # between its two runs
    lowest, highest = axes[0].collections[1].get_datalim(axes[0].transData).intervaly
    assert (lowest, highest) == pytest.approx((0.6, 0.7))
    key = fig.legends[0]
    assert [text.get_text() for text in key.get_texts()] == ["no adaptation", "FDA"]
    assert [line.get_color() for line in key.get_lines()] == [axes[0].lines[i].get_color() for i in (1, 0)]


def test_an_arm_looks_the_same_in_every_figure_and_like_no_other():
    looks = [tuple(adaptation_plots._line(arm).values()) for arm in ARMS]
    markers = [tuple(adaptation_plots._marker(arm).values()) for arm in ARMS]
    assert len(set(looks)) == len(set(markers)) == len(ARMS)
    table = pd.DataFrame({"shift": "T1", "arm": ["oracle", "FDA"], "n": 1, "target_miou": [0.9, 0.8]})
    table = table.assign(target_miou_low=np.nan, target_miou_high=np.nan)
    drawn = []
    for part in (table, table[:1]):
        _, ax = plt.subplots()
        adaptation_plots.scores(ax, part)
        drawn.append({h.get_label(): h.lines[0].get_color() for h in ax.containers})
    assert drawn[0]["oracle"] == drawn[1]["oracle"] != drawn[0]["FDA"]


def test_scores_are_grouped_by_shift_beside_published_ones():
    arms = ["no adaptation", "no adaptation", "FDA"]
    table = pd.DataFrame({"shift": ["T2", "T1", "T1"], "arm": arms, "n": [3, 5, 4]})
    table = table.assign(target_miou=[0.6, 0.8, 0.9], target_miou_low=0.5, target_miou_high=0.95)
    _, ax = plt.subplots()
    adaptation_plots.scores(ax, table, {("T1", "no adaptation"): 0.82})
    assert [label.get_text() for label in ax.get_xticklabels()] == ["T2\nn = 3", "T1\nn = 4 to 5"]
    points = np.concatenate([line.get_ydata() for line in ax.lines if line.get_marker() == "o"])
    crosses = np.concatenate([line.get_ydata() for line in ax.lines if line.get_marker() == "x"])
    assert sorted(points) == [0.6, 0.8, 0.9] and crosses.tolist() == [0.82]


def test_phase_fractions_are_drawn_with_the_truth():
    table = pd.DataFrame({"shift": ["T1"], "arm": ["FDA"], "class": ["pore"], "n": [5], "true": [0.4], "found": [0.3]})
    _, ax = plt.subplots()
    adaptation_plots.phase_fractions(ax, table.assign(found_low=0.2, found_high=0.5))
    assert {float(line.get_xdata()[0]) for line in ax.lines if len(line.get_xdata()) == 1} >= {0.3, 0.4}
    assert ax.get_yticklabels()[0].get_text() == "T1, FDA, n = 5" and "pore" in ax.get_xlabel()


def test_attention_lies_over_its_micrograph():
    _, ax = plt.subplots()
    heat = np.linspace(0, 1, 1600, dtype=np.float32).reshape(40, 40)
    adaptation_plots.attention(ax, record().image, heat, "source")
    below, above = ax.images
    assert (below.get_array() == 100).all() and above.get_array().max() == 1 and above.get_alpha() < 1
    assert ax.get_title() == "source"
