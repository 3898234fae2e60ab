"""Trunks are shared; windows are where the light is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlexp.build.assemble import assemble
from dlexp.build.trunk import BrightestWindow, MultiHead, two_stage
from dlexp.compose import compose
from dlexp.errors import UserError


def built(*words: str) -> nn.Module:
    torch.manual_seed(0)
    return assemble(compose(list(words)), torch.device("cpu")).model


def test_heads_are_the_rows_of_one_linear_layer() -> None:
    """Outputs, and in the trunk the gradients, are those of all heads as one layer."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
    model = MultiHead(trunk, 6, 3).double()
    weight = torch.cat([head.weight for head in model.heads]).detach()
    bias = torch.cat([head.bias for head in model.heads]).detach()
    x, pull = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    right = trunk(x) @ weight.T + bias
    torch.testing.assert_close(model(x), right)
    wanted = torch.autograd.grad((right * pull).sum(), list(trunk.parameters()))
    alone = [
        torch.autograd.grad((model(x)[:, k] * pull[:, k]).sum(), list(trunk.parameters())) for k in range(3)
    ]
    for total, *by_head in zip(wanted, *alone, strict=True):
        torch.testing.assert_close(sum(by_head), total)


def test_multi_head_has_the_hidden_layers_of_the_mlp() -> None:
    """And a head of one unit for each of ten classes."""
    shapes = [
        tuple(p.shape) for p in built("model=multi_head", "task=multi_label").parameters() if p.dim() > 1
    ]
    assert shapes == [(64, 64)] * 3 + [(1, 64)] * 10


@pytest.mark.parametrize("unit_length", ["true", "false"])
def test_places_are_on_the_unit_sphere_if_asked(unit_length: str) -> None:
    """And in as many dimensions as asked."""
    words = ["model=embedding_net", "task=embedding", "model.dimensions=5"]
    places = built(*words, f"model.unit_length={unit_length}")(torch.randn(6, 1, 8, 8))
    assert places.shape == (6, 5)
    assert torch.allclose(places.norm(dim=1), torch.ones(6)) == (unit_length == "true")


def test_the_window_is_the_brightest_of_all() -> None:
    """Against every window of every picture, one by one."""
    pictures = torch.rand(10, 2, 9, 12, generator=torch.Generator().manual_seed(0))
    windows = BrightestWindow(4)(pictures)
    for picture, window in zip(pictures, windows, strict=True):
        cuts = [picture[:, i : i + 4, j : j + 4] for i in range(6) for j in range(9)]
        assert torch.equal(window, max(cuts, key=lambda cut: cut.mean().item()))


def test_both_stages_are_window_and_mlp() -> None:
    """A bright square in the dark is cut out wherever it stands, and what is around does not matter."""
    torch.manual_seed(0)
    model = two_stage((1, 20, 20), 3, nn.Tanh, window=8, depth=1, width=5)
    square = torch.rand(8, 8) + 0.5
    pictures = torch.zeros(3, 1, 20, 20)
    for picture, (i, j) in zip(pictures, [(0, 0), (5, 9), (12, 12)], strict=True):
        picture[0, i : i + 8, j : j + 8] = square
    right = model[1:](square.expand(3, 1, 8, 8))
    torch.testing.assert_close(model(pictures), right)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            "model=embedding_net",
            (
                r"model=embedding_net: gives places, not answers; the data asks for classification; allowed:"
                r" task=embedding"
            ),
        ),
        (
            "model=two_stage model.window=9",
            (
                r"model=two_stage: takes pictures \(C, H, W\) of 9x9 or more; the data has \(1, 8, 8\);"
                r" allowed: another model\.window, data=digits_cluttered \.\.\."
            ),
        ),
    ],
)
def test_what_does_not_fit_is_refused(words: str, text: str) -> None:
    with pytest.raises(UserError, match=f"^{text}$"):
        built(*words.split())
