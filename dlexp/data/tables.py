"""scikit-learn's small real tables, which come with it: features of very different scales.

N samples, F features.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dlexp.data import dataset
from dlexp.data.dataset import Dataset, Split


def wine(**shares: Any) -> Dataset:
    """Chemical analyses (178, 13) of wines from three growers; `shares` as `dataset.divide` has them."""
    from sklearn.datasets import load_wine

    return _classes(load_wine(), shares)


def iris(**shares: Any) -> Dataset:
    """Lengths and widths (150, 4) of leaves of three species of iris."""
    from sklearn.datasets import load_iris

    return _classes(load_iris(), shares)


def breast_cancer(**shares: Any) -> Dataset:
    """Measures (569, 30) of cell nuclei; targets (569, 1): 0 malignant, 1 benign, as in scikit-learn."""
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer()
    samples = Split(_floats(table.data), _floats(table.target).unsqueeze(1))
    return dataset.divide(samples, outputs=1, task="binary", facts=_facts(table), **shares)


def diabetes(*, standardize_targets: bool, **shares: Any) -> Dataset:
    """Body measures (442, 10) in their own units and the progress of the illness a year later, 25 to 346."""
    from sklearn.datasets import load_diabetes

    table = load_diabetes(scaled=False)
    samples = Split(_floats(table.data), _floats(table.target).unsqueeze(1))
    data = dataset.divide(samples, outputs=1, task="regression", **shares)
    return with_standardized_targets(data) if standardize_targets else data


def with_standardized_targets(data: Dataset) -> Dataset:
    """Targets (N, K) with mean 0 and standard deviation 1 in the training split.

    The facts say what mean and deviation were. An RMSE is then in standard deviations; always giving
    the mean scores about 1.
    """
    known = data.train.targets.double()
    mean, std = known.mean(dim=0), known.std(dim=0, correction=0)
    std = torch.where(std > 0, std, torch.ones_like(std))
    facts = {**data.facts, "target_mean": mean.tolist(), "target_std": std.tolist()}
    changed = data.map(lambda s: replace(s, targets=((s.targets.double() - mean) / std).float()))
    return replace(changed, facts=facts)


def _classes(table: Any, shares: dict[str, Any]) -> Dataset:
    samples = Split(_floats(table.data), torch.from_numpy(table.target).long())
    return dataset.divide(samples, outputs=len(table.target_names), facts=_facts(table), **shares)


def _facts(table: Any) -> dict[str, Any]:
    return {"classes": [str(name) for name in table.target_names]}


def _floats(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
