"""An ONNX graph that is easy to rewrite: nodes in order, constants as arrays, shapes by name."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgegan.spec import ModelSpec

Array = NDArray[Any]
Size = int | None  # of a dimension; None is the batch or another one that is not known
RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_SMALL = 1024  # elements of a constant that may be a shape; larger ones are weights


class Graph:
    """The graph of a model without control flow, whose inputs and outputs stay what they are."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._frame = onnx.ModelProto()
        self._frame.CopyFrom(model)
        graph = self._frame.graph
        self.constants: dict[str, Array] = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        self.nodes: list[NodeProto] = []
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            else:
                self.nodes.append(node)
        self.nodes = [_copied(node) for node in self.nodes]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        self._outputs = {value.name for value in graph.output}
        self._shapes: dict[str, tuple[Size, ...]] = {}
        self._declared: list[onnx.ValueInfoProto] = []
        self._made = 0

    def copy(self) -> "Graph":
        """Another graph that can be rewritten without touching this one. The arrays are shared."""
        other = object.__new__(Graph)
        other.__dict__ = dict(self.__dict__)
        other.constants = dict(self.constants)
        other.nodes = [_copied(node) for node in self.nodes]
        other._shapes = dict(self._shapes)
        return other

    def model(self) -> onnx.ModelProto:
        """The graph as a model, with the metadata of the one that it was made from."""
        made = onnx.ModelProto()
        made.CopyFrom(self._frame)
        made.graph.node.extend(self.nodes)
        made.graph.initializer.extend(_tensor(array, name) for name, array in self.constants.items())
        self._shapes = self._infer()
        made.graph.value_info.extend(self._declared)
        return made

    @property
    def weight_bytes(self) -> int:
        """Bytes of all constants."""
        return sum(array.nbytes for array in self.constants.values())

    def producer(self, name: str) -> NodeProto | None:
        """The node that makes `name`; None for a constant or an input of the graph."""
        return next((node for node in self.nodes if name in node.output), None)

    def consumers(self, name: str) -> list[NodeProto]:
        """The nodes that read `name`, each once."""
        return [node for node in self.nodes if name in node.input]

    def only_consumer(self, name: str) -> NodeProto | None:
        """The node that reads `name`, if one does, once, and nobody outside sees it."""
        found = self.consumers(name)
        alone = len(found) == 1 and list(found[0].input).count(name) == 1 and name not in self._outputs
        return found[0] if alone else None

    def constant_input(self, node: NodeProto, index: int) -> Array | None:
        """The value of an input that is there and constant."""
        return self.constants.get(node.input[index]) if index < len(node.input) else None

    def shape(self, name: str) -> tuple[Size, ...] | None:
        """The sizes of a value, as far as ONNX's shape inference knows them."""
        if name in self.constants:
            return self.constants[name].shape
        if name not in self._shapes:
            self._shapes = self._infer()
        return self._shapes.get(name)

    def _infer(self) -> dict[str, tuple[Size, ...]]:
        """All shapes. Weights are replaced by inputs of their shape: inference would copy them."""
        bare = onnx.ModelProto()
        bare.CopyFrom(self._frame)
        bare.graph.node.extend(self.nodes)
        for name, array in self.constants.items():
            if array.size <= _SMALL:
                bare.graph.initializer.append(_tensor(array, name))
            else:
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                bare.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
        values = self._inferred(bare)
        while missing := [value for node in self.nodes if (value := self._resized(node, values)) is not None]:
            bare.graph.value_info.extend(missing)
            values = self._inferred(bare)
        resized = {node.output[0] for node in self.nodes if node.op_type == "Resize"}
        self._declared = [value for name, value in values.items() if name in resized]
        return {
            name: tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)
            for name, value in values.items()
            if value.type.tensor_type.HasField("shape")
        }

    @staticmethod
    def _inferred(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        return {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}

    def _resized(self, node: NodeProto, values: dict[str, onnx.ValueInfoProto]) -> onnx.ValueInfoProto | None:
        """The shape of a Resize that leaves the batch alone, where inference lost it: it cannot multiply a name."""
        scales = self.constant_input(node, 2) if node.op_type == "Resize" else None
        if scales is None or scales.size < 1 or scales[0] != 1 or attribute(node, "axes", []):
            return None
        made = onnx.ValueInfoProto()
        made.CopyFrom(values[node.output[0]])
        source, target = (v.type.tensor_type.shape.dim for v in (values[node.input[0]], made))
        batches = {value.type.tensor_type.shape.dim[0].dim_param for value in self._frame.graph.output} - {""}
        if not source or not target or source[0].dim_param not in batches or target[0] == source[0]:
            return None
        target[0].CopyFrom(source[0])
        return made

    def constant(self, array: Array) -> str:
        """A new constant; what was computed in float64 becomes float32 here."""
        name = self._name("constant")
        self.constants[name] = array.astype(np.float32) if array.dtype == np.float64 else array
        return name

    def integers(self, *values: int) -> str:
        """A new constant of int64: a shape, or axes."""
        return self.constant(np.array(values, np.int64))

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A new node with one output, whose name is returned. Its place is found by `replace`."""
        name = self._name(op.lower())
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def like(self, node: NodeProto, *inputs: str) -> str:
        """A new node like `node`, that reads these values in place of its first inputs."""
        made = _copied(node)
        made.name = ""
        made.input[: len(inputs)] = inputs
        made.output[0] = self._name(node.op_type.lower())
        self.nodes.append(made)
        return str(made.output[0])

    def replace(self, old: str, new: str) -> None:
        """Let the value `new` of a node take the name of `old`; drop what nobody reads any more, and sort."""
        for node in self.nodes:
            for index, name in enumerate(node.output):
                if name == old:
                    node.output[index] = self._name("unused")
                elif name == new:
                    node.output[index] = old
            for index, name in enumerate(node.input):
                if name == new:
                    node.input[index] = old
        self._shapes = {}
        self._sweep()
        self._sort()

    def is_output(self, name: str) -> bool:
        """Whether the graph's user sees this value."""
        return name in self._outputs

    def evaluate(self, node: NodeProto) -> Array | None:
        """The one output of a node that reads constants alone, by ONNX's reference; None if that cannot compute it."""
        names = list(dict.fromkeys(name for name in node.input if name))
        port = [onnx.ValueInfoProto(name=node.output[0])]
        alone = helper.make_graph([node], "node", [onnx.ValueInfoProto(name=name) for name in names], port)
        model = helper.make_model(alone, opset_imports=self._frame.opset_import, ir_version=self._frame.ir_version)
        try:
            (value,) = ReferenceEvaluator(model).run(None, {name: self.constants[name] for name in names})
        except Exception:  # it raises what NumPy raises, and its own
            return None
        return np.asarray(value)

    def fix(self, node: NodeProto, value: Array) -> None:
        """Let the output of a node be a constant."""
        self.nodes.remove(node)
        self.constants[node.output[0]] = value
        self._shapes = {}
        self._sweep()

    def _name(self, stem: str) -> str:
        taken = self.constants.keys() | {name for node in self.nodes for name in (*node.input, *node.output)}
        taken |= {value.name for value in self._frame.graph.input} | self._outputs
        while f"{stem}_{self._made}" in taken:
            self._made += 1
        self._made += 1
        return f"{stem}_{self._made - 1}"

    def _sweep(self) -> None:
        while True:
            read = {name for node in self.nodes for name in node.input} | self._outputs
            kept = [node for node in self.nodes if read.intersection(node.output)]
            if len(kept) == len(self.nodes):
                break
            self.nodes = kept
        self.constants = {name: array for name, array in self.constants.items() if name in read}

    def _sort(self) -> None:
        """Producers before consumers, else in the order that was."""
        known = self.constants.keys() | {value.name for value in self._frame.graph.input} | {""}
        waiting, self.nodes = self.nodes, []
        while waiting:
            ready = next(node for node in waiting if known.issuperset(node.input))
            waiting.remove(ready)
            self.nodes.append(ready)
            known |= set(ready.output)


def sized(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """A copy of a model that translates, for sources of the size of training alone: all its shapes can be known.

    A generator's are, but for the batch: it is returned as it is.
    """
    if spec.task == "generate":
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    (source,), (image,) = made.graph.input, made.graph.output
    for port, scale in ((source, 1), (image, spec.scale)):
        for dimension, side in zip(port.type.tensor_type.shape.dim[2:], spec.image_size, strict=True):
            dimension.dim_value = scale * side
    del made.graph.value_info[:]
    return made


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """An attribute's value, str and not bytes, or what it is if it is not there."""
    for item in node.attribute:
        if item.name == name:
            value = helper.get_attribute_value(item)
            return value.decode() if isinstance(value, bytes) else value
    return default


def known(shape: Sequence[Size] | None, rank: int) -> tuple[int, ...] | None:
    """The sizes behind the batch of a shape of this rank, if all are known."""
    if shape is None or len(shape) != rank:
        return None
    sizes = tuple(size for size in shape[1:] if size)
    return sizes if len(sizes) == rank - 1 else None


def _copied(node: NodeProto) -> NodeProto:
    made = NodeProto()
    made.CopyFrom(node)
    return made


def _tensor(array: Array, name: str) -> TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
