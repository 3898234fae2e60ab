"""dlexp.watch: in a loop of one's own the same numbers as in dlexp's, and no trace left."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from second_opinion import OptimizerFactory, adam, expected, random_batches, sgd
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import dlexp
from dlexp.build.mlp import mlp
from dlexp.errors import UserError
from dlexp.pictures import SECONDS, SPARE
from dlexp.record.own_loop import OwnLoop
from dlexp.record.probes import QUANTITIES
from dlexp.record.recorder import LONGEST_PENDING, Recorder
from dlexp.record.schedule import EARLY, schedule
from dlexp.record.sinks import RecordLines
from dlexp.report.command import command
from dlexp.train.loop import fit
from dlexp.train.step import Batch

STEPS = 9
NETWORKS = {
    "plain": {},
    "dropout": {"dropout": partial(nn.Dropout, 0.5)},
    "batch": {"normalization": nn.BatchNorm1d},
}
OPTIMIZERS = {"momentum": sgd(0.03, 0.9), "adam": adam(0.01)}
cross_entropy = nn.functional.cross_entropy


def network(kind: str = "plain", dtype: torch.dtype = torch.float32, width: int = 16) -> nn.Sequential:
    torch.manual_seed(0)
    return mlp((8,), 4, depth=3, width=width, bias=True, activation=nn.ReLU, **NETWORKS[kind]).to(dtype)


def batches(steps: int = STEPS, dtype: torch.dtype = torch.float32) -> list[Batch]:
    return random_batches(steps, 16, 8, classes=4, dtype=dtype)


def train(
    model: nn.Module,
    recorder: OwnLoop | None,
    optimizer: OptimizerFactory = OPTIMIZERS["momentum"],
    data: Sequence[Batch] | None = None,
) -> None:
    """Somebody's own loop."""
    torch.manual_seed(1)
    steps = optimizer(model.parameters())
    for x, y in data or batches():
        steps.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        if recorder:
            recorder.step(loss)
        steps.step()


def watched(model: nn.Module, folder: Path, every: Any = 1, loop: Callable[..., None] = train) -> dlexp.Run:
    """What is recorded of it."""
    with dlexp.watch(model, folder / "mine", every, steps=STEPS, tensorboard=False) as recorder:
        loop(model, recorder)
    return dlexp.load(recorder.folder)


def hooks(model: nn.Module) -> list[str]:
    """Every hook that hangs on a module of the model, or on all modules there are."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    own = [f"{name}.{kind}" for name, m in model.named_modules() for kind in kinds if getattr(m, kind)]
    return own + [name for name, x in vars(global_hooks).items() if name.startswith("_global_") and x]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("every", [1, 4, "auto"])
def test_the_record_is_that_of_dlexps_own_loop(
    kind: str, optimizer: str, every: int | str, tmp_path: Path
) -> None:
    """records.jsonl, byte for byte."""
    run = watched(network(kind), tmp_path, every, partial(train, optimizer=OPTIMIZERS[optimizer]))
    model = network(kind)
    lines = RecordLines(tmp_path / "own.jsonl", [layer.name for layer in layers(model)], QUANTITIES)
    recorder = Recorder(model, schedule(every, STEPS), [lines])
    torch.manual_seed(1)
    steps = OPTIMIZERS[optimizer](model.parameters())
    fit(model, cross_entropy, steps, iter(batches()), range(STEPS), recorder=recorder)
    recorder.close()
    lines.close()
    text = (run.folder / "records.jsonl").read_text()
    assert text == (tmp_path / "own.jsonl").read_text() and text.count("\n") > 3


def layers(model: nn.Module) -> list[Any]:
    return Recorder(model, lambda _: False, []).layers


def close(run: dlexp.Run, wanted: Sequence[dict[str, list[float | None]]], rtol: float = 1e-6) -> None:
    """The records are these numbers; records.jsonl keeps those of float32."""
    lines = [json.loads(line) for line in (run.folder / "records.jsonl").read_text().splitlines()[1:]]
    assert len(lines) == len(wanted)
    for line, want in zip(lines, wanted, strict=True):
        for name in QUANTITIES:
            for got, right in zip(line[name], want[name], strict=True):
                assert (got is None) == (right is None), (name, got, right)
                assert got is None or math.isclose(got, right, rel_tol=rtol, abs_tol=1e-30), (name, line)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_numbers_are_those_of_plain_autograd(kind: str, tmp_path: Path) -> None:
    """A second opinion in float64, none of dlexp's code in it."""
    data = batches(dtype=torch.float64)
    wanted = expected(network(kind, torch.float64), data, OPTIMIZERS["momentum"])
    torch.manual_seed(11)

    def loop(model: nn.Module, recorder: OwnLoop) -> None:
        steps = OPTIMIZERS["momentum"](model.parameters())
        torch.manual_seed(11)
        for x, y in data:
            steps.zero_grad()
            (loss := cross_entropy(model(x), y)).backward()
            recorder.step(loss)
            steps.step()

    close(watched(network(kind, torch.float64), tmp_path, 1, loop), wanted)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("every", [1, 4, lambda step: step in (0, 5, 6)])
