"""Scores into a model's own metadata, where `edgegan info` shows them."""

import hashlib
import json
import os
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from edgegan._files import atomic_write
from edgegan.errors import MissingExtraError, ModelError
from edgegan.session import read_file
from edgegan.spec import METADATA_KEY, ModelSpec

if TYPE_CHECKING:
    from edgegan.model import Generator


def write_scores(path: str | os.PathLike[str], generator: "Generator", scores: Mapping[str, float | str]) -> str:
    """Put scores in place of those in the file at `path`, which `generator` was loaded from, and keep all else.

    The file is replaced whole or not at all; its SHA-256, which is returned, is another. Raises ModelError if the file
    is no longer the one that was loaded, MissingExtraError without onnx, OSError if the disk refuses.
    """
    onnx = need_onnx()
    data = read_file(os.fspath(path))
    if hashlib.sha256(data).hexdigest() != generator.digest:
        raise ModelError(f"{os.fspath(path)} has changed since it was loaded: score it again")
    model = onnx.load_model_from_string(data)
    (entry,) = (prop for prop in model.metadata_props if prop.key == METADATA_KEY)
    # Not from the ModelSpec, which leaves out what a later release may have written.
    entry.value = json.dumps({**json.loads(entry.value), "scores": dict(scores)}, separators=(",", ":"))
    ModelSpec.from_json(entry.value, f"{os.fspath(path)} with its scores")
    data = model.SerializeToString()
    with atomic_write(path) as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()


def need_onnx() -> ModuleType:
    """The module onnx. Raises MissingExtraError without it."""
    try:
        import onnx
    except ModuleNotFoundError:
        raise MissingExtraError.of("writing scores into a model", "onnx", "export") from None
    return onnx
