"""Single neurons, from the McCulloch-Pitts unit to a dense layer written by hand.

B batch, F input features, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlexp.data.dataset import Dataset
from dlexp.errors import UserError


class McCullochPitts(nn.Module):
    """Fires if enough inputs that excite it are on and none that inhibits it (McCulloch and Pitts 1943).

    Args:
        weight: (F,) of 0 or 1: which inputs excite.
        threshold: how many of them have to be on.
        inhibitory: the inputs, by index, each of which alone keeps the unit from firing.
    """

    keeps_start = True  # nothing to draw, nothing to learn

    def __init__(self, weight: Tensor, threshold: float, inhibitory: Sequence[int]) -> None:
        super().__init__()
        self._inhibitory = list(inhibitory)
        weight[self._inhibitory] = 0.0
        self.weight = nn.Parameter(weight.unsqueeze(0), requires_grad=False)  # (1, F)
        self._threshold = threshold

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) of 0 or 1 -> (B, 1), 1 where it fires and 0 where not."""
        x = inputs.flatten(1)
        enough = x @ self.weight.T >= self._threshold  # (B, 1)
        vetoed = x[:, self._inhibitory].any(dim=1, keepdim=True)
        return (enough & ~vetoed).to(x.dtype)


def mcculloch_pitts(
    input_shape: Sequence[int],
    outputs: int,
    data: Dataset,
    *,
    threshold: float,
    weights: Sequence[int] | None,
    inhibitory: Sequence[int],
) -> McCullochPitts:
    """A McCulloch-Pitts unit; without `weights` every input that does not inhibit excites."""
    _refuse_several("mcculloch_pitts", outputs)
    features, seen = math.prod(input_shape), data.train.inputs
    if not ((seen == 0) | (seen == 1)).all():
        raise UserError(
            f"model=mcculloch_pitts: takes inputs of 0 and 1; the data has {seen.min():.3g} to"
            f" {seen.max():.3g}; allowed: Boolean data with data.standardize=none"
        )
    if weights is not None and len(weights) != features:
        raise UserError(f"model.weights={list(weights)}: allowed: null or {features} numbers, 0 or 1")
    if not all(0 <= i < features for i in inhibitory):
        raise UserError(f"model.inhibitory={list(inhibitory)}: allowed: indices from 0 to {features - 1}")
    weight = torch.ones(features) if weights is None else torch.tensor(weights, dtype=torch.float32)
    return McCullochPitts(weight, threshold, inhibitory)


def perceptron(input_shape: Sequence[int], outputs: int) -> nn.Sequential:
    """Rosenblatt's unit, (B, ...) -> (B, 1): it says yes where w x + b > 0, so -b is its threshold."""
    _refuse_several("perceptron", outputs)
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), 1))


class Neuron(nn.Module):
    """K neurons side by side, which is a dense layer, written by hand: z = x W^T + b."""

    def __init__(self, input_shape: Sequence[int], outputs: int) -> None:
        super().__init__()
        features = math.prod(input_shape)
        bound = features**-0.5  # as PyTorch's own nn.Linear starts
        self.weight = nn.Parameter(torch.empty(outputs, features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) -> (B, K)."""
        return inputs.flatten(1) @ self.weight.T + self.bias


def _refuse_several(model: str, outputs: int) -> None:
    if outputs != 1:
        raise UserError(
            f"model={model}: answers yes or no, one output; the data asks for {outputs};"
            " allowed: task=binary, or data with one output"
        )
