"""What a run shows at its end: progress.gif of the sample grids and curves.png of the log."""

import io
import math

import numpy as np
from PIL import Image

from edgegan import image
from edgegan._files import atomic_write
from edgegan.trainer.run import Run

MAX_FRAMES = 60
FRAME_MS = 120
LAST_MS = 2000


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


def draw_curves(run: Run) -> None:
    """RUN/curves.png: each loss term, and the distance to the data, over thousands of images shown."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no global pyplot state, no display
    from matplotlib.figure import Figure

    records = run.read_log()
    if not records:  # somebody took the log away
        return
    kimg = [record["kimg"] for record in records]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    losses, distance = figure.subplots(1, 2)
    for term in dict.fromkeys(name for record in records for name in record["losses"]):
        losses.plot(kimg, [record["losses"].get(term, math.nan) for record in records], label=term, lw=1)
    losses.set(xlabel="kimg", title="losses")
    losses.legend()
    measured = [r for r in records if "swd" in r]
    distance.plot([r["kimg"] for r in measured], [r["swd"] for r in measured], marker=".", lw=1)
    if measured and "swd_real" in measured[-1]:
        distance.axhline(measured[-1]["swd_real"], ls="--", lw=1, color="grey", label="between real pictures")
        distance.legend()
    distance.set(xlabel="kimg", title="sliced Wasserstein distance to the data", yscale="log")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    with atomic_write(run.folder / "curves.png") as file:
        file.write(buffer.getvalue())
