"""Training tiles: micrographs in memory or rendered on the fly, cut and augmented by a random stream of their own."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from micro_lib.core.checks import one_of
from micro_lib.core.progress import progress
from micro_lib.core.seeds import stream, stream_seed
from micro_lib.data import augment
from micro_lib.data.files import to_uint8

# Name: geometry, and whether tone and grain of the picture change too. The last three are those of Goetz et al. 2022.
# DEVIATION: "resize", the augmentation of Trampert et al. 2021, has gamma, blur and white noise here as well, which
# neither they nor fastai's get_transforms() name; of the latter's brightness and contrast standardising leaves little,
# see `augment.point_operations`.
MODES = {
    "crop": (augment.light, True),
    "resize": (augment.as_published, True),
    "none": (v2.RandomCrop, False),
    "basic": (augment.turned, False),
    "extended": (augment.elastic, True),
}


class Labelled(NamedTuple):
    """A micrograph for training: 8 bits are enough, and a thousand of them fit in memory."""

    image: np.ndarray  # (H, W) uint8
    mask: np.ndarray  # (H, W) uint8 class ids


class Cut(NamedTuple):
    """A window of something larger, which is standardised like the whole of it."""

    image: np.ndarray  # (H, W) uint8
    mask: np.ndarray  # (H, W) uint8 class ids
    histogram: np.ndarray  # (256,) grey levels of the whole


class Rendered(Sequence):
    """The micrographs of a scenario table, rendered whenever they are asked for: no memory, all the time.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a micrograph.
    render : callable
        Turns a row (a mapping) into an object with `image` (H, W) uint8 or uint16 and `mask` (H, W) uint8.
    """

    def __init__(self, table: pd.DataFrame, render: Callable[[Mapping], object]):
        self.table, self.render = table, render

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int) -> Labelled:
        micrograph = self.render(self.table.iloc[[i]].to_dict("records")[0])  # whole numbers stay whole
        return Labelled(to_uint8(micrograph.image), micrograph.mask)


def pool(micrographs: Sequence[Labelled], scale: float = 1.0) -> list[Labelled]:
    """Return all micrographs of a sequence in memory, `reduced`: training then never waits for them.

    Parameters
    ----------
    micrographs : sequence of Labelled
        Such as `Rendered`; each is asked for once.
    scale : float
        As for `reduced`; at 1 masks may hold any ids.
    """
    numbers = progress(range(len(micrographs)), desc="rendering", unit="image")
    return [reduced(micrographs[i], scale) for i in numbers]


def reduced(micrograph: Labelled, scale: float) -> Labelled:
    """Return a micrograph at `scale` (above 0, up to 1) of its pixels: grey levels averaged, the mask by majority.

    Of two classes alone: a pixel half of which is class 1 becomes 1, so that thin lines stay; see also
    `micro_lib.data.framing.scaled`. ValueError for a mask of more.
    """
    if scale == 1:
        return micrograph
    if micrograph.mask.max() > 1:
        raise ValueError(f"the mask holds the id {micrograph.mask.max()}; a line and its background have ids 0 and 1")
    size = tuple(max(1, round(side * scale)) for side in micrograph.image.shape[::-1])
    image = cv2.resize(micrograph.image, size, interpolation=cv2.INTER_AREA)
    share = cv2.resize(micrograph.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return Labelled(image, (share >= 0.5).astype(np.uint8))


class Tiles(Dataset):
    """Training samples, each a pure function of (seed, epoch, index), whichever worker makes it.

    Parameters
    ----------
    micrographs : sequence of Labelled or Cut
        In memory (`pool`) or rendered on the fly (`Rendered`); sizes may differ.
    px : int
        Side of the square tiles.
    seed : int
        Seed of the windows and changes.
    mode : str
        ``"crop"``: windows at about native scale, `augment.light`; ``"resize"``: whole micrographs downsized to `px`,
        `augment.as_published`; ``"none"``, ``"basic"``, ``"extended"``: windows at native scale as they are,
        `augment.turned`, `augment.elastic`.

    Raises
    ------
    ValueError
        If the mode is unknown or there are no micrographs; when a tile is cut, if image and mask differ in size.
    """

    def __init__(self, micrographs: Sequence[Labelled], px: int, *, seed: int, mode: str = "crop"):
        _check(micrographs, mode)
        self.micrographs, self.seed = micrographs, seed
        geometry, changed = MODES[mode]
        self.geometry = geometry(px)
        self.tone = augment.point_operations() if changed else None
        self.picture = augment.picture_operations() if changed else v2.Identity()

    def __len__(self) -> int:
        return len(self.micrographs)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tile `key` = (epoch, index): image (1, px, px) float32 and mask (px, px) int64."""
        epoch, index = key
        micrograph = self.micrographs[index]
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also queue a call, with its traceback, for every GPU backend: 1 ms a tile
            torch.default_generator.manual_seed(stream_seed(self.seed, "tile", epoch, index))
            image, mask = self.geometry(*_tensors(micrograph, index))
            table = augment.tone_table(_histogram(micrograph), self.tone)
            image = self.picture(tv_tensors.Image(table[image.long()]))
        return image.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor).long()


