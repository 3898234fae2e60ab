"""How numbers of a layer are spread: counts in bins of equal width, computed where the numbers are.

Off by default: sorting every number of a step into bins takes as long as all else that is recorded, and makes
the event file eight times as large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BINS = 30
KINDS = ("activation", "delta", "gradient")  # the last one of weight and bias together


class Histogram(NamedTuple):
    """Of one layer in one step, on the host."""

    low: float
    high: float
    total: float  # of the numbers; those that are not finite are left out everywhere
    squares: float  # the total of their squares
    counts: np.ndarray  # (BINS,), from low to high

    @classmethod
    def read(cls, raw: np.ndarray) -> Histogram:
        """What `measure` left, (4 + BINS,)."""
        low, high, total, squares = raw[:4].tolist()
        return cls(low, high, total, squares, raw[4:])


@torch.no_grad()
def measure(tensors: Sequence[Tensor]) -> Tensor:
    """(4 + BINS,) float64: lowest, highest, total, total of squares, counts; the host is not made to wait."""
    numbers = torch.cat([t.detach().reshape(-1) for t in tensors])
    numbers = numbers.to(torch.float32 if numbers.device.type == "mps" else torch.float64)
    finite = numbers.isfinite()
    low = torch.where(finite, numbers, torch.inf).min()
    high = torch.where(finite, numbers, -torch.inf).max()
    known = torch.where(finite, numbers, 0)
    width = torch.where(high > low, high - low, 1) / BINS
    place = ((known - low) / width).clamp(0, BINS - 1).nan_to_num().long()
    counts = torch.zeros(BINS, dtype=numbers.dtype, device=numbers.device)
    counts.index_add_(0, place, finite.to(numbers.dtype))
    return torch.cat([torch.stack([low, high, known.sum(), known.square().sum()]), counts])
