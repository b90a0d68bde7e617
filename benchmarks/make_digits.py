"""Make trainer/datasets/digits.npz, the built-in data set, from the IDX files of MNIST's training set.

    python benchmarks/make_digits.py FOLDER-OF-MNIST [-o digits.npz]

It holds the first 1,000 pictures of each digit, in their original order. The file is the same bytes each time
as long as zlib is the same; the pixels always are.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np

from edgegan._files import atomic_write
from edgegan.trainer.data.arrays import idx_labels_of, read_idx
from edgegan.trainer.data.download import NAMED
from edgegan.trainer.data.sources import DIGITS

OF_EACH = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the built-in data set from MNIST.")
    parser.add_argument("mnist", type=Path, help="folder of the IDX files, .gz or not")
    parser.add_argument("-o", "--out", type=Path, default=DIGITS)
    arguments = parser.parse_args()

    named = NAMED["mnist"]
    paths = (arguments.mnist / named.images.name, arguments.mnist / f"{named.images.name}.gz")
    path = next((path for path in paths if path.is_file()), None)
    beside = None if path is None else idx_labels_of(path)
    if path is None or beside is None:
        parser.error(f"{arguments.mnist} lacks {named.images.name} or {named.labels.name}")
    images, labels = read_idx(path, named.images.sha256), read_idx(beside, named.labels.sha256)

    keep = np.sort(np.concatenate([np.flatnonzero(labels == digit)[:OF_EACH] for digit in range(10)]))
    with atomic_write(arguments.out) as file:
        np.savez_compressed(file, images=images[keep], labels=labels[keep])
    size = arguments.out.stat().st_size
    pixels = hashlib.sha256(images[keep].tobytes()).hexdigest()
    print(f"{arguments.out}: {len(keep)} pictures, {size} bytes, SHA-256 of the pixels {pixels}")


if __name__ == "__main__":
    main()
