"""What TensorBoard's Images tab shows of a run that has ended."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from dlexp import plots
from dlexp.report.load import Run
from dlexp.theory import slopes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 3  # recorded steps that the signature is drawn of: the first, one in the middle, the last
DPI = 90


MOST_WRONG = 12  # samples
SECONDS = 0.05  # that a picture takes


class Wrong(NamedTuple):
    """A sample that was taken for another class."""

    image: np.ndarray  # (H, W) or (H, W, 3), from 0 to 1
    words: str  # what it is, and what it was taken for


class Board(Protocol):
    """Where pictures go."""

    def image(self, tag: str, step: int, png: bytes) -> None: ...


def draw(
    board: Board,
    folder: Path,
    summary: Mapping[str, Any],
    wrong: Sequence[Wrong],
    seconds: float | None = None,
) -> None:
    """Draw what there is to see, as long as that takes no more than `seconds`; None: all of it.

    The most telling come first: the last step, the first, one between, what is confused, what went most
    wrong. They are written in the order of their steps, in which TensorBoard expects them.
    """
    end = None if seconds is None else time.perf_counter() + seconds
    records = Run(folder).records
    steps = [int(step) for step in records["step"].unique()]
    last = summary["steps"] - 1
    theory = {name: (slope.factor, slope.label) for name, slope in slopes(summary).items()}

    def signature(step: int) -> Figure:
        return plots.signature(records, step=step, slopes=theory)

    telling = [steps[i * (len(steps) - 1) // (STEPS - 1)] for i in (STEPS - 1, *range(STEPS - 1)) if steps]
    jobs: list[tuple[str, int, Callable[[], Figure]]] = [
        ("layers/signature", step, partial(signature, step)) for step in dict.fromkeys(telling)
    ]
    if classes := summary.get("confusion"):
        names = class_names(summary, len(classes))
        jobs.append(("mistakes/confusion_test", last, lambda: plots.confusion(classes, names)))
    if wrong:
        images, words = zip(*wrong, strict=True)
        jobs.append(("mistakes/most_wrong_test", last, lambda: plots.samples(images, words)))
    drawn = []
    for tag, step, figure in jobs:
        if end is not None and time.perf_counter() >= end:
            break
        drawn.append((step, tag, png(figure())))
    for step, tag, picture in sorted(drawn, key=lambda one: one[0]):
        board.image(tag, step, picture)


class Mistake(Protocol):
    """What dlexp.train.mistakes found."""

    @property
    def right(self) -> int: ...

    @property
    def decided(self) -> int: ...

    @property
    def probability(self) -> float: ...


def wrong(inputs: np.ndarray, found: Sequence[Mistake], summary: Mapping[str, Any]) -> list[Wrong]:
    """Mistakes as pictures; none if the inputs are no pictures.

    Args:
        inputs: (n, C, H, W), those of the mistakes.
    """
    if inputs.ndim != 4 or inputs.shape[1] not in (1, 3):
        return []
    names = class_names(summary, summary["data"]["outputs"])
    low, high = inputs.min(axis=(1, 2, 3), keepdims=True), inputs.max(axis=(1, 2, 3), keepdims=True)
    images = ((inputs - low) / np.maximum(high - low, 1e-12)).transpose(0, 2, 3, 1)
    said = [
        f"{names[one.right]}, taken for {names[one.decided]}\np({names[one.right]}) = {one.probability:.2g}"
        for one in found
    ]
    grey = inputs.shape[1] == 1
    return [Wrong(image[..., 0] if grey else image, words) for image, words in zip(images, said, strict=True)]


def class_names(summary: Mapping[str, Any], count: int) -> list[str]:
    """What the classes are called; their numbers where that is not known."""
    names = (summary.get("facts") or {}).get("classes")
    return [str(name) for name in names] if names and len(names) == count else [str(k) for k in range(count)]


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, dpi=DPI, format="png")
    return file.getvalue()
