"""Grain scenarios: what each parameter of the generator means, and four ready-made spaces of them.

`trampert` has the steps of the paper's generator in their order, noise before blur, and nothing else; its ranges are
ours. The other three are measured in the order of a microscope (`imaging`) and switch on what real micrographs showed
to be missing: `steel_316l` after the development part of the 316L pack, `iron` after what a nital etch of a
single-phase metal generally looks like (no image of the iron pack was looked at), `broad` as a mixture of looks for
unknown material.
"""

from collections.abc import Mapping

from scipy.stats import loguniform

from micro_lib.core.checks import one_of
from micro_lib.synthesis.distributions import Choice, Conditional, Integers, between, drawn, naming
from micro_lib.synthesis.imaging import FULL_SCALE, NOISE_FIRST
from micro_lib.synthesis.limits import (
    AMOUNT,
    ANGLE_DEG,
    POSITIVE,
    SHARE,
    SIDE_PX,
    SIGNED,
    SWITCH,
    check_row,
    divided,
)
from micro_lib.synthesis.scenario import Space

# name: (unit, value that switches the feature off, limits, meaning)
_TABLE = {
    "look": ("", "", None, "which of several looks a mixture has; that of trampert is blurred after its noise"),
    "height_px": ("px", 512, SIDE_PX, "height of the image"),
    "width_px": ("px", 512, SIDE_PX, "width of the image"),
    "pixel_size_um": ("um", 1.0, POSITIVE, "edge of a pixel"),
    # geometry
    "grain_diameter_px": (
        "px",
        None,
        (4, 1e4),
        "diameter of the circle with the area of a mean grain, outside the finer areas",
    ),
    "lloyd_steps": ("1", 0, (0, 1000), "centroidal relaxations of the random seeds; more make grains more alike"),
    "size_spread": (
        "1",
        0.0,
        AMOUNT,
        "how unevenly seeds are scattered: spread of the log of the local grain diameter",
    ),
    "fine_fraction": ("1", 0.0, SHARE, "share of the area with finer grains (bimodal sizes)"),
    "fine_ratio": ("1", 1.0, (1, 20), "how many times finer the grains are there"),
    "elongation": ("1", 1.0, (1, 20), "length over width of a mean grain"),
    "elongation_deg": ("deg", 0.0, ANGLE_DEG, "direction of elongation from the x axis"),
    "bend": ("1", 0.0, SHARE, "displacement of a segment's control points over its length"),
    # inside the grains
    "grey_mean": ("1", 0.6, SHARE, "mean brightness of grains, 0 black to 1 white"),
    "grey_spread": ("1", 0.0, AMOUNT, "spread of brightness between grains (orientation contrast)"),
    "texture_amplitude": ("1", 0.0, AMOUNT, "amplitude of the Perlin texture"),
    "texture_wavelength": ("1", 0.5, POSITIVE, "wavelength of the Perlin texture over the grain diameter"),
    "roughness": ("1", 0.0, AMOUNT, "mean depth of fine etch roughness, different for each grain"),
    "stripe_depth": ("1", 0.0, AMOUNT, "depth of broken parallel lines inside grains (polishing relief, slip)"),
    "stripe_deg": ("deg", 0.0, ANGLE_DEG, "common direction of these lines"),
    "stripe_scatter": ("rad", 0.0, AMOUNT, "spread of the direction between grains"),
    "stripe_spacing_px": ("px", 6.0, POSITIVE, "distance of these lines"),
    "twin_fraction": ("1", 0.0, SHARE, "share of grains crossed by a twin; a twin is no boundary here"),
    "twin_contrast": ("1", 0.0, AMOUNT, "spread of the brightness step of twins"),
    "twin_line": ("1", 0.0, AMOUNT, "depth of the darkest lines along twins, above the 0.05 of the faintest"),
    "relief": ("1", 0.0, AMOUNT, "shading of grains that stand proud of their boundaries"),
    # boundaries
    "boundary_width_px": ("px", None, AMOUNT, "full width of a boundary (median, where it varies)"),
    "boundary_grey": ("1", None, SHARE, "brightness of a boundary"),
    "mask_width_px": ("px", 0.0, AMOUNT, "full width a boundary is drawn with in the mask; 0 is as wide as it is"),
    "groove_softness_px": ("px", 0.3, AMOUNT, "width of the transition from groove to grain"),
    "groove_spread": ("1", 0.0, AMOUNT, "spread of the log of the groove width along the boundaries"),
    "junction_widening": ("1", 0.0, AMOUNT, "how much wider grooves are at triple points"),
    "groove_gap": ("1", 0.0, SHARE, "share of the boundaries left unetched"),
    "groove_ragged_px": ("px", 0.0, AMOUNT, "raggedness of the groove's edges"),
    "debris": ("1", 0.0, AMOUNT, "brightness spread of granular debris in the grooves"),
    "fragments": ("1", 0.0, SHARE, "share of wide grooves filled with bright chips that annotators ignore"),
    "pore_fraction": ("1", 0.0, SHARE, "share of small grains that are pores"),
    "rim_depth": ("1", 0.0, AMOUNT, "darkening of the grain beside its groove"),
    "rim_px": ("px", 6.0, POSITIVE, "reach of that darkening"),
    # artefacts
    "pits_per_1e4px": ("1/1e4 px", 0.0, AMOUNT, "round pits and inclusions"),
    "pit_radius_px": ("px", 6.0, POSITIVE, "radius of the largest of them"),
    "fine_pits_per_1e4px": ("1/1e4 px", 0.0, AMOUNT, "etch pits of a pixel or two"),
    "scratches_per_1e4px": ("1/1e4 px", 0.0, AMOUNT, "straight scratches"),
    "stain_depth": ("1", 0.0, AMOUNT, "depth of cloudy stains"),
    # the simulated measurement
    "gradient": ("1", 0.0, AMOUNT, "relative change of illumination across the field"),
    "vignetting": ("1", 0.0, AMOUNT, "relative loss of light in the corners"),
    "charging": ("1", 0.0, AMOUNT, "brightness of charged clouds"),
    "blur_sigma_px": ("px", 0.0, AMOUNT, "width of the Gaussian blur"),
    "defocus": ("1", 0.0, AMOUNT, "how many times wider the blur gets, beyond 1, where the field is out of focus"),
    "shot_noise": ("1", 0.0, AMOUNT, "standard deviation of the noise of the light at full brightness"),
    "detector_noise": ("1", 0.0, AMOUNT, "standard deviation of the white noise of the detector"),
    "scan_lines": ("1", 0.0, AMOUNT, "standard deviation of line-to-line offsets"),
    "contrast": ("1", 1.0, POSITIVE, "gain of the digitiser"),
    "brightness": ("1", 0.0, SIGNED, "offset of the digitiser"),
    "gamma": ("1", 1.0, (0.05, 20), "exponent of the digitiser"),
    "inverted": ("", False, SWITCH, "grey levels inverted, as between bright-field and dark-field light"),
    "bit_depth": ("bit", 8, frozenset(FULL_SCALE), "8 or 16"),
}
PARAMETERS, LIMITS = divided(_TABLE)

