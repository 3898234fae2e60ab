"""The network that reads a text off a picture: convolutions, then a recurrent net over the columns.

B batch, C channels, H height, W width, D channels of the first convolution, T = W // 2 columns, R units
in each direction, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dlexp.build.convolution import Normalization, pictures
from dlexp.build.recurrent import unroll
from dlexp.data.dataset import Dataset
from dlexp.errors import UserError


class CRNN(nn.Module):
    """Convolutions, a bidirectional GRU from left to right and back, a linear layer: Shi et al. 2015.

    Each direction is a cell that runs T times, and its time is the order in which it runs: at t = 0 the
    cell from the left sees the first column, the cell from the right the last one.
    """

    def __init__(self, convolutions: nn.Module, features: int, width: int, outputs: int, *, bias: bool):
        super().__init__()
        self.convolutions = convolutions
        self.from_left = nn.GRUCell(features, width, bias=bias)
        self.from_right = nn.GRUCell(features, width, bias=bias)
        self.output = nn.Linear(2 * width, outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, T, K), what CTC takes the log-softmax of."""
        a = self.convolutions(x)  # (B, 2D, H // 4, T)
        columns = a.flatten(1, 2).transpose(1, 2)  # (B, T, 2D * (H // 4))
        left = unroll(self.from_left, columns)  # (B, T, R)
        right = unroll(self.from_right, columns.flip(1)).flip(1)  # by place again
        z: Tensor = self.output(torch.cat([left, right], dim=2))
        return z


def crnn(
    input_shape: Sequence[int],
    outputs: int,
    data: Dataset,
    *,
    channels: int,
    width: int,
    bias: bool,
    activation: Callable[[], nn.Module],
    normalization: Normalization | None = None,
    position: str = "before",
) -> CRNN:
    """Two convolutions and pools, the second pool over the height alone, then the recurrent net.

    Raises:
        UserError: the data has no text to be read, or its pictures are too small.
    """
    before, rows, columns = pictures("crnn", input_shape)
    if data.task != "transcription":
        raise UserError(
            f"model=crnn: for the task transcription; that of the data is {data.task};"
            " allowed: data=digit_strings"
        )
    if rows < 4 or columns < 2:
        raise UserError(
            f"model=crnn: takes 4x2 pixels or more; the pictures have {rows}x{columns}; allowed: larger ones"
        )
    modules: list[nn.Module] = []
    for after, pool in ((channels, (2, 2)), (2 * channels, (2, 1))):
        around = [activation()]
        if normalization:
            around.insert(0 if position == "before" else 1, normalization(after, dims=2))
        modules += [nn.Conv2d(before, after, 3, padding=1, bias=bias), *around, nn.MaxPool2d(pool)]
        before = after
    return CRNN(nn.Sequential(*modules), before * (rows // 4), width, outputs, bias=bias)
