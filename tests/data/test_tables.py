"""scikit-learn's tables, value for value, in the shapes that their tasks have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch
from sklearn.linear_model import LinearRegression

from dlexp.build.assemble import assemble
from dlexp.compose import compose
from dlexp.data import tables
from dlexp.data.dataset import Dataset

PLAIN: dict[str, Any] = {"validation": 0.15, "test": 0.15, "split_seed": 0, "standardize": "none"}


def build(*words: str) -> Dataset:
    """The data set that the words of a command line name."""
    return assemble(compose([*words, "train.batch_size=8"]), torch.device("cpu")).data


def rows(data: Dataset) -> list[list[float]]:
    """All samples of all splits with their targets, sorted."""
    parts = [data.train, data.validation, data.test]
    return sorted(
        torch.cat([p.inputs, p.targets.reshape(len(p), -1).float()], dim=1).tolist()[i]
        for p in parts
        for i in range(len(p))
    )


@pytest.mark.parametrize(
    ("word", "options", "samples", "features", "task", "outputs"),
    [
        ("wine", {}, 178, 13, "classification", 3),
        ("iris", {}, 150, 4, "classification", 3),
        ("breast_cancer", {}, 569, 30, "binary", 1),
        ("diabetes", {"standardize_targets": False}, 442, 10, "regression", 1),
    ],
)
def test_tables_are_those_of_scikit_learn(
    word: str, options: dict[str, Any], samples: int, features: int, task: str, outputs: int
) -> None:
    """Every sample once, with its own target."""
    scaled = {"scaled": False} if word == "diabetes" else {}
    x, y = getattr(sklearn.datasets, f"load_{word}")(return_X_y=True, **scaled)
    data = getattr(tables, word)(**PLAIN, **options)
    assert data.input_shape == (features,) and data.task == task and data.outputs == outputs
    assert data.train.targets.shape[1:] == (() if task == "classification" else (1,))
    assert data.train.targets.dtype == (torch.int64 if task == "classification" else torch.float32)
    expected = sorted(np.column_stack([x, y]).astype(np.float32).tolist())
    assert rows(data) == expected and len(expected) == samples


@pytest.mark.parametrize("word", ["wine", "iris", "breast_cancer", "diabetes"])
def test_features_are_standardized_by_the_training_split(word: str) -> None:
    """As the YAML files ship them: mean 0 and deviation 1 for each feature."""
    inputs = build(f"data={word}").train.inputs.double()
    assert inputs.mean(dim=0).abs().max() < 1e-6
    assert (inputs.std(dim=0, correction=0) - 1).abs().max() < 1e-6


def test_raw_features_have_unequal_scales() -> None:
    """What the tables are for: a factor of a thousand between the features of wine."""
    std = build("data=wine", "data.standardize=none").train.inputs.std(dim=0)
    assert std.max() / std.min() > 1000


def test_classes_have_the_names_of_scikit_learn() -> None:
    """In the order of the indices."""
    assert build("data=iris").facts["classes"] == ["setosa", "versicolor", "virginica"]
    assert build("data=breast_cancer").facts["classes"] == ["malignant", "benign"]


def test_train_dev_is_there_when_asked_for() -> None:
    """A tenth of 178 wines."""
    data = build("data=wine", "data.train_dev=0.1")
    assert data.train_dev is not None and len(data.train_dev) == 18


def test_targets_are_standardized_by_the_training_split() -> None:
    """Mean 0 and deviation 1 there alone; the facts lead back to the targets as they were."""
    raw, data = build("data=diabetes", "data.standardize_targets=false"), build("data=diabetes")
    assert abs(data.train.targets.double().mean()) < 1e-6
    assert abs(data.train.targets.double().std(correction=0) - 1) < 1e-6
    assert abs(data.test.targets.mean()) > 1e-4
    mean, std = torch.tensor(data.facts["target_mean"]), torch.tensor(data.facts["target_std"])
    for name in ("train", "validation", "test"):
        torch.testing.assert_close(getattr(data, name).targets * std + mean, getattr(raw, name).targets)
    assert "target_mean" not in raw.facts


def test_standardized_targets_leave_the_fit_as_it_was() -> None:
    """The R^2 of scikit-learn's linear regression is the same in both units."""
    scores = []
    for flag in ("true", "false"):
        data = build("data=diabetes", f"data.standardize_targets={flag}")
        x, y, u, v = (t.double().numpy() for s in (data.train, data.test) for t in (s.inputs, s.targets))
        scores.append(LinearRegression().fit(x, y).score(u, v))
    assert scores[0] == pytest.approx(scores[1], abs=1e-6) and scores[0] > 0.3
