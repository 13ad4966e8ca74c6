"""Figures of measured and generated cracks: the polyline of a crack, fitted densities, measured distributions."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from micro_lib.application import plots
from micro_lib.synthesis.crack_statistics import QUANTITIES, TILE_PARAMETERS, Measured, distances, quantity
from micro_lib.synthesis.distributions import Empirical, Kernel
from micro_lib.synthesis.scenario import Space


def polylines(ax: Axes, image: np.ndarray, segments: pd.DataFrame, *, title: str = "") -> None:
    """Draw a tile with the segments measured in it and their vertices.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    image : numpy.ndarray
        (H, W) uint8 or uint16.
    segments : pandas.DataFrame
        Rows of `Measured.segments` of this tile.
    title : str
        Written above.
    """
    plots.micrograph(ax, image, title=title)
    for row in segments.to_dict("records"):
        x, y = (row["x0"], row["x1"]), (row["y0"], row["y1"])
        ax.plot(x, y, "o-", color=plots.MISSED, markersize=2.5, linewidth=1)


def fitted_densities(table: pd.DataFrame, fitted: Space, names: Sequence[str], *, columns: int = 4) -> Figure:
    """Draw histograms of tiles' parameters, and over them the densities that a space has fitted to them.

    Parameters
    ----------
    table : pandas.DataFrame
        From `crack_statistics.per_tile`.
    fitted : Space
        From `crack_statistics.fit`.
    names : sequence of str
        Parameters to draw, of those that are not constant.
    columns : int
        Panels in a row.

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = -(-len(names) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(2.4 * columns, 1.9 * rows), layout="constrained", squeeze=False)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, names, strict=False):
        values, kernel = table[name].dropna(), fitted[name].distribution
        edges = np.arange(values.min(), values.max() + 2) - 0.5 if kernel.whole else 20
        ax.hist(values, bins=edges, density=True, color="0.75")
        ax.plot(*_density(kernel, values), color="C0")
        unit = TILE_PARAMETERS[name][0]
        ax.set(title=f"{name}, n = {len(values)}", xlabel="" if unit == "1" else f"[{unit}]", yticks=[])
    for ax in axes[:, 0]:
        ax.set_ylabel("density")
    return fig


def _density(kernel: Kernel, values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Places and density there of what a kernel's values follow together; of counts their shares."""
    alone = Empirical(kernel.values, kernel.bandwidth, kernel.low, kernel.high)
    if kernel.whole:
        at = np.arange(values.min(), values.max() + 1)
        return at, alone.rank(at + 0.5, {})[0] - alone.rank(at - 0.5, {})[0]
    margin = 0.2 * np.ptp(values)
    edges = np.linspace(values.min() - margin, values.max() + margin, 81).clip(kernel.low, kernel.high)
    edges = np.unique(edges)
    return (edges[1:] + edges[:-1]) / 2, np.diff(alone.rank(edges, {})[0]) / np.diff(edges)


def distributions(measured: Measured, drawn: Measured) -> Figure:
    """Draw the distribution functions of the paper's five quantities, of real and of drawn cracks.

    Parameters
    ----------
    measured, drawn : Measured
        Of real and of generated tiles.

    Returns
    -------
    matplotlib.figure.Figure
    """
    apart = distances(measured, drawn)
    fig, axes = plt.subplots(1, len(QUANTITIES), figsize=(11, 2.3), layout="constrained", sharey=True)
    for ax, (name, (_, _, unit)) in zip(axes, QUANTITIES.items(), strict=True):
        for of, look in ((measured, {"color": "0.4", "label": "real"}), (drawn, {"color": "C0", "label": "generated"})):
            sns.ecdfplot(quantity(of, name), ax=ax, **look)
        counts = " and ".join(str(len(quantity(of, name))) for of in (measured, drawn))
        label = name if unit == "1" else f"{name} [{unit}]"
        ax.set(title=f"KS {apart[name]:.2f}, n = {counts}", xlabel=label, ylabel="share")
    axes[0].legend()
    return fig
