"""Pictures that many experiments draw: profiles over depth, and a number along a factor."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from dlexp.lab.runs import Run, Runs
from dlexp.plots.style import (
    BLACK,
    GREY,
    NARROW,
    WORD_COLOURS,
    beside,
    decades,
    inches,
    limits,
    say_y,
    share,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

WIDTH, HEIGHT = 2.9, 3.6  # of a panel, inches
LEFT = 0.7  # of it, for the numbers of its axis
LEAST = 1.5  # of a panel's width on a phone, inches
Profile = Callable[[Run], Sequence[float]]


def panels(
    count: int, *, left: float = LEFT, right: float = 1.5, across: float = 2.1
) -> tuple[Figure, Sequence[Axes]]:
    """A row of panels, by default with room for words on the right of each.

    Args:
        left, right: margins in inches.
        across: inches between panels.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(left + right + across * (count - 1) + WIDTH * count, HEIGHT))
    axes = [figure.add_subplot(1, count, i + 1) for i in range(count)]
    inches(figure, left=left, right=right, top=0.75, bottom=0.55, columns=count, across=across)
    return figure, axes


def stacked(figure: Figure) -> Figure | None:
    """The panels of a row one under another, as wide as a phone, in a figure of their own.

    Returns:
        None: they are no row, or the words beside them leave too little room; they stay side by side.
    """
    from matplotlib.gridspec import GridSpec

    count = len(figure.axes)
    grids = [place.get_gridspec() for axis in figure.axes if (place := axis.get_subplotspec())]
    if [(grid.nrows, grid.ncols) for grid in grids] != [(1, count)] * count or not count:
        return None
    (width, height), around = figure.get_size_inches(), figure.subplotpars
    left, right = max(LEFT, around.left * width), (1 - around.right) * width
    top, bottom = (1 - around.top) * height, around.bottom * height
    inside = height - top - bottom
    if NARROW - left - right < LEAST:
        return None
    tall = copy.deepcopy(figure)
    grid = GridSpec(count, 1, figure=tall)
    for row, axis in enumerate(tall.axes):
        axis.set_subplotspec(grid[row])
        _fit(axis, 0.95 * (NARROW - left), min(left, right) + (NARROW - left - right) / 2)
    bottom += 0.2 * max(axis.get_xlabel().count("\n") for axis in tall.axes)
    tall.set_size_inches(NARROW, count * (inside + top + bottom))
    inches(tall, left=left, right=right, top=top, bottom=bottom, rows=count, down=top + bottom)
    return tall


def _fit(axis: Axes, room: float, half: float) -> None:
    """Break the words below a panel in two, and make those above it smaller, where they would stick out.

    Args:
        room: inches from the panel's left edge on.
        half: inches to either side of its middle.
    """
    import textwrap

    below, above = axis.xaxis.label, axis.yaxis.label
    if _inches_of(below) > 2 * half:
        below.set_text(textwrap.fill(below.get_text(), len(below.get_text()) // 2 + 4))
    if above.get_rotation() == 0 and (width := _inches_of(above)) > room:
        above.set_fontsize(float(above.get_fontsize()) * room / width)


def _inches_of(text: Text) -> float:
    from matplotlib.textpath import TextPath

    said = text.get_text()
    return (
        float(TextPath((0, 0), said, prop=text.get_fontproperties()).get_extents().width) / 72 if said else 0
    )


def lines(
    groups: Mapping[str, Mapping[str, Runs]],
    profile: Profile | Mapping[str, Profile],
    *,
    means: str = "",
    x: str = "hidden layer",
    theory: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """A panel for each group, in it a line over depth for each arm: the geometric mean over seeds.

    Args:
        groups: title -> label -> the runs of an arm.
        profile: the numbers of a run, a layer each; one function for all panels, or one for each title.
        means: what the numbers mean, below the titles.
        theory: title -> label -> the factor per layer on the way back, drawn dashed from the last layer on.
    """
    figure, axes = panels(len(groups))
    found: list[dict[str, list[float]]] = []
    for title, group in groups.items():
        own = profile if callable(profile) else profile[title]
        centres = {label: _mean([own(run) for run in runs]) for label, runs in group.items()}
        found.append({label: ys for label, ys in centres.items() if any(y > 0 for y in ys)})
    ends = limits([[y for ys in arms.values() for y in ys if math.isfinite(y)] for arms in found])
    for axis, title, arms, (low, high) in zip(axes, groups, found, ends, strict=True):
        decades(axis, low, high)
        words: list[tuple[float, str, Any]] = []
        for colour, (label, ys) in zip(cycle(WORD_COLOURS), arms.items(), strict=False):
            xs = range(1, len(ys) + 1)
            axis.plot(xs, ys, "o-", color=colour, ms=3, lw=1.4)
            if label in (theory or {}).get(title, {}):
                factor = (theory or {})[title][label]
                slope = [ys[-1] * factor ** (len(ys) - i) for i in xs]
                axis.plot(xs, slope, "--", color=BLACK, lw=1.2, alpha=0.8)
            words.append((share(axis, ys[0]), label, colour))
        say_y(axis, title, means)
        axis.set_xlabel(x, color=GREY)
        axis.invert_xaxis()  # the error comes from the outputs; its lines end where they are named
        beside(axis, words)
    return figure


def along(
    groups: Mapping[str, Mapping[float, Mapping[int, float]]],
    *,
    says: tuple[str, str],
    x: str,
    log: tuple[bool, bool] = (False, False),
    theory: Mapping[str, Callable[[float], float]] | None = None,
    marks: Sequence[float] = (),
) -> Figure:
    """A number along a factor, a line for each label, a dot for each seed.

    Args:
        groups: label -> value of the factor -> seed -> number.
        log: whether the x and the y axis are logarithmic.
        theory: label -> what theory gives for a value; drawn dashed.
        marks: heights of dotted lines, chance say.
    """
    figure, (axis,) = panels(1)
    if log[0]:
        axis.set_xscale("log")
    if log[1]:
        axis.set_yscale("log")
    for height in marks:
        axis.axhline(height, color=GREY, ls=":", lw=1)
    drawn = []
    for colour, (label, points) in zip(cycle(WORD_COLOURS), groups.items(), strict=False):
        xs = sorted(points)
        means = [_centre(points[value], geometric=log[1]) for value in xs]
        axis.plot(xs, means, "-", color=colour, lw=1.4)
        for value in xs:
            own = list(points[value].values())
            axis.plot([value] * len(own), own, "o", color=colour, ms=3, alpha=0.6)
        if theory and label in theory:
            axis.plot(xs, [theory[label](value) for value in xs], "--", color=BLACK, lw=1, alpha=0.7)
        if math.isfinite(means[-1]):
            drawn.append((means[-1], label, colour))
    axis.relim()
    axis.autoscale_view()
    say_y(axis, *says)
    axis.set_xlabel(x, color=GREY)
    beside(axis, [(share(axis, end), label, colour) for end, label, colour in drawn])
    return figure


def _mean(profiles: Sequence[Sequence[float]]) -> list[float]:
    """Layer by layer the geometric mean; nan where a run has no number."""
    whole = [own for own in profiles if own]
    if not whole:
        return []
    return [_centre(dict(enumerate(column)), geometric=True) for column in zip(*whole, strict=False)]


def _centre(values: Mapping[int, float], *, geometric: bool) -> float:
    known = [x for x in values.values() if math.isfinite(x) and (x > 0 or not geometric)]
    if not known:
        return math.nan
    return statistics.geometric_mean(known) if geometric else statistics.fmean(known)
