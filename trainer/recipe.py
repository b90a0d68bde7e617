"""The one training contract: what a GAN must say about itself so that the loop can train it.

A recipe is one file in recipes/ that ends in `RECIPE = Recipe(...)`, a frozen record of functions. It owns the
networks and the losses; the loop owns time, data, randomness, optimiser steps, checkpoints and logs. Whatever must
survive a resume is a module with buffers inside the nets that `build` returns: weights, and also a moving average,
an image pool, an augmentation probability.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from edgegan.spec import ModelSpec


@dataclass(frozen=True)
class DataShape:
    """What the networks must know of the data set."""

    height: int
    width: int
    channels: int  # 1 grey, 3 RGB
    classes: tuple[str, ...] = ()  # empty: the set has no labels


@dataclass(frozen=True)
class Progress:
    """Where the run stands before an iteration. Time is images shown, never steps."""

    nimg: int  # real images shown so far; the first of this batch has this global index
    batch: int  # images in this iteration, over all processes
    total: int  # images of the whole run

    @property
    def fraction(self) -> float:
        """How much of the run is done, 0 to 1."""
        return self.nimg / self.total


@dataclass(frozen=True)
class Batch:
    """What one phase sees. On K processes each has the K-th part, with --micro-batch one piece after another.

    Element i of all of it belongs to global sample nimg + i.
    """

    real: Tensor  # [n, C, H, W] float32 in [-1, 1]
    label: Tensor | None  # [n] int64, the classes of `real`; None without classes
    z: Tensor  # [n, latent_dim] float32, N(0, 1), fresh for each phase; what `Recipe.degrade` took, if there is one
    source: Tensor | None = None  # [n, C, h, w] in [-1, 1], to be turned into pictures such as `real`; task "translate"


@dataclass(frozen=True)
class Phase:
    """One optimiser step of an iteration: who learns, and from what.

    `loss(nets, batch, t)` returns named scalar terms, already weighted; the loop adds them up, differentiates, steps,
    and logs each by name; each is a mean over the batch, so that means of parts are the mean of the whole. Nets outside
    `trains` get no gradient. `every` = 16 runs the phase each 16th iteration.
    `optimizer` makes one from the parameters of these nets; or it names another phase of the same nets, whose optimiser
    takes this phase's steps too, with the same moments: else Adam would make up for whatever a term is weighted by.
    `begins` is the share of the run, 0 to 1, from which on the phase runs at all.
    `learning_rate(t)`, if given, is set before each step. `reset(nets, t)`, if given, says whether the optimiser begins
    anew at this iteration, its moments forgotten. `after(nets, batch, t)` runs after the step, without gradients.
    """

    name: str
    trains: tuple[str, ...]
    loss: Callable[[nn.ModuleDict, Batch, Progress], dict[str, Tensor]]
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | str
    every: int = 1
    begins: float = 0.0
    learning_rate: Callable[[Progress], float] | None = None
    reset: Callable[[nn.ModuleDict, Progress], bool] | None = None
    after: Callable[[nn.ModuleDict, Batch, Progress], None] | None = None

    @property
    def steps_with(self) -> str:
        """The name of the phase that makes the optimiser."""
        return self.optimizer if isinstance(self.optimizer, str) else self.name


def optimizers_of(phases: Sequence[Phase], nets: nn.ModuleDict) -> dict[str, Optimizer]:
    """The optimisers of a recipe's phases, each by the name of the phase that makes it."""
    return {
        phase.name: phase.optimizer([p for name in phase.trains for p in nets[name].parameters()])
        for phase in phases
        if not isinstance(phase.optimizer, str)
    }


@dataclass(frozen=True)
class Recipe:
    """One GAN. `Config` is a frozen dataclass of hyper-parameters whose fields are made by config.option.

    Three of its fields the loop reads: `batch` (images an iteration), `kimg` (thousands of images of a whole run) and,
    if it is there, `paired`.
    """

    name: str
    Config: type
    build: Callable[[Any, DataShape], nn.ModuleDict]  # (config, shape) -> nets, freshly initialised
    phases: Callable[[Any], tuple[Phase, ...]]  # in the order in which an iteration runs them
    export_module: Callable[[nn.ModuleDict], nn.Module]  # forward(the inputs of spec) -> image in [-1, 1]
    spec: Callable[[Any, DataShape], ModelSpec]  # what the exported model will say about itself
    # (nets, images, labels) -> [n] logits of D, greater for what looks real: lets the monitors ask D. None: has none.
    logits: Callable[[nn.ModuleDict, Tensor, Tensor | None], Tensor] | None = None
    compiles: tuple[str, ...] = ()  # nets that --compile may compile: those that no phase differentiates twice
    # (config, shape) -> config: gives what depends on the pictures its value. All other functions get the result.
    complete: Callable[[Any, DataShape], Any] | None = None
    # Of a recipe of the task "translate", one of two: it takes its sources from a second set of pictures, --source
    # (where Config.paired is true, picture i there belongs to picture i of the data) ...
    takes_source: bool = False
    # ... or they are made of real ones, (config, real, z [n, degrade_noise(config, shape)]) -> sources [n, C, h, w];
    # each by itself, so that a picture has the same source in any batch.
    degrade: Callable[[Any, Tensor, Tensor], Tensor] | None = None
    degrade_noise: Callable[[Any, DataShape], int] | None = None
    # As export_module, for the way back, if that is learnt too. Raises ArgumentError if these nets have not learnt it.
    reverse_module: Callable[[nn.ModuleDict], nn.Module] | None = None
