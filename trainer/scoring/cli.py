"""The command `edgegan-score`."""

import json
import math
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import edgegan
from edgegan._cli import WholeNumber, aligned, debug_option, run
from edgegan._files import atomic_write, check_output
from edgegan.commands import SEED, device_options
from edgegan.errors import printable
from edgegan.trainer.scoring.network import default_features, read_preparation

if TYPE_CHECKING:
    from edgegan.model import Generator
    from edgegan.trainer.data import Dataset
    from edgegan.trainer.metrics.features import FeatureNetwork
    from edgegan.trainer.scoring.metrics import Score
    from edgegan.trainer.scoring.score import Report

STDOUT = "-"
PATIENCE = 1.0  # seconds without a bar


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(edgegan.__version__, prog_name="edgegan-score")
@click.argument("model", type=click.Path(path_type=str))
@click.argument("source", metavar="DATA")
@click.option("-n", "n", type=WholeNumber(2, 10**7), default=10_000, show_default=True, help="How many to draw.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Which pictures to draw, as of edgegan sample.")
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
@click.option("--fit", default="crop", show_default=True, help="How DATA was made square: crop, pad or stretch.")
@click.option("--skip-broken", is_flag=True, help="Leave broken pictures of DATA out; else refuse them.")
@click.option("--batch", type=WholeNumber(1, 2**20), help="Pictures a run of the model.  [default: 8]")
@click.option("--json", "as_json", metavar="FILE|-", help="Write all of it as JSON, to a file or to stdout.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="A picture: samples beside the real ones nearest to them, and bars of precision to coverage.",
)
@click.option("--write", is_flag=True, help="Put the scores into MODEL, for edgegan info; its SHA-256 becomes another.")
@device_options
@debug_option
def cli(
    model: str,
    source: str,
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
    """
    if threads is not None:  # before NumPy is imported, and reads it
        os.environ.setdefault("OPENBLAS_NUM_THREADS", str(threads))
    from edgegan.trainer.data import open_dataset
    from edgegan.trainer.scoring.score import chosen_metrics, score
    from edgegan.trainer.scoring.write import need_onnx, write_scores

    # Whatever can be found wrong before the work is found before the work.
    names = None if metrics is None else [name.strip() for name in metrics.split(",")]
    chosen_metrics(names)
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
    generator = edgegan.load(model, provider, threads, bulk=True)
    h, w = generator.spec.image_size
    with Bar() as bar:
        dataset = open_dataset(
            source,
            resolution=h if h == w else None,
            channels=min(3, generator.spec.channels),
            fit=fit,
            skip_broken=skip_broken,
            progress=bar,
        )
        if dataset.skipped_line:
            click.echo(printable(f"edgegan-score: {dataset.skipped_line}"), err=True)
        network = _network(features, how, generator, dataset, threads)
        settings: dict[str, Any] = {"seed": seed, "batch": batch, "k": k, "metrics": names}
        report, comparison = score(
            generator, dataset, network, n, **settings, floor=floor, per_class=per_class, progress=bar
        )
        if output is not None:
            from edgegan.trainer.scoring.figure import save_figure

            save_figure(output, report, comparison, generator, dataset)
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


class Bar:
    """A bar on stderr, if that is a terminal and the work lasts. Call it with (done, total, what)."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._bar: Any = None
        self._what = ""
        self._start = time.monotonic()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __call__(self, done: int, total: int, what: str) -> None:
        """`done` of `total` of `what`; a total of 0 is not known."""
        if not sys.stderr.isatty() or not total or time.monotonic() - self._start < PATIENCE:
            return
        if what != self._what:
            self._open.close()
            self._what = what
            bar = click.progressbar(length=total, label=what, file=sys.stderr, show_pos=True)
            self._bar = self._open.enter_context(bar)
        self._bar.update(done - self._bar.pos)


def _network(
    features: str | None, how: dict[str, Any], generator: "Generator", dataset: "Dataset", threads: int | None
) -> "FeatureNetwork":
    """The network that was asked for, or the one that comes along and knows such pictures."""
    from edgegan.trainer.metrics.features import open_features

    if features is None:
        spec = generator.spec
        features = default_features(spec.image_size, spec.channels, dataset.name, generator.source)
    return open_features(features, threads=threads, progress=sys.stderr.isatty(), **how)


def table(report: "Report") -> list[str]:
    """What people read of a report."""
    from edgegan.trainer.scoring.metrics import METRICS

    facts = report.facts
    samples, data, network = facts["samples"], facts["data"], facts["features"]
    seen = f"{network['name']} ({network['sha256'][:12]}, {network['dimensions']} features)"
    lines = [
        f"{facts['model']['file']} against {data['name']} in the eyes of {seen}",
        f"{samples['drawn']:,} pictures drawn of seed {samples['seed']}, {samples['real']:,} real ones",
    ]
    if report.floor:
        n, others = samples["floor"]
        lines[-1] += f'; column "real": {n:,} of these against the other {others:,}'
    if facts["on_white"]:
        lines.append("the model's transparent pictures were laid on white")
    rows: list[tuple[str, ...]] = [("score", "value", "real", "better", "what it is")]
    for metric in METRICS:
        if metric.name in report.scores:
            floor = report.floor.get(metric.name)
            value = _shown(report.scores[metric.name])
            rows.append((report.title(metric.name), value, _shown(floor), metric.better, metric.about))
    lines += ["", *aligned(rows, 1, 2)]
    if report.per_class:
        each = list(report.per_class.items())
        kinds = list(each[0][1])
        shown = [(name, *(f"{found[kind]:.4g}" for kind in kinds)) for name, found in each]
        lines += ["", *aligned([("class", *kinds), *shown], *range(1, len(kinds) + 1))]
    if report.missing:
        lines += ["", *(f"not measured: {name}: {why}" for name, why in report.missing.items())]
    return lines


def _shown(score: "Score | None") -> str:
    """A value, to two digits of its error where it has one."""
    if score is None:
        return "-"
    if not score.error:
        return f"{score.value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(score.error)))
    return f"{score.value:.{digits}f} ± {score.error:.{digits}f}"


def main() -> None:
    """The console script's entry point."""
    run(cli, "edgegan-score")
