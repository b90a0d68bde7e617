"""The recipe progressive: what grows when, that nothing jumps when it does, and exports of nets half grown."""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgegan import load
from edgegan.errors import ArgumentError
from edgegan.export import pipeline
from edgegan.export.trace import draw
from edgegan.model import inputs_of
from edgegan.trainer import recipes
from edgegan.trainer.data import Dataset
from edgegan.trainer.loop import Trainer
from edgegan.trainer.recipe import Batch, DataShape, Progress
from edgegan.trainer.recipes import progressive
from edgegan.trainer.recipes.progressive import Config, Growth, level_and_weight, real_at
from edgegan.trainer.run import Run
from support import equal, make_run, result_of, train

RECIPE = recipes.load("progressive")
NARROW = {"width": 0.02, "latent_dim": 8}  # 8 channels a level
# 28x28 pixels have levels of 7, 14 and 28. Level 1 fades in from 32 to 64 images, level 2 from 96 to 128.
GROWING = {**NARROW, "kimg": 0.16, "grow_kimg": 0.032, "batch": 16}


def build(height: int, width: int, channels: int = 1, **values: float) -> nn.ModuleDict:
    torch.manual_seed(0)
    shape = DataShape(height, width, channels)
    return RECIPE.build(RECIPE.complete(Config(**NARROW, **values), shape), shape)


def test_each_level_trains_and_the_next_one_fades_in_by_turns() -> None:
    growth = Growth(halvings=3, images=100)
    known = {0: 0, 99: 0, 100: 0, 125: 0.25, 199: 0.99, 200: 1, 299: 1, 300: 1, 350: 1.5, 400: 2, 500: 2, 575: 2.75}
    for nimg, stage in {**known, 600: 3, 601: 3, 10**12: 3}.items():
        assert growth.stage_at(nimg) == pytest.approx(stage, abs=1e-12), nimg
    assert growth.stage == 3  # never trained
    growth.learnt.fill_(350)
    assert growth.stage == 1.5
    assert [level_and_weight(stage) for stage in (0, 0.25, 1, 1.5, 3)] == [(0, 1), (1, 0.25), (1, 1), (2, 0.5), (3, 1)]


def test_a_level_begins_once_and_never_before_the_first() -> None:
    growth = Growth(halvings=3, images=100)
    begins = [nimg for nimg in range(0, 2000, 16) if growth.begins_level(Progress(nimg, 16, 2000))]
    assert begins == [112, 304, 512]  # the first batches after 100, 300 and 500 images


@pytest.mark.parametrize(("height", "width", "channels"), [(32, 32, 3), (28, 28, 1), (16, 24, 3)])
def test_nothing_jumps_when_a_level_begins_or_is_there(height: int, width: int, channels: int) -> None:
    """Exactly: the nets at the two ends of a fade, where its weight is nearly 0 and nearly 1, are those beside it."""
    nets = build(height, width, channels)
    G, D, halvings = nets["G"], nets["D"], nets["growth"].halvings
    z = torch.randn(8, 8)
    images = torch.randint(1, 128, (8, channels, height, width)) / 128  # the means of these are exact
    for k in range(halvings):
        begun, there = math.nextafter(k, math.inf), math.nextafter(k + 1, 0)
        assert level_and_weight(begun)[0] == level_and_weight(there)[0] == k + 1
        assert torch.equal(G(z, begun), progressive.upsampled(G(z, k), 2))
        assert torch.equal(G(z, there), G(z, k + 1))
        real, coarse, fine = (real_at(images, stage, halvings) for stage in (begun, k, k + 1))
        assert torch.equal(real, progressive.upsampled(coarse, 2))
        assert torch.equal(real_at(images, there, halvings), fine)
        assert torch.equal(D(real, begun), D(coarse, k))
        assert torch.equal(D(fine, begun), D(progressive.averaged_down(fine, 2), k))
        assert torch.equal(D(fine, there), D(fine, k + 1))
        assert not torch.allclose(D(fine, k + 0.5), D(fine, k + 1), rtol=1e-3)  # there is something to jump
        assert not torch.allclose(G(z, k + 0.5), G(z, k + 1), rtol=1e-3)
    assert torch.equal(G(z), G(z, halvings))
    assert torch.equal(D(images), D(images, halvings))
    assert G(z).shape == images.shape


