"""Pixels between float NCHW and uint8 NHWC, and PNG files: known answers, layouts, limits; C against NumPy."""

import io
import math
import os
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgegan import ArgumentError, SizeError, _backend, noise
from edgegan.image import encode_png, to_float, to_uint8
from support import BACKENDS, needs_c

RANDOM = np.random.default_rng(0)
F32 = np.float32


def floats(*values: float) -> np.ndarray:
    return np.array(values, F32).reshape(1, 1, 1, -1)


def any_floats(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """What networks draw, values on a rounding's joint, and any bits at all: NaN, infinities, denormals."""
    drawn = rng.uniform(-1.2, 1.2, shape).astype(F32)
    joints = ((rng.integers(-3, 514, shape) / 2 - 127.5) / 127.5).astype(F32)
    bits = rng.integers(0, 2**32, shape, np.uint32).view(F32)
    return np.choose(rng.integers(0, 3, shape), [drawn, joints, bits])


def expected(x: np.ndarray) -> np.ndarray:
    """The rule of `to_uint8`, a pixel at a time in Python's exact float64 with a rounding to float32 at each step."""
    out = []
    for value in x.astype(F32).ravel().tolist():
        if math.isnan(value):
            out.append(0)
            continue
        product = min(max(value, -9), 9) * 127.5  # beyond is clamped all the same, and cannot overflow
        v = float(F32(float(F32(product)) + 127.5))
        out.append(round(min(max(v, 0), 255)))
    return np.array(out, np.uint8).reshape(x.shape).transpose(0, 2, 3, 1)


def test_to_uint8_known_answers(backend: ModuleType) -> None:
    # 127.5 and 128.5 lie halfway: to the even neighbour, 128 both times. 126.5 goes to 126.
    halves = [(v - 127.5) / 127.5 for v in (126.5, 127.5, 128.5)]
    x = floats(-1, 1, 0, -1.001, 1.001, -9e9, 9e9, 3.4e38, -3.4e38, *halves)
    assert to_uint8(x).ravel().tolist() == [0, 255, 128, 0, 255, 0, 255, 255, 0, 126, 128, 128]


@pytest.mark.parametrize("count", [4, 100])  # within a vector's rest, and whole vectors
def test_to_uint8_of_what_is_no_number(backend: ModuleType, count: int) -> None:
    for channels in (1, 3, 4, 5):
        x = np.tile(floats(np.nan, -np.nan, np.inf, -np.inf), (1, channels, 1, count // 4))
        assert to_uint8(x)[0, 0, :4].tolist() == [[0] * channels, [0] * channels, [255] * channels, [0] * channels]


def test_to_uint8_inverts_to_float(backend: ModuleType) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = to_float(pixels)
    assert x.dtype == F32
    assert x.shape == (1, 1, 16, 16)
    assert np.array_equal(x, (pixels.astype(F32) / F32(127.5) - F32(1)).reshape(x.shape))
    assert np.array_equal(to_uint8(x), pixels)


@pytest.mark.parametrize(
    "shape", [(2, 1, 28, 28), (3, 2, 5, 7), (2, 3, 9, 35), (1, 4, 8, 8), (2, 5, 3, 70), (1, 3, 1, 1)]
)
def test_to_uint8_follows_its_rule(backend: ModuleType, shape: tuple[int, ...]) -> None:
    x = any_floats(np.random.default_rng(1), shape)
    before = x.copy()
    out = to_uint8(x)
    assert out.flags.c_contiguous
    assert out.dtype == np.uint8
    assert np.array_equal(out, expected(x))
    assert np.array_equal(x.view(np.uint32), before.view(np.uint32))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_zoom(backend: ModuleType, channels: int) -> None:
    x = RANDOM.uniform(-1, 1, (2, channels, 5, 6)).astype(F32)
    assert np.array_equal(to_uint8(x, zoom=3), to_uint8(x).repeat(3, axis=1).repeat(3, axis=2))


def test_straight_into_a_part_of_a_larger_picture(backend: ModuleType) -> None:
    x = RANDOM.uniform(-1, 1, (2, 3, 5, 6)).astype(F32)
    sheet = np.full((12, 30, 3), 7, np.uint8)
    tiles = np.lib.stride_tricks.as_strided(sheet[1:, 2:], (2, 5, 6, 3), (7 * 3, 30 * 3, 3, 1))
    assert to_uint8(x, tiles) is tiles
    for i, image in enumerate(to_uint8(x)):
        assert np.array_equal(sheet[1:6, 2 + 7 * i : 8 + 7 * i], image)
        sheet[1:6, 2 + 7 * i : 8 + 7 * i] = 7
    assert np.all(sheet == 7)  # and nothing beside them


LAYOUTS = {
    "reversed": lambda x: x[::-1, ::-1, ::-1, ::-1],
    "every other": lambda x: x.repeat(2, axis=0).repeat(2, axis=3)[::2, :, :, ::2],
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "Fortran": np.asfortranarray,
    "unaligned": lambda x: np.frombuffer(b"." + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "one value": lambda x: np.broadcast_to(x[:1, :1, :1, :1], x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_layouts(backend: ModuleType, layout: str, channels: int) -> None:
    x = LAYOUTS[layout](any_floats(np.random.default_rng(2), (2, channels, 6, 300)))
    pixels = to_uint8(x)
    assert np.array_equal(pixels, expected(x))
    y = LAYOUTS[layout](np.ascontiguousarray(pixels))
    assert np.array_equal(to_float(y), (y.astype(F32) / F32(127.5) - F32(1)).transpose(0, 3, 1, 2))


def test_into_any_layout(backend: ModuleType) -> None:
    x = RANDOM.uniform(-1, 1, (2, 3, 4, 300)).astype(F32)
    whole = to_uint8(x)
    for out in (
        np.empty_like(whole)[::-1, ::-1, ::-1, ::-1],
        np.empty((300, 4, 3, 2), np.uint8).T.transpose(0, 2, 3, 1),
        np.empty((2, 8, 600, 6), np.uint8)[:, ::2, ::2, ::2],
    ):
        assert np.array_equal(to_uint8(x, out), whole)


def test_wider_and_narrower_floats_are_rounded_first(backend: ModuleType) -> None:
    x = RANDOM.uniform(-1, 1, (1, 1, 4, 5))
    assert np.array_equal(to_uint8(x), to_uint8(x.astype(F32)))
    half = x.astype(np.float16)
    assert np.array_equal(to_uint8(half), to_uint8(half.astype(F32)))
    assert to_uint8(np.full((1, 1, 1, 1), 1e300)).item() == 255


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0), (0, 0, 0, 0)])
def test_nothing(backend: ModuleType, shape: tuple[int, ...]) -> None:
    n, c, h, w = shape
    assert to_uint8(np.empty(shape, F32)).shape == (n, h, w, c)
    assert to_uint8(np.empty(shape, F32), zoom=2).shape == (n, 2 * h, 2 * w, c)
    assert to_float(np.empty((n, h, w, c), np.uint8)).shape == shape


@pytest.mark.parametrize(
    "shape", [(2**31, 1, 1, 1), (2**16, 1, 2**8, 2**8), (2**20, 3, 2**20, 1), (2**29, 1, 1, 2**31)]
)
def test_too_many_elements_are_refused_before_memory_is_touched(backend: ModuleType, shape: tuple[int, ...]) -> None:
    n, c, h, w = shape
    tracemalloc.start()
    try:
        with pytest.raises(SizeError, match=r"elements; valid: at most 2147483647 in one call"):
            to_uint8(np.broadcast_to(F32(0), shape))
        for wider in (np.float16, np.float64, ">f4"):  # refused before they are converted
            with pytest.raises(SizeError):
                to_uint8(np.broadcast_to(np.zeros((), wider), (2**13, 1, 2**9, 2**9)))
        with pytest.raises(OverflowError):
            to_float(np.broadcast_to(np.uint8(0), (n, h, w, c)))
        with pytest.raises(SizeError):
            to_uint8(np.broadcast_to(F32(0), (1, 1, 2, 2**14)), zoom=65535)
        with pytest.raises(SizeError):
            encode_png(np.broadcast_to(np.uint8(0), (2**15, 2**16, 1)))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("images", "how", "message"),
    [
        (np.zeros((3, 4, 5), F32), {}, r"float32 \[3, 4, 5\]; valid: float32 \[N, C, H, W\]"),
        (np.zeros((1, 1, 2, 2), np.int64), {}, "images are int64"),
        (np.zeros((1, 1, 2, 2), np.complex64), {}, "images are complex64"),
        (np.zeros((1, 1, 2, 2), F32), {"zoom": 0}, "zoom is 0; valid: 1 to 65535"),
        (np.zeros((1, 1, 2, 2), F32), {"zoom": 65536}, "zoom is 65536"),
        (
            np.zeros((1, 1, 2, 2), F32),
            {"out": np.zeros((1, 2, 2, 2), np.uint8)},
            r"valid: writeable uint8 \[1, 2, 2, 1\]",
        ),
        (np.zeros((1, 1, 2, 2), F32), {"out": np.zeros((1, 2, 2, 1), np.int8)}, "out is int8"),
        (np.zeros((1, 1, 2, 2), F32), {"out": np.broadcast_to(np.uint8(0), (1, 2, 2, 1))}, "writeable"),
        (np.zeros((1, 1, 2, 2), F32), {"out": np.zeros((1, 2, 2, 1), np.uint8), "zoom": 2}, r"\[1, 4, 4, 1\]"),
    ],
)
def test_what_to_uint8_refuses(backend: ModuleType, images: np.ndarray, how: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        to_uint8(images, **how)


def test_what_to_float_refuses(backend: ModuleType) -> None:
    for pixels in (np.zeros((2, 2, 1), np.uint8), np.zeros((1, 2, 2, 1), np.int8)):
        with pytest.raises(ArgumentError, match=r"valid: uint8 \[N, H, W, C\]"):
            to_float(pixels)


@needs_c
@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 6), st.integers(0, 300)),
    zoom=st.integers(1, 3),
)
def test_c_is_numpy_to_the_bit(seed: int, shape: tuple[int, int, int, int], zoom: int) -> None:
    n, c, h, w = shape
    x = any_floats(np.random.default_rng(seed), shape)
    answers = []
    for module in BACKENDS:
        pixels, back = np.empty((n, h * zoom, w * zoom, c), np.uint8), np.empty((n, c, h * zoom, w * zoom), F32)
        module.to_uint8(x, pixels, zoom)
        module.to_float(pixels, back)
        answers.append((pixels, back.view(np.uint32)))
    assert np.array_equal(answers[0][0], answers[1][0])
    assert np.array_equal(answers[0][1], answers[1][1])


