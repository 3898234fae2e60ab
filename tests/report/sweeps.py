"""Sweeps written by hand, for tests of the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlexp.sweep.command import parse


def layers(*deltas: float | None, first: Sequence[float | None] | None = None) -> list[dict[str, Any]]:
    """A layer for each `delta_rms`; those at the start are the same if nothing else is said."""
    numbers = zip(deltas, first or deltas, strict=True)
    return [
        {
            "name": f"{i:02d}_linear",
            "kind": "Linear",
            "parameters": 20,
            "first": {"delta_rms": start},
            "last": {"delta_rms": last},
            "reasons": {"first": {}, "last": {}},
        }
        for i, (last, start) in enumerate(numbers, 1)
    ]


def diagnosis(primary: str) -> dict[str, Any]:
    """As much of one as tables read."""
    return {"primary": primary, "severity": "none", "sentence": primary, "layers": [], "override": []}


def summary(words: Sequence[str], status: str = "finished", **more: Any) -> dict[str, Any]:
    """A summary as a run leaves it, with accuracy 0.5 unless something else is said."""
    named = dict(word.split("=", 1) for word in words)
    return {
        "status": status,
        "error": None,
        "diverged": None,
        "diagnosis": diagnosis("non_finite" if status == "diverged" else "healthy"),
        "steps": 10,
        "metrics": {"loss/validation": 1.0, "accuracy/validation": 0.5, "loss/test": 2.0},
        "seed": int(named.get("seed", 0)),
        "overrides": list(words),
        "choices": {"model": "mlp", "data": "digits"},
        "config": {"metrics": ["accuracy"], "model": {"depth": 3}},
        "timing": {"started": "2026-11-21T10:00:00+00:00", "seconds": 0.5},
        "recorded": {"first": 0, "last": 9},
        "layers": layers(1e-3, 2e-3, 4e-3, 1e-2),
        **more,
    }


def job(sweep: Path, words: Sequence[str], status: str = "finished", **more: Any) -> Path:
    """A folder of a run that has ended."""
    folder = sweep / ",".join(words)
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary(words, status, **more)), encoding="utf-8")
    return folder


def failed(sweep: Path, words: Sequence[str], error: str) -> None:
    """A job that could not even be built."""
    folder = sweep / ",".join(words)
    folder.mkdir(parents=True)
    content = {"status": "failed", "error": error, "overrides": list(words), "metrics": {}, "layers": []}
    (folder / "summary.json").write_text(json.dumps(content), encoding="utf-8")


def unfinished(sweep: Path, words: Sequence[str]) -> Path:
    """A job that still goes on, or was killed."""
    folder = sweep / ",".join(words)
    (folder / ".hydra").mkdir(parents=True)
    text = "".join(f"- {word}\n" for word in words)
    (folder / ".hydra" / "overrides.yaml").write_text(text, encoding="utf-8")
    return folder


def declare(sweep: Path, words: Sequence[str], swept: Sequence[str]) -> None:
    """sweep.json."""
    sweep.mkdir(parents=True, exist_ok=True)
    values = parse(words).values
    content = {
        "words": list(words),
        "swept": list(swept),
        "order": {key: values[key] for key in swept if key in values},
        "jobs": None,
        "started": "2026-11-21T10:00:00",
    }
    (sweep / "sweep.json").write_text(json.dumps(content), encoding="utf-8")


def scores(accuracy: float, loss: float = 1.0) -> dict[str, float]:
    """On validation."""
    return {"loss/validation": loss, "accuracy/validation": accuracy}
