"""The files of pictures: of a sweep one for each swept key, of a run its layers and its learning curves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from dlexp import plots
from dlexp.folder import PICTURES, write_whole
from dlexp.report.facts import theory
from dlexp.report.jobs import Job
from dlexp.report.load import Run
from dlexp.report.sweep import SEED, Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130
NOT_ASKED = ("outputs", "name", "device", "threads", "record", "hydra")  # words that a picture leaves out


def draw(sweep: Sweep) -> list[Path]:
    """One picture for each swept key, by_<key>.png, into the sweep's folder.

    Raises:
        OSError: they cannot be written there.
    """
    return [_save(picture(sweep, key), sweep.folder / f"by_{_safe(key)}.png") for key in pictured(sweep)]


def pictured(sweep: Sweep) -> list[str]:
    """The swept keys that have a picture; of a sweep over seeds alone those."""
    return (sweep.keys or [SEED] * (SEED in sweep.swept)) if sweep.jobs else []


def picture(sweep: Sweep, key: str, *, narrow: bool = False) -> Figure:
    """What a swept key does to the metric, and to the error that reaches each layer."""
    asked = {"metric": sweep.metric or "loss", "note": fixed(sweep)}
    return plots.arms(sweep.runs, sweep.profiles, key, **asked, narrow=narrow)


def fixed(sweep: Sweep) -> str:
    """What all runs have in common: network and data, and the words that were typed."""
    jobs = [job for job in sweep.jobs if "choices" in job.summary]
    common = [
        f"{key}={text}"
        for key, text in (jobs[0].words if jobs else {}).items()
        if key not in sweep.swept and _said(key, text, jobs)
    ]
    for group in [group for group in ("data", "model") if group not in sweep.swept]:
        named = (
            {job.asked(group) for job in jobs} if not any(x.startswith(f"{group}=") for x in common) else ()
        )
        if len(named) == 1 and None not in named:
            common.insert(0, f"{group}={named.pop()}")  # type: ignore[union-attr]
    return " ".join(common)


def _said(key: str, text: str, jobs: list[Job]) -> bool:
    return key.split(".")[0] not in NOT_ASKED and all(job.words.get(key) == text for job in jobs)


def draw_run(run: Run) -> list[Path]:
    """layers.png and curves.png of a single run, into its folder.

    Raises:
        OSError: they cannot be written there.
    """
    layers = _save(plots.signature(run.records, slopes=theory(run)), run.folder / PICTURES[0])
    return [layers, _save(plots.learning_curves(run.metrics, run.records), run.folder / PICTURES[1])]


def _save(figure: Figure, path: Path) -> Path:
    write_whole(path, lambda draft: figure.savefig(draft, dpi=DPI, format="png"))
    return path


def _safe(key: str) -> str:
    return re.sub(r"[^\w.-]", "_", key)
