"""What a run says on the terminal: a heading, progress, and at the end the layer table."""

from __future__ import annotations

import math
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from dlexp.folder import SPLITS
from dlexp.numbers import compact, percent

SHOWN = ("grad_norm", "delta_rms", "activation_rms", "update_ratio", "dead_fraction")
PROFILE = "delta_rms"  # what the bar shows
WIDE = 110  # columns that the table needs to show first and last beside each other
NARROW = 76  # columns that it needs to show all quantities at all
REFRESH = 0.1  # seconds between two pictures of the progress bar
FEW_RUNS = 4  # of a layer that is no cell: each is told in numbers
PLAIN_LINES = 10  # of progress where there is no terminal to draw on


class Terminal:
    """Speaks while a run goes on. It takes rows and scalars like a sink."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(highlight=False, quiet=quiet, soft_wrap=False)
        if not self.console.is_terminal and "COLUMNS" not in os.environ:
            self.console.width = WIDE
        self._bar: Progress | None = None
        self._train: dict[str, float] = {}
        self._validation: dict[str, float] = {}
        self._steps = self._next_line = 0  # of the lines that stand for a bar

    def heading(self, facts: Mapping[str, str]) -> None:
        """A line for each fact."""
        wide = max(map(len, facts))
        for name, value in facts.items():
            self._print(Text.assemble((f"{name:<{wide}}  ", "dim"), value))

    def _print(self, what: Any, *, soft_wrap: bool = True) -> None:
        """Print; if nobody listens any more (dlexp | head), the run goes on in silence."""
        if self.console.quiet:  # rich would lay it out all the same
            return
        try:
            self.console.print(what, soft_wrap=soft_wrap)
        except (OSError, SystemExit):  # rich leaves the program on a broken pipe
            self.console.quiet = True

    def gradient_check(self, checks: Sequence[Mapping[str, Any]]) -> None:
        """A line for each layer: relative difference between backpropagation and differences of the loss."""
        if not checks:
            self._print("gradient check  nothing to check: no layer has weights that learn")
        for check in checks:
            style = "bold red" if check["verdict"] == "wrong" else ""
            kinks = f", {check['kinks']} of them at a kink" if check["kinks"] else ""
            line = f"{check['layer']}  {compact(check['difference'])}  {check['verdict']}"
            self._print(Text(f"gradient check  {line} ({check['entries']} entries{kinks})", style))

    def remark(self, text: str) -> None:
        """Something that a person should know, while the run goes on."""
        self._print(Text(text, "bold yellow"))

    def track(self, steps: int, first: int = 0) -> Iterator[int]:
        """The step numbers from `first` on; meanwhile it shows how far they are, and the latest numbers."""
        if not self.console.is_terminal:
            return self._track_in_lines(steps, first)
        return self._track_in_bar(steps, first)

    def _track_in_bar(self, steps: int, first: int) -> Iterator[int]:
        bar = Progress(
            BarColumn(bar_width=14 if self.console.width < WIDE else 30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self.console,
            auto_refresh=False,  # a thread of its own would take the interpreter away from training
        )
        self._bar = bar
        bar.start()
        task = bar.add_task("training", total=steps, completed=first, numbers="")
        next_time = 0.0
        for step in range(first, steps):
            yield step
            if time.monotonic() >= next_time:
                bar.update(task, completed=step + 1, numbers=self._numbers(), refresh=True)
                next_time = time.monotonic() + REFRESH
        bar.update(task, completed=steps, refresh=True)

    def _track_in_lines(self, steps: int, first: int) -> Iterator[int]:
        each = -(-steps // PLAIN_LINES)
        self._steps, self._next_line = steps, (first // each + 1) * each
        yield from range(first, steps)

    def _line(self, step: int) -> None:
        """Where there is no terminal: a line now and then, with the numbers of the step that it names."""
        if self._steps and (step + 1 >= self._next_line or step + 1 == self._steps):
            self._next_line = step + 1 + -(-self._steps // PLAIN_LINES)
            done = f"{step + 1:>{len(str(self._steps))}}/{self._steps}"
            self._print(Text(f"{done} steps  {self._numbers()}"))

    def _numbers(self) -> str:
        """The latest numbers, e.g. "loss 0.31  accuracy 0.910 (validation 0.890)"."""
        shown = [f"loss {self._train['loss']:.3g}"] if self._train else []
        metric = next((name for name in (*self._train, *self._validation) if name != "loss"), None)
        if metric:
            values = f" {self._train[metric]:.3f}" if metric in self._train else ""
            values += f" (validation {self._validation[metric]:.3f})" if metric in self._validation else ""
            shown.append(f"{metric}{values}")
        return "  ".join(shown)

    def rows(self, rows: Sequence[Any]) -> None:
        """Recorded steps; the last one is shown."""
        for row in rows:
            self._train = {name: x for name, x in row.numbers.items() if name not in ("clip_factor", "lr")}
            self.scalars(row.step, row.scalars)
            self._line(row.step)

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Evaluations; the latest one of the validation split is shown."""
        split = "/validation"
        found = {tag.removesuffix(split): x for tag, x in numbers.items() if tag.endswith(split)}
        self._validation = found or self._validation

    def close(self) -> None:
        """Let go of the progress bar, so that what is printed next stays."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], numbers=self._numbers())
            self._bar.stop()
            self._bar = None

    def ending(self, summary: Mapping[str, Any], logdir: object, folder: object) -> None:
        """The layer table, what became of the run, the test metrics and where to look next."""
        if self.console.quiet:
            return
        if summary["layers"] and summary["layers"][0]["first"]:
            self._table(summary)
        if summary["status"] == "interrupted":
            what = f" after {summary['steps']} steps; the record so far is in {folder}"
            if summary.get("config"):  # not that of somebody's own loop
                what += f"; dlexp resume={shlex.quote(str(folder))} goes on"
            self._print(Text.assemble(("interrupted", "bold yellow"), what))
        if spoiled := summary["diverged"]:
            self._print(Text(_diverged(spoiled), "bold red"))
        for text in _stopped(summary):
            self._print(Text(text))
        for text in (*_scores(summary["metrics"]), *_gaps(summary), *_to_target(summary)):
            self._print(Text(text))
        for line in _diagnosis(summary, folder):
            self._print(line)
        look = f"tensorboard --logdir {shlex.quote(str(logdir))}"
        self._print(Text.assemble((f"{'look':<12}", "dim"), look))

    def _table(self, summary: Mapping[str, Any]) -> None:
        """A row for each layer, and a line for each that ran several times."""
        longer = max(0, max(len(layer["name"]) for layer in summary["layers"]) - len("01_linear"))
        if not self.console.is_terminal:
            self.console.width = max(self.console.width, WIDE + longer)
        wide = self.console.width >= WIDE + longer
        shown = SHOWN if self.console.width >= NARROW + longer else SHOWN[:3]
        self._print(layer_table(summary, wide=wide, shown=shown), soft_wrap=False)
        self._print(Text(_caption(summary, wide=wide, shown=shown), "dim"))
        for line in _over_time(summary["layers"], self.console.width):
            self._print(line)


def layer_table(summary: Mapping[str, Any], *, wide: bool, shown: Sequence[str] = SHOWN) -> Table:
    """A row per layer: first and last recorded of each quantity, and a bar for the profile over depth.

    Args:
        summary: what summary.json holds.
        wide: last beside first, otherwise below it.
        shown: the quantities.
    """
    layers = summary["layers"]
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("layer\n", no_wrap=True)
    for name in shown:
        head = f"{name}\n{'first':>7}{'last':>8}" if wide else name.replace("_", "\n")
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column(f"{PROFILE}\nlast, log", no_wrap=True)
    bars = log_bars([layer["last"][PROFILE] for layer in layers])
    for layer, bar in zip(layers, bars, strict=True):
        cells = []
        for name in shown:
            write = percent if name.endswith("_fraction") else compact
            first, last = (_cell(layer, end, name, write) for end in ("first", "last"))
            cells.append(f"{first:>7}{last:>8}" if wide else f"{first}\n{last}")
        table.add_row(layer["name"], *cells, Text(bar, "cyan"))
    return table


def _cell(layer: Mapping[str, Any], end: str, name: str, write: Callable[[float | None], str]) -> str:
    """A number; nan or inf where that is why there is none."""
    x = layer[end][name]
    why = ((layer.get("reasons") or {}).get(end) or {}).get(name) if x is None else None
    return str(why) if why in ("nan", "inf", "-inf") else write(x)


def _scores(metrics: Mapping[str, float | None]) -> Iterator[str]:
    """A line for each split, those that only a loop of one's own knows last."""
    found: dict[str, dict[str, float | None]] = {split: {} for split in SPLITS}
    for tag, x in metrics.items():
        name, _, split = tag.partition("/")
        found.setdefault(split, {})[name] = x
    for split, own in found.items():
        if own:
            order = sorted(own, key=lambda name: name == "loss")  # if there is one, last
            numbers = "  ".join(f"{name} {compact(own[name])}" for name in order)
            yield f"{split:<10}  {numbers}"


