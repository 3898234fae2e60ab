"""One update, in its two halves; what is measured is measured between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
LossFunction = Callable[[Tensor, Tensor], Tensor]  # (outputs, targets) -> scalar
Metric = Callable[[Tensor, Tensor], Tensor]  # likewise


class Regularizer(Protocol):
    """What holds weights back while they learn (dlexp.build.regularizers)."""

    def penalty(self, model: nn.Module) -> Tensor | None:
        """What is added to the loss, a scalar; None: nothing."""

    def perturbed(self, model: nn.Module) -> AbstractContextManager[object] | None:
        """Within it forward and backward run; None: nothing to do."""


def backpropagate(
    model: nn.Module,
    loss_function: LossFunction,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    regularizer: Regularizer | None = None,
) -> tuple[Tensor, Tensor]:
    """Forward and backward: leaves the gradients in the parameters and changes no weight.

    Returns:
        The loss, a scalar, without what the regularizer adds to it, and the outputs of the network.
    """
    inputs, targets = batch
    with (regularizer and regularizer.perturbed(model)) or nullcontext():
        outputs = model(inputs)
        loss = loss_function(outputs, targets)
        penalty = regularizer.penalty(model) if regularizer else None
        _zero_grad(optimizer)
        (loss if penalty is None else loss + penalty).backward()
    return loss.detach(), outputs.detach()


def _zero_grad(optimizer: torch.optim.Optimizer) -> None:
    """What `optimizer.zero_grad()` does, without its profiling, 1 % of the step of a small network."""
    if type(optimizer).zero_grad is not torch.optim.Optimizer.zero_grad:  # somebody's own
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Let passes of `model` on the CPU draw random numbers and move running statistics without effect."""
    buffers = [buffer.clone() for buffer in model.buffers()]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loss_function: LossFunction,
    metrics: Mapping[str, Metric],
    inputs: Tensor,
    targets: Tensor,
    batch_size: int = 1024,
) -> dict[str, float]:
    """The loss and each metric over all samples, with the network in evaluation mode.

    Both see all outputs at once, so that a loss that leaves out unknown targets weighs the known ones
    alike. A loss that compares samples with each other (`by_batch`) is the mean over batches.
    """
    by_batch = getattr(loss_function, "by_batch", False)
    outputs, total = [], torch.zeros((), device=inputs.device)
    with evaluating(model):
        for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
            outputs.append(model(x))
            if by_batch:
                total += loss_function(outputs[-1], y) * (len(y) / len(targets))
        whole = torch.cat(outputs)
        loss = total if by_batch else loss_function(whole, targets)
        numbers = torch.stack([loss, *(metric(whole, targets).float() for metric in metrics.values())])
    return dict(zip(("loss", *metrics), numbers.tolist(), strict=True))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards each module as it was: a frozen part may have been in it before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
