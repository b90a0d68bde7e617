"""Kernel distance between two sets of pictures, in the space of a network's features: few pictures do not bias it.

Bińkowski, Sutherland, Arbel, Gretton 2018, "Demystifying MMD GANs": the squared maximum mean discrepancy with kernel
k(x, y) = (x.y / d + 1)^3, estimated without bias. In the features of the Inception network it is called KID; in other
features it goes by their network's name.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import ArgumentError
from edgegan.trainer.data import sample_order

F64 = NDArray[np.float64]
BLOCK = 1000  # samples of each set in one estimate, as in the paper
MIN_BLOCKS = 5  # for a standard error worth the name


class Estimate(NamedTuple):
    value: float  # 0 on average for sets of one origin, so it may be negative
    error: float  # standard error: how far the value is off, by chance


def kernel_distance(a: NDArray[np.floating], b: NDArray[np.floating], block: int = BLOCK) -> Estimate:
    """The squared distance of features a [n, d] and b [m, d], and its standard error.

    Both are cut into equally many disjoint blocks, 5 or more, of some `block` samples of the larger set. Each pair of
    blocks gives an estimate; these are independent, so their scatter tells the error of their mean, the value. Which
    samples come together is drawn, always alike, since sets may be sorted by class. Raises ArgumentError for other
    shapes, fewer than 10 samples of a set, NaN or infinity.
    """
    few, many = sorted((len(a), len(b)))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or a.size == 0 or few < 2 * MIN_BLOCKS:
        shapes = f"{list(a.shape)} and {list(b.shape)}"
        raise ArgumentError(f"features are {shapes}; valid: [n, d] and [m, d], n and m {2 * MIN_BLOCKS} or more")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ArgumentError("features hold NaN or infinity; valid: finite numbers: see what the network is fed")
    blocks = min(max(MIN_BLOCKS, many // max(1, block)), few // 2)  # two samples at least, to compare with each other
    x, y = (sample_order(seed, 0, len(f), len(f)) for seed, f in enumerate((a, b)))
    estimates = [_mmd2(a[x[k::blocks]].astype(np.float64), b[y[k::blocks]].astype(np.float64)) for k in range(blocks)]
    return Estimate(float(np.mean(estimates)), float(np.std(estimates, ddof=1) / blocks**0.5))


def _mmd2(x: F64, y: F64) -> float:
    """The unbiased estimate of one pair of blocks: a sample is not compared with itself."""
    n, m = len(x), len(y)
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def _kernel(x: F64, y: F64) -> F64:
    return (x @ y.T / x.shape[1] + 1) ** 3
