"""Where weights start."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


@torch.no_grad()
def initialize(model: nn.Module, weight: Callable[[Tensor], object], bias: float | None) -> None:
    """Draw every weight matrix of `model` anew with `weight` and set every bias beside it.

    Parameters of normalization layers (vectors, not matrices) keep PyTorch's start of scale 1, shift 0.

    Args:
        weight: fills a tensor in place, as the functions of `torch.nn.init` do.
        bias: the value of every bias; None leaves what PyTorch drew.
    """
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        if "weight" in own and own["weight"].dim() >= 2:
            weight(own["weight"])
            if bias is not None and "bias" in own:
                own["bias"].fill_(bias)


def pytorch_default(weight: Tensor) -> Tensor:
    """Leave the weight as its module drew it, for `nn.Linear` U(+-1/sqrt(fan_in))."""
    return weight
