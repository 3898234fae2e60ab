"""Digits as curves over time, in the manner of MNIST-1D (Greydanus 2020, "Scaling down deep learning").

The recipe is the published one: a short template for each digit is padded, shifted, resampled to 40
points, scaled and sheared, with smooth and rough noise on it. The templates are our own and the smooth
noise is everywhere, so accuracies are comparable in kind, not in the last digit. N samples.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dlexp.data import dataset
from dlexp.data.dataset import Dataset, Split

# How far right the pen is on its way from the top of a digit to the bottom, 12 points each.
TEMPLATES = torch.tensor(
    [
        [0.0, 0.5, 0.8, 0.9, 1.0, 1.0, 1.0, 1.0, 0.9, 0.8, 0.5, 0.0],
        [-0.8, -0.4, 0.0, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3],
        [-0.6, 0.0, 0.6, 0.9, 0.9, 0.6, 0.2, -0.3, -0.7, -1.0, -0.2, 0.8],
        [-0.6, 0.3, 0.9, 0.9, 0.5, 0.0, 0.0, 0.5, 0.9, 0.9, 0.3, -0.6],
        [0.6, 0.3, 0.0, -0.3, -0.6, -0.9, 0.0, 0.9, 0.5, 0.5, 0.5, 0.5],
        [0.9, 0.2, -0.6, -0.8, -0.8, -0.2, 0.4, 0.8, 0.9, 0.7, 0.2, -0.6],
        [0.6, 0.1, -0.4, -0.7, -0.9, -1.0, -0.9, 0.0, 0.6, 0.6, 0.2, -0.4],
        [-0.9, 0.0, 0.9, 0.8, 0.6, 0.4, 0.2, 0.0, -0.2, -0.4, -0.5, -0.6],
        [0.0, -0.7, -0.9, -0.6, 0.0, 0.5, 0.9, 1.0, 0.9, 0.6, 0.3, 0.0],
        [0.3, -0.4, -0.8, -0.7, -0.2, 0.5, 0.9, 0.9, 0.8, 0.7, 0.6, 0.5],
    ]
)
POINTS = 40  # of a finished curve
LENGTH = (12 + 36, 12 + 60)  # of a template with its padding


def load(samples: int, noise: float, sample_seed: int, **shares: Any) -> Dataset:
    """Inputs (N, 40, 1), 40 time steps of one number; classes (N,) 0 to 9.

    Args:
        noise: deviation of the smooth noise; the rough one has a fifth of it.
        sample_seed: decides what is drawn.
        shares: as `dataset.divide` has them.
    """
    generator = torch.Generator().manual_seed(sample_seed)
    labels = torch.arange(samples) % len(TEMPLATES)
    length = torch.randint(LENGTH[0], LENGTH[1] + 1, (samples, 1), generator=generator)
    shift = (torch.rand(samples, 1, generator=generator) * length * 2 / 3).long()
    curves = resample(TEMPLATES[labels], length, shift)
    scale, shear = torch.rand(2, samples, 1, generator=generator) - 0.5
    curves = curves * (1 + 0.4 * scale) - 0.75 * shear * torch.linspace(-0.5, 0.5, POINTS)
    smooth = _smoothed(torch.randn(samples, POINTS, generator=generator))
    curves = curves + noise * smooth + noise / 5 * torch.randn(samples, POINTS, generator=generator)
    return dataset.divide(Split(curves.unsqueeze(2), labels), outputs=10, **shares)


def resample(templates: Tensor, length: Tensor, shift: Tensor) -> Tensor:
    """Templates (N, 12) padded with zeros to `length` (N, 1), turned by `shift` (N, 1), at 40 points.

    Between two points the curve is a straight line; what is shifted out at the end comes in at the
    beginning.
    """
    padded = functional.pad(templates, (0, LENGTH[1] - templates.shape[1]))
    position = torch.linspace(0, 1, POINTS) * (length - 1)  # (N, 40)
    before = position.floor().long().clamp(max=length - 2)
    share = position - before
    low, high = (padded.gather(1, (place - shift) % length) for place in (before, before + 1))
    return low + share * (high - low)


def _smoothed(noise: Tensor) -> Tensor:
    """Noise (N, T) under a Gaussian window of 2 points' deviation, back at deviation 1."""
    window = torch.exp(-torch.arange(-6, 7).square() / 8.0)
    window = window / window.norm()  # keeps the variance of independent numbers
    padded = functional.pad(noise.unsqueeze(1), (6, 6), mode="circular")
    return functional.conv1d(padded, window.view(1, 1, -1)).squeeze(1)
