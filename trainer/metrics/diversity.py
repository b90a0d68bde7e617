"""How much pictures of one set differ among each other: MS-SSIM of pairs, and distances of their features.

Wang, Simoncelli, Bovik 2003, "Multi-scale Structural Similarity for Image Quality Assessment"; Odena, Olah, Shlens
2017, "Conditional Image Synthesis with Auxiliary Classifier GANs", took its mean over pairs of drawn pictures of one
class: near 1, they are all alike. The distance of features is LPIPS-like (Zhang et al. 2018), but of one layer of any
network, by whose name it goes. Neither has a best value: compare with that of as many real pictures.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import ArgumentError
from edgegan.trainer.data import sample_order
from edgegan.trainer.metrics.manifold import check_features
from edgegan.trainer.metrics.similarity import BLOCK, C1, C2, WINDOW, blur, check_pictures

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, the finest first; the paper's
PAIRS = 1000  # of which Odena et al. took 100 a class


class PairMean(NamedTuple):
    value: float
    error: float  # standard error: how far the value is off, by chance; NaN of a single pair
    pairs: int


def ms_ssim(a: U8, b: U8, scales: int | None = None) -> F64:
    """Multi-scale structural similarity of each pair: [n] float64 in [0, 1], 1 for equal pictures.

    a, b: uint8 [n, H, W, C], at least 11 x 2^(scales - 1) pixels high and wide. scales: 1 to 5; default as many as fit,
    5 from 176 pixels on, and 2 for 28. Each halves the last one's pictures. With fewer than the paper's 5 the weights
    of the finest are divided by their sum. Negative similarities count as 0, and channels are averaged at the end, as
    is usual. Raises ArgumentError for other types, shapes or numbers.
    """
    check_pictures(a, b)
    side = min(a.shape[1:3])
    fitting = sum(side >= WINDOW * 2**scale for scale in range(len(WEIGHTS)))
    if fitting == 0:
        raise ArgumentError(
            f"pictures are {a.shape[1]} x {a.shape[2]}; MS-SSIM's window takes {WINDOW} x {WINDOW} pixels or more: use "
            "the distance of features"
        )
    if scales is not None and (type(scales) is not int or not 1 <= scales <= fitting):
        raise ArgumentError(f"scales is {scales!r}; valid: 1 to {fitting} for pictures of {side} pixels")
    weights = WEIGHTS[: scales or fitting]
    if len(weights) < len(WEIGHTS):
        weights = tuple(weight / sum(weights) for weight in weights)
    step = max(1, BLOCK // a[0].size)
    return np.concatenate([_ms_ssim(a[i : i + step], b[i : i + step], weights) for i in range(0, len(a), step)])


def picture_diversity(images: U8, labels: NDArray[np.integer] | None = None, pairs: int = PAIRS) -> PairMean:
    """Mean MS-SSIM over pairs of pictures uint8 [n, H, W, C] in [0, 1]: the less, the more they differ.

    labels: [n] integers; only pictures of one class make a pair. pairs: at most so many, disjoint, so that they are
    independent and their scatter tells the error; which ones is drawn, always alike. Raises ArgumentError as `ms_ssim`,
    and if no two pictures make a pair.
    """
    return _mean_of_pairs(images, labels, pairs, ms_ssim)


def feature_diversity(
    features: NDArray[np.floating], labels: NDArray[np.integer] | None = None, pairs: int = PAIRS
) -> PairMean:
    """Mean Euclidean distance over pairs of features [n, d]: the more, the more the pictures differ.

    labels, pairs: as `picture_diversity`. Raises ArgumentError for NaN or infinity, other shapes, or if no two pictures
    make a pair.
    """
    check_features(2, the=features)
    return _mean_of_pairs(
        features, labels, pairs, lambda x, y: np.sqrt(np.square(np.subtract(x, y, dtype=np.float64)).sum(axis=1))
    )


def _mean_of_pairs(
    items: NDArray[Any],
    labels: NDArray[np.integer] | None,
    pairs: int,
    compare: Callable[[NDArray[Any], NDArray[Any]], F64],
) -> PairMean:
    n = len(items)
    if type(pairs) is not int or pairs < 1:
        raise ArgumentError(f"pairs is {pairs!r}; valid: 1 or more")
    if labels is not None and labels.shape != (n,):
        raise ArgumentError(f"labels are {list(labels.shape)}; valid: one for each picture, [{n}]")
    order = sample_order(0, 0, n, n) if n else np.empty(0, np.int64)
    left = right = order[:0]
    if labels is None:
        left, right = order[0 : n - 1 : 2], order[1::2]
    elif n:
        # Within each class as drawn; a pair is two neighbours of a class whose first is at an even place of it.
        order = order[np.argsort(labels[order], kind="stable")]
        sizes = np.unique(labels, return_counts=True)[1]
        place = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        first = np.nonzero((place % 2 == 0) & (place + 1 < np.repeat(sizes, sizes)))[0]
        first = first[sample_order(1, 0, len(first), len(first))] if len(first) else first  # of all classes alike
        left, right = order[first], order[first + 1]
    if len(left) == 0:
        raise ArgumentError(f"of {n} pictures no two make a pair; valid: 2 or more, with labels 2 or more of a class")
    values = compare(items[left[:pairs]], items[right[:pairs]])
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return PairMean(float(values.mean()), float(error), len(values))


def _ms_ssim(a: U8, b: U8, weights: tuple[float, ...]) -> F64:
    x, y = a.astype(np.float64), b.astype(np.float64)
    product = np.ones((len(a), a.shape[3]))
    for scale, weight in enumerate(weights):
        if scale:
            x, y = _halved(x), _halved(y)
        mean_x, mean_y = blur(x), blur(y)
        var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
        similar = (2 * (blur(x * y) - mean_x * mean_y) + C2) / (var_x + var_y + C2)
        if scale == len(weights) - 1:  # only the coarsest compares luminance
            similar *= (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
        product *= similar.mean(axis=(1, 2)).clip(0) ** weight
    return product.mean(axis=1)


def _halved(x: F64) -> F64:
    """The means of 2 x 2 pixels of [n, H, W, C]; an odd last row or column counts twice, as in the authors' code."""
    n, height, width, channels = x.shape
    x = np.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return x.reshape(n, -(-height // 2), 2, -(-width // 2), 2, channels).mean(axis=(2, 4))
