"""Every function of the C core's Python module, with valid and invalid arguments, for valgrind to watch.

A script, not a test: test_core.py runs it under valgrind, where imports are slow, so it imports NumPy and nothing else.
Arrays hold exactly what is asked for, rows and texts of many lengths; a result is read to its last byte, so that one
that was never written shows. It compares with NumPy where that is cheap, and ends with "done".
"""

import contextlib
import zlib

import numpy as np

from edgegan import _backend, _pure

core = _backend.core
rng = np.random.default_rng(0)
digest = 0


def use(result: np.ndarray | bytes) -> None:
    """Let a branch depend on each byte: valgrind reports the use of one that is not initialised."""
    global digest
    digest = zlib.crc32(result if isinstance(result, bytes) else np.ascontiguousarray(result).tobytes(), digest)
    if digest % 2:
        digest += 2


def same(name: str, *arguments: object, out: tuple[np.ndarray, ...]) -> None:
    """Call both modules with new arrays, and compare."""
    c, numpy = ([np.empty_like(array) for array in out] for _ in range(2))
    getattr(core, name)(*arguments, *c)
    getattr(_pure, name)(*arguments, *numpy)
    for a, b in zip(c, numpy, strict=True):
        use(a)
        assert a.tobytes() == b.tobytes(), (name, arguments)


def noise() -> None:
    for n, dim in [(0, 1), (1, 1), (3, 5), (2, 16), (7, 17), (1, 513), (130, 4), (5, 1000)]:
        for start in (0, 2**32 - 2, 2**64 - n if n else 2**64 - 1):
            same("words", 2**64 - 1, start, n, dim, 3, out=(np.empty((n, dim), np.uint32),))
            same("normal", 7, start, n, dim, 0, np.inf, out=(np.empty((n, dim), np.float32),))
            same("normal", 7, start, n, dim, 0, 0.7, out=(np.empty((n, dim), np.float32),))
            same("labels", 7, start, n, 10, out=(np.empty(n, np.int64),))
    for count in [*range(40), 1000]:
        words = rng.integers(0, 2**32, count, np.uint32)
        same("normal_from_words", words, out=(np.empty(count, np.float32),))
    assert core.derive_seed(5, 9) == _pure.derive_seed(5, 9)
    assert core.philox((1, 2, 3, 4), (5, 6)) == tuple(_pure.philox((1, 2, 3, 4), (5, 6)))
    for dim in [1, 2, 15, 16, 17, 130]:
        a, b = rng.standard_normal((2, dim)).astype(np.float32)
        t = np.linspace(0, 1, 5)
        same("lerp", a, b, t, out=(np.empty((5, dim), np.float32),))
        same("slerp", a, b, t, out=(np.empty((5, dim), np.float32),))


def pixels() -> None:
    for channels in (1, 2, 3, 4, 5):
        for width in [*range(1, 36), 70, 257, 520]:
            x = rng.uniform(-1.2, 1.2, (2, channels, 2, width)).astype(np.float32)
            p = rng.integers(0, 256, (2, 2, width, channels), np.uint8)
            zoom = 1 + width % 3
            out = np.empty((2, 2 * zoom, width * zoom, channels), np.uint8)
            core.to_uint8(x, out, zoom)
            use(out)
            core.to_uint8(x[::-1, ::-1, ::-1, ::-1], out, zoom)
            use(out)
            floats = np.empty_like(x)
            core.to_float(p, floats)
            use(floats)
            core.to_float(p[:, :, ::-1], floats[::-1])
            use(floats)


def tiles() -> None:
    for channels in (1, 2, 3, 4):
        for h, w in [(1, 1), (2, 3), (9, 40), (40, 9)]:
            pictures = rng.integers(0, 256, (2, h, w, channels), np.uint8)
            for y, x, high, wide in [(0, 0, h, w), (-7, -3, 20, 50), (h, -90, 3, 100)]:
                out = np.empty((2, channels, high, wide), np.float32)
                same("tile", pictures, y, x, out=(out,))
                same("tile", pictures[:, ::-1, ::-1], y, x, out=(out,))
                a, b = rng.uniform(-1, 1, (2, *out.shape)).astype(np.float32)
                core.blend(a, np.linspace(0, 1, high, dtype=np.float32), b)
                use(b)
                core.blend(a.swapaxes(2, 3), np.linspace(0, 1, wide, dtype=np.float32), b.swapaxes(2, 3))
                use(b)


