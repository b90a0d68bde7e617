"""A report of an export: its variants on one page for people (.md) or as JSON for programs, and a picture beside it."""

import json
import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

import edgegan
from edgegan import _markdown as markdown
from edgegan._cli import aligned
from edgegan._files import atomic_write, check_output
from edgegan._markdown import plain
from edgegan.errors import ArgumentError, printable
from edgegan.export.measure import BATCHES, Machine, Variant
from edgegan.image import check_suffix, grid, on_white, save_image
from edgegan.spec import ModelSpec

if TYPE_CHECKING:
    from edgegan.export.lower import Applied

SUFFIXES = (".md", ".json")
FORMAT = 1  # of the JSON
U8 = NDArray[np.uint8]
# The picture: sides to aim at, and the most, in pixels.
TILE, MAX_TILE, MAX_WIDTH, GAP, LABEL = 96, 512, 960, 2, 14
GAIN = 8  # of the row that shows differences


@dataclass(frozen=True)
class Distance:
    """What `Variant.distance` was measured with."""

    network: str  # whose features were compared
    digest: str  # SHA-256 of its file
    samples: int  # pictures drawn
    dataset: str


@dataclass(frozen=True)
class Report:
    """All that is told of an export. Raises ArgumentError if `chosen` is no variant."""

    model: str  # the file's name, without its folder
    spec: ModelSpec
    parameters: int
    variants: list[Variant]  # the first is what the others are compared with
    chosen: str  # the name of the one that was written
    machine: Machine
    checkpoint: str = ""  # "newest", "best" or its number of images; empty if there was none
    parity: dict[int, float] = field(default_factory=dict)  # batch -> the largest difference of torch and onnxruntime
    sizes: dict[str, float] = field(default_factory=dict)  # "WIDTHxHEIGHT" of a source -> the same, if it translates
    tolerance: float | None = None  # that was allowed there; None: the limit on quality decided
    rewrites: "list[Applied]" = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what the quantiser has to say
    distance: Distance | None = None

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if self.chosen not in names:
            raise ArgumentError(f"the chosen variant is '{self.chosen}'; valid: {', '.join(names) or 'none was given'}")

    def written(self) -> Variant:
        """The chosen variant."""
        return next(variant for variant in self.variants if variant.name == self.chosen)


class _Column(NamedTuple):
    """A column of the tables. The cell is empty for what was not measured."""

    short: str  # for the terminal; empty: not there
    long: str
    what: str
    cell: Callable[[Variant], str]


def _of(key: str, format: Callable[[float], str]) -> Callable[[Variant], str]:
    def cell(variant: Variant) -> str:
        value = getattr(variant, key)
        return "" if value is None else format(value)

    return cell


def _milliseconds(batch: int) -> Callable[[Variant], str]:
    return lambda v: _short(v.milliseconds[batch]) if batch in v.milliseconds else ""


def _short(value: float) -> str:
    """Three significant digits."""
    return f"{float(f'{value:.3g}'):,.10g}"


