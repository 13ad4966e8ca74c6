"""The adaptation experiment: segmenters carried from one preparation to another, whose labels they never see.

Goetz et al. 2022 (npj Comput. Mater. 8, 27), with later methods beside theirs and the arms that use target labels: one
or two micrographs, and all of them as the ceiling.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from scipy.special import entr
from torch import nn

from micro_lib.analysis.metrics import as_columns, confusion, mean_iou, stacked, summary
from micro_lib.core.checks import number, one_of
from micro_lib.core.profiles import settings
from micro_lib.core.runs import commit, write_table
from micro_lib.core.seeds import stream, stream_seed
from micro_lib.data.framing import Framing, scaled, scaled_image
from micro_lib.data.records import Record
from micro_lib.data.shifts import GENERATED, SHIFTS, TRANSDUCTIVE, Shift, n_folds, shift
from micro_lib.data.tiles import Cut, Labelled, histogram
from micro_lib.models import carded, deeplab, unet
from micro_lib.models.devices import best_device, device_name
from micro_lib.models.segmenter import standardise
from micro_lib.training import checkpoints
from micro_lib.training.adaptation_loop import CHECKPOINT, Draws, Recipe, adapt, troubles
from micro_lib.training.adaptation_methods import METHODS, Design, Weights
from micro_lib.training.shared import Made, configured, made_once, records_digest, run_folder, shared_path

# What a configuration may say, and what it says by default. "" means as the profile has it.
DEFAULTS = {
    "shift": "T2",  # of data.shifts.SHIFTS
    "method": "none",  # of training.adaptation_methods.METHODS
    "labels": "none",  # of `LABELS`: of the target
    "alignment": "",  # of `ALIGNMENTS`: of the target's phase fractions with the source's
    "augmentation": "extended",  # of `AUGMENTATIONS`: of all tiles
    "architecture": "",  # of `ARCHITECTURES`
    "weights": "imagenet",
    "data": "auto",  # as for data.packs.pack
}
# Target micrographs whose labels are trained on, beside the source; "oracle" has those of all of them and no source.
LABELS = {"none": 0, "1": 1, "2": 2, "oracle": None}
# "pseudo": target tiles are discarded by what the source's model says of them; "true": by their masks, as the published
# expert-reviewed alignment, which USES TARGET INFORMATION.
ALIGNMENTS = ("", "pseudo", "true")
DISCARDED = 0.4  # largest share of the target tiles that alignment discards (so many tiles are few in the paper)
SMP_NETWORKS = ("lite0", "resnet18", "resnet34", "vgg16")
DEEPLABS = {"deeplabv2": deeplab.RATES, "deeplabv2 of two rates": deeplab.ANCESTOR_RATES}
ARCHITECTURES = (*SMP_NETWORKS, *DEEPLABS)
# The first is published as the best, and what arms have unless they say otherwise. Which one is best without adaptation
# depends on the target, whose labels nobody may ask: others stand beside it, so that it flatters no method.
AUGMENTATIONS = ("extended", "crop", "none")  # of data.tiles.MODES
_LESS = {"lightly augmented": "crop", "not augmented": "none"}
ARMS = {
    "no adaptation": {},
    **{method: {"method": method} for method in METHODS if method != "none"},
    "AdaptSegNet, aligned": {"method": "AdaptSegNet", "alignment": "pseudo"},
    "AdaptSegNet, aligned by truth": {"method": "AdaptSegNet", "alignment": "true"},
    "1 label": {"labels": "1"},
    "2 labels": {"labels": "2"},
    "oracle": {"labels": "oracle"},
}
ARMS |= {
    f"{arm}, {less}": {**ARMS[arm], "augmentation": mode}
    for arm in ("no adaptation", "AdaptSegNet", "self-training", "oracle")
    for less, mode in _LESS.items()
}
CONFIGURATIONS = {
    f"{arm}, {name}": {"shift": name, **changes}
    for name in SHIFTS
    for arm, changes in ARMS.items()
    if name not in TRANSDUCTIVE or not ({"labels", "alignment"} & set(changes))
}
NETWORK = "network.safetensors"
ZOOMING = ("crop", "extended")  # modes of data.tiles that look beyond a tile
PREDICTED_AT_ONCE = 8  # tiles


class Material(NamedTuple):
    """What a run trains on."""

    source: list[Labelled | Cut]
    labelled: list[Labelled | Cut]  # of the target
    target: list[Labelled | Cut]  # whose masks are not used


def run(configuration: str | Mapping, seed: int, profile: str = "", out: str | Path = "") -> dict:
    """Train or adapt one segmenter and score it on unseen micrographs of both domains.

    Leaves ``network.safetensors``, ``curve.csv`` (see `adaptation_loop.adapt`; its target scores decided nothing) and
    ``images.csv`` (pixel counts of every test micrograph) in `out`; a killed run goes on behind the last point of its
    curve, also where that was the last of all.

    Parameters
    ----------
    configuration : str or mapping
        A name of `CONFIGURATIONS`, or values for some keys of `DEFAULTS`.
    seed : int
        1 or larger; of network and training; seed s takes fold (s - 1) mod `n_folds`.
    profile : str
        As for `micro_lib.core.profiles.resolve`.
    out : str or pathlib.Path
        Folder of this run; ``""`` makes one from configuration, seed and profile.

    Returns
    -------
    dict
        Flat: the configuration in full; fold; trained_at (commit), device; n_source, n_labelled, n_target (micrographs,
        or tiles where the profile or an alignment cuts them); steps, train_seconds, ms_per_step; <domain>_miou (pooled
        over pixels), <domain>_miou_per_image, <domain>_iou_<class> (pooled) for the domains source and target, the
        source after adaptation; target_true_<class> and target_found_<class> (phase fractions of the test micrographs);
        reference_miou (source score of the model trained on the source alone) and rdt (Goetz et al. 2022, eq. 2:
        target_miou over reference_miou, minus 1); last_loss; trouble (what the curve shows to have gone wrong, "" for
        nothing); generated, transductive, uses_target_labels.

    Raises
    ------
    ValueError
        If a key or value of the configuration is unknown, or the shift has no target labels to train on.
    WeightsUnavailable
        If the ImageNet weights cannot be had.
    DataUnavailable
        If a pack of the shift cannot be had.
    """
    setting = Setting(complete(configuration), seed, profile)
    folder = run_folder("adaptation", setting.configuration, DEFAULTS, seed, profile, out)
    material = setting.material()
    network, curve = fit(setting, setting.configuration["method"], material, folder)
    images = pd.concat([setting.score([network], split) for split in ("source", "target")], ignore_index=True)
    write_table(curve, folder / "curve.csv")
    write_table(images, folder / "images.csv")
    setting.save(network, folder / NETWORK)
    if setting.is_plain:
        setting.reference(lambda: setting.made(network, curve, images))
    row = {
        **setting.described(),
        **setting.trained_on(material),
        **costs(curve),
        **_trouble(setting, curve),
        **_scores(setting, images),
    }
    (folder / CHECKPOINT).unlink(missing_ok=True)  # not before all is written: scoring takes minutes
    return row


def complete(configuration: str | Mapping) -> dict:
    """Return a configuration with every key of `DEFAULTS`; see `run`."""
    full = configured(configuration, CONFIGURATIONS, DEFAULTS)
    known = {"shift": SHIFTS, "method": METHODS, "labels": LABELS, "alignment": ALIGNMENTS}
    known |= {"augmentation": AUGMENTATIONS, "architecture": ("", *ARCHITECTURES)}
    for name, values in known.items():
        one_of(name, full[name], values)
    unet.check_weights(full["weights"])
    if full["shift"] in TRANSDUCTIVE and (full["labels"] != "none" or full["alignment"]):
        raise ValueError(f"{full['shift']!r} has no target micrographs but those tested: no labels, no alignment")
    if full["labels"] != "none" and full["method"] != "none":  # it would be told that labelled target tiles are source
        raise ValueError(f"target labels are trained on by method 'none' alone, not by {full['method']!r}")
    if full["alignment"] and full["method"] == "none":
        raise ValueError("alignment chooses unlabelled target tiles, which method 'none' does not look at")
    return full


class Segmentation:
    """What a run of this experiment and one of `micro_lib.training.source` have in common.

    A subclass sets `fold`, `classes` (names) and `framing`.

    Parameters
    ----------
    configuration, plan : mapping
        Complete, see `complete`; from the profile.
    seed : int
        As for `run`.
    """

    def __init__(self, configuration: Mapping, plan: Mapping, seed: int):
        number("seed", seed, 1, whole=True)
        self.configuration, self.plan, self.seed = configuration, dict(plan), seed
        self.architecture = configuration["architecture"] or plan["architecture"]
        self.device = best_device()

    def network(self, weights: str) -> nn.Module:
        """Return the segmenter before training; weights as for `build`."""
        torch.manual_seed(stream_seed(self.seed, "network"))
        return build(self.architecture, len(self.classes), weights)

    def predict(self, networks: Sequence[nn.Module], image: np.ndarray, scale: float) -> np.ndarray:
        """Return probabilities (H, W, C) of an image at `scale`; see `predict`."""
        framing = Framing(scale, self.framing.tile_px, self.framing.margin_px)
        return predict(networks, image, framing, self.device)

    def scored(self, networks: Sequence[nn.Module], split: str, records: Sequence[Record]) -> pd.DataFrame:
        """Return pixel counts of micrographs by the mean of networks' probabilities.

        Returns
        -------
        pandas.DataFrame
            One row an image: split, name, group, and confusion_<true>_<found>: pixels by class id.
        """
        rows = []
        for record in records:
            found = self.predict(networks, record.image, self.framing.scale).argmax(-1).astype(np.uint8)
            counts = as_columns(confusion(record.mask, found, len(self.classes)), "confusion")
            rows.append({"split": split, "name": record.name, "group": record.group, **counts})
        return pd.DataFrame(rows)

    def described(self) -> dict:
        """Return the columns of the row that say what the run is."""
        used = {"architecture": self.architecture, "trained_at": commit()[0], "device": device_name(self.device)}
        return {**self.configuration, **used, "fold": self.fold}

    def save(self, network: nn.Module, path: str | Path) -> None:
        """Write a network with what `load` and a prediction need."""
        size = {"tile_px": self.framing.tile_px, "margin_px": self.framing.margin_px, "scale": self.framing.scale}
        card = {**self.configuration, "architecture": self.architecture, "classes": self.classes, **size}
        carded.write(path, {**card, "seed": self.seed}, network.state_dict())


class Setting(Segmentation):
    """One run, resolved: its configuration, the settings of its profile, its shift and its fold.

    Parameters
    ----------
    configuration : mapping
        Complete, see `complete`.
    seed, profile
        As for `run`.
    """

    def __init__(self, configuration: Mapping, seed: int, profile: str = ""):
        super().__init__(configuration, settings("adaptation", profile), seed)
        self.fold = (seed - 1) % n_folds(configuration["shift"])
        self.shift: Shift = shift(configuration["shift"], self.fold, self.plan, configuration["data"], profile)
        self.classes = self.shift.classes
        self.framing = Framing(self.shift.scale, *self.plan["tile"])

    def recipe(self, method: str) -> Recipe:
        """Return how a segmenter is trained by a method."""
        plan = self.plan
        return Recipe(
            method,
            len(self.shift.classes),
            plan["source_steps"] if method == "none" else plan["steps"],
            plan["batch"],
            self.framing,
            plan["learning_rate"],
            stream_seed(self.seed, "adaptation"),
            optimizer=plan["optimizer"],
            loss=plan["loss"],
            weights=Weights(*plan["weights"]),
            design=Design(*plan["discriminator"]),
            points=plan["points"],
            augmentation=self.configuration["augmentation"],
        )

    def material(self) -> Material:
        """Return what the run trains on, at working scale; see `LABELS` and `ALIGNMENTS`."""
        count, method = LABELS[self.configuration["labels"]], self.configuration["method"]
        order = stream(self.seed, "labelled").permutation(len(self.shift.target))
        chosen = [self.shift.target[i] for i in order[:count]]
        if count and len(chosen) < count:
            raise ValueError(f"{count} labelled target micrographs wanted; the fold has {len(chosen)}")
        source = self.shift.source if count is not None else ()
        target = self.shift.target if method != "none" else ()
        material = Material(*(self.prepared(part) for part in (source, chosen, target)))
        return material._replace(target=self.aligned()) if self.configuration["alignment"] else material

    def prepared(self, records: Sequence[Record]) -> list[Labelled | Cut]:
        """Return records at working scale, cut into tiles where the profile says so."""
        samples = [scaled(record, self.framing.scale) for record in records]
        if self.plan["tiling"] == "random":  # windows anywhere
            return samples
        return [tile for sample in samples for tile in self.tiles(sample)]

    def tiles(self, sample: Labelled) -> list[Cut]:
        """Return the tiles of a micrograph at working scale; see `cut`."""
        return cut(sample, self.framing, self.configuration["augmentation"])

    def aligned(self) -> list[Cut]:
        """Return those tiles of the target micrographs whose mean phase fractions come close to the source's."""
        n_classes, tiles, shares = len(self.shift.classes), [], []
        reference = self.reference_network() if self.configuration["alignment"] == "pseudo" else None
        for record in self.shift.target:
            sample = scaled(record, self.framing.scale)
            mask = sample.mask if reference is None else self.predict([reference], sample.image, 1.0).argmax(-1)
            tiles += self.tiles(sample)
            shares += [fractions([part], n_classes) for part in self.framing.centre(self.framing.cut(mask))]
        wanted = fractions([record.mask for record in self.shift.source], n_classes)
        return [tiles[i] for i in alike(np.array(shares), wanted)]

    @property
    def is_plain(self) -> bool:
        """It trains on the source alone."""
        return self.configuration["method"] == "none" and self.configuration["labels"] == "none"

    def reference(self, make: Callable[[], Made] | None = None) -> Made:
        """Return the model trained on the source alone: its weights, and its score on the source's test part.

        It depends on the source's micrographs, the seed and the profile; all arms and targets of a source share it.
        Where there is none yet it comes from `make`, by default from training it.
        """
        key = self.reference_key()
        folder = shared_path("adaptation", key).with_suffix("")

        def trained() -> Made:
            material = Material(self.prepared(self.shift.source), [], [])
            network, curve = fit(self, "none", material, folder, ("source",))
            return self.made(network, curve, self.score([network], "source"))

        made = made_once("adaptation", key, make or trained)
        (folder / CHECKPOINT).unlink(missing_ok=True)
        return made

    def reference_key(self) -> dict:
        """Return all that decides the model trained on the source alone; weights count by their values."""
        plan = {name: value for name, value in self.plan.items() if name != "seeds"}
        parts = {"source": records_digest(self.shift.source), "source_test": records_digest(self.shift.source_test)}
        start = checkpoints.start_sha256(self.network(self.configuration["weights"]))
        used = {"device": device_name(self.device), "architecture": self.architecture, "start": start}
        parts |= {"scale": self.shift.scale, "classes": self.shift.classes, "seed": self.seed}
        return {**parts, "augmentation": self.configuration["augmentation"], **plan, **used}

    def made(self, network: nn.Module, curve: pd.DataFrame, images: pd.DataFrame) -> Made:
        """Return a network trained on the source alone as a reference."""
        miou = pooled_miou(images[images["split"] == "source"])
        return Made(network.state_dict(), {"source_miou": miou, "seconds": float(curve["seconds"].sum())})

    def reference_network(self) -> nn.Module:
        """Return the network of `reference`."""
        network = self.network("random")
        network.load_state_dict(self.reference().states)
        return network.to(self.device).eval()

    def score(self, networks: Sequence[nn.Module], split: str, n: int | None = None) -> pd.DataFrame:
        """Return pixel counts of the (first n) test micrographs of a domain, "source" or "target"; see `scored`."""
        records = self.shift.source_test if split == "source" else self.shift.target_test
        return self.scored(networks, split, records[:n])

    def watch(self, network: nn.Module, splits: Sequence[str]) -> dict[str, float]:
        """Measure a network for its curve: mean IoU on test micrographs, and on target images what it says of them."""
        n, n_classes = self.plan["watched"], len(self.classes)
        seen = {f"{split}_miou": pooled_miou(self.score([network], split, n)) for split in splits}
        if "target" not in splits:
            return seen
        found = [self.predict([network], r.image, self.framing.scale) for r in self.shift.target[:n]]
        shares = fractions([probability.argmax(-1) for probability in found], n_classes)
        doubt = [float(entr(probability).sum(-1).mean()) / math.log(n_classes) for probability in found]
        return {**seen, "target_largest": float(shares.max()), "target_entropy": float(np.mean(doubt))}

    def trained_on(self, material: Material) -> dict:
        """Return the columns of the row that say what it was trained on."""
        sizes = {f"n_{name}": len(part) for name, part in material._asdict().items()}
        facts = {"generated": self.shift.is_generated, "transductive": self.shift.is_transductive}
        known = self.configuration["labels"] != "none" or self.configuration["alignment"] == "true"
        return {**sizes, **facts, "uses_target_labels": known}


