"""The joint experiment: U-Nets trained on few micrographs, with and without pairs sampled from a generator of the same.

After Volman Stern et al. 2024, whose full text could not be had: the workflow of the abstract, not its settings.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from micro_lib.analysis.metrics import as_columns, confusion, mean_iou, present_class_miou, stacked, summary
from micro_lib.analysis.phases import cut
from micro_lib.core.checks import number, one_of
from micro_lib.core.profiles import Stage, settings
from micro_lib.core.progress import Stopwatch, progress
from micro_lib.core.runs import commit, write_table
from micro_lib.core.seeds import stream, stream_seed
from micro_lib.data.packs import Pack, pack
from micro_lib.data.records import Record
from micro_lib.data.tiles import Cut, Labelled, histogram, to_uint8
from micro_lib.models import unet
from micro_lib.models.devices import best_device, device_name
from micro_lib.models.joint_generator import GeneratorCard, JointGenerator
from micro_lib.models.segmenter import Card, Segmenter
from micro_lib.training import generative
from micro_lib.training.pair_quality import agreement, code_nats, copied, evenly, judged, kept_classes
from micro_lib.training.rounds import Schedule
from micro_lib.training.shared import Made, configured, made_once, records_digest, run_folder, shared_path
from micro_lib.training.supervised import ONE_CYCLE, Recipe, Unvalidated, go_on, learner

# What a configuration may say, and what it says by default.
DEFAULTS = {
    "pack": "nasa_superalloy",  # of `PACKS`
    "k": 4,  # real micrographs, all that generator and U-Net ever see; 0 for all of the training specimens
    "ratio": 0.0,  # micrographs' worth of sampled pairs for each real one
    "recipe": "plain",  # of `RECIPES`; "" without sampled pairs
    "data": "auto",  # as for data.packs.pack
}
PACKS = ("nasa_superalloy", "uhcs", "nasa_ebc")
RATIOS = (0.5, 4.0)
EPOCH_STEPS = 50  # of a generator: use of the codebook is measured, and a checkpoint written, after each
UNETS = 3  # seeds 1 to 3 share the first generator, 4 to 6 the second, and so on
# Specimens that are tested on, fold by fold, chosen by name and number of images; other names are dealt out. Superalloy
# spots take turns.
FOLDS = {
    "uhcs": (("sample16", "sample29", "sample40"), ("sample14", "sample25", "sample4")),
    "nasa_ebc": (("032919#6", "040617#3", "S879"), ("010417#4", "032919#10", "040617#2", "070516#1")),
}


class RecipeOf(NamedTuple):
    """How a generator is made; steps are shares of the profile's: every recipe but *long* trains equally long."""

    down: int = 8  # pixels of a code's side
    hidden: float = 1.0  # share of the VQ-VAE's channels
    vq_steps: float = 1.0
    prior_steps: float = 1.0
    prior_batch: float = 1.0
    texture: bool = False  # give sampled images the fine texture that reconstructions lack
    weighted: bool = False  # pixels of rare classes count more in the loss of masks
    conditional: bool = False  # the prior knows phase fractions, and is asked for balanced ones
    drawn: int = 1  # pairs sampled for one that is kept: those kept are the ones a segmenter of real ones agrees with
    side: int = 1  # of a pair, in those of the crops that its generator has learned from


RECIPES = {
    "plain": RecipeOf(),
    "fine": RecipeOf(down=4, hidden=0.5, vq_steps=0.55, prior_batch=0.25, texture=True),
    "wide": RecipeOf(side=2),  # zoomed out of by the augmentation as real micrographs are, which smaller ones cannot be
    "weighted": RecipeOf(weighted=True),
    "balanced": RecipeOf(conditional=True),
    "filtered": RecipeOf(drawn=3),
    "long": RecipeOf(vq_steps=4.0, prior_steps=4.0),  # tells whether the others are trained too little
}


