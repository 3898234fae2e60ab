"""While a sweep runs: a line for each job that ends, and one line for the whole.

It only looks at the sweep's folder, so it does not matter who works there: this process, others, or other
machines.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from dlexp.folder import ENDED, PLAN, SUMMARY, read_json
from dlexp.numbers import compact, duration

PERIOD = 0.25  # seconds between two looks
STYLES = {"finished": "green", "stopped_early": "green", "diverged": "yellow", "failed": "bold red"}


class Watch:
    """Context manager around the launching of the jobs; afterwards `statuses` has all that ended."""

    def __init__(self, folder: Path, console: Console) -> None:
        """Watch the jobs in `folder`."""
        self._folder, self._console = folder, console
        self._seen = self._summaries()
        self.statuses: dict[str, str] = {}  # of the jobs that ended, those of an earlier process included
        for name in self._seen:
            if (status := str(read_json(self._folder / name / SUMMARY).get("status"))) in ENDED:
                self.statuses[name] = status
        self.kept = len(self.statuses)
        self._start = self._first = time.time()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dlexp sweep", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def failed(self) -> bool:
        """Did a job fail, or end without a word?"""
        return "failed" in self.statuses.values() or bool(self._missing)

    @property
    def unfinished(self) -> bool:
        """Is there anything that a second go would bring further? A job that failed would fail again."""
        return "interrupted" in self.statuses.values() or bool(self._missing)

    @property
    def _missing(self) -> set[str]:
        """The jobs of a grid that have not ended; of a search nobody knows them before."""
        return set(read_json(self._folder / PLAN).get("planned") or ()) - set(self.statuses)

    @property
    def _jobs(self) -> int | None:
        """How many there are to be, once it is known; a search may suggest one of them twice."""
        found: int | None = read_json(self._folder / PLAN).get("jobs")
        return found

    def _run(self) -> None:
        if not self._console.is_terminal:
            while not self._over.wait(PERIOD):
                self._look()
            self._look()
            return
        with Live(self._line(), console=self._console, transient=True, refresh_per_second=4) as live:
            while not self._over.wait(PERIOD):
                self._look()
                live.update(self._line())
            self._look()

    def _look(self) -> None:
        """Tell of the jobs that ended since the last look, in the order in which they did."""
        found = self._summaries()
        new = [name for name, written in found.items() if self._seen.get(name) != written]
        for name in sorted(new, key=found.__getitem__):
            summary = read_json(self._folder / name / SUMMARY)
            if "status" in summary:
                self._seen[name] = found[name]
                if len(self.statuses) == self.kept:
                    self._first = time.time()
                self.statuses[name] = summary["status"]
                self._console.print(self._result(name, summary), soft_wrap=True)

    def _summaries(self) -> dict[str, int]:
        """The jobs with a summary, and when it was written."""
        found = {}
        with os.scandir(self._folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
        for name in names:
            try:
                found[name] = (self._folder / name / SUMMARY).stat().st_mtime_ns
            except OSError:
                continue
        return found

    def _result(self, name: str, summary: Mapping[str, Any]) -> Text:
        """One line, e.g. "finished  activation=relu,seed=0  accuracy 0.97  loss 0.12  2.1 s"."""
        status = summary["status"]
        line = Text.assemble((f"{status:<11}", STYLES.get(status, "yellow")), f"  {name}  ")
        if not self._console.is_terminal:  # which has no line for the whole
            line = Text(f"{len(self.statuses)}/{self._jobs or '?'}  ") + line
        if status == "failed":
            return line.append(str(summary.get("error")))
        if bad := summary.get("diverged"):
            return line.append(f"at step {bad['step']}: {bad['layer'] or 'network'}: {bad['reason']}")
        numbers = {tag: x for tag, x in summary["metrics"].items() if tag.endswith("/validation")}
        for tag in sorted(numbers, key=lambda tag: tag.startswith("loss/")):
            line.append(f"{tag.partition('/')[0]} {compact(numbers[tag])}  ")
        return line.append(duration(summary["timing"]["seconds"]), "dim")

    def _line(self) -> Text:
        """E.g. "sweep  12/27 jobs  10 finished, 2 diverged  about 40 s left"."""
        counts = Counter(self.statuses.values())
        done, total = len(self.statuses), self._jobs
        words = [f"{n} {status}" for status, n in sorted(counts.items())]
        running = self._running()
        words += [f"{running} running"] if running > 0 else []
        line = f"sweep  {done}/{total or '?'} jobs  {', '.join(words)}"
        here, seconds = done - self.kept - 1, time.time() - self._first  # starting up counts for no job
        if total and here > 0 and total > done:
            line += f"  about {duration(seconds / here * (total - done))} left"
        return Text(line, "dim")

    def _running(self) -> int:
        """Jobs that have begun and not ended; what an earlier process left lies untouched so far."""
        with os.scandir(self._folder) as entries:
            return sum(
                entry.is_dir()
                and entry.name not in self.statuses
                and not entry.name.startswith(".")  # a launcher's own
                and entry.stat().st_mtime >= self._start
                for entry in entries
            )
