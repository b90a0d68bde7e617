"""Exponential moving average of a network's weights, its half-life counted in images.

The average of the generator draws better pictures than any single iterate (Yaz et al. 2019; Karras et al. 2018).
"""

import copy

import torch
from torch import nn

from edgegan.trainer.recipe import Batch, Progress


class EMA(nn.Module):
    """A copy of a network that follows it: after `halflife` images the past weighs one half.

    Lives inside the nets of a recipe, so that it is saved and resumed with them. Averages parameters and floating
    buffers (batch-norm statistics too: they belong to the averaged weights); copies integer buffers.
    """

    def __init__(self, net: nn.Module, halflife: float, rampup: float = 0.05) -> None:
        """`halflife` in images; early on it is at most `rampup` of the images shown, so that the start is forgotten."""
        super().__init__()
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.halflife, self.rampup = halflife, rampup

    def train(self, mode: bool = True) -> "EMA":
        """Never trains: the average is for drawing, with the batch-norm statistics it has collected."""
        return self

    @torch.no_grad()
    def update(self, net: nn.Module, nimg: int, batch: int) -> None:
        """Move towards `net` by the weight of `batch` images; `nimg` images have been shown before them."""
        halflife = min(self.halflife, self.rampup * (nimg + batch))
        beta = 0.5 ** (batch / max(halflife, 1e-8))
        mine, theirs = self.net.state_dict(keep_vars=True), net.state_dict(keep_vars=True)
        floating = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[k] for k in floating], [theirs[k] for k in floating], 1 - beta)
        for name in mine.keys() - set(floating):
            mine[name].copy_(theirs[name])

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """What the averaged network draws."""
        return self.net(*inputs)


def averaged(nets: nn.ModuleDict) -> EMA:
    """The moving average of G in a recipe's nets, by the name that all recipes use."""
    ema = nets["G_ema"]
    assert isinstance(ema, EMA)
    return ema


def follow_generator(nets: nn.ModuleDict, batch: Batch, t: Progress) -> None:
    """Move the average of G on by one batch: what most recipes do `after` G's phase."""
    averaged(nets).update(nets["G"], t.nimg, t.batch)
