"""Restoration of one kind of picture against super-resolution of any: how near to the truth.

    pip install resvg-py                                                  # and node with npm
    python benchmarks/cartoon_faces.py faces
    python benchmarks/cartoon_faces.py faces-test -n 500 --seed 1
    edgegan-train restore --data faces --mirror --kimg 60 --warmup 0.6 --out faces-run
    edgegan-export faces-run -o restore.onnx
    python benchmarks/restore.py restore.onnx --true faces-test --superres sharper.onnx --features nsfw.onnx

nsfw.onnx is as make_open_nsfw.py writes it. The true pictures, which no model was trained on, are blurred, made smaller
and larger again, noisy and compressed as GFPGAN's degradation does (trainer/degrade.py, --strength of the recipe for
their size), each always in the same way. Then come

- the degraded pictures as they are;
- each model of recipe restore;
- each --superres, which enlarges: made larger by it and small again by Pillow's BICUBIC, and the other way round.

PSNR and SSIM are of RGB, the means over the pictures. The distance is 1000 (1 - cosine) of the features of what was
made and of the truth in the network of --features: less is better, and pictures that only average what might be are
punished.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from common import say
from likeness import U8, degraded, feature_distance, show_table
from PIL import Image

from edgegan import EdgeGANError, load
from edgegan.image import save_image
from edgegan.trainer.degrade import GFPGAN
from edgegan.trainer.metrics.features import open_features
from edgegan.trainer.metrics.similarity import psnr, ssim
from edgegan.trainer.recipe import DataShape
from edgegan.trainer.recipes.restore import Config, complete

SHOWN = 8  # pictures a row, each enlarged ZOOM times
ZOOM = 2


def pictures_of(folder: Path) -> U8:
    """All .png of a folder, which have one size: [n, h, w, 3]."""
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise SystemExit(f"{folder}: there is no .png in it")
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def resized(images: U8, width: int, height: int) -> U8:
    bicubic = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(image).resize((width, height), bicubic)) for image in images])


def save_rows(path: Path, rows: list[U8]) -> None:
    """A row of pictures of each set, one below the other."""
    sheet = np.concatenate([np.concatenate(list(images[:SHOWN]), axis=1) for images in rows])
    save_image(path, sheet.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="RESTORE.onnx", help="of edgegan-export")
    parser.add_argument("--true", type=Path, required=True, metavar="FOLDER", help="of .png of one size")
    parser.add_argument(
        "--superres", type=Path, action="append", default=[], metavar="FILE.onnx", help="may be repeated"
    )
    parser.add_argument("--strength", type=float, default=0, help="of the degradation (default: the recipe's)")
    parser.add_argument("--features", help="the network of the distance: an .onnx file, as of edgegan-score")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="rows: degraded, made by each, true")
    options = parser.parse_args()
    try:
        measure(options)
    except EdgeGANError as error:
        sys.exit(f"restore.py: {error}")


def measure(options: argparse.Namespace) -> None:
    true = pictures_of(options.true)
    _, height, width, _ = true.shape
    strength = complete(Config(strength=options.strength), DataShape(height, width, 3)).strength
    sources = degraded(true, GFPGAN(strength))
    network = open_features(options.features) if options.features else None

    sets = {"degraded": sources}
    for path in options.superres:
        say(path.stem)
        model = load(path)
        scale = model.spec.scale
        sets[f"{path.stem}, then made small"] = resized(model.translate(sources), width, height)
        small = resized(sources, width // scale, height // scale)
        sets[f"made small, then {path.stem}"] = resized(model.translate(small), width, height)
    for path in options.models:
        say(path.stem)
        sets[path.stem] = load(path).translate(sources)

    print(f"{len(true)} pictures of {width} x {height}, degraded with strength {strength:.3f}")
    rows = {}
    for name, made in sets.items():
        rows[name] = {"PSNR, dB": f"{psnr(made, true).mean():.2f}", "SSIM": f"{ssim(made, true).mean():.4f}"}
        if network is not None:
            rows[name]["distance"] = f"{feature_distance(made, true, network):.1f}"
    show_table(rows)
    if options.picture:
        save_rows(options.picture, [*sets.values(), true])


if __name__ == "__main__":
    main()
