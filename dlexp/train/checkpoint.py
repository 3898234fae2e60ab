"""What a run is between two steps, kept on the disk: from there it goes on as if nothing had happened.

All that changes while a network trains is in named parts, which say what they are (`state_dict`) and
take it back (`load_state_dict`), as PyTorch's own do.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

PERIOD = 60.0  # seconds between two checkpoints of `every="auto"`
SHARE = 0.01  # of the time that they may take, if one of them takes long
SOME = 1000  # samples


class Part(Protocol):
    """Something that changes while a network trains."""

    def state_dict(self) -> Any:
        """What it is now: tensors and plain Python objects."""

    def load_state_dict(self, state: Any, /) -> object:
        """Be that again."""


class Generators:
    """PyTorch's default generators: of dropout, noise and augmentation."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def state_dict(self) -> dict[str, Tensor]:
        found = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            found["cuda"] = torch.cuda.get_rng_state(self._device)
        elif self._device.type == "mps":
            found["mps"] = torch.mps.get_rng_state()
        return found

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        torch.set_rng_state(state["cpu"])
        if self._device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self._device)
        elif self._device.type == "mps" and "mps" in state:
            torch.mps.set_rng_state(state["mps"])


class Held:
    """A tensor that is changed in place."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def state_dict(self) -> Tensor:
        return self._tensor

    def load_state_dict(self, state: Tensor) -> None:
        self._tensor.copy_(state)


class Unchanged:
    """Samples that have to be what they were: how many, and two sums over some of them, are kept."""

    def __init__(self, samples: Tensor) -> None:
        self._samples = samples

    def state_dict(self) -> dict[str, float]:
        some = self._samples[:SOME].cpu().double().nan_to_num().flatten()
        places = torch.arange(len(some), dtype=some.dtype).cos()  # so that no order is like another
        return {"samples": len(self._samples), "size": some.abs().sum().item(), "sum": (places @ some).item()}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Nothing to put back.

        Raises:
            ValueError: they are others, by more than machines differ in rounding.
        """
        now = self.state_dict()
        if now["samples"] != state["samples"] or abs(now["sum"] - state["sum"]) > 1e-6 * state["size"]:
            raise ValueError("the data has changed")


class Timetable:
    """Between which steps a checkpoint is due."""

    def __init__(self, every: int | str | None, first: int) -> None:
        """After so many steps each; "auto": by time, rarely enough to cost nothing; None: never.

        Args:
            first: the step that the run begins with; what it is before that is on the disk, or new.
        """
        self._every, self._first = every, first
        self._next_time = time.monotonic() + PERIOD

    def due(self, step: int) -> bool:
        """Before this step?"""
        if self._every is None or step == self._first:
            return False
        if self._every == "auto":
            return time.monotonic() >= self._next_time
        return step % int(self._every) == 0

    def took(self, seconds: float) -> None:
        """One was written, or should have been, in so many seconds."""
        self._next_time = time.monotonic() + max(PERIOD, seconds / SHARE)


def states(parts: Mapping[str, Part]) -> dict[str, Any]:
    """What each part is now."""
    return {name: part.state_dict() for name, part in parts.items()}


def put_back(parts: Mapping[str, Part], found: Mapping[str, Any]) -> None:
    """Let each part be what it was.

    Raises:
        Exception: from a part that is no longer made like this.
    """
    for name, part in parts.items():
        part.load_state_dict(found[name])


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write it, and wait until it is on the disk.

    Raises:
        OSError: there is no room, or no way to write there.
    """
    whole = io.BytesIO()  # PyTorch itself makes something else of an error of the disk
    torch.save(content, whole)
    with path.open("wb") as file:
        file.write(whole.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def load(path: Path) -> dict[str, Any] | None:
    """What `save` wrote, tensors on the CPU; None if it cannot be read. No code in it is run."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # damaged bytes lead anywhere
        return None
    return content
