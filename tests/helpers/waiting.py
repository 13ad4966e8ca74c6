"""Waiting for what another process leaves."""

import time
from pathlib import Path


def wait_for(path: Path, seconds=300):
    """Return once the file is there; fail after so many seconds."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.05)
