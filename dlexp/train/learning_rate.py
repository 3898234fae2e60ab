"""When the learning rate moves on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau


class LearningRate:
    """Advances one of PyTorch's schedulers (the loop's `adjust`)."""

    def __init__(self, scheduler: Any, each: str, steps_per_epoch: int) -> None:
        """A schedule that moves on after each "step" or each "epoch".

        One that waits for a plateau looks at the validation loss whenever there is a new one.
        """
        self._scheduler = scheduler
        self._waits = isinstance(scheduler, ReduceLROnPlateau)
        self._every = 1 if each == "step" else steps_per_epoch

    def __call__(self, step: int, scalars: Mapping[str, float]) -> None:
        """After the update of a step, with the scalars of an evaluation if there was one."""
        if self._waits:
            if "loss/validation" in scalars:
                self._scheduler.step(scalars["loss/validation"])
        elif (step + 1) % self._every == 0:
            self._scheduler.step()
