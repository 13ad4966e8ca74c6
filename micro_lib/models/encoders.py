"""The file a pre-trained encoder is kept in: from where it was trained to the U-Net that starts with it."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from micro_lib.models import carded

FORMAT = "micro_lib.encoder"
SUFFIX = ".safetensors"


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
    carded.write(path, {"format": FORMAT, "architecture": architecture, **facts}, encoder.state_dict())


def load(path: str | Path, architecture: str, encoder: nn.Module) -> dict:
    """Put the weights that `save` wrote into an encoder of the same architecture, and return their card.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    architecture : str
        As for `save`.
    encoder : torch.nn.Module
        Takes the weights, in place.

    Returns
    -------
    dict
        Format, architecture and the facts that were given to `save`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CardError
        If it holds something else, an encoder of another architecture, or is damaged.
    """
    where_from = "micro_lib.training.pretraining leaves one"
    expected = {"format": FORMAT, "architecture": architecture}
    with carded.opened(path, "an encoder", where_from, **expected) as (card, tensors):
        encoder.load_state_dict(tensors)
    return card
