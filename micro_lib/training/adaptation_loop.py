"""The loop of adaptation: labelled source tiles, unlabelled target ones, one optimiser, a curve that is kept whole.

The rule for stopping needs no label: a training ends after the number of steps it was given, and its last weights
count. What is measured on the way goes into the curve and decides nothing.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from micro_lib.core.checks import one_of
from micro_lib.core.hashes import arrays_sha256
from micro_lib.core.progress import progress
from micro_lib.core.seeds import stream, stream_seed
from micro_lib.data.framing import Framing
from micro_lib.data.tiles import MODES, Cut, Tiles, histogram
from micro_lib.models.devices import float32_convolutions, has_bfloat16
from micro_lib.models.unet import parameter_groups
from micro_lib.training import checkpoints
from micro_lib.training.adaptation_methods import (
    METHODS,
    Batch,
    Design,
    Student,
    Term,
    Weights,
    as_float,
    statistics_kept,
    terms,
)
from micro_lib.training.supervised import (
    LOSSES,
    WEIGHT_DECAY,
    TrainingDiverged,
)

CHECKPOINT = "checkpoint.pt"
ENCODER_RATE = 0.1  # of the learning rate elsewhere (Tsai et al. 2018: ten times larger in the classifiers)
POWER = 0.9  # of the polynomial decay (Goetz et al. 2022, section 3)
# DEVIATION: Goetz et al. 2022, section 2.4.1, train their segmenters by Adam, of unknown settings; "adamw", with the
# decay and betas of the other experiments, takes its place.
OPTIMIZERS: dict[str, Callable] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "adamw": partial(torch.optim.AdamW, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY, fused=True),
    "sgd": partial(torch.optim.SGD, momentum=0.9, weight_decay=5e-4),  # of AdaptSegNet's code
}
# Rare-class sampling (Hoyer et al. 2022, DAFormer). DEVIATION: their temperature of 0.01 is for 19 classes; of three
# classes it would leave the rarest alone. DEVIATION: Goetz et al. 2022 count epochs, which show every tile once; here
# tiles are drawn by class whatever the method, so an epoch is as many steps as would show all once.
TEMPERATURE = 0.5
COLLAPSED = 0.99  # share of one class in the predictions on the target from which a run counts as collapsed
WON = 0.95  # discriminators' accuracy in the second half of a run from which nothing can be learned by fooling them
RISEN = 0.2  # rise of the labelled loss over its lowest from which a run counts as diverged


@dataclass(frozen=True)
class Recipe:
    """How a segmenter is adapted.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    n_classes : int
        At least 2.
    steps, batch : int
        Optimiser steps; tiles of each domain in a step.
    framing : Framing
        Tiles of the network; the loss counts in their centres.
    learning_rate : float
        At the start.
    seed : int
        Of the tiles and of all that is random about a step.
    optimizer, loss : str
        Keys of `OPTIMIZERS` and `supervised.LOSSES`.
    weights : Weights
        Of the parts of the loss.
    design : Design
        Of the discriminators.
    points : int
        Rows of the curve, evenly spaced.
    augmentation : str
        Of all tiles, one of `micro_lib.data.tiles.MODES`.
    encoder_rate : float
        The encoder's share of the learning rate.
    power : float
        Of the polynomial decay of the learning rates; 0 for constant ones.
    """

    method: str
    n_classes: int
    steps: int
    batch: int
    framing: Framing
    learning_rate: float
    seed: int
    optimizer: str = "adamw"
    loss: str = "cross_entropy+dice"
    weights: Weights = field(default_factory=Weights)
    design: Design = field(default_factory=Design)
    points: int = 10
    augmentation: str = "crop"
    encoder_rate: float = ENCODER_RATE
    power: float = POWER

    def __post_init__(self):
        for name, known in (("method", METHODS), ("optimizer", OPTIMIZERS), ("loss", LOSSES), ("augmentation", MODES)):
            one_of(name, getattr(self, name), known)
        if self.n_classes < 2:
            raise ValueError(f"n_classes is {self.n_classes}; give the background a channel of its own")
        if self.steps < self.points or self.points < 1:
            raise ValueError(f"{self.steps} steps cannot have a curve of {self.points} points")


class Draws:
    """Batches, each a pure function of the recipe's seed and the step.

    Parameters
    ----------
    source : sequence of Labelled or Cut
        With rare classes drawn more often: class c is looked for with a probability proportional to
        exp((1 - share of c) / `TEMPERATURE`).
    labelled : sequence of Labelled or Cut
        Target micrographs with labels. Where there are micrographs of both, each takes half of every labelled batch.
    target : sequence of Labelled or Cut
        Its masks are thrown away here; empty where nothing is drawn from it.
    recipe : Recipe
        Size of batches and tiles, seed.
    """

    def __init__(self, source: Sequence, labelled: Sequence, target: Sequence, recipe: Recipe):
        self.recipe, side = recipe, recipe.framing.side_px
        pools = [_Regions(part, recipe, i) for i, part in enumerate((source, labelled)) if len(part)]
        self.pools = [Tiles(regions, side, seed=regions.seed, mode=recipe.augmentation) for regions in pools]
        blank = [sample._replace(mask=np.zeros_like(sample.mask)) for sample in target]
        options = {"seed": stream_seed(recipe.seed, "target"), "mode": recipe.augmentation}
        self.target = Tiles(blank, side, **options) if blank else None

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0."""
        count = self.recipe.batch
        numbers = range(step * count, (step + 1) * count)
        images, masks = zip(*(self.pools[n % len(self.pools)][0, n] for n in numbers), strict=True)
        target = [self._unlabelled(n) for n in numbers] if self.target else [torch.zeros(0, *images[0].shape)]
        joined = torch.stack(target) if self.target else target[0]
        return Batch(torch.stack(images), torch.stack(masks), joined)

    def sha256(self) -> str:
        """Return one SHA-256, hexadecimal, of all micrographs that tiles are drawn from, and of the masks in use."""
        labelled = [pool.micrographs.micrographs for pool in self.pools]
        parts = [*labelled, self.target.micrographs if self.target else []]
        return arrays_sha256(array for part in parts for sample in part for array in sample)

    def _unlabelled(self, number: int) -> torch.Tensor:
        index = stream(self.recipe.seed, "target", number).integers(len(self.target))
        return self.target[number, int(index)][0]


