"""`edgegan walk`: an animation from one picture to the next."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

import edgegan
from edgegan._cli import WholeNumber, debug_option
from edgegan._files import check_output
from edgegan.commands import SEED, device_options, foreign_options, model_argument, name_of, progress
from edgegan.errors import printable

if TYPE_CHECKING:
    from edgegan import Foreign
    from edgegan.model import U8

LEAST_SIDE = 128  # pixels: smaller pictures are enlarged, for eyes to follow


class Seeds(click.ParamType):
    """Seeds with commas between them."""

    name = "A,B,..."

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        return value if isinstance(value, list) else [SEED.convert(part, param, ctx) for part in str(value).split(",")]


@click.command(short_help="Animate the way from one picture to the next.")
@model_argument
@click.option(
    "--seeds", type=Seeds(), default="0,1,2,3", show_default=True, help="The pictures to pass: number 0 of each."
)
@click.option("--frames", type=WholeNumber(1, 10**6), default=24, show_default=True, help="From each to the next.")
@click.option("--loop/--no-loop", default=True, show_default=True, help="Go back to the first one at the end.")
@click.option("--fps", type=WholeNumber(1, 50), default=20, show_default=True, help="Frames a second.")
@click.option("--label", metavar="CLASS", help="One class by name or index.  [default: drawn from the first seed]")
@click.option("--truncation", type=float, metavar="T", help="Latents within [-T, T] only.")
@click.option("--psi", type=float, metavar="P", help="Truncation in style space, for models that have one.")
@click.option("--zoom", type=WholeNumber(1, 64), help="Pixels a pixel becomes.  [default: to 128 a side or more]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("walk.gif"),
    show_default=True,
    help=".gif, .webp or .png (animated).",
)
@foreign_options
@device_options
@debug_option
def walk(
    model: str | None,
    seeds: list[int],
    frames: int,
    loop: bool,
    fps: int,
    label: str | None,
    truncation: float | None,
    psi: float | None,
    zoom: int | None,
    output: Path,
    foreign: "Foreign | None",
    provider: str,
    threads: int | None,
) -> None:
    """Animate the way from one picture of MODEL to the next, on the arc between their latents.

    \b
    edgegan walk                                      four built-in digits and back, walk.gif
    edgegan walk --label 8 --seeds 1,2 --frames 60    two eights
    edgegan walk faces.onnx --seeds 7,11,5 -o faces.webp
    """
    from edgegan.image import ANIMATION_SUFFIXES, check_suffix, save_animation

    check_suffix(output, ANIMATION_SUFFIXES)
    check_output(output)
    generator = edgegan.load(model, provider, threads, foreign=foreign)
    pictures = generator.walk(seeds, frames, loop, label=label, truncation=truncation, psi=psi)
    zoom = zoom or max(1, -(-LEAST_SIDE // min(generator.spec.image_size)))
    count = len(seeds) * frames if loop else (len(seeds) - 1) * frames + 1
    with progress(pictures, count, "walk") as shown:
        save_animation(output, _enlarged(shown, zoom), round(1000 / fps))
    click.echo(f"{printable(str(output))}: {count} frames by {name_of(model)} on {generator.provider}")


def _enlarged(pictures: "Iterable[U8]", zoom: int) -> "Iterator[U8]":
    for picture in pictures:
        yield picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
