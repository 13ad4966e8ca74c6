"""VQ-VAE that keeps a micrograph and its mask in one map of codes, so that they stay aligned."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

COMMITMENT = 0.25  # weight of the commitment loss (van den Oord et al. 2017, Neural Discrete Representation Learning)
# Of the running means that the codebook consists of. DEVIATION: Sonnet's example has 0.99, for 10,000 steps. The
# encoder leaves the start by k-means within some steps, and at 0.99 codes take hundreds of steps to die and come back.
DECAY = 0.9
DEAD_BELOW = 0.5  # a code that stands for fewer vectors a batch, in the running mean, is replaced by a vector


class Output(NamedTuple):
    """What `VQVAE.forward` returns."""

    image: Tensor  # (B, 1, H, W) standardised grey
    logits: Tensor  # (B, n_classes, H, W)
    codes: Tensor  # (B, H / down, W / down) int64
    commitment: Tensor  # () mean square distance of the encoder's vectors from their codes


class Loss(NamedTuple):
    """A loss and its parts, unweighted; all are scalars."""

    total: Tensor
    image: Tensor  # mean square error, as a share of the variance of the data
    mask: Tensor  # cross-entropy in nats a pixel
    commitment: Tensor


class VQVAE(nn.Module):
    """Encoder, quantiser and decoder for a grey image with the one-hot channels of its mask.

    The sizes are those of the example with DeepMind's Sonnet library (convolutions 4x4 with stride 2, residual blocks,
    codebook of running means); the codebook starts by k-means on the first images the network sees,
    and codes that fall out of use return as vectors of the batch.

    Parameters
    ----------
    n_classes : int
        Classes of the masks.
    n_codes : int
        Number K of codes.
    code_dim : int
        Length of their vectors.
    hidden : int
        Channels of encoder and decoder.
    down : int
        4 or 8: one code stands for down x down pixels.
    n_blocks : int
        Residual blocks in the encoder, and as many in the decoder.

    Raises
    ------
    ValueError
        If `down` is neither 4 nor 8.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        n_codes: int = 512,
        code_dim: int = 64,
        hidden: int = 128,
        down: int = 8,
        n_blocks: int = 2,
    ):
        super().__init__()
        if down not in (4, 8):
            raise ValueError(f"down is {down}; it must be 4 or 8")
        self.n_classes, self.n_codes, self.down = n_classes, n_codes, down
        self.reach_px = down * (n_blocks + 2) - 1  # how far beyond its own block a pixel acts on a code
        widths = {4: [hidden // 2, hidden], 8: [hidden // 4, hidden // 2, hidden]}[down]
        self.encoder = nn.Sequential(
            *_halvings([1 + n_classes, *widths]),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            *(Residual(hidden) for _ in range(n_blocks)),
            nn.ReLU(),
            nn.Conv2d(hidden, code_dim, 1),
        )
        self.quantiser = VectorQuantize(
            code_dim,
            n_codes,
            decay=DECAY,
            kmeans_init=True,
            threshold_ema_dead_code=DEAD_BELOW,
            rotation_trick=False,  # plain straight-through gradients
            commitment_weight=0.0,  # `forward` returns it, in evaluation too
            accept_image_fmap=True,
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(code_dim, hidden, 3, padding=1),
            *(Residual(hidden) for _ in range(n_blocks)),
            nn.ReLU(),
            *_doublings(widths[::-1]),
            nn.ConvTranspose2d(widths[0], 1 + n_classes, 4, 2, 1),
        )

    def forward(self, image: Tensor, mask: Tensor) -> Output:
        """Return the reconstruction of images and masks through their codes.

        In training mode the codebook follows the images.

        Parameters
        ----------
        image : torch.Tensor
            (B, 1, H, W) float32, standardised per micrograph; H and W multiples of `down`.
        mask : torch.Tensor
            (B, H, W) int64 class ids in [0, n_classes).

        Returns
        -------
        Output
            Gradients pass the quantiser straight through.

        Raises
        ------
        ValueError
            If the shapes do not fit each other or `down`.
        """
        vectors = self._vectors(image, mask)
        quantised, codes = self._quantise(vectors, frozen=False)
        commitment = F.mse_loss(vectors, quantised.detach())
        return Output(*self._decode(quantised), codes, commitment)

    @torch.no_grad()
    def encode(self, image: Tensor, mask: Tensor) -> Tensor:
        """Return the codes (B, H / down, W / down) int64 of images and masks; nothing is learnt.

        Parameters
        ----------
        image, mask
            As for `forward`.

        Raises
        ------
        ValueError
            As `forward`.
        RuntimeError
            If the codebook has not been started yet: the first images in training mode do that.
        """
        if not bool(self.quantiser._codebook.initted):
            raise RuntimeError("this VQ-VAE has no codebook yet: train it, or load one that was")
        return self._quantise(self._vectors(image, mask), frozen=True)[1]

    def decode(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and masks that codes stand for.

        Parameters
        ----------
        codes : torch.Tensor
            (B, h, w) int64 in [0, K).

        Returns
        -------
        image : torch.Tensor
            (B, 1, h * down, w * down), standardised grey.
        logits : torch.Tensor
            (B, n_classes, h * down, w * down); the mask is their argmax.
        """
        return self._decode(self.quantiser.get_output_from_indices(codes))

    def _vectors(self, image: Tensor, mask: Tensor) -> Tensor:
        """Return the encoder's vectors (B, D, h, w)."""
        batch, _, height, width = image.shape
        if mask.shape != (batch, height, width) or height % self.down or width % self.down:
            raise ValueError(
                f"images (B, 1, H, W) and masks (B, H, W) with H and W multiples of {self.down} are expected; "
                f"found {tuple(image.shape)} and {tuple(mask.shape)}"
            )
        if not 0 <= int(mask.min()) <= int(mask.max()) < self.n_classes:
            found = f"{int(mask.min())} to {int(mask.max())}"
            raise ValueError(f"masks hold class ids {found}; this network has {self.n_classes} classes, counted from 0")
        one_hot = F.one_hot(mask, self.n_classes).movedim(-1, 1)  # (B, C, H, W)
        return self.encoder(torch.cat([image, one_hot.to(image.dtype)], 1))

    def _quantise(self, vectors: Tensor, frozen: bool) -> tuple[Tensor, Tensor]:
        # The library leaves autocast on but for CUDA; in bfloat16 another code is often the nearest.
        with torch.autocast(vectors.device.type, enabled=False):
            return self.quantiser(vectors.float(), freeze_codebook=frozen)[:2]

    def _decode(self, quantised: Tensor) -> tuple[Tensor, Tensor]:
        return self.decoder(quantised).split([1, self.n_classes], 1)


class Residual(nn.Module):
    """Block of a 3x3 and a 1x1 convolution around which the input passes.

    Parameters
    ----------
    channels : int
        Of the input and of the result.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.change = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels // 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the changed input (B, C, H, W)."""
        return x + self.change(x)


def _halvings(widths: list[int]) -> Iterator[nn.Module]:
    """Yield convolutions that halve a map, from width to width, each with its ReLU."""
    for before, after in pairwise(widths):
        yield from (nn.Conv2d(before, after, 4, 2, 1), nn.ReLU())


def _doublings(widths: list[int]) -> Iterator[nn.Module]:
    """Yield transposed convolutions that double a map, from width to width, each with its ReLU."""
    for before, after in pairwise(widths):
        yield from (nn.ConvTranspose2d(before, after, 4, 2, 1), nn.ReLU())


def loss(output: Output, image: Tensor, mask: Tensor, weights: Tensor | None = None) -> Loss:
    """Return the loss of reconstructions: squared error, cross-entropy and 0.25 times the commitment.

    Images are standardised per micrograph, so the variance of the data is 1 and the mean square error is the share of
    it that is lost.

    Parameters
    ----------
    output : Output
        Of `VQVAE.forward`.
    image, mask
        As for `VQVAE.forward`.
    weights : torch.Tensor, optional
        (C,) float32: how much a pixel of each class counts in the cross-entropy.
    """
    squared = F.mse_loss(output.image.float(), image)
    entropy = F.cross_entropy(output.logits.float(), mask, weights)
    return Loss(squared + entropy + COMMITMENT * output.commitment, squared, entropy, output.commitment)


class Usage(NamedTuple):
    """How much of a codebook is in use."""

    share: float  # of the codes that occur
    perplexity: float  # the number of equally frequent codes with the same entropy; 1 to K


def usage(counts: Tensor) -> Usage:
    """Return the usage of a codebook from how often each code occurred.

    Parameters
    ----------
    counts : torch.Tensor
        (K,) integers, summed over an epoch (``torch.bincount(codes.flatten(), minlength=K)`` per batch): of one batch
        alone both figures depend on its size.

    Raises
    ------
    ValueError
        If no code occurred.
    """
    if not counts.sum() > 0:
        raise ValueError("usage of a codebook was asked for, but no code occurred")
    probability = counts.double() / counts.sum()
    return Usage((counts > 0).double().mean().item(), torch.special.entr(probability).sum().exp().item())