def build(architecture: str, n_classes: int, weights: str = "imagenet") -> nn.Module:
    """Return a segmenter of `ARCHITECTURES` with outputs on two levels; weights as for `unet.build`."""
    one_of("architecture", architecture, ARCHITECTURES)
    if architecture in DEEPLABS:
        return deeplab.build(n_classes, weights, rates=DEEPLABS[architecture])
    return unet.TwoLevels(unet.build(architecture, n_classes, weights))


def load(path: str | Path) -> tuple[nn.Module, dict]:
    """Return a network that a run left, in evaluation mode, and its card.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CardError
        If the file is something else, or damaged.
    """
    where_from = "a run of micro_lib.training.adaptation leaves one"
    with carded.opened(path, "an adapted network", where_from) as (card, tensors):
        network = build(card["architecture"], len(card["classes"]), "random")
        network.load_state_dict(tensors)
    return network.eval(), card


def fit(
    setting: Setting, method: str, material: Material, folder: Path, watched: Sequence[str] = ("source", "target")
) -> tuple[nn.Module, pd.DataFrame]:
    """Train a segmenter by a method; return it with its curve, measured on the domains that are `watched`."""
    network, recipe = setting.network(setting.configuration["weights"]), setting.recipe(method)
    draws = Draws(material.source, material.labelled, material.target, recipe)

    def watch(seen: nn.Module) -> dict[str, float]:
        return setting.watch(seen, watched)

    return network, adapt(network, draws, recipe, folder=folder, watch=watch, device=setting.device)


