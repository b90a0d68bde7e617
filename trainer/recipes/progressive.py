"""Progressive growing: both nets begin with pictures of 4x4 pixels and double them, each new level faded in.

Paper: Karras, Aila, Laine, Lehtinen 2018, "Progressive Growing of GANs for Improved Quality, Stability, and Variation".
The loss is WGAN-GP: Gulrajani et al. 2017, with a penalty on D's drift. Grey or colour, no classes. Any picture whose
sides halve evenly down to a coarsest level of 4 to 7 pixels a side: 8, 16, 32 ... 1024 begin at 4, 28 begins at 7.

G: z [n, latent_dim], normalised -> dense to the coarsest level -> a 3x3 convolution -> at each finer level nearest
upsampling by two and two 3x3 convolutions; LeakyReLU(0.2) and pixel norm after each; a 1x1 convolution to C channels at
the level in use. D mirrors it, with averages of 2x2 pixels, and sees how much the pictures of a group of 4 differ.

Time. The stage says how far the nets have grown: at 2 the levels 0, 1 and 2 are in use, at 1.25 level 2 fades in and
counts a quarter. Level 0 trains for --grow-kimg; then each level fades in for as long and trains for as long; the last
one trains to the end of the run. Adam's moments are forgotten where a level begins. The stage follows from the images
shown, and only the layers in use are computed: the first levels cost little. Pictures drawn have full size at any time.

What it costs, in colour at 32x32 with 48 channels: G and D take 57 million multiply-adds each, and an image about 18
passes, a third of them for the gradient penalty. Measured on one core in float32: 1,700 images a second at 4x4, 700 at
8x8, 240 at 16x16, 70 at 32x32. Of 1000 kimg the growing half takes 37 minutes, the other half 2 hours.

What differs from the paper: one batch size for all levels (there 16, but 14 at 256x256 and down to 3 at 1024x1024);
z has 128 elements for 512, and the nets' channels are times --width: 48 for 512 below 64 pixels; growing takes half of
the run unless you say otherwise (there 800 kimg for each turn, in the authors' code 600). As in their code, and not in
the paper, D compares groups of 4 pictures in place of the whole batch, and Adam begins anew with a level.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgegan.errors import ArgumentError
from edgegan.spec import ModelSpec
from edgegan.trainer import levels
from edgegan.trainer.config import option
from edgegan.trainer.ema import EMA, averaged
from edgegan.trainer.layers import EqualizedConv2d, EqualizedLinear, minibatch_deviation, pixel_norm
from edgegan.trainer.levels import COARSEST, scaled
from edgegan.trainer.losses import discriminator_wasserstein, generator_wasserstein, gradient_penalty
from edgegan.trainer.recipe import Batch, DataShape, Phase, Progress, Recipe

halvings_of = partial(levels.halvings_of, recipe="progressive", least=8, greatest=1024)  # pixels
FMAP_BASE, FMAP_MAX = 16384, 512  # the paper's channels: 16384 over the pixels of the picture's side, at most 512


@dataclass(frozen=True)
class Config:
    """Hyper-parameters."""

    kimg: float = option(1000.0, "thousands of images to show", low=0.001, high=1e9)
    grow_kimg: float = option(
        0.0,
        "thousands of images for which a level fades in, and again for which it trains; 0: as many as let growing take "
        "half of the run",
        low=0,
        high=1e9,
    )
    batch: int = option(16, "images in a batch", low=1, high=65536)
    latent_dim: int = option(128, "elements of z", low=1, high=65536)
    width: float = option(0.09375, "factor on the paper's channels: 48 of its 512", low=0.01, high=4)
    lr: float = option(1e-3, "Adam's learning rate, for both nets", low=0, high=10)
    beta2: float = option(0.99, "Adam's beta2; beta1 is 0", low=0, high=0.99999)
    penalty: float = option(10.0, "weight of the gradient penalty", low=0, high=1e6)
    drift: float = option(0.001, "weight of the penalty on D's output for real pictures", low=0, high=1e6)
    ema_kimg: float = option(10.0, "half-life of G's moving average in thousands of images", low=0, high=1e6)


def completed(config: Config, shape: DataShape) -> Config:
    """The config with --grow-kimg in place of 0. Raises ArgumentError if the run ends before the nets are grown."""
    turns = 2 * halvings_of(shape)  # the first level only trains, the last one goes on to train after them
    grow_kimg = config.grow_kimg or config.kimg / 2 / turns
    if turns * grow_kimg >= config.kimg:
        raise ArgumentError(
            f"growing to {shape.width}x{shape.height} takes {turns} times grow_kimg, {turns * grow_kimg:g} in all, but "
            f"kimg is {config.kimg:g}; pass more as --kimg, or less than {config.kimg / turns:g} as --grow-kimg"
        )
    return replace(config, grow_kimg=grow_kimg)


class Growth(nn.Module):
    """How far the nets have grown: at each time, and when G learnt last, for previews and exports, which have no clock.

    Nets that were never trained count as whole.
    """

    learnt: Tensor  # int64, a number: the images shown before G learnt last

    def __init__(self, halvings: int, images: float) -> None:
        """`halvings` levels grow on the coarsest one. Each trains, and the next fades in, for `images` images."""
        super().__init__()
        self.halvings, self.images = halvings, images
        # On the CPU even where nets are built without memory, to count what drawing costs.
        self.register_buffer("learnt", torch.tensor(torch.iinfo(torch.int64).max, device="cpu"))

    def stage_at(self, nimg: int) -> float:
        """How far the nets have grown after `nimg` images, 0 to `halvings`.

        An integer k: levels 0 to k are in use. Between k and k + 1: level k + 1 fades in, with what is above k as its
        weight.
        """
        if nimg >= 2 * self.halvings * self.images:
            return float(self.halvings)
        level, turn = divmod(nimg / self.images, 2)
        return level + max(0.0, turn - 1)

    @property
    def stage(self) -> float:
        """That at which G learnt last."""
        return self.stage_at(int(self.learnt))

    def begins_level(self, t: Progress) -> bool:
        """Whether this iteration is the first of a level."""
        level, _ = level_and_weight(self.stage_at(t.nimg))
        before, _ = level_and_weight(self.stage_at(max(0, t.nimg - t.batch)))
        return level > before


def growth_of(nets: nn.ModuleDict) -> Growth:
    """The growth in this recipe's nets."""
    growth = nets["growth"]
    assert isinstance(growth, Growth)
    return growth


