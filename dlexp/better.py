"""Which way a metric is better; known to training and to reports."""

from __future__ import annotations

# Of all others more is better.
LOWER_IS_BETTER = (
    *("loss", "error_rate", "zero_one", "ece"),
    *("mse", "rmse", "mae", "bits_per_character", "two_sample"),
)


def lower_is_better(tag: str) -> bool:
    """Of a metric, or of its value on a split: "loss", "loss/validation"."""
    return tag.partition("/")[0] in LOWER_IS_BETTER
