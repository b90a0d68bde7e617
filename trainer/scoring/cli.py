"""The command `edgegan-score`."""

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import edgegan
from edgegan._cli import WholeNumber, debug_option, run
from edgegan._files import atomic_write, check_output
from edgegan.commands import SEED, device_options
from edgegan.errors import ArgumentError, printable
from edgegan.trainer.scoring.bar import Bar
from edgegan.trainer.scoring.network import default_features, read_preparation

if TYPE_CHECKING:
    from edgegan.model import Generator
    from edgegan.trainer.data import Dataset
    from edgegan.trainer.metrics.features import FeatureNetwork

STDOUT = "-"
OWN = 0  # in the place of a number of pixels: what --resolution own says


class Side(WholeNumber):
    """A number of pixels, or `own`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return OWN if value == "own" else super().convert(value, param, ctx)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(edgegan.__version__, prog_name="edgegan-score")
@click.argument("model", type=click.Path(path_type=str))
@click.argument("data")
@click.option(
    "--source",
    metavar="SOURCE",
    help="Of a model that translates: the pictures that it turns into such as those of DATA.",
)
@click.option(
    "--paired",
    is_flag=True,
    help="Each of SOURCE should become the one of DATA of its name, whatever the suffix; of arrays, of its number.",
)
@click.option(
    "--resolution",
    type=Side(1, 8192),
    metavar="N|own",
    help="Pixels a side of SOURCE's pictures; own: as they are.  [default: those of training; own if MODEL enlarges]",
)
@click.option(
    "-n",
    "n",
    type=WholeNumber(2, 10**7),
    default=10_000,
    show_default=True,
    help="How many to draw, or to take of SOURCE.",
)
@click.option(
    "--seed", type=SEED, default=0, show_default=True, help="Which to draw, as of edgegan sample, or to take of SOURCE."
)
@click.option(
    "--features",
    metavar="NAME|FILE",
    help="The network in whose features pictures are compared: lenet (handwritten digits), lenet-fashion (garments), "
    "inception (any pictures; that of FID, see below), an .onnx file, or a .pth file of other weights for inception.  "
    "[default: lenet for grey pictures up to 32 x 32, lenet-fashion for the data fashion-mnist]",
)
@click.option(
    "--preparation",
    metavar="JSON",
    help='How FILE.onnx wants its pictures, if it does not say so itself, such as \'{"range": [-1, 1], "size": 299, '
    '"output": "pool"}\'; also mean, std, order, layout, channels, logits.',
)
@click.option("--metrics", metavar="A,B,...", help="Only these of the above.  [default: all that can be measured]")
@click.option(
    "--k", type=WholeNumber(1, 1000), default=5, show_default=True, help="Neighbours, of precision to coverage."
)
@click.option("--per-class", is_flag=True, help="Also the Frechet distance and the accuracy of each class.")
@click.option(
    "--floor/--no-floor",
    default=True,
    show_default=True,
    help="Measure the same of real pictures, n or half of all, against the others: what is within reach.",
)
@click.option(
    "--fit", default="crop", show_default=True, help="How DATA, SOURCE were made square: crop, pad, stretch, tiles."
)
@click.option("--skip-broken", is_flag=True, help="Leave broken pictures out; else refuse them.")
@click.option("--batch", type=WholeNumber(1, 2**20), help="Pictures a run of the model.  [default: 8]")
@click.option("--json", "as_json", metavar="FILE|-", help="Write all of it as JSON, to a file or to stdout.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="A picture: samples beside the real ones nearest to them, or sources, results and the true or nearest ones; "
    "and bars of precision to coverage.",
)
@click.option("--write", is_flag=True, help="Put the scores into MODEL, for edgegan info; its SHA-256 becomes another.")
@device_options
@debug_option
def cli(
    model: str,
    data: str,
    source: str | None,
    paired: bool,
    resolution: int | None,
    n: int,
    seed: int,
    features: str | None,
    preparation: str | None,
    metrics: str | None,
    k: int,
    per_class: bool,
    floor: bool,
    fit: str,
    skip_broken: bool,
    batch: int | None,
    as_json: str | None,
    output: Path | None,
    write: bool,
    provider: str,
    threads: int | None,
) -> None:
    """Score the pictures that MODEL, a file of edgegan-export, draws against the real ones in DATA.

    \b
    edgegan-score digits.onnx mnist
    edgegan-score digits.onnx mnist -n 50000 --json scores.json -o scores.png
    edgegan-score shoes.onnx shoes/ --features inception
    edgegan-score shoes.onnx shoes/ --features resnet.onnx --metrics frechet,precision,recall
    edgegan-score digits.onnx mnist --write       then: edgegan info digits.onnx

    DATA is what --data of edgegan-train takes, and becomes as large as the model's pictures. Scores are of one network,
    one number of pictures and one data set: only those that agree in all three compare. The same command gives the same
    numbers; beside them is what real pictures get, where there are enough.

    \b
    frechet         distance of mean and spread of the features; lower is better, 0 is not in reach
    kernel          the same without a bias by few pictures, with its standard error; as real: about 0
    precision       share of drawn pictures that lie among real ones: quality
    recall          share of real pictures that lie among drawn ones: variety
    density         as precision, but counts how many real ones are around; as real: 1
    coverage        share of real pictures with a drawn one nearby: variety
    authenticity    share of drawn pictures that copy no real one; well below real: learnt by heart
    diversity       mean distance of two drawn pictures' features; below real: too much alike
    ms-ssim         likeness of two drawn pictures' pixels, 0 to 1; above real: too much alike
    class-score     how clear and varied a classifier's classes are, from 1 to their number
    class-accuracy  share of drawn pictures of the class that was asked for

    frechet is called FID, and kernel KID, only in the features of the Inception network, which does not come along:
    pip install 'edgegan[inception]', and the first --features inception downloads it, 96 MB.

    Of a model that turns pictures into others, the results for those of SOURCE are scored, and beside them these
    pictures as they are (enlarged, if the model enlarges: bicubic), the bound to beat:

    \b
    edgegan-score zebra.onnx zebras/ --source horses/ --features inception -o scores.png
    edgegan-score sharper.onnx photos/ --source small/ --paired --features inception

    \b
    psnr, ssim, l1    likeness to the true pictures, with --paired: decibels, 0 to 1, grey levels
    feature-distance  to the true picture's features, both of unit length, 0 to 4; it is no LPIPS
    retrieval         share of results whose nearest picture of DATA is their own true one
    """
    if threads is not None:  # before NumPy is imported, and reads it
        os.environ.setdefault("OPENBLAS_NUM_THREADS", str(threads))
    from edgegan.session import BATCH
    from edgegan.trainer.data import open_dataset
    from edgegan.trainer.scoring.measure import chosen_metrics, metrics_of
    from edgegan.trainer.scoring.metrics import METRICS
    from edgegan.trainer.scoring.score import score, score_translation
    from edgegan.trainer.scoring.sets import check_draws
    from edgegan.trainer.scoring.table import table
    from edgegan.trainer.scoring.translated import open_translation
    from edgegan.trainer.scoring.write import need_onnx, write_scores

    # Whatever can be found wrong before the work is found before the work.
    names = None if metrics is None else [name.strip() for name in metrics.split(",")]
    chosen_metrics(names, METRICS if source is None else metrics_of(paired))
    _check_source(source, paired, resolution, per_class)
    how = read_preparation(preparation, features)
    if as_json not in (None, STDOUT):
        check_output(as_json)
    if output is not None:
        from edgegan.image import check_suffix

        check_suffix(output)
        check_output(output)
    if write:
        need_onnx()
        check_output(model)
    # A network that translates takes long enough for a picture to share its threads within.
    generator = edgegan.load(model, provider, threads, bulk=source is None)
    with Bar() as bar:
        channels = min(3, generator.spec.channels)
        opened = partial(open_dataset, channels=channels, fit=fit, skip_broken=skip_broken, progress=bar)
        sources = None
        if source is None:
            check_draws(generator)
            h, w = generator.spec.image_size
            dataset = opened(data, resolution=h if h == w else None)
        else:
            dataset, sources = open_translation(generator, data, source, resolution, paired, opened)
        for each in (dataset, sources):
            if each is not None and each.skipped_line:
                click.echo(printable(f"edgegan-score: {each.skipped_line}"), err=True)
        network = _network(features, how, generator, dataset, threads)
        settings: dict[str, Any] = {"seed": seed, "k": k, "metrics": names, "floor": floor, "progress": bar}
        if sources is None:
            report, seen = score(generator, dataset, network, n, batch=batch, per_class=per_class, **settings)
        else:
            settings |= {"paired": paired, "batch": batch or BATCH}
            report, seen = score_translation(generator, sources, dataset, network, n, **settings)
        if output is not None:
            from edgegan.trainer.scoring.figure import save_figure
            from edgegan.trainer.scoring.figure_translated import save_translations

            if sources is None:
                save_figure(output, report, seen, generator, dataset)
            else:
                save_translations(output, report, seen, generator, sources, dataset)
    if as_json is not None:
        text = json.dumps(report.to_json(), indent=2, allow_nan=False)
        if as_json != STDOUT:
            with atomic_write(as_json) as file:
                file.write(f"{text}\n".encode())
    if as_json == STDOUT:
        click.echo(text)
    else:
        for line in table(report):
            click.echo(printable(line))
    if write:
        digest = write_scores(model, generator, report.to_metadata())
        click.echo(printable(f"{model}: holds these scores now; its SHA-256 is {digest}"), err=as_json == STDOUT)


def _check_source(source: str | None, paired: bool, resolution: int | None, per_class: bool) -> None:
    """Raise ArgumentError for options of the other kind of model."""
    if source is None and (paired or resolution is not None):
        name = "--paired" if paired else "--resolution"
        raise ArgumentError(
            f"{name} is for models that translate: give --source SOURCE, the pictures to translate, too"
        )
    if source is not None and per_class:
        raise ArgumentError("--per-class is for models that draw pictures of classes; with --source leave it out")


def _network(
    features: str | None, how: dict[str, Any], generator: "Generator", dataset: "Dataset", threads: int | None
) -> "FeatureNetwork":
    """The network that was asked for, or the one that comes along and knows such pictures."""
    from edgegan.trainer.metrics.features import open_features

    if features is None:
        _, h, w, _ = dataset.images.shape
        features = default_features((h, w), generator.spec.channels, dataset.name, generator.source)
    return open_features(features, threads=threads, progress=sys.stderr.isatty(), **how)


def main() -> None:
    """The console script's entry point."""
    run(cli, "edgegan-score")
