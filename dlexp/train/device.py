"""Where a run computes, and the random numbers it draws there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dlexp.errors import UserError

# Floating-point operations of one step above which a second thread pays. Measured by
# tests/benchmarks/threads.py: below it threads gain nothing on an idle machine, and on a
# busy one they wait for each other.
WORTH_A_THREAD = 60e6


def present() -> list[str]:
    """The devices of this machine, by the names that `device=` takes, fastest first."""
    found = []
    if torch.cuda.is_available():
        found += ["cuda", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def pick(name: str) -> torch.device:
    """The device that `name` stands for; "auto" takes the fastest there is.

    Raises:
        UserError: this machine has no such device.
    """
    if name == "cpu":
        return torch.device("cpu")
    found = present()
    if name == "auto":
        return torch.device(found[0])
    if name not in found:
        raise UserError(f"device={name}: not on this machine; allowed here: auto, {', '.join(found)}")
    return torch.device(name)


def thread_count(asked: int | str, parameters: int, batch_size: int, device: torch.device) -> int:
    """CPU threads for a network of that many parameters: one for a small one, otherwise all cores.

    A step of a dense network takes some 6 operations per parameter and sample: 2 forward, 4 backward.
    """
    if asked != "auto":
        return int(asked)
    if device.type != "cpu" or 6 * parameters * batch_size < WORTH_A_THREAD:
        return 1
    return torch.get_num_threads()  # PyTorch's own choice: one for each core it may use


@contextmanager
def own_state(device: torch.device) -> Iterator[None]:
    """Leave PyTorch as it was: default generators, dtype, device and threads.

    A run in a notebook disturbs no one, and what the notebook has set does not disturb the run.
    """
    threads, dtype, place = torch.get_num_threads(), torch.get_default_dtype(), torch.get_default_device()
    mps = torch.mps.get_rng_state() if device.type == "mps" else None
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_default_device(None if place == torch.device("cpu") else place)
        if mps is not None:
            torch.mps.set_rng_state(mps)


def seed_all(seed: int, device: torch.device) -> None:
    """Seed the default generators of the CPU and of `device`, and no others."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
