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
from edgegan.export import export_generator
from edgegan.export.describe import describe
from edgegan.export.graph import Graph
from edgegan.export.lower import TOLERANCE, lower
from edgegan.export.rewrites import ALWAYS, MEASURED, Rewrite, Rule
from edgegan.export.trace import to_model
from edgegan.export.verify import BATCHES
from edgegan.export.winograd import Tiled
from edgegan.gate import check
from edgegan.model import BUILT_IN, inputs_of
from edgegan.trainer import recipes
from edgegan.trainer.recipe import DataShape
from support import check_parity, command

RULES = {rule.name: rule.rewrite for rules in (ALWAYS, *MEASURED) for rule in rules}
UPSAMPLED = [name for name in RULES if name.startswith("upsampled")]
TRANSPOSED = [name for name in RULES if name.startswith("transposed")]
FEW = [name for name in RULES if name.startswith("few")]
WINOGRAD = [name for name in RULES if name.startswith("winograd")]


def resizing(mode: str, nearest: str, kind: str = "nearest") -> dict[str, object]:
    extra = {"nearest_mode": nearest} if kind == "nearest" else {}
    return {"mode": kind, "coordinate_transformation_mode": mode, **extra}


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
        scale = self.constant([1, 1, *scales])
        return self.add("Resize", "", scale, **resizing(mode, nearest, kind))

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
    assert_rewrites(Build(3, 4, 6).resize(2, 2).conv(3, 5, 4, pads=[1, 2, 2, 1]).add("Tanh"), name)


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


@pytest.mark.parametrize("name", [*UPSAMPLED, *TRANSPOSED])
def test_few_channels_are_drawn_at_once(name: str) -> None:
    build = Build(4, 5, 6)
    if name in UPSAMPLED:
        build.resize(2, 2).conv(4, 3, 3)
    else:
        build.transposed(4, 3, 4, strides=[2, 2], pads=[1] * 4)
    assert_rewrites(build, name, int(name.endswith("at once")))


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


@pytest.mark.parametrize(
    ("mode", "nearest"),
    [
        ("half_pixel", "round_prefer_floor"),
        ("half_pixel", "round_prefer_ceil"),
        ("pytorch_half_pixel", "round_prefer_floor"),
        ("half_pixel_symmetric", "round_prefer_ceil"),
    ],
)
@pytest.mark.parametrize(("scales", "size"), [((2, 2), (3, 4)), ((3, 1), (1, 5)), ((2, 7), (6, 1)), ((5, 4), (37, 2))])
def test_respell_resize(mode: str, nearest: str, scales: tuple[int, int], size: tuple[int, int]) -> None:
    build = Build(3, *size).resize(*scales, mode=mode, nearest=nearest)
    build.resize(1, 2, nearest="round_prefer_floor")
    new = assert_rewrites(build, "respell resize", 2)
    said = {item.name: helper.get_attribute_value(item) for item in new.graph.node[0].attribute}
    assert said["coordinate_transformation_mode"] == b"asymmetric"
    assert said["nearest_mode"] == b"floor"


def test_respell_resize_that_is_told_sizes() -> None:
    build = Build(3, 4, 6)
    shape = helper.make_node("Shape", ["x"], ["shape"], start=0, end=2)
    build.nodes += [shape, helper.make_node("Concat", ["shape", build.constant([8, 18], np.int64)], ["sizes"], axis=0)]
    build.add("Resize", "", "", "sizes", **resizing("asymmetric", "floor"))
    build.add(
        "Resize", "", "", build.constant([16, 18], np.int64), **resizing("half_pixel", "round_prefer_ceil"), axes=[2, 3]
    )
    build.add("Resize", "", build.constant([2, 1]), **resizing("asymmetric", "floor"), axes=[2, 3])
    new = assert_rewrites(build, "respell resize", 3)
    assert ops(new) == ["Resize"] * 3


@pytest.mark.parametrize(
    ("scales", "mode", "nearest", "kind"),
    [
        ((2, 2), "asymmetric", "floor", "nearest"),
        ((2, 2), "asymmetric", "ceil", "nearest"),
        ((3, 2), "asymmetric", "round_prefer_floor", "nearest"),
        ((2, 2), "half_pixel", "floor", "nearest"),
        ((2, 2), "half_pixel", "ceil", "nearest"),
        ((2, 2), "align_corners", "round_prefer_floor", "nearest"),
        ((2, 2), "half_pixel", "floor", "linear"),
        ((1.5, 2), "half_pixel", "round_prefer_floor", "nearest"),
        ((0.5, 0.5), "half_pixel", "round_prefer_floor", "nearest"),
    ],
)
def test_other_resizes_keep_their_spelling(scales: tuple[float, float], mode: str, nearest: str, kind: str) -> None:
    assert_rewrites(Build(3, 4, 6).resize(*scales, mode=mode, nearest=nearest, kind=kind), "respell resize", 0)


