"""How a long command looks while it works: a bar on a terminal, a line now and then in a log; and Ctrl-C."""

import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from tqdm import tqdm

LINE_SECONDS = 15  # without a terminal: at most one line in so many seconds


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


class TrainingBar:
    """The loop's Reporter: images, speed, time left, losses, distance to the data."""

    def __init__(self, total: int, nimg: int) -> None:
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(
            total=max(total, nimg),
            initial=nimg,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not self.terminal,
        )
        self.total, self.swd, self.last_line = total, "", 0.0

    def __enter__(self) -> "TrainingBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def advance(self, nimg: int) -> None:
        """`nimg` images have been shown by now."""
        self.bar.update(min(nimg, self.total) - self.bar.n)

    def record(self, record: dict[str, Any]) -> None:
        """Show the newest losses and distance."""
        losses = " ".join(f"{name} {value:.3g}" for name, value in record["losses"].items())
        if "swd" in record:
            self.swd = f" swd {record['swd']:.1f} (real {record['swd_real']:.1f})"
        self.bar.set_postfix_str(losses + self.swd, refresh=False)
        now = time.monotonic()
        if not self.terminal and (now - self.last_line >= LINE_SECONDS or record["nimg"] >= self.total):
            self.last_line = now
            place = f"{record['kimg']:.1f} of {self.total / 1000:g} kimg, {record['images_per_second']:.0f} images/s"
            with suppress(BrokenPipeError):  # who reads along may go; the training goes on
                print(f"{place}, {losses}{self.swd}", flush=True)


class Interrupt:
    """While open, Ctrl-C and SIGTERM ask for an orderly stop; a second Ctrl-C stops at once.

    Calling it tells whether a stop was asked for; `status` is then the exit status: 130 or 143.
    """

    def __init__(self) -> None:
        self.status = 0

    def __enter__(self) -> "Interrupt":
        self.before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.status != 0

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.status and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.status = 128 + number
        with suppress(OSError):  # not print: the signal may come in the middle of one
            os.write(2, b"\nstopping after this iteration (Ctrl-C again: at once) ...\n")