class _Regions(Sequence):
    """Parts of labelled micrographs around a pixel of a class that is looked for, by running number.

    Sides are twice a tile's, so that a tile cut at random from one shows what was looked for more often than not.
    DEVIATION: near a border they are shorter, and what is cut from such a region is stretched to a tile, up to twice in
    one direction; at study size about three labelled tiles in ten are, in all arms alike, and no unlabelled one.
    """

    def __init__(self, micrographs: Sequence, recipe: Recipe, number: int):
        self.micrographs, self.side_px = micrographs, recipe.framing.side_px
        self.seed, self.count = stream_seed(recipe.seed, "labelled", number), recipe.steps * recipe.batch
        self.levels = [m.histogram if isinstance(m, Cut) else histogram([m.image]) for m in micrographs]
        counts = np.array([np.bincount(m.mask.ravel(), minlength=recipe.n_classes) for m in micrographs])
        self.holding = [np.flatnonzero(counts[:, c]) for c in range(recipe.n_classes)]
        wanted = np.exp((1 - counts.sum(0) / counts.sum()) / TEMPERATURE) * (counts.sum(0) > 0)
        self.wanted = wanted / wanted.sum()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Cut:
        rng = stream(self.seed, "region", number)
        wanted = int(rng.choice(len(self.wanted), p=self.wanted))
        index = int(rng.choice(self.holding[wanted]))
        if isinstance(tile := self.micrographs[index], Cut):  # has as much around it as augmentation asks for
            return tile
        image, mask = tile
        y, x = divmod(int(rng.choice(np.flatnonzero(mask == wanted))), mask.shape[1])
        window = np.s_[max(0, y - self.side_px) : y + self.side_px, max(0, x - self.side_px) : x + self.side_px]
        return Cut(image[window], mask[window], self.levels[index])


