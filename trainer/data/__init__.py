"""Training sets: any source of pictures becomes one uint8 array on disk, a seed the order of showing them.

    dataset = open_dataset("photos/", resolution=64)     # decoded once; the next open is instant
    batch = dataset.images[sample_order(seed, nimg, 32, len(dataset))]

NumPy and Pillow only: nothing here needs torch.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegan import noise
from edgegan.errors import ArgumentError
from edgegan.trainer.data.cache import Dataset, open_cached
from edgegan.trainer.data.pictures import FITS, Progress, Treatment
from edgegan.trainer.data.sources import NAMES, find_source

__all__ = ["FITS", "NAMES", "Dataset", "Progress", "default_root", "open_dataset", "sample_order"]

MAX_RESOLUTION = 8192
# See trainer/randomness.py for the others.
_PURPOSE_DATA_ORDER = 0
PURPOSE_MIRROR = 3
PURPOSE_HOLDOUT = 4


def default_root() -> Path:
    """The folder of decoded and downloaded sets: $EDGEGAN_DATA, else edgegan in the user's cache folder."""
    if own := os.environ.get("EDGEGAN_DATA"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edgegan"


def open_dataset(
    source: str,
    *,
    resolution: int | None = None,
    channels: int | None = None,
    fit: str = "crop",
    skip_broken: bool = False,
    data_root: Path | None = None,
    download_from: str | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Open a training set, decoding it into the cache the first time.

    source: a folder of pictures (its sub-folders are the classes); a .zip or .tar of one; tar shards as WebDataset
    lays them out (a .tar, a folder of them, or `shards-{000..012}.tar`); a .npy or .npz file; IDX files (a folder of
    them, or the images file); or a name: `digits` (built in), `mnist`, `fashion-mnist` (downloaded).
    resolution: every picture becomes a square of this many pixels a side, 1..8192; None keeps the pictures as they
    are, which must then have one size.
    fit: how it becomes a square: "crop" cuts out the central one, "pad" keeps the whole picture and fills up with
    white, "stretch" distorts it; "tiles" cuts it, as it is, into as many squares as there are, 512 spread evenly at
    most. Needs a resolution unless it is "crop".
    channels: 1 (grey) or 3 (RGB); None means 1 if every picture is stored as grey, else 3.
    skip_broken: leave out pictures that cannot be decoded, and name them in `Dataset.skipped`, instead of refusing the
    set.
    data_root: where decoded pictures and downloads are kept; None means `default_root()`.
    download_from: an http(s) or file URL, or a folder, that is used instead of the public mirrors of a named set.
    progress: called with (done, total, what); total is 0 while it is unknown.

    Raises ArgumentError for a value out of range, DataError for a source that cannot be used (broken pictures are
    named, and never dropped in silence), OSError if the disk refuses.
    """
    if resolution is not None and not 1 <= resolution <= MAX_RESOLUTION:
        raise ArgumentError(f"resolution is {resolution}; valid: 1 to {MAX_RESOLUTION} pixels")
    if channels not in (None, 1, 3):
        raise ArgumentError(f"channels is {channels}; valid: 1 (grey) or 3 (RGB)")
    if fit not in FITS:
        raise ArgumentError(f"fit is {fit!r}; valid: {', '.join(FITS)}")
    if resolution is None and fit != "crop":
        raise ArgumentError(f"fit is {fit}, which needs a resolution: pass --resolution N")
    root = default_root() if data_root is None else Path(data_root)
    found = find_source(source, root, download_from, progress)
    return open_cached(found, Treatment(resolution, channels, fit), root, progress, skip_broken)


def sample_order(seed: int, start: int, n: int, size: int) -> NDArray[np.int64]:
    """Positions in a set of `size` pictures of the global samples start .. start + n - 1: [n] int64.

    Sample i is shown in epoch i // size, at place i % size of that epoch's permutation: the stable argsort of
    the training stream's random words. A pure function, so a resumed run, or one on more processes, shows the
    same pictures.
    """
    for name, value, low in (("start", start, 0), ("n", n, 0), ("size", size, 1)):
        if value < low:
            raise ArgumentError(f"{name} is {value}; valid: {low} or more")
    key = noise.derive_seed(seed, _PURPOSE_DATA_ORDER)
    order = np.empty(n, np.int64)
    filled = 0
    while filled < n:
        epoch, place = divmod(start + filled, size)
        part = _permutation(key, epoch, size)[place : place + n - filled]
        order[filled : filled + len(part)] = part
        filled += len(part)
    return order


@lru_cache(maxsize=2)  # two, because a batch may straddle two epochs
def _permutation(key: int, epoch: int, size: int) -> NDArray[np.integer[Any]]:
    """Where the words of an epoch come from when they are sorted, equal ones in their order."""
    words = noise.words(key, 1, size, start=epoch, stream=noise.STREAM_TRAINING)[0]
    if size > 1 << 32:
        return np.argsort(words, kind="stable")
    # The same, five times as fast: sort numbers that have the position in their low half.
    both = words.astype(np.uint64)
    del words  # in place from here on: sets can be large
    both <<= np.uint64(32)
    both |= np.arange(size, dtype=np.uint32)
    both.sort()
    return both.astype(np.uint32)
