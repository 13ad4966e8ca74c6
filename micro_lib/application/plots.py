"""Figures: micrographs with masks and scale bars, sheets of them, intervals with their n, and the credit line."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox
from skimage.segmentation import find_boundaries

from micro_lib.application.tables import rounded
from micro_lib.core.labels import GRAIN_BOUNDARY, ClassMap
from micro_lib.core.runs import atomic_path

STAMP = "generated stand-in"
OPACITY = 0.55  # of a mask over its micrograph
# Okabe and Ito's palette, made for colour-blind readers: found, missed, invented boundary.
FOUND, MISSED, INVENTED = "#009e73", "#d55e00", "#56b4e9"


class Panel(NamedTuple):
    """One picture of a sheet.

    Attributes
    ----------
    image : numpy.ndarray
        (H, W) uint8, uint16 or float in [0, 1].
    mask : numpy.ndarray, optional
        (H, W) uint8 class ids, laid over the image.
    title : str
        Written above.
    pixel_size_um : float, optional
        Gives the picture a scale bar.
    """

    image: np.ndarray
    mask: np.ndarray | None = None
    title: str = ""
    pixel_size_um: float | None = None


def use_style() -> None:
    """Set seaborn's style for every figure of a notebook: ticks, colour-blind palette, no frame, legible on paper."""
    colours = {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
    sizes = {"figure.dpi": 80, "savefig.dpi": 110, "axes.titlesize": 10, "axes.labelsize": 10, "font.size": 9}
    sns.set_theme(context="paper", style="ticks", palette="colorblind", rc={**colours, **sizes})


def overlay(image: np.ndarray, mask: np.ndarray, class_map: ClassMap = GRAIN_BOUNDARY) -> np.ndarray:
    """Return a grey picture with every class but the first in its colour, half transparent.

    Parameters
    ----------
    image : numpy.ndarray
        (H, W) uint8, uint16 or float in [0, 1].
    mask : numpy.ndarray
        (H, W) uint8 class ids.
    class_map : ClassMap
        Gives the colours.

    Returns
    -------
    numpy.ndarray
        (H, W, 3) float32 in [0, 1].

    Raises
    ------
    ValueError
        If mask and image differ in size, or the mask holds ids beyond the map's.
    """
    if mask.shape != image.shape:
        raise ValueError(f"the mask has {mask.shape} pixels, its image {image.shape}; they must be the same")
    if (largest := int(mask.max(initial=0))) >= len(class_map.classes):
        raise ValueError(
            f"the mask holds class {largest}; {class_map.name!r} has 0 to {len(class_map.classes) - 1}. "
            "Masks of 0 and 255 become ids with ClassMap.encode"
        )
    picture = np.repeat(_unit(image)[..., None], 3, axis=2)  # (H, W, 3)
    colours = np.array([to_rgb(colour) for colour in class_map.colours], np.float32)
    labelled = mask > 0
    picture[labelled] += OPACITY * (colours[mask[labelled]] - picture[labelled])
    return picture


def _unit(image: np.ndarray) -> np.ndarray:
    full = np.iinfo(image.dtype).max if np.issubdtype(image.dtype, np.integer) else 1
    return np.clip(image / np.float32(full), 0, 1, dtype=np.float32)


def micrograph(
    ax: Axes,
    image: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    class_map: ClassMap = GRAIN_BOUNDARY,
    pixel_size_um: float | None = None,
    title: str = "",
) -> None:
    """Draw a micrograph, with its mask over it and with a scale bar where these are given.

    Grey levels are drawn from black to white over the whole range of the number type, never stretched.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    image, mask, class_map
        As for `overlay`.
    pixel_size_um : float, optional
        Edge of a pixel in um; none draws no scale bar.
    title : str
        Written above.
    """
    picture = _unit(image) if mask is None else overlay(image, mask, class_map)
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    ax.set_axis_off()
    ax.set_title(title)
    if pixel_size_um is not None:
        scale_bar(ax, image.shape[1], pixel_size_um)


def scale_bar(ax: Axes, width_px: int, pixel_size_um: float) -> float:
    """Draw a scale bar of 1, 2 or 5 times a power of ten, about a quarter of the picture long.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Holds a picture drawn by ``imshow``.
    width_px : int
        Width of that picture.
    pixel_size_um : float
        Edge of a pixel in um, > 0.

    Returns
    -------
    float
        Length of the bar in um.
    """
    if not pixel_size_um > 0:
        raise ValueError(f"pixel_size_um is {pixel_size_um}; it must be positive")
    wanted = 0.3 * width_px * pixel_size_um
    decade = 10.0 ** math.floor(math.log10(wanted))
    length = max(step * decade for step in (1, 2, 5) if step * decade <= wanted)
    share = length / (width_px * pixel_size_um)
    outline = [withStroke(linewidth=3, foreground="black")]
    place = {"transform": ax.transAxes, "path_effects": outline, "color": "white"}
    ax.plot([0.95 - share, 0.95], [0.06, 0.06], linewidth=2.5, solid_capstyle="butt", **place)
    text = f"{length:g} µm" if length < 1000 else f"{length / 1000:g} mm"
    ax.text(0.95 - share / 2, 0.08, text, ha="center", va="bottom", fontsize=8, **place)
    return length


def sheet(panels: Sequence[Panel], *, columns: int, class_map: ClassMap = GRAIN_BOUNDARY, panel_inch: float = 2.0):
    """Draw several micrographs in rows, with a key of the classes where masks of more than one are laid over.

    Parameters
    ----------
    panels : sequence of Panel
        Filled in row by row.
    columns : int
        Pictures a row.
    class_map : ClassMap
        Of the masks.
    panel_inch : float
        Edge of a picture.

    Returns
    -------
    matplotlib.figure.Figure
        With one axes a picture.
    """
    rows = math.ceil(len(panels) / columns)
    size = (columns * panel_inch, rows * (panel_inch + 0.25))
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, panel in zip(axes.flat, panels, strict=False):
        micrograph(
            ax,
            panel.image,
            panel.mask,
            class_map=class_map,
            pixel_size_um=panel.pixel_size_um,
            title=panel.title,
        )
    if len(class_map.classes) > 2 and any(panel.mask is not None for panel in panels):
        fig.legend(handles=class_keys(class_map), loc="outside lower center", ncols=len(class_map.classes) - 1)
    return fig


def grains(ax: Axes, labels: np.ndarray, title: str = "") -> None:
    """Draw grains in colours that mean nothing, with white boundaries, since neighbours may share one.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    labels : numpy.ndarray
        (H, W) int, a number a grain.
    title : str
        Written above.
    """
    order = np.random.default_rng(0).permutation(labels.max() + 1)
    shown = np.ma.masked_where(find_boundaries(labels, mode="inner"), order[labels])
    ax.imshow(shown, cmap="viridis", interpolation="nearest")
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)


