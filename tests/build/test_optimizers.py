"""Optimizers by hand: against torch.optim step by step, and against steps worked out on paper."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dlexp
from dlexp.build.losses import Perceptron
from dlexp.build.optimizers import ReferenceAdam, ReferenceMomentum, ReferenceRMSprop, ReferenceSGD
from dlexp.compose import CONFIGS, compose

Make = Callable[..., torch.optim.Optimizer]

PAIRS: dict[str, tuple[Make, Make]] = {
    "sgd": (partial(ReferenceSGD, lr=0.1), partial(torch.optim.SGD, lr=0.1)),
    "momentum": (
        partial(ReferenceMomentum, lr=0.03, momentum=0.9),
        partial(torch.optim.SGD, lr=0.03, momentum=0.9),
    ),
    "rmsprop": (
        partial(ReferenceRMSprop, lr=0.01, alpha=0.9, eps=1e-8),
        partial(torch.optim.RMSprop, lr=0.01, alpha=0.9, eps=1e-8),
    ),
    "adam": (
        partial(ReferenceAdam, lr=0.01, betas=(0.9, 0.99), eps=1e-3),
        partial(torch.optim.Adam, lr=0.01, betas=(0.9, 0.99), eps=1e-3),
    ),
}


def path(make: Make, steps: int = 30) -> Tensor:
    """(steps, P): all weights of a small float64 network after each step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    inputs, targets = torch.randn(8, 4, dtype=torch.float64), torch.randint(3, (8,))
    optimizer = make(model.parameters())
    passed = []
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        passed.append(nn.utils.parameters_to_vector(model.parameters()).detach().clone())
    return torch.stack(passed)


def steps_on(make: Make, gradients: list[float], start: float) -> list[float]:
    """A single weight after each of the given gradients."""
    w = nn.Parameter(torch.tensor([start], dtype=torch.float64))
    optimizer, passed = make([w]), []
    for g in gradients:
        w.grad = torch.full_like(w, g)
        optimizer.step()
        passed.append(w.item())
    return passed


@pytest.mark.parametrize("name", PAIRS)
def test_reference_equals_torch_at_every_step(name: str) -> None:
    """Thirty steps, each weight, to the rounding of float64."""
    ours, theirs = (path(make) for make in PAIRS[name])
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert (ours[0] - ours[-1]).abs().max() > 1e-2  # it went somewhere


def test_average_is_the_same_path_at_a_tenth_of_the_rate() -> None:
    """Ng's v = beta v + (1 - beta) g: lr_torch = (1 - beta) lr_Ng."""
    ng = path(partial(ReferenceMomentum, lr=0.3, momentum=0.9, average=True))
    torch.testing.assert_close(ng, path(PAIRS["momentum"][1]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "by_hand"),
    [
        # w = 1, g = 2 then -1
        (partial(ReferenceSGD, lr=0.1), [0.8, 0.9]),
        # v = 2, then 0.5 * 2 - 1 = 0
        (partial(ReferenceMomentum, lr=0.1, momentum=0.5), [0.8, 0.8]),
        # v = 0.5 * 2 = 1, then 0.5 * 1 - 0.5 = 0
        (partial(ReferenceMomentum, lr=0.1, momentum=0.5, average=True), [0.9, 0.9]),
        # s = 0.25 * 4 = 1, then 0.75 + 0.25 = 1
        (partial(ReferenceRMSprop, lr=0.1, alpha=0.75, eps=0.0), [0.8, 0.9]),
        # m = 1, v = 2, corrected 2 and 4: one lr; then m = 0, so no step
        (partial(ReferenceAdam, lr=0.1, betas=(0.5, 0.5), eps=0.0), [0.9, 0.9]),
        # those of PyTorch that a YAML file names
        (partial(torch.optim.SGD, lr=0.1, momentum=0.5, nesterov=True), [0.7, 0.8]),  # g + 0.5 v = 3, -1
        # the sum of squares 4, then 5
        (partial(torch.optim.Adagrad, lr=0.1, eps=0.0), [0.9, 0.9 + 0.1 / 5**0.5]),
        # first 1 - 0.1 * 0.5 = 0.95, then Adam's step of one lr; then 0.85 * 0.95 and no step
        (partial(torch.optim.AdamW, lr=0.1, betas=(0.5, 0.5), eps=0.0, weight_decay=0.5), [0.85, 0.8075]),
    ],
)
def test_two_steps_by_hand(make: Make, by_hand: list[float]) -> None:
    """Gradients 2 and -1 from w = 1."""
    assert steps_on(make, [2.0, -1.0], 1.0) == pytest.approx(by_hand, abs=1e-12)


