"""Whose activation is it? Networks of all kinds, against plain PyTorch in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from dlexp.record.layers import Listener
from dlexp.record.probes import INDEX, Probe


class Net(nn.Module):
    """Layers a and b, activations r and t, and a forward pass given from outside."""

    def __init__(self, run: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.r, self.t, self.s, self.drop = nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.Dropout(0.0)
        self.norm, self.g = nn.LayerNorm(6), nn.GELU()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def measure(model: nn.Module, x: Tensor) -> tuple[dict[str, list[float]], dict[tuple[str, int], str]]:
    """All quantities of one step, and the reasons for those that are missing."""
    probe = Probe(model)
    probe.attach()
    model(x).square().sum().backward()
    found = probe.read()
    probe.read_update(found, stepped=False)
    probe.finish()
    assert found.numbers is not None
    tables, _ = found.layout.tables(found.numbers.double().numpy()[None])
    probe.detach()
    names = {index: name for name, index in INDEX.items()}
    reasons = {(names[q], i): why for (q, i), why in found.layout.reasons.items()}
    return {name: tables[0, index].tolist() for name, index in INDEX.items()}, reasons


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(3)
    return torch.randn(32, 6)


def rms(a: Tensor) -> float:
    return a.double().square().mean().sqrt().item()


def test_branches_may_run_in_any_order(x: Tensor) -> None:
    """Gates: relu belongs to b, tanh to a, though b was called last."""

    def run(net: Net, x: Tensor) -> Tensor:
        u, v = net.a(x), net.b(x)
        return net.c(net.r(v) * net.t(u))

    net = Net(run)
    table, _ = measure(net, x)
    wanted = [rms(torch.tanh(net.a(x))), rms(torch.relu(net.b(x)))]
    assert table["activation_rms"][:2] == pytest.approx(wanted, rel=1e-6)
    dead = (torch.relu(net.b(x)) == 0).all(dim=0).float().mean().item()
    assert table["dead_fraction"][1] == dead
    saturated = (1 - torch.tanh(net.a(x)) ** 2 < 0.1).float().mean().item()
    assert table["saturated_fraction"][0] == pytest.approx(saturated)


def test_normalization_and_dropout_may_stand_between(x: Tensor) -> None:
    """The activation behind them is the layer's."""
    net = Net(lambda net, x: net.b(net.t(net.drop(net.norm(net.a(x))))))
    table, _ = measure(net, x)
    assert table["activation_rms"][0] == pytest.approx(rms(torch.tanh(net.norm(net.a(x)))), rel=1e-6)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda net, x: net.b(net.a(x).add_(5)),
        lambda net, x: net.b(functional.dropout(net.g(net.a(x)), 0.5, inplace=True)),
        lambda net, x: net.b(torch.relu_(net.a(x))),
    ],
)
def test_what_was_overwritten_is_absent(spoil: Callable[[Net, Tensor], Tensor], x: Tensor) -> None:
    """Never a number that is not the layer's."""
    table, reasons = measure(Net(spoil), x)
    for name in ("activation_rms", "dead_fraction", "saturated_fraction"):
        assert reasons[name, 0] == "overwritten in place"
        assert table[name][0] != table[name][0]
    assert table["delta_rms"][0] > 0


def test_one_layer_before_two_activations(x: Tensor) -> None:
    """Which share is saturated has no one answer; how large the activations are has."""
    net = Net(lambda net, x: net.b(net.t(net.a(x)) + net.s(net.a(x))))
    table, reasons = measure(net, x)
    assert reasons["saturated_fraction", 0] == reasons["dead_fraction", 0] == "several activations"
    both = torch.cat([torch.tanh(net.a(x)), torch.sigmoid(net.a(x))])
    assert table["activation_rms"][0] == pytest.approx(rms(both), rel=1e-6)


def test_no_layer_at_all(x: Tensor) -> None:
    """A network without a matrix has an empty table."""

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by = nn.Parameter(torch.ones(6))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.by

    table, _ = measure(Scale(), x)
    assert all(numbers == [] for numbers in table.values())


def test_a_sparse_gradient_counts_its_zeros() -> None:
    """Of an embedding of ten tokens two were seen."""
    torch.manual_seed(0)
    tokens = torch.tensor([[1, 4], [4, 1]])
    found = []
    for sparse in (False, True):
        model = nn.Sequential(nn.Embedding(10, 3, sparse=sparse))
        with torch.no_grad():
            model[0].weight.copy_(torch.arange(1.0, 31.0).view(10, 3))
        found.append(measure(model, tokens)[0])
    assert found[1]["grad_norm"] == pytest.approx(found[0]["grad_norm"])
    assert found[1]["zero_grad_fraction"] == [0.8]


