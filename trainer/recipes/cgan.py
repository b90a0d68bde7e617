"""A conditional GAN: ask for a class and it draws that class.

Papers: Mirza, Osindero 2014, "Conditional Generative Adversarial Nets"; Miyato, Koyama 2018, "cGANs with Projection
Discriminator"; Miyato, Kataoka, Koyama, Yoshida 2018, "Spectral Normalization for Generative Adversarial Networks". The
data must have classes, sub-folders for one. Grey or colour, 28 to 128 pixels a side.

G: z [n, 64] and the class's embedding [n, 32] -> dense to the coarsest level, 4 to 7 pixels a side -> at each level
nearest upsampling by two and a 3x3 convolution, batch norm and ReLU before it -> 3x3 convolution to C channels, tanh.
All its operators stay fast in onnxruntime, and batch norm, but for the first, becomes part of a convolution when the
model is exported. D: 4x4 stride-2 convolutions down to that level, two 3x3 ones there, LeakyReLU(0.2), a sum over the
pixels [n, F], one logit. Each layer of D has spectral norm, but for the planes of `concat`. Loss: hinge.

--condition says how D learns of the class. projection: the features' product with the class's embedding [n, F] is added
to the logit. concat: an embedding of the class, as large as a picture, is one more channel of it.

What differs from the papers: the class enters G once, beside z, and not in each batch norm; plain convolutions for
residual blocks; one step of D for each of G, with a learning rate of its own (Heusel et al. 2017); an exponential
moving average of G draws the pictures; --pack joins pictures for D (PacGAN, Lin et al. 2018).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from edgegan.errors import ArgumentError
from edgegan.spec import ModelSpec
from edgegan.trainer.config import option
from edgegan.trainer.ema import EMA, averaged, follow_generator
from edgegan.trainer.layers import BatchNorm, check_pack, pack, packs_of_each
from edgegan.trainer.levels import halvings_of, scaled
from edgegan.trainer.losses import discriminator_hinge, generator_hinge
from edgegan.trainer.recipe import Batch, DataShape, Phase, Progress, Recipe

SIDES = (28, 128)  # pixels of a picture's smaller side, the least and the greatest
G_WIDTHS = (32, 64, 128, 128, 128, 128)  # channels of each level, finest first
D_WIDTHS = (64, 128, 128, 128, 128)  # channels after each halving, finest first


@dataclass(frozen=True)
class Config:
    """Hyper-parameters."""

    kimg: float = option(1000.0, "thousands of images to show", low=0.001, high=1e9)
    batch: int = option(64, "images in a batch, 2 at least: batch norm compares pictures", low=2, high=65536)
    latent_dim: int = option(64, "elements of z", low=1, high=65536)
    embedding: int = option(32, "elements of a class's embedding in G", low=1, high=4096)
    condition: str = option("projection", "how D learns of the class", choices=("projection", "concat"))
    width: float = option(1.0, "factor on the channels of both nets", low=0.1, high=16)
    lr: float = option(2e-4, "Adam's learning rate for G", low=0, high=10)
    d_lr: float = option(4e-4, "Adam's learning rate for D", low=0, high=10)
    beta1: float = option(0.0, "Adam's beta1; beta2 is 0.9", low=0, high=0.999)
    pack: int = option(1, "pictures that D judges together, against collapse; 1: each by itself", low=1, high=16)
    ema_kimg: float = option(20.0, "half-life of G's moving average in thousands of images", low=0, high=1e6)


class Generator(nn.Module):
    """z [n, latent_dim] and label [n] -> [n, C, H, W] in [-1, 1]."""

    def __init__(self, config: Config, shape: DataShape, halvings: int) -> None:
        super().__init__()
        widths = [scaled(c, config.width) for c in G_WIDTHS[halvings::-1]]  # coarsest first
        self.coarsest = (widths[0], shape.height >> halvings, shape.width >> halvings)
        self.embed = nn.Embedding(len(shape.classes), config.embedding)
        self.dense = nn.Linear(config.latent_dim + config.embedding, math.prod(self.coarsest))
        self.norms = nn.ModuleList(map(BatchNorm, widths))
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False)  # batch norm takes a bias away again
            for before, after in pairwise(widths)
        )
        self.out = nn.Conv2d(widths[-1], shape.channels, 3, padding=1)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        x = self.dense(torch.cat([z, self.embed(label)], dim=1)).view(-1, *self.coarsest)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = conv(F.interpolate(F.relu(norm(x)), scale_factor=2, mode="nearest"))
        return torch.tanh(self.out(F.relu(self.norms[-1](x))))


class Discriminator(nn.Module):
    """Images [n, C, H, W] and label [n] -> logits [n / pack]: positive means real, and of that class."""

    places: Tensor  # [pack]: where the embeddings of each place in a pack begin

    def __init__(self, config: Config, shape: DataShape, halvings: int) -> None:
        super().__init__()
        self.pack, self.condition, classes = config.pack, config.condition, len(shape.classes)
        channels = shape.channels
        if self.condition == "concat":
            self.planes = nn.Embedding(classes, shape.height * shape.width)
            channels += 1
        widths = [scaled(c, config.width) for c in D_WIDTHS[:halvings]]
        layers: list[nn.Module] = []
        for before, after in pairwise([channels * config.pack, *widths]):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        for _ in range(2):
            layers += [spectral_norm(nn.Conv2d(widths[-1], widths[-1], 3, padding=1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.out = spectral_norm(nn.Linear(widths[-1], 1))
        if self.condition == "projection":  # in a pack each place has embeddings of its own, and they add up
            self.embed = spectral_norm(nn.Embedding(classes * config.pack, widths[-1]))
            self.register_buffer("places", torch.arange(config.pack) * classes, persistent=False)

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        if self.condition == "concat":
            planes = self.planes(label).view(-1, 1, *images.shape[2:])
            images = torch.cat([images, planes.to(images.dtype)], dim=1)
        features = self.layers(pack(images, self.pack)).sum((2, 3))
        logits = self.out(features)[:, 0].float()  # the loss is float32 under autocast too
        if self.condition == "projection":
            asked = self.embed(label.view(-1, self.pack) + self.places).sum(1)
            logits = logits + (features.float() * asked).sum(1)
        return logits


def checked(config: Config, shape: DataShape) -> Config:
    """The config, if the batch takes packs of that size."""
    check_pack(config.batch, config.pack)
    return config


def build(config: Config, shape: DataShape) -> nn.ModuleDict:
    """G, D and the moving average of G."""
    if not shape.classes:
        raise ArgumentError(
            "recipe cgan draws the class that is asked for, but the data has no classes: sort the pictures into "
            "sub-folders, one for each class, or take recipe edge or dcgan"
        )
    halvings = halvings_of(shape, "cgan", *SIDES)
    G, D = Generator(config, shape, halvings), Discriminator(config, shape, halvings)
    return nn.ModuleDict({"G": G, "D": D, "G_ema": EMA(G, config.ema_kimg * 1000)})


def phases(config: Config) -> tuple[Phase, ...]:
    """D learns to tell real pictures from fakes of the same classes, then G to pass for real."""

    def adam(lr: float) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
        return lambda parameters: torch.optim.Adam(parameters, lr=lr, betas=(config.beta1, 0.9), fused=True)

    def d_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        assert batch.label is not None
        with torch.no_grad():
            fake = nets["G"](batch.z, batch.label).to(batch.real.dtype)
        # One pass over both halves: without batch norm they do not mix, and fewer, larger convolutions are faster.
        real_logits, fake_logits = nets["D"](torch.cat([batch.real, fake]), batch.label.repeat(2)).chunk(2)
        return {"D": discriminator_hinge(real_logits, fake_logits)}

    def g_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        return {"G": generator_hinge(nets["D"](nets["G"](batch.z, batch.label), batch.label))}

    return (
        Phase("D", trains=("D",), loss=d_loss, optimizer=adam(config.d_lr)),
        Phase("G", trains=("G",), loss=g_loss, optimizer=adam(config.lr), after=follow_generator),
    )


def export_module(nets: nn.ModuleDict) -> nn.Module:
    """The generator that users get."""
    return averaged(nets).net


def spec(config: Config, shape: DataShape) -> ModelSpec:
    """What the exported model says about itself."""
    return ModelSpec(
        recipe="cgan",
        image_size=(shape.height, shape.width),
        channels=shape.channels,
        latent_dim=config.latent_dim,
        classes=shape.classes,
    )


def logits(nets: nn.ModuleDict, images: Tensor, label: Tensor | None) -> Tensor:
    """[n]: what D says of images of these classes; of each with those that follow it, if it judges packs."""
    D = nets["D"]
    assert isinstance(D, Discriminator)
    assert label is not None
    packs = packs_of_each(len(images), D.pack, images.device)
    return D(images[packs], label[packs])


RECIPE = Recipe("cgan", Config, build, phases, export_module, spec, logits, compiles=("G",), complete=checked)
