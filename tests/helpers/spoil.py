"""Put a fault into a function, to see whether a test or a checked cell notices."""

import dataclasses
import functools
import importlib
import sys
from collections.abc import Mapping

import numpy as np
import pandas as pd


def spoil(target: str) -> None:
    """Make a function return wrong values everywhere it was imported so far, for the rest of this process.

    Parameters
    ----------
    target : str
        ``"module:function"`` or ``"module:Class.method"``.
    """
    module, _, path = target.partition(":")
    owner, names = importlib.import_module(module), path.split(".")
    for name in names[:-1]:
        owner = getattr(owner, name)
    right = getattr(owner, names[-1])

    @functools.wraps(right)
    def spoilt(*args, **kwargs):
        return wrong(right(*args, **kwargs))

    setattr(owner, names[-1], spoilt)
    for other in [module for name, module in sys.modules.items() if name.startswith("micro_lib.")]:
        for name in [name for name, value in vars(other).items() if value is right]:
            setattr(other, name, spoilt)


def wrong(value):
    """Return a value of the same kind, but wrong: half of an array is lost, a number is too large."""
    if isinstance(value, pd.DataFrame):
        return pd.DataFrame({name: wrong(column.to_numpy()) for name, column in value.items()}, index=value.index)
    if isinstance(value, np.ndarray) and value.size > 1 and value.dtype.kind in "biuf":
        value = value.copy()
        value[..., : value.shape[-1] // 2] = value.flat[0]
        return value
    if isinstance(value, tuple):
        parts = [wrong(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, Mapping):
        return {name: wrong(part) for name, part in value.items()}
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **{f.name: wrong(getattr(value, f.name)) for f in dataclasses.fields(value)})
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return type(value)(value * 1.5 + 1) if is_number else value
