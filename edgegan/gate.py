"""The gate: what a model file is, from its bytes alone, before onnxruntime sees them.

onnxruntime reads a model as a program that it trusts: a few hundred bytes can make it open other files, fill the memory
or never finish. `check` walks the bytes once, within bounds, and lets through what a generator network needs and
nothing else: operators of an allow-list, in one graph, whose every shape is known and whose cost for one image is
below the limits here. docs/security.md says what that promises.

It knows ONNX, not edgegan: that a graph is the one which its metadata describes is checked by session.py.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from edgegan import _protobuf as pb
from edgegan._protobuf import Fields, MalformedError, Message, Reader
from edgegan._shapes import (
    BATCH,
    BOOL,
    DOUBLE,
    DTYPES,
    FLOAT,
    FLOAT16,
    INT8,
    INT32,
    INT64,
    MAX_KNOWN,
    MAX_RANK,
    MAX_SIZE,
    RULES,
    UINT8,
    Node,
    Value,
    elements,
    infer,
    per_image,
    shown,
)
from edgegan.errors import ModelError, printable
from edgegan.spec import MAX_JSON_BYTES, METADATA_KEY, Shape

IR_VERSIONS = (4, 13)  # 4: initializers need not be inputs; the last is what onnx 1.20 and later write
OPSETS = (13, 23)  # the shape rules are those of these versions
MAX_NODES = 4096  # ten times a large generator's; onnxruntime's optimizers take time for each: half a second for these
MAX_INITIALIZERS = 8192  # two for each node, a weight and a bias
MAX_PORTS = 128  # inputs, and outputs: the latent, the label, psi and 64 noises, with room
MAX_METADATA = 256  # entries
MAX_NAME_BYTES = 1024  # of a tensor, node, attribute or domain: exporters write the path of a module into it
MAX_NUMBERS = 1024  # in one attribute
MAX_ELEMENTS = 2**27  # of one tensor for one image: 512 MiB of float32, a picture of 6,000 x 6,000
MAX_ACTIVATION_BYTES = 2**33  # of all tensors of one image, if none were freed
MAX_MULTIPLY_ADDS = 2**39  # for one image: some ten seconds of a fast core
# What onnxruntime computes or copies while it loads: constants made from constants, and weights packed once for each
# node that uses them. int8 weights quadruple when they are made float, and may then be transposed.
MAX_LOADED_BYTES = 2**25  # and 8 bytes for each byte of weights
MAX_LOADED_WORK = 2**26  # multiply-adds, and 64 for each byte of weights
DEFAULT_SIDE = 256  # what a free dimension other than the batch counts as: the H and W of an image to be translated
SMALL_SIDE = 64  # the same for a network too heavy for that, which takes pictures in tiles

_ATTRIBUTE_TYPES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}  # AttributeProto.type -> field
_TYPED_DATA = {  # field of TensorProto -> the element types that it may hold
    "float_data": (FLOAT,),
    "int32_data": (INT32, INT8, UINT8, BOOL, FLOAT16),
    "int64_data": (INT64,),
    "double_data": (DOUBLE,),
}


@dataclass(frozen=True)
class Cost:
    """What one image takes."""

    multiply_adds: int
    activation_bytes: int  # of every tensor that is computed, if none were freed
    largest: int  # elements of the largest of them, or of a kernel's scratch
    peak_bytes: int  # of those alive at once at the worst, each freed after its last reader; inputs not counted


@dataclass(frozen=True)
class Graph:
    """What a file holds. Inputs and outputs are as in `ModelSpec`: name -> (NumPy dtype name, shape)."""

    inputs: dict[str, tuple[str, Shape]]  # a free dimension is its name, "" if it has none
    outputs: dict[str, tuple[str, Shape]]
    ir_version: int
    opset: int
    metadata: str | None  # the text of the key "edgegan"
    nodes: int
    weight_bytes: int
    cost: Cost  # with free dimensions other than the batch as DEFAULT_SIDE, or SMALL_SIDE
    _parsed: "_Parsed" = field(repr=False)

    def cost_of(self, shapes: Mapping[str, Sequence[int]]) -> Cost:
        """The cost of one image where inputs have these shapes, by name; N, the first size, may be any.

        To be asked before a graph with other free dimensions than N runs at a size: only then is it known that every
        tensor has elements and is not too large. Raises ModelError, without the file's name.
        """
        return _cost(self._parsed, shapes)


@dataclass(frozen=True)
class _Port:
    """An input, an output or a value_info: a dimension is a size, or a name where it is free."""

    name: str
    dtype: int
    shape: Shape


@dataclass(frozen=True)
class _Parsed:
    """The file without its weights."""

    nodes: list[Node]
    constants: dict[str, Value]
    inputs: list[_Port]
    outputs: list[_Port]
    declared: list[_Port]  # shapes of values in between
    weight_bytes: int
    opset: int


def check(data: bytes, source: str, *, small: bool = False) -> Graph:
    """What the file called `source` holds. Raises ModelError unless it passes the gate.

    small: it may pass with free dimensions as SMALL_SIDE alone; for those who ask `Graph.cost_of` before each size.
    """
    try:
        if data[4:8] == b"ORTM":  # onnxruntime would take this for its own format, whatever else it is
            raise MalformedError("it is in onnxruntime's own format")
        return _Walk(small).model(memoryview(data))
    except MalformedError as error:
        advice = "give an .onnx file that edgegan-export wrote"
        raise ModelError(f"{source} is not an ONNX model: {error}; {advice}") from None
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from None


def _text(data: memoryview | None, what: str, limit: int = MAX_JSON_BYTES) -> str:
    """A string field, absent or not."""
    if data is None:
        return ""
    if len(data) > limit:
        raise ModelError(f"{what} has {len(data)} bytes; valid: at most {limit}")
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise ModelError(f"{what} is not valid UTF-8") from None


def _name(data: memoryview | None, what: str) -> str:
    """A string field that names something: short, and safe to show."""
    text = _text(data, what, MAX_NAME_BYTES)
    if not text.isprintable():
        raise ModelError(f"{what} is {_quoted(text)}; valid: printable characters")
    return text


def _quoted(name: str) -> str:
    return f"'{printable(name)[:80]}'"


def _few(fields: Fields, name: str, limit: int, what: str) -> list[Any]:
    found: list[Any] = fields.get(name, [])
    if len(found) > limit:
        raise ModelError(f"it has {len(found)} {what}; valid: at most {limit}")
    return found


class _Walk:
    """One pass over a file: from protobuf messages to `Node` and `Value`."""

    def __init__(self, small: bool) -> None:
        self._reader = Reader()
        self._small = small

    def _read(self, data: memoryview, message: Message) -> Fields:
        return self._reader.read(data, message)

    def model(self, data: memoryview) -> Graph:
        fields = self._read(data, pb.MODEL)
        if "graph" not in fields:
            raise MalformedError("it has no graph")
        for name in ("producer_name", "producer_version", "domain", "doc_string"):
            _text(fields.get(name), f"its {name}")
        ir_version = fields.get("ir_version", 0)
        if not IR_VERSIONS[0] <= ir_version <= IR_VERSIONS[1]:
            raise ModelError(f"its IR version is {ir_version}; valid: {IR_VERSIONS[0]} to {IR_VERSIONS[1]}")
        opset = self._opset(fields)
        metadata = self._metadata(fields)
        parsed = self._graph(self._read(fields["graph"], pb.GRAPH), opset)
        return Graph(
            inputs={port.name: (DTYPES[port.dtype][0], port.shape) for port in parsed.inputs},
            outputs={port.name: (DTYPES[port.dtype][0], port.shape) for port in parsed.outputs},
            ir_version=ir_version,
            opset=opset,
            metadata=metadata.get(METADATA_KEY),
            nodes=len(parsed.nodes),
            weight_bytes=parsed.weight_bytes,
            cost=self._cost(parsed),
            _parsed=parsed,
        )

    def _cost(self, parsed: _Parsed) -> Cost:
        try:
            return _cost(parsed, {})
        except ModelError:
            if self._small:
                with suppress(ModelError):
                    return _cost(parsed, {}, SMALL_SIDE)
            raise

    def _opset(self, fields: Fields) -> int:
        """The version of ONNX's own operators. Other domains may be declared, as tools do, but not used."""
        versions = []
        for entry in _few(fields, "opset_import", 64, "operator sets"):
            found = self._read(entry, pb.OPERATOR_SET)
            if _name(found.get("domain"), "the domain of an operator set") in ("", "ai.onnx"):
                versions.append(found.get("version", 0))
        if len(versions) != 1 or not OPSETS[0] <= versions[0] <= OPSETS[1]:
            shown_ = " and ".join(map(str, versions[:4])) or "missing"
            raise ModelError(f"its operator set version is {shown_}; valid: one, {OPSETS[0]} to {OPSETS[1]}")
        return int(versions[0])

    def _metadata(self, fields: Fields) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry in _few(fields, "metadata_props", MAX_METADATA, "entries of metadata"):
            pair = self._read(entry, pb.ENTRY)
            key = _text(pair.get("key"), "the key of its metadata", MAX_NAME_BYTES)
            if key in found or key == "ort_config":  # the latter may set onnxruntime's options
                raise ModelError(f"its metadata has the key {_quoted(key)} twice, or it is not allowed")
            what = f"its {METADATA_KEY} metadata" if key == METADATA_KEY else "its metadata"
            found[key] = _text(pair.get("value"), what)
        return found

    def _graph(self, graph: Fields, opset: int) -> _Parsed:
        _name(graph.get("name"), "the graph's name")
        constants: dict[str, Value] = {}
        weight_bytes = 0
        for entry in _few(graph, "initializer", MAX_INITIALIZERS, "initializers"):
            name, value, size = self._tensor(entry)
            if not name or name in constants:
                raise ModelError(f"two initializers are called {_quoted(name)}, or one has no name")
            constants[name] = value
            weight_bytes += size
        nodes = []
        for entry in _few(graph, "node", MAX_NODES, "nodes"):
            node, size = self._node(self._read(entry, pb.NODE))
            nodes.append(node)
            weight_bytes += size
        ports = {
            kind: [self._port(entry, what) for entry in _few(graph, kind, limit, what + "s")]
            for kind, what, limit in (
                ("input", "input", MAX_PORTS),
                ("output", "output", MAX_PORTS),
                ("value_info", "value", MAX_NODES + MAX_INITIALIZERS),
            )
        }
        if not ports["output"]:
            raise ModelError("it has no output")
        return _Parsed(nodes, constants, ports["input"], ports["output"], ports["value_info"], weight_bytes, opset)

    def _node(self, fields: Fields) -> tuple[Node, int]:
        name = _name(fields.get("name"), "a node's name")
        op = _name(fields.get("op_type"), "a node's operator")
        domain = _name(fields.get("domain"), "a node's domain")
        label = f"node {_quoted(name)}"
        if domain not in ("", "ai.onnx"):
            raise ModelError(f"{label} is of the domain {_quoted(domain)}; valid: ONNX's own operators")
        if op not in RULES:
            raise ModelError(f"{label} is the operator {_quoted(op)}, which is not one of the {len(RULES)} allowed")
        attributes: dict[str, Any] = {}
        weight_bytes = 0
        for entry in fields.get("attribute", ()):
            key, value, size = self._attribute(entry, label)
            if key in attributes:
                raise ModelError(f"{label} has the attribute {_quoted(key)} twice")
            attributes[key] = value
            weight_bytes += size
        inputs = tuple(_name(item, f"an input's name of {label}") for item in fields.get("input", ()))
        outputs = tuple(_name(item, f"an output's name of {label}") for item in fields.get("output", ()))
        return Node(op, name, inputs, outputs, attributes), weight_bytes

    def _attribute(self, data: memoryview, label: str) -> tuple[str, Any, int]:
        fields = self._read(data, pb.ATTRIBUTE)
        name = _name(fields.get("name"), f"an attribute's name of {label}")
        kind = _ATTRIBUTE_TYPES.get(fields.get("type", 0))
        values = fields.keys() - {"name", "type", "doc_string"}
        if kind is None or not values <= {kind}:
            raise ModelError(f"{label} has an attribute {_quoted(name)} whose value is not of its type")
        value = fields.get(kind)
        if kind == "t":
            if value is None:
                raise ModelError(f"{label} has an attribute {_quoted(name)} without its tensor")
            _, tensor, size = self._tensor(value)
            return name, tensor, size
        if kind == "s":
            value = _name(value, f"the attribute {_quoted(name)} of {label}")
        elif kind in ("ints", "floats"):
            value = _few(fields, kind, MAX_NUMBERS, f"numbers in the attribute {_quoted(name)} of {label}")
        elif value is None:  # proto3 writers leave out a zero
            value = 0 if kind == "i" else 0.0
        return name, value, 0

    def _tensor(self, data: memoryview) -> tuple[str, Value, int]:
        """Name, value and bytes of a tensor, whose data must be as long as its dimensions say."""
        fields = self._read(data, pb.TENSOR)
        name = _name(fields.get("name"), "a tensor's name")
        label = f"tensor {_quoted(name)}"
        shape: tuple[int, ...] = tuple(_few(fields, "dims", MAX_RANK, f"dimensions of {label}"))
        dtype = fields.get("data_type", 0)
        if dtype not in DTYPES:
            raise ModelError(f"{label} has elements of type {dtype}; valid: {', '.join(map(str, DTYPES))}")
        if fields.get("data_location", 0):
            raise ModelError(
                "it has external data (weights in other files), which a model file must not have; export it with "
                "external_data=False, or put them in:  onnx.save(onnx.load(OLD), NEW)"
            )
        empty = shape == (0,)
        if not empty and not all(1 <= size <= MAX_SIZE for size in shape):
            raise ModelError(f"{label} has the shape {list(shape)}; valid: whole numbers from 1")
        count, size = math.prod(shape), DTYPES[dtype][1]
        parts = fields.keys() & {"raw_data", *_TYPED_DATA}
        if len(parts) > 1:
            raise ModelError(f"{label} has its data twice")
        kind = parts.pop() if parts else "raw_data"
        stored: memoryview = fields.get(kind, memoryview(b""))
        fits = kind == "raw_data" or dtype in _TYPED_DATA[kind]
        if kind in ("int32_data", "int64_data"):
            fits = fits and pb.count_integers(stored) == count
        else:
            fits = fits and len(stored) == count * size
        if not fits:
            raise ModelError(f"{label} has {len(stored)} bytes of {kind}, which are not {list(shape)} of its type")
        return name, Value(dtype, shape, _elements(stored, kind, dtype, count), constant=True), count * size

    def _port(self, data: memoryview, what: str) -> _Port:
        fields = self._read(data, pb.VALUE_INFO)
        name = _name(fields.get("name"), f"the name of an {what}")
        label = f"its {what} {_quoted(name)}"
        type_ = self._read(fields.get("type", memoryview(b"")), pb.TYPE)
        if not name or "tensor_type" not in type_:
            raise ModelError(f"{label} is not a named tensor")
        tensor = self._read(type_["tensor_type"], pb.TENSOR_TYPE)
        dtype = tensor.get("elem_type", 0)
        if dtype not in DTYPES:
            raise ModelError(f"{label} has elements of type {dtype}; valid: {', '.join(map(str, DTYPES))}")
        if "shape" not in tensor:
            raise ModelError(f"{label} has no shape")
        sizes: list[int | str] = []
        dims = _few(self._read(tensor["shape"], pb.SHAPE), "dim", MAX_RANK, f"dimensions of {label}")
        for dim in (self._read(entry, pb.DIMENSION) for entry in dims):
            if "dim_value" in dim and "dim_param" in dim:
                raise ModelError(f"{label} has a dimension that is both fixed and free")
            if "dim_value" in dim and not 1 <= dim["dim_value"] <= MAX_SIZE:
                raise ModelError(f"{label} has a dimension of {dim['dim_value']}; valid: 1 to {MAX_SIZE}")
            sizes.append(dim.get("dim_value", _name(dim.get("dim_param"), f"the name of a dimension of {label}")))
        return _Port(name, dtype, tuple(sizes))


