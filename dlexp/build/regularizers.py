"""What holds weights back while they learn: each is a `Regularizer` of dlexp/train/step.py.

A weight is a matrix that learns; biases, and the scales of normalization layers, are left alone. Of a
weight that a parametrization makes, `weight_norm` say, what it is made of is held back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlexp import parameters


def weights(model: nn.Module) -> list[nn.Parameter]:
    """All weights that learn, each once."""
    found = dict.fromkeys(p for module in model.modules() for p in parameters.weights(module).values())
    return [p for p in found if p.requires_grad]


class _Base:
    """Adds nothing to the loss and changes nothing that forward sees; each kind below does one thing."""

    def penalty(self, model: nn.Module) -> Tensor | None:
        return None

    def perturbed(self, model: nn.Module) -> AbstractContextManager[None] | None:
        return None


class L2(_Base):
    """Adds strength / 2 * sum of w^2 to the loss, so strength * w to each gradient."""

    def __init__(self, strength: float, biases: bool = False) -> None:
        """Hold back the weights, and with `biases` every other parameter too, as `weight_decay` does."""
        self._strength, self._biases = strength, biases

    def penalty(self, model: nn.Module) -> Tensor | None:
        held = [p for p in model.parameters() if p.requires_grad] if self._biases else weights(model)
        return self._strength / 2 * torch.stack([w.square().sum() for w in held]).sum() if held else None


class L1(_Base):
    """Adds strength * sum of |w| to the loss, so strength * sign(w) to each gradient, 0 at w = 0."""

    def __init__(self, strength: float) -> None:
        self._strength = strength

    def penalty(self, model: nn.Module) -> Tensor | None:
        held = weights(model)
        return self._strength * torch.stack([w.abs().sum() for w in held]).sum() if held else None


class ProximalL1(_Base):
    """The same penalty without its gradient: after each step w moves by lr * strength to 0 and stays there.

    Soft threshold, sign(w) * max(|w| - lr * strength, 0); with plain gradient descent this is ISTA
    (Daubechies et al. 2004). Weights become exactly 0.
    """

    def __init__(self, strength: float) -> None:
        self._strength = strength

    @torch.no_grad()
    def after_step(self, model: nn.Module, optimizer: Optimizer) -> None:
        """After the update of `optimizer`, with the learning rate of that update."""
        rates = {w: group["lr"] for group in optimizer.param_groups for w in group["params"]}
        for w in weights(model):
            w.copy_(nn.functional.softshrink(w, rates[w] * self._strength))


class MaxNorm(_Base):
    """After each step the incoming weights of every unit are scaled down to norm `max_norm` if above.

    Srivastava et al. 2014, section 5.1. A unit is an index of the first dimension of a weight.
    """

    def __init__(self, max_norm: float) -> None:
        self._max_norm = max_norm

    @torch.no_grad()
    def after_step(self, model: nn.Module, optimizer: Optimizer) -> None:
        """After the update of `optimizer`."""
        for w in weights(model):
            w.renorm_(p=2, dim=0, maxnorm=self._max_norm)


class WeightNoise(_Base):
    """Forward and backward see w + sigma * N(0, 1), drawn anew for each batch; the update meets w itself."""

    def __init__(self, sigma: float) -> None:
        self._sigma = sigma

    def perturbed(self, model: nn.Module) -> AbstractContextManager[None]:
        return self._noise_on(weights(model))

    @contextmanager
    def _noise_on(self, held: list[nn.Parameter]) -> Iterator[None]:
        before = [w.detach().clone() for w in held]  # subtracting the noise would not restore every bit
        try:
            with torch.no_grad():
                for w in held:
                    w.add_(torch.randn_like(w), alpha=self._sigma)
            yield
        finally:
            with torch.no_grad():
                for w, quiet in zip(held, before, strict=True):
                    w.copy_(quiet)
