"""The recipe stylegan: its layers against the papers' equations, lazy regularisation, and what its export takes."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgegan import load
from edgegan.errors import ArgumentError
from edgegan.export import export_generator
from edgegan.export.lower import lower
from edgegan.export.pipeline import How, export_model
from edgegan.export.quality import Limit
from edgegan.export.quantize import fast_int8
from edgegan.model import inputs_of
from edgegan.trainer import recipes
from edgegan.trainer.data import Dataset, open_dataset
from edgegan.trainer.loop import Trainer
from edgegan.trainer.recipe import Batch, DataShape, Progress
from edgegan.trainer.recipes import stylegan
from edgegan.trainer.run import Run
from support import TINY, command, equal, make_run, result_of, train

STYLEGAN = recipes.load("stylegan")
SMALL = DataShape(16, 16, 1, ("a", "b", "c"))
SMALL_NET = TINY | {"latent_dim": 16, "width": 0.5}


def build(shape: DataShape = SMALL, **values: Any) -> nn.ModuleDict:
    """Nets whose noise and biases do something, and whose averages differ from G, as after training."""
    torch.manual_seed(0)
    values = {"latent_dim": 16, "width": 0.5, **values}
    nets = STYLEGAN.build(STYLEGAN.Config(**values), shape)
    with torch.no_grad():
        for name, parameter in nets["G_ema"].named_parameters():
            if name.endswith(("strength", "bias")):
                parameter.add_(torch.randn_like(parameter) / 4)
        nets["G_ema"].net.w_avg.normal_()
    return nets


def spec_of(shape: DataShape = SMALL, **values: Any) -> Any:
    return STYLEGAN.spec(STYLEGAN.Config(**{"latent_dim": 16, **values}), shape)


def small_set(folder: Path, **labels: Any) -> Dataset:
    """40 noisy pictures of 16x16."""
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16), np.uint8)
    np.savez(folder / "set.npz", images=images, **labels)
    return open_dataset(str(folder / "set.npz"))


def batch_of(n: int = 8, shape: DataShape = SMALL, dim: int = 16) -> Batch:
    label = torch.arange(n) % len(shape.classes) if shape.classes else None
    return Batch(torch.rand(n, shape.channels, shape.height, shape.width) * 2 - 1, label, torch.randn(n, dim))


# Networks -----------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("up", [1, 2])
def test_a_styled_convolution_is_that_of_the_paper(up: int) -> None:
    """Equations 1 to 3 as written: weights of its own for each picture, a convolution in as many groups."""
    torch.manual_seed(0)
    layer = stylegan.StyledConv(6, 5, 7, up)
    layer.strength.fill_(0.3)
    layer.bias.normal_()
    x, w, noise = torch.randn(4, 6, 8, 9), torch.randn(4, 7), torch.randn(4, 1, 8 * up, 9 * up)
    style = F.linear(w, layer.style.weight * 7**-0.5, layer.style.bias)
    weights = layer.weight[None] * style[:, None, :, None, None]  # [n, O, I, k, k]
    weights = weights / (weights.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    large = F.pad(x, (up - 1,) * 4).repeat_interleave(up, 2).repeat_interleave(up, 3)
    y = F.conv2d(large.flatten(0, 1)[None], weights.flatten(0, 1), padding=1, groups=4)[0].unflatten(0, (4, 5))
    if up == 2:  # repeating pixels and blurring with (1, 2, 1) is inserting zeros and filtering with (1, 3, 3, 1)
        taps = torch.tensor([1.0, 2, 1]) / 4
        y = F.conv2d(y.flatten(0, 1)[:, None], torch.outer(taps, taps)[None, None], padding=1).view(y.shape)
        y = y[:, :, 2:-2, 2:-2]  # without the pixel that was added around x
    expected = F.leaky_relu(y * math.sqrt(2) + 0.3 * noise + layer.bias, 0.2)
    assert torch.allclose(layer(x, w, noise), expected, atol=1e-5)


def test_demodulation_keeps_the_variance_whatever_weights_and_styles_are() -> None:
    torch.manual_seed(0)
    layer, x = stylegan.StyledConv(32, 32, 8, 1), torch.randn(8, 32, 24, 24)
    with torch.no_grad():
        layer.weight.mul_(100 * torch.rand(32, 1, 1, 1))
        y = layer(x, 3 * torch.randn(8, 8), torch.zeros(8, 1, 24, 24))[:, :, 1:-1, 1:-1]
    assert y.square().mean().item() == pytest.approx(1 + 0.2**2, rel=0.02)  # of LeakyReLU(sqrt(2) N(0, 1))


def test_the_picture_is_the_sum_of_what_the_levels_draw() -> None:
    G = build()["G_ema"].net
    w, noise = torch.randn(2, 16), [torch.randn(2, *shape) for shape in G.noise_shapes]
    whole = G.synthesis([w] * G.styles, noise)
    drawn: list[Tensor] = []
    handles = [layer.register_forward_hook(lambda _, __, out: drawn.append(out)) for layer in G.to_image]
    G.synthesis([w] * G.styles, noise)
    for handle in handles:
        handle.remove()
    assert [part.shape[-1] for part in drawn] == [4, 8, 16]
    expected = sum(F.interpolate(part, size=(16, 16), mode="bilinear") for part in drawn[1:])
    first = F.interpolate(F.interpolate(drawn[0], scale_factor=2, mode="bilinear"), scale_factor=2, mode="bilinear")
    assert torch.allclose(whole, expected + first, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "noises"),
    [((8, 8), 3), ((28, 28), 5), ((16, 24), 5), ((64, 64), 9), ((256, 256), 13)],
)
@pytest.mark.parametrize("classes", [(), ("a", "b")])
def test_it_draws_and_judges_each_size(shape: tuple[int, int], noises: int, classes: tuple[str, ...]) -> None:
    data = DataShape(*shape, 3, classes)
    nets, spec = build(data), spec_of(data)
    assert (len(spec.noise_inputs), spec.style) == (noises, True)
    assert spec.noise_inputs[-1] == (1, *shape)
    for before, after in pairwise(side for _, _, side in spec.noise_inputs):
        assert after in (before, 2 * before)
    batch = batch_of(2, data)
    images, ws = stylegan.draw(nets["G"], batch, 0.9)
    assert images.shape == batch.real.shape
    assert ws.shape == (2, noises + 1, 16)
    assert nets["D"](images, batch.label).shape == (2,)


@pytest.mark.parametrize(("shape", "says"), [((4, 4), "8 to 448"), ((512, 512), "8 to 448"), ((36, 30), "multiples")])
def test_it_refuses_other_sizes(shape: tuple[int, int], says: str) -> None:
    with pytest.raises(ArgumentError, match=rf"stylegan cannot draw {shape[1]}x{shape[0]}: .*{says}"):
        STYLEGAN.build(STYLEGAN.Config(), DataShape(*shape, 1))


def test_d_judges_the_class_it_is_told() -> None:
    D, batch = build()["D"], batch_of(4)
    assert not torch.allclose(D(batch.real, torch.zeros(4).long()), D(batch.real, torch.ones(4).long()))
    alone = build(DataShape(16, 16, 1))["D"]
    same = batch.real[:1].expand(4, -1, -1, -1)  # D sees that four pictures are one
    assert not torch.allclose(alone(same)[0], alone(torch.cat([same[:1], batch.real[1:]]))[0])


def test_values_that_are_not_given_follow_from_the_pictures_and_the_batch() -> None:
    config = STYLEGAN.complete(STYLEGAN.Config(batch=32), DataShape(64, 64, 3))
    assert config.gamma == pytest.approx(0.001 * 64**2)
    assert config.ema_kimg == 10.0
    given = STYLEGAN.Config(gamma=1.0, ema_kimg=2.0)
    assert STYLEGAN.complete(given, DataShape(64, 64, 3)) == given


# Truncation and the mean w -------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [(), ("a", "b", "c")])
def test_psi_draws_w_towards_the_mean_of_its_class(classes: tuple[str, ...]) -> None:
    shape = DataShape(16, 16, 1, classes)
    G = build(shape)["G_ema"].net
    z, label = torch.randn(6, 16), [torch.tensor([0, 1, 2, 0, 1, 2])] if classes else []
    noise = [torch.randn(1, *side).expand(6, -1, -1, -1) for side in G.noise_shapes]

    def pictures(psi: float) -> Tensor:
        return G(z, *label, torch.tensor([psi]), *noise)

    w = G.mapping(z, *label)
    assert torch.allclose(pictures(1), G.synthesis([w] * G.styles, noise), atol=1e-5)
    mean = pictures(0)
    assert torch.allclose(mean[:3], mean[3:])  # whatever z is
    assert torch.allclose(mean[0], mean[1]) is not bool(classes)
    half = G.w_avg[label[0] if classes else 0] * 0.5 + w * 0.5
    assert torch.allclose(pictures(0.5), G.synthesis([half] * G.styles, noise), atol=1e-5)
    assert not torch.allclose(pictures(1), G(z, *label, torch.ones(1), *(torch.randn_like(k) for k in noise)))


def test_the_mean_w_of_each_class_that_is_there_moves() -> None:
    G = build()["G"]
    w = torch.randn(5, 16)
    G.remember(w, torch.tensor([0, 2, 0, 2, 2]))
    assert torch.allclose(G.w_avg[0], 0.005 * w[[0, 2]].mean(0))
    assert torch.equal(G.w_avg[1], torch.zeros(16))
    assert torch.allclose(G.w_avg[2], 0.005 * w[[1, 3, 4]].mean(0))
    for _ in range(2000):
        G.remember(w, torch.tensor([0, 2, 0, 2, 2]))
    assert torch.allclose(G.w_avg[2], w[[1, 3, 4]].mean(0), atol=1e-3)
    alone = build(DataShape(16, 16, 1))["G"]
    alone.remember(w, None)
    assert torch.allclose(alone.w_avg[0], 0.005 * w.mean(0))


def test_training_moves_the_mean_w_and_its_average(tmp_path: Path) -> None:
    data = small_set(tmp_path, labels=np.arange(40) % 3)
    run = make_run(tmp_path / "run", data, "stylegan", config=SMALL_NET)
    assert train(run, data)
    state: Any = result_of(run)[0]["nets"]
    for name in ("G.w_avg", "G_ema.net.w_avg"):
        assert state[name].shape == (3, 16)
        assert state[name].abs().max() > 1e-4
    assert state["path_length.mean"] > 0


# Style mixing and path lengths ---------------------------------------------------------------------


def test_styles_are_cut_where_the_draw_says() -> None:
    w, other = torch.zeros(5, 1), torch.ones(5, 1)
    u = torch.tensor([[0.95, 0.5], [0.0, 0.0], [0.3, 0.34], [0.3, 0.67], [0.89, 0.9999]])
    ws = stylegan.mixed(w, other, u, 4, 0.9)
    # Not mixed; then from the second, third, fourth style on.
    assert ws[:, :, 0].tolist() == [[0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1]]


def test_the_asked_for_share_of_pictures_is_mixed_and_every_cut_is_as_likely() -> None:
    torch.manual_seed(0)
    n = 20_000
    ws = stylegan.mixed(torch.zeros(n, 1), torch.ones(n, 1), torch.rand(n, 2), 5, 0.9)[:, :, 0]
    counts = torch.bincount(ws.sum(1).long(), minlength=5)  # styles of the other
    expected = torch.tensor([0.1, *[0.225] * 4]) * n
    assert ((counts - expected).abs() < 5 * (expected * (1 - expected / n)).sqrt()).all()
    assert stylegan.mixed(torch.zeros(9, 1), torch.ones(9, 1), torch.rand(9, 2), 5, 0.0).sum() == 0


def test_a_mixed_picture_takes_its_coarse_styles_from_one_and_its_fine_ones_from_the_other(monkeypatch: Any) -> None:
    nets, batch = build(), batch_of(4)
    G = nets["G"]
    monkeypatch.setattr(stylegan, "uniform", lambda n, device, *shape: torch.tensor([[0.0, 0.5]]).expand(n, 2))
    _, ws = stylegan.draw(G, batch, 1.0)
    w = G.mapping(batch.z, batch.label)
    assert torch.allclose(ws[:, :3], w[:, None].expand(-1, 3, -1))
    assert (ws[:, 3:] - w[:, None]).abs().amax((1, 2)).min() > 0.01
    assert torch.equal(ws[:, 3], ws[:, 5])


def test_path_lengths_of_a_linear_generator_are_known() -> None:
    """Images are A w, one A for each style: the gradient of (A w) . y is A^T y."""
    torch.manual_seed(0)
    n, styles, dim = 6, 3, 5
    A, ws = torch.randn(styles, 2 * 4 * 4, dim), torch.randn(n, styles, dim, requires_grad=True)
    images = torch.einsum("spd,nsd->np", A, ws).view(n, 2, 4, 4)
    penalise = stylegan.PathLength()
    torch.manual_seed(1)
    first = penalise(images, ws)
    torch.manual_seed(1)
    y = torch.randn(n, 2 * 4 * 4) / 4  # N(0, 1) over the root of the number of pixels
    lengths = torch.einsum("spd,np->nsd", A, y).square().sum(2).mean(1).sqrt()
    assert torch.allclose(penalise.mean, 0.01 * lengths.mean())
    assert torch.allclose(first, (lengths - 0.01 * lengths.mean()).square().mean())
    for seed in range(600):
        torch.manual_seed(seed)
        last = penalise(torch.einsum("spd,nsd->np", A, ws).view(n, 2, 4, 4), ws)
    # Expected of |A^T y|^2 is |A|^2 / pixels; here its spread is small, and the penalty has found the mean.
    expected = (A.square().sum((1, 2)).mean() / 16).sqrt()
    assert penalise.mean.item() == pytest.approx(expected.item(), rel=0.1)
    assert last < first / 4


def test_the_gradient_of_the_path_length_is_that_of_finite_differences() -> None:
    nets, batch = build().double(), batch_of(4)
    G, penalise = nets["G"], nets["path_length"]
    batch = Batch(batch.real.double(), batch.label, batch.z.double())
    weight = G.convs[2].weight

    def penalty() -> Tensor:
        torch.manual_seed(3)
        penalise.mean.fill_(1.0)
        return penalise(*stylegan.draw(G, batch, 0.9, each=2))

    direction = torch.randn_like(weight)
    (gradient,) = torch.autograd.grad(penalty(), weight)
    values, step = [], 1e-4
    for sign in (1, -1):
        weight.data.add_(sign * step * direction)
        values.append(penalty().item())
        weight.data.sub_(sign * step * direction)
    expected = (values[0] - values[1]) / (2 * step)
    assert expected != 0
    assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-3)


def test_path_lengths_are_float32_under_autocast() -> None:
    nets, batch = build(), batch_of()
    phases = {phase.name: phase for phase in STYLEGAN.phases(STYLEGAN.Config())}
    values = []
    for enabled in (False, True):
        torch.manual_seed(0)
        nets["path_length"].mean.zero_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            (term,) = phases["G_reg"].loss(nets, batch, Progress(0, 8, 64)).values()
        values.append(term)
    assert torch.equal(*values)


# Lazy regularisation --------------------------------------------------------------------------------


def test_regularisers_weigh_as_much_as_in_every_iteration() -> None:
    nets, batch, t = build(), batch_of(), Progress(0, 8, 64)
    phases = {phase.name: phase for phase in STYLEGAN.phases(STYLEGAN.Config(gamma=0.3, path_length=2.0))}
    assert {name: (phase.every, phase.steps_with, phase.trains) for name, phase in phases.items()} == {
        "D": (1, "D", ("D",)),
        "D_reg": (16, "D", ("D",)),
        "G_reg": (4, "G", ("G",)),
        "G": (1, "G", ("G",)),
    }
    real = batch.real.clone().requires_grad_()
    (slope,) = torch.autograd.grad(nets["D"](real, batch.label).sum(), real)
    r1 = 0.3 / 2 * slope.square().sum((1, 2, 3)).mean()
    assert torch.allclose(phases["D_reg"].loss(nets, batch, t)["R1"], 16 * r1)
    torch.manual_seed(0)
    term = phases["G_reg"].loss(nets, batch, t)["path length"]
    torch.manual_seed(0)
    nets["path_length"].mean.zero_()
    penalty = nets["path_length"](*stylegan.draw(nets["G"], batch, 0.9, each=2))
    assert torch.allclose(term, 2.0 * 4 * penalty)


def test_adam_is_slowed_down_for_the_steps_of_the_regularisers() -> None:
    parameter = [nn.Parameter(torch.zeros(1))]
    for config, expected in (
        (STYLEGAN.Config(), {"D": 16 / 17, "G": 4 / 5}),
        (STYLEGAN.Config(path_length=0.0), {"D": 16 / 17, "G": 1.0}),
    ):
        phases = {phase.name: phase for phase in STYLEGAN.phases(config)}
        assert ("G_reg" in phases) is (expected["G"] < 1)
        for name, c in expected.items():
            (group,) = phases[name].optimizer(parameter).param_groups
            assert group["lr"] == pytest.approx(0.0025 * c)
            assert group["betas"] == (0, pytest.approx(0.99**c))


def test_a_regulariser_steps_with_the_moments_of_its_net(tmp_path: Path) -> None:
    data = small_set(tmp_path)
    run = make_run(tmp_path / "run", data, "stylegan", config=SMALL_NET)
    trainer = Trainer(run, data, "cpu")
    assert set(trainer.optimizers) == {"D", "G"}
    for nimg in (0, 16):
        trainer._iterate(Progress(nimg, 16, 64))
    assert trainer.counts == {"D": 2, "R1": 1, "path length": 1, "G": 2}
    steps = {name: int(trainer.optimizers[name].state[net]["step"]) for name, net in weights_of(trainer).items()}
    assert steps == {"D": 3, "G": 3}
    trainer.train([])
    state = run.newest_checkpoint()
    assert state is not None
    assert set(state["optimizers"]) == {"D", "G"}


def weights_of(trainer: Trainer) -> dict[str, nn.Parameter]:
    return {"D": trainer.nets["D"].conv.weight, "G": trainer.nets["G"].convs[1].weight}


def test_without_classes_in_bf16_and_in_pieces_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    data = small_set(tmp_path)
    whole, parts = (
        make_run(tmp_path / name, data, "stylegan", config=SMALL_NET, precision="bf16", micro_batch=8)
        for name in ("whole", "parts")
    )
    assert train(whole, data)
    assert not train(parts, data, 32)
    assert train(Run.open(parts.folder), data)
    assert equal(result_of(whole), result_of(parts))
    assert all(math.isfinite(value) for record in whole.read_log() for value in record["losses"].values())


# Previews, export, runtime --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with classes, whose noise inputs and mean w are not 0."""
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    nets = build()
    export_generator(STYLEGAN.export_module(nets), spec_of(), path, lower="fixed", measure=False)
    return path


