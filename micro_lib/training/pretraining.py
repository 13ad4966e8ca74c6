"""Training of a U-Net's encoder on pictures with labels of the whole, before it segments: Goetz et al. 2022, 2.4.2.

The encoder is put under an auxiliary head (average pool, 50 % dropout, linear, sigmoid) and trained by Adam at a
constant rate that is the same in all layers, without augmentation; its weights of the round with the lowest loss on
held-out pictures go on.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from segmentation_models_pytorch.base import ClassificationHead
from torch import nn

from micro_lib.core.hashes import arrays_sha256
from micro_lib.core.progress import progress
from micro_lib.core.seeds import stream_seed
from micro_lib.data.classified import standardised
from micro_lib.data.in_domain import Labels, collection, divided
from micro_lib.models import encoders, unet
from micro_lib.models.devices import device_name
from micro_lib.training.rounds import Batches, Rounds, Run, Schedule
from micro_lib.training.shared import Made, made_once, shared_path
from micro_lib.training.supervised import BFloat16, go_on, quiet, unvalidated_loaders

DROPOUT = 0.5
HISTORY = ("round", "steps", "loss", "held_out_loss", "score", "seconds", "process_seconds", "best")
JUDGED_AT_ONCE = 64  # pictures


class Classifier(nn.Module):
    """An encoder of a U-Net under the auxiliary head.

    Parameters
    ----------
    encoder : torch.nn.Module
        Of one of smp's U-Nets, see `micro_lib.models.unet.encoder_of`.
    n_targets : int
        Outputs.
    """

    def __init__(self, encoder: nn.Module, n_targets: int):
        super().__init__()
        self.encoder = encoder
        self.head = ClassificationHead(encoder.out_channels[-1], n_targets, pooling="avg", dropout=DROPOUT)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, n_targets), before the sigmoid, of images (B, 1, H, W)."""
        return self.head(self.encoder(images)[-1])


class Pictures(Batches):
    """Batches drawn at random, unchanged.

    Parameters
    ----------
    labels : Labels
        To draw from.
    schedule : Schedule
        Size and number of the batches.
    seed : int
        Of the batches.
    """

    name = "pictures"

    def __init__(self, labels: Labels, schedule: Schedule, seed: int):
        super().__init__(schedule, seed)
        self.labels = labels

    def make(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw images (B, 1, px, px) float32, standardised, and targets (B, K) float32."""
        chosen = rng.integers(len(self.labels.images), size=self.schedule.batch)
        images = torch.from_numpy(self.labels.images[chosen]).float()
        return standardised(images), torch.from_numpy(self.labels.targets[chosen])


def pretrained(
    folder: str | Path, *, architecture: str, weights: str, task: str, plan: Mapping, seed: int, device: str = "cpu"
) -> tuple[Path, dict]:
    """Return the file of an encoder trained in domain, made once for all runs that ask for the same, and its card.

    The card says what decided the training, pictures_sha256 of a task's own pictures among it, and score (see
    `judged`), seconds, process_seconds, pictures (their number), targets (their names), classes (whether they are).

    Parameters
    ----------
    folder : str or pathlib.Path
        Where the file is put: ``encoder.safetensors``, for `micro_lib.models.unet.build`.
    architecture : str
        One of smp's U-Nets, e.g. ``"lite0"``.
    weights : str
        What the encoder starts from: ``"imagenet"`` for the published two stages, ``"random"``.
    task : str
        As for `micro_lib.data.in_domain.collection`.
    plan : mapping
        n (generated pictures), px (their side), schedule (see `Schedule`).
    seed : int
        Of pictures, head and training.
    device : str
        ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    DataUnavailable
        If the pictures cannot be had.
    WeightsUnavailable
        If the ImageNet weights cannot be had.
    """
    schedule = Schedule(*plan["schedule"])
    key = {"architecture": architecture, "weights": weights, "task": task, "n": plan["n"], "px": plan["px"]}
    key |= {"schedule": list(schedule), "seed": seed, "device": device_name(device)}
    labels = collection(task, plan["n"], plan["px"], seed) if task == "folder" else None
    if labels:
        key["pictures_sha256"] = _digest(labels)

    def make() -> Made:
        training, held_out = divided(labels or collection(task, plan["n"], plan["px"], seed), seed)
        network = classifier(architecture, weights, training.targets.shape[1], seed)
        checkpoint = shared_path("pretraining", key).with_suffix(".pt")
        history = train(network, training, held_out, schedule, seed=seed, checkpoint=checkpoint, device=device)
        best = history[history["best"]].iloc[0]
        facts = {"score": float(best["score"]), **history[["seconds", "process_seconds"]].sum().to_dict()}
        facts |= {"pictures": len(training.images), "targets": list(training.names), "classes": training.are_classes}
        return Made(network.encoder.state_dict(), facts)

    made, path = made_once("pretraining", key, make), Path(folder) / f"encoder{encoders.SUFFIX}"
    encoder = unet.encoder_of(unet.build(architecture, weights="random"))
    encoder.load_state_dict(made.states)
    encoders.save(path, architecture, encoder, {**key, **made.facts})
    return path, {**key, **made.facts}


def classifier(architecture: str, weights: str, n_targets: int, seed: int) -> Classifier:
    """Return a `Classifier` on the encoder of a U-Net; weights as for `micro_lib.models.unet.build`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "classifier"))
        return Classifier(unet.encoder_of(unet.build(architecture, weights=weights)), n_targets)