def files() -> None:
    texts = (b"Title", b"digits", b"Author", "Jürgen €".encode(), b"Comment", b"")
    for channels in (1, 2, 3, 4):
        for h, w in [(1, 1), (3, 300), (28, 28), (2, 20_000), (90, 80)]:
            random = rng.integers(0, 256, (h, w, channels), np.uint8)
            smooth = (np.indices((h, w)).sum(0)[:, :, None] + np.arange(channels)).astype(np.uint8)
            sparse = np.where(random < 40, random, np.uint8(0))
            for picture in (random, smooth, sparse, smooth[::-1], np.zeros_like(random)):
                file = core.png(picture, texts)
                use(file)
                assert file.endswith(b"IEND\xaeB`\x82")


def refusals() -> None:
    """What the module refuses, it must refuse without a look at what is not there."""
    word, wrong = np.empty(4, np.uint32), np.empty((2, 2), np.float32)
    frozen = np.zeros(4, np.uint32)
    frozen.flags.writeable = False
    calls = [
        ("words", 0, 0, 2**62, 4, 0, word),
        ("words", 0, 0, 1, 5, 0, word),
        ("words", 0, 2**64 - 1, 2, 2, 0, word),
        ("words", 0, 0, 1, 4, 0, frozen),
        ("words", 0, 0, 1, 4, 0, word[::2]),
        ("normal", 0, 0, 1, 4, 0, float("nan"), word),
        ("labels", 0, 0, 1, 0, np.empty(1, np.int64)),
        ("derive_seed", 0, 2**31),
        ("normal_from_words", word, np.empty(5, np.float32)),
        ("lerp", wrong[0], wrong[0], np.array([2.0]), wrong[1]),
        ("slerp", wrong[0], wrong[0], np.array([0.5]), wrong),
        ("to_uint8", wrong, np.empty((1, 2, 2, 1), np.uint8), 1),
        ("to_uint8", np.empty((1, 1, 2, 2), np.float32), np.empty((1, 2, 2, 1), np.uint8), 2),
        ("to_uint8", np.empty((1, 1, 2, 2), np.float32), np.empty((1, 2, 2, 1), np.uint8), -1),
        ("to_float", np.empty((1, 2, 2, 1), np.uint8), np.empty((1, 1, 2, 3), np.float32)),
        ("tile", np.zeros((1, 2, 2, 3), np.uint8), 0, 0, np.empty((1, 1, 2, 2), np.float32)),
        ("tile", np.zeros((1, 2, 2, 1), np.uint8), 2**31, 0, np.empty((1, 1, 2, 2), np.float32)),
        ("tile", np.zeros((1, 0, 2, 1), np.uint8), 0, 0, np.empty((1, 1, 2, 2), np.float32)),
        ("blend", *(np.empty(shape, np.float32) for shape in ((1, 1, 2, 2), (3,), (1, 1, 2, 2)))),
        ("blend", *(np.empty(shape, np.float32) for shape in ((1, 1, 2, 3), (2,), (1, 1, 2, 2)))),
        ("png", np.empty((0, 3, 1), np.uint8), ()),
        ("png", np.empty((3, 3, 5), np.uint8), ()),
        ("png", np.zeros((3, 3, 1), np.uint8), (b"", b"")),
        ("png", np.zeros((3, 3, 1), np.uint8), (b"k", b"\xff")),
        ("png", np.zeros((3, 3, 1), np.uint8), (b"k",)),
        ("png", np.zeros((3, 3, 1), np.uint8), ("k", "text")),
        ("png", np.zeros((3, 6, 2), np.uint8)[:, ::2], ()),
    ]
    for name, *arguments in calls:
        with contextlib.suppress(ValueError, TypeError, OverflowError, BufferError):
            getattr(core, name)(*arguments)
            raise SystemExit(f"{name}{arguments} was not refused")


assert _backend.NAME == "c"
noise()
pixels()
tiles()
files()
refusals()
print("done", core.instruction_set())
