"""Which modules are layers, and what passes through them in a step that is watched.

A layer is a module that owns a weight (see dlexp/parameters.py); its z is what it returns, before any
normalization or activation; its activation is what the activation module returns that takes in z, or
takes in what normalization, dropout and the like made of z. Which one that is, is seen from the tensors
themselves, so branches may run in any order. Normalization layers own vectors, not matrices, and are
not layers here.

A module with `is_signal = True`, the sum of a residual block say, is recorded like a layer that has no
weights; what it returns is its z and its activation.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dlexp import parameters

_LISTED = [getattr(nn, name) for name in nn.modules.activation.__all__]
ACTIVATIONS = (*(kind for kind in _LISTED if kind is not nn.MultiheadAttention), nn.Identity)


def is_activation(module: nn.Module) -> bool:
    """PyTorch's activations, and a module that says so itself with `is_activation = True`."""
    return isinstance(module, ACTIVATIONS) or getattr(module, "is_activation", False) is True


def is_signal(module: nn.Module) -> bool:
    """A module that is recorded for what it returns, whether it has weights or not."""
    return getattr(module, "is_signal", False) is True


def is_cell(module: nn.Module) -> bool:
    """Are its runs time steps? PyTorch's recurrent modules, and one that says so with `is_cell = True`.

    A cell returns its hidden state h, or (h, c) with a cell state beside it.
    """
    return isinstance(module, nn.RNNCellBase | nn.RNNBase) or getattr(module, "is_cell", False) is True


@dataclass(frozen=True)
class Layer:
    """A module that owns a weight matrix, or a signal."""

    name: str  # e.g. "03_linear": its place in the network, then its kind
    path: str  # where it is in the network, e.g. "4" or "encoder.linear"
    kind: str  # its class
    shape: tuple[int, ...]  # of the weight; () where there is none
    parameters: int
    is_cell: bool  # its runs are time steps


class Call:
    """One run of one layer in a forward pass; a layer that is used twice has two."""

    __slots__ = ("a", "activation", "given", "layer", "node", "output", "state", "version")

    def __init__(self, layer: int, z: Tensor) -> None:
        self.layer = layer  # its index
        self.output = z.output_nr  # which output of the node that made it z is
        self.given: list[tuple[Tensor | None, ...]] = []  # what backward gave the node that made z
        self.state: Call | None = None  # the same for the cell state c of an LSTM cell
        self.activation: nn.Module | None = None
        self.a, self.version = z, z._version
        self.node = z.grad_fn
        if self.node is not None:
            # The node that made z is given dL/dz even if an in-place activation overwrites z later.
            # It holds on to the list alone: holding the call, and so z, would be a cycle and a leak.
            self.node.register_prehook(self.given.append)

    def hears(self, activation: nn.Module | None, a: Tensor) -> None:
        """Keep what the activation returned; z is let go, as it is without watching."""
        self.activation, self.a, self.version = activation, a, a._version

    @property
    def delta(self) -> Tensor | None:
        """dL/dz; None where no gradient came."""
        return self.given[-1][self.output] if self.given else None

    @property
    def overwritten(self) -> bool:
        """Did something in place change `a` since?"""
        return self.a._version != self.version


class Signal(NamedTuple):
    """What passed through a layer in one step; S samples, U units.

    A layer that ran T times, or a recurrent one with T time steps, has T * S samples, those of the
    first time first.
    """

    delta: Tensor | None  # (S, U), dL/dz; None where no gradient came
    a: Tensor | None  # (S, U); None where it was overwritten before it could be measured
    activation: nn.Module | None
    setting: object  # the same for activations that are alike; SEVERAL if they are not
    times: int  # T; 1 also where the runs were of different sizes
    state_delta: Tensor | None  # (S, H), dL/dc of the cell state c of an LSTM cell
    fused: bool  # one call for all time steps, see `FUSED`

    def wide(self, scale: float) -> Signal:
        """In float32 at least, and what came back divided by `scale`."""
        signals = self.delta, self.a, self.state_delta
        if scale == 1 and not any(t is not None and t.dtype in HALF for t in signals):
            return self
        delta, a, state = (t if t is None else wide(t) for t in signals)
        delta, state = (t if t is None else t / scale for t in (delta, state))
        return self._replace(delta=delta, a=a, state_delta=state)


def wide(t: Tensor) -> Tensor:
    """A tensor of two bytes a number, as under autocast, in four: sums need more digits than it has."""
    return t.float() if t.dtype in HALF else t


HALF = (torch.float16, torch.bfloat16)

SEVERAL = "several activations"  # of one layer in one step

# nn.RNN, nn.LSTM, nn.GRU: what comes back through time stays inside, and what reaches their outputs
# is not the gradient with respect to the hidden states. It would be 0 wherever an output is not used.
FUSED = "fused recurrent module: only the direct error is seen; a cell, nn.LSTMCell say, shows all of it"


