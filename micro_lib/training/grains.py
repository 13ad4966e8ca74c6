"""The grain experiment: a segmenter trained on synthetic micrographs alone, and its ceiling trained on real labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from micro_lib.analysis.metrics import mean_intercept_px, redraw, score_boundaries
from micro_lib.core.checks import number, one_of
from micro_lib.core.labels import GRAIN_BOUNDARY
from micro_lib.core.profiles import resolve, settings
from micro_lib.core.progress import progress
from micro_lib.core.runs import commit, read_table, write_table
from micro_lib.core.seeds import stream_seed
from micro_lib.data.packs import DATA, Pack, pack
from micro_lib.data.tiles import Labelled, Rendered, pool, reduced, to_uint8
from micro_lib.models import unet
from micro_lib.models.devices import best_device, device_name
from micro_lib.models.scaling import segment_micrograph
from micro_lib.models.segmenter import Card, Segmenter
from micro_lib.models.threshold import REFERENCE, Threshold, tune
from micro_lib.synthesis.distributions import Constant
from micro_lib.synthesis.grains import render
from micro_lib.synthesis.presets import PARAMETERS, preset
from micro_lib.synthesis.scenario import Space
from micro_lib.training.shared import configured, run_folder
from micro_lib.training.supervised import CHECKPOINT, LOSSES, Recipe, train

# What a configuration may say, and what it says by default. "" means as the profile has it.
DEFAULTS = {
    "labels": "synthetic",  # "synthetic", or "development": the ceiling, real labels of the 316L development groups
    "preset": "broad",  # as for synthesis.presets.preset
    "ablate": "",  # a feature of `FEATURES` switched off in the preset
    "architecture": "",  # of models.unet
    "weights": "imagenet",
    "loss": "",
    "data": "auto",  # as for data.packs.pack
    "score_test": False,  # the test groups and iron, once, at the end
}
# How wide boundaries are drawn is a convention: the 316L annotators' line, seen on the development part, and the two
# pixels, one either side, that the iron pack draws by its definition (`data.conversion`).
SPLITS = ("development", "test", "iron")
LINE_PX = {"development": 10, "test": 10, "iron": 2}
# Mean intercept that a micrograph is scaled by, where it is known: that of the development groups' masks. That of the
# iron is estimated by the segmenter itself.
GRAIN_PX = {"development": 75.0, "test": 75.0, "iron": None}
# Settings of the thresholding baseline tried on the development part.
THRESHOLDS = {"sigma_px": (1.0, 2.0, 3.0, 4.0), "closing_px": (0, 5, 9)}
# Features of the generator and the parameters that make them; switched off one by one to see what mattered.
FEATURES = {
    "sizes": ("size_spread", "fine_fraction", "fine_ratio"),
    "elongation": ("elongation",),
    "curved boundaries": ("bend",),
    "grey spread": ("grey_spread",),
    "texture": ("texture_amplitude", "roughness"),
    "stripes": ("stripe_depth",),
    "twins": ("twin_fraction",),
    "relief": ("relief",),
    "uneven grooves": ("groove_spread", "junction_widening", "groove_gap", "groove_ragged_px"),
    "debris": ("debris", "fragments", "pore_fraction"),
    "rims": ("rim_depth",),
    "pits and scratches": ("pits_per_1e4px", "fine_pits_per_1e4px", "scratches_per_1e4px"),
    "illumination": ("stain_depth", "gradient", "vignetting", "charging"),
    "blur": ("blur_sigma_px", "defocus"),
    "noise": ("shot_noise", "detector_noise", "scan_lines"),
    "drawn width": ("mask_width_px",),
}
CONFIGURATIONS = {
    "broad": {"preset": "broad"},
    "trampert": {"preset": "trampert"},
    "steel_316l": {"preset": "steel_316l"},
    "iron": {"preset": "iron"},
    "real labels": {"labels": "development"},
    **{f"broad without {feature}": {"preset": "broad", "ablate": feature} for feature in FEATURES},
}


class Data(NamedTuple):
    """What one run is trained and selected on."""

    training: list[Labelled]
    validation: list[Labelled]
    held_group: str  # group of real tiles that was held out for validation; "" for synthetic labels
    line_px: int  # how wide boundaries are drawn in the masks


def run(configuration: str | Mapping, seed: int, profile: str = "", out: str | Path = "") -> dict:
    """Train one segmenter and score it on real micrographs.

    Leaves ``model.safetensors``, ``history.csv`` (one row an epoch) and ``images.csv`` (the scores of every image) in
    `out`; a killed run goes on behind its last epoch, also where that was the last of all.

    Parameters
    ----------
    configuration : str or mapping
        A name of `CONFIGURATIONS`, or values for some keys of `DEFAULTS`.
    seed : int
        0 or larger; of the training micrographs, the network and the training.
    profile : str
        As for `micro_lib.core.profiles.resolve`.
    out : str or pathlib.Path
        Folder of this run; ``""`` makes one from configuration, seed and profile.

    Returns
    -------
    dict
        Flat: the configuration in full; trained_at (commit of the training), device; steps, images_seen, train_seconds,
        train_per_s, loader_per_s, waited; validation_miou (on synthetic micrographs, or on the group of real tiles held
        out); grain_px_low and grain_px_high (trained range); and for ``development`` and, where asked for, ``test`` and
        ``iron``: n_<split>, <split>_generated and the means of `score_boundaries` over images as <split>_<score>.

    Raises
    ------
    ValueError
        If a key or value of the configuration is unknown.
    DataUnavailable
        If the real micrographs cannot be had.
    """
    configuration = complete(configuration)
    number("seed", seed, 0, whole=True)
    plan = _plan(configuration, profile)
    named = {**configuration, "score_test": False}  # changes nothing of what is trained
    folder = run_folder("grains", named, DEFAULTS, seed, profile, out)
    real_packs(configuration, profile)  # what cannot be had is missed before the training
    fit(configuration, plan, seed, profile, folder)
    row = judge(folder, configuration["data"], score_test=configuration["score_test"])
    (folder / CHECKPOINT).unlink()  # 60 MB that only an unfinished run needs
    return row


def judge(folder: str | Path, data: str = "auto", *, score_test: bool = False) -> dict:
    """Score the segmenter that a run left in `folder`, and renew its ``images.csv`` and the scores on its card.

    Parameters
    ----------
    folder : str or pathlib.Path
        Holds ``model.safetensors``, whose card says what was trained, and ``history.csv``.
    data, score_test
        Of the configuration: the real micrographs that it is scored on.

    Returns
    -------
    dict
        As of `run`.
    """
    folder = Path(folder)
    segmenter = Segmenter.load(folder / "model.safetensors", device=best_device())
    card, history = segmenter.card, read_table(folder / "history.csv")
    trained, profile = {name: card.training[name] for name in DEFAULTS}, card.training["profile"]
    configuration = complete({**trained, "data": data, "score_test": score_test})
    images = score(segmenter, configuration, card.training["held_group"], profile)
    scores = means(images)
    segmenter.card = replace(card, scores={k: v for k, v in scores.items() if "intercept_px" not in k})
    write_table(images, folder / "images.csv")
    segmenter.save(folder / "model.safetensors")
    used = {"architecture": card.architecture, "loss": _plan(configuration, profile)["loss"]}
    used |= {"trained_at": card.training["commit"], "device": device_name(best_device())}
    return {**configuration, **used, **summary(history), **_range_columns(card), **scores}


def fit(configuration: Mapping, plan: Mapping, seed: int, profile: str, folder: Path) -> None:
    """Train a segmenter and leave it, with its history, in `folder`; arguments as for `run`, all resolved."""
    data = training_data(configuration, plan, seed, profile)
    torch.manual_seed(stream_seed(seed, "network"))
    network = unet.build(plan["architecture"], 2, configuration["weights"])
    recipe = Recipe(**{name: plan[name] for name in ("stages", "batch", "learning_rate", "loss")}, seed=seed)
    history = train(network, data.training, data.validation, recipe, folder=folder, device=best_device())
    described = {"profile": resolve(profile), "seed": seed, "n_images": plan["n_train"], "commit": commit()[0]}
    card = Card(
        plan["architecture"],
        GRAIN_BOUNDARY,
        trained_range_px(data.training, plan["working_scale"]),
        training={**configuration, **described, "held_group": data.held_group},
        working_scale=plan["working_scale"],
        line_px=data.line_px,
    )
    write_table(history, folder / "history.csv")
    Segmenter(network, card).save(folder / "model.safetensors")


def complete(configuration: str | Mapping) -> dict:
    """Return a configuration with every key of `DEFAULTS`; see `run`."""
    full = configured(configuration, CONFIGURATIONS, DEFAULTS)
    known = {"labels": ("synthetic", "development"), "ablate": ("", *FEATURES), "data": DATA}
    known |= {"architecture": ("", *unet.ARCHITECTURES), "loss": ("", *LOSSES)}
    for name, values in known.items():
        one_of(name, full[name], values)
    unet.check_weights(full["weights"])
    return full


def scenario(configuration: Mapping, image_px: int) -> Space:
    """Return the space of the training micrographs, `image_px` squared, an ablated feature switched off."""
    off = {name: PARAMETERS[name][1] for name in FEATURES.get(configuration["ablate"], ())}
    changes = {**off, "height_px": image_px, "width_px": image_px}
    return preset(configuration["preset"]).replace(**{name: Constant(value) for name, value in changes.items()})


def training_data(configuration: Mapping, plan: Mapping, seed: int, profile: str = "") -> Data:
    """Return the micrographs of a run: rendered from the scenario, or the real tiles of the development groups.

    The real ones are repeated to as many as there would be synthetic ones, so that both arms take the same number of
    steps; one group, another for every seed, is held out for validation.
    """
    if configuration["labels"] == "synthetic":
        n_train, n_validation = plan["n_train"], plan["n_validation"]
        table = scenario(configuration, plan["image_px"]).sample(n_train + n_validation, stream_seed(seed, "scenario"))
        micrographs = pool(Rendered(table, render), plan["working_scale"])
        drawn = table["mask_width_px"].where(table["mask_width_px"] > 0, table["boundary_width_px"])
        return Data(micrographs[:n_train], micrographs[n_train:], "", max(1, round(drawn.median())))
    records = real_pack("development", configuration["data"], profile).records
    groups = sorted({record.group for record in records})
    held, scale = groups[seed % len(groups)], plan["working_scale"]
    tiles = {
        part: [reduced(Labelled(to_uint8(r.image), r.mask), scale) for r in records if (r.group == held) == part]
        for part in (False, True)
    }
    repeated = [tiles[False][i % len(tiles[False])] for i in range(plan["n_train"])]
    return Data(repeated, tiles[True], held, LINE_PX["development"])


def trained_range_px(micrographs: Sequence[Labelled], working_scale: float) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % quantiles of the mean intercept over (at most 200 of) the training masks.

    In pixels before the micrographs were `reduced` to the working scale.
    """
    lengths = [mean_intercept_px(sample.mask) / working_scale for sample in micrographs[:200]]
    low, high = np.quantile(lengths, [0.025, 0.975])
    return float(low), float(high)


