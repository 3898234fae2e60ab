"""Weights start with the variance that each initializer promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dlexp.build.assemble import assemble
from dlexp.build.initialize import initialize, pytorch_default
from dlexp.build.mlp import mlp
from dlexp.compose import compose

# fan_in, fan_out -> variance; the words are those of the command line
VARIANCE = {
    "pytorch_default": lambda fan_in, _: 1 / (3 * fan_in),
    "uniform initializer.a=-0.2 initializer.b=0.4": lambda *_: 0.6**2 / 12,
    "normal initializer.std=0.3": lambda *_: 0.3**2,
    "xavier_uniform": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "xavier_normal": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "xavier_normal initializer.gain=3": lambda fan_in, fan_out: 9 * 2 / (fan_in + fan_out),
    "kaiming_uniform": lambda fan_in, _: 2 / fan_in,
    "kaiming_normal": lambda fan_in, _: 2 / fan_in,
    "kaiming_normal initializer.mode=fan_out": lambda _, fan_out: 2 / fan_out,
    "zeros": lambda *_: 0.0,
    "constant": lambda *_: 0.0,
}
MEAN = {"uniform initializer.a=-0.2 initializer.b=0.4": 0.1, "constant": 0.05}
UNIFORM = ("pytorch_default", "uniform", "xavier_uniform", "kaiming_uniform")


def linear_layers(words: str, *more: str) -> list[nn.Linear]:
    """The layers of an MLP 64 -> 300 -> 300 -> 10 that these words name."""
    name, *values = words.split()
    overrides = [f"initializer={name}", *values, "model.depth=2", "model.width=300", *more]
    torch.manual_seed(0)
    model = assemble(compose(overrides), torch.device("cpu")).model
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


@pytest.mark.parametrize("words", VARIANCE)
def test_the_variance_is_that_of_the_formula(words: str) -> None:
    """Mean, variance and, for uniform ones, the bounds; 3000 to 90000 draws, five standard errors."""
    for layer in linear_layers(words):
        w = layer.weight.detach().double()
        fan_out, fan_in = w.shape
        variance = VARIANCE[words](fan_in, fan_out)
        n, mean = w.numel(), MEAN.get(words, 0.0)
        assert w.mean().item() == pytest.approx(mean, abs=5 * (variance / n) ** 0.5 + 1e-8)
        assert w.var().item() == pytest.approx(variance, rel=5 * (2 / n) ** 0.5, abs=1e-12)
        largest = (w - mean).abs().max().item()
        if words.split()[0] in UNIFORM:
            assert largest <= (3 * variance) ** 0.5 * (1 + 1e-6)
        elif variance:
            assert largest > 3 * variance**0.5  # a normal one has tails


@pytest.mark.parametrize("words", [w for w in VARIANCE if w != "pytorch_default"])
def test_every_bias_starts_at_zero(words: str) -> None:
    """Unless somebody asks for another value."""
    assert all((layer.bias == 0).all() for layer in linear_layers(words))


def test_a_bias_may_have_a_value() -> None:
    """initializer.bias=0.25 sets all of them; null leaves what PyTorch drew."""
    for layer in linear_layers("xavier_normal", "initializer.bias=0.25"):
        assert (layer.bias == 0.25).all()
    for layer in linear_layers("xavier_normal", "initializer.bias=null"):
        assert 0 < layer.bias.abs().max() <= layer.in_features**-0.5


def test_pytorch_default_leaves_weight_and_bias_as_pytorch_drew_them() -> None:
    """Bit by bit those of an MLP built with the same seed."""
    found = linear_layers("pytorch_default", "activation=relu")
    torch.manual_seed(0)
    wanted = mlp((1, 8, 8), 10, depth=2, width=300, bias=True, activation=nn.ReLU)
    for layer, right in zip(found, [m for m in wanted if isinstance(m, nn.Linear)], strict=True):
        assert torch.equal(layer.weight, right.weight)
        assert torch.equal(layer.bias, right.bias)


@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_normalization_keeps_scale_one_and_shift_zero(normalization: str) -> None:
    """Vectors are no weight matrices, and their shift is no bias of a layer."""
    words = [f"normalization={normalization}", "initializer=constant", "initializer.bias=0.25"]
    model = assemble(compose(words), torch.device("cpu")).model
    norms: list[Any] = [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.LayerNorm))]
    assert norms
    for norm in norms:
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()


def test_convolutions_are_initialized_too() -> None:
    """Every module that owns a weight matrix, also inside others."""
    inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    model = nn.Sequential(inner, nn.Flatten(), nn.Linear(8, 2, bias=False))
    initialize(model, nn.init.ones_, bias=3.0)
    assert (inner[0].weight == 1).all()
    assert (inner[0].bias == 3).all()
    assert (model[2].weight == 1).all()
    assert (inner[1].bias == 0).all()


def test_initial_weights_can_be_trained() -> None:
    """Drawing leaves no trace in autograd."""
    model = nn.Linear(3, 3)
    initialize(model, nn.init.ones_, bias=0.0)
    assert model.weight.requires_grad
    assert model.weight.is_leaf
    assert model.weight.grad_fn is None
    assert pytorch_default(model.weight) is model.weight
