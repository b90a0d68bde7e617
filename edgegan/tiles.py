"""Pictures in tiles: where they lie, how each is taken and given to a network, and how the results become one picture.

The pixels of a picture go on mirrored beyond its borders, up to sides that the network takes. Neighbouring tiles
overlap. What a network makes of a tile is wrong near an edge where the picture goes on, as far as its receptive field
reaches: so the outer quarter of an overlap on either side is not used, and in the middle half one result leads over
into the next, in a straight line. Where an overlap is twice as wide as the receptive field, nothing wrong is used.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgegan import _backend
from edgegan.errors import ArgumentError
from edgegan.image import F32, U8, to_uint8


@dataclass(frozen=True)
class Axis:
    """The tiles along the height or the width, in pixels."""

    length: int  # of the picture with what is mirrored
    tile: int
    starts: tuple[int, ...]  # of the tiles, the first 0
    ramp: int  # how far it is from one tile over into the next

    @classmethod
    def cut(cls, length: int, tile: int, overlap: int, multiple: int = 1) -> "Axis":
        """Tiles that cover `length` and overlap by `overlap` or more, as evenly as multiples of `multiple` allow.

        length, tile and overlap are multiples of it. A tile longer than the picture is as long as the picture. Raises
        ArgumentError for an overlap of more than half a tile.
        """
        if tile >= length:
            return cls(length, length, (0,), 0)
        if not 0 <= 2 * overlap <= tile:
            raise ArgumentError(f"overlap is {overlap}; valid: 0 to {tile // 2}, half of a tile of {tile}")
        last = length - tile
        count = -(-last // (tile - overlap))
        starts = tuple(last * i // (count * multiple) * multiple for i in range(count + 1))
        return cls(length, tile, starts, overlap // 2)

    def borders(self) -> list[int]:
        """Where each tile's part begins, with the ramp from the one before, and where the last one's ends."""
        found = [0]
        for before, after in zip(self.starts, self.starts[1:], strict=False):
            found.append((after + before + self.tile - self.ramp) // 2)  # the ramp is in the middle of the overlap
        return [*found, self.length]


@dataclass(frozen=True)
class Layout:
    """The tiles of a picture."""

    rows: Axis
    columns: Axis

    @property
    def tile(self) -> tuple[int, int]:
        """The (h, w) of every tile."""
        return self.rows.tile, self.columns.tile

    @property
    def count(self) -> int:
        """How many tiles there are."""
        return len(self.rows.starts) * len(self.columns.starts)


def take(pictures: U8, y: int, x: int, size: tuple[int, int]) -> F32:
    """The tile of `size` (h, w) from row y and column x on: uint8 [n, H, W, C] -> float32 [n, C, h, w] in [-1, 1].

    Outside the pictures their pixels go on mirrored at the first and the last one, over and over. The values are those
    of `edgegan.image.to_float`. pictures: of any strides. Raises ArgumentError, and SizeError above 2^31 - 1 elements.
    """
    if pictures.ndim != 4 or pictures.dtype != np.uint8 or 0 in pictures.shape:
        raise ArgumentError(f"pictures are {pictures.dtype} {list(pictures.shape)}; valid: uint8 [n, H, W, C]")
    out = np.empty((pictures.shape[0], pictures.shape[3], *size), np.float32)
    _backend.core.tile(pictures, y, x, out)
    return out


def blend(before: F32, images: F32, *, across: bool = False) -> None:
    """Lead from one result over into the next, both float32 [n, C, h, w]: from top to bottom, or left to right.

    It is done in `images`: before + (images - before) * w, each step rounded, where w is (k + 1/2) / h in row k.
    """
    if across:
        before, images = before.swapaxes(2, 3), images.swapaxes(2, 3)
    h = images.shape[2]
    weights = np.arange(0.5, h, dtype=np.float32) / np.float32(h)
    _backend.core.blend(before, weights, images)


def stitch(
    run: Callable[[F32], F32],
    pictures: U8,
    layout: Layout,
    scale: int,
    out: U8,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """What `run` makes of the tiles of pictures [n, H, W, C], as whole pictures in `out` [n, H * scale, W * scale, C].

    run: float32 [n, C, h, w] -> [n, C, h * scale, w * scale], which it gives away. tell: is called after each tile. The
    memory is that of the tiles, and of one ramp across the width.
    """
    n, height, width, channels = out.shape
    rows, columns = layout.rows, layout.columns
    high, wide = (axis.ramp * scale for axis in (rows, columns))
    tops, lefts = ([border * scale for border in axis.borders()] for axis in (rows, columns))
    above = np.empty((n, channels, high if len(rows.starts) > 1 else 0, columns.length * scale), np.float32)
    for i, y in enumerate(rows.starts):
        top, bottom = tops[i] - y * scale, tops[i + 1] - y * scale
        beside = np.empty(0, np.float32)
        for j, x in enumerate(columns.starts):
            drawn = run(take(pictures, y, x, layout.tile))
            left, right = lefts[j] - x * scale, lefts[j + 1] - x * scale
            if j > 0 and wide > 0:
                blend(beside, drawn[..., left : left + wide], across=True)
            beside = drawn[..., right : right + wide].copy()
            part, place = drawn[..., left:right], slice(lefts[j], lefts[j + 1])
            if i > 0 and high > 0:
                blend(above[..., place], part[:, :, top : top + high])
            if i + 1 < len(rows.starts):
                above[..., place] = part[:, :, bottom : bottom + high]
            # What was mirrored beyond the picture's end is left out.
            done = out[:, tops[i] : min(tops[i + 1], height), place.start : min(place.stop, width)]
            if done.size:
                h, w = done.shape[1:3]
                to_uint8(part[:, :, top : top + h, :w], done)
            tell()


def luminance(pictures: NDArray[np.uint8]) -> U8:
    """uint8 [..., H, W, 3] -> [..., H, W, 1]: ITU-R 601 luma as Pillow rounds it, a row at a time to save memory."""
    out = np.empty((*pictures.shape[:-1], 1), np.uint8)
    for row, done in zip(pictures.reshape(-1, *pictures.shape[-2:]), out.reshape(-1, pictures.shape[-2]), strict=True):
        r, g, b = row.astype(np.uint32).T
        done[:] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16
    return out
