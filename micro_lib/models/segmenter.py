"""A trained segmenter: predictions for micrographs of any size, and the one file it is kept in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from micro_lib.analysis.closing import close_boundaries
from micro_lib.core.labels import ClassMap
from micro_lib.models import carded, unet

FORMAT = {"format": "micro_lib.segmenter", "version": 1}
STRIDE_PX = 32  # networks halve the image five times; tiles start at multiples of this
MARGIN_PX = 32  # outer pixels of a tile that see its border too much to be used
TILE_PX = 512  # side of a tile, margins included
BLEND_PX = 64  # neighbouring tiles share this much, margins apart
BATCH = 4


@dataclass(frozen=True)
class Card(carded.ClassCard):
    """What a segmenter is and where it comes from; stored with its tensors.

    Parameters
    ----------
    architecture : str
        As for `micro_lib.models.unet.build`.
    class_map : ClassMap
        Names and colours of the class ids.
    grain_px : (float, float)
        Range of grain size (mean intercept, pixels) it was trained for.
    training : mapping
        Plain values: training data, profile, seed, steps.
    scores : mapping of str to float
        Measured scores, each name telling on what.
    working_scale : float
        Magnification between a micrograph and what the network sees; half the pixels make boundaries thin, fine
        texture vanish and everything four times faster.
    line_px : int
        Above 0, class 1 is a boundary: it is closed (`micro_lib.analysis.closing`) and drawn this wide.
    """

    architecture: str
    class_map: ClassMap
    grain_px: tuple[float, float]
    training: Mapping = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    working_scale: float = 1.0
    line_px: int = 0


class Segmenter:
    """A network with its card.

    Parameters
    ----------
    network : torch.nn.Module
        Maps (B, 1, H, W) float32 to (B, C, H, W) logits, H and W multiples of `STRIDE_PX`.
    card : Card
        Describes it.
    device : str
        ``"cpu"`` or ``"cuda"``.
    """

    def __init__(self, network: nn.Module, card: Card, *, device: str = "cpu"):
        self.network = network.eval().to(device, memory_format=torch.channels_last)
        self.card, self.device = card, torch.device(device)

    def predict(self, pixels: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """Return the probability of every class in every pixel.

        The network sees the micrograph at its working scale with mean 0 and standard deviation 1. Tiles with mirrored
        surroundings overlap and are blended by Gaussian weights, so no seams show; for a network that looks no further
        than `MARGIN_PX` the result is that of the whole image at once.

        Parameters
        ----------
        pixels : numpy.ndarray
            (H, W) grey levels of any integer type, or finite floats; any size from 1 x 1.
        scale : float
            Magnification, on top of the card's working scale, to bring grains into the range it was trained for; the
            result has the size of the input all the same.

        Returns
        -------
        numpy.ndarray
            (H, W, C) float32, summing to 1 over the classes.

        Raises
        ------
        ValueError
            If the image is not (H, W), is empty or holds NaN, or the scale is not positive.
        MemoryError
            If not even one tile fits in memory.
        """
        image = standardise(pixels)
        if not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"scale is {scale}; it must be a positive number")
        scale *= self.card.working_scale
        if scale == 1:
            return self._whole(image)
        height, width = image.shape
        # Averaging over the area when shrinking keeps thin boundaries. It takes contrast away, so what the network sees
        # is standardised behind it, as training tiles are.
        size = max(1, round(width * scale)), max(1, round(height * scale))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        resized = cv2.resize(np.asarray(pixels, np.float64), size, interpolation=way)
        back = cv2.resize(self._whole(standardise(resized)), (width, height), interpolation=cv2.INTER_LINEAR)
        return back / back.sum(-1, keepdims=True)

    def segment(self, pixels: np.ndarray, scale: float = 1.0, line_px: int = 0) -> np.ndarray:
        """Return the class id of every pixel, (H, W) uint8.

        The most probable class; or, where the card says that class 1 is a boundary, the closed boundary network.

        Parameters
        ----------
        pixels, scale
            As for `predict`.
        line_px : int
            Width that boundaries are drawn with, pixels; 0: as the card says.

        Raises
        ------
        ValueError, MemoryError
            As `predict`.
        """
        probability = self.predict(pixels, scale)
        if not self.card.line_px:
            return probability.argmax(-1).astype(np.uint8)
        seen_px = 1 / (scale * self.card.working_scale)  # a pixel of the network in pixels of the image
        return close_boundaries(probability[..., 1].clip(0, 1), line_px or self.card.line_px, smoothing_px=seen_px)

    def _whole(self, image: np.ndarray) -> np.ndarray:
        """Predict a standardised image (H, W) at its own scale."""
        height, width = image.shape
        starts, sides = zip(*(_starts(size) for size in image.shape), strict=True)
        after = [s[-1] + side - MARGIN_PX - size for s, side, size in zip(starts, sides, image.shape, strict=True)]
        padded = np.pad(image, [(MARGIN_PX, after[0]), (MARGIN_PX, after[1])], mode="reflect")
        weights = np.outer(_weights(sides[0]), _weights(sides[1]))[..., None]  # (h, w, 1)
        total = np.zeros((*padded.shape, len(self.card.class_map.classes)), np.float32)
        norm = np.zeros((*padded.shape, 1), np.float32)
        windows = [np.s_[y : y + sides[0], x : x + sides[1]] for y in starts[0] for x in starts[1]]
        for window, probability in zip(windows, self._tiles([padded[w] for w in windows]), strict=True):
            total[window] += weights * probability
            norm[window] += weights
        inside = np.s_[MARGIN_PX : MARGIN_PX + height, MARGIN_PX : MARGIN_PX + width]
        return total[inside] / norm[inside]

    def _tiles(self, tiles: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the probabilities (h, w, C) of each tile (h, w); batches shrink when memory runs out."""
        batch, done = BATCH, 0
        while done < len(tiles):
            try:
                result = self._forward(np.stack(tiles[done : done + batch]))
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                if batch == 1:
                    shape = tiles[0].shape
                    raise MemoryError(f"one tile of {shape[0]} x {shape[1]} pixels does not fit in memory") from error
                batch //= 2
                continue
            yield from result
            done += len(result)

    @torch.inference_mode()
    def _forward(self, tiles: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(tiles)[:, None].to(self.device, memory_format=torch.channels_last)  # (B, 1, h, w)
        return self.network(batch).softmax(1).permute(0, 2, 3, 1).float().cpu().numpy()  # (B, h, w, C)

    def save(self, path: str | Path) -> None:
        """Write tensors and card as one .safetensors file, atomically, with a SHA-256 over both."""
        carded.write(path, {**self.card.plain(), **FORMAT}, self.network.state_dict())

    @classmethod
    def load(cls, path: str | Path, *, device: str = "cpu") -> "Segmenter":
        """Return the segmenter that `save` wrote.

        Parameters
        ----------
        path : str or pathlib.Path
            The file.
        device : str
            ``"cpu"`` or ``"cuda"``.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        CardError
            If the file is of another format or version, or damaged.
        """
        made_by = "`python -m micro_lib reproduce --only 05` trains one"
        with carded.opened(path, "a segmenter", made_by, **FORMAT) as (plain, tensors):
            card = Card.of(plain)
            network = unet.build(card.architecture, len(card.class_map.classes), "random")
            network.load_state_dict(tensors)
        return cls(network, card, device=device)


def standardise(pixels: np.ndarray) -> np.ndarray:
    """Return an image with mean 0 and standard deviation 1, whatever its bit depth; a constant one becomes zero.

    Parameters
    ----------
    pixels : numpy.ndarray
        (H, W) integers or finite floats.

    Returns
    -------
    numpy.ndarray
        (H, W) float32.

    Raises
    ------
    ValueError
        If the image is not (H, W), is empty or holds NaN or infinity.
    """
    pixels = np.asarray(pixels)
    if pixels.ndim != 2 or pixels.size == 0 or pixels.dtype.kind not in "buif":
        raise ValueError(f"a grey image (H, W) of integers or floats is expected; found {pixels.shape}, {pixels.dtype}")
    values = pixels.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"the image holds {np.count_nonzero(~np.isfinite(values))} pixels that are NaN or infinite")
    centred = values - values.mean()
    spread, largest = centred.std(), np.abs(values).max()
    # Below this the spread of a constant image is rounding.
    return (centred / spread if spread > 1e-6 * largest else np.zeros_like(values)).astype(np.float32)


def _starts(size: int) -> tuple[list[int], int]:
    """Starts of the tiles along an axis of a padded image that begins `MARGIN_PX` before the image, and their side."""
    whole = -(-(size + 2 * MARGIN_PX) // STRIDE_PX) * STRIDE_PX
    if whole <= TILE_PX:
        return [0], whole
    step = TILE_PX - 2 * MARGIN_PX - BLEND_PX
    return list(range(0, size - BLEND_PX, step)), TILE_PX


def _weights(side: int) -> np.ndarray:
    """Gaussian weights (side,) of a tile along one axis, zero in its margins."""
    inner = side - 2 * MARGIN_PX
    offset = (np.arange(inner) - (inner - 1) / 2) / inner
    weights = np.exp(-0.5 * (offset / 0.25) ** 2).astype(np.float32)  # exp(-2) at the ends
    return np.pad(weights, MARGIN_PX)


def _out_of_memory(error: Exception) -> bool:
    # PyTorch's CPU allocator raises a bare RuntimeError.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
