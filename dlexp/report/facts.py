"""What a report says, as plain data: the page is made of it, and `dlexp report PATH --json` prints it.

Everything in it can be written as JSON: a number that is absent or not finite is None.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlexp.folder import METRICS, OVERRIDES, PLAN, RECORDS, SUMMARY, read_json
from dlexp.report.jobs import SPLITS, UNFINISHED, Job, overrides, value
from dlexp.report.load import Run, read_lines
from dlexp.report.profile import factor, profile
from dlexp.report.sweep import Arm, Sweep
from dlexp.theory import slopes
from dlexp.words import split_words

NOT_FIT = ("failed", "diverged")  # what runs did whose reason is told


def of_run(folder: Path) -> dict[str, Any]:
    """A run, finished or not: kind, folder, status, reason, command, words, choices, metrics, layers, ..."""
    run = Run(folder)
    summary = run.summary if (folder / SUMMARY).exists() else so_far(run)
    words = summary.get("overrides") or []
    job = Job(folder.name, split_words(words), summary)
    layers = summary.get("layers") or []
    found: dict[str, Any] = clean(
        {
            "kind": "run",
            "folder": str(run.folder),
            "status": summary["status"],
            "reason": job.error,
            "command": command_line(words) if _was_typed(run, summary) else None,
            "words": words,
            "network": summary.get("network"),
            "script": summary.get("script"),
            "choices": summary.get("choices"),
            "seed": job.seed,
            "steps": summary.get("steps"),
            "restored_step": summary.get("restored_step"),
            "judged_by": job.metrics[0] if job.metrics else "loss",
            "metrics": summary.get("metrics") or {},
            "recorded": summary.get("recorded") or {"first": None, "last": None},
            "delta_factor": {end: factor(profile(layers, end)) for end in ("first", "last")},
            "layers": [
                {name: layer.get(name) for name in ("name", "kind", "parameters", "first", "last", "reasons")}
                for layer in layers
            ],
            "errors": summary.get("errors"),
            "confusion": summary.get("confusion"),
            "classes": (summary.get("facts") or {}).get("classes"),
            "theory": {name: factor for name, (factor, _) in theory(run).items()},
            "gaps": summary.get("gaps"),
            "timing": summary.get("timing"),
            "device": summary.get("device"),
            "versions": summary.get("versions"),
            "config": summary.get("config"),
        }
    )
    return found


def _was_typed(run: Run, summary: Mapping[str, Any]) -> bool:
    """Whether dlexp itself made the run; the loop of a script of one's own has no words."""
    return bool(summary.get("overrides")) or "config" in summary or (run.folder / OVERRIDES).is_file()


def theory(run: Run) -> dict[str, tuple[float, str]]:
    """Quantity -> the factor per layer that theory gives for its start, and how that is called."""
    if not (run.folder / SUMMARY).exists():
        return {}
    return {name: (found.factor, found.label) for name, found in slopes(run.summary).items()}


def of_sweep(sweep: Sweep) -> dict[str, Any]:
    """A sweep, finished or not: kind, folder, command, swept, metric, best, arms, runs, ..."""
    plan = read_json(sweep.folder / PLAN)
    words = plan.get("words") or []
    counts: dict[str, int] = {}
    for job in sweep.jobs:
        counts[job.status] = counts.get(job.status, 0) + 1
    found: dict[str, Any] = clean(
        {
            "kind": "sweep",
            "folder": str(sweep.folder),
            "command": command_line(words, multirun=True) if plan else None,
            "words": words,
            "swept": sweep.swept,
            "metric": sweep.metric,
            "statuses": counts,
            "best": sweep.best,
            "arms": [_arm(sweep, arm) for arm in sweep.rows],
            "runs": [
                {
                    "run": job.name,
                    "asked": {key: value(job.asked(key)) for key in sweep.keys},
                    "seed": job.seed,
                    "status": job.status,
                    "numbers": dict(job.numbers),
                    "reason": job.error,
                }
                for arm in sweep.rows
                for job in arm.jobs
            ],
        }
    )
    return found


def _arm(sweep: Sweep, arm: Arm) -> dict[str, Any]:
    return {
        "asked": dict(zip(sweep.keys, arm.values, strict=True)),
        "runs": len(arm.jobs),
        "status": arm.status,
        "mean": {name: arm.mean(name) for name in sweep.names},
        "std": {name: arm.std(name) for name in sweep.names},
    }


def command_line(words: Sequence[str], *, multirun: bool = False) -> str:
    """What is typed to make it again."""
    return shlex.join(["dlexp", *(["-m"] if multirun else []), *words])


def splits(metrics: Mapping[str, Any]) -> list[str]:
    """Those that have a number, in their usual order."""
    found = {tag.partition("/")[2] for tag in metrics}
    return [split for split in SPLITS if split in found]


def clean(content: Any) -> Any:
    """The same with None for what JSON has no number for."""
    if isinstance(content, Mapping):
        return {str(key): clean(own) for key, own in content.items()}
    if isinstance(content, (list, tuple)):
        return [clean(own) for own in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def so_far(run: Run) -> dict[str, Any]:
    """As much of a summary as the records of an unfinished run tell."""
    header, *records = read_lines(run.folder / RECORDS) or [{"layers": [], "quantities": []}]
    evaluations = read_lines(run.folder / METRICS)
    first, last = (records[0], records[-1]) if records else ({}, {})
    numbers = {tag: x for line in evaluations for tag, x in line.items() if "/" in tag}

    def of(line: Mapping[str, Any], i: int) -> dict[str, Any] | None:
        return {name: line[name][i] for name in header["quantities"]} if line else None

    return {
        "status": UNFINISHED,
        "steps": last.get("step", -1) + 1,
        "metrics": numbers,
        "diverged": None,
        "recorded": {"first": first.get("step"), "last": last.get("step")},
        "overrides": overrides(run.folder),
        "layers": [
            {
                "name": name,
                "parameters": 0 if name.endswith("_stream") else None,  # all that is known of them
                "first": of(first, i),
                "last": of(last, i),
                "reasons": {"first": {}, "last": {}},
            }
            for i, name in enumerate(header["layers"])
        ],
    }
