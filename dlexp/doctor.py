"""`dlexp doctor PATH`: what went wrong in a run or a sweep; with --fix, whether what is suggested helps."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

import dlexp
from dlexp import diagnose
from dlexp.diagnose import Diagnosis
from dlexp.diagnose.cure import improvements, is_better, is_worse, number
from dlexp.diagnose.remedies import applied
from dlexp.errors import UserError
from dlexp.folder import CONFIG, OVERRIDES, SPLITS
from dlexp.numbers import compact
from dlexp.report.facts import clean, command_line
from dlexp.report.jobs import Job
from dlexp.report.named import named
from dlexp.report.terminal import SEVERE, Terminal
from dlexp.words import split_words
from dlexp.written import is_recorded, overrides, read_summary, read_yaml

if TYPE_CHECKING:
    from rich.console import Console

    from dlexp.report.sweep import Sweep

OPTIONS = ("--fix", "--json")
MOST_TRIES = 3  # of a fix


def command(words: Sequence[str]) -> None:
    """What stands behind `dlexp doctor`; --fix ends with exit code 1 if nothing that was tried is a fix.

    Raises:
        UserError: it is neither a run nor a sweep, or cannot be made again.
    """
    folder, is_sweep, options = named("doctor", words, OPTIONS, "--json trains nothing")
    console = Terminal().console
    if is_sweep:
        from dlexp.report.sweep import Sweep

        sweep = Sweep(folder)
        if "--fix" in options:
            raise UserError(
                f"doctor {' '.join(words)}: a sweep; allowed: one of its runs, for example {_sick(sweep)}"
            )
        of_sweep(sweep, console, as_json="--json" in options)
    elif "--json" in options:
        print(json.dumps(clean(diagnose.of_run(folder).as_dict()), allow_nan=False))
    elif "--fix" in options:
        if not fix(folder, console):
            sys.exit(1)
    else:
        show(Case.of(folder), console)


@dataclass(frozen=True)
class Case:
    """A run and what it suffers from."""

    folder: Path
    words: tuple[str, ...] | None  # that made it; None: a loop of somebody's own
    summary: Mapping[str, Any]  # {} if there is none (yet)
    diagnosis: Diagnosis

    @classmethod
    def of(cls, folder: Path) -> Case:
        summary = read_summary(folder)
        # A copy may lack the hidden folder of words, which the summary has as well.
        made = (folder / OVERRIDES).is_file() or bool(summary.get("config"))
        words = tuple(summary.get("overrides") or overrides(folder)) if made else None
        return cls(folder, words, summary, diagnose.of_run(folder))

    @property
    def metric(self) -> str | None:
        """What it is judged by, beside the loss."""
        return next(iter(Job(self.folder.name, split_words(self.words or ()), self.summary).metrics), None)


def _diagnoses(sweep: Sweep) -> dict[str, Diagnosis]:
    """Of each run of which there is anything: by the name of its folder."""
    folders = {job.name: sweep.folder / job.name for job in sweep.jobs}
    return {name: diagnose.of_run(folder) for name, folder in folders.items() if is_recorded(folder)}


def of_sweep(sweep: Sweep, console: Console, *, as_json: bool) -> None:
    """A line for each arm: how many of its runs have which diagnosis."""
    found = _diagnoses(sweep)
    if as_json:
        runs = [{"run": name, **diagnosis.as_dict()} for name, diagnosis in found.items()]
        content = clean({"kind": "sweep", "folder": str(sweep.folder), "runs": runs})
        print(json.dumps(content, allow_nan=False))
        return
    from dlexp.report.sweep import counted

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in (*sweep.keys, "diagnosis", "for example"):
        table.add_column(column)
    for arm in sweep.rows:
        own = [found[job.name] for job in arm.jobs if job.name in found]
        worst = max(own, key=lambda one: diagnose.SEVERITIES.index(one.severity), default=None)
        said = counted(one.primary for one in own) or "nothing recorded"
        style = SEVERE[worst.severity] if worst else ""
        table.add_row(*map(str, arm.values), Text(said, style), worst.sentence if worst else "")
    console.print(table)


def _sick(sweep: Sweep) -> str:
    """A run of a sweep that has something to be mended."""
    found = _diagnoses(sweep)
    name = next((name for name, one in found.items() if one.override), next(iter(found), None))
    return shlex.quote(str(sweep.folder / name)) if name else "outputs/..."


def show(case: Case, console: Console, *, checked: bool = False) -> None:
    """The sentence, the evidence, what it explains, what to try and, unless it is `checked` now, how."""
    found = case.diagnosis
    lines = [("", Text(found.sentence, SEVERE[found.severity]))]
    if found.evidence:
        lines.append(("evidence", Text(_evidence(found))))
    lines += [("explains", Text(f"{one['id']}: {one['sentence']}")) for one in found.folded]
    if case.words is not None:
        tries = case.diagnosis.tries
        lines += [("try" if n == 0 else "or", Text(_command(case, own))) for n, own in enumerate(tries)]
        if tries and not checked:
            lines.append(("check it", Text(f"dlexp doctor {shlex.quote(str(case.folder))} --fix")))
    for name, text in lines:
        console.print(Text.assemble((f"{name:<12}" if name else "", "dim"), text), soft_wrap=True)


def _evidence(found: Diagnosis) -> str:
    """For example "decades of delta_rms 7.4, threshold 2; 01_linear to 11_linear; from step 0 on"."""
    evidence = found.evidence
    parts = [
        f"{evidence['quantity']} {compact(evidence['value'])}, threshold {compact(evidence['threshold'])}"
    ]
    if found.layers:
        few = len(found.layers) < 3
        parts.append(" and ".join(found.layers) if few else f"{found.layers[0]} to {found.layers[-1]}")
    if found.since is not None:
        parts.append("from the start on" if found.since == 0 else f"from step {found.since} on")
    return "; ".join(parts)


def _command(case: Case, override: Sequence[str]) -> str:
    return command_line(applied(case.words or (), override))


@dataclass(frozen=True)
class Try:
    """A run that was made again with other words."""

    override: tuple[str, ...]
    words: tuple[str, ...]
    case: Case


def fix(folder: Path, console: Console) -> bool:
    """Run it again with what is suggested, at the same seed; then print before and after.

    Returns:
        Is there nothing to be mended, or a fix?

    Raises:
        UserError: it cannot be made again.
    """
    first = Case.of(folder)
    if first.words is None:
        what = "a loop of your own, which dlexp cannot run; allowed: a run of dlexp"
        raise UserError(f"doctor {folder} --fix: {what}")
    show(first, console, checked=True)
    if not first.diagnosis.tries:
        console.print("nothing to try")
        return first.diagnosis.severity in ("none", "info")
    configs = _own_configs(folder)

    def make(words: Sequence[str]) -> Case | None:
        console.print(Text.assemble((f"{'run':<12}", "dim"), command_line(words)), soft_wrap=True)
        try:
            with console.status("training"):
                after = Case.of(dlexp.run(words, quiet=True, config_dir=configs).folder)
        except UserError as error:
            console.print(Text.assemble(" " * 12, (f"cannot be run: {error}", "yellow")), soft_wrap=True)
            return None
        found = after.diagnosis
        console.print(Text.assemble(" " * 12, (found.sentence, SEVERE[found.severity])), soft_wrap=True)
        return after

    tried = attempts(first, make)
    if tried:
        console.print()
        console.print(_side_by_side(first, tried))
        console.print(_verdict(first, tried), soft_wrap=True)
    return any(is_fix(first, one.case) for one in tried)


def attempts(first: Case, make: Callable[[Sequence[str]], Case | None]) -> list[Try]:
    """At most `MOST_TRIES` runs, until one is healthy and better in all that counts.

    Where what was found is better and the loss no worse, what is suggested for the new run comes next, on top
    of it; otherwise that is taken back, and the next suggestion for the run before is tried.

    Args:
        make: trains with these words; None if they cannot be used.
    """
    at, waiting, tried = first, first.diagnosis.tries, list[Try]()
    while waiting and len(tried) < MOST_TRIES:
        override, *waiting = waiting
        words = applied(at.words or (), override)
        after = make(words)
        if after is None:
            continue
        tried.append(Try(tuple(override), tuple(words), after))
        if is_fix(first, after) and after.diagnosis.primary == "healthy":
            break
        helped = is_better(at.diagnosis, after.diagnosis) and not is_worse(at.summary, after.summary)
        if helped and after.diagnosis.tries:
            at, waiting = after, after.diagnosis.tries
    return tried


def is_fix(before: Case, after: Case) -> bool:
    """Only if the loss, the metric and what was found are better."""
    return all(_improvements(before, after).values())


def _own_configs(folder: Path) -> str | None:
    """The folder of YAML files of one's own that the run was made with."""
    hydra = read_yaml(folder / CONFIG / "hydra.yaml").get("hydra") or {}
    sources = (hydra.get("runtime") or {}).get("config_sources") or []
    own = [source["path"] for source in sources if source.get("provider") == "command-line"]
    return own[0] if own else None


