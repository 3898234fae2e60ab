"""An experiment from its page to its verdicts: what is run once is not run again."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import shell
import torch
from rich.console import Console

from dlexp import folder as folders
from dlexp.errors import UserError
from dlexp.lab import jobs
from dlexp.lab.command import experiment_of, run, show
from dlexp.lab.experiment import CANNOT, Experiment, Result, asked
from dlexp.lab.runs import Runs
from dlexp.lab.verdict import at_least

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "experiments" / "vanishing_depth.py"
SMALL = ["activation=sigmoid,relu", "initializer=kaiming_normal", "model.depth=2,6", "seeds=3"]

MEASURING = '''"""Is twice as much twice as much?

Theory."""
from dlexp.lab import Experiment, Runs, Verdict, identity

lab = Experiment(__file__, __doc__, quick="seeds=1")
FACTOR = 2


def helper(x):
    return FACTOR * x


@lab.measure(size=[1, 2], seeds=2)
def twice(seed: int, size: int) -> dict[str, float]:
    with open(__file__ + ".log", "a") as file:
        file.write(f"{size},{seed} ")
    return {"off": helper(size) - 2 * size}


@lab.claim("0:1", "Twice is twice.", measures="how far it is off", criterion="0")
def is_twice(runs: Runs) -> Verdict:
    return identity(runs.part("twice").of("size=1").values("off"), 0.0)
'''


def of(experiment: Experiment, words: list[str], **options: Any) -> Result:
    (result,) = run([experiment], words, Console(quiet=True), **options)
    return result


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A small vanishing_depth without its training."""
    experiment = experiment_of(PAGE)
    small = Experiment(str(PAGE), experiment.question, sweeps=["vanishing_depth"])
    small.claims = experiment.claims
    return of(small, [*SMALL, f"outputs={tmp_path_factory.mktemp('lab')}"])


def word(result: Result, name: str, runs: Runs | None = None) -> str:
    claims = {claim.name: claim for claim in result.experiment.claims}
    return claims[name].judge(result.runs if runs is None else runs).word


def test_a_second_judging_runs_nothing(result: Result) -> None:
    """Neither the runs that are there nor, with one seed more, any but the new ones."""
    assert result.done == len(result.runs) == 12 and result.lost == ""
    words = [*SMALL, f"outputs={result.outputs}"]
    before = {task.path: (task.path / folders.SUMMARY).stat().st_mtime_ns for task in tasks(result)}
    assert of(result.experiment, words).done == 0
    more = of(result.experiment, [*words[:3], "seeds=4", words[4]])
    assert (more.done, len(more.runs)) == (4, 16)
    assert {path: (path / folders.SUMMARY).stat().st_mtime_ns for path in before} == before


def tasks(result: Result) -> list[jobs.Task]:
    words, outputs = asked([*SMALL, f"outputs={result.outputs}"])
    return result.experiment.tasks(words, outputs)


def test_other_choices_have_another_place(result: Result) -> None:
    """What changes the configuration; not what leaves it as it is."""
    places = {
        word: {task.path for task in result.experiment.tasks([*asked(SMALL)[0], word], result.outputs)}
        for word in ("model.width=64", "model.width=32", "data=mnist", "train.epochs=7")
    }
    assert places.pop("model.width=64") == {task.path for task in tasks(result)}
    assert len(set.union(*places.values())) == 3 * 12


def test_swapping_two_arms_changes_the_verdict(result: Result) -> None:
    """The verdicts come from the runs: with ReLU's taken for the sigmoid's it is the other way round."""
    other = {"relu": "sigmoid", "sigmoid": "relu"}
    swapped = Runs(
        [
            replace(run, words={**run.words, "activation": other[run.words["activation"]]})
            for run in result.runs
        ]
    )
    assert word(result, "sigmoid-vanishes") == "supported" and word(result, "relu-vanishes") == "refuted"
    assert word(result, "sigmoid-vanishes", swapped) == "refuted"
    assert word(result, "relu-vanishes", swapped) == "supported"
    assert word(result, "relu-solves") == word(result, "relu-alleviates") == "supported"
    assert word(result, "relu-solves", swapped) == "refuted"
    assert word(result, "relu-alleviates", swapped) == "inconclusive"  # where nothing vanishes


def test_runs_that_are_missing_decide_nothing(result: Result) -> None:
    """A claim whose runs are not there is inconclusive, and judging does not fail."""
    verdicts = dict(result.verdicts)
    found = {claim.name: verdict.word for claim, verdict in verdicts.items()}
    assert found["shallow-is-fine"] == found["learning-stops"] == "inconclusive"
    assert {verdict.word for _, verdict in result.experiment.judge(Runs([]))} == {"inconclusive"}


