"""The command `edgegan`. Each subcommand is a file in edgegan/commands, imported when it runs."""

import importlib
import os
import sys
from contextlib import suppress

import click

import edgegan
from edgegan._cli import debug_option, run

COMMANDS = ("sample", "walk", "translate", "info", "verify", "reproduce", "bench", "doctor", "completion")


class Commands(click.Group):
    """The subcommands, each imported when it is needed: a start costs what it uses."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"edgegan.commands.{name}"), name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(edgegan.__version__, prog_name="edgegan")
@debug_option
def cli() -> None:
    """Draw pictures with a GAN from one ONNX file, without PyTorch.

    \b
    edgegan sample                          16 handwritten digits into samples.png
    edgegan sample faces.onnx -n 64 --seed 7 -o faces.png
    edgegan walk                            an animation between digits, walk.gif
    edgegan translate sharper.onnx photos/ -o sharper/   image to image, for models that do that
    edgegan info faces.onnx                 what a model is
    edgegan verify faces.onnx               whether it works on this device
    edgegan bench faces.onnx                how fast it is here
    edgegan doctor                          what this installation is, and what to fix

    Train models with edgegan-train, turn them into a file with edgegan-export.
    """


def main() -> None:
    """The console script's entry point."""
    # NumPy's BLAS would start a thread for each processor, and none of our commands multiplies matrices with it. A
    # choice of the command alone: the library leaves the process as it is.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        run(cli, "edgegan")
    except SystemExit as done:
        # All files are closed by now, and to take the interpreter and onnxruntime apart would be a sixth of a short
        # command's time. `run` has flushed stdout and said what it could not take.
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(int(done.code or 0))
