"""From a torch generator to the bytes of one self-describing ONNX model."""

import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace

import numpy as np
import onnx
import torch
from torch import nn

from edgegan import __version__
from edgegan.errors import ExportError
from edgegan.image import to_uint8
from edgegan.model import inputs_of, shrink
from edgegan.spec import METADATA_KEY, Golden, ModelSpec

OPSET = 18  # what torch writes without a conversion, and what onnxruntime has read since 1.14
GOLDEN_SEED = 0
GOLDEN_COUNT = 16
GOLDEN_TOLERANCE = {"fp32": 2}  # of 255: other processors sum in another order and may round a pixel the other way
TRACE_BATCH = 3  # torch treats 0 and 1 as constants


@torch.no_grad()
def draw(module: nn.Module, spec: ModelSpec, feed: dict[str, np.ndarray]) -> np.ndarray:
    """The torch module's pictures for `feed`: float32 [n, C, H, W]. Raises ExportError for another shape."""
    drawn = module(*(torch.from_numpy(value) for value in feed.values())).numpy()
    expected = (len(feed["z"]), spec.channels, *spec.image_size)
    if drawn.shape != expected:
        raise ExportError(
            f"recipe {spec.recipe} draws an output of shape {list(drawn.shape)}, expected {list(expected)}"
        )
    return drawn


def to_model(module: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
    """Trace `module` (eval mode, on the CPU, float32) with a free batch N. Raises ExportError if torch can't."""
    feed = inputs_of(spec, GOLDEN_SEED, TRACE_BATCH)
    batch = torch.export.Dim("N")
    try:
        # The exporter prints its progress and warns of its own internals; what fails raises.
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            program = torch.onnx.export(
                module,
                tuple(torch.from_numpy(value) for value in feed.values()),
                input_names=list(feed),
                output_names=["image"],
                dynamic_shapes=tuple({0: batch} if shape[0] == "N" else None for _, shape in spec.inputs().values()),
                opset_version=OPSET,
                external_data=False,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # torch raises its own kinds, which share no base class
        raise ExportError(
            f"torch cannot turn recipe {spec.recipe} into ONNX: {str(error).partition(chr(10))[0]}"
        ) from error
    assert program is not None
    model = program.model_proto
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if not first.HasField("dim_value"):
            first.dim_param = "N"  # torch makes up a name
    _strip_traces(model)
    return model


def _strip_traces(model: onnx.ModelProto) -> None:
    """Drop what torch noted of source files and modules: it names paths of this machine and helps nobody."""
    model.doc_string = ""
    del model.metadata_props[:]
    graph = model.graph
    del graph.metadata_props[:]
    del graph.value_info[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]


def describe(model: onnx.ModelProto, spec: ModelSpec, module: nn.Module) -> bytes:
    """Add the spec with golden samples that `module` draws, check the model, and return the file's bytes."""
    height, width = Golden.fit(spec.image_size, spec.channels, GOLDEN_COUNT)
    drawn = shrink(to_uint8(draw(module, spec, inputs_of(spec, GOLDEN_SEED, GOLDEN_COUNT))), (height, width))
    golden = Golden(GOLDEN_SEED, GOLDEN_COUNT, (height, width), GOLDEN_TOLERANCE[spec.precision], drawn.tobytes())
    spec = replace(spec, golden=golden, version=__version__)
    model.producer_name, model.producer_version = "edgegan", __version__
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, spec.to_json()
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)
