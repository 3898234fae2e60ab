"""Learning rates over time, against their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dlexp
from dlexp.errors import UserError
from dlexp.train.learning_rate import LearningRate
from dlexp.train.schedules import inverse_sqrt, inverse_time, one_cycle

STEPS = 12
RUN = [
    f"train.max_steps={STEPS}",
    "record.every=1",
    "record.tensorboard=false",
    "model.depth=1",
    "optimizer.lr=0.2",
]
EPOCH = 4  # steps: batches of 300 of the 1257 training digits
RUN += ["train.batch_size=300"]


def cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def cycle(t: int) -> float:
    """Up to t = 0.5 * 12 - 1 = 5, down to t = 11."""
    low = 0.2 / 25
    return cosine(low, 0.2, t / 5) if t <= 5 else cosine(0.2, low / 1e4, (t - 5) / 6)


CURVES: list[tuple[list[str], Callable[[int], float]]] = [
    (["scheduler=inverse_time", "scheduler.rate=0.5"], lambda t: 0.2 / (1 + 0.5 * (t // EPOCH))),
    (["scheduler=inverse_time", "scheduler.each=step"], lambda t: 0.2 / (1 + t)),
    (["scheduler=exponential"], lambda t: 0.2 * 0.95 ** (t // EPOCH)),
    (["scheduler=exponential", "scheduler.each=step", "scheduler.gamma=0.8"], lambda t: 0.2 * 0.8**t),
    (["scheduler=inverse_sqrt"], lambda t: 0.2 / math.sqrt(t // EPOCH + 1)),
    (["scheduler=step", "scheduler.step_size=2"], lambda t: 0.2 * 0.5 ** (t // EPOCH // 2)),
    (
        ["scheduler=multistep", "scheduler.each=step", "scheduler.milestones=[3,10]"],
        lambda t: 0.2 if t < 3 else 0.02 if t < 10 else 0.002,
    ),
    (["scheduler=cosine"], lambda t: cosine(0.2, 0, t // EPOCH / 3)),  # T_max: the run's 3 epochs
    (
        ["scheduler=cosine", "scheduler.each=step", "scheduler.eta_min=0.1"],
        lambda t: cosine(0.2, 0.1, t / STEPS),
    ),
    (["scheduler=one_cycle", "scheduler.pct_start=0.5"], cycle),
    (
        ["scheduler=warmup", "scheduler.total_iters=4", "scheduler.start_factor=0.2"],
        lambda t: 0.2 * min(1.0, 0.2 + 0.2 * t),
    ),
    (["scheduler=warmup", "scheduler.total_iters=null"], lambda t: 0.2 * (0.01 + 0.99 * t / STEPS)),
]


@pytest.mark.parametrize(
    ("words", "formula"), CURVES, ids=lambda x: " ".join(x) if isinstance(x, list) else ""
)
def test_the_learning_rate_of_every_step(
    words: list[str], formula: Callable[[int], float], tmp_path: Path
) -> None:
    """As it is on record, with the optimizer's own rate as its largest."""
    run = dlexp.run([*RUN, *words, f"outputs={tmp_path}"], quiet=True)
    found = run.records.groupby("step")["lr"].first()
    assert found.tolist() == pytest.approx([formula(t) for t in range(STEPS)], rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("optimizer", ["adagrad", "rmsprop", "reference_adam", "nesterov"])
@pytest.mark.parametrize("scheduler", ["one_cycle", "cosine"])
def test_schedules_go_with_every_optimizer(optimizer: str, scheduler: str, tmp_path: Path) -> None:
    """Its momentum is left alone, and it needs none."""
    words = [f"optimizer={optimizer}", f"scheduler={scheduler}", "scheduler.each=step"]
    run = dlexp.run([*RUN, *words, f"outputs={tmp_path}"], quiet=True)
    assert run.summary["status"] == "finished" and run.records["lr"].max() > 0.19


def test_the_update_is_made_with_the_rate_on_record(tmp_path: Path) -> None:
    """Plain descent: update norm = lr * gradient norm, in every layer at every step."""
    run = dlexp.run([*RUN, "scheduler=warmup", f"outputs={tmp_path}"], quiet=True)
    rows = run.records
    made = rows["update_ratio"] * rows["weight_norm"]
    assert made.tolist() == pytest.approx((rows["lr"] * rows["grad_norm"]).tolist(), rel=1e-3)


def test_a_short_cycle_ends_and_its_last_rate_stays(tmp_path: Path) -> None:
    """PyTorch would raise an error at step total_steps + 1."""
    words = ["scheduler=one_cycle", "scheduler.total_steps=5", f"outputs={tmp_path}"]
    found = dlexp.run([*RUN, *words], quiet=True).records.groupby("step")["lr"].first().tolist()
    assert found[4:] == pytest.approx([0.2 / 25 / 1e4] * 8) and found[3] > 0.001


def test_a_cycle_without_a_rise_is_refused(tmp_path: Path) -> None:
    """It would divide by zero."""
    words = ["train.max_steps=10", "scheduler=one_cycle", "scheduler.pct_start=0.1"]
    with pytest.raises(
        UserError,
        match=r"^scheduler.pct_start=0.1: is one of 10 steps, too short to rise in; allowed: more of them,"
        r" or a longer run$",
    ):
        dlexp.run([*words, f"outputs={tmp_path}"], quiet=True)


def rates(scheduler: Any, optimizer: torch.optim.Optimizer, losses: list[float | None]) -> list[float]:
    """The rate of each step, two to an epoch, with a validation loss after some."""
    adjust, found = LearningRate(scheduler, "epoch", 2), []
    for step, loss in enumerate(losses):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        adjust(step, {} if loss is None else {"loss/validation": loss, "loss/test": 0.0})
    return found


def one_weight() -> torch.optim.Optimizer:
    w = nn.Parameter(torch.ones(1))
    w.grad = torch.ones(1)
    return torch.optim.SGD([w], lr=1.0)


def test_a_plateau_waits_for_validation_losses() -> None:
    """Patience 1: the second evaluation in a row that is no better divides the rate by ten; NaN is none."""
    optimizer = one_weight()
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=1)
    losses = [None, 0.5, None, 0.4, None, 0.4, None, 0.6, None, 0.3, None, math.nan, None, math.nan, None]
    found = rates(plateau, optimizer, losses)
    assert found == pytest.approx([1.0] * 8 + [0.1] * 6 + [0.01])