def test_adagrads_steps_shrink_as_one_over_the_root_of_time() -> None:
    """Under a constant gradient step t is lr / sqrt(t)."""
    passed = [0.0, *steps_on(partial(torch.optim.Adagrad, lr=0.1), [3.0] * 20, 0.0)]
    steps = [a - b for a, b in pairwise(passed)]
    assert steps == pytest.approx([0.1 / t**0.5 for t in range(1, 21)], rel=1e-8)


def test_the_first_steps_of_rmsprop_are_as_large_as_its_yaml_file_says() -> None:
    """1 / sqrt(1 - alpha) times lr, because the average starts at 0."""
    for alpha, times in ((0.99, 10.0), (0.9, 10**0.5)):
        assert steps_on(partial(torch.optim.RMSprop, lr=1.0, alpha=alpha), [5.0], 0.0) == pytest.approx(
            [-times]
        )


@pytest.mark.parametrize("make", [pair[0] for pair in PAIRS.values()], ids=PAIRS)
def test_weights_without_gradient_stay(make: Make) -> None:
    """A part of the network that the loss does not depend on."""
    used, idle = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = make([used, idle])
    used.grad = torch.ones(2)
    optimizer.step()
    assert idle.tolist() == [1.0, 1.0] and used.tolist() != [1.0, 1.0]


def test_a_closure_is_called_with_gradients_on() -> None:
    """PyTorch's way to hand in the loss."""
    w = nn.Parameter(torch.tensor([3.0]))
    optimizer = ReferenceSGD([w], lr=0.5)

    def closure() -> float:
        loss = w.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 9.0 and w.item() == 0.0


def test_the_perceptron_rule() -> None:
    """lr 1, one sample at a time, loss=perceptron: w += y x and b += y after a mistake, else nothing."""
    config: dict[str, Any] = dict(compose(["optimizer=perceptron"]).config.optimizer)
    assert config.pop("_target_") == "torch.optim.SGD" and config.pop("_partial_")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 3, dtype=torch.float64, generator=generator)
    labels = torch.where(inputs @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) > 0.3, 1.0, -1.0)
    model = nn.Linear(3, 1).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    w, b = model.weight.detach().clone()[0], model.bias.detach().clone()[0]
    optimizer, loss = torch.optim.SGD(model.parameters(), **config), Perceptron()
    mistakes = 0
    for x, y in zip(inputs, labels, strict=True):
        optimizer.zero_grad()
        loss(model(x[None]), (y[None, None] + 1) / 2).backward()
        optimizer.step()
        if y * (w @ x + b) <= 0:
            w, b, mistakes = w + y * x, b + y, mistakes + 1
        torch.testing.assert_close(model.weight[0], w, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(model.bias[0], b, rtol=1e-12, atol=1e-12)
    assert 3 < mistakes < 50


def test_l2_is_weight_decay_for_plain_descent_and_not_for_adam(tmp_path: Path) -> None:
    """The claim of regularizer/l2.yaml: the same weights after a run, or others."""

    def norms(*words: str) -> list[float]:
        shared = [f"outputs={tmp_path}", "train.max_steps=20", "record.tensorboard=false", "model.depth=1"]
        run = dlexp.run([*shared, "record.every=10", *words], quiet=True)
        return [float(x) for x in run.records["weight_norm"]]

    penalty = ["regularizer=l2", "regularizer.strength=0.1", "regularizer.biases=true"]
    plain = norms("optimizer=sgd", *penalty)
    assert plain == pytest.approx(norms("optimizer=sgd", "optimizer.weight_decay=0.1"), rel=1e-5)
    assert plain != pytest.approx(norms("optimizer=sgd"), rel=1e-2)
    adam = ["optimizer.lr=0.01"]
    # Adam's own weight_decay goes into its gradient; AdamW's does not
    assert norms("optimizer=adam", *adam, *penalty) == pytest.approx(
        norms("optimizer=adam", *adam, "optimizer.weight_decay=0.1"), rel=1e-3
    )
    assert norms("optimizer=adam", *adam, *penalty) != pytest.approx(
        norms("optimizer=adamw", *adam, "optimizer.weight_decay=0.1"), rel=1e-2
    )


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_a_run_with_the_reference_is_the_run_with_torchs(name: str, tmp_path: Path) -> None:
    """The YAML files reference_<name> and <name> ship the same values."""
    assert (CONFIGS / "optimizer" / f"reference_{name}.yaml").is_file()
    shared = ["train.max_steps=15", "record=off", "record.tensorboard=false", f"outputs={tmp_path}"]
    ours, theirs = (
        dlexp.run([f"optimizer={choice}", *shared], quiet=True).summary["metrics"]
        for choice in (f"reference_{name}", name)
    )
    assert ours["loss/test"] == pytest.approx(theirs["loss/test"], rel=1e-4)
    assert ours["loss/test"] < 2.31
