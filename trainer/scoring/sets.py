"""Two sets of pictures in the eyes of a feature network: the real ones, kept for the next time, and the drawn ones.

Features are held, pictures are not: memory is 4 * d bytes a picture, whatever its size.
"""

import hashlib
import math
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgegan import noise
from edgegan._files import atomic_write, shared_folder
from edgegan.errors import ArgumentError, DataError, EdgeGANWarning, ModelError, one_line
from edgegan.image import on_white
from edgegan.spec import ModelSpec
from edgegan.trainer.data import Dataset, Progress, default_root, sample_order
from edgegan.trainer.metrics.frechet import Statistics

if TYPE_CHECKING:
    from edgegan.trainer.metrics.features import FeatureNetwork

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

FORMAT = 1  # of the cache; part of the key, so that a change never reads an old file
CHUNK = 8  # batches of the network that are held as pictures at once, or fewer of
CHUNK_BYTES = 2**26
PICTURES = 400  # that are kept as such, for what is measured on pixels, or fewer of CHUNK_BYTES


class Model(Protocol):
    """What a report says of a model."""

    spec: ModelSpec
    source: str  # its name, for messages
    provider: str  # what runs it
    digest: str  # SHA-256 of its file


class Draws(Model, Protocol):
    """Whatever draws pictures by the noise contract: a `Generator`, or one that is still being trained."""

    def sample(self, n: int, seed: int = 0, *, start: int = 0, batch: int | None = None) -> U8:
        """Pictures start .. start + n - 1 of `seed`: [n, H, W, C]. batch: how many at a time."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a network makes of a set of n pictures."""

    features: F32  # [n, d]
    statistics: Statistics  # of the features
    logits: F32 | None = None  # [n, classes of the network], if it is a classifier
    labels: I64 | None = None  # [n], the class of a real picture, or the one that a drawn picture was asked for
    pictures: U8 | None = None  # a few of them, uint8 [m, H, W, C]

    def __len__(self) -> int:
        return len(self.features)

    def part(self, positions: I64) -> "Seen":
        """Some of them; `pictures` stay as they are."""
        features = self.features[positions]
        logits = None if self.logits is None else self.logits[positions]
        labels = None if self.labels is None else self.labels[positions]
        return Seen(features, Statistics.of(features), logits, labels, self.pictures)


