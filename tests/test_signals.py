"""A signal ends a command also while it imports."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = """
import click, signal, sys, time
from edgegan._cli import run
signal.signal(signal.SIGINT, signal.{sigint})

@click.command()
def command():
    import drops
    click.echo("imported")
    time.sleep(0.3)
    click.echo("went on")

run(command, "command")
"""
DROPS = """
import os, signal
try:
    os.kill(os.getpid(), signal.{number})
    for i in range(1000):
        pass
except BaseException:  # as weak references' callbacks and extension modules do
    raise ImportError("initialization failed") from None
"""


def started(folder: Path, number: str, sigint: str = "default_int_handler", imported: bool = False) -> tuple[int, str]:
    """Exit status and output of a command, itself `imported` or not, that gets the signal while it imports a module."""
    (folder / "drops.py").write_text(DROPS.format(number=number))
    (folder / "command.py").write_text(COMMAND.format(sigint=sigint))
    words = ["-c", "import command"] if imported else ["command.py"]
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_it_waits_for_the_import_and_is_not_lost(tmp_path: Path, number: str, status: int) -> None:
    assert started(tmp_path, number) == (status, "imported\n")


def test_where_ctrl_c_is_ignored_it_stays_so(tmp_path: Path) -> None:
    assert started(tmp_path, "SIGINT", sigint="SIG_IGN") == (0, "imported\nwent on\n")


def test_a_command_that_is_itself_imported_can_be_stopped(tmp_path: Path) -> None:
    assert started(tmp_path, "SIGTERM", imported=True) == (143, "imported\n")
