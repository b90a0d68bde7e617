"""RUN/report.md: a run on one page, for people, to be read in the folder or on any site that shows Markdown."""

import dataclasses
import platform
import shlex
from typing import Any

import click
import torch

import edgegan
from edgegan import _markdown as markdown
from edgegan._files import atomic_write
from edgegan._markdown import plain
from edgegan.errors import printable
from edgegan.trainer.config import make_config
from edgegan.trainer.figures import Episode, alarm_episodes
from edgegan.trainer.progress import memory_text
from edgegan.trainer.run import Run

MAX_CLASSES = 20  # named on the page


def make_report(run: Run, device: str | None = None) -> None:
    """Write RUN/report.md of what the folder holds: after the last image, or where a run was stopped.

    device: where it was trained, as torch names it; None leaves it out. Links are relative, so the folder can be moved.
    The same folder gives the same page. Raises RunError for a damaged log, OSError if the disk refuses.
    """
    records = run.read_log()
    total, nimg = run.config.kimg, records[-1]["nimg"] if records else 0
    finished = nimg >= round(total * 1000)
    name = plain(run.folder.resolve().name)
    parts = [
        f"# {name}: {plain(run.settings.recipe)} on {plain(run.settings.data.name)}",
        "" if finished else f"**Not finished:** {nimg / 1000:g} of {total:g} kimg are done.",
        *_pictures(run),
        "## Results",
        markdown.table(("", ""), _results(records, total)),
        "## Alarms",
        "\n".join(map(_alarm, alarm_episodes(records))) or "None.",
        "## What to do next",
        f"In the folder that holds {name}:",
        markdown.commands(_next_commands(run, finished)),
        "## Data",
        markdown.table(("", ""), _data(run)),
        "## Options",
        config_table(run),
        "## How to make it again",
        "On a CPU of this kind, with as many threads and these versions, this repeats the run to the bit; elsewhere "
        "sums are rounded in another order.",
        markdown.commands([command_of(run)]),
        markdown.table(("", ""), _versions(device)),
    ]
    with atomic_write(run.folder / "report.md") as file:
        file.write(("\n\n".join(filter(None, parts)) + "\n").encode())


def config_table(run: Run) -> str:
    """Every option of the run with its value, its default and what it is, as a Markdown table."""
    rows = [
        (
            f"`{option.opts[-1]}`",
            plain(value),
            "" if default is None else plain(default),
            plain(option.help or ""),
        )
        for option, value, default in _options(run)
    ]
    return markdown.table(("option", "value", "default", "what it is"), rows)


def command_of(run: Run) -> str:
    """The command that begins the same run in a new folder: every option that was not left to its default."""
    words = ["edgegan-train", run.settings.recipe]
    # What the recipe puts in a default's place follows from the pictures, so the command need not say it.
    asked = dataclasses.asdict(make_config(run.recipe.Config, run.settings.config))
    for option, of_run, default in _options(run):
        value = asked.get(option.name or "", of_run)
        if value == default:
            continue
        if isinstance(value, bool):
            words += (option.opts if value else option.secondary_opts)[:1]
        else:
            words += [option.opts[-1], str(value)]
    return shlex.join([*words, "--out", run.folder.resolve().name + "-again"])


def _options(run: Run) -> list[tuple[click.Option, Any, Any]]:
    """(option, the run's value, default) of each option of the run's command that config.json has a value for."""
    from edgegan.trainer.cli import make_command  # here: the command imports what imports this

    settings, data = run.settings, run.settings.data
    values = dataclasses.asdict(data) | dataclasses.asdict(settings) | dataclasses.asdict(run.config)
    values |= {} if settings.score is None else dataclasses.asdict(settings.score)
    values["source_set"] = None if settings.source_set is None else settings.source_set.source
    values["channels"] = data.grey_or_rgb  # as asked for
    found = []
    for option in make_command(settings.recipe).params:
        value = values.get(option.name or "")
        if isinstance(option, click.Option) and value is not None:
            # Where there is no default, click has a mark of its own.
            default = option.default if isinstance(option.default, bool | int | float | str) else None
            found.append((option, value, default))
    return found


def _pictures(run: Run) -> list[str]:
    """The last grid, and the figures that are there."""
    samples = sorted(run.samples.glob("[0-9]*.png"))
    shown = []
    if samples:
        at = int(samples[-1].stem) / 1000
        shown.append(f"![what the averaged generator draws after {at:g} kimg](samples/{samples[-1].name})")
    for file, what in (("progress.gif", "how they came to be"), ("curves.png", "curves of the training")):
        if (run.folder / file).exists():
            shown.append(f"![{what}]({file})")
    return shown


