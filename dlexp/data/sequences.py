"""Sequences that ask for a memory: digits step by step, the adding problem, copying and recalling.

N samples, T time steps. `sample_seed` decides what is drawn; `shares` are validation, test, train_dev,
split_seed and, where inputs are numbers, standardize, as `dataset.divide` has them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from dlexp.data import dataset, digits
from dlexp.data.dataset import Dataset, Split

STEPS = {"rows": (8, 8), "pixels": (64, 1)}  # time steps, features

UNASKED = -100  # the target of a time step where nothing is asked; PyTorch's cross-entropy skips it


def sequential_digits(steps: str, **shares: Any) -> Dataset:
    """The digits, read from top to bottom: inputs (N, T, F), classes (N,) 0 to 9.

    Args:
        steps: "rows" for 8 steps of 8 pixels, "pixels" for 64 steps of one.
    """
    pictures = digits.load(**shares)  # standardized as pictures: one mean for all steps of "channel"
    return pictures.map(lambda split: replace(split, inputs=split.inputs.view(-1, *STEPS[steps])))


def adding(samples: int, length: int, sample_seed: int, **shares: Any) -> Dataset:
    """The sum of two marked numbers: inputs (N, T, 2), targets (N, 1).

    Each step has a number, evenly from [0, 1], and a mark, 1 at one step of the first half and one of
    the second and else 0. Invented by Hochreiter and Schmidhuber (1997); numbers and marks are those
    of Le, Jaitly and Hinton (2015).

    Facts: constant_rmse = sqrt(1/6), the score of always saying 1.
    """
    generator = torch.Generator().manual_seed(sample_seed)
    numbers = torch.rand(samples, length, generator=generator)
    half, every = length // 2, torch.arange(samples)
    marks = torch.zeros(samples, length)
    marks[every, torch.randint(half, (samples,), generator=generator)] = 1
    marks[every, torch.randint(half, length, (samples,), generator=generator)] = 1
    drawn = Split(torch.stack([numbers, marks], dim=2), (numbers * marks).sum(dim=1, keepdim=True))
    facts = {"constant_rmse": math.sqrt(1 / 6)}
    return dataset.divide(drawn, outputs=1, task="regression", facts=facts, **shares)


def copy(samples: int, symbols: int, length: int, delay: int, sample_seed: int, **shares: Any) -> Dataset:
    """Say again what was shown: tokens (N, T), targets (N, T), with T = 2 length + delay.

    `length` symbols (tokens 0 to symbols - 1), `delay` blanks (token `symbols`), the sign to begin
    (token `symbols` + 1), and blanks to the end. From the sign on the symbols are asked for in their
    order, each length + delay steps after it was shown; before it nothing is asked (-100).
    """
    generator = torch.Generator().manual_seed(sample_seed)
    shown = torch.randint(symbols, (samples, length), generator=generator)
    inputs = torch.full((samples, 2 * length + delay), symbols)
    inputs[:, :length] = shown
    inputs[:, length + delay] = symbols + 1
    targets = torch.full_like(inputs, UNASKED)
    targets[:, length + delay :] = shown
    return _labelled(Split(inputs, targets), symbols, symbols + 2, shares)


def recall(samples: int, symbols: int, delay: int, sample_seed: int, **shares: Any) -> Dataset:
    """Name the first symbol at the end: tokens (N, T), targets (N, T), with T = delay + 2.

    The symbol to remember, `delay` other ones that do not count (all tokens 0 to symbols - 1), and the
    question (token `symbols`), where alone something is asked (-100 elsewhere).
    """
    generator = torch.Generator().manual_seed(sample_seed)
    inputs = torch.randint(symbols, (samples, delay + 2), generator=generator)
    inputs[:, -1] = symbols
    targets = torch.full_like(inputs, UNASKED)
    targets[:, -1] = inputs[:, 0]
    return _labelled(Split(inputs, targets), symbols, symbols + 1, shares)


def _labelled(drawn: Split, symbols: int, vocabulary: int, shares: dict[str, Any]) -> Dataset:
    """Facts: chance, the accuracy of guessing."""
    return dataset.divide(
        drawn,
        outputs=symbols,
        task="sequence_labelling",
        vocabulary=vocabulary,
        facts={"chance": 1 / symbols},
        standardize="none",
        **shares,
    )
