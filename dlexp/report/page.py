"""The report as one HTML file that needs nothing else: no network, no scripts, pictures inside."""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlexp
from dlexp.better import lower_is_better
from dlexp.folder import CONFIG, COUNTED, NOT_BEGUN, PAGE, UNFINISHED, write_whole
from dlexp.numbers import compact, duration, percent
from dlexp.profile import QUANTITY as PROFILE
from dlexp.profile import hidden_and_outputs
from dlexp.report.arms import NO_FAULT, is_sick, with_spread
from dlexp.report.facts import OPTIONAL, command_line, forward_broke, splits, story, theory
from dlexp.report.load import Run
from dlexp.report.vector import dark_rules, inline, themed
from dlexp.words import short

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup
    from matplotlib.figure import Figure

    from dlexp.report.sweep import Sweep

SHOWN = (
    "grad_norm",
    "delta_rms",
    "activation_rms",
    "update_ratio",
    "dead_fraction",
)
ACTIVATION = "activation_rms"
MOST_ARMS = 200  # in the table; all are in sweep.csv
MOST_RUNS = 400  # likewise in runs.csv
MOST_TOLD = 12  # arms whose diagnosis is a sentence
TROUBLES = ("failed", "diverged")
TO_COME = ("interrupted", UNFINISHED, NOT_BEGUN)
CODE = re.compile(r"`([^`]+)`")
DARK_RULES = "/* dark colours of pictures */"


@dataclass(frozen=True)
class Picture:
    """A figure of the page, for a wide and for a narrow window."""

    name: str  # of its anchor
    alt: str  # what it shows, in numbers
    caption: str
    draw: Callable[..., Figure | None]  # with narrow=True for a phone; None: there is none for it
    broad: bool = False  # so much that its words are small even in a window of middle width

    @cached_property
    def kinds(self) -> dict[str, Markup]:
        """Of which style.css shows one; "alone" is scrolled where it is too wide."""
        from markupsafe import Markup

        figures = {"wide": self.draw(), "narrow": self.draw(narrow=True)}
        if figures["narrow"] is None:
            figures = {"alone": figures["wide"]}
        return {  # of matplotlib, and what people typed escaped
            kind: Markup(inline(figure, f"{self.name}-{kind}", self.alt, kind))
            for kind, figure in figures.items()
            if figure
        }


def write_run(facts: Mapping[str, Any], run: Run) -> Path:
    """report.html of a run, into its folder, written whole.

    Args:
        facts: those of `facts.of_run`.
        run: the same run.

    Raises:
        OSError: it cannot be written there.
    """
    config = run.folder / CONFIG / "config.yaml"
    pictures = {picture.name: picture for picture in _pictures_of_run(facts, run)}
    return _write(
        run.folder,
        "run.html",
        facts=facts,
        pictures=pictures,
        config=config.read_text(encoding="utf-8", errors="replace") if config.is_file() else "",
        shown=SHOWN,
        bars=_bars([(layer["last"] or {}).get(PROFILE) for layer in facts["layers"]]),
        total=_total(facts),
        story=story(facts),
        tries=_tries(facts),
        asked=_asked(facts),
        lead=_lead(facts),
        title=facts["command"] or f"{facts['network'] or run.folder.name} in a loop of your own",
        splits=splits(facts["metrics"]),
        metric_names=list(dict.fromkeys(tag.partition("/")[0] for tag in facts["metrics"])),
        errors=sorted(facts["errors"] or [], key=lambda row: -(row.get("errors") or 0)),
        folder_quoted=shlex.quote(facts["folder"]),
        look=f"tensorboard --logdir {shlex.quote(facts['folder'])}",
        notebook=f"dlexp.load({facts['folder']!r})",
    )


