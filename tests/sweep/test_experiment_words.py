"""`dlexp -m experiment=...`: the runs of an experiment, without its claims."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shell import run

import dlexp
from dlexp.errors import UserError
from dlexp.lab.command import experiment_of


def test_arms_that_make_no_grid_are_swept(tmp_path: Path) -> None:
    """Each value of `arm` is several words; the table has a row for each, and the config what they say."""
    words = ["experiment=symmetry_breaking_remedies", "train.max_steps=1", "record=off"]
    answer = run("-m", *words, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    (folder,) = (tmp_path / "outputs" / "sweep").iterdir()
    sweep = dlexp.load_sweep(folder)
    assert len(sweep.jobs) == 21 and len(sweep.rows) == 7 and sweep.keys == ["arm"]
    for job in sweep.jobs:
        asked = dict(word.split("=") for word in str(job.words["arm"]).split())
        assert {key: job.summary["choices"].get(key, value) for key, value in asked.items()} == asked
        val = job.summary["config"]["initializer"].get("val")
        assert val == (0.05 if asked["initializer"] == "constant" else None)
    again = run("-m", "resume=latest", cwd=tmp_path)
    assert again.returncode == 0 and "kept        21 jobs" in again.stdout


def test_what_is_typed_stands_in_the_place_of_what_is_swept(tmp_path: Path) -> None:
    """One value or several, of an experiment or of a ready-made grid; also when the sweep is gone on with."""
    words = ["experiment=vanishing_depth", "seed=0", "initializer=xavier_normal", "model.depth=2,3"]
    answer = run("-m", *words, "activation=relu", "record=off", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    (folder,) = (tmp_path / "outputs" / "sweep").iterdir()
    jobs = dlexp.load_sweep(folder).jobs
    assert [job.name for job in jobs] == ["model.depth=2", "model.depth=3"]
    assert {(job.asked("seed"), job.asked("activation"), job.asked("train.max_steps")) for job in jobs} == {
        ("0", "relu", "1")
    }
    again = run("-m", "resume=latest", cwd=tmp_path)
    assert again.returncode == 0 and "kept        2 jobs" in again.stdout


def test_a_word_that_is_forced_is_typed_as_well(tmp_path: Path) -> None:
    """++key=value stands in the place of what is swept, too, and a ready-made grid is no other."""
    words = ["sweep=grid", "++optimizer.lr=0.02", "train.batch_size=16,64", "train.max_steps=1", "record=off"]
    answer = run("-m", *words, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    (folder,) = (tmp_path / "outputs" / "sweep").iterdir()
    configs = [job.summary["config"] for job in dlexp.load_sweep(folder).jobs]
    assert [(c["optimizer"]["lr"], c["train"]["batch_size"]) for c in configs] == [(0.02, 16), (0.02, 64)]


def test_what_arms_set_themselves_is_not_typed_beside_them(tmp_path: Path) -> None:
    """It would be theirs in one order of words and not in another; by the page of the experiment, too."""
    line = "initializer=zeros: the arms set initializer themselves; arm='...' stands in their place"
    answer = run("-m", "experiment=residual_depth", "initializer=zeros", cwd=tmp_path)
    assert (answer.returncode, answer.stdout, answer.stderr) == (2, "", f"dlexp: {line}\n")
    page = Path(__file__).parents[2] / "experiments" / "residual_depth.py"
    with pytest.raises(UserError, match=line):
        experiment_of(page).tasks(["initializer=zeros"], tmp_path)
    own = ["arm='model=mlp initializer=zeros'", "seed=0", "model.depth=2"]
    assert experiment_of(page).tasks(own, tmp_path)


def test_an_arm_is_for_a_single_run_as_well(tmp_path: Path) -> None:
    found = dlexp.run(
        ["arm='activation=tanh model.depth=1'", "train.max_steps=1", f"outputs={tmp_path}"], quiet=True
    )
    assert found.summary["choices"]["activation"] == "tanh" and found.summary["config"]["model"]["depth"] == 1
    (summary,) = tmp_path.glob("*/*/summary.json")
    assert json.loads(summary.read_text())["overrides"][:2] == ["activation=tanh", "model.depth=1"]


def test_an_experiment_is_many_runs() -> None:
    with pytest.raises(UserError, match=r"^experiment=vanishing_depth: many runs; add -m$"):
        dlexp.run(["experiment=vanishing_depth"], quiet=True)
