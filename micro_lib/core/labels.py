"""Class maps: which grey level or colour of a mask file means which class."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


class MaskError(ValueError):
    """A mask holds values that its class map does not know."""


@dataclass(frozen=True)
class ClassMap:
    """Names of the classes of a mask, how they are stored in files and how they are drawn.

    Parameters
    ----------
    name : str
        Name of the map, used in messages and model cards.
    classes : tuple of str
        Class names; the class id is the position, 0 to 254.
    values : mapping of int or (int, int, int) to int
        Grey level (0 to 65535) or RGB colour (0 to 255 each) in a mask file -> class id; one kind in one map.
    colours : tuple of str
        One ``#rrggbb`` a class to draw it with, distinguishable by colour-blind readers.

    Raises
    ------
    ValueError
        If the parts do not fit together; the message names the map and the fault.
    """

    name: str
    classes: tuple[str, ...]
    values: Mapping[int | tuple[int, int, int], int]
    colours: tuple[str, ...]

    def __post_init__(self):
        faults = []
        if not 1 <= len(self.classes) <= 255:
            faults.append(f"{len(self.classes)} classes; between 1 and 255 fit a uint8 mask")
        if len(self.colours) != len(self.classes):
            faults.append(f"{len(self.colours)} colours for {len(self.classes)} classes")
        if wrong := sorted({i for i in self.values.values() if not 0 <= i < len(self.classes)}):
            faults.append(f"values point at class ids {wrong}, the classes are 0 to {len(self.classes) - 1}")
        if len({isinstance(value, tuple) for value in self.values}) != 1:
            faults.append("values must be all grey levels or all RGB colours, at least one")
        if faults:
            raise ValueError(f"class map {self.name!r}: {'; '.join(faults)}")

    @property
    def is_rgb(self) -> bool:
        """True if mask files hold colours, False if grey levels."""
        return isinstance(next(iter(self.values)), tuple)

    def encode(self, raw: np.ndarray) -> np.ndarray:
        """Turn the pixels of a mask file into class ids.

        Parameters
        ----------
        raw : numpy.ndarray
            (H, W) bool or integer grey levels, or (H, W, 3) uint8 RGB, whichever the map is for.

        Returns
        -------
        numpy.ndarray
            (H, W) uint8 class ids.

        Raises
        ------
        MaskError
            If the shape does not fit the map or values are found that it does not know; names them and the fix.
        """
        raw = np.asarray(raw)
        expected = "(H, W, 3) RGB colours" if self.is_rgb else "(H, W) grey levels"
        if raw.ndim != 2 + self.is_rgb or (self.is_rgb and raw.shape[2] != 3) or raw.dtype.kind not in "bui":
            raise MaskError(f"class map {self.name!r} reads {expected}; found shape {raw.shape}, {raw.dtype}")
        levels = _packed(raw) if self.is_rgb else raw.astype(np.int64)
        known = {_pack(value) if self.is_rgb else int(value): i for value, i in self.values.items()}
        known_levels = np.array(sorted(known))
        place = np.searchsorted(known_levels, levels).clip(max=len(known) - 1)
        if (known_levels[place] != levels).any():
            raise MaskError(self._complaint(sorted(set(np.unique(levels).tolist()) - set(known)), levels))
        return np.array([known[level] for level in known_levels.tolist()], np.uint8)[place]

    def _complaint(self, unknown: list[int], levels: np.ndarray) -> str:
        shown = [_unpack(value) if self.is_rgb else value for value in unknown[:8]]
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        pixels = int(np.isin(levels, unknown).sum())
        return (
            f"mask values {shown}{more} ({pixels} of {levels.size} pixels) are not in class map {self.name!r}, "
            f"which knows {dict(self.values)}; redraw these pixels, or give a class map whose `values` name them"
        )

    def to_json(self) -> str:
        """Return the map as JSON text, see `from_json`."""
        values = [[list(value) if isinstance(value, tuple) else value, i] for value, i in self.values.items()]
        return json.dumps({"name": self.name, "classes": self.classes, "values": values, "colours": self.colours})

    @classmethod
    def from_json(cls, text: str) -> "ClassMap":
        """Return the map that `to_json` wrote.

        Parameters
        ----------
        text : str
            JSON, as `to_json` returns it.

        Raises
        ------
        ValueError
            If the text is no JSON, or its parts do not fit together.
        KeyError
            If a part is missing.
        """
        parts = json.loads(text)
        values = {tuple(value) if isinstance(value, list) else value: i for value, i in parts["values"]}
        return cls(parts["name"], tuple(parts["classes"]), values, tuple(parts["colours"]))


def _pack(colour: tuple[int, int, int]) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _unpack(value: int) -> tuple[int, int, int]:
    return value >> 16, value >> 8 & 255, value & 255


def _packed(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])  # (H, W, 3) -> (H, W)


# Colours: Okabe and Ito's palette, made for colour-blind readers.
GRAIN_BOUNDARY = ClassMap("grain_boundary", ("grain", "boundary"), {0: 0, 255: 1}, ("#56b4e9", "#d55e00"))
