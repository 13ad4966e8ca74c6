"""What several runs need and one makes: trained weights and facts in a file beside the runs, made once."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock

from micro_lib.core.hashes import arrays_sha256
from micro_lib.core.profiles import resolve
from micro_lib.core.runs import build_dir, commit, out_dir, parsed
from micro_lib.data.records import Record
from micro_lib.models import carded

ROOMS = ("core", "analysis", "synthesis", "data", "models", "training")  # whose code decides what is made


def configured(configuration: str | Mapping, named: Mapping[str, Mapping], defaults: Mapping) -> dict:
    """Return a configuration with every key of an experiment.

    Parameters
    ----------
    configuration : str or mapping
        A name of `named`, or values for some keys of `defaults`.
    named : mapping of str to mapping
        The experiment's own configurations.
    defaults : mapping
        What a configuration may say, and what it says by default.

    Raises
    ------
    ValueError
        If the name or a key is unknown.
    """
    if isinstance(configuration, str):
        if configuration not in named:
            raise ValueError(f"no configuration {configuration!r}; there are {', '.join(named)}")
        configuration = named[configuration]
    if unknown := set(configuration) - set(defaults):
        raise ValueError(f"unknown keys {sorted(unknown)} in a configuration; there are {', '.join(defaults)}")
    return {**defaults, **configuration}


def run_folder(
    experiment: str, configuration: Mapping, defaults: Mapping, seed: int, profile: str, out: str | Path = ""
) -> Path:
    """Return the folder of a run, and make it: `out`, or one named after all in which it differs from the defaults."""
    commit(), code_hash()  # of the code that is about to run: both are kept, and files may change while it does
    special = [f"{k}={v}".replace(" ", "-") for k, v in configuration.items() if v != defaults[k]]
    return out_dir(f"{experiment}-{resolve(profile)}-{'-'.join(special) or 'default'}-{seed}", str(out))


class Made(NamedTuple):
    """Weights by name (may be none), and plain facts about how they came about."""

    states: dict[str, torch.Tensor]
    facts: dict


def made_once(experiment: str, key: Mapping, make: Callable[[], Made]) -> Made:
    """Return what `make` makes for a key: from its file if there is one, else made now and left there.

    Processes that want the same at the same time wait for the first of them. A file counts for the code it was made
    with, so a change of the package never meets weights of before; a damaged one is reported and made anew.

    Parameters
    ----------
    experiment : str
        The files lie in ``<build folder>/<experiment>/shared``.
    key : mapping
        Everything that decides the result; plain values; of micrographs their `records_digest`, never their names.
    make : callable
        Called without arguments where there is no file.

    Returns
    -------
    Made
        Facts as they read back from JSON.
    """
    text, path = _text(key), shared_path(experiment, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.is_file():
            try:
                return _read(path, text)
            except carded.CardError as error:
                warnings.warn(f"{error}; it is made anew", stacklevel=2)
        states, facts = make()
        carded.write(path, {"key": text, "facts": facts}, states)
        return _read(path, text)


def _read(path: Path, text: str) -> Made:
    with carded.opened(path, "what runs share", "`made_once` makes one", key=text) as (card, states):
        return Made(states, card["facts"])


def records_digest(records: Sequence[Record]) -> str:
    """Return one SHA-256, hexadecimal, of names, groups, images and masks: for keys of `made_once`."""
    named = json.dumps([[record.name, record.group] for record in records])
    pixels = arrays_sha256(array for record in records for array in (record.image, record.mask))
    return hashlib.sha256((named + pixels).encode()).hexdigest()


def shared_path(experiment: str, key: Mapping) -> Path:
    """Return the file of `made_once`; while it is being made, a checkpoint may lie beside it under another suffix."""
    name = hashlib.sha256(_text(key).encode()).hexdigest()[:20]
    return build_dir() / experiment / "shared" / f"{name}.safetensors"


def _text(key: Mapping) -> str:
    return json.dumps({**key, "code": code_hash()}, sort_keys=True)


@cache
def code_hash() -> str:
    """Return the SHA-256, hexadecimal, of the package's code in `ROOMS`, see `micro_lib.core.runs.parsed`."""
    package = Path(__file__).resolve().parents[1]
    files = sorted(file for room in ROOMS for file in (package / room).glob("*.py"))
    return hashlib.sha256("".join(file.name + parsed(file) for file in files).encode()).hexdigest()