def test_real_pictures_are_averaged_and_blended_like_the_fakes() -> None:
    fine = torch.tensor([[1.0, -1.0], [0.0, 0.5]]).repeat(4, 4)[None, None]  # 8x8 pixels, each 2x2 of mean 1/8
    assert torch.equal(real_at(fine, 0, 1), torch.full((1, 1, 4, 4), 0.125))
    assert torch.equal(real_at(fine, 1, 1), fine)
    assert torch.allclose(real_at(fine, 0.25, 1), 0.25 * fine + 0.75 * 0.125)
    assert torch.equal(real_at(fine, 0, 0), fine)


def test_only_the_layers_in_use_learn() -> None:
    nets = build(32, 32)
    level = nets["growth"].stage_at(nimg := 300_000)  # of 1000 kimg, whose half grows in six turns of 83.3
    assert 1 < level < 2
    for phase in RECIPE.phases(Config(**NARROW)):
        batch = Batch(torch.rand(8, 1, 32, 32), None, torch.randn(8, 8))
        sum(phase.loss(nets, batch, Progress(nimg, 8, 10**6)).values()).backward()
        learns = {name for name, p in nets[phase.name].named_parameters() if p.grad is not None}
        rgb = "from_rgb" if phase.name == "D" else "to_rgb"
        assert {name.rpartition(".")[0] for name in learns if name.startswith(rgb)} == {f"{rgb}.1", f"{rgb}.2"}
        assert {name.split(".")[1] for name in learns if name.startswith("blocks")} == {"0", "1", "2"}


def test_the_losses_are_those_of_wgan_gp_with_drift() -> None:
    nets = build(32, 32)
    D, batch = nets["D"], Batch(torch.rand(8, 1, 32, 32), None, torch.randn(8, 8))
    d, g = (phase.loss for phase in RECIPE.phases(Config(**NARROW)))
    t = Progress(999_984, 16, 10**6)
    real, fake = D(batch.real), D(nets["G"](batch.z))
    terms = d(nets, batch, t)
    assert terms["D"].item() == pytest.approx((fake.mean() - real.mean()).item(), rel=1e-5)
    assert terms["drift"].item() == pytest.approx(0.001 * real.square().mean().item(), rel=1e-5)
    assert g(nets, batch, t)["G"].item() == pytest.approx(-fake.mean().item(), rel=1e-5)
    with torch.no_grad():
        D.out.weight.zero_()
    assert d(nets, batch, t)["GP"].item() == pytest.approx(10, rel=1e-4)  # no slope: 10 (0 - 1)^2


def test_its_nets_are_those_of_the_paper() -> None:
    """23.1 M parameters each at 1024x1024, as table 2 of the paper counts them: without the levels' other outputs."""
    with torch.device("meta"):
        nets = RECIPE.build(Config(width=1.0, latent_dim=512), DataShape(1024, 1024, 3))
    for name, rgb in (("G", "to_rgb"), ("D", "from_rgb")):
        used = [p.numel() for n, p in nets[name].named_parameters() if rgb not in n or n.startswith(f"{rgb}.8.")]
        assert sum(used) / 1e6 == pytest.approx(23.1, abs=0.05)
    assert [conv.in_channels for conv in nets["G"].to_rgb] == [512, 512, 512, 512, 256, 128, 64, 32, 16]
    (group,) = RECIPE.phases(Config())[0].optimizer([nn.Parameter(torch.zeros(1))]).param_groups
    assert (group["lr"], group["betas"]) == (1e-3, (0, 0.99))


@pytest.mark.parametrize("shape", [(30, 30), (4, 4), (2048, 2048), (8, 9), (1000, 1000), (7, 14), (0, 8)])
def test_it_refuses_other_sizes(shape: tuple[int, int]) -> None:
    with pytest.raises(ArgumentError, match=rf"progressive cannot draw {shape[1]}x{shape[0]}: .* pass --resolution"):
        RECIPE.build(Config(), DataShape(*shape, 1))


