"""The README's lines that train on labels of one's own are run as they stand there, on fewer and smaller tiles."""

import re
import textwrap

import numpy as np
import pytest

from micro_lib.core.labels import ClassMap
from micro_lib.core.runs import repository_root
from micro_lib.core.seeds import stream
from micro_lib.data.files import read_mask, write_mask, write_micrograph

HEADING = "**Train on your own labels**"


def lines(folder, **shorter):
    """The README's code below the heading, with its folder, and shorter where that is asked for."""
    below = (repository_root() / "README.md").read_text("utf-8").split(HEADING)[1]
    block = re.search(r"\n\n((?:    .*\n|\n)+)", below)[1]
    for old, new in {"FOLDER": str(folder), "NEW.png": f"{folder}/images/m0.png", **shorter}.items():
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
    exec(lines(folder, **{"* 200": "* 48", "Stage(128, 9": "Stage(64, 4", "Stage(128, 1": "Stage(64, 1"}), {})
    assert "valid_miou" in capsys.readouterr().out
    assert (folder / "mine" / "model.safetensors").is_file()
    classes = ClassMap("ids", ("matrix", "particle"), {0: 0, 1: 1}, ("#56b4e9", "#d55e00"))
    found = read_mask(folder / "mine" / "new.png", classes)
    true = read_mask(folder / "masks" / "m0.png", ClassMap("mine", ("a", "b"), {0: 0, 255: 1}, ("#56b4e9", "#d55e00")))
    assert (found == true).mean() > 0.8
