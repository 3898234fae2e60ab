"""What layers do over depth: the signature of a run, and its history."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from dlexp.numbers import compact
from dlexp.plots import check, style
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
MARKED = 0.12  # of the colour behind a layer that is marked
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
    marked: Sequence[str] = (),
    title: str | None = None,
    narrow: bool = False,
) -> Figure:
    """Three panels over depth, log scale: gradients, the error that reaches each layer, activations.

    A decade is equally tall in all three, so that slopes compare. The first recorded step is pale. A zero
    is a triangle at the foot, a number that is not finite a cross at the top; what is absent is a gap.
    Heads that stand side by side are one place in depth.

    Args:
        records: `Run.records`; a row per recorded step and layer.
        step: the recorded step to show; the last one if not said.
        slopes: quantity -> what theory says: the factor from a hidden layer to the one before it (nearer to
            the inputs), and what to call it. A line through the last hidden layer of the first step.
        marked: layers that stand on a ground of their own, those that a diagnosis names say.
        title: what stands above; what happens to `delta_rms` if not said.
        narrow: panels below each other, for a phone.

    Raises:
        UserError: the step was not recorded, or it is not such a table.
    """
    from matplotlib.figure import Figure

    check.table("signature: records", records, ["step", "layer"], "run.records")
    check.slopes(slopes or {}, [*PANELS])
    figure = Figure(figsize=(style.NARROW, 9.6) if narrow else (13.6, 4.6))
    panels = figure.subplots(3, 1, sharex=True) if narrow else figure.subplots(1, 3)
    if narrow:
        style.inches(figure, left=0.6, right=0.8, top=1.3, bottom=1.15, down=0.8, rows=3)
    else:
        style.inches(figure, left=0.65, right=1.2, top=1.0, bottom=1.1, across=1.65, columns=3)
    steps = [int(x) for x in records["step"].unique()]
    if not steps:
        return empty(figure, "nothing recorded yet")
    check.table("signature: records", records, [*PANELS], "run.records")
    chosen = steps[-1] if step is None else step
    check.step(chosen, steps)
    lines = {
        name: {own: _points(records, own, name) for own in dict.fromkeys((steps[0], chosen))}
        for name in PANELS
    }
    names = [str(x) for x in records.loc[records["step"] == steps[0], "layer"]]
    places = _places(names, records.attrs.get("side_by_side", ()))
    limits = style.limits([[p.number for line in own.values() for p in line] for own in lines.values()])
    for axes, (name, own), (low, high) in zip(panels, lines.items(), limits, strict=True):
        style.say_y(axes, name, f"{PANELS[name]}, log scale")
        style.decades(axes, low, high)
        if name in (slopes or {}):
            _slope(axes, names, places, own[steps[0]], *(slopes or {})[name])
        ends = []
        for at, line in own.items():
            colour = style.BLUE if at == chosen else style.PALE
            _line(axes, names, places, line, colour, strong=at == chosen)
            if any(p.word or not math.isnan(p.number) for p in line):
                ends.append((_end(axes, line), f"step {at}", colour))
        style.beside(axes, ends)
        if not ends:
            where = {"transform": axes.transAxes, "ha": "center"}
            axes.text(0.5, 0.5, "no number on record", color=style.GREY, **where)
        layer_axis(axes, names, places)
        for place in {place for name, place in zip(names, places, strict=True) if name in marked}:
            axes.axvspan(place - 0.5, place + 0.5, color=style.VERMILLION, alpha=MARKED, lw=0, zorder=0)
        if narrow and axes is not panels[-1]:
            axes.set_xlabel("")
    style.headline(figure, title or _finding(names, places, lines["delta_rms"][chosen], chosen))
    return figure


def _places(names: Sequence[str], heads: Sequence[str]) -> list[int]:
    """Of each layer its place in depth, from 1: heads side by side share one."""
    return [i + 1 - sum(own in heads[1:] for own in names[: i + 1]) for i in range(len(names))]


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


def _line(
    axes: Axes,
    names: Sequence[str],
    places: Sequence[int],
    line: Sequence[Point],
    colour: Any,
    *,
    strong: bool,
) -> None:
    """Numbers over layers: 1 is next to the inputs."""
    look: dict[str, Any] = {"color": colour, "lw": 2.2 if strong else 1.6, "zorder": 3 if strong else 2}
    own, streams = _series(names)
    small = 4.5 if len(own) <= 30 else 0.0
    for rows, shape, more in (
        (own, "-o", {"ms": small}),
        (streams, ":s", {"ms": small, "mfc": "white", "lw": 1.2}),
    ):
        if rows:
            ys = [line[i].number or math.nan for i in rows]
            axes.plot([places[i] for i in rows], ys, shape, **(look | more))
    style.zeros(axes, [x for x, p in zip(places, line, strict=True) if p.number == 0], colour)
    style.crosses(axes, [(x, p.word) for x, p in zip(places, line, strict=True) if p.word], colour)


def _end(axes: Axes, line: Sequence[Point]) -> float:
    """Where a line ends on the right, as a share of the height."""
    last = next(p for p in reversed(line) if p.word or not math.isnan(p.number))
    return style.TOP if last.word else style.share(axes, last.number)


def _slope(
    axes: Axes,
    names: Sequence[str],
    places: Sequence[int],
    line: Sequence[Point],
    per_layer: float,
    label: str,
) -> None:
    """What theory says, from the last hidden layer back to the first one."""
    hidden = _hidden(names, places)
    start = line[hidden[-1]].number if len(hidden) > 1 else math.nan
    if math.isnan(start) or start <= 0 or per_layer <= 0:
        return
    back = range(len(hidden) - 1, -1, -1)
    ys = [start * per_layer**n for n in back]
    axes.plot([i + 1 for i in hidden], ys, "--", color=THEORY, lw=1.0, zorder=4)
    first = next((p.number for p in line if p.number > 0), start)
    above = ys[0] >= first or style.share(axes, min(ys)) < 0.15  # below it would lie on the axis
    width, height = axes.get_figure().get_size_inches() * axes.get_position().size  # type: ignore[union-attr]
    across = (hidden[-1] - hidden[0]) / places[-1] * width
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


def _hidden(names: Sequence[str], places: Sequence[int]) -> list[int]:
    """Which rows are hidden layers with weights: all but those at the last place."""
    return [i for i in _series(names)[0] if places[i] != places[-1]]


def layer_axis(axes: Axes, names: Sequence[str], places: Sequence[int]) -> None:
    """A tick for each place with its layer, of many for every second one, every fifth and so on."""
    shown = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    if (heads := sum(place == places[-1] for place in places)) > 1:
        shown[-heads] = f"{heads} heads"
    labels = [shown[places.index(place)] for place in dict.fromkeys(places)]
    each = next((n for n in (1, 2, 5, 10, 20, 50, 100) if len(labels) / n <= MOST_NAMES), 200)
    axes.set_xticks(range(1, len(labels) + 1, each), labels[::each], rotation=90, fontsize=8)
    axes.set_xlim(0.5, len(labels) + 0.5)
    axes.set_xlabel(LAYERS, fontsize=9.5, color=style.GREY)
    if any(name.endswith(STREAM) for name in names):
        axes.set_xlabel(f"{LAYERS}\n(dotted: streams between blocks)", fontsize=9.5, color=style.GREY)
    axes.grid(axis="x", visible=len(labels) <= MOST_NAMES)


def _finding(names: Sequence[str], places: Sequence[int], line: Sequence[Point], step: int) -> str:
    """What `delta_rms` does in a hidden layer on its way back."""
    own = [line[i].number for i in _hidden(names, places)]
    found = factor([*(None if math.isnan(x) else x for x in own), None])
    if found is None:
        return f"What reaches each layer, at step {step}"
    said = f"On its way back delta_rms changes by a factor of {compact(found)}"
    return f"{said} in each hidden layer (step {step})"


@style.drawn
def history(
    records: pd.DataFrame, quantity: str = "delta_rms", *, title: str | None = None, narrow: bool = False
) -> Figure:
    """Layers x recorded steps as a colour map, log scale: where a signal dies or explodes, and since when.

    Zeros are black, what is not finite vermillion, what is absent grey. Steps stand at even distances. The
    layers of a residual network stand in groups, those at the same place of their blocks together, and so do
    its streams: what alternates from row to row could not be read.

    Args:
        records: `Run.records`.
        quantity: a column of it, for example grad_norm.
        title: what stands above.
        narrow: for a phone.

    Raises:
        UserError: there is no such column of numbers.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    check.table("history: records", records, ["step", "layer"], "run.records")
    check.quantity("history: quantity", records, quantity)
    names = [str(x) for x in records["layer"].unique()]
    groups = _groups(names)
    order = [i for group in groups for i in group]
    rows = min(max(len(names), 6), MOST_ROWS)
    left = 0.65 + 0.075 * max(map(len, names), default=0)
    right, bottom = (0.2, 1.5) if narrow else (2.2, 0.75)
    top = 0.6 if narrow else 0.5
    figure = Figure(figsize=(style.NARROW if narrow else 12.6, top + bottom + 0.25 + 0.24 * rows))
    axes = figure.subplots()
    style.inches(figure, left=left, right=right, top=top, bottom=bottom)
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
    pixels, used = _pixels([[line[i] for i in order] for line in table], scale)
    axes.imshow(pixels, aspect="auto", interpolation="nearest")
    axes.grid(visible=False)
    _step_ticks(axes, steps, most=5 if narrow else 14)
    each = next(n for n in (1, 2, 5, 10, 20, 50, 100, 10**9) if len(names) / n <= rows)
    starts = [sum(map(len, groups[:n])) for n in range(len(groups))]
    places: list[int] = []  # of names: each so many rows, anew in each group
    for start, group in zip(starts, groups, strict=True):
        begin = max(start, places[-1] + min(each, 2)) if places else start
        places += range(begin, start + len(group), each)
    axes.set_yticks(places, [names[order[i]] for i in places], fontsize=9)
    axes.set_ylabel("layer, inputs at the top", fontsize=9.5, color=style.GREY)
    if len(groups) > 1:
        for start in starts[1:]:
            axes.axhline(start - 0.5, color="white", lw=3)
        axes.set_ylabel("layers in groups: same place of a block", fontsize=9.5, color=style.GREY)
    if known:
        _scale_bar(figure, scale, f"{quantity}, log scale", left=left, narrow=narrow)
    _keys(figure, [colour for colour in KEYS if colour in used], left=left, narrow=narrow)
    style.headline(figure, title or f"{quantity} of each layer while the run went on", left=left)
    return figure


