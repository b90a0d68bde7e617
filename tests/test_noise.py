"""The noise contract: known answers, C against NumPy to the bit, and the statistics of a sound sampler."""

import hashlib
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtri

from edgegan import _backend, _pure, noise
from edgegan.errors import ArgumentError, EdgeGANError, SizeError
from support import BACKENDS, needs_c

VECTORS = Path(__file__).parent / "vectors"
PURE = os.environ.get("EDGEGAN_PUREPYTHON") == "1"
STREAMS = (noise.STREAM_LATENT, noise.STREAM_LABEL, noise.STREAM_TRAINING, noise.STREAM_NOISE_INPUT)
TOP = 2**64 - 1

# Both sides of every joint between the cubics, with both ends of the words, and the mirror of all.
_JOINTS = [((16 + s) << e) // 32 + d for e in range(32) for s in range(16) for d in range(-2, 3)]
_LOWER = np.unique([m for m in [*_JOINTS, 2**31 - 1] if 0 <= m < 2**31]).astype(np.uint32)
EDGES = np.concatenate([_LOWER, ~_LOWER])


def lines(name: str) -> list[str]:
    text = (VECTORS / name).read_text(encoding="ascii")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def normal_from_words(backend: ModuleType, words: np.ndarray) -> np.ndarray:
    out = np.empty(len(words), np.float32)
    backend.normal_from_words(words, out)
    return out


def quantile(words: np.ndarray) -> np.ndarray:
    return ndtri((words + 0.5) / 2.0**32)


def scalar_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 as its paper states it, in Python's integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % (1 << 32), (k1 + 0xBB67AE85) % (1 << 32)
    return [c0, c1, c2, c3]


def scalar_word(seed: int, index: int, stream: int, j: int) -> int:
    counter = [j // 4, stream, index % (1 << 32), index >> 32]
    return scalar_philox(counter, [seed % (1 << 32), seed >> 32])[j % 4]


# Known answers


def test_the_backend_is_the_one_asked_for():
    expected = "python" if PURE else "c"
    assert expected == _backend.NAME


@pytest.mark.parametrize("module", BACKENDS)
def test_philox_known_answers(module):
    for line in lines("philox.txt"):
        numbers = [int(word, 16) for word in line.split()]
        counter, key, output = numbers[:4], numbers[4:6], numbers[6:]
        assert list(module.philox(tuple(counter), tuple(key))) == output
        assert scalar_philox(counter, key) == output


def test_noise_known_answers(backend):
    kinds = set()
    for line in lines("noise.txt"):
        call, answer = (part.split() for part in line.split(" : "))
        kind, arguments = call[0], call[1:]
        kinds.add(kind)
        if kind == "words":
            seed, start, stream, n, dim = map(int, arguments)
            got = [f"{word:08x}" for word in noise.words(seed, n, dim, start=start, stream=stream).flat]
        elif kind == "normal":
            seed, start, stream, n, dim = map(int, arguments[:5])
            bound = None if arguments[5] == "inf" else float(arguments[5])
            normals = noise.normal(seed, n, dim, start=start, stream=stream, truncation=bound)
            got = [f"{bits:08x}" for bits in normals.view(np.uint32).flat]
        elif kind == "normal_from_words":
            words = np.array([int(word, 16) for word in arguments], np.uint32)
            got = [f"{bits:08x}" for bits in normal_from_words(backend, words).view(np.uint32)]
        elif kind == "labels":
            seed, start, n, classes = map(int, arguments)
            got = [str(label) for label in noise.labels(seed, n, classes, start=start)]
        elif kind in ("lerp", "slerp"):
            a, b = noise.normal(int(arguments[0]), 2, int(arguments[1]))
            between = getattr(noise, kind)(a, b, [float(t) for t in arguments[2:]])
            got = [f"{bits:08x}" for bits in between.view(np.uint32).flat]
        else:
            seed, purpose = map(int, arguments)
            got = [f"{noise.derive_seed(seed, purpose):016x}"]
        assert got == answer, line[:100]
    assert kinds == {"words", "normal", "normal_from_words", "labels", "derive_seed", "lerp", "slerp"}


def test_words_follow_the_counter_layout(backend):
    calls = [(7, 0, 0, 3, 9), (TOP, 2**32 - 2, 17, 4, 5), (2**32, TOP - 1, 1, 2, 1)]
    for seed, start, stream, n, dim in calls:
        got = noise.words(seed, n, dim, start=start, stream=stream)
        assert got.dtype == np.uint32
        want = [[scalar_word(seed, start + r, stream, j) for j in range(dim)] for r in range(n)]
        assert got.tolist() == want


def test_long_rows_and_many_rows(backend):
    """Sizes beyond the blocks in which either backend works."""
    row = noise.words(3, 1, 300_001, start=5)[0]
    for j in (0, 511, 512, 513, 131_071, 131_072, 262_144, 300_000):
        assert row[j] == scalar_word(3, 5, 0, j)
    column = noise.words(3, 70_001, 2, start=2**32 - 35_000)
    for r in (0, 32_767, 32_768, 34_999, 35_000, 65_536, 70_000):
        assert column[r].tolist() == [scalar_word(3, 2**32 - 35_000 + r, 0, j) for j in range(2)]


def test_derived_seeds_are_training_words(backend):
    for seed, purpose in [(0, 0), (5, 1), (TOP, 12345), (1, 2**31 - 1)]:
        low, high = (scalar_word(seed, 0, noise.STREAM_TRAINING, 2 * purpose + k) for k in (0, 1))
        assert noise.derive_seed(seed, purpose) == high << 32 | low
    assert len({noise.derive_seed(seed, purpose) for seed in range(8) for purpose in range(8)}) == 64


# C against NumPy


def test_numpy_reads_the_table_that_c_compiles():
    header = Path(__file__).parents[1] / "edgegan" / "core" / "normal_table.h"
    rows = re.findall(r"\{(-?0x.*)\}", header.read_text(encoding="ascii"))
    table = [[float.fromhex(c.strip().removesuffix("f")) for c in row.split(",")] for row in rows]
    assert _pure._TABLE.shape == (512, 4)
    assert _pure._TABLE.dtype == np.float32
    assert np.array_equal(np.array(table), _pure._TABLE)  # float64 against float32: the header is exact
    # The numbers themselves are part of the contract.
    digest = hashlib.sha256(_pure._TABLE.astype("<f4").tobytes()).hexdigest()
    assert digest == "f3bdf7faa9c57756a8ba7ff1d998dcf4994c30bb5eb36b969e6a517dd2c6e5a8"


@needs_c
@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, TOP),
    start=st.integers(0, TOP - 10) | st.integers(2**32 - 10, 2**32 + 10),
    n=st.integers(0, 10),
    dim=st.integers(1, 40) | st.integers(500, 530),
    stream=st.integers(0, 2**32 - 1),
    truncation=st.just(math.inf) | st.floats(0.001, 8),
    classes=st.integers(1, 2**31),
    purpose=st.integers(0, 2**31 - 1),
)
def test_c_is_numpy_to_the_bit(seed, start, n, dim, stream, truncation, classes, purpose):
    answers = []
    for module in BACKENDS:
        words, normals = np.empty((n, dim), np.uint32), np.empty((n, dim), np.float32)
        labels = np.empty(n, np.int64)
        module.words(seed, start, n, dim, stream, words)
        module.normal(seed, start, n, dim, stream, truncation, normals)
        module.labels(seed, start, n, classes, labels)
        derived = np.uint64(module.derive_seed(seed, purpose))
        answers.append([words, normals.view(np.uint32), labels, derived])
    assert all(np.array_equal(a, b) for a, b in zip(*answers, strict=True))


