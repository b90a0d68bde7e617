"""int8 and fp16: what the files hold, how their ranges come about, and the gate on quality."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationMethod, TensorsData
from torch import nn

from edgegan import load
from edgegan.errors import ArgumentError, ExportError
from edgegan.export import export_generator, page
from edgegan.export.describe import describe
from edgegan.export.half import to_half
from edgegan.export.lower import lower
from edgegan.export.pipeline import How, export_model
from edgegan.export.quality import Judge, Limit, Quality
from edgegan.export.quantize import (
    METHODS,
    TANH_RANGE,
    calibrate,
    fast_int8,
    insert,
    layers_of,
    named,
    quantize,
    without_gemm,
)
from edgegan.export.trace import to_model
from edgegan.gate import check
from edgegan.model import inputs_of
from edgegan.spec import ModelSpec
from edgegan.trainer.data import open_dataset
from edgegan.trainer.data.sources import DIGITS
from edgegan.trainer.metrics.features import open_features
from support import command, make_run

SPEC = ModelSpec(recipe="mine", image_size=(28, 28), channels=1, latent_dim=16)
LABELLED = ModelSpec(recipe="mine", image_size=(28, 28), channels=1, latent_dim=16, classes=("a", "b", "c"))


class Net(nn.Module):
    """z [n, 16] (and a class) -> [n, 1, 28, 28]: a dense layer, transposed convolutions, ReLU and LeakyReLU."""

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(classes, 16) if classes else None
        self.dense = nn.Linear(16, 49 * 64)
        self.up1 = nn.ConvTranspose2d(64, 64, 4, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(64)
        self.up2 = nn.ConvTranspose2d(64, 1, 4, 2, 1)
        with torch.no_grad():
            self.up2.weight *= 8  # pictures with contrast
            self(torch.randn(64, 16), torch.zeros(64, dtype=torch.int64))

    def forward(self, z: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        if self.embed is not None and label is not None:
            z = z + self.embed(label)
        x = torch.relu(self.dense(z)).view(-1, 64, 7, 7)
        return torch.tanh(self.up2(nn.functional.leaky_relu(self.norm(self.up1(x)), 0.2)))


@cache
def exported(spec: ModelSpec = SPEC) -> bytes:
    net = Net(len(spec.classes)).eval().requires_grad_(False)
    return describe(to_model(net, spec), spec, net)


@cache
def lowered() -> onnx.ModelProto:
    return lower(onnx.load_from_string(exported()), inputs_of(SPEC, 0, 8), measure=False).model


def kernels(model: onnx.ModelProto, tmp_path: Path) -> list[str]:
    """The operators that onnxruntime runs for a model."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]


@pytest.mark.parametrize(
    "spec", [pytest.param(SPEC, id="plain", marks=pytest.mark.slow), pytest.param(LABELLED, id="classes")]
)
def test_int8_computes_in_integers_and_passes_every_proof(spec: ModelSpec, tmp_path: Path) -> None:
    made = export_generator(
        Net(len(spec.classes)), spec, tmp_path / "m.onnx", precision="int8", lower="fixed", report=tmp_path / "r.md"
    )
    written = made.written()
    assert (made.chosen, made.spec.precision) == ("int8", "int8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "r.md", "r.png"]
    assert [v.name for v in made.variants] == ["float32 as exported", "float32 lowered", "int8"]
    assert written.file_bytes == (tmp_path / "m.onnx").stat().st_size < 0.45 * made.variants[0].file_bytes
    assert written.psnr is not None
    assert written.psnr > 35
    ran = kernels(onnx.load(tmp_path / "m.onnx"), tmp_path)
    assert {"ConvTranspose", "Conv", "FusedConv", "Gemm", "FusedGemm"}.isdisjoint(ran)
    assert "QLinearConv" in ran
    checked = command("edgegan-export", "--check", tmp_path / "m.onnx")
    assert checked.returncode == 0, checked.stderr
    assert "int8" in checked.stdout
    # Against the network itself, on pictures that nobody calibrated or judged it with.
    generator = load(tmp_path / "m.onnx")
    a, b = (load(d).sample(100, seed=77).astype(float) for d in (exported(spec), tmp_path / "m.onnx"))
    assert 10 * np.log10(255**2 / np.square(a - b).mean()) == pytest.approx(written.psnr, abs=2)
    assert generator.spec.golden is not None


def test_one_dense_layer_is_what_integer_arithmetic_gives() -> None:
    """y = s_x s_w (q_x - z_x) (q_w) + b, rounded to the output's scale: NumPy in int64 against onnxruntime."""
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(16, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["z", "w", "b"], ["y"]), helper.make_node("Relu", ["y"], ["out"])],
        "dense",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = named(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
    spans = {"z": (-4, 4), "y": (-4, 4), "out": (0, 4)}
    ranges = {name: (np.array(low, np.float32), np.array(high, np.float32)) for name, (low, high) in spans.items()}
    made = insert(model, TensorsData(CalibrationMethod.MinMax, ranges))
    assert made.graph.node  # and the float model is untouched
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Relu"]
    z = rng.normal(size=(50, 16)).astype(np.float32)
    exact = ort.SessionOptions()
    exact.add_session_config_entry("session.x64quantprecision", "1")  # as the runtime does on x86 before VNNI
    session = ort.InferenceSession(made.SerializeToString(), exact, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"z": z})
    s_x, z_x = 8 / 255, 128
    q_x = np.clip(np.rint(z / np.float32(s_x)) + z_x, 0, 255).astype(np.int64) - z_x
    s_w = np.abs(weight).max(axis=0) / 127
    q_w = np.rint(weight / s_w).astype(np.int64)
    expected = (q_x @ q_w) * s_x * s_w + np.rint(bias / (s_x * s_w)) * s_x * s_w
    step = 4 / 255
    expected = np.clip(np.rint(expected / step), 0, 255) * step  # ReLU is where the range begins
    assert np.abs(found - expected).max() < 1.01 * step  # a value between two steps may go either way
    assert (np.abs(found - expected) < 1e-5).mean() > 0.9


