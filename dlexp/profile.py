"""How the error signal changes from layer to layer: its profile over depth, and one number for it.

L layers with weights; the last one, or several heads side by side, give the outputs, the others are hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

QUANTITY = "delta_rms"


def profile(layers: Sequence[Mapping[str, Any]], end: str) -> list[float | None]:
    """`delta_rms` of the layers with weights, in the order in which they run; output layers are one place.

    The stream of a residual network has no weights and is no layer of its own here; of a cell the value
    is that over all its time steps.

    Args:
        layers: those of summary.json.
        end: "first" or "last" recorded step.

    Returns:
        (L,) None where there is no number.
    """
    hidden, last = hidden_and_outputs(layers)
    found = [(layer.get(end) or {}).get(QUANTITY) for layer in hidden]
    return [*found, *([_together(last, end)] if last else [])]


def with_weights(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of the layers of a summary that are no streams."""
    return [layer for layer in layers if layer.get("parameters") != 0]


def hidden_and_outputs(
    layers: Sequence[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The hidden layers with weights, and those that give the outputs: the last one, or all heads."""
    found = with_weights(layers)
    n = len(found) - 1
    while n > 0 and _side_by_side(found[n - 1], found[n]):
        n -= 1
    n = max(n, 0)
    return found[:n], found[n:]


def _side_by_side(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Two members of a list of layers that take the same inputs, and of which none can feed the other.

    Such are the heads of a network, heads.0 and heads.1: what (1, 64) weights give does not fit (1, 64)
    weights, so the order in which they run is no depth.
    """
    fed = (one.get("last") or {}).get("jacobian_factor") is not None
    if fed or one.get("kind") != other.get("kind"):
        return False
    lists = []
    for layer in (one, other):
        inside, _, place = str(layer.get("path", "")).rpartition(".")
        lists.append(inside if place.isdecimal() else "")
    a, b = (list(layer.get("shape") or ()) for layer in (one, other))
    return lists[0] == lists[1] != "" and len(a) > 1 and a[1:] == b[1:] and a[0] != b[1]


def _together(layers: Sequence[Mapping[str, Any]], end: str) -> float | None:
    """`delta_rms` of layers side by side, as of a layer with the units of all of them."""
    if len(layers) == 1:
        found: float | None = (layers[0].get(end) or {}).get(QUANTITY)
        return found
    known = [((layer.get(end) or {}).get(QUANTITY), layer["shape"][0]) for layer in layers]
    squares = [(units * x * x, units) for x, units in known if x is not None]
    return math.sqrt(sum(x for x, _ in squares) / sum(units for _, units in squares)) if squares else None


def factor(deltas: Sequence[float | None]) -> float | None:
    """By which factor `delta_rms` changes in a hidden layer on its way back: the geometric mean.

    The factors delta[l] / delta[l+1] of neighbours multiply to delta[first] / delta[last], so with H
    hidden layers it is that to the power 1 / (H - 1). The step from the outputs to the last hidden layer
    does not count: its matrix has other fans, and He's initialization, say, does not keep the signal
    there. 0 if nothing arrives at the first layer. Where numbers are missing the outermost that are there
    count; None if there are not two of them, as with a single hidden layer, or if they say nothing (0/0).

    Args:
        deltas: (L,) `delta_rms`, the last one of the outputs.
    """
    known = [(i, x) for i, x in enumerate(deltas[:-1]) if x is not None and math.isfinite(x)]
    if len(known) < 2:
        return None
    (i, first), (j, last) = known[0], known[-1]
    if not last:
        return None
    return math.exp((math.log(first) - math.log(last)) / (j - i)) if first else 0.0


def mean_profile(profiles: Sequence[Sequence[float | None]]) -> list[float | None]:
    """The geometric mean over runs, layer by layer, of the runs that have a number there."""
    longest = max(map(len, profiles), default=0)
    columns = [[own[i] for own in profiles if i < len(own)] for i in range(longest)]
    return [_geometric_mean([x for x in column if x is not None]) for column in columns]


def _geometric_mean(values: Sequence[float]) -> float | None:
    if not values or min(values) <= 0:
        return 0.0 if values else None
    return math.exp(math.fsum(map(math.log, values)) / len(values))
