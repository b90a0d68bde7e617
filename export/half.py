"""float16: half the bytes, by onnxruntime's converter. For storage and for GPUs; a CPU computes it in float32."""

import onnx
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.transformers.float16 import convert_float_to_float16


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights and activations of float16; its inputs and outputs stay float32.

    Weights beyond float16's range (65,504) are cut to it, and those nearer to 0 than 1e-7 are moved to that.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    made = ONNXModel(convert_float_to_float16(copy, keep_io_types=True))
    made.topological_sort()  # casts are appended, and the gate reads nodes in their order
    half: onnx.ModelProto = made.model
    del half.graph.value_info[:]
    return half
