"""What the published protocols ask for and cost: every training of the `paper` profile planned, checked, counted.

Published batches are never allocated: shapes and floating-point operations are worked out on PyTorch's meta device.
What a full run would take is therefore an extrapolation of counted operations: to a stated rate of a GPU, and to the
rate of this processor, which is measured on a small step of each network.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pandas as pd
import torch
from fastai.vision.learner import create_vision_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from micro_lib.application.published import answering, cell, untestable_level
from micro_lib.core.labels import GRAIN_BOUNDARY
from micro_lib.core.profiles import settings
from micro_lib.core.progress import progress
from micro_lib.models import classifier, deeplab, unet
from micro_lib.models.devices import has_bfloat16
from micro_lib.models.discriminator import discriminator
from micro_lib.models.pixelcnn import GatedPixelCNN
from micro_lib.models.vqvae import VQVAE
from micro_lib.training import cracks, pretraining
from micro_lib.training.rounds import Schedule

# Operations a second that training sustains: 0.3 of what an NVIDIA A100 does in TF32 by its data sheet, 156e12. An
# assumption, not a measurement.
SUSTAINED_PER_S = 0.3 * 156e12
N_REAL_CRACK_TILES = 357  # Trampert et al. 2021, section 3.1.2
TARGETS = 3  # Goetz et al. 2022: T1, T2, T3
PUBLISHED_FOLDS = 5
CODE_PX = 8
MEASURED_BATCH, MEASURED_PX, MEASURED_CODES = 4, 128, 16  # of the steps that `rates` times
NANOSEM_CLASSES = 10
ADAPTED, SUPERVISED = "AdaptSegNet", "source, DeepLabv2"  # phases


class Phase(NamedTuple):
    """A stretch of a published training, of equal steps."""

    where: str  # paper and section or table
    name: str
    network: str  # of `NETWORKS`
    batch: int
    px: int  # side of the images
    steps: int  # of one run
    runs: int
    is_frozen: bool = False  # the encoder keeps its weights


class Network(NamedTuple):
    """A network with what a step puts through it."""

    build: Callable[[], nn.Module]  # with random weights
    passed: Callable[[nn.Module, int, int], torch.Tensor]  # (network, batch, px) -> all outputs, to be differentiated
    encoder: Callable[[nn.Module], nn.Module]  # what a frozen phase keeps


def phases() -> list[Phase]:
    """Return the trainings of the `paper` profile, paper by paper."""
    return [*_crack_phases(), *_grain_phases(), *_joint_phases(), *_adaptation_phases()]


def _crack_phases() -> list[Phase]:
    plan, where = settings("cracks", "paper"), "Trampert 2021, Table 1"
    runs, found = len(plan["seeds"]), []
    for name, stages, batch, arms in (
        ("synthetic tiles", cracks.synthetic_stages(plan), plan["synthetic_batch"], 1),
        ("real tiles, of the arms real and mixed", cracks.real_stages(plan, N_REAL_CRACK_TILES), plan["real_batch"], 2),
    ):
        for stage in stages:
            part = "head" if stage.frozen else "all"
            label = f"{name}, {part}"
            found.append(Phase(where, label, plan["architecture"], batch, 128, stage.steps, arms * runs, stage.frozen))
    return found


def _grain_phases() -> list[Phase]:
    plan, further = settings("grains", "paper"), settings("adaptive", "paper")
    found = []
    for stage in plan["stages"]:
        steps = stage.epochs * plan["n_train"] // plan["batch"]
        label, network = f"{stage.px} px", plan["architecture"]
        found.append(
            Phase(
                "Trampert 2021, 3.2.2",
                label,
                network,
                plan["batch"],
                stage.px,
                steps,
                len(plan["seeds"]),
                stage.frozen,
            )
        )
    stage, runs = further["finetune"], 2 * len(further["seeds"])  # random and adaptive
    steps = stage.epochs * further["finetune_images"] // further["batch"]
    network = further["architecture"]
    return [
        *found,
        Phase("Trampert 2021, Table 2", "fine-tuning", network, further["batch"], stage.px, steps, runs),
    ]


def _joint_phases() -> list[Phase]:
    plan, where = settings("joint", "paper"), "Noguchi & Inoue 2021 (for Volman Stern 2024)"
    runs, px = len(plan["seeds"]) // 3, plan["px"]  # three U-Nets a generator
    return [
        Phase(where, "VQ-VAE", "vqvae", plan["vq_batch"], px, plan["vq_steps"], runs),
        Phase(where, "prior", "pixelcnn", plan["prior_batch"], px // CODE_PX, plan["prior_steps"], runs),
    ]


def _adaptation_phases() -> list[Phase]:
    plan = settings("adaptation", "paper")
    px, batch = plan["tile"][0] + 2 * plan["tile"][1], plan["batch"]
    where, first = "Goetz 2022, Tables 2 to 5", settings("source", "paper")
    pictures = first["pretraining"]
    schedule = Schedule(*pictures["schedule"])
    pictured = (schedule.batch, pictures["px"], schedule.steps, PUBLISHED_FOLDS)  # one for S.7 to S.9 of a fold
    return [
        Phase(where, SUPERVISED, "deeplabv2", batch, px, plan["source_steps"], PUBLISHED_FOLDS),
        Phase(where, "NanoSEM, before S.7 to S.9", "vgg16 encoder", *pictured),
        Phase(where, "source, S.1 to S.9 but S.3", "vgg16", first["batch"], px, first["steps"], 8 * PUBLISHED_FOLDS),
        Phase(where, "source, S.3", "vgg16", first["batch"], px, 2 * first["steps"], PUBLISHED_FOLDS),  # section 3.1
        Phase(where, ADAPTED, "adaptsegnet", batch, px, plan["steps"], TARGETS * PUBLISHED_FOLDS),
    ]


def cost(phase: Phase) -> dict:
    """Return what one phase asks for, without allocating its network.

    Parameters
    ----------
    phase : Phase
        Of `phases`.

    Returns
    -------
    dict
        where, name, network, batch, px, steps, runs, parameters (number), operations (floating-point, of one step:
        forward and backward, as PyTorch counts them) and gpu_hours (all runs at `SUSTAINED_PER_S`, an extrapolation).
    """
    network = NETWORKS[phase.network]
    with torch.device("meta"):
        made = network.build().to("meta").train()  # some initialisers draw elsewhere
        if phase.is_frozen:
            network.encoder(made).requires_grad_(False)
        operations = _operations(network, made, phase.batch, phase.px)
    row = {key: value for key, value in phase._asdict().items() if key != "is_frozen"}
    row |= {"parameters": sum(p.numel() for p in made.parameters()), "operations": operations}
    return row | {"gpu_hours": operations * phase.steps * phase.runs / SUSTAINED_PER_S / 3600}


def costs() -> pd.DataFrame:
    """Return `cost` of every phase, one row each."""
    return pd.DataFrame([cost(phase) for phase in progress(phases(), desc="counting operations", unit="phase")])


def _operations(network: "Network", made: nn.Module, batch: int, px: int) -> int:
    with FlopCounterMode(display=False) as counted:
        network.passed(made, batch, px).backward()
    return counted.get_total_flops()


def rates() -> pd.DataFrame:
    """Measure how many operations a second one core of this machine sustains in training, network by network.

    Returns
    -------
    pandas.DataFrame
        network, batch, px (of the step measured, which fits anywhere), operations (counted), core_seconds (processor
        time of all threads together; the second of two steps, forward and backward, in bfloat16 where the processor has
        it) and operations_per_s.
    """
    rows = []
    for name, network in progress(NETWORKS.items(), desc="measuring steps", unit="network"):
        batch, px = MEASURED_BATCH, MEASURED_CODES if name == "pixelcnn" else MEASURED_PX
        made = network.build().to(memory_format=torch.channels_last).train()
        for _ in range(2):  # the first one allocates
            started = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16("cpu")):
                total = network.passed(made, batch, px)
            total.backward()
            spent = time.process_time() - started
        row = {"network": name, "batch": batch, "px": px, "operations": _operations(network, made, batch, px)}
        rows.append(row | {"core_seconds": spent, "operations_per_s": row["operations"] / spent})
    return pd.DataFrame(rows)


def with_core_hours(costs: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """Return costs with core_hours: all steps of all runs at the rate measured here, an extrapolation.

    Parameters
    ----------
    costs, rates : pandas.DataFrame
        From the functions of these names.
    """
    rate = costs["network"].map(rates.set_index("network")["operations_per_s"])
    return costs.assign(core_hours=costs["gpu_hours"] * SUSTAINED_PER_S / rate)


def claims(costs: pd.DataFrame) -> list[dict]:
    """Return claims on the hours that Goetz et al. 2022 name for a training, see `costs`: ours stand beside, unjudged.

    Returns
    -------
    list of dict
        For `micro_lib.application.tables.claim_rows`.
    """
    rows = []
    for phase, item in ((ADAPTED, "AdaptSegNet"), (SUPERVISED, "supervised DeepLabv2")):
        theirs, row = cell("Goetz 2022", "section 4.3", "typical training", item), costs.set_index("name").loc[phase]
        found = {"ours": row["gpu_hours"] / row["runs"], "n": 1, "over": "counted protocols", "unit": "h"}
        why = "theirs on a node of four A100 (section 2.4.1), whether one training used all four is not said; ours are "
        why += f"hours of one, counted operations at {SUSTAINED_PER_S:.2g} a second, nothing run"
        rows.append({**answering(theirs), "claim": f"hours of a training: {item}", **untestable_level(found, why)})
    return rows


def _logits(network: nn.Module, batch: int, px: int) -> torch.Tensor:
    return network(torch.zeros(batch, 1, px, px)).sum()


def _joined(network: VQVAE, batch: int, px: int) -> torch.Tensor:
    """Pass by the quantiser, whose distances to the codebook are a thousandth of the operations."""
    return network.decoder(network.encoder(torch.zeros(batch, 1 + network.n_classes, px, px))).sum()


def _codes(network: nn.Module, batch: int, px: int) -> torch.Tensor:
    return network(torch.zeros(batch, px, px, dtype=torch.int64)).sum()


def _adversarial(network: nn.Module, batch: int, px: int) -> torch.Tensor:
    """Pass a batch of each domain, the target's through the discriminators, then both domains' through them again."""
    segmenter, *judges = network
    source, target = (segmenter.levels(torch.zeros(batch, 1, px, px)) for _ in range(2))
    fooled = sum(judge(logits).sum() for judge, logits in zip(judges, target, strict=True))
    shown = [(judge, logits.detach()) for both in (source, target) for judge, logits in zip(judges, both, strict=True)]
    return sum(logits.sum() for logits in source) + fooled + sum(judge(logits).sum() for judge, logits in shown)


def _classifier() -> nn.Module:
    parts = classifier.ARCHITECTURES["resnet50"]
    return create_vision_model(parts.make, 2, pretrained=False, cut=parts.cut)


def _pictures() -> nn.Module:
    return pretraining.classifier("vgg16", "random", NANOSEM_CLASSES, 1)


def _vqvae() -> nn.Module:
    plan = settings("joint", "paper")
    sizes = {name: plan[name] for name in ("n_codes", "code_dim", "hidden")}
    return VQVAE(len(GRAIN_BOUNDARY.classes), down=CODE_PX, **sizes)


def _prior() -> nn.Module:
    plan = settings("joint", "paper")
    return GatedPixelCNN(plan["n_codes"], channels=plan["channels"], layers=plan["layers"])


def _adaptsegnet() -> nn.Module:
    return nn.ModuleList([deeplab.build(2, "random"), discriminator(2), discriminator(2)])


NETWORKS = {
    "resnet50": Network(_classifier, _logits, lambda network: network[0]),
    "dynamic_resnet50": Network(partial(unet.build, "dynamic_resnet50", 2, "random"), _logits, unet.encoder_of),
    "vqvae": Network(_vqvae, _joined, lambda network: network),
    "pixelcnn": Network(_prior, _codes, lambda network: network),
    "deeplabv2": Network(partial(deeplab.build, 2, "random"), _logits, lambda network: network.encoder),
    "vgg16 encoder": Network(_pictures, _logits, lambda network: network.encoder),
    "vgg16": Network(partial(unet.build, "vgg16", 2, "random"), _logits, unet.encoder_of),
    "adaptsegnet": Network(_adaptsegnet, _adversarial, lambda network: network[0].encoder),
}
