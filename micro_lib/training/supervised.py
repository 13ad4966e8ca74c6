"""Supervised training by a schedule of stages, on fastai's Learner: one-cycle, frozen encoder, resumable, bfloat16."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from fastai.callback.core import Callback, CancelFitException, CancelValidException
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import fit_one_cycle, lr_find  # noqa: F401  importing adds both to Learner
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from segmentation_models_pytorch.losses import DiceLoss
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from micro_lib.analysis.metrics import confusion, mean_iou
from micro_lib.core.checks import one_of
from micro_lib.core.hashes import arrays_sha256
from micro_lib.core.profiles import Stage
from micro_lib.core.progress import progress
from micro_lib.core.seeds import stream_seed
from micro_lib.data.tiles import EpochSampler, FixedTiles, Labelled, Tiles, check_pair
from micro_lib.models.devices import float32_convolutions, has_bfloat16
from micro_lib.models.unet import parameter_groups
from micro_lib.training import checkpoints

CHECKPOINT = "checkpoint.pt"
# fastai 1.0.51's one-cycle and AdamW: basic_train.py, callbacks/one_cycle.py.
ONE_CYCLE = {"div": 25.0, "div_final": 25e4, "pct_start": 0.3, "moms": (0.95, 0.85, 0.95)}
WEIGHT_DECAY = 1e-2
ADAMW = {
    "opt_func": partial(OptimWrapper, opt=partial(torch.optim.AdamW, betas=(0.9, 0.99))),
    "wd": WEIGHT_DECAY,
}


class TrainingDiverged(RuntimeError):
    """The loss is not a finite number any more."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    stages : sequence of Stage
        Run one after the other, each with a one-cycle of its own; weights are passed on.
    batch : int
        Tiles a step.
    learning_rate : float
        Largest rate of the decoder; the encoder's is a tenth, as in fastai 1.0.51.
    seed : int
        Of the order of the tiles and all that is random about them.
    loss : str
        ``"cross_entropy"`` (Trampert et al. 2021 through fastai) or ``"cross_entropy+dice"``.
    """

    stages: Sequence[Stage]
    batch: int
    learning_rate: float
    seed: int
    loss: str = "cross_entropy"

    def __post_init__(self):
        one_of("loss", self.loss, LOSSES)
        if not self.stages:
            raise ValueError("a training needs at least one stage")


def train(
    network: nn.Module,
    training: Sequence[Labelled],
    validation: Sequence[Labelled],
    recipe: Recipe,
    *,
    folder: str | Path,
    device: str = "cpu",
) -> pd.DataFrame:
    """Train a network in place and leave it with the weights of its best epoch.

    The best epoch is that of the highest mean IoU on `validation` in the last stage. Every finished epoch is saved;
    called again with the same arguments after a kill, the training goes on behind the last one.

    Parameters
    ----------
    network : torch.nn.Module
        Made by `micro_lib.models.unet.build`; maps (B, 1, H, W) to (B, C, H, W) logits.
    training, validation : sequence of Labelled
        Micrographs with masks of class ids below C.
    recipe : Recipe
        Schedule, batch, rates, loss, seed.
    folder : str or pathlib.Path
        Where the checkpoint lies. It stays: of a finished training, called again, it gives the result at once. Whoever
        has stored that result removes it.
    device : str
        ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    pandas.DataFrame
        One row an epoch: stage, px, mode, frozen, epoch, steps, images, train_loss, valid_loss, valid_miou, seconds,
        train_per_s (tiles trained a second, loading included), loader_per_s (tiles one process makes a second),
        waited (share of the training time spent waiting for tiles), best (bool).

    Raises
    ------
    ValueError
        If there are no micrographs to train or to validate on, or one's image and mask differ in size.
    TrainingDiverged
        If the loss becomes NaN or infinite.
    CheckpointMismatch
        If the folder holds the checkpoint of another training: other recipe, micrographs or start weights.
    """
    for name, part in (("training", training), ("validation", validation)):
        _check(part, name)
    run = _Run(Path(folder) / CHECKPOINT, recipe, _fingerprint(network, training, validation, recipe))
    network.to(device)  # before an optimiser gets its state, which goes where the parameters are
    run.restore(network)
    total = sum(stage.epochs for stage in recipe.stages) * _steps(training, recipe)
    with _progress(total, run) as bar:
        for number in range(run.stage, len(recipe.stages)):
            _train_stage(network, (training, validation), recipe, number, run, bar, device)
    network.load_state_dict(run.best)
    history = pd.DataFrame(run.history)
    history["best"] = history.index == run.best_row
    return history


def learner(
    network: nn.Module, data: tuple[Sequence, Sequence], recipe: Recipe, stage: Stage, device: str = "cpu"
) -> Learner:
    """Return the fastai Learner of one stage, e.g. for `learner(...).lr_find()`.

    Parameters
    ----------
    network, recipe, device
        As for `train`.
    data : (sequence of Labelled, sequence of Labelled)
        Training and validation micrographs.
    stage : Stage
        Sets the tiles and whether the encoder is frozen.

    Returns
    -------
    fastai.learner.Learner
        With discriminative rates, weight decay and bfloat16 where the processor has it.
    """
    tiles = Tiles(data[0], stage.px, seed=recipe.seed, mode=stage.mode)
    fixed = FixedTiles(data[1], stage.px, mode=stage.mode)
    sampler = EpochSampler(len(tiles), seed=recipe.seed)
    loader = partial(DataLoader, batch_size=min(recipe.batch, len(tiles)))
    loaders = DataLoaders(loader(tiles, sampler=sampler, drop_last=True), loader(fixed))
    loaders.train.device = torch.device(device)  # where fastai looks for it
    result = Learner(
        loaders,
        network,
        loss_func=LOSSES[recipe.loss],
        lr=recipe.learning_rate,
        splitter=parameter_groups,
        cbs=BFloat16(),
        **ADAMW,
    )
    result.freeze() if stage.frozen else result.unfreeze()
    return quiet(result)


def quiet(learn: Learner) -> Learner:
    """Return a learner without fastai's progress bar and log: trainings have a bar of their own."""
    learn.remove_cb(ProgressCallback)
    learn.logger = lambda row: None
    return learn


