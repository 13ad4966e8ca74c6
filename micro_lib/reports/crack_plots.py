"""Figures of the crack experiment: arms beside the published ones, label budgets, tiles a classifier is wrong about."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from skimage.segmentation import find_boundaries

from micro_lib.application import plots
from micro_lib.data.records import Record
from micro_lib.reports.crack_report import PUBLISHED_RUNS
from micro_lib.training import cracks

OURS, PAPERS = "C0", "0.55"
BUDGET_STYLES = {"real long": ("s", "--", "C1", "real tiles alone, as many steps")}


def arms_beside_published(ax: Axes, table: pd.DataFrame, published: pd.DataFrame) -> None:
    """Draw the error of every arm with its interval over runs, and in grey that of the paper's model of this name.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on; the x axis still wants its label.
    table : pandas.DataFrame
        From `crack_report.table_1`.
    published : pandas.DataFrame
        Rows of one measure from `crack_report.published`; drawn with its interval over runs, not with the printed one.
    """
    known = published.set_index("arm")
    at = np.arange(len(table))[::-1]
    for place, row in zip(at, table.to_dict("records"), strict=True):
        _line(ax, place, row["error"], row["error_low"], row["error_high"], OURS, "o")
        if row["arm"] in known.index:
            theirs = known.loc[row["arm"]]
            _line(ax, place - 0.28, theirs["error"], theirs["runs_low"], theirs["runs_high"], PAPERS, "D")
    ax.set_yticks(at, [f"{arm} (n = {n})" for arm, n in zip(table["arm"], table["n"], strict=True)])
    ax.set_ylim(-0.7, len(table) - 0.5)
    for colour, marker, name in ((OURS, "o", "ours"), (PAPERS, "D", f"paper (n = {PUBLISHED_RUNS})")):
        ax.plot([], [], marker, color=colour, label=name)
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.22), ncols=2)


def _line(ax: Axes, place: float, value: float, low: float, high: float, colour: str, marker: str) -> None:
    ax.hlines(place, low, high, color=colour, linewidth=2)
    ax.plot(value, place, marker, color=colour, markersize=5)


def budget(ax: Axes, curve: pd.DataFrame, synthetic: float) -> None:
    """Draw the error over the number of real tiles, with and without pre-training, and how many runs each is from.

    Of a single run there is no interval; its point stands alone.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    curve : pandas.DataFrame
        From `crack_report.budget_curve`.
    synthetic : float
        Error of the network that has seen no real tile but through its generator: a dashed line; NaN for none.
    """
    for aside, (arm, part) in zip((0.96, 1.04), curve.groupby("arm", sort=False), strict=False):
        marker, line, colour, name = BUDGET_STYLES.get(arm, ("o", "-", "C0", "pre-trained on synthetic tiles"))
        at, several = aside * part["n_real"], part["n"] > 1
        plots.errorbar(ax, part, at, "error", fmt=marker, color=colour, label=name)
        ax.plot(at[several], part.loc[several, "error"], line, color=colour)
        for x, error, n in zip(at, part["error"], part["n"], strict=True):
            ax.annotate(
                n,
                (x, error),
                (4 if aside > 1 else -4, 0),
                textcoords="offset points",
                fontsize=7,
                color=colour,
                ha="left" if aside > 1 else "right",
            )
    if not np.isnan(synthetic):
        ax.axhline(synthetic, color="0.5", linestyle=":", label="synthetic tiles alone")
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(set(curve["n_real"])), [str(n) for n in sorted(set(curve["n_real"]))])
    ax.minorticks_off()
    ax.set(xlabel="real tiles trained on (small numbers: runs)", ylabel="error on held specimens", ylim=(0, None))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def wrong_sheet(
    wrong: pd.DataFrame, records: Mapping[str, Record], credit: str, *, columns: int = 6, is_generated: bool = False
) -> Figure:
    """Draw tiles a classifier is wrong about, with what it says and the outlines of the cracks it missed.

    Parameters
    ----------
    wrong : pandas.DataFrame
        From `crack_report.wrong_tiles`.
    records : mapping
        Name -> record of every tile.
    credit : str
        Of the pack.
    columns : int
        Tiles a row.
    is_generated : bool
        The tiles are stand-ins.

    Returns
    -------
    matplotlib.figure.Figure
        Without a picture, but with a sentence, if there is no such tile.
    """
    panels = [_panel(row, records[row["name"]]) for row in wrong.to_dict("records")]
    if not panels:
        fig = plt.figure(figsize=(5, 0.6), layout="constrained")
        fig.text(0.01, 0.5, "No test tile of this run is called wrongly.")
    else:
        fig = plots.sheet(panels, columns=min(columns, len(panels)), panel_inch=1.5)
    plots.credit(fig, credit, is_generated=is_generated)
    return fig


def _panel(row: Mapping, record: Record) -> plots.Panel:
    kind = "missed" if row["label"] else "false alarm"
    mask = find_boundaries(record.mask, mode="outer").astype(np.uint8) if row["label"] else None
    return plots.Panel(record.image, mask, f"{kind}\np = {row['probability']:.2f}\n{record.group}")


def counts_by_specimen(ax: Axes, table: pd.DataFrame, arms: Sequence[str]) -> None:
    """Draw the error of each arm on each specimen, with its lowest and highest run; a star marks those looked at.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    table : pandas.DataFrame
        From `crack_report.specimen_table`.
    arms : sequence of str
        Its columns to draw.
    """
    names = [f"{r.specimen}{' *' if r.looked_at else ''}\n{r.tiles} tiles, {r.runs} runs" for r in table.itertuples()]
    _side_by_side(ax, table, arms)
    ax.set_xticks(np.arange(len(table)), names, rotation=30, ha="right")
    ax.set(ylabel="error when held out")


def by_seed(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the error of each arm in each run, a point an arm.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    table : pandas.DataFrame
        One row a seed (the index), one column an arm.
    """
    _side_by_side(ax, table, table.columns)
    ax.set_xticks(np.arange(len(table)), [f"{seed}\nfold {(seed - 1) % len(cracks.FOLDS)}" for seed in table.index])
    ax.set(xlabel="seed (one run of each arm)", ylabel="error on held specimens")


def _side_by_side(ax: Axes, table: pd.DataFrame, arms: Sequence[str]) -> None:
    for i, arm in enumerate(arms):
        at, style = np.arange(len(table)) + 0.12 * (i - (len(arms) - 1) / 2), {"fmt": "osD^v<>"[i % 7], "label": arm}
        if f"{arm}_low" in table:
            plots.errorbar(ax, table, at, arm, **style, linewidth=1)
        else:
            ax.errorbar(at, table[arm], **style)
    ax.set_ylim(0, None)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