@needs_c
def test_the_c_core_refuses_what_does_not_fit() -> None:
    core = _backend.core
    x, out = np.zeros((1, 1, 2, 2), F32), np.zeros((1, 2, 2, 1), np.uint8)
    for images, pixels, zoom in [
        (x, out, 2),
        (x, out, 0),
        (x, out, -1),
        (x, out[0], 1),
        (x.astype(">f4"), out, 1),
        (x.astype(np.float64), out, 1),
        (x.view(np.int32), out, 1),
        (x, out.view(np.int8), 1),
        (x, np.zeros((1, 2, 2, 3), np.uint8), 1),
        (x, np.zeros((1, 5, 5, 1), np.uint8), 2),
        (np.zeros((1, 1, 2**40, 0), F32), np.zeros((1, 2**40, 4, 0), np.uint8), 2**62),
    ]:
        with pytest.raises((ValueError, OverflowError)):
            core.to_uint8(images, pixels, zoom)
    frozen = out.copy()
    frozen.flags.writeable = False
    for arguments in [(x, frozen, 1), (x, b"1234", 1), (None, out, 1), (x, out), (x, out, 1, 1), (x, out, "1")]:
        with pytest.raises((BufferError, TypeError, ValueError)):
            core.to_uint8(*arguments)


# Threads and memory


