"""Generated stand-ins for the packs: invented micrographs with the classes, specimens and domains of the real ones.

They exist to run every step without real data, not to be like it; no score on them says anything about a material.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np

from micro_lib.core.seeds import stream, stream_seed
from micro_lib.data.records import Record
from micro_lib.synthesis import cracks, grains, precipitates, presets
from micro_lib.synthesis.crack_drawing import add_cracks
from micro_lib.synthesis.distributions import Constant
from micro_lib.synthesis.fields import smooth_field
from micro_lib.synthesis.precipitates import draw_disc, scatter_discs
from micro_lib.synthesis.tessellation import tessellate

_N_MICROGRAPHS = 6  # of a generated split: enough to run every step, quick to render
_N_CRACK_SPECIMENS = 8  # as many as the real pack has


def grain_boundaries(name: str, preset: str, split: str) -> list[Record]:
    """Return grain micrographs of a preset of `synthesis.presets`, each a group of its own.

    Parameters
    ----------
    name : str
        Name of the pack they stand in for; with the split it decides what is drawn.
    preset : str
        One of `synthesis.presets.PRESETS`.
    split : str
        Name of the split, which the records' names tell.
    """
    table = presets.preset(preset).sample(_N_MICROGRAPHS, stream_seed(0, "stand-in", name, split))
    records = []
    for i, row in enumerate(table.to_dict("records")):
        made, label = grains.render(row), f"generated_{split}_{i:03d}"
        records.append(Record(label, made.image, made.mask, label, made.pixel_size_um))
    return records


def crack_tiles() -> list[Record]:
    """Return tiles of generated specimens, which differ in grey, noise and pores, half of them with a crack."""
    records = []
    for specimen in range(_N_CRACK_SPECIMENS):
        rng, group = stream(0, "stand-in", "crack specimen", specimen), f"generated#{specimen + 1}"
        textures = _textures(2 * _N_MICROGRAPHS, rng)
        space = cracks.scenario(cracks.invented(), len(textures), "covering").replace(layer_deg=Constant(0.0))
        table = space.sample(len(textures), int(rng.integers(2**53)))
        table["crack"], table["texture"] = np.arange(len(table)) < _N_MICROGRAPHS, np.arange(len(table))
        for i, row in enumerate(table.to_dict("records")):
            made, name = cracks.render(row, textures), f"{'crack' if row['crack'] else 'nocrack'}_{group}_{i:03d}"
            # The layer ends at a border across the tile; what lies beyond counts as no oxide.
            oxide = (1 + row["layer_at"]) / 2 if row["layer_contrast"] else 1.0
            records.append(Record(name, made.image, made.mask, group, None, {"oxide_fraction": oxide}))
    return sorted(records, key=lambda record: record.name)


def _textures(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return (n, 128, 128) uint8 of one grey with clouds and noise, alike as the tiles of one specimen."""
    grey, clouds, noise = rng.uniform(70, 160), rng.uniform(2, 8), rng.uniform(2, 6)
    fields = [clouds * smooth_field((128, 128), 24, rng) + noise * smooth_field((128, 128), 1.5, rng) for _ in range(n)]
    return np.clip(grey + np.stack(fields), 0, 255).astype(np.uint8)


def superalloy() -> list[Record]:
    """Return micrographs (256, 256) of four spots in two views, and one of another alloy."""
    groups = [(f"spot{i}", {"0d": 2, "180d": 1}) for i in range(1, 5)]
    records = []
    for group, views in groups:
        for view, n in views.items():
            space = precipitates.scenario().replace(view=Constant(view))
            # The same seed for both views: they differ in brightness, not in what the spot is like.
            spot = space.sample(1, stream_seed(0, "stand-in", "superalloy", group) >> 10)
            near = space.neighbours(spot.iloc[0].to_dict(), 0.1, n, stream_seed(0, "stand-in", group, view) >> 10)
            for i, row in enumerate(near.to_dict("records")):
                made = precipitates.render(row)
                name = f"generated_{group}_{view}_{i}"
                records.append(Record(name, made.image, made.mask, f"generated {group}", None, domain=f"view_{view}"))
    finer = precipitates.scenario().replace(cell_px=Constant(35.0), channel_px=Constant(5.0), tertiary_px=Constant(4.0))
    (row,) = finer.sample(1, stream_seed(0, "stand-in", "other alloy") >> 10).to_dict("records")
    made, name = precipitates.render(row), "generated_other_alloy"
    return [Record(name, made.image, made.mask, name, None, domain=name), *records]


