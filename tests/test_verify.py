"""The proof: onnxruntime against torch at every batch, and `check_file`, which proves a file from itself alone."""

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
from conftest import MakeTiny
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgegan.errors import EdgeGANError, ExportError, ModelError
from edgegan.export.describe import describe
from edgegan.export.trace import draw, to_model
from edgegan.export.verify import BATCHES, check_file, parity
from edgegan.model import Generator
from edgegan.spec import ModelSpec

SPEC = ModelSpec(recipe="own", image_size=(8, 8), channels=3, latent_dim=8)


class Everything(nn.Module):
    """With classes, psi and noise, in as few lines as possible."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(2, 8)
        self.dense = nn.Linear(8, 192)

    def forward(self, z: Tensor, label: Tensor, psi: Tensor, noise: Tensor) -> Tensor:
        return torch.tanh(self.dense(psi * (z + self.embed(label))).view(-1, 3, 8, 8) + noise)


EVERYTHING = replace(SPEC, classes=("a", "b"), style=True, noise_inputs=((1, 8, 8),))


class Half(nn.Module):
    """Computes in float16, or in float32."""

    def __init__(self, dtype: torch.dtype = torch.float16) -> None:
        super().__init__()
        self.dense = nn.Linear(8, 192).to(dtype)
        with torch.no_grad():
            self.dense.weight *= 4  # contrast: so that few bits show

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.dense(z.to(self.dense.weight.dtype))).view(-1, 3, 8, 8).float()


def exported(module: nn.Module, spec: ModelSpec) -> bytes:
    module.eval().requires_grad_(False)
    return describe(to_model(module, spec), spec, module)


def int8(tmp_path: Path, spec: ModelSpec, how: Callable[[Path, Path], None]) -> bytes:
    """A model whose weights and activations onnxruntime's quantiser made 8 bits wide."""
    onnx.save(to_model(Half(torch.float32).eval(), spec), tmp_path / "float.onnx")
    how(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    model = onnx.load(tmp_path / "int8.onnx")
    del model.opset_import[1:]  # onnxruntime's own operators, of which there are none
    return describe(model, replace(spec, precision="int8"))


def static(given: Path, made: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Latents(CalibrationDataReader):
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.left = [{"z": rng.standard_normal((16, 8)).astype(np.float32)} for _ in range(4)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    quantize_static(given, made, Latents(), per_channel=True)


def dynamic(given: Path, made: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(given, made)


def test_parity_at_every_batch_with_every_input() -> None:
    module = Everything()
    found = parity(exported(module, EVERYTHING), partial(draw, module, EVERYTHING))
    assert tuple(found) == BATCHES
    assert all(0 <= difference < 1e-5 for difference in found.values())


def test_parity_names_the_batch_and_what_is_allowed() -> None:
    module = Everything()
    data = exported(module, EVERYTHING)
    with torch.no_grad():
        module.embed.weight += 0.01
    with pytest.raises(ExportError, match=r"differ by 0\.0\d+ at batch 1, allowed is 0\.0001 of pixels in \[-1, 1\]"):
        parity(data, partial(draw, module, EVERYTHING))
    found = parity(data, partial(draw, module, EVERYTHING), tolerance=None)  # judged by something else
    assert 1e-4 < max(found.values()) < 0.1
    assert parity(data, partial(draw, module, EVERYTHING), tolerance=0.1) == found


def test_of_float16_the_bound_is_its_own() -> None:
    module, spec = Half(), replace(SPEC, precision="fp16")
    data = exported(module, spec)
    assert max(parity(data, partial(draw, module, spec), tolerance=2 / 127.5).values()) > 0


@pytest.fixture(params=["everything", "fp16", "int8"])
def good(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A good file of each kind."""
    made = {
        "everything": lambda: exported(Everything(), EVERYTHING),
        "fp16": lambda: exported(Half(), replace(SPEC, precision="fp16")),
        "int8": lambda: int8(tmp_path, SPEC, static),
    }[request.param]
    (tmp_path / "good.onnx").write_bytes(made())
    return tmp_path / "good.onnx"


def test_a_good_file_passes(good: Path) -> None:
    checked = check_file(good)
    assert checked.spec.golden is not None
    tolerance = checked.spec.golden.tolerance
    assert checked.golden <= tolerance
    assert checked.diversity > 5
    said = "\n".join(checked.lines)
    assert f"golden samples: at most {checked.golden} of 255 apart (allowed {tolerance})" in said
    for part in ("file: ", "onnx: ", "batches: pictures at 1, 2, 3, 17 ", "range: ", "runs: ", "variety: "):
        assert part in said


def test_it_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(exported(Everything(), EVERYTHING))
    code = (
        "import sys; from edgegan.export.verify import check_file; check_file(sys.argv[1]); "
        "print([name for name in ('torch', 'sympy', 'onnxscript') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "m.onnx"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_int8_whose_scale_depends_on_the_batch_is_refused(tmp_path: Path) -> None:
    """Dynamic quantisation takes one scale for all pictures of a batch."""
    (tmp_path / "m.onnx").write_bytes(int8(tmp_path, SPEC, dynamic))
    with pytest.raises(ExportError, match="the pictures of a batch are mixed"):
        check_file(tmp_path / "m.onnx")


def fails(path: Path, kind: type[EdgeGANError], *parts: str) -> None:
    """It is refused on one line, which begins with the file's name."""
    with pytest.raises(kind) as caught:
        check_file(path)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(str(path))
    for part in parts:
        assert part in said


def test_what_is_not_a_model_is_refused(tmp_path: Path) -> None:
    fails(tmp_path / "none.onnx", ModelError, "does not exist")
    (tmp_path / "text.onnx").write_text("hello")
    fails(tmp_path / "text.onnx", ModelError, "is not an ONNX model")


def test_a_second_file_is_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(exported(Everything(), EVERYTHING))
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    fails(path, ModelError, "it has external data")


def test_golden_samples_that_are_missing_or_missed_are_refused(make_tiny: MakeTiny) -> None:
    fails(make_tiny("bare.onnx").path, ModelError, "has no golden samples")
    tiny = make_tiny("m.onnx", golden_count=4)
    model = onnx.load(tiny.path)
    weights = next(item for item in model.graph.initializer if item.name == "weights")
    weights.CopyFrom(numpy_helper.from_array(np.float32(1.5) * tiny.weights, "weights"))
    onnx.save(model, tiny.path)
    fails(tiny.path, ExportError, "it misses its golden samples by ", "of 255, allowed are 1")


def drawn_by(path: Path, tail: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> Path:
    """A model [n, 4] -> [n, 1, 2, 2]: z reshaped to `x`, then `tail`, which makes the image. It meets its samples."""
    spec = ModelSpec(recipe="own", image_size=(2, 2), channels=1, latent_dim=4)
    nodes = [helper.make_node("Reshape", ["z", "shape"], ["x"]), *tail]
    initializers = [numpy_helper.from_array(np.array([-1, 1, 2, 2]), "shape")]
    initializers += [numpy_helper.from_array(value, name) for name, value in constants.items()]
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 2, 2])
    graph = helper.make_graph(nodes, "own", [z], [image], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(describe(model, spec))
    return path


def test_a_file_that_does_not_do_as_it_says_is_refused(tmp_path: Path) -> None:
    def node(op: str, *names: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node(op, list(names[:-1]), [names[-1]], **attributes)

    half = {"half": np.array(0.5, np.float32)}
    zero = {"zero": np.array(0, np.float32)}
    mean = [
        node("ReduceMean", "x", "axes", "m", keepdims=1),
        node("Sub", "x", "m", "c"),
        node("Tanh", "c", "image"),
    ]
    cases: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray], str]] = {
        "mixed": (mean, {"axes": np.array([0])}, "a picture at batch 1 differs by "),
        "wide": ([node("Add", "x", "half", "image")], half, "it draws pixels from -"),
        "same": ([node("Mul", "x", "zero", "image")], zero, "all of 17 pictures are the same"),
        "nan": ([node("Log", "x", "image")], {}, "it draws pixels that are nan or infinite at batch 1"),
    }
    for name, (tail, constants, says) in cases.items():
        fails(drawn_by(tmp_path / f"{name}.onnx", tail, constants), ExportError, says)


def test_runs_that_differ_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(exported(Everything(), EVERYTHING))
    run, calls = Generator.run, iter(range(100))
    monkeypatch.setattr(Generator, "run", lambda self, feed: run(self, feed) * np.float32(1 - 1e-6 * next(calls)))
    fails(path, ExportError, "two runs on the same inputs draw different pictures")


def test_what_onnx_itself_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(exported(Everything(), EVERYTHING))

    def refuse(*_: object, **__: object) -> None:
        raise onnx.checker.ValidationError("no\nway")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    fails(path, ExportError, "onnx's checker refuses it: no way")
