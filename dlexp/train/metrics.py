"""How well a network does, from its outputs and the targets: each a function to a scalar tensor.

They are passive: nothing is learned from them. B samples, T time steps, K outputs.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional


def decisions(outputs: Tensor, targets: Tensor, threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    """What the network decides and what is right, (decisions,) each; unknown targets are left out.

    Args:
        outputs, targets: (..., K) scores and (...) indices, negative if unknown; or (B, K) answers of
            yes or no and (B, K) of 1 or 0, NaN if unknown.
        threshold: an output above it is a yes.
    """
    if targets.is_floating_point():
        known = targets.isfinite()
        return (outputs > threshold)[known], (targets > 0.5)[known]
    decided, targets = outputs.argmax(dim=-1).flatten(), targets.flatten()
    known = targets >= 0
    return decided[known], targets[known]


def accuracy(outputs: Tensor, targets: Tensor, threshold: float = 0.0) -> Tensor:
    """Share of decisions that are right."""
    if not targets.is_floating_point() and targets.dim() == 1:  # the common case, without a mask
        return (outputs.argmax(dim=1) == targets).float().mean()
    decided, right = decisions(outputs, targets, threshold)
    return (decided == right).float().mean()


def rmse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Root of the mean squared error."""
    return (outputs - targets).square().mean().sqrt()


def mae(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error."""
    return (outputs - targets).abs().mean()


def bits_per_character(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy to the base 2: (B, T, K) logits, (B, T) tokens."""
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten()) / math.log(2)


ALL = {metric.__name__: metric for metric in (accuracy, rmse, mae, bits_per_character)}
