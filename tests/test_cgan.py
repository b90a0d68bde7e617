"""The recipe cgan: classes in G, both ways of telling D of them, spectral norm that resumes, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgegan.errors import ArgumentError
from edgegan.trainer import recipes
from edgegan.trainer.data import Dataset, open_dataset
from edgegan.trainer.recipe import Batch, DataShape, Progress
from support import TINY, command, equal, make_run, result_of, train

CGAN = recipes.load("cgan")
CLASSES = ("a", "b", "c")


@pytest.mark.parametrize("condition", ["projection", "concat"])
@pytest.mark.parametrize(
    ("height", "width", "channels"), [(28, 28, 1), (32, 32, 3), (48, 64, 3), (96, 96, 1), (128, 128, 3), (56, 28, 1)]
)
def test_it_draws_and_judges_each_size(height: int, width: int, channels: int, condition: str) -> None:
    shape = DataShape(height, width, channels, CLASSES)
    nets = CGAN.build(CGAN.Config(condition=condition), shape)
    label = torch.tensor([0, 1])
    images = nets["G"](torch.randn(2, 64), label)
    assert images.shape == (2, channels, height, width)
    assert images.abs().max() <= 1
    assert nets["D"](images, label).shape == (2,)


@pytest.mark.parametrize(
    ("height", "width", "says"),
    [
        (16, 16, "cannot draw 16x16: the smaller side must be 28 to 128; pass --resolution 64, say"),
        (256, 256, "cannot draw 256x256"),
        (30, 28, "is halved 2 times, so both sides must be multiples of 4; pass --resolution 28, say"),
        (101, 101, "multiples of 16; pass --resolution 96, say"),
    ],
)
def test_it_refuses_other_sizes(height: int, width: int, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        CGAN.build(CGAN.Config(), DataShape(height, width, 1, CLASSES))


def test_data_without_classes_is_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=np.zeros((9, 28, 28), np.uint8))
    failed = command("edgegan-train", "cgan", "--data", tmp_path / "set.npz", "--out", tmp_path / "run")
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
    assert "the data has no classes: sort the pictures into sub-folders" in failed.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("condition", ["projection", "concat"])
def test_each_picture_is_drawn_and_judged_by_its_own_class(condition: str) -> None:
    nets = CGAN.build(CGAN.Config(condition=condition), DataShape(28, 28, 1, CLASSES)).eval()
    z, image = torch.randn(2, 64), torch.randn(2, 1, 28, 28)
    same, other = torch.tensor([1, 1]), torch.tensor([1, 2])
    with torch.no_grad():
        for net, x in (("G", z), ("D", image)):
            a, b = nets[net](x, same), nets[net](x, other)
            assert torch.allclose(a[0], b[0], atol=1e-6)
            assert (a[1] - b[1]).abs().max() > 1e-5


def test_projection_adds_the_features_product_with_the_class() -> None:
    """Miyato, Koyama 2018, equation 4: the logits of two classes differ by (v_a - v_b) . phi(x)."""
    D = CGAN.build(CGAN.Config(), DataShape(28, 28, 1, CLASSES))["D"].eval()
    x = torch.randn(5, 1, 28, 28)
    with torch.no_grad():
        features = D.layers(x).sum((2, 3))
        for label in range(3):
            expected = D.out(features)[:, 0] + features @ D.embed.weight[label]
            torch.testing.assert_close(D(x, torch.full((5,), label)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("condition", ["projection", "concat"])
def test_no_layer_of_d_stretches(condition: str) -> None:
    """Spectral norm, against torch's singular values: after some steps of its iteration the largest is 1."""
    torch.manual_seed(0)
    shape = DataShape(28, 28, 1, CLASSES)
    D = CGAN.build(CGAN.Config(condition=condition), shape)["D"]
    with torch.no_grad():
        for parameter in D.parameters():
            parameter.mul_(7)
        for _ in range(60):
            D(torch.randn(2, 1, 28, 28), torch.tensor([0, 1]))
        normalised = [module for module in D.modules() if hasattr(module, "parametrizations")]
        for module in normalised:
            largest = torch.linalg.matrix_norm(module.weight.flatten(1), 2).item()
            assert largest == pytest.approx(1, abs=0.02)
    assert len(normalised) == 2 + 2 + 1 + (condition == "projection")


def test_the_loss_is_a_hinge_of_both_halves_judged_at_once() -> None:
    config = CGAN.Config()
    nets = CGAN.build(config, DataShape(28, 28, 1, CLASSES)).eval()  # so that the iteration stands still
    batch = Batch(torch.rand(6, 1, 28, 28) * 2 - 1, torch.tensor([0, 1, 2, 0, 1, 2]), torch.randn(6, 64))
    of_d, of_g = CGAN.phases(config)
    with torch.no_grad():
        real, fake = (nets["D"](x, batch.label) for x in (batch.real, nets["G"](batch.z, batch.label)))
        expected = (1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()
        torch.testing.assert_close(of_d.loss(nets, batch, Progress(0, 6, 9))["D"], expected)
        torch.testing.assert_close(of_g.loss(nets, batch, Progress(0, 6, 9))["G"], -fake.mean())


def test_the_vectors_of_spectral_norm_move_and_resume(dataset: Dataset, tmp_path: Path) -> None:
    """They are the only state of D beside its weights; test_train and test_parallel ask for all bits of it."""
    whole, parts = (
        make_run(tmp_path / name, dataset, "cgan", config=TINY | {"condition": "concat"}) for name in ("whole", "parts")
    )
    train(whole, dataset)
    train(parts, dataset, 32)
    halfway = result_of(parts)[0]["nets"]
    train(parts, dataset)
    (state, log), (other, other_log) = result_of(whole), result_of(parts)
    assert equal((state["nets"], log), (other["nets"], other_log))
    vectors = [name for name, value in state["nets"].items() if name.endswith(("._u", "._v")) and len(value) > 1]  # type: ignore[attr-defined]
    assert len(vectors) == 2 * 5 - 1  # the last layer has one output, whose direction is that of its weights
    assert all(not torch.equal(state["nets"][name], halfway[name]) for name in vectors)  # type: ignore[index]


@pytest.mark.parametrize("condition", ["projection", "concat"])
def test_asked_for_a_class_it_learns_to_draw_it(condition: str, tmp_path: Path) -> None:
    """Three classes that a glance tells apart: dark, grey and bright pictures with noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    images = np.clip(rng.normal(40 + 85 * labels[:, None, None], 15, (300, 28, 28)), 0, 255).astype(np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    dataset = open_dataset(str(tmp_path / "set.npz"))
    config = {"kimg": 1.0, "batch": 16, "width": 0.1, "condition": condition, "lr": 2e-3, "d_lr": 2e-3}
    run = make_run(tmp_path / "run", dataset, "cgan", config=config, log_kimg=2.0, sample_kimg=2.0)
    train(run, dataset)
    nets = run.build()
    run.load_nets(nets, run.load_checkpoint("newest"))
    label = torch.arange(3).repeat_interleave(40)
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = CGAN.export_module(nets)(torch.randn(120, 64), label).mean((1, 2, 3)) * 127.5 + 127.5
    nearest = (drawn[:, None] - torch.tensor([40.0, 125.0, 210.0])).abs().argmin(1)
    assert (nearest == label).float().mean() > 0.9
