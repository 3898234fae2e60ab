"""What a run says of itself before it goes on: in the heading, in its summary, and in TensorBoard."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dlexp.build.assemble import Parts
from dlexp.compose import Request, flatten
from dlexp.record.summary import versions


def summary(parts: Parts, device: str, threads: int, started: datetime) -> dict[str, Any]:
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
        "facts": {name: x for name, x in parts.data.facts.items() if isinstance(x, (int, float, str))},
        "seed": request.config.seed,
        "overrides": request.overrides,
        "choices": request.choices,
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
            "started": started.isoformat(timespec="seconds"),
            "samples_per_second": None,
            "predict_seconds_per_sample": None,
        },
    }


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
    return f"`dlexp {words}`\n\n```yaml\n{OmegaConf.to_yaml(request.config)}```\n"


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
    """Group -> word and key -> value, as typed on the command line; nothing that the model does not take."""
    request = parts.request
    unused = {"activation", "normalization", "dropout"} - set(parts.used)
    groups = {key: word for key, word in request.choices.items() if key in request.config}
    values = {
        key: value
        for key, value in flatten(request.config).items()
        if not key.startswith(_NOT_HYPERPARAMETERS) and key.partition(".")[0] not in unused
    }
    groups = {key: word for key, word in groups.items() if key not in unused}
    return {key: word for key, word in groups.items() if key not in ("record", "train", "debug")} | values
