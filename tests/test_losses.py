"""The mathematics of training against answers known from elsewhere: losses, averages, schedules, distances."""

import math

import numpy as np
import pytest
import torch

from edgegan.errors import ArgumentError
from edgegan.trainer import losses, recipes
from edgegan.trainer.ema import EMA, averaged
from edgegan.trainer.metrics.sliced_wasserstein import sliced_wasserstein
from edgegan.trainer.recipe import Batch, DataShape, Progress

SHAPE = DataShape(28, 28, 1, ("a", "b", "c"))
LOG2 = math.log(2)


def logits(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def test_discriminator_bce_is_torchs_cross_entropy() -> None:
    real, fake = logits(2.0, -1.0, 0.5), logits(-3.0, 0.2, 1.0)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    expected = bce(real, torch.ones(3)) + bce(fake, torch.zeros(3))
    assert torch.isclose(losses.discriminator_bce(real, fake), expected)
    assert losses.discriminator_bce(logits(9.0), logits(-9.0)) < 0.001
    assert losses.discriminator_bce(logits(-9.0), logits(9.0)) > 17


def test_generator_nonsaturating_rewards_fakes_that_pass_for_real() -> None:
    fake = logits(2.0, -1.0, 0.5)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(fake, torch.ones(3))
    assert torch.isclose(losses.generator_nonsaturating(fake), expected)
    assert losses.generator_nonsaturating(logits(9.0)) < losses.generator_nonsaturating(logits(-9.0))


def test_relativistic_losses_see_the_difference_of_each_pair() -> None:
    real, fake = logits(3.0, 100.0), logits(1.0, 100.0)
    assert math.isclose(
        losses.discriminator_relativistic(real, fake), (math.log1p(math.exp(-2)) + LOG2) / 2, rel_tol=1e-6
    )
    assert math.isclose(losses.generator_relativistic(real, fake), (math.log1p(math.exp(2)) + LOG2) / 2, rel_tol=1e-6)


def test_squared_gradient_norm_of_a_linear_discriminator_is_that_of_its_weights() -> None:
    weights = torch.randn(3 * 4 * 5, requires_grad=True)
    images = torch.randn(7, 3, 4, 5, requires_grad=True)
    scale = torch.arange(1.0, 8.0)
    norms = losses.squared_gradient_norm(images.flatten(1) @ weights * scale, images)
    assert torch.allclose(norms, weights.square().sum() * scale.square(), rtol=1e-5)
    (again,) = torch.autograd.grad(norms[0], weights)
    assert torch.allclose(again, 2 * weights, rtol=1e-5)


def test_edge_weighs_the_penalties_by_half_of_gamma() -> None:
    recipe = recipes.load("edge")
    torch.manual_seed(0)
    nets = recipe.build(recipe.Config(), SHAPE)
    batch = Batch(torch.rand(4, 1, 28, 28) * 2 - 1, torch.tensor([0, 1, 2, 0]), torch.randn(4, 64))
    two, six = (
        recipe.phases(recipe.Config(gamma=gamma))[0].loss(nets, batch, Progress(0, 4, 100)) for gamma in (2.0, 6.0)
    )
    real = batch.real.clone().requires_grad_()
    expected = losses.squared_gradient_norm(nets["D"](real, batch.label), real).mean()
    assert torch.isclose(two["R1"], expected, rtol=1e-4)  # gamma / 2 = 1
    for name in ("R1", "R2"):
        assert torch.isclose(six[name], 3 * two[name])
    assert torch.isclose(six["D"], two["D"])


def test_edge_learning_rate_falls_along_a_cosine() -> None:
    recipe = recipes.load("edge")
    config = recipe.Config(lr=1e-3, final_lr=1e-4)
    for phase in recipe.phases(config):
        rates = [phase.learning_rate(Progress(nimg, 1, 100)) for nimg in (0, 25, 50, 100)]
        assert rates == pytest.approx([1e-3, 1e-4 + 9e-4 * (1 + math.sqrt(0.5)) / 2, 5.5e-4, 1e-4])


def test_edge_conditions_on_the_class() -> None:
    recipe = recipes.load("edge")
    nets = recipe.build(recipe.Config(), SHAPE)
    z, image = torch.randn(2, 64), torch.randn(2, 1, 28, 28)
    same, other = torch.tensor([1, 1]), torch.tensor([1, 2])
    for net, x in (("G", z), ("D", image)):
        a, b = nets[net](x, same), nets[net](x, other)
        assert torch.equal(a[0], b[0])
        assert not torch.allclose(a[1], b[1])


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(8, 8, 1), (32, 32, 3), (64, 96, 3), (96, 64, 1), (28, 28, 1)]
)
def test_edge_draws_any_size_that_it_accepts(height: int, width: int, channels: int) -> None:
    recipe = recipes.load("edge")
    nets = recipe.build(recipe.Config(), DataShape(height, width, channels))
    images = recipe.export_module(nets)(100 * torch.randn(2, 64))
    assert images.shape == (2, channels, height, width)
    assert images.abs().max() == 1  # bounded
    assert nets["D"](images).shape == (2,)


