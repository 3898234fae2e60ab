"""What every test shares: one thread, and PyTorch's settings put back afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch


def pytest_collection_finish() -> None:
    """What is loaded now stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Some libraries complain of what is still there when Python ends."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _settings_put_back() -> Iterator[None]:
    """Small networks are fastest on one thread; no test leaves threads or random numbers changed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)
