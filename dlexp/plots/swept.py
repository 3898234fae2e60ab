"""What a swept key does: to the metric, and to the error that reaches each layer.

Above or on the left the final metric, a dot for each run; below or on the right how much error reaches
each layer. What else was swept stands side by side, or is folded into one panel where it is too much.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dlexp.better import lower_is_better
from dlexp.errors import UserError
from dlexp.folder import COUNTED, NOT_BEGUN, UNFINISHED
from dlexp.plots import check, style
from dlexp.plots.style import GREY, LEAST_DECADES, WORD_COLOURS, apart, thinned
from dlexp.profile import QUANTITY, mean_profile
from dlexp.words import short, value

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEED = "seed"
LONGEST_TITLE = 34  # characters, of a panel
LEAST_GAP = 0.08  # of the axis, between two values that are written there
MOST_PANELS = 4  # side by side
MOST_LINES = 16  # in a panel
MOST_LABELS = 8  # of lines, or of places on an axis
LEAST_SPAN = 10**LEAST_DECADES
CROSS = 0.09  # of a panel's height, for a cross with its word
STRIP, THIN = "#EEEEEE", "#AAAAAA"
VALUES = "values"  # in the attrs of tables of a sweep: swept key -> all of its values, in their order
LAYERS = "layer with weights (1 next to the inputs)"
SIGNAL = f"{QUANTITY} (log scale)"

End = tuple[int, float, str, Any]  # the first layer of a line, the number there, label, colour


class Own(NamedTuple):
    """A run of the sweep."""

    typed: Mapping[str, str | None]  # swept key -> value as text
    status: str
    metric: float | None
    profiles: Mapping[str, Sequence[float | None]]  # "first" and "last" -> (L,) delta_rms of its layers

    @property
    def ended(self) -> bool:
        return self.status in COUNTED


def _numbers(typed: Sequence[str | None]) -> list[float]:
    """Those of the values that are numbers."""
    return [x for x in map(value, typed) if isinstance(x, (int, float)) and not isinstance(x, bool)]


def _palette(count: int, *, numeric: bool) -> list[Any]:
    """A colour for each value: words are told apart, numbers go from dark to light."""
    import matplotlib

    if not numeric and count <= len(WORD_COLOURS):
        return list(WORD_COLOURS[:count])
    scale = matplotlib.colormaps["viridis"]
    return [scale(0.8 * i / max(1, count - 1)) for i in range(count)]


class Values:
    """The values of a swept key: their order, places on an axis, and colours, the same in all panels.

    Args:
        typed: the values that are drawn.
        known: those of the whole sweep, if that has more: a value keeps the colour that it has there.
    """

    def __init__(
        self, key: str, typed: Sequence[str | None], known: Sequence[str | None] | None = None
    ) -> None:
        self.key = key
        every = list(dict.fromkeys([*(known or ()), *typed]))
        numbers = _numbers(every)
        # A seed is a name, no quantity: no line leads from one to the next.
        self.numeric = key != SEED and len(numbers) == len(every) and all(map(math.isfinite, numbers))
        if self.numeric:
            every = [own for _, own in sorted(zip(numbers, every, strict=True), key=lambda one: one[0])]
        palette = dict(zip(every, _palette(len(every), numeric=self.numeric), strict=True))
        self.typed = [own for own in every if own in set(typed)]
        self.colours: list[Any] = [palette[own] for own in self.typed]
        typed, numbers = self.typed, _numbers(self.typed)
        positive = [x for x in numbers if x > 0]
        wide = self.numeric and len(positive) > 1 and max(positive) / min(positive) >= style.WIDE
        self.log = wide and len(positive) == len(typed)
        self.even = not self.numeric or (wide and not self.log)  # 0, 0.001, 0.1 have no common axis
        self.places: list[float] = list(range(len(typed))) if self.even else list(numbers)

    def labels(self) -> list[str]:
        return [short(text) for text in self.typed]

    def groups(self, runs: Sequence[Own]) -> list[list[Own]]:
        """The runs of each value."""
        found: dict[str | None, list[Own]] = {text: [] for text in self.typed}
        for run in runs:
            found[run.typed[self.key]].append(run)
        return list(found.values())

    @property
    def has_line(self) -> bool:
        """Whether means are joined: of numbers, as long as they are few."""
        return self.numeric and len(self.typed) <= MOST_LINES

    @property
    def turned(self) -> bool:
        """Whether words are too long to stand beside each other."""
        return self.even and len(self.typed) * max(map(len, self.labels())) > 40

    @property
    def height(self) -> float:
        """Of turned words, in inches."""
        return 0.055 * max(map(len, self.labels())) if self.turned else 0.0

    @property
    def _crowded(self) -> bool:
        """Would the values, written at their places, stand on each other? Sampled ones do."""
        places = [math.log(x) if self.log else x for x in self.places]
        gaps = [b - a for a, b in itertools.pairwise(places)]
        return bool(gaps) and min(gaps) < LEAST_GAP * (places[-1] - places[0])

    def axis(self, axes: Axes) -> None:
        """Name and divide the x axis."""
        log = ", log scale" if self.log else ""
        axes.set_xlabel(f"{self.key}{log}")
        if self.log:
            axes.set_xscale("log")
        if self.even or (len(self.typed) <= MOST_LABELS and not self._crowded):
            places = thinned(self.places, 3 * MOST_LABELS)
            labels = [self.labels()[self.places.index(place)] for place in places]
            turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if self.turned else {}
            axes.set_xticks(places, labels, **turned)
            axes.set_xticks([], minor=True)
        if self.even:
            axes.set_xlim(-0.6, len(self.typed) - 0.4)
        else:
            axes.margins(x=0.1)


@style.drawn
def arms(
    runs: pd.DataFrame,
    profiles: pd.DataFrame,
    key: str,
    *,
    metric: str | None = None,
    note: str = "",
    narrow: bool = False,
) -> Figure:
    """What a swept key does to the metric, and to the error that reaches each layer.

    A value has the same colour in all pictures of a sweep, also where rows of its tables are left out; runs
    without a number are crosses in the grey strip at the foot.

    Args:
        runs: `Sweep.runs`; a row per run: run, the swept keys, seed, status, numbers.
        profiles: `Sweep.profiles`; a row per run and layer with `delta_rms` at "first" and "last".
        key: one of the swept keys, or seed.
        metric: for example accuracy; the first one on validation if not said.
        note: what else a reader should know, for the line at the foot.
        narrow: panels below each other, for a phone.

    Raises:
        UserError: the key was not swept, or one of them is not such a table.
    """
    check.table("arms: runs", runs, ["run", SEED, "status"], "sweep.runs")
    check.table("arms: profiles", profiles, ["run", "number", "first", "last"], "sweep.profiles")
    swept = _swept(runs)
    if key not in (*swept, SEED):
        raise UserError(f"arms: key={key}: not swept; allowed: {', '.join((*swept, SEED))}")
    metric = metric or _first_metric(runs)
    owns = _read(runs, profiles, [*swept, SEED], f"{metric}/validation")
    values = {own: _values(own, owns, runs, profiles) for own in {*swept, key}}
    side, folded = _arranged(key, swept, values)
    combinations = list(itertools.product(*(values[own].typed for own in side)))
    several = len(combinations) > 1
    figure, above, below = _panels(len(combinations), narrow=narrow, lower=values[key].height)
    lines: list[tuple[Axes, list[End]]] = []
    for combination, metrics, deltas in zip(combinations, above, below, strict=True):
        own = [r for r in owns if all(r.typed[k] == x for k, x in zip(side, combination, strict=True))]
        _metric_panel(metrics, values[key], own, metric, folded)
        lines.append((deltas, _profile_panel(deltas, values[key], own)))
        if several:
            words = [f"{k}={short(x)}" for k, x in zip(side, combination, strict=True)]
            title = "\n".join(words) if len(", ".join(words)) > LONGEST_TITLE else ", ".join(words)
            colour = style.ink(_colour(values[side[0]], combination[0])) if len(side) == 1 else style.INK
            for axes in (metrics, deltas) if narrow else (metrics,):
                axes.set_title(title, color=colour, weight="bold")
            if metrics is not above[0] and not narrow:
                metrics.set_ylabel("")
                deltas.set_ylabel("")
    _name(lines)
    _foot(above if several else above[:1])
    title = f"What does {key} do to {metric}, and to the error that reaches each layer?"
    style.headline(figure, title, left=0.2)
    _footnote(figure, " · ".join(filter(None, [note, *_facts(values[key], owns, folded)])))
    return figure


def _swept(runs: pd.DataFrame) -> list[str]:
    """The swept keys stand between the run and its seed."""
    return [str(name) for name in runs.columns[1 : list(runs.columns).index(SEED)]]


def _values(key: str, runs: Sequence[Own], *tables: pd.DataFrame) -> Values:
    return Values(key, list(dict.fromkeys(run.typed[key] for run in runs)), _known_values(key, *tables))


def _known_values(key: str, *tables: pd.DataFrame) -> list[str | None]:
    """All values of a key in the sweep that the tables are of, also those whose rows were left out.

    Where nothing came with the tables (they were read from a file, say), those in the last one count first:
    profiles are seldom cut.
    """
    for table in tables:
        if key in (named := table.attrs.get(VALUES) or {}):
            return list(named[key])
    return list(dict.fromkeys(text(x) for table in reversed(tables) if key in table for x in table[key]))


def folded_keys(runs: pd.DataFrame, key: str) -> list[str]:
    """The other swept keys whose values one panel of the picture of `key` takes together."""
    swept = _swept(runs)
    typed = {own: list(dict.fromkeys(text(x) for x in runs[own])) for own in {*swept, key}}
    return _arranged(key, swept, {own: Values(own, found) for own, found in typed.items()})[1]


def _arranged(key: str, swept: Sequence[str], values: Mapping[str, Values]) -> tuple[list[str], list[str]]:
    """The other swept keys: those with panels of their own, and those that are folded into each panel."""
    side = _side_by_side([own for own in swept if own != key], values)
    return side, [own for own in swept if own not in (key, *side) and len(values[own].typed) > 1]


def _panels(count: int, *, narrow: bool, lower: float) -> tuple[Figure, list[Axes], list[Axes]]:
    """The panels of the metric and those of the profiles, `count` of each.

    Args:
        lower: room for the words below the metric, in inches.
    """
    from matplotlib.figure import Figure

    if narrow:
        rows, down = 2 * count, 0.95 + lower
        figure = Figure(figsize=(style.NARROW, 2.45 + 2.0 * rows + down * (rows - 1)))
        grid = list(figure.subplots(rows, 1))
        style.inches(figure, left=1.0, right=0.15, top=1.0, bottom=1.45, down=down, rows=rows)
        for axes in grid:
            axes.sharey(grid[0] if axes in grid[:count] else grid[count])
        return figure, grid[:count], grid[count:]
    several = count > 1
    figure = Figure(figsize=(3.7 * count + 1.6, 8.4) if several else (12.0, 5.4))
    shape = (2, count) if several else (1, 2)
    table = figure.subplots(*shape, squeeze=False, sharey="row" if several else "none")
    _margins(figure, below=lower, several=several)
    above, below = table if several else (table[:, 0], table[:, 1])
    return figure, list(above), list(below)


def colours(table: pd.DataFrame, key: str) -> dict[str | None, str]:
    """The colour of each value of a swept key in all pictures of a sweep, for pictures of one's own.

    Args:
        table: `Sweep.runs`, `Sweep.arms` or `Sweep.profiles`, or some of their rows.

    Raises:
        UserError: it has no such column.
    """
    from matplotlib.colors import to_hex

    check.table("colours: table", table, [key], "sweep.runs")
    values = Values(key, list(dict.fromkeys(text(x) for x in table[key])), _known_values(key, table))
    return dict(zip(values.typed, map(to_hex, values.colours), strict=True))


def text(x: Any) -> str | None:
    """A value of a table as it would be typed; None of one that is missing."""
    if isinstance(x, bool):
        return str(x).lower()
    if x is None or type(x).__name__ == "NAType" or x != x:  # pandas' NA does not compare
        return None
    return f"{x:.12g}" if isinstance(x, float) else str(x)


def _first_metric(runs: pd.DataFrame) -> str:
    names = [
        name for name, _, split in (str(c).partition("/") for c in runs.columns) if split == "validation"
    ]
    return next((name for name in names if name != "loss"), "loss")


def _read(runs: pd.DataFrame, profiles: pd.DataFrame, keys: Sequence[str], tag: str) -> list[Own]:
    """The rows of the tables, run by run."""
    lines: dict[Any, dict[str, list[float | None]]] = {}
    for run, *ends in profiles[["run", "first", "last"]].itertuples(index=False):
        own = lines.setdefault(run, {"first": [], "last": []})
        for end, x in zip(own.values(), ends, strict=True):
            end.append(None if x is None or x != x else float(x))
    metrics = runs[tag] if tag in runs else [None] * len(runs)
    typed = [[text(x) for x in runs[key]] for key in keys]
    return [
        Own(
            dict(zip(keys, words, strict=True)),
            str(status),
            None if x is None or not math.isfinite(x) else float(x),
            lines.get(run, {}),
        )
        for run, status, x, *words in zip(runs["run"], runs["status"], metrics, *typed, strict=True)
    ]


def _facts(values: Values, owns: Sequence[Own], folded: Sequence[str]) -> Iterable[str]:
    """What one has to know to read the picture."""
    yield f"dot: a run{', line: mean' if values.has_line else ', bar: mean' if not values.numeric else ''}"
    yield f"{QUANTITY}: last recorded, mean of runs, ▼ is 0"
    if (count := len(values.typed)) > MOST_LINES:
        yield f"{QUANTITY} of {MOST_LINES} of {count} values"
    if folded:
        yield f"mean over all values of {', '.join(folded)}; a thin line joins runs with the same of them"
    if missing := sum(own.status in (UNFINISHED, NOT_BEGUN) for own in owns):
        yield f"{missing} of {len(owns)} runs have not ended"


def _margins(figure: Figure, *, below: float, several: bool) -> None:
    """Room for words around the panels; `below`, in inches: what the words below the metric need more."""
    columns = round((figure.get_size_inches()[0] - 1.6) / 3.7) if several else 2
    style.inches(
        figure,
        left=0.9,
        right=0.2,
        top=0.85 if several else 0.6,
        bottom=0.95 + (0 if several else below),
        across=0.2 if several else 0.95,
        down=0.8 + below,
        columns=columns,
        rows=2 if several else 1,
    )


def _side_by_side(others: Sequence[str], values: Mapping[str, Values]) -> list[str]:
    """The other swept keys that get panels of their own."""
    others = [own for own in others if len(values[own].typed) > 1]
    if math.prod(len(values[own].typed) for own in others) <= MOST_PANELS:
        return list(others)
    return next(([own] for own in others if len(values[own].typed) <= MOST_PANELS), [])


def _colour(values: Values, typed: str | None) -> Any:
    return style.INK if values.numeric else values.colours[values.typed.index(typed)]


def _metric_panel(
    axes: Axes, values: Values, runs: Sequence[Own], name: str, folded: Sequence[str] = ()
) -> None:
    """A dot for each run at its value, and their means; thin lines where other keys are folded in."""
    dots: list[tuple[float, float, Any]] = []
    means: list[tuple[float, float]] = []
    troubles: list[tuple[float, str]] = []
    for place, colour, own in zip(values.places, values.colours, values.groups(runs), strict=False):
        found = [x for x in (run.metric for run in own if run.ended) if x is not None]
        for i, x in enumerate(found, 1):
            beside = 0.3 * (i / (len(found) + 1) - 0.5) if values.even else 0.0
            dots.append((place + beside, x, colour))
        if found:
            means.append((place, math.fsum(found) / len(found)))
        counts = Counter(run.status for run in own)
        troubles += [(place, f"{counts[end]} {end}") for end in ("diverged", "failed") if counts[end]]
    if dots:
        across, up, colours = zip(*dots, strict=True)
        axes.scatter(across, up, 36, colours, alpha=0.75, zorder=3)
    if values.has_line and means:
        axes.plot(*zip(*means, strict=True), color=GREY, lw=1.2, zorder=2)
    elif not values.numeric:
        axes.hlines(
            *([y for _, y in means], [x - 0.28 for x, _ in means], [x + 0.28 for x, _ in means]),
            colors=style.INK,
            lw=2,
        )
    if folded:
        _joined(axes, values, runs, folded)
    if not dots:
        axes.text(0.5, 0.5, "no run has ended", transform=axes.transAxes, ha="center", color=GREY)
    values.axis(axes)
    narrow = axes.get_figure().get_size_inches()[0] <= style.NARROW  # type: ignore[union-attr]
    _crosses(axes, troubles, told=len(values.typed) <= (2 if narrow else MOST_LABELS))
    _say_metric(axes, name, [y for _, y in means], narrow=bool(narrow))


def _say_metric(axes: Axes, name: str, means: Sequence[float], *, narrow: bool) -> None:
    """The name of the y axis, which is logarithmic where a loss spans decades."""
    better = "lower" if lower_is_better(name) else "higher"
    between = "\n" if narrow else " "
    axes.set_ylabel(f"{name} on validation{between}({better} is better)", fontsize=9.5 if narrow else None)
    if lower_is_better(name) and means and min(means) > 0 and max(means) / min(means) > style.WIDE:
        axes.set_yscale("log")


def _joined(axes: Axes, values: Values, runs: Sequence[Own], folded: Sequence[str]) -> None:
    """A thin line through the means of runs that differ in nothing but the key and the seed."""
    found: dict[tuple[str | None, ...], list[tuple[float, float]]] = {}
    for place, own in zip(values.places, values.groups(runs), strict=True):
        numbers: dict[tuple[str | None, ...], list[float]] = {}
        for run in own:
            if run.ended and run.metric is not None:
                numbers.setdefault(tuple(run.typed[k] for k in folded), []).append(run.metric)
        for same, xs in numbers.items():
            found.setdefault(same, []).append((place, math.fsum(xs) / len(xs)))
    if len(found) <= MOST_LINES:
        for points in found.values():
            axes.plot(*zip(*points, strict=True), color=THIN, lw=0.8, zorder=1)


def _crosses(axes: Axes, troubles: Sequence[tuple[float, str]], *, told: bool) -> None:
    """Runs without a number, in a strip at the foot of the panel that `_foot` makes room for."""
    foot = axes.get_xaxis_transform()
    places = [place for place, _ in troubles]
    heights = [0.03 + CROSS * places[:n].count(place) for n, place in enumerate(places)]
    axes.plot(places, heights, "x", color=style.INK, ms=7, transform=foot, clip_on=False)
    for (place, what), y in zip(troubles if told else troubles[:1], heights, strict=False):
        where = (place, y + 0.025)
        axes.text(*where, what, transform=foot, ha="center", va="bottom", fontsize=9, color=GREY)


def _foot(panels: Sequence[Axes]) -> None:
    """A grey strip for crosses below all numbers, without ticks: there is no accuracy of -0.2."""
    from matplotlib.patches import Rectangle

    lines = [line for axes in panels for line in axes.lines if line.get_marker() == "x"]
    heights = [float(y) for line in lines for y in list(line.get_ydata())]  # type: ignore[arg-type]
    highest = max(heights, default=None)
    if highest is None:
        return
    share, first = highest + CROSS, panels[0]
    low, high = first.get_ylim()
    known = any(math.isfinite(axes.dataLim.y0) for axes in panels)
    ticks = [y for y in first.get_yticks() if low <= y <= high] if known else []
    if first.get_yscale() == "log":
        first.set_ylim(high / (high / low) ** (1 / (1 - share)), high)
    else:
        first.set_ylim(high - (high - low) / (1 - share), high)
    first.set_yticks(ticks)
    first.set_yticks([], minor=True)
    for axes in panels:
        axes.add_patch(Rectangle((0, 0), 1, share, transform=axes.transAxes, color=STRIP, lw=0, zorder=0.5))


def _profile_panel(axes: Axes, values: Values, runs: Sequence[Own]) -> list[End]:
    """A line for each value: `delta_rms` layer by layer, the geometric mean over runs.

    Of values with no run that came to its end it is that of the start, dashed.

    Returns:
        Where the lines begin, to be named once the limits are known.
    """
    ends: list[End] = []
    longest = 1
    drawn = zip(values.labels(), values.colours, values.groups(runs), strict=False)
    for label, colour, own in thinned(list(drawn), MOST_LINES):
        ended = [run for run in own if run.ended]
        end, look = ("last", "-") if ended else ("first", "--")
        profiles = [run.profiles.get(end, ()) for run in ended or own]
        for length in sorted({len(x) for x in profiles if _known(x)}):
            line = mean_profile([x for x in profiles if len(x) == length])
            longest = max(longest, length)
            _line(axes, line, colour, look)
            ends.append((*_end(line), label if ended else f"{label} at step 0", colour))
    if not ends:
        axes.text(0.5, 0.5, f"no {QUANTITY} on record", transform=axes.transAxes, ha="center", color=GREY)
    axes.set_yscale("log")
    axes.set_xlabel(LAYERS)
    axes.set_ylabel(SIGNAL)
    _layer_ticks(axes, longest, room=_room(axes, ends))
    return ends


def _known(line: Sequence[float | None]) -> bool:
    return any(x is not None for x in line)


def _end(line: Sequence[float | None]) -> tuple[int, float]:
    """Where a line begins: its first layer with a number, and the number."""
    return next((i, x) for i, x in enumerate(line, 1) if x is not None)


def _room(axes: Axes, ends: Sequence[End]) -> float:
    """For labels on the left, as a share of what lies right of layer 1."""
    inches = axes.get_figure().get_size_inches()[0] * axes.get_position().width  # type: ignore[union-attr]
    share = min(0.5, (0.1 * max((len(label) for *_, label, _ in ends), default=0) + 0.25) / inches)
    return float(share / (1 - share))


def _layer_ticks(axes: Axes, longest: int, *, room: float) -> None:
    """Whole numbers, with room for labels on the left."""
    step = next((n for n in (1, 2, 5, 10, 20, 50, 100) if longest / n <= 10), 200)
    axes.set_xticks(sorted({1, *range(step, longest + 1, step)}) if step > 1 else range(1, longest + 1))
    span = max(longest - 1, 1)
    axes.set_xlim(1 - span * room * 1.05, longest + 0.05 * span)


def _line(axes: Axes, line: Sequence[float | None], colour: Any, style_: str) -> None:
    """Numbers over layers; a gap for none, a triangle at the foot where nothing arrives."""
    layers = range(1, len(line) + 1)
    axes.plot(layers, [x or math.nan for x in line], style_, color=colour, marker="o", ms=3.5, lw=1.8)
    style.zeros(axes, [i for i, x in zip(layers, line, strict=True) if x == 0], colour)


def _name(lines: Sequence[tuple[Axes, Sequence[End]]]) -> None:
    """Write beside the lines of each panel what they are."""
    from matplotlib.ticker import NullLocator

    for axes, _ in lines:
        low, high = axes.get_ylim()
        if high / low < LEAST_SPAN:
            middle = math.sqrt(low * high)
            axes.set_ylim(middle / math.sqrt(LEAST_SPAN), middle * math.sqrt(LEAST_SPAN))
        elif high / low > 1e4:
            axes.yaxis.set_minor_locator(NullLocator())  # nobody reads them, and they take long to draw
    for axes, ends in lines:
        _labels(axes, ends)


def _labels(axes: Axes, ends: Sequence[End]) -> None:
    """The value of each line on its left, moved apart where they would overlap."""
    low, high = map(math.log10, axes.get_ylim())
    # What is 0 begins at the foot.
    placed = [((math.log10(end[1]) - low) / (high - low) if end[1] else style.FOOT, *end) for end in ends]
    placed = thinned(sorted(placed, key=lambda end: end[0]), MOST_LABELS)
    heights = apart([height for height, *_ in placed], style.distance(axes, 10))
    for (_, layer, y, label, colour), at in zip(placed, heights, strict=True):
        axes.annotate(
            label,
            (layer, y or style.FOOT),
            (0.01, at),
            xycoords="data" if y else axes.get_xaxis_transform(),
            textcoords="axes fraction",
            color=style.ink(colour),
            va="center",
            fontsize=10,
            weight="bold",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "alpha": 0.6, "shrinkB": 3},
        )


def _footnote(figure: Figure, words: str) -> None:
    width, height = map(float, figure.get_size_inches())
    narrow = width <= style.NARROW
    lines = textwrap.wrap(words, int(width * 13), max_lines=6 if narrow else 2, placeholder=" …")
    place = (0.1 / width if narrow else 0.5, 0.1 / height)
    look: dict[str, Any] = {"ha": "left" if narrow else "center", "va": "bottom", "fontsize": 9}
    figure.text(*place, "\n".join(lines), color=GREY, **look)
