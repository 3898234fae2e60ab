"""Networks of a trunk and what is put on it: many heads, a new head, a place in space, a crop before.

B batch, F input features, W width, K outputs, C channels, H height, W' width of a picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlexp.build.mlp import mlp
from dlexp.data.dataset import Dataset
from dlexp.errors import UserError


class MultiHead(nn.Module):
    """A trunk that all outputs share, and a linear layer for each output alone.

    The gradient of the trunk is the sum of what all heads send down, so one task can help another.
    """

    def __init__(self, trunk: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) -> (B, K)."""
        shared = self.trunk(inputs)  # (B, W)
        return torch.cat([head(shared) for head in self.heads], dim=1)


def multi_head(
    input_shape: Sequence[int],
    outputs: int,
    activation: Callable[[], nn.Module],
    normalization: Callable[[int], nn.Module] | None = None,
    position: str = "before",
    dropout: Callable[[], nn.Module] | None = None,
    *,
    depth: int,
    width: int,
) -> MultiHead:
    """The hidden layers of an MLP as the trunk, and a head for each output."""
    whole = mlp(
        input_shape,
        outputs,
        depth=depth,
        width=width,
        bias=True,
        activation=activation,
        normalization=normalization,
        position=position,
        dropout=dropout,
    )
    return MultiHead(whole[:-1], width, outputs)


SOURCE = "the folder of a run with model=mlp train.keep_weights=true"


class Pretrained(nn.Sequential):
    """Hidden layers that start where another run left them."""

    keeps_start = True


def transfer(
    input_shape: Sequence[int],
    outputs: int,
    activation: Callable[[], nn.Module],
    *,
    source: str | None,
    frozen: bool,
    depth: int,
    width: int,
) -> nn.Sequential:
    """The hidden layers of an MLP that another run trained, and a new output layer on them.

    Args:
        source: the folder of that run.
        frozen: the trunk learns nothing more; otherwise it is fine-tuned with the head.
    """
    whole = mlp(input_shape, outputs, depth=depth, width=width, bias=True, activation=activation)
    trunk = Pretrained(*whole[:-1])
    if source is None:
        raise UserError(f"model.source=null: allowed: {SOURCE}")
    _load(source, trunk, activation())
    if frozen:
        trunk.requires_grad_(False).eval()  # nobody calls train() on it: evaluation puts modes back
    return nn.Sequential(trunk, nn.Linear(width, outputs))


def _load(source: str, trunk: nn.Module, activation: nn.Module) -> None:
    """Put the weights of all layers but the last one of the run in `source` into `trunk`."""
    folder = Path(source).expanduser()
    try:
        weights: dict[str, Tensor] = torch.load(folder / "weights.pt", map_location="cpu", weights_only=True)
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"model.source={source}: {Path(str(error.filename)).name} cannot be read there:"
            f" {error.strerror}; allowed: {SOURCE}"
        ) from error
    last = next(reversed(weights)).rpartition(".")[0]
    hidden = {name: w for name, w in weights.items() if name.rpartition(".")[0] != last}
    if _shapes(hidden) != _shapes(trunk.state_dict()):
        raise UserError(
            f"model.source={source}: holds hidden layers of {_words(hidden)}; model=transfer has"
            f" {_words(trunk.state_dict())}; allowed: data, model.depth and model.width of that run"
        )
    was, now = summary["config"]["activation"]["_target_"].rpartition(".")[2], type(activation).__name__
    if was != now:  # weights alone would not tell
        raise UserError(
            f"model.source={source}: learned with activation {was}, not {now};"
            f" allowed: activation={summary['choices']['activation']}"
        )
    trunk.load_state_dict(hidden)


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: w.shape for name, w in weights.items()}


def _words(weights: Mapping[str, Tensor]) -> str:
    """The sizes of the weight matrices, e.g. 64x20 20x20."""
    sizes = ["x".join(map(str, reversed(w.shape))) for w in weights.values() if w.dim() == 2]
    return " ".join(sizes) or "other kinds"


class UnitLength(nn.Module):
    """x / ||x||: every sample on the sphere of radius 1. The part of a gradient along x is lost."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, K) -> (B, K)."""
        return functional.normalize(x, dim=1)


def embedding_net(
    input_shape: Sequence[int],
    data: Dataset,
    activation: Callable[[], nn.Module],
    normalization: Callable[[int], nn.Module] | None = None,
    position: str = "before",
    dropout: Callable[[], nn.Module] | None = None,
    *,
    depth: int,
    width: int,
    dimensions: int,
    unit_length: bool,
) -> nn.Sequential:
    """An MLP that gives each sample a place, (B, ...) -> (B, dimensions), near those of its own kind."""
    if data.task != "embedding":
        raise UserError(
            f"model=embedding_net: gives places, not answers; the data asks for {data.task};"
            " allowed: task=embedding"
        )
    network = mlp(
        input_shape,
        dimensions,
        depth=depth,
        width=width,
        bias=True,
        activation=activation,
        normalization=normalization,
        position=position,
        dropout=dropout,
    )
    return network.append(UnitLength()) if unit_length else network


class BrightestWindow(nn.Module):
    """Cuts out the square of a picture whose mean is largest: where to look is not learned."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, C, H, W') -> (B, C, window, window)."""
        brightness = functional.avg_pool2d(pictures.mean(dim=1, keepdim=True), self.window, stride=1)
        places = brightness.shape[-1]  # in a row
        brightest = brightness.flatten(1).argmax(dim=1)  # (B,)
        windows = pictures.unfold(2, self.window, 1).unfold(3, self.window, 1)  # (B, C, ., ., window, window)
        samples = torch.arange(len(pictures), device=pictures.device)
        return windows[samples, :, brightest // places, brightest % places]


def two_stage(
    input_shape: Sequence[int],
    outputs: int,
    activation: Callable[[], nn.Module],
    *,
    window: int,
    depth: int,
    width: int,
) -> nn.Sequential:
    """Find the brightest window, cut it out, and recognise it with an MLP: (B, C, H, W') -> (B, K)."""
    if len(input_shape) != 3 or min(input_shape[1:]) < window:
        raise UserError(
            f"model=two_stage: takes pictures (C, H, W) of {window}x{window} or more; the data has"
            f" {tuple(input_shape)}; allowed: another model.window, data=digits_cluttered ..."
        )
    cut = (input_shape[0], window, window)
    recognise = mlp(cut, outputs, depth=depth, width=width, bias=True, activation=activation)
    return nn.Sequential(BrightestWindow(window), *recognise)
