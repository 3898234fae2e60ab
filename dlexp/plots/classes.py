"""What is taken for what: a table of classes by classes, and the samples that went most wrong."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dlexp.errors import UserError
from dlexp.plots import check, style

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

RIGHT, WRONG = "Blues", "Oranges"  # told apart by lightness, too
FEW = 5  # samples: a single mistake is not dark
MOST_COUNTS = 20  # classes, above which a table shows colours only
ACROSS = 4  # samples in a row


@style.drawn
def confusion(
    counts: Sequence[Sequence[int]], classes: Sequence[str] | None = None, *, narrow: bool = False
) -> Figure:
    """How many samples of each class, a row, were taken for each class, a column.

    Right decisions are blue, wrong ones orange; each has a scale of its own, so that few mistakes show.

    Args:
        counts: (K, K) numbers of samples.
        classes: their K names; None: 0 to K - 1.
        narrow: for a phone.

    Raises:
        UserError: it is not such a table; a run has none if its task has no classes, or only two.
    """
    import numpy as np
    from matplotlib.figure import Figure

    table = _table(counts)
    names = [str(k) for k in range(len(table))] if classes is None else [str(name) for name in classes]
    if len(names) != len(table):
        raise UserError(
            f"confusion: classes={check.shown(classes)}: {len(names)} names; allowed: {len(table)}"
        )
    diagonal = np.eye(len(table), dtype=bool)
    size = style.NARROW if narrow else min(10.0, 3.6 + 0.38 * len(table))
    small = 9 if size > 2.2 + 0.3 * len(table) else 7
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    for shown, colours in ((diagonal, RIGHT), (~diagonal, WRONG)):
        cells = np.where(shown & (table > 0), table, np.nan)
        most = max(FEW, table[shown].max(initial=0))
        axes.imshow(cells, cmap=colours, vmin=-0.25 * most, vmax=1.6 * most)
    places = np.arange(len(table) + 1) - 0.5
    axes.grid(visible=False)
    axes.hlines(places, places[0], places[-1], "0.9", lw=0.8)
    axes.vlines(places, places[0], places[-1], "0.9", lw=0.8)
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": small, "color": "black"}  # on pale
    if len(table) <= (MOST_COUNTS // 2 if narrow else MOST_COUNTS):
        for row, column in np.argwhere(table > 0):
            axes.text(column, row, f"{table[row, column]:.0f}", **look)
    many = max(map(len, names)) > 3
    axes.set_xticks(range(len(names)), names, rotation=90 if many else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    said = _headline(table, names)
    figure.suptitle("\n".join(textwrap.wrap(said, int(size * 10))), fontsize=11)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _table(counts: object) -> np.ndarray:
    """(K, K) The counts as an array."""
    import numpy as np

    call, allowed = (
        "confusion: counts",
        "allowed: K rows of K numbers, as run.summary['confusion']",
    )
    try:
        table = np.asarray([] if counts is None else counts, dtype=float)
    except (TypeError, ValueError):
        table = np.full(1, math.nan)
    if not table.size:
        none = "a task without classes has none; of two classes run.summary['errors'] says enough"
        raise UserError(f"{call}={check.shown(counts)}: nothing to show; {allowed}; {none}")
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not (table >= 0).all():
        raise UserError(f"{call}={check.shown(counts)}: not a table of counts; {allowed}")
    return table


def _headline(table: np.ndarray, names: Sequence[str]) -> str:
    import numpy as np

    wrong = table - np.diag(np.diag(table))
    said = f"{wrong.sum():.0f} of {table.sum():.0f} samples taken for another class"
    if wrong.max() > 1:
        row, column = np.unravel_index(wrong.argmax(), wrong.shape)
        said += f"; {names[row]} is most often taken for {names[column]} ({wrong.max():.0f} times)"
    return said


@style.drawn
def samples(images: Sequence[np.ndarray], words: Sequence[str]) -> Figure:
    """Pictures side by side, with words above each.

    Args:
        images: (H, W) grey or (H, W, 3) coloured, from 0 to 1.
        words: as many.

    Raises:
        UserError: there is no picture, one is none, or words are missing.
    """
    import numpy as np
    from matplotlib.figure import Figure

    allowed = "allowed: pictures (H, W) or (H, W, 3), and words for each"
    if len(images) == 0 or len(images) != len(words):
        raise UserError(f"samples: images, words: {len(images)} pictures, {len(words)} words; {allowed}")
    for n, image in enumerate(images):
        shape = np.shape(image)
        if len(shape) != 2 and not (len(shape) == 3 and shape[2] in (3, 4)):
            raise UserError(f"samples: images[{n}]: of shape {shape}; {allowed}")
    rows = -(-len(images) // ACROSS)
    figure = Figure(figsize=(1.9 * ACROSS, 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, ACROSS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, said in zip(grid, images, words, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(said, fontsize=9)
    return figure
