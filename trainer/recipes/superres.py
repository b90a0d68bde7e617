"""Super-resolution: a small picture becomes one of 2 to 4 times its side, with detail that looks real.

Papers: Ledig et al. 2017, "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network"
(SRGAN); Wang, Xie, Dong, Shan 2021, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data".
The pictures of the data are the truth; the small ones are made of them while it trains. Grey or colour, any size.

G: source [n, C, h, w] -> 3x3 convolution to 48 channels -> 4 residual blocks, a 3x3 convolution, the first one's output
added -> 3x3 convolution to C channels for each of the scale x scale pixels that a pixel becomes. That is added to the
source, upsampled bilinearly, and starts small: G starts as a plain upsampling. No normalisation, LeakyReLU(0.2), all
convolutions at low resolution: 190,000 weights and as many multiplications for each pixel of the source, and all of it
stays fast in onnxruntime. D: a U-Net with spectral norm, one logit for each pixel. It stays at home.

--degradation says what the small pictures are like. real: blurred, resized, noisy, compressed, each twice, by random
amounts, so that G learns to undo that too (Real-ESRGAN); for pictures of cameras and the web. clean: made smaller by a
bicubic filter and nothing else; for pictures that are good but small.

What differs from the papers: a G for processors (SRGAN's has 1.5 million weights, Real-ESRGAN's 17); paired
relativistic logits; a feature network (--perceptual) only if you have one; D trains in the last third of the
warm-up, too.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from edgegan.errors import ArgumentError
from edgegan.spec import ModelSpec
from edgegan.trainer.config import option
from edgegan.trainer.degrade import CLEAN, REAL_ESRGAN, Degradation, noise_dim
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
from edgegan.trainer.recipe import DataShape, Recipe

LEAST = 16  # pixels of a true picture's smaller side


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. Weights are of differences of pixels in [-1, 1]."""

    kimg: float = option(500.0, "thousands of images to show", low=0.001, high=1e9)
    batch: int = option(16, "images in a batch", low=1, high=65536)
    scale: int = option(2, "the result's side over the source's", low=2, high=4)
    degradation: str = option("real", "how the small pictures are made", choices=("real", "clean"))
    strength: float = option(1.0, "how much `real` damages; 1: as in the paper, 0: as `clean`", low=0, high=1)
    width: int = option(48, "channels of G", low=8, high=1024)
    blocks: int = option(4, "residual blocks of G", low=1, high=64)
    d_width: int = option(24, "channels of D at full resolution", low=8, high=1024)
    lr: float = option(5e-4, "Adam's learning rate for G", low=0, high=10)
    d_lr: float = option(2e-4, "Adam's learning rate for D", low=0, high=10)
    beta1: float = option(0.9, "Adam's beta1; beta2 is 0.99", low=0, high=0.999)
    warmup: float = option(0.3, "share of the run in which G learns from L1 alone", low=0, high=1)
    l1_weight: float = option(1.0, "weight of the absolute difference of pixels", low=0, high=1e6)
    perceptual_weight: float = option(1.0, "weight of the distance in a feature network", low=0, high=1e6)
    adversarial_weight: float = option(0.1, "weight of what D says", low=0, high=1e6)
    perceptual: str = option("", "feature network for the loss, its name or file; empty: none", file=True)
    ema_kimg: float = option(10.0, "half-life of G's moving average in thousands of images", low=0, high=1e6)


class Block(nn.Module):
    """[n, c, h, w] -> the same shape: x + conv(act(conv(x))), the second convolution started small (EDSR, SRGAN)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(width, width), conv(width, width, gain=0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(activation(self.conv1(x)))


class Generator(nn.Module):
    """Source [n, C, h, w] -> [n, C, scale * h, scale * w], about [-1, 1]."""

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        self.scale = config.scale
        self.first = conv(channels, config.width)
        self.blocks = nn.Sequential(*(Block(config.width) for _ in range(config.blocks)))
        self.last = conv(config.width, config.width)
        self.out = conv(config.width, channels * config.scale**2, gain=0.1)

    def forward(self, source: Tensor) -> Tensor:
        x = activation(self.first(source))
        x = activation(x + self.last(self.blocks(x)))
        plain = F.interpolate(source, scale_factor=float(self.scale), mode="bilinear")
        return plain + F.pixel_shuffle(DETAIL * self.out(x), self.scale)


def source_size(config: Config, shape: DataShape) -> tuple[int, int]:
    """(h, w) of the small pictures. Raises ArgumentError for pictures that have none."""
    size, smaller = f"{shape.width}x{shape.height}", min(shape.height, shape.width)
    if smaller < LEAST:
        raise ArgumentError(
            f"recipe superres cannot learn from pictures of {size}: both sides must be at least {LEAST}; pass "
            "--resolution 64, say"
        )
    if shape.height % config.scale or shape.width % config.scale:
        raise ArgumentError(
            f"recipe superres cannot learn from pictures of {size} at scale {config.scale}: both sides must be "
            f"multiples of it; pass --resolution {-(-smaller // config.scale) * config.scale}, say"
        )
    return shape.height // config.scale, shape.width // config.scale


def build(config: Config, shape: DataShape) -> nn.ModuleDict:
    """G, D and the moving average of G."""
    source_size(config, shape)
    G, D = Generator(config, shape.channels), UNetDiscriminator(shape.channels, config.d_width)
    return nn.ModuleDict({"G": G, "D": D, "G_ema": EMA(G, config.ema_kimg * 1000)})


def damage(config: Config) -> Degradation:
    """What makes small pictures of true ones."""
    return CLEAN(config.scale) if config.degradation == "clean" else REAL_ESRGAN(config.scale, config.strength)


def degrade(config: Config, real: Tensor, z: Tensor) -> Tensor:
    """True pictures [n, C, H, W] -> sources [n, C, h, w], each by the chances that its row of z [n, dim] holds."""
    return degraded(real, z, damage(config))


def degrade_noise(config: Config, shape: DataShape) -> int:
    """Elements of z that `degrade` takes for a picture."""
    return noise_dim(damage(config), shape.channels, shape.height, shape.width)


def export_module(nets: nn.ModuleDict) -> nn.Module:
    """The generator that users get."""
    return Bounded(averaged(nets).net)


def spec(config: Config, shape: DataShape) -> ModelSpec:
    """What the exported model says about itself."""
    return ModelSpec(
        recipe="superres",
        task="translate",
        image_size=source_size(config, shape),
        channels=shape.channels,
        latent_dim=None,
        scale=config.scale,
    )


RECIPE = Recipe(
    "superres",
    Config,
    build,
    paired_phases,
    export_module,
    spec,
    picture_logits,
    compiles=("G",),
    degrade=degrade,
    degrade_noise=degrade_noise,
)