def test_ranges_are_those_of_the_activations() -> None:
    model = named(lowered())
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    (dense,) = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]
    probed.graph.output.append(onnx.ValueInfoProto(name=dense.output[0]))
    session = ort.InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run([dense.output[0]], inputs_of(SPEC, 10, 128))[0]
    by = {method.name: calibrate(model, SPEC, method) for method in METHODS}
    low, high = (float(v) for v in by["min-max"][dense.output[0]].range_value)
    assert (low, high) == (pytest.approx(values.min(), rel=1e-5), pytest.approx(values.max(), rel=1e-5))
    tighter = [float(by[name][dense.output[0]].range_value[1]) for name in ("percentile 99.99", "percentile 99.9")]
    assert tighter[1] < tighter[0] <= high * 1.001
    assert (
        np.abs(values) <= max(tighter[1], -float(by["percentile 99.9"][dense.output[0]].range_value[0]))
    ).mean() > 0.99


def test_what_tanh_squashes_needs_no_range_beyond_its_last_grey_level() -> None:
    ranges = calibrate(named(lowered()), SPEC, METHODS[0])
    (squashed,) = [node.input[0] for node in named(lowered()).graph.node if node.op_type == "Tanh"]
    low, high = (float(v) for v in ranges[squashed].range_value)
    assert max(-low, high) <= TANH_RANGE * (1 + 1e-6)
    assert low < 0 < high
    assert 255 / 2 * (1 - np.tanh(TANH_RANGE)) == pytest.approx(0.5, abs=1e-6)


def test_pixels_are_not_rounded_behind_tanh() -> None:
    """Lowering may draw the last layer several pixels at a time and move them to their places behind tanh."""
    net = nn.Sequential(
        nn.Linear(16, 49 * 8),
        nn.Unflatten(1, (8, 7, 7)),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.Tanh(),
        nn.PixelShuffle(4),
    )
    model = quantize(to_model(net.eval(), SPEC), SPEC, Judge(to_model(net, SPEC).SerializeToString(), SPEC)).model
    (output,) = [node for node in model.graph.node if "image" in node.output]
    assert output.op_type in ("DepthToSpace", "Reshape")
    behind = [node.op_type for node in model.graph.node]
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(behind[behind.index("Tanh") :])


