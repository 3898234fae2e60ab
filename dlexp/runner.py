"""One run from a composed config to a finished record: build, train, record, report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from dlexp import describe
from dlexp.build.assemble import Parts, assemble
from dlexp.build.check import check
from dlexp.compose import Request
from dlexp.data.batches import batches
from dlexp.parameters import own
from dlexp.record import folder as folders
from dlexp.record.look import Look
from dlexp.record.probes import QUANTITIES
from dlexp.record.recorder import Recorder
from dlexp.record.schedule import schedule
from dlexp.record.sinks import MetricLines, RecordLines, Sink, TensorBoard, finite
from dlexp.record.summary import first_bad_layer, first_bad_weights, layer_entries
from dlexp.report.load import Run
from dlexp.report.terminal import Terminal
from dlexp.train import device as devices
from dlexp.train.clock import Clock
from dlexp.train.evaluation import Evaluation, evaluation_steps, prediction_seconds
from dlexp.train.gaps import gaps, known_best, measure
from dlexp.train.gradient_check import gradient_check
from dlexp.train.loop import fit
from dlexp.train.step import Batch, errors_by_class, undisturbed
from dlexp.train.stopping import Stop, stoppable

DECIDED = ("classification", "binary", "multi_label", "sequence_labelling", "language_modelling")
LOOKED_AT = (64, 512)  # training samples at the least and at the most, in between as many as in a batch


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
    summary = describe.summary(parts, str(device), threads, started)
    sinks: list[Sink] = [terminal]
    recorder = Recorder(parts.model, schedule(config.record.every, parts.steps), sinks, parts.order)
    records = config.record.every != "never" and parts.optimizer is not None
    look = Look(parts.model, parts.order) if records else None
    with stoppable() as stop:  # until the summary is written
        try:
            _save_config(folder / folders.CONFIG, request)
            terminal.heading(describe.heading(parts, str(device), threads, folder))
            names = [layer.name for layer in recorder.layers]
            sinks.append(RecordLines(folder / folders.RECORDS, names, QUANTITIES))
            sinks.append(MetricLines(folder / folders.METRICS))
            if config.record.tensorboard:
                board = TensorBoard(folder, names, QUANTITIES)
                sinks.append(board)
                board.text("config", describe.as_markdown(request))
            if config.gradient_check:
                summary["gradient_check"] = _gradient_check(parts, recorder)
                terminal.gradient_check(summary["gradient_check"])
            evaluation = _fit(parts, recorder, terminal, summary, stop)
            _look_back(parts, evaluation, look, summary)
            if config.train.keep_weights:
                weights = parts.model.state_dict()
                folders.write_whole(folder / folders.WEIGHTS, lambda draft: torch.save(weights, draft))
            if config.record.tensorboard:
                board.hyperparameters(describe.hyperparameters(parts), describe.headlines(parts))
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
                summary |= layer_entries(recorder, look)
                seconds = time.perf_counter() - clock
                summary["timing"] |= {
                    "seconds": round(seconds, 3),
                    "steps_per_second": round(summary["steps"] / seconds, 1),
                }
                folders.write_json(folder / folders.SUMMARY, summary)
                terminal.ending(summary, logdir, folder)
    return folder


def _fit(
    parts: Parts, recorder: Recorder, terminal: Terminal, summary: dict[str, Any], stop: Stop
) -> Evaluation:
    """Train and test; keeps `status`, `steps`, `metrics`, `to_target` and `diverged` up to date."""
    data, stopping = parts.data, parts.stopping
    clock = Clock(data.train.inputs.device)
    evaluation = Evaluation(
        *(parts.model, parts.loss, parts.metrics, data.held_out, data.test),
        last_step=parts.steps - 1,
        stopping=stopping,
    )

    def judge(step: int) -> dict[str, float]:
        seconds = clock.seconds
        with clock.paused():
            scalars = evaluation(step)
        summary["metrics"] |= _finite(evaluation.metrics)
        if parts.milestone:
            parts.milestone.see(step, scalars, seconds)
            summary["to_target"] = parts.milestone.summary()
        return scalars

    def steps() -> Iterator[int]:
        for step in terminal.track(parts.steps):
            summary["steps"] = step  # so many are done
            stop.check()
            clock.step()
            yield step

    if parts.optimizer is None:  # nothing to learn: only how well it does
        recorder.scalars(0, judge(0))
        summary["status"], summary["steps"] = "finished", 0
        return evaluation
    waits = stopping or parts.milestone or (parts.learning_rate and parts.learning_rate.waits)
    try:
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
            evaluate=judge,
            evaluate_after=evaluation_steps(parts.steps, parts.steps_per_epoch, every_epoch=bool(waits)),
            adjust=parts.learning_rate,
            enough=lambda: evaluation.stopped_early,
        )
    finally:
        if rate := clock.steps_per_second:
            summary["timing"]["samples_per_second"] = round(rate * parts.batch_size, 1)
    recorder.flush()
    _tell_restored(evaluation, recorder, summary)
    summary["status"] = ending.status
    if ending.status == "diverged":
        summary["steps"] = ending.step
        summary["diverged"] = {"step": ending.step, **first_bad_layer(recorder, ending.step)}
        if stopping:
            stopping.restore(parts.model)
        return evaluation
    summary["steps"] = ending.step + 1
    if summary["metrics"]["loss/test"] is None:
        summary["status"] = "diverged"
        summary["diverged"] = {"step": ending.step, **first_bad_weights(recorder, parts.model)}
    return evaluation


def _tell_restored(evaluation: Evaluation, recorder: Recorder, summary: dict[str, Any]) -> None:
    """If earlier weights are back: the numbers of the test split are of their step, not of the last one."""
    if evaluation.restored_step is not None:
        summary["restored_step"] = evaluation.restored_step
        test = {tag: x for tag, x in evaluation.metrics.items() if tag.endswith("/test")}
        recorder.scalars(evaluation.restored_step, test)


def _look_back(parts: Parts, evaluation: Evaluation, look: Look | None, summary: dict[str, Any]) -> None:
    """What only the network that is left is asked; nothing of it changes the network."""
    model, data, config = parts.model, parts.data, parts.request.config.train
    if parts.stopping:
        summary["best_step"] = parts.stopping.best_step
    if summary["status"] != "diverged":
        summary["metrics"] |= _finite(evaluation.scores({"train": data.train}))
        if data.task in DECIDED:
            summary["errors"] = errors_by_class(
                *(model, data.test.inputs, data.test.targets),
                threshold=parts.threshold,
                by_answer=data.task == "multi_label",
            )
        if data.task != "adversarial":
            best = config.best_error
            if best is None:
                best = known_best(measure(parts.metrics), data.task, data.facts)
            summary["gaps"] = gaps(summary["metrics"], parts.metrics, best)
        with undisturbed(model):
            seconds = prediction_seconds(model, data.test.inputs)
        summary["timing"]["predict_seconds_per_sample"] = float(f"{seconds:.3g}")
    if look:
        low, high = LOOKED_AT
        look(data.train.inputs[: min(max(parts.batch_size, low), high)])


def _finite(scalars: Mapping[str, float]) -> dict[str, float | None]:
    return {tag: finite(x) for tag, x in scalars.items()}


CHECKED_SAMPLES = 16  # a gradient is no more right or wrong on more of them


def _gradient_check(parts: Parts, recorder: Recorder) -> list[dict[str, Any]]:
    """For each layer: how far its gradients are from differences of the loss, and what that means."""
    train = parts.data.train
    batch = train.inputs[:CHECKED_SAMPLES], train.targets[:CHECKED_SAMPLES]
    layers = [
        (layer.name, list(own(parts.model.get_submodule(layer.path)).values())) for layer in recorder.layers
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


def _save_config(folder: Path, request: Request) -> None:
    """What Hydra itself leaves in a run folder: the config, the words, and its own settings."""
    for name, content in (
        ("config", request.config),
        ("overrides", OmegaConf.create(request.overrides)),
        ("hydra", OmegaConf.create({"hydra": request.hydra})),
    ):
        (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(content), encoding="utf-8")
