"""What a run says of itself before it goes on: in the heading, in its summary, and in TensorBoard."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, ListConfig, OmegaConf

from dlexp.build.assemble import Parts
from dlexp.compose import Request, flatten
from dlexp.record.summary import versions
from dlexp.train.chance import chance_loss, zero_loss


def summary(parts: Parts, device: str, threads: int, started: str) -> dict[str, Any]:
    """What is known of a run before its first step; what will come is None, and it counts as failed."""
    request = parts.request
    return {
        "status": "failed",
        "error": None,
        "diverged": None,
        "steps": 0,
        "to_target": parts.milestone and parts.milestone.summary(),
        "metrics": {},
        "metrics_monitored": monitored(parts),
        "gaps": None,
        "facts": {
            name: x
            for name, x in parts.data.facts.items()
            if isinstance(x, (int, float, str)) or name == "classes"
        }
        | what_is_fed(parts),
        "seed": request.config.seed,
        "overrides": request.overrides,
        "choices": request.choices,
        "used": list(parts.used),
        "config": OmegaConf.to_container(request.config),
        "data": {
            "input_shape": list(parts.data.input_shape),
            "outputs": parts.data.outputs,
            "vocabulary": parts.data.vocabulary,
        },
        "device": device,
        "threads": threads,
        "versions": versions(),
        "timing": {
            "started": started,
            "samples_per_second": None,
            "predict_seconds_per_sample": None,
        },
    }


FEW = 2**18  # numbers of the inputs that a mean is taken of


def what_is_fed(parts: Parts) -> dict[str, float]:
    """Mean and deviation of all inputs together; losses of the best constant answer and of 0, if known."""
    train = parts.data.train
    found: dict[str, float] = {}
    few = train.inputs[: max(FEW // max(train.inputs[0].numel(), 1), 1)]
    if few.is_floating_point():
        std, mean = torch.std_mean(few.double(), correction=0)
        found |= {"input_mean": float(mean), "input_std": float(std)}
    loss = parts.request.choices["loss"]
    known = {
        "chance_loss": chance_loss(loss, train.targets, parts.data.outputs),
        "zero_loss": zero_loss(loss, train.targets),
    }
    found |= {name: x for name, x in known.items() if x is not None}
    return {name: x for name, x in found.items() if math.isfinite(x)}


def monitored(parts: Parts) -> list[str]:
    """The scalars that training listens to; all others are passive."""
    found = [parts.request.config.stopping.monitor] if parts.stopping else []
    if parts.learning_rate and parts.learning_rate.waits:
        found.append("loss/validation")
    return list(dict.fromkeys(found))


def heading(parts: Parts, device: str, threads: int, folder: Path) -> dict[str, str]:
    """What a person wants to see confirmed before the run goes on."""
    request, data = parts.request, parts.data
    config, choices = request.config, request.choices
    parameters = sum(p.numel() for p in parts.model.parameters())
    shipped = not any(word.startswith("model._target_=") for word in request.overrides)
    words = [choices["model"] if shipped else config.model._target_]
    words += [f"{key}={str(value).lower()}" for key, value in flatten(config.model).items()]
    network = ", ".join([" ".join(words), choices["initializer"]])
    for group in parts.used:
        network += f", {choices[group]}" if group == "activation" else f", {group} {choices[group]}"
    if choices["head"] != "auto":
        network += f", head {choices['head']}"
    sizes = f"{len(data.train)} train, {len(data.validation)} validation, {len(data.test)} test"
    outputs = f"{data.outputs} output{'s' if data.outputs > 1 else ''}"
    shape = " x ".join(map(str, data.input_shape))
    epochs = round(parts.steps / parts.steps_per_epoch, 1)
    whole = " (the whole training split)" if parts.batch_size == len(data.train) else ""
    named = any(word.lstrip("+").startswith(("loss=", "loss.")) for word in request.overrides)
    loss = f"loss {choices['loss']}, " if named else ""
    training = (
        f"{loss}{choices['optimizer']} lr={config.optimizer.get('lr')}, batches of {parts.batch_size}{whole},"
        f" steps {parts.steps}, epochs {epochs:g}, seed {config.seed}"
    )
    return {
        "network": f"{network}; {parameters:,} parameters",
        "data": f"{choices['data']}: {sizes}; {shape}, {data.task}, {outputs}",
        **({"remark": data.facts["remark"]} if "remark" in data.facts else {}),
        "training": training if parts.optimizer else "none: there is nothing to learn",
        "device": f"{device}, {threads} thread{'s' if threads > 1 else ''}",
        "folder": str(folder),
    }


def headlines(parts: Parts) -> list[str]:
    """What TensorBoard's HParams tab shows beside the choices."""
    first = next(iter(parts.metrics), "loss")
    return [*dict.fromkeys((f"{first}/test", "loss/test", f"{first}/validation"))]


def as_markdown(request: Request) -> str:
    words = " ".join(request.overrides) or "(defaults)"
    return f"`dlexp {words}`\n\n```yaml\n{as_yaml(request.config)}```\n"


def as_yaml(content: DictConfig | ListConfig | dict[str, Any] | list[Any]) -> str:
    """What `OmegaConf.to_yaml` writes, by libyaml where PyYAML has it: in a quarter of the time."""
    if not yaml.__with_libyaml__:
        return OmegaConf.to_yaml(content)
    plain: Any = (
        OmegaConf.to_container(content, enum_to_str=True) if OmegaConf.is_config(content) else content
    )
    form: dict[str, Any] = {"default_flow_style": False, "allow_unicode": True, "sort_keys": False}
    return str(yaml.dump(plain, Dumper=_dumper(), **form))


@cache
def _dumper() -> Any:
    """Quotes a text that OmegaConf would read as a number or a truth value."""

    def represent(dumper: Any, text: str) -> Any:
        style = "'" if _reads_as_value(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    dumper: Any = type("Dumper", (yaml.CDumper,), {})  # a class of its own, to leave PyYAML's as it is
    dumper.add_representer(str, represent)
    return dumper


def _reads_as_value(text: str) -> bool:
    if text.lower() in ("y", "n", "yes", "no", "on", "off", "true", "false"):
        return True
    try:
        float(text)  # reads all that int() does
    except ValueError:
        return False
    return True


# Where things lie and how the run is watched: no hyperparameters.
_NOT_HYPERPARAMETERS = (
    "outputs",
    "name",
    "device",
    "threads",
    "anomaly",
    "record.",
    "train.target",
    "train.best_error",
    "data.root",
    "data.download",
)


def hyperparameters(parts: Parts) -> dict[str, Any]:
    """Group -> word and key -> value, as typed on the command line; nothing that the model does not take.

    Of a job of a sweep only what differs between jobs.
    """
    request = parts.request
    unused = {"activation", "normalization", "dropout"} - set(parts.used)
    plain: Any = OmegaConf.to_container(request.config)
    groups = {key: word for key, word in request.choices.items() if key in request.config}
    values = {
        key: value
        for key, value in flatten(plain).items()
        if not key.startswith(_NOT_HYPERPARAMETERS) and key.partition(".")[0] not in unused
    }
    groups = {key: word for key, word in groups.items() if key not in unused}
    found = {key: word for key, word in groups.items() if key not in ("record", "train", "debug")} | values
    return {key: found[key] for key in request.swept if key in found} if request.swept else found
