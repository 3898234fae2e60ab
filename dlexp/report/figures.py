"""Pictures of a sweep, one for each swept key, and of a single run.

Above or on the left the final metric, a dot for each run; below or on the right how much error reaches
each layer. What else was swept stands side by side, or is folded into one panel where it is too much.
"""

from __future__ import annotations

import itertools
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dlexp.better import lower_is_better
from dlexp.folder import write_whole
from dlexp.report.jobs import UNFINISHED, Job, short, value
from dlexp.report.profile import QUANTITY, mean_profile, profile
from dlexp.report.sweep import SEED, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, told apart also by the colour-blind; yellow, hard to read on white, is left out.
WORD_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SETTINGS: dict[Any, Any] = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
}
DPI = 130
CURVE_COLOURS = ("0.55", "black")
CURVES = {"train": "training batches", "validation": "validation"}
GREY = "0.4"
MOST_PANELS = 4  # side by side
MOST_LINES = 16  # in a panel
MOST_LABELS = 8  # of lines, or of places on an axis
DECADES = 50.0  # from the smallest to the largest value: from here on an axis is logarithmic
LEAST = 100.0  # from the foot to the top of a log scale: a profile that is nearly flat looks flat
FOOT = 0.02  # of a panel's height: where a line on a log scale has a 0
NOT_ASKED = ("outputs", "name", "device", "threads", "record", "hydra")  # words that a picture leaves out
LAYERS = "layer with weights (1 next to the inputs)"
SIGNAL = f"{QUANTITY} (log scale)"


T = TypeVar("T")
End = tuple[int, float, str, Any]  # the first layer of a line, the number there, label, colour


