"""The loop: phases in their order, and what happens when the loss is no number."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from dlexp.build.losses import BinaryCrossEntropy
from dlexp.train.loop import Ending, fit
from dlexp.train.metrics import accuracy
from dlexp.train.step import Batch, backpropagate, evaluate


class Diary:
    """A recorder that writes down what it is told, and what the model looks like then."""

    def __init__(self, model: nn.Linear, due: set[int]) -> None:
        self.model, self.when = model, due
        self.diverged = False
        self.pages: list[str] = []
        self.gradients: list[Tensor | None] = []  # at each probe
        self.weights: list[Tensor] = []  # at each probe
        self.evaluated: dict[int, dict[str, float]] = {}
        self.logged: list[tuple[int, bool, dict[str, float]]] = []
        model.register_forward_hook(lambda *_: self.pages.append("forward"))

    def due(self, step: int) -> bool:
        self.pages.append(f"due {step}")
        return step in self.when

    def watch(self) -> None:
        self.pages.append("watch")

    def probe(self) -> None:
        self.pages.append("probe")
        grad = self.model.weight.grad
        self.gradients.append(None if grad is None else grad.clone())
        self.weights.append(self.model.weight.detach().clone())

    def updated(self, *, stepped: bool) -> None:
        self.pages.append("updated" if stepped else "no update")
        self.stepped = stepped

    def log(self, step: int, numbers: Mapping[str, Tensor | float], scalars: Mapping[str, float]) -> None:
        self.pages.append("log")
        plain = {name: float(x) for name, x in numbers.items()}
        self.diverged = not math.isfinite(plain["loss"])
        self.evaluated.update({step: dict(scalars)} if scalars else {})
        self.logged.append((step, self.stepped, plain))

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self.pages.append("scalars")
        self.evaluated[step] = dict(scalars)


class Steps(torch.optim.SGD):
    """Gradient descent that writes its steps into the diary."""

    def __init__(self, model: nn.Module, diary: Diary, lr: float = 0.1) -> None:
        super().__init__(model.parameters(), lr=lr)
        self.diary = diary
        self.register_step_pre_hook(lambda *_: diary.pages.append("step"))


def batches(count: int, bad: int | None = None) -> list[Batch]:
    """Made-up batches, of which one holds an infinity."""
    generator = torch.Generator().manual_seed(0)
    made = [
        (torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator))
        for _ in range(count)
    ]
    if bad is not None:
        made[bad][0][2, 1] = math.inf
    return made


def setting(due: set[int]) -> tuple[nn.Linear, Diary]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    return model, Diary(model, due)


loss_function = nn.functional.cross_entropy


def test_phases_come_in_order() -> None:
    """Watch, forward, probe, step, log on a step that is due; the bare step on one that is not."""
    model, diary = setting({0, 2})
    bad = fit(model, loss_function, Steps(model, diary), iter(batches(3)), range(3), recorder=diary)
    assert bad == Ending("finished", 2)
    watched = ["watch", "forward", "probe", "step", "updated", "log"]
    assert diary.pages == ["due 0", *watched, "due 1", "forward", "step", "due 2", *watched]


def test_evaluation_comes_after_the_update() -> None:
    """It sees the weights after the update of its step; its numbers go with the record of that step."""
    model, diary = setting({1})
    seen = []

    def evaluate(step: int) -> dict[str, float]:
        diary.pages.append(f"evaluate {step}")
        seen.append(model.weight.detach().clone())
        return {"loss/validation": 0.5 + step}

    fit(
        model,
        loss_function,
        Steps(model, diary),
        iter(batches(3)),
        range(3),
        recorder=diary,
        evaluate=evaluate,
        evaluate_after={1, 2},
    )
    pages = [page for page in diary.pages if page[:3] in ("eva", "log", "ste", "sca")]
    assert pages == ["step", "step", "evaluate 1", "log", "step", "evaluate 2", "scalars"]
    assert diary.evaluated == {1: {"loss/validation": 1.5}, 2: {"loss/validation": 2.5}}
    assert not torch.equal(seen[0], diary.weights[0])
    assert torch.equal(seen[1], model.weight)


def test_the_probe_sees_gradients_before_the_update() -> None:
    """The gradient of this batch alone, at the weights that gave it."""
    model, diary = setting({0, 1})
    twin = copy.deepcopy(model)
    start = model.weight.detach().clone()
    given = batches(2)
    fit(model, loss_function, Steps(model, diary), iter(given), range(2), recorder=diary)
    assert torch.equal(diary.weights[0], start)
    for weights, gradient, (x, y) in zip(diary.weights, diary.gradients, given, strict=True):
        with torch.no_grad():
            twin.weight.copy_(weights)
        if weights is diary.weights[0]:  # the bias of the second step is not known here
            twin.zero_grad()
            loss_function(twin(x), y).backward()
            torch.testing.assert_close(gradient, twin.weight.grad, rtol=0, atol=0)
    assert diary.gradients[0] is not None
    torch.testing.assert_close(diary.weights[1], start - 0.1 * diary.gradients[0])


def test_loss_and_accuracy_of_the_log_are_those_of_the_batch() -> None:
    """Before the update."""
    model, diary = setting({0})
    (x, y), *_ = given = batches(1)
    outputs = model(x)
    wanted = loss_function(outputs, y).item()
    right = sum(int(o.argmax()) == int(t) for o, t in zip(outputs, y, strict=True)) / 6
    named = {"accuracy": accuracy}
    fit(model, loss_function, Steps(model, diary), iter(given), range(1), recorder=diary, metrics=named)
    assert diary.logged == [(0, True, {"loss": wanted, "accuracy": pytest.approx(right)})]


@pytest.mark.parametrize("due", [set(), {4}, {0, 1, 2, 3, 4, 5}])
@pytest.mark.parametrize("bad", [0, 4, 5])
def test_the_first_bad_step_is_found_due_or_not(bad: int, due: set[int]) -> None:
    """Its number comes back, it is on record without an update, and nothing comes after it."""
    model, diary = setting(due)
    found = fit(model, loss_function, Steps(model, diary), iter(batches(6, bad)), range(6), recorder=diary)
    assert found == Ending("diverged", bad)
    assert diary.pages[-2:] == ["no update", "log"]
    step, stepped, numbers = diary.logged[-1]
    assert (step, stepped) == (bad, False)
    assert not math.isfinite(numbers["loss"])
    assert diary.pages.count("step") == bad


@pytest.mark.parametrize("due", [set(), {4}])
def test_the_weights_are_those_that_gave_the_bad_loss(due: set[int]) -> None:
    """The update of the bad step is not made."""
    model, diary = setting(due)
    given = batches(6, 4)
    fit(model, loss_function, Steps(model, diary), iter(given), range(6), recorder=diary)
    twin, other = setting(set())
    fit(twin, loss_function, Steps(twin, other), iter(given[:4]), range(4), recorder=other)
    assert torch.equal(model.weight, twin.weight)
    assert not math.isfinite(loss_function(model(given[4][0]), given[4][1]).item())


class FailsOnce:
    """A loss that is no number the first time it is asked for; like dropout, which draws a new mask."""

    def __init__(self, at: int) -> None:
        self.calls, self.at = -1, at

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        loss = loss_function(outputs, targets)
        return loss * math.nan if self.calls == self.at else loss


def test_the_bad_loss_on_record_is_the_one_that_ended_the_run() -> None:
    """Also where looking a second time would give another loss, as with dropout."""
    model, diary = setting(set())
    found = fit(model, FailsOnce(3), Steps(model, diary), iter(batches(6)), range(6), recorder=diary)
    assert found == Ending("diverged", 3)
    assert math.isnan(diary.logged[-1][2]["loss"])


class Noisy(nn.Linear):
    """Draws a mask in each forward pass, as dropout does."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.rand_like(x)
        self.masks = [*getattr(self, "masks", []), mask]
        return super().forward(x * mask)