PRESETS = ("trampert", "steel_316l", "iron", "broad")
_LOOKED_AT = 256  # rows of a preset of your own that are checked


def space_of(distributions: dict) -> Space:
    """Space over all parameters: those given, the others switched off.

    Parameters
    ----------
    distributions : dict
        Distribution, or a number, which is a constant, by name of the parameter.

    Raises
    ------
    ValueError
        For names that are no parameters and for parameters without an off value that are missing.
    """
    unknown = [name for name in distributions if name not in PARAMETERS]
    missing = [name for name, (_, off, _) in PARAMETERS.items() if off is None and name not in distributions]
    if unknown or missing:
        raise ValueError(f"not parameters of the grain generator: {unknown}; needed but missing: {missing}")
    return Space.of({name: (unit, distributions.get(name, off), doc) for name, (unit, off, doc) in PARAMETERS.items()})


def preset(name: str) -> Space:
    """The grain scenario called `name`: one of `PRESETS`, or of your own, a file ``.json`` written by `Space.save`.

    Raises
    ------
    ValueError
        Naming the presets there are, or the file and which of its parameters are missing, unknown or out of range.
    """
    if name.endswith(".json"):
        space = Space.load(name)
        if missing := [parameter for parameter in PARAMETERS if parameter not in space]:
            raise ValueError(f"{name} lacks {', '.join(missing)}; make it from a preset: preset('broad').replace(...)")
        if unknown := [parameter for parameter in space if parameter not in PARAMETERS]:
            raise ValueError(f"{name} holds {', '.join(unknown)}, which the grain generator does not know")
        with naming(name):
            for row in space.sample(_LOOKED_AT, 0, "sobol").to_dict("records"):
                check(row)
        return space
    one_of("preset", name, (*PRESETS, "files that end in .json"))
    return space_of({"trampert": TRAMPERT, "steel_316l": STEEL_316L, "iron": IRON, "broad": BROAD}[name])


