"""The scores that `edgegan-score` knows, all functions of one `Comparison`.

An entry each: in METRICS those of models that draw pictures; for models that translate TRANSLATED has those among them
that tell something there, and PAIRED those of results beside the pictures that they should be.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import EdgeGANWarning
from edgegan.trainer.data import sample_order
from edgegan.trainer.metrics.classes import accuracy, class_score
from edgegan.trainer.metrics.diversity import PairMean, feature_diversity, picture_diversity
from edgegan.trainer.metrics.frechet import frechet_distance
from edgegan.trainer.metrics.kernel import kernel_distance
from edgegan.trainer.metrics.manifold import Manifold, authenticity, manifold
from edgegan.trainer.metrics.pairs import feature_distance, retrieved
from edgegan.trainer.metrics.similarity import WINDOW
from edgegan.trainer.scoring.sets import Seen

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
K = 5  # neighbours
SPLITS = 10  # of class_score, as in its paper
MOST_DB = 100.0  # what the PSNR of equal pictures counts as in a mean; theirs is infinite
LEAST = 1000  # pictures of either set, below which shares of neighbours are coarse and depend on their number


class Score(NamedTuple):
    value: float
    drawn: int  # pictures that it was measured on
    real: int  # likewise; 0: none are needed
    error: float | None = None  # standard error, where there is one


@dataclass(frozen=True, eq=False)
class Pairs:
    """How near each of n pictures comes to its true one, pixel by pixel."""

    twins: I64  # [n], positions of the true pictures in the real set
    psnr: F64  # [n], decibels; inf for equal pictures
    error: F64  # [n], mean absolute difference in grey levels
    ssim: F64 | None  # [n]; None for pictures too small for its window


@dataclass(frozen=True, eq=False)
class Comparison:
    """Drawn and real pictures as one network sees them; a model that translates draws its results."""

    drawn: Seen
    real: Seen
    network: str = "the network"  # its name
    k: int = K  # neighbours that precision and its like look at
    classes: tuple[str, ...] = ()  # of the model
    pairs: Pairs | None = None  # of drawn and real pictures, where it is known which belong together

    @cached_property
    def even(self) -> tuple[F32, F32]:
        """Features of equally many drawn and real pictures: k neighbours reach less far among more."""
        n = min(len(self.drawn), len(self.real))
        return self.drawn.features[:n], self.real.features[np.sort(sample_order(0, 0, n, len(self.real)))]

    @cached_property
    def manifold(self) -> Manifold:
        """Four scores that share their distances."""
        few = len(self.even[0])
        if few < LEAST:
            warnings.warn(
                f"{few} pictures of each set: precision, recall, density and coverage of so few are coarse; take "
                f"{LEAST} or more",
                EdgeGANWarning,
                stacklevel=2,
            )
        return manifold(*self.even, self.k)


@dataclass(frozen=True)
class Metric:
    """One score. `compute` may count on `lack` having said nothing."""

    name: str  # on the command line, in JSON and in a model's metadata
    better: str  # "lower", "higher", or "as real"
    about: str  # a line for people
    compute: Callable[[Comparison], Score]
    lack: Callable[[Comparison], str] = lambda c: ""  # why it cannot be measured, or ""


def _frechet(c: Comparison) -> Score:
    return Score(frechet_distance(c.drawn.statistics, c.real.statistics), len(c.drawn), len(c.real))


def _kernel(c: Comparison) -> Score:
    value, error = kernel_distance(c.drawn.features, c.real.features)
    return Score(value, len(c.drawn), len(c.real), error)


def _authenticity(c: Comparison) -> Score:
    return Score(authenticity(c.drawn.features, c.real.features), len(c.drawn), len(c.real))


def _ms_ssim(c: Comparison) -> Score:
    assert c.drawn.pictures is not None
    return _of_pairs(picture_diversity(c.drawn.pictures))


def _diversity(c: Comparison) -> Score:
    return _of_pairs(feature_diversity(c.drawn.features))


def _of_pairs(found: PairMean) -> Score:
    return Score(found.value, 2 * found.pairs, 0, found.error if found.pairs > 1 else None)


def _class_score(c: Comparison) -> Score:
    assert c.drawn.logits is not None
    return Score(class_score(c.drawn.logits, SPLITS).mean, len(c.drawn), 0)


def _class_accuracy(c: Comparison) -> Score:
    assert c.drawn.logits is not None
    assert c.drawn.labels is not None
    return Score(accuracy(c.drawn.logits, c.drawn.labels).total, len(c.drawn), 0)


def _needs(pictures: int) -> Callable[[Comparison], str]:
    def lack(c: Comparison) -> str:
        few = min(len(c.drawn), len(c.real))
        return f"it takes {pictures} pictures of each set, and there are {few}" if few < pictures else ""

    return lack


def _neighbours(name: str) -> tuple[Callable[[Comparison], Score], Callable[[Comparison], str]]:
    """How one of the four of `manifold` is measured, and why not."""
    return lambda c: Score(getattr(c.manifold, name), len(c.even[0]), len(c.even[1])), lambda c: _needs(c.k + 1)(c)


def _lacks_pixels(c: Comparison) -> str:
    assert c.drawn.pictures is not None
    small = min(c.drawn.pictures.shape[1:3]) < WINDOW
    return f"it takes pictures of {WINDOW} x {WINDOW} pixels or more" if small else ""


def _lacks_logits(c: Comparison) -> str:
    if c.drawn.logits is None:
        return f"{c.network} gives no logits"
    return _needs(SPLITS)(c)


def lacks_classes(c: Comparison) -> str:
    """Why the classifier cannot tell whether a picture is of the class that was asked for, or ""."""
    if c.drawn.labels is None:
        return "the model has no classes"
    if c.drawn.logits is None or c.real.logits is None:
        return f"{c.network} gives no logits"
    if c.drawn.logits.shape[1] != len(c.classes):
        return f"{c.network} knows {c.drawn.logits.shape[1]} classes, the model {len(c.classes)}"
    # Both may name the same classes in another order, which only pictures of a known class tell.
    if c.real.labels is not None and (known := accuracy(c.real.logits, c.real.labels).total) < 0.5:
        return f"{c.network} knows only {known:.0%} of the real pictures: its classes are others, or in another order"
    return ""


def _mean(values: F64) -> Score:
    """Over all pairs, with its standard error."""
    n = len(values)
    return Score(float(values.mean()), n, n, float(np.std(values, ddof=1) / n**0.5) if n > 1 else None)


def _lacks_pairs(c: Comparison) -> str:
    return "" if c.pairs is not None else "it is not known which pictures belong together"


def _lacks_windows(c: Comparison) -> str:
    return _lacks_pairs(c) or _lacks_pixels(c)


def _paired(
    name: str,
    better: str,
    about: str,
    measure: Callable[[Comparison, Pairs], F64],
    lack: Callable[[Comparison], str] = _lacks_pairs,
) -> Metric:
    """The mean of what is measured of each pair."""

    def compute(c: Comparison) -> Score:
        assert c.pairs is not None
        return _mean(measure(c, c.pairs))

    return Metric(name, better, about, compute, lack)


def _ssim(c: Comparison, pairs: Pairs) -> F64:
    assert pairs.ssim is not None
    return pairs.ssim


def _feature_distance(c: Comparison, pairs: Pairs) -> F64:
    return feature_distance(c.drawn.features, c.real.features[pairs.twins])


def _retrieval(c: Comparison) -> Score:
    assert c.pairs is not None
    hits = retrieved(c.drawn.features, c.real.features, c.pairs.twins)
    return Score(float(hits.mean()), len(c.drawn), len(c.real))


METRICS = (
    Metric("frechet", "lower", "distance of mean and spread of the features", _frechet, _needs(2)),
    Metric("kernel", "lower", "the same, not biased by few pictures; as real: 0", _kernel, _needs(10)),
    Metric("precision", "higher", "share of drawn pictures that lie among real ones", *_neighbours("precision")),
    Metric("recall", "higher", "share of real pictures that lie among drawn ones", *_neighbours("recall")),
    Metric("density", "higher", "how many real ones are around a drawn one", *_neighbours("density")),
    Metric("coverage", "higher", "share of real pictures with a drawn one nearby", *_neighbours("coverage")),
    Metric("authenticity", "as real", "share of drawn pictures that copy no real one", _authenticity, _needs(2)),
    Metric("diversity", "as real", "mean distance of two drawn pictures' features", _diversity, _needs(2)),
    Metric("ms-ssim", "as real", "likeness of two drawn pictures, pixel by pixel", _ms_ssim, _lacks_pixels),
    Metric("class-score", "as real", "how clear and varied the classes are", _class_score, _lacks_logits),
    Metric("class-accuracy", "higher", "share of the class that was asked for", _class_accuracy, lacks_classes),
)
PAIRED = (
    _paired("psnr", "higher", "decibels, of each result and its true picture", lambda _, p: p.psnr.clip(max=MOST_DB)),
    _paired("ssim", "higher", "structural similarity of the same; equal: 1", _ssim, _lacks_windows),
    _paired("l1", "lower", "mean difference of their pixels in grey levels", lambda _, p: p.error),
    _paired("feature-distance", "lower", "of their features at unit length; no LPIPS", _feature_distance),
    Metric("retrieval", "higher", "share whose nearest real picture is their own", _retrieval, _lacks_pairs),
)
# Of models that translate: a result that copies a real picture may be right, and nobody asked for a class.
TRANSLATED = tuple(metric for metric in METRICS if metric.name not in ("authenticity", "class-accuracy"))
NAMES = tuple(metric.name for metric in METRICS)
BETTER = {metric.name: metric.better for metric in (*METRICS, *PAIRED)}
