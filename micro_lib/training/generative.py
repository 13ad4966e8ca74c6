"""Training of a joint generator: first the VQ-VAE, then the prior over its codes; each goes on where it was killed."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from fastai.callback.schedule import fit_one_cycle  # noqa: F401  importing adds it to Learner
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from torch import Tensor, nn

from micro_lib.core.hashes import arrays_sha256
from micro_lib.core.progress import progress
from micro_lib.core.seeds import stream
from micro_lib.data.tiles import Labelled
from micro_lib.models import vqvae
from micro_lib.models.joint_generator import JointGenerator
from micro_lib.models.segmenter import standardise
from micro_lib.training.rounds import Batches, Rounds, Run, Schedule
from micro_lib.training.supervised import ONE_CYCLE, BFloat16, go_on, quiet, unvalidated_loaders

KERNEL_PX = 31  # side of the kernel that texture is made with
TEXTURE_CROPS = 64  # that texture is measured on
COLLAPSED = 0.05  # a perplexity below this share of the codes is a collapsed codebook
_PARTS = ("image_loss", "mask_loss", "commitment", "usage", "perplexity")
HISTORY = ("stage", "epoch", "steps", "loss", *_PARTS, "seconds", "process_seconds")


def train(
    generator: JointGenerator,
    micrographs: Sequence[Labelled],
    schedules: Mapping[str, Schedule],
    *,
    n_crops: int,
    texture: bool,
    weighted: bool = False,
    seed: int,
    checkpoint: str | Path,
    device: str = "cpu",
) -> pd.DataFrame:
    """Train a generator in place.

    Crops are drawn anew for every step from the micrographs, in any of the eight orientations, image and mask together.
    Called again with the same arguments after a kill, the training goes on behind the last epoch.

    Parameters
    ----------
    generator : JointGenerator
        Random.
    micrographs : sequence of Labelled
        All that it may learn from; each is standardised as a whole.
    schedules : mapping of str to Schedule
        Of ``vqvae`` and ``prior``; a round is an epoch.
    n_crops : int
        Crops whose codes the prior is trained on.
    texture : bool
        Whether sampled images get back the fine texture that reconstructions lack, see `residual_texture`.
    weighted : bool
        Whether pixels of rare classes count more in the loss of masks, see `class_weights`.
    seed : int
        Of crops and dropout.
    checkpoint : str or pathlib.Path
        File; removed at the end.
    device : str
        ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    pandas.DataFrame
        One row an epoch, columns `HISTORY`: loss (of the prior: nats a code), its parts and the use of the codebook
        over the epoch (of the VQ-VAE), seconds and process_seconds (see `micro_lib.core.progress.Stopwatch`).

    Raises
    ------
    TrainingDiverged
        If a loss becomes NaN or infinite.
    CheckpointMismatch
        If the checkpoint is of another training.
    """
    scenes = [Scene.of(micrograph) for micrograph in micrographs]
    card = generator.card
    decisive = {"vqvae": card.vqvae, "prior": card.prior, "px": card.px, "schedules": schedules, "n_crops": n_crops}
    data = arrays_sha256(array for micrograph in micrographs for array in micrograph)
    run = Run(checkpoint, {**decisive, "seed": seed, "data": data, "weighted": weighted}, generator)
    generator.to(device)
    weights = class_weights(scenes, generator.vqvae.n_classes).to(device) if weighted else None
    with progress(total=sum(s.steps for s in schedules.values()), initial=run.steps, desc="training") as bar:
        crops = Crops(scenes, generator.card.px, schedules["vqvae"], seed)
        _fit(run, "vqvae", generator.vqvae, crops, bar, partial(_vqvae_loss, weights=weights))
        codes, generator.fractions = encoded(generator, scenes, n_crops, seed)
        maps = Maps(codes, generator.condition(generator.fractions), schedules["prior"], seed)
        _fit(run, "prior", generator.prior, maps, bar, _prior_loss)
    if texture:
        generator.kernel, generator.roughness = residual_texture(generator, scenes, seed)
    run.path.unlink(missing_ok=True)
    return pd.DataFrame(run.history, columns=list(HISTORY))


# What is trained on


class Scene(NamedTuple):
    """A micrograph as networks see it."""

    image: np.ndarray  # (H, W) float32, mean 0 and standard deviation 1
    mask: np.ndarray  # (H, W) int64

    @classmethod
    def of(cls, micrograph: Labelled) -> "Scene":
        """Return a micrograph standardised as a whole."""
        return cls(standardise(micrograph.image), micrograph.mask.astype(np.int64))


def class_weights(scenes: Sequence[Scene], n_classes: int) -> Tensor:
    """Return how much a pixel of each class counts, (C,) float32: as the inverse root of its share, 1 on average.

    A class that is nowhere has weight 1.
    """
    share = sum(np.bincount(scene.mask.ravel(), minlength=n_classes) for scene in scenes) / sum(
        scene.mask.size for scene in scenes
    )
    weights = np.divide(1, np.sqrt(share), out=np.zeros(n_classes), where=share > 0)
    return torch.from_numpy(np.where(share > 0, weights / (share * weights).sum(), 1)).float()


def crop(scenes: Sequence[Scene], n: int, px: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw windows of micrographs in any of the eight orientations.

    Parameters
    ----------
    scenes : sequence of Scene
        Each as often as it has area.
    n, px : int
        Number of windows, and their side.
    rng : numpy.random.Generator
        Draws.

    Returns
    -------
    torch.Tensor, torch.Tensor
        Images (n, 1, px, px) float32 and masks (n, px, px) int64.

    Raises
    ------
    ValueError
        If a micrograph is smaller than a window.
    """
    if small := [scene.mask.shape for scene in scenes if min(scene.mask.shape) < px]:
        raise ValueError(f"micrographs of {small[0]} are too small for crops of {px} px")
    area = np.array([scene.mask.size for scene in scenes], float)
    images, masks = [], []
    for number in rng.choice(len(scenes), n, p=area / area.sum()):
        scene = scenes[number]
        top, left = (rng.integers(side - px + 1) for side in scene.mask.shape)
        turns, mirrored = rng.integers(4), rng.random() < 0.5
        for part, found in zip(scene, (images, masks), strict=True):
            window = np.rot90(part[top : top + px, left : left + px], turns)
            found.append(window[:, ::-1] if mirrored else window)
    return torch.from_numpy(np.stack(images)[:, None]), torch.from_numpy(np.stack(masks))


