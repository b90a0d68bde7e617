"""Pixels: from a network's floats to uint8, grids, and picture files."""

import io
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgegan import _backend
from edgegan._files import atomic_write, check_output
from edgegan.errors import ArgumentError, SizeError

if TYPE_CHECKING:
    from PIL import Image

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
_FLOAT32, _UINT8 = np.dtype(np.float32), np.dtype(np.uint8)
MAX_ELEMENTS = 2**31 - 1  # of one call, in C as in NumPy
_KEYWORD = re.compile(r"(?=.{1,79}\Z)[!-~]+( [!-~]+)*")
MAX_TEXT = 2**24  # bytes of a text in a PNG file

# Other than PNG: suffix -> Pillow's format and its options. WebP is kept lossless: a sample is what the model drew.
_FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".webp": ("WEBP", {"lossless": True}),
}
SUFFIXES = (".png", *_FORMATS)
COMFORTABLE_SIDE = 56


def to_uint8(images: NDArray[np.floating], out: U8 | None = None, *, zoom: int = 1) -> U8:
    """[N, C, H, W] float in [-1, 1] -> [N, H * zoom, W * zoom, C] uint8.

    The exact rule: v = x * 127.5 + 127.5 in float32 (the product rounded before the sum), clamped to [0,
    255], rounded half to even. Infinities clamp; NaN becomes 0. The inverse of `to_float`.

    images: of any strides; other than float32, they are rounded to it first. out: where to write, of any strides, a
    part of a larger picture say; default a new array. zoom: each pixel becomes zoom x zoom, 1 to 65535. Raises
    ArgumentError, and SizeError above 2^31 - 1 elements.
    """
    # Few steps for what is nearly always the case: for a small picture they take as long as its pixels do.
    is_float32 = images.dtype == _FLOAT32
    if images.ndim != 4 or not (is_float32 or images.dtype.kind == "f"):
        raise ArgumentError(f"images are {images.dtype} {list(images.shape)}; valid: float32 [N, C, H, W]")
    n, c, h, w = images.shape
    if zoom == 1:
        shape = (n, h, w, c)
    elif 1 <= zoom <= 65535:
        shape = (n, h * zoom, w * zoom, c)
    else:
        raise ArgumentError(f"zoom is {zoom}; valid: 1 to 65535")
    if images.size * zoom * zoom > MAX_ELEMENTS:
        raise _too_large(shape)
    if not is_float32:
        with np.errstate(over="ignore"):
            images = images.astype(np.float32)
    if out is None:
        out = np.empty(shape, np.uint8)
    elif out.shape != shape or out.dtype != np.uint8 or not out.flags.writeable:
        raise ArgumentError(f"out is {out.dtype} {list(out.shape)}; valid: writeable uint8 {list(shape)}")
    _backend.core.to_uint8(images, out, zoom)
    return out


def to_float(pixels: U8) -> F32:
    """[N, H, W, C] uint8, of any strides -> [N, C, H, W] float32 in [-1, 1]: p / 127.5 - 1, each step rounded.

    Raises ArgumentError, and SizeError above 2^31 - 1 elements.
    """
    if pixels.ndim != 4 or pixels.dtype != np.uint8:
        raise ArgumentError(f"pixels are {pixels.dtype} {list(pixels.shape)}; valid: uint8 [N, H, W, C]")
    if pixels.size > MAX_ELEMENTS:
        raise _too_large(pixels.shape)
    n, h, w, c = pixels.shape
    out = np.empty((n, c, h, w), np.float32)
    _backend.core.to_float(pixels, out)
    return out


def _too_large(shape: tuple[int, ...]) -> SizeError:
    return SizeError(f"{list(shape)} are {math.prod(shape)} elements; valid: at most {MAX_ELEMENTS} in one call")


