"""The multilayer perceptron, and the linear model that it is without hidden layers.

B batch, F input features, W width, C outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import nn


def mlp(
    input_shape: Sequence[int],
    outputs: int,
    *,
    depth: int,
    width: int,
    bias: bool,
    activation: Callable[[], nn.Module],
    normalization: Callable[[int], nn.Module] | None = None,
    position: str = "before",
    dropout: Callable[[], nn.Module] | None = None,
) -> nn.Sequential:
    """`depth` hidden layers of `width` units, then a linear output layer: (B, *input_shape) -> (B, C).

    A hidden block is linear, activation, dropout; the normalization stands before or after the
    activation. Factories, not instances, come in: every block gets modules of its own.
    """
    features = math.prod(input_shape)
    modules: list[nn.Module] = [nn.Flatten()]  # (B, *input_shape) -> (B, F)
    for layer in range(depth):
        modules.append(nn.Linear(width if layer else features, width, bias=bias))
        if normalization and position == "before":
            modules.append(normalization(width))
        modules.append(activation())
        if normalization and position == "after":
            modules.append(normalization(width))
        if dropout:
            modules.append(dropout())
    modules.append(nn.Linear(width, outputs, bias=bias))  # (B, W) -> (B, C)
    return nn.Sequential(*modules)


def linear(input_shape: Sequence[int], outputs: int, *, bias: bool) -> nn.Sequential:
    """One linear layer: (B, *input_shape) -> (B, C)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), outputs, bias=bias))