@needs_c
def test_c_is_numpy_on_many_words():
    words = np.concatenate([EDGES, np.random.default_rng(0).integers(0, 2**32, 2**20, np.uint32)])
    c, numpy = (normal_from_words(module, words).view(np.uint32) for module in BACKENDS)
    assert np.array_equal(c, numpy)


@needs_c
def test_the_c_core_refuses_buffers_of_another_size():
    core = _backend.core
    for n, dim, items in [(2, 3, 5), (2, 3, 7), (0, 1, 1)]:
        with pytest.raises(ValueError, match="buffer's size"):
            core.words(0, 0, n, dim, 0, np.empty(items, np.uint32))
    for n, dim, items in [(2**62, 4, 0), (2**63, 2, 4)]:
        with pytest.raises(OverflowError, match="multiply"):
            core.words(0, 0, n, dim, 0, np.empty(items, np.uint32))
    with pytest.raises(ValueError, match="buffer's size"):
        core.words(0, 0, 1, 1, 0, np.empty(5, np.uint8))
    with pytest.raises(ValueError, match="range"):
        core.normal(0, 0, 1, 1, 0, math.nan, np.empty(1, np.float32))
    frozen = np.empty(4, np.uint32)
    frozen.flags.writeable = False
    for out in (frozen, np.empty(8, np.uint32)[::2]):
        with pytest.raises((BufferError, TypeError, ValueError)):
            core.words(0, 0, 1, 4, 0, out)


