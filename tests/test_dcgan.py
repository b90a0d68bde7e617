"""The recipe dcgan: its nets against public code, published hyper-parameters, and a training of the paper's nets."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgegan.errors import ArgumentError
from edgegan.trainer import recipes
from edgegan.trainer.data import open_dataset
from edgegan.trainer.layers import Dropout
from edgegan.trainer.loop import Trainer
from edgegan.trainer.recipe import DataShape
from support import make_run, result_of, train

DCGAN = recipes.load("dcgan")


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def build(side: int, channels: int) -> nn.ModuleDict:
    torch.manual_seed(0)
    return DCGAN.build(DCGAN.Config(), DataShape(side, side, channels))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [28, 32, 64, 128])
def test_it_draws_and_judges_each_size(side: int, channels: int) -> None:
    nets = build(side, channels)
    images = nets["G"](torch.randn(2, 100))
    assert images.shape == (2, channels, side, side)
    assert images.abs().max() <= 1
    assert nets["D"](images).shape == (2,)
    assert DCGAN.export_module(nets)(torch.randn(1, 100)).shape == (1, channels, side, side)


@pytest.mark.parametrize("shape", [(48, 48), (16, 16), (256, 256), (28, 32), (64, 32)])
def test_it_refuses_other_sizes_and_names_the_valid_ones(shape: tuple[int, int]) -> None:
    with pytest.raises(ArgumentError, match=rf"28x28, 32x32, 64x64 or 128x128, but the data has {shape[1]}x{shape[0]}"):
        DCGAN.build(DCGAN.Config(), DataShape(*shape, 1))


def test_28x28_is_the_tutorials() -> None:
    nets = build(28, 1)
    # The parameter counts that Keras' model.summary() prints for the tutorial's nets; G's with the moving statistics.
    statistics = 2 * (12544 + 128 + 64)
    assert parameters(nets["G"]) + statistics == 2_330_944
    assert parameters(nets["D"]) == 212_865
    bound = math.sqrt(6 / (100 + 12544))  # Glorot: the fans of the dense layer
    assert nets["G"].dense.weight.abs().max() <= bound
    assert nets["G"].dense.weight.abs().max() > 0.99 * bound
    image = torch.randn(2, 1, 28, 28)
    assert not torch.equal(nets["D"](image), nets["D"](image))  # dropout
    nets["D"].eval()
    assert torch.equal(nets["D"](image), nets["D"](image))


def test_64x64_is_that_of_pytorchs_example() -> None:
    """Its main.py with --nz 100 --ngf 64 --ndf 64 on colour pictures."""
    nets = build(64, 3)
    assert parameters(nets["G"]) == 3_576_704
    assert parameters(nets["D"]) == 2_765_568
    kinds = [type(layer).__name__ for layer in nets["D"].modules() if not list(layer.children())]
    assert kinds == ["Conv2d", *("LeakyReLU", "Conv2d", "BatchNorm") * 3, "LeakyReLU", "Conv2d"]
    for net in ("G", "D"):
        weights = torch.cat([p.flatten() for p in nets[net].parameters() if p.dim() == 4])
        assert weights.std().item() == pytest.approx(0.02, rel=0.01)
        assert weights.mean().item() == pytest.approx(0, abs=1e-4)
        scales = torch.cat(
            [p.flatten() for name, p in nets[net].named_parameters() if p.dim() == 1 and "weight" in name]
        )
        assert scales.mean().item() == pytest.approx(1, abs=0.003)
        assert scales.std().item() == pytest.approx(0.02, rel=0.1)


def test_the_size_chooses_what_was_published_unless_you_say_otherwise() -> None:
    Config, shapes = DCGAN.Config, (DataShape(28, 28, 1), DataShape(64, 64, 3))
    tutorial, paper = (DCGAN.complete(Config(), shape) for shape in shapes)
    assert (tutorial.batch, tutorial.lr, tutorial.beta1) == (256, 1e-4, 0.9)
    assert (paper.batch, paper.lr, paper.beta1) == (128, 2e-4, 0.5)
    asked = Config(batch=8, lr=0.01, beta1=0.1)
    assert all(DCGAN.complete(asked, shape) == asked for shape in shapes)
    (group,) = DCGAN.phases(paper)[0].optimizer([nn.Parameter(torch.zeros(1))]).param_groups
    assert (group["lr"], group["betas"]) == (2e-4, (0.5, 0.999))


def test_a_run_trains_with_the_published_values(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
    np.savez(tmp_path / "set.npz", images=pictures)
    dataset = open_dataset(str(tmp_path / "set.npz"))
    run = make_run(tmp_path / "run", dataset, "dcgan", config={"kimg": 0.016, "batch": 8}, log_kimg=0.008)
    trainer = Trainer(run, dataset, "cpu")
    assert trainer.optimizers["G"].param_groups[0]["lr"] == 2e-4
    before = {name: value.clone() for name, value in trainer.nets["G_ema"].state_dict().items()}
    trainer.feed.close()
    trainer.writer.close()
    assert train(run, dataset)
    state, log = result_of(run)
    assert [record["nimg"] for record in log] == [8, 16]
    assert all(0 < value < 100 for record in log for value in record["losses"].values())  # type: ignore[attr-defined]
    nets = state["nets"]
    assert all(not torch.equal(nets[f"G_ema.{name}"], value) for name, value in before.items())  # type: ignore[index]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_scales_the_rest(dtype: torch.dtype) -> None:
    x = torch.ones(64, 32, 16, 16, dtype=dtype, requires_grad=True)
    torch.manual_seed(0)
    y = Dropout(0.3)(x)
    assert y.dtype == dtype
    scale = (torch.ones((), dtype=dtype) / 0.7).item()
    assert set(y.unique().tolist()) == {0.0, scale}
    # Within 5 standard deviations, of the whole and of each channel.
    for share, n in (
        ((y == 0).float().mean(), y.numel()),
        *((share, 64 * 256) for share in (y == 0).float().mean((0, 2, 3))),
    ):
        assert abs(share.item() - 0.3) < 5 * math.sqrt(0.21 / n)
    y.sum().backward()
    assert torch.equal(x.grad, y)  # type: ignore[arg-type]
    torch.manual_seed(0)
    again = Dropout(0.3)(x.detach().contiguous(memory_format=torch.channels_last))
    assert torch.equal(again, y)  # however x lies in memory


def test_d_can_be_compiled() -> None:
    """--compile does it; its tracer cannot follow every way of drawing a mask. This backend needs no compiler."""
    D = build(28, 1)["D"].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(8, 1, 28, 28).to(memory_format=torch.channels_last)
    torch.manual_seed(0)
    expected = D(images)
    D.compile(backend="aot_eager")
    torch.manual_seed(0)
    logits = D(images)
    assert torch.allclose(logits, expected, atol=1e-6)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in D.parameters())
