"""What the summary of a run says of its layers, of a loss that was not finite, and of versions."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import nn

import dlexp
from dlexp import parameters
from dlexp.code import CODE
from dlexp.record.look import LOOKS, NOT_REACHED, Found, Look, jacobian_factors
from dlexp.record.probes import INDEX, QUANTITIES
from dlexp.record.recorder import Recorder
from dlexp.record.sinks import Row, finite, what


def layer_entries(
    recorder: Recorder, look: Look | None = None, *, unlooked: str = NOT_REACHED
) -> dict[str, Any]:
    """The `quantities`, `looks`, `recorded` and `layers` of the summary.

    Args:
        look: what was looked at beside the recorded steps, at both ends of training.
        unlooked: why nothing was.
    """
    first, last = recorder.first, recorder.last
    ends = {
        "first": _found(first, look.first if look else None, unlooked) if first else None,
        "last": _found(last, look.last if look else None, unlooked) if last else None,
    }

    def numbers(end: str, i: int) -> dict[str, float | None] | None:
        found = ends[end]
        return {name: None if isinstance(x, str) else x for name, x in found[i].items()} if found else None

    def reasons(end: str, i: int) -> dict[str, str]:
        """Why numbers are missing."""
        found = ends[end]
        return {name: x for name, x in found[i].items() if isinstance(x, str)} if found else {}

    def over_time(row: Row | None, i: int) -> dict[str, list[float | None]]:
        """Quantity -> a number for each run (time step of a cell), of a layer that ran several times."""
        series = {} if row is None else row.over_time
        return {name: [finite(x) for x in found.tolist()] for (name, at), found in series.items() if at == i}

    return {
        "quantities": list(QUANTITIES),
        "looks": list(LOOKS),
        "recorded": {"first": first and first.step, "last": last and last.step},
        "layers": [
            {
                "name": layer.name,
                "path": layer.path,
                "kind": layer.kind,
                "shape": list(layer.shape),
                "parameters": layer.parameters,
                "is_cell": layer.is_cell,
                "activation": look.activations[i] if look else None,  # the class of the module behind it
                "first": numbers("first", i),
                "last": numbers("last", i),
                "reasons": {"first": reasons("first", i), "last": reasons("last", i)},
                "over_time": {"first": over_time(first, i), "last": over_time(last, i)},
            }
            for i, layer in enumerate(recorder.layers)
        ],
    }


def _found(row: Row, looked: Sequence[Mapping[str, Found]] | None, unlooked: str) -> list[dict[str, Found]]:
    """For each layer: name -> a finite number, or why there is none."""
    found: list[dict[str, Found]] = [
        {name: row.reasons.get((q, i), x) for q, (name, x) in enumerate(zip(QUANTITIES, column, strict=True))}
        for i, column in enumerate(row.table.T.tolist())
    ]
    factors = jacobian_factors([own["delta_rms"] for own in found])
    missing = dict.fromkeys(LOOKS, unlooked)
    for own, more, factor in zip(found, looked or [missing] * len(found), factors, strict=True):
        own |= {"jacobian_factor": factor, **more}
        if isinstance(factor, str):  # it says more
            own["jacobian_factor"] = factor
        own |= {name: what(x) for name, x in own.items() if isinstance(x, float) and finite(x) is None}
    return found


def first_bad_layer(recorder: Recorder, step: int) -> dict[str, str | None]:
    """Where numbers stopped being finite at a step whose loss was not, as far as its record tells."""
    row = recorder.last
    if row is None or row.step != step:
        return {"layer": None, "reason": "the step was not among those recorded"}
    place = place_of_trouble(row)
    if place is None:
        return {
            "layer": recorder.layers[-1].name,
            "reason": "its output is finite, but too large for the loss",
        }
    return {"layer": recorder.layers[place[0]].name, "reason": f"its {place[1]} is not finite"}


def first_bad_weights(recorder: Recorder, model: nn.Module) -> dict[str, str | None]:
    """Where the last update left weights that are not finite, told by a loss after the last step."""
    for layer in recorder.layers:
        own = parameters.own(model.get_submodule(layer.path)).values()
        if not all(bool(torch.isfinite(p).all()) for p in own):
            return {"layer": layer.name, "reason": "the last update made its weights not finite"}
    return {"layer": None, "reason": "the loss on the test split, after the last update"}


def place_of_trouble(row: Row) -> tuple[int, str] | None:
    """Where numbers stop being finite: the index of the layer and the quantity; None if nowhere.

    Forward first: a layer whose weights or activation are not finite spoils all that follow it.
    If forward is clean, backward: the last layer whose delta or gradient is not finite.
    """

    def bad(*names: str) -> list[tuple[int, str]]:
        table, gaps = row.table, row.reasons
        places = ((i, INDEX[name]) for i in range(table.shape[1]) for name in names)
        return [(i, QUANTITIES[q]) for i, q in places if not np.isfinite(table[q, i]) and (q, i) not in gaps]

    forward, backward = bad("weight_norm", "activation_rms"), bad("delta_rms", "grad_norm")
    return forward[0] if forward else backward[-1] if backward else None


def versions() -> dict[str, str]:
    """Of dlexp and what its numbers depend on."""
    installed = {name: _version(name) for name in ("torch", "torchvision", "hydra-core", "numpy")}
    own = {"dlexp": dlexp.__version__, "code": CODE, "python": platform.python_version()}
    return own | {name: number for name, number in installed.items() if number}


@cache  # none changes while a process runs
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