@torch.inference_mode()
def predict(networks: Sequence[nn.Module], image: np.ndarray, framing: Framing, device: str = "cpu") -> np.ndarray:
    """Return what networks say on average of a whole micrograph, stitched from the centres of overlapping tiles.

    Parameters
    ----------
    networks : sequence of torch.nn.Module
        In evaluation mode; one, or several for bagging.
    image : numpy.ndarray
        (H, W) uint8.
    framing : Framing
        Scale and tiles of the networks.
    device : str
        Where they are.

    Returns
    -------
    numpy.ndarray
        (H, W, C) float32, summing to 1 over the classes.
    """
    height, width = image.shape
    pixels = standardise(scaled_image(image, framing.scale))
    tiles = torch.from_numpy(framing.cut(pixels))[:, None]  # (N, 1, side, side)
    found = []
    for part in tiles.split(PREDICTED_AT_ONCE):
        part = part.to(device, memory_format=torch.channels_last)
        mean = sum(network(part).float().softmax(1) for network in networks) / len(networks)
        found.append(framing.centre(mean).permute(0, 2, 3, 1).cpu().numpy())
    probability = framing.stitch(np.concatenate(found), pixels.shape)
    if framing.scale == 1:
        return probability
    back = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
    return back / back.sum(-1, keepdims=True)


