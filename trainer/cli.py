"""The command `edgegan-train`: one sub-command per recipe, and `resume`. Imports torch only to train."""

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import edgegan
from edgegan._cli import WholeNumber, debug_option, run
from edgegan.errors import MissingExtraError, printable
from edgegan.trainer import recipes
from edgegan.trainer.config import make_config

if TYPE_CHECKING:
    from edgegan.trainer.data import Dataset
    from edgegan.trainer.run import Run

FRAMES = 40  # sample grids of a run unless --sample-kimg says otherwise
RECORDS = 200  # log records of a run unless --log-kimg says otherwise

PLACE_OPTIONS = (
    click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda|cuda:1",
        help="Where to train; auto takes a GPU if there is one.",
    ),
    click.option(
        "--data-root",
        type=click.Path(path_type=Path, file_okay=False),
        help="Cache of decoded and downloaded data.  [default: $EDGEGAN_DATA or ~/.cache/edgegan]",
    ),
    click.option("--mirror", help="URL or folder to fetch mnist or fashion-mnist from, instead of the public ones."),
)
RUN_OPTIONS = (
    click.option(
        "--data",
        "source",
        required=True,
        metavar="SOURCE",
        help="A folder of pictures (sub-folders are classes), a .zip of one, .npy, .npz, IDX files, or a name: "
        "digits (10,000 of them, included), mnist or fashion-mnist (downloaded).",
    ),
    click.option(
        "--out", required=True, type=click.Path(path_type=Path), metavar="RUN", help="A new folder for the run."
    ),
    click.option("--resolution", type=WholeNumber(1, 8192), metavar="N", help="Crop and resize the pictures to N x N."),
    click.option(
        "--channels", type=click.Choice(["1", "3"]), help="Make the pictures grey or RGB.  [default: as they are]"
    ),
    click.option(
        "--seed",
        type=WholeNumber(0, 2**64 - 1),
        default=0,
        show_default=True,
        help="Decides every random draw of the run.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        default="auto",
        show_default=True,
        help="bf16 is mixed precision; auto takes it where the device computes it fast.",
    ),
    click.option(
        "--log-kimg", type=float, help=f"Thousands of images between log records.  [default: {RECORDS} a run]"
    ),
    click.option(
        "--sample-kimg",
        type=float,
        help=f"Thousands of images between sample grids, each with a checkpoint.  [default: {FRAMES} a run]",
    ),
    *PLACE_OPTIONS,
    debug_option,
)


