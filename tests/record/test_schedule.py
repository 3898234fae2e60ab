"""When to record."""

from __future__ import annotations

from itertools import pairwise

import pytest

from dlexp.record.schedule import schedule


def due(every: int | str, steps: int) -> list[int]:
    """The steps of a run that are recorded."""
    asks = schedule(every, steps)
    return [step for step in range(steps) if asks(step)]


def test_auto_records_the_start_closely() -> None:
    """Steps 0, 1, 2, 5, 10, 20: a signal that is lost is lost at the start."""
    assert due("auto", 100_000)[:6] == [0, 1, 2, 5, 10, 20]


def test_auto_goes_on_evenly() -> None:
    """Some 40 more, at distances that differ by one step at most."""
    later = [step for step in due("auto", 10_001) if step not in (1, 2, 5, 10, 20)]
    gaps = {b - a for a, b in pairwise(later)}
    assert len(later) == 41
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("steps", [41, 100, 1000, 123_457])
def test_auto_costs_the_same_for_every_length(steps: int) -> None:
    """A longer run is not recorded more often."""
    assert 40 <= len(due("auto", steps)) <= 47


@pytest.mark.parametrize("every", ["auto", 1, 3, 7, 1000])
@pytest.mark.parametrize("steps", [1, 2, 3, 6, 21, 50, 1000])
def test_the_first_and_the_last_step_are_always_recorded(every: int | str, steps: int) -> None:
    """Whatever the schedule, the table at the end has a first and a last."""
    found = due(every, steps)
    assert found[0] == 0
    assert found[-1] == steps - 1


def test_a_number_means_every_so_many_steps() -> None:
    """0, n, 2n and so on, and the last."""
    assert due(4, 11) == [0, 4, 8, 10]
    assert due(1, 4) == [0, 1, 2, 3]


def test_a_number_may_come_as_text() -> None:
    """Hydra hands over what was typed."""
    assert due("4", 11) == [0, 4, 8, 10]


@pytest.mark.parametrize("steps", [1, 50])
def test_never_means_never(steps: int) -> None:
    """Not even the last step."""
    assert due("never", steps) == []


@pytest.mark.parametrize("every", ["auto", "never"])
def test_nothing_is_due_beyond_the_end(every: str) -> None:
    """The recorder asks for the step after the last one."""
    assert not schedule(every, 10)(10)
