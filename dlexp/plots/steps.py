"""What changes over steps: learning curves; and over time, the error that reaches a recurrent layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dlexp.better import lower_is_better
from dlexp.errors import UserError
from dlexp.numbers import compact
from dlexp.plots import check, style
from dlexp.plots.depth import empty

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAIN = "#8A8A8A"
SPLITS = {"train_dev": style.PURPLE, "validation": style.BLUE, "test": style.VERMILLION}
LARGE = 1e4  # from here on matplotlib would write a power of ten above the axis
MOST_PANELS = 4  # of recurrent layers


class Curve(NamedTuple):
    """What is known of a split."""

    name: str
    colour: str
    steps: list[int]
    numbers: list[float]  # nan where there is none
    words: list[tuple[float, str]]  # (step, "NaN" or "inf") of those that are not finite


@style.drawn
def learning_curves(
    metrics: pd.DataFrame, records: pd.DataFrame, *, title: str | None = None, narrow: bool = False
) -> Figure:
    """Loss and first metric over steps: batches of training (each a dot), validation and test.

    Args:
        metrics: `Run.metrics`; a row per evaluation.
        records: `Run.records`; of each recorded step its loss and the metrics of its batch are taken.
        title: what stands above.
        narrow: panels below each other, for a phone.

    Raises:
        UserError: one of them is not such a table.
    """
    from matplotlib.figure import Figure

    _check_curves(metrics, records)
    names = ["loss", *_first_metric(metrics)]
    if narrow:
        figure = Figure(figsize=(style.NARROW, 1.9 + 2.6 * len(names)))
        panels = figure.subplots(len(names), 1, squeeze=False)[:, 0]
        style.inches(figure, left=0.6, right=1.5, top=1.2, bottom=0.6, down=1.15, rows=len(names))
    else:
        figure = Figure(figsize=(12.6, 4.3))
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        style.inches(figure, left=0.75, right=1.95, top=1.0, bottom=0.6, across=2.55, columns=len(names))
    drawn = False
    for axes, name in zip(panels, names, strict=True):
        curves = _curves(metrics, records, name)
        drawn |= bool(curves)
        better = "lower" if lower_is_better(name) else "higher"
        _curve_panel(axes, curves, log=lower_is_better(name))
        log = ", log scale" if axes.get_yscale() == "log" else ""
        style.say_y(axes, name, f"{better} is better{log}")
    if not drawn:
        return empty(figure, "nothing evaluated yet")
    style.headline(figure, title or _finding(metrics, names))
    return figure


def _finding(metrics: pd.DataFrame, names: Sequence[str]) -> str:
    """The last numbers on validation."""
    known = {name: metrics[tag].dropna() for name in names if (tag := f"{name}/validation") in metrics}
    said = [f"{name} {compact(float(own.iloc[-1]))}" for name, own in known.items() if len(own)]
    return f"On validation in the end {', '.join(said)}" if said else "What single batches say"


def _check_curves(metrics: pd.DataFrame, records: pd.DataFrame) -> None:
    """Refuse what are no such tables, or the two in the wrong order."""
    call = "learning_curves"
    for name, table, needed in (("metrics", metrics, ["step"]), ("records", records, ["step", "layer"])):
        check.table(f"{call}: {name}", table, [], f"run.{name}")
        check.table(f"{call}: {name}", table, needed if len(table) else [], f"run.{name}")
    if "layer" in metrics:
        allowed = "allowed: learning_curves(run.metrics, run.records)"
        raise UserError(f"{call}: metrics has a column layer, so it is no table of evaluations; {allowed}")


def _first_metric(metrics: pd.DataFrame) -> list[str]:
    """The name of what the run is judged by besides its loss, if there is anything."""
    tags = [str(tag) for tag in metrics.columns if str(tag).endswith("/validation")]
    tags = tags or [str(tag) for tag in metrics.columns if "/" in str(tag)]
    return [name for name in dict.fromkeys(tag.partition("/")[0] for tag in tags) if name != "loss"][:1]


def _curves(metrics: pd.DataFrame, records: pd.DataFrame, name: str) -> list[Curve]:
    """Of each split that has numbers."""
    batches = records.drop_duplicates("step") if "step" in records else records
    batches.attrs = records.attrs
    found = [_curve(batches, name, "train batches", TRAIN)]
    found += [_curve(metrics, f"{name}/{split}", split.replace("_", "-"), at) for split, at in SPLITS.items()]
    return [curve for curve in found if curve.words or any(map(math.isfinite, curve.numbers))]


def _curve(table: pd.DataFrame, column: str, name: str, colour: str) -> Curve:
    """A column over steps; rows where it has no number are left out, unless it is not finite."""
    words: dict[int, str] = {
        step: {"nan": "NaN"}.get(word, word)
        for step, layer, own, word in table.attrs.get("not_finite", ())
        if own == column and layer is None
    }
    steps, numbers = [], []
    for step, x in table[["step", column]].itertuples(index=False) if column in table else ():
        number = math.nan if x is None else float(x)
        if math.isinf(number):
            words[int(step)] = "inf" if number > 0 else "-inf"
        if math.isfinite(number) or int(step) in words:
            steps.append(int(step))
            numbers.append(number if math.isfinite(number) else math.nan)
    return Curve(name, colour, steps, numbers, [(float(step), word) for step, word in sorted(words.items())])


def _curve_panel(axes: Axes, curves: Sequence[Curve], *, log: bool) -> None:
    """A line for each, named on its right with its last number."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    known = [x for curve in curves for x in curve.numbers if math.isfinite(x)]
    for curve in curves:
        single = sum(map(math.isfinite, curve.numbers)) == 1
        look: dict[str, Any] = {"color": curve.colour, "lw": 1.8, "ms": 4}
        if curve.colour == TRAIN:
            look |= {"lw": 0.8, "ms": 3, "alpha": 0.8}
        axes.plot(
            curve.steps,
            curve.numbers,
            "D" if single else "o-",
            **(look | {"ms": 7 if single else look["ms"]}),
        )
    if log and known and min(known) > 0 and max(known) / min(known) > style.WIDE:
        axes.set_yscale("log")
    elif known and max(map(abs, known)) >= LARGE:  # in full at each tick, not 0.2, 0.4 and "1e8" above
        axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: compact(x)))
    last = max((max(curve.steps) for curve in curves if curve.steps), default=1)
    axes.set_xlim(-0.02 * max(last, 1), 1.02 * max(last, 1))
    if any(curve.words for curve in curves):
        axes.margins(y=0.15)
    axes.autoscale_view(scalex=False)
    ends = []
    for curve in curves:
        style.crosses(axes, curve.words, curve.colour)
        finite = [x for x in curve.numbers if math.isfinite(x)]
        if curve.words and (not finite or curve.words[-1][0] == curve.steps[-1]):
            ends.append((style.TOP, f"{curve.name} {curve.words[-1][1]}", curve.colour))
        else:
            ends.append((style.share(axes, finite[-1]), f"{curve.name} {compact(finite[-1])}", curve.colour))
    style.beside(axes, ends)
    axes.set_xlabel("step", fontsize=9.5, color=style.GREY)
    narrow = axes.get_figure().get_size_inches()[0] <= style.NARROW  # type: ignore[union-attr]
    axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 7, integer=True))


