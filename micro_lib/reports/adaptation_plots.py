"""Figures of the adaptation experiment: domains, curves, gaps, maps of errors, what a network looks at."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from micro_lib.analysis.metrics import matched_lines
from micro_lib.application.plots import class_keys, error_map, error_picture, errorbar, micrograph
from micro_lib.core.labels import ClassMap
from micro_lib.data.records import Record
from micro_lib.training.adaptation import ARMS
from micro_lib.training.adaptation_methods import ring_power

# An arm looks the same in every figure; those of the study come first, so that their colours are their own.
STUDIED = ("no adaptation", "AdaptSegNet", "self-training", "softened self-training", "2 labels", "oracle")
ORDER = (*STUDIED, *(arm for arm in ARMS if arm not in STUDIED))
SHIFTS = ("T1", "T2", "T3", "0d to 180d", "coating")  # of the study, all folds
MARGIN_PX = 24  # shown above and below lines
COLOURS = 10  # of seaborn's palette; later arms have them again, with another marker and line


def domains(records: Mapping[str, Record], class_map: ClassMap, *, window_um: float = 20.0) -> Figure:
    """Draw a window of one micrograph of each domain, above it alone, below with its mask, and a key of the classes.

    Parameters
    ----------
    records : mapping of str to Record
        By the name of the domain; pixel sizes known.
    class_map : ClassMap
        Of the masks.
    window_um : float
        Side of the window in the upper left corner, cut to the micrograph.
    """
    size = (2 * len(records), 4.3)
    fig, axes = plt.subplots(2, len(records), figsize=size, squeeze=False, layout="constrained")
    for (alone, labelled), (name, record) in zip(axes.T, records.items(), strict=True):
        px = round(window_um / record.pixel_size_um)
        window = np.s_[:px, :px]
        micrograph(alone, record.image[window], pixel_size_um=record.pixel_size_um, title=name)
        micrograph(labelled, record.image[window], record.mask[window], class_map=class_map)
    fig.legend(handles=class_keys(class_map), loc="outside lower center", ncols=len(class_map.classes) - 1)
    return fig


def sharpness(tiles: Mapping[str, torch.Tensor]) -> Figure:
    """Draw a tile of every kind, and the power of all of them over frequency relative to the first kind's.

    Parameters
    ----------
    tiles : mapping of str to torch.Tensor
        (B, 1, H, W) float32, standardised, by name.
    """
    fig, axes = plt.subplots(1, len(tiles) + 1, figsize=(2.4 * len(tiles) + 3.4, 2.5), layout="constrained")
    powers = {name: ring_power(images).numpy() for name, images in tiles.items()}
    first = next(iter(powers.values()))
    frequency = (np.arange(len(first)) + 0.5) / (2 * len(first))
    for ax, (name, images) in zip(axes, tiles.items(), strict=False):
        ax.imshow(images[0, 0], cmap="gray", vmin=-2.5, vmax=2.5)
        ax.set(title=name, xticks=[], yticks=[])
        axes[-1].semilogy(frequency, powers[name] / first, label=name)
    axes[-1].set(xlabel="spatial frequency [1/px]", ylabel="power, relative")
    axes[-1].legend(fontsize=7)
    return fig


def curves(axes: Sequence[Axes], table: pd.DataFrame) -> None:
    """Draw the curves of arms, the median of their runs and the range: mean IoU on the target, and what needs no label.

    Parameters
    ----------
    axes : three matplotlib.axes.Axes
        Mean IoU on watched target micrographs, loss on labelled tiles, entropy of the outputs on the target.
    table : pandas.DataFrame
        Rows of `micro_lib.training.adaptation_loop.adapt` with arm and seed.
    """
    names = ("target_miou", "loss", "target_entropy")
    labels = ("target, mean IoU", "loss on labelled tiles", "target, entropy / log C")
    for ax, name, label in zip(axes, names, labels, strict=True):
        for arm, part in table.groupby("arm", sort=False):
            runs = part.groupby("step")[name].agg(["median", "min", "max"])
            ax.plot(runs.index, runs["median"], marker=".", linewidth=1, **_line(arm))
            ax.fill_between(runs.index, runs["min"], runs["max"], alpha=0.12, linewidth=0, color=_line(arm)["color"])
        ax.set(xlabel="steps", ylabel=label)


def arm_key(fig: Figure, arms: Sequence[str]) -> None:
    """Draw the key of lines drawn by `curves` beside all axes of a figure.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
        With a constrained layout.
    arms : sequence of str
        Names of `micro_lib.training.adaptation.ARMS`, repeated or not.
    """
    keys = [Line2D([], [], label=arm, **_line(arm)) for arm in ORDER if arm in set(arms)]
    fig.legend(handles=keys, loc="outside right upper", fontsize=7)


def _line(arm: str) -> dict:
    turn, i = divmod(ORDER.index(arm), COLOURS)
    return {"color": f"C{i}", "linestyle": ("-", "--", ":")[turn]}


def _marker(arm: str) -> dict:
    turn, i = divmod(ORDER.index(arm), COLOURS)
    return {"color": f"C{i}", "fmt": "os^"[turn]}


def scores(ax: Axes, table: pd.DataFrame, theirs: Mapping[str, float] | None = None) -> None:
    """Draw the mean IoU on the target of every arm, a group of lines a shift, with intervals and published values.

    Hollow markers are of a single fold.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    table : pandas.DataFrame
        From `adaptation_report.scores`.
    theirs : mapping of (shift, arm) to float, optional
        Published mean IoU, between 0 and 1, drawn as crosses.
    """
    theirs = theirs or {}
    shifts, arms = list(dict.fromkeys(table["shift"])), [arm for arm in ORDER if arm in set(table["arm"])]
    step = 0.8 / len(arms)
    for i, arm in enumerate(arms):
        part = table[table["arm"] == arm]
        at = np.array([shifts.index(name) for name in part["shift"]]) + (i - (len(arms) - 1) / 2) * step
        errorbar(ax, part, at, "target_miou", markersize=4, label=arm, **_marker(arm))
        single = (part["n"] == 1).to_numpy()
        ax.plot(at[single], part["target_miou"][single], ".", markersize=3, color="white")  # hollow: a single fold
        known = [(x, theirs[name, arm]) for x, name in zip(at, part["shift"], strict=True) if (name, arm) in theirs]
        if known:
            ax.plot(*zip(*known, strict=True), "x", color=_line(arm)["color"])
    counts = table.groupby("shift")["n"].agg(["min", "max"])
    ns = [f"n = {low}" if low == high else f"n = {low} to {high}" for low, high in counts.loc[shifts].to_numpy()]
    named = [f"{textwrap.fill(name, 12)}\n{n}" for name, n in zip(shifts, ns, strict=True)]
    ax.set_xticks(range(len(shifts)), named, fontsize=8)
    ax.set_ylabel("target, mean IoU")
    ax.legend(fontsize=7, ncols=5, loc="lower left", bbox_to_anchor=(0, 1))


def error_maps(micrographs: Sequence[Record], found: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """Draw error maps as Figures 4 to 6 of Goetz et al. 2022: a row a micrograph, a column an arm.

    Parameters
    ----------
    micrographs : sequence of Record
        With their masks.
    found : mapping of str to sequence of numpy.ndarray
        Class ids (H, W) of each micrograph, by arm; errors of class 1 are drawn.
    """
    rows, columns = len(micrographs), len(found) + 1
    size = (2.6 * columns, 2.0 * rows + 0.5)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for i, record in enumerate(micrographs):
        micrograph(axes[i, 0], record.image, pixel_size_um=record.pixel_size_um, title="" if i else "micrograph")
        for ax, (arm, masks) in zip(axes[i, 1:], found.items(), strict=True):
            keys = error_map(ax, record.image, record.mask == 1, masks[i] == 1)
            ax.set_title("" if i else arm)
    fig.legend(handles=keys, loc="outside lower center", ncols=3)
    return fig


def line_maps(record: Record, found: Mapping[str, np.ndarray], line: int, tolerance_px: int) -> Figure:
    """Draw which lines of a class arms find, miss and invent, one strip of the micrograph above the other.

    Parameters
    ----------
    record : Record
        With its mask, in which the class is somewhere.
    found : mapping of str to numpy.ndarray
        Class ids (H, W), by arm.
    line : int
        The class.
    tolerance_px : int
        As for `micro_lib.analysis.metrics.score_lines`.
    """
    rows = np.flatnonzero((record.mask == line).any(axis=1))
    strip = slice(max(0, rows[0] - MARGIN_PX), rows[-1] + MARGIN_PX)
    height, width = record.mask[strip].shape
    size = (8, (len(found) + 1) * (8 * height / width + 0.25) + 0.5)
    fig, axes = plt.subplots(len(found) + 1, 1, figsize=size, layout="constrained")
    micrograph(axes[0], record.image[strip], pixel_size_um=record.pixel_size_um, title="micrograph")
    for ax, (arm, mask) in zip(axes[1:], found.items(), strict=True):
        errors = matched_lines(record.mask == line, mask == line, tolerance_px)
        keys = error_picture(ax, record.image[strip], [kind[strip] for kind in errors], opacity=1.0)
        ax.set_title(arm)
    fig.legend(handles=keys, loc="outside lower center", ncols=3)
    return fig


def phase_fractions(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the phase fractions found, by shift and arm, with the true ones as lines (Table 7 of Goetz et al. 2022).

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    table : pandas.DataFrame
        From `adaptation_report.phase_fractions`, of one class a shift.
    """
    at = np.arange(len(table))[::-1]
    errorbar(ax, table, at, "found", across=True, color="C0", label="found")
    ax.plot(table["true"], at, "|", markersize=14, color="C3", label="true")
    ax.set_yticks(at, [f"{row.shift}, {row.arm}, n = {row.n}" for row in table.itertuples()], fontsize=8)
    ax.set_xlabel(f"fraction of {table['class'].iloc[0]} in the tested micrographs, 95 % over n folds")
    ax.legend(fontsize=7)


def attention(ax: Axes, image: np.ndarray, heat: np.ndarray, title: str = "") -> None:
    """Draw a map of attention over its micrograph.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    image : numpy.ndarray
        (H, W) uint8.
    heat : numpy.ndarray
        (H, W) float32 in [0, 1], from `micro_lib.application.explain.grad_cam`.
    title : str
        Written above.
    """
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    ax.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.55)
    ax.set_axis_off()
    ax.set_title(title)