def test_the_second_look_draws_the_same_random_numbers() -> None:
    """What is on record of the bad step is the pass that gave the bad loss."""
    model = Noisy(4, 3)
    diary = Diary(model, set())
    found = fit(model, FailsOnce(3), Steps(model, diary), iter(batches(6)), range(6), recorder=diary)
    assert found == Ending("diverged", 3) and len(model.masks) == 5
    assert torch.equal(model.masks[4], model.masks[3]) and not torch.equal(model.masks[3], model.masks[2])


def test_clip_stands_between_probe_and_step() -> None:
    """The probe sees the gradient untamed, the update is made with the tame one, its factor is on record."""
    model, diary = setting({0})
    start = model.weight.detach().clone()

    def halve() -> Tensor:
        diary.pages.append("clip")
        for p in model.parameters():
            assert p.grad is not None
            p.grad *= 0.5
        return torch.tensor(0.5)

    fit(model, loss_function, Steps(model, diary), iter(batches(1)), range(1), recorder=diary, clip=halve)
    assert diary.pages[-5:] == ["probe", "clip", "step", "updated", "log"]
    assert diary.gradients[0] is not None
    torch.testing.assert_close(model.weight, start - 0.1 * 0.5 * diary.gradients[0])
    assert diary.logged[0][2]["clip_factor"] == 0.5


