"""Adaptive sampling: a segmenter's failures choose its next training micrographs (Trampert et al. 2021, section 3.3).

A *base* is trained once a seed, until its validation IoU has stopped rising. Every arm goes on from there with the same
number of steps on the same schedule; they differ in the new micrographs that are mixed in, which a strategy of
`micro_lib.training.proposals` chooses. Training, validation and test micrographs are tables of one space; the test
table is used for scoring alone.

Base and campaigns lie below ``adaptive/`` of the build folder under names made from all that decides them, the code
among it, so arms, and later scorings of the same arm, share them, and whatever is killed goes on where it was.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from torch import nn
from torch.utils.data import DataLoader

from micro_lib.analysis.metrics import confusion, pixel_error, present_class_miou
from micro_lib.core import checks
from micro_lib.core.hashes import arrays_sha256
from micro_lib.core.labels import GRAIN_BOUNDARY
from micro_lib.core.profiles import Stage, settings
from micro_lib.core.progress import progress
from micro_lib.core.runs import atomic_path, build_dir, commit, read_json, read_table, write_json, write_table
from micro_lib.core.seeds import stream, stream_seed
from micro_lib.data.packs import DATA
from micro_lib.data.tiles import FixedTiles, Labelled, Rendered, pool
from micro_lib.models import unet
from micro_lib.models.devices import best_device, device_name, has_bfloat16
from micro_lib.models.segmenter import Card, Segmenter
from micro_lib.synthesis.grains import render
from micro_lib.synthesis.scenario import Space
from micro_lib.training import checkpoints, grains
from micro_lib.training.proposals import STRATEGIES, Strategy, strategy
from micro_lib.training.shared import code_hash, configured, run_folder
from micro_lib.training.supervised import CHECKPOINT, Recipe, train

# "grain color and boundary thickness" (section 3.3): grey level of the grains, how alike neighbours are, and the width.
GREY_AND_WIDTH = "grey_mean, grey_spread, boundary_width_px"
# What a configuration may say, and what it says by default.
DEFAULTS = {
    "strategy": "adaptive",  # of training.proposals
    "rounds": 1,  # the budget is spent in this many rounds, scored anew before each; 0 is the base as it is
    "parameters": GREY_AND_WIDTH,  # moved by "adaptive": names with commas between them; "" means all
    "interval": 0.1,  # half of it, as a fraction of each parameter's distribution
    "share": 0.0,  # worst share that is varied, the budget stays; 0 means as the profile has it
    "keep_seed": False,  # variations have the very grains of their original
    "preset": "broad",  # of synthesis.presets
    "data": "auto",  # real micrographs for scoring, as for data.packs.pack
    "score_test": False,  # the test groups and iron, once, at the end
}
_ADAPTIVE_ALONE = {"parameters": "", "interval": 0.0, "share": 0.0, "keep_seed": False}  # what other strategies say
_SCORING_ALONE = ("data", "score_test")  # do not change what is trained
CONFIGURATIONS = {
    "base": {"strategy": "none", "rounds": 0},
    "no new data": {"strategy": "none"},
    "random": {"strategy": "random"},
    "adaptive": {"strategy": "adaptive"},
    "adaptive, wide interval": {"strategy": "adaptive", "interval": 0.3},
    "adaptive, all parameters": {"strategy": "adaptive", "parameters": ""},
    "adaptive, same grains": {"strategy": "adaptive", "keep_seed": True},
    "adaptive, 3 rounds": {"strategy": "adaptive", "rounds": 3},
    "random, 3 rounds": {"strategy": "random", "rounds": 3},
    "sobol": {"strategy": "sobol"},
    "failure model": {"strategy": "failure model"},
}
# Settings of a profile that decide a base, and those that decide what is done with it.
_BASE = ("n_train", "n_validation", "n_watched", "n_test", "image_px", "working_scale", "stages", "cycle", "max_cycles")
_BASE += ("plateau", "batch", "learning_rate", "finetune_rate", "loss", "architecture")
_FINETUNING = ("share", "variations", "finetune", "finetune_images")
WORST = 0.1  # share of the test images behind `synthetic_worst_miou`
_SCORING_BATCH = 64


class Base(NamedTuple):
    """What all arms of a seed start from."""

    digest: str  # names it and all that decided it
    space: Space
    tables: Mapping[str, pd.DataFrame]  # training, validation, test: one row a micrograph
    micrographs: Mapping[str, list[Labelled]]  # the same at working scale
    network: Mapping[str, torch.Tensor]  # its weights
    history: pd.DataFrame  # one row an epoch; cycle 0 is the schedule of the profile
    scores: Mapping[str, pd.DataFrame]  # validation, test: as of `score_images`, with the seed of each row


class Campaign(NamedTuple):
    """What an arm ends with."""

    network: Mapping[str, torch.Tensor]
    history: pd.DataFrame  # one row an epoch, with its round; empty without rounds
    proposed: pd.DataFrame  # the new rows of all rounds, with their round
    propose_seconds: float  # all rounds together
    render_per_s: float  # NaN where nothing was rendered
    trained_at: str  # commit


def run(configuration: str | Mapping, seed: int, profile: str = "", out: str | Path = "") -> dict:
    """Fine-tune the base of a seed on what one strategy proposes, and score the result.

    Leaves ``history.csv`` (one row an epoch), ``proposed.csv`` (the new rows) and ``images.csv`` (the scores of every
    real image) in `out`.

    Parameters
    ----------
    configuration : str or mapping
        A name of `CONFIGURATIONS`, or values for some keys of `DEFAULTS`.
    seed : int
        0 or larger; of micrographs, network, training and proposals; the same in all arms, so that runs are paired.
    profile : str
        As for `micro_lib.core.profiles.resolve`.
    out : str or pathlib.Path
        Folder of this run; ``""`` makes one from configuration, seed and profile.

    Returns
    -------
    dict
        Flat: the configuration in full with its share and variations a round ("4 3 3"); n_new (rows proposed);
        trained_at (commit), device; steps, images_seen, train_seconds, train_per_s, loader_per_s; propose_seconds,
        render_per_s (micrographs); base_cycles, base_gain (of the last one, in validation mean IoU), base_plateau
        (whether it rose by less than the profile's plateau); base_miou and base_error, synthetic_miou, synthetic_error
        and synthetic_worst_miou (means over the synthetic test set, the last one over its worst tenth);
        validation_miou, validation_worst_miou (the same on the validation set, whose worst rows the arms that choose
        have learned variations of); and, as in `micro_lib.training.grains`,
        the scores on real micrographs.

    Raises
    ------
    ValueError
        If a key or value of the configuration is unknown, or budget or steps cannot be divided among its rounds.
    DataUnavailable
        If the real micrographs cannot be had.
    """
    configuration, plan = complete(configuration), settings("adaptive", profile)
    checks.number("seed", seed, 0, whole=True)
    variations = round_variations(configuration, plan)
    _strategy(configuration, scenario(configuration, plan["image_px"]), plan)
    folder = run_folder("adaptive", configuration, DEFAULTS, seed, profile, out)
    grains.real_packs(configuration, profile)  # what cannot be had is missed before the training
    start = base(configuration, plan, seed)
    result = campaign(start, configuration, plan, seed)
    write_table(result.history, folder / "history.csv")
    write_table(result.proposed, folder / "proposed.csv")
    images = grains.score(segmenter(start, result, configuration, plan, seed), configuration, profile=profile)
    write_table(images, folder / "images.csv")
    used = {"share": _share(configuration, plan), "device": device_name(best_device())}
    used |= {"variations": " ".join(map(str, variations))}
    costs = {"propose_seconds": result.propose_seconds, "render_per_s": result.render_per_s}
    return {
        **configuration,
        **(used if configuration["strategy"] == "adaptive" else {"variations": ""}),
        "n_new": len(result.proposed),
        "trained_at": result.trained_at,
        **grains.costs(result.history),
        **costs,
        **_base_columns(start, plan),
        **_synthetic_columns(start, result, plan),
        **grains.means(images),
    }


def complete(configuration: str | Mapping) -> dict:
    """Return a configuration with every key of `DEFAULTS`; see `run`."""
    given = CONFIGURATIONS.get(configuration, {}) if isinstance(configuration, str) else configuration
    full = configured(configuration, CONFIGURATIONS, DEFAULTS)
    checks.one_of("strategy", full["strategy"], STRATEGIES)
    checks.one_of("data", full["data"], DATA)
    checks.number("rounds", full["rounds"], 0, whole=True)
    for name in ("interval", "share"):
        checks.number(name, full[name], 0)
    if full["strategy"] != "adaptive":
        if foreign := sorted(set(given) & set(_ADAPTIVE_ALONE)):
            raise ValueError(f"{', '.join(foreign)}: only the strategy 'adaptive' has this, not {full['strategy']!r}")
        full |= _ADAPTIVE_ALONE
    if full["rounds"] == 0 and full["strategy"] != "none":
        raise ValueError("rounds is 0; that is the base as it is, which has the strategy 'none'")
    return full


def scenario(configuration: Mapping, image_px: int) -> Space:
    """Return the space that all micrographs of a complete configuration are drawn from, `image_px` squared."""
    return grains.scenario(grains.complete({"preset": configuration["preset"]}), image_px)


def round_variations(configuration: Mapping, plan: Mapping) -> list[int]:
    """Return how many new rows each round has for every row of the worst share; the budget is the same in all arms.

    Raises
    ------
    ValueError
        If the budget cannot be divided among the worst rows and the rounds, or the steps among the rounds.
    """
    rounds, worst = configuration["rounds"], _n_worst(_share(configuration, plan), plan)
    if rounds == 0:
        return []
    variations, rest = divmod(_budget(plan), worst)
    if rest or variations < rounds:
        raise ValueError(
            f"a budget of {_budget(plan)} rows cannot be divided into {rounds} round(s) with whole variations of each "
            f"of the worst {worst} rows; take fewer rounds or another share"
        )
    images, batch = plan["finetune_images"], plan["batch"]
    counts = [variations // rounds + (i < variations % rounds) for i in range(rounds)]
    if images % (rounds * batch) or images // rounds < max(counts) * worst:
        raise ValueError(
            f"{images} fine-tuning tiles in steps of {batch} cannot be divided evenly into {rounds} round(s) that hold "
            f"their {max(counts) * worst} new rows"
        )
    return counts


def _n_worst(share: float, plan: Mapping) -> int:
    return max(1, round(share * plan["n_validation"]))


def _budget(plan: Mapping) -> int:
    return _n_worst(plan["share"], plan) * plan["variations"]


def _share(configuration: Mapping, plan: Mapping) -> float:
    return configuration["share"] or plan["share"]


def _strategy(configuration: Mapping, space: Space, plan: Mapping) -> Strategy:
    names = tuple(name.strip() for name in configuration["parameters"].split(",") if name.strip()) or tuple(space)
    options = {"parameters": names, "interval": configuration["interval"], "share": _share(configuration, plan)}
    return strategy(configuration["strategy"], space, {**options, "keep_seed": configuration["keep_seed"]})


def _digest(decisive: Mapping) -> str:
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


# ---------------------------------------------------------------------------------------------------------------- base


def base(configuration: Mapping, plan: Mapping, seed: int) -> Base:
    """Return the base of a seed; trains it, or waits for another process that does, where it is not there yet.

    Parameters
    ----------
    configuration : mapping
        Complete; its preset counts.
    plan : mapping
        Settings of the profile.
    seed : int
        Of everything.

    Returns
    -------
    Base
        The same for all arms of a seed.
    """
    space = scenario(configuration, plan["image_px"])
    sizes = {"training": plan["n_train"], "validation": plan["n_validation"], "test": plan["n_test"]}
    tables = {part: space.sample(n, stream_seed(seed, "adaptive", part)) for part, n in sizes.items()}
    digest = _base_digest(configuration, plan, seed, tables)
    folder = build_dir() / "adaptive" / f"base-{seed}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        micrographs = _micrographs(tables, plan["working_scale"], folder)
        state = _trained_base(micrographs, plan, seed, folder)
        scores = _base_scores(state["network"], tables, micrographs, plan, folder)
    return Base(digest, space, tables, micrographs, state["network"], pd.DataFrame(state["history"]), scores)


def rising(history: pd.DataFrame) -> list[float]:
    """Return by how much each training cycle after the first raised the best validation mean IoU of those before."""
    best = history[history["best"]].groupby("cycle")["valid_miou"].max().to_numpy()
    return (best[1:] - np.maximum.accumulate(best)[:-1]).tolist()


def _base_digest(configuration: Mapping, plan: Mapping, seed: int, tables: Mapping[str, pd.DataFrame]) -> str:
    decisive = {"preset": configuration["preset"], "seed": seed, **{name: plan[name] for name in _BASE}}
    decisive |= {"code": code_hash(), "device": device_name(best_device())}
    # Three micrographs stand for the generator: what it draws today is what the base was trained on, or it is another.
    samples = [render(table.iloc[0].to_dict()) for table in tables.values()]
    return _digest({**decisive, "pixels": arrays_sha256(array for m in samples for array in (m.image, m.mask))})


def _micrographs(tables: Mapping[str, pd.DataFrame], scale: float, folder: Path) -> dict[str, list[Labelled]]:
    """Return the micrographs of a base, rendered once and kept, with their tables for people to read."""
    path = folder / "micrographs.npz"
    if not path.is_file():
        pools = {part: pool(Rendered(table, render), scale) for part, table in tables.items()}
        arrays = {f"{part}_{i}": np.stack(a) for part, p in pools.items() for i, a in enumerate(zip(*p, strict=True))}
        for part, table in tables.items():
            write_table(table, folder / f"{part}.csv")
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, **arrays)
    with np.load(path) as kept:
        pairs = {part: zip(kept[f"{part}_0"], kept[f"{part}_1"], strict=True) for part in tables}
        return {part: [Labelled(*pair) for pair in pairs[part]] for part in tables}


def _trained_base(micrographs: Mapping[str, Sequence[Labelled]], plan: Mapping, seed: int, folder: Path) -> dict:
    """Train the profile's schedule, then one cycle after the other until one raises the validation IoU no more."""
    path = folder / "base.pt"
    state = checkpoints.read(path, folder.name) or {"cycles": 0, "network": None, "best": -1.0, "history": []}
    data = micrographs["training"], micrographs["validation"][: plan["n_watched"]]
    while not _is_finished(state, plan):
        cycle = state["cycles"]
        network = _network(plan, seed, state["network"])
        stages, rate = (plan["stages"], plan["learning_rate"]) if cycle == 0 else ((plan["cycle"],), None)
        recipe = _recipe(plan, stages, stream_seed(seed, "adaptive", "cycle", cycle), rate)
        place = folder / f"cycle_{cycle}"
        history = train(network, *data, recipe, folder=place, device=best_device()).assign(cycle=cycle)
        reached = float(history.loc[history["best"], "valid_miou"].iloc[0])
        if reached > state["best"]:
            state |= {"best": reached, "network": network.state_dict()}
        state |= {"cycles": cycle + 1, "history": [*state["history"], *history.to_dict("records")]}
        checkpoints.write(path, state, folder.name)
        shutil.rmtree(folder / f"cycle_{cycle}")  # its checkpoint
    return state


def _is_finished(state: Mapping, plan: Mapping) -> bool:
    if state["cycles"] < 2:
        return False
    return state["cycles"] > plan["max_cycles"] or rising(pd.DataFrame(state["history"]))[-1] < plan["plateau"]


def _base_scores(weights, tables, micrographs, plan: Mapping, folder: Path) -> dict[str, pd.DataFrame]:
    for part in ("validation", "test"):
        if not (folder / f"{part}_scores.csv").is_file():
            network = _network(plan, 0, weights)
            write_table(_scored(network, tables[part], micrographs[part], plan), folder / f"{part}_scores.csv")
    paths = {part: folder / f"{part}_scores.csv" for part in ("validation", "test")}
    return {part: read_table(path) for part, path in paths.items()}


def _network(plan: Mapping, seed: int, weights: Mapping | None = None) -> nn.Module:
    """Return a network with these weights, or a new one with ImageNet's in its encoder."""
    torch.manual_seed(stream_seed(seed, "network"))
    network = unet.build(plan["architecture"], 2, "imagenet" if weights is None else "random")
    if weights is not None:
        network.load_state_dict(weights)
    return network


def _recipe(plan: Mapping, stages: Sequence[Stage], seed: int, rate: float | None = None) -> Recipe:
    rate = plan["finetune_rate"] if rate is None else rate
    return Recipe(stages=stages, batch=plan["batch"], learning_rate=rate, seed=seed, loss=plan["loss"])


# ------------------------------------------------------------------------------------------------------------ campaign


def campaign(start: Base, configuration: Mapping, plan: Mapping, seed: int) -> Campaign:
    """Fine-tune a base in rounds of scoring, proposing, rendering and training.

    Every round keeps its proposed rows and ends with its weights in the build folder; called again after a kill, the
    campaign goes on in the round it was in.

    Parameters
    ----------
    start : Base
        From `base`.
    configuration : mapping
        Complete, see `complete`.
    plan : mapping
        Settings of the profile.
    seed : int
        Of everything random; proposals and training draw the same numbers in every arm.

    Returns
    -------
    Campaign
        Without rounds, the base as it is.
    """
    decisive = {k: v for k, v in configuration.items() if k not in _SCORING_ALONE} | {k: plan[k] for k in _FINETUNING}
    folder = build_dir() / "adaptive" / f"campaign-{seed}-{_digest({**decisive, 'base': start.digest})}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        write_json(folder / "campaign.json", {**decisive, "base": start.digest, "seed": seed})
        return _campaign(start, configuration, plan, seed, folder)


def _campaign(start: Base, configuration: Mapping, plan: Mapping, seed: int, folder: Path) -> Campaign:
    chooser = _strategy(configuration, start.space, plan)
    unit = _n_worst(_share(configuration, plan), plan)
    weights, older, states, tables = start.network, list(start.micrographs["training"]), [], []
    for number, variations in enumerate(round_variations(configuration, plan), start=1):
        place, told = folder / f"round_{number}", f"{folder.name}, round {number}"
        rows, seconds = _proposed(start, chooser, weights, unit * variations, (seed, number), plan, place)
        state = checkpoints.read(place / "network.pt", told)
        if state is None or number < configuration["rounds"]:  # later rounds mix these micrographs in
            started = time.perf_counter()
            new = pool(Rendered(rows, render), plan["working_scale"])
            rate = len(new) / (time.perf_counter() - started) if new else float("nan")
        if state is None:
            state = _finetuned(start, weights, new, older, (seed, number), configuration["rounds"], plan, place)
            state |= {"render_per_s": rate, "propose_seconds": seconds, "commit": commit()[0]}
            checkpoints.write(place / "network.pt", state, told)
            (place / CHECKPOINT).unlink(missing_ok=True)
        older += new if number < configuration["rounds"] else []
        weights = state["network"]
        states.append(state)
        tables.append(rows.assign(round=number))
    return _ended(start, weights, states, tables)


def _proposed(start: Base, chooser: Strategy, weights, budget: int, key: tuple[int, int], plan: Mapping, place: Path):
    """Return the new rows of a round and how long choosing them took; both are kept."""
    path, number = place / "proposed.csv", key[1]
    if not path.is_file():
        table = start.tables["validation"]
        scores = start.scores["validation"]
        if number > 1:
            scores = _scored(_network(plan, 0, weights), table, start.micrographs["validation"], plan)
        write_table(scores, place / "scores.csv")
        started = time.perf_counter()
        rows = chooser.propose(table, scores, budget, stream(key[0], "adaptive", "proposal", number))
        write_json(place / "cost.json", {"propose_seconds": time.perf_counter() - started})
        write_table(rows, path)  # last: it says that the choice is made
    return read_rows(path, start.space), read_json(place / "cost.json")["propose_seconds"]


def read_rows(path: str | Path, space: Space) -> pd.DataFrame:
    """Read a table of a space from CSV, bit for bit as it was written and with its types."""
    types = space.sample(0, 0).dtypes.to_dict()
    return pd.read_csv(path, dtype=types, na_filter=False)


def _finetuned(start: Base, weights, new, older, key: tuple[int, int], rounds: int, plan: Mapping, place: Path) -> dict:
    """Train on new micrographs and so many older ones that every round of every arm takes the same steps.

    DEVIATION: the better epoch counts, by validation micrographs, of which arms that choose have seen variations; the
    paper names no such choice.
    """
    seed, number = key
    size = plan["finetune_images"] // rounds
    order = stream(seed, "adaptive", "older", number).permutation(len(older))
    mixed = [*new, *(older[i] for i in np.resize(order, size - len(new)))]
    network = _network(plan, 0, weights)
    recipe = _recipe(plan, (plan["finetune"],), stream_seed(seed, "adaptive", "round", number))
    watched = start.micrographs["validation"][: plan["n_watched"]]
    history = train(network, mixed, watched, recipe, folder=place, device=best_device())
    return {"network": network.state_dict(), "history": history.assign(round=number).to_dict("records")}


def _ended(start: Base, weights, states: Sequence[dict], tables: Sequence[pd.DataFrame]) -> Campaign:
    rows = [row for state in states for row in state["history"]]
    history = pd.DataFrame(rows or None, columns=None if rows else [*start.history.columns.drop("cycle"), "round"])
    proposed = pd.concat(tables or [start.space.sample(0, 0).assign(round=0)], ignore_index=True)
    seconds = sum(state["propose_seconds"] for state in states)
    rates = [state["render_per_s"] for state in states]
    rate = float(np.mean(rates)) if rates else float("nan")
    return Campaign(weights, history, proposed, seconds, rate, states[-1]["commit"] if states else commit()[0])


def segmenter(start: Base, result: Campaign, configuration: Mapping, plan: Mapping, seed: int) -> Segmenter:
    """Return the network of a campaign as a segmenter of real micrographs; all arms of a base scale them alike."""
    card = Card(
        plan["architecture"],
        GRAIN_BOUNDARY,
        grains.trained_range_px(start.micrographs["training"], plan["working_scale"]),
        training={**configuration, "seed": seed, "base": start.digest, "commit": result.trained_at},
        working_scale=plan["working_scale"],
        line_px=grains.LINE_PX["development"],
    )
    return Segmenter(_network(plan, 0, result.network), card, device=best_device())


# ------------------------------------------------------------------------------------------------------------- scoring


@torch.inference_mode()
def score_images(network: nn.Module, micrographs: Sequence[Labelled], stage: Stage) -> pd.DataFrame:
    """Score a network on every one of some labelled micrographs, in windows as it was trained on.

    Parameters
    ----------
    network : torch.nn.Module
        Maps (B, 1, H, W) to (B, 2, H, W) logits; the likelier class counts.
    micrographs : sequence of Labelled
        At working scale.
    stage : Stage
        Size and mode of the windows.

    Returns
    -------
    pandas.DataFrame
        One row a micrograph: miou, the mean IoU over the classes that its mask holds (0 to 1), and error, the share of
        wrong pixels.
    """
    network.eval()
    loader = DataLoader(FixedTiles(micrographs, stage.px, mode=stage.mode), batch_size=_SCORING_BATCH)
    matrices = []
    for images, masks in progress(loader, desc="scoring", unit="batch"):  # (B, 1, H, W), (B, H, W)
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16("cpu")):
            logits = network(images.to(memory_format=torch.channels_last))  # (B, 2, H, W)
        pairs = zip(masks.numpy(), logits.argmax(1).numpy(), strict=True)
        matrices += [confusion(mask.astype(np.uint8), found.astype(np.uint8), 2) for mask, found in pairs]
    matrices = np.stack(matrices)  # (N, 2, 2)
    return pd.DataFrame({"miou": present_class_miou(matrices), "error": pixel_error(matrices)})


