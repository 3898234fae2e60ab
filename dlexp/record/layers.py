"""Which modules are layers, and what passes through them in a step that is watched.

A layer is a module that owns a weight matrix; its z is what the module returns, before any
normalization or activation; its activation is what the last activation module between it and the
next layer returns. Normalization layers own vectors, not matrices, and are not layers here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_LISTED = [getattr(nn, name) for name in nn.modules.activation.__all__]
ACTIVATIONS = (*(kind for kind in _LISTED if kind is not nn.MultiheadAttention), nn.Identity)


def is_activation(module: nn.Module) -> bool:
    """PyTorch's activations, and a module that says so itself with `is_activation = True`."""
    return isinstance(module, ACTIVATIONS) or getattr(module, "is_activation", False) is True


@dataclass(frozen=True)
class Layer:
    """A module that owns a weight matrix."""

    name: str  # e.g. "03_linear": its place in the network, then its kind
    path: str  # where it is in the network, e.g. "4" or "encoder.linear"
    kind: str  # its class
    shape: tuple[int, ...]  # of the weight
    parameters: int


class Call:
    """One run of one layer in a forward pass; a layer that is used twice has two."""

    __slots__ = ("a", "activation", "given", "layer", "output")

    def __init__(self, layer: int, z: Tensor) -> None:
        self.layer = layer  # its index
        self.output = z.output_nr  # which output of the node that made it z is
        self.given: list[tuple[Tensor | None, ...]] = []  # what backward gave the node that made z
        self.activation: nn.Module | None = None  # the last one before the next layer, if any
        self.a = z  # what that returned, or the layer itself; z is let go, as it is without watching


class Signal(NamedTuple):
    """What passed through a layer in one step; S samples, U units.

    A layer that ran T times, or a recurrent one with T time steps, has T * S samples, those of the
    first time first.
    """

    delta: Tensor | None  # (S, U), dL/dz; None where no gradient came
    a: Tensor  # (S, U)
    activation: nn.Module | None
    setting: object  # the same for activations that are alike
    times: int  # T; 1 also where the runs were of different sizes


class Listener:
    """Hears what the layers of `model` return, while it is attached."""

    def __init__(self, model: nn.Module) -> None:
        found = [
            (path, module)
            for path, module in model.named_modules()
            if any(p.dim() >= 2 for p in module.parameters(recurse=False))
        ]
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
        self._activations = [
            m for m in model.modules() if m in self._settings and m not in self._fed_by.values()
        ]
        self._handles: list[Any] = []

    @property
    def attached(self) -> bool:
        return bool(self._handles)

    def attach(self) -> None:
        """Listen to the forward passes that come next."""
        for i, module in enumerate(self.modules):
            self._handles.append(module.register_forward_hook(self._layer_hook(i)))
        for module in self._activations:
            self._handles.append(module.register_forward_hook(self._on_activation))

    def detach(self) -> None:
        """Stop listening; the model is as it was before `attach`."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.calls.clear()

    def signals(self) -> dict[int, Signal]:
        """What passed through each layer that ran; one that ran twice has the samples of both runs."""
        found: dict[int, list[Signal]] = {}
        for call in self.calls:
            a, times, module = call.a, 1, self.modules[call.layer]
            delta = call.given[-1][call.output] if call.given else None
            if a.dim() != 2 or (delta is not None and delta.dim() != 2):
                if isinstance(module, nn.RNNBase) and a.dim() == 3:
                    times = a.shape[1 if module.batch_first else 0]
                a = _units_last(a, module)
                delta = None if delta is None else _units_last(delta, module)
            signal = Signal(delta, a, call.activation, self._setting(call.activation), times)
            found.setdefault(call.layer, []).append(signal)
        return {i: runs[0] if len(runs) == 1 else _joined(runs) for i, runs in found.items()}

    def _setting(self, activation: nn.Module | None) -> object:
        return None if activation is None else self._settings.get(activation)

    def _layer_hook(self, layer: int) -> Callable[..., None]:
        calls, fed_by = self.calls, self._fed_by.get(layer)

        def on_layer(module: nn.Module, args: tuple[Any, ...], returned: Any) -> None:
            if not torch.is_grad_enabled():  # an evaluation between two recorded steps
                return
            if fed_by is not None and calls:
                calls[-1].activation, calls[-1].a = fed_by, args[0]
            z = returned[0] if isinstance(returned, tuple) else returned
            call = Call(layer, z)
            if z.grad_fn is not None:
                # The node that made z is given dL/dz even if an in-place activation overwrites z later.
                # It holds on to the list alone: holding the call, and so z, would be a cycle and a leak.
                z.grad_fn.register_prehook(call.given.append)
            calls.append(call)

        return on_layer

    def _on_activation(self, module: nn.Module, args: object, a: Tensor) -> None:
        if self.calls and torch.is_grad_enabled():
            self.calls[-1].activation = module
            self.calls[-1].a = a.detach().clone() if self._overwritten else a


def _layer(number: int, path: str, module: nn.Module, of: int) -> Layer:
    own = list(module.parameters(recurse=False))
    return Layer(
        name=f"{number:0{max(2, len(str(of)))}d}_{type(module).__name__.lower()}",
        path=path,
        kind=type(module).__name__,
        shape=next(tuple(p.shape) for p in own if p.dim() >= 2),
        parameters=sum(p.numel() for p in own),
    )


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
        if once and before in index and after in index and is_activation(activation):
            found[index[after]] = activation
    return found


def _joined(runs: list[Signal]) -> Signal:
    """Several runs of one layer as one signal."""
    deltas = [run.delta for run in runs if run.delta is not None]
    alike = len({len(run.a) / run.times for run in runs}) == 1 and len(deltas) in (0, len(runs))
    return runs[-1]._replace(
        delta=torch.cat(deltas) if deltas else None,
        a=torch.cat([run.a for run in runs]),
        times=sum(run.times for run in runs) if alike else 1,
    )


def _units_last(signal: Tensor, module: nn.Module) -> Tensor:
    """(samples, U): units are the channels of a convolution and the last dimension of anything else.

    A module with `unit_has_place = True` has a unit for each channel and place.
    """
    if signal.dim() == 2:
        return signal
    if isinstance(module, nn.RNNBase) and module.batch_first:
        signal = signal.movedim(1, 0)  # the first time step of all samples first
    if isinstance(module, nn.modules.conv._ConvNd):
        signal = signal.movedim(1, -1)
    if getattr(module, "unit_has_place", False):  # no weight is shared: each place is a unit of its own
        signal = signal.flatten(1)
    return signal.reshape(-1, signal.shape[-1])
