"""A run that was interrupted and taken up again equals one that was not, bit by bit."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import shell
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dlexp
from dlexp import folder as folders
from dlexp import runner
from dlexp.compose import compose
from dlexp.errors import BusyError, Terminated, UserError
from dlexp.report.load import Run
from dlexp.report.terminal import Terminal
from dlexp.resume import differences
from dlexp.train import checkpoint
from dlexp.train.clock import Clock

COMMON = ["device=cpu", "threads=1", "train.keep_weights=true", "record.every=3", "train.checkpoint_every=7"]
SMALL = ["model.depth=2", "model.width=16", "train.batch_size=256", *COMMON]  # 4 steps an epoch
NETWORKS = {
    "everything": [
        *SMALL,
        *("dropout=standard", "optimizer=momentum", "scheduler=step", "scheduler.step_size=3"),
        *("stopping=early", "stopping.patience=3", "augmentation=input_noise", "regularizer=weight_noise"),
        *("clip=norm", "train.target=0.2", "train.epochs=60", "stopping.min_delta=0.03"),
    ],
    "adam": [*SMALL, "optimizer=adam", "scheduler=plateau", "scheduler.patience=1", "train.epochs=16"],
    "reference_adam": [*SMALL, "optimizer=reference_adam", "scheduler=one_cycle", "train.epochs=13"],
    "batch_norm": [*SMALL, "normalization=batch", "scheduler=warmup", "train.max_steps=50", "stopping=early"],
    "gan": ["model=gan", "data=ring", "model.depth=1", "train.max_steps=50", "train.batch_size=64", *COMMON],
    "lstm": [
        *("model=lstm", "data=adding", "data.length=6", "data.samples=300", "model.width=8"),
        *("train.max_steps=50", "train.batch_size=32", "optimizer=rmsprop", *COMMON),
    ],
    "one_batch": [*SMALL, "train.fixed_batch=true", "train.max_steps=50"],
    "all_samples": ["data=moons", "train.batch_size=all", "train.max_steps=50", "model.width=8", *COMMON],
    "diverges": ["model=linear", "data=line", "optimizer.lr=1.5", "train.max_steps=200", *COMMON],
}


def run(words: Iterable[str], folder: Path, *, resume: bool = True, quiet: bool = True) -> Run:
    """Run in a folder, or go on there."""
    return runner.run(replace(compose(list(words)), folder=folder), quiet=quiet, resume=resume)


class Mishaps:
    """What happens while a step is computed, each once: step -> what is done then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead: dict[int, Callable[[], object]] = {}
        step = Clock.step

        def strikes(clock: Clock) -> None:
            step(clock)
            self.ahead.pop(clock._steps - 1, lambda: None)()

        monkeypatch.setattr(Clock, "step", strikes)


@pytest.fixture
def mishaps(monkeypatch: pytest.MonkeyPatch) -> Mishaps:
    return Mishaps(monkeypatch)


def out_of_luck() -> None:
    raise RuntimeError("out of luck")


