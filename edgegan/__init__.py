"""Generate pictures with GANs exported to one self-describing ONNX file.

    from edgegan import load
    images = load("digits.onnx").sample(16, seed=7)  # uint8 [16, H, W, C]

`load()` without a path is the built-in model. Importing edgegan is quick: NumPy is imported with the first
use of `load` or `Generator`, onnxruntime when a model is loaded.
"""

from typing import TYPE_CHECKING, Any

from edgegan.errors import (
    ArgumentError,
    BackendError,
    DataError,
    DeviceError,
    EdgeGANError,
    ExportError,
    MissingExtraError,
    ModelError,
    RunError,
    SizeError,
)
from edgegan.spec import Golden, ModelSpec

if TYPE_CHECKING:
    from edgegan.foreign import Foreign, ForeignTranslator
    from edgegan.model import Generator, load

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "BackendError",
    "DataError",
    "DeviceError",
    "EdgeGANError",
    "ExportError",
    "Foreign",
    "ForeignTranslator",
    "Generator",
    "Golden",
    "MissingExtraError",
    "ModelError",
    "ModelSpec",
    "RunError",
    "SizeError",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in ("Foreign", "ForeignTranslator", "Generator", "load"):
        from edgegan import foreign, model

        return getattr(foreign if name.startswith("Foreign") else model, name)
    raise AttributeError(f"module 'edgegan' has no attribute {name!r}")
