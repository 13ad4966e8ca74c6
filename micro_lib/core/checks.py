"""Checks of what a caller passes."""

import math
from collections.abc import Iterable
from numbers import Integral, Real


def one_of(name: str, value: object, known: Iterable[str]) -> None:
    """Raise ValueError, which names what there is, unless a value is one of those known.

    Parameters
    ----------
    name : str
        What the value is, for the message.
    value : object
        What was given.
    known : iterable of str
        What it may be; an empty text among them is allowed, but not named.
    """
    known = tuple(known)
    if value not in known:
        raise ValueError(f"{name} is {value!r}; there are {', '.join(filter(None, known))}")


def number(name: str, value: object, low: float, *, whole: bool = False) -> None:
    """Raise ValueError, which names what was found, unless a value is a finite number (a `whole` one) from `low` on.

    Parameters
    ----------
    name : str
        What the value is, for the message.
    value : object
        What was given; a truth value is no number.
    low : float
        The smallest number allowed.
    whole : bool
        Whole numbers alone are allowed.
    """
    kind = Integral if whole else Real
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value) or value < low:
        raise ValueError(f"{name} is {value!r}; a {'whole ' if whole else ''}number, {low} or larger, is expected")
