"""Between which values a generator's parameters mean something, and the check that a row keeps to them."""

from collections.abc import Hashable, Mapping
from numbers import Real

# From the lowest to the highest value, or all values there are. A generator neither fails nor draws nonsense within.
Limits = tuple[float, float] | frozenset
SHARE = (0, 1)
SIGNED = (-1, 1)
AMOUNT = (0, 1e6)
POSITIVE = (1e-6, 1e6)
ANGLE_DEG = (-360, 360)
SIDE_PX = (8, 32_768)
SWITCH = frozenset({False, True})


def divided(table: Mapping[str, tuple]) -> tuple[dict[str, tuple], dict[str, Limits]]:
    """Return two tables of one with (unit, value, limits or None, meaning) by name: without the limits, and of them."""
    entries = {name: (unit, value, doc) for name, (unit, value, _, doc) in table.items()}
    return entries, {name: limits for name, (_, _, limits, _) in table.items() if limits is not None}


def check_row(row: Mapping, limits: Mapping[str, Limits]) -> None:
    """Raise ValueError, which names the parameter, what was found and what is allowed, unless a row keeps to limits.

    Parameters
    ----------
    row : mapping
        Values by parameter; further ones do not matter.
    limits : mapping of str to Limits
        By parameter, the smallest and the largest number allowed, or all values that are.
    """
    for name, allowed in limits.items():
        value = row.get(name)
        listed = isinstance(allowed, frozenset)
        hashable = isinstance(value, Hashable)  # what is not is none of those listed
        if hashable and value in allowed if listed else isinstance(value, Real) and allowed[0] <= value <= allowed[1]:
            continue
        told = f"one of {sorted(allowed)}" if listed else "a number from {:g} to {:g}".format(*allowed)
        raise ValueError(f"parameter {name!r} is {value!r}; {told} is expected")
