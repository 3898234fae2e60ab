"""What each value may be, in one table, and the check that reads it before anything is built.

Keys that the table does not know (a new YAML file, a module of your own) are checked only for
being finite; the rest is up to the constructor that takes them.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dlexp.build.task import TASKS
from dlexp.compose import CONFIGS, Request, flatten
from dlexp.data.dataset import STANDARDIZE
from dlexp.errors import UserError


@dataclass(frozen=True)
class Rule:
    """A test and the words for what passes it."""

    allowed: str
    passes: Callable[[Any], bool]

    def __or__(self, other: Rule) -> Rule:
        return Rule(f"{self.allowed} or {other.allowed}", lambda v: self.passes(v) or other.passes(v))


def whole(low: int, high: int | None = None) -> Rule:
    """An integer from `low` to `high`, both included, or without end."""
    allowed = f"a whole number, {low} or more" if high is None else f"a whole number from {low} to {high}"
    return Rule(allowed, lambda v: _is_int(v) and v >= low and (high is None or v <= high))


def number(low: float = -math.inf, high: float = math.inf, *, ends: str = "[]") -> Rule:
    """A finite number between `low` and `high`; `ends` says which of the two belong to it."""

    def passes(value: Any) -> bool:
        if not (_is_int(value) or isinstance(value, float)) or not math.isfinite(value):
            return False
        above = value >= low if ends[0] == "[" else value > low
        below = value <= high if ends[1] == "]" else value < high
        return bool(above and below)

    if high < math.inf:
        return Rule(f"a number in {ends[0]}{low:g}, {high:g}{ends[1]}", passes)
    if low > -math.inf:
        words = f"{low:g} or more" if ends[0] == "[" else f"above {low:g}"
        return Rule(f"a finite number, {words}", passes)
    return Rule("a finite number", passes)


def words(*allowed: str) -> Rule:
    """One of a few words."""
    return Rule(", ".join(allowed), lambda v: v in allowed)


def pair(rule: Rule) -> Rule:
    """A list of two values that both pass `rule`."""
    return Rule(
        f"a list of two, each {rule.allowed}",
        lambda v: isinstance(v, list) and len(v) == 2 and all(map(rule.passes, v)),
    )


def several(rule: Rule) -> Rule:
    """A list of values that all pass `rule`."""
    return Rule(f"a list, each {rule.allowed}", lambda v: isinstance(v, list) and all(map(rule.passes, v)))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_name(value: Any) -> bool:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return False
    path = PurePath(str(value))
    return path.parts != () and not path.is_absolute() and ".." not in path.parts


FINITE = Rule(
    "finite numbers",
    lambda v: all(not isinstance(x, float) or math.isfinite(x) for x in (v if isinstance(v, list) else [v])),
)
FLAG = Rule("true, false", lambda v: isinstance(v, bool))
TEXT = Rule("a text", lambda v: isinstance(v, str) and bool(v))
NAME = Rule("a name", lambda v: (isinstance(v, str) and bool(v)) or _is_int(v))  # of a column, 2 say
NULL = Rule("null", lambda v: v is None)
DEVICE = Rule(
    "auto, cpu, cuda, cuda:N, mps",
    lambda v: isinstance(v, str) and bool(re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", v)),
)

RULES = {
    "metrics": words("auto") | several(TEXT),
    "seed": whole(0, 2**63 - 1),
    "device": DEVICE,
    "threads": words("auto") | whole(1, 256),
    "anomaly": FLAG,
    "gradient_check": FLAG,
    "objective": TEXT,
    "outputs": TEXT,
    "name": Rule("a folder name below outputs", _is_name),
    "task": words("auto", *TASKS),
    "model.depth": whole(1, 10_000),
    "model.width": whole(1, 100_000),
    "model.bias": FLAG,
    "activation.negative_slope": number(),
    "activation.alpha": number(),
    "initializer.val": number(),
    "initializer.a": number(),
    "initializer.b": number(),
    "initializer.mean": number(),
    "initializer.std": number(0),
    "initializer.gain": number(),
    "initializer.mode": words("fan_in", "fan_out"),
    "initializer.nonlinearity": words(
        "linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"
    ),  # those of torch.nn.init.calculate_gain that a dense layer can have
    "initializer.bias": NULL | words("random", "drawn") | number(),
    "initializer.sigma": number(0),
    "activation.threshold": number(),
    "activation.init": number(),
    "activation.beta": number(0, ends="(]"),
    "activation.min_val": number(),
    "activation.max_val": number(),
    "activation.approximate": words("none", "tanh"),
    "activation.dim": whole(-4, 3),
    "head.dim": whole(-4, 3),
    "loss.reduction": Rule("mean, sum; a loss is one number", lambda v: v in ("mean", "sum")),
    "loss.delta": number(0, ends="(]"),
    "loss.beta": number(0),
    "loss.zero_infinity": FLAG,
    "normalization.position": words("before", "after"),
    "normalization.eps": number(0, ends="(]"),
    "normalization.momentum": NULL | number(0, 1),
    "normalization.affine": FLAG,
    "normalization.elementwise_affine": FLAG,
    "dropout.p": number(0, 1, ends="[)"),
    "loss.label_smoothing": number(0, 1),
    "loss.margin": number(),
    "model.cell": words("rnn", "lstm", "gru"),
    "model.layers": whole(1, 1000),
    "model.embedding": whole(1),
    "model.nonlinearity": words("tanh", "relu"),
    "model.gate_bias": NULL | number(),
    "model.recurrent": words("default", "orthogonal", "identity"),
    "model.truncate": NULL | whole(1),
    "model.threshold": number(),
    "model.weights": NULL | several(whole(0, 1)),
    "model.inhibitory": several(whole(0)),
    "model.latent": whole(1),
    "model.dimensions": whole(1),
    "model.code": whole(1),
    "model.window": whole(1),
    "model.source": NULL | TEXT,
    "model.frozen": FLAG,
    "model.unit_length": FLAG,
    "model.exact": FLAG,
    "model.noise": number(0),
    "model.branch": words("plain", "zero_init", "pre_norm", "scaled"),
    "model.shared": FLAG,
    "model.channels": whole(1),
    "model.kernel": whole(1),
    "model.pool": words("max", "average"),
    "model.blocks": whole(1),
    "normalization.num_groups": whole(1),
    "regularizer.strength": number(0),
    "regularizer.biases": FLAG,
    "regularizer.max_norm": number(0, ends="(]"),
    "regularizer.sigma": number(0),
    "augmentation.sigma": number(0),
    "augmentation.pixels": whole(0),
    "augmentation.degrees": number(0, 180),
    "optimizer.alpha": number(0, 1, ends="[)"),
    "optimizer.average": FLAG,
    "scheduler.rate": number(0),
    "scheduler.step_size": whole(1),
    "scheduler.milestones": several(whole(1)),
    "scheduler.factor": number(0, 1, ends="()"),
    "scheduler.patience": whole(0),
    "scheduler.min_lr": number(0),
    "scheduler.T_max": NULL | whole(1),
    "scheduler.eta_min": number(0),
    "scheduler.total_steps": NULL | whole(1),
    "scheduler.pct_start": number(0, 1, ends="[)"),
    "scheduler.div_factor": number(1),
    "scheduler.final_div_factor": number(1),
    "scheduler.start_factor": number(0, 1, ends="(]"),
    "scheduler.total_iters": NULL | whole(1),
    "stopping.monitor": TEXT,
    "scheduler.each": words("step", "epoch"),
    "scheduler.gamma": number(0),
    "clip.max_norm": number(0, ends="(]"),
    "clip.clip_value": number(0, ends="(]"),
    "stopping.patience": whole(1),
    "stopping.min_delta": number(0),
    "stopping.restore": FLAG,
    "optimizer.lr": number(0),
    "optimizer.momentum": number(0, 1, ends="[)"),
    "optimizer.weight_decay": number(0),
    "optimizer.betas": pair(number(0, 1, ends="[)")),
    "optimizer.eps": number(0),
    "optimizer.nesterov": FLAG,
    "data.validation": number(0, 1, ends="()"),
    "data.test": number(0, 1, ends="()"),
    "data.split_seed": whole(0, 2**63 - 1),
    "data.standardize": words(*STANDARDIZE),
    "data.train_dev": number(0, 1, ends="[)"),
    "data.shift": whole(0, 7),
    "data.canvas": whole(8, 100),
    "data.clutter": whole(0, 100),
    "data.digit": whole(0, 9),
    "data.labels": whole(10),
    "data.size": whole(1, 4096),
    "data.path": NULL | TEXT,
    "data.target": NULL | NAME,
    "data.kind": words("auto", "classification", "regression", "multi_label"),
    "data.ignore": several(NAME),
    "data.separator": words("comma", "semicolon", "tab"),
    "data.standardize_targets": FLAG,
    "data.positives": NULL | number(0, 1, ends="()"),
    "data.label_noise_kind": words("random", "systematic"),
    "data.label_noise": number(0, 1),
    "data.where": words("everywhere", "held_out"),
    "data.permute": FLAG,
    "data.colour": words("rgb", "grey"),
    "data.x": NULL | TEXT,
    "data.y": NULL | TEXT,
    "data.root": TEXT,
    "data.download": FLAG,
    "data.sample_seed": whole(0, 2**63 - 1),
    "data.samples": whole(1),
    "data.gate": words("and", "or", "nand", "nor", "xor", "xnor"),
    "data.steps": words("rows", "pixels"),
    "data.noise": number(0),
    "data.spread": number(0),
    "data.bits": whole(1, 1000),
    "data.features": whole(1),
    "data.margin": number(0),
    "data.distance": number(0),
    "data.correlation": number(-1, 1, ends="()"),
    "data.classes": whole(2),
    "data.turns": number(0),
    "data.items": whole(2),
    "data.grades": whole(2),
    "data.modes": whole(1),
    "data.radius": number(0, ends="(]"),
    "data.slope": number(),
    "data.offset": number(),
    "data.outliers": number(0, 1),
    "data.outlier_axis": words("y", "x"),
    "data.outlier_size": number(),
    "data.frequency": number(),
    "data.targets": whole(1),
    "data.depth": whole(0, 100),
    "data.width": whole(1, 100_000),
    "data.symbols": whole(2),
    "data.length": whole(1),
    "data.delay": whole(0),
    "data.characters": NULL | whole(1),
    "data.shortest": whole(1),
    "data.longest": whole(1, 100),
    "train.epochs": whole(1),
    "train.max_steps": NULL | whole(1),
    "train.batch_size": words("all") | whole(1),
    "train.fixed_batch": FLAG,
    "train.keep_weights": FLAG,
    "train.checkpoint_every": NULL | words("auto") | whole(1),
    "train.target": NULL | number(),
    "train.target_metric": TEXT,
    "train.best_error": NULL | number(0),
    "record.every": words("auto", "never") | whole(1),
    "record.tensorboard": FLAG,
    "record.images": words("auto") | FLAG,
    "record.histograms": FLAG,
    "record.graph": FLAG,
}

GROUPS = (
    *("data", "augmentation", "model", "activation", "initializer", "normalization"),
    *("dropout", "head", "regularizer", "loss", "optimizer", "scheduler"),
    *("clip", "stopping", "train", "record"),
)


def check(request: Request) -> None:
    """Refuse values that cannot be meant.

    Raises:
        UserError: a line for each wrong value, with its key and what is allowed.
    """
    config = request.config
    faults = [
        f"{group}: takes the name of one of its YAML files, one and not more"
        for group in GROUPS
        if group not in request.choices or not isinstance(config.get(group), DictConfig)
    ]
    faults += [
        f"{key}=???: needs a value{', module.Class' if key.endswith('._target_') else ''}"
        for key in sorted(OmegaConf.missing_keys(config))
    ]
    for group in ("sweep", "experiment"):
        if (word := request.choices.get(group, "none")) != "none" and not request.swept:
            faults.append(f"{group}={word}: many runs; add -m")
    if faults:
        raise UserError(*faults)
    strange = _strange(request)
    plain: Any = OmegaConf.to_container(config)  # OmegaConf takes its time for each single value
    for key, value in flatten(plain).items():
        rule = None if key.partition(".")[0] in strange and "." in key else RULES.get(key)
        if rule is None and any(
            isinstance(v, float) for v in (value if isinstance(value, list) else [value])
        ):
            rule = FINITE
        if rule and not rule.passes(value):
            shown = "null" if value is None else str(value).lower() if value in (True, False) else value
            close = difflib.get_close_matches(str(value), TASKS, n=1) if key == "task" else []
            hint = f"did you mean {close[0]}?; " if close else ""
            faults.append(f"{key}={shown}: {hint}allowed: {rule.allowed}")
    if faults:
        raise UserError(*faults)


def _strange(request: Request) -> set[str]:
    """The groups whose choice is somebody's own: a YAML file or a `_target_` that dlexp does not know."""
    typed = {word.lstrip("+").partition("=")[0] for word in request.overrides}
    return {
        group
        for group, choice in request.choices.items()
        if f"{group}._target_" in typed or not (CONFIGS / group / f"{choice}.yaml").is_file()
    }
