"""A run's curves, grids and alarms for TensorBoard:  tensorboard --logdir RUN

They repeat log.jsonl and samples/, where they can be watched and where runs can be compared. Nothing is read from them.
"""

import dataclasses
import re
import threading
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from edgegan.errors import EdgeGANWarning, one_line
from edgegan.trainer.progress import AlarmWatch
from edgegan.trainer.report import config_table
from edgegan.trainer.run import Run
from edgegan.trainer.scoring.score import INCEPTION, OF_INCEPTION

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FLUSH_SECONDS = 3600  # every record is flushed as it comes: the writer's own clock has nothing to add


class Events:
    """Writes event files into RUN/tensorboard for a run that goes on from `nimg` images; a Reporter of the loop.

    What earlier files say of later images is hidden, as `Run.rewind_log` drops it from the log: a resumed run's curves
    have no point twice. TensorBoard's steps are images shown. What the run is stands under Text as a table, and under
    HParams as a row to compare runs by.

    Training never ends because of this: at the first error (a full disk, a folder without permission, whatever the
    package raises) there is one EdgeGANWarning, and from then on nothing is written. Without the package tensorboard
    nothing is written either.
    """

    def __init__(self, run: Run, nimg: int) -> None:
        self.folder, self.alarms = run.folder / "tensorboard", AlarmWatch()
        self.writer: SummaryWriter | None = None
        self.hook = threading.excepthook
        if find_spec("tensorboard") is None:
            return
        threading.excepthook = self._on_thread_error
        try:
            from torch.utils import tensorboard  # here: its import takes an eighth of a second

            begins = nimg == 0 or not any(self.folder.glob("events.out.tfevents.*"))
            # TensorBoard hides what has this step or a later one; what was written at nimg itself stays.
            purge_step = nimg + 1 if nimg else 0
            self.writer = tensorboard.SummaryWriter(str(self.folder), purge_step=purge_step, flush_secs=FLUSH_SECONDS)
            for record in run.read_log():  # what goes on from before does not begin again
                if record["nimg"] <= nimg:
                    self.alarms.update(record)
        except Exception as error:
            self._give_up(error)
            return
        if begins:
            self._try(lambda writer: _write_config(writer, run))

    def __enter__(self) -> "Events":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advance(self, nimg: int) -> None:
        """Nothing: records tell the speed."""

    def record(self, record: dict[str, Any]) -> None:
        """The numbers of a record of log.jsonl as points of curves; alarms that begin or end as text."""
        nimg = record["nimg"]
        scalars: dict[str, float] = {k: record[k] for k in ("images_per_second", "memory_mb") if k in record}
        scalars |= {f"distance/{name}": record[name] for name in ("swd", "swd_real", "psnr") if name in record}
        for group in ("losses", "health"):
            scalars |= {f"{group}/{name}": value for name, value in record.get(group, {}).items()}
        if "score" in record:
            scalars |= {f"{_score_tag(record['features'])}/{name}": value for name, value in record["score"].items()}
        begun, over = self.alarms.update(record)

        def write(writer: "SummaryWriter") -> None:
            for tag, value in scalars.items():
                writer.add_scalar(tag, value, nimg)
            for kind, message in begun.items():
                writer.add_text(f"alarms/{kind}", message, nimg)
            for kind in over:
                writer.add_text(f"alarms/{kind}", "over", nimg)

        self._try(write)

    def sample(self, nimg: int, grid: np.ndarray) -> None:
        """The fixed-seed grid, uint8 [H, W, C]."""
        self.image("samples", grid, nimg)

    def image(self, tag: str, grid: np.ndarray, nimg: int) -> None:
        """A picture, uint8 [H, W, C] with C = 1 or 3; TensorBoard shows some ten of a tag, evenly picked."""
        self._try(lambda writer: writer.add_image(tag, grid, nimg, dataformats="HWC"))

    def scoring(self, done: int, total: int, what: str) -> None:
        """Nothing: the scores come with the record."""

    def close(self) -> None:
        """Finish the file; later calls do nothing."""
        self._try(lambda writer: writer.close())
        self.writer = None
        if threading.excepthook == self._on_thread_error:
            threading.excepthook = self.hook

    def _try(self, write: Callable[["SummaryWriter"], None]) -> None:
        if self.writer is None:
            return
        try:
            write(self.writer)
            self.writer.flush()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.writer = None
        text = f"no more curves for TensorBoard in {self.folder}: {one_line(error)}; the training goes on"
        warnings.warn(text, EdgeGANWarning, stacklevel=2)

    def _on_thread_error(self, args: Any) -> None:
        """The writer's thread hands its error to our next call: without this, Python would print a traceback, too."""
        if not type(args.thread).__module__.startswith("tensorboard."):
            self.hook(args)


def _score_tag(network: str) -> str:
    """The group of scores by a network: those by another are no points of the same curves when runs are compared."""
    return "score-" + re.sub(r"[^-\w.]", "_", network)


def _write_config(writer: "SummaryWriter", run: Run) -> None:
    from torch.utils.tensorboard.summary import hparams

    settings = run.settings
    values = {"recipe": settings.recipe, "data": settings.data.name, "seed": str(settings.seed)}
    values |= {"precision": settings.precision, **dataclasses.asdict(run.config)}
    writer.add_text("config", config_table(run), 0)
    assert writer.file_writer is not None
    # Not writer.add_hparams, which would make a second run of it in a folder of its own.
    metrics: dict[str, None] = {"distance/swd": None}
    if settings.score is not None:
        title = OF_INCEPTION["frechet"] if settings.score.network_digest in INCEPTION else "frechet"
        metrics[f"{_score_tag(settings.score.network)}/{title}"] = None
    for summary in hparams(values, metrics):
        writer.file_writer.add_summary(summary, 0)