def write_sweep(facts: Mapping[str, Any], sweep: Sweep) -> Path:
    """report.html of a sweep, into its folder, written whole.

    Args:
        facts: those of `facts.of_sweep`.
        sweep: the same sweep.

    Raises:
        OSError: it cannot be written there.
    """
    from dlexp.plots.swept import colours, text
    from dlexp.report.figures import fixed, picture, pictured

    keys = pictured(sweep)
    pictures = [
        Picture(f"by-{n}", _alt_of_key(sweep, key), _caption_of_key(sweep, key), partial(picture, sweep, key))
        for n, key in enumerate(keys, 1)
    ]
    order = sorted(sweep.ranked, key=lambda i: i != sweep.best)[:MOST_ARMS]
    return _write(
        sweep.folder,
        "sweep.html",
        facts=facts,
        pictures=pictures,
        best_run=_signature_of_best(sweep),
        order=order,
        chips={
            key: {typed: themed(colour) for typed, colour in colours(sweep.runs, key).items()}
            for key in (sweep.keys if sweep.jobs else ())
        },
        typed=[[short(text) for text in arm.typed] for arm in sweep.rows],
        raw=[[text(x) for x in arm.values] for arm in sweep.rows],
        raw_keys=sweep.keys,
        keys=keys,
        fixed=fixed(sweep),
        several=any(len(arm.ended) > 1 for arm in sweep.rows),
        names_shown={"delta_factor_last": "delta factor"},
        columns=_columns(sweep),
        most_runs=MOST_RUNS,
        sick=is_sick(sweep),
        told=list(_told(sweep)),
        troubles=list(_folded(facts, TROUBLES)),
        to_come=list(_folded(facts, TO_COME)),
        folder_quoted=shlex.quote(facts["folder"]),
        look=f"tensorboard --logdir {shlex.quote(facts['folder'])}",
        notebook=f'dlexp.load_sweep("{facts["folder"]}")',
    )


def _write(folder: Path, template: str, **content: Any) -> Path:
    text = render(template, **content)
    path = folder / PAGE
    write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8") and None)
    return path


def render(template: str, **content: Any) -> str:
    """Fill a template; everything in it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dlexp.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "compact": compact,
        "percent": percent,
        "duration": duration,
        "lost": _lost,
        "short": lambda x: short(None if x is None else str(x)),
        "coded": _coded,
        "plain": plain,
    }
    environment.globals |= {
        "spread": _spread,
        "lower_is_better": lower_is_better,
        "version": dlexp.__version__,
        "now": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }
    text = environment.get_template(template).render(**content)
    return text.replace(DARK_RULES, dark_rules(text))


def _coded(text: str) -> Markup:
    """What stands between backticks as code."""
    from markupsafe import Markup, escape

    return Markup(CODE.sub(r"<code>\1</code>", str(escape(text))))


def plain(text: str) -> str:
    """Without backticks, where there is no code."""
    return CODE.sub(r"\1", text)


def _asked(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Group and choice, of those that the model has a place for."""
    chosen = facts["choices"] or {}
    groups = ("data", "model", *OPTIONAL[:1], "initializer", *OPTIONAL[1:], "loss", "optimizer")
    shown = [group for group in groups if group not in OPTIONAL or group in facts["used"]]
    return [(group, str(chosen[group])) for group in shown if chosen.get(group, "none") != "none"]


def _lead(facts: Mapping[str, Any]) -> str:
    """What happened, in a sentence."""
    steps, seconds = facts["steps"], (facts["timing"] or {}).get("seconds")
    said = f"after {steps} step{'s' if steps != 1 else ''}" if steps is not None else "before the first step"
    said += f" in {duration(seconds)}" if seconds is not None else ""
    if facts["status"] == UNFINISHED:
        said = f"so far {said.removeprefix('after ')}; the run still goes on, or was killed"
    name = facts["judged_by"]
    known = [(split, facts["metrics"].get(f"{name}/{split}")) for split in ("test", "validation", "train")]
    numbers = [f"{compact(x)} on {split}" for split, x in known if x is not None]
    return f"{said}{f': {name} {numbers[0]}' if numbers else ''}."


