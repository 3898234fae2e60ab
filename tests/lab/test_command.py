"""What the terminal says of experiments."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from dlexp.lab import Runs, Verdict
from dlexp.lab.command import count, show
from dlexp.lab.experiment import Experiment, Result

LONG = "by activation: " + ", ".join(f"supported at arm_{i} (0.5 ± 0.01)" for i in range(60))


@pytest.fixture
def result(tmp_path: Path) -> Result:
    lab = Experiment(str(tmp_path / "made_up.py"), "Is it so?")
    for name, verdict in {
        "short": Verdict("supported", "0.1 (5 seeds)", 5),
        "long": Verdict("depends", LONG, 3),
        "third": Verdict("supported", "2"),
    }.items():

        def judge(runs: Runs, verdict: Verdict = verdict) -> Verdict:
            return verdict

        judge.__name__ = name
        lab.claim("1:2 3:4", f"The {name} claim.", measures=f"how {name}", criterion="c")(judge)
    return Result(lab, (), tmp_path, Runs([]), lab.judge(Runs([])), 2, 0.5)


def said(width: int, result: Result, *, many: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    count([result, result], console) if many else show(result, console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 160])
def test_an_experiment_fits_the_terminal(width: int, result: Result) -> None:
    """A claim and its places, what is measured before the numbers, of many the first; then counts."""
    lines = said(width, result)
    assert max(map(len, lines)) <= min(width, 113) and len(lines) < 20
    text = " ".join(" ".join(lines).split())
    assert "supported The short claim. (1:2, 3:4) how short: 0.1 (5 seeds) depends The long claim." in text
    assert "arm_0 (0.5 ± 0.01)" in text and " ... supported The third claim." in text
    assert "arm_59" not in text
    assert lines[-2:] == ["claims      2 supported, 1 depends", "runs        0, 2 of them new, 0.5 s"]


def test_many_experiments_are_counted(result: Result) -> None:
    """A line each, and one for all."""
    lines = [line.split() for line in said(80, result, many=True)]
    assert lines == [
        ["experiment", "supported", "refuted", "depends", "inconclusive", "runs"],
        ["made_up", "2", "1", "0"],
        ["made_up", "2", "1", "0"],
        ["all", "4", "0", "2", "0", "0"],
    ]
