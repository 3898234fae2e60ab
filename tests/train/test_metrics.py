"""Every metric against scikit-learn or a case by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics as reference
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

import dlexp
from dlexp.build.task import TASKS
from dlexp.errors import UserError
from dlexp.train import metrics
from dlexp.train.metrics import ALL


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SCORES = drawn(200, 5)
CLASSES = torch.randint(5, (200,), generator=torch.Generator().manual_seed(1))
ANSWERS = drawn(200, 1, seed=2)
YES = (ANSWERS + drawn(200, 1, seed=3) > 0.3).float()
P, DECIDED = SCORES.softmax(dim=1).numpy(), SCORES.argmax(dim=1).numpy()

Reference = Callable[..., float]
SHARES: dict[str, Reference] = {
    "precision": reference.precision_score,
    "recall": reference.recall_score,
    "f1": reference.f1_score,
}


def test_every_task_names_metrics_that_there_are() -> None:
    """Those that metrics=auto stands for."""
    assert {name for task in TASKS.values() for name in task.metrics} <= ALL.keys()


def test_accuracy_and_errors() -> None:
    """Three names for the same decisions."""
    right = reference.accuracy_score(CLASSES, DECIDED)
    assert ALL["accuracy"](SCORES, CLASSES).item() == pytest.approx(right)
    assert ALL["error_rate"](SCORES, CLASSES).item() == pytest.approx(1 - right)
    assert ALL["zero_one"](SCORES, CLASSES).item() == sum(CLASSES.numpy() != DECIDED)
    right = reference.accuracy_score(YES, ANSWERS > 0)
    assert ALL["accuracy"](ANSWERS, YES).item() == pytest.approx(right)
    assert ALL["accuracy"](ANSWERS.sigmoid(), YES, 0.5).item() == pytest.approx(right)
    assert ALL["zero_one"](ANSWERS, YES).item() == pytest.approx(200 * (1 - right))


def test_unknown_targets_are_left_out_of_decisions() -> None:
    """NaN among answers of yes or no, negative indices at time steps where nothing is asked."""
    outputs, targets = (
        torch.tensor([[1.0, -1.0], [1.0, 1.0]]),
        torch.tensor([[1.0, math.nan], [0.0, math.nan]]),
    )
    assert metrics.accuracy(outputs, targets) == 0.5
    assert metrics.zero_one(outputs, targets) == 1
    steps = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    assert metrics.accuracy(steps, torch.tensor([[-100, 1, 1]])) == 0.5
    assert metrics.recall(steps, torch.tensor([[-100, 1, 1]])) == 0.25  # half of class 1, nothing of class 0
    assert metrics.precision(outputs, targets) == 0.5  # the first column: two of yes, one is right; no second


@pytest.mark.parametrize("name", SHARES)
def test_precision_recall_f1(name: str) -> None:
    """Of yes; the mean over classes where there are more; over labels."""
    share = SHARES[name]
    assert ALL[name](ANSWERS, YES).item() == pytest.approx(share(YES, ANSWERS > 0))
    assert ALL[name](ANSWERS.sigmoid(), YES, 0.5).item() == pytest.approx(share(YES, ANSWERS > 0))
    assert ALL[name](SCORES, CLASSES).item() == pytest.approx(share(CLASSES, DECIDED, average="macro"))
    labels = (SCORES + drawn(200, 5, seed=9) > 0).float()
    wanted = share(labels.numpy(), SCORES.numpy() > 0, average="macro")
    assert ALL[name](SCORES, labels).item() == pytest.approx(wanted)
    steps = SCORES.view(20, 10, 5), CLASSES.view(20, 10)
    assert ALL[name](*steps).item() == pytest.approx(share(CLASSES, DECIDED, average="macro"))


@pytest.mark.parametrize("name", SHARES)
def test_classes_that_do_not_occur(name: str) -> None:
    """scikit-learn's rule: a class counts if it occurs or is decided for; 0 where a share does not exist."""
    few, wanted = CLASSES[:4], SHARES[name]
    right = wanted(few, DECIDED[:4], average="macro", zero_division=0)
    assert ALL[name](SCORES[:4], few).item() == pytest.approx(right)
    no = torch.zeros(3, 1)
    assert ALL[name](no - 1, no).isnan()  # there is no yes anywhere
    assert ALL[name](no + 1, no) == 0
    assert ALL[name](no - 1, no + 1) == 0