@pytest.mark.parametrize(("transposed", "bias"), [(0, True), (1, True), (1, False)])
def test_gemm_becomes_matmul(transposed: int, bias: bool) -> None:
    rng = np.random.default_rng(0)
    tensors = {"w": rng.normal(size=(5, 16) if transposed else (16, 5)), "b": rng.normal(size=5)}
    names = list(tensors)[: 1 + bias]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["z", *names], ["y"], transB=transposed)],
        "dense",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(tensors[name].astype(np.float32), name) for name in names],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    made = without_gemm(model)
    assert [node.op_type for node in made.graph.node] == ["MatMul", "Add"][: 1 + bias]
    feed = {"z": rng.normal(size=(3, 16)).astype(np.float32)}
    a, b = (ort.InferenceSession(m.SerializeToString()).run(None, feed)[0] for m in (model, made))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_layers_are_found_again_after_lowering() -> None:
    plain, cut = layers_of(onnx.load_from_string(exported())), layers_of(lowered())
    assert len(plain) == len(cut) == 3
    assert [layer.multiply_adds for layer in plain] == [16 * 3136, 64 * 64 * 16 * 49, 64 * 16 * 14 * 14]
    counted = check(exported(), "it").cost.multiply_adds  # and its batch norm
    assert sum(layer.multiply_adds for layer in plain) == pytest.approx(counted, rel=0.02)
    assert any(len(layer.nodes) > 1 for layer in cut)


def test_the_limit_keeps_layers_in_float_or_fails_with_the_costliest() -> None:
    free = quantize(lowered(), SPEC, Judge(exported(), SPEC, Limit(decibels=10)))
    assert not free.kept
    assert list(free.gains.values()) == sorted(free.gains.values(), reverse=True)
    assert free.tried.keys() == {method.name for method in METHODS}
    assert free.quality.psnr == max(free.tried.values())
    costliest = next(iter(free.gains))
    wanted = free.quality.psnr + 0.5 * free.gains[costliest]
    mixed = quantize(lowered(), SPEC, Judge(exported(), SPEC, Limit(decibels=wanted)))
    assert len(mixed.kept) == 1
    assert mixed.kept[0].startswith(costliest)
    assert mixed.quality.psnr >= wanted
    with pytest.raises(ExportError, match=rf"at least 90 dB.*{costliest[:7]}.*--max-quality-loss") as error:
        quantize(lowered(), SPEC, Judge(exported(), SPEC, Limit(decibels=90)))
    assert "\n" not in str(error.value)


def test_made_up_ranges_make_the_same_graph() -> None:
    """So that what is measured with them is the time of the real one."""
    real = quantize(lowered(), SPEC, Judge(exported(), SPEC, Limit(decibels=10))).model
    fake = fast_int8(lowered())
    assert sorted(n.op_type for n in fake.graph.node) == sorted(n.op_type for n in real.graph.node)


@pytest.mark.slow
def test_fp16_is_half_the_file_and_passes_every_proof(tmp_path: Path) -> None:
    made = export_generator(Net(), SPEC, tmp_path / "m.onnx", precision="fp16")
    assert made.written().file_bytes < 0.6 * made.variants[0].file_bytes
    assert made.written().psnr is not None
    assert made.written().psnr > 55
    assert any("GPU" in note for note in made.notes)
    found = onnx.load(tmp_path / "m.onnx")
    assert {t.data_type for t in found.graph.initializer if len(t.dims) > 1} == {TensorProto.FLOAT16}
    assert [v.type.tensor_type.elem_type for v in (*found.graph.input, *found.graph.output)] == [TensorProto.FLOAT] * 2
    assert command("edgegan-export", "--check", tmp_path / "m.onnx").returncode == 0


def test_half_leaves_the_given_model_alone() -> None:
    model = onnx.load_from_string(exported())
    to_half(model)
    assert model.SerializeToString() == exported()


@pytest.mark.parametrize(
    ("text", "share", "decibels"),
    [("5%", 0.05, 30.0), ("2.5 %", 0.025, 30.0), ("28dB", 0.05, 28.0), ("0%", 0, 30.0), ("28dB, 10%", 0.1, 28.0)],
)
def test_limits(text: str, share: float, decibels: float) -> None:
    assert Limit.parse(text) == Limit(share, decibels)


@pytest.mark.parametrize("text", ["5", "-5%", "dB", "nan%", "1e3dB", "", "5%,6%"])
def test_bad_limits(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"max-quality-loss is .* such as 30dB.* 5%,30dB"):
        Limit.parse(text)


@pytest.mark.slow
def test_a_distance_decides_where_it_is_measured() -> None:
    data, network = open_dataset("digits"), open_features("lenet")
    judge = Judge(exported(), SPEC, Limit(share=0.05), data, network)
    assert judge.count == 5000
    same = judge.judge(exported())
    assert same.distance == same.before
    assert same.psnr == float("inf")
    assert judge.passes(same)
    other = judge.judge(quantize(lowered(), SPEC, judge).model.SerializeToString())
    assert other.distance is not None
    assert other.distance != same.distance
    for decibels, distance, allowed in ((30.1, 1.04, True), (30.1, 1.06, False), (29.9, 1.0, False)):
        assert judge.passes(Quality(decibels, 10.0, None, 1.0, distance, 1.0)) is allowed
    assert Judge(exported(), SPEC).passes(Quality(30.1, 20.0, None, 1.0))
    assert not Judge(exported(), SPEC).passes(Quality(29.9, 29.0, None, 1.0))
    with pytest.raises(ArgumentError, match="1 channels, the generator draws 3"):
        Judge(exported(), ModelSpec("mine", (28, 28), 3, 16), None, data, network)


