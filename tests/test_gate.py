"""The gate: good models pass, attacks do not, within a second and without memory; and mutated models do no harm."""

import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgegan import ModelError, ModelSpec, load
from edgegan.gate import (
    DEFAULT_SIDE,
    MAX_INITIALIZERS,
    MAX_NODES,
    MAX_PORTS,
    Cost,
    Graph,
    check,
)
from edgegan.model import BUILT_IN
from support import config_of

MakeTiny = Callable[..., Any]  # conftest.Tiny, which importlib's import mode leaves out of reach
F = TensorProto.FLOAT
RNG = np.random.default_rng(3)


def node(op: str, inputs: str, outputs: str = "image", **attributes: Any) -> onnx.NodeProto:
    """A node; names are split at spaces, and - is an input left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=f"{outputs} by {op}", **attributes)


def proto(
    nodes: list[onnx.NodeProto],
    constants: dict[str, Any] | None = None,
    inputs: dict[str, Any] | None = None,
    output: Any = ("N", 8),
    opset: int = 18,
) -> onnx.ModelProto:
    """A model of z [N, 8] unless said otherwise. A constant is an array or a list of int64."""
    tensors = [
        numpy_helper.from_array(np.asarray(value, np.int64 if isinstance(value, list) else None), name)
        for name, value in (constants or {}).items()
    ]
    ports = [helper.make_tensor_value_info(name, F, shape) for name, shape in (inputs or {"z": ("N", 8)}).items()]
    made = helper.make_graph(nodes, "g", ports, [helper.make_tensor_value_info("image", F, output)], tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def model(*args: Any, **kwargs: Any) -> bytes:
    return proto(*args, **kwargs).SerializeToString()


def gaussian(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32) / np.float32(4)


# What passes


def style_model() -> bytes:
    """StyleGAN's ways: psi, noise of layers, a learned constant expanded to N, scales before and after convolutions."""
    nodes = [
        node("Gemm", "z dense0", "h0", transB=1),
        node("LeakyRelu", "h0", "w0", alpha=0.2),
        node("Sub", "w0 mean", "w1"),
        node("Mul", "w1 psi", "w2"),
        node("Add", "w2 mean", "w"),
        node("Shape", "z", "batch", start=0, end=1),
        node("Concat", "batch size", "full", axis=0),
        node("Expand", "start full", "x"),
        node("Gemm", "w affine", "s"),
        node("Reshape", "s per_channel", "scale"),
        node("Mul", "x scale", "scaled"),
        node("Conv", "scaled kernel", "conv", pads=[1, 1, 1, 1]),
        node("Mul", "scale scale", "squares"),
        node("ReduceSum", "squares axes", "sums", keepdims=1),
        node("Sqrt", "sums", "roots"),
        node("Div", "conv roots", "demodulated"),
        node("Add", "demodulated noise_0", "noisy"),
        node("Resize", "noisy - scales", "large", mode="linear", coordinate_transformation_mode="half_pixel"),
        node("Conv", "large rgb bias", "picture"),
        node("Clip", "picture low high", "image"),
    ]
    constants = {
        "dense0": gaussian(8, 8),
        "mean": gaussian(8),
        "size": [4, 4, 4],
        "start": gaussian(1, 4, 4, 4),
        "affine": gaussian(8, 4),
        "per_channel": [-1, 4, 1, 1],
        "kernel": gaussian(4, 4, 3, 3),
        "axes": [1],
        "scales": np.array([1, 1, 2, 2], np.float32),
        "rgb": gaussian(3, 4, 1, 1),
        "bias": gaussian(3),
        "low": np.float32(-1),
        "high": np.float32(1),
    }
    inputs = {"z": ("N", 8), "psi": (1,), "noise_0": ("N", 1, 4, 4)}
    made = proto(nodes, constants, inputs, ("N", 3, 8, 8))
    spec = ModelSpec("style", (8, 8), 3, 8, style=True, noise_inputs=((1, 4, 4),))
    made.metadata_props.add(key="edgegan", value=spec.to_json())
    return made.SerializeToString()