def train(
    network: Classifier,
    training: Labels,
    held_out: Labels,
    schedule: Schedule,
    *,
    seed: int,
    checkpoint: str | Path,
    device: str = "cpu",
) -> pd.DataFrame:
    """Train a classifier in place and leave it with the weights of its best round.

    Called again with the same arguments after a kill, the training goes on behind the last round.

    Parameters
    ----------
    network : Classifier
        To be trained.
    training, held_out : Labels
        Pictures, see `micro_lib.data.in_domain.divided`.
    schedule : Schedule
        Steps, batch, rate, rounds.
    seed : int
        Of the batches and dropout.
    checkpoint : str or pathlib.Path
        File; removed at the end.
    device : str
        ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    pandas.DataFrame
        One row a round, columns `HISTORY`: loss and held_out_loss (binary cross-entropy), score (see `judged`),
        seconds and process_seconds of training, best (bool).

    Raises
    ------
    TrainingDiverged
        If the loss is no finite number any more.
    CheckpointMismatch
        If the checkpoint is of another training.
    """
    decisive = {"schedule": list(schedule), "seed": seed, "data": [_digest(training), _digest(held_out)]}
    run = Run(checkpoint, decisive, network)
    network.to(device)
    batches = Pictures(training, schedule, seed)
    learn = Learner(
        unvalidated_loaders(batches, device),
        network,
        loss_func=nn.functional.binary_cross_entropy_with_logits,
        opt_func=partial(OptimWrapper, opt=torch.optim.Adam),
        cbs=BFloat16(),
    )
    with progress(total=schedule.rounds * len(batches), initial=run.steps, desc="pre-training") as bar:
        if (done := len(run.history)) < schedule.rounds:
            watch = _Judged(run, batches, "round", bar, held_out=held_out)
            go_on(quiet(learn), partial(learn.fit, schedule.rounds, schedule.rate), watch, done)
    network.load_state_dict(run.best)
    run.path.unlink(missing_ok=True)
    return pd.DataFrame(run.history).assign(best=lambda t: t["round"] == _best(run.history))[list(HISTORY)]


@torch.inference_mode()
def judged(network: nn.Module, labels: Labels) -> tuple[float, float]:
    """Return the mean loss of a classifier on pictures, and its score.

    The score is the share of pictures whose class is found, or, of parameters, the mean over those that vary of the
    share of variance explained (below 0 where the mean would do better).
    """
    network.eval()
    device = next(network.parameters()).device
    images = torch.from_numpy(labels.images).split(JUDGED_AT_ONCE)
    logits = torch.cat([network(standardised(part.float()).to(device)).float().cpu() for part in images])
    targets = torch.from_numpy(labels.targets)
    loss = float(nn.functional.binary_cross_entropy_with_logits(logits, targets))
    if labels.are_classes:
        return loss, float((logits.argmax(1) == targets.argmax(1)).float().mean())
    varying = targets.var(0) > 0
    left = (logits.sigmoid() - targets).square().mean(0)[varying] / targets.var(0, correction=0)[varying]
    return loss, float(1 - left.mean())


class _Judged(Rounds):
    """Judge the network after each round, and keep its weights of the best."""

    def __init__(self, *args, held_out: Labels):
        super().__init__(*args)
        self.held_out = held_out

    def measured(self) -> dict:
        """Return what held-out pictures say."""
        loss, score = judged(self.model, self.held_out)
        if _best([*self.run.history, {"held_out_loss": loss}]) == self.epoch:
            self.run.best = {name: t.detach().cpu().clone() for name, t in self.model.state_dict().items()}
        return {"round": self.epoch, "held_out_loss": loss, "score": score}


def _best(history: Sequence[Mapping]) -> int:
    """Return the round with the lowest loss on held-out pictures."""
    return int(np.argmin([row["held_out_loss"] for row in history]))


def _digest(labels: Labels) -> str:
    return arrays_sha256([labels.images, labels.targets])
