"""Is backpropagation right? Its gradients against central differences of the loss.

(L(w + h) - L(w - h)) / 2h for some entries of each layer, in float64 and evaluation mode, so that dropout
is off and batch normalization uses its running statistics.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlexp.train.step import Batch, LossFunction

GREAT, WRONG = 1e-7, 1e-3  # A. Ng's rule: look more closely at what lies between


@dataclass(frozen=True)
class Entry:
    """One entry of one parameter, and the slope of the loss there."""

    parameter: int  # which of the layer's
    index: tuple[int, ...]
    analytic: float  # by backpropagation
    left: float  # (L(w) - L(w - h)) / h
    right: float  # (L(w + h) - L(w)) / h

    @property
    def numeric(self) -> float:
        return (self.left + self.right) / 2

    @property
    def error(self) -> float:
        return abs(self.numeric - self.analytic)

    @property
    def kink(self) -> bool:
        """Does the slope jump here, as that of a ReLU at 0? Then there is no derivative to compare with."""
        return abs(self.right - self.left) > self.error


@dataclass(frozen=True)
class Check:
    """What was found for one layer."""

    name: str
    difference: float  # ||numeric - analytic|| / (||numeric|| + ||analytic||) over its chosen entries
    without_kinks: float  # the same over those of them that do not lie at a kink
    rounding: float  # how large rounding alone may make it: large where gradients are tiny
    entries: int  # so many were chosen
    kinks: int  # so many of them differ and lie at a kink
    worst: Entry

    @property
    def verdict(self) -> str:
        """One of great, look, wrong; or kink, rounding: a difference that is no fault of backward."""
        good = max(GREAT, self.rounding)
        if self.difference <= good:
            return "great" if self.difference <= GREAT else "rounding"
        if self.without_kinks <= good:
            return "kink"
        return "wrong" if self.without_kinks >= WRONG else "look"


def gradient_check(
    model: nn.Module,
    loss_function: LossFunction,
    batch: Batch,
    layers: Iterable[tuple[str, Sequence[nn.Parameter]]],
    *,
    generator: torch.Generator,
    entries: int = 20,
    h: float = 1e-5,
) -> list[Check]:
    """Compare backpropagation with central differences, on a copy: `model` and random state stay as they are.

    Args:
        layers: the name and the parameters of each; parameters that are frozen are left out, and
            layers that have no others.
        generator: chooses the entries, on the CPU.
        entries: how many of each layer, or all if it has fewer.
        h: how far each weight is moved to either side.
    """
    twin = _double(model).eval()
    loss = _double(loss_function) if isinstance(loss_function, nn.Module) else loss_function
    inputs, targets = (x.double() if x.is_floating_point() else x for x in (y.detach().cpu() for y in batch))
    twins = dict(zip(model.parameters(), twin.parameters(), strict=True))

    def total() -> Tensor:
        with torch.random.fork_rng(devices=[]):  # a network that draws noise draws the same each time
            found: Tensor = loss(twin(inputs), targets)
        return found

    with torch.enable_grad():
        before = total()
    gradients = _gradients(before, [p for p in twin.parameters() if p.requires_grad])
    noise = 4 * torch.finfo(torch.float64).eps * abs(before.item()) / h  # of one slope
    checks = []
    for name, parameters in layers:
        own = [twins[p] for p in parameters if p.requires_grad]
        if own:
            places = _choose(own, entries, generator)
            found = [_entry(own[i], gradients[own[i]], (i, at), total, before.item(), h) for i, at in places]
            checks.append(_check(name, found, noise))
    return checks


def _double(module: nn.Module) -> nn.Module:
    """A copy on the CPU, in float64."""
    return copy.deepcopy(module).cpu().double()


def _gradients(loss: Tensor, parameters: list[nn.Parameter]) -> dict[nn.Parameter, Tensor]:
    """By backpropagation; zeros where the loss has no way back to a parameter."""
    found: Sequence[Tensor | None] = [None] * len(parameters)
    if loss.requires_grad and parameters:
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {p: torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)}


def _choose(
    parameters: list[nn.Parameter], entries: int, generator: torch.Generator
) -> list[tuple[int, tuple[int, ...]]]:
    """Which parameter and the index in it, each entry of all parameters as likely as any other."""
    places = []
    for number in torch.randperm(sum(p.numel() for p in parameters), generator=generator)[:entries]:
        which, rest = 0, number
        while rest >= parameters[which].numel():
            rest = rest - parameters[which].numel()
            which += 1
        index = torch.unravel_index(rest, parameters[which].shape)
        places.append((which, tuple(int(i) for i in index)))
    return places


@torch.no_grad()
def _entry(
    weight: nn.Parameter,
    gradient: Tensor,
    place: tuple[int, tuple[int, ...]],
    total: Callable[[], Tensor],
    loss: float,
    h: float,
) -> Entry:
    """Move one entry of `weight` to either side and back."""
    index = place[1]
    middle = weight[index].item()
    weight[index] = middle + h
    above = total().item()
    weight[index] = middle - h
    below = total().item()
    weight[index] = middle
    return Entry(*place, gradient[index].item(), (loss - below) / h, (above - loss) / h)


def _check(name: str, found: list[Entry], noise: float) -> Check:
    """The numbers of a layer; `noise` is what rounding does to one slope."""
    size = math.hypot(*(e.numeric for e in found)) + math.hypot(*(e.analytic for e in found))
    at_kinks = [e for e in found if e.kink and e.error > max(GREAT * size, noise)]
    return Check(
        name=name,
        difference=_difference(found),
        without_kinks=_difference([e for e in found if e not in at_kinks]),
        rounding=noise * math.sqrt(len(found)) / size if size else 0.0,
        entries=len(found),
        kinks=len(at_kinks),
        worst=max(found, key=lambda e: e.error),
    )


def _difference(found: list[Entry]) -> float:
    size = math.hypot(*(e.numeric for e in found)) + math.hypot(*(e.analytic for e in found))
    return math.hypot(*(e.error for e in found)) / size if size else 0.0