def test_a_plateau_after_each_step_is_refused(tmp_path: Path) -> None:
    """There is no validation loss then."""
    with pytest.raises(
        UserError, match=r"^scheduler.each=step: a plateau is seen in the validation loss; allowed: epoch$"
    ):
        dlexp.run(["scheduler=plateau", "scheduler.each=step", f"outputs={tmp_path}"], quiet=True)


def test_a_plateau_in_a_run(tmp_path: Path) -> None:
    """A rate so small that the loss stays: of the epochs after the first every second one lowers it."""
    words = ["train.max_steps=24", "scheduler=plateau", "scheduler.patience=1", "optimizer.lr=1e-6"]
    run = dlexp.run([*RUN, *words, f"outputs={tmp_path}"], quiet=True)
    rate = run.records.groupby("step")["lr"].first()
    assert rate.tolist() == pytest.approx([1e-6] * 12 + [1e-7] * 8 + [1e-8] * 4)


def test_own_schedules_move_at_the_end_of_epochs() -> None:
    """Two steps an epoch."""
    for make, formula in (
        (lambda o: inverse_time(o, rate=2.0), lambda e: 1 / (1 + 2 * e)),
        (inverse_sqrt, lambda e: (e + 1) ** -0.5),
    ):
        optimizer = one_weight()
        assert rates(make(optimizer), optimizer, [None] * 7) == pytest.approx(
            [formula(t // 2) for t in range(7)]
        )


def test_one_cycle_is_torchs() -> None:
    """With the optimizer's rate as its peak and without a cycle of the momentum."""
    ours, theirs = one_weight(), one_weight()
    mine = one_cycle(ours, total_steps=9, pct_start=0.4, div_factor=10.0, final_div_factor=100.0)
    other = torch.optim.lr_scheduler.OneCycleLR(
        theirs, 1.0, 9, pct_start=0.4, div_factor=10.0, final_div_factor=100.0, cycle_momentum=False
    )
    for _ in range(8):
        assert mine.get_last_lr() == other.get_last_lr()
        for optimizer, scheduler in ((ours, mine), (theirs, other)):
            optimizer.step()
            scheduler.step()
    assert ours.param_groups[0]["momentum"] == 0
