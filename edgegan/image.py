"""Pixels: from a network's floats to uint8, grids, and picture files."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgegan._files import atomic_write
from edgegan.errors import ArgumentError

if TYPE_CHECKING:
    from PIL import Image

U8 = NDArray[np.uint8]

# Suffix -> Pillow's format and its options. WebP is kept lossless: a sample is what the model drew.
_FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".webp": ("WEBP", {"lossless": True}),
}
SUFFIXES = tuple(_FORMATS)
COMFORTABLE_SIDE = 56


def to_uint8(images: NDArray[np.float32]) -> U8:
    """[N, C, H, W] float32 in [-1, 1] -> [N, H, W, C] uint8.

    The exact rule: v = x * 127.5 + 127.5 in float32 (the product rounded before the sum), clamped to [0,
    255], rounded half to even. Infinities clamp; NaN becomes 0. The inverse of x = p / 127.5 - 1 for every p.
    """
    if images.ndim != 4:
        raise ArgumentError(f"images have shape {list(images.shape)}; valid: [N, C, H, W]")
    with np.errstate(over="ignore", invalid="ignore"):
        v = np.multiply(images, np.float32(127.5), dtype=np.float32)
        v += np.float32(127.5)
        np.fmax(v, np.float32(0), out=v)  # unlike maximum, fmax drops a NaN
        np.minimum(v, np.float32(255), out=v)
        np.rint(v, out=v)
    return np.ascontiguousarray(v.astype(np.uint8).transpose(0, 2, 3, 1))


def comfortable_zoom(size: tuple[int, int]) -> int:
    """The whole zoom at which pictures of `size` (h, w) are at least 56 pixels a side, for eyes to read."""
    return max(1, -(-COMFORTABLE_SIDE // min(size)))


def columns_of(n: int) -> int:
    """The columns of a near-square grid of n pictures: without a gap in the last row if that is at most 3:1."""
    least = math.isqrt(n - 1) + 1
    whole = (c for c in range(least, min(n, math.isqrt(3 * n)) + 1) if n % c == 0)
    return next(whole, least)


def grid(images: U8, *, columns: int | None = None, zoom: int = 1, gap: int = 2) -> U8:
    """[N, H, W, C] uint8 -> one picture [H', W', C] uint8, row by row.

    columns: default near-square. zoom: each pixel becomes zoom x zoom. gap: white pixels between and around
    the pictures; cells left over in the last row are white too.
    """
    if images.ndim != 4 or images.shape[0] < 1:
        raise ArgumentError(f"images have shape {list(images.shape)}; valid: [N, H, W, C] with N at least 1")
    for name, value, low in (("columns", columns, 1), ("zoom", zoom, 1), ("gap", gap, 0)):
        if value is not None and value < low:
            raise ArgumentError(f"{name} is {value}; valid: {low} or more")
    n, h, w, c = images.shape
    columns = columns_of(n) if columns is None else columns
    rows = -(-n // columns)
    h, w = h * zoom, w * zoom
    sheet = np.full((gap + rows * (h + gap), gap + columns * (w + gap), c), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = gap + i // columns * (h + gap), gap + i % columns * (w + gap)
        sheet[y : y + h, x : x + w] = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return sheet


def check_suffix(path: str | os.PathLike[str], valid: Sequence[str] = SUFFIXES) -> str:
    """The suffix of `path` in lower case. Raises ArgumentError, which lists the valid ones."""
    suffix = Path(path).suffix.lower()
    if suffix not in valid:
        raise ArgumentError(f"cannot write {path}: its suffix is '{suffix}'; valid: {', '.join(valid)}")
    return suffix


def _pillow(array: U8) -> "Image.Image":
    from PIL import Image  # here, because writing an array needs no Pillow and its import costs time

    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.dtype != np.uint8 or not array.size:
        raise ArgumentError(
            f"a picture of {array.dtype} {list(array.shape)}; valid: uint8 [H, W, C] with C = 1, 3 or 4"
        )
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def save_image(path: str | os.PathLike[str], array: U8) -> None:
    """Write [H, W, C] uint8 (C = 1 grey, 3 RGB, 4 RGBA) as PNG, JPEG or WebP by suffix, whole or not at all.

    Raises ArgumentError for another suffix, a folder that does not exist or an array of another kind, OSError
    if the disk refuses.
    """
    suffix = check_suffix(path)
    format, options = _FORMATS[suffix]
    if format == "JPEG" and array.shape[-1] == 4:
        raise ArgumentError(f"cannot write {path}: JPEG has no transparency; valid: .png, .webp")
    limit = {"JPEG": 65500, "WEBP": 16383}.get(format, 2**31 - 1)
    if max(array.shape[:2]) > limit:
        raise ArgumentError(f"cannot write {path}: {format} holds at most {limit} pixels a side; use .png")
    picture = _pillow(array)
    with atomic_write(path) as file:
        picture.save(file, format=format, **options)


def save_gif(path: str | os.PathLike[str], frames: Sequence[U8] | U8, duration_ms: int | Sequence[int] = 100) -> None:
    """Write frames, each [H, W, C] uint8 of one size, as a GIF that loops for ever; whole or not at all.

    duration_ms: of every frame, or one for each; GIF counts in steps of 10 ms, and browsers slow down what is
    below 20. Equal frames in a row are stored as one that lasts longer. Raises as `save_image`.
    """
    check_suffix(path, (".gif",))
    if len(frames) == 0:
        raise ArgumentError("a GIF needs at least one frame")
    durations = [duration_ms] * len(frames) if isinstance(duration_ms, int) else list(duration_ms)
    if len(durations) != len(frames) or min(durations) < 10:
        raise ArgumentError(f"duration_ms is {duration_ms}; valid: 10 or more, one or {len(frames)} of them")
    if len({frame.shape for frame in frames}) > 1:
        raise ArgumentError("the frames of a GIF must have one size")
    first, *others = [_pillow(frame) for frame in frames]
    with atomic_write(path) as file:
        first.save(file, format="GIF", save_all=True, append_images=others, duration=durations, loop=0)
