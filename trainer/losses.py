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


def squared_gradient_norm(logits: Tensor, images: Tensor) -> Tensor:
    """[n]: the squared norm of each logit's gradient by its image, to be differentiated again.

    logits: [n], computed from images [n, ...], which require gradients. Its mean times gamma / 2 is the penalty R1
    on real and R2 on fake pictures (Mescheder et al. 2018, eq. 9 and 10).
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=tuple(range(1, gradient.dim())))
