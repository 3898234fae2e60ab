"""When training ends before its last step: somebody asks for it, or the network no longer improves."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from torch import Tensor, nn

from dlexp.better import lower_is_better
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
            number, self.asked = self.asked, None
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


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
    stop.check()  # it came too late for the one that was asked, but those behind it are to hear of it


class EarlyStopping:
    """Ends a run whose validation loss no longer falls, and gives back the weights of its best moment.

    Goodfellow et al. 2016, algorithm 7.1.
    """

    def __init__(
        self, patience: int, min_delta: float = 0.0, monitor: str = "loss/validation", restore: bool = True
    ) -> None:
        """Wait for `patience` evaluations without an improvement of more than `min_delta`.

        Args:
            monitor: the scalar that is watched, "loss/validation" or "<metric>/validation"; more is
                better but for `dlexp.better.LOWER_IS_BETTER`.
            restore: put the weights of the best evaluation back at the end.
        """
        self._patience, self._min_delta, self._restore = patience, min_delta, restore
        self._monitor, self._sign = monitor, 1 if lower_is_better(monitor) else -1
        self._best: float | None = None
        self._weights: dict[str, Tensor] = {}
        self._waited = 0
        self.best_step: int | None = None

    def see(self, step: int, scalars: Mapping[str, float], model: nn.Module) -> bool:
        """Take in an evaluation; True when it is enough. A value that is not finite is no improvement."""
        value = self._sign * scalars[self._monitor]
        if math.isfinite(value) and (self._best is None or value < self._best - self._min_delta):
            self._best, self.best_step, self._waited = value, step, 0
            if self._restore:
                self._weights = {name: x.detach().clone() for name, x in model.state_dict().items()}
        else:
            self._waited += 1
        return self._waited >= self._patience

    def state_dict(self) -> dict[str, Any]:
        """What it has seen so far."""
        return {
            "best": self._best,
            "best_step": self.best_step,
            "waited": self._waited,
            "weights": self._weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self.best_step = state["best"], state["best_step"]
        self._waited, self._weights = state["waited"], state["weights"]

    def restore(self, model: nn.Module) -> bool:
        """Put back the weights of the best evaluation, if they are wanted; False: there are none."""
        if self._weights:
            model.load_state_dict(self._weights)
        return bool(self._weights)
