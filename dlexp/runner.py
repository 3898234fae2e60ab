"""One run from a composed config to a finished record: build, train, record, report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from dlexp import describe, diagnose, pictures
from dlexp import folder as folders
from dlexp.build.assemble import Parts, assemble
from dlexp.build.check import check
from dlexp.compose import Request
from dlexp.data.batches import Batches
from dlexp.errors import UserError
from dlexp.parameters import own
from dlexp.record.graph import network_graph
from dlexp.record.look import Look
from dlexp.record.probes import QUANTITIES
from dlexp.record.recorder import Recorder
from dlexp.record.schedule import schedule
from dlexp.record.sinks import MetricLines, RecordLines, Sink, finite
from dlexp.record.summary import first_bad_layer, first_bad_weights, layer_entries
from dlexp.record.tensorboard import TensorBoard, how_to_read
from dlexp.report.load import Run
from dlexp.report.terminal import Terminal
from dlexp.resume import Keeper, take_up
from dlexp.train import device as devices
from dlexp.train.checkpoint import Generators, Held, Unchanged
from dlexp.train.clock import Clock
from dlexp.train.evaluation import Evaluation, evaluation_steps, prediction_seconds
from dlexp.train.gaps import gaps, known_best, measure
from dlexp.train.gradient_check import gradient_check
from dlexp.train.loop import fit, no_bad_step
from dlexp.train.mistakes import confusion, errors_by_class, most_wrong
from dlexp.train.step import Batch, undisturbed
from dlexp.train.stopping import Stop, stoppable

DECIDED = ("classification", "binary", "multi_label", "sequence_labelling", "language_modelling")
MOST_CLASSES = 50  # of a table of classes by classes
LOOKED_AT = 512  # training samples
LOOKED_AT_NUMBERS = 2**18  # that their inputs have at most, but a batch is never too large


def run(request: Request, *, quiet: bool = False, resume: bool = False) -> Run:
    """Train what was asked for, leave the record in its run folder, and return it.

    Args:
        resume: `request.folder` may hold an earlier try at the same run. One that ended is returned as it
            is; one that did not goes on from its checkpoint, or begins anew where there is none.

    Raises:
        UserError: it cannot be done; no run folder was made, an earlier try is as it was.
        BusyError: another process is at work in `request.folder`.
        KeyboardInterrupt: from outside; the record up to there is kept, with status "interrupted".
        Exception: what training raised; likewise, with status "failed".
    """
    earlier = request.folder if resume and request.folder and request.folder.is_dir() else None
    if earlier and folders.ended(earlier):
        return Run(earlier)
    with folders.locked(earlier) if earlier else nullcontext():
        if earlier and folders.ended(earlier):  # just now, in another process
            return Run(earlier)
        return _run(request, Terminal(quiet=quiet), earlier)


def _run(request: Request, terminal: Terminal, earlier: Path | None) -> Run:
    """Build and train, in a new folder or in that of an earlier try."""
    config = request.config
    check(request)
    device = devices.pick(config.device)
    with devices.own_state(device), torch.enable_grad():
        devices.seed_all(config.seed, device)
        parts = assemble(request, device)
        request = parts.request
        _refuse_objective(str(config.objective), parts)
        parameters = sum(p.numel() for p in parts.model.parameters())
        threads = devices.thread_count(config.threads, parameters, parts.batch_size, device)
        # Dropout masks are the same however many numbers the initial weights took.
        devices.seed_all(config.seed, device)
        torch.set_num_threads(threads)
        with torch.autograd.set_detect_anomaly(config.anomaly):
            if earlier:
                keeper = Keeper(earlier, request, terminal, take_up(earlier, request, terminal))
                _record(request, parts, device, threads, terminal, earlier, keeper)
                return Run(earlier)
            folder = _new_folder(request)
            with folders.locked(folder):
                keeper = Keeper(folder, request, terminal, None)
                _record(request, parts, device, threads, terminal, folder, keeper)
            return Run(folder)


def _refuse_objective(name: str, parts: Parts) -> None:
    """A search is told after each run how good it was: see that there will be such a number.

    Raises:
        UserError: there will not.
    """
    splits = ["train", *parts.data.held_out, "test"]
    known = [f"{number}/{split}" for number in ("loss", *parts.metrics) for split in splits]
    if name not in known:
        raise UserError(f"objective={name}: no such number; allowed: {', '.join(known)}")


def _new_folder(request: Request) -> Path:
    if request.folder is not None:
        return folders.claim(request.folder)
    return folders.create(request.config.outputs, str(request.config.name), datetime.now().astimezone())


def _record(
    request: Request,
    parts: Parts,
    device: torch.device,
    threads: int,
    terminal: Terminal,
    folder: Path,
    keeper: Keeper,
) -> None:
    """Train, then draw; who interrupts a run does not wait for pictures."""
    try:
        _train(request, parts, device, threads, terminal, folder, keeper)
    except Exception:
        _draw(parts, folder, terminal)
        raise
    _draw(parts, folder, terminal)


def _train(
    request: Request,
    parts: Parts,
    device: torch.device,
    threads: int,
    terminal: Terminal,
    folder: Path,
    keeper: Keeper,
) -> None:
    """From finished parts to a finished run folder, whatever happens in between."""
    config = request.config
    logdir = request.folder or Path(config.outputs)
    summary = describe.summary(parts, str(device), threads, keeper.started)
    sinks: list[Sink] = [terminal]
    board = None
    due = schedule(config.record.every, parts.steps)
    recorder = Recorder(parts.model, due, sinks, parts.order, spread=config.record.histograms)
    records = config.record.every != "never" and parts.optimizer is not None
    look = Look(parts.model, parts.order) if records else None
    with stoppable() as stop:  # until the summary is written
        try:
            _save_config(folder / folders.CONFIG, request)
            terminal.heading(describe.heading(parts, str(device), threads, folder))
            names = [layer.name for layer in recorder.layers]
            board = _open(folder, names, request, keeper.lengths, sinks)
            if board and config.record.graph and not keeper.lengths:
                _graph(board, parts, terminal)
            if config.gradient_check:
                summary["gradient_check"] = _gradient_check(parts, recorder)
                terminal.gradient_check(summary["gradient_check"])
            evaluation = _fit(parts, recorder, look, terminal, summary, stop, keeper, sinks)
            _look_back(parts, evaluation, look, summary)
            if config.train.keep_weights:
                weights = parts.model.state_dict()
                folders.write_whole(folder / folders.WEIGHTS, lambda draft: torch.save(weights, draft))
        except KeyboardInterrupt:
            summary["status"] = "interrupted"
            raise
        except (Exception, SystemExit) as error:
            summary["status"] = "failed"
            summary["error"] = " ".join(f"{type(error).__name__}: {error}".split())
            raise
        finally:
            seconds = keeper.seconds
            summary["timing"] |= {
                "seconds": round(seconds, 3),
                "steps_per_second": round(summary["steps"] / seconds, 1),
            }
            try:
                recorder.close()
                summary |= layer_entries(recorder, look)
                _diagnose(folder, summary, board, terminal)
                if board:
                    ended = summary["status"] in folders.COUNTED
                    values, metrics = describe.hyperparameters(parts), describe.headlines(parts)
                    board.hyperparameters(values, metrics, success=ended)
                for sink in sinks:
                    sink.close()
            finally:  # a full disk, say, must not cost the summary as well
                if "layers" not in summary:
                    summary |= layer_entries(recorder, look)
                folders.write_json(folder / folders.SUMMARY, summary)
                if summary["status"] in folders.ENDED:
                    keeper.remove()
                terminal.ending(summary, logdir, folder)


def _open(
    folder: Path, names: Sequence[str], request: Request, lengths: Mapping[str, int], sinks: list[Sink]
) -> TensorBoard | None:
    """The files of the record join the sinks, new ones or from the lengths on that they had."""
    sinks.append(RecordLines(folder / folders.RECORDS, names, QUANTITIES, lengths.get(folders.RECORDS)))
    sinks.append(MetricLines(folder / folders.METRICS, lengths.get(folders.METRICS)))
    if not request.config.record.tensorboard:
        return None
    earlier = next((file for file in lengths.items() if file[0].startswith(folders.EVENTS)), None)
    board = TensorBoard(folder, names, QUANTITIES, earlier)
    sinks.append(board)
    if not earlier:
        board.text("config", describe.as_markdown(request))
        board.text("how_to_read", how_to_read())
    return board


def _diagnose(folder: Path, summary: dict[str, Any], board: TensorBoard | None, terminal: Terminal) -> None:
    """What went wrong, from what is on record; the run is whole without."""
    try:
        diagnose.judge(folder, summary, board)
    except Exception as error:
        terminal.remark(f"diagnosis   cannot be made: {type(error).__name__}: {error}")


def _graph(board: TensorBoard, parts: Parts, terminal: Terminal) -> None:
    """The network for the Graphs tab; one that cannot be traced trains without."""
    try:
        with undisturbed(parts.model):
            board.graph(network_graph(parts.model, parts.data.train.inputs[:1]))
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        terminal.remark(f"graph       cannot be drawn: {type(error).__name__}: {first}")


def _fit(
    parts: Parts,
    recorder: Recorder,
    look: Look | None,
    terminal: Terminal,
    summary: dict[str, Any],
    stop: Stop,
    keeper: Keeper,
    sinks: Sequence[Sink],
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

    if parts.optimizer is None:  # nothing to learn: only how well it does
        recorder.scalars(0, judge(0))
        summary["status"], summary["steps"] = "finished", 0
        return evaluation
    train, first_bad = _batches(parts), no_bad_step(data.train.inputs.device)
    keeper.keep(
        {
            "model": parts.model,
            "loss": parts.loss,
            "augmentation": parts.augmentation,
            "optimizer": parts.optimizer,
            "learning_rate": parts.learning_rate,
            "stopping": stopping,
            "milestone": parts.milestone,
            "evaluation": evaluation,
            "clock": clock,
            "inputs": Unchanged(data.train.inputs),
            "targets": Unchanged(data.train.targets),
            "batches": train,
            "recorder": recorder,
            "look": look,
            "first_bad": Held(first_bad),
            "generators": Generators(data.train.inputs.device),
        },
        sinks,
    )
    summary["metrics"] |= _finite(evaluation.metrics)
    summary["to_target"] = parts.milestone and parts.milestone.summary()
    waits = stopping or parts.milestone or (parts.learning_rate and parts.learning_rate.waits)
    try:
        ending = fit(
            parts.model,
            parts.loss,
            parts.optimizer,
            _augmented(train, parts.augmentation),
            _steps(terminal.track(parts.steps, keeper.step), recorder, summary, stop, keeper, clock),
            recorder=recorder,
            metrics=parts.metrics,
            regularizer=parts.regularizer,
            clip=parts.clip,
            evaluate=judge,
            evaluate_after=evaluation_steps(parts.steps, parts.steps_per_epoch, every_epoch=bool(waits)),
            adjust=parts.learning_rate,
            enough=lambda: evaluation.stopped_early,
            first_bad=first_bad,
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


def _steps(
    steps: Iterator[int],
    recorder: Recorder,
    summary: dict[str, Any],
    stop: Stop,
    keeper: Keeper,
    clock: Clock,
) -> Iterator[int]:
    """The steps; between two of them is the place for a checkpoint, and to leave."""
    for step in steps:
        summary["steps"] = step  # so many are done
        if stop.asked is not None or keeper.due(step):
            with clock.paused():
                recorder.flush()
                keeper.write(step)
        stop.check()
        clock.step()
        yield step


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
        if data.task == "classification" and data.outputs <= MOST_CLASSES:
            summary["confusion"] = confusion(model, data.test.inputs, data.test.targets, data.outputs)
        if data.task != "adversarial":
            best = config.best_error
            if best is None:
                best = known_best(measure(parts.metrics), data.task, data.facts)
            summary["gaps"] = gaps(summary["metrics"], parts.metrics, best)
        with undisturbed(model):
            seconds = prediction_seconds(model, data.test.inputs)
        summary["timing"]["predict_seconds_per_sample"] = float(f"{seconds:.3g}")
    if look:
        few = LOOKED_AT_NUMBERS // max(data.train.inputs[0].numel(), 1)
        look(data.train.inputs[: min(max(parts.batch_size, few), LOOKED_AT)])


def _draw(parts: Parts, folder: Path, terminal: Terminal) -> None:
    """Pictures for TensorBoard, once all else is told and kept."""
    images = parts.request.config.record.images
    if not images:
        return
    try:
        trained = None
        if images == "auto" and terminal.console.quiet:  # in the jobs of a sweep nobody waits for them
            summary = folders.read_json(folder / folders.SUMMARY)
            rate = summary["timing"]["samples_per_second"]
            trained = summary["steps"] * parts.batch_size / rate if rate else 0.0
        pictures.draw(folder, partial(_most_wrong, parts), trained=trained)
    except Exception as error:  # the run is whole without them
        terminal.remark(f"pictures    cannot be drawn: {type(error).__name__}: {error}")


def _most_wrong(parts: Parts, summary: Mapping[str, Any]) -> list[pictures.Wrong]:
    data = parts.data
    shown = data.task == "classification" and pictures.are_pictures(data.input_shape)
    if not shown or summary["status"] not in folders.COUNTED:
        return []
    found = most_wrong(parts.model, data.test.inputs, data.test.targets, pictures.MOST_WRONG)
    inputs = data.test.inputs[[one.sample for one in found]].cpu().numpy()
    return pictures.as_pictures(inputs, found, summary)


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


def _batches(parts: Parts) -> Batches:
    config = parts.request.config
    return Batches(parts.data.train, parts.batch_size, config.seed, fixed=config.train.fixed_batch)


def _augmented(batches: Iterator[Batch], augmentation: nn.Module | None) -> Iterator[Batch]:
    """Training batches, augmented anew each time."""
    for inputs, targets in batches:
        yield (augmentation(inputs) if augmentation else inputs), targets


def _save_config(folder: Path, request: Request) -> None:
    """What Hydra itself leaves in a run folder: the config, the words, and its own settings."""
    for name, content in (
        ("config", request.config),
        ("overrides", request.overrides),
        ("hydra", {"hydra": OmegaConf.to_container(request.hydra, enum_to_str=True)}),
    ):
        (folder / f"{name}.yaml").write_text(describe.as_yaml(content), encoding="utf-8")