def class_keys(class_map: ClassMap) -> list[Line2D]:
    """Return handles for a legend of every class that `overlay` colours."""
    drawn = zip(class_map.classes[1:], class_map.colours[1:], strict=True)
    return [Line2D([], [], color=colour, linewidth=4, label=name) for name, colour in drawn]


def error_map(
    ax: Axes, image: np.ndarray, true: np.ndarray, found: np.ndarray, opacity: float = OPACITY
) -> list[Line2D]:
    """Draw a micrograph with what was found, missed and invented of a class in three colours.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    image : numpy.ndarray
        (H, W) uint8, uint16 or float in [0, 1].
    true, found : numpy.ndarray
        (H, W) bool.
    opacity : float
        Of the colours, up to 1.

    Returns
    -------
    list of matplotlib.lines.Line2D
        Handles for a legend.
    """
    return error_picture(ax, image, (true & found, true & ~found, found & ~true), opacity)


def error_picture(ax: Axes, image: np.ndarray, errors: Sequence[np.ndarray], opacity: float = OPACITY) -> list[Line2D]:
    """Draw a micrograph with three sets of pixels, (H, W) bool, as found, missed and invented; see `error_map`."""
    colours = {"found": FOUND, "missed": MISSED, "invented": INVENTED}
    picture = np.repeat(_unit(image)[..., None], 3, axis=2)  # (H, W, 3)
    for where, colour in zip(errors, colours.values(), strict=True):
        picture[where] += opacity * (np.float32(to_rgb(colour)) - picture[where])
    ax.imshow(picture, interpolation="antialiased")
    ax.set_axis_off()
    return [Line2D([], [], color=colour, linewidth=4, label=name) for name, colour in colours.items()]


def chain(fig: Figure, axes: Sequence[Axes], *, closed: bool = False) -> None:
    """Draw an arrow from each axes to the next, as in a flow chart.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
        Its layout is computed and then kept, so that arrows and axes stay together.
    axes : sequence of matplotlib.axes.Axes
        In the order of the arrows; neighbours lie in one row or one column.
    closed : bool
        True adds an arrow from the last to the first.
    """
    fig.draw_without_rendering()
    fig.set_layout_engine("none")
    followers = [*axes[1:], axes[0]] if closed else axes[1:]
    style = {"arrowstyle": "-|>", "mutation_scale": 14, "linewidth": 1.5, "color": MISSED}
    for one, other in zip(axes, followers, strict=False):
        ends = _between(*(ax.get_position() for ax in (one, other)), *(_outline(ax) for ax in (one, other)))
        fig.add_artist(FancyArrowPatch(*ends, transform=fig.transFigure, shrinkA=2, shrinkB=2, **style))


def _outline(ax: Axes) -> Bbox:
    return ax.get_tightbbox().transformed(ax.figure.transFigure.inverted())


