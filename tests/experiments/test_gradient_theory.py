"""What pages state as theory, against numbers that are known by other means."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import pytest

from dlexp.lab.jobs import load

PAGES = Path(__file__).parents[2] / "experiments"


def page(slug: str) -> ModuleType:
    return load(PAGES / f"{slug}.py")


@pytest.mark.parametrize(
    ("activation", "gain", "factor"),
    [
        ("identity", 3, 3),
        ("relu", 3, 3 / math.sqrt(2)),
        # E[sech^4] over a normal of width s >> 1 is its integral 4/3 times the density 1 / (s sqrt(2 pi)).
        ("tanh", 1000, math.sqrt(1000 * 4 / 3 / math.sqrt(2 * math.pi))),
        ("sigmoid", 0.01, 0.01 / 4),
    ],
)
def test_exploding_cause_has_the_factors_of_wide_layers(activation: str, gain: float, factor: float) -> None:
    assert page("exploding_cause").theory(activation, gain, 20) == pytest.approx(factor, rel=0.01)


@pytest.mark.parametrize(
    ("activation", "norm", "factor"),
    [
        ("relu", "batch norm", math.sqrt(math.pi / (math.pi - 1))),
        ("relu", "layer norm", 1),
        ("identity", "batch norm", 1),
    ],
)
def test_batchnorm_depth_has_the_factors_of_wide_layers(activation: str, norm: str, factor: float) -> None:
    assert page("batchnorm_depth").theory(activation, norm) == pytest.approx(factor, rel=1e-3)


def test_an_odd_activation_has_no_mean_to_take_out() -> None:
    theory = page("batchnorm_depth").theory
    assert theory("tanh", "batch norm") == pytest.approx(theory("tanh", "layer norm"))
    assert theory("sigmoid", "batch norm") > 1 > theory("sigmoid", "layer norm")


def test_a_recurrent_net_of_small_weights_passes_its_gain() -> None:
    """Only the inputs keep tanh from the slope of 1 that it has at 0."""
    assert page("rnn_gradient_flow").theory(0.01) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(("dtype", "update"), [("float32", 1e-10), ("float32", 1e-9), ("float64", 1e-18)])
def test_lr_vs_gradient_knows_which_weights_move(dtype: str, update: float) -> None:
    own = page("lr_vs_gradient")
    seen = own.arithmetic(seed=0, dtype=dtype, update=update)["after_1"]
    assert own.moved(update, own.BITS[dtype]) == pytest.approx(seen, abs=0.01)


def test_clipping_reads_what_is_known_of_a_network() -> None:
    clipped = page("gradient_clipping").clipped
    by_norm, by_value = (clipped(seed=0, clip=clip, threshold=0.5) for clip in ("by_norm", "by_value"))
    assert by_norm["raw"] == by_value["raw"] > 1
    assert by_norm["cosine"] == pytest.approx(1) and by_value["cosine"] < 0.9
