"""What to try, as words for dlexp that compose on the config of the run; none where dlexp did not make it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dlexp.diagnose.evidence import Evidence
from dlexp.diagnose.finding import Words
from dlexp.words import key_of

# Models that take what their key says; others are somebody's own, or have no place for it.
BENDS = ("mlp", "cnn", "locally_connected", "residual_mlp", "resnet")  # activation=, normalization=batch
RECURRENT = ("rnn", "lstm", "gru", "char_lm")
DROPS = ("mlp", "cnn", "locally_connected", "residual_mlp", *RECURRENT)  # dropout=
# Values of a model that its successor knows too.
SHARED = ("model.depth", "model.width", "model.layers", "model.bias", "model.embedding", "model.recurrent")

SQUASHING = ("sigmoid", "tanh", "softsign", "hardtanh", "scaled_sigmoid", "sigmoid_plus")
FOR_TANH = ("tanh", "softsign", "hardtanh")
# What keeps the signal behind each activation; Kaiming's where half of it is cut off.
MATCHED = {
    **dict.fromkeys(("relu", "leaky_relu", "prelu", "elu", "gelu", "silu", "softplus"), "kaiming_normal"),
    **dict.fromkeys(("selu",), "lecun_normal"),
}
# The values of the initializers that are suggested, as in configs/initializer: what a run that has the word
# already may have changed.
STARTS: Mapping[str, Mapping[str, Any]] = {
    "kaiming_normal": {"mode": "fan_in", "nonlinearity": "relu", "bias": 0},
    "lecun_normal": {"mode": "fan_in", "nonlinearity": "linear", "bias": 0},
    "xavier_normal": {"gain": 1, "bias": 0},
    "pytorch_default": {"bias": None},
}
# Behind these a normalization undoes the scale of weights on either side.
KEEPS_SCALE = ("relu", "leaky_relu", "prelu", "abs", "identity")
LEAST_LR, MOST_LR = 1e-7, 20.0
GOOD_UPDATE = 10**-2.5  # of ||change of W|| / ||W||: a step that neither crawls nor jumps


def applied(words: Sequence[str], override: Sequence[str]) -> list[str]:
    """The words of a run with an override in their place.

    A word for the same key goes; so do values of a choice that another one replaces, unless both know them.
    """
    new = {key_of(word) for word in override}
    groups = tuple(f"{key}." for key in new if "." not in key)
    kept = [
        word
        for word in words
        if key_of(word) not in new
        and not (groups and key_of(word).startswith(groups) and key_of(word) not in SHARED)
    ]
    return [*kept, *override]


def known(e: Evidence, *sets: Sequence[str]) -> tuple[Words, ...]:
    """Those that change something, each once; none for a run that dlexp did not make."""
    if e.choices is None:
        return ()
    found = [tuple(word for word in words if not _is_so(e, word)) for words in sets]
    return tuple(dict.fromkeys(words for words in found if words))


def _is_so(e: Evidence, word: str) -> bool:
    key, _, value = word.partition("=")
    own = e.choice(key) if "." not in key else e.value(key)
    if isinstance(own, (int, float)) and not isinstance(own, bool):
        try:
            return float(value) == own
        except ValueError:
            return False
    return _written(own) == value


def _written(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def start(e: Evidence, initializer: str, **values: Any) -> Words:
    """An initializer with values of its own; where the run has it already, what it has changed of it."""
    wanted = dict(STARTS[initializer]) | values
    if e.choice("initializer") != initializer:
        wanted = values
    changed = [f"initializer.{key}={_written(value)}" for key, value in wanted.items()]
    return (f"initializer={initializer}", *(word for word in changed if not _is_so(e, word)))


def matched(e: Evidence) -> Words:
    """The initializer that keeps the signal behind the run's activation."""
    if e.choice("model") in RECURRENT:
        return start(e, "pytorch_default")
    # of a network that nothing bends the choice of an activation says nothing
    activation = "identity" if e.choice("model") == "deep_linear" else e.choice("activation") or ""
    if activation in FOR_TANH:
        return start(e, "xavier_normal", gain=1.6667)
    return start(e, MATCHED.get(activation, "xavier_normal"))


def is_rescaled(e: Evidence) -> bool:
    """Does a normalization undo the scale that weights start with, so that no initializer changes it?"""
    inside = e.choice("model") in BENDS and e.choice("model") != "residual_mlp"  # whose sum nothing undoes
    if not inside or (e.choice("normalization") or "none") == "none":
        return False
    return e.value("normalization.position") != "after" or e.choice("activation") in KEEPS_SCALE