def adapt(
    network: nn.Module,
    draws: Draws,
    recipe: Recipe,
    *,
    folder: str | Path,
    watch: Callable[[nn.Module], dict[str, float]],
    device: str = "cpu",
) -> pd.DataFrame:
    """Train a network in place; called again with the same arguments after a kill, it goes on behind the last point.

    The checkpoint of a finished training stays, and the next call with the same arguments returns what it holds without
    a step: whoever calls removes it when all is written that the training was for.

    Parameters
    ----------
    network : torch.nn.Module
        With two `levels`: `micro_lib.models.deeplab.DeepLab` or `micro_lib.models.unet.TwoLevels`.
    draws : Draws
        Gives the tiles.
    recipe : Recipe
        Method, schedule, weights.
    folder : str or pathlib.Path
        Where the checkpoint `CHECKPOINT` lies.
    watch : callable
        Measures the network, in evaluation mode, at every point of the curve; returns numbers by name.
    device : str
        ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    pandas.DataFrame
        The curve, one row a point: step, seconds (of training since the last point), loss (on labelled tiles), the
        parts of the method's losses, all means since the last point; and what `watch` measured. A training whose loss
        was no finite number any more ends there, with the weights of its last point and a last row whose loss is NaN.

    Raises
    ------
    ValueError
        If the tiles are too small for the method.
    TrainingDiverged
        If the loss is no finite number before the first point.
    CheckpointMismatch
        If the folder holds the checkpoint of another training.
    """
    run = _Run(network.to(device, memory_format=torch.channels_last), recipe, draws, device)
    path, fingerprint = Path(folder) / CHECKPOINT, _fingerprint(network, draws, recipe)
    if saved := checkpoints.read(path, fingerprint):
        run.restore(saved)
    every = recipe.steps // recipe.points
    ends = [min((i + 1) * every, recipe.steps) for i in range(recipe.points - 1)] + [recipe.steps]
    ends = [end for end in ends if end > run.step and not run.is_lost]
    with progress(total=recipe.steps, initial=run.step, desc=recipe.method, unit="step") as bar, run.computing():
        for end in ends:
            state = run.state()
            if not run.until(end, bar):
                if not state["curve"]:
                    raise TrainingDiverged(f"the loss was no number before step {end}; lower the learning rate")
                run.restore(state)
                run.curve.append({"step": run.step, "seconds": 0.0, "loss": math.nan})
            else:
                network.eval()
                run.curve[-1] |= watch(network)
            checkpoints.write(path, run.state(), fingerprint)
            if run.is_lost:
                break
    network.eval()
    return pd.DataFrame(run.curve)


