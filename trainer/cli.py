"""The command `edgegan-train`: one sub-command per recipe, and `resume`. Imports torch only to train."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import edgegan
from edgegan._cli import WholeNumber, debug_option, run
from edgegan.errors import ArgumentError, MissingExtraError
from edgegan.trainer import recipes
from edgegan.trainer.config import make_config
from edgegan.trainer.data import FITS

if TYPE_CHECKING:
    from edgegan.trainer.data import Dataset
    from edgegan.trainer.run import Run

FRAMES = 40  # sample grids of a run unless --sample-kimg says otherwise
RECORDS = 200  # log records of a run unless --log-kimg says otherwise

HOW_OPTIONS = (  # where and how to train: no part of the run, so that a resume may choose anew
    click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda|cuda:1",
        help="Where to train; auto takes a GPU if there is one.",
    ),
    click.option(
        "--workers",
        type=WholeNumber(0, 64),
        default=None,
        help="Threads that prepare batches ahead.  [default: 2 with a GPU, else 0]",
    ),
    click.option("--compile", "compiled", is_flag=True, help="torch.compile the nets that allow it: slow to start."),
    click.option(
        "--on-collapse",
        type=click.Choice(["continue", "stop"]),
        default="continue",
        show_default=True,
        help="What to do when G draws the same picture again and again.",
    ),
    click.option(
        "--data-root",
        type=click.Path(path_type=Path, file_okay=False),
        help="Cache of decoded and downloaded data.  [default: $EDGEGAN_DATA or ~/.cache/edgegan]",
    ),
    click.option(
        "--download-from",
        metavar="URL",
        help="URL or folder to fetch mnist or fashion-mnist from, instead of the public ones.",
    ),
)
RUN_OPTIONS = (
    click.option(
        "--data",
        "source",
        required=True,
        metavar="SOURCE",
        help="A folder of pictures (sub-folders are classes), a .zip of one, .tar shards, .npy, .npz, IDX files, or a "
        "name: digits (10,000 of them, included), mnist or fashion-mnist (downloaded).",
    ),
    click.option("--out", type=click.Path(path_type=Path), metavar="RUN", help="A new folder for the run.  [required]"),
    click.option(
        "--dry-run", is_flag=True, help="Show nets, parameters, multiply-adds and memory; train nothing, write nothing."
    ),
    click.option("--resolution", type=WholeNumber(1, 8192), metavar="N", help="Make the pictures N x N."),
    click.option(
        "--fit",
        type=click.Choice(FITS),
        default=FITS[0],
        show_default=True,
        help="How --resolution makes them square: crop the centre, pad with white, or stretch. tiles cuts each into "
        "many, without resizing: for super-resolution of photographs, say.",
    ),
    click.option(
        "--channels", type=click.Choice(["1", "3"]), help="Make the pictures grey or RGB.  [default: as they are]"
    ),
    click.option("--mirror", is_flag=True, help="Show half of the pictures flipped left to right; not for text."),
    click.option(
        "--skip-broken", is_flag=True, help="Leave broken picture files out, and say which; else refuse them."
    ),
    click.option(
        "--holdout",
        type=WholeNumber(0, 2**31),
        default=0,
        show_default=True,
        help="Never show so many pictures, to see whether D learns the others by heart.",
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
        "--micro-batch",
        type=WholeNumber(0, 2**20),
        default=0,
        help="Compute a batch in pieces of so many images, to save memory.  [default: 0, the whole batch]",
    ),
    click.option(
        "--log-kimg", type=float, help=f"Thousands of images between log records.  [default: {RECORDS} a run]"
    ),
    click.option(
        "--sample-kimg",
        type=float,
        help=f"Thousands of images between sample grids, each with a checkpoint.  [default: {FRAMES} a run]",
    ),
    click.option(
        "--score-every",
        type=float,
        metavar="KIMG",
        help="Score the pictures every so many thousand images and at the end, as edgegan-score does: log.jsonl, "
        "curves.png and the model file get the scores, and the best checkpoint is that of the least Frechet distance.",
    ),
    click.option(
        "--score-images",
        type=WholeNumber(10, 10**7),
        help="How many pictures to draw for that.  [default: 10,000]",
    ),
    click.option(
        "--features",
        metavar="NAME|FILE",
        help="The network whose features are compared: lenet (handwritten digits), lenet-fashion (garments), inception "
        "(any pictures; that of FID), or a file: see edgegan-score --help.  [default: as there]",
    ),
    click.option(
        "--preparation",
        metavar="JSON",
        help="How FILE.onnx wants its pictures, if it does not say so itself: see edgegan-score --help.",
    ),
    *HOW_OPTIONS,
    debug_option,
)


SOURCE_OPTION = click.option(
    "--source",
    "source_set",
    required=True,
    metavar="SOURCE",
    help="The pictures that G learns to turn into such as those of --data: whatever --data takes.",
)


class RecipeGroup(click.Group):
    """A group whose commands are the recipes, made from their Config when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The recipes, then the rest."""
        return [*recipes.names(), *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of a recipe."""
        return make_command(name) if name in recipes.names() else super().get_command(ctx, name)


