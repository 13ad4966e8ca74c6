"""Checks of what a caller passes."""

from collections.abc import Iterable


def one_of(name: str, value: object, known: Iterable[str]) -> None:
    """Raise ValueError, which names what there is, unless a value is one of `known`."""
    known = tuple(known)
    if value not in known:
        raise ValueError(f"{name} is {value!r}; there are {', '.join(filter(None, known))}")
