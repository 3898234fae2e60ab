"""A first signal waits for the next safe place, a second one does not; no improvement ends a run early."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dlexp
from dlexp.better import LOWER_IS_BETTER
from dlexp.errors import Terminated
from dlexp.train.metrics import ALL
from dlexp.train.stopping import EarlyStopping, stoppable


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_the_first_signal_is_held_back(number: int, kind: type[BaseException]) -> None:
    """Nothing happens until `check`, which raises what the signal stands for."""
    with stoppable() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        assert stop.asked == number
        with pytest.raises(BaseException, match=r"^$") as caught:
            stop.check()
    assert caught.type is kind


def test_one_that_nobody_checked_for_is_told_at_the_end() -> None:
    """It came during the last evaluation, say: the run has ended, and the sweep is to end, too."""
    with pytest.raises(KeyboardInterrupt), stoppable():
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def _ctrl_c_counts() -> Iterator[None]:
    """A shell ignores it for what runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_counts")
def test_the_second_is_not() -> None:
    """Who presses Ctrl-C twice means it."""
    with pytest.raises(KeyboardInterrupt), stoppable():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second came through at once")


def test_handlers_are_put_back() -> None:
    """Whether or not a signal came."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(KeyboardInterrupt), stoppable():
        os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_changes_nothing() -> None:
    """Python hands signals to the main thread only."""
    found = []

    def enter() -> None:
        with stoppable() as stop:
            found.append((stop.asked, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(None, signal.getsignal(signal.SIGTERM))]


def course(stopping: EarlyStopping, values: list[float], name: str = "loss") -> tuple[list[bool], float]:
    """What it says to each value, and the weight at the end; step n has the weight n."""
    model = nn.Linear(1, 1, bias=False)
    said = []
    for step, value in enumerate(values):
        nn.init.constant_(model.weight, step)
        said.append(stopping.see(step, {f"{name}/validation": value}, model))
    stopping.restore(model)
    return said, model.weight.item()


def test_patience_by_hand() -> None:
    """The best at step 2; two evaluations later it is enough, and the weights are those of step 2."""
    stopping = EarlyStopping(patience=2)
    assert course(stopping, [3.0, 2.0, 1.0, 1.5, 1.0]) == ([False] * 4 + [True], 2.0)
    assert stopping.best_step == 2


def test_an_improvement_starts_the_wait_anew() -> None:
    """One bad value, one good one, two bad ones."""
    assert course(EarlyStopping(patience=2), [3.0, 4.0, 2.0, 4.0, 5.0])[0] == [False] * 4 + [True]


def test_a_small_improvement_is_none() -> None:
    """min_delta is counted from the best, not from the value before."""
    stopping = EarlyStopping(patience=3, min_delta=0.5)
    assert course(stopping, [3.0, 2.8, 2.6, 2.4])[0] == [False] * 4 and stopping.best_step == 3


def test_without_restore_the_last_weights_stay() -> None:
    """The best step is still known."""
    stopping = EarlyStopping(patience=1, restore=False)
    assert course(stopping, [1.0, 2.0]) == ([False, True], 1.0) and stopping.best_step == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_no_improvement(bad: float) -> None:
    """Neither at first, when there is nothing to compare with, nor later."""
    stopping = EarlyStopping(patience=2)
    assert course(stopping, [bad, 2.0, bad, bad]) == ([False, False, False, True], 1.0)
    assert stopping.best_step == 1
    nothing = EarlyStopping(patience=2)
    assert course(nothing, [bad, bad]) == ([False, True], 1.0) and nothing.best_step is None


def test_more_accuracy_is_better_and_more_error_is_worse() -> None:
    """The direction follows from the name."""
    stopping = EarlyStopping(patience=1, monitor="accuracy/validation")
    assert course(stopping, [0.5, 0.7, 0.6], "accuracy") == ([False, False, True], 1.0)
    stopping = EarlyStopping(patience=1, monitor="rmse/validation")
    assert course(stopping, [0.5, 0.7], "rmse") == ([False, True], 0.0)


def test_running_statistics_are_restored_with_the_weights() -> None:
    """Otherwise the best weights would meet the batch statistics of another moment."""
    model, stopping = nn.BatchNorm1d(3), EarlyStopping(patience=1)
    model(torch.randn(5, 3))
    stopping.see(0, {"loss/validation": 1.0}, model)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    model(torch.randn(5, 3) + 7)
    stopping.see(1, {"loss/validation": 2.0}, model)
    stopping.restore(model)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


OVERFIT = ["train.batch_size=200", "optimizer=adam", "optimizer.lr=0.03", "record.tensorboard=false"]


def test_a_run_stops_early_with_its_best_weights(tmp_path: Path) -> None:
    """The test metrics are, to the last bit, those of a run that ends at the best step by itself."""
    words = [*OVERFIT, f"outputs={tmp_path}", "record=off"]
    early = dlexp.run([*words, "stopping=early", "stopping.patience=3", "train.epochs=200"], quiet=True)
    summary = early.summary
    steps_per_epoch = 6
    assert summary["status"] == "stopped_early"
    assert summary["steps"] == summary["best_step"] + 1 + 3 * steps_per_epoch < 200 * steps_per_epoch
    curve = early.metrics.set_index("step")["loss/validation"].dropna()
    assert curve[summary["best_step"]] == min(curve)
    ends = dlexp.run([*words, f"train.max_steps={summary['best_step'] + 1}"], quiet=True).summary
    for tag in ("loss/test", "accuracy/test", "loss/validation"):
        assert summary["metrics"][tag] == ends["metrics"][tag]
    assert summary["restored_step"] == summary["best_step"]
    before, last = early.metrics.to_dict("records")[-2:]
    assert before["step"] == summary["steps"] - 1 and math.isnan(before["loss/test"])
    assert last["step"] == summary["best_step"] and math.isnan(last["loss/validation"])
    assert last["loss/test"] == ends["metrics"]["loss/test"]


def test_without_restore_a_run_ends_with_its_last_weights(tmp_path: Path) -> None:
    """Those of a run that is as long."""
    words = [*OVERFIT, f"outputs={tmp_path}", "record=off"]
    stop = ["stopping=early", "stopping.patience=2", "stopping.restore=false", "train.epochs=200"]
    early = dlexp.run([*words, *stop], quiet=True).summary
    ends = dlexp.run([*words, f"train.max_steps={early['steps']}"], quiet=True).summary
    assert early["status"] == "stopped_early" and "restored_step" not in early
    assert early["metrics"]["loss/test"] == ends["metrics"]["loss/test"]


def test_a_run_that_improves_to_its_end_is_finished(tmp_path: Path) -> None:
    """Nothing was cut short."""
    words = [f"outputs={tmp_path}", "record=off", "stopping=early", "train.epochs=2"]
    summary = dlexp.run(words, quiet=True).summary
    assert summary["status"] == "finished" and summary["steps"] == summary["best_step"] + 1
    assert "restored_step" not in summary


class Fails(nn.CrossEntropyLoss):
    """Is no number from the 64th training step on, the fourth of an epoch."""

    steps = 0

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        Fails.steps += torch.is_grad_enabled()
        return super().forward(outputs, targets) * (math.nan if Fails.steps > 63 else 1.0)


def test_a_run_that_diverges_keeps_its_best_weights(tmp_path: Path) -> None:
    """Not those that gave the bad loss."""
    words = [*OVERFIT, f"outputs={tmp_path}", "record=off", "train.keep_weights=true"]
    own = [f"+loss._target_={__name__}.Fails", "stopping=early", "stopping.patience=50"]
    Fails.steps = 0
    run = dlexp.run([*words, *own], quiet=True)
    best = run.summary["best_step"]
    assert run.summary["status"] == "diverged" and run.summary["steps"] == 63 > best + 1
    ends = dlexp.run([*words, f"train.max_steps={best + 1}"], quiet=True)
    kept, wanted = (torch.load(r.folder / "weights.pt", weights_only=True) for r in (run, ends))
    assert all(torch.equal(kept[name], wanted[name]) for name in wanted)


def test_every_metric_has_a_direction() -> None:
    """Whoever adds one says here, or in LOWER_IS_BETTER, which way is better."""
    more_is_better = {
        *("accuracy", "precision", "recall", "f1", "auc", "rounded_accuracy"),
        *("exact_match", "sequence_accuracy", "ndcg", "nearest_neighbour", "fooled", "modes_covered"),
    }
    assert set(ALL) - set(LOWER_IS_BETTER) == more_is_better
    assert set(LOWER_IS_BETTER) - set(ALL) == {"loss"}