def owners(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that own a weight, and the signals, by their paths."""
    own = parameters.owners(model)
    return {path: m for path, m in model.named_modules() if path in own or is_signal(m)}


class Listener:
    """Hears what the layers of `model` return, while it is attached."""

    def __init__(self, model: nn.Module, order: Sequence[str] = ()) -> None:
        """Layers are numbered in `order`, paths of modules; those it does not name come last."""
        own = owners(model)
        found = [(path, own[path]) for path in dict.fromkeys((*order, *own)) if path in own]
        self.layers = [_layer(i, path, module, len(found)) for i, (path, module) in enumerate(found, 1)]
        self.modules = [module for _, module in found]
        self.calls: list[Call] = []  # in the order of the forward pass
        # What tells activations apart, e.g. (nn.ELU, "alpha=1.0").
        self._settings: dict[nn.Module | None, object] = {
            m: (type(m), m.extra_repr()) for m in model.modules() if is_activation(m)
        }
        # Dropout in place, say, would overwrite an activation before it is measured.
        self._overwritten = any(
            getattr(m, "inplace", False) and not is_activation(m) for m in model.modules()
        )
        # Layer -> the activation whose output it takes in directly: no need to listen to that one.
        self._fed_by = _fed_by(model, self.modules)
        # Everything else without parts of its own: activations, and what stands before one.
        self._others = [
            m
            for m in model.modules()
            if not any(m.children()) and m not in self.modules and m not in self._fed_by.values()
        ]
        self._others_matter = any(m in self._settings for m in self._others)
        # What was made of the z of a call, at that version: `+=`, say, makes something else of it.
        self._trail: dict[int, tuple[weakref.ref[Tensor], int, Call]] = {}
        self._changed: dict[nn.Module, Call] = {}  # by a module that is at work in place
        self._seen: set[int] = set()  # the layers that ran outside of backward
        self.attached = False
        self._hooks: list[tuple[nn.Module, Callable[..., None]]] = [
            (module, self._layer_hook(i)) for i, module in enumerate(self.modules)
        ]
        self._early_hooks: list[tuple[nn.Module, Callable[..., None]]] = []
        if self._others_matter:
            self._hooks += [(module, self._on_other) for module in self._others]
            inplace = [module for module in self._others if getattr(module, "inplace", False)]
            self._early_hooks = [(module, self._before_inplace) for module in inplace]

    def attach(self) -> None:
        """Listen to the forward passes that come next.

        The hooks go where `register_forward_hook` puts them, which takes five times as long.
        """
        for module, hook in self._hooks:
            module._forward_hooks[self] = hook  # type: ignore[index]
        for module, hook in self._early_hooks:
            module._forward_pre_hooks[self] = hook  # type: ignore[index]
        self.attached = True

    def detach(self) -> None:
        """Stop listening; the model is as it was before `attach`."""
        for module, _ in self._hooks:
            module._forward_hooks.pop(self, None)  # type: ignore[call-overload]
        for module, _ in self._early_hooks:
            module._forward_pre_hooks.pop(self, None)  # type: ignore[call-overload]
        self.attached = False
        self.forget()

    def forget(self) -> None:
        """Let go of what was heard, and so of the graph."""
        self.calls.clear()
        self._trail.clear()
        self._changed.clear()
        self._seen.clear()

    def take_over(self, other: Listener) -> None:
        """Make what another listener to the same model heard our own."""
        place = {module: i for i, module in enumerate(self.modules)}
        for call in other.calls:
            call.layer = place[other.modules[call.layer]]
        self.calls += other.calls

    def signals(self) -> dict[int, Signal]:
        """What passed through each layer that ran; one that ran twice has the samples of both runs."""
        found: dict[int, list[Signal]] = {}
        for call in self.calls:
            a, times, module = None if call.overwritten else call.a, 1, self.modules[call.layer]
            fused = isinstance(module, nn.RNNBase)
            delta = None if fused else call.delta
            if call.a.dim() != 2 or (delta is not None and delta.dim() != 2):
                if isinstance(module, nn.RNNBase) and call.a.dim() == 3:
                    times = call.a.shape[1 if module.batch_first else 0]
                a = None if a is None else units_last(a, module)
                delta = None if delta is None else units_last(delta, module)
            setting = self._setting(call.activation)
            state_delta = None if call.state is None else call.state.delta
            signal = Signal(delta, a, call.activation, setting, times, state_delta, fused)
            found.setdefault(call.layer, []).append(signal)
        return {i: runs[0] if len(runs) == 1 else _joined(runs) for i, runs in found.items()}

    def _setting(self, activation: nn.Module | None) -> object:
        return None if activation is None else self._settings.get(activation)

    def _layer_hook(self, layer: int) -> Callable[..., None]:
        calls, trail, seen, fed_by = self.calls, self._trail, self._seen, self._fed_by.get(layer)
        own = self.modules[layer]
        signal, has_state = is_signal(own), is_cell(own) and not isinstance(own, nn.RNNBase)
        listens = self._others_matter and not signal
        inner = next((m for m in own.children() if is_activation(m)), None) if signal else None

        def on_layer(module: nn.Module, args: tuple[Any, ...], returned: Any) -> None:
            if not torch.is_grad_enabled():  # an evaluation between two recorded steps
                return
            if torch._C._current_graph_task_id() == -1:
                seen.add(layer)
            elif layer in seen:  # torch.utils.checkpoint runs it once more, perhaps not to its end
                return
            if fed_by is not None and calls:
                calls[-1].hears(fed_by, args[0])
            z = returned[0] if isinstance(returned, tuple) else returned
            if not isinstance(z, Tensor):  # a dict, say: nothing is known of what is in it
                return
            calls.append(call := Call(layer, z))
            call.activation = inner
            if has_state:
                call.state = _state(layer, z, returned)
            if listens:
                trail[id(z)] = weakref.ref(z), z._version, call

        return on_layer

    def _made_of(self, args: tuple[Any, ...]) -> Call | None:
        """The call whose z this is, or what modules made of it alone."""
        known = self._trail.get(id(args[0])) if args and torch.is_grad_enabled() else None
        if known is None:
            return None
        kept, version, call = known[0](), *known[1:]
        return call if kept is not None and kept is args[0] and kept._version == version else None

    def _before_inplace(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Afterwards the version says no more whether only this module has changed it."""
        if (call := self._made_of(args)) is not None:
            self._changed[module] = call

    def _on_other(self, module: nn.Module, args: tuple[Any, ...], returned: Any) -> None:
        """An activation, or a module between a layer and its activation."""
        call = self._changed.pop(module, None) or self._made_of(args)
        if call is None or not isinstance(returned, Tensor):
            return
        if module in self._settings:
            call.hears(module, returned.detach().clone() if self._overwritten else returned)
        self._trail[id(returned)] = weakref.ref(returned), returned._version, call


def _layer(number: int, path: str, module: nn.Module, of: int) -> Layer:
    kind = parametrize.type_before_parametrizations(module).__name__
    shapes = [tuple(p.shape) for p in parameters.weights(module).values()]
    # what a parametrization makes is as large as the largest of what it is made of
    shape = max(shapes, key=math.prod) if parametrize.is_parametrized(module) else next(iter(shapes), ())
    return Layer(
        name=f"{number:0{max(2, len(str(of)))}d}_{kind.lower()}",
        path=path,
        kind=kind,
        shape=shape,
        parameters=sum(p.numel() for p in parameters.own(module).values()),
        is_cell=is_cell(module),
    )


def _state(layer: int, h: Tensor, returned: Any) -> Call | None:
    """The cell state c where a cell returned (h, c), as nn.LSTMCell does.

    On CUDA one kernel makes both of them, and what comes back to c by way of h stays inside: None.
    """
    c = returned[1] if isinstance(returned, tuple) and len(returned) == 2 else None
    return Call(layer, c) if isinstance(c, Tensor) and c.grad_fn is not h.grad_fn else None


def _fed_by(model: nn.Module, layers: list[nn.Module]) -> dict[int, nn.Module]:
    """Layers that stand right behind layer and activation, with that activation.

    Only in a model that is an `nn.Sequential` as a whole: anything else may call its parts in another
    order, or do something in between.
    """
    if type(model) is not nn.Sequential:
        return {}
    index = {module: i for i, module in enumerate(layers)}
    children = list(model)
    found = {}
    for before, activation, after in zip(children, children[1:], children[2:], strict=False):
        once = all(children.count(module) == 1 for module in (before, activation, after))
        known = before in index and after in index and not is_signal(before)
        if once and known and is_activation(activation):
            found[index[after]] = activation
    return found


def _joined(runs: list[Signal]) -> Signal:
    """Several runs of one layer as one signal."""
    deltas = [run.delta for run in runs if run.delta is not None]
    signals = [run.a for run in runs if run.a is not None]
    whole = len(signals) == len(runs)
    alike = whole and len({len(a) / run.times for a, run in zip(signals, runs, strict=True)}) == 1
    several = len({run.setting for run in runs}) > 1
    states = [run.state_delta for run in runs if run.state_delta is not None]
    return Signal(
        delta=torch.cat(deltas) if deltas else None,
        a=torch.cat(signals) if whole else None,
        activation=None if several else runs[-1].activation,
        setting=SEVERAL if several else runs[-1].setting,
        times=sum(run.times for run in runs) if alike and len(deltas) in (0, len(runs)) else 1,
        state_delta=torch.cat(states) if len(states) == len(runs) else None,
        fused=runs[-1].fused,
    )


def units_last(signal: Tensor, module: nn.Module) -> Tensor:
    """(samples, U): units are the channels of a convolution and the last dimension of anything else.

    So are those of a signal of pictures, (B, C, H, W). A module with `unit_has_place = True` has a unit
    for each channel and place.
    """
    if signal.dim() == 2:
        return signal
    if isinstance(module, nn.RNNBase) and module.batch_first:
        signal = signal.movedim(1, 0)  # the first time step of all samples first
    if isinstance(module, nn.modules.conv._ConvNd) or (is_signal(module) and signal.dim() > 3):
        signal = signal.movedim(1, -1)
    if getattr(module, "unit_has_place", False):  # no weight is shared: each place is a unit of its own
        signal = signal.flatten(1)
    return signal.reshape(-1, signal.shape[-1])
