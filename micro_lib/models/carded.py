"""One .safetensors file that holds the tensors of a model and its card, JSON text, with a SHA-256 over both."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from micro_lib.core.runs import atomic_path


def write(path: str | Path, card: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors and card, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={"card": card, "sha256": _sha256(card, tensors)}))


def read(path: str | Path, what: str, where_from: str, error: type[Exception]) -> tuple[str, dict[str, torch.Tensor]]:
    """Return card and tensors that `write` left.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    what : str
        What it should hold, for messages, e.g. ``"a segmenter"``.
    where_from : str
        What makes such a file, for messages.
    error : type
        Of the exception raised for a file that is no .safetensors file, has no card, or does not match its SHA-256.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    error
        See above.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no model file {path}; {where_from}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as fault:
        raise error(f"{path} is no .safetensors file, or a damaged one ({fault}); get it again") from fault
    if "card" not in metadata:
        raise error(f"{path} holds tensors without the card of {what}; expected a file made by `save`")
    if metadata.get("sha256") != _sha256(metadata["card"], tensors):
        raise error(f"{path} is damaged: its contents do not match its SHA-256; get it again")
    return metadata["card"], tensors


def _sha256(card: str, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
