"""Every word that is suggested is one that dlexp takes, on the config of the run it is suggested for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from made import made
from omegaconf import OmegaConf

from dlexp import compose
from dlexp.build.assemble import assemble
from dlexp.build.check import check
from dlexp.diagnose import remedies, signals, training
from dlexp.diagnose.finding import Finding
from dlexp.diagnose.order import ORDER
from dlexp.diagnose.remedies import applied
from dlexp.errors import UserError
from dlexp.words import split_words

SUITE = yaml.safe_load((Path(__file__).parents[1] / "benchmarks/diagnosis_suite.yaml").read_text())
L = 7


def faulty(choices: dict[str, str], config: dict[str, Any]) -> list[Finding]:
    """Every rule's finding on a network of this config, by evidence on which all of them fire."""
    ones, n = np.ones(L), 41
    cells = np.array([True] + [False] * (L - 1))
    fading = np.tile([*np.geomspace(1e-9, 1e-3, L - 1), 1.0], (n, 1))
    common = {"choices": choices, "config": config, "loss": np.full(n, 3.0), "metrics": {"loss/train": 3.0}}
    alike = {("distinct_rows", end): ones / 64 for end in ("first", "last")}
    dead = {("dead_units", end): ones for end in ("first", "last")}
    died = {("dead_units", "first"): 0 * ones, ("dead_units", "last"): ones}
    flat = {("slope_mean", end): 0.01 * ones for end in ("first", "last")}
    still = {("displacement", "last"): 1e-5 * ones}
    through = np.tile(np.geomspace(1e-12, 1e-3, 20), (n, 1))
    frozen = np.full((n, L), 1e-3)
    frozen[:, 1] = 0.0
    rising = np.concatenate([np.linspace(2, 1, 8), np.linspace(1, 9, 12)])
    found = [
        signals.non_finite(made(**common | {"loss": np.full(n, np.nan)})),
        signals.non_finite(made(**common, diverged={"step": 9}, status="diverged")),
        signals.symmetric(made(**common, looks=alike)),
        signals.exploding(made(**common, quantities={"delta_rms": fading[:, ::-1]})),
        signals.exploding(made(**common, cells=cells, over_time={("delta_rms", 0): through[:, ::-1]})),
        signals.vanishing(made(**common, quantities={"delta_rms": fading})),
        signals.vanishing(made(**common, cells=cells, over_time={("delta_rms", 0): through})),
        signals.born_dead(made(**common, looks=dead)),
        signals.died(made(**common, looks=died)),
        signals.saturated(made(**common, looks=flat, activations=("Tanh",) * L)),
        signals.bad_init_scale(made(**common | {"loss": np.full(n, 99.0), "metrics": {}})),
        signals.input_scale(made(**common, inputs=(0.0, 99.0))),
        training.lr_too_high(made(**common, quantities={"update_ratio": np.ones((n, L))})),
        training.lr_too_low(made(**common, looks=still)),
        training.unstable_loss(made(**common, validation=np.array([0.7, 1.5, 2.3])[np.arange(20) % 3])),
        training.overfit(made(**common | {"metrics": {"loss/train": 0.1}}, validation=rising)),
        training.frozen_layer(made(**common, quantities={"update_ratio": frozen})),
        training.not_learning(made(**common)),
    ]
    if "standardize_targets" in config["data"]:
        raw = config | {"data": config["data"] | {"standardize_targets": False}}
        found.append(signals.target_scale(made(**common | {"config": raw}, zero=999.0)))
    missing = [n for n, one in enumerate(found) if one is None]
    assert missing in ([], [16]), missing  # frozen on purpose
    assert len({one.id for one in found if one}) >= 13
    return [one for one in found if one]


def model_of(case: dict[str, Any]) -> str:
    return str(split_words(case["words"].split()).get("model", "mlp"))


ONE_OF_EACH = {model_of(case): case["words"].split() for case in reversed(SUITE)}  # of each model the first


# What else a run may have been asked for; each is tried on each model that takes it.
CONFIGS = Path(compose.__file__).parents[1] / "configs"
NORMALIZED = [
    *([f"normalization={name}"] for name in ("batch", "layer", "rms", "group")),
    *([f"normalization={name}", "normalization.position=after"] for name in ("batch", "layer")),
]
STARTED = [
    words.split()
    for words in (
        "initializer=xavier_normal initializer.gain=3",
        "initializer=xavier_normal initializer.bias=0.5 activation=tanh",
        "initializer=kaiming_normal initializer.bias=0.5 initializer.mode=fan_out",
        "initializer=pytorch_default initializer.bias=-2",
        "initializer=lecun_normal initializer.nonlinearity=tanh activation=selu",
        "initializer=normal initializer.std=0.3 initializer.bias=null",
    )
]
# No remedy asks for these and the model at once: one model is enough.
OTHER = [
    [f"{group}={path.stem}"]
    for group in ("head", "optimizer")
    for path in sorted((CONFIGS / group).glob("*.yaml"))
]
SHIPPED = [model for model in ONE_OF_EACH if model != "custom"]


def each(models: Iterable[str]) -> pytest.MarkDecorator:
    """All tests of a model before those of the next: they compose much of the same."""
    return pytest.mark.parametrize("model", models, scope="module")


def suggested(typed: list[str], request: compose.Request | None = None) -> set[tuple[str, ...]]:
    request = request or compose.compose(typed)
    config: Any = OmegaConf.to_container(request.config)
    return {words for one in faulty(request.choices, config) for words in one.remedies}