def unvalidated_loaders(batches: Dataset, device: str | torch.device) -> DataLoaders:
    """Return fastai's loaders of whole batches, one an item, for a training with `Unvalidated`."""
    loader = DataLoader(batches, batch_size=None)
    loader.device = torch.device(device)  # where fastai looks for it
    return DataLoaders(loader, loader)


def go_on(learn: Learner, fit: Callable, watch: Callback, done: int) -> None:
    """Train on behind the last finished epoch; whatever happens, autocast is off afterwards.

    Parameters
    ----------
    learn : fastai.learner.Learner
        With the network as it was after `done` epochs.
    fit : callable
        Its way to train, all but for the arguments `cbs` and `start_epoch`.
    watch : fastai.callback.core.Callback
        Its `diverged` says in words why it stopped the training; its `run` holds the state of the optimiser where
        epochs are done.
    done : int
        Finished epochs.

    Raises
    ------
    TrainingDiverged
        If the callback stopped the training.
    """
    if done:
        if learn.opt is None:
            learn.create_opt()
        learn.opt.load_state_dict(watch.run.optimizer)
    try:
        fit(cbs=watch, start_epoch=done)
    finally:
        torch.set_autocast_enabled(learn.dls.device.type, False)  # an error inside a forward pass leaves it on
    if watch.diverged:
        raise TrainingDiverged(watch.diverged)


class Watched(Callback):
    """Stop a training whose loss is no number.

    Parameters
    ----------
    bar : tqdm.tqdm
        To be moved a step at a time.
    place : str
        Where the training is, and what to do about a loss that is no number there.
    """

    def __init__(self, bar: tqdm, place: str = ""):
        self.bar, self.place, self.diverged = bar, place, ""

    def after_loss(self):
        """Stop, with words for `go_on` to raise, when the training loss is not finite."""
        if self.training and not torch.isfinite(self.loss):
            self.diverged = f"the loss became {float(self.loss.detach())} in {self.where()}"
            raise CancelFitException()

    def where(self) -> str:
        """Return where the training is, and what to do about a loss that is no number there."""
        return self.place


