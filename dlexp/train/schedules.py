"""Learning rates over time that PyTorch has no class for; t counts epochs or steps from 0."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from dlexp.errors import UserError


def inverse_time(optimizer: Optimizer, rate: float) -> LambdaLR:
    """lr / (1 + rate * t)."""
    return LambdaLR(optimizer, lambda t: 1 / (1 + rate * t))


def inverse_sqrt(optimizer: Optimizer) -> LambdaLR:
    """lr / sqrt(t + 1)."""
    return LambdaLR(optimizer, lambda t: (t + 1) ** -0.5)


def one_cycle(
    optimizer: Optimizer, total_steps: int, pct_start: float, div_factor: float, final_div_factor: float
) -> OneCycleLR:
    """PyTorch's, with the optimizer's own learning rate as its peak and its momentum left alone."""
    peak = optimizer.param_groups[0]["lr"]
    try:
        return OneCycleLR(
            optimizer,
            max_lr=peak,
            total_steps=total_steps,
            pct_start=float(pct_start),
            div_factor=div_factor,
            final_div_factor=final_div_factor,
            cycle_momentum=False,
        )
    except ZeroDivisionError as error:  # the rise would begin and end at the first step
        raise UserError(
            f"scheduler.pct_start={pct_start:g}: is one of {total_steps} steps, too short to rise in;"
            " allowed: more of them, or a longer run"
        ) from error
