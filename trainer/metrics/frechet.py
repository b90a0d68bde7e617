"""Fréchet distance between two sets of pictures, each taken for a Gaussian in the space of a network's features.

Dowson, Landau 1982, "The Fréchet Distance between Multivariate Normal Distributions"; Heusel et al. 2017, "GANs Trained
by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", took it in the features of the Inception network
and called that FID. A distance in other features goes by its network's name and is no FID: the numbers differ.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import ArgumentError, EdgeGANWarning

F64 = NDArray[np.float64]
# Two samples of n from the same Gaussian of d equal variances are about (d + 5) / 2n of its total variance apart. Below
# two samples a dimension that is more than a quarter, and tells more of n than of the pictures.
SAMPLES_PER_DIMENSION = 2
BLOCK = 2**23  # numbers of features held in float64


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and covariance of features, all that the distance needs of a set of pictures.

    Those of many pictures at flat memory: `Statistics.of_batches(network(batch) for batch in batches)`.
    """

    mean: F64  # [d]
    covariance: F64  # [d, d], with n - 1 in the denominator; zeros for one sample
    count: int  # n, samples

    def __post_init__(self) -> None:
        d = self.mean.size
        if self.mean.shape != (d,) or self.covariance.shape != (d, d) or d == 0 or self.count < 1:
            raise ArgumentError(
                f"the mean is {list(self.mean.shape)}, the covariance {list(self.covariance.shape)}, the count "
                f"{self.count}; valid: [d], [d, d] and 1 or more"
            )

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> "Statistics":
        """Those of features [n, d], in float64 whatever their type, of which only a few are held at a time.

        Raises ArgumentError, also for NaN or infinity.
        """
        if features.ndim != 2 or features.size == 0:
            raise ArgumentError(f"features are {list(features.shape)}; valid: [n, d] without a 0")
        n, d = features.shape
        step = max(1, BLOCK // d)
        blocks = [features[i : i + step] for i in range(0, n, step)]
        if not all(np.isfinite(block).all() for block in blocks):
            raise ArgumentError("features hold NaN or infinity; valid: finite numbers: see what the network is fed")
        mean, scatter = features.mean(axis=0, dtype=np.float64), np.zeros((d, d))
        for block in blocks:
            x = block - mean
            scatter += x.T @ x
        return cls(mean, scatter / max(1, n - 1), n)

    @classmethod
    def of_batches(cls, batches: Iterable[NDArray[np.floating]]) -> "Statistics":
        """Those of all batches [n_i, d] together, without holding more than one. Raises ArgumentError if none comes."""
        parts = map(cls.of, batches)
        first = next(parts, None)
        if first is None:
            raise ArgumentError("there is no batch of features; valid: one or more")
        return reduce(cls.merge, parts, first)

    def merge(self, other: "Statistics") -> "Statistics":
        """Those of both sets of samples together (Chan, Golub, LeVeque 1979). Raises ArgumentError for another d."""
        _same_dimensions(self, other)
        n, m = self.count, other.count
        gap = other.mean - self.mean
        scatter = (n - 1) * self.covariance + (m - 1) * other.covariance + np.outer(gap, gap * (n * m / (n + m)))
        return Statistics(self.mean + gap * (m / (n + m)), scatter / (n + m - 1), n + m)


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^1/2) of covariances A and B: 0 for equal ones, in squared feature units.

    Warns (EdgeGANWarning) below two samples a dimension: the covariances are then mostly noise, and the distance is
    biased upwards by it. Compare distances of equally many samples only. Raises ArgumentError for features of different
    dimensions or a single sample.
    """
    _same_dimensions(a, b)
    least, dim = min(a.count, b.count), len(a.mean)
    if least < 2:
        raise ArgumentError("a single sample has no covariance; valid: 2 or more, better 10 for each dimension")
    if least < SAMPLES_PER_DIMENSION * dim:
        warnings.warn(
            f"{least} samples of {dim} features: the distance tells more of their number than of the pictures; take "
            f"{SAMPLES_PER_DIMENSION * dim} at least, better {10 * dim}",
            EdgeGANWarning,
            stacklevel=2,
        )
    # tr (A B)^1/2 is the sum of the singular values of A^1/2 B^1/2. These come real, and as exact for covariances
    # that lack ranks as for others; a square root of the matrix A B, not symmetric, would be neither.
    cross = np.linalg.svd(_root(a.covariance).T @ _root(b.covariance), compute_uv=False).sum()
    distance = np.square(a.mean - b.mean).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return max(0.0, float(distance))


def _root(covariance: F64) -> F64:
    """R with R R^T = covariance; eigenvalues that rounding took below 0 count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(values.clip(0))


def _same_dimensions(a: Statistics, b: Statistics) -> None:
    if len(a.mean) != len(b.mean):
        raise ArgumentError(
            f"features have {len(a.mean)} and {len(b.mean)} dimensions; valid: those of one network for both"
        )
