"""Figures of what each parameter of the grain generator does: strips of one micrograph with one parameter changed."""

import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from micro_lib.application.plots import overlay
from micro_lib.synthesis.grains import render
from micro_lib.synthesis.presets import PARAMETERS, PRESETS, preset

# Not shown: what names a mixture, the frame, and what is not seen at all.
SKIPPED = ("look", "height_px", "width_px", "pixel_size_um", "bit_depth")
# Where the quantiles over the presets say little, because few presets use a parameter or all use one value.
BY_HAND = {
    "gamma": (0.6, 1.0, 1.7),
    "inverted": (False, True),
    "mask_width_px": (2.0, 5.0, 10.0),
    "lloyd_steps": (0, 1, 4),
    "elongation": (1.0, 1.5, 2.0),
    "grain_diameter_px": (20.0, 32.0, 50.0),
    "scan_lines": (0.0, 0.02, 0.05),
    "charging": (0.0, 0.1, 0.3),
}
# The micrograph that is changed; all that is not named is switched off.
BASE = {name: parameter[1] for name, parameter in PARAMETERS.items()} | {
    "height_px": 128,
    "width_px": 128,
    "grain_diameter_px": 32.0,
    "boundary_width_px": 3.0,
    "boundary_grey": 0.15,
    "lloyd_steps": 2,
    "bend": 0.05,
    "grey_spread": 0.05,
    "blur_sigma_px": 0.5,
    "seed": 5,
}
# A stripe's direction needs stripes: what is on beside a parameter.
PARTNERS = {
    "fine_ratio": {"fine_fraction": 0.35},
    "fine_fraction": {"fine_ratio": 2.2},
    "elongation_deg": {"elongation": 2.0},
    "texture_wavelength": {"texture_amplitude": 0.3},
    "stripe_deg": {"stripe_depth": 0.6},
    "stripe_scatter": {"stripe_depth": 0.6},
    "stripe_spacing_px": {"stripe_depth": 0.6},
    "twin_contrast": {"twin_fraction": 0.8},
    "twin_line": {"twin_fraction": 0.8},
    "twin_fraction": {"twin_contrast": 0.15, "twin_line": 0.4},
    "rim_px": {"rim_depth": 0.3},
    "fragments": {"boundary_width_px": 8.0},
    "pore_fraction": {"size_spread": 0.5},
    "pit_radius_px": {"pits_per_1e4px": 4.0},
}
GAP_PX = 3  # between the pictures of a strip
# First parameter of each group, in the order of `PARAMETERS`.
STARTS = {
    "geometry": "grain_diameter_px",
    "inside": "grey_mean",
    "boundaries": "boundary_width_px",
    "artefacts": "pits_per_1e4px",
    "imaging": "gradient",
}


def parameter_values() -> dict[str, tuple]:
    """Return low (5 %), middle and high (95 %) value of every parameter over the presets that use it.

    Returns
    -------
    dict of str to tuple
        In the order of `PARAMETERS`; two values of a switch; without `SKIPPED` and parameters that no preset varies.
    """
    drawn = pd.concat([preset(name).sample(256, 0, "sobol") for name in PRESETS])
    shown = [name for name in PARAMETERS if name not in SKIPPED]
    values = {name: BY_HAND.get(name) or _quantiles(drawn[name], PARAMETERS[name][1]) for name in shown}
    return {name: found for name, found in values.items() if found}


def _quantiles(drawn: pd.Series, off) -> tuple:
    used = drawn[drawn != off]
    return tuple(used.quantile([0.05, 0.5, 0.95])) if used.nunique() > 1 else ()


def groups(values: dict[str, tuple]) -> dict[str, dict[str, tuple]]:
    """Return the values parted into geometry, inside (of grains), boundaries, artefacts and imaging."""
    names = list(PARAMETERS)
    places = [*(names.index(first) for first in STARTS.values()), len(names)]
    parts = (set(names[low:high]) for low, high in itertools.pairwise(places))
    return {group: {n: v for n, v in values.items() if n in part} for group, part in zip(STARTS, parts, strict=True)}


def strips(values: dict[str, tuple]) -> Figure:
    """Draw the micrograph for each value of each parameter, a strip a parameter; a width of the mask with the mask.

    Parameters
    ----------
    values : dict of str to tuple
        From `groups`.
    """
    size = (8, 0.78 * len(values))
    fig, axes = plt.subplots(math.ceil(len(values) / 2), 2, figsize=size, dpi=80, layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (name, chosen) in zip(axes.flat, values.items(), strict=False):
        made = [render(_changed(name, value)) for value in chosen]
        shown = [overlay(m.image, m.mask) if name == "mask_width_px" else m.image for m in made]
        white = 255 if shown[0].dtype == np.uint8 else 1
        apart = [(0, 0), (0, GAP_PX), (0, 0)][: shown[0].ndim]
        strip = np.concatenate([np.pad(one, apart, constant_values=white) for one in shown], axis=1)
        ax.imshow(strip[:, :-GAP_PX], cmap="gray", vmin=0, vmax=255)
        unit = " [rad]" if PARAMETERS[name][0] == "rad" else ""  # others are in the name
        ax.set_title(f"{name}{unit}: {', '.join(f'{value:.3g}' for value in chosen)}")
    return fig


def moved(values: dict[str, tuple]) -> dict[str, list[str]]:
    """Tell what each parameter changes between its first and its last value.

    Returns
    -------
    dict of str to list of str
        Parameters that move grains (labels), that change the mask but no grain (mask), and the image alone (image);
        those that change nothing (nothing).
    """
    kinds: dict[str, list[str]] = {"labels": [], "mask": [], "image": [], "nothing": []}
    for name, chosen in values.items():
        first, last = (render(_changed(name, chosen[i])) for i in (0, -1))
        differs = {kind: not np.array_equal(*(getattr(m, kind) for m in (first, last))) for kind in list(kinds)[:3]}
        # Grains that move change mask and image too: the first kind counts.
        kinds[next((kind for kind, changed in differs.items() if changed), "nothing")].append(name)
    return kinds


def _changed(name: str, value) -> dict:
    return BASE | PARTNERS.get(name, {}) | {name: value}
