"""What a trained network gets wrong: for each class, for each pair of classes, and in which samples most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlexp.train.metrics import decisions
from dlexp.train.step import evaluating


@torch.no_grad()
def errors_by_class(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    batch_size: int = 1024,
    *,
    threshold: float = 0.0,
    by_answer: bool = False,
) -> list[dict[str, float]]:
    """Error analysis: for each class its samples, its errors, and its share of all errors.

    That share is the ceiling: so much of the error would go if this class were never mistaken. Of sequences
    each time step is a sample. Unknown targets are left out.

    Args:
        threshold: an output above it is a yes.
        by_answer: for each of many answers, (N, K), instead of for each class.
    """
    found = []
    for y, outputs in _outputs(model, inputs, targets, batch_size):
        decided, right = decisions(outputs, y, threshold)
        kind = torch.arange(y.shape[1], device=y.device).expand_as(y)[y.isfinite()] if by_answer else right
        found.append(torch.stack([kind.long(), (decided != right).long()]))
    kinds, wrong = torch.cat(found, dim=1)
    count = targets.shape[1] if by_answer else 2 if targets.is_floating_point() else int(targets.max()) + 1
    samples = torch.bincount(kinds, minlength=count).tolist()
    errors = torch.bincount(kinds[wrong == 1], minlength=count).tolist()
    return [
        {
            "answer" if by_answer else "class": k,
            "samples": n,
            "errors": bad,
            "share": bad / max(1, sum(errors)),
        }
        for k, (n, bad) in enumerate(zip(samples, errors, strict=True))
    ]


@torch.no_grad()
def confusion(
    model: nn.Module, inputs: Tensor, targets: Tensor, classes: int, batch_size: int = 1024
) -> list[list[int]]:
    """How many samples of each class, a row, were taken for each class, a column.

    Args:
        targets: (N,) class of each sample.
    """
    pairs = torch.zeros(classes * classes, dtype=torch.long, device=inputs.device)
    for y, outputs in _outputs(model, inputs, targets, batch_size):
        decided, right = decisions(outputs, y)
        pairs += torch.bincount(right * classes + decided, minlength=len(pairs))
    counts: list[list[int]] = pairs.view(classes, classes).tolist()
    return counts


class Mistake(NamedTuple):
    """A sample that was taken for another class."""

    sample: int  # its number in the split
    right: int
    decided: int
    probability: float  # that the network gives to what is right


@torch.no_grad()
def most_wrong(
    model: nn.Module, inputs: Tensor, targets: Tensor, most: int, batch_size: int = 1024
) -> list[Mistake]:
    """The samples that were taken for another class and whose own class seemed least likely, worst first.

    Args:
        targets: (N,) class of each sample, negative if unknown.
    """
    outputs = torch.cat([out for _, out in _outputs(model, inputs, targets, batch_size)])
    sums = outputs.sum(dim=-1)
    if not bool((outputs >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-4)):
        outputs = outputs.softmax(dim=-1)  # scores or log-probabilities
    own = outputs.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    decided = outputs.argmax(dim=-1)
    wrong = ((decided != targets) & (targets >= 0)).nonzero()[:, 0]
    worst = wrong[own[wrong].argsort(stable=True)][:most]
    columns = (worst, targets[worst], decided[worst], own[worst])
    return [Mistake(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _outputs(
    model: nn.Module, inputs: Tensor, targets: Tensor, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Targets and outputs of each batch, with the network in evaluation mode."""
    with evaluating(model):
        for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
            yield y, model(x)
