"""The model file's contract: what an edgegan .onnx says about itself (standard library only).

The graph has these inputs and one output, all named; N, the batch, is free:

    z        [N, latent_dim]  float32   latents, N(0, 1)                      task "generate"
    label    [N]              int64     class index                           if the model has classes
    psi      [1]              float32   truncation in style space             if it has a style space
    noise_k  [N, ...]         float32   noise of layer k = 0, 1, ..., N(0, 1) if it has noise inputs
    source   [N, C, H, W]     float32   pixels in [-1, 1]; H and W are free   task "translate"

    image    [N, C, H, W]     float32   the output, pixels in [-1, 1]; scale * H by scale * W for "translate"

`metadata_props["edgegan"]` holds the JSON form of a `ModelSpec`, at most 64 KiB. Reading is strict: a missing
key, a wrong type, a number out of range or a newer format is a `ModelError` that names the file and the key.
Unknown keys are ignored, so that a later release may add some without a new format.
"""

import base64
import binascii
import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NoReturn, cast

from edgegan.errors import ArgumentError, ModelError

FORMAT = 1
METADATA_KEY = "edgegan"
MAX_JSON_BYTES = 64 * 1024
MAX_GOLDEN_BYTES = 16 * 1024
MAX_SIDE = 16384
MAX_LATENT_DIM = 65536
MAX_CLASSES = 65536
MAX_SCALE = 64
MAX_SIZE_MULTIPLE = 4096
MAX_NAME = 256
MAX_TEXT = 4096
MAX_NOISE_INPUTS = 64
MAX_NOISE_ELEMENTS = 2**26  # of one image in one noise input: 256 MiB of float32

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class Golden:
    """Pictures that the exporter drew with the reference network, to be drawn again on any device.

    They are those of `Generator.test_pictures(count, seed)`: what `sample` draws, with default labels, no truncation
    and no psi but 1; of a model that translates, what it makes of synthetic pictures.
    """

    seed: int
    count: int
    size: tuple[int, int]  # (h, w), at most the image's: larger pictures are shrunk by `model.shrink`
    tolerance: int  # the largest difference of a pixel, 0..255, that counts as the same
    pixels: bytes = field(repr=False)  # uint8 [count, h, w, channels], row-major

    @staticmethod
    def fit(image_size: tuple[int, int], channels: int, count: int) -> tuple[int, int]:
        """The (h, w) at which `count` pictures fit: image_size over the least whole number."""
        if count < 1:
            raise ArgumentError(f"count is {count}: at least one golden picture is needed")
        for divisor in range(1, max(image_size) + 1):
            h, w = (max(1, side // divisor) for side in image_size)
            if count * h * w * channels <= MAX_GOLDEN_BYTES:
                return h, w
        raise ArgumentError(f"{count} golden pictures of {channels} channels exceed {MAX_GOLDEN_BYTES} bytes")


@dataclass(frozen=True)
class ModelSpec:
    """What a model is and what it takes. `to_json` and `from_json` are inverse to each other."""

    recipe: str
    image_size: tuple[int, int]  # (height, width) in pixels, 1..16384; for translate: that of training
    channels: int  # 1 grey, 3 RGB, 4 RGBA
    latent_dim: int | None  # 1..65536; None for translate
    classes: tuple[str, ...] = ()  # names in the order of the label; empty: unconditional
    task: Literal["generate", "translate"] = "generate"
    scale: int = 1  # translate: the output's side over the input's
    size_multiple: int = 1  # translate: H and W must be multiples of it
    precision: str = "fp32"
    dataset: str = ""
    dataset_digest: str = ""
    kimg: float = 0.0  # thousands of images shown in training
    # Name -> value; a text names the feature network that a score was taken with.
    scores: Mapping[str, float | str] = field(default_factory=dict, hash=False)
    licence: str = ""
    version: str = ""  # of the edgegan that wrote the file
    style: bool = False  # takes `psi`
    noise_inputs: tuple[tuple[int, ...], ...] = ()  # the shape of each noise_k without N
    golden: Golden | None = None
    format: int = FORMAT

    def inputs(self) -> dict[str, tuple[str, Shape]]:
        """Input name -> (NumPy dtype name, shape); a string in a shape ("N") is a free dimension."""
        if self.task == "translate":
            return {"source": ("float32", ("N", self.channels, "H", "W"))}
        assert self.latent_dim is not None  # what from_json guarantees
        found: dict[str, tuple[str, Shape]] = {"z": ("float32", ("N", self.latent_dim))}
        if self.classes:
            found["label"] = ("int64", ("N",))
        if self.style:
            found["psi"] = ("float32", (1,))
        for k, shape in enumerate(self.noise_inputs):
            found[f"noise_{k}"] = ("float32", ("N", *shape))
        return found

    def outputs(self) -> dict[str, tuple[str, Shape]]:
        """Output name -> (NumPy dtype name, shape), as `inputs`."""
        size: Shape = ("H", "W") if self.task == "translate" else self.image_size
        return {"image": ("float32", ("N", self.channels, *size))}

    def to_json(self) -> str:
        """The metadata's text. Raises ModelError rather than write what `from_json` would refuse."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.golden is not None:
            g = self.golden
            pixels = base64.b64encode(g.pixels).decode("ascii")
            values["golden"] = {**vars(g), "pixels": pixels}
        values["scores"] = dict(self.scores)
        try:
            text = json.dumps(values, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            raise ModelError(f"the model's description cannot be written as JSON: {error}") from None
        ModelSpec.from_json(text, source="the model's description")
        return text

    @staticmethod
    def from_json(text: str, source: str = "the model") -> "ModelSpec":
        """Read the metadata of the file named `source`. Raises ModelError, which names it and the key."""
        if len(text) > MAX_JSON_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_JSON_BYTES:
            raise ModelError(f"{source}: its edgegan metadata is larger than {MAX_JSON_BYTES} bytes")
        try:
            values = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{source}: its edgegan metadata is not valid JSON: {error}") from None
        if not isinstance(values, dict):
            raise ModelError(f"{source}: its edgegan metadata is not a JSON object")
        return _read_spec(_Reader(values, source))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


class _Reader:
    """Typed access to one JSON object; every error names the file and the key."""

    def __init__(self, values: dict[str, Any], source: str, prefix: str = "") -> None:
        self.values, self.source, self.prefix = values, source, prefix

    def fail(self, key: str, valid: str) -> NoReturn:
        shown = reprlib.repr(self.values[key])  # bounded in length and depth, one line, escapes escaped
        raise ModelError(f"{self.source}: metadata key '{self.prefix}{key}' is {shown}; valid: {valid}")

    def get(self, key: str) -> Any:
        if key not in self.values:
            raise ModelError(f"{self.source}: metadata key '{self.prefix}{key}' is missing")
        return self.values[key]

    def integer(self, key: str, low: int, high: int) -> int:
        value = self.get(key)
        if type(value) is not int or not low <= value <= high:
            self.fail(key, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str) -> float:
        value = self.get(key)
        if not _is_finite(value) or value < 0:
            self.fail(key, "a finite number, 0 or more")
        return float(value)

    def text(self, key: str, choices: tuple[str, ...] = (), limit: int = MAX_TEXT) -> str:
        value = self.get(key)
        if not isinstance(value, str) or len(value) > limit:
            self.fail(key, f"a text of at most {limit} characters")
        if choices and value not in choices:
            self.fail(key, " or ".join(f"'{choice}'" for choice in choices))
        return value

    def boolean(self, key: str) -> bool:
        value = self.get(key)
        if not isinstance(value, bool):
            self.fail(key, "true or false")
        return value

    def sizes(self, key: str, high: tuple[int, int] = (MAX_SIDE, MAX_SIDE)) -> tuple[int, int]:
        value = self.get(key)
        if not (isinstance(value, list) and len(value) == 2 and all(map(_is_side, value, high))):
            self.fail(key, f"[height, width], each from 1 to at most {high[0]} and {high[1]}")
        return value[0], value[1]

    def names(self, key: str) -> tuple[str, ...]:
        value = self.get(key)
        if (
            not isinstance(value, list)
            or len(value) > MAX_CLASSES
            or not all(isinstance(name, str) and len(name) <= MAX_NAME for name in value)
        ):
            self.fail(key, f"at most {MAX_CLASSES} names of at most {MAX_NAME} characters")
        if len(set(value)) != len(value):
            self.fail(key, "names that differ from each other")
        return tuple(value)

    def scores(self, key: str) -> dict[str, float | str]:
        value = self.get(key)
        if not isinstance(value, dict) or not all(_is_score(score) for score in value.values()):
            self.fail(key, "an object of finite numbers and texts")
        return value

    def shapes(self, key: str) -> tuple[tuple[int, ...], ...]:
        value = self.get(key)
        if (
            not isinstance(value, list)
            or len(value) > MAX_NOISE_INPUTS
            or not all(_is_noise_shape(shape) for shape in value)
        ):
            self.fail(key, f"at most {MAX_NOISE_INPUTS} shapes of 1 to 4 whole numbers from 1 to {MAX_SIDE}")
        return tuple(tuple(shape) for shape in value)


def _is_side(value: object, high: int) -> bool:
    return type(value) is int and 1 <= value <= high


def _is_finite(value: object) -> bool:
    # Compared, not math.isfinite: that one raises on a whole number beyond float's range.
    return type(value) in (int, float) and -1e300 <= cast(float, value) <= 1e300


def _is_score(value: object) -> bool:
    return len(value) <= MAX_TEXT if isinstance(value, str) else _is_finite(value)


def _is_noise_shape(shape: object) -> bool:
    return (
        isinstance(shape, list)
        and 1 <= len(shape) <= 4
        and all(_is_side(side, MAX_SIDE) for side in shape)
        and math.prod(shape) <= MAX_NOISE_ELEMENTS
    )


def _read_spec(r: _Reader) -> ModelSpec:
    found = r.integer("format", 1, 2**31)
    if found > FORMAT:
        raise ModelError(
            f"{r.source}: metadata key 'format' is {found}; valid: up to {FORMAT}; upgrade edgegan to read it"
        )
    task: Any = r.text("task", ("generate", "translate"))
    channels = r.integer("channels", 1, 4)
    if channels == 2:
        r.fail("channels", "1 (grey), 3 (RGB) or 4 (RGBA)")
    if task == "generate":
        latent_dim = r.integer("latent_dim", 1, MAX_LATENT_DIM)
    elif r.get("latent_dim") is None:
        latent_dim = None
    else:
        r.fail("latent_dim", "null for a model that translates")
    image_size = r.sizes("image_size")
    return ModelSpec(
        format=found,
        task=task,
        recipe=r.text("recipe", limit=MAX_NAME),
        image_size=image_size,
        channels=channels,
        latent_dim=latent_dim,
        classes=r.names("classes"),
        scale=r.integer("scale", 1, MAX_SCALE),
        size_multiple=r.integer("size_multiple", 1, MAX_SIZE_MULTIPLE),
        precision=r.text("precision", limit=MAX_NAME),
        dataset=r.text("dataset"),
        dataset_digest=r.text("dataset_digest"),
        kimg=r.number("kimg"),
        scores=r.scores("scores"),
        licence=r.text("licence"),
        version=r.text("version", limit=MAX_NAME),
        style=r.boolean("style"),
        noise_inputs=r.shapes("noise_inputs"),
        golden=_read_golden(r, image_size, channels),
    )


def _read_golden(r: _Reader, image_size: tuple[int, int], channels: int) -> Golden | None:
    value = r.get("golden")
    if value is None:
        return None
    if not isinstance(value, dict):
        r.fail("golden", "an object or null")
    g = _Reader(value, r.source, "golden.")
    seed = g.integer("seed", 0, 2**64 - 1)
    count = g.integer("count", 1, MAX_GOLDEN_BYTES)
    h, w = g.sizes("size", high=image_size)
    tolerance = g.integer("tolerance", 0, 255)
    expected = count * h * w * channels
    valid = f"base64 of count x height x width x channels = {expected} bytes, at most {MAX_GOLDEN_BYTES}"
    text = g.text("pixels", limit=2 * MAX_GOLDEN_BYTES)
    try:
        pixels = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        g.fail("pixels", valid)
    if len(pixels) != expected or expected > MAX_GOLDEN_BYTES:
        g.fail("pixels", valid)
    return Golden(seed=seed, count=count, size=(h, w), tolerance=tolerance, pixels=pixels)
