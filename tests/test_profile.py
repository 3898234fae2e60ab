"""The factor by which the error changes from layer to layer: by hand, and against a fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dlexp.profile import factor, hidden_and_outputs, mean_profile, profile


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


def head(path: str, delta: float | None, shape: tuple[int, ...] = (1, 8), **more: Any) -> dict[str, Any]:
    last = {"delta_rms": delta, **more}
    return {"path": path, "kind": "Linear", "shape": list(shape), "parameters": 9, "last": last}


TRUNK = [head(f"trunk.{n}", x, (8, 8), jacobian_factor=0.5) for n, x in enumerate((0.25, 0.5))]


@pytest.mark.parametrize(
    ("end", "hidden"),
    [
        ([head("heads.0", 3.0), head("heads.1", 4.0)], 2),
        ([head("heads.0", 3.0, (2, 8)), head("heads.1", 4.0, (5, 8))], 2),
        ([head("out", 3.0)], 2),
        ([head("tail.0", 3.0, (4, 8)), head("tail.2", 4.0, (1, 4))], 3),  # one feeds the other
        ([head("tail.0", 3.0, (8, 8)), head("tail.1", 4.0, (8, 8))], 3),  # it could
        ([head("heads.0", 3.0, jacobian_factor=1.0), head("heads.1", 4.0)], 3),  # it does
        ([head("first", 3.0), head("second", 4.0)], 3),  # of no list
    ],
)
def test_heads_stand_side_by_side(end: list[dict[str, Any]], hidden: int) -> None:
    """Where they are of one list, take the same inputs, and none can feed the next."""
    found, outputs = hidden_and_outputs([*TRUNK, *end])
    assert len(found) == hidden and found + outputs == [*TRUNK, *end]


def test_heads_together_are_one_layer() -> None:
    """The root mean square over the units of all; the factor is that of the trunk."""
    heads = [head("heads.0", 3.0, (1, 8)), head("heads.1", 4.0, (2, 8)), head("heads.2", None, (2, 8))]
    found = profile([*TRUNK, *heads], "last")
    assert found == [0.25, 0.5, pytest.approx(math.sqrt((9 + 2 * 16) / 3))]
    assert factor(found) == 0.5
    assert profile([*TRUNK, *[head(f"heads.{n}", None) for n in range(2)]], "last") == [0.25, 0.5, None]
    assert profile([], "last") == []
