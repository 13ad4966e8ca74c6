"""Random fields on a pixel grid: Perlin noise, an octave of it as a product of two banded factors; smooth fields."""

import cv2
import numpy as np
from numba import njit

# Table of 256 hashes and 16 gradients of K. Perlin, "Improving Noise", SIGGRAPH 2002, the gradients seen from above.
# fmt: off
_PERMUTATION = np.array([
    151, 160, 137, 91, 90, 15, 131, 13, 201, 95, 96, 53, 194, 233, 7, 225, 140, 36, 103, 30, 69, 142, 8, 99, 37, 240,
    21, 10, 23, 190, 6, 148, 247, 120, 234, 75, 0, 26, 197, 62, 94, 252, 219, 203, 117, 35, 11, 32, 57, 177, 33, 88,
    237, 149, 56, 87, 174, 20, 125, 136, 171, 168, 68, 175, 74, 165, 71, 134, 139, 48, 27, 166, 77, 146, 158, 231, 83,
    111, 229, 122, 60, 211, 133, 230, 220, 105, 92, 41, 55, 46, 245, 40, 244, 102, 143, 54, 65, 25, 63, 161, 1, 216,
    80, 73, 209, 76, 132, 187, 208, 89, 18, 169, 200, 196, 135, 130, 116, 188, 159, 86, 164, 100, 109, 198, 173, 186,
    3, 64, 52, 217, 226, 250, 124, 123, 5, 202, 38, 147, 118, 126, 255, 82, 85, 212, 207, 206, 59, 227, 47, 16, 58, 17,
    182, 189, 28, 42, 223, 183, 170, 213, 119, 248, 152, 2, 44, 154, 163, 70, 221, 153, 101, 155, 167, 43, 172, 9, 129,
    22, 39, 253, 19, 98, 108, 110, 79, 113, 224, 232, 178, 185, 112, 104, 218, 246, 97, 228, 251, 34, 242, 193, 238,
    210, 144, 12, 191, 179, 162, 241, 81, 51, 145, 235, 249, 14, 239, 107, 49, 192, 214, 31, 181, 199, 106, 157, 184,
    84, 204, 176, 115, 121, 50, 45, 127, 4, 150, 254, 138, 236, 205, 93, 222, 114, 67, 29, 24, 72, 243, 141, 128, 195,
    78, 66, 215, 61, 156, 180,
])
_GRADIENT_X = np.array([1, -1, 1, -1, 1, -1, 1, -1, 0, 0, 0, 0, 1, -1, 0, 0], np.float32)
_GRADIENT_Y = np.array([1, 1, -1, -1, 0, 0, 0, 0, 1, -1, 1, -1, 0, 0, -1, 1], np.float32)
# fmt: on


