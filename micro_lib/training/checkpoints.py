"""Checkpoints of unfinished trainings: tensors and plain values, whole or absent, each bound to its training.

Each is bound to the code too: what was begun before a change of the package is not finished after it.
"""

import json
import pickle
import reprlib
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from micro_lib.core.hashes import arrays_sha256
from micro_lib.core.runs import atomic_path
from micro_lib.training.shared import code_hash


class CheckpointMismatch(RuntimeError):
    """The folder holds the checkpoint of another training."""


def start_sha256(network: nn.Module) -> str:
    """Return one SHA-256, hexadecimal, of all weights and statistics that a training starts from.

    Arms that differ in their pre-training alone are alike in everything else that a fingerprint could hold.
    """
    return arrays_sha256(tensor.detach().cpu().numpy() for tensor in network.state_dict().values())


def write(path: str | Path, state: Mapping, fingerprint: str) -> None:
    """Write a checkpoint, atomically.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    state : mapping
        Tensors and plain values, nested as one likes; numbers of NumPy, which fastai's schedules leave in the states of
        optimisers, become Python's, since they would not be loaded.
    fingerprint : str
        Of all that decides the training's result, but for the code, which is added.
    """
    with atomic_path(path) as temporary:
        torch.save(_plain({**state, "fingerprint": fingerprint, "code": code_hash()}), temporary)


def read(path: str | Path, fingerprint: str) -> dict | None:
    """Return what `write` left, or None where there is nothing.

    A damaged file, or one that other code wrote, is reported and counts as nothing: the training starts anew.

    Raises
    ------
    CheckpointMismatch
        If the file belongs to a training of another fingerprint, or is something else altogether.
    """
    path = Path(path)
    if not path.is_file():
        return None
    _check_begin(path)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        damaged = error
    if damaged:
        warnings.warn(f"{path} is damaged ({damaged}); the training starts from the beginning", stacklevel=4)
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointMismatch(f"{path} is no checkpoint of a training ({error}); take another folder") from error
    found = saved.get("fingerprint", "none") if isinstance(saved, dict) else "none"
    if found != fingerprint:
        raise CheckpointMismatch(
            f"{path} belongs to another training ({_told_apart(found, fingerprint)}); delete it or take another folder"
        )
    if saved.get("code") != code_hash():
        warnings.warn(f"{path} was begun by other code; the training starts from the beginning", stacklevel=4)
        return None
    return saved


def _check_begin(path: Path) -> None:
    with path.open("rb") as file:
        begin = file.read(len(_ARCHIVE))
    if begin != _ARCHIVE[: len(begin)]:
        raise CheckpointMismatch(f"{path} is no checkpoint of a training (it begins {begin}); take another folder")


_ARCHIVE = b"PK"  # torch.save writes a ZIP archive


def _told_apart(found: str, wanted: str) -> str:
    """Say in which of their entries two fingerprints differ; those that are no mappings are told in full."""
    try:
        pair = [dict(json.loads(text)) for text in (found, wanted)]
    except (ValueError, TypeError):
        return f"{found}, asked for is {wanted}"
    differing = [name for name in {**pair[0], **pair[1]} if pair[0].get(name) != pair[1].get(name)]
    values = [[reprlib.repr(entries.get(name)) for entries in pair] for name in differing]
    told = zip(differing, values, strict=True)
    return "; ".join(f"{name}: it has {its}, asked for is {asked}" for name, (its, asked) in told)


def _plain(state):
    if isinstance(state, Mapping):
        return {name: _plain(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_plain(value) for value in state)
    return state.item() if isinstance(state, np.generic) else state
