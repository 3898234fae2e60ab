"""Signature and history: what is drawn, number by number, read back from the figure."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest

import dlexp
from dlexp import plots
from dlexp.errors import UserError
from dlexp.plots import style

QUANTITIES = ("grad_norm", "delta_rms", "activation_rms")
NAMES = ["01_linear", "02_linear", "03_linear", "04_linear"]


def table(*lines: Any, names: list[str] = NAMES) -> pd.DataFrame:
    """Records of steps 0, 10, 20 ...; of each either a row that all quantities have, or quantity -> row."""
    found = []
    for n, line in enumerate(lines):
        for i, name in enumerate(names):
            own = {q: (line[q] if isinstance(line, dict) else line)[i] for q in QUANTITIES}
            found.append({"step": 10 * n, "layer": name, "loss": 1.0, **own})
    return pd.DataFrame(found)


def curves(axes: Any) -> list[list[float]]:
    """The y values of lines, the dashed line of theory left out."""
    return [list(line.get_ydata()) for line in axes.lines if line.get_marker() == "o"]


def marks(axes: Any, shape: str) -> list[list[float]]:
    return [list(line.get_xdata()) for line in axes.lines if line.get_marker() == shape]


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_signature_shows_the_first_and_the_last_step() -> None:
    """Three log panels with axes that are named, first pale and last strong, and each line named."""
    first, last = [1e-4, 1e-3, 1e-2, 1e-1], [2e-4, 2e-3, 2e-2, 2e-1]
    figure = plots.signature(table(first, [9.0] * 4, last))
    assert [axes.get_title("left") for axes in figure.axes] == list(QUANTITIES)
    for axes in figure.axes:
        assert axes.get_yscale() == "log" and "log scale" in axes.get_ylabel() and axes.get_xlabel()
        assert curves(axes) == [first, last]
        assert [line.get_color() for line in axes.lines] == [style.PALE, style.BLUE]
        assert texts(axes) == ["step 20", "step 0"] or texts(axes) == ["step 0", "step 20"]
        assert [tick.get_text() for tick in axes.get_xticklabels()] == NAMES
    assert figure.get_suptitle() == (
        "On its way back delta_rms changes by a factor of 0.1 in each hidden layer (step 20)"
    )


def test_signature_of_a_chosen_step() -> None:
    """One that was recorded; what was is told otherwise."""
    records = table([1.0] * 4, [2.0] * 4, [3.0] * 4)
    assert curves(plots.signature(records, step=10).axes[0]) == [[1.0] * 4, [2.0] * 4]
    assert curves(plots.signature(records, step=0).axes[0]) == [[1.0] * 4]
    with pytest.raises(UserError, match=r"step=7: not recorded; nearest: 0 and 10; .* 3 from 0 to 20$"):
        plots.signature(records, step=7)
    with pytest.raises(UserError, match="signature: records has no column delta_rms; it has step, layer"):
        plots.signature(records.drop(columns="delta_rms"))


def test_a_decade_is_as_tall_in_all_panels() -> None:
    """So that slopes compare; and a flat profile looks flat."""
    line = {
        "grad_norm": [1e-9, 1e-6, 1e-3, 1.0],
        "delta_rms": [1.0] * 4,
        "activation_rms": [1.0, 2.0, 3.0, 4.0],
    }
    spans = [
        math.log10(high / low) for low, high in (a.get_ylim() for a in plots.signature(table(line)).axes)
    ]
    assert spans == pytest.approx([spans[0]] * 3) and spans[0] > 9
    low, high = plots.signature(table([1.0, 1.01, 1.0, 1.01])).axes[0].get_ylim()
    assert high / low == pytest.approx(100)


def test_what_a_log_axis_has_no_place_for() -> None:
    """Zeros are triangles at the foot, what is not finite crosses at the top with the word, the rest gaps."""
    nan = math.nan
    records = table([0.0, 0.0, 1e-2, 1e-1], [nan, math.inf, nan, 1.0])
    records.attrs["not_finite"] = [[10, "03_linear", "delta_rms", "nan"]]
    axes = plots.signature(records).axes[1]
    assert marks(axes, "v") == [[1, 2]] and marks(axes, "x") == [[2, 3]]
    assert set(texts(axes)) == {"inf", "NaN", "step 0", "step 10"}
    np.testing.assert_array_equal(curves(axes), [[nan, nan, 1e-2, 1e-1], [nan, nan, nan, 1.0]])
    foot, top = (line.get_ydata()[0] for line in axes.lines if line.get_marker() in "vx")
    assert (foot, top) == (style.FOOT, style.TOP)


def test_neighbours_share_a_word() -> None:
    """Seven NaNs are one word in the middle of them."""
    records = table([1.0] * 4, [math.inf] * 4)
    axes = plots.signature(records).axes[0]
    (word,) = [text for text in axes.texts if text.get_text() == "inf"]
    assert word.get_position()[0] == 2.5


def test_streams_are_a_line_of_their_own() -> None:
    """They have no weights, so a dotted line, and the axis says so."""
    names = ["01_linear", "02_stream", "03_linear", "04_linear"]
    axes = plots.signature(table([1.0, 5.0, 2.0, 3.0], names=names)).axes[1]
    assert curves(axes) == [[1.0, 2.0, 3.0]] and marks(axes, "o") == [[1, 3, 4]]
    assert marks(axes, "s") == [[2]] and "dotted: streams" in axes.get_xlabel()


def test_heads_side_by_side_are_one_place() -> None:
    """A head is no deeper than the next: one tick for all, and none of them counts as hidden."""
    records = table([1e-3, 1e-2, 1.0, 4.0])
    records.attrs["side_by_side"] = NAMES[2:]
    figure = plots.signature(records, slopes={"delta_rms": (0.1, "a tenth")})
    axes = figure.axes[1]
    (line,) = [line for line in axes.lines if line.get_marker() == "o"]
    assert list(line.get_xdata()) == [1, 2, 3, 3] and list(line.get_ydata()) == [1e-3, 1e-2, 1.0, 4.0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["01_linear", "02_linear", "2 heads"]
    assert "a factor of 0.1 in each hidden layer" in figure.get_suptitle()
    (theory,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert list(theory.get_xdata()) == [1, 2] and list(theory.get_ydata()) == pytest.approx([1e-3, 1e-2])


def test_layers_that_a_diagnosis_names_are_marked() -> None:
    """On red in all three panels, each as wide as its place; the others are not."""
    from matplotlib.colors import to_hex

    figure = plots.signature(table([1.0, 2.0, 3.0, 4.0]), marked=NAMES[1:3])
    for axes in figure.axes[:3]:
        bands = [p for p in axes.patches if to_hex(p.get_facecolor()) == style.VERMILLION.lower()]
        spans = sorted((band.get_x(), band.get_x() + band.get_width()) for band in bands)
        assert spans == [(1.5, 2.5), (2.5, 3.5)]


def test_slopes_of_theory() -> None:
    """From the last hidden layer of the first step back to the first one, against the power by hand."""
    first = [1e-3, 1e-2, 0.5, 0.7]
    axes = plots.signature(table(first, [1.0] * 4), slopes={"delta_rms": (0.25, "at most a quarter")}).axes
    (theory,) = [line for line in axes[1].lines if line.get_linestyle() == "--"]
    assert list(theory.get_xdata()) == [1, 2, 3]
    assert list(theory.get_ydata()) == pytest.approx([0.5 / 16, 0.5 / 4, 0.5])
    assert "at most a quarter" in texts(axes[1]) and len(axes[0].lines) == len(axes[2].lines) == 2
    unknown = plots.signature(table([1.0, 1.0, 0.0, 1.0]), slopes={"delta_rms": (0.25, "x")}).axes[1]
    assert "x" not in texts(unknown)  # it has nowhere to begin


def test_nothing_recorded() -> None:
    """Is said."""
    figure = plots.signature(pd.DataFrame({"step": [], "layer": []}))
    assert "nothing recorded yet" in [text.get_text() for text in figure.texts]
    axes = plots.signature(table([math.nan] * 4)).axes[0]
    assert texts(axes) == ["no number on record"]


def test_many_layers_are_named_now_and_then() -> None:
    """At most twenty names, evenly."""
    names = [f"{i:03d}_linear" for i in range(1, 101)]
    axes = plots.signature(table(list(np.geomspace(1e-9, 1, 100)), names=names)).axes[0]
    shown = [tick.get_text() for tick in axes.get_xticklabels()]
    assert shown == names[::5] and len(curves(axes)[0]) == 100


def test_what_is_not_finite_comes_with_the_records(tmp_path: Path) -> None:
    """From the reasons in records.jsonl; absent ones stay out, and the table can still be written as JSON."""
    header = {"layers": NAMES[:2], "quantities": ["delta_rms"]}
    line = {"step": 3, "loss": None, "delta_rms": [None, None]}
    line["reasons"] = {"delta_rms": ["nan", "no gradient"], "loss": "inf"}
    text = "".join(json.dumps(row) + "\n" for row in (header, line))
    (tmp_path / "records.jsonl").write_text(text, encoding="utf-8")
    found = dlexp.load(tmp_path).records.attrs["not_finite"]
    assert found == [[3, "01_linear", "delta_rms", "nan"], [3, None, "loss", "inf"]]
    assert json.loads(json.dumps(found)) == found


def test_signature_is_fast() -> None:
    """A picture among other work of a run: the best of a few tries, in time of this process."""
    records = table(*[list(np.geomspace(1e-6, 1, 4))] * 50)
    plots.signature(records)  # the import
    best = math.inf
    for _ in range(5):
        start = time.process_time()
        plots.signature(records)
        best = min(best, time.process_time() - start)
    assert best < 0.15


def test_history_is_a_colour_for_each_layer_and_step() -> None:
    """Those of viridis on a log scale, by hand; what has no number has colours of its own."""
    nan = math.nan
    records = table([1e-4, 1e-3, 1e-2, 1.0], [0.0, nan, nan, 1e-2])
    records.attrs["not_finite"] = [[10, "02_linear", "delta_rms", "nan"]]
    figure = plots.history(records)
    pixels = figure.axes[0].images[0].get_array()
    assert pixels.shape == (4, 2, 4)
    scale = matplotlib.colormaps["viridis"]
    for number, pixel in (
        (1e-4, pixels[0, 0]),
        (1e-2, pixels[2, 0]),
        (1.0, pixels[3, 0]),
        (1e-2, pixels[3, 1]),
    ):
        np.testing.assert_allclose(pixel, scale((math.log10(number) + 4) / 4), atol=0.01)
    assert [matplotlib.colors.to_hex(pixel).upper() for pixel in pixels[:3, 1]] == [
        "#000000",
        style.VERMILLION,
        "#D9D9D9",
    ]
    said = [text.get_text() for text in figure.texts]
    assert {"exactly 0", "NaN or inf", "no number"} <= set(said)
    assert figure.axes[1].get_ylabel() == "delta_rms, log scale"
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == NAMES
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["0", "10"]


def test_history_of_other_columns() -> None:
    """Any quantity; steps at uneven distances are said to be so, thousands are thinned."""
    records = table(*[[1.0, 2.0, 3.0, 4.0]] * 3)
    records["step"] = records["step"].replace({20: 500})
    axes = plots.history(records, "grad_norm").axes[0]
    assert "at even distances" in axes.get_xlabel()
    with pytest.raises(UserError, match="quantity=foo: not a column of numbers; allowed: loss, grad_norm, "):
        plots.history(records, "foo")
    long = table(*[[1.0, 2.0, 3.0, 4.0]] * 1000)
    assert plots.history(long).axes[0].images[0].get_array().shape == (4, 400, 4)
    assert plots.history(records.iloc[:0]).texts[0].get_text() == "nothing recorded yet"


@pytest.mark.parametrize("colour", [*style.WORD_COLOURS, style.PALE, "white", "#B0B0B0"])
def test_words_can_be_read(colour: str) -> None:
    """Whatever the colour of a line: words in it have a contrast of 4.5 on white."""

    def linear(x: float) -> float:
        return x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4

    red, green, blue = map(linear, matplotlib.colors.to_rgb(style.ink(colour)))
    assert 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) > 4.45


def test_settings_of_matplotlib_stay() -> None:
    """In a notebook the next plot looks as before."""
    before = dict(matplotlib.rcParams)
    plots.history(table([1.0] * 4))
    plots.signature(table([1.0] * 4))
    assert dict(matplotlib.rcParams) == before


def test_a_map_of_blocks_is_in_groups() -> None:
    """Layers at the same place of a block together, then streams, then what follows; else as they run."""
    names = ["in", "a1", "b1", "1_stream", "a2", "b2", "2_stream", "out"]
    records = table([float(10**i) for i in range(8)], names=names)
    axes = plots.history(records).axes[0]
    shown = ["in", "a1", "a2", "b1", "b2", "1_stream", "2_stream", "out"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == shown
    scale = matplotlib.colormaps["viridis"]
    pixels = axes.images[0].get_array()
    expected = [scale(names.index(name) / 7) for name in shown]
    np.testing.assert_allclose(pixels[:, 0], expected, atol=0.01)
    assert [line.get_ydata()[0] for line in axes.lines] == [0.5, 2.5, 4.5, 6.5]  # between the groups


@pytest.mark.parametrize("draw", [plots.signature, plots.history])
def test_on_a_phone_panels_stand_below_each_other(draw: Any) -> None:
    """The same lines and numbers, in a picture that is narrow and tall."""
    records = table([1e-4, 0.0, 1e-2, 1e-1], [2e-4, 2e-3, 2e-2, 2e-1])
    wide, narrow = draw(records), draw(records, narrow=True)
    width, height = narrow.get_size_inches()
    assert width == style.NARROW < wide.get_size_inches()[0] and height > 3
    for one, other in zip(narrow.axes, wide.axes, strict=True):
        for a, b in zip(curves(one), curves(other), strict=True):
            np.testing.assert_array_equal(a, b)
    if draw is plots.signature:
        assert len({round(axes.get_position().x0, 6) for axes in narrow.axes}) == 1
        assert len({axes.get_position().y0 for axes in narrow.axes}) == 3
    narrow.canvas.draw()
    for axes in narrow.axes:  # words beside lines stay inside
        for text in axes.texts:
            assert text.get_window_extent().x1 <= narrow.bbox.x1 + 1


RUN: Any = object()
FLAT = table([1.0] * 4, [2.0] * 4)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: plots.signature(RUN), "signature: records=<object.*: not a table; .* like run.records"),
        (lambda: plots.signature(None), "signature: records=None: not a table"),
        (lambda: plots.signature(FLAT, step="a"), "signature: step=a: not a number of a step"),
        (lambda: plots.signature(FLAT, step=99), "step=99: not recorded; nearest: 10; "),
        (lambda: plots.signature(FLAT, slopes=0.25), "signature: slopes=0.25: not a quantity -> "),
        (lambda: plots.signature(FLAT, slopes={"delta_rms": 0.25}), "slopes={'delta_rms': 0.25}: allowed: "),
        (lambda: plots.signature(FLAT, slopes={"x": (1.0, "y")}), "slopes={'x': "),
        (lambda: plots.history(FLAT, "layer"), "history: quantity=layer: not a column of numbers"),
        (lambda: plots.history(FLAT, "step"), "history: quantity=step: "),
        (lambda: plots.history([1, 2]), r"history: records=\[1, 2\]: not a table"),
        (
            lambda: plots.history(pd.DataFrame()),
            "history: records has no column step, layer",
        ),
    ],
)
def test_mistakes_are_told_in_a_line(call: Any, said: str) -> None:
    """Function, value, what is allowed."""
    with pytest.raises(UserError, match=said) as error:
        call()
    assert len(error.value.lines) == 1 and "\n" not in str(error.value)
