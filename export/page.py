"""The report of an export as files: a page for people (.md) or JSON for programs, and a picture beside it."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import edgegan
from edgegan import _markdown as markdown
from edgegan._files import atomic_write, check_output
from edgegan._markdown import plain
from edgegan.errors import printable
from edgegan.export.comparison import GAIN, U8, comparison
from edgegan.export.measure import BATCHES
from edgegan.export.report import COLUMNS, Report, gain_of, machine_line, to_json
from edgegan.image import check_suffix, save_image
from edgegan.spec import ModelSpec

SUFFIXES = (".md", ".json")


def to_markdown(report: Report, picture: str) -> str:
    """The report as a page of Markdown. picture: the file of `comparison`, relative to the page."""
    spec, written = report.spec, report.written()
    columns = [c for c in COLUMNS if any(map(c.cell, report.variants))]
    rows = [
        (f"**{plain(v.name)}**" if v is written else plain(v.name), *(c.cell(v) or "-" for c in columns))
        for v in report.variants
    ]
    first, given = plain(report.variants[0].name), _given(spec)
    parts = [
        f"# {plain(report.model)}: what was exported",
        _about(report),
        _summary(report),
        "## The picture",
        f"![pictures of {first} and {plain(written.name)} from the same {given}s, and what differs]({quote(picture)})",
        f"Each column is one {given}. Where two networks are shown, the last row is their difference, {GAIN} times as "
        "strong as it is: black where they agree.",
        "## The variants",
        f"The one in bold was written to {plain(report.model)}. The others are the same network in other forms.",
        markdown.table(("", *(c.long for c in columns)), rows),
        "\n".join(f"- **{c.long}**: {c.what}." for c in columns),
        "## Rewrites",
        _rewrites(report),
        "## Is it the trained network?",
        _parity(report),
        *(["## Precision", "\n".join(f"- {plain(note.strip())}" for note in report.notes)] if report.notes else []),
        "## How it was measured",
        _method(report),
        "## What to do next",
        f"In the folder that holds {plain(report.model)}:",
        markdown.commands(_next_commands(report)),
        f"Made by edgegan {edgegan.__version__}; the model's description: `edgegan info`. Licence of the model: "
        f"{plain(spec.licence) or 'not stated'}.",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _about(report: Report) -> str:
    spec = report.spec
    trained = f"Its kind is `{printable(spec.recipe)}`" + (", trained" if spec.dataset or spec.kimg else "")
    if spec.dataset:
        trained += f" on the pictures of {plain(spec.dataset)}"
    if spec.kimg:
        trained += f", of which {spec.kimg * 1000:,.0f} were shown"
    if report.checkpoint:
        trained += f"; exported is the {plain(report.checkpoint)} checkpoint"
    return f"`{printable(report.model)}` {_what(spec)}. It has {report.parameters:,} parameters. {trained}."


def _what(spec: ModelSpec) -> str:
    """What a model does, as the rest of a sentence about it."""
    h, w = spec.image_size
    colour = {1: "grey", 3: "RGB", 4: "RGBA"}[spec.channels]
    if spec.task == "translate":
        larger = f", {spec.scale} times as large" if spec.scale > 1 else ""
        multiple = f" in multiples of {spec.size_multiple}" if spec.size_multiple > 1 else ""
        return (
            f"turns pictures into others{larger}: {colour}, of any size{multiple}. All that is measured here is of "
            f"sources of {w}x{h} pixels, the size of its training, which show discs that cover each other"
        )
    classes = f", and one of {len(spec.classes)} classes" if spec.classes else ""
    return (
        f"is a generator: a network that draws a picture of {w}x{h} {colour} pixels from {spec.latent_dim} random "
        f"numbers, its latent{classes}. The same latent gives the same picture"
    )


def _given(spec: ModelSpec) -> str:
    """What a picture is made of."""
    return "source" if spec.task == "translate" else "latent"


def _summary(report: Report) -> str:
    """The written variant against the first, in a sentence."""
    first, written = report.variants[0], report.written()
    if first is written:
        return ""
    shares = [f"{written.file_bytes / first.file_bytes:.0%} of the file"]
    for batch in BATCHES:
        if batch in first.milliseconds and batch in written.milliseconds:
            share = written.milliseconds[batch] / first.milliseconds[batch]
            shares.append(f"{share:.0%} of the time {'one by one' if batch == 1 else f'{batch} at a time'}")
    drawn = ""
    if written.psnr is not None:
        equal = math.isinf(written.psnr)
        drawn = (
            "; it draws the very same pixels" if equal else f"; its pictures differ by a PSNR of {written.psnr:.1f} dB"
        )
    return f"Against {plain(first.name)}, **{plain(written.name)}** takes {', '.join(shares)}{drawn}."


def _rewrites(report: Report) -> str:
    if not report.rewrites:
        return "None was applied."
    rows = [
        (plain(a.name), plain(a.at), gain_of(a), "0" if a.difference == 0 else f"{a.difference:.1g}")
        for a in report.rewrites
    ]
    return (
        "Parts of the graph were replaced by others that compute the same. Time saved is of the whole network, and "
        "negative where a rewrite cost some; the difference is the largest of a pixel, as a share of their range, "
        "against the graph as it was: what is rounded otherwise.\n\n"
        + markdown.table(("rewrite", "at", "gain", "difference"), rows)
    )


def _parity(report: Report) -> str:
    rows = [(str(batch), f"{x:.2g}") for batch, x in sorted(report.parity.items())]
    rows += [(f"2 of {size}", f"{x:.2g}") for size, x in report.sizes.items()]
    bound = (
        f"of which {report.tolerance:g} was allowed"
        if report.tolerance
        else "which is for the limit on quality to judge"
    )
    return (
        f"The same fresh {_given(report.spec)}s were given to the float32 network that was exported, and to "
        f"onnxruntime with the file. The largest difference of a pixel in [-1, 1], {bound}:\n\n"
        + markdown.table(("pictures at a time", "largest difference"), rows)
    )


def _method(report: Report) -> str:
    lines = [f"On {plain(machine_line(report.machine))}."]
    if any(v.milliseconds for v in report.variants):
        lines += [
            "Times are of the network alone, without picture files. The variants took turns in one process, and the "
            "shortest time of all rounds counts: other work on the machine only ever adds to it.",
            "Memory is that of a fresh process each, as the system reports its peak.",
        ]
    if compared := max(v.compared for v in report.variants):
        lines.append(
            f"PSNR, SSIM and the largest difference are of {compared} pictures: PSNR of all their pixels together, "
            "SSIM the mean."
        )
    distance = report.distance
    if distance is not None:
        lines.append(
            f"The Fréchet distance is that of {distance.samples:,} drawn pictures to as many of "
            f"{plain(distance.dataset)}, in features of the network {plain(distance.network)} (SHA-256 "
            f"`{printable(distance.digest)}`). It can only be compared with distances by the same network from as many "
            "pictures."
        )
    if any(v.milliseconds and batch not in v.milliseconds for v in report.variants for batch in BATCHES):
        lines.append("A time that is missing would have taken too long to measure.")
    return "\n".join(f"- {line}" for line in lines)


def _next_commands(report: Report) -> list[str]:
    model = f"./{report.model}" if report.model.startswith("-") else report.model
    verify = "edgegan", "verify", model
    if report.spec.task == "translate":
        return [
            shlex.join(words) for words in (("edgegan", "translate", model, "picture.jpg", "-o", "out.png"), verify)
        ]
    sample = "edgegan", "sample", model, "-n", "16", "--seed", "7"
    return [shlex.join(words) for words in (sample, verify, ("edgegan", "bench", model))]


def picture_of(path: Path) -> Path:
    """Where `write` puts the picture of the report at `path`, once both can be written: ask before the work.

    Raises ArgumentError for a suffix other than .md and .json, and as `check_output`.
    """
    check_suffix(path, SUFFIXES)
    picture = path.with_suffix(".png")
    for file in (path, picture):
        check_output(file)
    return picture


def write(report: Report, path: Path, pictures: Mapping[str, U8], sources: U8 | None = None) -> Path:
    """Write the report as Markdown or JSON by the suffix of `path`, .md or .json, and a `comparison` beside it.

    The picture has the same name with .png and is returned. Each file appears whole or not at all, the picture first:
    a page that is there shows one. Raises ArgumentError as `picture_of` and `comparison`, OSError if the disk refuses.
    """
    picture = picture_of(path)
    text = to_markdown(report, picture.name) if path.suffix.lower() == ".md" else to_json(report)
    save_image(picture, comparison(pictures, sources))
    with atomic_write(path) as file:
        file.write(text.encode())
    return picture
