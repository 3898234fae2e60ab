"""Learning curves and the error over time: what is drawn, number by number."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from dlexp import plots
from dlexp.errors import UserError
from dlexp.plots import style

RECORDS = pd.DataFrame(
    {
        "step": [0, 0, 5, 5, 9, 9],
        "layer": ["01_linear", "02_linear"] * 3,
        "loss": [2.0, 2.0, 1.0, 1.0, 0.5, 0.5],
        "accuracy": [0.1, 0.1, 0.4, 0.4, 0.8, 0.8],
    }
)
METRICS = pd.DataFrame(
    {
        "step": [4, 9, 9],
        "loss/validation": [1.5, 0.75, math.nan],
        "accuracy/validation": [0.3, 0.7, math.nan],
        "loss/test": [math.nan, math.nan, 0.8],
        "accuracy/test": [math.nan, math.nan, 0.6],
    }
)


def lines(axes: Any) -> list[list[tuple[float, float]]]:
    found = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() in "oD-"]
    return [[(x, y) for x, y in line] for line in found]


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_learning_curves() -> None:
    """Of batches, validation and test; each named with its last number, test a single point."""
    loss, accuracy = plots.learning_curves(METRICS, RECORDS).axes
    assert lines(loss) == [[(0, 2.0), (5, 1.0), (9, 0.5)], [(4, 1.5), (9, 0.75)], [(9, 0.8)]]
    assert lines(accuracy)[1:] == [[(4, 0.3), (9, 0.7)], [(9, 0.6)]]
    assert set(texts(accuracy)) == {"train batches 0.8", "validation 0.7", "test 0.6"}
    assert (loss.get_title("left"), accuracy.get_title("left")) == ("loss", "accuracy")
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("lower is better", "higher is better")
    assert loss.get_xlabel() == "step"


def test_a_loss_over_decades_is_logarithmic() -> None:
    """From a factor of fifty on; a metric that is better large never."""
    metrics = METRICS.assign(**{"loss/validation": [1.0, 0.001, math.nan]})
    loss, accuracy = plots.learning_curves(metrics, RECORDS).axes
    assert (loss.get_yscale(), accuracy.get_yscale()) == ("log", "linear")
    assert loss.get_ylabel() == "lower is better, log scale"


def test_a_loss_that_is_not_finite_is_a_cross() -> None:
    """With the word, and the line says so where it ends."""
    records = RECORDS.copy()
    records.loc[records["step"] == 9, "loss"] = math.nan
    records.attrs["not_finite"] = [[9, None, "loss", "nan"], [9, "01_linear", "delta_rms", "nan"]]
    (loss,) = plots.learning_curves(pd.DataFrame(), records[["step", "layer", "loss"]]).axes
    (cross,) = [line for line in loss.lines if line.get_marker() == "x"]
    assert list(cross.get_xdata()) == [9] and list(cross.get_ydata()) == [style.TOP]
    assert set(texts(loss)) == {"NaN", "train batches NaN"}


def test_nothing_evaluated() -> None:
    """Is said; a regression has one panel of its own metric, without it one in all."""
    figure = plots.learning_curves(pd.DataFrame(), pd.DataFrame({"step": [], "layer": [], "loss": []}))
    assert "nothing evaluated yet" in [text.get_text() for text in figure.texts]
    alone = METRICS[["step", "loss/validation"]]
    assert len(plots.learning_curves(alone, RECORDS).axes) == 1


def table() -> pd.DataFrame:
    """An LSTM cell over three time steps, recorded at steps 0 and 7."""
    rows = [
        {"step": step, "layer": "01_lstmcell", "time": t, "delta_rms": x, "cell_delta_rms": 2 * x}
        for step, deltas in ((0, (0.0, 1e-3, 1e-2)), (7, (1e-4, 1e-2, 1e-1)))
        for t, x in enumerate(deltas)
    ]
    return pd.DataFrame(rows)


def test_over_time() -> None:
    """First and last recorded, the cell state dashed; a zero is a triangle at the foot."""
    (axes,) = plots.over_time(table()).axes
    solid, dashed = ([ln for ln in axes.lines if ln.get_linestyle() == s] for s in ("-", "--"))
    assert [list(line.get_ydata())[1:] for line in solid] == [[1e-3, 1e-2], [1e-2, 1e-1]]
    assert [list(line.get_ydata())[1:] for line in dashed] == [[2e-3, 2e-2], [2e-2, 2e-1]]
    assert [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "v"] == [[0], [0]]
    assert set(texts(axes)) == {"step 0", "step 7", "cell state, step 0", "cell state, step 7"}
    assert axes.get_yscale() == "log" and axes.get_xlabel() == "time step (0 is the first input)"
    assert axes.get_title("left") == "01_lstmcell"


def test_no_layer_over_time() -> None:
    """Is said; a table that is none is refused."""
    figure = plots.over_time(table().iloc[:0])
    assert "no layer ran over time" in [text.get_text() for text in figure.texts]
    with pytest.raises(UserError, match="over_time: table has no column time, delta_rms; it has step, layer"):
        plots.over_time(RECORDS)


def test_a_loss_of_millions_is_written_in_full() -> None:
    """Not as 0.2 with a power of ten somewhere above."""
    records = RECORDS.assign(loss=[2e8, 2e8, 3e8, 3e8, 5e8, 5e8])
    figure = plots.learning_curves(pd.DataFrame(), records[["step", "layer", "loss"]])
    figure.canvas.draw()
    (loss,) = figure.axes
    assert loss.get_yscale() == "linear" and loss.yaxis.get_offset_text().get_text() == ""
    assert "3.0e8" in [tick.get_text() for tick in loss.get_yticklabels()]


def test_curves_say_how_it_ended() -> None:
    """The last numbers on validation, which the page does not repeat as a question."""
    assert plots.learning_curves(METRICS, RECORDS).get_suptitle() == (
        "On validation in the end loss 0.75, accuracy 0.7"
    )


@pytest.mark.parametrize("draw", [lambda **k: plots.learning_curves(METRICS, RECORDS, **k), None])
def test_narrow(draw: Any) -> None:
    """For a phone: the same lines, panels below each other."""
    draw = draw or (lambda **k: plots.over_time(table(), **k))
    wide, narrow = draw(), draw(narrow=True)
    assert narrow.get_size_inches()[0] == style.NARROW
    assert [lines(axes) for axes in narrow.axes] == [lines(axes) for axes in wide.axes]
    narrow.canvas.draw()
    for axes in narrow.axes:
        assert axes.get_position().x0 == narrow.axes[0].get_position().x0
        for text in axes.texts:
            assert text.get_window_extent().x1 <= narrow.bbox.x1 + 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: plots.learning_curves(RECORDS, METRICS), "learning_curves: records has no column layer"),
        (
            lambda: plots.learning_curves(RECORDS, RECORDS),
            "metrics has a column layer, .* allowed: l",
        ),
        (lambda: plots.learning_curves(None, RECORDS), "learning_curves: metrics=None: not a table"),
        (lambda: plots.over_time({}), "over_time: table={}: not a table; .* run.over_time"),
        (lambda: plots.over_time(METRICS), "over_time: table has no column layer, time, delta_rms"),
    ],
)
def test_mistakes_are_told_in_a_line(call: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        call()
