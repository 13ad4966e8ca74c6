"""Figures of the source experiment: pictures for pre-training, its course, scores of the grid."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from micro_lib.application import plots
from micro_lib.data.in_domain import Labels
from micro_lib.reports.source_report import PUBLISHED_NAMES, beside_published
from micro_lib.training.source import AUGMENTATIONS, PRETRAININGS

_TABLES = {"source": "Table 2", "T1": "Table 3", "T2": "Table 4"}


def pictures(labels: Labels, each: int = 2) -> Figure:
    """Draw the first pictures of every class, a column a class."""
    first = [np.flatnonzero(labels.targets[:, which])[:each] for which in range(len(labels.names))]
    shown = [(row, part[row], name) for row in range(each) for part, name in zip(first, labels.names, strict=True)]
    panels = [plots.Panel(labels.images[i], None, "" if row else name) for row, i, name in shown]
    return plots.sheet(panels, columns=len(labels.names), panel_inch=1.4)


def course(axes: Sequence[Axes], histories: dict[str, pd.DataFrame]) -> None:
    """Draw loss and score of pre-trainings over steps, one line each.

    Parameters
    ----------
    axes : two matplotlib.axes.Axes
        Loss on training (thin) and held-out pictures; share of held-out ones whose kind is found.
    histories : dict of str to pandas.DataFrame
        From `micro_lib.training.pretraining.train`, by name.
    """
    loss, score = axes
    for i, (name, table) in enumerate(histories.items()):
        steps, colour = table["steps"].cumsum(), f"C{i}"
        loss.plot(steps, table["loss"], linewidth=1, color=colour, label=f"{name}, trained on")
        loss.plot(steps, table["held_out_loss"], "o-", color=colour, label=f"{name}, held out")
        score.plot(steps, table["score"], "o-", color=colour)
    loss.set(xlabel="steps", ylabel="binary cross-entropy")
    score.set(xlabel="steps", ylabel="held-out pictures named right")
    loss.legend(fontsize=7, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))


def scores(axes: Sequence[Axes], table: pd.DataFrame) -> None:
    """Draw the mean IoU over pre-training, a colour an augmentation, with intervals; hollow: published, another scale.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        One a domain, titled with it.
    table : pandas.DataFrame
        From `source_report.scores` of the grid.
    """
    none = pd.DataFrame(columns=["arm", "shift", "fold", "architecture", "source_miou"])
    theirs = beside_published(none, none)
    for ax in axes:
        domain = ax.get_title()
        for i, augmentation in enumerate(AUGMENTATIONS):
            part = table[table["augmentation"] == augmentation]
            at = np.array([list(PRETRAININGS).index(name) for name in part["pretraining"]]) + 0.22 * (i - 1)
            plots.errorbar(ax, part, at, domain, color=f"C{i}", label=augmentation)
            for at_theirs, name in enumerate(PUBLISHED_NAMES):
                cells = theirs[(theirs["arm"] == f"{name}, {augmentation}") & (theirs["where"] == _TABLES.get(domain))]
                values = cells.loc[cells["quantity"] == "mIoU", "value"] / 100
                ax.plot([at_theirs + 0.22 * (i - 1)] * len(values), values, "s", markerfacecolor="none", color=f"C{i}")
        ax.set_xticks(range(len(PRETRAININGS)), PRETRAININGS)
        ax.tick_params(axis="x", rotation=30)
    axes[0].set_ylabel("mean IoU")
    axes[0].plot([], [], "s", markerfacecolor="none", color="0.4", label="published")
    axes[0].legend(title="augmentation", fontsize=7)