def _named(pack_name: str, k: int, recipes: Sequence[str]) -> dict[str, dict]:
    """Return the arms of one budget by name: real micrographs alone, and each recipe in each ratio."""
    where = "" if pack_name == DEFAULTS["pack"] else f"{pack_name} "
    arms = {f"{where}real {k or 'all'}": {"pack": pack_name, "k": k, "recipe": ""}}
    for recipe in recipes:
        for ratio in RATIOS:
            name = f"{where}{recipe} {k or 'all'} x{ratio:g}"
            arms[name] = {"pack": pack_name, "k": k, "ratio": ratio, "recipe": recipe}
    return arms


CONFIGURATIONS = {
    **_named("nasa_superalloy", 1, RECIPES),
    **_named("nasa_superalloy", 4, RECIPES),
    **_named("nasa_superalloy", 0, ["plain"]),
    **_named("uhcs", 4, ["plain", "weighted"]),
    **_named("nasa_ebc", 4, ["plain", "weighted"]),
}


class Roles(NamedTuple):
    """Micrographs of one run by what they are used for."""

    training: tuple[Record, ...]  # the k micrographs are drawn from these
    test: tuple[Record, ...]
    other: tuple[Record, ...]  # other alloys, another domain: scored apart, never trained on


def run(configuration: str | Mapping, seed: int, profile: str = "", out: str | Path = "") -> dict:
    """Train one U-Net and score it on the micrographs of specimens that neither it nor its generator has seen.

    Leaves ``images.csv`` (the scores of every micrograph) in `out`. Generators, their pairs and the U-Net that judges
    them are made once, see `shared.made_once`; a generator whose training was killed goes on where it was.

    Parameters
    ----------
    configuration : str or mapping
        A name of `CONFIGURATIONS`, or values for some keys of `DEFAULTS`.
    seed : int
        1 or larger; see `Setting`.
    profile : str
        As for `micro_lib.core.profiles.resolve`.
    out : str or pathlib.Path
        Folder of this run; ``""`` makes one from configuration, seed and profile.

    Returns
    -------
    dict
        Flat: the configuration in full; fold, generator, unet, test_specimens; n_micrographs, n_pairs (trained on),
        sampled_share (of the tiles); steps, train_seconds and train_process_seconds, ms_per_step, training_loss; what
        `generator_costs` tells, sample_seconds and sample_process_seconds, pairs_consistency (see `_kept`; all missing
        without pairs); for ``test`` and ``other`` the values of `metrics.summary` as <part>_<score>, classes
        by id, and both mean IoUs per window; generated (micrographs are stand-ins), trained_at (commit), device.

    Raises
    ------
    ValueError
        If a key or value of the configuration is unknown, or there are fewer training micrographs than k.
    WeightsUnavailable
        If the ImageNet weights cannot be had.
    """
    setting = prepared(configuration, seed, profile)
    configuration, source = setting.configuration, setting.source
    folder = run_folder("joint", configuration, DEFAULTS, seed, profile, out)
    if configuration["ratio"]:
        made, costs = sampled(setting), generator_costs(setting)
        segmenter, trained = train_unet(setting, made.pairs)
        costs |= {**made.facts, "n_pairs": len(made.pairs)}
    else:
        segmenter, trained = real_segmenter(setting)
        costs = {"n_pairs": 0}
    images = score(segmenter, setting.roles, source, setting.plan["px"])
    write_table(images, folder / "images.csv")
    used = {"trained_at": commit()[0], "device": device_name(setting.device), "generated": source.is_generated}
    return {**configuration, **setting.described(), **trained, **costs, **means(images, source), **used}


def prepared(configuration: str | Mapping, seed: int, profile: str = "") -> "Setting":
    """Return a run resolved, with the micrographs of its pack; arguments and errors as of `run`."""
    full = complete(configuration)
    source = pack(full["pack"], full["data"], profile=profile)
    return Setting(full, settings("joint", profile), seed, source)


