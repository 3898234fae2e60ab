"""dlexp doctor: what a run suffers from, and whether what is suggested cures it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import shell
import torch
from torch import nn

import dlexp
from dlexp.diagnose import Diagnosis
from dlexp.diagnose.cure import improvements
from dlexp.doctor import MOST_TRIES, Case, attempts

VANISHES = ["model.depth=8", "activation=sigmoid", "initializer=xavier_normal", "train.epochs=8"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that vanishes, as somebody made it."""
    place = tmp_path_factory.mktemp("doctor")
    made = shell.run(*VANISHES, "name=sick", cwd=place)
    assert made.returncode == 0, made.stderr
    return place


def sick(place: Path) -> str:
    (folder,) = place.glob("outputs/sick/*")
    return str(folder.relative_to(place))


def test_after_a_run_one_line_says_what_happened_and_another_how_to_check_it(tmp_path: Path) -> None:
    out = shell.run(*VANISHES, cwd=tmp_path).stdout
    (line,) = [line for line in out.splitlines() if line.startswith("diagnosis")]
    assert "Vanishing gradient" in line and "Try: activation=relu initializer=kaiming_normal" in line
    (folder,) = tmp_path.glob("outputs/*/*")
    assert f"dlexp doctor {folder.relative_to(tmp_path)} --fix" in out
    found = json.loads((folder / "summary.json").read_text())["diagnosis"]
    assert found["primary"] == "vanishing" and found["override"][0] == "activation=relu"
    assert shell.run("train.epochs=10", cwd=tmp_path).stdout.count("No fault found") == 1


def test_the_doctor_shows_evidence_and_whole_commands(place: Path) -> None:
    result = shell.run("doctor", sick(place), cwd=place)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Vanishing gradient")
    assert any(line.startswith("evidence") and "from the start on" in line for line in lines)
    (tried,) = [line for line in lines if line.startswith("try ")]
    words = "model.depth=8 train.epochs=8 name=sick activation=relu initializer=kaiming_normal"
    assert tried.split(maxsplit=1)[1] == f"dlexp {words}"
    assert shell.run("doctor", "latest", cwd=place).stdout == result.stdout


def test_as_json(place: Path) -> None:
    found = json.loads(shell.run("doctor", "--json", sick(place), cwd=place).stdout)
    assert found["primary"] == "vanishing" and found["severity"] == "critical"
    assert found["evidence"]["factor"] == pytest.approx(0.24, rel=0.1)
    assert found == json.loads((place / sick(place) / "summary.json").read_text())["diagnosis"]


def test_a_fix_is_run_and_judged(place: Path) -> None:
    """The same seed, in a folder of its own; the sick run stays as it was."""
    folder = place / sick(place)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = shell.run("doctor", sick(place), "--fix", cwd=place)
    assert result.returncode == 0, result.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (fixed,) = [line for line in result.stdout.splitlines() if line.startswith("fixed")]
    assert "vanishing is gone" in fixed and "activation=relu initializer=kaiming_normal" in fixed
    (other,) = [path for path in place.glob("outputs/sick/*") if path != folder]
    summary = json.loads((other / "summary.json").read_text())
    assert summary["seed"] == 0 and summary["metrics"]["accuracy/test"] > 0.8
    old = json.loads((folder / "summary.json").read_text())["metrics"]
    assert (
        f"{old['loss/validation']:.3g}"[:3] in fixed
        and f"{summary['metrics']['loss/validation']:.2g}"[:3] in fixed
    )
    assert "before" in result.stdout and "try 1" in result.stdout
    import shutil

    shutil.rmtree(other)


def test_a_copy_without_hidden_files_has_its_words(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / sick(place), tmp_path / "copy", ignore=shutil.ignore_patterns(".*"))
    assert (
        "dlexp model.depth=8 train.epochs=8 name=sick activation=relu"
        in shell.run("doctor", "copy", cwd=tmp_path).stdout
    )


def test_where_nothing_helps_the_doctor_says_so_and_fails(tmp_path: Path) -> None:
    """Labels that mean nothing: no words can mend that."""
    words = ["data=digits_mislabelled", "data.label_noise=1.0", "train.epochs=12", "optimizer.lr=1e-6"]
    assert shell.run(*words, cwd=tmp_path).returncode == 0
    result = shell.run("doctor", "latest", "--fix", cwd=tmp_path)
    assert result.returncode == 1 and result.stdout.splitlines()[-1].startswith("not fixed")


