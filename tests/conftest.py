"""What all tests share."""

import os

import hypothesis
import pytest

# Figures are drawn without a screen, and two test processes on two cores do not fight over threads.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples every time, and no time limit for one: a loaded machine is no fault of the code.
hypothesis.settings.register_profile("repository", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repository")


@pytest.fixture(autouse=True)
def own_output(monkeypatch, tmp_path):
    """No test writes into build/, and none depends on the profile of whoever runs it."""
    monkeypatch.setenv("MICRO_OUT", str(tmp_path / "build"))
    monkeypatch.delenv("MICRO_PROFILE", raising=False)
