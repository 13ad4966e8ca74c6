"""Micrographs with labels of the whole picture, to train an encoder on before it segments anything.

Goetz et al. 2022, section 2.3, use NanoSEM, 18,750 electron micrographs in ten classes, close to the NFFA-EUROPE
collection: folders of pictures, one a class. Here generated micrographs can stand in their place, labelled by the
scenario that made them or by its parameters. No lath bainite is among them.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from scipy.stats import rankdata

from micro_lib.core.checks import one_of
from micro_lib.core.progress import progress
from micro_lib.core.seeds import stream, stream_seed
from micro_lib.data.files import read_micrograph, to_uint8
from micro_lib.data.formats import SUFFIXES
from micro_lib.data.packs import DataUnavailable
from micro_lib.synthesis import grains, precipitates
from micro_lib.synthesis.distributions import Choice, Constant
from micro_lib.synthesis.presets import preset
from micro_lib.synthesis.scenario import Micrograph, Space

FOLDER = "nffa_sem"  # below $MICRO_DATA
HELD_OUT = 0.2  # share of the pictures that training does not see: 3,750 of 18,750


class Labels(NamedTuple):
    """Pictures in memory and what an encoder has to say of each."""

    images: np.ndarray  # (N, px, px) uint8
    targets: np.ndarray  # (N, K) float32 in [0, 1]: of classes one is 1, of parameters each is a rank
    names: tuple[str, ...]  # of the K targets

    @property
    def are_classes(self) -> bool:
        """Whether exactly one target of every picture is 1."""
        return bool(np.isin(self.targets, (0, 1)).all() and (self.targets.sum(1) == 1).all())


def collection(task: str, n: int, px: int, seed: int) -> Labels:
    """Return the pictures of a task.

    Parameters
    ----------
    task : str
        One of `TASKS`: ``"scenarios"`` and ``"parameters"`` are generated, ``"folder"`` is ``$MICRO_DATA/nffa_sem``.
    n : int
        How many are generated; of a folder all are read.
    px : int
        Side of the pictures.
    seed : int
        Of the generated ones.

    Raises
    ------
    ValueError
        If the task is unknown.
    DataUnavailable
        If the folder cannot be used, see `class_folders`.
    """
    one_of("task", task, TASKS)
    return TASKS[task](n, px, seed)


def scenarios(n: int, px: int, seed: int) -> Labels:
    """Return generated micrographs, as many of each scenario, labelled by which made them.

    Parameters
    ----------
    n : int
        Pictures in all, 1 or more; rounded up to a multiple of the number of scenarios.
    px : int
        Side of the pictures, half of what they are rendered with.
    seed : int
        Decides all of them, 0 or larger.
    """
    each = -(-n // len(_SCENARIOS))
    made = []
    with progress(total=each * len(_SCENARIOS), desc="rendering", unit="image") as bar:
        for name, (space, render) in _SCENARIOS.items():
            for row in _sized(space(), px).sample(each, stream_seed(seed, "scenario", name)).to_dict("records"):
                made.append(_picture(render(row), px))
                bar.update()
    targets = np.eye(len(_SCENARIOS), dtype=np.float32).repeat(each, 0)
    return Labels(np.stack(made), targets, tuple(_SCENARIOS))


def parameters(n: int, px: int, seed: int) -> Labels:
    """Return generated micrographs of the broad grain scenario, labelled by their parameters.

    A target is the share of the micrographs with a smaller value, equal ones counted half; of parameters that are
    numbers and vary.

    Parameters
    ----------
    n : int
        Number of pictures, 2 or more.
    px : int
        Side of the pictures, half of what they are rendered with.
    seed : int
        Decides all of them, 0 or larger.
    """
    table = _sized(preset("broad"), px).sample(n, stream_seed(seed, "parameters"))
    rows = progress(table.to_dict("records"), desc="rendering", unit="image")
    images = np.stack([_picture(grains.render(row), px) for row in rows])
    numbers = table.drop(columns="seed").select_dtypes("number").astype(float)
    numbers = numbers.loc[:, numbers.nunique() > 1]
    ranks = (rankdata(numbers, axis=0) - 0.5) / n
    return Labels(images, ranks.astype(np.float32), tuple(numbers))


def class_folders(folder: str | Path, px: int) -> Labels:
    """Read a collection in the layout of NFFA-EUROPE's: a folder a class, pictures in it.

    Each picture loses its information bar and is scaled so that its shorter side is `px`; its middle is kept.

    Parameters
    ----------
    folder : str or pathlib.Path
        Its folders are the classes; pictures may lie deeper in them.
    px : int
        Side of the pictures.

    Raises
    ------
    DataUnavailable
        If the folder is not there, has fewer than two folders, or one of them holds no picture; names them.
    MicrographError
        If a picture cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataUnavailable(f"no folder {folder}; expected one with a folder of pictures for every class")
    files = {place.name: _pictures(place) for place in sorted(folder.iterdir()) if place.is_dir()}
    if len(files) < 2:
        found = ", ".join(files) or "none"
        raise DataUnavailable(f"{folder} needs two class folders or more; found {found}; unpack the collection here")
    if empty := [name for name, paths in files.items() if not paths]:
        kinds = ", ".join(sorted(SUFFIXES))
        raise DataUnavailable(f"no pictures ({kinds}) in {', '.join(empty)} of {folder}; fill or remove the folder")
    paths = [(path, which) for which, part in enumerate(files.values()) for path in part]
    images = np.stack([_read(path, px) for path, _ in progress(paths, desc="reading", unit="image")])
    return Labels(images, np.eye(len(files), dtype=np.float32)[[which for _, which in paths]], tuple(files))


