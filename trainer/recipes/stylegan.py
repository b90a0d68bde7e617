"""StyleGAN2: a mapping network makes styles, which steer the generator's convolutions; noise draws the fine detail.

Papers: Karras, Laine, Aila 2019, "A Style-Based Generator Architecture for Generative Adversarial Networks" (mapping,
styles, noise, mixing, truncation); Karras, Laine, Aittala, Hellsten, Lehtinen, Aila 2020, "Analyzing and Improving the
Image Quality of StyleGAN" (demodulation, skips, path lengths, lazy regularisation).

G: z [n, 128], and the class's embedding if there are classes -> dense layers -> w [n, 128]. A learned constant of 4 to
7 pixels a side -> at each level 3x3 convolutions modulated by w, each with noise, bias and LeakyReLU; a level draws
what it adds to the picture, and the sum over the levels is the picture. The exported model takes psi, 1 for w as it is,
down to 0 for the mean w of its class, and the noise as inputs noise_0, noise_1, ...

D: residual blocks that halve the picture down to that size, the deviation of a group of four pictures, a dense layer, a
logit; with classes also a projection on the class's embedding (Miyato, Koyama 2018). Any size of 8 to 448 pixels whose
sides halve evenly down to 4 to 7: 28, 32, 64, 128, 256 ...; grey or colour.

What differs from the papers. Channels: 16 at the full resolution, 32 at half of it, up to 128, times --width, which a
CPU can train; the papers have 512 up to 64x64, and as many elements in z and w. The styles scale activations in place
of weights, which is the same and leaves the batch free. Upsampling, its convolution and its filter are one convolution
of the small picture, whose channels become 2x2 pixels each: the same in one step. The skips upsample bilinearly, which
is the papers' filter but for the borders. D halves by averages of 2x2, in front of a block's second convolution and
without a wider filter. R1 weighs more, as nets of so few channels need. Styles are mixed anew for each picture, not
each batch. Each class has a mean w of its own, and not all together.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgegan.spec import ModelSpec
from edgegan.trainer import levels
from edgegan.trainer.config import option
from edgegan.trainer.ema import EMA, averaged
from edgegan.trainer.layers import (
    EqualizedConv2d,
    EqualizedLinear,
    mean_of_processes,
    minibatch_deviation,
    modulated_conv2d,
    normal,
    pixel_norm,
    uniform,
)
from edgegan.trainer.levels import scaled
from edgegan.trainer.losses import discriminator_bce, generator_nonsaturating, squared_gradient_norm
from edgegan.trainer.recipe import Batch, DataShape, Phase, Progress, Recipe

halvings_of = partial(levels.halvings_of, recipe="stylegan", least=8, greatest=448)  # pixels
WIDTHS = (16, 32, 64, 96, 128, 128, 128)  # channels of each level, finest first
GAIN = 2**0.5  # makes good for what LeakyReLU takes away
MAPPING_RATE = 0.01  # how fast the mapping network learns, compared with the rest
MEAN_DECAY = 0.995  # of the mean w, an iteration
PATH_DECAY = 0.99  # of the mean path length, a step of G_reg
D_REG_EVERY, G_REG_EVERY = 16, 4  # iterations


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. Those that are 0 by default follow from the pictures and the batch: see `completed`."""

    kimg: float = option(3000.0, "thousands of images to show", low=0.001, high=1e9)
    batch: int = option(16, "images in a batch, best a multiple of 4", low=1, high=65536)
    latent_dim: int = option(128, "elements of z and of w", low=1, high=65536)
    mapping: int = option(2, "layers from z to w; the papers have 8, their later code 2", low=1, high=64)
    width: float = option(1.0, "factor on the channels of both nets", low=0.1, high=64)
    lr: float = option(2.5e-3, "Adam's learning rate, for both nets", low=0, high=10)
    mixing: float = option(0.9, "share of pictures that are drawn with two styles", low=0, high=1)
    gamma: float = option(0.0, "weight of the gradient penalty R1; 0: 0.001 x pixels of a picture", low=0, high=1e6)
    path_length: float = option(2.0, "weight of the path length penalty; 0: none, which trains faster", low=0, high=1e6)
    ema_kimg: float = option(
        0.0, "half-life of G's moving average in thousands of images; 0: 10 / 32 x batch", low=0, high=1e6
    )


def completed(config: Config, shape: DataShape) -> Config:
    """The config with values in place of 0: the moving average's is that of the authors' later code (ADA, 2020).

    Their gamma there, 0.0002 x pixels / batch, is far too little for nets as small as these: D tells all fakes, and G
    draws one and the same shape.
    """
    return replace(
        config,
        gamma=config.gamma or 1e-3 * shape.height * shape.width,
        ema_kimg=config.ema_kimg or config.batch * 10 / 32,
    )