def _between(one: Bbox, other: Bbox, one_outline: Bbox, other_outline: Bbox) -> tuple[tuple, tuple]:
    """Return start and end of an arrow that runs straight, in the gap that titles and tick labels leave."""
    if one.y0 < (other.y0 + other.y1) / 2 < one.y1:  # side by side
        rightwards = other.x0 > one.x0
        xs = (one_outline.x1, other_outline.x0) if rightwards else (one_outline.x0, other_outline.x1)
        return tuple((x, (one.y0 + one.y1) / 2) for x in xs)
    upwards = other.y0 > one.y0
    ys = (one_outline.y1, other_outline.y0) if upwards else (one_outline.y0, other_outline.y1)
    return tuple(((one.x0 + one.x1) / 2, y) for y in ys)


def credit(fig: Figure, text: str, *, is_generated: bool = False) -> None:
    """Write the source of the data below a figure, and stamp it where the data are generated stand-ins.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
        To write on; its layout makes room.
    text : str
        A pack's credit.
    is_generated : bool
        True writes "generated stand-in" across the top, before the title that is there.
    """
    letters = round(21 * fig.get_figwidth())  # that fit on a line
    below = "\n\n" if fig.legends else ""  # room for the legend, which the layout would lay over the text
    fig.supxlabel(textwrap.fill(text, letters) + below, fontsize=7, color="0.35", x=0.01, ha="left")
    if is_generated:
        stamp = ": ".join(part for part in (STAMP, fig.get_suptitle()) if part)
        fig.suptitle(stamp, fontsize=10, fontweight="bold", color=MISSED)


def forest(
    ax: Axes,
    table: pd.DataFrame,
    *,
    label: str,
    value: str,
    n: str = "n",
    reference: float | None = None,
    highlight: str = "",
) -> None:
    """Draw one line a row: the estimate, its interval, and beside them the numbers and how many they are from.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on; the x axis still wants a label with its unit.
    table : pandas.DataFrame
        One row a line, from the top.
    label, value, n : str
        Columns of what is shown; the ends of the intervals are <value>_low and <value>_high, NaN where there is none.
    reference : float, optional
        Where to draw a dashed line, e.g. at a published value or at no difference.
    highlight : str
        Label of a line in another colour.
    """
    at = np.arange(len(table))[::-1]
    ends = table[[f"{value}_low", f"{value}_high"]].to_numpy(float)
    colours = [MISSED if name == highlight else "C0" for name in table[label]]
    ax.hlines(at, ends[:, 0], ends[:, 1], color=colours, linewidth=2)
    ax.scatter(table[value], at, color=colours)
    if reference is not None:
        ax.axvline(reference, color="0.5", linestyle="--", linewidth=1, zorder=0)
    ax.set_yticks(at, table[label])
    ax.set_ylim(-0.6, len(table) - 0.4)
    ax.xaxis.set_major_locator(MaxNLocator(6))  # more would touch, their digits are many
    for place, (number, (bottom, top), count) in zip(at, zip(table[value], ends, table[n], strict=True), strict=True):
        text = f"{rounded(number, bottom, top)}, n = {count}"
        ax.annotate(text, (1.02, place), xycoords=ax.get_yaxis_transform(), va="center", fontsize=8)


def errorbar(
    ax: Axes,
    table: pd.DataFrame,
    at: Sequence[float],
    value: str,
    *,
    across: bool = False,
    **style,
) -> None:
    """Draw one marker a row with its interval.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    table : pandas.DataFrame
        One row a marker; NaN ends where there is no interval.
    at : sequence of float
        Where the markers stand on the other axis.
    value : str
        Column of the values; the ends of their intervals are <value>_low and <value>_high.
    across : bool
        Values run along x instead of y.
    **style
        Of ``Axes.errorbar``.
    """
    values = table[value].to_numpy(float)
    reach = np.abs(table[[f"{value}_low", f"{value}_high"]].to_numpy(float).T - values)  # (2, rows)
    where = {"x": values, "y": at, "xerr": reach} if across else {"x": at, "y": values, "yerr": reach}
    ax.errorbar(**where, **{"fmt": "o", "capsize": 2, **style})


def save(fig: Figure, folder: str | Path, name: str) -> Path:
    """Write a figure as ``folder/name.png``, atomically and without a date in it.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
        Stays open, so that a notebook shows it too.
    folder : str or pathlib.Path
        A notebook's output folder: what lies directly in it may be published, what must not goes into a sub-folder.
    name : str
        Without suffix; unique among all notebooks.

    Returns
    -------
    pathlib.Path
        The file.
    """
    path = Path(folder) / f"{name}.png"
    with atomic_path(path) as temporary:
        fig.savefig(temporary, metadata={"Software": None}, bbox_inches="tight", pad_inches=0.05)
    return path