def test_a_layer_that_returns_no_tensor_is_left_out(x: Tensor) -> None:
    """Its gradient is known, its signal is not."""

    class Named(nn.Linear):
        def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return {"out": super().forward(x)}

    net = Net(lambda net, x: net.b(net.a(x)["out"]))
    net.a = Named(6, 6)
    table, reasons = measure(net, x)
    assert table["grad_norm"][0] > 0
    assert reasons["delta_rms", 0] == "the layer did not run, or returned no tensor"


class Whole(nn.Module):
    """x + f(x), recorded for what it returns."""

    is_signal = True

    def forward(self, x: Tensor, f: Tensor | None = None) -> Tensor:
        return x * 2 if f is None else x + f


def test_a_signal_is_what_it_returns(x: Tensor) -> None:
    """An activation that takes it in is not its own, and it is no layer's; delta is dL/d(sum)."""

    class Block(Net):
        def __init__(self, run: Callable[[Net, Tensor], Tensor]) -> None:
            super().__init__(run)
            self.sum = Whole()

    def run(net: Net, x: Tensor) -> Tensor:
        return net.b(net.r(net.sum(x, net.a(x))))  # type: ignore[operator]

    net = Block(run)
    table, reasons = measure(net, x)
    whole = (x + net.a(x)).detach().requires_grad_()
    net.b(torch.relu(whole)).square().sum().backward()
    assert whole.grad is not None
    assert table["activation_rms"][3] == pytest.approx(rms(whole), rel=1e-6)
    assert table["delta_rms"][3] == pytest.approx(rms(whole.grad), rel=1e-5)
    weights = {"grad_norm", "weight_norm", "update_ratio", "zero_grad_fraction"}
    assert {name for (name, i), why in reasons.items() if i == 3 and why == "no weights"} == weights
    assert reasons["dead_fraction", 3] == reasons["dead_fraction", 0] == "no activation module was seen"


