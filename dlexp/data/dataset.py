"""A data set: three disjoint splits of tensors, standardized with the statistics of the first.

N samples, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlexp.errors import UserError


@dataclass(frozen=True)
class Split:
    """Samples and their labels."""

    inputs: Tensor  # (N, *input_shape) float32
    targets: Tensor  # (N,) int64, class indices

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Split:
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Dataset:
    """What a network learns from, is watched on, and is judged by."""

    train: Split
    validation: Split
    test: Split
    classes: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample, e.g. (1, 8, 8)."""
        return tuple(self.train.inputs.shape[1:])

    def to(self, device: torch.device) -> Dataset:
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
        )


def split(samples: Split, shares: dict[str, float], seed: int) -> list[Split]:
    """Shuffle with a generator of its own and cut off a part for each share; the rest comes first.

    Args:
        shares: the part of all samples that goes into each held-out split, by its name.

    Returns:
        The rest, then one split for each share. Together they hold each sample once.

    Raises:
        UserError: a split would be empty.
    """
    n = len(samples)
    sizes = [round(share * n) for share in shares.values()]
    sizes.insert(0, n - sum(sizes))
    if min(sizes) < 1:
        named = ", ".join(f"data.{name}={share:g}" for name, share in shares.items())
        raise UserError(
            f"{named}: leave a split of the {n} samples empty; allowed: {1 / n:.2g} or more each,"
            " and less than 1 together"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return [Split(samples.inputs[rows], samples.targets[rows]) for rows in order.split(sizes)]


def standardize(splits: list[Split], how: str) -> list[Split]:
    """(x - mean) / std with mean and std of the first split alone, for all splits.

    Args:
        how: "channel" (one mean for all pixels of a channel), "feature" (one for every input) or "none".
            A feature that never changes has std 0 and is only centred.
    """
    if how == "none":
        return splits
    inputs = splits[0].inputs.double()
    pixels = list(range(2, inputs.dim())) if how == "channel" else []  # (N, C, H, W): over H and W too
    mean = inputs.mean(dim=[0, *pixels], keepdim=True)
    std = inputs.std(dim=[0, *pixels], correction=0, keepdim=True)
    std = torch.where(std > 0, std, torch.ones_like(std))
    return [Split(((s.inputs.double() - mean) / std).float(), s.targets) for s in splits]
