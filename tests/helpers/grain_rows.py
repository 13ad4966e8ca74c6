"""Rows of the grain generator to test with: everything off, and everything on."""

from micro_lib.synthesis.presets import PARAMETERS

REQUIRED = {"grain_diameter_px": 24.0, "boundary_width_px": 3.0, "boundary_grey": 0.2}
OFF = {name: off for name, (_, off, _) in PARAMETERS.items()}

# A value of every feature that shows, and another one that shows differently.
ON = {
    "grain_diameter_px": (24.0, 31.0),
    "lloyd_steps": (2, 3),
    "size_spread": (0.3, 0.5),
    "fine_fraction": (0.3, 0.5),
    "fine_ratio": (1.6, 2.0),
    "elongation": (1.4, 1.8),
    "elongation_deg": (20.0, 70.0),
    "bend": (0.05, 0.1),
    "grey_mean": (0.55, 0.65),
    "grey_spread": (0.05, 0.08),
    "texture_amplitude": (0.08, 0.12),
    "texture_wavelength": (0.4, 0.6),
    "roughness": (0.05, 0.1),
    "stripe_depth": (0.3, 0.5),
    "stripe_deg": (30.0, 60.0),
    "stripe_scatter": (0.2, 0.4),
    "stripe_spacing_px": (6.0, 8.0),
    "twin_fraction": (0.6, 0.9),
    "twin_contrast": (0.1, 0.2),
    "twin_line": (0.2, 0.4),
    "relief": (0.15, 0.3),
    "boundary_width_px": (3.0, 4.0),
    "boundary_grey": (0.2, 0.3),
    "mask_width_px": (5.0, 7.0),
    "groove_softness_px": (0.6, 1.2),
    "groove_spread": (0.3, 0.5),
    "junction_widening": (0.5, 1.0),
    "groove_gap": (0.1, 0.2),
    "groove_ragged_px": (0.5, 1.0),
    "debris": (0.1, 0.2),
    "fragments": (0.1, 0.3),
    "pore_fraction": (0.3, 0.9),
    "rim_depth": (0.1, 0.2),
    "rim_px": (5.0, 8.0),
    "pits_per_1e4px": (4.0, 8.0),
    "pit_radius_px": (4.0, 7.0),
    "fine_pits_per_1e4px": (30.0, 60.0),
    "scratches_per_1e4px": (3.0, 6.0),
    "stain_depth": (0.1, 0.2),
    "gradient": (0.2, 0.3),
    "vignetting": (0.2, 0.3),
    "charging": (0.1, 0.2),
    "blur_sigma_px": (0.7, 1.0),
    "defocus": (0.5, 1.0),
    "shot_noise": (0.02, 0.04),
    "detector_noise": (0.02, 0.04),
    "scan_lines": (0.02, 0.04),
    "contrast": (0.9, 1.1),
    "brightness": (0.02, -0.02),
    "gamma": (1.2, 0.8),
    "inverted": (False, True),
    "bit_depth": (8, 16),
}


def plain(**changes) -> dict:
    """Return a row of 128 px x 128 px with every feature off except the changes."""
    return {**OFF, **REQUIRED, "height_px": 128, "width_px": 128, "seed": 7, **changes}


def dressed(**changes) -> dict:
    """Return a row of 128 px x 128 px with every feature on."""
    return plain(**{**{name: value for name, (value, _) in ON.items()}, **changes})
