"""Layers for recipes: their result does not depend on how many processes share a batch, and they can be exported."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from edgegan.errors import ArgumentError
from edgegan.trainer.parallel import lost_peers

EPSILON = 2e-8  # the papers have 1e-8, which torch's exporter to ONNX takes for 0 and leaves out: 0 / 0 there


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of [n, C, ...] over the whole batch, also where several processes hold parts of it.

    Paper: Ioffe, Szegedy 2015. On one process, and in eval mode, it is torch's own. torch's SyncBatchNorm exists for
    GPUs only and cannot be differentiated twice; this one is made of differentiable sums.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f"batch norm of shape {list(x.shape)}; valid: [n, C, ...]")

    def forward(self, x: Tensor) -> Tensor:
        """Like torch's: normalise by the batch's statistics in training, by the running ones in eval mode."""
        if not self.training or _world() == 1:
            return super().forward(x)
        dims = [0, *range(2, x.dim())]
        count = x.numel() // x.shape[1] * _world()
        shape = [1, -1] + [1] * (x.dim() - 2)
        values = x.float()
        mean = _total(values.sum(dims)) / count
        centred = values - mean.view(shape)
        variance = _total(centred.square().sum(dims)) / count
        if self.track_running_stats:
            self._remember(mean.detach(), variance.detach() * (count / max(1, count - 1)))
        y = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        weight = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


class Dropout(nn.Module):
    """Drop each element of [n, C, ...] with probability `p` and scale the rest by 1 / (1 - p), in training only.

    Paper: Srivastava et al. 2014. The mask is drawn for the whole batch, and each process takes its part of it. It is
    laid out with the channels last, as the nets' tensors are: on a processor a mask in another order than x takes
    several times as long to multiply with.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """[n, C, ...] -> the same shape."""
        if not self.training or not self.p:
            return x
        kept = uniform(len(x), x.device, *x.shape[2:], *x.shape[1:2]) >= self.p
        return x * (kept.to(x.dtype) / (1 - self.p)).movedim(-1, 1)


def uniform(n: int, device: torch.device, *shape: int) -> Tensor:
    """[n, *shape] float32 from [0, 1), for n pictures: each process's part of what is drawn for the whole batch."""
    return uniform_of_all(n, device, *shape)[_part(n)]


def uniform_of_all(n: int, device: torch.device, *shape: int) -> Tensor:
    """The whole that each process has its n pictures' part of: the same on all of them."""
    return torch.rand((n * _world(), *shape), device=device)


def normal(n: int, device: torch.device, *shape: int) -> Tensor:
    """[n, *shape] float32 from N(0, 1), as `uniform`."""
    return torch.randn((n * _world(), *shape), device=device)[_part(n)]


def mean_of_processes(x: Tensor) -> Tensor:
    """The mean of what the processes hold; all of them get it. Differentiable."""
    return x if _world() == 1 else _total(x) / _world()


class ImagePool(nn.Module):
    """Fakes of before, for D to see beside those of now: it keeps D from running after G in circles.

    Paper: Shrivastava et al. 2017, "Learning from Simulated and Unsupervised Images through Adversarial Training"; the
    form is that of CycleGAN (Zhu et al. 2017, section 4). Part of a checkpoint; the same on all processes.
    """

    def __init__(self, size: int, *shape: int) -> None:
        """size: pictures that are kept; shape: of one, [C, H, W]."""
        super().__init__()
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def exchange(self, fakes: Tensor) -> Tensor:
        """[n, C, H, W] -> as many, without gradients.

        Until the pool is full, each picture is kept and comes back. Then with probability 1/2 an old one comes back in
        its place, and it stays instead.
        """
        images, count = self.get_buffer("images"), self.get_buffer("count")
        size, back = len(images), []
        if not size:
            return fakes
        for fake, (which, whether) in zip(
            _of_all(fakes.float()) if _world() > 1 else fakes.float(),
            uniform_of_all(len(fakes), fakes.device, 2),
            strict=True,
        ):  # one by one, for each may meet the one before; nothing here waits for a GPU
            growing = count < size
            place = torch.where(growing, count, (which * size).long())[None]
            old, kept = images[place], growing | (whether < 0.5)
            back.append(torch.where(growing | ~kept, fake, old[0]))
            images[place] = torch.where(kept, fake, old)
            count += growing
        return torch.stack(back)[_part(len(fakes))].to(fakes.dtype)


