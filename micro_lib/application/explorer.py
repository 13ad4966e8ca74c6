"""Sliders over a scenario that redraw a micrograph at once, for notebooks."""

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

import cv2
import ipywidgets as widgets
import numpy as np
import pandas as pd

from micro_lib.application.plots import overlay
from micro_lib.core.labels import GRAIN_BOUNDARY, ClassMap
from micro_lib.synthesis import grains
from micro_lib.synthesis.scenario import Micrograph, Space

JPEG_QUALITY = 85
STEPS = 100  # of a slider


class Explorer(widgets.HBox):
    """Sliders on the left, micrograph and mask on the right; a slider that moves redraws both.

    Ranges are the 5 and 95 % quantiles of the space, whole numbers go in ones, choices are lists. Everything else keeps
    the value it has in the first row of the space, so that a slider shows what its parameter does and nothing more.

    Parameters
    ----------
    space : Space
        Of grains, or of what `render` takes; where it has a ``height_px``, that and ``width_px`` become `size_px`.
    parameters : sequence of str, optional
        What to make sliders for, in this order; none makes one for each that varies.
    size_px : int
        Edge of the micrograph.
    seed : int
        Of the first row.
    render : callable
        From a row to a `Micrograph`.
    class_map : ClassMap
        Of its mask.
    objects : str
        What its labels count.

    Attributes
    ----------
    row : dict
        The row that is shown.
    controls : dict of str to ipywidgets.Widget
        Slider or list of each parameter, and the micrograph's number, ``seed``.
    redraw_ms : float
        How long the last picture took, from the row to the two encoded images.

    Raises
    ------
    ValueError
        If a parameter is unknown, or cannot vary.
    """

    def __init__(
        self,
        space: Space,
        parameters: Sequence[str] | None = None,
        *,
        size_px: int = 256,
        seed: int = 1,
        render: Callable[[Mapping], Micrograph] = grains.render,
        class_map: ClassMap = GRAIN_BOUNDARY,
        objects: str = "grains",
    ):
        self.render, self.class_map, self.objects = render, class_map, objects
        self.row = space.sample(1, seed).to_dict("records")[0]
        if "height_px" in self.row:  # a crack's tile has its texture's size; its width_px is that of the crack
            self.row |= {"height_px": size_px, "width_px": size_px}
        self.controls = {**_controls(space, parameters, self.row), "seed": _seed_control(self.row["seed"])}
        self.pictures = [widgets.Image(format="jpeg", width=2 * size_px * 0.75) for _ in range(2)]
        self.note = widgets.Label()
        self.redraw_ms = float("nan")
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self._move(name, change["new"]), "value")
        self._redraw()
        sliders = widgets.VBox(list(self.controls.values()), layout={"max_height": "430px", "min_width": "420px"})
        super().__init__([sliders, widgets.VBox([widgets.HBox(self.pictures), self.note])])

    def _move(self, name: str, value) -> None:
        self.row[name] = value
        self._redraw()

    def _redraw(self) -> None:
        started = perf_counter()
        made = self.render(self.row)
        level = made.image if made.image.dtype == np.uint8 else (made.image >> 8).astype(np.uint8)
        colours = (overlay(level, made.mask, self.class_map)[..., ::-1] * 255).astype(np.uint8)  # OpenCV has BGR
        for picture, pixels in zip(self.pictures, (level, colours), strict=True):
            picture.value = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        self.redraw_ms = 1000 * (perf_counter() - started)
        share = f"{(made.mask == 1).mean():.0%} of the mask is {self.class_map.classes[1]}"
        self.note.value = f"{made.labels.max()} {self.objects} in view, {share}"


def _controls(space: Space, parameters: Sequence[str] | None, row: Mapping) -> dict[str, widgets.Widget]:
    table = space.sample(4096, 0, "sobol")
    if parameters is None:
        parameters = [name for name in space if table[name].nunique() > 1]
    if unknown := [name for name in parameters if name not in space]:
        raise ValueError(f"no parameters {unknown}; there are {', '.join(space)}")
    if fixed := [name for name in parameters if table[name].nunique() < 2]:
        raise ValueError(f"{fixed} never vary in this space; give them a distribution with Space.replace")
    return {name: _control(table[name], row[name], space[name].unit, space[name].doc) for name in parameters}


def _control(values: pd.Series, value, unit: str, doc: str) -> widgets.Widget:
    text = f"{values.name} [{unit}]" if unit not in ("", "1") else values.name
    look = {"description": text, "tooltip": doc, "style": {"description_width": "170px"}, "layout": {"width": "410px"}}
    if not pd.api.types.is_numeric_dtype(values) or values.dtype == bool:
        return widgets.Dropdown(options=list(dict.fromkeys(values)), value=value, **look)
    if pd.api.types.is_integer_dtype(values):
        low, high = int(values.min()), int(values.max())
        return widgets.IntSlider(value, low, high, continuous_update=True, **look)
    low, high = values.quantile([0.05, 0.95])
    # The row's own value may lie in the tails.
    low, high = min(low, value), max(high, value)
    step = (high - low) / STEPS
    return widgets.FloatSlider(value, min=low, max=high, step=step, readout_format=".3g", **look)


def _seed_control(seed: int) -> widgets.Widget:
    look = {"description": "seed", "tooltip": "another number, another micrograph", "layout": {"width": "410px"}}
    return widgets.BoundedIntText(seed, min=0, max=2**53 - 1, style={"description_width": "170px"}, **look)
