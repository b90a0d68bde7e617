"""A generator that cannot be exported is refused with one line, which names the line of the module that is to blame."""

import io
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgegan import load
from edgegan.errors import ExportError
from edgegan.export import blame
from edgegan.export import describe as describe_
from edgegan.export.describe import describe, serialized
from edgegan.export.trace import draw, to_model
from edgegan.export.verify import parity
from edgegan.spec import ModelSpec

SPEC = ModelSpec(recipe="own", image_size=(8, 8), channels=1, latent_dim=8)
LINES = Path(__file__).read_text(encoding="utf-8").splitlines()
FREE, INPUT = "the batch N must stay free", "take it as an input noise_k (ModelSpec.noise_inputs)"


@torch.library.custom_op("edgegan_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    """An operator that only this file knows."""
    return x * 2


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Net(nn.Module):
    """z [n, 8] -> [n, 1, 8, 8]; `middle` stands between."""

    def __init__(self, middle: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.dense = nn.Linear(8, 64)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.middle = middle

    def draw(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(x.view(-1, 1, 8, 8)))

    def forward(self, z: Tensor) -> Tensor:
        x = self.dense(z)
        return self.draw(x if self.middle is None else self.middle(x))


def per_picture(x: Tensor) -> Tensor:
    """A convolution whose weights differ from picture to picture, as a convolution in groups."""
    n = x.shape[0]
    weight = x[:, :9].reshape(n, 1, 3, 3)
    pictures = x.view(1, n, 8, 8)
    return F.conv2d(pictures, weight, padding=1, groups=n).view(n, 1, 8, 8)  # line: groups


def warped(x: Tensor) -> Tensor:
    grid = torch.zeros(x.shape[0], 8, 8, 2)
    return F.grid_sample(x.view(-1, 1, 8, 8), grid, align_corners=False)  # line: grid


def values(x: Tensor) -> Tensor:
    if x.sum() > 0:  # line: if values
        return x * 2
    return x


def batch(x: Tensor) -> Tensor:
    if x.shape[0] == 3:  # line: if batch
        return x * 2
    return x


def number(x: Tensor) -> Tensor:
    n = int(x.shape[0])  # line: int
    return x.view(n, 1, 8, 8)


def rows(x: Tensor) -> Tensor:
    return torch.stack([row * 2 for row in x])  # line: loop


def item(x: Tensor) -> Tensor:
    return x * int(x[0, 0].abs().clamp(0, 1).item())  # line: item


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    # what torch or ONNX lacks, or the gate does not let through
    "inv": (
        lambda x: x + torch.linalg.inv(torch.eye(8) + x.view(-1, 8, 8)).sum((1, 2))[:, None],  # line: inv
        "the operator aten.linalg_inv_ex.default cannot be exported to ONNX: write it with operators that ONNX has",
    ),
    "fft": (lambda x: torch.fft.fft(x).real, "the operator 'DFT', which is not one of"),  # line: fft
    "einsum": (lambda x: torch.einsum("ni,oi->no", x, torch.eye(64)), "the operator 'Einsum'"),  # line: einsum
    "grid": (warped, "the operator 'GridSample', which is not one of"),
    "own operator": (lambda x: twice(x), "the operator edgegan_tests.twice.default cannot"),  # line: own operator
    # noise
    "randn": (lambda x: x + torch.randn_like(x), f"(operator RandomNormalLike); {INPUT}"),  # line: randn
    "rand": (lambda x: x + torch.rand(x.shape[0], 1), f"(operator RandomUniformLike); {INPUT}"),  # line: rand
    "normal": (lambda x: x + torch.normal(0.0, 1.0, size=(1, 64)), INPUT),  # line: normal
    "bernoulli": (lambda x: x * torch.bernoulli(torch.sigmoid(x)), INPUT),  # line: bernoulli
    "dropout": (lambda x: F.dropout(x, 0.5, training=True), f"(operator Dropout); {INPUT}"),  # line: dropout
    "randperm": (lambda x: x[:, torch.randperm(64)], f"it draws noise inside the graph; {INPUT}"),  # line: randperm
    # a batch that is not free
    "view": (lambda x: x.view(3, 1, 8, 8), FREE),  # line: view
    "int": (number, FREE),
    "len": (lambda x: x.view(len(x), 1, 8, 8), FREE),  # line: len
    "loop": (rows, FREE),
    "if batch": (batch, FREE),
    "zeros": (lambda x: x.view(-1, 1, 8, 8) + torch.zeros(3, 1, 8, 8), FREE),  # line: zeros
    "groups": (per_picture, "its groups are the pictures of the batch N, which must stay free"),
    # what depends on values
    "if values": (values, "what is computed depends on the values of a tensor"),
    "item": (item, "write it with torch.where"),
    # mistakes
    "sizes": (lambda x: x @ torch.eye(63), "forward fails for a batch of 3: "),  # line: sizes
}  # fmt: skip


def refusal(module: nn.Module, spec: ModelSpec = SPEC) -> str:
    """The one line that says why."""
    with pytest.raises(ExportError) as caught:
        to_model(module.eval(), spec)
    said = str(caught.value)
    assert "\n" not in said
    assert "site-packages/torch" not in said
    return said


@pytest.mark.parametrize("name", REFUSED)
def test_the_line_of_the_module_is_named(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    middle, says = REFUSED[name]
    (line,) = [i for i, text in enumerate(LINES, 1) if text.endswith(f"# line: {name}")]
    said = refusal(Net(middle))
    assert says in said
    assert f"test_export_errors.py:{line} (" in said
    assert capfd.readouterr() == ("", ""), "torch prints nothing"


def test_a_layer_of_torch_is_named_where_no_line_is_the_modules() -> None:
    said = refusal(nn.Sequential(nn.Linear(8, 64), nn.RReLU(), nn.Unflatten(1, (1, 8, 8)), nn.Tanh()))
    assert said.startswith("layer 1: the operator aten.rrelu")


def test_a_batch_that_is_mixed_is_refused() -> None:
    said = refusal(Net(lambda x: x - x.mean(0)))
    assert "the same latents give another picture in another batch, by 0." in said
    rng = np.random.default_rng(0)
    assert "forward draws random numbers" in refusal(Net(lambda x: x + float(rng.standard_normal())))
    assert "another picture in another batch" in refusal(Net(lambda x: x * 2 if x.shape[0] > 1 else x))


class Other(Net):
    """A Net that does something else with the picture."""

    def __init__(self, last: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.last = last

    def forward(self, z: Tensor) -> object:  # type: ignore[override]
        return self.last(super().forward(z))


def test_another_output_than_the_spec_says_is_refused() -> None:
    said = refusal(Other(lambda x: x[:, :, :7]))
    assert "an output of shape [3, 1, 7, 8] for a batch of 3, but the spec calls for [3, 1, 8, 8]; correct" in said
    assert FREE in refusal(Other(lambda x: x.mean(0, keepdim=True)))
    assert FREE in refusal(Other(lambda x: x[0] if len(x) == 1 else x))
    assert "output of torch.float64; valid: torch.float32; end it in .float()" in refusal(Other(lambda x: x.double()))
    assert "forward returns a tuple; valid: one tensor" in refusal(Other(lambda x: (x, x)))
    assert "forward draws pixels that are nan or infinite" in refusal(Other(lambda x: x / 0))


def test_pixels_outside_the_range_are_refused() -> None:
    said = refusal(Other(lambda x: 0.5 + x))
    found = re.search(r"forward draws pixels from (\S+) to (\S+); valid: -1 to 1; end it in torch.tanh\(x\)", said)
    assert found
    assert -0.5 <= float(found[1]) < float(found[2]) <= 1.5
    to_model(Other(lambda x: x * 1.0005).eval(), SPEC)  # rounding is no other range


def test_other_inputs_than_the_specs_are_refused() -> None:
    said = refusal(Net(), replace(SPEC, classes=("a", "b")))
    assert said.startswith(
        "Net.forward(z: torch.Tensor) -> torch.Tensor does not take the inputs of its spec, z, label"
    )
    assert "does not take the inputs of its spec, z, psi, noise_0" in refusal(
        Net(), replace(SPEC, style=True, noise_inputs=((1, 8, 8),))
    )


def test_weights_that_are_not_finite_are_named() -> None:
    net = Net()
    net.conv.register_buffer("scale", torch.tensor([1.0, float("inf")]))
    assert "weights that are not finite: conv.scale holds inf" in refusal(net)


def test_what_one_file_cannot_hold_is_refused_before_it_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    net.register_buffer("large", torch.zeros(1).expand(2**30))  # takes no memory
    assert f"its weights have {4 * 2**30 + 4 * (9 * 64 + 10)} bytes; valid: at most {2**31 - 1}" in refusal(net)
    model = to_model(Net().eval(), SPEC)
    monkeypatch.setattr(describe_, "MAX_MODEL_BYTES", model.ByteSize() - 1)
    with pytest.raises(ExportError, match=f"the model has {model.ByteSize()} bytes; valid: at most"):
        serialized(model)


def test_names_of_parameters_may_be_those_of_inputs() -> None:
    """torch takes an input for the parameter of that name, and exports another network."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.z = nn.Parameter(torch.randn(8, 64))
            self.register_buffer("image", torch.full((64,), 0.25))
            self.noise_0 = nn.Parameter(torch.randn(64))

        def forward(self, noise_0: Tensor, z: Tensor) -> Tensor:  # called by order
            return torch.tanh(noise_0 @ self.z + self.image + self.noise_0 * z.flatten(1)).view(-1, 1, 8, 8)

    module, spec = Named(), replace(SPEC, noise_inputs=((1, 8, 8),))
    data = describe(to_model(module, spec), spec, module)
    assert max(parity(data, partial(draw, module, spec)).values()) < 1e-5
    assert list(load(data).spec.inputs()) == [value.name for value in onnx.load(io.BytesIO(data)).graph.input]


def test_nothing_of_torch_stays_changed(capfd: pytest.CaptureFixture[str]) -> None:
    import logging

    torch_log = logging.getLogger("torch")
    before = list(torch_log.handlers), blame._GUARDS.level
    refusal(Net(batch))
    to_model(Net().eval(), SPEC)
    assert (torch_log.handlers, blame._GUARDS.level) == before


FULL = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from test_export_errors import SPEC, Net
from edgegan.export import export_generator, pipeline

write = pipeline.atomic_write
def full(path, **how):  # from here on: what is measured before needs files too
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    return write(path, **how)
pipeline.atomic_write = full
try:
    export_generator(Net(), SPEC, sys.argv[1])
except OSError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    output = tmp_path / "out" / "m.onnx"
    output.parent.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", FULL, output, Path(__file__).parent], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"[Errno 27] File too large: '{output}'\n"
    assert not list(output.parent.iterdir())
