"""The scores that `edgegan-score` knows: an entry each in METRICS, all functions of one `Comparison`."""

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
from edgegan.trainer.metrics.similarity import WINDOW
from edgegan.trainer.scoring.sets import Seen

F32 = NDArray[np.float32]
K = 5  # neighbours
SPLITS = 10  # of class_score, as in its paper
LEAST = 1000  # pictures of either set, below which shares of neighbours are coarse and depend on their number


class Score(NamedTuple):
    value: float
    drawn: int  # pictures that it was measured on
    real: int  # likewise; 0: none are needed
    error: float | None = None  # standard error, where there is one


@dataclass(frozen=True, eq=False)
class Comparison:
    """Drawn and real pictures as one network sees them."""

    drawn: Seen
    real: Seen
    network: str = "the network"  # its name
    k: int = K  # neighbours that precision and its like look at
    classes: tuple[str, ...] = ()  # of the model

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
NAMES = tuple(metric.name for metric in METRICS)
