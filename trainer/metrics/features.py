"""Features of pictures from a network: the space in which sets of pictures are compared.

    network = open_features("lenet")                        # comes with edgegan, for 28 x 28 digits
    network = open_features("inception")                    # that of FID, which torch-fidelity brings: inception.py
    network = open_features("resnet.onnx", range=(-1, 1))   # any other: a file, and how it wants its pictures
    features = network(images)                              # uint8 [n, H, W, C] -> float32 [n, network.dim]

How the pictures become the network's input is a `Preparation`. A file tells it of itself in
`metadata_props["edgegan-features"]`, as JSON with the fields of Preparation, or the caller does.
"""

import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegan.devices import default_threads, onnxruntime
from edgegan.errors import ArgumentError, ModelError, one_line, printable
from edgegan.gate import Graph, check
from edgegan.session import open_session, read_file
from edgegan.spec import Shape

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

METADATA_KEY = "edgegan-features"
NETWORKS = Path(__file__).parent / "networks"
NAMES = ("lenet", "lenet-fashion")  # of the ONNX files that come along
INCEPTION, WEIGHTS = "inception", ".pth"  # the network of FID, and what other weights for it end in
BATCH = 64
MAX_SIDE = 4096
FORMAT = 1


@dataclass(frozen=True)
class Preparation:
    """From uint8 pictures to a network's input: colours, then size, then range, then mean and deviation.

    Raises ArgumentError for values that are not valid.
    """

    range: tuple[float, float]  # what black and white become, before mean and std
    size: tuple[int, int] | None = None  # (h, w) in pixels; None where the network's own input says it
    channels: int | None = None  # 1 (grey) or 3; None as size
    mean: tuple[float, ...] = (0.0,)  # taken off, of each channel in the network's order, or one for all
    std: tuple[float, ...] = (1.0,)  # divided by, likewise
    order: str = "RGB"  # or BGR
    layout: str = "NCHW"  # or NHWC
    resize: str = "bicubic"  # Pillow's, which averages when it shrinks; a picture of another form is distorted
    output: str | None = None  # of features [N, d] or [N, d, 1, 1]; None: the only output
    logits: str | None = None  # the output [N, classes] of a classifier

    def __post_init__(self) -> None:
        limits = _numbers(self.range) and len(self.range) == 2 and self.range[0] != self.range[1]
        _need(limits, "range", self.range, "two different finite numbers, what black and white become")
        sides = self.size is None or (_numbers(self.size) and len(self.size) == 2 and all(map(_is_whole, self.size)))
        _need(sides, "size", self.size, f"height and width, each 1 to {MAX_SIDE} pixels")
        _need(self.channels in (None, 1, 3), "channels", self.channels, "1 (grey) or 3 (RGB)")
        for name, values in (("mean", self.mean), ("std", self.std)):
            good = _numbers(values) and len(values) in (1, 3) and (name == "mean" or min(values) > 0)
            _need(good, name, values, "1 or 3 finite numbers, std above 0")
        for name, choices in (("order", ("RGB", "BGR")), ("layout", ("NCHW", "NHWC")), ("resize", ("bicubic",))):
            _need(getattr(self, name) in choices, name, getattr(self, name), " or ".join(choices))
        for name, value in (("output", self.output), ("logits", self.logits)):
            _need(value is None or isinstance(value, str), name, value, "the name of an output")

    @classmethod
    def from_json(cls, text: str, source: str) -> "Preparation":
        """What the file called `source` says of itself. Unknown keys are ignored. Raises ModelError."""
        try:
            given = json.loads(text)
            if not isinstance(given, dict) or given.get("format") != FORMAT:
                raise ValueError(f"it is not an object of format {FORMAT}; a newer edgegan may read it")
            names = {field.name for field in fields(cls)}
            return cls(**_tuples({name: value for name, value in given.items() if name in names}))
        except (ValueError, TypeError, RecursionError) as error:
            raise ModelError(f"{source}: its {METADATA_KEY} metadata is not valid: {one_line(error)}") from None

    def to_json(self) -> str:
        """The metadata's text, the inverse of `from_json`."""
        return json.dumps({"format": FORMAT, **vars(self)}, separators=(",", ":"))

    def __call__(self, images: U8) -> NDArray[Any]:
        """The network's input for uint8 [n, H, W, C], C = 1 or 3: float32 in its layout. Needs size and channels."""
        assert self.size is not None
        assert self.channels is not None
        if images.shape[1:] != (*self.size, self.channels):
            images = np.stack([_resized(image, self.size, self.channels) for image in images])
        low, high = self.range
        x: F32 = images[..., :: -1 if self.order == "BGR" else 1].astype(np.float32)
        x *= (high - low) / 255
        x += low
        x -= np.array(self.mean, np.float32)
        x /= np.array(self.std, np.float32)
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2) if self.layout == "NCHW" else x)