class FixedTiles(Dataset):
    """Validation samples: the middle of each micrograph, or all of it downsized, with nothing changed.

    Parameters
    ----------
    micrographs, px, mode
        As for `Tiles`.
    """

    def __init__(self, micrographs: Sequence[Labelled], px: int, *, mode: str = "crop"):
        _check(micrographs, mode)
        self.micrographs, self.px, self.mode = micrographs, px, mode
        self.geometry = v2.Resize((px, px), antialias=True) if mode == "resize" else v2.CenterCrop(px)

    def __len__(self) -> int:
        return len(self.micrographs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tile `index`: image (1, px, px) float32 and mask (px, px) int64."""
        micrograph = self.micrographs[index]
        if self.mode != "resize" and min(micrograph.mask.shape) < self.px:
            raise ValueError(f"a micrograph of {micrograph.mask.shape} is too small for tiles of {self.px} px")
        image, mask = self.geometry(*_tensors(micrograph, index))
        table = augment.tone_table(_histogram(micrograph), None)
        return table[image.as_subclass(torch.Tensor).long()], mask.as_subclass(torch.Tensor).long()


class EpochSampler(Sampler):
    """Keys (epoch, index) in an order drawn anew for every epoch; `epoch` is set from outside, so a run can resume.

    Parameters
    ----------
    length : int
        Number of samples.
    seed : int
        Seed of the orders.
    """

    def __init__(self, length: int, *, seed: int):
        self.length, self.seed, self.epoch = length, seed, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self):
        order = stream(self.seed, "order", self.epoch).permutation(self.length)
        return iter([(self.epoch, int(i)) for i in order])


def _check(micrographs: Sequence[Labelled], mode: str) -> None:
    one_of("mode", mode, MODES)
    if len(micrographs) == 0:
        raise ValueError("no micrographs to cut tiles from; give at least one")


def check_pair(micrograph: Labelled | Cut, name: str) -> None:
    """Raise ValueError, which begins with `name`, unless image and mask are of one size.

    Parameters
    ----------
    micrograph : Labelled or Cut
        Anything with `image` and `mask`.
    name : str
        What it is called in the message.
    """
    image, mask = micrograph.image.shape, micrograph.mask.shape
    if image != mask:
        raise ValueError(
            f"{name}: the image has {image} pixels, the mask {mask}; both have to show the same area at the same scale"
            " (is an information bar cut off one of them alone?)"
        )


def _tensors(micrograph: Labelled, index: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    check_pair(micrograph, f"micrograph {index}")
    image, mask = torch.from_numpy(micrograph.image), torch.from_numpy(micrograph.mask)
    return tv_tensors.Image(image[None]), tv_tensors.Mask(mask)  # (1, H, W), (H, W)


def histogram(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return how often each grey level (256,) occurs in images (H, W) uint8."""
    return sum(np.bincount(image.ravel(), minlength=augment.LEVELS) for image in images)


def _histogram(micrograph: Labelled | Cut) -> torch.Tensor:
    whole = micrograph.histogram if isinstance(micrograph, Cut) else histogram([micrograph.image])
    return torch.from_numpy(whole)
