"""A generator of micrographs with their masks: VQ-VAE, prior over its codes, and the one file they are kept in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import minimum_filter
from torch import Tensor, nn

from micro_lib.core.checks import number
from micro_lib.core.labels import ClassMap
from micro_lib.core.progress import progress
from micro_lib.core.seeds import stream, stream_seed
from micro_lib.data.tiles import Labelled
from micro_lib.models import carded
from micro_lib.models.pixelcnn import UNKNOWN, GatedPixelCNN, sample
from micro_lib.models.vqvae import VQVAE

FORMAT = {"format": "micro_lib.joint_generator", "version": 1}
# A standardised value z becomes the grey level MIDDLE + PER_SD z: four standard deviations either way fit.
MIDDLE, PER_SD = 127.5, 31.0
BATCH = 32
RICH = 0.25  # share of the crops that count as rich in a class


@dataclass(frozen=True)
class GeneratorCard(carded.ClassCard):
    """What a generator is and where it comes from; stored with its tensors.

    Parameters
    ----------
    class_map : ClassMap
        Names and colours of the class ids.
    vqvae, prior : mapping
        Arguments of `micro_lib.models.vqvae.VQVAE` behind the classes, and of
        `micro_lib.models.pixelcnn.GatedPixelCNN` behind the codes.
    px : int
        Side of the crops it was trained on.
    training : mapping
        Plain values: training data, profile, seed, steps.
    """

    class_map: ClassMap
    vqvae: Mapping
    prior: Mapping
    px: int
    training: Mapping = field(default_factory=dict)


class JointGenerator(nn.Module):
    """Networks, and what of the training crops sampling needs, with their card.

    Parameters
    ----------
    card : GeneratorCard
        Describes it; decides the networks, which are random until trained or loaded (torch's default generator).

    Attributes
    ----------
    fractions : torch.Tensor
        (N, C) phase fractions of training crops: what a prior with conditions is conditioned on.
    kernel : torch.Tensor
        (1, 1, K, K): white noise folded with it has the correlations of what reconstructions lack.
    roughness : torch.Tensor
        (C,) standard deviation of that, class by class; zeros add nothing.
    """

    def __init__(self, card: GeneratorCard):
        super().__init__()
        n_classes = len(card.class_map.classes)
        self.card = card
        self.vqvae = VQVAE(n_classes, **card.vqvae)
        self.prior = GatedPixelCNN(self.vqvae.n_codes, **card.prior)
        self.register_buffer("fractions", torch.zeros(0, n_classes))
        self.register_buffer("kernel", torch.zeros(1, 1, 1, 1))
        self.register_buffer("roughness", torch.zeros(n_classes))

    @property
    def is_conditional(self) -> bool:
        """Whether the prior is told phase fractions."""
        return self.prior.n_conditions > 0

    def condition(self, fractions: Tensor) -> Tensor | None:
        """Return phase fractions (B, C) as the prior wants them: standardised over the training crops, or None."""
        if not self.is_conditional:
            return None
        spread = self.fractions.std(0)
        return (fractions - self.fractions.mean(0)) / torch.where(spread > 0, spread, 1)

    def sample(
        self,
        n: int,
        *,
        seed: int,
        shape_px: tuple[int, int] | None = None,
        fractions: Sequence[float] | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> list[Labelled]:
        """Draw pairs of micrograph and mask.

        Codes are drawn in float32: in bfloat16 other processors would draw others.

        Parameters
        ----------
        n : int
            Number of pairs.
        seed : int
            Decides all of them. A smaller n gives others, but for whole batches of a prior without conditions.
        shape_px : (int, int), optional
            Height and width, multiples of the VQ-VAE's `down`; the crops' side by default.
        fractions : sequence of float, optional
            Phase fractions to ask a conditional prior for; by default `balanced` ones.
        temperature, top_p
            As for `micro_lib.models.pixelcnn.sample`.

        Returns
        -------
        list of Labelled
            Images uint8, see `MIDDLE`, and masks uint8 class ids, the most probable ones.

        Raises
        ------
        ValueError
            If a size is no multiple of `down`, or fractions are not one a class with a sum of 1, or given to a prior
            without conditions.
        """
        rng = stream(seed, "pairs")
        noise = torch.Generator().manual_seed(stream_seed(seed, "codes"))
        wanted = self._wanted(n, fractions, rng)
        pairs = []
        for start in progress(range(0, n, BATCH), desc="sampling", unit="batch"):
            part = wanted[start : start + BATCH]
            shape = (len(part), *self.map_shape(shape_px))
            told = {"condition": self.condition(part), "temperature": temperature, "top_p": top_p}
            codes = sample(self.prior.eval(), shape, generator=noise, **told)
            pairs += self.pairs(codes, rng)
        return pairs

    @torch.inference_mode()
    def complete(self, pair: Labelled, known: np.ndarray, n: int, *, seed: int) -> list[Labelled]:
        """Go on from the known part of a pair, in n ways.

        Parameters
        ----------
        pair : Labelled
            Image on the grey scale of sampled ones, and mask; sides multiples of the VQ-VAE's `down`. A conditional
            prior is asked for the phase fractions of what is known of it.
        known : numpy.ndarray
            (H, W) bool: what is given; other pixels do not count. A code is given if all pixels that act on it are:
            those of its block and up to the VQ-VAE's `reach_px` around. Given codes further down in reading order than
            what is wanted do not act on it.
        n : int
            Number of pairs.
        seed : int
            Decides all of them.

        Returns
        -------
        list of Labelled
            As of `sample`; what is known comes back as its codes hold it.

        Raises
        ------
        ValueError
            If `known` is of another size than the pair, or a side is no multiple of `down`.
        """
        if known.shape != pair.mask.shape:
            raise ValueError(f"known is {known.shape}, the pair {pair.mask.shape}; both have to be of one size")
        height, width = self.map_shape(known.shape)
        inside = minimum_filter(known, 2 * self.vqvae.reach_px + 1, mode="constant", cval=1)  # (H, W)
        whole = inside.reshape(height, self.vqvae.down, width, self.vqvae.down).all((1, 3))
        given = torch.where(torch.from_numpy(whole), self._codes([pair]).cpu(), UNKNOWN).expand(n, -1, -1)
        counts = np.bincount(pair.mask[known], minlength=self.vqvae.n_classes)
        shares = counts / counts.sum() if self.is_conditional and known.any() else None
        told = self.condition(self._wanted(n, shares, stream(seed, "pairs")))
        noise = torch.Generator().manual_seed(stream_seed(seed, "codes"))
        codes = sample(self.prior.eval(), (n, height, width), generator=noise, condition=told, given=given)
        return self.pairs(codes, stream(seed, "pairs"))

    def map_shape(self, shape_px: tuple[int, int] | None = None) -> tuple[int, int]:
        """Return height and width of the map of codes that stands for an image.

        Parameters
        ----------
        shape_px : (int, int), optional
            As for `sample`.

        Raises
        ------
        ValueError
            If a side is no multiple of the VQ-VAE's `down`, or 0.
        """
        height, width = shape_px or (self.card.px, self.card.px)
        number("the smaller side of shape_px", min(height, width), self.vqvae.down)
        if height % self.vqvae.down or width % self.vqvae.down:
            raise ValueError(f"shape_px is {(height, width)}; the sides must be multiples of {self.vqvae.down}")
        return height // self.vqvae.down, width // self.vqvae.down

    def _wanted(self, n: int, fractions: Sequence[float] | None, rng: np.random.Generator) -> Tensor:
        device = self.fractions.device
        if fractions is None:
            return balanced(self.fractions, n, rng) if self.is_conditional else self.fractions.new_zeros(n, 0)
        if not self.is_conditional:
            raise ValueError("phase fractions were asked for, but this prior has no conditions")
        told, count = torch.tensor(fractions, dtype=torch.float32, device=device), self.vqvae.n_classes
        if told.shape != (count,) or told.min() < 0 or abs(float(told.sum()) - 1) > 1e-3:
            raise ValueError(f"fractions are {list(fractions)}; {count} are expected, none negative, whose sum is 1")
        return told.expand(n, -1)

    @torch.inference_mode()
    def pairs(self, codes: Tensor, rng: np.random.Generator) -> list[Labelled]:
        """Return the pairs that maps of codes stand for, with the texture that reconstructions lack.

        Parameters
        ----------
        codes : torch.Tensor
            (B, h, w) int64 in [0, K), K codes of the VQ-VAE.
        rng : numpy.random.Generator
            Draws the texture.

        Returns
        -------
        list of Labelled
            B of them, as of `sample`.
        """
        images, logits = self.vqvae.eval().decode(codes)  # (B, 1, H, W), (B, C, H, W)
        masks = logits.argmax(1)  # (B, H, W)
        images = images[:, 0] + self.texture(masks, rng)
        parts = zip(grey_levels(images.cpu().numpy()), masks.to(torch.uint8).cpu().numpy(), strict=True)
        return [Labelled(image, mask) for image, mask in parts]

    @torch.inference_mode()
    def reconstruct(self, pairs: Sequence[Labelled], rng: np.random.Generator) -> list[Labelled]:
        """Return pairs as they come back from their codes.

        Parameters
        ----------
        pairs : sequence of Labelled
            Of one size, on the grey scale of sampled ones; sides multiples of the VQ-VAE's `down`.
        rng : numpy.random.Generator
            Draws the texture that is added.

        Returns
        -------
        list of Labelled
            As of `sample`, in the same order.

        Raises
        ------
        ValueError
            If sizes differ or do not fit, or a mask holds an unknown class id.
        RuntimeError
            If the VQ-VAE has no codebook yet.
        """
        return self.pairs(self._codes(pairs), rng)

    def _codes(self, pairs: Sequence[Labelled]) -> Tensor:
        images = torch.from_numpy(np.stack([(pair.image - MIDDLE) / PER_SD for pair in pairs]).astype(np.float32))
        masks = torch.from_numpy(np.stack([pair.mask for pair in pairs])).long()
        device = self.fractions.device
        return self.vqvae.eval().encode(images[:, None].to(device), masks.to(device))

    def texture(self, masks: Tensor, rng: np.random.Generator) -> Tensor:
        """Return a random field (B, H, W) with the correlations of `kernel` and the `roughness` of each class.

        Parameters
        ----------
        masks : torch.Tensor
            (B, H, W) int64 class ids.
        rng : numpy.random.Generator
            Draws the white noise.

        Returns
        -------
        torch.Tensor
            (B, H, W) float32, to be added to standardised grey.
        """
        side = self.kernel.shape[-1]
        batch, height, width = masks.shape
        white = rng.standard_normal((batch, 1, height + side - 1, width + side - 1), np.float32)
        field = F.conv2d(torch.from_numpy(white).to(self.kernel.device), self.kernel)[:, 0]
        return field * self.roughness[masks]

    def save(self, path: str | Path) -> None:
        """Write tensors and card as one .safetensors file, atomically, with a SHA-256 over both."""
        carded.write(path, {**self.card.plain(), **FORMAT}, self.state_dict())

    @classmethod
    def load(cls, path: str | Path) -> "JointGenerator":
        """Return the generator that `save` wrote, on the CPU and in evaluation mode.

        Parameters
        ----------
        path : str or pathlib.Path
            The file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        CardError
            If the file is of another format or version, or damaged.
        """
        made_by = "`python -m micro_lib reproduce --only 07` trains one"
        with carded.opened(path, "a generator", made_by, **FORMAT) as (plain, tensors):
            generator = cls(GeneratorCard.of(plain))
            generator.load_state_dict(tensors)
        return generator.eval()

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the tensors of `state_dict`; buffers take the sizes they were stored with."""
        for name in ("fractions", "kernel"):
            self.register_buffer(name, torch.zeros_like(tensors[name]))
        super().load_state_dict(tensors)


def grey_levels(values: np.ndarray) -> np.ndarray:
    """Return standardised values, an array of any shape, as grey levels uint8, see `MIDDLE`; 0 and 255 cut them off."""
    return np.clip(np.round(MIDDLE + PER_SD * values), 0, 255).astype(np.uint8)


def balanced(fractions: Tensor, n: int, rng: np.random.Generator) -> Tensor:
    """Draw phase fractions so that crops rich in a class are as frequent for a rare class as for a common one.

    A class is drawn, then one of the quarter of the crops that hold most of it.

    Parameters
    ----------
    fractions : torch.Tensor
        (N, C) of training crops.
    n : int
        How many.
    rng : numpy.random.Generator
        Draws.

    Returns
    -------
    torch.Tensor
        (n, C), rows of `fractions`.
    """
    richest = fractions.argsort(dim=0, descending=True, stable=True)  # (N, C)
    rank = rng.integers(max(1, round(RICH * len(fractions))), size=n)
    return fractions[richest[torch.from_numpy(rank), torch.from_numpy(rng.integers(fractions.shape[1], size=n))]]
