"""The recorder: told by the loop what happens, it measures the steps that are due and passes them on."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dlexp.record.histograms import Histogram
from dlexp.record.layers import Layer, Listener
from dlexp.record.probes import INDEX, Layout, Measurement, Probe
from dlexp.record.schedule import Schedule
from dlexp.record.sinks import Row, Sink

# Rows that come fast are brought to the host and written together.
MOST_PENDING = 64  # rows
LONGEST_PENDING = 0.25  # seconds

ALL_ZERO = "the weights are all 0"


class _Pending(NamedTuple):
    """A recorded step whose numbers are still on the device."""

    step: int
    measurement: Measurement
    on_device: Mapping[str, Tensor]
    on_host: Mapping[str, float]
    scalars: Mapping[str, float]

    def kind(self) -> tuple[Layout, tuple[str, ...]]:
        """Equal for steps whose numbers stand in the same order."""
        return self.measurement.layout, tuple(self.on_device)

    def values(self) -> list[Tensor]:
        """Those that the layout places, then those that have names."""
        assert self.measurement.numbers is not None
        return [self.measurement.numbers, *(x.reshape(1) for x in self.on_device.values())]


class Recorder:
    """Records every layer of `model` on the steps of a schedule (the loop's `Recorder` protocol).

    Numbers stay on the device until they are flushed, all with one transfer.
    """

    def __init__(
        self,
        model: nn.Module,
        due: Schedule,
        sinks: Sequence[Sink],
        order: Sequence[str] = (),
        *,
        spread: bool = False,
        heard: Listener | None = None,
    ) -> None:
        """Record the layers of a model.

        Args:
            order: paths of modules, in which layers are numbered; those it does not name come last.
            spread: measure histograms, too.
            heard: has listened to the forward pass of the first step already.
        """
        self._due = due
        self.first: Row | None = None
        self.last: Row | None = None
        self._probe = Probe(model, order, spread=spread, heard=heard)
        self._sinks = sinks
        self._measurement: Measurement | None = None
        self._pending: list[_Pending] = []
        self._deadline = math.inf
        # Away from the CPU bringing numbers over makes the host wait: only on steps that are due.
        self._may_flush_any_time = all(p.device.type == "cpu" for p in model.parameters())

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

    def probe(self, scale: float = 1.0) -> None:
        """Between backward and the update; `scale` is what the loss was multiplied by in backward."""
        self._measurement = self._probe.read(scale)

    def rest(self) -> None:
        """Leave the model alone until the next `watch`."""
        self._probe.detach()

    def missing(self, quantity: str) -> list[str | None]:
        """Why a layer has no such number in the step that has just been measured; None: it has one."""
        reasons = self._measurement.layout.reasons if self._measurement else {}
        return [reasons.get((INDEX[quantity], i)) for i in range(len(self.layers))]

    def updated(self, *, stepped: bool) -> None:
        """After the update; with `stepped` False there was none."""
        assert self._measurement is not None
        self._probe.read_update(self._measurement, stepped=stepped)

    def changed(self) -> bool:
        """Did the update that has just been measured change any weight? The host waits for the answer."""
        assert self._measurement is not None
        self._probe.finish()
        assert self._measurement.numbers is not None
        return bool(self._measurement.numbers[self._measurement.layout.places("update_ratio")].any())

    def log(self, step: int, numbers: Mapping[str, Tensor | float], scalars: Mapping[str, float]) -> None:
        """Keep what was measured.

        Args:
            numbers: of this step, e.g. {"loss": ...}: scalars on the device, or plain numbers.
            scalars: of the whole network after this step, e.g. {"loss/validation": 0.3}.
        """
        assert self._measurement is not None
        on_device = {name: x for name, x in numbers.items() if isinstance(x, Tensor)}
        on_host = {name: x for name, x in numbers.items() if not isinstance(x, Tensor)}
        if not self._pending:
            self._deadline = time.monotonic() + LONGEST_PENDING
        self._pending.append(_Pending(step, self._measurement, on_device, on_host, scalars))
        self._measurement = None
        goes_on = self._due(step + 1)
        if not goes_on:
            self._probe.detach()
        waits = goes_on or self._may_flush_any_time
        if not waits or len(self._pending) >= MOST_PENDING or self._deadline < time.monotonic():
            self.flush()

    @property
    def diverged(self) -> bool:
        """Was the loss of a recorded step not finite, as far as it is on the host?"""
        return self.last is not None and not math.isfinite(self.last.numbers["loss"])

    def flush(self) -> None:
        """Bring what is pending to the host and write it."""
        if not self._pending:
            return
        pending, self._pending, self._deadline = self._pending, [], math.inf
        if self.diverged:
            return  # away from the CPU training goes on for a while after the bad step
        self._probe.finish()
        whole = torch.cat([t for item in pending for t in item.values()]).cpu().double().numpy()
        rows: list[Row] = []
        # Steps of one layout, in most runs all of them, become tables together.
        for (layout, names), group in groupby(pending, key=_Pending.kind):
            items = list(group)
            part, whole = np.split(whole, [len(items) * (layout.numbers + len(names))])
            rows += self._rows(items, layout, names, part.reshape(len(items), -1))
        for n, row in enumerate(rows, start=1):
            if not math.isfinite(row.numbers["loss"]):
                rows = rows[:n]
                break
        self.first = self.first or rows[0]
        self.last = rows[-1]
        for sink in self._sinks:
            sink.rows(rows)

    def _rows(
        self, items: list[_Pending], layout: Layout, names: tuple[str, ...], values: np.ndarray
    ) -> list[Row]:
        tables, over_time = layout.tables(values[:, : layout.numbers])
        reasons: list[Mapping[tuple[int, int], str]] = [layout.reasons] * len(items)
        weights = tables[:, INDEX["weight_norm"]]
        for t in np.flatnonzero((weights == 0).any(axis=1)):
            unscaled = {(INDEX["update_ratio"], int(i)): ALL_ZERO for i in np.flatnonzero(weights[t] == 0)}
            reasons[t] = unscaled | layout.reasons
        rows = []
        for n, item in enumerate(items):
            numbers = dict(zip(names, values[n, layout.numbers :].tolist(), strict=True))
            series = {key: found[n] for key, found in over_time.items()}
            row = Row(item.step, numbers | {**item.on_host}, tables[n], reasons[n], item.scalars, series)
            spread = item.measurement.histograms
            rows.append(row._replace(histograms=_on_host(spread)) if spread else row)
        return rows

    def state_dict(self) -> dict[str, Any]:
        """The first and the last row so far; what is pending is to be flushed before."""
        return {"first": self.first and self.first.as_plain(), "last": self.last and self.last.as_plain()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first, self.last = (state[end] and Row.from_plain(state[end]) for end in ("first", "last"))

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of the whole network after a step that is not recorded."""
        self.flush()
        for sink in self._sinks:
            sink.scalars(step, numbers)

    def close(self) -> None:
        """Write what is pending and leave the model as it was."""
        self._probe.detach()
        self.flush()


def _on_host(found: Mapping[tuple[str, int], Tensor]) -> dict[tuple[str, int], Histogram]:
    whole = torch.stack([*found.values()]).cpu().numpy()
    return {place: Histogram.read(raw) for place, raw in zip(found, whole, strict=True)}
