"""The recipe vanilla: the game of the paper, pictures of any small size, both losses, packs."""

from pathlib import Path

import pytest
import torch
from torch import nn

from edgegan.errors import ArgumentError
from edgegan.trainer import recipes
from edgegan.trainer.data import Dataset
from edgegan.trainer.layers import pack, packs_of_each
from edgegan.trainer.losses import discriminator_bce
from edgegan.trainer.recipe import Batch, DataShape, Progress
from support import TINY, command, make_run, result_of, train

VANILLA = recipes.load("vanilla")
T = Progress(0, 6, 100)


def batch_of(shape: DataShape, n: int = 6) -> Batch:
    real = torch.rand(n, shape.channels, shape.height, shape.width) * 2 - 1
    return Batch(real, None, torch.randn(n, VANILLA.Config().latent_dim))


@pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (5, 3, 3), (1, 1, 1), (64, 17, 3), (64, 64, 1)])
def test_any_small_picture(height: int, width: int, channels: int) -> None:
    shape = DataShape(height, width, channels)
    config = VANILLA.complete(VANILLA.Config(), shape)
    nets, batch = VANILLA.build(config, shape), batch_of(shape)
    images = nets["G"](batch.z)
    assert images.shape == batch.real.shape
    assert images.abs().max() <= 1
    assert nets["D"](images).shape == (6,)


@pytest.mark.parametrize(("height", "width"), [(65, 28), (28, 65), (128, 128)])
def test_large_pictures_are_refused(height: int, width: int) -> None:
    with pytest.raises(ArgumentError, match=f"at most 64x64, but the data has {width}x{height}: pass --resolution 64"):
        VANILLA.complete(VANILLA.Config(), DataShape(height, width, 1))


def test_it_knows_nothing_of_pictures_but_dense_layers() -> None:
    nets = VANILLA.build(VANILLA.Config(), DataShape(28, 28, 1))
    for name in ("G", "D"):
        weights = [module for module in nets[name].modules() if list(module.parameters(recurse=False))]
        assert all(isinstance(module, nn.Linear) for module in weights)
    assert [module.out_features for module in nets["G"].modules() if isinstance(module, nn.Linear)][-1] == 784


@pytest.mark.parametrize("loss", ["minimax", "nonsaturating"])
def test_the_losses_are_those_of_the_paper(loss: str) -> None:
    """Equation 1 for D and, with minimax, G; -log D(G(z)) as its section 3 has it otherwise."""
    shape = DataShape(8, 8, 1)
    config = VANILLA.Config(loss=loss, dropout=0.0)
    nets, batch = VANILLA.build(config, shape), batch_of(shape)
    of_d, of_g = VANILLA.phases(config)
    real, fake = (torch.sigmoid(nets["D"](x)) for x in (batch.real, nets["G"](batch.z)))
    expected = -(real.log().mean() + (1 - fake).log().mean())
    assert of_d.loss(nets, batch, T)["D"].item() == pytest.approx(expected.item(), rel=1e-4)
    of_fake = (1 - fake).log().mean() if loss == "minimax" else -fake.log().mean()
    assert of_g.loss(nets, batch, T)["G"].item() == pytest.approx(of_fake.item(), rel=1e-4)


@pytest.mark.parametrize("loss", ["minimax", "nonsaturating"])
def test_both_losses_make_the_fakes_pass_for_real(loss: str) -> None:
    """Steps of G alone: D's logits of the fakes rise."""
    torch.manual_seed(0)
    shape = DataShape(8, 8, 1)
    config = VANILLA.Config(loss=loss, dropout=0.0)
    nets, batch = VANILLA.build(config, shape), batch_of(shape, 64)
    phase = VANILLA.phases(config)[1]
    optimizer = phase.optimizer(nets["G"].parameters())
    before = nets["D"](nets["G"](batch.z)).mean().item()
    for _ in range(30):
        optimizer.zero_grad()
        phase.loss(nets, batch, T)["G"].backward()
        optimizer.step()
    assert nets["D"](nets["G"](batch.z)).mean().item() > before + 0.3


# Packs, which dcgan and cgan have too


