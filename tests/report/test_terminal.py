"""What a person sees: numbers in few characters, bars, the layer table, progress."""

from __future__ import annotations

import io
import itertools
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dlexp.numbers import compact, percent
from dlexp.record.sinks import Row
from dlexp.report.terminal import SHOWN, WIDE, Terminal, layer_table, log_bars

NUMBERS = {
    "grad_norm": 0.00123,
    "delta_rms": 1.2e-5,
    "activation_rms": 12345.0,
    "update_ratio": 0.00226,
    "dead_fraction": 1.0,
}
Numbers = Mapping[str, float | None]
GONE: Numbers = dict.fromkeys(SHOWN)


def summary(names: list[str], last: Numbers | None = None, **more: Any) -> dict[str, Any]:
    """As in summary.json: these layers, each with the same numbers."""
    layers = [{"name": name, "first": NUMBERS, "last": last or NUMBERS} for name in names]
    base = {"status": "finished", "layers": layers, "recorded": {"first": 0, "last": 9}, "metrics": {}}
    return base | {"diverged": None, "steps": 10} | more


def rendered(names: list[str], *, width: int, wide: bool, last: Numbers | None = None) -> list[str]:
    """The lines of the layer table on a terminal of that width."""
    console = Console(file=io.StringIO(), width=width)
    console.print(layer_table(summary(names, last), wide=wide))
    return text_of(console).splitlines()


