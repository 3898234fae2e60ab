"""The atlas and the table, from verdicts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlexp.lab import Runs, Verdict, all_of, fact
from dlexp.lab.atlas import COLUMNS, as_markdown, write, write_page
from dlexp.lab.experiment import Experiment, Result


@pytest.fixture
def result(tmp_path: Path) -> Result:
    """Two claims, one of them wrong, and a picture."""
    lab = Experiment(str(tmp_path / "made_up.py"), "Is <b> `bold`?\n\nTheory & `x < y`.\n\n    a < b\n")

    @lab.claim("3:337a 1:2", "A | b.", measures="how `loud`", criterion="less than `z`")
    def second(runs: Runs) -> Verdict:
        """The cause is <this>, `so`."""
        return Verdict("refuted", "0.1 | 0.2", 5)

    @lab.claim("0:20", "First.", measures="m", criterion="c")
    def first(runs: Runs) -> Verdict:
        return Verdict("supported", "1 ± 0", 5)

    @lab.picture("A `caption`.")
    def picture(runs: Runs):  # type: ignore[no-untyped-def]
        from dlexp.lab.draw import panels

        return panels(2)[0]

    return judged(lab, tmp_path)


@pytest.fixture
def many(tmp_path: Path) -> Result:
    """Claims at places of every kind, and with few and many parts; a picture that is a grid."""
    lab = Experiment(str(tmp_path / "places.py"), "Where?\n\n    " + "wide " * 60 + "\n", sweeps=[])
    places = ("1:54-56 2:40", "1:101,103", "1:102", "3:337a", "3:337b", "3:33", "1:121-122 3:155b,160,257")
    for number, where in enumerate(places):
        parts = {f"part_{i}": fact(i > 0, f"number {i}") for i in range(number)}
        verdict = all_of(parts) if parts else Verdict("depends", "sigmoids", factor="x")

        def judge(runs: Runs, verdict: Verdict = verdict) -> Verdict:
            return verdict

        judge.__name__ = f"claim_{number}"
        lab.claim(where, f"Claim {number}.", measures="a measure", criterion="c")(judge)

    @lab.picture("A grid.")
    def picture(runs: Runs):  # type: ignore[no-untyped-def]
        from matplotlib.figure import Figure

        figure = Figure(figsize=(12, 6))
        figure.subplots(2, 4)
        return figure

    return judged(lab, tmp_path)


def judged(lab: Experiment, outputs: Path) -> Result:
    return Result(lab, (), outputs, Runs([]), lab.judge(Runs([])), 0, 0.0)


def test_the_table_has_a_row_for_each_claim_in_the_order_of_the_notes(result: Result) -> None:
    """With bars escaped, and the columns that were promised; what is measured stands before the numbers."""
    lines = as_markdown([result]).splitlines()
    start = lines.index(f"| {' | '.join(COLUMNS)} |")
    assert COLUMNS == ("where in the notes", "claim", "experiment", "verdict", "measured")
    assert lines[start + 2 :] == [
        "| 0:20 | First. | [made_up](made_up.py) | supported | m: 1 ± 0 |",
        "| 3:337a 1:2 | A \\| b. | [made_up](made_up.py) | refuted | how `loud`: 0.1 \\| 0.2 |",
    ]
    assert "2 claims" in lines[2] and "1 supported, 1 refuted" in lines[2] and "torch" in lines[3]


def test_the_atlas_leads_with_the_corrections(result: Result, tmp_path: Path) -> None:
    """Every claim is in the index; what the notes have wrong stands first; all text is escaped."""
    index, table = write([result], tmp_path / "RESULTS.md")
    text = index.read_text()
    corrections, _, claims = text.partition('id="claims"')
    assert "A | b." in corrections and "First." not in corrections
    assert claims.count("<tr data-card=") == 2 and 'data-notes="1 3"' in claims
    assert table.read_text() == as_markdown([result])
    page = (tmp_path / "atlas" / "made_up.html").read_text()
    assert "Is &lt;b&gt; <code>bold</code>?" in page and "<svg" in page and "a &lt; b" in page
    assert 'href="made_up.html#second"' in text and 'id="second"' in page


def test_a_correction_says_all_of_it(result: Result, many: Result) -> None:
    """The sentence and its place, the verdict, what was found, measured and asked, and a small picture."""
    (index,) = write([result, many])
    start = index.read_text().index('<section id="corrections">')
    corrections = index.read_text()[start : index.read_text().index('<section id="claims">')]
    words = " ".join(re.sub("<.*?>", "", corrections).split())
    assert (
        "The notes say: A | b. note 3, line 337a; note 1, line 2 Refuted. The cause is &lt;this&gt;, so."
        in words
    )
    assert "Measured: how loud: 0.1 | 0.2. Asked: less than z. How it was measured" in words
    assert "note 1, lines 54-56; note 2, line 40 Depends on x." in words
    assert "note 1, lines 121-122; note 3, lines 155b,160,257" in words
    assert '<img src="made_up.svg" loading="lazy" alt="A caption.">' in corrections
    svg = (index.parent / "made_up.svg").read_text()
    assert svg.count("<svg") == 1 and 'xmlns="http://www.w3.org/2000/svg"' in svg
    assert "prefers-color-scheme: dark" in svg and svg.rstrip().endswith("</svg>")


def test_other_choices_are_told(result: Result) -> None:
    """Whoever is handed a page sees whether it is the notebook's."""
    told = "not those of the notebook"
    (index,) = write([result])
    page = index.parent / "made_up.html"
    assert told not in index.read_text() and told not in page.read_text()
    write([replace(result, words=("data=mnist", "seed=0,1"))])
    assert told in index.read_text()
    assert "of <code>data=mnist seed=0,1</code>: verdicts and numbers are theirs" in page.read_text()


