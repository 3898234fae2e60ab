"""Every loss has the value and the gradient of its formula."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

import dlexp
from dlexp.build.losses import CTC
from dlexp.build.task import TASKS
from dlexp.compose import CONFIGS
from dlexp.errors import UserError

WORDS = sorted({path.stem for path in (CONFIGS / "loss").glob("*.yaml")} - {"auto"})
GIVES = {"linear", "non_negative", "probabilities", "bounded", "log_probabilities", "hard"}


def config(word: str) -> dict[str, object]:
    found = OmegaConf.to_container(OmegaConf.load(CONFIGS / "loss" / f"{word}.yaml"))
    assert isinstance(found, dict)
    return found  # type: ignore[return-value]


def make(word: str, **values: object) -> nn.Module:
    """The module that the command line would build."""
    own = {key: value for key, value in config(word).items() if key not in ("takes", "tasks")}
    loss: nn.Module = instantiate({**own, **values})
    return loss


def drawn(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradient(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor) -> Tensor:
    outputs = outputs.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(outputs, targets), outputs)
    return found


def close(found: Tensor, wanted: Tensor | float) -> None:
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=found.dtype))


@pytest.mark.parametrize("word", WORDS)
def test_the_file_says_what_it_fits(word: str) -> None:
    """Names of heads' outputs and of tasks that there are; some loss fits each task."""
    takes, tasks = config(word)["takes"], config(word)["tasks"]
    assert isinstance(takes, list) and set(takes) <= GIVES
    assert isinstance(tasks, list) and set(tasks) <= set(TASKS)


def test_every_task_finds_its_own_loss() -> None:
    """The one that loss=auto stands for takes plain outputs and is made for the task."""
    for name, task in TASKS.items():
        found = config(task.loss)
        assert "linear" in found["takes"] and name in found["tasks"]  # type: ignore[operator]


# numbers against numbers

NUMBERS, WANTED = (
    torch.tensor([[0.5, -2.0], [3.0, 1.0]]).double(),
    torch.tensor([[0.0, 1.0], [3.5, 1.0]]).double(),
)
# errors 0.5, -3, -0.5, 0
BY_HAND = {
    "mae": (1.0, [[0.25, -0.25], [-0.25, 0.0]]),
    "mse": (2.375, [[0.25, -1.5], [-0.25, 0.0]]),
    "huber": (0.6875, [[0.125, -0.25], [-0.125, 0.0]]),  # halves of squares up to 1, then 3 - 1/2
    "smooth_l1": (0.6875, [[0.125, -0.25], [-0.125, 0.0]]),
}


@pytest.mark.parametrize("word", BY_HAND)
def test_numbers_by_hand(word: str) -> None:
    """Value and gradient; a sum is four times the mean."""
    value, slopes = BY_HAND[word]
    close(make(word)(NUMBERS, WANTED), value)
    close(gradient(make(word), NUMBERS, WANTED), torch.tensor(slopes))
    close(make(word, reduction="sum")(NUMBERS, WANTED), 4 * value)


# classes

LOGITS, CLASSES = drawn(6, 4), torch.tensor([0, 1, 2, 3, 3, 0])
P = LOGITS.exp() / LOGITS.exp().sum(dim=1, keepdim=True)
ONE_HOT = torch.eye(4, dtype=torch.float64)[CLASSES]
RIGHT = P[torch.arange(6), CLASSES]


def test_cross_entropy_in_three_ways() -> None:
    """-mean log p of the right class; on logits its gradient is (p - y) / B."""
    value = -RIGHT.log().mean()
    close(make("cross_entropy")(LOGITS, CLASSES), value)
    close(make("nll")(P.log(), CLASSES), value)
    close(make("log_loss")(P, CLASSES), value)
    wanted = (P - ONE_HOT) / 6
    close(gradient(make("cross_entropy"), LOGITS, CLASSES), wanted)
    close(gradient(lambda z, y: make("nll")(z.log_softmax(1), y), LOGITS, CLASSES), wanted)
    close(gradient(lambda z, y: make("log_loss")(z.softmax(1), y), LOGITS, CLASSES), wanted)
    for word, outputs in (("cross_entropy", LOGITS), ("nll", P.log()), ("log_loss", P)):
        close(make(word, reduction="sum")(outputs, CLASSES), 6 * value)


def test_rounding_stops_the_log_loss_but_not_cross_entropy() -> None:
    """p of the right class is 0 in float32: finite loss, no gradient; on logits it is still p - y."""
    z, y = torch.tensor([[200.0, 0.0]]), torch.tensor([1])
    assert make("log_loss")(z.softmax(1), y).isfinite()
    assert (gradient(lambda z, y: make("log_loss")(z.softmax(1), y), z, y) == 0).all()
    close(gradient(make("cross_entropy"), z, y), torch.tensor([[1.0, -1.0]]))


