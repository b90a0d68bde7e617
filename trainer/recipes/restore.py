"""Restore pictures of one kind, faces above all: blurred, noisy, compressed ones become sharp at the same size.

Paper: Wang, Li, Zhang, Shan 2021, "Towards Real-World Blind Face Restoration with Generative Facial Prior" (GFPGAN).
The pictures of the data are the truth, all of one kind and alike in pose; the bad ones are made of them while it
trains, as in the paper: blur, downsampling, noise and JPEG, each by a random amount. Grey or colour, 16 to 896 pixels.

G, a U-Net with a style: source [n, C, H, W] -> stride-2 convolutions down to 4 to 7 pixels a side; the mean over these
pixels -> two dense layers -> w [n, 128], which says what is the matter with the picture and what is in it. Upwards,
3x3 convolutions modulated by w (Karras et al. 2020): nearest upsampling and one of them, then another that takes the
level's features from the way down, too. A last convolution draws what is added to the source; it starts small, so that
G starts as a copy. Channels: 16 at full resolution, then 32, 64, 96, 128, times --width. For pictures of 64 pixels that
is 930,000 weights. The styles scale activations and not weights, which is the same and leaves the batch free. D: a
U-Net with spectral norm, one logit for each pixel. G takes any size whose sides halve evenly as often as those of the
data; it knows what is in pictures of that size.

What differs from the paper: the paper's decoder is a StyleGAN2 of 512 pixels, trained before on faces without end; here
all of it learns at once from your data, since there is no such prior for other kinds of pictures. The features of the
way down join the decoder's channels where the paper scales and shifts half of them (CS-SFT): the modulation can then
turn them down, one by one, in pictures whose detail is nothing but noise. No losses for eyes, mouth and identity, which
need networks that know faces. Paired relativistic logits; a warm-up with L1 alone.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from edgegan.spec import ModelSpec
from edgegan.trainer.config import option
from edgegan.trainer.degrade import GFPGAN, noise_dim
from edgegan.trainer.degrade import degrade as degraded
from edgegan.trainer.ema import EMA, averaged
from edgegan.trainer.image_nets import (
    DETAIL,
    Bounded,
    UNetDiscriminator,
    activation,
    conv,
    paired_phases,
    picture_logits,
)
from edgegan.trainer.layers import modulated_conv2d
from edgegan.trainer.levels import halvings_of, scaled
from edgegan.trainer.recipe import DataShape, Recipe

SIDES = (16, 896)  # pixels of a picture's smaller side, the least and the greatest
PAPER_SIDE = 512  # pixels of the faces that the paper's degradation is for
WIDTHS = (16, 32, 64, 96, 128, 128, 128, 128)  # channels of each level, finest first
GAIN = 2**0.5  # makes good for what LeakyReLU takes away


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. Weights are of differences of pixels in [-1, 1]."""

    kimg: float = option(1000.0, "thousands of images to show", low=0.001, high=1e9)
    batch: int = option(16, "images in a batch", low=1, high=65536)
    strength: float = option(
        0.0,
        "how much sources are damaged; 1: as the paper's faces of 512 pixels; 0: as their size bears, "
        "(smaller side / 512) ** 0.5, at most 1",
        low=0,
        high=1,
    )
    width: float = option(1.0, "factor on the channels of G", low=0.1, high=16)
    style_dim: int = option(128, "elements of the style w", low=1, high=4096)
    d_width: int = option(24, "channels of D at full resolution", low=8, high=1024)
    lr: float = option(5e-4, "Adam's learning rate for G", low=0, high=10)
    d_lr: float = option(2e-4, "Adam's learning rate for D", low=0, high=10)
    beta1: float = option(0.9, "Adam's beta1; beta2 is 0.99", low=0, high=0.999)
    warmup: float = option(0.2, "share of the run in which G learns from L1 alone", low=0, high=1)
    l1_weight: float = option(1.0, "weight of the absolute difference of pixels", low=0, high=1e6)
    perceptual_weight: float = option(1.0, "weight of the distance in a feature network", low=0, high=1e6)
    adversarial_weight: float = option(0.02, "weight of what D says", low=0, high=1e6)
    perceptual: str = option("", "feature network for the loss, its name or file; empty: none", file=True)
    ema_kimg: float = option(10.0, "half-life of G's moving average in thousands of images", low=0, high=1e6)


