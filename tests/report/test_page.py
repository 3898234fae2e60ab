"""The page of a run and of a sweep: parsed, not looked at; tests/test_browser.py opens it."""

from __future__ import annotations

import itertools
import json
import math
import re
import webbrowser
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from rich.console import Console
from sweeps import declare, failed, job, layers, scores, unfinished
from torch import nn

import dlexp
from dlexp.errors import UserError
from dlexp.numbers import compact
from dlexp.report import facts, vector
from dlexp.report.command import command, finish

CSS = (Path(dlexp.__file__).parent / "report" / "templates" / "style.css").read_text(encoding="utf-8")
VOID = {"meta", "link", "img", "br", "hr", "input"}
HOSTILE = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """Tags with their attributes, headings, ids, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.headings: list[int] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recurrent run with a hostile name."""
    folder = tmp_path_factory.mktemp("run") / "run"
    words = ["model=lstm", "data=sequential_digits", "train.max_steps=12", f"hydra.run.dir={folder}"]
    dlexp.run([*words, "name='<script>'"], quiet=True)
    command([str(folder)])
    return folder


@pytest.fixture(scope="module")
def sweep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two keys, two seeds; one job diverged, one failed with markup in its reason, one goes on."""
    folder = tmp_path_factory.mktemp("sweep")
    swept = ["activation", "model.depth", "seed"]
    declare(folder, ["activation=relu,tanh", "model.depth=2,3", "seed=0,1"], swept)
    for i, (activation, depth, seed) in enumerate(itertools.product(("relu", "tanh"), (2, 3), (0, 1))):
        words = [f"activation={activation}", f"model.depth={depth}", f"seed={seed}"]
        deltas = layers(*[10.0 ** -(n + i % 3) for n in range(depth + 1)])
        status, more = ("diverged", {"diverged": BAD}) if i == 0 else ("finished", {})
        job(folder, words, status, metrics=scores(0.5 + i / 100), layers=deltas, **more)
    failed(folder, ["activation=relu", "model.depth=9", "seed=0"], HOSTILE)
    unfinished(folder, ["activation=relu", "model.depth=9", "seed=1"])
    command([str(folder)])
    return folder


BAD = {"step": 4, "layer": "02_linear", "reason": "its delta_rms is not finite"}


@pytest.fixture(params=["run", "sweep"])
def page(request: pytest.FixtureRequest, run_folder: Path, sweep_folder: Path) -> Page:
    return read(run_folder if request.param == "run" else sweep_folder)


def read(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_needs_nothing_else(page: Page) -> None:
    """No script, no address of the network, no file beside it."""
    assert not page.all("script")
    for _, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert attrs.get(name, "data:").startswith(("data:", "#"))
    assert not re.search(r"url\(|@import|https?:", CSS)


def test_is_for_everybody(page: Page) -> None:
    """Language, title, one main, headings that skip no level, unique ids, a window as wide as the phone."""
    assert page.all("html")[0]["lang"] == "en" and len(page.all("main")) == 1
    assert len(page.all("title")) == 1 and page.headings[0] == 1 and page.headings.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(page.headings))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids)) > 3
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")


def pictures(page: Page) -> list[dict[str, str]]:
    return [attrs for attrs in page.all("svg") if attrs.get("role") == "img"]


def test_pictures_are_told_in_words(page: Page) -> None:
    """With numbers; each figure has one for a wide window and one for a narrow one."""
    found = pictures(page)
    assert len(found) == 2 * len(page.all("figure")) >= 2 and not page.all("img")
    assert [attrs["class"] for attrs in found] == ["wide", "narrow"] * len(page.all("figure"))
    for picture in found:
        said = picture["aria-label"]
        assert re.search(r"\d", said) and 60 < len(said) < 900 and said.endswith(".")
    for image in page.all("image"):  # colour maps
        assert image["xlink:href"].startswith("data:image/png;base64,")


def test_pictures_find_their_own_parts(page: Page) -> None:
    """Every reference inside a picture leads to an id in the page, and no id is there twice."""
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    wanted = [
        found for _, attrs in page.tags for x in attrs.values() for found in re.findall(r"url\(#(.*?)\)", x)
    ]
    wanted += [attrs["xlink:href"][1:] for attrs in page.all("use")]
    assert len(wanted) > 50 and set(wanted) <= set(ids) and len(ids) == len(set(ids))


def test_pictures_have_colours_for_dark_pages(page: Page, run_folder: Path) -> None:
    """Each colour of a line or word has its counterpart, with as much contrast on dark paper as on white."""
    text = (run_folder / "report.html").read_text(encoding="utf-8")
    rules = dict(re.findall(r"--c([0-9a-f]{6}):(#[0-9a-f]{6});", text))
    assert set(re.findall(r"var\(--c([0-9a-f]{6}),", text)) == set(rules) and len(rules) > 5
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", text)) <= {
        "#000000"
    }  # what has none: counts on pale cells
    paper = themes()["dark"]["paper"]
    for light, dark in rules.items():
        on_white, on_dark = contrast(f"#{light}", "#ffffff"), contrast(dark, paper)
        channels = bytes.fromhex(light)
        if max(channels) - min(channels) > 30:  # no grey: not too dim, and not white
            on_white = min(max(on_white, 3.0), 7.0)
        assert on_dark == pytest.approx(min(on_white, contrast("#ffffff", paper)), rel=0.05), light
    assert paper == vector.DARK


def test_tables_are_told_in_words(page: Page) -> None:
    """Each has a caption, and each of its headings says what it is the heading of."""
    assert len(page.all("table")) == len(page.all("caption")) >= 2
    scopes = {attrs.get("scope") for attrs in page.all("th")}
    assert scopes <= {"col", "row", "colgroup"} and {"col", "row"} <= scopes
    boxes = [attrs for attrs in page.all("div") if "box" in attrs.get("class", "").split()]
    assert len(boxes) == len(page.all("table"))
    for box in boxes:  # can be scrolled without a mouse
        assert box["tabindex"] == "0" and box["role"] == "region" and box["aria-label"]


def test_what_people_typed_is_text(run_folder: Path, sweep_folder: Path) -> None:
    """Whatever it looks like."""
    for folder in (run_folder, sweep_folder):
        assert not re.search("<script", (folder / "report.html").read_text(encoding="utf-8"))
    assert "name=<script>" in read(run_folder).text.replace("'", "").replace('"', "")
    assert HOSTILE in read(sweep_folder).text


def test_page_of_a_run(run_folder: Path) -> None:
    """What was asked, what happened, all sections, and the numbers of the summary."""
    page, summary = read(run_folder), json.loads((run_folder / "summary.json").read_text())
    assert "finished after 12 steps in" in page.text
    for title in ("What was asked", "The layers", "Make it again", "Does the error reach the past?"):
        assert title in page.text
    assert f"{summary['metrics']['accuracy/test']:.3g}" in page.text
    assert {"signature", "history", "curves", "time"} <= {attrs.get("id") for attrs in page.all("figure")}
    assert [layer["name"] for layer in summary["layers"]] == [
        word for word in page.words if re.fullmatch(r"\d\d_\w+", word)
    ]
    last = summary["layers"][0]["over_time"]["last"]["delta_rms"]
    alt = next(own["aria-label"] for own in pictures(page) if own["aria-label"].startswith("Line chart"))
    assert alt.startswith(
        f"Line chart of delta_rms over time steps, log scale: in 01_lstmcell it is {last[0]:.1e}"[:75]
    )
    decades = math.log10(last[0] / last[-1])
    assert f"delta_rms of 01_lstmcell over 8 time steps −{abs(decades):.1f} decades" in page.text
    assert "_target_" in page.text and "<details>" in (run_folder / "report.html").read_text()


def test_page_of_a_run_without_its_summary(run_folder: Path, tmp_path: Path) -> None:
    """What is known so far, and that it is so far."""
    for name in ("records.jsonl", "metrics.jsonl"):
        (tmp_path / name).write_bytes((run_folder / name).read_bytes())
    command([str(tmp_path)])
    page = read(tmp_path)
    assert "unfinished so far 12 steps; the run still goes on, or was killed" in page.text
    assert len(page.all("figure")) >= 4


def test_page_of_a_loop_of_ones_own(run_folder: Path, tmp_path: Path) -> None:
    """There is no command that makes it again, and no config; the script is named."""
    (tmp_path / "records.jsonl").write_bytes((run_folder / "records.jsonl").read_bytes())
    full = json.loads((run_folder / "summary.json").read_text())
    kept = ("status", "error", "diverged", "steps", "device", "versions", "timing", "recorded", "layers")
    own = {name: full[name] for name in kept} | {"metrics": {}, "network": "Net", "script": "train.py"}
    (tmp_path / "summary.json").write_text(json.dumps(own), encoding="utf-8")
    (tmp_path / ".hydra").mkdir()  # as dlexp.watch leaves it
    command([str(tmp_path)])
    page = read(tmp_path)
    assert "Net in a loop of your own" in page.text and "train.py" in page.words
    assert f"dlexp report {tmp_path}" in page.text and "dlexp model" not in page.text


def test_page_of_a_run_that_diverged(tmp_path: Path) -> None:
    """The reason stands above everything else, and what is not finite is called so in the table."""
    words = ["initializer=normal", "model.depth=4", "optimizer.lr=1000", "train.max_steps=20"]
    assert (
        dlexp.run([*words, f"hydra.run.dir={tmp_path / 'run'}"], quiet=True).summary["status"] == "diverged"
    )
    command([str(tmp_path / "run")])
    page = read(tmp_path / "run")
    assert "diverged: loss not finite at step" in page.text and "NaN" in page.words


def test_page_of_nothing(tmp_path: Path) -> None:
    """Neither a run that has recorded nothing nor a sweep with no job breaks it."""
    (tmp_path / "records.jsonl").write_text("")
    command([str(tmp_path)])
    assert "so far" in read(tmp_path).text
    declare(tmp_path / "sweep", ["seed=0,1"], ["seed"])
    command([str(tmp_path / "sweep")])
    assert "0 runs in 0 arms" in read(tmp_path / "sweep").text


def test_page_of_a_sweep(sweep_folder: Path) -> None:
    """The best arm marked and above the others, the pictures, what went wrong and why."""
    page = read(sweep_folder)
    sweep = dlexp.load_sweep(sweep_folder)
    best = sweep.arms.iloc[sweep.best]
    assert (best["activation"], best["model.depth"]) == ("tanh", 3)
    assert "★ best accuracy on validation:" in page.text
    assert "activation=tanh" in page.words and "model.depth=3" in page.words
    assert "10 runs in 5 arms" in page.text and "1 diverged" in page.text
    assert "loss not finite at step 4; 02_linear: its delta_rms is not finite" in page.text
    assert "dlexp -m activation=relu,tanh model.depth=2,3 seed=0,1" in page.text
    alts = [own["aria-label"] for own in pictures(page)]
    mean = sweep.runs.query("activation == 'relu' and status == 'finished'")["accuracy/validation"].mean()
    assert f"relu: {mean:.3g}" in alts[0]
    chips = [attrs["style"] for attrs in page.all("span") if attrs.get("class") == "chip"]
    for colour in ("0072b2", "d55e00"):
        assert f"background:var(--c{colour},#{colour})" in chips
    wrong, to_come = page.text.index("What went wrong"), page.text.index("What has not ended")
    assert wrong < page.text.index("loss not finite at step 4") < to_come
    assert to_come < page.text.index("no summary; still going on, or killed")
    assert "Careful" not in page.text  # both of its runs are there


def test_of_fifty_arms_it_is_small(tmp_path: Path) -> None:
    """Less than a megabyte and a half."""
    for n, seed in itertools.product(range(25), range(2)):
        for activation in ("relu", "tanh"):
            deltas = layers(*[10.0 ** (-i * n / 25) for i in range(20)])
            words = [f"activation={activation}", f"optimizer.lr={0.001 * (n + 1):.3f}", f"seed={seed}"]
            job(tmp_path, words, metrics=scores(n / 50), layers=deltas)
    command([str(tmp_path)])
    assert (tmp_path / "report.html").stat().st_size < 1_500_000
    assert "100 runs in 50 arms" in read(tmp_path).text


def test_json_of_a_run(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object and nothing else; nothing is written."""
    before = {path: path.stat().st_mtime_ns for path in run_folder.iterdir()}
    command([str(run_folder), "--json"])
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    summary = json.loads((run_folder / "summary.json").read_text())
    assert said["kind"] == "run" and said["status"] == "finished" and said["reason"] is None
    assert said["metrics"] == summary["metrics"] and said["steps"] == 12
    assert [layer["last"] for layer in said["layers"]] == [layer["last"] for layer in summary["layers"]]
    assert {path: path.stat().st_mtime_ns for path in run_folder.iterdir()} == before