def test_a_theory_is_not_what_the_notes_say(tmp_path: Path) -> None:
    lab = Experiment(str(tmp_path / "made_up.py"), "Is it?")
    lab.claim("1:2", "Theory: it is.", measures="m", criterion="c")(lambda _: Verdict("refuted", "0"))
    (index,) = write([judged(lab, tmp_path)])
    words = re.sub("<.*?>", "", index.read_text())
    assert "Theory says: it is." in words and "The notes say" not in words


def test_backticks_are_code(result: Result) -> None:
    """In question, theory, claim, measure, criterion, caption and finding; where there is no code they go."""
    (index,) = write([result])
    page = (index.parent / "made_up.html").read_text()
    for text in (index.read_text(), page):
        assert "`" not in re.sub("<script>.*?</script>", "", text, flags=re.S)
    for word in ("bold", "x &lt; y", "loud", "z", "so", "caption"):
        assert f"<code>{word}</code>" in page
    assert "<title>made_up: Is &lt;b&gt; bold?</title>" in page
    assert 'aria-label="A caption. A | b. Refuted: 0.1 | 0.2.' in page


def test_parts_are_a_table_folded_where_they_are_many(many: Result) -> None:
    """Up to five are open; the index has one line for each claim."""
    (index,) = write([many])
    page = (index.parent / "places.html").read_text()
    assert re.findall(r"<details( open)?>\n<summary>(\d) parts", page) == [
        *((" open", str(n)) for n in range(1, 6)),
        ("", "6"),
    ]
    row = '<th scope="row">part_1</th><td class="left"><strong class="status good">supported</strong></td>'
    assert page.count(row) == 5 and '<td class="left">number 1</td>' in page
    assert index.read_text().count("<tr data-card=") == 7 and "part_3</th>" not in index.read_text()


def test_parts_of_parts_are_rows_too(tmp_path: Path) -> None:
    lab = Experiment(str(tmp_path / "made_up.py"), "Is it?")
    inner = all_of({"near": fact(True, "1"), "far": fact(False, "2")})
    lab.claim("1:2", "It is.", measures="m", criterion="c")(lambda _: all_of({"here": inner}))
    page, _ = write_page(judged(lab, tmp_path))
    assert re.findall(r'<th scope="row">(.*?)</th>', page.read_text()) == ["here", "here: near", "here: far"]


def test_a_page_and_its_picture_need_nothing_else(result: Result) -> None:
    page, png = write_page(result)
    assert png is not None and png.read_bytes()[:4] == b"\x89PNG"
    text = page.read_text()
    assert "http" not in text.replace("http://www.w3.org", "") and "<script" not in text
    assert len(re.findall('<svg class="(?:wide|narrow)"', text)) == 2


