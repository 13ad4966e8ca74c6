"""Progress bars for people: on a terminal and in a notebook, nowhere else."""

import sys

from IPython import get_ipython
from tqdm.auto import tqdm


def progress(*args, disable: bool = False, **options) -> tqdm:
    """Return a tqdm bar that is quiet in logs, pipes and tests, and gone when it is done.

    Parameters
    ----------
    *args, **options
        As for ``tqdm.auto.tqdm``.
    disable : bool
        Quiet everywhere.
    """
    watched = sys.stderr.isatty() or hasattr(get_ipython(), "kernel")
    return tqdm(*args, disable=disable or not watched, leave=False, **options)
