"""From a model and a data set to scores: which can be measured, their values, and what they are of."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import edgegan
from edgegan.errors import ArgumentError
from edgegan.session import BATCH
from edgegan.trainer.data import Dataset, Progress
from edgegan.trainer.metrics.classes import accuracy, class_distances
from edgegan.trainer.metrics.inception import SHA256
from edgegan.trainer.scoring.measure import (
    among,
    chosen_metrics,
    floor_of,
    gathered,
    measure,
    metrics_of,
    missing_of,
    quiet,
)
from edgegan.trainer.scoring.metrics import BETTER, Comparison, K, Score, lacks_classes
from edgegan.trainer.scoring.sets import Draws, Model, Seen, check_pair, see_drawn, see_real
from edgegan.trainer.scoring.translated import Translates, check_translation, compare

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
    source: dict[str, Score] = field(default_factory=dict)  # the same of untouched sources; of models that translate

    def title(self, name: str) -> str:
        """What people call a score: FID, KID and Inception score only in the eyes of the real Inception network."""
        return OF_INCEPTION.get(name, name) if self.facts["features"]["sha256"] in INCEPTION else name

    def to_json(self) -> dict[str, Any]:
        """One object; docs/metrics.md says what its keys are."""

        def entry(name: str, score: Score) -> dict[str, Any]:
            floor = self.floor.get(name)
            untouched = {"source": self.source[name]._asdict()} if self.source else {}
            return {
                "title": self.title(name),
                **score._asdict(),
                "floor": None if floor is None else floor._asdict(),
                **untouched,
                "better": BETTER[name],
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
        source = self.facts.get("source")
        made = f"drawn of seed {samples['seed']}" if source is None else f"of {source['name']} {source['sha256'][:12]}"
        text = (
            f"{network['name']} {network['sha256'][:12]}: {samples['drawn']} {made}, "
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
    _check_counts(n, k)
    check_pair(generator, dataset)
    with gathered() as told:
        real = _in_order_of(generator.spec.classes, dataset, see_real(dataset, network, root, progress))
        drawn = see_drawn(generator, network, n, seed, batch, progress)
        comparison = Comparison(drawn, real, network.name, k, generator.spec.classes)
        missing = missing_of(chosen, comparison, metrics is not None)
        scores = measure(chosen, comparison, progress, "scores")
        classes = _per_class(comparison) if per_class else {}
    lowest = floor_of(scores, comparison, progress) if floor else {}
    facts = _facts(generator, dataset, network, comparison, seed, batch or BATCH)
    return Report(scores, lowest, classes, missing, tuple(told), facts), comparison


def score_translation(
    generator: Translates,
    sources: Dataset,
    dataset: Dataset,
    network: "FeatureNetwork",
    n: int = 10_000,
    *,
    paired: bool = False,
    seed: int = 0,
    batch: int = BATCH,
    k: int = K,
    metrics: Sequence[str] | None = None,
    floor: bool = True,
    root: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Report, Comparison]:
    """Score what a model makes of sources against a data set, beside these sources as they are.

    n: how many sources to take, or all if they are fewer; `seed` draws which. paired: source i should become picture i
    of the data, so that results are compared with it, too. batch: pictures a run of the model, at most.
    The rest is as for `score`, but the names of metrics: those of `metrics_of(paired)`.

    Raises as `score`, and DataError for pairs of which some lack a partner.
    """
    chosen = chosen_metrics(metrics, metrics_of(paired))
    _check_counts(n, k)
    check_translation(generator, sources, dataset, paired)
    with gathered() as told:
        results, untouched = compare(generator, sources, dataset, network, n, seed, batch, paired, k, root, progress)
        missing = missing_of(chosen, results, metrics is not None)
        scores = measure(chosen, results, progress, "scores")
    with quiet():
        before = measure(among(scores), untouched, progress, "scores of the sources")
    lowest = floor_of(scores, results, progress) if floor else {}
    facts = _facts(generator, dataset, network, results, seed, batch)
    facts["source"] = {
        "name": sources.name,
        "sha256": sources.digest,
        "pictures": len(sources),
        "size": list(sources.images.shape[1:3]),
        "scale": generator.spec.scale,
        "paired": paired,
    }
    return Report(scores, lowest, {}, missing, tuple(told), facts, before), results


def _check_counts(n: int, k: int) -> None:
    if n < 2 or k < 1:
        raise ArgumentError(f"n is {n}, k is {k}; valid: 2 pictures or more, 1 neighbour or more")


def _in_order_of(classes: tuple[str, ...], dataset: Dataset, real: Seen) -> Seen:
    """With labels as the model counts its classes; without any, if it has none or its classes are others."""
    if real.labels is None or set(classes) != set(dataset.classes):
        return replace(real, labels=None)
    place = np.array([classes.index(name) for name in dataset.classes])
    return replace(real, labels=place[real.labels])


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
    generator: Model, dataset: Dataset, network: "FeatureNetwork", c: Comparison, seed: int, batch: int
) -> dict[str, Any]:
    """What the scores are of: all that decides them."""
    spec, how = generator.spec, network.preparation
    drawn = {"drawn": len(c.drawn), "real": len(c.real), "seed": seed, "batch": batch, "k": c.k}
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
        "on_white": spec.channels == 4 and spec.task == "generate",
    }
