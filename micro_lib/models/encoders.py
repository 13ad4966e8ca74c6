"""The file a pre-trained encoder is kept in: from where it was trained to the U-Net that starts with it."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from micro_lib.models import carded

FORMAT = "micro_lib.encoder"
SUFFIX = ".safetensors"


class EncoderError(RuntimeError):
    """A file that is no encoder of the architecture asked for, or a damaged one."""


def save(path: str | Path, architecture: str, encoder: nn.Module, facts: Mapping) -> None:
    """Write an encoder with a card.

    Parameters
    ----------
    path : str or pathlib.Path
        Ends in ``.safetensors``.
    architecture : str
        Of the U-Net it is from, see `micro_lib.models.unet.build`.
    encoder : torch.nn.Module
        `micro_lib.models.unet.encoder_of` such a network.
    facts : mapping
        Plain values: what it was trained on and how well it did.
    """
    card = {"format": FORMAT, "architecture": architecture, **facts}
    carded.write(path, json.dumps(card, sort_keys=True), encoder.state_dict())


def load(path: str | Path, architecture: str, encoder: nn.Module) -> dict:
    """Put the weights that `save` wrote into an encoder of the same architecture, and return their card.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    EncoderError
        If it holds something else, an encoder of another architecture, or is damaged.
    """
    where_from = "micro_lib.training.pretraining leaves one"
    text, tensors = carded.read(path, "an encoder", where_from, EncoderError)
    card = json.loads(text)
    found = card.get("format"), card.get("architecture")
    if found != (FORMAT, architecture):
        raise EncoderError(
            f"{path} holds {found[0] or 'another model'} of architecture {found[1]!r}; expected is an encoder of "
            f"{architecture!r}: {where_from}"
        )
    try:
        encoder.load_state_dict(tensors)
    except RuntimeError as error:
        raise EncoderError(f"{path} does not fit an encoder of {architecture!r}: {error}") from error
    return card