def divided(labels: Labels, seed: int) -> tuple[Labels, Labels]:
    """Return what is trained on and what is `HELD_OUT`, drawn at random.

    Parameters
    ----------
    labels : Labels
        All pictures.
    seed : int
        Of the draw, 0 or larger.

    Raises
    ------
    ValueError
        If there are too few pictures to hold one out.
    """
    count = round(HELD_OUT * len(labels.images))
    if count < 1 or count == len(labels.images):
        raise ValueError(f"{len(labels.images)} pictures are too few to train on and to hold some out")
    order = stream(seed, "held out").permutation(len(labels.images))
    parts = (order[count:], order[:count])
    return tuple(labels._replace(images=labels.images[part], targets=labels.targets[part]) for part in parts)


def _given(_n: int, px: int, _seed: int) -> Labels:
    place = os.environ.get("MICRO_DATA", "")
    if not place:
        raise DataUnavailable(
            f"set MICRO_DATA to a folder with {FOLDER}/<class>/<picture>, or take the task 'scenarios'"
        )
    return class_folders(Path(place) / FOLDER, px)


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _read(path: Path, px: int) -> np.ndarray:
    pixels = to_uint8(read_micrograph(path, crop_info_bar=True).pixels)
    scale = px / min(pixels.shape)
    size = tuple(max(px, round(side * scale)) for side in pixels.shape[::-1])
    scaled = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = ((side - px) // 2 for side in scaled.shape)
    return scaled[top : top + px, left : left + px]


def _sized(space: Space, px: int) -> Space:
    side = Constant(2 * px)
    return space.replace(height_px=side, width_px=side)


def _picture(micrograph: Micrograph, px: int) -> np.ndarray:
    """Half the pixels of a generated micrograph, as segmenters are trained at half scale."""
    return cv2.resize(to_uint8(micrograph.image), (px, px), interpolation=cv2.INTER_AREA)


_SCENARIOS: Mapping[str, tuple[Callable[[], Space], Callable[[Mapping], Micrograph]]] = {
    # Measured as the others are, noise after the blur: encoders of stored runs have learned from such.
    "drawn grains": (lambda: preset("trampert").replace(look=Constant("")), grains.render),
    "etched steel": (lambda: preset("steel_316l"), grains.render),
    "etched iron": (lambda: preset("iron"), grains.render),
    "unetched grains": (lambda: preset("broad").replace(look=Choice({"orientation_contrast": 1.0})), grains.render),
    "precipitates": (precipitates.scenario, precipitates.render),
}


TASKS: Mapping[str, Callable[[int, int, int], Labels]] = {
    "scenarios": scenarios,
    "parameters": parameters,
    "folder": _given,
}