def test_numpy_can_be_chosen_by_the_environment():
    code = "from edgegan import _backend, noise; print(_backend.NAME, noise.normal(7, 2, 3).view('u4').tolist())"
    answers = {}
    for chosen in ("0", "1"):
        environment = {**os.environ, "EDGEGAN_PUREPYTHON": chosen}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        answers[chosen] = run.stdout.split(maxsplit=1)
    assert answers["1"][0] == "python"
    assert answers["0"][1] == answers["1"][1] == f"{noise.normal(7, 2, 3).view('u4').tolist()}\n"


# What a picture may rely on


def test_an_image_depends_only_on_its_index(backend):
    for draw in (
        lambda n, start: noise.normal(11, n, 7, start=start),
        lambda n, start: noise.normal(11, n, 7, start=start, truncation=0.7),
        lambda n, start: noise.labels(11, n, 10, start=start),
    ):
        whole = draw(20, 2**32 - 10)
        cuts = [0, 1, 4, 9, 10, 11, 20]
        parts = [draw(b - a, 2**32 - 10 + a) for a, b in pairwise(cuts)]
        assert np.array_equal(whole, np.concatenate(parts))
    assert np.array_equal(noise.normal(11, 3, 4), noise.normal(11, 3, 7)[:, :4])  # nor on the later elements


def test_seeds_streams_and_images_differ(backend):
    draws = [
        noise.words(seed, 1, 64, start=start, stream=stream)
        for seed in (0, 1, 2**32, TOP)
        for start in (0, 1, 2**32, TOP)
        for stream in STREAMS
    ]
    assert len(np.unique(np.concatenate(draws))) == len(draws) * 64  # a chance repeat has p = 0.002


def test_shapes_and_types(backend):
    assert noise.words(0, 0, 3).shape == noise.normal(0, 0, 3).shape == (0, 3)
    assert noise.labels(0, 0, 3).shape == (0,)
    assert noise.normal(0, 2, 3).dtype == np.float32
    assert noise.labels(0, 2, 3).dtype == np.int64
    integers = noise.normal(np.uint64(TOP), np.int32(2), np.int64(3), start=np.uint8(4))
    assert np.array_equal(integers, noise.normal(TOP, 2, 3, start=4))
    assert noise.words(0, 1, 1, start=TOP).shape == (1, 1)


# The inverse CDF


def test_accuracy_against_scipy(backend):
    words = np.concatenate([EDGES, np.random.default_rng(1).integers(0, 2**32, 2**20, np.uint32)])
    assert np.abs(normal_from_words(backend, words) - quantile(words)).max() < 1e-6


def test_symmetry_sign_and_order(backend):
    words = np.sort(np.concatenate([EDGES, np.random.default_rng(2).integers(0, 2**32, 2**18, np.uint32)]))
    z = normal_from_words(backend, words)
    assert np.array_equal(normal_from_words(backend, ~words), -z)
    assert np.all((z > 0) == (words >= 2**31))
    assert np.all(z != 0)
    assert np.all(np.diff(z) >= 0)
    assert 6.33 < z.max() < 6.34