def test_watching_changes_no_bit(kind: str, every: Any, tmp_path: Path) -> None:
    """Weights, running statistics, random state and hooks are those of the loop alone."""
    alone, seen = network(kind), network(kind)
    train(alone, None)
    state = torch.get_rng_state()
    watched(seen, tmp_path, every)
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in alone.state_dict().items():
        assert tensor.numpy().tobytes() == seen.state_dict()[name].numpy().tobytes()
    assert hooks(seen) == []


def test_hooks_hang_on_the_model_only_from_forward_to_step(tmp_path: Path) -> None:
    """On no step that is not due; and never where somebody copies or saves the model between two."""
    model, found, due = network(), {}, (1, 2, 5)

    def look(*_: object) -> None:
        found[recorder.steps] = len([name for name in hooks(model) if "_global" not in name]) > 1

    model[-1].register_forward_pre_hook(look)
    (x, y), steps = batches(1)[0], sgd()(model.parameters())
    with dlexp.watch(model, tmp_path / "mine", lambda step: step in due) as recorder:
        for _ in range(8):
            (loss := cross_entropy(model(x), y)).backward()
            recorder.step(loss)
            assert [name for name in hooks(model) if "_global" not in name] == ["7._forward_pre_hooks"]
            steps.step()
    assert found == {step: step in due for step in range(8)}
    assert hooks(model) == ["7._forward_pre_hooks"]


def test_a_model_can_be_copied_and_pickled_between_two_steps(tmp_path: Path) -> None:
    """Also after an evaluation; the copy has no hooks, and what it is used for is not recorded."""

    def copies(model: nn.Module, recorder: OwnLoop) -> None:
        with torch.no_grad():
            model(batches(1)[0][0])
        pickle.dumps(model)
        for x, y in batches():
            train(model, recorder, data=[(x, y)])
            with torch.no_grad():
                model(x)
            for other in (copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))):
                cross_entropy(other(model)(x), y).backward()
                assert not [name for name in hooks(model) if "_global" not in name]

    def bare(model: nn.Module, recorder: OwnLoop) -> None:
        for batch in batches():
            train(model, recorder, data=[batch])

    one, other = (watched(network(), tmp_path, 1, loop).folder / "records.jsonl" for loop in (copies, bare))
    assert one.read_text() == other.read_text()


@pytest.mark.parametrize("where", ["forward", "backward", "update", "between"])
@pytest.mark.parametrize("error", [ValueError("a\nb"), KeyboardInterrupt(), SystemExit(1)])
def test_an_exception_leaves_no_hooks_and_a_whole_record(
    where: str, error: BaseException, tmp_path: Path
) -> None:
    """It passes through; the folder says what it was and has what was recorded up to there."""
    model = network()
    steps = sgd()(model.parameters())

    def raise_at(place: str) -> None:
        if place == where and recorder.steps >= 3:
            raise error

    model[-1].register_forward_pre_hook(lambda *_: raise_at("forward"))
    with pytest.raises(type(error)), dlexp.watch(model, tmp_path / "mine", 1) as recorder:
        for x, y in batches():
            loss = cross_entropy(model(x), y)
            loss.register_hook(lambda _: raise_at("backward"))
            loss.backward()
            recorder.step(loss)
            raise_at("update")
            steps.step()
            raise_at("between")
    model[-1]._forward_pre_hooks.clear()
    assert hooks(model) == []
    run = dlexp.load(recorder.folder)
    failed = isinstance(error, Exception)
    assert run.summary["status"] == ("failed" if failed else "interrupted")
    assert run.summary["error"] == ("ValueError: a b" if failed else None)
    assert run.summary["steps"] == run.records["step"].max() + 1 == 3
    recorder.step(1.0)  # afterwards it does nothing
    assert hooks(model) == [] and recorder.steps == 3


class Operations(TorchDispatchMode):
    """Counts what PyTorch is asked to do."""

    count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return operation(*args, **(kwargs or {}))


def test_a_step_that_is_not_due_costs_nothing(tmp_path: Path) -> None:
    """PyTorch is asked to do nothing at all, but for the update of the step before."""
    model, counts = network(), []
    (x, y), steps = batches(1)[0], sgd()(model.parameters())
    with dlexp.watch(model, tmp_path / "mine", 4) as recorder:
        for _ in range(8):
            (loss := cross_entropy(model(x), y)).backward()
            with Operations() as asked:
                recorder.step(loss, accuracy=loss)
            counts.append(asked.count)
            steps.step()
    assert [counts[step] for step in (2, 3, 6, 7)] == [0] * 4
    assert counts[0] and counts[4]