def test_the_learning_rate_is_adjusted_after_the_update() -> None:
    """Each step is made, and recorded, with the rate that was set before it."""
    model, diary = setting({0, 1, 2})
    optimizer = Steps(model, diary, lr=1.0)

    def halve(step: int, scalars: Mapping[str, float]) -> None:
        assert scalars == ({"loss/validation": 1.0} if step == 1 else {})
        optimizer.param_groups[0]["lr"] /= 2

    fit(
        model,
        loss_function,
        optimizer,
        iter(batches(3)),
        range(3),
        recorder=diary,
        adjust=halve,
        evaluate=lambda _: {"loss/validation": 1.0},
        evaluate_after={1},
    )
    assert [numbers["lr"] for *_, numbers in diary.logged] == [1.0, 0.5, 0.25]


def test_enough_is_asked_after_evaluations() -> None:
    """And ends the training there."""
    model, diary = setting({0, 1, 2, 3})
    ending = fit(
        model,
        loss_function,
        Steps(model, diary),
        iter(batches(9)),
        range(9),
        recorder=diary,
        evaluate=lambda step: {"loss/validation": 1.0 / (step + 1)},
        evaluate_after={1, 3, 5},
        enough=lambda: len(diary.evaluated) == 2,
    )
    assert ending == Ending("stopped_early", 3)
    assert diary.pages.count("step") == 4


class Ridge:
    """lambda / 2 times the sum of squares, and a shift of all weights by 1 while gradients are taken."""

    def penalty(self, model: nn.Module) -> Tensor:
        return 0.5 * 3.0 * torch.stack([p.square().sum() for p in model.parameters()]).sum()

    @contextmanager
    def perturbed(self, model: nn.Module) -> Iterator[None]:
        with torch.no_grad():
            for p in model.parameters():
                p += 1
        yield
        with torch.no_grad():
            for p in model.parameters():
                p -= 1


def test_a_regularizer_adds_to_the_gradient_and_not_to_the_loss() -> None:
    """By hand: the gradient of the loss at shifted weights, and lambda times those."""
    model, _ = setting(set())
    x, y = batches(1)[0]
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for p in twin.parameters():
            p += 1
    wanted = loss_function(twin(x), y)
    wanted.backward()
    loss, _ = backpropagate(model, loss_function, torch.optim.SGD(model.parameters()), (x, y), Ridge())
    assert loss.item() == wanted.item()
    assert model.weight.grad is not None and twin.weight.grad is not None
    torch.testing.assert_close(model.weight.grad, twin.weight.grad + 3.0 * twin.weight.detach())


