"""How sampled pairs compare with the real micrographs that their generator has learned from."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from micro_lib.analysis import likeness, phases
from micro_lib.analysis.metrics import confusion, iou_per_class
from micro_lib.data import augment
from micro_lib.data.tiles import Labelled, histogram
from micro_lib.models.joint_generator import BATCH, JointGenerator, grey_levels
from micro_lib.models.segmenter import Segmenter, standardise
from micro_lib.training.generative import Scene, encoded

# Quantities of `phases.compare_sets` whose means, variances and distances become columns of a row.
QUANTITIES = ("fraction", "intercept", "diameter", "density", "fine texture", "grey spread", "two-point")
SETS = ("pairs", "unseen")  # what is compared with the micrographs that a generator has learned from


def judged(
    pairs: Sequence[Labelled],
    unseen: Sequence[Labelled],
    micrographs: Sequence[Labelled],
    specimens: Sequence[str],
    n_classes: int,
    *,
    n_judged: int,
    rng: np.random.Generator,
) -> dict:
    """Compare sampled pairs with windows of the micrographs their generator was trained on, and unseen ones likewise.

    What an unseen specimen differs by is what pairs may.

    Parameters
    ----------
    pairs : sequence of Labelled
        Square, of one size.
    unseen, micrographs : sequence of Labelled
        That the generator has not seen, and all that it has.
    specimens : one name a micrograph that it has seen
    n_classes : int
        Of the masks.
    n_judged : int
        Pairs, and unseen windows, that are compared.
    rng : numpy.random.Generator
        Of folds and resamples.

    Returns
    -------
    dict
        For each of `SETS`: ``<set>_<quantity>[_<class id>]``, this set over the micrographs learned from, of the mean,
        with ``_variance`` behind it of the variance, and ``<set>_two-point_<class id>_distance``, the distance
        (`phases.compare_sets`); ``<set>_auc_<features>`` (`likeness.two_sample_test`, 0.5 if they cannot be told apart;
        with one specimen its windows count as such); ``<set>_compared``.
    """
    names, px = [str(i) for i in range(n_classes)], pairs[0].mask.shape[0]
    real, of = windows(micrographs, specimens, px)
    held = evenly(phases.cut([on_scale(micrograph) for micrograph in unseen], px), n_judged)
    found = {}
    for name, chosen in zip(SETS, (pairs[:n_judged], held), strict=True):
        compared = phases.compare_sets(real, chosen, names, rng=rng, specimens=of)
        found |= {f"{name}_compared": len(chosen), **_columns(compared, name)}
        for features in likeness.FEATURES:
            test = likeness.two_sample_test(real, chosen, names, features=features, rng=rng, specimens=of)
            found[f"{name}_auc_{features}"] = test.estimate
    return found


def evenly(found: Sequence, n: int) -> list:
    """Return n items, or all if there are fewer, that lie evenly over a sequence."""
    return [found[i] for i in np.unique(np.linspace(0, len(found) - 1, n).round().astype(int))]


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
        Of `likeness.copying`, and the same for the middle quarter of each, whose names begin with ``quarter_``.
    """
    px, training = pairs[0].mask.shape[0], [on_scale(micrograph) for micrograph in micrographs]
    sets = [pairs[:n]]
    for parts in (training, [on_scale(micrograph) for micrograph in unseen]):
        sets.append(generator.reconstruct(evenly(phases.cut(parts, px), n), rng))
    whole = likeness.copying(sets[0], training, unseen=sets[2], seen=sets[1])
    quarters = [[_quarter(pair) for pair in one] for one in sets]
    part = likeness.copying(quarters[0], training, unseen=quarters[2], seen=quarters[1])
    return whole | {f"quarter_{name}": value for name, value in part.items()}


def _quarter(pair: Labelled) -> Labelled:
    """Return the middle of a square pair, of half its side."""
    side = pair.mask.shape[0]
    inside = slice(side // 4, side // 4 + side // 2)
    return Labelled(*(part[inside, inside] for part in pair))


@torch.no_grad()
def code_nats(
    generator: JointGenerator, micrographs: Sequence[Labelled], unseen: Sequence[Labelled], *, n: int, seed: int
) -> dict[str, float]:
    """Tell how well a prior predicts codes of what it was trained on, and of what it has not seen.

    Both high: it has not learned yet; the second far above the first: it has learned its micrographs by heart.

    Parameters
    ----------
    generator : JointGenerator
        Any.
    micrographs, unseen : sequence of Labelled
        As for `copied`.
    n : int
        Crops of either.
    seed : int
        Of the crops.

    Returns
    -------
    dict
        ``nats_seen``, ``nats_unseen``: mean cross-entropy of a code given those before it.
    """
    found = {}
    for name, parts in (("seen", micrographs), ("unseen", unseen)):
        codes, fractions = encoded(generator, [Scene.of(micrograph) for micrograph in parts], n, seed)
        told = generator.condition(fractions)
        logits = [
            generator.prior.eval()(codes[i : i + BATCH], None if told is None else told[i : i + BATCH])
            for i in range(0, n, BATCH)
        ]
        found[f"nats_{name}"] = float(F.cross_entropy(torch.cat(logits).float(), codes))
    return found


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


def _columns(table: pd.DataFrame, name: str) -> dict:
    row = {}
    for line in table[table["quantity"].isin(QUANTITIES)].to_dict("records"):
        is_distance = line["statistic"] == "distance"
        if not is_distance or line["quantity"] == "two-point":
            parts = [name, line["quantity"].replace(" ", "_"), line["class"], line["statistic"].replace("mean", "")]
            row["_".join(filter(None, parts))] = float(line["generated" if is_distance else "ratio"])
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
