"""int8: weights and activations of 8 bits, by onnxruntime's quantiser, judged by the pictures that come out.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference". The
file has QuantizeLinear and DequantizeLinear around float operators, which onnxruntime turns into integer kernels.
Activations are unsigned, and weights signed with a scale for each output channel, for x86 with VNNI and ARM alike.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    TensorsData,
    create_calibrator,
)

from edgegan.errors import ExportError
from edgegan.export.graph import Array, Graph, attribute, sized
from edgegan.export.measure import cost_of
from edgegan.export.quality import Judge, Quality
from edgegan.export.simplify import fold_constants
from edgegan.model import inputs_of
from edgegan.spec import ModelSpec

SEED = 10  # of what ranges are calibrated on: neither what is judged nor the golden samples
PICTURES = {"generate": 128, "translate": 32}  # each of the latter has flat areas, edges and noise of its own
BATCH = 16
MAX_BYTES = 2**29  # of activations at once: a calibrator keeps all of a batch
# Beyond this tanh differs from 1 by less than half of one grey level, so that no range in front of it need go further.
TANH_RANGE = float(np.arctanh(1 - 1 / 255))
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # what a layer is: these hold the weights and the work
# Operators between the layers that have integer kernels, so that pictures stay 8 bits wide from one to the next.
BETWEEN = ("LeakyRelu", "Relu", "Add", "Mul", "Concat", "Reshape", "Transpose", "Resize", "DepthToSpace", "Slice")
MOST_FLOAT = 0.5  # of all multiply-adds: what keeps more of them in float is int8 in name only

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Method:
    """A way to choose the range of an activation from what it was on the calibration's pictures."""

    name: str
    calibration: CalibrationMethod
    percentile: float = 100.0

    def options(self) -> dict[str, Any]:
        return {"percentile": self.percentile} if self.calibration == CalibrationMethod.Percentile else {}


METHODS = (
    Method("min-max", CalibrationMethod.MinMax),
    Method("percentile 99.99", CalibrationMethod.Percentile, 99.99),
    Method("percentile 99.9", CalibrationMethod.Percentile, 99.9),
    Method("entropy", CalibrationMethod.Entropy),
)


@dataclass(frozen=True)
class Layer:
    """The nodes of one layer: lowering may have cut a convolution into some that read the same activations."""

    name: str  # for people: the operator and the shapes
    nodes: tuple[str, ...]
    multiply_adds: int  # of a picture


@dataclass(frozen=True)
class Quantized:
    """A model in int8, and how it came to be."""

    model: onnx.ModelProto
    quality: Quality
    method: str  # that chose the ranges
    tried: dict[str, float]  # method -> PSNR in decibels
    gains: dict[str, float]  # layer -> decibels gained if it alone stays in float; the costliest first
    kept: list[str] = field(default_factory=list)  # layers in float, and why

    def lines(self) -> list[str]:
        """For people."""
        tried = ", ".join(f"{name} {decibels:.1f} dB" for name, decibels in self.tried.items())
        lines = [f"int8: {self.quality.shown()}", f"  ranges by {self.method}; tried: {tried}"]
        lines += [f"  in float: {reason}" for reason in self.kept]
        if self.gains:
            name, gain = next(iter(self.gains.items()))
            lines.append(f"  the layer that costs most quality: {name}, {gain:.2f} dB")
        return lines


def quantize(
    model: onnx.ModelProto, spec: ModelSpec, judge: Judge, progress: Progress = lambda text: None
) -> Quantized:
    """The float32 model in int8. It should be lowered for it: `lower(model, feed, prepare=fast_int8)`.

    The ranges come from fresh pictures, by the method whose results are nearest to the float32 ones. If the judge's
    limit is missed, the layers that cost most stay in float, one after another, until it is met.

    Raises ExportError, with the costliest layer, if that takes more than half of the multiply-adds.
    """
    model = named(without_gemm(folded(model)))
    layers = layers_of(sized(model, spec))
    if not layers:
        raise ExportError("the model has no convolution or dense layer with constant weights: nothing to make int8")
    tried: dict[Method, tuple[float, onnx.ModelProto, TensorsData]] = {}
    for method in METHODS:
        progress(f"calibrating by {method.name}")
        ranges = calibrate(model, spec, method)
        made = insert(model, ranges)
        tried[method] = judge.decibels(made.SerializeToString()), made, ranges
    method = max(tried, key=lambda method: tried[method][0])
    best, made, ranges = tried[method]
    gains = {}
    for index, layer in enumerate(layers):
        progress(f"what each layer costs: {index + 1} of {len(layers)}")
        without = insert(model, ranges, layer.nodes)
        gains[layer.name] = judge.decibels(without.SerializeToString()) - best
    order = sorted(layers, key=lambda layer: -gains[layer.name])
    gains = {layer.name: gains[layer.name] for layer in order}
    quality, kept = judge.judge(made.SerializeToString()), list[Layer]()
    work = sum(layer.multiply_adds for layer in layers)
    while not judge.passes(quality):
        costliest = f"the layer that costs most is {order[0].name}, {gains[order[0].name]:.2f} dB"
        room = MOST_FLOAT * work - sum(layer.multiply_adds for layer in kept)
        useful = (layer for layer in order if layer not in kept and gains[layer.name] > 0)
        more = next((layer for layer in useful if layer.multiply_adds <= room), None)
        if more is None:
            raise ExportError(
                f"int8 loses too much quality, even with {len(kept)} of {len(layers)} layers in float: "
                f"{judge.verdict(quality)}; {costliest}; nothing was written. Allow more with --max-quality-loss, or "
                "take --precision fp32"
            )
        kept.append(more)
        progress(f"keeping {len(kept)} layers in float")
        made = insert(model, ranges, [name for layer in kept for name in layer.nodes])
        quality = judge.judge(made.SerializeToString())
    reasons = [f"{layer.name}: it costs {gains[layer.name]:.2f} dB" for layer in kept]
    shown = {method.name: decibels for method, (decibels, _, _) in tried.items()}
    return Quantized(made, quality, method.name, shown, gains, reasons)


