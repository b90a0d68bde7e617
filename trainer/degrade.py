"""What becomes of a picture on its way through cameras, programs and networks: the input that a restorer learns from.

Wang, Xie, Dong, Shan 2021, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data": two
rounds of blur, resizing, noise and JPEG, then a last resizing to 1 / scale. Wang, Li, Zhang, Shan 2021, "Towards
Real-World Blind Face Restoration with Generative Facial Prior" (GFPGAN): one round, then back to the picture's size.

All randomness is z, so a degraded picture is a pure function of the picture and its row of z. Pictures of a batch
are resized each by its own factor and yet worked on together: each lies in the top left corner of a canvas that holds
the largest, and each resizing is a product with a matrix for the rows and one for the columns. What lies on the
canvas beside the picture means nothing; `_spread` puts the picture's edge there for a step that looks at neighbours.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edgegan.errors import ArgumentError
from edgegan.trainer.jpeg import jpeg, luminance

Range = tuple[float, float]
ROUND_DRAWS = 19  # elements of z that choose what a round does
LAST_DRAWS = 5  # and what follows the last round
CUTOFF = (math.pi / 3, math.pi)  # radians a pixel, of sinc filters
THINNEST = 0.01  # pixels: a Gaussian so thin is the picture itself, and 0 would divide by 0
AREA, BILINEAR, BICUBIC = range(3)
KEYS = -0.5  # the free parameter of bicubic interpolation, as Pillow has it (Keys 1981)


@dataclass(frozen=True)
class Round:
    """Ranges and probabilities of one round; the defaults are those of Real-ESRGAN's first. Each draw is uniform.

    Blur kernels: a share `sinc` is low-pass filters that ring; of the rest, a share each is generalised Gaussian,
    exp(-q^beta / 2), and plateau, 1 / (1 + q^beta), the others Gaussian; q = (x / sigma_x)^2 + (y / sigma_y)^2 in axes
    turned by any angle.
    """

    blur: float = 1.0  # probability
    side: tuple[int, int] = (7, 21)  # of the kernel in pixels, odd
    sigma: Range = (0.2, 3.0)  # pixels
    isotropic: float = 0.69  # share of kernels with one sigma; 0.45 + 0.12 + 0.12 in the authors' settings
    generalised: float = 0.15
    generalised_beta: Range = (0.5, 4.0)
    plateau: float = 0.15
    plateau_beta: Range = (1.0, 2.0)
    sinc: float = 0.1
    larger: float = 0.2  # probability of a factor from 1 to the end of `resize`
    smaller: float = 0.7  # and of one from its start to 1; else the size stays
    resize: Range = (0.15, 1.5)  # factors
    divide: bool = False  # draw 1 / factor from the whole range instead, as GFPGAN
    gaussian: float = 0.5  # probability of Gaussian noise; else shot noise
    noise: Range = (1.0, 30.0)  # its standard deviation in grey levels of 255
    shot: Range = (0.05, 3.0)  # the standard deviation at level v is so many times sqrt(v), Poisson's for 1
    grey: float = 0.4  # probability that all channels get the same noise
    quality: tuple[int, int] = (30, 95)  # of the JPEG file, as libjpeg counts


SECOND = Round(
    blur=0.8,
    sigma=(0.2, 1.5),
    larger=0.3,
    smaller=0.4,
    resize=(0.3, 1.2),
    noise=(1.0, 25.0),
    shot=(0.05, 2.5),
)
FACES = Round(
    side=(41, 41),
    sigma=(0.1, 10.0),
    isotropic=0.5,
    generalised=0.0,
    plateau=0.0,
    sinc=0.0,
    resize=(1 / 8, 1 / 0.8),
    divide=True,
    gaussian=1.0,
    noise=(0.0, 20.0),
    grey=0.0,
    quality=(60, 100),
)


@dataclass(frozen=True)
class Degradation:
    """What `degrade` does; the defaults are Real-ESRGAN's.

    strength: from 0, bicubic downsampling with antialiasing alone, to 1, the paper's. It scales the widths of blurs
    and the noise, is the exponent of resize factors, and takes the share 1 - strength from what JPEG loses of quality
    100; probabilities stay.
    Raises ArgumentError for a scale below 1, a strength outside [0, 1], or no round.
    """

    scale: int = 1  # the result is smaller by it
    strength: float = 1.0
    rounds: tuple[Round, ...] = (Round(), SECOND)  # all but the first resize relative to the size of the result
    late: float = 0.5  # probability that the last JPEG follows the last resizing and the last sinc filter
    sinc: float = 0.8  # probability of that filter
    side: tuple[int, int] = (7, 21)  # of its kernel in pixels, odd

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise ArgumentError(f"scale is {self.scale}; valid: 1 or more, by which pictures become smaller")
        if not 0 <= self.strength <= 1:
            raise ArgumentError(f"strength is {self.strength}; valid: 0 (clean) to 1 (as in the paper)")
        if not self.rounds:
            raise ArgumentError("rounds is empty; valid: one Round or more, or strength 0 for a clean result")


def REAL_ESRGAN(scale: int, strength: float = 1.0) -> Degradation:  # noqa: N802
    """Two rounds, as in Real-ESRGAN, to 1 / scale of the size."""
    return Degradation(scale, strength)


def GFPGAN(strength: float = 1.0) -> Degradation:  # noqa: N802
    """One round, as in GFPGAN, and back to the picture's size.

    Its widths are pixels of faces 512 x 512. Much smaller pictures lose all they show at strength 1.
    """
    return Degradation(1, strength, rounds=(FACES,), late=0.0, sinc=0.0)


def CLEAN(scale: int) -> Degradation:  # noqa: N802
    """Bicubic downsampling with antialiasing, as Pillow's BICUBIC."""
    return Degradation(scale, 0.0)


