"""What a JPEG file keeps of a picture, computed on any device: colour, 8 x 8 cosine transform, quantisation, and back.

ITU-T T.81 (1992), with the tables of its annex K, the quality scale of libjpeg, JFIF's YCbCr and 4:2:0 chroma. Neither
the entropy coding, which loses nothing, nor a file is there.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8  # pixels; chroma has half the resolution, so that a colour picture is made of squares of 16
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue

# Steps of the coefficients' quantisation at quality 50, rows of vertical frequency (T.81, tables K.1 and K.2).
LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)


def jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """[n, C, H, W], grey (C = 1) or RGB (C = 3) levels in [0, 255] -> the same after a JPEG file, not rounded.

    quality: [n], 1 to 100, rounded to whole numbers. H and W are any: edges are repeated until blocks are full, as
    libjpeg does.
    """
    channels, height, width = x.shape[1:]
    unit = BLOCK if channels == 1 else 2 * BLOCK
    x = F.pad(x, (0, -width % unit, 0, -height % unit), mode="replicate")
    luma_steps, chroma_steps = quantisation(quality).unbind(1)
    if channels == 1:
        y = _quantised(x.round() - 128, luma_steps) + 128
    else:
        to_ycc, to_rgb = _colours(x.device)
        ycc = (to_ycc @ x.flatten(2)).view_as(x)
        luma = _quantised(ycc[:, :1].round() - 128, luma_steps) + 128
        chroma = _quantised(F.avg_pool2d(ycc[:, 1:], 2).round(), chroma_steps)
        # Each new pixel weighs its four neighbours 9 : 3 : 3 : 1, as libjpeg's upsampling of 4:2:0 does.
        chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
        y = (to_rgb @ torch.cat([luma, chroma], 1).flatten(2)).view_as(x)
    return y[:, :, :height, :width].clamp(0, 255)


def luminance(x: Tensor) -> Tensor:
    """[n, 3, H, W] RGB -> [n, 1, H, W], JFIF's Y; grey pictures [n, 1, H, W] stay."""
    return x if x.shape[1] == 1 else LUMA[0] * x[:, :1] + LUMA[1] * x[:, 1:2] + LUMA[2] * x[:, 2:]


def quantisation(quality: Tensor) -> Tensor:
    """[n], 1 to 100 -> [n, 2, 64]: steps of luma's and chroma's coefficients in rows, whole numbers from 1 to 255."""
    q = quality.round().clamp(1, 100)
    percent = torch.where(q < 50, (5000 / q).floor(), 200 - 2 * q)
    steps = _steps(quality.device)
    return ((steps * percent[:, None, None] + 50) / 100).floor().clamp(1, 255)


def _quantised(planes: Tensor, steps: Tensor) -> Tensor:
    """Planes [n, c, H, W] from -128 to 127, through their cosine transform rounded to steps [n, 64]."""
    n, c, height, width = planes.shape
    basis = _cosines(planes.device)
    blocks = F.pixel_unshuffle(planes, BLOCK).view(n, c, BLOCK**2, -1)
    steps = steps[:, None, :, None]
    blocks = basis.t() @ (basis @ blocks).div_(steps).round_().mul_(steps)
    blocks = blocks.clamp_(-128, 127).view(n, c * BLOCK**2, height // BLOCK, width // BLOCK)
    return F.pixel_shuffle(blocks, BLOCK)


# Kept on each device: making them anew takes longer than using them.


@functools.cache
def _steps(device: torch.device) -> Tensor:
    """[2, 64]: steps of luma and chroma at quality 50."""
    return torch.tensor([LUMA_STEPS, CHROMA_STEPS], dtype=torch.float32, device=device).flatten(1)


@functools.cache
def _cosines(device: torch.device) -> Tensor:
    """[64, 64], orthonormal: a block's pixels in rows -> its coefficients in rows (T.81, A.3.3)."""
    place = torch.arange(BLOCK, dtype=torch.float64)
    waves = torch.cos((2 * place + 1) * place[:, None] * (math.pi / (2 * BLOCK))) * (2 / BLOCK) ** 0.5
    waves[0] /= 2**0.5
    return torch.kron(waves, waves).to(device, torch.float32)


@functools.cache
def _colours(device: torch.device) -> tuple[Tensor, Tensor]:
    """[3, 3] and [3, 3]: RGB -> YCbCr, chroma around 0 and as wide as luma (JFIF), and back."""
    luma, unit = torch.tensor(LUMA, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    blue, red = ((unit[i] - luma) / (2 * (1 - luma[i])) for i in (2, 0))
    to_ycc = torch.stack([luma, blue, red])
    return to_ycc.to(device, torch.float32), to_ycc.inverse().to(device, torch.float32)
