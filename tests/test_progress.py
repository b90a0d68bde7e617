"""What a training shows while it works: lines in a log, a bar on a terminal, alarms, and how it takes signals."""

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from typing import Any

import pytest

from edgegan.trainer import progress
from edgegan.trainer.progress import AlarmWatch, Interrupt, TrainingBar

COLLAPSE = {"kind": "collapse", "message": "all pictures look alike; lower --lr"}
VANISHING = {"kind": "vanishing", "message": "G learns nothing"}


def record(nimg: int, **more: Any) -> dict[str, Any]:
    """A record of log.jsonl."""
    losses = {"D": 0.694, "G": 1.25}
    return {"nimg": nimg, "kimg": nimg / 1000, "losses": losses, "seconds": 1.0, "images_per_second": 312.4} | more


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock of the module, to be set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_has_a_line_every_15_seconds_and_the_last_one(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with TrainingBar(4000, 0) as bar:
        for nimg in range(500, 4001, 500):
            clock[0] += 6
            bar.advance(nimg)
            bar.record(record(nimg, memory_mb=812.4, swd=45.26, swd_real=4.2) if nimg == 500 else record(nimg))
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.splitlines() == [  # at 6, 24, 42 and 48 seconds; each image takes 12 ms
        "0.5 of 4 kimg, 312 images/s, 00:42 left, 812 MB, D 0.694 G 1.25, swd 45.3 (real 4.2)",
        "2.0 of 4 kimg, 312 images/s, 00:24 left, D 0.694 G 1.25, swd 45.3 (real 4.2)",
        "3.5 of 4 kimg, 312 images/s, 00:06 left, D 0.694 G 1.25, swd 45.3 (real 4.2)",
        "4.0 of 4 kimg, 312 images/s, D 0.694 G 1.25, swd 45.3 (real 4.2)",
    ]


def test_a_log_tells_of_scores_and_that_they_are_being_measured(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    bar = TrainingBar(8000, 0)
    bar.advance(2000)
    bar.record(record(2000))
    for done in (1000, 2000, 3000):
        clock[0] += 10
        bar.scoring(done, 3000, "drawn pictures")
    bar.record(record(2000, score={"frechet": 12.345, "recall": 0.5}, features="lenet"))
    clock[0] += 20
    bar.record(record(4000))
    assert capsys.readouterr().out.splitlines() == [
        "2.0 of 8 kimg, 312 images/s, D 0.694 G 1.25",
        "2.0 of 8 kimg, scoring: 2,000 of 3,000 drawn pictures",
        "2.0 of 8 kimg, 312 images/s, 01:30 left, D 0.694 G 1.25, frechet 12.3 (lenet)",
        "4.0 of 8 kimg, 312 images/s, 00:50 left, D 0.694 G 1.25, frechet 12.3 (lenet)",
    ]


def test_the_time_left_of_a_resumed_run_is_that_of_its_own_images(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    bar = TrainingBar(10_000, 9000)
    clock[0] = 10
    bar.record(record(9100))
    assert "01:30 left" in capsys.readouterr().out


def test_the_time_left_follows_the_speed_of_the_last_ten_minutes(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nets that grow are slower at the end: what they showed when they were small says nothing of the rest."""
    bar, nimg = TrainingBar(200_000, 0), 0
    for speed in (100, 10):
        for _ in range(60):
            clock[0] += 20
            nimg += 20 * speed
            bar.record(record(nimg))
    lines = capsys.readouterr().out.splitlines()
    assert lines[59].startswith("120.0 of 200 kimg, 312 images/s, 13:20 left, ")  # 80,000 at 100 a second
    assert lines[-1].startswith("132.0 of 200 kimg, 312 images/s, 1:53:20 left, ")  # 68,000 at 10


def test_an_alarm_is_told_when_it_begins_and_when_it_is_over(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    bar = TrainingBar(10_000, 0)
    health = {"health": {"diversity": 0.1}}
    bar.record(record(1000, **health))
    for nimg in (2000, 3000):
        bar.record(record(nimg, **health, alarms=[COLLAPSE]))
    bar.record(record(4000))  # the monitors did not look: nothing is over
    bar.record(record(5000, **health, alarms=[COLLAPSE, VANISHING]))
    clock[0] = 20
    bar.record(record(6000, **health, alarms=[VANISHING]))
    bar.record(record(7000, **health))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "kimg," not in line] == [
        "ALARM collapse at 2.0 kimg: all pictures look alike; lower --lr",
        "ALARM vanishing at 5.0 kimg: G learns nothing",
        "alarm collapse is over at 6.0 kimg",
        "alarm vanishing is over at 7.0 kimg",
    ]
    assert next(line for line in lines if line.startswith("6.0 of")).endswith(", ALARM vanishing")


def test_alarms_begin_again_after_they_were_over() -> None:
    watch = AlarmWatch()
    seen = [watch.update(record(i, health={}, alarms=[COLLAPSE] if i % 2 else [])) for i in range(4)]
    assert seen == [
        ({}, []),
        ({"collapse": COLLAPSE["message"]}, []),
        ({}, ["collapse"]),
        ({"collapse": COLLAPSE["message"]}, []),
    ]


def test_quiet_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with TrainingBar(1000, 0, quiet=True) as bar, Interrupt(quiet=True) as interrupted:
        bar.advance(1000)
        bar.record(record(1000, alarms=[COLLAPSE]))
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupted.status
    assert capfd.readouterr() == ("", "")
    assert interrupted.status == 143


def test_the_first_ctrl_c_asks_and_the_second_stops(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupted:
        assert not interrupted.status
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted.status
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert interrupted.status == 130
    assert capfd.readouterr().err.count("stopping after this iteration") == 1
    assert signal.getsignal(signal.SIGINT) is before


def on_a_terminal(code: str, columns: int, **environment: str) -> list[str]:
    """What Python code shows on a terminal of so many columns, each redrawn line as one."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | environment
    with subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env=env) as child:
        os.close(theirs)
        shown, deadline = b"", time.monotonic() + 60
        while time.monotonic() < deadline and select.select([ours], [], [], 60)[0]:
            try:
                data = os.read(ours, 65536)
            except OSError:  # Linux: the other end is closed
                break
            if not data:
                break
            shown += data
    os.close(ours)
    assert child.returncode == 0, shown.decode()
    return [line for line in re.split(r"[\r\n]+", shown.decode()) if line.strip()]


ON_TERMINAL = """
from edgegan.trainer.progress import TrainingBar
r = {"losses": {"D": 0.694, "G": 1.25}, "images_per_second": 300.0, "memory_mb": 1234.0, "swd": 45.26, "swd_real": 4.2}
with TrainingBar(8000, 4000) as bar:
    for nimg in (4500, 5000, 5500, 8000):
        alarms = [{"kind": "collapse", "message": "all alike"}] if nimg == 5000 else []
        bar.advance(nimg)
        bar.record(r | {"nimg": nimg, "kimg": nimg / 1000, "health": {}, "alarms": alarms})
        bar.bar.refresh()
    bar.scoring(100, 2000, "drawn pictures")
    bar.record(r | {"nimg": 8000, "kimg": 8.0, "score": {"frechet": 1.5}, "features": "lenet"})
    bar.bar.refresh()
"""


def test_a_terminal_has_a_bar_with_all_of_it_and_a_red_one_while_an_alarm_lasts() -> None:
    lines = on_a_terminal(ON_TERMINAL, 150)
    bars = [line for line in lines if "|" in line]
    fits = re.compile(r"100%\|.*\| 8\.0/8 kimg \[\d\d:\d\d<\d\d:\d\d, \d+ images/s\], (.*)")
    found = fits.fullmatch(bars[-1])
    assert found is not None, bars[-1]
    assert found[1].rstrip() == "frechet 1.5 (lenet), swd 45.3 (real 4.2), D 0.694 G 1.25, 1.2 GB"
    assert any("], scoring: 100 of 2,000 drawn pictures" in line for line in bars)
    assert "50%|" in bars[0]
    alarmed = [line for line in bars if ", ALARM collapse, swd 45.3" in line]
    assert alarmed
    assert all(("\x1b[31m" in line) == (line in alarmed) for line in bars if "swd" in line)
    told = [line for line in lines if "|" not in line]
    assert told == ["ALARM collapse at 5.0 kimg: all alike", "alarm collapse is over at 5.5 kimg"]


def test_a_narrow_terminal_still_shows_the_alarm() -> None:
    lines = on_a_terminal(ON_TERMINAL, 80, NO_COLOR="1")
    assert any("kimg [" in line and "ALARM collapse" in line for line in lines)
    assert not any("\x1b[31m" in line for line in lines)