def test_the_distribution_is_normal(backend):
    z = noise.normal(7, 1000, 512).ravel().astype(np.float64)
    n = len(z)
    assert stats.kstest(z, "norm").pvalue > 1e-4
    # The standard errors of the first four moments of n normals; 5 of them is beyond chance.
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs((z**2).mean() - 1) < 5 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / n)
    rows = z.reshape(1000, 512)
    seeds = np.concatenate([noise.normal(seed, 1, 512) for seed in range(1000)]).astype(np.float64)
    for a, b in [
        (rows[:, :-1], rows[:, 1:]),  # neighbours in an image,
        (rows[:, :-4], rows[:, 4:]),  # in the next block of it,
        (rows[:-1], rows[1:]),  # of one index and the next,
        (seeds[:-1], seeds[1:]),  # of one seed and the next
    ]:
        assert abs((a * b).mean()) < 5 / math.sqrt(a.size)
        assert abs(((a**2 - 1) * (b**2 - 1)).mean()) < 5 * 2 / math.sqrt(a.size)  # sizes as little as signs


@pytest.mark.parametrize("bound", [0.001, 0.5, 0.7, 1.0, 2.0, 4.0, 6.0])
def test_truncation(backend, bound):
    z = noise.normal(7, 400, 512, truncation=bound).ravel()
    limit = np.float32(bound)
    assert np.abs(z).max() <= limit
    assert np.abs(z).max() > 0.95 * limit or bound > 3
    order = np.argsort(noise.words(7, 400, 512).ravel())
    assert np.all(np.diff(z[order]) >= 0)  # monotone in the word, as the untruncated normal is
    assert stats.kstest(z.astype(np.float64), stats.truncnorm(-limit, limit).cdf).pvalue > 1e-4


@pytest.mark.parametrize("bound", [0.001, 0.7, 2.0, 6.0])
def test_truncation_reaches_its_bound_and_no_further(backend, bound):
    low = _pure._truncation_word(bound)
    before, first = normal_from_words(backend, np.array([low - 1, low], np.uint32))
    assert before < -np.float32(bound) <= first
    words = np.array([0, 1, 2**32 - 1], np.uint64)
    mapped = (low + ((words * np.uint64(2**32 - 2 * low)) >> np.uint64(32))).astype(np.uint32)
    assert mapped[0] == low
    assert mapped[2] == ~np.uint32(low)


def test_wide_truncation_changes_nothing(backend):
    full = noise.normal(7, 64, 64)
    for bound in (6.41, 6.5, 8, 1e30, 1e300, math.inf, 10**400, np.float32(7), None):
        assert np.array_equal(noise.normal(7, 64, 64, truncation=bound), full)
    assert not np.array_equal(noise.normal(7, 64, 64, truncation=2.0), full)


def test_truncation_is_rounded_to_float32(backend):
    for bound in (0.7, 1 / 3):
        want = noise.normal(1, 8, 64, truncation=float(np.float32(bound)))
        assert np.array_equal(noise.normal(1, 8, 64, truncation=bound), want)


# Labels


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 1000])
def test_labels_are_uniform(backend, classes):
    counts = np.bincount(noise.labels(7, 100_000, classes), minlength=classes)
    assert len(counts) == classes
    if classes > 1:
        assert stats.chisquare(counts).pvalue > 1e-4


def test_labels_are_scaled_words_of_their_own_stream(backend):
    words = noise.words(9, 1000, 1, start=5, stream=noise.STREAM_LABEL)[:, 0]
    for classes in (1, 7, 2**31):
        want = [int(word) * classes >> 32 for word in words]
        assert noise.labels(9, 1000, classes, start=5).tolist() == want


# Between latents


def exact_slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    x, y = a.astype(np.float64), b.astype(np.float64)
    angle = math.acos(x @ y / math.sqrt(x @ x) / math.sqrt(y @ y))
    return (math.sin((1 - t) * angle) * x + math.sin(t * angle) * y) / math.sin(angle)