def _elements(stored: memoryview, kind: str, dtype: int, count: int) -> tuple[Any, ...] | None:
    """The elements of a short tensor of a type that shapes are made of."""
    if count > MAX_KNOWN or dtype not in (FLOAT, INT32, INT64, BOOL):
        return None
    if kind in ("int32_data", "int64_data"):
        return tuple(pb.integers(stored))
    letter = {FLOAT: "f", INT32: "i", INT64: "q", BOOL: "B"}[dtype]
    return struct.unpack(f"<{count}{letter}", stored)


def _cost(parsed: _Parsed, shapes: Mapping[str, Sequence[int]], side: int = DEFAULT_SIDE) -> Cost:
    """Walk the graph from its inputs to its outputs, with N as BATCH. Raises ModelError."""
    values = dict(parsed.constants)
    batches = {port.shape[0] for port in parsed.inputs if port.shape and isinstance(port.shape[0], str)} - {""}
    for port in parsed.inputs:
        if port.name in values:
            raise ModelError(f"its input {_quoted(port.name)} is there twice, or also an initializer")
        wanted = shapes.get(port.name, [side] * len(port.shape))
        if len(wanted) != len(port.shape):
            raise ModelError(f"its input {_quoted(port.name)} has {len(port.shape)} dimensions, not {len(wanted)}")
        shape = tuple(
            size if isinstance(size, int) else BATCH if i == 0 or size in batches else asked
            for i, (size, asked) in enumerate(zip(port.shape, wanted, strict=True))
        )
        if per_image(elements(shape)) > MAX_ELEMENTS:
            limit = f"valid: at most {MAX_ELEMENTS} elements"
            raise ModelError(f"its input {_quoted(port.name)} is {shown(shape)}; {limit}")
        values[port.name] = Value(port.dtype, shape)
    totals = _Totals(parsed)
    for node in parsed.nodes:
        args: list[Value | None] = []
        for name in node.inputs:
            if name and name not in values:
                raise ModelError(f"node {_quoted(node.name)} reads {_quoted(name)}, which nothing before it makes")
            args.append(values[name] if name else None)
        made, work, largest = infer(node, args, parsed.opset)
        totals.add(node, args, made, work, largest)
        for name, value in zip(node.outputs, made, strict=True):
            if name in values:
                raise ModelError(f"{_quoted(name)} is made twice")
            values[name] = value
    computed = {name for node in parsed.nodes for name in node.outputs}
    for port in parsed.outputs:
        if port.name not in computed:
            raise ModelError(f"its output {_quoted(port.name)} is not computed")
    for port in (*parsed.outputs, *parsed.declared):
        if port.name in values:
            _agree(port, values[port.name])
    if len({port.name for port in parsed.outputs}) != len(parsed.outputs):
        raise ModelError("it has an output twice")
    return totals.cost


