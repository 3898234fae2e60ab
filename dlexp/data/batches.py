"""Batches without end, from tensors that already lie on the device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dlexp.data.dataset import Split


def batches(split: Split, size: int, seed: int, *, fixed: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs (size, *input_shape) and targets (size,), shuffled anew in every epoch.

    The order comes from a generator of its own on the CPU, so that it is the same on every device
    and no layer of the network can disturb it. A last portion smaller than `size` is left out.

    Args:
        fixed: give the first batch again and again.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(split), generator=generator)
        if split.targets.is_cuda:
            order = order.pin_memory()  # otherwise the copy makes the host wait
        order = order.to(split.targets.device, non_blocking=True)
        for rows in order[: len(split) // size * size].view(-1, size):
            batch = split.inputs[rows], split.targets[rows]
            while fixed:
                yield batch
            yield batch
