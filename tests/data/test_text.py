"""Text: windows side by side, the next character as the target, pieces that do not overlap."""

from __future__ import annotations

import sys

import pytest
import torch

from dlexp.data import text
from dlexp.data.dataset import Dataset, Split
from dlexp.errors import UserError


def build(characters: int | None = 10_000, length: int = 20, train_dev: float = 0.0) -> Dataset:
    return text.load(length=length, characters=characters, validation=0.1, test=0.2, train_dev=train_dev)


def spelled(data: Dataset, part: Split) -> str:
    """The inputs of all windows as one text, and the last target behind them."""
    tokens = [*part.inputs.flatten().tolist(), part.targets[-1, -1].item()]
    return "".join(data.facts["alphabet"][int(token)] for token in tokens)


def test_it_is_the_english_of_pydoc() -> None:
    """The text holds what help() prints, and 400,000 characters or more."""
    import pydoc_data.topics

    whole = text.read()
    assert len(whole) > 400_000
    assert pydoc_data.topics.topics["while"].strip() in whole


def test_each_split_spells_its_own_piece() -> None:
    """Train, train_dev, validation and test in the order of the text, none over the edge of another."""
    data = build(train_dev=0.05)
    assert data.train_dev is not None
    source, start = text.read(), 0
    for part, size in (
        (data.train, 6500),
        (data.train_dev, 500),
        (data.validation, 1000),
        (data.test, 2000),
    ):
        piece = source[start : start + size]
        read = spelled(data, part)
        assert piece.startswith(read) and size - len(read) < 20
        assert len(part) == (size - 1) // 20 and part.inputs.shape[1:] == (20,)
        start += size


def test_targets_are_the_inputs_one_later() -> None:
    """Within a window, and its last target begins the next window."""
    data = build()
    for part in (data.train, data.validation, data.test):
        assert torch.equal(part.targets[:, :-1], part.inputs[:, 1:])
        assert torch.equal(part.targets[:-1, -1], part.inputs[1:, 0])


def test_the_vocabulary_is_what_occurs() -> None:
    """Sorted, each once, counted over all splits."""
    data = build(characters=3000)
    assert data.facts["alphabet"] == "".join(sorted(set(text.read()[:3000])))
    assert data.vocabulary == data.outputs == len(data.facts["alphabet"])
    assert len(build(characters=None).train.inputs) > 14_000


def test_a_piece_without_a_window_is_told() -> None:
    """A window of 20 needs 21 characters."""
    line = (
        "data.validation=0.1, data.test=0.2: leave a split of the 200 characters without a window of"
        " data.length=20; allowed: more than 20 characters each"
    )
    with pytest.raises(UserError) as caught:
        build(characters=200)
    assert caught.value.lines == (line,)
    assert len(build(characters=210).validation) == 1


def test_a_python_without_the_text_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some systems pack pydoc_data apart."""
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(UserError, match=r"^data=text: this Python has come without pydoc_data"):
        build()
