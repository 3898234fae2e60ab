"""Networks of the suite of tests/benchmarks/diagnosis.py that no word of dlexp makes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn


class Frozen(nn.Module):
    """A network whose inner layer somebody forgot to unfreeze."""

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        activation: Callable[[], nn.Module],
        *,
        kernels: bool = False,
    ) -> None:
        super().__init__()
        first: nn.Module = nn.Linear(math.prod(input_shape), 64)
        inner: nn.Module = nn.Linear(64, 64)
        between: nn.Module = nn.Identity()
        if kernels:
            first, inner = nn.Conv2d(input_shape[0], 16, 3), nn.Conv2d(16, 16, 3)
            between = nn.Flatten()
        self.flat = nn.Identity() if kernels else nn.Flatten()
        self.first, self.bend1 = first, activation()
        self.inner, self.bend2 = inner, activation()
        self.between = between
        places = (input_shape[1] - 4) * (input_shape[2] - 4) if kernels else 4
        self.last = nn.Linear(16 * places, 64)
        self.bend3, self.answer = activation(), nn.Linear(64, outputs)
        self.inner.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bend1(self.first(self.flat(x)))
        x = self.between(self.bend2(self.inner(x)))
        z: Tensor = self.answer(self.bend3(self.last(x)))
        return z
