"""Adversarial losses: free functions of the discriminator's logits, each with its equation and paper.

Logits have any shape; every loss is a mean over them, a scalar to be made small. x is a real picture, G(z) a fake one,
and D a logit, greater for what looks real. A pair of them makes a GAN:

    minimax            discriminator_bce             generator_minimax
    non-saturating     discriminator_bce             generator_nonsaturating
    least squares      discriminator_least_squares   generator_least_squares
    Wasserstein        discriminator_wasserstein     generator_wasserstein      and gradient_penalty for D
    hinge              discriminator_hinge           generator_hinge
    relativistic       discriminator_relativistic    generator_relativistic

The penalties R1 and R2 are means of `squared_gradient_norm`; they go with any pair.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from edgegan.trainer.layers import uniform

TINY = 1e-12  # below a square root, whose slope at 0 is infinite


def discriminator_bce(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))): cross-entropy on logits (Goodfellow et al. 2014, eq. 1)."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def generator_minimax(fake_logits: Tensor) -> Tensor:
    """log(1 - sigmoid(D(G(z)))), at most 0: the other side of D's game (Goodfellow et al. 2014, eq. 1).

    Where D is sure that a picture is fake it is flat, and G learns nothing: see `generator_nonsaturating`.
    """
    return -F.softplus(fake_logits).mean()


def generator_nonsaturating(fake_logits: Tensor) -> Tensor:
    """-log sigmoid(D(G(z))): binary cross-entropy of the fakes against "real" (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake_logits).mean()


def discriminator_least_squares(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """((D(x) - 1)^2 + D(G(z))^2) / 2: D says 1 of real and 0 of fake pictures (LSGAN: Mao et al. 2017, eq. 9)."""
    return ((real_logits - 1).square().mean() + fake_logits.square().mean()) / 2


def generator_least_squares(fake_logits: Tensor) -> Tensor:
    """(D(G(z)) - 1)^2 / 2: D is to say 1 of the fakes (LSGAN: Mao et al. 2017, eq. 9)."""
    return (fake_logits - 1).square().mean() / 2


def discriminator_wasserstein(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """D(G(z)) - D(x): minus an estimate of the distance of fake and real pictures (Arjovsky et al. 2017, eq. 2).

    It is one as long as D's slope is at most 1, to which `gradient_penalty` holds it.
    """
    return fake_logits.mean() - real_logits.mean()


def generator_wasserstein(fake_logits: Tensor) -> Tensor:
    """-D(G(z)): the part of that distance which G can lessen (Arjovsky et al. 2017)."""
    return -fake_logits.mean()


def discriminator_hinge(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))): D stops at a margin of 1 (Lim, Ye 2017; Miyato et al. 2018, eq. 16)."""
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def generator_hinge(fake_logits: Tensor) -> Tensor:
    """-D(G(z)): linear, whatever D's margin is (Lim, Ye 2017; Miyato et al. 2018, eq. 17)."""
    return -fake_logits.mean()


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
    gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))  # more than autocast's bfloat16
    return gradient.square().sum(dim=tuple(range(1, gradient.dim())))


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """(|grad D(y)| - 1)^2 on y = u x + (1 - u) G(z), u from [0, 1): WGAN-GP (Gulrajani et al. 2017, eq. 3).

    critic: images [n, ...] -> logits [n], without batch norm, which would mix the pictures. real, fake: [n, ...];
    what made the fakes gets no gradient. Returns a scalar, which the paper multiplies by 10. u, a number for each
    picture, comes from torch's generator, which the loop seeds.
    """
    u = uniform(len(real), real.device).view(-1, *[1] * (real.dim() - 1)).to(real.dtype)
    mixed = torch.lerp(fake.detach().to(real.dtype), real, u).requires_grad_()
    return ((squared_gradient_norm(critic(mixed), mixed) + TINY).sqrt() - 1).square().mean()
