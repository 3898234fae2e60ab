"""What is taken for what: a table of classes by classes, and the samples that went most wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

RIGHT, WRONG = "Blues", "Oranges"  # told apart by lightness, too
FEW = 5  # samples: a single mistake is not dark
MOST_COUNTS = 20  # classes, above which a table shows colours only
ACROSS = 4  # samples in a row


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str] | None = None) -> Figure:
    """How many samples of each class, a row, were taken for each class, a column.

    Right decisions are blue, wrong ones orange; each has a scale of its own, so that few mistakes show.

    Args:
        counts: (K, K) numbers of samples.
        classes: their K names; None: 0 to K - 1.
    """
    import numpy as np
    from matplotlib.figure import Figure

    table = np.asarray(counts, dtype=float)
    names = [str(k) for k in range(len(table))] if classes is None else list(classes)
    diagonal = np.eye(len(table), dtype=bool)
    size = min(10.0, 3.6 + 0.38 * len(table))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    for shown, colours in ((diagonal, RIGHT), (~diagonal, WRONG)):
        cells = np.where(shown & (table > 0), table, np.nan)
        most = max(FEW, table[shown].max(initial=0))
        axes.imshow(cells, cmap=colours, vmin=-0.25 * most, vmax=1.6 * most)
    places = np.arange(len(table) + 1) - 0.5
    axes.hlines(places, places[0], places[-1], "0.9", lw=0.8)
    axes.vlines(places, places[0], places[-1], "0.9", lw=0.8)
    if len(table) <= MOST_COUNTS:
        for row, column in np.argwhere(table > 0):
            axes.text(column, row, f"{table[row, column]:.0f}", ha="center", va="center", fontsize=9)
    many = max(map(len, names)) > 3
    axes.set_xticks(range(len(names)), names, rotation=90 if many else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    figure.suptitle(_headline(table, names), fontsize=11)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _headline(table: np.ndarray, names: Sequence[str]) -> str:
    import numpy as np

    wrong = table - np.diag(np.diag(table))
    said = f"{wrong.sum():.0f} of {table.sum():.0f} samples taken for another class"
    if wrong.max() > 1:
        row, column = np.unravel_index(wrong.argmax(), wrong.shape)
        said += f"\nmost often {names[row]} for {names[column]} ({wrong.max():.0f})"
    return said


def samples(images: Sequence[np.ndarray], words: Sequence[str]) -> Figure:
    """Pictures side by side, with words above each.

    Args:
        images: (H, W) grey or (H, W, 3) coloured, from 0 to 1.
    """
    from matplotlib.figure import Figure

    rows = -(-len(images) // ACROSS)
    figure = Figure(figsize=(1.9 * ACROSS, 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, ACROSS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, said in zip(grid, images, words, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(said, fontsize=9)
    return figure
