"""What TensorBoard's Images tab shows of a run that has ended."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlexp import plots
from dlexp.folder import SUMMARY, read_json
from dlexp.record.tensorboard import TensorBoard
from dlexp.report.load import Run
from dlexp.theory import slopes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlexp.train.mistakes import Mistake

STEPS = 3  # recorded steps that the signature is drawn of: the first, one in the middle, the last
DPI = 90
MOST_WRONG = 12  # samples
SECONDS = 0.05  # that a picture takes
SPARE = 0.5  # of the time of training, after which no more pictures are begun


class Wrong(NamedTuple):
    """A sample that was taken for another class."""

    image: np.ndarray  # (H, W) or (H, W, 3), from 0 to 1
    words: str  # what it is, and what it was taken for


def draw(
    folder: Path,
    wrong: Callable[[Mapping[str, Any]], Sequence[Wrong]] | None = None,
    *,
    trained: float | None = None,
) -> None:
    """Draw what there is to see of a run into its event file; nothing where it has none.

    The most telling come first: the last step, the first, one between, what is confused, what went most
    wrong. They are written in the order of their steps, in which TensorBoard expects them.

    Args:
        wrong: gives, from the summary, the samples that went most wrong.
        trained: seconds of training, where nobody waits for pictures: none is begun once half as many are
            used up.
    """
    spare = math.inf if trained is None else SPARE * trained
    board = TensorBoard.of(folder) if spare > SECONDS else None
    if board is None:
        return
    summary, end = read_json(folder / SUMMARY), time.perf_counter() + spare
    try:
        drawn = []
        for tag, step, figure in _jobs(folder, summary, wrong):
            if time.perf_counter() >= end:
                break
            if found := figure():
                drawn.append((step, tag, png(found)))
        for step, tag, picture in sorted(drawn, key=lambda one: one[0]):
            board.image(tag, step, picture)
    finally:
        board.close()


def _jobs(
    folder: Path,
    summary: Mapping[str, Any],
    wrong: Callable[[Mapping[str, Any]], Sequence[Wrong]] | None,
) -> Iterator[tuple[str, int, Callable[[], Figure | None]]]:
    """Tag, step and figure of each picture, the most telling first."""
    records = Run(folder).records
    steps = [int(step) for step in records["step"].unique()]
    last = summary["steps"] - 1
    theory = {name: (slope.factor, slope.label) for name, slope in slopes(summary).items()}

    def signature(step: int) -> Figure:
        return plots.signature(records, step=step, slopes=theory)

    telling = [steps[i * (len(steps) - 1) // (STEPS - 1)] for i in (STEPS - 1, *range(STEPS - 1)) if steps]
    for step in dict.fromkeys(telling):
        yield "layers/signature", step, partial(signature, step)
    if classes := summary.get("confusion"):
        names = class_names(summary, len(classes))
        yield "mistakes/confusion_test", last, lambda: plots.confusion(classes, names)

    def most_wrong() -> Figure | None:
        found = wrong(summary) if wrong else []
        return plots.samples(*zip(*found, strict=True)) if found else None

    yield "mistakes/most_wrong_test", last, most_wrong


def are_pictures(shape: Sequence[int]) -> bool:
    """Whether samples of that shape, (C, H, W), can be shown."""
    return len(shape) == 3 and shape[0] in (1, 3)


def as_pictures(inputs: np.ndarray, found: Sequence[Mistake], summary: Mapping[str, Any]) -> list[Wrong]:
    """Mistakes as pictures.

    Args:
        inputs: (n, C, H, W), those of the mistakes; see `are_pictures`.
    """
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
