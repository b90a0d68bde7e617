"""What the console scripts share: one way to fail.

A script is a click command or group and a three-line entry point:

    @click.group()
    @debug_option
    def cli() -> None: ...

    def main() -> None:
        run(cli, "edgegan")

Errors are one line on stderr. Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import click

from edgegan._signals import raise_signals
from edgegan.errors import ArgumentError, EdgeGANError, EdgeGANWarning, printable

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class _State:
    """Travels as click's context object, so that `run` still has it when the context is gone."""

    debug: bool


class WholeNumber(click.ParamType):
    """An integer from low to high, shown as N in the help and with its range in an error."""

    name = "N"

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
        except ValueError:
            number = self.low - 1
        if not self.low <= number <= self.high:
            self.fail(f"{str(value)!r} is not a whole number from {self.low} to {self.high}", param, ctx)
        return number


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    state = ctx.find_object(_State)
    if value and state is not None:
        state.debug = True


def debug_option(function: F) -> F:
    """Decorator: adds `--debug`, which `run` obeys. For groups and commands alike."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_set_debug,
        help="Show the traceback of an error (also: EDGEGAN_DEBUG=1).",
    )(function)


def run(command: click.Command, prog: str, args: Sequence[str] | None = None) -> NoReturn:
    """Run `command` under the name `prog` on `args` (default: the process's) and exit; never returns.

    EdgeGANError, OSError and click's errors become one line. Any other exception is a bug of ours and keeps
    its traceback.
    """
    # A service, or a shell's `>&-`, may start us without them.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a class name may be beyond the terminal's charset
    with suppress(ValueError):  # outside the main thread there are no signals to handle
        # An orderly exit, so that half-written files are removed. Commands may set their own handler.
        raise_signals(run.__code__)
    show = warnings.showwarning

    def show_ours(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, EdgeGANWarning):
            click.echo(printable(f"{prog}: warning: {message}"), err=True)
        else:
            show(message, category, *rest, **more)

    warnings.showwarning = show_ours
    state = _State(debug=os.environ.get("EDGEGAN_DEBUG", "") not in ("", "0"))
    try:
        status = command.main(args=args, prog_name=prog, standalone_mode=False, obj=state)
        sys.stdout.flush()  # here, where a full disk is still an error of ours and a closed pipe is quiet
        sys.exit(status if type(status) is int else 0)
    except BrokenPipeError:
        # Python flushes stdout once more at exit: let it go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        _fail(f"{prog}: interrupted", 130, state)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else prog
        if type(error).__name__ == "NoArgsIsHelpError":  # click >= 8.2: the command alone shows its help
            error.show()
            sys.exit(2)
        line = " ".join(error.format_message().split()).rstrip(".")
        _fail(f"{path}: error: {line}. Try '{path} --help'.", 2, state)
    except click.ClickException as error:
        _fail(f"{prog}: error: {' '.join(error.format_message().split())}", 1, state)
    except (EdgeGANError, OSError) as error:
        line, status = failure(error)
        _fail(f"{prog}: error: {line}", status, state)
    finally:
        # All is said and done, and Python only clears up: a late Ctrl-C would change nothing but print a traceback.
        with suppress(ValueError):
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def aligned(rows: Sequence[Sequence[str]], *right: int) -> list[str]:
    """Columns of one width each, those at `right` flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def failure(error: EdgeGANError | OSError) -> tuple[str, int]:
    """What a command says of an error, on one line, and its exit status."""
    if isinstance(error, EdgeGANError):
        return printable(error), 2 if isinstance(error, ArgumentError) else 1
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return printable(f"{where}{error.strerror or error}"), 1


def _fail(line: str, status: int, state: _State) -> NoReturn:
    if state.debug:
        traceback.print_exc()
    click.echo(printable(line), err=True)
    sys.exit(status)
