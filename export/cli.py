"""The command `edgegan-export`. Imports torch only to export."""

import shlex
from pathlib import Path

import click

import edgegan
from edgegan._cli import debug_option, run
from edgegan.errors import ArgumentError, MissingExtraError, printable


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(edgegan.__version__, prog_name="edgegan-export")
@click.argument("source", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE.onnx",
    help="Where to write the model.",
)
@click.option(
    "--checkpoint",
    default="newest",
    show_default=True,
    metavar="newest|best|IMAGES",
    help="Which checkpoint: the best is the one whose pictures were nearest to the data; or that of so many images.",
)
@click.option(
    "--licence",
    default="",
    help="The licence of the model, to be written into it; think of that of the pictures.",
)
@click.option(
    "--lower",
    type=click.Choice(("auto", "none")),
    default="auto",
    show_default=True,
    help="Rewrite the model into an equal one that is faster: auto measures on this processor what is; it takes some "
    "seconds.",
)
@debug_option
def cli(source: Path, output: Path, checkpoint: str, licence: str, lower: str) -> None:
    """Turn the training run in the folder RUN into one ONNX file.

    \b
    edgegan-export digits-run -o digits.onnx
    edgegan sample digits.onnx -n 16

    The file holds the averaged generator of a checkpoint, a free batch, and a description of itself with golden
    samples. It is written only if onnxruntime draws what torch draws, at batches 1, 2, 3 and 17.

    RUN may also be an .onnx file that edgegan-export wrote: it is then made faster for this processor, and the rest of
    it stays as it is.
    """
    from importlib.util import find_spec

    from edgegan._files import check_output

    if output.suffix.lower() != ".onnx":
        raise ArgumentError(f"cannot write {output}: the file's name must end in .onnx")
    check_output(output)
    model = source.suffix.lower() == ".onnx" and not source.is_dir()
    if model and (licence or lower == "none" or checkpoint != "newest"):
        options = "--checkpoint, --licence and --lower"
        raise ArgumentError(f"{source} is a model already, so it can only be lowered: leave out {options}")
    if checkpoint not in ("newest", "best") and not (checkpoint.isascii() and checkpoint.isdecimal()):
        raise ArgumentError(f"checkpoint is {checkpoint!r}; valid: newest, best, or a number of images")
    for module, extra in (("torch", "export"), ("onnx", "export"), ("onnxscript", "export"), ("onnxruntime", "cpu")):
        if find_spec(module) is None and not (model and module in ("torch", "onnxscript")):
            raise MissingExtraError.of("export", module, extra)
    name = printable(shlex.quote(str(output)))
    if model:
        from edgegan.export.lower import lower_file

        lowered, difference = lower_file(source, output)
        lines = lowered.lines()
        size = output.stat().st_size / 1e6
        click.echo(f"{name}: {size:.2f} MB; draws what {printable(str(source))} draws, to {difference:.1g}")
    else:
        from edgegan.export.pipeline import export_run

        report = export_run(source, output, licence, lowering=lower == "auto", checkpoint=checkpoint)
        lines = report.lowered.lines() if report.lowered else []
        click.echo(
            f"{name}: {report.file_bytes / 1e6:.2f} MB, {report.parameters:,} parameters, {report.kimg:g} kimg; "
            f"onnxruntime = torch to {report.difference:.1g} at batches 1, 2, 3, 17; try  edgegan sample {name}"
        )
    for line in lines:
        click.echo(line)


def main() -> None:
    """The console script's entry point."""
    run(cli, "edgegan-export")