@pytest.mark.parametrize("dim", [2, 3, 16, 100, 512])
def test_slerp_and_lerp_are_what_their_names_say(backend, dim):
    for seed in range(20):
        a, b = noise.normal(seed, 2, dim)
        if seed % 3 == 1:  # nearly opposite, then nearly equal
            b = -a + np.float32(1e-3) * b
        elif seed % 3 == 2:
            b = a + np.float32(1e-3) * b
        t = [0.1, 0.25, 0.5, 0.9]
        scale = max(np.abs(a).max(), np.abs(b).max())
        for place, arc, line in zip(t, noise.slerp(a, b, t), noise.lerp(a, b, t), strict=True):
            exact = exact_slerp(a, b, place)
            # Opposite directions: the sine in the denominator is small and magnifies the rounding of a and b.
            assert np.abs(arc - exact).max() < (2e-3 if seed % 3 == 1 else 1e-6) * scale
            assert np.abs(line - ((1 - place) * a.astype(float) + place * b)).max() < 1e-6 * scale


def test_slerp_keeps_the_length_that_lerp_loses(backend):
    a, b = noise.normal(3, 2, 512)
    length = np.linalg.norm
    assert abs(length(noise.slerp(a, b, 0.5)) / length(a) - 1) < 0.05
    assert length(noise.lerp(a, b, 0.5)) / length(a) < 0.8


def test_interpolation_ends_exactly(backend):
    a, b = noise.normal(5, 2, 33)
    for between in (noise.lerp, noise.slerp):
        assert np.array_equal(between(a, b, [0, 1]), [a, b])
        assert np.array_equal(between(a, b, 0.3), between(a, b, [0.2, 0.3])[1])  # a place alone: [dim]
        assert between(a, b, []).shape == (0, 33)
        assert between(a, b, 0.3).dtype == np.float32
        assert np.array_equal(between(a.astype(">f4"), b[::-1].copy()[::-1], 0.3), between(a, b, 0.3))


def test_slerp_without_an_arc_is_lerp(backend):
    a = noise.normal(5, 1, 8)[0]
    for b in (a, -a, 2 * a, 0 * a):
        assert np.array_equal(noise.slerp(a, b, [0.2, 0.5]), noise.lerp(a, b, [0.2, 0.5]))
    assert np.array_equal(noise.slerp(0 * a, a, 0.5), noise.lerp(0 * a, a, 0.5))


@needs_c
@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, TOP),
    dim=st.integers(1, 70) | st.integers(500, 530),
    closeness=st.floats(-1, 1),
    t=st.lists(st.floats(0, 1), max_size=4),
)
def test_interpolation_in_c_is_numpy_to_the_bit(seed, dim, closeness, t):
    a, b = noise.normal(seed, 2, dim)
    b = (np.float32(closeness) * a + np.float32(1 - abs(closeness)) * b).astype(np.float32)
    places = np.array(t, np.float64)
    for name in ("lerp", "slerp"):
        answers = [np.empty((len(t), dim), np.float32) for _ in BACKENDS]
        for module, answer in zip(BACKENDS, answers, strict=True):
            getattr(module, name)(a, b, places, answer)
        assert np.array_equal(answers[0].view(np.uint32), answers[1].view(np.uint32))


@pytest.mark.parametrize(
    ("a", "b", "t", "message"),
    [
        ([1, 2], [1, 2, 3], 0.5, r"shapes \[2\] and \[3\]; valid: two of \[dim\]"),
        ([[1, 2]], [[1, 2]], 0.5, "valid: two of"),
        ([], [], 0.5, "valid: two of"),
        ([1, math.inf], [1, 2], 0.5, "infinities or NaN"),
        ([1, 2], [2, math.nan], 0.5, "infinities or NaN"),
        ([1, 2], [2, 1], 1.5, "t is 1.5; valid: numbers from 0 to 1"),
        ([1, 2], [2, 1], [0.5, math.nan], "t is"),
        ([1, 2], [2, 1], [[0.5]], "t is"),
        ([1, 2], [2, 1], "x", "t is 'x'"),
        ([1, 2], [2, 1], [0.5, [1]], "t is"),
        ([1e300, 2], [2, 1], 0.5, "infinities or NaN"),
    ],
)
def test_what_cannot_be_interpolated(a, b, t, message):
    for between in (noise.lerp, noise.slerp):
        with pytest.raises(ArgumentError, match=message):
            between(np.array(a), np.array(b), t)


# Errors