def test_a_sweep_has_a_label_for_each_arm(tmp_path: Path) -> None:
    words = ["model.depth=8", "initializer=xavier_normal", "train.epochs=8"]
    made = shell.run("-m", *words, "activation=sigmoid,tanh", "seed=0,1", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    (folder,) = tmp_path.glob("outputs/sweep/*")
    out = shell.run("doctor", str(folder), cwd=tmp_path).stdout
    sigmoid, tanh = (
        next(line for line in out.splitlines() if line.startswith(w)) for w in ("sigmoid", "tanh")
    )
    assert "2 vanishing" in sigmoid and "2 healthy" in tanh
    found = json.loads(shell.run("doctor", str(folder), "--json", cwd=tmp_path).stdout)
    assert sorted(run["primary"] for run in found["runs"]) == ["healthy"] * 2 + ["vanishing"] * 2
    refused = shell.run("doctor", str(folder), "--fix", cwd=tmp_path)
    assert refused.returncode == 2 and "a sweep; allowed: one of its runs" in refused.stderr
    assert "activation=sigmoid" in refused.stderr  # one that can be mended


def test_a_loop_of_ones_own_is_diagnosed_but_not_run(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(8) for layer in (nn.Linear(16, 16), nn.Sigmoid())]
    model = nn.Sequential(*layers, nn.Linear(16, 3))
    for layer in model[::2]:
        nn.init.xavier_normal_(layer.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(64, 16), torch.randint(3, (64,))
    with dlexp.watch(model, tmp_path / "mine", 5) as recorder:
        for _ in range(60):
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss)
            optimizer.step()
    found = dlexp.load(recorder.folder).summary["diagnosis"]
    assert found["primary"] == "vanishing" and found["override"] == []
    shown = shell.run("doctor", str(recorder.folder), cwd=tmp_path)
    assert shown.stdout.startswith("Vanishing gradient") and "Try" not in shown.stdout
    refused = shell.run("doctor", str(recorder.folder), "--fix", cwd=tmp_path)
    assert refused.returncode == 2 and "a loop of your own" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "doctor: name the folder of a run or of a sweep"),
        (["nowhere"], "doctor nowhere: no such folder"),
        (["a", "b"], "doctor a b: one folder at a time"),
        (["a", "--mend"], "doctor a --mend: no option --mend; allowed: --fix, --json"),
        (["a", "--fix", "--json"], "--json trains nothing; leave one of them out"),
        (["latest"], "doctor latest: nothing in outputs; allowed: a folder"),
    ],
)
def test_wrong_use_is_told_in_one_line(words: Sequence[str], said: str, tmp_path: Path) -> None:
    result = shell.run("doctor", *words, cwd=tmp_path)
    assert result.returncode == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert said in line


def diagnosis(primary: str, override: Sequence[str] = (), **more: Any) -> Diagnosis:
    return Diagnosis(primary, "critical", primary, override=[*override], **more)


def case(loss: float | None, found: Diagnosis, *words: str, accuracy: float = 0.5) -> Case:
    metrics = {} if loss is None else {"loss/validation": loss, "accuracy/validation": accuracy}
    status = "diverged" if loss is None else "finished"
    return Case(Path("run"), words, {"status": status, "metrics": metrics}, found)


def made(*after: Case) -> Callable[[Sequence[str]], Case | None]:
    """Runs by their words."""
    return lambda words: next(one for one in after if one.words == tuple(words))


def test_fixes_are_chained_and_what_did_not_help_is_taken_back() -> None:
    """The second suggestion for the first run comes when the first one left what was found; then its own."""
    first = case(2.3, diagnosis("saturated", ["a=1"], further=[["b=1"]]), "seed=3")
    after = [
        case(2.3, diagnosis("saturated", ["c=1"]), "seed=3", "a=1"),
        case(2.3, diagnosis("vanishing", ["d=1", "b=2"]), "seed=3", "b=1"),
        case(0.1, diagnosis("healthy"), "seed=3", "d=1", "b=2", accuracy=0.9),
    ]
    tried = attempts(first, made(*after))
    assert [one.words for one in tried] == [one.words for one in after] and len(tried) == MOST_TRIES


