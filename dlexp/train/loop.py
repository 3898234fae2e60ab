"""The training loop, whole on one page: batch, forward, loss, backward, probe, step, log."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from dlexp.train.step import Batch, LossFunction, accuracy, backpropagate, undisturbed


class Recorder(Protocol):
    """Who watches. Watching never changes the run."""

    @property
    def diverged(self) -> bool:
        """Was the loss of a recorded step not finite, as far as it is on the host?"""

    def due(self, step: int) -> bool:
        """Is this step to be recorded?"""

    def watch(self) -> None:
        """Before forward: be ready to see what passes through the layers."""

    def probe(self) -> None:
        """Between backward and the update: measure signals and gradients."""

    def log(
        self, step: int, *, stepped: bool, loss: Tensor, accuracy: Tensor, scalars: Mapping[str, float] = ...
    ) -> None:
        """After the update, if there was one: measure it and keep the numbers."""

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Keep numbers of the whole network after a step that is not recorded."""


def fit(
    model: nn.Module,
    loss_function: LossFunction,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    steps: Iterable[int],
    *,
    recorder: Recorder,
    evaluate: Callable[[int], Mapping[str, float]] | None = None,
    evaluate_after: Collection[int] = (),
) -> int | None:
    """Train.

    The loss is looked at on every step where that is free, on the CPU. On other devices looking
    would make the host wait, so there it is looked at when a recorded or evaluated step brings a
    number over anyway, and the device itself remembers which step was the first bad one.

    Args:
        steps: the step numbers, in order.
        recorder: told of every phase of the steps that are `due`.
        evaluate: called after the update of each step in `evaluate_after`; returns numbers of the
            whole network, e.g. {"loss/validation": 0.3}.

    Returns:
        The first step whose loss was not finite, or None. On the CPU that step's update is not
        made, so the weights are those that gave the bad loss.
    """
    device = next(model.parameters()).device
    looks_every_step = device.type == "cpu"
    never = torch.iinfo(torch.int64).max
    first_bad = torch.full((), never, dtype=torch.int64, device=device)

    for step in steps:
        batch = next(batches)
        due = recorder.due(step)
        if due:
            recorder.watch()
        loss, outputs = backpropagate(model, loss_function, optimizer, batch)
        if due:
            recorder.probe()

        if looks_every_step:
            if not math.isfinite(loss.item()):
                if not due:  # see it once more, so that the bad step is on record
                    with undisturbed(model):
                        recorder.watch()
                        backpropagate(model, loss_function, optimizer, batch)
                        recorder.probe()
                recorder.log(step, stepped=False, loss=loss, accuracy=accuracy(outputs, batch[1]))
                return step
        else:
            first_bad = torch.where(torch.isfinite(loss), first_bad, first_bad.clamp(max=step))

        optimizer.step()
        numbers = evaluate(step) if evaluate and step in evaluate_after else {}
        if due:
            correct = accuracy(outputs, batch[1])
            recorder.log(step, stepped=True, loss=loss, accuracy=correct, scalars=numbers)
        elif numbers:
            recorder.scalars(step, numbers)
        in_doubt = recorder.diverged or not all(map(math.isfinite, numbers.values()))
        if in_doubt and not looks_every_step and int(first_bad) != never:
            return int(first_bad)
    bad = int(first_bad)
    return None if bad == never else bad
