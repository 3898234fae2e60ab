"""Regression data follow their formulas, with noise and outliers where they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dlexp.data import curves
from dlexp.data.dataset import Dataset, Split

SHARES: dict[str, Any] = {
    "validation": 0.2,
    "test": 0.2,
    "split_seed": 0,
    "standardize": "none",
    "sample_seed": 0,
}
LINE = {"samples": 1000, "slope": 2.0, "offset": 1.0, "outlier_size": 5.0, **SHARES}


def fitted(part: Split) -> tuple[float, float]:
    """Slope and offset of numpy's least-squares line."""
    slope, offset = np.polyfit(part.inputs[:, 0].numpy(), part.targets[:, 0].numpy(), 1)
    return float(slope), float(offset)


def test_a_line_without_noise_is_exact() -> None:
    """Least squares finds slope and offset; x fills [-1, 1]."""
    data = curves.line(noise=0.0, outliers=0.0, outlier_axis="y", **LINE)
    assert fitted(data.train) == pytest.approx((2.0, 1.0), abs=1e-5)
    assert -1 <= data.train.inputs.min() < -0.98 and 0.98 < data.train.inputs.max() <= 1


def test_noise_is_what_the_true_line_scores() -> None:
    """The rmse of 2 x + 1 is the fact best_rmse."""
    data = curves.line(noise=0.3, outliers=0.0, outlier_axis="y", **LINE)
    residual = data.train.targets - (2 * data.train.inputs + 1)
    assert residual.square().mean().sqrt().item() == pytest.approx(data.facts["best_rmse"], rel=0.1)
    assert residual.mean().abs() < 0.05


def test_outliers_in_y_lift_the_line() -> None:
    """A tenth of the targets 5 too high moves the fitted offset by a tenth of 5, and only in training."""
    data = curves.line(noise=0.0, outliers=0.1, outlier_axis="y", **LINE)
    residual = (data.train.targets - (2 * data.train.inputs + 1)).round(decimals=3)
    values, counts = residual.abs().unique(return_counts=True)
    assert values.tolist() == [0.0, 5.0] and counts.tolist() == [540, 60]
    slope, offset = fitted(data.train)
    assert slope == pytest.approx(2.0, abs=0.3) and offset == pytest.approx(1.5, abs=0.05)
    assert fitted(data.validation) == pytest.approx((2.0, 1.0), abs=1e-5)
    assert fitted(data.test) == pytest.approx((2.0, 1.0), abs=1e-5)
    assert data.facts == {}, "the true line does not score its noise on the training split"


def test_outliers_in_x_flatten_the_line() -> None:
    """Inputs 5 too far right: slope cov/var = 2 var / (var + 25 * 0.09) with var = 1/3."""
    data = curves.line(noise=0.0, outliers=0.1, outlier_axis="x", **LINE)
    assert (data.train.inputs > 3.9).sum() == 60
    assert fitted(data.train)[0] == pytest.approx(2 / 3 / (1 / 3 + 25 * 0.09), abs=0.1)
    assert fitted(data.test) == pytest.approx((2.0, 1.0), abs=1e-5)


def test_outliers_come_before_the_standardization() -> None:
    """The training split has mean 0 and deviation 1 with its outliers in it."""
    words = {**LINE, "standardize": "feature"}
    data = curves.line(noise=0.0, outliers=0.1, outlier_axis="x", **words)
    assert data.train.inputs.mean().abs() < 1e-6
    assert data.train.inputs.std(correction=0).item() == pytest.approx(1, abs=1e-6)


CURVES: list[tuple[Callable[..., Dataset], dict[str, float], Callable[[float], float], float]] = [
    (curves.sine, {"frequency": 1.5}, lambda x: math.sin(2 * math.pi * 1.5 * x), 1.0),
    (curves.step, {}, lambda x: 1.0 if x > 0 else 0.0, 1.0),
    (curves.absolute, {}, abs, math.sqrt(3)),
]


@pytest.mark.parametrize(("make", "values", "formula", "reach"), CURVES)
def test_curves_follow_their_formulas(
    make: Callable[..., Dataset],
    values: dict[str, float],
    formula: Callable[[float], float],
    reach: float,
) -> None:
    """Pointwise without noise, and with the asked deviation with it."""
    data = make(samples=2000, noise=0.0, **values, **SHARES)
    for (x,), (y,) in zip(data.train.inputs.tolist(), data.train.targets.tolist(), strict=True):
        assert y == pytest.approx(formula(x), abs=1e-5)
    assert data.train.inputs.abs().max().item() == pytest.approx(reach, rel=0.01)
    assert data.train.inputs.std().item() == pytest.approx(reach / math.sqrt(3), rel=0.05)
    noisy = make(samples=2000, noise=0.2, **values, **SHARES)
    assert torch.equal(noisy.train.inputs, data.train.inputs)
    assert (noisy.train.targets - data.train.targets).std().item() == pytest.approx(0.2, rel=0.1)
    assert noisy.facts == {"best_rmse": 0.2}


TEACHER = {"features": 6, "targets": 2, "width": 50, **SHARES}


def unexplained(data: Dataset) -> float:
    """Share of the variance that numpy's best linear map leaves."""
    x, y = data.train.inputs.numpy(), data.train.targets.numpy()
    x = np.column_stack([x, np.ones(len(x))])
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float(residual.var() / y.var())


def test_a_teacher_without_hidden_layers_is_linear() -> None:
    """Least squares explains all of it, and not of a deeper one."""
    assert unexplained(curves.teacher(samples=500, depth=0, noise=0.0, **TEACHER)) < 1e-10
    assert unexplained(curves.teacher(samples=500, depth=1, noise=0.0, **TEACHER)) > 0.02


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_answers_of_a_teacher_are_its_network(depth: int) -> None:
    """In double precision with numpy, weights drawn in the same order; they are of order 1."""
    data = curves.teacher(samples=500, depth=depth, noise=0.0, **TEACHER)
    generator = torch.Generator().manual_seed(0)
    torch.randn(500, 6, generator=generator)  # the inputs
    signal = data.train.inputs.double().numpy()
    for _ in range(depth):
        weight = torch.randn(signal.shape[1], 50, generator=generator).double().numpy()
        signal = np.maximum(signal @ weight * np.sqrt(2 / signal.shape[1]), 0)
    last = torch.randn(signal.shape[1], 2, generator=generator).double().numpy() / np.sqrt(signal.shape[1])
    np.testing.assert_allclose(data.train.targets.numpy(), signal @ last, atol=1e-4)
    assert 0.2 < data.train.targets.square().mean() < 5


def test_noise_of_a_teacher_is_added_to_its_answers() -> None:
    """Inputs and network stay the same."""
    clean, noisy = (curves.teacher(samples=2000, depth=2, noise=n, **TEACHER) for n in (0.0, 0.4))
    assert torch.equal(clean.train.inputs, noisy.train.inputs)
    assert (noisy.train.targets - clean.train.targets).std().item() == pytest.approx(0.4, rel=0.1)
