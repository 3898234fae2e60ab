"""Every word that can be typed makes a network that trains; every value has a rule."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from data.files import write_cifar10, write_mnist
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from PIL import Image

import dlexp
from dlexp.build.check import GROUPS, RULES, check
from dlexp.compose import CONFIGS, VERSION_BASE, _composed, _Kinds, compose, flatten
from dlexp.errors import UserError
from dlexp.record.schedule import schedule
from dlexp.sweep.command import parse
from dlexp.words import ARM, expanded, quoted, split_words, unquoted

CHOICES = sorted(path for path in CONFIGS.glob("*/*.yaml") if path.parent.name != "hydra")
SEARCHES = [path for path in CHOICES if path.parent.name in ("sweep", "experiment") and path.stem != "none"]
FOLDERS = {path.name for path in CONFIGS.iterdir() if path.is_dir()} - {"hydra"}
# An entry of the defaults list: (group, choice, comment).
ENTRY = re.compile(r"^  - (?P<group>[\w/ ]+)(?:: *(?P<choice>\w+))? *(?:# *(?P<comment>.*))?$")


def entries() -> list[tuple[str, str, str]]:
    """The defaults list of config.yaml, comments included."""
    text = (CONFIGS / "config.yaml").read_text(encoding="utf-8")
    lines = text.split("defaults:\n")[1].split("\n\n")[0].splitlines()
    found = [ENTRY.match(line) for line in lines if not line.lstrip().startswith("#")]
    assert all(found)
    return [(m["group"].strip(), m["choice"] or "", m["comment"] or "") for m in found if m]


def listed(comment: str) -> list[str]:
    """The choices that a comment names: its plain words between the last colon and the semicolon."""
    words = comment.split(";")[0].split(":")[-1].split()
    return [word for word in words if re.fullmatch(r"\w+", word)]


def shipped() -> dict[str, list[Any]]:
    """Every dotted key that config.yaml and the choices of its groups set, with all its values."""
    values: dict[str, list[Any]] = {}
    top = OmegaConf.load(CONFIGS / "config.yaml")
    assert isinstance(top, DictConfig)
    files = [flatten(OmegaConf.masked_copy(top, [key for key in top if key not in ("defaults", "hydra")]))]
    for path in CHOICES:
        content = OmegaConf.load(path)
        assert isinstance(content, DictConfig)
        whole = "@package _global_" in path.read_text(encoding="utf-8")
        files.append(flatten(content, "" if whole else f"{path.parent.name}."))
    for file in files:
        for key, value in file.items():
            if key.startswith(("hydra.", "defaults")):  # how a search goes on is for Hydra to check
                continue
            values.setdefault(key, []).append(value)
    return values


def is_free_number(values: list[Any]) -> bool:
    """Keys without a rule may be numbers: those are checked for being finite."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def test_there_are_choices() -> None:
    """The globs of this file find the configs."""
    assert len(CHOICES) > 30 and {"model", "activation", "data"} <= FOLDERS