def test_softmax_and_squared_error() -> None:
    """Mean of (p - y)^2; dL/dz_j = 2/(B K) p_j [(p_j - y_j) - sum_i (p_i - y_i) p_i]."""
    loss = make("softmax_mse")
    close(loss(LOGITS, CLASSES), ((P - ONE_HOT) ** 2).mean())
    error = P - ONE_HOT
    wanted = 2 / 24 * P * (error - (error * P).sum(dim=1, keepdim=True))
    close(gradient(loss, LOGITS, CLASSES), wanted)
    stuck = torch.tensor([[20.0, 0.0, 0.0, 0.0]]).double(), torch.tensor([1])
    assert gradient(loss, *stuck).abs().max() < 1e-8  # sure and wrong: it stays so
    assert gradient(make("cross_entropy"), *stuck).abs().max() > 0.99


def test_hinge_of_many_classes() -> None:
    """Sum over the wrong classes of max(0, 1 - z_right + z_wrong) / K, mean over the batch."""
    gap = 1 - LOGITS[torch.arange(6), CLASSES].unsqueeze(1) + LOGITS
    wanted = (gap.clip(min=0) * (1 - ONE_HOT)).sum(dim=1) / 4
    close(make("hinge")(LOGITS, CLASSES), wanted.mean())
    close(make("hinge", reduction="sum")(LOGITS, CLASSES), wanted.sum())


# yes or no

Z, Y = drawn(5, 3, seed=1), torch.tensor([[0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1]]).double()
SURE = 1 / (1 + torch.exp(-Z))


def test_log_loss_of_yes_and_no() -> None:
    """On logits and on probabilities; gradient (p - y) / (B K); the wrong sign turns both around."""
    value = -(Y * SURE.log() + (1 - Y) * (1 - SURE).log()).mean()
    close(make("binary_cross_entropy")(Z, Y), value)
    close(make("bce")(SURE, Y), value)
    close(make("bce")(SURE, Y), nn.BCELoss()(SURE, Y))
    close(make("wrong_sign")(Z, Y), -value)
    wanted = (SURE - Y) / 15
    close(gradient(make("binary_cross_entropy"), Z, Y), wanted)
    close(gradient(lambda z, y: make("bce")(z.sigmoid(), y), Z, Y), wanted)
    close(gradient(make("wrong_sign"), Z, Y), -wanted)


@pytest.mark.parametrize("word", ["binary_cross_entropy", "bce", "wrong_sign", "binary_hinge"])
def test_unknown_targets_are_left_out(word: str) -> None:
    """The mean of the known ones, no gradient from the others; 0 where nothing is known."""
    outputs = SURE if word == "bce" else Z
    some = Y.clone()
    some[0], some[3, 1] = math.nan, math.nan
    known = some.isfinite()
    close(make(word)(outputs, some), make(word)(outputs[known].unsqueeze(1), Y[known].unsqueeze(1)))
    slopes = gradient(make(word), outputs, some)
    assert (slopes[~known] == 0).all()
    assert slopes.isfinite().all()
    close(make(word)(outputs, torch.full_like(Y, math.nan)), 0.0)


def test_bce_at_its_ends() -> None:
    """Sure and right costs nothing, sure and wrong a finite number without gradient; NaN stays NaN."""
    p, y = torch.tensor([[1.0], [0.0], [1.0], [0.0]]), torch.tensor([[1.0], [0.0], [0.0], [1.0]])
    loss = make("bce")
    assert loss(p[:2], y[:2]) == 0
    assert 80 < loss(p[2:], y[2:]) < 100
    assert (gradient(loss, p, y)[2:] == 0).all()
    assert loss(p * math.nan, y).isnan()


def test_binary_hinge() -> None:
    """max(0, 1 - y z) with y = -1 or 1; no gradient beyond the margin."""
    z, y = (
        torch.tensor([[0.5], [2.0], [-0.5], [3.0]]).double(),
        torch.tensor([[1.0], [1.0], [1.0], [0.0]]).double(),
    )
    close(make("binary_hinge")(z, y), (0.5 + 0 + 1.5 + 4) / 4)
    close(gradient(make("binary_hinge"), z, y), torch.tensor([[-0.25], [0.0], [-0.25], [0.25]]))
    close(make("binary_hinge", margin=2.0)(z, y), (1.5 + 0 + 2.5 + 5) / 4)


def test_perceptron_by_hand() -> None:
    """Only mistakes cost, and each gives the gradient -y; a sum unless a mean is asked for."""
    z, y = (
        torch.tensor([[2.0], [-3.0], [1.5], [-4.0]]).double(),
        torch.tensor([[1.0], [1.0], [0.0], [0.0]]).double(),
    )
    close(make("perceptron")(z, y), 3 + 1.5)
    close(make("perceptron", reduction="mean")(z, y), 4.5 / 4)
    close(gradient(make("perceptron"), z, y), torch.tensor([[0.0], [-1.0], [1.0], [0.0]]))