def summary(history: pd.DataFrame) -> dict:
    """Return what a training cost and reached, from its history."""
    best = history[history["best"]].iloc[0]
    waited = float((history["waited"] * history["seconds"]).sum() / history["seconds"].sum())
    return {**costs(history), "waited": waited, "validation_miou": float(best["valid_miou"])}


def costs(history: pd.DataFrame) -> dict:
    """Return what a training cost, from its history, which may be empty."""
    seconds, images = float(history["seconds"].sum()), int(history["images"].sum())
    rates = {"train_per_s": images / seconds if seconds else float("nan")}
    rates["loader_per_s"] = float(history["loader_per_s"].iloc[-1]) if len(history) else float("nan")
    return {"steps": int(history["steps"].sum()), "images_seen": images, "train_seconds": seconds, **rates}


def score(segmenter: Segmenter, configuration: Mapping, held_group: str = "", profile: str = "") -> pd.DataFrame:
    """Score a segmenter on the real micrographs a configuration allows it.

    Parameters
    ----------
    segmenter : Segmenter
        Segments each image as `micro_lib.models.scaling.segment_micrograph` does.
    configuration : mapping
        Complete, see `complete`.
    held_group : str
        Of a segmenter trained on the other development groups: the only one it is scored on.
    profile : str
        As for `micro_lib.core.profiles.resolve`; in smoke the micrographs are generated stand-ins.

    Returns
    -------
    pandas.DataFrame
        One row an image: split, name, group, generated and the values of `score_boundaries`.
    """

    def segment(image, split):
        return segment_micrograph(segmenter, image, GRAIN_PX[split], LINE_PX[split]).mask

    packs = real_packs(configuration, profile)
    if held_group:
        held_out = tuple(r for r in packs["development"].records if r.group == held_group)
        packs["development"] = replace(packs["development"], records=held_out)
    return pd.concat([score_pack(segment, split, source) for split, source in packs.items()], ignore_index=True)