@pytest.mark.parametrize("shape", [(30, 30), (512, 512), (4, 4), (8, 9), (448, 449)])
def test_edge_refuses_other_sizes(shape: tuple[int, int]) -> None:
    recipe = recipes.load("edge")
    with pytest.raises(ArgumentError, match="cannot draw"):
        recipe.build(recipe.Config(), DataShape(*shape, 1))


@pytest.mark.parametrize("recipe", recipes.names())
def test_the_exported_generator_is_the_average(recipe: str) -> None:
    loaded = recipes.load(recipe)
    nets = loaded.build(loaded.Config(), SHAPE).eval()
    with torch.no_grad():
        for parameter in nets["G"].parameters():
            parameter.add_(1)
    z, label = torch.randn(3, loaded.Config().latent_dim), torch.tensor([0, 1, 2])
    inputs = (z, label) if loaded.spec(loaded.Config(), SHAPE).classes else (z,)
    exported = loaded.export_module(nets)(*inputs)
    assert torch.equal(exported, averaged(nets)(*inputs).clamp(-1, 1))
    assert not torch.allclose(exported, nets["G"](*inputs).clamp(-1, 1))


def test_ema_forgets_half_in_its_halflife() -> None:
    net, target = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    torch.nn.init.ones_(target.weight)
    ema = EMA(net, halflife=1000)
    for i in range(10):
        ema.update(target, nimg=10**9 + 100 * i, batch=100)
    assert abs(ema.net.weight.item() - 0.5) < 1e-6


def test_ema_averages_norm_statistics_and_copies_counters() -> None:
    net = torch.nn.BatchNorm1d(2)
    ema = EMA(net, halflife=10)
    net.running_mean.fill_(1)
    net.num_batches_tracked.fill_(7)
    ema.update(net, nimg=10**9, batch=10)
    assert torch.allclose(ema.net.running_mean, torch.full((2,), 0.5))
    assert ema.net.num_batches_tracked == 7
    assert not ema.train().net.training


def test_ema_forgets_the_start_quickly() -> None:
    """With the ramp, after 100 images nothing weighs longer than a half-life of 5."""
    net, target = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    torch.nn.init.ones_(target.weight)
    ema = EMA(net, halflife=1e9)
    ema.update(target, nimg=95, batch=5)
    assert math.isclose(ema.net.weight.item(), 0.5, rel_tol=1e-6)


def test_sliced_wasserstein_of_known_sets() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 200, (200, 8, 8, 1)).astype(np.uint8)
    assert sliced_wasserstein(a, a[::-1].copy()) < 1e-4  # the order does not matter, but to a sum's rounding
    # A shift of every pixel by c moves a projection by c * sum(direction), and E|sum| of a unit direction is
    # sqrt(2 / pi).
    shifted = sliced_wasserstein(a, a + np.uint8(51), projections=20_000)
    assert math.isclose(shifted, 1000 * 51 / 127.5 * math.sqrt(2 / math.pi), rel_tol=0.03)
    halves = sliced_wasserstein(a[:100], a[100:])
    assert halves < sliced_wasserstein(a[:100], a[100:] // 2) < sliced_wasserstein(a[:100], a[100:] * 0)


def test_sliced_wasserstein_of_large_pictures_averages_blocks() -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (20, 32, 32, 3)).astype(np.uint8)
    other = rng.integers(0, 256, (20, 32, 32, 3)).astype(np.uint8)
    large, large_other = (x.repeat(4, axis=1).repeat(4, axis=2) for x in (small, other))
    assert math.isclose(sliced_wasserstein(large, large_other), sliced_wasserstein(small, other), rel_tol=1e-5)
    with pytest.raises(ArgumentError):
        sliced_wasserstein(small, large)