def test_a_run_that_would_end_before_it_is_grown_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    said = "growing to 28x28 takes 4 times grow_kimg, 40 in all, but kimg is 40; .* or less than 10 as --grow-kimg"
    with pytest.raises(ArgumentError, match=said):
        make_run(tmp_path / "run", dataset, "progressive", config={"kimg": 40.0, "grow_kimg": 10.0})
    assert not (tmp_path / "run").exists()
    for kimg, grow_kimg in ((40.0, 5.0), (0.001, 0.000125)):
        assert RECIPE.complete(Config(kimg=kimg), DataShape(28, 28, 1)).grow_kimg == grow_kimg


def test_the_optimisers_begin_anew_with_each_level(dataset: Dataset, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset, "progressive", config=GROWING, precision="bf16")
    trainer = Trainer(run, dataset, "cpu")
    steps = []
    for nimg in range(0, 160, 16):
        trainer._iterate(Progress(nimg, 16, 160))
        counted = [{int(state["step"]) for state in o.state.values()} for o in trainer.optimizers.values()]
        assert counted[0] == counted[1]
        steps.append(counted[0])
    # The fades' first images have weight 0: with 48 and 112 level 1 and level 2 begin. A level that has faded in leaves
    # the output of the one below, whose count stands still.
    assert [max(counts) for counts in steps] == [1, 2, 3, 1, 2, 3, 4, 1, 2, 3]
    assert [min(counts) for counts in steps] == [1, 2, 3, 1, 1, 1, 1, 1, 1, 1]


def test_a_run_stopped_in_a_fade_goes_on_exactly(dataset: Dataset, tmp_path: Path) -> None:
    whole, parts = (make_run(tmp_path / name, dataset, "progressive", config=GROWING) for name in ("a", "b"))
    assert train(whole, dataset)
    for stop_at in (48, 64, 112):  # in the first fade; where it ends; in the second
        assert not train(Run.open(parts.folder), dataset, stop_at)
    assert train(Run.open(parts.folder), dataset)
    assert equal(result_of(whole), result_of(parts))
    assert all(math.isfinite(value) for record in whole.read_log() for value in record["losses"].values())


@pytest.mark.parametrize(("stop_at", "stage", "outputs"), [(64, 0.5, 2), (160, 2, 1)])
def test_an_export_at_any_time_draws_what_torch_draws(
    stop_at: int, stage: float, outputs: int, dataset: Dataset, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", dataset, "progressive", config=GROWING)
    train(run, dataset, stop_at)
    nets = run.build()
    run.load_nets(nets, run.load_checkpoint("newest"))
    assert nets["growth"].stage == stage
    module = run.recipe.export_module(nets).eval()
    pipeline.export_run(run.folder, tmp_path / "m.onnx", how=pipeline.How(lower="none", measure=False))
    generator = load(tmp_path / "m.onnx")
    for n in (1, 5):
        feed = inputs_of(generator.spec, 7, n)
        drawn = draw(module, generator.spec, feed)
        assert drawn.shape == (n, 1, 28, 28)
        assert np.abs(generator.run(feed) - drawn).max() < 1e-4
        coarse = drawn[:, :, ::2, ::2].repeat(2, 2).repeat(2, 3)
        assert np.array_equal(drawn, coarse) == (stage <= 1)  # pixels of 2x2 until level 2 begins
    kernels = [list(w.dims) for w in onnx.load(tmp_path / "m.onnx").graph.initializer if len(w.dims) == 4]
    assert sum(shape[0] == 1 and shape[2:] == [1, 1] for shape in kernels) == outputs  # of those to grey pixels
    assert sum(shape[2:] == [3, 3] for shape in kernels) == 1 + 2 * math.ceil(stage)


def test_the_monitors_ask_d_at_its_stage() -> None:
    nets = build(32, 32)
    images = torch.rand(8, 1, 32, 32)
    nets["growth"].learnt.fill_(350_000)
    stage = nets["growth"].stage
    assert torch.equal(RECIPE.logits(nets, images, None), nets["D"](real_at(images, stage, 3), stage))
