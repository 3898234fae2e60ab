"""The loss of the best constant answer, against a search for it with the loss itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dlexp.train.chance import chance_loss, zero_loss


def best(loss: object, shape: tuple[int, ...]) -> float:
    """By gradient descent, for all samples the same answer."""
    answer = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([answer], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = loss(answer)  # type: ignore[operator]
        value.backward()
        return value

    optimizer.step(closure)  # type: ignore[arg-type]
    return closure().item()


CLASSES = torch.tensor([0, 1, 1, 2, 2, 2, 2, 0])
ANSWERS = torch.tensor([[0.0, 1], [1, 1], [0, 0], [0, 1]])
NUMBERS = torch.tensor([[0.0, 1], [3, 1], [-2, 0.5], [0, 4]])


def test_classes() -> None:
    expected = best(lambda z: functional.cross_entropy(z.expand(8, 3), CLASSES), (3,))
    assert chance_loss("cross_entropy", CLASSES, 3) == pytest.approx(expected, rel=1e-8)


def test_answers_by_themselves() -> None:
    expected = best(
        lambda z: functional.binary_cross_entropy_with_logits(z.expand(4, 2), ANSWERS.double()), (2,)
    )
    assert chance_loss("binary_cross_entropy", ANSWERS, 2) == pytest.approx(expected, rel=1e-8)


def test_numbers() -> None:
    expected = best(lambda z: functional.mse_loss(z.expand(4, 2), NUMBERS.double()), (2,))
    assert chance_loss("mse", NUMBERS, 2) == pytest.approx(expected, rel=1e-8)


def test_what_the_loss_leaves_out_does_not_count() -> None:
    sequences = torch.tensor([[0, 1, -100], [1, 0, -100]])
    assert chance_loss("cross_entropy", sequences, 2) == pytest.approx(0.6931471805599453)
    some = torch.tensor([[0.0], [1.0], [float("nan")]])
    assert chance_loss("binary_cross_entropy", some, 1) == pytest.approx(0.6931471805599453)


def test_of_other_losses_it_is_not_known() -> None:
    assert chance_loss("hinge", CLASSES, 3) is None
    assert chance_loss("mse", CLASSES, 3) is None


def test_to_answer_nothing_costs_the_mean_square() -> None:
    """(1 + 9 + 4 + 4) / 4; of classes it is not known."""
    numbers = torch.tensor([[1.0, 3.0], [-2.0, 2.0]])
    assert zero_loss("mse", numbers) == pytest.approx(4.5)
    assert zero_loss("mae", numbers) is None and zero_loss("mse", CLASSES) is None
