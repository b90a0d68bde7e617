"""What a run shows at its end: progress.gif of the sample grids and curves.png of the log."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegan import image
from edgegan._files import atomic_write
from edgegan.trainer.progress import AlarmWatch
from edgegan.trainer.run import Run

MAX_FRAMES = 60
FRAME_MS = 120
LAST_MS = 2000
MAX_POINTS = 250  # of a curve; a panel is some 400 pixels wide
MAX_MARKERS = 50  # more points than that need no marks
DISTANCES = {  # scores with a scale of their own: title, kind of scale
    "frechet": ("Fréchet distance", "log"),
    "FID": ("FID", "log"),
    "kernel": ("kernel distance", "linear"),
    "KID": ("KID", "linear"),
}
REAL = "other real pictures"  # the curve that the distance is held against
ALARM_COLOURS = {
    "collapse": "red",
    "overpowered": "orange",
    "overfitting": "purple",
    "vanishing": "saddlebrown",
    "exploding": "deeppink",
}


def make_progress_gif(run: Run) -> None:
    """RUN/progress.gif: the fixed-seed grids in order, at most 60 of them evenly picked, the last one held."""
    paths = sorted(run.samples.glob("[0-9]*.png"))
    picked = sorted({round(i) for i in np.linspace(0, len(paths) - 1, min(len(paths), MAX_FRAMES))})
    frames = []
    for i in picked:
        with Image.open(paths[i]) as grid:
            frames.append(np.atleast_3d(np.asarray(grid)))
    if not frames:  # somebody took the samples away
        return
    image.save_animation(run.folder / "progress.gif", frames, [FRAME_MS] * (len(frames) - 1) + [LAST_MS])


@dataclass(frozen=True)
class Episode:
    """An alarm from the record that began it to the one that saw it over."""

    kind: str
    message: str
    begin: float  # kimg
    end: float | None  # kimg; None: it lasted to the last record


def alarm_episodes(records: list[dict[str, Any]]) -> list[Episode]:
    """Every alarm of a log, in the order in which they began."""
    watch = AlarmWatch()
    found: list[Episode] = []
    since: dict[str, tuple[str, float]] = {}
    for record in records:
        begun, over = watch.update(record)
        found += [Episode(kind, *since.pop(kind), record["kimg"]) for kind in over]
        since |= {kind: (message, record["kimg"]) for kind, message in begun.items()}
    found += [Episode(kind, *began, None) for kind, began in since.items()]
    return sorted(found, key=lambda episode: episode.begin)


def draw_curves(run: Run) -> None:
    """RUN/curves.png: losses, distance to the data, and what the monitors saw, over thousands of images shown.

    Spans of alarms are shaded. Of more than 250 records a curve shows means of neighbours, within a band from the least
    to the greatest of them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no global pyplot state, no display
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    records = run.read_log()
    if not records:  # somebody took the log away
        return
    panels = _panels(records)
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(9, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, 2, squeeze=False).flat)
    for axis in axes[len(panels) :]:
        axis.remove()
    first = axes[0]
    for axis, (title, scale, curves) in zip(axes, panels, strict=False):
        for name, points in curves.items():
            _plot(axis, name, points)
        axis.set(xlabel="kimg", title=title, xlim=(0, records[-1]["kimg"]))
        if scale == "log" and any(value > 0 for _, values in curves.values() for value in values):
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))
        for episode in alarm_episodes(records):
            end = records[-1]["kimg"] if episode.end is None else episode.end
            colour = ALARM_COLOURS.get(episode.kind, "grey")
            axis.axvspan(episode.begin, end, color=colour, alpha=0.15, lw=0)
            axis.axvline(episode.begin, color=colour, lw=1, label=f"alarm: {episode.kind}" if axis is first else None)
        # One entry for each label: an alarm may come more than once.
        handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        axis.legend(handles.values(), handles.keys(), fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    with atomic_write(run.folder / "curves.png") as file:
        file.write(buffer.getvalue())


Points = tuple[list[float], list[float]]  # kimg, values


def _panels(records: list[dict[str, Any]]) -> list[tuple[str, str, dict[str, Points]]]:
    """(title, scale of y, curves by name) of every panel that has something to show."""
    distance = _curves([{k: r[k] for k in ("swd", "swd_real") if k in r} for r in records], records)
    names = {"swd": "drawn pictures", "swd_real": REAL}
    health = _curves([r.get("health", {}) for r in records], records)
    norms = {name: points for name, points in health.items() if name.startswith("gradient")}
    panels = [
        ("losses", "linear", _curves([r["losses"] for r in records], records)),
        ("sliced Wasserstein distance to the data", "log", {names[k]: v for k, v in distance.items()}),
        (
            "PSNR to the true pictures in dB",
            "linear",
            _curves([{k: r[k] for k in r if k == "psnr"} for r in records], records),
        ),
        ("health", "linear", {name: points for name, points in health.items() if name not in norms}),
        ("norms of gradients", "log", norms),
        *_score_panels(records),
    ]
    return [panel for panel in panels if panel[2]]


def _score_panels(records: list[dict[str, Any]]) -> list[tuple[str, str, dict[str, Points]]]:
    """Distances, each by itself since each has its own scale, and what are shares or as large as them."""
    curves = _curves([r.get("score", {}) for r in records], records)
    by = next((f" ({r['features']})" for r in records if "features" in r), "")
    alone = [name for name in DISTANCES if name in curves]
    rest = {name: points for name, points in curves.items() if name not in alone}
    return [
        *((DISTANCES[name][0] + by, DISTANCES[name][1], {name: curves[name]}) for name in alone),
        (f"{', '.join(rest)}{by}", "linear", rest),
    ]


def _curves(parts: list[dict[str, float]], records: list[dict[str, Any]]) -> dict[str, Points]:
    """Each name's points, from those records whose part has it."""
    curves: dict[str, Points] = {}
    for part, record in zip(parts, records, strict=True):
        for name, value in part.items():
            kimg, values = curves.setdefault(name, ([], []))
            kimg.append(record["kimg"])
            values.append(value)
    return curves


def _plot(axis: Any, name: str, points: Points) -> None:
    kimg, mean, low, high = thinned(*points)
    style: dict[str, Any] = {"color": "grey", "ls": "--"} if name == REAL else {}
    if len(kimg) <= MAX_MARKERS and not style:
        style["marker"] = "."
    (line,) = axis.plot(kimg, mean, lw=1, label=name, **style)
    if len(kimg) < len(points[0]):
        axis.fill_between(kimg, low, high, color=line.get_color(), alpha=0.2, lw=0)


def thinned(kimg: list[float], values: list[float]) -> tuple[NDArray[np.float64], ...]:
    """At most 250 points for a curve, each of neighbouring ones: (mean kimg, mean, least and greatest value)."""
    parts = min(len(kimg), MAX_POINTS)
    x, y = (np.array_split(np.asarray(column, np.float64), parts) for column in (kimg, values))
    means = (np.array([part.mean() for part in column]) for column in (x, y))
    return (*means, np.array([part.min() for part in y]), np.array([part.max() for part in y]))