def activation(x: Tensor) -> Tensor:
    """LeakyReLU with slope 0.2."""
    return F.leaky_relu(x, 0.2)


class Mapping(nn.Module):
    """z [n, dim] (and label [n]) -> w [n, dim]."""

    def __init__(self, dim: int, layers: int, classes: int) -> None:
        super().__init__()
        if classes:
            self.embed = nn.Embedding(classes, dim)
        widths = [dim * (2 if classes else 1), *[dim] * (layers - 1)]
        self.layers = nn.ModuleList(EqualizedLinear(i, dim, gain=GAIN, rate=MAPPING_RATE) for i in widths)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        x = pixel_norm(z)
        if label is not None:
            x = torch.cat([x, pixel_norm(self.embed(label))], 1)
        for layer in self.layers:
            x = activation(layer(x))
        return x


class StyledConv(nn.Module):
    """[n, c_in, h, w], w [n, w_dim], noise [n, 1, up h, up w] -> [n, c_out, up h, up w]."""

    def __init__(self, c_in: int, c_out: int, w_dim: int, up: int) -> None:
        super().__init__()
        self.style = EqualizedLinear(w_dim, c_in, bias=1.0)
        self.weight = nn.Parameter(torch.randn(c_out, c_in, 3, 3))  # of any scale: demodulation divides by it
        self.strength = nn.Parameter(torch.zeros(()))  # of the noise
        self.bias = nn.Parameter(torch.zeros(c_out, 1, 1))
        self.up = up

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        y = modulated_conv2d(x, self.weight, self.style(w), up=self.up, gain=GAIN, filtered=self.up > 1)
        return activation(y + (noise * self.strength).to(y.dtype) + self.bias.to(y.dtype))


