"""The recorder: told by the loop what happens, it measures the steps that are due and passes them on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from dlexp.record.layers import Layer
from dlexp.record.probes import INDEX, QUANTITIES, Layout, Measurement, Probe
from dlexp.record.schedule import Schedule
from dlexp.record.sinks import Row, Sink

# Steps recorded one right after the other are brought to the host and written together.
MOST_PENDING = 16  # rows
LONGEST_PENDING = 0.25  # seconds


class Recorder:
    """Records every layer of `model` on the steps of a schedule (the loop's `Recorder` protocol).

    Numbers stay on the device until they are flushed, all with one transfer.
    """

    def __init__(self, model: nn.Module, due: Schedule, sinks: Sequence[Sink]) -> None:
        self.due = due
        self.latest_loss = 0.0
        self.first: Row | None = None
        self.last: Row | None = None
        self._probe = Probe(model)
        self._sinks = sinks
        self._measurement: Measurement | None = None
        self._pending: list[tuple[int, Measurement, Tensor]] = []
        self._since = 0.0

    @property
    def layers(self) -> list[Layer]:
        return self._probe.layers

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
            self._since = time.monotonic()
        self._pending.append((step, self._measurement, torch.cat(numbers)))
        self._measurement = None
        goes_on = stepped and self.due(step + 1)
        if not goes_on:
            self._probe.detach()
        waited = time.monotonic() - self._since
        if not goes_on or len(self._pending) >= MOST_PENDING or waited > LONGEST_PENDING:
            self.flush()

    def flush(self) -> None:
        """Bring what is pending to the host and write it."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        whole = torch.cat([numbers for _, _, numbers in pending]).cpu().double().numpy()
        rows: list[Row] = []
        # Steps of one layout, in most runs all of them, become tables together.
        for layout, group in groupby(pending, key=lambda item: item[1].layout):
            steps = [step for step, _, _ in group]
            part, whole = np.split(whole, [len(steps) * layout.numbers + 2 * len(steps)])
            part = part.reshape(len(steps), -1)
            rows += self._rows(steps, layout, part)
        self.first = self.first or rows[0]
        self.last = rows[-1]
        self.latest_loss = self.last.loss
        for sink in self._sinks:
            sink.rows(rows)

    def _rows(self, steps: list[int], layout: Layout, numbers: np.ndarray) -> list[Row]:
        tables = layout.tables(numbers[:, :-2])
        rows = []
        for step, table, (loss, accuracy) in zip(steps, tables, numbers[:, -2:].tolist(), strict=True):
            reasons: Mapping[tuple[int, int], str] = layout.reasons
            unscaled = np.flatnonzero(table[INDEX["weight_norm"]] == 0)
            if len(unscaled):
                ratio = INDEX["update_ratio"]
                reasons = {(ratio, int(i)): "the weights are all 0" for i in unscaled} | layout.reasons
            rows.append(Row(step, loss, accuracy, table, reasons))
        return rows

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of the whole network, after the rows recorded so far."""
        self.flush()
        for sink in self._sinks:
            sink.scalars(step, numbers)

    def close(self) -> None:
        """Write what is pending and leave the model as it was."""
        self._probe.detach()
        self.flush()


def first_bad_layer(row: Row) -> tuple[int, str] | None:
    """Where numbers stop being finite: the index of the layer and the quantity; None if nowhere.

    Forward first: a layer whose weights or activation are not finite spoils all that follow it.
    If forward is clean, backward: the last layer whose delta or gradient is not finite.
    """

    def bad(*names: str) -> list[tuple[int, str]]:
        table, gaps = row.table, row.reasons
        places = ((i, INDEX[name]) for i in range(table.shape[1]) for name in names)
        return [(i, QUANTITIES[q]) for i, q in places if not np.isfinite(table[q, i]) and (q, i) not in gaps]

    forward, backward = bad("weight_norm", "activation_rms"), bad("delta_rms", "grad_norm")
    return forward[0] if forward else backward[-1] if backward else None
