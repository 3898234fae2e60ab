"""Sequences: what is asked, when, and that the answer is in them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dlexp.data import digits, sequences

SHARES: dict[str, Any] = {"validation": 0.2, "test": 0.2, "split_seed": 0}
DRAWN = {**SHARES, "sample_seed": 0}


@pytest.mark.parametrize("how", ["channel", "feature", "none"])
def test_digits_are_read_from_top_to_bottom(how: str) -> None:
    """Step t is row t, or pixel t, of the same standardized pictures in the same splits."""
    pictures = digits.load(**SHARES, standardize=how)
    rows = sequences.sequential_digits("rows", **SHARES, standardize=how)
    pixels = sequences.sequential_digits("pixels", **SHARES, standardize=how)
    assert rows.input_shape == (8, 8) and pixels.input_shape == (64, 1)
    for t in range(8):
        assert torch.equal(rows.test.inputs[:, t], pictures.test.inputs[:, 0, t])
    for t in range(64):
        assert torch.equal(pixels.test.inputs[:, t, 0], pictures.test.inputs[:, 0, t // 8, t % 8])
    assert torch.equal(rows.test.targets, pictures.test.targets) and rows.outputs == 10


@pytest.mark.parametrize("length", [2, 9, 30])
def test_adding_sums_the_two_marked_numbers(length: int) -> None:
    """By a loop: one mark in each half, and their numbers add up to the target."""
    data = sequences.adding(samples=200, length=length, standardize="none", **DRAWN)
    assert data.input_shape == (length, 2)
    for sample, (y,) in zip(data.train.inputs.tolist(), data.train.targets.tolist(), strict=True):
        marked = [t for t, (_, mark) in enumerate(sample) if mark == 1]
        assert len(marked) == 2 and marked[0] < length // 2 <= marked[1]
        assert all(mark in (0, 1) and 0 <= number <= 1 for number, mark in sample)
        assert y == pytest.approx(sample[marked[0]][0] + sample[marked[1]][0], abs=1e-6)


def test_every_step_can_be_marked() -> None:
    """And always saying 1 scores constant_rmse."""
    data = sequences.adding(samples=5000, length=10, standardize="none", **DRAWN)
    assert data.train.inputs[:, :, 1].sum(dim=0).gt(500).all()  # 600 expected
    measured = (data.train.targets - 1).square().mean().sqrt().item()
    assert measured == pytest.approx(data.facts["constant_rmse"], rel=0.03)


@pytest.mark.parametrize(("length", "delay"), [(1, 0), (3, 4), (10, 20)])
def test_copy_asks_for_the_symbols_in_their_order(length: int, delay: int) -> None:
    """Written out as lists: symbols, blanks, the sign, blanks; asked from the sign to the end."""
    data = sequences.copy(samples=60, symbols=4, length=length, delay=delay, **DRAWN)
    assert (data.vocabulary, data.outputs, data.facts) == (6, 4, {"chance": 0.25})
    for tokens, asked in zip(data.train.inputs.tolist(), data.train.targets.tolist(), strict=True):
        shown = tokens[:length]
        assert all(0 <= symbol < 4 for symbol in shown)
        assert tokens[length:] == [4] * delay + [5] + [4] * (length - 1)
        assert asked == [-100] * (length + delay) + shown


def test_recall_asks_for_the_first_symbol_at_the_end() -> None:
    """Only there, and the symbols between tell nothing of it."""
    data = sequences.recall(samples=4000, symbols=4, delay=3, **DRAWN)
    assert (data.vocabulary, data.outputs, data.input_shape) == (5, 4, (5,))
    for tokens, asked in zip(data.train.inputs.tolist(), data.train.targets.tolist(), strict=True):
        assert asked == [-100] * 4 + [tokens[0]] and tokens[-1] == 4
    answers = data.train.targets[:, -1:]
    agreeing = (data.train.inputs[:, 1:-1] == answers).float().mean()
    assert agreeing.item() == pytest.approx(data.facts["chance"], abs=0.02)


def test_symbols_are_evenly_drawn() -> None:
    """Guessing scores chance."""
    data = sequences.copy(samples=4000, symbols=8, length=5, delay=2, **DRAWN)
    shares = data.train.inputs[:, :5].flatten().bincount(minlength=8) / data.train.inputs[:, :5].numel()
    assert (shares - data.facts["chance"]).abs().max() < 0.01
