"""A feature network's ONNX graph as a torch module that gradients pass through.

Operators are those that classification networks are made of, with the meaning of operator sets 13 to 23 (which the gate
lets through): https://onnx.ai/onnx/operators. Convolution and pooling are of two dimensions. Integers, such as shapes,
are computed on the CPU, wherever the weights are.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import Tensor, nn

from edgegan.errors import ModelError, printable

Attributes = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A node: its operator, and the names of what it reads ("": left out) and makes."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Attributes


class OnnxModule(nn.Module):
    """The graph of a model with one input, frozen: weights are buffers that no state_dict has.

    Raises ModelError, in the name of `source`, for an operator that is not one of OPERATORS.
    """

    def __init__(self, model: onnx.ModelProto, source: str) -> None:
        super().__init__()
        self._source = source
        self._input = model.graph.input[0].name
        self._buffers_of: dict[str, str] = {}  # a name in ONNX -> of the buffer, which must have no dots
        self._integers: dict[str, Tensor] = {}
        for item in model.graph.initializer:
            self._keep(item.name, _tensor(item))
        self._steps: list[Step] = []
        for node in model.graph.node:
            attributes = {item.name: _value(item) for item in node.attribute}
            if node.op_type == "Constant":
                (value,) = attributes.values()
                self._keep(node.output[0], torch.as_tensor(value))
            else:
                self._steps.append(Step(node.op_type, tuple(node.input), node.output[0], attributes))
        self.outputs: list[str] = []
        self.restrict([output.name for output in model.graph.output])

    def _keep(self, name: str, value: Tensor) -> None:
        if value.is_floating_point():
            self._buffers_of[name] = f"constant_{len(self._buffers_of)}"
            self.register_buffer(self._buffers_of[name], value, persistent=False)
        else:
            self._integers[name] = value

    def restrict(self, outputs: Sequence[str]) -> None:
        """Let these values be the outputs, and drop the nodes and weights that they do not need.

        Raises ModelError for an operator or an output of a node that cannot be computed.
        """
        needed, steps = set(outputs), []
        for step in reversed(self._steps):
            if step.output in needed:
                needed.update(step.inputs)
                steps.append(step)
        self.outputs, self._steps = list(outputs), steps[::-1]
        for name in self._buffers_of.keys() - needed:
            delattr(self, self._buffers_of.pop(name))
        known = {self._input, *self._buffers_of, *self._integers, ""}
        for step in self._steps:
            label = f"{self._source}: the node that makes '{printable(step.output)}'"
            if step.op not in OPERATORS:
                raise ModelError(f"{label} is the operator '{printable(step.op)}'; valid: {', '.join(OPERATORS)}")
            if unknown := [name for name in step.inputs if name not in known]:  # a mask of Dropout, say
                raise ModelError(f"{label} reads '{printable(unknown[0])}', which is not the first output of a node")
            known.add(step.output)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The outputs for x, of the shape of the graph's input. Raises what torch does, if it cannot run."""
        found = {step.output: value for step, value, _ in self.steps(x) if step.output in self.outputs}
        return [found[name] for name in self.outputs]

    def steps(self, x: Tensor) -> Iterator[tuple[Step, Tensor, bool]]:
        """Each node in order with what it makes, and whether all that comes later depends on x through that alone."""
        last = {name: step for step in self._steps for name in step.inputs}
        constants = self._integers | {name: self.get_buffer(own) for name, own in self._buffers_of.items()}
        live: dict[str, Tensor] = {self._input: x}
        for step in self._steps:
            args = [constants.get(name, live.get(name)) for name in step.inputs]
            value = OPERATORS[step.op](step.attributes, *args)
            # Freed after its last reader: where no gradient is asked for, a few values are in memory at a time.
            live = {name: kept for name, kept in live.items() if last.get(name) is not step}
            if step.output in last:
                live[step.output] = value
            others = (kept for name, kept in live.items() if name != step.output)
            yield step, value, not any(kept.is_floating_point() for kept in others)


