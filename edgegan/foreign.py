"""Generators that somebody else exported: used as ours are, once the user has said what their files do not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import ArgumentError, ModelError, one_line
from edgegan.spec import MAX_CLASSES, MAX_LATENT_DIM, MAX_SIDE, ModelSpec

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg

F32 = NDArray[np.float32]
Feed = dict[str, NDArray[Any]]
_FLOAT = "tensor(float)"
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
        low, high = self.range
        if not (np.isfinite([low, high]).all() and low != high):
            raise ArgumentError(f"range is {self.range}; valid: two different finite numbers, what black and white are")
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
        low, high = self.foreign.range
        if (low, high) != (-1.0, 1.0):
            images = (images - np.float32(low)) * np.float32(2 / (high - low)) - np.float32(1)
        return images


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
