"""Evidence made by hand: a healthy network, and whatever is wrong with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlexp.diagnose.evidence import Evidence

LAYERS, RECORDED, TRAINED = 7, 41, 600
CHANCE = float(np.log(10))
MLP = {"model": "mlp", "activation": "relu", "initializer": "pytorch_default", "normalization": "none"}
MLP |= {
    "optimizer": "sgd",
    "loss": "cross_entropy",
    "dropout": "none",
    "regularizer": "none",
    "data": "digits",
}
CONFIG: dict[str, Any] = {
    "model": {"depth": 6, "width": 64},
    "optimizer": {"lr": 0.1, "weight_decay": 0.0},
    "data": {"standardize": "channel"},
    "train": {"batch_size": 64},
    "initializer": {"bias": 0.0},
}


def table(column: Any, recorded: int = RECORDED) -> np.ndarray:
    """The same numbers of each layer in every recorded step."""
    return np.tile(np.asarray(column, float), (recorded, 1))


def made(layers: int = LAYERS, *, quantities: dict[str, Any] | None = None, **changes: Any) -> Evidence:
    """A healthy network of so many layers, the last of which answers, with what is changed."""
    steps = np.unique(np.linspace(0, TRAINED - 1, RECORDED).round())
    ones = np.ones(layers)
    healthy = {
        "grad_norm": table(0.1 * ones),
        "delta_rms": table(1e-3 * ones),
        "activation_rms": table(ones),
        "weight_norm": table(8 * ones),
        "update_ratio": table(2e-3 * ones),
        "dead_fraction": table(0.1 * ones),
        "saturated_fraction": table(np.nan * ones),
        "zero_grad_fraction": table(0.1 * ones),
    }
    looks = {
        ("distinct_rows", "first"): ones,
        ("distinct_rows", "last"): ones,
        ("slope_mean", "first"): 0.5 * ones,
        ("slope_mean", "last"): 0.5 * ones,
        ("dead_units", "first"): 0.1 * ones,
        ("dead_units", "last"): 0.1 * ones,
        ("displacement", "last"): 0.4 * ones,
    }
    whole: dict[str, Any] = {
        "layers": tuple(f"{i:02d}_linear" for i in range(1, layers + 1)),
        "steps": steps,
        "loss": np.geomspace(CHANCE, 0.2, len(steps)),
        "quantities": healthy | (quantities or {}),
        "trained": TRAINED,
        "kinds": ("Linear",) * layers,
        "shapes": ((64, 64),) * (layers - 1) + ((10, 64),),
        "activations": ("ReLU",) * (layers - 1) + (None,),
        "looks": looks | changes.pop("looks", {}),
        "evaluated": np.linspace(30, TRAINED - 1, 20),
        "validation": np.geomspace(2.2, 0.3, 20),
        "metrics": {"loss/train": 0.2},
        "chance": CHANCE,
        "inputs": (0.0, 1.0),
        "choices": MLP,
        "config": CONFIG,
    }
    return Evidence(**whole | changes)


def stuck(**changes: Any) -> Evidence:
    """The same, with a loss that does not come down."""
    flat = {"loss": np.full(RECORDED, CHANCE), "metrics": {"loss/train": CHANCE}}
    return made(**{**flat, "validation": np.full(20, CHANCE), **changes})


def decades(total: float, layers: int = LAYERS) -> np.ndarray:
    """delta_rms of hidden layers that grows by so many decades towards the output, which stands apart."""
    hidden = 1e-3 * 10 ** np.linspace(0, total, layers - 1)
    return table([*hidden, 1.0])
