"""The recipe restore: sizes, what it starts from, how bad sources are, and what it learns."""

import numpy as np
import pytest
import torch

from edgegan.errors import ArgumentError
from edgegan.trainer import recipes
from edgegan.trainer.recipe import Batch, DataShape, Progress
from edgegan.trainer.recipes import restore
from edgegan.trainer.recipes.restore import Config

SMALL = {"width": 0.25, "style_dim": 16, "d_width": 8}


def faces(n: int, seed: int) -> torch.Tensor:
    """[n, 1, 16, 16]: pictures of one kind, two dark eyes and a mouth in a bright face, a little moved and shaded."""
    rng = np.random.default_rng(seed)
    images = np.full((n, 1, 16, 16), -0.8, np.float32)
    for image in images:
        y, x = rng.integers(0, 3, 2)
        image[:, y + 1 : y + 13, x + 2 : x + 12] = rng.uniform(0.3, 0.9)
        image[:, y + 4 : y + 6, x + 4 : x + 6] = image[:, y + 4 : y + 6, x + 8 : x + 10] = rng.uniform(-0.9, -0.5)
        image[:, y + 9 : y + 10, x + 5 : x + 9] = -0.4
    return torch.from_numpy(images)


def damaged(config: Config, real: torch.Tensor, seed: int) -> torch.Tensor:
    n, channels, h, w = real.shape
    z = torch.randn(n, restore.degrade_noise(config, DataShape(h, w, channels)), generator=torch.manual_seed(seed))
    return restore.degrade(config, real, z)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "multiple"), [((16, 24), 4), ((64, 64), 16), ((96, 80), 16)])
def test_it_takes_other_sizes_that_halve_as_often(size: tuple[int, int], multiple: int, channels: int) -> None:
    config, shape = Config(**SMALL), DataShape(*size, channels)
    torch.manual_seed(0)
    nets = restore.build(config, shape).eval()
    spec = restore.spec(config, shape)
    assert (spec.task, spec.scale, spec.size_multiple, spec.latent_dim) == ("translate", 1, multiple, None)
    assert (spec.image_size, spec.channels) == (size, channels)
    with torch.no_grad():
        nets["G_ema"].net.out.bias.uniform_(-30, 30)
        for h, w in (size, (multiple, 3 * multiple), (5 * multiple, 2 * multiple)):
            source = torch.rand(2, channels, h, w) * 2 - 1
            image = restore.export_module(nets)(source)
            assert image.shape == source.shape
            assert image.abs().max() <= 1


def test_it_starts_as_a_copy() -> None:
    torch.manual_seed(0)
    G = restore.build(Config(), DataShape(32, 32, 3))["G"]
    source = torch.rand(4, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        assert (G(source) - source).abs().mean() < 0.05


def test_the_whole_picture_decides_what_a_pixel_becomes() -> None:
    """The style reaches further than any convolution: from one end of a strip to the other."""
    torch.manual_seed(0)
    G = restore.build(Config(**SMALL), DataShape(16, 16, 1))["G"]
    strip = torch.rand(1, 1, 16, 512)
    other = strip.clone()
    other[..., -16:] = 1
    with torch.no_grad():
        assert not torch.equal(G(strip)[..., :16], G(other)[..., :16])
        for conv in (G.start, *G.ups, *G.joins):
            conv.style.weight.zero_()
        assert torch.allclose(G(strip)[..., :16], G(other)[..., :16], atol=1e-7)


def test_small_pictures_are_damaged_less() -> None:
    for side, strength in ((512, 1.0), (800, 1.0), (128, 0.5), (32, 0.25)):
        assert restore.complete(Config(), DataShape(side, side + 32, 3)).strength == pytest.approx(strength)
    assert restore.complete(Config(strength=0.7), DataShape(32, 32, 3)).strength == 0.7


def test_sources_are_of_the_same_size_and_worse_the_greater_the_strength() -> None:
    real = faces(16, seed=0)
    distances = []
    for strength in (0.1, 0.4, 1.0):
        source = damaged(Config(strength=strength), real, seed=0)
        assert source.shape == real.shape
        assert torch.allclose((source + 1) * 127.5, ((source + 1) * 127.5).round(), atol=1e-3)
        distances.append((source - real).abs().mean().item())
    assert distances == sorted(distances)
    assert distances[2] > 2 * distances[0]


def test_the_warm_up_learns_to_restore() -> None:
    config = Config(strength=0.4, lr=5e-3, warmup=1.0, **SMALL)
    torch.manual_seed(0)
    nets = restore.build(config, DataShape(16, 16, 1))
    _, g_phase = recipes.load("restore").phases(config)
    optimizer = g_phase.optimizer(nets["G"].parameters())
    for step in range(120):
        real = faces(8, seed=1 + step)
        batch = Batch(real, None, torch.zeros(8, 1), damaged(config, real, seed=1 + step))
        g_phase.loss(nets, batch, Progress(8 * step, 8, 960))["L1"].backward()
        optimizer.step()
        optimizer.zero_grad()
    held_out = faces(16, seed=0)
    source = damaged(config, held_out, seed=0)
    with torch.no_grad():
        restored, untouched = ((images - held_out).abs().mean().item() for images in (nets["G"](source), source))
    assert restored < 0.7 * untouched


@pytest.mark.parametrize(
    ("size", "said"),
    [((8, 64), "64x8: the smaller side must be 16 to 896"), ((30, 30), "both sides .* multiples of 4")],
)
def test_sizes_that_do_not_halve_are_refused(size: tuple[int, int], said: str) -> None:
    for make in (restore.build, restore.spec):
        with pytest.raises(ArgumentError, match=rf"^recipe restore .*{said}.*--resolution"):
            make(Config(), DataShape(*size, 3))
