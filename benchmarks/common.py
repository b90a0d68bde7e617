"""What the benchmarks share: the machine's name, how busy others keep it, and the rows of a table.

Nothing large is imported here: runtime.py measures the memory of its children, which begins with its own.
"""

import os
import sys
import time
from dataclasses import dataclass

IDLE = 0.1  # processors that others may keep busy


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Others:
    """How many of the processors all other processes have kept busy since this was made; NaN where nobody tells."""

    def __init__(self) -> None:
        self._began, self._seconds = time.perf_counter(), others_seconds()

    def busy(self) -> float:
        busy = (others_seconds() - self._seconds) / (time.perf_counter() - self._began)
        return 0.0 if busy < 0 else busy


def others_seconds() -> float:
    """The processor time that all other processes have had since the machine started, where Linux tells."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            user, nice, system, *_ = map(int, file.readline().split()[1:])
    except OSError:
        return float("nan")
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


@dataclass
class Row:
    """A line of the table."""

    work: str
    ours: str
    against: str
    theirs: str
    result: str
    target: str = "none"
    met: bool = True


def show(rows: list[Row]) -> None:
    """The table in Markdown."""
    print("| work | edgegan | against | that | ratio or difference | target |")
    print("|---|---:|---|---:|---:|---:|")
    for row in rows:
        missed = "" if row.met else ", **missed**"
        print(f"| {row.work} | {row.ours} | {row.against} | {row.theirs} | {row.result} | {row.target}{missed} |")