# What a choice cannot do without: data or a task that it is made for, a loss that takes what it gives.
COMPANIONS = {
    "data=copy": "model=gru",
    "data=recall": "model=gru",
    "data=digit_strings": "model=crnn",
    "data=ring": "model=gan",
    "data=text": "model=char_lm data.characters=3000 train.batch_size=8",
    "head=hardmax": "task=multi_label loss=mse",
    "head=log_softmax": "loss=nll",
    "head=relu": "task=regression",
    "head=sigmoid": "task=multi_label loss=bce",
    "head=softmax": "loss=log_loss",
    "head=softplus": "task=regression",
    "head=tanh": "task=regression",
    "loss=bce": "task=binary head=sigmoid",
    "loss=binary_cross_entropy": "task=binary",
    "loss=binary_hinge": "task=binary",
    "loss=cosine": "task=embedding model=embedding_net",
    "loss=ctc": "data=digit_strings model=crnn",
    "loss=huber": "task=regression",
    "loss=listnet": "data=ranking",
    "loss=log_loss": "head=softmax",
    "loss=mae": "task=regression",
    "loss=minimax": "data=ring model=gan",
    "loss=mse": "task=regression",
    "loss=nll": "head=log_softmax",
    "loss=non_saturating": "data=ring model=gan",
    "loss=perceptron": "task=binary",
    "loss=smooth_l1": "task=regression",
    "loss=triplet": "task=embedding model=embedding_net",
    "loss=wrong_sign": "task=binary",
    "model=char_lm": "data=text data.characters=3000 train.batch_size=8",
    "model=crnn": "data=digit_strings",
    "model=custom": f"model._target_={__name__}.Mine",
    "model=denoising_autoencoder": "task=reconstruction",
    "model=embedding_net": "task=embedding",
    "model=gan": "data=ring",
    "model=gru": "data=sequential_digits",
    "model=linear_regression": "data=line",
    "model=logistic_regression": "data=moons",
    "model=lstm": "data=sequential_digits",
    "model=mcculloch_pitts": "data=gate",
    "model=multi_head": "task=multi_label",
    "model=neuron": "data=moons",
    "model=perceptron": "data=gate",
    "model=rnn": "data=sequential_digits",
    "model=two_stage": "data=digits_cluttered",
    "stopping=early": "train.epochs=1",
}


class Mine(torch.nn.Sequential):
    """Somebody's own network."""

    def __init__(self, outputs: int) -> None:
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, outputs))


SINGLE = [path for path in CHOICES if path not in SEARCHES]