@cache
def suggested_of(model: str) -> set[tuple[str, ...]]:
    """To the run of the suite with this model."""
    return suggested(ONE_OF_EACH[model])


@lru_cache(64)
def checked(words: tuple[str, ...]) -> compose.Request:
    """What is composed of words, all of whose values are allowed ones."""
    request = compose.compose(words)
    check(request)
    return request


@each(ONE_OF_EACH)
def test_every_override_of_every_rule_composes(model: str) -> None:
    """Of every rule, whether it would fire there or not; and all values are allowed ones."""
    assert suggested_of(model)
    for words in sorted(suggested_of(model)):
        checked(tuple(applied(ONE_OF_EACH[model], words)))


def test_targets_can_be_scaled() -> None:
    typed = ["data=diabetes", "data.standardize_targets=false"]
    assert ("data.standardize_targets=true",) in suggested(typed)
    check(compose.compose(applied(typed, ["data.standardize_targets=true"])))


def tried_out(model: str, asked: list[str], done: set[tuple[str, ...]]) -> bool:
    """Was there such a run? Then each suggestion that is not done composes, and builds if of the model."""
    typed = applied(ONE_OF_EACH[model], asked)
    try:
        made_of = compose.compose(typed)
        assemble(made_of, torch.device("cpu"))
    except UserError:
        return False
    for words in sorted(suggested(typed, made_of) - done):
        request = checked(tuple(applied(typed, words)))
        if any(word.startswith(("model", "normalization")) for word in words):
            assemble(request, torch.device("cpu"))
    return True


@each(SHIPPED)
def test_so_does_every_override_where_signals_are_normalized(model: str) -> None:
    """Of what is said of the model each can be built, also where normalization stands behind."""
    done = {
        words
        for words in suggested_of(model)
        if not any(word.startswith(("model", "normalization")) for word in words)
    }
    built = [asked for asked in NORMALIZED if tried_out(model, asked, done)]
    assert len(built) >= (2 if model in (*remedies.BENDS, *remedies.RECURRENT) else 0)


@each(SHIPPED)
def test_so_does_every_override_of_another_start(model: str) -> None:
    """Two starts on each model, others on the next."""
    done, turn = suggested_of(model), SHIPPED.index(model) % len(STARTED)
    in_turn = [*STARTED[turn:], *STARTED[:turn]]
    assert len(list(islice((asked for asked in in_turn if tried_out(model, asked, done)), 2))) == 2


def test_so_does_every_override_of_other_heads_and_optimizers() -> None:
    done = suggested_of("mlp")
    built = [asked for asked in OTHER if tried_out("mlp", asked, done)]
    assert len(built) >= 12


def test_all_rules_are_tried_above() -> None:
    assert len({rule.__name__ for rule in ORDER}) == 16  # fourteen, dead units and scales by two


def test_words_take_the_place_of_what_they_replace() -> None:
    words = ["initializer=normal", "initializer.std=0.3", "optimizer.lr=0.1", "model=rnn", "model.width=9"]
    assert applied(words, ["initializer=zeros", "model=lstm", "optimizer.lr=1"]) == [
        "model.width=9",  # an LSTM has a width, too
        "initializer=zeros",
        "model=lstm",
        "optimizer.lr=1",
    ]


def test_nothing_is_suggested_that_is_so_already() -> None:
    e = made(choices={"activation": "relu", "initializer": "normal", "model": "mlp"})
    assert remedies.known(e, remedies.relu(e), remedies.relu(e)) == (("initializer=kaiming_normal",),)


@pytest.mark.parametrize(
    ("activation", "initializer", "values", "said"),
    [
        ("relu", "kaiming_normal", {"bias": 0.5}, ("initializer.bias=0",)),
        ("relu", "kaiming_normal", {"bias": "random"}, ("initializer.bias=0",)),
        ("relu", "kaiming_normal", {"bias": 0.0, "mode": "fan_in", "nonlinearity": "relu"}, ()),
        ("relu", "xavier_normal", {"gain": 3.0}, ("initializer=kaiming_normal",)),
        ("sigmoid", "xavier_normal", {"gain": 3.0, "bias": 0.0}, ("initializer.gain=1",)),
        ("tanh", "xavier_normal", {"gain": 3.0, "bias": 0.0}, ("initializer.gain=1.6667",)),
    ],
)
def test_values_of_the_initializer_that_is_there_already_are_put_right(
    activation: str, initializer: str, values: dict[str, Any], said: tuple[str, ...]
) -> None:
    whole = dict(remedies.STARTS[initializer]) | values
    choices = {"activation": activation, "initializer": initializer, "model": "mlp"}
    e = made(choices=choices, config={"initializer": whole})
    assert remedies.known(e, remedies.matched(e)) == ((said,) if said else ())


def test_values_of_initializers_are_those_of_the_configs() -> None:
    for name, values in remedies.STARTS.items():
        config = OmegaConf.to_container(compose.compose([f"initializer={name}"]).config.initializer)
        assert {key: config[key] for key in config if not key.startswith("_")} == values  # type: ignore[index, union-attr]


@pytest.mark.parametrize(("lr", "factor", "said"), [(0.1, 0.1, "0.01"), (1e-5, 300, "0.002"), (1, 1e9, "20")])
def test_learning_rates_are_round(lr: float, factor: float, said: str) -> None:
    e = made(config={"optimizer": {"lr": lr}})
    assert remedies.learning_rate(e, factor) == (f"optimizer.lr={said}",)
    assert math.isfinite(float(said))
