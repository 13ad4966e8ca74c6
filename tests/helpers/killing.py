"""Trainings that are killed."""

from contextlib import contextmanager

import pytest

from micro_lib.training import checkpoints


class Killed(BaseException):
    """Nothing that a training would catch."""


def killed_in_call(number, function):
    """The function, killed when it is called for the `number`-th time."""
    calls = []

    def call(*args, **options):
        calls.append(args)
        if len(calls) == number:
            raise Killed
        return function(*args, **options)

    return call


@contextmanager
def killed(at=1):
    """Kill what the block trains, right behind its `at`-th checkpoint."""
    write, count = checkpoints.write, []

    def last(*args):
        write(*args)
        count.append(1)
        if len(count) == at:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "write", last)
        yield
