"""The loss of the best answer that does not look at its input: what a network has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

# Losses whose best constant answer is the shares of the classes, and costs their entropy.
OF_CLASSES = ("cross_entropy", "nll", "log_loss")
OF_ANSWERS = ("binary_cross_entropy", "bce")  # likewise for each answer by itself
MOST = 2**16  # targets that are looked at


def chance_loss(loss: str, targets: Tensor, classes: int) -> float | None:
    """The entropy of classes, or the variance of numbers; None for losses of which it is not known.

    Args:
        loss: a choice of configs/loss, with its own values.
        targets: of the training split, as the task has them: see dlexp/build/task.py.
        classes: how many numbers a network gives.
    """
    few = targets.flatten(1) if targets.dim() > 1 else targets
    few = few[: max(MOST // max(few[0].numel(), 1), 1)].detach()
    if loss in OF_CLASSES and not few.is_floating_point():
        asked = few[few >= 0]  # others are left out of the loss
        shares = torch.bincount(asked, minlength=classes).double() / max(len(asked), 1)
        return float(-torch.special.xlogy(shares, shares).sum())
    if loss in OF_ANSWERS:
        shares = few.double().nan_to_num(0.0).mean(dim=0) / few.isnan().logical_not().double().mean(dim=0)
        entropies = -torch.special.xlogy(shares, shares) - torch.special.xlogy(1 - shares, 1 - shares)
        return float(entropies.nanmean())
    if loss == "mse" and few.is_floating_point():
        return float(few.double().var(dim=0, correction=0).mean())
    return None


def zero_loss(loss: str, targets: Tensor) -> float | None:
    """The loss of answering 0, as a new network about does: mean squares of numbers, None of other losses."""
    if loss != "mse" or not targets.is_floating_point():
        return None
    few = targets.flatten(1) if targets.dim() > 1 else targets
    few = few[: max(MOST // max(few[0].numel(), 1), 1)].detach()
    return float(few.double().square().mean())
