"""Models that somebody else exported: used as ours are, once the user has said what their files do not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import ArgumentError, ModelError, one_line
from edgegan.spec import MAX_CLASSES, MAX_LATENT_DIM, MAX_SCALE, MAX_SIDE, MAX_SIZE_MULTIPLE, ModelSpec

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg

    from edgegan.gate import Graph

F32 = NDArray[np.float32]
Feed = dict[str, NDArray[Any]]
LAYOUTS = ("auto", "nchw", "nhwc")
_FLOAT = "tensor(float)"
_PROBE = 64  # pixels a side of the picture that shows a model's scale
_INTEGERS: dict[str, type[np.integer[Any]]] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


@dataclass(frozen=True)
class Foreign:
    """What to know of an ONNX generator without edgegan's metadata.

    Its latents are N(0, 1), [N, dim] or [N, dim, 1, 1] float32, its pictures [N, C, H, W] or [N, H, W, C] float32 with
    C = 1, 3 or 4; N may be fixed. The classes of a conditional one are an integer input [N].
    """

    range: tuple[float, float] = (-1.0, 1.0)  # what black and white are in its output: (0, 1), (0, 255), ...
    latent: str | None = None  # the input's name; default the only float32 input
    label: str | None = None  # the input's name; default the only integer input, if there is one
    classes: int = 0  # how many, for a conditional one
    output: str | None = None  # the output's name; default the only one

    def __post_init__(self) -> None:
        _check_range(self.range)
        if not 0 <= self.classes <= MAX_CLASSES:
            raise ArgumentError(f"classes is {self.classes}; valid: 0 to {MAX_CLASSES}")


@dataclass(frozen=True)
class Adapter:
    """Between the names, shapes and range of a foreign session and those of the model file's contract."""

    foreign: Foreign
    latent: str
    latent_shape: tuple[int, ...]  # without N
    label: str | None
    label_dtype: type[np.integer[Any]]
    output: str
    batch: int | None  # where it is fixed
    channels_last: bool = False

    def run(self, call: Callable[[list[str], Feed], list[Any]], feed: Feed) -> F32:
        """What `call`, a session's run, draws for the contract's inputs: [n, C, H, W] float32, about [-1, 1]."""
        n, step = len(feed["z"]), self.batch or len(feed["z"])
        parts = []
        for i in range(0, n, step):
            # A fixed batch is filled up with the last latent, and what that draws is dropped.
            rows = np.minimum(np.arange(i, i + step), n - 1)
            given: Feed = {self.latent: feed["z"][rows].reshape(step, *self.latent_shape)}
            if self.label is not None:
                given[self.label] = feed["label"][rows].astype(self.label_dtype)
            parts.append(call([self.output], given)[0][: n - i])
        images: F32 = np.concatenate(parts)
        if self.channels_last:
            images = images.transpose(0, 3, 1, 2)
        return _from_range(images, self.foreign.range)


def adapt(session: "InferenceSession", foreign: Foreign, source: str) -> tuple[Adapter, ModelSpec]:
    """How to feed the session of `source`, and what it is; one picture is drawn to see its size.

    Raises ModelError, which names the inputs and outputs there are, where they do not fit or more must be said.
    """
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    latent = _pick(inputs, foreign.latent, lambda node: node.type == _FLOAT, "float32 input for latents", source)
    label = None
    if foreign.label is not None or any(node.type in _INTEGERS for node in inputs.values()):
        label = _pick(inputs, foreign.label, lambda node: node.type in _INTEGERS, "integer input for classes", source)
        if foreign.classes < 1:
            raise ModelError(f"{source}: its input '{label.name}' is for classes: say how many there are")
    elif foreign.classes:
        raise ModelError(f"{source}: it has no integer input for the {foreign.classes} classes")
    left = sorted(set(inputs) - {latent.name, label.name if label else None})
    if left:
        raise ModelError(f"{source}: nobody says what to put into its inputs {left}")
    output = _pick(outputs, foreign.output, lambda node: node.type == _FLOAT, "float32 output", source)
    batch, *shape = latent.shape
    dim = shape[0] if shape else None
    if not isinstance(dim, int) or not 1 <= dim <= MAX_LATENT_DIM or any(size != 1 for size in shape[1:]):
        raise ModelError(f"{source}: its input '{latent.name}' is {latent.shape}; valid: [N, dim] or [N, dim, 1, 1]")
    adapter = Adapter(
        foreign=foreign,
        latent=latent.name,
        latent_shape=tuple(shape),
        label=label.name if label else None,
        label_dtype=_INTEGERS[label.type] if label else np.int64,
        output=output.name,
        batch=batch if isinstance(batch, int) else None,
    )
    feed: Feed = {"z": np.zeros((1, dim), np.float32), "label": np.zeros(1, np.int64)}
    try:
        drawn = adapter.run(session.run, feed)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ModelError(f"{source}: it cannot draw one picture: {one_line(error)}") from error
    sizes = drawn.shape[1:]
    channels_last = len(sizes) == 3 and sizes[0] not in (1, 3, 4) and sizes[2] in (1, 3, 4)
    c, h, w = (sizes[2], *sizes[:2]) if channels_last else sizes if len(sizes) == 3 else (0, 0, 0)
    if c not in (1, 3, 4) or not (1 <= h <= MAX_SIDE and 1 <= w <= MAX_SIDE):
        raise ModelError(f"{source}: it draws {list(drawn.shape)}; valid: [N, C, H, W] or [N, H, W, C], C = 1, 3 or 4")
    spec = ModelSpec(
        recipe="foreign",
        image_size=(h, w),
        channels=c,
        latent_dim=dim,
        classes=tuple(map(str, range(foreign.classes))) if label else (),
    )
    return Adapter(**{**vars(adapter), "channels_last": channels_last}), spec


