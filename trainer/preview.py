"""What a run looks like while it trains: fixed-seed pictures, and how far they are from the data."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgegan import image
from edgegan.model import inputs_of
from edgegan.trainer.data import Dataset, sample_order
from edgegan.trainer.metrics.sliced_wasserstein import sliced_wasserstein
from edgegan.trainer.run import Run

GRID_SIDE = 4
SEED = 0  # `edgegan sample -n 16 --seed 0` of the exported model draws the pictures of the last grid
DISTANCE_IMAGES = 1024
DISTANCE_BYTES = 128 << 20  # of fewer, larger pictures


class Preview:
    """Draws what the exported model would draw now."""

    def __init__(
        self, run: Run, dataset: Dataset, shown: NDArray[np.int64], nets: nn.ModuleDict, device: torch.device
    ) -> None:
        """shown: positions in the data set to compare with."""
        self.run, self.dataset, self.shown, self.nets, self.device = run, dataset, shown, nets, device
        self.spec = run.recipe.spec(run.config, run.settings.data.shape)

    def sample(self, nimg: int) -> tuple[np.ndarray, dict[str, float]]:
        """Draw and save the fixed-seed grid, uint8 [H, W, C]; measure fixed-seed fakes against real pictures.

        swd is their sliced Wasserstein distance, swd_real that of other real pictures: what a perfect G would reach.
        """
        zoom = image.comfortable_zoom(self.spec.image_size)
        grid = image.grid(self.draw(GRID_SIDE**2), columns=GRID_SIDE, zoom=zoom)
        image.save_image(self.run.samples / f"{nimg:012d}.png", grid)
        real, _ = self._real_pictures
        swd = round(sliced_wasserstein(real, self.draw(len(real))), 3)
        return grid, {"swd": swd, "swd_real": self._real_distance}

    def draw(self, n: int, batch: int = 64, start: int = 0) -> np.ndarray:
        """Pictures start .. start + n - 1 of SEED, as the exported model will draw them: uint8 [n, H, W, C]."""
        parts = (self.fakes(min(batch, n - i), start + i)[0] for i in range(0, n, batch))
        return np.concatenate([image.to_uint8(part.cpu().numpy()) for part in parts])

    @torch.no_grad()
    def fakes(self, n: int, start: int = 0) -> tuple[Tensor, Tensor | None]:
        """Those pictures start .. start + n - 1 on the device, float32 [n, C, H, W], and their labels [n], if any."""
        module = self.run.recipe.export_module(self.nets)
        feed = {
            k: torch.from_numpy(np.array(x)).to(self.device) for k, x in inputs_of(self.spec, SEED, n, start).items()
        }
        with evaluating(module):
            return module(*feed.values()).float(), feed.get("label")

    @cached_property
    def _real_pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """Two fixed sets of real pictures without a common one, each uint8 [n, H, W, C]."""
        height, width, channels = self.dataset.images.shape[1:]
        n = min(DISTANCE_IMAGES, len(self.shown) // 2, max(1, DISTANCE_BYTES // (height * width * channels)))
        order = self.shown[sample_order(SEED, 0, 2 * n, len(self.shown))]
        return self.dataset.images[order[:n]], self.dataset.images[order[n:]]

    @cached_property
    def _real_distance(self) -> float:
        """The distance between them."""
        return round(sliced_wasserstein(*self._real_pictures), 3)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode inside; after it each part is as before: a recipe may draw with the very nets that it trains."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in before.items():
            part.training = training