def score_pack(segment: Callable[[np.ndarray, str], np.ndarray], split: str, source: Pack) -> pd.DataFrame:
    """Score any method on one part of the real micrographs.

    Parameters
    ----------
    segment : callable
        Maps an image (H, W) and the split to a mask (H, W), 1 on the boundary.
    split : str
        One of `SPLITS`.
    source : Pack
        From `real_pack`.

    Returns
    -------
    pandas.DataFrame
        As of `score`.
    """
    rows = []
    for record in progress(source.records, desc=f"scoring {split}", unit="image"):
        names = {"split": split, "name": record.name, "group": record.group, "generated": source.is_generated}
        rows.append(names | score_boundaries(record.mask, segment(record.image, split)))
    return pd.DataFrame(rows)


def score_baselines(configuration: Mapping, profile: str = "") -> tuple[pd.DataFrame, Threshold]:
    """Score what needs no training, on the same micrographs and by the same measure as a segmenter.

    Parameters
    ----------
    configuration : mapping
        Complete, see `complete`; decides which splits are scored.
    profile : str
        As for `micro_lib.core.profiles.resolve`.

    Returns
    -------
    pandas.DataFrame, Threshold
        As of `score` with a column arm: "everything is grain", "Otsu" (the untuned reference), "thresholding" (tuned on
        the development part), "thresholding, redrawn" (its skeleton drawn as wide as the truth), "thresholding, best
        intercept" (the setting whose mean intercept is closest there, whatever else it loses); and the tuned setting.
    """
    development = real_pack("development", configuration["data"], profile).records
    tuned, tried = tune([r.image for r in development], [r.mask for r in development], THRESHOLDS)
    best_intercept = tried["intercept_rel_err"].argmin()
    coarse = Threshold(**tried[[field.name for field in fields(Threshold)]].to_dict("records")[best_intercept])
    arms = {
        "everything is grain": lambda image, split: np.zeros(image.shape, np.uint8),
        "Otsu": lambda image, split: REFERENCE.segment(image),
        "thresholding": lambda image, split: tuned.segment(image),
        "thresholding, redrawn": lambda image, split: redraw(tuned.segment(image), LINE_PX[split]),
        "thresholding, best intercept": lambda image, split: coarse.segment(image),
    }
    packs = real_packs(configuration, profile)
    parts = [
        score_pack(segment, split, source).assign(arm=arm)
        for arm, segment in arms.items()
        for split, source in packs.items()
    ]
    return pd.concat(parts, ignore_index=True), tuned