def see_real(
    dataset: Dataset, network: "FeatureNetwork", root: Path | None = None, progress: Progress | None = None
) -> Seen:
    """All pictures of a data set, from the cache under `root` (default: `default_root()`) or put there now.

    The key is the digest of the pictures, that of the network, how it wants them, and what else decides the features'
    last bits. A damaged file is made anew; a cache that cannot be written is a warning (EdgeGANWarning). Raises
    ModelError for features that are NaN or infinite.
    """
    how = (dataset.digest, network.digest, network.preparation.to_json(), network.batch)
    key = hashlib.sha256(repr((FORMAT, network.engine, *how)).encode()).hexdigest()
    short = re.sub(r"[^A-Za-z0-9_-]+", "_", f"{dataset.name}-{network.name}")[:60]
    folder = (default_root() if root is None else root) / "features"
    path = folder / f"{short}-{key[:32]}.npz"
    seen = _read(path, len(dataset), network.dim, dataset.labels)
    if seen is None:
        step = chunk_of(network, dataset.images[0].size)
        starts = range(0, len(dataset), step)
        seen = see(
            network,
            (np.asarray(dataset.images[i : i + step]) for i in starts),
            dataset.labels,
            len(dataset),
            f"real pictures of '{dataset.name}'",
            progress,
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(path, seen)
        except (OSError, ArgumentError) as error:
            warnings.warn(
                f"the features of '{dataset.name}' cannot be kept for the next time: {one_line(error)}",
                EdgeGANWarning,
                stacklevel=2,
            )
    few = np.sort(sample_order(0, 0, min(few_of(dataset.images[0].size), len(dataset)), len(dataset)))
    return replace(seen, pictures=dataset.images[few])


def see_drawn(
    generator: Draws,
    network: "FeatureNetwork",
    n: int,
    seed: int = 0,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Seen:
    """Pictures 0 .. n - 1 of `seed`, with the labels that the noise contract draws.

    Pictures with transparency are laid on white. batch: pictures a run of the model. Raises ModelError for features
    that are NaN or infinite, ArgumentError as `Generator.sample`.
    """
    spec = generator.spec
    step = chunk_of(network, math.prod(spec.image_size) * spec.channels)
    labels = noise.labels(seed, n, len(spec.classes)) if spec.classes else None
    kept: list[U8] = []

    def chunks() -> Iterator[U8]:
        few = few_of(math.prod(spec.image_size) * spec.channels)
        for i in range(0, n, step):
            images = on_white(generator.sample(min(step, n - i), seed, start=i, batch=batch))
            if i < few:
                kept.append(images[: few - i].copy())
            yield images

    seen = see(network, chunks(), labels, n, "drawn pictures", progress)
    return replace(seen, pictures=np.concatenate(kept))


def check_pair(generator: Draws, dataset: Dataset) -> None:
    """Raise unless the model draws pictures from latents (ArgumentError) of the data's size (DataError)."""
    check_draws(generator)
    (h, w), (h2, w2) = generator.spec.image_size, dataset.images.shape[1:3]
    if (h, w) != (h2, w2):
        raise DataError(
            f"{generator.source} draws pictures of {w} x {h}, those of '{dataset.name}' are {w2} x {h2}; give data of "
            "the same size"
        )


def check_draws(generator: Model) -> None:
    """Raise ArgumentError for a model that turns pictures into others."""
    if generator.spec.task != "generate":
        raise ArgumentError(
            f"{generator.source} turns pictures into others; valid: a model that draws them, or give the pictures that "
            "it is to turn, --source SOURCE"
        )


def chunk_of(network: "FeatureNetwork", size: int) -> int:
    """Pictures of `size` bytes that are held at once: whole batches of the network."""
    return network.batch * max(1, min(CHUNK, CHUNK_BYTES // (size * network.batch)))


def few_of(size: int) -> int:
    """Pictures of `size` bytes that are kept as such."""
    return max(2, min(PICTURES, CHUNK_BYTES // size))


def see(
    network: "FeatureNetwork", chunks: Iterable[U8], labels: I64 | None, n: int, what: str, progress: Progress | None
) -> Seen:
    """What it makes of n pictures, which come in chunks and are called `what`. Raises ModelError as `see_real`."""
    features = np.empty((n, network.dim), np.float32)
    logits: list[F32] = []
    done = 0
    for images in chunks:
        found = network.run(images)
        if not np.isfinite(found.features).all():
            raise ModelError(
                f"{network.name}: its features of the {what} hold NaN or infinity, first between pictures {done} and "
                f"{done + len(images)}; see whether its preparation is right, and the model sound (edgegan verify)"
            )
        features[done : done + len(images)] = found.features
        if found.logits is not None:
            logits.append(found.logits)
        done += len(images)
        if progress is not None:
            progress(done, n, what)
    return Seen(features, Statistics.of(features), np.concatenate(logits) if logits else None, labels)


def _write(path: Path, seen: Seen) -> None:
    arrays: dict[str, Any] = {"features": seen.features}
    arrays |= {"mean": seen.statistics.mean, "covariance": seen.statistics.covariance}
    if seen.logits is not None:
        arrays["logits"] = seen.logits
    with shared_folder(path.parent), atomic_write(path) as file:
        np.savez(file, **arrays)


def _read(path: Path, n: int, dim: int, labels: I64 | None) -> Seen | None:
    """What was kept; None if there is nothing or it is damaged: the zip has a checksum of each array."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
        features, logits = arrays["features"], arrays.get("logits")
        if features.shape != (n, dim) or features.dtype != np.float32:
            return None
        statistics = Statistics(arrays["mean"], arrays["covariance"], n)
        return Seen(features, statistics, logits, labels)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, ArgumentError):
        return None
