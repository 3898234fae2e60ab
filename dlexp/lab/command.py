"""The commands of the notebook: python experiments/<slug>.py, and python -m experiments for many."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dlexp.errors import TRACE_HINT, UserError
from dlexp.lab import jobs
from dlexp.lab.experiment import Experiment, Result, asked
from dlexp.lab.jobs import Task
from dlexp.lab.verdict import WORDS
from dlexp.startup import collect_rarely, keep_what_is_freed
from dlexp.words import key_of

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {"supported": "green", "refuted": "red", "depends": "yellow", "inconclusive": "dim"}
WIDEST = 100  # letters in a line of a claim: more are hard to read
LONGEST = 300  # letters of a measurement


def of_page(experiment: Experiment) -> None:
    """python experiments/<slug>.py [--quick] [--jobs N] [key=value ...]"""
    parser = _parser(experiment.slug, experiment.question)
    parser.add_argument("words", nargs="*", metavar="key=value", help="choices in place of its own; seeds=10")
    with _told(experiment.slug):
        options = parser.parse_args()
        console = _console()
        (result,) = run([experiment], options.words, console, jobs_at_once=options.jobs, quick=options.quick)
        show(result, console)
        page, picture = _write(result)
        console.print(f"{'look':<12}{page}{f'  {picture}' if picture else ''}", soft_wrap=True)
        if result.failed:
            sys.exit(1)


def notebook(folder: Path) -> None:
    """python -m experiments [--all] [--quick] [--jobs N] [slug ...] [key=value ...]"""
    parser = _parser("experiments", "Runs experiments, judges their claims, writes the atlas.")
    parser.add_argument("words", nargs="*", metavar="slug|key=value", help="which ones, and choices for them")
    parser.add_argument("--all", action="store_true", help="every experiment")
    with _told("experiments"):
        options = parser.parse_args()
        slugs = [word for word in options.words if "=" not in word]
        words = [word for word in options.words if "=" in word]
        found = pages(folder, slugs, every=options.all)
        console = _console()
        results = run(
            [experiment_of(page) for page in found],
            words,
            console,
            jobs_at_once=options.jobs,
            quick=options.quick,
        )
        if options.all:
            count(results, console)
        else:
            for result in results:
                show(result, console)
        from dlexp.lab import atlas

        # The table in the repository is that of all experiments as they stand.
        whole = options.all and not options.quick and not [w for w in words if key_of(w) != "outputs"]
        table = folder / "RESULTS.md" if options.all and not options.quick and not words else None
        for path in atlas.write(results, table, "atlas" if whole else "atlas_part"):
            console.print(f"{'wrote':<12}{path}", soft_wrap=True)
        if any(result.failed for result in results):
            sys.exit(1)


def pages(folder: Path, slugs: Sequence[str], *, every: bool) -> list[Path]:
    """The pages of some experiments, or of every one.

    Raises:
        UserError: there is no such experiment, or none is named.
    """
    known = {path.stem: path.resolve() for path in sorted(folder.glob("*.py")) if path.stem[0] != "_"}
    for slug in slugs:
        if slug not in known:
            close = difflib.get_close_matches(slug, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"{slug}: no such experiment{hint}; allowed: {', '.join(known)}")
    if not slugs and not every:
        raise UserError(f"name experiments, or --all; there are: {', '.join(known)}")
    return list(known.values()) if every else [known[slug] for slug in slugs]


def experiment_of(page: Path) -> Experiment:
    """The one that a page makes."""
    module = jobs.load(page)
    found = [thing for thing in vars(module).values() if isinstance(thing, Experiment)]
    if len(found) != 1:
        raise UserError(f"{page}: makes {len(found)} experiments; allowed: 1")
    return found[0]


def run(
    experiments: Sequence[Experiment],
    words: Sequence[str],
    console: Console,
    *,
    jobs_at_once: int = 1,
    quick: bool = False,
) -> list[Result]:
    """Do what is still to be done for all of them, and judge.

    Raises:
        UserError: a word cannot be used, and nothing was begun; or the first run of a sweep failed.
    """
    begun = time.monotonic()
    asked_of = [asked(words, quick=one.quick if quick else ()) for one in experiments]
    planned = [one.tasks(*own) for one, own in zip(experiments, asked_of, strict=True)]
    every = [task for tasks in planned for task in tasks]
    left = [len([task for task in tasks if not task.done]) for tasks in planned]
    if sum(left):
        console.print(f"{'runs':<12}{len(every)}, of which {sum(left)} are still to be done", soft_wrap=True)
        checked = jobs.check(every)
        parts: set[str] = set()
        with _progress(console, sum(left)) as advance:
            for task in jobs.work(every, jobs_at_once, checked):
                advance(task.part)
                _refuse_failure(task, first=task.part not in parts)
                parts.add(task.part)
    return [
        one.result(own[0], tasks, own[1], count, begun)
        for one, own, tasks, count in zip(experiments, asked_of, planned, left, strict=True)
    ]


def _refuse_failure(task: Task, *, first: bool) -> None:
    """Data that are not there, say, fail each run alike: the first run of a sweep tells so for all."""
    if first and task.page is None and (job := task.read().job).status == "failed":
        raise UserError(f"the first run of {task.part} failed: {job.error}")


def show(result: Result, console: Console) -> None:
    """The claims with their verdicts; of long measurements the beginning, for all is on the page."""
    from rich.table import Table
    from rich.text import Text

    experiment = result.experiment
    console.print(Text(f"\n{experiment.slug}: {experiment.question}", "bold"))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(max_width=WIDEST)
    for claim, verdict in result.verdicts:
        measured = textwrap.shorten(verdict.measured, LONGEST, placeholder=" ...")
        places = f" ({', '.join(claim.places)})"
        table.add_row(
            Text(verdict.word, COLOURS[verdict.word]),
            Text.assemble(
                (claim.says, "bold"), (places, "dim"), "\n", (f"{claim.measures}: ", "dim"), measured
            ),
        )
    console.print(table)
    for reason in result.failed:
        console.print(Text(f"{'failed':<12}{reason}", "red"), soft_wrap=True)
    console.print(f"{'claims':<12}{_counted(result)}", soft_wrap=True)
    lost = f" ({result.lost})" if result.lost else ""
    console.print(f"{'runs':<12}{len(result.runs)}{lost}, {result.done} of them new, {result.seconds:.1f} s")
    _note_others([result], console)
    _note_outdated([result], console)


def _note_others(results: Sequence[Result], console: Console) -> None:
    """Numbers that are not those of the notebook."""
    if any(result.words for result in results):
        what = "runs of other choices; bounds and causes are those that the notebook's own ask for and have"
        console.print(f"{'note':<12}{what}", soft_wrap=True)


def _note_outdated(results: Sequence[Result], console: Console) -> None:
    if number := sum(result.outdated for result in results):
        place = results[0].outputs / "lab"
        what = f"{number} runs were made before dlexp's code changed; without {place} they are made anew"
        console.print(f"{'note':<12}{what}", soft_wrap=True)


def count(results: Sequence[Result], console: Console) -> None:
    """Of many experiments how many claims came out how; the claims are in the atlas."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("experiment", no_wrap=True)
    for word in (*WORDS, "runs"):
        table.add_column(word, justify="right", style=COLOURS.get(word))
    rows = [Counter(verdict.word for _, verdict in result.verdicts) for result in results]
    runs = [len(result.runs) for result in results]
    for result, words, own in zip(results, rows, runs, strict=True):
        table.add_row(result.experiment.slug, *(str(words[word] or "") for word in WORDS), str(own))
    total = sum(rows, Counter())
    table.add_row("all", *(str(total[word]) for word in WORDS), str(sum(runs)), style="bold")
    console.print(table)
    for result in results:
        for reason in result.failed:
            console.print(f"{'failed':<12}{result.experiment.slug}: {reason}", style="red", soft_wrap=True)
    _note_others(results, console)
    _note_outdated(results, console)


def _counted(result: Result) -> str:
    words = Counter(verdict.word for _, verdict in result.verdicts)
    return ", ".join(f"{words[word]} {word}" for word in WORDS if words[word])


def _write(result: Result) -> tuple[Path, Path | None]:
    from dlexp.lab import atlas

    return atlas.write_page(result)


def _parser(name: str, says: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=name, description=says, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="a small version; its verdicts mean nothing")
    parser.add_argument(
        "--jobs", type=_count_of_jobs, default=1, metavar="N", help="processes that run at once"
    )
    return parser


def _count_of_jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: allowed: a whole number, 1 or more")
    return int(text)


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    return console


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[str], None]]:
    """One line that moves; nothing where nobody sees it move."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=total)
        yield lambda part: progress.update(bar, advance=1, description=part)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """An error is one clear line for each finding."""
    collect_rarely()
    keep_what_is_freed()
    try:
        yield
    except UserError as error:
        for line in error.lines:
            print(f"{name}: {line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"{name}: {text}{TRACE_HINT}", file=sys.stderr)
        sys.exit(1)