def comfortable_zoom(size: tuple[int, int]) -> int:
    """The whole zoom at which pictures of `size` (h, w) are at least 56 pixels a side, for eyes to read."""
    return max(1, -(-COMFORTABLE_SIDE // min(size)))


def columns_of(n: int) -> int:
    """The columns of a near-square grid of n pictures: without a gap in the last row if that is at most 3:1."""
    least = math.isqrt(n - 1) + 1
    whole = (c for c in range(least, min(n, math.isqrt(3 * n)) + 1) if n % c == 0)
    return next(whole, least)


def blank_sheet(
    n: int, size: tuple[int, int], channels: int, *, columns: int | None = None, zoom: int = 1, gap: int = 2
) -> tuple[U8, U8]:
    """A white sheet [H', W', C] uint8 for a grid of n pictures of `size` (h, w), and its tiles.

    The tiles are a view of the sheet, [rows, columns, h * zoom, w * zoom, C], to be written to row by row. columns:
    default near-square. gap: white pixels between and around the tiles. Raises ArgumentError, and SizeError above
    2^31 - 1 elements.
    """
    for name, value, low in (("n", n, 1), ("columns", columns, 1), ("zoom", zoom, 1), ("gap", gap, 0)):
        if value is not None and value < low:
            raise ArgumentError(f"{name} is {value}; valid: {low} or more")
    columns = columns_of(n) if columns is None else columns
    rows = -(-n // columns)
    h, w = (side * zoom for side in size)
    shape = (gap + rows * (h + gap), gap + columns * (w + gap), channels)
    if math.prod(shape) > MAX_ELEMENTS:
        raise _too_large(shape)
    sheet = np.full(shape, 255, np.uint8)
    cells = sheet[gap:, gap:].reshape(rows, h + gap, columns, w + gap, channels)
    return sheet, cells[:, :h, :, :w].transpose(0, 2, 1, 3, 4)


def grid(images: U8, *, columns: int | None = None, zoom: int = 1, gap: int = 2) -> U8:
    """[N, H, W, C] uint8 -> one picture [H', W', C] uint8, row by row; see `blank_sheet`.

    zoom: each pixel becomes zoom x zoom. Cells left over in the last row are white.
    """
    if images.ndim != 4 or images.shape[0] < 1:
        raise ArgumentError(f"images have shape {list(images.shape)}; valid: [N, H, W, C] with N at least 1")
    n, h, w, c = images.shape
    sheet, tiles = blank_sheet(n, (h, w), c, columns=columns, zoom=zoom, gap=gap)
    for i, image in enumerate(images):
        tiles[divmod(i, tiles.shape[1])] = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return sheet


def check_suffix(path: str | os.PathLike[str], valid: Sequence[str] = SUFFIXES) -> str:
    """The suffix of `path` in lower case. Raises ArgumentError, which lists the valid ones."""
    suffix = Path(path).suffix.lower()
    if suffix not in valid:
        raise ArgumentError(f"cannot write {path}: its suffix is '{suffix}'; valid: {', '.join(valid)}")
    return suffix


def _check_picture(array: U8, channels: tuple[int, ...] = (1, 3, 4)) -> None:
    if array.ndim != 3 or array.shape[2] not in channels or array.dtype != _UINT8 or not array.size:
        valid = f"{', '.join(map(str, channels[:-1]))} or {channels[-1]}"
        raise ArgumentError(f"a picture of {array.dtype} {list(array.shape)}; valid: uint8 [H, W, C] with C = {valid}")


def _pillow(array: U8) -> "Image.Image":
    from PIL import Image  # here, because writing an array or a PNG file needs no Pillow and its import costs time

    _check_picture(array)
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def encode_png(array: U8, texts: Mapping[str, str] | None = None) -> bytes:
    """A PNG file of [H, W, C] uint8: C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.

    texts: by keyword, stored as text chunks (any Unicode but the null character). A keyword has 1 to 79 printable
    ASCII characters without spaces at its ends or in a row. The same pixels and texts give the same bytes
    everywhere, except that without the C core Pillow writes the file. Raises ArgumentError, and SizeError above
    2^31 - 1 bytes of pixels.
    """
    _check_picture(array, (1, 2, 3, 4))
    if array.size > MAX_ELEMENTS:
        raise _too_large(array.shape)
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    file: bytes = _backend.core.png(array, _chunks(texts) if texts else ())
    return file


def save_pngs(images: U8, files: Sequence[tuple[str, Mapping[str, str]] | None], temporary: str) -> None:
    """Write a PNG file of each picture of [n, H, W, C], with its texts, to its path; each whole or not at all.

    files: (path, texts) of each picture, None to leave it out; what is at a path is replaced. temporary: a name in the
    same folder that nobody else uses. The quick way to write thousands: where there is the C core, all of it runs
    beside other threads. Raises as `encode_png`, and OSError: the pictures before are written, none by half.
    """
    if len(files) != len(images) or not len(images):
        raise ArgumentError(f"there are {len(images)} pictures for {len(files)} files; valid: as many, at least one")
    _check_picture(images[0], (1, 2, 3, 4))
    core = _backend.core if os.name == "posix" else _pure()  # elsewhere C renames no file over another
    packed = [None if file is None else (os.fsencode(file[0]), _chunks(file[1])) for file in files]
    core.save_pngs(np.ascontiguousarray(images), packed, os.fsencode(temporary))


def _pure() -> Any:
    from edgegan import _pure

    return _pure


def _chunks(texts: Mapping[str, str]) -> tuple[bytes, ...]:
    """Keyword, text, keyword, text, ... as UTF-8. Raises ArgumentError."""
    chunks: list[bytes] = []
    for keyword, text in texts.items():
        if not _KEYWORD.fullmatch(keyword):
            raise ArgumentError(f"the keyword {keyword!r}: valid are 1 to 79 printable ASCII characters, single spaces")
        try:
            chunks += [keyword.encode(), text.encode()]
        except UnicodeEncodeError:
            raise ArgumentError(f"the text of {keyword!r} holds half of a surrogate pair; valid: Unicode") from None
        if "\0" in text or len(chunks[-1]) > MAX_TEXT:
            raise ArgumentError(f"the text of {keyword!r}: valid are at most {MAX_TEXT} bytes without a null character")
    return tuple(chunks)


def encode_image(array: U8, suffix: str, *, texts: Mapping[str, str] | None = None) -> bytes:
    """A file of [H, W, C] uint8 (C = 1 grey, 3 RGB, 4 RGBA): PNG, JPEG or WebP by `suffix`, one of SUFFIXES.

    texts: see `encode_png`; only PNG keeps them. Raises ArgumentError for an array that the format cannot hold.
    """
    if suffix == ".png":
        _check_picture(array)
        return encode_png(array, texts)
    format, options = _FORMATS[suffix]
    picture = _pillow(array)
    check_holds(suffix, *array.shape[:2], alpha=array.shape[-1] == 4)
    file = io.BytesIO()
    picture.save(file, format=format, **options)
    return file.getvalue()


def check_holds(suffix: str, height: int, width: int, *, alpha: bool) -> None:
    """Raise ArgumentError for a picture that a file of a suffix, one of SUFFIXES, cannot hold."""
    if suffix == ".png":
        return
    format, _ = _FORMATS[suffix]
    if format == "JPEG" and alpha:
        raise ArgumentError("JPEG has no transparency; valid: .png, .webp")
    limit = {"JPEG": 65500, "WEBP": 16383}[format]
    if max(height, width) > limit:
        raise ArgumentError(f"{format} holds at most {limit} pixels a side; use .png")


def save_image(path: str | os.PathLike[str], array: U8, *, texts: Mapping[str, str] | None = None) -> None:
    """Write the file of `encode_image`, by the suffix of `path`, whole or not at all.

    Raises ArgumentError for another suffix, a folder that does not exist or an array that the format cannot hold,
    OSError if the disk refuses.
    """
    suffix = check_suffix(path)
    check_output(path)
    file = encode_image(array, suffix, texts=texts)
    with atomic_write(path) as out:
        out.write(file)


# Suffix -> Pillow's format and its options for animations. WebP is lossy here: frames are many.
_ANIMATIONS: dict[str, tuple[str, dict[str, object]]] = {
    ".gif": ("GIF", {}),
    ".webp": ("WEBP", {"quality": 90, "method": 4}),
    ".png": ("PNG", {}),
}
ANIMATION_SUFFIXES = tuple(_ANIMATIONS)


def save_animation(path: str | os.PathLike[str], frames: Iterable[U8], duration_ms: int | Sequence[int] = 100) -> None:
    """Write frames, each [H, W, C] uint8 of one size, as an endless GIF, WebP or animated PNG by suffix.

    It appears whole or not at all. duration_ms: of every frame, or one for each; GIF counts in steps of 10 ms, and
    browsers slow down what is below 20. Equal frames in a row are stored as one that lasts longer. Raises as
    `save_image`.
    """
    format, options = _ANIMATIONS[check_suffix(path, ANIMATION_SUFFIXES)]
    pictures = [_pillow(frame) for frame in frames]
    if not pictures:
        raise ArgumentError("an animation needs at least one frame")
    count, (first, *others) = len(pictures), pictures
    durations = [duration_ms] * count if isinstance(duration_ms, int) else list(duration_ms)
    if len(durations) != count or min(durations) < 10:
        raise ArgumentError(f"duration_ms is {duration_ms}; valid: 10 or more, one or {count} of them")
    if any((other.size, other.mode) != (first.size, first.mode) for other in others):
        raise ArgumentError("the frames of an animation must have one size")
    with atomic_write(path) as file:
        first.save(file, format=format, save_all=True, append_images=others, duration=durations, loop=0, **options)


def on_white(images: U8) -> U8:
    """uint8 [n, H, W, 4] -> [n, H, W, 3] over a white ground; pictures of other channels as they are."""
    if images.shape[3] != 4:
        return images
    alpha = images[..., 3:].astype(np.uint16)
    mixed = images[..., :3] * alpha + 255 * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)
