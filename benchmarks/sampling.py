"""How fast the C core draws noise, converts pixels and writes PNG files, against what a user would pick instead.

    python benchmarks/sampling.py [--photos FOLDER] [--rounds N]      # needs the extra `test`

One thread each. In every round each contender runs in turn, for some milliseconds; the table has the medians over
the rounds, and the median of the ratios within a round, so that a machine whose speed drifts does not tilt them. The
shares say how near to the machine's limit the work is: the bytes read and written over what a memcpy of the same
number of bytes moves in that time, and the multiplications over those of a float32 matrix product.

Photographs: those of FOLDER, else the one that comes with matplotlib (its middle, mirrored to 1024x1024). The tables in
docs/benchmarks.md were made with the 35 photographs of Debian's packages mate-backgrounds, lomiri-wallpapers-16.04 and
lomiri-wallpapers-20.04.
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import median

import numpy as np
import PIL
import torch
from PIL import Image, ImageDraw, ImageOps

from edgegan import _backend, load, noise
from edgegan.devices import processor
from edgegan.image import encode_png, grid, to_uint8

Work = Callable[[], object]
SLICE = 0.01  # seconds that a contender runs in a round
PHILOX_MULTIPLIES, CUBIC_MULTIPLIES = 5, 4  # of one normal


@dataclass
class Other:
    name: str
    work: Work
    at_least: float


@dataclass
class Row:
    work: str
    ours: Work
    others: list[Other]
    bytes_moved: int = 0
    multiplies: int = 0
    seconds: float = 0
    ratios: list[tuple[float, float]] = field(default_factory=list)  # (the other's seconds, its ratio to ours)


def seconds_a_call(work: Work, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) / calls


def calls_for(work: Work) -> int:
    """How often `work` fits into a slice of time; the first calls also warm it up."""
    once = min(seconds_a_call(work, 1) for _ in range(5))
    return max(1, round(SLICE / max(once, 1e-7)))


def measure(row: Row, rounds: int) -> None:
    works = [row.ours, *(other.work for other in row.others)]
    counts = [calls_for(work) for work in works]
    table = [[seconds_a_call(work, calls) for work, calls in zip(works, counts, strict=True)] for _ in range(rounds)]
    row.seconds = median(times[0] for times in table)
    for k in range(1, len(works)):
        row.ratios.append((median(times[k] for times in table), median(times[k] / times[0] for times in table)))


def copies(size: int) -> Work:
    """A memcpy that reads and writes `size` bytes in all."""
    source, target = np.ones(size // 2, np.uint8), np.ones(size // 2, np.uint8)
    return lambda: np.copyto(target, source)


def photographs(folder: Path | None) -> list[Image.Image]:
    if folder is not None:
        return [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())]
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    middle = np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), (512, 512)))
    wide = np.concatenate([middle, middle[:, ::-1]], axis=1)
    return [Image.fromarray(np.concatenate([wide, wide[::-1]]))]


def fitted(photographs: list[Image.Image], side: int) -> list[np.ndarray]:
    return [np.asarray(ImageOps.fit(photo, (side, side), Image.Resampling.LANCZOS)) for photo in photographs]


def drawings() -> list[np.ndarray]:
    """What generators do not draw and the encoder is not made for: flat shapes, lines and text, 512x512 RGB."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(8):
        sheet = Image.new("RGB", (512, 512), "white")
        draw = ImageDraw.Draw(sheet)
        for x, y, w, h, *colour in random.integers(0, 256, (30, 7)).tolist():
            draw.ellipse((2 * x, 2 * y, 2 * x + w, 2 * y + h), tuple(colour), "black")
            draw.text((2 * y, 2 * x), f"picture {w} of {h}", "black")
        found.append(np.asarray(sheet))
    return found


def pillow_png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(file, "PNG")
    return file.getvalue()


def each_in_turn(function: Callable[[np.ndarray], object], arrays: list[np.ndarray]) -> Work:
    turn = cycle(arrays)
    return lambda: function(next(turn))


def noise_rows() -> Iterator[Row]:
    generator = np.random.Generator(np.random.SFC64(7))
    for n, dim in ((16, 128), (4096, 512)):
        yield Row(
            f"normals, {n} x {dim}",
            lambda n=n, dim=dim: noise.normal(7, n, dim),
            [
                Other("numpy SFC64", lambda n=n, dim=dim: generator.standard_normal((n, dim), np.float32), 5),
                Other("torch.randn", lambda n=n, dim=dim: torch.randn(n, dim), 2),
            ],
            bytes_moved=4 * n * dim,
            multiplies=(PHILOX_MULTIPLIES + CUBIC_MULTIPLIES) * n * dim,
        )
    yield Row(
        "one 512-d latent by seed",
        lambda: noise.normal(7, 1, 512),
        [Other("RandomState(seed).randn", lambda: np.random.RandomState(7).randn(1, 512), 40)],
        bytes_moved=4 * 512,
        multiplies=(PHILOX_MULTIPLIES + CUBIC_MULTIPLIES) * 512,
    )