def _diverged(spoiled: Mapping[str, Any]) -> str:
    where = f"; first bad layer {spoiled['layer']}" if spoiled["layer"] else ""
    return f"diverged at step {spoiled['step']}: the loss is not finite{where}: {spoiled['reason']}"


def _stopped(summary: Mapping[str, Any]) -> Iterator[str]:
    """That the run ended early, and whose weights are left, if not those of the last step."""
    early, restored = summary["status"] == "stopped_early", summary.get("restored_step")
    said = [f"stopped early after step {summary['steps'] - 1}"] if early else []
    if restored is not None:
        said.append(f"weights of step {restored} are restored, the numbers below are theirs")
    if said:
        yield "; ".join(said)


SEVERE = {"none": "dim", "info": "dim", "warning": "bold yellow", "critical": "bold red"}


def _diagnosis(summary: Mapping[str, Any], folder: object) -> Iterator[Text]:
    """One sentence, and how to check what it suggests."""
    if found := summary.get("diagnosis"):
        yield Text.assemble((f"{'diagnosis':<12}", "dim"), (found["sentence"], SEVERE[found["severity"]]))
        if found["override"] and summary.get("config"):
            yield Text.assemble(
                (f"{'check it':<12}", "dim"), f"dlexp doctor {shlex.quote(str(folder))} --fix"
            )


