"""Every recorded quantity once more, slowly: plain autograd, none of dlexp's measuring code.

L layers, Q quantities, S samples, U units.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from torch import Tensor, nn

from dlexp.record.probes import INDEX, QUANTITIES
from dlexp.record.recorder import Recorder
from dlexp.record.schedule import schedule
from dlexp.record.sinks import Row
from dlexp.train.loop import fit
from dlexp.train.step import Batch, LossFunction

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Expected = dict[str, list[float | None]]  # quantity -> a number for each layer, None where there is none

LAYERS = (nn.Linear, nn.Conv2d)
SATURATING = (nn.Sigmoid, nn.Tanh, nn.Softsign, nn.ELU)
NON_SATURATING = (nn.ReLU, nn.LeakyReLU, nn.Identity)
SEED = 11


class Memory:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.kept: list[Row] = []

    def rows(self, rows: Sequence[Row]) -> None:
        self.kept += rows

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Not kept."""

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class Passage:
    """One run of one layer, kept by hand; z and a retain their gradients."""

    layer: nn.Module
    z: Tensor
    a: Tensor
    activation: nn.Module | None = None
    into_activation: Tensor | None = None


def sgd(lr: float = 0.1, momentum: float = 0.0) -> OptimizerFactory:
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=momentum)


def adam(lr: float = 0.01) -> OptimizerFactory:
    return lambda parameters: torch.optim.Adam(parameters, lr=lr)


def recorded(
    model: nn.Module,
    batches: Sequence[Batch],
    optimizer: OptimizerFactory,
    loss_function: LossFunction = nn.functional.cross_entropy,
    *,
    every: int | str = 1,
) -> list[Row]:
    """The rows that dlexp records while it trains `model` on these batches, one a step."""
    memory = Memory()
    recorder = Recorder(model, schedule(every, len(batches)), [memory])
    torch.manual_seed(SEED)
    fit(
        model,
        loss_function,
        optimizer(model.parameters()),
        iter(batches),
        range(len(batches)),
        recorder=recorder,
    )
    recorder.close()
    return memory.kept


def expected(
    model: nn.Sequential,
    batches: Sequence[Batch],
    optimizer: OptimizerFactory,
    loss_function: LossFunction = nn.functional.cross_entropy,
) -> list[Expected]:
    """The same numbers, by hand, on a copy of `model`."""
    shadow = copy.deepcopy(model)
    torch.manual_seed(SEED)
    steps = optimizer(shadow.parameters())
    found = []
    for inputs, targets in batches:
        outputs, passages = forward(shadow, inputs)
        shadow.zero_grad()
        loss_function(outputs, targets).backward()
        layers = [module for module in shadow.modules() if isinstance(module, LAYERS)]
        here = {name: [QUANTITY[name](layer, passages) for layer in layers] for name in QUANTITY}
        before = [flat(layer.parameters()) for layer in layers]
        steps.step()
        changes = [flat(layer.parameters()) - w for layer, w in zip(layers, before, strict=True)]
        here["update_ratio"] = [ratio(change, w) for change, w in zip(changes, before, strict=True)]
        found.append(here)
    return found


def forward(model: nn.Sequential, x: Tensor) -> tuple[Tensor, list[Passage]]:
    """Module by module, keeping what comes out of layers and activations."""
    passages: list[Passage] = []
    for module in model:
        given = x
        x = module(given)
        if isinstance(module, LAYERS):
            if x.requires_grad:
                x.retain_grad()
            passages.append(Passage(module, x, x))
        elif isinstance(module, SATURATING + NON_SATURATING):
            passages[-1].a, passages[-1].activation, passages[-1].into_activation = x, module, given
    return x, passages


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([t.detach().double().reshape(-1) for t in tensors])


def ratio(change: Tensor, weights: Tensor) -> float | None:
    norm = weights.pow(2).sum().sqrt().item()
    return change.pow(2).sum().sqrt().item() / norm if norm else None


def _gradient(layer: nn.Module) -> Tensor | None:
    own = [p.grad for p in layer.parameters() if p.grad is not None]
    return flat(own) if own else None


def _grad_norm(layer: nn.Module, _: list[Passage]) -> float | None:
    gradient = _gradient(layer)
    return None if gradient is None else gradient.pow(2).sum().sqrt().item()


def _zero_grad_fraction(layer: nn.Module, _: list[Passage]) -> float | None:
    gradient = _gradient(layer)
    return None if gradient is None else (gradient == 0).double().mean().item()


