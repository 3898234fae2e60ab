"""TensorBoard on a real sweep, in Debian's chromium off the network: every tab shows what it should.

Screenshots lie in the folder that DLEXP_SCREENSHOTS names, for people to look at.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from shell import run

from dlexp.record.probes import QUANTITIES

NAMES = ["activation=relu", "activation=sigmoid"]
LAYERS = 7
PATIENCE = 60_000  # milliseconds


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over two activations, with everything that can be recorded."""
    cwd = tmp_path_factory.mktemp("sweep")
    seen = ["record.images=true", "record.histograms=true", "record.graph=true"]
    words = ["activation=sigmoid,relu", "model.depth=6", "model.width=32", "train.epochs=3", *seen]
    done = run("-m", *words, "hydra.sweep.dir=sweep", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "sweep"


@pytest.fixture(scope="module")
def address(logdir: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--logdir", str(logdir), "--port", str(port), "--host", "127.0.0.1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", *words], **quiet)  # type: ignore[call-overload]
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{address}/data/runs", timeout=5) as answer:
                found = answer.read().decode()
            if all(name in found for name in NAMES):
                break
        except OSError:
            pass
        time.sleep(0.2)
    yield address
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def tab(browser: Any, address: str) -> Callable[[str], Any]:
    """A page with one of TensorBoard's tabs, with a wide window."""

    def opened(name: str) -> Any:
        page = browser.new_page(viewport={"width": 1500, "height": 1100})
        page.set_default_timeout(PATIENCE)
        page.goto(f"{address}/#{name}")
        return page

    return opened


def keep(page: Any, name: str) -> None:
    if folder := os.environ.get("DLEXP_SCREENSHOTS"):
        page.wait_for_timeout(1500)  # for what is still being drawn
        page.screenshot(path=f"{folder}/tensorboard_{name}.png")
    page.close()


def test_runs_have_their_words_for_names(tab: Callable[[str], Any]) -> None:
    page = tab("timeseries")
    for name in NAMES:
        page.get_by_text(name, exact=True).first.wait_for()
    for section in ("delta_rms", "loss"):
        page.get_by_text(section, exact=True).first.wait_for()
    keep(page, "scalars")


def test_all_layers_share_a_chart(tab: Callable[[str], Any]) -> None:
    """As many series as layers and runs; the guide of the update ratio is one more of each run."""
    page = tab("custom_scalars")
    page.get_by_text("all layers").wait_for()
    for quantity in QUANTITIES:
        page.get_by_text(quantity, exact=True).first.wait_for()
    for count in (2 * LAYERS, 2 * LAYERS + 2):
        page.get_by_text(f"Matches ({count})").first.wait_for()
    assert page.locator("svg path, canvas").count() > 0
    keep(page, "custom_scalars")


def test_pictures_are_shown(tab: Callable[[str], Any]) -> None:
    """The signature comes first, for each run, as wide as it was drawn."""
    page = tab("images")
    page.get_by_text("layers/signature").first.wait_for()
    page.get_by_text("mistakes/confusion_test").first.wait_for()
    pictures = page.locator("img[src*=individualImage]")
    for i in range(3 * len(NAMES)):  # signature, confusion and the most wrong of each run
        pictures.nth(i).wait_for()
    page.wait_for_timeout(500)
    widths = pictures.evaluate_all("all => all.map(one => one.naturalWidth)")
    assert len(widths) == 3 * len(NAMES) and min(widths) > 300
    assert widths[0] == widths[1] == max(widths) > 1000
    keep(page, "images")


def test_the_config_and_how_to_read_it_are_texts(tab: Callable[[str], Any]) -> None:
    page = tab("text")
    page.get_by_text("how_to_read", exact=True).first.wait_for()
    page.get_by_text("dlexp activation=relu model.depth=6").first.wait_for()
    keep(page, "text")


def test_hparams_sets_what_is_swept_beside_results(tab: Callable[[str], Any]) -> None:
    page = tab("hparams")
    for what in ("activation", "accuracy/test", "sigmoid", "relu"):
        page.get_by_text(re.compile(f"^\\s*{what}\\s*$")).first.wait_for()
    assert page.get_by_text("model.depth").count() == 0  # the same in both
    keep(page, "hparams")


def test_histograms_and_the_graph_are_there_when_asked_for(tab: Callable[[str], Any]) -> None:
    page = tab("histograms")
    for kind in ("activation", "delta", "gradient"):
        page.get_by_text(re.compile(f"^\\s*{kind}\\s*$")).first.wait_for()
    keep(page, "histograms")
    page = tab("graphs")
    page.get_by_text("Sequential").first.wait_for(state="attached")
    keep(page, "graphs")
