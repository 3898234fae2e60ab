"""The network as TensorBoard's Graphs tab shows it."""

from __future__ import annotations

import warnings

from torch import Tensor, nn


def network_graph(model: nn.Module, inputs: Tensor) -> bytes:
    """A serialized GraphDef of `model`, traced by PyTorch in evaluation mode.

    PyTorch's own SummaryWriter would put it into a second event file.

    Args:
        inputs: (1, ...) a sample.

    Raises:
        RuntimeError: it cannot be traced.
    """
    from torch.utils.tensorboard._pytorch_graph import graph

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer: what it warns of does not matter to a drawing
        found, _ = graph(model, inputs)
    return bytes(found.SerializeToString())