@dataclass(frozen=True)
class ForeignTranslator:
    """What to know of an ONNX model without edgegan's metadata that turns pictures into others.

    Its only input and its output are float32 [N, C, H, W] or [N, H, W, C] with C = 1, 3 or 4; N, H and W may be fixed.
    """

    range: tuple[float, float] = (-1.0, 1.0)  # what black and white are, before and after: (0, 1), (0, 255), ...
    layout: str = "auto"  # or "nchw" or "nhwc", where the file's shapes do not say which
    scale: int | None = None  # the output's side over the input's; default: what one picture comes out as
    size_multiple: int = 1  # H and W must be multiples of it
    output: str | None = None  # the output's name; default the only one

    def __post_init__(self) -> None:
        _check_range(self.range)
        if self.layout not in LAYOUTS:
            raise ArgumentError(f"layout is {self.layout!r}; valid: {', '.join(LAYOUTS)}")
        if self.scale is not None and not 1 <= self.scale <= MAX_SCALE:
            raise ArgumentError(f"scale is {self.scale}; valid: 1 to {MAX_SCALE}")
        if not 1 <= self.size_multiple <= MAX_SIZE_MULTIPLE:
            raise ArgumentError(f"size_multiple is {self.size_multiple}; valid: 1 to {MAX_SIZE_MULTIPLE}")


