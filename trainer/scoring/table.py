"""What people read of a report."""

import math
from typing import Any

from edgegan._cli import aligned
from edgegan.trainer.scoring.metrics import METRICS, PAIRED, Score
from edgegan.trainer.scoring.score import Report


def table(report: Report) -> list[str]:
    """Its lines: what was measured of what, a row for each score, and what is missing."""
    facts = report.facts
    data, network = facts["data"], facts["features"]
    seen = f"{network['name']} ({network['sha256'][:12]}, {network['dimensions']} features)"
    lines = [f"{facts['model']['file']} against {data['name']} in the eyes of {seen}", *_pictures(report)]
    if facts["on_white"]:
        lines.append("the model's transparent pictures were laid on white")
    lines += ["", *aligned(_rows(report), *range(1, 4 if report.source else 3))]
    if report.per_class:
        each = list(report.per_class.items())
        kinds = list(each[0][1])
        shown = [(name, *(f"{found[kind]:.4g}" for kind in kinds)) for name, found in each]
        lines += ["", *aligned([("class", *kinds), *shown], *range(1, len(kinds) + 1))]
    if report.missing:
        lines += ["", *(f"not measured: {name}: {why}" for name, why in report.missing.items())]
    return lines


def _pictures(report: Report) -> list[str]:
    """How many of which, and what the columns are of."""
    samples: dict[str, Any] = report.facts["samples"]
    source: dict[str, Any] | None = report.facts.get("source")
    drawn, real = samples["drawn"], f"{samples['real']:,} real ones"
    floor = ""
    if report.floor:
        n, others = samples["floor"]
        floor = f'; column "real": {n:,} of these against the other {others:,}'
    if source is None:
        return [f"{drawn:,} pictures drawn of seed {samples['seed']}, {real}{floor}"]
    (h, w), scale = source["size"], source["scale"]
    pairs = ", in pairs" if source["paired"] else ""
    untouched = "as they are" if scale == 1 else f"enlarged {scale} times, bicubic"
    sizes = f"{w} x {h} to {w * scale} x {h * scale}"
    return [
        f"{drawn:,} of the {source['pictures']:,} pictures of {source['name']}, {sizes}, {real}{pairs}",
        f'column "source": these pictures {untouched}{floor}',
    ]


def _rows(report: Report) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("score", "value", *["source"] * bool(report.source), "real", "better", "what it is")
    ]
    for metric in (*PAIRED, *METRICS):
        name = metric.name
        if name in report.scores:
            others = [report.source.get(name)] if report.source else []
            values = map(_shown, (report.scores[name], *others, report.floor.get(name)))
            rows.append((report.title(name), *values, metric.better, metric.about))
    return rows


def _shown(score: Score | None) -> str:
    """A value, to two digits of its error where it has one."""
    if score is None:
        return "-"
    if not score.error:
        return f"{score.value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(score.error)))
    return f"{score.value:.{digits}f} ± {score.error:.{digits}f}"