@style.drawn
def over_time(table: pd.DataFrame, *, title: str | None = None, narrow: bool = False) -> Figure:
    """The error that reaches each time step of a recurrent layer, log scale: first (pale) and last recorded.

    A panel for each layer; a dashed line is that of an LSTM's cell state.

    Args:
        table: `Run.over_time`; a row per recorded step, layer and time step.
        title: what stands above.
        narrow: panels below each other, for a phone.

    Raises:
        UserError: it is not such a table.
    """
    from matplotlib.figure import Figure

    check.table("over_time: table", table, ["step", "layer", "time", "delta_rms"], "run.over_time")
    quantities = [
        name for name in ("delta_rms", "cell_delta_rms") if name in table and table[name].notna().any()
    ]
    known = table.dropna(subset=quantities, how="all") if quantities else table.iloc[:0]
    layers = [str(x) for x in known["layer"].unique()][:MOST_PANELS]
    count = max(1, len(layers))
    if narrow:
        figure = Figure(figsize=(style.NARROW, 1.9 + 2.6 * count))
        panels = figure.subplots(count, 1, squeeze=False, sharey=True)[:, 0]
        style.inches(figure, left=0.6, right=1.5, top=1.2, bottom=0.6, down=1.15, rows=count)
    else:
        figure = Figure(figsize=(12.6, 4.3))
        panels = figure.subplots(1, count, squeeze=False, sharey=True)[0]
        style.inches(figure, left=0.75, right=1.75, top=1.0, bottom=0.6, across=1.75, columns=count)
    if not layers:
        return empty(figure, "no layer ran over time")
    steps = [int(x) for x in known["step"].unique()]
    positive = [
        x for name in quantities for x in known[known["step"].isin((steps[0], steps[-1]))][name] if x > 0
    ]
    ((low, high),) = style.limits([positive])
    for axes, layer in zip(panels, layers, strict=False):
        style.decades(axes, low, high)
        style.say_y(axes, layer, "delta_rms: the error that arrives, log scale")
        ends = []
        for step in dict.fromkeys((steps[0], steps[-1])):
            own = known[(known["step"] == step) & (known["layer"] == layer)]
            for name in quantities:
                line = [(int(t), float(x)) for t, x in own[["time", name]].itertuples(index=False)]
                if not any(x >= 0 for _, x in line):
                    continue
                colour = style.BLUE if step == steps[-1] else style.PALE
                cell = "cell state, " if name != "delta_rms" else ""
                shape = "--" if cell else "-"
                ys = [x if x > 0 else math.nan for _, x in line]
                axes.plot([t for t, _ in line], ys, shape, color=colour, lw=2.2 if step == steps[-1] else 1.6)
                style.zeros(axes, [t for t, x in line if x == 0], colour)
                last = next(x for _, x in reversed(line) if x >= 0)
                ends.append((style.share(axes, last), f"{cell}step {step}", colour))
        style.beside(axes, ends)
        axes.set_xlabel("time step (0 is the first input)", fontsize=9.5, color=style.GREY)
    style.headline(figure, title or "How much error reaches each time step?")
    return figure