def numpy_pixels(x: np.ndarray) -> np.ndarray:
    """The same pixels in the fewest passes, but for the copy that puts the channels of a pixel side by side."""
    return np.clip(np.rint(x * 127.5 + 127.5), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def torch_pixels(x: torch.Tensor) -> torch.Tensor:
    """As StyleGAN's scripts do, which cut where they should round; without that copy, too."""
    return x.mul(127.5).add(127.5).clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8)


def pixel_rows() -> Iterator[Row]:
    random = np.random.default_rng(0)
    for shape in ((16, 1, 28, 28), (64, 3, 64, 64)):
        x = np.tanh(random.standard_normal(shape, np.float32))
        tensor = torch.from_numpy(x)
        yield Row(
            f"float NCHW to uint8 NHWC, {'x'.join(map(str, shape))}",
            lambda x=x: to_uint8(x),
            [
                Other("numpy", lambda x=x: numpy_pixels(x), 6),
                Other("torch", lambda x=tensor: torch_pixels(x), 2),
            ],
            bytes_moved=5 * x.size,
        )
    x = np.tanh(random.standard_normal((4, 3, 1024, 1024), np.float32))
    out = np.ones((4, 1024, 1024, 3), np.uint8)
    yield Row(
        "the same, 4x3x1024x1024",
        lambda: to_uint8(x, out),
        [Other("memcpy", copies(5 * x.size), 0.7)],
        bytes_moved=5 * x.size,
    )


def png_rows(pictures: dict[str, list[np.ndarray]]) -> Iterator[Row]:
    for name in ("28x28 grey", "64x64 RGB", "1024x1024 RGB"):
        (arrays,) = (arrays for key, arrays in pictures.items() if key.startswith(name))
        written = sum(len(encode_png(array)) for array in arrays) // len(arrays)
        yield Row(
            f"PNG of {name}",
            each_in_turn(encode_png, arrays),
            [Other("Pillow", each_in_turn(pillow_png, arrays), 8)],
            bytes_moved=arrays[0].size + written,
        )


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f}" if seconds < 1e-4 else f"{seconds * 1e6:,.0f}"


def show_times(rows: list[Row], peak: float) -> None:
    print("| work | µs | against | µs | ratio | at least | share of memcpy | share of multiplications |")
    print("|---|---:|---|---:|---:|---:|---:|---:|")
    for row in rows:
        moved = seconds_a_call(copy := copies(max(2, row.bytes_moved)), calls_for(copy)) / row.seconds
        multiplied = f"{row.multiplies / row.seconds / peak:.0%}" if row.multiplies else ""
        for other, (seconds, ratio) in zip(row.others, row.ratios, strict=True):
            verdict = "" if ratio >= other.at_least else ", **missed**"
            print(
                f"| {row.work} | {microseconds(row.seconds)} | {other.name} | {microseconds(seconds)} | {ratio:.2f} "
                f"| {other.at_least:g}{verdict} | {moved:.0%} | {multiplied} |"
            )


def show_sizes(pictures: dict[str, list[np.ndarray]], at_most: dict[str, float]) -> None:
    print("\n| PNG files | pictures | mean bytes | Pillow's | ratio | at most |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, arrays in pictures.items():
        ours, theirs = (sum(len(encode(a)) for a in arrays) / len(arrays) for encode in (encode_png, pillow_png))
        bound = at_most.get(name)
        target = f"{bound:g}{'' if ours <= bound * theirs else ', **missed**'}" if bound else "not aimed at"
        print(f"| {name} | {len(arrays)} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.3f} | {target} |")


def multiply_peak() -> float:
    """Multiplications a second in a float32 matrix product on one thread."""
    a = torch.ones(1024, 1024)
    return 1024**3 / min(seconds_a_call(lambda: a @ a, 1) for _ in range(10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of photographs, at least 1024 pixels a side")
    parser.add_argument("--rounds", type=int, default=31, help="rounds of which the median counts (default: 31)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if _backend.NAME != "c":
        parser.error("this installation has no C core to measure")

    digits = load(threads=1).sample(256)
    photos = photographs(arguments.photos)
    pictures = {
        "28x28 grey, generated digits": list(digits),
        "grids of 64 generated digits": [grid(digits[i : i + 64]) for i in range(0, 256, 64)],
        "64x64 RGB, photographs": fitted(photos, 64),
        "1024x1024 RGB, photographs": fitted(photos, 1024),
    }
    versions = f"numpy {np.__version__}, torch {torch.__version__}, Pillow {PIL.__version__}"
    machine = f"{processor()}, {_backend.core.instruction_set()}, one thread"
    print(f"{machine}; {versions}; medians of {arguments.rounds} rounds\n")
    rows = [*noise_rows(), *pixel_rows(), *png_rows(pictures)]
    for row in rows:
        measure(row, arguments.rounds)
    show_times(rows, multiply_peak())
    show_sizes(pictures | {"512x512 RGB, drawings": drawings()}, dict.fromkeys(pictures, 1.15))


if __name__ == "__main__":
    main()
