"""How a long command looks while it works: a bar on a terminal, a line now and then in a log; and Ctrl-C."""

import math
import os
import signal
import sys
import time
from collections import deque
from contextlib import suppress
from types import FrameType
from typing import Any

from tqdm import tqdm

LINE_SECONDS = 15  # without a terminal: at most one line in so many seconds
PACE_SECONDS = 600  # the time left is told by the speed of so long: growing nets become slower as they grow


class PrepareBar:
    """A bar for reading a data set. Call it with (done, total, what); it appears once there is a wait."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.what = ""

    def __enter__(self) -> "PrepareBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, done: int, total: int, what: str) -> None:
        """`done` of `total` of `what`."""
        if what != self.what:
            if self.bar is not None:
                self.bar.close()
            self.what = what
            self.bar = tqdm(
                total=total,
                desc=what,
                unit="",
                unit_scale=True,
                disable=not sys.stderr.isatty(),
                leave=False,
                delay=0.5,
            )
        self.bar.update(done - self.bar.n)


class AlarmWatch:
    """Which alarms begin and which end as records come in.

    A record speaks of alarms if it has "alarms" or "health"; those that it does not list are over.
    """

    def __init__(self) -> None:
        self.current: dict[str, str] = {}  # kind -> message, in the order in which they began

    def update(self, record: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
        """Take in the next record: ({kind: message} that begin with it, kinds that are over)."""
        if "alarms" not in record and "health" not in record:
            return {}, []
        listed = {alarm["kind"]: alarm["message"] for alarm in record.get("alarms", ())}
        begun = {kind: message for kind, message in listed.items() if kind not in self.current}
        over = [kind for kind in self.current if kind not in listed]
        self.current = {kind: m for kind, m in self.current.items() if kind in listed} | begun
        return begun, over


class Pace:
    """The average speed of the last ten minutes, or since the command began, and how long the rest takes with it.

    So long that the pauses for samples, scores and checkpoints count for what they cost.
    """

    def __init__(self, total: int, nimg: int) -> None:
        self.total, self.marks = total, deque([(nimg, time.monotonic())])

    def speed(self, nimg: int) -> float:
        """Images a second, now that `nimg` are shown; 0 before anything is known."""
        now = time.monotonic()
        if now - self.marks[-1][1] >= PACE_SECONDS / 100:
            self.marks.append((nimg, now))
        while len(self.marks) > 1 and now - self.marks[1][1] >= PACE_SECONDS:
            self.marks.popleft()
        shown, seconds = nimg - self.marks[0][0], now - self.marks[0][1]
        return shown / seconds if seconds else 0

    def left(self, nimg: int) -> str:
        """The time that the others take; "" before anything is known."""
        speed = self.speed(nimg)
        return str(tqdm.format_interval(max(0, self.total - nimg) / speed)) if speed else ""


class _KimgBar(tqdm):
    """A bar that counts images and shows thousands of them, at a pace once it is given one."""

    pace: Pace | None = None

    @property
    def format_dict(self) -> dict[str, Any]:
        """What its bar_format can name."""
        values = super().format_dict
        n, pace = values["n"], self.pace
        shown = {"speed": f"{pace.speed(n):.0f}", "left": pace.left(n) or "?"} if pace else {"speed": "?", "left": "?"}
        return {**values, **shown, "kimg": f"{n / 1000:.1f}", "of": f"{values['total'] / 1000:g}"}


class TrainingBar:
    """The loop's Reporter: thousands of images, speed, time left, losses, memory, distance to the data, scores, alarms.

    On a terminal it is a bar on stderr, red while an alarm lasts; else a line on stdout with new scores, and at most
    every 15 seconds. An alarm is told in a line of its own when it begins, and when it is over. For the time left see
    `Pace`. `quiet`: show nothing, for all but the first of several processes.
    """

    def __init__(self, total: int, nimg: int, quiet: bool = False) -> None:
        self.terminal, self.quiet = sys.stderr.isatty(), quiet
        self.bar = _KimgBar(
            total=max(total, nimg),
            initial=nimg,
            bar_format="{percentage:3.0f}%|{bar}| {kimg}/{of} kimg [{elapsed}<{left}, {speed} images/s]{postfix}",
            dynamic_ncols=True,
            disable=quiet or not self.terminal,
        )
        self.total, self.nimg, self.swd, self.score, self.alarms = total, nimg, "", "", AlarmWatch()
        self.pace = self.bar.pace = Pace(total, nimg)
        self.last_line = -math.inf

    def __enter__(self) -> "TrainingBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def advance(self, nimg: int) -> None:
        """`nimg` images have been shown by now."""
        self.nimg = nimg
        self.bar.update(min(nimg, self.total) - self.bar.n)

    def record(self, record: dict[str, Any]) -> None:
        """Show a record of log.jsonl: the newest losses, memory, distance and alarms."""
        begun, over = self.alarms.update(record)
        for kind, message in begun.items():
            self._tell(f"ALARM {kind} at {record['kimg']:.1f} kimg: {message}")
        for kind in over:
            self._tell(f"alarm {kind} is over at {record['kimg']:.1f} kimg")
        if "swd" in record:
            self.swd = f"swd {record['swd']:.1f} (real {record['swd_real']:.1f})"
            self.swd += f" psnr {record['psnr']:.1f}" if "psnr" in record else ""
        if "score" in record:
            name, value = next(iter(record["score"].items()))  # the one that says which checkpoint is best
            self.score = f"{name} {value:.3g} ({record['features']})"
        losses = " ".join(f"{name} {value:.3g}" for name, value in record["losses"].items())
        memory = memory_text(record["memory_mb"]) if "memory_mb" in record else ""
        mark = f"ALARM {list(self.alarms.current)[-1]}" if self.alarms.current else ""
        if self.terminal:
            # The alarm comes first: a narrow terminal cuts off what is at the end.
            self.bar.colour = "red" if mark and "NO_COLOR" not in os.environ else None
            self.bar.set_postfix_str(
                ", ".join(filter(None, (mark, self.score, self.swd, losses, memory))), refresh=False
            )
            return
        now = time.monotonic()
        if now - self.last_line >= LINE_SECONDS or record["nimg"] >= self.total or "score" in record:
            self.last_line = now
            place = self._place(record["nimg"])
            speed = f"{record['images_per_second']:.0f} images/s"
            left = self.pace.left(record["nimg"]) if record["nimg"] < self.total else ""
            left = left and f"{left} left"
            parts = (place, speed, left, memory, losses, self.swd, self.score, mark)
            self._print(", ".join(filter(None, parts)))

    def sample(self, nimg: int, grid: Any) -> None:
        """Nothing: the grid is in the run folder."""

    def scoring(self, done: int, total: int, what: str) -> None:
        """Say that training stands still, and why: `done` of `total` of `what` are done."""
        text = f"scoring: {done:,} of {total:,} {what}"
        if self.terminal:
            self.bar.set_postfix_str(text)
        elif time.monotonic() - self.last_line >= LINE_SECONDS:
            self.last_line = time.monotonic()
            self._print(f"{self._place(self.nimg)}, {text}")

    def _tell(self, line: str) -> None:
        """A line of its own, above the bar if there is one."""
        if self.terminal and not self.quiet:
            self.bar.write(line, file=sys.stderr)
        else:
            self._print(line)

    def _place(self, nimg: int) -> str:
        return f"{nimg / 1000:.1f} of {self.total / 1000:g} kimg"

    def _print(self, line: str) -> None:
        if not self.quiet:
            with suppress(BrokenPipeError):  # who reads along may go; the training goes on
                print(line, flush=True)


def memory_text(megabytes: float) -> str:
    """Megabytes as a person reads them.

    >>> memory_text(812.4), memory_text(10240)
    ('812 MB', '10.2 GB')
    """
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


class Interrupt:
    """While open, Ctrl-C and SIGTERM ask for an orderly stop; a second Ctrl-C stops at once.

    `status` is 0, or once a stop was asked for the exit status: 130 or 143. `quiet`: say nothing, for all but the first
    of several processes.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.status, self.quiet = 0, quiet

    def __enter__(self) -> "Interrupt":
        self.before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.status and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.status = 128 + number
        if self.quiet:
            return
        with suppress(OSError):  # not print: the signal may come in the middle of one
            os.write(2, b"\nstopping after this iteration (Ctrl-C again: at once) ...\n")
