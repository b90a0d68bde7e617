"""`edgegan translate`: turn pictures into others."""

import io
import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

import edgegan
from edgegan._cli import WholeNumber, debug_option
from edgegan._files import check_output
from edgegan.commands import Range, device_options, name_of
from edgegan.commands.sample import STDOUT, Meter
from edgegan.errors import ArgumentError, DataError, printable

if TYPE_CHECKING:
    from edgegan import ForeignTranslator
    from edgegan.translate_files import Work

F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("png", "jpg", "webp")
MAX_STDIN = 2**30  # bytes


class Size(click.ParamType):
    """Bytes, with a unit of thousands: 800MB or 2GB."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?) ?([MG])B?", str(value), flags=re.IGNORECASE)
        if found is None:
            self.fail(f"{str(value)!r} is not a size with its unit, such as 800MB or 2GB", param, ctx)
        return int(float(found[1]) * {"M": 10**6, "G": 10**9}[found[2].upper()])


class Tile(WholeNumber):
    """A number of pixels, or "auto", which is None."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value in (None, "auto") else super().convert(value, param, ctx)


def foreign_options(function: F) -> F:
    """Decorator: what describes a model of another origin, given to the command as `foreign`, or None."""

    @wraps(function)
    def command(
        *args: Any,
        range_: tuple[float, float] | None,
        layout: str | None,
        scale: int | None,
        size_multiple: int | None,
        output_name: str | None,
        **others: Any,
    ) -> Any:
        foreign = None
        if any(given is not None for given in (range_, layout, scale, size_multiple, output_name)):
            foreign = edgegan.ForeignTranslator(
                range_ or (-1.0, 1.0), layout or "auto", scale, size_multiple or 1, output_name
            )
        return function(*args, foreign=foreign, **others)

    for option in (
        click.option("--output-name", metavar="NAME", help="Other origin: the output, if there are several."),
        click.option(
            "--size-multiple",
            type=WholeNumber(1, 4096),
            help="Other origin: what height and width must be multiples of.  [default: 1]",
        ),
        click.option(
            "--scale",
            type=WholeNumber(1, 64),
            help="Other origin: how many times as large pictures become, to be checked.  [default: seen from one]",
        ),
        click.option(
            "--layout",
            type=click.Choice(["auto", "nchw", "nhwc"]),
            help="Other origin: where the channels are.  [default: auto, as its shapes say]",
        ),
        click.option("--range", "range_", type=Range(), help="A model of another origin: what black and white are."),
    ):
        command = option(command)
    return cast(F, command)


@click.command(short_help="Turn pictures into others.")
@click.argument("model", type=click.Path(path_type=str))
@click.argument("inputs", metavar="IN...", nargs=-1, required=True, type=click.Path(path_type=str, allow_dash=True))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=str, allow_dash=True),
    required=True,
    help="A file (.png, .jpg, .webp) for one picture, a folder, or - for stdout.",
)
@click.option("--format", type=click.Choice(FORMATS), help="Of the files in a folder, or of stdout.  [default: png]")
@click.option("--overwrite", is_flag=True, help="Make pictures again that are there, and replace them.")
@click.option(
    "--tile",
    type=Tile(1, 2**20),
    default="auto",
    show_default=True,
    metavar="auto|N",
    help="Pixels a side of the tiles that the network gets; auto: the whole picture, or what fits the memory.",
)
@click.option(
    "--overlap",
    type=WholeNumber(0, 2**20),
    help="Pixels that neighbouring tiles share; one is blended into the next there.  [default: 64, or a quarter tile]",
)
@click.option(
    "--max-memory",
    type=Size(),
    help="Of this whole process, such as 800MB or 2GB.  [default: 512MB for the network, and the picture as it is]",
)
@click.option(
    "--batch", type=WholeNumber(1, 128), default=8, show_default=True, help="Small pictures of one size at once."
)
@foreign_options
@device_options
@debug_option
def translate(
    model: str,
    inputs: tuple[str, ...],
    output: str,
    format: str | None,
    overwrite: bool,
    tile: int | None,
    overlap: int | None,
    max_memory: int | None,
    batch: int,
    foreign: "ForeignTranslator | None",
    provider: str,
    threads: int | None,
) -> None:
    """Turn the pictures IN, files or folders, into what MODEL makes of them: larger, cleaner, in another style.

    \b
    edgegan translate sharper.onnx photo.jpg -o sharper.png
    edgegan translate sharper.onnx photos/ -o sharper/       a folder, whose tree is kept
    edgegan translate sharper.onnx a.jpg b.png -o sharper/ --format jpg
    edgegan translate sharper.onnx - -o - < photo.jpg | display

    \b
    A large picture in little memory: tiles that are blended where they overlap
    edgegan translate sharper.onnx poster.tif -o poster.png --max-memory 600MB
    edgegan translate sharper.onnx poster.tif -o poster.png --tile 256 --overlap 32

    \b
    A model of another origin: what black and white are, and what else its file does not say
    edgegan translate other.onnx photo.jpg -o x.png --range 0,1
    edgegan translate other.onnx photo.jpg -o x.png --range 0,255 --layout nhwc --size-multiple 8

    Pictures of any size, turned upright. Transparency is kept, grey stays grey; 16 bits become 8, CMYK becomes RGB. A
    network that looks at the whole picture (instance normalisation, attention) sees a tile where there are tiles.

    What is there is not overwritten. Stopped by Ctrl-C or a kill, the same command goes on in a folder, whose
    translated.json says what made its pictures. One that cannot be read is named, the others go on, and the exit
    status is 1.
    """
    from edgegan.translate import Tiling
    from edgegan.translate_files import ENCODING, Work

    kind, format = _kind_of(inputs, output, format, overwrite)
    generator = edgegan.load(model, provider, threads, foreign=foreign)
    tiling = Tiling(tile, overlap, max_memory, batch, ENCODING[format])
    tiling.check(generator)
    work = Work(generator, tiling, format)
    how = f"by {name_of(model)} on {generator.provider}"
    if kind == "folder":
        _folder(work, inputs, output, overwrite, how)
        return
    h, w = _one(work, inputs[0], output)
    where = "stdout" if output == STDOUT else printable(output)
    click.echo(f"{where}: a picture of {w}x{h} {how}", err=output == STDOUT)