def test_a_picture_for_phones_has_its_panels_one_under_another() -> None:
    """As tall, at their margins, with words that fit; the wide one stays. What is no row stays as it is."""
    from matplotlib.figure import Figure

    from dlexp.lab.draw import HEIGHT, panels, stacked
    from dlexp.plots.style import NARROW, say_y

    wide, axes = panels(3)
    say_y(axes[0], "a name", "what it means, in more words than a phone has room for")
    axes[1].set_xlabel("words that are wider than a phone is, and by far")
    before = [axis.get_position().bounds for axis in wide.axes]
    tall = stacked(wide)
    assert tall is not None and [axis.get_position().bounds for axis in wide.axes] == before
    width, height = tall.get_size_inches()
    assert width == NARROW and height == pytest.approx(3 * (HEIGHT + 0.2))  # a line more under each
    places = [axis.get_position() for axis in tall.axes]
    assert len({round(place.x0, 6) for place in places}) == 1
    assert places[0].y0 > places[1].y1 and places[1].y0 > places[2].y1
    for place in places:
        assert place.height * height == pytest.approx(HEIGHT - 0.75 - 0.55)
    assert tall.axes[1].get_xlabel().count("\n") == 1 and "\n" not in axes[1].get_xlabel()
    for axis in tall.axes:
        for label in (axis.xaxis.label, axis.yaxis.label):
            tall.draw_without_rendering()
            box = label.get_window_extent()
            assert box.x0 >= -1 and box.x1 <= tall.bbox.width + 1
    grid = Figure()
    grid.subplots(2, 2)
    assert stacked(grid) is None and stacked(Figure()) is None
    assert stacked(panels(2, left=2.0)[0]) is None  # words on both sides


def test_the_index_is_searched_and_filtered(result: Result, browser: Any) -> None:
    """By words, verdict and note; what does not fit is hidden, and the rest counted."""
    (index,) = write([result])
    page = browser.new_page()
    page.goto(index.as_uri())

    def shown() -> tuple[str, list[str]]:
        places = page.locator("#rows tr:visible td:first-child").all_inner_texts()
        return page.inner_text("#shown"), [place.strip() for place in places]

    assert shown() == ("2 claims; 1 of them corrected", ["0:20", "3:337a 1:2"])
    assert page.locator(".claim:visible").count() == 1
    page.fill("[name=q]", "FIRST")
    assert shown() == ("1 of 2 claims: “FIRST”; 0 of them corrected", ["0:20"])
    assert page.locator("#corrections:visible").count() == 0
    page.fill("[name=q]", "loud made_up  0.2")  # what is measured, the experiment, the numbers
    assert shown()[1] == ["3:337a 1:2"]
    page.fill("[name=q]", "")
    page.select_option("[name=verdict]", "refuted")
    assert shown() == ("1 of 2 claims: refuted", ["3:337a 1:2"])
    page.select_option("[name=note]", "0")
    assert shown() == ("0 of 2 claims: refuted, note 0", [])
    assert "see every claim" in page.inner_text("#none") and page.locator("#claims:visible").count() == 0
    page.click("#none >> text=every claim")
    assert len(shown()[1]) == 2 and page.locator("#none:visible").count() == 0
    page.click(".lead >> text=1 supported")
    assert shown()[1] == ["0:20"] and page.input_value("[name=verdict]") == "supported"
    page.click(".links >> text=Every claim")
    assert len(shown()[1]) == 2 and page.evaluate("location.hash") == "#claims"


def test_a_line_of_the_notes_is_found_in_its_range(many: Result, browser: Any) -> None:
    """Also beside words; what the empty field gives as an example finds something."""
    (index,) = write([many])
    page = browser.new_page()
    page.goto(index.as_uri())
    for asked, found in {
        "1:55": [0],
        "1:57": [],
        "2:55": [],
        "1:101": [1],
        "1:102": [2],
        "1:100-102": [1, 2],
        "3:337": [3, 4],
        "3:337a": [3],
        "3:33": [5],
        "3:160": [6],
        "1:121": [6],
        "sigmoids, 1:54": [0],
        "note 3, line 337": [3, 4],
        "note 3, lines 33": [5],
        page.get_attribute("[name=q]", "placeholder"): [0],
    }.items():
        page.fill("[name=q]", asked)
        claims = page.locator("#rows tr:visible td:nth-child(2)").all_inner_texts()
        assert sorted(claims) == [f"Claim {n}." for n in found], asked