def test_a_model_file_becomes_int8_without_torch(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(exported())
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnxscript'] = None; from edgegan.export.cli import main; "
        "sys.argv[1:] = ['m.onnx', '-o', 'n.onnx', '--precision', 'int8', '--lower', 'fixed', '--no-measure']; main()"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert load(tmp_path / "n.onnx").spec.precision == "int8"
    with pytest.raises(ExportError, match="int8 already"):
        export_model(tmp_path / "n.onnx", tmp_path / "o.onnx", how=How(measure=False))
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--precision", "int4"], "int4"),
        (["--precision", "int8", "--max-quality-loss", "90dB", "--lower", "none"], "costs most"),
        (["--precision", "int8", "--max-quality-loss", "5"], "such as 30dB"),
        (["--precision", "int8", "--max-quality-loss", "5%"], "--features"),
        (["--max-quality-loss", "20dB"], "fp16 and int8"),
        (["--features", "lenet", "--data", "digits", "--no-measure"], "--no-measure"),
        (["--check", "m.onnx", "--precision", "int8"], "leave out --output, --precision, RUN"),
        (["-o", "m.onnx", "--precision", "int8"], "would be replaced"),
        (["--report", "r.txt"], ".md"),
        (["--features", "nothing.onnx", "--data", "digits"], "nothing.onnx"),
        (["--data", "digits"], "--features"),
        (["--features", "lenet"], "--data"),
        (["--lower", "none"], "copy"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(more: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(exported())
    failed = command("edgegan-export", "m.onnx", "-o", "n.onnx", *more, cwd=tmp_path)
    assert failed.returncode in (1, 2), failed.stdout
    assert failed.stderr.count("\n") == 1, failed.stderr
    assert says in failed.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_arguments_of_the_library(tmp_path: Path) -> None:
    bad: dict[str, dict[str, Any]] = {
        "fp32, fp16, int8": {"precision": "int4"},
        "auto, fixed, none": {"lower": "most"},
        "data and features": {"features": "lenet", "measure": False},
        "such as 30dB": {"max_quality_loss": "a bit"},
        r"cannot write .*\.txt": {"report": tmp_path / "r.txt"},
    }
    for says, how in bad.items():
        with pytest.raises(ArgumentError, match=says):
            export_generator(Net(), SPEC, tmp_path / "never.onnx", **how)
    assert not list(tmp_path.iterdir())


def test_a_report_that_fails_leaves_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "r.png")

    monkeypatch.setattr(page, "save_image", full)
    with pytest.raises(OSError, match="No space"):
        export_generator(Net(), SPEC, tmp_path / "m.onnx", lower="none", report=tmp_path / "r.md", measure=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_judges_by_the_distance_to_real_pictures(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(exported())
    args = (
        "m.onnx",
        "-o",
        "n.onnx",
        "--precision",
        "int8",
        "--lower",
        "fixed",
        "--features",
        "lenet",
        "--data",
        "digits",
    )
    shown = command("edgegan-export", *args, "--report", "r.json", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"distance to real pictures [\d.]+ -> [\d.]+$", shown.stdout, re.MULTILINE)
    found = json.loads((tmp_path / "r.json").read_text())
    assert (found["distance"]["network"], found["distance"]["samples"]) == ("lenet", 5000)
    assert all(variant["distance"] > 0 for variant in found["variants"])
    assert found["tolerance"] is None
    assert {rewrite["gain"] for rewrite in found["rewrites"]} == {None}


def test_reports_stay_out_of_the_run(tmp_path: Path) -> None:
    with np.load(DIGITS) as data:
        np.savez(tmp_path / "set.npz", images=data["images"][:40])
    run = make_run(tmp_path / "run", open_dataset(str(tmp_path / "set.npz")), "edge", str(tmp_path / "set.npz"))
    failed = command("edgegan-export", run.folder, "-o", tmp_path / "m.onnx", "--report", run.folder / "report.md")
    assert failed.returncode == 2
    assert "the run's own files" in failed.stderr
