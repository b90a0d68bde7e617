"""The command `edgegan-export`. Imports torch only to export a run."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

import edgegan
from edgegan._cli import debug_option, run
from edgegan.errors import ArgumentError, MissingExtraError, printable

if TYPE_CHECKING:
    from edgegan.export.report import Report


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(edgegan.__version__, prog_name="edgegan-export")
@click.argument("source", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE.onnx", help="Where to write the model.")
@click.option(
    "--precision",
    type=click.Choice(("fp32", "fp16", "int8")),
    default="fp32",
    show_default=True,
    help="int8 is a quarter of the size, and two to four times as fast on CPUs with instructions for it (x86 with "
    "VNNI, ARM with dot products). fp16 is half the size, for storage and GPUs; no faster on a CPU.",
)
@click.option(
    "--lower",
    type=click.Choice(("auto", "fixed", "none")),
    default="auto",
    show_default=True,
    help="Rewrite the model into an equal one that is faster: auto measures on this processor what is, in some "
    "seconds; fixed makes the same file on every machine.",
)
@click.option(
    "--checkpoint",
    default="newest",
    show_default=True,
    metavar="newest|best|IMAGES",
    help="Which checkpoint: the best is the one whose pictures were nearest to the data; or that of so many images.",
)
@click.option(
    "--reverse",
    is_flag=True,
    help="Of a recipe that learns to translate both ways, such as cyclegan: the way back, from pictures like those of "
    "--data to ones like those of --source.",
)
@click.option("--licence", default="", help="The licence of the model, to be written into it; think of the pictures'.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE.md|json",
    help="Write what was done and measured, with a picture of the same samples before and after beside it.",
)
@click.option(
    "--max-quality-loss",
    default="",
    metavar="30dB|5%|5%,30dB",
    help="What fp16 and int8 may lose, or the export fails: down to so much PSNR and, where --features measures it, so "
    "much of the distance to real pictures.  [default: 5%,30dB]",
)
@click.option(
    "--features",
    metavar="NAME|FILE.onnx",
    help="Judge by the Frechet distance to real pictures, in the features of this network: lenet for handwritten "
    "digits, lenet-fashion, or a file.",
)
@click.option("--data", metavar="SOURCE", help="The real pictures.  [default: those of the run]")
@click.option(
    "--measure/--no-measure",
    default=True,
    show_default=True,
    help="Measure time and memory before and after; it takes some seconds.",
)
@click.option(
    "--check", type=click.Path(path_type=Path), metavar="FILE.onnx", help="Only prove a file again: see above."
)
@debug_option
def cli(
    source: Path | None,
    output: Path | None,
    precision: str,
    lower: str,
    checkpoint: str,
    reverse: bool,
    licence: str,
    report: Path | None,
    max_quality_loss: str,
    features: str | None,
    data: str | None,
    measure: bool,
    check: Path | None,
) -> None:
    """Turn the training run in the folder RUN into one ONNX file.

    \b
    edgegan-export digits-run -o digits.onnx
    edgegan-export digits-run -o digits-int8.onnx --precision int8 --report digits-report.md
    edgegan-export digits-run -o digits-int8.onnx --precision int8 --features lenet
    edgegan sample digits.onnx -n 16

    The file holds the averaged generator of a checkpoint, a free batch, and a description of itself with golden
    samples. It is written only if onnxruntime draws what torch draws, at batches 1, 2, 3 and 17, and where it takes
    pictures at several of their sizes. A * in the table marks
    the form that was written; the other rows are other forms of it, to compare.

    RUN may also be a float32 .onnx file that edgegan-export wrote, on the device that it is for, say: that needs no
    torch. edgegan-export --check FILE.onnx needs neither a run nor torch: it proves that the file is whole and draws
    what its exporter drew.
    """
    if check is not None:
        context = click.get_current_context()
        given = [p for p in context.params if context.get_parameter_source(p) == ParameterSource.COMMANDLINE]
        if more := sorted(set(given) - {"check", "debug"}):
            names = ", ".join("RUN" if name == "source" else "--" + name.replace("_", "-") for name in more)
            raise ArgumentError(f"--check proves a file alone: leave out {names}")
        _check(check)
        return
    if source is None:
        raise click.UsageError("Missing argument 'RUN'")
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output'")
    model = source.suffix.lower() == ".onnx" and not source.is_dir()
    if model and (licence or reverse or checkpoint != "newest"):
        raise ArgumentError(f"{source} is a model already: leave out --checkpoint, --reverse and --licence")
    if model and lower == "none" and precision == "fp32":
        raise ArgumentError(f"{source} is a float32 model already, and --lower none would copy it")
    if checkpoint not in ("newest", "best") and not (checkpoint.isascii() and checkpoint.isdecimal()):
        raise ArgumentError(f"checkpoint is {checkpoint!r}; valid: newest, best, or a number of images")
    if precision == "fp32" and max_quality_loss:
        raise ArgumentError("--max-quality-loss is for fp16 and int8: float32 loses nothing; give --precision")
    if "%" in max_quality_loss and features is None:
        raise ArgumentError(
            f"--max-quality-loss {max_quality_loss} is a share of the distance to real pictures, which --features NAME "
            "measures: give it too, or a PSNR, such as 30dB"
        )
    if features is not None and precision == "fp32" and not measure:
        raise ArgumentError("--features with float32 is only measured, and --no-measure leaves that out")
    if data is not None and features is None:
        raise ArgumentError("--data is what --features NAME measures the distance to: give both")
    if model and features is not None and data is None:
        raise ArgumentError(f"{source} does not bring the pictures that it was trained on: give --data")
    _need(*(("onnx",) if model else ("torch", "onnx", "onnxscript")))
    from edgegan.export.pipeline import How, export_model, export_run
    from edgegan.export.quality import Limit

    status = _Status()
    limit = Limit.parse(max_quality_loss) if max_quality_loss else Limit()
    how = How(precision, lower, limit, report, measure, status)
    with status:
        real = _real_pictures(source, model, features, data, status)
        if model:
            made = export_model(source, output, how=how, **real)
        else:
            made = export_run(source, output, checkpoint=checkpoint, reverse=reverse, licence=licence, how=how, **real)
    for line in _lines(made, printable(shlex.quote(str(output))), "torch" if not model else printable(str(source))):
        click.echo(line)
    if report is not None:
        click.echo(f"report: {printable(str(report))} and {printable(str(report.with_suffix('.png')))}")


def _need(*modules: str) -> None:
    """Raise MissingExtraError for the first that is not installed."""
    from importlib.util import find_spec

    for module in (*modules, "onnxruntime"):
        if find_spec(module) is None:
            raise MissingExtraError.of("export", module, "cpu" if module == "onnxruntime" else "export")


def _check(file: Path) -> None:
    _need()
    from edgegan.export.verify import check_file

    for line in check_file(file).lines:
        click.echo(line)
    click.echo(f"{printable(str(file))} is whole and draws what it should")


def _real_pictures(
    source: Path, model: bool, features: str | None, data: str | None, status: "_Status"
) -> dict[str, Any]:
    """The network and the pictures that a distance is measured with, as pipeline.py takes them."""
    if features is None:
        return {}
    from edgegan.trainer.metrics.features import open_features

    network = open_features(features)
    if data is None:
        return {"features": network}  # and the run's own pictures
    from edgegan.trainer.data import open_dataset

    status("reading the real pictures")
    (height, width), channels = _kind(source, model)
    side = height if height == width else None  # as they are: the network makes them fit
    return {"features": network, "data": open_dataset(data, resolution=side, channels=channels)}


def _kind(source: Path, model: bool) -> tuple[tuple[int, int], int]:
    """Height, width and channels of the pictures that the source draws."""
    if model:
        from edgegan import load

        spec = load(source, provider="cpu").spec
        return spec.image_size, spec.channels
    from edgegan.trainer.run import Run

    shape = Run.open(source).settings.data.shape
    return (shape.height, shape.width), shape.channels


class _Status:
    """A line on a terminal that says what is being done; nothing elsewhere."""

    def __call__(self, text: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{text} ...", nl=False, err=True)

    def __enter__(self) -> "_Status":
        return self

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", nl=False, err=True)


def _lines(report: "Report", name: str, origin: str) -> list[str]:
    """What an export says at its end. origin: what the pictures are compared with."""
    from edgegan.export.report import rewrite_lines, table

    written, worst = report.written(), max(*report.parity.values(), *report.sizes.values())
    sizes = f", and of sources of {', '.join(report.sizes)}" if report.sizes else ""
    use = f"translate {name} picture.jpg -o out.png" if report.spec.task == "translate" else f"sample {name}"
    of = f"onnxruntime = {origin}" if report.spec.precision == "fp32" else "pixels in [-1, 1] are float32's"
    kimg = f", {report.spec.kimg:g} kimg" if report.spec.kimg else ""
    return [
        f"{name}: {written.file_bytes / 1e6:.2f} MB, {report.parameters:,} parameters{kimg}; "
        f"{of} to {worst:.1g} at batches {', '.join(map(str, report.parity))}{sizes}; try  edgegan {use}",
        *rewrite_lines(report),
        *report.notes,
        *table(report),
    ]


def main() -> None:
    """The console script's entry point."""
    run(cli, "edgegan-export")
