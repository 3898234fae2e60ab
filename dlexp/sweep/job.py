"""A job of a sweep: its folder, and a summary whatever happens."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlexp import folder as folders
from dlexp.compose import Request
from dlexp.errors import TRACE_HINT, BusyError, UserError
from dlexp.folder import TRACE
from dlexp.sweep.command import job_name
from dlexp.sweep.place import plan_of

PERIOD = 1.0  # seconds between two looks at who launched us


def placed(request: Request, folder: Path, number: int) -> Request | None:
    """The request with the run folder of its job: a name that TensorBoard's list of runs can show.

    None: it is not this job's turn (`Sweep.launch`).
    """
    plan = plan_of(folder)
    name = job_name(request.overrides, plan, number)
    if plan["only"] is not None and name not in plan["only"]:
        return None
    return replace(request, folder=folder / name, swept=tuple(plan["swept"]))


def job(request: Request) -> float | None:
    """Run a job of a sweep, or what is left of it, and leave a summary whatever happens.

    Returns:
        The objective, for a sweeper that searches; None of a job that failed.
    """
    from dlexp import runner

    assert request.folder is not None
    begun = time.time_ns()
    try:
        summary = runner.run(request, quiet=True, resume=True).summary
    except (Exception, SystemExit) as error:  # the next job must not suffer from it
        lines = error.lines if isinstance(error, UserError) else [f"{type(error).__name__}: {error}"]
        reason = " ".join("; ".join(lines).split())
        # What another process is at work on, or what can still be gone on with, is not to be lost.
        lost = isinstance(error, BusyError) or folders.status(request.folder) == "interrupted"
        if not lost and (not isinstance(error, UserError) or TRACE_HINT in reason):
            reason = reason.replace(TRACE_HINT, "")
            with contextlib.suppress(OSError):
                request.folder.mkdir(parents=True, exist_ok=True)
                (request.folder / TRACE).write_text(traceback.format_exc(), encoding="utf-8")
        if lost or not _write_failed(request, reason, begun):
            print(f"dlexp: {request.folder.name}: {reason}", file=sys.stderr, flush=True)
        return None
    return _objective(summary, request)


def _write_failed(request: Request, reason: str, begun: int) -> bool:
    """See that the summary says so; False: there is nowhere to write it."""
    assert request.folder is not None
    path = request.folder / folders.SUMMARY
    with contextlib.suppress(OSError):
        if path.stat().st_mtime_ns >= begun:  # the run has said so itself
            return True
    asked = {"seed": request.config.seed, "overrides": request.overrides, "choices": request.choices}
    return write_failed(request.folder, reason, asked)


def write_failed(folder: Path, reason: str, asked: dict[str, Any]) -> bool:
    """The summary of a job that failed before it had one; False: there is nowhere to write it."""
    summary = {
        "status": "failed",
        "error": reason,
        "steps": 0,
        **asked,
        "diverged": None,
        "metrics": {},
        "recorded": {"first": None, "last": None},
        "layers": [],
        "timing": {"started": folders.now()},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folders.write_json(folder / folders.SUMMARY, summary)
    except OSError:
        return False
    return True


def _objective(summary: dict[str, Any], request: Request) -> float:
    """What a search makes as small, or as large, as it can; of a run that diverged the worst there is."""
    name, direction = request.config.objective, request.hydra.sweeper.get("direction")
    worst = -math.inf if str(direction).endswith("maximize") else math.inf
    found = summary["metrics"].get(name)
    return worst if found is None or summary["status"] == "diverged" else float(found)


@contextmanager
def not_left_alone() -> Iterator[None]:
    """In a process that was launched: end the run, with a checkpoint, if whoever launched it is gone."""
    parent, over = os.getppid(), threading.Event()

    def look() -> None:
        while not over.wait(PERIOD):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=look, name="dlexp parent", daemon=True).start()
    try:
        yield
    finally:
        over.set()
