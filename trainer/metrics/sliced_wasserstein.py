"""Sliced Wasserstein distance between two sets of pictures: progress in one number, without a feature network.

Rabin, Peyre, Delon, Bernot 2011, "Wasserstein Barycenter and its Application to Texture Mixing"; Karras et al. 2018
made it a measure of GANs. It sees pixels, not meaning: use it to watch one run, not to compare models across papers.
"""

import numpy as np

from edgegan import noise
from edgegan.errors import ArgumentError

MAX_SIDE = 32  # larger pictures are averaged down to about this: the distance is of layout and tone, not of grain


def sliced_wasserstein(a: np.ndarray, b: np.ndarray, projections: int = 512) -> float:
    """Mean over random directions of the 1-D Wasserstein-1 distance of the projected sets, times 1000.

    a, b: uint8 [n, H, W, C], equally many pictures of one size. Directions are drawn from the noise contract with a
    fixed seed and scaled so that the value does not grow with the number of pixels: 0 for equal sets; grey levels
    count from -1 to 1. Raises ArgumentError if the shapes differ or n is 0.
    """
    if a.shape != b.shape or a.ndim != 4 or len(a) == 0:
        raise ArgumentError(f"two equal shapes [n, H, W, C] with n >= 1 are needed, got {a.shape} and {b.shape}")
    x, y = _descriptors(a), _descriptors(b)
    directions = noise.normal(0, projections, x.shape[1], stream=noise.STREAM_TRAINING)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    gap = np.sort(x @ directions.T, axis=0) - np.sort(y @ directions.T, axis=0)
    return float(np.abs(gap).mean() * 1000)


def _descriptors(images: np.ndarray) -> np.ndarray:
    """[n, features] float32 in [-1, 1], averaged over blocks when the pictures are large."""
    n, height, width, channels = images.shape
    block = max(1, -(-max(height, width) // MAX_SIDE))
    h, w = max(1, height // block), max(1, width // block)
    blocks = images[:, : h * block, : w * block].reshape(n, h, min(block, height), w, min(block, width), channels)
    return blocks.mean(axis=(2, 4), dtype=np.float32).reshape(n, -1) / 127.5 - 1
