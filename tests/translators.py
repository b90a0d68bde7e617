"""Tiny models that translate pictures, whose results NumPy can compute too."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgegan import ModelSpec

RANDOM = np.random.default_rng(5)
REACH = 3  # pixels on either side that `blurred` looks at: three convolutions of 3 x 3


def save(
    path: Path,
    nodes: Sequence[NodeProto],
    constants: dict[str, Any] | None = None,
    *,
    channels: int = 3,
    scale: int = 1,
    multiple: int = 1,
    shape: Sequence[int | str] | None = None,
    made: Sequence[int | str] | None = None,
    ours: bool = True,
) -> str:
    """A file whose nodes lead from `source` to `image`; with edgegan's metadata if it is `ours`."""
    shape = shape or ("N", channels, "H", "W")
    made = made or ("N", channels, "h", "w")
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)]
        for name, sizes in (("source", shape), ("image", made))
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "g", *ports, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if ours:
        spec = ModelSpec("test", (64, 64), channels, None, task="translate", scale=scale, size_multiple=multiple)
        model.metadata_props.add(key="edgegan", value=spec.to_json())
    path.write_bytes(model.SerializeToString())
    return str(path)


def node(op: str, inputs: str, outputs: str = "image", **attributes: Any) -> NodeProto:
    """Names are divided by spaces."""
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def negative(path: Path, **how: Any) -> str:
    """255 - p."""
    return save(path, [node("Neg", "source")], **how)


def twice(path: Path, **how: Any) -> str:
    """Each pixel becomes 2 x 2."""
    resize = helper.make_node(
        "Resize",
        ["source", "", "scales"],
        ["image"],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return save(path, [resize], {"scales": np.array([1, 1, 2, 2], np.float32)}, **{"scale": 2, **how})


def blocks_of_8(path: Path) -> str:
    """The same picture, by way of blocks of 8 x 8: it takes no others."""
    nodes = [node("SpaceToDepth", "source", "blocks", blocksize=8), node("DepthToSpace", "blocks", blocksize=8)]
    return save(path, nodes, multiple=8)


def blurred(path: Path, channels: int = 3) -> str:
    """Three convolutions of 3 x 3 with zeros around the picture, as networks have, so that edges show."""
    random = np.random.default_rng(1)
    widths = [channels, 8, 8, channels]
    constants = {
        f"w{k}": (random.standard_normal((b, a, 3, 3)) / np.sqrt(9 * a)).astype(np.float32)
        for k, (a, b) in enumerate(pairwise(widths))
    }
    constants["w2"] = np.abs(constants["w2"])  # so that what is missing beyond an edge shows
    nodes = [
        node("Conv", "source w0", "a", pads=[1] * 4),
        node("Relu", "a", "b"),
        node("Conv", "b w1", "c", pads=[1] * 4),
        node("Relu", "c", "d"),
        node("Conv", "d w2", "e", pads=[1] * 4),
        node("Tanh", "e"),
    ]
    return save(path, nodes, constants, channels=channels)


def without_mean(path: Path) -> str:
    """What is left without each picture's mean: every tile has another."""
    return save(path, [node("ReduceMean", "source", "mean", axes=[2, 3]), node("Sub", "source mean")])


def heavy(path: Path, width: int = 64, layers: int = 3) -> str:
    """Convolutions whose activations are far larger than the picture."""
    random = np.random.default_rng(2)
    widths = [3, *[width] * (layers - 1), 3]
    nodes, constants, last = [], {}, "source"
    for k, (a, b) in enumerate(pairwise(widths)):
        constants[f"w{k}"] = (random.standard_normal((b, a, 3, 3)) / np.sqrt(9 * a)).astype(np.float32)
        nodes += [node("Conv", f"{last} w{k}", f"c{k}", pads=[1] * 4), node("Tanh", f"c{k}", f"t{k}")]
        last = f"t{k}"
    nodes[-1] = node("Tanh", f"c{layers - 1}")
    return save(path, nodes, constants)


def copied(path: Path) -> str:
    """255 - p by way of six copies: much memory and little work."""
    nodes = [
        node("Concat", " ".join(["source"] * 6), "copies", axis=1),
        node("Neg", "copies", "negatives"),
        node("Slice", "negatives first end axis"),
    ]
    return save(path, nodes, {"first": [0], "end": [3], "axis": [1]})


def noisy(*shape: int) -> np.ndarray:
    """Random pixels."""
    return RANDOM.integers(0, 256, shape, np.uint8)


def smooth(h: int, w: int) -> np.ndarray:
    """uint8 [h, w, 3] without edges, in which a seam would show."""
    y, x = np.mgrid[:h, :w]
    waves = (128 + 100 * np.sin(x / 17 + y / 31), 128 + 100 * np.cos(y / 23), 40 + x * 180 / w)
    return np.stack(waves, axis=-1).astype(np.uint8)
