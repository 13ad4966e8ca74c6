"""The source experiment: segmenters of one preparation, by what their encoders knew before and how tiles are changed.

Goetz et al. 2022 (npj Comput. Mater. 8, 27), Tables 2, 3, 4 and 6: U-Nets trained on the labelled source alone and then
shown the other preparations, which nothing here adapts to. Learning rates are constant, as published, so that a run at
half its steps is the run of half as many epochs. The paper's DeepLabv2 (S.10) is what `micro_lib.training.adaptation`
trains without adapting.

DEVIATION: the U-Nets are those of `micro_lib.training.adaptation`, with a second output inside the decoder whose loss
counts a tenth; the paper's have one output. All arms have it, so that "ImageNet, extended" is that study's start.
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import pandas as pd
from torch import nn

from micro_lib.core.checks import one_of
from micro_lib.core.profiles import settings
from micro_lib.core.runs import write_table
from micro_lib.core.seeds import stream_seed
from micro_lib.data.framing import Framing, scaled
from micro_lib.data.in_domain import TASKS
from micro_lib.data.shifts import bainite
from micro_lib.data.tiles import Cut
from micro_lib.synthesis.bainite import LATH_BAINITE
from micro_lib.training import adaptation
from micro_lib.training.adaptation_loop import CHECKPOINT, ENCODER_RATE, Draws, Recipe, adapt, troubles
from micro_lib.training.pretraining import pretrained
from micro_lib.training.shared import configured, run_folder

# What a configuration may say, and what it says by default. "" means as the profile has it.
DEFAULTS = {
    "pretraining": "ImageNet",  # of `PRETRAININGS`
    "task": "scenarios",  # of data.in_domain.TASKS: what is trained on in domain
    "augmentation": "extended",  # of `AUGMENTATIONS`
    "schedule": "",  # of `SCHEDULES`
    "architecture": "",  # of adaptation.SMP_NETWORKS
}
# Name: what the encoder starts from, and whether it is then trained in domain.
PRETRAININGS = {
    "random": ("random", False),
    "ImageNet": ("imagenet", False),
    "two-stage": ("imagenet", True),  # the published NanoSEM
    "in-domain": ("random", True),
}
AUGMENTATIONS = ("none", "basic", "extended")  # of data.tiles.MODES
# "" for the steps of the profile; the published epochs, whatever that takes.
SCHEDULES = {"": 0, "200 epochs": 200}
TARGETS = ("T1", "T2", "T3")
FOLDS = 5
HALF = 2  # points of the curve: after half of the steps, and after all
CONFIGURATIONS = {
    ", ".join(filter(None, values)): dict(zip(("pretraining", "augmentation", "schedule"), values, strict=True))
    for values in product(PRETRAININGS, AUGMENTATIONS, SCHEDULES)
}
CONFIGURATIONS |= {
    f"{name} on parameters, extended": {"pretraining": name, "task": "parameters"}
    for name in ("two-stage", "in-domain")
}


def run(configuration: str | Mapping, seed: int, profile: str = "", out: str | Path = "") -> dict:
    """Train one segmenter on the source and score it on unseen micrographs of the source and of the targets.

    Leaves ``network.safetensors``, ``encoder.safetensors`` where it was pre-trained in domain, ``curve.csv`` (scores
    after half and all of the steps) and ``images.csv`` (pixel counts of every test micrograph after all of them) in
    `out`; a killed run goes on behind its last saved point.

    Parameters
    ----------
    configuration : str or mapping
        A name of `CONFIGURATIONS`, or values for some keys of `DEFAULTS`.
    seed : int
        1 or larger; of encoder, network and training; seed s takes fold (s - 1) mod `FOLDS`.
    profile : str
        As for `micro_lib.core.profiles.resolve`.
    out : str or pathlib.Path
        Folder of this run; ``""`` makes one from configuration, seed and profile.

    Returns
    -------
    dict
        Flat: the configuration in full; fold; trained_at (commit), device; n_source (tiles), steps, epochs (tiles shown
        over their number; DEVIATION: they are drawn by class, not each once, see `adaptation_loop`), train_seconds,
        ms_per_step; encoder_score (see `pretraining.judged`) and encoder_seconds, 0 without pre-training in domain;
        last_loss; trouble (what the curve shows to have gone wrong, "" for nothing); for source, T1, T2 and T3
        <domain>_miou (pooled over pixels), <domain>_miou_half (after half of the steps), <domain>_miou_per_image,
        <domain>_iou_<class>, and for targets <domain>_rdt (Goetz et al. 2022, eq. 2: <domain>_miou over source_miou,
        minus 1).

    Raises
    ------
    ValueError
        If a key or value of the configuration is unknown.
    WeightsUnavailable
        If the ImageNet weights cannot be had.
    DataUnavailable
        If the pictures of the task cannot be had.
    """
    setting = Setting(complete(configuration), seed, profile)
    folder = run_folder("source", setting.configuration, DEFAULTS, seed, profile, out)
    weights, facts = setting.weights(folder)
    network = setting.network(weights)
    tiles = setting.tiles()
    recipe = setting.recipe(len(tiles))
    counted = {}

    def watch(seen: nn.Module) -> dict[str, float]:
        counted["images"] = setting.score(seen)
        return mious(counted["images"])

    curve = adapt(network, Draws(tiles, [], [], recipe), recipe, folder=folder, watch=watch, device=setting.device)
    # Those of the last point are those of the network that is left; a run that goes on behind it has none.
    images = counted["images"] if counted else setting.score(network)
    write_table(curve, folder / "curve.csv")
    write_table(images, folder / "images.csv")
    setting.save(network, folder / adaptation.NETWORK)
    row = {**setting.described(), **facts, **_costs(curve, recipe, len(tiles)), "trouble": troubles(curve)}
    row |= _scores(images, curve)
    (folder / CHECKPOINT).unlink(missing_ok=True)  # not before all is written
    return row


def complete(configuration: str | Mapping) -> dict:
    """Return a configuration with every key of `DEFAULTS`; see `run`."""
    full = configured(configuration, CONFIGURATIONS, DEFAULTS)
    known = {"pretraining": PRETRAININGS, "task": TASKS, "augmentation": AUGMENTATIONS, "schedule": SCHEDULES}
    for name, values in (known | {"architecture": ("", *adaptation.SMP_NETWORKS)}).items():
        one_of(name, full[name], values)
    if full["task"] != DEFAULTS["task"] and not PRETRAININGS[full["pretraining"]][1]:
        raise ValueError(f"task is {full['task']!r}, but pretraining {full['pretraining']!r} has none: leave it out")
    return full


class Setting(adaptation.Segmentation):
    """One run, resolved: its configuration, the settings of its profile, its micrographs.

    Parameters
    ----------
    configuration : mapping
        Complete, see `complete`.
    seed, profile
        As for `run`.
    """

    def __init__(self, configuration: Mapping, seed: int, profile: str = ""):
        super().__init__(configuration, settings("source", profile), seed)
        self.fold, self.classes = (seed - 1) % FOLDS, LATH_BAINITE.classes
        self.framing = Framing(0.5, *self.plan["tile"])
        self.source = bainite("source", "train", self.fold + 1, self.plan)
        tested = {**self.plan, "n_images": self.plan["n_test"]}
        self.tests = {name: bainite(name, "test", 0, tested) for name in TARGETS}
        self.tests = {"source": bainite("source", "test", self.fold + 1, tested), **self.tests}

    def weights(self, folder: str | Path) -> tuple[str, dict]:
        """Return what the encoder starts from, for `unet.build`, and how well it did before."""
        start, in_domain = PRETRAININGS[self.configuration["pretraining"]]
        if not in_domain:
            return start, {"encoder_score": 0.0, "encoder_seconds": 0.0}
        path, card = pretrained(
            folder,
            architecture=self.architecture,
            weights=start,
            task=self.configuration["task"],
            plan=self.plan["pretraining"],
            seed=self.seed,
            device=self.device,
        )
        return str(path), {"encoder_score": card["score"], "encoder_seconds": card["seconds"]}

    def recipe(self, n_tiles: int) -> Recipe:
        """Return how the segmenter is trained."""
        plan, start = self.plan, PRETRAININGS[self.configuration["pretraining"]]
        epochs = SCHEDULES[self.configuration["schedule"]]
        return Recipe(
            "none",
            len(self.classes),
            round(epochs * n_tiles / plan["batch"]) or plan["steps"],
            plan["batch"],
            self.framing,
            plan["learning_rate"],
            stream_seed(self.seed, "source"),
            optimizer=plan["optimizer"],
            loss=plan["loss"],
            points=HALF,
            augmentation=self.configuration["augmentation"],
            # A tenth is for encoders that know something; a random one has to learn as fast as the decoder.
            encoder_rate=1.0 if start == ("random", False) else ENCODER_RATE,
            power=0.0,
        )

    def tiles(self) -> list[Cut]:
        """Return the published grid of tiles, at working scale."""
        augmentation = self.configuration["augmentation"]
        samples = [scaled(record, self.framing.scale) for record in self.source]
        return [tile for sample in samples for tile in adaptation.cut(sample, self.framing, augmentation)]

    def score(self, network: nn.Module) -> pd.DataFrame:
        """Return pixel counts of the test micrographs of all domains, as `scored` does."""
        parts = [self.scored([network], split, records) for split, records in self.tests.items()]
        return pd.concat(parts, ignore_index=True)


def mious(images: pd.DataFrame) -> dict[str, float]:
    """Return the mean IoU over the pixels of every domain's test micrographs, from their counts."""
    return {f"{split}_miou": adaptation.pooled_miou(part) for split, part in images.groupby("split")}


def _costs(curve: pd.DataFrame, recipe: Recipe, n_tiles: int) -> dict:
    costs = adaptation.costs(curve)
    epochs = costs["steps"] * recipe.batch / n_tiles
    return {"n_source": n_tiles, "steps": costs["steps"], "epochs": epochs, **costs}


def _scores(images: pd.DataFrame, curve: pd.DataFrame) -> dict:
    classes, row = LATH_BAINITE.classes, {}
    for split in ("source", *TARGETS):
        row |= adaptation.domain_scores(images, split, classes)
        row |= {f"{split}_miou_half": float(curve[f"{split}_miou"].iloc[0])}
    return row | {f"{name}_rdt": row[f"{name}_miou"] / row["source_miou"] - 1 for name in TARGETS}
