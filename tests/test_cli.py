"""The command line: what it answers, what it leaves behind, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import shell
import torch
from data.files import write_garbage
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from omegaconf import OmegaConf

import dlexp
from dlexp import cli
from dlexp import folder as folders
from dlexp.compose import CONFIGS
from dlexp.errors import UserError

FILES = {"metrics.jsonl", "records.jsonl", "summary.json", ".hydra"}
LONG_RUN = ["train.max_steps=100000000", "record.every=50"]

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
NO_MPS = pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has MPS")


@dataclass(frozen=True)
class Answer:
    """What came back."""

    code: int
    out: str
    err: str


Dlexp = Callable[..., Answer]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def main(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Dlexp]:
    """`dlexp` in this process, in an empty folder; whatever it changes in the process is put back."""
    assert here.is_dir()
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    Plugins.instance()  # what is loaded with them is part of the state, and loaded once
    handler, state = signal.getsignal(signal.SIGTERM), Singleton.get_state()

    def run(*words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["dlexp", *words])
        code: Any = 0
        full_error = os.environ["HYDRA_FULL_ERROR"]
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        finally:
            monkeypatch.setenv("HYDRA_FULL_ERROR", full_error)  # as for a process of its own
        return Answer(code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, handler)
    Singleton.set_state(state)


def refused(answer: Answer, lines: int = 1) -> list[str]:
    """The lines of an answer that refuses: exit code 2, nothing else printed."""
    assert answer.code == 2
    assert answer.out == ""
    found = answer.err.splitlines()
    assert len(found) == lines, answer.err
    assert all(line.startswith("dlexp: ") for line in found)
    assert "Traceback" not in answer.err
    return [line.removeprefix("dlexp: ") for line in found]


def only_run(folder: Path) -> Path:
    """The one run folder below outputs/<name>/."""
    (run,) = (folder / "outputs").glob("*/*")
    return run


TOP = (
    "allowed: activation, anomaly, augmentation, clip, data, debug, device, dropout, experiment,"
    " gradient_check, head, initializer, loss, metrics, model, name, normalization, objective, optimizer,"
    " outputs, record,"
    " regularizer, scheduler, seed, stopping, sweep, task, threads, train"
)
DEPTH = "allowed: a whole number from 1 to 10000"
LR = "allowed: a finite number, 0 or more"
P = "allowed: a number in [0, 1)"
POSITIVE = "allowed: a whole number, 1 or more"
NO_HIDDEN = "model=linear takes none; allowed: none"
GET_FILES = "add data.download=true to fetch it (needs a network), or name the folder"

# Words as typed (GARBAGE, FILE and MISSING stand for paths), and parts of the one line they get, in order.
WRONG: list[tuple[str, list[str]]] = [
    ("activation=rleu", ["activation=rleu: no such choice; did you mean relu?; allowed: abs, elu,", "tanh"]),
    ("model=cnn3", ["model=cnn3: no such choice; did you mean cnn?; allowed: ", "linear, ", "mlp"]),
    ("debug=quik", ["debug=quik: no such choice; did you mean quick?; allowed: anomaly, gradient_check,"]),
    ("activaton=relu", ["activaton=relu: no such key; did you mean activation?; " + TOP]),
    ("foo=3", ["foo=3: no such key; " + TOP]),
    ("foo.bar=3", ["foo.bar=3: no such key; " + TOP]),
    ("model.dept=3", ["model.dept=3: no such key; did you mean model.depth?; allowed: model.bias, "]),
    ("train.epoch=3", ["train.epoch=3: no such key; did you mean train.epochs?; allowed: train.batch_size,"]),
    ("dropout.p=0.3", ["dropout.p=0.3: no such key of this choice; it belongs to dropout=standard"]),
    ("activation.alpha=3", ["activation.alpha=3: no such key of this choice; it belongs to activation=elu"]),
    ("model=linear model.depth=3", ["model.depth=3: no such key of this choice; it belongs", "model=mlp"]),
    ("data.root=x", ["data.root=x: no such key of this choice; it belongs to data=cifar10, "]),
    ("optimizer.momentum=0.9", ["optimizer.momentum=0.9: no such key of this choice", "optimizer=momentum"]),
    ("word", ["word: not understood; write key=value, without spaces, for example model.depth=20"]),
    ("train.epochs = 3", ["train.epochs: not understood; write train.epochs=..., without spaces"]),
    ("train.epochs= 3", ["3: not understood; write key=value, without spaces"]),
    ("model = mlp", ["model: not understood; write model=..., without spaces"]),
    ("--depth 3", ["--depth: is no option; write model.depth=3"]),
    ("--batch-size=3", ["--batch-size=3: is no option; write train.batch_size=3"]),
    ("-m --seed 0,1", ["--seed: is no option; write seed=0,1"]),
    ("list relu", ["list relu: no such group; did you mean `dlexp list head` or `dlexp list activation`?"]),
    ("list activation=relu", ["list activation=relu: no such group; did you mean `dlexp list activation`?"]),
    ("task=regresion", ["task=regresion: did you mean regression?; allowed: auto, classification, "]),
    ("clip=value clip.max_norm=1", ["clip.max_norm=1: no such key of this choice; ", "here there is clip."]),
    ("train.target=90", ["train.target=90: accuracy/validation is a share; allowed: a number in [0, 1]"]),
    ("debug=gradient_check data=ring model=gan", ["debug=gradient_check: two losses", "allowed: debug=none"]),
    ("model=rnn data=sequential_digits activation=tanh", ["activation=tanh: model=rnn takes none; allowed:"]),
    ("relu", ["relu: not understood; did you mean activation=relu or head=relu?"]),
    ("model", ["model: not understood; write model=..., without", "; `dlexp list model` says what there is"]),
    ("lst", ["lst: not understood; did you mean `dlexp list`?"]),
    ("hlep", ["hlep: not understood; did you mean `dlexp --help`?"]),
    ("model.depth=[1", ["model.depth=[1: not understood; write key=value", "two pairs of quotes"]),
    ("data.separator=;", ["data.separator=;: not understood; ", "quotes, \"data.separator=';'\""]),
    ("data=csv data.separator=';'", ["data.separator=;: allowed: comma, semicolon, tab"]),
    ("data=csv data.separator='::'", ["data.separator=::: allowed: comma, semicolon, tab"]),
    ("data=csv data.kind=classes", ["data.kind=classes: allowed: auto, classification, regression, multi_"]),
    ("loss=mse loss.reduction=none", ["loss.reduction=none: allowed: mean, sum; a loss is one number"]),
    ("loss._target_=a.B", ["loss._target_=a.B: no such key of this choice; ", "type +loss._target_=module."]),
    ("model=custom", ["model._target_=???: needs a value, module.Class"]),
    ("model._target_=torch.nn.Linaer", ["model._target_=torch.nn.Linaer: torch.nn has no Linaer; did you"]),
    ("activation=relu,tanh", ["activation=relu,tanh: several values; dlexp -m in a terminal sweeps"]),
    ("seed=1,2", ["seed=1,2: several values; dlexp -m in a terminal sweeps over them"]),
    ("model.depth=0", ["model.depth=0: " + DEPTH]),
    ("model.depth=-1", ["model.depth=-1: " + DEPTH]),
    ("model.depth=2.5", ["model.depth=2.5: " + DEPTH]),
    ("model.depth=abc", ["model.depth=abc: " + DEPTH]),
    ("model.depth=null", ["model.depth=null: " + DEPTH]),
    ("model.depth=true", ["model.depth=true: " + DEPTH]),
    ("model.depth=", ["model.depth=: " + DEPTH]),
    ("model.width=0", ["model.width=0: allowed: a whole number from 1 to 100000"]),
    ("model.bias=3", ["model.bias=3: allowed: true, false"]),
    ("optimizer.lr=-1", ["optimizer.lr=-1: " + LR]),
    ("optimizer.lr=nan", ["optimizer.lr=nan: " + LR]),
    ("optimizer.lr=inf", ["optimizer.lr=inf: " + LR]),
    ("optimizer.lr=fast", ["optimizer.lr=fast: " + LR]),
    ("optimizer=adam optimizer.betas=[0.9]", ["optimizer.betas=[0.9]: allowed: a list of two, each a"]),
    ("dropout=standard dropout.p=1", ["dropout.p=1: " + P]),
    ("dropout=standard dropout.p=-0.1", ["dropout.p=-0.1: " + P]),
    ("dropout=standard dropout.p=nan", ["dropout.p=nan: " + P]),
    ("initializer=normal initializer.std=-1", ["initializer.std=-1: " + LR]),
    ("initializer=kaiming_normal initializer.mode=fan", ["initializer.mode=fan: allowed: fan_in, fan_out"]),
    ("normalization=layer normalization.position=in", ["normalization.position=in: allowed: before, after"]),
    ("train.batch_size=5000", ["train.batch_size=5000: larger than the training split", "1 to 1257"]),
    ("train.batch_size=0", ["train.batch_size=0: allowed: all or a whole number, 1 or more"]),
    ("train.epochs=1.5", ["train.epochs=1.5: " + POSITIVE]),
    ("train.max_steps=0", ["train.max_steps=0: allowed: null or a whole number, 1 or more"]),
    ("record.every=sometimes", ["record.every=sometimes: allowed: auto, never or a whole number, 1 or more"]),
    ("seed=-1", ["seed=-1: allowed: a whole number from 0 to "]),
    ("threads=0", ["threads=0: allowed: auto or a whole number from 1 to 256"]),
    ("device=gpu", ["device=gpu: allowed: auto, cpu, cuda, cuda:N, mps"]),
    ("data=mnist data.root=MISSING", ["data.root=MISSING: MNIST is not there; " + GET_FILES]),
    ("data=cifar10 data.root=MISSING", ["data.root=MISSING: CIFAR10 is not there; " + GET_FILES]),
    ("data=mnist data.root=GARBAGE", ["data.root=GARBAGE: cannot be read as MNIST: "]),
    ("data=cifar10 data.root=GARBAGE", ["data.root=GARBAGE: cannot be read as CIFAR10: "]),
    ("data.standardize=pixel", ["data.standardize=pixel: allowed: channel, feature, minmax, bad_scale"]),
    ("data.validation=0", ["data.validation=0: allowed: a number in (0, 1)"]),
    ("data.validation=1.5", ["data.validation=1.5: allowed: a number in (0, 1)"]),
    ("data.validation=0.6 data.test=0.5", ["data.validation=0.6, data.test=0.5: sum to 1.1", "1797 samples"]),
    ("data.validation=0.0001", ["data.", "validation", "0.0001", "1797 samples"]),
    ("model=linear normalization=batch", ["normalization=batch: " + NO_HIDDEN]),
    ("model=linear normalization=layer", ["normalization=layer: " + NO_HIDDEN]),
    ("model=linear dropout=standard", ["dropout=standard: " + NO_HIDDEN]),
    ("normalization=batch train.batch_size=1", ["normalization=batch: needs two samples", "none, layer"]),
    ("name=../x", ["name=../x: allowed: a folder name below outputs"]),
    ("name=/x", ["name=/x: allowed: a folder name below outputs"]),
    ("depth=3", ["depth=3: no such key; did you mean model.depth?"]),
    ("model.Depth=3", ["model.Depth=3: no such key; did you mean model.depth?; allowed: model.bias"]),
    ("activation=ReLU", ["activation=ReLU: no such choice; did you mean relu?"]),
    ("model.depth=${foo}", ["model.depth=${foo}: Interpolation key 'foo' not found"]),
    ("seed=${seed}", ["seed=${seed}: "]),
    ("+model.foo=3", ["model.foo=3: model=mlp takes no such value"]),
    ("+optimizer.foo=3", ["optimizer.foo=3: optimizer=sgd takes no such value"]),
    ("=3", ["write key=value; a group (activation, ", ") takes the name of a YAML file"]),
    ("~activation._partial_", ["activation=relu: its YAML file needs the line `_partial_: true`"]),
    ("name=null", ["name=null: allowed: a folder name below outputs"]),
    ("outputs=", ["outputs=: allowed: a text"]),
    ("outputs=FILE", ["outputs=FILE: no run folder can be made there: "]),
    ("outputs=FILE/sub", ["outputs=FILE/sub: no run folder can be made there: "]),
    ("hydra.run.dir=FILE", ["hydra.run.dir=FILE: "]),
    ("hydra.run.dir=FILE/sub", ["hydra.run.dir=FILE/sub: "]),
    ("hydra.run.dir=out model.depth=0", ["model.depth=0: " + DEPTH]),
    ("hydra.run.dir=out train.batch_size=5000", ["train.batch_size=5000: larger than"]),
]  # fmt: skip


def put_paths(text: str, tmp_path: Path) -> str:
    """The text with the paths of this test."""
    for name in ("GARBAGE", "FILE", "MISSING"):
        text = text.replace(name, str(tmp_path / name.lower()))
    return text


@pytest.mark.parametrize(("words", "parts"), WRONG, ids=[words for words, _ in WRONG])
def test_wrong_words_get_one_clear_line(
    words: str, parts: list[str], main: Dlexp, here: Path, tmp_path: Path
) -> None:
    """Exit code 2 and one line with key, value and what is allowed; nothing is left behind."""
    write_garbage(tmp_path / "garbage")
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    short = (
        [] if "max_steps" in words or words.startswith("list") else ["train.max_steps=1"]
    )  # should a word be taken after all
    (line,) = refused(main(*put_paths(words, tmp_path).split(), *short))
    position = 0
    for part in parts:
        wanted = put_paths(part, tmp_path)
        assert wanted in line[position:], line
        position = line.index(wanted, position) + len(wanted)
    assert line.startswith(put_paths(parts[0], tmp_path))
    assert not line.endswith(": "), "a reason is announced and missing"
    assert list(here.rglob("*")) == []
    assert (tmp_path / "file").read_text(encoding="utf-8") == "in the way"
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("cuda", marks=NO_CUDA),
        pytest.param("cuda:1", marks=NO_CUDA),
        pytest.param("mps", marks=NO_MPS),
    ],
)
def test_an_absent_device_is_refused(name: str, main: Dlexp, here: Path) -> None:
    """The line names the devices of this machine."""
    (line,) = refused(main(f"device={name}"))
    assert line.startswith(f"device={name}: not on this machine; allowed here: auto, ") and "cpu" in line
    assert list(here.iterdir()) == []


def test_each_wrong_value_gets_its_line(main: Dlexp, here: Path) -> None:
    """Two wrong values are told at once."""
    first, second = refused(main("model.depth=0", "optimizer.lr=-1"), lines=2)
    assert first == f"model.depth=0: {DEPTH}" and second == f"optimizer.lr=-1: {LR}"
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("word", ["model.depth=0", "activation=rleu"])
def test_full_error_shows_the_trace(
    word: str, main: Dlexp, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With HYDRA_FULL_ERROR=1 the trace stands before the line, whether from Hydra or from dlexp."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    answer = main(word)
    assert answer.code == 2
    assert "Traceback (most recent call last):" in answer.err and answer.err.count('  File "') > 3
    assert answer.err.splitlines()[-1].startswith(f"dlexp: {word}: ")
    assert list(here.iterdir()) == []


def test_something_broken_is_one_line_and_code_1(
    main: Dlexp, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is no one's words: exit code 1, its kind and text, and how to see more; status failed."""

    def explode(*_args: object, **_values: object) -> None:
        raise RuntimeError("out of\nluck")

    monkeypatch.setattr("dlexp.runner.fit", explode)
    answer = main("train.max_steps=1")
    assert answer.code == 1
    assert answer.err == "dlexp: RuntimeError: out of luck (HYDRA_FULL_ERROR=1 shows the trace)\n"
    summary = dlexp.load(only_run(here)).summary
    assert summary["status"] == "failed" and summary["error"] == "RuntimeError: out of luck"


