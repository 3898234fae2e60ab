"""What all pictures share: colours, settings of matplotlib, log axes, marks, and words beside lines."""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, told apart also by the colour-blind; yellow, hard to read on white, is left out.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = WORD_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1B1F24"),
)
GREY = "#666666"  # of words
INK = "#1B1F24"  # of words and axes; #000000 itself is data, and looks the same on dark paper
PALE = "#8FBEDB"  # what was at the start, beside BLUE
CONTRAST = 4.5  # of words on white, at least (WCAG 2, AA)
SETTINGS: dict[Any, Any] = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}
NARROW = 4.0  # inches: the width of a picture for a phone
LEAST_DECADES = 2.0  # from the foot to the top of a panel, at least: a flat profile looks flat
FOOT, TOP = 0.02, 0.985  # of a panel's height: where a line on a log scale has a 0, and what is not finite
WIDE = 50.0  # from the smallest to the largest number: from here on an axis is logarithmic
MANY_DECADES = 1e4  # from here on nobody reads minor ticks, and they take long to draw

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def drawn(make: Callable[P, R]) -> Callable[P, R]:
    """A function that draws, under the settings of all pictures; those of a notebook stay as they are."""

    @functools.wraps(make)
    def under_settings(*args: P.args, **kwargs: P.kwargs) -> R:
        from matplotlib import rc_context

        with rc_context(SETTINGS):
            return make(*args, **kwargs)

    return under_settings


def ink(colour: Any) -> str:
    """The colour, darkened as far as words in it need to be read on white."""
    from matplotlib.colors import to_hex, to_rgb

    rgb = to_rgb(colour)
    while 1.05 / (_luminance(rgb) + 0.05) < CONTRAST:
        rgb = (0.95 * rgb[0], 0.95 * rgb[1], 0.95 * rgb[2])
    return to_hex(rgb)


def _luminance(rgb: Sequence[float]) -> float:
    """Relative luminance as WCAG 2 defines it, of channels in 0..1."""
    linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def inches(figure: Figure, *, left: float, right: float, top: float, bottom: float, **between: float) -> None:
    """Margins around the panels, in inches: finding them out by drawing takes longer than drawing.

    Args:
        between: `across` and `down`, inches between panels; `columns` and `rows` of them.
    """
    width, height = figure.get_size_inches()
    columns, rows = between.get("columns", 1), between.get("rows", 1)
    across, down = between.get("across", 0.0), between.get("down", 0.0)
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=across * columns / (width - left - right - across * (columns - 1)),
        hspace=down * rows / (height - top - bottom - down * (rows - 1)),
    )


def headline(figure: Figure, said: str, *, left: float | None = None) -> None:
    """Bold words above all panels, on as many lines as they need.

    Args:
        left: where they begin, in inches; at the left edge of the first panel if not said.
    """
    width, height = figure.get_size_inches()
    narrow = width <= NARROW
    if left is None:
        left = float(figure.axes[0].get_position().x0 * width)
    if narrow:
        left = 0.1
    size, each = (11.0, 11.0) if narrow else (13.0, 9.5)  # points, characters in an inch
    lines = textwrap.wrap(said, int((width - left) * each))
    place = {"x": left / width, "y": 1 - 0.12 / height, "ha": "left", "va": "top"}
    figure.suptitle("\n".join(lines), weight="bold", fontsize=size, **place)


def decades(axes: Axes, low: float, high: float) -> None:
    """A log axis from low to high, with a tick for each of at most some nine decades."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    axes.set_ylim(low, high)
    if high / low > MANY_DECADES:
        # A locator of its own would ask every tick of the axis for its size first.
        axes.yaxis.set_major_locator(LogLocator(numticks=9))
        axes.yaxis.set_minor_locator(NullLocator())


def limits(columns: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Of log axes for some sets of numbers: as many decades for each, the numbers in the middle."""
    ends = []
    for column in columns:
        logs = [math.log10(x) for x in column if x > 0]
        ends.append((min(logs), max(logs)) if logs else (0.0, 0.0))
    span = max(LEAST_DECADES, 1.12 * max(high - low for low, high in ends) + 0.1)
    return [(10 ** ((low + high - span) / 2), 10 ** ((low + high + span) / 2)) for low, high in ends]


def say_y(axes: Axes, name: str, meaning: str) -> None:
    """The name of the y axis above it, to be read without turning one's head, and below it what it means."""
    axes.set_ylabel(meaning, rotation=0, ha="left", va="bottom", fontsize=9.5, color=GREY)
    axes.yaxis.set_label_coords(0, 1.02)
    axes.set_title(name, loc="left", weight="bold", pad=20)


def zeros(axes: Axes, places: Sequence[float], colour: Any) -> None:
    """Triangles at the foot of a log axis, which has no place for a 0."""
    if places:
        foot = axes.get_xaxis_transform()
        axes.plot(places, [FOOT] * len(places), "v", color=colour, ms=5.5, transform=foot, clip_on=False)


def crosses(axes: Axes, places: Sequence[tuple[float, str]], colour: Any) -> None:
    """Numbers that are not finite: crosses at the top, and one word for neighbours that say the same."""
    if not places:
        return
    top = axes.get_xaxis_transform()
    xs = [x for x, _ in places]
    axes.plot(xs, [TOP] * len(xs), "x", color=colour, ms=6, mew=1.6, transform=top, clip_on=False)
    for own in _runs(places):
        middle = (own[0][0] + own[-1][0]) / 2
        axes.text(
            *(middle, TOP - 0.035, own[0][1]),
            transform=top,
            ha="center",
            va="top",
            fontsize=9,
            color=ink(colour),
        )


def _runs(places: Sequence[tuple[float, str]]) -> list[list[tuple[float, str]]]:
    """Neighbours with the same word together."""
    found: list[list[tuple[float, str]]] = []
    for place in places:
        if found and found[-1][-1][1] == place[1]:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def beside(axes: Axes, ends: Iterable[tuple[float, str, Any]]) -> None:
    """Write on the right of a panel what its lines are, moved apart where words would overlap.

    Args:
        ends: where a line ends as a share of the panel's height, what it is, its colour.
    """
    placed = sorted(ends, key=lambda end: end[0])
    size = 9 if axes.get_figure().get_size_inches()[0] <= NARROW else 10  # type: ignore[union-attr]
    heights = apart([height for height, *_ in placed], distance(axes, size))
    for (_, label, colour), at in zip(placed, heights, strict=True):
        axes.annotate(
            label,
            (1, at),
            (6, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=ink(colour),
            va="center",
            fontsize=size,
            weight="bold",
        )


def distance(axes: Axes, size: float) -> float:
    """Between two lines of words of a size in points, as a share of the panel's height."""
    inches = axes.get_figure().get_size_inches()[1] * axes.get_position().height  # type: ignore[union-attr]
    return float(1.25 * size / 72 / inches)


def share(axes: Axes, y: float) -> float:
    """How high a number stands in a panel: 0 at the foot, 1 at the top; a zero on a log scale at the foot."""
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log":
        if y <= 0:
            return FOOT
        low, high, y = math.log10(low), math.log10(high), math.log10(y)
    return min(1.0, max(0.0, (y - low) / (high - low)))


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
