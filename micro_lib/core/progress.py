"""Progress bars for people, on a terminal and in a notebook, nowhere else; and how long something took."""

import sys
import time

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


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self):
        self.started = time.perf_counter(), time.process_time()

    def read(self, prefix: str = "") -> dict[str, float]:
        """Return <prefix>seconds that have passed, and <prefix>process_seconds that all threads have computed in them.

        The second compares trainings on a machine that does other work beside.
        """
        now = time.perf_counter(), time.process_time()
        names = f"{prefix}seconds", f"{prefix}process_seconds"
        return {name: end - start for name, end, start in zip(names, now, self.started, strict=True)}
