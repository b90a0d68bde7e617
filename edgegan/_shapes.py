"""The shapes in a graph and what one image costs, from the file alone: what each allowed operator makes of its inputs.

Sizes are exact whole numbers. The batch N is free and stays so: it is computed with as BATCH, a prime that no number of
a file reaches, so c * BATCH can only mean c * N. A size is thus c or c * N with a small c; everything else (N + 1,
N / 2, N * N) is refused, and what holds for one image holds for N of them.

A rule is a function of a `Call` (a node with the values that it reads). It checks whatever a kernel of onnxruntime
might take on trust, such as the length of a bias, and returns the values that the node makes. The elements of short
tensors that shapes are made of are folded along; an operator whose output they decide refuses to guess without them.
"""

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple, NoReturn

import numpy as np

from edgegan.errors import ModelError, printable

BATCH = 2**89 - 1
MAX_RANK = 8
MAX_SIZE = 2**31 - 1  # of one dimension
MAX_KNOWN = 64  # elements of a tensor that is folded along

Shape = tuple[int, ...]

FLOAT, UINT8, INT8, INT32, INT64, BOOL, FLOAT16, DOUBLE = 1, 2, 3, 6, 7, 9, 10, 11
DTYPES = {  # element type -> (NumPy's name, bytes)
    FLOAT: ("float32", 4),
    UINT8: ("uint8", 1),
    INT8: ("int8", 1),
    INT32: ("int32", 4),
    INT64: ("int64", 8),
    BOOL: ("bool", 1),
    FLOAT16: ("float16", 2),
    DOUBLE: ("float64", 8),
}
_INTEGERS = {INT32: 2**31, INT64: 2**63, BOOL: 2}  # those that are folded, and the bound of their elements


class Value(NamedTuple):
    """A tensor: what is known of it before anything runs."""

    dtype: int
    shape: Shape
    data: tuple[Any, ...] | None = None  # the elements, row-major, where few and known; numbers
    constant: bool = False  # does not depend on an input, so that onnxruntime computes it while loading


