"""One run from a composed config to a finished record: build, train, record, report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from dlexp.build.assemble import Parts, assemble
from dlexp.build.check import check
from dlexp.compose import Request, flatten
from dlexp.data.batches import batches
from dlexp.record import folder as folders
from dlexp.record.probes import QUANTITIES
from dlexp.record.recorder import Recorder
from dlexp.record.schedule import schedule
from dlexp.record.sinks import MetricLines, RecordLines, Sink, TensorBoard, finite
from dlexp.record.summary import first_bad_layer, first_bad_weights, layer_entries, versions
from dlexp.report.load import Run
from dlexp.report.terminal import Terminal
from dlexp.train import device as devices
from dlexp.train.loop import fit
from dlexp.train.step import evaluate
from dlexp.train.stopping import Stop, stoppable

HEADLINES = ("accuracy/test", "loss/test", "accuracy/validation")  # what TensorBoard's HParams tab shows
MOST_EVALUATIONS = 50  # per run: enough for a curve, and a small part of the time


def run(request: Request, *, quiet: bool = False) -> Run:
    """Train what was asked for, leave the record in its run folder, and return it.

    Raises:
        UserError: it cannot be done; no run folder was made.
        KeyboardInterrupt: from outside; the record up to there is kept, with status "interrupted".
        Exception: what training raised; likewise, with status "failed".
    """
    config = request.config
    check(request)
    device = devices.pick(config.device)
    with devices.own_state(device), torch.enable_grad():
        devices.seed_all(config.seed, device)
        parts = assemble(request, device)
        parameters = sum(p.numel() for p in parts.model.parameters())
        threads = devices.thread_count(config.threads, parameters, config.train.batch_size, device)
        # Dropout masks are the same however many numbers the initial weights took.
        devices.seed_all(config.seed, device)
        torch.set_num_threads(threads)
        with torch.autograd.set_detect_anomaly(config.anomaly):
            folder = _train(request, parts, device, threads, Terminal(quiet=quiet))
    return Run(folder)


def _train(request: Request, parts: Parts, device: torch.device, threads: int, terminal: Terminal) -> Path:
    """From finished parts to a finished run folder, whatever happens in between."""
    config = request.config
    started, clock = datetime.now().astimezone(), time.perf_counter()
    if request.folder is not None:
        folder, logdir = folders.claim(request.folder), request.folder
    else:
        folder, logdir = folders.create(config.outputs, str(config.name), started), Path(config.outputs)
    summary: dict[str, Any] = {
        "status": "failed",
        "error": None,
        "diverged": None,
        "steps": 0,
        "metrics": {},
        "seed": config.seed,
        "overrides": request.overrides,
        "choices": request.choices,
        "config": OmegaConf.to_container(config),
        "device": str(device),
        "threads": threads,
        "versions": versions(),
    }
    sinks: list[Sink] = [terminal]
    recorder = Recorder(parts.model, schedule(config.record.every, parts.steps), sinks)
    with stoppable() as stop:  # until the summary is written
        try:
            _save_config(folder / folders.CONFIG, request)
            terminal.heading(_heading(request, parts, device, threads, folder))
            names = [layer.name for layer in recorder.layers]
            sinks.append(RecordLines(folder / folders.RECORDS, names, QUANTITIES))
            sinks.append(MetricLines(folder / folders.METRICS))
            if config.record.tensorboard:
                board = TensorBoard(folder, names, QUANTITIES)
                sinks.append(board)
                board.text("config", _as_markdown(request))
            _fit(request, parts, recorder, terminal, summary, stop)
            if config.record.tensorboard:
                board.hyperparameters(_hyperparameters(request), HEADLINES)
        except KeyboardInterrupt:
            summary["status"] = "interrupted"
            raise
        except Exception as error:
            summary["status"] = "failed"
            summary["error"] = " ".join(f"{type(error).__name__}: {error}".split())
            raise
        finally:
            try:
                recorder.close()
                for sink in sinks:
                    sink.close()
            finally:  # a full disk, say, must not cost the summary as well
                summary |= layer_entries(recorder)
                seconds = time.perf_counter() - clock
                summary["timing"] = {
                    "started": started.isoformat(timespec="seconds"),
                    "seconds": round(seconds, 3),
                    "steps_per_second": round(summary["steps"] / seconds, 1),
                }
                folders.write_whole(folder / folders.SUMMARY, summary)
                terminal.ending(summary, logdir, folder)
    return folder


def _fit(
    request: Request,
    parts: Parts,
    recorder: Recorder,
    terminal: Terminal,
    summary: dict[str, Any],
    stop: Stop,
) -> None:
    """Train and test; keeps `status`, `steps`, `metrics` and `diverged` of the summary up to date."""
    train, data, metrics = request.config.train, parts.data, summary["metrics"]

    def measure(step: int) -> dict[str, float]:
        splits = {"validation": data.validation}
        if step == parts.steps - 1:
            splits["test"] = data.test
        numbers: dict[str, float] = {}
        for name, split in splits.items():
            found = evaluate(parts.model, parts.loss, split.inputs, split.targets)
            numbers |= {f"{quantity}/{name}": x for quantity, x in found.items()}
        metrics.update({tag: finite(x) for tag, x in numbers.items()})
        return numbers

    def steps() -> Iterator[int]:
        for step in terminal.track(parts.steps):
            summary["steps"] = step  # so many are done
            stop.check()
            yield step

    bad = fit(
        parts.model,
        parts.loss,
        parts.optimizer,
        batches(data.train, train.batch_size, request.config.seed, fixed=train.fixed_batch),
        steps(),
        recorder=recorder,
        evaluate=measure,
        evaluate_after=_evaluations(parts.steps, parts.steps_per_epoch),
    )
    recorder.flush()
    if recorder.last:
        metrics["loss/train"] = finite(recorder.last.loss)
        metrics["accuracy/train"] = finite(recorder.last.accuracy)
    summary["status"], summary["steps"] = "finished", parts.steps if bad is None else bad
    if bad is not None:
        summary["status"], summary["diverged"] = "diverged", {"step": bad, **first_bad_layer(recorder, bad)}
    elif metrics["loss/test"] is None:
        summary["status"] = "diverged"
        summary["diverged"] = {"step": parts.steps - 1, **first_bad_weights(recorder, parts.model)}


def _evaluations(steps: int, steps_per_epoch: int) -> frozenset[int]:
    """The steps after which the network is evaluated: ends of epochs, and the last step."""
    epochs = steps // steps_per_epoch
    thin = -(-epochs // MOST_EVALUATIONS) or 1
    ends = (steps_per_epoch * epoch - 1 for epoch in range(thin, epochs + 1, thin))
    return frozenset([*ends, steps - 1])


def _heading(
    request: Request, parts: Parts, device: torch.device, threads: int, folder: Path
) -> dict[str, str]:
    """What a person wants to see confirmed before the run goes on."""
    config, choices, data = request.config, request.choices, parts.data
    parameters = sum(p.numel() for p in parts.model.parameters())
    words = [choices["model"]]
    words += [f"{key}={str(value).lower()}" for key, value in flatten(config.model).items()]
    parts_of = ["activation", "initializer"] if choices["model"] != "linear" else ["initializer"]
    network = ", ".join([" ".join(words), *(choices[group] for group in parts_of)])
    for group in ("normalization", "dropout"):
        if choices[group] != "none":
            network += f", {group} {choices[group]}"
    sizes = f"{len(data.train)} train, {len(data.validation)} validation, {len(data.test)} test"
    shape = " x ".join(map(str, data.input_shape))
    epochs = round(parts.steps / parts.steps_per_epoch, 1)
    return {
        "network": f"{network}; {parameters:,} parameters",
        "data": f"{choices['data']}: {sizes}; {shape}, {data.classes} classes",
        "training": f"{choices['optimizer']} lr={config.optimizer.get('lr')}, batches of"
        f" {config.train.batch_size}, steps {parts.steps}, epochs {epochs:g}, seed {config.seed}",
        "device": f"{device}, {threads} thread{'s' if threads > 1 else ''}",
        "folder": str(folder),
    }


def _save_config(folder: Path, request: Request) -> None:
    """What Hydra itself leaves in a run folder: the config, the words, and its own settings."""
    for name, content in (
        ("config", request.config),
        ("overrides", OmegaConf.create(request.overrides)),
        ("hydra", OmegaConf.create({"hydra": request.hydra})),
    ):
        (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(content), encoding="utf-8")


def _as_markdown(request: Request) -> str:
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
    "data.root",
    "data.download",
)


def _hyperparameters(request: Request) -> dict[str, Any]:
    """Group -> word and key -> value, as typed on the command line."""
    groups = {key: word for key, word in request.choices.items() if key in request.config}
    values = {
        key: value
        for key, value in flatten(request.config).items()
        if not key.startswith(_NOT_HYPERPARAMETERS)
    }
    return {key: word for key, word in groups.items() if key not in ("record", "train", "debug")} | values