def text_of(console: Console) -> str:
    """What was printed."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def depth(n: int) -> list[str]:
    """Layer names of a network with n hidden layers."""
    return [f"{i:02d}_linear" for i in range(1, n + 2)]


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (None, "–"), (0, "0"), (0.0, "0"), (1, "1"), (-0.5, "-0.5"), (0.5, "0.5"), (12.345, "12.3"),
        (0.0123, "0.0123"), (0.001, "0.001"), (0.00123456, "0.00123"), (9.9e-4, "9.9e-4"), (1.2e-5, "1.2e-5"),
        (1.4e-45, "1.4e-45"), (999.0, "999"), (1000, "1000"), (1409.3, "1409"), (99_999, "99999"),
        (123_456, "1.2e5"), (3.4e19, "3.4e19"),
    ],
)  # fmt: skip
def test_compact_by_hand(x: float | None, text: str) -> None:
    """Three digits, no padded exponent, a dash for no number."""
    assert compact(x) == text


@pytest.mark.parametrize("x", [999.4, 999.5, 999.96, 99_999.4, 99_999.6, 0.0009999, 0.00099949, 3.4e38])
def test_compact_is_at_most_7_characters_and_reads_back(x: float) -> None:
    """Numbers at the borders between notations too: close to the number, and no padded exponent."""
    assert len(compact(x)) <= 7
    assert float(compact(x)) == pytest.approx(x, rel=0.05)
    assert "e+" not in compact(x) and "e0" not in compact(x)


@pytest.mark.parametrize(
    ("x", "text"),
    [(None, "–"), (0.0, "0%"), (1e-9, "<1%"), (0.004, "<1%"), (0.0156, "2%"), (0.5, "50%"), (1.0, "100%")],
)
def test_percent_by_hand(x: float | None, text: str) -> None:
    """Whole per cents, a dash for no number, and small is not zero."""
    assert percent(x) == text


@pytest.mark.parametrize("x", [1e-6, 0.0049999, 0.005, 0.0051])
def test_no_share_above_zero_looks_like_zero(x: float) -> None:
    """One dead unit of many is not 0%."""
    assert percent(x) != "0%"


def test_bars_of_equal_values_are_full_and_equal() -> None:
    """A flat profile looks flat."""
    assert log_bars([0.3, 0.3, 0.3]) == ["█" * 10] * 3


def test_a_decade_is_half_the_width_at_most() -> None:
    """By hand: over two decades a factor of 10 takes off half of the bar, 100 all but a sliver."""
    assert log_bars([1.0, 0.1, 0.01]) == ["█" * 10, "█" * 5, "▏"]


def test_bars_span_all_decades_there_are() -> None:
    """By hand: over four decades each takes off a quarter."""
    assert log_bars([1e-4, 1e-3, 1e-2, 1e-1, 1.0], width=8) == ["▏", "██", "████", "██████", "████████"]


def test_bars_have_steps_of_an_eighth() -> None:
    """By hand: 10^-0.05 of two decades takes off a quarter of one of 10 characters."""
    assert log_bars([1.0, 10**-0.05]) == ["█" * 10, "█" * 9 + "▊"]


def test_no_value_and_zero_have_no_bar() -> None:
    """None and 0 have no logarithm; the others are drawn as if alone."""
    assert log_bars([None, 2.0, 0.0, 0.2]) == ["", "█" * 10, "", "█" * 5]
    assert log_bars([None, 0.0]) == ["", ""]
    assert log_bars([]) == []


@pytest.mark.parametrize(("width", "wide", "limit"), [(80, False, 80), (WIDE, True, 110)])
@pytest.mark.parametrize("names", [depth(3), depth(20)], ids=["depth3", "depth20"])
def test_table_fits_and_cuts_nothing(names: list[str], width: int, wide: bool, limit: int) -> None:
    """80 columns when narrow, 110 when wide, with every name, heading and number whole."""
    lines = rendered(names, width=width, wide=wide)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= limit
    assert "…" not in text
    for word in (*names, "0.00123", "1.2e-5", "12345", "0.00226", "100%", "█" * (10 if wide else 1)):
        assert word in text


@pytest.mark.parametrize("wide", [False, True])
def test_networks_of_a_hundred_layers_are_shown_whole(wide: bool) -> None:
    """Names with three digits do not cost a number or a bar its end."""
    text = "\n".join(rendered(["001_linear", "101_linear"], width=WIDE if wide else 80, wide=wide))
    assert "…" not in text and "001_linear" in text


def test_a_wide_row_is_one_line_with_first_and_last() -> None:
    """Each quantity has its first and its last number, in the order of the headings."""
    last = dict(zip(SHOWN, (0.5, 1.0, 2.0, None, 0.25), strict=True))
    lines = rendered(["01_linear"], width=110, wide=True, last=last)
    assert lines[0].split()[1:6] == list(SHOWN)
    assert lines[1].split()[:10] == ["first", "last"] * 5
    (row,) = [line for line in lines if line.startswith("01_linear")]
    numbers = ["0.00123", "0.5", "1.2e-5", "1", "12345", "2", "0.00226", "–", "100%", "25%"]
    assert row.split() == ["01_linear", *numbers, "█" * 10]


def test_columns_are_aligned_to_the_right() -> None:
    """Every number ends in the column where its heading ends."""
    lines = rendered(depth(3), width=110, wide=True)
    for n, name in enumerate(SHOWN):
        end = lines[0].index(name) + len(name)
        for line in lines[1:]:
            assert line[:end].rstrip() == line[:end], (name, line)
            assert len(line[:end].split()) in (2 * n + 2, 2 * n + 3)


def test_numbers_that_are_absent_are_dashes() -> None:
    """None is –, and its row has no bar."""
    for wide in (True, False):
        lines = rendered(["01_linear", "02_linear"], width=110, wide=wide, last=GONE)
        assert "\n".join(lines).count("–") == 2 * len(SHOWN)
        assert "█" not in "\n".join(lines)


def terminal(*, forced: bool, width: int = 110) -> Terminal:
    """A terminal that writes to memory."""
    made = Terminal()
    made.console = Console(file=io.StringIO(), force_terminal=forced, width=width, highlight=False)
    return made


def walk(made: Terminal, steps: int) -> Iterator[int]:
    """The tracked steps, a recorded row after each."""
    for step in made.track(steps):
        made.rows([Row(step, {"loss": 2.0 - step / steps, "accuracy": 0.5}, np.zeros((0, 0)), {})])
        yield step


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("steps", [1, 3, 25, 1000])
def test_tracking_gives_every_step_once(forced: bool, steps: int) -> None:
    """Whatever is shown, the steps are 0, 1, 2, ..."""
    assert list(walk(terminal(forced=forced), steps)) == list(range(steps))


@pytest.mark.parametrize(("steps", "lines"), [(1, 1), (3, 3), (25, 9), (1000, 10)])
def test_progress_in_plain_lines(steps: int, lines: int) -> None:
    """Without a terminal there are at most 10 lines, the last one for the last step, and no control codes."""
    made = terminal(forced=False)
    list(walk(made, steps))
    printed = text_of(made.console).splitlines()
    assert len(printed) == lines
    assert printed[-1].startswith(f"{steps}/{steps} steps  ") and "loss" in printed[-1]
    assert "accuracy 0.500" in printed[-1] and "\x1b" not in "".join(printed)


def test_a_plain_line_names_the_step_of_its_numbers() -> None:
    """Rows come in bundles, later than their steps: a line is about a row, not about how far the run is."""
    made = terminal(forced=False)
    for step in made.track(100):
        if step == 57:
            made.rows([Row(at, {"loss": 1.0 + at}, np.zeros((0, 0)), {}) for at in (5, 31, 57)])
    assert [line.split()[0:4:3] for line in text_of(made.console).splitlines()] == [
        ["32/100", "32"],
        ["58/100", "58"],
    ]


def test_plain_lines_name_the_latest_validation() -> None:
    """Validation numbers stand beside those of training once there are any."""
    made = terminal(forced=False)
    for step in walk(made, 10):
        if step == 4:
            made.scalars(step, {"loss/validation": 0.25, "accuracy/validation": 0.75})
        made.scalars(step, {"loss/test": 9.0, "accuracy/test": 9.0})
    printed = text_of(made.console).splitlines()
    assert "validation" not in printed[3]
    assert "validation 0.750" in printed[5]


def test_no_numbers_no_lines() -> None:
    """With nothing recorded there is nothing to tell."""
    made = terminal(forced=False)
    assert list(made.track(20)) == list(range(20))
    assert text_of(made.console) == ""


def test_progress_bar_on_a_terminal() -> None:
    """A bar with the count and the numbers, drawn in place, complete at the end."""
    made = terminal(forced=True)
    list(walk(made, 40))
    made.close()
    shown = text_of(made.console)
    assert "━" in shown and "40/40" in shown and "accuracy 0.500" in shown and "\x1b[" in shown
    assert shown.rindex("\x1b[?25h") > shown.index("\x1b[?25l"), "the cursor is shown again"


def test_progress_bar_left_early_shows_the_cursor_again() -> None:
    """A run that diverges or is interrupted leaves a usable terminal."""
    made = terminal(forced=True, width=80)
    steps = made.track(1000)
    assert list(itertools.islice(steps, 5)) == [0, 1, 2, 3, 4]
    made.close()
    assert text_of(made.console).rstrip().endswith("\x1b[?25h")


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """quiet=True is silent from heading to ending."""
    made = Terminal(quiet=True)
    made.heading({"network": "mlp"})
    list(walk(made, 20))
    made.ending(summary(depth(3)), "outputs", "outputs/x")
    assert capsys.readouterr() == ("", "")


def test_nothing_to_check_is_said() -> None:
    """A model without weights that learn has no gradient to check."""
    made = terminal(forced=False)
    made.gradient_check([])
    assert text_of(made.console) == "gradient check  nothing to check: no layer has weights that learn\n"


def test_heading_aligns_its_facts() -> None:
    """A line per fact, values below each other, long ones not broken."""
    made = terminal(forced=False, width=40)
    made.heading({"network": "mlp " * 20, "data": "digits"})
    first, second = text_of(made.console).splitlines()
    assert first.startswith("network  mlp") and second == "data     digits"


def ending(*, outputs: str = "outputs", folder: str = "outputs/x", **more: Any) -> str:
    """What is said at the end."""
    made = terminal(forced=False)
    made.ending(summary(depth(3), **more), outputs, folder)
    return text_of(made.console)


def test_ending_tells_the_test_metrics_and_where_to_look() -> None:
    """Table, caption, metrics and the command that opens TensorBoard."""
    text = ending(metrics={"loss/test": 0.25, "accuracy/test": 0.75})
    assert "01_linear" in text and "first: step 0, last: step 9, counted from 0" in text
    assert "test        accuracy 0.75  loss 0.25" in text
    assert text.splitlines()[-1].split() == ["look", "tensorboard", "--logdir", "outputs"]


def test_ending_tells_where_a_run_diverged() -> None:
    """Step, first bad layer and reason in one line."""
    text = ending(status="diverged", diverged={"step": 2, "layer": "02_linear", "reason": "its loss is nan"})
    assert "diverged at step 2: the loss is not finite; first bad layer 02_linear: its loss is nan" in text


def test_ending_tells_of_an_early_stop_and_whose_weights_are_left() -> None:
    """Steps are counted from 0: of ten steps the last is 9."""
    lines = ending(status="stopped_early", restored_step=4, metrics={"loss/test": 1.0}).splitlines()
    said = "stopped early after step 9; weights of step 4 are restored, the numbers below are theirs"
    assert lines.index(said) < lines.index("test        loss 1")
    assert "stopped early after step 9\n" in ending(status="stopped_early")
    text = ending(status="finished", restored_step=4)  # it came to its last step
    assert "\nweights of step 4 are restored, " in text and "early" not in text
    assert "restored" not in ending()


@pytest.mark.parametrize("width", [60, 110])
def test_columns_that_are_left_out_are_named(width: int) -> None:
    """With where to find them."""
    made = terminal(forced=True, width=width)
    made.ending(summary(depth(3)), "outputs", "outputs/x")
    said = "update_ratio and dead_fraction: wider terminal or summary.json" in text_of(made.console)
    assert said == (width == 60)


def test_ending_tells_the_gaps_where_they_say_more_than_the_errors() -> None:
    """Variance alone is seen from two lines above; a gap that is not known is left out."""
    gaps = {"quantity": "1 - accuracy", "best_error": 0.02, "variance": 0.25, "mismatch": None}
    text = ending(gaps=gaps | {"avoidable_bias": 0.125, "dev_train": 0.25})
    assert "gaps        avoidable_bias 0.125  variance 0.25  (of 1 - accuracy)" in text
    assert "gaps" not in ending(gaps=gaps | {"avoidable_bias": None}) and "gaps" not in ending(gaps=None)


def test_ending_tells_when_the_target_was_reached() -> None:
    """Or that it was not; nothing if nobody asked."""
    asked = {"metric": "accuracy/validation", "value": 0.9}
    text = ending(to_target=asked | {"step": 189, "epoch": 10.0, "seconds": 0.0665})
    assert "target      accuracy/validation 0.9: at step 189, epoch 10, 0.0665 s of training" in text
    text = ending(to_target=asked | dict.fromkeys(("step", "epoch", "seconds")))
    assert "target      accuracy/validation 0.9: not reached" in text
    assert "target" not in ending(to_target=None)


def test_ending_tells_of_an_interruption() -> None:
    """How far it came, and where the record is."""
    text = ending(status="interrupted", folder="outputs/mlp/1")
    assert "interrupted after 10 steps; the record so far is in outputs/mlp/1" in text


@pytest.mark.parametrize("path", ["runs[b]", "runs[/b]"])
def test_brackets_in_a_path_are_printed_as_they_are(path: str) -> None:
    """A folder name is not markup."""
    text = ending(status="interrupted", outputs=path, folder=f"{path}/x")
    assert f"is in {path}/x" in text and f"--logdir {shlex.quote(path)}" in text


def test_ending_of_a_run_without_records_has_no_table() -> None:
    """record=off: no layer numbers, but the metrics."""
    made = terminal(forced=False)
    facts = summary([], metrics={"loss/test": 0.25, "accuracy/test": 0.75})
    facts["layers"] = [{"name": "01_linear", "first": None, "last": None}]
    made.ending(facts, "outputs", "x")
    assert "01_linear" not in text_of(made.console) and "test " in text_of(made.console)