def _agree(port: _Port, value: Value) -> None:
    """onnxruntime plans its memory by what a file declares, so that must be true."""
    same = port.dtype == value.dtype and len(port.shape) == len(value.shape)
    if not same or not all(isinstance(a, str) or a == b for a, b in zip(port.shape, value.shape, strict=True)):
        found = f"{DTYPES[value.dtype][0]} {shown(value.shape)}"
        declared = f"{DTYPES[port.dtype][0]} {printable(list(port.shape))[:80]}"
        raise ModelError(f"it declares {_quoted(port.name)} as {declared}, but that is {found}")


class _Totals:
    """What the nodes so far come to, held to the limits."""

    def __init__(self, parsed: _Parsed) -> None:
        self.work = self.bytes = self.largest = self.loaded_bytes = self.loaded_work = 0
        self.max_loaded_bytes = MAX_LOADED_BYTES + 8 * parsed.weight_bytes
        self.max_loaded_work = MAX_LOADED_WORK + 64 * parsed.weight_bytes
        self.alive: dict[str, int] = {}  # name -> bytes
        self.alive_bytes = self.peak = 0
        self.last_reader = {name: node for node in parsed.nodes for name in node.inputs}
        self.kept = {port.name for port in parsed.outputs}

    def add(self, node: Node, args: list[Value | None], made: list[Value], work: int, largest: int) -> None:
        size = sum(elements(value.shape) * DTYPES[value.dtype][1] for value in made)
        self.work += work
        self.bytes += size
        self.largest = max(self.largest, largest)
        if made[0].constant and node.op != "Constant":
            self.loaded_work += per_image(work)
            self.loaded_bytes += per_image(size)
        else:  # onnxruntime may pack or transpose a constant anew for each node that reads it
            self._live(node, made, largest)
            read = [arg for arg in args if arg is not None and arg.constant]
            self.loaded_bytes += sum(per_image(elements(arg.shape)) * DTYPES[arg.dtype][1] for arg in read)
        cost = self.cost
        for found, most, what in (
            (largest, MAX_ELEMENTS, "elements in one tensor"),
            (cost.activation_bytes, MAX_ACTIVATION_BYTES, "bytes of activations"),
            (cost.multiply_adds, MAX_MULTIPLY_ADDS, "multiply-adds"),
            (self.loaded_bytes, self.max_loaded_bytes, "bytes of constants computed or packed while loading"),
            (self.loaded_work, self.max_loaded_work, "multiply-adds while loading"),
        ):
            if found > most:
                label = _quoted(node.name or node.outputs[0])
                amount = str(found) if found < BATCH // 2 else "more with every image"
                raise ModelError(f"with node {label} ({node.op}) it needs {amount} {what} for one image; valid: {most}")

    @property
    def cost(self) -> Cost:
        return Cost(per_image(self.work), per_image(self.bytes), self.largest, self.peak)

    def _live(self, node: Node, made: list[Value], largest: int) -> None:
        """What a node adds to what is alive of one image, and what nobody reads after it."""
        sizes = [per_image(elements(value.shape)) for value in made]
        for name, value, size in zip(node.outputs, made, sizes, strict=True):
            self.alive[name] = size * DTYPES[value.dtype][1]
            self.alive_bytes += self.alive[name]
        scratch = 4 * largest if largest > max(sizes) else 0
        self.peak = max(self.peak, self.alive_bytes + scratch)
        for name in {*node.inputs, *node.outputs}:
            if self.last_reader.get(name, node) is node and name not in self.kept:
                self.alive_bytes -= self.alive.pop(name, 0)
