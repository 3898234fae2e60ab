"""`dlexp report PATH`: tables and pictures of a sweep or a run again, from its files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from dlexp.errors import UserError
from dlexp.folder import METRICS, PLAN, RECORDS, SUMMARY
from dlexp.report.jobs import UNFINISHED, Job, is_job, overrides
from dlexp.report.load import Run, read_lines
from dlexp.report.terminal import Terminal

if TYPE_CHECKING:
    from dlexp.report.sweep import Sweep

SHOWN = 5  # folders that are named where none was found


def command(words: Sequence[str]) -> None:
    """What stands behind `dlexp report`: the folder of a run or of a sweep, half-finished ones included.

    Raises:
        UserError: it is not one of these, or nothing can be written there.
    """
    if len(words) != 1:
        what = "name the folder of a run or of a sweep" if not words else "one folder at a time"
        raise UserError(
            f"report {' '.join(words)}".rstrip() + f": {what}, for example dlexp report outputs/sweep/..."
        )
    folder = Path(words[0]).expanduser()
    kind = _kind(folder)
    terminal = Terminal()
    if kind == "sweep":
        finish(folder, terminal.console)
    else:
        _report_run(folder, terminal)


def finish(folder: Path, console: Console) -> Sweep:
    """Print the table of a sweep; write sweep.csv, runs.csv and the pictures into its folder.

    Raises:
        UserError: they cannot be written there; the table has been printed.
    """
    from dlexp.report import arms, figures
    from dlexp.report.sweep import Sweep

    sweep = Sweep(folder)
    arms.show(sweep, console)
    try:
        paths = [*sweep.write(), *figures.draw(sweep)]
    except OSError as error:
        raise _unwritable(folder, error) from error
    names = " ".join(path.name for path in paths)
    console.print(Text.assemble((f"{'look':<12}", "dim"), f"{folder}: {names}"), soft_wrap=True)
    return sweep


def _kind(folder: Path) -> str:
    """Whether it holds a run or a sweep; any folder with folders of runs will do.

    Raises:
        UserError: neither.
    """
    if not folder.is_dir():
        raise UserError(f"report {folder}: {'no such folder' if not folder.exists() else 'not a folder'}")
    if (folder / PLAN).is_file():
        return "sweep"
    if is_job(folder):
        return "run"
    if any(is_job(path) for path in folder.iterdir()):
        return "sweep"
    inside = [
        path.parent for depth in ("*/*", "*/*/*", "*/*/*/*") for path in folder.glob(f"{depth}/{SUMMARY}")
    ]
    holders = {run.parent if run.parent.parent.name == "sweep" else run for run in inside}
    found = sorted(holders, key=lambda path: path.name)  # the name is a date
    hint = f"; try {', '.join(map(str, found[-SHOWN:]))}" if found else ""
    raise UserError(f"report {folder}: holds neither a run nor a sweep{hint}")


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"report {folder}: nothing can be written there: {error.strerror or error}")


def _report_run(folder: Path, terminal: Terminal) -> None:
    """The layer table as after the run, and its picture."""
    from dlexp.report import figures

    run = Run(folder)
    summary = run.summary if (folder / SUMMARY).exists() else so_far(run)
    if summary["status"] == UNFINISHED:
        terminal.console.print(Text("no summary: the run still goes on, or was killed", "yellow"))
    terminal.ending(summary, folder, folder)
    try:
        path = figures.draw_run(folder, summary, _curves(run, Job(folder.name, {}, summary).metrics))
    except OSError as error:
        raise _unwritable(folder, error) from error
    terminal.console.print(Text.assemble((f"{'':<12}", "dim"), str(path)), soft_wrap=True)


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


def _curves(run: Run, metrics: Sequence[str]) -> dict[str, list[tuple[int, float | None]]]:
    """The learning curve: the first metric, or the loss, on training batches and on validation."""
    name = next(iter(metrics), "loss")
    _, *records = read_lines(run.folder / RECORDS) or [{}]
    curves = {
        f"{name}/train": [(line["step"], line[name]) for line in records if name in line],
        f"{name}/validation": [
            (line["step"], line[f"{name}/validation"])
            for line in read_lines(run.folder / METRICS)
            if f"{name}/validation" in line
        ],
    }
    return {tag: points for tag, points in curves.items() if points}