def complete(configuration: str | Mapping) -> dict:
    """Return a configuration with every key of `DEFAULTS`; see `run`."""
    full = configured(configuration, CONFIGURATIONS, DEFAULTS)
    one_of("pack", full["pack"], PACKS)
    number("k", full["k"], 0, whole=True)
    number("ratio", full["ratio"], 0)
    if not full["ratio"]:
        return full | {"recipe": ""}
    one_of("recipe", full["recipe"], RECIPES)
    return full


class Setting:
    """One run, resolved.

    Parameters
    ----------
    configuration, plan : mapping
        Complete, see `complete`; from the profile.
    seed : int
        Seed s uses generator (s - 1) // 3, which decides the fold, the k micrographs and everything the generator does,
        and is U-Net (s - 1) % 3 of it.
    source : Pack
        Micrographs or their stand-ins.

    Raises
    ------
    ValueError
        If there are fewer training micrographs than k.
    """

    def __init__(self, configuration: Mapping, plan: Mapping, seed: int, source: Pack):
        number("seed", seed, 1, whole=True)
        self.configuration, self.plan, self.seed, self.source = configuration, plan, seed, source
        self.generator, self.unet = divmod(seed - 1, UNETS)
        self.fold = self.generator % n_folds(source)
        self.roles = roles(source, self.fold)
        self.records = budget(self.roles.training, configuration["k"], self.generator)
        self.micrographs = [Labelled(to_uint8(record.image), record.mask) for record in self.records]
        self.recipe = RECIPES.get(configuration["recipe"], RecipeOf())
        self.device = best_device()

    @property
    def n_classes(self) -> int:
        """Number of classes of the pack's masks."""
        return len(self.source.class_map.classes)

    @property
    def pair_px(self) -> int:
        """Side of the sampled pairs, pixels."""
        return self.plan["px"] * self.recipe.side

    def first(self) -> "Setting":
        """Return the run that trains the first U-Net of this generator on the real micrographs alone."""
        alone = {**self.configuration, "ratio": 0.0, "recipe": ""}
        return Setting(alone, self.plan, self.generator * UNETS + 1, self.source)

    def n_pairs(self, ratio: float) -> int:
        """Return how many pairs cover as much area as `ratio` times the real micrographs, at least 1."""
        area = sum(micrograph.mask.size for micrograph in self.micrographs)
        return max(1, round(ratio * area / self.pair_px**2))

    def key(self, *names: str | int) -> dict:
        """Return all that decides something shared: settings, micrographs, and what it is called."""
        plan = {name: value for name, value in self.plan.items() if name != "seeds"}
        chosen = {name: self.configuration[name] for name in ("pack", "data")}
        micrographs = records_digest(self.records)
        where = {"generator": self.generator, "device": device_name(self.device)}
        return {"names": names, "micrographs": micrographs, **where, **plan, **chosen}

    def described(self) -> dict:
        """Return the columns of a row that say who was trained and tested on."""
        specimens = " ".join(sorted({record.group for record in self.roles.test}))
        numbers = {"fold": self.fold, "generator": self.generator, "unet": self.unet}
        return {**numbers, "test_specimens": specimens, "n_micrographs": len(self.records)}


# Who is trained on, and who is tested


def roles(source: Pack, fold: int) -> Roles:
    """Return the micrographs of a pack by role: whole specimens are left out for the test.

    Parameters
    ----------
    source : Pack
        Superalloys: a fold tests on one spot, in both views; other alloys are scored apart. Coatings: the target
        specimen is scored apart. Others: see `FOLDS`.
    fold : int
        0 to `n_folds` - 1.
    """
    apart = {record.group for record in source.records if _is_apart(source.name, record)}
    held = _folds(source)[fold]
    parts = {"training": [], "test": [], "other": []}
    for record in source.records:
        parts["other" if record.group in apart else "test" if record.group in held else "training"].append(record)
    return Roles(**{name: tuple(records) for name, records in parts.items()})


def n_folds(source: Pack) -> int:
    """Return the number of folds of a pack."""
    return len(_folds(source))


