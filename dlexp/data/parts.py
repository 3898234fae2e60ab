"""Samples that are divided first and changed part by part: nothing made from them is in two splits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlexp.data import dataset
from dlexp.data.dataset import Dataset, Split


def divide(
    samples: Split,
    change: Callable[[list[Split]], list[Split]],
    *,
    validation: float,
    test: float,
    split_seed: int,
    standardize: str,
    outputs: int,
    train_dev: float = 0.0,
    **rest: Any,
) -> Dataset:
    """As `dataset.divide`, with `change` applied to the parts between the cut and the standardization.

    Args:
        change: takes and returns train, validation, test and, where `train_dev` is above 0, train_dev.
    """
    shares = {"validation": validation, "test": test} | ({"train_dev": train_dev} if train_dev else {})
    parts = dataset.standardized(change(dataset.split(samples, shares, split_seed)), standardize)
    named: dict[str, Any] = dict(zip(("train", *shares), parts, strict=True))
    return Dataset(**named, outputs=outputs, **rest)
