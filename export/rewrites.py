"""Exact rewrites of a generator's graph into one that onnxruntime computes faster on a processor.

onnxruntime keeps convolutions in a layout of blocks of 8 or 16 channels (NCHWc), with a following addition and
activation in the same pass, as long as all between them can stay in it. A rewrite takes a graph and a node, and
rewrites what is around the node if that is of its pattern; if not it leaves the graph alone and returns False.
Constants are computed in float64, so that results differ by the rounding of float32 alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from onnx import NodeProto, helper

from edgegan.export.graph import Array, Graph, attribute, known
from edgegan.export.phases import (
    Layer,
    Layout,
    Phase,
    at_once,
    behind,
    by_phase,
    by_rows,
    plain,
    strided,
    transposed,
    upsampled,
)
from edgegan.export.simplify import (
    ACTIVATIONS,
    fold_batch_norm,
    fold_constants,
    name_batch,
    permute_gemm,
    respell_resize,
)
from edgegan.export.winograd import winograd

Rewrite = Callable[[Graph, NodeProto], bool]


def lift_resize(graph: Graph, node: NodeProto) -> bool:
    """Nearest Resize -> elementwise or 1x1 Conv: the other way round, on fewer pixels.

    f(x[i]) for each pixel i alone is the same before pixels are repeated as after.
    """
    if node.op_type not in ACTIVATIONS and not _pointwise(graph, node):
        return False
    resize = graph.producer(node.input[0])
    if resize is None or resize.op_type != "Resize" or attribute(resize, "mode", "nearest") != "nearest":
        return False
    if attribute(resize, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return False
    scales = graph.constant_input(resize, 2)
    if scales is None or len(scales) != 4 or tuple(scales[:2]) != (1, 1) or (scales < 1).any():
        return False
    graph.replace(node.output[0], graph.like(resize, graph.like(node, resize.input[0])))
    return True


def upsampled_conv(graph: Graph, node: NodeProto, layout: Layout) -> bool:
    """Nearest Resize by s -> Conv: s x s smaller Convs on the small image, whose pixels interleave.

    Where K taps read only ceil of K / s pixels, their weights are summed: 4 of 9 multiplications for 3x3 and s = 2.
    """
    resize = graph.producer(node.input[0]) if node.op_type == "Conv" else None
    scale = _upsampling(graph, resize) if resize is not None else None
    conv = _plain_conv(graph, node)
    if resize is None or scale is None or conv is None:
        return False
    weight, bias, pads, (height, width) = conv
    if [a + b for a, b in zip(pads[:2], pads[2:], strict=True)] != [k - 1 for k in weight.shape[2:]]:
        return False  # the output is of another size than the input
    tail = _tail(graph, node)
    size = height // scale, width // scale
    rows, columns = (upsampled(k, pad, scale) for k, pad in zip(weight.shape[2:], pads[:2], strict=True))
    layer = Layer(resize.input[0], size, weight, bias, tail, (height, width))
    return _drawn(graph, layer, layout, rows, columns, _end(node, tail))


def transposed_conv(graph: Graph, node: NodeProto, layout: Layout) -> bool:
    """ConvTranspose of stride s -> s x s Convs, whose pixels interleave; of stride 1 -> Conv.

    onnxruntime computes a ConvTranspose outside the blocked layout and without its activation.
    """
    if (
        node.op_type != "ConvTranspose"
        or attribute(node, "group", 1) != 1
        or attribute(node, "auto_pad", "NOTSET") != "NOTSET"
    ):
        return False
    weight, bias = graph.constant_input(node, 1), graph.constant_input(node, 2)
    source, target = known(graph.shape(node.input[0]), 4), known(graph.shape(node.output[0]), 4)
    strides, pads = attribute(node, "strides", [1, 1]), attribute(node, "pads", [0] * 4)
    if (
        weight is None
        or source is None
        or target is None
        or strides[0] != strides[1]
        or attribute(node, "output_shape", 0)
    ):
        return False
    if strides[0] == 1 and layout is not at_once:  # nothing interleaves
        return False
    if attribute(node, "dilations", [1, 1]) != [1, 1] or (len(node.input) > 2 and bias is None):
        return False
    tail = _tail(graph, node)
    rows, columns = (transposed(k, pad, strides[0]) for k, pad in zip(weight.shape[2:], pads[:2], strict=True))
    layer = Layer(node.input[0], (source[1], source[2]), weight.swapaxes(0, 1), bias, tail, (target[1], target[2]))
    return _drawn(graph, layer, layout, rows, columns, _end(node, tail))


def plain_conv(graph: Graph, node: NodeProto, layout: Layout) -> bool:
    """Conv of stride 1 -> the same in another layout."""
    conv = _plain_conv(graph, node)
    if conv is None:
        return False
    weight, bias, pads, size = conv
    tail = _tail(graph, node)
    height, width = (n + a + b - k + 1 for n, a, b, k in zip(size, pads[:2], pads[2:], weight.shape[2:], strict=True))
    rows, columns = (plain(k, pad) for k, pad in zip(weight.shape[2:], pads[:2], strict=True))
    layer = Layer(node.input[0], size, weight, bias, tail, (height, width))
    return _drawn(graph, layer, layout, rows, columns, _end(node, tail))


def few_outputs(graph: Graph, node: NodeProto, scale: int, blocked: bool) -> bool:
    """Conv to 1 or 3 channels -> Conv of stride s to s x s times as many, and DepthToSpace.

    The blocked layout computes 16 channels anyway. A window of K + s - 1 holds those of s outputs. `blocked`: together
    with `blocked_activation`, which takes the padding away that large windows are slow at.
    """
    conv = _plain_conv(graph, node)
    if conv is None:
        return False
    weight, bias, pads, size = conv
    drawn = [n + a + b - k + 1 for n, a, b, k in zip(size, pads[:2], pads[2:], weight.shape[2:], strict=True)]
    if len(weight) > 4 or any(n % scale for n in drawn):
        return False
    if blocked:
        before, output = graph.producer(node.input[0]), node.output[0]
        if before is None or not blocked_activation(graph, before):
            return False
        node = next(item for item in graph.nodes if output in item.output)
        pads = attribute(node, "pads", [0] * 4)
    tail = _tail(graph, node)
    rows, columns = (strided(k, scale) for k in weight.shape[2:])
    kernel = np.einsum("aik,bjl,ockl->abocij", rows, columns, weight.astype(np.float64))
    inputs = [node.input[0], graph.constant(kernel.reshape(-1, *kernel.shape[3:]))]
    if bias is not None:
        inputs.append(graph.constant(np.tile(bias, scale**2)))
    y = graph.add("Conv", *inputs, kernel_shape=kernel.shape[4:], pads=pads, strides=[scale, scale])
    y = graph.add("DepthToSpace", behind(graph, y, tail), blocksize=scale, mode="DCR")
    graph.replace(_end(node, tail), y)
    return True


def blocked_activation(graph: Graph, node: NodeProto) -> bool:
    """LeakyRelu that follows no Conv -> a depthwise 1x1 Conv by 1 before it, which it fuses with.

    onnxruntime has no LeakyRelu of its own in the blocked layout. If the only reader is a padded Conv, the padding
    moves into the new one, since LeakyRelu(0) = 0: a Conv without padding is faster.
    """
    shape = graph.shape(node.output[0]) if node.op_type == "LeakyRelu" else None
    channels = shape[1] if shape and len(shape) == 4 else None
    before = graph.producer(node.input[0])
    if channels is None or before is None:
        return False
    if before.op_type in ("Conv", "ConvTranspose") and graph.only_consumer(node.input[0]) is node:
        return False
    readers = graph.consumers(node.output[0])
    if not any(reader.op_type == "Conv" for reader in readers):
        return False
    ones = graph.constant(np.ones((channels, 1, 1, 1)))
    reader = graph.only_consumer(node.output[0])
    conv = _dense_conv(graph, reader, any_stride=True) if reader is not None else None
    pads = conv[2] if conv else [0] * 4
    y = graph.add("Conv", node.input[0], ones, kernel_shape=[1, 1], group=channels, pads=pads)
    y = graph.like(node, y)
    if reader is not None and conv:
        attributes = {item.name: helper.get_attribute_value(item) for item in reader.attribute}
        made = graph.add("Conv", y, *reader.input[1:], **(attributes | {"pads": [0] * 4}))
        graph.replace(reader.output[0], made)
    else:
        graph.replace(node.output[0], y)
    return True


@dataclass(frozen=True)
class Rule:
    """A rewrite and what it is called in reports."""

    name: str
    rewrite: Rewrite
    rounds: bool = False  # more than a sum in another order does: taken only where it is measured that it may


# The one with the fewest multiplications is the first.
_LAYOUTS = {"by phase": by_phase, "by rows": by_rows, "at once": at_once}
# Taken wherever they match: they leave less work, or tell what the others need to know.
ALWAYS = (
    Rule("fold constants", fold_constants),
    Rule("respell resize", respell_resize),
    Rule("fold batch norm", fold_batch_norm),
    Rule("name batch", name_batch),
    Rule("lift resize", lift_resize),
)
# Of each line a node gets the fastest, if that is faster than none; lines in the order in which they are tried.
MEASURED = (
    tuple(Rule(f"transposed conv {name}", partial(transposed_conv, layout=way)) for name, way in _LAYOUTS.items()),
    tuple(Rule(f"upsampled conv {name}", partial(upsampled_conv, layout=way)) for name, way in _LAYOUTS.items()),
    tuple(
        Rule(
            f"few outputs {s}x{s}{' with blocked activation' * blocked}", partial(few_outputs, scale=s, blocked=blocked)
        )
        for s in (4, 2)
        for blocked in (True, False)
    ),
    (Rule("blocked activation", blocked_activation),),
    # The larger the blocks, the fewer the multiplications, and the larger the file.
    tuple(
        Rule(f"winograd {m}x{n}", partial(plain_conv, layout=partial(winograd, tile=(m, n))), rounds=True)
        for m, n in ((4, 4), (4, 3))
    ),
    (Rule("permute gemm", permute_gemm),),
)


def _drawn(graph: Graph, layer: Layer, layout: Layout, rows: list[Phase], columns: list[Phase], end: str) -> bool:
    y = layout(graph, layer, rows, columns)
    if y is not None:
        graph.replace(end, y)
    return y is not None


def _pointwise(graph: Graph, node: NodeProto) -> bool:
    conv = _dense_conv(graph, node)
    return conv is not None and conv[0].shape[2:] == (1, 1) and not any(conv[2])


def _plain_conv(graph: Graph, node: NodeProto) -> tuple[Array, Array | None, list[int], tuple[int, int]] | None:
    """Weight, bias, pads and the input's height and width of a dense 2-D Conv with constant weights and stride 1.

    None where the sizes are free, as those of a model that translates are.
    """
    conv, size = _dense_conv(graph, node), known(graph.shape(node.input[0]), 4)
    return None if conv is None or size is None else (*conv, (size[1], size[2]))


def _dense_conv(
    graph: Graph, node: NodeProto, any_stride: bool = False
) -> tuple[Array, Array | None, list[int]] | None:
    """Weight, bias and pads of a dense 2-D Conv with constant weights and stride 1."""
    if node.op_type != "Conv" or attribute(node, "auto_pad", "NOTSET") != "NOTSET" or attribute(node, "group", 1) != 1:
        return None
    weight, bias = graph.constant_input(node, 1), graph.constant_input(node, 2)
    if weight is None or weight.ndim != 4 or (len(node.input) > 2 and bias is None):
        return None
    if attribute(node, "dilations", [1, 1]) != [1, 1] or not (
        any_stride or attribute(node, "strides", [1, 1]) == [1, 1]
    ):
        return None
    return weight, bias, list(attribute(node, "pads", [0] * 4))


def _upsampling(graph: Graph, node: NodeProto) -> int | None:
    """s of a Resize that repeats each pixel s x s times, else None."""
    mode = [
        attribute(node, "mode", "nearest"),
        attribute(node, "coordinate_transformation_mode", "half_pixel"),
        attribute(node, "nearest_mode", "round_prefer_floor"),
    ]
    scales = graph.constant_input(node, 2) if node.op_type == "Resize" else None
    if scales is None or mode != ["nearest", "asymmetric", "floor"] or len(scales) != 4:
        return None
    s = int(scales[3])
    return s if s > 1 and scales.tolist() == [1, 1, s, s] else None


def _tail(graph: Graph, node: NodeProto) -> list[NodeProto]:
    """The activation behind a node, if nobody else reads the node."""
    after = graph.only_consumer(node.output[0])
    constant = after is not None and all(name in graph.constants or not name for name in after.input[1:])
    return [after] if after is not None and after.op_type in ACTIVATIONS and constant else []


def _end(node: NodeProto, tail: list[NodeProto]) -> str:
    return str((tail or [node])[-1].output[0])
