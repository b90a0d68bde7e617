"""`edgegan sample`: draw pictures."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

import edgegan
from edgegan._cli import WholeNumber, debug_option
from edgegan._files import check_output
from edgegan.commands import COUNT, SEED, device_options, foreign_options, model_argument, name_of
from edgegan.errors import ArgumentError, printable

if TYPE_CHECKING:
    from edgegan import Foreign
    from edgegan.model import Generator
    from edgegan.output import Request

MAX_SHEET = 16384  # pixels a side of a grid
MAX_WEBP = 16383  # what that format holds
GRID, FOLDER, STDOUT = "grid", "folder", "-"  # kinds of output; the others are "npy" and "npz"
BULK = 16  # batches from which it pays that each thread draws one of its own
PATIENCE = 1.0  # seconds without a bar


class Shard(click.ParamType):
    """K/M: the K-th of M parts."""

    name = "K/M"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        parts = str(value).split("/")
        with suppress(ValueError):
            k, of = map(int, parts)
            if 1 <= k <= of <= 10**6:
                return k, of
        self.fail(f"{str(value)!r} is not K/M, the K-th of M parts, such as 1/8", param, ctx)


@click.command(short_help="Draw pictures.")
@model_argument
@click.option("-n", "n", type=COUNT, default=16, show_default=True, help="How many pictures.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Which pictures: the same seed, the same ones.")
@click.option(
    "--start",
    type=SEED,
    default=0,
    show_default=True,
    help="Index of the first picture: '-n 4 --start 8' are numbers 8 to 11 of '-n 16'.",
)
@click.option(
    "--shard",
    type=Shard(),
    help="The K-th of M parts of these pictures, in whole batches, say 2/8: for several machines or processes. "
    "They may share a folder; an array or a grid needs a name for each.",
)
@click.option(
    "--labels",
    metavar="A,B,...",
    help="Classes by name or index, taken in turn: picture i gets the i-th, over and over.  "
    "[default: drawn from the seed]",
)
@click.option(
    "--truncation",
    type=float,
    metavar="T",
    help="Latents within [-T, T] only, say 1.5: less variety, fewer failures.",
)
@click.option(
    "--psi", type=float, metavar="P", help="The same in style space, for models that have one: 1 all, 0 the mean."
)
@click.option("--batch", type=WholeNumber(1, 2**20), help="Pictures a run of the model.  [default: 8]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=str),
    default="samples.png",
    show_default=True,
    help="A grid (.png, .jpg, .webp), an array of all (.npy, .npz), a folder for a file each, or - for stdout.",
)
@click.option(
    "--format",
    type=click.Choice(["png", "jpg", "webp", "npy"]),
    help="Of the files in a folder, or (npy too) of stdout.  [default: png]",
)
@foreign_options
@device_options
@debug_option
def sample(
    model: str | None,
    n: int,
    seed: int,
    start: int,
    shard: tuple[int, int] | None,
    labels: str | None,
    truncation: float | None,
    psi: float | None,
    batch: int | None,
    output: str,
    format: str | None,
    foreign: "Foreign | None",
    provider: str,
    threads: int | None,
) -> None:
    """Draw pictures with MODEL: a file, or a built-in one, digits (the default) or fashion.

    \b
    A grid:
    edgegan sample                                  16 digits as a 4x4 grid in samples.png
    edgegan sample -n 100 --seed 7 -o digits.png    100 others
    edgegan sample faces.onnx --truncation 1.5      safer, less varied
    edgegan sample fashion --labels Bag,3           bags and class 3 in turn

    \b
    A file each, digits/00000000.png and so on, and half of them, to be drawn beside the other half:
    edgegan sample -n 10000 -o digits/
    edgegan sample -n 10000 -o digits/ --shard 1/2

    \b
    An array, at flat memory whatever n is:
    edgegan sample -n 50000 -o digits.npy           uint8 [n, H, W, C] for numpy.load
    edgegan sample -n 50000 -o digits.npz           images, labels, seed and start

    \b
    A generator of another origin: what black and white are in its output
    edgegan sample other.onnx --range 0,1

    \b
    To another program:
    edgegan sample -o - | display
    edgegan sample -n 50000 -o - --format npy | python analyse.py

    Stopped by Ctrl-C, a kill or a full disk, the same command goes on where it stopped with a folder or an .npy file
    (until then what is done lies beside it, hidden, as .edgegan-*.part); an .npz file or a grid starts over. A folder's
    samples.json says what the pictures in it are, so that no others come among them. Each PNG file says in its text
    chunks which model, seed, index and label drew it.
    """
    from edgegan import output as out
    from edgegan.session import BATCH

    # Whatever can be found wrong before the work is found before the work.
    kind, format = _kind_of(output, format)
    batch = batch or BATCH
    generator = edgegan.load(model, provider, threads, bulk=n >= BULK * batch * (shard or (1, 1))[1], foreign=foreign)
    chosen = tuple(_labels_of(generator, labels))
    request = out.Request(generator, n, seed, start, chosen, truncation, psi, batch)
    request.check()
    if shard is not None:
        request = request.part(*shard)
    _check_fits(kind, format, output, request)
    meter = Meter(request.n)
    try:
        with meter:
            if kind == STDOUT:
                with open(sys.stdout.fileno(), "wb", closefd=False) as file:
                    out.write_stream(file, request, format, meter.tell)
            elif kind == FOLDER:
                out.save_folder(output, request, format, meter.tell)
            else:
                {GRID: out.save_grid, "npy": out.save_npy, "npz": out.save_npz}[kind](output, request, meter.tell)
    except (KeyboardInterrupt, SystemExit, OSError) as error:
        if isinstance(error, OSError) and kind == STDOUT:
            error.filename = "stdout"
        if not meter.done or kind not in (FOLDER, "npy"):
            raise
        how_far = f"{meter.done} of {request.n} pictures are kept, and the same command goes on there"
        if isinstance(error, OSError):
            error.strerror = f"{error.strerror or error}; {how_far}"
            raise
        click.echo(printable(f"edgegan: interrupted: {output}: {how_far}"), err=True)
        raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else error.code) from None
    h, w = generator.spec.image_size
    pictures = f"{request.n} picture{'' if request.n == 1 else 's'} of {w}x{h}"
    there = f"; {meter.done - meter.there} drawn, {meter.there} were there" if meter.there else ""
    where = "stdout" if kind == STDOUT else printable(output)
    click.echo(
        f"{where}: {pictures} by {name_of(model)} on {generator.provider}, seed {seed}{there}", err=kind == STDOUT
    )


class Meter:
    """How far it is; a bar on stderr if that is a terminal and the work lasts."""

    def __init__(self, total: int, unit: str = "images") -> None:
        self.done = self.there = 0
        self._total, self._unit = total, unit
        self._bar: Any = None
        self._start = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar is not None:
            self._show()
            self._bar.render_finish()

    def tell(self, done: int, there: int) -> None:
        """So many pictures are done, of which so many were there already."""
        self.done, self.there = done, there
        now = time.monotonic()
        if self._terminal and now - self._start > PATIENCE and now - self._shown > 0.1:
            self._shown = now
            self._show()

    def _show(self) -> None:
        if self._bar is None:
            self._bar = click.progressbar(
                length=self._total,
                file=sys.stderr,
                show_eta=False,
                show_pos=True,
                show_percent=False,
                item_show_func=lambda _: self._speed(),
            )
        self._bar.update(self.done - self._bar.pos)

    def _speed(self) -> str:
        rate = (self.done - self.there) / (time.monotonic() - self._start)
        if not rate:
            return ""
        minutes, seconds = divmod(int((self._total - self.done) / rate), 60)
        left = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"
        return f"{rate:.{0 if rate >= 10 else 1}f} {self._unit}/s, {left} left"


def _labels_of(generator: "Generator", labels: str | None) -> list[int]:
    """The classes that --labels names; one whose name holds a comma is named alone."""
    if labels is None:
        return []
    if labels in generator.spec.classes:
        return [generator.label(labels)]
    return [generator.label(part if part in generator.spec.classes else part.strip()) for part in labels.split(",")]


def _kind_of(output: str, format: str | None) -> tuple[str, str]:
    """What -o asks for, and the format of the files; ArgumentError for what is bound to fail."""
    from edgegan.image import SUFFIXES

    if output == STDOUT:
        if sys.stdout.isatty():
            raise ArgumentError("a terminal shows no pictures; send them on, as in: edgegan sample -o - > digits.png")
        return STDOUT, format or "png"
    suffix = Path(output).suffix.lower()
    folder = output.rstrip("/" + os.sep) or output
    if os.path.isdir(output) or folder != output or (output and not suffix):
        if format == "npy":
            raise ArgumentError(f"a folder holds png, jpg or webp; for an array use -o {folder}.npy")
        if not os.path.isdir(folder):
            if os.path.exists(folder):
                raise ArgumentError(f"cannot write {output}: it is a file, not a folder; name another")
            check_output(folder)
        elif not os.access(folder, os.W_OK | os.X_OK):
            raise ArgumentError(f"cannot write {output}: no permission to write in this folder")
        return FOLDER, format or "png"
    suffixes = (*SUFFIXES, ".npy", ".npz")
    if suffix not in suffixes:
        valid = f"{', '.join(suffixes)}, or a / at the end for a folder"
        raise ArgumentError(f"cannot write {output}: its suffix is '{suffix}'; valid: {valid}")
    if format is not None:
        raise ArgumentError(f"--format is for a folder or '-o -'; leave it out, the suffix of {output} says it")
    check_output(output)
    return (suffix[1:] if suffix in (".npy", ".npz") else GRID), suffix[1:]


def _check_fits(kind: str, format: str, output: str, request: "Request") -> None:
    """Raise ArgumentError if the format cannot hold these pictures, or one sheet all of them."""
    from edgegan.image import columns_of, comfortable_zoom
    from edgegan.output import GAP

    spec, n = request.generator.spec, request.n
    if format in ("jpg", "jpeg") and spec.channels == 4:
        raise ArgumentError(f"cannot write {output}: JPEG has no transparency; valid: png, webp")
    if kind not in (GRID, STDOUT) or format == "npy":
        return
    if n == 0:
        raise ArgumentError(
            "this shard has no pictures, since batches stay whole; ask for fewer shards or more pictures"
        )
    limit = MAX_WEBP if format == "webp" else MAX_SHEET
    h, w = (side * comfortable_zoom(spec.image_size) + GAP for side in spec.image_size)
    # The area first: the best number of columns for a huge n takes long to find.
    columns = columns_of(n) if n * h * w <= limit**2 else n
    if max(h * -(-n // columns), w * columns) + GAP > limit:
        instead = "--format npy" if kind == STDOUT else f"-o {Path(output).with_suffix('.npy')}"
        raise ArgumentError(f"a grid of {n} pictures is larger than {limit} pixels a side; use {instead}")
