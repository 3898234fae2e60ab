"""Seconds of training alone, with a clock that is set by hand."""

from __future__ import annotations

import pytest
import torch

from dlexp.train.clock import Clock


class Time:
    """What time it is."""

    now = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(Time, "now", 100.0)
    monkeypatch.setattr("dlexp.train.clock.time.perf_counter", lambda: Time.now)
    return Clock(torch.device("cpu"))


def test_by_hand(clock: Clock) -> None:
    """A first step of 10 s, then 3 of 1 s each and an evaluation of 50 s among them."""
    assert clock.seconds == 0.0 and clock.steps_per_second is None
    Time.now += 7  # of getting ready
    clock.step()
    Time.now += 10
    assert clock.seconds == 10 and clock.steps_per_second is None
    clock.step()
    Time.now += 1
    with clock.paused():
        Time.now += 50
    clock.step()
    Time.now += 1
    clock.step()
    Time.now += 1
    assert clock.seconds == 13 and clock.steps_per_second == 1


def test_what_fails_in_a_pause_is_no_training_either(clock: Clock) -> None:
    """The clock goes on afterwards."""
    clock.step()
    with pytest.raises(RuntimeError, match="out of luck"), clock.paused():
        Time.now += 5
        raise RuntimeError("out of luck")
    Time.now += 2
    assert clock.seconds == 2


def test_without_a_step_a_pause_is_nothing(clock: Clock) -> None:
    """A model that has nothing to learn is evaluated only."""
    with clock.paused():
        Time.now += 5
    assert clock.seconds == 0.0
