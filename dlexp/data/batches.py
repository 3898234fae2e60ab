"""Batches without end, from tensors that already lie on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dlexp.data.dataset import Split


class Batches(Iterator[tuple[Tensor, Tensor]]):
    """Inputs (size, *input_shape) and targets (size,), shuffled anew in every epoch.

    The order comes from a generator of its own on the CPU, so that it is the same on every device
    and no layer of the network can disturb it. A last portion smaller than `size` is left out.
    """

    def __init__(self, split: Split, size: int, seed: int, *, fixed: bool = False) -> None:
        """With `fixed` the first batch comes again and again."""
        self._split, self._size, self._fixed = split, size, fixed
        self._generator = torch.Generator().manual_seed(seed)
        self._before = self._generator.get_state()  # of the generator, before it drew this epoch's order
        self._rows: list[Tensor] = []  # the sample numbers of each batch of this epoch
        self._given = 0  # so many of them

    def __next__(self) -> tuple[Tensor, Tensor]:
        if self._given == len(self._rows):
            self._shuffle()
        rows = self._rows[self._given]
        if not self._fixed:
            self._given += 1
        # for whole rows several times as fast as the indexing of `inputs[rows]`
        return self._split.inputs.index_select(0, rows), self._split.targets.index_select(0, rows)

    def _shuffle(self) -> None:
        self._before, self._given = self._generator.get_state(), 0
        order = torch.randperm(len(self._split), generator=self._generator)
        if self._split.targets.is_cuda:
            order = order.pin_memory()  # otherwise the copy makes the host wait
        order = order.to(self._split.targets.device, non_blocking=True)
        whole = len(self._split) // self._size
        self._rows = list(order[: whole * self._size].view(-1, self._size))

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch stands: its epoch, and its place in it."""
        return {"generator": self._before, "given": self._given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._generator.set_state(state["generator"])
        self._shuffle()
        self._given = state["given"]