@pytest.mark.parametrize(
    ("every", "steps", "due"),
    [
        (3, None, [0, 3, 6]),
        (3, 9, [0, 3, 6, 8]),
        ("auto", 9, [*range(9)]),
        ("auto", 30, [0, 1, 2, *range(3, 30)]),
        (lambda step: step > 6, None, [7, 8]),
        (lambda step: step == 2 or None, 9, [2]),
    ],
)
def test_the_schedule(every: Any, steps: int | None, due: list[int], tmp_path: Path) -> None:
    """A number, dlexp's own, or a function; each step is asked about once."""
    model, asked = network(), []
    schedule = (lambda step: asked.append(step) or every(step)) if callable(every) else every
    with dlexp.watch(model, tmp_path / "mine", schedule, steps=steps) as recorder:
        train(model, recorder, data=batches(steps or STEPS))
    assert sorted(set(dlexp.load(recorder.folder).records["step"])) == due
    assert asked == ([*range(STEPS + 1)] if callable(every) else [])
    assert set(EARLY) & {*due} or callable(every) or every == 3


def test_the_files_are_those_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """dlexp.load, dlexp report and TensorBoard read them; the second run does not overwrite the first."""
    model, outputs = network(), tmp_path / "outputs" / "mine"
    folders = []
    for _ in range(2):
        with dlexp.watch(model, outputs, 2) as recorder:
            assert (recorder.folder / ".hydra" / "lock").exists()  # nobody else takes it for a dead run
            for step, batch in enumerate(batches()):
                train(model, recorder, data=[batch])
                if step % 4 == 3:
                    recorder.scalars(step, {"loss/validation": torch.tensor(0.5), "f1/validation": step})
        folders.append(recorder.folder)
    assert folders[0] != folders[1] and {path.parent for path in folders} == {outputs}
    run = dlexp.load(folders[1])
    assert run.summary["status"] == "finished" and run.summary["steps"] == STEPS
    assert run.summary["metrics"] == {"loss/validation": 0.5, "f1/validation": 7.0}
    assert run.metrics["step"].tolist() == [3, 7] and run.metrics["f1/validation"].tolist() == [3, 7]
    assert sorted(set(run.records["step"])) == [0, 2, 4, 6, 8]
    assert run.summary["layers"][0]["reasons"]["last"]["slope_mean"] == "not looked at in a loop of one's own"
    assert not (folders[1] / ".hydra" / "lock").exists()
    command([str(folders[1])])
    command([str(outputs)])
    out = capsys.readouterr().out
    assert "04_linear" in out and "f1 7" in out
    events = EventAccumulator(str(folders[1]), size_guidance={"tensors": 0})
    events.Reload()
    first = run.records[run.records["layer"] == "02_linear"]
    seen = events.Scalars("delta_rms/02_linear")
    assert [event.step for event in seen] == [0, 2, 4, 6, 8]
    assert [event.value for event in seen] == pytest.approx(first["delta_rms"].tolist())
    assert [event.value for event in events.Scalars("f1/validation")] == [3, 7]
    assert len(events.Scalars("loss/train")) == 5


