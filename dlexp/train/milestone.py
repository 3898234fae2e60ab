"""When a run first was as good as somebody asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlexp.better import lower_is_better


class Milestone:
    """Notes the first evaluation that reaches a value; the run goes on as if nobody had asked."""

    def __init__(self, tag: str, value: float, steps_per_epoch: int) -> None:
        """Wait for the scalar `tag`, "accuracy/validation" say, to reach `value`.

        More is better but for `dlexp.better.LOWER_IS_BETTER`.
        """
        self._tag, self._value, self._steps_per_epoch = tag, value, steps_per_epoch
        self._sign = 1 if lower_is_better(tag) else -1
        self._reached: dict[str, Any] = dict.fromkeys(("step", "epoch", "seconds"))

    def see(self, step: int, scalars: Mapping[str, float], seconds: float) -> None:
        """Take in an evaluation and the seconds of training before it."""
        if self._reached["step"] is None and self._sign * scalars[self._tag] <= self._sign * self._value:
            epoch = (step + 1) / self._steps_per_epoch
            self._reached = {"step": step, "epoch": round(epoch, 3), "seconds": round(seconds, 6)}

    def state_dict(self) -> dict[str, Any]:
        """When it was reached, if it was."""
        return dict(self._reached)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._reached = dict(state)

    def summary(self) -> dict[str, Any]:
        """What was asked for; the step after which it was seen, epochs and seconds up to there, or None."""
        return {"metric": self._tag, "value": self._value, **self._reached}
