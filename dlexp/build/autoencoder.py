"""The denoising autoencoder (Vincent et al. 2008): given noisy inputs, it has to give back clean ones.

B batch, F numbers of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dlexp.build.mlp import mlp
from dlexp.data.dataset import Dataset
from dlexp.errors import UserError


class GaussianNoise(nn.Module):
    """x + N(0, std), in training and in evaluation, where it is the same each time."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        if self.training:
            return x + self.std * torch.randn_like(x)
        own = torch.Generator().manual_seed(0)
        return x + self.std * torch.randn(x.shape, generator=own).to(x)


def denoising_autoencoder(
    input_shape: Sequence[int],
    data: Dataset,
    activation: Callable[[], nn.Module],
    *,
    noise: float,
    depth: int,
    width: int,
    code: int,
) -> nn.Sequential:
    """Noise, an MLP down to a code of a few numbers, an MLP back up: (B, ...) -> (B, F)."""
    if data.task != "reconstruction":
        raise UserError(
            f"model=denoising_autoencoder: gives its inputs back; the data asks for {data.task};"
            " allowed: task=reconstruction"
        )
    encoder = mlp(input_shape, code, depth=depth, width=width, bias=True, activation=activation)
    decoder = mlp((code,), math.prod(input_shape), depth=depth, width=width, bias=True, activation=activation)
    return nn.Sequential(GaussianNoise(noise), encoder, decoder)
