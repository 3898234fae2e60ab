"""A first signal waits for the next safe place, a second one does not."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from dlexp.errors import Terminated
from dlexp.train.stopping import stoppable


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_the_first_signal_is_held_back(number: int, kind: type[BaseException]) -> None:
    """Nothing happens until `check`, which raises what the signal stands for."""
    with stoppable() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        assert stop.asked == number
        with pytest.raises(BaseException, match=r"^$") as caught:
            stop.check()
    assert caught.type is kind


def test_the_second_is_not() -> None:
    """Who presses Ctrl-C twice means it."""
    with stoppable(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back() -> None:
    """Whether or not a signal came."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with stoppable():
        os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_changes_nothing() -> None:
    """Python hands signals to the main thread only."""
    found = []

    def enter() -> None:
        with stoppable() as stop:
            found.append((stop.asked, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(None, signal.getsignal(signal.SIGTERM))]
