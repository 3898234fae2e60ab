"""One run from a composed config to a finished record: build, train, record, report."""

from __future__ import annotations

import dataclasses
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
from dlexp.data.dataset import Split
from dlexp.record import folder as folders
from dlexp.record.probes import QUANTITIES
from dlexp.record.recorder import Recorder
from dlexp.record.schedule import schedule
from dlexp.record.sinks import MetricLines, RecordLines, Sink, TensorBoard, finite
from dlexp.record.summary import first_bad_layer, first_bad_weights, layer_entries, versions
from dlexp.report.load import Run
from dlexp.report.terminal import Terminal
from dlexp.train import device as devices
from dlexp.train.gradient_check import gradient_check
from dlexp.train.loop import fit
from dlexp.train.step import Batch, errors_by_class, evaluate
from dlexp.train.stopping import Stop, stoppable

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
        request = parts.request
        parameters = sum(p.numel() for p in parts.model.parameters())
        threads = devices.thread_count(config.threads, parameters, parts.batch_size, device)
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
        "facts": {name: x for name, x in parts.data.facts.items() if isinstance(x, (int, float, str))},
        "seed": config.seed,
        "overrides": request.overrides,
        "choices": request.choices,
        "config": OmegaConf.to_container(config),
        "device": str(device),
        "threads": threads,
        "versions": versions(),
    }
    sinks: list[Sink] = [terminal]
    recorder = Recorder(parts.model, schedule(config.record.every, parts.steps), sinks, parts.order)
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
            if config.gradient_check:
                summary["gradient_check"] = _gradient_check(parts, recorder)
                terminal.gradient_check(summary["gradient_check"])
            _fit(parts, recorder, terminal, summary, stop)
            if config.train.keep_weights:
                weights = parts.model.state_dict()
                folders.write_whole(folder / folders.WEIGHTS, lambda draft: torch.save(weights, draft))
            if config.record.tensorboard:
                board.hyperparameters(_hyperparameters(parts), _headlines(parts))
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
                folders.write_json(folder / folders.SUMMARY, summary)
                terminal.ending(summary, logdir, folder)
    return folder


class _Evaluation:
    """Judges the network while it trains and, with the weights that are left, at the end."""

    def __init__(self, parts: Parts, summary: dict[str, Any]) -> None:
        self._parts, self._summary = parts, summary
        self.stopped_early = False

    def __call__(self, step: int) -> dict[str, float]:
        """The scalars of a step; the summary gets those of the weights that are left at the end."""
        parts, stopping = self._parts, self._parts.stopping
        scalars, last = _scalars(parts, parts.data.held_out), step >= parts.steps - 1
        final = scalars
        if stopping:
            self.stopped_early = stopping.see(step, scalars, parts.model) and not last
        if self.stopped_early or last:
            if stopping:
                self.restore()
                final = _scalars(parts, parts.data.held_out)
            test = _scalars(parts, {"test": parts.data.test})
            scalars, final = scalars | test, final | test
        self._summary["metrics"] |= {tag: finite(x) for tag, x in final.items()}
        return scalars

    def restore(self) -> None:
        """The weights of the best evaluation, if they are to be kept."""
        if self._parts.stopping:
            self._summary["best_step"] = self._parts.stopping.best_step
            self._parts.stopping.restore(self._parts.model)


def _fit(parts: Parts, recorder: Recorder, terminal: Terminal, summary: dict[str, Any], stop: Stop) -> None:
    """Train and test; keeps `status`, `steps`, `metrics` and `diverged` of the summary up to date."""
    evaluation = _Evaluation(parts, summary)

    def steps() -> Iterator[int]:
        for step in terminal.track(parts.steps):
            summary["steps"] = step  # so many are done
            stop.check()
            yield step

    if parts.optimizer is None:  # nothing to learn: only how well it does
        recorder.scalars(0, evaluation(0))
        summary["status"] = "finished"
        _close_look(parts, summary)
        return
    ending = fit(
        parts.model,
        parts.loss,
        parts.optimizer,
        _batches(parts),
        steps(),
        recorder=recorder,
        metrics=parts.metrics,
        regularizer=parts.regularizer,
        clip=parts.clip,
        evaluate=evaluation,
        evaluate_after=_evaluations(parts),
        adjust=parts.learning_rate,
        enough=lambda: evaluation.stopped_early,
    )
    recorder.flush()
    summary["status"] = ending.status
    if ending.status == "diverged":
        summary["steps"] = ending.step
        summary["diverged"] = {"step": ending.step, **first_bad_layer(recorder, ending.step)}
        evaluation.restore()
        return
    summary["steps"] = ending.step + 1
    _close_look(parts, summary)
    if summary["metrics"]["loss/test"] is None:
        summary["status"] = "diverged"
        summary["diverged"] = {"step": ending.step, **first_bad_weights(recorder, parts.model)}