def test_sizes_beyond_memory_are_overflow_errors():
    for n, dim in [(2**61, 1), (2**32, 2**33), (2**62, 4)]:
        with pytest.raises(SizeError):
            noise.normal(0, n, dim)
    assert issubclass(SizeError, OverflowError)
    assert issubclass(SizeError, ArgumentError)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise.normal(-1, 1, 1), "seed is -1: give an integer from 0 to 18446744073709551615"),
        (lambda: noise.normal(2**64, 1, 1), "seed is 18446744073709551616"),
        (lambda: noise.normal(0.5, 1, 1), "seed is 0.5"),
        (lambda: noise.normal("7", 1, 1), "seed is '7'"),
        (lambda: noise.normal(True, 1, 1), "seed is True"),
        (lambda: noise.normal(0, -1, 1), "n is -1"),
        (lambda: noise.normal(0, 2, 1, start=TOP), "n is 2: give an integer from 0 to 1"),
        (lambda: noise.normal(0, 1, 1, start=-1), "start is -1"),
        (lambda: noise.normal(0, 1, 1, start=2**64), "start is"),
        (lambda: noise.normal(0, 1, 0), "dim is 0: give an integer from 1 to 17179869183"),
        (lambda: noise.normal(0, 1, 2**34), "dim is 17179869184"),
        (lambda: noise.words(0, 2**32, 2**33), "n is 4294967296 and dim is 8589934592"),
        (lambda: noise.words(0, 1, 1, stream=-1), "stream is -1"),
        (lambda: noise.words(0, 1, 1, stream=2**32), "stream is"),
        (lambda: noise.normal(0, 1, 1, truncation=0), "truncation is 0: give a number >= 0.001, or None"),
        (lambda: noise.normal(0, 1, 1, truncation=-1.0), "truncation is -1.0"),
        (lambda: noise.normal(0, 1, 1, truncation=0.0009), "truncation is 0.0009"),
        (lambda: noise.normal(0, 1, 1, truncation=math.nan), "truncation is nan"),
        (lambda: noise.normal(0, 1, 1, truncation="1"), "truncation is '1'"),
        (lambda: noise.labels(0, 1, 0), "classes is 0: give an integer from 1 to 2147483648"),
        (lambda: noise.labels(0, 1, 2**31 + 1), "classes is 2147483649"),
        (lambda: noise.labels(0, 2**61, 2), "n is"),
        (lambda: noise.labels(0, 2, 2, start=TOP), "n is 2"),
        (lambda: noise.derive_seed(-1, 0), "seed is -1"),
        (lambda: noise.derive_seed(0, -1), "purpose is -1: give an integer from 0 to 2147483647"),
        (lambda: noise.derive_seed(0, 2**31), "purpose is 2147483648"),
    ],
)
def test_argument_errors_name_what_is_valid(call, message):
    with pytest.raises(ArgumentError, match=re.escape(message)) as caught:
        call()
    assert isinstance(caught.value, EdgeGANError)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


# All 2^32 words


def blocks(stop: int, size: int = 1 << 22) -> Iterator[np.ndarray]:
    return (np.arange(first, first + size, dtype=np.uint32) for first in range(0, stop, size))


@pytest.mark.slow
@needs_c
def test_every_word_is_in_order_and_has_its_mirror():
    last = np.float32(-math.inf)
    for words in blocks(1 << 32):
        z = normal_from_words(_backend.core, words)
        assert z[0] >= last
        assert np.all(z[1:] >= z[:-1])
        last = z[-1]
        if words[0] < 1 << 31:
            assert z[-1] < 0
            assert np.array_equal(normal_from_words(_backend.core, ~words), -z)


@pytest.mark.slow
@needs_c
def test_every_word_is_accurate():
    """The other half of the words is the mirror of this one, as the test above shows."""
    worst = 0.0
    for words in blocks(1 << 31):
        worst = max(worst, np.abs(normal_from_words(_backend.core, words) - quantile(words)).max())
    assert worst < 5e-7  # half a step of float32 at 4 .. 8 for c0, and as much for the sum


@pytest.mark.slow
@needs_c
def test_every_word_is_the_same_in_c_and_numpy():
    for words in blocks(1 << 31, 1 << 18):
        c, numpy = (normal_from_words(module, words) for module in BACKENDS)
        assert np.array_equal(c.view(np.uint32), numpy.view(np.uint32))
