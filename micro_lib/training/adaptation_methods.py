"""Ways of adapting a segmenter to unlabelled micrographs: what each adds to the loss on labelled ones.

A method is a list of `Term` objects around one step: they may change the labelled tiles, add losses on the unlabelled
ones, and learn something themselves after the segmenter's step. All take two-level outputs of softmax over at least two
classes, and none ever sees a target label.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from micro_lib.data.augment import log_uniform, picture_operations
from micro_lib.models.discriminator import PUBLISHED_WIDTH, SMALLEST_PX, discriminator
from micro_lib.models.unet import Levels

# What a discriminator is taught to say of each domain. To fool it, the segmenter makes target look like SOURCE.
SOURCE, TARGET = 0.0, 1.0
BANDS = (0.01, 0.05, 0.09)  # half widths of the swapped spectrum over the shorter side (Yang and Soatto 2020)
ENTROPY_WEIGHT, ENTROPY_POWER = 0.005, 2.0  # the same paper's robust penalty
CONFIDENT = 0.968  # probability from which a pseudo-label counts (Tranheden et al. 2021)
RINGS = 32  # of frequency, in which spectra are compared
MEMORY = 0.99  # share of itself that a mean teacher keeps in a step (the same)
MASKED_SHARE, BLOCKS_ACROSS = 0.7, 8  # of a masked tile (Hoyer et al. 2023: blocks of 64 px in 512)
DISCRIMINATOR_BETAS = (0.9, 0.99)


class Batch(NamedTuple):
    """Tiles of one step; images standardised."""

    images: torch.Tensor  # (B, 1, H, W) float32, labelled
    masks: torch.Tensor  # (B, H, W) int64
    target: torch.Tensor  # (B, 1, H, W) float32, unlabelled; (0, 1, H, W) where the method has no use for them


class Weights(NamedTuple):
    """Weights of the parts of the loss; that on the main output of labelled tiles is 1.

    The defaults are those of AdaptSegNet (Tsai et al. 2018).
    """

    auxiliary: float = 0.1
    adversarial: float = 0.001
    adversarial_auxiliary: float = 0.0002


class Design(NamedTuple):
    """Width of discriminators and the learning rate they start with; the defaults are those of AdaptSegNet."""

    width: int = PUBLISHED_WIDTH
    rate: float = 1e-4


class Student:
    """A segmenter in training.

    Parameters
    ----------
    network : torch.nn.Module
        Its `levels` maps images (B, 1, H, W) to `Levels` of logits (B, C, H, W).
    loss : callable
        Of logits (B, C, h, w) and masks (B, h, w).
    weights : Weights
        Of the parts of the loss.
    centre : callable
        Cuts from tiles what counts, (..., H, W) to (..., h, w).
    autocast : callable
        Returns the context that forward passes run in.
    """

    def __init__(self, network: nn.Module, loss: Callable, weights: Weights, centre: Callable, autocast: Callable):
        self.network, self.loss, self.weights = network, loss, weights
        self.centre, self.autocast = centre, autocast

    def levels(self, images: torch.Tensor) -> Levels:
        """Return the logits of both levels, (B, C, h, w) float32: of the tiles' centres alone."""
        with self.autocast():
            found = self.network.levels(images.to(memory_format=torch.channels_last))
        return Levels(*(self.centre(logits).float() for logits in found))

    def supervised(self, levels: Levels, masks: torch.Tensor) -> torch.Tensor:
        """Return the loss on labelled tiles, masks (B, H, W) whole."""
        masks = self.centre(masks)
        return self.loss(levels.main, masks) + self.weights.auxiliary * self.loss(levels.auxiliary, masks)

    def imitation(self, levels: Levels, masks: torch.Tensor, trust: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy to pseudo-labels (B, H, W), each pixel weighted by `trust` (B, H, W)."""
        masks, trust = self.centre(masks), self.centre(trust)
        pixels = [F.cross_entropy(logits, masks, reduction="none") * trust for logits in levels]
        return pixels[0].mean() + self.weights.auxiliary * pixels[1].mean()


class Term(nn.Module):
    """One ingredient of a method; this one adds nothing."""

    optimizer: torch.optim.Optimizer | None = None  # of what it learns itself
    smallest_px = 1  # side of the smallest outputs it can work with
    of_target_alone = False  # running statistics of normalisation, which evaluation uses, are those of target tiles

    def labelled(self, batch: Batch) -> torch.Tensor:
        """Return the labelled images (B, 1, H, W) as the segmenter is to see them."""
        return batch.images

    def loss(self, student: Student, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return what is added to the segmenter's loss, and its parts by name."""
        raise NotImplementedError

    def learn(self, source: Levels) -> dict[str, float]:
        """Learn, after the segmenter's gradients are known; `source` are its outputs on labelled tiles, detached."""
        return {}

    def follow(self, network: nn.Module) -> None:
        """Take note of the segmenter after its step."""


# Normalisation: AdaBN


class TargetStatistics(Term):
    """Normalise by statistics of the target: AdaBN (Li et al. 2018).

    DEVIATION: they are remembered while training, not gathered behind it, so that other terms see what evaluation sees.
    """

    of_target_alone = True

    def loss(self, student, batch):
        """Let the segmenter remember the statistics of the target tiles; adds nothing."""
        with torch.no_grad():
            student.levels(batch.target)
        return torch.zeros(()), {}


# Adversarial: AdaptSegNet and ADVENT


class Adversarial(Term):
    """Make outputs on the target pass for outputs on the source before a discriminator a level.

    AdaptSegNet (Tsai et al. 2018) shows it the probabilities, ADVENT (Vu et al. 2019) the weighted self-information.

    Parameters
    ----------
    n_classes : int
        Channels of the outputs.
    weights : Weights
        Of the adversarial losses.
    design : Design
        Of the discriminators.
    shown : torch.nn.Module
        Maps probabilities (B, C, h, w) to what the discriminators see.
    """

    smallest_px = SMALLEST_PX

    def __init__(self, n_classes: int, weights: Weights, design: Design, shown: nn.Module):
        super().__init__()
        self.discriminators = nn.ModuleList(discriminator(n_classes, design.width) for _ in Levels._fields)
        self.weights = (weights.adversarial, weights.adversarial_auxiliary)
        self.shown = shown
        self.optimizer = torch.optim.Adam(self.discriminators.parameters(), design.rate, DISCRIMINATOR_BETAS)

    def loss(self, student, batch):
        """Return the weighted losses of calling target outputs SOURCE; the discriminators gather no gradients."""
        seen = self.show(student.levels(batch.target))
        with frozen(self.discriminators):
            parts = [verdict_loss(judge(p), SOURCE) for judge, p in zip(self.discriminators, seen, strict=True)]
        self.target = [probabilities.detach() for probabilities in seen]
        total = sum(weight * part for weight, part in zip(self.weights, parts, strict=True))
        return total, dict(zip(("adversarial", "adversarial_auxiliary"), map(as_float, parts), strict=True))

    def learn(self, source):
        """Teach the discriminators to tell the domains apart, from detached outputs."""
        self.optimizer.zero_grad()
        right, total = [], 0.0
        for judge, ours, theirs in zip(self.discriminators, self.show(source), self.target, strict=True):
            verdicts = judge(ours), judge(theirs)
            loss = (verdict_loss(verdicts[0], SOURCE) + verdict_loss(verdicts[1], TARGET)) / 2
            loss.backward()
            total += as_float(loss)
            right += [(verdicts[0] < 0).float().mean(), (verdicts[1] > 0).float().mean()]
        self.optimizer.step()
        return {"discriminator": total, "discriminator_accuracy": float(sum(right) / len(right))}

    def show(self, levels: Levels) -> list[torch.Tensor]:
        """Return what the discriminators see of logits."""
        return [self.shown(logits.softmax(1)) for logits in levels]


def as_float(loss: torch.Tensor) -> float:
    """Return the value of a loss, for the curve."""
    return float(loss.detach())


def verdict_loss(verdict: torch.Tensor, said: float) -> torch.Tensor:
    """Return the binary cross-entropy of a discriminator's logits to SOURCE or TARGET."""
    return F.binary_cross_entropy_with_logits(verdict, torch.full_like(verdict, said))


@contextmanager
def frozen(modules: nn.Module) -> Iterator[None]:
    """Let gradients through modules, but none into their parameters."""
    modules.requires_grad_(False)
    try:
        yield
    finally:
        modules.requires_grad_(True)


class SelfInformation(nn.Module):
    """-p log p / log C of every class (Vu et al. 2019, eq. 4): between 0 and 1, 0 at p = 0."""

    def forward(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return the weighted self-information (B, C, h, w) of probabilities of that shape."""
        positive = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny)  # the slope is infinite at 0
        return torch.special.entr(positive) / math.log(probabilities.shape[1])


# Spectra: FDA


class Spectrum(Term):
    """Give labelled tiles the low-frequency amplitudes of unlabelled ones (FDA, Yang and Soatto 2020).

    DEVIATION: one network sees all three bands, one a step, where the paper averages three networks; amplitudes are
    those of standardised tiles, and their step of training again on averaged pseudo-labels is left out.

    Parameters
    ----------
    entropy : bool
        Also make outputs on the target confident.
    """

    def __init__(self, *, entropy: bool = True):
        super().__init__()
        self.entropy = entropy

    def labelled(self, batch):
        """Return the labelled images, their spectra mixed."""
        return with_low_frequencies_of(batch.images, batch.target, BANDS[int(torch.randint(len(BANDS), ()))])

    def loss(self, student, batch):
        """Return the robust entropy of the target outputs."""
        if not self.entropy:
            return torch.zeros(()), {}
        loss = robust_entropy(student.levels(batch.target).main)
        return ENTROPY_WEIGHT * loss, {"entropy": as_float(loss)}


def with_low_frequencies_of(images: torch.Tensor, others: torch.Tensor, band: float) -> torch.Tensor:
    """Return images whose low-frequency amplitudes, not phases, come from others (Yang and Soatto 2020, eq. 3).

    Parameters
    ----------
    images, others : torch.Tensor
        (..., H, W) float32, equal shapes.
    band : float
        Half the side of the swapped square of frequencies over the shorter side of the image, below 0.5, rounded down
        to whole frequencies; at 0 nothing is swapped, just above it the mean alone.

    Returns
    -------
    torch.Tensor
        (..., H, W) float32.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if images.shape != others.shape:
        raise ValueError(f"spectra of tiles of different shapes cannot be mixed: {images.shape} and {others.shape}")
    height, width = images.shape[-2:]
    spectrum = torch.fft.fft2(images)
    if band > 0:
        reach = int(band * min(height, width))
        down, across = (torch.fft.fftfreq(n, 1 / n, device=images.device).abs() for n in (height, width))
        low = (down[:, None] <= reach + 0.5) & (across <= reach + 0.5)  # whole numbers, but for rounding
        amplitude = torch.where(low, torch.fft.fft2(others).abs(), spectrum.abs())
        spectrum = torch.polar(amplitude, spectrum.angle())
    return torch.fft.ifft2(spectrum).real


def robust_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return the mean of (H^2 + 1e-8)^2 over pixels, H their entropy over log C (Yang and Soatto 2020, eq. 5)."""
    entropy = SelfInformation()(logits.softmax(1)).sum(1)  # (B, h, w) in [0, 1]
    return ((entropy**2 + 1e-8) ** ENTROPY_POWER).mean()


class Resolution(Term):
    """Show labelled tiles no sharper than the unlabelled ones are: a departure of ours from FDA.

    A light micrograph has lost what a source from the electron microscope still shows, so a segmenter learns to look
    for detail that the target cannot have. Here the source's power in every ring of its spectrum is brought to the
    target's, but no ring is raised over one of coarser detail: no lens resolves fine detail better, and what the target
    has more of there is noise. Power is averaged over all tiles seen so far. It needs no label and no parameter.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("power", torch.ones(2, RINGS))  # of source and target, by ring
        self.register_buffer("seen", torch.zeros(()))

    def labelled(self, batch):
        """Return the labelled images as sharp as the target, their variance over all tiles kept."""
        found = torch.stack([ring_power(images) for images in (batch.images, batch.target)])
        self.power.copy_(_remember(self.power, found, self.seen))
        self.seen += 1
        return damped(batch.images, *self.power)

    def loss(self, student, batch):
        """Add nothing."""
        return torch.zeros(()), {}


def ring_power(images: torch.Tensor) -> torch.Tensor:
    """Return the mean power (RINGS,) in rings of frequency, of images (B, 1, H, W) without their means.

    The rings are equally wide and go from 0 to the Nyquist frequency of 0.5 per pixel. Where a ring holds no frequency
    of so small an image its power is 1, which says nothing of two images of one size.
    """
    height, width = images.shape[-2:]
    window = torch.hann_window(height, device=images.device)[:, None] * torch.hann_window(width, device=images.device)
    flat = images.float() - images.float().mean((-2, -1), keepdim=True)
    power = torch.fft.fft2(flat * window).abs().square().mean((0, 1)).ravel()
    rings = _rings(height, width, images.device).ravel()
    inside = rings < RINGS
    counts = torch.bincount(rings[inside], minlength=RINGS)
    sums = torch.bincount(rings[inside], power[inside], minlength=RINGS)
    return torch.where(counts > 0, sums / counts.clamp_min(1), 1.0).clamp_min(1e-12)  # of blank images: no ratio is nan


def damped(images: torch.Tensor, power: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return images (B, 1, H, W) whose mean power by ring is as wanted, or lower: the finer, the more is taken away.

    Parameters
    ----------
    images : torch.Tensor
        (B, 1, H, W) float32.
    power, wanted : torch.Tensor
        (RINGS,) as of `ring_power`; only the course of their ratio counts.

    Returns
    -------
    torch.Tensor
        (B, 1, H, W) float32, of the same power in all.
    """
    rings = _rings(*images.shape[-2:], images.device).clamp_max(RINGS - 1)
    gain = (wanted / power).sqrt().cummin(0).values
    gain = gain * (power[rings].sum() / (power * gain.square())[rings].sum()).sqrt()
    height, width = images.shape[-2:]
    mirrored = torch.cat([images, images.flip(-1)], -1)  # no jump where the tile's borders meet
    mirrored = torch.cat([mirrored, mirrored.flip(-2)], -2)
    at = (_frequencies(*mirrored.shape[-2:], images.device) - 0.5).clamp(0, RINGS - 1)  # between middles of rings
    low = at.floor().long()
    smooth = torch.lerp(gain[low], gain[(low + 1).clamp_max(RINGS - 1)], at - low)
    return torch.fft.ifft2(torch.fft.fft2(mirrored) * smooth).real[..., :height, :width]


def _frequencies(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Return the frequencies of a transform, (H, W) float32, in widths of a ring: `RINGS` is Nyquist's."""
    down, across = (torch.fft.fftfreq(n, device=device) for n in (height, width))
    return torch.hypot(down[:, None], across) * 2 * RINGS


def _rings(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Return the ring of every frequency of a transform, (H, W) int64; `RINGS` and more in the corners."""
    return _frequencies(height, width, device).long()


# Self-training: a mean teacher's pseudo-labels


class MeanTeacher(TargetStatistics):
    """Imitate a slowly following copy of the segmenter on changed target tiles.

    DEVIATION: teacher and segmenter normalise by statistics of unchanged target tiles, see `TargetStatistics`: the
    teacher's first labels decide what is learned, and by statistics of both domains they are far worse.

    Parameters
    ----------
    network : torch.nn.Module
        The segmenter.
    mixing : bool
        Source tiles' pixels of half their classes are pasted onto target tiles (DACS, Tranheden et al. 2021).
    masking : bool
        Most blocks of the target tiles are hidden (MIC, Hoyer et al. 2023).
    """

    def __init__(self, network: nn.Module, *, mixing: bool = False, masking: bool = False):
        super().__init__()
        self.teacher = AveragedModel(network, avg_fn=_remember, use_buffers=True).requires_grad_(False).eval()
        self.mixing, self.masking = mixing, masking

    def train(self, mode: bool = True):
        """Stay in evaluation mode: the teacher's statistics are the averaged ones of the segmenter."""
        return super().train(False)

    def loss(self, student, batch):
        """Return the losses of imitating the teacher on mixed and on masked tiles."""
        super().loss(student, batch)
        labels, trust = self.pseudo_labels(student, batch.target)
        total, parts = torch.zeros((), device=labels.device), {"trust": float(trust.mean())}
        if self.mixing:
            pasted = class_mix(batch.masks)
            images = torch.where(pasted[:, None], batch.images, batch.target)
            with statistics_kept(student.network):
                levels = student.levels(varied(images))
            weights = torch.where(pasted, 1.0, trust)
            mixed = student.imitation(levels, torch.where(pasted, batch.masks, labels), weights)
            total, parts = total + mixed, parts | {"mixed": as_float(mixed)}
        if self.masking:
            with statistics_kept(student.network):
                levels = student.levels(hidden(varied(batch.target)))
            masked = student.imitation(levels, labels, trust)
            total, parts = total + masked, parts | {"masked": as_float(masked)}
        return total, parts

    @torch.no_grad()
    def pseudo_labels(self, student: Student, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return labels (B, H, W) and their trust, in all pixels of a tile the share of its confident ones."""
        with student.autocast():
            logits = self.teacher(images.to(memory_format=torch.channels_last))
        probability, labels = logits.float().softmax(1).max(1)
        trust = (probability >= CONFIDENT).float().mean((1, 2), keepdim=True).expand_as(probability)
        return labels, trust

    def follow(self, network):
        """Move the teacher a little towards the segmenter."""
        self.teacher.update_parameters(network)


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Normalise by the statistics of a batch without remembering them."""
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, before, strict=True):
            layer.momentum = momentum


def _remember(average: torch.Tensor, new: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    keep = min(1 - 1 / (float(n) + 1), MEMORY)  # a plain mean at first
    return keep * average + (1 - keep) * new


def class_mix(masks: torch.Tensor) -> torch.Tensor:
    """Return which pixels of labelled tiles to paste: those of half the classes of each, rounded up.

    DEVIATION: of a tile with a single class nothing is pasted; all of it would hide the whole target tile.

    Parameters
    ----------
    masks : torch.Tensor
        (B, H, W) int64.

    Returns
    -------
    torch.Tensor
        (B, H, W) bool.
    """
    pasted = []
    for mask in masks:
        present = mask.unique()
        count = math.ceil(len(present) / 2) if len(present) > 1 else 0
        pasted.append(torch.isin(mask, present[torch.randperm(len(present))[:count]]))
    return torch.stack(pasted)


def varied(images: torch.Tensor) -> torch.Tensor:
    """Return standardised images (B, 1, H, W) of changed contrast and brightness, some blurred, jittered or noisy."""
    operations = picture_operations()
    gains = torch.tensor([log_uniform(0.75, 1 / 0.75) for _ in images], device=images.device)
    shifts = torch.rand(len(images)).to(images.device) / 2 - 0.25
    changed = images * gains[:, None, None, None] + shifts[:, None, None, None]
    return torch.stack([operations(image) for image in changed])


def hidden(images: torch.Tensor) -> torch.Tensor:
    """Return images (B, 1, H, W) with most of their blocks set to 0, the mean of a standardised micrograph."""
    size = math.ceil(max(images.shape[-2:]) / BLOCKS_ACROSS)
    blocks = [math.ceil(n / size) for n in images.shape[-2:]]
    kept = (torch.rand(len(images), 1, *blocks) >= MASKED_SHARE).to(images)
    whole = kept.repeat_interleave(size, 2).repeat_interleave(size, 3)
    return images * whole[..., : images.shape[-2], : images.shape[-1]]


# Methods


class Given(NamedTuple):
    """What the terms of a method are made from."""

    network: nn.Module  # the segmenter
    n_classes: int
    weights: Weights
    design: Design

    def adversarial(self, shown: nn.Module) -> Adversarial:
        """Return discriminators that see the outputs as `shown`."""
        return Adversarial(self.n_classes, self.weights, self.design, shown)


# Name: what makes the terms of a method; another entry is another method, for runs and sweeps too.
METHODS: dict[str, Callable[[Given], list[Term]]] = {
    "none": lambda given: [],
    "AdaBN": lambda given: [TargetStatistics()],
    "AdaptSegNet": lambda given: [given.adversarial(nn.Identity())],
    "FDA": lambda given: [Spectrum()],
    "ADVENT": lambda given: [given.adversarial(SelfInformation())],
    "self-training": lambda given: [MeanTeacher(given.network, mixing=True)],
    "softened source": lambda given: [Resolution()],
    "softened self-training": lambda given: [Resolution(), MeanTeacher(given.network, mixing=True)],
    "masked consistency": lambda given: [MeanTeacher(given.network, masking=True)],
    "combination": lambda given: [Spectrum(entropy=False), MeanTeacher(given.network, mixing=True, masking=True)],
}


def terms(method: str, network: nn.Module, n_classes: int, weights: Weights, design: Design) -> nn.ModuleList:
    """Return the terms of a method of `METHODS`."""
    return nn.ModuleList(METHODS[method](Given(network, n_classes, weights, design)))
