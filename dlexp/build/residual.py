"""The residual multilayer perceptron with four kinds of branch, and the deep linear net.

B batch, F input features, W width, L blocks, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from dlexp.build.mlp import mlp
from dlexp.errors import UserError


class Stream(nn.Module):
    """x + f(x), what a residual block hands on to the next, perhaps through an activation.

    The recorder has a row for it, without weights; what it returns is its z.
    """

    is_signal = True  # for the recorder

    def __init__(self, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Two of one shape -> that shape."""
        z = x + f
        return z if self.activation is None else self.activation(z)


class Residual(nn.Module):
    """x + scale * f(x), He et al. 2016: the sum hands gradients on undivided, (B, W) -> (B, W)."""

    def __init__(self, branch: nn.Sequential, *, scale: float = 1.0, zero_init: bool = False) -> None:
        super().__init__()
        self.branch = branch
        self.stream = Stream()
        self.scale = scale
        self.zero_init = zero_init

    def forward(self, x: Tensor) -> Tensor:
        f = self.branch(x)
        z: Tensor = self.stream(x, f if self.scale == 1 else self.scale * f)
        return z

    def adjust_start(self) -> None:
        """With `zero_init` the last layer of the branch starts at 0, and the block as the identity."""
        if self.zero_init:
            for parameter in self.branch[-1].parameters():
                nn.init.zeros_(parameter)


def residual_mlp(
    input_shape: Sequence[int],
    outputs: int,
    *,
    depth: int,
    width: int,
    bias: bool,
    branch: str,
    activation: Callable[[], nn.Module],
    normalization: Callable[[int], nn.Module] | None = None,
    position: str = "before",
    dropout: Callable[[], nn.Module] | None = None,
) -> nn.Sequential:
    """A linear layer, `depth` residual blocks, activation, linear layer: (B, *input_shape) -> (B, K).

    A branch is twice activation and linear layer, in this order, so that nothing bends the sum (He et
    al. 2016, "Identity Mappings"). Normalization and dropout stand around each activation as in an MLP.

    Args:
        branch: with weights from `kaiming_normal` and ReLU, the mean square of the sum at the start
            "plain": doubles in each block, as f(x) is as large as x;
            "zero_init": stays as it is, as the last layer of f starts at 0;
            "pre_norm": grows by 1 in each block, as f sees x normalized (by layer norm unless another
                normalization is named) and nothing inside f is;
            "scaled": grows by (1 + 1/L)^L < e in all, as f(x) is divided by sqrt(L).

    Raises:
        UserError: `pre_norm` is asked to normalize behind the activation.
    """
    first = branch == "pre_norm"
    if first and position == "after":
        raise UserError(
            "normalization.position=after: model.branch=pre_norm normalizes what enters a branch;"
            " allowed: before"
        )

    def layer(features: int, *, entry: bool = True) -> list[nn.Module]:
        """What leads to a linear layer, and that: (B, W) -> (B, features)."""
        modules: list[nn.Module] = []
        if first and entry:
            modules.append((normalization or nn.LayerNorm)(width))
        inner = None if first else normalization
        if inner and position == "before":
            modules.append(inner(width))
        modules.append(activation())
        if inner and position == "after":
            modules.append(inner(width))
        if dropout:
            modules.append(dropout())
        return [*modules, nn.Linear(width, features, bias=bias)]

    scale = 1 / math.sqrt(depth) if branch == "scaled" else 1.0
    blocks = [
        Residual(
            nn.Sequential(*layer(width), *layer(width, entry=False)),
            scale=scale,
            zero_init=branch == "zero_init",
        )
        for _ in range(depth)
    ]
    stem = nn.Linear(math.prod(input_shape), width, bias=bias)
    return nn.Sequential(nn.Flatten(), stem, *blocks, *layer(outputs))


def deep_linear(
    input_shape: Sequence[int], outputs: int, *, depth: int, width: int, bias: bool
) -> nn.Sequential:
    """An MLP that nothing bends, whatever activation is chosen: one linear map in `depth` + 1 factors."""
    return mlp(input_shape, outputs, depth=depth, width=width, bias=bias, activation=nn.Identity)
