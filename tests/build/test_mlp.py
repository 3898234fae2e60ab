"""The multilayer perceptron is what its arguments say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from dlexp.build.mlp import linear, mlp

DROPOUT = partial(nn.Dropout, 0.3)


def kinds(model: nn.Sequential) -> list[str]:
    return [type(module).__name__ for module in model]


@pytest.mark.parametrize(
    ("normalization", "position", "dropout", "block"),
    [
        (None, "before", None, ["Linear", "Tanh"]),
        (nn.BatchNorm1d, "before", None, ["Linear", "BatchNorm1d", "Tanh"]),
        (nn.LayerNorm, "after", None, ["Linear", "Tanh", "LayerNorm"]),
        (None, "after", DROPOUT, ["Linear", "Tanh", "Dropout"]),
        (nn.BatchNorm1d, "before", DROPOUT, ["Linear", "BatchNorm1d", "Tanh", "Dropout"]),
        (nn.BatchNorm1d, "after", DROPOUT, ["Linear", "Tanh", "BatchNorm1d", "Dropout"]),
    ],
)
@pytest.mark.parametrize("depth", [1, 3])
def test_blocks_stand_in_the_order_that_position_says(
    depth: int,
    normalization: Callable[[int], nn.Module] | None,
    position: str,
    dropout: Callable[[], nn.Module] | None,
    block: list[str],
) -> None:
    """`depth` equal blocks, then a linear layer with nothing behind it."""
    model = mlp(
        (2, 3),
        4,
        depth=depth,
        width=5,
        bias=True,
        activation=nn.Tanh,
        normalization=normalization,
        position=position,
        dropout=dropout,
    )
    assert kinds(model) == ["Flatten", *block * depth, "Linear"]
    assert len(set(model)) == len(model)  # no module stands in two places


def test_shapes_of_the_weights() -> None:
    """F -> W -> W -> C, with F the product of the shape of a sample."""
    model = mlp((2, 3, 4), 7, depth=2, width=5, bias=True, activation=nn.ReLU)
    shapes = [tuple(p.shape) for p in model.parameters()]
    assert shapes == [(5, 24), (5,), (5, 5), (5,), (7, 5), (7,)]
    assert model(torch.zeros(6, 2, 3, 4)).shape == (6, 7)


@pytest.mark.parametrize("bias", [True, False])
def test_bias_is_in_all_linear_layers_or_in_none(bias: bool) -> None:
    """Also in the last one, and in the linear model."""
    models = [
        mlp((4,), 3, depth=2, width=5, bias=bias, activation=nn.ReLU),
        linear((4,), 3, bias=bias),
    ]
    for model in models:
        assert {m.bias is not None for m in model if isinstance(m, nn.Linear)} == {bias}


def test_a_sample_passes_as_written_down() -> None:
    """Linear, activation, linear, computed by hand."""
    torch.manual_seed(0)
    model = mlp((2, 2), 3, depth=1, width=5, bias=True, activation=nn.Tanh)
    w, b, v, c = model.parameters()
    x = torch.randn(6, 2, 2)
    torch.testing.assert_close(model(x), torch.tanh(x.reshape(6, 4) @ w.T + b) @ v.T + c)


def test_the_linear_model_is_one_layer() -> None:
    """Softmax regression under cross-entropy."""
    model = linear((2, 2), 3, bias=True)
    assert kinds(model) == ["Flatten", "Linear"]
    assert model(torch.zeros(6, 2, 2)).shape == (6, 3)
