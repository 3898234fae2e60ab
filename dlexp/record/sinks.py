"""Where recorded numbers go: JSON lines and TensorBoard. Sinks take plain numbers, never tensors."""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np


class Row(NamedTuple):
    """One recorded step, on the host."""

    step: int
    loss: float
    accuracy: float
    table: np.ndarray  # (Q, L) float64; NaN and infinities as they came
    reasons: Mapping[tuple[int, int], str]  # (quantity, layer) -> why there is no number


class Sink(Protocol):
    """Somewhere numbers go."""

    def rows(self, rows: Sequence[Row]) -> None:
        """Recorded steps, in order."""

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of the whole network at a step, e.g. {"loss/validation": 0.3}."""

    def close(self) -> None:
        """Nothing more will come."""


def finite(x: float) -> float | None:
    """The number, or None where JSON has none."""
    return x if math.isfinite(x) else None


class RecordLines:
    """records.jsonl: a header, then a line for each recorded step, flushed as it is written.

    A number that is absent or not finite is null; `reasons` beside it says why, for each layer.
    """

    def __init__(self, path: Path, layers: Sequence[str], quantities: Sequence[str]) -> None:
        self._layers, self._quantities = list(layers), list(quantities)
        self._file = path.open("x", encoding="utf-8")
        self._file.write(json.dumps({"layers": self._layers, "quantities": self._quantities}) + "\n")
        self._file.flush()
        self._reasons_of_template: object = None

    def rows(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.reasons is not self._reasons_of_template:  # they stay the same for most of a run
                self._reasons_of_template = row.reasons
                self._places, self._template = self._make_template(row)
            numbers = row.table.take(self._places)
            if math.isfinite(row.loss) and np.isfinite(numbers).all():
                self._file.write(self._template % (row.step, row.loss, row.accuracy, *numbers.tolist()))
            else:
                self._file.write(self._with_reasons(row))
        self._file.flush()

    def _make_template(self, row: Row) -> tuple[np.ndarray, str]:
        present = _present(row)
        number = {True: "%.9g", False: "null"}  # 9 digits are a float32, whole
        parts = ['"step":%d', '"loss":%.9g', '"accuracy":%.9g']
        for name, mask in zip(self._quantities, present, strict=True):
            parts.append(f'"{name}":[' + ",".join(number[bool(p)] for p in mask) + "]")
        if row.reasons:
            parts.append('"reasons":' + json.dumps(self._reasons(row.reasons)).replace("%", "%%"))
        return np.flatnonzero(present), "{" + ",".join(parts) + "}\n"

    def _with_reasons(self, row: Row) -> str:
        """A line with numbers that are not finite."""
        reasons = dict(row.reasons)
        for q, i in np.argwhere(~np.isfinite(row.table)).tolist():
            reasons.setdefault((q, i), what(row.table[q, i]))
        line: dict[str, Any] = {
            "step": row.step,
            "loss": finite(row.loss),
            "accuracy": finite(row.accuracy),
        }
        for q, name in enumerate(self._quantities):
            line[name] = [None if (q, i) in reasons else x for i, x in enumerate(row.table[q].tolist())]
        line["reasons"] = self._reasons(reasons)
        line["reasons"] |= {
            k: what(v) for k in ("loss", "accuracy") if not math.isfinite(v := getattr(row, k))
        }
        return json.dumps(line, allow_nan=False) + "\n"

    def _reasons(self, reasons: Mapping[tuple[int, int], str]) -> dict[str, Any]:
        """For each quantity with gaps: a reason for each layer, null where there is a number."""
        named: dict[str, Any] = {}
        for (q, i), why in sorted(reasons.items()):
            named.setdefault(self._quantities[q], [None] * len(self._layers))[i] = why
        return named

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Kept in metrics.jsonl."""

    def close(self) -> None:
        self._file.close()


def _present(row: Row) -> np.ndarray:
    """Which places of the table have a number: (Q, L) bool."""
    present = np.full(row.table.shape, True)
    for place in row.reasons:
        present[place] = False
    return present


def what(x: float) -> str:
    """What a number is that is not finite."""
    return "nan" if math.isnan(x) else "inf" if x > 0 else "-inf"


class MetricLines:
    """metrics.jsonl: a line for each time the whole network was evaluated."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("x", encoding="utf-8")

    def rows(self, rows: Sequence[Row]) -> None:
        """Kept in records.jsonl."""

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        line = {"step": step} | {tag: finite(x) for tag, x in numbers.items()}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """One event file: every number of a step in one event, config as text, hyperparameters with results.

    Events are put together with TensorBoard's own protocol buffers. Its writer is not used, because it
    computes the checksum of each event in Python, which takes longer than a step of a small network,
    and writes from a thread of its own, which takes the interpreter away from training.
    """

    def __init__(self, folder: Path, layers: Sequence[str], quantities: Sequence[str]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._event = Event
        self._reasons_of_template: object = None
        self._tags = [f"{quantity}/{layer}" for quantity in quantities for layer in layers]
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.0"
        self._file = (folder / name).open("xb")
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def _write(self, event: Any) -> None:
        """A TFRecord: length, checksum of the length, data, checksum of the data."""
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        self._file.write(length + _masked_checksum(length) + data + _masked_checksum(data))

    def rows(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.reasons is not self._reasons_of_template:
                self._reasons_of_template = row.reasons
                self._make_template(row)
            self._template.step = row.step
            self._template.wall_time = time.time()
            numbers = (row.loss, row.accuracy, *row.table.take(self._places).tolist())
            for value, x in zip(self._values, numbers, strict=True):
                value.simple_value = x
            self._write(self._template)
        self._file.flush()

    def _make_template(self, row: Row) -> None:
        """An event with a value for each number that a row like this one has."""
        self._places = np.flatnonzero(_present(row))
        tags = ["loss/train", "accuracy/train", *(self._tags[place] for place in self._places)]
        self._template = self._event()
        self._values = [self._template.summary.value.add(tag=tag) for tag in tags]

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        event = self._event(wall_time=time.time(), step=step)
        for tag, x in numbers.items():
            event.summary.value.add(tag=tag, simple_value=x)
        self._write(event)
        self._file.flush()

    def text(self, tag: str, markdown: str) -> None:
        """A page of Markdown under the Text tab."""
        event = self._event(wall_time=time.time())
        value = event.summary.value.add(tag=tag)
        value.metadata.plugin_data.plugin_name = "text"
        value.tensor.dtype = 7  # DT_STRING
        value.tensor.string_val.append(markdown.encode())
        value.tensor.tensor_shape.dim.add(size=1)
        self._write(event)
        self._file.flush()

    def hyperparameters(self, values: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """The HParams tab: this run's choices beside the last values of the scalars named in `metrics`."""
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
        from tensorboard.plugins.hparams.summary_v2 import HParam, Metric, hparams_config_pb, hparams_pb

        plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items()}
        parts = [
            hparams_config_pb([HParam(key) for key in plain], [Metric(tag) for tag in metrics]),
            hparams_pb(plain),
        ]
        for part in parts:
            self._write(self._event(wall_time=time.time(), summary=part))
        ended = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
        event = self._event(wall_time=time.time())
        value = event.summary.value.add(tag=metadata.SESSION_END_INFO_TAG, tensor=metadata.NULL_TENSOR)
        value.metadata.CopyFrom(
            metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=ended))
        )
        self._write(event)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _masked_checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted as the TFRecord format asks."""
    import google_crc32c

    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