def noise_dim(how: Degradation, channels: int, height: int, width: int) -> int:
    """The elements of z that `degrade` takes for one picture [channels, height, width].

    Raises ArgumentError for other channels than 1 or 3 and for sizes that the scale does not divide.
    """
    if channels not in (1, 3):
        raise ArgumentError(f"pictures with {channels} channels; valid: 1 (grey) or 3 (RGB)")
    if min(height, width) < 1 or height % how.scale or width % how.scale:
        raise ArgumentError(f"pictures are {height} x {width}; valid: multiples of the scale {how.scale} in both")
    if how.strength == 0:
        return 1  # unused: the noise contract has no rows of length 0
    canvases = (_canvas(how, i, height, width) for i in range(len(how.rounds)))
    return LAST_DRAWS + sum(ROUND_DRAWS + channels * h * w for h, w in canvases)


@torch.no_grad()
def degrade(x: Tensor, z: Tensor, how: Degradation) -> Tensor:
    """[n, C, H, W] in [-1, 1] -> [n, C, H / scale, W / scale] float32 in [-1, 1], on the 256 levels of 8 bits.

    C is 1 or 3; H and W are multiples of the scale. z: [n, noise_dim(how, C, H, W)], N(0, 1); row i belongs to
    picture i. Computes in float32 on x's device, also under autocast, and without gradients. Raises ArgumentError for
    other shapes.
    """
    if x.dim() != 4:
        raise ArgumentError(f"pictures of shape {list(x.shape)}; valid: [n, C, H, W]")
    expected = [len(x), noise_dim(how, *x.shape[1:])]
    if list(z.shape) != expected:
        raise ArgumentError(f"z of shape {list(z.shape)}; valid for pictures of shape {list(x.shape)}: {expected}")
    with torch.autocast(x.device.type, enabled=False), full_precision():
        levels = (x.float().contiguous() + 1) * 127.5
        y = _degraded(levels, z.float(), how) if how.strength else _clean(levels, how.scale)
        return y.clamp(0, 255).round() / 127.5 - 1


