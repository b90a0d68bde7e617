"""Small generators for small devices: residual blocks without normalisation, a relativistic loss, two penalties.

Paper of the loss: Huang, Gokaslan, Kuleshov, Tompkin 2024, "The GAN is dead; long live the GAN! A Modern GAN Baseline"
(R3GAN). The pairing is Jolicoeur-Martineau's (2018), the penalties on real and fake pictures are R1 and R2 of Mescheder
et al. 2018. Class conditioning of D: one logit for each class, that of the asked-for class counts.

G: z [n, 64] and the class's embedding [n, 16] -> dense to the coarsest level, 4 to 7 pixels a side -> two residual
blocks at each level, one at half the picture's resolution; between levels a 1x1 convolution, then nearest upsampling by
two -> a last 3x3 convolution whose channels become 2x2 pixels each. Nothing is computed at full resolution, where a
channel costs most, and all of it stays fast in onnxruntime. D has twice G's work and more: it stays at home. It halves
the picture with stride-2 convolutions, a residual block at each level. Any size of 8 to 448 pixels whose sides halve
evenly down to the coarsest level; with or without classes; grey or colour.

What differs from the paper: nets of a few hundred thousand parameters, plain residual blocks, no schedule but the
learning rate's, no tanh and no bound on G while it trains.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgegan.spec import ModelSpec
from edgegan.trainer.config import option
from edgegan.trainer.ema import EMA, averaged, follow_generator
from edgegan.trainer.levels import halvings_of, scaled
from edgegan.trainer.losses import discriminator_relativistic, generator_relativistic, squared_gradient_norm
from edgegan.trainer.recipe import Batch, DataShape, Phase, Progress, Recipe

SIDES = (8, 448)  # pixels of a picture's smaller side, the least and the greatest
G_WIDTHS = (16, 48, 64, 96, 128, 128)  # channels of each level, that of half the picture's resolution first
D_WIDTHS = (32, 64, 96, 128, 128, 128)  # channels after each halving, finest first


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. A gamma of 0 follows from the pictures: see `completed`."""

    kimg: float = option(1000.0, "thousands of images to show", low=0.001, high=1e9)
    batch: int = option(16, "images in a batch", low=1, high=65536)
    latent_dim: int = option(64, "elements of z", low=1, high=65536)
    embedding: int = option(16, "elements of a class's embedding", low=1, high=4096)
    width: float = option(1.0, "factor on the channels of both nets", low=0.1, high=16)
    lr: float = option(7e-4, "Adam's learning rate at the start, for both nets", low=0, high=10)
    final_lr: float = option(3.5e-5, "the learning rate at the end; it falls along a cosine", low=0, high=10)
    beta2: float = option(0.95, "Adam's beta2; beta1 is 0", low=0, high=0.99999)
    gamma: float = option(
        0.0,
        "weight of the gradient penalties R1 and R2; 0: 2 / 784 x pixels x channels, which is 2 for 28x28 in grey",
        low=0,
        high=1e6,
    )
    ema_kimg: float = option(20.0, "half-life of G's moving average in thousands of images", low=0, high=1e6)


def completed(config: Config, shape: DataShape) -> Config:
    """The config with gamma in proportion to the numbers that make up a picture.

    The penalty weighs squared changes of D's logit per squared distance of pictures, and such distances grow with the
    pictures. With the gamma of small grey ones, D tells all fakes among large ones in colour.
    """
    return replace(config, gamma=config.gamma or 2 * shape.channels * shape.height * shape.width / 28**2)


def activation(x: Tensor) -> Tensor:
    """LeakyReLU with slope 0.2."""
    return F.leaky_relu(x, 0.2)


def he_init(layer: nn.Conv2d, gain: float = 1.0) -> nn.Conv2d:
    """He et al. 2015, times `gain`; zero bias."""
    nn.init.kaiming_normal_(layer.weight, a=0.2)
    with torch.no_grad():
        layer.weight.mul_(gain)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