def level_and_weight(stage: float) -> tuple[int, float]:
    """The finest level in use, and the weight with which it is faded in, above 0 to 1."""
    level = math.ceil(stage)
    return level, stage - level + 1


class Block(nn.Module):
    """[n, widths[0], h, w] -> [n, widths[-1], h, w]: 3x3 convolutions, LeakyReLU after each and, in G, pixel norm."""

    def __init__(self, *widths: int, normalise: bool = False) -> None:
        super().__init__()
        self.convs = nn.ModuleList(EqualizedConv2d(before, after, 3) for before, after in pairwise(widths))
        self.normalise = normalise

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = activation(conv(x))
            if self.normalise:
                x = pixel_norm(x)
        return x


class Generator(nn.Module):
    """z [n, latent_dim] -> [n, C, h, w], about [-1, 1], of the finest level in use; without a stage all are."""

    def __init__(self, config: Config, shape: DataShape) -> None:
        super().__init__()
        self.halvings = halvings_of(shape)
        widths = widths_of(config, self.halvings)
        self.coarsest = (widths[0], shape.height >> self.halvings, shape.width >> self.halvings)
        # sqrt(2) / 4 is the authors': He's gain for a transposed convolution to 4x4 pixels, which this layer is.
        self.dense = EqualizedLinear(config.latent_dim, math.prod(self.coarsest), gain=2**0.5 / 4)
        self.blocks = nn.ModuleList([Block(widths[0], widths[0], normalise=True)])
        self.blocks.extend(Block(before, after, after, normalise=True) for before, after in pairwise(widths))
        self.to_rgb = nn.ModuleList(EqualizedConv2d(width, shape.channels, 1, gain=1) for width in widths)

    def forward(self, z: Tensor, stage: float | None = None) -> Tensor:
        level, weight = level_and_weight(self.halvings if stage is None else stage)
        x = pixel_norm(activation(self.dense(pixel_norm(z)).view(-1, *self.coarsest)))
        x = coarser = self.blocks[0](x)
        for i in range(1, level + 1):
            coarser, x = x, self.blocks[i](upsampled(x, 2))
        image = self.to_rgb[level](x)
        if weight < 1:
            image = torch.lerp(upsampled(self.to_rgb[level - 1](coarser), 2), image, weight)
        return image.float()  # the loss is float32 under autocast too


class Discriminator(nn.Module):
    """Image [n, C, h, w] of the finest level in use -> logit [n]: greater for what looks real."""

    def __init__(self, config: Config, shape: DataShape) -> None:
        super().__init__()
        self.halvings = halvings_of(shape)
        widths = widths_of(config, self.halvings)
        pixels = (shape.height >> self.halvings) * (shape.width >> self.halvings)
        self.from_rgb = nn.ModuleList(EqualizedConv2d(shape.channels, width, 1) for width in widths)
        self.blocks = nn.ModuleList([Block(widths[0] + 1, widths[0])])  # one channel more: see minibatch_deviation
        self.blocks.extend(Block(before, before, after) for after, before in pairwise(widths))
        self.dense = EqualizedLinear(widths[0] * pixels, widths[0], gain=2**0.5)
        self.out = EqualizedLinear(widths[0], 1)

    def forward(self, image: Tensor, stage: float | None = None) -> Tensor:
        level, weight = level_and_weight(self.halvings if stage is None else stage)
        x = activation(self.from_rgb[level](image))
        for i in range(level, 0, -1):
            x = averaged_down(self.blocks[i](x), 2)
            if i == level and weight < 1:
                x = torch.lerp(activation(self.from_rgb[level - 1](averaged_down(image, 2))), x, weight)
        x = self.blocks[0](minibatch_deviation(x, together=self.training))
        return self.out(activation(self.dense(x.flatten(1)))).flatten().float()


