"""Textbook optimizers, written out: each equals the one of torch.optim that it names, step by step.

For a weight w with gradient g at step t = 1, 2, ...; all state starts at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class ReferenceSGD(Optimizer):
    """w -= lr * g: torch.optim.SGD."""

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = _evaluated(closure)
        for w, g, group in _learned(self):
            w -= group["lr"] * g
        return loss


class ReferenceMomentum(Optimizer):
    """Polyak 1964 as torch.optim.SGD(momentum=...) has it: v = momentum * v + g; w -= lr * v.

    With `average`, v is the moving average that A. Ng's course teaches,
    v = momentum * v + (1 - momentum) * g: the same path as without it at (1 - momentum) times the lr.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float, average: bool = False) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "average": average})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = _evaluated(closure)
        for w, g, group in _learned(self):
            v = self.state[w].setdefault("v", torch.zeros_like(w))
            share = 1 - group["momentum"] if group["average"] else 1
            v.copy_(group["momentum"] * v + share * g)
            w -= group["lr"] * v
        return loss


class ReferenceRMSprop(Optimizer):
    """Tieleman and Hinton 2012: s = alpha * s + (1 - alpha) * g^2; w -= lr * g / (sqrt(s) + eps).

    torch.optim.RMSprop; alpha is the beta of A. Ng's course.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, alpha: float, eps: float) -> None:
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = _evaluated(closure)
        for w, g, group in _learned(self):
            s = self.state[w].setdefault("s", torch.zeros_like(w))
            s.copy_(group["alpha"] * s + (1 - group["alpha"]) * g**2)
            w -= group["lr"] * g / (s.sqrt() + group["eps"])
        return loss


class ReferenceAdam(Optimizer):
    """Kingma and Ba 2015, algorithm 1: torch.optim.Adam.

    m = b1 * m + (1 - b1) * g; v = b2 * v + (1 - b2) * g^2, both divided by what their start at 0 leaves
    out, 1 - b1^t and 1 - b2^t; w -= lr * m / (sqrt(v) + eps).
    """

    def __init__(self, params: Iterable[Tensor], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = _evaluated(closure)
        for w, g, group in _learned(self):
            state = self.state[w]
            if not state:
                state |= {"t": 0, "m": torch.zeros_like(w), "v": torch.zeros_like(w)}
            (b1, b2), m, v = group["betas"], state["m"], state["v"]
            state["t"] += 1
            m.copy_(b1 * m + (1 - b1) * g)
            v.copy_(b2 * v + (1 - b2) * g**2)
            m_hat = m / (1 - b1 ** state["t"])
            v_hat = v / (1 - b2 ** state["t"])
            w -= group["lr"] * m_hat / (v_hat.sqrt() + group["eps"])
        return loss


def _learned(optimizer: Optimizer) -> Iterator[tuple[Tensor, Tensor, dict[str, Any]]]:
    """Every weight that has a gradient, its gradient, and the values of its group."""
    for group in optimizer.param_groups:
        for w in group["params"]:
            if w.grad is not None:
                yield w, w.grad, group


def _evaluated(closure: Callable[[], float] | None) -> float | None:
    """PyTorch lets a caller hand in a function that computes loss and gradients."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
