"""The table of classes and pictures of samples: what they say, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dlexp import plots
from dlexp.errors import UserError
from dlexp.plots import style

COUNTS = [[5, 0, 1], [0, 7, 0], [4, 0, 2]]


@pytest.mark.parametrize("narrow", [False, True])
def test_confusion_names_what_is_taken_for_what(narrow: bool) -> None:
    """The row is what it is, the column what it was taken for."""
    figure = plots.confusion(COUNTS, ["cat", "dog", "eel"], narrow=narrow)
    said = " ".join(figure.get_suptitle().split())
    assert said == "5 of 19 samples taken for another class; eel is most often taken for cat (4 times)"
    (axes,) = figure.axes
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "5", (2, 0): "1", (1, 1): "7", (0, 2): "4", (2, 2): "2"}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("taken for", "class")
    assert (figure.get_size_inches()[0] == style.NARROW) == narrow


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: plots.confusion([]), r"confusion: counts=\[\]: nothing to show; allowed: K rows"),
        (lambda: plots.confusion(None), "counts=None: .* of two classes run.summary"),  # type: ignore[arg-type]
        (lambda: plots.confusion([[1, 2]]), r"counts=\[\[1, 2\]\]: not a table of counts"),
        (lambda: plots.confusion([[1, 2], [3]]), "not a table of counts"),
        (lambda: plots.confusion([[1, -2], [3, 4]]), "not a table of counts"),
        (lambda: plots.confusion("abc"), "counts=abc: not a table of counts"),  # type: ignore[arg-type]
        (lambda: plots.confusion(COUNTS, ["a", "b"]), "confusion: classes=.*: 2 names; allowed: 3"),
        (lambda: plots.samples([], []), "samples: images, words: 0 pictures, 0 words; allowed: "),
        (lambda: plots.samples([np.ones((2, 2))], []), "1 pictures, 0 words"),
        (lambda: plots.samples([np.ones(4)], ["a"]), r"samples: images\[0\]: of shape \(4,\); allowed"),
    ],
)
def test_mistakes_are_told_in_a_line(call: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        call()
    assert "\n" not in str(error.value)


def test_samples_have_words_above() -> None:
    figure = plots.samples([np.zeros((2, 2)), np.ones((2, 2, 3))], ["a", "b"])
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "", ""]
