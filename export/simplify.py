"""Exact rewrites that leave less to do, or that say the same in the words that other rewrites and onnxruntime know."""

import numpy as np
from onnx import NodeProto, helper

from edgegan.export.graph import RANDOM, Graph, attribute, known

ACTIVATIONS = ("LeakyRelu", "Relu", "Tanh", "Sigmoid", "Clip")  # elementwise, and onnxruntime fuses them with Conv
FOLDED_BYTES = 4096  # of a result that may be larger than what it is made of
HALF_PIXELS = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")


def fold_constants(graph: Graph, node: NodeProto) -> bool:
    """A node whose inputs are all constants -> its value: of spectral norm the weights, W / sigma.

    Only where that takes at most twice the bytes of the inputs, or few, so that the file stays small. Twice: the
    filtered weights of StyleGAN are to be constants, which int8 needs.
    """
    names = [name for name in node.input if name]
    values = [graph.constants.get(name) for name in names]
    shape = graph.shape(node.output[0]) if len(node.output) == 1 else None
    sizes = [size for size in shape or () if size is not None]
    if not names or any(value is None for value in values) or node.op_type in (*RANDOM, "Dropout") or node.domain:
        return False
    if shape is None or len(sizes) != len(shape) or graph.is_output(node.output[0]):
        return False
    given = sum(value.nbytes for value in values if value is not None)
    if 4 * int(np.prod(sizes)) > 2 * given + FOLDED_BYTES:
        return False
    made = graph.evaluate(node)
    if made is None:
        return False
    graph.fix(node, made)
    return True


