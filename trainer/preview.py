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
from edgegan.trainer import randomness
from edgegan.trainer.data import sample_order
from edgegan.trainer.feed import Feed, to_device
from edgegan.trainer.metrics.similarity import psnr
from edgegan.trainer.metrics.sliced_wasserstein import sliced_wasserstein
from edgegan.trainer.run import Run

GRID_SIDE = 4
SEED = 0  # `edgegan sample -n 16 --seed 0` of the exported model draws the pictures of the last grid
DISTANCE_IMAGES = 1024
DISTANCE_BYTES = 128 << 20  # of fewer, larger pictures
EXAMPLES = 8  # of a translation, on a grid
# What is translated for a distance, or for the monitors, of larger pictures fewer: it costs more than to draw as many.
TRANSLATED, TRANSLATED_PIXELS = 64, 64 * 64**2
MAX_PSNR = 100.0  # dB, of a picture that is met exactly: a mean takes no infinity


class Preview:
    """Draws what the exported model would draw now, or what it would make of some pictures."""

    def __init__(self, run: Run, feed: Feed, nets: nn.ModuleDict) -> None:
        self.run, self.feed, self.nets, self.device = run, feed, nets, feed.device
        shape = run.settings.data.shape
        self.spec = run.recipe.spec(run.config, shape)
        self.translates = self.spec.task == "translate"
        degraded = run.recipe.degrade_noise
        # Elements of z: G's latents, or what makes sources of real pictures.
        self.latent_dim = degraded(run.config, shape) if degraded is not None else self.spec.latent_dim or 1

    @property
    def affordable(self) -> int:
        """How many pictures may be made for a measurement now and then."""
        if not self.translates:
            return DISTANCE_IMAGES
        n = max(EXAMPLES, min(TRANSLATED, TRANSLATED_PIXELS // self._pixels))
        # Two results of one source would look like a collapse.
        return n if self.feed.source is None else min(n, len(self.feed.source.loader.shown))

    @property
    def _pixels(self) -> int:
        """Of a picture."""
        return self.run.settings.data.height * self.run.settings.data.width

    def sample(self, nimg: int) -> tuple[np.ndarray, dict[str, float]]:
        """Draw and save the fixed-seed grid, uint8 [H, W, C]; measure fixed-seed fakes against real pictures.

        swd is their sliced Wasserstein distance, swd_real that of other real pictures: what a perfect G would reach.
        psnr, of a translation whose true results are known, is the mean PSNR to these, in decibels.
        """
        grid = self._translations() if self.translates else self._drawn()
        image.save_image(self.run.samples / f"{nimg:012d}.png", grid)
        real, _ = self._real_pictures
        made = self.draw(len(real))
        measured = {"swd": round(sliced_wasserstein(real, made), 3), "swd_real": self._real_distance}
        if self.translates and self._known:
            measured["psnr"] = round(float(np.minimum(psnr(real, made), MAX_PSNR).mean()), 3)
        return grid, measured

    def _drawn(self) -> NDArray[np.uint8]:
        return image.grid(self.draw(GRID_SIDE**2), columns=GRID_SIDE, zoom=image.comfortable_zoom(self.spec.image_size))

    def _translations(self) -> NDArray[np.uint8]:
        """Two in a row: a source, as large as its result, what was made of it, what should be, if that is known."""
        made = self.draw(EXAMPLES)
        sources = image.to_uint8(self.sources(EXAMPLES).cpu().numpy())
        shown = [sources.repeat(self.spec.scale, 1).repeat(self.spec.scale, 2), made]
        if self._known:
            shown.append(self.feed.data.dataset.images[self._places(EXAMPLES)])
        pictures = np.stack(shown, 1).reshape(-1, *made.shape[1:])
        return image.grid(pictures, columns=2 * len(shown), zoom=image.comfortable_zoom(made.shape[1:3]))

    def draw(self, n: int, batch: int = 64, start: int = 0) -> np.ndarray:
        """Pictures start .. start + n - 1 of SEED, as the exported model will draw them: uint8 [n, H, W, C]."""
        parts = (self.fakes(min(batch, n - i), start + i)[0] for i in range(0, n, batch))
        return np.concatenate([image.to_uint8(part.cpu().numpy()) for part in parts])

    @torch.no_grad()
    def fakes(self, n: int, start: int = 0) -> tuple[Tensor, Tensor | None]:
        """Those pictures start .. start + n - 1 on the device, float32 [n, C, H, W], and their labels [n], if any."""
        module = self.run.recipe.export_module(self.nets)
        if self.translates:
            few = max(1, TRANSLATED_PIXELS // TRANSLATED * EXAMPLES // self._pixels)  # at a time: it takes memory
            with evaluating(module):
                return torch.cat([module(part).float() for part in self.sources(n, start).split(few)]), None
        drawn = {k: torch.from_numpy(np.array(x)) for k, x in inputs_of(self.spec, SEED, n, start).items()}
        feed = {name: tensor.to(self.device) for name, tensor in drawn.items()}
        with evaluating(module):
            return module(*feed.values()).float(), feed.get("label")

    @torch.no_grad()
    def sources(self, n: int, start: int = 0) -> Tensor:
        """What is translated for pictures start .. start + n - 1: float32 [n, C, h, w] on the device."""
        if self.feed.source is not None:
            shown = self.feed.source.loader.shown
            return self.feed.source.at(shown[sample_order(SEED, start, n, len(shown))])[0]
        recipe, (real, _) = self.run.recipe, self.feed.data.at(self._places(n, start))
        assert recipe.degrade is not None
        z = to_device(randomness.preview_noise(SEED, start, n, self.latent_dim), self.device)
        return recipe.degrade(self.run.config, real, z)

    @property
    def _known(self) -> bool:
        """Whether the true result of each source is known: the real picture of the same number."""
        return self.feed.source is None or self.run.paired

    def _places(self, n: int, start: int = 0) -> NDArray[np.int64]:
        """Positions in the data set of the real pictures start .. start + n - 1."""
        return self.feed.shown[sample_order(SEED, start, n, len(self.feed.shown))]

    @cached_property
    def _real_pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """Two fixed sets of real pictures without a common one, each uint8 [n, H, W, C]."""
        images = self.feed.data.dataset.images
        n = min(self.affordable, len(self.feed.shown) // 2, max(1, DISTANCE_BYTES // images[0].nbytes))
        order = self._places(2 * n)
        return images[order[:n]], images[order[n:]]

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
