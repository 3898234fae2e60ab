"""Every page of the notebook runs, judges its claims, and has all that the notes say of its subject."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from dlexp.compose import CONFIGS
from dlexp.lab.command import experiment_of, run
from dlexp.lab.experiment import CANNOT
from dlexp.lab.verdict import WORDS
from dlexp.plots.style import drawn
from dlexp.report.choices import experiments

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in (ROOT / "experiments").glob("*.py") if path.stem[0] != "_")
# What a list of all claims of the notes sends to each experiment; 3:337a is the first claim of line 337.
PLACES: dict[str, list[str]] = json.loads((Path(__file__).parent / "places.json").read_text())
QUESTIONS = cache(lambda: experiments(ROOT / "experiments"))
EVERY = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def test_there_are_pages() -> None:
    assert "vanishing_depth" in [page.stem for page in PAGES]


@EVERY
def test_every_claim_gets_a_verdict(page: Path, tmp_path: Path) -> None:
    """Also of a small version; one seed decides little, so the words may be any, but with numbers."""
    experiment = experiment_of(page)
    (result,) = run([experiment], [f"outputs={tmp_path}"], Console(quiet=True), quick=True)
    assert len(result.verdicts) == len(experiment.claims) > 0
    assert {verdict.word for _, verdict in result.verdicts} <= set(WORDS)
    assert all(verdict.measured for _, verdict in result.verdicts)
    assert not [verdict.measured for _, verdict in result.verdicts if CANNOT in verdict.measured]
    assert not result.failed, result.failed
    assert experiment.draw is not None and experiment.caption
    figure = drawn(experiment.draw)(result.runs)
    assert any(axes.has_data() for axes in figure.axes)


@EVERY
def test_every_claim_of_the_notes_is_there(page: Path) -> None:
    """None is left out, and no place is made up."""
    experiment = experiment_of(page)
    stated = {place for claim in experiment.claims for place in claim.places}
    assert stated == set(PLACES[page.stem])


@EVERY
def test_a_page_opens_with_a_question_and_theory(page: Path) -> None:
    """Its sweeps open with the same question, or say whose part they are."""
    experiment = experiment_of(page)
    assert experiment.question.endswith("?") and experiment.theory
    assert QUESTIONS()[page.stem] == experiment.question
    for sweep in experiment.sweeps:
        lines = (CONFIGS / "experiment" / f"{sweep}.yaml").read_text(encoding="utf-8").splitlines()
        said = experiment.question if sweep == experiment.slug else f"Part of {experiment.slug}: "
        assert lines[0] == "# @package _global_" and lines[1].startswith(f"# {said}"), sweep


@EVERY
def test_claims_say_what_is_measured_and_asked(page: Path) -> None:
    claims = experiment_of(page).claims
    assert all(claim.says.endswith(".") and claim.measures and claim.criterion for claim in claims)
    assert len({claim.name for claim in claims}) == len(claims)


def test_every_sweep_of_an_experiment_belongs_to_a_page() -> None:
    used = {sweep for page in PAGES for sweep in experiment_of(page).sweeps}
    assert {path.stem for path in (CONFIGS / "experiment").glob("*.yaml")} == used | {"none"}
    for sweep in used:
        content = yaml.safe_load((CONFIGS / "experiment" / f"{sweep}.yaml").read_text(encoding="utf-8"))
        assert "seed" in content["hydra"]["sweeper"]["params"], sweep


def test_places_look_like_places() -> None:
    every = [place for places in PLACES.values() for place in places]
    assert [place for place in every if not re.fullmatch(r"[0-4]:\d[\d,a-d-]*", place)] == []


def test_the_table_of_results_is_that_of_the_pages() -> None:
    """RESULTS.md has a row for each claim of each page."""
    text = (ROOT / "experiments" / "RESULTS.md").read_text(encoding="utf-8")
    assert "| where in the notes | claim | experiment | verdict | measured |" in text
    for page in PAGES:
        for claim in experiment_of(page).claims:
            assert f"| {' '.join(claim.places)} | {claim.says} | [{page.stem}]({page.stem}.py) |" in text