def carbides() -> list[Record]:
    """Return micrographs (256, 320) of steel specimens with some or all kinds of carbides."""
    return _specimens("carbides", ["sample1", "sample2", "sample3", "sample4", "sample5"], _carbides)


def _carbides(specimen: int, rng: np.random.Generator, of: np.random.Generator) -> tuple:
    shape, pixel_size_um = (256, 320), 0.2
    p = {"grain_diameter_px": of.uniform(90, 140), "lloyd_steps": 1, "size_spread": 0.1, "fine_fraction": 0.0}
    p |= {"fine_ratio": 1.0, "elongation": 1.0, "elongation_deg": 0.0, "bend": 0.06}
    has_network, has_needles = specimen != 1, specimen in (2, 4)
    cells = tessellate(p, shape, rng)
    mask = np.zeros(shape, np.uint8)
    width = of.uniform(5, 9) * np.exp(0.3 * smooth_field(shape, 30, rng))
    needles = np.isin(cells.labels, rng.permutation(cells.labels.max())[::2] + 1) & has_needles
    room = np.where(needles, -1, cells.edge_px - 12)
    for disc in scatter_discs(room, np.ones(shape), of.uniform(0.08, 0.14), of.uniform(5, 7), 0.3, rng):
        draw_disc(mask, disc, 2)
    mask[needles & _needles(shape, rng)] = 3
    if has_network:
        mask[cells.edge_px < width / 2] = 1
    levels = np.array([of.uniform(60, 90), *of.uniform(150, 200, 2), 140.0])
    return levels[mask], mask, pixel_size_um, ""


def _needles(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Where (H, W) thin parallel plates lie, cut."""
    drawn, angle = np.zeros(shape, np.uint8), rng.uniform(0, np.pi)
    half = 20 * np.array([math.cos(angle), math.sin(angle)])
    for middle in rng.uniform(0, shape[::-1], (150, 2)):
        ends = np.round(np.stack([middle - half, middle + half])).astype(int)
        cv2.line(drawn, ends[0].tolist(), ends[1].tolist(), 1, 3)
    return drawn > 0


def coating() -> list[Record]:
    """Return micrographs (256, 256) of coated specimens, an oxide with cracks between two layers; the last is apart."""
    return _specimens("coating", ["1", "2", "3", "4", "5", "6"], _coating)


def _coating(specimen: int, rng: np.random.Generator, of: np.random.Generator) -> tuple:
    shape, is_target = (256, 256), specimen == 5
    top, bottom = of.uniform(50, 80), of.uniform(160, 190)
    waves = 6 * smooth_field((2, shape[1]), 40, rng)
    y = np.arange(shape[0])[:, None]
    oxide = (y > top + waves[0]) & (y < bottom + waves[1])
    levels = np.array([0.62, 0.68, 0.71] if is_target else [of.uniform(0.3, 0.4), of.uniform(0.45, 0.5), 0.6])
    surface = np.select([oxide, y <= top + waves[0]], levels[:2], levels[2]).astype(np.float32)
    crack = np.zeros(shape, bool)
    for row in cracks.scenario(cracks.invented(), 1).sample(4, int(rng.integers(2**53))).to_dict("records"):
        labels = np.zeros(shape, np.int32)
        streams = {part: stream(row["seed"], part) for part in ("crack", "others")}
        row |= {"n_cracks": 1, "middle_x": rng.uniform(0.1, 0.9), "cut_start": 0, "cut_end": 0}
        surface = add_cracks(surface, labels, row, streams)
        crack |= labels > 0
    mask = oxide.astype(np.uint8)
    mask[crack & oxide] = 2  # as in the real pack, cracks beyond the oxide are not annotated
    return 255 * surface, mask, None, "target_050317" if is_target else "source"


def _specimens(name: str, groups: list[str], draw: Callable) -> list[Record]:
    """Return two micrographs of each group, by a function of specimen, the image's stream and the specimen's."""
    records = []
    for specimen, group in enumerate(groups):
        for i in range(2):
            rng, of = stream(0, "stand-in", name, specimen, i), stream(0, "stand-in", name, specimen)
            surface, mask, pixel_size_um, domain = draw(specimen, rng, of)
            surface = cv2.GaussianBlur(surface.astype(np.float32), (0, 0), 0.8)
            surface += 3 * smooth_field(mask.shape, 40, rng) + 4 * rng.standard_normal(mask.shape, np.float32)
            image = np.clip(surface + 0.5, 0, 255).astype(np.uint8)
            label = f"generated_{group}_{i}"
            records.append(Record(label, image, mask, f"generated {group}", pixel_size_um, domain=domain))
    return records
