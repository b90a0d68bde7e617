"""Generators that edgegan did not train: `export_generator`, its page, its example, and what they are made of."""

import os
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import edgegan.export
from edgegan import load
from edgegan.export import export_generator
from edgegan.export.bake import baked
from edgegan.export.describe import describe
from edgegan.export.trace import draw, to_model
from edgegan.export.verify import check_file, parity
from edgegan.spec import ModelSpec
from edgegan.trainer.layers import modulated_conv2d
from support import BIN, command

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "custom-generators.md").read_text(encoding="utf-8")
SPEC = ModelSpec(recipe="own", image_size=(8, 8), channels=3, latent_dim=8)


def dcgan_checkpoint(path: Path, prefix: str = "") -> None:
    """A state dict with the names and shapes of netG in pytorch/examples, dcgan/main.py, at ngf 16."""
    torch.manual_seed(0)
    state: OrderedDict[str, Tensor] = OrderedDict()
    for i, (n, m) in zip((0, 3, 6, 9, 12), ((100, 128), (128, 64), (64, 32), (32, 16), (16, 3)), strict=True):
        state[f"main.{i}.weight"] = 0.02 * torch.randn(n, m, 4, 4)
        if i < 12:
            state[f"main.{i + 1}.weight"] = 1 + 0.02 * torch.randn(m)
            for name in ("bias", "running_mean"):
                state[f"main.{i + 1}.{name}"] = torch.zeros(m)
            state[f"main.{i + 1}.running_var"] = torch.full((m,), 0.01)
            state[f"main.{i + 1}.num_batches_tracked"] = torch.tensor(7)
    torch.save(OrderedDict((prefix + name, value) for name, value in state.items()), path)


@pytest.mark.slow
def test_the_page_as_it_stands(tmp_path: Path) -> None:
    dcgan_checkpoint(tmp_path / "netG_epoch_24.pth", prefix="module.")
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    ran = []
    for language, code in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.M | re.S):
        run = [BIN / "python", "-c", code] if language == "python" else ["sh", "-e", "-c", code]
        done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stderr}"
        ran.append(language)
    assert ran == ["python", "sh", "python", "sh"]
    assert {"pets.png", "faces.png"} <= {path.name for path in tmp_path.iterdir()}
    mine, dcgan = load(tmp_path / "mine.onnx").spec, load(tmp_path / "dcgan.onnx").spec
    assert (mine.classes, mine.image_size, mine.golden is not None) == (("cat", "dog"), (16, 16), True)
    assert (dcgan.image_size, dcgan.channels, dcgan.latent_dim) == ((64, 64), 3, 100)


