"""Figures of the joint experiment: training, pairs beside real ones, what they are worth."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from micro_lib.analysis import phases
from micro_lib.application import plots
from micro_lib.core.labels import ClassMap
from micro_lib.data.tiles import Labelled

MARKERS = {"real": ("s--", "0.35")}


def history(axes: Sequence[Axes], table: pd.DataFrame) -> None:
    """Draw the losses of both trainings and the use of the codebook over steps.

    Parameters
    ----------
    axes : three matplotlib.axes.Axes
        Losses of the VQ-VAE, perplexity of its codebook, loss of the prior.
    table : pandas.DataFrame
        From `micro_lib.training.generative.train`.
    """
    vq, prior = (table[table["stage"] == stage] for stage in ("vqvae", "prior"))
    losses, codes, nats = axes
    for name, label in (("image_loss", "image: share of variance lost"), ("mask_loss", "mask: nats a pixel")):
        losses.semilogy(vq["steps"].cumsum(), vq[name], ".-", label=label)
    losses.legend()
    codes.plot(vq["steps"].cumsum(), vq["perplexity"], ".-", color="C2")
    nats.plot(prior["steps"].cumsum(), prior["loss"], ".-", color="C3")
    losses.set(xlabel="VQ-VAE, steps", ylabel="loss")
    codes.set(xlabel="VQ-VAE, steps", ylabel="perplexity of the codebook", ylim=(0, None))
    nats.set(xlabel="prior, steps", ylabel="nats a code")


def pair_sheet(
    sets: dict[str, Sequence[Labelled]], class_map: ClassMap, credit: str, *, is_generated: bool = False
) -> Figure:
    """Draw pairs side by side: for each set a row of images and one of the same with their masks laid over.

    Parameters
    ----------
    sets : dict of str to sequence of Labelled
        Name of each set and its pairs, as many in each.
    class_map : ClassMap
        Of the masks.
    credit : str
        Of the real ones.
    is_generated : bool
        The micrographs behind all of them are stand-ins.
    """
    panels = []
    for name, pairs in sets.items():
        titles = [f"{name} {i + 1}" for i in range(len(pairs))]
        panels += [plots.Panel(pair.image, None, title) for pair, title in zip(pairs, titles, strict=True)]
        panels += [plots.Panel(pair.image, pair.mask) for pair in pairs]
    fig = plots.sheet(panels, columns=len(next(iter(sets.values()))), class_map=class_map, panel_inch=1.4)
    plots.credit(fig, credit, is_generated=is_generated)
    return fig


def ratios(ax: Axes, table: pd.DataFrame) -> None:
    """Draw generated over real, of means and variances, on a logarithmic axis with a line at no difference.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    table : pandas.DataFrame
        From `micro_lib.analysis.phases.compare_sets`; distances are left out.
    """
    shown = table[(table["statistic"] != "distance") & (table["ratio"] > 0)]
    names = (shown["quantity"] + " " + shown["class"]).str.strip()
    lines = list(dict.fromkeys(names))
    for kind, marker, colour, aside in (("mean", "o", "C0", 0.15), ("variance", "D", "C1", -0.15)):
        part = shown[shown["statistic"] == kind]
        at = [aside - lines.index(name) for name in names[part.index]]
        ax.hlines(at, part["ratio_low"], part["ratio_high"], color=colour, linewidth=2)
        ax.plot(part["ratio"], at, marker, color=colour, label=kind)
    ax.axvline(1, color="0.5", linestyle="--", linewidth=1, zorder=0)
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.set_xticks([tick for tick in _RATIOS if low <= tick <= high], minor=False)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks([-i for i in range(len(lines))], lines)
    ax.set_xlabel("sampled / real")
    ax.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1))


_RATIOS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 1, 1.25, 2, 5, 10, 20, 50, 100)  # ticks


def correlations(axes: Sequence[Axes], sets: dict[str, Sequence[Labelled]], class_map: ClassMap) -> None:
    """Draw how the pixels of each class hang together, a line a set, with its mean intercept.

    Parameters
    ----------
    axes : C of matplotlib.axes.Axes
        One a class: the mean of `phases.two_point`, whose fall from distance 0 is the steeper, the finer the class.
    sets : dict of str to sequence of Labelled
        Name of each set and its pairs, all of one size.
    class_map : ClassMap
        Of the masks.
    """
    for i, (name, ax) in enumerate(zip(class_map.classes, axes, strict=True)):
        for (label, pairs), style in zip(sets.items(), ("-", "--"), strict=True):
            length, count = np.sum([phases.intercepts(pair.mask, i) for pair in pairs], axis=0)
            label = f"{label}: {phases.Intercepts(length, count).mean_px:.1f} px"
            ax.plot(np.mean([phases.two_point(pair.mask, i) for pair in pairs], axis=0), style, label=label)
        ax.set(title=name, xlabel="distance, px", ylim=(0, None))
        ax.legend(title="mean intercept")
    axes[0].set_ylabel("two-point correlation")


def label_budget(ax: Axes, curve: pd.DataFrame) -> None:
    """Draw the mean IoU over the number of real micrographs, an arm a line, with intervals over generators.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        To draw on.
    curve : pandas.DataFrame
        From `joint_report.budget_curve`.
    """
    for i, (arm, part) in enumerate(curve.groupby("arm", sort=False)):
        style, colour = MARKERS.get(arm, ("o-", f"C{i}"))
        at = part["micrographs"] * 1.03 ** (i - 1)  # side by side
        name = "real alone" if arm == "real" else f"with pairs, {arm}"
        plots.errorbar(ax, part, at, "miou_pooled", fmt=style, color=colour, label=name)
    ticks = sorted(set(curve["micrographs"]))
    ax.set_xscale("log", base=2)
    ax.set_xlim(ticks[0] / 1.4, ticks[-1] * 1.4)
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.minorticks_off()
    n = " or ".join(str(count) for count in sorted(set(curve["generators"])))
    ax.set(xlabel="labelled micrographs", ylabel=f"mean IoU, unseen spots\n(95 % over n = {n} generators)")
    ax.legend()
