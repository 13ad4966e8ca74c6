"""Figures of adaptive sampling: along which parameters of the generator a model fails."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from micro_lib.application.plots import Panel, credit, errorbar
from micro_lib.reports.adaptive_report import bins, is_number, marginals
from micro_lib.synthesis.grains import render

LEAST = 5  # micrographs a mean is drawn of


def parameters(table: pd.DataFrame, scores: pd.DataFrame, count: int = 8) -> Figure:
    """Draw the mean IoU along the parameters that matter most, with 95 % intervals.

    Parameters
    ----------
    table, scores
        As for `adaptive_report.marginals`.
    count : int
        How many parameters.
    """
    found = marginals(table, scores)
    names = found["parameter"].drop_duplicates()[:count]
    columns = min(4, len(names))
    size = (2.4 * columns, 2.1 * -(-len(names) // columns))
    fig, axes = plt.subplots(
        -(-len(names) // columns), columns, figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, names, strict=False):
        part = found[found["parameter"] == name]
        at = part["at"] if part["at"].notna().all() else np.arange(len(part))
        errorbar(ax, part, at, "miou", fmt="o-")
        if part["at"].isna().any():
            ax.set_xticks(at, part["bin"].str.replace("_", "\n"))
            ax.margins(x=0.25)
        ax.set_xlabel(f"{name} ({part['spread'].iloc[0]:.0%})")
        ax.axhline(scores["miou"].mean(), color="0.6", linewidth=1, zorder=0)
    for ax in axes[:, 0]:
        ax.set_ylabel("mean IoU")
    per_bin = f"{found['n'].min()} to {found['n'].max()} micrographs a point"
    credit(
        fig,
        f"95 % intervals, {per_bin}; in brackets: share of the variance that each explains alone; line: mean of all",
    )
    return fig


def pair(ax: Axes, table: pd.DataFrame, scores: pd.DataFrame, names: tuple[str, str]) -> None:
    """Draw the mean IoU over bins of two parameters, with how many micrographs each is from, `LEAST` or more.

    The colours of all pairs run from the 5th to the 95th percentile of the scores.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    table, scores
        As for `adaptive_report.marginals`.
    names : (str, str)
        Along x and along y.
    """
    x, y = (bins(table[name]) for name in names)
    grid = pd.DataFrame({"x": x, "y": y, "miou": scores["miou"].to_numpy()})
    mean, count = (grid.pivot_table(index="y", columns="x", values="miou", aggfunc=f) for f in ("mean", "count"))
    low, high = scores["miou"].quantile([0.05, 0.95])
    image = ax.imshow(mean.where(count >= LEAST), origin="lower", aspect="auto", cmap="cividis", vmin=low, vmax=high)
    middle = (low + high) / 2
    for (row, column), n in np.ndenumerate(count.to_numpy()):
        if n >= LEAST:
            value = mean.iloc[row, column]
            colour = "white" if value < middle else "black"
            ax.text(column, row, f"{value:.2f}\n{n:.0f}", ha="center", va="center", fontsize=6, color=colour)
    for axis, name, labels in ((ax.xaxis, names[0], mean.columns), (ax.yaxis, names[1], mean.index)):
        parts = x if name == names[0] else y
        texts = [_label(table[name][parts == label]) for label in labels]
        axis.set_ticks(range(len(labels)), texts)
        axis.set_label_text(name)
    ax.figure.colorbar(image, ax=ax, label="mean IoU")


def _label(values: pd.Series) -> str:
    return f"{values.median():.3g}" if is_number(values) else str(values.iloc[0]).replace("_", "\n")


def worst(table: pd.DataFrame, scores: pd.DataFrame, count: int = 6) -> list[Panel]:
    """Return pictures of the worst micrographs, worst first, with their masks and scores, for `plots.sheet`.

    Parameters
    ----------
    table, scores
        As for `adaptive_report.marginals`; rows of a grain scenario.
    count : int
        How many.
    """
    order = np.argsort(scores["miou"].to_numpy(), kind="stable")[:count]
    micrographs = [(render(table.iloc[i].to_dict()), scores["miou"].iloc[i]) for i in order]
    return [Panel(m.image, mask, f"IoU {miou:.2f}") for m, miou in micrographs for mask in (None, m.mask)]