def signalled(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def without_timing(run: Run) -> dict[str, Any]:
    summary = json.loads((run.folder / "summary.json").read_text())
    del summary["timing"]
    if summary["to_target"]:
        del summary["to_target"]["seconds"]
    return summary  # type: ignore[no-any-return]


def assert_same(one: Run, other: Run) -> None:
    """Weights, records, metrics and summary are equal in every bit; events have every step once."""
    for name in ("records.jsonl", "metrics.jsonl"):
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes(), name
    assert without_timing(one) == without_timing(other)
    weights, others = (torch.load(run.folder / "weights.pt") for run in (one, other))
    assert weights.keys() == others.keys()
    assert all(torch.equal(x, others[name]) or x.isnan().any() for name, x in weights.items())
    events = [events_of(run.folder) for run in (one, other)]
    assert events[0] == events[1] and "loss/train" in events[0]
    steps = [step for step, _ in events[0]["loss/train"]]
    lines = (one.folder / "records.jsonl").read_text().splitlines()[1:]
    assert steps == [json.loads(line)["step"] for line in lines] == sorted(set(steps))
    assert not (other.folder / "checkpoint.pt").exists()


def events_of(folder: Path) -> dict[str, list[tuple[int, str]]]:
    """As TensorBoard reads them: tag -> step and value, in the order of the file."""
    (_,) = folder.glob("events.out.tfevents.*")
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    reader.Reload()
    scalars = reader.Tags()["scalars"]
    return {tag: [(e.step, repr(e.value)) for e in reader.Scalars(tag)] for tag in scalars}


@pytest.mark.parametrize("network", NETWORKS)
def test_interrupted_equals_uninterrupted(network: str, tmp_path: Path, mishaps: Mishaps) -> None:
    """It fails at step 3, before the first checkpoint, and at 17; SIGTERM ends it at 24, Ctrl-C at 25."""
    words = NETWORKS[network]
    whole = run(words, tmp_path / "whole")
    assert whole.summary["steps"] > 26
    mishaps.ahead = {
        3: out_of_luck,
        17: out_of_luck,
        24: signalled(signal.SIGTERM),
        25: signalled(signal.SIGINT),
    }
    folder, met = tmp_path / "torn", []
    for _ in range(5):
        try:
            torn = run(words, folder)
            break
        except (RuntimeError, KeyboardInterrupt) as mishap:
            met.append(type(mishap))
            status = json.loads((folder / "summary.json").read_text())["status"]
            assert status == ("failed" if type(mishap) is RuntimeError else "interrupted")
    assert met == [RuntimeError, RuntimeError, Terminated, KeyboardInterrupt]
    assert_same(whole, torn)


def test_the_networks_see_what_they_are_meant_to_see(tmp_path: Path) -> None:
    """One stops early, one reaches its target, one diverges; otherwise the test above would not test it."""
    early = run(NETWORKS["everything"], tmp_path / "early").summary
    assert early["status"] == "stopped_early" and early["best_step"] > 26 and early["to_target"]["step"]
    assert run(NETWORKS["diverges"], tmp_path / "diverges").summary["status"] == "diverged"


@pytest.mark.parametrize("every", ["1", "auto", "null"])
def test_checkpoints_change_nothing(every: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and records are the same bit by bit, and none is left when the run has ended."""
    words = NETWORKS["everything"]
    monkeypatch.setattr(checkpoint, "PERIOD", 0.005)
    monkeypatch.setattr(checkpoint, "SHARE", 1.0)
    written = []
    real = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *args: (written.append(1), real(*args)))
    with_them = run([*words, f"train.checkpoint_every={every}"], tmp_path / "with")
    assert (
        (len(written) == with_them.summary["steps"] - 1)
        if every == "1"
        else bool(written) == (every == "auto")
    )
    without = run(words, tmp_path / "without")
    for name in ("records.jsonl", "metrics.jsonl", "weights.pt"):
        assert (with_them.folder / name).read_bytes() == (without.folder / name).read_bytes()
    assert not (with_them.folder / "checkpoint.pt").exists()


def killed(kills: int, folder: Path, words: list[str]) -> None:
    """In a process that has trained nothing: run, be killed at random moments, go on, until it ends."""
    request = replace(compose(words), folder=folder)
    random.seed(0)
    while True:
        child = os.fork()
        if not child:
            signal.alarm(60)
            runner.run(request, quiet=True, resume=True)
            os._exit(0)
        done = 0
        if kills:
            path = folder / "checkpoint.pt"
            before = path.stat().st_mtime_ns if path.exists() else 0
            deadline = time.monotonic() + 20
            # half of them at once, the others once it has come further
            while kills % 2 and not (path.exists() and path.stat().st_mtime_ns > before):
                done, _ = os.waitpid(child, os.WNOHANG)
                if done or time.monotonic() > deadline:
                    break
                time.sleep(0.001)
            if not done:
                time.sleep(random.uniform(0, 0.05))
                os.kill(child, signal.SIGKILL)
                kills -= 1
        if not done:
            _, status = os.waitpid(child, 0)
            if status == 0:
                break
            assert os.WIFSIGNALED(status), status
    print(kills, "left")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_killed_many_times(tmp_path: Path) -> None:
    """kill -9 at nine random moments: while it builds, trains, writes. Then it ends as if nothing was."""
    words = [
        *NETWORKS["everything"][:-4],
        *("train.max_steps=400", "train.checkpoint_every=10", "record.every=1", "stopping.patience=1000"),
        "record.images=false",
    ]
    whole = run(words, tmp_path / "whole")
    torn = tmp_path / "torn"
    process = shell.fork(killed, 9, torn, words, cwd=tmp_path)
    out, err = process.communicate(100)
    assert process.returncode == 0, err
    assert out == "0 left\n"
    assert_same(whole, Run(torn))
    assert {path.name for path in torn.iterdir()} == {
        *(".hydra", "records.jsonl", "metrics.jsonl", "summary.json", "weights.pt"),
        next(torn.glob("events.*")).name,
    }
    assert not (torn / ".hydra" / "lock").exists()


@pytest.fixture(scope="module")
def adam(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """That of `interrupted`, uninterrupted."""
    return run(NETWORKS["adam"], tmp_path_factory.mktemp("whole") / "adam")


def interrupted(folder: Path, mishaps: Mishaps, *more: str, step: int = 17) -> list[str]:
    """A folder whose run was interrupted; returns its words."""
    words = [*NETWORKS["adam"], *more]
    mishaps.ahead = {step: signalled(signal.SIGINT)}
    with pytest.raises(KeyboardInterrupt):
        run(words, folder)
    return words


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_ended_is_left_as_it_is(adam: Run) -> None:
    """Nothing is written, nothing is built."""
    before = content(adam.folder)
    again = run(["model=transfer"], adam.folder)  # could not even be built
    assert again.folder == adam.folder and content(adam.folder) == before


def test_without_resume_a_run_is_never_touched(tmp_path: Path, mishaps: Mishaps) -> None:
    """An interrupted one neither."""
    words = interrupted(tmp_path / "run", mishaps)
    before = content(tmp_path / "run")
    with pytest.raises(UserError, match="holds a run already"):
        run(words, tmp_path / "run", resume=False)
    assert content(tmp_path / "run") == before


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    """A job of a sweep that had not begun."""
    assert run(NETWORKS["one_batch"], tmp_path / "a" / "b").summary["status"] == "finished"


def test_half_a_line_does_no_harm(tmp_path: Path, mishaps: Mishaps, adam: Run) -> None:
    """A kill may leave one, cut within a letter; tables leave it out, and the run that goes on removes it."""
    words = interrupted(tmp_path / "run", mishaps)
    for name in ("records.jsonl", "metrics.jsonl"):
        with (tmp_path / "run" / name).open("ab") as file:
            file.write('{"step": 17, "é'.encode()[:-1])
    loaded = dlexp.load(tmp_path / "run")
    assert loaded.records["step"].max() == 15 and len(loaded.metrics) == 4
    assert_same(adam, run(words, tmp_path / "run"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


class Evil:
    """Code in a pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


SPOILED: dict[str, Callable[[Path], object]] = {
    "cut short": lambda run: cut(run / "checkpoint.pt"),
    "empty": lambda run: (run / "checkpoint.pt").write_bytes(b""),
    "code": lambda run: (run / "checkpoint.pt").write_bytes(pickle.dumps(Evil())),
    "shorter record": lambda run: cut(run / "records.jsonl"),
    "no record": lambda run: (run / "metrics.jsonl").unlink(),
    "gone": lambda run: (run / "checkpoint.pt").unlink(),
}


@pytest.mark.parametrize("how", SPOILED)
def test_without_a_checkpoint_it_begins_anew(
    how: str,
    tmp_path: Path,
    mishaps: Mishaps,
    adam: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says so; what else lies in the folder stays, and no code in the file is run."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    words = interrupted(folder, mishaps)
    (folder / "notes.txt").write_text("mine")
    (folder / ".checkpoint.pt.123").write_text("half of one, from a kill")
    SPOILED[how](folder)
    again = run(words, folder, quiet=False)
    said = capsys.readouterr().out
    why = "there is no checkpoint" if how == "gone" else "the checkpoint cannot be read, or the record"
    assert f"begins anew: {why}" in " ".join(said.split())
    assert_same(adam, again)
    assert (folder / "notes.txt").read_text() == "mine" and not (tmp_path / "evil").exists()
    assert not (folder / ".checkpoint.pt.123").exists()


def test_it_says_where_it_goes_on(
    tmp_path: Path, mishaps: Mishaps, capsys: pytest.CaptureFixture[str]
) -> None:
    """And counts from there; the start of the first try is that of the run."""
    words = interrupted(tmp_path / "run", mishaps)
    before = Run(tmp_path / "run").summary["timing"]
    found = run(words, tmp_path / "run", quiet=False).summary["timing"]
    out = capsys.readouterr().out
    assert "goes on after 18 steps" in out and "64/64 steps" in out and " 7/64" not in out
    assert found["started"] == before["started"] and found["seconds"] > before["seconds"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["optimizer.lr=0.3"], ["was begun with optimizer.lr=0.001, not 0.3"]),
        (["optimizer=sgd"], ["was begun with optimizer=adam, not sgd"]),
        (["seed=1", "data.validation=0.3"], ["data.validation=0.15, not 0.3", "seed=0, not 1"]),
        (["train.epochs=20"], ["was begun with train.epochs=16, not 20"]),
    ],
)
def test_other_words_are_refused(more: list[str], said: list[str], tmp_path: Path, mishaps: Mishaps) -> None:
    """A line for each key, and the folder is as it was."""
    words = interrupted(tmp_path / "run", mishaps)
    before = content(tmp_path / "run")
    with pytest.raises(UserError) as caught:
        run([*words, *more], tmp_path / "run")
    assert len(caught.value.lines) == len(said)
    for line, part in zip(sorted(caught.value.lines), said, strict=True):
        assert line.startswith(f"resume={tmp_path / 'run'}: was begun with ") and part in line
        assert line.endswith("; allowed: the words of that run")
    assert content(tmp_path / "run") == before


def test_where_things_lie_may_change(tmp_path: Path, mishaps: Mishaps) -> None:
    """The folder was moved, and somebody wants to see where NaN comes from."""
    words = interrupted(tmp_path / "run", mishaps)
    (tmp_path / "run").rename(tmp_path / "moved")
    more = ["anomaly=true", "outputs=elsewhere", "name=other", "train.checkpoint_every=null"]
    assert run([*words, *more], tmp_path / "moved").summary["status"] == "finished"


def test_a_group_stands_for_its_keys() -> None:
    """Of another optimizer the other keys need not be told."""
    before = {"optimizer": "adam", "optimizer.lr": 0.1, "optimizer.eps": 1e-8, "seed": 0}
    now = {"optimizer": "sgd", "optimizer.lr": 0.2, "seed": 0}
    assert differences(before, now) == ["was begun with optimizer=adam, not sgd"]
    assert differences(before, before) == []


def test_nobody_else_may_run_there(tmp_path: Path, mishaps: Mishaps) -> None:
    """Neither a run that goes on nor a second one that would begin; afterwards anybody may."""
    folder, met = tmp_path / "run", []

    def second() -> None:
        with pytest.raises(BusyError) as caught:
            run(words, folder)
        met.append(str(caught.value))

    words = NETWORKS["adam"]
    mishaps.ahead = {0: second, 5: second}
    assert run(words, folder).summary["status"] == "finished"
    assert met == [f"{folder}: is still running (pid {os.getpid()})"] * 2


@pytest.mark.parametrize("lucky", [0, 2])
def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
    lucky: int,
    tmp_path: Path,
    mishaps: Mishaps,
    adam: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is said once; the last one that fitted stays, no draft stays, and the run can go on from it."""
    real, written = checkpoint.save, []

    def save(path: Path, content: dict[str, Any]) -> None:
        if len(written) == lucky:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(content["step"])
        real(path, content)

    words, folder = NETWORKS["adam"], tmp_path / "run"
    with monkeypatch.context() as full:
        full.setattr(checkpoint, "save", save)
        mishaps.ahead = {40: out_of_luck}
        with pytest.raises(RuntimeError):
            run(words, folder, quiet=False)
    out = capsys.readouterr().out
    assert out.count("checkpoint  cannot be written: No space left on device; the run goes on without") == 1
    assert written == [7, 14][:lucky] and not list(folder.glob(".checkpoint*"))
    assert (folder / "checkpoint.pt").exists() == bool(lucky)
    assert_same(adam, run(words, folder))


def test_a_network_that_has_changed_is_told(
    tmp_path: Path, mishaps: Mishaps, adam: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words are the same, the code behind them is another."""
    words = interrupted(tmp_path / "run", mishaps)
    real = checkpoint.put_back

    def other(parts: Any, found: Any) -> None:
        real(parts | {"model": torch.nn.Linear(2, 1)}, found)

    with monkeypatch.context() as changed:
        changed.setattr(checkpoint, "put_back", other)
        with pytest.raises(UserError, match=r"checkpoint.pt: does not fit what these words make now: "):
            run(words, tmp_path / "run")
    assert_same(adam, run(words, tmp_path / "run"))


def test_data_that_has_changed_is_told(tmp_path: Path, mishaps: Mishaps) -> None:
    """A file that somebody edited meanwhile; a run on two data sets would be none."""
    table, folder = tmp_path / "table.csv", tmp_path / "run"
    lines = [f"{x},{3 * x}" for x in range(100)]
    table.write_text("\n".join(["x,y", *lines]))
    words = ["data=csv", f"data.path={table}", "data.target=y", "data.kind=regression", "train.epochs=20"]
    words += [*COMMON, "train.batch_size=16", "optimizer.lr=0.01"]
    mishaps.ahead = {17: signalled(signal.SIGINT)}
    with pytest.raises(KeyboardInterrupt):
        run(words, folder)
    before = table.read_text()
    table.write_text("\n".join(["x,y", *lines[::-1]]))  # even the order matters
    with pytest.raises(UserError, match=r"checkpoint.pt: does not fit .*: the data has changed"):
        run(words, folder)
    table.write_text(before)
    assert_same(run(words, tmp_path / "whole"), run(words, folder))


def test_the_bar_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal and elsewhere the steps are those that are left."""
    terminal = Terminal(quiet=True)
    assert list(terminal.track(20, 15)) == list(range(15, 20))
    monkeypatch.setattr(Terminal, "_track_in_lines", Terminal._track_in_bar)
    assert list(Terminal(quiet=True).track(20, 15)) == list(range(15, 20))


def test_a_summary_that_is_no_summary_is_none(tmp_path: Path) -> None:
    """Only a whole one ends a run."""
    assert not folders.ended(tmp_path)
    for text, said in (
        ('{"status": "fini', False),
        ('{"status": "failed"}', False),
        ('{"status": "diverged"}', True),
    ):
        (tmp_path / "summary.json").write_text(text)
        assert folders.ended(tmp_path) is said
