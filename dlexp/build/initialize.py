"""Where weights start.

O outputs of a layer, I inputs of one of its units (fan_in).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dlexp.build.convolution import LocallyConnected2d
from dlexp.parameters import is_weight, weights

RANDOM, DRAWN = "random", "drawn"  # what a bias may be beside a number and nothing


@torch.no_grad()
def initialize(model: nn.Module, weight: Callable[..., object], bias: float | str | None) -> None:
    """Draw every weight of `model` that learns anew with `weight` and set every bias beside it.

    What a weight is, dlexp/parameters.py says. Scale and shift of normalization layers keep PyTorch's
    start of 1 and 0, and embeddings theirs of N(0, 1). A module with `keeps_start` is left as it is with
    all it holds, a pretrained trunk for example. A module with a method `adjust_start` has the last word
    on its own. PyTorch keeps the gates of a recurrent layer, and queries, keys and values of attention, in
    one matrix; each is drawn by itself. Of a weight that a parametrization makes, the weight is drawn and
    the parametrization inverted; where that is not possible, what the weight is made of is drawn.

    Args:
        weight: fills a tensor in place, as the functions of `torch.nn.init` do: (O, I, ...), also for a
            matrix of one's own that is used the other way around.
        bias: the value of every bias; "random": U(+-1/sqrt(I)); "drawn": `weight` is called with the
            matrix and its bias and fills both; None leaves what PyTorch drew.
    """
    for module in _open(model):
        if not isinstance(module, nn.Embedding):
            _draw(module, weight, bias)
    for module in _open(model):
        adjust: Any = getattr(module, "adjust_start", None)
        if adjust is not None:
            adjust()


def _draw(module: nn.Module, weight: Callable[..., object], bias: float | str | None) -> None:
    """The same for the weights and biases of one module itself."""
    made = _made(module)
    own = {name: p for name, p in module.named_parameters(recurse=False) if p.requires_grad} | made
    whole = {**made, **weights(module)}
    matrices = {name: p for name, p in own.items() if name in whole and is_weight(name, p)}
    if not matrices:
        return
    before = {name: p.clone() for name, p in made.items()}
    for name, matrix in matrices.items():
        beside = own.get(name.replace("weight", "bias")) if bias == DRAWN and "weight" in name else None
        together = [_matrices(module, p) for p in (matrix, beside) if p is not None]
        for tensors in zip(*together, strict=True):
            weight(*tensors)
    first = next(iter(matrices.values()))
    for name, vector in own.items():
        if "bias" in name and vector.dim() == 1:
            _start(vector, bias, matrices.get(name.replace("bias", "weight"), first))
    for name, p in made.items():
        if not torch.equal(p, before[name]):
            _hand_over(module, name, p, weight)


def _start(vector: Tensor, bias: float | str | None, matrix: Tensor) -> None:
    """Set a bias that stands beside `matrix`."""
    if bias == RANDOM:
        bound = 1 / math.sqrt(_fan_in(matrix))
        vector.uniform_(-bound, bound)
    elif isinstance(bias, int | float):
        vector.fill_(bias)


CATCH_UP = 15  # steps of the power iteration, as many as PyTorch takes when it is set up


def _made(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the tensors that parametrizations make, where one learns; by their names."""
    if not parametrize.is_parametrized(module):
        return {}
    lists = cast("nn.ModuleDict", module.parametrizations)
    lists.eval()  # looking at the weight of `spectral_norm` while it trains changes its buffers
    learn = [name for name, made_of in lists.items() if any(p.requires_grad for p in made_of.parameters())]
    found = {name: getattr(module, name).detach().clone() for name in learn}
    lists.train(module.training)
    return found


def _hand_over(module: nn.Module, name: str, drawn: Tensor, weight: Callable[..., object]) -> None:
    """Let a parametrization make what was drawn."""
    made_of = cast("nn.ModuleDict", module.parametrizations)[name]
    try:
        setattr(module, name, drawn)
    except (RuntimeError, NotImplementedError):  # it has no inverse
        for part, p in made_of.named_parameters(recurse=False):
            if is_weight(part, p):
                weight(p)
    if any(True for _ in made_of.buffers()):  # what `spectral_norm` knows of the weight has to catch up
        made_of.train()
        for _ in range(CATCH_UP):
            made_of()
        made_of.train(module.training)


def _open(module: nn.Module) -> list[nn.Module]:
    """All modules within, but for those that keep their start and what makes weights out of others."""
    if getattr(module, "keeps_start", False) or isinstance(module, parametrize.ParametrizationList):
        return []
    return [module, *(inner for child in module.children() for inner in _open(child))]


def _matrices(module: nn.Module, parameter: Tensor) -> Sequence[Tensor]:
    """The parts of a parameter that are matrices by themselves: gates, places, queries and keys and values.

    Of most the whole.
    """
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return torch.split(parameter, module.hidden_size)
    if isinstance(module, LocallyConnected2d):
        return torch.split(parameter, module.out_channels)
    if isinstance(module, nn.MultiheadAttention):
        return torch.split(parameter, module.embed_dim)
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