def _folds(source: Pack) -> tuple[tuple[str, ...], ...]:
    names = sorted({record.group for record in source.records if not _is_apart(source.name, record)})
    if source.name == "nasa_superalloy":
        return tuple((name,) for name in names)
    known = FOLDS[source.name]
    return known if set(names) >= set().union(*known) else tuple(tuple(names[i::2]) for i in range(2))


def _is_apart(pack_name: str, record: Record) -> bool:
    if pack_name == "nasa_superalloy":
        return not re.search(r"spot\d+$", record.group)
    return record.domain.startswith("target")


def budget(records: Sequence[Record], k: int, generator: int) -> tuple[Record, ...]:
    """Return k records in a random order of the generator's; a smaller budget is the beginning of a larger.

    Parameters
    ----------
    records : sequence of Record
        To choose from.
    k : int
        0 returns all.
    generator : int
        Number of the generator.

    Raises
    ------
    ValueError
        If there are fewer than k.
    """
    if k > len(records):
        raise ValueError(f"k = {k} micrographs are asked for; the training specimens have {len(records)}")
    order = stream(generator, "micrographs").permutation(len(records))
    return tuple(records[i] for i in order[: k or None])


# The generator and its pairs


class Pairs(NamedTuple):
    """Sampled pairs, and plain facts about them."""

    pairs: list[Labelled]
    facts: dict


def generator(setting: Setting) -> tuple[JointGenerator, pd.DataFrame]:
    """Return the generator of a run, trained on its k micrographs, and its history (see `generative.train`)."""
    made = _generator(setting)
    trained = JointGenerator(GeneratorCard.of(made.facts["card"]))
    trained.load_state_dict(made.states)
    return trained.eval().to(setting.device), _history(made)


def generator_costs(setting: Setting) -> dict:
    """Return what the generator of a run and the choice of its pairs cost, and the commit it was trained at.

    Returns
    -------
    dict
        vq_seconds, prior_seconds (training), judge_seconds (training the U-Net that pairs are chosen by; 0 where none
        is), each also as <name>_process_seconds, see `micro_lib.core.progress.Stopwatch`; generator_trained_at.
    """
    made = _generator(setting)
    spent = _history(made).groupby("stage")[list(_TIMES)].sum()
    judge = real_segmenter(setting)[1] if setting.recipe.drawn > 1 else {}
    costs = {f"{name}_{time}": float(spent.loc[stage, time]) for name, stage in _STAGES for time in _TIMES}
    costs |= {f"judge_{time}": judge.get(f"train_{time}", 0.0) for time in _TIMES}
    return costs | {"generator_trained_at": made.facts["card"]["training"]["commit"]}


_STAGES, _TIMES = (("vq", "vqvae"), ("prior", "prior")), ("seconds", "process_seconds")


def _history(made: Made) -> pd.DataFrame:
    return pd.DataFrame(made.facts["history"], columns=list(generative.HISTORY)).astype({"loss": float})


def _generator(setting: Setting) -> Made:
    recipe = setting.recipe._replace(drawn=1, side=1)  # these decide what is sampled alone
    key = setting.key("generator", *recipe)

    def make() -> Made:
        card = _card(setting)
        torch.manual_seed(stream_seed(setting.generator, "generator"))
        network = JointGenerator(card)
        history = generative.train(
            network,
            setting.micrographs,
            schedules(setting.plan, recipe),
            n_crops=setting.plan["n_crops"],
            texture=recipe.texture,
            weighted=recipe.weighted,
            seed=stream_seed(setting.generator, "generator"),
            checkpoint=shared_path("joint", key).with_suffix(".pt"),
            device=setting.device,
        )
        return Made(network.state_dict(), {"card": card.plain(), "history": history.to_numpy().tolist()})

    return made_once("joint", key, make)


