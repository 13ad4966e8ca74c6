"""Figures of cracks show what was measured and what was fitted."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from micro_lib.data.packs import pack
from micro_lib.reports import crack_synthesis_plots as figures
from micro_lib.synthesis.crack_statistics import (
    TILE_PARAMETERS,
    distances,
    fit,
    measure,
    measure_all,
    per_tile,
    quantity,
)
from micro_lib.synthesis.distributions import Kernel


@pytest.fixture(scope="module")
def records():
    return [record for record in pack("ebc_crack_tiles", "generated").records if record.mask.any()]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_polyline_runs_along_its_crack(records):
    ax = plt.figure().add_subplot()
    segments = measure(records[0].image, records[0].mask).segments
    figures.polylines(ax, records[0].image, segments, title="a crack")
    assert len(ax.lines) == len(segments) and ax.get_title() == "a crack"
    for line in ax.lines:
        x, y = (np.linspace(*ends, 20) for ends in (line.get_xdata(), line.get_ydata()))
        assert records[0].mask[np.rint(y).astype(int), np.rint(x).astype(int)].mean() > 0.7


def test_densities_integrate_to_one_and_lie_over_their_histograms(records):
    table = per_tile(measure_all(records))
    fitted = fit(measure_all(records))
    names = [name for name in TILE_PARAMETERS if isinstance(fitted[name].distribution, Kernel)]
    fig = figures.fitted_densities(table, fitted, names, columns=5)
    for ax, name in zip(fig.axes, names, strict=False):
        at, density = ax.lines[0].get_data()
        assert ax.get_title() == f"{name}, n = {table[name].count()}"
        # A kernel's tail beyond the measurements is not drawn.
        area = density.sum() if TILE_PARAMETERS[name][3] else np.trapezoid(density, at)
        assert 0.8 < area < 1.05
        heights = np.array([patch.get_height() for patch in ax.patches])
        assert (heights > 0).any()


def test_distribution_functions_tell_their_distance(records):
    half = len(records) // 2
    one, other = measure_all(records[:half]), measure_all(records[half:])
    fig = figures.distributions(one, other)
    titles = [
        f"KS {value:.2f}, n = {len(quantity(one, name))} and {len(quantity(other, name))}"
        for name, value in distances(one, other).items()
    ]
    assert [ax.get_title() for ax in fig.axes] == titles
    assert all(len(ax.lines) == 2 for ax in fig.axes)
