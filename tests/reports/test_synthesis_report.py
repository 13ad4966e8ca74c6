"""Generated beside real micrographs: areas, intervals and claims are those of pictures made by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from micro_lib.data.packs import pack
from micro_lib.data.records import Record
from micro_lib.reports import synthesis_report
from micro_lib.reports.grain_synthesis_plots import groups, moved, parameter_values, strips
from micro_lib.synthesis.presets import PARAMETERS
from micro_lib.training.cracks import roles


def columns(*widths, height=40):
    """A mask of upright boundaries one pixel wide between grains of these widths, and its micrograph."""
    line = np.concatenate([np.r_[np.zeros(width, np.uint8), np.uint8(1)] for width in widths])[:-1]
    mask = np.tile(line, (height, 1))
    return Record("", np.where(mask, 50, 200).astype(np.uint8), mask, "", None)


def test_grains_at_the_frame_are_not_counted():
    labels = np.ones((9, 9), np.int32)
    labels[2:5, 2:6], labels[7, 7] = 2, 3
    assert synthesis_report.whole_areas(labels).tolist() == [12, 1]


def test_every_micrograph_is_measured_as_it_is():
    record = columns(19, 20, 21)._replace(group="g")
    (row,) = synthesis_report.measured({"real": [record]}).to_dict("records")
    assert (row["source"], row["group"]) == ("real", "g")
    assert row["boundary_share"] == pytest.approx(2 / 62) and row["grey_mean"] == pytest.approx(
        (60 * 200 + 100) / 62 / 255
    )
    assert row["grey_sd"] == pytest.approx(record.image.std() / 255) and row["areas"].size == 0, "the frame cuts all"


def table(**areas):
    rows = [
        {"source": source, "group": f"{source} {i}", "areas": np.array(values)}
        for source, parts in areas.items()
        for i, values in enumerate(parts)
    ]
    return pd.DataFrame(rows).assign(boundary_share=0.1, mean_intercept_px=20.0, grey_mean=0.5, grey_sd=0.2)


ALIKE = [[10, 20, 30], [10, 21, 30], [11, 20, 30]]
EVEN = [[20, 21, 22], [20, 21, 23], [20, 22, 24]]


def test_areas_of_a_group_are_pooled_before_they_vary():
    part = pd.concat([table(real=[[10, 30]]), table(real=[[20, 20]])])
    assert synthesis_report.area_variation(part) == pytest.approx([np.std([10, 30, 20, 20]) / 20])


def test_statistics_have_intervals_over_groups():
    found = synthesis_report.statistics(table(real=ALIKE, trampert=EVEN), seed=1).set_index("source")
    assert found.loc["real", ["pictures", "groups"]].tolist() == [3, 3]
    low, middle, high = found.loc["real", ["area_variation_low", "area_variation", "area_variation_high"]]
    assert low < middle < high and middle == pytest.approx(np.mean([np.std(a) / np.mean(a) for a in ALIKE]))
    assert (found["grey_mean_low"] == found["grey_mean_high"]).all(), "equal values leave nothing open"


@pytest.mark.parametrize("cells, verdict", [(EVEN, "holds here"), (ALIKE[::-1], "does not hold here")])
def test_the_claim_on_cells_is_judged_by_its_interval(cells, verdict):
    stated = {"seed": 1, "profile": "study"}
    row = synthesis_report.grain_claims(table(real=ALIKE, trampert=cells), **stated, is_generated=False).iloc[0]
    assert row["verdict"] == verdict and row["low"] < row["ours"] < row["high"] and row["n"] == 3
    if cells is not EVEN:
        assert row["ours"] == pytest.approx(1)
    none = synthesis_report.grain_claims(table(real=ALIKE, trampert=cells), **stated, is_generated=True).iloc[0]
    assert none["verdict"] == "not run here" and np.isnan(none["ours"])


@pytest.mark.parametrize("worst, verdict", [(0.15, "holds here"), (0.16, "does not hold here")])
def test_the_claim_on_cracks_is_judged_by_its_worst_quantity(worst, verdict):
    stated = {"n_tiles": 10, "seeds": (1, 2), "profile": "quick"}
    distances = pd.DataFrame({"KS": [0.1, worst, 0.02]})
    row = synthesis_report.crack_claims(distances, **stated, is_generated=False).iloc[0]
    assert (row["ours"], row["verdict"], row["n"]) == (worst, verdict, 2)
    assert synthesis_report.crack_claims(distances, **stated, is_generated=True)["verdict"].item() == "not run here"


def test_cracks_are_learned_from_training_tiles_and_compared_with_those_held_back_too(monkeypatch):
    records = pack("ebc_crack_tiles", "generated", profile="smoke").records
    learn, given = synthesis_report.cracks.learn, []
    monkeypatch.setattr(
        synthesis_report.cracks, "learn", lambda tiles, **options: given.extend(tiles) or learn(tiles, **options)
    )
    sizes = {"n_textures": 3, "n_tiles": 8, "calibration_rounds": 0}
    training, *others = roles(records, 1)
    held = [record for part in others for record in part]
    found = synthesis_report.compare_cracks(training, held, 1, **sizes)
    assert [r.name for r in given] == [r.name for r in training], "nothing that is held back is learned from"
    table, apart = found.distances, {r.group for r in held}
    assert table["held back"].unique().tolist() == [", ".join(sorted(apart))] and len(table) == 5
    assert table["n"].unique().tolist() == [len(found.real.cracks)] and (table["n_unseen"] > 0).all()
    assert table[["KS", "fitted alone", "unseen"]].stack().between(0, 1).all() and table["unseen"].notna().all()
    expected = ks_2samp(found.real.cracks["contrast"], found.drawn.cracks["contrast"]).statistic
    assert table.set_index("quantity").loc["contrast", "KS"] == pytest.approx(expected)
    nothing = [r._replace(mask=r.mask * 0) for r in held]
    blank = synthesis_report.compare_cracks(training, nothing, 1, **sizes).distances
    assert blank["unseen"].isna().all() and blank["KS"].tolist() == table["KS"].tolist()


def test_each_parameter_of_the_generator_has_its_values_and_does_something():
    values = parameter_values()
    assert {"grain_diameter_px", "gamma", "twin_fraction"} <= set(values) <= set(PARAMETERS)
    assert all(len(set(chosen)) == len(chosen) >= 2 for chosen in values.values())
    parts = groups(values)
    assert sum(map(len, parts.values())) == len(values) and "bend" in parts["geometry"] and "gamma" in parts["imaging"]
    kinds = moved({name: values[name] for name in ("bend", "mask_width_px", "gamma")} | {"pore_fraction": (0.0, 0.0)})
    assert kinds == {"labels": ["bend"], "mask": ["mask_width_px"], "image": ["gamma"], "nothing": ["pore_fraction"]}


def test_a_strip_shows_the_micrograph_once_a_value():
    fig = strips({"gamma": (0.6, 1.0, 1.7), "inverted": (False, True)})
    first, second = (ax.images[0].get_array() for ax in fig.axes)
    assert first.shape == (128, 390) and second.shape == (128, 259) and (first[:, 128:131] == 255).all()
    assert [ax.get_title() for ax in fig.axes] == ["gamma: 0.6, 1, 1.7", "inverted: 0, 1"]