def test_steps_are_numbered_by_the_caller() -> None:
    """Step numbers come from `steps`, and so many batches are taken."""
    model, diary = setting({7})
    left = iter(batches(5))
    fit(model, loss_function, Steps(model, diary), left, range(5, 8), recorder=diary)
    assert [step for step, *_ in diary.logged] == [7]
    assert len(list(left)) == 2


def test_backpropagate_starts_from_zero() -> None:
    """Gradients of the batch before do not add up, and no weight changes."""
    model, _ = setting(set())
    start = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    given = batches(1)[0]
    backpropagate(model, loss_function, optimizer, given)
    assert model.weight.grad is not None
    once = model.weight.grad.clone()
    loss, outputs = backpropagate(model, loss_function, optimizer, given)
    assert torch.equal(model.weight.grad, once)
    assert torch.equal(model.weight, start)
    assert not loss.requires_grad
    assert not outputs.requires_grad


def test_accuracy_is_the_share_of_hits() -> None:
    """Two of three."""
    outputs = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    assert accuracy(outputs, torch.tensor([1, 0, 0])).item() == pytest.approx(2 / 3)


@pytest.fixture
def normalized() -> Iterator[nn.Sequential]:
    torch.manual_seed(0)
    yield nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
def test_evaluation_is_a_mean_over_samples(normalized: nn.Sequential, size: int) -> None:
    """Whatever the portions: a last one that is smaller weighs less."""
    x, y = torch.randn(50, 4), torch.randint(3, (50,))
    normalized.eval()
    with torch.no_grad():
        outputs = normalized(x)
    found = evaluate(normalized, loss_function, {"accuracy": accuracy}, x, y, batch_size=size)
    assert found["loss"] == pytest.approx(loss_function(outputs, y).item(), rel=1e-5)
    assert found["accuracy"] == pytest.approx((outputs.argmax(1) == y).float().mean().item())


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_changes_nothing(normalized: nn.Sequential, training: bool) -> None:
    """Neither running statistics nor random state nor mode nor gradients."""
    normalized.train(training)
    x, y = torch.randn(50, 4), torch.zeros(50).long()
    before, state = copy.deepcopy(normalized.state_dict()), torch.get_rng_state()
    evaluate(normalized, loss_function, {"accuracy": accuracy}, x, y)
    assert all(torch.equal(tensor, before[name]) for name, tensor in normalized.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert normalized.training == training
    assert all(p.grad is None for p in normalized.parameters())


@pytest.mark.parametrize("size", [7, 50])
def test_a_loss_by_batch_is_weighted_by_the_size_of_each_batch(size: int) -> None:
    """The last of 7, 7, ... 1 samples counts a seventh of the others."""

    class ByBatch(nn.CrossEntropyLoss):
        by_batch = True

    torch.manual_seed(0)
    x, y, model = torch.randn(50, 4), torch.randint(3, (50,)), nn.Linear(4, 3)
    wanted = loss_function(model(x), y).item()
    assert evaluate(model, ByBatch(), {}, x, y, batch_size=size)["loss"] == pytest.approx(wanted, rel=1e-5)


def test_evaluation_weighs_known_targets_alike() -> None:
    """A masked loss over portions of which one is nearly unknown: the mean over what is known."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 4), (torch.randn(40, 1) > 0).float()
    y[20:39] = math.nan
    model = nn.Linear(4, 1)
    found = evaluate(model, BinaryCrossEntropy(), {}, x, y, batch_size=20)
    known = y.isfinite().flatten()
    wanted = nn.functional.binary_cross_entropy_with_logits(model(x[known]), y[known]).item()
    assert found["loss"] == pytest.approx(wanted, rel=1e-6)
