"""What every test shares: one thread, and PyTorch's settings put back afterwards."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator

import pytest
import torch

from dlexp import pictures

SECONDS = pictures.SECONDS
gc.disable()  # until all is loaded that tests import


# Files that take longest, by seconds; begun last, one process would be at work on them alone.
LONGEST = ["test_multirun", "test_config", "test_overrides", "test_cli", "test_pages", "test_readme"]
LONGEST += ["test_experiment", "test_page", "test_going_on", "test_resume", "test_browser"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all others as they come."""
    place = {name: n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_collection_finish() -> None:
    """What is loaded now stays: the garbage collector need not look through it again and again."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Some libraries complain of what is still there when Python ends."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _no_pictures() -> Iterator[None]:
    """Pictures for TensorBoard take longer than most runs here; whoever looks at them asks for `drawn`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "SECONDS", math.inf)
        yield


@pytest.fixture(scope="module")
def drawn() -> Iterator[None]:
    """Runs of this file draw their pictures as they do for anybody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "SECONDS", SECONDS)
        yield


@pytest.fixture(autouse=True)
def _settings_put_back() -> Iterator[None]:
    """Small networks are fastest on one thread; no test leaves threads or random numbers changed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)
