"""The noise contract: image i of a seed is a pure function of (seed, i), with the same bits everywhere.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) gives 32-bit words:
words 4q .. 4q+3 of image `index` are its output for the counter (q, stream, index low half, index high half)
and the key (seed low half, seed high half). A word u becomes the normal at the probability (u + 1/2) / 2^32.
So a picture depends neither on its batch or shard, nor on the processor, nor on whether C or NumPy drew its
noise. A change of any of these bits is a breaking change.

Every function takes `start`, the index of its first image: f(seed, n, ..., start=s) is rows s .. s+n-1 of
f(seed, s+n, ...). All raise ArgumentError, a ValueError, on an argument out of range.
"""

import math
import operator
import sys
from collections.abc import Callable, Sequence
from numbers import Real
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from edgegan import _backend
from edgegan.errors import ArgumentError, SizeError

STREAM_LATENT = 0
STREAM_LABEL = 1
STREAM_TRAINING = 2
STREAM_SOURCE = 3  # pictures to be translated, of which a model file is proved: see leaves.py
STREAM_NOISE_INPUT = 16  # + k for the model's input noise_k


def words(seed: int, n: int, dim: int, *, start: int = 0, stream: int = STREAM_LATENT) -> NDArray[np.uint32]:
    """Raw words: uint32 [n, dim], uniform over 0 .. 2^32 - 1.

    seed: 0 .. 2^64 - 1. start: 0 <= start, start + n <= 2^64. dim: 1 .. 2^34 - 1. stream: 0 .. 2^32 - 1.
    """
    seed, start, n, dim, stream = _check(seed, start, n, dim, stream)
    out = np.empty((n, dim), np.uint32)
    _backend.core.words(seed, start, n, dim, stream, out)
    return out


def normal(
    seed: int,
    n: int,
    dim: int,
    *,
    start: int = 0,
    stream: int = STREAM_LATENT,
    truncation: float | None = None,
) -> NDArray[np.float32]:
    """Normals: float32 [n, dim], N(0, 1), or N(0, 1) given |z| <= truncation. Ranges as for `words`.

    Each is the inverse CDF of one word, within 1e-6 of exact; none exceeds 6.34. truncation: at least 0.001,
    rounded to float32; the bound holds exactly, and above 6.4 it changes nothing. Truncated normals come of
    the same words, mapped monotonically: a seed keeps its picture, drawn towards the mean.
    """
    seed, start, n, dim, stream = _check(seed, start, n, dim, stream)
    bound = math.inf if truncation is None else _check_truncation(truncation)
    out = np.empty((n, dim), np.float32)
    _backend.core.normal(seed, start, n, dim, stream, bound, out)
    return out


def labels(seed: int, n: int, classes: int, *, start: int = 0) -> NDArray[np.int64]:
    """Labels: int64 [n], uniform over 0 .. classes - 1, from a stream of their own. classes: 1 .. 2^31."""
    seed = _integer("seed", seed, 0, (1 << 64) - 1)
    start = _integer("start", start, 0, (1 << 64) - 1)
    n = _integer("n", n, 0, min((1 << 64) - start, sys.maxsize // 8))
    classes = _integer("classes", classes, 1, 1 << 31)
    out = np.empty(n, np.int64)
    _backend.core.labels(seed, start, n, classes, out)
    return out


def derive_seed(seed: int, purpose: int) -> int:
    """A seed in 0 .. 2^64 - 1 for one kind of a run's randomness, so that kinds do not share words.

    Its halves are words 2 * purpose (low) and 2 * purpose + 1 (high) of image 0 of the training stream.
    purpose: 0 .. 2^31 - 1.
    """
    seed = _integer("seed", seed, 0, (1 << 64) - 1)
    purpose = _integer("purpose", purpose, 0, (1 << 31) - 1)
    derived: int = _backend.core.derive_seed(seed, purpose)
    return derived


def lerp(a: NDArray[np.float32], b: NDArray[np.float32], t: float | Sequence[float]) -> NDArray[np.float32]:
    """On the straight line between latents a and b, each [dim]: [dim], or [k, dim] for k values of t.

    t: 0 (a) to 1 (b). Half way between two normals lies a shorter vector than generators are used to: prefer
    `slerp`. Raises ArgumentError.
    """
    return _interpolate(_backend.core.lerp, a, b, t)


def slerp(a: NDArray[np.float32], b: NDArray[np.float32], t: float | Sequence[float]) -> NDArray[np.float32]:
    """On the arc between latents a and b, each [dim]: [dim], or [k, dim] for k values of t.

    t: 0 (a) to 1 (b), exactly a and b at these ends. Spherical interpolation (Shoemake, "Animating rotation with
    quaternion curves", 1985; White, "Sampling generative networks", 2016) keeps the length that normals have. Where no
    arc is defined (a zero vector, or directions within 1e-6 of equal or opposite) it is `lerp`. The same bits in C
    and NumPy. Raises ArgumentError.
    """
    return _interpolate(_backend.core.slerp, a, b, t)


def _interpolate(
    between: Callable[..., None], a: NDArray[np.float32], b: NDArray[np.float32], t: float | Sequence[float]
) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        ends = [np.ascontiguousarray(end, np.float32) for end in (a, b)]
    if ends[0].ndim != 1 or ends[0].shape != ends[1].shape or not ends[0].size:
        shapes = " and ".join(str(list(end.shape)) for end in ends)
        raise ArgumentError(f"the latents have shapes {shapes}; valid: two of [dim]")
    if not np.isfinite(ends).all():
        raise ArgumentError("a latent holds infinities or NaN; valid: finite numbers")
    try:
        places = np.array(t, np.float64)
    except (TypeError, ValueError):
        places = np.array(np.nan)
    if places.ndim > 1 or not np.all((places >= 0) & (places <= 1)):
        raise ArgumentError(f"t is {t!r}; valid: numbers from 0 to 1")
    flat = np.atleast_1d(places)
    out = np.empty((len(flat), len(ends[0])), np.float32)
    between(ends[0], ends[1], flat, out)
    return out if places.ndim else out[0]


def _integer(name: str, value: SupportsIndex, low: int, high: int) -> int:
    if type(value) is int and low <= value <= high:
        return value  # quickly: for a few latents, the checks are most of the work
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        raise ArgumentError(f"{name} is {value!r}: give an integer from {low} to {high}")
    return number


def _check(seed: int, start: int, n: int, dim: int, stream: int) -> tuple[int, int, int, int, int]:
    """The arguments as Python integers, in range, and [n, dim] of 4-byte items within the address space."""
    seed = _integer("seed", seed, 0, (1 << 64) - 1)
    start = _integer("start", start, 0, (1 << 64) - 1)
    dim = _integer("dim", dim, 1, (1 << 34) - 1)
    stream = _integer("stream", stream, 0, (1 << 32) - 1)
    n = _integer("n", n, 0, (1 << 64) - start)
    if n * dim > sys.maxsize // 4:
        raise SizeError(f"n is {n} and dim is {dim}: valid is a product of at most {sys.maxsize // 4}")
    return seed, start, n, dim, stream


def _check_truncation(truncation: float) -> float:
    if not isinstance(truncation, Real) or isinstance(truncation, bool) or not truncation >= 0.001:
        raise ArgumentError(f"truncation is {truncation!r}: give a number >= 0.001, or None for no bound")
    return float(min(truncation, 8.0))  # as good as any larger, and a float32 can hold it
