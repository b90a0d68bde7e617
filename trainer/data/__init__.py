"""Training sets: any source of pictures becomes one uint8 array on disk, a seed the order of showing them.

    dataset = open_dataset("photos/", resolution=64)     # decoded once; the next open is instant
    batch = dataset.images[sample_order(seed, nimg, 32, len(dataset))]

NumPy and Pillow only: nothing here needs torch.
"""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgegan import noise
from edgegan.errors import ArgumentError
from edgegan.trainer.data.cache import Dataset, open_cached
from edgegan.trainer.data.pictures import Progress
from edgegan.trainer.data.sources import NAMES, find_source

__all__ = ["NAMES", "Dataset", "Progress", "default_root", "open_dataset", "sample_order"]

MAX_RESOLUTION = 8192
_PURPOSE_DATA_ORDER = 0


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
    data_root: Path | None = None,
    mirror: str | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Open a training set, decoding it into the cache the first time.

    source: a folder of pictures (its sub-folders are the classes), a .zip of one, a .npy or .npz file, IDX
    files (a folder of them, or the images file), or a name: `digits` (built in), `mnist`, `fashion-mnist`
    (downloaded).
    resolution: every picture is cropped to its central square and resized to this many pixels a side,
    1..8192; None keeps the pictures as they are, which must then have one size.
    channels: 1 (grey) or 3 (RGB); None means 1 if every picture is stored as grey, else 3.
    data_root: where decoded pictures and downloads are kept; None means `default_root()`.
    mirror: an http(s) or file URL, or a folder, that is used instead of the public mirrors of a named set.
    progress: called with (done, total, what); total is 0 while it is unknown.

    Raises ArgumentError for a value out of range, DataError for a source that cannot be used (broken pictures
    are named, never dropped), OSError if the disk refuses.
    """
    if resolution is not None and not 1 <= resolution <= MAX_RESOLUTION:
        raise ArgumentError(f"resolution is {resolution}; valid: 1 to {MAX_RESOLUTION} pixels")
    if channels not in (None, 1, 3):
        raise ArgumentError(f"channels is {channels}; valid: 1 (grey) or 3 (RGB)")
    root = default_root() if data_root is None else Path(data_root)
    found = find_source(source, root, mirror, progress)
    return open_cached(found, resolution, channels, root, progress)


def sample_order(seed: int, start: int, n: int, size: int) -> NDArray[np.int64]:
    """Positions in a set of `size` pictures of the global samples start .. start + n - 1: [n] int64.

    Sample i is shown in epoch i // size, at place i % size of that epoch's permutation: the stable argsort of
    the training stream's random words. A pure function, so a resumed run, or one on more processes, shows the
    same pictures.
    """
    for name, value, low in (("start", start, 0), ("n", n, 0), ("size", size, 1)):
        if value < low:
            raise ArgumentError(f"{name} is {value}; valid: {low} or more")
    order = np.empty(n, np.int64)
    filled = 0
    while filled < n:
        epoch, place = divmod(start + filled, size)
        part = _permutation(seed, epoch, size)[place : place + n - filled]
        order[filled : filled + len(part)] = part
        filled += len(part)
    return order


@lru_cache(maxsize=2)  # two, because a batch may straddle two epochs
def _permutation(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    key = noise.derive_seed(seed, _PURPOSE_DATA_ORDER)
    words = noise.words(key, 1, size, start=epoch, stream=noise.STREAM_TRAINING)[0]
    return np.argsort(words, kind="stable").astype(np.int64)
