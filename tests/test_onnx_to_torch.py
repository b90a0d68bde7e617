"""The reader of ONNX graphs: each operator against onnxruntime, and its gradients against numerical ones."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from feature_networks import model_of, node, weights
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from edgegan.trainer.metrics.features import NAMES, NETWORKS
from edgegan.trainer.onnx_to_torch import OPERATORS, OnnxModule


@pytest.fixture
def rng() -> np.random.Generator:
    """Each test draws the same numbers, whichever ran before."""
    return np.random.default_rng(0)


def runs(model: onnx.ModelProto, x: NDArray[np.float32]) -> list[NDArray[Any]]:
    """onnxruntime's outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})


POOL = {"kernel_shape": [3, 2]}
C3 = weights(3, seed=2)
CASES: dict[str, tuple[list[NodeProto], dict[str, Any]]] = {
    "conv": ([node("Conv", "x", "w", "b")], {"w": weights(4, 3, 3, 2), "b": weights(4)}),
    "conv-groups": (
        [node("Conv", "x", "w", group=3, dilations=[2, 1], strides=[2, 1], pads=[2, 1, 0, 1])],
        {"w": weights(6, 1, 3, 3)},
    ),
    "conv-even-pads": ([node("Conv", "x", "w", pads=[2, 1, 2, 1])], {"w": weights(2, 3, 3, 3)}),
    "conv-same-upper": (
        [node("Conv", "x", "w", auto_pad="SAME_UPPER", strides=[2, 3])],
        {"w": weights(2, 3, 4, 4)},
    ),
    "conv-same-lower": ([node("Conv", "x", "w", auto_pad="SAME_LOWER")], {"w": weights(2, 3, 2, 4)}),
    "conv-valid": ([node("Conv", "x", "w", auto_pad="VALID")], {"w": weights(2, 3, 3, 3)}),
    "max-pool": ([node("MaxPool", "x", strides=[2, 2], pads=[0, 0, 1, 1], **POOL)], {}),
    "max-pool-ceil": ([node("MaxPool", "x", strides=[2, 3], ceil_mode=1, pads=[1, 1, 1, 1], **POOL)], {}),
    "max-pool-ceil-behind": ([node("MaxPool", "x", strides=[4, 4], ceil_mode=1, kernel_shape=[1, 2])], {}),
    "max-pool-dilated": ([node("MaxPool", "x", dilations=[2, 3], **POOL)], {}),
    "max-pool-same": ([node("MaxPool", "x", auto_pad="SAME_UPPER", strides=[2, 2], **POOL)], {}),
    "average-pool": ([node("AveragePool", "x", strides=[2, 1], **POOL)], {}),
    "average-pool-pads": ([node("AveragePool", "x", pads=[1, 0, 2, 1], **POOL)], {}),
    "average-pool-counted": ([node("AveragePool", "x", pads=[1, 0, 2, 1], count_include_pad=1, **POOL)], {}),
    "average-pool-ceil": ([node("AveragePool", "x", strides=[2, 3], ceil_mode=1, **POOL)], {}),
    "average-pool-same": ([node("AveragePool", "x", auto_pad="SAME_LOWER", strides=[2, 2], **POOL)], {}),
    "global-average-pool": ([node("GlobalAveragePool", "x")], {}),
    "reduce-mean": ([node("ReduceMean", "x", "axes", keepdims=0)], {"axes": [2, -1]}),
    "reduce-mean-all": ([node("ReduceMean", "x")], {}),
    "batch-norm": (
        [node("BatchNormalization", "x", "s", "b", "m", "v", epsilon=0.1)],
        {"s": C3, "b": weights(3), "m": weights(3, seed=3), "v": weights(3) ** 2},
    ),
    "instance-norm": ([node("InstanceNormalization", "x", "s", "b", epsilon=0.1)], {"s": C3, "b": weights(3)}),
    "relu": ([node("Relu", "x")], {}),
    "leaky-relu": ([node("LeakyRelu", "x", alpha=0.3)], {}),
    "leaky-relu-default": ([node("LeakyRelu", "x")], {}),
    "prelu": ([node("PRelu", "x", "s")], {"s": C3[:, None, None]}),
    "sigmoid": ([node("Sigmoid", "x")], {}),
    "tanh": ([node("Tanh", "x")], {}),
    "hard-sigmoid": ([node("HardSigmoid", "x", alpha=0.4, beta=0.3)], {}),
    "hard-swish": ([node("HardSwish", "x")], {}),
    "clip": ([node("Clip", "x", "low", "high")], {"low": np.float32(-0.5), "high": np.float32(0.8)}),
    "clip-above": ([node("Clip", "x", "", "high")], {"high": np.float32(0.8)}),
    "softmax": ([node("Softmax", "x", axis=1)], {}),
    "softmax-last": ([node("Softmax", "x")], {}),
    "arithmetic": (
        [
            node("Add", "x", "c", out="a"),
            node("Mul", "a", "x", out="b"),
            node("Sub", "b", "c", out="d"),
            node("Div", "d", "two"),
        ],
        {"c": C3[:, None, None], "two": np.float32(2)},
    ),
    "concat": ([node("Concat", "x", "x", axis=-3)], {}),
    "flatten": ([node("Flatten", "x")], {}),
    "flatten-0": ([node("Flatten", "x", axis=0)], {}),
    "flatten-last": ([node("Flatten", "x", axis=-1)], {}),
    "reshape": ([node("Reshape", "x", "to")], {"to": [0, -1, 6]}),
    "unsqueeze-squeeze": (
        [node("Unsqueeze", "x", "out", out="a"), node("Squeeze", "a", "in")],
        {"out": [-1, 0], "in": [0]},
    ),
    "squeeze-all": ([node("GlobalAveragePool", "x", out="a"), node("Squeeze", "a")], {}),
    "transpose": ([node("Transpose", "x", perm=[0, 2, 3, 1])], {}),
    "transpose-all": ([node("Transpose", "x")], {}),
    "gemm": (
        [node("Flatten", "x", out="a"), node("Gemm", "w", "a", "c", transA=1, transB=1, alpha=0.5, beta=2.0)],
        {"w": weights(126, 4), "c": weights(4, 1)},
    ),
    "gemm-plain": ([node("Flatten", "x", out="a"), node("Gemm", "a", "w")], {"w": weights(126, 4)}),
    "matmul": ([node("MatMul", "x", "w")], {"w": weights(6, 4)}),
    "pad": ([node("Pad", "x", "pads", "c")], {"pads": [0, 1, 2, 0, 0, 0, -1, 3], "c": np.float32(0.5)}),
    "pad-axes": ([node("Pad", "x", "pads", "", "axes")], {"pads": [1, 2, 3, 4], "axes": [-1, 1]}),
    "pad-reflect": ([node("Pad", "x", "pads", mode="reflect")], {"pads": [0, 0, 2, 1, 0, 0, 1, 3]}),
    "pad-edge": ([node("Pad", "x", "pads", mode="edge")], {"pads": [0, 0, 2, 0, 0, 0, 1, 0]}),
    "gather": ([node("Gather", "x", "places", axis=2)], {"places": [[0, -1], [2, 2]]}),
    "constant": (
        [node("Constant", out="c", value_floats=[0.5, 2, 3, 4, 5, 6]), node("Mul", "x", "c")],
        {},
    ),
    # x.view(len(x), -1) // 1, as exporters write it.
    "view": (
        [
            node("Identity", "x", out="same"),
            node("Dropout", "same", out="kept"),
            node("Shape", "kept", start=0, end=2, out="shape"),
            node("Gather", "shape", "first", out="n"),
            node("Div", "n", "one", out="n1"),
            node("Unsqueeze", "n1", "axes", out="ns"),
            node("Cast", "rest", to=TensorProto.INT64, out="rest64"),
            node("Concat", "ns", "rest64", axis=0, out="sizes"),
            node("Reshape", "kept", "sizes"),
        ],
        {"first": np.int64(0), "one": np.int64(1), "axes": [0], "rest": np.array([-1], np.int32)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_operators_are_those_of_onnxruntime_and_gradients_are_numerical_ones(
    name: str, rng: np.random.Generator
) -> None:
    nodes, constants = CASES[name]
    model = model_of(nodes, constants, (2, 3, 7, 6))
    x = rng.normal(size=(2, 3, 7, 6)).astype(np.float32)
    module = OnnxModule(model, "net.onnx")
    ours = module(torch.from_numpy(x))
    for expected, found in zip(runs(model, x), ours, strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5, strict=True)
    exact = torch.from_numpy(x).double().requires_grad_()
    assert torch.autograd.gradcheck(module.double(), exact, fast_mode=True)


def test_every_operator_has_a_case() -> None:
    assert {item.op_type for nodes, _ in CASES.values() for item in nodes} == {*OPERATORS, "Constant"}


@pytest.mark.parametrize("name", NAMES)
def test_the_networks_that_come_along_are_those_of_onnxruntime(name: str, rng: np.random.Generator) -> None:
    model = onnx.load(NETWORKS / f"{name}.onnx")
    x = rng.uniform(-1, 1, (5, 1, 28, 28)).astype(np.float32)
    model.graph.input[0].name = model.graph.node[0].input[0] = "x"
    for expected, found in zip(runs(model, x), OnnxModule(model, name)(torch.from_numpy(x)), strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)