def complete(config: Config, shape: DataShape) -> Config:
    """The config with a strength for pictures of this size in place of 0.

    The paper's blurs are up to 10 pixels wide. A small picture would lose all it shows, but its noise is no less.
    """
    side = min(shape.height, shape.width)
    return replace(config, strength=config.strength or min(1.0, side / PAPER_SIDE) ** 0.5)


class StyledConv(nn.Module):
    """[n, c_in, h, w], w [n, style_dim] -> [n, c_out, up h, up w]: a modulated 3x3 convolution, bias, LeakyReLU."""

    def __init__(self, c_in: int, c_out: int, style_dim: int, up: int = 1) -> None:
        super().__init__()
        self.style = nn.Linear(style_dim, c_in)
        nn.init.normal_(self.style.weight, 0, style_dim**-0.5)
        nn.init.ones_(self.style.bias)
        # Of any scale, as demodulation divides by it; this one makes Adam move it as fast as other convolutions.
        self.weight = nn.Parameter(torch.randn(c_out, c_in, 3, 3) * (9 * c_in) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(c_out, 1, 1))
        self.up = up

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        y = modulated_conv2d(x, self.weight, self.style(w), up=self.up, gain=GAIN)
        return activation(y + self.bias.to(y.dtype))


class Generator(nn.Module):
    """Source [n, C, H, W] -> [n, C, H, W], about [-1, 1]; H and W are multiples of 2 ** halvings."""

    def __init__(self, config: Config, channels: int, halvings: int) -> None:
        super().__init__()
        widths = [scaled(c, config.width) for c in WIDTHS[: halvings + 1]]  # finest first
        dim = config.style_dim
        self.first = conv(channels, widths[0])
        self.downs = nn.ModuleList(conv(c_in, c_out, stride=2) for c_in, c_out in pairwise(widths))
        self.mapping = nn.ModuleList([nn.Linear(widths[-1], dim), nn.Linear(dim, dim)])
        self.start = StyledConv(widths[-1], widths[-1], dim)
        self.ups = nn.ModuleList(StyledConv(c_in, c_out, dim, up=2) for c_in, c_out in pairwise(widths[::-1]))
        self.joins = nn.ModuleList(StyledConv(2 * c, c, dim) for c in widths[-2::-1])
        self.out = conv(widths[0], channels, gain=0.1)

    def forward(self, source: Tensor) -> Tensor:
        features = [activation(self.first(source))]  # finest first
        for down in self.downs:
            features.append(activation(down(features[-1])))
        w = features[-1].mean((2, 3))
        for layer in self.mapping:
            w = activation(layer(w))
        x = self.start(features.pop(), w)
        for up, join in zip(self.ups, self.joins, strict=True):
            x = join(torch.cat([up(x, w), features.pop()], 1), w)
        return source + DETAIL * self.out(x)


def levels_below(shape: DataShape) -> int:
    """How often G halves a picture. Raises ArgumentError for sizes that do not halve."""
    return halvings_of(shape, "restore", *SIDES)


def build(config: Config, shape: DataShape) -> nn.ModuleDict:
    """G, D and the moving average of G."""
    G = Generator(config, shape.channels, levels_below(shape))
    D = UNetDiscriminator(shape.channels, config.d_width)
    return nn.ModuleDict({"G": G, "D": D, "G_ema": EMA(G, config.ema_kimg * 1000)})


def degrade(config: Config, real: Tensor, z: Tensor) -> Tensor:
    """True pictures [n, C, H, W] -> sources of that size, each by the chances that its row of z [n, dim] holds."""
    return degraded(real, z, GFPGAN(config.strength))


def degrade_noise(config: Config, shape: DataShape) -> int:
    """Elements of z that `degrade` takes for a picture."""
    return noise_dim(GFPGAN(config.strength), shape.channels, shape.height, shape.width)


def export_module(nets: nn.ModuleDict) -> nn.Module:
    """The generator that users get."""
    return Bounded(averaged(nets).net)


def spec(config: Config, shape: DataShape) -> ModelSpec:
    """What the exported model says about itself."""
    return ModelSpec(
        recipe="restore",
        task="translate",
        image_size=(shape.height, shape.width),
        channels=shape.channels,
        latent_dim=None,
        size_multiple=2 ** levels_below(shape),
    )


RECIPE = Recipe(
    "restore",
    Config,
    build,
    paired_phases,
    export_module,
    spec,
    picture_logits,
    compiles=("G",),
    complete=complete,
    degrade=degrade,
    degrade_noise=degrade_noise,
)