def _groups(names: Sequence[str]) -> list[list[int]]:
    """The rows of a colour map: all in one group, or those at the same place of a residual block together.

    A block ends with its stream. Places count back from there, so that what stands before the first block is
    a group of its own; so is what follows the last one.
    """
    _, streams = _series(names)
    if not streams:
        return [list(range(len(names)))]
    bounds = [-1, *streams]
    blocks = [list(range(a + 1, b)) for a, b in pairwise(bounds)]
    longest = max(map(len, blocks))
    found = [[block[-n] for block in blocks if len(block) >= n] for n in range(longest, 0, -1)]
    return [group for group in (*found, streams, list(range(streams[-1] + 1, len(names)))) if group]


def _scale_bar(figure: Figure, scale: ScalarMappable, label: str, *, left: float, narrow: bool) -> None:
    """Which colour is which number: on the right, on a phone below."""
    from matplotlib.ticker import LogLocator, NullFormatter

    width, height = figure.get_size_inches()
    place = (1 - 1.95 / width, 0.75 / height, 0.22 / width, 1 - 1.25 / height)
    if narrow:
        place = (left / width, 0.75 / height, 1 - (left + 0.3) / width, 0.15 / height)
    bar = figure.colorbar(
        scale, cax=figure.add_axes(place), orientation="horizontal" if narrow else "vertical"
    )
    if bar.solids is not None:
        bar.solids.set_rasterized(True)  # its colours are data
    axis = bar.ax.xaxis if narrow else bar.ax.yaxis
    axis.set_minor_formatter(NullFormatter())
    if narrow:
        axis.set_major_locator(LogLocator(numticks=5))
        bar.ax.tick_params(labelsize=9)
    bar.set_label(label, fontsize=9.5, color=style.GREY)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _keys(figure: Figure, used: Sequence[str], *, left: float, narrow: bool) -> None:
    """What the other colours stand for, one below the other; on a phone side by side."""
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    for n, colour in enumerate(used):
        x, y = (left + 1.05 * n, 0.15) if narrow else (width - 1.95, 0.4 - 0.2 * n)
        square = Rectangle(
            (x / width, (y - 0.07) / height),
            0.14 / width,
            0.14 / height,
            transform=figure.transFigure,
            facecolor=colour,
            edgecolor=style.GREY,
            lw=0.6,
            rasterized=True,  # its colour is that of data
        )
        figure.add_artist(square)
        figure.text((x + 0.22) / width, y / height, KEYS[colour], color=style.GREY, fontsize=9.5, va="center")


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


def _step_ticks(axes: Axes, steps: Sequence[int], *, most: int) -> None:
    """Some of the recorded steps below their columns."""
    places = style.thinned(range(len(steps)), most)
    axes.set_xticks(places, [str(steps[i]) for i in places], fontsize=9)
    even = len({b - a for a, b in pairwise(steps)}) <= 1
    axes.set_xlabel(
        f"step{'' if even else ' (those recorded, at even distances)'}", fontsize=9.5, color=style.GREY
    )
