"""Hashes of pixels: what was made from them counts for these alone."""

import hashlib
from collections.abc import Iterable

import numpy as np


def arrays_sha256(arrays: Iterable[np.ndarray]) -> str:
    """Return one SHA-256, hexadecimal, of shape, type and values of arrays in turn.

    Files of equal pixels differ between encoders; this does not.

    Parameters
    ----------
    arrays : iterable of numpy.ndarray
        Any shapes and types; their order counts.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{'x'.join(map(str, array.shape))} {array.dtype};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
