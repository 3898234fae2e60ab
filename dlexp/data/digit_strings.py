"""Captcha-like pictures: several real digits side by side, to be read as one string.

N strings, L the longest string, H height, W width of the canvas.
"""

from __future__ import annotations

from typing import Any

import torch

from dlexp.data import dataset, digits
from dlexp.data.dataset import Dataset, Split
from dlexp.errors import UserError

SIZE = 8  # height and width of a digit
HEIGHT = 12  # of the canvas, so that digits can stand higher or lower
GAP = 2  # at most between two digits
ROOM = 8  # columns that even the widest string leaves empty


def load(samples: int, shortest: int, longest: int, sample_seed: int, **shares: Any) -> Dataset:
    """Inputs (N, 1, 12, W) with W = 10 longest + 6; targets (N, L): digit + 1, and 0 behind the end.

    A string has `shortest` to `longest` digits, each some rows higher or lower, with a gap of 0 to 2
    columns to the next, and begins anywhere. The digit pictures themselves are divided by `shares`
    (see `dataset.divide`), so no split shows a picture of another. 11 outputs: 0 is the blank of CTC.

    Raises:
        UserError: `shortest` is above `longest`.
    """
    if shortest > longest:
        raise UserError(f"data.shortest={shortest}: allowed: 1 to data.longest={longest}")
    pictures = digits.read()
    generator = torch.Generator().manual_seed(sample_seed)

    def write(splits: list[Split]) -> list[Split]:
        counts = [max(1, round(samples * len(split) / len(pictures))) for split in splits]
        return [
            strings(split, count, shortest, longest, generator)
            for split, count in zip(splits, counts, strict=True)
        ]

    return dataset.divide(pictures, change=write, outputs=11, task="transcription", **shares)


def strings(pictures: Split, count: int, shortest: int, longest: int, generator: torch.Generator) -> Split:
    """`count` strings of the pictures (M, 1, 8, 8) and their classes (M,)."""

    def draw(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high + 1, shape, generator=generator)

    chosen = draw(0, len(pictures) - 1, count, longest)  # (N, L) which picture
    inside = torch.arange(longest) < draw(shortest, longest, count, 1)  # (N, L) is it in the string?
    top = draw(0, HEIGHT - SIZE, count, longest)
    gap = draw(0, GAP, count, longest)
    left = (SIZE + gap).cumsum(dim=1) - SIZE - gap[:, :1]  # (N, L) the first one begins at 0
    width = SIZE * longest + GAP * (longest - 1) + ROOM
    free = width - ((left + SIZE) * inside).amax(dim=1)  # (N,)
    left = left + (torch.rand(count, generator=generator) * (free + 1)).long().unsqueeze(1)
    canvas = torch.zeros(count, HEIGHT, width)
    box = torch.arange(SIZE)
    for slot in range(longest):
        rows = inside[:, slot].nonzero()  # (n, 1) the strings that have a digit here
        y = top[rows, slot].unsqueeze(2) + box.unsqueeze(1)  # (n, 8, 1)
        x = left[rows, slot].unsqueeze(2) + box  # (n, 1, 8)
        canvas[rows.unsqueeze(2), y, x] = pictures.inputs[chosen[rows.squeeze(1), slot], 0]
    return Split(canvas.unsqueeze(1), (pictures.targets[chosen] + 1) * inside)
