"""A sweep on the terminal: a row for each arm, the best one marked, and why jobs failed."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlexp.folder import NOT_BEGUN, UNFINISHED
from dlexp.numbers import compact
from dlexp.report.jobs import Job
from dlexp.report.sweep import Arm, Sweep
from dlexp.words import short

MOST = 20  # arms that are shown
MEASURED = 1000  # columns: a terminal that is wide enough for anything
MOST_REASONS = 10  # likewise
LONGEST = 14  # characters of a value
NO_FAULT = ("healthy", "cannot_tell")
NO_GOOD_END = ("failed", "diverged")  # their reasons are told


def show(sweep: Sweep, console: Console) -> None:
    """The table of the arms, what it says, and what went wrong."""
    if not any(job.begun for job in sweep.jobs):
        console.print(Text(f"{sweep.folder}: no job has started yet"))
        return
    shown = list(range(len(sweep.rows)))
    if len(shown) > MOST:
        shown = sweep.ranked[:MOST]
    table = _table(sweep, shown, spread_of_loss=True)
    if table.__rich_measure__(console, console.options.update(width=MEASURED)).maximum > console.width:
        table = _table(sweep, shown, spread_of_loss=False)
    console.print(table)
    for line in _caption(sweep, len(shown)):
        console.print(Text(line, "dim"), soft_wrap=True)
    for text in _troubles(sweep):
        console.print(text, soft_wrap=True)
    if is_sick(sweep):
        doctor = f"dlexp doctor {shlex.quote(str(sweep.folder))}"
        console.print(Text.assemble((f"{'diagnosis':<12}", "dim"), doctor), soft_wrap=True)


def is_sick(sweep: Sweep) -> bool:
    """Has a diagnosis found anything in a run?"""
    return any(job.diagnosis not in (None, *NO_FAULT) for job in sweep.jobs)


def _table(sweep: Sweep, shown: list[int], *, spread_of_loss: bool) -> Table:
    metric = sweep.metric or "metric"
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for key in sweep.keys:
        table.add_column(_header(key), overflow="ellipsis", min_width=4)  # these make room for numbers
    columns = ("loss",) if metric == "loss" else ("loss", metric)
    factors = _has_factors(sweep)
    for name in (*columns, "delta factor") if factors else columns:
        table.add_column(_header(name), justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    sick = is_sick(sweep)
    if sick:
        table.add_column("diagnosis", no_wrap=True)
    for i in shown:
        arm = sweep.rows[i]
        loss = "loss/validation"
        numbers = [_mean(arm, loss) if spread_of_loss else compact(arm.mean(loss))]
        if metric != "loss":
            numbers.append(_metric(sweep, arm))
        if factors:
            numbers.append(compact(arm.mean("delta_factor_last")))
        mark, style = ("★", "bold green") if i == sweep.best else ("", "" if arm.ended else "red")
        typed = [Text(short(text, LONGEST)) for text in arm.typed]
        told = [_lines(arm.status), _lines(arm.diagnosis)] if sick else [_lines(arm.status)]
        table.add_row(mark, *typed, *numbers, *told, style=style)
    return table


def _has_factors(sweep: Sweep) -> bool:
    """Has any network hidden layers enough?"""
    return any(arm.mean("delta_factor_last") is not None for arm in sweep.rows)


def _header(name: str) -> str:
    """On two lines, group above key."""
    return name.replace(".", ".\n", 1).replace(" ", "\n", 1)


def _metric(sweep: Sweep, arm: Arm) -> str:
    """Mean ± sample standard deviation; with its name where arms have different ones."""
    name = sweep.metric or next((job.metrics[0] for job in arm.jobs if job.metrics), "loss")
    shown = _mean(arm, f"{name}/validation")
    return shown if sweep.metric or not arm.ended else f"{name} {shown}"


def _mean(arm: Arm, tag: str) -> str:
    """Mean ± sample standard deviation, or the number of a single run."""
    mean, std = arm.mean(tag), arm.std(tag)
    return compact(mean) if mean is None or std is None else with_spread(mean, std)


def _words(sweep: Sweep, job: Job) -> str:
    """What was asked of one job, for example activation=relu seed=1; its folder where that is not known."""
    return (
        " ".join(f"{key}={short(job.asked(key), LONGEST)}" for key in sweep.swept if job.asked(key))
        or job.name
    )


def _lines(counts: str) -> str:
    return counts.replace(", ", "\n")


def with_spread(mean: float, std: float) -> str:
    """Two digits of the spread, and as many places of the mean: 0.944 ± 0.011."""
    places = 1 - math.floor(math.log10(std)) if std else 3
    if places > 4 and abs(mean) < 1000:  # a digit of the mean for each that matters of the spread, up to four
        return f"{mean:.4f} ± {compact(std)}"
    if places < 0 or abs(mean) >= 1000:
        return f"{compact(mean)} ± {std:.2g}"
    return f"{mean:.{places}f} ± {std:.{places}f}"


def _caption(sweep: Sweep, shown: int) -> Iterator[str]:
    """What the numbers are."""
    several = any(len(arm.ended) > 1 for arm in sweep.rows)
    spread = "; mean ± standard deviation over seeds" if several else ""
    factor = "; delta factor: by which delta_rms changes in a hidden layer on its way back, last recorded"
    yield f"loss and metric on validation{spread}{factor if _has_factors(sweep) else ''}"
    if sweep.best is not None:
        pairs = zip(sweep.keys, sweep.rows[sweep.best].typed, strict=True)
        words = " ".join(f"{key}={text}" for key, text in pairs if text is not None)
        yield f"★ best {sweep.metric} on validation: {words}{warning(sweep)}"
    elif sweep.metric is None and len(sweep.rows) > 1 and any(arm.ended for arm in sweep.rows):
        yield "arms are judged by different metrics, so none is the best"
    if more := len(sweep.rows) - shown:
        yield f"the best {shown} arms; {more} more in {sweep.folder / 'sweep.csv'}"


def warning(sweep: Sweep) -> str:
    """That the best arm did not come through with all of its runs."""
    arm = sweep.rows[sweep.best or 0]
    if len(arm.ended) == len(arm.jobs):
        return ""
    return f"; careful: only {len(arm.ended)} of its {len(arm.jobs)} runs came to an end"


def _troubles(sweep: Sweep) -> Iterator[Text]:
    """A line for each job that failed or diverged; equal reasons are told once."""
    for status in NO_GOOD_END:
        folded: dict[str, list[Job]] = {}
        lines: list[str] = []
        for job in sweep.jobs:
            if job.status == status:
                folded.setdefault(job.error or "no reason on record", []).append(job)
        for reason, jobs in folded.items():
            where = _words(sweep, jobs[0]) if len(jobs) == 1 else f"{len(jobs)} jobs"
            lines.append(f"{reason} ({where})")
        yield from (Text.assemble((f"{status:<8}", "bold red"), f"  {line}") for line in lines[:MOST_REASONS])
        if (more := len(lines) - MOST_REASONS) > 0:
            yield Text(f"{status:<8}  {more} more reasons in {sweep.folder / 'runs.csv'}")
    without = "without a summary: still going on, or killed"
    for status, what in ((UNFINISHED, without), (NOT_BEGUN, NOT_BEGUN)):
        if names := [_words(sweep, job) for job in sweep.jobs if job.status == status]:
            rest = f" and {len(names) - MOST_REASONS} more" if len(names) > MOST_REASONS else ""
            count = "1 job" if len(names) == 1 else f"{len(names)} jobs"
            yield Text(f"{count} {what} ({', '.join(names[:MOST_REASONS])}{rest})", "yellow")
