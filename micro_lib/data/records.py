"""A labelled micrograph with what is known of it, as packs, stand-ins and shifts hold them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np


class Record(NamedTuple):
    """One labelled micrograph, its `name` without suffix; `pixel_size_um` is None where it is not known."""

    name: str
    image: np.ndarray  # (H, W) uint8 or uint16
    mask: np.ndarray  # (H, W) uint8 class ids
    group: str  # overlap group or specimen: never split within one
    pixel_size_um: float | None
    attributes: Mapping[str, float] = MappingProxyType({})  # see `manifest.ATTRIBUTES`
    domain: str = ""  # how it was taken, where a pack has several ways: a view, a preparation
