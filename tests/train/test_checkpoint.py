"""What is kept between two steps is put back as it was, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from dlexp.compose import CONFIGS
from dlexp.train import checkpoint
from dlexp.train.checkpoint import Generators, Held, Timetable, Unchanged, load, put_back, save, states
from dlexp.train.clock import Clock
from dlexp.train.learning_rate import LearningRate
from dlexp.train.milestone import Milestone
from dlexp.train.schedules import inverse_sqrt, inverse_time, one_cycle
from dlexp.train.stopping import EarlyStopping

CPU = torch.device("cpu")


def through_the_disk(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    save(path / "c.pt", content)
    found = load(path / "c.pt")
    assert found is not None
    return found


def test_all_that_a_checkpoint_holds_comes_back(tmp_path: Path) -> None:
    """Tensors of any kind, numbers that are no numbers, and places of two numbers."""
    content = {
        "tensors": [torch.tensor([1.5, float("nan")]), torch.tensor(3), torch.zeros(0), torch.tensor(True)],
        "plain": {"a": None, "b": float("-inf"), "c": [1, "é", (0.9, 0.99)], (0, 3): "no gradient"},
    }
    found = through_the_disk(tmp_path, content)
    assert found["plain"] == content["plain"]
    for one, other in zip(found["tensors"], content["tensors"], strict=True):
        assert one.dtype == other.dtype and torch.equal(one.nan_to_num(7), other.nan_to_num(7))


class Evil:
    """Code in a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


def test_what_cannot_be_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, an empty one, each part of one, and one with code in it, which is not run."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.pt"
    assert load(path) is None and load(tmp_path) is None
    save(path, {"model": torch.arange(100.0), "step": 3})
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert load(path) is None
    torch.save({"step": Evil()}, path)
    assert load(path) is None and not (tmp_path / "evil").exists()


