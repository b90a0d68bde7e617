"""What the commands of `edgegan-train` do once their options are read: open, train with a bar, stop in order."""

import shlex
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edgegan._cli import failure
from edgegan.errors import ArgumentError, EdgeGANError, printable
from edgegan.trainer.data import Dataset, default_root, open_dataset
from edgegan.trainer.data.pairs import check_names, with_source
from edgegan.trainer.devices import pick_device
from edgegan.trainer.dryrun import describe
from edgegan.trainer.loop import Reporter, Trainer
from edgegan.trainer.parallel import Group, PeerLostError, join, leave, local_rank, under_torchrun
from edgegan.trainer.progress import Interrupt, PrepareBar, TrainingBar
from edgegan.trainer.run import Run
from edgegan.trainer.scorer import Scorer
from edgegan.trainer.tensorboard import Events

GPU_WORKERS = 2


@dataclass(frozen=True)
class How:
    """The choices of HOW_OPTIONS."""

    device: str
    workers: int | None
    compiled: bool
    on_collapse: str
    data_root: Path | None
    download_from: str | None
    features: str | None = None  # where the network of scores is now, if it has moved


def reopen(folder: Path, data: str | None, source: str | None, how: How, group: Group) -> tuple[Run, Dataset]:
    """The run in `folder` with its data set, which is at `data` if that has moved, and its source set, at `source`."""
    run = Run.open(folder)
    if source is not None and run.settings.source_set is None:
        raise ArgumentError(f"recipe {run.settings.recipe} has no source set: leave --source out")
    return run, open_in_turn(lambda **where: run.open_dataset(data, source, **where), how, group)


def open_sets(
    data: str,
    source: str | None,
    paired: bool,
    *,
    channels: int | None = None,
    data_root: Path | None = None,
    download_from: str | None = None,
    **how: Any,
) -> Dataset:
    """The data set, and with it the one that is to be translated, if there is one. Raises as `open_dataset`."""
    where: dict[str, Any] = {"data_root": data_root, "download_from": download_from, **how}
    dataset = open_dataset(data, channels=channels, **where)
    if source is None:
        return dataset
    sources = open_dataset(source, channels=channels, **where)
    if sources.images.shape[3] != dataset.images.shape[3]:  # one is grey: G takes and makes colour
        dataset, sources = (open_dataset(each, channels=3, **where) for each in (data, source))
    both = with_source(dataset, sources, paired)
    if paired:
        check_names(data, source, data_root or default_root(), download_from)
    return both


def open_in_turn(open_dataset: Callable[..., Dataset], how: How, group: Group) -> Dataset:
    """The data set; of several processes on one machine the first decodes it, and the others find it decoded."""
    if group.local_rank:
        group.greatest(0)
    with PrepareBar() as bar:
        dataset = open_dataset(data_root=how.data_root, download_from=how.download_from, progress=bar)
    if not group.local_rank:
        group.greatest(0)
    for each in (dataset, dataset.source):
        if each is not None and each.skipped and group.first:
            click.echo(each.skipped_line, err=True)
    return dataset


def work(prepare: Callable[[Group, str], tuple[Run, Dataset]], how: How, *, dry_run: bool = False) -> None:
    """Train what `prepare` opens; under torchrun together with the other processes, of which the first speaks."""
    device = pick_device(how.device, local_rank())
    if dry_run:
        if under_torchrun():
            raise ArgumentError("a dry run is for one process; leave torchrun out")
        run, dataset = prepare(Group(), device)
        click.echo(describe(run, dataset, device))
        return
    group = join(device)
    try:
        run, dataset = prepare(group, device)
        with run.locked() if group.first else nullcontext():
            group.greatest(0)  # by now the first has swept away what a killed one left
            status = _train(run, dataset, device, how, group)
        group.greatest(0)  # none leaves while another still works: that would look like a death
    except (EdgeGANError, OSError) as error:
        if group.world == 1:
            raise
        line, status = failure(error)
        if group.first or not isinstance(error, PeerLostError):
            click.echo(f"edgegan-train: error: {'' if group.first else f'rank {group.rank}: '}{line}", err=True)
        leave(status)
    if group.world > 1:
        leave(status)
    if status:
        raise click.exceptions.Exit(status)


def _train(run: Run, dataset: Dataset, device: str, how: How, group: Group) -> int:
    """Returns the exit status."""
    folder, settings = printable(shlex.quote(str(run.folder))), run.settings
    scorer = None
    if settings.score is not None and group.first:
        scorer = Scorer(settings.score, dataset, how.features, how.data_root)
    elif how.features is not None and settings.score is None:
        raise ArgumentError(f"{folder} measures no scores: leave --features out")
    trainer = Trainer(
        run,
        dataset,
        device,
        group=group,
        workers=how.workers if how.workers is not None else 0 if device == "cpu" else GPU_WORKERS,
        compiled=how.compiled,
        on_collapse=how.on_collapse,
        scorer=scorer,
    )

    def say(text: str, err: bool = False) -> None:
        if group.first:
            click.echo(text, err=err)

    n, height, width, channels = dataset.images.shape
    sources = dataset.source
    made_of = "" if sources is None else f" made of {printable(sources.name)} ({len(sources):,} pictures)"
    together = f"{group.world} processes on " if group.world > 1 else ""
    say(
        f"{settings.recipe}: {run.config.kimg:g} kimg on {printable(dataset.name)} ({n:,} pictures of "
        f"{width}x{height}x{channels}){made_of}, {together}{device}, {settings.precision}, seed {settings.seed} -> "
        f"{folder}"
    )
    if not trainer.finished:
        if scorer is not None:
            with PrepareBar() as bar:
                scorer.see_real(bar)
        with ExitStack() as stack:
            interrupted = stack.enter_context(Interrupt(quiet=not group.first))
            reporters: list[Reporter] = []
            if group.first:
                reporters.append(stack.enter_context(TrainingBar(trainer.total, trainer.nimg)))
                reporters.append(stack.enter_context(Events(run, trainer.nimg)))
            status = trainer.train(reporters, lambda: interrupted.status)
        if status:
            place = f"stopped at {trainer.nimg / 1000:g} kimg, nothing is lost"
            say(f"{place}; go on with  edgegan-train resume {folder}", err=True)
            return status
    minutes, seconds = divmod(round(trainer.seconds), 60)
    say(
        f"done: {trainer.nimg / 1000:g} kimg in {minutes} min {seconds} s of training; see {folder}/report.md, "
        f"progress.gif, curves.png, samples/; next:  edgegan-export {folder} -o model.onnx"
    )
    return 0
