"""Normalizations for vectors and for pictures: PyTorch's own, chosen by what they are given.

B batch, F features, C channels, H height, W width. A model calls `normalization(F)` for vectors (B, F)
and `normalization(C, 2)` for pictures (B, C, H, W), with two dimensions behind the channels.
"""

from __future__ import annotations

from torch import nn

from dlexp.errors import UserError


def batch(
    features: int, dims: int = 0, *, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True
) -> nn.Module:
    """Each feature over the batch, each channel over batch and places."""
    kind = nn.BatchNorm2d if dims else nn.BatchNorm1d
    return kind(features, eps=eps, momentum=momentum, affine=affine)


def layer(features: int, dims: int = 0, *, eps: float = 1e-5, elementwise_affine: bool = True) -> nn.Module:
    """Each sample over all of its features, or over all of its channels and places.

    On pictures scale and shift are those of a channel: a group norm of one group.
    """
    if dims:
        return nn.GroupNorm(1, features, eps=eps, affine=elementwise_affine)
    return nn.LayerNorm(features, eps=eps, elementwise_affine=elementwise_affine)


def rms(features: int, dims: int = 0, *, eps: float = 1e-5, elementwise_affine: bool = True) -> nn.Module:
    """Each sample divided by the root mean square of its features.

    Raises:
        UserError: PyTorch has none for pictures.
    """
    if dims:
        raise UserError("normalization=rms: is for vectors; allowed for pictures: none, batch, layer, group")
    return nn.RMSNorm(features, eps=eps, elementwise_affine=elementwise_affine)


def group(
    features: int, dims: int = 0, *, num_groups: int, eps: float = 1e-5, affine: bool = True
) -> nn.Module:
    """Each sample over each of its groups of features or channels; PyTorch has one for both.

    Raises:
        UserError: the groups would not be of one size.
    """
    if features % num_groups:
        raise UserError(
            f"normalization.num_groups={num_groups}: {'channels' if dims else 'features'} come in groups"
            f" of one size; allowed: what divides {features}"
        )
    return nn.GroupNorm(num_groups, features, eps=eps, affine=affine)
