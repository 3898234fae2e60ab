"""Where is the error of a layer a function of that of the next one? Found out by cutting the graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlexp.build.gan import GAN
from dlexp.build.residual import residual_mlp
from dlexp.build.trunk import MultiHead
from dlexp.record.layers import Listener
from dlexp.record.look import pass_through

WIDTH = 6


def linear() -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH)


class Functional(nn.Module):
    """Nothing but layers are modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = linear(), linear(), linear()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.c(functional.dropout(self.b(functional.relu(self.a(x))), 0.0))
        return found


class InPlace(Functional):
    """A branch of two layers and a skip connection, as in torchvision."""

    def forward(self, x: Tensor) -> Tensor:
        first = self.a(x)
        out = self.b(functional.relu(first))
        out += first
        found: Tensor = self.c(out)
        return found


class PastTheLast(Functional):
    """The second layer reaches the output by the third and by itself."""

    def forward(self, x: Tensor) -> Tensor:
        second = self.b(self.a(x).tanh())
        found: Tensor = self.c(second) + second
        return found


class Beside(Functional):
    """The second layer takes in what the first one returns only the first of two times."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.c(self.b(self.a(x)) + self.b(x))
        return found


class Cell(nn.Module):
    """A recurrent cell, and a layer behind its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(WIDTH, WIDTH), linear()

    def forward(self, x: Tensor) -> Tensor:
        h = self.cell(x)
        for _ in range(3):
            h = self.cell(x, h)
        found: Tensor = self.out(h)
        return found


def gan() -> GAN:
    return GAN(nn.Sequential(linear(), nn.ReLU(), linear()), nn.Sequential(linear(), linear()), WIDTH)


NETWORKS: dict[str, tuple[Any, list[bool]]] = {  # and what is true by inspection
    "chain": (
        lambda: nn.Sequential(linear(), nn.ReLU(), linear(), nn.LayerNorm(WIDTH), linear()),
        [True, True],
    ),
    "functional": (Functional, [True, True]),
    "in_place": (InPlace, [False, True]),
    "past_the_last": (PastTheLast, [True, False]),
    "beside": (Beside, [False, True]),
    "heads": (
        lambda: MultiHead(nn.Sequential(linear(), nn.ReLU(), linear()), WIDTH, 3),
        [True] + [False] * 3,
    ),
    "one_head": (lambda: MultiHead(nn.Sequential(linear(), nn.ReLU()), WIDTH, 1), [True]),
    "gan": (gan, [True, False, True]),
    "cell": (Cell, [True]),
    "streams": (
        lambda: residual_mlp(
            (WIDTH,), 3, depth=1, width=WIDTH, bias=True, branch="plain", activation=nn.ReLU
        ),
        [False, True, True, True],  # stem, two in the branch, their stream
    ),
}


def known(result: Tensor, z: list[Tensor]) -> bool:
    """Is any of them in it?"""
    if not result.requires_grad:
        return False
    found = torch.autograd.grad(result.sum(), z, allow_unused=True, retain_graph=True)
    return any(g is not None for g in found)


def cut(model: nn.Module, own: nn.Module, following: nn.Module, x: Tensor) -> bool:
    """With the next layer's outputs cut off does nothing come back, and does each of them know this layer?"""
    z: list[Tensor] = []
    of_next: list[tuple[int, Tensor]] = []

    def keep(_: nn.Module, __: object, returned: Tensor) -> Tensor:
        z.append(returned * 1)  # a node of its own
        return z[-1]

    def note(_: nn.Module, __: object, returned: Tensor) -> None:
        of_next.append((len(z), returned * 1))

    def off(_: nn.Module, __: object, returned: Tensor) -> Tensor:
        return returned.detach().requires_grad_() * 1  # no leaf: it may be changed in place

    with torch.enable_grad():
        hooks = [own.register_forward_hook(keep)]
        hooks.append(following.register_forward_hook(note))
        model(x)
        fed = all(n and known(r, z[:n]) for n, r in of_next)
        z.clear()
        hooks.append(following.register_forward_hook(off))
        outputs = model(x)
        around = known(outputs, z)
    for hook in hooks:
        hook.remove()
    return fed and not around


@pytest.mark.parametrize("name", NETWORKS)
def test_errors_that_come_from_the_next_layer_alone(name: str) -> None:
    """As inspection and a cut say; the last layer has no next one."""
    torch.manual_seed(0)
    make, wanted = NETWORKS[name]
    model, x = make(), torch.randn(8, WIDTH)
    listener = Listener(model)
    found = pass_through(model, listener, x).chained
    assert found == [*wanted, False]
    pairs = zip(listener.modules, listener.modules[1:], strict=False)
    assert [cut(model, own, following, x) for own, following in pairs] == wanted


def test_outputs_that_are_no_tensor_tell_nothing() -> None:
    """Rather no number than one of nothing."""

    class Named(Functional):
        def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return {"out": super().forward(x)}

    model = Named()
    assert pass_through(model, Listener(model), torch.randn(8, WIDTH)).chained == [False] * 3