def _value(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _tensor(value)
    return value.decode() if isinstance(value, bytes) else value


def _tensor(item: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(item).copy())  # what protobuf holds cannot be written to


def _sides(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Padding in ONNX's order, axes from first to last, in that of F.pad: from last to first."""
    return [size for pair in zip(reversed(before), reversed(after), strict=True) for size in pair]


@dataclass(frozen=True)
class _Window:
    """Where a kernel is put on a picture: sizes in elements, of H and W."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    before: list[int]  # padding
    after: list[int]
    more: list[int]  # what the last window reaches beyond it, where sizes are rounded up

    @staticmethod
    def of(a: Attributes, x: Tensor, kernel: Sequence[int]) -> "_Window":
        strides, dilations = list(a.get("strides", [1, 1])), list(a.get("dilations", [1, 1]))
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        axes = list(zip(x.shape[2:], strides, spans, strict=True))
        pads, auto = list(a.get("pads", [0] * 4)), a.get("auto_pad", "NOTSET")
        if auto == "VALID":
            pads = [0] * 4
        elif auto != "NOTSET":  # as many places as strides fit into the picture
            total = [max(0, (math.ceil(size / s) - 1) * s + span - size) for size, s, span in axes]
            half, rest = [t // 2 for t in total], [t - t // 2 for t in total]
            pads = half + rest if auto == "SAME_UPPER" else rest + half
        before, after, more = pads[:2], pads[2:], [0, 0]
        if a.get("ceil_mode", 0):
            for axis, (size, s, span) in enumerate(axes):
                padded = size + before[axis] + after[axis]
                start = math.ceil((padded - span) / s) * s
                if start < size + before[axis]:  # a window that starts in the padding behind is left out
                    more[axis] = max(0, start + span - padded)
        return _Window(list(kernel), strides, dilations, before, after, more)

    def padded(self, x: Tensor, value: float) -> Tensor:
        after = [a + b for a, b in zip(self.after, self.more, strict=True)]
        return F.pad(x, _sides(self.before, after), value=value)

    @property
    def pads(self) -> bool:
        return any(self.before + self.after + self.more)


def _conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    window = _Window.of(a, x, weight.shape[2:])
    even = window.before == window.after  # then torch pads by itself, without a copy
    x = x if even else window.padded(x, 0)
    padding = window.before if even else 0
    return F.conv2d(x, weight, bias, window.strides, padding, window.dilations, a.get("group", 1))


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    window = _Window.of(a, x, a["kernel_shape"])
    x = window.padded(x, -math.inf) if window.pads else x
    return F.max_pool2d(x, window.kernel, window.strides, dilation=window.dilations)


def _average_pool(a: Attributes, x: Tensor) -> Tensor:
    window = _Window.of(a, x, a["kernel_shape"])
    if max(window.dilations) > 1:
        raise NotImplementedError("an AveragePool has dilations; valid: 1")
    if not window.pads:
        return F.avg_pool2d(x, window.kernel, window.strides)
    # The mean of those elements that count: the sum over the window, divided by how many do.
    counts = F.pad(torch.ones_like(x[:1, :1]), _sides(window.before, window.after), value=a.get("count_include_pad", 0))
    counts = F.pad(counts, _sides([0, 0], window.more))
    sums, counts = (F.avg_pool2d(y, window.kernel, window.strides) for y in (window.padded(x, 0), counts))
    return sums / counts


def _batch_norm(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    if a.get("training_mode", 0):
        raise NotImplementedError("a BatchNormalization is in training mode; export the network in eval mode")
    return F.batch_norm(x, mean, var, scale, bias, eps=a.get("epsilon", 1e-5))


def _instance_norm(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=a.get("epsilon", 1e-5))


def _clip(a: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return x if low is high is None else x.clamp(low, high)


def _reduce_mean(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    dims = a.get("axes", []) if axes is None else axes.tolist()
    if not dims and a.get("noop_with_empty_axes", 0):
        return x
    return x.mean(dims or list(range(x.dim())), keepdim=bool(a.get("keepdims", 1)))


def _div(a: Attributes, x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _flatten(a: Attributes, x: Tensor) -> Tensor:
    axis = a.get("axis", 1)
    return x.reshape(math.prod(x.shape[: axis if axis >= 0 else axis + x.dim()]), -1)


def _reshape(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    sizes = shape.tolist()
    if not a.get("allowzero", 0):
        sizes = [size or x.shape[axis] for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _squeeze(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(axes.tolist())


def _unsqueeze(a: Attributes, x: Tensor, axes: Tensor) -> Tensor:
    rank = x.dim() + axes.numel()
    for axis in sorted(axis % rank for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _transpose(a: Attributes, x: Tensor) -> Tensor:
    return x.permute(*a.get("perm", range(x.dim())[::-1]))


def _gemm(a: Attributes, x: Tensor, y: Tensor, z: Tensor | None = None) -> Tensor:
    product = a.get("alpha", 1.0) * (x.t() if a.get("transA", 0) else x) @ (y.t() if a.get("transB", 0) else y)
    return product if z is None else product + a.get("beta", 1.0) * z


def _cast(a: Attributes, x: Tensor) -> Tensor:
    return x.to(getattr(torch, helper.tensor_dtype_to_np_dtype(a["to"]).name))


def _shape(a: Attributes, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[a.get("start", 0) : a.get("end", x.dim())])


def _gather(a: Attributes, x: Tensor, places: Tensor) -> Tensor:
    axis = a.get("axis", 0) % x.dim()
    found = x.index_select(axis, (places.flatten() % x.shape[axis]).to(x.device))
    return found.reshape([*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]])


def _pad(a: Attributes, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    sizes, half = pads.tolist(), pads.numel() // 2
    before, after = [0] * x.dim(), [0] * x.dim()
    for i, axis in enumerate(range(x.dim()) if axes is None else axes.tolist()):
        before[axis], after[axis] = sizes[i], sizes[half + i]
    sides = _sides(before, after)
    if (mode := a.get("mode", "constant")) == "constant":
        return F.pad(x, sides, value=0.0 if value is None else value.item())
    if x.dim() != 4 or any(sides[4:]):
        raise NotImplementedError(f"a Pad of mode '{mode}' pads more than H and W of [n, C, H, W]; valid: these alone")
    return F.pad(x, sides[:4], mode={"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode])


def _same(a: Attributes, x: Tensor, *others: Tensor | None) -> Tensor:
    return x


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "Relu": lambda a, x: F.relu(x),
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "PRelu": lambda a, x, slope: torch.where(x < 0, slope * x, x),
    "Sigmoid": lambda a, x: torch.sigmoid(x),
    "Tanh": lambda a, x: torch.tanh(x),
    "HardSigmoid": lambda a, x: (a.get("alpha", 0.2) * x + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda a, x: F.hardswish(x),
    "Clip": _clip,
    "Softmax": lambda a, x: torch.softmax(x, a.get("axis", -1)),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda a, x: x.mean(list(range(2, x.dim())), keepdim=True),
    "ReduceMean": _reduce_mean,
    "Add": lambda a, x, y: x + y,
    "Sub": lambda a, x, y: x - y,
    "Mul": lambda a, x, y: x * y,
    "Div": _div,
    "Gemm": _gemm,
    "MatMul": lambda a, x, y: x @ y,
    "Concat": lambda a, *x: torch.cat(x, a["axis"]),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Pad": _pad,
    "Shape": _shape,
    "Gather": _gather,
    "Cast": _cast,
    "Identity": _same,
    "Dropout": _same,
}
