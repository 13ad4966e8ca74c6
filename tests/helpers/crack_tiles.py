"""Small crack tiles of made-up specimens: a dark wavy line on grey noise, or none."""

import numpy as np

from micro_lib.data.packs import Pack
from micro_lib.data.records import Record
from micro_lib.training.cracks import FOLDS

REAL_SPECIMENS = tuple(name for fold in FOLDS for name in fold)


def tiles(specimens=REAL_SPECIMENS, per_class=2, px=128, seed=0):
    """Return `per_class` tiles of either class a specimen, sorted by name; oxide fractions differ from tile to tile."""
    rng = np.random.default_rng(seed)
    made = []
    for specimen in specimens:
        for i in range(2 * per_class):
            image = rng.normal(130, 10, (px, px))
            mask = np.zeros((px, px), np.uint8)
            if i % 2:
                x = px // 2 + np.round(px / 8 * np.sin(np.arange(px) / 9)).astype(int)
                for shift in (-1, 0, 1):
                    mask[np.arange(px), x + shift] = 1
                image[mask == 1] -= 70
            word = "crack" if i % 2 else "nocrack"
            oxide = {"oxide_fraction": round(0.7 + 0.02 * (i // 2) + 0.01 * (i % 2), 3)}
            name = f"{word}_{specimen}_{i:03d}"
            made.append(Record(name, image.clip(0, 255).astype(np.uint8), mask, specimen, None, oxide))
    return tuple(sorted(made, key=lambda record: record.name))


def pack_of(records):
    """Return records as the pack of crack tiles, a stand-in."""
    return Pack("ebc_crack_tiles", tuple(records), "made up for tests", True, None)
