"""scikit-learn's real handwritten digits: 1797 pictures of 8x8 pixels, shades 0 to 16, and their variants.

N pictures, H = W pixels on a side.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from dlexp.data import dataset
from dlexp.data.dataset import Dataset, Split
from dlexp.errors import UserError

CLASSES = 10
SIDE = 8  # pixels on a side of a digit
PIECE = 4  # pixels on a side of what clutters a canvas


def load(
    *,
    standardize: str,
    shift: int = 0,
    canvas: int = SIDE,
    clutter: int = 0,
    noise: float = 0.0,
    permute: bool = False,
    where: str = "everywhere",
    label_noise: float = 0.0,
    label_noise_kind: str = "random",
    digit: int | None = None,
    positives: float | None = None,
    labels: int | None = None,
    sample_seed: int = 0,
    **shares: Any,
) -> Dataset:
    """The digits as inputs (N, 1, H, W) and classes 0 to 9, changed once and for all before training.

    Args:
        standardize, shares: as `dataset.divide` has them.
        shift: a digit is moved by up to so many pixels up or down, and left or right.
        canvas: pixels on a side; on more than 8 a digit stands at a random place.
        clutter: pieces of digits, at random places of each picture.
        noise: standard deviation of what is added to every pixel.
        permute: put the pixels of all pictures into one other order.
        where: "everywhere", or "held_out" to change the pictures of validation and test only.
        label_noise: share of wrong labels in train and train_dev; validation and test have the right ones.
        label_noise_kind: see `mislabelled`.
        digit: ask of each picture whether it is this digit: targets (N, 1), 0 or 1.
        positives: share of that digit in the set, made by leaving pictures of it out.
        labels: keep only so many training samples, equally many of each class.
        sample_seed: of all that is drawn here.

    Raises:
        UserError: more is asked for than the digits have.
    """
    if where == "held_out" and canvas != SIDE:
        raise UserError(f"data.canvas={canvas}: with data.where=held_out training has 8x8; allowed: 8")
    draw = torch.Generator().manual_seed(sample_seed)
    clean = read()
    if digit is not None and positives is not None:
        clean = thinned_out(clean, digit, positives, draw)
    pictures = window(clean.inputs, SIDE, shift, draw)
    pictures = window(pictures, canvas, canvas - SIDE, draw)
    pictures = cluttered(pictures, clean.inputs, clutter, draw)
    pictures = pictures + noise * torch.randn(pictures.shape, generator=draw)
    if permute:
        order = torch.randperm(canvas * canvas, generator=draw)
        pictures = pictures.flatten(1)[:, order].view_as(pictures)
    wrong = mislabelled(clean.targets, label_noise, label_noise_kind, draw)

    # Two heaps with the same pictures in the same order: what is learned, and what judges it.
    learned = Split(clean.inputs if where == "held_out" else pictures, wrong)
    data, judge = (
        dataset.divide(heap, outputs=CLASSES, standardize="none", **shares)
        for heap in (learned, Split(pictures, clean.targets))
    )
    data = replace(data, validation=judge.validation, test=judge.test)
    if labels is not None:
        data = replace(data, train=few(data.train, labels, draw))
    if digit is not None:
        data = data.map(lambda split: replace(split, targets=(split.targets == digit).float().unsqueeze(1)))
        data = replace(data, outputs=1, task="binary")
    return _standardized(data, standardize)


def read() -> Split:
    """All 1797 digits in scikit-learn's order, shades as they are.

    The file that scikit-learn ships is read without importing scikit-learn, which alone takes
    as long as half of PyTorch does.
    """
    found = importlib.util.find_spec("sklearn")
    assert found is not None and found.origin is not None  # it is a dependency of dlexp
    path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if path.is_file():
        table = np.loadtxt(path, delimiter=",", dtype=np.float32)
    else:  # another layout of some other version: ask scikit-learn itself
        from sklearn.datasets import load_digits

        digits = load_digits()
        table = np.column_stack([digits.data, digits.target]).astype(np.float32)
    rows = torch.from_numpy(table)
    return Split(rows[:, :64].reshape(-1, 1, SIDE, SIDE), rows[:, 64].long())


def window(pictures: Tensor, size: int, margin: int, draw: Generator) -> Tensor:
    """A square at a random place of each picture with a margin of zeros around it.

    Args:
        pictures: (N, 1, H, H).
        size: pixels on a side of the square.
        margin: pixels of zeros at each edge. With `size` H + margin the whole picture is always inside;
            with `size` H it is moved by up to `margin` pixels, and what passes the edge is lost.

    Returns:
        (N, 1, size, size).
    """
    wide = functional.pad(pictures, (margin,) * 4)
    n, places = len(wide), wide.shape[-1] - size + 1
    if places == 1:
        return wide
    corners = torch.randint(places, (2, n, 1), generator=draw)
    rows, columns = corners + torch.arange(size)  # (N, size) each
    return wide[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def cluttered(pictures: Tensor, source: Tensor, pieces: int, draw: Generator) -> Tensor:
    """Pictures (N, 1, H, H) with pieces of pictures of `source` at random places; no ink is lost."""
    side = pictures.shape[-1]
    for _ in range(pieces):
        others = source[torch.randint(len(source), (len(pictures),), generator=draw)]
        piece = window(others, PIECE, 0, draw)
        pictures = pictures.maximum(window(piece, side, side - PIECE, draw))
    return pictures


def mislabelled(targets: Tensor, share: float, kind: str, draw: Generator) -> Tensor:
    """Classes (N,), a share of them wrong.

    Args:
        kind: "random": as many samples as the share says, drawn anew, each get any other class.
            "systematic": as many of the ten classes as the share says (0.2: two), drawn anew, and
            every k of them is called k + 1 (9: 0).
    """
    if kind == "systematic":
        classes = torch.randperm(CLASSES, generator=draw)[: round(share * CLASSES)]
        return torch.where(torch.isin(targets, classes), (targets + 1) % CLASSES, targets)
    rows = torch.randperm(len(targets), generator=draw)[: round(share * len(targets))]
    wrong = targets.clone()
    wrong[rows] = (targets[rows] + torch.randint(1, CLASSES, (len(rows),), generator=draw)) % CLASSES
    return wrong


def thinned_out(samples: Split, digit: int, share: float, draw: Generator) -> Split:
    """The samples without so many of one digit that `share` of what is left is that digit."""
    own = (samples.targets == digit).nonzero().flatten()
    others = (samples.targets != digit).nonzero().flatten()
    wanted = round(len(others) * share / (1 - share))
    if not 1 <= wanted <= len(own):
        most = len(own) / len(samples)
        raise UserError(f"data.positives={share:g}: allowed: null or a number from 0.001 to {most:.3f}")
    rows = torch.cat([others, own[torch.randperm(len(own), generator=draw)[:wanted]]]).sort().values
    return Split(samples.inputs[rows], samples.targets[rows])


def few(train: Split, labels: int, draw: Generator) -> Split:
    """So many samples, equally many of each class, or one more of the first ones."""
    order = torch.randperm(len(train), generator=draw)
    counts = [labels // CLASSES + (k < labels % CLASSES) for k in range(CLASSES)]
    own = [order[train.targets[order] == k] for k in range(CLASSES)]
    if any(len(rows) < count for rows, count in zip(own, counts, strict=True)):
        most = CLASSES * min(map(len, own))
        raise UserError(f"data.labels={labels}: allowed: null or a whole number from 10 to {most}")
    rows = torch.cat([rows[:count] for rows, count in zip(own, counts, strict=True)])
    return Split(train.inputs[rows], train.targets[rows])


def _standardized(data: Dataset, how: str) -> Dataset:
    names = [name for name in ("train", "validation", "test", "train_dev") if getattr(data, name)]
    parts = dataset.standardized([getattr(data, name) for name in names], how)
    changed: dict[str, Any] = dict(zip(names, parts, strict=True))
    return replace(data, **changed)
