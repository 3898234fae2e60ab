"""The gradient check finds what is wrong, blames nothing that is right, and leaves no trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlexp.train.gradient_check import Check, Entry, gradient_check


class Wrong(torch.autograd.Function):
    """f(z) = z^3 with a derivative that is off by a factor."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.factor = factor
        return z**3

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        return given[0] * 3 * z**2 * ctx.factor, None


class Cube(nn.Module):
    """Has that function as its forward."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, z: Tensor) -> Tensor:
        found: Tensor = Wrong.apply(z, self.factor)
        return found


def network(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), *between, nn.Linear(5, 3))


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)


def checked(model: nn.Module, loss: Any = functional.cross_entropy, **options: Any) -> list[Check]:
    layers = [
        (name, list(module.parameters(recurse=False)))
        for name, module in model.named_modules()
        if any(p.dim() >= 2 for p in module.parameters(recurse=False))
    ]
    generator = torch.Generator().manual_seed(0)
    return gradient_check(model, loss, options.pop("batch", batch()), layers, generator=generator, **options)


@pytest.mark.parametrize(
    "between",
    [
        [nn.Tanh()],
        [nn.Sigmoid(), nn.Dropout(0.5)],  # off in evaluation mode
        [nn.BatchNorm1d(5), nn.ELU()],
        [nn.LayerNorm(5), nn.Softplus()],
        [Cube(1.0)],
    ],
    ids=lambda modules: "-".join(type(m).__name__ for m in modules),
)
def test_backward_is_right(between: list[nn.Module]) -> None:
    """Ng's 1e-7, in every layer."""
    found = checked(network(*between))
    assert [c.name for c in found] == ["0", str(len(between) + 1)]
    for check in found:
        assert check.difference < 1e-7 and check.verdict == "great" and check.kinks == 0


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.1, "wrong"), (-1.0, "wrong"), (1.0001, "look"), (1 + 1e-10, "great")],
)
def test_a_wrong_backward_is_found_where_it_is(factor: float, verdict: str) -> None:
    """Layers below it get a wrong gradient, by |factor - 1| / (|factor| + 1); the one above a right one."""
    below, above = checked(network(Cube(factor)))
    assert below.verdict == verdict and above.verdict == "great"
    if verdict != "great":
        expected = 1.0 if factor < 0 else abs(factor - 1) / (factor + 1)
        assert below.difference == pytest.approx(expected, rel=1e-3)


