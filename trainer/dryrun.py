"""What a run would be, without training: its nets, their size, the work and the memory of an iteration.

All of it is computed on torch's meta device, which has shapes but no numbers: a net of any size takes no memory.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from edgegan.trainer.data import Dataset
from edgegan.trainer.recipe import Batch, Phase, Progress
from edgegan.trainer.run import Run

META = torch.device("meta")
ADAM_STATES = 2  # moments a parameter


@dataclass(frozen=True)
class Cost:
    """Of one phase of an iteration."""

    macs: int  # multiply-adds, forward and backward, for one image of the batch
    activations: int  # bytes that forward keeps for backward


class Flops(TorchDispatchMode):
    """Counts the floating-point operations of what runs inside, two for a multiply-add.

    torch's own FlopCounterMode also follows modules, with hooks that gradient penalties do not allow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def describe(run: Run, dataset: Dataset, device: str) -> str:
    """The page that --dry-run shows."""
    with torch.device(META):
        nets = run.build()
    config, shape, settings = run.config, run.settings.data.shape, run.settings
    size = settings.micro_batch or config.batch
    classes = f", {len(shape.classes)} classes" if shape.classes else ""
    lines = [
        f"{settings.recipe} on {dataset.name}: {len(dataset):,} pictures of {shape.width}x{shape.height}x"
        f"{shape.channels}{classes}; {config.kimg:g} kimg in batches of {config.batch}, {settings.precision}, {device}",
        "",
        f"{'net':<14}{'parameters':>14}{'MB':>10}   trained by",
    ]
    phases = run.recipe.phases(config)
    for name, net in nets.items():
        count = sum(p.numel() for p in net.parameters())
        trained = ", ".join(phase.name for phase in phases if name in phase.trains) or "none; follows"
        lines.append(f"{name:<14}{count:>14,}{_bytes_of(net) / 1e6:>10.2f}   {trained}")
    costs = {phase.name: cost_of(run, nets, phase, size) for phase in phases}
    lines += ["", f"{'phase':<14}{'MMACs an image':>14}{'activations, MB':>18}"]
    for phase in phases:
        cost, every = costs[phase.name], f"   each {phase.every}th iteration" if phase.every > 1 else ""
        every += f"   from {phase.begins:.0%} of the run on" if phase.begins else ""
        lines.append(f"{phase.name:<14}{cost.macs / 1e6:>14.2f}{cost.activations / 1e6:>18.1f}{every}")
    drawn = macs_of_drawing(run, nets)
    weights = _bytes_of(nets)
    owners = [phase for phase in phases if phase.steps_with == phase.name]
    trained_bytes = sum(_bytes_of(nets[name]) for phase in owners for name in phase.trains)
    states = trained_bytes * (1 + ADAM_STATES)
    peak = weights + states + max(cost.activations for cost in costs.values())
    lines += [
        "",
        f"{_task(run)} one picture with the exported model: {drawn / 1e6:.2f} MMACs.",
        f"Memory: {weights / 1e6:.1f} MB of weights, {states / 1e6:.1f} MB of gradients and optimiser, "
        f"{max(cost.activations for cost in costs.values()) / 1e6:.1f} MB of activations of {size} images: about "
        f"{peak / 1e6:.0f} MB, beside torch itself and work space.",
    ]
    if run.settings.holdout:
        lines.append(f"{run.settings.holdout:,} pictures are held out.")
    return "\n".join(lines)


def cost_of(run: Run, nets: nn.ModuleDict, phase: Phase, n: int) -> Cost:
    """The cost of one phase with `n` images, on nets that are on the meta device."""
    shape = run.settings.data.shape
    recipe, config = run.recipe, run.config
    spec = recipe.spec(config, shape)
    for name, net in nets.items():
        net.requires_grad_(name in phase.trains)
    real = torch.empty(n, shape.channels, shape.height, shape.width, device=META)
    label = torch.empty(n, dtype=torch.int64, device=META) if shape.classes else None
    latent_dim = spec.latent_dim or 1 if recipe.degrade_noise is None else recipe.degrade_noise(config, shape)
    source = torch.empty(n, spec.channels, *spec.image_size, device=META) if spec.task == "translate" else None
    batch = Batch(real, label, torch.empty(n, latent_dim, device=META), source)
    parameters = {parameter.untyped_storage()._cdata for parameter in nets.parameters()}
    kept: dict[int, Tensor] = {}  # by storage: several operations keep the same one, and views of it

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in parameters:
            kept[storage] = tensor
        return tensor

    total = max(n, round(config.kimg * 1000))
    with Flops() as flops, saved_tensors_hooks(keep, lambda tensor: tensor):
        terms = phase.loss(nets, batch, Progress(total - n, n, total))  # the last iteration: nets that grow are whole
        torch.stack([term.float() for term in terms.values()]).sum().backward()
    nets.zero_grad(set_to_none=True)
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    if run.settings.precision == "bf16":
        size //= 2
    return Cost(flops.total // 2 // n, size)


@torch.no_grad()
def macs_of_drawing(run: Run, nets: nn.ModuleDict) -> int:
    """Multiply-adds of one picture, by the generator that is exported."""
    spec = run.recipe.spec(run.config, run.settings.data.shape)
    free = {"N": 1, "H": spec.image_size[0], "W": spec.image_size[1]}
    inputs = [
        torch.empty(
            [free[side] if isinstance(side, str) else side for side in shape], dtype=getattr(torch, dtype), device=META
        )
        for dtype, shape in spec.inputs().values()
    ]
    with Flops() as flops:
        run.recipe.export_module(nets).eval()(*inputs)
    return flops.total // 2


def _task(run: Run) -> str:
    spec = run.recipe.spec(run.config, run.settings.data.shape)
    return "To draw" if spec.task == "generate" else "To translate"


def _bytes_of(net: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in net.state_dict().values())
