"""Where recorded numbers go: JSON lines here, events in tensorboard.py. Sinks take plain numbers alone."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from dlexp.record.histograms import Histogram


class Row(NamedTuple):
    """One recorded step, on the host."""

    step: int
    numbers: Mapping[str, float]  # of this step: loss, metrics of its batch, clip_factor, lr
    table: np.ndarray  # (Q, L) float64; NaN and infinities as they came
    reasons: Mapping[tuple[int, int], str]  # (quantity, layer) -> why there is no number
    scalars: Mapping[str, float] = MappingProxyType({})  # of the whole network after this step
    # (quantity, layer) -> (T,) numbers, of layers that ran T > 1 times, in the order of the forward pass
    over_time: Mapping[tuple[str, int], np.ndarray] = MappingProxyType({})
    histograms: Mapping[tuple[str, int], Histogram] = MappingProxyType({})  # (kind, layer) -> its numbers

    def as_plain(self) -> dict[str, Any]:
        """Plain Python objects, all that a checkpoint may hold."""
        return {
            "step": self.step,
            "numbers": dict(self.numbers),
            "table": self.table.tolist(),
            "reasons": dict(self.reasons),
            "scalars": dict(self.scalars),
            "over_time": {place: series.tolist() for place, series in self.over_time.items()},
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Row:
        """The row of which `as_plain` made this."""
        over_time = {place: np.array(series) for place, series in plain["over_time"].items()}
        return cls(**plain | {"table": np.array(plain["table"]), "over_time": over_time})


class Sink(Protocol):
    """Somewhere numbers go."""

    def rows(self, rows: Sequence[Row]) -> None:
        """Recorded steps, in order."""

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of the whole network after a step that is not recorded."""

    def close(self) -> None:
        """Nothing more will come."""


def finite(x: float) -> float | None:
    """The number, or None where JSON has none."""
    return x if math.isfinite(x) else None


BUFFER = 2**20  # bytes: what is written together goes to the disk together, when it is flushed


class Appended:
    """A file that grows, and can go on from a length that it once had."""

    def __init__(self, path: Path, length: int | None = None) -> None:
        """A new file; with `length` the one that is there, without what was written behind that."""
        self.name = path.name
        self._file = path.open("xb" if length is None else "r+b", buffering=BUFFER)
        if length is not None:
            self._file.truncate(length)
            self._file.seek(length)

    def length(self) -> int:
        """In bytes, all of them on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Nothing more will come."""
        self._file.close()


class RecordLines(Appended):
    """records.jsonl: a header, then a line for each recorded step, flushed as it is written.

    A number that is absent or not finite is null; `reasons` beside it says why, for each layer.
    """

    def __init__(
        self, path: Path, layers: Sequence[str], quantities: Sequence[str], length: int | None = None
    ) -> None:
        super().__init__(path, length)
        self._layers, self._quantities = list(layers), list(quantities)
        if length is None:
            self._file.write(_line({"layers": self._layers, "quantities": self._quantities}))
            self._file.flush()
        self._known: tuple[object, object] = (None, None)

    def rows(self, rows: Sequence[Row]) -> None:
        import orjson

        tables = np.stack([row.table for row in rows])
        gaps = np.count_nonzero(~np.isfinite(tables), axis=(1, 2)).tolist()
        for row, table, missing in zip(rows, _short(tables), gaps, strict=True):
            line: dict[str, Any] = {"step": row.step, **row.numbers}
            line |= zip(self._quantities, table, strict=True)  # NaN and infinities become null
            if row.over_time:
                line["over_time"] = self._over_time(row)
            if missing > len(row.reasons) or not all(map(math.isfinite, row.numbers.values())):
                line["reasons"] = self._all_reasons(row)
            elif missing:  # the same for most of a run
                if self._known[0] is not row.reasons:
                    self._known = row.reasons, orjson.Fragment(orjson.dumps(self._named(row.reasons)))
                line["reasons"] = self._known[1]
            self._file.write(_line(line))
        self._file.flush()

    def _all_reasons(self, row: Row) -> dict[str, Any]:
        gaps = {(q, i): what(row.table[q, i]) for q, i in np.argwhere(~np.isfinite(row.table)).tolist()}
        return self._named(gaps | {**row.reasons}) | reasons(row.numbers)

    def _over_time(self, row: Row) -> dict[str, dict[str, np.ndarray]]:
        """Quantity -> layer -> a number for each time step."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for (quantity, i), series in row.over_time.items():
            found.setdefault(quantity, {})[self._layers[i]] = series
        return found

    def _named(self, gaps: Mapping[tuple[int, int], str]) -> dict[str, Any]:
        """For each quantity with gaps: a reason for each layer, null where there is a number."""
        named: dict[str, Any] = {}
        for (q, i), why in sorted(gaps.items()):
            named.setdefault(self._quantities[q], [None] * len(self._layers))[i] = why
        return named

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Kept in metrics.jsonl."""


def _line(content: Mapping[str, Any]) -> bytes:
    import orjson

    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def _short(tables: np.ndarray) -> list[np.ndarray]:
    """Each as float32, whose nine digits are all that a measurement has, if its range holds every number."""
    with np.errstate(all="ignore"):
        size = np.abs(tables)
        fits = ((size > 1e-37) & (size < 1e38)) | (size == 0) | ~np.isfinite(tables)
        short = tables.astype(np.float32)
    every = fits.all(axis=(1, 2)).tolist()
    return [as_short if fit else table for as_short, table, fit in zip(short, tables, every, strict=True)]


def what(x: float) -> str:
    """What a number is that is not finite."""
    return "nan" if math.isnan(x) else "inf" if x > 0 else "-inf"


def reasons(numbers: Mapping[str, float]) -> dict[str, str]:
    """What those are that are not finite."""
    return {name: what(x) for name, x in numbers.items() if not math.isfinite(x)}


class MetricLines(Appended):
    """metrics.jsonl: a line for each time the whole network was evaluated."""

    def rows(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.scalars:
                self.scalars(row.step, row.scalars)

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        line: dict[str, Any] = {"step": step, **numbers}
        if missing := reasons(numbers):
            line["reasons"] = missing
        self._file.write(_line(line))
        self._file.flush()
