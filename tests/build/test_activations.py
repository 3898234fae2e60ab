"""Every activation has the values and slopes of its formula, and the gradient that its comment claims."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

import dlexp
from dlexp.build import activations
from dlexp.compose import CONFIGS

WORDS = sorted(path.stem for path in (CONFIGS / "activation").glob("*.yaml"))
Z = torch.linspace(-8, 8, 641, dtype=torch.float64)  # 0, 1 and 2 are among them


def sigmoid(z: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-z))


def normal(z: Tensor) -> Tensor:
    return (1 + torch.erf(z / math.sqrt(2))) / 2


def where(condition: Tensor, yes: Tensor | float, no: Tensor | float) -> Tensor:
    return torch.where(condition, torch.as_tensor(yes, dtype=Z.dtype), torch.as_tensor(no, dtype=Z.dtype))


SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772  # of SELU
BELL = torch.exp(-(Z**2) / 2) / math.sqrt(2 * math.pi)
S = sigmoid(Z)

# word -> values and slopes at Z, from the formulas
FORMULAS: dict[str, tuple[Tensor, Tensor]] = {
    "identity": (Z, torch.ones_like(Z)),
    "sigmoid": (S, S * (1 - S)),
    "tanh": (2 * sigmoid(2 * Z) - 1, 1 - torch.tanh(Z) ** 2),
    "relu": (where(Z > 0, Z, 0), where(Z > 0, 1, 0)),
    "leaky_relu": (torch.maximum(0.01 * Z, Z), where(Z > 0, 1, 0.01)),
    "elu": (where(Z > 0, Z, torch.exp(Z) - 1), where(Z > 0, 1, torch.exp(Z))),
    "softsign": (Z / (1 + Z.abs()), (1 + Z.abs()) ** -2),
    "step": (where(Z > 0, 1, 0), torch.zeros_like(Z)),
    "step_ste": (where(Z > 0, 1, 0), where(Z.abs() < 1, 1, 0)),
    "sign": (where(Z > 0, 1, -1) * (Z != 0), torch.zeros_like(Z)),
    "abs": (where(Z > 0, Z, -Z), where(Z > 0, 1, -1) * (Z != 0)),
    "prelu": (where(Z > 0, Z, 0.25 * Z), where(Z > 0, 1, 0.25)),
    "selu": (
        SCALE * where(Z > 0, Z, ALPHA * (torch.exp(Z) - 1)),
        SCALE * where(Z > 0, 1, ALPHA * torch.exp(Z)),
    ),
    "gelu": (Z * normal(Z), normal(Z) + Z * BELL),
    "silu": (Z * S, S + Z * S * (1 - S)),
    "softplus": (torch.log(1 + torch.exp(Z)), S),
    "hardtanh": (Z.clip(-1, 1), where(Z.abs() < 1, 1, 0)),
    "scaled_sigmoid": (4 * S - 2, 4 * S * (1 - S)),
    "sigmoid_plus": (1 / (1 + torch.exp(Z)), -S * (1 - S)),
    "elu_notes": (Z * (1 - torch.exp(-Z)), 1 - torch.exp(-Z) + Z * torch.exp(-Z)),
}
OVER_UNITS = ("softmax", "softmax_notes")  # these take the units of a layer together


def make(word: str) -> nn.Module:
    """The module that the command line would build."""
    module: nn.Module = instantiate(OmegaConf.load(CONFIGS / "activation" / f"{word}.yaml"))()
    return module.double()


def value_and_slope(word: str, z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.clone().requires_grad_()
    value = make(word)(z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope


def test_every_word_is_tested() -> None:
    """A new YAML file needs its formula here."""
    assert sorted([*FORMULAS, *OVER_UNITS]) == WORDS


@pytest.mark.parametrize("word", FORMULAS)
def test_value_and_slope_are_those_of_the_formula(word: str) -> None:
    """In float64, at 641 places from -8 to 8, 0 among them."""
    value, slope = value_and_slope(word, Z)
    wanted_value, wanted_slope = FORMULAS[word]
    torch.testing.assert_close(value, wanted_value)
    torch.testing.assert_close(slope, wanted_slope)


@pytest.mark.parametrize("word", [w for w in FORMULAS if w != "step_ste"])
def test_slopes_are_differences(word: str) -> None:
    """(f(z + h) - f(z - h)) / 2h, away from the places where a kink or a jump is."""
    z, h = Z[(Z.abs() > 0.01) & ((Z.abs() - 1).abs() > 0.01)], 1e-5
    module = make(word)
    with torch.no_grad():
        difference = (module(z + h) - module(z - h)) / (2 * h)
    torch.testing.assert_close(value_and_slope(word, z)[1], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("word", "lowest", "highest"),
    [
        ("sigmoid", 0.0, 0.25),
        ("tanh", 0.0, 1.0),
        ("softsign", 1 / 21**2, 1.0),
        ("scaled_sigmoid", 0.0, 1.0),
        ("selu", 0.0, SCALE * ALPHA),
        ("softplus", 0.0, 1.0),
        ("gelu", -0.129, 1.129),
        ("silu", -0.0998, 1.0998),
        ("sigmoid_plus", -0.25, 0.0),
        ("hardtanh", 0.0, 1.0),
    ],
)
def test_slopes_stay_within_what_the_comment_says(word: str, lowest: float, highest: float) -> None:
    """And come within a thousandth of both bounds, between -20 and 20."""
    slope = value_and_slope(word, torch.linspace(-20, 20, 400_001, dtype=torch.float64))[1]
    assert slope.min().item() == pytest.approx(lowest, abs=1e-3)
    assert slope.max().item() == pytest.approx(highest, abs=1e-3)


def test_the_threshold_moves_the_step() -> None:
    """A unit at its threshold does not fire; the window of the straight-through slope moves along."""
    z = torch.tensor([1.4, 1.5, 1.6, 2.4, 2.6, 0.6, 0.4], requires_grad=True)
    for module in (activations.Step(1.5), activations.StepStraightThrough(1.5)):
        assert module(z).tolist() == [0, 0, 1, 1, 1, 0, 0]
        assert module.extra_repr() == "threshold=1.5"
    (slope,) = torch.autograd.grad(activations.StepStraightThrough(1.5)(z).sum(), z)
    assert slope.tolist() == [1, 1, 1, 1, 0, 1, 0]


@pytest.mark.parametrize("word", ["step", "sign"])
def test_a_jump_gives_gradients_of_zero_not_none(word: str) -> None:
    """A layer below takes part in the loss; its gradient exists and is 0."""
    layer = nn.Linear(3, 4).double()
    make(word)(layer(torch.randn(5, 3, dtype=torch.float64))).sum().backward()
    assert layer.weight.grad is not None
    assert (layer.weight.grad == 0).all()


def jacobian(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    found: Tensor = torch.autograd.functional.jacobian(function, z)  # type: ignore[no-untyped-call]
    return found


def test_softmax_takes_the_units_together() -> None:
    """df_i / dz_j = f_i (delta_ij - f_j), each row of a batch by itself."""
    z = torch.randn(2, 5, dtype=torch.float64)
    f = z.exp() / z.exp().sum(dim=1, keepdim=True)
    torch.testing.assert_close(make("softmax")(z), f)
    wanted = torch.diag(f[0]) - torch.outer(f[0], f[0])
    torch.testing.assert_close(jacobian(make("softmax"), z[0]), wanted)


def test_the_softmax_of_the_notes() -> None:
    """0.4 and 0.8 become 1/3 and 2/3, as the note has it; d f_i / d z_j = (delta_ij - f_i) / sum."""
    module = make("softmax_notes")
    z = torch.tensor([0.4, 0.8], dtype=torch.float64)
    torch.testing.assert_close(module(z), torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))
    wanted = (torch.eye(2, dtype=torch.float64) - module(z).unsqueeze(1)) / 1.2
    torch.testing.assert_close(jacobian(module, z), wanted)
    for near in (1e-3, 1e-6):  # the slope grows as the sum nears 0
        slope = jacobian(module, torch.tensor([1.0, near - 1], dtype=torch.float64)).abs().max().item()
        assert slope == pytest.approx(1 / near**2, rel=2e-3)


def test_gradients_through_softmax_shrink_with_the_number_of_units() -> None:
    """At equal inputs the largest slope is (1 - 1/n) / n."""
    for n in (2, 10, 100):
        slopes = jacobian(make("softmax"), torch.zeros(n, dtype=torch.float64))
        assert slopes.max().item() == pytest.approx((1 - 1 / n) / n)


@pytest.mark.parametrize("word", WORDS)
def test_a_network_of_them_runs_and_is_watched(word: str, tmp_path: Path) -> None:
    """Five steps; the recorder finds the activation behind every hidden layer."""
    words = ["debug=quick", f"activation={word}", "model.depth=2", "model.width=8"]
    run = dlexp.run([*words, f"outputs={tmp_path}"], quiet=True)
    assert run.summary["status"] in ("finished", "diverged")
    kinds = {type(m) for m in make(word).modules()}
    for kind in kinds:  # those of ours say so themselves, those of PyTorch are listed
        assert getattr(kind, "is_activation", kind.__module__.startswith("torch.nn."))


def test_layers_below_a_step_never_learn(tmp_path: Path) -> None:
    """Their gradient is 0, that of the last layer is not."""
    words = ["debug=quick", "activation=step", "model.depth=2", "model.width=8"]
    run = dlexp.run([*words, f"outputs={tmp_path}"], quiet=True)
    norms = run.records.groupby("layer")["grad_norm"].max().tolist()
    assert norms[:2] == [0, 0]
    assert norms[2] > 0


@pytest.mark.parametrize("module", [activations.ScaledSigmoid(), activations.SigmoidPlus()])
def test_flatness_is_told_from_the_output(module: nn.Module) -> None:
    """Where autograd's slope is below a tenth of the largest one, at 2001 points."""
    z = torch.linspace(-9, 9, 2001, dtype=torch.float64, requires_grad=True)
    a = module(z)
    (slope,) = torch.autograd.grad(a.sum(), z)
    flatness, threshold = module.flatness(a.detach())
    assert torch.equal(flatness > threshold, slope.abs() < 0.1 * slope.abs().max())
    assert 0 < (flatness > threshold).sum() < 2001
