"""Figures of what is published beside what is ours, from the stored tables, and the poster of the whole way."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from micro_lib.analysis import grain_size
from micro_lib.application import plots
from micro_lib.application.published import cells, is_measured
from micro_lib.application.tables import SEPARATOR, VERDICTS, largest_profile, rounded
from micro_lib.data.packs import Pack
from micro_lib.models.scaling import segment_micrograph
from micro_lib.models.segmenter import Segmenter
from micro_lib.synthesis import grains
from micro_lib.synthesis.scenario import Space

_COLOURS = ("#009e73", "#56b4e9", "#d55e00", "#0072b2", "#e69f00", "#999999", "#e5e5e5")
COLOURS = dict(zip(VERDICTS, _COLOURS, strict=True))
THEIRS = "0.15"


def coverage(ax: Axes, table: pd.DataFrame) -> None:
    """Draw how many published numbers of every table or section met with which verdict.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    table : pandas.DataFrame
        From `published.beside_ours`.
    """
    place = table["paper"] + ", " + table["where"]
    counts = pd.crosstab(place, table["verdict"]).reindex(place.unique())[::-1]
    left = np.zeros(len(counts))
    for verdict in (name for name in VERDICTS if name in counts):
        ax.barh(counts.index, counts[verdict], left=left, color=COLOURS[verdict], label=verdict)
        left += counts[verdict].to_numpy()
    ax.set(xlabel="published numbers", xlim=(0, left.max() * 1.05))
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=2)


def sheet(parts: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw published numbers and ours below each, in the colour of its verdict: a panel a table, two in a row.

    Parameters
    ----------
    parts : mapping of str to pandas.DataFrame
        Label of the x axis -> rows of `published.beside_ours` of one unit; at least one. Those without a number of ours
        show the published one alone.

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = [list(parts.values())[i : i + 2] for i in range(0, len(parts), 2)]
    heights = [0.7 + 0.36 * max(map(len, row)) for row in rows]
    options = {"squeeze": False, "layout": "constrained", "height_ratios": heights}
    fig, axes = plt.subplots(len(rows), 2, figsize=(11, 0.9 + sum(heights)), **options)
    for ax, found in zip_longest(axes.flat, parts.items()):
        if found is None:
            ax.set_axis_off()
        else:
            _beside(ax, *found)
    _key(fig)
    plots.credit(fig, "bars of published numbers: one standard deviation over runs; of ours: 95 % intervals")
    return fig


def _beside(ax: Axes, label: str, table: pd.DataFrame) -> None:
    at = np.arange(len(table))[::-1]
    ax.errorbar(table["published"], at + 0.15, xerr=table["sd"], fmt="D", color=THEIRS, markersize=4, label="published")
    for verdict in (name for name in VERDICTS if (table["verdict"] == name).any()):
        part = (table["verdict"] == verdict).to_numpy() & table["ours"].notna().to_numpy()
        style = {"color": COLOURS[verdict], "markersize": 5, "label": f"ours: {verdict}"}
        if part.any():
            plots.errorbar(ax, table[part], at[part] - 0.15, "ours", across=True, **style)
    ax.set_yticks(at, _names(table), fontsize=7)
    ax.set_ylim(-0.7, len(table) - 0.3)
    counts = _counts(table)
    ax.set_xlabel(f"{label} (ours: {counts[0]})" if len(set(counts)) == 1 and counts[0] else label)


def _names(table: pd.DataFrame) -> list[str]:
    """Item of each row, and what is not the same in all: their quantity, how many ours is from."""
    names, counts = table["item"].to_list(), _counts(table)
    if table["quantity"].nunique() > 1:
        names = [f"{name}\n{quantity}" for name, quantity in zip(names, table["quantity"], strict=True)]
    if len(set(counts)) > 1:
        names = [f"{name} ({count})" if count else name for name, count in zip(names, counts, strict=True)]
    return names


def _counts(table: pd.DataFrame) -> list[str]:
    return [f"{row.n} {row.over}" if row.n else "" for row in table.itertuples()]


def _key(fig: Figure) -> None:
    """Say below a figure what its markers mean, each once."""
    labelled = {}
    for ax in fig.axes:
        handles, labels = ax.get_legend_handles_labels()
        labelled |= dict(zip(labels, handles, strict=True))
    fig.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=3)


def effects(claims: pd.DataFrame) -> pd.DataFrame:
    """Return every measured effect with an interval as a share of the published one, whatever their units.

    Parameters
    ----------
    claims : pandas.DataFrame
        The claims table.

    Returns
    -------
    pandas.DataFrame
        label, value with value_low and value_high (1: as large as published; 0: none; below 0: reversed), told (ours, n
        and the published one as readers see them) and verdict. Factors have no zero and are left out, as are counts and
        p; of several published numbers that a claim answers the mean counts.
    """
    known = {(one.paper, one.where, one.name): one.number for one in cells()}
    rows = []
    for row in _intervals(claims, "effect", ("1", "%")):
        names = row["answers"].split(SEPARATOR)
        theirs = np.mean([known[row["paper"], row["where"], name] for name in names])
        value, *ends = (row[name] / theirs for name in ("ours", "low", "high"))
        rows.append(_line(row, value, *sorted(ends)) | {"told": f"{_told(row)}; published {row['published']}"})
    return pd.DataFrame(rows, columns=_LINES)


def statements(claims: pd.DataFrame) -> pd.DataFrame:
    """Return what decides statements without a number, in percent or percentage points, with columns as of `effects`.

    The value is ours itself; statements that something in another unit decides are left out.
    """
    rows = [_line(row, row["ours"], row["low"], row["high"]) for row in _intervals(claims, "statement", ("%",))]
    return pd.DataFrame(rows, columns=_LINES)


_LINES = ["label", "value", "value_low", "value_high", "told", "verdict"]


def _intervals(claims: pd.DataFrame, kind: str, units: Sequence[str]) -> list[dict]:
    chosen = largest_profile(claims)
    is_shown = (chosen["kind"] == kind) & chosen["level"].notna() & chosen["unit"].astype(str).isin(units)
    return chosen[is_shown].to_dict("records")


def _line(row: Mapping, value: float, low: float, high: float) -> dict:
    values = {"value": value, "value_low": low, "value_high": high}
    return {
        "label": fill(f"{row['claim']} ({row['paper']}, {row['where']})", 62),
        **values,
        "told": _told(row),
        "verdict": row["verdict"],
    }


def _told(row: Mapping) -> str:
    unit = "" if str(row["unit"]) == "1" else f" {row['unit']}"
    return f"{rounded(row['ours'], row['low'], row['high'])}{unit}, {row['n']} {row['over']}"


def forest(ax: Axes, table: pd.DataFrame) -> None:
    """Draw `effects` or `statements`, a line each in the colour of its verdict, and beside it the numbers as they are.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on; the x axis still wants its label.
    table : pandas.DataFrame
        One row a line, from the top.
    """
    at = np.arange(len(table))[::-1]
    for verdict in (name for name in VERDICTS if (table["verdict"] == name).any()):
        part = (table["verdict"] == verdict).to_numpy()
        plots.errorbar(ax, table[part], at[part], "value", across=True, color=COLOURS[verdict], label=verdict)
    ax.axvline(0, color="0.5", linestyle="--", linewidth=1, zorder=0)
    ax.set_yticks(at, table["label"], fontsize=7)
    ax.set_ylim(-0.6, len(table) - 0.4)
    for place, text in zip(at, table["told"], strict=True):
        ax.annotate(fill(text, 62), (1.02, place), xycoords=ax.get_yaxis_transform(), va="center", fontsize=7)
    _key(ax.figure)


def poster(space: Space, segmenter: Segmenter, real: Pack, sizes: pd.DataFrame, *, seed: int, line_px: int) -> Figure:
    """Draw the way from a row of parameters to a measured real micrograph.

    Parameters
    ----------
    space : Space
        Of grain micrographs.
    segmenter : Segmenter
        Trained on them alone.
    real : Pack
        Its first micrograph is segmented.
    sizes : pandas.DataFrame
        Mean intercepts of the pack's micrographs: name, source ("truth" or "label-free"), intercept_px with
        intercept_px_low and intercept_px_high.
    seed : int
        Of the row.
    line_px : int
        Width of the boundaries drawn.

    Returns
    -------
    matplotlib.figure.Figure
    """
    row, record = space.sample(1, seed).to_dict("records")[0], real.records[0]
    made = grains.render(row)
    drawn = segment_micrograph(segmenter, record.image, line_px=line_px).mask
    fig, axes = plt.subplots(2, 4, figsize=(12, 6.4), layout="constrained")
    fig.get_layout_engine().set(wspace=0.1, hspace=0.14, rect=(0, 0.03, 1, 0.97))  # the credit stands below
    (first, shapes, image, pair), (last, measured, found, new) = axes
    _parameters(first, row, space)
    plots.grains(shapes, made.labels, "2 geometry")
    plots.micrograph(image, made.image, title="3 simulated micrograph")
    plots.micrograph(pair, made.image, made.mask, title="4 its mask comes free: train")
    plots.micrograph(new, record.image, title="5 a real micrograph, never seen")
    plots.micrograph(found, record.image, drawn, title="6 segmented")
    plots.grains(measured, grain_size.grains_from_boundaries(drawn), "7 grains")
    _sizes(last, sizes)
    plots.chain(fig, [first, shapes, image, pair, new, found, measured, last])
    plots.credit(fig, f"Bottom row: {real.credit}", is_generated=real.is_generated)
    return fig


_LISTED = 10  # parameters that there is room for


def _parameters(ax: Axes, row: Mapping, space: Space) -> None:
    """List the parameters that vary, as many as there is room for."""
    varying = [name for name, values in space.sample(20, 1).nunique().items() if values > 1 and name in space]
    units = {name: space[name].unit.removesuffix("1") for name in varying}  # pure numbers have none
    lines = [(name, f"{row[name]:.3g} {units[name]}") for name in varying if not isinstance(row[name], str)]
    lines = [*lines[:_LISTED], (f"and {len(varying) - _LISTED} more", "")]
    ax.set_axis_off()
    ax.set_title(f"1 a row of {len(varying)} parameters", fontsize=10)
    for i, (name, value) in enumerate(lines):
        ax.text(0, 0.94 - i / len(lines), name, fontsize=8, transform=ax.transAxes)
        ax.text(1, 0.94 - i / len(lines), value, fontsize=8, ha="right", transform=ax.transAxes)


def _sizes(ax: Axes, sizes: pd.DataFrame) -> None:
    """Draw the mean intercepts of truth and model side by side, with their intervals."""
    for shift, (source, part) in zip((-0.15, 0.15), sizes.groupby("source", sort=True), strict=True):
        colour = "C0" if source == "truth" else plots.MISSED
        plots.errorbar(ax, part, np.arange(len(part)) + shift, "intercept_px", color=colour, label=f"{source}, 95 %")
    mean = sizes.groupby("source")["intercept_px"].mean()
    ax.set(title=f"8 its grain size: {mean['label-free'] / mean['truth'] - 1:+.0%}", xlabel="section of one area")
    ax.set(ylabel="mean intercept, ASTM E112 (px)", ylim=(0, None))
    ax.set_xticks(range(sizes["name"].nunique()), [str(int(name[-3:])) for name in sizes["name"].unique()])
    ax.legend(loc="lower right")


def of_table(table: pd.DataFrame, paper: str, where: str | Sequence[str], quantity: str = "") -> pd.DataFrame:
    """Return the rows of `published.beside_ours` of some tables whose quantity begins so."""
    names = [where] if isinstance(where, str) else list(where)
    chosen = table[(table["paper"] == paper) & table["where"].isin(names)]
    return chosen[chosen["quantity"].str.startswith(quantity)].reset_index(drop=True)


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `published.beside_ours` with a number of ours."""
    return table[is_measured(table)].reset_index(drop=True)
