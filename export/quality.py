"""What a smaller or faster file costs in quality: its pictures against those of the float32 network, and its limit."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgegan.devices import CPU, default_threads
from edgegan.errors import ArgumentError, ExportError
from edgegan.export.measure import cost_of
from edgegan.image import to_uint8
from edgegan.model import inputs_of
from edgegan.session import open_session
from edgegan.spec import ModelSpec
from edgegan.trainer.metrics.similarity import PEAK, WINDOW, psnr, ssim

if TYPE_CHECKING:
    from edgegan.trainer.data import Dataset
    from edgegan.trainer.metrics.features import FeatureNetwork

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

MIN_PICTURES, MAX_PICTURES = 8, 128  # for PSNR and SSIM
MAX_WORK = 2**38  # multiply-adds to draw them: some seconds
MAX_ELEMENTS = 2**26  # of all these pictures
SEED = 30  # of those pictures: others than those that a file is calibrated or proved with
DISTANCE_SEED = 40
DISTANCE_PICTURES = 5_000  # real and drawn ones at most, for a distance
BATCH = 16  # pictures that are drawn at once


@dataclass(frozen=True)
class Limit:
    """What is allowed: a share by which the distance to real pictures may grow, if it is measured, and a PSNR."""

    share: float = 0.05
    decibels: float = 30.0

    @classmethod
    def parse(cls, text: str) -> "Limit":
        """`5%`, `30dB`, or both with a comma. Raises ArgumentError."""
        given: dict[str, float] = {}
        for part in text.split(","):
            match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%|dB)", part.strip(), re.IGNORECASE)
            name = "share" if match and match[2] == "%" else "decibels"
            if match is None or name in given:
                raise ArgumentError(
                    f"max-quality-loss is {text!r}; valid: the least PSNR, such as 30dB, a share of the distance to "
                    "real pictures, such as 5%, or both: 5%,30dB"
                )
            given[name] = float(match[1]) / (100 if name == "share" else 1)
        return cls(**given)


@dataclass(frozen=True)
class Quality:
    """Of one file, against the float32 network on the same latents, or the same pictures to be translated."""

    psnr: float  # decibels, from the mean squared error of all pictures; inf for equal ones
    worst: float  # decibels, of the picture that differs most
    ssim: float | None  # the mean; None for pictures too small for its window
    difference: float  # the largest of pixels in [-1, 1]
    distance: float | None = None  # Frechet distance to real pictures, if it is measured
    before: float | None = None  # that of the float32 network

    def shown(self) -> str:
        """For people, in one line."""
        parts = [f"PSNR {self.psnr:.1f} dB (worst picture {self.worst:.1f})"]
        if self.ssim is not None:
            parts.append(f"SSIM {self.ssim:.4f}")
        if self.distance is not None:
            parts.append(f"distance to real pictures {self.before:.4g} -> {self.distance:.4g}")
        return ", ".join(parts)


class Judge:
    """Holds the float32 pictures, and compares those of other files with them."""

    def __init__(
        self,
        reference: bytes,
        spec: ModelSpec,
        limit: Limit | None = None,
        data: "Dataset | None" = None,
        network: "FeatureNetwork | None" = None,
    ) -> None:
        """reference: the float32 model, as it was exported. data and network, both or none: to measure the distance to
        real pictures. Raises ArgumentError if the data's pictures have other channels."""
        self.spec, self.limit = spec, limit or Limit()
        self.network = network
        work = cost_of(reference, spec, "the exported model").multiply_adds
        elements = math.prod(spec.image_size) * spec.scale**2 * spec.channels
        most = min(MAX_PICTURES, MAX_WORK // max(1, work), MAX_ELEMENTS // elements)
        self.compared = max(MIN_PICTURES, most)  # pictures; fewer of a huge network or of huge pictures
        self._floats = np.concatenate(list(draw(reference, spec, SEED, self.compared)))
        self.pictures: U8 = to_uint8(self._floats)  # [compared, H, W, C] of the float32 network
        self.count = 0  # pictures that a distance is measured with
        self.before: float | None = None  # the distance of the float32 pictures
        if data is None or network is None:
            return
        if data.images.shape[3] != spec.channels:
            raise ArgumentError(
                f"data '{data.name}' has pictures of {data.images.shape[3]} channels, the generator draws "
                f"{spec.channels}"
            )
        from edgegan.trainer.metrics.frechet import Statistics

        self.count = min(DISTANCE_PICTURES, len(data.images))
        # Evenly from the whole set: many are sorted by class.
        chosen = np.linspace(0, len(data.images) - 1, self.count).astype(int)
        self._real = Statistics.of(network(np.stack([data.images[i] for i in chosen])))
        self.before = self._distance(reference)

    def decibels(self, model: bytes) -> float:
        """PSNR alone, which is quick."""
        return _pooled(psnr(self.pictures, to_uint8(self._draw(model))))

    def judge(self, model: bytes) -> Quality:
        """All that is measured of a file."""
        floats = self._draw(model)
        drawn = to_uint8(floats)
        each = psnr(self.pictures, drawn)
        similar = None if min(drawn.shape[1:3]) < WINDOW else float(ssim(self.pictures, drawn).mean())
        difference = float(np.abs(floats - self._floats).max())
        if self.network is None or not self.count:
            return Quality(_pooled(each), float(each.min()), similar, difference)
        distance = self._distance(model)
        return Quality(_pooled(each), float(each.min()), similar, difference, distance, self.before)

    def passes(self, quality: Quality) -> bool:
        """Whether no more is lost than allowed."""
        return quality.psnr >= self.limit.decibels and self._keeps_distance(quality)

    def verdict(self, quality: Quality) -> str:
        """What was measured, and what is allowed."""
        if not self._keeps_distance(quality):
            return (
                f"the distance to real pictures grows from {quality.before:.4g} to {quality.distance:.4g}, allowed are "
                f"{100 * self.limit.share:g} % more"
            )
        return f"the PSNR is {quality.psnr:.1f} dB, at least {self.limit.decibels:g} dB are asked for"

    def _keeps_distance(self, quality: Quality) -> bool:
        if quality.distance is None or quality.before is None:
            return True
        return quality.distance <= (1 + self.limit.share) * quality.before

    def _draw(self, model: bytes) -> F32:
        return np.concatenate(list(draw(model, self.spec, SEED, self.compared)))

    def _distance(self, model: bytes) -> float:
        from edgegan.trainer.metrics.frechet import Statistics, frechet_distance

        assert self.network is not None
        batches = draw(model, self.spec, DISTANCE_SEED, self.count)
        drawn = Statistics.of(np.concatenate([self.network(to_uint8(batch)) for batch in batches]))
        return frechet_distance(self._real, drawn)


def draw(model: bytes, spec: ModelSpec, seed: int, count: int) -> Iterator[F32]:
    """The first pictures of a seed as a file draws them, in batches [<= 16, C, H, W] float32."""
    session, _, _ = open_session(model, "the exported model", default_threads(), CPU, small=True)
    for start in range(0, count, BATCH):
        feed = inputs_of(spec, seed, min(BATCH, count - start), start)
        floats = session.run(["image"], feed)[0]
        if not np.isfinite(floats).all():
            raise ExportError("the exported model draws pixels that are not finite; nothing was written")
        yield floats


def _pooled(each: NDArray[np.float64]) -> float:
    """One PSNR for many pictures, from the mean of their squared errors."""
    error = float(np.mean(PEAK**2 / 10 ** (each / 10)))
    return float("inf") if error == 0 else float(10 * np.log10(PEAK**2 / error))