def test_auc() -> None:
    """Of yes, with ties; of many classes each against the rest; of labels."""
    auc = metrics.auc
    assert auc(ANSWERS, YES).item() == pytest.approx(reference.roc_auc_score(YES, ANSWERS))
    rough = ANSWERS.round()
    assert auc(rough, YES).item() == pytest.approx(reference.roc_auc_score(YES, rough))
    wanted = reference.roc_auc_score(CLASSES, P, multi_class="ovr")
    assert auc(SCORES, CLASSES).item() == pytest.approx(wanted)
    assert auc(torch.from_numpy(P), CLASSES, 0.5).item() == pytest.approx(wanted)
    labels = (SCORES + drawn(200, 5, seed=9) > 0).float()
    assert auc(SCORES, labels).item() == pytest.approx(reference.roc_auc_score(labels, SCORES))
    by_hand = torch.tensor([[3.0], [1.0], [2.0], [0.0]]), torch.tensor([[1.0], [1.0], [0.0], [math.nan]])
    assert auc(*by_hand) == 0.5  # 3 is above 2, 1 is not
    assert auc(torch.zeros(4, 1), YES[:4]).item() == 0.5


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Bin by bin."""
    total = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def test_calibration() -> None:
    """Fifteen bins; overconfident scores are further off; perfectly sure and right is 0."""
    wanted = calibration_error(P.max(axis=1), CLASSES.numpy() == DECIDED)
    assert metrics.ece(SCORES, CLASSES).item() == pytest.approx(wanted, abs=1e-6)
    assert metrics.ece(torch.from_numpy(P), CLASSES, 0.5).item() == pytest.approx(wanted, abs=1e-6)
    p = ANSWERS.sigmoid().numpy()[:, 0]
    wanted = calibration_error(np.maximum(p, 1 - p), (p > 0.5) == (YES.numpy()[:, 0] == 1))
    assert metrics.ece(ANSWERS, YES).item() == pytest.approx(wanted, abs=1e-6)
    assert metrics.ece(10 * SCORES, CLASSES) > metrics.ece(SCORES, CLASSES)
    sure = 100 * torch.eye(5)[CLASSES]
    assert metrics.ece(sure, CLASSES).item() == pytest.approx(0, abs=1e-6)
    assert metrics.ece(0 * ANSWERS - 100, 0 * YES).item() == pytest.approx(0, abs=1e-6)


def test_calibration_of_a_forecaster_that_knows() -> None:
    """Answers drawn with the probability that is told: next to 0, about 1/sqrt(samples in a bin)."""
    p = torch.rand(50_000, 1, generator=torch.Generator().manual_seed(0))
    happens = torch.bernoulli(p, generator=torch.Generator().manual_seed(1))
    assert metrics.ece(p, happens, 0.5) < 0.01
    assert metrics.ece(p, 1 - happens, 0.5) > 0.4


def test_numbers() -> None:
    """Errors against scikit-learn."""
    outputs, targets = drawn(30, 4), drawn(30, 4, seed=1)
    mse = reference.mean_squared_error(targets, outputs)
    assert metrics.mse(outputs, targets).item() == pytest.approx(mse)
    assert metrics.rmse(outputs, targets).item() == pytest.approx(mse**0.5)
    wanted = reference.mean_absolute_error(targets, outputs)
    assert metrics.mae(outputs, targets).item() == pytest.approx(wanted)
    for name in ("mse", "rmse", "mae", "rounded_accuracy", "ndcg"):
        with pytest.raises(ValueError, match=r"outputs \(2, 1\) against targets \(2,\)"):
            ALL[name](torch.zeros(2, 1), torch.zeros(2))


def test_a_class_as_one_number() -> None:
    """The nearest whole number decides."""
    outputs, targets = torch.tensor([[2.4], [2.6], [-0.2], [7.0]]), torch.tensor([[2.0], [2.0], [0.0], [8.0]])
    assert metrics.rounded_accuracy(outputs, targets) == 0.5


def test_bits_per_character() -> None:
    """A network that knows nothing needs log2 of the alphabet; logits and probabilities alike."""
    assert metrics.bits_per_character(
        torch.zeros(2, 3, 32), torch.zeros(2, 3).long()
    ).item() == pytest.approx(5)
    outputs, targets = SCORES.view(20, 10, 5), CLASSES.view(20, 10)
    wanted = reference.log_loss(CLASSES, P) / math.log(2)
    assert metrics.bits_per_character(outputs, targets).item() == pytest.approx(wanted, rel=1e-6)
    found = metrics.bits_per_character(outputs.softmax(dim=2), targets, 0.5).item()
    assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    ("path", "text", "right"),
    [
        ([0, 1, 1, 0, 2, 2], [1, 2, 0], True),
        ([1, 1, 1, 2, 2, 2], [1, 2, 0], True),
        ([1, 0, 1, 0, 0, 0], [1, 1, 0], True),  # a blank between two equal symbols
        ([1, 1, 0, 0, 0, 0], [1, 1, 0], False),
        ([0, 0, 0, 0, 0, 0], [0, 0, 0], True),  # an empty text
        ([0, 0, 0, 0, 0, 0], [1, 0, 0], False),
        ([1, 2, 3, 0, 0, 0], [1, 2, 3], True),
        ([1, 2, 3, 0, 3, 0], [1, 2, 3], False),  # too long, though the last one fits
        ([1, 2, 0, 0, 0, 0], [1, 2, 3], False),
        ([2, 1, 0, 0, 0, 0], [1, 2, 0], False),
        ([1, 2, 1, 2, 1, 2], [1, 2, 0], False),
    ],
)
def test_greedy_decoding(path: list[int], text: list[int], right: bool) -> None:
    """What the best symbols of six time steps spell; beside a text that is always right, the mean of two."""
    best = torch.tensor([path, [0, 0, 1, 1, 0, 0]])
    targets = torch.tensor([text, [1, 0, 0]])
    outputs = torch.nn.functional.one_hot(best, 4).float()
    assert metrics.exact_match(outputs, targets) == (1.0 if right else 0.5)


def test_whole_sequences() -> None:
    """Every step that is asked has to be right."""
    outputs = torch.nn.functional.one_hot(torch.tensor([[1, 2, 0], [1, 2, 0], [1, 2, 0]]), 3).float()
    targets = torch.tensor([[1, 2, 0], [-100, 2, 0], [1, 2, 1]])
    assert metrics.sequence_accuracy(outputs, targets).item() == pytest.approx(2 / 3)


def test_ndcg() -> None:
    """With and without ties; at best 1; a list where nothing is relevant is left out."""
    scores = drawn(40, 8)
    relevance = torch.randint(5, (40, 8), generator=torch.Generator().manual_seed(4)).float()
    for outputs in (scores, scores.round(), torch.zeros(40, 8)):
        wanted = reference.ndcg_score(relevance.numpy(), outputs.numpy())
        assert metrics.ndcg(outputs, relevance).item() == pytest.approx(wanted, rel=1e-5)
    assert metrics.ndcg(relevance, relevance).item() == pytest.approx(1)
    by_hand = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]])  # the one relevant item comes second
    assert metrics.ndcg(*by_hand).item() == pytest.approx(1 / math.log2(3))
    two = torch.cat([by_hand[1], torch.zeros(1, 2)])
    assert metrics.ndcg(by_hand[0].repeat(2, 1), two).item() == pytest.approx(1 / math.log2(3))


def test_nearest_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sample is asked of all others, in portions or not."""
    points, labels = drawn(90, 2), torch.arange(90) % 3
    points = 100 * (points + labels.unsqueeze(1))
    hits = 0
    for i in range(90):
        rest = [j for j in range(90) if j != i]
        one = KNeighborsClassifier(1).fit(points[rest].numpy(), labels[rest].numpy())
        hits += int(one.predict(points[i : i + 1].numpy())[0] == labels[i])
    assert metrics.nearest_neighbour(points, labels).item() == pytest.approx(hits / 90)
    monkeypatch.setattr(metrics, "PORTION", 7)
    assert metrics.nearest_neighbour(points, labels).item() == pytest.approx(hits / 90)
    assert metrics.nearest_neighbour(points[:1], labels[:1]).isnan()


