"""When a network is judged, how long an answer takes, and which metrics training listens to."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dlexp
from dlexp.train.evaluation import LONGEST_PASSES, PASSES, evaluation_steps, prediction_seconds


@pytest.mark.parametrize(
    ("steps", "steps_per_epoch", "every_epoch", "expected"),
    [
        (6, 2, False, {1, 3, 5}),
        (7, 2, False, {1, 3, 5, 6}),  # the last one, in the middle of an epoch
        (1, 4, False, {0}),
        (100, 1, False, set(range(1, 100, 2))),  # every second of a hundred epochs
        (100, 1, True, set(range(100))),
    ],
)
def test_when_by_hand(steps: int, steps_per_epoch: int, every_epoch: bool, expected: set[int]) -> None:
    """Ends of epochs, and the last step."""
    assert evaluation_steps(steps, steps_per_epoch, every_epoch=every_epoch) == expected


class Slow(nn.Module):
    """Takes its time; it counts its runs, and those in training mode."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.runs, self.in_training = seconds, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        self.in_training += self.training
        time.sleep(self.seconds)
        return x


def test_prediction_takes_what_it_takes() -> None:
    """Three batches of 4 samples and one of 2, 2 ms each: 8 ms for 14 samples; the mode is put back."""
    model = Slow(0.002)
    found = prediction_seconds(model, torch.zeros(14, 1), batch_size=4)
    assert 0.008 / 14 <= found < 3 * 0.008 / 14
    assert model.runs == 4 * PASSES and not model.in_training and model.training


def test_a_slow_prediction_is_not_repeated_for_long() -> None:
    """One pass is all there is of a network that takes longer than all of them may."""
    model = Slow(1.01 * LONGEST_PASSES)
    assert prediction_seconds(model, torch.zeros(2, 1)) >= 1.01 * LONGEST_PASSES / 2
    assert model.runs == 1


def test_a_run_says_how_fast_it_is(tmp_path: Path) -> None:
    """Training alone is faster than the run as a whole; one step alone has no speed."""
    words = ["model.width=16", f"outputs={tmp_path}", "record.tensorboard=false"]
    timing = dlexp.run([*words, "train.epochs=10", "train.batch_size=50"], quiet=True).summary["timing"]
    assert timing["samples_per_second"] > 50 * timing["steps_per_second"]
    assert 0 < timing["predict_seconds_per_sample"] < 1e-3
    timing = dlexp.run([*words, "train.max_steps=1"], quiet=True).summary["timing"]
    assert timing["samples_per_second"] is None and timing["predict_seconds_per_sample"] > 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], []),
        (["stopping=early", "stopping.monitor=accuracy/validation"], ["accuracy/validation"]),
        (["scheduler=plateau"], ["loss/validation"]),
        (["scheduler=plateau", "stopping=early"], ["loss/validation"]),
        (["scheduler=step", "train.target=0.5"], []),  # asking when it was reached steers nothing
    ],
)
def test_what_training_listens_to(words: list[str], expected: list[str], tmp_path: Path) -> None:
    """All other metrics are passive."""
    words = [*words, "train.max_steps=2", "record=off", f"outputs={tmp_path}"]
    assert dlexp.run(words, quiet=True).summary["metrics_monitored"] == expected