def test_what_is_asked_stands_in_the_address(many: Result, browser: Any) -> None:
    """A link shows the same to somebody else, and going back is going back; letters are one step."""
    (index,) = write([many])
    page = browser.new_page()
    page.goto(index.as_uri())
    page.locator("[name=q]").press_sequentially("claim 1:101")
    page.select_option("[name=note]", "1")
    address = page.url
    assert address.endswith("#q=claim+1:101&note=1")
    other = browser.new_page()
    other.goto(address)
    assert other.input_value("[name=q]") == "claim 1:101" and other.input_value("[name=note]") == "1"
    assert other.locator("#rows tr:visible").count() == 1
    page.go_back()
    assert page.url.endswith("#q=claim+1:101") and page.input_value("[name=note]") == ""
    page.go_back()
    assert page.input_value("[name=q]") == "" and page.locator("#rows tr:visible").count() == 7
    page.go_forward()
    assert page.input_value("[name=q]") == "claim 1:101"


def test_nothing_sticks_out(result: Result, many: Result, browser: Any) -> None:
    """Of the index and the pages, on a desk and on a phone; of the pictures the one that fits is shown."""
    from dlexp.lab.draw import panels

    lab = Experiment(str(many.outputs / "broad.py"), "How broad?", sweeps=[])
    lab.picture("Three panels.")(lambda _: panels(3)[0])
    (index,) = write([result, many, judged(lab, many.outputs)])
    page = browser.new_page()
    failed: list[str] = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("requestfailed", lambda request: failed.append(request.url))
    own, broad, other = ((index.parent / f"{name}.html").as_uri() for name in ("made_up", "broad", "places"))
    for width in (1280, 800, 360):
        page.set_viewport_size({"width": width, "height": 800})
        for address in (index.as_uri(), own, broad, other):
            page.goto(address)
            assert page.evaluate("document.documentElement.scrollWidth") == width, address
            assert page.evaluate("document.documentElement.lang") == "en" and page.title()
            assert page.locator("h1").count() == 1
            assert page.evaluate("[...document.images].every(one => one.alt)")
            page.evaluate(
                "Promise.all([...document.images].map(one => (one.loading = 'eager', one.decode())))"
            )
        phone = width == 360
        box = page.locator(".scroll").evaluate("one => [one.scrollWidth, one.clientWidth]")
        assert (box[0] > box[1] + 300) if phone else box[0] <= box[1]
        page.goto(own)
        kinds = "all => all.map(one => one.getAttribute('class'))"
        shown = page.locator(".card svg:visible").evaluate_all(kinds)
        assert shown == ["narrow" if phone else "wide"]
        assert page.locator("span.narrow:visible").count() == phone
        page.goto(broad)
        shown = page.locator(".card svg:visible").evaluate_all(kinds)
        assert shown == ["wide" if width == 1280 else "narrow"]
    assert failed == []
    for scheme, paper in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 27)")):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper


def test_on_paper_there_are_no_controls_and_nothing_is_folded(many: Result, browser: Any) -> None:
    (index,) = write([many])
    page = browser.new_page(viewport={"width": 680, "height": 900}, color_scheme="dark")
    page.goto(index.as_uri() + "#note=1")
    page.emulate_media(media="print")
    assert page.locator("form:visible, .links:visible").count() == 0
    assert page.inner_text("#shown").startswith("4 of 7 claims: note 1")
    assert page.get_by_text("The notes are five texts").is_visible()
    page.goto((index.parent / "places.html").as_uri())
    assert page.get_by_role("cell", name="number 5").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".card svg:visible").count() == 1


def test_the_keyboard_is_enough(result: Result, browser: Any) -> None:
    """Tab goes through the page from top to bottom, and where it is can be seen."""
    (index,) = write([result])
    page = browser.new_page()
    page.goto(index.as_uri())
    tops, names = [], []
    for _ in range(14):
        page.keyboard.press("Tab")
        own = "const one = document.activeElement, box = one.getBoundingClientRect();"
        seen = "getComputedStyle(one).outlineStyle"
        top, outline, name = page.evaluate(
            f"() => {{ {own} return [box.top + scrollY, {seen}, one.name || one.tagName]; }}"
        )
        assert outline == "solid", name
        tops.append(round(top, -2))
        names.append(name)
    assert tops == sorted(tops) and names.index("q") < names.index("verdict") < names.index("note")