def check(row: Mapping) -> None:
    """Raise ValueError, which names the parameter, unless a row keeps to `LIMITS` and its boundaries leave grains."""
    check_row(row, LIMITS)
    widest, diameter = max(row["boundary_width_px"], row["mask_width_px"]), row["grain_diameter_px"]
    if widest >= diameter:
        raise ValueError(
            f"boundary_width_px or mask_width_px is {widest:g}; less than grain_diameter_px, {diameter:g}, is expected"
        )


# Trampert et al. 2021, section 3.2.1, gives the steps and the texture's wavelengths; it gives no other range. These are
# ours, chosen so that synthetic images look like the paper's Figure 4 a.
TRAMPERT = {
    "look": NOISE_FIRST,
    "grain_diameter_px": between(30, 90),
    "lloyd_steps": Integers(1, 4),
    "bend": between(0.0, 0.12),
    "grey_mean": between(0.45, 0.75),
    "grey_spread": between(0.02, 0.12),
    "texture_amplitude": between(0.0, 0.1),
    "texture_wavelength": between(1 / 5, 2 / 3),  # of the grain diameter, section 3.2.1
    "boundary_width_px": between(2.0, 7.0),
    "boundary_grey": between(0.05, 0.35),
    "detector_noise": between(0.0, 0.08),
    "blur_sigma_px": between(0.4, 2.0),
}

# After the seven development groups of the 316L pack: bright powder grains in deeply etched, ragged, granular grooves
# that widen to dark pockets; pits, polishing stripes and scratches, twins; uneven focus and light. The annotators' line
# is 10 px wide.
STEEL_316L = {
    "height_px": 400,
    "width_px": 400,
    "pixel_size_um": 0.444,
    "grain_diameter_px": between(75, 120),
    "lloyd_steps": Integers(1, 3),
    "size_spread": between(0.1, 0.45),
    "fine_fraction": between(0.0, 0.15),
    "fine_ratio": between(1.5, 2.2),
    "elongation": between(1.0, 1.5),
    "elongation_deg": between(0, 180),
    "bend": between(0.01, 0.09),
    "grey_mean": between(0.66, 0.8),
    "grey_spread": between(0.01, 0.06),
    "texture_amplitude": between(0.0, 0.06),
    "texture_wavelength": between(1 / 5, 2 / 3),
    "roughness": between(0.0, 0.12),
    "stripe_depth": between(0.0, 0.6),
    "stripe_deg": between(0, 180),
    "stripe_scatter": between(0.05, 0.6),
    "stripe_spacing_px": between(4, 12),
    "twin_fraction": between(0.0, 0.5),
    "twin_contrast": between(0.02, 0.12),
    "twin_line": between(0.1, 0.7),
    "relief": between(0.0, 0.15),
    "boundary_width_px": between(4, 11),
    "boundary_grey": between(0.02, 0.14),
    "mask_width_px": 10.0,
    "groove_softness_px": between(0.5, 2.5),
    "groove_spread": between(0.3, 0.7),
    "junction_widening": between(0.2, 2.0),
    "groove_gap": between(0.0, 0.15),
    "groove_ragged_px": between(0.8, 3.0),
    "debris": between(0.06, 0.2),
    "fragments": between(0.0, 0.1),
    "pore_fraction": between(0.0, 0.3),
    "rim_depth": between(0.0, 0.35),
    "rim_px": between(4, 12),
    "pits_per_1e4px": between(0.5, 4),
    "pit_radius_px": between(4, 9),
    "fine_pits_per_1e4px": between(0, 90),
    "scratches_per_1e4px": between(0, 2),
    "stain_depth": between(0.0, 0.08),
    "gradient": between(0.0, 0.35),
    "vignetting": between(0.0, 0.2),
    "blur_sigma_px": between(0.35, 1.1),
    "defocus": between(0.0, 1.5),
    "shot_noise": between(0.0, 0.03),
    "detector_noise": between(0.0, 0.02),
    "contrast": between(1.0, 1.25),
    "brightness": between(-0.08, 0.05),
}

