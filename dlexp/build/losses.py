"""Losses that PyTorch lacks, or has in another shape.

B samples, T time steps, K outputs.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class PerStep(nn.Module):
    """A loss of (N, K) outputs and (N,) targets, applied to each time step of (B, T, K) and (B, T)."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        found: Tensor = self.loss(outputs.flatten(0, -2), targets.flatten())
        return found


class BinaryCrossEntropy(nn.Module):
    """-[y log p + (1 - y) log(1 - p)] with p = sigmoid(output), mean over the targets that are known.

    Outputs (B, K), targets (B, K) of 0 or 1, NaN where unknown.
    """

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        known = targets.isfinite()
        whole = functional.binary_cross_entropy_with_logits(outputs, targets.nan_to_num(), reduction="none")
        return (whole * known).sum() / known.sum().clamp(min=1)
