"""Turn a training run, or a network of one's own, into one self-describing ONNX file.

`edgegan-export` is the command. `export_generator(module, spec, output)` takes any torch module that is a
generator of a `ModelSpec`: docs/custom-generators.md. Importing this package imports neither torch nor onnx.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgegan.export.pipeline import export_generator

__all__ = ["export_generator"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from edgegan.export import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
