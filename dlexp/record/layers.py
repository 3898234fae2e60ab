"""Which modules are layers, and what passes through them in a step that is watched.

A layer is a module that owns a weight matrix; its z is what the module returns, before any
normalization or activation; its activation is what the last activation module between it and the
next layer returns. Normalization layers own vectors, not matrices, and are not layers here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS = tuple(
    kind
    for name in nn.modules.activation.__all__
    if (kind := getattr(nn, name)) is not nn.MultiheadAttention
) + (nn.Identity,)


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

    __slots__ = ("a", "activation", "given", "layer", "z")

    def __init__(self, layer: int, z: Tensor) -> None:
        self.layer = layer  # its index
        self.z = z  # what it returned
        self.given: list[tuple[Tensor | None, ...]] = []  # what backward gave the node that made z
        self.activation: nn.Module | None = None  # the last one before the next layer, if any
        self.a = z  # what that returned

    @property
    def delta(self) -> Tensor | None:
        """dL/dz, after backward; None where no gradient came."""
        return self.given[-1][self.z.output_nr] if self.given else None


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
        # what tells activations apart, e.g. (nn.ELU, "alpha=1.0")
        self.settings: dict[nn.Module | None, object] = {None: None} | {m: (type(m), m.extra_repr()) for m in model.modules() if isinstance(m, ACTIVATIONS)}
        self._handles: list[Any] = []

    @property
    def attached(self) -> bool:
        return bool(self._handles)

    def attach(self) -> None:
        """Listen to the forward passes that come next."""
        for i, module in enumerate(self.modules):
            self._handles.append(module.register_forward_hook(partial(self._on_layer, i)))
        for module in filter(None, self.settings):
            self._handles.append(module.register_forward_hook(self._on_activation))

    def detach(self) -> None:
        """Stop listening; the model is as it was before `attach`."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.calls.clear()

    def signals(self) -> dict[int, tuple[Tensor | None, Tensor, nn.Module | None]]:
        """For each layer that ran: delta and activation, both (samples, U), and the activation module.

        Delta is None where no gradient came. A layer that ran twice has the samples of both runs.
        """
        found: dict[int, tuple[Tensor | None, Tensor, nn.Module | None]] = {}
        for call in self.calls:
            module, delta = self.modules[call.layer], call.delta
            delta = None if delta is None else _units_last(delta, module)
            a = _units_last(call.a, module)
            if call.layer in found:
                earlier, a_earlier, _ = found[call.layer]
                a = torch.cat([a_earlier, a])
                if earlier is not None:
                    delta = earlier if delta is None else torch.cat([earlier, delta])
            found[call.layer] = (delta, a, call.activation)
        return found

    def _on_layer(self, layer: int, module: nn.Module, args: object, returned: Any) -> None:
        call = Call(layer, returned[0] if isinstance(returned, tuple) else returned)
        if call.z.grad_fn is not None:
            # The node that made z is given dL/dz even if an in-place activation overwrites z later.
            # It holds on to the list alone: holding the call, and so z, would be a cycle and a leak.
            call.z.grad_fn.register_prehook(call.given.append)
        self.calls.append(call)

    def _on_activation(self, module: nn.Module, args: object, a: Tensor) -> None:
        if self.calls:
            self.calls[-1].activation = module
            self.calls[-1].a = a


def _layer(number: int, path: str, module: nn.Module, of: int) -> Layer:
    own = list(module.parameters(recurse=False))
    return Layer(
        name=f"{number:0{max(2, len(str(of)))}d}_{type(module).__name__.lower()}",
        path=path,
        kind=type(module).__name__,
        shape=next(tuple(p.shape) for p in own if p.dim() >= 2),
        parameters=sum(p.numel() for p in own),
    )


def _units_last(signal: Tensor, module: nn.Module) -> Tensor:
    """(samples, U): units are the channels of a convolution and the last dimension of anything else."""
    if signal.dim() == 2:
        return signal
    if isinstance(module, nn.modules.conv._ConvNd):
        signal = signal.movedim(1, -1)
    return signal.reshape(-1, signal.shape[-1])
