"""`baked`: a copy of a network whose weights are plain tensors, as a graph for inference needs them."""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def baked(module: nn.Module) -> nn.Module:
    """A copy of `module` for inference: in eval mode, on the CPU, float32, without gradients. The given one stays.

    What computes a weight anew in each forward is replaced by the weight: torch.nn.utils.parametrizations (spectral
    norm, weight norm, orthogonal, or one's own), and the older torch.nn.utils.spectral_norm and weight_norm. The copy
    draws what `module` draws in eval mode.

    Papers: Miyato et al. 2018 (spectral norm); Salimans, Kingma 2016 (weight norm).
    """
    # The older ones keep the last weight as an attribute with a history of gradients, which torch refuses to copy.
    attributes = [value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor)]
    memo = {id(value): value.detach().clone() for value in attributes if not value.is_leaf}
    copied = copy.deepcopy(module, memo).eval().requires_grad_(False)
    with torch.no_grad():
        for part in list(copied.modules()):
            if parametrize.is_parametrized(part):
                _unparametrize(part)
            for hook in list(part._forward_pre_hooks.values()):
                if isinstance(hook, SpectralNorm):
                    remove_spectral_norm(part, hook.name)
                elif isinstance(hook, WeightNorm):
                    remove_weight_norm(part, hook.name)
    return copied.to("cpu", torch.float32).requires_grad_(False)


def _unparametrize(part: nn.Module) -> None:
    """Like parametrize.remove_parametrizations, which takes the weight off the class, that a copy shares."""
    names = list(cast(nn.ModuleDict, part.parametrizations))
    weights = {name: nn.Parameter(getattr(part, name).clone(), requires_grad=False) for name in names}
    kind = parametrize.type_before_parametrizations(part)
    del part.parametrizations
    part.__class__ = kind
    for name, weight in weights.items():
        part.register_parameter(name, weight)