def pack(images: Tensor, size: int) -> Tensor:
    """[n, C, ...] -> [n / size, size * C, ...]: join pictures that follow one another, so that D judges them together.

    Paper: Lin et al. 2018, "PacGAN: The power of two samples in generative adversarial networks": a pack of fakes that
    are too much alike gives a collapsed G away. Raises ArgumentError if `size` does not divide n.
    """
    n, channels = images.shape[:2]
    check_pack(n, size)
    return images if size == 1 else images.reshape(n // size, size * channels, *images.shape[2:])


def check_pack(n: int, size: int) -> None:
    """Raise ArgumentError unless packs of `size` take up n images."""
    if n % size:
        raise ArgumentError(
            f"{n} images do not make packs of {size}; pass a multiple of {size} as --batch, so that each process and "
            f"each piece of --micro-batch has a multiple of {size}, too"
        )


def packs_of_each(n: int, size: int, device: torch.device) -> Tensor:
    """[n * size] int64: the positions that make a pack of each of n pictures and those that follow it, in a circle.

    images[packs_of_each(n, size, device)] is what a D that packs must see to say something of each picture: [n] logits.
    """
    places = torch.arange(n, device=device)[:, None] + torch.arange(size, device=device)
    return (places % n).flatten()


class EqualizedLinear(nn.Linear):
    """A linear layer whose weights start as N(0, 1) and are scaled as they are used: [n, i] -> [n, o].

    Paper: Karras et al. 2018, "Progressive Growing of GANs", section 4.1: He's constant at run time, so that Adam moves
    all weights at one speed. rate: weights and bias learn so many times as fast (0.01 in StyleGAN's mapping network).
    """

    def __init__(self, inputs: int, outputs: int, *, gain: float = 1.0, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__(inputs, outputs)
        self.scale, self.rate = gain * rate * inputs**-0.5, rate
        nn.init.normal_(self.weight, 0, 1 / rate)
        nn.init.constant_(self.bias, bias / rate)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualizedConv2d(nn.Conv2d):
    """A convolution with zero padding, its weights as those of `EqualizedLinear`: [n, i, h, w] -> [n, o, h, w].

    kernel: its side in pixels, odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, gain: float = 2**0.5, bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        self.scale = gain * (inputs * kernel**2) ** -0.5
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


def pixel_norm(x: Tensor) -> Tensor:
    """[n, C, ...], each pixel's (or vector's) channels divided by their root mean square (Karras et al. 2018, 4.2)."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPSILON)


def minibatch_deviation(x: Tensor, group: int = 4, together: bool = False) -> Tensor:
    """[n, C, h, w] -> [n, C + 1, h, w]: a last channel that tells D how much the pictures of a group differ.

    Paper: Karras et al. 2018, section 3: the standard deviation over the group, averaged over channels and pixels. The
    group is the whole batch there, and 4 pictures in the authors' later code. Here it is `group` pictures that follow
    one another; a batch that is no multiple of that is one group. together: whether all processes are here with a part
    of a batch, as in training; then the groups are those of the whole batch, on any number of processes.
    """
    n, channels, h, w = x.shape
    cut = together and _world() > 1 and n % group != 0  # the ends of the parts cut groups
    values = _of_all(x.float()) if cut else x.float()
    group = group if len(values) % group == 0 else len(values)
    groups = values.reshape(len(values) // group, group, channels, h, w)
    deviation = (groups.var(1, unbiased=False) + EPSILON).sqrt().mean((1, 2, 3)).repeat_interleave(group)
    plane = (deviation[_part(n)] if cut else deviation)[:, None, None, None].expand(n, 1, h, w)
    return torch.cat([x, plane.to(x.dtype)], 1)


# How the weights of a convolution with 3 taps, filtered with (1, 3, 3, 1) / 4, act on the small picture: three small
# pixels make an even pixel of the large one by these sums of the 3 taps over 4, and an odd one by the next three.
_FILTERED = ((3, 1, 0), (1, 3, 3), (0, 0, 1), (1, 0, 0), (3, 3, 1), (0, 1, 3))


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    demodulate: bool = True,
    up: int = 1,
    gain: float = 1.0,
    filtered: bool = False,
) -> Tensor:
    """Convolve each picture with weights that its style scales: [n, I, h, w] -> [n, O, up * h, up * w].

    Paper: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", equations 1 to 3. weight:
    [O, I, k, k], k odd, zero padding. style: [n, I], 1 where nothing is to change. demodulate: divide by each output
    channel's norm, so that outputs of unit variance stay so. up: repeat each pixel up x up times first. filtered: then
    blur what was convolved, which is the paper's transposed convolution with a filter of (1, 3, 3, 1) behind it; up is
    2 and k is 3. gain: what the output is multiplied by, at no cost: 2 ** 0.5 makes good for a LeakyReLU behind it. n
    may be 1 in x, for one picture that all styles change.

    The paper scales the weights, w[o, i] * s[i], one set for each picture: a convolution in groups, whose number is
    the batch. A convolution is linear, so scaling x[i] by s[i] before and the output o by 1 / norm[o] after it is the
    same. The weights are then constants, and the batch is free when it is exported.

    Raises ValueError for other shapes.
    """
    channels, kernel = weight.shape[1], weight.shape[2:]
    if x.dim() != 4 or x.shape[1] != channels or style.dim() != 2 or style.shape[1] != channels:
        raise ValueError(
            f"modulated convolution of {list(x.shape)} by style {list(style.shape)}; valid for weight "
            f"{list(weight.shape)}: [n, {channels}, h, w] and [n, {channels}]"
        )
    if len(kernel) != 2 or kernel[0] != kernel[1] or kernel[0] % 2 == 0:
        raise ValueError(f"weight of shape {list(weight.shape)}; valid: [O, I, k, k] with k odd")
    if filtered and (up, kernel[0]) != (2, 3):
        raise ValueError(f"filtered with up {up} and k {kernel[0]}; valid: 2 and 3")
    x = x * style[:, :, None, None]
    if up > 1 and not filtered:
        x = F.interpolate(x, scale_factor=up, mode="nearest")
    taps = weight if demodulate else weight * gain
    if filtered:  # the four pixels that a pixel becomes are channels until they are shuffled to their places
        matrix = torch.tensor(_FILTERED, dtype=weight.dtype, device=weight.device) / 4
        taps = (matrix @ taps @ matrix.t()).unflatten(3, (2, 3)).unflatten(2, (2, 3))  # [O, I, 2, 3, 2, 3]
        taps = taps.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    y = F.conv2d(x, taps, padding=kernel[0] // 2)
    if filtered:
        y = F.pixel_shuffle(y, 2)
    if not demodulate:
        return y
    norm = style.square() @ weight.square().sum((2, 3)).t()
    return y * (gain * torch.rsqrt(norm + EPSILON))[:, :, None, None]


class _Total(torch.autograd.Function):
    """The sum over the processes. Each one's part is in all of their sums, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.contiguous().clone()
        with lost_peers():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _total(gradients[0])


def _total(x: Tensor) -> Tensor:
    total: Tensor = _Total.apply(x)
    return total


def _of_all(x: Tensor) -> Tensor:
    """[n, ...] of each process -> [processes * n, ...], in their order. Differentiable."""
    mine = _part(len(x))
    before, after = x.new_zeros(mine.start, *x.shape[1:]), x.new_zeros(_world() * len(x) - mine.stop, *x.shape[1:])
    return _total(torch.cat([before, x, after]))


def _part(n: int) -> slice:
    """Where this process's n pictures lie among those of all."""
    first = dist.get_rank() * n if _world() > 1 else 0
    return slice(first, first + n)


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
