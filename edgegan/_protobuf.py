"""A bounded reader of the protobuf wire format, and the messages of onnx.proto that a model may hold.

It is stricter than protobuf, so that no two readers can understand a file differently: a field that the tables below do
not list, a second value of a field that has one, a wrong wire type and a group are all errors. Weights are neither
copied nor decoded: they stay slices of the file. The tables nest to a fixed depth, so nothing recurses.
"""

import struct
from dataclasses import dataclass, field
from typing import Any

from edgegan.errors import ModelError

MAX_FIELDS = 200_000  # of a whole file, some 30 for each node of an export: bounds the time of the walk

_VARINT, _BYTES, _FIXED32 = 0, 2, 5  # wire types
_CHUNK = 2**20  # bytes
_SIGN, _TWO64 = 2**63, 2**64

Fields = dict[str, Any]  # field name -> int, float or memoryview, or a list of them


class MalformedError(ValueError):
    """The bytes are not a message of the kind that they should be."""


@dataclass(frozen=True)
class Message:
    """A message's fields. `fields`: tag (number * 8 + wire type) -> (name, wire type, repeated)."""

    name: str
    fields: dict[int, tuple[str, int, bool]] = field(repr=False)
    refused: dict[int, str] = field(repr=False)  # field number -> what it would bring in

    def error(self, tag: int) -> Exception:
        """Why this tag is not among `fields`."""
        number = tag >> 3
        if number in self.refused:
            return ModelError(f"it has {self.refused[number]}, which a model file must not have")
        return MalformedError(f"{self.name} has field {number} with wire type {tag & 7}, which is not of ONNX")


def _message(name: str, table: dict[int, str]) -> Message:
    """From field number -> "kind name": the kinds are int, float and bytes, * for repeated, and `no`: refused."""
    fields, refused = {}, {}
    for number, entry in table.items():
        kind, _, label = entry.partition(" ")
        if kind == "no":
            refused[number] = label
            continue
        wire = {"int": _VARINT, "float": _FIXED32, "bytes": _BYTES}[kind.rstrip("*")]
        repeated = kind.endswith("*")
        fields[number << 3 | wire] = (label, wire, repeated)
        if repeated and wire != _BYTES:  # numbers may be packed into one field
            fields[number << 3 | _BYTES] = (label, wire, repeated)
    return Message(name, fields, refused)


MODEL = _message(
    "ModelProto",
    {
        1: "int ir_version",
        2: "bytes producer_name",
        3: "bytes producer_version",
        4: "bytes domain",
        5: "int model_version",
        6: "bytes doc_string",
        7: "bytes graph",
        8: "bytes* opset_import",
        14: "bytes* metadata_props",
        20: "no training information",
        25: "no local functions",
        26: "no device configurations",
    },
)
GRAPH = _message(
    "GraphProto",
    {
        1: "bytes* node",
        2: "bytes name",
        5: "bytes* initializer",
        10: "bytes doc_string",
        11: "bytes* input",
        12: "bytes* output",
        13: "bytes* value_info",
        14: "no quantization annotations",
        15: "no sparse initializers",
        16: "bytes* metadata_props",
    },
)
NODE = _message(
    "NodeProto",
    {
        1: "bytes* input",
        2: "bytes* output",
        3: "bytes name",
        4: "bytes op_type",
        5: "bytes* attribute",
        6: "bytes doc_string",
        7: "bytes domain",
        8: "no function overloads",
        9: "bytes* metadata_props",
        10: "no device configurations",
    },
)
ATTRIBUTE = _message(
    "AttributeProto",
    {
        1: "bytes name",
        2: "float f",
        3: "int i",
        4: "bytes s",
        5: "bytes t",
        6: "no sub-graphs (control flow)",
        7: "float* floats",
        8: "int* ints",
        9: "no attributes of several strings",
        10: "no attributes of several tensors",
        11: "no sub-graphs (control flow)",
        13: "bytes doc_string",
        14: "no attributes that are types",
        15: "no attributes that are types",
        20: "int type",
        21: "no attributes of local functions",
        22: "no sparse tensors",
        23: "no sparse tensors",
    },
)
TENSOR = _message(
    "TensorProto",
    {
        1: "int* dims",
        2: "int data_type",
        3: "no tensors in segments",
        4: "bytes float_data",  # packed numbers: kept as bytes
        5: "bytes int32_data",
        6: "no tensors of strings",
        7: "bytes int64_data",
        8: "bytes name",
        9: "bytes raw_data",
        10: "bytes double_data",
        11: "no tensors of uint64",
        12: "bytes doc_string",
        13: "no external data (weights in other files)",
        14: "int data_location",
        16: "bytes* metadata_props",
    },
)
VALUE_INFO = _message(
    "ValueInfoProto", {1: "bytes name", 2: "bytes type", 3: "bytes doc_string", 4: "bytes* metadata_props"}
)
TYPE = _message(
    "TypeProto",
    {
        1: "bytes tensor_type",
        4: "no values that are sequences",
        5: "no values that are maps",
        6: "bytes denotation",
        7: "no values of opaque type",
        8: "no values that are sparse tensors",
        9: "no values that are optional",
    },
)
TENSOR_TYPE = _message("TypeProto.Tensor", {1: "int elem_type", 2: "bytes shape"})
SHAPE = _message("TensorShapeProto", {1: "bytes* dim"})
DIMENSION = _message("TensorShapeProto.Dimension", {1: "int dim_value", 2: "bytes dim_param", 3: "bytes denotation"})
OPERATOR_SET = _message("OperatorSetIdProto", {1: "bytes domain", 2: "int version"})
ENTRY = _message("StringStringEntryProto", {1: "bytes key", 2: "bytes value"})


