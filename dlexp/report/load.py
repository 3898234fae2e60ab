"""Run folders to pandas."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlexp.errors import UserError
from dlexp.folder import CONFIG, METRICS, PLAN, RECORDS, SUMMARY
from dlexp.profile import hidden_and_outputs
from dlexp.written import is_recorded, read_lines

if TYPE_CHECKING:
    import pandas as pd

NOT_FINITE = ("nan", "inf", "-inf")


class Run:
    """What a run folder holds. Files are read when asked for, also while the run still goes on."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()  # found again after os.chdir, too
        if not is_recorded(self.folder):
            more = "; a sweep is loaded by dlexp.load_sweep" if (self.folder / PLAN).exists() else ""
            if (self.folder / CONFIG).is_dir():
                more = "; the run has just begun, or was killed before its first step"
            raise UserError(
                f"{folder}: not a run folder; it has neither records.jsonl nor summary.json{more}"
            )

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
        if not (self.folder / SUMMARY).exists():
            raise UserError(f"{self.folder}: no summary.json; the run still goes on, or was killed")
        try:
            content = json.loads((self.folder / SUMMARY).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.folder / SUMMARY}: cannot be read: {error}") from error
        if not isinstance(content, dict) or "status" not in content:
            raise UserError(f"{self.folder / SUMMARY}: not the summary of a run; it has no status")
        return content

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """Those of records.jsonl, the header first; none if nothing is recorded yet."""
        return read_lines(self.folder / RECORDS)

    @cached_property
    def layers(self) -> pd.DataFrame:
        """The layer table: a row per layer, columns (quantity, "first" or "last" recorded).

        Behind the quantities stand the looks of the summary, "first" and "last" of training.
        """
        import pandas as pd

        header, *lines = self.lines or [{"layers": [], "quantities": []}]
        empty = dict.fromkeys(header["quantities"], [None] * len(header["layers"]))
        first, last = (lines[0], lines[-1]) if lines else (empty, empty)
        columns = {
            (quantity, when): line[quantity]
            for quantity in header["quantities"]
            for when, line in (("first", first), ("last", last))
        }
        if (self.folder / SUMMARY).exists():  # what is known once training has ended
            for name in self.summary.get("looks", []):
                for when in ("first", "last"):
                    own = [layer[when] or {} for layer in self.summary["layers"]]
                    columns[name, when] = [numbers.get(name) for numbers in own]
        return pd.DataFrame(columns, index=pd.Index(header["layers"], name="layer"), dtype=float)

    @cached_property
    def records(self) -> pd.DataFrame:
        """A row per recorded step and layer: step, layer, the numbers of the step, each quantity.

        A number that is absent or not finite is NaN; `.attrs["not_finite"]` tells of the latter: a list of
        [step, layer (None: of the step as a whole), column, "nan", "inf" or "-inf"]. Of a run that has ended
        `.attrs["side_by_side"]` names the output layers that are one place in depth, where there are several.
        """
        import pandas as pd

        header, *lines = self.lines or [{"layers": [], "quantities": []}]
        quantities, layers = header["quantities"], header["layers"]
        numbers = _step_numbers(lines, quantities)
        columns: dict[str, Any] = {name: [] for name in ("step", "layer", *numbers, *quantities)}
        for line in lines:
            columns["layer"] += layers
            for name in ("step", *numbers):
                columns[name] += [line.get(name)] * len(layers)
            for name in quantities:
                columns[name] += line[name]
        table = pd.DataFrame(columns).astype(dict.fromkeys((*numbers, *quantities), float))
        table.attrs["not_finite"] = _not_finite(lines, layers)
        if (self.folder / SUMMARY).exists():
            _, outputs = hidden_and_outputs(self.summary.get("layers") or [])
            table.attrs["side_by_side"] = [layer["name"] for layer in outputs] if len(outputs) > 1 else []
        return table

    @cached_property
    def over_time(self) -> pd.DataFrame:
        """Of layers that ran several times in a step, cells of a recurrent network say, a row per run:
        step, layer, time (0 is the first run), activation_rms, delta_rms; of LSTM cells cell_delta_rms.
        """
        import pandas as pd

        rows: list[dict[str, Any]] = []
        quantities = dict.fromkeys(("activation_rms", "delta_rms"))
        for line in self.lines[1:]:
            series = line.get("over_time", {})
            quantities |= dict.fromkeys(series)
            for layer in dict.fromkeys(name for of in series.values() for name in of):
                own = {quantity: of[layer] for quantity, of in series.items() if layer in of}
                for time in range(len(next(iter(own.values())))):
                    numbers = {quantity: values[time] for quantity, values in own.items()}
                    rows.append({"step": line["step"], "layer": layer, "time": time, **numbers})
        table = pd.DataFrame(rows, columns=["step", "layer", "time", *quantities])
        return table.astype(dict.fromkeys(quantities, float))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """A row per evaluation of the whole network: step, loss/validation, accuracy/validation, ...

        As in `records`, `.attrs["not_finite"]` has what is not finite.
        """
        import pandas as pd

        lines = read_lines(self.folder / METRICS)
        table = pd.DataFrame(lines).drop(columns="reasons", errors="ignore")
        table.attrs["not_finite"] = _not_finite(lines, [])
        return table


def _step_numbers(lines: list[dict[str, Any]], quantities: list[str]) -> list[str]:
    """What lines say of their step as a whole: loss, the metrics of its batch, clip_factor, lr."""
    apart = {"step", "reasons", "over_time", *quantities}
    return list(dict.fromkeys(name for line in lines for name in line if name not in apart)) or ["loss"]


def _not_finite(lines: list[dict[str, Any]], layers: list[str]) -> list[list[Any]]:
    """[step, layer, column, what it is] of each number that is not finite, not merely absent."""
    found: list[list[Any]] = []
    for line in lines:
        for name, said in line.get("reasons", {}).items():
            of = [(None, said)] if isinstance(said, str) else zip(layers, said, strict=False)
            found += [[line["step"], layer, name, word] for layer, word in of if word in NOT_FINITE]
    return found
