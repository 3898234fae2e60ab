"""The report in a real browser, on a wide and a narrow window, in light and in dark.

The screenshots lie in the folder that DLEXP_SCREENSHOTS names, for people to look at.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

import dlexp
from dlexp.report.command import command

SEEN = """() => {
  const root = document.documentElement, style = (what) => getComputedStyle(document.querySelector(what));
  return {
    content: root.scrollWidth, room: root.clientWidth, figures: document.querySelectorAll("figure").length,
    shown: [...document.querySelectorAll("figure svg[role]")]
      .filter((one) => one.getBoundingClientRect().width > 100).map((one) => one.getAttribute("class")),
    words: style("figure svg.wide g[style*=fill]").fill,
    beyond: [...document.querySelectorAll("main *")].filter((one) => !one.closest(".box")
      && one.getBoundingClientRect().right > root.clientWidth + 1).map((one) => one.outerHTML.slice(0, 80)),
    small: [...document.querySelectorAll("main *")].filter((one) => !one.children.length
      && one.textContent.trim() && parseFloat(getComputedStyle(one).fontSize) < 12).length,
    paper: style("body").backgroundColor, ink: style("body").color,
    closed: document.querySelectorAll("details:not([open])").length,
  };
}"""


@pytest.fixture(scope="module")
def folder(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the report of a run, of a run that diverged and of a sweep."""
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
    return folder


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["run", "diverged", "sweep"])
def test_report(name: str, width: int, browser: Any, folder: Path) -> None:
    """Nothing sticks out, all pictures are there, nothing is loaded; in light and in dark."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url))
    page.goto(address := (folder / name / "report.html").as_uri())
    seen = {}
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        found = page.evaluate(SEEN)
        assert found["content"] == found["room"] <= width and found["beyond"] == []
        assert found["shown"] == ["wide" if width > 800 else "narrow"] * found["figures"] != []
        assert found["small"] == 0
        assert found["closed"] >= 1
        seen[theme] = found["paper"], found["ink"], found["words"]
        if kept := os.environ.get("DLEXP_SCREENSHOTS"):
            page.screenshot(path=f"{kept}/report_{name}_{width}_{theme}.png", full_page=True)
    page.close()
    assert [url for url in loaded if not url.startswith("data:")] == [address]
    assert seen["light"] == ("rgb(255, 255, 255)", "rgb(27, 31, 36)", "rgb(27, 31, 36)")
    assert seen["dark"][:2] == ("rgb(20, 23, 27)", "rgb(232, 235, 238)")
    assert min(map(int, re.findall(r"\d+", seen["dark"][2]))) > 200  # words of a picture are bright, too


def test_report_on_paper(browser: Any, folder: Path) -> None:
    """A few pages with pictures on them."""
    page = browser.new_page()
    page.goto((folder / "run/report.html").as_uri())
    paper = page.pdf()
    pages = len(re.findall(rb"/Type\s*/Page\b", paper))
    assert 2 <= pages <= 12 and len(paper) > 50_000