def _side_by_side(first: Case, tried: Sequence[Try]) -> Table:
    """A column for each run, before and after."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("before")
    for n in range(len(tried)):
        table.add_column(f"try {n + 1}")
    cases = [first, *(one.case for one in tried)]
    table.add_row("words", "", *(" ".join(one.override) for one in tried))
    table.add_row("status", *(str(case.summary.get("status", "unfinished")) for case in cases))
    table.add_row("diagnosis", *(_label(case.diagnosis) for case in cases))
    for tag in dict.fromkeys(tag for case in cases for tag in _told(case)):
        table.add_row(tag, *(compact(number(case.summary, tag)) for case in cases))
    table.add_row("folder", *(case.folder.name for case in cases))
    return table


def _told(case: Case) -> Iterator[str]:
    """Loss and metric of each split."""
    metrics = case.summary.get("metrics") or {}
    for name in dict.fromkeys(("loss", case.metric or "loss")):
        yield from (tag for split in SPLITS if (tag := f"{name}/{split}") in metrics)


def _label(found: Diagnosis) -> Text:
    return Text(found.primary, SEVERE[found.severity])


def _verdict(first: Case, tried: Sequence[Try]) -> Text:
    """Which of the runs is a fix, and in what it is better; or why none is."""
    fixes = [(_improvements(first, one.case), one) for one in tried if is_fix(first, one.case)]
    if not fixes:
        short = [f"try {n}: {', '.join(_short_of(first, one))}" for n, one in enumerate(tried, 1)]
        return Text(f"not fixed   {'; '.join(short)}", "bold yellow")
    found, best = min(fixes, key=lambda fix: number(fix[1].case.summary, next(iter(fix[0]))) or 0.0)
    changes = [
        f"{tag} {compact(number(first.summary, tag))} -> {compact(number(best.case.summary, tag))}"
        for tag in found
        if "/" in tag
    ]
    left = first.diagnosis.primary == best.case.diagnosis.primary
    said = f"{', '.join(changes)}, {first.diagnosis.primary} is {'weaker' if left else 'gone'}"
    return Text.assemble(("fixed       ", "bold green"), f"{said}: {command_line(best.words)}")


def _improvements(before: Case, after: Case) -> dict[str, bool]:
    return improvements(before.summary, after.summary, before.diagnosis, after.diagnosis, after.metric)


def _short_of(first: Case, one: Try) -> Iterator[str]:
    for name, is_better_now in _improvements(first, one.case).items():
        if not is_better_now:
            yield f"{name} {'is no better' if '/' in name else 'is still there'}"