@contextmanager
def full_precision() -> Iterator[None]:
    """Products of float32 as such on a GPU, where training rounds them to TF32: of grey levels that is too coarse."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn  # as devices.tune sets them
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = False
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def _clean(x: Tensor, scale: int) -> Tensor:
    canvas = x.shape[2] // scale, x.shape[3] // scale
    bicubic = x.new_full((len(x),), BICUBIC)
    return _resized(x, _sizes(x, *x.shape[2:]), _sizes(x, *canvas), canvas, bicubic, antialias=True)


def _degraded(x: Tensor, z: Tensor, how: Degradation) -> Tensor:
    """Pictures [n, C, H, W] in grey levels from 0 to 255, before and after, though not yet rounded."""
    n, channels, height, width = x.shape
    strength, final = how.strength, (height // how.scale, width // how.scale)
    size = _sizes(x, height, width)
    last, z = _draws(z, LAST_DRAWS)
    late = _each(next(last) < how.late)
    for i, stage in enumerate(how.rounds):
        u, z = _draws(z, ROUND_DRAWS)
        x = _convolved(x, size, _blurs(u, stage, strength))
        canvas, factor = _canvas(how, i, height, width), _factors(u, stage) ** strength
        to = [(factor * s).floor().clamp(1, c) for s, c in zip(final if i else (height, width), canvas, strict=True)]
        x, size = _resized(x, size, to, canvas, _modes(u)), to
        plane, z = z.tensor_split([channels * canvas[0] * canvas[1]], 1)
        x = _noisy(x, plane.view(n, channels, *canvas), u, stage, strength)
        quality = 100 - strength * (100 - _between(u, stage.quality))
        compressed = jpeg(_spread(x, size), quality)
        x = torch.where(late, x, compressed) if i == len(how.rounds) - 1 else compressed
    x, size = _resized(x, size, _sizes(x, *final), final, _modes(last)), _sizes(x, *final)
    if how.sinc:
        x = _convolved(x, size, _last_filters(last, how))
    return torch.where(late, jpeg(x, quality), x) if how.late else x


def _canvas(how: Degradation, i: int, height: int, width: int) -> tuple[int, int]:
    """The largest size that round i can resize to."""
    scale = how.scale if i else 1
    factor = max(1.0, how.rounds[i].resize[1]) ** how.strength
    return int(height // scale * factor), int(width // scale * factor)


def _sizes(x: Tensor, height: int, width: int) -> list[Tensor]:
    """The heights [n] and widths [n] of pictures that are all of one size."""
    return [x.new_full((len(x),), side) for side in (height, width)]


def _spread(x: Tensor, size: list[Tensor], margin: int = 0) -> Tensor:
    """[n, C, h, w] with a margin on all sides: what lies outside each picture becomes its nearest pixel."""
    n, channels, *canvas = x.shape
    rows, columns = (
        torch.arange(-margin, c + margin, device=x.device).clamp(min=0).minimum(s[:, None].long() - 1)
        for c, s in zip(canvas, size, strict=True)
    )
    index = (rows[:, :, None] * canvas[1] + columns[:, None]).flatten(1)[:, None].expand(n, channels, -1)
    return x.flatten(2).gather(2, index).view(n, channels, rows.shape[1], columns.shape[1])


def _convolved(x: Tensor, size: list[Tensor], kernels: Tensor) -> Tensor:
    """Each picture of [n, C, h, w] with its kernel of [n, side, side], edges repeated."""
    n, channels = x.shape[:2]
    spread = _spread(x, size, kernels.shape[1] // 2).flatten(0, 1)[None]
    weight = kernels.repeat_interleave(channels, 0)[:, None]
    return F.conv2d(spread, weight, groups=n * channels).view_as(x)


def _resized(
    x: Tensor, size: list[Tensor], to: list[Tensor], canvas: tuple[int, int], mode: Tensor, antialias: bool = False
) -> Tensor:
    """[n, C, h, w] -> [n, C, *canvas], each picture from its size to its new size by its mode."""
    n, channels, height, width = x.shape
    rows, columns = (
        _interpolation(*args, mode, antialias) for args in zip((height, width), size, canvas, to, strict=True)
    )
    x = (x.view(n, channels * height, width) @ columns.mT).view(n, channels, height, canvas[1])
    return rows[:, None] @ x


def _interpolation(inputs: int, size: Tensor, outputs: int, to: Tensor, mode: Tensor, antialias: bool) -> Tensor:
    """[n, outputs, inputs]: matrices that resize `size` [n] of the inputs to `to` [n] of the outputs.

    Without antialiasing, bilinear and bicubic interpolation look at 2 and 4 pixels however much smaller a picture
    becomes, as OpenCV and torch do by default: such pictures are about, too.
    """
    size, to, mode = size[:, None, None], to[:, None, None], mode[:, None, None]
    ratio = size / to
    pixels, places = torch.arange(inputs, device=to.device), torch.arange(outputs, device=to.device)[:, None]
    centre = (places.minimum(to - 1) + 0.5) * ratio - 0.5  # beside the picture: its last pixel, so that all is finite
    distance = (pixels - centre).abs()
    area = ((ratio + 1) / 2 - distance).clamp(min=0).minimum(ratio.clamp(max=1))  # the overlap of new pixel and old
    t = distance / ratio.clamp(min=1) if antialias else distance
    outer = torch.where(t < 2, KEYS * (((t - 5) * t + 8) * t - 4), 0.0)
    bicubic = torch.where(t < 1, ((KEYS + 2) * t - (KEYS + 3)) * t * t + 1, outer)
    weights = torch.where(mode == AREA, area, torch.where(mode == BILINEAR, (1 - t).clamp(min=0), bicubic))
    weights = weights * (pixels < size)
    return weights / weights.sum(2, keepdim=True)


# Each of the following takes its numbers, [n] uniform in [0, 1], from `u`, and as many of them whatever they are.


def _draws(z: Tensor, count: int) -> tuple[Iterator[Tensor], Tensor]:
    """The first columns of z as uniform numbers, and the other columns."""
    return iter(torch.special.ndtr(z[:, :count]).unbind(1)), z[:, count:]


def _between(u: Iterator[Tensor], limits: tuple[float, float]) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * next(u)


def _each(v: Tensor) -> Tensor:
    """[n] -> [n, 1, 1, 1], a value for each picture."""
    return v[:, None, None, None]


def _modes(u: Iterator[Tensor]) -> Tensor:
    return (3 * next(u)).floor().clamp(max=BICUBIC)


def _factors(u: Iterator[Tensor], stage: Round) -> Tensor:
    which, where = next(u), next(u)
    low, high = stage.resize
    if stage.divide:
        return 1 / (1 / high + (1 / low - 1 / high) * where)
    smaller = torch.where(which < stage.larger + stage.smaller, low + (1 - low) * where, 1.0)
    return torch.where(which < stage.larger, 1 + (high - 1) * where, smaller)


def _noisy(x: Tensor, noise: Tensor, u: Iterator[Tensor], stage: Round, strength: float) -> Tensor:
    """Gaussian noise, or the normal approximation of a Poisson count's, whose variance grows with the level."""
    gaussian, grey = next(u) < stage.gaussian, _each(next(u) < stage.grey)
    sigma, shot = (strength * _between(u, limits) for limits in (stage.noise, stage.shot))
    level = torch.where(grey, luminance(x), x).clamp_(min=0)  # bicubic interpolation goes below 0
    variance = _each(sigma.square() * gaussian) + _each(shot.square() * ~gaussian) * level
    return torch.addcmul(x, torch.where(grey, noise[:, :1], noise), variance.sqrt_()).clamp_(0, 255)


