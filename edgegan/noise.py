"""The noise contract: image i of a seed is a pure function of (seed, i), with the same bits everywhere.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) gives 32-bit words:
words 4q .. 4q+3 of image `index` are its output for the counter (q, stream, index low half, index high half)
and the key (seed low half, seed high half). A word u becomes the normal at the probability (u + 1/2) / 2^32.
So a picture depends neither on its batch or shard, nor on the processor, nor on whether C or NumPy drew its
noise. A change of any of these bits is a breaking change.

Every function takes `start`, the index of its first image: f(seed, n, ..., start=s) is rows s .. s+n-1 of
f(seed, s+n, ...). All raise ArgumentError, a ValueError, on an argument out of range.
"""

import importlib
import math
import operator
import os
import sys
from numbers import Real
from types import ModuleType
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import ArgumentError, BackendError

STREAM_LATENT = 0
STREAM_LABEL = 1
STREAM_TRAINING = 2
STREAM_NOISE_INPUT = 16  # + k for the model's input noise_k


def _load_backend() -> tuple[ModuleType, str]:
    """The C core, unless NumPy was chosen: now, by the variable, or when installing, by not building it."""
    if os.environ.get("EDGEGAN_PUREPYTHON") != "1":
        try:
            return importlib.import_module("edgegan.core._core"), "c"
        except ModuleNotFoundError:
            pass  # an install without a C compiler fails unless NumPy was chosen, so this is by choice
        except ImportError as error:
            raise BackendError(
                f"edgegan's C core does not load ({error}): reinstall edgegan for this Python and processor, "
                "or set EDGEGAN_PUREPYTHON=1 to use NumPy, which is slower and gives the same numbers"
            ) from error
    return importlib.import_module("edgegan._pure"), "python"


_backend, BACKEND = _load_backend()  # BACKEND is "c" or "python"


def words(seed: int, n: int, dim: int, *, start: int = 0, stream: int = STREAM_LATENT) -> NDArray[np.uint32]:
    """Raw words: uint32 [n, dim], uniform over 0 .. 2^32 - 1.

    seed: 0 .. 2^64 - 1. start: 0 <= start, start + n <= 2^64. dim: 1 .. 2^34 - 1. stream: 0 .. 2^32 - 1.
    """
    seed, start, n, dim, stream = _check(seed, start, n, dim, stream)
    out = np.empty((n, dim), np.uint32)
    _backend.words(seed, start, n, dim, stream, out)
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
    _backend.normal(seed, start, n, dim, stream, bound, out)
    return out


def labels(seed: int, n: int, classes: int, *, start: int = 0) -> NDArray[np.int64]:
    """Labels: int64 [n], uniform over 0 .. classes - 1, from a stream of their own. classes: 1 .. 2^31."""
    seed, start, n, _, _ = _check(seed, start, n, 2, STREAM_LABEL)  # an int64 is as large as two words
    classes = _integer("classes", classes, 1, 1 << 31)
    out = np.empty(n, np.int64)
    _backend.labels(seed, start, n, classes, out)
    return out


def derive_seed(seed: int, purpose: int) -> int:
    """A seed in 0 .. 2^64 - 1 for one kind of a run's randomness, so that kinds do not share words.

    Its halves are words 2 * purpose (low) and 2 * purpose + 1 (high) of image 0 of the training stream.
    purpose: 0 .. 2^31 - 1.
    """
    seed = _integer("seed", seed, 0, (1 << 64) - 1)
    purpose = _integer("purpose", purpose, 0, (1 << 31) - 1)
    derived: int = _backend.derive_seed(seed, purpose)
    return derived


def _integer(name: str, value: SupportsIndex, low: int, high: int) -> int:
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
    n = _integer("n", n, 0, min((1 << 64) - start, sys.maxsize // 4 // dim))
    return seed, start, n, dim, stream


def _check_truncation(truncation: float) -> float:
    if not isinstance(truncation, Real) or isinstance(truncation, bool) or not truncation >= 0.001:
        raise ArgumentError(f"truncation is {truncation!r}: give a number >= 0.001, or None for no bound")
    return float(min(truncation, 8.0))  # as good as any larger, and a float32 can hold it