def schedules(plan: Mapping, recipe: RecipeOf) -> dict[str, Schedule]:
    """Return how long both networks of a recipe are trained, in whole epochs where the profile has some."""
    batch = round(plan["prior_batch"] * recipe.prior_batch)
    vq_steps, prior_steps = _whole(plan["vq_steps"] * recipe.vq_steps), _whole(plan["prior_steps"] * recipe.prior_steps)
    return {
        "vqvae": Schedule(vq_steps, plan["vq_batch"], plan["vq_rate"], max(1, vq_steps // EPOCH_STEPS)),
        "prior": Schedule(prior_steps, max(1, batch), plan["prior_rate"], max(1, prior_steps // EPOCH_STEPS)),
    }


def _whole(steps: float) -> int:
    return max(1, round(steps)) if steps < EPOCH_STEPS else EPOCH_STEPS * round(steps / EPOCH_STEPS)


def _card(setting: Setting) -> GeneratorCard:
    plan, recipe, classes = setting.plan, setting.recipe, setting.source.class_map
    hidden = round(plan["hidden"] * recipe.hidden)
    vq = {"n_codes": plan["n_codes"], "code_dim": plan["code_dim"], "hidden": hidden, "down": recipe.down}
    prior = {"channels": plan["channels"], "layers": plan["layers"], "dropout": plan["dropout"]}
    conditions = len(classes.classes) if recipe.conditional else 0
    micrographs = [record.name for record in setting.records]
    described = {"pack": setting.source.name, "micrographs": micrographs, "commit": commit()[0]}
    return GeneratorCard(classes, vq, {**prior, "n_conditions": conditions}, plan["px"], described)


def sampled(setting: Setting) -> Pairs:
    """Return the pairs of a run: the first of those sampled once for all ratios of its generator and recipe."""
    most = setting.n_pairs(max(*RATIOS, setting.configuration["ratio"]))

    def make() -> Made:
        network = generator(setting)[0]  # its training counts elsewhere
        watch = Stopwatch()
        options = {"seed": stream_seed(setting.generator, "pairs"), "shape_px": (setting.pair_px, setting.pair_px)}
        drawn = network.sample(most * setting.recipe.drawn, **options)
        facts = watch.read("sample_")
        kept, consistent = _kept(setting, drawn, most)
        facts["pairs_consistency"] = consistent
        states = {name: torch.from_numpy(np.stack([getattr(pair, name) for pair in kept])) for name in Labelled._fields}
        return Made(states, facts)

    made = made_once("joint", setting.key("pairs", setting.configuration["recipe"], most), make)
    count = setting.n_pairs(setting.configuration["ratio"])
    parts = zip(*(made.states[name].numpy()[:count] for name in Labelled._fields), strict=True)
    return Pairs([Labelled(*part) for part in parts], made.facts)


def quality(configuration: str | Mapping, seed: int, profile: str = "") -> dict:
    """Tell whether a generator and its pairs are any good: beside real micrographs, and as copies of them.

    The yardstick are the micrographs of the tested specimens, which nothing of the run was trained on.

    Parameters
    ----------
    configuration, seed, profile
        As for `run`, of an arm with pairs; its generator and pairs are made where they are not there yet.

    Returns
    -------
    dict
        Flat: pack, k, recipe, fold, generator, test_specimens, n_micrographs, generated (stand-ins), the values of
        `pair_quality.judged`, `copied`, `code_nats` and `kept_classes`, pairs_consistency (see `_kept`), vq_usage and
        vq_perplexity (of the codebook in the last epoch of its training) and trained_at (commit of the generator).
    """
    full = complete(configuration)
    setting = prepared({**full, "ratio": max(*RATIOS, full["ratio"])}, seed, profile)  # all pairs of the generator
    network, drawn = generator(setting)[0], sampled(setting)
    names = {name: setting.configuration[name] for name in ("pack", "k", "recipe")}
    told = {name: value for name, value in setting.described().items() if name != "unet"}
    codes = _history(_generator(setting)).query("stage == 'vqvae'").iloc[-1]
    return {
        **names,
        **told,
        "generated": setting.source.is_generated,
        **measured(setting, network, drawn.pairs),
        "pairs_consistency": drawn.facts["pairs_consistency"],
        **{f"vq_{name}": float(codes[name]) for name in ("usage", "perplexity")},
        "trained_at": network.card.training["commit"],
    }


def measured(setting: Setting, network: JointGenerator, pairs: Sequence[Labelled]) -> dict:
    """Return what `quality` measures of a generator and its pairs.

    Parameters
    ----------
    setting : Setting
        Of a run with this generator.
    network : JointGenerator
        Trained on its micrographs.
    pairs : sequence of Labelled
        Sampled by it, square, their side a multiple of the crops'; those compared lie evenly over them.

    Returns
    -------
    dict
        Of `pair_quality.judged`, `copied`, `code_nats` and `kept_classes`.
    """
    plan, stated = setting.plan, stream_seed(setting.generator, "quality")
    cut_pairs = cut(pairs, plan["px"])
    sets = setting.micrographs, [Labelled(to_uint8(record.image), record.mask) for record in setting.roles.test]
    groups, rng = [record.group for record in setting.records], stream(setting.generator, "quality")
    judging = {"n_judged": plan["n_judged"], "rng": rng}
    found = judged(evenly(cut_pairs, plan["n_judged"]), sets[1], sets[0], groups, setting.n_classes, **judging)
    found |= copied(network, evenly(cut_pairs, plan["n_copies"]), *sets, n=plan["n_copies"], rng=rng)
    found |= code_nats(network, *sets, n=plan["n_judged"], seed=stated)
    return found | kept_classes(network, setting.micrographs, setting.n_classes)


def _kept(setting: Setting, pairs: Sequence[Labelled], n: int) -> tuple[list[Labelled], float]:
    """Return the n pairs whose masks the segmenter of real micrographs agrees with most, in their order, and how well.

    The agreement is the pooled mean IoU of those kept.
    """
    found = agreement(pairs, real_segmenter(setting)[0])
    kept = np.sort(np.argsort(-np.nan_to_num(mean_iou(found)), kind="stable")[:n])
    return [pairs[i] for i in kept], float(mean_iou(found[kept].sum(0)))


# U-Nets


def real_segmenter(setting: Setting) -> tuple[Segmenter, dict]:
    """Return the U-Net of the real micrographs alone, and what it cost; made once.

    A setting with a ratio of its own gets that of the first U-Net of its generator, which judges all its pairs.
    """
    alone = setting if not setting.configuration["ratio"] else setting.first()

    def make() -> Made:
        segmenter, costs = train_unet(alone, [])
        return Made(segmenter.network.state_dict(), costs)

    made = made_once("joint", alone.key("real", alone.unet), make)
    network = unet.build(alone.plan["architecture"], alone.n_classes, "random")
    network.load_state_dict(made.states)
    return _segmenter(alone, network), made.facts


def train_unet(setting: Setting, pairs: Sequence[Labelled]) -> tuple[Segmenter, dict]:
    """Train a U-Net on the real micrographs of a run, and on sampled pairs in proportion to their area.

    Every arm has the same network, steps and augmentation; the last weights count, nothing is selected on.

    Returns
    -------
    Segmenter, dict
        And sampled_share, steps, train_seconds, train_process_seconds, ms_per_step, training_loss.
    """
    plan, seed = setting.plan, stream_seed(setting.seed, "unet")
    tiles, share = union(setting.micrographs, pairs, plan["unet_steps"] * plan["unet_batch"])
    torch.manual_seed(seed)
    network = unet.build(plan["architecture"], setting.n_classes, "imagenet").to(setting.device)
    stage = Stage(plan["px"], 1, False)
    recipe = Recipe((stage,), plan["unet_batch"], plan["unet_rate"], seed, plan["loss"])
    learn = learner(network, (tiles, setting.micrographs), recipe, stage, setting.device)
    fit = partial(learn.fit_one_cycle, 1, slice(plan["unet_rate"]), **ONE_CYCLE)
    watch = Stopwatch()
    with progress(total=plan["unet_steps"], desc="training", unit="step") as bar:
        go_on(learn, fit, Unvalidated(bar, f"the U-Net; lower unet_rate, now {plan['unet_rate']:.2g}"), 0)
    spent, loss = watch.read("train_"), float(learn.recorder.smooth_loss.value)
    costs = {"steps": plan["unet_steps"], **spent, "ms_per_step": 1000 * spent["train_seconds"] / plan["unet_steps"]}
    return _segmenter(setting, network), {"sampled_share": share, **costs, "training_loss": loss}


def union(micrographs: Sequence[Labelled], pairs: Sequence[Labelled], n: int) -> tuple[list[Labelled | Cut], float]:
    """Return what n tiles are cut from, each kind as often as its share of the area, and the share of the pairs.

    Pairs are standardised together, as micrographs are as wholes.
    """
    areas = [sum(part.mask.size for part in parts) for parts in (micrographs, pairs)]
    n_sampled = round(n * areas[1] / sum(areas))
    real = [micrographs[i % len(micrographs)] for i in range(n - n_sampled)]
    if not pairs:
        return real, 0.0
    grey_levels = histogram([pair.image for pair in pairs])
    return real + [Cut(*pairs[i % len(pairs)], grey_levels) for i in range(n_sampled)], n_sampled / n


def _segmenter(setting: Setting, network: torch.nn.Module) -> Segmenter:
    card = Card(setting.plan["architecture"], setting.source.class_map, (0.0, 0.0))
    return Segmenter(network, card, device=setting.device)


# Scores


def score(segmenter: Segmenter, parts: Roles, source: Pack, window_px: int) -> pd.DataFrame:
    """Score a segmenter on the micrographs it has not seen.

    Parameters
    ----------
    segmenter : Segmenter
        Any.
    parts : Roles
        Whose test and other micrographs are scored.
    source : Pack
        They are from.
    window_px : int
        Side of the windows that are scored one by one as well: some classes are absent in many of them.

    Returns
    -------
    pandas.DataFrame
        One row a micrograph: split ("test" or "other"), name, group, generated, miou, present_class_miou, windows
        (their number), miou_windows, present_class_miou_windows (means over them), and the pixels of true class i
        called j as n_<i>_<j>.
    """
    n = len(source.class_map.classes)
    rows = []
    shown = [(split, record) for split in ("test", "other") for record in getattr(parts, split)]
    for split, record in progress(shown, desc="scoring", unit="image"):
        found = segmenter.segment(record.image)
        matrix = confusion(record.mask, found, n)
        names = {"split": split, "name": record.name, "group": record.group, "generated": source.is_generated}
        scores = {"miou": float(mean_iou(matrix)), "present_class_miou": float(present_class_miou(matrix))}
        scores |= _by_window(record.mask, found, n, window_px)
        rows.append({**names, **scores, **as_columns(matrix, "n")})
    return pd.DataFrame(rows)


def _by_window(mask: np.ndarray, found: np.ndarray, n_classes: int, px: int) -> dict:
    pairs = cut([Labelled(found, mask)], px)
    cms = np.array([confusion(pair.mask, pair.image, n_classes) for pair in pairs])
    scores = {"miou": mean_iou(cms), "present_class_miou": present_class_miou(cms)}
    return {"windows": len(cms)} | {f"{name}_windows": float(np.mean(values)) for name, values in scores.items()}


def means(images: pd.DataFrame, source: Pack) -> dict:
    """Return the scores of a run from those of its micrographs, flat; see `run`."""
    ids = [str(i) for i in range(len(source.class_map.classes))]
    row = {}
    for split, part in images.groupby("split", sort=False):
        row |= {f"{split}_{name}": value for name, value in summary(stacked(part, "n"), ids).items()}
        for name in ("miou", "present_class_miou"):
            row[f"{split}_{name}_per_window"] = float(np.average(part[f"{name}_windows"], weights=part["windows"]))
    return row