def means(images: pd.DataFrame) -> dict:
    """Return n_<split>, <split>_generated and the mean of every score over the images of each split, flat."""
    row = {}
    for split, group in images.groupby("split", sort=False):
        row |= {f"n_{split}": len(group), f"{split}_generated": bool(group["generated"].any())}
        values = group.drop(columns=["split", "name", "group", "generated"]).mean()
        row |= {f"{split}_{name}": float(value) for name, value in values.items()}
    return row


def real_pack(split: str, data: str = "auto", profile: str = "") -> Pack:
    """Return the real micrographs of one of `SPLITS`; `data` and `profile` as for `micro_lib.data.packs.pack`."""
    name, part = ("pure_iron_serial", "test") if split == "iron" else ("ss316l_grains", split)
    return pack(name, data, part, profile=profile)


def real_packs(configuration: Mapping, profile: str = "") -> dict[str, Pack]:
    """Return the real micrographs that a complete configuration is scored on, by split."""
    splits = SPLITS if configuration["score_test"] else SPLITS[:1]
    return {split: real_pack(split, configuration["data"], profile) for split in splits}


def _plan(configuration: Mapping, profile: str) -> dict:
    """Settings of the profile, with the architecture and loss of the configuration where it names one."""
    chosen = {name: configuration[name] for name in ("architecture", "loss") if configuration[name]}
    return {**settings("grains", profile), **chosen}


def _range_columns(card: Card) -> dict:
    return {"grain_px_low": card.grain_px[0], "grain_px_high": card.grain_px[1]}
