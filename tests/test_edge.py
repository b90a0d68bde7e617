"""The recipe edge: its penalties, its schedule, classes, any size; what it starts from."""

import math

import pytest
import torch

from edgegan.errors import ArgumentError
from edgegan.trainer import losses, recipes
from edgegan.trainer.recipe import Batch, DataShape, Progress

EDGE = recipes.load("edge")
SHAPE = DataShape(28, 28, 1, ("a", "b", "c"))


def test_gamma_halved_weighs_the_penalties() -> None:
    torch.manual_seed(0)
    nets = EDGE.build(EDGE.Config(), SHAPE)
    batch = Batch(torch.rand(4, 1, 28, 28) * 2 - 1, torch.tensor([0, 1, 2, 0]), torch.randn(4, 64))
    two, six = (EDGE.phases(EDGE.Config(gamma=gamma))[0].loss(nets, batch, Progress(0, 4, 100)) for gamma in (2.0, 6.0))
    real = batch.real.clone().requires_grad_()
    expected = losses.squared_gradient_norm(nets["D"](real, batch.label), real).mean()
    assert torch.isclose(two["R1"], expected, rtol=1e-4)  # gamma / 2 = 1
    for name in ("R1", "R2"):
        assert torch.isclose(six[name], 3 * two[name])
    assert torch.isclose(six["D"], two["D"])


def test_the_learning_rate_falls_along_a_cosine() -> None:
    config = EDGE.Config(lr=1e-3, final_lr=1e-4)
    for phase in EDGE.phases(config):
        rates = [phase.learning_rate(Progress(nimg, 1, 100)) for nimg in (0, 25, 50, 100)]
        assert rates == pytest.approx([1e-3, 1e-4 + 9e-4 * (1 + math.sqrt(0.5)) / 2, 5.5e-4, 1e-4])


def test_both_nets_are_told_the_class() -> None:
    nets = EDGE.build(EDGE.Config(), SHAPE)
    z, image = torch.randn(2, 64), torch.randn(2, 1, 28, 28)
    same, other = torch.tensor([1, 1]), torch.tensor([1, 2])
    for net, x in (("G", z), ("D", image)):
        a, b = nets[net](x, same), nets[net](x, other)
        assert torch.equal(a[0], b[0])
        assert not torch.allclose(a[1], b[1])


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(8, 8, 1), (32, 32, 3), (64, 96, 3), (96, 64, 1), (28, 28, 1)]
)
def test_it_draws_any_size_that_it_accepts(height: int, width: int, channels: int) -> None:
    nets = EDGE.build(EDGE.Config(), DataShape(height, width, channels))
    images = EDGE.export_module(nets)(100 * torch.randn(2, 64))
    assert images.shape == (2, channels, height, width)
    assert images.abs().max() == 1  # bounded
    assert nets["D"](images).shape == (2,)


@pytest.mark.parametrize("shape", [(30, 30), (512, 512), (4, 4), (8, 9), (448, 449)])
def test_it_refuses_other_sizes(shape: tuple[int, int]) -> None:
    with pytest.raises(ArgumentError, match="cannot draw"):
        EDGE.build(EDGE.Config(), DataShape(*shape, 1))


def test_a_gamma_that_is_not_given_grows_with_the_pictures() -> None:
    def gamma(*shape: int) -> float:
        return EDGE.complete(EDGE.Config(), DataShape(*shape)).gamma

    assert gamma(28, 28, 1) == 2
    assert gamma(28, 56, 3) == pytest.approx(12)
    assert gamma(64, 64, 3) == pytest.approx(2 * 3 * 64 * 64 / 784)
    assert EDGE.complete(EDGE.Config(gamma=5.0), DataShape(64, 64, 3)).gamma == 5


def test_the_first_pictures_have_no_checkerboard() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        images = EDGE.build(EDGE.Config(), DataShape(32, 32, 3))["G"](torch.randn(4, 64))
    squares = images.unfold(2, 2, 2).unfold(3, 2, 2)  # [4, 3, 16, 16, 2, 2]
    assert torch.allclose(squares, squares[..., :1, :1].expand_as(squares), atol=1e-6)
    assert images.std() > 0.01  # and show something
