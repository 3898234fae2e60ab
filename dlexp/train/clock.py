"""How long training takes, apart from everything else that a run does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Seconds of training alone: from the first step on, without what happens while it is paused.

    Away from the CPU reading it waits for what is still under way, so it is read now and then only.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps = 0
        self._begun = self._paused = self._first_step = 0.0

    def step(self) -> None:
        """A step begins."""
        self._steps += 1
        if self._steps == 1:
            self._begun = self._now()
        elif self._steps == 2:
            self._first_step = self.seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens within is not training."""
        start = self._now()
        try:
            yield
        finally:
            self._paused += self._now() - start

    @property
    def seconds(self) -> float:
        """Of training so far."""
        return self._now() - self._begun - self._paused if self._steps else 0.0

    @property
    def steps_per_second(self) -> float | None:
        """Between two steps; without the first one, in which PyTorch still sets itself up."""
        seconds = self.seconds - self._first_step
        return (self._steps - 1) / seconds if self._steps > 1 and seconds > 0 else None

    def state_dict(self) -> dict[str, float]:
        """What it has counted so far."""
        return {"steps": self._steps, "seconds": self.seconds, "first_step": self._first_step}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._steps, self._first_step = int(state["steps"]), state["first_step"]
        self._begun, self._paused = self._now() - state["seconds"], 0.0

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()
