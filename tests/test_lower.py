"""Exact rewrites: each alone equals the original, near misses are left alone, whole models equal torch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgegan import load
from edgegan.errors import ExportError
from edgegan.export.graph import Graph
from edgegan.export.lower import TOLERANCE, lower
from edgegan.export.onnx import describe, to_model
from edgegan.export.rewrites import ALWAYS, MEASURED, Rewrite, Rule
from edgegan.export.verify import BATCHES, check_parity
from edgegan.gate import check
from edgegan.model import BUILT_IN, inputs_of
from edgegan.trainer import recipes
from edgegan.trainer.recipe import DataShape
from support import command

RULES = {rule.name: rule.rewrite for rules in (ALWAYS, *MEASURED) for rule in rules}
UPSAMPLED = [name for name in RULES if name.startswith("upsampled")]
TRANSPOSED = [name for name in RULES if name.startswith("transposed")]
FEW = [name for name in RULES if name.startswith("few")]


class Build:
    """A model of x [N, *shape] -> y, node by node."""

    def __init__(self, *shape: int) -> None:
        self.rng = np.random.default_rng(sum(shape))
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.shape = shape
        self.last = "x"

    def constant(self, value: object, dtype: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def normal(self, *shape: int) -> str:
        return self.constant(self.rng.standard_normal(shape))

    def add(self, op: str, *inputs: str, **attributes: object) -> "Build":
        """A node that reads the last value, and then the inputs."""
        made = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [self.last, *inputs], [made], **attributes))
        self.last = made
        return self

    def conv(self, c: int, o: int, k: int, bias: bool = True, **attributes: object) -> "Build":
        more = [self.normal(o)] if bias else []
        attributes.setdefault("pads", [k // 2] * 4)
        return self.add("Conv", self.normal(o, c, k, k), *more, kernel_shape=[k, k], **attributes)

    def transposed(self, c: int, o: int, k: int, bias: bool = True, **attributes: object) -> "Build":
        more = [self.normal(o)] if bias else []
        return self.add("ConvTranspose", self.normal(c, o, k, k), *more, kernel_shape=[k, k], **attributes)

    def resize(
        self, *scales: float, mode: str = "asymmetric", nearest: str = "floor", kind: str = "nearest"
    ) -> "Build":
        extra = {"nearest_mode": nearest} if kind == "nearest" else {}
        scale = self.constant([1, 1, *scales])
        return self.add("Resize", "", scale, mode=kind, coordinate_transformation_mode=mode, **extra)

    def model(self, *outputs: str) -> onnx.ModelProto:
        def port(name: str, rank: int) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *[None] * (rank - 1)])

        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *self.shape])
        graph = helper.make_graph(
            self.nodes, "g", [x], [port(name, 4) for name in (self.last, *outputs)], self.constants
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.checker.check_model(made)
        return made


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {session.get_inputs()[0].name: x})
    return found


def rewritten(model: onnx.ModelProto, rewrite: Rewrite) -> tuple[onnx.ModelProto, int]:
    """The model after a rewrite wherever it matches, and how often it did."""
    graph, count = Graph(model), 0
    for name in [node.output[0] for node in graph.nodes]:
        node = graph.producer(name)
        count += node is not None and rewrite(graph, node)
    made = graph.model()
    onnx.checker.check_model(made, full_check=True)
    check(made.SerializeToString(), "the rewritten model")
    return made, count


def assert_equal(build: Build, old: onnx.ModelProto, new: onnx.ModelProto) -> None:
    """At all batches, every output to 1e-5 of its range."""
    for n in BATCHES:
        x = np.random.default_rng(n).standard_normal((n, *build.shape)).astype(np.float32)
        for expected, found in zip(run(old, x), run(new, x), strict=True):
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() <= TOLERANCE * np.ptp(expected)


def assert_rewrites(build: Build, name: str, times: int = 1, *outputs: str) -> onnx.ModelProto:
    old = build.model(*outputs)
    new, count = rewritten(old, RULES[name])
    assert count == times
    assert_equal(build, old, new)
    return new


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("name", UPSAMPLED)
@pytest.mark.parametrize(("kernel", "scale"), [(1, 2), (3, 2), (5, 2), (7, 2), (3, 3), (5, 3), (3, 4), (9, 4)])
@pytest.mark.parametrize(("size", "bias"), [((7, 5), True), ((1, 2), False)])
def test_upsampled_conv(name: str, kernel: int, scale: int, size: tuple[int, int], bias: bool) -> None:
    build = Build(9, *size).resize(scale, scale).conv(9, 5, kernel, bias).add("LeakyRelu", alpha=0.2)
    new = assert_rewrites(build, name)
    assert "Resize" not in ops(new)


@pytest.mark.parametrize("name", UPSAMPLED)
def test_upsampled_conv_with_an_even_kernel(name: str) -> None:
    assert_rewrites(Build(3, 4, 6).resize(2, 2).conv(3, 4, 4, pads=[1, 2, 2, 1]).add("Tanh"), name)


@pytest.mark.parametrize("name", TRANSPOSED)
@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "extra"),
    [(4, 2, 1, 0), (5, 2, 2, 1), (5, 2, 2, 0), (3, 2, 1, 1), (3, 2, 0, 0), (2, 2, 0, 0), (1, 2, 0, 1), (6, 3, 1, 1)],
)
@pytest.mark.parametrize(("size", "bias"), [((7, 5), True), ((2, 3), False)])
def test_transposed_conv(
    name: str, kernel: int, stride: int, pad: int, extra: int, size: tuple[int, int], bias: bool
) -> None:
    build = Build(6, *size).transposed(
        6, 5, kernel, bias, strides=[stride] * 2, pads=[pad] * 4, output_padding=[extra] * 2
    )
    new = assert_rewrites(build.add("LeakyRelu", alpha=0.3), name)
    assert "ConvTranspose" not in ops(new)


@pytest.mark.parametrize(("kernel", "pad"), [(5, 2), (4, 0), (4, 3), (1, 0), (3, 1)])
def test_transposed_conv_of_stride_1_becomes_one_conv(kernel: int, pad: int) -> None:
    build = Build(6, 7, 5).transposed(6, 5, kernel, pads=[pad] * 4).add("Relu")
    assert ops(assert_rewrites(build, "transposed conv at once")) == ["Conv", "Relu"]


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(("channels", "kernel"), [(1, 3), (3, 3), (3, 1), (1, 7), (2, 5)])
def test_few_outputs(name: str, channels: int, kernel: int) -> None:
    build = Build(16, 8, 12).add("Sigmoid").add("LeakyRelu", alpha=0.2).conv(16, channels, kernel)
    build.add("Clip", build.constant(-1), build.constant(1))
    new = assert_rewrites(build, name)
    assert ops(new)[-1] == "DepthToSpace"


@pytest.mark.parametrize("name", FEW)
def test_few_outputs_of_a_size_that_does_not_divide(name: str) -> None:
    build = Build(16, 7, 8).add("Sigmoid").add("LeakyRelu", alpha=0.2).conv(16, 3, 3)
    assert_rewrites(build, name, 0)


def test_few_outputs_leaves_many_alone() -> None:
    assert_rewrites(Build(4, 8, 8).conv(4, 8, 3), "few outputs 2x2", 0)


@pytest.mark.parametrize("op", ["Conv", "LeakyRelu", "Tanh", "Clip"])
@pytest.mark.parametrize("nearest", ["floor", "round_prefer_floor"])
def test_lift_resize(op: str, nearest: str) -> None:
    build = Build(5, 3, 4).resize(2, 3, nearest=nearest)
    if op == "Conv":
        build.conv(5, 7, 1)
    else:
        build.add(op, *([build.constant(-0.5), build.constant(0.5)] if op == "Clip" else []))
    assert ops(assert_rewrites(build, "lift resize")) == [op, "Resize"]


def test_lift_resize_where_others_read_it_too() -> None:
    build = Build(5, 3, 4).resize(2, 2)
    resized = build.last
    build.conv(5, 6, 1)
    assert_rewrites(build, "lift resize", 1, resized)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "Gemm", "Gemm transposed", "MatMul"])
@pytest.mark.parametrize("bias", [True, False])
def test_fold_batch_norm(op: str, bias: bool) -> None:
    build = Build(6, 4, 5)
    more = [build.normal(8)] if bias and op != "MatMul" else []
    if op == "Conv":
        build.add(op, build.normal(8, 6, 3, 3), *more, kernel_shape=[3, 3], strides=[2, 2])
    elif op == "ConvTranspose":
        build.add(op, build.normal(6, 8, 3, 3), *more, kernel_shape=[3, 3], strides=[2, 2])
    else:
        build.add("Flatten")
        if op == "MatMul":
            build.add(op, build.normal(120, 8))
        else:
            transposed = op.endswith("transposed")
            build.add("Gemm", build.normal(*((8, 120) if transposed else (120, 8))), *more, transB=int(transposed))
    variance = build.constant(build.rng.uniform(0.1, 3, 8))
    build.add("BatchNormalization", build.normal(8), build.normal(8), build.normal(8), variance, epsilon=1e-3)
    if op not in ("Conv", "ConvTranspose"):
        build.add("Reshape", build.constant([-1, 8, 1, 1], np.int64))
    assert "BatchNormalization" not in ops(assert_rewrites(build, "fold batch norm"))


def test_name_batch() -> None:
    build = Build(6, 4, 5).add("Flatten")
    build.add("Reshape", build.constant([-1, 3, 8, 5], np.int64))
    new = assert_rewrites(build, "name batch")
    shape = onnx.shape_inference.infer_shapes(new).graph.output[0].type.tensor_type.shape
    assert shape.dim[0].dim_param == "N"


def test_name_batch_leaves_a_reshape_that_moves_images_into_the_batch() -> None:
    build = Build(6, 4, 5)
    build.add("Reshape", build.constant([-1, 3, 4, 5], np.int64))
    assert_rewrites(build, "name batch", 0)


@pytest.mark.parametrize("kernel", [1, 3])
def test_blocked_activation(kernel: int) -> None:
    build = Build(16, 6, 5).add("Sigmoid").add("LeakyRelu", alpha=0.2).conv(16, 3, kernel, strides=[2, 2])
    assert ops(assert_rewrites(build, "blocked activation")) == ["Sigmoid", "Conv", "LeakyRelu", "Conv"]


def test_blocked_activation_with_two_readers_leaves_their_padding() -> None:
    build = Build(16, 6, 5).add("Sigmoid").add("LeakyRelu", alpha=0.2)
    active = build.last
    build.conv(16, 16, 3)
    conv, build.last = build.last, active
    build.add("Add", conv)
    assert_rewrites(build, "blocked activation")


def test_activation_that_fuses_with_its_conv_is_left_alone() -> None:
    build = Build(8, 6, 5).conv(8, 16, 3).add("LeakyRelu", alpha=0.2).conv(16, 3, 3)
    assert_rewrites(build, "blocked activation", 0)


NEAR_MISSES: dict[str, Callable[[], Build]] = {
    "half pixels": lambda: Build(4, 5, 6).resize(2, 2, mode="half_pixel").conv(4, 3, 3),
    "corners aligned": lambda: Build(4, 5, 6).resize(2, 2, mode="align_corners").conv(4, 3, 3),
    "ceil": lambda: Build(4, 5, 6).resize(2, 2, nearest="ceil").conv(4, 3, 3),
    "linear": lambda: Build(4, 5, 6).resize(2, 2, kind="linear").conv(4, 3, 3),
    "scales that differ": lambda: Build(4, 5, 6).resize(2, 3).conv(4, 3, 3),
    "a fraction": lambda: Build(4, 4, 6).resize(1.5, 1.5).conv(4, 3, 3),
    "smaller": lambda: Build(4, 4, 6).resize(0.5, 0.5).conv(4, 3, 3),
    "a stride": lambda: Build(4, 5, 6).resize(2, 2).conv(4, 3, 3, strides=[2, 2]),
    "no padding": lambda: Build(4, 5, 6).resize(2, 2).conv(4, 3, 3, pads=[0] * 4),
    "dilation": lambda: Build(4, 5, 6).resize(2, 2).conv(4, 3, 3, dilations=[2, 2], pads=[2] * 4),
    "groups": lambda: Build(4, 5, 6).resize(2, 2).conv(2, 4, 3, group=2),
}


@pytest.mark.parametrize("case", NEAR_MISSES)
@pytest.mark.parametrize("name", UPSAMPLED)
def test_other_resizes_and_convs_are_left_alone(case: str, name: str) -> None:
    assert_rewrites(NEAR_MISSES[case](), name, 0)


@pytest.mark.parametrize("name", TRANSPOSED)
@pytest.mark.parametrize(
    "attributes",
    [{"strides": [2, 1]}, {"dilations": [2, 2], "strides": [2, 2]}, {"output_shape": [10, 12], "strides": [2, 2]}],
)
def test_other_transposed_convs_are_left_alone(name: str, attributes: dict[str, object]) -> None:
    assert_rewrites(Build(4, 5, 6).transposed(4, 3, 3, **attributes), name, 0)


@pytest.mark.parametrize("name", [*UPSAMPLED, "fold batch norm", "few outputs 2x2"])
def test_intermediates_that_others_see_stay(name: str) -> None:
    build = Build(4, 5, 6).resize(2, 2)
    resized = build.last
    build.conv(4, 3, 3)
    conv = build.last
    variance = build.constant([0.5, 1, 2])
    build.add("BatchNormalization", build.normal(3), build.normal(3), build.normal(3), variance)
    old = build.model(conv, resized)
    new, count = rewritten(old, RULES[name])
    assert count == (name != "fold batch norm")
    assert_equal(build, old, new)


def test_all_rules_one_after_the_other() -> None:
    build = Build(16, 6, 5).add("Sigmoid").resize(2, 2).add("LeakyRelu", alpha=0.2).conv(16, 24, 3)
    build.add("LeakyRelu", alpha=0.2).transposed(24, 8, 4, strides=[2, 2], pads=[1] * 4).add("Relu").conv(8, 3, 3)
    old = build.model()
    new = old
    for rewrite in RULES.values():
        new, _ = rewritten(new, rewrite)
    assert not {"Resize", "ConvTranspose"} & set(ops(new))
    assert_equal(build, old, new)


CASES = [
    ("edge", DataShape(28, 28, 1, tuple("0123456789"))),
    ("edge", DataShape(64, 64, 3)),
    ("edge", DataShape(16, 24, 3)),
    ("dcgan", DataShape(28, 28, 1)),
    ("dcgan", DataShape(28, 28, 3)),
]


@pytest.mark.parametrize(("recipe", "shape"), CASES)
def test_whole_models_equal_torch(recipe: str, shape: DataShape) -> None:
    torch.manual_seed(0)
    found = recipes.load(recipe)
    nets = found.build(found.Config(), shape)
    for module in nets.modules():  # as after training
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    module = found.export_module(nets).eval().requires_grad_(False)
    spec = found.spec(found.Config(), shape)
    given = to_model(module, spec)
    kept = given.SerializeToString(deterministic=True)
    lowered = lower(given, inputs_of(spec, 0, 2), measure=False)
    assert given.SerializeToString(deterministic=True) == kept
    assert not {"Resize", "ConvTranspose", "BatchNormalization"} & set(ops(lowered.model)) or recipe == "edge"
    assert all(applied.difference <= TOLERANCE for applied in lowered.applied)
    again = lower(given, inputs_of(spec, 0, 2), measure=False).model
    assert again.SerializeToString(deterministic=True) == lowered.model.SerializeToString(deterministic=True)
    assert check_parity(describe(lowered.model, spec, module), module) < 2e-5


def test_a_wrong_rewrite_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: Graph, node: onnx.NodeProto) -> bool:
        if node.op_type != "Conv":
            return False
        graph.constants[node.input[1]] = graph.constants[node.input[1]] * np.float32(1.0001)
        return True

    monkeypatch.setattr("edgegan.export.lower.ALWAYS", (Rule("wrong", wrong),))
    build = Build(4, 5, 6).conv(4, 3, 3)
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 6)).astype(np.float32)
    with pytest.raises(ExportError, match=r"wrong of Conv Nx4x5x6 -> Nx3x5x6 changes"):
        lower(build.model(), {"x": x}, measure=False)


def test_a_model_without_patterns_is_returned_as_it_is() -> None:
    build = Build(4, 5, 6).add("Sigmoid")
    model = build.model()
    x = np.zeros((2, 4, 5, 6), np.float32)
    lowered = lower(model, {"x": x})
    assert lowered.model is model
    assert lowered.lines() == ["lowering found nothing that is faster here"]


def test_command_lowers_a_file_and_keeps_what_it_says(tmp_path: Path) -> None:
    shown = command("edgegan-export", BUILT_IN, "-o", tmp_path / "new.onnx")
    assert shown.returncode == 0, shown.stderr
    assert "draws what" in shown.stdout
    old, new = load(), load(tmp_path / "new.onnx")
    assert new.spec == old.spec
    assert new.check_golden() <= 1
    feed = inputs_of(old.spec, 3, 5)
    assert np.abs(new.run(feed) - old.run(feed)).max() < 2e-5


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["missing.onnx"], "does not exist"),
        (["text.onnx"], "not an ONNX model"),
        ([str(BUILT_IN), "--licence", "CC0"], "--licence"),
        ([str(BUILT_IN), "--lower", "none"], "--lower"),
        ([str(BUILT_IN), "--lower", "much"], "auto"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(args: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    failed = command("edgegan-export", *args, "-o", "new.onnx", cwd=tmp_path)
    assert failed.returncode in (1, 2)
    assert failed.stderr.count("\n") == 1, failed.stderr
    assert says in failed.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["text.onnx"]
