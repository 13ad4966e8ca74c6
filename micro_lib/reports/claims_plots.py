"""Figures of what is published beside what is ours, from the stored tables, and the poster of the whole way."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from skimage.segmentation import find_boundaries

from micro_lib.analysis import grain_size
from micro_lib.application import plots
from micro_lib.application.published import cells, is_measured
from micro_lib.application.tables import VERDICTS, largest_profile
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


def beside(ax: Axes, table: pd.DataFrame) -> None:
    """Draw published numbers of one unit and ours below each, in the colour of its verdict.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on; the x axis still wants its label, of one line.
    table : pandas.DataFrame
        Rows of `published.beside_ours`; those without a number of ours show the published one alone. Published spreads
        are the printed standard deviations, ours are intervals.
    """
    at = np.arange(len(table))[::-1]
    ax.errorbar(table["published"], at + 0.15, xerr=table["sd"], fmt="D", color=THEIRS, markersize=4, label="published")
    for verdict in (name for name in VERDICTS if (table["verdict"] == name).any() and table["ours"].notna().any()):
        part = (table["verdict"] == verdict).to_numpy() & table["ours"].notna().to_numpy()
        ours = table.loc[part]
        style = {"color": COLOURS[verdict], "markersize": 5, "label": f"ours, {verdict}"}
        if part.any():
            plots.errorbar(ax, ours, at[part] - 0.15, "ours", across=True, **style)
    names = [f"{row.item}\n{row.quantity}{_ours(row.n, row.over)}" for row in table.itertuples()]
    ax.set_yticks(at, names, fontsize=7)
    ax.set_ylim(-0.7, len(table) - 0.3)
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.55 / ax.get_position().height / ax.figure.get_figheight()))


def _ours(count: int, over: str) -> str:
    return f" (ours: {count} {over})" if count else ""


def effects(claims: pd.DataFrame, labels: Mapping[str, tuple[str, float]]) -> pd.DataFrame:
    """Return what was gained by a method over the arm it is compared with, in percent or percentage points.

    Parameters
    ----------
    claims : pandas.DataFrame
        The claims table.
    labels : mapping of str to (str, float)
        Claim -> what to call it, and the factor that turns ours into percent gained.

    Returns
    -------
    pandas.DataFrame
        effect, value, low, high, level, n, over, theirs (the published number, missing where none is), verdict;
        measured claims alone, in the order of `labels`.
    """
    known = {(one.paper, one.where, one.name): one.number for one in cells()}
    chosen, rows = largest_profile(claims).set_index("claim"), []
    for name, (label, factor) in labels.items():
        if name not in chosen.index or np.isnan(chosen.loc[name, "ours"]):
            continue
        row = chosen.loc[name]
        ends = sorted(factor * row[["low", "high"]].to_numpy(float))
        theirs = known.get((row["paper"], row["where"], row["answers"]), np.nan)
        found = {"effect": label, "value": factor * row["ours"], "low": ends[0], "high": ends[1]}
        rows.append(found | {"theirs": factor * theirs, **row[["level", "n", "over", "verdict"]]})
    return pd.DataFrame(rows, columns=["effect", "value", "low", "high", "level", "n", "over", "theirs", "verdict"])


def forest(ax: Axes, table: pd.DataFrame) -> None:
    """Draw `effects`: ours with their intervals, the published ones as diamonds, to the right of zero a gain."""
    counted = table["n"].astype(str) + " " + table["over"]
    plots.forest(ax, table.assign(n=counted), label="effect", value="value", reference=0)
    ax.plot(table["theirs"], np.arange(len(table))[::-1] + 0.25, "D", color=THEIRS, markersize=5, label="published")
    levels = " and ".join(f"{100 * level:.3g} %" for level in sorted(set(table["level"].dropna())))
    ax.plot([], [], "o-", color="C0", label=f"ours, {levels} interval")
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.7 / ax.figure.get_figheight() / ax.get_position().height))


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
    _coloured(shapes, made.labels, "2 geometry")
    plots.micrograph(image, made.image, title="3 simulated micrograph")
    plots.micrograph(pair, made.image, made.mask, title="4 its mask comes free: train")
    plots.micrograph(new, record.image, title="5 a real micrograph, never seen")
    plots.micrograph(found, record.image, drawn, title="6 segmented")
    _coloured(measured, grain_size.grains_from_boundaries(drawn), "7 grains")
    _sizes(last, sizes)
    plots.chain(fig, [first, shapes, image, pair, new, found, measured, last])
    plots.credit(fig, f"Bottom row: {real.credit}", is_generated=real.is_generated)
    return fig


def _parameters(ax: Axes, row: Mapping, space: Space, count: int = 10) -> None:
    """List the parameters that vary, as many as there is room for."""
    varying = [name for name, values in space.sample(20, 1).nunique().items() if values > 1 and name in space]
    units = {name: space[name].unit.removesuffix("1") for name in varying}  # pure numbers have none
    lines = [(name, f"{row[name]:.3g} {units[name]}") for name in varying if not isinstance(row[name], str)]
    lines = [*lines[:count], (f"and {len(varying) - count} more", "")]
    ax.set_axis_off()
    ax.set_title(f"1 a row of {len(varying)} parameters", fontsize=10)
    for i, (name, value) in enumerate(lines):
        ax.text(0, 0.94 - i / len(lines), name, fontsize=8, transform=ax.transAxes)
        ax.text(1, 0.94 - i / len(lines), value, fontsize=8, ha="right", transform=ax.transAxes)


def _coloured(ax: Axes, labels: np.ndarray, title: str) -> None:
    order = np.random.default_rng(0).permutation(labels.max() + 1)
    shown = np.ma.masked_where(find_boundaries(labels, mode="inner"), order[labels])  # neighbours may share a colour
    ax.imshow(shown, cmap="viridis", interpolation="nearest")
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)


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
