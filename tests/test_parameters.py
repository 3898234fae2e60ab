"""What a weight is, and whose."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from dlexp.build import regularizers
from dlexp.parameters import is_weight, own, owners, weights
from dlexp.record import layers


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("weight", (3, 1), True),
        ("weight", (3,), False),
        ("weight_ih_l0", (8, 3), True),
        ("weight", (1, 4, 3, 3), True),  # a convolution with one channel
        ("original1", (1, 4), True),
        ("W", (3, 4), True),
        ("kernel", (5, 4, 3, 3), True),
        ("in_proj_weight", (12, 4), True),
        ("bias", (3, 4), False),
        ("relative_position_bias_table", (9, 4), False),
        ("class_token", (1, 1, 8), False),
        ("position", (1, 5, 8), False),
        ("layer_scale", (8, 1, 1), False),
    ],
)
def test_a_weight_is_a_matrix_or_a_kernel(name: str, shape: tuple[int, ...], wanted: bool) -> None:
    """By its shape and, where shapes are alike, its name."""
    assert is_weight(name, torch.zeros(shape)) is wanted


def network() -> nn.Sequential:
    return nn.Sequential(
        weight_norm(nn.Linear(4, 6)),
        nn.LayerNorm([6, 6]),
        spectral_norm(nn.Conv1d(6, 6, 1, bias=False)),
        nn.MultiheadAttention(6, 2, add_bias_kv=True),
        nn.Embedding(5, 6),
    )


def test_parts_belong_to_the_module_that_uses_them() -> None:
    """No list of parametrizations and no last matrix of attention is a layer; nor is a normalization."""
    model = network()
    assert list(owners(model)) == ["0", "2", "3", "4"]
    assert sorted(own(model[0])) == ["bias", "parts.weight.original0", "parts.weight.original1"]
    assert list(weights(model[3])) == ["in_proj_weight", "parts.weight"]
    assert (
        sum(p.numel() for m in owners(model).values() for p in own(m).values())
        == sum(p.numel() for p in model.parameters()) - 2 * 6 * 6
    )  # all but scale and shift


def test_all_who_ask_get_the_same_answer() -> None:
    """The recorder's layers own just the weights that are held back."""
    model = network()
    recorded = {id(p) for m in layers.owners(model).values() for p in weights(m).values()}
    assert recorded == {id(p) for p in regularizers.weights(model)}
    assert len(recorded) == 2 + 1 + 2 + 1
