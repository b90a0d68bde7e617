"""The C core's functions in NumPy, with the same bits (edgegan/core/); its PNG files come from Pillow.

Private: `edgegan.noise` and `edgegan.image` check the arguments, make the arrays and call this. A function with
`out` fills it.
"""

import io
import math
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegan._files import write_whole

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_STREAM_LABEL, _STREAM_TRAINING = 1, 2
_COUNTERS = 1 << 15  # Philox blocks made at once: bounds the memory to a few MB


def _read_table() -> NDArray[np.float32]:
    """The cubics of the inverse CDF, [512, 4], from the header that the C core compiles."""
    text = files("edgegan.core").joinpath("normal_table.h").read_text(encoding="ascii")
    numbers = re.findall(r"(-?0x\S+?)f[,}]", text)
    return np.array([float.fromhex(number) for number in numbers], np.float32).reshape(512, 4)


_TABLE = _read_table()


def _philox(counter: list[Any], key: tuple[int, int]) -> list[Any]:
    """Philox4x32-10 on uint64 arrays of 32-bit words that broadcast together."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1 = (p1 >> _HALF) ^ c1 ^ np.uint64(k0), p1 & _LOW
        c2, c3 = (p0 >> _HALF) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, ...]:
    return tuple(int(word[0]) for word in _philox([np.array([c], np.uint64) for c in counter], key))


def _image_words(seed: int, index: int, rows: int, first: int, count: int, stream: int) -> NDArray[np.uint32]:
    """Words first .. first + count - 1 (first a multiple of 4) of images index .. index + rows - 1."""
    block = np.uint64(first // 4) + np.arange((count + 3) // 4, dtype=np.uint64)[None, :]
    image = np.uint64(index) + np.arange(rows, dtype=np.uint64)[:, None]
    counter = [block, np.uint64(stream), image & _LOW, image >> _HALF]
    words = np.stack(_philox(counter, (seed & 0xFFFFFFFF, seed >> 32)), axis=-1).astype(np.uint32)
    return words.reshape(rows, -1)[:, :count]


def _pieces(
    seed: int, start: int, n: int, dim: int, stream: int
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.uint32]]]:
    """All words of [n, dim] in pieces of bounded size, each with its place."""
    columns = min(dim, 4 * _COUNTERS)
    rows = max(1, _COUNTERS // ((columns + 3) // 4))
    for row in range(0, n, rows):
        for column in range(0, dim, columns):
            place = slice(row, min(n, row + rows)), slice(column, min(dim, column + columns))
            yield (
                place,
                _image_words(seed, start + row, place[0].stop - row, column, place[1].stop - column, stream),
            )


def words(seed: int, start: int, n: int, dim: int, stream: int, out: NDArray[np.uint32]) -> None:
    for place, piece in _pieces(seed, start, n, dim, stream):
        out[place] = piece


def _normal(u: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The inverse CDF at (u + 1/2) / 2^32; noise.c has the same steps, with their reasons."""
    upper = u >= np.uint32(1 << 31)
    v = np.where(upper, ~u, u) * np.uint32(2) + np.uint32(1)
    bits = (v & ~(v >> np.uint32(24))).astype(np.float32).view(np.uint32)
    c = _TABLE[(bits >> np.uint32(19)) - np.uint32(127 << 4)]
    x = (bits & np.uint32(0x7FFFF)).astype(np.float32) * np.float32(2.0**-19)
    z = c[..., 0] + x * (c[..., 1] + x * (c[..., 2] + x * c[..., 3]))
    return np.where(upper, z, -z)


def normal_from_words(words: NDArray[np.uint32], out: NDArray[np.float32]) -> None:
    out[...] = _normal(words)


def _truncation_word(truncation: float) -> int:
    """The smallest word whose normal is >= -truncation."""
    bound = -np.float32(truncation)
    if _normal(np.zeros(1, np.uint32))[0] >= bound:
        return 0
    low, high = 0, 0x7FFFFFFF  # the normal of high is about -3.7e-8, within any valid truncation
    while low < high:
        middle = (low + high) // 2
        if _normal(np.array([middle], np.uint32))[0] >= bound:
            high = middle
        else:
            low = middle + 1
    return low


def normal(seed: int, start: int, n: int, dim: int, stream: int, truncation: float, out: NDArray[np.float32]) -> None:
    low = _truncation_word(truncation)
    span = np.uint64((1 << 32) - 2 * low)
    for place, u in _pieces(seed, start, n, dim, stream):
        if low > 0:
            u = ((u.astype(np.uint64) * span) >> _HALF).astype(np.uint32) + np.uint32(low)
        out[place] = _normal(u)


def labels(seed: int, start: int, n: int, classes: int, out: NDArray[np.int64]) -> None:
    for (rows, _), u in _pieces(seed, start, n, 1, _STREAM_LABEL):
        out[rows] = (u[:, 0].astype(np.uint64) * np.uint64(classes)) >> _HALF


