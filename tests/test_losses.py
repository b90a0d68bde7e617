"""The mathematics of training against answers known from elsewhere: losses, averages, schedules, distances."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from edgegan.errors import ArgumentError
from edgegan.model import inputs_of
from edgegan.trainer import losses, recipes
from edgegan.trainer.ema import EMA
from edgegan.trainer.metrics.sliced_wasserstein import sliced_wasserstein
from edgegan.trainer.recipe import DataShape
from support import config_of

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


# (discriminator's, generator's loss) and what they are of these logits, by hand. softplus(a) = log(1 + e^a).
REAL, FAKE = (2.0, -1.0), (-3.0, 0.5)


def softplus(a: float) -> float:
    return math.log1p(math.exp(a))


KNOWN = {
    "minimax": (
        (softplus(-2) + softplus(1) + softplus(-3) + softplus(0.5)) / 2,
        math.log((1 - 1 / (1 + math.exp(3))) * (1 - 1 / (1 + math.exp(-0.5)))) / 2,
    ),
    "nonsaturating": (
        (softplus(-2) + softplus(1) + softplus(-3) + softplus(0.5)) / 2,
        -math.log(1 / (1 + math.exp(3)) / (1 + math.exp(-0.5))) / 2,
    ),
    "least_squares": ((1 + 4 + 9 + 0.25) / 4, (16 + 0.25) / 4),
    "wasserstein": (-1.25 - 0.5, 1.25),
    "hinge": ((0 + 2 + 0 + 1.5) / 2, 1.25),
    "relativistic": ((softplus(-5) + softplus(1.5)) / 2, (softplus(5) + softplus(-1.5)) / 2),
}
PAIRS: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]] = {
    "minimax": (losses.discriminator_bce, losses.generator_minimax),
    "nonsaturating": (losses.discriminator_bce, losses.generator_nonsaturating),
    "least_squares": (losses.discriminator_least_squares, losses.generator_least_squares),
    "wasserstein": (losses.discriminator_wasserstein, losses.generator_wasserstein),
    "hinge": (losses.discriminator_hinge, losses.generator_hinge),
    "relativistic": (
        losses.discriminator_relativistic,
        lambda fake: losses.generator_relativistic(torch.tensor(REAL, dtype=fake.dtype), fake),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_losses_of_known_logits(name: str) -> None:
    of_d, of_g = PAIRS[name]
    real, fake = (torch.tensor(values, dtype=torch.float64) for values in (REAL, FAKE))
    assert (float(of_d(real, fake)), float(of_g(fake))) == pytest.approx(KNOWN[name], rel=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_gradients_of_losses_are_those_of_finite_differences(name: str) -> None:
    of_d, of_g = PAIRS[name]
    real, fake = (torch.tensor(values, dtype=torch.float64, requires_grad=True) for values in (REAL, FAKE))
    assert torch.autograd.gradcheck(of_d, (real, fake))
    assert torch.autograd.gradcheck(of_g, (fake,))


@pytest.mark.parametrize("name", PAIRS)
def test_d_and_g_pull_the_fakes_apart(name: str) -> None:
    """D's loss grows with the fakes' logits and falls with those of the real pictures; G's falls with the fakes'."""
    of_d, of_g = PAIRS[name]
    real, fake = torch.tensor([0.1, 0.2], requires_grad=True), torch.tensor([0.3, 0.4], requires_grad=True)
    by_real, by_fake = torch.autograd.grad(of_d(real, fake), (real, fake))
    (by_g,) = torch.autograd.grad(of_g(fake), fake)
    assert (by_real < 0).all()
    assert (by_fake > 0).all()
    assert (by_g < 0).all()


def test_the_minimax_loss_is_flat_where_d_is_sure_and_the_other_is_not() -> None:
    fake = torch.tensor([-20.0], requires_grad=True)
    slopes = [
        torch.autograd.grad(loss(fake), fake)[0].item() for loss in (PAIRS["minimax"][1], PAIRS["nonsaturating"][1])
    ]
    assert slopes == pytest.approx([-math.exp(-20), -1], rel=1e-6)


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


def test_gradient_penalty_of_a_linear_critic_is_that_of_its_weights() -> None:
    """Wherever it is taken, the slope of w x + b is |w|."""
    weights = torch.randn(3 * 4 * 5, dtype=torch.float64)
    real, fake = torch.randn(2, 7, 3, 4, 5, dtype=torch.float64)
    for length in (0.5, 1.0, 3.0):
        w = (weights * length / weights.norm()).requires_grad_()
        penalty = losses.gradient_penalty(lambda x, w=w: x.flatten(1) @ w + 2, real, fake)
        assert penalty.item() == pytest.approx((length - 1) ** 2, abs=1e-10)
        (by_weights,) = torch.autograd.grad(penalty, w)
        assert torch.allclose(by_weights, 2 * (length - 1) * w / length, atol=1e-6)


def test_gradient_penalty_is_taken_between_real_and_fake_pictures() -> None:
    """The slope of |x|^2 / 2 is |x|, so the penalty tells where it was taken: one place a picture, all over the way."""
    real, fake = torch.zeros(4000, 1, 2, 2), torch.zeros(4000, 1, 2, 2)
    real[:, :, 0, 0], fake[:, :, 0, 0] = 3.0, 1.0
    seen: list[torch.Tensor] = []

    def critic(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.detach())
        return x.square().sum((1, 2, 3)) / 2

    torch.manual_seed(3)
    first = losses.gradient_penalty(critic, real, fake.requires_grad_())
    places = seen[0][:, 0, 0, 0]
    assert not seen[0][:, 0, 1:].any()
    assert places.min() < 1.01
    assert places.max() > 2.99
    assert places.mean().item() == pytest.approx(2, abs=5 * 2 / math.sqrt(12 * 4000))
    assert first.item() == pytest.approx((places - 1).square().mean().item(), rel=1e-5)
    assert first.item() == pytest.approx(4 / 3, rel=0.1)  # the mean of (2 u)^2
    torch.manual_seed(3)
    assert torch.equal(losses.gradient_penalty(critic, real, fake), first)
    assert not torch.equal(losses.gradient_penalty(critic, real, fake), first)


def test_gradient_penalty_has_a_gradient_where_the_critic_is_flat() -> None:
    w = torch.zeros(4, requires_grad=True)
    penalty = losses.gradient_penalty(lambda x: x.flatten(1) @ w, torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2))
    assert penalty.item() == pytest.approx(1, abs=1e-5)
    assert torch.autograd.grad(penalty, w)[0].isfinite().all()


@pytest.mark.parametrize("penalty", ["R1", "WGAN-GP"])
def test_gradients_of_penalties_are_those_of_finite_differences(penalty: str) -> None:
    """A critic of two layers in float64; the second derivative is what training needs."""
    torch.manual_seed(0)
    real, fake = torch.randn(2, 3, 2, 2, 2, dtype=torch.float64)
    first, second = torch.randn(8, 5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)

    def of_weights(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        def critic(x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x.flatten(1) @ first) @ second

        torch.manual_seed(1)  # the same places each time
        if penalty == "WGAN-GP":
            return losses.gradient_penalty(critic, real, fake)
        images = real.clone().requires_grad_()
        return losses.squared_gradient_norm(critic(images), images).mean()

    assert torch.autograd.gradcheck(of_weights, (first.requires_grad_(), second.requires_grad_()), eps=1e-4, atol=1e-3)


@pytest.mark.parametrize("recipe", recipes.names())
def test_the_exported_generator_is_the_average(recipe: str) -> None:
    loaded = recipes.load(recipe)
    config = config_of(recipe, SHAPE)
    nets, spec = loaded.build(config, SHAPE).eval(), loaded.spec(config, SHAPE)
    inputs = [torch.from_numpy(np.array(value)) for value in inputs_of(spec, 0, 3).values()]
    with torch.no_grad():
        before = loaded.export_module(nets)(*inputs)
        for net, moves in (("G", False), ("G_ema", True)):
            for parameter in nets[net].parameters():
                parameter.add_(0.1)
            assert torch.equal(loaded.export_module(nets)(*inputs), before) is not moves


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
