"""A run folder: made once, never shared, never overwritten."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from dlexp.errors import UserError

CONFIG = ".hydra"
RECORDS = "records.jsonl"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
WEIGHTS = "weights.pt"


def create(outputs: str, name: str, now: datetime) -> Path:
    """A new folder outputs/name/date_time; runs that start in the same second get _2, _3, ...

    Raises:
        UserError: no folder can be made there.
    """
    base = Path(outputs).expanduser() / name / now.strftime("%Y-%m-%d_%H-%M-%S")
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        for n in count(1):
            folder = base if n == 1 else base.with_name(f"{base.name}_{n}")
            try:
                folder.mkdir()  # fails if it is there, also if another process made it just now
                (folder / CONFIG).mkdir()
                return folder
            except FileExistsError:
                continue
    except OSError as error:
        raise UserError(f"outputs={outputs}: no run folder can be made there: {error.strerror}") from error
    raise AssertionError("unreachable")


def claim(folder: Path) -> Path:
    """A folder that somebody named; it may be there, but not hold a run.

    Raises:
        UserError: it holds a run already, or cannot be made.
    """
    held = f"hydra.run.dir={folder}: holds a run already; allowed: a folder without"
    for name in (RECORDS, METRICS, SUMMARY):
        if (folder / name).exists():
            raise UserError(f"{held} {name}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).mkdir()  # the claim: fails if another process made it just now
    except FileExistsError as error:
        if folder.is_dir():
            raise UserError(f"{held} {CONFIG}") from error
        raise UserError(f"hydra.run.dir={folder}: cannot be made: {error.strerror}") from error
    except OSError as error:
        raise UserError(f"hydra.run.dir={folder}: cannot be made: {error.strerror}") from error
    return folder


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file so that a reader finds the old one or the new one, never half of one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    write(draft)
    draft.replace(path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))
