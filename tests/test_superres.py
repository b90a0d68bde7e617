"""The recipe superres: sizes and scales, what it starts from, sources as Pillow makes them, what it learns."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from edgegan.errors import ArgumentError
from edgegan.trainer import recipes
from edgegan.trainer.recipe import Batch, DataShape, Progress
from edgegan.trainer.recipes import superres
from edgegan.trainer.recipes.superres import Config

SMALL = {"width": 8, "blocks": 1, "d_width": 8}


def grey_levels(images: torch.Tensor) -> np.ndarray:
    return ((images.numpy() + 1) * 127.5).round().astype(np.uint8)


def squares(n: int, side: int, seed: int) -> torch.Tensor:
    """[n, 1, side, side]: squares of random place and size, a pixel between them at least, on another grey."""
    rng = np.random.default_rng(seed)
    images = np.repeat(rng.uniform(-1, 1, (n, 1, 1, 1)).astype(np.float32), side, 2).repeat(side, 3)
    for image in images:
        for _ in range(4):
            y, x = rng.integers(0, side - 4, 2)
            h, w = rng.integers(3, side // 2, 2)
            image[:, y : y + h, x : x + w] = rng.uniform(-1, 1)
    return torch.from_numpy(images)


def sources(config: Config, real: torch.Tensor) -> torch.Tensor:
    n, channels, h, w = real.shape
    z = torch.randn(n, superres.degrade_noise(config, DataShape(h, w, channels)), generator=torch.manual_seed(0))
    return superres.degrade(config, real, z)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_it_enlarges_any_size(scale: int, channels: int) -> None:
    config, shape = Config(scale=scale, **SMALL), DataShape(24, 48, channels)
    torch.manual_seed(0)
    nets = superres.build(config, shape).eval()
    with torch.no_grad():
        nets["G_ema"].net.out.bias.uniform_(-30, 30)  # pixels far from what can be shown
        for h, w in ((7, 5), (1, 1), (16, 12)):
            image = superres.export_module(nets)(torch.rand(2, channels, h, w) * 2 - 1)
            assert image.shape == (2, channels, scale * h, scale * w)
            assert image.max() == 1
            assert image.min() == -1
    spec = superres.spec(config, shape)
    assert (spec.task, spec.scale, spec.size_multiple, spec.latent_dim) == ("translate", scale, 1, None)
    assert spec.image_size == (24 // scale, 48 // scale)
    assert spec.channels == channels


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_it_starts_as_bilinear_enlargement(scale: int) -> None:
    torch.manual_seed(0)
    G = superres.build(Config(scale=scale), DataShape(48, 48, 3))["G"]
    levels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    source = torch.from_numpy(levels).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        image = grey_levels(G(source).clamp(-1, 1))[0].transpose(1, 2, 0)
    expected = np.asarray(Image.fromarray(levels).resize((13 * scale, 9 * scale), Image.Resampling.BILINEAR))
    error = np.abs(image.astype(int) - expected)
    assert error.mean() < 3
    assert error.max() < 16


def test_clean_sources_are_those_of_pillow() -> None:
    config = Config(degradation="clean", scale=4)
    levels = np.random.default_rng(0).integers(0, 256, (32, 24, 3), np.uint8)
    real = torch.from_numpy(levels).permute(2, 0, 1)[None] / 127.5 - 1
    source = grey_levels(sources(config, real))[0].transpose(1, 2, 0)
    expected = np.asarray(Image.fromarray(levels).resize((6, 8), Image.Resampling.BICUBIC))
    assert np.abs(source.astype(int) - expected).max() <= 1


def test_real_sources_are_worse_the_greater_the_strength() -> None:
    real = squares(8, 32, seed=0)
    clean = sources(Config(degradation="clean"), real)
    distances = []
    for strength in (0.0, 0.3, 1.0):
        config = Config(strength=strength)
        assert config.degradation == "real"
        source = sources(config, real)
        assert source.shape == (8, 1, 16, 16)
        distances.append((source - clean).abs().mean().item())
    assert distances[0] < 0.01 < distances[1] < distances[2]


def test_the_warm_up_learns_what_enlargement_by_a_filter_cannot_know() -> None:
    """Edges of squares it has not seen are sharper than bicubic ones."""
    config = Config(degradation="clean", lr=3e-3, warmup=1.0, **{**SMALL, "width": 16})
    torch.manual_seed(0)
    nets = superres.build(config, DataShape(32, 32, 1))
    _, g_phase = recipes.load("superres").phases(config)
    optimizer = g_phase.optimizer(nets["G"].parameters())
    held_out = squares(16, 32, seed=1)
    source = sources(config, held_out)
    bicubic = F.interpolate(source, scale_factor=2, mode="bicubic").clamp(-1, 1)
    for step in range(60):
        real = squares(8, 32, seed=2 + step)
        batch = Batch(real, None, torch.zeros(8, 1), sources(config, real))
        g_phase.loss(nets, batch, Progress(8 * step, 8, 480))["L1"].backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        learnt, filtered = ((images - held_out).abs().mean().item() for images in (nets["G"](source), bicubic))
    assert learnt < 0.9 * filtered


def test_pictures_that_have_no_sources_are_refused() -> None:
    config = Config(scale=4)
    with pytest.raises(ArgumentError, match=r"^recipe superres .* 30x64 at scale 4: .* pass --resolution 32, say$"):
        superres.build(config, DataShape(64, 30, 3))
    with pytest.raises(ArgumentError, match=r"^recipe superres .* 64x12: .* at least 16; pass --resolution 64, say$"):
        superres.build(config, DataShape(12, 64, 3))


def test_the_default_is_small() -> None:
    G = superres.build(Config(), DataShape(64, 64, 3))["G"]
    assert 100_000 < sum(p.numel() for p in G.parameters()) < 300_000