def _scored(network: nn.Module, table: pd.DataFrame, micrographs: Sequence[Labelled], plan: Mapping) -> pd.DataFrame:
    scores = score_images(network, micrographs, plan["finetune"])
    scores.insert(0, "seed", table["seed"].to_numpy())
    return scores


def _synthetic_columns(start: Base, result: Campaign, plan: Mapping) -> dict:
    row = start.scores["test"][["miou", "error"]].mean().add_prefix("base_").to_dict()
    network = _network(plan, 0, result.network)
    scores = score_images(network, start.micrographs["test"], plan["finetune"])
    row |= scores.mean().add_prefix("synthetic_").to_dict() | {"synthetic_worst_miou": _worst(scores)}
    scores = score_images(network, start.micrographs["validation"], plan["finetune"])
    return row | {"validation_miou": float(scores["miou"].mean()), "validation_worst_miou": _worst(scores)}


def _worst(scores: pd.DataFrame) -> float:
    return float(scores["miou"].nsmallest(max(1, round(WORST * len(scores)))).mean())


def _base_columns(start: Base, plan: Mapping) -> dict:
    gain = rising(start.history)[-1]
    cycles = int(start.history["cycle"].max()) + 1
    return {"base": start.digest, "base_cycles": cycles, "base_gain": gain, "base_plateau": gain < plan["plateau"]}
