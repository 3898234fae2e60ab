"""`dlexp report PATH`: tables and pictures of a sweep or a run again, from its files alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from dlexp.errors import TRACE_HINT, UserError
from dlexp.folder import CONFIG, NOT_BEGUN, PAGE, PLAN, SUMMARY, UNFINISHED
from dlexp.report.jobs import is_job
from dlexp.report.load import Run
from dlexp.report.terminal import Terminal

if TYPE_CHECKING:
    from dlexp.report.sweep import Sweep

SHOWN = 5  # folders that are named where none was found
OPTIONS = ("--open", "--json")
GO_ON = (UNFINISHED, NOT_BEGUN, "interrupted")  # statuses of jobs that a resumed sweep brings further


def command(words: Sequence[str]) -> None:
    """What stands behind `dlexp report`: the folder of a run or of a sweep, half-finished ones included.

    With --open the page is shown in the browser; with --json nothing is written, and one JSON object
    printed instead of everything else.

    Raises:
        UserError: it is not one of these, or nothing can be written there.
    """
    paths = [word for word in words if not word.startswith("--")]
    options = [word for word in words if word.startswith("--")]
    said = f"report {' '.join(words)}".rstrip()
    if unknown := [word for word in options if word not in OPTIONS]:
        raise UserError(f"{said}: no option {unknown[0]}; allowed: {', '.join(OPTIONS)}")
    if set(OPTIONS) <= set(options):
        raise UserError(f"{said}: --json prints numbers and writes no page to open; leave one of them out")
    if len(paths) != 1:
        what = "name the folder of a run or of a sweep" if not paths else "one folder at a time"
        raise UserError(f"{said}: {what}, for example dlexp report outputs/sweep/...")
    folder = latest() if paths == ["latest"] else Path(paths[0]).expanduser()
    with _told(folder, "a report"):
        _report(folder, options)


def _report(folder: Path, options: Sequence[str]) -> None:
    kind = _kind(folder)
    if "--json" in options:
        print(json.dumps(_facts(folder, kind), allow_nan=False))
        return
    terminal = Terminal()
    if kind == "sweep":
        sweep, page = _report_sweep(folder, terminal.console)
        if any(job.status in GO_ON for job in sweep.jobs):
            go_on = f"if it was killed: dlexp -m resume={shlex.quote(str(folder))}"
            terminal.console.print(Text(go_on, "yellow"), soft_wrap=True)
    else:
        page = _report_run(folder, terminal)
    if "--open" in options:
        _open(page, terminal.console)


def latest(outputs: Path = Path("outputs")) -> Path:
    """The run or sweep whose files changed last."""
    places = (*outputs.glob(f"sweep/*/{PLAN}"), *outputs.glob(f"*/*/{CONFIG}"))
    if not places:
        raise UserError(f"report latest: nothing in {outputs}; allowed: a folder")
    return max(places, key=lambda path: path.stat().st_mtime_ns).parent


def _facts(folder: Path, kind: str) -> dict[str, Any]:
    from dlexp.report import facts
    from dlexp.report.sweep import Sweep

    return facts.of_sweep(Sweep(folder)) if kind == "sweep" else facts.of_run(folder)


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
        go_on = f"if it was killed: dlexp resume={shlex.quote(str(folder))}"
        said = f"no summary: the run still goes on, or was killed; {go_on}"
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
