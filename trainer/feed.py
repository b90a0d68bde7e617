"""From the data set to batches on the device."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgegan.trainer import randomness
from edgegan.trainer.data import Dataset
from edgegan.trainer.data.loader import Loader
from edgegan.trainer.monitors import Pictures
from edgegan.trainer.parallel import Group
from edgegan.trainer.run import Run

KEPT = 0.25  # share of a GPU's free memory that the data set may take
MAX_HELD_OUT = 256  # held-out pictures that the monitors look at


class Feed:
    """The pictures and labels that this process trains with, batch by batch.

    Where the set fits well into a GPU's memory it is kept there, and a batch costs no transfer; else a loader's threads
    make batches ready, which travel while the GPU still computes.
    """

    def __init__(self, run: Run, dataset: Dataset, device: torch.device, group: Group, workers: int) -> None:
        settings = run.settings
        self.device, self._dataset = device, dataset
        self._kept = self._keep(dataset) if device.type == "cuda" else None
        self._loader = Loader(
            dataset,
            settings.seed,
            run.config.batch,
            mirror=settings.mirror,
            rank=group.rank,
            world=group.world,
            workers=0 if self._kept is not None else workers,
            holdout=settings.holdout,
        )
        self.shown = self._loader.shown  # positions of the pictures that may be shown

    def take(self, nimg: int) -> Pictures:
        """This process's part of the batch that begins with global sample `nimg`.

        Images float32 [n, C, H, W] in [-1, 1], channels last in memory, and labels int64 [n] or None, on the device.
        """
        if self._kept is None:
            return self._place(*self._loader.take(nimg))
        order, mirrored = self._loader.plan(nimg)
        images = _scaled(self._kept[self._up(order)])
        if len(mirrored):
            flip = self._up(mirrored)
            images[flip] = images[flip].flip(3)
        labels = self._dataset.labels
        return images, None if labels is None else self._up(labels[order])

    def latents(self, seed: int, phase: int, nimg: int, latent_dim: int) -> Tensor:
        """The latents of one phase for that part: [n, latent_dim] float32, N(0, 1), on the device."""
        start = nimg + self._loader.rank * self._loader.n
        return self._up(randomness.latents(seed, phase, start, self._loader.n, latent_dim))

    def fixed(self, n: int) -> Pictures:
        """At most `n` pictures of those that are shown, always the same ones."""
        chosen = self.shown[np.linspace(0, len(self.shown) - 1, min(n, len(self.shown))).astype(np.int64)]
        labels = self._dataset.labels
        return self._place(self._dataset.images[chosen], None if labels is None else labels[chosen])

    def held_out(self) -> Pictures | None:
        """At most 256 of the pictures that are never shown; None if there are none."""
        held = self._loader.held[:MAX_HELD_OUT]
        if not len(held):
            return None
        labels = self._dataset.labels
        return self._place(self._dataset.images[held], None if labels is None else labels[held])

    def close(self) -> None:
        """End the loader's threads."""
        self._loader.close()

    def _keep(self, dataset: Dataset) -> Tensor | None:
        """The whole set on the GPU, uint8 [N, H, W, C], if that has room to spare."""
        free, _ = torch.cuda.mem_get_info(self.device)
        if dataset.images.nbytes > KEPT * free:
            return None
        kept = torch.empty(dataset.images.shape, dtype=torch.uint8, device=self.device)
        step = max(1, (64 << 20) // dataset.images[0].nbytes)
        for start in range(0, len(dataset), step):  # a piece at a time through the processor's memory
            kept[start : start + step].copy_(torch.from_numpy(np.array(dataset.images[start : start + step])))
        return kept

    def _place(self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> Pictures:
        return _scaled(self._up(images)), None if labels is None else self._up(labels)

    def _up(self, array: NDArray[Any]) -> Tensor:
        """On the device; a GPU fetches it while the processor goes on."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _scaled(images: Tensor) -> Tensor:
    """uint8 [n, H, W, C] -> float32 [n, C, H, W] in [-1, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
