"""Where weights start.

O outputs of a layer, I inputs of one of its units (fan_in).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlexp.build.convolution import LocallyConnected2d

RANDOM, DRAWN = "random", "drawn"  # what a bias may be beside a number and nothing


@torch.no_grad()
def initialize(model: nn.Module, weight: Callable[..., object], bias: float | str | None) -> None:
    """Draw every weight matrix of `model` anew with `weight` and set every bias beside it.

    Parameters of normalization layers (vectors, not matrices) keep PyTorch's start of scale 1, shift 0,
    and embeddings theirs of N(0, 1). A module with `keeps_start` is left as it is with all it holds, a
    pretrained trunk for example. A module with a method `adjust_start` has the last word on its own.
    PyTorch keeps the gates of a recurrent layer in one matrix; each gate is drawn by itself.

    Args:
        weight: fills a tensor in place, as the functions of `torch.nn.init` do.
        bias: the value of every bias; "random": U(+-1/sqrt(I)); "drawn": `weight` is called with the
            matrix and its bias and fills both; None leaves what PyTorch drew.
    """
    for module in _open(model):
        own = dict(module.named_parameters(recurse=False))
        matrices = {name: p for name, p in own.items() if name.startswith("weight") and p.dim() >= 2}
        if not matrices or isinstance(module, nn.Embedding):
            continue
        for name, matrix in matrices.items():
            beside = own.get(name.replace("weight", "bias")) if bias == DRAWN else None
            together = [_matrices(module, p) for p in (matrix, beside) if p is not None]
            for tensors in zip(*together, strict=True):
                weight(*tensors)
        first = next(iter(matrices.values()))
        for name, vector in own.items():
            if name.startswith("bias"):
                _start(vector, bias, matrices.get(name.replace("bias", "weight"), first))
    for module in _open(model):
        adjust: Any = getattr(module, "adjust_start", None)
        if adjust is not None:
            adjust()


def _start(vector: Tensor, bias: float | str | None, matrix: Tensor) -> None:
    """Set a bias that stands beside `matrix`."""
    if bias == RANDOM:
        bound = 1 / math.sqrt(_fan_in(matrix))
        vector.uniform_(-bound, bound)
    elif isinstance(bias, int | float):
        vector.fill_(bias)


def _open(module: nn.Module) -> list[nn.Module]:
    """All modules within, but for those that keep their start."""
    if getattr(module, "keeps_start", False):
        return []
    return [module, *(inner for child in module.children() for inner in _open(child))]


def _matrices(module: nn.Module, parameter: Tensor) -> Sequence[Tensor]:
    """The parts of a parameter that are matrices by themselves: gates, places; of most, the whole."""
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return torch.split(parameter, module.hidden_size)
    if isinstance(module, LocallyConnected2d):
        return torch.split(parameter, module.out_channels)
    return [parameter]


def _fan_in(weight: Tensor) -> int:
    return weight[0].numel()


def pytorch_default(weight: Tensor) -> Tensor:
    """Leave the weight as its module drew it, for `nn.Linear` U(+-1/sqrt(I))."""
    return weight


def identity_(weight: Tensor, gain: float = 1.0) -> Tensor:
    """`gain` on the diagonal and 0 elsewhere; a convolution passes each channel on as it is."""
    if weight.dim() == 2:
        nn.init.eye_(weight)
    else:
        nn.init.dirac_(weight)
    return weight.mul_(gain)


def born_dead_safe_(weight: Tensor, bias: Tensor | None = None, *, sigma: float) -> Tensor:
    """N(0, sigma^2 / I), and in each unit one weight, or its bias, drawn from Beta(2, 1) instead.

    A unit with one large positive weight is unlikely to be 0 for all inputs, which are not negative
    behind a ReLU. The randomized asymmetric initialization of Lu, Shin, Su and Karniadakis 2020,
    "Dying ReLU and Initialization"; their sigma is 0.6007.

    Args:
        weight: (O, ...).
        bias: (O,), or None if the layer has none.
    """
    fan_in = _fan_in(weight)
    both = weight.new_empty(len(weight), fan_in + (bias is not None))  # (O, I + 1), the bias last
    both.normal_(0, sigma / math.sqrt(fan_in))
    chosen = torch.randint(both.shape[1], (len(weight), 1), device=weight.device)
    positive = torch.rand(len(weight), 1, device=weight.device, dtype=weight.dtype).sqrt()  # P(< x) = x^2
    both.scatter_(1, chosen, positive)
    if bias is not None:
        bias.copy_(both[:, fan_in])
    return weight.copy_(both[:, :fan_in].view_as(weight))
