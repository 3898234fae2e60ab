"""A sweep that is gone on with, or that somebody else is at work on; and what is told at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from shell import only_sweep, put_net, run, summaries

from dlexp import folder as folders


def test_words_in_another_order_are_the_same_sweep(tmp_path: Path) -> None:
    words = ["seed=0,1", "model.depth=1,2", "train.max_steps=3", "record=off"]
    assert run("-m", *words, cwd=tmp_path).returncode == 0
    again = run("-m", "resume=latest", *reversed(words), cwd=tmp_path)
    assert again.returncode == 0 and "kept        4 jobs" in again.stdout
    assert len(summaries(only_sweep(tmp_path))) == 4


def test_seeds_are_added_to_a_sweep_that_had_one(tmp_path: Path) -> None:
    """The runs so far keep their folders and are those of seed 0; a value that was not there is asked for."""
    words = ["activation=relu,tanh", "train.max_steps=3", "record=off"]
    assert run("-m", *words, cwd=tmp_path).returncode == 0
    without = run("-m", *words, "seed=1,2", "resume=latest", "resume.extend=true", cwd=tmp_path)
    assert without.returncode == 2
    assert "seed: was 0 so far, and has to stay among its values; add 0" in without.stderr
    more = run("-m", *words, "seed=0,1", "resume=latest", "resume.extend=true", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    names = [f"activation={kind}{seed}" for kind in ("relu", "tanh") for seed in ("", ",seed=1")]
    assert sorted(summaries(only_sweep(tmp_path))) == names
    arms = pd.read_csv(only_sweep(tmp_path) / "sweep.csv")
    assert arms["runs"].tolist() == [2, 2] and arms["status"].tolist() == ["2 finished"] * 2
    assert pd.read_csv(only_sweep(tmp_path) / "runs.csv")["seed"].tolist() == [0, 1, 0, 1]
    assert run("-m", "resume=latest", cwd=tmp_path).stdout.count("finished  ") == 0


def test_a_sweep_is_found_again_where_it_was_put(tmp_path: Path) -> None:
    """`outputs` and the like only say where; they need no other words beside them."""
    words = ["seed=0,1", "train.max_steps=3", "record=off", "outputs='my runs'"]
    assert run("-m", *words, cwd=tmp_path).returncode == 0
    found = run("-m", "resume=latest", "outputs='my runs'", cwd=tmp_path)
    assert found.returncode == 0 and "kept        2 jobs" in found.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["my runs"]
    dated = run("-m", *words[:3], "hydra.sweep.dir='a/${now:%Y}'", cwd=tmp_path)
    assert dated.returncode == 0 and (tmp_path / "a" / str(datetime.now().year) / "sweep.csv").is_file()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["resume=lates"], "resume=lates: no such folder; did you mean latest?"),
        (["resume=nowhere"], "resume=nowhere: no such folder; allowed: latest, the folder of a sweep"),
        (["resume=empty"], "resume=empty: holds no sweep (sweep.json); allowed: the folder of a sweep"),
        (["resume=single"], "resume=single: is a single run; leave out -m"),
        (["optimizer.lr=0.1,abc"], "optimizer.lr=abc: allowed: "),
        (["seed=0,1", "model.depth=-1"], "model.depth=-1: allowed: "),
    ],
)
def test_what_cannot_be_is_told_at_once(typed: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "single" / ".hydra").mkdir(parents=True)
    (tmp_path / "single" / ".hydra" / "overrides.yaml").write_text("[]")
    done = run("-m", *typed, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"dlexp: {said}")


def test_a_folder_of_somebody_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "study.db").write_text("precious")
    assert run("-m", "hydra.sweep.dir=mine", "bogus=1", cwd=tmp_path).returncode == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["study.db"]
    assert (tmp_path / "mine" / "study.db").read_text() == "precious"


def test_a_sweep_that_runs_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    plan = {"words": ["seed=0,1"], "typed": ["-m"], "swept": ["seed"]}
    (tmp_path / "mine" / "sweep.json").write_text(json.dumps(plan))
    with folders.locked(tmp_path / "mine", inside="."):
        done = run("-m", "resume=mine", cwd=tmp_path)
    assert done.returncode == 2 and "mine: is still running (pid " in done.stderr


REASONS = """
import os, sys
from torch import nn
class Net(nn.Sequential):
    def __init__(self, outputs):
        super().__init__(nn.Flatten(), nn.Linear(64, outputs))
    def forward(self, x):
        if os.environ["HOW"] == "leaves": sys.exit("no more")
        raise ValueError(os.environ["HOW"])
