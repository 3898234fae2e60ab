"""What mean-field theory says of deep networks at the start is what the record shows.

Going down one hidden layer multiplies the mean square of dL/dz by chi = var(w) * fan * E[f'(z)^2],
so delta_rms by its root.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from second_opinion import column, recorded, sgd
from torch import Tensor, nn

from dlexp.build.initialize import initialize
from dlexp.build.mlp import mlp
from dlexp.data.digits import load

DEPTH, SEEDS = 20, 5


def factor_per_layer(
    activation: Callable[[], nn.Module],
    draw: Callable[[Tensor], Tensor],
    *,
    width: int = 128,
    batch: int = 64,
    normalization: Callable[[int], nn.Module] | None = None,
    first: int = 0,
) -> float:
    """delta_rms of a hidden layer over that of the next one above, at step 0 on real digits.

    The slope of log(delta_rms) over the hidden layers from `first` on, mean over the seeds.
    """
    data = load(validation=0.15, test=0.15, split_seed=0, standardize="channel").train
    slopes = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        rows = torch.randperm(len(data))[:batch]
        model = mlp(
            (1, 8, 8),
            10,
            depth=DEPTH,
            width=width,
            bias=True,
            activation=activation,
            normalization=normalization,
        )
        initialize(model, draw, bias=0.0)
        (row,) = recorded(model, [(data.inputs[rows], data.targets[rows])], sgd())
        delta = np.array(column(row, "delta_rms"), dtype=float)[first:-1]  # without the output layer
        slopes.append(np.polyfit(np.arange(len(delta)), np.log(delta), 1)[0])
    return math.exp(-float(np.mean(slopes)))


def test_sigmoid_with_xavier_loses_three_quarters_per_layer() -> None:
    """E[f'(z)^2] is near 0.23^2, so the signal that reaches the first of 20 layers is 1e-12 of the last."""
    assert 0.22 < factor_per_layer(nn.Sigmoid, nn.init.xavier_normal_) < 0.26


def test_relu_with_kaiming_keeps_its_signal() -> None:
    """var(w) = 2 / fan_in undoes the half of all units that pass nothing on."""
    assert 0.97 < factor_per_layer(nn.ReLU, nn.init.kaiming_normal_) < 1.05


def test_batch_normalization_explodes_towards_the_input() -> None:
    """With ReLU each layer multiplies by sqrt(pi / (pi - 1)) = 1.21 (Yang et al. 2019, for large batches).

    Five networks of this size differ by 0.002; that batches are finite adds as much.
    """
    theory = math.sqrt(math.pi / (math.pi - 1))
    measured = factor_per_layer(
        nn.ReLU, nn.init.kaiming_normal_, width=256, batch=256, normalization=nn.BatchNorm1d
    )
    assert measured == pytest.approx(theory, abs=0.02)
