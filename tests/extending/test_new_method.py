"""How to add an adaptation method: a term of the loss, and an entry of `METHODS`; all else works with it.

The method is everything between the two lines; it may stand in a notebook or in a module of its own.
"""

import numpy as np
import pytest
import torch
from helpers.two_levels import Tiny, micrographs, student

from micro_lib.data.framing import Framing
from micro_lib.training.adaptation import complete
from micro_lib.training.adaptation_loop import Draws, Recipe, adapt
from micro_lib.training.adaptation_methods import METHODS, SelfInformation, Term


# ---- a method: outputs on the target are made confident (MinEnt, Vu et al. 2019, eq. 2) ----
class Confidence(Term):
    """The mean entropy of the target outputs, weighted."""

    def __init__(self, weight):
        super().__init__()
        self.weight, self.information = weight, SelfInformation()

    def loss(self, student, batch):
        """Return what is added to the loss on labelled tiles, and its parts by name for the curve."""
        outputs = student.levels(batch.target).main.softmax(1)  # (B, C, h, w)
        entropy = self.information(outputs).sum(1).mean()
        return self.weight * entropy, {"entropy": float(entropy.detach())}


@pytest.fixture(autouse=True)
def added(monkeypatch):
    monkeypatch.setitem(METHODS, "MinEnt", lambda given: [Confidence(weight=1.0)])


# ---- and what it gives without another line ----


def test_runs_and_sweeps_know_it():
    assert complete({"method": "MinEnt", "shift": "T2"})["method"] == "MinEnt"


def test_it_trains_and_does_what_it_is_for(tmp_path):
    left = {}
    for method in ("none", "MinEnt"):
        torch.manual_seed(0)
        plan = Recipe(method, 2, 30, 4, Framing(1.0, 32, 4), 1e-2, seed=1, points=1)
        draws, network = Draws(micrographs(), [], micrographs(contrast=15, seed=1), plan), Tiny()
        curve = adapt(network, draws, plan, folder=tmp_path / method, watch=lambda _: {"target_largest": 0.5})
        assert np.isfinite(curve["loss"]).all() and ("entropy" in curve) == (method == "MinEnt")
        with torch.no_grad():
            left[method] = Confidence(1.0).loss(student(network, side_px=40), draws(99))[1]["entropy"]
    assert left["MinEnt"] < 0.6 * left["none"], f"surer of the target with it than without: {left}"
