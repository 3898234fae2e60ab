"""What layers do over depth: the signature of a run, and its history."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from dlexp.errors import UserError
from dlexp.numbers import compact
from dlexp.plots import style
from dlexp.profile import factor

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

PANELS = {
    "grad_norm": "norm of dLoss/dWeights of a layer",
    "delta_rms": "rms of dLoss/dz: the error that arrives",
    "activation_rms": "rms of the activations",
}
LONGEST = 14  # characters of a name
LAYERS = "layer, from the inputs to the outputs"
STREAM = "_stream"  # the name of what a residual block hands on ends so; it has no weights
MOST_NAMES = 20  # of layers below a panel
THEORY = "#444444"
MOST_ROWS = 26  # of a colour map that are as tall as a name; more of them are thinner
MOST_COLUMNS = 400  # of a colour map: more steps than pixels are thinned
ZERO, ABSENT, NOT_FINITE = "#000000", "#D9D9D9", style.VERMILLION
KEYS = {ZERO: "exactly 0", ABSENT: "no number", NOT_FINITE: "NaN or inf"}


class Point(NamedTuple):
    """A quantity of a layer at a step."""

    number: float  # nan if there is none
    word: str | None  # what it is instead, if it is there but not finite: "NaN", "inf"


@style.drawn
def signature(
    records: pd.DataFrame,
    *,
    step: int | None = None,
    slopes: Mapping[str, tuple[float, str]] | None = None,
    title: str | None = None,
) -> Figure:
    """Three panels over depth, log scale: gradients, the error that reaches each layer, activations.

    A decade is equally tall in all three, so that slopes compare. The first recorded step is pale. A zero
    is a triangle at the foot, a number that is not finite a cross at the top; what is absent is a gap.

    Args:
        records: `Run.records`; a row per recorded step and layer.
        step: the recorded step to show; the last one if not said.
        slopes: quantity -> what theory says: the factor from a hidden layer to the one before it (nearer to
            the inputs), and what to call it. A line through the last hidden layer of the first step.
        title: what stands above; what happens to `delta_rms` if not said.

    Raises:
        UserError: the step was not recorded, or a column is missing.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.6, 4.6))
    panels = figure.subplots(1, 3)
    style.inches(figure, left=0.65, right=1.2, top=1.0, bottom=1.1, across=1.65, columns=3)
    columns(records, ["step", "layer"])
    steps = [int(x) for x in records["step"].unique()]
    if not steps:
        return empty(figure, "nothing recorded yet")
    columns(records, [*PANELS])
    chosen = steps[-1] if step is None else step
    if chosen not in steps:
        allowed = ", ".join(map(str, style.thinned(steps, 12)))
        raise UserError(f"step={step}: not recorded; allowed: {allowed}{', ...' if len(steps) > 12 else ''}")
    lines = {
        name: {own: _points(records, own, name) for own in dict.fromkeys((steps[0], chosen))}
        for name in PANELS
    }
    names = [str(x) for x in records.loc[records["step"] == steps[0], "layer"]]
    limits = style.limits([[p.number for line in own.values() for p in line] for own in lines.values()])
    for axes, (name, own), (low, high) in zip(panels, lines.items(), limits, strict=True):
        style.say_y(axes, name, f"{PANELS[name]}, log scale")
        style.decades(axes, low, high)
        if name in (slopes or {}):
            _slope(axes, names, own[steps[0]], *(slopes or {})[name])
        ends = []
        for at, line in own.items():
            colour = style.BLUE if at == chosen else style.PALE
            _line(axes, names, line, colour, strong=at == chosen)
            if any(p.word or not math.isnan(p.number) for p in line):
                ends.append((_end(axes, line), f"step {at}", colour))
        style.beside(axes, ends)
        if not ends:
            where = {"transform": axes.transAxes, "ha": "center"}
            axes.text(0.5, 0.5, "no number on record", color=style.GREY, **where)
        layer_axis(axes, names)
    finding = title or _finding(names, lines["delta_rms"][chosen], chosen)
    figure.suptitle(finding, weight="bold", x=0.65 / 12.6, ha="left", y=0.965)
    return figure


def columns(table: pd.DataFrame, needed: Sequence[str]) -> None:
    """Refuse a table that is not what it should be."""
    if missing := [name for name in needed if name not in table]:
        have = ", ".join(map(str, table.columns)) or "no columns"
        raise UserError(f"columns={','.join(missing)}: not in the table; it has {have}")


def empty(figure: Figure, why: str) -> Figure:
    """A picture that says why there is none."""
    for axes in figure.axes:
        axes.set_axis_off()
    figure.text(0.5, 0.5, why, ha="center", color=style.GREY)
    return figure


