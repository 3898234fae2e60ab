"""`dlexp report PATH`: tables and pictures of a sweep or a run again, from its files alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from dlexp.errors import TRACE_HINT, UserError
from dlexp.folder import NOT_BEGUN, OVERRIDES, PAGE, UNFINISHED
from dlexp.report.load import Run
from dlexp.report.named import named
from dlexp.report.terminal import Terminal

if TYPE_CHECKING:
    from dlexp.report.sweep import Sweep

OPTIONS = ("--open", "--json")
GO_ON = (UNFINISHED, NOT_BEGUN, "interrupted")  # statuses of jobs that a resumed sweep brings further


def command(words: Sequence[str]) -> None:
    """What stands behind `dlexp report`: the folder of a run or of a sweep, half-finished ones included.

    With --open the page is shown in the browser; with --json nothing is written, and one JSON object
    printed instead of everything else.

    Raises:
        UserError: it is not one of these, or nothing can be written there.
    """
    asked = named("report", words, OPTIONS, "--json prints numbers and writes no page to open")
    with _told(asked.folder, "a report"):
        _report(*asked)


def _report(folder: Path, is_sweep: bool, options: Collection[str]) -> None:
    if "--json" in options:
        print(json.dumps(_facts(folder, is_sweep=is_sweep), allow_nan=False))
        return
    terminal = Terminal()
    if is_sweep:
        sweep, page = _report_sweep(folder, terminal.console)
        if any(job.status in GO_ON for job in sweep.jobs):
            go_on = f"if it was killed: dlexp -m resume={shlex.quote(str(folder))}"
            terminal.console.print(Text(go_on, "yellow"), soft_wrap=True)
    else:
        page = _report_run(folder, terminal)
    if "--open" in options:
        _open(page, terminal.console)


def _facts(folder: Path, *, is_sweep: bool) -> dict[str, Any]:
    from dlexp.report import facts
    from dlexp.report.sweep import Sweep

    return facts.of_sweep(Sweep(folder)) if is_sweep else facts.of_run(folder)


def _open(page: Path, console: Console) -> None:
    """In the browser; where there is none, it is said."""
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        console.print(
            Text(f"no browser to open it in; open {page} in one of yours", "yellow"), soft_wrap=True
        )


def finish(folder: Path, console: Console) -> Sweep:
    """Print the table of a sweep; write its tables, pictures and page into its folder.

    Raises:
        UserError: they cannot be written there; the table has been printed.
    """
    return _report_sweep(folder, console)[0]


def _report_sweep(folder: Path, console: Console) -> tuple[Sweep, Path]:
    """The sweep, and where its page is."""
    from dlexp.report import arms, facts, figures, page
    from dlexp.report.sweep import Sweep

    sweep = Sweep(folder)
    arms.show(sweep, console)
    with _told(folder, "its tables"):
        paths = sweep.write()
    with _told(folder, "its pictures"):
        paths += figures.draw(sweep)
    with _told(folder, PAGE):
        paths.append(page.write_sweep(facts.of_sweep(sweep), sweep))
    names = " ".join(path.name for path in paths)
    console.print(Text.assemble((f"{'look':<12}", "dim"), f"{folder}: {names}"), soft_wrap=True)
    return sweep, paths[-1]


@contextmanager
def _told(folder: Path, what: str) -> Iterator[None]:
    """Whatever goes wrong while something is made of a folder is one line; what was printed before stays."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"report {folder}: nothing can be written there: {error.strerror or error} ({what})"
        ) from error
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"report {folder}: {what} cannot be made: {said}{TRACE_HINT}") from error


def _report_run(folder: Path, terminal: Terminal) -> Path:
    """The layer table as after the run, its pictures and its page.

    Returns:
        Where the page is.
    """
    from dlexp.report import facts, figures, page

    run = Run(folder)
    summary = facts.summary_of(run)
    if summary["status"] == UNFINISHED:
        said = "no summary: the run still goes on, or was killed"
        if (folder / OVERRIDES).is_file():  # not that of somebody's own loop
            said += f"; if it was killed: dlexp resume={shlex.quote(str(folder))}"
        terminal.console.print(Text(said, "yellow"), soft_wrap=True)
    elif summary.get("error"):
        failed = Text.assemble((summary["status"], "bold red"), f"  {summary['error']}")
        terminal.console.print(failed, soft_wrap=True)
    found = facts.of_run(folder)
    if found["command"]:
        terminal.console.print(Text.assemble((f"{'asked':<12}", "dim"), found["command"]), soft_wrap=True)
    for n, sentence in enumerate(facts.story(found)):
        terminal.console.print(
            Text.assemble((f"{'' if n else 'signal':<12}", "dim"), sentence), soft_wrap=True
        )
    terminal.ending(summary, folder, folder)
    with _told(folder, "its pictures"):
        paths = figures.draw_run(run)
    with _told(folder, PAGE):
        paths.append(page.write_run(found, run))
    names = " ".join(path.name for path in paths)
    terminal.console.print(Text.assemble((f"{'':<12}", "dim"), f"{folder}: {names}"), soft_wrap=True)
    return paths[-1]