@pytest.mark.parametrize("numbers", [{}, {"f1/validation": 0.75}, {"loss/test": 0.75}, {"loss": 0.75}])
def test_a_report_needs_no_loss_of_a_split(
    numbers: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a loop of one's own does not tell is left out; whatever it is called, it does no harm."""
    model = network()
    with dlexp.watch(model, tmp_path / "mine") as recorder:
        train(model, recorder)
        recorder.scalars(8, numbers)
    command([str(recorder.folder)])
    command([str(tmp_path / "mine")])
    assert "0.75" in capsys.readouterr().out or not {*numbers} - {"loss"}
    page = (recorder.folder / "report.html").read_text()
    assert "finished" in page and "<title>Sequential in a loop of your own" in page


def test_a_loop_without_a_step_leaves_a_run(tmp_path: Path) -> None:
    """Nothing was recorded, and that is what it says."""
    told = pytest.warns(UserWarning, match=r"recorder\.step was never called, so nothing is recorded")
    with told, dlexp.watch(network(), tmp_path / "mine") as recorder:
        assert "still goes on" in repr_of_summary(recorder.folder)
    run = dlexp.load(recorder.folder)
    assert run.summary["status"] == "finished" and run.summary["steps"] == 0
    assert run.records.empty and run.metrics.empty
    assert [layer["first"] for layer in run.summary["layers"]] == [None] * 4


def repr_of_summary(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        dlexp.load(folder)
    return "still goes on" if not list(folder.glob("*.json*")) else str(caught.value)


def test_a_loss_that_is_not_finite_is_the_last_that_is_recorded(tmp_path: Path) -> None:
    """The loop is not stopped; it can ask. The summary says where."""
    model, data, diverged, waiting = network(), batches(), [], []
    data[4][0][0, 0] = math.inf
    with dlexp.watch(model, tmp_path / "mine", 1) as recorder:
        for batch in data:
            waiting.append(hooks(model))
            train(model, recorder, data=[batch])
            recorder.scalars(recorder.steps, {"loss/validation": 1.0})  # brings to the host what waits
            diverged.append(recorder.diverged)
    assert [bool(hooks) for hooks in waiting] == [step <= 6 for step in range(STEPS)]
    run = dlexp.load(recorder.folder)
    assert run.summary["status"] == "diverged" and run.summary["steps"] == STEPS
    bad = {"step": 4, "layer": "01_linear", "reason": "its activation_rms is not finite"}
    assert run.summary["diverged"] == bad
    assert run.records["step"].max() == 4 and diverged == [step > 4 for step in range(STEPS)]
    assert hooks(model) == []


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_are_the_runs_of_one_step(parts: int, tmp_path: Path) -> None:
    """Several backward passes, one recorder.step before the update: the numbers of the whole batch."""
    whole = watched(network(dtype=torch.float64), tmp_path, 2, partial(train, data=batches(4, torch.float64)))

    def loop(model: nn.Module, recorder: OwnLoop) -> None:
        steps = OPTIMIZERS["momentum"](model.parameters())
        for x, y in batches(4, torch.float64):
            steps.zero_grad()
            total = torch.zeros(())
            for part, answers in zip(x.chunk(parts), y.chunk(parts), strict=True):
                loss = cross_entropy(model(part), answers) / parts
                loss.backward()
                total += loss.detach()
            recorder.step(total)
            total.zero_()  # what the loop does with its tensor afterwards does not matter
            steps.step()

    run = watched(network(dtype=torch.float64), tmp_path, 2, loop)
    quantities = list(QUANTITIES)
    left, right = run.records[quantities].to_numpy(), whole.records[quantities].to_numpy()
    assert left == pytest.approx(right, rel=1e-6, nan_ok=True)
    assert run.records["loss"].tolist() == pytest.approx(whole.records["loss"].tolist())
    assert run.over_time["time"].max() == parts - 1  # and those of each micro-batch
    each = run.over_time[(run.over_time["step"] == 2) & (run.over_time["layer"] == "02_linear")]
    own = whole.records[(whole.records["step"] == 2) & (whole.records["layer"] == "02_linear")]
    mean_square = (each["delta_rms"] ** 2).mean()
    assert mean_square == pytest.approx(own["delta_rms"].item() ** 2, rel=1e-6)


def half_rms(*tensors: Tensor) -> float:
    return torch.cat([t.detach().double().flatten() for t in tensors]).square().mean().sqrt().item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_numbers_are_those_of_the_half_tensors(dtype: torch.dtype, tmp_path: Path) -> None:
    """Summed in float32 or wider: as a sum in float64 over the very tensors, to six digits."""
    model, (x, y) = network(), batches(1)[0]
    shadow = copy.deepcopy(model)
    with torch.autocast("cpu", dtype=dtype):
        zs, out = [], x
        for module in shadow:
            out = module(out)
            if isinstance(module, nn.Linear):
                out.retain_grad()
                zs.append([out, out])
            elif isinstance(module, nn.ReLU):
                zs[-1][1] = out
        loss = cross_entropy(out, y)
    loss.backward()
    assert zs[0][0].dtype is dtype

    with dlexp.watch(model, tmp_path / "mine", 1) as recorder:
        with torch.autocast("cpu", dtype=dtype):
            loss = cross_entropy(model(x), y)
        loss.backward()
        recorder.step(loss)
    found = dlexp.load(recorder.folder).records
    assert found["delta_rms"].tolist() == pytest.approx([half_rms(z.grad) for z, _ in zs], rel=1e-6)
    assert found["activation_rms"].tolist() == pytest.approx([half_rms(a) for _, a in zs], rel=1e-6)
    dead = [(a == 0).all(dim=0).double().mean().item() for _, a in zs[:-1]]
    assert found["dead_fraction"].tolist()[:-1] == dead


@pytest.mark.parametrize("width", [16, 300])
def test_a_network_of_half_numbers_is_measured_in_whole_ones(width: int, tmp_path: Path) -> None:
    """Weights of bfloat16: norms have five digits, not three; also of layers measured where they lie."""
    model, (x, y) = network(dtype=torch.bfloat16, width=width), batches(1)[0]
    with dlexp.watch(model, tmp_path / "mine", 1) as recorder:
        loss = cross_entropy(model(x.bfloat16()), y)
        loss.backward()
        recorder.step(loss)
        before = [p.detach().double() for p in model.parameters()]
        sgd(0.5)(model.parameters()).step()
    found = dlexp.load(recorder.folder).records
    linear = [module for module in model if isinstance(module, nn.Linear)]
    size = [half_rms(m.weight.grad, m.bias.grad) * math.sqrt(m.weight.numel() + len(m.bias)) for m in linear]
    assert found["grad_norm"].tolist() == pytest.approx(size, rel=1e-5)
    moved = [p.detach().double() - b for p, b in zip(model.parameters(), before, strict=True)]
    ratio = [
        half_rms(moved[2 * i], moved[2 * i + 1]) / half_rms(before[2 * i], before[2 * i + 1])
        for i in range(4)
    ]
    assert found["update_ratio"].tolist() == pytest.approx(ratio, rel=1e-5)


def scaled(model: nn.Module, recorder: OwnLoop, *, unscale: bool = True, spoiled: int = -1) -> None:
    """The loop of somebody who scales the loss; in one step a gradient overflows."""
    scaler, steps = torch.amp.GradScaler("cpu", init_scale=2.0**12), sgd(0.1)(model.parameters())
    for step, (x, y) in enumerate(batches()):
        steps.zero_grad()
        loss = cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        if step == spoiled:
            model[1].weight.grad[0, 0] = math.inf
        if unscale:
            scaler.unscale_(steps)
        recorder.step(loss, scaler=scaler)
        scaler.step(steps)
        scaler.update()


def test_a_scaler_changes_no_number(tmp_path: Path) -> None:
    """The scale, a power of two, is taken out of gradients and of what came back, to the last bit."""
    plain = watched(network(), tmp_path, 1, partial(train, optimizer=sgd(0.1)))
    run = watched(network(), tmp_path, 1, scaled)
    assert (run.folder / "records.jsonl").read_text() == (plain.folder / "records.jsonl").read_text()


def test_an_update_that_a_scaler_leaves_out_is_none(tmp_path: Path) -> None:
    """Gradients that are not finite are on record, update_ratio says why it is missing; then it goes on."""
    run = watched(network(), tmp_path, 1, partial(scaled, spoiled=1))
    first = run.records[run.records["layer"] == "01_linear"]
    assert math.isnan(first["update_ratio"].tolist()[1]) and min(first["update_ratio"].tolist()[2:]) > 0
    line = json.loads((run.folder / "records.jsonl").read_text().splitlines()[2])
    assert line["grad_norm"][0] is None and line["reasons"]["grad_norm"][0] == "inf"
    assert line["reasons"]["update_ratio"][0] == "no update was made"
    assert run.summary["status"] == "finished"


def test_two_steps_in_one_update_are_told(tmp_path: Path) -> None:
    """Once a micro-batch, say; and where an optimizer holds another model. It is recorded all the same."""
    model, seen = network(), []
    update = sgd()(model.parameters())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with dlexp.watch(model, tmp_path / "mine", 1) as recorder:
            for n, (x, y) in enumerate(batches(4)):
                (loss := cross_entropy(model(x), y)).backward()
                recorder.step(loss)
                seen.append(sum("no update between two calls" in str(one.message) for one in caught))
                if n % 2:
                    update.step()
    assert seen == [0, 1, 1, 2]
    assert "allowed: once an update" in str(caught[0].message)
    ratios = dlexp.load(recorder.folder).records.groupby("step")["update_ratio"].max()
    assert [bool(ratio) for ratio in ratios] == [False, True, False, True]


def test_updates_by_hand_are_updates(tmp_path: Path) -> None:
    """`p.data -=` is seen in the numbers, though PyTorch does not count it as a change."""
    model = network()
    with warnings.catch_warnings(), dlexp.watch(model, tmp_path / "mine", 1) as recorder:
        warnings.simplefilter("error")
        for x, y in batches(3):
            model.zero_grad()
            (loss := cross_entropy(model(x), y)).backward()
            recorder.step(loss)
            for p in model.parameters():
                p.data -= 0.1 * p.grad
    assert dlexp.load(recorder.folder).records["update_ratio"].min() > 0


def test_behind_the_update_is_too_late(tmp_path: Path) -> None:
    model = network()
    update = sgd()(model.parameters())
    wrong = pytest.raises(UserError, match=r"the weights changed between forward and recorder\.step\(loss\)")
    with wrong, dlexp.watch(model, tmp_path / "mine", 1) as recorder:
        for x, y in batches(2):
            (loss := cross_entropy(model(x), y)).backward()
            update.step()
            recorder.step(loss)
    assert hooks(model) == [] and dlexp.load(recorder.folder).summary["status"] == "failed"


def test_no_filter_of_warnings_is_left_behind(tmp_path: Path) -> None:
    before = [*warnings.filters]
    watched(network(), tmp_path)
    assert warnings.filters == before


@pytest.mark.usefixtures("drawn")
def test_tensorboard_shows_what_was_chosen_and_what_became_of_the_signal(tmp_path: Path) -> None:
    """Pictures and HParams, as of a run of dlexp's own; a loop that fails has them as well."""
    chosen = {"lr": 0.1, "optimizer": "sgd", "nesterov": False}
    for error in (None, ValueError("stop")):
        model = network()
        with (
            pytest.raises(ValueError, match="stop") if error else nullcontext(),
            dlexp.watch(model, tmp_path / "mine", 1, hyperparameters=chosen) as recorder,
        ):
            train(model, recorder)
            recorder.scalars(STEPS - 1, {"loss/validation": 0.5})
            time.sleep(2.2 * SECONDS / SPARE)  # long enough that a picture does not matter
            if error:
                raise error
        found = EventAccumulator(str(recorder.folder), size_guidance={"images": 0}).Reload()
        assert found.Tags()["images"] == ["layers/signature"]
        data = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        start = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info
        assert {key: getattr(x, x.WhichOneof("kind")) for key, x in start.hparams.items()} == chosen
        data = found.summary_metadata["_hparams_/session_end_info"].plugin_data.content
        end = plugin_data_pb2.HParamsPluginData.FromString(data).session_end_info
        assert end.status == (api_pb2.STATUS_FAILURE if error else api_pb2.STATUS_SUCCESS)
        assert dlexp.load(recorder.folder).summary["hyperparameters"] == chosen


class Compiler:
    """A backend that counts how often what it compiled is run."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            self.runs += 1
            return graph.forward(*args)

        return run


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor"
)  # PyTorch's own, of a part that is compiled
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("way", ["watch what is compiled", "watch the model", "in place", "a part of it"])
def test_a_compiled_model_runs_as_it_was_written_on_steps_that_are_due(way: str, tmp_path: Path) -> None:
    """So the numbers are those of the model; the other steps run compiled, without hooks."""
    plain = watched(network(), tmp_path, 4)
    model, compiler = network(), Compiler()
    seen = model
    if way == "in place":
        model.compile(backend=compiler)
    elif way == "a part of it":
        model[3] = torch.compile(model[3], backend=compiler)
    else:
        called = torch.compile(model, backend=compiler)
        seen = called if way == "watch what is compiled" else model
    run_it = model if way in ("in place", "a part of it") else called
    with dlexp.watch(seen, tmp_path / "mine", 4, steps=STEPS, tensorboard=False) as recorder:
        train(run_it, recorder)
    run = dlexp.load(recorder.folder)
    assert (run.folder / "records.jsonl").read_text() == (plain.folder / "records.jsonl").read_text()
    assert compiler.runs == STEPS - 3  # but for 0, 4 and 8
    assert hooks(model) == []
    train(run_it, None)
    assert compiler.runs == STEPS - 3 + STEPS  # compiling is as it was before


def test_an_old_torch_says_that_it_cannot_record_what_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, before anything is made."""
    model = torch.compile(network(), backend="eager")
    monkeypatch.delattr(torch.compiler, "set_stance")
    with pytest.raises(UserError, match=r"needs torch 2\.6 or newer.*allowed: the model without it"):
        dlexp.watch(model, tmp_path / "mine")


@pytest.fixture
def _process_group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    store = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("_process_group")
@pytest.mark.parametrize("wrap", [nn.parallel.DistributedDataParallel, nn.DataParallel])
def test_inside_a_wrapper_layers_and_numbers_are_those_of_the_model(
    wrap: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    """Whether the wrapper is watched or what is in it."""
    plain = (watched(network(), tmp_path).folder / "records.jsonl").read_text()
    for inner in (False, True):
        model = network()
        wrapped = wrap(model)
        with dlexp.watch(model if inner else wrapped, tmp_path / "mine", 1) as recorder:
            train(wrapped, recorder)
        run = dlexp.load(recorder.folder)
        assert (run.folder / "records.jsonl").read_text() == plain
        assert [layer["path"] for layer in run.summary["layers"]] == ["1", "3", "5", "7"]
        assert hooks(model) == []


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK"])
def test_only_the_first_of_several_processes_records(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the others there is no folder, and nothing happens."""
    monkeypatch.setenv(name, "1")
    model = network()
    with dlexp.watch(model, tmp_path / "mine", 1) as recorder:
        train(model, recorder)
        recorder.scalars(1, {"loss/validation": 1.0})
        assert hooks(model) == []
    assert recorder.folder is None and list(tmp_path.iterdir()) == []


class Reversed(nn.Module):
    """Its last layer is named first."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 4)
        self.act = nn.Tanh()
        self.inner = nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.inner(x)))


def test_layers_are_numbered_in_the_order_in_which_they_run(tmp_path: Path) -> None:
    """And each keeps its own numbers."""
    torch.manual_seed(0)
    model = Reversed()
    twin = nn.Sequential(model.inner, nn.Tanh(), model.head)
    start = copy.deepcopy(twin.state_dict())
    run = watched(model, tmp_path, 3)
    twin.load_state_dict(start)
    other = watched(twin, tmp_path, 3)
    assert [layer["path"] for layer in run.summary["layers"]] == ["inner", "head"]
    assert run.records.equals(other.records)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_part_has_the_same_numbers(reentrant: bool, tmp_path: Path) -> None:
    """Its forward runs a second time, in backward."""
    plain = watched(network(), tmp_path, 2)

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.net[5:](checkpoint(self.net[:5], x, use_reentrant=reentrant))

    run = watched(Checkpointed(), tmp_path, 2, partial(train, data=with_grad()))
    quantities = [name for name in QUANTITIES if name != "saturated_fraction"]
    left, right = run.records[quantities].to_numpy(), plain.records[quantities].to_numpy()
    assert left == pytest.approx(right, rel=1e-6, nan_ok=True)


def with_grad() -> list[Batch]:
    """What PyTorch's older checkpoints want of inputs."""
    return [(x.requires_grad_(), y) for x, y in batches()]


def test_a_model_may_be_one_layer(tmp_path: Path) -> None:
    """Without any module inside."""
    torch.manual_seed(0)
    run = watched(nn.Linear(8, 4), tmp_path)
    torch.manual_seed(0)
    other = watched(nn.Sequential(nn.Linear(8, 4)), tmp_path)
    assert run.records.equals(other.records) and run.summary["layers"][0]["path"] == ""


def test_numbers_of_a_step_are_on_record(tmp_path: Path) -> None:
    """Tensors or plain ones; evaluations before the first step do no harm."""
    model = network()
    update = sgd()(model.parameters())
    with dlexp.watch(model, tmp_path / "mine", 1) as recorder:
        recorder.scalars(0, {"loss/validation": math.nan})
        for x, y in batches(3):
            (loss := cross_entropy(model(x), y)).backward()
            recorder.step(loss, lr=0.5, right=(model(x).argmax(1) == y).sum(), ratio=torch.tensor([0.25]))
            update.step()
    run = dlexp.load(recorder.folder)
    assert set(run.records["lr"]) == {0.5} and set(run.records["ratio"]) == {0.25}
    assert run.records["right"].max() >= 1 and run.summary["metrics"] == {"loss/validation": None}


def test_rows_reach_the_disk_in_time(tmp_path: Path) -> None:
    """With the next step that is told, also where that one is not due."""
    model, lines = network(), []
    with dlexp.watch(model, tmp_path / "mine", lambda step: step == 0) as recorder:
        for _ in range(4):
            train(model, recorder, data=batches(1))
            lines.append((recorder.folder / "records.jsonl").read_text().count("\n"))
            time.sleep(LONGEST_PENDING * 1.2)
    assert lines[0] == 1 and lines[-1] == 2


def test_memory_does_not_grow(tmp_path: Path) -> None:
    """A watched loop holds no graph of the steps before."""
    import gc

    model, counts = network(), []
    with dlexp.watch(model, tmp_path / "mine", 1) as recorder:
        gc.collect()
        gc.disable()
        try:
            for steps in (100, 400):
                train(model, recorder, data=batches(1) * steps)
                recorder.scalars(0, {"loss/validation": 0.0})
                counts.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))
        finally:
            gc.enable()
    assert counts[1] <= counts[0]


