"""Time that a function takes."""

from time import thread_time


def seconds(function, repeats=1):
    """Return the least processor time of this one thread in some calls: what else runs on the machine counts little."""
    times = []
    for _ in range(repeats):
        start = thread_time()
        function()
        times.append(thread_time() - start)
    return min(times)