def _points(records: pd.DataFrame, step: int, quantity: str) -> list[Point]:
    """(L,) A quantity of each layer at a step."""
    rows = records.loc[records["step"] == step, ["layer", quantity]]
    words = {
        str(layer): {"nan": "NaN"}.get(word, word)
        for at, layer, name, word in records.attrs.get("not_finite", ())
        if at == step and name == quantity
    }
    found = []
    for layer, x in rows.itertuples(index=False):
        number = math.nan if x is None else float(x)
        if math.isinf(number):
            found.append(Point(math.nan, "inf" if number > 0 else "-inf"))
        else:
            found.append(Point(number, words.get(str(layer)) if math.isnan(number) else None))
    return found


def _series(names: Sequence[str]) -> list[list[int]]:
    """The places of layers with weights, and those of streams, which are a line of their own."""
    streams = [i for i, name in enumerate(names) if name.endswith(STREAM)]
    return [[i for i in range(len(names)) if i not in set(streams)], streams]


def _line(axes: Axes, names: Sequence[str], line: Sequence[Point], colour: Any, *, strong: bool) -> None:
    """Numbers over layers: 1 is next to the inputs."""
    look: dict[str, Any] = {"color": colour, "lw": 2.2 if strong else 1.6, "zorder": 3 if strong else 2}
    own, streams = _series(names)
    small = 4.5 if len(own) <= 30 else 0.0
    for places, shape, more in (
        (own, "-o", {"ms": small}),
        (streams, ":s", {"ms": small, "mfc": "white", "lw": 1.2}),
    ):
        if places:
            ys = [line[i].number or math.nan for i in places]
            axes.plot([i + 1 for i in places], ys, shape, **(look | more))
    style.zeros(axes, [i + 1 for i, p in enumerate(line) if p.number == 0], colour)
    style.crosses(axes, [(i + 1, p.word) for i, p in enumerate(line) if p.word], colour)


def _end(axes: Axes, line: Sequence[Point]) -> float:
    """Where a line ends on the right, as a share of the height."""
    last = next(p for p in reversed(line) if p.word or not math.isnan(p.number))
    return style.TOP if last.word else style.share(axes, last.number)


def _slope(axes: Axes, names: Sequence[str], line: Sequence[Point], per_layer: float, label: str) -> None:
    """What theory says, from the last hidden layer back to the first one."""
    hidden = _series(names)[0][:-1]
    start = line[hidden[-1]].number if len(hidden) > 1 else math.nan
    if math.isnan(start) or start <= 0 or per_layer <= 0:
        return
    back = range(len(hidden) - 1, -1, -1)
    ys = [start * per_layer**n for n in back]
    axes.plot([i + 1 for i in hidden], ys, "--", color=THEORY, lw=1.0, zorder=4)
    first = next((p.number for p in line if p.number > 0), start)
    above = ys[0] >= first
    width, height = axes.get_figure().get_size_inches() * axes.get_position().size  # type: ignore[union-attr]
    across = (hidden[-1] - hidden[0]) / len(names) * width
    up = (style.share(axes, ys[-1]) - style.share(axes, ys[0])) * height
    angle = math.atan2(up, across)
    off = 4.5 if above else -4.5  # points from the line, at a right angle
    axes.annotate(
        label,
        (hidden[0] + 1, ys[0]),
        (-off * math.sin(angle), off * math.cos(angle)),
        textcoords="offset points",
        rotation=math.degrees(angle),
        rotation_mode="anchor",
        va="bottom" if above else "top",
        fontsize=9,
        color=THEORY,
    )


def layer_axis(axes: Axes, names: Sequence[str]) -> None:
    """A tick for each layer with its name, of many for every second one, every fifth and so on."""
    each = next((n for n in (1, 2, 5, 10, 20, 50, 100) if len(names) / n <= MOST_NAMES), 200)
    places = range(1, len(names) + 1, each)
    labels = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names[::each]]
    axes.set_xticks(places, labels, rotation=90, fontsize=8)
    axes.set_xlim(0.5, len(names) + 0.5)
    axes.set_xlabel(LAYERS, fontsize=9.5, color=style.GREY)
    if any(name.endswith(STREAM) for name in names):
        axes.set_xlabel(f"{LAYERS}\n(dotted: streams between blocks)", fontsize=9.5, color=style.GREY)
    axes.grid(axis="x", visible=len(names) <= MOST_NAMES)


def _finding(names: Sequence[str], line: Sequence[Point], step: int) -> str:
    """What `delta_rms` does in a hidden layer on its way back."""
    own = [line[i].number for i in _series(names)[0]]
    found = factor([None if math.isnan(x) else x for x in own])
    if found is None:
        return f"What reaches each layer, at step {step}"
    said = f"On its way back delta_rms changes by a factor of {compact(found)}"
    return f"{said} in each hidden layer (step {step})"


