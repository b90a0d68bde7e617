"""From the data set to batches on the device."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgegan import noise
from edgegan.trainer import randomness
from edgegan.trainer.data import Dataset
from edgegan.trainer.data.loader import Loader
from edgegan.trainer.monitors import Pictures
from edgegan.trainer.parallel import Group
from edgegan.trainer.run import Run

KEPT = 0.25  # share of a GPU's free memory that a data set may take
MAX_HELD_OUT = 256  # held-out pictures that the monitors look at


class Shown:
    """The pictures and labels of one set that this process trains with, batch by batch.

    Where the set fits well into a GPU's memory it is kept there, and a batch costs no transfer; else a loader's threads
    make batches ready, which travel while the GPU still computes.
    """

    def __init__(
        self, run: Run, dataset: Dataset, seed: int, device: torch.device, group: Group, workers: int, holdout: int
    ) -> None:
        """seed: of the order; the same one shows the pictures at the same places of two sets together."""
        self.device, self.dataset = device, dataset
        self._kept = self._keep(dataset) if device.type == "cuda" else None
        self.loader = Loader(
            dataset,
            seed,
            run.config.batch,
            mirror=run.settings.mirror,
            rank=group.rank,
            world=group.world,
            workers=0 if self._kept is not None else workers,
            holdout=holdout,
        )

    def take(self, nimg: int) -> Pictures:
        """This process's part of the batch that begins with global sample `nimg`.

        Images float32 [n, C, H, W] in [-1, 1], channels last in memory, and labels int64 [n] or None, on the device.
        """
        if self._kept is None:
            return self.place(*self.loader.take(nimg))
        order, mirrored = self.loader.plan(nimg)
        images = _scaled(self._kept[to_device(order, self.device)])
        if len(mirrored):
            flip = to_device(mirrored, self.device)
            images[flip] = images[flip].flip(3)
        labels = self.dataset.labels
        return images, None if labels is None else to_device(labels[order], self.device)

    def at(self, positions: NDArray[np.int64]) -> Pictures:
        """The pictures at these positions of the set."""
        labels = self.dataset.labels
        return self.place(self.dataset.images[positions], None if labels is None else labels[positions])

    def place(self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> Pictures:
        """On the device, as `take` has them."""
        scaled = _scaled(to_device(images, self.device))
        return scaled, None if labels is None else to_device(labels, self.device)

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


class Feed:
    """All that this process trains with: real pictures, for translation others to be turned into such, and latents."""

    def __init__(self, run: Run, dataset: Dataset, device: torch.device, group: Group, workers: int) -> None:
        settings = run.settings
        self.device = device
        self.data = Shown(run, dataset, settings.seed, device, group, workers, settings.holdout)
        self.source: Shown | None = None
        if dataset.source is not None:
            # Pairs are shown in one order; else every picture of one set meets all of the other.
            seed = settings.seed if run.paired else noise.derive_seed(settings.seed, randomness.PURPOSE_SOURCE)
            holdout = settings.holdout if run.paired else 0
            self.source = Shown(run, dataset.source, seed, device, group, workers, holdout)
        self.shown = self.data.loader.shown  # positions of the pictures that may be shown

    def take(self, nimg: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """This process's part of the batch that begins with global sample `nimg`: see `Shown.take`.

        Real pictures, their labels or None, and pictures of the source set, if there is one.
        """
        images, labels = self.data.take(nimg)
        return images, labels, None if self.source is None else self.source.take(nimg)[0]

    def latents(self, seed: int, phase: int, nimg: int, latent_dim: int) -> Tensor:
        """The latents of one phase for that part: [n, latent_dim] float32, N(0, 1), on the device."""
        loader = self.data.loader
        start = nimg + loader.rank * loader.n
        return to_device(randomness.latents(seed, phase, start, loader.n, latent_dim), self.device)

    def fixed(self, n: int) -> Pictures:
        """At most `n` pictures of those that are shown, always the same ones."""
        return self.data.at(self.shown[np.linspace(0, len(self.shown) - 1, min(n, len(self.shown))).astype(np.int64)])

    def held_out(self) -> Pictures | None:
        """At most 256 of the pictures that are never shown; None if there are none."""
        held = self.data.loader.held[:MAX_HELD_OUT]
        return self.data.at(held) if len(held) else None

    def close(self) -> None:
        """End the loaders' threads."""
        self.data.loader.close()
        if self.source is not None:
            self.source.loader.close()


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """On the device; a GPU fetches it while the processor goes on."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def _scaled(images: Tensor) -> Tensor:
    """uint8 [n, H, W, C] -> float32 [n, C, H, W] in [-1, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