def test_gan() -> None:
    """Two of three fakes are taken for real; three fakes near two of four centres."""
    facts = {"centres": [[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]], "spread": 0.1}
    fakes = torch.tensor([[0.1, 0.1], [0.2, 0.2], [4.31, 0.0], [0.0, 3.71]])
    verdicts = torch.tensor([[1.0, 1.0, -1.0], [1.0, -1.0, 1.0], [1.0, 2.0, 0.0], [1.0, 3.0, 0.0]])
    outputs = torch.cat([verdicts, fakes], dim=1)
    assert metrics.fooled(outputs, fakes) == 0.75
    assert metrics.modes_covered(outputs, fakes, facts) == 0.5
    with pytest.raises(ValueError, match=r"the data has no facts\.centres"):
        metrics.modes_covered(outputs, fakes, {})


def test_two_samples() -> None:
    """Of one distribution the nearest neighbour tells nothing, of two far apart it tells all."""
    outputs, real = torch.cat([torch.zeros(500, 3), drawn(500, 2)], dim=1), drawn(500, 2, seed=1)
    assert abs(metrics.two_sample(outputs, real) - 0.5) < 0.07  # three deviations
    assert metrics.two_sample(outputs, real + 100) == 1


CASES = {  # outputs, targets of B samples, for each kind of target
    "classification": lambda b: (drawn(b, 3), torch.zeros(b).long()),
    "binary": lambda b: (drawn(b, 1), torch.zeros(b, 1)),
    "all yes": lambda b: (drawn(b, 1), torch.ones(b, 1)),
    "nothing known": lambda b: (drawn(b, 3), torch.full((b, 3), math.nan)),
    "sequence": lambda b: (drawn(b, 4, 3), torch.zeros(b, 4).long()),
    "nothing asked": lambda b: (drawn(b, 4, 3), torch.full((b, 4), -100)),
    "text": lambda b: (drawn(b, 4, 3), torch.ones(b, 2).long()),
    "ranking": lambda b: (drawn(b, 4), torch.zeros(b, 4)),
    "numbers": lambda b: (drawn(b, 1), torch.ones(b, 1)),
    "adversarial": lambda b: (drawn(b, 5), drawn(b, 2)),
}
DECIDE = ("accuracy", "error_rate", "zero_one", "precision", "recall", "f1", "auc", "ece")
FITS = {
    "classification": (*DECIDE, "nearest_neighbour"),
    "binary": DECIDE,
    "all yes": DECIDE,
    "nothing known": DECIDE,
    "sequence": (*DECIDE, "bits_per_character", "sequence_accuracy"),
    "nothing asked": (*DECIDE, "bits_per_character", "sequence_accuracy"),
    "text": ("exact_match",),
    "ranking": ("ndcg",),
    "numbers": ("mse", "rmse", "mae", "rounded_accuracy"),
    "adversarial": ("fooled", "two_sample", "modes_covered"),
}