def cut(sample: Labelled, framing: Framing, augmentation: str) -> list[Cut]:
    """Return the tiles of a micrograph with their surroundings, twice as wide where the augmentation zooms or turns."""
    if augmentation in ZOOMING:  # it would enlarge all tiles if there were nothing to see beyond them
        framing = replace(framing, margin_px=framing.margin_px + framing.side_px // 2)
    levels = histogram([sample.image])
    return [Cut(*pair, levels) for pair in zip(framing.cut(sample.image), framing.cut(sample.mask), strict=True)]


def fractions(masks: Sequence[np.ndarray], n_classes: int) -> np.ndarray:
    """Return the share of each class in all pixels of some masks, (n_classes,) float64."""
    counts = sum(np.bincount(mask.ravel(), minlength=n_classes) for mask in masks)
    return counts / counts.sum()


def alike(shares: np.ndarray, wanted: np.ndarray) -> list[int]:
    """Return which tiles to keep so that their mean phase fractions come close to those wanted.

    The tile whose loss helps most is discarded, again and again while it helps, up to `DISCARDED` of all.

    Parameters
    ----------
    shares : numpy.ndarray
        (N, C) phase fractions of the tiles.
    wanted : numpy.ndarray
        (C,)
    """
    kept = list(range(len(shares)))
    while len(kept) > math.ceil(len(shares) * (1 - DISCARDED)):
        total = shares[kept].sum(0)
        before = np.abs(total / len(kept) - wanted).sum()
        after = np.abs((total - shares[kept]) / (len(kept) - 1) - wanted).sum(1)  # (len(kept),)
        if after.min() >= before:
            break
        kept.pop(int(after.argmin()))
    return kept


def pooled_miou(images: pd.DataFrame) -> float:
    """Return the mean IoU over all pixels of some rows of `Setting.score`."""
    return float(mean_iou(stacked(images, "confusion").sum(0)))


def domain_scores(images: pd.DataFrame, split: str, classes: Sequence[str]) -> dict:
    """Return the columns of a run's row that `Setting.score` gives for one domain."""
    found = summary(stacked(images[images["split"] == split], "confusion"), classes)
    row = {f"{split}_miou": found["miou_pooled"], f"{split}_miou_per_image": found["miou_per_image"]}
    return row | {f"{split}_iou_{name}": found[f"iou_pooled_{name}"] for name in classes}


def costs(curve: pd.DataFrame) -> dict:
    """Return the columns of a run's row that its curve gives."""
    seconds, steps = float(curve["seconds"].sum()), int(curve["step"].iloc[-1])
    row = {"steps": steps, "train_seconds": seconds, "ms_per_step": 1000 * seconds / steps}
    return {**row, "last_loss": float(curve["loss"].iloc[-1])}


def bagged(paths: Sequence[str | Path], configuration: str | Mapping, seed: int, profile: str = "") -> pd.DataFrame:
    """Score the mean of several runs' networks on the target's test micrographs (bagging, Goetz et al. 2022, 4.2).

    Parameters
    ----------
    paths : sequence of str or pathlib.Path
        Networks that runs of one shift and architecture left. Folds that test on micrographs other folds train on must
        not be bagged: the superalloy's spots and the coating's micrographs take turns.
    configuration, seed, profile
        Of one of the runs.

    Returns
    -------
    pandas.DataFrame
        As of `Setting.score`.

    Raises
    ------
    ValueError
        If the shift's targets take turns.
    """
    setting = Setting(complete(configuration), seed, profile)
    if setting.configuration["shift"] not in GENERATED:
        raise ValueError(f"the target's folds of {setting.configuration['shift']!r} take turns: no network saw no test")
    networks = [load(path)[0].to(setting.device) for path in paths]
    return setting.score(networks, "target")


def _scores(setting: Setting, images: pd.DataFrame) -> dict:
    classes, row = setting.classes, {}
    for split in ("source", "target"):
        row |= domain_scores(images, split, classes) | {f"n_{split}_test": int((images["split"] == split).sum())}
    stack = stacked(images[images["split"] == "target"], "confusion")
    pooled = stack.sum(0) / stack.sum()
    for said, axis in (("true", 1), ("found", 0)):
        row |= {f"target_{said}_{name}": float(s) for name, s in zip(classes, pooled.sum(axis), strict=True)}
    reference = row["source_miou"] if setting.is_plain else setting.reference().facts["source_miou"]
    return {**row, "reference_miou": reference, "rdt": row["target_miou"] / reference - 1}


def _trouble(setting: Setting, curve: pd.DataFrame) -> dict:
    source = fractions([record.mask for record in setting.shift.source], len(setting.classes))
    return {"trouble": troubles(curve, float(source.max()))}
