"""Networks of a trunk and what is put on it: many heads, a place in space, a crop before.

B batch, F input features, W width, K outputs, C channels, H height, W' width of a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlexp.build.mlp import mlp
from dlexp.data.dataset import Dataset
from dlexp.errors import UserError


class MultiHead(nn.Module):
    """A trunk that all outputs share, and a linear layer for each output alone.

    The gradient of the trunk is the sum of what all heads send down, so one task can help another.
    """

    def __init__(self, trunk: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) -> (B, K)."""
        shared = self.trunk(inputs)  # (B, W)
        return torch.cat([head(shared) for head in self.heads], dim=1)


def multi_head(
    input_shape: Sequence[int],
    outputs: int,
    activation: Callable[[], nn.Module],
    normalization: Callable[[int], nn.Module] | None = None,
    position: str = "before",
    dropout: Callable[[], nn.Module] | None = None,
    *,
    depth: int,
    width: int,
) -> MultiHead:
    """The hidden layers of an MLP as the trunk, and a head for each output."""
    whole = mlp(
        input_shape,
        outputs,
        depth=depth,
        width=width,
        bias=True,
        activation=activation,
        normalization=normalization,
        position=position,
        dropout=dropout,
    )
    return MultiHead(whole[:-1], width, outputs)


class UnitLength(nn.Module):
    """x / ||x||: every sample on the sphere of radius 1. The part of a gradient along x is lost."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, K) -> (B, K)."""
        return functional.normalize(x, dim=1)


def embedding_net(
    input_shape: Sequence[int],
    data: Dataset,
    activation: Callable[[], nn.Module],
    normalization: Callable[[int], nn.Module] | None = None,
    position: str = "before",
    dropout: Callable[[], nn.Module] | None = None,
    *,
    depth: int,
    width: int,
    dimensions: int,
    unit_length: bool,
) -> nn.Sequential:
    """An MLP that gives each sample a place, (B, ...) -> (B, dimensions), near those of its own kind."""
    if data.task != "embedding":
        raise UserError(
            f"model=embedding_net: gives places, not answers; the data asks for {data.task};"
            " allowed: task=embedding"
        )
    network = mlp(
        input_shape,
        dimensions,
        depth=depth,
        width=width,
        bias=True,
        activation=activation,
        normalization=normalization,
        position=position,
        dropout=dropout,
    )
    return network.append(UnitLength()) if unit_length else network


class BrightestWindow(nn.Module):
    """Cuts out the square of a picture whose mean is largest: where to look is not learned."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, C, H, W') -> (B, C, window, window)."""
        brightness = functional.avg_pool2d(pictures.mean(dim=1, keepdim=True), self.window, stride=1)
        places = brightness.shape[-1]  # in a row
        brightest = brightness.flatten(1).argmax(dim=1)  # (B,)
        windows = pictures.unfold(2, self.window, 1).unfold(3, self.window, 1)  # (B, C, ., ., window, window)
        samples = torch.arange(len(pictures), device=pictures.device)
        return windows[samples, :, brightest // places, brightest % places]


def two_stage(
    input_shape: Sequence[int],
    outputs: int,
    activation: Callable[[], nn.Module],
    *,
    window: int,
    depth: int,
    width: int,
) -> nn.Sequential:
    """Find the brightest window, cut it out, and recognise it with an MLP: (B, C, H, W') -> (B, K)."""
    if len(input_shape) != 3 or min(input_shape[1:]) < window:
        raise UserError(
            f"model=two_stage: takes pictures (C, H, W) of {window}x{window} or more; the data has"
            f" {tuple(input_shape)}; allowed: another model.window, data=digits_cluttered ..."
        )
    cut = (input_shape[0], window, window)
    recognise = mlp(cut, outputs, depth=depth, width=width, bias=True, activation=activation)
    return nn.Sequential(BrightestWindow(window), *recognise)
