"""From a torch module to an ONNX graph: `to_model`. What cannot become one is refused with its line."""

import inspect
import math
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn

from edgegan import gate
from edgegan.errors import ExportError, ModelError, printable
from edgegan.export.blame import frozen, line_of, node_of, quiet, shown, where, whole_stacks
from edgegan.export.describe import GOLDEN_SEED, serialized
from edgegan.export.graph import RANDOM
from edgegan.export.verify import BATCHES, RANGE_SLACK, SAME_PICTURE, least_units, named, sizes_of
from edgegan.model import inputs_of
from edgegan.session import MAX_MODEL_BYTES
from edgegan.spec import ModelSpec

OPSET = 18  # what torch writes without a conversion, and what onnxruntime has read since 1.14
TRACE_BATCH = 3  # torch treats 0 and 1 as constants
FREE = (
    "the batch N must stay free: take it from a tensor's shape (z.shape[0], or -1 in view), and compute all pictures "
    "at once in place of a loop, an if or int() over it"
)
GRAPH = "the graph"
WHERE = "write it with torch.where, or as numbers that __init__ computes"
SIZES = (
    "the height and width of a source must stay free, for multiples of size_multiple from {smallest} on: take sizes "
    "from x.shape, and give a network that halves its source k times a size_multiple of 2 ** k"
)
NO_INPUT = "leave it out, or make it of the source's own pixels"
INPUT = "take it as an input noise_k (ModelSpec.noise_inputs), which edgegan draws from the seed"
GROUPS = (
    "its groups are the pictures of the batch N, which must stay free; scale the activations and not the weights: "
    "edgegan.trainer.layers.modulated_conv2d"
)
TRACE_KEY, SCOPES_KEY = "pkg.torch.onnx.stack_trace", "pkg.torch.onnx.name_scopes"


