"""The subcommands of `edgegan`, a file each; this one has what several of them take."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

import click

from edgegan._cli import WholeNumber
from edgegan.devices import AUTO, PROVIDERS
from edgegan.errors import printable

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

COUNT = WholeNumber(1, 10**12)
SEED = WholeNumber(0, 2**64 - 1)


def model_argument(function: F) -> F:
    """Decorator: the optional MODEL."""
    return click.argument("model", required=False, type=click.Path(path_type=str))(function)


def device_options(function: F) -> F:
    """Decorator: --provider and --threads, as `edgegan.load` takes them."""
    function = click.option(
        "--threads", type=WholeNumber(1, 1024), help="Processor threads.  [default: all that this process may use]"
    )(function)
    return click.option(
        "--provider",
        type=click.Choice([AUTO, *PROVIDERS]),
        default=AUTO,
        show_default=True,
        metavar="NAME",
        help=f"What runs the model: {', '.join(PROVIDERS)}, or {AUTO}, a GPU if one works.",
    )(function)


class Range(click.ParamType):
    """Two numbers with a comma between them."""

    name = "LOW,HIGH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        try:
            low, high = map(float, str(value).split(","))
        except ValueError:
            self.fail(f"{str(value)!r} is not two numbers with a comma between them, as in 0,1", param, ctx)
        return low, high


def foreign_options(function: F) -> F:
    """Decorator: what describes a generator of another origin, given to the command as `foreign`, or None."""

    @wraps(function)
    def command(
        *args: Any,
        range_: tuple[float, float] | None,
        latent_name: str | None,
        label_name: str | None,
        output_name: str | None,
        classes: int | None,
        **others: Any,
    ) -> Any:
        foreign = None
        if any(given is not None for given in (range_, latent_name, label_name, output_name, classes)):
            import edgegan

            names = {"latent": latent_name, "label": label_name, "output": output_name}
            foreign = edgegan.Foreign(range=range_ or (-1.0, 1.0), classes=classes or 0, **names)
        return function(*args, foreign=foreign, **others)

    for option in (
        click.option("--classes", type=WholeNumber(1, 65536), help="Other origin: how many classes it has."),
        click.option("--output-name", metavar="NAME", help="Other origin: the output, if there are several."),
        click.option("--label-name", metavar="NAME", help="Other origin: the classes' input, if there are several."),
        click.option("--latent-name", metavar="NAME", help="Other origin: the latents' input, if there are several."),
        click.option("--range", "range_", type=Range(), help="A model of another origin: what black and white are."),
    ):
        command = option(command)
    return cast(F, command)


@contextmanager
def progress(items: Iterable[T], length: int, label: str) -> Iterator[Iterable[T]]:
    """The items, with a bar on stderr as they are taken; on anything but a terminal without."""
    if not sys.stderr.isatty():
        yield items
        return
    with click.progressbar(items, length=length, label=label, file=sys.stderr) as bar:
        yield bar


def name_of(model: str | None) -> str:
    """The model that a command was given, to be printed."""
    return "the built-in model" if model is None else printable(model)