def test_eight_threads_on_one_buffer() -> None:
    """Each writes its part of one array, from one input, while the others do; long calls run side by side."""
    x = any_floats(RANDOM, (64, 3, 32, 32))
    out, words = np.empty((64, 32, 32, 3), np.uint8), np.empty((64, 4096), F32)
    whole = to_uint8(x)

    def work(part: int) -> bytes:
        for _ in range(20):
            to_uint8(x[8 * part : 8 * part + 8], out[8 * part : 8 * part + 8])
            words[8 * part : 8 * part + 8] = noise.normal(3, 8, 4096, start=8 * part)
        return encode_png(whole[0])

    with ThreadPoolExecutor(8) as pool:
        files = set(pool.map(work, range(8)))
    assert np.array_equal(out, whole)
    assert np.array_equal(words, noise.normal(3, 64, 4096))
    assert files == {encode_png(whole[0])}


@needs_c
def test_long_work_lets_other_threads_run() -> None:
    """While another thread is inside one call of tens of milliseconds, this one wakes up again and again."""
    for _ in range(5):  # a busy machine may not give us a turn the first time
        call, turns = threading.Thread(target=noise.normal, args=(1, 1, 30_000_000)), 0
        call.start()
        while call.is_alive():
            time.sleep(0.0005)
            turns += 1
        if turns > 10:
            return
    raise AssertionError(f"{turns} turns while the other thread drew 30 million normals")


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@needs_c
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the process's memory from /proc")
def test_calls_leave_memory_flat() -> None:
    """Also those that fail. A buffer that is not given back shows as a reference that stays, to the last one."""
    core = _backend.core
    x, out = np.zeros((1, 1, 8, 8), F32), np.zeros((1, 8, 8, 1), np.uint8)
    a, t, wrong = np.ones(8, F32), np.zeros(1), np.zeros(3, np.uint8)
    right_calls = [
        lambda: core.normal(1, 2, 1, 8, 0, 2.0, a),
        lambda: core.labels(1, 2, 1, 8, t.view(np.int64)),
        lambda: core.slerp(a, a, t, a),
        lambda: core.to_uint8(x, out, 1),
        lambda: core.to_float(out, x),
        lambda: core.png(out[0], (b"seed", b"7")),
    ]
    wrong_calls = [
        lambda: core.normal(1, 2, 1, 8, 0, 2.0, wrong),
        lambda: core.labels(1, 2, 1, 0, wrong),
        lambda: core.slerp(a, wrong, t, a),
        lambda: core.normal_from_words(wrong, a),
        lambda: core.to_uint8(x, out, 3),
        lambda: core.to_uint8(x, wrong, 1),
        lambda: core.to_float(x, out),
        lambda: core.png(out[0], (b" seed", b"7")),
        lambda: core.png(wrong, ()),
    ]

    def rounds(count: int) -> None:
        for _ in range(count):
            for call in right_calls:
                call()
            for call in wrong_calls:
                with pytest.raises((ValueError, BufferError)):
                    call()

    rounds(300)
    arrays = [x, out, a, t, wrong]
    references = [sys.getrefcount(array) for array in arrays]
    grown = []
    for _ in range(3):  # a leak grows each time; threads that other tests left may have taken something once
        before = resident_bytes()
        rounds(100_000 // (len(right_calls) + len(wrong_calls)))
        grown.append(resident_bytes() - before)
    assert min(grown) < 500_000
    assert [sys.getrefcount(array) for array in arrays] == references


# PNG


def decoded(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as picture:
        picture.load()
        array = np.asarray(picture)
        return array if array.ndim == 3 else array[:, :, None]


def gradient(shape: tuple[int, int, int]) -> np.ndarray:
    h, w, c = shape
    slope = np.add.outer(np.arange(h), 2 * np.arange(w))
    return (slope[:, :, None] + 50 * np.arange(c)).astype(np.uint8)


PICTURES = {
    "noise": lambda shape: RANDOM.integers(0, 256, shape, np.uint8),
    "zeros": lambda shape: np.zeros(shape, np.uint8),
    "gradient": gradient,
    "sparse": lambda shape: (RANDOM.random(shape) < 0.03).astype(np.uint8) * np.uint8(200),
    "repeated": lambda shape: np.resize(RANDOM.integers(0, 256, 91, np.uint8), shape),
}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", PICTURES)
def test_png_files_come_back(backend: ModuleType, kind: str, channels: int) -> None:
    for h, w in [(1, 1), (1, 300), (300, 1), (28, 28), (33, 77), (64, 64), (257, 200)]:
        array = PICTURES[kind]((h, w, channels))
        file = encode_png(array)
        with Image.open(io.BytesIO(file)) as picture:
            assert picture.format == "PNG"
            assert picture.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
            assert picture.size == (w, h)
        assert np.array_equal(decoded(file), array)


def test_png_of_any_layout(backend: ModuleType) -> None:
    array = RANDOM.integers(0, 256, (40, 50, 3), np.uint8)
    for view in (array[::-1], array[:, ::-1], array[:, :, ::-1], array[::2, ::3], np.asfortranarray(array)):
        assert np.array_equal(decoded(encode_png(view)), view)
    assert encode_png(array[::-1]) == encode_png(array[::-1].copy())


def test_png_texts(backend: ModuleType) -> None:
    texts = {
        "seed": "7",
        "label": "größer 数字",
        "Software": "edgegan",
        "empty": "",
        "two words": "a\nb",
        "x" * 79: "y",
    }
    file = encode_png(np.zeros((2, 2, 1), np.uint8), texts)
    with Image.open(io.BytesIO(file)) as picture:
        picture.load()
        assert picture.text == texts  # type: ignore[attr-defined]


def test_png_of_many_texts(backend: ModuleType) -> None:
    texts = {f"keyword {i}": "x" * i for i in range(300)}
    with Image.open(io.BytesIO(encode_png(np.zeros((2, 2, 1), np.uint8), texts))) as picture:
        picture.load()
        assert picture.text == texts  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"": "x"}, "keyword ''"),
        ({"x" * 80: "x"}, "keyword"),
        ({" x": "x"}, "keyword ' x'"),
        ({"x ": "x"}, "keyword"),
        ({"x  y": "x"}, "keyword"),
        ({"x\ny": "x"}, "keyword"),
        ({"ü": "x"}, "keyword"),
        ({"x": "a\0b"}, "text of 'x'"),
        ({"x": "\ud800"}, "text of 'x'"),
        ({"x": "a" * (2**24 + 1)}, "text of 'x'"),
    ],
)
def test_png_texts_that_are_refused(backend: ModuleType, texts: dict[str, str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        encode_png(np.zeros((2, 2, 1), np.uint8), texts)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2), np.uint8),
        np.zeros((0, 2, 1), np.uint8),
        np.zeros((2, 2, 5), np.uint8),
        np.zeros((2, 2, 1), F32),
    ],
)
def test_what_is_no_picture(backend: ModuleType, array: np.ndarray) -> None:
    with pytest.raises(ArgumentError, match=r"valid: uint8 \[H, W, C\] with C = 1, 2, 3 or 4"):
        encode_png(array)
