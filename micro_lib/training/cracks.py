"""The crack experiment: tiles classified by networks trained on synthetic tiles, on real ones, and on both in turn."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from fastai.callback.schedule import fit_one_cycle, lr_find  # noqa: F401  importing adds both to Learner
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from micro_lib.analysis.matching import matched_pairs
from micro_lib.core.checks import number, one_of
from micro_lib.core.profiles import settings
from micro_lib.core.progress import progress
from micro_lib.core.runs import commit, out_dir, write_table
from micro_lib.core.seeds import stream, stream_seed
from micro_lib.data.classified import Batches, Classified, classified
from micro_lib.data.packs import DATA, Pack, pack
from micro_lib.data.records import Record
from micro_lib.models import classifier, unet
from micro_lib.models.classifier import crack_probability
from micro_lib.models.devices import best_device, device_name
from micro_lib.synthesis import cracks as synthetic
from micro_lib.training.shared import Made, configured, made_once, records_digest, run_folder
from micro_lib.training.supervised import (
    ADAMW,
    ONE_CYCLE,
    BFloat16,
    Unvalidated,
    go_on,
    quiet,
    unvalidated_loaders,
)

# What a configuration may say, and what it says by default. "" means as the profile has it.
DEFAULTS = {
    "arm": "mixed",  # of `ARMS`
    "generator": "paper",  # of synthesis.cracks.GENERATORS; "" for the arms on real tiles alone
    "n_real": 0,  # real tiles that are trained on; 0 for all of the training specimens
    "split": "specimen",  # "specimen", or "tile": the warning example, tiles of one specimen in training and test
    "architecture": "",  # of models.classifier
    "weights": "imagenet",
    "data": "auto",  # as for data.packs.pack
}
# "real long" takes as many steps as "mixed" does in both of its phases.
ARMS = ("synthetic", "real", "mixed", "real long")
SPLITS = ("specimen", "tile")
BUDGETS = (8, 16, 32, 64, 128)
CONFIGURATIONS = {
    "synthetic": {"arm": "synthetic"},
    "real": {"arm": "real"},
    "mixed": {"arm": "mixed"},
    "real long": {"arm": "real long"},
    "synthetic covering": {"arm": "synthetic", "generator": "covering"},
    "mixed covering": {"arm": "mixed", "generator": "covering"},
    "real by tile": {"arm": "real", "split": "tile"},
    **{f"real long {n}": {"arm": "real long", "n_real": n} for n in BUDGETS},
    **{f"mixed {n}": {"arm": "mixed", "n_real": n} for n in BUDGETS},
    **{f"mixed covering {n}": {"arm": "mixed", "generator": "covering", "n_real": n} for n in BUDGETS},
}
# The specimens take turns as test data, about a quarter of the tiles a fold; those of the last two folds are small.
FOLDS = (
    ("040617#3",),
    ("050317#3",),
    ("070516#1", "032919#10", "040617#2"),
    ("010417#4", "S879", "032919#6"),
)
# Their tiles were looked at when generator and classifier were made; results are also given without them.
LOOKED_AT = ("070516#1", "032919#10")
SHARES = (357 / 510, 89 / 510, 64 / 510)  # training, validation, test of Trampert et al. 2021, for the split by tile
CALIPER = 0.05  # largest difference in oxide fraction of two matched tiles
# Rates the range test may propose: its valley is noisy, and lower ones left pre-training unfinished (error on synthetic
# validation tiles 0.12 to 0.27 below 2e-3, 0.05 to 0.14 above; looked at on validation specimens of three seeds).
RATES = (2e-3, 5e-3)
FIND = {"start_lr": 1e-5, "end_lr": 1.0, "show_plot": False}


class Roles(NamedTuple):
    """Real tiles of one run by what they are used for."""

    training: tuple[Record, ...]
    validation: tuple[Record, ...]
    test: tuple[Record, ...]


class Stage(NamedTuple):
    """One stage of a training, in steps; that of `micro_lib.core.profiles` counts epochs."""

    steps: int
    frozen: bool  # the body keeps its weights, but for batch normalisation


def run(configuration: str | Mapping, seed: int, profile: str = "", out: str | Path = "") -> dict:
    """Train one classifier and score it on real tiles.

    Leaves ``tiles.csv`` (the probability of a crack of every real tile) and ``images.csv`` (counts of every specimen in
    every role) in `out`. What several arms share, pre-training above all, is made once, see `shared.made_once`.

    DEVIATION: an arm of `n_real` labels trains on so many tiles, but what it starts from knows more of the fold: its
    learning rate is found on all of the fold's training tiles (`real_rate`, between the ends of `RATES`), and the
    generator of its pre-training has measured their masks (`generator`).

    Parameters
    ----------
    configuration : str or mapping
        A name of `CONFIGURATIONS`, or values for some keys of `DEFAULTS`.
    seed : int
        1 or larger; of the synthetic tiles, the network and the training; decides the fold, see `roles`.
    profile : str
        As for `micro_lib.core.profiles.resolve`.
    out : str or pathlib.Path
        Folder of this run; ``""`` makes one from configuration, seed and profile.

    Returns
    -------
    dict
        Flat: the configuration in full; fold, test_specimens, validation_specimens; trained_at (commit), device;
        n_training (real tiles trained on); steps, images_seen (both phases together), train_seconds and ms_per_step (of
        the phase on real tiles), learning_rate (of it; of the pre-training for "synthetic"), training_loss;
        pretrain_steps, pretrain_seconds, generator_seconds, synthetic_validation_error (missing without pre-training);
        validation_error and test_error (held specimens), test_error_matched (test tiles paired by oxide fraction),
        all_error (on all real tiles: these CONTAIN THE TRAINING TILES, as the paper's second column does), missed and
        false_alarms (shares of the test tiles with and without a crack), n_validation, n_test, n_test_matched, n_all;
        generated (real tiles are stand-ins).

    Raises
    ------
    ValueError
        If a key or value of the configuration is unknown, or there are fewer training tiles than `n_real`.
    WeightsUnavailable
        If the ImageNet weights cannot be had.
    """
    configuration = complete(configuration)
    source = real_tiles(configuration["data"], profile)
    setting = Setting(configuration, _plan(configuration, profile), seed, source)
    folder = run_folder("cracks", configuration, DEFAULTS, seed, profile, out)
    network, costs = fit(setting)
    tiles = score(network, setting.roles)
    write_table(tiles, folder / "tiles.csv")
    write_table(by_specimen(tiles), folder / "images.csv")
    used = {
        "architecture": setting.plan["architecture"],
        "trained_at": commit()[0],
        "device": device_name(setting.device),
    }
    return {**configuration, **used, **_described(setting), **costs, **summary(tiles), "generated": source.is_generated}


def complete(configuration: str | Mapping) -> dict:
    """Return a configuration with every key of `DEFAULTS`; see `run`."""
    full = configured(configuration, CONFIGURATIONS, DEFAULTS)
    known = {"arm": ARMS, "split": SPLITS, "generator": (*synthetic.GENERATORS, ""), "data": DATA}
    for name, values in (known | {"architecture": ("", *classifier.ARCHITECTURES)}).items():
        one_of(name, full[name], values)
    one_of("weights", full["weights"], unet.NAMED_WEIGHTS)
    number("n_real", full["n_real"], 0, whole=True)
    if full["n_real"] % 2:
        raise ValueError(f"n_real is {full['n_real']}; half of the tiles show a crack: an even number, or 0 for all")
    if full["arm"] in ("real", "real long"):
        full["generator"] = ""
    return full


class Setting:
    """One run, resolved: configuration, settings of the profile, seed and real tiles.

    Parameters
    ----------
    configuration, plan : mapping
        Complete, see `complete`; from the profile.
    seed : int
        As for `run`.
    source : Pack
        Real tiles or their stand-ins.
    """

    def __init__(self, configuration: Mapping, plan: Mapping, seed: int, source: Pack):
        number("seed", seed, 1, whole=True)
        self.configuration, self.plan, self.seed, self.source = configuration, plan, seed, source
        self.fold = (seed - 1) % len(FOLDS)
        self.roles = roles(source.records, seed, configuration["split"])
        self.device = best_device()

    def first(self) -> "Setting":
        """Return the first run of this fold and arm, with all tiles: the one that learning rates are looked for in."""
        return Setting({**self.configuration, "n_real": 0}, self.plan, self.fold + 1, self.source)

    def key(self, *names: str) -> dict:
        """Return all that decides something shared: the settings, the training tiles, and what it is called."""
        chosen = {name: self.configuration[name] for name in ("generator", "split", "weights", "data")}
        plan = {name: value for name, value in self.plan.items() if name != "seeds"}
        tiles = records_digest(self.roles.training)
        return {"names": names, "seed": self.seed, "device": device_name(self.device), "tiles": tiles, **plan, **chosen}


# Who is trained on, and who is tested


def real_tiles(data: str = "auto", profile: str = "") -> Pack:
    """Return the pack of crack tiles; arguments as for `micro_lib.data.packs.pack`."""
    return pack("ebc_crack_tiles", data, profile=profile)


def folds(specimens: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return the specimens of each of the four folds: `FOLDS`, or for others (stand-ins) dealt out in order."""
    names = sorted(set(specimens))
    if set(names) == set().union(*FOLDS):
        return FOLDS
    if len(names) < 5:
        raise ValueError(f"a test fold, a validation and a training specimen need 5 specimens or more; found {names}")
    return tuple(tuple(names[fold :: len(FOLDS)]) for fold in range(len(FOLDS)))


def roles(records: Sequence[Record], seed: int, split: str = "specimen") -> Roles:
    """Return which tiles a run trains on, validates on and is tested on.

    Parameters
    ----------
    records : sequence of Record
        All tiles; `group` is the specimen.
    seed : int
        Seed s tests on fold (s - 1) mod 4. Of the small specimens, those of the last two folds, two that are not tested
        on serve for validation, another pair for the next seed of the same fold. The rest trains.
    split : str
        ``"specimen"``, or ``"tile"``: a random part of each class in the paper's proportions, drawn anew for every
        seed, whatever specimen the tiles come from.

    Returns
    -------
    Roles
        Disjoint; all tiles together.
    """
    if split == "tile":
        return _by_tile(records, seed)
    parts = folds(record.group for record in records)
    fold, turn = (seed - 1) % len(parts), (seed - 1) // len(parts)
    small = [name for i in (2, 3) if i != fold for name in parts[i]]
    pairs = list(combinations(small, min(2, len(small))))
    order = stream(fold, "validation specimens").permutation(len(pairs))
    held = pairs[order[turn % len(pairs)]]
    test = tuple(record for record in records if record.group in parts[fold])
    validation = tuple(record for record in records if record.group in held)
    return Roles(tuple(r for r in records if r.group not in (*parts[fold], *held)), validation, test)


def _by_tile(records: Sequence[Record], seed: int) -> Roles:
    parts: list[list[Record]] = [[], [], []]
    for label in (False, True):
        chosen = [record for record in records if record.mask.any() == label]
        order = stream(seed, "split by tile", int(label)).permutation(len(chosen))
        ends = np.round(np.cumsum(SHARES) * len(chosen)).astype(int)
        for part, numbers in zip(parts, np.split(order, ends[:-1]), strict=True):
            part += [chosen[i] for i in numbers]
    return Roles(*(tuple(sorted(part, key=lambda record: record.name)) for part in parts))


def budget(records: Sequence[Record], n: int, seed: int) -> tuple[Record, ...]:
    """Return `n` tiles, half of them with a crack, spread over the specimens; a smaller budget is part of a larger.

    Parameters
    ----------
    records : sequence of Record
        To choose from.
    n : int
        Even; 0 returns all records.
    seed : int
        Of the choice.

    Raises
    ------
    ValueError
        If a class has fewer than n / 2 tiles.
    """
    if n == 0:
        return tuple(records)
    chosen = []
    for label, word in ((False, "without a crack"), (True, "with a crack")):
        ranked = _ranked([record for record in records if record.mask.any() == label], seed)
        if len(ranked) < n // 2:
            raise ValueError(f"n_real = {n} needs {n // 2} training tiles {word}; there are {len(ranked)}")
        chosen += ranked[: n // 2]
    return tuple(chosen)


def _ranked(records: Sequence[Record], seed: int) -> list[Record]:
    """Order tiles at random, but so that specimens take turns."""
    rng = stream(seed, "budget")
    shuffled = [records[i] for i in rng.permutation(len(records))]
    specimens = sorted({record.group for record in records})
    turn = dict(zip(specimens, rng.permutation(len(specimens)).tolist(), strict=True))
    place = dict.fromkeys(specimens, 0)
    keyed = []
    for record in shuffled:
        keyed.append((place[record.group], turn[record.group], record))
        place[record.group] += 1
    return [record for _, _, record in sorted(keyed, key=lambda item: item[:2])]


# Training


def fit(setting: Setting) -> tuple[torch.nn.Module, dict]:
    """Train the network of a run and return it with the columns of its row that say what it cost."""
    arm, plan = setting.configuration["arm"], setting.plan
    before = None if arm in ("real", "real long") else pretrained(setting)
    if arm == "synthetic":
        learn = _learner(setting, classified(setting.roles.training), 1, before.states)
        return learn.model, _costs(setting, before, (), before.facts["learning_rate"], 0.0, math.nan)
    chosen = budget(setting.roles.training, setting.configuration["n_real"], setting.seed)
    stages = real_stages(plan, len(chosen))
    if arm == "real long":  # the extra steps train the whole network
        extra = sum(stage.steps for stage in synthetic_stages(plan))
        stages = (stages[0], stages[1]._replace(steps=stages[1].steps + extra))
    rate = real_rate(setting)
    started = time.perf_counter()
    learn = train(setting, classified(chosen), stages, plan["real_batch"], rate, before.states if before else None)
    seconds, loss = time.perf_counter() - started, float(learn.recorder.smooth_loss.value)
    return learn.model, _costs(setting, before, stages, rate, seconds, loss)


def pretrained(setting: Setting) -> Made:
    """Return the weights after training on synthetic tiles; shared by all arms and budgets of a generator and seed.

    Returns
    -------
    Made
        States of the network; facts learning_rate, seconds, generator_seconds, validation_error (on synthetic tiles),
        training_loss.
    """
    first = setting.first()

    def make() -> Made:
        started = time.perf_counter()
        training, validation = synthetic_tiles(setting)
        ready, plan = time.perf_counter(), setting.plan
        if setting.seed == first.seed:
            rate = _found_rate(setting, training, plan["synthetic_batch"])
        else:
            rate = pretrained(first).facts["learning_rate"]
        learning = time.perf_counter()
        learn = train(setting, training, synthetic_stages(plan), plan["synthetic_batch"], rate)
        facts = {"learning_rate": rate, "seconds": time.perf_counter() - learning, "generator_seconds": ready - started}
        called = crack_probability(learn.model, validation.images) >= 0.5
        facts["validation_error"] = float((called != validation.labels).mean())
        return Made(learn.model.state_dict(), {**facts, "training_loss": float(learn.recorder.smooth_loss.value)})

    return made_once("cracks", setting.key("pretrained"), make)


def synthetic_tiles(setting: Setting) -> tuple[Classified, Classified]:
    """Return synthetic training and validation tiles by a generator that has seen the training specimens alone."""
    plan = setting.plan
    made = generator(setting)
    table = made.space.sample(plan["n_train"] + plan["n_validation"], stream_seed(setting.seed, "crack tiles"))
    rows = progress(table.to_dict("records"), desc="rendering", unit="tile")
    images = np.stack([made.render(row).image for row in rows])
    labels = table["crack"].to_numpy().astype(np.int64)
    cut = plan["n_train"]
    return Classified(images[:cut], labels[:cut]), Classified(images[cut:], labels[cut:])


def generator(setting: Setting) -> synthetic.Generator:
    """Return the generator of a run, learned from its training specimens: statistics, dictionary and seeds."""
    sizes = {name: setting.plan[name] for name in ("n_textures", "max_patches")}
    name, seed = setting.configuration["generator"], stream_seed(setting.seed, "crack generator")
    return synthetic.learn(setting.roles.training, generator=name, seed=seed, **sizes)


def real_rate(setting: Setting) -> float:
    """Return the learning rate on real tiles: found once for a fold, from ImageNet weights or from pre-trained ones."""
    first = setting.first()
    arm = "mixed" if setting.configuration["arm"] == "mixed" else "real"

    def make() -> Made:
        states = pretrained(first).states if arm == "mixed" else None
        rate = _found_rate(first, classified(first.roles.training), first.plan["real_batch"], states)
        return Made({}, {"learning_rate": rate})

    return made_once("cracks", first.key("rate", arm), make).facts["learning_rate"]


def _found_rate(setting: Setting, tiles: Classified, batch: int, states: Mapping | None = None) -> float:
    """Return the rate that fastai's range test proposes (valley), at most the ends of `RATES`.

    The lower end where the loss rises fourfold, which ends the test, before there are losses enough to judge.
    """
    steps = setting.plan["find_steps"]
    learn = _learner(setting, tiles, steps, states, batch)
    learn.path = out_dir("cracks") / "shared"  # where the test keeps the weights meanwhile
    try:
        found = learn.lr_find(num_it=steps, **FIND).valley
    except IndexError:  # fastai's valley of no losses at all
        found = RATES[0]
    return float(np.clip(found, *RATES))


def synthetic_stages(plan: Mapping) -> tuple[Stage, Stage]:
    """Return head and full training on synthetic tiles."""
    head, full = (max(1, epochs * plan["n_train"] // plan["synthetic_batch"]) for epochs in plan["synthetic_epochs"])
    return Stage(head, True), Stage(full, False)


def real_stages(plan: Mapping, n_tiles: int) -> tuple[Stage, Stage]:
    """Return head and full training on real tiles: the epochs of the profile, for few tiles at least `min_steps`."""
    steps = (round(epochs * n_tiles / plan["real_batch"]) for epochs in plan["real_epochs"])
    head, full = (max(plan["min_steps"], count) for count in steps)
    return Stage(head, True), Stage(full, False)


def train(
    setting: Setting, tiles: Classified, stages: Sequence[Stage], batch: int, rate: float, states: Mapping | None = None
) -> Learner:
    """Train a network through all stages, a one-cycle each, and return its learner; nothing is selected on.

    Parameters
    ----------
    setting : Setting
        Seed, architecture, weights.
    tiles : Classified
        Changed anew every time they are shown, see `micro_lib.data.classified.changed`.
    stages : sequence of Stage
        Run one after the other.
    batch : int
        Tiles a step.
    rate : float
        Largest learning rate of the head; the body's is a tenth, as in fastai 1.0.51.
    states : mapping, optional
        Weights to start from, head included; none starts from the configuration's weights.

    Raises
    ------
    TrainingDiverged
        If the loss is not finite; training stops at that step.
    """
    learn = _learner(setting, tiles, stages[0].steps, states, batch)
    with progress(total=sum(stage.steps for stage in stages), desc="training", unit="step") as bar:
        for i, stage in enumerate(stages):
            learn.dls = _loaders(setting, tiles, stage.steps, batch, i)
            learn.freeze() if stage.frozen else learn.unfreeze()
            torch.manual_seed(stream_seed(setting.seed, "dropout", i))
            watch = Unvalidated(bar, f"stage {i + 1}; lower the rate, now {rate:.2g}")
            go_on(learn, partial(learn.fit_one_cycle, 1, slice(rate), **ONE_CYCLE), watch, 0)
    return learn


def _learner(setting: Setting, tiles: Classified, steps: int, states: Mapping | None = None, batch: int = 1) -> Learner:
    torch.manual_seed(stream_seed(setting.seed, "network"))
    learn = classifier.learner(
        _loaders(setting, tiles, steps, batch, 0),
        setting.plan["architecture"],
        "random" if states else setting.configuration["weights"],
        loss_func=torch.nn.functional.cross_entropy,
        cbs=BFloat16(),
        **ADAMW,
    )
    if states:
        learn.model.load_state_dict(states)
    learn.freeze()
    learn.model.to(setting.device)
    return quiet(learn)


def _loaders(setting: Setting, tiles: Classified, steps: int, batch: int, number: int) -> DataLoaders:
    batches = Batches(tiles, steps, batch, seed=stream_seed(setting.seed, "batches", number), device=setting.device)
    return unvalidated_loaders(batches, setting.device)


# Scores


def score(network: torch.nn.Module, parts: Roles) -> pd.DataFrame:
    """Return what a network says of every real tile.

    Parameters
    ----------
    network : torch.nn.Module
        As for `micro_lib.models.classifier.crack_probability`.
    parts : Roles
        Of the run the network was trained in.

    Returns
    -------
    pandas.DataFrame
        One row a tile: name, group (specimen), role, label, probability, called (0 or 1), matched (a test tile that
        has a partner of the other class within `CALIPER` of its oxide fraction, see `matched_pairs`).
    """
    return _table(parts, lambda records: crack_probability(network, classified(records).images))


def score_shortcut(source: Pack) -> pd.DataFrame:
    """Score what sees no crack: logistic regression on mean grey and oxide fraction, for every fold by specimen.

    Parameters
    ----------
    source : Pack
        From `real_tiles`.

    Returns
    -------
    pandas.DataFrame
        As of `score`, the test tiles alone, with a column fold. A fold's baseline is fitted to all other specimens.
    """
    tables = []
    for fold in range(len(FOLDS)):
        parts = roles(source.records, fold + 1)
        known = (*parts.training, *parts.validation)
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.fit(_shortcuts(known), classified(known).labels)
        tested = Roles((), (), parts.test)
        tables.append(_table(tested, lambda r, m=model: m.predict_proba(_shortcuts(r))[:, 1]).assign(fold=fold))
    return pd.concat(tables, ignore_index=True)


def _shortcuts(records: Sequence[Record]) -> np.ndarray:
    return np.array([[record.image.mean(), record.attributes["oxide_fraction"]] for record in records])


def _table(parts: Roles, probability) -> pd.DataFrame:
    tables = []
    for role, records in zip(Roles._fields, parts, strict=True):
        if not records:
            continue
        names = {"name": [r.name for r in records], "group": [r.group for r in records], "role": role}
        table = pd.DataFrame({**names, "label": classified(records).labels, "probability": probability(records)})
        table["called"] = (table["probability"] >= 0.5).astype(int)
        table["matched"] = 0
        if role == "test":
            oxide = [record.attributes["oxide_fraction"] for record in records]
            pairs = matched_pairs(table["label"], oxide, table["group"], CALIPER)
            table.loc[pairs.ravel(), "matched"] = 1
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def by_specimen(tiles: pd.DataFrame) -> pd.DataFrame:
    """Return counts of every specimen in every role; any error rate is a ratio of their sums.

    Parameters
    ----------
    tiles : pandas.DataFrame
        From `score` or `score_shortcut`.

    Returns
    -------
    pandas.DataFrame
        split (role), name (specimen), n, n_crack, wrong, missed (cracks), false_alarms, n_matched, wrong_matched.
    """
    wrong = tiles["label"] != tiles["called"]
    counted = tiles.assign(
        n=1,
        n_crack=tiles["label"],
        wrong=wrong,
        missed=wrong & (tiles["label"] == 1),
        false_alarms=wrong & (tiles["label"] == 0),
        n_matched=tiles["matched"],
        wrong_matched=wrong & (tiles["matched"] == 1),
    )
    columns = ["n", "n_crack", "wrong", "missed", "false_alarms", "n_matched", "wrong_matched"]
    found = counted.groupby(["role", "group"])[columns].sum().astype(int).reset_index()
    return found.rename(columns={"role": "split", "group": "name"})


def summary(tiles: pd.DataFrame) -> dict:
    """Return the error rates of a run from its tiles; see `run`."""
    counts = by_specimen(tiles)
    sums = counts.drop(columns="name").groupby("split").sum()
    test, every = sums.loc["test"], sums.sum()
    n_matched = int(test["n_matched"])
    return {
        "validation_error": float(sums.loc["validation", "wrong"] / sums.loc["validation", "n"]),
        "test_error": float(test["wrong"] / test["n"]),
        "test_error_matched": float(test["wrong_matched"] / n_matched) if n_matched else math.nan,
        "all_error": float(every["wrong"] / every["n"]),
        "missed": float(test["missed"] / test["n_crack"]),
        "false_alarms": float(test["false_alarms"] / (test["n"] - test["n_crack"])),
        "n_validation": int(sums.loc["validation", "n"]),
        "n_test": int(test["n"]),
        "n_test_matched": n_matched,
        "n_all": int(every["n"]),
    }


def _costs(setting: Setting, before: Made | None, stages, rate: float, seconds: float, loss: float) -> dict:
    plan, steps = setting.plan, sum(stage.steps for stage in stages)
    facts = before.facts if before else {}
    pre = sum(stage.steps for stage in synthetic_stages(plan)) if before else 0
    n_training = len(budget(setting.roles.training, setting.configuration["n_real"], setting.seed)) if steps else 0
    return {
        "n_training": n_training,
        "steps": pre + steps,
        "images_seen": pre * plan["synthetic_batch"] + steps * plan["real_batch"],
        "train_seconds": seconds,
        "ms_per_step": 1000 * seconds / steps if steps else math.nan,
        "learning_rate": rate,
        "training_loss": loss if steps else facts["training_loss"],
        "pretrain_steps": pre,
        "pretrain_seconds": facts.get("seconds", math.nan),
        "generator_seconds": facts.get("generator_seconds", math.nan),
        "synthetic_validation_error": facts.get("validation_error", math.nan),
    }


def _described(setting: Setting) -> dict:
    specimens = {part: " ".join(sorted({r.group for r in getattr(setting.roles, part)})) for part in Roles._fields}
    names = {"test_specimens": specimens["test"], "validation_specimens": specimens["validation"]}
    return {"fold": setting.fold, **names}


def _plan(configuration: Mapping, profile: str) -> dict:
    """Settings of the profile, with the architecture of the configuration where it names one."""
    chosen = {"architecture": configuration["architecture"]} if configuration["architecture"] else {}
    return {**settings("cracks", profile), **chosen}