def _weight_norm(layer: nn.Module, _: list[Passage]) -> float:
    return flat(layer.parameters()).pow(2).sum().sqrt().item()


def _rms(signals: list[Tensor]) -> float | None:
    return flat(signals).pow(2).mean().sqrt().item() if signals else None


def _delta_rms(layer: nn.Module, passages: list[Passage]) -> float | None:
    own = [p.z for p in passages if p.layer is layer and p.z.requires_grad]
    return _rms([z.grad for z in own if z.grad is not None])


def _activation_rms(layer: nn.Module, passages: list[Passage]) -> float | None:
    return _rms([p.a for p in passages if p.layer is layer])


def _dead_fraction(layer: nn.Module, passages: list[Passage]) -> float | None:
    own = [p for p in passages if p.layer is layer and p.activation is not None]
    if not own:
        return None
    # A unit is a channel of a convolution: (S, U, ...) -> (S', U)
    a = torch.cat([p.a.detach().transpose(0, 1).flatten(1).T for p in own])
    return (a == 0).all(dim=0).double().mean().item() if len(a) >= 8 else None


def _saturated_fraction(layer: nn.Module, passages: list[Passage]) -> float | None:
    own = [p for p in passages if p.layer is layer and isinstance(p.activation, SATURATING)]
    flatness = [_flat_places(p.activation, p.into_activation) for p in own]
    return torch.cat(flatness).double().mean().item() if flatness else None


def _flat_places(activation: nn.Module | None, z: Tensor | None) -> Tensor:
    """Where the slope of the activation, by autograd, is below a tenth of its largest."""
    assert activation is not None
    assert z is not None
    everywhere = torch.cat([torch.linspace(-30, 30, 6001), torch.tensor([-1e-9, 0.0, 1e-9])]).double()
    steepest = _slope(activation, everywhere).max()
    return (_slope(activation, z.double()) < 0.1 * steepest).reshape(-1)


def _slope(activation: nn.Module, z: Tensor) -> Tensor:
    z = z.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(activation(z).sum(), z)
    return slope


QUANTITY: dict[str, Callable[[nn.Module, list[Passage]], float | None]] = {
    "grad_norm": _grad_norm,
    "delta_rms": _delta_rms,
    "activation_rms": _activation_rms,
    "weight_norm": _weight_norm,
    "dead_fraction": _dead_fraction,
    "saturated_fraction": _saturated_fraction,
    "zero_grad_fraction": _zero_grad_fraction,
}


def column(row: Row, quantity: str) -> list[float | None]:
    """What was recorded of one quantity, None where a reason stands in its place."""
    q = INDEX[quantity]
    return [None if (q, i) in row.reasons else float(x) for i, x in enumerate(row.table[q])]


def assert_same(rows: Sequence[Row], wanted: Sequence[Expected], rtol: float, *, skip: str = "") -> None:
    """Every quantity of every layer agrees; what is absent is absent in both, with a reason."""
    assert [row.step for row in rows] == list(range(len(wanted)))
    for row, want in zip(rows, wanted, strict=True):
        assert row.table.shape == (len(QUANTITIES), len(want["grad_norm"]))
        for name in QUANTITIES:
            if name == skip:
                continue
            pairs = list(zip(column(row, name), want[name], strict=True))
            for i, (got, right) in enumerate(pairs):
                where = f"{name} of layer {i} at step {row.step}: {got} instead of {right}; all: {pairs}"
                assert (got is None) == (right is None), where
                if got is not None and right is not None:
                    assert math.isclose(got, right, rel_tol=rtol), where
        assert all(row.reasons.values())


def random_batches(
    steps: int,
    size: int,
    *shape: int,
    classes: int = 5,
    dtype: torch.dtype = torch.float64,
    scale: float = 1.0,
) -> list[Batch]:
    """Made-up samples (size, *shape) with made-up classes."""
    generator = torch.Generator().manual_seed(5)
    return [
        (
            torch.randn(size, *shape, generator=generator, dtype=torch.float64).mul(scale).to(dtype),
            torch.randint(classes, (size,), generator=generator),
        )
        for _ in repeat(None, steps)
    ]


def nan_positions(row: Row) -> list[tuple[int, int]]:
    """Where the table has no finite number and no reason is given."""
    places = np.argwhere(~np.isfinite(row.table)).tolist()
    return [(q, i) for q, i in places if (q, i) not in row.reasons]