def respell_resize(graph: Graph, node: NodeProto) -> bool:
    """Nearest Resize by whole numbers, however it is said -> asymmetric, floor, and scales.

    That is what onnxruntime computes in its blocked layout. With half pixels the source of pixel s q + r is
    q + (r + 1/2) / s - 1/2, less than half a pixel from q.
    """
    if node.op_type != "Resize" or attribute(node, "mode", "nearest") != "nearest":
        return False
    scales = _scales(graph, node)
    if len(graph.shape(node.input[0]) or ()) != 4 or scales is None:
        return False
    mode = attribute(node, "coordinate_transformation_mode", "half_pixel")
    nearest = attribute(node, "nearest_mode", "round_prefer_floor")
    halves = mode in HALF_PIXELS and nearest in ("round_prefer_floor", "round_prefer_ceil")
    corner = mode == "asymmetric" and (nearest == "floor" or (nearest == "round_prefer_floor" and max(scales) <= 2))
    said = graph.constant_input(node, 2)
    if not (halves or corner) or (mode == "asymmetric" and nearest == "floor" and said is not None and len(said) == 4):
        return False
    made = graph.add(
        "Resize",
        node.input[0],
        "",
        graph.constant(np.array([1, 1, *scales], np.float32)),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    graph.replace(node.output[0], made)
    return True


def _scales(graph: Graph, node: NodeProto) -> tuple[int, int] | None:
    """The whole numbers by which a Resize repeats rows and columns, if it leaves batch and channels alone."""
    axes = [axis % 4 for axis in attribute(node, "axes", [])] or [0, 1, 2, 3]
    scales, found = graph.constant_input(node, 2), [1.0] * 4
    if scales is not None and scales.size == len(axes):
        for axis, scale in zip(axes, scales.tolist(), strict=True):
            found[axis] = scale
    else:
        source, target = known(graph.shape(node.input[0]), 4), _sizes(graph, node, axes)
        stretched = attribute(node, "keep_aspect_ratio_policy", "stretch") == "stretch"
        if source is None or target is None or not stretched:
            return None
        found[2:] = (float(b / a) for a, b in zip(source[1:], target, strict=True))
    whole = all(scale >= 1 and scale == int(scale) for scale in found)
    return (int(found[2]), int(found[3])) if whole and found[:2] == [1, 1] else None


def _sizes(graph: Graph, node: NodeProto, axes: list[int]) -> list[int] | None:
    """Height and width that a Resize is told, where it is told those of its input for the rest."""
    name = node.input[3] if len(node.input) > 3 else ""
    if axes != [2, 3]:  # all: those of the input, as torch writes it, and two numbers
        joined = graph.producer(name)
        if axes != [0, 1, 2, 3] or joined is None or joined.op_type != "Concat" or len(joined.input) != 2:
            return None
        shape, name = graph.producer(joined.input[0]), joined.input[1]
        if shape is None or shape.op_type != "Shape" or shape.input[0] != node.input[0]:
            return None
        if attribute(shape, "start", 0) != 0 or attribute(shape, "end", 4) != 2:
            return None
    value = graph.constants.get(name)
    return value.tolist() if value is not None and value.size == 2 else None


def fold_batch_norm(graph: Graph, node: NodeProto) -> bool:
    """Conv, ConvTranspose, Gemm or MatMul -> BatchNormalization: one node less.

    a (W x + b - mean) + beta = (a W) x + a (b - mean) + beta, where a = gamma / sqrt(var + epsilon).
    """
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return False
    norm = graph.only_consumer(node.output[0])
    if norm is None or norm.op_type != "BatchNormalization" or attribute(norm, "training_mode", 0):
        return False
    values = [graph.constant_input(norm, index) for index in (1, 2, 3, 4)]
    gamma, beta, mean, var = (None if value is None else value.astype(np.float64) for value in values)
    weight, bias = graph.constant_input(node, 1), graph.constant_input(node, 2)
    if gamma is None or beta is None or mean is None or var is None or weight is None:
        return False
    if (len(node.input) > 2 and (bias is None or bias.shape != gamma.shape)) or attribute(node, "group", 1) != 1:
        return False
    if node.op_type in ("Gemm", "MatMul"):
        out = attribute(node, "transB", 0) ^ 1  # the axis of the weight that counts outputs
        plain = attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0 and weight.ndim == 2
        if not plain or len(graph.shape(node.output[0]) or ()) != 2:
            return False
    else:
        out = 1 if node.op_type == "ConvTranspose" else 0
    scale = gamma / np.sqrt(var + attribute(norm, "epsilon", 1e-5))
    shift = beta + scale * ((0 if bias is None else bias.astype(np.float64)) - mean)
    scale = scale.reshape([-1 if axis == out else 1 for axis in range(weight.ndim)])
    inputs = node.input[0], graph.constant(weight * scale), graph.constant(shift)
    op = "Gemm" if node.op_type == "MatMul" else node.op_type
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    graph.replace(norm.output[0], graph.add(op, *inputs, **attributes))
    return True


def name_batch(graph: Graph, node: NodeProto) -> bool:
    """Reshape of [N, ...] to [-1, ...] -> to [0, ...], where the rest has as many elements.

    -1 is a size that nobody knows, 0 the input's own. onnxruntime fuses an addition with a Conv only where it can tell
    that both batches are the same.
    """
    shape = graph.constant_input(node, 1) if node.op_type == "Reshape" else None
    if shape is None or len(shape) < 2 or shape[0] != -1 or (shape[1:] < 1).any():
        return False
    source = graph.shape(node.input[0])
    sizes = known(source, len(source)) if source else None
    if sizes is None or np.prod(sizes) != np.prod(shape[1:]):
        return False
    graph.replace(node.output[0], graph.add("Reshape", node.input[0], graph.integers(0, *map(int, shape[1:]))))
    return True


def permute_gemm(graph: Graph, node: NodeProto) -> bool:
    """Gemm or MatMul -> activations -> Reshape -> Transpose: no Transpose, but the weights' columns in its order."""
    perm = attribute(node, "perm", []) if node.op_type == "Transpose" else []
    reshape = _behind(graph, node, ("Reshape",))
    shape = None if reshape is None else graph.constant_input(reshape, 1)
    if reshape is None or shape is None or len(perm) != len(shape) or perm[0] != 0:
        return False
    if len(shape) < 2 or shape[0] not in (0, -1) or (shape[1:] < 1).any():
        return False
    tail: list[NodeProto] = []
    before = _behind(graph, reshape, (*ACTIVATIONS, "Gemm", "MatMul"))
    while before is not None and before.op_type in ACTIVATIONS:
        if any(name and graph.constants.get(name) is None for name in before.input[1:]):
            return False
        tail.insert(0, before)
        before = _behind(graph, before, (*ACTIVATIONS, "Gemm", "MatMul"))
    if before is None or len(graph.shape(before.output[0]) or ()) != 2:
        return False
    weight, bias = graph.constant_input(before, 1), graph.constant_input(before, 2)
    if weight is None or weight.ndim != 2 or (len(before.input) > 2 and bias is None):
        return False
    axis = 1 - attribute(before, "transB", 0)
    if weight.shape[axis] != np.prod(shape[1:]):
        return False
    sizes = [int(size) for size in shape[1:]]
    order = np.arange(weight.shape[axis]).reshape(sizes).transpose([i - 1 for i in perm[1:]]).ravel()
    inputs = [before.input[0], graph.constant(np.take(weight, order, axis))]
    if bias is not None:
        inputs.append(graph.constant(np.broadcast_to(bias, (*bias.shape[:-1], len(order)))[..., order]))
    y = graph.like(before, *inputs)
    for activation in tail:
        y = graph.like(activation, y)
    made = [int(shape[0]), *(sizes[i - 1] for i in perm[1:])]
    graph.replace(node.output[0], graph.add("Reshape", y, graph.integers(*made)))
    return True


def _behind(graph: Graph, node: NodeProto, operators: tuple[str, ...]) -> NodeProto | None:
    """The node of these operators that makes the first input of `node`, which alone reads it."""
    before = graph.producer(node.input[0])
    if before is None or before.op_type not in operators or graph.only_consumer(node.input[0]) is not node:
        return None
    return before
