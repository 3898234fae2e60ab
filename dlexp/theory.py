"""What theory says of a network before its first step: by which factor signals change per layer.

For an MLP whose hidden layers are of one width N, with biases that start at 0 and weights of variance v,
mean-field theory (Poole et al. 2016; Schoenholz et al. 2017) gives in wide layers, going back one layer,

    delta_rms     * sqrt(N v E[f'(z)^2])        activation_rms   / sqrt(N v E[f(z)^2] / E[a^2])

With a ReLU half of the squares are left each way, so with He's v = 2 / N both factors are 1. A sigmoid's
slope is at most 1/4, which bounds the first. grad_norm holds the gradient of the bias too, which has no
activation as a factor, so nothing is said of it. Behind batch normalization the scale of the weights cancels;
with ReLU each layer then multiplies delta_rms by sqrt(pi / (pi - 1)) on its way back (Yang et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

LARGE_BATCH = 32  # samples: the theory of batch normalization is that of many
STEEPEST = {"sigmoid": 0.25, "tanh": 1.0, "softsign": 1.0}  # the largest slope
# N v of Kaiming's initializers by their `nonlinearity`: the squares of torch.nn.init.calculate_gain
GAINS = {"relu": 2.0, "linear": 1.0, "sigmoid": 1.0, "tanh": 25 / 9, "selu": 9 / 16}


class Slope(NamedTuple):
    """By which factor a quantity changes per hidden layer on the way from the outputs to the inputs."""

    factor: float
    label: str
    is_bound: bool = False  # at most so much


def slopes(summary: Mapping[str, Any]) -> dict[str, Slope]:
    """Quantity -> what theory says of its profile at step 0; {} where it says nothing.

    Args:
        summary: what summary.json holds.
    """
    choices, config = summary.get("choices") or {}, summary.get("config") or {}
    model = config.get("model") or {}
    if choices.get("model") != "mlp" or not isinstance(model.get("width"), int) or model.get("depth", 0) < 3:
        return {}
    if choices.get("dropout", "none") != "none" or choices.get("regularizer") == "weight_noise":
        return {}
    activation, normalization = choices.get("activation"), choices.get("normalization", "none")
    if normalization == "batch":
        before = (config.get("normalization") or {}).get("position") == "before"
        large = ((config.get("train") or {}).get("batch_size") or 0) >= LARGE_BATCH
        return _batch_normalized() if activation == "relu" and before and large else {}
    gain = _gain(choices.get("initializer"), config.get("initializer") or {}, model["width"])
    if normalization != "none" or gain is None:
        return {}
    if activation in ("relu", "identity"):
        kept = math.sqrt(gain / 2 if activation == "relu" else gain)
        found = {"delta_rms": Slope(kept, f"theory: × {kept:.2g} per layer back")}
        if config["initializer"].get("bias") == 0:  # biases that are drawn feed the signal anew
            found["activation_rms"] = Slope(1 / kept, f"theory: × {kept:.2g} per layer onward")
        return found
    if activation in STEEPEST:
        bound = STEEPEST[activation] * math.sqrt(gain)
        return {"delta_rms": Slope(bound, f"theory: at most × {bound:.2g} per layer back", is_bound=True)}
    return {}


def _batch_normalized() -> dict[str, Slope]:
    factor = math.sqrt(math.pi / (math.pi - 1))
    label = f"theory: × {factor:.3g} per layer back"
    return {"delta_rms": Slope(factor, label), "activation_rms": Slope(1.0, "theory: × 1 per layer onward")}


def _gain(word: str | None, values: Mapping[str, Any], width: int) -> float | None:
    """N v: the variance of a weight times the width of the layers; None where it is not known."""
    if word is None or values.get("bias") not in (0, 0.0, None):
        return None
    if word.startswith("xavier_"):
        return float(values.get("gain", 1.0)) ** 2
    if word.startswith("kaiming_") and values.get("nonlinearity") in GAINS:
        return GAINS[values["nonlinearity"]]
    if word == "lecun_normal":
        return 1.0
    if word == "pytorch_default":
        return 1 / 3  # U(+-1/sqrt(N))
    if word in ("normal", "small_normal") and not values.get("mean"):
        return width * float(values["std"]) ** 2
    if word == "uniform" and values.get("a") == -values.get("b", 0.0):
        return width * float(values["b"]) ** 2 / 3
    if word == "orthogonal":
        return float(values.get("gain", 1.0)) ** 2
    return None