def _blurs(u: Iterator[Tensor], stage: Round, strength: float) -> Tensor:
    """[n, side, side]: a round's kernels, each with the sum 1."""
    rows, columns, window = _window(u, stage.side, stage.blur)
    sinc = _sinc(u, rows, columns, strength)
    shape, rings, isotropic = (next(u)[:, None, None] for _ in range(3))
    limits = (0, math.pi), stage.sigma, stage.sigma, stage.generalised_beta, stage.plateau_beta
    angle, sigma, other, beta, plateau_beta = (_between(u, pair)[:, None, None] for pair in limits)
    other = torch.where(isotropic < stage.isotropic, sigma, other)
    along, across = columns * angle.cos() + rows * angle.sin(), rows * angle.cos() - columns * angle.sin()
    turned = zip((along, across), (sigma, other), strict=True)
    q = sum((way / (strength * width).clamp(min=THINNEST)).square() for way, width in turned)
    kernels = torch.exp(-torch.where(shape < stage.generalised, q**beta, q) / 2)
    kernels = torch.where(shape > 1 - stage.plateau, 1 / (1 + q**plateau_beta), kernels)
    return _normalised(torch.where(rings < stage.sinc, sinc, kernels) * window)


def _last_filters(u: Iterator[Tensor], how: Degradation) -> Tensor:
    """[n, side, side]: the sinc filters that follow the last resizing, or 1 in the middle for none."""
    rows, columns, window = _window(u, how.side, how.sinc)
    return _normalised(_sinc(u, rows, columns, how.strength) * window)


def _window(u: Iterator[Tensor], side: tuple[int, int], probability: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [side, 1] and columns [side] from a kernel's middle, and which of them it has: [n, side, side] bool.

    Where there is to be no kernel, with 1 - probability, that is the middle alone.
    """
    low, high = side[0] // 2, side[1] // 2
    radius = _between(u, (low, high + 1)).floor().clamp(max=high) * (next(u) < probability)
    columns = torch.arange(-high, high + 1, device=radius.device)
    rows = columns[:, None]
    return rows, columns, rows.abs().maximum(columns.abs()) <= radius[:, None, None]


def _sinc(u: Iterator[Tensor], rows: Tensor, columns: Tensor, strength: float) -> Tensor:
    """Ideal low-pass filters of a random cutoff, cut to the window: they ring (Real-ESRGAN, equation 7)."""
    cutoff = (math.pi - strength * (math.pi - _between(u, CUTOFF)))[:, None, None]
    r = (rows.square() + columns.square()).sqrt().clamp(min=1e-3)  # in the middle: near the limit for r = 0
    return cutoff / (2 * math.pi * r) * torch.special.bessel_j1(cutoff * r)


def _normalised(kernels: Tensor) -> Tensor:
    return kernels / kernels.sum((1, 2), keepdim=True)
