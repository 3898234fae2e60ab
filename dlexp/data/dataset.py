"""A data set: disjoint splits of tensors, standardized with the statistics of the training split.

N samples, C channels, H height, W width, T time steps, F features, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dlexp.errors import UserError


@dataclass(frozen=True)
class Split:
    """Samples and their targets."""

    inputs: Tensor  # (N, *input_shape) float32, or int64 where inputs are tokens
    targets: Tensor  # (N, ...), as the task has them: see dlexp/build/task.py

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
    outputs: int  # how many numbers a network gives for each sample (for each time step of a sequence)
    task: str = "classification"  # a name in dlexp.build.task.TASKS
    vocabulary: int | None = None  # inputs are tokens 0 to vocabulary - 1
    train_dev: Split | None = None  # held out from where train comes from, while dev and test differ
    facts: Mapping[str, Any] = field(default_factory=dict)  # what is known of the data, e.g. bayes_error

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample, e.g. (1, 8, 8)."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def held_out(self) -> dict[str, Split]:
        """The splits that are watched while training goes on, by name."""
        found = {"validation": self.validation}
        return found | {"train_dev": self.train_dev} if self.train_dev else found

    def to(self, device: torch.device) -> Dataset:
        return self.map(lambda split: split.to(device))

    def map(self, change: Callable[[Split], Split]) -> Dataset:
        """The data set with each split changed."""
        names = [name for name in ("train", "validation", "test", "train_dev") if getattr(self, name)]
        changed: dict[str, Any] = {name: change(getattr(self, name)) for name in names}
        return replace(self, **changed)


def divide(
    samples: Split,
    *,
    validation: float,
    test: float,
    split_seed: int,
    standardize: str,
    outputs: int,
    train_dev: float = 0.0,
    change: Callable[[list[Split]], list[Split]] = lambda splits: splits,
    **rest: Any,
) -> Dataset:
    """A data set from samples in one heap: split, then standardized.

    Args:
        change: takes and returns train, validation, test and, if there is one, train_dev, between the cut
            and the standardization: nothing that is made there from a sample is in two splits.
        validation, test, train_dev: shares of all samples that are held out; no `train_dev` at 0.
        split_seed: of the generator that shuffles before the cut.
        standardize: see the function of that name.
        outputs, rest: what else the data set knows of itself.
    """
    shares = {"validation": validation, "test": test} | ({"train_dev": train_dev} if train_dev else {})
    parts = standardized(change(split(samples, shares, split_seed)), standardize)
    named: dict[str, Any] = dict(zip(("train", *shares), parts, strict=True))
    return Dataset(**named, outputs=outputs, **rest)


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
        if n < len(sizes):
            raise UserError(
                f"data: {n} samples; allowed: {len(sizes)} or more, for train, {', '.join(shares)}"
            )
        named = ", ".join(f"data.{name}={share:g}" for name, share in shares.items())
        if (total := sum(shares.values())) >= 1:
            raise UserError(
                f"{named}: sum to {total:g}, which leaves none of the {n} samples to train;"
                " allowed: less than 1 together"
            )
        least = math.ceil(100 / n) / 100  # of two decimals
        raise UserError(
            f"{named}: leave a split of the {n} samples empty; allowed: {least:g} or more each,"
            " and less than 1 together, or more samples"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return [Split(samples.inputs[rows], samples.targets[rows]) for rows in order.split(sizes)]


STANDARDIZE = ("channel", "feature", "minmax", "bad_scale", "leak", "none")


def standardized(splits: list[Split], how: str) -> list[Split]:
    """All splits with inputs scaled alike, by what is known of the first, the training split.

    Args:
        how: one of `STANDARDIZE`.
            "channel": (x - mean) / std, one mean for all pixels of a channel.
            "feature": the same with a mean for every input. One that never changes is only centred.
            "minmax": each feature to 0 .. 1.
            "bad_scale": as "feature", then multiplied by 0.01 to 100, evenly in the logarithm from the
                first feature to the last.
            "leak": as "feature" with the statistics of the third split, the test split: a mistake to study.
            "none": as they are.
    """
    if how == "none" or not splits[0].inputs.is_floating_point():
        return splits
    known = (splits[2] if how == "leak" else splits[0]).inputs.double()
    pixels = list(range(2, known.dim())) if how == "channel" else []  # (N, C, H, W): over H and W too
    over = [0, *pixels]
    if how == "minmax":
        shift = known.amin(dim=over, keepdim=True)
        scale = known.amax(dim=over, keepdim=True) - shift
    else:
        shift = known.mean(dim=over, keepdim=True)
        scale = known.std(dim=over, correction=0, keepdim=True)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    if how == "bad_scale":
        worse = torch.logspace(-2, 2, scale.numel(), dtype=torch.float64).view(scale.shape)
        scale = scale / worse
    return [replace(s, inputs=((s.inputs.double() - shift) / scale).float()) for s in splits]
