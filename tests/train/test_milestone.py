"""When a run first was as good as asked for."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import dlexp
from dlexp.errors import UserError
from dlexp.train.milestone import Milestone

NOT_YET = {"step": None, "epoch": None, "seconds": None}


def test_the_first_time_counts_by_hand() -> None:
    """Steps 4, 9 and 14 are the ends of epochs of five steps; the second reaches it."""
    milestone = Milestone("accuracy/validation", 0.8, steps_per_epoch=5)
    asked = {"metric": "accuracy/validation", "value": 0.8}
    milestone.see(4, {"accuracy/validation": 0.7}, 1.0)
    assert milestone.summary() == asked | NOT_YET
    milestone.see(9, {"accuracy/validation": 0.8}, 2.0)
    milestone.see(14, {"accuracy/validation": 0.9}, 3.0)
    assert milestone.summary() == asked | {"step": 9, "epoch": 2.0, "seconds": 2.0}


def test_less_error_is_better() -> None:
    """The direction follows from the name, as for early stopping; NaN reaches nothing."""
    milestone = Milestone("rmse/validation", 0.5, steps_per_epoch=1)
    for step, value in enumerate([0.9, math.nan, 0.6, 0.5]):
        assert milestone.summary()["step"] is None
        milestone.see(step, {"rmse/validation": value}, 0.0)
    assert milestone.summary()["step"] == 3


def test_a_run_says_when_and_goes_on(tmp_path: Path) -> None:
    """As its learning curve has it, at every epoch; asking changes nothing."""
    words = [
        "train.epochs=20",
        "record=off",
        f"outputs={tmp_path}",
        "model.width=32",
        "record.tensorboard=false",
    ]
    run = dlexp.run([*words, "train.target=0.6"], quiet=True)
    curve = run.metrics.set_index("step")["accuracy/validation"]
    first = curve[curve >= 0.6].index[0]
    found = run.summary["to_target"]
    assert (found["metric"], found["step"], found["epoch"]) == (
        "accuracy/validation",
        first,
        (first + 1) / 19,
    )
    assert 0 < found["seconds"] < run.summary["timing"]["seconds"]
    assert 18 < first < 19 * 19 - 1  # neither in the first epoch nor in the last
    assert len(curve) == 20 and run.summary["steps"] == 20 * 19
    other = dlexp.run(words, quiet=True).summary
    assert other["metrics"] == run.summary["metrics"] and other["to_target"] is None


def test_a_target_out_of_reach(tmp_path: Path) -> None:
    """Nobody gets there: no step, no seconds."""
    words = ["train.target=-1", "train.target_metric=loss/validation", "debug=quick", f"outputs={tmp_path}"]
    found = dlexp.run(words, quiet=True).summary["to_target"]
    assert found == {"metric": "loss/validation", "value": -1} | NOT_YET


def test_only_what_is_measured_can_be_a_target(tmp_path: Path) -> None:
    """With what is."""
    with pytest.raises(UserError) as caught:
        dlexp.run(["train.target=0.9", "train.target_metric=f1/test", f"outputs={tmp_path}"], quiet=True)
    wanted = "train.target_metric=f1/test: not measured; allowed: loss/validation, accuracy/validation"
    assert caught.value.lines == (wanted,)
    with pytest.raises(UserError) as caught:
        dlexp.run(["train.target=high", f"outputs={tmp_path}"], quiet=True)
    assert caught.value.lines == ("train.target=high: allowed: null or a finite number",)