def without_backward(model: nn.Module, recorder: OwnLoop) -> None:
    x, y = batches(1)[0]
    recorder.step(cross_entropy(model(x), y))


def without_forward(model: nn.Module, recorder: OwnLoop) -> None:
    train(network(), recorder)


def told(numbers: dict[str, Any]) -> Callable[[nn.Module, OwnLoop], None]:
    def loop(model: nn.Module, recorder: OwnLoop) -> None:
        x, y = batches(1)[0]
        (loss := cross_entropy(model(x), y)).backward()
        recorder.step(**{"loss": loss, **numbers})

    return loop


@pytest.mark.parametrize(
    ("loop", "text"),
    [
        (without_forward, "no layer of the model ran in this step"),
        (without_backward, r"no layer has a gradient; allowed: recorder\.step\(loss\) behind loss\.backward"),
        (partial(scaled, unscale=False), r"still scaled; allowed: scaler\.unscale_\(optimizer\)"),
        (told({"loss": torch.ones(3)}), r"loss: a tensor of shape \(3,\); allowed: one number"),
        (told({"loss": None}), "loss: NoneType; allowed: one number"),
        (told({"delta_rms": 1.0}), "delta_rms=: is a column of the records already; allowed: another name"),
        (told({"f1": "high"}), "f1: str; allowed: one number"),
        (lambda _, recorder: recorder.scalars(0, {"f1/test": [1, 2]}), "f1/test: list; allowed: one number"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    loop: Callable[[nn.Module, OwnLoop], None], text: str, tmp_path: Path
) -> None:
    """At the first step that is due; the model is left as it was, and the folder says failed."""
    model = network()
    with pytest.raises(UserError, match=text) as caught:
        watched(model, tmp_path, 1, loop)
    assert "\n" not in str(caught.value) and hooks(model) == []
    (summary,) = tmp_path.rglob("summary.json")
    content = json.loads(summary.read_text())
    assert content["status"] == "failed" and str(caught.value) in content["error"]


def lazy() -> nn.Module:
    return nn.LazyLinear(3)


def sharded() -> nn.Module:
    return type("FullyShardedDataParallel", (nn.Sequential,), {})(nn.Linear(2, 2))


def on_two_devices() -> nn.Module:
    found = nn.DataParallel(nn.Linear(2, 2))
    found.device_ids = [0, 1]
    return found


@pytest.mark.parametrize(
    ("make", "words", "text"),
    [
        (network, {"every": 0}, "every=0: no schedule; allowed: a whole number from 1, auto, a function"),
        (network, {"every": True}, "every=True: no schedule"),
        (network, {"every": 2.0}, r"every=2\.0: no schedule"),
        (network, {"every": "often"}, "every='often': no schedule"),
        (network, {"every": "auto"}, "every=auto: how long is the loop. allowed: steps= beside it"),
        (network, {"steps": 0}, "steps=0: how long the loop is; allowed: a whole number from 1"),
        (lambda: "model", {}, r"str: not a model; allowed: a torch\.nn\.Module"),
        (nn.ReLU, {}, "ReLU has no layer: no module with a weight matrix"),
        (lazy, {}, "weight has no shape before the first forward pass; allowed: run one before"),
        (sharded, {}, "FullyShardedDataParallel are spread over processes; allowed: a whole model"),
        (on_two_devices, {}, "DataParallel over several devices; allowed: DistributedDataParallel"),
    ],
)
def test_what_cannot_be_watched_is_told_in_one_line(
    make: Callable[[], Any], words: dict[str, Any], text: str, tmp_path: Path
) -> None:
    """And no folder is made."""
    with pytest.raises(UserError, match=text) as caught:
        dlexp.watch(make(), tmp_path / "mine", **words)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["records.jsonl", "summary.json", "sweep.json"])
def test_a_folder_that_holds_a_run_is_refused(name: str, tmp_path: Path) -> None:
    """It would be taken for a sweep, or for a part of one."""
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=rf"holds a run or a sweep already \({name}\); allowed: another"):
        dlexp.watch(network(), tmp_path)


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    """Here its parent is a file."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no run folder can be made there"):
        dlexp.watch(network(), tmp_path / "file" / "mine").__enter__()


README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("default")  # those of other libraries are theirs
@pytest.mark.parametrize(
    ("name", "needs", "steps", "layers"),
    [
        ("train", "torch", [*range(0, 200, 10)], 2),
        ("train_lightning", "lightning", [0, 10, 20, 30], 2),
        ("train_transformers", "transformers", [0, 5, 10, 15], 11),
    ],
)
def test_the_examples_of_the_readme_run(
    name: str, needs: str, steps: list[int], layers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each as a script of its own, where what it needs is installed."""
    pytest.importorskip(needs, reason=f"{needs} is not installed")
    script = README.partition(f"```python\n# {name}.py\n")[2].partition("```")[0]
    (tmp_path / f"{name}.py").write_text(script)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(dlexp.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, f"{name}.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs").glob("*/*-*-*_*")
    run = dlexp.load(folder)
    assert run.summary["status"] == "finished" and run.summary["script"] == f"{name}.py"
    assert sorted(set(run.records["step"])) == steps and len(run.layers) == layers
    measured = run.records[["grad_norm", "delta_rms", "activation_rms", "update_ratio"]].dropna()
    assert len(measured) >= len(steps) * 2 and (measured > 0).all().all()


