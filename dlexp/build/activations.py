"""Activations that PyTorch lacks, and three formulas of lecture notes as they were written down.

Every one works on each unit by itself and keeps the shape, but for `SoftmaxNotes`. The attribute
`is_activation` tells the recorder that what such a module returns is the activation of a layer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class Step(nn.Module):
    """1 for z > threshold, otherwise 0; the slope is 0 wherever there is one."""

    is_activation = True

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, z: Tensor) -> Tensor:
        # the sign has a gradient in PyTorch, which is 0: layers below get zeros, not nothing
        return torch.relu(torch.sign(z - self.threshold))

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}"


class StepStraightThrough(nn.Module):
    """The step forward; backward the slope is taken as 1 for |z - threshold| < 1, otherwise 0.

    Bengio et al. 2013, with the window of Hubara et al. 2016.
    """

    is_activation = True

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, z: Tensor) -> Tensor:
        passed: Tensor = _StraightThrough.apply(z - self.threshold)
        return passed

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}"


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return (z > 0).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        passed: Tensor = grads[0] * (z.abs() < 1)
        return passed


class Sign(nn.Module):
    """+1, -1, and 0 at 0; the slope is 0 wherever there is one."""

    is_activation = True

    def forward(self, z: Tensor) -> Tensor:
        return torch.sign(z)


class Abs(nn.Module):
    """|z|; the slope is -1 or 1, and 0 at 0."""

    is_activation = True

    def forward(self, z: Tensor) -> Tensor:
        return torch.abs(z)


class ScaledSigmoid(nn.Module):
    """4 sigmoid(z) - 2, in (-2, 2): a sigmoid through the origin with slope 1 there."""

    is_activation = True

    def forward(self, z: Tensor) -> Tensor:
        return 4 * torch.sigmoid(z) - 2

    def flatness(self, a: Tensor) -> tuple[Tensor, float]:
        """Where the first is above the second, the slope 1 - a^2 / 4 is below a tenth of its maximum."""
        return a.abs(), math.sqrt(3.6)


class SigmoidPlus(nn.Module):
    """1 / (1 + exp(+z)), a sigmoid whose exponent lost its minus: it falls where z grows."""

    is_activation = True

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(-z)

    def flatness(self, a: Tensor) -> tuple[Tensor, float]:
        """Where the first is above the second, the slope is below a tenth of its maximum, as for sigmoid."""
        return (a - 0.5).abs(), math.sqrt(0.225)


class EluNotes(nn.Module):
    """z (1 - exp(-z)), taken for ELU: about z for large z, but it grows like |z| exp(|z|) below 0."""

    is_activation = True

    def forward(self, z: Tensor) -> Tensor:
        return -z * torch.expm1(-z)


class SoftmaxNotes(nn.Module):
    """z / sum of z over the last dimension, a softmax that lost its exponentials.

    It sums to 1, but is negative where the signs differ and grows without bound as the sum nears 0.
    """

    is_activation = True

    def forward(self, z: Tensor) -> Tensor:
        return z / z.sum(dim=-1, keepdim=True)