def test_no_room_is_an_error_of_the_disk(tmp_path: Path) -> None:
    """PyTorch's own is a RuntimeError, as so many others."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(OSError, match="No space left"):
        save(Path("/dev/full"), {"model": torch.zeros(10)})


def test_generators_draw_the_same_again(tmp_path: Path) -> None:
    """Dropout masks and noise after it are those that would have come."""
    part = Generators(CPU)
    torch.rand(5)
    kept = through_the_disk(tmp_path, states({"generators": part}))
    expected = torch.rand(3), torch.randn(3), torch.randperm(9)
    put_back({"generators": part}, kept)
    again = torch.rand(3), torch.randn(3), torch.randperm(9)
    assert all(map(torch.equal, expected, again))


def test_a_held_tensor_stays_the_same_object() -> None:
    """Others look at it."""
    tensor = torch.tensor(7)
    Held(tensor).load_state_dict(torch.tensor(3))
    assert tensor.item() == 3 and Held(tensor).state_dict() is tensor


def test_samples_may_not_change() -> None:
    """Their number, their order, any number in them; rounding, as machines differ in it, is no change."""
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    x[1, 1] = float("nan")
    kept = Unchanged(x).state_dict()
    for same in (x.clone(), x * (1 + 1e-7)):
        Unchanged(same).load_state_dict(kept)
    other = x.clone()
    other[7, 2] += 0.01
    for changed in (x[:39], x.flip(0), other):
        with pytest.raises(ValueError, match="the data has changed"):
            Unchanged(changed).load_state_dict(kept)


@pytest.mark.parametrize(
    ("every", "first", "due"), [(3, 0, [3, 6, 9]), (3, 6, [9]), (None, 0, []), (1, 8, [9])]
)
def test_due_by_steps(every: int | None, first: int, due: list[int]) -> None:
    """Never at the step that a run begins with: what it is there is on the disk, or new."""
    table = Timetable(every, first)
    assert [step for step in range(first, 10) if table.due(step)] == due


def test_due_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a minute; where writing one takes 3 s, every 5 minutes."""
    now = [1000.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    table = Timetable("auto", 0)
    for later, seconds, due in (
        (59, 0, False),
        (2, 0.001, True),
        (59, 0, False),
        (2, 3, True),
        (299, 0, False),
    ):
        now[0] += later
        assert table.due(5) is due
        if due:
            table.took(seconds)
    now[0] += 2
    assert table.due(5) and not table.due(0)


def learning_rate(word: str) -> tuple[torch.optim.Optimizer, LearningRate]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    schedulers = torch.optim.lr_scheduler
    made: Any = {
        "cosine": lambda: schedulers.CosineAnnealingLR(optimizer, T_max=20),
        "exponential": lambda: schedulers.ExponentialLR(optimizer, 0.9),
        "inverse_sqrt": lambda: inverse_sqrt(optimizer),
        "inverse_time": lambda: inverse_time(optimizer, 0.5),
        "multistep": lambda: schedulers.MultiStepLR(optimizer, [2, 9, 12]),
        "one_cycle": lambda: one_cycle(optimizer, 20, 0.3, 25, 100),
        "plateau": lambda: schedulers.ReduceLROnPlateau(optimizer, patience=1),
        "step": lambda: schedulers.StepLR(optimizer, 3),
        "warmup": lambda: schedulers.LinearLR(optimizer, 0.01, total_iters=15),
    }[word]()
    return optimizer, LearningRate(made, "epoch" if word == "plateau" else "step", 1)


@pytest.mark.parametrize(
    "word", sorted(path.stem for path in (CONFIGS / "scheduler").glob("*.yaml") if path.stem != "none")
)
@pytest.mark.parametrize("at", [1, 8, 18])
def test_every_schedule_goes_on(word: str, at: int, tmp_path: Path) -> None:
    """The learning rates behind an interruption are those of a run without one."""
    losses = [
        1.0,
        0.5,
        0.5,
        0.6,
        0.5,
        0.4,
        0.4,
        0.4,
        0.4,
        0.4,
        0.4,
        0.4,
        0.3,
        0.4,
        0.4,
        0.4,
        0.4,
        0.4,
        0.4,
        0.4,
    ]

    def rates(part: tuple[torch.optim.Optimizer, LearningRate], steps: range) -> list[float]:
        found = []
        for step in steps:
            found.append(part[0].param_groups[0]["lr"])
            part[0].step()
            part[1](step, {"loss/validation": losses[step]})
        return found

    expected = rates(learning_rate(word), range(20))
    torn, fresh = learning_rate(word), learning_rate(word)
    rates(torn, range(at))
    put_back(
        dict(zip("os", fresh, strict=True)),
        through_the_disk(tmp_path, states(dict(zip("os", torn, strict=True)))),
    )
    assert rates(fresh, range(at, 20)) == expected[at:]
    assert len(set(expected)) > 1


def test_early_stopping_goes_on(tmp_path: Path) -> None:
    """It has waited for two, one more is enough; the best weights are those from before."""
    model, stopping, later = torch.nn.Linear(1, 1), EarlyStopping(3), EarlyStopping(3)
    for step, value in enumerate((1.0, 0.5, 0.6, 0.6)):
        torch.nn.init.constant_(model.weight, step)
        stopping.see(step, {"loss/validation": value}, model)
    put_back({"s": later}, through_the_disk(tmp_path, states({"s": stopping})))
    assert later.best_step == 1 and later.see(4, {"loss/validation": 0.55}, model)
    later.restore(model)
    assert model.weight.item() == 1


def test_milestones_and_clocks_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was reached stays reached, and time that passed in between does not count."""
    milestone, clock = Milestone("accuracy/validation", 0.9, 10), Clock(CPU)
    now = [100.0]
    monkeypatch.setattr("dlexp.train.clock.time.perf_counter", lambda: now[0])
    for seconds in (10, 1, 1):
        clock.step()
        now[0] += seconds
    milestone.see(9, {"accuracy/validation": 0.95}, clock.seconds)
    kept = through_the_disk(tmp_path, states({"m": milestone, "c": clock}))
    later, other = Clock(CPU), Milestone("accuracy/validation", 0.9, 10)
    now[0] = 5.0
    put_back({"m": other, "c": later}, kept)
    later.step()
    now[0] += 1
    assert later.seconds == 13 and later.steps_per_second == 1
    other.see(19, {"accuracy/validation": 0.99}, 99)
    assert other.summary() == milestone.summary() and other.summary()["step"] == 9
