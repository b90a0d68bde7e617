"""Fidelity and variety, each by itself, and copies of training pictures: nearest neighbours in a network's features.

Precision and recall: Kynkäänniemi, Karras, Laine, Lehtinen, Aila 2019, "Improved Precision and Recall Metric for
Assessing Generative Models". Density and coverage: Naeem, Oh, Uh, Choi, Yoo 2020, "Reliable Fidelity and Diversity
Metrics for Generative Models". All four ask which samples lie within the ball around another that reaches to its k-th
nearest neighbour in its own set; on a ball's surface is outside, as in the code of the latter (PyPI's prdc), which the
tests compare. Authenticity: Alaa, van Breugel, Saveliev, van der Schaar 2022, "How Faithful is your Synthetic Data?".

Products of matrices in float32 settle almost all comparisons. The few pairs that their rounding, for which there is a
bound, might decide are compared in float64 by their differences. So equal features are at distance 0, ties are ties,
and the results are those of float64, at any block size. No table of all distances is kept.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import ArgumentError

Real = NDArray[np.floating]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
_BLOCK = 2**21  # distances worked on together, and numbers of the exact ones: a few arrays of some 10 MB
_EPS = float(np.finfo(np.float32).eps)


class Manifold(NamedTuple):
    precision: float  # share of drawn samples within the ball of some real one: fidelity, 0 to 1
    recall: float  # share of real samples within the ball of some drawn one: variety, 0 to 1
    density: float  # balls of real samples a drawn one is in, over k: fidelity; about 1 for sets of one origin, or more
    coverage: float  # share of real samples with a drawn one in their ball: variety, 0 to 1


class Nearest(NamedTuple):
    indices: I64  # [n, count], in the set that was searched, the nearest first; of equally near ones the first first
    distances: F64  # [n, count], Euclidean


def manifold(drawn: Real, real: Real, k: int = 5) -> Manifold:
    """Precision, recall, density and coverage of drawn features [n, d] against real ones [m, d].

    All depend on n, m and k: compare those of equal ones. k: 1 to the smaller of n and m, less 1; 3 in the paper of
    precision and recall, 5 in that of density and coverage. Raises ArgumentError for other values, shapes that differ,
    NaN or infinity.
    """
    check_features(2, drawn=drawn, real=real)
    _check_count("k", k, min(len(drawn), len(real)) - 1)
    y, x, _ = _scaled(drawn, real)
    real_radii, drawn_radii = (_search(_Pairs(s, s), k, own=np.arange(len(s))).distances[:, -1] for s in (x, y))
    inside = 0
    precise, recalled, covered = np.zeros(len(y), bool), np.zeros(len(x), bool), np.zeros(len(x), bool)
    pairs = _Pairs(x, y)
    for rows, rough, slack in pairs.blocks():
        in_real = pairs.below(rows, rough, slack, real_radii[rows, None])
        inside += int(np.count_nonzero(in_real))
        covered[rows] = in_real.any(axis=1)
        precise |= in_real.any(axis=0)
        recalled[rows] = pairs.below(rows, rough, slack, drawn_radii[None]).any(axis=1)
    density = inside / (k * len(y))
    return Manifold(float(precise.mean()), float(recalled.mean()), density, float(covered.mean()))


def nearest(drawn: Real, real: Real, count: int = 1) -> Nearest:
    """The `count` nearest of the real features [m, d] to each of the drawn ones [n, d].

    count: 1 to m. Raises ArgumentError for other values, shapes that differ, NaN or infinity.
    """
    check_features(1, drawn=drawn, real=real)
    _check_count("count", count, len(real))
    x, y, scale = _scaled(drawn, real)
    indices, squares = _search(_Pairs(x, y), count)
    return Nearest(indices, np.sqrt(squares) * scale)


def authenticity(drawn: Real, training: Real) -> float:
    """Share of drawn features [n, d] that are no near copies of training features [m, d]: 0 (all are) to 1.

    A drawn sample counts as a copy if it is at least as near to its nearest training sample as that one is to any other
    training sample. Some pictures that were never seen count as copies, too: real test digits are at 0.66 in lenet's
    features, so compare with that of real test pictures. Pictures unlike any real one are authentic. Raises
    ArgumentError as `manifold`; m must be 2 or more.
    """
    check_features(2, training=training)
    check_features(1, drawn=drawn, training=training)
    x, y, _ = _scaled(drawn, training)
    found = _search(_Pairs(x, y), 1)
    hit, place = np.unique(found.indices[:, 0], return_inverse=True)
    gaps = _search(_Pairs(y[hit], y), 1, own=hit).distances[:, 0]
    return float((found.distances[:, 0] > gaps[place]).mean())


def check_features(least: int, **sets: NDArray[Any]) -> None:
    """Raises ArgumentError unless all are finite numbers [n, d] of one d, with n of at least `least`."""
    for name, x in sets.items():
        if x.ndim != 2 or x.dtype.kind not in "fiu" or x.size == 0 or len(x) < least:
            raise ArgumentError(f"{name} features are {x.dtype} {list(x.shape)}; valid: numbers [n, d], n >= {least}")
        if not np.isfinite(x).all():
            raise ArgumentError(
                f"{name} features hold NaN or infinity; valid: finite numbers: see what the network is fed"
            )
    if len({x.shape[1] for x in sets.values()}) > 1:
        told = " and ".join(f"{x.shape[1]} ({name})" for name, x in sets.items())
        raise ArgumentError(f"features have {told} dimensions; valid: those of one network for both")


def _check_count(name: str, value: int, most: int) -> None:
    if type(value) is not int or not 1 <= value <= most:
        raise ArgumentError(f"{name} is {value!r}; valid: 1 to {most}, as many as there are other samples")


def _scaled(a: Real, b: Real) -> tuple[F64, F64, float]:
    """Both in float64, divided by a power of two so that they lie in [-1, 1] and no square overflows; that power."""
    scale = 2.0 ** int(np.frexp(max(float(np.abs(x).max()) for x in (a, b)))[1])
    return a.astype(np.float64) / scale, b.astype(np.float64) / scale, scale


class _Pairs:
    """Squared distances of each of a [n, d] to each of b [m, d]."""

    def __init__(self, a: F64, b: F64) -> None:
        self._a, self._b = a, b
        centre = b.mean(axis=0)  # the smaller the numbers, the less is lost by the products
        self._x, self._y = ((f - centre).astype(np.float32) for f in (a, b))
        self._xx, self._yy = (np.square(f, dtype=np.float64).sum(axis=1).astype(np.float32) for f in (self._x, self._y))

    def blocks(self) -> Iterator[tuple[slice, F32, F32]]:
        """Rows of a, their squared distances [rows, m] to b, and how far these may be off."""
        dim = self._x.shape[1]
        step = max(1, _BLOCK // len(self._b))
        for start in range(0, len(self._a), step):
            rows = slice(start, start + step)
            slack = self._xx[rows, None] + self._yy
            rough = slack - 2 * (self._x[rows] @ self._y.T)
            # A sum of d rounded products is off by d eps / 2 of |x||y| <= (xx + yy) / 2 at most, and counts twice. Take
            # that double, with 16 for the roundings of the coordinates, the norms, the sums and the limits compared
            # with, and what centring loses of numbers up to 1 in float64, where these lie close together.
            slack *= (dim + 16) * _EPS
            slack += dim * 2.0**-78
            yield rows, rough, slack

    def exact(self, i: I64, j: I64) -> F64:
        """Squared distances of the pairs (i, j): [len(i)], the same bits for (j, i)."""
        step = max(1, _BLOCK // self._a.shape[1])
        parts = [slice(start, start + step) for start in range(0, len(i), step)]
        found = [np.square(self._a[i[part]] - self._b[j[part]]).sum(axis=1) for part in parts]
        return np.concatenate(found) if found else np.empty(0)

    def below(self, rows: slice, rough: F32, slack: F32, limits: F64) -> NDArray[np.bool_]:
        """Which pairs of a block are nearer than the square roots of limits [rows, 1] or [1, m]."""
        gaps = rough - limits.astype(np.float32)
        below = gaps < 0
        i, j = np.nonzero(np.abs(gaps, out=gaps) <= slack)
        below[i, j] = self.exact(i + rows.start, j) < np.broadcast_to(limits, below.shape)[i, j]
        return below


def _search(pairs: _Pairs, count: int, own: I64 | None = None) -> Nearest:
    """The nearest of b to each of a, with squared distances. own: for each of a, the one of b that does not count."""
    found = []
    for rows, rough, slack in pairs.blocks():
        if own is not None:
            rough[np.arange(len(rough)), own[rows]] = np.inf
        limits = np.partition(rough + slack, count - 1, axis=1)[:, count - 1, None]
        i, j = np.nonzero(rough - slack <= limits)  # all that may be among the nearest
        squares = pairs.exact(i + rows.start, j)
        order = np.lexsort((j, squares, i))
        first = np.searchsorted(i, np.arange(len(rough)))
        chosen = order[first[:, None] + np.arange(count)]
        found.append((j[chosen], squares[chosen]))
    indices, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Nearest(indices, distances)
