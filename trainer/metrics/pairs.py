"""How near pictures are to their true ones in a network's features: for tasks where the right picture is known.

`feature_distance` has the form of LPIPS (Zhang, Isola, Efros, Shechtman, Wang 2018, "The Unreasonable Effectiveness of
Deep Features as a Perceptual Metric"), but is of one vector a picture instead of several layers' maps, has no learnt
weights, and takes any network, by whose name it goes: its numbers are no LPIPS. `retrieved` asks whether a result is
nearer to its own true picture than to all others, which a model fails that makes plausible pictures of the wrong thing.
"""

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import ArgumentError
from edgegan.trainer.metrics.manifold import check_features, nearest

Real = NDArray[np.floating]
F64 = NDArray[np.float64]


def feature_distance(a: Real, b: Real) -> F64:
    """|a / |a| - b / |b||^2 of each pair of features [n, d]: [n] float64, 0 (one direction) to 4 (opposite ones).

    It is 2 - 2 cos of the angle between them. Features that are all 0 have no direction and stay 0. Raises
    ArgumentError for shapes that differ, NaN or infinity.
    """
    check_features(1, the=a, their=b)
    if len(a) != len(b):
        raise ArgumentError(f"there are {len(a)} and {len(b)} features; valid: pairs, as many of one as of the other")
    return np.asarray(np.square(_directions(a) - _directions(b)).sum(axis=1))


def retrieved(made: Real, real: Real, twins: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether the nearest of the real features [m, d] to each of `made` [n, d] is that of its true picture: [n].

    twins: [n], positions of the true pictures among the real ones. A real picture with the very features of the true
    one counts as it. The mean is the top-1 retrieval accuracy, 1 / m by chance. Raises ArgumentError for other shapes
    or positions, NaN or infinity.
    """
    check_features(1, made=made, real=real)
    if twins.shape != (len(made),) or twins.dtype.kind not in "iu" or twins.min() < 0 or twins.max() >= len(real):
        raise ArgumentError(
            f"twins are {twins.dtype} {list(twins.shape)}; valid: integers [{len(made)}], 0 to {len(real) - 1}"
        )
    found = nearest(made, real).indices[:, 0]
    return np.asarray((found == twins) | (real[found] == real[twins]).all(axis=1))


def _directions(x: Real) -> F64:
    """Of unit length, in float64; scaled first so that no square overflows or vanishes."""
    largest = np.abs(x).max(axis=1, keepdims=True).astype(np.float64)
    scaled = x / np.where(largest > 0, largest, 1)
    return scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1)