# A polished and nital-etched single-phase metal: thin dark lines, some faint or missing, between smooth grains that
# differ a little; inclusions, scratches, uneven light.
IRON = {
    "height_px": 400,
    "width_px": 400,
    "grain_diameter_px": loguniform(35, 110),
    "lloyd_steps": Integers(0, 3),
    "size_spread": between(0.0, 0.5),
    "elongation": between(1.0, 1.4),
    "elongation_deg": between(0, 180),
    "bend": between(0.0, 0.1),
    "grey_mean": between(0.5, 0.85),
    "grey_spread": between(0.0, 0.08),
    "texture_amplitude": between(0.0, 0.08),
    "texture_wavelength": between(1 / 5, 2 / 3),
    "roughness": between(0.0, 0.05),
    "twin_fraction": between(0.0, 0.05),
    "twin_contrast": between(0.02, 0.08),
    "relief": between(0.0, 0.1),
    "boundary_width_px": between(1.5, 5.0),
    "boundary_grey": between(0.1, 0.5),
    "mask_width_px": 4.0,
    "groove_softness_px": between(0.5, 1.5),
    "groove_spread": between(0.1, 0.5),
    "junction_widening": between(0.0, 0.6),
    "groove_gap": between(0.0, 0.25),
    "groove_ragged_px": between(0.0, 0.6),
    "rim_depth": between(0.0, 0.15),
    "rim_px": between(3, 8),
    "pits_per_1e4px": between(0.0, 3.0),
    "pit_radius_px": between(2, 6),
    "fine_pits_per_1e4px": between(0, 20),
    "scratches_per_1e4px": between(0, 1.5),
    "stain_depth": between(0.0, 0.15),
    "gradient": between(0.0, 0.4),
    "vignetting": between(0.0, 0.3),
    "blur_sigma_px": between(0.4, 1.5),
    "shot_noise": between(0.0, 0.05),
    "detector_noise": between(0.0, 0.05),
    "contrast": between(0.6, 1.2),
    "brightness": between(-0.15, 0.1),
}


def mixture(looks: dict[str, dict], weights: dict[str, float], **common) -> dict:
    """Distributions of a mixture of looks: every parameter conditional on `look`, except those in `common`.

    Parameters
    ----------
    looks : mapping of str to dict
        By name of the look, distributions or plain values of its parameters; those it does not name are switched off.
    weights : mapping of str to float
        How likely each look is, as for `Choice`.
    **common
        Distributions or plain values of parameters that do not depend on the look.

    Returns
    -------
    dict
        For `space_of`, `look` among its names.

    Raises
    ------
    ValueError
        If a look has a name of its own, which decides how it is measured, and is called otherwise here.
    """
    for name, look in looks.items():
        one_of("the name of a look", name, [look.get("look", name)])
    names = {name for look in looks.values() for name in look} - {*common, "look"}
    off = {name: value for name, (_, value, _) in PARAMETERS.items()}
    cases = {name: {look: values.get(name, off[name]) for look, values in looks.items()} for name in names}
    mixed = {
        name: Conditional("look", {look: drawn(value) for look, value in case.items()}) for name, case in cases.items()
    }
    return {"look": Choice(weights), **mixed, **common}


# Boundaries seen by the grey of the grains alone, or by the slope beside them, with hardly a line.
ORIENTATION_CONTRAST = IRON | {
    "grey_mean": between(0.4, 0.65),
    "grey_spread": between(0.08, 0.2),
    "twin_fraction": between(0.0, 0.3),
    "twin_contrast": between(0.05, 0.2),
    "twin_line": between(0.0, 0.2),
    "relief": between(0.0, 0.3),
    "boundary_width_px": between(0.0, 2.0),
    "boundary_grey": between(0.2, 0.6),
    "charging": between(0.0, 0.15),
    "scan_lines": between(0.0, 0.02),
}

BROAD = mixture(
    {"etched_grooves": STEEL_316L, "thin_lines": IRON, "orientation_contrast": ORIENTATION_CONTRAST},
    {"etched_grooves": 0.45, "thin_lines": 0.35, "orientation_contrast": 0.2},
    height_px=400,
    width_px=400,
    pixel_size_um=1.0,
    grain_diameter_px=loguniform(50, 130),
    mask_width_px=10.0,
    inverted=Choice({False: 0.85, True: 0.15}),
)