class ToImage(nn.Module):
    """What a level adds to the picture: [n, c_in, h, w], w [n, w_dim] -> [n, C, h, w]."""

    def __init__(self, c_in: int, channels: int, w_dim: int) -> None:
        super().__init__()
        self.style = EqualizedLinear(w_dim, c_in, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, c_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.gain = c_in**-0.5

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        drawn = modulated_conv2d(x, self.weight, self.style(w), demodulate=False, gain=self.gain)
        return drawn + self.bias  # float32, under autocast too


class Generator(nn.Module):
    """The inputs of its spec, in their order -> [n, C, H, W], about [-1, 1]."""

    def __init__(self, config: Config, shape: DataShape, halvings: int) -> None:
        super().__init__()
        widths = [scaled(c, config.width) for c in WIDTHS[halvings::-1]]  # coarsest first
        dim, coarsest = config.latent_dim, (shape.height >> halvings, shape.width >> halvings)
        self.classes = len(shape.classes)
        self.mapping = Mapping(dim, config.mapping, self.classes)
        self.start = nn.Parameter(torch.randn(1, widths[0], *coarsest))
        self.convs = nn.ModuleList([StyledConv(widths[0], widths[0], dim, up=1)])
        for c_in, c_out in pairwise(widths):
            self.convs += [StyledConv(c_in, c_out, dim, up=2), StyledConv(c_out, c_out, dim, up=1)]
        self.to_image = nn.ModuleList(ToImage(c, shape.channels, dim) for c in widths)
        self.styles = 2 * len(widths)
        self.noise_shapes = noise_shapes(shape, halvings)
        self.w_avg: Tensor
        self.register_buffer("w_avg", torch.zeros(max(1, self.classes), dim))  # the running mean of each class's w

    def synthesis(self, ws: Sequence[Tensor], noise: Sequence[Tensor]) -> Tensor:
        """ws: `styles` tensors [n, dim], two a level; noise: one for each convolution, of `noise_shapes`."""
        x = self.convs[0](self.start, ws[0], noise[0])
        image: Tensor = self.to_image[0](x, ws[1])
        for level in range(1, len(self.to_image)):
            for k in (2 * level - 1, 2 * level):
                x = self.convs[k](x, ws[k], noise[k])
            image = F.interpolate(image, scale_factor=2, mode="bilinear") + self.to_image[level](x, ws[2 * level + 1])
        return image

    def forward(self, z: Tensor, *others: Tensor) -> Tensor:
        label, (psi, *noise) = (others[0], others[1:]) if self.classes else (None, others)
        mean = self.w_avg[0] if label is None else F.embedding(label, self.w_avg)
        w = mean + psi * (self.mapping(z, label) - mean)
        return self.synthesis([w] * self.styles, noise)

    def remember(self, w: Tensor, label: Tensor | None) -> None:
        """Move the mean of each class that is there towards w [n, dim] of the pictures with these labels [n]."""
        label = torch.zeros(len(w), dtype=torch.int64, device=w.device) if label is None else label
        of_class = F.one_hot(label, len(self.w_avg)).to(w.dtype)  # [n, classes]
        count = of_class.sum(0)[:, None]
        mean = of_class.t() @ w / count.clamp(min=1)
        self.w_avg.lerp_(mean, (1 - MEAN_DECAY) * (count > 0))


class Block(nn.Module):
    """[n, c_in, h, w] -> [n, c_out, h / 2, w / 2], residual."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = EqualizedConv2d(c_in, c_in, 3)
        # Both terms of the sum have half the variance.
        self.conv2 = EqualizedConv2d(c_in, c_out, 3, gain=GAIN * 2**-0.5)
        self.skip = EqualizedConv2d(c_in, c_out, 1, gain=2**-0.5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool2d(activation(self.conv1(x)), 2)
        return activation(self.conv2(y)) + self.skip(F.avg_pool2d(x, 2))


class Discriminator(nn.Module):
    """Image [n, C, H, W] (and label [n]) -> logit [n]: positive means real, and of that class."""

    def __init__(self, config: Config, shape: DataShape, halvings: int) -> None:
        super().__init__()
        widths = [scaled(c, config.width) for c in WIDTHS[: halvings + 1]]  # finest first
        features = widths[-1]
        self.from_image = EqualizedConv2d(shape.channels, widths[0], 1)
        self.blocks = nn.ModuleList(map(Block, widths, widths[1:]))
        self.conv = EqualizedConv2d(features + 1, features, 3)
        self.dense = EqualizedLinear(
            features * (shape.height >> halvings) * (shape.width >> halvings), features, gain=GAIN
        )
        self.out = EqualizedLinear(features, 1)
        if shape.classes:
            self.embed = nn.Embedding(len(shape.classes), features)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        x = activation(self.from_image(x))
        for block in self.blocks:
            x = block(x)
        x = activation(self.conv(minibatch_deviation(x, together=self.training)))
        x = activation(self.dense(x.flatten(1)))
        logits = self.out(x)[:, 0].float()
        if label is not None:
            logits = logits + (x.float() * self.embed(label)).sum(1) * x.shape[1] ** -0.5
        return logits


class PathLength(nn.Module):
    """How much the steps that pictures take differ, when w takes steps of one length: images, ws -> penalty.

    Paper: Karras et al. 2020, section 3.2. Each picture is multiplied by noise; the length of that product's gradient
    with respect to w should be one and the same, the running mean of all lengths. Divided by the number of pixels and
    of styles as here, the paper's weight is 2 at every resolution.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images: Tensor, ws: Tensor) -> Tensor:
        """images [n, C, H, W], drawn from ws [n, styles, dim]; a scalar. Needs float32."""
        noise = normal(len(images), images.device, *images.shape[1:]) * (images.shape[2] * images.shape[3]) ** -0.5
        (gradient,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
        lengths = (gradient.square().sum(2).mean(1) + 1e-12).sqrt()  # the root's slope at 0 is infinite
        mean = self.mean.lerp(mean_of_processes(lengths.mean()), 1 - PATH_DECAY)
        self.mean.copy_(mean.detach())
        return (lengths - mean).square().mean()


def mixed(w: Tensor, other: Tensor, u: Tensor, styles: int, share: float) -> Tensor:
    """Style mixing: w, other [n, dim] -> ws [n, styles, dim], for `share` of the pictures w first and then the other.

    u: [n, 2] from [0, 1), which says of each picture whether it is mixed, and where, from behind the first style on.
    """
    cut = 1 + (u[:, 1] * (styles - 1)).long()
    cut = torch.where(u[:, 0] < share, cut, styles)
    first = torch.arange(styles, device=u.device) < cut[:, None]
    return torch.where(first[:, :, None], w[:, None], other[:, None])


def draw(G: Generator, batch: Batch, mixing: float, each: int = 1) -> tuple[Tensor, Tensor]:
    """Each `each`-th picture as training draws it, and its styles: [n, C, H, W], [n, styles, dim].

    What is left out is left out of the whole batch, so that the pictures are the same on one process and on many, if
    the parts of a batch are multiples of `each`.
    """
    n, device, kept = len(batch.z), batch.z.device, slice(None, None, each)
    label = None if batch.label is None else batch.label[kept]
    w, other = (G.mapping(z[kept], label) for z in (batch.z, normal(n, device, batch.z.shape[1])))
    ws = mixed(w, other, uniform(n, device, 2)[kept], G.styles, mixing)
    noise = [normal(n, device, *shape)[kept] for shape in G.noise_shapes]
    return G.synthesis(ws.unbind(1), noise), ws


class Exported(nn.Module):
    """The averaged generator, bounded to [-1, 1] as the model file promises."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.net(*inputs).clamp(-1, 1)


def noise_shapes(shape: DataShape, halvings: int) -> tuple[tuple[int, int, int], ...]:
    """[1, h, w] of the noise of each convolution: one at the coarsest level, two at the others."""
    sizes = [(shape.height >> k, shape.width >> k) for k in range(halvings, -1, -1)]
    return tuple((1, *size) for level, size in enumerate(sizes) for _ in range(2 if level else 1))


def build(config: Config, shape: DataShape) -> nn.ModuleDict:
    """G, D, the moving average of G, and the mean path length."""
    halvings = halvings_of(shape)
    G, D = Generator(config, shape, halvings), Discriminator(config, shape, halvings)
    return nn.ModuleDict({"G": G, "D": D, "G_ema": EMA(G, config.ema_kimg * 1000), "path_length": PathLength()})


def phases(config: Config) -> tuple[Phase, ...]:
    """D learns to tell real from fake and G the opposite; their regularisers take steps of their own, now and then.

    Paper: Karras et al. 2020, section 3.1. A regulariser of each k-th iteration weighs k times as much there, and since
    Adam takes k + 1 steps for k, it gets the k / (k + 1) part of its learning rate and that power of its decays.
    """

    def adam(every: int | None) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
        c = 1.0 if every is None else every / (every + 1)
        return lambda parameters: torch.optim.Adam(
            parameters, lr=config.lr * c, betas=(0.0, 0.99**c), eps=1e-8, fused=True
        )

    def d_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        with torch.no_grad():
            fake, _ = draw(generator(nets), batch, config.mixing)
        # Two passes: the groups whose deviation D sees are all real or all fake.
        return {"D": discriminator_bce(nets["D"](batch.real, batch.label), nets["D"](fake, batch.label))}

    def d_reg(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        real = batch.real.detach().clone().requires_grad_()
        r1 = squared_gradient_norm(nets["D"](real, batch.label), real).mean()
        return {"R1": r1 * config.gamma / 2 * D_REG_EVERY}

    def g_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        fake, _ = draw(generator(nets), batch, config.mixing)
        return {"G": generator_nonsaturating(nets["D"](fake, batch.label))}

    def g_reg(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        with in_float32(batch.z.device):  # on half of the batch, which the paper does too, to save time
            penalty = nets["path_length"](*draw(generator(nets), batch, config.mixing, each=2))
        return {"path length": penalty * config.path_length * G_REG_EVERY}

    def average(nets: nn.ModuleDict, batch: Batch, t: Progress) -> None:
        G, n, device = generator(nets), t.batch, batch.z.device
        # Latents of its own, which all processes draw alike: the mean is then the same in all of them.
        label = torch.randint(G.classes, (n,), device=device) if G.classes else None
        G.remember(G.mapping(torch.randn(n, batch.z.shape[1], device=device), label), label)
        averaged(nets).update(G, t.nimg, t.batch)

    g_reg_phase = Phase("G_reg", trains=("G",), loss=g_reg, optimizer="G", every=G_REG_EVERY)
    return (
        Phase("D", trains=("D",), loss=d_loss, optimizer=adam(D_REG_EVERY)),
        Phase("D_reg", trains=("D",), loss=d_reg, optimizer="D", every=D_REG_EVERY),
        *((g_reg_phase,) if config.path_length else ()),
        Phase(
            "G", trains=("G",), loss=g_loss, optimizer=adam(G_REG_EVERY if config.path_length else None), after=average
        ),
    )


def generator(nets: nn.ModuleDict) -> Generator:
    """G of a recipe's nets."""
    G = nets["G"]
    assert isinstance(G, Generator)
    return G


def in_float32(device: torch.device) -> AbstractContextManager[None]:
    """Without autocast."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    off: AbstractContextManager[None] = torch.autocast(device.type, enabled=False)
    return off


def export_module(nets: nn.ModuleDict) -> nn.Module:
    """The generator that users get."""
    return Exported(averaged(nets).net)


def spec(config: Config, shape: DataShape) -> ModelSpec:
    """What the exported model says about itself."""
    return ModelSpec(
        recipe="stylegan",
        image_size=(shape.height, shape.width),
        channels=shape.channels,
        latent_dim=config.latent_dim,
        classes=shape.classes,
        style=True,
        noise_inputs=noise_shapes(shape, halvings_of(shape)),
    )


def logits(nets: nn.ModuleDict, images: Tensor, label: Tensor | None) -> Tensor:
    """[n]: what D says of images of these classes."""
    return nets["D"](images, label)


RECIPE = Recipe("stylegan", Config, build, phases, export_module, spec, logits, complete=completed)
