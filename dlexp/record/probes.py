"""What is measured: pure functions of what passed through the layers, and the probe that calls them.

Nothing here draws random numbers or, away from the CPU, makes the host wait. Layers of one shape
are stacked and measured by one call, because in a small network the calls, not the arithmetic,
take the time. L layers, R of them in a stack, Q quantities, U units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlexp.record.layers import Listener

QUANTITIES = (
    "grad_norm",  # ||dL/dW||, weight and bias of the layer together
    "delta_rms",  # root mean square over batch and units of dL/dz
    "activation_rms",  # root mean square over batch and units of the activation
    "weight_norm",  # ||W|| before the update, weight and bias together
    "update_ratio",  # ||change of W in this step|| / ||W||
    "dead_fraction",  # share of units whose activation is 0 for the whole batch
    "saturated_fraction",  # share of activations where the slope is below a tenth of its maximum
    "zero_grad_fraction",  # share of the entries of dL/dW that are exactly 0
)
INDEX = {name: q for q, name in enumerate(QUANTITIES)}
SHARES = tuple(name for name in QUANTITIES if name.endswith("_fraction"))

# A unit of a healthy ReLU layer is 0 for half of all samples: fewer than these look dead by chance.
SMALLEST_BATCH_FOR_DEAD = 8

# Where is the slope of an activation below a tenth of its maximum? Told from its output a, which is
# at hand: where the first of the pair is above the second. Modules not listed do not saturate.
SATURATED: dict[type[nn.Module], Callable[[Any, Tensor], tuple[Tensor, float]]] = {
    nn.Sigmoid: lambda _, a: ((a - 0.5).abs(), math.sqrt(0.225)),  # 4 a (1 - a) < 0.1
    nn.Tanh: lambda _, a: (a.abs(), math.sqrt(0.9)),  # 1 - a**2 < 0.1
    nn.Softsign: lambda _, a: (a.abs(), 1 - math.sqrt(0.1)),  # (1 - |a|)**2 < 0.1
    nn.ELU: lambda m, a: (-a, 0.9 * m.alpha),  # exp(z) = a / alpha + 1 < 0.1
}

NO_GRADIENT = "no gradient"
NO_UPDATE = "no update was made"
NOT_RUN = "the layer did not run"
NO_ACTIVATION = "no activation"
NEVER_SATURATES = "this activation does not saturate"
SMALL_BATCH = f"fewer than {SMALLEST_BATCH_FOR_DEAD} samples"

Norm = Callable[[Tensor], Tensor]


def norm64(rows: Tensor) -> Tensor:
    """Euclidean norm of each row of (R, N), summed in float64: a signal of 1e-30 squares to 0 in float32."""
    if rows.device.type == "mps":  # has no float64: scale by the largest value instead
        largest = rows.abs().amax(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
        return torch.linalg.vector_norm(rows / largest, dim=1) * largest.squeeze(1)
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)


def norm32(rows: Tensor) -> Tensor:
    """The same in the precision of the rows: four times as fast on a CPU, right from 1e-15 to 1e15."""
    return torch.linalg.vector_norm(rows, dim=1)


def share(compare: Callable[..., Tensor], rows: Tensor, value: float) -> Tensor:
    """Share of the entries of each row of (R, N) for which the comparison holds: (R,).

    Writes 0.0 and 1.0 over the rows: the mean of floats is several times faster than that of bools.
    """
    return compare(rows, value, out=rows).mean(1)


class Stack:
    """Room for a copy of what belongs to the parameters of like layers, a row for each layer."""

    def __init__(self, layers: tuple[int, ...], owned: Sequence[Sequence[Tensor]]) -> None:
        """`owned`: the parameters of each of the layers."""
        sizes = [p.numel() for p in owned[0]]
        self.layers = layers
        self.rows = owned[0][0].new_empty(len(layers), sum(sizes), requires_grad=False)  # (R, N)
        self.parameters = [p for own in owned for p in own]
        self.views = [
            part.view(p.shape)
            for row, own in zip(self.rows, owned, strict=True)
            for p, part in zip(own, row.split([p.numel() for p in own]), strict=True)
        ]


def stacks(modules: Sequence[nn.Module]) -> list[Stack]:
    """A stack for each kind of layer that has parameters of the same shapes."""
    owned = [list(module.parameters(recurse=False)) for module in modules]
    alike: dict[object, list[int]] = {}
    for i, own in enumerate(owned):
        alike.setdefault(tuple(p.shape for p in own), []).append(i)
    return [Stack(tuple(layers), [owned[i] for i in layers]) for layers in alike.values()]


@dataclass(frozen=True)
class Layout:
    """Where the numbers of a measurement belong in its (Q, L) table; the same for most steps."""

    quantity: np.ndarray  # (n,) which quantity each number is of
    layer: np.ndarray  # (n,) and of which layer
    scale: np.ndarray  # (n,) 1 / sqrt(N), which turns a norm into a root mean square
    norms: np.ndarray  # indices of the numbers that are norms
    reasons: dict[tuple[int, int], str]  # (quantity, layer) -> why there is no number


class Measurement:
    """The numbers of one step, still on the device."""

    def __init__(self) -> None:
        self.numbers: list[Tensor] = []
        self.kinds: list[tuple[str, tuple[int, ...], int]] = []  # quantity, layers, N
        self.missing: list[tuple[str, tuple[int, ...], str]] = []  # quantity, layers, reason

    def add(self, quantity: str, layers: tuple[int, ...], numbers: Tensor, size: int = 1) -> None:
        """Numbers (R,) of these layers; `size` is what a root mean square divides by."""
        self.numbers.append(numbers)
        self.kinds.append((quantity, layers, size))

    def miss(self, quantity: str, layers: tuple[int, ...], reason: str) -> None:
        """There is no such number of these layers, and why."""
        self.missing.append((quantity, layers, reason))


class Probe:
    """Measures the layers of `model` on the steps it is told to, and leaves no trace on others.

    Call `attach` before the forward pass, `read` after backward, `read_update` after the update.
    """

    def __init__(self, model: nn.Module) -> None:
        self._listener = Listener(model)
        self.layers = self._listener.layers
        self._on_cpu = next(model.parameters()).device.type == "cpu"
        self._layouts: dict[object, Layout] = {}
        self._gradients: list[Stack] = []
        self._weights: list[Stack] = []

    def attach(self) -> None:
        """Be ready for the forward pass that comes next."""
        self._listener.calls.clear()
        if not self._listener.attached:
            self._listener.attach()
            self._gradients, self._weights = stacks(self._listener.modules), stacks(self._listener.modules)

    def detach(self) -> None:
        """Stop listening and let the memory go; the model is as it was before `attach`."""
        self._listener.detach()
        self._gradients, self._weights = [], []

    @torch.no_grad()
    def read(self) -> Measurement:
        """After backward and before the update: everything but `update_ratio`."""
        found = self._precise(self._read)
        self._listener.calls.clear()
        return found

    @torch.no_grad()
    def read_update(self, found: Measurement, *, stepped: bool) -> None:
        """After the update: the numerator of `update_ratio`. Without an update there is none."""
        if not stepped:
            found.miss("update_ratio", tuple(range(len(self.layers))), NO_UPDATE)
            return
        for stack in self._weights:  # what was copied before the update becomes the (negative) update
            torch._foreach_sub_(stack.views, stack.parameters)
        update = self._precise(self._read_update)
        found.numbers += update.numbers
        found.kinds += update.kinds

    def layout(self, found: Measurement) -> Layout:
        """Where the numbers of `found` belong."""
        key = (*found.kinds, *found.missing)
        if key not in self._layouts:
            flat = [(INDEX[q], i, size) for q, layers, size in found.kinds for i in layers]
            quantity, layer, size = (np.array(column, int) for column in zip(*flat, strict=True))
            shares = [INDEX[name] for name in SHARES]
            self._layouts[key] = Layout(
                quantity,
                layer,
                scale=1 / np.sqrt(size),
                norms=np.flatnonzero(~np.isin(quantity, shares)),
                reasons={(INDEX[q], i): why for q, layers, why in found.missing for i in layers},
            )
        return self._layouts[key]

    def _precise(self, measure: Callable[[Norm], Measurement]) -> Measurement:
        """Measure in float32 where that is faster and enough, otherwise in float64."""
        if self._on_cpu:  # looking at the numbers costs nothing here
            found = measure(norm32)
            norms = torch.cat(found.numbers).numpy()[self.layout(found).norms]
            if norms.min() > 1e-15 and norms.max() < 1e15:
                return found
        return measure(norm64)

    def _read(self, norm: Norm) -> Measurement:
        found = Measurement()
        for stack in self._gradients:
            _read_gradients(found, norm, stack)
        for stack in self._weights:
            torch._foreach_copy_(stack.views, stack.parameters)
            found.add("weight_norm", stack.layers, norm(stack.rows))
        _read_signals(found, norm, self._listener)
        return found

    def _read_update(self, norm: Norm) -> Measurement:
        found = Measurement()
        for stack in self._weights:
            found.add("update_ratio", stack.layers, norm(stack.rows))
        return found


def _read_gradients(found: Measurement, norm: Norm, stack: Stack) -> None:
    """grad_norm and zero_grad_fraction."""
    grads = [p.grad for p in stack.parameters]
    if any(grad is None for grad in grads):
        per_layer = len(grads) // len(stack.layers)
        for r, i in enumerate(stack.layers):
            if all(grad is None for grad in grads[r * per_layer : (r + 1) * per_layer]):
                found.miss("grad_norm", (i,), NO_GRADIENT)
                found.miss("zero_grad_fraction", (i,), NO_GRADIENT)
        grads = [torch.zeros_like(v) if g is None else g for g, v in zip(grads, stack.views, strict=True)]
    torch._foreach_copy_(stack.views, grads)
    found.add("grad_norm", stack.layers, norm(stack.rows))
    found.add("zero_grad_fraction", stack.layers, share(torch.eq, stack.rows, 0.0))


def _read_signals(found: Measurement, norm: Norm, heard: Listener) -> None:
    """delta_rms, activation_rms, dead_fraction and saturated_fraction."""
    signals = heard.signals()
    for i in range(len(heard.modules)):
        if i not in signals:
            for name in ("delta_rms", "activation_rms", "dead_fraction", "saturated_fraction"):
                found.miss(name, (i,), NOT_RUN)

    deltas: dict[object, dict[int, Tensor]] = {}
    activations: dict[object, dict[int, Tensor]] = {}
    for i, (delta, a, activation) in signals.items():
        if delta is None:
            found.miss("delta_rms", (i,), NO_GRADIENT)
        else:
            deltas.setdefault(delta.shape, {})[i] = delta
        activations.setdefault((a.shape, heard.settings.get(activation)), {})[i] = a

    for group in deltas.values():
        flat = torch.stack(list(group.values())).flatten(1)
        found.add("delta_rms", tuple(group), norm(flat), flat.shape[1])
    for group in activations.values():
        _read_activations(found, norm, group, signals[next(iter(group))][2])


def _read_activations(
    found: Measurement, norm: Norm, group: dict[int, Tensor], activation: nn.Module | None
) -> None:
    """Layers with equal activations of one shape, each (samples, U)."""
    layers = tuple(group)
    stack = torch.stack(list(group.values()))  # (R, samples, U)
    flat = stack.flatten(1)
    found.add("activation_rms", layers, norm(flat), flat.shape[1])
    if activation is None:
        found.miss("dead_fraction", layers, NO_ACTIVATION)
        found.miss("saturated_fraction", layers, NO_ACTIVATION)
        return
    if stack.shape[1] < SMALLEST_BATCH_FOR_DEAD:
        found.miss("dead_fraction", layers, SMALL_BATCH)
    else:  # the largest |a| over the samples is 0 only where every a is
        found.add("dead_fraction", layers, share(torch.eq, stack.abs().amax(1), 0.0))
    if type(activation) in SATURATED:
        flatness, threshold = SATURATED[type(activation)](activation, flat)
        found.add("saturated_fraction", layers, share(torch.gt, flatness, threshold))
    else:
        found.miss("saturated_fraction", layers, NEVER_SATURATES)
