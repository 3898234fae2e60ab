"""The event file that TensorBoard reads."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from dlexp.folder import EVENTS
from dlexp.record.histograms import Histogram
from dlexp.record.sinks import Appended, Row

# What a chart of all layers shows beside them: a rule of thumb that is neither too small nor too large.
GUIDES = {"update_ratio": 1e-3}
ALONE = ("clip_factor", "lr")  # numbers of a step that no split has another one of


class TensorBoard(Appended):
    """One event file: every number of a step in one event, config as text, hyperparameters with results.

    Events are put together with TensorBoard's own protocol buffers. Its writer is not used, because it
    computes the checksum of each event in Python, which takes longer than a step of a small network,
    and writes from a thread of its own, which takes the interpreter away from training.
    """

    def __init__(
        self,
        folder: Path,
        layers: Sequence[str],
        quantities: Sequence[str],
        goes_on: tuple[str, int] | None = None,
    ) -> None:
        """A new event file; or the one of that name, from that length on."""
        from tensorboard.compat.proto.event_pb2 import Event

        self._event = Event
        self._layers = list(layers)
        self._kind: tuple[object, list[str]] | None = None
        self._tags = [f"{quantity}/{layer}" for quantity in quantities for layer in layers]
        self._guides = {f"{quantity}/guide": x for quantity, x in GUIDES.items() if quantity in quantities}
        new = f"{EVENTS}{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.0"
        name, length = goes_on or (new, None)
        super().__init__(folder / name, length)
        if length is None:
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            self._layout(quantities)

    @classmethod
    def of(cls, folder: Path) -> TensorBoard | None:
        """The event file of a run that has ended, to write more behind it; None if there is none."""
        file = next(folder.glob(f"{EVENTS}*"), None)
        return cls(folder, [], [], (file.name, file.stat().st_size)) if file else None

    def _write(self, data: bytes) -> None:
        """A TFRecord: length, checksum of the length, data, checksum of the data."""
        length = struct.pack("<Q", len(data))
        self._file.write(length + _masked_checksum(length) + data + _masked_checksum(data))

    def rows(self, rows: Sequence[Row]) -> None:
        # Most rows are like the one before: they have numbers of the same names at the same places.
        for _, group in groupby(rows, key=lambda row: (id(row.reasons), *row.numbers)):
            self._alike(list(group))
        self._file.flush()

    def _alike(self, rows: list[Row]) -> None:
        """Write rows like the first of them.

        Protocol buffers would take longer to put the values of an event together than a small network
        takes for a step. So they put together one event, and in its bytes the values are replaced.
        """
        kind = (rows[0].reasons, [*rows[0].numbers])
        if self._kind is None or kind[0] is not self._kind[0] or kind[1] != self._kind[1]:
            self._kind = kind
            self._make_template(rows[0])
        first = np.array([[*row.numbers.values()] for row in rows])
        tables = np.stack([row.table for row in rows]).reshape(len(rows), -1)
        numbers = np.concatenate([first, tables[:, self._places]], axis=1)
        events = np.tile(self._template, (len(rows), 1))
        with np.errstate(over="ignore"):  # too large for the format: infinite
            events[:, self._values] = np.ascontiguousarray(numbers, "<f4").view(np.uint8)
        for row, values in zip(rows, events, strict=True):
            rest = self._event(step=row.step, wall_time=time.time())
            for (what_of, i), spread in row.histograms.items():
                self._histogram(rest.summary.value.add(tag=f"{what_of}/{self._layers[i]}").histo, spread)
            for tag, x in row.scalars.items():
                rest.summary.value.add(tag=tag, simple_value=x)
            # Messages whose bytes stand one behind the other are read as one message.
            self._write(values.tobytes() + rest.SerializeToString())

    @staticmethod
    def _histogram(proto: Any, spread: Histogram) -> None:
        proto.min, proto.max, proto.sum, proto.sum_squares = spread[:4]
        proto.num = float(spread.counts.sum())
        edges = np.linspace(spread.low, spread.high, len(spread.counts) + 1)
        proto.bucket_limit.extend(edges[1:].tolist())
        proto.bucket.extend(spread.counts.tolist())

    def _make_template(self, row: Row) -> None:
        """An event with a value for each number that a row like this one has, and where their bytes are."""
        self._places = np.flatnonzero(_present(row))
        tags = [name if name in ALONE else f"{name}/train" for name in row.numbers]
        tags += [self._tags[place] for place in self._places]
        event = self._event()
        for tag, x in (dict.fromkeys(tags, 0.0) | self._guides).items():
            event.summary.value.add(tag=tag, simple_value=x)
        whole = event.SerializeToString()
        sizes = [len(type(event.summary)(value=[value]).SerializeToString()) for value in event.summary.value]
        ends = len(whole) - sum(sizes) + np.cumsum(sizes)  # the last four bytes of a value are its number
        ends = ends[: len(tags)]  # a guide keeps its own
        self._template = np.frombuffer(whole, np.uint8)
        self._values = (ends[:, None] + np.arange(-4, 0)).ravel()

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        event = self._event(wall_time=time.time(), step=step)
        for tag, x in numbers.items():
            event.summary.value.add(tag=tag, simple_value=x)
        self._write(event.SerializeToString())
        self._file.flush()

    def text(self, tag: str, markdown: str) -> None:
        """A page of Markdown under the Text tab."""
        event = self._event(wall_time=time.time())
        value = event.summary.value.add(tag=tag)
        value.metadata.plugin_data.plugin_name = "text"
        value.tensor.dtype = 7  # DT_STRING
        value.tensor.string_val.append(markdown.encode())
        value.tensor.tensor_shape.dim.add(size=1)
        self._write(event.SerializeToString())
        self._file.flush()

    def _layout(self, quantities: Sequence[str]) -> None:
        """The Custom Scalars tab: a chart for each quantity with all layers in it, and one for the loss."""
        from tensorboard.plugins.custom_scalar import layout_pb2, metadata

        def chart(title: str, tags: str) -> layout_pb2.Chart:
            return layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=[tags]))

        of_layers = [chart(quantity, f"^{quantity}/") for quantity in quantities]
        categories = {"all layers": of_layers, "the network": [chart("loss", "^loss/")]}
        layout = layout_pb2.Layout(
            category=[layout_pb2.Category(title=title, chart=c) for title, c in categories.items() if c]
        )
        event = self._event(wall_time=time.time())
        value = event.summary.value.add(tag=metadata.CONFIG_SUMMARY_TAG)
        value.metadata.plugin_data.plugin_name = metadata.PLUGIN_NAME
        value.tensor.dtype = 7  # DT_STRING
        value.tensor.string_val.append(layout.SerializeToString())
        self._write(event.SerializeToString())

    def image(self, tag: str, step: int, png: bytes) -> None:
        """A picture under the Images tab."""
        width, height = struct.unpack(">II", png[16:24])  # PNG's header
        event = self._event(wall_time=time.time(), step=step)
        value = event.summary.value.add(tag=tag)
        value.image.width, value.image.height, value.image.colorspace = width, height, 4
        value.image.encoded_image_string = png
        self._write(event.SerializeToString())
        self._file.flush()

    def graph(self, graph: bytes) -> None:
        """The Graphs tab: a serialized GraphDef."""
        self._write(self._event(wall_time=time.time(), graph_def=graph).SerializeToString())
        self._file.flush()

    def hyperparameters(self, values: Mapping[str, Any], metrics: Sequence[str], *, success: bool) -> None:
        """The HParams tab: this run's choices beside the last values of the scalars named in `metrics`.

        Args:
            success: did the run come to its end? One that diverged is shown as one that failed.
        """
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
        from tensorboard.plugins.hparams.summary_v2 import HParam, Metric, hparams_config_pb, hparams_pb

        plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items()}
        parts = [
            hparams_config_pb([HParam(key) for key in plain], [Metric(tag) for tag in metrics]),
            hparams_pb(plain),
        ]
        for part in parts:
            self._write(self._event(wall_time=time.time(), summary=part).SerializeToString())
        status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
        ended = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        event = self._event(wall_time=time.time())
        value = event.summary.value.add(tag=metadata.SESSION_END_INFO_TAG, tensor=metadata.NULL_TENSOR)
        value.metadata.CopyFrom(
            metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=ended))
        )
        self._write(event.SerializeToString())
        self._file.flush()


def how_to_read() -> str:
    """A page for TensorBoard's Text tab: what its charts mean."""
    return Path(__file__).with_name("how_to_read.md").read_text(encoding="utf-8")


def _present(row: Row) -> np.ndarray:
    """Which places of the table have a number: (Q, L) bool."""
    present = np.full(row.table.shape, True)
    for place in row.reasons:
        present[place] = False
    return present


def _masked_checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted as the TFRecord format asks."""
    import google_crc32c

    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
