"""How sampled pairs compare with the real micrographs that their generator has learned from."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from micro_lib.analysis import likeness, phases
from micro_lib.analysis.metrics import confusion, iou_per_class
from micro_lib.data import augment
from micro_lib.data.tiles import Labelled, histogram
from micro_lib.models.joint_generator import BATCH, JointGenerator, grey_levels
from micro_lib.models.segmenter import Segmenter, standardise

# Quantities of `phases.compare_sets` whose means and variances become columns of a run.
QUANTITIES = ("fraction", "intercept", "diameter", "density", "fine texture", "grey spread")


def judged(
    pairs: Sequence[Labelled],
    micrographs: Sequence[Labelled],
    specimens: Sequence[str],
    n_classes: int,
    *,
    n_judged: int,
    rng: np.random.Generator,
) -> dict:
    """Compare sampled pairs with windows of the micrographs their generator was trained on.

    Parameters
    ----------
    pairs : sequence of Labelled
        Square, of one size.
    micrographs : sequence of Labelled
        All that the generator has seen.
    specimens : one name a micrograph
    n_classes : int
        Of the masks.
    n_judged : int
        Pairs that are compared.
    rng : numpy.random.Generator
        Of folds and resamples.

    Returns
    -------
    dict
        ``pairs_<quantity>[_<class id>]``: generated over real, of the mean, and with ``_variance`` behind it of the
        variance (`phases.compare_sets`); ``pairs_auc_mask``, ``pairs_auc_image``, ``pairs_auc_both``, each with _low
        and _high (`likeness.two_sample_test`, 0.5 if they cannot be told apart; with one specimen its windows count as
        such); ``pairs_compared``.
    """
    names, chosen = [str(i) for i in range(n_classes)], pairs[:n_judged]
    real, of = windows(micrographs, specimens, pairs[0].mask.shape[0])
    shared = {"rng": rng, "specimens": of}
    found = {"pairs_compared": len(chosen), **_ratios(phases.compare_sets(real, chosen, names, **shared))}
    for features in likeness.FEATURES:
        test = likeness.two_sample_test(real, chosen, names, features=features, **shared)
        found |= dict(zip([f"pairs_auc_{features}{end}" for end in ("", "_low", "_high")], test, strict=True))
    return found


def copied(
    generator: JointGenerator,
    pairs: Sequence[Labelled],
    micrographs: Sequence[Labelled],
    unseen: Sequence[Labelled],
    *,
    n: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Tell whether sampled pairs are copies of what their generator has learned from, see `likeness.copying`.

    Parameters
    ----------
    generator : JointGenerator
        Has drawn the pairs.
    pairs : sequence of Labelled
        Sampled, square.
    micrographs, unseen : sequence of Labelled
        Those that the generator was trained on, and others that it has not seen.
    n : int
        Pairs, and windows of either kind, that are looked for in the micrographs; windows lie evenly over all of them.
    rng : numpy.random.Generator
        Of the texture that a generator may add.

    Returns
    -------
    dict
        Of `likeness.copying`.
    """
    px, training = pairs[0].mask.shape[0], [on_scale(micrograph) for micrograph in micrographs]
    redrawn = []
    for parts in (training, [on_scale(micrograph) for micrograph in unseen]):
        found = phases.cut(parts, px)
        chosen = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, n).round().astype(int))]
        redrawn.append(generator.reconstruct(chosen, rng))
    return likeness.copying(pairs[:n], training, unseen=redrawn[1], seen=redrawn[0])


def kept_classes(generator: JointGenerator, micrographs: Sequence[Labelled], n_classes: int) -> dict[str, float]:
    """Tell how much of each class a generator's codes hold: a class that they lose is never sampled.

    Parameters
    ----------
    generator : JointGenerator
        Any.
    micrographs : sequence of Labelled
        Those that it was trained on.
    n_classes : int
        Of the masks.

    Returns
    -------
    dict
        ``kept_<class id>``: IoU of the masks with those that come back from their codes, over all windows of the side
        of the generator's crops; NaN of a class that is in neither.
    """
    found = phases.cut([on_scale(micrograph) for micrograph in micrographs], generator.card.px)
    matrix = np.zeros((n_classes, n_classes), np.int64)
    for start in range(0, len(found), BATCH):
        part = found[start : start + BATCH]
        again = generator.reconstruct(part, np.random.default_rng(0))  # texture does not act on masks
        matrix += sum(confusion(one.mask, other.mask, n_classes) for one, other in zip(part, again, strict=True))
    return {f"kept_{i}": float(iou) for i, iou in enumerate(iou_per_class(matrix))}


def windows(
    micrographs: Sequence[Labelled], specimens: Sequence[str], px: int
) -> tuple[list[Labelled], list[str] | None]:
    """Return the windows of micrographs, grey levels on the scale of sampled pairs, and the specimen of each.

    Where all are of one specimen, None for it: each window is then taken for one.
    """
    found = [phases.cut([on_scale(micrograph)], px) for micrograph in micrographs]
    of = [name for name, parts in zip(specimens, found, strict=True) for _ in parts]
    return [window for parts in found for window in parts], of if len(set(of)) > 1 else None


def on_scale(micrograph: Labelled) -> Labelled:
    """Return a micrograph with the grey levels that a generator would give it: those of its standardised values."""
    return micrograph._replace(image=grey_levels(standardise(micrograph.image)))


def _ratios(table: pd.DataFrame) -> dict:
    row = {}
    for line in table[table["quantity"].isin(QUANTITIES)].to_dict("records"):
        if line["statistic"] != "distance":
            parts = ["pairs", line["quantity"].replace(" ", "_"), line["class"]]
            row["_".join(filter(None, [*parts, line["statistic"].replace("mean", "")]))] = float(line["ratio"])
    return row


def agreement(pairs: Sequence[Labelled], segmenter: Segmenter) -> np.ndarray:
    """Return the confusion matrices (N, n, n) of masks of sampled pairs with what a segmenter sees in their images."""
    levels = histogram([pair.image for pair in pairs])
    n_classes = len(segmenter.card.class_map.classes)
    return likeness.consistency(pairs, lambda image: segment_cut(segmenter, image, levels), n_classes)


@torch.inference_mode()
def segment_cut(segmenter: Segmenter, image: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the class ids (H, W) of a sampled image, standardised as all that were sampled with it.

    Parameters
    ----------
    segmenter : Segmenter
        Its network is used as it is, without tiles.
    image : numpy.ndarray
        (H, W) uint8, sides multiples of 32.
    levels : numpy.ndarray
        (256,) grey levels of all sampled images, from `tiles.histogram`.
    """
    standard = augment.tone_table(torch.from_numpy(levels), None)[torch.from_numpy(image).long()]
    logits = segmenter.network(standard[None, None].to(segmenter.device))  # (1, C, H, W)
    return logits[0].argmax(0).to(torch.uint8).cpu().numpy()
