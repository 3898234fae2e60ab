"""A sweep's folder as two tables: a row for each run, and a row for each arm.

An arm is one combination of the swept keys but seed; its runs differ in nothing else. Tables come from
the files alone, so a sweep that still goes on, or was killed, has them as well.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlexp.better import lower_is_better
from dlexp.errors import UserError
from dlexp.folder import PLAN, SPLITS, write_whole
from dlexp.plots.swept import VALUES, text
from dlexp.profile import hidden_and_outputs, profile
from dlexp.report.jobs import Job, read_jobs, swept_keys, typed_order
from dlexp.words import Value, value

if TYPE_CHECKING:
    import pandas as pd

SEED = "seed"
ENDS = ("first", "last")  # of what was recorded
START = "delta_factor_first"  # known of every run that made its first step, however it ended


class Arm:
    """Runs of one combination of the swept keys."""

    def __init__(self, typed: Sequence[str | None], jobs: Sequence[Job]) -> None:
        self.typed, self.jobs = tuple(typed), tuple(jobs)

    @cached_property
    def values(self) -> list[Value]:
        """Of the swept keys, without the seed."""
        return [value(text) for text in self.typed]

    @cached_property
    def ended(self) -> list[Job]:
        """Those that came to their end."""
        return [job for job in self.jobs if job.ended]

    @property
    def status(self) -> str:
        """For example "2 finished, 1 diverged"."""
        return counted(job.status for job in self.jobs)

    @property
    def diagnosis(self) -> str:
        """For example "2 vanishing, 1 healthy"; "" where nothing is known."""
        return counted(job.diagnosis for job in self.jobs if job.diagnosis)

    def all(self, name: str) -> list[float]:
        """The numbers of that name of the runs that came to their end; at the start, of all."""
        jobs = self.jobs if name == START else self.ended
        return [x for x in (job.numbers.get(name) for job in jobs) if x is not None]

    def mean(self, name: str) -> float | None:
        found = self.all(name)
        return statistics.fmean(found) if found else None

    def std(self, name: str) -> float | None:
        """The sample standard deviation; None of a single run."""
        found = self.all(name)
        return statistics.stdev(found) if len(found) > 1 else None


def counted(words: Iterable[str]) -> str:
    """For example "2 finished, 1 diverged", most first."""
    counts = Counter(words)
    order = sorted(counts, key=lambda word: (-counts[word], word))
    return ", ".join(f"{counts[word]} {word}" for word in order)


class Sweep:
    """What the folder of a sweep holds, as far as it has come. Files are read once, here."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        self.jobs = read_jobs(self.folder)
        if not self.jobs and not (self.folder / PLAN).is_file():
            raise UserError(f"{folder}: not the folder of a sweep; it has neither {PLAN} nor folders of runs")
        self.swept = swept_keys(self.folder, self.jobs)
        self.keys = [key for key in self.swept if key != SEED]

    def __repr__(self) -> str:
        return f"Sweep({str(self.folder)!r}, {len(self.jobs)} runs, {len(self.rows)} arms)"

    @cached_property
    def ranks(self) -> dict[str, dict[str | None, int]]:
        """Of the values of each swept key: key -> value as typed -> its place."""
        return typed_order(self.folder, [*self.keys, SEED], self.jobs)

    @cached_property
    def rows(self) -> list[Arm]:
        """The arms, in the order in which values were typed or, where that is not known, jobs started."""
        grouped: dict[tuple[str | None, ...], list[Job]] = {}
        for job in self.jobs:
            grouped.setdefault(tuple(job.asked(key) for key in self.keys), []).append(job)

        def place(typed: tuple[str | None, ...]) -> list[int]:
            return [self.ranks[key][text] for key, text in zip(self.keys, typed, strict=True)]

        return [Arm(typed, grouped[typed]) for typed in sorted(grouped, key=place)]

    @cached_property
    def metric(self) -> str | None:
        """What runs are judged by, the first metric of their task; None if they have different ones."""
        first = {job.metrics[0] if job.metrics else "loss" for job in self.jobs if job.summary.get("metrics")}
        return first.pop() if len(first) == 1 else None

    @cached_property
    def best(self) -> int | None:
        """The number of the arm with the best metric on validation; of equal ones that with less loss.

        An arm counts if half of its runs came to their end, or where there is no such arm if one did: of
        a learning rate that mostly diverges the lucky run is not the best. None if there is no such arm,
        if there is only one, or if the two best are equal.
        """
        tag = f"{self.metric}/validation"
        known = [i for i in self.ranked if self.metric and self.rows[i].mean(tag) is not None]
        found = [i for i in known if 2 * len(self.rows[i].ended) >= len(self.rows[i].jobs)] or known
        merits = [(self.rows[i].mean(tag), self.rows[i].mean("loss/validation")) for i in found[:2]]
        if not found or len(self.rows) == 1 or (len(merits) == 2 and merits[0] == merits[1]):
            return None
        return found[0]

    @cached_property
    def ranked(self) -> list[int]:
        """The numbers of the arms, the best first; arms without numbers come last."""
        tag = f"{self.metric}/validation"

        def merit(i: int) -> tuple[bool, float, bool, float]:
            metric, loss = self.rows[i].mean(tag), self.rows[i].mean("loss/validation")
            sign = 1 if lower_is_better(tag) else -1
            return metric is None, sign * (metric or 0.0), loss is None, loss or 0.0

        return sorted(range(len(self.rows)), key=merit)

    @cached_property
    def names(self) -> list[str]:
        """Of the numbers: steps, then loss and metrics by split, then the rest."""
        found = dict.fromkeys(name for job in self.jobs for name in job.numbers)
        tags = [name for name in found if "/" in name]
        metrics = dict.fromkeys(["loss", *(name for job in self.jobs for name in job.metrics)])
        order = {name: i for i, name in enumerate(metrics)}

        def place(tag: str) -> tuple[int, int]:
            name, _, split = tag.partition("/")
            splits = SPLITS.index(split) if split in SPLITS else len(SPLITS)
            return splits, order.get(name, len(order))

        return ["steps", *sorted(tags, key=place), START, "delta_factor_last", "seconds"]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row per run: its folder, the swept keys, seed, status, numbers, and why it did not end well.

        `loss/validation`, `accuracy/test` and so on are as in summary.json; `delta_factor_first` and
        `delta_factor_last` by which factor `delta_rms` changes in a hidden layer on its way back.
        """
        rows = [
            {
                "run": job.name,
                **{key: value(job.asked(key)) for key in self.keys},
                "seed": job.seed,
                "status": job.status,
                **{name: job.numbers.get(name) for name in self.names},
                "diagnosis": job.diagnosis,
                "error": job.error,
            }
            for arm in self.rows
            for job in arm.jobs
        ]
        columns = ["run", *self.keys, "seed", "status", *self.names, "diagnosis", "error"]
        table = self._table(rows, columns, self.names)
        table.attrs[VALUES] = self._values
        return table

    @cached_property
    def arms(self) -> pd.DataFrame:
        """A row per arm: the swept keys, mean and sample standard deviation of each number, runs, status.

        Numbers are those of runs that came to their end, but `delta_factor_first` that of all.
        """
        parts = [(name, f"{name}_mean", f"{name}_std") for name in self.names]
        rows = [
            {
                **dict(zip(self.keys, arm.values, strict=True)),
                **{column: arm.mean(name) for name, column, _ in parts},
                **{column: arm.std(name) for name, _, column in parts},
                "runs": len(arm.jobs),
                "status": arm.status,
                "diagnosis": arm.diagnosis,
            }
            for arm in self.rows
        ]
        numbers = [column for _, *columns in parts for column in columns]
        table = self._table(rows, [*self.keys, *numbers, "runs", "status", "diagnosis"], numbers)
        table.attrs[VALUES] = self._values
        return table

    @cached_property
    def profiles(self) -> pd.DataFrame:
        """A row per run and layer with weights: run, the swept keys, seed, number (1 next to the inputs),
        layer, and `delta_rms` of its "first" and "last" recorded step. Heads side by side are one row.
        """
        rows = []
        for job in (job for arm in self.rows for job in arm.jobs):
            layers = job.summary.get("layers") or []
            hidden, outputs = hidden_and_outputs(layers)
            names = [layer["name"] for layer in hidden]
            if outputs:
                ends = dict.fromkeys((outputs[0]["name"], outputs[-1]["name"]))
                names.append(" to ".join(ends))
            lines = [profile(layers, end) for end in ENDS]
            asked = {key: value(job.asked(key)) for key in self.keys}
            rows += [
                {"run": job.name, **asked, "seed": job.seed, "number": number, "layer": name}
                | dict(zip(ENDS, numbers, strict=True))
                for number, (name, *numbers) in enumerate(zip(names, *lines, strict=True), 1)
            ]
        table = self._table(rows, ["run", *self.keys, "seed", "number", "layer", *ENDS], ENDS)
        table.attrs[VALUES] = self._values
        return table

    @cached_property
    def _values(self) -> dict[str, list[str | None]]:
        """Swept key -> its values in their order; with a table, so that colours stay where rows go."""
        found = {key: [value(job.asked(key)) for arm in self.rows for job in arm.jobs] for key in self.keys}
        found[SEED] = [job.seed for arm in self.rows for job in arm.jobs]
        return {key: list(dict.fromkeys(map(text, own))) for key, own in found.items()}

    @staticmethod
    def _table(rows: list[dict[str, Any]], columns: list[str], numbers: Sequence[str]) -> pd.DataFrame:
        import pandas as pd

        table = pd.DataFrame(rows, columns=pd.Index(columns))
        kinds: dict[str, Any] = {
            name: float for name in numbers if name != "steps" or table[name].isna().any()
        }
        if SEED in table and table[SEED].isna().any() and pd.api.types.is_float_dtype(table[SEED]):
            kinds[SEED] = "Int64"  # a number that is missing must not make 1.0 of 1
        return table.astype(kinds)

    def write(self) -> list[Path]:
        """sweep.csv, a row per arm, and runs.csv, a row per run, into the sweep's folder.

        Raises:
            OSError: they cannot be written there.
        """
        paths = [self.folder / "sweep.csv", self.folder / "runs.csv"]
        for path, table in zip(paths, (self.arms, self.runs), strict=True):
            write_whole(path, lambda draft, table=table: table.to_csv(draft, index=False))  # type: ignore[misc]
        return paths
