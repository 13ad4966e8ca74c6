"""Figures of the source experiment draw what their tables say."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from micro_lib.data.in_domain import Labels
from micro_lib.reports import source_plots


def test_pictures_are_a_column_a_class():
    images = np.arange(6, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    fig = source_plots.pictures(Labels(images, np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0, 1]], ("a", "b")))
    shown = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title() for ax in shown] == ["a", "b", "", ""]
    plt.close(fig)


def test_a_course_is_drawn_over_steps():
    table = pd.DataFrame({"steps": [5, 5], "loss": [0.7, 0.5], "held_out_loss": [0.6, 0.4], "score": [0.5, 0.9]})
    fig, axes = plt.subplots(1, 2)
    source_plots.course(axes, {"from random": table})
    np.testing.assert_array_equal(axes[0].lines[1].get_xydata(), [[5, 0.6], [10, 0.4]])
    np.testing.assert_array_equal(axes[1].lines[0].get_xydata(), [[5, 0.5], [10, 0.9]])
    plt.close(fig)


def test_scores_are_drawn_with_intervals_and_the_published_ones():
    row = {"pretraining": "ImageNet", "augmentation": "basic", "T1": 0.7, "T1_low": 0.6, "T1_high": 0.8}
    fig, ax = plt.subplots()
    ax.set_title("T1")
    source_plots.scores([ax], pd.DataFrame([row]))
    ours = next(c for c in ax.containers if len(c.lines[0].get_xdata()))
    np.testing.assert_allclose(ours.lines[0].get_xydata(), [[1, 0.7]])
    np.testing.assert_allclose(ours.lines[2][0].get_segments()[0], [[1, 0.6], [1, 0.8]])
    squares = [line.get_ydata() for line in ax.lines if line.get_marker() == "s" and len(line.get_ydata())]
    assert len(squares) == 9 and all(0.7 < y[0] < 0.85 for y in squares)
    assert "published" in [text.get_text() for text in ax.get_legend().get_texts()]
    plt.close(fig)