def test_without_with_nothing_is_recorded_and_that_is_said(tmp_path: Path) -> None:
    recorder = dlexp.watch(nn.Linear(2, 1), tmp_path / "mine")
    for call in (lambda: recorder.step(0.5), lambda: recorder.scalars(0, {"loss/test": 0.5})):
        with pytest.raises(UserError, match=r"^watch: nothing is recorded yet; allowed: with watch"):
            call()
    assert not (tmp_path / "mine").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_model_of_torch_jit_is_refused() -> None:
    traced = torch.jit.trace(nn.Linear(2, 1), torch.zeros(1, 2))
    with pytest.raises(UserError, match=r"^watch: a model of torch.jit runs no hooks"):
        dlexp.watch(traced, "mine")


@pytest.mark.parametrize("kind", ["small", "large"])
@pytest.mark.parametrize("way", ["slow", "scalars"])
def test_what_is_written_in_between_waits_for_the_update(
    way: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows reach the disk while the update of the last step told is still to come; its numbers stay right."""
    width = 16 if kind == "small" else 300  # of a layer with weights that are not copied together

    def loop(model: nn.Module, recorder: OwnLoop) -> None:
        torch.manual_seed(1)
        update = OPTIMIZERS["momentum"](model.parameters())
        for n, (x, y) in enumerate(batches()):
            update.zero_grad()
            (loss := cross_entropy(model(x), y)).backward()
            recorder.step(loss)
            if way == "scalars":
                recorder.scalars(n, {"loss/validation": 1.0})
            update.step()

    wanted = watched(network(width=width), tmp_path / "wanted", 1)
    if way == "slow":
        monkeypatch.setattr("dlexp.record.recorder.LONGEST_PENDING", -1.0)  # everything has waited too long
    found = watched(network(width=width), tmp_path / "found", 1, loop)
    assert found.records.equals(wanted.records)