@dataclass(frozen=True)
class TranslatorAdapter:
    """As `Adapter`, for a model that translates."""

    foreign: ForeignTranslator
    input: str
    output: str
    channels_last: bool
    batch: int | None  # where it is fixed
    height: int | None
    width: int | None

    def shapes(self, c: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
        """The shape of the model's own input for one picture, by name: what `Graph.cost_of` takes."""
        return {self.input: (1, h, w, c) if self.channels_last else (1, c, h, w)}

    def run(self, call: Callable[[list[str], Feed], list[Any]], feed: Feed) -> F32:
        """What `call`, a session's run, makes of feed["source"]: [n, C, H * scale, W * scale], about [-1, 1]."""
        images: F32 = feed["source"]
        low, high = self.foreign.range
        if (low, high) != (-1.0, 1.0):
            images = (images + np.float32(1)) * np.float32((high - low) / 2) + np.float32(low)
        if self.channels_last:
            images = images.transpose(0, 2, 3, 1)
        n, step = len(images), self.batch or len(images)
        parts = []
        for i in range(0, n, step):
            # A fixed batch is filled up with the last picture, and what comes of that is dropped.
            given = images[i : i + step] if step == n else images[np.minimum(np.arange(i, i + step), n - 1)]
            parts.append(call([self.output], {self.input: np.ascontiguousarray(given)})[0][: n - i])
        drawn: F32 = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if self.channels_last and drawn.ndim == 4:
            drawn = drawn.transpose(0, 3, 1, 2)
        return _from_range(drawn, self.foreign.range)


def adapt_translator(
    session: "InferenceSession", foreign: ForeignTranslator, graph: "Graph", source: str
) -> tuple[TranslatorAdapter, ModelSpec]:
    """How to feed the session of `source`, and what it is; one picture is translated to see its scale.

    Raises ModelError where inputs and outputs do not fit, or more must be said.
    """
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    given = _pick(inputs, None, lambda node: node.type == _FLOAT, "float32 input for pictures", source)
    if len(inputs) > 1:
        left = sorted(set(inputs) - {given.name})
        raise ModelError(f"{source}: nobody says what to put into its inputs {left}")
    output = _pick(outputs, foreign.output, lambda node: node.type == _FLOAT, "float32 output", source)
    last = _is_channels_last(given.shape, foreign.layout, source)
    order = (0, 3, 1, 2) if last else (0, 1, 2, 3)
    c: int = given.shape[order[1]]
    n, fixed_h, fixed_w = (given.shape[i] if isinstance(given.shape[i], int) else None for i in (0, *order[2:]))
    m = foreign.size_multiple
    adapter = TranslatorAdapter(foreign, given.name, output.name, last, n, fixed_h, fixed_w)
    h, w = (side or -(-_PROBE // m) * m for side in (fixed_h, fixed_w))
    if h % m or w % m:
        raise ModelError(f"{source}: its pictures are {w} x {h}, which are no multiples of {m}, its size_multiple")
    if max(h, w) > MAX_SIDE:
        raise ModelError(f"{source}: its pictures are {w} x {h}; valid: at most {MAX_SIDE} a side")
    try:
        graph.cost_of(adapter.shapes(c, h, w))
        drawn = adapter.run(session.run, {"source": np.zeros((1, c, h, w), np.float32)})
    except ModelError as error:
        raise ModelError(f"{source}: it cannot take a picture of {w} x {h}: {error}") from None
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ModelError(f"{source}: it cannot take a picture of {w} x {h}: {one_line(error)}") from error
    scale = drawn.shape[2] // h if drawn.ndim == 4 else 0
    if not 1 <= scale <= MAX_SCALE or drawn.shape != (1, c, h * scale, w * scale):
        made = f"of [1, {c}, {h}, {w}] it makes {list(drawn.shape)}"
        raise ModelError(f"{source}: {made}; valid: as many channels, and the sides times a whole number")
    if foreign.scale not in (None, scale):
        raise ModelError(f"{source}: its scale is {scale}, not {foreign.scale}: of {w} x {h} it makes {w * scale} wide")
    spec = ModelSpec(
        recipe="foreign",
        image_size=(h, w),
        channels=c,
        latent_dim=None,
        task="translate",
        scale=scale,
        size_multiple=m,
    )
    return adapter, spec


def _is_channels_last(shape: list[Any], layout: str, source: str) -> bool:
    """Whether pictures of a declared shape are [N, H, W, C]. Raises ModelError where it does not say."""
    valid = "valid: [N, C, H, W] or [N, H, W, C], C = 1, 3 or 4"
    if len(shape) != 4:
        raise ModelError(f"{source}: its input is {shape}; {valid}")
    places = {name: shape[place] in (1, 3, 4) for name, place in (("nchw", 1), ("nhwc", 3))}
    fitting = [name for name in ("nchw", "nhwc") if places[name] and layout in ("auto", name)]
    if len(fitting) == 2:
        raise ModelError(f"{source}: its input is {shape}, which may be either: say the layout, nchw or nhwc")
    if not fitting:
        raise ModelError(f"{source}: its input is {shape}; {valid}" + f", here {layout}" * (layout != "auto"))
    return fitting == ["nhwc"]


def _check_range(range: tuple[float, float]) -> None:
    low, high = range
    if not (np.isfinite([low, high]).all() and low != high):
        raise ArgumentError(f"range is {range}; valid: two different finite numbers, what black and white are")


def _from_range(images: F32, range: tuple[float, float]) -> F32:
    """From what a model means by black and white to -1 and 1."""
    low, high = range
    if (low, high) != (-1.0, 1.0):
        images = (images - np.float32(low)) * np.float32(2 / (high - low)) - np.float32(1)
    return images


def _pick(
    nodes: "dict[str, NodeArg]", name: str | None, fits: "Callable[[NodeArg], bool]", what: str, source: str
) -> "NodeArg":
    """The node called `name`, or the only one that fits."""
    found = [node for node in nodes.values() if fits(node) and name in (None, node.name)]
    if len(found) != 1:
        there = ", ".join(f"'{node.name}' {node.type} {node.shape}" for node in nodes.values())
        problem = f"'{name}' is no {what}" if name is not None else f"it has {len(found)} times a {what}: name one"
        raise ModelError(f"{source}: {problem}; there are {there}")
    return found[0]
