"""CycleGAN: turn the pictures of one folder into such as another has, without pairs; --paired is pix2pix.

Papers: Zhu, Park, Isola, Efros 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks";
with --paired Isola, Zhu, Zhou, Efros 2017, "Image-to-Image Translation with Conditional Adversarial Networks", where
picture i of --source belongs to picture i of --data.

G turns sources into pictures of the data, F goes back, and each has a D of its own that judges what it makes by least
squares. F(G(x)) should be x, G(F(y)) y (weight `cycle`), and G(y) already y (`identity`). D sees fakes of before, too,
from a pool. With pairs there is G alone: its D sees source and picture together, and G(x) should be y (`l1`).

G, F: [n, C, h, w] -> the same shape, in [-1, 1], sides a multiple of 4: a 7x7 convolution to `width` channels, two that
halve the picture and double the channels, residual blocks, back up the same way. Instance norm and ReLU behind each but
the last; mirrored edges. D: 4x4 convolutions with LeakyReLU(0.2) that halve the picture, then two at stride 1, to a
logit for each patch; patches of 70x70 pixels for pictures of 128 and more, smaller for smaller ones.

What differs from the papers: a moving average of G and F translates (they have none); upsampling by repetition and a
3x3 convolution in place of a transposed one, against chequered patterns (Odena et al. 2016); with pairs the same G, not
a U-Net; the rate falls over the second half of the run at every iteration, not after each epoch; no random crops. On a
GPU the gradient of mirrored edges is summed in no fixed order, so a run there does not repeat to the bit.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from edgegan.errors import ArgumentError
from edgegan.spec import ModelSpec
from edgegan.trainer.config import option
from edgegan.trainer.ema import EMA
from edgegan.trainer.layers import ImagePool
from edgegan.trainer.losses import discriminator_least_squares, generator_least_squares
from edgegan.trainer.recipe import Batch, DataShape, Phase, Progress, Recipe

MULTIPLE = 4  # of a picture's sides: it is halved twice
LEAST_SIDE = 16  # pixels: below it there is nothing to mirror at a quarter of the resolution, nor a patch to judge
LEAST_PATCHES = 4  # a side of what D's halvings leave
LARGE = 256  # pixels a side from which G has the paper's nine residual blocks


@dataclass(frozen=True)
class Config:
    """Hyper-parameters."""

    kimg: float = option(200.0, "thousands of images to show; the papers' 200 epochs of 1,000", low=0.001, high=1e9)
    batch: int = option(1, "images in a batch", low=1, high=65536)
    paired: bool = option(False, "each source belongs to the picture of the data that has its name: pix2pix")
    width: int = option(64, "channels of G and D at full resolution", low=2, high=1024)
    blocks: int = option(0, "residual blocks of G; 0: 9 from 256 pixels a side on, else 6", low=0, high=64)
    d_layers: int = option(0, "halvings in D; 0: 3 from 128 pixels a side on, 2 from 48, else 1", low=0, high=6)
    lr: float = option(2e-4, "Adam's learning rate, which falls to 0 over the second half", low=0, high=10)
    beta1: float = option(0.5, "Adam's beta1", low=0, high=0.999)
    cycle: float = option(10.0, "weight of the way there and back, against the source", low=0, high=1e6)
    identity: float = option(0.5, "weight of leaving alone what looks right, as a share of `cycle`", low=0, high=1e6)
    l1: float = option(100.0, "with --paired: weight of the distance to the true picture", low=0, high=1e6)
    pool: int = option(50, "fakes of before that D may see again; 0: none", low=0, high=65536)
    ema_kimg: float = option(2.0, "half-life of the moving averages in thousands of images", low=0, high=1e6)


def complete(config: Config, shape: DataShape) -> Config:
    """The config with the depths for pictures of this size in place of 0."""
    side = min(shape.height, shape.width)
    if side < LEAST_SIDE or shape.height % MULTIPLE or shape.width % MULTIPLE:
        raise ArgumentError(
            f"recipe cyclegan takes sides of {LEAST_SIDE} pixels or more, in multiples of {MULTIPLE}, but the data has "
            f"{shape.width}x{shape.height}: pass --resolution N"
        )
    blocks = config.blocks or (9 if side >= LARGE else 6)
    d_layers = config.d_layers or (3 if side >= 128 else 2 if side >= 48 else 1)
    if side >> d_layers < LEAST_PATCHES:
        raise ArgumentError(
            f"d_layers is {d_layers}, but the data has {shape.width}x{shape.height}; valid: at most "
            f"{(side // LEAST_PATCHES).bit_length() - 1}"
        )
    return replace(config, blocks=blocks, d_layers=d_layers)


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Mirrored edges, a convolution that keeps the picture's size but for its stride, and instance norm."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, padding_mode="reflect", bias=False)
    return [layer, nn.InstanceNorm2d(outputs, affine=True)]


class ResidualBlock(nn.Module):
    """[n, c, h, w] -> the same shape: x + norm(conv(relu(norm(conv(x)))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = convolution(channels, channels, 3), convolution(channels, channels, 3)
        self.layers = nn.Sequential(*first, nn.ReLU(), *second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Generator(nn.Sequential):
    """Pictures [n, C, h, w] -> pictures [n, C, h, w] in [-1, 1]; h and w multiples of 4."""

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        layers = [*convolution(channels, width, 7), nn.ReLU()]
        for each in (width, 2 * width):
            layers += [*convolution(each, 2 * each, 3, stride=2), nn.ReLU()]
        layers += [ResidualBlock(4 * width) for _ in range(blocks)]
        for each in (2 * width, width):
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), *convolution(2 * each, each, 3), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(width, channels, 7, 1, 3, padding_mode="reflect"), nn.Tanh())


class PatchDiscriminator(nn.Sequential):
    """Pictures [n, C, h, w] -> a logit for each patch [n, 1, h', w']: 1 for real, 0 for fake."""

    def __init__(self, channels: int, width: int, layers: int) -> None:
        widths = [min(2**k, 8) * width for k in range(layers + 1)]
        made: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for depth, (before, after) in enumerate(pairwise(widths), 1):
            stride = 2 if depth < layers else 1
            made += [nn.Conv2d(before, after, 4, stride, 1, bias=False), nn.InstanceNorm2d(after, affine=True)]
            made += [nn.LeakyReLU(0.2)]
        super().__init__(*made, nn.Conv2d(widths[-1], 1, 4, 1, 1))


@torch.no_grad()
def init_normal(net: nn.Module) -> nn.Module:
    """The papers' initialisation: weights N(0, 0.02), zero biases."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net


def build(config: Config, shape: DataShape) -> nn.ModuleDict:
    """G, its D and the average of G; without pairs also F with its own, and pools of what both have made."""
    channels = shape.channels

    def generator() -> nn.Module:
        return init_normal(Generator(channels, config.width, config.blocks))

    def discriminator(inputs: int) -> nn.Module:
        return init_normal(PatchDiscriminator(inputs, config.width, config.d_layers))

    nets: dict[str, nn.Module] = {}
    for name in ("G",) if config.paired else ("G", "F"):
        nets[name] = generator()
        nets[f"{name}_ema"] = EMA(nets[name], config.ema_kimg * 1000)
    if config.paired:
        return nn.ModuleDict(nets | {"D": discriminator(2 * channels)})
    for name in ("D", "D_source"):
        nets[name] = discriminator(channels)
        nets[f"{name}_pool"] = ImagePool(config.pool, channels, shape.height, shape.width)
    return nn.ModuleDict(nets)


def phases(config: Config) -> tuple[Phase, ...]:
    """The generators learn, then the discriminators."""
    generators, discriminators = (("G",), ("D",)) if config.paired else (("G", "F"), ("D", "D_source"))
    g_loss, d_loss = paired_losses(config) if config.paired else unpaired_losses(config)

    def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=config.lr, betas=(config.beta1, 0.999), fused=True)

    def rate(t: Progress) -> float:
        return config.lr * min(1.0, 2 - 2 * t.fraction)

    def follow(nets: nn.ModuleDict, batch: Batch, t: Progress) -> None:
        for name in generators:
            average = nets[f"{name}_ema"]
            assert isinstance(average, EMA)
            average.update(nets[name], t.nimg, t.batch)

    return (
        Phase("G", generators, g_loss, adam, learning_rate=rate, after=follow),
        Phase("D", discriminators, d_loss, adam, learning_rate=rate),
    )


Loss = Callable[[nn.ModuleDict, Batch, Progress], dict[str, Tensor]]


def unpaired_losses(config: Config) -> tuple[Loss, Loss]:
    """Of G and F, and of their discriminators (Zhu et al. 2017, equations 1 to 4, and 5.2 for identity)."""

    def g_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        x, y = pair_of(batch)
        fake, fake_source = nets["G"](x), nets["F"](y)
        terms = {
            "G": fooling(nets["D"](fake)),
            "F": fooling(nets["D_source"](fake_source)),
            "cycle": config.cycle * (distance(nets["F"](fake), x) + distance(nets["G"](fake_source), y)),
        }
        if config.identity:
            moved = distance(nets["G"](y), y) + distance(nets["F"](x), x)
            terms["identity"] = config.identity * config.cycle * moved
        return terms

    def d_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        x, y = pair_of(batch)
        terms = {}
        for name, generator, given, real in (("D", "G", x, y), ("D_source", "F", y, x)):
            pool = nets[f"{name}_pool"]
            assert isinstance(pool, ImagePool)
            with torch.no_grad():
                fake = pool.exchange(nets[generator](given))
            terms[name] = discriminator_least_squares(nets[name](real).float(), nets[name](fake).float())
        return terms

    return g_loss, d_loss


def paired_losses(config: Config) -> tuple[Loss, Loss]:
    """Of G, and of the D that sees a source beside what was made of it (Isola et al. 2017, equations 1 to 4)."""

    def g_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        x, y = pair_of(batch)
        fake = nets["G"](x)
        return {"G": fooling(nets["D"](torch.cat([x, fake], 1))), "l1": config.l1 * distance(fake, y)}

    def d_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        x, y = pair_of(batch)
        with torch.no_grad():
            fake = nets["G"](x)
        real_logits, fake_logits = (nets["D"](torch.cat([x, shown], 1)).float() for shown in (y, fake))
        return {"D": discriminator_least_squares(real_logits, fake_logits)}

    return g_loss, d_loss


def pair_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """Source and real pictures."""
    assert batch.source is not None
    return batch.source, batch.real


def fooling(logits: Tensor) -> Tensor:
    """(D - 1)^2: twice what losses.py has, as the papers weigh it against the other terms."""
    return 2 * generator_least_squares(logits.float())


def distance(a: Tensor, b: Tensor) -> Tensor:
    """|a - b|, the mean over pictures, pixels and channels."""
    return (a.float() - b.float()).abs().mean()


def export_module(nets: nn.ModuleDict) -> nn.Module:
    """From sources to such as the data."""
    return nets["G_ema"]


def reverse_module(nets: nn.ModuleDict) -> nn.Module:
    """The way back. Raises ArgumentError if pairs were learnt, one way."""
    if "F_ema" not in nets:
        raise ArgumentError("a run with --paired learns one way only: there is no reverse; swap --data and --source")
    return nets["F_ema"]


def spec(config: Config, shape: DataShape) -> ModelSpec:
    """A translation between pictures of one size."""
    return ModelSpec(
        recipe="cyclegan",
        task="translate",
        image_size=(shape.height, shape.width),
        channels=shape.channels,
        latent_dim=None,
        size_multiple=MULTIPLE,
    )


RECIPE = Recipe(
    name="cyclegan",
    Config=Config,
    build=build,
    phases=phases,
    export_module=export_module,
    spec=spec,
    complete=complete,
    compiles=("G", "F", "D", "D_source"),
    takes_source=True,
    reverse_module=reverse_module,
)
