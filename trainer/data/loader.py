"""Batches of a data set in the order of a run: read, mirrored and made ready ahead of time.

    with Loader(dataset, seed, batch=32, mirror=True, workers=2) as loader:
        images, labels = loader.take(nimg)

NumPy only: nothing here needs torch.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from edgegan import noise
from edgegan.errors import ArgumentError
from edgegan.trainer.data import PURPOSE_HOLDOUT, PURPOSE_MIRROR, Dataset, sample_order

AHEAD = 2  # batches that each worker prepares
_CACHED = 64 << 10  # bytes

Batch = tuple[NDArray[np.uint8], NDArray[np.int64] | None]  # images [n, H, W, C], labels [n]


class Loader:
    """The batches of one process (a rank) of a run.

    Global sample i of a run is picture `sample_order(seed, i, 1, size)`, mirrored or not: both are functions of
    (seed, i) alone. With a holdout, `held` (int64) has the positions of the pictures that are never shown, `shown`
    those of the others, and the order is that of a set of these. Neither the batch size, nor the number of processes,
    nor a resume, nor `workers` changes them.

    Workers are threads: they copy from a memory map and mirror, for which NumPy lets go of the interpreter lock, so
    that processes would add nothing but a second interpreter, pickling and shared memory. A worker never waits for
    anything, so that nothing can keep an exit, a Ctrl-C or a SIGTERM waiting for longer than one batch takes.
    """

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        batch: int,
        *,
        mirror: bool = False,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        holdout: int = 0,
    ) -> None:
        """Nothing is read yet.

        seed: of the run. batch: samples of all processes together, a multiple of `world`. mirror: flip every sample
        left to right with probability 1/2. rank: which of `world` processes this is, 0 .. world - 1. workers: threads
        that prepare the next batches, two each; 0 prepares a batch when it is asked for. holdout: how many pictures
        are never shown (`split`), 0 .. len(dataset) - 2.

        Raises ArgumentError.
        """
        if world < 1 or not 0 <= rank < world:
            raise ArgumentError(f"rank is {rank} of {world}; valid: 0 to the number of processes - 1")
        if batch < 1 or batch % world:
            raise ArgumentError(f"batch is {batch}; valid: a positive multiple of the {world} processes")
        if workers < 0:
            raise ArgumentError(f"workers is {workers}; valid: 0 or more")
        self.seed, self.batch, self.mirror, self.rank, self.workers = seed, batch, mirror, rank, workers
        self.n = batch // world  # samples that take() returns
        self._images = np.asarray(dataset.images)  # no memmap, whose every slice costs microseconds
        self._labels = dataset.labels
        self.shown, self.held = split(len(dataset), holdout, seed)
        self._order = Lock()  # the order of an epoch is computed once, not by each worker
        self._pool = ThreadPoolExecutor(workers, "edgegan-loader") if workers else None
        self._prepared: dict[int, Future[Batch]] = {}  # by nimg

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; what they have prepared is lost. A second call does nothing."""
        self._discard()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def take(self, nimg: int) -> Batch:
        """This rank's part of the batch that begins with global sample `nimg`: samples nimg + rank * n and on.

        Returns images uint8 [n, H, W, C], C-contiguous and the caller's own, and labels int64 [n], or None without
        classes; n = batch // world. Any order of calls is allowed; with workers, only nimg that grow by `batch` are
        quick. Raises what a worker has met.
        """
        if self._pool is None:
            return self._make(nimg)
        if nimg not in self._prepared:
            self._discard()
        for ahead in range(nimg, nimg + (1 + AHEAD * self.workers) * self.batch, self.batch):
            if ahead not in self._prepared:
                self._prepared[ahead] = self._pool.submit(self._make, ahead)
        for passed in [start for start in self._prepared if start < nimg]:
            self._prepared.pop(passed).cancel()
        return self._prepared.pop(nimg).result()

    def _discard(self) -> None:
        for future in self._prepared.values():
            future.cancel()
        self._prepared.clear()

    def plan(self, nimg: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What `take(nimg)` takes: positions in the data set [n], and which of these samples are mirrored."""
        start = nimg + self.rank * self.n
        with self._order:
            order = self.shown[sample_order(self.seed, start, self.n, len(self.shown))]
        if not self.mirror:
            return order, np.empty(0, np.int64)
        key = noise.derive_seed(self.seed, PURPOSE_MIRROR)
        words = noise.words(key, self.n, 1, start=start, stream=noise.STREAM_TRAINING)[:, 0]
        return order, np.flatnonzero(words >> 31)

    def _make(self, nimg: int) -> Batch:
        order, mirrored = self.plan(nimg)
        images = self._images[order]
        _mirror(images, mirrored)
        return images, None if self._labels is None else self._labels[order]


def _mirror(images: NDArray[np.uint8], chosen: NDArray[np.int64]) -> None:
    """Flip the chosen pictures of [n, H, W, C] left to right, in place.

    A few at a time, which stay in the processor's cache, and a channel at a time: three times as fast as all at once.
    """
    few = max(1, _CACHED // images[0].nbytes)
    for start in range(0, len(chosen), few):
        part = images[chosen[start : start + few]]
        mirrored = np.empty_like(part)
        for channel in range(images.shape[3]):
            mirrored[..., channel] = part[:, :, ::-1, channel]
        images[chosen[start : start + few]] = mirrored


def split(size: int, holdout: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions in a set of `size` pictures that are shown, sorted, and of `holdout` that never are: int64 each.

    The latter are the last ones of a permutation that is a function of (seed, size): more of them include fewer.
    holdout: 0 .. size - 2. Raises ArgumentError.
    """
    if not 0 <= holdout < max(1, size - 1):
        raise ArgumentError(f"holdout is {holdout} of {size} pictures; valid: 0 to {max(0, size - 2)}")
    if holdout == 0:
        return np.arange(size), np.empty(0, np.int64)
    order = sample_order(noise.derive_seed(seed, PURPOSE_HOLDOUT), 0, size, size)
    return np.sort(order[: size - holdout]), order[size - holdout :]
