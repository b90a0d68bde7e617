"""Measuring one comparison: which scores it allows, their values, and what real pictures get in its place."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from edgegan.errors import ArgumentError, EdgeGANWarning
from edgegan.trainer.data import Progress, sample_order
from edgegan.trainer.scoring.metrics import METRICS, PAIRED, TRANSLATED, Comparison, Metric, Score


def metrics_of(paired: bool) -> tuple[Metric, ...]:
    """Those of models that translate, with or without true pictures."""
    return (*PAIRED, *TRANSLATED) if paired else TRANSLATED


def chosen_metrics(names: Sequence[str] | None, known: Sequence[Metric] = METRICS) -> list[Metric]:
    """Those of these names, in the order of `known`; None: all. Raises ArgumentError, which lists the valid ones."""
    valid = [metric.name for metric in known]
    wrong = [name for name in names or () if name not in valid]
    if wrong or (names is not None and not names):
        pairs = ", which needs --source and --paired" if {metric.name for metric in PAIRED} & set(wrong) else ""
        raise ArgumentError(f"there is no metric {', '.join(wrong) or 'given'}{pairs}; valid: {', '.join(valid)}")
    return [metric for metric in known if names is None or metric.name in names]


@contextmanager
def gathered() -> Iterator[list[str]]:
    """The warnings of a block, each once: listed for the report, and given on to the caller of who measures."""
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", EdgeGANWarning)
        yield told
    told += dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, EdgeGANWarning))
    for message in told:
        warnings.warn(message, EdgeGANWarning, stacklevel=4)
    for other in caught:
        if not issubclass(other.category, EdgeGANWarning):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)


@contextmanager
def quiet() -> Iterator[None]:
    """For what is measured once more, of other pictures: its warnings would be the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdgeGANWarning)
        yield


def missing_of(chosen: Sequence[Metric], comparison: Comparison, named: bool) -> dict[str, str]:
    """Those that cannot be measured, by name, and why. Raises ArgumentError if they were named."""
    found = {metric.name: why for metric in chosen if (why := metric.lack(comparison))}
    if named and found:
        raise ArgumentError("; ".join(f"{name} cannot be measured: {why}" for name, why in found.items()))
    return found


def among(scores: Mapping[str, Score]) -> list[Metric]:
    """The metrics of these scores."""
    return [metric for metric in (*PAIRED, *METRICS) if metric.name in scores]


def floor_of(scores: Mapping[str, Score], comparison: Comparison, progress: Progress | None) -> dict[str, Score]:
    """The same of real pictures in the drawn ones' place, where there are enough."""
    if len(comparison.real) < 4:
        return {}
    with quiet():
        return measure(among(scores), real_against_real(comparison), progress, "scores of real pictures")


def measure(
    metrics: Sequence[Metric], comparison: Comparison, progress: Progress | None, what: str
) -> dict[str, Score]:
    """Those that can be measured, by name."""
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
    return replace(c, drawn=c.real.part(np.sort(order[:n])), real=c.real.part(np.sort(order[n:])), pairs=None)