@style.drawn
def history(records: pd.DataFrame, quantity: str = "delta_rms", *, title: str | None = None) -> Figure:
    """Layers x recorded steps as a colour map, log scale: where a signal dies or explodes, and since when.

    Zeros are black, what is not finite vermillion, what is absent grey. Steps stand at even distances.

    Args:
        records: `Run.records`.
        quantity: a column of it, for example grad_norm.
        title: what stands above.

    Raises:
        UserError: there is no such column.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    columns(records, ["step", "layer", quantity])
    names = [str(x) for x in records["layer"].unique()]
    rows = min(max(len(names), 6), MOST_ROWS)
    left = 0.65 + 0.075 * max(map(len, names), default=0)
    figure = Figure(figsize=(12.6, 1.75 + 0.24 * rows))
    axes = figure.subplots()
    style.inches(figure, left=left, right=2.2, top=0.75, bottom=0.75)
    steps = style.thinned([int(x) for x in records["step"].unique()], MOST_COLUMNS)
    if not steps or not names:
        return empty(figure, "nothing recorded yet")
    table = [_points(own, step, quantity) for step, own in _by_step(records, steps)]
    known = [p.number for line in table for p in line if p.number > 0]
    low, high = (min(known), max(known)) if known else (0.1, 1.0)
    if high / low < 100:  # a flat history looks flat
        middle = math.sqrt(low * high)
        low, high = middle / 10, middle * 10
    scale = ScalarMappable(LogNorm(low, high), "viridis")
    pixels, used = _pixels(table, scale)
    axes.imshow(pixels, aspect="auto", interpolation="nearest")
    axes.grid(visible=False)
    _step_ticks(axes, steps)
    each = next(n for n in (1, 2, 5, 10, 20, 50, 100, 10**9) if len(names) / n <= rows)
    axes.set_yticks(range(0, len(names), each), names[::each], fontsize=9)
    axes.set_ylabel("layer, inputs at the top", fontsize=9.5, color=style.GREY)
    width, height = figure.get_size_inches()
    if known:
        place = (1 - 1.95 / width, 0.75 / height, 0.22 / width, 1 - 1.5 / height)
        bar = figure.colorbar(scale, cax=figure.add_axes(place))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        bar.set_label(f"{quantity}, log scale", fontsize=9.5, color=style.GREY)
        bar.outline.set_visible(False)  # type: ignore[operator]
    for n, colour in enumerate(colour for colour in KEYS if colour in used):
        x, y = 1 - 1.95 / width, (0.4 - 0.2 * n) / height
        figure.text(x, y, "■", color=colour, fontsize=12, va="center")
        figure.text(x + 0.22 / width, y, KEYS[colour], color=style.GREY, fontsize=9.5, va="center")
    said = title or f"{quantity} of each layer while the run went on"
    figure.suptitle(said, weight="bold", x=left / width, ha="left", y=1 - 0.2 / height, va="top")
    return figure


def _by_step(records: pd.DataFrame, steps: Sequence[int]) -> Iterator[tuple[int, pd.DataFrame]]:
    """The rows of each of the steps, without searching the whole table for each."""
    for step, own in records[records["step"].isin(steps)].groupby("step", sort=False):
        yield int(step), own  # type: ignore[arg-type,call-overload]


def _pixels(table: Sequence[Sequence[Point]], scale: ScalarMappable) -> tuple[np.ndarray[Any, Any], set[str]]:
    """(L, T, 4) Colours of the numbers of L layers at T steps, and which colours stand for no number."""
    import numpy as np
    from matplotlib.colors import to_rgba

    numbers = np.array([[p.number for p in line] for line in table]).T
    pixels = scale.to_rgba(np.where(numbers > 0, numbers, 1.0))
    words = np.array([[p.word is not None for p in line] for line in table]).T
    masks = {ZERO: numbers == 0, NOT_FINITE: words, ABSENT: np.isnan(numbers) & ~words}
    for colour, mask in masks.items():
        pixels[mask] = to_rgba(colour)
    return pixels, {colour for colour, mask in masks.items() if mask.any()}


def _step_ticks(axes: Axes, steps: Sequence[int]) -> None:
    """Some of the recorded steps below their columns."""
    places = style.thinned(range(len(steps)), 14)
    axes.set_xticks(places, [str(steps[i]) for i in places], fontsize=9)
    even = len({b - a for a, b in pairwise(steps)}) <= 1
    axes.set_xlabel(
        f"step{'' if even else ' (those recorded, at even distances)'}", fontsize=9.5, color=style.GREY
    )