def test_the_perceptron_rule() -> None:
    """One sample at a time with lr 1: w += y x after a mistake, from weights of 0, until there is none."""
    x = drawn(40, 2, seed=3) + torch.tensor([[0.5, 0.0]]).double()
    x = x[(x[:, 0] - x[:, 1]).abs() > 0.3]
    y = (x[:, 0] > x[:, 1]).double()
    layer = nn.Linear(2, 1).double()
    nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    optimizer, loss = torch.optim.SGD(layer.parameters(), lr=1.0), make("perceptron")
    w, b, mistakes = torch.zeros(2).double(), 0.0, 1
    while mistakes:
        mistakes = 0
        for sample, target in zip(x, y, strict=True):
            optimizer.zero_grad()
            loss(layer(sample.unsqueeze(0)), target.view(1, 1)).backward()
            optimizer.step()
            sign = 1.0 if target else -1.0
            if sign * (w @ sample + b) <= 0:
                w, b, mistakes = w + sign * sample, b + sign, mistakes + 1
            close(layer.weight.detach()[0], w)
            close(layer.bias.detach(), [b])  # type: ignore[arg-type]
    assert w.norm() > 0


# lists and texts


def test_listnet() -> None:
    """-sum_i softmax(relevance)_i log softmax(score)_i, mean over lists; gradient their difference / B."""
    scores, relevance = drawn(3, 5), drawn(3, 5, seed=1)
    log_p, q = scores.log_softmax(dim=1), relevance.exp() / relevance.exp().sum(dim=1, keepdim=True)
    close(make("listnet")(scores, relevance), -(q * log_p).sum(dim=1).mean())
    close(gradient(make("listnet"), scores, relevance), (log_p.exp() - q) / 3)


def spelled(path: tuple[int, ...]) -> tuple[int, ...]:
    """What an alignment spells: repetitions once, then without blanks."""
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != 0)


@pytest.mark.parametrize("text", [(1,), (1, 2), (1, 1), (2, 1, 2)])
def test_ctc_is_the_sum_over_all_alignments(text: tuple[int, ...]) -> None:
    """Four time steps, a blank and two symbols: all 81 ways, value and gradient."""
    outputs = drawn(1, 4, 3)
    targets = torch.tensor([[*text, 0, 0, 0][:4]])

    def enumerated(outputs: Tensor, targets: Tensor) -> Tensor:
        p = outputs[0].softmax(dim=1)
        ways = [way for way in itertools.product(range(3), repeat=4) if spelled(way) == text]
        total = torch.stack([p[torch.arange(4), list(way)].prod() for way in ways]).sum()
        return -total.log()

    loss = make("ctc", reduction="sum")
    close(loss(outputs, targets), enumerated(outputs, targets))
    close(gradient(loss, outputs, targets), gradient(enumerated, outputs, targets))


def test_ctc_of_a_batch() -> None:
    """The mean divides each text by its length; the zeros behind the end do not count."""
    outputs, targets = drawn(2, 6, 4), torch.tensor([[1, 3, 2], [2, 0, 0]])
    one, two = (make("ctc", reduction="sum")(outputs[i : i + 1], targets[i : i + 1]) for i in (0, 1))
    close(make("ctc")(outputs, targets), (one / 3 + two) / 2)
    close(two, make("ctc", reduction="sum")(outputs[1:], torch.tensor([[2]])))


def test_ctc_without_enough_time_steps() -> None:
    """Fewer steps than symbols are refused; `aa` in two steps needs a blank: infinite, or 0 if asked."""
    with pytest.raises(UserError, match="loss=ctc: 2 time steps cannot spell a text of 3 symbols; allowed"):
        CTC()(torch.zeros(1, 2, 4), torch.tensor([[1, 2, 3]]))
    with pytest.raises(UserError, match=r"loss=ctc: takes a row .* \(T, K\); the model gives \(4,\)"):
        CTC()(torch.zeros(1, 4), torch.tensor([[1, 2, 3]]))
    outputs, targets = drawn(1, 2, 4), torch.tensor([[1, 1]])
    assert make("ctc")(outputs, targets).isinf()
    assert make("ctc", zero_infinity=True)(outputs, targets) == 0


# two networks against each other