def _close_look(parts: Parts, summary: dict[str, Any]) -> None:
    """What only the trained network is asked: the whole training split, and where its errors lie."""
    splits = {"train": parts.data.train}
    summary["metrics"] |= {tag: finite(x) for tag, x in _scalars(parts, splits).items()}
    if parts.data.task == "classification":
        summary["errors"] = errors_by_class(parts.model, parts.data.test.inputs, parts.data.test.targets)


CHECKED_SAMPLES = 16  # a gradient is no more right or wrong on more of them


def _gradient_check(parts: Parts, recorder: Recorder) -> list[dict[str, Any]]:
    """For each layer: how far its gradients are from differences of the loss, and what that means."""
    train = parts.data.train
    batch = train.inputs[:CHECKED_SAMPLES], train.targets[:CHECKED_SAMPLES]
    layers = [
        (layer.name, list(parts.model.get_submodule(layer.path).parameters(recurse=False)))
        for layer in recorder.layers
    ]
    generator = torch.Generator().manual_seed(parts.request.config.seed)
    found = gradient_check(parts.model, parts.loss, batch, layers, generator=generator)
    return [
        {
            "layer": check.name,
            "difference": finite(check.difference),
            "verdict": check.verdict,
            "entries": check.entries,
            "kinks": check.kinks,
            "worst": dataclasses.asdict(check.worst) | {"numeric": check.worst.numeric},
        }
        for check in found
    ]


def _batches(parts: Parts) -> Iterator[Batch]:
    """Training batches, augmented anew each time."""
    config = parts.request.config
    for inputs, targets in batches(
        parts.data.train, parts.batch_size, config.seed, fixed=config.train.fixed_batch
    ):
        yield (parts.augmentation(inputs) if parts.augmentation else inputs), targets


def _scalars(parts: Parts, splits: dict[str, Split]) -> dict[str, float]:
    """The loss and each metric of whole splits, e.g. {"loss/validation": 0.3}."""
    found: dict[str, float] = {}
    for name, split in splits.items():
        numbers = evaluate(parts.model, parts.loss, parts.metrics, split.inputs, split.targets)
        found |= {f"{quantity}/{name}": x for quantity, x in numbers.items()}
    return found


def _evaluations(parts: Parts) -> frozenset[int]:
    """The steps after which the network is evaluated: ends of epochs, and the last step."""
    steps, steps_per_epoch = parts.steps, parts.steps_per_epoch
    epochs = steps // steps_per_epoch
    waits = parts.stopping or (parts.learning_rate and parts.learning_rate.waits)  # for each evaluation
    thin = 1 if waits else -(-epochs // MOST_EVALUATIONS) or 1
    ends = (steps_per_epoch * epoch - 1 for epoch in range(thin, epochs + 1, thin))
    return frozenset([*ends, steps - 1])


def _heading(
    request: Request, parts: Parts, device: torch.device, threads: int, folder: Path
) -> dict[str, str]:
    """What a person wants to see confirmed before the run goes on."""
    config, choices, data = request.config, request.choices, parts.data
    parameters = sum(p.numel() for p in parts.model.parameters())
    shipped = not any(word.startswith("model._target_=") for word in request.overrides)
    words = [choices["model"] if shipped else config.model._target_]
    words += [f"{key}={str(value).lower()}" for key, value in flatten(config.model).items()]
    network = ", ".join([" ".join(words), choices["initializer"]])
    for group in parts.used:
        network += f", {choices[group]}" if group == "activation" else f", {group} {choices[group]}"
    sizes = f"{len(data.train)} train, {len(data.validation)} validation, {len(data.test)} test"
    shape = " x ".join(map(str, data.input_shape))
    epochs = round(parts.steps / parts.steps_per_epoch, 1)
    training = (
        f"{choices['optimizer']} lr={config.optimizer.get('lr')}, batches of {parts.batch_size},"
        f" steps {parts.steps}, epochs {epochs:g}, seed {config.seed}"
    )
    return {
        "network": f"{network}; {parameters:,} parameters",
        "data": f"{choices['data']}: {sizes}; {shape}, {data.task}, {data.outputs} outputs",
        "training": training if parts.optimizer else "none: there is nothing to learn",
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


def _headlines(parts: Parts) -> list[str]:
    """What TensorBoard's HParams tab shows beside the choices."""
    first = next(iter(parts.metrics), "loss")
    return [*dict.fromkeys((f"{first}/test", "loss/test", f"{first}/validation"))]


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


def _hyperparameters(parts: Parts) -> dict[str, Any]:
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
