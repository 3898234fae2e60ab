"""Where a run computes, and what it leaves of the process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dlexp
from dlexp.errors import UserError
from dlexp.train import device
from dlexp.train.device import own_state, pick, present, seed_all, thread_count

CPU = torch.device("cpu")


def pretend(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False) -> None:
    """A machine with so many CUDA devices, with or without MPS."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_the_cpu_is_always_there() -> None:
    """Whatever else a machine has."""
    assert present()[-1] == "cpu"
    assert pick("cpu") == CPU


@pytest.mark.parametrize(("cuda", "mps", "best"), [(0, False, "cpu"), (0, True, "mps"), (2, True, "cuda")])
def test_auto_takes_the_fastest(monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, best: str) -> None:
    """CUDA before MPS before the CPU."""
    pretend(monkeypatch, cuda=cuda, mps=mps)
    assert pick("auto") == torch.device(best)


def test_a_device_may_be_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuda:1 is the second of two."""
    pretend(monkeypatch, cuda=2)
    assert pick("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize(("name", "cuda"), [("cuda", 0), ("mps", 0), ("cuda:2", 2)])
def test_an_absent_device_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, name: str, cuda: int) -> None:
    """It names the key, the value and what this machine has."""
    pretend(monkeypatch, cuda=cuda)
    here = "auto, cuda, cuda:0, cuda:1, cpu" if cuda else "auto, cpu"
    with pytest.raises(UserError, match=f"^device={name}: not on this machine; allowed here: {here}$"):
        pick(name)


def test_a_small_network_gets_one_thread() -> None:
    """For it threads cost more than they bring."""
    torch.set_num_threads(2)
    assert thread_count("auto", 50_000, 64, CPU) == 1


def test_a_large_network_gets_all_threads() -> None:
    """Also a network of middle size with large batches."""
    torch.set_num_threads(2)
    assert thread_count("auto", 10_000_000, 64, CPU) == 2
    assert thread_count("auto", 50_000, 64 * 200, CPU) == 2


def test_the_line_between_is_the_work_of_a_step() -> None:
    """6 operations per parameter and sample."""
    torch.set_num_threads(2)
    samples = 10
    enough = int(device.WORTH_A_THREAD / 6 / samples)
    assert thread_count("auto", enough + 1, samples, CPU) == 2
    assert thread_count("auto", enough - 1, samples, CPU) == 1


def test_an_accelerator_needs_one_thread() -> None:
    """The host only launches kernels."""
    torch.set_num_threads(2)
    assert thread_count("auto", 10**9, 64, torch.device("cuda")) == 1


@pytest.mark.parametrize("asked", [3, "3"])
def test_a_number_is_taken_as_it_is(asked: int | str) -> None:
    """Whatever the network."""
    assert thread_count(asked, 10, 1, CPU) == 3


def test_settings_are_put_back(tmp_path: Path) -> None:
    """Threads, dtype and device of a notebook hold after a run, also one that failed, and not in it."""
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with pytest.raises(KeyError), own_state(CPU):
            assert torch.zeros(1).dtype == torch.float32 and torch.zeros(1).device == CPU
            torch.set_num_threads(1)
            raise KeyError
        assert torch.get_num_threads() == 2
        assert torch.zeros(1).dtype == torch.float64 and torch.zeros(1).device.type == "meta"
        torch.set_default_device(None)
        assert dlexp.run(["debug=quick", f"outputs={tmp_path}"], quiet=True).summary["status"] == "finished"
        assert torch.zeros(1).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def test_random_numbers_are_put_back() -> None:
    """What follows draws what it would have drawn, also when the run fails."""
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(KeyError), own_state(CPU):
        seed_all(1, CPU)
        torch.rand(9)
        raise KeyError
    assert torch.equal(torch.rand(3), wanted)


def test_a_seed_decides_what_is_drawn() -> None:
    """The same seed, the same numbers; the largest seed is allowed."""
    for seed in (0, 2**63 - 1):
        seed_all(seed, CPU)
        one = torch.rand(3)
        seed_all(seed, CPU)
        assert torch.equal(one, torch.rand(3))
