"""Figures of published numbers beside ours: what is drawn is what the tables say."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from micro_lib.application import published, tables
from micro_lib.application.published import answering, beside_ours, cell
from micro_lib.core.labels import GRAIN_BOUNDARY
from micro_lib.data.packs import Pack
from micro_lib.data.records import Record
from micro_lib.models.segmenter import Card, Segmenter
from micro_lib.reports import claims_plots
from micro_lib.synthesis.presets import preset

GAIN = ("Trampert 2021", "section 3.3", "adaptive against random", "mean IoU gained")
LEVEL = ("Trampert 2021", "Table 2", "random", "mean IoU")


class Dark(nn.Module):
    """Boundary is what is darker than the mean."""

    def forward(self, x):
        return torch.cat([x + 0.5, -x - 0.5], 1)


@pytest.fixture
def claims():
    rows = [
        {"claim": "gain", **answering(cell(*GAIN)), "ours": 0.01, "low": -0.01, "high": 0.03, "n": 10},
        {"claim": "level", **answering(cell(*LEVEL)), "ours": 0.7, "low": 0.6, "high": 0.9, "n": 10},
    ]
    kinds = ({"kind": "effect", "verdict": "not reproduced"}, {"kind": "level", "verdict": "reproduced"})
    rows = [row | kind | {"level": 0.95, "over": "runs"} for row, kind in zip(rows, kinds, strict=True)]
    runs = pd.DataFrame({"seed": [1]})
    return tables.claim_rows(rows, profile="study", notebook="06_adaptive_sampling", runs=runs)


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_every_published_number_is_counted_once(ax, claims):
    claims_plots.coverage(ax, beside_ours(claims))
    assert sum(bar.get_width() for bar in ax.patches) == len(published.cells())
    assert {text.get_text() for text in ax.get_legend().get_texts()} >= {"reproduced", "not run here"}


def test_ours_stand_below_theirs_with_their_interval(claims):
    table = claims_plots.of_table(beside_ours(claims), "Trampert 2021", "Table 2", "mean IoU")
    assert table["item"].tolist() == ["random", "adaptive"]
    figure = claims_plots.sheet({"mean IoU": table})
    theirs, ours = figure.axes[0].containers
    assert theirs[0].get_xdata(orig=False).tolist() == [0.763, 0.778]
    assert ours[0].get_xdata(orig=False).tolist() == [0.7] and ours[0].get_ydata()[0] < theirs[0].get_ydata()[0]
    np.testing.assert_allclose(np.asarray(ours[2][0].get_segments()[0], float)[:, 0], [0.6, 0.9])
    assert ours[0].get_color() == claims_plots.COLOURS["reproduced"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["random (10 runs)", "adaptive"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["published", "ours: reproduced"]
    plt.close(figure)


def test_effects_are_shares_of_the_published_ones(claims):
    (row,) = claims_plots.effects(claims).to_dict("records")
    assert (row["value"], row["value_low"], row["value_high"]) == pytest.approx((2 / 3, -2 / 3, 2))
    assert row["label"] == "gain (Trampert 2021, section 3.3)"
    assert row["told"] == "0.010 [-0.010, 0.030], 10 runs; published +0.015, from its means"
    turned = claims.assign(answers="adaptive against random: pixel error gained")
    assert claims_plots.effects(turned)["value_high"].tolist() == pytest.approx([0.01 / 0.011]), "less is gained"
    assert claims_plots.effects(claims.assign(unit="times")).empty, "a factor has no zero"
    assert claims_plots.effects(claims.assign(level=np.nan)).empty


def test_statements_are_drawn_as_they_are(claims):
    said = claims.assign(kind="statement", unit=["%", "micrographs"], answers="")
    (row,) = claims_plots.statements(said).to_dict("records")
    assert (row["value"], row["value_low"], row["told"]) == (0.01, -0.01, "0.010 [-0.010, 0.030] %, 10 runs")


def test_a_forest_has_a_line_each_in_the_colour_of_its_verdict(ax, claims):
    both = pd.concat([claims[:1], claims[:1].assign(claim="more", verdict="direction reproduced")], ignore_index=True)
    claims_plots.forest(ax, claims_plots.effects(both))
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "gain (Trampert 2021, section 3.3)",
        "more (Trampert 2021, section 3.3)",
    ]
    direction, none = ax.containers
    assert direction[0].get_ydata() == [0] and none[0].get_ydata() == [1], "from the top"
    assert none[0].get_color() == claims_plots.COLOURS["not reproduced"] and len(ax.texts) == 2


def test_a_sheet_has_a_panel_each(claims):
    table = beside_ours(claims)
    levels = claims_plots.measured(claims_plots.of_table(table, "Trampert 2021", "Table 2"))
    figure = claims_plots.sheet({"a": levels, "b": levels, "c": levels})
    assert [ax.get_xlabel() for ax in figure.axes] == [f"{name} (ours: 10 runs)" for name in "abc"] + [""]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["random"], (
        "what is the same is said once"
    )
    plt.close(figure)


def test_the_poster_goes_from_parameters_to_a_measured_micrograph():
    image = np.where(np.indices((96, 96)).min(0) % 24 < 4, 20, 200).astype(np.uint8)
    real = Pack(
        "iron", (Record("a", image, (image < 100).astype(np.uint8), "g", None),), "credit", True, GRAIN_BOUNDARY
    )
    segmenter = Segmenter(Dark(), Card("lite0", GRAIN_BOUNDARY, (10.0, 60.0)))
    row = {"name": "iron_001", "intercept_px": 5.0, "intercept_px_low": 4.0, "intercept_px_high": 7.0}
    sizes = pd.DataFrame([row | {"source": "truth"}, row | {"source": "label-free"}])
    figure = claims_plots.poster(preset("trampert"), segmenter, real, sizes, seed=1, line_px=3)
    titles = " ".join(ax.get_title() for ax in figure.axes)
    assert all(str(number) in titles for number in range(1, 9)) and "generated stand-in" in figure.get_suptitle()
    plt.close(figure)