def _lost(over_time: Mapping[str, Any]) -> str:
    """What becomes of the error of a recurrent layer over all time steps, in decades."""
    if not over_time["total"]:
        return f"0 before t={over_time['reaches']}"
    return f"{math.log10(over_time['total']):+.1f} decades".replace("-", "−")


def _spread(mean: float | None, std: float | None) -> str:
    return compact(mean) if mean is None or std is None else with_spread(mean, std)


def _bars(values: Sequence[float | None]) -> list[int]:
    """Lengths in per cent that grow with the logarithm, over two decades at least; 0 for a zero or none."""
    logs = [math.log10(x) if x else None for x in values]
    known = [x for x in logs if x is not None]
    if not known:
        return [0] * len(values)
    high, span = max(known), max(max(known) - min(known), 2.0)
    return [0 if x is None else max(2, round(100 * (1 - (high - x) / span))) for x in logs]


def _total(facts: Mapping[str, Any]) -> tuple[str, str] | None:
    """By what `delta_rms` is multiplied over all hidden layers with a number, and which they are."""
    hidden, _ = hidden_and_outputs(facts["layers"])
    known = [(layer["name"], (layer["last"] or {}).get(PROFILE)) for layer in hidden]
    known = [(name, x) for name, x in known if x is not None]
    if len(known) < 2 or not known[-1][1]:
        return None
    return compact(known[0][1] / known[-1][1]), f"{known[-1][0]} to {known[0][0]}"


