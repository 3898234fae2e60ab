"""What is measured, and the probe that measures it.

Nothing here draws random numbers or, away from the CPU, makes the host wait.
L layers, R of them in a group, Q quantities, S samples, U units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from dlexp import parameters
from dlexp.record import histograms
from dlexp.record.histograms import KINDS
from dlexp.record.layers import FUSED, HALF, SEVERAL, Listener, Signal, wide
from dlexp.record.sheet import Rows, Sheet, count, safe_norms, safe_norms_of, steps_in, zeros, zeros_in

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
SHARE_OF = {
    "dead_fraction": "activation_rms",
    "saturated_fraction": "activation_rms",
    "zero_grad_fraction": "grad_norm",
}
ROOTS = ("grad_norm", "delta_rms", "activation_rms", "weight_norm", "update_ratio")  # they lead QUANTITIES

# A unit of a healthy ReLU layer is 0 for half of all samples: fewer than these look dead by chance.
SMALLEST_BATCH_FOR_DEAD = 8

# Where is the slope of an activation below a tenth of its maximum? Told from its output a, which is
# at hand: where the first of the pair is above the second. A module that is not listed is measured if
# it has a method `flatness(a)` that returns such a pair.
SATURATED: dict[type[nn.Module], Callable[[Any, Tensor], tuple[Tensor, float]]] = {
    nn.Sigmoid: lambda _, a: ((a - 0.5).abs(), math.sqrt(0.225)),  # 4 a (1 - a) < 0.1
    nn.Tanh: lambda _, a: (a.abs(), math.sqrt(0.9)),  # 1 - a**2 < 0.1
    nn.Softsign: lambda _, a: (a.abs(), 1 - math.sqrt(0.1)),  # (1 - |a|)**2 < 0.1
    # where a < 0 the slope is a + alpha; its maximum is 1 or alpha
    nn.ELU: lambda m, a: (-a, max(0.0, m.alpha - 0.1 * max(1.0, m.alpha))),
    nn.SELU: lambda _, a: (-a, 0.9 * 1.0507009873554805 * 1.6732632423543772),  # its scale times its alpha
    nn.Softplus: lambda m, a: (-a, math.log(0.9) / m.beta),  # the slope is 1 - exp(-beta a)
    nn.Hardtanh: lambda m, a: (((a == m.min_val) | (a == m.max_val)).to(a.dtype), 0.5),
}

NEVER_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)

MOST_PLANS = 16  # kept at a time, where the shapes of steps differ

NO_GRADIENT = "no gradient"
NO_WEIGHTS = "no weights"
NO_UPDATE = "no update was made"
NOT_RUN = "the layer did not run, or returned no tensor"
OVERWRITTEN = "overwritten in place"
NO_ACTIVATION = "no activation module was seen"
NOT_MEASURED = "not measured for this activation"
SMALL_BATCH = f"fewer than {SMALLEST_BATCH_FOR_DEAD} samples"


class Layout:
    """Where the raw numbers of a step belong in its (Q, L) table, and what makes them quantities."""

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self.numbers = 0  # how many raw numbers a step has
        self.reasons: dict[tuple[int, int], str] = {}  # (quantity, layer) -> why there is no number
        self._parts: list[tuple[int, int, int, int]] = []  # place, quantity, layer, size
        self._series: list[tuple[int, str, int, int, int]] = []  # place, quantity, layer, times, size
        self._columns: tuple[np.ndarray, ...] | None = None

    def add(self, quantity: str, layers: Sequence[int], sizes: Sequence[int] = ()) -> None:
        """The next numbers are parts of this quantity of these layers; sums are divided by `sizes`."""
        for i, size in zip(layers, sizes or [1] * len(layers), strict=True):
            self._parts.append((self.numbers, INDEX[quantity], i, size))
            self.numbers += 1

    def add_series(self, quantity: str, layer: int, times: int, size: int) -> None:
        """The next numbers are the norms of `size` entries at each of so many time steps."""
        self._series.append((self.numbers, quantity, layer, times, size))
        self.numbers += times

    def without_update(self) -> Layout:
        """The layout of a step whose update was not made: what stands in its place means nothing."""
        other = Layout(self.layers)
        ratio = INDEX["update_ratio"]
        other._parts = [part for part in self._parts if part[1] != ratio]
        other._series, other.numbers = self._series, self.numbers
        other.reasons = {(ratio, i): NO_UPDATE for i in range(self.layers)} | self.reasons
        return other

    def places(self, quantity: str) -> list[int]:
        """Which of the numbers are parts of it."""
        return [place for place, q, _, _ in self._parts if q == INDEX[quantity]]

    def miss(self, quantity: str, layer: int, reason: str) -> None:
        """There is no such number of this layer, and why."""
        self.reasons[INDEX[quantity], layer] = reason

    def tables(self, numbers: np.ndarray) -> tuple[np.ndarray, dict[tuple[str, int], np.ndarray]]:
        """Of N steps: the quantities (N, Q, L) from their raw numbers (N, n); NaN where there is none.

        The parts of a norm add up by their squares, those of a count by themselves. Beside them for
        (quantity, layer) the series over time, (N, T).
        """
        if self._columns is None:
            place, quantity, layer, size = np.array(self._parts, dtype=int).reshape(-1, 4).T
            self._columns = place, quantity * self.layers + layer, quantity < len(ROOTS), 1 / size
            self._gaps = np.array([q * self.layers + i for q, i in self.reasons], dtype=int)
        place, cell, roots, scale = self._columns
        steps, cells = len(numbers), len(QUANTITIES) * self.layers
        parts = numbers[:, place]
        parts = np.where(roots, parts**2, parts) * scale
        cell = cell + cells * np.arange(steps)[:, None]
        sums: np.ndarray = np.bincount(cell.ravel(), parts.ravel(), minlength=steps * cells)
        sums = sums.astype(float).reshape(steps, cells)  # of nothing bincount makes integers
        sums[:, self._gaps] = math.nan
        tables = sums.reshape(steps, len(QUANTITIES), self.layers)
        with np.errstate(all="ignore"):
            tables[:, INDEX["update_ratio"]] /= tables[:, INDEX["weight_norm"]]
            tables[:, : len(ROOTS)] = np.sqrt(tables[:, : len(ROOTS)])
            for name, of in SHARE_OF.items():  # a share of numbers that are no numbers says nothing
                tables[:, INDEX[name]] += 0 * tables[:, INDEX[of]]
        series = {
            (quantity, layer): numbers[:, start : start + times] / math.sqrt(size)
            for start, quantity, layer, times, size in self._series
        }
        return tables, series


@dataclass
class Measurement:
    """The raw numbers of one step, still on the device, and the layout that places them."""

    layout: Layout
    plan: _Plan
    step: int  # which one of the plan's
    now: list[Tensor]  # what was measured at once, behind what is measured with that of other steps
    updated: bool = False  # is what the update did known?
    numbers: Tensor | None = None  # (n,), once the plan has measured
    histograms: dict[tuple[str, int], Tensor] = field(default_factory=dict)  # (kind, layer) -> its numbers


class Probe:
    """Measures the layers of `model` on the steps it is told to, and leaves no trace on others.

    Call `attach` before the forward pass, `read` after backward, `read_update` after the update, and `finish`
    before the numbers of measurements are needed.
    """

    def __init__(
        self,
        model: nn.Module,
        order: Sequence[str] = (),
        *,
        spread: bool = False,
        heard: Listener | None = None,
    ) -> None:
        """With `spread` how the numbers of each layer are spread is measured, too.

        Args:
            heard: has listened to the forward pass of the first step already.
        """
        self._spread = spread
        self._listener = Listener(model, order)
        if heard:
            self._listener.take_over(heard)
        self.layers = self._listener.layers
        owned = [list(parameters.own(m).values()) for m in self._listener.modules]
        self._parameters: list[Tensor] = [p for own in owned for p in own]
        self._owners = [i for i, own in enumerate(owned) for _ in own]  # layer of each parameter
        self._plans: dict[object, _Plan] = {}
        self._weighted = [i for i, own in enumerate(owned) if own]  # all but signals
        # Under autocast weights have float32 all the same.
        self._wide: Callable[[Sequence[Tensor]], list[Tensor]] = (
            _wide if any(p.dtype in HALF for p in self._parameters) else list
        )
        weights = [self._wide(owned[i]) for i in self._weighted]
        self._weights = Rows(weights)
        _, large = self._weights.split([p for own in weights for p in own])
        self._before = [torch.empty_like(p) for p in large]  # what they were before the update

    def attach(self) -> None:
        """Be ready for the forward pass that comes next."""
        self._listener.forget()
        if not self._listener.attached:
            self._listener.attach()

    def detach(self) -> None:
        """Stop listening; the model is as it was before `attach`."""
        self._listener.detach()

    @torch.no_grad()
    def read(self, scale: float = 1.0) -> Measurement:
        """After backward and before the update: everything but `update_ratio`.

        Args:
            scale: what the loss was multiplied by in backward; the gradients of the weights are as without.
        """
        grads = [p.grad for p in self._parameters]
        signals = {i: signal.wide(scale) for i, signal in self._listener.signals().items()}
        self._listener.forget()
        key = (
            *[g is None for g in grads],
            *[
                (i, _shape(s.delta), _shape(s.a), s.setting, s.times, s.state_delta is None)
                for i, s in signals.items()
            ],
        )
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= MOST_PLANS:
                self.finish()
                self._plans.clear()
            rows: list[list[Tensor]] = [[] for _ in self.layers]
            for i, g in zip(self._owners, grads, strict=True):
                if g is not None:
                    rows[i].append(wide(g))
            plan = self._plans[key] = _Plan(self._weights, self._weighted, self._before, rows, signals)
        present = self._wide([_dense(g) for g in grads if g is not None])
        found = plan.measure(self._wide(self._parameters), present, signals)
        if self._spread:
            found.histograms = self._histograms(grads, signals)
        return found

    def _histograms(
        self, grads: Sequence[Tensor | None], signals: dict[int, Signal]
    ) -> dict[tuple[str, int], Tensor]:
        found: dict[tuple[str, int], list[Tensor]] = {}
        for i, signal in signals.items():
            for kind, t in zip(KINDS, (signal.a, signal.delta), strict=False):
                if t is not None:
                    found[kind, i] = [t]
        for i, g in zip(self._owners, grads, strict=True):
            if g is not None:
                found.setdefault((KINDS[2], i), []).append(wide(_dense(g)))
        return {place: histograms.measure(own) for place, own in found.items()}

    @torch.no_grad()
    def read_update(self, found: Measurement, *, stepped: bool) -> None:
        """After the update: what it changed. Without an update there is nothing to read."""
        if not stepped:
            found.layout = found.layout.without_update()
        found.plan.measure_update(found, self._wide(self._parameters))

    @torch.no_grad()
    def finish(self) -> None:
        """Measure what waits; measurements have their numbers then."""
        for plan in self._plans.values():
            plan.finish()


class _Plan:
    """How to measure the steps whose tensors are shaped like those of this one.

    Small tensors of a few steps are copied and measured together; large ones at once.
    """

    def __init__(
        self,
        weights: Rows,
        weighted: list[int],
        before: list[Tensor],
        grads: list[list[Tensor]],
        signals: dict[int, Signal],
    ) -> None:
        """
        Args:
            weighted: the layer of each row of the weights.
            before: room for large weights.
            grads: of each layer.
        """
        self._weights, self._before = weights, before
        with_gradient = [i for i, own in enumerate(grads) if own]
        gradients = self._gradients = Rows([grads[i] for i in with_gradient])
        self._with_delta = [i for i, signal in signals.items() if signal.delta is not None]
        self._heard = [i for i, signal in signals.items() if signal.a is not None]
        flowing = self._tensors(signals)
        flows = self._flows = Rows([[t] for t in flowing])

        entries = [sum(g.numel() for g in grads[i]) for i in with_gradient]
        like = next((g for own in grads for g in own), next(iter(flowing), torch.empty(0)))
        self._steps = steps_in([weights, gradients, weights], [flows])
        self._of_weights = Sheet([weights, gradients, weights], self._steps, like)
        self._of_signals = Sheet([flows], self._steps, flowing[0] if flowing else like)
        # Where the weights, gradients and signals of each step are copied, and its weights after the update.
        self._places: list[tuple[list[Tensor], list[Tensor]]] = []
        self._sizes = torch.tensor(gradients.sizes, dtype=torch.float32, device=like.device)
        self._waiting: list[Measurement] = []

        layout = self.layout = Layout(len(grads))
        alike: dict[object, list[int]] = {}
        large = {self._heard[r - len(self._with_delta)] for r in flows.large if r >= len(self._with_delta)}
        for i in self._heard:
            a, setting = signals[i].a, signals[i].setting
            assert a is not None
            alike.setdefault((a.shape, setting, i if i in large else None), []).append(i)
        groups = [self._group(layers, signals, large) for layers in alike.values()]
        self._groups = [group for group in groups if group and not group.is_large]
        self._large_groups = [group for group in groups if group and group.is_large]
        self._repeated = [i for i, signal in signals.items() if signal.times > 1]

        whose = [("delta_rms", i) for i in self._with_delta] + [("activation_rms", i) for i in self._heard]

        def add_signals(rows: list[int]) -> None:
            for r in rows:
                quantity, i = whose[r]
                layout.add(quantity, [i], [flowing[r].numel()])

        def add_gradients(quantity: str, rows: list[int], sizes: Sequence[int] = ()) -> None:
            layout.add(quantity, [with_gradient[r] for r in rows], sizes)

        # What is measured together with other steps, and then what is measured at once.
        layout.add("weight_norm", [weighted[r] for r in weights.small])
        add_gradients("grad_norm", gradients.small)
        layout.add("update_ratio", [weighted[r] for r in weights.small])
        add_signals(flows.small)
        add_gradients("zero_grad_fraction", gradients.small, [entries[r] for r in gradients.small])
        for group in self._groups:
            group.add_to(layout)
        layout.add("weight_norm", [weighted[r] for r in weights.large])
        add_gradients("grad_norm", gradients.large)
        add_signals(flows.large)
        add_gradients("zero_grad_fraction", gradients.large, [entries[r] for r in gradients.large])
        for group in self._large_groups:
            group.add_to(layout)
        for i in self._repeated:
            signal = signals[i]
            for quantity, t in _over_time(signal):
                if t is not None:
                    layout.add_series(quantity, i, signal.times, t.numel() // signal.times)
        layout.add("update_ratio", [weighted[r] for r in weights.large])
        self._miss(len(grads), weighted, with_gradient, signals)

    def _group(self, layers: list[int], signals: dict[int, Signal], large: Container[int]) -> _Group | None:
        """Layers with equal activations of one shape; None where there is nothing to measure."""
        first = signals[layers[0]]
        assert first.a is not None
        activation, (samples, units) = first.activation, first.a.shape
        nothing = SEVERAL if first.setting == SEVERAL else NO_ACTIVATION
        dead = activation is not None and samples >= SMALLEST_BATCH_FOR_DEAD
        saturates = _flatness(activation) is not None
        for i in layers:
            if not dead:
                self.layout.miss("dead_fraction", i, SMALL_BATCH if activation else nothing)
            if not saturates:
                self.layout.miss("saturated_fraction", i, NOT_MEASURED if activation else nothing)
        if not dead and not saturates:
            return None
        rows = [len(self._with_delta) + self._heard.index(i) for i in layers]
        is_large = layers[0] in large
        places = [] if is_large else [self._flows.small.index(r) for r in rows]
        return _Group(layers, places, samples, units, activation, dead, saturates, is_large)

    def _miss(
        self, layers: int, weighted: list[int], with_gradient: list[int], signals: dict[int, Signal]
    ) -> None:
        """Note what there is nothing to measure of."""
        for i in range(layers):
            if i not in weighted:
                for name in ("grad_norm", "weight_norm", "update_ratio", "zero_grad_fraction"):
                    self.layout.miss(name, i, NO_WEIGHTS)
            elif i not in with_gradient:
                self.layout.miss("grad_norm", i, NO_GRADIENT)
                self.layout.miss("zero_grad_fraction", i, NO_GRADIENT)
            if i not in self._with_delta:
                why = NOT_RUN if i not in signals else FUSED if signals[i].fused else NO_GRADIENT
                self.layout.miss("delta_rms", i, why)
            if i not in self._heard:
                for name in ("activation_rms", "dead_fraction", "saturated_fraction"):
                    self.layout.miss(name, i, OVERWRITTEN if i in signals else NOT_RUN)

    def _tensors(self, signals: dict[int, Signal]) -> list[Tensor]:
        found = [signals[i].delta for i in self._with_delta] + [signals[i].a for i in self._heard]
        return cast("list[Tensor]", found)  # that they are there is what these lists say

    def measure(self, weights: list[Tensor], grads: list[Tensor], signals: dict[int, Signal]) -> Measurement:
        """Before the update.

        Args:
            grads: those that there are, in the order of their parameters.
        """
        # One that never heard of its update, of a loop that raised say, is given up.
        self._waiting = [found for found in self._waiting if found.updated]
        if len(self._waiting) == self._steps:
            self.finish()
        taken = {found.step for found in self._waiting}
        step = next(n for n in range(self._steps) if n not in taken)
        if step == len(self._places):
            before, own, after = self._of_weights.views(step)
            (flow,) = self._of_signals.views(step)
            self._places.append(([*before, *own, *flow], after))
        pairs = self._weights.split(weights), self._gradients.split(grads)
        (small, large), (small_grads, large_grads) = pairs
        small_flows, large_flows = self._flows.split(self._tensors(signals))
        if into := self._places[step][0]:
            torch._foreach_copy_(into, [*small, *small_grads, *small_flows])
        now = []
        if together := [*large, *large_grads, *large_flows]:
            now.append(safe_norms_of(together))
        if large:
            torch._foreach_copy_(self._before, large)
        now += [zeros(g) for g in large_grads]
        for group in self._large_groups:
            now += [x.flatten() for x in group.measure(signals[group.layers[0]].a[None, None])]  # type: ignore[index]
        for i in self._repeated:
            for _, t in _over_time(signals[i]):
                if t is not None:
                    wide = None if t.device.type == "mps" else torch.float64  # as `safe_norms`
                    runs = t.reshape(signals[i].times, -1)
                    now.append(torch.linalg.vector_norm(runs, dim=1, dtype=wide))
        found = Measurement(self.layout, self, step, now)
        self._waiting.append(found)
        return found

    def measure_update(self, found: Measurement, weights: list[Tensor]) -> None:
        """After the update."""
        found.updated = True
        small, large = self._weights.split(weights)
        if into := self._places[found.step][1]:
            torch._foreach_copy_(into, small)
        if large:
            torch._foreach_sub_(self._before, large)
            found.now.append(safe_norms_of(self._before))

    def finish(self) -> None:
        """Measure what was copied; then there is room for other steps.

        A step whose update is still to come keeps its place.
        """
        ready = [found for found in self._waiting if found.updated]
        if not ready:
            return
        self._waiting = [found for found in self._waiting if not found.updated]
        steps = [found.step for found in ready]
        cells = [sheet.cells[_which(steps)] for sheet in (self._of_weights, self._of_signals)]
        before, own, after = (self._of_weights.section(cells[0], number) for number in range(3))
        after.sub_(before)
        signals = cells[1]
        found = [safe_norms(cells), zeros_in(own, self._sizes)]
        for group in self._groups:
            found += group.measure(group.stack(signals))
        table = torch.cat(found, dim=1)
        for measurement, row in zip(ready, table.unbind(), strict=True):
            measurement.numbers = torch.cat([row, *measurement.now]) if measurement.now else row


def _which(steps: list[int]) -> slice | list[int]:
    """A slice, which copies nothing, where that will do."""
    return slice(0, len(steps)) if steps == list(range(len(steps))) else steps


def _shape(t: Tensor | None) -> torch.Size | None:
    return None if t is None else t.shape


def _over_time(signal: Signal) -> tuple[tuple[str, Tensor | None], ...]:
    """What has a number for each run of a layer."""
    return (
        ("activation_rms", signal.a),
        ("delta_rms", signal.delta),
        ("cell_delta_rms", signal.state_delta),  # of dL/dc, beside that of dL/dh
    )


def _wide(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [wide(t) for t in tensors]


def _dense(grad: Tensor) -> Tensor:
    """A gradient as it is; that of an embedding with sparse=True with its zeros."""
    return grad.to_dense() if grad.is_sparse else grad


def _flatness(activation: nn.Module | None) -> Callable[[Tensor], tuple[Tensor, float]] | None:
    """What tells from its output where an activation is flat; None if nothing does."""
    known = SATURATED.get(type(activation)) if activation is not None else None
    return partial(known, activation) if known else getattr(activation, "flatness", None)


@dataclass
class _Group:
    """Layers whose activations have one shape and one kind."""

    layers: list[int]
    places: list[int]  # among the small signals
    samples: int
    units: int
    activation: nn.Module | None
    dead: bool
    saturates: bool
    is_large: bool  # a single one that is not copied

    def add_to(self, layout: Layout) -> None:
        """The numbers that `measure` gives."""
        if self.dead:
            layout.add("dead_fraction", self.layers, [self.units] * len(self.layers))
        if self.saturates:
            layout.add("saturated_fraction", self.layers, [self.samples * self.units] * len(self.layers))

    def stack(self, cells: Tensor) -> Tensor:
        """(steps, R, S, U) of the small signals, (steps, rows, width)."""
        first, last = self.places[0], self.places[-1]
        beside = self.places == list(range(first, last + 1))  # each other: no copy is needed
        own = cells[:, first : last + 1] if beside else cells[:, self.places]
        stack: Tensor = own[..., : self.samples * self.units].unflatten(2, (self.samples, self.units))
        return stack

    def measure(self, stack: Tensor) -> list[Tensor]:
        """How many units are dead, and how many activations saturated: each (steps, R)."""
        numbers = []
        if self.dead:  # the largest |a| over the samples is 0 only where every a is
            size = stack if isinstance(self.activation, NEVER_NEGATIVE) else stack.abs()
            numbers.append(size.amax(dim=2).eq_(0.0).sum(dim=2, dtype=torch.float32))
        if self.saturates and (find := _flatness(self.activation)):
            flatness, threshold = find(stack.flatten(2))
            numbers.append(count(torch.gt, flatness, threshold))
        return numbers
