"""Adversarial losses: free functions of the discriminator's logits, each with its equation and paper.

Logits have any shape; every loss is a mean over them, a scalar.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def discriminator_bce(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))): cross-entropy on logits (Goodfellow et al. 2014, eq. 1)."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def generator_nonsaturating(fake_logits: Tensor) -> Tensor:
    """-log sigmoid(D(G(z))): binary cross-entropy of the fakes against "real" (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake_logits).mean()


def discriminator_relativistic(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log sigmoid(D(x) - D(G(z))): each real picture against its fake (Jolicoeur-Martineau 2018; R3GAN, eq. 2)."""
    return F.softplus(fake_logits - real_logits).mean()


def generator_relativistic(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log sigmoid(D(G(z)) - D(x)): the discriminator's loss with the pair exchanged."""
    return F.softplus(real_logits - fake_logits).mean()


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Mean squared norm of the logits' gradient by the images: R1 on real, R2 on fake ones (Mescheder et al. 2018).

    logits: [n], computed from images [n, C, H, W], which require gradients. Zero-centred, to be weighted by gamma / 2.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3)).mean()
