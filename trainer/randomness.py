"""All randomness of training, each draw a pure function of (seed, images shown, global sample index).

Nothing here has a state, so a resumed run draws what the uninterrupted one would have drawn. Every kind of randomness
has a seed of its own, derived from the run's seed over the noise contract's training stream. Purposes 0, 3 and
4 are the order of the data, which pictures are mirrored, and which are held out: see `edgegan.trainer.data`.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from edgegan import noise

PURPOSE_INITIAL_WEIGHTS = 1
PURPOSE_TORCH = 2
PURPOSE_SOURCE = 5  # which pictures of the source set go with which of the data
PURPOSE_PREVIEW = 6  # what the previews' sources suffer, where they are made of real pictures
PURPOSE_LATENTS = 16  # + index of the phase


def seed_initial_weights(seed: int) -> None:
    """Seed torch before the networks are built."""
    torch.manual_seed(noise.derive_seed(seed, PURPOSE_INITIAL_WEIGHTS))


def seed_torch(seed: int, nimg: int, phase: int) -> None:
    """Seed torch's own draws (dropout, augmentation) before a phase of the iteration that starts at `nimg`."""
    key = noise.derive_seed(seed, PURPOSE_TORCH)
    low, high = noise.words(key, 1, 2 * (phase + 1), start=nimg, stream=noise.STREAM_TRAINING)[0, -2:].tolist()
    torch.manual_seed(low | high << 32)


def latents(seed: int, phase: int, nimg: int, n: int, latent_dim: int) -> NDArray[np.float32]:
    """The latents of one phase for global samples nimg .. nimg + n - 1: [n, latent_dim] float32, N(0, 1)."""
    key = noise.derive_seed(seed, PURPOSE_LATENTS + phase)
    return noise.normal(key, n, latent_dim, start=nimg)


def preview_noise(seed: int, start: int, n: int, dim: int) -> NDArray[np.float32]:
    """What makes sources of the real pictures start .. start + n - 1 of a preview: [n, dim] float32, N(0, 1)."""
    return noise.normal(noise.derive_seed(seed, PURPOSE_PREVIEW), n, dim, start=start)
