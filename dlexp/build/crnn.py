"""The network that reads a text off a picture: convolutions, then a recurrent net over the columns.

B batch, C channels, H height, W width, D channels of the first convolution, T = W // 2 time steps, R units
in each direction, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from dlexp.build.convolution import Normalization, pictures
from dlexp.data.dataset import Dataset
from dlexp.errors import UserError


class CRNN(nn.Module):
    """Convolutions, a bidirectional GRU from left to right and back, a linear layer: Shi et al. 2015."""

    def __init__(self, convolutions: nn.Module, features: int, width: int, outputs: int, *, bias: bool):
        super().__init__()
        self.convolutions = convolutions
        self.recurrent = nn.GRU(features, width, batch_first=True, bidirectional=True, bias=bias)
        self.output = nn.Linear(2 * width, outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, T, K), what CTC takes the log-softmax of."""
        a = self.convolutions(x)  # (B, 2D, H // 4, T)
        columns = a.flatten(1, 2).transpose(1, 2)  # (B, T, 2D * (H // 4))
        states, _ = self.recurrent(columns)  # (B, T, 2R)
        z: Tensor = self.output(states)
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
        raise UserError(f"model=crnn: for the task transcription; that of the data is {data.task}")
    if rows < 4 or columns < 2:
        raise UserError(f"model=crnn: takes 4x2 pixels or more; the pictures have {rows}x{columns}")
    modules: list[nn.Module] = []
    for after, pool in ((channels, (2, 2)), (2 * channels, (2, 1))):
        around = [activation()]
        if normalization:
            around.insert(0 if position == "before" else 1, normalization(after, dims=2))
        modules += [nn.Conv2d(before, after, 3, padding=1, bias=bias), *around, nn.MaxPool2d(pool)]
        before = after
    return CRNN(nn.Sequential(*modules), before * (rows // 4), width, outputs, bias=bias)
