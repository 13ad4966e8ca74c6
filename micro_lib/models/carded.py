"""One .safetensors file that holds the tensors of a model and its card, JSON text, with a SHA-256 over both."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from micro_lib.core.labels import ClassMap
from micro_lib.core.runs import atomic_path


class CardError(RuntimeError):
    """A file that is no model of the kind and version asked for, or a damaged one."""


class ClassCard:
    """Base of cards that are dataclasses with a `class_map`: plain values and back."""

    def plain(self) -> dict:
        """Return the card as dicts, lists, text and numbers."""
        return {**vars(self), "class_map": json.loads(self.class_map.to_json())}

    @classmethod
    def of(cls, plain: Mapping) -> "ClassCard":
        """Return the card that `plain` described; what an older one did not have yet takes its default."""
        values = {field.name: plain[field.name] for field in dataclasses.fields(cls) if field.name in plain}
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**{**values, "class_map": ClassMap.from_json(json.dumps(plain["class_map"]))})


def write(path: str | Path, card: Mapping, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors and card, plain values, atomically.

    Parameters
    ----------
    path : str or pathlib.Path
        The file; its folder is made.
    card : mapping
        Anything that JSON can hold.
    tensors : mapping of str to torch.Tensor
        On any device, as of ``state_dict()``.
    """
    text = json.dumps(card, sort_keys=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={"card": text, "sha256": _sha256(text, tensors)}))


@contextmanager
def opened(path: str | Path, what: str, where_from: str, **expected) -> Iterator[tuple[dict, dict[str, torch.Tensor]]]:
    """Give card and tensors that `write` left to a block that makes a model of them.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    what : str
        What it should hold, for messages, e.g. ``"a segmenter"``.
    where_from : str
        What makes such a file, for messages.
    **expected
        What the card has to say, e.g. format and version.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CardError
        If it is no .safetensors file, has no card, does not match its SHA-256, its card says something else than
        expected, or the block finds that card and tensors make no model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no model file {path}; {where_from}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            card = json.loads(metadata.get("card", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as fault:
        raise CardError(f"{path} is no .safetensors file, or a damaged one ({fault}); get it again") from fault
    if "card" not in metadata:
        raise CardError(f"{path} holds tensors without the card of {what}; expected a file made by `save`")
    if metadata.get("sha256") != _sha256(metadata["card"], tensors):
        raise CardError(f"{path} is damaged: its contents do not match its SHA-256; get it again")
    found = {name: card.get(name) for name in expected}
    if found != expected:
        raise CardError(f"{path} holds {_words(found)}; read as {what} is {_words(expected)}: {where_from}")
    try:
        yield card, tensors
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CardError(f"{path} does not make {what} ({type(error).__name__}: {error})") from error


def _words(facts: Mapping) -> str:
    return " ".join(f"{name} {value!r}" for name, value in facts.items())


def _sha256(card: str, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
