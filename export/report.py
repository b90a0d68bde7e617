"""What is told of an export: its variants in numbers, as a table for a terminal or as JSON for programs."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import edgegan
from edgegan._cli import aligned
from edgegan.errors import ArgumentError, printable
from edgegan.export.measure import Machine, Variant
from edgegan.spec import ModelSpec

if TYPE_CHECKING:
    from edgegan.export.lower import Applied

FORMAT = 1  # of the JSON


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


COLUMNS = (
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
    columns = [c for c in COLUMNS if c.short and any(map(c.cell, report.variants))]
    rows = [["", *(c.short for c in columns)]]
    for variant in report.variants:
        mark = "*" if variant.name == report.chosen else " "
        rows.append([f"{mark} {variant.name}", *(c.cell(variant) or "-" for c in columns)])
    lines = aligned(rows, *range(1, len(rows[0])))
    return [*lines, f"* is {printable(report.model)}", f"measured on {printable(machine_line(report.machine))}"]


def rewrite_lines(report: Report) -> list[str]:
    """The rewrites as lines for a terminal."""
    return [f"{a.name}: {gain_of(a)}, differs by {a.difference:.1g} of the range; {a.at}" for a in report.rewrites]


def gain_of(applied: "Applied") -> str:
    """What time a rewrite saves, in words."""
    return "gain not measured" if applied.gain is None else f"{round(100 * applied.gain)} % less time"


def machine_line(machine: Machine) -> str:
    """What was measured on, in a line."""
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