def perlin(
    shape: tuple[int, int],
    wavelength_px: float | tuple[float, float],
    *,
    octaves: int = 1,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Return Perlin noise on a grid of pixels, summed over octaves and divided by the sum of their amplitudes.

    Each octave has half the amplitude and half the wavelength of the one before. Pixel (r, c) holds
    ``noise.pnoise2(c / wavelength_px, r / wavelength_px, octaves)`` within 1e-5. That field is always the same one,
    repeats every 256 wavelengths and is zero at the corner of the image. With `rng` the lattice starts anywhere and
    its hashes are shuffled, which makes the field a random one.

    Parameters
    ----------
    shape : (int, int)
        Height and width in pixels, each 1 or larger.
    wavelength_px : float or (float, float)
        Distance of the lattice points of the first octave in pixels, > 0; a pair stands for down and across.
    octaves : int
        Number of fields summed, 1 or larger.
    rng : numpy.random.Generator, optional
        Draws the shuffling and the start of the lattice; none gives the reference field.

    Returns
    -------
    numpy.ndarray
        (H, W) float32, mean about 0, within [-1, 1].

    Raises
    ------
    ValueError
        If a size, a wavelength or the number of octaves is not positive.

    Notes
    -----
    Around lattice point (q, p) with gradient (gx, gy) the noise is ``w(v) w(u) (gx u + gy v)``, where (v, u) is the
    distance to the point and ``w(t) = 1 - |t|^3 (6 t^2 - 15 |t| + 10)`` (Perlin 2002). Summed over the points this is
    ``W_y Gx D_x' + D_y Gy W_x'`` with rows of two non-zeros in W (the weights) and D (weights times distances).
    """
    wavelengths = np.broadcast_to(np.asarray(wavelength_px, float), 2)
    if not np.all(np.array([*shape, *wavelengths, octaves]) > 0):
        raise ValueError(f"shape {shape}, wavelength_px {wavelength_px} and octaves {octaves} must be positive")
    start = np.zeros(2) if rng is None else rng.uniform(0, 256, 2)
    permutation = _PERMUTATION if rng is None else rng.permutation(256)
    # The reference takes its coordinates as float32: only the same rounding gives the same field far from the origin.
    y, x = (
        (np.arange(size) / wavelength + first).astype(np.float32)
        for size, wavelength, first in zip(shape, wavelengths, start, strict=True)
    )
    weights = np.float32(0.5) ** np.arange(octaves, dtype=np.float32)
    field, frequency = np.zeros(shape, np.float32), np.float32(1)
    for weight in weights / weights.sum():
        rows, factors = _band(y * frequency)
        _add_octave(field, rows, weight * factors, *_band(x * frequency), permutation)
        frequency *= np.float32(2)
    return field


def _band(coordinate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return per coordinate its lattice cell (N,) and the non-zeros of W and D (4, N): near, far, near, far point."""
    cell = np.floor(coordinate)
    t = coordinate - cell
    fade = t * t * t * (t * (t * 6 - 15) + 10)
    return cell.astype(np.int64), np.stack([1 - fade, fade, (1 - fade) * t, fade * (t - 1)])


@njit(cache=True)
def _add_octave(field, rows, y_factors, columns, x_factors, permutation):
    # The lattice rows above and below a pixel row, interpolated across, serve all pixel rows of the cell.
    height, width = field.shape
    above, below = np.empty((2, width), np.float32), np.empty((2, width), np.float32)
    for r in range(height):
        if r == 0 or rows[r] != rows[r - 1]:
            above, below = below, above
            if r == 0 or rows[r] != rows[r - 1] + 1:
                _lattice_row(above, rows[r], columns, x_factors, permutation)
            _lattice_row(below, rows[r] + 1, columns, x_factors, permutation)
        _combine(field[r], above[0], below[0], above[1], below[1], y_factors[:, r])


@njit(cache=True)
def _combine(out, w_above, w_below, d_above, d_below, factors):
    w_near, w_far, d_near, d_far = factors
    for c in range(out.size):
        out[c] += w_near * w_above[c] + w_far * w_below[c] + d_near * d_above[c] + d_far * d_below[c]


@njit(cache=True)
def _lattice_row(out, row, columns, factors, permutation):
    # out[0] is Gx D_x' and out[1] is Gy W_x' of one lattice row.
    first = columns.min()
    gradients = np.empty((2, columns.max() - first + 2), np.float32)
    for i in range(gradients.shape[1]):
        hashed = permutation[(permutation[(first + i) & 255] + row) & 255]
        direction = permutation[hashed] & 15
        gradients[0, i], gradients[1, i] = _GRADIENT_X[direction], _GRADIENT_Y[direction]
    for c in range(columns.size):
        p = columns[c] - first
        out[0, c] = gradients[0, p] * factors[2, c] + gradients[0, p + 1] * factors[3, c]
        out[1, c] = gradients[1, p] * factors[0, c] + gradients[1, p + 1] * factors[1, c]


def smooth_field(shape: tuple[int, int], scale_px: float, rng: np.random.Generator) -> np.ndarray:
    """Random field that varies over about `scale_px`: normal values on a coarse lattice, interpolated cubically.

    Parameters
    ----------
    shape : (int, int)
        H and W in px.
    scale_px : float
        Spacing of the lattice in px; below 1 it counts as 1.
    rng : numpy.random.Generator
        Draws.

    Returns
    -------
    (H, W) float32
        Mean 0, standard deviation 1.16 (over many fields).
    """
    scale = max(float(scale_px), 1.0)
    height, width = shape
    rows, columns = (int(np.ceil(side / scale)) + 4 for side in shape)
    coarse = rng.standard_normal((rows, columns), np.float32)
    fine = cv2.resize(coarse, (round(columns * scale), round(rows * scale)), interpolation=cv2.INTER_CUBIC)
    top, left = (int(v) for v in rng.uniform(scale, 2 * scale, 2))  # off the border and anywhere within a cell
    # Interpolation takes 14 % of the spread away, so 1.16 would give it back. What is drawn through this field is 16 %
    # stronger than its parameter says; with another factor all generated micrographs would be others.
    return fine[top : top + height, left : left + width] * np.float32(1.35)