def _list(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """--list: each recipe's summary and what follows it, the first paragraph of its docstring, and its defaults."""
    if not value:
        return
    for name in recipes.names():
        about = recipes.describe(name)
        defaults = {field.name: field.default for field in dataclasses.fields(about.Config)}
        click.echo(f"{name}: {about.summary}.")
        click.echo(click.wrap_text(" ".join(about.paper.split()), 100, "    ", "    "))
        click.echo(
            f"    as it stands: {defaults['kimg']:g} kimg in batches of {defaults['batch'] or 'the published size'}\n"
        )
    click.echo("edgegan-train RECIPE --help  shows every option of one.")
    ctx.exit()


@click.group(cls=RecipeGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(edgegan.__version__, prog_name="edgegan-train")
@click.option(
    "--list", "listed", is_flag=True, is_eager=True, callback=_list, expose_value=False, help="Describe the recipes."
)
@debug_option
def cli() -> None:
    """Train a GAN on your own pictures.

    \b
    edgegan-train edge --data photos/ --resolution 64 --out photos-run
    edgegan-train dcgan --data mnist --out digits-run
    edgegan-train --list                  what recipes there are
    edgegan-train dcgan --help            every option of one
    edgegan-train resume digits-run       go on after Ctrl-C, a crash or a reboot

    RUN/samples holds pictures as training goes, RUN/log.jsonl the numbers, RUN/report.md all of it on a page at the
    end. Curves while it trains:  tensorboard --logdir RUN.  Then make a model file:  edgegan-export RUN -o model.onnx

    On several GPUs:  torchrun --nproc-per-node 8 -m edgegan.trainer edge --data photos/ --out photos-run
    """


def make_command(name: str) -> click.Command:
    """`edgegan-train NAME`: the options of every run, then a flag for each field of the recipe's Config."""
    about = recipes.describe(name)
    fields = dataclasses.fields(about.Config)

    def callback(**options: Any) -> None:
        start(name, {field.name: options.pop(field.name) for field in fields}, **options)

    made = click.Command(name, callback=callback, help=f"{about.summary}.", short_help=about.summary)
    data, *others = RUN_OPTIONS
    for add_option in (data, SOURCE_OPTION, *others) if about.takes_source else RUN_OPTIONS:
        add_option(made)
    for field in fields:
        text, choices, default = field.metadata["help"], field.metadata["choices"], field.default
        flag: dict[str, Any] = {"is_flag": True} if isinstance(default, bool) else {"show_default": default != ""}
        add_option = click.option(
            "--" + field.name.replace("_", "-"),
            field.name,
            default=default,
            type=click.Choice(choices) if choices else type(default),
            help=f"{text[0].upper()}{text[1:]}.",
            **flag,
        )
        add_option(made)
    return made


def start(
    recipe: str,
    hyper: dict[str, Any],
    *,
    source: str,
    source_set: str | None = None,
    out: Path | None,
    dry_run: bool,
    resolution: int | None,
    fit: str,
    channels: str | None,
    mirror: bool,
    skip_broken: bool,
    holdout: int,
    seed: int,
    precision: str,
    micro_batch: int,
    log_kimg: float | None,
    sample_kimg: float | None,
    score_every: float | None,
    score_images: int | None,
    features: str | None,
    preparation: str | None,
    **how_options: Any,
) -> None:
    """Begin a run in the new folder `out`, with the recipe's hyper-parameters `hyper`."""
    need_torch()
    from edgegan.trainer import command
    from edgegan.trainer.devices import pick_precision
    from edgegan.trainer.parallel import Group, part_of, restarted
    from edgegan.trainer.run import Run, check_new
    from edgegan.trainer.scorer import ScoreOptions
    from edgegan.trainer.settings import DataSettings, Settings, check_interval

    # Whatever can be found wrong before the work is found before the work.
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out'.")
    how = command.How(**how_options)
    about = recipes.describe(recipe)
    for field in dataclasses.fields(about.Config):
        if field.metadata["file"] and hyper[field.name]:
            from edgegan.trainer.perceptual import pinned

            hyper[field.name] = pinned(hyper[field.name])  # an absolute path and a digest: found and proved on resume
    paired = bool(getattr(make_config(about.Config, hyper), "paired", False))
    log_kimg = max(0.001, hyper["kimg"] / RECORDS) if log_kimg is None else log_kimg
    sample_kimg = max(0.001, hyper["kimg"] / FRAMES) if sample_kimg is None else sample_kimg
    check_interval("log-kimg", log_kimg)
    check_interval("sample-kimg", sample_kimg)
    if score_every is not None and about.translates:
        raise ArgumentError(
            f"--score-every is for recipes that draw, and {recipe} translates: leave it out, and score the exported "
            "model with edgegan-score --source"
        )
    if paired and fit == "tiles":
        raise ArgumentError("--fit tiles would part pairs, whose pictures may differ in size: cut them beforehand")
    scores = ScoreOptions(score_every, score_images, features, preparation)

    def prepare(group: Group, device: str) -> "tuple[Run, Dataset]":
        again = out is not None and restarted() and (out / "config.json").exists()
        if out is not None and group.first and not dry_run and not again:
            check_new(out)
        opened_in: dict[str, Any] = {
            "resolution": resolution,
            "channels": int(channels) if channels else None,
            "fit": fit,
            "skip_broken": skip_broken,
        }
        dataset = command.open_in_turn(partial(command.open_sets, source, source_set, paired, **opened_in), how, group)
        if source_set is None or dataset.source is None:
            sources = None
        else:
            opened_in["channels"] = dataset.images.shape[3]  # of both, if one is grey
            sources = DataSettings.of(dataset.source, source_set, **opened_in)
        settings = Settings(
            recipe=recipe,
            config=hyper,
            data=DataSettings.of(dataset, source, **opened_in),
            seed=seed,
            precision=pick_precision(precision, device),
            log_kimg=log_kimg,
            sample_kimg=sample_kimg,
            mirror=mirror,
            holdout=holdout,
            micro_batch=micro_batch,
            score=scores.settings(dataset),
            source_set=sources,
        )
        if out is None or dry_run:
            return Run(Path("dry-run"), settings), dataset
        part_of(Run(out, settings).config.batch, group.world)
        if again:
            run = Run.open(out)
            if run.settings != settings:
                check_new(out)  # it is another run: torchrun's second start is refused as the first one was
            return run, dataset
        if group.first:
            Run.create(out, settings)
        group.greatest(0)  # the others wait until it is there
        return Run.open(out), dataset

    command.work(prepare, how, dry_run=dry_run)


@cli.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--data", metavar="SOURCE", help="Where the data set is now, if it has moved.")
@click.option("--source", metavar="SOURCE", help="Where the set that is translated is now, if it has moved.")
@click.option("--features", metavar="FILE", help="Where the network of --score-every is now, if it has moved.")
@debug_option
def resume(folder: Path, data: str | None, source: str | None, **how_options: Any) -> None:
    """Go on with the run in the folder RUN, from its newest checkpoint.

    On the same processor, with as many threads, the result is to the bit that of a run that was never interrupted. A
    finished run is left as it is.
    """
    need_torch()
    from edgegan.trainer import command

    how = command.How(**how_options)
    command.work(lambda group, device: command.reopen(folder, data, source, how, group), how)


for _add_option in HOW_OPTIONS:
    _add_option(resume)


def need_torch() -> None:
    """Raise MissingExtraError, which has the pip line, unless the extra `train` is installed."""
    from importlib.util import find_spec

    for module in ("torch", "tqdm", "matplotlib"):
        if find_spec(module) is None:
            raise MissingExtraError.of("training", module, "train")


def main() -> None:
    """The console script's entry point."""
    run(cli, "edgegan-train")