@pytest.mark.parametrize("samples", [1, 2, 9])
@pytest.mark.parametrize("kind", CASES)
def test_small_and_one_sided_batches(kind: str, samples: int) -> None:
    """A scalar, NaN if need be, and neither an exception nor a warning."""
    outputs, targets = CASES[kind](samples)
    for name in FITS[kind]:
        more = {"facts": {"centres": [[0.0, 0.0]], "spread": 1.0}} if name == "modes_covered" else {}
        found = ALL[name](outputs, targets, **more)
        assert found.shape == ()
    assert {name for names in FITS.values() for name in names} == ALL.keys()


def test_diverged_outputs_are_no_exception() -> None:
    """The batch that ends a run is measured, too."""
    for kind, names in FITS.items():
        outputs, targets = CASES[kind](9)
        for name in names:
            more = {"facts": {"centres": [[0.0, 0.0]], "spread": 1.0}} if name == "modes_covered" else {}
            for bad in (math.nan, math.inf):
                assert ALL[name](outputs * bad, targets, **more).shape == ()


@pytest.mark.parametrize(
    "words",
    [
        "metrics=[accuracy,error_rate,zero_one,precision,recall,f1,auc,ece]",
        "task=binary metrics=[accuracy,precision,recall,f1,auc,ece]",
        "task=binary head=sigmoid loss=bce metrics=[accuracy,f1,auc,ece]",
        "task=multi_label metrics=[accuracy,precision,recall,f1,auc,ece]",
        "task=regression metrics=[mse,rmse,mae,rounded_accuracy]",
        "task=embedding metrics=[nearest_neighbour]",
    ],
)
def test_a_run_with_each(words: str, tmp_path: Path) -> None:
    """The learning curve has them all, as numbers."""
    run = dlexp.run([*words.split(), "debug=quick", "model.depth=1", f"outputs={tmp_path}"], quiet=True)
    found = run.summary["metrics"]
    for name in words.rpartition("[")[2].rstrip("]").split(","):
        assert math.isfinite(found[f"{name}/validation"])


def test_a_metric_that_does_not_fit_is_refused() -> None:
    """Before a run folder exists, in one line."""
    with pytest.raises(UserError, match=r"metrics=\[rmse\]: does not fit the task classification; allowed: "):
        dlexp.run(["metrics=[rmse]"], quiet=True)
