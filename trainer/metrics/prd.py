"""The curve of what precision is had at what recall: quality against variety, where one number hides which is lacking.

Sajjadi, Bachem, Lucic, Bousquet, Gelly 2018, "Assessing Generative Models via Precision and Recall". Drawn and real
features are put into common clusters; how the shares of a cluster differ says how much of one distribution the other
makes up. It needs no neighbours, as `manifold`, whose precision and recall are of another kind: shares of pictures.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgegan import noise
from edgegan.errors import ArgumentError
from edgegan.trainer.metrics.manifold import check_features

Real = NDArray[np.floating]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
CLUSTERS = 20  # as all constants here, the paper's
RUNS = 10  # clusterings, each from other centres; their curves are averaged
ANGLES = 1001
BETA = 8.0  # how many times more recall counts than precision, or the other way round
_ITERATIONS = 20  # of a clustering, at most; to assign pictures alike matters, the last of them does not
_BLOCK = 2**22  # numbers worked on together


class Curve(NamedTuple):
    """From all of the recall and none of the precision to the other end: two sets of one origin fill the square."""

    precision: F64  # [ANGLES], 0 to 1, ascending: how much of the drawn distribution is part of the real one
    recall: F64  # [ANGLES], 0 to 1, descending: how much of the real distribution is part of the drawn one

    def best(self, beta: float) -> float:
        """The largest F-score on the curve, 0 to 1, recall counting `beta` times as much as precision.

        The paper sums a curve up in those of BETA, high for variety, and 1 / BETA, high for quality.
        """
        sums = beta**2 * self.precision + self.recall
        products = (1 + beta**2) * self.precision * self.recall
        return float(np.divide(products, sums, out=np.zeros_like(sums), where=sums > 0).max())


def precision_recall_curve(drawn: Real, real: Real, clusters: int = CLUSTERS, runs: int = RUNS) -> Curve:
    """The curve of drawn features [n, d] against real ones [m, d]; n and m should be equal, and alike to compare.

    clusters: 1 to n + m. Few pictures are uneven by chance, which costs precision and recall: know the curve of real
    pictures against others. Which centres the clusterings begin with is drawn, always alike. Raises ArgumentError for
    other values, shapes that differ, NaN or infinity.
    """
    check_features(1, drawn=drawn, real=real)
    n, total = len(drawn), len(drawn) + len(real)
    for name, value, most in (("clusters", clusters, total), ("runs", runs, 1000)):
        if type(value) is not int or not 1 <= value <= most:
            raise ArgumentError(f"{name} is {value!r}; valid: 1 to {most}")
    points = _centred(drawn, real)
    curves = []
    for run in range(runs):
        draws = noise.words(run, 1, clusters, stream=noise.STREAM_TRAINING)[0] / 2.0**32
        labels = _clustered(points, draws)
        shares = [np.bincount(part, minlength=clusters) / len(part) for part in (labels[:n], labels[n:])]
        curves.append(curve_of_shares(*shares))
    return Curve(*np.mean(curves, axis=0))


def curve_of_shares(drawn: F64, real: F64) -> Curve:
    """The curve of two distributions over the same [k] states, each of sum 1: Equations 6 and 7 of the paper."""
    # Where real shares count `slope` times; its angles are evenly spread between those of the axes.
    slopes = np.tan(np.linspace(0, np.pi / 2, ANGLES + 2)[1:-1])
    precision = np.minimum(slopes[:, None] * real, drawn).sum(axis=1)
    return Curve(precision.clip(0, 1), (precision / slopes).clip(0, 1))


def _centred(drawn: Real, real: Real) -> F32:
    """Both, one after the other, around 0 and within [-1, 1]: the smaller the numbers, the less their products lose."""
    x = np.concatenate([drawn, real]).astype(np.float64)
    x -= x.mean(axis=0)
    x /= np.abs(x).max() or 1
    return x.astype(np.float32)


def _clustered(x: F32, draws: F64) -> I64:
    """The cluster of each of x [n, d]: at most len(draws) of them, by k-means (Lloyd 1982) with centres of k-means++.

    draws: [k] uniform in [0, 1). Arthur, Vassilvitskii 2007: each centre is a point, drawn with a chance that grows
    with the square of its distance to the ones before.
    """
    chosen = [int(draws[0] * len(x))]
    squares = _squares(x, x[chosen[0]])
    for draw in draws[1:]:
        sums = np.cumsum(squares)
        if sums[-1] == 0:
            break  # every point is a centre
        chosen.append(int(np.searchsorted(sums, draw * sums[-1], side="right")))
        squares = np.minimum(squares, _squares(x, x[chosen[-1]]))
    centres = x[chosen]
    labels = _nearest(x, centres)
    for _ in range(_ITERATIONS):
        for k in range(len(centres)):
            if (mine := labels == k).any():
                centres[k] = x[mine].mean(axis=0)
        before, labels = labels, _nearest(x, centres)
        if np.array_equal(before, labels):
            break
    return labels


def _squares(x: F32, centre: F32) -> F64:
    """Squared distances [n] of x [n, d] to one point; 0 to itself."""
    step = max(1, _BLOCK // x.shape[1])
    parts = (x[i : i + step] - centre for i in range(0, len(x), step))
    return np.concatenate([np.square(part, dtype=np.float64).sum(axis=1) for part in parts])


def _nearest(x: F32, centres: F32) -> I64:
    """Which of the centres [k, d] is nearest to each of x [n, d]; of equally near ones the first."""
    return (np.square(centres).sum(axis=1) - 2 * (x @ centres.T)).argmin(axis=1)
