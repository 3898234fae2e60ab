"""Curves in the manner of MNIST-1D: each stage of the recipe against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dlexp.data import mnist1d

WORDS: dict[str, Any] = {
    "sample_seed": 0,
    "validation": 0.2,
    "test": 0.2,
    "split_seed": 0,
    "standardize": "none",
}


@pytest.mark.parametrize(("length", "shift"), [(48, 0), (60, 13), (72, 71), (57, 50)])
def test_resampling_is_numpys(length: int, shift: int) -> None:
    """Pad with zeros, np.roll, np.interp."""
    for template in mnist1d.TEMPLATES:
        ours = mnist1d.resample(template.unsqueeze(0), torch.tensor([[length]]), torch.tensor([[shift]]))
        rolled = np.roll(np.pad(template.numpy(), (0, length - 12)), shift)
        theirs = np.interp(np.linspace(0, length - 1, 40), np.arange(length), rolled)
        np.testing.assert_allclose(ours[0].numpy(), theirs, atol=1e-5)


def test_noise_is_smooth_and_has_its_deviation() -> None:
    """The rest of a set with and one without: neighbours go together as exp(-1/16) says."""
    clean, noisy = (mnist1d.load(samples=2000, noise=noise, **WORDS) for noise in (0.0, 0.25))
    rest = (noisy.train.inputs - clean.train.inputs).squeeze(2).double()
    rough = 1 / 25
    assert rest.std().item() == pytest.approx(0.25 * (1 + rough) ** 0.5, rel=0.03)
    neighbours = (rest[:, 1:] * rest[:, :-1]).mean() / rest.square().mean()
    assert neighbours.item() == pytest.approx(np.exp(-1 / 16) / (1 + rough), abs=0.01)


def test_classes_are_even_and_can_be_told_apart() -> None:
    """Nearest neighbours, scikit-learn's, are far above chance on unseen curves."""
    from sklearn.neighbors import KNeighborsClassifier

    data = mnist1d.load(samples=3000, noise=0.1, **{**WORDS, "standardize": "feature"})
    assert data.input_shape == (40, 1)
    labels = torch.cat([data.train.targets, data.validation.targets, data.test.targets])
    assert labels.bincount().tolist() == [300] * 10
    known = KNeighborsClassifier(5).fit(data.train.inputs.flatten(1), data.train.targets)
    assert known.score(data.test.inputs.flatten(1), data.test.targets) > 0.35