def test_weights_of_nets_as_large_as_trained_ones_are_constants_once_lowered_or_in_int8(tmp_path: Path) -> None:
    """torch's exporter folds what is small, as in the other tests; filtering the rest is left to what comes after."""
    path, nets = tmp_path / "m.onnx", build(width=1.5)
    assert max(layer.weight.numel() for layer in nets["G_ema"].net.convs) > 8192
    export_generator(STYLEGAN.export_module(nets), spec_of(), path, lower="none", measure=False)
    plain = onnx.load(path)

    def weights(model: onnx.ModelProto) -> tuple[set[str], set[str]]:
        """Those of all convolutions, and all constants; in int8 what is made float again counts as one."""
        constants = {item.name for item in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in constants:
                constants.add(node.output[0])
        return {node.input[1] for node in model.graph.node if node.op_type == "Conv"}, constants

    used, constants = weights(plain)
    assert not used <= constants
    lowered = lower(plain, inputs_of(spec_of(), 0, 2), measure=False)
    for model in (lowered.model, fast_int8(plain)):
        used, constants = weights(model)
        assert len(used) == 8
        assert used <= constants


def test_a_preview_is_what_the_runtime_draws(exported: Path, tmp_path: Path) -> None:
    """With the seed's latents, labels and noise inputs."""
    data = small_set(tmp_path, labels=np.arange(40) % 3)
    run = make_run(tmp_path / "run", data, "stylegan", config=SMALL_NET)
    trainer = Trainer(run, data, "cpu")
    trainer.nets.load_state_dict(build().state_dict())
    previewed = trainer.preview.draw(20).astype(int)
    trainer.feed.close()
    trainer.writer.close()
    assert np.abs(previewed - load(exported).sample(20, seed=0)).max() <= 1
    z, noise = torch.zeros(2, 16), [torch.randn(2, *side) for side in spec_of().noise_inputs]
    first, second = run.recipe.export_module(trainer.nets)(z, torch.zeros(2).long(), torch.ones(1), *noise)
    assert (first - second).abs().max() > 0.1  # the noise does matter


def test_the_model_file_takes_psi_and_holds_the_mean(exported: Path) -> None:
    generator = load(exported)
    nets = build()
    G = nets["G_ema"].net
    feed = {
        "z": np.random.default_rng(0).standard_normal((4, 16), np.float32),
        "label": np.array([0, 1, 2, 0]),
        "psi": np.zeros(1, np.float32),
        **{f"noise_{k}": np.zeros((4, *side), np.float32) for k, side in enumerate(G.noise_shapes)},
    }
    mean = generator.run(feed)
    assert np.abs(mean[0] - mean[3]).max() < 1e-5
    assert np.abs(mean[0] - mean[1]).max() > 0.01
    with torch.no_grad():
        w = G.w_avg[[0, 1, 2, 0]]
        expected = G.synthesis([w] * G.styles, [torch.zeros(4, *side) for side in G.noise_shapes]).clamp(-1, 1)
    assert np.abs(mean - expected.numpy()).max() < 1e-4


def test_sample_and_walk_take_psi(exported: Path, tmp_path: Path) -> None:
    for name, psi in (("one.png", ()), ("less.png", ("--psi", 0.7))):
        done = command("edgegan", "sample", exported, "-n", 4, "--labels", "b", *psi, "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
    pixels = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert pixels["less.png"] != pixels["one.png"]
    generator = load(exported)
    whole, less = (generator.sample(4, seed=0, psi=psi).astype(int) for psi in (1.0, 0.7))
    assert np.abs(whole - less).max() > 5
    walked = command(
        "edgegan", "walk", exported, "--seeds", "1,2", "--frames", 3, "--psi", 0.5, "-o", tmp_path / "w.gif"
    )
    assert walked.returncode == 0, walked.stderr
    assert (tmp_path / "w.gif").read_bytes()[:3] == b"GIF"


def test_between_int8_convolutions_styles_and_noise_stay_in_float(exported: Path) -> None:
    model = fast_int8(onnx.load(exported))
    readers: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) >= 8
    assert {makers[node.input[0]] for node in convolutions} == {"DequantizeLinear"}
    noisy = [node for node in model.graph.node if node.op_type == "Mul" and node.input[0].startswith("noise_")]
    assert len(noisy) == 5
    for node in noisy:
        assert readers[node.input[0]] == {"Mul"}
        assert readers[node.output[0]] == {"Add"}


@pytest.mark.parametrize("precision", ["fp16", pytest.param("int8", marks=pytest.mark.slow)])
def test_it_can_be_made_smaller(precision: str, exported: Path, tmp_path: Path) -> None:
    """To 20 dB: what random weights draw is noise, which 8 bits hold less well than pictures."""
    path, limit = tmp_path / "m.onnx", Limit.parse("20dB")
    export_model(exported, path, how=How(precision, lower="fixed", measure=False, max_quality_loss=limit))
    generator = load(path)
    assert generator.spec.precision == precision
    assert generator.spec.golden is not None
    assert generator.check_golden() <= generator.spec.golden.tolerance
