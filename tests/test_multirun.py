"""Sweeps as a person runs them: from a shell, in an empty folder, with kills, failures and launchers."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import shell
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf
from shell import only_sweep, summaries

from dlexp import folder as folders
from dlexp.compose import CONFIGS, VERSION_BASE, Composer
from dlexp.errors import UserError
from dlexp.sweep import launch, place
from dlexp.sweep.command import continued, differences, job_name, parse

SMALL = ["train.max_steps=30", "record.tensorboard=false", "model.depth=1", "model.width=8"]
WITH_WEIGHTS = ["train.keep_weights=true", "train.checkpoint_every=5", "train.max_steps=100"]


# --- words -----------------------------------------------------------------------------------------


def test_words_are_read_as_hydra_reads_them() -> None:
    command = parse(["seed=range(3)", "model.depth=2,10", "activation=relu", "name='a,b'", "+x=choice(1,2)"])
    assert command.values["seed"] == ("0", "1", "2")
    assert command.values["model.depth"] == ("2", "10")
    assert command.values["activation"] == ("relu",)
    assert command.swept == ("seed", "model.depth", "+x")
    grid = command.grid()
    assert len(grid) == 3 * 2 * 2
    assert grid[1] == ["seed=0", "model.depth=2", "activation=relu", "name='a,b'", "+x=2"]
    samples = command.samples()
    assert {word for job in samples for word in job} == {word for job in grid for word in job}
    assert len(samples) == 3 + 2 + 2


def test_an_interval_is_one_value_of_a_search() -> None:
    command = parse(["optimizer.lr=tag(log, interval(1e-4, 10))"])
    assert command.values == {"optimizer.lr": ("tag(log, interval(1e-4, 10))",)}
    assert command.swept == ("optimizer.lr",)


@pytest.mark.parametrize(
    ("before", "now", "added", "other"),
    [
        (["a=1,2", "b=3"], ["b=3", "a=1,2"], [], []),
        (["a=0.1,2"], ["a=2,1e-1"], [], []),
        (["a=1,2", "b=3"], ["a=1,2,4", "b=3"], ["a: was 1,2, is 1,2,4"], []),
        (["a=1,2", "b=3"], ["a=2,4", "b=3"], [], ["a: was 1,2, is 2,4"]),
        (["a=1,2", "b=3"], ["a=1,2", "b=4"], [], ["b: was 3, is 4"]),
        (["a=1,2", "b=3"], ["a=1,2,4", "b=4"], ["a: was 1,2, is 1,2,4"], ["b: was 3, is 4"]),
        (["a=1,2"], ["a=1,2", "c=5"], [], ["c: was not there, is 5"]),
        (["a=1,2", "seed=0"], ["a=1,2", "seed=0,1"], ["seed: was 0, is 0,1"], []),
        (["a=1,2"], ["a=1,2", "seed=0,1"], ["seed: was not there, is 0,1"], []),
    ],
)
def test_what_two_commands_differ_in(
    before: list[str], now: list[str], added: list[str], other: list[str]
) -> None:
    assert differences(parse(before), parse(now)) == (added, other)


def test_what_is_free_may_differ() -> None:
    """How jobs are launched and where they lie changes no number; what is not said stays as it was."""
    before = ["a=1,2", "device=cpu", "hydra/launcher=basic"]
    assert continued("p", before, []) == before
    assert continued("p", before, ["outputs=x"]) == [*before, "outputs=x"]
    now = ["hydra/launcher=joblib", "a=2,1"]
    assert continued("p", before, now) == ["a=2,1", "device=cpu", "hydra/launcher=joblib"]
    with pytest.raises(UserError, match=r"resume=p: b: was not there, is 3; allowed: the same as before"):
        continued("p", before, ["a=1,2", "b=3"])
    with pytest.raises(UserError, match=r"resume=p: a: was 1,2, is 1,2,3; resume.extend=true adds jobs"):
        continued("p", before, ["a=1,2,3"])
    params = [["a=1", "hydra.sweeper.params.b=1,2"], ["a=1", "hydra.sweeper.params.b=1,3"]]
    with pytest.raises(UserError, match=r"hydra\.sweeper\.params\.b"):
        continued("p", *params)


def test_jobs_are_named_in_the_order_of_the_plan() -> None:
    plan = {"swept": ["b", "a", "seed"], "late": {"seed": "0"}}
    assert job_name(["a=1", "+b=2", "c=3", "seed=0"], plan, 7) == "b=2,a=1"
    assert job_name(["seed=1", "a='x y'", "b=2"], plan, 7).startswith("b=2,a=x_y,seed=1")
    assert job_name(["c=3"], plan, 7) == "7"


def test_sweeps_of_the_same_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Now(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime(2026, 11, 21, 10, 15, tzinfo=tz)

    monkeypatch.setattr(place, "datetime", Now)
    names = [place.new_place([], str(tmp_path)).folder.name for _ in range(3)]
    assert names == ["2026-11-21_10-15-00", "2026-11-21_10-15-00_2", "2026-11-21_10-15-00_3"]


def test_a_named_folder_holds_one_sweep(tmp_path: Path) -> None:
    words = [f"hydra.sweep.dir={tmp_path}/mine"]
    assert place.new_place(words, "outputs") == (tmp_path / "mine", None)
    with pytest.raises(UserError, match=r"mine: holds a sweep already; allowed: another folder, resume="):
        place.new_place(words, "outputs")


# --- composing -------------------------------------------------------------------------------------


def test_a_composed_job_is_what_hydra_makes_of_its_words() -> None:
    jobs = [
        ["activation=relu", "model.depth=2", "seed=0"],
        ["activation=relu", "model.depth=7", "seed=1"],
        ["activation=tanh", "model.depth=7", "seed=1"],
        ["activation=tanh", "model.depth=3", "seed=4"],
        ["+model.new=1", "optimizer.lr=1e-3", "name='a,b'", "metrics=[accuracy]"],
        ["+model.new=2", "optimizer.lr=1e-5", "name='x y'", "metrics=[accuracy,f1]"],
        ["~scheduler", "optimizer=adam", "optimizer.betas=[0.8,0.9]", "train.max_steps=null"],
        ["~scheduler", "optimizer=adam", "optimizer.betas=[0.7,0.9]", "train.max_steps=5"],
    ]
    with initialize_config_dir(str(CONFIGS.resolve()), job_name="dlexp", **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", ["hydra.job.name=x", "seed=0,1"], RunMode.MULTIRUN)
        composer = Composer(loader)
        for job in jobs:
            expected = OmegaConf.to_container(loader.load_sweep_config(master, job))
            assert OmegaConf.to_container(composer(master, job)) == expected, job
        assert len(composer._kinds) == 6  # two of the jobs differ from another in plain values only


# --- from a shell ----------------------------------------------------------------------------------


def test_failures_and_divergence_stop_nobody(tmp_path: Path) -> None:
    """A model that cannot take the data, one whose loss explodes, one that raises, and one that is fine."""
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "class Breaks(nn.Module):\n"
        "    def __init__(self, outputs):\n"
        "        super().__init__()\n"
        "        self.inner, self.calls = nn.Linear(64, outputs), 0\n"
        "    def forward(self, x):\n"
        "        self.calls += 1\n"
        "        if self.calls > 9: raise MemoryError('no room left')\n"
        "        return self.inner(x.flatten(1))\n"
    )
    words = ["-m", "optimizer.lr=0.1,1e30", "model=mlp,rnn", "train.max_steps=30", "record.tensorboard=false"]
    done = shell.run(*words, cwd=tmp_path, DRAWN="1")
    assert done.returncode == 1, done.stderr
    folder = only_sweep(tmp_path)
    statuses = {name: summary["status"] for name, summary in summaries(folder).items()}
    assert sorted(statuses.values()) == ["diverged", "failed", "failed", "finished"]
    assert "model=rnn: takes sequences" in done.stdout.replace("\n", " ")
    arms = pd.read_csv(folder / "sweep.csv")
    assert len(arms) == 4 and len(pd.read_csv(folder / "runs.csv")) == 4
    assert sorted(arms["status"]) == ["1 diverged", "1 failed", "1 failed", "1 finished"]
    assert (folder / "by_model.png").is_file() and (folder / "by_optimizer.lr.png").is_file()

    raised = shell.run(
        *("-m", "seed=0,1", "model=custom", "model._target_=own.Breaks", "train.max_steps=30"),
        *("hydra.sweep.dir=raised", "record.tensorboard=false"),
        cwd=tmp_path,
    )
    assert raised.returncode == 1
    found = summaries(tmp_path / "raised")
    assert [summary["error"] for summary in found.values()] == ["MemoryError: no room left"] * 2
    trace = (tmp_path / "raised" / "seed=1" / "error.log").read_text()
    assert trace.startswith("Traceback") and "own.py" in trace
    assert not list(folder.rglob("error.log"))  # a word that cannot be used says enough


def test_keys_that_are_added_name_jobs_too(tmp_path: Path) -> None:
    """And a job that leaves by SystemExit takes no other with it."""
    (tmp_path / "own.py").write_text(
        "import sys\n"
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, outputs, kind):\n"
        "        if kind == 'leaves': sys.exit('no more')\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, outputs))\n"
    )
    words = ["model=custom", "model._target_=own.Net", "+model.kind=leaves,stays", "train.max_steps=3"]
    done = shell.run("-m", *words, "activation=relu", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    found = {name: summary["status"] for name, summary in summaries(only_sweep(tmp_path)).items()}
    assert found == {"model.kind=leaves": "failed", "model.kind=stays": "finished"}
    arms = pd.read_csv(only_sweep(tmp_path) / "sweep.csv")
    assert arms["model.kind"].tolist() == ["leaves", "stays"]


def test_only_diverged_is_no_failure(tmp_path: Path) -> None:
    done = shell.run("-m", "optimizer.lr=0.1,1e30", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 diverged" in done.stdout


def test_a_wrong_word_leaves_nothing(tmp_path: Path) -> None:
    done = shell.run("-m", "activation=relu,nope", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("dlexp: activation=nope: no such choice; allowed: abs, ")
    assert done.stdout == ""
    assert not list((tmp_path / "outputs" / "sweep").iterdir())
    alone = shell.run("sweep=grid", cwd=tmp_path)
    assert (alone.returncode, alone.stderr) == (2, "dlexp: sweep=grid: many runs; add -m\n")


def test_a_job_that_has_no_place_to_write_to(tmp_path: Path) -> None:
    """A file stands where one job's folder should be: the other job runs, and the reason is told."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "seed=0").write_text("in the way")
    done = shell.run("-m", "seed=0,1", "hydra.sweep.dir=mine", *SMALL, cwd=tmp_path)
    assert done.returncode == 1
    assert "seed=0: " in done.stderr and "Traceback" not in done.stderr
    assert [s["status"] for s in summaries(tmp_path / "mine").values()] == ["finished"]
    assert (tmp_path / "mine" / "seed=0").read_text() == "in the way"
    assert "1 job not begun (seed=0)" in done.stdout


