"""Named random streams: one seed gives as many independent generators as there are names."""

import hashlib
import json
import operator

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the random stream that belongs to a seed and a path of names.

    The same arguments always give the same stream, and a stream never depends on which others were drawn from,
    so an image, a fold or a run can be repeated on its own.

    Parameters
    ----------
    seed : int
        Seed of the whole experiment, 0 or larger.
    *names : str or int
        What the stream is for, e.g. ``stream(1, "grains", "image", 17)``; ``1`` and ``"1"`` are different names.

    Returns
    -------
    numpy.random.Generator
        PCG64 generator seeded by ``SeedSequence([seed, words of SHA-256(names)])``.

    Raises
    ------
    ValueError
        If the seed is negative.
    TypeError
        If a name is neither a string nor an integer.
    """
    return np.random.default_rng(_sequence(seed, names))


def stream_seed(seed: int, *names: str | int) -> int:
    """Return an integer seed for libraries that take no NumPy generator.

    Parameters
    ----------
    seed, *names
        As for `stream`.

    Returns
    -------
    int
        In [0, 2**63), a function of the arguments alone.

    Raises
    ------
    ValueError, TypeError
        As for `stream`.
    """
    return int(_sequence(seed, names).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _sequence(seed: int, names: tuple) -> np.random.SeedSequence:
    seed = operator.index(seed)
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or larger")
    # JSON keeps ("ab", "c") apart from ("a", "bc") and 1 apart from "1".
    key = json.dumps([name if isinstance(name, str) else _index(name) for name in names])
    words = np.frombuffer(hashlib.sha256(key.encode()).digest(), dtype="<u4")
    return np.random.SeedSequence([seed, *words.tolist()])


def _index(name) -> int:
    try:
        return operator.index(name)
    except TypeError:
        raise TypeError(f"a stream is named by strings and integers; found {name!r} ({type(name).__name__})") from None