@pytest.mark.parametrize("path", SINGLE, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_choice_trains_a_step(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice composes, builds and trains for one step, and what was chosen is in the summary."""
    group, word = path.parent.name, path.stem
    words = [f"{group}={word}", "train.max_steps=1", f"outputs={tmp_path / 'runs'}"]
    words += COMPANIONS.get(words[0], "").split()
    if group == "data":
        monkeypatch.setenv("DLEXP_DATA", str(tmp_path / "files"))
        write_mnist(tmp_path / "files", "MNIST")
        write_mnist(tmp_path / "files", "FashionMNIST")
        write_cifar10(tmp_path / "files", monkeypatch)
        words += own_files(word, tmp_path)
    if word == "transfer":
        source = dlexp.run(["train.max_steps=1", "train.keep_weights=true", words[2]], quiet=True)
        words.append(f"model.source={source.folder}")
    run = dlexp.run(words, quiet=True)
    nothing_to_learn = word in ("mcculloch_pitts", "lookup")
    assert run.summary["status"] == "finished" and run.summary["steps"] == (0 if nothing_to_learn else 1)
    assert run.summary["choices"][group] == (word if words[0] != "loss=auto" else "cross_entropy")
    recorded = run.summary["config"]["record"]["every"] != "never" and not nothing_to_learn
    assert len(run.records) == (len(run.layers) if recorded else 0)


def own_files(word: str, folder: Path) -> list[str]:
    """Somebody's own data, and the words that name it."""
    numbers = np.random.default_rng(0).random((60, 3))
    if word == "csv":
        rows = "".join(f"{a},{b},{c > 0.5}\n" for a, b, c in numbers)
        (folder / "my.csv").write_text(f"a,b,c\n{rows}")
        return [f"data.path={folder / 'my.csv'}", "data.target=c", "train.batch_size=8"]
    if word == "npz":
        np.savez(folder / "my.npz", inputs=numbers, targets=numbers[:, 0] > 0.5)
        return [f"data.path={folder / 'my.npz'}", "train.batch_size=8"]
    if word == "image_folder":
        for kind in ("cat", "dog"):
            (folder / "pictures" / kind).mkdir(parents=True)
            for n in range(20):
                pixels = np.full((9, 7, 3), n * 10 + len(kind), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "pictures" / kind / f"{n}.png")
        return [f"data.path={folder / 'pictures'}", "train.batch_size=8"]
    return []


def test_every_shipped_key_has_a_rule() -> None:
    """A value that the check does not know is a number; all others are in its table."""
    known = RULES.keys() | {"data.source"}
    lacking = {k: v for k, v in shipped().items() if k not in known and not is_free_number(v)}
    assert lacking == {}


def test_every_rule_is_for_a_shipped_key() -> None:
    """The table keeps no rule for a key that no YAML file has."""
    assert set(RULES) - set(shipped()) == set()


def test_every_shipped_value_passes_its_rule() -> None:
    """No YAML file ships a value that would be refused from the command line."""
    for key, values in shipped().items():
        if key in RULES:
            assert [value for value in values if not RULES[key].passes(value)] == [], key


def test_every_group_is_in_the_defaults_list() -> None:
    """A folder of choices that is not in the list could not be typed."""
    groups = [group for group, _, _ in entries()]
    assert set(groups) - {"_self_"} - {g for g in groups if g.startswith("override")} == FOLDERS
    assert set(GROUPS) == FOLDERS - {"debug", "experiment", "sweep"}, (
        "these only change the values of other groups"
    )


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_search_sweeps_keys_that_there_are(path: Path) -> None:
    """And is refused where only one run was asked for."""
    if "optuna" in path.read_text(encoding="utf-8"):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="dlexp[sweep] is not installed")
    word = f"{path.parent.name}={path.stem}"
    request = compose([word])
    params = OmegaConf.to_container(request.hydra.sweeper.params)
    assert isinstance(params, dict)
    command = parse([f"{key}={value}" for key, value in params.items()])
    assert set(command.swept) == set(params) and params
    for typed in command.values.get(ARM, [""]):  # what an arm sets may be there in its own choices only
        arm = expanded([f"{ARM}={quoted(unquoted(typed))}"]) if typed else []
        config = compose([word, *arm]).config
        keys = {*split_words(arm), *command.swept} - {ARM}
        assert all(OmegaConf.select(config, key) is not None for key in keys), arm
    with pytest.raises(UserError, match=rf"^{word}: many runs; add -m$"):
        check(request)


def test_every_default_exists() -> None:
    """What the list names is a file."""
    for group, choice, _ in entries():
        if group in FOLDERS:
            assert (CONFIGS / group / f"{choice}.yaml").is_file(), (group, choice)


def test_every_entry_of_the_defaults_list_has_a_comment() -> None:
    """Line by line, the list says what it is about."""
    assert [(group, choice) for group, choice, comment in entries() if not comment] == []


def test_comments_name_the_choices_there_are() -> None:
    """Choices named in a comment exist, and without "..." none is missing."""
    for group, _, comment in entries():
        if group not in FOLDERS or not listed(comment):
            continue
        choices = {path.stem for path in (CONFIGS / group).glob("*.yaml")}
        assert set(listed(comment)) <= choices, (group, comment)
        if "..." not in comment:
            assert set(listed(comment)) == choices, (group, comment)


def test_every_choice_says_what_it_is() -> None:
    """Each YAML file begins with a comment for its reader."""
    for path in CHOICES:
        lines = path.read_text(encoding="utf-8").splitlines()
        said = [line for line in lines if line.startswith("# ") and "@package" not in line]
        assert said and lines.index(said[0]) <= 1, path


@pytest.mark.parametrize("words", [["seed=3"], ["model.depth=2"], ["no_such=1"], ["model=no"]])
def test_compose_leaves_no_global_state(words: list[str]) -> None:
    """Hydra's globals are free afterwards, whether the words made a config or not."""
    for _ in range(2):
        with contextlib.suppress(UserError):
            compose(words)
        assert not GlobalHydra.instance().is_initialized()
        assert not HydraConfig.initialized()


def test_what_was_composed_before_is_as_hydra_composes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only words that are no plain values are composed anew; the config is that of Hydra's own `compose`."""
    asked = [
        ["activation=relu", "model.depth=2", "seed=0", "hydra.run.dir='a b'"],  # composed anew each time
        ["seed=1", "activation=relu"],
        ["activation=tanh", "name='a,b'", "train.max_steps=5"],
        ["train.max_steps=null", "optimizer.lr=1e-3", "seed=1", "seed=2"],
        ["optimizer=adam", "optimizer.betas=[0.8,0.9]", "+model.new=1", "~scheduler"],
        ["+model.new=1", "optimizer.lr=1", "~scheduler", "optimizer=adam", "optimizer.betas=[0.8,0.9]"],
        ["outputs=${name}/x", "data=csv", "data.path=${oc.env:HOME}"],
        ["hydra.job.chdir=true", "seed=3"],
        ["seed=3", "++seed=4"],
        ["++seed=4", "seed=3"],
        ["name=a", "name={a:1}"],
        ["model.depth=4", "~model.depth"],
        ["model.depth=4", "++model.depth=2", "model.width=3"],
    ]
    kinds = _Kinds()
    monkeypatch.setattr("dlexp.compose._KINDS", kinds)
    compose(asked[1])
    monkeypatch.chdir(tmp_path)  # which the config of each call notes
    with initialize_config_dir(str(CONFIGS), job_name="dlexp", **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        for words in asked:
            expected = hydra.compose("config", words, return_hydra_config=True)
            for _ in range(2):
                found = _composed(words, loader)
                assert OmegaConf.to_container(found) == OmegaConf.to_container(expected), words
                assert OmegaConf.is_struct(found) and not OmegaConf.is_readonly(found)
                found.seed = 99  # a config belongs to who asked for it
    assert len(kinds) == 11


def test_a_file_that_was_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the words are the same."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.setattr("dlexp.compose.CONFIGS", tmp_path / "configs")
    path = tmp_path / "configs" / "optimizer" / "sgd.yaml"
    assert compose([]).config.optimizer.lr == 0.1
    path.write_text(path.read_text().replace("lr: 0.1", "lr: 0.7"))
    assert compose([]).config.optimizer.lr == 0.7
    with pytest.raises(UserError, match="optimizer=mine: no such choice"):
        compose(["optimizer=mine"])
    shutil.copy(path, path.with_stem("mine"))
    assert compose(["optimizer=mine"]).choices["optimizer"] == "mine"


def test_compose_takes_words_into_the_config() -> None:
    """Choices, values and what was typed are all in the request."""
    request = compose(["model.depth=7", "activation=tanh", "seed=3"])
    assert request.config.model.depth == 7 and request.config.seed == 3
    assert request.choices["activation"] == "tanh" and request.choices["data"] == "digits"
    assert request.overrides == ["model.depth=7", "activation=tanh", "seed=3"]
    assert "hydra" not in request.config and request.folder is None


@pytest.mark.parametrize(
    ("words", "name"),
    [([], "mlp_digits"), (["model=linear", "data=mnist"], "linear_mnist"), (["name=mine"], "mine")],
)
def test_a_run_is_named_after_model_and_data(words: list[str], name: str) -> None:
    """name=auto is <model>_<data>; another name is kept."""
    assert compose(words).config.name == name


def test_one_string_is_not_a_list_of_words() -> None:
    """dlexp.run("seed=3") is refused with what to write instead."""
    with pytest.raises(UserError, match=r"'seed=3' is one string; dlexp takes a list of words: \['seed=3'\]"):
        compose("seed=3")


def test_options_of_the_command_are_no_words() -> None:
    """A sweep is for a terminal."""
    with pytest.raises(
        UserError, match=r"^-m: an option of dlexp in a terminal; here there are words, key=value$"
    ):
        compose(["-m", "seed=0,1"])
    with pytest.raises(UserError, match=r"^--depth=3: is no option; write model.depth=3$"):
        compose(["--depth=3"])


def test_debug_wins_over_train_and_leaves_what_is_typed() -> None:
    """debug comes last in the list, so that its values hold; it has none for what is recorded."""
    config = compose(["debug=quick", "record=off"]).config
    assert config.train.max_steps == 5 and config.record.every == "never"
    due = schedule(compose(["debug=quick"]).config.record.every, 5)
    assert all(map(due, range(5))), "all of the five steps are recorded"
    assert compose(["debug=gradient_check", "record=off"]).config.record.every == "never"
