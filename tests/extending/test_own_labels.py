"""The README's lines that train on one's own labels or grains are run as they stand there, but shorter."""

import re
import textwrap

import numpy as np
import pytest
import torch

from micro_lib.core.labels import ClassMap
from micro_lib.core.runs import repository_root
from micro_lib.core.seeds import stream
from micro_lib.data.files import read_mask, write_mask, write_micrograph
from micro_lib.models.segmenter import Segmenter


def lines(heading, changes):
    """The README's code from a heading to the next, with its folder, and shorter where that is asked for."""
    below = (repository_root() / "README.md").read_text("utf-8").split(heading)[1].split("\n**")[0]
    block = "".join(re.findall(r"\n\n((?:    .*\n|\n)+)", below))
    for old, new in changes.items():
        assert old in block, f"the README no longer says {old}"
        block = block.replace(old, new)
    return textwrap.dedent(block)


@pytest.fixture
def folder(tmp_path):
    """Five micrographs with dark squares, and their masks as 0 and 255."""
    for i in range(5):
        rng = stream(i, "own labels")
        drawn = np.kron(rng.random((4, 5)) < 0.4, np.ones((32, 32))) > 0
        image = (180 - 110 * drawn + rng.normal(0, 8, drawn.shape)).clip(0, 255).astype(np.uint8)
        write_micrograph(tmp_path / "images" / f"m{i}.png", image)
        write_mask(tmp_path / "masks" / f"m{i}.png", (255 * drawn).astype(np.uint8))
    return tmp_path


def test_the_lines_of_the_readme_train_and_segment(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    here = {"FOLDER": str(folder), "FURTHER": str(folder), "NEW.png": f"{folder}/images/m0.png"}
    shorter = {"* 200": "* 48", "Stage(128, 9": "Stage(64, 4", "Stage(128, 1": "Stage(64, 1"}
    code = lines("**Train on your own labels**", here | shorter)
    exec(code, {})
    told = capsys.readouterr().out
    assert "valid_miou" in told and 0.6 < float(told.split("mean IoU")[1]) < 1
    assert (folder / "own" / "model.safetensors").is_file()
    torch.rand(3)  # whatever else the session has drawn
    before = (folder / "own" / "new.png").read_bytes()
    exec(code, {})
    assert (folder / "own" / "new.png").read_bytes() == before, "the same lines again give the same, at once"
    classes = ClassMap("ids", ("matrix", "particle"), {0: 0, 1: 1}, ("#56b4e9", "#d55e00"))
    found = read_mask(folder / "own" / "new.png", classes)
    true = read_mask(folder / "masks" / "m0.png", ClassMap("mine", ("a", "b"), {0: 0, 255: 1}, ("#56b4e9", "#d55e00")))
    assert (found == true).mean() > 0.8


def test_the_lines_of_the_readme_train_on_grains_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(lines("**Train on grains that look like yours**", {'"quick"': '"smoke"'}), {})
    card = Segmenter.load("mine/model.safetensors").card
    assert 20 <= card.grain_px[0] < card.grain_px[1] <= 90 and card.line_px == 4, "what it was trained on"
