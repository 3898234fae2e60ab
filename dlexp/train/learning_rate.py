"""When the learning rate moves on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from dlexp.errors import UserError


class LearningRate:
    """Advances one of PyTorch's schedulers (the loop's `adjust`)."""

    def __init__(self, scheduler: Any, each: str, steps_per_epoch: int) -> None:
        """A schedule that moves on after each "step" or each "epoch".

        One that waits for a plateau looks at the validation loss whenever there is a new one.

        Raises:
            UserError: a plateau at each step, where there is no validation loss.
        """
        self._scheduler = scheduler
        self.waits = isinstance(scheduler, ReduceLROnPlateau)
        if self.waits and each == "step":
            raise UserError("scheduler.each=step: a plateau is seen in the validation loss; allowed: epoch")
        self._every = 1 if each == "step" else steps_per_epoch
        # PyTorch raises an error behind the end of a cycle; here its last learning rate stays
        self._last = scheduler.total_steps - 1 if isinstance(scheduler, OneCycleLR) else None

    def __call__(self, step: int, scalars: Mapping[str, float]) -> None:
        """After the update of a step, with the scalars of an evaluation if there was one."""
        if self.waits:
            if "loss/validation" in scalars:
                self._scheduler.step(scalars["loss/validation"])
        elif (step + 1) % self._every == 0 and self._scheduler.last_epoch != self._last:
            self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """That of PyTorch's scheduler."""
        found: dict[str, Any] = self._scheduler.state_dict()
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._scheduler.load_state_dict(state)
