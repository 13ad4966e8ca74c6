"""Figures of the crack experiment show the numbers of their tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers.crack_tiles import tiles

from micro_lib.application.plots import STAMP
from micro_lib.reports import crack_plots, crack_report


@pytest.fixture
def ax():
    fig, axes = plt.subplots()
    yield axes
    plt.close(fig)


def points(ax, colour=None):
    lines = [line for line in ax.lines if len(line.get_xdata())]
    return [float(line.get_xdata()[0]) for line in lines if colour in (None, line.get_color())]


def test_arms_stand_beside_the_papers_models(ax):
    table = pd.DataFrame({"arm": ["mixed", "real long"], "n": 12, "error": [0.15, 0.25]})
    table = table.assign(error_low=table["error"] - 0.02, error_high=table["error"] + 0.02)
    published = crack_report.published()
    crack_plots.arms_beside_published(ax, table, published[published["measure"] == "test_error"])
    assert points(ax, crack_plots.OURS) == [0.15, 0.25] and points(ax, crack_plots.PAPERS) == [0.205]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["mixed (n = 12)", "real long (n = 12)"]
    ends = np.concatenate([collection.get_segments()[0][:, 0] for collection in ax.collections])
    assert ends[:2] == pytest.approx([0.13, 0.17])


def test_the_budget_curve_is_drawn_with_its_intervals(ax):
    curve = pd.DataFrame({"arm": ["mixed", "mixed", "real long", "real long"], "n_real": [8, 64, 8, 64]})
    curve = curve.assign(error=[0.2, 0.1, 0.4, 0.3], n=[1, 4, 4, 4])
    curve = curve.assign(error_low=curve["error"] - 0.05, error_high=curve["error"] + 0.05)
    crack_plots.budget(ax, curve, 0.35)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(names) == [
        "pre-trained on synthetic tiles",
        "real tiles alone, as many steps",
        "synthetic tiles alone",
    ]
    drawn = [container.lines[0].get_ydata().tolist() for container in ax.containers]
    assert drawn == [[0.2, 0.1], [0.4, 0.3]]
    assert [text.get_text() for text in ax.texts] == ["1", "4", "4", "4"]
    joined = [line.get_ydata().tolist() for line in ax.lines if line.get_linestyle() in ("-", "--")]
    assert joined == [[0.1], [0.4, 0.3]], "one run alone is not joined"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["8", "64"]


def test_wrong_tiles_are_shown_with_what_was_said_of_them():
    records = {record.name: record for record in tiles(["a"], px=32)}
    names = sorted(records)
    wrong = pd.DataFrame({"name": [names[0], names[-1]], "label": [1, 0], "probability": [0.1, 0.9]})
    fig = crack_plots.wrong_sheet(wrong, records, "somebody", is_generated=True)
    assert [ax.get_title() for ax in fig.axes] == ["missed\np = 0.10\na", "false alarm\np = 0.90\na"]
    assert fig.get_suptitle() == STAMP and fig.get_supxlabel() == "somebody"
    plt.close(fig)


def test_without_wrong_tiles_a_sentence_says_so():
    fig = crack_plots.wrong_sheet(pd.DataFrame(columns=["name"]), {}, "somebody")
    assert "No test tile" in fig.texts[0].get_text()


def test_every_specimen_has_a_point_for_every_arm(ax):
    table = pd.DataFrame({"specimen": ["a", "070516#1"], "tiles": [5, 6], "looked_at": [False, True], "runs": [2, 3]})
    table = table.assign(mixed=[0.1, 0.2], real=[0.3, 0.4])
    for arm in ("mixed", "real"):
        table[f"{arm}_low"], table[f"{arm}_high"] = table[arm] - 0.05, table[arm] + 0.1
    crack_plots.counts_by_specimen(ax, table, ["mixed", "real"])
    assert [container[0].get_ydata().tolist() for container in ax.containers] == [[0.1, 0.2], [0.3, 0.4]]
    ends = [np.array(container[2][0].get_segments())[:, :, 1] for container in ax.containers]
    np.testing.assert_allclose(ends, [[[0.05, 0.2], [0.15, 0.3]], [[0.25, 0.4], [0.35, 0.5]]])
    names = [label.get_text() for label in ax.get_xticklabels()]
    assert names == ["a\n5 tiles, 2 runs", "070516#1 *\n6 tiles, 3 runs"]


def test_every_run_has_a_point_for_every_arm_and_names_its_fold(ax):
    crack_plots.by_seed(ax, pd.DataFrame({"mixed": [0.1, 0.2], "real": [0.3, 0.4]}, index=[4, 5]))
    assert [container[0].get_ydata().tolist() for container in ax.containers] == [[0.1, 0.2], [0.3, 0.4]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["4\nfold 3", "5\nfold 0"]
