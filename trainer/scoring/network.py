"""Which feature network a command compares pictures with: what --features and --preparation say, or what knows them."""

import json
from typing import Any

from edgegan.errors import ArgumentError


def read_preparation(text: str | None, features: str | None) -> dict[str, Any]:
    """The fields of `Preparation` that --preparation gives, as `open_features` takes them. Raises ArgumentError."""
    if text is None:
        return {}
    try:
        how = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"--preparation is not JSON: {error}") from None
    if not isinstance(how, dict) or features is None:
        raise ArgumentError("--preparation is a JSON object, and goes with --features FILE.onnx")
    if wrong := [name for name in how if name in ("source", "threads", "batch")]:
        raise ArgumentError(f"--preparation has no {', '.join(wrong)}; valid: range, size, mean, std and so on")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in how.items()}


def default_features(image_size: tuple[int, int], channels: int, dataset_name: str, source: str) -> str:
    """The name of the network that comes along and knows the pictures that `source` draws. Raises ArgumentError.

    image_size: (height, width) of these pictures; channels: 1 grey, 3 RGB, 4 RGBA.
    """
    h, w = image_size
    if channels != 1 or max(h, w) > 32:
        colours = {1: "grey", 3: "RGB", 4: "RGBA"}[channels]
        raise ArgumentError(
            f"{source} draws {w} x {h} {colours} pictures, and no network that comes along knows such: "
            "give --features inception or FILE.onnx, or --features lenet if they are digits"
        )
    return "lenet-fashion" if dataset_name == "fashion-mnist" else "lenet"
