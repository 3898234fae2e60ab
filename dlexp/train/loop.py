"""The training loop, whole on one page: batch, forward, loss, backward, probe, clip, step, log."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from dlexp.train.step import Batch, LossFunction, Metric, Regularizer, backpropagate, undisturbed

NEVER = torch.iinfo(torch.int64).max


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
        """Between backward and clip: measure signals and gradients."""

    def updated(self, *, stepped: bool) -> None:
        """After the update, if there was one: measure it."""

    def log(self, step: int, numbers: Mapping[str, Tensor | float], scalars: Mapping[str, float]) -> None:
        """Keep what was measured, with numbers of the step and scalars of the whole network."""

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Keep scalars of the whole network after a step that is not recorded."""


class Ending(NamedTuple):
    """How training ended: "finished", "stopped_early" or "diverged", and at which step."""

    status: str
    step: int


def fit(  # noqa: C901 - one page, all phases in their order
    model: nn.Module,
    loss_function: LossFunction,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    steps: Iterable[int],
    *,
    recorder: Recorder,
    metrics: Mapping[str, Metric] | None = None,
    regularizer: Regularizer | None = None,
    clip: Callable[[], Tensor] | None = None,
    evaluate: Callable[[int], Mapping[str, float]] | None = None,
    evaluate_after: Collection[int] = (),
    adjust: Callable[[int, Mapping[str, float]], None] | None = None,
    enough: Callable[[], bool] | None = None,
    first_bad: Tensor | None = None,
) -> Ending:
    """Train.

    The loss is looked at on every step where that is free, on the CPU. On other devices looking
    would make the host wait, so there it is looked at when a recorded or evaluated step brings a
    number over anyway, and the device itself remembers which step was the first bad one.

    Args:
        steps: the step numbers, in order.
        recorder: told of every phase of the steps that are `due`.
        metrics: of the batch, kept with the loss of recorded steps.
        clip: tames the gradients in place and returns what they were multiplied by.
        evaluate: called after the update of each step in `evaluate_after`; returns scalars of the
            whole network, e.g. {"loss/validation": 0.3}.
        adjust: called after every update with those scalars, or none: sets the next learning rate.
        enough: asked after an evaluation; True ends the training early.
        first_bad: what `no_bad_step` made: the device's memory, of a run that may be interrupted.

    Returns:
        How it ended. A run that diverged did so at the first step whose loss was not finite. On the
        CPU that step's update is not made, so the weights are those that gave the bad loss.
    """
    device = next(model.parameters()).device
    looks_every_step = device.type == "cpu"
    first_bad = no_bad_step(device) if first_bad is None else first_bad
    step = 0

    for step in steps:
        batch = next(batches)
        due = recorder.due(step)
        if due:
            recorder.watch()
        elif looks_every_step:
            state = torch.get_rng_state()  # for a second look
        loss, outputs = backpropagate(model, loss_function, optimizer, batch, regularizer)
        if due:
            recorder.probe()

        if looks_every_step:
            if not math.isfinite(loss.item()):
                if not due:  # see it once more, so that the bad step is on record
                    with undisturbed(model):
                        torch.set_rng_state(state)
                        recorder.watch()
                        backpropagate(model, loss_function, optimizer, batch, regularizer)
                        recorder.probe()
                recorder.updated(stepped=False)
                recorder.log(step, _numbers(loss, outputs, batch, metrics), {})
                return Ending("diverged", step)
        else:
            torch.where(torch.isfinite(loss), first_bad, first_bad.clamp(max=step), out=first_bad)

        extra: dict[str, Tensor | float] = {"clip_factor": clip()} if clip else {}
        if adjust:
            extra["lr"] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        if due:
            recorder.updated(stepped=True)
        scalars = evaluate(step) if evaluate and step in evaluate_after else {}
        if due:
            recorder.log(step, _numbers(loss, outputs, batch, metrics) | extra, scalars)
        elif scalars:
            recorder.scalars(step, scalars)
        if adjust:
            adjust(step, scalars)
        if not looks_every_step:
            in_doubt = recorder.diverged or not all(map(math.isfinite, scalars.values()))
            if in_doubt and int(first_bad) != NEVER:
                return Ending("diverged", int(first_bad))
        if scalars and enough and enough():
            return Ending("stopped_early", step)
    bad = int(first_bad)
    return Ending("finished", step) if bad == NEVER else Ending("diverged", bad)


def no_bad_step(device: torch.device) -> Tensor:
    """(), int64: the first step whose loss was not finite, so far `NEVER`."""
    return torch.full((), NEVER, dtype=torch.int64, device=device)


def _numbers(
    loss: Tensor, outputs: Tensor, batch: Batch, metrics: Mapping[str, Metric] | None
) -> dict[str, Tensor | float]:
    """The loss and each metric of one batch, on the device."""
    return {"loss": loss, **{name: metric(outputs, batch[1]) for name, metric in (metrics or {}).items()}}
