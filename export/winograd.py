"""Convolutions with fewer multiplications, by Winograd's minimal filtering.

Papers: Winograd 1980, "Arithmetic Complexity of Computations"; Lavin, Gray 2016, "Fast Algorithms for Convolutional
Neural Networks". Barabasz et al. 2020, "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep
Neural Networks", on the points.

Along one axis, m outputs of a kernel of r taps need p = m + r - 1 multiplications in place of m r: polynomials of
pixels and of taps are multiplied by their values at p points. y = A ((G g) * (B x)), in two axes with the Kronecker
products of the A and of the B. Between G and A no point knows of another, so that what is left is a product of matrices
of channels for each point, here a 1x1 Conv with a group for each point. It sums other numbers than the convolution
does, and rounds by several times as much: the more points, the more.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np

from edgegan.export.graph import Array, Graph, attribute
from edgegan.export.phases import Layer, Phase, behind

# Besides infinity. Every prefix is about as exact as any points that many: 0 and 1 are free, and t, 1/t cancel.
POINTS = tuple(map(Fraction, ("0", "1", "-1", "1/2", "-2", "-1/2", "2")))
MIN_CHANNELS = 64  # in and out; with fewer the transforms cost more than they save
WORTH = 0.8  # of the multiplications: what saves less is not tried


@dataclass(frozen=True)
class Tiled:
    """Minimal filtering along one axis, in `blocks` blocks of the same p points: y = sum of A ((G g) * (B x))."""

    B: Array  # [blocks, p, inputs]
    G: Array  # [p, taps]
    A: Array  # [outputs, blocks, p]

    @classmethod
    def of(cls, start: int, taps: int, size: int, windows: int, tile: int) -> "Tiled":
        """Output w < windows is the sum of the inputs from w + start on times the taps; inputs outside are 0.

        Blocks of `tile` outputs (overlap-save), or of as many inputs (overlap-add) where those are fewer, as where all
        of the padding is drawn.
        """
        points = tile + taps - 1
        E, G, inverse = _values(points, tile), _values(points, taps), _inverse(points)
        saved, added = -(-windows // tile), -(-size // tile)
        blocks = min(saved, added)
        B, A = np.zeros((blocks, points, size)), np.zeros((windows, blocks, points))
        if saved <= added:
            for b in range(blocks):
                for j in range(points):
                    if 0 <= (i := start + b * tile + j) < size:
                        B[b, :, i] = inverse[j]  # transposed
                for j in range(min(tile, windows - b * tile)):
                    A[b * tile + j, b] = E[:, j]
            return cls(B, G, A)
        for b in range(blocks):
            for i in range(min(tile, size - b * tile)):
                B[b, :, b * tile + i] = E[:, i]
            for j in range(points):
                if 0 <= (w := b * tile + j - (taps - 1) - start) < windows:
                    A[w, b] = inverse[j]
        # A product of polynomials adds i and k, a window needs i - k: the taps run backwards.
        return cls(B, G[:, ::-1], A)


def _values(points: int, terms: int) -> Array:
    """[points, terms]: the powers of each point; of infinity the highest."""
    rows = [[float(x**k) for k in range(terms)] for x in POINTS[: points - 1]]
    return np.array([*rows, [0.0] * (terms - 1) + [1.0]])


def _inverse(points: int) -> Array:
    """The inverse of the square `_values`, by Lagrange: exact but for the last rounding."""
    finite = POINTS[: points - 1]
    made = np.zeros((points, points))
    for column, x in enumerate(finite):
        others = [y for y in finite if y != x]
        made[: points - 1, column] = _polynomial(others, Fraction(prod(x - y for y in others)))
    made[:, points - 1] = _polynomial(list(finite), Fraction(1))
    return made


def _polynomial(roots: list[Fraction], divisor: Fraction) -> list[float]:
    """The coefficients of the product of x - root, divided, lowest first."""
    made = [Fraction(1)]
    for root in roots:
        made = [a - root * b for a, b in zip([Fraction(0), *made], [*made, Fraction(0)], strict=True)]
    return [float(a / divisor) for a in made]


def winograd(graph: Graph, layer: Layer, rows: list[Phase], columns: list[Phase], tile: tuple[int, int]) -> str | None:
    """The layout of a convolution that is one phase: [N, O, *drawn]. None for one that it would not speed up.

    tile: outputs or inputs of a block, along rows and columns.

    All values are channels last, but for the Conv, which onnxruntime brings into its blocked layout by itself.
    """
    (row,), (column,) = rows, columns
    taps = layer.weight.shape[2:]
    if min(taps) < 3 or max(m + k - 1 for m, k in zip(tile, taps, strict=True)) > len(POINTS) + 1:
        return None
    down, across = (
        Tiled.of(phase.start, k, size, drawn, m)
        for phase, k, size, drawn, m in zip((row, column), taps, layer.size, layer.drawn, tile, strict=True)
    )
    # Kronecker products, in such an order that blocks and points are next to each other.
    B = np.einsum("apx,bqy->abpqxy", down.B, across.B)
    A = np.einsum("xap,ybq->xyabpq", down.A, across.A)
    blocks, points, pixels = (prod(B.shape[k : k + 2]) for k in (0, 2, 4))
    outputs, inputs = layer.weight.shape[:2]
    drawn = prod(layer.drawn)
    needed = blocks * points * (pixels * inputs + inputs * outputs + drawn * outputs)
    if min(inputs, outputs) < MIN_CHANNELS or needed > WORTH * drawn * prod(taps) * inputs * outputs:
        return None
    kernel = np.einsum("pk,ql,ockl->pqoc", down.G, across.G, layer.weight.astype(np.float64), optimize=True)

    x = graph.add("Reshape", _channels_last(graph, layer.x), graph.integers(0, pixels, inputs))
    x = graph.add("MatMul", graph.constant(B.reshape(blocks * points, pixels)), x)
    x = graph.add("Reshape", x, graph.integers(0, 1, blocks, points * inputs))
    x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
    weight = graph.constant(kernel.reshape(points * outputs, inputs, 1, 1))
    y = graph.add("Conv", x, weight, kernel_shape=[1, 1], group=points)
    y = graph.add("Transpose", y, perm=[0, 2, 3, 1])
    y = graph.add("Reshape", y, graph.integers(0, blocks * points, outputs))
    y = graph.add("MatMul", graph.constant(A.reshape(drawn, blocks * points)), y)
    if layer.bias is not None:
        y = graph.add("Add", y, graph.constant(layer.bias))
    y = graph.add("Reshape", behind(graph, y, layer.tail), graph.integers(0, *layer.drawn, outputs))
    return graph.add("Transpose", y, perm=[0, 3, 1, 2])


def _channels_last(graph: Graph, x: str) -> str:
    """[N, H, W, C] of [N, C, H, W]: what x was made from, if that was channels last."""
    before = graph.producer(x)
    if before is not None and before.op_type == "Transpose" and attribute(before, "perm", []) == [0, 3, 1, 2]:
        return str(before.input[0])
    return graph.add("Transpose", x, perm=[0, 2, 3, 1])
