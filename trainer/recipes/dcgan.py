"""DCGAN: the nets of the paper for pictures of 32, 64 and 128 pixels, those of a well-known tutorial for 28.

Paper: Radford, Metz, Chintala 2016, "Unsupervised Representation Learning with Deep Convolutional GANs".
The size of the pictures chooses the nets, and with them the defaults of batch, lr, beta1. Grey or colour, no classes.

32x32, 64x64, 128x128, the paper's. G: z [n, 100] -> 4x4 transposed convolutions: to 4x4 pixels with 8 channels for each
pixel of the picture's side, then stride 2, half as many channels and twice the pixels a layer, to C, tanh; batch norm
and ReLU between them. D: 4x4 stride-2 convolutions, C -> 64, then twice as many channels a layer, down to 4x4 pixels;
a last one to one logit; batch norm (but for the first and the last) and LeakyReLU(0.2) between. Weights N(0, 0.02).

28x28, those of TensorFlow's tutorial on MNIST. G: z [n, 100] -> dense 7x7x256 -> 5x5 transposed convolutions to 128
(stride 1), 64 (stride 2), C (stride 2), tanh. D: 5x5 stride-2 convolutions to 64 and 128, dropout 0.3, one logit.
LeakyReLU(0.3) in both, no batch norm in D.

What differs from the paper: half its channels, 64 at the full resolution's half, as all public code has it; 4x4 kernels
for its 5x5. What differs from the tutorial: every batch holds as much noise as images. What differs from both: an
exponential moving average of G draws the pictures; D learns before G and both draw fresh noise; Adam's epsilon is the
tutorial's; seed and position are part of the run; --pack joins pictures for D (PacGAN, Lin et al. 2018).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgegan.errors import ArgumentError
from edgegan.spec import ModelSpec
from edgegan.trainer.config import option
from edgegan.trainer.ema import EMA, averaged, follow_generator
from edgegan.trainer.layers import BatchNorm, Dropout, check_pack, pack, packs_of_each
from edgegan.trainer.losses import discriminator_bce, generator_nonsaturating
from edgegan.trainer.recipe import Batch, DataShape, Phase, Progress, Recipe

TUTORIAL_SIDE, PAPER_SIDES = 28, (32, 64, 128)  # pixels
TUTORIAL: dict[str, Any] = {"batch": 256, "lr": 1e-4, "beta1": 0.9}  # what is published with each of the nets
PAPER: dict[str, Any] = {"batch": 128, "lr": 2e-4, "beta1": 0.5}
WIDTH = 64  # channels of the paper's nets at half the picture's resolution
NORM_EPS, NORM_MOMENTUM = 1e-3, 0.01  # Keras' defaults, which the tutorial uses; torch's momentum is 1 - Keras'


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. An option that is 0 has the value that was published with the nets: see `published`."""

    kimg: float = option(3000.0, "thousands of images to show", low=0.001, high=1e9)
    batch: int = option(0, "images in a batch; 0: as published, 256 for 28x28, else 128", low=0, high=65536)
    latent_dim: int = option(100, "elements of z", low=1, high=65536)
    lr: float = option(0.0, "Adam's learning rate; 0: as published, 1e-4 for 28x28, else 2e-4", low=0, high=10)
    beta1: float = option(0.0, "Adam's beta1; 0: as published, 0.9 for 28x28, else 0.5", low=0, high=0.999)
    dropout: float = option(0.3, "share of D's features dropped, for 28x28 only", low=0, high=0.95)
    pack: int = option(1, "pictures that D judges together, against collapse; 1: each by itself", low=1, high=16)
    ema_kimg: float = option(10.0, "half-life of G's moving average in thousands of images", low=0, high=1e6)


def published(config: Config, shape: DataShape) -> Config:
    """The config with what was published for nets of this shape in place of 0."""
    if config.batch == 1:
        raise ArgumentError("batch is 1; valid for recipe dcgan: 0, or 2 and more: batch norm compares pictures")
    values = TUTORIAL if shape.height == TUTORIAL_SIDE else PAPER
    config = replace(config, **{name: getattr(config, name) or value for name, value in values.items()})
    check_pack(config.batch, config.pack)
    return config


class PaperGenerator(nn.Sequential):
    """z [n, latent_dim] -> [n, C, side, side] in [-1, 1]."""

    def __init__(self, latent_dim: int, channels: int, side: int) -> None:
        widths = widths_of(side)[::-1]
        layers: list[nn.Module] = [
            nn.Unflatten(1, (latent_dim, 1, 1)),
            nn.ConvTranspose2d(latent_dim, widths[0], 4, bias=False),
        ]
        for before, after in pairwise([*widths, channels]):
            layers += [BatchNorm(before), nn.ReLU(inplace=True)]
            layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)]
        super().__init__(*layers, nn.Tanh())