def derive_seed(seed: int, purpose: int) -> int:
    low, high = _image_words(seed, 0, 1, purpose // 2 * 4, 4, _STREAM_TRAINING)[0].reshape(2, 2)[purpose % 2]
    return int(high) << 32 | int(low)


def lerp(a: NDArray[np.float32], b: NDArray[np.float32], t: NDArray[np.float64], out: NDArray[np.float32]) -> None:
    for row, place in zip(out, t.tolist(), strict=True):
        row[...] = _blend(a, b, 1 - place, place)


def slerp(a: NDArray[np.float32], b: NDArray[np.float32], t: NDArray[np.float64], out: NDArray[np.float32]) -> None:
    lengths = math.sqrt(_dot(a, a)) * math.sqrt(_dot(b, b))
    cosine = _dot(a, b) / lengths if lengths else math.nan
    if not (1 - cosine) * (1 + cosine) >= 1e-12:  # the negation: not a number is not less
        lerp(a, b, t, out)
        return
    angle = _arc_cosine(cosine)
    whole = _sine(angle)
    for row, place in zip(out, t.tolist(), strict=True):
        row[...] = _blend(a, b, _sine((1 - place) * angle) / whole, _sine(place * angle) / whole)


def _blend(a: NDArray[np.float32], b: NDArray[np.float32], weight_a: float, weight_b: float) -> NDArray[np.float32]:
    mixed: NDArray[np.float32] = np.float32(weight_a) * a + np.float32(weight_b) * b
    return mixed


def _dot(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The sum of the products in the order of interpolate.c: 16 partial sums, then those in halves."""
    products = np.zeros((-(-len(a) // 16), 16))
    products.ravel()[: len(a)] = a.astype(np.float64) * b
    sums = np.zeros(16)
    for row in products:
        sums += row
    while len(sums) > 1:
        half = len(sums) // 2
        sums = sums[:half] + sums[half:]
    return float(sums[0])


def _arc_sine(x: float) -> float:
    square, power, total = x * x, x, x
    for k in range(1, 26):
        power = power * square
        power = power * (2 * k - 1) / (2 * k)
        total = total + power / (2 * k + 1)
    return total


def _arc_cosine(x: float) -> float:
    if x > 0.5:
        return 2 * _arc_sine(math.sqrt((1 - x) / 2))
    if x < -0.5:
        return math.pi - 2 * _arc_sine(math.sqrt((1 + x) / 2))
    return math.pi / 2 - _arc_sine(x)


def _sine(x: float) -> float:
    if x > math.pi / 2:
        x = math.pi - x
    square, term, total = x * x, x, x
    for k in range(1, 13):
        term = term * square
        term = -term / (2 * k * (2 * k + 1))
        total = total + term
    return total


def to_uint8(images: NDArray[np.float32], out: NDArray[np.uint8], zoom: int) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        v = np.multiply(images, np.float32(127.5), dtype=np.float32)
        v += np.float32(127.5)
        np.fmax(v, np.float32(0), out=v)  # unlike maximum, fmax drops a NaN
        np.minimum(v, np.float32(255), out=v)
        np.rint(v, out=v)
    out[...] = v.astype(np.uint8).transpose(0, 2, 3, 1).repeat(zoom, axis=1).repeat(zoom, axis=2)


def to_float(pixels: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    out[...] = (pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)).transpose(0, 3, 1, 2)


def tile(pixels: NDArray[np.uint8], y: int, x: int, out: NDArray[np.float32]) -> None:
    rows, columns = (
        _mirrored(first, count, size)
        for first, count, size in zip((y, x), out.shape[2:], pixels.shape[1:3], strict=True)
    )
    to_float(pixels[:, rows[:, None], columns], out)


def _mirrored(first: int, count: int, size: int) -> NDArray[np.int64]:
    """The pixels at positions first, first + 1, ... of a row of `size` that goes on mirrored: 0 1 2 1 0 1 ..."""
    period = max(1, 2 * (size - 1))
    phase = np.arange(first, first + count) % period
    return np.minimum(phase, period - phase)


def blend(before: NDArray[np.float32], weights: NDArray[np.float32], images: NDArray[np.float32]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        images[...] = before + (images - before) * weights[:, None]


def png(pixels: NDArray[np.uint8], texts: tuple[bytes, ...]) -> bytes:
    from PIL import Image, PngImagePlugin

    chunks = PngImagePlugin.PngInfo()
    for keyword, text in zip(texts[::2], texts[1::2], strict=True):
        if (keyword + text).isascii():
            chunks.add_text(keyword.decode(), text.decode())
        else:
            chunks.add_itxt(keyword.decode(), text.decode())
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG", pnginfo=chunks)
    return file.getvalue()


def save_pngs(pixels: NDArray[np.uint8], files: list[tuple[bytes, tuple[bytes, ...]] | None], temporary: bytes) -> None:
    for picture, file in zip(pixels, files, strict=True):
        if file is not None:
            path, texts = file
            write_whole(temporary, path, png(picture, texts))


def has_vnni() -> bool:
    """Python cannot ask the processor, and what is done without VNNI is right with it, too, only slower."""
    return False