class ResidualBlock(nn.Module):
    """[n, c_in, h, w] -> [n, c_out, h, w]: skip + conv(act(conv(act(x)))), the last convolution started small."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = he_init(nn.Conv2d(c_in, c_out, 3, padding=1))
        self.conv2 = he_init(nn.Conv2d(c_out, c_out, 3, padding=1), gain=0.25)
        self.skip = nn.Identity() if c_in == c_out else he_init(nn.Conv2d(c_in, c_out, 1, bias=False), gain=0.7)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.conv2(activation(self.conv1(activation(x))))


class Generator(nn.Module):
    """z [n, latent_dim] (and label [n]) -> [n, C, H, W], about [-1, 1]."""

    def __init__(self, config: Config, shape: DataShape, halvings: int) -> None:
        super().__init__()
        coarsest_first = [max(G_WIDTHS[1], G_WIDTHS[halvings - 1]), *G_WIDTHS[: halvings - 1][::-1]]
        widths = [scaled(channels, config.width) for channels in coarsest_first]
        self.coarsest = (scaled(widths[0], 2 / 3), shape.height >> halvings, shape.width >> halvings)
        inputs = config.latent_dim
        if shape.classes:
            self.embed = nn.Embedding(len(shape.classes), config.embedding)
            inputs += config.embedding
        self.dense = nn.Linear(inputs, math.prod(self.coarsest))
        nn.init.normal_(self.dense.weight, 0, inputs**-0.5)
        nn.init.zeros_(self.dense.bias)
        levels: list[nn.Module] = []
        before = self.coarsest[0]
        for level, width in enumerate(widths):
            if level > 0:  # the 1x1 convolution before the upsampling: the same numbers for a quarter of the work
                levels += [he_init(nn.Conv2d(before, width, 1)), nn.Upsample(scale_factor=2, mode="nearest")]
                before = width
            for _ in range(1 if 0 < level == len(widths) - 1 else 2):
                levels.append(ResidualBlock(before, width))
                before = width
        self.levels = nn.Sequential(*levels)
        self.out = he_init(nn.Conv2d(before, 4 * shape.channels, 3, padding=1), gain=0.5)
        with torch.no_grad():  # the 2x2 pixels start alike, without a checkerboard (Aitken et al. 2017)
            self.out.weight.copy_(self.out.weight[::4].repeat_interleave(4, dim=0))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if label is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        x = self.levels(self.dense(z).view(-1, *self.coarsest))
        return F.pixel_shuffle(self.out(activation(x)), 2)


class Discriminator(nn.Module):
    """Image [n, C, H, W] (and label [n]) -> logit [n]: positive means real, and of that class."""

    def __init__(self, config: Config, shape: DataShape, halvings: int) -> None:
        super().__init__()
        widths = [scaled(c, config.width) for c in D_WIDTHS[:halvings]]
        self.downs = nn.ModuleList(
            he_init(nn.Conv2d(i, o, 4, stride=2, padding=1))
            for i, o in zip([shape.channels, *widths[:-1]], widths, strict=True)
        )
        self.blocks = nn.ModuleList(ResidualBlock(c, c) for c in widths)
        features = widths[-1] * (shape.height >> halvings) * (shape.width >> halvings)
        self.out = nn.Linear(features, max(1, len(shape.classes)))
        nn.init.normal_(self.out.weight, 0, features**-0.5)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        for down, block in zip(self.downs, self.blocks, strict=True):
            x = activation(block(down(x)))
        logits = self.out(x.flatten(1)).float()
        return logits[:, 0] if label is None else logits.gather(1, label[:, None])[:, 0]


class Exported(nn.Module):
    """The averaged generator, bounded to [-1, 1] as the model file promises."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.net(z, label).clamp(-1, 1)


def build(config: Config, shape: DataShape) -> nn.ModuleDict:
    """G, D and the moving average of G."""
    halvings = halvings_of(shape, "edge", *SIDES)
    G, D = Generator(config, shape, halvings), Discriminator(config, shape, halvings)
    return nn.ModuleDict({"G": G, "D": D, "G_ema": EMA(G, config.ema_kimg * 1000)})


def phases(config: Config) -> tuple[Phase, ...]:
    """D learns to tell each real picture from a fake of its class, then G the opposite."""

    def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=config.lr, betas=(0.0, config.beta2), eps=1e-8, fused=True)

    def cosine(t: Progress) -> float:
        return config.final_lr + (config.lr - config.final_lr) * (1 + math.cos(math.pi * t.fraction)) / 2

    def d_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = nets["G"](batch.z, batch.label).to(batch.real.dtype)
        # One pass over both halves: without batch norm they do not mix, and fewer, larger convolutions are faster.
        images = torch.cat([batch.real, fake]).contiguous(memory_format=torch.channels_last).requires_grad_()
        logits = nets["D"](images, None if batch.label is None else batch.label.repeat(2))
        real_logits, fake_logits = logits.chunk(2)
        r1, r2 = squared_gradient_norm(logits, images).chunk(2)
        return {
            "D": discriminator_relativistic(real_logits, fake_logits),
            "R1": r1.mean() * config.gamma / 2,
            "R2": r2.mean() * config.gamma / 2,
        }

    def g_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        with torch.no_grad():
            real_logits = nets["D"](batch.real, batch.label)
        return {"G": generator_relativistic(real_logits, nets["D"](nets["G"](batch.z, batch.label), batch.label))}

    return (
        Phase("D", trains=("D",), loss=d_loss, optimizer=adam, learning_rate=cosine),
        Phase("G", trains=("G",), loss=g_loss, optimizer=adam, learning_rate=cosine, after=follow_generator),
    )


def export_module(nets: nn.ModuleDict) -> nn.Module:
    """The generator that users get."""
    return Exported(averaged(nets).net)


def spec(config: Config, shape: DataShape) -> ModelSpec:
    """What the exported model says about itself."""
    return ModelSpec(
        recipe="edge",
        image_size=(shape.height, shape.width),
        channels=shape.channels,
        latent_dim=config.latent_dim,
        classes=shape.classes,
    )


def logits(nets: nn.ModuleDict, images: Tensor, label: Tensor | None) -> Tensor:
    """[n]: what D says of images of these classes."""
    return nets["D"](images, label)


RECIPE = Recipe("edge", Config, build, phases, export_module, spec, logits, compiles=("G",), complete=completed)
