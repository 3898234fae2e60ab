"""The recorder: told by the loop what happens, it measures the steps that are due and passes them on."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from dlexp.record.layers import Layer
from dlexp.record.probes import INDEX, Layout, Measurement, Probe
from dlexp.record.schedule import Schedule
from dlexp.record.sinks import Row, Sink

# Rows that come fast are brought to the host and written together.
MOST_PENDING = 16  # rows
LONGEST_PENDING = 0.25  # seconds

ALL_ZERO = "the weights are all 0"


class Recorder:
    """Records every layer of `model` on the steps of a schedule (the loop's `Recorder` protocol).

    Numbers stay on the device until they are flushed, all with one transfer.
    """

    def __init__(self, model: nn.Module, due: Schedule, sinks: Sequence[Sink]) -> None:
        self._due = due
        self.latest_loss = 0.0
        self.first: Row | None = None
        self.last: Row | None = None
        self._probe = Probe(model)
        self._sinks = sinks
        self._measurement: Measurement | None = None
        self._pending: list[tuple[int, Measurement, Tensor]] = []
        self._deadline = math.inf
        # Away from the CPU bringing numbers over makes the host wait: only on steps that are due.
        self._may_flush_any_time = next(model.parameters()).device.type == "cpu"

    @property
    def layers(self) -> list[Layer]:
        return self._probe.layers

    def due(self, step: int) -> bool:
        """Is this step to be recorded?"""
        if self._deadline < time.monotonic() and self._may_flush_any_time:
            self.flush()
        return self._due(step)

    def watch(self) -> None:
        """Before forward."""
        self._probe.attach()

    def probe(self) -> None:
        """Between backward and the update."""
        self._measurement = self._probe.read()

    def log(self, step: int, *, stepped: bool, loss: Tensor, accuracy: Tensor) -> None:
        """After the update; with `stepped` False there was none."""
        assert self._measurement is not None
        self._probe.read_update(self._measurement, stepped=stepped)
        numbers = [*self._measurement.numbers, loss.reshape(1), accuracy.reshape(1)]
        if not self._pending:
            self._deadline = time.monotonic() + LONGEST_PENDING
        self._pending.append((step, self._measurement, torch.cat(numbers)))
        self._measurement = None
        goes_on = stepped and self._due(step + 1)
        if not goes_on:
            self._probe.detach()
        waits = goes_on or self._may_flush_any_time
        if not waits or len(self._pending) >= MOST_PENDING or self._deadline < time.monotonic():
            self.flush()

    def flush(self) -> None:
        """Bring what is pending to the host and write it."""
        if not self._pending:
            return
        pending, self._pending, self._deadline = self._pending, [], math.inf
        whole = torch.cat([numbers for _, _, numbers in pending]).cpu().double().numpy()
        rows: list[Row] = []
        # Steps of one layout, in most runs all of them, become tables together.
        for layout, group in groupby(pending, key=lambda item: item[1].layout):
            steps = [step for step, _, _ in group]
            part, whole = np.split(whole, [len(steps) * layout.numbers + 2 * len(steps)])
            part = part.reshape(len(steps), -1)
            rows += self._rows(steps, layout, part)
        if not math.isfinite(self.latest_loss):
            return  # away from the CPU training goes on for a while after the bad step
        for n, row in enumerate(rows, start=1):
            if not math.isfinite(row.loss):
                rows = rows[:n]
                break
        self.first = self.first or rows[0]
        self.last = rows[-1]
        self.latest_loss = self.last.loss
        for sink in self._sinks:
            sink.rows(rows)

    def _rows(self, steps: list[int], layout: Layout, numbers: np.ndarray) -> list[Row]:
        tables = layout.tables(numbers[:, :-2])
        reasons: list[Mapping[tuple[int, int], str]] = [layout.reasons] * len(steps)
        weights = tables[:, INDEX["weight_norm"]]
        for t in np.flatnonzero((weights == 0).any(axis=1)):
            unscaled = {(INDEX["update_ratio"], int(i)): ALL_ZERO for i in np.flatnonzero(weights[t] == 0)}
            reasons[t] = unscaled | layout.reasons
        columns = zip(steps, *numbers[:, -2:].T.tolist(), tables, reasons, strict=True)
        return [Row(*column) for column in columns]

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of the whole network, after the rows recorded so far."""
        self.flush()
        for sink in self._sinks:
            sink.scalars(step, numbers)

    def close(self) -> None:
        """Write what is pending and leave the model as it was."""
        self._probe.detach()
        self.flush()