class _Run:
    """A training: what learns, where it is, what was measured."""

    def __init__(self, network: nn.Module, recipe: Recipe, draws: Draws, device: str):
        self.network, self.recipe, self.draws, self.device = network, recipe, draws, device
        options = (recipe.n_classes, recipe.weights, recipe.design)
        self.terms: Sequence[Term] = terms(recipe.method, network, *options).to(device)
        needed = max((term.smallest_px for term in self.terms), default=1)
        if recipe.framing.tile_px < needed:
            raise ValueError(f"{recipe.method!r} needs tiles of {needed} px; those of {recipe.framing} are smaller")
        groups = zip(parameter_groups(network), (recipe.encoder_rate, 1.0), strict=True)
        rates = [{"params": p, "lr": recipe.learning_rate * factor} for p, factor in groups]
        self.optimizers = [OPTIMIZERS[recipe.optimizer](rates)]
        self.optimizers += [term.optimizer for term in self.terms if term.optimizer]
        self.schedules = [
            LambdaLR(o, lambda t: max(0.0, 1 - t / recipe.steps) ** recipe.power) for o in self.optimizers
        ]
        self.student = Student(network, LOSSES[recipe.loss], recipe.weights, recipe.framing.centre, self.autocast)
        self.step, self.curve = 0, []

    @property
    def is_lost(self) -> bool:
        """It has ended at a loss that was no finite number."""
        return bool(self.curve) and math.isnan(self.curve[-1]["loss"])

    def autocast(self):
        return torch.autocast(self.device, torch.bfloat16, enabled=has_bfloat16(self.device))

    @contextmanager
    def computing(self):
        """Keep the convolutions that bfloat16 slows down on a CPU in float32; autocast is off behind the block."""
        modules = nn.ModuleList([self.network, *self.terms])
        hooks = float32_convolutions(modules) if self.device == "cpu" and has_bfloat16("cpu") else []
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            torch.set_autocast_enabled("cpu", False)

    def state(self) -> dict:
        """Return tensors and plain values to go on from, copies that later steps leave alone."""
        learners = {"network": self.network, "terms": self.terms}
        state = {name: {k: v.detach().cpu().clone() for k, v in m.state_dict().items()} for name, m in learners.items()}
        state |= {"optimizers": [_copied(o.state_dict()) for o in self.optimizers]}
        return state | {"step": self.step, "curve": [dict(row) for row in self.curve]}

    def restore(self, state: dict) -> None:
        """Go on from what `state` returned."""
        self.network.load_state_dict(state["network"])
        self.terms.load_state_dict(state["terms"])
        for optimizer, schedule, saved in zip(self.optimizers, self.schedules, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
            schedule.last_epoch = state["step"]
        self.step, self.curve = state["step"], list(state["curve"])

    def until(self, end: int, bar) -> bool:
        """Train up to step `end` and note the means; tell whether all losses were finite."""
        started, noted = time.perf_counter(), []
        self.network.train()
        self.terms.train()
        while self.step < end:
            noted.append(self._one())
            if not all(map(math.isfinite, noted[-1].values())):
                return False
            self.step += 1
            bar.update()
        means = pd.DataFrame(noted).mean().to_dict()
        self.curve.append({"step": end, "seconds": time.perf_counter() - started, **means})
        return True

    def _one(self) -> dict[str, float]:
        """Do one step and return the parts of its loss."""
        batch = Batch(*(tensor.to(self.device) for tensor in self.draws(self.step)))
        devices = [torch.cuda.current_device()] if self.device == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(stream_seed(self.recipe.seed, "step", self.step))
            parts = learn_once(self.student, self.terms, batch, self.optimizers[0])
        for schedule in self.schedules:
            schedule.step()
        return parts


def learn_once(
    student: Student, terms: Sequence[Term], batch: Batch, optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    """Do one step of a segmenter and of what its method learns; return the parts of the loss by name."""
    for term in terms:
        batch = batch._replace(images=term.labelled(batch))
    optimizer.zero_grad()
    forgotten = any(term.of_target_alone for term in terms)
    with statistics_kept(student.network) if forgotten else nullcontext():
        levels = student.levels(batch.images)
    loss = student.supervised(levels, batch.masks)
    loss.backward()
    parts = {"loss": as_float(loss)}
    for term in terms:  # one graph at a time keeps memory at that of a single pass
        added, seen = term.loss(student, batch)
        if added.requires_grad:
            added.backward()
        parts |= seen
    optimizer.step()
    source = type(levels)(*(logits.detach() for logits in levels))
    for term in terms:
        parts |= term.learn(source)
        term.follow(student.network)
    return parts


def troubles(curve: pd.DataFrame, source_share: float = 0.0) -> str:
    """Return what is wrong with a training as its curve shows it, without any target label; "" for nothing.

    Parameters
    ----------
    curve : pandas.DataFrame
        From `adapt`; of adversarial methods with discriminator_accuracy; where a target was watched with
        target_largest, the share of the commonest class in predictions on it.
    source_share : float
        That of the commonest class in the source's masks.
    """
    found, loss = [], curve["loss"]
    if loss.isna().any():
        found.append(f"loss no number after step {curve['step'].iloc[-1]}")
    elif loss.iloc[-1] > loss.min() + RISEN:
        found.append(f"labelled loss rose from {loss.min():.2f} to {loss.iloc[-1]:.2f}")
    if "discriminator_accuracy" in curve:
        right = curve["discriminator_accuracy"].dropna()
        if (late := right[len(right) // 2 :].mean()) >= WON:
            found.append(f"discriminators right in {late:.1%} of the second half: the domains did not come closer")
    if "target_largest" in curve:
        share = curve["target_largest"].dropna().iloc[-1]
        if share >= max(COLLAPSED, (1 + source_share) / 2):
            found.append(f"{share:.1%} of the target said to be one class")
    return "; ".join(found)


def _copied(state):
    if isinstance(state, dict):
        return {name: _copied(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return [_copied(value) for value in state]
    return state.detach().cpu().clone() if isinstance(state, torch.Tensor) else state


def _fingerprint(network: nn.Module, draws: Draws, recipe: Recipe) -> str:
    """Describe a training as text; two with the same one may continue each other."""
    first = arrays_sha256(tensor.numpy() for tensor in draws(0))  # what is made of the micrographs
    digests = {"start": checkpoints.start_sha256(network), "first_batch": first, "micrographs": draws.sha256()}
    return json.dumps({**asdict(recipe), **digests}, sort_keys=True)
