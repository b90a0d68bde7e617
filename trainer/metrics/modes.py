"""Which modes of a known distribution a generator draws: on Stacked-MNIST, the 2-D ring and the 2-D grid.

The protocol of Lin, Khetan, Fanti, Oh 2018, "PacGAN: The Power of Two Samples in Generative Adversarial Networks". Its
points (Srivastava et al. 2017, VEEGAN) come from 8 or 25 Gaussians; one within 3 standard deviations of the nearest
mean is of high quality, and a mode is found if one of these is its. Its Stacked-MNIST (Metz et al. 2017) has a random
digit in each of three channels: 1,000 classes, told apart by a classifier of digits, and one is found with its first
picture. The data are drawn by the noise contract: sample i of a seed is the same everywhere, and whatever n is.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgegan import noise
from edgegan.errors import ArgumentError
from edgegan.trainer.metrics.features import FeatureNetwork

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
HIGH_QUALITY = 3.0  # standard deviations
STACKED = 1000  # classes
PURPOSE_MODES = 5  # of a seed: its data share no words with its latents, or with what a training draws


class Modes(NamedTuple):
    found: int
    total: int
    divergence: float  # KL of the drawn modes from equal shares, in nats: 0 to log(total)


class PointModes(NamedTuple):
    found: int  # with a high-quality sample
    total: int
    divergence: float  # as Modes, each sample, good or not, counted for the nearest mode
    high_quality: float  # share of samples, 0 to 1; 1 - exp(-4.5) = 0.989 of the distribution itself


@dataclass(frozen=True)
class Mixture:
    """Equally likely Gaussians of one standard deviation in the plane."""

    means: tuple[tuple[float, float], ...]
    deviation: float

    def draw(self, seed: int, n: int, *, start: int = 0) -> F32:
        """Samples start .. start + n - 1 of a seed: float32 [n, 2]. Raises ArgumentError as `noise.normal`."""
        key = noise.derive_seed(seed, PURPOSE_MODES)
        modes = noise.labels(key, n, len(self.means), start=start)
        return np.array(self.means, np.float32)[modes] + np.float32(self.deviation) * noise.normal(
            key, n, 2, start=start
        )


RING = Mixture(tuple((math.cos(math.tau * i / 8), math.sin(math.tau * i / 8)) for i in range(8)), 0.01)
GRID = Mixture(tuple((x, y) for x in (-4.0, -2.0, 0.0, 2.0, 4.0) for y in (-4.0, -2.0, 0.0, 2.0, 4.0)), 0.05)


def point_modes(points: NDArray[np.floating], mixture: Mixture) -> PointModes:
    """How well drawn points [n, 2] cover a mixture; 2,500 of them are usual. Raises ArgumentError, also for NaN."""
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ArgumentError(f"points are {list(points.shape)}; valid: [n, 2], n >= 1")
    if not np.isfinite(points).all():
        raise ArgumentError("points hold NaN or infinity; valid: finite numbers: see what the generator does")
    gaps = points.astype(np.float64)[:, None] - np.array(mixture.means)
    distances = np.hypot(gaps[..., 0], gaps[..., 1])
    mode = distances.argmin(axis=1)
    good = distances.min(axis=1) <= HIGH_QUALITY * mixture.deviation
    total = len(mixture.means)
    found = len(np.unique(mode[good]))
    return PointModes(found, total, _divergence(np.bincount(mode, minlength=total)), float(good.mean()))


def class_modes(classes: NDArray[np.integer], total: int = STACKED) -> Modes:
    """How many of `total` classes came among those of the pictures, [n] integers, and how evenly.

    26,000 pictures are usual on Stacked-MNIST. Few pictures are uneven by chance: the divergence of n from the uniform
    distribution itself is about (total - 1) / 2n, 0.019 there. That of its real pictures is at 0.024, since MNIST's
    digits are not equally many. Raises ArgumentError for classes below 0 or above
    total - 1, or none.
    """
    if classes.ndim != 1 or classes.dtype.kind not in "iu" or len(classes) == 0:
        raise ArgumentError(f"classes are {classes.dtype} {list(classes.shape)}; valid: integers [n], n >= 1")
    if classes.min() < 0 or classes.max() >= total:
        raise ArgumentError(f"classes go from {classes.min()} to {classes.max()}; valid: 0 to {total - 1}")
    counts = np.bincount(classes, minlength=total)
    return Modes(int(np.count_nonzero(counts)), total, _divergence(counts))


def stacked_digits(images: U8, labels: NDArray[np.integer], seed: int, n: int, *, start: int = 0) -> tuple[U8, I64]:
    """Samples start .. start + n - 1 of Stacked-MNIST: pictures uint8 [n, H, W, 3], classes [n] int64, 0 to 999.

    images: grey digits uint8 [m, H, W, 1], labels: [m] integers 0 to 9. Each channel is one of the digits, all equally
    likely; red is the hundreds of the class, green the tens. Raises ArgumentError for other shapes or labels, and as
    `noise.words`.
    """
    if images.ndim != 4 or images.shape[3] != 1 or images.dtype != np.uint8 or len(images) == 0:
        raise ArgumentError(f"digits are {images.dtype} {list(images.shape)}; valid: uint8 [m, H, W, 1], m >= 1")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 9:
        raise ArgumentError(f"labels are {labels.dtype} {list(labels.shape)}; valid: [{len(images)}], 0 to 9")
    words = noise.words(noise.derive_seed(seed, PURPOSE_MODES), n, 3, start=start)
    chosen = (words.astype(np.uint64) * np.uint64(len(images)) >> np.uint64(32)).astype(np.int64)
    pictures = np.stack([images[chosen[:, channel], ..., 0] for channel in range(3)], axis=3)
    return pictures, labels[chosen].astype(np.int64) @ np.array([100, 10, 1])


def stacked_classes(images: U8, network: FeatureNetwork) -> I64:
    """The classes [n] int64, 0 to 999, that a classifier of grey digits sees in pictures uint8 [n, H, W, 3].

    network: `open_features("lenet")`, or any other with logits of 10 classes. Raises ArgumentError for other pictures
    or a network without these.
    """
    if images.ndim != 4 or images.shape[3] != 3:
        raise ArgumentError(f"pictures are {images.dtype} {list(images.shape)}; valid: uint8 [n, H, W, 3], n >= 1")
    classes = np.zeros(len(images), np.int64)
    for channel in range(3):
        logits = network.run(images[..., channel, None]).logits
        if logits is None or logits.shape[1] != 10:
            raise ArgumentError(f"{network.name} has no logits of 10 classes; valid: a classifier of digits, as lenet")
        classes = 10 * classes + logits.argmax(axis=1)
    return classes


def _divergence(counts: I64) -> float:
    shares = counts[counts > 0] / counts.sum()
    return max(0.0, float((shares * np.log(shares * len(counts))).sum()))  # rounding may take equal shares below 0
