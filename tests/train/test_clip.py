"""Gradients clipped by hand, and the factor that is recorded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dlexp
from dlexp.train.clip import by_norm, by_value

Clip = Callable[[Sequence[Tensor], float], Tensor]


def parameters(*gradients: list[float] | None) -> list[nn.Parameter]:
    made = []
    for g in gradients:
        p = nn.Parameter(torch.zeros(2 if g is None else len(g)))
        p.grad = None if g is None else torch.tensor(g)
        made.append(p)
    return made


def gradients(held: list[nn.Parameter]) -> list[float]:
    return torch.cat([p.grad for p in held if p.grad is not None]).tolist()


def test_by_norm_by_hand() -> None:
    """(3, 0) and (4,) have norm 5 together; under 2.5 all are halved and keep their direction."""
    held = parameters([3.0, 0.0], None, [-4.0])
    assert by_norm(held, 2.5).item() == pytest.approx(0.5, rel=1e-6)
    assert gradients(held) == pytest.approx([1.5, 0.0, -2.0], rel=1e-6)


def test_by_value_by_hand() -> None:
    """(3, 0.4) and (-4,) under 0.5 are (0.5, 0.4) and (-0.5,): another direction."""
    held = parameters([3.0, 0.4], None, [-4.0])
    norms = math.sqrt(0.25 + 0.16 + 0.25) / math.sqrt(9 + 0.16 + 16)
    assert by_value(held, 0.5).item() == pytest.approx(norms, rel=1e-6)
    assert gradients(held) == pytest.approx([0.5, 0.4, -0.5])


@pytest.mark.parametrize("clip", [by_norm, by_value])
def test_what_is_small_enough_stays(clip: Clip) -> None:
    """The factor is 1, and every bit stays."""
    held = parameters([0.3, -0.1], [0.2])
    before = gradients(held)
    assert clip(held, 1.0).item() == 1.0 and gradients(held) == before


@pytest.mark.parametrize("clip", [by_norm, by_value])
def test_nothing_to_clip(clip: Clip) -> None:
    """A gradient of zeros: a factor of 1 and no division by 0."""
    assert clip(parameters([0.0, 0.0]), 1.0).item() == 1.0


def test_infinite_entries_are_cut_by_value() -> None:
    """As PyTorch does; measuring must not turn them into NaN."""
    held = parameters([math.inf, -1.0, 0.1])
    assert by_value(held, 0.5).item() == 0.0
    assert gradients(held) == pytest.approx([0.5, -0.5, 0.1])


def test_a_factor_of_nan_is_not_hidden() -> None:
    """A gradient that is no number is not clipped to one."""
    held = parameters([math.nan, 1.0])
    assert math.isnan(by_value(held, 0.5).item())


@pytest.mark.parametrize(
    ("words", "limit"),
    [(["clip=norm", "clip.max_norm=0.05"], 0.05), (["clip=value", "clip.clip_value=0.001"], None)],
)
def test_a_run_records_the_gradient_before_and_the_factor(
    words: list[str], limit: float | None, tmp_path: Path
) -> None:
    """grad_norm is untamed; with plain descent the update is lr times the gradient times the factor."""
    shared = ["model.depth=1", "train.max_steps=3", "record.every=1", f"outputs={tmp_path}"]
    run = dlexp.run([*shared, *words], quiet=True)
    for _, rows in run.records.groupby("step"):
        untamed = float((rows["grad_norm"] ** 2).sum() ** 0.5)
        update = float(((rows["update_ratio"] * rows["weight_norm"]) ** 2).sum() ** 0.5)
        factor = float(rows["clip_factor"].iloc[0])
        assert factor < 1 and update == pytest.approx(0.1 * untamed * factor, rel=1e-3)
        if limit is not None:
            assert factor == pytest.approx(limit / untamed, rel=1e-3)


def test_torch_agrees_on_a_network() -> None:
    """The factor is the norm after, divided by the norm before, for both rules."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    for clip, limit in ((by_norm, 0.1), (by_value, 0.01)):
        model.zero_grad()
        model(torch.randn(8, 5)).square().sum().backward()
        before = norm(model)
        assert clip(list(model.parameters()), limit).item() == pytest.approx(
            (norm(model) / before).item(), rel=1e-5
        )


def norm(model: nn.Module) -> Tensor:
    whole = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return torch.linalg.vector_norm(whole)