def test_where_the_symptom_is_gone_but_the_loss_is_worse_the_next_suggestion_comes() -> None:
    """Also where nothing can be told of the new run, and where the words cannot be used."""
    first = case(1.0, diagnosis("saturated", ["a=1"], further=[["b=1"], ["c=1"], ["d=1"]]))
    after = [
        case(2.5, diagnosis("vanishing", ["x=1"]), "a=1"),
        case(1.0, diagnosis("cannot_tell"), "b=1"),
        case(0.1, diagnosis("healthy"), "d=1", accuracy=0.9),
    ]
    tried = attempts(first, lambda words: None if "c=1" in words else made(*after)(words))
    assert [one.words for one in tried] == [("a=1",), ("b=1",), ("d=1",)]


def test_a_fix_ends_it() -> None:
    first = case(2.3, diagnosis("vanishing", ["a=1"], further=[["b=1"]]))
    tried = attempts(first, made(case(0.1, diagnosis("healthy"), "a=1", accuracy=0.9)))
    assert len(tried) == 1


def test_no_more_than_three_are_tried() -> None:
    endless = diagnosis("not_learning", ["a=1"], further=[["b=1"], ["c=1"], ["d=1"]])
    assert len(attempts(case(1.0, endless), lambda words: case(1.0, endless, *words))) == MOST_TRIES


@pytest.mark.parametrize(
    ("after", "wanted"),
    [
        (case(1.0, diagnosis("healthy"), accuracy=0.9), [True, True, True]),
        (case(2.29, diagnosis("healthy"), accuracy=0.9), [False, True, True]),  # by less than 2 %
        (case(1.0, diagnosis("healthy"), accuracy=0.51), [True, False, True]),
        (case(1.0, diagnosis("vanishing", confidence=1.9), accuracy=0.9), [True, True, False]),
        (case(1.0, diagnosis("vanishing", confidence=0.9), accuracy=0.9), [True, True, True]),  # half as bad
        (case(1.0, diagnosis("frozen_layer", folded=[{"id": "vanishing"}])), [True, False, False]),
        (case(None, diagnosis("non_finite")), [False, False, True]),
        (case(1.0, diagnosis("cannot_tell"), accuracy=0.9), [True, True, False]),
    ],
)
def test_a_fix_counts_if_loss_metric_and_symptom_improve(after: Case, wanted: list[bool]) -> None:
    before = case(2.3, diagnosis("vanishing", confidence=2.0))
    found = improvements(before.summary, after.summary, before.diagnosis, after.diagnosis, "accuracy")
    assert list(found) == ["loss/validation", "accuracy/validation", "vanishing"]
    assert list(found.values()) == wanted


@pytest.mark.parametrize(
    ("loss", "chance", "wanted"), [(1.0, 2.3, True), (2.29, 2.3, False), (2.29, None, True)]
)
def test_after_a_run_that_diverged_any_loss_is_better_than_guessing(
    loss: float, chance: float | None, wanted: bool
) -> None:
    """A number is better than none; but a network that guesses is not mended."""
    before, after = case(None, diagnosis("non_finite")), case(loss, diagnosis("healthy"))
    summary = {**after.summary, "facts": {"chance_loss": chance}}
    found = improvements(before.summary, summary, before.diagnosis, after.diagnosis, "accuracy")
    assert [*found.values()] == [wanted, wanted, True]


def test_of_a_run_that_overfits_the_metric_has_only_not_to_be_worse() -> None:
    """Stopping earlier cures the loss on validation; the answers were right before."""
    before, after = case(0.9, diagnosis("overfit")), case(0.4, diagnosis("healthy"))
    found = improvements(before.summary, after.summary, before.diagnosis, after.diagnosis, "accuracy")
    assert all(found.values())
    worse = case(0.4, diagnosis("healthy"), accuracy=0.4)
    again = improvements(before.summary, worse.summary, before.diagnosis, worse.diagnosis, "accuracy")
    assert [*again.values()] == [True, False, True]
