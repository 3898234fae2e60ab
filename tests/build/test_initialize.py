"""Weights start with the variance that each initializer promises."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from dlexp.build.assemble import assemble
from dlexp.build.initialize import born_dead_safe_, identity_, initialize, pytorch_default
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
    "small_normal": lambda *_: 0.01**2,
    "lecun_normal": lambda fan_in, _: 1 / fan_in,
    "kaiming_normal initializer.nonlinearity=tanh": lambda fan_in, _: (5 / 3) ** 2 / fan_in,
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


def test_a_bias_may_be_random() -> None:
    """U(+-1/sqrt(fan_in)) with fan_in of the weight beside it: bounds, mean, variance of 1/(3 fan_in)."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 3000), nn.Conv2d(4, 3000, 3))
    initialize(model, nn.init.zeros_, "random")
    for layer, fan_in in zip(model, (16, 36), strict=True):
        assert isinstance(layer.bias, torch.Tensor)
        b = layer.bias.detach().double()
        assert b.abs().max().item() <= fan_in**-0.5
        assert b.mean().item() == pytest.approx(0, abs=5 * (1 / (3 * fan_in) / 3000) ** 0.5)
        assert b.var().item() == pytest.approx(1 / (3 * fan_in), rel=0.1)


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


@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_an_orthogonal_matrix_keeps_lengths(gain: float) -> None:
    """W W^T = gain^2 I for the smaller side; so is a convolution, seen as a matrix."""
    hidden = linear_layers(f"orthogonal initializer.gain={gain}")[1].weight.detach()
    torch.testing.assert_close(hidden @ hidden.T, gain**2 * torch.eye(300), atol=1e-4, rtol=0)
    conv = nn.Conv2d(3, 8, 3)
    initialize(conv, partial(nn.init.orthogonal_, gain=gain), 0.0)
    rows = conv.weight.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, gain**2 * torch.eye(8), atol=1e-4, rtol=0)


def test_the_identity_hands_on_what_comes() -> None:
    """A dense layer its inputs, a convolution its channels, times the gain."""
    x, picture = torch.randn(4, 5), torch.randn(4, 3, 6, 6)
    dense, conv = nn.Linear(5, 5), nn.Conv2d(3, 3, 3, padding=1)
    for layer in (dense, conv):
        initialize(layer, partial(identity_, gain=0.5), 0.0)
    torch.testing.assert_close(dense(x), 0.5 * x)
    torch.testing.assert_close(conv(picture), 0.5 * picture)
    assert torch.equal(linear_layers("identity")[1].weight, torch.eye(300))


def test_born_dead_safe_draws_what_the_paper_says() -> None:
    """In each unit one entry of Beta(2, 1), weight or bias, equally likely; the rest N(0, sigma^2 / I)."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 40_000)
    initialize(layer, partial(born_dead_safe_, sigma=1e-6), "drawn")  # so small that the one entry stands out
    both = torch.cat([layer.weight, layer.bias.unsqueeze(1)], dim=1).detach().double()
    large = both > 1e-3
    assert (large.sum(dim=1) <= 1).all() and (large.sum(dim=1) == 1).double().mean() > 0.999
    torch.testing.assert_close(
        large.double().mean(dim=0), torch.full((4,), 0.25, dtype=torch.float64), atol=0.012, rtol=0
    )
    chosen = both[large]
    assert chosen.max() <= 1
    assert chosen.mean().item() == pytest.approx(2 / 3, abs=0.006)  # of Beta(2, 1), variance 1/18
    assert chosen.var().item() == pytest.approx(1 / 18, rel=0.03)
    assert both[~large].std().item() == pytest.approx(1e-6 / math.sqrt(3), rel=0.02)


def test_born_dead_safe_without_a_bias() -> None:
    """The one entry is a weight; a layer with a bias set apart keeps that value."""
    model = nn.Sequential(nn.Linear(3, 50, bias=False), nn.Conv2d(2, 50, 3))
    initialize(model[0], partial(born_dead_safe_, sigma=1e-6), "drawn")
    initialize(model[1], partial(born_dead_safe_, sigma=1e-6), 0.5)
    for layer in model:
        assert isinstance(layer.weight, torch.Tensor)
        assert ((layer.weight.flatten(1) > 1e-3).sum(dim=1) == 1).all()
    assert (model[1].bias == 0.5).all()


def test_fewer_narrow_networks_are_born_dead() -> None:
    """Ten ReLU layers of two units, 200 times: He's start leaves most of them dead, this one far fewer."""
    starts: dict[str, tuple[Any, Any]] = {
        "he": (partial(nn.init.kaiming_normal_, nonlinearity="relu"), 0.0),
        "safe": (partial(born_dead_safe_, sigma=0.6007), "drawn"),
    }
    dead = dict.fromkeys(starts, 0)
    x = torch.linspace(-1, 1, 21).unsqueeze(1)
    for seed in range(200):
        model = mlp((1,), 1, depth=10, width=2, bias=True, activation=nn.ReLU)
        for name, (draw, bias) in starts.items():
            torch.manual_seed(seed)
            initialize(model, draw, bias)
            dead[name] += bool((model[:-1](x) == 0).all())
    assert dead["he"] > 120
    assert dead["safe"] < dead["he"] / 2