def _scaled(value: float) -> str:
    """Three significant digits with k, M or G."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * unit:
            return f"{_short(value / unit)} {letter}"
    return f"{_short(value)} "


def _psnr(value: float) -> str:
    return "equal" if math.isinf(value) else f"{value:.1f}"


_COLUMNS = (
    _Column("size", "file", "its size", lambda v: _scaled(v.file_bytes) + "B"),
    _Column(
        "MACs",
        "multiply-adds",
        "multiplications with an addition for one picture, counted in the file: work, which some forms do faster",
        lambda v: _scaled(v.multiply_adds).strip(),
    ),
    _Column("ms at 1", "ms, 1 at a time", "milliseconds for a picture if they are drawn one by one", _milliseconds(1)),
    _Column(
        "ms at 16", "ms, 16 at a time", "milliseconds for a picture if 16 are drawn in one batch", _milliseconds(16)
    ),
    _Column(
        "peak MB",
        "peak memory, MB",
        "the most memory of a Python process that loads the file and draws 16 pictures, 8 at a time",
        _of("peak_mb", lambda x: f"{x:,.0f}"),
    ),
    _Column(
        "",
        "of it for the model, MB",
        "what of the peak came once Python, NumPy and onnxruntime were there: the model, its pictures, and what "
        "onnxruntime takes to run any",
        _of("model_mb", _short),
    ),
    _Column(
        "PSNR dB",
        "PSNR, dB",
        'how near its pictures are to the first row\'s of the same latents or sources: "equal" if every pixel is the '
        "same; above 40 the difference can hardly be seen, below 30 it can",
        _of("psnr", _psnr),
    ),
    _Column(
        "SSIM", "SSIM", "the same, of structures rather than pixels: 1 if equal", _of("ssim", lambda x: f"{x:.4f}")
    ),
    _Column(
        "",
        "largest difference",
        "of one value of any pixel, which all lie between -1 and 1: 0.008 is one of 256 levels of brightness",
        _of("difference", lambda x: f"{x:.2g}"),
    ),
    _Column(
        "distance",
        "Fréchet distance",
        "how far the drawn pictures as a whole are from real ones: less is better",
        _of("distance", _short),
    ),
)


def table(report: Report) -> list[str]:
    """The variants as lines for a terminal, at most 100 columns wide."""
    columns = [c for c in _COLUMNS if c.short and any(map(c.cell, report.variants))]
    rows = [["", *(c.short for c in columns)]]
    for variant in report.variants:
        mark = "*" if variant.name == report.chosen else " "
        rows.append([f"{mark} {variant.name}", *(c.cell(variant) or "-" for c in columns)])
    lines = aligned(rows, *range(1, len(rows[0])))
    return [*lines, f"* is {printable(report.model)}", f"measured on {printable(_where(report.machine))}"]


def rewrite_lines(report: Report) -> list[str]:
    """The rewrites as lines for a terminal."""
    return [f"{a.name}: {_gain(a)}, differs by {a.difference:.1g} of the range; {a.at}" for a in report.rewrites]


def _gain(applied: "Applied") -> str:
    return "gain not measured" if applied.gain is None else f"{round(100 * applied.gain)} % less time"


def _where(machine: Machine) -> str:
    threads = f"{machine.threads} thread{'s' if machine.threads > 1 else ''}"
    return f"{machine.processor}, {threads}, onnxruntime {machine.onnxruntime}"


def to_json(report: Report) -> str:
    """The report as a JSON object: `format` (1), `edgegan` (its version) and the fields of `Report`.

    So `variants` is a list of `Variant`s, `milliseconds` and `parity` have batches as keys, `rewrites` is a list of
    `lower.Applied`, and `spec` is the model's description as in its file, but for the golden samples. null is what was
    not measured. Numbers have six digits; JSON has no infinity, so the `psnr` of equal pictures is the text "inf".
    Later releases may add keys; a change of these would be another format.
    """
    values = {"format": FORMAT, "edgegan": edgegan.__version__, **_plain(report)}
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, ModelSpec):
        return json.loads(replace(value, golden=None).to_json())
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value


def to_markdown(report: Report, picture: str) -> str:
    """The report as a page of Markdown. picture: the file of `comparison`, relative to the page."""
    spec, written = report.spec, report.written()
    columns = [c for c in _COLUMNS if any(map(c.cell, report.variants))]
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
        (plain(a.name), plain(a.at), _gain(a), "0" if a.difference == 0 else f"{a.difference:.1g}")
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
    lines = [f"On {plain(_where(report.machine))}."]
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


def comparison(pictures: Mapping[str, U8], sources: U8 | None = None) -> U8:
    """One picture [H, W, C] uint8 of the same inputs' pictures: labelled rows, each differing one's difference below.

    pictures: [n, h, w, C] uint8 by label; the first is what the others are held against. sources: of translations, what
    they were made of [n, h / scale, w / scale, C]; a row of its own, as large. Small pictures are zoomed, large ones
    shrunk to at most 512 pixels a side, and as many shown as fit 960. RGBA is shown on white.
    Raises ArgumentError unless all are of one shape with n at least 1.
    """
    shapes = {array.shape for array in pictures.values()}
    if len(shapes) != 1 or min(next(iter(shapes))) < 1:
        raise ArgumentError(f"pictures have shapes {sorted(map(list, shapes))}; valid: one for all, [n, H, W, C]")
    shown = {label: _fitted(array) for label, array in pictures.items()}
    (reference, *others) = shown.items()
    rows = [reference]
    if sources is not None:
        scale = next(iter(shapes))[1] // sources.shape[1]
        rows.insert(0, ("source", _fitted(sources.repeat(scale, axis=1).repeat(scale, axis=2))))
    for label, array in others:
        apart = np.abs(array.astype(np.int16) - reference[1]) * GAIN
        rows += [(label, array), (f"difference x {GAIN} (black: none)", np.minimum(apart, 255).astype(np.uint8))]
    zoom = _zoom(reference[1])
    tiles = ((_label(label), grid(array, columns=len(array), zoom=zoom, gap=GAP)) for label, array in rows)
    strips = [strip for pair in tiles for strip in pair]
    width, channels = max(strip.shape[1] for strip in strips), reference[1].shape[3]
    sheet = np.full((sum(len(strip) for strip in strips), width, channels), 255, np.uint8)
    top = 0
    for strip in strips:
        sheet[top : top + len(strip), : strip.shape[1]] = strip
        top += len(strip)
    return sheet


def _fitted(array: U8) -> U8:
    """As many of the pictures as fit, of at most 512 pixels a side; RGBA as RGB on white."""
    from edgegan.model import shrink

    h, w = array.shape[1:3]
    divisor = -(-max(h, w) // MAX_TILE)
    array = on_white(shrink(array, (max(1, h // divisor), max(1, w // divisor))))
    zoom = _zoom(array)
    return array[: max(1, MAX_WIDTH // (array.shape[2] * zoom + GAP))]


def _zoom(array: U8) -> int:
    h, w = array.shape[1:3]
    return max(1, min(-(-TILE // min(h, w)), MAX_WIDTH // max(h, w)))


def _label(text: str) -> U8:
    """A strip [H, W, 1] with black text on white."""
    from PIL import Image, ImageDraw, ImageFont, features

    font = ImageFont.load_default(LABEL if features.check("freetype2") else None)
    left, _, right, bottom = font.getbbox(text)
    strip = Image.new("L", (int(right - left) + 2 * GAP, int(bottom) + 2 * GAP), 255)
    ImageDraw.Draw(strip).text((GAP, GAP), text, fill=0, font=font)
    return np.asarray(strip)[:, :, None]


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
