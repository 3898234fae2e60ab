"""A generative adversarial network (Goodfellow et al. 2014), both its halves learning in one backward.

B batch, Z noise, D numbers of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dlexp.build.mlp import mlp
from dlexp.data.dataset import Dataset
from dlexp.errors import UserError


class GAN(nn.Module):
    """A generator that makes samples of noise, and a discriminator that tells them from real ones.

    In a step that is watched the layers of the discriminator have run three times: on real samples, on
    fake ones for itself, on fake ones for the generator. These runs are no time steps; `over_time` of the
    records has a number for each of them, in this order.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module, latent: int) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self._latent = latent

    def forward(self, real: Tensor) -> Tensor:
        """(B, ...) real samples -> (B, 3 + D).

        Columns: the logit of the real sample, and that of a fake one, both for the discriminator to
        learn from; the logit of the same fake once more, for the generator to learn from; the fake.
        """
        fake = self.generator(self._draw(real))  # (B, D)
        on_real = self.discriminator(real.flatten(1))
        on_fake = self.discriminator(fake.detach())  # nothing reaches the generator
        with _held(self.discriminator):  # nothing stays in the discriminator, all passes through it
            for_generator = self.discriminator(fake)
        return torch.cat([on_real, on_fake, for_generator, fake.detach()], dim=1)

    def _draw(self, like: Tensor) -> Tensor:
        """(B, Z) of N(0, 1); in evaluation always the same, so that two evaluations can be compared."""
        if self.training:
            return torch.randn(len(like), self._latent, dtype=like.dtype, device=like.device)
        own = torch.Generator().manual_seed(0)
        return torch.randn(len(like), self._latent, generator=own).to(like)


@contextmanager
def _held(module: nn.Module) -> Iterator[None]:
    """What runs within leaves no gradient in the parameters of `module`."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def gan(
    input_shape: Sequence[int],
    data: Dataset,
    activation: Callable[[], nn.Module],
    *,
    latent: int,
    depth: int,
    width: int,
) -> GAN:
    """Two MLPs: noise (B, Z) -> sample (B, D), and sample (B, D) -> logit (B, 1)."""
    if data.task != "adversarial":
        raise UserError(f"model=gan: the data asks for {data.task}; allowed: task=adversarial")
    size = math.prod(input_shape)

    def network(inputs: int, outputs: int) -> nn.Sequential:
        return mlp((inputs,), outputs, depth=depth, width=width, bias=True, activation=activation)

    return GAN(network(latent, size), network(size, 1), latent)
