"""How many of the 1,000 classes of Stacked-MNIST does a generator draw, and how evenly?

    python benchmarks/stacked_mnist.py data FOLDER-OF-MNIST stacked.npz            # 128,000 pictures, 28x28
    python benchmarks/stacked_mnist.py data FOLDER-OF-MNIST stacked32.npz --pad 2  # in a black frame: 32x32
    edgegan-train dcgan --data stacked32.npz --batch 64 --kimg 6400 --out control
    edgegan-export control -o control.onnx
    python benchmarks/stacked_mnist.py score control.onnx edge.onnx                # 26,000 drawn of each

The protocol of Lin, Khetan, Fanti, Oh 2018, "PacGAN", section 4.2: 128,000 training pictures, each with a random digit
in each of three channels; 50 epochs (6,400 kimg) of batches of 64; 26,000 pictures are drawn, and a classifier of
digits says which of the 1,000 classes each shows. Here the digits are those of MNIST's training set and the classifier
is `lenet`, which was trained on it. A model of larger pictures than 28x28 is judged by their middle.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from common import say

import edgegan
from edgegan._files import atomic_write
from edgegan.trainer.data.arrays import idx_labels_of, read_idx
from edgegan.trainer.metrics.features import open_features
from edgegan.trainer.metrics.modes import Modes, class_modes, stacked_classes, stacked_digits

TRAINING, DRAWN, SIDE, BATCH = 128_000, 26_000, 28, 64
REAL = 1_000_000  # number of the first real sample that is drawn to compare with: none of those trained on


def digits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """MNIST's training set: uint8 [60000, 28, 28, 1], [60000]."""
    images = folder / "train-images-idx3-ubyte"
    labels = idx_labels_of(images)
    if labels is None:
        raise SystemExit(f"{images} has no labels beside it")
    return read_idx(images)[..., None], read_idx(labels)


def make_data(folder: Path, path: Path, pad: int, seed: int) -> None:
    pictures, _ = stacked_digits(*digits(folder), seed, TRAINING)
    frame = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    with atomic_write(path) as file:
        np.savez(file, images=np.pad(pictures, frame))
    say(f"{TRAINING} pictures in {path}")


def modes_of(path: str, seed: int) -> Modes:
    """Of 26,000 pictures that a model draws."""
    network, classes = open_features("lenet"), []
    generator = edgegan.load(path)
    height, width = generator.spec.image_size
    if generator.spec.channels != 3 or min(height, width) < SIDE:
        raise SystemExit(f"{path} draws {width}x{height} with {generator.spec.channels} channels, not Stacked-MNIST")
    top, left = (height - SIDE) // 2, (width - SIDE) // 2
    for pictures in generator.stream(DRAWN, seed, batch=BATCH):
        middle = np.ascontiguousarray(pictures[:, top : top + SIDE, left : left + SIDE])
        classes.append(stacked_classes(middle, network))
    return class_modes(np.concatenate(classes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    data = commands.add_parser("data", help="write the training pictures")
    data.add_argument("mnist", type=Path, help="a folder with MNIST's IDX files")
    data.add_argument("path", type=Path, help="the .npz to write")
    data.add_argument("--pad", type=int, default=0, help="black pixels on each side (default: %(default)s)")
    data.add_argument("--seed", type=int, default=0)
    score = commands.add_parser("score", help="count the modes of models")
    score.add_argument("models", nargs="+")
    score.add_argument("--mnist", type=Path, help="a folder with MNIST: real pictures are counted, too")
    score.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.command == "data":
        make_data(options.mnist, options.path, options.pad, options.seed)
        return
    print("| pictures of | kimg | modes of 1,000 | KL |\n|---|---:|---:|---:|")
    if options.mnist:
        pictures, _ = stacked_digits(*digits(options.mnist), options.seed, DRAWN, start=REAL)
        found = class_modes(stacked_classes(pictures, open_features("lenet")))
        print(f"| the data | | {found.found} | {found.divergence:.3f} |")
    for model in options.models:
        found = modes_of(model, options.seed)
        spec = edgegan.load(model).spec
        print(f"| {spec.recipe} ({model}) | {spec.kimg:g} | {found.found} | {found.divergence:.3f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
