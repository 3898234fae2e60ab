"""What theory says of a profile is what networks measure; where it says nothing, nothing is said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dlexp
from dlexp.theory import slopes

DEEP = ["model.depth=12", "model.width=256", "train.batch_size=256", "train.max_steps=1"]


def measured(result: Any, quantity: str) -> float:
    """The factor per layer on the way back, from a line through log(quantity) over the hidden layers."""
    values = np.array([layer["first"][quantity] for layer in result.summary["layers"]][1:-1])
    return math.exp(-float(np.polyfit(np.arange(len(values)), np.log(values), 1)[0]))


@pytest.mark.parametrize(
    "words",
    [
        ["activation=relu", "initializer=kaiming_normal"],
        ["activation=relu", "initializer=xavier_uniform"],
        ["activation=relu", "initializer=normal", "initializer.std=0.05"],
        ["activation=relu", "initializer=uniform"],
        ["activation=relu", "initializer=pytorch_default"],
        ["activation=identity", "initializer=orthogonal"],
        ["activation=identity", "initializer=lecun_normal"],
        ["activation=relu", "initializer=kaiming_normal", "normalization=batch"],
    ],
)
def test_networks_measure_what_theory_says(words: list[str], tmp_path: Path) -> None:
    result = dlexp.run([*DEEP, *words, f"outputs={tmp_path}"], quiet=True)
    said = slopes(result.summary)
    drawn_biases = "initializer=pytorch_default" in words  # which feed the signal anew
    assert set(said) == {"delta_rms"} | (set() if drawn_biases else {"activation_rms"})
    for quantity, slope in said.items():
        assert measured(result, quantity) == pytest.approx(slope.factor, rel=0.05), quantity


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "softsign"])
@pytest.mark.parametrize("initializer", ["xavier_normal", "kaiming_normal"])
def test_no_network_is_above_the_bound(activation: str, initializer: str, tmp_path: Path) -> None:
    words = [f"activation={activation}", f"initializer={initializer}", f"outputs={tmp_path}"]
    result = dlexp.run([*DEEP, *words], quiet=True)
    slope = slopes(result.summary)["delta_rms"]
    assert slope.is_bound
    assert 0.5 * slope.factor < measured(result, "delta_rms") < slope.factor


@pytest.mark.parametrize(
    "words",
    [
        ["model=cnn"],
        ["model.depth=2"],
        ["activation=gelu"],
        ["normalization=layer"],
        ["normalization=batch", "activation=tanh"],
        ["dropout=standard"],
        ["initializer=constant"],
        ["initializer.bias=0.5"],
        ["normalization=batch", "train.batch_size=4"],
        ["regularizer=weight_noise"],
        ["initializer=uniform", "initializer.a=0"],
    ],
)
def test_where_theory_is_silent(words: list[str], tmp_path: Path) -> None:
    short = ["train.max_steps=1", "model.depth=3"] if words != ["model=cnn"] else ["train.max_steps=1"]
    result = dlexp.run([*short, *words, f"outputs={tmp_path}"], quiet=True)
    assert slopes(result.summary) == {}
    assert slopes({}) == {}