def to_model(module: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
    """The graph of `module` (eval mode, on the CPU, float32; see bake.py), with free dimensions and no traces of torch.

    Free is the batch N, and of a model that translates the height and width of its source.

    Raises ExportError for a module that is not what `spec` says, or that cannot become such a graph. It names the line
    of the module that is to blame, where there is one.
    """
    drawn = check_module(module, spec)
    names = list(spec.inputs())
    model = to_onnx(to_program(module, spec), [f"<{name}>" for name in names], ["<image>"], _instead(spec))
    _name_ports(model, names, {"<source>": ("H", "W"), "<image>": _times(spec.scale)} if "source" in names else {})
    places = {node.name: _place_of(node) for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type in RANDOM or (node.op_type == "Dropout" and len(node.input) > 2):
            raise ExportError(
                f"{places[node.name]}it draws noise inside the graph (operator {node.op_type}); {_instead(spec)}"
            )
    _check_pictures(drawn, spec)
    _strip_traces(model)
    _check_gate(model, places)
    return model


def _instead(spec: ModelSpec) -> str:
    """What to do in place of noise inside the graph."""
    return NO_INPUT if spec.task == "translate" else INPUT


def _times(scale: int) -> tuple[str, str]:
    """What the height and width of an image are called."""
    return ("H", "W") if scale == 1 else (f"{scale}*H", f"{scale}*W")


def _name_ports(model: onnx.ModelProto, inputs: list[str], sides: dict[str, tuple[str, str]]) -> None:
    """Call inputs <z>, ..., the output <image> and free dimensions what the model file's contract calls them.

    sides: the height and width of ports whose own are free. What torch calls them it made up.
    A parameter or a value in between that has such a name already gets another one.
    """
    graph = model.graph
    names = {name: f"{name}.inner" for name in (*inputs, "image")} | {f"<{name}>": name for name in (*inputs, "image")}
    for port in (*graph.input, *graph.output):
        called = ("N", "", *sides.get(port.name, ("", "")))
        for dimension, name in zip(port.type.tensor_type.shape.dim, called, strict=False):
            if name and not dimension.HasField("dim_value"):
                dimension.dim_param = name
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]


def _place_of(node: onnx.NodeProto) -> str:
    found = {item.key: item.value for item in node.metadata_props}
    return where(found.get(TRACE_KEY, ""), re.findall(r"'([^']*)'", found.get(SCOPES_KEY, "")))


def _check_pictures(drawn: dict[int, np.ndarray], spec: ModelSpec) -> None:
    """Raise ExportError unless picture i is the same in each batch."""
    first = drawn[max(drawn)]
    worst = max(float(np.abs(pictures - first[: len(pictures)]).max()) for pictures in drawn.values())
    if worst > SAME_PICTURE["fp32"]:
        given = "sources" if spec.task == "translate" else "latents"
        raise ExportError(
            f"the same {given} give another picture in another batch, by {worst:.3g} of pixels in [-1, 1]: forward "
            "draws random numbers, or mixes the pictures of a batch (batch statistics, for one); call eval(), and use "
            f"nothing but a picture's own inputs; {_instead(spec)}"
        )


def _check_gate(model: onnx.ModelProto, places: dict[str, str]) -> None:
    """Raise ExportError for what edgegan would not load."""
    try:
        gate.check(serialized(model), GRAPH, small=True)  # load asks again for each size
    except ModelError as error:
        said = str(error)
        place = next((place for name, place in places.items() if name and f"node '{name}'" in said), "")
        advice = "; write it with operators of the list in edgegan/_shapes.py" if " is the operator " in said else ""
        raise ExportError(f"{place}edgegan would not load {said}{advice}") from error


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


@torch.no_grad()
def draw(module: nn.Module, spec: ModelSpec, feed: dict[str, np.ndarray]) -> np.ndarray:
    """The torch module's pictures for `feed`: float32 [n, C, H, W].

    Raises ExportError if it fails, or gives anything else; whether the pixels are finite is not looked at.
    """
    n = len(next(iter(feed.values())))
    tensors = [torch.from_numpy(np.array(value)) for value in feed.values()]
    try:
        drawn = module(*tensors)
    except Exception as error:  # what a stranger's forward raises
        raise ExportError(f"forward fails for {_inputs(spec, feed)}: {line_of(error)}{shown(error)}") from error
    if not isinstance(drawn, Tensor):
        raise ExportError(f"forward returns a {type(drawn).__name__}; valid: one tensor, the image [N, C, H, W]")
    h, w = feed["source"].shape[2:] if spec.task == "translate" else spec.image_size
    expected = [n, spec.channels, spec.scale * h, spec.scale * w]
    if list(drawn.shape) != expected:
        advice = f": {FREE}" if list(drawn.shape[1:]) == expected[1:] else "; correct it, or image_size and channels"
        raise ExportError(
            f"forward draws an output of shape {list(drawn.shape)} for {_inputs(spec, feed)}, but the spec calls for "
            f"{expected}{advice}"
        )
    if drawn.dtype != torch.float32:
        raise ExportError(f"forward draws an output of {drawn.dtype}; valid: torch.float32; end it in .float()")
    return drawn.numpy()


def _inputs(spec: ModelSpec, feed: dict[str, np.ndarray]) -> str:
    """For messages: what was drawn of."""
    n = len(next(iter(feed.values())))
    return f"a batch of {n}" + (f" of {named(feed['source'].shape[2:])}" if spec.task == "translate" else "")


def check_module(module: nn.Module, spec: ModelSpec) -> dict[int, np.ndarray]:
    """Whether `module` is what `spec` says as torch runs it; its pictures at batches 1, 2, 3 and 17.

    Raises ExportError for weights that are too many or not finite, other inputs than the spec's, an output of another
    shape, type or range, and a batch, or a size of what is translated, that is not free.
    """
    tensors = dict(chain(module.named_parameters(), module.named_buffers()))
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    if size > MAX_MODEL_BYTES:
        raise ExportError(
            f"its weights have {size} bytes; valid: at most {MAX_MODEL_BYTES}, what one ONNX file can hold"
        )
    for name, value in tensors.items():
        if not (finite := torch.isfinite(value)).all():
            bad = value[~finite].flatten()[0].item()
            raise ExportError(
                f"weights that are not finite: {printable(name)} holds {bad}; train again, or export an earlier "
                "checkpoint; nothing was written"
            )
    _check_inputs(module, spec)
    drawn: dict[int, np.ndarray] = {}
    for n in sorted(BATCHES, key=lambda n: n != TRACE_BATCH):
        try:
            drawn[n] = draw(module, spec, inputs_of(spec, GOLDEN_SEED, n))
        except ExportError as error:
            if not drawn:
                raise
            try:
                to_program(module, spec)
            except ExportError as traced:
                if FREE in str(traced):  # it names the line
                    raise traced from error
            raise ExportError(f"{error}; it works for a batch of {TRACE_BATCH}, but {FREE}") from error
    pictures = [*drawn.values(), *_at_sizes(module, spec)]
    low, high = (float(f([f(some) for some in pictures])) for f in (np.min, np.max))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ExportError("forward draws pixels that are nan or infinite; nothing was written")
    if max(-low, high) > 1 + RANGE_SLACK:
        raise ExportError(
            f"forward draws pixels from {low:.4g} to {high:.4g}; valid: -1 to 1; end it in torch.tanh(x) or "
            "x.clamp(-1, 1), or rescale what it was trained with"
        )
    return drawn


def _at_sizes(module: nn.Module, spec: ModelSpec) -> Iterator[np.ndarray]:
    """What a module that translates makes of sources of other sizes than that of training. Raises ExportError."""
    for size in sizes_of(spec)[1:] if spec.task == "translate" else []:
        try:
            yield draw(module, spec, inputs_of(spec, GOLDEN_SEED, 2, size=size))
        except ExportError as error:
            raise ExportError(f"{error}; it works for {named(spec.image_size)}, but {_free(spec)}") from error


def _free(spec: ModelSpec) -> str:
    """What must stay free, and how to do that."""
    return SIZES.format(smallest=least_units(spec) * spec.size_multiple) if spec.task == "translate" else FREE


def _check_inputs(module: nn.Module, spec: ModelSpec) -> None:
    names = list(spec.inputs())
    try:
        inspect.signature(module.forward).bind(*names)
    except TypeError as error:
        raise ExportError(
            f"{type(module).__name__}.forward{inspect.signature(module.forward)} does not take the inputs of its spec, "
            f"{', '.join(names)}: {error}; valid: these, in this order (ModelSpec.inputs)"
        ) from None


def to_program(module: nn.Module, spec: ModelSpec) -> torch.export.ExportedProgram:
    """The graph of torch operators, with a free batch N, and free H and W of a source, in multiples of size_multiple.

    Raises ExportError with the line that prevents it.
    """
    least, m = least_units(spec), spec.size_multiple
    # Of sides that differ from each other, from the batch and from the smallest: torch would take them for the same.
    feed = inputs_of(spec, GOLDEN_SEED, TRACE_BATCH, size=(m * (least + 3), m * (least + 5)))
    batch, *sides = torch.export.Dim("N"), torch.export.Dim("h", min=least), torch.export.Dim("w", min=least)
    free: dict[int | str, Any] = {"N": batch, "H": m * sides[0], "W": m * sides[1]}
    shapes = tuple(
        {i: free[size] for i, size in enumerate(shape) if size in free} or None for _, shape in spec.inputs().values()
    )
    tensors = tuple(torch.from_numpy(np.array(value)) for value in feed.values())
    with quiet() as guards, whole_stacks():
        try:
            # not strict: Python runs as it is, and only what torch computes is noted
            return torch.export.export(module, tensors, dynamic_shapes=_by_argument(module, shapes), strict=False)
        except Exception as error:  # torch raises its own kinds, which share no base class
            found = error
    text = str(found)
    if "Constraints violated" in text:
        numbers = range(least, least + 4) if spec.task == "translate" else BATCHES
        raise ExportError(f"{frozen(guards, numbers)}{_free(spec)}") from found
    if "data-dependent" in text or "DataDependent" in type(found).__name__:
        raise ExportError(
            f"{line_of(found)}what is computed depends on the values of a tensor, which an ONNX graph cannot do; "
            f"{WHERE}"
        ) from found
    raise ExportError(f"torch cannot trace it: {line_of(found)}{shown(found)}") from found


def _by_argument(module: nn.Module, shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """As torch wants them: those of *args in a tuple of their own."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    for i, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_POSITIONAL and i < len(shapes):
            return (*shapes[:i], shapes[i:])
    return shapes


def to_onnx(program: torch.export.ExportedProgram, inputs: list[str], outputs: list[str], instead: str = INPUT) -> Any:
    """The program as an onnx.ModelProto. Raises ExportError with the operator that ONNX lacks, and its line.

    inputs, outputs: their names, which no parameter may have: torch would take one for the other. instead: what to do
    in place of noise inside the graph.
    """
    with quiet():
        try:
            made = torch.onnx.export(
                program,
                input_names=inputs,
                output_names=outputs,
                opset_version=OPSET,
                external_data=False,
                dynamo=True,
                verbose=False,
            )
        except Exception as error:
            found = error
        else:
            assert made is not None
            return made.model_proto
    node = node_of(found)
    if node is None:
        raise ExportError(f"torch cannot turn it into ONNX: {shown(found)}") from found
    place = where(
        node.meta.get("stack_trace") or "", [name for name, _ in node.meta.get("nn_module_stack", {}).values()]
    )
    if "conv" in str(node.target) and any(isinstance(arg, fx.Node) for arg in node.args[6:]):
        advice = GROUPS
    elif torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        advice = f"it draws noise inside the graph; {instead}"
    else:
        advice = "write it with operators that ONNX has, or compute it in __init__ if it does not depend on the inputs"
    raise ExportError(f"{place}the operator {node.target} cannot be exported to ONNX: {advice}") from found
