"""What recipes share that make one picture of another and know what it should look like: D, and how it trains.

Papers: Ledig et al. 2017, "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network"
(SRGAN: differences of pixels, of features, and a discriminator); Wang, Xie, Dong, Shan 2021, "Real-ESRGAN: Training
Real-World Blind Super-Resolution with Pure Synthetic Data" (D is a U-Net with spectral normalisation).
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from edgegan.trainer.ema import follow_generator
from edgegan.trainer.losses import discriminator_relativistic, generator_relativistic
from edgegan.trainer.recipe import Batch, Phase, Progress

# What G's last convolution draws is added to a picture that is nearly right. So much smaller, it starts near that
# picture, and a step of Adam, which moves all weights alike, moves pixels by less than what is still wrong with them.
DETAIL = 0.1

WATCHES_FROM = 2 / 3  # of the warm-up: from there on D learns
RISE = 0.1  # of the run, after the warm-up: until then what D says gains weight

Distance = Callable[[Tensor, Tensor], Tensor]  # fake, real [n, C, H, W] -> [n]


def activation(x: Tensor) -> Tensor:
    """LeakyReLU with slope 0.2."""
    return F.leaky_relu(x, 0.2)


def conv(c_in: int, c_out: int, *, stride: int = 1, gain: float = 1.0) -> nn.Conv2d:
    """A 3x3 convolution with zero padding, its weights those of He et al. 2015 times `gain`, its bias zero."""
    layer = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(layer.weight, a=0.2)
    with torch.no_grad():
        layer.weight.mul_(gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class UNetDiscriminator(nn.Module):
    """Images [n, C, H, W] -> [n, H, W] float32: a logit for each pixel, positive where it looks real.

    Papers: Schönfeld, Schiele, Khoreva 2020, "A U-Net Based Discriminator for Generative Adversarial Networks"; Wang et
    al. 2021, section 3.3. Three halvings, then back up, each level added to what comes from below it. Spectral norm
    everywhere but in the first and the last layer. H and W are at least 8; they need not be even.

    width: channels at full resolution, twice as many after each halving; the paper has 64.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.downs = nn.ModuleList(
            spectral_norm(nn.Conv2d(c_in, c_out, 4, stride=2, padding=1)) for c_in, c_out in pairwise(widths)
        )
        self.ups = nn.ModuleList(
            spectral_norm(nn.Conv2d(c_in, c_out, 3, padding=1)) for c_in, c_out in pairwise(widths[::-1])
        )
        self.mix = spectral_norm(nn.Conv2d(width, width, 3, padding=1))
        self.out = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        x = activation(self.first(images))
        skips: list[Tensor] = []
        for down in self.downs:
            skips.append(x)
            x = activation(down(x))
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            # Nearest, where the paper has bilinear: on a GPU the gradient of that is not the same in each run.
            x = activation(up(F.interpolate(x, size=skip.shape[2:], mode="nearest"))) + skip
        return self.out(activation(self.mix(x)))[:, 0].float()


def picture_logits(nets: nn.ModuleDict, images: Tensor, label: Tensor | None) -> Tensor:
    """[n]: the mean of what D says of the pixels of each of the images [n, C, H, W]; a recipe's `logits`."""
    logits: Tensor = nets["D"](images).mean((1, 2))
    return logits


def paired_phases(config: Any) -> tuple[Phase, ...]:
    """D learns to tell each pixel of a true picture from that of G's picture of the same thing, then G the opposite.

    G also learns to come near the true picture, by the mean absolute difference of pixels (L1) and, if there is a
    feature network, by its distance. During the first part of the run, the warm-up, L1 is all there is for G: it starts
    to play when its pictures are about right. D, which costs as much, has watched for the warm-up's last third by then,
    and may tell all pictures apart: so the weight of what it says rises from 0 over the next tenth of the run.
    Relativistic logits (Jolicoeur-Martineau 2018) suit pairs: what both pictures show cancels, and the difference in
    texture is left.

    config: a recipe's Config with lr, d_lr, beta1, warmup, l1_weight, perceptual_weight, adversarial_weight and
    perceptual, the name or file of a feature network ("": none). G takes batch.source, and batch.real is the truth.
    """
    perceptual = open_perceptual(config.perceptual)

    def adam(lr: float) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
        return lambda parameters: torch.optim.Adam(parameters, lr=lr, betas=(config.beta1, 0.99), fused=True)

    def d_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = nets["G"](batch.source).to(batch.real.dtype)
        real_logits, fake_logits = nets["D"](torch.cat([batch.real, fake])).chunk(2)
        return {"D": discriminator_relativistic(real_logits, fake_logits)}

    def g_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        fake = nets["G"](batch.source).float()
        terms = {"L1": (fake - batch.real).abs().mean() * config.l1_weight}
        if t.fraction < config.warmup:
            return terms
        if perceptual is not None:
            terms["perceptual"] = perceptual(fake, batch.real).mean() * config.perceptual_weight
        with torch.no_grad():
            real_logits = nets["D"](batch.real)
        risen = min(1.0, (t.fraction - config.warmup) / RISE)
        terms["G"] = generator_relativistic(real_logits, nets["D"](fake)) * config.adversarial_weight * risen
        return terms

    return (
        Phase("D", trains=("D",), loss=d_loss, optimizer=adam(config.d_lr), begins=config.warmup * WATCHES_FROM),
        Phase("G", trains=("G",), loss=g_loss, optimizer=adam(config.lr), after=follow_generator),
    )


def open_perceptual(source: str) -> Distance | None:
    """The distance in the features of the network called so, or in that file; "": None."""
    if not source:
        return None
    from edgegan.trainer.perceptual import Perceptual  # reads graphs of ONNX, which a run without it can do without

    return Perceptual.open(source)


class Bounded(nn.Module):
    """A generator whose pictures are bounded to [-1, 1], as the model file promises: source -> image."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, source: Tensor) -> Tensor:
        return self.net(source).clamp(-1, 1)