def relu(e: Evidence) -> Words:
    """ReLU with the initializer that goes with it."""
    return ("activation=relu", *start(e, "kaiming_normal")) if e.choice("model") in BENDS else ()


def leaky(e: Evidence) -> Words:
    return ("activation=leaky_relu", *start(e, "kaiming_normal")) if e.choice("model") in BENDS else ()


def normalized(e: Evidence) -> Words:
    """Normalization, where the model has a place for it and there is none."""
    if e.choice("normalization") != "none":
        return ()
    if e.choice("model") in RECURRENT:
        return ("normalization=layer",)
    size = e.value("train.batch_size")
    large = size == "all" or (isinstance(size, int) and size >= 8)
    return ("normalization=batch" if large else "normalization=layer",) if e.choice("model") in BENDS else ()


def residual(e: Evidence) -> Words:
    """The sum past each block, of an MLP; of a residual one, branches that do not add up."""
    first: Words = ("model.branch=pre_norm",)
    if e.value("normalization.position") == "after":  # such a branch normalizes what enters it
        first = (*first, "normalization.position=before")
    if e.choice("model") == "mlp":
        return ("model=residual_mlp", *first, f"model.depth={max(_depth(e) // 2, 1)}")
    return first if e.choice("model") == "residual_mlp" else ()


def carried(e: Evidence) -> tuple[Words, Words, Words]:
    """What keeps a signal over depth: a better start, but not where normalization undoes it."""
    if is_rescaled(e):
        return residual(e), shallower(e), ()
    return matched(e), normalized(e), residual(e)


def shallower(e: Evidence) -> Words:
    """Half of the layers."""
    depth = e.value("model.depth")
    return (f"model.depth={depth // 2}",) if isinstance(depth, int) and depth >= 8 else ()


def _depth(e: Evidence) -> int:
    depth = e.value("model.depth")
    return depth if isinstance(depth, int) else 2


def remembering(e: Evidence) -> tuple[Words, ...]:
    """What carries a signal over many time steps."""
    if e.choice("model") == "rnn":
        return (("model=lstm", "model.gate_bias=2"), ("model.recurrent=orthogonal",))
    if e.choice("model") in ("lstm", "gru", "char_lm"):
        return (("model.gate_bias=2",), ("model.recurrent=orthogonal",))
    return ()


def learning_rate(e: Evidence, factor: float) -> Words:
    """The learning rate times a factor, in two digits."""
    lr = e.value("optimizer.lr")
    if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not lr > 0:
        return ()
    return (f"optimizer.lr={_short(min(max(lr * factor, LEAST_LR), MOST_LR))}",)


# What a network that starts well bears; one that starts badly is often run with much less.
USUAL_LR = {"sgd": 0.05, "momentum": 0.01, "nesterov": 0.01, "adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-3}
MUCH_LESS = 0.1


def usual_rate(e: Evidence) -> Words:
    """A learning rate for the new start, where that of the run is far below what is usual."""
    lr, usual = e.value("optimizer.lr"), USUAL_LR.get(e.choice("optimizer") or "")
    if usual is None or not isinstance(lr, (int, float)) or lr > MUCH_LESS * usual:
        return ()
    return (f"optimizer.lr={usual:g}",)


def _short(x: float) -> str:
    """1, 2 or 5 times a power of ten, the nearest: nobody needs a finer one."""
    power = math.floor(math.log10(x))
    lead = min((1, 2, 5, 10), key=lambda n: abs(math.log(x / 10**power / n)))
    return f"{lead * 10.0**power:.12g}"


def standardized(e: Evidence) -> Words:
    """Inputs of mean 0 and deviation 1, where the data can be scaled."""
    if e.value("data.standardize") is None:
        return ()
    return ("data.standardize=feature",)


def without_penalty(e: Evidence) -> Words:
    """What holds weights back, taken away."""
    words: list[str] = []
    if (e.value("optimizer.weight_decay") or 0) > 0:
        words.append("optimizer.weight_decay=0")
    if e.choice("regularizer") not in ("none", None):
        words.append("regularizer=none")
    return tuple(words)


def dropped(e: Evidence) -> Words:
    return ("dropout=standard",) if e.choice("model") in DROPS and e.choice("dropout") == "none" else ()


def decayed(e: Evidence) -> Words:
    """Weights held back, where the optimizer can."""
    if e.value("optimizer.weight_decay") is None:
        return ()
    return (
        ("optimizer=adamw", "optimizer.weight_decay=0.1")
        if e.choice("optimizer") == "adam"
        else ("regularizer=l2", "regularizer.strength=0.01")
    )


def narrower(e: Evidence) -> Words:
    width = e.value("model.width")
    return (f"model.width={width // 4}",) if isinstance(width, int) and width >= 32 else ()