class Unvalidated(Watched):
    """Move the progress bar, skip fastai's validation: for trainings in which nothing is selected on."""

    def after_batch(self):
        """Count a step."""
        self.bar.update()

    def before_validate(self):
        """Go on without."""
        raise CancelValidException


class BFloat16(Callback):
    """Forward passes in bfloat16 with channels last, where the processor computes in it; fastai's knows GPUs alone."""

    order = 10  # after fastai's CastToTensor

    def before_fit(self):
        """Arrange the weights and wrap the convolutions that bfloat16 slows down."""
        self.device = self.dls.device.type
        self.active = has_bfloat16(self.device)
        self.learn.model.to(memory_format=torch.channels_last)
        self.hooks = float32_convolutions(self.model) if self.active and self.device == "cpu" else []

    def before_batch(self):
        """Enter autocast."""
        self.learn.xb = tuple(x.to(memory_format=torch.channels_last) for x in self.xb)
        self.autocast = torch.autocast(self.device, torch.bfloat16, enabled=self.active)
        self.autocast.__enter__()

    def after_pred(self):
        """Leave autocast; the loss is computed in float32."""
        self.autocast.__exit__(None, None, None)
        self.learn.pred = self.pred.float()

    def after_fit(self):
        """Take the wrappers off."""
        for hook in self.hooks:
            hook.remove()


def _cross_entropy(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits, mask)  # (B, C, H, W), (B, H, W) int64