class Values:
    """The values of a swept key: their order, places on an axis, and colours, the same in all panels."""

    def __init__(self, key: str, typed: Sequence[str | None]) -> None:
        import matplotlib

        self.key = key
        numbers = [x for x in map(value, typed) if isinstance(x, (int, float)) and not isinstance(x, bool)]
        self.numeric = len(numbers) == len(typed) and all(map(math.isfinite, numbers))
        if self.numeric:
            numbers, typed = zip(*sorted(zip(numbers, typed, strict=True)), strict=True)  # type: ignore[assignment,type-var]
        self.typed = list(typed)
        positive = [x for x in numbers if x > 0]
        wide = self.numeric and len(positive) > 1 and max(positive) / min(positive) >= DECADES
        self.log = wide and len(positive) == len(typed)
        self.even = not self.numeric or (wide and not self.log)  # 0, 0.001, 0.1 have no common axis
        self.places: list[float] = list(range(len(typed))) if self.even else list(numbers)
        if self.numeric or len(typed) > len(WORD_COLOURS):
            scale = matplotlib.colormaps["viridis"]
            last = max(1, len(typed) - 1)
            self.colours: list[Any] = [scale(0.8 * i / last) for i in range(len(typed))]
        else:
            self.colours = list(WORD_COLOURS)

    def labels(self) -> list[str]:
        return [short(text) for text in self.typed]

    def groups(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """The jobs of each value."""
        found: dict[str | None, list[Job]] = {text: [] for text in self.typed}
        for job in jobs:
            found[job.asked(self.key)].append(job)
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

    def axis(self, axes: Axes) -> None:
        """Name and divide the x axis."""
        log = ", log scale" if self.log else ""
        axes.set_xlabel(f"{self.key}{log}")
        if self.log:
            axes.set_xscale("log")
        if self.even or len(self.typed) <= MOST_LABELS:
            places = thinned(self.places, 3 * MOST_LABELS)
            labels = [self.labels()[self.places.index(place)] for place in places]
            turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if self.turned else {}
            axes.set_xticks(places, labels, **turned)
            axes.set_xticks([], minor=True)
        if self.even:
            axes.set_xlim(-0.6, len(self.typed) - 0.4)
        else:
            axes.margins(x=0.1)


def draw(sweep: Sweep) -> list[Path]:
    """One picture for each swept key, by_<key>.png, into the sweep's folder.

    Raises:
        OSError: they cannot be written there.
    """
    keys = sweep.keys or [SEED] * (SEED in sweep.swept)
    return [_save(picture(sweep, key), sweep.folder / f"by_{_safe(key)}.png") for key in keys if sweep.jobs]


def picture(sweep: Sweep, key: str) -> Figure:
    """What a swept key does to the metric, and to the error that reaches each layer."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    values = {own: Values(own, list(sweep.ranks[own])) for own in {*sweep.keys, key}}
    side = _side_by_side([own for own in values if own != key], values, sweep)
    combinations = list(itertools.product(*(values[own].typed for own in side)))
    metric = f"{sweep.metric or 'loss'}/validation"
    with rc_context(SETTINGS):
        several = len(combinations) > 1
        size = (3.7 * len(combinations) + 1.6, 8.4) if several else (12.0, 5.4)
        shape = (2, len(combinations)) if several else (1, 2)
        figure = Figure(figsize=size)
        grid = figure.subplots(*shape, squeeze=False, sharey="row" if several else "none")
        _margins(figure, below=values[key].height, several=several)
        lines: list[tuple[Axes, list[End]]] = []
        for i, combination in enumerate(combinations):
            jobs = [
                job
                for job in sweep.jobs
                if all(job.asked(own) == text for own, text in zip(side, combination, strict=True))
            ]
            above, below = grid[:, i] if several else grid[0]
            _metric_panel(above, values[key], jobs, metric)
            lines.append((below, _profile_panel(below, values[key], jobs)))
            if several:
                title = ", ".join(f"{own}={short(x)}" for own, x in zip(side, combination, strict=True))
                colour = _colour(values[side[0]], combination[0]) if len(side) == 1 else "black"
                above.set_title(title, color=colour, weight="bold")
                if i:
                    above.set_ylabel("")
                    below.set_ylabel("")
        _name(lines)
        _no_ticks_below(grid[0] if several else grid[0, :1])
        _headline(figure, sweep, key, [own for own in values if own not in (key, *side)])
    return figure


def _margins(figure: Figure, *, below: float, several: bool) -> None:
    """Room for words around the panels, in inches: finding it out by drawing takes longer than drawing.

    Args:
        below: what the words below the metric need more.
    """
    width, height = figure.get_size_inches()
    rows, columns = (2, round((width - 1.6) / 3.7)) if several else (1, 2)
    left, right, top, bottom = 0.9, 0.2, 0.85 if several else 0.6, 0.95 + (0 if several else below)
    across, down = 0.2 if several else 0.95, 0.8 + below
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=across * columns / (width - left - right - across * (columns - 1)),
        hspace=down * rows / (height - top - bottom - down * (rows - 1)),
    )


def _side_by_side(others: Sequence[str], values: Mapping[str, Values], sweep: Sweep) -> list[str]:
    """The other swept keys that get panels of their own."""
    others = [own for own in sweep.keys if own in others and len(values[own].typed) > 1]
    if math.prod(len(values[own].typed) for own in others) <= MOST_PANELS:
        return others
    return next(([own] for own in others if len(values[own].typed) <= MOST_PANELS), [])


def _colour(values: Values, typed: str | None) -> Any:
    return "black" if values.numeric else values.colours[values.typed.index(typed)]


def _metric_panel(axes: Axes, values: Values, jobs: Sequence[Job], tag: str) -> None:
    """A dot for each run at its value, and their means."""
    name = tag.partition("/")[0]
    dots: list[tuple[float, float, Any]] = []
    means: list[tuple[float, float]] = []
    troubles: list[tuple[float, str]] = []
    for place, colour, own in zip(values.places, values.colours, values.groups(jobs), strict=False):
        found = [x for x in (job.numbers.get(tag) for job in own if job.ended) if x is not None]
        for i, x in enumerate(found, 1):
            beside = 0.3 * (i / (len(found) + 1) - 0.5) if values.even else 0.0
            dots.append((place + beside, x, colour))
        if found:
            means.append((place, math.fsum(found) / len(found)))
        counts = Counter(job.status for job in own)
        troubles += [(place, f"{counts[end]} {end}") for end in ("diverged", "failed") if counts[end]]
    if dots:
        across, up, colours = zip(*dots, strict=True)
        axes.scatter(across, up, 36, colours, alpha=0.75, zorder=3)
    if values.has_line and means:
        axes.plot(*zip(*means, strict=True), color=GREY, lw=1.2, zorder=2)
    elif not values.numeric:
        axes.hlines(
            [y for _, y in means], [x - 0.28 for x, _ in means], [x + 0.28 for x, _ in means], "black", lw=2
        )
    values.axis(axes)
    _crosses(axes, troubles, told=len(values.typed) <= MOST_LABELS)
    better = "lower" if lower_is_better(name) else "higher"
    axes.set_ylabel(f"{name} on validation ({better} is better)")
    found = [y for _, y in means]
    if lower_is_better(name) and found and min(found) > 0 and max(found) / min(found) > DECADES:
        axes.set_yscale("log")


def _crosses(axes: Axes, troubles: Sequence[tuple[float, str]], *, told: bool) -> None:
    """Runs without a number, at the foot of the panel."""
    foot = axes.get_xaxis_transform()
    places = [place for place, _ in troubles]
    heights = [0.04 + 0.09 * places[:n].count(place) for n, place in enumerate(places)]
    axes.plot(places, heights, "x", color="black", ms=7, transform=foot, clip_on=False)
    for (place, what), y in zip(troubles if told else troubles[:1], heights, strict=False):
        where = (place, y + 0.025)
        axes.text(*where, what, transform=foot, ha="center", va="bottom", fontsize=9, color=GREY)
    if troubles:
        axes.margins(y=0.22)


def _no_ticks_below(panels: Iterable[Axes]) -> None:
    """No numbers where only the crosses are: there is no accuracy of -0.2."""
    panels = list(panels)
    lowest = min(axes.dataLim.y0 for axes in panels)
    ticks = panels[0].get_yticks()
    if panels[0].get_yscale() == "linear" and math.isfinite(lowest) and len(ticks) > 1:
        low, high = panels[0].get_ylim()
        step = ticks[1] - ticks[0]
        panels[0].set_yticks([y for y in ticks if lowest - step < y <= high])
        panels[0].set_ylim(low, high)


def _profile_panel(axes: Axes, values: Values, jobs: Sequence[Job]) -> list[End]:
    """A line for each value: `delta_rms` layer by layer, the geometric mean over runs.

    Of values with no run that came to its end it is that of the start, dashed.

    Returns:
        Where the lines begin, to be named once the limits are known.
    """
    ends: list[End] = []
    longest = 1
    drawn = zip(values.labels(), values.colours, values.groups(jobs), strict=False)
    for label, colour, own in thinned(list(drawn), MOST_LINES):
        ended = [job for job in own if job.ended]
        end, style = ("last", "-") if ended else ("first", "--")
        profiles = [profile(job.summary.get("layers") or [], end) for job in ended or own]
        for length in sorted({len(x) for x in profiles if _known(x)}):
            line = mean_profile([x for x in profiles if len(x) == length])
            longest = max(longest, length)
            _line(axes, line, colour, style)
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


def _line(axes: Axes, line: Sequence[float | None], colour: Any, style: str) -> None:
    """Numbers over layers; a gap for none, a triangle at the foot where nothing arrives."""
    layers = range(1, len(line) + 1)
    axes.plot(layers, [x or math.nan for x in line], style, color=colour, marker="o", ms=3.5, lw=1.8)
    if zeros := [i for i, x in zip(layers, line, strict=True) if x == 0]:
        foot = axes.get_xaxis_transform()
        axes.plot(zeros, [FOOT] * len(zeros), "v", color=colour, ms=5, transform=foot, clip_on=False)


def _name(lines: Sequence[tuple[Axes, Sequence[End]]]) -> None:
    """Write beside the lines of each panel what they are."""
    from matplotlib.ticker import NullLocator

    for axes, _ in lines:
        low, high = axes.get_ylim()
        if high / low < LEAST:
            middle = math.sqrt(low * high)
            axes.set_ylim(middle / math.sqrt(LEAST), middle * math.sqrt(LEAST))
        elif high / low > 1e4:
            axes.yaxis.set_minor_locator(NullLocator())  # nobody reads them, and they take long to draw
    for axes, ends in lines:
        _labels(axes, ends)


def _labels(axes: Axes, ends: Sequence[End]) -> None:
    """The value of each line on its left, moved apart where they would overlap."""
    low, high = map(math.log10, axes.get_ylim())
    # What is 0 begins at the foot.
    placed = [((math.log10(end[1]) - low) / (high - low) if end[1] else FOOT, *end) for end in ends]
    placed = thinned(sorted(placed, key=lambda end: end[0]), MOST_LABELS)
    heights = apart([height for height, *_ in placed], 0.055)
    for (_, layer, y, label, colour), at in zip(placed, heights, strict=True):
        axes.annotate(
            label,
            (layer, y or FOOT),
            (0.01, at),
            xycoords="data" if y else axes.get_xaxis_transform(),
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontsize=10,
            weight="bold",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "alpha": 0.6, "shrinkB": 3},
        )


def thinned(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of them, evenly, with the first and the last."""
    n = len(items)
    return list(items) if n <= most else [items[i * (n - 1) // (most - 1)] for i in range(most)]


def apart(heights: Sequence[float], least: float) -> list[float]:
    """Ascending heights between 0 and 1, moved so that neighbours keep a distance."""
    moved = list(heights)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + least)
    over = max(0.0, moved[-1] - 1 + least / 2) if moved else 0.0
    for i in reversed(range(len(moved))):
        limit = moved[i + 1] - least if i + 1 < len(moved) else moved[i] - over
        moved[i] = min(moved[i], limit)
    return moved


def _headline(figure: Figure, sweep: Sweep, key: str, folded: Sequence[str]) -> None:
    """What was asked, and what else one has to know to read the picture."""
    metric = sweep.metric or "loss"
    figure.suptitle(
        f"What does {key} do to {metric}, and to the error that reaches each layer?", weight="bold"
    )
    values = Values(key, list(sweep.ranks[key]))
    mean = ", line: mean" if values.has_line else ", bar: mean" if not values.numeric else ""
    facts = [_fixed(sweep), f"dot: a run{mean}", f"{QUANTITY}: last recorded, mean of runs, ▼ is 0"]
    if (count := len(values.typed)) > MOST_LINES:
        facts.append(f"{QUANTITY} of {MOST_LINES} of {count} values")
    if folded := [own for own in folded if len(sweep.ranks[own]) > 1]:
        facts.append(f"over all values of {', '.join(folded)}")
    if missing := sum(job.status == UNFINISHED for job in sweep.jobs):
        facts.append(f"{missing} of {len(sweep.jobs)} runs not finished yet")
    _footnote(figure, " · ".join(filter(None, facts)))


def _footnote(figure: Figure, text: str) -> None:
    wide = int(figure.get_size_inches()[0] * 13)
    lines = textwrap.wrap(text, wide, max_lines=2, placeholder=" …")
    figure.text(0.5, 0.015, "\n".join(lines), ha="center", va="bottom", fontsize=9, color=GREY)


def _fixed(sweep: Sweep) -> str:
    """What all runs have in common: network and data, and the words that were typed."""
    jobs = [job for job in sweep.jobs if "choices" in job.summary]
    common = [
        f"{key}={text}" for key, text in (jobs[0].words if jobs else {}).items() if _said(key, text, jobs)
    ]
    for group in ("data", "model"):
        named = (
            {job.asked(group) for job in jobs} if not any(x.startswith(f"{group}=") for x in common) else ()
        )
        if len(named) == 1 and None not in named:
            common.insert(0, f"{group}={named.pop()}")  # type: ignore[union-attr]
    return " ".join(common)


def _said(key: str, text: str, jobs: Sequence[Job]) -> bool:
    return key.split(".")[0] not in NOT_ASKED and all(job.words.get(key) == text for job in jobs)


def draw_run(
    folder: Path, summary: Mapping[str, Any], curves: Mapping[str, Sequence[tuple[int, float | None]]]
) -> Path:
    """layers.png of a single run: its learning curve, and the error signal at its start and end.

    Args:
        summary: what summary.json holds, or as much of it as is known.
        curves: tag -> (step, value), "loss/validation" for example.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(SETTINGS):
        figure = Figure(figsize=(12, 5.4))
        left, right = figure.subplots(1, 2)
        _margins(figure, below=0, several=False)
        _curve_panel(left, curves)
        ends: list[End] = []
        longest = 1
        for end, colour, style in (("first", WORD_COLOURS[5], "--"), ("last", WORD_COLOURS[0], "-")):
            line = profile(summary["layers"], end)
            longest = max(longest, len(line))
            if _known(line):
                _line(right, line, colour, style)
                ends.append((*_end(line), f"step {summary['recorded'][end]}", colour))
        right.set_yscale("log")
        right.set_xlabel(LAYERS)
        right.set_ylabel(SIGNAL)
        _layer_ticks(right, longest, room=_room(right, ends))
        _name([(right, ends)])
        figure.suptitle("How well does it learn, and how much error reaches each layer?", weight="bold")
        words = " ".join(word for word in summary.get("overrides", []) if word.split("=")[0] not in NOT_ASKED)
        _footnote(figure, f"dlexp {words} · {summary['status']}")
    return _save(figure, folder / "layers.png")


def _curve_panel(axes: Axes, curves: Mapping[str, Sequence[tuple[int, float | None]]]) -> None:
    """A learning curve for each tag, named where it ends."""
    from matplotlib.ticker import MaxNLocator

    last = max((points[-1][0] for points in curves.values()), default=1)
    ends: list[tuple[float, str, Any]] = []
    for (tag, points), colour in zip(curves.items(), CURVE_COLOURS, strict=False):
        steps, numbers = zip(*[(x, math.nan if y is None else y) for x, y in points], strict=True)
        axes.plot(steps, numbers, "o-", ms=3, lw=1.5, color=colour, alpha=0.8)
        if known := [y for y in numbers if math.isfinite(y)]:
            ends.append((known[-1], CURVES.get(tag.partition("/")[2], tag), colour))
    low, high = axes.get_ylim()
    ends = sorted(ends, key=lambda end: end[0])
    heights = apart([(y - low) / (high - low) for y, *_ in ends], 0.055)
    foot = axes.get_xaxis_transform()
    for (_, label, colour), at in zip(ends, heights, strict=True):
        axes.text(1.04 * last, at, label, transform=foot, color=colour, va="center", weight="bold")
    axes.set_ylim(low, high)
    axes.set_xlim(-0.03 * last, 1.4 * max(last, 1))
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_ylabel(", ".join(dict.fromkeys(tag.partition("/")[0] for tag in curves)) or "no evaluation yet")


def _save(figure: Figure, path: Path) -> Path:
    write_whole(path, lambda draft: figure.savefig(draft, dpi=DPI, format="png"))
    return path


def _safe(key: str) -> str:
    return re.sub(r"[^\w.-]", "_", key)
