"""What is made once: kept in a file, for its key and its code, whoever asks first."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch

from micro_lib.core.runs import build_dir
from micro_lib.data.records import Record
from micro_lib.training import shared
from micro_lib.training.shared import Made, made_once, records_digest


def maker(calls, value=1.0):
    def make():
        calls.append(value)
        return Made({"w": torch.full((2, 3), value)}, {"rate": 0.125 * value, "note": "ä"})

    return make


def test_made_once_and_read_back_bit_for_bit():
    calls = []
    first = made_once("cracks", {"seed": 1}, maker(calls))
    again = made_once("cracks", {"seed": 1}, maker(calls, 2.0))
    assert calls == [1.0] and torch.equal(first.states["w"], again.states["w"])
    assert again.facts == {"rate": 0.125, "note": "ä"}


def test_another_key_experiment_or_code_is_made_anew(monkeypatch):
    calls = []
    made_once("cracks", {"seed": 1}, maker(calls))
    made_once("cracks", {"seed": 2}, maker(calls))
    made_once("others", {"seed": 1}, maker(calls))
    monkeypatch.setattr(shared, "code_hash", lambda: "another")
    made_once("cracks", {"seed": 1}, maker(calls))
    assert len(calls) == 4


def test_facts_alone_need_no_weights():
    made = made_once("cracks", {"what": "rate"}, lambda: Made({}, {"rate": 0.5}))
    assert made == made_once("cracks", {"what": "rate"}, None) == Made({}, {"rate": 0.5})


def test_those_who_come_together_make_it_once():
    calls, barrier = [], Barrier(4)

    def ask(_):
        barrier.wait()
        return made_once("cracks", {"seed": 9}, maker(calls)).facts["rate"]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [0.125] * 4
    assert len(calls) == 1


@pytest.mark.parametrize("kept", [0, 100, 0.5, "flipped"])
def test_what_is_damaged_is_reported_and_made_anew(kept):
    facts = made_once("cracks", {"seed": 1}, maker([])).facts
    (path,) = (build_dir() / "cracks" / "shared").glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # in the weights: the header cannot tell
    path.unlink()  # tensors that were read from it are views of the file
    path.write_bytes(content if kept == "flipped" else content[: int(kept if kept > 1 else kept * len(content))])
    calls = []
    with pytest.warns(UserWarning, match=r"damaged.*; it is made anew"):
        again = made_once("cracks", {"seed": 1}, maker(calls))
    assert calls == [1.0] and again.facts == facts and torch.equal(again.states["w"], torch.ones(2, 3))
    assert made_once("cracks", {"seed": 1}, None).facts == facts


def test_a_failure_leaves_nothing_behind():
    def fail():
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        made_once("cracks", {"seed": 1}, fail)
    assert not list((build_dir() / "cracks" / "shared").glob("*.safetensors"))
    assert made_once("cracks", {"seed": 1}, maker([])).facts["rate"] == 0.125


def test_micrographs_count_by_their_pixels_names_and_groups():
    blank, marked = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)
    marked[3, 5] = 1
    one, two = Record("a", blank, blank, "s", None), Record("b", blank, blank, "s", None)
    changes = ({"image": marked}, {"mask": marked}, {"group": "t"}, {"name": "c"})
    several = [[one, two], [two, one], [one], *([one, two._replace(**change)] for change in changes)]
    assert len({records_digest(records) for records in several}) == len(several)
    assert records_digest([one, two]) == records_digest((one._replace(image=blank.copy()), two))
