"""The command `edgegan`: sample, info, doctor. NumPy and onnxruntime are imported by a command that runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import edgegan
from edgegan._cli import WholeNumber, debug_option, run
from edgegan._files import atomic_write, check_output
from edgegan.errors import ArgumentError, MissingExtraError, printable

if TYPE_CHECKING:
    from edgegan.model import U8, Generator

MAX_SHEET = 16384  # pixels a side of a grid
COUNT = WholeNumber(1, 10**12)
SEED = WholeNumber(0, 2**64 - 1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(edgegan.__version__, prog_name="edgegan")
@debug_option
def cli() -> None:
    """Draw pictures with a GAN from one ONNX file, without PyTorch.

    \b
    edgegan sample                          16 handwritten digits into samples.png
    edgegan sample faces.onnx -n 64 --seed 7 -o faces.png
    edgegan info faces.onnx                 what a model is
    edgegan doctor                          what this installation is

    Train models with edgegan-train, turn them into a file with edgegan-export.
    """


@cli.command(short_help="Draw pictures.")
@click.argument("model", required=False, type=click.Path(path_type=str))
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
@click.option("--batch", type=WholeNumber(1, 2**20), help="Pictures a run of the model.  [default: 16]")
@click.option("--threads", type=WholeNumber(1, 1024), help="Processor threads.  [default: all available]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("samples.png"),
    show_default=True,
    help="A grid as .png, .jpg or .webp, or the pictures themselves as .npy (uint8 [n, H, W, C]).",
)
@debug_option
def sample(
    model: str | None,
    n: int,
    seed: int,
    start: int,
    labels: str | None,
    truncation: float | None,
    batch: int | None,
    threads: int | None,
    output: Path,
) -> None:
    """Draw pictures with MODEL, by default the built-in one of handwritten digits.

    \b
    edgegan sample                                  16 digits as a 4x4 grid in samples.png
    edgegan sample -n 100 --seed 7 -o digits.png    100 others
    edgegan sample faces.onnx --truncation 1.5      safer, less varied
    edgegan sample shoes.onnx --labels boot,3       boots and class 3 in turn
    edgegan sample -n 50000 -o digits.npy           for numpy.load, at flat memory
    """
    from edgegan.image import SUFFIXES, check_suffix, comfortable_zoom, save_image

    # Whatever can be found wrong before the work is found before the work.
    array = check_suffix(output, (*SUFFIXES, ".npy")) == ".npy"
    check_output(output)
    generator = edgegan.load(model, threads=threads)
    if not array:
        _check_sheet(generator, n, output)
    chosen = _labels_of(generator, labels)
    if array:
        batches = _stream(generator, n, seed, start, chosen, truncation, batch)
        _save_npy(output, batches, (n, *generator.spec.image_size, generator.spec.channels))
    else:
        zoom = comfortable_zoom(generator.spec.image_size)
        turn = _turn(chosen, start, n)
        save_image(
            output,
            generator.grid(n, seed, start=start, labels=turn, truncation=truncation, batch=batch, zoom=zoom),
        )
    h, w = generator.spec.image_size
    pictures = f"{n} picture{'s' if n > 1 else ''} of {w}x{h}"
    click.echo(f"{printable(str(output))}: {pictures} by {_name(model)}, seed {seed}")


def _stream(
    generator: "Generator",
    n: int,
    seed: int,
    start: int,
    labels: list[int],
    truncation: float | None,
    batch: int | None,
) -> "Iterator[U8]":
    """The pictures in batches; `labels` are taken in turn, none means drawn from the seed."""
    from edgegan.model import BATCH

    # Piece by piece, so that memory stays flat; whole batches, so that the pictures are those of one piece.
    piece = 64 * (batch or BATCH)
    for done in range(0, n, piece):
        first, count = start + done, min(piece, n - done)
        turn = _turn(labels, first, count)
        yield from generator.stream(count, seed, start=first, labels=turn, truncation=truncation, batch=batch)


def _turn(labels: list[int], start: int, n: int) -> list[int] | None:
    """The labels of pictures start .. start + n - 1, in turn; None, drawn from the seed, if there are none.

    By the picture's own number, not its place in this call: --start must not change a picture.
    """
    return [labels[i % len(labels)] for i in range(start, start + n)] if labels else None


def _labels_of(generator: "Generator", labels: str | None) -> list[int]:
    """The classes that --labels names; one whose name holds a comma is named alone."""
    if labels is None:
        return []
    if labels in generator.spec.classes:
        return [generator.label(labels)]
    return [generator.label(part if part in generator.spec.classes else part.strip()) for part in labels.split(",")]


def _check_sheet(generator: "Generator", n: int, output: Path) -> None:
    from edgegan.image import columns_of, comfortable_zoom

    size = generator.spec.image_size
    h, w = (side * comfortable_zoom(size) for side in size)
    # The area first: the best number of columns for a huge n takes long to find.
    columns = columns_of(n) if n * h * w <= MAX_SHEET**2 else n
    if max(h * -(-n // columns), w * columns) > MAX_SHEET:
        instead = output.with_suffix(".npy")
        raise ArgumentError(f"a grid of {n} pictures is larger than {MAX_SHEET} pixels a side; use -o {instead}")


def _save_npy(path: Path, batches: "Iterator[U8]", shape: tuple[int, ...]) -> None:
    """Batch after batch into an .npy file, so that memory stays flat."""
    from numpy.lib import format as npy

    with atomic_write(path) as file:
        npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for images in batches:
            file.write(images.tobytes())


def _name(model: str | None) -> str:
    return "the built-in model" if model is None else printable(model)


@cli.command(short_help="Say what a model is.")
@click.argument("model", required=False, type=click.Path(path_type=str))
@debug_option
def info(model: str | None) -> None:
    """Say what MODEL is: its task, training, classes, scores and licence.

    \b
    edgegan info                the built-in model
    edgegan info faces.onnx
    """
    generator = edgegan.load(model)
    spec = generator.spec
    h, w = spec.image_size
    golden = spec.golden
    lines: list[tuple[str, Any]] = [
        ("model", generator.source),
        ("recipe", spec.recipe),
        ("pictures", f"{w}x{h}, {({1: 'grey', 3: 'RGB', 4: 'RGBA'})[spec.channels]}"),
        ("latents", spec.latent_dim),
        ("classes", f"{len(spec.classes)}: {', '.join(spec.classes)}" if spec.classes else "none"),
        ("precision", spec.precision),
        ("trained on", " ".join(filter(None, (spec.dataset, spec.dataset_digest[:12])))),
        ("trained for", f"{spec.kimg:g} thousand images"),
        *((f"score {name}", f"{s:g}" if isinstance(s, float) else s) for name, s in spec.scores.items()),
        ("licence", spec.licence or "not stated"),
        ("written by", f"edgegan {spec.version}"),
        ("golden", f"{golden.count} samples, tolerance {golden.tolerance}" if golden else "none"),
    ]
    for name, value in lines:
        click.echo(f"{printable(name):<12} {printable(str(value))}")


@cli.command(short_help="Say what this installation is.")
@debug_option
def doctor() -> None:
    """Say what this installation is made of: versions, who draws the noise, processors."""
    import platform

    import numpy as np
    import PIL

    from edgegan import _backend, model

    try:
        import onnxruntime

        ort = onnxruntime.__version__
    except ModuleNotFoundError:
        ort = str(MissingExtraError.of("sampling", "onnxruntime", "cpu"))
    if _backend.NAME == "c":
        backend = f"C, {_backend.core.instruction_set()}"
    else:
        backend = "NumPy, with the same results as the C core but slower"
    for name, value in (
        ("edgegan", edgegan.__version__),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("numpy", np.__version__),
        ("pillow", PIL.__version__),
        ("onnxruntime", ort),
        ("core", backend),
        ("threads", str(model.default_threads())),
    ):
        click.echo(f"{name:<12} {value}")


def main() -> None:
    """The console script's entry point."""
    run(cli, "edgegan")
