"""Stopping between two steps, where everything on record is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from dlexp.errors import Terminated


class Stop:
    """Whether somebody asked the run to end."""

    def __init__(self) -> None:
        self.asked: int | None = None  # the number of the signal

    def check(self) -> None:
        """Raise what the signal stands for; called where it is safe to leave.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            Terminated: SIGTERM, from a scheduler, say.
        """
        if self.asked is not None:
            raise Terminated if self.asked == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Hold back the first Ctrl-C or SIGTERM until the next `check`; a second one is not held back.

    Signals reach the main thread only: in another one nothing is changed.
    """
    stop = Stop()
    before: dict[int, Any] = {}

    def hold(number: int, frame: FrameType | None) -> None:
        put_back()
        stop.asked = number

    def put_back() -> None:
        while before:
            signal.signal(*before.popitem())

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, hold)
    try:
        yield stop
    finally:
        put_back()
