"""Synthetic pictures with the statistics of natural ones, to try networks on that take pictures: `pictures(seed, ...)`.

Paper: Lee, Mumford, Huang 2001, "Occlusion Models for Natural Images: A Statistical Study of a Scale-Invariant Dead
Leaves Model". Discs cover each other, the front ones last. Radii have a density of 1 / r^3, as objects at all distances
have in a photograph: edges of every length, flat areas, and a spectrum that falls with the square of the frequency.

A picture is a pure function of (seed, index, size), with the same bits on every machine: whole numbers, and float64
products, sums and quotients, each rounded once.
"""

import numpy as np
from numpy.typing import NDArray

from edgegan import noise

LEAVES = 96
# Radii in shares of the picture's longer side: 1 / SMALLEST to 1 / LARGEST.
SMALLEST, LARGEST = 24, 2
MARGIN = 8  # centres lie up to 1 / MARGIN of a side beyond each border, so that borders are covered as well
SENSOR_NOISE = 4  # added are whole numbers from -4 to 4, 0 the likeliest


def pictures(seed: int, n: int, size: tuple[int, int], channels: int, start: int = 0) -> NDArray[np.uint8]:
    """Pictures start .. start + n - 1 of `seed`: uint8 [n, H, W, channels] with (H, W) = size.

    Colours are uniform in each of up to four channels. Raises ArgumentError for a seed or index out of range.
    """
    h, w = size
    made = np.empty((n, h, w, channels), np.uint8)
    squares = np.arange(-2 * max(size), 2 * max(size) + 1, dtype=np.int64) ** 2
    grain = -(-h * w * channels // 2)  # words, of two halves each
    for i in range(n):
        words = noise.words(seed, 1, 4 * LEAVES + grain, start=start + i, stream=noise.STREAM_SOURCE)[0]
        _paint(made[i], words[: 4 * LEAVES].reshape(LEAVES, 4).astype(np.uint64), squares)
        _add_noise(made[i], words[4 * LEAVES :])
    return made


def _paint(picture: NDArray[np.uint8], leaves: NDArray[np.uint64], squares: NDArray[np.int64]) -> None:
    """Leaves over a first one that covers all. leaves: row, column, radius and colour as words, back to front."""
    h, w, channels = picture.shape
    side, zero = max(h, w), len(squares) // 2  # where the square of 0 is
    rows, columns = (_centres(leaves[:, axis], length) for axis, length in enumerate((h, w)))
    # The inverse of the radii's distribution function, squared.
    share = leaves[:, 2] / 2.0**32
    radii2 = (side * side / (SMALLEST**2 - share * (SMALLEST**2 - LARGEST**2))).astype(np.int64)
    reach = np.sqrt(radii2).astype(np.int64) + 1
    colours = leaves[:, 3].astype("<u4").view(np.uint8).reshape(-1, 4)[:, :channels]
    picture[:] = colours[0]
    tops, bottoms = np.maximum(rows - reach, 0).tolist(), np.minimum(rows + reach, h).tolist()
    lefts, rights = np.maximum(columns - reach, 0).tolist(), np.minimum(columns + reach, w).tolist()
    downs, acrosses, limits = (zero - rows).tolist(), (zero - columns).tolist(), radii2.tolist()
    for k in range(1, len(leaves)):
        top, bottom, left, right, down, across = tops[k], bottoms[k], lefts[k], rights[k], downs[k], acrosses[k]
        if top < bottom and left < right:
            y2, x2 = squares[top + down : bottom + down, None], squares[left + across : right + across]
            picture[top:bottom, left:right][y2 + x2 <= limits[k]] = colours[k]


def _centres(words: NDArray[np.uint64], length: int) -> NDArray[np.int64]:
    """Uniform along a side with its margins, in whole pixels."""
    margin = -(-length // MARGIN)
    return (words * np.uint64(length + 2 * margin) >> np.uint64(32)).astype(np.int64) - margin


def _add_noise(picture: NDArray[np.uint8], words: NDArray[np.uint32]) -> None:
    """Triangular, from both bytes of half a word: the sum of two uniform numbers."""
    halves = words.astype("<u4").view("<u2")[: picture.size].reshape(picture.shape)
    steps = SENSOR_NOISE + 1
    added = ((halves & 255) * steps >> 8) + ((halves >> 8) * steps >> 8)
    picture[:] = np.clip(picture.astype(np.int16) + added.astype(np.int16) - SENSOR_NOISE, 0, 255)
