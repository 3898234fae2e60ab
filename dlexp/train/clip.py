"""Gradients tamed before the update; the probe has seen them untamed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def by_norm(parameters: Sequence[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients together down to norm `max_norm`; returns the factor, 1 where nothing was done."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return (max_norm / (norm + 1e-6)).clamp(max=1.0)  # the 1e-6 is PyTorch's


def by_value(parameters: Sequence[Tensor], clip_value: float) -> Tensor:
    """Cut every entry to +-clip_value; returns the norm after, divided by the norm before."""
    before = _norm(parameters)
    torch.nn.utils.clip_grad_value_(parameters, clip_value)
    return torch.where(before == 0, torch.ones_like(before), _norm(parameters) / before)


def _norm(parameters: Sequence[Tensor]) -> Tensor:
    """Of all gradients together."""
    norms = [torch.linalg.vector_norm(p.grad) for p in parameters if p.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm
