"""Proof that a model file draws what its network drew, and `check_file`: the proof of a file alone, without torch."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from edgegan import gate
from edgegan.errors import ExportError, one_line
from edgegan.image import to_uint8
from edgegan.model import Generator, inputs_of, load
from edgegan.session import read_file
from edgegan.spec import ModelSpec

BATCHES = (1, 2, 3, 17)  # one, two, the three that was traced, and a larger one
SEED = 20  # other latents than those of the golden samples
TOLERANCE = 1e-4  # of pixels in [-1, 1]: an eightieth of one grey level
RANGE_SLACK = 1e-3  # by which a pixel may leave [-1, 1]: an eighth of one grey level
# What a picture may differ by in another batch, in pixels of [-1, 1]: sums are taken in another order, and what is
# rounded to few bits afterwards may land two grey levels away.
SAME_PICTURE = {"fp32": 1e-4}
SAME_PICTURE_ELSE = 2 / 127.5


def sizes_of(spec: ModelSpec) -> list[tuple[int, int]]:
    """The sizes (h, w) of sources that a model which translates is proved at, in multiples of `spec.size_multiple`.

    That of training, one row more, larger and not square, and the smallest square. Torch drops what a network does for
    squares alone without a word, if it was traced with another. Raises ExportError if that of training is no multiple.
    """
    m, (h, w) = spec.size_multiple, spec.image_size
    if h % m or w % m:
        raise ExportError(f"image_size is {h} x {w}; valid: multiples of size_multiple, which is {m}")
    rows, columns, least = h // m, w // m, least_units(spec)
    units = dict.fromkeys([(rows, columns), (rows + 1, columns), (rows + 2, columns + 3), (least, least)])
    return [(m * a, m * b) for a, b in units]


def least_units(spec: ModelSpec) -> int:
    """The smallest side that must work, in multiples of `spec.size_multiple`: a quarter of that of training.

    A reflection cannot be wider than a picture, so that a network may not work for every size. One unit cannot be asked
    for: torch treats a side of 1 as one that is broadcast.
    """
    return max(2, min(spec.image_size) // spec.size_multiple // 4)


def parity(
    data: bytes, expected: Callable[[dict[str, np.ndarray]], np.ndarray], tolerance: float | None = TOLERANCE
) -> dict[int, float]:
    """Load the model file's bytes as a user would, and compare what it draws with what it should.

    For each batch of 1, 2, 3 and 17 fresh pictures (with labels, psi and noise, if the model takes some; or made of
    sources of the size of training) the largest difference from `expected(inputs by name)`, in pixels of [-1, 1].
    expected: `partial(draw, module, spec)` of trace.py, or another `Generator.run`. tolerance: what is allowed; None if
    the precision of the model allows no such bound, and something else judges it.

    Raises ExportError if a difference is over the tolerance, a pixel is not finite, a picture is another one in another
    batch, or the golden samples are not met; ModelError if it does not load.
    """
    generator = load(data, provider="cpu")
    found, differences = _batches(generator), {}
    for n, pictures in found.items():
        feed = inputs_of(generator.spec, SEED, n)
        differences[n] = _compared(pictures, expected(feed), f"batch {n}", tolerance)
    _check_same_pictures(found, generator)
    _check_golden(generator)
    return differences


def size_parity(
    data: bytes, expected: Callable[[dict[str, np.ndarray]], np.ndarray], tolerance: float | None = TOLERANCE
) -> dict[str, float]:
    """The same for a model that translates, at several sizes of its sources: by "WIDTHxHEIGHT"; {} for a generator.

    Two fresh pictures of each of `sizes_of`. Raises as `parity`.
    """
    generator = load(data, provider="cpu")
    differences = {}
    for size, pictures in _at_sizes(generator).items():
        feed = inputs_of(generator.spec, SEED, len(pictures), size=size)
        differences[named(size)] = _compared(pictures, expected(feed), f"sources of {named(size)}", tolerance)
    return differences


def named(size: tuple[int, int]) -> str:
    """(h, w) as people write it: WIDTHxHEIGHT."""
    return f"{size[1]}x{size[0]}"


def _compared(pictures: np.ndarray, expected: np.ndarray, where: str, tolerance: float | None) -> float:
    """The largest difference of a pixel. Raises ExportError if it is over the tolerance."""
    found = float(np.abs(pictures - expected).max())
    if not np.isfinite(found) or (tolerance is not None and found > tolerance):
        allowed = "" if tolerance is None else f", allowed is {tolerance:g} of pixels in [-1, 1]"
        raise ExportError(
            f"the exported model and its network differ by {found:.3g} at {where}{allowed}; nothing was written"
        )
    return found


@dataclass(frozen=True)
class Checked:
    """A model file that passed."""

    spec: ModelSpec
    golden: int  # the largest difference from the golden samples, of 255
    batches: float  # the largest difference of a picture between two batches, in pixels of [-1, 1]
    diversity: float  # the mean difference between two pictures, in grey levels of 255
    lines: list[str]  # all that was found, for people


def check_file(path: str | os.PathLike[str]) -> Checked:
    """Prove a model file from itself alone, on this machine's CPU and without torch.

    It passes the gate and, if onnx is installed, onnx's checker; it is one file; it draws its golden samples; picture i
    of a seed is the same in batches of 1, 2, 3 and 17, and to the bit in a second run; if it translates, it takes
    sources of several sizes; pixels are finite and within [-1, 1]; the pictures differ from each other.

    Raises ModelError for a file that cannot be used, ExportError for one that does not do as it says, both of which
    name the first thing that fails; MissingExtraError without onnxruntime.
    """
    source = os.fspath(path)
    data = read_file(source)
    graph = gate.check(data, source, small=True)  # load asks again for each size
    lines = [f"file: {len(data) / 1e6:.2f} MB, one file, {graph.nodes} nodes of allowed operators"]
    if find_spec("onnx") is not None:
        lines.append(f"onnx: its checker, version {_check_onnx(data, source)}, finds nothing wrong")
    generator = load(source, provider="cpu")
    spec = generator.spec
    (height, width), classes = spec.image_size, f", {len(spec.classes)} classes" if spec.classes else ""
    lines.append(f"description: {spec.recipe}, {height}x{width}x{spec.channels}{classes}, {spec.precision}")
    golden, allowed = _check_golden(generator)
    lines.append(f"golden samples: at most {golden} of 255 apart (allowed {allowed})")
    found = _batches(generator)
    batches = _check_same_pictures(found, generator)
    lines.append(
        f"batches: pictures at {', '.join(map(str, BATCHES))} are at most {batches:.1g} apart "
        f"(allowed {_same_picture(spec):.1g} of [-1, 1])"
    )
    sizes = _at_sizes(generator)
    if sizes:
        shown = ", ".join(map(named, sizes))
        size = "of the same size" if spec.scale == 1 else f"{spec.scale} times as large"
        lines.append(f"sizes: sources of {shown} give pictures {size}")
    drawn = [*found.values(), *sizes.values()]
    low, high = (float(f([f(pictures) for pictures in drawn])) for f in (np.min, np.max))
    if max(-low, high) > 1 + RANGE_SLACK:
        raise ExportError(f"{source}: it draws pixels from {low:.4g} to {high:.4g}; valid: -1 to 1")
    lines.append(f"range: pixels are finite, from {low:.3g} to {high:.3g}")
    pictures = found[max(found)]
    if not np.array_equal(pictures, generator.run(inputs_of(spec, SEED, max(found)))):
        raise ExportError(f"{source}: two runs on the same inputs draw different pictures")
    lines.append("runs: the same inputs give the same bits again")
    diversity = _diversity(to_uint8(pictures))
    if diversity == 0:
        raise ExportError(f"{source}: all of {len(pictures)} pictures are the same; its training collapsed")
    lines.append(f"variety: two pictures are {diversity:.3g} of 255 apart on average")
    return Checked(spec, golden, batches, diversity, lines)


def _check_onnx(data: bytes, source: str) -> str:
    import onnx

    try:
        onnx.checker.check_model(data, full_check=True)
    except Exception as error:  # its errors share no base class with those of shape inference
        raise ExportError(f"{source}: onnx's checker refuses it: {one_line(error)}") from error
    return str(onnx.__version__)


def _batches(generator: Generator) -> dict[int, np.ndarray]:
    """The first pictures of a seed at each batch size, finite. Raises ExportError."""
    if generator.spec.task == "translate":
        generator.cost_of(generator.spec.image_size)  # the gate's bounds, before pictures of that size are made
    found = {n: generator.run(inputs_of(generator.spec, SEED, n)) for n in BATCHES}
    for n, pictures in found.items():
        if not np.isfinite(pictures).all():
            raise ExportError(f"{generator.source}: it draws pixels that are nan or infinite at batch {n}")
    return found


def _at_sizes(generator: Generator) -> dict[tuple[int, int], np.ndarray]:
    """Two pictures of each of the sizes of a model that translates, else none; finite. Raises ExportError."""
    spec, found = generator.spec, {}
    for size in sizes_of(spec) if spec.task == "translate" else []:
        found[size] = generator.run(inputs_of(spec, SEED, 2, size=size))
        if not np.isfinite(found[size]).all():
            raise ExportError(f"{generator.source}: it draws pixels that are nan or infinite of {named(size)}")
    return found


def _check_same_pictures(found: dict[int, np.ndarray], generator: Generator) -> float:
    """By how much a picture differs from itself in the largest batch. Raises ExportError."""
    allowed, largest = _same_picture(generator.spec), found[max(found)]
    differences = {n: float(np.abs(pictures - largest[:n]).max()) for n, pictures in found.items()}
    for n, difference in differences.items():
        if difference > allowed:
            raise ExportError(
                f"{generator.source}: a picture at batch {n} differs by {difference:.3g} from the same one at batch "
                f"{len(largest)}, allowed is {allowed:.1g} of pixels in [-1, 1]: the pictures of a batch are mixed"
            )
    return max(differences.values())


def _same_picture(spec: ModelSpec) -> float:
    return SAME_PICTURE.get(spec.precision, SAME_PICTURE_ELSE)


def _check_golden(generator: Generator) -> tuple[int, int]:
    """How far the golden samples are met, and what is allowed. Raises ExportError, ModelError if there are none."""
    found = generator.check_golden()
    assert generator.spec.golden is not None
    allowed = generator.spec.golden.tolerance
    if found > allowed:
        raise ExportError(f"{generator.source}: it misses its golden samples by {found} of 255, allowed are {allowed}")
    return found, allowed


def _diversity(pictures: np.ndarray) -> float:
    """The mean difference of a pixel between two pictures [n, H, W, C]; 0 if all are the same."""
    values = pictures.astype(np.float64)
    return float(np.mean([np.abs(values - np.roll(values, shift, axis=0)).mean() for shift in range(1, len(values))]))
