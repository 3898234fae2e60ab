"""Networks for pictures: a convolutional one, its twin without shared weights, and a residual one.

B batch, C channels, H height, W width, D channels that a layer gives, P = H * W places, N = C * kernel^2
numbers that a filter sees, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlexp.build.normalization import batch
from dlexp.build.residual import Stream
from dlexp.errors import UserError

Normalization = Callable[..., nn.Module]  # (channels, dims=2) -> module for pictures, (features) for vectors
POOLS: dict[str, Callable[[int], nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


class LocallyConnected2d(nn.Module):
    """A convolution whose filters differ from place to place: (B, C, H, W) -> (B, D, H, W).

    Zeros around the picture keep its size; `kernel` is odd.
    """

    unit_has_place = True  # for the recorder

    def __init__(
        self, channels: int, out_channels: int, size: tuple[int, int], kernel: int, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.out_channels, self.size, self.kernel = out_channels, size, kernel
        # Filters as those of nn.Conv2d, all D of the first place first, so that initializers see fan_in = N.
        filters = math.prod(size) * out_channels
        self.weight = nn.Parameter(torch.empty(filters, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(filters)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as nn.Conv2d: U(+-1/sqrt(N))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        patches = functional.unfold(x, self.kernel, padding=self.kernel // 2)  # (B, N, P)
        weight = self.weight.view(-1, self.out_channels, patches.shape[1])  # (P, D, N)
        z: Tensor = torch.einsum("bnp,pdn->bdp", patches, weight)
        if self.bias is not None:
            z = z + self.bias.view(-1, self.out_channels).T  # (D, P)
        return z.view(len(x), -1, *self.size)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.out_channels}, size={self.size}, kernel={self.kernel}"


def cnn(
    input_shape: Sequence[int],
    outputs: int,
    *,
    shared: bool,
    depth: int,
    channels: int,
    kernel: int,
    pool: str,
    width: int,
    bias: bool,
    activation: Callable[[], nn.Module],
    normalization: Normalization | None = None,
    position: str = "before",
    dropout: Callable[[], nn.Module] | None = None,
) -> nn.Sequential:
    """Convolution, activation, pool, `depth` times, then two dense layers: (B, C, H, W) -> (B, K).

    After LeNet, LeCun et al. 1998. The first convolution has `channels`, each further one twice as many
    as the one before; each pool halves height and width. Dropout stands in front of the last layer.

    Args:
        shared: the weights of a filter are the same at all places (a convolution), or each place has its
            own (a locally connected layer).

    Raises:
        UserError: the samples are no pictures or too small, or the kernel has no middle.
    """
    before, rows, columns = pictures("cnn" if shared else "locally_connected", input_shape)
    if 2**depth > min(rows, columns):
        last = columns in (1, 3, 4) and before > columns
        hint = "; or are the channels last? inputs.transpose(0, 3, 1, 2) puts them first" if last else ""
        raise UserError(
            f"model.depth={depth}: so many pools leave nothing of {rows}x{columns} pixels;"
            f" allowed: {int(math.log2(min(rows, columns)))} or less{hint}"
        )
    if kernel % 2 == 0:
        raise UserError(f"model.kernel={kernel}: has no middle; allowed: 1, 3, 5 and so on")

    def around(features: int, **dims: int) -> list[nn.Module]:
        """The activation with its normalization."""
        modules = [activation()]
        if normalization:
            modules.insert(0 if position == "before" else 1, normalization(features, **dims))
        return modules

    modules: list[nn.Module] = []
    for stage in range(depth):
        after = channels * 2**stage
        if shared:
            modules.append(nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=bias))
        else:
            modules.append(LocallyConnected2d(before, after, (rows, columns), kernel, bias=bias))
        modules += [*around(after, dims=2), POOLS[pool](2)]
        before, rows, columns = after, rows // 2, columns // 2
    modules += [nn.Flatten(), nn.Linear(before * rows * columns, width, bias=bias), *around(width)]
    if dropout:
        modules.append(dropout())
    return nn.Sequential(*modules, nn.Linear(width, outputs, bias=bias))


class ResNetBlock(nn.Module):
    """activation(x + f(x)), He et al. 2016, with f twice a convolution: (B, C, H, W) -> (B, D, H/s, W/s).

    Where f changes the shape, x passes a convolution of 1x1 with the same stride s.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        stride: int,
        activation: Callable[[], nn.Module],
        normalization: Normalization,
        *,
        bias: bool,
    ) -> None:
        super().__init__()
        changes = stride > 1 or channels != out_channels
        shortcut = _convolution(channels, out_channels, 1, stride, normalization, bias=bias)
        self.shortcut = nn.Sequential(*(shortcut if changes else []))
        self.branch = nn.Sequential(
            *_convolution(channels, out_channels, 3, stride, normalization, bias=bias),
            activation(),
            *_convolution(out_channels, out_channels, 3, 1, normalization, bias=bias),
        )
        self.stream = Stream(activation())

    def forward(self, x: Tensor) -> Tensor:
        f = self.branch(x)
        a: Tensor = self.stream(self.shortcut(x), f)
        return a


def resnet(
    input_shape: Sequence[int],
    outputs: int,
    *,
    blocks: int,
    width: int,
    bias: bool,
    activation: Callable[[], nn.Module],
    normalization: Normalization | None = None,
    position: str = "before",
) -> nn.Sequential:
    """The residual net for small pictures of He et al. 2016, section 4.2: (B, C, H, W) -> (B, K).

    A convolution, three stages of `blocks` blocks with `width`, twice and four times as many channels,
    the second and third at half the height and width of the one before; the mean over all places; a
    dense layer. It has 6 * `blocks` + 2 layers and two shortcuts of 1x1.

    Args:
        normalization: behind each convolution; batch norm if there is none.

    Raises:
        UserError: the samples are no pictures, or the normalization is asked to come last.
    """
    channels, *_ = pictures("resnet", input_shape)
    if position == "after":
        raise UserError(
            "normalization.position=after: model=resnet normalizes each branch before it is added;"
            " allowed: before"
        )
    normalize = normalization or batch
    modules: list[nn.Module] = [*_convolution(channels, width, 3, 1, normalize, bias=bias), activation()]
    before = width
    for stage in range(3):
        after = width * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            modules.append(ResNetBlock(before, after, stride, activation, normalize, bias=bias))
            before = after
    mean = nn.AdaptiveAvgPool2d(1)  # (B, D, H, W) -> (B, D, 1, 1)
    return nn.Sequential(*modules, mean, nn.Flatten(), nn.Linear(before, outputs, bias=bias))


def pictures(model: str, input_shape: Sequence[int]) -> tuple[int, int, int]:
    """Channels, height and width of a sample.

    Raises:
        UserError: it has none.
    """
    if len(input_shape) != 3:
        raise UserError(
            f"model={model}: takes pictures (C, H, W); a sample of the data is {input_shape};"
            " allowed: data=digits, mnist, cifar10, image_folder ..."
        )
    channels, height, width = input_shape
    return channels, height, width


def _convolution(
    before: int, after: int, kernel: int, stride: int, normalization: Normalization, *, bias: bool
) -> list[nn.Module]:
    """A convolution with its normalization, (B, before, H, W) -> (B, after, H / stride, W / stride)."""
    layer = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=bias)
    return [layer, normalization(after, dims=2)]
