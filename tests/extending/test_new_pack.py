"""How to add a data pack: one entry that says whose it is and what its masks mean, and a folder in $MICRO_DATA.

The pack is everything between the two lines; in a checkout the entry stands in `micro_lib.data.sources`.
"""

import numpy as np
import pandas as pd
import pytest

from micro_lib.core.labels import ClassMap
from micro_lib.core.runs import write_table
from micro_lib.core.seeds import stream
from micro_lib.data.files import write_mask, write_micrograph
from micro_lib.data.formats import MicrographError
from micro_lib.data.packs import available, pack
from micro_lib.data.sources import SOURCES, DataUnavailable, Source
from micro_lib.data.tiles import Labelled, Tiles

# ---- a pack: pores in a sintered ceramic, drawn by hand as 0 and 255 ----
PORES = Source(
    "Sintered zirconia: our laboratory, 2026, CC BY 4.0",
    {"masks": ClassMap("pores", ("ceramic", "pore"), {0: 0, 255: 1}, ("#56b4e9", "#d55e00"))},
    by_hand="Ask our laboratory for it.",
)


def lay_out(folder):
    """Write images/NAME.png, masks/NAME.png and manifest.csv; micrographs of one specimen are never split."""
    rng, rows = stream(1, "pores"), []
    for i in range(4):
        drawn = rng.random((96, 80)) < 0.2
        write_micrograph(folder / "images" / f"z{i}.png", (200 - 120 * drawn).astype(np.uint8))
        write_mask(folder / "masks" / f"z{i}.png", (255 * drawn).astype(np.uint8))
        rows.append({"name": f"z{i}", "specimen": f"billet {i // 2}", "domain": "as sintered", "um_per_px": 0.2})
    write_table(pd.DataFrame(rows), folder / "manifest.csv")


# ---- and what it gives without another line ----


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "zirconia", PORES)
    monkeypatch.setenv("MICRO_DATA", str(tmp_path))
    return tmp_path / "zirconia"


def test_it_is_read_with_its_specimens_and_trains(home):
    lay_out(home)
    zirconia = pack("zirconia", "real")
    assert [r.group for r in zirconia.records] == ["billet 0"] * 2 + ["billet 1"] * 2
    first = zirconia.records[0]
    assert first.pixel_size_um == 0.2 and first.domain == "as sintered" and not zirconia.is_generated
    assert first.image[first.mask == 1].max() < first.image[first.mask == 0].min()
    tiles = Tiles([Labelled(r.image, r.mask) for r in zirconia.records], 64, seed=1)
    assert tiles[0, 1][1].unique().tolist() == [0, 1]


def test_where_it_is_missing_or_wrong_there_are_words(home, tmp_path):
    assert available().set_index("pack").loc["zirconia", "otherwise"].startswith("get it by hand")
    with pytest.raises(DataUnavailable, match="Ask our laboratory"):
        pack("zirconia", "real")
    lay_out(home)
    write_mask(home / "masks" / "z2.png", np.full((96, 80), 7, np.uint8))
    with pytest.raises(MicrographError, match=r"z2\.png"):
        pack("zirconia", "real")