def test_the_worst_entry_is_where_it_says() -> None:
    """A single entry of a gradient that is off: its parameter, its index, and both slopes."""

    def off(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[2, 1] += 0.5
        return gradient

    class Hooked(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight * 1
            if weight.requires_grad:
                weight.register_hook(off)
            return functional.linear(x, weight, self.bias)

    torch.manual_seed(0)
    model = nn.Sequential(Hooked(4, 5), nn.Tanh(), nn.Linear(5, 3))
    first, last = checked(model, entries=100)
    assert first.entries == 25 and last.entries == 18  # all there are
    assert (first.worst.parameter, first.worst.index) == (0, (2, 1)) and not first.worst.kink
    assert first.worst.analytic - first.worst.numeric == pytest.approx(0.5, abs=1e-8)
    assert first.verdict == "wrong" and last.verdict == "great"


def test_the_slopes_by_hand() -> None:
    """L = (w x)^2 with w = 3, x = 2: slope 2 w x^2 = 24, to either side 24 +- 4 h."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 3.0)
    x = torch.tensor([[2.0]])
    (check,) = checked(model, functional.mse_loss, batch=(x, torch.zeros(1, 1)), h=1e-3)
    assert check.worst.analytic == 24.0
    assert (check.worst.left, check.worst.right) == pytest.approx((24 - 0.004, 24 + 0.004), abs=1e-9)
    assert check.entries == 1 and check.worst.index == (0, 0)


def test_a_kink_is_told_from_a_fault() -> None:
    """ReLU at exactly 0: PyTorch takes slope 0, central differences see a half."""
    model = nn.Sequential(nn.Linear(2, 1), nn.ReLU())
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    at = (torch.ones(3, 2), torch.ones(3, 1))
    (check,) = checked(model, functional.mse_loss, batch=at)
    assert check.verdict == "kink" and check.kinks == check.entries == 3
    assert check.difference == pytest.approx(1.0) and check.without_kinks == 0.0
    assert check.worst.kink and check.worst.left == 0.0 and check.worst.right == pytest.approx(-2.0, rel=1e-4)


def test_a_kink_does_not_hide_a_fault() -> None:
    """A wrong derivative below, a ReLU at 0 beside it."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[0.7, 0.0]]))

        def forward(self, x: Tensor) -> Tensor:
            cubed: Tensor = Wrong.apply(self.weight[:, :1] * x, 1.5)
            return cubed + torch.relu(self.weight[:, 1:] * x) * 9

    (check,) = checked(Both(), functional.mse_loss, batch=(torch.ones(3, 1), torch.zeros(3, 1)))
    assert check.kinks == 1 and check.worst.kink
    assert check.without_kinks == pytest.approx(0.2, rel=1e-3) and check.verdict == "wrong"


def test_vanished_gradients_are_not_blamed() -> None:
    """Twenty sigmoid layers: differences are mere rounding in the first, and it says so."""
    torch.manual_seed(0)
    deep = [module for _ in range(20) for module in (nn.Linear(5, 5), nn.Sigmoid())]
    found = checked(nn.Sequential(nn.Linear(4, 5), *deep, nn.Linear(5, 3)))
    assert found[0].difference > 1e-3 and found[0].verdict == "rounding"
    assert found[-1].verdict == "great"


def test_no_gradient_at_all_is_right_for_a_step() -> None:
    """Its slope is 0 almost everywhere, by both ways."""

    class Step(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return (z > 0).to(z.dtype)

    below, above = checked(network(Step()))
    assert below.difference == 0.0 and below.worst.analytic == 0.0
    assert below.verdict == above.verdict == "great"


def test_a_network_without_a_way_back() -> None:
    """The loss depends on no weight by autograd, but it does by differences."""

    class Cut(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.detach()

    (check,) = checked(nn.Sequential(nn.Linear(4, 3), Cut()))
    assert check.verdict == "wrong" and check.difference == 1.0


def test_model_gradients_buffers_and_random_numbers_stay() -> None:
    """All of it is done on a copy."""
    model = network(nn.BatchNorm1d(5), nn.Dropout(0.5), nn.ReLU())
    functional.cross_entropy(model(batch()[0]), batch()[1]).backward()
    before, gradients = (
        copy.deepcopy(model),
        [p.grad.clone() for p in model.parameters() if p.grad is not None],
    )
    state, (inputs, targets) = torch.get_rng_state(), batch()
    checked(model, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])), batch=(inputs, targets))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(inputs, batch()[0], strict=True))
    named = before.state_dict()
    assert all(torch.equal(x, named[name]) for name, x in model.state_dict().items())
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        assert p.grad is not None and torch.equal(p.grad, gradient) and p.dtype == torch.float32
    assert all(module.training for module in model.modules())


def test_a_network_that_draws_noise_is_checked_with_the_same_noise() -> None:
    """Otherwise the differences would measure the noise."""

    class Noise(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z + torch.randn_like(z)

    assert {check.verdict for check in checked(network(Noise(), nn.Tanh()))} == {"great"}


def test_entries_come_from_the_generator() -> None:
    """The same seed checks the same entries; each is checked once."""
    model = network(nn.Tanh())
    seen = [checked(model, entries=3)[0].worst for _ in range(2)]
    assert seen[0] == seen[1]
    assert [c.entries for c in checked(model, entries=3)] == [3, 3]


def test_frozen_parameters_are_left_out() -> None:
    """A layer that learns nothing has nothing to check; one with a frozen weight is checked by its bias."""
    model = network(nn.Tanh())
    model[0].requires_grad_(False)
    model[2].weight.requires_grad_(False)
    (check,) = checked(model)
    assert check.name == "2" and check.entries == 3 and check.worst.index[0] < 3


def test_recurrent_and_convolutional_layers() -> None:
    """Parameters of any shape, a module with several, tokens as inputs, a weight that is used twice."""

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.gru = nn.Embedding(7, 4), nn.GRU(4, 4, batch_first=True)
            self.conv, self.out = nn.Conv1d(4, 4, 3), nn.Linear(4, 7)
            self.out.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            z, _ = self.gru(self.embed(x))  # (B, T, 4)
            found: Tensor = self.out(self.conv(z.mT).tanh().mean(dim=2))
            return found

    torch.manual_seed(0)
    tokens = torch.randint(7, (3, 6))
    found = checked(Reader(), batch=(tokens, tokens[:, 0]))
    assert [c.name for c in found] == ["embed", "gru", "conv", "out"]
    assert {c.verdict for c in found} == {"great"}


def test_an_entry_knows_its_slope() -> None:
    """The mean of both sides, and how far backward is from it."""
    entry = Entry(0, (1, 2), analytic=1.0, left=2.0, right=4.0)
    assert entry.numeric == 3.0 and entry.error == 2.0 and not entry.kink