def test_respell_resize_leaves_sizes_of_another_value_alone() -> None:
    build = Build(3, 4, 6)
    build.nodes.append(helper.make_node("Shape", ["x"], ["shape"], start=0, end=2))
    build.nodes.append(helper.make_node("Concat", ["shape", build.constant([8, 10], np.int64)], ["sizes"], axis=0))
    assert_rewrites(build.add("Resize", "", "", "sizes", **resizing("asymmetric", "floor")), "respell resize", 0)


def test_fold_constants_of_spectral_norm() -> None:
    """W / (u^T W v), as torch writes it in a graph."""
    build = Build(6, 5, 4)
    weight = build.normal(8, 6, 3, 3)
    for op, inputs in (
        ("Reshape", (weight, build.constant([8, 54], np.int64))),
        ("MatMul", ("v0", build.normal(54))),
        ("Mul", ("v1", build.normal(8))),
    ):
        build.nodes.append(helper.make_node(op, list(inputs), [f"v{len(build.nodes)}"]))
    build.nodes.append(helper.make_node("ReduceSum", ["v2"], ["v3"], keepdims=0))
    build.nodes.append(helper.make_node("Div", [weight, "v3"], ["v4"]))
    build.add("Conv", "v4", kernel_shape=[3, 3], pads=[1] * 4)
    new = assert_rewrites(build, "fold constants", 5)
    assert ops(new) == ["Conv"]
    assert [tuple(item.dims) for item in new.graph.initializer] == [(8, 6, 3, 3)]


def test_fold_constants_leaves_what_would_grow_the_file() -> None:
    build = Build(3, 4, 6)
    shape = build.constant([64, 64, 4, 6], np.int64)
    build.nodes.append(helper.make_node("Expand", [build.normal(1, 64, 1, 1), shape], ["large"]))
    build.nodes.append(
        helper.make_node("ReduceMax", ["large", build.constant([0, 1], np.int64)], ["small"], keepdims=1)
    )
    assert_rewrites(build.add("Add", "small"), "fold constants", 0)


def test_fold_constants_leaves_what_depends_on_an_input() -> None:
    assert_rewrites(Build(3, 4, 6).conv(3, 4, 3).add("Tanh"), "fold constants", 0)


@pytest.mark.parametrize("op", ["Gemm", "Gemm transposed", "MatMul"])
@pytest.mark.parametrize("shape", [[-1, 3, 4, 5], [0, 2, 5, 6]])
def test_permute_gemm(op: str, shape: list[int]) -> None:
    build = Build(7, 2, 3).add("Flatten")
    if op == "MatMul":
        build.add("MatMul", build.normal(42, 60))
    else:
        transposed = op.endswith("transposed")
        weight = build.normal(60, 42) if transposed else build.normal(42, 60)
        build.add("Gemm", weight, build.normal(60), transB=int(transposed))
    build.add("LeakyRelu", alpha=0.3).add("Clip", build.constant(-1), build.constant(1))
    build.add("Reshape", build.constant(shape, np.int64)).add("Transpose", perm=[0, 3, 1, 2])
    assert ops(assert_rewrites(build, "permute gemm")) == ["Flatten", op.split()[0], "LeakyRelu", "Clip", "Reshape"]


