"""Where weights start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def initialize(model: nn.Module, weight: Callable[[Tensor], object], bias: float | None) -> None:
    """Draw every weight matrix of `model` anew with `weight` and set every bias beside it.

    Parameters of normalization layers (vectors, not matrices) keep PyTorch's start of scale 1, shift 0,
    and embeddings theirs of N(0, 1). A module with `keeps_start` is left as it is with all it holds, a
    pretrained trunk for example. A module with a method `adjust_start` has the last word on its own.

    Args:
        weight: fills a tensor in place, as the functions of `torch.nn.init` do.
        bias: the value of every bias; None leaves what PyTorch drew.
    """
    for module in _open(model):
        own = dict(module.named_parameters(recurse=False))
        matrices = [p for name, p in own.items() if name.startswith("weight") and p.dim() >= 2]
        if not matrices or isinstance(module, nn.Embedding):
            continue
        for matrix in matrices:
            weight(matrix)
        for name, vector in own.items():
            if bias is not None and name.startswith("bias"):
                vector.fill_(bias)
    for module in _open(model):
        adjust: Any = getattr(module, "adjust_start", None)
        if adjust is not None:
            adjust()


def _open(module: nn.Module) -> list[nn.Module]:
    """All modules within, but for those that keep their start."""
    if getattr(module, "keeps_start", False):
        return []
    return [module, *(inner for child in module.children() for inner in _open(child))]


def pytorch_default(weight: Tensor) -> Tensor:
    """Leave the weight as its module drew it, for `nn.Linear` U(+-1/sqrt(fan_in))."""
    return weight