def test_runs_have_names_and_hparams_of_what_is_swept(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    done = shell.run("-m", "activation=relu,tanh", "optimizer.lr=0.1", "train.max_steps=10", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = only_sweep(tmp_path)
    files = sorted(path.parent.relative_to(folder) for path in folder.rglob("events.out.tfevents.*"))
    assert [str(path) for path in files] == ["activation=relu", "activation=tanh"]
    events = EventAccumulator(str(folder / "activation=tanh")).Reload()
    data = plugin_data_pb2.HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    )
    assert {k: v.string_value for k, v in data.session_start_info.hparams.items()} == {"activation": "tanh"}


def kill_and_resume(words: list[str], cwd: Path, seed: int) -> int:
    """Start a sweep, kill it at random moments and go on until it ends; returns how often it was killed.

    The first time at the beginning, then twice after one more checkpoint was written.
    """
    dice, kills, command = random.Random(seed), 0, ["-m", *words]
    for pause in (1, 0.2, 0.2):
        before, process = newest_checkpoint(cwd), shell.start(*command, cwd=cwd)
        while pause < 1 and newest_checkpoint(cwd) == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(dice.uniform(0, pause))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        for folder in (cwd / "outputs" / "sweep").glob("*"):
            if (folder / "sweep.json").exists():
                command = ["-m", "resume=latest"]
            else:  # killed before there was a plan: no job has begun
                assert not [path for path in folder.iterdir() if path.is_dir()]
                shutil.rmtree(folder)
    done = shell.run(*command, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return kills


def newest_checkpoint(cwd: Path) -> int:
    """When it was written; 0: there is none."""
    times = [0]
    for path in cwd.glob("outputs/sweep/*/*/checkpoint.pt"):
        with contextlib.suppress(OSError):  # the job ends meanwhile
            times.append(path.stat().st_mtime_ns)
    return max(times)


def test_a_sweep_that_is_killed_and_resumed_equals_one_that_was_not(tmp_path: Path) -> None:
    words = ["activation=relu,tanh", "seed=0,1", "dropout=standard", "optimizer=momentum", *WITH_WEIGHTS]
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    assert shell.run("-m", *words, cwd=tmp_path / "whole").returncode == 0
    assert kill_and_resume(words, tmp_path / "killed", seed=0) >= 2
    whole, killed = only_sweep(tmp_path / "whole"), only_sweep(tmp_path / "killed")
    assert sorted(summaries(whole)) == sorted(summaries(killed)) and len(summaries(whole)) == 4
    for name, summary in summaries(whole).items():
        again = summaries(killed)[name]
        assert (again["status"], again["metrics"]) == ("finished", summary["metrics"])
        assert again["layers"] == summary["layers"]
        for file in ("records.jsonl", "metrics.jsonl"):
            assert (killed / name / file).read_bytes() == (whole / name / file).read_bytes(), file
        one, other = (torch.load(f / name / "weights.pt", weights_only=True) for f in (whole, killed))
        assert all(torch.equal(one[key], other[key]) for key in one) and one.keys() == other.keys()
    read = [pd.read_csv(f / "sweep.csv").filter(regex="accuracy|loss|delta") for f in (whole, killed)]
    pd.testing.assert_frame_equal(*read)


def test_a_resumed_sweep_is_the_same_sweep(tmp_path: Path) -> None:
    """Other words are refused; more values of a swept key are added when that is asked for."""
    words = ["activation=relu,tanh", *SMALL]
    assert shell.run("-m", *words, cwd=tmp_path).returncode == 0
    folder = only_sweep(tmp_path)
    before = {name: (folder / name / "summary.json").stat().st_mtime_ns for name in summaries(folder)}

    other = shell.run("-m", *words, "seed=3", "resume=latest", cwd=tmp_path)
    assert other.returncode == 2
    assert "seed: was not there, is 3; allowed: the same as before" in other.stderr

    more = ["activation=relu,tanh,elu", *SMALL]
    refused = shell.run("-m", *more, f"resume={folder}", cwd=tmp_path)
    assert refused.returncode == 2
    assert "activation: was relu,tanh, is relu,tanh,elu; resume.extend=true adds jobs" in refused.stderr

    extended = shell.run("-m", *more, f"resume={folder}", "resume.extend=true", cwd=tmp_path)
    assert extended.returncode == 0, extended.stderr
    assert sorted(summaries(folder)) == ["activation=elu", "activation=relu", "activation=tanh"]
    assert {name: (folder / name / "summary.json").stat().st_mtime_ns for name in before} == before

    nothing = shell.run("-m", "resume=latest", cwd=tmp_path / "outputs")
    assert nothing.returncode == 2 and "nothing in outputs to go on with" in nothing.stderr


def test_ctrl_c_ends_a_sweep_that_can_go_on(tmp_path: Path) -> None:
    words = ["-m", "seed=0,1", *SMALL, "train.max_steps=5000"]
    process = shell.start(*words, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("outputs/sweep/*/seed=0/records.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on       dlexp -m resume=" in printed
    assert [s["status"] for s in summaries(only_sweep(tmp_path)).values()] == ["interrupted"]
    rest = shell.run("-m", "resume=latest", cwd=tmp_path)
    assert rest.returncode == 0, rest.stderr
    assert [s["status"] for s in summaries(only_sweep(tmp_path)).values()] == ["finished"] * 2


# --- pools that break, and searches ------------------------------------------------------------------


def pool(folder: Path, deadly: set[str], at_once: int = 2) -> Callable[[list[str]], None]:
    """Hydra with a pool of processes: a deadly job takes those with it that are under way."""

    def hydra(words: list[str]) -> None:
        assert words[-1] == f"hydra.sweep.dir='{folder}'"
        plan = json.loads((folder / "sweep.json").read_text())
        turn = [name for name in plan["planned"] if plan["only"] is None or name in plan["only"]]
        waiting = [name for name in turn if folders.status(folder / name) is None]
        while waiting:
            under_way, waiting = waiting[:at_once], waiting[at_once:]
            for name in under_way:
                (folder / name / ".hydra").mkdir(parents=True, exist_ok=True)
            if deadly & set(under_way):
                raise BrokenExecutor("exit codes: {SIGKILL(-9)}")
            for name in under_way:
                folders.write_json(folder / name / "summary.json", {"status": "finished"})

    return hydra


@pytest.mark.parametrize("deadly", [set(), {"b"}, {"a", "f"}, {"c", "d", "e"}, set("abcdef")])
def test_a_job_that_is_killed_takes_no_other_with_it(deadly: set[str], tmp_path: Path) -> None:
    own = Planned(tmp_path, {name: ["k=?"] for name in "abcdef"})
    own.launch(pool(tmp_path, deadly))
    found = summaries(tmp_path)
    assert {name for name in found if found[name]["status"] == "finished"} == set("abcdef") - deadly
    assert {name for name in found if "SIGKILL(-9)" in found[name].get("error", "")} == deadly


def test_a_pool_that_breaks_without_a_job_is_an_error(tmp_path: Path) -> None:
    def hydra(words: list[str]) -> None:
        raise BrokenExecutor("no pool here")

    with pytest.raises(BrokenExecutor, match="no pool here"):
        Planned(tmp_path, {"a": []}).launch(hydra)


class Planned(launch.Sweep):
    """A sweep whose jobs are known; in place of Hydra's call of `begin` it notes whose turn it is."""

    def __init__(self, folder: Path, planned: dict[str, list[str]]) -> None:
        super().__init__(folder, ["-m"], ["k=a,b"], resumed=False)
        self._planned = planned

    def _round(self, hydra: Any, only: list[str] | None) -> BrokenExecutor | None:
        (self.folder / "sweep.json").write_text(json.dumps({"planned": self._planned, "only": only}))
        return super()._round(hydra, only)


def test_a_search_is_resumed_without_repeating_trials(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna", reason="dlexp[sweep] is not installed")
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    space = ["optimizer.lr=tag(log, interval(1e-4, 1))", "hydra/sweeper=optuna", *SMALL]
    first = shell.run("-m", *space, "hydra.sweeper.n_trials=3", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    folder = only_sweep(tmp_path)
    study = optuna.load_study(study_name="dlexp", storage=f"sqlite:///{folder}/study.db")
    assert len(study.trials) == 3
    study.ask({"optimizer.lr": optuna.distributions.FloatDistribution(1e-4, 1, log=True)})  # left undone
    more = shell.run("-m", *space, "hydra.sweeper.n_trials=6", "resume=latest", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    study = optuna.load_study(study_name="dlexp", storage=f"sqlite:///{folder}/study.db")
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(done) == 6 == len({trial.params["optimizer.lr"] for trial in done})
    undone = next(trial for trial in study.trials if trial.state.name == "FAIL")
    assert undone.params["optimizer.lr"] in [trial.params["optimizer.lr"] for trial in done]
    losses = {s["metrics"]["loss/validation"] for s in summaries(folder).values()}
    assert {trial.value for trial in done} == losses
    assert len(pd.read_csv(folder / "runs.csv")) == 6


def test_a_search_for_what_is_not_measured_trains_nothing(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="dlexp[sweep] is not installed")
    words = ["hydra/sweeper=optuna", "optimizer.lr=interval(0.1,1)", "objective=acuracy/validation"]
    done = shell.run("-m", *words, "hydra.sweeper.n_trials=2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "objective=acuracy/validation: no such number; allowed: loss/train, loss/validation" in done.stdout
    assert [summary["steps"] for summary in summaries(only_sweep(tmp_path)).values()] == [0, 0]


def test_a_ready_made_search_runs(tmp_path: Path) -> None:
    """One with Optuna; tests/test_config.py composes all of them."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="dlexp[sweep] is not installed")
    search, few = "coarse_to_fine", ["hydra.sweeper.n_trials=3"]
    done = shell.run("-m", f"sweep={search}", "train.max_steps=3", "record=off", *few, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = json.loads((only_sweep(tmp_path) / "sweep.json").read_text())
    assert len(summaries(only_sweep(tmp_path))) == plan["jobs"] >= 3
    assert (only_sweep(tmp_path) / "sweep.csv").is_file()