class Found(NamedTuple):
    features: F32  # [n, dim]
    logits: F32 | None  # [n, classes], where the network is a classifier that says so


def open_features(
    source: str | os.PathLike[str],
    *,
    threads: int | None = None,
    batch: int = BATCH,
    progress: bool = False,
    **how: Any,
) -> "FeatureNetwork":
    """Open a network: `lenet`, `lenet-fashion`, `inception`, an .onnx file, or a .pth file of weights for Inception.

    threads: of the CPU, default as many as this process may use. batch: pictures that run together, unless the file
    fixes it; pictures give the same bits at the same batch and threads. progress: show a bar on stderr if a network has
    to be downloaded: `inception`, the first time. how: the fields of `Preparation`, for an .onnx file that does not
    describe itself; range must be given, the rest where the file leaves it open. A size of one number is a square; None
    is as if it were not given.

    Raises ModelError for a file that is no such network, is not allowed (docs/security.md) or cannot be downloaded,
    ArgumentError for values out of range, also for `how` with a network that describes itself, MissingExtraError
    without onnxruntime, or what `inception` needs.
    """
    _need(threads is None or _is_whole(threads, 1024), "threads", threads, "1 to 1024")
    _need(_is_whole(batch, 1024), "batch", batch, "1 to 1024")
    path, name = os.fspath(source), Path(source).stem
    how = {key: value for key, value in how.items() if value is not None}
    threads = default_threads() if threads is None else threads
    if path == INCEPTION or path.endswith(WEIGHTS):
        if how:
            raise ArgumentError(f"{path} prepares its pictures by itself: do not give {', '.join(how)}")
        from edgegan.trainer.metrics.inception import open_inception

        return open_inception(None if path == INCEPTION else path, threads, batch, progress)
    if path in NAMES:
        path, name = str(NETWORKS / f"{path}.onnx"), path
    data = read_file(path, f"give one of {', '.join((*NAMES, INCEPTION))}, or an .onnx file")
    session, _, _ = open_session(data, path, threads)
    told = _told(session, path, how)
    graph = check(data, path)  # once more, for its inputs and outputs
    return OnnxNetwork(session, _fitted(graph, told, path), path, name, hashlib.sha256(data).hexdigest(), batch)


def _told(session: "InferenceSession", source: str, how: dict[str, Any]) -> Preparation:
    """What the file or the caller says, of which just one must. Raises ModelError, ArgumentError."""
    try:
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    except UnicodeDecodeError:
        raise ModelError(f"{source}: its metadata is not valid UTF-8") from None
    if text is not None and how:
        raise ArgumentError(f"{source} says itself how it wants its pictures: do not give {', '.join(how)}")
    if text is not None:
        return Preparation.from_json(text, source)
    names = [field.name for field in fields(Preparation)]
    if wrong := [name for name in how if name not in names]:
        raise ArgumentError(f"a network has no {', '.join(wrong)}; valid: {', '.join(names)}")
    if "range" not in how:
        raise ArgumentError(f"{source} does not say how it wants its pictures: give range, what black and white become")
    if isinstance(how.get("size"), int):
        how["size"] = (how["size"], how["size"])
    return Preparation(**_tuples(how))


class FeatureNetwork(ABC):
    """An open network. `network(images)` gives features; `run` the logits of a classifier, too."""

    name: str  # what scores name their network by: a name of `open_features`, or the file's without its suffix
    digest: str  # SHA-256 of the file
    preparation: Preparation
    engine: str  # what computes it: with the rest here, what the features' last bits depend on
    batch: int  # pictures that run together
    dim: int  # features of a picture

    def __call__(self, images: U8) -> F32:
        """Features [n, dim] float32 of uint8 pictures [n, H, W, C] of any size, C = 1 or 3. Raises as `run`."""
        return self.run(images).features

    def run(self, images: U8) -> Found:
        """Features, and logits if the network has them, of uint8 pictures [n, H, W, C] of any size, C = 1 or 3.

        Batches are always full, the last one with its last picture again, so that features do not depend on how many
        pictures come in one call. Raises ArgumentError for pictures of another kind, ModelError if the network fails.
        """
        if images.ndim != 4 or images.dtype != np.uint8 or images.size == 0 or images.shape[3] not in (1, 3):
            raise ArgumentError(
                f"pictures are {images.dtype} {list(images.shape)}; valid: uint8 [n, H, W, C] with n >= 1, C = 1 or 3"
            )
        n = len(images)
        parts: list[list[F32]] = []
        for start in range(0, n, self.batch):
            x = self.preparation(images[start : start + self.batch])
            x = x[np.minimum(np.arange(self.batch), len(x) - 1)]
            parts.append([y[: n - start] for y in self._call(x)])
        features, *logits = (np.concatenate(same) for same in zip(*parts, strict=True))
        return Found(features, logits[0] if logits else None)

    @abstractmethod
    def _call(self, x: NDArray[Any]) -> list[F32]:
        """Its outputs for a prepared batch: features [batch, d], and logits [batch, classes] if it has them."""