"""


def test_the_reason_is_that_of_the_last_try(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(REASONS)
    words = ["-m", "seed=0,1", "model=custom", "model._target_=own.Net", "hydra.sweep.dir=s"]
    for how, said in (("leaves", "SystemExit: no more"), ("first", "first"), ("second", "second")):
        done = run(*words, cwd=tmp_path, HOW=how)
        assert done.returncode == 1
        assert done.stdout.count("failed       seed=0") + done.stdout.count("failed       seed=1") == 2
        assert all(said in summary["error"] for summary in summaries(tmp_path / "s").values())
        words = ["-m", "resume=s"]
    shown = run("report", "s/seed=0", cwd=tmp_path)
    assert shown.returncode == 0 and "second" in shown.stdout


def test_lists_are_shown_and_one_value_has_a_name(tmp_path: Path) -> None:
    lists = run("-m", "metrics=[accuracy],[accuracy,f1]", "train.max_steps=2", "record=off", cwd=tmp_path)
    assert "\n  [accuracy]  " in lists.stdout
    few = ["train.max_steps=2", "record=off", "hydra.sweep.dir=one"]
    one = run("-m", "optimizer.lr=0.1", *few, cwd=tmp_path)
    assert one.returncode == 0 and "sweep       1 job\n" in one.stdout
    assert (tmp_path / "one" / "optimizer.lr=0.1,train.max_steps=2,record=off" / "summary.json").is_file()


def test_a_search_among_few_values_ends_well(tmp_path: Path) -> None:
    """Optuna may suggest a point twice; the run of it is there already."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="dlexp[sweep] is not installed")
    words = ["hydra/sweeper=optuna", "model.depth=choice(1,2)", "train.max_steps=2", "record=off"]
    done = run("-m", *words, "hydra.sweeper.n_trials=4", cwd=tmp_path)
    assert done.returncode == 0 and "go on" not in done.stdout
    assert 1 <= len(summaries(only_sweep(tmp_path))) <= 2


def test_points_that_were_under_way_are_tried_once(tmp_path: Path) -> None:
    """Killed before the first trial was done: the same sampler must not suggest the same points again."""
    optuna = pytest.importorskip("optuna", reason="dlexp[sweep] is not installed")
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ["hydra/sweeper=optuna", "optimizer.lr=interval(0.01,1)", "train.max_steps=2", "record=off"]
    assert run("-m", *words, "hydra.sweeper.n_trials=2", "hydra.sweep.dir=s", cwd=tmp_path).returncode == 0
    first = optuna.load_study(study_name="dlexp", storage=f"sqlite:///{tmp_path}/s/study.db").trials
    storage = f"sqlite:///{tmp_path}/s/study.db"
    optuna.delete_study(study_name="dlexp", storage=storage)
    study = optuna.create_study(study_name="dlexp", storage=storage)
    for trial in first:
        study.enqueue_trial(trial.params)
        study.ask(trial.distributions)
    for name in summaries(tmp_path / "s"):
        shutil.rmtree(tmp_path / "s" / name)
    assert run("-m", "resume=s", "hydra.sweeper.n_trials=4", cwd=tmp_path).returncode == 0
    trials = optuna.load_study(study_name="dlexp", storage=storage).trials
    done = [trial.params["optimizer.lr"] for trial in trials if trial.state.name == "COMPLETE"]
    assert len(done) == len(set(done)) == 4
    assert {trial.params["optimizer.lr"] for trial in first} <= set(done)


def test_a_job_ends_with_who_launched_it() -> None:
    """Its parent is killed: it gets SIGTERM, of which a run makes a checkpoint."""
    child = (
        "import signal, time\n"
        "from dlexp.sweep import job\n"
        "job.PERIOD = 0.05\n"
        "def end(*_): print('asked to end', flush=True); raise SystemExit\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "with job.not_left_alone(): print('at work', flush=True); time.sleep(60)\n"
    )
    start = f"subprocess.Popen([sys.executable, '-c', {child!r}])"
    parent = f"import subprocess, sys, time; {start}; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "at work\n"
    process.kill()
    assert process.stdout.readline() == "asked to end\n"
    process.wait()
    process.stdout.close()


VANISHES = """if self.kind == "breaks" and self.calls == 5:
            shutil.rmtree("s/model.kind=breaks")
            Path("s/model.kind=breaks").write_text("in the way")"""


def test_a_folder_that_can_no_longer_be_written_to_costs_its_own_job_only(tmp_path: Path) -> None:
    put_net(tmp_path, VANISHES)
    words = ["model=custom", "model._target_=own.Net", "+model.kind=breaks,fine", "train.max_steps=9"]
    done = run("-m", *words, "hydra.sweep.dir=s", cwd=tmp_path)
    assert done.returncode == 1
    assert "dlexp: model.kind=breaks: " in done.stderr and "Traceback" not in done.stderr
    assert {name: found["status"] for name, found in summaries(tmp_path / "s").items()} == {
        "model.kind=fine": "finished"
    }
    assert "1 job not begun (model.kind=breaks)" in done.stdout
    assert (tmp_path / "s" / "model.kind=breaks").read_text() == "in the way"