def test_diverging_is_a_result(main: Dlexp, here: Path) -> None:
    """Exit code 0, status diverged with step and layer, and the bad step is the last line on record."""
    answer = main("optimizer.lr=1e6", "initializer=normal")
    assert answer.code == 0 and answer.err == ""
    run = only_run(here)
    summary = dlexp.load(run).summary
    assert summary["status"] == "diverged" and summary["error"] is None
    bad = summary["diverged"]
    assert summary["steps"] == bad["step"] < 950
    assert bad["layer"] in [layer["name"] for layer in summary["layers"]]
    assert f"diverged at step {bad['step']}" in answer.out and f"first bad layer {bad['layer']}" in answer.out
    last = json.loads((run / "records.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["step"] == bad["step"] == summary["recorded"]["last"]
    assert last["loss"] is None and last["reasons"]["loss"] in ("nan", "inf", "-inf")
    for name in summary["quantities"]:
        reasons = last["reasons"].get(name, [None] * len(summary["layers"]))
        assert [x is None for x in last[name]] == [why is not None for why in reasons], name
    assert None in last["delta_rms"]


def test_a_named_folder_is_used_once(main: Dlexp, here: Path) -> None:
    """hydra.run.dir=PATH is the run folder; a second run into it is refused and changes nothing."""
    words = ("hydra.run.dir=mine/a", "train.max_steps=1")
    assert main(*words).code == 0
    folder = here / "mine" / "a"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert dlexp.load(folder).summary["status"] == "finished"
    assert not (here / "outputs").exists()
    (line,) = refused(main(*words, "seed=1"))
    assert line.startswith("hydra.run.dir=") and "mine/a: holds a run already" in line
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    """<date>_<time>, then _2, _3, ..."""
    now = datetime(2030, 1, 2, 3, 4, 5)
    made = [folders.create(str(tmp_path), "mlp_digits", now) for _ in range(3)]
    assert [path.name for path in made] == [f"2030-01-02_03-04-05{end}" for end in ("", "_2", "_3")]
    assert all(path.parent == tmp_path / "mlp_digits" and path.is_dir() for path in made)


def test_help_names_the_groups(main: Dlexp, here: Path) -> None:
    """--help lists each group with its choices, and how to begin."""
    answer = main("--help")
    assert answer.code == 0 and answer.err == ""
    lines = answer.out.splitlines()
    groups = sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and path.name != "hydra")
    assert len(groups) > 8
    for group in groups:
        assert any(line.startswith(f"{group}: ") for line in lines), group
    assert "dlexp model.depth=20 activation=sigmoid" in answer.out
    assert list(here.iterdir()) == []


def test_cfg_job_prints_the_config_and_trains_nothing(main: Dlexp, here: Path) -> None:
    """--cfg job is YAML with the values typed."""
    answer = main("--cfg", "job", "model.depth=7", "activation=tanh")
    assert answer.code == 0
    config = OmegaConf.create(answer.out)
    assert config.model.depth == 7 and config.activation._target_ == "torch.nn.Tanh"
    assert list(here.iterdir()) == []


def command(folder: Path, *words: str, **environment: str) -> Answer:
    """`dlexp` in a process of its own, from start to end."""
    done = shell.run(*words, cwd=folder, **environment)
    return Answer(done.returncode, done.stdout, done.stderr)


def test_dlexp_in_an_empty_folder(tmp_path: Path) -> None:
    """No words at all: heading, progress, table, metrics; a complete run folder; a good network."""
    done = shell.fresh(cwd=tmp_path, command=[str(Path(sys.executable).with_name("dlexp"))])
    answer = Answer(done.returncode, done.stdout, done.stderr)
    assert answer.code == 0 and answer.err == ""
    for word in ("network", "13,130 parameters", "950/950", "delta_rms", "04_linear", "test ", "tensorboard"):
        assert word in answer.out, word
    assert "\x1b" not in answer.out
    folder = only_run(tmp_path)
    assert folder.parent.name == "mlp_digits" and datetime.strptime(folder.name, "%Y-%m-%d_%H-%M-%S")
    (events,) = folder.glob("events.out.tfevents.*")
    assert {path.name for path in folder.iterdir()} == FILES | {events.name}
    kept = sorted(path.name for path in (folder / ".hydra").iterdir())
    assert kept == ["config.yaml", "hydra.yaml", "overrides.yaml"]
    run = dlexp.load(folder)
    assert run.summary["status"] == "finished" and run.summary["steps"] == 950
    assert run.summary["timing"]["seconds"] < 10
    assert run.summary["metrics"]["accuracy/test"] > 0.9
    assert OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml")) == run.summary["config"]
    assert {0, 1, 2, 5, 10, 20, 949} <= set(run.records["step"])
    assert str(folder.relative_to(tmp_path)) in answer.out


def test_a_sweep_makes_a_folder_for_each_run(tmp_path: Path) -> None:
    """-m trains one network after the other, each into its own folder."""
    answer = command(tmp_path, "-m", "activation=relu,tanh", "train.max_steps=1")
    assert answer.code == 0
    summaries = [dlexp.load(path.parent).summary for path in sorted(tmp_path.rglob("summary.json"))]
    assert [summary["choices"]["activation"] for summary in summaries] == ["relu", "tanh"]
    assert len(list(tmp_path.rglob("events.out.tfevents.*"))) == 2


def test_info_defaults(tmp_path: Path) -> None:
    """Hydra's own --info works and leaves nothing behind."""
    answer = command(tmp_path, "--info", "defaults")
    assert answer.code == 0 and "activation/relu" in answer.out
    assert list(tmp_path.iterdir()) == []


def test_tab_completion(tmp_path: Path) -> None:
    """The shell asks for what activation=so may become."""
    line = "dlexp activation=so"
    answer = command(tmp_path, "-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
    assert answer.code == 0
    assert answer.out.split() == [
        f"activation={word}" for word in ("softmax", "softmax_notes", "softplus", "softsign")
    ]


SAME = ["train.max_steps=20", "dropout=standard", "train.keep_weights=true"]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two runs that were started together, as `python -m dlexp`."""
    folder = tmp_path_factory.mktemp("together")
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda n: shell.fresh(*SAME, f"seed={n}", cwd=folder), range(2)))
    assert [(answer.returncode, answer.stderr) for answer in answers] == [(0, ""), (0, "")]
    (folder / "printed").write_text(answers[0].stdout, encoding="utf-8")
    return folder


def test_runs_at_the_same_time_share_nothing(together: Path) -> None:
    """Each makes a complete folder of its own."""
    runs = sorted((together / "outputs" / "mlp_digits").iterdir())
    assert len(runs) == 2
    assert {dlexp.load(run).summary["seed"] for run in runs} == {0, 1}
    for run in runs:
        assert len(list(run.iterdir())) == len(FILES) + 2  # events and weights
        typed = OmegaConf.to_container(OmegaConf.load(run / ".hydra" / "overrides.yaml"))
        assert typed == dlexp.load(run).summary["overrides"]


def test_a_forked_dlexp_is_a_fresh_one(together: Path, tmp_path: Path) -> None:
    """What tests/shell.py forks prints and leaves the same, bit by bit; only times differ."""
    answer = command(tmp_path, *SAME, "seed=0")
    assert (answer.code, answer.err) == (0, "")
    forked, runs = only_run(tmp_path), (together / "outputs" / "mlp_digits").iterdir()
    (fresh,) = (run for run in runs if dlexp.load(run).summary["seed"] == 0)
    for name in ("records.jsonl", "metrics.jsonl", ".hydra/config.yaml", ".hydra/overrides.yaml"):
        assert (forked / name).read_bytes() == (fresh / name).read_bytes(), name
    one, other = (torch.load(run / "weights.pt") for run in (forked, fresh))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    summaries = [dict(dlexp.load(run).summary) for run in (forked, fresh)]
    assert [summary.pop("timing") is not None for summary in summaries] == [True, True]
    assert summaries[0] == summaries[1]
    printed = [answer.out, (together / "printed").read_text(encoding="utf-8")]
    times = re.compile(r"[\d-]+_[\d-]+(_2)?|\S+ m?s\b|\S+/s\b")
    assert times.sub("", printed[0]) == times.sub("", printed[1])


def test_a_forked_dlexp_warns_as_python_does(tmp_path: Path) -> None:
    """Warnings are errors to pytest alone; the module of one's own lies in the working directory."""
    (tmp_path / "own.py").write_text(
        "import os, signal, warnings\n"
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, outputs):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, outputs))\n"
        "        warnings.warn('loud')\n"
        "        print(os.getcwd(), signal.getsignal(signal.SIGINT))\n"
    )
    words = ["model=custom", "model._target_=own.Net", "train.max_steps=1", "record=off"]
    answer = command(tmp_path, *words)
    assert answer.code == 0 and "UserWarning: loud" in answer.err
    assert f"{tmp_path} <built-in function default_int_handler>" in answer.out


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Answer, Path]]:
    """Long runs that got a signal after some lines were on record: signal -> answer and run folder."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    folders = [tmp_path_factory.mktemp("stopped") for _ in signals]
    processes = [shell.start(*LONG_RUN, cwd=folder) for folder in folders]
    try:
        for process, folder, number in zip(processes, folders, signals, strict=True):
            deadline = time.monotonic() + shell.PATIENCE
            while not any(path.read_text().count("\n") > 3 for path in folder.rglob("records.jsonl")):
                assert process.poll() is None and time.monotonic() < deadline, process.poll()
                time.sleep(0.05)
            process.send_signal(number)
        printed = [process.communicate(shell.PATIENCE) for process in processes]
        return {
            number: (Answer(process.returncode, *texts), only_run(folder))
            for process, folder, number, texts in zip(processes, folders, signals, printed, strict=True)
        }
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)], ids=["SIGINT", "SIGTERM"])
def test_a_run_that_is_told_to_stop_is_closed(
    number: int, code: int, stopped: dict[int, tuple[Answer, Path]]
) -> None:
    """Exit code 130 or 143, status interrupted, how far it came, no trace; what was recorded is there."""
    answer, folder = stopped[number]
    assert answer.code == code and answer.err == ""
    run = dlexp.load(folder)
    assert run.summary["status"] == "interrupted" and run.summary["error"] is None
    assert f"interrupted after {run.summary['steps']} steps" in answer.out
    steps = sorted(set(run.records["step"]))
    assert steps[:3] == [0, 50, 100]
    assert steps[-1] == run.summary["recorded"]["last"] <= run.summary["steps"]
    assert run.summary["steps"] - steps[-1] <= 50
    assert run.records["grad_norm"].notna().all()


def test_a_run_that_was_killed_still_loads(stopped: dict[int, tuple[Answer, Path]]) -> None:
    """SIGKILL leaves no summary, but records up to the end."""
    answer, folder = stopped[signal.SIGKILL]
    assert answer.code == -signal.SIGKILL
    assert not (folder / "summary.json").exists()
    records = dlexp.load(folder).records
    assert sorted(set(records["step"]))[:3] == [0, 50, 100]
    assert len(records) % 4 == 0 and records["grad_norm"].notna().all()
    assert "no summary yet" in repr(dlexp.load(folder))


def test_load_refuses_what_is_no_run(tmp_path: Path) -> None:
    """dlexp.load and the command line speak alike."""
    with pytest.raises(UserError, match="not a run folder"):
        dlexp.load(tmp_path)


def test_a_run_goes_on_by_name(main: Dlexp, here: Path) -> None:
    """`resume=` takes the words of the run, or none; what it cannot take it says in one line."""
    words = ["train.max_steps=4", "model.depth=1"]
    assert main(*words, "hydra.run.dir=mine").code == 0
    again = main("resume=mine")
    assert (again.code, again.out) == (0, "mine: the run has come to its end; nothing is left to do\n")
    assert main(*words, "resume=mine").code == 0
    lines = refused(main("model.depth=2", "resume=mine"), lines=2)
    assert "train.max_steps: was 4, is not there; allowed: the same as before" in lines[0]
    assert "model.depth: was 1, is 2" in lines[1]
    (line,) = refused(main("resume=other"))
    assert line.startswith("resume=other: holds no run")
    (line,) = refused(main("resume=latest"))
    assert line == "resume=latest: nothing in outputs to go on with; allowed: resume=PATH"
    (line,) = refused(main("resume.extend=true"))
    assert line == "resume.extend: goes with resume=PATH"

    (here / "mine" / "summary.json").unlink()  # as if it had been killed before its end
    assert main("resume=mine").code == 0
    assert "finished" in (here / "mine" / "summary.json").read_text()