def _gaps(summary: Mapping[str, Any]) -> Iterator[str]:
    """Where the error comes from, if more is known than the errors on train and validation."""
    gaps = summary.get("gaps") or {}
    known = [name for name in ("avoidable_bias", "variance", "mismatch") if gaps.get(name) is not None]
    if known and known != ["variance"]:
        numbers = "  ".join(f"{name} {compact(gaps[name])}" for name in known)
        yield f"{'gaps':<10}  {numbers}  (of {gaps['quantity']})"


def _to_target(summary: Mapping[str, Any]) -> Iterator[str]:
    """When the target was reached, if there was one."""
    if found := summary.get("to_target"):
        when = "not reached"
        if found["step"] is not None:
            seconds = compact(found["seconds"])
            when = f"at step {found['step']}, epoch {found['epoch']:g}, {seconds} s of training"
        yield f"{'target':<10}  {found['metric']} {found['value']:g}: {when}"


def _caption(summary: Mapping[str, Any], *, wide: bool, shown: Sequence[str]) -> str:
    first, last = summary["recorded"]["first"], summary["recorded"]["last"]
    values = [layer["last"][PROFILE] for layer in summary["layers"]]
    spread = [x for x in values if x]
    scale = f"; bar from {compact(min(spread))} to {compact(max(spread))}" if spread else ""
    steps = f"first: step {first}, last: step {last}" if wide else f"above: step {first}, below: step {last}"
    steps += ", counted from 0"
    left_out = " and ".join(name for name in SHOWN if name not in shown)
    more = f"\n{left_out}: wider terminal or summary.json" if left_out else ""
    return f"{steps}{scale}; – no number, records.jsonl says why{more}"


def _over_time(layers: Sequence[Mapping[str, Any]], width: int) -> Iterator[Text]:
    """A line for each layer that ran several times: the error that reached each of its runs, log scale.

    The runs of a cell are time steps, and the state of an LSTM cell has a line of its own.
    """
    found: list[tuple[str, Sequence[float | None], str]] = []  # title, series, its ends or why there is none
    for layer in layers:
        last = (layer.get("over_time") or {}).get("last") or {}
        for name in (PROFILE, f"cell_{PROFILE}"):
            if series := last.get(name):
                over = "over time" if layer.get("is_cell") else f"in its {len(series)} runs"
                ends = _ends(series, is_cell=layer.get("is_cell", False))
                found.append((f"{layer['name']}  {name} {over}", series, ends))
        if last and PROFILE not in last and (why := layer["reasons"]["last"].get(PROFILE)):
            found.append((f"{layer['name']}  {PROFILE} over time", [], why))
    wide = max((len(title) for title, *_ in found), default=0)
    room = width - wide - 4 - max((len(ends) for _, series, ends in found if series), default=0)
    for title, series, ends in found:
        bars = log_columns(thinned(series, min(48, max(8, room)))) if series else "–"
        yield Text.assemble((f"{title:<{wide}}  ", "dim"), (bars, "cyan"), f"  {ends}")


def _ends(series: Sequence[float | None], *, is_cell: bool) -> str:
    """The numbers of the first and the last run, or of all of a few."""
    if is_cell:
        return f"t=0 {compact(series[0])}, t={len(series) - 1} {compact(series[-1])}"
    if len(series) <= FEW_RUNS:
        return ", ".join(map(compact, series))
    return f"first {compact(series[0])}, last {compact(series[-1])}"


def thinned(series: Sequence[float | None], most: int) -> list[float | None]:
    """At most `most` of them, evenly, with the first and the last."""
    n = len(series)
    return list(series) if n <= most else [series[i * (n - 1) // (most - 1)] for i in range(most)]


def log_columns(values: Sequence[float | None]) -> str:
    """A column of one of eight heights for each value, on a log scale; a gap for none."""
    logs = [math.log10(x) if x else None for x in values]
    known = [x for x in logs if x is not None]
    if not known:
        return ""
    high, decades = max(known), max(max(known) - min(known), 2.0)
    heights = [None if x is None else round(7 * (1 - (high - x) / decades)) for x in logs]
    return "".join(" " if height is None else "▁▂▃▄▅▆▇█"[height] for height in heights)


def log_bars(values: Sequence[float | None], width: int = 10) -> list[str]:
    """A bar of block characters for each value: the length grows with its logarithm.

    The longest bar is the largest value; a decade is at most half the width, so that a flat
    profile looks flat.
    """
    logs = [math.log10(x) if x else None for x in values]
    known = [x for x in logs if x is not None]
    if not known:
        return [""] * len(values)
    high = max(known)
    decades = max(high - min(known), 2.0)
    bars = []
    for x in logs:
        eighths = 0 if x is None else max(1, round(8 * width * (1 - (high - x) / decades)))
        bars.append("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip())
    return bars