def _cross_entropy_dice(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return _cross_entropy(logits, mask) + DiceLoss("multiclass")(logits, mask)


LOSSES: dict[str, Callable] = {"cross_entropy": _cross_entropy, "cross_entropy+dice": _cross_entropy_dice}


@dataclass
class _Run:
    """State of a training that a checkpoint holds: where it is, its best weights, its history."""

    path: Path
    recipe: Recipe
    fingerprint: str  # of all that decides the result
    stage: int = 0
    epoch: int = 0  # finished epochs of the stage
    optimizer: dict | None = None
    best: dict | None = None
    best_row: int = -1
    history: list = field(default_factory=list)

    def restore(self, network: nn.Module) -> None:
        """Load the checkpoint, if there is one; a damaged one is reported and the training starts afresh."""
        saved = checkpoints.read(self.path, self.fingerprint)
        if saved is None:
            return
        network.load_state_dict(saved["network"])
        self.stage, self.epoch, self.optimizer = saved["stage"], saved["epoch"], saved["optimizer"]
        self.best, self.best_row, self.history = saved["best"], saved["best_row"], saved["history"]

    def save(self, network: nn.Module) -> None:
        """Write everything, atomically."""
        state = {name: getattr(self, name) for name in ("stage", "epoch", "optimizer", "best", "best_row", "history")}
        checkpoints.write(self.path, {**state, "network": network.state_dict()}, self.fingerprint)


class _Epochs(Watched):
    """Number the epochs for the sampler, measure them, keep the best one and save the run after each."""

    order = 60

    def __init__(self, run: _Run, number: int, before: int, bar: tqdm):
        super().__init__(bar)
        self.run, self.number, self.before = run, number, before

    def before_train(self):
        """Point the sampler at this epoch."""
        epoch = self.before + self.epoch
        self.dls.train.sampler.epoch = epoch
        torch.manual_seed(stream_seed(self.run.recipe.seed, "epoch", epoch))
        self.losses, self.waited, self.matrix, self.valid_losses = [], 0.0, 0, []
        self.started = self.stepped = time.perf_counter()

    def before_batch(self):
        """Count how long this batch was waited for."""
        self.waited += time.perf_counter() - self.stepped if self.training else 0.0

    def where(self) -> str:
        """Return where the training is, and what to do about a loss that is no number there."""
        return (
            f"step {self.iter + 1} of epoch {self.epoch + 1} of stage {self.number + 1}; lower the learning rate (now "
            f"{self.opt.hypers[-1]['lr']:.2g}) or look for broken images; the run in this folder goes on behind its "
            "last finished epoch"
        )

    def after_batch(self):
        """Note the loss, and in validation the confusion matrix."""
        if self.training:
            self.losses.append(float(self.loss.detach()))
            self.stepped = time.perf_counter()
            self.bar.update()
        else:
            true, pred = (t.cpu().numpy().astype("uint8") for t in (self.y, self.pred.argmax(1)))
            self.matrix = self.matrix + confusion(true, pred, self.pred.shape[1])
            self.valid_losses.append(float(self.loss) * len(true))

    def after_train(self):
        """Measure the rates of this epoch."""
        self.seconds = time.perf_counter() - self.started
        self.images = len(self.losses) * self.dls.train.batch_size

    def after_validate(self):
        """Write the row of this epoch, keep the network if it is the best, save."""
        run, stage = self.run, self.run.recipe.stages[self.number]
        row = {"stage": self.number, **stage._asdict(), "epoch": self.epoch, "steps": len(self.losses)}
        row.pop("epochs")
        row |= {"images": self.images, "train_loss": sum(self.losses) / len(self.losses)}
        row |= {"valid_loss": sum(self.valid_losses) / len(self.dls.valid.dataset)}
        row |= {"valid_miou": float(mean_iou(self.matrix)), "seconds": self.seconds}
        row |= {"train_per_s": self.images / self.seconds, "loader_per_s": self.loader_rate()}
        row |= {"waited": self.waited / self.seconds}
        run.history.append(row)
        if self.is_best(row["valid_miou"]):
            run.best = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
            run.best_row = len(run.history) - 1
        run.stage, run.epoch, run.optimizer = self.number, self.epoch + 1, self.opt.state_dict()
        run.save(self.model)
        self.bar.set_postfix(loss=f"{row['train_loss']:.3f}", miou=f"{row['valid_miou']:.3f}")

    def is_best(self, miou: float) -> bool:
        """Tell whether this epoch beats those of its stage; a later stage always replaces an earlier one."""
        best = self.run.history[self.run.best_row] if self.run.best is not None else None
        return best is None or best["stage"] < self.number or miou > best["valid_miou"]

    def loader_rate(self) -> float:
        """Tiles a second that one process makes, measured on a few that are not used."""
        tiles, started = self.dls.train.dataset, time.perf_counter()
        count = min(8, len(tiles))
        for i in range(count):
            tiles[self.before + self.epoch, i]
        return count / (time.perf_counter() - started)


def _train_stage(network, data, recipe: Recipe, number: int, run: _Run, bar: tqdm, device: str) -> None:
    """Run what is left of one stage."""
    stage = recipe.stages[number]
    done = run.epoch if run.stage == number else 0
    if done == stage.epochs:
        return
    learn = learner(network, data, recipe, stage, device)
    watch = _Epochs(run, number, sum(s.epochs for s in recipe.stages[:number]), bar)
    go_on(learn, partial(learn.fit_one_cycle, stage.epochs, slice(recipe.learning_rate), **ONE_CYCLE), watch, done)


def _check(micrographs: Sequence[Labelled], name: str) -> None:
    if len(micrographs) == 0:
        raise ValueError(f"no {name} micrographs were given; at least one is needed")
    for number, micrograph in enumerate(micrographs):
        check_pair(micrograph, f"{name} micrograph {number}")


def _fingerprint(network: nn.Module, training: Sequence, validation: Sequence, recipe: Recipe) -> str:
    """Describe a training as text; two with the same one may continue each other."""
    decisive = {**vars(recipe), "stages": [list(stage) for stage in recipe.stages]}
    decisive["images"] = [len(training), len(validation)]
    decisive["start"] = checkpoints.start_sha256(network)
    decisive["data"] = arrays_sha256(array for pair in (*training, *validation) for array in pair)
    return json.dumps(decisive, sort_keys=True)


def _steps(training: Sequence, recipe: Recipe) -> int:
    return len(training) // min(recipe.batch, len(training))


def _progress(total: int, run: _Run) -> tqdm:
    done = sum(row["steps"] for row in run.history)
    return progress(total=total, initial=done, desc="training", unit="step")
