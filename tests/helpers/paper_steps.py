"""One step of every published training at a batch that fits here, by the code that trains: ``paper_steps.py NAME``."""

import contextlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from micro_lib.application.protocol import NANOSEM_CLASSES
from micro_lib.core.labels import GRAIN_BOUNDARY
from micro_lib.core.profiles import settings
from micro_lib.core.seeds import stream
from micro_lib.data.classified import Classified
from micro_lib.data.framing import Framing
from micro_lib.data.in_domain import Labels
from micro_lib.data.tiles import Labelled
from micro_lib.models import devices, unet
from micro_lib.models.joint_generator import GeneratorCard, JointGenerator
from micro_lib.training import adaptation, cracks, generative, pretraining, supervised
from micro_lib.training.adaptation_loop import OPTIMIZERS, learn_once
from micro_lib.training.adaptation_methods import Batch, Design, Student, Weights, terms
from micro_lib.training.rounds import Schedule


class Step(NamedTuple):
    """How much of a published step is done here, and the memory it may take."""

    batch: int  # images, of each domain where there are two
    gigabytes: float
    experiment: str
    of_batch: str = "batch"  # what the published one is called among the settings

    @property
    def published(self) -> int:
        """The batch of the paper profile."""
        plan = settings(self.experiment, "paper")
        return Schedule(*plan["pretraining"]["schedule"]).batch if self.of_batch == "pictures" else plan[self.of_batch]


STEPS = {
    "resnet50": Step(64, 6, "cracks", "synthetic_batch"),  # also the batch published for real tiles
    "dynamic_resnet50": Step(1, 12, "grains"),
    "vqvae": Step(16, 4, "joint", "vq_batch"),
    "pixelcnn": Step(16, 4, "joint", "prior_batch"),
    "vgg16 encoder": Step(2, 4, "source", "pictures"),
    "vgg16": Step(1, 8, "source"),
    "deeplabv2": Step(1, 12, "adaptation"),
    "adaptsegnet": Step(1, 14, "adaptation"),
}


def micrograph(px: int) -> Labelled:
    """Return a square micrograph of two grey levels."""
    mask = (stream(1, "paper").random((px // 4, px // 4)) < 0.3).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    return Labelled((200 - 90 * mask).astype(np.uint8), mask)


@contextlib.contextmanager
def timed(row: dict) -> Iterator[None]:
    """Note the processor time of what is done inside."""
    started = time.process_time()
    yield
    row["seconds"] = time.process_time() - started


def classifier(row: dict, batch: int) -> nn.Module:
    """Do a step on crack tiles, head and body."""
    plan, px = settings("cracks", "paper"), 128
    tiles = Classified(np.stack([micrograph(px).image] * batch), np.arange(batch) % 2)
    configuration = {**cracks.complete("real"), "weights": "random"}
    setting = cracks.Setting(configuration, plan, 1, cracks.real_tiles("generated"))
    with timed(row):
        learn = cracks.train(setting, tiles, (cracks.Stage(1, False),), batch, 1e-3)
    row["loss"] = float(learn.recorder.losses[0])
    return learn.model


def grains(row: dict, batch: int) -> nn.Module:
    """Do a step of the last stage of progressive resizing."""
    plan = settings("grains", "paper")
    network = unet.build(plan["architecture"], weights="random")
    recipe = supervised.Recipe(stages=plan["stages"], batch=batch, learning_rate=1e-3, seed=1, loss=plan["loss"])
    data = [micrograph(plan["image_px"])] * batch
    learn = supervised.learner(network, (data, data[:1]), recipe, plan["stages"][-1])
    with timed(row):
        learn.fit(1)
    row["loss"] = float(learn.recorder.losses[0])
    return network


def joint(row: dict, batch: int, *, stage: str) -> nn.Module:
    """Train both networks of the joint generator for a step each; the time is that of both."""
    plan = settings("joint", "paper")
    sizes = {name: plan[name] for name in ("n_codes", "code_dim", "hidden")} | {"down": 8}
    prior = {"channels": plan["channels"], "layers": plan["layers"], "dropout": plan["dropout"], "n_conditions": 0}
    generator = JointGenerator(GeneratorCard(GRAIN_BOUNDARY, sizes, prior, plan["px"]))
    schedules = {name: generative.Schedule(1, batch, 1e-4, 1) for name in ("vqvae", "prior")}
    with timed(row), tempfile.TemporaryDirectory() as folder:
        history = generative.train(
            generator,
            [micrograph(256)],
            schedules,
            n_crops=batch,
            texture=False,
            seed=1,
            checkpoint=Path(folder) / "run.pt",
        )
    row["loss"] = float(history.loc[history["stage"] == stage, "loss"].iloc[0])
    return getattr(generator, stage)


def pictures(row: dict, batch: int) -> nn.Module:
    """Do a step of the encoder's training on pictures with classes."""
    px = settings("source", "paper")["pretraining"]["px"]
    targets = np.eye(NANOSEM_CLASSES, dtype=np.float32)[np.arange(batch)]
    labels = Labels(np.stack([micrograph(px).image] * batch), targets, tuple(map(str, range(NANOSEM_CLASSES))))
    network = pretraining.classifier("vgg16", "random", NANOSEM_CLASSES, 1)
    with timed(row), tempfile.TemporaryDirectory() as folder:
        plan = Schedule(1, batch, 1e-4, 1)
        history = pretraining.train(network, labels, labels, plan, seed=1, checkpoint=Path(folder) / "run.pt")
    row["loss"] = float(history["loss"].iloc[0])
    return network


def segmenter(row: dict, batch: int, *, experiment: str, method: str) -> nn.Module:
    """Do a step on published tiles: supervised on the source, or of AdaptSegNet on both domains with discriminators."""
    plan = settings(experiment, "paper")
    framing = Framing(0.5, *plan["tile"])
    network = adaptation.build(plan["architecture"], 2, "random")
    network.to(memory_format=torch.channels_last).train()
    images = torch.randn(2, batch, 1, framing.side_px, framing.side_px)
    seen = Batch(images[0], (images[0, :, 0] > 0).long(), images[1])
    autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=devices.has_bfloat16("cpu"))
    student = Student(network, supervised.LOSSES[plan["loss"]], Weights(), framing.centre, autocast)
    parts = terms(method, network, 2, Weights(), Design())
    optimizer = OPTIMIZERS[plan["optimizer"]]([{"params": list(network.parameters()), "lr": 1e-4}])
    with timed(row):
        row["loss"] = learn_once(student, parts, seen, optimizer)["loss"]
    row |= {"side_px": framing.side_px, "terms": len(parts)}
    return network


TRAININGS = {
    "resnet50": classifier,
    "dynamic_resnet50": grains,
    "vqvae": partial(joint, stage="vqvae"),
    "pixelcnn": partial(joint, stage="prior"),
    "vgg16 encoder": pictures,
    "vgg16": partial(segmenter, experiment="source", method="none"),
    "deeplabv2": partial(segmenter, experiment="adaptation", method="none"),
    "adaptsegnet": partial(segmenter, experiment="adaptation", method="AdaptSegNet"),
}


def main(name: str) -> dict:
    """Do the step of one network; return loss, seconds, whether all weights are finite and the peak of memory."""
    torch.manual_seed(1)
    row: dict = {}
    network = TRAININGS[name](row, STEPS[name].batch)
    row["finite"] = all(bool(torch.isfinite(p).all()) for p in network.parameters())
    return row | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
