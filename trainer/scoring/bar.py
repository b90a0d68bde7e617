"""How far a scoring is."""

import sys
import time
from contextlib import ExitStack
from typing import Any

import click

PATIENCE = 1.0  # seconds without a bar


class Bar:
    """A bar on stderr, if that is a terminal and the work lasts. Call it with (done, total, what)."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._bar: Any = None
        self._what = ""
        self._start = time.monotonic()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __call__(self, done: int, total: int, what: str) -> None:
        """`done` of `total` of `what`; a total of 0 is not known."""
        if not sys.stderr.isatty() or not total or time.monotonic() - self._start < PATIENCE:
            return
        if what != self._what:
            self._open.close()
            self._what = what
            bar = click.progressbar(length=total, label=what, file=sys.stderr, show_pos=True)
            self._bar = self._open.enter_context(bar)
        self._bar.update(done - self._bar.pos)
