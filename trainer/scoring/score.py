"""From a model and a data set to scores: which can be measured, their values, and what they are of."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import edgegan
from edgegan.errors import ArgumentError, EdgeGANWarning
from edgegan.model import BATCH
from edgegan.trainer.data import Dataset, Progress, sample_order
from edgegan.trainer.metrics.classes import accuracy, class_distances
from edgegan.trainer.metrics.inception import SHA256
from edgegan.trainer.scoring.metrics import METRICS, NAMES, Comparison, K, Metric, Score, lacks_classes
from edgegan.trainer.scoring.sets import Draws, Seen, check_pair, see_drawn, see_real

if TYPE_CHECKING:
    from edgegan.trainer.metrics.features import FeatureNetwork

FORMAT = 1  # of the JSON
# SHA-256 of files of the FID Inception network (pt_inception-2015-12-05), the only one whose Frechet distance is FID.
# Of another file add the digest only when its features were compared with those of the original.
INCEPTION = frozenset([SHA256])
OF_INCEPTION = {"frechet": "FID", "kernel": "KID", "class-score": "Inception score"}  # what its scores are called


@dataclass(frozen=True)
class Report:
    """What was measured, of what, and what was not."""

    scores: dict[str, Score]
    floor: dict[str, Score]  # the same of real pictures in the drawn ones' place; empty if not asked for
    per_class: dict[str, dict[str, float]]  # class name -> "frechet", and "accuracy" if it was measured
    missing: dict[str, str]  # name -> why it could not be measured
    warnings: tuple[str, ...]
    facts: dict[str, Any] = field(repr=False)  # model, data, features, samples and so on: see `to_json`

    def title(self, name: str) -> str:
        """What people call a score: FID, KID and Inception score only in the eyes of the real Inception network."""
        return OF_INCEPTION.get(name, name) if self.facts["features"]["sha256"] in INCEPTION else name

    def to_json(self) -> dict[str, Any]:
        """One object; docs/metrics.md says what its keys are."""
        better = {metric.name: metric.better for metric in METRICS}

        def entry(name: str, score: Score) -> dict[str, Any]:
            floor = self.floor.get(name)
            return {
                "title": self.title(name),
                **score._asdict(),
                "floor": None if floor is None else floor._asdict(),
                "better": better[name],
            }

        return {
            "format": FORMAT,
            **self.facts,
            "scores": {name: entry(name, score) for name, score in self.scores.items()},
            "per_class": self.per_class,
            "missing": self.missing,
            "warnings": list(self.warnings),
        }

    def to_metadata(self) -> dict[str, float | str]:
        """For `ModelSpec.scores`: the values, and a text that says in whose eyes and of which pictures."""
        samples, data, network = (self.facts[key] for key in ("samples", "data", "features"))
        text = (
            f"{network['name']} {network['sha256'][:12]}: {samples['drawn']} drawn of seed {samples['seed']}, "
            f"{samples['real']} real of {data['name']} {data['sha256'][:12]}, k {samples['k']}"
        )
        return {**{self.title(name): score.value for name, score in self.scores.items()}, "measured by": text}


def score(
    generator: Draws,
    dataset: Dataset,
    network: "FeatureNetwork",
    n: int = 10_000,
    *,
    seed: int = 0,
    batch: int | None = None,
    k: int = K,
    metrics: Sequence[str] | None = None,
    floor: bool = True,
    per_class: bool = False,
    root: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Report, Comparison]:
    """Score pictures 0 .. n - 1 of `seed` against a data set in the eyes of a network.

    metrics: names (`NAMES`), each of which must be possible; None: all that are. k: neighbours that precision, recall,
    density and coverage look at. floor: measure also as many real pictures, n or half of all, against the others, for
    what is within reach. per_class: also the Frechet distance of each class, and its accuracy. root: of the cache,
    default `default_root()`. Equal arguments give equal scores on one machine. What makes a score less telling is an
    EdgeGANWarning, and kept in the report.

    Raises ArgumentError for values out of range and metrics that are not possible, DataError if pictures differ in
    size, ModelError for features that are NaN and models that fail.
    """
    chosen = chosen_metrics(metrics)
    if n < 2 or k < 1:
        raise ArgumentError(f"n is {n}, k is {k}; valid: 2 pictures or more, 1 neighbour or more")
    check_pair(generator, dataset)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", EdgeGANWarning)
        real = _in_order_of(generator.spec.classes, dataset, see_real(dataset, network, root, progress))
        drawn = see_drawn(generator, network, n, seed, batch, progress)
        comparison = Comparison(drawn, real, network.name, k, generator.spec.classes)
        missing = {metric.name: why for metric in chosen if (why := metric.lack(comparison))}
        if metrics is not None and missing:
            raise ArgumentError("; ".join(f"{name} cannot be measured: {why}" for name, why in missing.items()))
        scores = _measure(chosen, comparison, progress, "scores")
        classes = _per_class(comparison) if per_class else {}
    told = tuple(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, EdgeGANWarning)))
    for message in told:
        warnings.warn(message, EdgeGANWarning, stacklevel=2)
    for other in caught:
        if not issubclass(other.category, EdgeGANWarning):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    lowest = {}
    if floor and len(real) >= 4:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EdgeGANWarning)  # the same, of real pictures
            among = [metric for metric in chosen if metric.name in scores]
            lowest = _measure(among, real_against_real(comparison), progress, "scores of real pictures")
    facts = _facts(generator, dataset, network, comparison, seed, batch)
    return Report(scores, lowest, classes, missing, told, facts), comparison


def chosen_metrics(names: Sequence[str] | None) -> list[Metric]:
    """Those of these names, in the order of METRICS; None: all. Raises ArgumentError, which lists the valid ones."""
    wrong = [name for name in names or () if name not in NAMES]
    if wrong or (names is not None and not names):
        raise ArgumentError(f"there is no metric {', '.join(wrong) or 'given'}; valid: {', '.join(NAMES)}")
    return [metric for metric in METRICS if names is None or metric.name in names]


def _in_order_of(classes: tuple[str, ...], dataset: Dataset, real: Seen) -> Seen:
    """With labels as the model counts its classes; without any, if it has none or its classes are others."""
    if real.labels is None or set(classes) != set(dataset.classes):
        return replace(real, labels=None)
    place = np.array([classes.index(name) for name in dataset.classes])
    return replace(real, labels=place[real.labels])


def _measure(
    metrics: Sequence[Metric], comparison: Comparison, progress: Progress | None, what: str
) -> dict[str, Score]:
    scores = {}
    for i, metric in enumerate(metrics):
        if progress is not None:
            progress(i, len(metrics), what)
        if not metric.lack(comparison):
            scores[metric.name] = metric.compute(comparison)
    if progress is not None:
        progress(len(metrics), len(metrics), what)
    return scores


def real_against_real(c: Comparison) -> Comparison:
    """Real pictures in the place of the drawn ones, as many if there are twice so many, against the others."""
    order = sample_order(1, 0, len(c.real), len(c.real))
    n = min(len(c.drawn), len(c.real) // 2)
    return replace(c, drawn=c.real.part(np.sort(order[:n])), real=c.real.part(np.sort(order[n:])))


def _per_class(c: Comparison) -> dict[str, dict[str, float]]:
    if c.drawn.labels is None:
        raise ArgumentError("--per-class is for models with classes, and this one has none")
    if c.real.labels is None:
        raise ArgumentError(
            f"--per-class needs data with the model's classes, which are {', '.join(c.classes[:10])}"
            f"{', ...' if len(c.classes) > 10 else ''}"
        )
    distances = class_distances(c.drawn.features, c.drawn.labels, c.real.features, c.real.labels)
    found = {c.classes[label]: {"frechet": value} for label, value in distances.items()}
    if c.drawn.logits is not None and not lacks_classes(c):
        for name, share in zip(c.classes, accuracy(c.drawn.logits, c.drawn.labels).classes, strict=True):
            found[name]["accuracy"] = float(share)
    return found


def _facts(
    generator: Draws, dataset: Dataset, network: "FeatureNetwork", c: Comparison, seed: int, batch: int | None
) -> dict[str, Any]:
    """What the scores are of: all that decides them."""
    spec, how = generator.spec, network.preparation
    drawn = {"drawn": len(c.drawn), "real": len(c.real), "seed": seed, "batch": batch or BATCH, "k": c.k}
    floor = min(len(c.drawn), len(c.real) // 2)
    return {
        "version": edgegan.__version__,
        "model": {
            "file": generator.source,
            "sha256": generator.digest,
            "recipe": spec.recipe,
            "size": list(spec.image_size),
            "channels": spec.channels,
            "provider": generator.provider,
        },
        "data": {
            "name": dataset.name,
            "sha256": dataset.digest,
            "pictures": len(dataset),
            "trained_on": dataset.digest == spec.dataset_digest,
        },
        "features": {
            "name": network.name,
            "sha256": network.digest,
            "dimensions": network.dim,
            "engine": network.engine,
            "preparation": asdict(how),
        },
        "samples": {**drawn, "floor": [floor, len(c.real) - floor]},
        "on_white": spec.channels == 4,
    }