@pytest.mark.parametrize("word", ["minimax", "non_saturating"])
def test_gan_losses_in_probabilities(word: str) -> None:
    """-log D(real) - log(1 - D(fake)) for one, log(1 - D(fake)) or -log D(fake) for the other."""
    outputs = drawn(4, 5)
    real, fake, own = (1 / (1 + torch.exp(-outputs[:, i])) for i in range(3))
    discriminator = -(real.log() + (1 - fake).log()).mean()
    generator = ((1 - own).log() if word == "minimax" else -own.log()).mean()
    close(make(word)(outputs, outputs[:, 3:]), discriminator + generator)
    slope = -own if word == "minimax" else own - 1  # what the generator learns from
    wanted = torch.stack([real - 1, fake, slope, 0 * own, 0 * own], dim=1) / 4
    close(gradient(make(word), outputs, outputs[:, 3:]), wanted)


# embeddings

POINTS, LABELS = drawn(12, 3, scale=0.7), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3])


@pytest.mark.parametrize("margin", [0.2, 1.0, 5.0])
def test_triplets_are_those_of_pytorch(margin: float) -> None:
    """All of them spelled out and handed to nn.TripletMarginLoss; value and gradient."""
    n = range(12)
    triplets = [
        (a, p, m)
        for a, p, m in itertools.product(n, n, n)
        if a != p and LABELS[a] == LABELS[p] and LABELS[a] != LABELS[m]
    ]
    a, p, m = (list(column) for column in zip(*triplets, strict=True))

    def spelled_out(outputs: Tensor, targets: Tensor) -> Tensor:
        found: Tensor = nn.TripletMarginLoss(margin, eps=0)(outputs[a], outputs[p], outputs[m])
        return found

    close(make("triplet", margin=margin)(POINTS, LABELS), spelled_out(POINTS, LABELS))
    close(gradient(make("triplet", margin=margin), POINTS, LABELS), gradient(spelled_out, POINTS, LABELS))


def test_triplets_in_single_precision() -> None:
    """As exact as the numbers are, with a thousand samples."""
    points, labels = drawn(1000, 8), torch.arange(1000) % 10
    close(make("triplet")(points.float(), labels), make("triplet")(points, labels).float())


@pytest.mark.parametrize("word", ["triplet", "cosine"])
@pytest.mark.parametrize("labels", [[0, 0], [0, 1], [0]])
def test_batches_with_nothing_to_compare(word: str, labels: list[int]) -> None:
    """One class, one sample of each, one sample: a finite loss and gradient, also where all are equal."""
    for points in (drawn(len(labels), 3), torch.ones(len(labels), 3)):
        assert make(word)(points, torch.tensor(labels)).isfinite()
        assert gradient(make(word), points, torch.tensor(labels)).isfinite().all()


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_cosine_of_all_pairs(margin: float) -> None:
    """1 - cos for a class, max(0, cos - margin) across, mean over pairs; the gradient turns, no more."""
    cost = []
    for i, j in itertools.combinations(range(12), 2):
        cos = POINTS[i] @ POINTS[j] / POINTS[i].norm() / POINTS[j].norm()
        cost.append(1 - cos if LABELS[i] == LABELS[j] else (cos - margin).clip(min=0))
    loss = make("cosine", margin=margin)
    close(loss(POINTS, LABELS), torch.stack(cost).mean())
    close((gradient(loss, POINTS, LABELS) * POINTS).sum(dim=1), torch.zeros(12))


# on the command line


@pytest.mark.parametrize(
    "words",
    [
        *(f"task=regression loss={word}" for word in BY_HAND),
        *(f"loss={word}" for word in ("cross_entropy", "softmax_mse", "hinge")),
        *(f"task=binary loss={word}" for word in ("binary_cross_entropy", "wrong_sign", "perceptron")),
        "task=binary loss=binary_hinge",
        "task=multi_label loss=binary_hinge",
        *(f"task=embedding loss={word}" for word in ("triplet", "cosine")),
    ],
)
def test_a_run_with_each(words: str, tmp_path: Path) -> None:
    """Five steps on digits, seen as the task that the loss is for."""
    run = dlexp.run([*words.split(), "debug=quick", "model.depth=1", f"outputs={tmp_path}"], quiet=True)
    assert run.summary["status"] == "finished"


def test_a_task_that_the_loss_is_not_made_for_is_refused() -> None:
    """One line, with what it is made for."""
    with pytest.raises(UserError, match="loss=perceptron: made for binary; the task is classification"):
        dlexp.run(["loss=perceptron"], quiet=True)


def test_the_wrong_sign_makes_every_answer_wrong(tmp_path: Path) -> None:
    """Accuracy falls to next to nothing where the right sign learns."""
    found = {}
    for loss in ("wrong_sign", "binary_cross_entropy"):
        words = ["task=binary", f"loss={loss}", "model=linear", "train.epochs=3", "metrics=[accuracy]"]
        run = dlexp.run([*words, f"outputs={tmp_path}"], quiet=True)
        found[loss] = run.summary["metrics"]["accuracy/validation"]
    assert found["wrong_sign"] < 0.1
    assert found["binary_cross_entropy"] > 0.9