@pytest.mark.parametrize("case", ["batch moves", "others read it", "not constant", "no gemm", "images in the batch"])
def test_other_transposes_are_left_alone(case: str) -> None:
    build = Build(12, 2, 2).add("Flatten" if case != "no gemm" else "Tanh")
    outputs = []
    if case == "not constant":
        flat = build.last
        build.add("Transpose", perm=[1, 0]).add("MatMul", flat)
    elif case != "no gemm":
        build.add("MatMul", build.normal(48, 48))
    build.add("Reshape", build.constant([-1, 3, 2, 4] if case == "images in the batch" else [-1, 3, 4, 4], np.int64))
    outputs = [build.last] if case == "others read it" else []
    build.add("Transpose", perm=[1, 0, 2, 3] if case == "batch moves" else [0, 3, 1, 2])
    _, count = rewritten(build.model(*outputs), RULES["permute gemm"])
    assert count == 0


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize(
    ("kernel", "size", "pads"),
    [
        (5, (7, 7), [2] * 4),
        (5, (9, 6), [2] * 4),
        (3, (8, 8), [1] * 4),
        (3, (5, 7), [0] * 4),
        (3, (9, 4), [2] * 4),
        (5, (7, 9), [1, 0, 2, 1]),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_winograd(name: str, kernel: int, size: tuple[int, int], pads: list[int], bias: bool) -> None:
    build = Build(96, *size).conv(96, 128, kernel, bias, pads=pads).add("LeakyRelu", alpha=0.2)
    new = assert_rewrites(build, name)
    assert ops(new).count("MatMul") == 2


def test_winograd_stays_channels_last_between_layers() -> None:
    build = Build(96, 7, 7).conv(96, 96, 5).add("Relu").conv(96, 96, 5)
    assert ops(assert_rewrites(build, "winograd 4x4", 2)).count("Transpose") == 6  # 2 around both, 2 around each Conv


@pytest.mark.parametrize(
    "build",
    [
        lambda: Build(32, 7, 7).conv(32, 128, 5),
        lambda: Build(64, 7, 7).conv(64, 128, 1),
        lambda: Build(64, 7, 7).conv(64, 128, 5, strides=[2, 2]),
        lambda: Build(64, 7, 7).conv(64, 128, 3, dilations=[2, 2]),
        lambda: Build(64, 32, 32).conv(64, 64, 3),  # large: the transforms would cost as much
    ],
)
@pytest.mark.parametrize("name", WINOGRAD)
def test_winograd_leaves_what_it_would_not_speed_up(build: Callable[[], Build], name: str) -> None:
    assert_rewrites(build(), name, 0)


@pytest.mark.parametrize(("taps", "tile"), [(2, 4), (3, 4), (5, 4), (5, 3), (3, 6)])
@pytest.mark.parametrize(("start", "size", "windows"), [(-2, 7, 7), (0, 9, 5), (-4, 4, 8), (1, 6, 6)])
def test_minimal_filtering_equals_sums(taps: int, tile: int, start: int, size: int, windows: int) -> None:
    x, g = np.random.default_rng(taps).standard_normal((2, 16))
    found = Tiled.of(start, taps, size, windows, tile)
    y = np.einsum("wbp,p,bpi,i->w", found.A, found.G @ g[:taps], found.B, x[:size])
    inside = [[(w + start + k, k) for k in range(taps) if 0 <= w + start + k < size] for w in range(windows)]
    assert found.B.shape[1] == tile + taps - 1
    assert np.allclose(y, [sum(x[i] * g[k] for i, k in pairs) for pairs in inside], atol=1e-12)


NEAR_MISSES: dict[str, Callable[[], Build]] = {
    "half pixels": lambda: Build(4, 5, 6).resize(2, 2, mode="half_pixel").conv(4, 5, 3),
    "corners aligned": lambda: Build(4, 5, 6).resize(2, 2, mode="align_corners").conv(4, 5, 3),
    "ceil": lambda: Build(4, 5, 6).resize(2, 2, nearest="ceil").conv(4, 5, 3),
    "linear": lambda: Build(4, 5, 6).resize(2, 2, kind="linear").conv(4, 5, 3),
    "scales that differ": lambda: Build(4, 5, 6).resize(2, 3).conv(4, 5, 3),
    "a fraction": lambda: Build(4, 4, 6).resize(1.5, 1.5).conv(4, 5, 3),
    "smaller": lambda: Build(4, 4, 6).resize(0.5, 0.5).conv(4, 5, 3),
    "a stride": lambda: Build(4, 5, 6).resize(2, 2).conv(4, 5, 3, strides=[2, 2]),
    "no padding": lambda: Build(4, 5, 6).resize(2, 2).conv(4, 5, 3, pads=[0] * 4),
    "dilation": lambda: Build(4, 5, 6).resize(2, 2).conv(4, 5, 3, dilations=[2, 2], pads=[2] * 4),
    "groups": lambda: Build(4, 5, 6).resize(2, 2).conv(2, 6, 3, group=2),
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
    assert_rewrites(Build(4, 5, 6).transposed(4, 5, 3, **attributes), name, 0)


@pytest.mark.parametrize("name", [*UPSAMPLED, "fold batch norm", "few outputs 2x2"])
def test_intermediates_that_others_see_stay(name: str) -> None:
    build = Build(4, 5, 6).resize(4, 4)
    resized = build.last
    build.conv(4, 4, 3)
    conv = build.last
    variance = build.constant([0.5, 1, 2, 3])
    build.add("BatchNormalization", build.normal(4), build.normal(4), build.normal(4), variance)
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
    ("dcgan", DataShape(32, 32, 3)),
    pytest.param("stylegan", DataShape(32, 32, 3, ("a", "b")), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("recipe", "shape"), CASES)
def test_whole_models_equal_torch(recipe: str, shape: DataShape) -> None:
    torch.manual_seed(0)
    found = recipes.load(recipe)
    nets = found.build(found.Config(), shape)
    for module in nets.modules():  # as after training
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    module = found.export_module(nets).eval().requires_grad_(False)
    spec = found.spec(found.Config(), shape)
    given = to_model(module, spec)
    kept = given.SerializeToString(deterministic=True)
    lowered = lower(given, inputs_of(spec, 0, 2), measure=False)
    assert given.SerializeToString(deterministic=True) == kept
    left = {"Resize", "ConvTranspose", "BatchNormalization"} & set(ops(lowered.model))
    assert left <= (set() if recipe == "dcgan" else {"Resize"})
    assert all(applied.difference <= TOLERANCE for applied in lowered.applied)
    again = lower(given, inputs_of(spec, 0, 2), measure=False).model
    assert again.SerializeToString(deterministic=True) == lowered.model.SerializeToString(deterministic=True)
    assert check_parity(describe(lowered.model, spec, module), module) < 2e-5


def tutorial() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The 28x28 net, whose 5x5 convolution of 256 channels is what Winograd is for."""
    torch.manual_seed(0)
    found, shape = recipes.load("dcgan"), DataShape(28, 28, 1)
    spec = found.spec(found.Config(), shape)
    module = found.export_module(found.build(found.Config(), shape)).eval().requires_grad_(False)
    return to_model(module, spec), inputs_of(spec, 0, 8)


def test_what_rounds_more_is_taken_only_where_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    model, feed = tutorial()
    monkeypatch.setattr(
        "edgegan.export.lower.MEASURED", tuple(r for r in MEASURED if r[0].name in WINOGRAD or "trans" in r[0].name)
    )
    # Times of its own making: what has more nodes with groups is faster.
    monkeypatch.setattr(
        "edgegan.export.lower._Race.times", lambda self, *graphs: [by_groups(graph) for graph in graphs]
    )
    taken = {applied.name for applied in lower(model, feed).applied}
    assert "winograd 4x3" in taken  # 4x4 would grow the file by more than half
    assert not {*WINOGRAD} & {applied.name for applied in lower(model, feed, measure=False).applied}
    assert not {*WINOGRAD} & {applied.name for applied in lower(model, feed, prepare=lambda given: given).applied}
    monkeypatch.setattr("edgegan.export.lower.ROUNDED", 0)
    assert not {*WINOGRAD} & {applied.name for applied in lower(model, feed).applied}


def by_groups(graph: Graph) -> float:
    transposed = sum(node.op_type == "ConvTranspose" for node in graph.nodes)
    return 1 + transposed - 0.5 * any(item.name == "group" and item.i > 1 for n in graph.nodes for item in n.attribute)


def test_fixed_rules_say_that_nothing_was_measured() -> None:
    build = Build(4, 5, 6).resize(2, 2).conv(4, 5, 3)
    lowered = lower(build.model(), {"x": np.zeros((2, 4, 5, 6), np.float32)}, measure=False)
    assert {applied.gain for applied in lowered.applied} == {None}
    assert lowered.applied[0].name == "upsampled conv by phase"


def test_choices_may_be_left_out() -> None:
    build = Build(4, 5, 6).resize(2, 2, mode="half_pixel", nearest="round_prefer_floor").conv(4, 3, 3)
    lowered = lower(build.model(), {"x": np.zeros((2, 4, 5, 6), np.float32)}, measure=False, choices=())
    assert [applied.name for applied in lowered.applied] == ["respell resize"]


def test_times_are_those_of_what_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build(4, 5, 6).resize(2, 2).conv(4, 3, 3)
    seen = []

    def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
        seen.append(ops(model))
        return model

    monkeypatch.setattr("edgegan.export.lower.SECONDS", 0.01)
    lower(build.model(), {"x": np.zeros((2, 4, 5, 6), np.float32)}, prepare=prepare)
    assert ["Resize", "Conv"] in seen
    assert any("DepthToSpace" in names for names in seen)


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
    assert lowered.applied == []


def test_command_lowers_a_file_and_keeps_what_it_says(tmp_path: Path) -> None:
    torch.manual_seed(0)
    edge, shape = recipes.load("edge"), DataShape(28, 28, 1)
    module = edge.export_module(edge.build(edge.Config(), shape))
    spec = edge.spec(edge.Config(), shape)
    export_generator(module, spec, tmp_path / "old.onnx", lower="none", measure=False)
    shown = command("edgegan-export", tmp_path / "old.onnx", "-o", tmp_path / "new.onnx")
    assert shown.returncode == 0, shown.stderr
    assert str(tmp_path / "new.onnx") in shown.stdout
    old, new = load(tmp_path / "old.onnx"), load(tmp_path / "new.onnx")
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