class Reader:
    """Reads messages, all of one file, and counts their fields."""

    def __init__(self) -> None:
        self.left = MAX_FIELDS

    def read(self, data: memoryview, message: Message) -> Fields:
        """The fields that are there. Raises MalformedError, or ModelError for what is ONNX but not for us."""
        found: Fields = {}
        fields = message.fields
        at, end = 0, len(data)
        while at < end:
            self._count(1)
            tag, at = (data[at], at + 1) if data[at] < 128 else _varint(data, at)
            if tag not in fields:
                raise message.error(tag)
            name, wire, repeated = fields[tag]
            value: Any
            if tag & 7 == _VARINT:
                value, at = _signed(data, at)
            elif tag & 7 == _FIXED32:
                if end - at < 4:
                    raise MalformedError(f"{message.name} ends within a number")
                (value,) = struct.unpack_from("<f", data, at)
                at += 4
            else:
                length, at = _varint(data, at)
                if length > end - at:
                    raise MalformedError(f"{message.name} has {end - at} bytes left for a field of {length} bytes")
                value = data[at : at + length]
                at += length
                if wire != _BYTES:
                    found.setdefault(name, []).extend(self._packed(value, wire, message))
                    continue
            if repeated:
                found.setdefault(name, []).append(value)
            elif name in found:
                raise MalformedError(f"{message.name} has two values of {name}, which takes one")
            else:
                found[name] = value
        return found

    def _packed(self, data: memoryview, wire: int, message: Message) -> list[Any]:
        if wire == _FIXED32:
            if len(data) % 4:
                raise MalformedError(f"{message.name} ends within a number")
            self._count(len(data) // 4)
            return list(struct.unpack(f"<{len(data) // 4}f", data))
        self._count(len(data))
        return integers(data)

    def _count(self, fields: int) -> None:
        self.left -= fields
        if self.left < 0:
            raise MalformedError(f"it has more than {MAX_FIELDS} fields")


def integers(data: memoryview) -> list[int]:
    """The int64 numbers packed in `data`; for short data."""
    found, at = [], 0
    while at < len(data):
        value, at = _signed(data, at)
        found.append(value)
    return found


def count_integers(data: memoryview) -> int:
    """How many numbers are packed in `data`, without decoding them: each ends with a byte below 128."""
    rest = bytes(range(128, 256))
    return sum(len(bytes(data[at : at + _CHUNK]).translate(None, rest)) for at in range(0, len(data), _CHUNK))


def _signed(data: memoryview, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value if value < _SIGN else value - _TWO64), at


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The unsigned number at `at`, and where it ends."""
    value = shift = 0
    try:
        while shift < 70:
            byte = data[at]
            at += 1
            if byte < 128:
                value |= byte << shift
                if value < _TWO64:
                    return value, at
                break
            value |= (byte & 127) << shift
            shift += 7
    except IndexError:
        pass
    raise MalformedError("a number in it is cut short or too long")
