"""The bytes of one self-describing ONNX model: a graph, its description and golden samples. Without torch."""

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx

from edgegan import __version__
from edgegan.errors import ExportError
from edgegan.image import to_uint8
from edgegan.model import inputs_of, load, shrink
from edgegan.session import MAX_MODEL_BYTES
from edgegan.spec import METADATA_KEY, Golden, ModelSpec

if TYPE_CHECKING:
    from torch import nn

GOLDEN_SEED = 0
GOLDEN_COUNT = {"generate": 16, "translate": 4}  # the fewer, the more pixels of each
# Of 255. Other processors sum in another order and may round a pixel the other way. In int8 a last bit that is rounded
# otherwise grows from layer to layer: of 200 pictures' pixels the worst was 23 apart between integer kernels and the
# same file computed in float, and the mean 0.01.
GOLDEN_TOLERANCE = {"fp32": 2, "fp16": 8, "int8": 32}


def describe(model: onnx.ModelProto, spec: ModelSpec, module: "nn.Module | None" = None) -> bytes:
    """Add the spec with golden samples, check the model, and return the file's bytes.

    The golden samples are what `module` draws; without it what onnxruntime draws here with the model itself, for one
    of so few bits that its network is no measure of it. Raises ExportError for a model that is too large.
    """
    count = GOLDEN_COUNT[spec.task]
    height, width = Golden.fit(spec.image_size, spec.channels, count)
    if module is None:
        bare = load(_described(model, replace(spec, golden=None)), provider="cpu")
        drawn = bare.test_pictures(count, GOLDEN_SEED)
    else:
        from edgegan.export.trace import draw

        drawn = to_uint8(draw(module, spec, inputs_of(spec, GOLDEN_SEED, count)))
    pixels = shrink(drawn, (height, width)).tobytes()
    golden = Golden(GOLDEN_SEED, count, (height, width), GOLDEN_TOLERANCE[spec.precision], pixels)
    data = _described(model, replace(spec, golden=golden))
    onnx.checker.check_model(data, full_check=True)
    return data


def _described(model: onnx.ModelProto, spec: ModelSpec) -> bytes:
    del model.metadata_props[:]
    model.producer_name, model.producer_version = "edgegan", __version__
    model.metadata_props.add(key=METADATA_KEY, value=replace(spec, version=__version__).to_json())
    return serialized(model)


def serialized(model: onnx.ModelProto) -> bytes:
    """The file's bytes. Raises ExportError for more than protobuf can hold."""
    size = model.ByteSize()
    if size > MAX_MODEL_BYTES:
        raise ExportError(f"the model has {size} bytes; valid: at most {MAX_MODEL_BYTES}, what one ONNX file can hold")
    data: bytes = model.SerializeToString(deterministic=True)
    return data