def _one(work: "Work", source: str, output: str) -> tuple[int, int]:
    """One picture; its size."""
    from edgegan.decode import Opened

    _quiet_pillow()
    if source == STDOUT:
        if sys.stdin is None:  # `<&-`
            raise DataError("stdin is closed; send a picture, or give a file")
        data = sys.stdin.buffer.read(MAX_STDIN + 1)
        if len(data) > MAX_STDIN:
            raise DataError(f"stdin: more than {MAX_STDIN} bytes; give a file")
    with Opened(io.BytesIO(data), "stdin") if source == STDOUT else Opened(source) as opened:
        layout = work.layout(opened.kind)
        with Meter(layout.count, "tiles") as meter:
            (array,) = work.make([opened.read()], lambda done, _: meter.tell(done, 0))
    if output == STDOUT:
        with open(sys.stdout.fileno(), "wb", closefd=False) as file:
            file.write(work.encode(array))
    else:
        work.save(output, array)
    return array.shape[0], array.shape[1]


def _folder(work: "Work", inputs: tuple[str, ...], folder: str, overwrite: bool, how: str) -> None:
    """All pictures among files and folders. Exits with 1 if some could not be translated."""
    from edgegan.decode import SUFFIXES
    from edgegan.translate_files import find_jobs, translate_folder

    _quiet_pillow()
    complaints: list[str] = []  # a list, since the thread that writes complains too

    def complain(line: str) -> None:
        complaints.append(line)
        click.echo(printable(f"edgegan: error: {line}"), err=True)

    jobs = find_jobs(inputs, folder, work.format, complain)
    if not jobs:
        raise DataError(f"{', '.join(inputs)}: no pictures; read are {', '.join(sorted(SUFFIXES))}")
    folders = len(complaints)  # that could not be read
    meter = Meter(len(jobs))
    try:
        with meter:
            translate_folder(work, jobs, folder, meter.tell, complain, overwrite=overwrite)
    except (KeyboardInterrupt, SystemExit, OSError) as error:
        kept = sum(os.path.exists(job.target) for job in jobs)
        how_far = f"{kept} of {len(jobs)} pictures are there, and the same command goes on with the others"
        if isinstance(error, OSError):
            error.strerror = f"{error.strerror or error}; {how_far}"
            raise
        click.echo(printable(f"edgegan: interrupted: {folder}: {how_far}"), err=True)
        raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else error.code) from None
    made = len(jobs) - meter.there - (len(complaints) - folders)
    there = f"; {meter.there} were there" if meter.there else ""
    failed = f"; {len(complaints)} failed" if complaints else ""
    click.echo(f"{printable(folder)}: {made} picture{'' if made == 1 else 's'} {how}{there}{failed}")
    if complaints:
        raise SystemExit(1)


def _kind_of(inputs: tuple[str, ...], output: str, format: str | None, overwrite: bool) -> tuple[str, str]:
    """Whether one picture is asked for or a folder of them, and the files' format; ArgumentError for what must fail."""
    one = len(inputs) == 1 and not os.path.isdir(inputs[0])
    if STDOUT in inputs and not one:
        raise ArgumentError("stdin (-) is one picture: leave out the others")
    if output == STDOUT:
        if not one:
            raise ArgumentError("stdout (-) takes one picture; for several name a folder")
        if sys.stdout.isatty():
            raise ArgumentError("a terminal shows no pictures; send them on, as in: edgegan translate ... -o - > x.png")
        return "one", format or "png"
    suffix, is_folder = Path(output).suffix.lower(), os.path.isdir(output) or output.endswith(("/", os.sep))
    if is_folder or not suffix:
        if STDOUT in inputs:
            raise ArgumentError("a picture from stdin has no name for a folder; name a file, or - for stdout")
        folder = output.rstrip("/" + os.sep) or output
        if not os.path.isdir(folder):
            if os.path.exists(folder):
                raise ArgumentError(f"cannot write {output}: it is a file, not a folder; name another")
            check_output(folder)
        elif not os.access(folder, os.W_OK | os.X_OK):
            raise ArgumentError(f"cannot write {output}: no permission to write in this folder")
        return "folder", format or "png"
    if not one:
        raise ArgumentError(f"{output} is one file, for one picture; for several name a folder, with a / at the end")
    known = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}
    if suffix not in known:
        valid = f"{', '.join(known)}, or a / at the end for a folder"
        raise ArgumentError(f"cannot write {output}: its suffix is '{suffix}'; valid: {valid}")
    if format is not None:
        raise ArgumentError(f"--format is for a folder or '-o -'; leave it out, the suffix of {output} says it")
    check_output(output)
    if os.path.exists(output) and not overwrite:
        raise ArgumentError(f"{output} is there already; --overwrite replaces it")
    return "one", known[suffix]


def _quiet_pillow() -> None:
    """What is wrong with a file is ours to say: Pillow warns of large pictures, odd metadata and the like."""
    import warnings

    warnings.filterwarnings("ignore", module=r"PIL\.")
