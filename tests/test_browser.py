"""The report in a real browser: Debian's chromium, headless, off the network, on a wide and a narrow window.

A page of ours holds the report in a frame as wide as a window and says in its title what it measured. The
screenshots lie in the folder that DLEXP_SCREENSHOTS names, for people to look at.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import dlexp
from dlexp.report.command import command

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"
)

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--proxy-server=127.0.0.1:9"),  # nobody listens there
    *("--proxy-bypass-list=127.0.0.1", "--virtual-time-budget=10000"),
]
HEIGHT = 3600
FRAME = """<!DOCTYPE html><title>not loaded</title><body style="margin:0">
<iframe id="frame" src="REPORT" style="border:0;width:WIDTHpx;height:HEIGHTpx"></iframe>
<script>
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement, window_ = frame.contentWindow;
  const style = (what) => window_.getComputedStyle(page.querySelector(what));
  document.title = JSON.stringify({
    content: root.scrollWidth, room: root.clientWidth, figures: page.querySelectorAll("figure").length,
    shown: [...page.querySelectorAll("figure svg[role]")]
      .filter((one) => one.getBoundingClientRect().width > 100).map((one) => one.getAttribute("class")),
    words: style("figure svg.wide g[style*=fill]").fill,
    beyond: [...page.querySelectorAll("main *")].filter((one) => !one.closest(".box")
      && one.getBoundingClientRect().right > root.clientWidth + 1).map((one) => one.outerHTML.slice(0, 80)),
    small: [...page.querySelectorAll("main *")].filter((one) => !one.children.length && one.textContent.trim()
      && parseFloat(window_.getComputedStyle(one).fontSize) < 12).length,
    paper: style("body").backgroundColor, ink: style("body").color,
    closed: page.querySelectorAll("details:not([open])").length,
    loaded: window_.performance.getEntriesByType("resource")
      .filter((one) => !one.name.startsWith("data:")).length,
  });
};
</script>"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word on the terminal."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with the report of a run, of a run that diverged and of a sweep, and its address."""
    folder = tmp_path_factory.mktemp("site")
    quick = ["train.max_steps=20", "device=cpu", "threads=1"]
    for name, words in (
        ("run", ["model.depth=12", "activation=sigmoid"]),
        ("diverged", ["initializer=normal", "optimizer.lr=1000"]),
        *((f"sweep/{a}_{s}", [f"activation={a}", f"seed={s}"]) for a in ("relu", "tanh") for s in "01"),
    ):
        dlexp.run([*words, *quick, f"hydra.run.dir={folder / name}"], quiet=True)
    for name in ("run", "diverged", "sweep"):
        command([str(folder / name)])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def chromium(profile: Path, *words: str) -> str:
    """What it prints."""
    run = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *words],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["run", "diverged", "sweep"])
def test_report(name: str, width: int, site: tuple[Path, str], tmp_path: Path) -> None:
    """Nothing sticks out, all pictures are there, nothing is loaded; in light and in dark."""
    folder, address = site
    text = (
        FRAME.replace("REPORT", f"/{name}/report.html")
        .replace("WIDTH", str(width))
        .replace("HEIGHT", str(HEIGHT))
    )
    frame = f"frame_{name}_{width}.html"
    (folder / frame).write_text(text, encoding="utf-8")
    seen = {}
    for theme, scheme in (("dark", 0), ("light", 1)):
        setting = f"--blink-settings=preferredColorScheme={scheme}"
        window = f"--window-size={max(width, 500)},{HEIGHT}"
        picture = Path(os.environ.get("DLEXP_SCREENSHOTS", tmp_path)) / f"report_{name}_{width}_{theme}.png"
        said = chromium(
            tmp_path / theme, setting, window, "--dump-dom", f"--screenshot={picture}", f"{address}/{frame}"
        )
        title = re.search("<title>(.*?)</title>", said, re.S)
        assert title, said[:2000]
        found = json.loads(unescape(title[1]))
        assert found["content"] == found["room"] <= width and found["beyond"] == []
        assert found["shown"] == ["wide" if width > 800 else "narrow"] * found["figures"] != []
        assert found["small"] == 0 and found["loaded"] == 0
        assert found["closed"] >= 1
        seen[theme] = found["paper"], found["ink"], found["words"]
        assert picture.stat().st_size > 50_000
    assert seen["light"] == ("rgb(255, 255, 255)", "rgb(27, 31, 36)", "rgb(27, 31, 36)")
    assert seen["dark"][:2] == ("rgb(20, 23, 27)", "rgb(232, 235, 238)")
    assert min(map(int, re.findall(r"\d+", seen["dark"][2]))) > 200  # words of a picture are bright, too


def test_report_on_paper(site: tuple[Path, str], tmp_path: Path) -> None:
    """A few pages with pictures on them."""
    paper = tmp_path / "report.pdf"
    chromium(
        tmp_path / "profile",
        "--no-pdf-header-footer",
        f"--print-to-pdf={paper}",
        f"{site[1]}/run/report.html",
    )
    pages = len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))
    assert 2 <= pages <= 12 and paper.stat().st_size > 50_000
