"""What a network gets wrong, counted by hand and by scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sklearn.metrics import confusion_matrix
from torch import nn

from dlexp.train.mistakes import confusion, errors_by_class, most_wrong


@pytest.mark.parametrize("size", [1, 7, 1024])
def test_confusion_is_that_of_scikit_learn(size: int) -> None:
    torch.manual_seed(0)
    model, inputs, targets = nn.Linear(3, 4), torch.randn(40, 3), torch.randint(3, (40,))
    found = confusion(model, inputs, targets, 4, size)
    decided = model(inputs).argmax(dim=1)
    assert found == confusion_matrix(targets, decided, labels=range(4)).tolist()
    wrong = [sum(row) - row[k] for k, row in enumerate(found)]
    assert wrong[:3] == [own["errors"] for own in errors_by_class(model, inputs, targets)]


@pytest.mark.parametrize("size", [2, 1024])
def test_errors_by_class_by_hand(size: int) -> None:
    """Of many classes, of time steps, of yes and no above a threshold, of many answers; not where unknown."""
    same, kinds = nn.Identity(), ("samples", "errors", "share")

    def found(outputs: list[object], targets: list[object], **how: Any) -> list[tuple[float, ...]]:
        outs, wanted = torch.tensor(outputs), torch.tensor(targets)
        return [tuple(row[k] for k in kinds) for row in errors_by_class(same, outs, wanted, size, **how)]

    classes = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]]
    expected = [(1, 0, 0.0), (2, 1, 0.5), (1, 1, 0.5)]
    assert found(classes, [0, 1, 1, 2]) == expected
    assert found([[row] for row in classes], [[0], [1], [1], [2]]) == expected
    assert found([classes[:2], classes[2:]], [[0, 1], [-1, 1]]) == [(1, 0, 0.0), (2, 1, 1.0)]
    yes = [[0.2], [0.7], [0.6]]
    assert found(yes, [[0.0], [1.0], [0.0]]) == [(2, 2, 1.0), (1, 0, 0.0)]
    assert found(yes, [[0.0], [1.0], [0.0]], threshold=0.5) == [(2, 1, 1.0), (1, 0, 0.0)]
    many = [[1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]]
    right = [[1.0, 0.0], [1.0, math.nan], [0.0, 0.0]]
    assert found(many, right, by_answer=True) == [(3, 1, 0.5), (2, 1, 0.5)]


def test_unknown_classes_are_left_out() -> None:
    targets = torch.tensor([0, -100, 1])
    assert confusion(nn.Identity(), torch.eye(3)[:, :2], targets, 2) == [[1, 0], [1, 0]]
    assert [one.sample for one in most_wrong(nn.Identity(), torch.eye(3)[:, :2], targets, 5)] == [2]


@pytest.mark.parametrize("head", [nn.Identity(), nn.LogSoftmax(dim=-1), nn.Softmax(dim=-1)])
def test_the_worst_comes_first(head: nn.Module) -> None:
    """Sample 1 is sure of the wrong class, 3 is not quite; 0 and 2 are right."""
    inputs = torch.tensor([[5.0, 0], [9, 0], [0, 1], [1, 0.5]])
    found = most_wrong(head, inputs, torch.tensor([0, 1, 1, 1]), 5, batch_size=3)
    assert [(one.sample, one.right, one.decided) for one in found] == [(1, 1, 0), (3, 1, 0)]
    expected = [1 / (1 + math.exp(9)), 1 / (1 + math.exp(0.5))]
    assert [one.probability for one in found] == pytest.approx(expected)
    assert len(most_wrong(head, inputs, torch.tensor([0, 1, 1, 1]), 1)) == 1


def test_a_network_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    most_wrong(model, torch.randn(9, 2), torch.zeros(9, dtype=torch.long), 3)
    confusion(model, torch.randn(9, 2), torch.zeros(9, dtype=torch.long), 3)
    assert model.training and all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
