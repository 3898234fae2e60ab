"""The factor by which the error changes from layer to layer: by hand, and against a fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dlexp.profile import factor, mean_profile, profile


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([1.0, 2.0, 4.0, 100.0], 0.5),  # the last one is that of the outputs
        ([0.01, 0.04, 0.16, 0.1], 0.25),
        ([8.0, 1.0, 2.0, 1.0], 2.0),  # sqrt(8 / 2)
        ([1.0, None, 4.0, 1.0], 0.5),  # two steps from 1 to 4
        ([None, 1.0, 2.0, 1.0], 0.5),
        ([1.0, 2.0, None, 1.0], 0.5),
        ([0.0, 1.0, 2.0, 1.0], 0.0),  # nothing arrives at the first layer
        ([0.0, 0.0, 0.0, 1.0], None),
        ([1.0, 2.0], None),  # a single hidden layer
        ([None, 1.0, None, 1.0], None),
        ([1.0], None),
        ([], None),
        ([math.inf, 1.0, 2.0, 1.0], 0.5),
    ],
)
def test_the_factor_is_a_geometric_mean(deltas: list[float | None], expected: float | None) -> None:
    """Of neighbouring hidden layers, as worked out by hand."""
    assert factor(deltas) == (expected if expected is None else pytest.approx(expected, rel=1e-12))


def test_the_factor_is_that_of_all_neighbours() -> None:
    """Their logarithms averaged; on a straight line it is the slope of a fit."""
    deltas = np.exp(np.random.default_rng(0).normal(size=9)).tolist()
    ratios = np.array(deltas[:-2]) / np.array(deltas[1:-1])
    assert factor(deltas) == pytest.approx(np.exp(np.log(ratios).mean()), rel=1e-12)
    line = [1e-3 * 0.24**-i for i in range(9)]
    slope = np.polyfit(range(8), np.log(line[:-1]), 1)[0]
    assert factor(line) == pytest.approx(np.exp(-slope)) == pytest.approx(0.24)


def test_streams_are_no_layers() -> None:
    """A row without weights is left out; a run that recorded nothing has no numbers."""
    found: list[dict[str, Any]] = [{"parameters": 20, "last": {"delta_rms": x}} for x in (1.0, 2.0, 3.0)]
    found[1] |= {"kind": "Stream", "parameters": 0}
    assert profile(found, "last") == [1.0, 3.0]
    found[0]["last"] = None
    assert profile(found, "last") == [None, 3.0]


def test_runs_are_averaged_layer_by_layer() -> None:
    """Geometrically; a missing number is left out, a zero makes zero."""
    means = mean_profile([[1.0, None, 0.0, None], [4.0, 3.0, 1.0, None]])
    assert means == [pytest.approx(2.0), pytest.approx(3.0), 0.0, None]
