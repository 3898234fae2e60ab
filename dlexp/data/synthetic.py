"""Drawn points: truth tables, clouds of two or more classes, lists to rank, a ring for a GAN.

N samples, F features, K classes, I items in a list. `sample_seed` decides what is drawn; `shares` are
validation, test, train_dev, split_seed and standardize, as `dataset.divide` has them. Two classes are
the task "binary" with targets (N, 1) of 0 or 1, unless a function says otherwise.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dlexp.data import dataset
from dlexp.data.dataset import Dataset, Split

GATES = {  # what comes out for the inputs 00, 01, 10, 11
    "and": (0, 0, 0, 1),
    "or": (0, 1, 1, 1),
    "nand": (1, 1, 1, 0),
    "nor": (1, 0, 0, 0),
    "xor": (0, 1, 1, 0),
    "xnor": (1, 0, 0, 1),
}


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _two_classes(inputs: Tensor, labels: Tensor, shares: dict[str, Any], **facts: Any) -> Dataset:
    """A binary data set of inputs (N, F) and labels (N,) of 0 or 1."""
    samples = Split(inputs, labels.float().unsqueeze(1))
    return dataset.divide(samples, outputs=1, task="binary", facts=facts, **shares)


def gate(gate: str, samples: int, noise: float, sample_seed: int, **shares: Any) -> Dataset:
    """A Boolean gate: inputs (N, 2) of 0 and 1, targets (N, 1).

    Every split holds whole copies of the truth table, `samples // 4` in all, so none is lopsided.

    Args:
        gate: a name in `GATES`.
        noise: deviation of what is added to the inputs; at 0 every copy is the truth table itself.
    """
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    copies = samples // 4
    inputs = corners + noise * torch.randn(copies, 4, 2, generator=_seeded(sample_seed))
    targets = torch.tensor(GATES[gate], dtype=torch.float32).view(4, 1).repeat(copies, 1, 1)

    def loosen(tables: list[Split]) -> list[Split]:
        return [Split(t.inputs.flatten(0, 1), t.targets.flatten(0, 1)) for t in tables]

    return dataset.divide(Split(inputs, targets), change=loosen, outputs=1, task="binary", **shares)


def parity(bits: int, samples: int, sample_seed: int, **shares: Any) -> Dataset:
    """Is the number of ones odd? Inputs (N, bits) of 0 and 1, targets (N, 1).

    Patterns are drawn with replacement: of a few bits every split holds them all, of many bits the
    test patterns are new ones.
    """
    inputs = torch.randint(2, (samples, bits), generator=_seeded(sample_seed))
    return _two_classes(inputs.float(), inputs.sum(dim=1) % 2, shares)


def separable(
    samples: int, features: int, margin: float, spread: float, sample_seed: int, **shares: Any
) -> Dataset:
    """Two blobs on either side of a plane through 0, none nearer to it than `margin`: inputs (N, F).

    The distance to the plane is margin + |normal|, so that some points come close to the margin. They
    are not standardized, because that would change the margin.

    Facts: direction (F numbers, the unit normal of the plane), margin (the smallest distance to the
    plane) and radius (the largest distance to 0), both over all samples. A perceptron without bias
    makes at most (radius / margin)^2 mistakes (Novikoff 1962).
    """
    generator = _seeded(sample_seed)
    normal = torch.randn(features, dtype=torch.float64, generator=generator)
    normal /= normal.norm()
    labels = torch.arange(samples) % 2
    points = spread * torch.randn(samples, features, dtype=torch.float64, generator=generator)
    along = points @ normal
    moved = (2 * labels - 1) * (margin + along.abs()) - along  # from where a point is to where it belongs
    inputs = (points + moved.unsqueeze(1) * normal).float()
    facts = {
        "direction": normal.tolist(),
        "margin": (inputs.double() @ normal).abs().min().item(),
        "radius": inputs.double().norm(dim=1).max().item(),
    }
    return _two_classes(inputs, labels, {**shares, "standardize": "none"}, **facts)


def gaussians(
    samples: int, features: int, distance: float, correlation: float, sample_seed: int, **shares: Any
) -> Dataset:
    """Two normal distributions of equal covariance, equally frequent: inputs (N, F).

    Features i and j have the covariance correlation^|i - j|. The means are `distance` deviations apart
    (Mahalanobis distance d), so no rule errs less often than Phi(-d / 2) = erfc(d / sqrt 8) / 2.

    Facts: bayes_error.
    """
    place = torch.arange(features, dtype=torch.float64)
    covariance = torch.full((), correlation, dtype=torch.float64) ** (place - place.unsqueeze(1)).abs()
    root = torch.linalg.cholesky(covariance)
    labels = torch.arange(samples) % 2
    white = torch.randn(samples, features, dtype=torch.float64, generator=_seeded(sample_seed))
    white += ((labels - 0.5) * distance / math.sqrt(features)).unsqueeze(1)  # the means, d apart in white
    bayes_error = math.erfc(distance / math.sqrt(8)) / 2
    return _two_classes((white @ root.T).float(), labels, shares, bayes_error=bayes_error)


def blobs(
    samples: int, features: int, classes: int, spread: float, sample_seed: int, **shares: Any
) -> Dataset:
    """A round cloud for each class: inputs (N, F), classes (N,) 0 to K - 1; centres in [-10, 10]^F."""
    generator = _seeded(sample_seed)
    centres = 20 * torch.rand(classes, features, generator=generator) - 10
    labels = torch.arange(samples) % classes
    inputs = centres[labels] + spread * torch.randn(samples, features, generator=generator)
    return dataset.divide(Split(inputs, labels), outputs=classes, **shares)


def moons(samples: int, noise: float, sample_seed: int, **shares: Any) -> Dataset:
    """Two interleaved half circles, as scikit-learn has them: inputs (N, 2), targets (N, 1)."""
    outer = torch.linspace(0, math.pi, samples // 2)
    inner = torch.linspace(0, math.pi, samples - samples // 2)
    x = torch.cat([outer.cos(), 1 - inner.cos()])
    y = torch.cat([outer.sin(), 0.5 - inner.sin()])
    labels = torch.cat([torch.zeros_like(outer), torch.ones_like(inner)])
    points = torch.stack([x, y], dim=1)
    points += noise * torch.randn(points.shape, generator=_seeded(sample_seed))
    return _two_classes(points, labels, shares)


def spirals(samples: int, turns: float, noise: float, sample_seed: int, **shares: Any) -> Dataset:
    """Two spirals from 0 to the unit circle, half a turn apart: inputs (N, 2), targets (N, 1).

    A point at radius r has the angle 2 pi turns r, and half a turn more in class 1.
    """
    generator = _seeded(sample_seed)
    labels = torch.arange(samples) % 2
    radius = torch.rand(samples, generator=generator)
    angle = 2 * math.pi * turns * radius + math.pi * labels
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    points += noise * torch.randn(points.shape, generator=generator)
    return _two_classes(points, labels, shares)


def ranking(
    samples: int, items: int, features: int, grades: int, noise: float, sample_seed: int, **shares: Any
) -> Dataset:
    """Lists to be ranked: inputs (N, I, F), targets (N, I) relevance 0 to grades - 1.

    An item is worth w . x plus noise, with a hidden w of length 1. The items of a list, from the least
    worth to the most, get the grades in equal parts.
    """
    generator = _seeded(sample_seed)
    hidden = torch.randn(features, generator=generator)
    inputs = torch.randn(samples, items, features, generator=generator)
    worth = inputs @ (hidden / hidden.norm()) + noise * torch.randn(samples, items, generator=generator)
    place = worth.argsort(dim=1).argsort(dim=1)  # (N, I), 0 for the least worth
    relevance = place * grades // items
    return dataset.divide(Split(inputs, relevance.float()), outputs=items, task="ranking", **shares)


def ring(samples: int, modes: int, radius: float, spread: float, sample_seed: int, **shares: Any) -> Dataset:
    """Small Gaussians evenly on a circle, for a GAN: inputs (N, 2), targets (N, 2) the same points.

    They are not standardized, so that the centres are where the facts say.

    Facts: centres (a list of `modes` pairs) and spread (the deviation around each).
    """
    angle = 2 * math.pi * torch.arange(modes) / modes
    centres = radius * torch.stack([angle.cos(), angle.sin()], dim=1)
    points = centres[torch.arange(samples) % modes]
    points += spread * torch.randn(samples, 2, generator=_seeded(sample_seed))
    facts = {"centres": centres.tolist(), "spread": spread}
    shares = {**shares, "standardize": "none"}
    return dataset.divide(Split(points, points), outputs=2, task="adversarial", facts=facts, **shares)