def _told(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Of each arm that suffers from something the sentence that most of its runs have; a few arms."""
    shown = 0
    for arm in sweep.rows:
        found = [job.summary["diagnosis"] for job in arm.jobs if job.diagnosis not in (None, *NO_FAULT)]
        if not found or shown == MOST_TOLD:
            continue
        shown += 1
        ((most, count),) = Counter(one["primary"] for one in found).most_common(1)
        sentence = next(one["sentence"] for one in found if one["primary"] == most)
        pairs = zip(sweep.keys, arm.typed, strict=True)
        words = " ".join(f"{key}={value}" for key, value in pairs) or "all runs"
        yield {"arm": words, "count": count, "of": len(arm.jobs), "sentence": sentence}


def _headline(facts: Mapping[str, Any]) -> str | None:
    """What the diagnosis says, without what to try, where there is something to be mended."""
    found = facts["diagnosis"]
    return None if found["primary"] in NO_FAULT else re.split("; | Try: ", str(found["sentence"]))[0]


def _tries(facts: Mapping[str, Any]) -> list[str]:
    """Whole commands, the first one first; none for a loop of one's own."""
    from dlexp.diagnose.remedies import applied

    found = facts["diagnosis"]
    if not found["override"] or not facts["command"]:
        return []
    return [command_line(applied(facts["words"], words)) for words in (found["override"], *found["further"])]


def _pictures_of_run(facts: Mapping[str, Any], run: Run) -> Iterator[Picture]:
    """Those that have something to show."""
    from dlexp import plots

    records, metrics = run.records, run.metrics
    if len(records) and PROFILE in records:
        first, last = int(records["step"].iloc[0]), int(records["step"].iloc[-1])
        marked = facts["diagnosis"]["layers"]
        red = " The diagnosis names the layers on red." if marked else ""
        yield Picture(
            "signature",
            _alt_of_signature(records, last),
            f"Gradient, error and activation of each layer at the first recorded step ({first}, pale) and the"
            f" last ({last}). A decade is equally tall in all three panels, so slopes compare; ▼ at the foot"
            f" is exactly 0, × at the top is not a finite number, a gap is no number.{red}",
            partial(plots.signature, records, slopes=theory(run), marked=marked, title=_headline(facts)),
        )
        if forward_broke(facts) and ACTIVATION in records:
            yield Picture(
                "activations",
                _alt_of_history(records, ACTIVATION),
                f"{ACTIVATION} of each layer at each recorded step: where it grew out of bounds on its way"
                " forward, and since when.",
                partial(plots.history, records, ACTIVATION),
            )
        blocks = any(str(name).endswith("_stream") for name in records["layer"].unique())
        more = (
            " Layers at the same place of their blocks stand together, and so do streams." if blocks else ""
        )
        yield Picture(
            "history",
            _alt_of_history(records, PROFILE),
            f"{PROFILE} of each layer at each recorded step: where it dies or explodes, and since when."
            f"{more}",
            partial(plots.history, records),
        )
    if len(metrics) or len(records):
        yield Picture(
            "curves",
            _alt_of_curves(facts, records, metrics),
            "Loss and metric over training. Train is single batches as they were recorded; validation and"
            " test are whole splits.",
            partial(plots.learning_curves, metrics, records),
        )
    yield from _confusion(facts)
    # The runs of any other layer, of micro-batches say, are no time.
    cells = [layer["name"] for layer in facts["layers"] if layer["is_cell"] in (True, None)]
    table = run.over_time
    table = table[table["layer"].isin(cells)]
    if PROFILE in table and table[PROFILE].notna().any():
        yield Picture(
            "time",
            _alt_of_time(table),
            "How much error reaches each time step of a recurrent layer. Flat keeps the past in reach; a line"
            " that falls to the left forgets it.",
            partial(plots.over_time, table),
        )


def _confusion(facts: Mapping[str, Any]) -> Iterator[Picture]:
    """What is taken for what, where that is known."""
    from dlexp import plots

    counts = facts["confusion"]
    if not counts:
        return
    names = [str(name) for name in facts["classes"] or range(len(counts))]
    wrong = [
        (n, names[i], names[j]) for i, row in enumerate(counts) for j, n in enumerate(row) if n and i != j
    ]
    said = [f"{n} of {right} taken for {decided}" for n, right, decided in sorted(wrong, reverse=True)[:3]]
    total, missed = sum(map(sum, counts)), sum(n for n, *_ in wrong)
    most = f"; most often {', '.join(said)}" if said else ""
    yield Picture(
        "confusion",
        f"Table of {len(counts)} by {len(counts)} classes: {missed} of {total} samples are taken for"
        f" another class{most}.",
        "What each class of the test split, a row, was taken for, a column.",
        partial(plots.confusion, counts, names),
    )


def _alt_of_signature(records: pd.DataFrame, step: int) -> str:
    rows = records[records["step"] == step]
    ends = []
    for name in ("grad_norm", PROFILE, "activation_rms"):
        known = rows[["layer", name]].dropna()
        if len(known):
            (start, x), (end, y) = (tuple(known.iloc[i]) for i in (0, -1))
            ends.append(f"{name} is {compact(x)} in {start} and {compact(y)} in {end}")
        else:
            ends.append(f"{name} has no finite number")
    return f"Three line charts over {len(rows)} layers, log scale. At step {step} {'; '.join(ends)}."


def _alt_of_history(records: pd.DataFrame, quantity: str) -> str:
    known = records[records[quantity] > 0][quantity]
    zeros, bad = int((records[quantity] == 0).sum()), records.attrs.get("not_finite", ())
    more = f"; exactly 0 in {zeros} cells" if zeros else ""
    if cells := sum(layer is not None and name == quantity for _, layer, name, _ in bad):
        more += f"; not finite in {cells} cells"
    shown = f"from {compact(known.min())} to {compact(known.max())}" if len(known) else "never above 0"
    count = records["layer"].nunique(), records["step"].nunique()
    return f"Colour map of {quantity}, {count[0]} layers by {count[1]} recorded steps: {shown}{more}."


def _alt_of_curves(facts: Mapping[str, Any], records: pd.DataFrame, metrics: pd.DataFrame) -> str:
    said = []
    for name in dict.fromkeys(("loss", facts["judged_by"])):
        known = records[name].dropna() if name in records else []
        if len(known):
            first, last = (compact(known.iloc[i]) for i in (0, -1))  # type: ignore[union-attr]
            said.append(f"{name} of train batches goes from {first} to {last}")
        for split in ("validation", "test"):
            known = metrics[f"{name}/{split}"].dropna() if f"{name}/{split}" in metrics else []
            if len(known):
                said.append(f"{name} on {split} ends at {compact(known.iloc[-1])}")  # type: ignore[union-attr]
    return f"Learning curves: {'; '.join(said) or 'no finite number'}."


def _alt_of_time(table: pd.DataFrame) -> str:
    last = table[table["step"] == table["step"].iloc[-1]]
    said = []
    for layer, rows in last.groupby("layer", sort=False):
        known = rows[["time", PROFILE]].dropna()
        if len(known):
            (t, x), (u, y) = (tuple(known.iloc[i]) for i in (0, -1))
            said.append(f"in {layer} it is {compact(x)} at time {int(t)} and {compact(y)} at time {int(u)}")
    return f"Line chart of {PROFILE} over time steps, log scale: {'; '.join(said) or 'no number'}."


def _alt_of_key(sweep: Sweep, key: str) -> str:
    """The mean metric and delta factor of each value."""
    tag = f"{sweep.metric or 'loss'}/validation"
    runs = sweep.runs
    said = []
    for shown, rows in runs.groupby(runs[key].map(str), sort=False, dropna=False):
        ended = rows[rows["status"].isin(COUNTED)]
        mean = ended[tag].mean() if tag in ended and len(ended) else math.nan
        factor = ended["delta_factor_last"].mean() if len(ended) else math.nan
        numbers = f"{compact(mean)}" if not math.isnan(mean) else "no number"
        more = f", delta factor {compact(factor)}" if not math.isnan(factor) else ""
        said.append(f"{short(str(shown))}: {numbers}{more}")
    left_out = f"; and {len(said) - 20} more values" if len(said) > 20 else ""
    return f"Mean {tag.replace('/', ' on ')} by {key}: {'; '.join(said[:20])}{left_out}."


def _caption_of_key(sweep: Sweep, key: str) -> str:
    from dlexp.plots.swept import folded_keys

    metric = f"{sweep.metric or 'loss'} on validation"
    said = f"What {key} does to {metric}, a dot for each run, and to the error that reaches each layer."
    if folded := folded_keys(sweep.runs, key):
        said += f" Means are over all values of {' and '.join(folded)}; a thin line joins runs with the same."
    return said


def _signature_of_best(sweep: Sweep) -> Picture | None:
    """Of the best run of the best arm, if what it recorded is there."""
    from dlexp import plots

    if sweep.best is None:
        return None
    tag = f"{sweep.metric}/validation"
    sign = 1 if lower_is_better(tag) else -1
    ended = [job for job in sweep.rows[sweep.best].ended if job.numbers.get(tag) is not None]
    if not ended:
        return None
    best = min(ended, key=lambda job: sign * (job.numbers[tag] or 0.0))
    run = Run(sweep.folder / best.name)
    records = run.records
    if not len(records) or PROFILE not in records:
        return None
    last = int(records["step"].iloc[-1])
    return Picture(
        "best-signature",
        _alt_of_signature(records, last),
        f"The best run, {best.name}: each layer at the first (pale) and the last recorded step.",
        partial(plots.signature, records, slopes=theory(run)),
    )


def _columns(sweep: Sweep) -> list[str]:
    """The numbers in the table of arms."""
    metric = sweep.metric or "loss"
    wanted = ["loss/validation", f"{metric}/validation", f"{metric}/test", "delta_factor_last"]
    return [name for name in dict.fromkeys(wanted) if any(arm.mean(name) is not None for arm in sweep.rows)]


def _folded(facts: Mapping[str, Any], statuses: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Runs that did not come to their end; equal reasons are told once."""
    for status in statuses:
        own = [run for run in facts["runs"] if run["status"] == status]
        for reason, count in Counter(run["reason"] for run in own).most_common(20):
            names = [run["run"] for run in own if run["reason"] == reason]
            yield {"status": status, "reason": reason, "count": count, "names": names[:10]}