def _results(records: list[dict[str, Any]], total: float) -> list[tuple[str, str]]:
    if not records:
        return [("shown", f"0 of {total:g} kimg")]
    last = records[-1]
    hours, rest = divmod(round(last["seconds"]), 3600)
    rows = [
        ("shown", f"{last['kimg']:g} of {total:g} kimg"),
        ("time of training", f"{hours} h {rest // 60} min {rest % 60} s"),
        ("speed", f"{last['nimg'] / max(last['seconds'], 1e-9):.1f} images/s"),
    ]
    if memory := [r["memory_mb"] for r in records if "memory_mb" in r]:
        rows.append(("peak memory", memory_text(max(memory))))
    if measured := [r for r in records if "swd" in r]:
        best = min(measured, key=lambda r: r["swd"])
        rows += [
            (f"sliced Wasserstein distance, {which}", f"{r['swd']:g} at {r['kimg']:g} kimg")
            for which, r in (("first", measured[0]), ("best", best), ("last", measured[-1]))
        ]
        rows.append(("the same between real pictures", f"{measured[-1]['swd_real']:g}"))
        if "psnr" in measured[-1]:
            rows.append(("PSNR to the true pictures, last", f"{measured[-1]['psnr']:g} dB"))
    rows += [(f"loss {plain(name)}, last", f"{value:g}") for name, value in last["losses"].items()]
    newest: dict[str, float] = next((r["health"] for r in reversed(records) if "health" in r), {})
    rows += [(f"health: {plain(name)}, last", f"{value:g}") for name, value in newest.items()]
    if scored := [r for r in records if "score" in r]:
        rows += _scores(scored)
    return rows


def _scores(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Of the records with scores: the last ones, and where the first of each, a distance, was least."""
    last = records[-1]
    name, by = next(iter(last["score"])), plain(last["features"])
    best = min(records, key=lambda r: r["score"][name])
    rows = [
        (f"{plain(name)} ({by}), best, which is checkpoint best", f"{best['score'][name]:g} at {best['kimg']:g} kimg")
    ]
    rows += [
        (f"{plain(name)} ({by}), last", f"{value:g} at {last['kimg']:g} kimg") for name, value in last["score"].items()
    ]
    return rows


def _alarm(episode: Episode) -> str:
    until = "the end" if episode.end is None else f"{episode.end:g} kimg"
    return f"- **{plain(episode.kind)}**, from {episode.begin:g} kimg to {until}: {plain(episode.message)}"


def _data(run: Run) -> list[tuple[str, str]]:
    data, sources = run.settings.data, run.settings.source_set
    rows = [
        ("pictures", f"{data.count:,} of {data.width}x{data.height}x{data.channels}"),
        ("digest", f"`{printable(data.digest)}`"),
    ]
    if sources is not None:
        rows.append(
            (f"made of {plain(sources.name)}", f"{sources.count:,} pictures, digest `{printable(sources.digest)}`")
        )
    if data.classes:
        rest = len(data.classes) - MAX_CLASSES
        named = ", ".join(map(plain, data.classes[:MAX_CLASSES])) + (f" and {rest} more" if rest > 0 else "")
        rows.append((f"{len(data.classes)} classes", named))
    return rows


def _versions(device: str | None) -> list[tuple[str, str]]:
    rows = [("edgegan", edgegan.__version__), ("torch", torch.__version__), ("Python", platform.python_version())]
    if device is not None and device.startswith("cuda"):
        rows.append(("device", f"{device}, {torch.cuda.get_device_name(device)}"))
    elif device is not None:
        rows.append(("device", f"{device}, {platform.machine()}, threads: {torch.get_num_threads()}"))
    return [(name, plain(value)) for name, value in rows]


def _next_commands(run: Run, finished: bool) -> list[str]:
    name = run.folder.resolve().name
    folder = f"./{name}" if name.startswith("-") else name
    model = f"{folder}.onnx"
    commands: list[tuple[str, ...]] = [] if finished else [("edgegan-train", "resume", folder)]
    commands += [
        ("edgegan-export", folder, "-o", model),
    ]
    if run.recipe.spec(run.config, run.settings.data.shape).task == "translate":
        commands.append(("edgegan", "translate", model, "picture.jpg", "-o", f"{folder}.png"))
        return [shlex.join(words) for words in commands]
    commands += [
        ("edgegan", "sample", model, "-n", "16", "--seed", "7", "-o", f"{folder}.png"),
        ("edgegan", "walk", model, "--seeds", "1,2,3", "-o", f"{folder}.gif"),
    ]
    if run.settings.data.classes:
        commands.append(("edgegan", "sample", model, "-n", "16", "--labels", "0", "-o", f"{folder}-0.png"))
    return [shlex.join(words) for words in commands]
