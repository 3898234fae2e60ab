"""Pictures that many experiments draw: profiles over depth, and a number along a factor."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlexp.lab.runs import Run, Runs
from dlexp.plots.style import BLACK, GREY, WORD_COLOURS, beside, decades, inches, limits, say_y, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.9, 3.6  # of a panel, inches


def panels(count: int) -> tuple[Figure, Sequence[Axes]]:
    """A row of panels with room for words on the right of each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH * count, HEIGHT))
    axes = [figure.add_subplot(1, count, i + 1) for i in range(count)]
    inches(figure, left=0.7, right=1.5, top=0.75, bottom=0.55, columns=count, across=2.1)
    return figure, axes


def lines(
    groups: Mapping[str, Mapping[str, Runs]],
    profile: Callable[[Run], Sequence[float]],
    *,
    says: tuple[str, str],
    x: str,
    theory: Mapping[str, float] | None = None,
) -> Figure:
    """A panel for each group, in it a line over depth for each arm: the geometric mean over seeds.

    Args:
        groups: title -> label -> the runs of an arm.
        profile: the numbers of a run, a layer each.
        says: what is shown, and what that means.
        theory: label -> the factor per layer on the way back, drawn dashed from the last layer on.
    """
    figure, axes = panels(len(groups))
    found = [
        {label: _mean([profile(run) for run in runs]) for label, runs in group.items()}
        for group in groups.values()
    ]
    found = [{label: ys for label, ys in means.items() if any(y > 0 for y in ys)} for means in found]
    ends = limits([[y for ys in means.values() for y in ys if math.isfinite(y)] for means in found])
    for axis, title, means, (low, high) in zip(axes, groups, found, ends, strict=True):
        decades(axis, low, high)
        words: list[tuple[float, str, Any]] = []
        for colour, (label, ys) in zip(WORD_COLOURS, means.items(), strict=False):
            xs = range(1, len(ys) + 1)
            axis.plot(xs, ys, "o-", color=colour, ms=3, lw=1.4)
            if theory and label in theory:
                slope = [ys[-1] * theory[label] ** (len(ys) - i) for i in xs]
                axis.plot(xs, slope, "--", color=BLACK, lw=1, alpha=0.7)
            words.append((share(axis, ys[0]), label, colour))
        say_y(axis, f"{title}: {says[0]}", says[1])
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
    for colour, (label, points) in zip(WORD_COLOURS, groups.items(), strict=False):
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
