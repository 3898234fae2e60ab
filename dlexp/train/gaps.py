"""Where the error comes from: the steps from the best possible error up to that on the validation split.

After A. Ng, Machine Learning Yearning 2018, chapters 20 to 22 and 40 to 43:

    best error  + avoidable bias  = error on train
                + variance        = error on train_dev (on validation, where there is no train_dev)
                + mismatch        = error on validation, whose samples come from elsewhere
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Metrics that say which share is right, and those that are an error themselves.
SHARES = (
    *("accuracy", "precision", "recall", "f1", "auc", "rounded_accuracy"),
    *("exact_match", "sequence_accuracy", "ndcg", "nearest_neighbour"),
)
ERRORS = ("error_rate", "mse", "rmse", "mae", "bits_per_character")


def gaps(
    metrics: Mapping[str, float | None], names: Iterable[str], best_error: float | None
) -> dict[str, Any]:
    """Each step as a number, None where one of its ends is not known, and which error it is counted in.

    Args:
        metrics: of the weights that are left, e.g. {"accuracy/train": 0.99}; None if not finite.
        names: of the metrics; the first that is an error or a share counts, without one the loss.
        best_error: that of a human or of the best answer there is, in the same error.
    """
    name = measure(names)

    def error(split: str) -> float | None:
        x = metrics.get(f"{name}/{split}")
        return 1 - x if x is not None and name in SHARES else x

    train, validation = error("train"), error("validation")
    train_dev = error("train_dev")
    apart = f"{name}/train_dev" in metrics
    return {
        "quantity": f"1 - {name}" if name in SHARES else name,
        "best_error": best_error,
        "avoidable_bias": _step(best_error, train),
        "variance": _step(train, train_dev if apart else validation),
        "mismatch": _step(train_dev, validation),
        "dev_train": _step(train, validation),
    }


def measure(names: Iterable[str]) -> str:
    """The first of the metrics that is an error or a share of what is right, or the loss."""
    return next((name for name in names if name in (*SHARES, *ERRORS)), "loss")


def known_best(name: str, task: str, facts: Mapping[str, Any]) -> float | None:
    """The smallest error there is, where the data knows it: data=gaussians does, and curves with noise."""
    if name in ("accuracy", "error_rate") and task in ("binary", "classification"):
        return facts.get("bayes_error")
    if name in ("rmse", "mse") and task == "regression" and "best_rmse" in facts:
        noise = float(facts["best_rmse"])
        return noise if name == "rmse" else noise**2
    return None


def _step(low: float | None, high: float | None) -> float | None:
    return None if low is None or high is None else high - low
