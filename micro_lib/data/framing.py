"""Whole micrographs to overlapping tiles and back, as Goetz et al. 2022, section 2.2, did: squared, scaled, tiled.

Their micrographs of 2048 x 1433 pixels were mirrored to a square, halved and cut into four tiles of 512 pixels, each
with 62 pixels of its neighbours around it: 636 in all. What a network says about those surroundings is thrown away.
Mirroring an image up to whole tiles, as done here, makes the same four; smaller tiles need less of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from micro_lib.data.tiles import Labelled


@dataclass(frozen=True)
class Framing:
    """How micrographs are tiled; the defaults are the published sizes.

    Parameters
    ----------
    scale : float
        Magnification of micrographs before they are cut, above 0.
    tile_px : int
        Side of the part of a tile that counts, pixels.
    margin_px : int
        Width of the surroundings on each side, pixels; 0 for none.

    Raises
    ------
    ValueError
        If a size is out of range.
    """

    scale: float = 0.5
    tile_px: int = 512
    margin_px: int = 62

    def __post_init__(self):
        if not (self.scale > 0 and self.tile_px >= 1 and self.margin_px >= 0):
            raise ValueError(f"scale and tile_px must be positive and margin_px 0 or larger; found {self}")

    @property
    def side_px(self) -> int:
        """Side of a tile with its surroundings, pixels."""
        return self.tile_px + 2 * self.margin_px

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return the tiles of an image, row by row.

        Parameters
        ----------
        image : numpy.ndarray
            (H, W) or (H, W, C), any type; mirrored beyond its borders, right and below also up to whole tiles. It is
            not scaled, see `scaled`.

        Returns
        -------
        numpy.ndarray
            (N, side_px, side_px) or (N, side_px, side_px, C), N = ceil(H / tile_px) * ceil(W / tile_px).
        """
        rows, columns = self._counts(image.shape)
        missing = [n * self.tile_px - size for n, size in zip((rows, columns), image.shape[:2], strict=True)]
        around = [(self.margin_px, self.margin_px + more) for more in missing]
        padded = np.pad(image, around + [(0, 0)] * (image.ndim - 2), mode="symmetric")
        starts = [(self.tile_px * i, self.tile_px * j) for i in range(rows) for j in range(columns)]
        return np.stack([padded[y : y + self.side_px, x : x + self.side_px] for y, x in starts])

    def centre(self, tiles):
        """Return the part of tiles that counts: (..., side_px, side_px) to (..., tile_px, tile_px), array or tensor."""
        inside = slice(self.margin_px, self.margin_px + self.tile_px)
        return tiles[..., inside, inside]

    def stitch(self, centres: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Return the image whose tiles have these centres.

        Parameters
        ----------
        centres : numpy.ndarray
            (N, tile_px, tile_px) or (N, tile_px, tile_px, C), in the order of `cut`.
        shape : (int, int)
            Height and width of the image, pixels.

        Returns
        -------
        numpy.ndarray
            (H, W) or (H, W, C).

        Raises
        ------
        ValueError
            If an image of this shape has another number of tiles, or other ones.
        """
        rows, columns = self._counts(shape)
        if centres.shape[:3] != (rows * columns, self.tile_px, self.tile_px):
            expected = f"{rows * columns} centres of {self.tile_px} px"
            raise ValueError(f"an image of {tuple(shape)} has {expected}; found an array of {centres.shape}")
        grid = centres.reshape(rows, columns, *centres.shape[1:]).swapaxes(1, 2)  # (rows, y, columns, x, ...)
        whole = grid.reshape(rows * self.tile_px, columns * self.tile_px, *centres.shape[3:])
        return whole[: shape[0], : shape[1]]

    def _counts(self, shape: Sequence[int]) -> tuple[int, int]:
        return -(-shape[0] // self.tile_px), -(-shape[1] // self.tile_px)


def scaled(sample: Labelled, scale: float) -> Labelled:
    """Return a micrograph at `scale` of its pixels; grey levels are averaged or interpolated, classes never invented.

    Parameters
    ----------
    sample : Labelled or Record
        Image (H, W) uint8 and mask (H, W) uint8.
    scale : float
        Above 0. A pixel of the new mask has the class that covers most of it, the smallest id of equals.

    Returns
    -------
    Labelled
        Sides rounded, at least 1 pixel.
    """
    if scale == 1:
        return Labelled(sample.image, sample.mask)
    image, ids = scaled_image(sample.image, scale), np.unique(sample.mask)
    area = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    size = image.shape[::-1]
    shares = [cv2.resize((sample.mask == i).astype(np.float32), size, interpolation=area) for i in ids]
    return Labelled(image, ids[np.argmax(shares, axis=0)])


def scaled_image(image: np.ndarray, scale: float) -> np.ndarray:
    """Return an image at `scale` of its pixels, grey levels averaged or interpolated (cubically).

    Parameters
    ----------
    image : numpy.ndarray
        (H, W) grey levels.
    scale : float
        Above 0; at 1 the image itself is returned.

    Returns
    -------
    numpy.ndarray
        Of the same type; sides rounded, at least 1 pixel.
    """
    if scale == 1:
        return image
    size = tuple(max(1, round(side * scale)) for side in image.shape[::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def like_electron_micrograph(
    sample: Labelled, pixel_size_um: float, wanted_um: float, *, invert: bool = True
) -> Labelled:
    """Return a bright-field light-optical micrograph made to match electron micrographs (Goetz et al. 2022).

    Parameters
    ----------
    sample : Labelled
        Image (H, W) uint8 and mask.
    pixel_size_um, wanted_um : float
        Edge of a pixel as it is, and in the electron micrographs, um.
    invert : bool
        Swap dark and bright, so that the background is dark as in the electron micrographs.

    Returns
    -------
    Labelled
        Rescaled; inverted if asked for.
    """
    made = scaled(sample, pixel_size_um / wanted_um)
    return Labelled(np.iinfo(made.image.dtype).max - made.image, made.mask) if invert else made
