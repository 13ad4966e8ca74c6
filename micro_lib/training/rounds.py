"""Trainings in rounds of random batches, each of which goes on behind its last finished round."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from micro_lib.core.progress import Stopwatch
from micro_lib.core.seeds import stream, stream_seed
from micro_lib.training import checkpoints
from micro_lib.training.supervised import Unvalidated


class Schedule(NamedTuple):
    """How a network is trained."""

    steps: int
    batch: int  # samples a step
    rate: float  # learning rate; of a one-cycle the largest
    rounds: int  # an epoch, as far as random batches have any: each ends with a row of the history and a checkpoint


class Batches(Dataset):
    """Random batches of one round; `epoch`, its number, is set from outside.

    Batch i is a function of seed, `epoch` and i. A subclass draws it in ``make(rng)``.
    """

    name = ""  # of the random stream

    def __init__(self, schedule: Schedule, seed: int):
        self.schedule, self.seed, self.epoch = schedule, seed, 0

    def __len__(self) -> int:
        return max(1, self.schedule.steps // self.schedule.rounds)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, ...]:
        if not 0 <= i < len(self):
            raise IndexError(f"batch {i} of {len(self)}")
        return self.make(stream(self.seed, self.name, self.epoch, i))


class Run:
    """A training and where it is; all of that lies in its checkpoint, which is read here if there is one.

    Parameters
    ----------
    path : str or pathlib.Path
        The checkpoint.
    decisive : mapping
        Plain values: all that decides the result.
    network : torch.nn.Module
        Or several in one, as training starts; gets the weights of the checkpoint.

    Raises
    ------
    CheckpointMismatch
        If the checkpoint is of another training.
    """

    def __init__(self, path: str | Path, decisive: Mapping, network: nn.Module):
        decisive = {**decisive, "start": checkpoints.start_sha256(network)}
        self.path, self.fingerprint, self.network = Path(path), json.dumps(decisive, sort_keys=True), network
        self.history, self.optimizer, self.best = [], None, {}  # rows, states, weights to end with if not the last
        if saved := checkpoints.read(self.path, self.fingerprint):
            network.load_state_dict(saved["network"])
            self.history, self.optimizer, self.best = saved["history"], saved["optimizer"], saved["best"]

    @property
    def steps(self) -> int:
        """Steps taken."""
        return sum(row["steps"] for row in self.history)

    def save(self) -> None:
        """Write everything, atomically."""
        state = {"network": self.network.state_dict(), "history": self.history, "optimizer": self.optimizer}
        checkpoints.write(self.path, {**state, "best": self.best}, self.fingerprint)


class Rounds(Unvalidated):
    """Number the rounds for the batches and save the run after each.

    Parameters
    ----------
    run, batches
        Of the training.
    stage : str
        Names the stream that dropout and the like draw from.
    bar : tqdm.tqdm
        Is moved a step at a time.
    """

    order = 60

    def __init__(self, run: Run, batches: Batches, stage: str, bar):
        super().__init__(bar)
        self.run, self.batches, self.stage = run, batches, stage

    def before_train(self):
        """Point the batches at this round, and the network's own randomness at numbers of its own."""
        self.batches.epoch = self.epoch
        torch.manual_seed(stream_seed(self.batches.seed, self.stage, self.epoch))
        self.losses, self.watch = [], Stopwatch()

    def where(self) -> str:
        """Return where the training is, and what to do about a loss that is no number there."""
        return f"round {self.epoch + 1}; lower the learning rate"

    def after_batch(self):
        """Note the loss."""
        self.losses.append(float(self.loss.detach()))
        super().after_batch()

    def after_train(self):
        """Write the row of this round and save."""
        row = {"steps": len(self.losses), "loss": float(np.mean(self.losses)), **self.watch.read()}
        self.run.history.append(row | self.measured())
        self.run.optimizer = self.opt.state_dict()
        self.run.save()
        self.bar.set_postfix(loss=f"{row['loss']:.3f}")

    def measured(self) -> dict:
        """Return what else belongs in the row of this round."""
        return {}
