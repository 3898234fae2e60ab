"""The runs of an experiment, and what a claim can ask of them: which arm, which number, the best rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlexp.better import lower_is_better
from dlexp.errors import UserError
from dlexp.profile import with_weights
from dlexp.report.jobs import Job
from dlexp.report.sweep import START
from dlexp.sweep.command import same
from dlexp.words import split_words

SEED = "seed"
FAILED = ("failed", "interrupted", "unfinished", "not begun")


@dataclass(frozen=True)
class Run:
    """One run of a sweep, or one call of a measuring function."""

    part: str  # the sweep or the measuring function that it belongs to
    words: Mapping[str, str]  # what distinguishes it in there: key -> value as typed, the seed in it
    job: Job
    folder: Path | None = None
    measured: Mapping[str, Any] | None = None  # by a measuring function

    @property
    def seed(self) -> int:
        return int(self.words.get(SEED, 0))

    @property
    def made(self) -> bool:
        """Has it been measured, or come to an end, if only to diverge?"""
        return bool(self.measured) if self.measured is not None else self.job.status not in FAILED

    @property
    def code(self) -> str | None:
        """Which code of dlexp made it (`dlexp.code`)."""
        found = (self.job.summary.get("versions") or {}).get("code")
        return found and str(found)

    def asked(self, key: str) -> str | None:
        """The value of a key as it was typed, or as its configuration has it."""
        return self.words[key] if key in self.words else self.job.asked(key)

    def number(self, name: str) -> float:
        """A number of that name: measured, or a metric such as accuracy/test; nan if there is none.

        Of a run that diverged there is only what was so at its start.
        """
        if self.measured is not None:
            found = self.measured.get(name)
        else:
            found = self.job.numbers.get(name) if self.job.ended or name == START else None
        return math.nan if found is None else float(found)

    def profile(self, quantity: str, when: str = "first") -> list[float]:
        """A quantity of each layer with weights, the output last, at the first or last recorded step.

        Returns:
            (L,) nan where there is no number; empty of a run that did not get that far.
        """
        if self.job.status in FAILED:
            return []
        layers = with_weights(self.job.summary.get("layers") or [])
        found = [(layer.get(when) or {}).get(quantity) for layer in layers]
        return [math.nan if x is None else float(x) for x in found]


@dataclass(frozen=True)
class Arm:
    """Runs that differ in nothing but the seed."""

    words: Mapping[str, str]
    runs: tuple[Run, ...]

    def __getitem__(self, key: str) -> str:
        found = self.words[key] if key in self.words else self.runs[0].asked(key)
        if found is None:
            raise KeyError(key)
        return found

    def values(self, what: str | Callable[[Run], float]) -> dict[int, float]:
        """Seed -> number; nan of a run that has none."""
        measure = what if callable(what) else lambda run: run.number(what)
        return {run.seed: float(measure(run)) for run in self.runs}


class SeveralArmsError(ValueError):
    """One arm was asked for, and there are several."""


class Runs(Sequence[Run]):
    """Some runs of an experiment."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = tuple(runs)

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, i: Any) -> Any:
        return self._runs[i]

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def part(self, name: str) -> Runs:
        """Those of one sweep or measuring function."""
        return Runs([run for run in self if run.part == name])

    def of(self, words: str) -> Runs:
        """Those that the words fit, e.g. "activation=relu,abs model.depth=20".

        Raises:
            UserError: no run knows a key.
        """
        found = list(self)
        for key, typed in split_words(words.split()).items():
            if self._runs and all(run.asked(key) is None for run in self):
                raise UserError(f"{key}={typed}: no run of this experiment has {key}")
            wanted = typed.split(",")
            found = [run for run in found if _fits(run.asked(key), wanted)]
        return Runs(found)

    def arms(self, *keys: str) -> list[Arm]:
        """Runs that differ in nothing but the seed together; or, of named keys, that agree in those."""
        grouped: dict[tuple[Any, ...], list[Run]] = {}
        for run in self:
            words = {k: v for k, v in run.words.items() if k != SEED}
            words = {key: run.asked(key) or "" for key in keys} if keys else words
            grouped.setdefault((run.part, *words.items()), []).append(run)
        return [Arm(dict(key[1:]), tuple(runs)) for key, runs in grouped.items()]

    def by(self, key: str) -> dict[str, Runs]:
        """Value of a key -> the runs that have it, in the order in which they were asked for."""
        found: dict[str, list[Run]] = {}
        for run in self:
            found.setdefault(run.asked(key) or "", []).append(run)
        return {value: Runs(runs) for value, runs in found.items()}

    def values(self, what: str | Callable[[Run], float]) -> dict[int, float]:
        """Of one arm: seed -> number.

        Args:
            what: the name of a number, or a function of a run.
        """
        arms = self.arms()
        if len(arms) > 1:
            differing = sorted(
                {key for arm in arms for key in arm.words if arms[0].words.get(key) != arm[key]}
            )
            raise SeveralArmsError(
                f"{len(arms)} arms that differ in {', '.join(differing)}; narrow them by .of(...)"
            )
        return arms[0].values(what) if arms else {}

    def largest(self, what: str | Callable[[Run], float]) -> dict[int, float]:
        """Seed -> the largest number of any arm; nan if one of them has none."""
        found: dict[int, list[float]] = {}
        for arm in self.arms():
            for seed, x in arm.values(what).items():
                found.setdefault(seed, []).append(x)
        return {seed: math.nan if any(map(math.isnan, xs)) else max(xs) for seed, xs in found.items()}

    def best(self, key: str = "optimizer.lr", by: str = "accuracy/validation") -> Runs:
        """Of each arm the runs at the value of `key`, a learning rate say, that is best on validation.

        A value counts if half of its runs or more came to their end. An arm without any keeps the first.
        """
        sign = 1 if lower_is_better(by) else -1
        chosen: list[Run] = []
        others = dict.fromkeys(k for run in self for k in run.words if k not in (key, SEED))
        grouped: dict[tuple[Any, ...], list[Run]] = {}
        for run in self:
            grouped.setdefault((run.part, *(run.words.get(k) for k in others)), []).append(run)
        for runs in grouped.values():
            candidates = Runs(runs).by(key).values()
            chosen += min(candidates, key=lambda own: _merit([run.number(by) for run in own], sign))
        return Runs(chosen)


def _merit(numbers: Sequence[float], sign: int) -> tuple[bool, float]:
    """Sorts the best first."""
    known = [x for x in numbers if math.isfinite(x)]
    lost = 2 * len(known) < len(numbers)
    return lost, sign * math.fsum(known) / len(known) if known else math.inf


def _fits(asked: str | None, wanted: Sequence[str]) -> bool:
    return asked is not None and any(same(asked.lower(), value.lower()) for value in wanted)


def accuracy(run: Run) -> float:
    """On the test split; a network that diverged guesses among the classes."""
    if run.job.status != "diverged":
        return run.number("accuracy/test")
    outputs = (run.job.summary.get("data") or {}).get("outputs")
    return 1 / max(outputs, 2) if outputs else math.nan  # a single output tells two classes apart