class OnnxNetwork(FeatureNetwork):
    """One that onnxruntime runs."""

    def __init__(
        self, session: "InferenceSession", preparation: Preparation, source: str, name: str, digest: str, batch: int
    ) -> None:
        self._session, self._source = session, source
        self.preparation, self.name, self.digest = preparation, name, digest
        self.engine = onnxruntime().__version__
        (port,) = session.get_inputs()
        self._input, fixed = port.name, isinstance(port.shape[0], int)
        self._outputs = [output for output in (preparation.output, preparation.logits) if output is not None]
        self.batch = port.shape[0] if fixed else batch
        assert preparation.size is not None
        assert preparation.channels is not None
        blank = np.zeros((port.shape[0] if fixed else 1, *preparation.size, preparation.channels), np.uint8)
        self.dim = self._call(preparation(blank))[0].shape[1]

    def _call(self, x: NDArray[Any]) -> list[F32]:
        try:
            found = self._session.run(self._outputs, {self._input: x})
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ModelError(f"{self._source}: it cannot run on {list(x.shape)}: {one_line(error)}") from error
        for y in found:  # [N, d, 1, 1] will do
            if y.ndim < 2 or len(y) != len(x) or y[0].size != max(y.shape[1:]):
                raise ModelError(
                    f"{self._source}: an output is {list(y.shape)}; valid: a vector for each picture, [N, d]"
                )
        return [y.reshape(len(y), -1) for y in found]


def _fitted(graph: Graph, told: Preparation, source: str) -> Preparation:
    """`told` with what only the graph says filled in. Raises ModelError where they do not fit."""
    inputs, outputs = _listed(graph.inputs), _listed(graph.outputs)
    kind, shape = next(iter(graph.inputs.values()), ("", ()))
    if len(graph.inputs) != 1 or kind != "float32" or len(shape) != 4:
        raise ModelError(f"{source}: its inputs are {inputs}; valid: one, float32 with 4 dimensions")
    found: list[Any] = []
    axes = (1, 2, 3) if told.layout == "NCHW" else (3, 1, 2)
    for axis, asked in zip(axes, (told.channels, *(told.size or (None, None))), strict=True):
        own = shape[axis] if isinstance(shape[axis], int) else None
        if own == asked is None or (None not in (own, asked) and own != asked):
            raise ModelError(f"{source}: its input is {inputs}: give channels, size and layout that fit it")
        found.append(own or asked)
    channels, *size = found
    if channels not in (1, 3) or max(size) > MAX_SIDE:
        raise ModelError(f"{source}: its input is {inputs}, as {told.layout}; valid: 1 or 3 channels")
    if channels == 1 and (len(told.mean) == 3 or len(told.std) == 3 or told.order == "BGR"):
        raise ModelError(f"{source}: its input is grey, so mean and std are one number each, and order is RGB")
    output = next(iter(graph.outputs)) if told.output is None and len(graph.outputs) == 1 else told.output
    for name in (output, told.logits or output):
        if name is None or graph.outputs.get(name, ("",))[0] != "float32":
            raise ModelError(
                f"{source}: its outputs are {outputs}: name that of features, float32, and of logits if any"
            )
    fitted = replace(told, size=(size[0], size[1]), channels=channels, output=output)
    ((name, _),) = graph.inputs.items()
    sizes = (channels, *size) if told.layout == "NCHW" else (*size, channels)
    try:
        graph.cost_of({name: (1, *sizes)})  # the gate knows a network of free sizes only at another one
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from None
    return fitted


def _listed(ports: Mapping[str, tuple[str, Shape]]) -> str:
    return ", ".join(f"'{printable(name)}' {kind} {printable(list(shape))}" for name, (kind, shape) in ports.items())


def _resized(image: U8, size: tuple[int, int], channels: int) -> U8:
    """uint8 [H, W, C] -> [h, w, channels]: RGB becomes grey as ITU-R 601 luma, grey RGB of equal parts."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    if channels != image.shape[2]:
        picture = picture.convert("L" if channels == 1 else "RGB")
    if picture.size != size[::-1]:
        picture = picture.resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(picture).reshape(*size, channels)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _numbers(values: Any) -> bool:
    return isinstance(values, tuple) and all(type(v) in (int, float) and math.isfinite(v) for v in values)


def _is_whole(value: Any, most: int = MAX_SIDE) -> bool:
    return type(value) is int and 1 <= value <= most


def _need(good: bool, name: str, value: object, valid: str) -> None:
    if not good:
        raise ArgumentError(f"{name} is {printable(value)}; valid: {valid}")
