"""Degraded pictures against Pillow's JPEG and resizing, SciPy's filters and closed forms."""

import dataclasses
import io
import math

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import skimage.data
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from edgegan.errors import ArgumentError
from edgegan.trainer import degrade as degradation
from edgegan.trainer.degrade import CLEAN, GFPGAN, REAL_ESRGAN, Degradation, Round, degrade, noise_dim
from edgegan.trainer.jpeg import jpeg, quantisation

NOTHING = Round(blur=0, larger=0, smaller=0, gaussian=1, noise=(0, 0), quality=(100, 100))
PRESETS = [REAL_ESRGAN(1), REAL_ESRGAN(2), REAL_ESRGAN(4), GFPGAN()]


def photographs(n: int, side: int, channels: int = 3) -> NDArray[np.uint8]:
    """[n, side, side, channels]: squares of a photograph."""
    whole = Image.fromarray(skimage.data.astronaut()).convert("RGB" if channels == 3 else "L")
    corners = [(160 + 60 * (i % 3), 10 + 70 * (i // 3)) for i in range(n)]
    squares = [whole.crop((x, y, x + side, y + side)) for x, y in corners]
    return np.stack([np.asarray(square).reshape(side, side, channels) for square in squares])


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_levels(x: Tensor) -> NDArray[np.float32]:
    return ((x + 1) * 127.5).permute(0, 2, 3, 1).numpy()


def normals(x: Tensor, how: Degradation, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(x), noise_dim(how, *x.shape[1:]), generator=generator)


def only(**changes: object) -> Degradation:
    """One round that does nothing but what `changes` say, in a file of quality 100."""
    return Degradation(rounds=(dataclasses.replace(NOTHING, **changes),), late=0, sinc=0)  # type: ignore[arg-type]


def psnr(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(np.float64) - b).mean()))


def saved_as_jpeg(picture: NDArray[np.uint8], quality: int) -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return Image.open(file)


def test_quantisation_is_that_of_pillow_at_every_quality() -> None:
    steps = quantisation(torch.arange(1.0, 101))
    for quality in range(1, 101):
        tables = saved_as_jpeg(np.zeros((8, 8, 3), np.uint8), quality).quantization  # type: ignore[attr-defined]
        assert steps[quality - 1].tolist() == [list(tables[0]), list(tables[1])], quality


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_that_of_pillow(channels: int) -> None:
    """Sizes that fill no block, each picture with its own quality."""
    pictures = photographs(4, 147, channels)[:, :, :93]
    qualities = [10, 30, 75, 95]
    ours = jpeg(torch.from_numpy(pictures).permute(0, 3, 1, 2).float(), torch.tensor(qualities).float())
    for mine, picture, quality in zip(ours.permute(0, 2, 3, 1).numpy(), pictures, qualities, strict=True):
        pillow = np.asarray(saved_as_jpeg(picture, quality)).reshape(picture.shape)
        assert psnr(mine, pillow) > 44
        assert psnr(mine, pillow) > psnr(picture, pillow) + 6


def test_jpeg_rounds_scipys_cosine_transform() -> None:
    blocks = photographs(6, 8, 1)[:, :, :, 0].astype(np.float64)
    quality = torch.tensor([5.0, 20, 50, 70, 90, 100])
    steps = quantisation(quality)[:, 0].view(6, 8, 8).numpy()
    coefficients = scipy.fft.dctn(blocks - 128, axes=(1, 2), norm="ortho")
    expected = scipy.fft.idctn(np.round(coefficients / steps) * steps, axes=(1, 2), norm="ortho") + 128
    ours = jpeg(torch.from_numpy(blocks).float()[:, None], quality)[:, 0].numpy()
    assert np.abs(ours - expected.clip(0, 255)).max() < 1e-2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_clean_is_pillows_bicubic(scale: int, channels: int) -> None:
    pictures = photographs(2, 60, channels)[:, :48]
    x = to_tensor(pictures)
    y = to_levels(degrade(x, torch.zeros(2, noise_dim(CLEAN(scale), channels, 48, 60)), CLEAN(scale)))
    for mine, picture in zip(y, pictures, strict=True):
        small = Image.fromarray(picture.squeeze()).resize((60 // scale, 48 // scale), Image.Resampling.BICUBIC)
        assert np.abs(mine - np.asarray(small).reshape(mine.shape)).max() <= 1.001
    strong = dataclasses.replace(REAL_ESRGAN(scale), strength=0.0)
    assert torch.equal(degrade(x, torch.zeros(2, 1), strong), degrade(x, torch.zeros(2, 1), CLEAN(scale)))


def interpolation(size: int, to: int, mode: int, canvas: int = 0) -> Tensor:
    args = [size + canvas, torch.tensor([float(size)]), to + canvas, torch.tensor([float(to)])]
    return degradation._interpolation(*args, torch.tensor([float(mode)]), False)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("to", [1, 5, 11, 17, 29])
def test_each_interpolation_has_a_known_answer(to: int) -> None:
    size = 17
    x = torch.linspace(-1, 1, size).sin() + torch.arange(size) % 3
    area = x.repeat_interleave(to).view(to, size).mean(1)
    assert torch.allclose(interpolation(size, to, degradation.AREA) @ x, area, atol=1e-5)
    linear = F.interpolate(x[None, None], to, mode="linear", align_corners=False)[0, 0]
    assert torch.allclose(interpolation(size, to, degradation.BILINEAR) @ x, linear, atol=1e-5)
    if to >= size:  # Pillow widens the filter for smaller ones
        pillow = Image.fromarray(x.numpy()[None]).resize((to, 1), Image.Resampling.BICUBIC)
        cubic = torch.from_numpy(np.asarray(pillow)[0].copy())
        assert torch.allclose(interpolation(size, to, degradation.BICUBIC) @ x, cubic, atol=1e-5)


@pytest.mark.parametrize("mode", [degradation.AREA, degradation.BILINEAR, degradation.BICUBIC])
def test_what_lies_beside_a_picture_on_its_canvas_is_not_looked_at(mode: int) -> None:
    matrix = interpolation(7, 5, mode, canvas=9)
    assert torch.equal(matrix[:5, :7], interpolation(7, 5, mode))
    assert not matrix[:, 7:].any()
    assert matrix.isfinite().all()


def test_a_gaussian_blur_is_scipys() -> None:
    how = only(blur=1, side=(21, 21), sigma=(2, 2), isotropic=1, generalised=0, plateau=0, sinc=0)
    picture = photographs(1, 48, 1)
    x = to_tensor(picture)
    expected = scipy.ndimage.gaussian_filter(picture[0, :, :, 0].astype(float), 2, radius=10, mode="nearest")
    assert np.abs(to_levels(degrade(x, normals(x, how), how))[0, :, :, 0] - expected).max() < 1.5


def kernels(stage: Round, n: int = 200, strength: float = 1.0) -> Tensor:
    u, _ = degradation._draws(torch.randn(n, 11, generator=torch.Generator().manual_seed(0)), 11)
    return degradation._blurs(u, stage, strength)


def test_kernels_sum_to_one_and_differ_in_size() -> None:
    drawn = kernels(Round())
    assert drawn.shape == (200, 21, 21)
    assert torch.allclose(drawn.sum((1, 2)), torch.ones(200), atol=1e-5)
    assert torch.allclose(drawn, drawn.flip(1, 2), atol=1e-6)
    radii = {int(kernel.abs().amax(0).nonzero().max()) - 10 for kernel in kernels(Round(sinc=1))}
    assert radii == set(range(3, 11))
    pulse = kernels(Round(blur=0))
    assert torch.equal(pulse[:, 10, 10], torch.ones(200))


def test_an_anisotropic_kernel_has_the_moments_of_its_widths() -> None:
    """The square roots of its covariance's eigenvalues are the two sigmas, at any angle."""
    drawn = kernels(Round(side=(41, 41), sigma=(1, 3), isotropic=0, generalised=0, plateau=0, sinc=0)).double()
    places = torch.arange(-20.0, 21).double()
    xx = (drawn * places**2).sum((1, 2))
    yy = (drawn * places[:, None] ** 2).sum((1, 2))
    xy = (drawn * places * places[:, None]).sum((1, 2))
    spread = ((xx - yy) ** 2 / 4 + xy**2).sqrt()
    large, small = ((xx + yy) / 2 + spread).sqrt(), ((xx + yy) / 2 - spread).sqrt()
    assert 0.99 < small.min() < 1.1
    assert 2.9 < large.max() < 3.01
    angle = torch.atan2(2 * xy, xx - yy)  # twice the axis' angle
    assert angle.cos().mean().abs() < 0.2
    assert angle.sin().mean().abs() < 0.2


def test_a_sinc_filter_passes_what_is_slower_than_its_cutoff() -> None:
    stage = Round(sinc=1, side=(41, 41))
    response = torch.fft.fft2(kernels(stage), s=(128, 128)).abs()
    omega = 2 * math.pi * torch.arange(65) / 128
    along = response[:, 0, :65]
    assert (along[:, omega < 0.8 * math.pi / 3] - 1).abs().max() < 0.25  # passed by all
    cutoffs = along.square().sum(1) * 2 * math.pi / 128  # of an ideal filter
    assert cutoffs.min().item() == pytest.approx(math.pi / 3, rel=0.1)
    assert cutoffs.max().item() == pytest.approx(math.pi, rel=0.1)
    assert cutoffs.mean().item() == pytest.approx(2 * math.pi / 3, rel=0.1)


def test_a_blur_keeps_the_mean_and_lowers_the_variance() -> None:
    x = torch.zeros(8, 1, 64, 64)
    x[:, :, 22:42, 22:42] = to_tensor(photographs(8, 20, 1)) * 0.8
    how = only(blur=1, sinc=0)
    y = degrade(x, normals(x, how), how)
    assert (y - x).mean((1, 2, 3)).abs().max() < 0.5 / 127.5
    assert (y.var((1, 2, 3)) < x.var((1, 2, 3))).all()


@pytest.mark.parametrize("level", [64, 160])
def test_noise_has_the_deviation_that_was_asked_for(level: int) -> None:
    x = torch.full((4, 1, 64, 64), level / 127.5 - 1)
    for how, expected in (
        (only(noise=(10, 10)), 10.0),
        (only(gaussian=0, shot=(0.8, 0.8)), 0.8 * level**0.5),
        (dataclasses.replace(only(noise=(20, 20)), strength=0.5), 10.0),
    ):
        y = to_levels(degrade(x, normals(x, how), how))
        assert y.std() == pytest.approx(expected, rel=0.03)
        assert y.mean() == pytest.approx(level, abs=0.5)


def test_grey_noise_is_the_same_in_all_channels() -> None:
    x = torch.zeros(2, 3, 64, 64)
    grey, coloured = (degrade(x, normals(x, how), how) for how in (only(noise=(20, 20), grey=p) for p in (1, 0)))
    assert (grey[:, 0] - grey[:, 1]).std() < 1 / 127.5
    assert (coloured[:, 0] - coloured[:, 1]).std() > 5 / 127.5
    assert grey.std() == pytest.approx(20 / 127.5, rel=0.05)


def test_the_last_jpeg_comes_before_or_after_the_last_resizing() -> None:
    """After it, the result is a file of Pillow's made of the result without loss; before it, blocks become smaller."""
    x = to_tensor(photographs(4, 128))
    rounds = [(dataclasses.replace(NOTHING, quality=(q, q)),) for q in (100, 10)]
    for late in (0.0, 1.0):
        whole, lossy = (
            to_levels(degrade(x, normals(x, how), how))
            for how in (Degradation(2, rounds=r, late=late, sinc=0) for r in rounds)
        )
        files = np.stack([np.asarray(saved_as_jpeg(picture, 10)) for picture in whole.round().astype(np.uint8)])
        assert (psnr(lossy, files) > 40) == bool(late)


def test_strength_takes_a_share_from_what_jpeg_loses() -> None:
    picture = photographs(1, 64)
    x, how = to_tensor(picture), dataclasses.replace(only(quality=(20, 20)), strength=0.5)
    y = to_levels(degrade(x, normals(x, how), how))[0].round()
    assert psnr(y, np.asarray(saved_as_jpeg(picture[0], 60))) > 44


def test_the_canvas_does_not_show_in_the_picture() -> None:
    """Noise beside pictures that became 18 x 20, half of 37 x 40, changes nothing, in blocks at the edge either."""
    x = to_tensor(photographs(4, 40))[:, :, :37]
    first = dataclasses.replace(NOTHING, divide=True, resize=(0.5, 0.5), noise=(20, 20), quality=(10, 10))
    how = Degradation(rounds=(first, Round()), late=0)
    z = normals(x, how)
    y = degrade(x, z, how)
    plane = z[:, 5 + 19 :][:, : 3 * 37 * 40].view(4, 3, 37, 40)
    plane[:, :, 18:] += 5
    plane[:, :, :, 20:] -= 5
    assert torch.equal(degrade(x, z, how), y)


def test_later_rounds_resize_relative_to_the_result() -> None:
    """Half of it here: of noise, nothing above half of the result's highest frequency is left."""
    x = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    half, same = (dataclasses.replace(NOTHING, divide=True, resize=(f, f)) for f in (0.5, 1.0))
    spectra = []
    for second in (half, same):
        how = Degradation(2, rounds=(NOTHING, second), late=0, sinc=0)
        z = normals(x, how)
        z[:, 1] = 0  # the last resizing is bilinear
        spectra.append(torch.fft.rfft2(degrade(x, z, how))[:, 0].abs().mean(0))
    assert (spectra[0] / spectra[1])[14:18, 13:].max() < 0.2


def test_the_last_filter_takes_away_what_is_fast() -> None:
    x = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    z = normals(x, only())
    z[:, 3:5] = torch.tensor([0.0, -6.0])  # which of its numbers these are: probability, cutoff
    filtered, untouched = (degrade(x, z, dataclasses.replace(only(), sinc=p)) for p in (1.0, 0.0))
    spectra = [torch.fft.rfft2(y)[:, 0].abs().mean(0) for y in (filtered, untouched)]
    assert (spectra[0] / spectra[1])[30:34, 25:].max() < 0.1
    assert (spectra[0] / spectra[1])[:5, 1:5].min() > 0.8


def test_factors_are_drawn_as_the_papers_say() -> None:
    u = torch.rand(2, 20000, generator=torch.Generator().manual_seed(0))
    factors = degradation._factors(iter(u), Round())
    assert (factors > 1).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert (factors < 1).float().mean().item() == pytest.approx(0.7, abs=0.01)
    assert factors[factors > 1].mean().item() == pytest.approx(1.25, abs=0.01)
    assert factors[factors < 1].mean().item() == pytest.approx(0.575, abs=0.01)
    divisors = 1 / degradation._factors(iter(u), degradation.FACES)
    assert divisors.mean().item() == pytest.approx(4.4, abs=0.05)
    assert (divisors.min().item(), divisors.max().item()) == pytest.approx((0.8, 8), abs=0.01)


@pytest.mark.parametrize("how", [REAL_ESRGAN(2), GFPGAN()])
@pytest.mark.parametrize("channels", [1, 3])
def test_stronger_is_worse(how: Degradation, channels: int) -> None:
    x = to_tensor(photographs(9, 48, channels))
    clean = degrade(x, torch.zeros(9, 1), CLEAN(how.scale))
    errors = []
    for strength in (0.1, 0.4, 0.7, 1.0):
        weaker = dataclasses.replace(how, strength=strength)
        errors.append((degrade(x, normals(x, weaker), weaker) - clean).square().mean().item())
    assert errors == sorted(errors)
    assert errors[-1] > 4 * errors[0]


@pytest.mark.parametrize("how", PRESETS)
def test_a_picture_is_a_function_of_itself_and_its_noise(how: Degradation) -> None:
    """Alone or in a batch, and again; sums may be added up in another order, which can flip a rounding."""
    x = to_tensor(photographs(5, 32))
    before, z = x.clone(), normals(x, how)
    y = degrade(x, z, how)
    assert torch.equal(y, degrade(x, z, how))
    assert torch.equal(x, before)
    alone = torch.cat([degrade(x[i : i + 1], z[i : i + 1], how) for i in range(5)])
    assert ((y - alone).abs() * 127.5 < 0.5).float().mean() > 0.99
    assert (y - alone).abs().mean() < 0.05 / 127.5
    other = degrade(x, normals(x, how, seed=1), how)
    assert (y - other).abs().mean((1, 2, 3)).min() > 1 / 127.5


@pytest.mark.parametrize("how", PRESETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_and_any_noise_gives_levels_of_eight_bits(how: Degradation, channels: int) -> None:
    for height, width in ((1, 1), (1, 4), (5, 3), (16, 9)):
        x = torch.rand(4, channels, height * how.scale, width * how.scale) * 2 - 1
        z = normals(x, how)
        z[1:] = torch.tensor([-9.0, 0.0, 9.0])[:, None]  # the ends of every range
        y = degrade(x, z, how)
        assert y.shape == (4, channels, height, width)
        levels = (y + 1) * 127.5
        assert (levels - levels.round()).abs().max() < 1e-3
        assert levels.min() > -1e-3
        assert levels.max() < 255.001


def test_computes_in_float32_whatever_is_around() -> None:
    how = REAL_ESRGAN(2)
    x = to_tensor(photographs(2, 32))
    z = normals(x, how)
    y = degrade(x, z, how)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(degrade(x, z, how), y)
    half = degrade(x.bfloat16(), z, how)
    assert half.dtype == torch.float32
    assert torch.equal(half, degrade(x.bfloat16().float(), z, how))
    assert torch.equal(degrade(x.to(memory_format=torch.channels_last), z, how), y)
    assert not degrade(x.requires_grad_(), z, how).requires_grad


def test_takes_as_much_noise_as_it_says() -> None:
    """5 numbers for the end, 19 for each round, and a plane of noise of the largest size of each."""
    assert noise_dim(REAL_ESRGAN(2), 3, 64, 32) == 5 + 2 * 19 + 3 * 96 * 48 + 3 * 38 * 19
    assert noise_dim(GFPGAN(), 1, 64, 64) == 5 + 19 + 80 * 80
    assert noise_dim(CLEAN(4), 3, 64, 64) == 1
    assert noise_dim(dataclasses.replace(GFPGAN(), strength=0.5), 1, 64, 64) == 5 + 19 + 71 * 71  # 1.25 ** 0.5 as large


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: Degradation(scale=0), "scale is 0"),
        (lambda: Degradation(strength=1.5), "strength is 1.5"),
        (lambda: Degradation(rounds=()), "rounds is empty"),
        (lambda: noise_dim(CLEAN(2), 3, 63, 64), "63 x 64; valid: multiples of the scale 2"),
        (lambda: noise_dim(CLEAN(2), 2, 64, 64), "2 channels"),
        (lambda: degrade(torch.zeros(3, 8, 8), torch.zeros(1, 1), CLEAN(2)), r"shape \[3, 8, 8\]"),
        (lambda: degrade(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3), CLEAN(2)), r"valid .*: \[2, 1\]"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(act: object, said: str) -> None:
    with pytest.raises(ArgumentError, match=said) as caught:
        act()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
