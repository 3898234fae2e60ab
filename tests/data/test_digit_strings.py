"""Strings of digits can be read back from their canvas, and share no picture between splits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dlexp.data import digit_strings, digits
from dlexp.data.dataset import Split
from dlexp.errors import UserError

WORDS: dict[str, Any] = {
    "shortest": 3,
    "longest": 5,
    "sample_seed": 0,
    "validation": 0.2,
    "test": 0.2,
    "split_seed": 0,
    "standardize": "none",
}


def squares(n: int) -> Split:
    """Pictures of one shade each: that of number i is i + 1 all over, its class i % 10."""
    shades = torch.arange(1, n + 1, dtype=torch.float32)
    return Split(shades.view(n, 1, 1, 1).expand(n, 1, 8, 8), torch.arange(n) % 10)


def read_back(canvas: torch.Tensor) -> list[int]:
    """The classes of the squares on a canvas (1, 12, W), from left to right."""
    found = []
    columns = canvas[0].amax(dim=0).int().tolist()
    x = 0
    while x < len(columns):
        if columns[x] == 0:
            x += 1
            continue
        assert columns[x : x + 8] == [columns[x]] * 8, "digits overlap"
        assert (canvas[0, :, x] > 0).sum() == 8, "a digit is cut off"
        found.append((columns[x] - 1) % 10)
        x += 8
    return found


@pytest.mark.parametrize(("shortest", "longest"), [(3, 5), (1, 1), (2, 7)])
def test_the_target_is_what_stands_on_the_canvas(shortest: int, longest: int) -> None:
    """Whole digits in their order, without overlap, and 0 behind the end."""
    drawn = digit_strings.strings(squares(50), 200, shortest, longest, torch.Generator().manual_seed(0))
    assert drawn.inputs.shape == (200, 1, 12, 10 * longest + 6)
    lengths, starts, tops = set(), set(), set()
    for canvas, target in zip(drawn.inputs, drawn.targets.tolist(), strict=True):
        digits_there = read_back(canvas)
        lengths.add(len(digits_there))
        assert target == [d + 1 for d in digits_there] + [0] * (longest - len(digits_there))
        starts.add(int(canvas[0].amax(dim=0).nonzero()[0]))
        tops.add(int(canvas[0].amax(dim=1).nonzero()[0]))
    assert lengths == set(range(shortest, longest + 1))
    assert min(starts) == 0 and len(starts) > 8
    assert 0 in tops and tops <= {0, 1, 2, 3, 4}


def test_no_picture_is_in_two_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shades tell which of 200 pictures were used."""
    monkeypatch.setattr(digits, "read", lambda: squares(200))
    data = digit_strings.load(samples=500, **WORDS)
    used = [
        set(part.inputs.unique().int().tolist()) - {0} for part in (data.train, data.validation, data.test)
    ]
    assert [len(part) for part in (data.train, data.validation, data.test)] == [300, 100, 100]
    assert [len(shades) for shades in used] == [120, 40, 40]
    assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])


def test_digits_on_the_canvas_are_the_real_ones() -> None:
    """Cut out at its place, the only digit of a string is one of scikit-learn's with that label."""
    from sklearn.datasets import load_digits

    data = digit_strings.load(samples=30, **{**WORDS, "shortest": 1, "longest": 1})
    real = load_digits()
    for canvas, (symbol,) in zip(data.test.inputs[:, 0], data.test.targets.tolist(), strict=True):
        windows = canvas.unfold(0, 8, 1).unfold(1, 8, 1).flatten(0, 1)  # (places, 8, 8)
        candidates = torch.tensor(real.images[real.target == symbol - 1]).float()
        difference = torch.cdist(windows.flatten(1), candidates.flatten(1))
        assert difference.min() == 0


def test_lengths_that_contradict_are_told() -> None:
    """The text names both."""
    with pytest.raises(UserError, match=r"^data.shortest=4: allowed: 1 to data.longest=3$"):
        digit_strings.load(samples=30, **{**WORDS, "shortest": 4, "longest": 3})
