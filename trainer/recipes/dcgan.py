"""DCGAN for 28x28 pictures, the nets that the well-known MNIST tutorial teaches.

Paper: Radford, Metz, Chintala 2016, "Unsupervised Representation Learning with Deep Convolutional GANs".
Nets: the TensorFlow tutorial's. G: z [n, 100] -> dense 7x7x256 -> 5x5 transposed convolutions to 128 (stride 1),
64 (stride 2), C (stride 2), tanh. D: 5x5 stride-2 convolutions to 64 and 128, dropout 0.3, one logit.

What differs from the paper: 5x5 kernels, LeakyReLU(0.3) in G too, dropout instead of batch norm in D, beta1 0.9.
What differs from the tutorial: an exponential moving average of G draws the pictures; every batch holds as much
noise as images; D learns before G and both draw fresh noise, where the tutorial takes one batch of noise for both at
once; seed and position are part of the run.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgegan.errors import ArgumentError
from edgegan.spec import ModelSpec
from edgegan.trainer.config import option
from edgegan.trainer.ema import EMA, averaged
from edgegan.trainer.losses import discriminator_bce, generator_nonsaturating
from edgegan.trainer.recipe import Batch, DataShape, Phase, Progress, Recipe

NORM_EPS, NORM_MOMENTUM = 1e-3, 0.01  # Keras' defaults, which the tutorial uses; torch's momentum is 1 - Keras'


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; the defaults are the tutorial's."""

    kimg: float = option(3000.0, "thousands of images to show; the tutorial's 50 epochs", low=0.001, high=1e9)
    batch: int = option(256, "images in a batch", low=2, high=65536)
    latent_dim: int = option(100, "elements of z", low=1, high=65536)
    lr: float = option(1e-4, "Adam's learning rate, for both nets", low=0, high=10)
    beta1: float = option(0.9, "Adam's beta1; the paper's is 0.5", low=0, high=0.999)
    dropout: float = option(0.3, "share of D's features dropped", low=0, high=0.95)
    ema_kimg: float = option(10.0, "half-life of G's moving average in thousands of images", low=0, high=1e6)


class Generator(nn.Module):
    """z [n, latent_dim] -> [n, C, 28, 28] in [-1, 1]."""

    def __init__(self, latent_dim: int, channels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(latent_dim, 256 * 7 * 7, bias=False)
        self.norm0 = nn.BatchNorm1d(256 * 7 * 7, eps=NORM_EPS, momentum=NORM_MOMENTUM)
        self.conv1 = nn.ConvTranspose2d(256, 128, 5, stride=1, padding=2, bias=False)
        self.norm1 = nn.BatchNorm2d(128, eps=NORM_EPS, momentum=NORM_MOMENTUM)
        self.conv2 = nn.ConvTranspose2d(128, 64, 5, stride=2, padding=2, output_padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(64, eps=NORM_EPS, momentum=NORM_MOMENTUM)
        self.conv3 = nn.ConvTranspose2d(64, channels, 5, stride=2, padding=2, output_padding=1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        x = F.leaky_relu(self.norm0(self.dense(z)), 0.3).view(-1, 256, 7, 7)
        x = F.leaky_relu(self.norm1(self.conv1(x)), 0.3)  # [n, 128, 7, 7]
        x = F.leaky_relu(self.norm2(self.conv2(x)), 0.3)  # [n, 64, 14, 14]
        return torch.tanh(self.conv3(x))


class Discriminator(nn.Module):
    """Image [n, C, 28, 28] -> logit [n]: positive means real."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(64, 128, 5, stride=2, padding=2)
        self.dense = nn.Linear(128 * 7 * 7, 1)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(F.leaky_relu(self.conv1(x), 0.3), self.dropout, self.training)
        x = F.dropout(F.leaky_relu(self.conv2(x), 0.3), self.dropout, self.training)
        return self.dense(x.flatten(1)).squeeze(1).float()  # the loss is float32 under autocast too


def init_glorot(net: nn.Module) -> None:
    """The tutorial's initialisation, Keras' default: Glorot uniform, zero biases."""
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build(config: Config, shape: DataShape) -> nn.ModuleDict:
    """G, D and the moving average of G."""
    if (shape.height, shape.width) != (28, 28):
        raise ArgumentError(
            f"recipe dcgan draws 28x28 pictures, but the data has {shape.width}x{shape.height}: pass --resolution 28"
        )
    G = Generator(config.latent_dim, shape.channels)
    D = Discriminator(shape.channels, config.dropout)
    init_glorot(G)
    init_glorot(D)
    return nn.ModuleDict({"G": G, "D": D, "G_ema": EMA(G, config.ema_kimg * 1000)})


def phases(config: Config) -> tuple[Phase, ...]:
    """D learns to tell real from fake, then G to pass for real."""

    def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=config.lr, betas=(config.beta1, 0.999), eps=1e-7)

    def d_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = nets["G"](batch.z)
        return {"D": discriminator_bce(nets["D"](batch.real), nets["D"](fake))}

    def g_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        return {"G": generator_nonsaturating(nets["D"](nets["G"](batch.z)))}

    def average(nets: nn.ModuleDict, batch: Batch, t: Progress) -> None:
        averaged(nets).update(nets["G"], t.nimg, t.batch)

    return (
        Phase("D", trains=("D",), loss=d_loss, optimizer=adam),
        Phase("G", trains=("G",), loss=g_loss, optimizer=adam, after=average),
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


RECIPE = Recipe("dcgan", Config, build, phases, export_module, spec)