def fast_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in int8 with made-up ranges: it draws nothing of use, in the time that the real one takes."""
    model = named(without_gemm(folded(model)))
    span = np.array(-1, np.float32), np.array(1, np.float32)
    outputs = {name: span for node in model.graph.node for name in node.output}
    inputs = {value.name: span for value in model.graph.input}
    return insert(model, TensorsData(CalibrationMethod.MinMax, inputs | outputs))


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights that are computed from constants, as StyleGAN's filtered ones, as constants themselves."""
    graph = Graph(model)
    for node in list(graph.nodes):
        fold_constants(graph, node)
    return graph.model()


def without_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with MatMul and Add for Gemm, whose integer kernel takes half as long again for a single picture."""
    graph = Graph(model)
    for node in list(graph.nodes):
        weight, bias = graph.constant_input(node, 1), graph.constant_input(node, 2)
        scaled = attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1
        plain = not scaled and not attribute(node, "transA", 0)
        if node.op_type != "Gemm" or weight is None or not plain or (len(node.input) > 2 and bias is None):
            continue
        weight = weight.T if attribute(node, "transB", 0) else weight
        made = graph.add("MatMul", node.input[0], graph.constant(np.ascontiguousarray(weight)))
        graph.replace(node.output[0], made if bias is None else graph.add("Add", made, graph.constant(bias)))
    return graph.model()


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose nodes all have names, which differ: the quantiser tells nodes by them."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for index, node in enumerate(made.graph.node):
        node.name = f"{node.op_type}_{index}"
    return made


def layers_of(model: onnx.ModelProto) -> list[Layer]:
    """The layers of a model whose nodes are `named`, in their order."""
    graph = Graph(named(model))
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.nodes:
        if node.op_type in WEIGHTED and graph.constant_input(node, 1) is not None:
            groups.setdefault(node.input[0], []).append(node)
    made: list[Layer] = []
    for source, nodes in groups.items():
        into = "x".join(str(size or "N") for size in graph.shape(source) or ())
        out = ", ".join(
            dict.fromkeys("x".join(str(size or "N") for size in graph.shape(node.output[0]) or ()) for node in nodes)
        )
        times = f" ({len(nodes)} convolutions)" if len(nodes) > 1 else ""
        name = f"layer {len(made) + 1}, {nodes[0].op_type} {into} -> {out}{times}"
        made.append(Layer(name, tuple(node.name for node in nodes), sum(_multiply_adds(graph, node) for node in nodes)))
    return made


def _multiply_adds(graph: Graph, node: onnx.NodeProto) -> int:
    """Of a picture: each weight is used once for every place of the output, or of a ConvTranspose's input."""
    weight = graph.constant_input(node, 1)
    assert weight is not None
    shape = graph.shape(node.input[0] if node.op_type == "ConvTranspose" else node.output[0]) or ()
    places = shape[1:-1] if node.op_type in ("Gemm", "MatMul") else shape[2:]
    return int(weight.size * np.prod([size or 1 for size in places]))