class PaperDiscriminator(nn.Module):
    """Image [n, C, side, side] -> logit [n / pack]: positive means real."""

    def __init__(self, channels: int, side: int, pack: int = 1) -> None:
        super().__init__()
        self.pack = pack
        widths = widths_of(side)
        layers: list[nn.Module] = [nn.Conv2d(channels * pack, WIDTH, 4, stride=2, padding=1, bias=False)]
        for before, after in pairwise(widths):
            layers += [nn.LeakyReLU(0.2, inplace=True)]
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False), BatchNorm(after)]
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(widths[-1], 1, 4, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(pack(x, self.pack)).flatten().float()  # the loss is float32 under autocast too


def widths_of(side: int) -> list[int]:
    """Channels at half of a picture's side, a quarter, ... down to 4 pixels."""
    return [WIDTH * side // (2 * pixels) for pixels in (side >> k for k in range(1, 9)) if pixels >= 4]


class TutorialGenerator(nn.Module):
    """z [n, latent_dim] -> [n, C, 28, 28] in [-1, 1]."""

    def __init__(self, latent_dim: int, channels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(latent_dim, 256 * 7 * 7, bias=False)
        self.norm0 = BatchNorm(256 * 7 * 7, eps=NORM_EPS, momentum=NORM_MOMENTUM)
        self.conv1 = nn.ConvTranspose2d(256, 128, 5, stride=1, padding=2, bias=False)
        self.norm1 = BatchNorm(128, eps=NORM_EPS, momentum=NORM_MOMENTUM)
        self.conv2 = nn.ConvTranspose2d(128, 64, 5, stride=2, padding=2, output_padding=1, bias=False)
        self.norm2 = BatchNorm(64, eps=NORM_EPS, momentum=NORM_MOMENTUM)
        self.conv3 = nn.ConvTranspose2d(64, channels, 5, stride=2, padding=2, output_padding=1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        x = F.leaky_relu(self.norm0(self.dense(z)), 0.3).view(-1, 7, 7, 256).permute(0, 3, 1, 2)
        x = F.leaky_relu(self.norm1(self.conv1(x)), 0.3)  # [n, 128, 7, 7]
        x = F.leaky_relu(self.norm2(self.conv2(x)), 0.3)  # [n, 64, 14, 14]
        return torch.tanh(self.conv3(x))


class TutorialDiscriminator(nn.Module):
    """Image [n, C, 28, 28] -> logit [n / pack]: positive means real."""

    def __init__(self, channels: int, dropout: float, pack: int = 1) -> None:
        super().__init__()
        self.pack = pack
        self.conv1 = nn.Conv2d(channels * pack, 64, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(64, 128, 5, stride=2, padding=2)
        self.dense = nn.Linear(128 * 7 * 7, 1)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(F.leaky_relu(self.conv1(pack(x, self.pack)), 0.3))
        x = self.dropout(F.leaky_relu(self.conv2(x), 0.3))
        x = x.permute(0, 2, 3, 1).flatten(1)  # in the tutorial's order, the channels last
        return self.dense(x).squeeze(1).float()  # the loss is float32 under autocast too


@torch.no_grad()
def init_normal(net: nn.Module) -> None:
    """The paper's initialisation: N(0, 0.02), and N(1, 0.02) for batch norm's scales, as its authors' code has it."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | BatchNorm):
            nn.init.normal_(module.weight, float(isinstance(module, BatchNorm)), 0.02)


def init_glorot(net: nn.Module) -> None:
    """The tutorial's initialisation, Keras' default: Glorot uniform, zero biases."""
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build(config: Config, shape: DataShape) -> nn.ModuleDict:
    """G, D and the moving average of G."""
    side, channels = shape.height, shape.channels
    if shape.width != side or side not in (TUTORIAL_SIDE, *PAPER_SIDES):
        raise ArgumentError(
            f"recipe dcgan draws pictures of 28x28, 32x32, 64x64 or 128x128, but the data has {shape.width}x{side}: "
            "pass --resolution 28, 32, 64 or 128"
        )
    G: nn.Module
    D: nn.Module
    if side == TUTORIAL_SIDE:
        G, D, init = (
            TutorialGenerator(config.latent_dim, channels),
            TutorialDiscriminator(channels, config.dropout, config.pack),
            init_glorot,
        )
    else:
        G, D, init = (
            PaperGenerator(config.latent_dim, channels, side),
            PaperDiscriminator(channels, side, config.pack),
            init_normal,
        )
    init(G)
    init(D)
    return nn.ModuleDict({"G": G, "D": D, "G_ema": EMA(G, config.ema_kimg * 1000)})


def phases(config: Config) -> tuple[Phase, ...]:
    """D learns to tell real from fake, then G to pass for real."""

    def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=config.lr, betas=(config.beta1, 0.999), eps=1e-7, fused=True)

    def d_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = nets["G"](batch.z)
        return {"D": discriminator_bce(nets["D"](batch.real), nets["D"](fake))}

    def g_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        return {"G": generator_nonsaturating(nets["D"](nets["G"](batch.z)))}

    return (
        Phase("D", trains=("D",), loss=d_loss, optimizer=adam),
        Phase("G", trains=("G",), loss=g_loss, optimizer=adam, after=follow_generator),
    )


def export_module(nets: nn.ModuleDict) -> nn.Module:
    """The generator that users get."""
    return averaged(nets).net


def spec(config: Config, shape: DataShape) -> ModelSpec:
    """What the exported model says about itself."""
    return ModelSpec(
        recipe="dcgan",
        image_size=(shape.height, shape.width),
        channels=shape.channels,
        latent_dim=config.latent_dim,
    )


def logits(nets: nn.ModuleDict, images: Tensor, label: Tensor | None) -> Tensor:
    """[n]: what D says of images, without classes; of each with those that follow it, if it judges packs."""
    D = nets["D"]
    assert isinstance(D, PaperDiscriminator | TutorialDiscriminator)
    return D(images[packs_of_each(len(images), D.pack, images.device)])


RECIPE = Recipe("dcgan", Config, build, phases, export_module, spec, logits, compiles=("G", "D"), complete=published)
