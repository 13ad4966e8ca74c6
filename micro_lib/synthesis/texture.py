"""Textures grown from a dictionary of small patches: exemplar-based inpainting (Criminisi et al. 2004).

A pixel is filled by centring a patch on the border of what is known, looking up the patches of a dictionary which
differ least from the known pixels around it, and copying the unknown ones. A small real seed grows into a tile that way
(Trampert et al. 2021, section 3.1.1), and a hole in a micrograph closes from its border inwards.

DEVIATION: Criminisi et al. take patches from the known part of the same image and always the best one. Here, as in
Trampert et al., they come from an external dictionary of real tiles; a random one of the `k` best is taken, since one
dictionary serves many tiles and those should not be copies. Images are grey, so differences are of grey levels.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from micro_lib.core.progress import progress
from micro_lib.core.seeds import stream

PATCH_PX = 9
MAX_PATCHES = 14_000
_BLOCK = 128  # patches compared at a time; alike ones share a block
_STRIDE = 16  # known pixels between two looks at whether a block can be given up
_LARGEST_PATCH_PX = 181  # the sum of its squared differences still fits into 31 bits
_SMALLEST_DATA_TERM = 0.001  # DEVIATION: without it, flat grey has priority 0 and its order would be left to chance


class Dictionary(NamedTuple):
    """Patches in blocks of `_BLOCK` which are alike, laid out for the search; `dictionary` makes it.

    Attributes
    ----------
    patch_px : int
        Side of a patch in px, odd.
    size : int
        Number of patches N.
    blocks : numpy.ndarray
        (B, patch_px**2, _BLOCK) uint8: a pixel of all patches of a block is contiguous. The last patch fills up.
    low, high : numpy.ndarray
        (patch_px**2, B) uint8, the smallest and largest grey of every pixel in a block.
    """

    patch_px: int
    size: int
    blocks: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def patches(self) -> np.ndarray:
        """(N, patch_px, patch_px) uint8, a copy; patch i is the i that `inpaint_steps` tells."""
        flat = self.blocks.transpose(0, 2, 1).reshape(-1, self.patch_px**2)[: self.size]
        return flat.reshape(-1, self.patch_px, self.patch_px)


# ------------------------------------------------------------------------------------------------- the dictionary


def dictionary(
    tiles: Sequence[np.ndarray],
    *,
    patch_px: int = PATCH_PX,
    max_patches: int = MAX_PATCHES,
    rng: np.random.Generator,
) -> Dictionary:
    """Return a dictionary of patches, drawn uniformly from all positions in all tiles.

    Parameters
    ----------
    tiles : sequence of numpy.ndarray
        (H, W) uint8 each, of any sizes from one patch up; a large tile gives more patches than a small one.
    patch_px : int
        Side of a patch, odd, 3 to 181.
    max_patches : int
        Patches kept, 1 or larger, no position twice; where there are fewer positions, all of them.
    rng : numpy.random.Generator
        Draws the positions.

    Returns
    -------
    Dictionary

    Raises
    ------
    ValueError
        If there is no tile, a tile is no (H, W) uint8 image or smaller than a patch, or a number is out of range.

    Notes
    -----
    Memory: three times ``max_patches * patch_px**2`` bytes beside one tile at a time.
    """
    if patch_px % 2 == 0 or not 3 <= patch_px <= _LARGEST_PATCH_PX:
        raise ValueError(
            f"patch_px is {patch_px}; a patch is centred on a pixel, so pass an odd number of pixels, "
            f"3 to {_LARGEST_PATCH_PX}, such as {PATCH_PX}"
        )
    patches = crops(tiles, patch_px, max_patches, rng=rng)
    patches = patches[_halves(_thirds(patches), np.arange(len(patches)))].reshape(len(patches), -1)
    n_blocks = -(-len(patches) // _BLOCK)
    filled = np.concatenate([patches, np.repeat(patches[-1:], n_blocks * _BLOCK - len(patches), axis=0)])
    blocks = np.ascontiguousarray(filled.reshape(n_blocks, _BLOCK, -1).transpose(0, 2, 1))
    low, high = (np.ascontiguousarray(end(axis=2).T) for end in (blocks.min, blocks.max))
    return Dictionary(patch_px, len(patches), blocks, low, high)


def crops(tiles: Sequence[np.ndarray], size_px: int, n: int, *, rng: np.random.Generator) -> np.ndarray:
    """Return square pieces of tiles, drawn uniformly from all positions, none twice: patches or seeds.

    Parameters
    ----------
    tiles : sequence of numpy.ndarray
        (H, W) uint8 each, `size_px` or larger both ways, of any sizes.
    size_px : int
        Side of a piece in px, 1 or larger.
    n : int
        Number of pieces, 1 or larger; where there are fewer positions, all of them.
    rng : numpy.random.Generator
        Draws the positions.

    Returns
    -------
    numpy.ndarray
        (N, size_px, size_px) uint8, in the order of the tiles.

    Raises
    ------
    ValueError
        If there is no tile, a tile is no (H, W) uint8 image or smaller than a piece, or a number is out of range.
    """
    if min(size_px, n) < 1:
        raise ValueError(f"size_px is {size_px} and the number of pieces is {n}; both must be 1 or larger")
    if not len(tiles):
        raise ValueError("there are no tiles; pass at least one (H, W) uint8 image to cut from")
    positions = np.array([_positions(tile, f"tile {i}", size_px) for i, tile in enumerate(tiles)])  # down and across
    ends = np.cumsum(positions.prod(axis=1))
    total = int(ends[-1])
    chosen = np.arange(total) if n >= total else np.sort(rng.choice(total, n, replace=False, shuffle=False))
    parts, starts = np.split(chosen, np.searchsorted(chosen, ends[:-1])), np.append(0, ends[:-1])
    pieces = []
    for tile, places, start, columns in zip(tiles, parts, starts, positions[:, 1], strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(tile, (size_px, size_px))
        pieces.append(windows[np.divmod(places - start, columns)])
    return np.concatenate(pieces)


def _check_image(image: np.ndarray, what: str) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 2 or not image.size:
        found = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(
            f"{what} is {found}; expected an (H, W) uint8 array. Scale 16-bit or float grey to 0..255 and convert it, "
            "turn colours into grey"
        )


def _positions(tile: np.ndarray, what: str, size_px: int) -> tuple[int, int]:
    _check_image(tile, what)
    if min(tile.shape) < size_px:
        raise ValueError(
            f"{what} has {tile.shape[0]}x{tile.shape[1]} px, but pieces of {size_px}x{size_px} px are to be cut from "
            "it; leave it out or ask for smaller pieces"
        )
    return tile.shape[0] - size_px + 1, tile.shape[1] - size_px + 1


def _thirds(patches: np.ndarray) -> np.ndarray:
    """Grey summed over 3 x 3 fields of every patch, (N, 9): whole numbers, so that all machines order them alike."""
    side = patches.shape[1]
    cuts = [0, side // 3, side - side // 3]
    rows = np.add.reduceat(patches, cuts, axis=1, dtype=np.int32)
    return np.add.reduceat(rows, cuts, axis=2).reshape(len(patches), -1)


def _halves(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows reordered so that consecutive blocks hold alike ones: halved along the widest feature, again and again."""
    if len(rows) <= _BLOCK:
        return rows
    widest = np.ptp(features[rows], axis=0).argmax()
    rows = rows[np.argsort(features[rows, widest], kind="stable")]
    middle = -(-len(rows) // (2 * _BLOCK)) * _BLOCK
    return np.concatenate([_halves(features, rows[:middle]), _halves(features, rows[middle:])])


# -------------------------------------------------------------------------------------------------------- growing


def grow(
    seed: np.ndarray,
    dictionary: Dictionary,
    shape: tuple[int, int] = (128, 128),
    *,
    k: int = 5,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return a texture that has grown from a seed in its middle (Trampert et al. 2021, section 3.1.1).

    Parameters
    ----------
    seed : numpy.ndarray
        (h, w) uint8, at most as large as the texture; its pixels stay as they are.
    dictionary : Dictionary
        Where the patches come from.
    shape : (int, int)
        Height and width of the texture in px.
    k : int
        Number of best patches to choose from, 1 to the size of the dictionary; 1 always takes the best.
    rng : numpy.random.Generator
        Draws the choices.

    Returns
    -------
    numpy.ndarray
        (H, W) uint8.

    Raises
    ------
    ValueError
        If the seed is no image or larger than the texture, or `k` is out of range.
    """
    _check_image(seed, "the seed")
    given = seed_area(seed.shape, shape)
    image = np.zeros(shape, np.uint8)
    image[given] = seed.ravel()
    return inpaint(image, ~given, dictionary, k=k, rng=rng)


def seed_area(seed_shape: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Return where a texture's seed lies, in its middle: (H, W) bool, True for the pixels of the seed.

    Parameters
    ----------
    seed_shape, shape : (int, int)
        Height and width of seed and texture in px.

    Raises
    ------
    ValueError
        If the seed is larger than the texture.
    """
    corner = [(whole - part) // 2 for whole, part in zip(shape, seed_shape, strict=True)]
    if min(corner) < 0:
        raise ValueError(
            f"a seed of {seed_shape[0]}x{seed_shape[1]} px does not lie within a texture of {shape[0]}x{shape[1]} px; "
            "cut a smaller seed or grow a larger texture"
        )
    given = np.zeros(shape, bool)
    given[tuple(slice(c, c + part) for c, part in zip(corner, seed_shape, strict=True))] = True
    return given


def inpaint(
    image: np.ndarray, unknown: np.ndarray, dictionary: Dictionary, *, k: int = 5, rng: np.random.Generator
) -> np.ndarray:
    """Return an image whose unknown pixels are filled from a dictionary, inwards from their border.

    Parameters
    ----------
    image : numpy.ndarray
        (H, W) uint8; what it holds at unknown pixels does not matter.
    unknown : numpy.ndarray
        (H, W) bool, True where a pixel is to be filled; at least one pixel is known.
    dictionary : Dictionary
        Where the patches come from.
    k : int
        Number of best patches to choose from, 1 to the size of the dictionary; 1 always takes the best.
    rng : numpy.random.Generator
        Draws the choices.

    Returns
    -------
    numpy.ndarray
        (H, W) uint8, a new array; known pixels are those of `image`.

    Raises
    ------
    ValueError
        If image or mask are not as told, no pixel is known, or `k` is out of range.

    Notes
    -----
    The steps are told at `inpaint_steps`.
    """
    return inpaint_steps(image, unknown, dictionary, k=k, rng=rng)[0]


def inpaint_steps(
    image: np.ndarray, unknown: np.ndarray, dictionary: Dictionary, *, k: int = 5, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `inpaint` does, and the steps it took.

    Parameters
    ----------
    image, unknown, dictionary, k, rng
        As for `inpaint`.

    Returns
    -------
    image : numpy.ndarray
        (H, W) uint8.
    steps : numpy.ndarray
        (S, 3) int32: row and column of the patch's centre, number of the patch in the dictionary.

    Raises
    ------
    ValueError
        As for `inpaint`.

    Notes
    -----
    Step by step (Criminisi et al. 2004, section 3 and Table 1), with patches cut off at the edge of the image:

    1. The fill front are the known pixels with an unknown pixel above, below, left or right of them.
    2. The priority of one is C D. C is the sum of the confidences over the pixels of its patch, divided by their
       number; known pixels have 1, unknown ones 0. D is ``|isophote . normal| / 255 + 0.001``: the isophote is the
       largest gradient among the known pixels of the patch, turned by 90 degrees (differences of known neighbours,
       central where both are known); the normal is the unit vector along the Sobel gradient of what is known.
    3. The front pixel of highest priority is taken, of equal ones the first in reading order.
    4. The dictionary's patches are ordered by the sum of squared differences (SSD) over the known pixels, equal ones
       by their number. One of the first `k` is drawn, all of them equally likely.
    5. Its pixels are copied where they are unknown. They are known from now on, with the confidence C of the centre.
    """
    _check_image(image, "the image")
    if not isinstance(unknown, np.ndarray) or unknown.dtype != bool or unknown.shape != image.shape:
        found = f"{unknown.shape} {unknown.dtype}" if isinstance(unknown, np.ndarray) else type(unknown).__name__
        raise ValueError(
            f"`unknown` is {found}; expected a bool array of the image's shape {image.shape}, such as mask > 0"
        )
    if unknown.all():
        raise ValueError("no pixel is known, so there is no border to grow from; leave a seed out of `unknown`")
    if not 1 <= k <= dictionary.size:
        raise ValueError(
            f"k is {k}; it must lie between 1 and the {dictionary.size} patches of the dictionary: change k, or make "
            "the dictionary of more or larger tiles"
        )
    image = np.where(unknown, np.uint8(0), image)
    steps = _fill(image, ~unknown, dictionary, k, rng.random(np.count_nonzero(unknown)))
    return image, steps


def texture_pool(
    seeds: Sequence[np.ndarray],
    dictionary: Dictionary,
    n: int,
    *,
    shape: tuple[int, int] = (128, 128),
    k: int = 5,
    seed: int,
) -> np.ndarray:
    """Return a pool of textures, each grown from one of the seeds in its middle.

    Parameters
    ----------
    seeds : sequence of numpy.ndarray
        (h, w) uint8 each; a texture takes any of them, all equally likely.
    dictionary : Dictionary
        Where the patches come from; it should not hold the seeds.
    n : int
        Number of textures, 1 or larger.
    shape : (int, int)
        Height and width of a texture in px.
    k : int
        Number of best patches to choose from.
    seed : int
        Seed of the random choices; with the same seeds and dictionary, texture i depends on (`seed`, i) alone.

    Returns
    -------
    numpy.ndarray
        (n, H, W) uint8.

    Raises
    ------
    ValueError
        If there is no seed, `n` is below 1, or as for `grow`.
    """
    if not len(seeds) or n < 1:
        raise ValueError(f"found {len(seeds)} seeds and n = {n}; at least one seed and one texture are needed")
    pool = np.empty((n, *shape), np.uint8)
    for i in progress(range(n), desc="growing textures", unit="texture", delay=2):
        rng = stream(seed, "texture", i)
        pool[i] = grow(seeds[rng.integers(len(seeds))], dictionary, shape, k=k, rng=rng)
    return pool


# ---------------------------------------------------------------------------------------------------------- copies


def copy_rate(
    textures: np.ndarray,
    tiles: Sequence[np.ndarray],
    *,
    window_px: int = 2 * PATCH_PX - 1,
    given: np.ndarray | None = None,
) -> float:
    """Return the verbatim-copy rate: which share of a texture's windows is found in a tile, pixel for pixel.

    Counted are all positions of a window of `window_px` x `window_px` px that lies within a texture and holds no given
    pixel. A window is a copy if any tile holds the same grey levels at any position, unturned.

    Parameters
    ----------
    textures : numpy.ndarray
        (H, W) or (N, H, W) uint8; the windows of several are counted together.
    tiles : sequence of numpy.ndarray
        (h, w) uint8 each: the tiles the dictionary was made from. Those smaller than a window hold none.
    window_px : int
        Side of a window in px. It should be larger than a patch, since whole patches are copied on purpose; by default
        17, the largest square around a pixel that patches of 9 px through that pixel can cover.
    given : numpy.ndarray, optional
        (H, W) bool, True for pixels that were not grown, such as `seed_area`.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    ValueError
        If an array is not as told or no window can be counted.

    Notes
    -----
    Windows are compared by a 64-bit hash: that one differs from all windows of 10,000 tiles and yet passes for a copy
    has a probability below 1e-6. Windows of one grey, in saturated areas, are copies like any other.
    """
    stack = textures[None] if textures.ndim == 2 else textures  # (N, H, W)
    given = np.zeros(stack.shape[-2:], bool) if given is None else given
    if given.shape != stack.shape[1:]:
        raise ValueError(f"`given` has shape {given.shape}; expected that of a texture, {stack.shape[1:]}")
    for i, texture in enumerate(stack):
        _check_image(texture, f"texture {i}")
    grown = _grown_windows(given, window_px)
    hashes, times = np.unique([_window_hashes(texture, window_px)[grown] for texture in stack], return_counts=True)
    is_copy = np.zeros(len(hashes), bool)
    for i, tile in enumerate(tiles):
        _check_image(tile, f"tile {i}")
        if min(tile.shape) >= window_px:
            known = _window_hashes(tile, window_px).ravel()
            place = np.minimum(np.searchsorted(hashes, known), len(hashes) - 1)
            is_copy[place[hashes[place] == known]] = True
    return float(times[is_copy].sum() / times.sum())


def _grown_windows(given: np.ndarray, window_px: int) -> np.ndarray:
    """Which windows (H - w + 1, W - w + 1) hold no given pixel; at least one does not."""
    if 1 <= window_px <= min(given.shape):
        windows = np.lib.stride_tricks.sliding_window_view(given, (window_px, window_px))
        grown = ~windows.any(axis=(-2, -1))
        if grown.any():
            return grown
    raise ValueError(
        f"no window of {window_px}x{window_px} px fits into what was grown of {given.shape[0]}x{given.shape[1]} px; "
        "pass a smaller window_px, 1 or larger"
    )


def _window_hashes(image: np.ndarray, window_px: int) -> np.ndarray:
    """Hash (H - w + 1, W - w + 1) uint64 of every window: the sum of its pixels times random factors, modulo 2**64."""
    factors = stream(0, "window hashes").integers(2**64, size=(2, window_px), dtype=np.uint64)
    hashes = image.astype(np.uint64)
    for weights in factors | np.uint64(1):  # once along the columns, once, transposed, along the rows
        size = hashes.shape[0] - window_px + 1
        hashes = sum(weight * hashes[i : i + size] for i, weight in enumerate(weights)).T
    return hashes


# ------------------------------------------------------------------------------------------------- compiled kernels


class _Front(NamedTuple):
    """What is known and how urgent its border is, (H, W) each but `row_best` (H,)."""

    image: np.ndarray  # uint8
    known: np.ndarray  # bool
    confidence: np.ndarray  # float64
    down: np.ndarray  # int32, twice the derivative down the rows, at known pixels
    across: np.ndarray  # int32, twice the derivative along the columns
    steepness: np.ndarray  # int32, sum of their squares, -1 at unknown pixels
    priority: np.ndarray  # float64, -1 off the front
    row_best: np.ndarray  # float64, the largest priority in a row


@njit(cache=True, nogil=True)
def _fill(image, known, dictionary, k, draws):
    # Fills `image` in place; draws (n unknown,) in [0, 1) choose among the k best. Returns the steps (S, 3).
    height, width = image.shape
    half = dictionary.patch_px // 2
    derivatives = np.full((3, height, width), -1, np.int32)
    down, across, steepness = derivatives
    confidence, priority = known.astype(np.float64), np.empty((height, width))
    front = _Front(image, known, confidence, down, across, steepness, priority, np.empty(height))
    _update(front, half, 0, height, 0, width, 0)
    steps = np.empty((draws.size, 3), np.int32)
    pixels, greys = np.empty(dictionary.patch_px**2, np.int32), np.empty(dictionary.patch_px**2, np.int32)
    best = np.empty(k, np.int64)
    done = 0
    while front.row_best.max() >= 0:
        r = front.row_best.argmax()
        c = front.priority[r].argmax()
        count = _known_pixels(front, half, r, c, pixels, greys)
        _search(dictionary, pixels[:count], greys[:count], best)
        chosen = best[int(draws[done] * k)] & 0xFFFFFFFF
        steps[done] = r, c, chosen
        done += 1
        _paste(front, dictionary, half, r, c, chosen)
        top, bottom = max(r - half, 0), min(r + half + 1, height)
        left, right = max(c - half, 0), min(c + half + 1, width)
        _update(front, half, top, bottom, left, right, half)
    return steps[:done]


@njit(cache=True, nogil=True)
def _known_pixels(front, half, r, c, pixels, greys):
    # Numbers of the known pixels within the patch around (r, c), and their greys; returns how many there are.
    height, width = front.known.shape
    side, count = 2 * half + 1, 0
    for y in range(max(r - half, 0), min(r + half + 1, height)):
        for x in range(max(c - half, 0), min(c + half + 1, width)):
            if front.known[y, x]:
                pixels[count] = (y - r + half) * side + x - c + half
                greys[count] = front.image[y, x]
                count += 1
    return count


@njit(cache=True, nogil=True)
def _paste(front, dictionary, half, r, c, chosen):
    height, width = front.known.shape
    patch = dictionary.blocks[chosen // _BLOCK, :, chosen % _BLOCK]
    confidence = _confidence(front, half, r, c)
    for y in range(max(r - half, 0), min(r + half + 1, height)):
        for x in range(max(c - half, 0), min(c + half + 1, width)):
            if not front.known[y, x]:
                front.image[y, x] = patch[(y - r + half) * (2 * half + 1) + x - c + half]
                front.confidence[y, x] = confidence
                front.known[y, x] = True


@njit(cache=True, nogil=True)
def _search(dictionary, pixels, greys, best):
    # best (k,) becomes the smallest keys, sorted: the SSD in the upper 32 bits, the number of the patch in the lower.
    # A block is passed over or given up only if all its patches are worse than the k-th best so far.
    bounds = _bounds(dictionary, pixels, greys)
    first = bounds.argmin()  # the most promising block comes first: few others remain to be looked at
    ssd = np.empty(_BLOCK, np.int32)
    best[:] = np.iinfo(np.int64).max
    for turn in range(bounds.size):
        block = first if turn == 0 else turn - 1 if turn <= first else turn
        if bounds[block] > best[-1] >> 32 or not _compare(dictionary.blocks[block], pixels, greys, best[-1] >> 32, ssd):
            continue
        start = block * _BLOCK
        for i in range(min(_BLOCK, dictionary.size - start)):
            key = np.int64(ssd[i]) << 32 | start + i
            if key < best[-1]:
                _insert(best, key)


@njit(cache=True, nogil=True)
def _bounds(dictionary, pixels, greys):
    # No patch of a block has a smaller SSD than the distance from the known greys to the block's range of greys.
    bounds = np.zeros(dictionary.low.shape[1], np.int32)
    for j in range(pixels.size):
        low, high, grey = dictionary.low[pixels[j]], dictionary.high[pixels[j]], greys[j]
        for block in range(bounds.size):
            beyond = max(low[block] - grey, grey - high[block], np.int32(0))
            bounds[block] += beyond * beyond
    return bounds


@njit(cache=True, nogil=True)
def _compare(block, pixels, greys, limit, ssd):
    # SSD (_BLOCK,) of a block's patches; False as soon as all of them exceed the limit.
    ssd[:] = 0
    for start in range(0, pixels.size, _STRIDE):
        for j in range(start, min(start + _STRIDE, pixels.size)):
            row, grey = block[pixels[j]], greys[j]
            for i in range(_BLOCK):
                difference = np.int32(row[i]) - grey
                ssd[i] += difference * difference
        smallest = ssd[0]
        for i in range(_BLOCK):
            smallest = min(smallest, ssd[i])
        if smallest > limit:
            return False
    return True


@njit(cache=True, nogil=True)
def _insert(best, key):
    place = best.size - 1
    while place > 0 and key < best[place - 1]:
        best[place] = best[place - 1]
        place -= 1
    best[place] = key


@njit(cache=True, nogil=True)
def _update(front, half, top, bottom, left, right, reach):
    # After the pixels of a rectangle became known: gradients change one pixel around it, priorities one patch further.
    height, width = front.known.shape
    _differentiate(front, max(top - 1, 0), min(bottom + 1, height), max(left - 1, 0), min(right + 1, width))
    for r in range(max(top - reach - 1, 0), min(bottom + reach + 1, height)):
        for c in range(max(left - reach - 1, 0), min(right + reach + 1, width)):
            front.priority[r, c] = _priority(front, half, r, c) if _on_front(front.known, r, c) else -1.0
        front.row_best[r] = front.priority[r].max()


@njit(cache=True, nogil=True)
def _on_front(known, r, c):
    height, width = known.shape
    if not known[r, c]:
        return False
    beside = (c > 0 and not known[r, c - 1]) or (c < width - 1 and not known[r, c + 1])
    return beside or (r > 0 and not known[r - 1, c]) or (r < height - 1 and not known[r + 1, c])


@njit(cache=True, nogil=True)
def _differentiate(front, top, bottom, left, right):
    image, known = front.image, front.known
    height, width = known.shape
    for r in range(top, bottom):
        for c in range(left, right):
            if known[r, c]:
                y0, y1 = r - (r > 0 and known[r - 1, c]), r + (r < height - 1 and known[r + 1, c])
                x0, x1 = c - (c > 0 and known[r, c - 1]), c + (c < width - 1 and known[r, c + 1])
                # Twice the difference of two neighbours, or once that of pixels two apart.
                down = (np.int32(image[y1, c]) - np.int32(image[y0, c])) * (1 if y1 - y0 == 2 else 2)
                across = (np.int32(image[r, x1]) - np.int32(image[r, x0])) * (1 if x1 - x0 == 2 else 2)
                front.down[r, c], front.across[r, c] = down, across
                front.steepness[r, c] = down * down + across * across


@njit(cache=True, nogil=True)
def _priority(front, half, r, c):
    height, width = front.known.shape
    # Sobel gradient of the known area; the image goes on beyond its edge as it ends there.
    above, below, left, right = max(r - 1, 0), min(r + 1, height - 1), max(c - 1, 0), min(c + 1, width - 1)
    k = front.known
    normal_r = k[below, left] + 2 * k[below, c] + k[below, right] - k[above, left] - 2 * k[above, c] - k[above, right]
    normal_c = k[above, right] + 2 * k[r, right] + k[below, right] - k[above, left] - 2 * k[r, left] - k[below, left]
    data = _SMALLEST_DATA_TERM
    if normal_r != 0 or normal_c != 0:
        y, x = _steepest(front, half, r, c)
        across_isophote = front.down[y, x] * normal_c - front.across[y, x] * normal_r
        data += abs(across_isophote) / (510 * math.sqrt(normal_r * normal_r + normal_c * normal_c))
    return _confidence(front, half, r, c) * data


@njit(cache=True, nogil=True)
def _steepest(front, half, r, c):
    # The first known pixel of the patch, in reading order, with the largest gradient.
    height, width = front.known.shape
    largest, y_largest, x_largest = -1, r, c
    for y in range(max(r - half, 0), min(r + half + 1, height)):
        for x in range(max(c - half, 0), min(c + half + 1, width)):
            if front.steepness[y, x] > largest:
                largest, y_largest, x_largest = front.steepness[y, x], y, x
    return y_largest, x_largest


@njit(cache=True, nogil=True)
def _confidence(front, half, r, c):
    height, width = front.known.shape
    total, area = 0.0, 0
    for y in range(max(r - half, 0), min(r + half + 1, height)):
        for x in range(max(c - half, 0), min(c + half + 1, width)):
            total += front.confidence[y, x]
            area += 1
    return total / area