def test_json_of_a_sweep(sweep_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers of its tables; none is NaN."""
    command(["--json", str(sweep_folder)])
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    sweep = dlexp.load_sweep(sweep_folder)
    assert said["kind"] == "sweep" and said["best"] == sweep.best and said["swept"] == sweep.swept
    for arm, row in zip(said["arms"], sweep.arms.to_dict("records"), strict=True):
        assert arm["asked"] == {"activation": row["activation"], "model.depth": row["model.depth"]}
        mean = arm["mean"]["accuracy/validation"]
        assert mean == row["accuracy/validation_mean"] or (
            mean is None and math.isnan(row["accuracy/validation_mean"])
        )
    assert [run["status"] for run in said["runs"]].count("diverged") == 1
    assert said["statuses"] == {"finished": 7, "diverged": 1, "failed": 1, "unfinished": 1}


def test_json_has_no_nan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even if a summary has."""
    job(tmp_path, ["seed=0"], metrics={"loss/validation": math.inf, "accuracy/validation": math.nan})
    command([str(tmp_path / "seed=0"), "--json"])
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert said["metrics"] == {"loss/validation": None, "accuracy/validation": None}


def test_open(run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In the browser, as a file; without one it is said."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(opened.append(url)))
    command([str(run_folder), "--open"])
    assert opened == [(run_folder / "report.html").as_uri()]
    assert "no browser to open it in; open" in capsys.readouterr().out


def themes() -> dict[str, dict[str, str]]:
    """Theme -> the colours of its variables."""
    blocks = [
        dict(re.findall(r"--([\w-]+):\s*(#\w{6});", block))
        for block in re.findall(r":root \{(.*?)\}", CSS, re.S)
    ]
    light, dark, printed = blocks
    return {"light": light, "dark": light | dark, "print": light | printed}


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_contrast(theme: str) -> None:
    """Every colour of words on every background: 4.5 and more."""
    colours = themes()[theme]
    inks = [name for name in colours if name.startswith("ink")]
    papers = [name for name in colours if name.startswith("paper")]
    assert len(inks) == 6 and len(papers) == 2
    for ink, paper in itertools.product(inks, papers):
        assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_no_other_colours() -> None:
    """Words are in an ink and backgrounds are a paper, so that the pairs above are all there are."""
    rules = CSS[CSS.index("* {") :]
    rules = re.sub(r":root \{.*?\}", "", rules, flags=re.S)
    pairs = re.findall(r"(?<![\w-])(color|background):\s*([^;]+);", rules)
    assert len(pairs) > 10
    for name, said in pairs:
        allowed = {
            "color": r"var\(--ink[\w-]*\)",
            "background": r"var\(--(paper[\w-]*|bar)\)",
        }
        assert re.fullmatch(allowed[name], said), (name, said)


def test_micro_batches_are_no_time(tmp_path: Path) -> None:
    """Layers that run twice in a step as gradients are accumulated: nothing reaches into a past."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    with dlexp.watch(model, tmp_path / "mine", every=1) as recorder:
        losses = [model(torch.ones(2, 3)).mean() for _ in range(2)]
        for loss in losses:
            loss.backward()
        recorder.step(losses[0])
    assert len(dlexp.load(recorder.folder).over_time) == 4
    command([str(recorder.folder)])
    assert "reach the past" not in (recorder.folder / "report.html").read_text()


def test_a_best_arm_that_lost_a_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the page and on the terminal; and of what no run recorded nothing is explained."""
    for lr, status in (("0.1", "finished"), ("0.2", "finished")):
        for seed in (0, 1):
            own = "diverged" if lr == "0.2" and seed else status
            words = [f"optimizer.lr={lr}", f"seed={seed}"]
            job(tmp_path, words, own, metrics=scores(float(lr)), layers=layers(1.0))
    command([str(tmp_path)])
    page = read(tmp_path)
    assert "optimizer.lr=0.2 . Careful: only 1 of its 2 runs came to an end." in page.text
    assert "careful: only 1 of its 2 runs came to an end" in capsys.readouterr().out
    assert "elta factor" not in page.text


def test_no_arm_is_best_where_none_ended(tmp_path: Path) -> None:
    for lr in ("0.1", "0.2"):
        job(tmp_path, [f"optimizer.lr={lr}"], "diverged", metrics={}, diverged=BAD)
    command([str(tmp_path)])
    assert "No run has come to its end, so no arm is the best." in read(tmp_path).text


def test_page_of_a_network_of_zeros(tmp_path: Path) -> None:
    """It says that there is no signal, in words and in a number."""
    words = ["initializer=zeros", "model.depth=3", "train.max_steps=4", f"hydra.run.dir={tmp_path / 'run'}"]
    dlexp.run(words, quiet=True)
    command([str(tmp_path / "run")])
    text = read(tmp_path / "run").text
    assert "No signal, from the start on: delta_rms is exactly 0 in all 3 hidden layers" in text
    assert "delta_rms, hidden layers 0" in text


def test_page_of_heads(tmp_path: Path) -> None:
    """All figures of depth end at the trunk."""
    words = ["task=multi_label", "model=multi_head", "model.depth=4", "train.max_steps=4"]
    run = dlexp.run([*words, f"hydra.run.dir={tmp_path / 'run'}"], quiet=True)
    command([str(tmp_path / "run")])
    text = read(tmp_path / "run").text
    deltas = [layer["last"]["delta_rms"] for layer in run.summary["layers"]]
    assert f"{compact(deltas[0] / deltas[3])} in all from 04_linear to 01_linear" in text
    assert f"delta factor, per layer ×{compact((deltas[0] / deltas[3]) ** (1 / 3))}" in text
    assert run.records.attrs["side_by_side"] == [f"{i:02d}_linear" for i in range(5, 15)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", "{"),
        ("summary.json", "[1, 2]"),
        ("summary.json", '{"status": "finished", "layers": [3], "metrics": {}}'),
        ("summary.json", '{"layers": []}'),
        ("records.jsonl", '{"layers": ["a"]}\n{"step": 0}\n'),
        ("records.jsonl", "nonsense\n{}\n"),
        ("metrics.jsonl", "3\n"),
    ],
)
def test_broken_files_are_told_in_a_line(name: str, content: str, tmp_path: Path) -> None:
    """Never a trace: what cannot be read, and where."""
    run_folder = tmp_path / "run"
    dlexp.run(["train.max_steps=2", f"hydra.run.dir={run_folder}"], quiet=True)
    (run_folder / name).write_text(content)
    with pytest.raises(UserError) as error:
        command([str(run_folder)])
    assert str(run_folder) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("summary", ['{"status": "failed", "error": "boom"}', '{"status": "interrupted"}'])
def test_page_of_a_run_that_never_began(summary: str, tmp_path: Path) -> None:
    """It failed before there was a layer: the reason is all there is."""
    (tmp_path / "summary.json").write_text(summary)
    command([str(tmp_path)])
    page = read(tmp_path)
    assert "before the first step" in page.text and not page.all("svg")
    assert "boom" in page.text or "interrupted" in page.text
    (tmp_path / "summary.json").unlink()
    (tmp_path / ".hydra").mkdir()
    with pytest.raises(UserError, match="the run has just begun, or was killed before its first step"):
        command([str(tmp_path)])


def test_a_page_that_cannot_be_made_is_named(
    sweep_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the end of a sweep, say: its table has been printed by then, and its tables are on the disk."""

    def fails(*_: object) -> Path:
        raise ValueError("no such glyph")

    monkeypatch.setattr("dlexp.report.page.write_sweep", fails)
    with pytest.raises(UserError, match=r"report\.html cannot be made: ValueError: no such glyph"):
        finish(sweep_folder, Console(width=200))
    assert "tanh" in capsys.readouterr().out


def test_the_page_says_what_went_wrong_and_what_to_try(tmp_path: Path) -> None:
    """The sentence above all numbers, the evidence, whole commands, and the layers on red in the figure."""
    words = ["model.depth=8", "activation=sigmoid", "initializer=xavier_normal", "train.epochs=8"]
    run = dlexp.run([*words, f"outputs={tmp_path}"], quiet=True)
    command([str(run.folder)])
    text = (run.folder / "report.html").read_text(encoding="utf-8")
    found = run.summary["diagnosis"]
    assert found["primary"] == "vanishing"
    assert text.index(found["sentence"].replace("'", "&#39;")) < text.index('class="numbers"')
    assert f"dlexp model.depth=8 train.epochs=8 outputs={tmp_path} {' '.join(found['override'])}" in text
    assert all(one["sentence"].replace("'", "&#39;") in text for one in found["folded"])
    assert "The diagnosis names the layers on red." in text
    with_diagnosis = facts.of_run(run.folder)["diagnosis"]
    summary = json.loads((run.folder / "summary.json").read_text())
    del summary["diagnosis"]  # an older run
    (run.folder / "summary.json").write_text(json.dumps(summary))
    assert facts.of_run(run.folder)["diagnosis"] == with_diagnosis == found