class Exported(nn.Module):
    """The averaged generator at one stage, its pictures of full size and bounded as the model file promises."""

    def __init__(self, net: Generator, stage: float) -> None:
        super().__init__()
        self.net, self.stage = net, stage
        self.zoom = 1 << net.halvings - level_and_weight(stage)[0]

    def forward(self, z: Tensor) -> Tensor:
        return upsampled(self.net(z, self.stage), self.zoom).clamp(-1, 1)


def activation(x: Tensor) -> Tensor:
    """LeakyReLU with slope 0.2."""
    return F.leaky_relu(x, 0.2)


def upsampled(x: Tensor, times: int) -> Tensor:
    """[n, c, h, w] -> [n, c, times * h, times * w]: each pixel repeated."""
    return F.interpolate(x, scale_factor=times, mode="nearest") if times > 1 else x


def averaged_down(x: Tensor, times: int) -> Tensor:
    """[n, c, h, w] -> [n, c, h / times, w / times]: means of times x times pixels."""
    return F.avg_pool2d(x, times) if times > 1 else x


def real_at(real: Tensor, stage: float, halvings: int) -> Tensor:
    """Pictures of full size as D sees them: averaged down to the level in use, blended like G's while it fades in."""
    level, weight = level_and_weight(stage)
    image = averaged_down(real, 1 << halvings - level)
    return torch.lerp(upsampled(averaged_down(image, 2), 2), image, weight) if weight < 1 else image


def widths_of(config: Config, halvings: int) -> list[int]:
    """Channels of each level, coarsest first: multiples of 8, which processors like."""
    sides = [COARSEST << level for level in range(halvings + 1)]  # 7, 14, 28 pixels count as 4, 8, 16
    return [scaled(min(FMAP_BASE / side, FMAP_MAX), config.width) for side in sides]


def build(config: Config, shape: DataShape) -> nn.ModuleDict:
    """G, D, the moving average of G, and how far they have grown."""
    G, D = Generator(config, shape), Discriminator(config, shape)
    growth = Growth(G.halvings, config.grow_kimg * 1000)
    return nn.ModuleDict({"G": G, "D": D, "G_ema": EMA(G, config.ema_kimg * 1000), "growth": growth})


def phases(config: Config) -> tuple[Phase, ...]:
    """D learns to tell real from fake, then G to pass for real, both at the stage that the clock says."""

    def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=config.lr, betas=(0.0, config.beta2), eps=1e-8, fused=True)

    def d_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        growth = growth_of(nets)
        stage = growth.stage_at(t.nimg)
        real = real_at(batch.real, stage, growth.halvings)
        with torch.no_grad():
            fake = nets["G"](batch.z, stage)
        # One after the other: the pictures of a group, whose differences D sees, are all real or all fake.
        real_logits, fake_logits = nets["D"](real, stage), nets["D"](fake, stage)
        return {
            "D": discriminator_wasserstein(real_logits, fake_logits),
            "GP": gradient_penalty(lambda images: nets["D"](images, stage), real, fake) * config.penalty,
            "drift": real_logits.square().mean() * config.drift,
        }

    def g_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        stage = growth_of(nets).stage_at(t.nimg)
        return {"G": generator_wasserstein(nets["D"](nets["G"](batch.z, stage), stage))}

    def begins_level(nets: nn.ModuleDict, t: Progress) -> bool:
        return growth_of(nets).begins_level(t)

    def follow(nets: nn.ModuleDict, batch: Batch, t: Progress) -> None:
        averaged(nets).update(nets["G"], t.nimg, t.batch)
        growth_of(nets).learnt.fill_(t.nimg)

    return (
        Phase("D", trains=("D",), loss=d_loss, optimizer=adam, reset=begins_level),
        Phase("G", trains=("G",), loss=g_loss, optimizer=adam, reset=begins_level, after=follow),
    )


def export_module(nets: nn.ModuleDict) -> nn.Module:
    """The generator that users get, at the stage that it has learnt last."""
    net = averaged(nets).net
    assert isinstance(net, Generator)
    return Exported(net, growth_of(nets).stage)


def spec(config: Config, shape: DataShape) -> ModelSpec:
    """What the exported model says about itself."""
    return ModelSpec(
        recipe="progressive",
        image_size=(shape.height, shape.width),
        channels=shape.channels,
        latent_dim=config.latent_dim,
    )


def logits(nets: nn.ModuleDict, images: Tensor, label: Tensor | None) -> Tensor:
    """[n]: what D says of images of full size at the stage that it has learnt last, without classes."""
    growth = growth_of(nets)
    return nets["D"](real_at(images, growth.stage, growth.halvings), growth.stage)


RECIPE = Recipe("progressive", Config, build, phases, export_module, spec, logits, complete=completed)
