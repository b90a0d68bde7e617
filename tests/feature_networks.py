"""Feature networks as ONNX graphs, for tests."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgegan.trainer.metrics.features import METADATA_KEY, Preparation

PLAIN = Preparation(range=(-1.0, 1.0), channels=3)  # pictures as they are


def node(op: str, *inputs: str, out: str = "y", **attributes: Any) -> NodeProto:
    return helper.make_node(op, list(inputs), [out], **attributes)


def model_of(
    nodes: list[NodeProto],
    constants: dict[str, Any] | None = None,
    shape: tuple[int | str, ...] = ("N", 3, "H", "W"),
    described: Preparation | None = None,
) -> onnx.ModelProto:
    """A model from x [*shape] to what the last node makes."""
    last = nodes[-1].output[0]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "net", [x], [onnx.ValueInfoProto(name=last)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    model.graph.output[0].CopyFrom(inferred.graph.output[0])
    if described is not None:
        model.metadata_props.add(key=METADATA_KEY, value=described.to_json())
    return model


def saved(path: Path, *args: Any, **how: Any) -> str:
    path.write_bytes(model_of(*args, **how).SerializeToString())
    return str(path)


def weights(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
