"""The atlas and the table, from verdicts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dlexp.lab import Runs, Verdict
from dlexp.lab.atlas import COLUMNS, as_markdown, write, write_page
from dlexp.lab.experiment import Experiment, Result

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def result(tmp_path: Path) -> Result:
    """Two claims, one of them wrong, and a picture."""
    lab = Experiment(str(tmp_path / "made_up.py"), "Is <b> bold?\n\nTheory & practice.\n\n    a < b\n")

    @lab.claim("3:337a 1:2", "A | b.", measures="m", criterion="c")
    def second(runs: Runs) -> Verdict:
        """The cause is <this>."""
        return Verdict("refuted", "0.1 | 0.2", 5)

    @lab.claim("0:20", "First.", measures="m", criterion="c")
    def first(runs: Runs) -> Verdict:
        return Verdict("supported", "1 ± 0", 5)

    @lab.picture("A caption.")
    def picture(runs: Runs):  # type: ignore[no-untyped-def]
        from dlexp.lab.draw import panels

        return panels(1)[0]

    return Result(lab, (), tmp_path, Runs([]), lab.judge(Runs([])), 0, 0.0)


def test_the_table_has_a_row_for_each_claim_in_the_order_of_the_notes(result: Result) -> None:
    """With bars escaped, and the columns that were promised; what is measured stands before the numbers."""
    lines = as_markdown([result]).splitlines()
    start = lines.index(f"| {' | '.join(COLUMNS)} |")
    assert COLUMNS == ("where in the notes", "claim", "experiment", "verdict", "measured")
    assert lines[start + 2 :] == [
        "| 0:20 | First. | [made_up](made_up.py) | supported | m: 1 ± 0 |",
        "| 3:337a 1:2 | A \\| b. | [made_up](made_up.py) | refuted | m: 0.1 \\| 0.2 |",
    ]
    assert "2 claims" in lines[2] and "1 supported, 1 refuted" in lines[2] and "torch" in lines[3]


def test_the_atlas_leads_with_the_corrections(result: Result, tmp_path: Path) -> None:
    """Every claim is in the index; what the notes have wrong stands first; all text is escaped."""
    index, table = write([result], tmp_path / "RESULTS.md")
    text = index.read_text()
    corrections, _, claims = text.partition('id="claims"')
    assert "The notes say" in corrections and "A | b." in corrections and "First." not in corrections
    assert "The cause is &lt;this&gt;." in corrections
    assert claims.count("<tr data-verdict=") == 2 and 'data-notes="1 3"' in claims
    assert table.read_text() == as_markdown([result])
    page = (tmp_path / "atlas" / "made_up.html").read_text()
    assert "Is &lt;b&gt; bold?" in page and "<svg" in page and "a &lt; b" in page
    assert 'href="made_up.html#second"' in text and 'id="second"' in page


def test_a_page_and_its_picture_need_nothing_else(result: Result) -> None:
    page, png = write_page(result)
    assert png is not None and png.read_bytes()[:4] == b"\x89PNG"
    assert "http" not in page.read_text().replace("http://www.w3.org", "")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
def test_the_index_is_searched_and_filtered(result: Result) -> None:
    """By words, verdict and note; what does not fit is hidden, and the rest counted."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    (index,) = write([result])
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page()
        page.goto(index.as_uri())

        def shown() -> tuple[str, list[str]]:
            places = page.locator("#rows tr:visible td:first-child").all_inner_texts()
            return page.inner_text("#shown"), places

        assert shown() == ("2 claims", ["0:20", "3:337a 1:2"])
        page.fill("#search", "FIRST")
        assert shown() == ("1 claim", ["0:20"])
        page.fill("#search", "")
        page.select_option("#verdict", "refuted")
        assert shown() == ("1 claim", ["3:337a 1:2"])
        page.select_option("#note", "0")
        assert shown() == ("0 claims", [])
        page.select_option("#verdict", "")
        assert shown() == ("1 claim", ["0:20"])
        browser.close()