def translate_model() -> bytes:
    """CycleGAN's ways: free H and W, reflected borders, instance norm, transposed convolution, resizing by sizes."""
    nodes = [
        node("Pad", "image_in pads", "padded", mode="reflect"),
        node("Conv", "padded first", "c0", strides=[2, 2]),
        node("InstanceNormalization", "c0 gain offset", "n0"),
        node("Relu", "n0", "r0"),
        node("ConvTranspose", "r0 second", "c1", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
        node("Shape", "image_in", "full"),
        node("Resize", "c1 - - full", "resized", mode="nearest"),
        node("Tanh", "resized", "image"),
    ]
    constants = {
        "pads": [0, 0, 1, 1, 0, 0, 1, 1],
        "first": gaussian(8, 3, 3, 3),
        "gain": gaussian(8),
        "offset": gaussian(8),
        "second": gaussian(8, 3, 3, 3),
    }
    return model(nodes, constants, {"image_in": ("N", 3, "H", "W")}, ("N", 3, "H", "W"))


def int8_model(opset: int = 18) -> bytes:
    """QuantizeLinear and DequantizeLinear around a convolution, as onnxruntime's quantizer writes them."""
    nodes = [
        node("Reshape", "z square", "x"),
        node("QuantizeLinear", "x step zero", "xq"),
        node("DequantizeLinear", "xq step zero", "xd"),
        node("DequantizeLinear", "weights steps zeros", "wd", axis=0),
        node("Conv", "xd wd", "y", pads=[1, 1, 1, 1]),
        node("Relu", "y", "r"),
        node("DepthToSpace", "r", "image", blocksize=2),
    ]
    constants = {
        "square": [-1, 2, 2, 2],
        "step": np.float32(0.05),
        "zero": np.uint8(128),
        "weights": RNG.integers(-127, 127, (4, 2, 3, 3), np.int8),
        "steps": np.full(4, 0.01, np.float32),
        "zeros": np.zeros(4, np.int8),
    }
    made = proto(nodes, constants, output=("N", 1, 4, 4), opset=opset)
    made.opset_import.add(domain="com.microsoft", version=1)  # which the quantizer declares
    made.metadata_props.add(key="edgegan", value=ModelSpec("q", (4, 4), 1, 8, precision="int8").to_json())
    return made.SerializeToString()


GOOD = {"style": style_model, "translate": translate_model, "int8": int8_model}


def feed_of(graph: Graph, batch: int = 1, side: int = 16) -> dict[str, np.ndarray]:
    """Inputs for a graph: random, or labels 0."""
    feed = {}
    for name, (dtype, shape) in graph.inputs.items():
        sizes = [s if isinstance(s, int) else batch if i == 0 else side for i, s in enumerate(shape)]
        feed[name] = RNG.standard_normal(sizes).astype(dtype) if dtype == "float32" else np.zeros(sizes, dtype)
    return feed


def test_the_built_in_model() -> None:
    data = BUILT_IN.read_bytes()
    graph = check(data, "digits")
    spec = load().spec
    assert (graph.inputs, graph.outputs) == (spec.inputs(), spec.outputs())
    assert graph.metadata is not None
    assert ModelSpec.from_json(graph.metadata) == spec
    found = onnx.load_model_from_string(data)
    assert (graph.opset, graph.ir_version) == (found.opset_import[0].version, found.ir_version)
    assert graph.nodes == len(found.graph.node)
    assert graph.weight_bytes == sum(numpy_helper.to_array(t).nbytes for t in found.graph.initializer)
    assert graph.cost.largest == 80 * 32 * 7 * 7  # the first layer's weights, no longer of 8 bits
    assert 4 * 10**6 < graph.cost.multiply_adds < 10**7


def test_the_tiny_models(make_tiny: MakeTiny) -> None:
    for fields in ({}, {"classes": ("a", "b")}, {"style": True, "noise_inputs": ((1, 6, 5), (1, 1, 1))}):
        tiny = make_tiny(**fields)
        graph = check(tiny.path.read_bytes(), "tiny")
        assert graph.inputs == tiny.spec.inputs()
        assert graph.outputs == tiny.spec.outputs()


@pytest.mark.parametrize("kind", GOOD)
def test_what_passes_runs_and_has_the_shapes_that_were_foreseen(kind: str) -> None:
    import onnxruntime

    data = GOOD[kind]()
    graph = check(data, kind)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        (drawn,) = session.run(None, feed_of(graph, batch))
        _, shape = graph.outputs["image"]
        assert drawn.shape == tuple(s if isinstance(s, int) else batch if i == 0 else 16 for i, s in enumerate(shape))
    if graph.metadata is not None:
        assert load(data).sample(3).std() > 0


def test_cost_follows_the_size_of_an_image_to_translate() -> None:
    graph = check(translate_model(), "translate")
    assert graph.cost == graph.cost_of({"image_in": (1, 3, DEFAULT_SIDE, DEFAULT_SIDE)})
    small, large = (graph.cost_of({"image_in": (5, 3, side, side)}) for side in (64, 128))
    assert 3.5 < large.multiply_adds / small.multiply_adds < 4.5
    with pytest.raises(ModelError, match="elements in one tensor"):
        graph.cost_of({"image_in": (1, 3, 5000, 5000)})
    with pytest.raises(ModelError, match=r"'padded by Pad'.* it pads 1 and 1; valid: 0 to 0"):
        graph.cost_of({"image_in": (1, 3, 1, 1)})


def test_an_image_too_small_leaves_no_tensor_empty() -> None:
    """onnxruntime 1.32 crashes when it normalises no elements."""
    nodes = [node("Slice", "x start end axis", "part"), node("InstanceNormalization", "part gain gain")]
    constants = {"start": [50], "end": [60], "axis": [2], "gain": gaussian(2)}
    graph = check(model(nodes, constants, {"x": ("N", 2, "H", "W")}, ("N", 2, "h", "W")), "m")
    graph.cost_of({"x": (1, 2, 51, 8)})
    with pytest.raises(ModelError, match=r"\(Slice\): its output would have the shape \[N, 2, 0, 8\]"):
        graph.cost_of({"x": (1, 2, 50, 8)})


def test_cost_is_that_of_one_image() -> None:
    nodes = [node("MatMul", "z weights", "h"), node("Relu", "h", "image")]
    graph = check(model(nodes, {"weights": gaussian(8, 16)}, output=("N", 16)), "m")
    assert graph.cost == Cost(multiply_adds=8 * 16 + 16, activation_bytes=2 * 16 * 4, largest=16, peak_bytes=2 * 16 * 4)


@pytest.mark.parametrize("opset", [13, 17, 18, 20, 23])
def test_operator_sets(opset: int) -> None:
    assert check(int8_model(opset), "m").opset == opset


@pytest.fixture(scope="module")
def exported() -> dict[str, bytes]:
    """What torch makes of every recipe and of a network with more kinds of layers."""
    import torch

    from edgegan.export.describe import describe
    from edgegan.export.trace import to_model
    from edgegan.trainer import recipes
    from edgegan.trainer.recipe import DataShape

    made = {}
    for name in ("edge", "stylegan", "cyclegan"):  # the parity of each recipe passes the gate, too
        recipe = recipes.load(name)
        shape = DataShape(28, 28, 1, ("a", "b"))
        config = config_of(name, shape)
        module = recipe.export_module(recipe.build(config, shape)).eval()
        spec = recipe.spec(config, shape)
        made[name] = describe(to_model(module, spec), spec, module)

    class Layers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = torch.nn.Linear(8, 16 * 16)
            self.start = torch.nn.Parameter(torch.randn(1, 16, 4, 4))
            self.norm = torch.nn.Sequential(torch.nn.GroupNorm(4, 16), torch.nn.BatchNorm2d(16), torch.nn.PReLU(16))
            self.query, self.value = torch.nn.Conv2d(16, 4, 1), torch.nn.Conv2d(16, 16, 1)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            n = z.shape[0]
            x = self.norm(self.dense(z).view(n, 16, 4, 4)) + self.start.expand(n, -1, -1, -1)
            query = self.query(x).flatten(2)
            attention = torch.softmax(query.transpose(1, 2) @ query, -1)
            x = x + (self.value(x).flatten(2) @ attention).view(n, 16, 4, 4)
            first, second = x.chunk(2, 1)
            x = torch.cat([torch.nn.functional.silu(first), torch.nn.functional.gelu(second)], 1)
            x = torch.nn.functional.pixel_shuffle(x, 2)
            x = torch.nn.functional.interpolate(x, size=(16, 16), mode="bicubic")
            return torch.tanh(torch.nn.functional.pad(x, (1, 1, 1, 1))[:, :3, 1:-1, 1:-1])

    module, spec = Layers().eval(), ModelSpec("layers", (16, 16), 3, 8)
    made["layers"] = describe(to_model(module, spec), spec, module)
    return made


def test_what_torch_exports(exported: dict[str, bytes]) -> None:
    for name, data in exported.items():
        assert check(data, name).nodes > 4
        assert load(data).check_golden() <= 2


def test_a_large_model_is_checked_at_once() -> None:
    weights = gaussian(512, 512, 3, 3)[None].repeat(2, 0)
    nodes = [node("Reshape", "z shape", "x0")]
    nodes += [node("Conv", f"x{i} w{i}", f"x{i + 1}", pads=[1, 1, 1, 1]) for i in range(2)]
    nodes += [node("Relu", f"x{i}", f"x{i + 1}") for i in range(2, 500)]
    nodes += [node("Identity", "x500", "image")]
    constants = {"shape": [-1, 512, 4, 4], "w0": weights[0], "w1": weights[1]}
    data = model(nodes, constants, {"z": ("N", 8192)}, ("N", 512, 4, 4))
    assert len(data) > 18 * 2**20
    best = min(seconds_of(data) for _ in range(3))
    assert best < 0.2, f"{best:.3f} s"


def seconds_of(data: bytes) -> float:
    start = time.process_time()
    check(data, "m")
    return time.process_time() - start


# What does not pass


def tagged(number: int, payload: bytes) -> bytes:
    """A length-delimited field of a protobuf."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def edited(change: Callable[[onnx.ModelProto], Any]) -> bytes:
    """A good small model with one change."""
    made = proto(
        [node("Gemm", "z weights bias", "h"), node("Tanh", "h")], {"weights": gaussian(8, 8), "bias": gaussian(8)}
    )
    change(made)
    return made.SerializeToString()


def graph_with(payload: bytes) -> bytes:
    """A good small model with bytes added to its graph."""
    made = proto([node("Relu", "z")])
    graph = made.graph.SerializeToString() + payload
    made.ClearField("graph")
    return made.SerializeToString() + tagged(7, graph)


def external(location: str) -> bytes:
    def change(made: onnx.ModelProto) -> None:
        tensor = made.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return edited(change)


def functions() -> bytes:
    """Local functions, each of which calls the one below it twice: 2^40 nodes."""
    made = proto([helper.make_node("f40", ["z"], ["image"], domain="f")])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    for i in range(1, 41):
        op, domain = (f"f{i - 1}", "f") if i > 1 else ("Relu", "")
        calls = [helper.make_node(op, [a], [b], domain=domain) for a, b in ("xy", "yw")]
        made.functions.append(helper.make_function("f", f"f{i}", ["x"], ["w"], calls, imports))
    made.opset_import.add(domain="f", version=1)
    return made.SerializeToString()


def loop() -> bytes:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", F, ["N", 8]),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("w", F, ["N", 8])],
    )
    return model([node("Loop", "- true z", body=body)], {"true": np.array(True)})


def sub_graph_of_an_allowed_operator() -> bytes:
    body = helper.make_graph([], "g", [], [])
    return model([node("Relu", "z", "image", body=body)])


def chain(op: str, count: int, **attributes: Any) -> bytes:
    """Every node doubles what it gets."""
    nodes = [node(op, f"x{i} x{i}" if op != "Tile" else f"x{i} two", f"x{i + 1}", **attributes) for i in range(count)]
    return model([node("Identity", "z", "x0"), *nodes, node("Identity", f"x{count}")], {"two": [1, 2]})


def of_shape(op: str, inputs: str, *, data: np.ndarray | None = None, **constants: Any) -> bytes:
    """One operator that makes much of few constants, added to z."""
    tensors = {"data": np.ones((1, 1), np.float32) if data is None else data, **constants}
    return model(
        [node(op, inputs, "much"), node("ReduceSum", "much", "sum", keepdims=0), node("Add", "z sum")], tensors
    )


def of_batch(*nodes: onnx.NodeProto, **constants: Any) -> bytes:
    """The batch as a number `n` [1], then nodes that make of it a vector `many` of sizes, then ones of that shape."""
    return model(
        [
            node("Shape", "z", "n", start=0, end=1),
            *nodes,
            node("Expand", "one many", "much"),
            node("ReduceSum", "much", "sum", keepdims=0),
            node("Add", "z sum"),
        ],
        {"one": np.float32(1), **constants},
    )


def ports(change: Callable[[onnx.GraphProto], Any]) -> bytes:
    return edited(lambda made: change(made.graph))


def initializer(change: Callable[[onnx.TensorProto], Any]) -> bytes:
    return ports(lambda graph: change(graph.initializer[0]))


def output(change: Callable[[Any], Any]) -> bytes:
    """With a change of the output's tensor type."""
    return ports(lambda graph: change(graph.output[0].type.tensor_type))


def add_output(made: onnx.ModelProto) -> None:
    made.graph.output.append(helper.make_tensor_value_info("h", F, ["N", 8]))


def conv(constants: dict[str, Any], inputs: str = "x w b", op: str = "Conv", **attributes: Any) -> bytes:
    nodes = [node("Reshape", "z shape", "x"), node(op, inputs, "y", **attributes), node("Flatten", "y")]
    given = {"shape": [-1, 2, 2, 2], "w": gaussian(4, 2, 1, 1), "b": gaussian(4), **constants}
    return model(nodes, given, output=("N", 16))


BIG = 2**31 - 1
CONSTANT_NODE = helper.make_node("Constant", [], ["much"], value=helper.make_tensor("t", F, [2], [1, 2]))


def huge_constant_node() -> bytes:
    constant = onnx.NodeProto()
    constant.CopyFrom(CONSTANT_NODE)
    constant.attribute[0].t.dims[:] = [2**20, 2**20]
    return model([constant, node("Add", "z much")])


ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    # Other files, other programs
    "external data": (lambda: external("../../etc/passwd"), "external data"),
    "external data in memory": (lambda: external("*/_ORT_MEM_ADDR_/*"), "external data"),
    "external location alone": (
        lambda: edited(lambda m: setattr(m.graph.initializer[0], "data_location", 1)),
        "external data",
    ),
    "onnxruntime's own format": (
        lambda: b"\x08\x0a" + tagged(2, b"ORTM" + bytes(8)) + model([node("Relu", "z")])[2:],
        "onnxruntime's own format",
    ),
    "local functions": (functions, "local functions"),
    "Loop": (loop, "operator 'Loop'|sub-graphs"),
    "If": (lambda: model([node("If", "z")]), "operator 'If'"),
    "Scan": (lambda: model([node("Scan", "z")]), "operator 'Scan'"),
    "sub-graph": (sub_graph_of_an_allowed_operator, "sub-graphs"),
    "RandomNormalLike": (lambda: model([node("RandomNormalLike", "z")]), "'RandomNormalLike'.*allowed"),
    "Multinomial": (lambda: model([node("Multinomial", "z")]), "'Multinomial'"),
    "Bernoulli": (lambda: model([node("Bernoulli", "z")]), "'Bernoulli'"),
    "Dropout that trains": (
        lambda: model([node("Dropout", "z half yes")], {"half": np.float32(0.5), "yes": np.array(True)}),
        r"\(Dropout\): it has 3 inputs",
    ),
    "Einsum": (lambda: model([node("Einsum", "z z", equation="ij,ij->ij")]), "'Einsum'"),
    "custom domain": (
        lambda: model([helper.make_node("Gelu", ["z"], ["image"], domain="com.microsoft")]),
        "domain 'com.microsoft'",
    ),
    "training information": (lambda: edited(lambda m: m.training_info.add()), "training information"),
    "quantization annotations": (lambda: ports(lambda g: g.quantization_annotation.add()), "quantization annotations"),
    "sparse initializers": (lambda: ports(lambda g: g.sparse_initializer.add()), "sparse initializers"),
    "options of onnxruntime": (
        lambda: edited(lambda m: m.metadata_props.add(key="ort_config", value="{}")),
        "'ort_config'",
    ),
    # More than it looks
    "ConstantOfShape": (
        lambda: of_shape("ConstantOfShape", "sizes", sizes=[20_000, 20_000]),
        r"\(ConstantOfShape\).* elements in one tensor",
    ),
    "ConstantOfShape below the limit of a tensor": (
        lambda: of_shape("ConstantOfShape", "sizes", sizes=[10_000, 10_000]),
        "computed or packed while loading",
    ),
    "Expand": (lambda: of_shape("Expand", "data sizes", sizes=[BIG, BIG]), r"\(Expand\)"),
    "Tile": (lambda: of_shape("Tile", "data sizes", sizes=[BIG, 9]), r"\(Tile\)"),
    "Pad": (lambda: of_shape("Pad", "data sizes", sizes=[0, 0, BIG - 1, 99]), r"\(Pad\)"),
    "negative pads": (lambda: of_shape("Pad", "data sizes", sizes=[0, -5, 0, 9]), r"it pads -5 and 9"),
    "Resize": (
        lambda: of_shape("Resize", "data - scales", scales=np.array([60000, 60000], np.float32)),
        r"\(Resize\)",
    ),
    "Resize by nothing": (
        lambda: of_shape("Resize", "data - scales", scales=np.array([np.nan, 1e-9], np.float32)),
        "its scales must be",
    ),
    "Range": (
        lambda: model(
            [
                node("Range", "a b c", "r"),
                node("Cast", "r", "f", to=1),
                node("ReduceSum", "f", "s", keepdims=0),
                node("Add", "z s"),
            ],
            {"a": np.int64(0), "b": np.int64(2**62), "c": np.int64(1)},
        ),
        r"\(Range\)",
    ),
    "OneHot": (
        lambda: model(
            [node("OneHot", "i depth values", "h"), node("ReduceSum", "h", "s", keepdims=0), node("Add", "z s")],
            {"i": [0, 1], "depth": [BIG], "values": np.array([0, 1], np.float32)},
        ),
        r"\(OneHot\)",
    ),
    "doubling Concat": (lambda: chain("Concat", 40, axis=1), r"\(Concat\).*elements in one tensor"),
    "doubling Tile": (lambda: chain("Tile", 40), r"\(Tile\).*elements in one tensor"),
    "many tensors of a fair size": (
        lambda: model(
            [
                node("Expand", "z size", "x0"),
                *(node("Relu", f"x{i}", f"x{i + 1}") for i in range(100)),
                node("ReduceMean", "x100 axes", keepdims=0),
            ],
            {"size": [2**23, 1, 8], "axes": [0]},
            {"z": (1, 8)},
            (1, 8),
        ),
        "bytes of activations",
    ),
    "a weight packed by many nodes": (
        lambda: model(
            [
                *(node("MatMul", f"x{i} w", f"x{i + 1}") for i in range(2000)),
                node("Identity", "x2000"),
            ],
            {"w": gaussian(512, 512)},
            {"x0": ("N", 512)},
            ("N", 512),
        ),
        "packed while loading",
    ),
    "a weight added by many nodes": (
        lambda: model(
            [
                node("Transpose", "z", "x0", perm=[0, 2, 1]),
                *(node("Add", f"x{i} w", f"x{i + 1}") for i in range(100)),
                node("Transpose", "x100", perm=[0, 2, 1]),
            ],
            {"w": gaussian(512, 512)},
            {"z": ("N", 512, 512)},
            ("N", 512, 512),
        ),
        "packed while loading",
    ),
    "a weight summed by many nodes": (
        lambda: model(
            [
                *(node("ReduceMax", "w", f"s{i}", keepdims=0) for i in range(3000)),
                *(node("Add", f"{'z' if not i else f'y{i}'} s{i}", f"y{i + 1}") for i in range(1000)),
                node("Identity", "y1000"),
            ],
            {"w": gaussian(512, 512)},
        ),
        "multiply-adds while loading",
    ),
    "products of constants": (
        lambda: model(
            [
                node("ConstantOfShape", "sizes", "a"),
                *(node("MatMul", f"{'a' if not i else f'a{i}'} a", f"a{i + 1}") for i in range(9)),
                node("ReduceSum", "a9", "s", keepdims=0),
                node("Add", "z s"),
            ],
            {"sizes": [900, 900]},
        ),
        "multiply-adds while loading",
    ),
    "multiply-adds": (
        lambda: model(
            [
                node("Expand", "z size", "x"),
                node("Transpose", "x", "y", perm=[1, 0]),
                node("MatMul", "x y", "m"),
                node("ReduceMean", "m axes", keepdims=1),
            ],
            {"size": [10_000, 8192], "axes": [0]},
            {"z": (1, 8192)},
            (1, 10_000),
        ),
        "multiply-adds for one image",
    ),
    "padded convolution": (
        lambda: conv({}, pads=[60000] * 4),
        r"\(Conv\).* elements in one tensor",
    ),
    "scratch of a transposed convolution": (
        lambda: model(
            [node("ConvTranspose", "x w", "y", pads=[1024] * 4), node("ReduceMean", "y axes")],
            {"w": np.zeros((1, 1, 2048, 2048), np.float32), "axes": [2, 3]},
            {"x": ("N", 1, 512, 512)},
            ("N", 1, 1, 1),
        ),
        r"\(ConvTranspose\).* elements in one tensor",
    ),
    "pooling by a large window": (
        lambda: conv({"w": gaussian(4, 2, 1, 1)}, "x", "MaxPool", kernel_shape=[60000, 60000], pads=[59999] * 4),
        r"\(MaxPool\)",
    ),
    # Grows faster than the batch
    "N x N": (lambda: of_batch(node("Concat", "n n", "many", axis=0)), "N, N|more with every image"),
    "N * N": (lambda: of_batch(node("Mul", "n n", "many")), r"\(Expand\).*(decides a shape|shape)"),
    "N + 1": (lambda: of_batch(node("Add", "n a", "many"), a=[1]), r"\(Expand\): its input 1 decides a shape"),
    "a constant over N": (lambda: of_batch(node("Div", "a n", "many"), a=[10**9]), r"\(Expand\): its input 1 decides"),
    "half of N": (lambda: of_batch(node("Div", "n a", "many"), a=[2]), r"\(Expand\): its input 1 decides"),
    "a remainder of N": (lambda: of_batch(node("Mod", "n a", "many"), a=[10**9]), r"\(Expand\): its input 1 decides"),
    "the least of N": (lambda: of_batch(node("Min", "n a", "many"), a=[10**9]), r"\(Expand\): its input 1 decides"),
    "large for N = 16 alone": (
        lambda: of_batch(
            node("Equal", "n sixteen", "is"),
            node("Where", "is large small", "many"),
            sixteen=[16],
            large=[10**9],
            small=[1],
        ),
        r"\(Expand\): its input 1 decides",
    ),
    "large from values": (
        lambda: model(
            [
                node("ReduceMax", "z", "m", keepdims=0),
                node("Cast", "m", "i", to=TensorProto.INT64),
                node("Reshape", "i one", "many"),
                node("Expand", "z many", "much"),
                node("Identity", "much"),
            ],
            {"one": [1]},
        ),
        r"\(Expand\): its input 1 decides",
    ),
    "all pairs of the batch": (
        lambda: model(
            [node("Transpose", "z", "t"), node("MatMul", "z t", "p"), node("MatMul", "p z")],
        ),
        "more with every image",
    ),
    # Data that is not what it says
    "huge dims, little data": (
        lambda: initializer(lambda t: t.dims.__setitem__(0, 2**30)),
        r"tensor 'weights' has 256 bytes of raw_data",
    ),
    "dims that overflow": (
        lambda: initializer(lambda t: t.dims.extend([2**31 - 1] * 4)),
        "tensor 'weights' has",
    ),
    "negative dims": (lambda: initializer(lambda t: t.dims.__setitem__(0, -8)), r"the shape \[-8, 8\]"),
    "too many dims": (lambda: initializer(lambda t: t.dims.extend([1] * 99)), "101 dimensions of tensor"),
    "data twice": (lambda: initializer(lambda t: t.float_data.append(1)), "'weights' has its data twice"),
    "data of another type": (
        lambda: initializer(lambda t: setattr(t, "data_type", 11)),
        "'weights' has 256 bytes",
    ),
    "a huge Constant": (huge_constant_node, "has 8 bytes of float_data"),
    "strings": (lambda: initializer(lambda t: setattr(t, "data_type", 8)), "elements of type 8"),
    "segments": (lambda: initializer(lambda t: t.segment.SetInParent()), "segments"),
    "bias too short": (lambda: conv({"b": gaussian(1)}), r"\(Conv\): its input 2 is \[1\]; valid: \[4\]"),
    "bias of a transposed convolution": (
        lambda: conv({"w": gaussian(2, 4, 1, 1), "b": gaussian(2)}, op="ConvTranspose"),
        r"\(ConvTranspose\): its input 2 is \[2\]; valid: \[4\]",
    ),
    "norm too short": (
        lambda: conv({"b": gaussian(1)}, "x b b", "InstanceNormalization"),
        r"its input 1 is \[1\]; valid: \[2\]",
    ),
    "channels that do not fit": (lambda: conv({"w": gaussian(4, 3, 1, 1)}), "2 channels in 1 groups do not fit"),
    "no groups": (lambda: conv({}, group=0), "its group is 0; valid: 1 to"),
    "stride 0": (lambda: conv({}, strides=[0, 1]), r"its strides are \[0, 1\]"),
    "dilation beyond": (lambda: conv({}, dilations=[2**40, 1]), "its dilations are"),
    "kernel_shape that lies": (lambda: conv({}, kernel_shape=[3, 3]), "is not that of its weights"),
    "reflection wider than the picture": (
        lambda: conv({"p": [0, 0, 2, 0, 0, 0, 0, 0]}, "x p", "Pad", mode="reflect"),
        "it pads 2 and 0; valid: 0 to 1",
    ),
    "the least number over -1": (
        lambda: model(
            [node("Div", "least minus", "y"), node("Cast", "y", "f", to=F), node("Add", "z f")],
            {"least": [-(2**63)], "minus": [-1]},
        ),
        r"\(Div\): it divides by numbers that may be 0 or below",
    ),
    "index outside": (lambda: model([node("Gather", "z i", axis=1)], {"i": [99]}), "an index is outside of 0 to 7"),
    "a declared shape that lies": (
        lambda: ports(lambda g: g.value_info.append(helper.make_tensor_value_info("h", F, ["N", 4]))),
        r"declares 'h' as float32 \['N', 4\], but that is float32 \[N, 8\]",
    ),
    # Inputs, outputs, names
    "no graph": (lambda: b"\x08\x0a", "it has no graph"),
    "no output": (lambda: ports(lambda g: g.output.pop()), "it has no output"),
    "an output of strings": (
        lambda: output(lambda t: setattr(t, "elem_type", 8)),
        "output 'image' has elements of type 8",
    ),
    "an output of rank 0": (
        lambda: output(lambda t: t.shape.ClearField("dim")),
        r"as float32 \[\]",
    ),
    "an output of no elements": (
        lambda: output(lambda t: setattr(t.shape.dim[1], "dim_value", 0)),
        "output 'image' has a dimension of 0",
    ),
    "an output without a shape": (
        lambda: output(lambda t: t.ClearField("shape")),
        "has no shape",
    ),
    "an output that is an input": (lambda: ports(lambda g: setattr(g.output[0], "name", "z")), "'z' is not computed"),
    "a sequence": (lambda: ports(lambda g: g.input[0].type.sequence_type.SetInParent()), "sequences"),
    "an optional": (lambda: ports(lambda g: g.input[0].type.optional_type.SetInParent()), "optional"),
    "an input of 2^62 elements": (
        lambda: ports(lambda g: g.input.append(helper.make_tensor_value_info("x", F, [BIG, BIG]))),
        "input 'x' is .*; valid: at most",
    ),
    "an input twice": (lambda: ports(lambda g: g.input.append(g.input[0])), "input 'z' is there twice"),
    "an input that is an initializer": (
        lambda: initializer(lambda t: setattr(t, "name", "z")),
        "input 'z' is there twice, or also an initializer",
    ),
    "a name made twice": (lambda: ports(lambda g: g.node.append(g.node[0])), "'h' is made twice"),
    "an initializer twice": (lambda: ports(lambda g: g.initializer.append(g.initializer[0])), "two initializers"),
    "a circle": (
        lambda: ports(lambda g: g.node[0].input.__setitem__(0, "image")),
        "reads 'image', which nothing before",
    ),
    "a name with a terminal's controls": (
        lambda: ports(lambda g: g.node[0].input.__setitem__(0, "\x1b[2J\nroot# ")),
        r"is '\\x1b\[2J\\nroot# '; valid: printable",
    ),
    "a long name": (
        lambda: ports(lambda g: setattr(g.node[0], "name", "n" * 2000)),
        "has 2000 bytes; valid: at most 1024",
    ),
    "too many nodes": (
        lambda: graph_with(tagged(1, b"") * (MAX_NODES + 1)),
        f"has {MAX_NODES + 2} nodes; valid: at most",
    ),
    "too many initializers": (lambda: graph_with(tagged(5, b"") * (MAX_INITIALIZERS + 1)), "initializers; valid"),
    "too many inputs": (lambda: graph_with(tagged(11, b"") * MAX_PORTS), "129 inputs; valid"),
    "too many fields": (lambda: graph_with(tagged(16, b"") * 300_000), "more than 200000 fields"),
    "too many numbers": (lambda: conv({}, pads=[0] * 2000), "has 2000 numbers in the attribute 'pads'"),
    "metadata that is not UTF-8": (
        lambda: edited(lambda m: m.metadata_props.add(key="k", value="TEXT")).replace(b"TEXT", b"\xff\xfe\xfd\xfc"),
        "its metadata is not valid UTF-8",
    ),
    "metadata twice": (
        lambda: edited(lambda m: [m.metadata_props.add(key="k", value=v) for v in "ab"]),
        "the key 'k' twice",
    ),
    "much metadata": (lambda: edited(lambda m: m.metadata_props.add(key="k", value="v" * 70_000)), "has 70000 bytes"),
    "operator set 12": (
        lambda: model([node("Relu", "z")], opset=12),
        "operator set version is 12; valid: one, 13 to 23",
    ),
    "two operator sets": (lambda: edited(lambda m: m.opset_import.add(domain="ai.onnx", version=13)), "is 18 and 13"),
    "IR version": (lambda: edited(lambda m: setattr(m, "ir_version", 3)), "IR version is 3; valid: 4 to 13"),
    # What protobuf's readers may take in different ways
    "a second graph": (lambda: edited(lambda m: None) + tagged(7, b""), "two values of graph"),
    "an unknown field": (lambda: edited(lambda m: None) + tagged(99, b"x"), "field 99 with wire type 2"),
    "a group": (lambda: edited(lambda m: None) + b"\xfb\x01\xfc\x01", "field 31 with wire type 3"),
    "a wrong wire type": (lambda: edited(lambda m: None) + b"\x3d1234", "field 7 with wire type 5"),
    "a number that never ends": (lambda: edited(lambda m: None) + b"\x80" * 20, "cut short or too long"),
    "a length beyond the file": (
        lambda: edited(lambda m: None) + b"\x0a\xff\xff\xff\xff\x07",
        "wire type 2|bytes left",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused_in_one_line(name: str) -> None:
    build, message = ATTACKS[name]
    data = build()
    start = time.process_time()
    with pytest.raises(ModelError, match=message) as caught:
        check(data, "x.onnx")
    assert time.process_time() - start < 10  # not the minutes that it would take to believe the file
    text = str(caught.value)
    assert text.startswith("x.onnx")
    assert text.isprintable()
    assert len(text) < 500
    with pytest.raises(ModelError, match=message):
        load(data)


def test_several_outputs_pass_the_gate_but_are_no_model_of_ours() -> None:
    data = edited(add_output)
    assert list(check(data, "m").outputs) == ["image", "h"]
    with pytest.raises(ModelError):
        load(data)


# In another process: its crash, its time and its memory are seen from here


class Victim:
    """A process that loads what it is given, and draws with it if it can."""

    CODE = f"""
import resource, sys, time
sys.path[:0] = {[str(Path(__file__).parent)]!r}
import onnxruntime
from edgegan import EdgeGANError, load
from edgegan.gate import check
from edgegan.session import open_session
from test_gate import feed_of
load().sample(2)
while head := sys.stdin.buffer.read(4):
    data = sys.stdin.buffer.read(int.from_bytes(head, "little"))
    start = time.process_time()
    try:
        graph = check(data, "x")
        dear = graph.cost.activation_bytes > 2**25  # as the gate foresees: it is loaded, but not run
        try:
            model = load(data, threads=1)
            said = "dear" if dear else "drew %d" % len(model.sample(2))
        except EdgeGANError:  # not a model of ours: onnxruntime must still survive it
            said = "error"
            session, *_ = open_session(data, "x", 1)
            try:
                dear or session.run(None, feed_of(graph, 2))
            except Exception:
                pass
    except EdgeGANError as error:
        said = "error"
        assert str(error).isprintable() and len(str(error)) < 600, error
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(said, megabytes, time.process_time() - start, sep=",", flush=True)
"""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.base = 0  # its memory, in MB, when a good model is loaded

    def __enter__(self) -> "Victim":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()
            with self.process:  # closes the pipes
                self.process = None

    def ask(self, data: bytes) -> tuple[str, int, float]:
        """What it says, the memory in MB that it took, and the processor's seconds. Fails if it crashes or hangs."""
        if self.process is None:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen([sys.executable, "-c", self.CODE], stdin=pipe, stdout=pipe)
            self.base = 0
            self.base = self.ask(b"")[1]
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(len(data).to_bytes(4, "little") + data)
        self.process.stdin.flush()
        answered = select.select([self.process.stdout], [], [], 60)[0]
        line = self.process.stdout.readline().decode() if answered else ""
        if not line:
            code = self.process.wait() if answered else "it hangs"
            self.__exit__()
            pytest.fail(f"the process ended: {code}")
        said, megabytes, seconds = line.split(",")
        return said, int(megabytes) - self.base, float(seconds)


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    with Victim() as made:
        yield made


def harmless(victim: Victim, data: bytes) -> str:
    said, megabytes, seconds = victim.ask(data)
    assert said in ("error", "drew 2", "dear")
    assert megabytes < 200
    assert seconds < 10  # as above
    return said


def test_attacks_take_no_memory(victim: Victim) -> None:
    for name, (build, _) in ATTACKS.items():
        assert harmless(victim, build()) == "error", name


def test_good_models_draw_there(victim: Victim) -> None:
    for name, build in GOOD.items():
        assert harmless(victim, build()) == ("error" if name == "translate" else "drew 2")


# Mutated models

Field = tuple[int, Any]  # tag, value: int, bytes, or fields of a message

# Message kind -> field number -> kind of the messages in it.
NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 14: "entry"},
    "graph": {1: "node", 5: "tensor", 11: "info", 12: "info", 13: "info"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor"},
    "info": {2: "type"},
    "type": {1: "tensor_type"},
    "tensor_type": {2: "shape"},
    "shape": {1: "dim"},
}


def parse(data: bytes, kind: str = "model") -> list[Field]:
    """A protobuf as a tree, to be changed and written again."""
    found: list[Field] = []
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            found.append((tag, number()))
            continue
        length = 4 if tag & 7 == 5 else number()
        value = data[at : at + length]
        at += length
        inner = NESTED.get(kind, {}).get(tag >> 3)
        found.append((tag, parse(value, inner) if inner else value))
    return found


def unparse(fields: list[Field]) -> bytes:
    out = bytearray()
    for tag, value in fields:
        out += varint(tag)
        if isinstance(value, int):
            out += varint(value)
            continue
        payload = unparse(value) if isinstance(value, list) else value
        out += payload if tag & 7 == 5 else varint(len(payload)) + payload
    return bytes(out)


def lists_of(fields: list[Field]) -> list[list[Field]]:
    return [fields, *(deep for _, value in fields if isinstance(value, list) for deep in lists_of(value))]


NUMBERS = [0, 1, 2, 3, 7, 8, 9, 11, 16, 127, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
TEXTS = [b"", b"z", b"image", b"h", b"x", b"\xff", b"Resize", b"ConvTranspose", b"Expand", b"Tile", b"Slice", b"Gather"]
TEXTS += [b"Transpose", b"Concat", b"MaxPool", b"Pad", b"Conv", b"Gemm", b"MatMul", b"Split", b"ReduceMean", b"Softmax"]


@st.composite
def rebuilt(draw: st.DrawFn, bases: list[bytes]) -> bytes:
    """A model with well-formed changes: numbers, names, and fields that are gone, doubled, moved or exchanged."""
    fields = parse(draw(st.sampled_from(bases)))
    for _ in range(draw(st.integers(1, 4))):
        every = [part for part in lists_of(fields) if part]
        part = draw(st.sampled_from(every))
        i, j = draw(st.integers(0, len(part) - 1)), draw(st.integers(0, len(part) - 1))
        tag, value = part[i]
        how = draw(st.sampled_from(["value", "value", "value", "delete", "double", "swap", "number"]))
        if how == "delete":
            del part[i]
        elif how == "double":
            part.insert(j, part[i])
        elif how == "swap":
            part[i], part[j] = part[j], part[i]
        elif how == "number":
            part[i] = (tag & 7 | draw(st.integers(1, 26)) << 3, value)
        elif isinstance(value, int):
            part[i] = (tag, draw(st.sampled_from([*NUMBERS, max(0, value - 1), value + 1])))
        elif isinstance(value, bytes):
            part[i] = (tag, draw(st.sampled_from(TEXTS)) if len(value) < 24 and tag & 7 == 2 else _flipped(draw, value))
    return unparse(fields)


def _flipped(draw: st.DrawFn, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3)) if data else 0):
        changed[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


@st.composite
def damaged(draw: st.DrawFn, bases: list[bytes]) -> bytes:
    """A model with bytes changed, cut off, moved, or taken from another."""
    data = draw(st.sampled_from(bases))
    how = draw(st.sampled_from(["flip", "cut", "splice", "double", "length"]))
    i, j = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
    if how == "flip":
        return _flipped(draw, data)
    if how == "cut":
        return data[:i] + data[j:]
    if how == "splice":
        other = draw(st.sampled_from(bases))
        return data[:i] + other[draw(st.integers(0, len(other))) :]
    if how == "double":
        return data[:j] + data[i:]
    at = draw(st.integers(0, min(len(data), 64) - 1))  # the lengths of the model and of its graph are at the start
    return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]