@dataclass(frozen=True)
class Node:
    """A node of the graph. Attributes are int, float, text, a list of numbers, or a Value."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


def elements(shape: Shape) -> int:
    """How many elements a shape has, with N as BATCH."""
    return math.prod(shape)


def per_image(count: int) -> int:
    """A count for one image: what is the same for every N, and what each image adds. Of N * N it is enormous."""
    return count // BATCH + count % BATCH


def shown(shape: Shape) -> str:
    """A shape for a message: [N, 64, 7, 7]."""
    return "[" + ", ".join(_dimension(size) for size in shape) + "]"


def _dimension(size: int) -> str:
    if abs(size) < BATCH // 2:
        return str(size)
    factor, rest = divmod(size, BATCH)
    return "?" if rest or abs(factor) > MAX_SIZE else "N" if factor == 1 else f"{factor}*N"


@dataclass
class Call:
    """One node, the values that it reads (None: an optional input left out), and what its work comes to."""

    node: Node
    args: list[Value | None]
    opset: int
    work: int | None = None  # multiply-adds; default: one for each element of the output
    scratch: int = 0  # elements that the kernel needs besides

    def fail(self, text: str) -> NoReturn:
        label = printable(self.node.name or next(iter(self.node.outputs), ""))[:80]
        raise ModelError(f"node '{label}' ({self.node.op}): {text}")

    def need(self, holds: object, text: str) -> None:
        """Fail with `text` unless it holds."""
        if not holds:
            self.fail(text)

    def __len__(self) -> int:
        return len(self.args)

    def get(self, index: int) -> Value | None:
        return self.args[index] if index < len(self.args) else None

    def __getitem__(self, index: int) -> Value:
        value = self.get(index)
        if value is None:
            self.fail(f"its input {index} is missing")
        return value

    def known(self, index: int) -> tuple[int, ...]:
        """The elements of an integer vector that decides a shape."""
        value = self[index]
        if value.data is None or value.dtype not in _INTEGERS or len(value.shape) > 1:
            self.fail(f"its input {index} decides a shape, so it must be a constant or computed from sizes")
        return value.data

    def _attribute(self, name: str, kind: type, default: Any) -> Any:
        value = self.node.attributes.get(name, default)
        if value is not default and type(value) is not kind:
            self.fail(f"its attribute '{name}' is of the wrong type")
        return value

    def integer(self, name: str, default: int, low: int = -MAX_RANK, high: int = MAX_RANK) -> int:
        value: int = self._attribute(name, int, default)
        self.need(value == default or low <= value <= high, f"its {name} is {value}; valid: {low} to {high}")
        return value

    def flag(self, name: str, default: int = 0) -> bool:
        return bool(self.integer(name, default, 0, 1))

    def integers(self, name: str) -> list[int] | None:
        value: list[int] | None = self._attribute(name, list, None)
        if value is not None and not all(type(item) is int for item in value):
            self.fail(f"its attribute '{name}' is of the wrong type")
        return value

    def text(self, name: str, default: str, *others: str) -> str:
        value: str = self._attribute(name, str, default)
        valid = (default, *others)
        self.need(value in valid, f"its {name} is '{printable(value)[:40]}'; valid: {', '.join(valid)}")
        return value

    def axis(self, value: int, rank: int) -> int:
        self.need(-rank <= value < rank, f"its axis is {value} of {rank} dimensions")
        return value % rank

    def axes(self, found: Sequence[int] | None, rank: int) -> list[int]:
        """Sorted axes without repetition; all of them if none are given."""
        if found is None:
            return list(range(rank))
        axes = sorted(self.axis(value, rank) for value in found)
        self.need(len(set(axes)) == len(axes), "an axis is given twice")
        return axes

    def broadcast(self, *shapes: Shape) -> Shape:
        result = []
        for sizes in zip_longest(*(shape[::-1] for shape in shapes), fillvalue=1):
            others = {size for size in sizes if size != 1}
            self.need(len(others) <= 1, f"the shapes {', '.join(map(shown, shapes))} do not broadcast")
            result.append(others.pop() if others else 1)
        return tuple(result[::-1])

    def fits_into(self, index: int, shape: Shape) -> None:
        """Fail unless optional input `index` broadcasts to `shape` and no further."""
        value = self.get(index)
        if value is not None and self.broadcast(value.shape, shape) != shape:
            self.fail(f"its input {index} is {shown(value.shape)}, which is not of {shown(shape)}")

    def is_shape(self, index: int, *valid: Shape) -> None:
        """Fail unless optional input `index` has one of these shapes."""
        value = self.get(index)
        if value is not None and value.shape not in valid:
            self.fail(f"its input {index} is {shown(value.shape)}; valid: {' or '.join(map(shown, valid))}")


Rule = Callable[[Call], Value | list[Value]]
RULES: dict[str, tuple[Rule, int, int]] = {}  # operator -> (rule, least number of inputs, most)


def _rule(operators: str, least: int, most: int | None = None) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        for operator in operators.split():
            RULES[operator] = rule, least, least if most is None else most
        return rule

    return add


def infer(node: Node, args: list[Value | None], opset: int) -> tuple[list[Value], int, int]:
    """What a node of an allowed operator makes, its multiply-adds, and its largest tensor's elements, N as BATCH.

    Raises ModelError, without the file's name, that names the node.
    """
    rule, least, most = RULES[node.op]
    call = Call(node, args, opset)
    call.need(least <= len(args) <= most, f"it has {len(args)} inputs; valid: {least} to {most}")
    for index in range(least):
        call[index]
    made = rule(call)
    values = made if isinstance(made, list) else [made]
    call.need(len(node.outputs) == len(values) and all(node.outputs), f"it has {len(node.outputs)} outputs")
    constant = all(arg is None or arg.constant for arg in args)
    for index, value in enumerate(values):
        empty = value.shape == (0,) and value.data == ()  # a vector of no sizes is the shape of a scalar
        call.need(len(value.shape) <= MAX_RANK, f"its output has {len(value.shape)} dimensions; valid: {MAX_RANK}")
        if not empty and not all(_is_size(size) for size in value.shape):
            call.fail(f"its output would have the shape {shown(value.shape)}; valid: whole numbers from 1, or times N")
        values[index] = value._replace(constant=constant or node.op in ("Shape", "Size"), data=_kept(value))
    largest = max(per_image(elements(value.shape)) for value in values)
    work = sum(elements(value.shape) for value in values) if call.work is None else call.work
    return values, work, max(largest, call.scratch)


def _is_size(size: int) -> bool:
    return 1 <= size <= MAX_SIZE or (size % BATCH == 0 and 1 <= size // BATCH <= MAX_SIZE)


def _of_batch(number: float) -> bool:
    """Whether an element depends on N."""
    return abs(number) > 2**63


def _kept(value: Value) -> tuple[Any, ...] | None:
    """The elements, if they are few and exact: no overflow, and of N only multiples."""
    data = value.data
    if data is None or len(data) > MAX_KNOWN or len(data) != elements(value.shape):
        return None
    if value.dtype == FLOAT:
        try:
            return struct.unpack(f"<{len(data)}f", struct.pack(f"<{len(data)}f", *data))
        except (OverflowError, struct.error):
            return None
    bound = _INTEGERS.get(value.dtype, 0)
    of_batch = value.dtype == INT64
    exact = all(-bound <= v < bound or (of_batch and v % BATCH == 0 and abs(v) <= BATCH * MAX_SIZE) for v in data)
    return data if exact else None


# Operators that make constants and sizes


@_rule("Constant", 0)
def _constant(call: Call) -> Value:
    attributes = call.node.attributes
    call.need(len(attributes) == 1, f"it has {len(attributes)} attributes; valid: 1")
    ((name, value),) = attributes.items()
    call.work = 0
    match name, value:
        case "value", Value():
            return value
        case "value_int", int():
            return Value(INT64, (), (value,))
        case "value_float", float():
            return Value(FLOAT, (), (value,))
        case "value_ints", list():
            return Value(INT64, (len(value),), tuple(value))
        case "value_floats", list():
            return Value(FLOAT, (len(value),), tuple(value))
    call.fail(f"its attribute '{printable(name)[:40]}' cannot be a constant")


@_rule("ConstantOfShape", 1)
def _constant_of_shape(call: Call) -> Value:
    shape = call.known(0)
    value = call.node.attributes.get("value", Value(FLOAT, (1,), (0.0,)))
    call.need(isinstance(value, Value) and value.shape == (1,), "its value must have one element")
    known = len(shape) == 1 and shape[0] <= MAX_KNOWN and value.data is not None
    return Value(value.dtype, shape, value.data * max(0, shape[0]) if known else None)


@_rule("Shape", 1)
def _shape(call: Call) -> Value:
    shape = call[0].shape
    bounds = slice(call.integer("start", 0), call.integer("end", MAX_RANK))
    return Value(INT64, (len(shape[bounds]),), shape[bounds])


@_rule("Size", 1)
def _size(call: Call) -> Value:
    return Value(INT64, (), (elements(call[0].shape),))


@_rule("Range", 3)
def _range(call: Call) -> Value:
    bounds = [call.known(i) for i in range(3)]
    call.need(all(len(b) == 1 for b in bounds) and bounds[2][0] != 0, "its inputs must be numbers, and a step not 0")
    start, limit, step = (b[0] for b in bounds)
    call.need(not any(map(_of_batch, (start, limit, step))), "its length depends on the batch")
    steps = range(start, limit, step)
    call.need(1 <= (limit - start + step - (1 if step > 0 else -1)) // step <= MAX_SIZE, "its length is out of range")
    return Value(call[0].dtype, (len(steps),), tuple(steps) if len(steps) <= MAX_KNOWN else None)


@_rule("OneHot", 3)
def _one_hot(call: Call) -> Value:
    depth, shape = call.known(1), list(call[0].shape)
    call.need(len(depth) == 1 and not _of_batch(depth[0]), "its depth must be one number")
    call.is_shape(2, (2,))
    axis = call.axis(call.integer("axis", -1), len(shape) + 1)
    return Value(call[2].dtype, (*shape[:axis], depth[0], *shape[axis:]))


# Element by element


@_rule(
    "Abs Celu Cos Elu Erf Exp Gelu HardSigmoid HardSwish Identity LeakyRelu Log Mish Not Reciprocal Relu Round Selu "
    "Sigmoid Sign Sin Softplus Softsign Sqrt Swish Tanh ThresholdedRelu",
    1,
)
def _unary(call: Call) -> Value:
    data = call[0].data if call.node.op == "Identity" else None
    return call[0]._replace(data=data)


@_rule("Neg Floor Ceil", 1)
def _folded_unary(call: Call) -> Value:
    function: Any = {"Neg": lambda v: -v, "Floor": math.floor, "Ceil": math.ceil}[call.node.op]
    data = call[0].data
    finite = data is not None and all(map(_finite, data))
    return call[0]._replace(data=tuple(map(function, data)) if finite and data is not None else None)


def _finite(number: float) -> bool:
    return type(number) is int or math.isfinite(number)


@_rule("Cast", 1)
def _cast(call: Call) -> Value:
    to, data = call.integer("to", 0, 0, 32), call[0].data
    call.need(to in DTYPES, f"it makes elements of type {to}; valid: {', '.join(map(str, DTYPES))}")
    call.text("round_mode", "up", "down", "nearest")
    if data is not None and any(abs(v) >= 2**24 or not _finite(v) for v in data) and to != call[0].dtype:
        # Not exact in every type; what depends on N goes from one integer type to the other at most.
        data = data if {to, call[0].dtype} <= {INT32, INT64} and to == INT64 else None
    elif data is not None and to in _INTEGERS:
        data = tuple(bool(v) if to == BOOL else int(v) for v in data)
    elif to != FLOAT:
        data = None
    return Value(to, call[0].shape, data)


@_rule("Clip", 1, 3)
def _clip(call: Call) -> Value:
    for index in (1, 2):
        call.is_shape(index, (), (1,))
    return call[0]._replace(data=None)


@_rule("Dropout", 1, 2)
def _dropout(call: Call) -> Value:
    """As in inference: training_mode, the third input, would make it random."""
    call.is_shape(1, (), (1,))
    return call[0]


@_rule("PRelu", 2)
def _prelu(call: Call) -> Value:
    call.fits_into(1, call[0].shape)
    return call[0]._replace(data=None)


def _divide(a: Any, b: Any) -> Any:
    if isinstance(a, float) or isinstance(b, float):
        return a / b if b else None
    if a < 0 or b <= 0 or _of_batch(b) or (_of_batch(a) and (a // BATCH) % b):
        return None  # rounds towards zero, or depends on N in some other way than as a multiple
    return a // b


def _equal(a: Any, b: Any) -> bool | None:
    """Known for all N: c * N equals no other d * N, and nothing below 1."""
    if _of_batch(a) == _of_batch(b):
        return bool(a == b)
    of_batch, other = (a, b) if _of_batch(a) else (b, a)
    return False if of_batch > 0 and other < 1 else None


def _without_batch(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: None if _of_batch(a) or _of_batch(b) else function(a, b)


_FOLDED: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _divide,
    "Equal": _equal,
    "Max": _without_batch(max),
    "Min": _without_batch(min),
    "Mod": _without_batch(lambda a, b: a % b if a >= 0 and b > 0 else None),
}


@_rule("Add Div Mod Mul Pow Sub", 2)
def _arithmetic(call: Call) -> Value:
    return _binary(call, call[0].dtype)


@_rule("And Equal Greater GreaterOrEqual Less LessOrEqual Or Xor", 2)
def _comparison(call: Call) -> Value:
    return _binary(call, BOOL)


def _binary(call: Call, dtype: int) -> Value:
    a, b = call[0], call[1]
    shape = call.broadcast(a.shape, b.shape)
    call.need(call.node.op == "Pow" or a.dtype == b.dtype, "its inputs are of two types")
    if call.node.op in ("Div", "Mod") and a.dtype not in (FLOAT, FLOAT16, DOUBLE):
        # By 0, and the least number by -1, the processor raises a signal.
        call.need(b.data is not None and all(v > 0 for v in b.data), "it divides by numbers that may be 0 or below")
    function = _FOLDED.get(call.node.op)
    if function is None or a.data is None or b.data is None or len(shape) > 1 or elements(shape) > MAX_KNOWN:
        return Value(dtype, shape)
    n = elements(shape)
    pairs = zip(a.data * (n // (len(a.data) or 1)), b.data * (n // (len(b.data) or 1)), strict=True)
    data = tuple(function(x, y) for x, y in pairs)
    return Value(dtype, shape, None if None in data else data)


@_rule("Max Mean Min Sum", 1, 16)
def _variadic(call: Call) -> Value:
    if len(call) == 2 and call.node.op in _FOLDED:
        return _binary(call, call[0].dtype)
    shape = call.broadcast(*(call[i].shape for i in range(len(call))))
    call.work = len(call) * elements(shape)
    return Value(call[0].dtype, shape)


@_rule("Where", 3)
def _where(call: Call) -> Value:
    condition, a, b = call[0], call[1], call[2]
    shape = call.broadcast(condition.shape, a.shape, b.shape)
    call.need(a.dtype == b.dtype, "its inputs are of two types")
    data = None
    if condition.data is not None and a.data is not None and b.data is not None and a.shape == b.shape == shape:
        n = elements(shape) // (len(condition.data) or 1)
        data = tuple(x if c else y for c, x, y in zip(condition.data * n, a.data, b.data, strict=True))
        data = data if len(shape) <= 1 else None
    return Value(a.dtype, shape, data)


# Operators that move elements


@_rule("Reshape", 2)
def _reshape(call: Call) -> Value:
    value, asked = call[0], list(call.known(1))
    keep_zero = call.flag("allowzero")
    for i, size in enumerate(asked):
        if size == 0 and not keep_zero:
            call.need(i < len(value.shape), f"it copies dimension {i} of {shown(value.shape)}")
            asked[i] = value.shape[i]
    total, missing = elements(value.shape), asked.count(-1)
    if missing == 1:
        others = -math.prod(asked)  # the -1 is among them
        call.need(others > 0 and total % others == 0, f"{shown(value.shape)} cannot take the shape {shown((*asked,))}")
        asked[asked.index(-1)] = total // others
    shape = tuple(asked)
    call.need(missing <= 1 and elements(shape) == total, f"{shown(value.shape)} cannot take the shape {shown(shape)}")
    return _moved(value, shape)


def _picked(value: Value, pick: Callable[[Any], Any]) -> tuple[Any, ...] | None:
    """The known elements in the order in which `pick` takes them from the array of their positions."""
    if value.data is None or len(value.data) > MAX_KNOWN:
        return None
    return tuple(value.data[i] for i in pick(np.arange(len(value.data)).reshape(value.shape)).ravel().tolist())


def _moved(value: Value, shape: Shape) -> Value:
    return value._replace(shape=shape)


@_rule("Flatten", 1)
def _flatten(call: Call) -> Value:
    shape = call[0].shape
    axis = call.integer("axis", 1)
    call.need(-len(shape) <= axis <= len(shape), f"its axis is {axis} of {len(shape)} dimensions")
    axis = axis + len(shape) if axis < 0 else axis
    return _moved(call[0], (elements(shape[:axis]), elements(shape[axis:])))


@_rule("Squeeze", 1, 2)
def _squeeze(call: Call) -> Value:
    shape = call[0].shape
    given = None if call.get(1) is None else call.known(1)
    call.need(given is not None or not any(map(_of_batch, shape)), "without axes it would drop a batch of one")
    axes = [i for i, size in enumerate(shape) if size == 1] if given is None else call.axes(given, len(shape))
    call.need(all(shape[i] == 1 for i in axes), f"{shown(shape)} is not 1 along its axes")
    return _moved(call[0], tuple(size for i, size in enumerate(shape) if i not in axes))


@_rule("Unsqueeze", 2)
def _unsqueeze(call: Call) -> Value:
    given = call.known(1)
    sizes = list(call[0].shape)
    call.need(len(sizes) + len(given) <= MAX_RANK, f"its output has {len(sizes) + len(given)} dimensions")
    for axis in call.axes(given, len(sizes) + len(given)):
        sizes.insert(axis, 1)
    return _moved(call[0], tuple(sizes))


@_rule("Transpose", 1)
def _transpose(call: Call) -> Value:
    shape = call[0].shape
    order = call.integers("perm")
    order = list(range(len(shape)))[::-1] if order is None else order
    call.need(sorted(order) == list(range(len(shape))), f"its perm is no order of {len(shape)} dimensions")
    return Value(call[0].dtype, tuple(shape[i] for i in order), _picked(call[0], lambda at: at.transpose(order)))


@_rule("Concat", 1, 1024)
def _concat(call: Call) -> Value:
    values = [call[i] for i in range(len(call))]
    first = values[0]
    axis = call.axis(call.integer("axis", MAX_RANK + 1), len(first.shape))
    for value in values:
        like = len(value.shape) == len(first.shape) and all(
            a == b for i, (a, b) in enumerate(zip(value.shape, first.shape, strict=True)) if i != axis
        )
        if not like or value.dtype != first.dtype:
            call.fail(f"{shown(value.shape)} does not join {shown(first.shape)} along dimension {axis}")
    size = sum(value.shape[axis] for value in values)
    shape = (*first.shape[:axis], size, *first.shape[axis + 1 :])
    data: tuple[Any, ...] | None = ()
    for value in values:
        data = None if data is None or value.data is None or len(shape) > 1 else data + value.data
        data = None if data is not None and len(data) > MAX_KNOWN else data
    return Value(first.dtype, shape, data)


@_rule("Split", 1, 2)
def _split(call: Call) -> list[Value]:
    value, parts = call[0], len(call.node.outputs)
    axis = call.axis(call.integer("axis", 0), len(value.shape))
    size = value.shape[axis]
    if call.get(1) is not None:
        sizes = list(call.known(1))
    else:
        count = call.integer("num_outputs", parts, 1, 4096)
        call.need(
            count == parts and (size % parts == 0 or size < BATCH), f"{shown((size,))} has no {parts} equal parts"
        )
        part = -(-size // parts)
        sizes = [part] * (parts - 1) + [size - part * (parts - 1)]
    call.need(len(sizes) == parts and sum(sizes) == size, f"its parts do not add up to {shown((size,))}")
    return [Value(value.dtype, (*value.shape[:axis], part, *value.shape[axis + 1 :])) for part in sizes]


@_rule("Slice", 3, 5)
def _slice(call: Call) -> Value:
    value = call[0]
    starts, ends = call.known(1), call.known(2)
    given = call.known(3) if call.get(3) is not None else tuple(range(len(starts)))
    steps = call.known(4) if call.get(4) is not None else (1,) * len(starts)
    axes = [call.axis(axis, len(value.shape)) for axis in given]
    same = len(starts) == len(ends) == len(axes) == len(steps) == len(set(axes))
    call.need(same and 0 not in steps, "its starts, ends, axes and steps do not match")
    sizes, cuts = list(value.shape), [slice(None)] * len(value.shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = sizes[axis]
        if _of_batch(size) or _of_batch(start) or _of_batch(end) or _of_batch(step):
            whole = start == 0 and step == 1 and (end == size or 2**31 - 1 <= end < 2**63)
            call.need(whole, f"it cuts dimension {axis} of {shown(value.shape)} at a place that depends on the batch")
            continue
        part = range(*slice(start, end, step).indices(size))
        sizes[axis] = len(part)
        cuts[axis] = slice(start, end, step)
    return Value(value.dtype, tuple(sizes), _picked(value, lambda at: at[tuple(cuts)]))


@_rule("Gather", 2)
def _gather(call: Call) -> Value:
    value, index = call[0], call[1]
    axis = call.axis(call.integer("axis", 0), len(value.shape))
    shape = (*value.shape[:axis], *index.shape, *value.shape[axis + 1 :])
    data = None
    if index.data is not None:
        size = value.shape[axis]
        call.need(
            all(type(i) is int and -size <= i < size for i in index.data), f"an index is outside of 0 to {size - 1}"
        )
        if value.data is not None and len(value.shape) == 1:
            data = tuple(value.data[i] for i in index.data)
    return Value(value.dtype, shape, data)


@_rule("Expand", 2)
def _expand(call: Call) -> Value:
    value = call[0]
    shape = call.broadcast(value.shape, call.known(1))
    same = value.data is not None and elements(shape) == elements(value.shape)
    return Value(value.dtype, shape, value.data if same else None)


@_rule("Tile", 2)
def _tile(call: Call) -> Value:
    value, repeats = call[0], call.known(1)
    call.need(len(repeats) == len(value.shape), f"it repeats {len(repeats)} dimensions of {shown(value.shape)}")
    return Value(value.dtype, tuple(a * b for a, b in zip(value.shape, repeats, strict=True)))


@_rule("Pad", 2, 4)
def _pad(call: Call) -> Value:
    value, pads = call[0], call.known(1)
    mode = call.text("mode", "constant", "reflect", "edge")
    call.is_shape(2, (), (1,))
    rank = len(value.shape)
    axes = call.known(3) if call.get(3) is not None else tuple(range(rank))
    axes = tuple(call.axis(axis, rank) for axis in axes)
    call.need(len(pads) == 2 * len(axes) == 2 * len(set(axes)), f"it has {len(pads)} pads for {len(axes)} dimensions")
    sizes = list(value.shape)
    for i, axis in enumerate(axes):
        before, after, size = pads[i], pads[i + len(axes)], sizes[axis]
        most = min(size - 1, MAX_SIZE) if mode == "reflect" else MAX_SIZE
        call.need(
            min(before, after) >= 0 and max(before, after) <= most, f"it pads {before} and {after}; valid: 0 to {most}"
        )
        sizes[axis] += before + after
    return Value(value.dtype, tuple(sizes))


@_rule("DepthToSpace SpaceToDepth", 1)
def _depth_to_space(call: Call) -> Value:
    call.need(len(call[0].shape) == 4, f"its input is {shown(call[0].shape)}; valid: 4 dimensions")
    n, c, h, w = call[0].shape
    block = call.integer("blocksize", 0, 1, 4096)
    call.need(block, "it has no blocksize")
    if call.node.op == "DepthToSpace":
        call.text("mode", "DCR", "CRD")
        call.need(c % block**2 == 0, f"{c} channels are no multiple of {block} x {block}")
        return Value(call[0].dtype, (n, c // block**2, h * block, w * block))
    call.need(h % block == 0 and w % block == 0, f"{h} x {w} is no multiple of {block}")
    return Value(call[0].dtype, (n, c * block**2, h // block, w // block))


@_rule("Resize", 1, 4)
def _resize(call: Call) -> Value:
    shape = call[0].shape
    mode = call.text("mode", "nearest", "linear", "cubic")
    call.text(
        "coordinate_transformation_mode",
        "half_pixel",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "half_pixel_symmetric",
    )
    call.text("keep_aspect_ratio_policy", "stretch")
    call.need(not call.flag("antialias"), "antialias is not allowed")
    axes = call.integers("axes")
    axes = list(range(len(shape))) if axes is None else [call.axis(axis, len(shape)) for axis in axes]
    scales, sizes = call.get(2), call.get(3)
    if scales is not None and scales.shape == (0,):  # how older exporters leave it out
        scales = None
    call.need((scales is None) != (sizes is None), "it needs either scales or sizes")
    call.need(len(set(axes)) == len(axes), "an axis is given twice")
    result = list(shape)
    if scales is not None:
        factors = scales.data
        if factors is None or scales.dtype != FLOAT or not all(0 < factor <= 2**16 for factor in factors):
            call.fail("its scales must be constants above 0 and at most 65536")
    else:
        factors = call.known(3)
    call.need(len(factors) == len(axes), f"it scales {len(factors)} of {len(axes)} dimensions")
    for axis, factor in zip(axes, factors, strict=True):
        if _of_batch(shape[axis]):
            call.need(factor == (1 if scales is not None else shape[axis]), "it scales the batch")
        else:
            result[axis] = factor if scales is None else _scaled(shape[axis], factor)
    call.work = elements(tuple(result)) * {"nearest": 1, "linear": 4, "cubic": 16}[mode]
    return Value(call[0].dtype, tuple(result))


def _scaled(size: int, factor: float) -> int:
    """floor(size * factor), the product rounded to float32 as onnxruntime computes it."""
    return math.floor(struct.unpack("<f", struct.pack("<f", size * factor))[0])


# Convolutions, pooling, products


@dataclass
class _Window:
    """The geometry that convolutions and pooling share: one number for each spatial dimension."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]  # those before, then those after
    auto_pad: str

    @classmethod
    def of(cls, call: Call, sizes: Shape, kernel: Sequence[int] | None) -> "_Window":
        """kernel: of the weights; None: of the attribute alone."""
        rank = len(sizes)
        given = call.integers("kernel_shape")
        call.need(given is not None or kernel is not None, "it has no kernel_shape")
        found = list(kernel if kernel is not None else given or [])
        call.need(given is None or given == found, f"its kernel_shape {given} is not that of its weights {found}")
        window = cls(
            found,
            call.integers("strides") or [1] * rank,
            call.integers("dilations") or [1] * rank,
            call.integers("pads") or [0] * (2 * rank),
            call.text("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"),
        )
        call.need(1 <= rank <= 3 and not any(map(_of_batch, sizes)), f"its input has {rank} spatial dimensions")
        for name, low, length in (
            ("kernel", 1, rank),
            ("strides", 1, rank),
            ("dilations", 1, rank),
            ("pads", 0, 2 * rank),
        ):
            numbers = getattr(window, name)
            valid = len(numbers) == length and all(low <= number <= 2**16 for number in numbers)
            call.need(valid, f"its {name} are {numbers[:8]}; valid: {length} numbers from {low} to {2**16}")
        return window

    def padded(self) -> Iterable[tuple[int, int, int]]:
        """(kernel's extent with dilations, stride, pads of both sides) of each dimension."""
        rank = len(self.kernel)
        for i, (k, stride, dilation) in enumerate(zip(self.kernel, self.strides, self.dilations, strict=True)):
            pads = self.pads[i] + self.pads[i + rank] if self.auto_pad == "NOTSET" else 0
            yield (k - 1) * dilation + 1, stride, pads

    def slide(self, call: Call, sizes: Shape) -> Shape:
        """The size of what a convolution or a pooling makes."""
        result = []
        for size, (extent, stride, pads) in zip(sizes, self.padded(), strict=True):
            if self.auto_pad.startswith("SAME"):
                result.append(-(-size // stride))
            else:
                call.need(size + pads >= extent, f"its kernel of {extent} is wider than {size} with pads {pads}")
                result.append((size + pads - extent) // stride + 1)
        return tuple(result)


def _convolve(call: Call, x: Value, w: Value, bias: int | None) -> Shape:
    """The output of a convolution of x with w; sets its work."""
    call.need(len(x.shape) == len(w.shape) >= 3, f"it convolves {shown(x.shape)} with {shown(w.shape)}")
    n, channels, *_ = x.shape
    sizes = x.shape[2:]
    made, each, *kernel = w.shape
    group = call.integer("group", 1, 1, MAX_SIZE)
    call.need(
        channels == each * group and made % group == 0,
        f"{channels} channels in {group} groups do not fit {shown(w.shape)}",
    )
    if bias is not None:
        call.is_shape(bias, (made,))
    shape = (n, made, *_Window.of(call, sizes, kernel).slide(call, sizes))
    call.work = elements(shape) * each * math.prod(kernel)
    return shape


@_rule("Conv", 2, 3)
def _conv(call: Call) -> Value:
    return Value(call[0].dtype, _convolve(call, call[0], call[1], 2))


@_rule("ConvInteger", 2, 4)
def _conv_integer(call: Call) -> Value:
    shape = _convolve(call, call[0], call[1], None)
    call.is_shape(2, (), (1,))
    call.is_shape(3, (), (1,), (shape[1],))
    call.scratch = math.prod(call[1].shape[1:]) * math.prod(shape[2:])
    return Value(INT32, shape)


@_rule("QLinearConv", 8, 9)
def _qlinear_conv(call: Call) -> Value:
    shape = _convolve(call, call[0], call[3], 8)
    for index in (1, 2, 6, 7):
        call.is_shape(index, (), (1,))
    for index in (4, 5):
        call.is_shape(index, (), (1,), (shape[1],))
    call.scratch = math.prod(call[3].shape[1:]) * math.prod(shape[2:])
    return Value(call[7].dtype, shape)


@_rule("ConvTranspose", 2, 3)
def _conv_transpose(call: Call) -> Value:
    x, w = call[0], call[1]
    call.need(len(x.shape) == len(w.shape) >= 3, f"it convolves {shown(x.shape)} with {shown(w.shape)}")
    n, channels, *_ = x.shape
    sizes = x.shape[2:]
    taken, each, *kernel = w.shape
    group = call.integer("group", 1, 1, MAX_SIZE)
    call.need(
        channels == taken and channels % group == 0,
        f"{channels} channels in {group} groups do not fit {shown(w.shape)}",
    )
    call.is_shape(2, (each * group,))
    window = _Window.of(call, sizes, kernel)
    extra = call.integers("output_padding") or [0] * len(sizes)
    room = [max(s, d) for s, d in zip(window.strides, window.dilations, strict=True)]
    call.need(
        len(extra) == len(sizes) and all(0 <= e < most for e, most in zip(extra, room, strict=True)),
        f"its output_padding is {extra[:8]}; valid: from 0 to below the stride",
    )
    full = [
        stride * (size - 1) + extent + e
        for size, (extent, stride, _), e in zip(sizes, window.padded(), extra, strict=True)
    ]
    asked = call.integers("output_shape")
    if asked is not None:
        call.need(len(asked) == len(sizes), f"its output_shape has {len(asked)} numbers")
        made = asked
    elif window.auto_pad.startswith("SAME"):
        made = [size * stride for size, stride in zip(sizes, window.strides, strict=True)]
    else:
        made = [size - pads for size, (_, _, pads) in zip(full, window.padded(), strict=True)]
    call.need(
        all(1 <= m <= f for m, f in zip(made, full, strict=True)), f"its output would be {made}; valid: 1 to {full}"
    )
    call.work = elements(x.shape) * math.prod(w.shape[1:])
    call.scratch = math.prod(w.shape[1:]) * math.prod(sizes)
    return Value(x.dtype, (n, each * group, *made))


@_rule("AveragePool LpPool MaxPool", 1)
def _pool(call: Call) -> Value:
    shape = call[0].shape
    sizes = shape[2:]
    window = _Window.of(call, sizes, None)
    call.need(not call.flag("ceil_mode"), "ceil_mode is not allowed")
    pads = zip(window.pads, window.kernel * 2, strict=True)
    call.need(all(pad < k for pad, k in pads), "its pads are not below its kernel")
    result = (*shape[:2], *window.slide(call, sizes))
    call.work = elements(result) * math.prod(window.kernel)
    return Value(call[0].dtype, result)


@_rule("GlobalAveragePool GlobalMaxPool", 1)
def _global_pool(call: Call) -> Value:
    shape = call[0].shape
    call.need(len(shape) >= 3, f"its input is {shown(shape)}; valid: 3 dimensions or more")
    call.work = elements(shape)
    return Value(call[0].dtype, (*shape[:2], *(1 for _ in shape[2:])))


def _product(call: Call, a: Shape, b: Shape) -> Shape:
    """The shape of a matrix product as NumPy's; sets its work."""
    call.need(a and b, "it multiplies scalars")
    left = a if len(a) > 1 else (1, *a)
    right = b if len(b) > 1 else (*b, 1)
    call.need(left[-1] == right[-2], f"it multiplies {shown(a)} with {shown(b)}")
    shape = (*call.broadcast(left[:-2], right[:-2]), left[-2], right[-1])
    call.work = elements(shape) * left[-1]
    shape = shape if len(b) > 1 else shape[:-1]
    return (
        shape
        if len(a) > 1
        else (*shape[: len(shape) - (2 if len(b) > 1 else 1)], *shape[len(shape) - 1 :][: len(b) > 1])
    )


@_rule("MatMul", 2)
def _matmul(call: Call) -> Value:
    return Value(call[0].dtype, _product(call, call[0].shape, call[1].shape))


@_rule("MatMulInteger", 2, 4)
def _matmul_integer(call: Call) -> Value:
    shape = _product(call, call[0].shape, call[1].shape)
    call.is_shape(2, (), (1,))
    call.is_shape(3, (), (1,), shape[-1:])
    return Value(INT32, shape)


@_rule("QLinearMatMul", 8)
def _qlinear_matmul(call: Call) -> Value:
    shape = _product(call, call[0].shape, call[3].shape)
    for index in (1, 2, 6, 7):
        call.is_shape(index, (), (1,))
    for index in (4, 5):
        call.is_shape(index, (), (1,), shape[-1:])
    return Value(call[7].dtype, shape)


@_rule("Gemm", 2, 3)
def _gemm(call: Call) -> Value:
    a, b = call[0].shape, call[1].shape
    call.need(len(a) == len(b) == 2, f"it multiplies {shown(a)} with {shown(b)}")
    shape = _product(call, a[::-1] if call.flag("transA") else a, b[::-1] if call.flag("transB") else b)
    call.fits_into(2, shape)
    return Value(call[0].dtype, shape)


# Reductions, normalisations, quantisation


@_rule(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
    "ReduceSumSquare",
    1,
    2,
)
def _reduce(call: Call) -> Value:
    value = call[0]
    given: Sequence[int] | None = call.integers("axes")
    if call.get(1) is not None:
        call.need(given is None, "it has its axes twice")
        given = call.known(1)
    call.work = elements(value.shape)
    if not given and call.flag("noop_with_empty_axes"):
        return value._replace(data=None)
    axes = call.axes(given or None, len(value.shape))
    keep = call.flag("keepdims", 1)
    shape = tuple(1 if i in axes else size for i, size in enumerate(value.shape) if keep or i not in axes)
    whole = call.node.op == "ReduceProd" and value.data is not None and len(value.shape) <= 1
    return Value(value.dtype, shape, (math.prod(value.data),) if whole and value.data is not None else None)


@_rule("ArgMax ArgMin", 1)
def _arg(call: Call) -> Value:
    shape = list(call[0].shape)
    axis = call.axis(call.integer("axis", 0), len(shape))
    call.work = elements(call[0].shape)
    shape[axis : axis + 1] = [1] * call.flag("keepdims", 1)
    return Value(INT64, tuple(shape))


@_rule("LogSoftmax LpNormalization Softmax", 1)
def _softmax(call: Call) -> Value:
    call.axis(call.integer("axis", -1), len(call[0].shape))
    return call[0]._replace(data=None)


@_rule("InstanceNormalization", 3)
def _instance_norm(call: Call) -> Value:
    call.need(len(call[0].shape) >= 3, f"its input is {shown(call[0].shape)}; valid: 3 dimensions or more")
    for index in (1, 2):
        call.is_shape(index, (call[0].shape[1],))
    return call[0]._replace(data=None)


@_rule("BatchNormalization", 5)
def _batch_norm(call: Call) -> Value:
    call.need(not call.flag("training_mode"), "training_mode is not allowed")
    call.need(len(call[0].shape) >= 2, f"its input is {shown(call[0].shape)}; valid: 2 dimensions or more")
    for index in (1, 2, 3, 4):
        call.is_shape(index, (call[0].shape[1],))
    return call[0]._replace(data=None)


@_rule("GroupNormalization", 3)
def _group_norm(call: Call) -> Value:
    shape = call[0].shape
    call.need(len(shape) >= 3, f"its input is {shown(shape)}; valid: 3 dimensions or more")
    groups = call.integer("num_groups", 0, 1, MAX_SIZE)
    call.need(groups and shape[1] % groups == 0, f"{shown(shape)} has no {groups} groups of channels")
    for index in (1, 2):
        call.is_shape(index, (groups if call.opset < 21 else shape[1],))
    return call[0]._replace(data=None)


@_rule("LayerNormalization RMSNormalization", 2, 3)
def _layer_norm(call: Call) -> Value:
    shape = call[0].shape
    axis = call.axis(call.integer("axis", -1), len(shape))
    for index in (1, 2):
        call.is_shape(index, shape[axis:])
    return call[0]._replace(data=None)


def _scales(call: Call, shape: Shape) -> None:
    """Inputs 1 and 2, scale and zero point: of the whole tensor or of each slice along `axis`."""
    call.need(not call.integer("block_size", 0), "quantisation in blocks is not allowed")
    scale = call[1].shape
    call.need(
        scale in ((), (1,)) or scale == (shape[call.axis(call.integer("axis", 1), len(shape))],),
        f"its scale is {shown(scale)}",
    )
    # One scale may be a number or a vector of one; onnxruntime's quantiser writes both, mixed.
    call.is_shape(2, *(((), (1,)) if scale in ((), (1,)) else (scale,)))


@_rule("QuantizeLinear", 2, 3)
def _quantize(call: Call) -> Value:
    _scales(call, call[0].shape)
    zero = call.get(2)
    asked = call.integer("output_dtype", 0, 0, 32)
    dtype = zero.dtype if zero is not None else asked or UINT8
    call.need(dtype in (UINT8, INT8), f"it makes elements of type {dtype}; valid: {UINT8}, {INT8}")
    return Value(dtype, call[0].shape)


@_rule("DequantizeLinear", 2, 3)
def _dequantize(call: Call) -> Value:
    _scales(call, call[0].shape)
    return Value(call[1].dtype, call[0].shape)


@_rule("DynamicQuantizeLinear", 1)
def _dynamic_quantize(call: Call) -> list[Value]:
    return [Value(UINT8, call[0].shape), Value(FLOAT, ()), Value(UINT8, ())]
