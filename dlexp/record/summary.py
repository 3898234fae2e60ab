"""What the summary of a run says of its layers, of a loss that was not finite, and of versions."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import nn

import dlexp
from dlexp.record.probes import INDEX, QUANTITIES
from dlexp.record.recorder import Recorder
from dlexp.record.sinks import Row, finite, what


def layer_entries(recorder: Recorder) -> dict[str, Any]:
    """The `quantities`, `recorded` and `layers` of the summary."""
    first, last = recorder.first, recorder.last

    def numbers(row: Row | None, i: int) -> dict[str, float | None] | None:
        if row is None:
            return None
        column = row.table[:, i].tolist()
        return {
            name: None if (q, i) in row.reasons else finite(x)
            for q, (name, x) in enumerate(zip(QUANTITIES, column, strict=True))
        }

    def reasons(row: Row | None, i: int) -> dict[str, str]:
        """Why numbers are missing."""
        if row is None:
            return {}
        known = {QUANTITIES[q]: why for (q, at), why in row.reasons.items() if at == i}
        column = zip(QUANTITIES, row.table[:, i].tolist(), strict=True)
        return {name: what(x) for name, x in column if not np.isfinite(x)} | known

    def over_time(row: Row | None, i: int) -> dict[str, list[float | None]]:
        """Quantity -> a number for each time step, of a layer that ran several times."""
        series = {} if row is None else row.over_time
        return {name: [finite(x) for x in found.tolist()] for (name, at), found in series.items() if at == i}

    return {
        "quantities": list(QUANTITIES),
        "recorded": {"first": first and first.step, "last": last and last.step},
        "layers": [
            {
                "name": layer.name,
                "path": layer.path,
                "kind": layer.kind,
                "shape": list(layer.shape),
                "parameters": layer.parameters,
                "first": numbers(first, i),
                "last": numbers(last, i),
                "reasons": {"first": reasons(first, i), "last": reasons(last, i)},
                "over_time": {"first": over_time(first, i), "last": over_time(last, i)},
            }
            for i, layer in enumerate(recorder.layers)
        ],
    }


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
        own = model.get_submodule(layer.path).parameters(recurse=False)
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
    found = {"dlexp": dlexp.__version__, "python": platform.python_version()}
    for package in ("torch", "torchvision", "hydra-core", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