@pytest.mark.parametrize("prefix", ["", "netG.", "module.netG."])
def test_the_pages_dcgan_takes_a_checkpoint_with_any_prefix(prefix: str, tmp_path: Path) -> None:
    dcgan_checkpoint(tmp_path / "netG_epoch_24.pth", prefix)
    (code,) = [code for code in re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.M | re.S) if "netG" in code]
    code = code.replace("export_generator(", "print(generator(torch.zeros(2, 100)).shape, spec.latent_dim) if 1 else (")
    done = subprocess.run([BIN / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "torch.Size([2, 3, 64, 64]) 100\n", done.stderr


@pytest.mark.slow
def test_the_example_is_a_program(tmp_path: Path) -> None:
    output = tmp_path / "textures.onnx"
    program = ROOT / "examples" / "custom_generator.py"
    done = subprocess.run([sys.executable, program, output], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = re.findall(r"^    edgegan (sample OUT.*)$", program.read_text(encoding="utf-8"), flags=re.M)
    args = line.replace("OUT.onnx", str(output)).split()
    shown = command("edgegan", *args, "-o", tmp_path / "x.png", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    spec = check_file(output).spec
    assert list(spec.inputs()) == ["z", "label", "psi", "noise_0", "noise_1", "noise_2", "noise_3"]
    pictures = {psi: load(output).sample(8, psi=psi).astype(float) for psi in (0.0, 1.0)}
    assert pictures[0.0].std(axis=0).mean() < pictures[1.0].std(axis=0).mean()  # psi 0: one style, other noise
    wrong = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert wrong.returncode == 1
    assert wrong.stderr == "usage: python examples/custom_generator.py OUT.onnx\n"


class Net(nn.Module):
    """z [n, 8] -> [n, 3, 8, 8]; `norm` is put upon each layer."""

    def __init__(self, norm: Callable[[nn.Module], nn.Module] = lambda layer: layer) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dense = norm(nn.Linear(8, 64))
        self.up = norm(nn.ConvTranspose2d(16, 8, 4, 2, 1))
        self.out = norm(nn.Conv2d(8, 3, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        x = torch.relu(self.dense(z)).view(-1, 16, 2, 2)
        x = F.interpolate(torch.relu(self.up(x)), scale_factor=2, mode="nearest")
        return torch.tanh(self.out(x))


@pytest.mark.slow
def test_a_module_that_trains_on_is_left_as_it_is(tmp_path: Path) -> None:
    net = Net(parametrizations.spectral_norm).double()
    net(torch.randn(4, 8).double()).sum().backward()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    export_generator(net, SPEC, tmp_path / "m.onnx")
    assert net.training
    assert all(p.requires_grad and p.grad is not None for p in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert parametrize.is_parametrized(net.up, "weight")


def half_zero(layer: nn.Module) -> nn.Module:
    """A parametrization of one's own."""

    class Triangle(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight.tril()

    return parametrize.register_parametrization(layer, "weight", Triangle())


NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "spectral": parametrizations.spectral_norm,
    "weight": parametrizations.weight_norm,
    "orthogonal": lambda layer: parametrizations.orthogonal(layer) if isinstance(layer, nn.Linear) else layer,
    "own": half_zero,
    "two": lambda layer: parametrizations.spectral_norm(parametrizations.weight_norm(layer)),
    "old spectral": nn.utils.spectral_norm,
    "old weight": lambda layer: torch.nn.utils.weight_norm(layer),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("name", NORMS)
def test_baked_draws_the_same_and_exports_as_the_plain_net(name: str) -> None:
    net = Net(NORMS[name])
    for _ in range(3):  # spectral norm finds its vectors
        net(torch.randn(4, 8)).sum().backward()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    copied = baked(net)
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert copied.state_dict().keys() == Net().state_dict().keys()
    assert not copied.training
    assert not any(p.requires_grad or p.grad is not None for p in copied.parameters())
    z = torch.randn(5, 8)
    assert torch.equal(copied(z), net.eval()(z))
    model, plain = to_model(copied, SPEC), to_model(Net().eval(), SPEC)
    assert [node.op_type for node in model.graph.node] == [node.op_type for node in plain.graph.node]
    assert {item.name for item in model.graph.initializer} == {item.name for item in plain.graph.initializer}


def test_baked_is_float32_from_any_other() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        net = Net().to(dtype)
        copied = baked(net)
        assert {value.dtype for value in copied.state_dict().values()} == {torch.float32}
        assert {value.dtype for value in net.state_dict().values()} == {dtype}
        data = describe(to_model(copied, SPEC), SPEC, copied)
        assert max(parity(data, partial(draw, copied, SPEC)).values()) < 1e-5


def modulated(weight: Tensor, style: Tensor, demodulate: bool) -> Tensor:
    """Karras et al. 2020, equations 1 to 3, as written there: weights of its own for each picture, [n, O, I, k, k]."""
    scaled = weight[None] * style[:, None, :, None, None]  # (1)
    if demodulate:
        scaled = scaled / (scaled.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()  # (3)
    return scaled


def textbook(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: int) -> Tensor:
    """Convolved in as many groups as there are pictures."""
    n, channels = style.shape
    scaled = modulated(weight, style, demodulate)
    x = x.repeat_interleave(up, 2).repeat_interleave(up, 3)
    out, _, k, _ = weight.shape
    groups = x.reshape(1, n * channels, *x.shape[2:])
    y = F.conv2d(groups, scaled.reshape(n * out, channels, k, k), padding=k // 2, groups=n)
    return y.reshape(n, out, *x.shape[2:])


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("up", [1, 2, 3])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_modulated_convolution_is_the_textbooks(demodulate: bool, up: int, k: int) -> None:
    torch.manual_seed(k)
    x, weight, style = torch.randn(4, 6, 5, 7), torch.randn(3, 6, k, k) / (6 * k * k) ** 0.5, 1 + torch.randn(4, 6)
    found = modulated_conv2d(x, weight, style, demodulate, up)
    torch.testing.assert_close(found, textbook(x, weight, style, demodulate, up), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_filters_what_it_enlarges_as_the_paper_does(demodulate: bool) -> None:
    """A transposed convolution of stride 2, then the filter (1, 3, 3, 1), whose gain of 4 makes good for the stride."""
    torch.manual_seed(0)
    x, weight, style = torch.randn(4, 6, 5, 7), torch.randn(3, 6, 3, 3) / 54**0.5, 1 + torch.randn(4, 6)
    found = modulated_conv2d(x, weight, style, demodulate, up=2, filtered=True)
    taps = torch.tensor([1.0, 3, 3, 1]) / 4
    expected = []
    for picture, own in zip(x, modulated(weight, style, demodulate), strict=True):
        y = F.conv_transpose2d(picture[None], own.flip(2, 3).transpose(0, 1), stride=2)
        y = F.conv2d(y.transpose(0, 1), torch.outer(taps, taps)[None, None], padding=3).transpose(0, 1)
        expected.append(y[:, :, 2:-2, 2:-2])
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="filtered with up 3 and k 3; valid: 2 and 3"):
        modulated_conv2d(x, weight, style, up=3, filtered=True)


def test_modulated_convolution_refuses_other_shapes() -> None:
    x, weight, style = torch.ones(2, 4, 5, 5), torch.ones(3, 4, 3, 3), torch.ones(2, 4)
    for wrong in ((x[0], weight, style), (x[:, :3], weight, style), (x, weight, style[:, :3])):
        with pytest.raises(
            ValueError, match=r"modulated convolution of \[.*valid for weight \[3, 4, 3, 3\]: \[n, 4, h"
        ):
            modulated_conv2d(*wrong)
    with pytest.raises(ValueError, match=r"weight of shape \[3, 4, 2, 2\]; valid: \[O, I, k, k\] with k odd"):
        modulated_conv2d(x, weight[:, :, :2, :2], style)


class Styled(nn.Module):
    """A modulated convolution on a learned start."""

    def __init__(self, filtered: bool) -> None:
        super().__init__()
        self.filtered = filtered
        self.start = nn.Parameter(torch.randn(1, 8, 4, 4))
        self.weight = nn.Parameter(torch.randn(3, 8, 3, 3))

    def forward(self, z: Tensor) -> Tensor:
        x = self.start.expand(z.shape[0], -1, -1, -1)
        return torch.tanh(modulated_conv2d(x, self.weight, z, up=2, filtered=self.filtered))


@pytest.mark.parametrize("filtered", [False, True])
def test_modulated_convolution_exports_with_constant_weights_and_a_free_batch(filtered: bool) -> None:
    module = baked(Styled(filtered))
    data = describe(to_model(module, SPEC), SPEC, module)
    model = onnx.load_from_string(data)
    (conv,) = [node for node in model.graph.node if node.op_type == "Conv"]
    weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    if filtered:
        assert weights[conv.input[1]].shape == (12, 8, 3, 3)
    else:
        np.testing.assert_array_equal(weights[conv.input[1]], module.weight)
    assert all(item.i == 1 for item in conv.attribute if item.name == "group")
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert max(parity(data, partial(draw, module, SPEC)).values()) < 1e-5  # at batches 1, 2, 3 and 17


def test_the_package_imports_neither_torch_nor_onnx() -> None:
    code = "import sys, edgegan.export; print([m for m in ('torch', 'onnx') if m in sys.modules], dir(edgegan.export))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] ")
    with pytest.raises(AttributeError, match="has no attribute 'export_gan'"):
        edgegan.export.export_gan  # noqa: B018
