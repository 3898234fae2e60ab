"""How well the network does: while it trains, and with the weights that are left at the end."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from dlexp.train.step import LossFunction, Metric, evaluate, evaluating
from dlexp.train.stopping import EarlyStopping

MOST_EVALUATIONS = 50  # per run: enough for a curve, and a small part of the time
PASSES = 5  # over the samples whose prediction is timed
LONGEST_PASSES = 0.1  # seconds, after which no further pass begins


class Samples(Protocol):
    """A split of a data set."""

    @property
    def inputs(self) -> Tensor: ...

    @property
    def targets(self) -> Tensor: ...


class Evaluation:
    """Judges a network whenever it is asked, and makes sure that the end has the weights it should."""

    def __init__(
        self,
        model: nn.Module,
        loss_function: LossFunction,
        metrics: Mapping[str, Metric],
        held_out: Mapping[str, Samples],
        test: Samples,
        *,
        last_step: int,
        stopping: EarlyStopping | None = None,
    ) -> None:
        """Judge by the splits `held_out`; after `last_step`, or when `stopping` has enough, by `test` too."""
        self._model, self._loss_function, self._metrics = model, loss_function, metrics
        self._held_out, self._test = held_out, {"test": test}
        self._last_step, self._stopping = last_step, stopping
        self.stopped_early = False
        self.restored_step: int | None = None  # of earlier weights that were put back at the end
        self.metrics: dict[str, float] = {}  # the latest; at the end those of the weights that are left

    def __call__(self, step: int) -> dict[str, float]:
        """The scalars of a step, e.g. {"loss/validation": 0.3}; they are of its weights, never of others."""
        scalars, last = self.scores(self._held_out), step >= self._last_step
        self.metrics = scalars
        if self._stopping:
            self.stopped_early = self._stopping.see(step, scalars, self._model) and not last
        if self.stopped_early or last:
            if self._stopping and self._stopping.restore(self._model) and self._stopping.best_step != step:
                self.metrics, self.restored_step = self.scores(self._held_out), self._stopping.best_step
            test = self.scores(self._test)
            self.metrics = self.metrics | test
            if self.restored_step is None:  # otherwise they are not of this step
                scalars = scalars | test
        return scalars

    def state_dict(self) -> dict[str, float]:
        """The latest scalars."""
        return dict(self.metrics)

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.metrics = dict(state)

    def scores(self, splits: Mapping[str, Samples]) -> dict[str, float]:
        """The loss and each metric of whole splits, e.g. {"loss/test": 0.3}."""
        found: dict[str, float] = {}
        for name, split in splits.items():
            numbers = evaluate(self._model, self._loss_function, self._metrics, split.inputs, split.targets)
            found |= {f"{quantity}/{name}": x for quantity, x in numbers.items()}
        return found


def evaluation_steps(steps: int, steps_per_epoch: int, *, every_epoch: bool) -> frozenset[int]:
    """The steps after which a run is evaluated: the last one, and ends of epochs, some if there are many."""
    epochs = steps // steps_per_epoch
    thin = 1 if every_epoch else -(-epochs // MOST_EVALUATIONS) or 1
    ends = (steps_per_epoch * epoch - 1 for epoch in range(thin, epochs + 1, thin))
    return frozenset([*ends, steps - 1])


@torch.no_grad()
def prediction_seconds(model: nn.Module, inputs: Tensor, batch_size: int = 1024) -> float:
    """Per sample, from inputs on the device to answers on the host: the median of a few passes over all."""
    passes: list[float] = []
    with evaluating(model):
        while len(passes) < PASSES and sum(passes) < LONGEST_PASSES:
            start = time.perf_counter()
            for x in inputs.split(batch_size):
                model(x).cpu()
            passes.append(time.perf_counter() - start)
    return statistics.median(passes) / len(inputs)
