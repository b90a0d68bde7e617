"""`edgegan reproduce`: draw again what a PNG file says it is."""

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import edgegan
from edgegan._cli import debug_option
from edgegan.commands import device_options, foreign_options
from edgegan.errors import ArgumentError, DataError, ModelError, one_line, printable
from edgegan.provenance import Provenance

if TYPE_CHECKING:
    from edgegan import Foreign
    from edgegan.model import U8, Generator

MAX_PIXELS = 2**28  # of a grid: what `edgegan sample` writes at most


@click.command(short_help="Draw again what a PNG file says it is.")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("model", required=False, type=click.Path(path_type=str))
@foreign_options
@device_options
@debug_option
def reproduce(
    file: Path,
    model: str | None,
    foreign: "Foreign | None",
    provider: str,
    threads: int | None,
) -> None:
    """Draw the picture or grid in FILE again with MODEL, from what `edgegan sample` wrote into it, and compare.

    Exit status 0 if it is the same, up to the rounding that the model's golden samples allow, else 1.

    \b
    edgegan reproduce samples.png              drawn by the built-in model
    edgegan reproduce 00000012.png faces.onnx
    """
    found, texts = _read(file)
    origin = Provenance.of_texts(texts, str(file))
    generator = edgegan.load(model, provider, threads, foreign=foreign)
    if origin.model != generator.digest:
        raise ModelError(
            f"{file} was drawn by another model: its SHA-256 begins with {printable(origin.model[:12])}, "
            f"that of {generator.source} with {generator.digest[:12]}"
        )
    what = f"{printable(str(file))}: seed {origin.seed}, "
    what += f"picture {origin.index}" if origin.grid is None else f"{origin.grid.count} pictures from {origin.index} on"
    expected = _shape_of(generator, origin)
    if expected != found.shape:  # before the work: a file may claim any size
        click.echo(f"{what}: not the same: it is {_size(found.shape)}, and drawn again {_size(expected)}")
        sys.exit(1)
    try:
        drawn = _draw(generator, origin)
    except ArgumentError as error:  # an argument that the file gave, and not the user
        raise DataError(f"{file}: {error}") from error
    difference = int(abs(drawn.astype("int16") - found).max())
    allowed = generator.spec.golden.tolerance if generator.spec.golden else 0
    if difference == 0:
        click.echo(f"{what}: the same")
    elif difference <= allowed:
        click.echo(f"{what}: the same but for rounding, by at most {difference} of 255")
    else:
        click.echo(f"{what}: not the same: pixels differ by up to {difference} of 255, allowed are {allowed}")
        sys.exit(1)


def _shape_of(generator: "Generator", origin: Provenance) -> tuple[int, int, int]:
    (h, w), grid = generator.spec.image_size, origin.grid
    if grid is not None:
        rows = -(-grid.count // grid.columns)
        h, w = (grid.gap + many * (side * grid.zoom + grid.gap) for many, side in ((rows, h), (grid.columns, w)))
    return h, w, generator.spec.channels


def _draw(generator: "Generator", origin: Provenance) -> "U8":
    """The picture or grid of this origin: [H, W, C] uint8."""
    from edgegan.output import Request

    grid, how = origin.grid, (origin.seed, origin.index, origin.labels, origin.truncation, origin.psi)
    if grid is None:
        return Request(generator, 1, *how).draw(origin.index, 1)[0]
    labels = Request(generator, grid.count, *how).labels_of(origin.index, grid.count) if origin.labels else None
    return generator.grid(
        grid.count,
        origin.seed,
        start=origin.index,
        labels=labels,
        truncation=origin.truncation,
        psi=origin.psi,
        columns=grid.columns,
        zoom=grid.zoom,
        gap=grid.gap,
    )


def _read(path: Path) -> "tuple[U8, dict[str, str]]":
    """Pixels [H, W, C] and text chunks of a PNG file. Raises DataError."""
    import numpy as np
    from PIL import Image

    from edgegan.session import read_file

    data = read_file(os.fspath(path), "give a PNG file that 'edgegan sample' wrote")
    Image.MAX_IMAGE_PIXELS = None  # the limit is ours, below: grids may be larger than Pillow likes
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{path}: {picture.width}x{picture.height} is more than 'edgegan sample' writes")
            picture.load()  # text chunks may stand behind the pixels
            array = np.asarray(picture)
            texts = {str(k): str(v) for k, v in picture.text.items()}  # type: ignore[attr-defined]
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path}: not a PNG picture: {one_line(error)}") from error
    return np.atleast_3d(array), texts


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} with {shape[2]} channels"
