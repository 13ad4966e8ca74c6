"""The simulated measurement: from surface brightness to the digital image a microscope would have given.

Works on any scenario, changes no mask. The order follows the light or the electrons: illumination, optics, detector,
digitisation. So what the detector adds is not blurred, and white noise stays white.

DEVIATION: Trampert et al. 2021, section 3.2.1, add white noise and "finally" convolve with a Gaussian, which leaves
about 1 / (2 sqrt(pi) sigma) of the noise's standard deviation. That order is kept for the look `NOISE_FIRST` alone.
"""

import math
from collections.abc import Mapping

import cv2
import numpy as np

from micro_lib.synthesis.fields import smooth_field

FULL_SCALE = {8: 255, 16: 65535}
NOISE_FIRST = "trampert"  # the look of the preset that keeps to the paper
# Parameters of `measure`.
MEASUREMENT = ("gradient", "vignetting", "charging", "blur_sigma_px", "defocus", "shot_noise", "detector_noise")
MEASUREMENT += ("scan_lines", "contrast", "brightness", "gamma", "inverted", "bit_depth")


def measure(surface: np.ndarray, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Image of a surface.

    Parameters
    ----------
    surface : (H, W) float32
        0 black to 1 white, may overshoot.
    p : mapping
        A row with the parameters of `MEASUREMENT`; its `look`, if any, decides whether noise comes before the blur.
    rng : numpy.random.Generator
        Of this row's imaging stream.

    Returns
    -------
    (H, W) uint8 (`bit_depth` 8) or uint16 (16)
    """
    light = illuminate(surface, p, rng)
    order = (detect, focus) if p.get("look") == NOISE_FIRST else (focus, detect)
    for step in order:
        light = step(light, p, rng)
    return digitise(light, p)


def illuminate(surface: np.ndarray, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Surface under uneven light: a linear gradient, vignetting (darker corners), charging (bright clouds).

    Parameters
    ----------
    surface : (H, W) float32
        0 black to 1 white, may overshoot; it stays as it is.
    p : mapping
        A row of which `gradient`, `vignetting` and `charging` are looked at.
    rng : numpy.random.Generator
        Draws the gradient's direction and the clouds.

    Returns
    -------
    (H, W) float32
        Light on the same scale.
    """
    h, w = surface.shape
    light, angle = surface, rng.uniform(0, 2 * np.pi)
    if p["gradient"] or p["vignetting"]:
        y, x = np.linspace(-1, 1, h, dtype=np.float32)[:, None], np.linspace(-1, 1, w, dtype=np.float32)[None]
        slope = math.cos(angle) * x + math.sin(angle) * y
        light = surface * (1 + p["gradient"] * 0.5 * slope - p["vignetting"] * 0.5 * (x**2 + y**2))
    if p["charging"]:
        light = light + p["charging"] * np.maximum(smooth_field((h, w), 0.35 * min(h, w), rng) - 0.5, 0)
    return light


def focus(light: np.ndarray, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Light blurred by a Gaussian of `blur_sigma_px`, up to 1 + `defocus` times wider where it is out of focus.

    Parameters
    ----------
    light : (H, W) float32
        As of `illuminate`; it stays as it is.
    p : mapping
        A row of which `blur_sigma_px` and `defocus` are looked at.
    rng : numpy.random.Generator
        Draws where it is out of focus.

    Returns
    -------
    (H, W) float32
        Light on the same scale.
    """
    if p["blur_sigma_px"] <= 0:
        return light
    sharp = cv2.GaussianBlur(light, (0, 0), p["blur_sigma_px"])
    if p["defocus"] <= 0:
        return sharp
    soft = cv2.GaussianBlur(light, (0, 0), p["blur_sigma_px"] * (1 + p["defocus"]))
    share = np.clip(0.5 + 0.6 * smooth_field(light.shape, 0.6 * min(light.shape), rng), 0, 1)
    return sharp + share * (soft - sharp)


def detect(light: np.ndarray, p: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Signal after shot noise (grows with the square root of the light), detector noise and scan-line offsets.

    Parameters
    ----------
    light : (H, W) float32
        0 dark to 1 full brightness, may overshoot; it stays as it is.
    p : mapping
        A row of which `shot_noise`, `detector_noise` and `scan_lines` are looked at.
    rng : numpy.random.Generator
        Draws the noise.

    Returns
    -------
    (H, W) float32
        Signal on the same scale.
    """
    signal = light
    if p["shot_noise"] or p["detector_noise"]:
        sigma = np.float32(p["detector_noise"])
        if p["shot_noise"]:
            sigma = np.sqrt(np.float32(p["shot_noise"] ** 2) * np.maximum(light, 0) + sigma**2)
        signal = signal + sigma * rng.standard_normal(light.shape, np.float32)
    if p["scan_lines"]:
        signal = signal + p["scan_lines"] * rng.standard_normal((light.shape[0], 1), np.float32)
    return signal


def digitise(signal: np.ndarray, p: Mapping) -> np.ndarray:
    """Grey levels after contrast, brightness, gamma and, for the light-optical look, inversion, in the bit depth.

    Parameters
    ----------
    signal : (H, W) float32
        0 black to 1 white; what lies outside after contrast and brightness is clipped.
    p : mapping
        A row of which `contrast`, `brightness`, `gamma`, `bit_depth` and `inverted` are looked at.

    Returns
    -------
    (H, W) uint8 (`bit_depth` 8) or uint16 (16)
    """
    level = signal * np.float32(p["contrast"]) + np.float32(0.5 - 0.5 * p["contrast"] + p["brightness"])
    np.clip(level, 0, 1, out=level)
    if p["gamma"] != 1:
        level = level ** p["gamma"]
    full = FULL_SCALE[int(p["bit_depth"])]
    levels = (level * full + 0.5).astype(np.uint8 if full == 255 else np.uint16)
    return full - levels if p["inverted"] else levels
