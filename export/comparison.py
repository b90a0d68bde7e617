"""A picture of what several networks draw from the same inputs, and of what differs."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import ArgumentError
from edgegan.image import grid, on_white

U8 = NDArray[np.uint8]
TILE, MAX_TILE, MAX_WIDTH, GAP, LABEL = 96, 512, 960, 2, 14  # pixels: sides to aim at, and the most
GAIN = 8  # of the rows that show differences


def comparison(pictures: Mapping[str, U8], sources: U8 | None = None) -> U8:
    """One picture [H, W, C] uint8 of the same inputs' pictures: labelled rows, each differing one's difference below.

    pictures: [n, h, w, C] uint8 by label; the first is what the others are held against. sources: of translations, what
    they were made of [n, h / scale, w / scale, C]; a row of its own, as large. Small pictures are zoomed, large ones
    shrunk to at most 512 pixels a side, and as many shown as fit 960. RGBA is shown on white.
    Raises ArgumentError unless all are of one shape with n at least 1.
    """
    shapes = {array.shape for array in pictures.values()}
    if len(shapes) != 1 or min(next(iter(shapes))) < 1:
        raise ArgumentError(f"pictures have shapes {sorted(map(list, shapes))}; valid: one for all, [n, H, W, C]")
    shown = {label: _fitted(array) for label, array in pictures.items()}
    (reference, *others) = shown.items()
    rows = [reference]
    if sources is not None:
        scale = next(iter(shapes))[1] // sources.shape[1]
        rows.insert(0, ("source", _fitted(sources.repeat(scale, axis=1).repeat(scale, axis=2))))
    for label, array in others:
        apart = np.abs(array.astype(np.int16) - reference[1]) * GAIN
        rows += [(label, array), (f"difference x {GAIN} (black: none)", np.minimum(apart, 255).astype(np.uint8))]
    zoom = _zoom(reference[1])
    tiles = ((_label(label), grid(array, columns=len(array), zoom=zoom, gap=GAP)) for label, array in rows)
    strips = [strip for pair in tiles for strip in pair]
    width, channels = max(strip.shape[1] for strip in strips), reference[1].shape[3]
    sheet = np.full((sum(len(strip) for strip in strips), width, channels), 255, np.uint8)
    top = 0
    for strip in strips:
        sheet[top : top + len(strip), : strip.shape[1]] = strip
        top += len(strip)
    return sheet


def _fitted(array: U8) -> U8:
    """As many of the pictures as fit, of at most 512 pixels a side; RGBA as RGB on white."""
    from edgegan.model import shrink

    h, w = array.shape[1:3]
    divisor = -(-max(h, w) // MAX_TILE)
    array = on_white(shrink(array, (max(1, h // divisor), max(1, w // divisor))))
    zoom = _zoom(array)
    return array[: max(1, MAX_WIDTH // (array.shape[2] * zoom + GAP))]


def _zoom(array: U8) -> int:
    h, w = array.shape[1:3]
    return max(1, min(-(-TILE // min(h, w)), MAX_WIDTH // max(h, w)))


def _label(text: str) -> U8:
    """A strip [H, W, 1] with black text on white."""
    from PIL import Image, ImageDraw, ImageFont, features

    font = ImageFont.load_default(LABEL if features.check("freetype2") else None)
    left, _, right, bottom = font.getbbox(text)
    strip = Image.new("L", (int(right - left) + 2 * GAP, int(bottom) + 2 * GAP), 255)
    ImageDraw.Draw(strip).text((GAP, GAP), text, fill=0, font=font)
    return np.asarray(strip)[:, :, None]