@pytest.fixture(scope="module")
def bases(exported: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The models to mutate: small ones, since a change of a weight says little."""
    return [style_model(), int8_model(), translate_model(), exported["layers"], edited(lambda m: None)]


FUZZ = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.parametrize("strategy", [rebuilt, damaged])
def test_mutated_models_do_no_harm(strategy: Any, bases: list[bytes], victim: Victim) -> None:
    seen: dict[str, int] = {}

    @settings(max_examples=1000, **FUZZ)  # type: ignore[arg-type]
    @given(strategy(bases))
    def run(data: bytes) -> None:
        said = harmless(victim, data)
        seen[said] = seen.get(said, 0) + 1

    run()
    assert min(seen.get("error", 0), seen.get("drew 2", 0)) > 5, seen  # both happen, or the test tests little


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [rebuilt, damaged])
def test_many_mutated_models_do_no_harm(strategy: Any, bases: list[bytes], victim: Victim) -> None:
    @settings(max_examples=20_000, **FUZZ)  # type: ignore[arg-type]
    @given(strategy(bases))
    def run(data: bytes) -> None:
        harmless(victim, data)

    run()


def test_a_slice_from_the_least_number_does_not_depend_on_the_batch() -> None:
    """torch writes x.shape[:-1] as a slice from -2^63, which is no multiple of N."""
    ends = {"start": [-(2**63)], "end": [-1], "rest": [2, 2]}
    constants = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in ends.items()]
    nodes = [
        helper.make_node("Shape", ["z"], ["sizes"]),
        helper.make_node("Slice", ["sizes", "start", "end"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["z", "shape"], ["image"]),
    ]
    ports = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4])]
    outputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 2, 2])]
    graph = helper.make_graph(nodes, "g", ports, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    assert check(model.SerializeToString(), "x").outputs["image"][1] == ("N", 2, 2)
