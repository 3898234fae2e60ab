"""Run folders to pandas."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlexp.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


class Run:
    """What a run folder holds. Files are read when asked for, also while the run still goes on."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()  # found again after os.chdir, too
        if not (self.folder / "records.jsonl").exists() and not (self.folder / "summary.json").exists():
            raise UserError(f"{folder}: not a run folder; it has neither records.jsonl nor summary.json")

    def __repr__(self) -> str:
        try:
            status = self.summary["status"]
        except UserError:
            status = "no summary yet"
        return f"Run({str(self.folder)!r}, {status})"

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json: status, metrics, layers, config, seed, versions, timing.

        Raises:
            UserError: there is none, because the run still goes on or was killed.
        """
        if not (self.folder / "summary.json").exists():
            raise UserError(f"{self.folder}: no summary.json; the run still goes on, or was killed")
        content: dict[str, Any] = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        return content

    @cached_property
    def layers(self) -> pd.DataFrame:
        """The layer table: a row per layer, columns (quantity, "first" or "last" recorded)."""
        import pandas as pd

        header, *lines = _lines(self.folder / "records.jsonl") or [{"layers": [], "quantities": []}]
        empty = dict.fromkeys(header["quantities"], [None] * len(header["layers"]))
        first, last = (lines[0], lines[-1]) if lines else (empty, empty)
        columns = {
            (quantity, when): line[quantity]
            for quantity in header["quantities"]
            for when, line in (("first", first), ("last", last))
        }
        return pd.DataFrame(columns, index=pd.Index(header["layers"], name="layer"), dtype=float)

    @cached_property
    def records(self) -> pd.DataFrame:
        """A row per recorded step and layer: step, layer, the numbers of the step, each quantity."""
        import pandas as pd

        header, *lines = _lines(self.folder / "records.jsonl") or [{"layers": [], "quantities": []}]
        quantities, layers = header["quantities"], header["layers"]
        numbers = _step_numbers(lines, quantities)
        columns: dict[str, Any] = {name: [] for name in ("step", "layer", *numbers, *quantities)}
        for line in lines:
            columns["layer"] += layers
            for name in ("step", *numbers):
                columns[name] += [line.get(name)] * len(layers)
            for name in quantities:
                columns[name] += line[name]
        return pd.DataFrame(columns).astype(dict.fromkeys((*numbers, *quantities), float))

    @cached_property
    def over_time(self) -> pd.DataFrame:
        """Of layers that ran several times in a step, those of a recurrent network say, a row per time:
        step, layer, time (0 is the first), activation_rms, delta_rms.
        """
        import pandas as pd

        rows = []
        for line in _lines(self.folder / "records.jsonl")[1:]:
            series = line.get("over_time", {})
            for layer, first in next(iter(series.values()), {}).items():
                for time in range(len(first)):
                    numbers = {quantity: of[layer][time] for quantity, of in series.items() if layer in of}
                    rows.append({"step": line["step"], "layer": layer, "time": time, **numbers})
        table = pd.DataFrame(rows, columns=["step", "layer", "time", "activation_rms", "delta_rms"])
        return table.astype({"activation_rms": float, "delta_rms": float})

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """A row per evaluation of the whole network: step, loss/validation, accuracy/validation, ..."""
        import pandas as pd

        table = pd.DataFrame(_lines(self.folder / "metrics.jsonl"))
        return table.drop(columns="reasons", errors="ignore")


def _step_numbers(lines: list[dict[str, Any]], quantities: list[str]) -> list[str]:
    """What lines say of their step as a whole: loss, the metrics of its batch, clip_factor, lr."""
    apart = {"step", "reasons", "over_time", *quantities}
    return list(dict.fromkeys(name for line in lines for name in line if name not in apart)) or ["loss"]


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