class Crops(Batches):
    """Batches (image, mask) of crops for a VQ-VAE, and the same as what it should return.

    Parameters
    ----------
    scenes : sequence of Scene
        To draw from, see `crop`.
    px : int
        Side of the crops.
    schedule : Schedule
        Size and number of the batches.
    seed : int
        Of the batches.
    """

    name = "Crops"

    def __init__(self, scenes: Sequence[Scene], px: int, schedule: Schedule, seed: int):
        super().__init__(schedule, seed)
        self.scenes, self.px = scenes, px

    def make(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Draw one batch."""
        return crop(self.scenes, self.schedule.batch, self.px, rng) * 2


class Maps(Batches):
    """Batches of maps of codes for a prior, with its condition if it has one, and the codes again as its target.

    Parameters
    ----------
    codes : torch.Tensor
        (N, h, w) int64.
    condition : torch.Tensor or None
        (N, n_conditions) float32.
    schedule, seed
        As for `Crops`.
    """

    name = "Maps"

    def __init__(self, codes: Tensor, condition: Tensor | None, schedule: Schedule, seed: int):
        super().__init__(schedule, seed)
        self.codes, self.conditions = codes, () if condition is None else (condition,)

    def make(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Draw one batch."""
        chosen = torch.from_numpy(rng.integers(len(self.codes), size=self.schedule.batch))
        return self.codes[chosen], *(part[chosen] for part in self.conditions), self.codes[chosen]


def encoded(generator: JointGenerator, scenes: Sequence[Scene], n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the codes (n, h, w) of crops drawn at random, and their phase fractions (n, C)."""
    rng, vq = stream(seed, "encoded"), generator.vqvae.eval()
    codes, fractions = [], []
    for start in progress(range(0, n, 64), desc="encoding", unit="batch"):
        images, masks = (part.to(_device(vq)) for part in crop(scenes, min(64, n - start), generator.card.px, rng))
        codes.append(vq.encode(images, masks))
        fractions.append(F.one_hot(masks, vq.n_classes).float().mean((1, 2)))
    return torch.cat(codes), torch.cat(fractions)


@torch.no_grad()
def residual_texture(generator: JointGenerator, scenes: Sequence[Scene], seed: int) -> tuple:
    """Measure what reconstructions of `TEXTURE_CROPS` crops lack: its correlations, and its strength in every class.

    Reconstructions are the expected image given the codes, so noise and fine texture are missing in them. A random
    field with the same power spectrum is what can be given back; more of a micrograph's phases is not in the codes.

    Returns
    -------
    torch.Tensor, torch.Tensor
        `JointGenerator.kernel`, of sum of squares 1, and `JointGenerator.roughness`.
    """
    vq = generator.vqvae.eval()
    images, masks = (
        part.to(_device(vq)) for part in crop(scenes, TEXTURE_CROPS, generator.card.px, stream(seed, "texture"))
    )
    lacking = (images - vq.decode(vq.encode(images, masks))[0])[:, 0]  # (N, px, px)
    roughness = [lacking[masks == c].std() if (masks == c).sum() > 1 else lacking.std() for c in range(vq.n_classes)]
    amplitude = torch.fft.fft2(lacking - lacking.mean((1, 2), keepdim=True)).abs().square().mean(0).sqrt()
    kernel = torch.fft.fftshift(torch.fft.ifft2(amplitude).real)  # (px, px), its centre at px / 2
    middle, reach = generator.card.px // 2, min(KERNEL_PX, generator.card.px - 1) // 2
    kernel = kernel[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
    return (kernel / kernel.square().sum().sqrt())[None, None], torch.stack(roughness)


# The loop


def _fit(run: Run, stage: str, network: nn.Module, batches: Batches, bar, loss: Callable) -> None:
    """Train one network by a one-cycle, from where the run is."""
    schedule, done = batches.schedule, sum(row["stage"] == stage for row in run.history)
    if done == schedule.rounds:
        return
    loaders = unvalidated_loaders(batches, _device(network))
    loaders.train.n_inp = 2 if stage == "vqvae" else len(batches.conditions) + 1
    optimizer = partial(OptimWrapper, opt=torch.optim.Adam)
    learn = quiet(Learner(loaders, network, loss_func=loss, opt_func=optimizer, cbs=_BFloat16()))
    fit = partial(learn.fit_one_cycle, schedule.rounds, schedule.rate, **ONE_CYCLE)
    go_on(learn, fit, _Epochs(run, batches, stage, bar), done)


def _vqvae_loss(output: vqvae.Output, image: Tensor, mask: Tensor, weights: Tensor | None) -> Tensor:
    return vqvae.loss(output, image, mask, weights).total


def _prior_loss(logits: Tensor, codes: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), codes)  # (B, K, h, w), (B, h, w)


class _BFloat16(BFloat16):
    """As for segmenters, for networks with other inputs and outputs than images."""

    def before_batch(self):
        """Enter autocast."""
        self.autocast = torch.autocast(self.device, torch.bfloat16, enabled=self.active)
        self.autocast.__enter__()

    def after_pred(self):
        """Leave autocast; the losses turn what they get into float32."""
        self.autocast.__exit__(None, None, None)


class _Epochs(Rounds):
    """Gather what the epochs reached."""

    def before_train(self):
        """Forget the epoch before."""
        super().before_train()
        self.parts, self.counts = [], 0

    def where(self) -> str:
        """Return the step, and what to do."""
        step = f"step {self.iter + 1} of epoch {self.epoch + 1} of the {self.stage}"
        return f"{step}; lower its rate or look for broken images"

    def after_batch(self):
        """Note the parts of the loss, and count codes."""
        super().after_batch()
        if self.stage == "vqvae":
            with torch.no_grad():
                self.parts.append([float(part) for part in vqvae.loss(self.pred, *self.yb)[1:]])
            self.counts = self.counts + self.pred.codes.flatten().bincount(minlength=self.model.n_codes)

    def measured(self) -> dict:
        """Return the mean parts of the loss and the use of the codebook."""
        row = {"stage": self.stage, "epoch": self.epoch}
        if self.stage == "vqvae":
            parts = zip(("image_loss", "mask_loss", "commitment"), np.mean(self.parts, 0).tolist(), strict=True)
            row |= {**dict(parts), **dict(zip(("usage", "perplexity"), vqvae.usage(self.counts), strict=True))}
        return row


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
