"""Models that translate: their results, and beside them the untouched sources, in the eyes of a feature network."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegan.errors import ArgumentError, DataError
from edgegan.trainer.data import Dataset, Progress, default_root, sample_order
from edgegan.trainer.data.pairs import check_names
from edgegan.trainer.metrics.similarity import WINDOW, mean_absolute_error, psnr, ssim
from edgegan.trainer.scoring.metrics import Comparison, K, Pairs
from edgegan.trainer.scoring.sets import Model, chunk_of, few_of, see, see_real

if TYPE_CHECKING:
    from pathlib import Path

    from edgegan.trainer.metrics.features import FeatureNetwork

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]


class Translates(Model, Protocol):
    """Whatever turns pictures into others: a `Generator` of the task "translate", or one still in training."""

    def translate(self, picture: U8, *, batch: int | None = None) -> U8:
        """uint8 [n, h, w, C] -> [n, h * scale, w * scale, C], at most so many in a run."""


def compare(
    generator: Translates,
    sources: Dataset,
    dataset: Dataset,
    network: "FeatureNetwork",
    n: int,
    seed: int,
    batch: int,
    paired: bool,
    k: int = K,
    root: "Path | None" = None,
    progress: Progress | None = None,
) -> tuple[Comparison, Comparison]:
    """What the model makes of n sources (`chosen_sources`) against the data, and the same of these sources untouched.

    Sources of a model that enlarges are enlarged with Pillow's bicubic filter, to compare them. paired: source i should
    become picture i of the data. Raises ModelError for features that are NaN or infinite.
    """
    real = see_real(dataset, network, root, progress)
    chosen = chosen_sources(n, seed, len(sources))
    scale = generator.spec.scale
    size = sources.images[0].size * scale**2
    step, few = chunk_of(network, size), few_of(size)

    def seen(turn: Callable[[U8], U8], what: str) -> Comparison:
        kept: list[U8] = []
        likeness: list[Pairs] = []

        def chunks() -> Iterator[U8]:
            for i in range(0, len(chosen), step):
                places = chosen[i : i + step]
                made = turn(sources.images[places])
                if i < few:
                    kept.append(made[: few - i].copy())
                if paired:
                    likeness.append(_likeness(made, dataset.images[places], places))
                yield made

        found = replace(see(network, chunks(), None, len(chosen), what, progress), pictures=np.concatenate(kept))
        return Comparison(found, real, network.name, k, pairs=_joined(likeness) if paired else None)

    results = seen(partial(generator.translate, batch=batch), "results")
    return results, seen(partial(enlarged, scale=scale), f"pictures of '{sources.name}'")


def chosen_sources(n: int, seed: int, total: int) -> I64:
    """Positions of n of `total` sources, or of all if they are fewer: as the seed draws them, in ascending order."""
    return np.sort(sample_order(seed, 0, min(n, total), total))


def enlarged(images: U8, scale: int) -> U8:
    """[n, h, w, C] -> [n, h * scale, w * scale, C] with Pillow's bicubic filter."""
    if scale == 1:
        return images
    _, h, w, channels = images.shape
    pictures = (Image.fromarray(image[..., 0] if channels == 1 else image) for image in images)
    large = [picture.resize((w * scale, h * scale), Image.Resampling.BICUBIC) for picture in pictures]
    return np.stack([np.asarray(picture).reshape(h * scale, w * scale, channels) for picture in large])


def open_translation(
    generator: Model, data: str, source: str, resolution: int | None, paired: bool, opened: Callable[..., Dataset]
) -> tuple[Dataset, Dataset]:
    """The data set, and the sources that the model is to turn into such pictures, both as large as that takes.

    resolution: pixels a side of the sources; 0: sources and data are taken as they are; None: those of the training, or
    as they are for a model that enlarges, since shrinking would undo what it has to. paired: the names must agree.
    opened: `open_dataset`, given all but the source and the resolution. Raises ArgumentError for a model that does not
    translate, and as `open_dataset`.
    """
    check_translates(generator)
    if paired:
        check_names(data, source, default_root())
    spec = generator.spec
    h, w = spec.image_size
    if resolution is None:
        resolution = h if h == w and spec.scale == 1 else 0
    sources = opened(source, resolution=resolution or None)
    return opened(data, resolution=resolution * spec.scale or None), sources


def check_translation(generator: Model, sources: Dataset, dataset: Dataset, paired: bool) -> None:
    """Raise unless the model translates (ArgumentError) sources into pictures of the data's size (DataError).

    paired: and if not each source has a true picture (DataError).
    """
    check_translates(generator)
    spec = generator.spec
    (h, w), (h2, w2) = sources.images.shape[1:3], dataset.images.shape[1:3]
    if (h * spec.scale, w * spec.scale) != (h2, w2):
        raise DataError(
            f"{generator.source} turns the {w} x {h} pictures of '{sources.name}' into {w * spec.scale} x "
            f"{h * spec.scale}, those of '{dataset.name}' are {w2} x {h2}; make them fit: --resolution N"
        )
    if not paired:
        return
    for each in (dataset, sources):
        if each.skipped:
            raise DataError(f"pairs would not match any more: {each.skipped_line}; take out their partners, too")
    if len(sources) != len(dataset):
        raise DataError(
            f"'{sources.name}' has {len(sources):,} pictures, '{dataset.name}' {len(dataset):,}; valid with --paired: "
            "as many"
        )


def check_translates(generator: Model) -> None:
    """Raise ArgumentError for a model that draws pictures from latents."""
    if generator.spec.task != "translate":
        raise ArgumentError(
            f"{generator.source} draws its pictures from noise; --source is for models that turn pictures into others: "
            "leave it out"
        )


def _likeness(made: U8, true: U8, places: I64) -> Pairs:
    similar = ssim(made, true) if min(made.shape[1:3]) >= WINDOW else None
    return Pairs(places, psnr(made, true), mean_absolute_error(made, true), similar)


def _joined(parts: list[Pairs]) -> Pairs:
    similar = [part.ssim for part in parts if part.ssim is not None]
    return Pairs(
        np.concatenate([part.twins for part in parts]),
        np.concatenate([part.psnr for part in parts]),
        np.concatenate([part.error for part in parts]),
        np.concatenate(similar) if similar else None,
    )
