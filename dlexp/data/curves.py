"""Regression: a line, with or without outliers, three curves, and what another network computes.

N samples, F features, K targets. Inputs are (N, 1) and targets (N, 1) unless a function says otherwise.
`sample_seed` decides what is drawn; `shares` are validation, test, train_dev, split_seed and
standardize, as `dataset.divide` has them. The fact best_rmse is what the true curve itself scores,
on every split.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dlexp.data import dataset
from dlexp.data.dataset import Dataset, Split


def line(
    samples: int,
    slope: float,
    offset: float,
    noise: float,
    outliers: float,
    outlier_axis: str,
    outlier_size: float,
    sample_seed: int,
    **shares: Any,
) -> Dataset:
    """y = slope x + offset + noise, with x evenly drawn from [-1, 1].

    Outliers are in the training split only: the others tell how well the line itself is found.

    Args:
        outliers: share of the training samples that are outliers.
        outlier_axis: "y" adds `outlier_size` to their target, "x" to their input.
    """

    def spoil(splits: list[Split]) -> list[Split]:
        train, *held_out = splits
        moved = torch.zeros(len(train), 1)
        moved[: round(outliers * len(train))] = outlier_size  # the split is shuffled: any will do
        if outlier_axis == "x":
            return [replace(train, inputs=train.inputs + moved), *held_out]
        return [replace(train, targets=train.targets + moved), *held_out]

    drawn = _draw(lambda x: slope * x + offset, 1.0, samples, noise, sample_seed)
    facts = {} if outliers else {"best_rmse": noise}  # with outliers it would not hold on the training split
    return dataset.divide(drawn, change=spoil, outputs=1, task="regression", facts=facts, **shares)


def sine(samples: int, frequency: float, noise: float, sample_seed: int, **shares: Any) -> Dataset:
    """y = sin(2 pi frequency x) + noise, with x evenly drawn from [-1, 1]."""
    drawn = _draw(lambda x: (2 * math.pi * frequency * x).sin(), 1.0, samples, noise, sample_seed)
    return _regression(drawn, noise, shares)


def step(samples: int, noise: float, sample_seed: int, **shares: Any) -> Dataset:
    """y = 1 where x > 0 and else 0, plus noise, with x evenly drawn from [-1, 1]."""
    return _regression(_draw(lambda x: (x > 0).float(), 1.0, samples, noise, sample_seed), noise, shares)


def absolute(samples: int, noise: float, sample_seed: int, **shares: Any) -> Dataset:
    """y = |x| + noise, with x evenly drawn from [-sqrt 3, sqrt 3], where its deviation is 1.

    Narrow deep ReLU networks die on it (Lu, Shin, Su and Karniadakis 2019).
    """
    return _regression(_draw(torch.abs, math.sqrt(3), samples, noise, sample_seed), noise, shares)


def teacher(
    samples: int,
    features: int,
    targets: int,
    depth: int,
    width: int,
    noise: float,
    sample_seed: int,
    **shares: Any,
) -> Dataset:
    """What a fixed random ReLU network makes of normal inputs: inputs (N, F), targets (N, K).

    The teacher has `depth` hidden layers of `width` units and no biases; weights are normal with
    variance 2 / fan_in (1 / fan_in in the last layer), so its answers are of order 1.
    """
    generator = torch.Generator().manual_seed(sample_seed)
    inputs = torch.randn(samples, features, generator=generator)
    signal = inputs
    for _ in range(depth):
        fan_in = signal.shape[1]
        signal = (signal @ torch.randn(fan_in, width, generator=generator) * math.sqrt(2 / fan_in)).relu()
    last = torch.randn(signal.shape[1], targets, generator=generator) / math.sqrt(signal.shape[1])
    answers = signal @ last + noise * torch.randn(samples, targets, generator=generator)
    return _regression(Split(inputs, answers), noise, shares)


def _draw(curve: Callable[[Tensor], Tensor], reach: float, samples: int, noise: float, seed: int) -> Split:
    """x evenly from [-reach, reach] and curve(x) + noise, both (N, 1)."""
    generator = torch.Generator().manual_seed(seed)
    x = reach * (2 * torch.rand(samples, 1, generator=generator) - 1)
    return Split(x, curve(x) + noise * torch.randn(samples, 1, generator=generator))


def _regression(drawn: Split, noise: float, shares: dict[str, Any]) -> Dataset:
    outputs = drawn.targets.shape[1]
    return dataset.divide(drawn, outputs=outputs, task="regression", facts={"best_rmse": noise}, **shares)