def test_born_dead_safe_on_the_command_line_draws_the_bias_too() -> None:
    """initializer.bias=drawn is what its file says; a number sets it apart."""
    for layer in linear_layers("born_dead_safe"):
        own = torch.cat([layer.weight, layer.bias.unsqueeze(1)], dim=1).detach()
        assert own.amax(dim=1).mean() > 0.6  # of Beta(2, 1), while the others are small
        assert (layer.bias != 0).all()
    assert all((layer.bias == 0).all() for layer in linear_layers("born_dead_safe", "initializer.bias=0"))


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.LSTMCell, 4), (nn.GRUCell, 3)])
def test_each_gate_is_a_matrix_of_its_own(kind: type[nn.Module], gates: int) -> None:
    """PyTorch keeps them in one, one above the other."""
    model: Any = kind(5, 6)
    initialize(model, nn.init.orthogonal_, 0.25)
    matrix = model.weight_hh if hasattr(model, "weight_hh") else model.weight_hh_l0
    assert len(matrix) == gates * 6
    for gate in matrix.split(6):
        torch.testing.assert_close(gate @ gate.T, torch.eye(6), atol=1e-5, rtol=0)
    assert all((p == 0.25).all() for name, p in model.named_parameters() if name.startswith("bias"))


def test_random_and_drawn_biases_of_a_recurrent_layer() -> None:
    """Each beside its own matrix: bounds 1/sqrt(4) and 1/sqrt(9)."""
    torch.manual_seed(0)
    model = nn.LSTM(4, 9)
    initialize(model, nn.init.zeros_, "random")
    assert 1 / 3 < model.bias_ih_l0.abs().max() <= 1 / 2
    assert 1 / 4 < model.bias_hh_l0.abs().max() <= 1 / 3
    initialize(model, partial(born_dead_safe_, sigma=1e-6), "drawn")
    for matrix, vector in ((model.weight_ih_l0, model.bias_ih_l0), (model.weight_hh_l0, model.bias_hh_l0)):
        both = torch.cat([matrix, vector.unsqueeze(1)], dim=1)
        assert ((both > 1e-3).sum(dim=1) == 1).all()


class Own(nn.Module):
    """A matrix under a name of its own, and what is none."""

    def __init__(self) -> None:
        super().__init__()
        self.W, self.token = nn.Parameter(torch.zeros(50, 60)), nn.Parameter(torch.zeros(1, 1, 60))
        self.b, self.fixed = nn.Parameter(torch.zeros(50)), nn.Parameter(torch.zeros(3, 3), False)


@pytest.mark.parametrize("bias", [0.0, "random", "drawn"])
def test_a_matrix_of_ones_own_is_drawn(bias: float | str) -> None:
    """Whatever its name; not a vector shaped like one, nor what does not learn."""
    model = Own()
    draw = partial(born_dead_safe_, sigma=1.0) if bias == "drawn" else nn.init.normal_
    initialize(model, draw, bias)
    assert model.W.std().item() == pytest.approx(60**-0.5 if bias == "drawn" else 1, rel=0.3)
    assert not any(p.any() for p in (model.token, model.b, model.fixed))


def test_attention_is_three_matrices_and_one() -> None:
    """Queries, keys and values are drawn each by itself, and what brings the heads together."""
    torch.manual_seed(0)
    model = nn.MultiheadAttention(6, 2)
    initialize(model, nn.init.orthogonal_, 0.25)
    for matrix in (*model.in_proj_weight.split(6), model.out_proj.weight):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(6), atol=1e-5, rtol=0)
    assert (model.in_proj_bias == 0.25).all() and (model.out_proj.bias == 0.25).all()


class Symmetric(nn.Module):
    """Has no inverse."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.triu() + x.triu(1).mT


def test_a_weight_that_a_parametrization_makes_is_drawn() -> None:
    """It is what the initializer says, for spectral norm divided by its largest singular value."""
    plain, double = nn.Linear(5, 7).double(), torch.float64
    torch.manual_seed(1)
    initialize(plain, nn.init.xavier_normal_, 0.5)
    wanted = plain.weight.detach()
    scaled = wanted / torch.linalg.matrix_norm(wanted, ord=2)
    for kind, right, tolerance in ((weight_norm, wanted, 1e-12), (spectral_norm, scaled, 1e-2)):
        model: Any = kind(nn.Linear(5, 7, dtype=double))
        torch.manual_seed(1)
        initialize(model, nn.init.xavier_normal_, 0.5)
        assert model.training and all(m.training for m in model.modules())
        torch.testing.assert_close(model.eval().weight.detach(), right, rtol=tolerance, atol=tolerance)
        assert (model.bias == 0.5).all()
        assert all(p.requires_grad and p.is_leaf for p in model.parameters())


def test_what_a_parametrization_without_inverse_is_made_of_is_drawn() -> None:
    """So the weight is as it makes it of that."""
    model: Any = nn.Linear(6, 6)
    parametrize.register_parametrization(model, "weight", Symmetric())
    initialize(model, partial(nn.init.constant_, val=3.0), 0.0)
    assert (model.weight == 3).all() and (model.parametrizations.weight.original == 3).all()


def test_pytorch_default_leaves_parametrized_weights_alone() -> None:
    """To the last bit, also what spectral norm keeps of them."""
    for kind in (weight_norm, spectral_norm, orthogonal):
        model = kind(nn.Linear(5, 7))
        before = {name: t.clone() for name, t in model.state_dict().items()}
        initialize(model, pytorch_default, None)
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
