"""The jobs of a sweep, as their folders tell: what was asked of each, and what became of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dlexp.errors import UserError
from dlexp.folder import (
    CONFIG,
    COUNTED,
    NOT_BEGUN,
    PLAN,
    RECORDS,
    SUMMARY,
    UNFINISHED,
    read_json,
)
from dlexp.profile import factor, profile
from dlexp.words import Value, split_words, unquoted, value
from dlexp.written import overrides


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    name: str  # of its folder
    words: Mapping[str, str]  # key -> value as typed
    summary: Mapping[str, Any]  # {} if there is none (yet)
    begun: bool = True

    @property
    def status(self) -> str:
        return str(self.summary.get("status", UNFINISHED if self.begun else NOT_BEGUN))

    @property
    def ended(self) -> bool:
        """Whether it came to its end, so that its numbers can be compared."""
        return self.status in COUNTED

    @property
    def started(self) -> str:
        """In the order of time; a job without a time comes last."""
        return str((self.summary.get("timing") or {}).get("started", "~"))

    @property
    def seed(self) -> Value:
        own = self.summary.get("seed")
        return own if own is not None else value(self.words.get("seed"))

    def asked(self, key: str) -> str | None:
        """The value of a key as it was typed, or as the configuration has it."""
        if key in self.words:
            return self.words[key]
        found: Any = self.summary.get("choices", {}).get(key)
        if found is None:
            found = self.summary.get("config")
            for part in key.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
        return None if found is None or isinstance(found, Mapping) else str(found)

    @cached_property
    def metrics(self) -> list[str]:
        """Those of its task; the first one is what it is judged by."""
        named = (self.summary.get("config") or {}).get("metrics")
        if isinstance(named, list) and named:
            return [str(name) for name in named]
        tags = [tag for tag in self.summary.get("metrics", {}) if tag.endswith("/validation")]
        return [name for name in (tag.partition("/")[0] for tag in tags) if name != "loss"]

    @cached_property
    def numbers(self) -> dict[str, float | None]:
        """What is known of it in numbers: steps, loss and metrics of each split, delta factors, seconds."""
        if not self.summary:
            return {}
        layers = self.summary.get("layers") or []
        return {
            "steps": self.summary.get("steps"),
            **self.summary.get("metrics", {}),
            **{f"delta_factor_{end}": factor(profile(layers, end)) for end in ("first", "last")},
            "seconds": (self.summary.get("timing") or {}).get("seconds"),
        }

    @property
    def diagnosis(self) -> str | None:
        """What it suffers from, in a word."""
        found = (self.summary.get("diagnosis") or {}).get("primary")
        return None if found is None else str(found)

    @cached_property
    def error(self) -> str | None:
        """Why it did not come to its end, in one line."""
        if spoiled := self.summary.get("diverged"):
            where = f"{spoiled['layer']}: " if spoiled.get("layer") else ""
            return f"loss not finite at step {spoiled.get('step')}; {where}{spoiled.get('reason')}"
        error = self.summary.get("error")
        return " ".join(str(error).split()) if error else None


def is_job(folder: Path) -> bool:
    """Whether it is the folder of a run; one of somebody's own loop has records alone until it ends."""
    return any((folder / name).is_file() for name in (SUMMARY, RECORDS)) or (folder / CONFIG).is_dir()


def read_jobs(folder: Path) -> list[Job]:
    """Those that lie in the folder of a sweep, in the order in which they started, then those to come.

    Raises:
        UserError: there is no such folder.
    """
    try:
        found = [path for path in folder.iterdir() if is_job(path)]
    except OSError as error:
        raise UserError(f"{folder}: no folder that can be read: {error.strerror}") from error
    planned: dict[str, list[str]] = read_json(folder / PLAN).get("planned") or {}
    jobs = [_read(path, planned.get(path.name, ())) for path in found]
    jobs.sort(key=lambda job: (job.started, _natural(job.name)))
    begun = {job.name for job in jobs}
    to_come = [
        Job(name, split_words(words), {}, begun=False) for name, words in planned.items() if name not in begun
    ]
    return jobs + to_come


def _read(folder: Path, planned: Sequence[str]) -> Job:
    summary = read_json(folder / SUMMARY)
    words = summary.get("overrides") or overrides(folder) or planned
    return Job(folder.name, split_words(words), summary)


def swept_keys(folder: Path, jobs: Sequence[Job]) -> list[str]:
    """The keys that vary: as sweep.json says, else those whose words differ among the jobs."""
    named = read_json(folder / PLAN).get("swept")
    if isinstance(named, list):
        return [str(key).lstrip("+~") for key in named]
    keys = dict.fromkeys(key for job in jobs for key in job.words)
    return [key for key in keys if len({job.words.get(key) for job in jobs}) > 1]


def typed_order(folder: Path, keys: Sequence[str], jobs: Sequence[Job]) -> dict[str, dict[str | None, int]]:
    """For each swept key the rank of each of its values: as they were typed, then as jobs started."""
    order = read_json(folder / PLAN).get("order") or {}
    ranks = {}
    for key in keys:
        listed = [repr(value(unquoted(str(text)))) for text in order.get(key, ())]
        values = dict.fromkeys(job.asked(key) for job in jobs)
        # A job's 0.001 was typed as 1e-3.
        known = sorted(
            (x for x in values if repr(value(x)) in listed), key=lambda x: listed.index(repr(value(x)))
        )
        ranks[key] = {text: rank for rank, text in enumerate(dict.fromkeys([*known, *values]))}
    return ranks


def _natural(name: str) -> list[tuple[int, str]]:
    """For sorting 2 before 10."""
    return [(int(part or 0), "") if i % 2 else (0, part) for i, part in enumerate(re.split(r"(\d+)", name))]
