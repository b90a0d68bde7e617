"""`edgegan info`: say what a model is."""

import json
import os
from typing import TYPE_CHECKING, Any

import click

import edgegan
from edgegan._cli import debug_option
from edgegan.commands import model_argument
from edgegan.errors import printable

if TYPE_CHECKING:
    from edgegan.model import Generator


@click.command(short_help="Say what a model is.")
@model_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for other programs.")
@debug_option
def info(model: str | None, as_json: bool) -> None:
    """Say what MODEL is: its task, training, classes, scores and licence.

    \b
    edgegan info                the built-in model
    edgegan info faces.onnx
    edgegan info faces.onnx --json | python -m json.tool
    """
    generator = edgegan.load(model, provider="cpu", threads=1)
    if as_json:
        click.echo(json.dumps(_object(generator)))
        return
    for name, value in _lines(generator):
        click.echo(f"{printable(name):<12} {printable(str(value))}")


def _lines(generator: "Generator") -> list[tuple[str, Any]]:
    spec, golden = generator.spec, generator.spec.golden
    h, w = spec.image_size
    if spec.task == "translate":
        side = "" if spec.size_multiple == 1 else f" in multiples of {spec.size_multiple}"
        takes = [("takes", f"pictures of any size{side}, and makes them {spec.scale} times as large")]
    else:
        takes = [
            ("latents", str(spec.latent_dim)),
            ("classes", f"{len(spec.classes)}: {', '.join(spec.classes)}" if spec.classes else "none"),
        ]
    return [
        ("model", generator.source),
        ("recipe", spec.recipe),
        ("pictures", f"{w}x{h}, {({1: 'grey', 3: 'RGB', 4: 'RGBA'})[spec.channels]}"),
        *takes,
        ("precision", spec.precision),
        ("trained on", " ".join(filter(None, (spec.dataset, spec.dataset_digest[:12])))),
        ("trained for", f"{spec.kimg:g} thousand images"),
        *((f"score {name}", f"{s:g}" if isinstance(s, float) else s) for name, s in spec.scores.items()),
        ("licence", spec.licence or "not stated"),
        ("written by", f"edgegan {spec.version}"),
        ("golden", f"{golden.count} samples, tolerance {golden.tolerance}" if golden else "none"),
        ("SHA-256", generator.digest),
    ]


def _object(generator: "Generator") -> dict[str, Any]:
    """The metadata as it is in the file, without the golden samples' pixels, and what the file itself is."""
    spec = generator.spec
    metadata = json.loads(spec.to_json())
    if metadata.get("golden"):
        del metadata["golden"]["pixels"]
    tensors = {
        kind: {name: {"type": dtype, "shape": list(shape)} for name, (dtype, shape) in found.items()}
        for kind, found in (("inputs", spec.inputs()), ("outputs", spec.outputs()))
    }
    return {"file": os.fspath(generator.source), "sha256": generator.digest, **metadata, **tensors}
