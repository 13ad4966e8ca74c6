"""Checkpoints come back as they were, and damaged or foreign files are told apart."""

import json
import zipfile

import pytest
import torch

from micro_lib.training import checkpoints
from micro_lib.training.checkpoints import CheckpointMismatch

STATE = {"step": 3, "weights": {"a": torch.arange(4.0)}, "history": [{"loss": 0.5, "name": "x"}]}


def test_a_checkpoint_reads_back(tmp_path):
    path = tmp_path / "run.pt"
    assert checkpoints.read(path, "mine") is None
    checkpoints.write(path, STATE, "mine")
    found = checkpoints.read(path, "mine")
    assert torch.equal(found["weights"]["a"], STATE["weights"]["a"])
    assert (found["step"], found["history"]) == (3, STATE["history"])
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.98])
def test_a_truncated_checkpoint_counts_as_none_and_is_reported(tmp_path, kept):
    path = tmp_path / "run.pt"
    checkpoints.write(path, STATE, "mine")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.warns(UserWarning, match=r"run\.pt is damaged .* starts from the beginning"):
        assert checkpoints.read(path, "mine") is None


def test_what_other_code_began_counts_as_none_and_is_reported(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    checkpoints.write(path, STATE, "mine")
    monkeypatch.setattr(checkpoints, "code_hash", lambda: "changed")
    with pytest.warns(UserWarning, match=r"run\.pt was begun by other code; the training starts from the beginning"):
        assert checkpoints.read(path, "mine") is None
    with pytest.raises(CheckpointMismatch, match="belongs to another training"):
        checkpoints.read(path, "theirs")


def test_a_foreign_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    checkpoints.write(path, STATE, "theirs")
    with pytest.raises(CheckpointMismatch, match=r"run\.pt belongs to another training \(theirs, asked for is mine\)"):
        checkpoints.read(path, "mine")
    torch.save(torch.zeros(2), path)
    with pytest.raises(CheckpointMismatch, match=r"another training \(none"):
        checkpoints.read(path, "mine")
    path.write_text("my notes")
    with pytest.raises(CheckpointMismatch, match=r"no checkpoint of a training \(it begins b'my'\)"):
        checkpoints.read(path, "mine")
    assert path.read_text() == "my notes"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(CheckpointMismatch, match="no checkpoint of a training"):
        checkpoints.read(path, "mine")


def test_of_a_foreign_checkpoint_is_told_what_differs_and_nothing_else(tmp_path):
    theirs = {"learning_rate": 0.003, "data": "a" * 64, "seed": 1, "steps": 9}
    checkpoints.write(tmp_path / "run.pt", STATE, json.dumps(theirs))
    mine = json.dumps(theirs | {"learning_rate": 0.1, "data": "b" * 64} | {"loss": "dice"})
    with pytest.raises(CheckpointMismatch) as caught:
        checkpoints.read(tmp_path / "run.pt", mine)
    told = str(caught.value)
    assert "learning_rate: it has 0.003, asked for is 0.1" in told and "loss: it has None, asked for is 'dice'" in told
    assert "data: it has 'aaaa" in told and "a" * 40 not in told, "of long hashes the ends"
    assert "seed" not in told and "steps" not in told


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    path = tmp_path / "run.pt"
    torch.save({"fingerprint": "mine", "call": print}, path)
    with pytest.raises(CheckpointMismatch, match="no checkpoint of a training"):
        checkpoints.read(path, "mine")
