import cv2
import numpy as np


def smooth_field(shape: tuple[int, int], scale_px: float, rng: np.random.Generator) -> np.ndarray:
    """Random field that varies over about `scale_px`: normal values on a coarse lattice, interpolated cubically.

    Parameters
    ----------
    shape : (H, W) in px
    scale_px : lattice spacing in px, > 0
    rng : generator

    Returns
    -------
    (H, W) float32, mean 0, standard deviation about 1
    """
    scale = max(float(scale_px), 1.0)
    height, width = shape
    rows, columns = (int(np.ceil(side / scale)) + 4 for side in shape)
    coarse = rng.standard_normal((rows, columns), np.float32)
    fine = cv2.resize(coarse, (round(columns * scale), round(rows * scale)), interpolation=cv2.INTER_CUBIC)
    top, left = (int(v) for v in rng.uniform(scale, 2 * scale, 2))  # off the border and anywhere within a cell
    # Cubic interpolation between lattice points takes a quarter of the spread away.
    return fine[top : top + height, left : left + width] * np.float32(1.35)