def insert(model: onnx.ModelProto, ranges: TensorsData, floats: Iterable[str] = ()) -> onnx.ModelProto:
    """The quantised form of a `named` model. floats: names of nodes that stay in float."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantizer = QDQQuantizer(
        onnx.shape_inference.infer_shapes(copy),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=[*floats, *_after_squashing(model), *_modulation(model)],
        op_types_to_quantize=[*WEIGHTED, *BETWEEN],
        # A transposed convolution has no integer kernel: only its weights are stored in 8 bits.
        extra_options={"OpTypesToExcludeOutputQuantization": ["ConvTranspose"]},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()  # it appends nodes, and the gate reads them in their order
    made: onnx.ModelProto = quantizer.model.model
    _match_zero_points(made)
    made.producer_name, made.producer_version = model.producer_name, model.producer_version
    del made.graph.value_info[:]  # those of the float graph
    return made


def _after_squashing(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes behind a Tanh or Clip that no layer follows: pixels are not rounded once more."""
    feeds_layer, behind = set[str](), set[str]()
    for node in reversed(model.graph.node):  # values from which a layer is still to come
        if node.op_type in WEIGHTED or feeds_layer.intersection(node.output):
            feeds_layer.update(node.input)
    for node in model.graph.node:
        if node.op_type in ("Tanh", "Sigmoid", "Clip") or behind.intersection(node.input):
            behind.update(node.output)
    return [
        n.name for n in model.graph.node if behind.intersection(n.output) and not feeds_layer.intersection(n.output)
    ]


def _modulation(model: onnx.ModelProto) -> list[str]:
    """Names of the elementwise nodes around a product of two computed values, such as activations and their style.

    Integer kernels are slower there than those in float, and each rounds once more. Between other layers both are worth
    it, since no activation leaves its 8 bits.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    values: set[str] = set()  # that such a product, or an elementwise node which is connected to one, reads or makes
    names: list[str] = []
    rest = [node for node in model.graph.node if node.op_type in ("Mul", "Add", "LeakyRelu", "Relu")]
    found = [node for node in rest if node.op_type == "Mul" and not constants.intersection(node.input)]
    while found:
        names += [node.name for node in found]
        values.update(name for node in found for name in (*node.input, *node.output) if name not in constants)
        rest = [node for node in rest if node.name not in names]
        found = [node for node in rest if values.intersection((*node.input, *node.output))]
    return names


def _match_zero_points(model: onnx.ModelProto) -> None:
    """Give zero points the shape of their scales: the quantiser leaves a bias of one channel [1] with a scalar."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
            scale, zero = (tensors.get(name) for name in node.input[1:3])
            if scale is not None and zero is not None and scale.dims != zero.dims:
                del zero.dims[:]
                zero.dims.extend(scale.dims)


def calibrate(model: onnx.ModelProto, spec: ModelSpec, method: Method) -> TensorsData:
    """The range of each activation of a `named` model on inputs of its own kind, of 128 or 32 pictures."""
    each = cost_of(model.SerializeToString(), spec, "the model to be made int8").activation_bytes
    batch, count = max(1, min(BATCH, MAX_BYTES // each)), PICTURES[spec.task]
    feeds = (inputs_of(spec, SEED, min(batch, count - start), start) for start in range(0, count, batch))
    with tempfile.TemporaryDirectory(prefix="edgegan-") as folder, redirect_stdout(StringIO()):
        path = Path(folder) / "float.onnx"
        onnx.save(model, os.fspath(path))
        calibrator = create_calibrator(
            path,
            [*WEIGHTED, *BETWEEN],
            os.fspath(Path(folder) / "augmented.onnx"),
            method.calibration,
            extra_options={"symmetric": False, **method.options()},
        )
        for feed in feeds:  # one at a time: a reader of all would hold every activation of all
            calibrator.collect_data(_Reader(feed))
        found = calibrator.compute_data()
        del calibrator
    limits, spans = _limits(model), {}
    for name in found.keys():  # noqa: SIM118 - TensorsData is no mapping
        low, high = (np.array(value, np.float32).reshape(()) for value in found[name].range_value)
        least, most = limits.get(name, (-np.inf, np.inf))
        spans[name] = np.maximum(low, np.float32(least)), np.minimum(high, np.float32(most))
    return TensorsData(CalibrationMethod.MinMax, spans)


def _limits(model: onnx.ModelProto) -> dict[str, tuple[float, float]]:
    """Beyond what a value need not be told apart, if its only reader is Tanh or Clip."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = Counter(name for node in model.graph.node for name in node.input)
    limits = {}
    for node in model.graph.node:
        if not node.input or readers[node.input[0]] != 1:
            continue
        if node.op_type == "Tanh":
            limits[node.input[0]] = -TANH_RANGE, TANH_RANGE
        elif node.op_type == "Clip" and len(node.input) == 3 and all(name in constants for name in node.input[1:]):
            low, high = (float(numpy_helper.to_array(constants[name])) for name in node.input[1:])
            step = (high - low) / 254  # the zero point is a whole number: with a step more both ends can be reached
            limits[node.input[0]] = low - step, high + step
    return limits


class _Reader(CalibrationDataReader):
    """Gives one batch."""

    def __init__(self, feed: dict[str, Array]) -> None:
        self._feed: dict[str, Array] | None = feed

    def get_next(self) -> dict[str, Array] | None:
        feed, self._feed = self._feed, None
        return feed