@pytest.mark.parametrize(("recipe", "side"), [("vanilla", 28), ("dcgan", 28), ("dcgan", 32), ("cgan", 28)])
def test_a_pack_is_judged_as_one(recipe: str, side: int) -> None:
    loaded, shape = recipes.load(recipe), DataShape(side, side, 3, ("a", "b"))
    config = loaded.complete(loaded.Config(pack=3, batch=6), shape)
    torch.manual_seed(0)
    nets, plain = loaded.build(config, shape).eval(), loaded.build(loaded.Config(), shape)
    weights = [next(p for p in found["D"].parameters() if p.dim() > 1) for found in (nets, plain)]
    assert weights[0].shape[1] == 3 * weights[1].shape[1]  # three times the channels
    images, label = torch.randn(6, 3, side, side), torch.tensor([0, 1, 0, 1, 1, 0])
    more = (label,) if recipe == "cgan" else ()
    with torch.no_grad():
        logits = nets["D"](images, *more)
        assert logits.shape == (2,)
        images[4] += 1
        changed = nets["D"](images, *more)
        assert changed[0] == logits[0]
        assert changed[1] != logits[1]
        # One number for each picture all the same: of it and the two that follow, in a circle.
        each = loaded.logits(nets, images, label)
        assert each.shape == (6,)
        torch.testing.assert_close(each[[0, 3]], changed)
        around = [5, 0, 1]
        torch.testing.assert_close(each[5], nets["D"](images[around], *(x[around] for x in more))[0])


def test_pictures_that_follow_one_another_are_packed() -> None:
    images = torch.arange(4.0).view(4, 1, 1, 1) + torch.tensor([0.0, 0.5]).view(1, 2, 1, 1)
    assert pack(images, 2).flatten(1).tolist() == [[0, 0.5, 1, 1.5], [2, 2.5, 3, 3.5]]
    assert pack(images.to(memory_format=torch.channels_last), 4).flatten().tolist() == [k / 2 for k in range(8)]
    assert pack(images, 1) is images
    assert packs_of_each(3, 2, torch.device("cpu")).tolist() == [0, 1, 1, 2, 2, 0]
    assert packs_of_each(2, 3, torch.device("cpu")).tolist() == [0, 1, 0, 1, 0, 1]


def test_d_sees_packs_of_real_or_of_fake_pictures_never_of_both() -> None:
    shape = DataShape(4, 4, 1)
    config = VANILLA.Config(pack=2, dropout=0.0)
    nets, batch = VANILLA.build(config, shape), batch_of(shape)
    fake = nets["G"](batch.z)
    logits = [
        torch.cat([nets["D"].layers(x[i : i + 2].reshape(1, 2, 4, 4))[0] for i in (0, 2, 4)])
        for x in (batch.real, fake)
    ]
    expected = discriminator_bce(*logits)
    found = VANILLA.phases(config)[0].loss(nets, batch, T)["D"]
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("recipe", ["vanilla", "dcgan", "cgan"])
def test_packs_train_resume_and_are_watched(recipe: str, dataset: Dataset, tmp_path: Path) -> None:
    whole, parts = (
        make_run(tmp_path / name, dataset, recipe, config=TINY | {"pack": 4}, holdout=8) for name in ("whole", "parts")
    )
    assert train(whole, dataset)
    assert not train(parts, dataset, 32)
    assert train(parts, dataset)
    (state, log), (other, other_log) = result_of(whole), result_of(parts)
    assert log == other_log
    assert all(torch.equal(value, other["nets"][name]) for name, value in state["nets"].items())  # type: ignore
    assert {"accuracy", "held_out_gap"} <= log[-1]["health"].keys()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "recipe", ["vanilla", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dcgan", "cgan"))]
)
def test_a_batch_that_packs_do_not_take_up_is_one_line(recipe: str, pictures: Path, tmp_path: Path) -> None:
    args = [recipe, "--data", pictures, "--kimg", 0.064, "--out", tmp_path / "run"]
    failed = command("edgegan-train", *args, "--batch", 16, "--pack", 3)
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1), failed.stderr
    assert "16 images do not make packs of 3; pass a multiple of 3 as --batch" in failed.stderr
    assert not (tmp_path / "run").exists()
    failed = command("edgegan-train", *args, "--batch", 16, "--pack", 4, "--micro-batch", 6)
    assert failed.returncode == 2
    assert "do not make packs of 4" in failed.stderr.splitlines()[-1]
    assert "--micro-batch" in failed.stderr.splitlines()[-1]
