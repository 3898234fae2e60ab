"""One update, in its two halves; what is measured is measured between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
LossFunction = Callable[[Tensor, Tensor], Tensor]


def backpropagate(
    model: nn.Module, loss_function: LossFunction, optimizer: torch.optim.Optimizer, batch: Batch
) -> tuple[Tensor, Tensor]:
    """Forward and backward: leaves the gradients in the parameters and changes no weight.

    Returns:
        The loss, a scalar, and the outputs of the network, (B, C).
    """
    inputs, targets = batch
    outputs = model(inputs)
    loss = loss_function(outputs, targets)
    optimizer.zero_grad()
    loss.backward()
    return loss.detach(), outputs.detach()


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


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of samples whose largest output, of (B, C), is the target, of (B,); a scalar."""
    return (outputs.argmax(dim=1) == targets).float().mean()


@torch.no_grad()
def evaluate(
    model: nn.Module, loss_function: LossFunction, inputs: Tensor, targets: Tensor, batch_size: int = 1024
) -> dict[str, float]:
    """Loss and accuracy over all samples, with the network in evaluation mode."""
    was_training = model.training
    model.eval()
    totals = torch.zeros(2, device=inputs.device)
    for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
        outputs = model(x)
        totals += torch.stack([loss_function(outputs, y), accuracy(outputs, y)]) * len(y)
    model.train(was_training)
    loss, correct = (totals / len(targets)).tolist()
    return {"loss": loss, "accuracy": correct}
