"""What a report says, as plain data: the page is made of it, and `dlexp report PATH --json` prints it.

Everything in it can be written as JSON: a number that is absent or not finite is None.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlexp.folder import CONFIG, METRICS, OVERRIDES, PLAN, RECORDS, SUMMARY, UNFINISHED, read_json
from dlexp.numbers import compact
from dlexp.profile import QUANTITY as PROFILE
from dlexp.profile import factor, profile
from dlexp.report.jobs import SPLITS, Job, overrides
from dlexp.report.load import Run, read_lines
from dlexp.report.sweep import Arm, Sweep
from dlexp.theory import slopes
from dlexp.words import split_words, value

SHOWN_OF_LAYERS = ("name", "kind", "parameters", "is_cell", "first", "last", "reasons")
NOTABLE = 100.0  # fold: what a network of a few layers does not do by chance
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
            "signal": signal(run, layers),
            "layers": [{name: layer.get(name) for name in SHOWN_OF_LAYERS} for layer in layers],
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


def signal(run: Run, layers: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What becomes of `delta_rms` on its way back through the hidden layers, and since when.

    It vanishes or explodes where less than a hundredth of it, or more than a hundredfold, arrives.

    Returns:
        `becomes` "vanishes", "explodes" or "arrives"; `total` the factor from the last hidden layer to the
        first at the last recorded step; `since` the recorded step from which on it has been so. None where
        it is not known.
    """
    weighted = [i for i, layer in enumerate(layers) if layer.get("parameters") != 0]
    _, *records = read_lines(run.folder / RECORDS) or [{}]
    found: list[tuple[int, float]] = []
    for line in records:
        deltas = line.get(PROFILE) or []
        hidden = [deltas[i] for i in weighted[:-1] if i < len(deltas)]
        if len(hidden) > 1 and hidden[0] is not None and hidden[-1]:
            found.append((line["step"], hidden[0] / hidden[-1]))
    if not found:
        return None
    said = [_becomes(total) for _, total in found]
    same = next((n for n, word in enumerate(reversed(said)) if word != said[-1]), len(said))
    return {"becomes": said[-1], "total": found[-1][1], "since": found[len(said) - same][0]}


def _becomes(total: float) -> str:
    return "vanishes" if total < 1 / NOTABLE else "explodes" if total > NOTABLE else "arrives"


def in_words(found: Mapping[str, Any] | None) -> str | None:
    """The same as a sentence."""
    if found is None:
        return None
    since = "from the start on" if not found["since"] else f"from step {found['since']} on"
    times = "nothing" if not found["total"] else f"{compact(found['total'])} times as much"
    arrives = f"{times} of the error arrives at the first hidden layer as stands at the last"
    if found["becomes"] == "arrives":
        return f"The signal neither vanishes nor explodes: {arrives}."
    return f"The signal {found['becomes']} on its way back, {since}: {arrives}."


def _was_typed(run: Run, summary: Mapping[str, Any]) -> bool:
    """Whether dlexp itself made the run; the loop of a script of one's own has no words."""
    return bool(summary.get("overrides")) or "config" in summary or (run.folder / OVERRIDES).is_file()


def theory(run: Run) -> dict[str, tuple[float, str]]:
    """Quantity -> the factor per layer that theory gives for its start, and how that is called."""
    summary = run.summary if (run.folder / SUMMARY).exists() else so_far(run)
    return {name: (found.factor, found.label) for name, found in slopes(summary).items()}


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


def _yaml(path: Path) -> dict[str, Any]:
    """What a YAML file holds; {} if it is not there or is not whole."""
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def so_far(run: Run) -> dict[str, Any]:
    """As much of a summary as the records of an unfinished run tell."""
    header, *records = read_lines(run.folder / RECORDS) or [{"layers": [], "quantities": []}]
    evaluations = read_lines(run.folder / METRICS)
    first, last = (records[0], records[-1]) if records else ({}, {})
    numbers = {tag: x for line in evaluations for tag, x in line.items() if "/" in tag}

    def of(line: Mapping[str, Any], i: int) -> dict[str, Any] | None:
        return {name: line[name][i] for name in header["quantities"]} if line else None

    config, hydra = (_yaml(run.folder / CONFIG / f"{name}.yaml") for name in ("config", "hydra"))
    chosen = ((hydra.get("hydra") or {}).get("runtime") or {}).get("choices") or {}
    return {
        "status": UNFINISHED,
        "config": config or None,
        "seed": config.get("seed"),
        "choices": {key: word for key, word in chosen.items() if not key.startswith("hydra/")} or None,
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