def test_a_killed_experiment_goes_on(tmp_path: Path) -> None:
    """What was there is kept; the run that was killed goes on in its folder."""
    words = ["seeds=2", "activation=sigmoid", "model.depth=2", "train.epochs=8"]
    process = shell.fork(as_a_program, *words, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while len(ended(tmp_path)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    before = ended(tmp_path)
    again = shell.fork(as_a_program, *words, cwd=tmp_path)
    printed, _ = again.communicate(timeout=120)
    assert again.returncode == 0
    assert 3 <= len(before) < len(ended(tmp_path))
    assert {path: time for path, time in ended(tmp_path).items() if path in before} == before
    assert f"runs        22, of which {22 - len(before)} are still to be done" in printed


@pytest.mark.integration
def test_ctrl_c_ends_all_processes(tmp_path: Path) -> None:
    """Of hundreds of runs those that are under way stop, and no other is begun."""
    command = [sys.executable, str(PAGE), "--jobs", "2", f"outputs={tmp_path / 'outputs'}"]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not ended(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=20)
    assert process.returncode == 130
    assert 0 < len(ended(tmp_path)) < 100


def as_a_program(*words: str) -> None:
    """What `python experiments/vanishing_depth.py` does, in a process that has loaded PyTorch already."""
    sys.argv = [str(PAGE), *words]
    runpy.run_path(str(PAGE), run_name="__main__")


def ended(folder: Path) -> dict[Path, int]:
    paths = folder.glob(f"outputs/lab/runs/*/*/{folders.SUMMARY}")
    return {path: path.stat().st_mtime_ns for path in paths if folders.ended(path.parent)}


def measuring(folder: Path, text: str = MEASURING) -> Experiment:
    page = folder / "twice.py"
    page.write_text(text)
    sys.modules.pop("experiments.twice", None)
    return experiment_of(page.resolve())


def calls(folder: Path) -> list[str]:
    return (folder / "twice.py.log").read_text().split()


def test_what_was_measured_is_kept_until_its_source_changes(tmp_path: Path) -> None:
    """Source means that of the function and of whatever it uses; a docstring elsewhere is not that."""
    outputs = f"outputs={tmp_path}"
    first = of(measuring(tmp_path), [outputs])
    assert first.verdicts[0][1].word == "supported" and calls(tmp_path) == ["1,0", "1,1", "2,0", "2,1"]
    of(measuring(tmp_path, MEASURING.replace("Theory.", "More theory.")), [outputs])
    of(measuring(tmp_path), [outputs, "size=2"])
    assert len(calls(tmp_path)) == 4
    of(measuring(tmp_path), [outputs, "model.size=3"])
    assert calls(tmp_path)[4:] == ["3,0", "3,1"]
    changed = of(measuring(tmp_path, MEASURING.replace("FACTOR = 2", "FACTOR = 3")), [outputs])
    assert len(calls(tmp_path)) == 10 and changed.verdicts[0][1].word == "refuted"
    assert "up to 1 off" in changed.verdicts[0][1].measured


def test_what_is_measured_has_one_thread_and_leaves_them_as_they_were(tmp_path: Path) -> None:
    """So a number is the same in whatever process, and a function may change it for itself."""
    body = "import torch\n    was = torch.get_num_threads()\n    torch.set_num_threads(3)\n    return"
    content = MEASURING.replace('return {"off"', f'{body} {{"threads": was, "off"')
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        result = of(measuring(tmp_path, content), [f"outputs={tmp_path}"])
        assert [run.number("threads") for run in result.runs] == [1, 1, 1, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_runs_of_another_state_of_the_code_are_told(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of sweeps and of measuring functions; they are kept all the same."""
    outputs = f"outputs={tmp_path}"
    measured = of(measuring(tmp_path), [outputs])
    assert (measured.outdated, measured.done, result.outdated) == (0, 4, 0)
    monkeypatch.setattr("dlexp.lab.experiment.CODE", "changed")
    again = of(measuring(tmp_path), [outputs])
    assert (again.outdated, again.done, result.outdated) == (4, 0, 12)
    show(again, Console(width=200))
    assert "4 runs were made before dlexp's code changed" in capsys.readouterr().out


def test_what_was_measured_is_found_again_whoever_runs_the_page(tmp_path: Path) -> None:
    """As a script it bears another name, which a class in it knows."""
    content = MEASURING.replace("def helper(x):", "class Times:\n    by = FACTOR\n\n\ndef helper(x):")
    content = content.replace("FACTOR * x", "Times.by * x")
    (tmp_path / "twice.py").write_text(f"{content}\n\nlab.main()\n")
    command = [sys.executable, "twice.py", f"outputs={tmp_path}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert of(measuring(tmp_path, content), [f"outputs={tmp_path}"]).done == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["widht=3"], r"^widht=3: twice has no setting widht; allowed: seeds, size, outputs$"),
        (["seeds=0"], r"^seeds=0: allowed: a whole number, 1 or more$"),
        (["seeds"], r"^seeds: not understood; write key=value, for example seeds=10$"),
    ],
)
def test_a_wrong_word_is_told(words: list[str], line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line):
        of(measuring(tmp_path), [*words, f"outputs={tmp_path}"])


def test_of_names_a_measuring_function_is_given_those_it_knows(tmp_path: Path) -> None:
    """Beside a sweep, that is; an experiment that only measures refuses others."""
    tasks = experiment_of(PAGE).tasks(["activation=abs,relu", "seed=0"], tmp_path)
    assert {task.read().words["activation"] for task in tasks if task.page} == {"relu"}
    assert {task.read().words["activation"] for task in tasks if not task.page} == {"abs", "relu"}
    named = measuring(tmp_path, MEASURING.replace("size=[1, 2]", 'size=["1", "2"]'))
    with pytest.raises(UserError, match=r"^size=3: twice measures 1, 2$"):
        named.tasks(["size=3"], tmp_path)


def test_a_wrong_word_for_a_sweep_is_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^model\.width=-3: allowed: "):
        of(experiment_of(PAGE), ["model.width=-3", f"outputs={tmp_path}"])
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("jobs_at_once", [1, pytest.param(2, marks=pytest.mark.integration)])
def test_what_fails_every_run_is_told_after_the_first(tmp_path: Path, jobs_at_once: int) -> None:
    """No hundreds of runs that fail alike; what has failed is run again next time."""
    small = Experiment(str(PAGE), "", sweeps=["vanishing_depth"])
    words = [*SMALL, f"outputs={tmp_path}", "data=mnist", f"data.root={tmp_path / 'none'}"]
    reason = r"^the first run of vanishing_depth failed: data\.root=.*: "
    with pytest.raises(UserError, match=reason):
        of(small, words, jobs_at_once=jobs_at_once)
    begun = list((tmp_path / "lab" / "runs").glob("*/*/summary.json"))
    assert 1 <= len(begun) < 12
    with pytest.raises(UserError, match=reason):
        of(small, words)


def test_several_values_where_a_claim_means_one_are_told(tmp_path: Path) -> None:
    """The claim is open, and the others are judged all the same."""
    one = measuring(tmp_path)
    several = lambda runs: at_least(runs.part("twice").values("off"), 0.0)  # noqa: E731
    nothing = lambda runs: at_least({0: runs.of("size=9")[0].number("off")}, 0.0)  # noqa: E731
    for judge in (several, nothing):
        one.claim("0:2", "Any.", measures="m", criterion="c")(judge)
    result = of(one, [f"outputs={tmp_path}"])
    (_, kept), (_, many), (_, none) = result.verdicts
    assert kept.word == "supported" and many.word == none.word == "inconclusive"
    assert many.measured == f"{CANNOT}: 2 arms that differ in size, where one is meant"
    assert none.measured.startswith(f"{CANNOT}: some are not there")


def test_two_commands_share_what_they_make(tmp_path: Path) -> None:
    """What one is at work on the other waits for; each run is made once, and both judge all of them."""
    words = [*SMALL, "train.max_steps=60", f"outputs={tmp_path}"]
    other = shell.fork(as_a_program, *words, cwd=tmp_path)
    small = Experiment(str(PAGE), "", sweeps=["vanishing_depth"])
    result = of(small, words)
    other.communicate(timeout=120)
    assert other.returncode == 0 and {run.job.status for run in result.runs} == {"finished"}


def test_a_place_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'5:1' is no place in the notes; write 3:337"):
        Experiment("x.py", "").claim("0:20 5:1", "", measures="", criterion="")


@pytest.mark.integration
def test_several_processes_do_the_same(result: Result, tmp_path: Path) -> None:
    """Bit by bit the same numbers."""
    words = [*SMALL, "model.depth=2", f"outputs={tmp_path}"]
    found = of(result.experiment, words, jobs_at_once=2)
    kept = result.runs.of("model.depth=2")
    assert [run.profile("delta_rms") for run in found.runs] == [run.profile("delta_rms") for run in kept]