class RecipeGroup(click.Group):
    """A group whose commands are the recipes, made from their Config when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The recipes, then the rest."""
        return [*recipes.names(), *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of a recipe."""
        return make_command(name) if name in recipes.names() else super().get_command(ctx, name)


@click.group(cls=RecipeGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(edgegan.__version__, prog_name="edgegan-train")
@debug_option
def cli() -> None:
    """Train a GAN on your own pictures.

    \b
    edgegan-train edge --data photos/ --resolution 64 --out photos-run
    edgegan-train dcgan --data mnist --out digits-run
    edgegan-train dcgan --help            every option of a recipe
    edgegan-train resume digits-run       go on after Ctrl-C, a crash or a reboot

    RUN/samples holds pictures as training goes, RUN/log.jsonl the numbers. When it is done, turn it into a model
    file:  edgegan-export RUN -o model.onnx
    """


def make_command(name: str) -> click.Command:
    """`edgegan-train NAME`: the options of every run, then a flag for each field of the recipe's Config."""
    summary, config_class = recipes.describe(name)
    fields = dataclasses.fields(config_class)

    def callback(**options: Any) -> None:
        start(name, {field.name: options.pop(field.name) for field in fields}, **options)

    command = click.Command(name, callback=callback, help=f"{summary}.", short_help=summary)
    for add_option in RUN_OPTIONS:
        add_option(command)
    for field in fields:
        text = field.metadata["help"]
        add_option = click.option(
            "--" + field.name.replace("_", "-"),
            field.name,
            default=field.default,
            type=type(field.default),
            show_default=True,
            help=f"{text[0].upper()}{text[1:]}.",
        )
        add_option(command)
    return command


def start(
    recipe: str,
    hyper: dict[str, Any],
    *,
    source: str,
    out: Path,
    resolution: int | None,
    channels: str | None,
    seed: int,
    precision: str,
    log_kimg: float | None,
    sample_kimg: float | None,
    device: str,
    data_root: Path | None,
    mirror: str | None,
) -> None:
    """Begin a run in the new folder `out`, with the recipe's hyper-parameters `hyper`."""
    need_torch()
    from edgegan.trainer.data import open_dataset
    from edgegan.trainer.loop import pick_device, pick_precision
    from edgegan.trainer.progress import PrepareBar
    from edgegan.trainer.run import Run, check_new
    from edgegan.trainer.settings import DataSettings, Settings, check_interval

    # Whatever can be found wrong before the work is found before the work.
    make_config(recipes.describe(recipe)[1], hyper)
    log_kimg = max(0.001, hyper["kimg"] / RECORDS) if log_kimg is None else log_kimg
    sample_kimg = max(0.001, hyper["kimg"] / FRAMES) if sample_kimg is None else sample_kimg
    check_interval("log-kimg", log_kimg)
    check_interval("sample-kimg", sample_kimg)
    check_new(out)
    chosen = pick_device(device)
    asked = {"resolution": resolution, "channels": int(channels) if channels else None}
    with PrepareBar() as bar:
        dataset = open_dataset(source, **asked, data_root=data_root, mirror=mirror, progress=bar)
    settings = Settings(
        recipe=recipe,
        config=hyper,
        data=DataSettings.of(dataset, source, **asked),
        seed=seed,
        precision=pick_precision(precision, chosen),
        log_kimg=log_kimg,
        sample_kimg=sample_kimg,
    )
    work(Run.create(out, settings), dataset, chosen)


@cli.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--data", "source", metavar="SOURCE", help="Where the data set is now, if it has moved.")
@debug_option
def resume(folder: Path, source: str | None, device: str, data_root: Path | None, mirror: str | None) -> None:
    """Go on with the run in the folder RUN, from its newest checkpoint.

    On the same processor, with as many threads, the result is to the bit that of a run that was never interrupted. A
    finished run is left as it is.
    """
    need_torch()
    from edgegan.trainer.loop import pick_device
    from edgegan.trainer.progress import PrepareBar
    from edgegan.trainer.run import Run

    opened = Run.open(folder)
    chosen = pick_device(device)
    with PrepareBar() as bar:
        dataset = opened.open_dataset(source, data_root=data_root, mirror=mirror, progress=bar)
    work(opened, dataset, chosen)


for _add_option in PLACE_OPTIONS:
    _add_option(resume)


def work(run: "Run", dataset: "Dataset", device: str) -> None:
    """Train with a bar; stop cleanly at Ctrl-C."""
    from edgegan.trainer.loop import Trainer
    from edgegan.trainer.progress import Interrupt, TrainingBar

    folder, settings = printable(shlex.quote(str(run.folder))), run.settings
    n, height, width, channels = dataset.images.shape
    with run.locked():
        trainer = Trainer(run, dataset, device)
        click.echo(
            f"{settings.recipe}: {run.config.kimg:g} kimg on {printable(dataset.name)} ({n:,} pictures of "
            f"{width}x{height}x{channels}), {device}, {settings.precision}, seed {settings.seed} -> {folder}"
        )
        if not trainer.finished:
            with Interrupt() as interrupted, TrainingBar(trainer.total, trainer.nimg) as bar:
                complete = trainer.train(bar, interrupted)
            if not complete:
                place = f"stopped at {trainer.nimg / 1000:g} kimg, nothing is lost"
                click.echo(f"{place}; go on with  edgegan-train resume {folder}", err=True)
                raise click.exceptions.Exit(interrupted.status)
    minutes, seconds = divmod(round(trainer.seconds), 60)
    click.echo(
        f"done: {trainer.nimg / 1000:g} kimg in {minutes} min {seconds} s of training; see {folder}/progress.gif, "
        f"curves.png, samples/; next:  edgegan-export {folder} -o model.onnx"
    )


def need_torch() -> None:
    """Raise MissingExtraError, which has the pip line, unless the extra `train` is installed."""
    from importlib.util import find_spec

    for module in ("torch", "tqdm", "matplotlib"):
        if find_spec(module) is None:
            raise MissingExtraError.of("training", module, "train")


def main() -> None:
    """The console script's entry point."""
    run(cli, "edgegan-train")
