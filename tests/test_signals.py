"""A signal ends a command also while it imports."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = """
import click, signal, time
from edgegan import _signals
from edgegan._cli import run
signal.signal(signal.SIGINT, signal.{sigint})
_signals.PATIENCE = {patience}

@click.command()
def command():
    import signalled
    time.sleep({pause})
    click.echo("went on")

run(command, "command")
"""
SIGNALLED = """
import os, signal, time
try:
    for _ in range({times}):
        os.kill(os.getpid(), signal.{number})
    time.sleep({takes})
except BaseException:  # as weak references' callbacks and extension modules do
    if {drops}:
        raise ImportError("initialization failed") from None
    raise
print("imported", flush=True)
"""


def ends(
    folder: Path,
    number: str,
    *,
    times: int = 1,
    takes: float = 0.1,
    drops: bool = True,
    sigint: str = "default_int_handler",
    patience: float = 10,
    imported: bool = False,
) -> tuple[int, str]:
    """Exit status and output of a command, itself `imported` or not, that gets the signal while it imports a module."""
    pause = 0.3 if sigint == "SIG_IGN" else 30
    (folder / "signalled.py").write_text(SIGNALLED.format(number=number, times=times, takes=takes, drops=drops))
    (folder / "command.py").write_text(COMMAND.format(sigint=sigint, patience=patience, pause=pause))
    words = ["-c", "import command"] if imported else ["command.py"]
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_it_waits_for_the_import_and_is_not_lost(tmp_path: Path, number: str, status: int, times: int) -> None:
    assert ends(tmp_path, number, times=times) == (status, "imported\n")


def test_an_import_that_hangs_is_interrupted(tmp_path: Path) -> None:
    assert ends(tmp_path, "SIGTERM", takes=30, drops=False, patience=0.1) == (143, "")


def test_where_ctrl_c_is_ignored_it_stays_so(tmp_path: Path) -> None:
    assert ends(tmp_path, "SIGINT", sigint="SIG_IGN") == (0, "imported\nwent on\n")


def test_a_command_that_is_itself_imported_can_be_stopped(tmp_path: Path) -> None:
    assert ends(tmp_path, "SIGTERM", imported=True) == (143, "imported\n")
