"""Convolutions that draw every s-th row and column at a time, and what puts those together.

Along one axis let output pixel y = s q + r, the phase r of s. In an upsampled, a transposed or a plain convolution each
phase is itself a small convolution, whose taps are sums of the kernel's K taps: a 0/1 matrix [taps, K] for each phase.
In two axes a phase's kernel is R W C^T, of the matrix R of its rows and C of its columns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from edgegan.export.graph import Array, Graph


@dataclass(frozen=True)
class Phase:
    """One phase along one axis: output q is the sum of the inputs from q + start on, times `taps` @ kernel."""

    start: int
    taps: Array  # float64 [number of inputs, K]

    def over(self, start: int, count: int) -> "Phase":
        """The same phase, with zeros for inputs that it does not need."""
        before = self.start - start
        after = count - len(self.taps) - before
        return Phase(start, np.pad(self.taps, ((before, after), (0, 0))))


def upsampled(kernel: int, pad: int, scale: int) -> list[Phase]:
    """Of a convolution behind nearest upsampling: y reads x[floor((y + k - pad) / scale)] for k < kernel."""
    return [_phase([(r + k - pad) // scale for k in range(kernel)], range(kernel), kernel) for r in range(scale)]


def transposed(kernel: int, pad: int, stride: int) -> list[Phase]:
    """Of a transposed convolution: y reads x[i] where y + pad - stride i = k for some k < kernel."""
    phases = []
    for r in range(stride):
        used = [k for k in range(kernel) if (r + pad - k) % stride == 0]
        phases.append(_phase([(r + pad - k) // stride for k in used], used, kernel))
    return phases


def plain(kernel: int, pad: int) -> list[Phase]:
    """Of a convolution of stride 1: y reads x[y + k - pad]."""
    return [Phase(-pad, np.eye(kernel))]


def strided(kernel: int, scale: int) -> Array:
    """Of a convolution that draws `scale` outputs at each of its steps: [scale, kernel + scale - 1, kernel]."""
    return np.stack([np.eye(kernel + scale - 1, kernel, -r) for r in range(scale)])


def _phase(inputs: list[int], taps: "range | list[int]", kernel: int) -> Phase:
    """From the input that each tap reads. A phase without a tap reads one input, times 0."""
    start = min(inputs, default=0)
    matrix = np.zeros((max(inputs, default=0) - start + 1, kernel))
    for i, k in zip(inputs, taps, strict=True):
        matrix[i - start, k] = 1
    return Phase(start, matrix)


@dataclass(frozen=True)
class Axis:
    """All phases of an axis from one convolution. `crop` outputs come before the first that is wanted."""

    start: int
    slots: Array  # [s, taps, K] in the order of the outputs
    crop: int
    windows: int  # the convolution's outputs

    @classmethod
    def of(cls, phases: list[Phase], count: int) -> "Axis":
        """`count` outputs of each phase. All phases get windows of one size; those that start later come from a later
        window, or get zeros where their outputs could not be told apart."""
        s, size = len(phases), max(len(p.taps) for p in phases)
        first = min(p.start for p in phases)
        starts = [max(first, p.start + len(p.taps) - size) for p in phases]
        for crop in range(s):
            slots = [r + crop - s * (start - first) for r, start in enumerate(starts)]
            if all(0 <= slot < s for slot in slots):
                break
        else:
            size = max(p.start + len(p.taps) for p in phases) - first
            starts, slots, crop = [first] * s, list(range(s)), 0
        made = np.zeros((s, size, phases[0].taps.shape[1]))
        for phase, start, slot in zip(phases, starts, slots, strict=True):
            made[slot] = phase.over(start, size).taps
        return cls(first, made, crop, count + max(starts) - first)


@dataclass(frozen=True)
class Layer:
    """A convolution to be drawn in phases: what its kernels and its surroundings are."""

    x: str
    size: tuple[int, int]  # of x
    weight: Array  # [O, C, Kh, Kw]
    bias: Array | None  # [O]
    tail: list[NodeProto]  # the elementwise nodes behind it
    drawn: tuple[int, int]  # the output's size

    def conv(self, graph: Graph, rows: Axis, columns: Axis) -> str:
        """[N, s t O, windows of rows, windows of columns], s and t the slots of rows and columns."""
        kernel = np.einsum("aik,bjl,ockl->abocij", rows.slots, columns.slots, self.weight.astype(np.float64))
        pads = [_pads(axis, size) for axis, size in zip((rows, columns), self.size, strict=True)]
        inputs = [self.x, graph.constant(kernel.reshape(-1, *kernel.shape[3:]))]
        if self.bias is not None:
            inputs.append(graph.constant(np.tile(self.bias, len(rows.slots) * len(columns.slots))))
        (top, bottom), (left, right) = pads
        y = graph.add("Conv", *inputs, kernel_shape=kernel.shape[4:], pads=[top, left, bottom, right])
        return behind(graph, y, self.tail)


def behind(graph: Graph, x: str, tail: list[NodeProto]) -> str:
    """x after copies of the elementwise nodes `tail`."""
    for node in tail:
        x = graph.like(node, x)
    return x


def _pads(axis: Axis, size: int) -> tuple[int, int]:
    return -axis.start, axis.windows + axis.start + axis.slots.shape[1] - 1 - size


def _padded(phase: Phase, count: int, size: int) -> Phase:
    """The phase with windows that start no later than the input and end no sooner: ONNX has no negative pads."""
    start = min(phase.start, 0)
    end = max(phase.start + len(phase.taps), size - count + 1)
    return phase.over(start, end - start)


BLOCK = 16  # channels that the blocked layout computes at least: phases that all fit into one are drawn at once
# From x to the value [N, O, *drawn] behind the tail; None if the layer is not for this layout, and nothing was added.
Layout = Callable[[Graph, Layer, list[Phase], list[Phase]], str | None]


def by_rows(graph: Graph, layer: Layer, rows: list[Phase], columns: list[Phase]) -> str | None:
    """A convolution for each phase of the rows, which has the phases of the columns as channels.

    Behind it channels last, where the columns are in their order at once and whole rows are all that has to be moved.
    onnxruntime's DepthToSpace moves single numbers, which takes three times as long.
    """
    return _by_rows(graph, layer, rows, columns, split=False)


def by_phase(graph: Graph, layer: Layer, rows: list[Phase], columns: list[Phase]) -> str | None:
    """A convolution for each phase, with as few multiplications as there can be; for the rest like `by_rows`."""
    return _by_rows(graph, layer, rows, columns, split=True)


def _by_rows(graph: Graph, layer: Layer, rows: list[Phase], columns: list[Phase], split: bool) -> str | None:
    (height, width), channels, (s, t) = layer.drawn, len(layer.weight), (len(rows), len(columns))
    if s * t * channels <= BLOCK:
        return None
    high, wide = -(-height // s), -(-width // t)
    rows = [_padded(phase, high, layer.size[0]) for phase in rows]
    columns = [_padded(phase, wide, layer.size[1]) for phase in columns]
    groups = [Axis.of([phase], wide) for phase in columns] if split else [Axis.of(columns, wide)]
    windows, crop = groups[0].windows, groups[0].crop
    parts = []
    for phase in rows:
        convs = [layer.conv(graph, Axis.of([phase], high), group) for group in groups]
        y = graph.add("Concat", *convs, axis=1) if split else convs[0]
        y = graph.add("Transpose", y, perm=[0, 2, 3, 1])
        parts.append(graph.add("Reshape", y, graph.integers(0, high, 1, windows * t * channels)))
    y = graph.add("Concat", *parts, axis=2) if s > 1 else parts[0]
    if windows * t != width:
        y = _slice(graph, y, 3, crop * channels, (crop + width) * channels)
    y = graph.add("Reshape", y, graph.integers(0, high * s, width, channels))
    if high * s != height:
        y = _slice(graph, y, 1, 0, height)
    return graph.add("Transpose", y, perm=[0, 3, 1, 2])


def at_once(graph: Graph, layer: Layer, rows: list[Phase], columns: list[Phase]) -> str:
    """One convolution with all phases as channels, and DepthToSpace: for few channels."""
    s = len(rows)
    assert len(columns) == s  # DepthToSpace has one block size
    pairs = [
        Axis.of([_padded(phase, -(-drawn // s), size) for phase in phases], -(-drawn // s))
        for phases, drawn, size in zip((rows, columns), layer.drawn, layer.size, strict=True)
    ]
    y = layer.conv(graph, *pairs)
    if s > 1:
        y = graph.add("DepthToSpace", y, blocksize=s, mode="DCR")
    for axis, (pair, size) in enumerate(zip(pairs, layer.drawn, strict=True), start=2):
        if pair.windows * s != size:
            y = _slice(graph, y, axis, pair.crop, pair.crop + size)
    return y


def _slice(graph: Graph, x: str, axis: int, start: int, end: int) -> str:
    return graph.add("Slice", x, *(graph.integers(value) for value in (start, end, axis)))
