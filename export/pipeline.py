"""Export a run: load its averaged generator, trace it, lower it, prove it, write it."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from edgegan._files import atomic_write
from edgegan.errors import ExportError
from edgegan.export.lower import Lowered, lower
from edgegan.export.onnx import GOLDEN_SEED, describe, to_model
from edgegan.export.verify import check_parity
from edgegan.model import BATCH, inputs_of
from edgegan.trainer.run import Run


@dataclass(frozen=True)
class Report:
    """What an export made."""

    file_bytes: int
    parameters: int
    kimg: float  # of training, in thousands of images
    difference: float  # the largest between onnxruntime and torch, in pixels of [-1, 1]
    lowered: Lowered | None = field(repr=False, default=None)  # if it was asked for


def export_run(
    folder: Path, output: Path, licence: str = "", lowering: bool = False, checkpoint: str = "newest"
) -> Report:
    """Write a checkpoint of the run in `folder` as the ONNX model `output`, whole or not at all.

    checkpoint: "newest", "best", or its number of images.

    lowering: rewrite the graph into the form that is fastest on this processor, see lower.py. What is chosen depends on
    measured times, so two exports of one run may differ in their bytes.

    Raises RunError for a folder that is no run or has no such checkpoint, ExportError if it cannot be traced or does
    not match in onnxruntime.
    """
    run = Run.open(folder)
    state = run.load_checkpoint(checkpoint)
    nets = run.build()
    run.load_nets(nets, state)
    module = run.recipe.export_module(nets).eval().requires_grad_(False)
    if not all(torch.isfinite(value).all() for value in module.state_dict().values()):
        raise ExportError(
            f"the {checkpoint} checkpoint of {folder} holds weights that are not finite; nothing was written"
        )
    spec = replace(
        run.recipe.spec(run.config, run.settings.data.shape),
        dataset=run.settings.data.name,
        dataset_digest=run.settings.data.digest,
        kimg=state["nimg"] / 1000,
        licence=licence,
    )
    model, lowered = to_model(module, spec), None
    if lowering:
        lowered = lower(model, inputs_of(spec, GOLDEN_SEED, BATCH))
        model = lowered.model
    data = describe(model, spec, module)
    difference = check_parity(data, module)
    with atomic_write(output, durable=True) as file:
        file.write(data)
    return Report(len(data), sum(p.numel() for p in module.parameters()), spec.kimg, difference, lowered)
