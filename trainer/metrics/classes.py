"""What a classifier says of drawn pictures: class score, accuracy of the classes asked for, distances class by class.

Salimans et al. 2016, "Improved Techniques for Training GANs": exp of the mean divergence of each picture's classes from
those of all. With the logits of the Inception network it is the Inception score; with those of another it is not, and
goes by its name. The logits are those of `FeatureNetwork.run`.
"""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import ArgumentError, EdgeGANWarning
from edgegan.trainer.data import sample_order
from edgegan.trainer.metrics.frechet import SAMPLES_PER_DIMENSION, Statistics, frechet_distance
from edgegan.trainer.metrics.manifold import check_features

F64 = NDArray[np.float64]


class ClassScore(NamedTuple):
    mean: float  # over the parts: 1 (every picture is as likely of any class) to the number of classes
    deviation: float  # standard deviation over the parts, as published: over all of them, not all but one


class Accuracy(NamedTuple):
    total: float  # share of pictures of the class that was asked for, 0 to 1
    classes: F64  # [classes], the same of each; NaN for one that was not asked for


def class_score(logits: NDArray[np.floating], splits: int = 10) -> ClassScore:
    """The score of logits [n, classes], which are computed with in float64, in so many equal parts.

    Which pictures come together in a part is drawn, always alike, since sets may be sorted by class. The score grows
    with the size of a part: compare scores of equal n and splits. Raises ArgumentError for fewer pictures than splits,
    other shapes, NaN or infinity.
    """
    n = len(logits)
    if type(splits) is not int or splits < 1:
        raise ArgumentError(f"splits is {splits!r}; valid: 1 or more, 10 in the paper")
    _check_logits(logits, splits)
    x = logits[sample_order(0, 0, n, n)].astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    scores = []
    for k in range(splits):
        part = slice(k * n // splits, (k + 1) * n // splits)
        marginal = p[part].mean(axis=0)
        # A class whose probability rounds to 0 for every picture adds 0, whatever its logarithm.
        gaps = log_p[part] - np.log(np.where(marginal > 0, marginal, 1))
        scores.append(np.exp((p[part] * gaps).sum(axis=1).mean()))
    return ClassScore(float(np.mean(scores)), float(np.std(scores)))


def accuracy(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> Accuracy:
    """Which share of logits [n, classes] is highest at the label asked for, [n] integers, 0 to classes - 1.

    Of equal logits the first counts. Raises ArgumentError for other shapes or labels, NaN or infinity.
    """
    _check_logits(logits, 1)
    classes = logits.shape[1]
    _check_labels("asked-for", labels, len(logits))
    if labels.min() < 0 or labels.max() >= classes:
        raise ArgumentError(
            f"labels go from {labels.min()} to {labels.max()}; the classifier has classes 0 to {classes - 1}"
        )
    right = logits.argmax(axis=1) == labels
    asked = np.bincount(labels, minlength=classes)
    with np.errstate(invalid="ignore"):
        each = np.bincount(labels, weights=right, minlength=classes) / asked
    return Accuracy(float(right.mean()), each)


def class_distances(
    drawn: NDArray[np.floating],
    drawn_labels: NDArray[np.integer],
    real: NDArray[np.floating],
    real_labels: NDArray[np.integer],
) -> dict[int, float]:
    """The Fréchet distance of each class of the real features, by its label.

    drawn [n, d], real [m, d], labels [n] and [m] integers: of drawn pictures, the classes asked for. Drawn pictures of
    other classes are left out. Warns (EdgeGANWarning) once if classes have too few pictures, see `frechet_distance`.
    Raises ArgumentError for a class with fewer than two of them, shapes that differ, NaN or infinity.
    """
    check_features(2, drawn=drawn, real=real)
    _check_labels("drawn", drawn_labels, len(drawn))
    _check_labels("real", real_labels, len(real))
    counts = {
        int(label): min(np.count_nonzero(drawn_labels == label), np.count_nonzero(real_labels == label))
        for label in np.unique(real_labels)
    }
    worst = min(counts, key=lambda label: counts[label])
    if counts[worst] < 2:
        raise ArgumentError(
            f"class {worst} has {np.count_nonzero(drawn_labels == worst)} drawn and "
            f"{np.count_nonzero(real_labels == worst)} real pictures; valid: 2 or more of each, better "
            f"{10 * drawn.shape[1]}"
        )
    if counts[worst] < SAMPLES_PER_DIMENSION * drawn.shape[1]:
        warnings.warn(
            f"{counts[worst]} samples of {drawn.shape[1]} features in class {worst}: its distance tells more of their "
            f"number than of the pictures; take {SAMPLES_PER_DIMENSION * drawn.shape[1]} at least of each class",
            EdgeGANWarning,
            stacklevel=2,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdgeGANWarning)  # the same, class by class
        return {
            label: frechet_distance(
                Statistics.of(drawn[drawn_labels == label]), Statistics.of(real[real_labels == label])
            )
            for label in counts
        }


def _check_logits(logits: NDArray[np.floating], least: int) -> None:
    if logits.ndim != 2 or logits.size == 0 or len(logits) < least:
        raise ArgumentError(f"logits are {list(logits.shape)}; valid: [n, classes], n >= {least}")
    if not np.isfinite(logits).all():
        raise ArgumentError("logits hold NaN or infinity; valid: finite numbers: see what the network is fed")


def _check_labels(name: str, labels: NDArray[np.integer], n: int) -> None:
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise ArgumentError(f"{name} labels are {labels.dtype} {list(labels.shape)}; valid: integers [{n}]")
