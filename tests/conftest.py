"""What every test shares: one thread, and PyTorch's settings put back afterwards.

Nothing heavy is imported here: the process that shares tests out among others does not need it.
"""

from __future__ import annotations

import copy
import gc
import math
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from dlexp.startup import collect_rarely

gc.disable()  # until all is loaded that tests import

MOST_PROCESSES = 8  # each loads PyTorch, 0.5 GB

# Files that take longest, by seconds; begun last, one process would be at work on them alone.
LONGEST = ["test_launchers", "test_tensorboard", "test_config", "test_pages", "test_cli", "test_multirun"]
LONGEST += ["test_readme", "test_overrides", "test_experiment", "test_page", "test_own_loop", "test_going_on"]
LONGEST += ["test_resume", "test_diagnosed_runs", "test_doctor", "test_pictures"]

CHROMIUM = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def _named(config: pytest.Config) -> bool:
    """Was it said by their names which few files are to be run?"""
    return len(config.args) < 4 and all(".py" in word for word in config.args)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A process for each core; this one alone for a few files: loading PyTorch again takes longer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if _named(config) else min(cores, MOST_PROCESSES)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files first, all others as they come; without what takes a browser or pools.

    That is run where its file or its mark is named: `pytest -m integration`.
    """
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("integration")
    if "integration" not in config.option.markexpr and not _named(config):
        left = [item for item in items if item.get_closest_marker("integration")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("integration")]
    place = {name: n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_collection_finish() -> None:
    """What is loaded now stays: the garbage collector need not look through it again and again."""
    gc.enable()
    gc.collect()
    gc.freeze()
    collect_rarely()  # as the command does


def pytest_unconfigure() -> None:
    """Some libraries complain of what is still there when Python ends."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _files_are_read_once() -> Iterator[None]:
    """Hydra reads and parses thirty YAML files for each config; those that ship do not change meanwhile."""
    from hydra._internal.config_repository import ConfigRepository

    from dlexp.compose import CONFIGS

    read, known = ConfigRepository.load_config, {}

    def load_config(self: ConfigRepository, config_path: str) -> Any:
        sources = [source.path for source in self.sources]
        if not {*sources} <= {str(CONFIGS), "hydra.conf", ""}:
            return read(self, config_path)
        key = (*sources, config_path)
        if key not in known:
            known[key] = read(self, config_path)
        found = known[key]
        base = found is None or config_path in ("config", "hydra/config") or found.header["package"]
        return copy.deepcopy(found) if base else found  # Hydra builds on the first, and copies parts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigRepository, "load_config", load_config)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_pictures() -> Iterator[float]:
    """Pictures for TensorBoard take longer than most runs here; whoever looks at them asks for `drawn`."""
    from dlexp import pictures

    with pytest.MonkeyPatch.context() as patch:
        usual = pictures.SECONDS
        patch.setattr(pictures, "SECONDS", math.inf)
        yield usual


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium, headless, off the network."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def drawn(_no_pictures: float) -> Iterator[None]:
    """Runs of this file draw their pictures as they do for anybody."""
    from dlexp import pictures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "SECONDS", _no_pictures)
        yield


@pytest.fixture(autouse=True)
def _settings_put_back() -> Iterator[None]:
    """Small networks are fastest on one thread; no test leaves threads or random numbers changed."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)