def test_a_signal_in_a_row_of_modules(x: Tensor) -> None:
    """Where layers take in the activation before them directly, that is none of the signal's either."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), Whole(), nn.ReLU(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    table, reasons = measure(model, x)
    assert table["activation_rms"][:2] == pytest.approx([rms(model[0](x)), rms(model[:2](x))], rel=1e-6)
    assert table["activation_rms"][2] == pytest.approx(rms(model[:5](x)), rel=1e-6)
    assert reasons["dead_fraction", 1] == "no activation module was seen"


def test_a_network_of_signals_alone(x: Tensor) -> None:
    """No weight anywhere: nothing is divided by nothing."""
    table, reasons = measure(nn.Sequential(Whole()), x.requires_grad_())
    assert table["activation_rms"] == pytest.approx([rms(2 * x)], rel=1e-6)
    assert table["delta_rms"] == pytest.approx([rms(4 * x)], rel=1e-6)
    assert reasons["weight_norm", 0] == "no weights"


@pytest.mark.parametrize(("shape", "samples"), [((8, 3), 8), ((8, 5, 3), 40), ((8, 3, 4, 4), 128)])
def test_units_of_a_signal(shape: tuple[int, ...], samples: int) -> None:
    """Features, features at each time step, channels: three of them, the second one is dead."""

    class Rectified(nn.Module):
        is_signal = True

        def __init__(self) -> None:
            super().__init__()
            self.activation = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            a: Tensor = self.activation(x)
            return a

    torch.manual_seed(0)
    x = torch.randn(shape)
    units = x.movedim(1, -1) if x.dim() == 4 else x
    units[..., 1] = -1
    assert units.numel() // 3 == samples
    table, _ = measure(nn.Sequential(Rectified()), x.requires_grad_())
    assert table["dead_fraction"][0] == pytest.approx(1 / 3)


def test_a_parametrized_layer_is_the_layer(x: Tensor) -> None:
    """Its z is its output, and its numbers are of what learns: direction, length and bias."""
    torch.manual_seed(0)
    model = nn.Sequential(weight_norm(nn.Linear(6, 5)), nn.Tanh(), spectral_norm(nn.Linear(5, 2)))
    found = Listener(model).layers
    assert [(layer.name, layer.shape) for layer in found] == [("01_linear", (5, 6)), ("02_linear", (2, 5))]
    twin = copy.deepcopy(model).double()
    table, reasons = measure(model, x)
    assert not any(quantity == "delta_rms" for quantity, _ in reasons)

    made = twin[0].parametrizations.weight  # W = g v / ||v||, row by row
    g, v, b = (p.detach().requires_grad_() for p in (made.original0, made.original1, twin[0].bias))
    z = x.double() @ (g * v / v.norm(dim=1, keepdim=True)).T + b
    z.retain_grad()
    twin[2](z.tanh()).square().sum().backward()
    learned = [g, v, b]
    assert z.grad is not None
    assert table["delta_rms"][0] == pytest.approx(rms(z.grad), rel=1e-5)
    assert table["activation_rms"][0] == pytest.approx(rms(z.tanh()), rel=1e-6)
    norms = [torch.stack([t.norm() for t in ts]).norm().item() for ts in (learned, [t.grad for t in learned])]  # type: ignore[union-attr]
    assert [table["weight_norm"][0], table["grad_norm"][0]] == pytest.approx(norms, rel=1e-5)
    assert found[0].parameters == 5 + 30 + 5


def test_attention_is_one_layer(x: Tensor) -> None:
    """With the matrix that brings its heads together, which never runs as a module; z is what it returns."""

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.out = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            z, _ = self.attention(x, x, x)
            found: Tensor = self.out(z)
            return found

    model, x = Attends(), x.view(8, 4, 6)
    twin = copy.deepcopy(model).double()
    table, reasons = measure(model, x)
    assert [layer.name for layer in Listener(model).layers] == ["01_multiheadattention", "02_linear"]
    z = twin.attention(*[x.double()] * 3)[0]
    z.retain_grad()
    twin.out(z).square().sum().backward()
    assert table["delta_rms"][0] == pytest.approx(rms(z.grad), rel=1e-5)
    assert table["activation_rms"][0] == pytest.approx(rms(z), rel=1e-5)
    grads = torch.cat([p.grad.flatten() for p in twin.attention.parameters() if p.grad is not None])
    assert len(grads) == 4 * 36 + 4 * 6
    assert table["grad_norm"][0] == pytest.approx(grads.norm().item(), rel=1e-5)
    assert reasons["dead_fraction", 0] == "no activation module was seen"


@pytest.mark.parametrize("inplace", [False, True])
def test_a_sum_made_in_place_is_no_layers_own(x: Tensor, inplace: bool) -> None:
    """As `out += identity` in torchvision: the activation of the sum is not that of the branch."""

    def run(net: Net, x: Tensor) -> Tensor:
        out = net.norm(net.b(net.r(net.a(x))))
        out += x
        return net.c(net.s(net.g(net.drop(out)) if not inplace else net.relu(out)))  # type: ignore[operator]

    net = Net(run)
    net.relu = nn.ReLU(inplace=True)
    table, reasons = measure(net, x)
    assert table["activation_rms"][1] == pytest.approx(rms(net.b(net.r(net.a(x)))), rel=1e-6)
    assert reasons["dead_fraction", 1] == "no activation module was seen"
    assert ("dead_fraction", 0) not in reasons


@pytest.mark.parametrize("drop", [nn.Dropout(0.0), nn.Dropout(0.5, inplace=True)])
def test_activations_in_place_are_followed(x: Tensor, drop: nn.Dropout) -> None:
    """What changes z is known here."""
    net = Net(lambda net, x: net.b(net.r(net.drop(net.norm(net.a(x))))))
    net.r, net.drop = nn.LeakyReLU(0.1, inplace=True), drop  # type: ignore[assignment]
    torch.manual_seed(0)
    table, _ = measure(net, x)
    torch.manual_seed(0)
    wanted = functional.leaky_relu(net.drop(net.norm(net.a(x))), 0.1)
    assert table["activation_rms"][0] == pytest.approx(rms(wanted), rel=1e-6)


def test_an_activation_that_is_no_module_is_not_seen(x: Tensor) -> None:
    """The reason says no more than that; what is measured is z."""
    net = Net(lambda net, x: net.b(functional.relu(net.a(x))))
    table, reasons = measure(net, x)
    assert reasons["dead_fraction", 0] == "no activation module was seen"
    assert table["activation_rms"][0] == pytest.approx(rms(net.a(x)), rel=1e-6)
